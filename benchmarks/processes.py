"""A server in a process of its own, pinned to a CPU; what its process tree costs.

Row 2: imports ``errors``, ``launch`` and ``servers``. All figures are the kernel's.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.errors import RowError
from benchmarks.launch import HOST, Facts
from benchmarks.servers import Server

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 15.0
#: The fields "utime" to "cstime" of /proc/PID/stat, counted behind the command's name.
_TIMES = slice(11, 15)


class ProcessTree:
    """A process and all that descend from it."""

    def __init__(self, pid: int) -> None:
        self._pid = pid

    def cpu_seconds(self) -> float:
        """Return the processor time of all, user and system, the dead children's included."""
        ticks = 0
        for process in self._processes():
            fields = (process / "stat").read_text().rpartition(")")[2].split()
            ticks += sum(map(int, fields[_TIMES]))
        return ticks / _TICKS

    def pss_bytes(self) -> int:
        """Return the memory of all; what several share is counted once."""
        kib = 0
        for process in self._processes():
            for line in (process / "smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    kib += int(line.split()[1])
        return kib * 1024

    def wake_ups(self) -> int:
        """Return how often a thread had waited for something and then went on."""
        count = 0
        for process in self._processes():
            for thread in (process / "task").iterdir():
                for line in (thread / "status").read_text().splitlines():
                    if line.startswith("voluntary_ctxt_switches:"):
                        count += int(line.split()[1])
        return count

    def _processes(self) -> Iterator[Path]:
        pids = [self._pid]
        for pid in pids:
            process = Path(f"/proc/{pid}")
            for children in process.glob("task/*/children"):
                pids += map(int, children.read_text().split())
            yield process


class PeakMemory:
    """The highest Pss of a tree, looked at twenty times a second while the context lasts."""

    def __init__(self, tree: ProcessTree) -> None:
        self._tree = tree
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self.pss_bytes = tree.pss_bytes()

    def __enter__(self) -> PeakMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.05):
            with contextlib.suppress(OSError):  # The server has died; the row will tell.
                self.pss_bytes = max(self.pss_bytes, self._tree.pss_bytes())


@dataclass(frozen=True)
class Cpus:
    """Which CPUs the server and the load generator may use."""

    of_server: frozenset[int]
    of_load: frozenset[int]

    @property
    def are_apart(self) -> bool:
        return not self.of_server & self.of_load

    @classmethod
    def shared(cls) -> Cpus:
        """Let the scheduler decide."""
        available = frozenset(os.sched_getaffinity(0))
        return cls(available, available)

    @classmethod
    def pinned(cls) -> Cpus:
        """Give the server one CPU of its own, if there are at least two."""
        first, *others = sorted(os.sched_getaffinity(0))
        return cls(frozenset({first}), frozenset(others)) if others else cls.shared()


@dataclass(frozen=True)
class Running:
    """A server that has answered once."""

    port: int
    tree: ProcessTree


@contextlib.contextmanager
def running(
    server: Server, binaries: Path, facts: Facts, cpus: Cpus, environment: dict[str, str], log: Path
) -> Iterator[Running]:
    """Start a server, wait for its first answer, and kill it and its children at the end.

    Raises:
        RowError: it does not answer.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            server.command(binaries, facts),
            # Not the tree: servers that import from the current directory would find it.
            cwd=log.parent,
            env={**_environment_without_python(), **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=lambda: _prepare(cpus),
        )
    try:
        _await_answer(process, facts.port, log)
        yield Running(facts.port, ProcessTree(process.pid))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def unused_port() -> int:
    """Return a port that nobody listens at now."""
    with socket.create_server((HOST, 0)) as listening:
        port: int = listening.getsockname()[1]
    return port


def raise_descriptor_limit() -> int:
    """Allow this process, and those it starts, as many descriptors as may be; tell how many."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _environment_without_python() -> dict[str, str]:
    # PYTHONPATH would show the servers modules that are not of their environment.
    return {name: os.environ[name] for name in os.environ if not name.startswith("PYTHON")}


def _prepare(cpus: Cpus) -> None:
    os.sched_setaffinity(0, cpus.of_server)
    raise_descriptor_limit()


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        connection = http.client.HTTPConnection(HOST, port, timeout=_START_SECONDS)
        try:
            connection.request("GET", "/", headers={"Connection": "close"})
            connection.getresponse().read()
            return
        except (OSError, http.client.HTTPException):
            if process.poll() is not None or time.monotonic() > deadline:
                lines = log.read_text(errors="replace").split("\n") or [""]
                said = [line for line in lines if line.strip()][-1:]
                raise RowError(f"does not start: {' '.join(said)}") from None
            time.sleep(0.02)
        finally:
            connection.close()
