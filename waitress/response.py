"""The head of a response, and how its body is delimited: pure functions.

Two things are decided here and nowhere else. :func:`choose_framing` says how the
recipient will know where the body ends, whether one is sent at all, and whether the
connection can go on. :func:`check_status` and :func:`check_headers` say what of an
application's words may reach the wire. The rest renders.

No I/O, no clock, no settings: the date and the identity of the server are arguments.
Row 2: imports nothing of the package.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

__all__ = [
    "JOIN_BYTES",
    "LAST_CHUNK",
    "BodyMode",
    "Framing",
    "check_final_status",
    "check_headers",
    "check_status",
    "choose_framing",
    "client_keeps_alive",
    "coalesce",
    "complete_headers",
    "find_content_length",
    "frame_chunk",
    "hop_by_hop",
    "render_head",
    "status_allows_body",
]

#: One field of a response: its name and its value.
Field = tuple[str, str]

#: Names (in lower case) of fields that speak about the connection, not the resource: an
#: application may not send them (PEP 3333, "Other HTTP Features").
hop_by_hop = frozenset(
    (
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)

#: What ends a body of chunks: the last chunk and an empty trailer section (RFC 9112, 7.1).
LAST_CHUNK = b"0\r\n\r\n"

#: Bytes up to which copying pieces into one costs less than handling them apart.
#: (One more piece costs about as much as copying 20 KiB, CPython 3.11 on x86-64.)
JOIN_BYTES = 16384


# Framing


class BodyMode(enum.Enum):
    """How the head announces the body's end (RFC 9112, 6.3)."""

    #: The status rules a body out; the head announces nothing.
    NONE = "none"
    #: ``Content-Length``.
    LENGTH = "length"
    #: ``Transfer-Encoding: chunked``.
    CHUNKED = "chunked"
    #: The end of the connection.
    UNTIL_CLOSE = "until-close"


class Framing(NamedTuple):
    """How one response is delimited."""

    #: What the head announces. The answer to HEAD announces what GET would have got.
    mode: BodyMode
    #: Whether any body byte follows the head.
    sends_body: bool
    #: Whether the connection can carry another response after this one.
    keep_alive: bool


def _framings(mode: BodyMode) -> tuple[tuple[Framing, Framing], tuple[Framing, Framing]]:
    """Make all framings of a mode, to be indexed by ``[sends_body][keep_alive]``."""
    return (
        (Framing(mode, False, False), Framing(mode, False, True)),
        (Framing(mode, True, False), Framing(mode, True, True)),
    )


# Looked up here once: in Python 3.11 finding a member on its class takes 0.1 µs.
_MODE_NONE = BodyMode.NONE
_MODE_LENGTH = BodyMode.LENGTH
_MODE_CHUNKED = BodyMode.CHUNKED

_NONE = _framings(BodyMode.NONE)
_LENGTH = _framings(BodyMode.LENGTH)
_CHUNKED = _framings(BodyMode.CHUNKED)
_UNTIL_CLOSE = _framings(BodyMode.UNTIL_CLOSE)


def choose_framing(
    version: str, method: str, status: str, content_length: int | None, keep_alive: bool
) -> Framing:
    """Decide how a response is delimited and whether its connection persists.

    Args:
        version: ``"1.0"`` or ``"1.1"``, of the response.
        method: of the request, as sent.
        status: the code and the reason phrase, e.g. ``"200 OK"``.
        content_length: bytes of the body, if known.
        keep_alive: whether client and server both wish the connection to persist.

    Source: RFC 9112, 6.3 (the numbers below) and 9.3.
    """
    if not status_allows_body(status):  # (1)
        # In HTTP/1.0 only a length tells a client that keeps the connection not to wait.
        return _NONE[False][keep_alive and version == "1.1"]
    sends_body = method != "HEAD"  # (1): the same head as for GET, and nothing after it
    if content_length is not None:  # (6)
        return _LENGTH[sends_body][keep_alive]
    if version == "1.1":  # (4)
        return _CHUNKED[sends_body][keep_alive]
    return _UNTIL_CLOSE[sends_body][False]  # (8)


