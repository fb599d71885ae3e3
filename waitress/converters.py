"""Converters: what the user gave, native or text, to the type of a setting.

They are pure, and know of no setting. What is given comes natively typed from a program,
and as text from a command line or a configuration file; both serve.

Row 3: imports ``peers``, and ``access_format`` when a format without a name is given.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from waitress.peers import TrustedPeers, split_trusted

__all__ = [
    "as_access_log_format",
    "as_callable",
    "as_socket_list",
    "as_trusted_proxy",
    "asbool",
    "aslist",
    "aslist_cronly",
    "asoctal",
    "asseconds",
    "asset",
    "int_ifgiven",
    "slash_fixed_str",
    "str_iftruthy",
    "truthy",
]

#: The texts, in lower case, that switch a boolean setting on.
truthy: frozenset[str] = frozenset({"t", "true", "y", "yes", "on", "1"})

_NAMED_FORMATS = ("common", "combined", "json")


def asbool(s: Any) -> bool:
    """Read a boolean: a text of :data:`truthy` is true, any other false."""
    if s is None:
        return False
    if isinstance(s, bool):
        return s
    return str(s).strip().lower() in truthy


def asoctal(s: str) -> int:
    """Read a number in base 8 from text (``"600"`` or ``"0o600"``).

    Raises:
        TypeError: ``s`` is not text. A number is refused on purpose: 600 may be meant
            as it stands or as its digits.
        ValueError: the text is not an octal number.
    """
    return int(s, 8)


def asseconds(value: Any) -> int | float:
    """Read a length of time in seconds, whole or fractional.

    Raises:
        ValueError: the text is not a number.
        TypeError: neither text nor a number.
    """
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as not_whole:
            try:
                return float(value)
            except ValueError:
                raise not_whole from None
    number = float(value)
    return int(number) if number.is_integer() else number


def int_ifgiven(value: Any) -> int | None:
    """Read a whole number; ``None`` and blank text mean that there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return int(value)


def aslist_cronly(value: str | Iterable[str]) -> list[str]:
    """Split text into its lines, stripped and without the empty ones; list anything else."""
    if isinstance(value, str):
        return [line for line in map(str.strip, value.splitlines()) if line]
    return list(value)


def aslist(value: str | Iterable[str]) -> list[str]:
    """Split text, or each text of an iterable, at white space."""
    return [word for line in aslist_cronly(value) for word in line.split()]


def asset(value: str | Iterable[str]) -> set[str]:
    """Split as :func:`aslist` does; drop the repetitions."""
    return set(aslist(value))


def slash_fixed_str(s: str) -> str:
    """Give a path prefix exactly one slash in front and none behind; leave ``""`` empty."""
    s = s.strip()
    if not s:
        return ""
    return "/" + s.lstrip("/").rstrip("/")


def str_iftruthy(s: Any) -> str | None:
    """Read text; whatever is empty or false means that there is none."""
    return str(s) if s else None


def as_trusted_proxy(value: Any) -> str | None:
    """Read the peers to trust; return them between blanks, or ``None`` where there is none.

    Raises:
        ValueError: see :class:`waitress.peers.TrustedPeers`.
    """
    words = split_trusted(value)
    TrustedPeers(words)
    return " ".join(words) or None


def as_access_log_format(value: Any) -> str:
    """Read the format of access log lines; return it as it is.

    Raises:
        ValueError: see :func:`waitress.access_format.make_format`.
    """
    text = str(value)
    if text not in _NAMED_FORMATS:
        # Most are content with one that has a name, and need not carry this in memory.
        from waitress.access_format import make_format

        make_format(text)
    return text


def as_callable(value: Any) -> Any:
    """Take what can be called; ``None`` means that there is nothing to call.

    Raises:
        ValueError: it cannot be called, as no text can.
    """
    if value is not None and not callable(value):
        raise ValueError("not callable")
    return value


def as_socket_list(sockets: Iterable[Any]) -> list[socket.socket]:
    """List the sockets of an iterable in their order; drop what is no socket."""
    return [sock for sock in sockets if isinstance(sock, socket.socket)]
