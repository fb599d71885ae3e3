"""The head of a request, and what it says about the rest of the connection.

:class:`HTTPRequestParser` takes the octets of one request as they come and becomes that
request. It decides, once and for all that follow: what is asked (method, target, fields),
how the body is framed, whether the client waits for a 100 (Continue), and whether the
connection may persist. Nobody looks at those header fields again.

What the RFCs forbid is refused, not repaired: a proxy in front may have read it the other
way, and then the two disagree on where the next request begins (RFC 9112, 11.2). A
refusal is a value, :attr:`HTTPRequestParser.error`; bad input raises nothing.

Clients say most of what they say again with each request. So the request line and the
field lines are looked up, as the octets that they are, among those that were read before, and
a short header section as a whole before its lines; what is found there is known to be
well-formed. Only a line that is new is read. What a line or such a section means depends on
nothing else, so that it does not matter who said it first.

Row 3: imports ``instance_defaults``, ``rfc7230``, ``buffers``, ``utilities``, ``receiver``. Knows
nothing of sockets, threads or time.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Mapping
from io import BytesIO
from typing import Any, NoReturn, Protocol, TypeVar
from urllib import parse
from urllib.parse import unquote_to_bytes

from waitress.buffers import OverflowableBuffer
from waitress.instance_defaults import InstanceDefaults
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver
from waitress.rfc7230 import (
    HEADER_FIELD_RE,
    HOST_RE,
    ONLY_DIGIT_RE,
    REFUSED_WHEN_REPEATED,
    REQUEST_FIELDS,
    TCHAR,
    TOKEN,
    first_malformed_line,
)
from waitress.utilities import (
    BadRequest,
    Error,
    ExpectationFailed,
    InsufficientStorage,
    RequestEntityTooLarge,
    RequestHeaderFieldsTooLarge,
    ServerNotImplemented,
    find_double_newline,
)

__all__ = [
    "HEADER_FIELD_RE",
    "SINGLETON_FIELDS",
    "TRANSITIONS",
    "HTTPRequestParser",
    "ParserState",
    "ParsingError",
    "TransferEncodingNotImplemented",
    "crack_first_line",
    "find_double_newline",
    "first_line_re",
    "get_header_lines",
    "parse",
    "split_uri",
    "unquote_bytes_to_wsgi",
]

#: Keys of the fields that may stand in a request only once; the whole table, with the
#: sections of the RFCs, is :data:`waitress.rfc7230.REQUEST_FIELDS`.
SINGLETON_FIELDS = REFUSED_WHEN_REPEATED

#: Most characters of a client's own words that an answer repeats.
_SAMPLE_CHARS = 200

#: Most entries of a cache whose keys clients choose, and the longest of those keys.
_MOST_KEPT = 1024
_LONGEST_KEPT = 255

_CR, _LF = b"\r\n"


_Key = TypeVar("_Key", str, bytes)
_Value = TypeVar("_Value")


class _Cache(dict[_Key, _Value]):
    """What was found out about what clients send; a subclass finds it out when missing.

    Only what follows from the key alone is kept, so that no client can make another's
    request mean something else. Bounded in number and size, and emptied when full: a
    client that fills it costs the others some microseconds.

    Threads: any; at worst two find out the same.
    """

    def keep(self, key: _Key, value: _Value) -> None:
        """Remember the value of a key that is not too long."""
        if len(key) <= _LONGEST_KEPT:
            if len(self) >= _MOST_KEPT:
                self.clear()
            self[key] = value


class ParsingError(Exception):
    """The head is refused; the first argument is what the client is told."""

    #: What is answered.
    error_class: type[Error] = BadRequest
    #: Code of the rule that was broken, see :attr:`waitress.utilities.Error.reject_reason`.
    reject_reason: str = "bad-request"
    #: What broke it; empty for the request line. See :attr:`waitress.utilities.Error.sample`.
    sample: bytes = b""


class TransferEncodingNotImplemented(Exception):  # noqa: N818 - users import the name
    """The transfer coding is not ``chunked`` alone; the first argument says so."""

    #: What is answered.
    error_class: type[Error] = ServerNotImplemented
    #: See :attr:`ParsingError.reject_reason`.
    reject_reason: str = "bad-transfer-encoding"
    #: See :attr:`ParsingError.sample`.
    sample: bytes = b""


def _refusal(message: str, reason: str, error_class: type[Error] = BadRequest) -> ParsingError:
    refusal = ParsingError(message)
    refusal.reject_reason = reason
    refusal.error_class = error_class
    return refusal


class ParserState(enum.IntEnum):
    """Where a request stands; see :data:`TRANSITIONS`."""

    #: The head is not complete.
    HEAD = 0
    #: The head is valid, and octets of a body are still to come.
    BODY = 1
    #: The request is whole. It is only read from now on.
    COMPLETE = 2
    #: The request is refused, and :attr:`HTTPRequestParser.error` says why.
    FAILED = 3


_HEAD = ParserState.HEAD
_BODY = ParserState.BODY
_COMPLETE = ParserState.COMPLETE
_FAILED = ParserState.FAILED

#: The states that may follow each state. A request never goes back.
TRANSITIONS: Mapping[ParserState, frozenset[ParserState]] = {
    _HEAD: frozenset((_BODY, _COMPLETE, _FAILED)),
    _BODY: frozenset((_COMPLETE, _FAILED)),
    _COMPLETE: frozenset(),
    _FAILED: frozenset(),
}


class ParserSettings(Protocol):
    """What a parser asks of the settings.

    Read when needed, not at the start: outsiders change settings between requests. The
    newer ``require_host``, ``max_request_header_fields`` and ``spool_dir`` have a default
    here, for settings objects that lack them.
    """

    max_request_header_size: int
    max_request_body_size: int
    inbuf_overflow: int
    url_scheme: str


class KnownSection:
    """A header section that came before, and what it says. Shared by all requests that have it.

    Only what follows from the section is kept here, and from the server that is asked: no client,
    and no parser of the user's, can make another's request mean something else.
    """

    __slots__ = ("fields", "templates")

    def __init__(self, fields: dict[str, str]) -> None:
        #: Values by name, as in a request; never changed.
        self.fields = fields
        #: Environs with these fields, for each server: :mod:`waitress.environ`.
        self.templates: dict[Any, dict[str, Any]] = {}


class HTTPRequestParser(
    metaclass=InstanceDefaults,
    in_instances=(
        "body_bytes_received",
        "body_rcv",
        "completed",
        "connection_close",
        "content_length",
        "empty",
        "error",
        "expect_continue",
        "header_bytes_received",
        "header_plus",
        "headers_finished",
        "known_section",
        "version",
    ),
):
    """Read one request; then be that request.

    Invariants: ``completed`` is true in the states COMPLETE and FAILED and no others;
    ``error`` is set exactly in FAILED; a request with an error never waits for a 100
    (Continue) and never lets its connection persist.

    Args:
        adj: the settings, see :class:`ParserSettings`.

    Threads: loop, until the request is complete; then whoever holds it, for reading.
    """

    # How far the reading went.
    #: Nothing more is taken: the request is whole, or refused. Never unset.
    completed: bool = False
    #: There was no request, only empty lines (RFC 9112, 2.2); nothing is to be answered.
    empty: bool = False
    #: The head arrived whole, well-formed or not.
    headers_finished: bool = False
    #: The part of the head that has arrived.
    header_plus: bytes | bytearray = b""
    #: Octets of head and of body, framing included, that were taken so far.
    header_bytes_received: int = 0
    body_bytes_received: int = 0

    # What is asked: not there before the head is finished, and perhaps empty if it is refused.
    first_line: bytes
    command: str
    #: ``1.0`` or ``1.1``, and ``1.1`` as well for 1.2 to 1.9 (RFC 9110, 2.5). Another
    #: major version is told as it was sent, for the server to refuse.
    version: str = "1.0"
    #: The request target as it was sent.
    request_uri: str
    #: Scheme and authority of a target in absolute form, else empty.
    proxy_scheme: str = ""
    proxy_netloc: str = ""
    #: Decoded; octets as latin-1 (PEP 3333).
    path: str
    #: Not decoded.
    query: str
    #: Always empty, since a target has none (RFC 9112, 3.2).
    fragment: str = ""
    url_scheme: str

    # What follows from it.
    #: The client awaits a 100 (Continue) before it sends the body.
    expect_continue: bool = False
    #: The connection ends with the response to this request.
    connection_close: bool = False
    chunked: bool = False
    content_length: int = 0
    #: Takes the body; None if there is none.
    body_rcv: Any = None
    #: What to answer instead of running the request; set here in the state FAILED, and by
    #: the channel for what only it can refuse.
    error: Error | None = None

    #: What the header section was known to say when it came; None where it had to be read.
    known_section: KnownSection | None = None

    # Given by the channel.
    #: Number of the request, for whoever watches.
    request_id: int
    #: Bytes of its body for which the channel has taken room in the spool.
    spooled_bytes: int
    #: Its :class:`waitress.timeline.Timeline`, where somebody wants one.
    timeline: Any = None

    def __init__(self, adj: ParserSettings) -> None:
        self.adj = adj
        # Each request needs these, and CPython finds what stands in an instance in a fourth of
        # the time that a default of the class takes.
        self.completed = False
        self.empty = False
        self.error = None
        self.expect_continue = False
        self.headers_finished = False
        self.body_rcv = None
        self.header_plus = b""
        if type(self) is HTTPRequestParser:  # Another class may have defaults of its own.
            self.version = "1.0"
            self.connection_close = False
            self.known_section = None
            self.body_bytes_received = 0
            self.content_length = 0
            self.header_bytes_received = 0
        #: Field values by name in upper case with ``_`` for ``-``; latin-1 text.
        self.headers: dict[str, str] = {}

    @property
    def state(self) -> ParserState:
        """Where the request stands: what its other attributes say, in one word."""
        if self.completed:
            return _COMPLETE if self.error is None else _FAILED
        return _HEAD if self.body_rcv is None else _BODY

    # -- octets in ---------------------------------------------------------------------

    def received(self, data: bytes) -> int:
        """Take the next octets of the request; say how many were used.

        A call takes from the head or from the body, not from both: a body in the same
        piece as the head is left to the next call.

        Args:
            data: at least one octet, cut anywhere.

        Returns:
            Octets used. Less than offered means that the head or the request ended; 0
            that the request had ended before.

        Threads: loop.
        Source: RFC 9112, 2.2 and 6.3.
        """
        if self.completed:
            return 0
        receiver = self.body_rcv
        if receiver is not None:
            return self._receive_body(receiver, data)
        if not self.header_plus:
            # As a rule the head comes in one piece.
            end = data.find(b"\r\n\r\n") + 4
            if end > 3 and end < self.adj.max_request_header_size:
                self.header_bytes_received = end
                self._finish_head(data if end == len(data) else data[:end])
                return end
        return self._receive_piece_of_head(data)

    def _receive_piece_of_head(self, data: bytes) -> int:
        head = self.header_plus
        before = len(head)
        if before:
            head += data
        else:
            head = data
        # The empty line may begin in the last three octets of what was there. What lies
        # before those was searched already: a head that drips in costs what its length says.
        end = head.find(b"\r\n\r\n", before - 3 if before > 3 else 0) + 4
        is_whole = end > 3
        used = (end if is_whole else len(head)) - before
        self.header_bytes_received += used
        limit = self.adj.max_request_header_size
        is_too_large = self.header_bytes_received >= limit
        if is_whole and not is_too_large:
            self.header_plus = b""
            self._finish_head(bytes(head[:end]))
        elif fault := _NEVER_IN_A_HEAD_RE.search(head, before - 1 if before else 0, limit):
            # Whoever ends lines in LF, or speaks TLS, waits for us, and need not wait long.
            what, reason = _FAULTS[fault.lastgroup or ""]
            error: Error = BadRequest(f"{what} found in HTTP message")
            self._refuse_unfinished_head(error, reason, head)
        elif is_too_large:
            error = RequestHeaderFieldsTooLarge(f"exceeds max_header of {limit}")
            self._refuse_unfinished_head(error, "head-too-large", head)
        elif not before:
            self.header_plus = bytearray(data)
        return used

    def _refuse_unfinished_head(self, error: Error, reason: str, head: bytes | bytearray) -> None:
        # Its first line only: those below may hold what a log should not.
        error.sample = bytes(head[:_SAMPLE_CHARS]).strip().partition(b"\n")[0]
        # What was asked is not known; whoever looks sees the simplest request there is.
        self.header_plus = b""
        self.first_line = b"GET / HTTP/1.0"
        self.command = "GET"
        self.request_uri = self.path = "/"
        self.query = ""
        self.url_scheme = self.adj.url_scheme
        self._fail(error, reason)

    def _finish_head(self, head: bytes) -> None:
        self.headers_finished = True
        if head[0] == _CR and head[1] == _LF:
            # RFC 9112, 2.2: an empty line before the request line is ignored. White space
            # of any other kind is not: it makes a request line that is none.
            head = head[2:]
            if len(head) == 2:
                self.empty = True
                self.completed = True
                return
        try:
            self.parse_header(head)
        except (ParsingError, TransferEncodingNotImplemented) as refusal:
            error = refusal.error_class(str(refusal))
            error.sample = refusal.sample
            self._fail(error, refusal.reject_reason)
            return
        if self.body_rcv is None:
            self.completed = True
        elif self.content_length >= (limit := self.adj.max_request_body_size):
            self._fail(RequestEntityTooLarge(f"exceeds max_body of {limit}"), "body-too-large")

    def _receive_body(self, receiver: Any, data: bytes) -> int:
        limit = self.adj.max_request_body_size
        # Never more than the limit, so that what is found does not depend on the cuts.
        room = limit - self.body_bytes_received
        try:
            used: int = receiver.received(data if len(data) <= room else data[: max(room, 0)])
        except (OSError, MemoryError):
            # The temporary file cannot be made or written, or memory is short. The client
            # is not told of our paths.
            error = InsufficientStorage("The request body could not be stored")
            self._fail(error, "body-not-stored")
            return len(data)
        self.body_bytes_received += used
        if receiver.error:
            self._fail(receiver.error)
        elif self.body_bytes_received >= limit:
            self._fail(RequestEntityTooLarge(f"exceeds max_body of {limit}"), "body-too-large")
        elif receiver.completed:
            if self.chunked:
                # The application sees an ordinary body of known length.
                self.headers["CONTENT_LENGTH"] = str(receiver.__len__())
            self.completed = True
        return used

    def _fail(self, error: Error, reason: str = "") -> None:
        if reason:
            error.reject_reason = reason
        if not hasattr(self, "url_scheme"):  # The request line was not come to.
            self.command = self.request_uri = self.path = self.query = ""
            self.url_scheme = self.adj.url_scheme
        self.error = error
        self.connection_close = True
        self.expect_continue = False
        self.completed = True

    # -- the head ----------------------------------------------------------------------

    def parse_header(self, header_plus: bytes) -> None:
        """Read request line and header section; set the attributes that say what they say.

        Subclasses override this to look at a head first, or to refuse more.

        Args:
            header_plus: lines that end in CRLF, the empty line at the end optional.

        Raises:
            ParsingError: the head is malformed or not acceptable.
            TransferEncodingNotImplemented: its transfer coding is not ``chunked`` alone.

        Source: RFC 9112, 2.1.
        """
        first_line, _, section = header_plus.partition(b"\r\n")
        known_section = _plain_sections.get(section) if len(section) <= _LONGEST_KEPT else None
        if known_section is not None:
            fields = known_section.fields
            known = _origin_forms[first_line]
            try:
                is_short = len(fields) <= self.adj.max_request_header_fields  # type: ignore[attr-defined]
            except AttributeError:  # Settings of somebody's own: line by line.
                is_short = False
            if known is not None and known[2] == "1.1" and is_short:
                # As programs ask that ask again and again.
                self.first_line = first_line
                self.command, self.request_uri, self.version, self.path, self.query = known
                self.url_scheme = self.adj.url_scheme
                self.known_section = known_section
                headers = self.headers = fields.copy()
                if "CONNECTION" in headers:
                    self.connection_close = not _persists("1.1", headers["CONNECTION"])
                else:
                    self.connection_close = False
                if "CONTENT_LENGTH" in headers:
                    self._choose_framing(headers)
                return
        self._read_lines(header_plus, section)

    def _read_lines(self, header_plus: bytes, section: bytes) -> None:
        """Read a head line by line; remember its section where that says what is usual."""
        first_line, *lines = header_plus.split(b"\r\n")
        if len(lines) < 2 or lines.pop() or lines.pop():
            first_line, *lines = _with_empty_line(header_plus).split(b"\r\n")[:-2]
        self.first_line = first_line
        try:
            headers = dict(map(_field_of_line, lines))
        except _MalformedLineError:
            raise _bad_field_line(lines) from None
        if len(headers) != len(lines) or "" in headers:
            # A name is repeated, or to be dropped.
            headers = _join_fields(lines)
        self.headers = headers
        known = _origin_forms[first_line]
        if known is None:
            self._read_other_form(first_line)
        else:
            self.command, self.request_uri, self.version, self.path, self.query = known
            self.url_scheme = self.adj.url_scheme
        # Not before: a request line that is hopeless is refused as soon as it comes, and
        # the answer must not depend on how the head was cut.
        limit = self._most_fields()
        if len(lines) > limit:
            raise _too_many_fields(limit)
        host = headers.get("HOST")
        if not (host and _is_authority[host]):
            self._refuse_host(host)
        if known is None and self.proxy_netloc:
            # RFC 9112, 3.2.2: the authority of the target wins; Host is ignored.
            headers["HOST"] = self.proxy_netloc
        if "CONNECTION" in headers:
            self.connection_close = not _persists(self.version, headers["CONNECTION"])
        else:
            self.connection_close = self.version != "1.1"
        if "TRANSFER_ENCODING" in headers or "CONTENT_LENGTH" in headers:
            self._choose_framing(headers)
        if "EXPECT" in headers:
            self._read_expectation(headers["EXPECT"])
        # (One that tells of a coding has lost that field by now, and so is not whole.)
        if (
            len(section) <= _LONGEST_KEPT
            and known is not None
            and headers.keys() <= _PLAIN_FIELDS
            and host
            and len(headers) == len(lines)
            and header_plus.endswith(b"\r\n\r\n")
            # As it may be where the request or the settings want more care.
            and section not in _plain_sections
        ):
            _plain_sections.keep(section, KnownSection(headers.copy()))

    def _most_fields(self) -> int:
        """Return how many field lines a head may have."""
        try:
            limit: int = self.adj.max_request_header_fields  # type: ignore[attr-defined]
        except AttributeError:  # Settings of somebody's own; getattr() would take longer.
            limit = 200
        return limit

    def _read_other_form(self, line: bytes) -> None:
        """Read a request line whose target is no path, or refuse it."""
        match = _REQUEST_LINE_RE.match(line.decode("latin-1"))
        if match is None:
            self._refuse_request_line()
        command, target, version = match.groups()
        self.command = command
        self.request_uri = target
        self.version = _served_version(version)
        self.path = self.query = ""
        self.url_scheme = self.adj.url_scheme
        if command == "CONNECT":
            # RFC 9110, 9.3.6: this is no proxy. Never run as a path.
            raise _refusal("CONNECT is not supported", "connect", ServerNotImplemented)
        if target == "*" and command == "OPTIONS":
            # asterisk-form (RFC 9112, 3.2.4)
            self.path = "*"
        else:
            self._read_absolute_form(target)

    def _refuse_request_line(self) -> NoReturn:
        line = self.first_line
        if b"\r" in line or b"\n" in line:
            raise _refusal("Bare CR or LF found in HTTP message", "bare-cr-lf")
        _method, uri, version = crack_first_line(line)
        if not version:
            reason = "no-version" if uri else "bad-request-line"
            raise _refusal("Start line is invalid", reason)
        # Method and version are good, so it is the target: "#" or octets beyond ASCII.
        self.version = _served_version(version.decode("latin-1"))
        raise _refusal("Bad URI", "bad-target")

    def _read_absolute_form(self, target: str) -> None:
        """Read ``http://authority/path?query`` (RFC 9112, 3.2.2)."""
        scheme, netloc, path, query, _ = split_uri(target.encode("latin-1"))
        # RFC 9110, 4.2.4: user information in an authority is treated as an error.
        if scheme not in ("http", "https") or not _is_authority[netloc]:
            raise _refusal("Bad URI", "bad-target")
        self.proxy_scheme = scheme
        self.proxy_netloc = netloc
        self.path = path
        self.query = query

    def _refuse_host(self, host: str | None) -> None:
        """Refuse a bad Host, and none where one is needed (RFC 9112, 3.2)."""
        if host:
            raise _refusal("Invalid Host header", "bad-host")
        if self.version == "1.1" and getattr(self.adj, "require_host", True):
            # RFC 9110, 4.2.1: an http URI without a host is invalid. The setting is named
            # for the sake of whoever configures a health checker.
            raise _refusal("Host header is missing (setting: require_host)", "no-host")

    def _choose_framing(self, headers: dict[str, str]) -> None:
        """Decide how the body is delimited: the steps of RFC 9112, 6.3 for requests."""
        if "TRANSFER_ENCODING" in headers:
            _check_transfer_encoding(self.version, headers)
            del headers["TRANSFER_ENCODING"]
            self.chunked = True
            self.body_rcv = ChunkedReceiver(
                self._new_buffer(),
                max_body=self.adj.max_request_body_size,
                max_trailer_bytes=self.adj.max_request_header_size,
                max_trailer_fields=getattr(self.adj, "max_request_header_fields", 200),
            )
            return
        length = self.content_length = _content_lengths[headers["CONTENT_LENGTH"]]
        if length:
            self.body_rcv = FixedStreamReceiver(length, self._new_buffer(length))

    def _new_buffer(self, expected: int = 0) -> OverflowableBuffer:
        try:
            spool_dir: str | None = self.adj.spool_dir  # type: ignore[attr-defined]
        except AttributeError:  # As in _most_fields().
            spool_dir = None
        return OverflowableBuffer(self.adj.inbuf_overflow, spool_dir, expected)

    def _read_expectation(self, value: str) -> None:
        """Set ``expect_continue``, or refuse what cannot be met (RFC 9110, 10.1.1)."""
        # In an HTTP/1.0 request it is to be ignored.
        if self.version != "1.1":
            return
        expectations = _options[value]
        if not expectations <= {"100-continue"}:
            raise _refusal("Expectation not supported", "bad-expectation", ExpectationFailed)
        self.expect_continue = bool(expectations) and self.body_rcv is not None

    # -- the body, once the request is complete ------------------------------------------

    def get_body_stream(self) -> Any:
        """Return the body as a binary file, positioned at its start."""
        receiver = self.body_rcv
        return BytesIO() if receiver is None else receiver.getfile()

    def close(self) -> None:
        """Give back what the body takes: memory or a temporary file."""
        receiver = self.body_rcv
        if receiver is not None:
            receiver.getbuf().close()


