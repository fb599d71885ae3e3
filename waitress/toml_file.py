"""Reading a TOML file, where Python can.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import importlib
from typing import Any

__all__ = ["read_toml"]


def read_toml(path: str) -> tuple[dict[str, Any], str]:
    """Return the table that a file holds, and its text.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not TOML; or this Python, being older than 3.11, cannot read any.
    """
    try:
        # Few have a file; the others need not carry it in memory.
        tomllib = importlib.import_module("tomllib")
    except ImportError:
        raise ValueError("TOML files need Python 3.11 or newer") from None
    with open(path, "rb") as file:
        text = file.read().decode("utf-8")
    return tomllib.loads(text), text.replace("\r\n", "\n")
