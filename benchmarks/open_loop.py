"""Clients that come when they come, whether the server keeps up or not (an open loop).

wrk and its like wait for an answer before they ask again, so that a slow server is asked
less; the world does not do that. Here requests arrive at random instants at a given rate,
each on a connection that happens to be free, or else on a new one; and each client has
patience for a while, and then closes its connection.

Row 1: imports ``launch``.
"""

from __future__ import annotations

import contextlib
import random
import re
import select
import socket
import time
from collections import deque
from dataclasses import dataclass, field

from benchmarks.launch import HOST

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_CLOSE = re.compile(rb"\r\nconnection: *close", re.IGNORECASE)
_IN, _OUT = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLIN | select.EPOLLOUT


@dataclass
class Outcome:
    """How the requests of the measured time fared."""

    seconds: float
    offered: int = 0
    #: Seconds after which each answer of 200 came that came in time.
    good: list[float] = field(default_factory=list)
    refused: int = 0
    #: No answer while the client waited.
    late: int = 0
    #: The connection was refused or ended without an answer.
    broken: int = 0
    #: How late the load itself was at the worst, in seconds.
    lag: float = 0.0

    def latency(self, part: float) -> float | None:
        """Return how long so large a part of the good answers took at the most, in seconds."""
        ordered = sorted(self.good)
        return ordered[min(int(part * len(ordered)), len(ordered) - 1)] if ordered else None


class _Connection:
    """One connection, and the request that is on it, if there is one."""

    __slots__ = ("begun", "counts", "data", "is_busy", "is_new", "sock")

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.data = b""
        self.begun = 0.0
        self.is_busy = False
        self.is_new = True
        self.counts = False


class OpenLoop:
    """Offers a load; the clients' side of a benchmark.

    Args:
        port: where the server listens.
        path: what is asked for.
        rate: requests a second, on average; the time between two is random (exponential).
        patience: how long a client waits for its answer, in seconds.
        seed: decides the instants.
    """

    def __init__(self, port: int, path: str, rate: float, patience: float, seed: int) -> None:
        self._address = (HOST, port)
        self._request = f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()
        self._rate = rate
        self._patience = patience
        self._random = random.Random(seed)
        self._epoll = select.epoll()
        self._open: dict[int, _Connection] = {}
        #: The last to be free is the first to be used, so that few are.
        self._free: dict[int, _Connection] = {}
        #: Those that wait for an answer, and since when, the longest first.
        self._waiting: deque[tuple[float, _Connection]] = deque()

    def run(self, warming: float, seconds: float) -> Outcome:
        """Offer the load for so long; count what was asked after the warming."""
        outcome = Outcome(seconds)
        begun = time.monotonic()
        counting, end = begun + warming, begun + warming + seconds
        due = begun
        try:
            while (now := time.monotonic()) < end + self._patience:
                while due <= now and due < end:
                    outcome.lag = max(outcome.lag, now - due)
                    self._ask(outcome, due, counts=due >= counting)
                    due += self._random.expovariate(self._rate)
                self._give_up(outcome, now)
                wait = (due if due < end else end + self._patience) - time.monotonic()
                for fd, events in self._epoll.poll(max(0.0, min(wait, 0.01))):
                    self._handle(outcome, fd, events)
                if due >= end and not self._waiting:
                    break
        finally:
            for connection in tuple(self._open.values()):
                self._drop(connection)
            self._epoll.close()
        return outcome

    def _ask(self, outcome: Outcome, when: float, *, counts: bool) -> None:
        outcome.offered += counts
        if self._free:
            connection = self._free.popitem()[1]
        else:
            sock = socket.socket()
            sock.setblocking(False)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = _Connection(sock)
            self._open[sock.fileno()] = connection
            sock.connect_ex(self._address)
            self._epoll.register(sock, _OUT)
        # From when the client came: that the load itself was late is no excuse.
        connection.begun, connection.counts, connection.is_busy = when, counts, True
        self._waiting.append((when, connection))
        if not connection.is_new:
            self._send(outcome, connection)

    def _send(self, outcome: Outcome, connection: _Connection) -> None:
        try:
            connection.sock.send(self._request)
        except OSError:
            self._end(outcome, connection, "broken")
            self._drop(connection)

    def _handle(self, outcome: Outcome, fd: int, events: int) -> None:
        connection = self._open.get(fd)
        if connection is None:
            return
        if connection.is_new and events & select.EPOLLOUT:
            connection.is_new = False
            self._epoll.modify(fd, _IN)
            self._send(outcome, connection)
            return
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        connection.data += data
        if not data:
            self._end(outcome, connection, "broken")
            self._drop(connection)
        else:
            self._read(outcome, connection)

    def _read(self, outcome: Outcome, connection: _Connection) -> None:
        head, found, body = connection.data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head) if found else None
        if length is None or len(body) < int(length[1]):
            return
        self._end(outcome, connection, "good" if head[9:12] == b"200" else "refused")
        connection.data = b""
        if _CLOSE.search(head):
            self._drop(connection)
        else:
            self._free[connection.sock.fileno()] = connection

    def _end(self, outcome: Outcome, connection: _Connection, how: str) -> None:
        if not connection.is_busy:
            return
        connection.is_busy = False
        if not connection.counts:
            return
        seconds = time.monotonic() - connection.begun
        if how == "good" and seconds <= self._patience:
            outcome.good.append(seconds)
        elif how == "refused":
            outcome.refused += 1
        elif how == "broken":
            outcome.broken += 1
        else:
            outcome.late += 1

    def _give_up(self, outcome: Outcome, now: float) -> None:
        waiting = self._waiting
        while waiting:
            since, connection = waiting[0]
            if connection.is_busy and connection.begun == since:
                if now - since < self._patience:
                    return
                self._end(outcome, connection, "late")
                self._drop(connection)
            waiting.popleft()

    def _drop(self, connection: _Connection) -> None:
        fd = connection.sock.fileno()
        self._free.pop(fd, None)
        if self._open.pop(fd, None) is not None:
            with contextlib.suppress(OSError):
                self._epoll.unregister(fd)
            connection.sock.close()
