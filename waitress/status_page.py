"""The live page of the status listener, and the policy under which browsers show it.

Owns nothing but the document, ``status_page.html``: one file that needs no other, so that
it works where there is no network but the one to this server. Its style and its script
stand in it and are named by their hashes; nothing else may be loaded, run or sent anywhere.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import pkgutil
import re

__all__ = ["content_security_policy", "page"]


@functools.cache
def page() -> bytes:
    """Return the document."""
    document = pkgutil.get_data("waitress", "status_page.html")
    assert document is not None
    return document


@functools.cache
def content_security_policy() -> str:
    """Return the strictest policy that lets the page work (CSP Level 3)."""
    return (
        f"default-src 'none'; style-src {_hash_of(b'style')}; script-src {_hash_of(b'script')}; "
        "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    )


def _hash_of(element: bytes) -> str:
    """Return the source expression that allows the one inline element of this name."""
    pattern = b"<" + element + b">(.*?)</" + element + b">"
    (text,) = re.findall(pattern, page(), re.S)
    return f"'sha256-{base64.b64encode(hashlib.sha256(text).digest()).decode('ascii')}'"
