"""The header that a proxy puts in front of a connection it passes on unread.

A proxy that hands on TCP, not HTTP, cannot add header fields. What it knows of the client
it tells once, before the first octet of the connection: a line of text in version 1 of the
PROXY protocol, a block of binary data in version 2. :class:`ProxyProtocolReceiver` reads
either, as the octets come. Whom to believe, and how long to wait, is not decided here.

Whether there is such a header is never guessed: where one has to be, its lack is an error
("The PROXY protocol", 5; a client could otherwise write one of its own).

Row 2: imports ``peers`` and ``utilities``. Knows nothing of sockets, threads or time.

Source: "The PROXY protocol, versions 1 & 2", as published with HAProxy; section 2.1 has
version 1, section 2.2 version 2.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Mapping

from waitress.peers import read_address
from waitress.utilities import BadRequest, Error

__all__ = [
    "LONGEST_BLOCK",
    "LONGEST_LINE",
    "TRANSITIONS",
    "ProxyProtocolReceiver",
    "ProxyProtocolState",
]

#: The longest line of version 1, its CRLF included, in bytes (2.1).
LONGEST_LINE = 107

#: The longest block behind the fixed part of version 2, in bytes. Addresses take at most
#: 216. Proxies keep a header within one segment of the smallest size, 536 bytes (2.2),
#: unless they append a certificate of the client; one of those fits, and nothing needs
#: the 65,535 that the length field could ask us to keep.
LONGEST_BLOCK = 4096

_LINE_START = b"PROXY "
_SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

# Version and command, family and protocol, length of what follows.
_FIXED_PART = struct.Struct("!BBH")
_FIXED_END = len(_SIGNATURE) + _FIXED_PART.size

_LOCAL = 0x20
_PROXY = 0x21

_TCP_OVER_IPV4 = 0x11
_TCP_OVER_IPV6 = 0x21

# Every family with protocol that there is, and the bytes that its addresses take. Those
# for which nothing can be told (UDP, unix sockets, unspecified) are read like LOCAL, as
# 2.2 asks for.
_ADDRESS_BYTES = {
    0x00: 0,
    _TCP_OVER_IPV4: 12,
    0x12: 12,
    _TCP_OVER_IPV6: 36,
    0x22: 36,
    0x31: 216,
    0x32: 216,
}

_PORT = rb"(0|[1-9][0-9]{0,4})"
_LINE_RE = re.compile(
    rb"UNKNOWN(?: .*)?"
    rb"|TCP4 ([0-9.]+) ([0-9.]+) %(port)s %(port)s"
    rb"|TCP6 ([0-9A-Fa-f:.]+) ([0-9A-Fa-f:.]+) %(port)s %(port)s" % {b"port": _PORT},
    re.DOTALL,
)


class ProxyProtocolState(enum.Enum):
    """Where the reading stands; see :data:`TRANSITIONS`."""

    START = "nothing has come"
    LINE = "a header of version 1 is incomplete"
    BLOCK = "a header of version 2 is incomplete"
    COMPLETE = "the header is whole"
    FAILED = "what came is no header"


_START = ProxyProtocolState.START
_LINE = ProxyProtocolState.LINE
_BLOCK = ProxyProtocolState.BLOCK
_COMPLETE = ProxyProtocolState.COMPLETE
_FAILED = ProxyProtocolState.FAILED

#: The states that may follow each state. The first octet tells the version.
TRANSITIONS: Mapping[ProxyProtocolState, frozenset[ProxyProtocolState]] = {
    _START: frozenset((_LINE, _BLOCK, _FAILED)),
    _LINE: frozenset((_COMPLETE, _FAILED)),
    _BLOCK: frozenset((_COMPLETE, _FAILED)),
    _COMPLETE: frozenset(),
    _FAILED: frozenset(),
}


class ProxyProtocolReceiver:
    """Read the header of one connection.

    Invariants: ``error`` is set exactly in FAILED; ``source`` is None but in COMPLETE; at
    most 16 bytes and :data:`LONGEST_BLOCK` are kept.

    Threads: loop.
    """

    #: What is wrong. Not for the client, who would take it for an answer of its own, but
    #: for whoever closes the connection to log.
    error: Error | None = None
    #: Address and port of the proxy's client. None if the proxy speaks for itself, as it
    #: does to see whether the server is alive, or cannot tell: the peer is then who it is.
    source: tuple[str, int] | None = None

    def __init__(self) -> None:
        #: Assigned in one place.
        self.state = _START
        self._header = bytearray()

    @property
    def completed(self) -> bool:
        """Whether the header is whole."""
        return self.state is _COMPLETE

    @property
    def header(self) -> bytes:
        """What was taken so far."""
        return bytes(self._header)

    @property
    def sample(self) -> bytes:
        """The part of it for logs: of what is no block of version 2, the first line.

        What follows that may be a request, and hold what no log should.
        """
        header = self.header
        return header if _agree(self._header, _SIGNATURE) else header.partition(b"\n")[0]

    def received(self, data: bytes) -> int:
        """Take the next octets of the connection; say how many were used.

        Args:
            data: at least one octet, cut anywhere.

        Returns:
            Octets used. Less than offered means that the header ended, or failed; what is
            left over after the end belongs to the first request.

        Threads: loop.
        """
        if self.state is _COMPLETE or self.state is _FAILED:
            return 0
        header = self._header
        had = len(header)
        header += data[: _FIXED_END + LONGEST_BLOCK - had]
        if self.state is _START:
            self._begin()
        if self.state is _LINE:
            self._read_line()
        elif self.state is _BLOCK:
            self._read_block()
        return len(header) - had

    def _begin(self) -> None:
        first = self._header[:1]
        if first == _LINE_START[:1]:
            self._enter(_LINE)
        elif first == _SIGNATURE[:1]:
            self._enter(_BLOCK)
        else:
            self._fail_for_want_of_a_header()

    # -- version 1 ---------------------------------------------------------------------

    def _read_line(self) -> None:
        header = self._header
        if not _agree(header, _LINE_START):
            self._fail_for_want_of_a_header()
            return
        end = header.find(b"\r\n", 0, LONGEST_LINE) + 2
        if end > 1:
            del header[end:]
            self._understand_line(header[len(_LINE_START) : -2])
        elif len(header) >= LONGEST_LINE:
            self._fail(f"the line exceeds {LONGEST_LINE} bytes")

    def _understand_line(self, line: bytearray) -> None:
        match = _LINE_RE.fullmatch(line)
        if match is None:
            self._fail("the line is malformed")
            return
        told = [group.decode("ascii") for group in match.groups() if group is not None]
        if not told:
            self._finish(None)
            return
        *hosts, source_port, destination_port = told
        source, destination = map(read_address, hosts)
        is_family_right = all((":" in host) is line.startswith(b"TCP6") for host in hosts)
        if source is None or destination is None or not is_family_right:
            self._fail("an address is malformed")
        elif max(int(source_port), int(destination_port)) > 65535:
            self._fail("a port is larger than 65535")
        else:
            self._finish((str(source), int(source_port)))

    # -- version 2 ---------------------------------------------------------------------

    def _read_block(self) -> None:
        header = self._header
        if not _agree(header, _SIGNATURE):
            self._fail_for_want_of_a_header()
            return
        if len(header) < _FIXED_END:
            return
        version_and_command, family, length = _FIXED_PART.unpack_from(header, len(_SIGNATURE))
        if version_and_command not in (_LOCAL, _PROXY):
            self._fail("the version or command is unknown")
        elif length > LONGEST_BLOCK:
            self._fail(f"the block exceeds {LONGEST_BLOCK} bytes")
        elif version_and_command == _PROXY and length < _ADDRESS_BYTES.get(family, length + 1):
            self._fail("the family is unknown, or its addresses are incomplete")
        elif len(header) >= _FIXED_END + length:
            # What follows the addresses are records for whoever knows them (2.2.1 ff.).
            del header[_FIXED_END + length :]
            is_told = version_and_command == _PROXY
            self._finish(_source(family, header[_FIXED_END:]) if is_told else None)

    # -- the end -----------------------------------------------------------------------

    def _finish(self, source: tuple[str, int] | None) -> None:
        self.source = source
        self._enter(_COMPLETE)

    def _fail_for_want_of_a_header(self) -> None:
        self._fail("there is no PROXY protocol header", "proxy-protocol-missing")

    def _fail(self, text: str, reason: str = "proxy-protocol-malformed") -> None:
        self.error = BadRequest(text)
        self.error.reject_reason = reason
        self._enter(_FAILED)

    def _enter(self, state: ProxyProtocolState) -> None:
        assert state in TRANSITIONS[self.state], (self.state, state)
        self.state = state


def _agree(header: bytearray, start: bytes) -> bool:
    """Say whether the header, perhaps short, begins so."""
    return header[: len(start)] == start[: len(header)]


def _source(family: int, block: bytearray) -> tuple[str, int] | None:
    """Return the source that a block of version 2 tells: address, then port (2.2)."""
    if family == _TCP_OVER_IPV4:
        host, port = struct.unpack_from("!4s4xH", block)
        return ".".join(map(str, host)), port
    if family == _TCP_OVER_IPV6:
        host, port = struct.unpack_from("!16s16xH", block)
        return str(read_address(host.hex(":", 2))), port
    return None
