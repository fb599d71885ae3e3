"""Backends that are restarted, a proxy in front of them, and clients that check."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.restarts.backend import answer_to
from tests.slowness import be_slow

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "examples" / "deploy"

#: Seconds after which something that should have happened is declared missing.
PATIENCE = 30.0
#: Clients at once, and the pause of each between two requests, in seconds.
CLIENTS = 10
PAUSE_SECONDS = 0.02
#: What a slow reader takes for each piece of an answer.
READ_SECONDS = 0.005
#: How often a program that tells nobody when it is ready is asked.
ASK_AGAIN_SECONDS = 0.02
#: Longer than HAProxy takes to notice, see examples/deploy/haproxy.cfg.
DRAIN_DELAY = 1.0


def is_installed(proxy: str) -> bool:
    """Say whether the proxy's program is there."""
    return find_program(proxy) is not None


def find_program(name: str) -> str | None:
    """Return the path of a program that may be for administrators only."""
    return shutil.which(name) or shutil.which(name, path="/usr/local/sbin:/usr/sbin:/sbin")


@dataclass
class Outcome:
    """What the clients of one proxy have met."""

    proxy: str
    requests: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[str, str]] = field(default_factory=list)
    exits: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def failed(self) -> Counter[str]:
        """How many requests failed, by method."""
        return Counter(method for method, _ in self.failures)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody has now.

    Below those that systems give to whoever asks for any: a client may get one of these before
    the server that it was meant for begins to listen.
    """
    ports: list[int] = []
    for port in random.sample(range(20_000, 32_000), 200):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            ports.append(port)
        if len(ports) == count:
            return ports
    raise OSError("there are no free ports")


class Backend:
    """One server process after another on the same port."""

    def __init__(self, port: int, drain_delay: float = DRAIN_DELAY) -> None:
        self.port = port
        self.drain_delay = drain_delay
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Start a process, and wait until it listens."""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.restarts.backend", str(self.port), str(self.drain_delay)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
        )
        with self.process.stdout as output:  # type: ignore[union-attr] # It is a pipe.
            assert output.readline() == b"listening\n"

    def stop(self) -> int:
        """Have the process end in order; return its status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def end(self) -> None:
        """End the process, if it has not ended."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(PATIENCE)


def await_answer(process: subprocess.Popen[bytes], port: int, path: str, status: int) -> None:
    """Wait until a foreign process answers a request in the expected way."""

    def answers() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with closing(connection), suppress(OSError, http.client.HTTPException):
            connection.request("GET", path)
            return connection.getresponse().status == status
        return False

    _await_ready(process, answers)


def await_port(process: subprocess.Popen[bytes], port: int) -> None:
    """Wait until a foreign process listens."""

    def listens() -> bool:
        with suppress(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), PATIENCE).close()
            return True
        return False

    _await_ready(process, listens)


def _await_ready(process: subprocess.Popen[bytes], is_ready: Callable[[], bool]) -> None:
    """Ask until it is so: these programs have no other way to tell that they are ready.

    What can be waited for meanwhile is that the process ends, which it should not.
    """
    deadline = time.monotonic() + PATIENCE
    while not is_ready():
        with suppress(subprocess.TimeoutExpired):
            raise AssertionError(f"ended with {process.wait(ASK_AGAIN_SECONDS)}: {process.args}")
        assert time.monotonic() < deadline, f"never ready: {process.args}"


@contextmanager
def proxy(name: str, backends: list[int], directory: Path) -> Iterator[int]:
    """Run a proxy with the configuration of examples/deploy; give its port."""
    (port,) = free_ports(1)
    example = {"haproxy": "haproxy.cfg", "nginx": "nginx.conf"}[name]
    text = (DEPLOY / example).read_text(encoding="utf-8")
    for old, new in (("8080", port), ("8081", backends[0]), ("8082", backends[1])):
        text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
    config = directory / example
    config.write_text(text, encoding="utf-8")
    program = find_program(name)
    assert program is not None
    process = subprocess.Popen([program, *proxy_arguments(name, config)], stderr=subprocess.DEVNULL)
    try:
        await_answer(process, port, "/", 200)
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE)