def _share_names() -> None:
    """Have a first request with all attributes there are.

    Since 3.11 CPython keeps the names of attributes once for all instances of a class, as far as
    the first thirty had them, and thirty of them. The first request with a body after many without
    would get a dict for what it has more than they, and so would all like it; and in 3.11 each of
    them would have the methods of all others looked up anew.
    """
    first = HTTPRequestParser.__new__(HTTPRequestParser)
    for name in ("adj", "headers", *HTTPRequestParser.__annotations__):
        setattr(first, name, None)


_share_names()

# What makes a head malformed wherever it stands, so that the rest need not be awaited.
_NEVER_IN_A_HEAD_RE = re.compile(
    rb"(?P<control>[\x00-\x08\x0b\x0c\x0e-\x1f\x7f])|(?P<crlf>(?<!\r)\n|\r[^\n])"
)
_FAULTS = {
    "control": ("Control character", "control-character"),
    "crlf": ("Bare CR or LF", "bare-cr-lf"),
}


# -- request line ----------------------------------------------------------------------

# method = token. Methods are case-sensitive (RFC 9110, 9.1) and the registered ones have no
# lower-case letters; one that has is a typing error that some servers mend and some do not.
_METHOD = TCHAR.replace("A-Za-z", "A-Z") + "+"