def status_allows_body(status: str) -> bool:
    """Say whether a response of this status has a body (RFC 9112, 6.3 (1)).

    Any response to a method other than HEAD has, if only an empty one, unless its status
    is 1xx, 204 or 304.
    """
    return not status.startswith(("1", "204", "304"))


def client_keeps_alive(version: str, connection: str | None) -> bool:
    """Say whether a request leaves its connection open, as far as the client decides.

    Args:
        version: ``"1.0"`` or ``"1.1"``.
        connection: the value of its Connection field; ``None`` if there was none.

    Source: RFC 9112, 9.3. ``close`` wins over whatever stands beside it.
    """
    if connection is None:
        return version == "1.1"
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    if "close" in options:
        return False
    return version == "1.1" or "keep-alive" in options


def frame_chunk(data: bytes) -> tuple[bytes, ...]:
    """Return ``data`` as one chunk (RFC 9112, 7.1), in pieces; a large one is not copied.

    Args:
        data: at least one byte: an empty chunk is the last one.
    """
    size = len(data)
    if size <= JOIN_BYTES:
        return (b"%X\r\n%b\r\n" % (size, data),)
    return (b"%X\r\n" % size, data, b"\r\n")


def coalesce(pieces: Iterable[bytes]) -> list[bytes]:
    """Join neighbours that are small, and leave what is large uncopied.

    Every byte is copied at most once, and of two neighbours in the result at least one
    is larger than ``JOIN_BYTES``.
    """
    result: list[bytes] = []
    small: list[bytes] = []
    small_bytes = 0
    for piece in pieces:
        size = len(piece)
        if size <= JOIN_BYTES:
            small.append(piece)
            small_bytes += size
            if small_bytes <= JOIN_BYTES:
                continue
        if small:
            result.append(b"".join(small))
            small.clear()
            small_bytes = 0
        if size > JOIN_BYTES:
            result.append(piece)
    if small:
        result.append(b"".join(small))
    return result


# Checks

# status-line = HTTP-version SP status-code SP [ reason-phrase ]
# reason-phrase = 1*( HTAB / SP / VCHAR / obs-text )            (RFC 9112, 4)
# A code without a reason phrase (and the space before it) is let pass: many do it, and
# render_head() adds the space.
_status = re.compile(r"[1-9][0-9][0-9](?: [\t\x20-\x7e\x80-\xff]*)?")

# field-name = token                                            (RFC 9110, 5.1 and 5.6.2)
_field_name = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")

# field-value: HTAB, SP, VCHAR and obs-text; obs-text, in latin-1, includes the control
# characters of that set, which no recipient acts on.           (RFC 9110, 5.5)
_field_value = re.compile(r"[\t\x20-\x7e\x80-\xff]*")

#: The caches below are emptied when they have grown to so many entries: an application
#: that sends ever new values costs itself the cache, and the server no memory.
_CACHE_ENTRIES = 512

#: Longer texts than this are not remembered. (Most are shorter; a Content-Security-Policy
#: just about fits.)
_CACHED_CHARS = 256

#: :data:`hop_by_hop` as on the wire.
_HOP_BY_HOP = frozenset(name.title() for name in hop_by_hop)

#: Fields that hardly ever have the same value twice, or one that is better forgotten;
#: and those that check_headers() has to refuse, which it does for what is not cached.
_NEVER_CACHED = _HOP_BY_HOP.union(
    (
        "Content-Range",
        "Date",
        "Etag",
        "Expires",
        "Last-Modified",
        "Location",
        "Set-Cookie",
        "X-Request-Id",
    )
)

# Three memories of what was found good, each emptied when full. Any thread may add to
# them or empty them at any time: what is missing is found out again.
_final_statuses: set[str] = set()
_canonical_names: dict[str, str] = {}
_canonical_fields: dict[Field, Field] = {}


