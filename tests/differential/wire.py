"""A client that sends exact bytes and says exactly what came back.

It knows as much HTTP as is needed to tell when a response is complete; whether the server
then keeps the connection is found out by asking for ``/probe`` on it, never by waiting.
"""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

PATIENCE_SECONDS = 10.0
"""How long a server that should answer may take. Only a failing row waits that long."""

SILENCE_SECONDS = 0.4
"""How long to listen to a server that is expected to say nothing more."""

PROBE = b"GET /probe HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
_PROBED = re.compile(rb"HTTP/1\.1 200 OK\r\n(?:[^\r\n]+\r\n)*X-Probe: alive\r\n\r\n\Z")
_DATE = re.compile(rb"^Date: [A-Z][a-z]{2}, [^\r\n]{20} GMT\r$", re.MULTILINE)

Then = Literal["open", "closed", "silent"]
Address = Sequence[str | int]


@dataclass(frozen=True)
class Answer:
    """What came back.

    ``data`` is every byte but the probe's answer, ``Date`` masked. ``then`` says what
    became of the connection: ``open`` (the probe was answered), ``closed``, or ``silent``
    (neither a whole response nor an end came in time).
    """

    data: bytes
    then: Then

    def with_data(self, data: bytes) -> Answer:
        return replace(self, data=data)


@dataclass(frozen=True)
class Continue:
    """A step of a conversation: wait for an interim response."""


@dataclass(frozen=True)
class Responses:
    """A step of a conversation: wait until this many final responses have come."""

    count: int


@dataclass(frozen=True)
class HalfClose:
    """A step of a conversation: end the sending side."""


Step = bytes | Continue | Responses | HalfClose


def converse(
    address: Address, steps: Sequence[Step], methods: Sequence[str], patience_seconds: float
) -> Answer:
    """Go through ``steps``, read a response to each of ``methods``, then probe.

    Args:
        address: ``(host, port)``, or ``(path,)`` of a unix socket.
        steps: what to send and what to wait for, in order.
        methods: the method of each request that is to be answered. A server that answers
            fewer and closes is not waited for.
        patience_seconds: how long to wait for each thing that should come.
    """
    with _connected(address) as connection:
        client = _Client(connection, methods, patience_seconds)
        for step in steps:
            client.take(step)
        return client.finish()


def _connected(address: Address) -> socket.socket:
    if len(address) == 1:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.settimeout(PATIENCE_SECONDS)
        connection.connect(str(address[0]))
        return connection
    host, port = address
    return socket.create_connection((str(host), int(port)), PATIENCE_SECONDS)


class _Client:
    def __init__(
        self, connection: socket.socket, methods: Sequence[str], patience_seconds: float
    ) -> None:
        self._connection = connection
        self._methods = methods
        self._patience_seconds = patience_seconds
        self._received = b""
        self._ended = False
        self._can_send = True

    def take(self, step: Step) -> None:
        if isinstance(step, bytes):
            self._send(step)
        elif isinstance(step, HalfClose):
            self._can_send = False
            self._connection.shutdown(socket.SHUT_WR)
        elif isinstance(step, Continue):
            self._await(interim=1, final=0)
        else:
            self._await(interim=0, final=step.count)

    def finish(self) -> Answer:
        complete = self._await(interim=0, final=len(self._methods))
        if not complete and not self._ended:
            return Answer(masked(self._received), "silent")
        self._send(PROBE)
        self._await_end()
        probed = _PROBED.search(self._received)
        if probed:
            return Answer(masked(self._received[: probed.start()]), "open")
        return Answer(masked(self._received), "closed" if self._ended else "silent")

    def _send(self, data: bytes) -> None:
        if not self._can_send:
            return
        try:
            self._connection.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            self._can_send = False  # what the server said before may still be read

    def _await(self, *, interim: int, final: int) -> bool:
        """Read until so many responses have come, or the end; False when they did not."""

        def arrived() -> bool:
            counted = count_responses(self._received, self._methods)
            return counted[0] >= interim and counted[1] >= final

        deadline = time.monotonic() + self._patience_seconds
        while not arrived():
            if self._ended or not self._read_until(deadline):
                return False
        return True

    def _await_end(self) -> None:
        deadline = time.monotonic() + self._patience_seconds
        while not self._ended and self._read_until(deadline):
            pass

    def _read_until(self, deadline: float) -> bool:
        """Read once; False when the deadline passed first."""
        remaining_seconds = deadline - time.monotonic()
        if remaining_seconds <= 0:
            return False
        self._connection.settimeout(remaining_seconds)
        try:
            data = self._connection.recv(65536)
        except TimeoutError:
            return False
        except ConnectionResetError:
            data = b""
        self._received += data
        self._ended = not data
        return True


def masked(data: bytes) -> bytes:
    """``data`` with the one field hidden that two servers cannot agree on."""
    return _DATE.sub(b"Date: (masked)\r", data)


def count_responses(data: bytes, methods: Sequence[str]) -> tuple[int, int]:
    """Count the interim and the complete final responses at the start of ``data``.

    Framing as in RFC 9112, section 6.3, seen by a client that sent ``methods``. A response
    that is framed by the end of the connection is never counted, nor what nobody asked for.
    """
    interim = final = position = 0
    while final < len(methods):
        head_end = data.find(b"\r\n\r\n", position)
        if head_end < 0:
            break
        head = data[position:head_end].lower()
        position = head_end + 4
        status = head.split(b" ", 2)[1][:3]
        if status == b"100":
            interim += 1
            continue
        end = _body_end(data, position, head, methods[final], status)
        if end is None:
            break
        position = end
        final += 1
    return interim, final


def _body_end(data: bytes, start: int, head: bytes, method: str, status: bytes) -> int | None:
    if method == "HEAD" or status in (b"204", b"304"):
        return start
    if b"\r\ntransfer-encoding: chunked" in head:
        return _last_chunk_end(data, start)
    length = re.search(rb"\r\ncontent-length: *(\d+)", head)
    if length is None:
        return None
    end = start + int(length[1])
    return end if end <= len(data) else None


def _last_chunk_end(data: bytes, position: int) -> int | None:
    while True:
        line_end = data.find(b"\r\n", position)
        if line_end < 0:
            return None
        size_line = data[position:line_end]
        if not re.fullmatch(rb"[0-9A-F]+", size_line):
            return None  # no chunk at all: only the end of the connection ends this
        size = int(size_line, 16)
        position = line_end + 2 + size + 2
        if position > len(data):
            return None
        if size == 0:
            return position
