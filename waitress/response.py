"""The head of a response, and how its body is delimited: pure functions.

Two things are decided here and nowhere else. :func:`choose_framing` says how the
recipient will know where the body ends, whether one is sent at all, and whether the
connection can go on. :func:`check_start` says what of an application's words may reach
the wire. The rest renders.

Applications say the same again and again. What was found good is therefore remembered, as
a :class:`Start`, and so are the heads made of it: for most responses there is one look-up
to check status and fields, one to find the head, and then the length and the date are
filled in. Every memory is bounded, and holds nothing but plain strings that were checked:
an object that claims to be equal to one of them gets what was checked, not itself.

No I/O, no clock, no settings: the date and the identity of the server are arguments.
Row 2: imports nothing of the package.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterable, Sequence
from math import inf
from operator import itemgetter
from typing import Any, NamedTuple

__all__ = [
    "CHUNK_END",
    "JOIN_BYTES",
    "LAST_CHUNK",
    "BodyMode",
    "Framing",
    "Head",
    "Start",
    "check_final_status",
    "check_start",
    "check_status",
    "choose_framing",
    "chunk_heads",
    "client_keeps_alive",
    "coalesce",
    "compose_start",
    "hop_by_hop",
    "known_start",
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

#: What ends any other chunk.
CHUNK_END = b"\r\n"

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


#: What decides about a head besides status and fields: the version, whether it answers
#: HEAD, whether the length is known, whether the connection may persist, and what names
#: the server.
Circumstances = tuple[str, bool, bool, bool, "str | None"]


def _framings(mode: BodyMode) -> tuple[tuple[Framing, Framing], tuple[Framing, Framing]]:
    """Make all framings of a mode, to be indexed by ``[sends_body][keep_alive]``."""
    return (
        (Framing(mode, False, False), Framing(mode, False, True)),
        (Framing(mode, True, False), Framing(mode, True, True)),
    )


# Looked up here once: in Python 3.11 finding a member on its class takes 0.1 µs.
_MODE_LENGTH = BodyMode.LENGTH
_MODE_CHUNKED = BodyMode.CHUNKED

_NONE = _framings(BodyMode.NONE)
_LENGTH = _framings(BodyMode.LENGTH)
_CHUNKED = _framings(BodyMode.CHUNKED)
_UNTIL_CLOSE = _framings(BodyMode.UNTIL_CLOSE)


def choose_framing(
    version: str, is_head: bool, status: str, knows_length: bool, keep_alive: bool
) -> Framing:
    """Decide how a response is delimited and whether its connection persists.

    Args:
        version: ``"1.0"`` or ``"1.1"``, of the response.
        is_head: whether the request's method is HEAD.
        status: the code and the reason phrase, e.g. ``"200 OK"``.
        knows_length: whether the number of the body's bytes is known.
        keep_alive: whether client and server both wish the connection to persist.

    Source: RFC 9112, 6.3 (the numbers below) and 9.3.
    """
    if not status_allows_body(status):  # (1)
        # In HTTP/1.0 only a length tells a client that keeps the connection not to wait.
        return _NONE[False][keep_alive and version == "1.1"]
    sends_body = not is_head  # (1): the same head as for GET, and nothing after it
    if knows_length:  # (6)
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
    if connection == "keep-alive":  # As it is most often; the rest is for the others.
        return True
    options = [option.strip(" \t") for option in connection.lower().split(",")]
    if "close" in options:
        return False
    return version == "1.1" or "keep-alive" in options


class _ChunkHeads(dict[int, bytes]):
    """The first line of a chunk (RFC 9112, 7.1) by its size, made when missing."""

    def __missing__(self, size: int) -> bytes:
        _make_room(self)
        line = self[size] = b"%X\r\n" % size
        return line


#: To be indexed by the size of a chunk, at least 1: one of no bytes would be the last.
chunk_heads = _ChunkHeads()


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
#: and those that check_start() has to refuse, which it does for what is not cached.
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

#: So many fields, and so many characters in all of them, has a start that is remembered.
_START_FIELDS = 32
_START_CHARS = 2048

# Memories of what was found good, each emptied when full. Any thread may add to them or
# empty them at any time: what is missing is found out again.
_final_statuses: set[str] = set()
_canonical_names: dict[str, str] = {}
# By the pair as given: that pair, of plain strings, and the field in wire form.
_known_fields: dict[Field, tuple[Field, Field]] = {}
# By status and pairs as given.
_known_starts: dict[tuple[str, tuple[Field, ...]], Start] = {}
# By status and fields in wire form, without Content-Length: starts that differ only in
# that, as those of one page after the other do, share their heads.
_known_heads: dict[tuple[str, tuple[Field, ...]], dict[Circumstances, Head]] = {}


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


class Start:
    """What is said of a response before its body: status and fields, checked.

    Shared by all responses of which the same is said, and never changed.
    """

    __slots__ = ("content_length", "fields", "heads", "length", "status", "wire_fields")

    def __init__(
        self,
        status: str,
        fields: tuple[Field, ...],
        wire_fields: tuple[Field, ...],
        length: str | None,
        heads: dict[Circumstances, Head],
    ) -> None:
        #: The code and the reason phrase.
        self.status = status
        #: The fields in order, names as they were given.
        self.fields = fields
        #: The fields in wire form, without Content-Length.
        self.wire_fields = wire_fields
        #: What Content-Length says, as text and as a number; ``None`` without one.
        self.length = length
        self.content_length = None if length is None else int(length)
        #: The heads made so far; see :func:`render_head`, which adds to them.
        self.heads = heads


#: Find the start remembered for (status, fields), or ``None``. Raises a TypeError for what
#: is not hashable, and so not remembered either. (No function of Python's: for most
#: responses this is all there is to do, and calling one would take as long again.)
known_start: Callable[[tuple[Any, tuple[Any, ...]]], Start | None] = _known_starts.get


def check_start(status: object, headers: Iterable[Any]) -> Start:
    """Check what an application gave to ``start_response``.

    Args:
        status: the code and the reason phrase.
        headers: any iterable of (name, value) pairs; a one-shot iterator is fine.

    Raises:
        AssertionError: status, a name or a value is not a string, or a name is hop-by-hop.
        ValueError: the status cannot stand in a status line, or is an interim one (1xx);
            an item is not a pair; a name is not a token; a value holds a control
            character or one outside latin-1; Content-Length is not a non-negative
            decimal number, or is given twice.
    """
    return _make_start(check_final_status(status), headers, refused=_HOP_BY_HOP)


def compose_start(status: object, headers: Sequence[Any]) -> Start:
    """Check what a task has put together: as :func:`check_start` does, less strictly.

    The status may be an interim one, and fields may speak about the connection.

    Raises:
        AssertionError, ValueError: as above.
    """
    try:
        start = known_start((status, tuple(headers)))
    except TypeError:  # lists, where pairs should be tuples
        start = None
    return start or _make_start(check_status(status), headers, refused=frozenset())


def _make_start(status: str, headers: Iterable[Any], refused: frozenset[str]) -> Start:
    """Check the fields, and remember them together with ``status`` if that may serve."""
    fields: list[Field] = []
    wire_fields: list[Field] = []
    length: str | None = None
    is_known = status in _final_statuses
    for pair in headers:
        try:
            known = _known_fields.get(pair)
        except TypeError:  # a list, or a tuple that holds one: not hashable
            known = None
        if known is None:
            known = _check_field(_plain_pair(pair))
            is_known = is_known and known[0] in _known_fields
            if known[1][0] in refused:
                raise AssertionError(
                    f'{known[0][0]} is a "hop-by-hop" header; it cannot be used by a WSGI '
                    "application (see PEP 3333)"
                )
        given, field = known
        fields.append(given)
        if field[0] != "Content-Length":
            wire_fields.append(field)
        elif length is None:
            length = field[1]
        else:
            raise ValueError("Content-Length is given more than once")
    start = Start(status, tuple(fields), tuple(wire_fields), length, {})
    if is_known and len(fields) <= _START_FIELDS:
        _remember(start)
    return start


def _remember(start: Start) -> None:
    """Have the start found by :data:`known_start`, unless it is large."""
    if sum([len(name) + len(value) for name, value in start.fields]) > _START_CHARS:
        return
    _make_room(_known_heads)
    start.heads = _known_heads.setdefault((start.status, start.wire_fields), start.heads)
    _make_room(_known_starts)
    _known_starts[start.status, start.fields] = start


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


def _check_field(pair: Field) -> tuple[Field, Field]:
    """Check a pair of plain strings; return it, and the same with the name in wire form.

    Raises:
        ValueError: name or value cannot stand in a field line, or the value is not one
            for a field of this name.
    """
    name, value = pair
    if not (value.isascii() and value.isprintable()):
        _check_value(value)
    canonical = _canonical_names.get(name) or _canonical_name(name)
    if canonical == "Content-Length":
        _check_content_length(value)
    known = (pair, (canonical, value))
    if len(name) + len(value) <= _CACHED_CHARS and canonical not in _NEVER_CACHED:
        _make_room(_known_fields)
        _known_fields[pair] = known
    return known


def _check_content_length(value: str) -> None:
    # int() alone would take " 1_0", "+1", "-1" and the digits of every script.
    int(value)
    if not (value.isascii() and value.isdigit()):
        raise ValueError(f"Content-Length {value!r} is not a non-negative decimal number")


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

# Stand where length and date are to be filled in: no checked text has such characters.
_LENGTH_GAP = "\0"
_DATE_GAP = "\1"


class Head:
    """A head, complete but for the length of the body and the date.

    Shared by all responses that begin alike, and never changed.
    """

    __slots__ = (
        "_after_date",
        "_before_length",
        "_between",
        "_has_length",
        "is_chunked",
        "keep_alive",
        "mode",
        "sends_body",
        "told_last",
    )

    def __init__(self, framing: Framing, text: str) -> None:
        #: See :class:`Framing`.
        self.mode, self.sends_body, self.keep_alive = framing
        #: Whether body bytes follow, in chunks.
        self.is_chunked = self.sends_body and self.mode is _MODE_CHUNKED
        # Content-Length stands before Date: fields are in the order of their names.
        self._before_length, gap, rest = text.rpartition(_LENGTH_GAP)
        self._has_length = bool(gap)
        self._between, _, self._after_date = rest.partition(_DATE_GAP)
        #: Length, second and bytes of the last time :meth:`render` was called. Always
        #: replaced as a whole: a thread sees one triple or another.
        self.told_last: tuple[str | int | None, float, bytes] = (None, -inf, b"")

    def render(self, length: str | int | None, date: str, second: float = -inf) -> bytes:
        """Return the bytes of the head.

        Args:
            length: what Content-Length is to say, if the head has that.
            date: what Date is to say, unless the application has.
            second: which second that is, in seconds since the epoch, for who looks at
                :attr:`told_last` before the next call.
        """
        # A task's own True or 1.0 equals 1, for which the head is remembered as well.
        length_text = length if isinstance(length, str) else f"{int(length or 0)}"
        told = (
            self._before_length
            + (length_text if self._has_length else "")
            + self._between
            + (date if self._after_date else "")
            + self._after_date
        ).encode("latin-1")
        self.told_last = (length, second, told)
        return told


def render_head(start: Start, circumstances: Circumstances) -> Head:
    """Return the head for a start under these circumstances, and remember it with that.

    The application's fields leave in wire form, with those that are the server's to add,
    in the order of their names; fields of one name keep their order.

    Args:
        start: what was said of the response. Its Content-Length is dropped if the status
            allows no body, its Date if it is empty.
        circumstances: version (``"1.0"`` or ``"1.1"``); whether the request's method is
            HEAD; whether the length of the body is known; whether client and server both
            wish the connection to persist; and what names the server in ``Server`` or,
            where the application has sent that, in ``Via``. Nothing falsy is announced
            in ``Server``.

    Raises:
        AssertionError: the version is neither 1.0 nor 1.1.
        ValueError: what names the server cannot stand in a field line.
    """
    version, is_head, knows_length, keep_alive, ident = circumstances
    if version not in ("1.0", "1.1"):
        raise AssertionError("neither HTTP/1.0 or HTTP/1.1")
    status = start.status
    framing = choose_framing(version, is_head, status, knows_length, keep_alive)
    given = dict(start.wire_fields)
    is_dated = bool(given.get("Date"))
    fields = [field for field in start.wire_fields if is_dated or field[0] != "Date"]
    if framing.mode is _MODE_LENGTH:
        fields.append(("Content-Length", _LENGTH_GAP))
    elif framing.mode is _MODE_CHUNKED:
        fields.append(("Transfer-Encoding", "chunked"))
    if "Connection" not in given:
        if not framing.keep_alive:
            fields.append(("Connection", "close"))
        elif version == "1.0":
            fields.append(("Connection", "Keep-Alive"))
    if not is_dated:
        fields.append(("Date", _DATE_GAP))
    if "Server" in given:
        fields.append(_check_field(("Via", ident or "waitress"))[1])
    elif ident:
        fields.append(_check_field(("Server", ident))[1])
    fields.sort(key=_by_name)
    # A code alone gets the space that the grammar wants behind it.
    status_line = f"HTTP/{version} {status}" + (" " if len(status) == 3 else "")
    text = "\r\n".join([status_line, *map(_field_line, fields), "\r\n"])
    head = Head(framing, text)
    _make_room(start.heads)
    start.heads[circumstances] = head
    return head