def check_status(status: object) -> str:
    """Check that ``status`` can stand in a status line; return it as a plain string.

    Raises:
        AssertionError: it is not a string.
        ValueError: it holds a carriage return or line feed, or is not three digits
            followed by nothing or by a space and a reason phrase.
    """
    if type(status) is str and status in _final_statuses:
        return status
    if not isinstance(status, str):
        raise AssertionError(f"status {status!r} is not a string")
    status = str.__str__(status)
    if "\n" in status or "\r" in status:
        raise ValueError("carriage return/line feed character present in status")
    if not _status.fullmatch(status):
        raise ValueError(
            f"status {status!r} is not a three-digit code, a space and a reason phrase"
        )
    if len(status) <= _CACHED_CHARS and not status.startswith("1"):
        _make_room(_final_statuses)
        _final_statuses.add(status)
    return status


def check_final_status(status: object) -> str:
    """Check ``status`` as :func:`check_status` does, and that it is not an interim one.

    Raises:
        AssertionError: it is not a string.
        ValueError: it is not fit for a status line, or it is 1xx: what follows that is
            not the end of a response. The server itself sends those that are to be sent.
    """
    if type(status) is str and status in _final_statuses:
        return status
    status = check_status(status)
    if status.startswith("1"):
        raise ValueError(
            f"status {status!r} is an interim one (1xx); an application cannot send it"
        )
    return status


def check_headers(headers: Iterable[Any]) -> tuple[list[Field], int | None]:
    """Check an application's response fields; return them, and their Content-Length.

    Args:
        headers: any iterable of (name, value) pairs; a one-shot iterator is fine.

    Returns:
        The pairs as tuples, in order, names as they were given; and the number that
        Content-Length says, ``None`` without one.

    Raises:
        AssertionError: a name or value is not a string, or a name is hop-by-hop.
        ValueError: an item is not a pair; a name is not a token; a value holds a control
            character or one outside latin-1; Content-Length is not a non-negative
            decimal number, or is given twice.
    """
    checked: list[Field] = []
    content_length: int | None = None
    for pair in headers:
        try:
            field = _canonical_fields.get(pair)
        except TypeError:  # a list, or a tuple that holds one: not hashable
            field = None
        if field is None:
            pair = _plain_pair(pair)
            field = _canonical_field(pair)
            if field[0] in _HOP_BY_HOP:
                raise AssertionError(
                    f'{pair[0]} is a "hop-by-hop" header; it cannot be used by a WSGI '
                    "application (see PEP 3333)"
                )
        if field[0] == "Content-Length":
            if content_length is not None:
                raise ValueError("Content-Length is given more than once")
            content_length = int(field[1])
        checked.append(pair)
    return checked, content_length


def find_content_length(headers: Iterable[Field]) -> int | None:
    """Return what a Content-Length among ``headers`` says; ``None`` without one.

    Raises:
        ValueError: it is not a non-negative decimal number.
    """
    for name, value in headers:
        if len(name) == 14 and name.lower() == "content-length":
            return _parse_content_length(value)
    return None


def _parse_content_length(value: str) -> int:
    # int() alone would take " 1_0", "+1", "-1" and the digits of every script.
    number = int(value)
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"Content-Length {value!r} is not a non-negative decimal number")
    return number


def _plain_pair(pair: Any) -> Field:
    """Return ``pair`` as a tuple of plain strings.

    Raises:
        AssertionError: name or value is not a string.
        ValueError: it is not a pair.
    """
    name, value = pair
    if not isinstance(name, str):
        raise AssertionError(f"Header name {name!r} is not a string in {pair!r}")
    if not isinstance(value, str):
        raise AssertionError(f"Header value {value!r} is not a string in {pair!r}")
    # The string within an object of a subclass, whatever that overrides.
    return str.__str__(name), str.__str__(value)


def _canonical_field(pair: Field) -> Field:
    """Check a pair of plain strings; return it with the name in wire form.

    Raises:
        ValueError: name or value cannot stand in a field line, or the value is not one
            for a field of this name.
    """
    name, value = pair
    if not (value.isascii() and value.isprintable()):
        _check_value(value)
    canonical = _canonical_names.get(name) or _canonical_name(name)
    if canonical == "Content-Length":
        _parse_content_length(value)
    field = (canonical, value)
    if len(name) + len(value) <= _CACHED_CHARS and canonical not in _NEVER_CACHED:
        _make_room(_canonical_fields)
        _canonical_fields[pair] = field
    return field


