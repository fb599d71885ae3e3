"""Servers and normal clients in processes of their own, and what a process costs."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

ROOT = Path(__file__).parent.parent.parent

#: Seconds after which something that should have happened is declared missing.
PATIENCE = 50.0
#: Descriptors that the largest crowd needs, with room to spare.
DESCRIPTORS = 4096


def _spawn(
    module: str, *arguments: str, environment: Mapping[str, str] = MappingProxyType({})
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


class Work(NamedTuple):
    """What the server's threads have done since they began."""

    cpu_seconds: float
    main_thread_waits: int


class Server:
    """A server in a process of its own, and what the kernel knows of it."""

    #: What runs in the process; subclasses have their own.
    module = "tests.hostile.serving"
    #: What stands in its environment beside what stands in ours.
    environment: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **settings: Any) -> None:
        self.process = _spawn(self.module, json.dumps(settings), environment=self.environment)
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.log: list[str] = []
        self._reader = threading.Thread(target=self._read_log, daemon=True)
        self._reader.start()
        line = b""
        if select.select([self.process.stdout], [], [], PATIENCE)[0]:
            line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise AssertionError("the server did not start:\n" + "".join(self.log))
        self.port = int(line)
        self.proc = Path(f"/proc/{self.process.pid}")

    def _read_log(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log.append(line.decode("utf-8", "replace"))

    def stop(self) -> None:
        """Kill the process."""
        self.process.kill()
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    @property
    def tracebacks(self) -> int:
        """How often the log shows an exception."""
        return sum(line.startswith("Traceback") for line in self.log)

    def pss(self) -> int:
        """Return the memory that the process accounts for, in bytes."""
        for line in (self.proc / "smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
        raise AssertionError("no Pss in smaps_rollup")

    def descriptors(self) -> int:
        """Return how many descriptors are open."""
        return len(os.listdir(self.proc / "fd"))

    def spooled(self) -> int:
        """Return how many bytes the disk holds for it in temporary files."""
        total = 0
        for link in (self.proc / "fd").iterdir():
            with contextlib.suppress(OSError):  # It was closed meanwhile.
                if os.readlink(link).endswith(" (deleted)"):
                    total += link.stat().st_blocks * 512
        return total

    def work(self) -> Work:
        """Return what its threads have done since they began."""
        nanoseconds = 0
        for thread in (self.proc / "task").iterdir():
            nanoseconds += int((thread / "schedstat").read_text().split()[0])
        main = (self.proc / "task" / str(self.process.pid) / "status").read_text()
        fields = dict(line.split(":\t", 1) for line in main.splitlines())
        return Work(nanoseconds / 1e9, int(fields["voluntary_ctxt_switches"]))

    def counts(self) -> dict[str, int]:
        """Ask the server for its own counts."""
        url = f"http://127.0.0.1:{self.port}/counts"
        with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
            counts: dict[str, int] = json.loads(answer.read())
        return counts


class Asking:
    """A normal client that keeps asking, and in the end tells how long it waited."""

    def __init__(
        self, port: int, path: str = "/", pace: float = 0.01, persists: bool = True
    ) -> None:
        self.process = _spawn(
            "tests.hostile.asking", str(port), path, str(pace), str(int(persists))
        )
        self.waits: list[tuple[float, float]] = []
        self.failures: list[str] = []
        self.errors = b""

    def stop(self) -> None:
        """End it and read what it has to tell; repeatable."""
        if self.process.stdin is None or self.process.stdin.closed:
            return
        try:
            output, self.errors = self.process.communicate(timeout=PATIENCE + 10)
            told = json.loads(output)
            self.waits, self.failures = told["waits"], told["failures"]
        except (subprocess.TimeoutExpired, ValueError):
            self.process.kill()
            _, self.errors = self.process.communicate()
            self.failures = [f"gave no account: {self.errors.decode()[-500:]}"]

    def seconds(self, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Return how long each answer took to a question that was asked in a period."""
        return [wait for asked, wait in self.waits if since <= asked < until]


class Peak:
    """The highest Pss and the most spooled bytes of a server, looked at ten times a second."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._done = threading.Event()
        self.pss = server.pss()
        self.spooled = 0
        self.descriptors = 0
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def _watch(self) -> None:
        while not self._done.wait(0.1):
            with contextlib.suppress(OSError):  # The server has ended.
                self.pss = max(self.pss, self._server.pss())
                self.spooled = max(self.spooled, self._server.spooled())
                self.descriptors = max(self.descriptors, self._server.descriptors())

    def stop(self) -> None:
        """Look no more; repeatable."""
        self._done.set()
        self._thread.join()


@contextlib.contextmanager
def enough_descriptors() -> Iterator[None]:
    """Raise the soft limit for the crowd and the server, which inherits it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def serving(**settings: Any) -> Iterator[tuple[Server, contextlib.ExitStack]]:
    """Give a server, and a stack on which to put what has to end before it does."""
    with enough_descriptors():
        server = Server(**settings)
        try:
            with contextlib.ExitStack() as stack:
                yield server, stack
        except BaseException:
            print("the server's log ends:", *server.log[-40:], file=sys.stderr)
            raise
        finally:
            server.stop()


def asking(stack: contextlib.ExitStack, server: Server, **options: Any) -> Asking:
    """Start a normal client that has had its first answer when this returns."""
    server.counts()
    asker = Asking(server.port, **options)
    stack.callback(asker.stop)
    return asker


def watching(stack: contextlib.ExitStack, server: Server) -> Peak:
    """Begin to watch what a server costs."""
    peak = Peak(server)
    stack.callback(peak.stop)
    return peak


def settled(
    server: Server, connections: int, spooled: float = float("inf"), seconds: float = 30
) -> dict[str, int]:
    """Return the server's counts once it has so few connections, the asking one included.

    They are those of one question: the next may find the one before it still there.
    """
    end = time.monotonic() + seconds
    while True:
        counts = server.counts()
        has_settled = counts["channels"] <= connections and counts["spool"] <= spooled
        if has_settled or time.monotonic() > end:
            return counts
        select.select([], [], [], 0.05)


def await_that(predicate: Any, seconds: float = PATIENCE) -> bool:
    """Look again and again until it is so; say whether it came to be."""
    end = time.monotonic() + seconds
    pause = threading.Event()
    while not predicate():
        if time.monotonic() > end:
            return False
        pause.wait(0.05)
    return True