def proxy_arguments(name: str, config: Path) -> list[str]:
    """Return the arguments with which a proxy stays in the foreground, with a file of ours."""
    if name == "haproxy":
        return ["-db", "-f", str(config)]
    # Its workers may be another user's, who may not come to this directory.
    return ["-p", str(config.parent), "-c", str(config), "-g", "daemon off; " + _same_user()]


def _same_user() -> str:
    return "user root;" if hasattr(os, "geteuid") and os.geteuid() == 0 else ""


class Client(threading.Thread):
    """Asks for one thing after the other, on a connection that it keeps, and checks."""

    def __init__(self, number: int, port: int, outcome: Outcome, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.number = number
        self.port = port
        self.outcome = outcome
        self.stop = stop
        self.random = random.Random(number)

    def run(self) -> None:
        connection: Any = None
        count = 0
        while not self.stop.is_set():
            count += 1
            method = self.random.choice(["GET", "GET", "PUT", "POST"])
            body = b"" if method == "GET" else self.random.randbytes(self.random.randrange(20_000))
            if connection is None:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)
            self.outcome.requests[method] += 1
            problem = self._ask(connection, method, f"/{self.number}/{count}", body)
            if problem is not None:
                self.outcome.failures.append((method, problem))
                connection.close()
                connection = None
            # Long pauses leave connections idle, whose end a request may cross.
            self.stop.wait(PAUSE_SECONDS * self.random.choice([0, 1, 1, 1, 8]))
        if connection is not None:
            connection.close()

    def _ask(self, connection: Any, method: str, path: str, body: bytes) -> str | None:
        try:
            connection.request(method, path, body=body or None)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            return repr(error)
        if response.status != 200:
            return f"status {response.status}"
        if answer != answer_to(method, path, body):
            return f"wrong answer {answer[:60]!r}"
        return None


def rolling_restarts(name: str, directory: Path, restarts: int, drain_delay: float) -> Outcome:
    """Restart two backends in turns behind a proxy, under load."""
    outcome = Outcome(name)
    began = time.monotonic()
    ports = free_ports(2)
    with ExitStack() as stack:
        backends = []
        for port in ports:
            backends.append(Backend(port, drain_delay))
            stack.callback(backends[-1].end)
        front = stack.enter_context(proxy(name, ports, directory))
        stop = threading.Event()
        clients = [Client(number, front, outcome, stop) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for number in range(restarts):
            backend = backends[number % 2]
            outcome.exits[backend.stop()] += 1
            backend.start()
            # As long as whoever restarts the next one would wait for this one to be used.
            stop.wait(1.0)
        stop.set()
        for client in clients:
            client.join(PATIENCE)
    outcome.seconds = time.monotonic() - began
    return outcome


def read_slowly_through_a_stop(port: int, backend: Backend) -> tuple[bytes, int]:
    """Read a large answer slowly while the server is told to stop; return body and status."""
    sock = socket.socket()
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", port))
        sock.sendall(b"GET /large HTTP/1.1\r\nHost: localhost\r\n\r\n")
        data = bytearray(sock.recv(8192))
        assert backend.process is not None
        backend.process.send_signal(signal.SIGTERM)
        length = None
        while length is None or len(data) < length:
            piece = sock.recv(64 * 1024)
            if not piece:
                break
            data += piece
            be_slow(READ_SECONDS)
            head, separator, _ = bytes(data[:2000]).partition(b"\r\n\r\n")
            if length is None and separator:
                size = head.lower().partition(b"content-length:")[2].split(b"\r\n")[0]
                length = len(head) + 4 + int(size)
    _, _, body = bytes(data).partition(b"\r\n\r\n")
    return body, backend.process.wait(PATIENCE)