def _check_value(value: str) -> None:
    if "\n" in value or "\r" in value:
        raise ValueError("carriage return/line feed character present in header value")
    if not _field_value.fullmatch(value):
        raise ValueError(
            f"control character or character outside latin-1 present in header value {value!r}"
        )


def _canonical_name(name: str) -> str:
    """Check a field name; return it with each part between hyphens capitalised."""
    if "\n" in name or "\r" in name:
        raise ValueError("carriage return/line feed character present in header name")
    if not _field_name.fullmatch(name):
        raise ValueError(f"header name {name!r} is not a token (RFC 9110, 5.6.2)")
    canonical = "-".join([part.capitalize() for part in name.split("-")])
    if len(name) <= _CACHED_CHARS:
        _make_room(_canonical_names)
        _canonical_names[name] = canonical
    return canonical


def _make_room(cache: dict[Any, Any] | set[str]) -> None:
    if len(cache) >= _CACHE_ENTRIES:
        cache.clear()


# The head

_by_name = itemgetter(0)

# Makes a line of a pair. No bytecode runs per field, and of the ways to do that (five
# fields take 0.3 µs so) it is the fastest: half the time of "%s: %s".__mod__.
_field_line = ": ".join


def complete_headers(
    version: str,
    headers: Sequence[Any],
    framing: Framing,
    content_length: int | None,
    date: str,
    ident: str | None,
) -> list[Field]:
    """Return the fields that leave: the application's, in wire form, and the server's own.

    Args:
        version: ``"1.0"`` or ``"1.1"``.
        headers: (name, value) pairs. A Content-Length among them is used as it stands,
            or dropped if the status allows no body.
        framing: as decided by :func:`choose_framing`.
        content_length: bytes of the body, for want of a field that says so.
        date: an HTTP date, for want of a Date.
        ident: what names the server in ``Server`` or, where the application has sent
            that, in ``Via``. Nothing falsy is announced in ``Server``.

    Raises:
        AssertionError: a name or value is not a string.
        ValueError: a name or value cannot stand in a field line, or Content-Length is
            not one non-negative decimal number.
    """
    known = _canonical_fields
    try:
        fields = [known.get(pair) or _canonical_field(_plain_pair(pair)) for pair in headers]
    except TypeError:  # a subclass of Task put lists among the tuples
        fields = [_canonical_field(_plain_pair(pair)) for pair in headers]
    given = dict(fields)
    if len(given) < len(fields) and [name for name, _ in fields].count("Content-Length") > 1:
        raise ValueError("Content-Length is given more than once")
    mode = framing.mode
    if mode is _MODE_NONE:
        if "Content-Length" in given:
            fields = _without(fields, "Content-Length")
    elif mode is _MODE_LENGTH:
        if "Content-Length" not in given:
            fields.append(("Content-Length", str(content_length)))
    elif mode is _MODE_CHUNKED:
        fields.append(("Transfer-Encoding", "chunked"))

    if "Connection" not in given:
        if not framing.keep_alive:
            fields.append(("Connection", "close"))
        elif version == "1.0":
            fields.append(("Connection", "Keep-Alive"))

    if not given.get("Date"):
        if "Date" in given:
            fields = _without(fields, "Date")
        fields.append(("Date", date))

    if "Server" in given:
        fields.append(("Via", ident or "waitress"))
    elif ident:
        server = ("Server", ident)
        fields.append(_canonical_fields.get(server) or _canonical_field(server))
    return fields


def render_head(version: str, status: str, fields: Iterable[Field]) -> bytes:
    """Return a status line, field lines in the order of their names, and the empty line.

    Fields of one name keep their order. All text was checked before, but for ``status``.

    Raises:
        AssertionError: the version is neither 1.0 nor 1.1, or the status not a string.
        ValueError: the status cannot stand in a status line.
    """
    if version not in ("1.0", "1.1"):
        raise AssertionError("neither HTTP/1.0 or HTTP/1.1")
    status = check_status(status)
    if len(status) == 3:
        status += " "
    lines = [f"HTTP/{version} {status}", *map(_field_line, sorted(fields, key=_by_name)), "\r\n"]
    return "\r\n".join(lines).encode("latin-1")


def _without(fields: list[Field], name: str) -> list[Field]:
    return [field for field in fields if field[0] != name]