# The visible characters of ASCII but "#". More than RFC 3986 allows, since browsers send
# the likes of "|" and "{" as they are (URL Standard, query percent-encode set). No "#",
# since none sends that, and what stands behind it is path to some and fragment to others
# (CVE-2023-45539).
_TARGET = r'[!"$-~]+'
_QUERY = r'[!"$-~]*'
_PATH = r'[!"$->@-~]*'

# request-line = method SP request-target SP HTTP-version
_REQUEST_LINE_RE = re.compile(rf"({_METHOD}) ({_TARGET}) HTTP/([0-9]\.[0-9])\Z")

# The same with a target in origin-form = absolute-path [ "?" query ] (RFC 9112, 3.2.1).
_ORIGIN_FORM_RE = re.compile(rf"({_METHOD}) ((/{_PATH})(?:\?({_QUERY}))?) HTTP/([0-9]\.[0-9])\Z")


class _OriginForms(_Cache[bytes, "tuple[str, str, str, str, str] | None"]):
    """What request lines say whose target is a path: method, target, version, path, query.

    None for all others, be they in another form, not served, or malformed.
    """

    def __missing__(self, line: bytes) -> tuple[str, str, str, str, str] | None:
        match = _ORIGIN_FORM_RE.match(line.decode("latin-1"))
        if match is None:
            return None
        command, target, path, query, version = match.groups("")
        if command == "CONNECT":
            return None
        if "%" in path:
            path = unquote_bytes_to_wsgi(path.encode("latin-1"))
        said = command, target, _served_version(version), path, query
        # A query is rarely the same for long, and may hold what is secret.
        if not query:
            self.keep(line, said)
        return said


