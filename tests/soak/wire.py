"""A client's connection that sends and reads at the same time, and reads strictly."""

from __future__ import annotations

import hashlib
import select
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

#: Seconds after which something that should have come is declared missing.
PATIENCE = 120.0
#: The longest head or chunk-size line that a response of ours may have.
_LONGEST_LINE = 4096

Address = tuple[str, int] | str


class WrongAnswer(Exception):  # noqa: N818 - what it says
    """What came is not what the request asked for."""


@dataclass(frozen=True)
class Asked:
    """One request, and what its answer has to be."""

    method: str
    #: The bytes to send; cut where a client pauses.
    octets: bytes
    status: int
    #: The name that the answer repeats; "" where the server itself answers.
    name: str
    body_size: int
    body_hash: str
    #: Whether the answer is to end early, and the connection with it.
    is_cut: bool = False
    ends: bool = False
    #: Whether the body waits for an invitation, and comes behind so many octets of head.
    expects_behind: int = 0


@dataclass
class Pace:
    """How a client sends and reads; in bytes, and seconds between two of them."""

    send_bytes: int = 1 << 20
    send_pause: float = 0.0
    read_bytes: int = 1 << 16
    read_pause: float = 0.0


class Connection:
    """One connection; the first thing that is wrong with it is raised."""

    def __init__(self, address: Address, pace: Pace, receive_buffer: int = 0) -> None:
        self._sock = socket.socket(socket.AF_UNIX if isinstance(address, str) else socket.AF_INET)
        self._sock.settimeout(PATIENCE)
        if receive_buffer:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._sock.connect(address)
        self._sock.setblocking(False)
        self._pace = pace
        self._unsent = memoryview(b"")
        self._buffer = bytearray()
        self._sends_at = self._reads_at = 0.0
        self.has_ended = False
        self.received = 0

    def close(self, *, reset: bool = False) -> None:
        if reset:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def half_close(self) -> None:
        """Send all, and say that nothing more will come."""
        self._go_on(lambda: not self._unsent)
        self._sock.shutdown(socket.SHUT_WR)

    def send(self, octets: bytes) -> None:
        """Have the octets sent, from now on and while answers are read."""
        self._unsent = memoryview(bytes(self._unsent) + octets)

    def send_all(self) -> None:
        self._go_on(lambda: not self._unsent or self.has_ended)

    def read_some(self, size: int) -> None:
        """Read at least so many bytes of whatever comes, and look at none."""
        wanted = self.received + size
        self._go_on(lambda: self.received >= wanted or self.has_ended)

    # -- answers

    def read_answer(self, asked: Asked) -> None:
        """Read the answer to a request, and find it right or raise."""
        head = self._read_head()
        while head[0].split()[1] == "100":
            if not asked.expects_behind:
                raise WrongAnswer(f"invited for nothing: {asked.octets[:80]!r}")
            head = self._read_head()
        fields = {}
        for line in head[1:]:
            name, _, value = line.partition(": ")
            if name.lower() in fields:
                raise WrongAnswer(f"{name} stands twice: {head}")
            fields[name.lower()] = value
        told = (int(head[0].split()[1]), fields.get("x-name", ""), fields.get("x-method", ""))
        if told != (asked.status, asked.name, asked.method if asked.name else ""):
            raise WrongAnswer(f"{told} is the answer to {asked.octets[:80]!r}")
        if "date" not in fields:
            raise WrongAnswer(f"no Date: {head}")
        self._read_body(asked, fields)
        if asked.ends or asked.is_cut:
            self.await_end()
        elif fields.get("connection", "") == "close":
            raise WrongAnswer(f"Connection: close after {asked.octets[:80]!r}")

    def await_invitation(self) -> None:
        """Read ``100 Continue``."""
        head = self._read_head()
        if head != ["HTTP/1.1 100 Continue"]:
            raise WrongAnswer(f"no invitation but {head}")

    def await_end(self) -> None:
        """Find that the server ends the connection, without another byte."""
        self._go_on(lambda: self.has_ended or bool(self._buffer))
        if self._buffer:
            raise WrongAnswer(f"after the end: {bytes(self._buffer[:80])!r}")

    def _read_head(self) -> list[str]:
        lines = []
        while line := self._read_line():
            lines.append(line)
        return lines

    def _read_body(self, asked: Asked, fields: dict[str, str]) -> None:
        if asked.method == "HEAD" or asked.status == 204:
            return
        result = hashlib.sha256()
        if fields.get("transfer-encoding") == "chunked":
            size = self._read_chunks(result.update, asked)
        elif "content-length" in fields:
            size = self._read_octets(int(fields["content-length"]), result.update, asked)
        else:
            size = self._read_octets(1 << 62, result.update, asked)
        if not asked.name:
            return
        if (size, result.hexdigest()) != (asked.body_size, asked.body_hash):
            raise WrongAnswer(f"{size} bytes, not the right ones, to {asked.octets[:80]!r}")

    def _read_chunks(self, take: Callable[[memoryview], None], asked: Asked) -> int:
        total = 0
        while size := int(self._read_line(), 16):
            if self._read_octets(size, take, asked) < size or self._read_line():
                raise WrongAnswer("a chunk does not end where it should")
            total += size
        if self._read_line():
            raise WrongAnswer("trailers of nobody's")
        return total

    def _read_octets(self, size: int, take: Callable[[memoryview], None], asked: Asked) -> int:
        left = size
        while left:
            if not self._buffer:
                self._go_on(lambda: bool(self._buffer) or self.has_ended)
            if not self._buffer:
                if asked.is_cut or size == 1 << 62:
                    break
                raise WrongAnswer(f"ended {left} bytes early: {asked.octets[:80]!r}")
            piece = bytes(self._buffer[:left])
            del self._buffer[:left]
            take(memoryview(piece))
            left -= len(piece)
        return size - left

    def _read_line(self) -> str:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > _LONGEST_LINE:
                raise WrongAnswer(f"no line: {bytes(self._buffer[:80])!r}")
            before = self.received
            self._go_on(lambda before=before: self.received > before or self.has_ended)  # type: ignore[misc]
            if self.received == before:
                raise WrongAnswer(f"ended amid a head: {bytes(self._buffer[:80])!r}")
        line = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 2]
        return line

    # -- the socket

    def _go_on(self, is_done: Callable[[], bool]) -> None:
        """Send and read, at this client's pace, until something is so."""
        deadline = time.monotonic() + PATIENCE
        while not is_done():
            now = time.monotonic()
            if now > deadline:
                raise WrongAnswer(f"nothing came for {PATIENCE:.0f} s")
            before = self.received, len(self._unsent)
            self._turn(now)
            if before != (self.received, len(self._unsent)):
                deadline = now + PATIENCE

    def _turn(self, now: float) -> None:
        poll = select.poll()
        wakes_at = now + 5
        mask = 0
        if self._unsent:
            if self._sends_at <= now:
                mask |= select.POLLOUT
            else:
                wakes_at = min(wakes_at, self._sends_at)
        if not self.has_ended:
            if self._reads_at <= now:
                mask |= select.POLLIN
            else:
                wakes_at = min(wakes_at, self._reads_at)
        if mask:
            poll.register(self._sock, mask)
        for _, flags in poll.poll(max(0.0, wakes_at - now) * 1000 + 1):
            if flags & select.POLLIN or flags & (select.POLLHUP | select.POLLERR):
                self._read(now)
            if flags & select.POLLOUT and not self.has_ended:
                self._send(now)

    def _send(self, now: float) -> None:
        try:
            count = self._sock.send(self._unsent[: self._pace.send_bytes])
        except BlockingIOError:
            return
        except ConnectionError:
            self._unsent = memoryview(b"")  # What came is still to be read.
            return
        self._unsent = self._unsent[count:]
        self._sends_at = now + self._pace.send_pause

    def _read(self, now: float) -> None:
        try:
            data = self._sock.recv(self._pace.read_bytes)
        except BlockingIOError:
            return
        except ConnectionError:
            data = b""
        if not data:
            self.has_ended = True
            self._unsent = memoryview(b"")
        self._buffer += data
        self.received += len(data)
        self._reads_at = now + self._pace.read_pause
