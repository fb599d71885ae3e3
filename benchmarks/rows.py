"""The table of the rows: what each one does to a server, and what is wanted of it.

Row 3: imports all but the report and the command.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import load
from benchmarks.applications import CHUNKS, KIB, MIB, REPLY_BYTES, SLEEP_SECONDS
from benchmarks.clients import IdleClients, SlowReaders, fetch, warm
from benchmarks.errors import RowError
from benchmarks.launch import Facts
from benchmarks.processes import (
    Cpus,
    PeakMemory,
    ProcessTree,
    Running,
    running,
    unused_port,
)
from benchmarks.results import Sample, Target
from benchmarks.servers import Server

GIB = 1024 * MIB
FILE_BYTES = 100 * MIB

_THREADS = 4
_CONNECTIONS = 512
#: What all run before they are measured, so that nothing is done for the first time.
_WARMING_REQUESTS, _WARMING_SECONDS = 100, 0.5
#: What an idle server may take to become so.
_SETTLING_SECONDS = 1.0
_SLOW_READERS, _SLOW_BYTES_PER_SECOND = 50, 10 * KIB


@dataclass(frozen=True)
class Bench:
    """One server, and how thoroughly it is measured."""

    server: Server
    binaries: Path
    cpus: Cpus
    environment: dict[str, str]
    log: Path
    seconds: int
    idle_clients: int
    #: For how long idle clients may keep coming, and how often 900 kB are fetched.
    patience_seconds: float
    replies: int

    @contextlib.contextmanager
    def serving(
        self,
        threads: int = _THREADS,
        connections: int = _CONNECTIONS,
        settings: tuple[str, ...] = (),
    ) -> Iterator[Running]:
        """Start the server afresh, warm it up, and end it."""
        facts = Facts(unused_port(), threads, connections, settings)
        with running(
            self.server, self.binaries, facts, self.cpus, self.environment, self.log
        ) as server:
            warm(server.port, _WARMING_REQUESTS, _WARMING_SECONDS)
            yield server


@dataclass(frozen=True)
class Row:
    """One kind of work; the first target is the one that others are compared by."""

    name: str
    title: str
    measure: Callable[[Bench], Sample]
    targets: tuple[Target, ...]
    needs_keep_alive: bool = False
    #: It is about what no other server has.
    is_for_ours_only: bool = False


def _under_load(
    bench: Bench, server: Running, path: str, connections: int, script: str = ""
) -> Sample:
    before = server.tree.cpu_seconds()
    result = load.wrk(server.port, path, connections, bench.seconds, script)
    cpu_seconds = server.tree.cpu_seconds() - before
    if not result.requests:
        raise RowError("starved: no answer at all")
    sample: Sample = {
        # The kernel counts in hundredths; what took less than one took that.
        "requests_per_cpu_second": result.requests / max(cpu_seconds, 0.01),
        "requests_per_second": result.requests / result.seconds,
        "failures": result.failures,
    }
    if result.p50_ms and result.p99_ms:  # wrk tells 0 where it has lost count.
        sample.update(p50_ms=result.p50_ms, p99_ms=result.p99_ms)
    return sample


def _by_wrk(path: str, connections: int, script: str = "") -> Callable[[Bench], Sample]:
    def measure(bench: Bench) -> Sample:
        with bench.serving() as server:
            return _under_load(bench, server, path, connections, script)

    return measure


def _watched(bench: Bench) -> Sample:
    """Have somebody listen to everything: what that costs, and that it costs nothing else."""
    with bench.serving() as server:
        unwatched = _under_load(bench, server, "/", 64)
    access_log = bench.log.with_name("access.log")
    try:
        with bench.serving(settings=(f"access_log={access_log}", "on_event=hear")) as server:
            watched = _under_load(bench, server, "/", 64)
        if not access_log.stat().st_size:
            raise RowError("nothing was logged")
    finally:
        access_log.unlink(missing_ok=True)
    key = "requests_per_cpu_second"
    return {**watched, "cost_watched": unwatched[key] / watched[key]}


def _files(bench: Bench) -> Sample:
    with bench.serving() as server:
        idle = server.tree.pss_bytes()
        before, begun = server.tree.cpu_seconds(), time.monotonic()
        received = 0
        with PeakMemory(server.tree) as peak:
            while time.monotonic() - begun < bench.seconds:
                received += fetch(server.port, "/file", 5)
        lasted = time.monotonic() - begun
        cpu_seconds = server.tree.cpu_seconds() - before
    return {
        "cpu_seconds_per_gib": cpu_seconds / (received / GIB),
        "gib_per_second": received / GIB / lasted,
        "growth_mib": (peak.pss_bytes - idle) / MIB,
    }


def _beside_idle_clients(bench: Bench) -> Sample:
    count = bench.idle_clients
    # With room to spare: near its limit, a server may well end connections.
    with bench.serving(connections=count + count // 4 + _CONNECTIONS) as server:
        alone = _under_load(bench, server, "/", 32)
        empty = server.tree.pss_bytes()
        with IdleClients(server.port) as clients:
            seconds = clients.open(count, bench.patience_seconds)
            if not clients:
                raise RowError("starved: no idle client was answered")
            full = server.tree.pss_bytes()
            idleness = _idleness(server.tree, 2 * bench.seconds)
            beside = _under_load(bench, server, "/", 32)
            there = clients.still_there()
    if not there:
        raise RowError("keeps no idle client connected")
    key = "requests_per_cpu_second"
    return {
        **beside,
        **idleness,
        "idle_clients": there,
        "seconds_per_10000_accepted": seconds / max(1, len(clients)) * 10_000,
        "kib_per_idle_client": (full - empty) / len(clients) / KIB,
        "cost_beside": alone[key] / beside[key],
    }


def _beside_slow_readers(bench: Bench) -> Sample:
    with bench.serving() as server:
        alone = _under_load(bench, server, "/", 8)
        with SlowReaders(server.port, "/1m", _SLOW_READERS, _SLOW_BYTES_PER_SECOND) as slow:
            time.sleep(_SETTLING_SECONDS)
            beside = _under_load(bench, server, "/", 8)
            fed = slow.fed()
    return {
        **beside,
        "p99_beside": beside["p99_ms"] / alone["p99_ms"],
        "percent_fed": 100 * fed / _SLOW_READERS,
    }


def _sleeping(threads: int) -> Callable[[Bench], Sample]:
    def measure(bench: Bench) -> Sample:
        with bench.serving(threads=threads) as server:
            sample = _under_load(bench, server, "/sleep", 2 * threads)
        ideal = threads / SLEEP_SECONDS
        return {**sample, "percent_of_ideal": 100 * sample["requests_per_second"] / ideal}

    return measure


def _beside_burning_threads(bench: Bench) -> Sample:
    with bench.serving() as server:
        fetch(server.port, "/spin", 1)
        return _under_load(bench, server, "/", 8)


def _idle(bench: Bench) -> Sample:
    with bench.serving() as server:
        sample = _idleness(server.tree, 2 * bench.seconds)
        return {"pss_mib": server.tree.pss_bytes() / MIB, **sample}


def _idleness(tree: ProcessTree, seconds: float) -> Sample:
    time.sleep(_SETTLING_SECONDS)
    wake_ups, cpu_seconds = tree.wake_ups(), tree.cpu_seconds()
    time.sleep(seconds)
    wake_ups, cpu_seconds = tree.wake_ups() - wake_ups, tree.cpu_seconds() - cpu_seconds
    return {
        # What happens once a second falls into n seconds n or n + 1 times.
        "wake_ups_per_second": max(0, wake_ups - 1) / seconds,
        "cpu_percent": 100 * cpu_seconds / seconds,
    }


def _many_large_replies(bench: Bench) -> Sample:
    with bench.serving() as server:
        fetch(server.port, "/900k", bench.replies // 4, connections=_THREADS)
        early = server.tree.pss_bytes()
        before = server.tree.cpu_seconds()
        received = fetch(server.port, "/900k", bench.replies, connections=_THREADS)
        cpu_seconds = server.tree.cpu_seconds() - before
        late = server.tree.pss_bytes()
    if received < bench.replies // _THREADS * _THREADS * REPLY_BYTES:
        raise RowError("replies are cut short")
    return {"growth_mib": (late - early) / MIB, "cpu_seconds_per_gib": cpu_seconds * GIB / received}


def _faster(ratio: float) -> tuple[Target, ...]:
    return (Target("requests_per_cpu_second", at_least=ratio),)


_IDLE_TARGETS = (
    Target("wake_ups_per_second", "value", at_most=1),
    Target("cpu_percent", "value", at_most=1),
)

#: In the order in which they run.
ROWS: dict[str, Row] = {
    row.name: row
    for row in (
        Row("hello-1", "hello, 1 connection", _by_wrk("/", 1), _faster(1.5)),
        Row("hello-8", "hello, 8 connections", _by_wrk("/", 8), _faster(3.5)),
        Row("hello-64", "hello, 64 connections", _by_wrk("/", 64), _faster(4.5)),
        Row("hello-256", "hello, 256 connections", _by_wrk("/", 256), _faster(4.5)),
        Row(
            "watched-64",
            "hello, 64 connections, with access log and on_event",
            _watched,
            (Target("cost_watched", "value", at_most=3),),
            is_for_ours_only=True,
        ),
        Row(
            "browser-64",
            "hello, 15 field lines, 64 connections",
            _by_wrk("/", 64, load.with_fields(load.BROWSER_FIELDS)),
            _faster(4.5),
        ),
        Row(
            "connect-16",
            "hello, a new connection each, 16 clients",
            _by_wrk("/", 16, load.with_fields({"Connection": "close"})),
            _faster(3),
        ),
        Row(
            "pipeline-16",
            "hello, pipelined 16 deep, 16 connections",
            _by_wrk("/", 16, load.pipelined(16)),
            _faster(4),
            needs_keep_alive=True,
        ),
        Row("post-1k", "POST 1 KiB", _by_wrk("/read", 16, load.with_body(KIB)), _faster(4)),
        Row("post-1m", "POST 1 MiB", _by_wrk("/read", 8, load.with_body(MIB)), _faster(7)),
        Row("chunked", f"generator, {CHUNKS} x 1 KiB", _by_wrk("/generate", 16), _faster(5)),
        Row("body-64k", "64 KiB in one bytes", _by_wrk("/64k", 16), _faster(4)),
        Row("body-1m", "1 MiB in one bytes", _by_wrk("/1m", 8), _faster(5)),
        Row(
            "file",
            "wsgi.file_wrapper, 100 MiB",
            _files,
            (
                Target("cpu_seconds_per_gib", at_least=2.5),
                Target("growth_mib", "value", at_most=4),
            ),
        ),
        Row(
            "idle-clients",
            "hello, 32 connections beside many idle",
            _beside_idle_clients,
            (
                *_faster(45),
                Target("cost_beside", "value", at_most=1.1),
                Target("kib_per_idle_client", "value", at_most=2.5),
                Target("seconds_per_10000_accepted", "value", at_most=2),
                *_IDLE_TARGETS,
            ),
            needs_keep_alive=True,
        ),
        Row(
            "slow-readers",
            "hello, 8 connections beside 50 slow readers",
            _beside_slow_readers,
            (
                *_faster(4),
                Target("percent_fed", "value", at_least=100),
                Target("p99_beside", "value", at_most=2),
            ),
        ),
        Row(
            "sleep-4",
            "sleeping 10 ms, 4 threads",
            _sleeping(4),
            (Target("percent_of_ideal", "value", at_least=96),),
        ),
        Row(
            "sleep-32",
            "sleeping 10 ms, 32 threads",
            _sleeping(32),
            (Target("percent_of_ideal", "value", at_least=96),),
        ),
        Row(
            "burn-64",
            "computing 1 ms, 64 connections",
            _by_wrk("/burn", 64),
            (*_faster(1.35), Target("p99_ms", at_least=1)),
        ),
        Row(
            "beside-burning",
            "hello, 8 connections beside 4 burning threads",
            _beside_burning_threads,
            (Target("p99_ms", at_least=1),),
        ),
        Row(
            "idle",
            "idle process",
            _idle,
            (Target("pss_mib", "difference", at_most=4), *_IDLE_TARGETS),
        ),
        Row(
            "large-replies",
            "many replies of 900 kB",
            _many_large_replies,
            (
                Target("cpu_seconds_per_gib", at_least=1),
                Target("growth_mib", "value", at_most=1),
            ),
        ),
    )
}