_origin_forms = _OriginForms()

#: A request line without its CRLF: groups ``method``, ``uri`` and ``version``. Lower-case
#: methods, a missing version and octets beyond ASCII match: they have messages of their own.
first_line_re = re.compile(
    rb"(?P<method>" + TCHAR.encode() + rb"+) (?P<uri>[\x21-\x7e\x80-\xff]+)"
    rb"(?: HTTP/(?P<version>[0-9]\.[0-9]))?\Z"
)


def crack_first_line(line: bytes) -> tuple[bytes, bytes, bytes]:
    """Split a request line into method, target and version.

    Args:
        line: the line without its CRLF.

    Returns:
        The three; version is empty if the line has none, all are if it is malformed.

    Raises:
        ParsingError: the method has lower-case letters.

    Source: RFC 9112, 3.
    """
    match = first_line_re.match(line)
    if match is None:
        return b"", b"", b""
    method, uri, version = match.group("method", "uri", "version")
    if method != method.upper():
        sample = method[:_SAMPLE_CHARS].decode("latin-1")
        raise _refusal(f'Malformed HTTP method "{sample}"', "bad-method")
    return method, uri, version or b""


def _served_version(version: str) -> str:
    """Return the version that a request of *version* is served as (RFC 9110, 2.5)."""
    return "1.1" if "1.1" <= version <= "1.9" else version


