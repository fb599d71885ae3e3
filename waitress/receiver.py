"""Framing of a request's body on the way in: by length, or in chunks.

A receiver takes the octets behind the head, wherever they were cut, stores the content
in a buffer and says how many octets were its own. It knows nothing of requests, sockets
or settings: limits are arguments.

Both receivers share an interface: ``received(data)``, ``completed``, ``error``,
``buf``/``getbuf()``, ``getfile()`` and ``__len__``. Neither raises on bad input: it sets
``error`` and takes no more. What the buffer raises passes through.

Row 2: imports ``instance_defaults``, ``rfc7230``, ``utilities``.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Any, Protocol

from waitress.instance_defaults import InstanceDefaults
from waitress.rfc7230 import (
    CHUNK_EXT_RE,
    FORBIDDEN_TRAILER_FIELDS,
    ONLY_HEXDIG_RE,
    first_malformed_line,
    read_field_lines,
)
from waitress.utilities import (
    BadRequest,
    Error,
    RequestEntityTooLarge,
    RequestHeaderFieldsTooLarge,
    find_double_newline,
)

__all__ = [
    "MAX_CHUNK_LINE_BYTES",
    "MAX_CHUNK_OVERHEAD_BYTES",
    "MAX_TRAILER_BYTES",
    "MAX_TRAILER_FIELDS",
    "TRANSITIONS",
    "ChunkedReceiver",
    "FixedStreamReceiver",
    "ReceiverState",
    "find_double_newline",
]

#: Longest chunk-size line, extensions included, without its CRLF. Go's net/http and
#: llhttp draw the line between 4 and 16 KiB; no extension in use comes near.
MAX_CHUNK_LINE_BYTES = 4096

#: What chunk-size lines may cost over a whole body, in octets, beyond 16 for each line and
#: two for each octet of content. In proportion to the content because some protocols sign
#: every chunk in an extension; bounded beyond that because an extension means nothing
#: here, so that a body of nothing else is an attack (CVE-2023-39326 in Go, whose rule
#: this is).
MAX_CHUNK_OVERHEAD_BYTES = 16384
_FREE_LINE_BYTES = 16

#: Limits of the trailer section unless others are given, as for the head.
MAX_TRAILER_BYTES = 262144
MAX_TRAILER_FIELDS = 200


class _Buffer(Protocol):
    """What a receiver may ask of the store of the content."""

    def append(self, s: Any, /) -> object: ...
    def getfile(self) -> Any: ...
    def __len__(self) -> int: ...


class FixedStreamReceiver(metaclass=InstanceDefaults, in_instances=("completed", "error")):
    """Receive a body of known length (RFC 9112, 6.3 (6)).

    Args:
        cl: length of the body in octets.
        buf: where the content goes.

    Threads: loop.
    """

    completed: bool = False
    #: Never set: every sequence of octets is a body of that length.
    error: Error | None = None

    def __init__(self, cl: int, buf: _Buffer) -> None:
        #: Octets still to come.
        self.remain = cl
        self.buf = buf
        self.completed = False
        self.error = None

    def __len__(self) -> int:
        """Say how many octets of content are in the buffer."""
        return self.buf.__len__()

    def received(self, data: bytes) -> int:
        """Store what belongs to the body; say how many octets that was."""
        remain = self.remain
        if remain < 1:
            self.completed = True
            return 0
        used = len(data)
        if used >= remain:
            # The body ends in this piece, and is stored before it is called complete.
            self.buf.append(data if used == remain else data[:remain])
            self.remain = 0
            self.completed = True
            return remain
        self.buf.append(data)
        self.remain = remain - used
        return used

    def getfile(self) -> Any:
        """Return the content as a file."""
        return self.buf.getfile()

    def getbuf(self) -> Any:
        """Return the buffer."""
        return self.buf


class ReceiverState(enum.IntEnum):
    """Where a chunked body stands; see :data:`TRANSITIONS`."""

    #: Awaits a chunk-size line, or the rest of it.
    SIZE_LINE = 0
    #: Inside the content of a chunk.
    DATA = 1
    #: Awaits the CRLF behind the content, or the rest of it.
    DATA_CRLF = 2
    #: Behind the last chunk, up to the empty line.
    TRAILERS = 3
    #: The body is whole; nothing more is taken.
    COMPLETE = 4
    #: The body is malformed; all that follows is lost, since nobody knows what it is.
    FAILED = 5


_SIZE_LINE = ReceiverState.SIZE_LINE
_DATA = ReceiverState.DATA
_DATA_CRLF = ReceiverState.DATA_CRLF
_TRAILERS = ReceiverState.TRAILERS
_COMPLETE = ReceiverState.COMPLETE
_FAILED = ReceiverState.FAILED

#: The states that may follow each state.
TRANSITIONS: Mapping[ReceiverState, frozenset[ReceiverState]] = {
    _SIZE_LINE: frozenset((_DATA, _TRAILERS, _FAILED)),
    _DATA: frozenset((_DATA_CRLF,)),
    _DATA_CRLF: frozenset((_SIZE_LINE, _FAILED)),
    _TRAILERS: frozenset((_COMPLETE, _FAILED)),
    _COMPLETE: frozenset(),
    _FAILED: frozenset(),
}


class ChunkedReceiver:
    """Receive a body in the chunked transfer coding (RFC 9112, 7.1).

    Stricter than many: a line ends in CRLF and in nothing else, a size is hexadecimal
    digits and nothing else, and every octet of framing is checked, trailers included. Two
    readers that see different chunks see different requests behind them.

    Extensions and trailer fields are checked and dropped; trailers never become header
    fields (RFC 9110, 6.5.1).

    Args:
        buf: where the content goes.
        max_body: a body whose chunks announce this many octets or more is refused as
            soon as they do (413); None is no limit.
        max_trailer_bytes: a trailer section of this many octets or more is refused (431).
        max_trailer_fields: a trailer section of more fields is refused (431).

    Threads: loop.
    """

    #: Octets of the current chunk still to come.
    chunk_remainder: int = 0
    #: The part of a chunk-size line that has arrived.
    control_line: bytes = b""
    #: The part of the CRLF behind a chunk that has arrived.
    chunk_end: bytes = b""
    #: The trailer section with the empty line behind it; empty if there were no fields.
    trailer: bytes = b""
    error: Error | None = None
    state: ReceiverState = _SIZE_LINE

    # The state in the words of older releases; set with it.
    completed: bool = False
    validate_chunk_end: bool = False
    all_chunks_received: bool = False

    def __init__(
        self,
        buf: _Buffer,
        *,
        max_body: int | None = None,
        max_trailer_bytes: int = MAX_TRAILER_BYTES,
        max_trailer_fields: int = MAX_TRAILER_FIELDS,
    ) -> None:
        self.buf = buf
        self._max_body = max_body
        self._max_trailer_bytes = max_trailer_bytes
        self._max_trailer_fields = max_trailer_fields
        self._content_bytes = 0
        self._overhead_bytes = 0
        self._trailer = bytearray()

    def __len__(self) -> int:
        """Say how many octets of content are in the buffer."""
        return self.buf.__len__()

    def received(self, s: bytes) -> int:
        """Take what belongs to the body; say how many octets that was.

        Args:
            s: the next octets, cut anywhere.

        Returns:
            ``len(s)``, or less when the body ended in *s*. All of *s* as well when the
            body is malformed: what follows an error is never read as anything else.

        Source: RFC 9112, 7.1.
        """
        position, end = 0, len(s)
        while position < end:
            state = self.state
            if state is _SIZE_LINE:
                position = self._read_size_line(s, position)
            elif state is _DATA:
                position = self._read_data(s, position)
            elif state is _DATA_CRLF:
                position = self._read_data_crlf(s, position)
            elif state is _TRAILERS:
                position = self._read_trailers(s, position)
            elif state is _FAILED:
                return end
            else:
                break
        return position

    def _read_size_line(self, s: bytes, position: int) -> int:
        begun = self.control_line
        # No more than a line can need, so that what is copied does not grow with *s*.
        line = begun + s[position : position + MAX_CHUNK_LINE_BYTES + 2]
        end = line.find(b"\r\n")
        if not 0 <= end <= MAX_CHUNK_LINE_BYTES:
            return self._keep_size_line(line, len(s))
        self.control_line = b""
        self._begin_chunk(line[:end])
        return position + end + 2 - len(begun)

    def _keep_size_line(self, line: bytes, end: int) -> int:
        # A line of the greatest length may still lack its CRLF, or half of it.
        if len(line.removesuffix(b"\r")) > MAX_CHUNK_LINE_BYTES:
            self._fail(BadRequest("Chunk size line is too long"), "chunk-line-too-long")
        else:
            self.control_line = line
        return end

    def _begin_chunk(self, line: bytes) -> None:
        digits, semicolon, _ = line.partition(b";")
        if semicolon:
            digits = digits.rstrip(b" \t")
            if CHUNK_EXT_RE.match(line, len(digits)) is None:
                self._fail(BadRequest("Invalid chunk extension"), "bad-chunk-extension")
                return
        if ONLY_HEXDIG_RE.match(digits) is None:
            self._fail(BadRequest("Invalid chunk size"), "bad-chunk-size")
            return
        size = int(digits, 16)
        self._content_bytes += size
        if self._max_body is not None and self._content_bytes >= self._max_body:
            error = RequestEntityTooLarge(f"exceeds max_body of {self._max_body}")
            self._fail(error, "body-too-large")
            return
        overhead = self._overhead_bytes + len(line) + 2 - _FREE_LINE_BYTES - 2 * size
        if overhead > MAX_CHUNK_OVERHEAD_BYTES:
            self._fail(BadRequest("Too much chunk overhead"), "chunk-overhead")
            return
        self._overhead_bytes = max(overhead, 0)
        self.chunk_remainder = size
        self._enter(_DATA if size else _TRAILERS)

    def _read_data(self, s: bytes, position: int) -> int:
        available = len(s) - position
        remainder = self.chunk_remainder
        if available < remainder:
            self.buf.append(s[position:])
            self.chunk_remainder = remainder - available
            return len(s)
        behind = position + remainder
        self.buf.append(s[position:behind])
        self.chunk_remainder = 0
        self._enter(_DATA_CRLF)
        return behind

    def _read_data_crlf(self, s: bytes, position: int) -> int:
        begun = self.chunk_end
        found = begun + s[position : position + 2 - len(begun)]
        if found == b"\r\n":
            self.chunk_end = b""
            self._enter(_SIZE_LINE)
        elif found == b"\r":
            self.chunk_end = found
        else:
            self._fail(BadRequest("Chunk not properly terminated"), "bad-chunk-end")
        return position + len(found) - len(begun)

    def _read_trailers(self, s: bytes, position: int) -> int:
        section = self._trailer
        before = len(section)
        section += s[position : position + self._max_trailer_bytes + 4]
        if section.startswith(b"\r\n"):
            self._enter(_COMPLETE)
            return position + 2 - before
        # The blank line may begin in the last three octets of what was there.
        end = section.find(b"\r\n\r\n", max(before - 3, 0)) + 4
        size = end if end >= 4 else len(section)
        if size >= self._max_trailer_bytes:
            error = RequestHeaderFieldsTooLarge(f"exceeds max_header of {self._max_trailer_bytes}")
            self._fail(error, "trailers-too-large")
            return len(s)
        if end < 4:
            return len(s)
        self.trailer = bytes(section[:end])
        self._check_trailers(self.trailer[:-2])
        return position + end - before

    def _check_trailers(self, section: bytes) -> None:
        fields = read_field_lines(section.decode("latin-1"), 0, len(section))
        if fields is None:
            reason = first_malformed_line(section)[1]
            self._fail(BadRequest("Invalid trailer"), f"trailer-{reason}")
        elif len(fields) > self._max_trailer_fields:
            error = RequestHeaderFieldsTooLarge(
                f"exceeds max_request_header_fields of {self._max_trailer_fields}"
            )
            self._fail(error, "too-many-trailers")
        elif any(name.lower() in FORBIDDEN_TRAILER_FIELDS for name, _ in fields):
            self._fail(BadRequest("Forbidden trailer"), "forbidden-trailer")
        else:
            self._enter(_COMPLETE)

    def _fail(self, error: Error, reason: str) -> None:
        error.reject_reason = reason
        self.error = error
        self._enter(_FAILED)

    def _enter(self, state: ReceiverState) -> None:
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state
        self.validate_chunk_end = state is _DATA_CRLF
        self.all_chunks_received = state >= _TRAILERS
        self.completed = state is _COMPLETE

    def getfile(self) -> Any:
        """Return the content as a file."""
        return self.buf.getfile()

    def getbuf(self) -> Any:
        """Return the buffer."""
        return self.buf
