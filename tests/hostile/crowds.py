"""Many clients in one thread: each a socket, and what has come of it."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass, field

#: What is kept of an answer.
_KEPT = 4096

_BLOCK = b"x" * 65536

_GONE = select.POLLHUP | select.POLLERR
_ENDED = _GONE | getattr(select, "POLLRDHUP", 0)


def _await_connection(sock: socket.socket) -> None:
    poll = select.poll()  # Not select(), which knows no descriptor above 1023.
    poll.register(sock, select.POLLOUT)
    poll.poll(5000)


@dataclass
class Client:
    """One of the crowd."""

    sock: socket.socket
    begun: float = field(default_factory=time.monotonic)
    #: The first bytes of what came, and how many came altogether.
    answer: bytes = b""
    received: int = 0
    #: When the first byte came, and when the server ended the connection.
    answered_at: float | None = None
    ended_at: float | None = None
    was_reset: bool = False

    @property
    def status(self) -> int:
        """The status of the first answer; 0 when there is none."""
        words = self.answer.split(None, 2)
        return int(words[1]) if len(words) > 1 else 0

    @property
    def has_ended(self) -> bool:
        return self.ended_at is not None

    @property
    def lasted(self) -> float:
        """Seconds from its beginning to its end."""
        return float("nan") if self.ended_at is None else self.ended_at - self.begun

    def send(self, data: bytes) -> int:
        """Send what the kernel takes; return how much that was."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:
            return 0  # The end is noticed by reading.

    def receive(self, limit: int) -> None:
        """Read once."""
        try:
            data = self.sock.recv(limit)
        except BlockingIOError:
            return
        except OSError:
            self.was_reset, data = True, b""
        if data and self.answered_at is None:
            self.answered_at = time.monotonic()
        if not data:
            self.ended_at = time.monotonic()
        self.answer = (self.answer + data)[:_KEPT]
        self.received += len(data)


class Crowd:
    """Clients that connect at once and are then led together."""

    def __init__(self, port: int) -> None:
        self.clients: list[Client] = []
        self._port = port
        self._poll = select.poll()
        self._by_fd: dict[int, Client] = {}

    def connect(self, count: int, begin: bytes = b"") -> None:
        """Add so many clients, which begin by sending something."""
        new: list[Client] = []
        for _ in range(count):
            sock = socket.socket()
            sock.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                sock.connect(("127.0.0.1", self._port))
            new.append(Client(sock))
        for client in new if begin else ():
            _await_connection(client.sock)
            client.begun = time.monotonic()
            client.send(begin)
        self.clients += new

    def feed(self, size: int, seconds: float = 50) -> None:
        """Have each client send so many bytes more; it begins anew with its last piece."""
        left = dict.fromkeys((client.sock.fileno() for client in self.open), size)
        clients = {client.sock.fileno(): client for client in self.open}
        poll = select.poll()
        for fd in left:
            poll.register(fd, select.POLLOUT)
        end = time.monotonic() + seconds
        while left and time.monotonic() < end:
            for fd, flags in poll.poll(1000):
                if not flags & _GONE:
                    clients[fd].begun = time.monotonic()
                    left[fd] -= clients[fd].send(_BLOCK[: left[fd]])
                if flags & _GONE or not left[fd]:
                    poll.unregister(fd)
                    del left[fd]

    def forget_ended(self) -> int:
        """Close and forget the clients whose connections have ended; return how many."""
        ended = [client for client in self.clients if client.has_ended]
        for client in ended:
            client.sock.close()
        self.clients = self.open
        return len(ended)

    def close(self) -> None:
        for client in self.clients:
            client.sock.close()

    @property
    def open(self) -> list[Client]:
        return [client for client in self.clients if not client.has_ended]

    def read(
        self,
        seconds: float,
        *,
        every: float = 0.25,
        act: Callable[[], None] = lambda: None,
        at_once: int = 65536,
    ) -> None:
        """Read whatever comes, until all have ended or for so long; act now and then."""
        self._lead(seconds, every, act, lambda client: client.receive(at_once))

    def stall(
        self, seconds: float, act: Callable[[], None] = lambda: None, leaving: int = 0
    ) -> None:
        """Notice the first byte that comes, and read none, until no more are left."""
        self._lead(seconds, 0.25, act, self._notice, leaving)

    def _notice(self, client: Client) -> None:
        if client.answered_at is None:
            client.answered_at = time.monotonic()
        self._watch(client, _ENDED & ~_GONE)

    def _watch(self, client: Client, events: int) -> None:
        self._by_fd[client.sock.fileno()] = client
        self._poll.register(client.sock, events)

    def _lead(
        self,
        seconds: float,
        every: float,
        act: Callable[[], None],
        on_input: Callable[[Client], None],
        leaving: int = 0,
    ) -> None:
        end = time.monotonic() + seconds
        for client in self.open:
            if client.sock.fileno() not in self._by_fd:
                self._watch(client, select.POLLIN)
        acts_at = time.monotonic()
        while len(self.open) > leaving and (now := time.monotonic()) < end:
            if now >= acts_at:
                act()
                acts_at = now + every
            for fd, flags in self._poll.poll(max(0, min(end, acts_at) - now) * 1000):
                self._handle(self._by_fd[fd], flags, on_input)

    def _handle(self, client: Client, flags: int, on_input: Callable[[Client], None]) -> None:
        if flags & select.POLLIN:
            on_input(client)
        elif flags & _ENDED:
            client.was_reset = bool(flags & select.POLLERR)
            client.ended_at = time.monotonic()
        if client.has_ended:
            self._poll.unregister(client.sock)
            del self._by_fd[client.sock.fileno()]