# -- request target --------------------------------------------------------------------


def unquote_bytes_to_wsgi(bytestring: bytes) -> str:
    """Decode percent-encoding, and the octets to text as PEP 3333 says."""
    return unquote_to_bytes(bytestring).decode("latin-1")


# RFC 3986, appendix B, with the scheme by its grammar.
_URI_RE = re.compile(
    r"(?:([A-Za-z][A-Za-z0-9+.\-]*):)?(?://([^/?#]*))?([^?#]*)(?:\?([^#]*))?(?:#(.*))?"
)
_CONTROL_RE = re.compile(rb"[\x00-\x1f\x7f]")


def split_uri(uri: bytes) -> tuple[str, str, str, str, str]:
    """Split a target of any form into scheme, authority, path, query and fragment.

    Args:
        uri: the target. With two slashes in front it is a path, not an authority.

    Returns:
        The five as text; the path is decoded, as :func:`unquote_bytes_to_wsgi` does. What
        is not there is empty.

    Raises:
        ParsingError: there are control characters, octets beyond ASCII, or a bracket
            without its other half.

    Source: RFC 3986, 3 and appendix B.
    """
    text = uri.decode("latin-1")
    if _CONTROL_RE.search(uri):
        raise _refusal("Bad URI", "bad-target")
    if text.startswith("//"):
        text, _, fragment = text.partition("#")
        return "", "", *_split_path(text), fragment
    match = _URI_RE.fullmatch(text)
    if match is None or not text.isascii():
        raise _refusal("Bad URI", "bad-target")
    scheme, netloc, path, query, fragment = match.groups("")
    if ("[" in netloc) != ("]" in netloc):
        raise _refusal("Bad URI", "bad-target")
    return scheme.lower(), netloc, _decode_path(path), query, fragment


