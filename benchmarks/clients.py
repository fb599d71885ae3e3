"""Clients that wrk cannot play: idle ones, slow ones, and one that fetches so much.

Row 1: imports ``launch``.
"""

from __future__ import annotations

import contextlib
import http.client
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks.launch import HOST

_PATIENCE_SECONDS = 20.0
_BUFFER_BYTES = 256 * 1024


def warm(port: int, requests: int, seconds: float) -> None:
    """Ask for the smallest answer so many times, or for so long, whichever is less."""
    deadline = time.monotonic() + seconds
    connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE_SECONDS)
    with contextlib.closing(connection):
        for _ in range(requests):
            connection.request("GET", "/")
            connection.getresponse().read()
            if time.monotonic() > deadline:
                return


def fetch(port: int, path: str, replies: int, connections: int = 1) -> int:
    """Fetch so many times, spread over connections; return how many bytes came."""
    each = max(1, replies // connections)
    with ThreadPoolExecutor(connections) as pool:
        return sum(pool.map(lambda _: _fetch_in_turn(port, path, each), range(connections)))


def _fetch_in_turn(port: int, path: str, replies: int) -> int:
    buffer = bytearray(_BUFFER_BYTES)
    received = 0
    connection = http.client.HTTPConnection(HOST, port, timeout=_PATIENCE_SECONDS)
    with contextlib.closing(connection):
        for _ in range(replies):
            connection.request("GET", path)
            reply = connection.getresponse()
            while count := reply.readinto(buffer):
                received += count
    return received


class IdleClients:
    """Clients that have had one answer each and say no more; use it as a context."""

    #: How many may wait for their answer at the same time.
    _AT_ONCE = 128

    def __init__(self, port: int) -> None:
        self._port = port
        self._clients: list[socket.socket] = []
        self._request = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"

    def __enter__(self) -> IdleClients:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._clients:
            client.close()

    def __len__(self) -> int:
        return len(self._clients)

    def open(self, count: int, patience_seconds: float) -> float:
        """Connect, ask and be answered, so many times; return the seconds it took.

        Fewer are there at the end if the time was not enough, or the server refuses.
        """
        begun = time.monotonic()
        waiting = 0
        with selectors.DefaultSelector() as selector:
            started = 0
            while len(self._clients) < count and time.monotonic() - begun < patience_seconds:
                while waiting < self._AT_ONCE and started < count:
                    client = socket.create_connection((HOST, self._port), _PATIENCE_SECONDS)
                    client.sendall(self._request)
                    selector.register(client, selectors.EVENT_READ)
                    started, waiting = started + 1, waiting + 1
                for key, _ in selector.select(0.1):
                    waiting -= 1
                    answered = key.fileobj
                    assert isinstance(answered, socket.socket)
                    selector.unregister(answered)
                    if answered.recv(4096):
                        self._clients.append(answered)
                    else:
                        answered.close()
                if not waiting and started == count:
                    break
            for key in selector.get_map().values():
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
        return time.monotonic() - begun

    def still_there(self) -> int:
        """Return how many the server has not closed meanwhile."""
        alive = 0
        for client in self._clients:
            client.setblocking(False)
            try:
                alive += bool(client.recv(1, socket.MSG_PEEK))
            except BlockingIOError:
                alive += 1
            except OSError:
                pass
        return alive


class SlowReaders:
    """Clients that read a large answer steadily, but slowly."""

    #: A small window, and segments as on an Ethernet instead of the loopback's 64 KiB:
    #: with those, the kernel's send buffer swallows the whole answer at once.
    _WINDOW_BYTES = 16 * 1024
    _SEGMENT_BYTES = 1400
    _STEP_SECONDS = 0.1

    def __init__(self, port: int, path: str, count: int, bytes_per_second: int) -> None:
        self.received = [0] * count
        self._rate = bytes_per_second
        self._clients = [self._connect(port) for _ in range(count)]
        for client in self._clients:
            client.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
            client.setblocking(False)
        self._done = threading.Event()
        self._begun = time.monotonic()
        self._thread = threading.Thread(target=self._read)

    def _connect(self, port: int) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._WINDOW_BYTES)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, self._SEGMENT_BYTES)
        client.settimeout(_PATIENCE_SECONDS)
        client.connect((HOST, port))
        return client

    def __enter__(self) -> SlowReaders:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        for client in self._clients:
            client.close()

    def fed(self) -> int:
        """Return how many have had at least half of what they could have read."""
        enough = self._rate * (time.monotonic() - self._begun) / 2
        return sum(received >= enough for received in self.received)

    def _read(self) -> None:
        for at in self._steps():
            allowed = int(self._rate * at)
            for number, client in enumerate(self._clients):
                with contextlib.suppress(OSError):  # Nothing there, or cut: not fed.
                    wanted = max(0, allowed - self.received[number])
                    self.received[number] += len(client.recv(wanted)) if wanted else 0

    def _steps(self) -> Iterator[float]:
        while not self._done.wait(self._STEP_SECONDS):
            yield time.monotonic() - self._begun
