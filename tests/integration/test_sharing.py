"""Several processes on one address: connections spread, and restarts lose nothing."""

from __future__ import annotations

import contextlib
import http.client
import signal
import socket
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE
from tests.integration.commands import PYTHON_M, Command
from tests.integration.recipes import DEPLOY
from tests.integration.test_systemd import unit

pytestmark = pytest.mark.integration

#: Clients at once, each of which connects anew for every request.
CLIENTS = 6
#: How often each of the two processes is restarted.
RESTARTS = 3

APPLICATION = """
import os


def app(environ, start_response):
    body = b"%d %s" % (os.getpid(), environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
"""

LAUNCHER = """
import os, sys

os.dup2(int(sys.argv[1]), 3)
os.execve(sys.argv[2], sys.argv[2:], {**os.environ, "LISTEN_FDS": "1"})
"""

if not hasattr(socket, "SO_REUSEPORT"):
    pytest.skip("the system has no SO_REUSEPORT", allow_module_level=True)


class Shared:
    """One address, and the processes that serve it."""

    def __init__(self, directory: Path, start: Callable[[Shared], Command]) -> None:
        (directory / "myapp.py").write_text(APPLICATION)
        self.directory = directory
        self._start = start
        self.port = 0
        self.processes: list[Command] = []

    def start(self) -> Command:
        """Start one more; it serves when this returns."""
        command = self._start(self)
        command.await_matches("Serving on")
        self.processes.append(command)
        return command

    def ask(self, method: str = "GET", body: bytes = b"") -> tuple[int, bytes]:
        """Ask on a connection of its own; return who answered, and what was sent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.request(method, "/", body=body, headers={"Connection": "close"})
            response = connection.getresponse()
            assert response.status == 200
            pid, _, echo = response.read().partition(b" ")
            return int(pid), echo


@pytest.fixture
def reused(tmp_path: Path) -> Iterator[Shared]:
    """Processes with ``reuse_port``; the port is held, and not listened on, meanwhile."""

    def start(shared: Shared) -> Command:
        listen = f"--listen=127.0.0.1:{shared.port}"
        return Command([*PYTHON_M, listen, "--reuse-port", "myapp:app"], tmp_path)

    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        holder.bind(("127.0.0.1", 0))
        shared = Shared(tmp_path, start)
        shared.port = holder.getsockname()[1]
        yield from ended_at_last(shared)


@pytest.fixture
def instances(tmp_path: Path) -> Iterator[Shared]:
    """Instances of the template unit, with the one socket that systemd would pass to each."""
    _, *options = unit("myapp@.service")["Service"]["ExecStart"].split()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:

        def start(shared: Shared) -> Command:
            number = str(len(shared.processes) + 1)
            arguments = [*PYTHON_M, *(each.replace("%i", number) for each in options)]
            # As descriptor 3, which is where systemd puts it.
            launcher = [sys.executable, "-c", LAUNCHER, str(listener.fileno())]
            return Command([*launcher, *arguments], tmp_path, pass_fds=[listener.fileno()])

        shared = Shared(tmp_path, start)
        shared.port = listener.getsockname()[1]
        yield from ended_at_last(shared)


def ended_at_last(shared: Shared) -> Iterator[Shared]:
    try:
        yield shared
    finally:
        for each in shared.processes:
            each.end()


@pytest.fixture(params=["reused", "instances"])
def shared(request: pytest.FixtureRequest) -> Shared:
    made: Shared = request.getfixturevalue(request.param)
    return made


class Client(threading.Thread):
    """Connects and asks, again and again, and checks each answer."""

    def __init__(self, shared: Shared, number: int, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.shared = shared
        self.number = number
        self.stop = stop
        self.answered: Counter[int] = Counter()
        self.failures: list[str] = []

    def run(self) -> None:
        count = 0
        while not self.stop.is_set():
            count += 1
            body = f"{self.number}/{count}".encode()
            try:
                pid, echo = self.shared.ask("POST" if count % 2 else "PUT", body)
                assert echo == body
                self.answered[pid] += 1
            except Exception as error:
                self.failures.append(repr(error))


def rolling_restarts(shared: Shared, restart: Callable[[Command], int]) -> Any:
    """Restart each process in turn, under load; return answers by process, and failures."""
    stop = threading.Event()
    clients = [Client(shared, number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    statuses = []
    for _ in range(RESTARTS):
        for each in shared.processes[-2:]:
            stop.wait(0.3)  # Of load, between one restart and the next.
            statuses.append(restart(each))
    stop.set()
    for client in clients:
        client.join(PATIENCE)
    answered: Counter[int] = sum((client.answered for client in clients), Counter())
    failures = [each for client in clients for each in client.failures]
    return answered, failures, statuses


def test_connections_spread_over_the_processes(shared: Shared) -> None:
    pids = {shared.start().process.pid for _ in range(2)}
    answered = set()
    # Who shares one socket takes turns as it likes: several at once keep both busy.
    stop = threading.Event()
    clients = [Client(shared, number, stop) for number in range(CLIENTS)]
    for client in clients:
        client.start()
    while answered != pids:
        assert not stop.wait(0.05)
        answered = {pid for client in clients for pid in client.answered.copy()}
        assert not any(client.failures for client in clients)
    stop.set()
    for client in clients:
        client.join(PATIENCE)


def test_stopping_one_and_starting_it_again_loses_no_request(shared: Shared) -> None:
    for _ in range(2):
        shared.start()

    def restart(old: Command) -> int:
        old.process.send_signal(signal.SIGTERM)
        status = old.await_status()
        shared.start()
        return status

    answered, failures, statuses = rolling_restarts(shared, restart)
    assert failures == []
    assert statuses == [0] * 2 * RESTARTS
    assert len(answered) >= len(shared.processes) - 1
    assert answered.total() > 50 * RESTARTS


def test_starting_the_new_one_before_stopping_the_old_one_loses_no_request(reused: Shared) -> None:
    reused.start()

    def restart(_: Command) -> int:
        old = reused.processes[-1]
        reused.start()
        old.process.send_signal(signal.SIGTERM)
        return old.await_status()

    answered, failures, statuses = rolling_restarts(reused, restart)
    assert failures == []
    assert set(statuses) == {0}
    assert len(answered) >= len(reused.processes) - 1


def test_what_waits_in_the_backlog_of_a_stopping_process_is_served(reused: Shared) -> None:
    first, second = reused.start(), reused.start()
    with contextlib.ExitStack() as stack:
        # Neither accepts: who connects waits for one or the other, the request sent. Each
        # has more of them than it accepts in one turn of its loop.
        for each in (first, second):
            each.process.send_signal(signal.SIGSTOP)
            stack.callback(each.process.send_signal, signal.SIGCONT)
        clients = []
        for _ in range(200):
            client = stack.enter_context(
                socket.create_connection(("127.0.0.1", reused.port), PATIENCE)
            )
            client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            clients.append(client)
        first.process.send_signal(signal.SIGTERM)
        first.process.send_signal(signal.SIGCONT)
        assert first.await_status() == 0
        second.process.send_signal(signal.SIGCONT)
        served: Counter[int] = Counter()
        for client in clients:
            data = b"".join(iter(lambda client=client: client.recv(4096), b""))
            assert data.startswith(b"HTTP/1.1 200 OK")
            served[int(data.rpartition(b"\r\n\r\n")[2].split()[0])] += 1
    assert served[first.process.pid] > 0
    assert served[second.process.pid] > 0
    assert served.total() == 200


def test_template_unit_inherits_the_socket_that_starts_it() -> None:
    assert unit("myapp@.service")["Service"]["Sockets"] == "myapp-pool.socket"
    assert (DEPLOY / "myapp-pool.socket").exists()
    assert unit("myapp-pool.socket")["Socket"]["Service"] == "myapp@1.service"