def _split_path(text: str) -> tuple[str, str]:
    path, _, query = text.partition("?")
    return _decode_path(path), query


def _decode_path(path: str) -> str:
    return unquote_bytes_to_wsgi(path.encode("latin-1")) if "%" in path else path


class _Authorities(_Cache[str, bool]):
    """Whether a text is ``uri-host [ ":" port ]`` with a host that is not empty."""

    def __missing__(self, text: str) -> bool:
        match = HOST_RE.match(text)
        if match is None or int(match["port"] or 0) > 65535:
            return False
        self.keep(text, True)
        return True


_is_authority = _Authorities()


# -- field lines -----------------------------------------------------------------------


class _MalformedLineError(Exception):
    """A line is no field line."""


_TOKEN_RE = re.compile((TOKEN + r"\Z").encode("latin-1"))


class _FieldKeys(_Cache[bytes, str]):
    """Keys of field names as they were spelled; empty for a name that is to be dropped.

    Raises:
        _MalformedLineError: on look-up; the name is no token.
    """

    def __missing__(self, name: bytes) -> str:
        if _TOKEN_RE.match(name) is None:
            raise _MalformedLineError
        # "_" and "-" are one in the environ: X_Forwarded_For must not pass for the
        # X-Forwarded-For that a proxy in front sets or removes.
        key = "" if b"_" in name else name.decode("latin-1").upper().replace("-", "_")
        self.keep(name, key)
        return key


