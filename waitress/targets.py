"""How a request is called wherever it is shown: by its target as it was sent.

Owns what of a target is shown to whom: the path to everybody; the query, which may hold
what is secret, by itself; the name and the password of a user to nobody. So a request has
one name in the log, in events, timelines and on the status page, and it is the one that
the client and the proxies before the server know.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from typing import Any

__all__ = ["shown_target"]


def shown_target(request: Any) -> tuple[str, str]:
    """Return the path of a request's target, as sent, and its query.

    Of the absolute form the path; of a form that was refused, all of it.

    Args:
        request: the parser; one of the user's may lack what it is asked for.
    """
    target, _, query = getattr(request, "request_uri", "").partition("?")
    if getattr(request, "proxy_scheme", ""):
        # RFC 9112, 3.2.2: http://authority/path
        return "/" + target.partition("://")[2].partition("/")[2], query
    return target if target[:1] == "/" else _without_user(target), query


def _without_user(target: str) -> str:
    """Take name and password of a user out of a target (RFC 9110, 4.2.4)."""
    start = target.find("://") + 3 if "://" in target else 0
    end = target.find("/", start)
    at = target.rfind("@", start, end if end >= 0 else len(target))
    return target if at < 0 else target[:start] + target[at + 1 :]
