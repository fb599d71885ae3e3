"""Signals at a high rate, while the server works: nothing is lost and nothing ends."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from tests.compat.live import chunked, request
from tests.faults.processes import FaultyServer, faulty
from tests.hostile.processes import await_that

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not hasattr(signal, "SIGUSR2"), reason="no such signals here"),
]

SECONDS = 3.0


@contextlib.contextmanager
def signalled(server: FaultyServer) -> Iterator[None]:
    """Have the server's process signalled without a pause."""
    done = threading.Event()

    def signal_it() -> None:
        while not done.wait(0.0002):
            os.kill(server.process.pid, signal.SIGUSR2)

    thread = threading.Thread(target=signal_it)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


class Client(threading.Thread):
    """Asks for bodies up and down on one connection after another, and looks at each."""

    def __init__(self, server: FaultyServer, number: int) -> None:
        super().__init__()
        self._server = server
        self._number = number
        self.answers = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        end = time.monotonic() + SECONDS
        try:
            while time.monotonic() < end:
                self._converse()
        except Exception as error:
            self.wrong.append(f"{type(error).__name__}: {error}")

    def _converse(self) -> None:
        with self._server.connect() as wire:
            for number in range(20):
                path = f"/own/{self._number}/{number}"
                self._check(wire.get(path).body, path.encode())
            wire.send(request("GET", "/blocks/700000"))
            self._check(wire.read_answer().body, b"x" * 700_000)
            wire.send(request("POST", "/body", "Transfer-Encoding: chunked"))
            wire.send(chunked([b"y" * 30_000] * 10))
            self._check(wire.read_answer().body, b"300000")
            # Pipelined: answered in order.
            paths = [f"/own/{self._number}/p{number}" for number in range(20)]
            wire.send(b"".join(request("GET", path) for path in paths))
            for path in paths:
                self._check(wire.read_answer().body, path.encode())

    def _check(self, came: bytes, wanted: bytes) -> None:
        self.answers += 1
        if hashlib.sha256(came).digest() != hashlib.sha256(wanted).digest():
            self.wrong.append(f"{came[:50]!r} instead of {wanted[:50]!r}")


def test_signals_under_load_lose_nothing(no_leaks: None) -> None:
    with faulty(threads=2, outbuf_overflow=50_000, inbuf_overflow=50_000) as server:
        clients = [Client(server, number) for number in range(4)]
        with signalled(server):
            for client in clients:
                client.start()
            for client in clients:
                client.join()
        assert [client.wrong for client in clients] == [[]] * len(clients)
        assert sum(client.answers for client in clients) > 500
        assert int(server.ask("/signals").body) > 500
        assert server.log == []
        assert await_that(lambda: server.counts() == {"spool": 0, "channels": 1})


def test_signals_to_an_idle_server_leave_it_idle(no_leaks: None) -> None:
    with faulty() as server:
        with signalled(server):
            assert await_that(lambda: int(server.ask("/signals").body) > 100)
        assert server.ask("/").body == b"/"
        assert server.log == []


def test_server_that_was_stopped_and_continued_answers_what_came_meanwhile(
    no_leaks: None,
) -> None:
    """SIGSTOP, as a debugger or a frozen container does it: time passes, nothing is lost."""
    with faulty(channel_timeout=120) as server:
        with server.connect() as wire:
            assert wire.get("/before").body == b"/before"
            os.kill(server.process.pid, signal.SIGSTOP)
            try:
                wire.send(request("GET", "/meanwhile"))
                with server.connect() as newcomer:
                    newcomer.send(request("GET", "/newcomer"))
                    os.kill(server.process.pid, signal.SIGCONT)
                    assert newcomer.read_answer().body == b"/newcomer"
            finally:
                os.kill(server.process.pid, signal.SIGCONT)
            assert wire.read_answer().body == b"/meanwhile"