_field_keys = _FieldKeys()

# Every octet that may not stand in a field value becomes NUL, which may not either: one
# pass in C, a tenth of what a pattern takes.
_FORBIDDEN_TO_NUL = bytes(c if c == 9 or (c > 31 and c != 127) else 0 for c in range(256))

# Keys of the fields that are kept with their values: what is the same in many requests, and
# is no secret. Cookie and Authorization are, and a Referer may hold one.
_KEPT_FIELDS = frozenset(
    (
        "ACCEPT",
        "ACCEPT_CHARSET",
        "ACCEPT_ENCODING",
        "ACCEPT_LANGUAGE",
        "CACHE_CONTROL",
        "CONNECTION",
        "CONTENT_LENGTH",
        "CONTENT_TYPE",
        "DNT",
        "EXPECT",
        "HOST",
        "KEEP_ALIVE",
        "ORIGIN",
        "PRAGMA",
        "PRIORITY",
        "SEC_CH_UA",
        "SEC_CH_UA_MOBILE",
        "SEC_CH_UA_PLATFORM",
        "SEC_FETCH_DEST",
        "SEC_FETCH_MODE",
        "SEC_FETCH_SITE",
        "SEC_FETCH_USER",
        "SEC_GPC",
        "TE",
        "TRANSFER_ENCODING",
        "UPGRADE",
        "UPGRADE_INSECURE_REQUESTS",
        "USER_AGENT",
        "VIA",
        "X_FORWARDED_HOST",
        "X_FORWARDED_PORT",
        "X_FORWARDED_PROTO",
        "X_REQUESTED_WITH",
    )
)


class _FieldLines(_Cache[bytes, tuple[str, str]]):
    """Keys and values of field lines; an empty key where the field is to be dropped.

    Raises:
        _MalformedLineError: on look-up; the line is none of
            :data:`waitress.rfc7230.HEADER_FIELD_RE`.
    """

    def __missing__(self, line: bytes) -> tuple[str, str]:
        name, colon, value = line.partition(b":")
        key = _field_keys[name]
        # NUL by its number, since to look for bytes in bytes takes several times as long.
        if not colon or 0 in value.translate(_FORBIDDEN_TO_NUL):
            raise _MalformedLineError
        field = key, value.strip(b" \t").decode("latin-1")
        if key in _KEPT_FIELDS:
            self.keep(line, field)
        return field


_field_lines = _FieldLines()
_field_of_line = _field_lines.__getitem__


#: Fields of which a plain section consists.
_PLAIN_FIELDS = _KEPT_FIELDS - {"EXPECT", "TRANSFER_ENCODING"}

#: What header sections say, by the sections themselves with their empty line. Only such
#: as are good for any target in HTTP/1.1, with a Host, no field twice, and nothing to be decided
#: but the length of the body and whether the connection stays: a program's requests differ in
#: their targets, and seldom in these.
_plain_sections: _Cache[bytes, KnownSection] = _Cache()


def _join_fields(lines: Iterable[bytes]) -> dict[str, str]:
    """Make one value of each name's lines (RFC 9110, 5.3)."""
    values: dict[str, list[str]] = {}
    for line in lines:
        key, value = _field_lines[line]
        if key in SINGLETON_FIELDS and key in values:
            name = line.partition(b":")[0].decode("latin-1")
            raise _refusal(f"Duplicate header: {name}", "duplicate-field")
        if key:
            values.setdefault(key, []).append(value)
    return {key: _separator(key).join(lines) for key, lines in values.items()}


def _separator(key: str) -> str:
    field = REQUEST_FIELDS.get(key)
    return field.separator if field else ", "


def _bad_field_line(lines: Iterable[bytes]) -> ParsingError:
    line, reason = first_malformed_line(b"".join([line + b"\r\n" for line in lines]))
    start = line[:_SAMPLE_CHARS]
    sample = start.decode("latin-1")
    if reason == "bare-cr-lf":
        refusal = _refusal(f'Bare CR or LF found in header line "{sample}"', reason)
    elif reason == "obs-fold":
        refusal = _refusal(f'Folded header line "{sample}"', reason)
    else:
        refusal = _refusal("Invalid header", reason)
    refusal.sample = start
    return refusal


def _with_empty_line(head: bytes) -> bytes:
    """Return a head with the empty line behind it that its caller left out."""
    if b"\r\n" not in head:
        raise _refusal("HTTP message header invalid", "bad-request-line")
    return head + (b"\r\n" if head.endswith(b"\r\n") else b"\r\n\r\n")


def _too_many_fields(limit: int) -> ParsingError:
    message = f"exceeds max_request_header_fields of {limit}"
    return _refusal(message, "too-many-fields", RequestHeaderFieldsTooLarge)


def get_header_lines(header: bytes) -> list[bytes]:
    """Split a header section into lines, folded ones joined.

    For users who look at heads by themselves: the parser refuses folded lines.

    Args:
        header: lines that end in CRLF; empty ones are dropped.

    Returns:
        The lines without CRLF. Of a folded line, only the CRLF is removed.

    Raises:
        ParsingError: a line holds a lone CR or LF, or the first one is a continuation.

    Source: RFC 9112, 5.2.
    """
    lines: list[list[bytes]] = []
    for line in header.split(b"\r\n"):
        sample = line[:_SAMPLE_CHARS].decode("latin-1")
        if b"\r" in line or b"\n" in line:
            raise _refusal(f'Bare CR or LF found in header line "{sample}"', "bare-cr-lf")
        if line.startswith((b" ", b"\t")):
            if not lines:
                raise _refusal(f'Malformed header line "{sample}"', "obs-fold")
            lines[-1].append(line)
        elif line:
            lines.append([line])
    return [b"".join(pieces) for pieces in lines]


# -- what the fields say ---------------------------------------------------------------


class _OptionSets(_Cache[str, frozenset[str]]):
    """The members of a list of tokens, in lower case (RFC 9110, 5.6.1)."""

    def __missing__(self, value: str) -> frozenset[str]:
        members = {member.strip(" \t").lower() for member in value.split(",")}
        options = frozenset(members - {""})
        self.keep(value, options)
        return options


_options = _OptionSets()


def _persists(version: str, connection: str) -> bool:
    """Say whether the client lets the connection persist (RFC 9112, 9.3)."""
    options = _options[connection]
    if "close" in options:
        return False
    return version == "1.1" or (version == "1.0" and "keep-alive" in options)


def _check_transfer_encoding(version: str, headers: Mapping[str, str]) -> None:
    """Refuse all transfer codings but one ``chunked`` (RFC 9112, 6.1 and 6.3)."""
    if version != "1.1":
        # RFC 9112, 6.1: the framing is to be treated as faulty.
        message = f"Transfer-Encoding is not allowed in HTTP/{version}"
        raise _refusal(message, "transfer-encoding-version")
    codings = [coding.strip(" \t").lower() for coding in headers["TRANSFER_ENCODING"].split(",")]
    if not all(codings):
        # RFC 9110, 5.6.1.2 has empty members ignored; a proxy in front might not.
        raise _refusal("Transfer-Encoding is invalid.", "bad-transfer-encoding")
    if set(codings) != {"chunked"}:
        raise TransferEncodingNotImplemented("Transfer-Encoding requested is not supported.")
    if len(codings) > 1:
        raise TransferEncodingNotImplemented(
            "Transfer-Encoding is invalid. Multiple chunked encodings requested."
        )
    if "CONTENT_LENGTH" in headers:
        # RFC 9112, 6.3 (3): ought to be handled as an error.
        message = "Content-Length and Transfer-Encoding in one request"
        raise _refusal(message, "length-and-transfer-encoding")


class _ContentLengths(_Cache[str, int]):
    """The length that a Content-Length field gives (RFC 9110, 8.6)."""

    def __missing__(self, value: str) -> int:
        if ONLY_DIGIT_RE.match(value.encode("latin-1")) is None:
            raise _refusal("Content-Length is invalid", "bad-content-length")
        # Twenty digits are more than any limit, and int() takes no more than some thousands.
        length = int(value.lstrip("0")[:20] or 0)
        self.keep(value, length)
        return length


_content_lengths = _ContentLengths()
