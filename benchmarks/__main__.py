"""The command: run rows, print tables, and write down what was measured."""

from __future__ import annotations

import argparse
import http.client
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.applications import FILE_VARIABLE, STEPS_VARIABLE, burn
from benchmarks.environments import binaries_of, home, version_of
from benchmarks.errors import InstallationError, RowError
from benchmarks.processes import Cpus, raise_descriptor_limit
from benchmarks.results import Results
from benchmarks.rows import FILE_BYTES, ROWS, Bench, Row
from benchmarks.servers import OURS, PEERS, RELEASED, SERVERS, Server


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = _parser()
    options = parser.parse_args(argv)
    names = options.rows or list(ROWS)
    peers = _peers(options)
    if unknown := [name for name in names if name not in ROWS]:
        parser.error(f"unknown rows: {', '.join(unknown)}; see --list")
    if unknown := [name for name in peers if name not in SERVERS]:
        parser.error(f"unknown peers: {', '.join(unknown)}; there are {', '.join(PEERS)}")
    if options.list:
        for row in ROWS.values():
            sys.stdout.write(f"{row.name:<16} {row.title}\n")
        return 0
    if not shutil.which("wrk"):
        parser.error("wrk is needed; Debian and others have a package of that name")
    results = _run(names, peers, options)
    sys.stdout.write(report.text(results))
    sys.stdout.write(f"\n{report.missed(results)} targets missed\n")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="by default all; see --list")
    parser.add_argument("--rounds", type=int, metavar="N", help="by default 5, quick: 1")
    parser.add_argument("--seconds", type=int, metavar="S", help="of load, by default 3, quick: 1")
    parser.add_argument(
        "--quick", action="store_true", help="a first impression: no peers, fewer idle clients"
    )
    parser.add_argument(
        "--no-pin", action="store_true", help="let the server and the load share all CPUs"
    )
    parser.add_argument("--peers", metavar="A,B", help="by default all; quick: none; or 'none'")
    parser.add_argument("--json", metavar="FILE", help="where to write what was measured")
    parser.add_argument("--list", action="store_true", help="print the rows")
    return parser


def _peers(options: argparse.Namespace) -> list[str]:
    if options.peers is None:
        return [] if options.quick else PEERS
    return [] if options.peers == "none" else options.peers.split(",")


def _run(names: list[str], peers: list[str], options: argparse.Namespace) -> Results:
    cpus = Cpus.shared() if options.no_pin else Cpus.pinned()
    rounds = options.rounds or (1 if options.quick else 5)
    seconds = options.seconds or (1 if options.quick else 3)
    binaries, versions, skipped = _installed([OURS, RELEASED, *peers])
    results = Results(_circumstances(cpus, rounds, seconds), versions, skipped)
    environment = {FILE_VARIABLE: _large_file(), STEPS_VARIABLE: str(_steps_of_a_millisecond())}
    raise_descriptor_limit()
    os.sched_setaffinity(0, cpus.of_load)
    for row, server in _schedule(names, list(binaries), rounds):
        bench = Bench(
            server=server,
            binaries=binaries[server.name],
            cpus=cpus,
            environment=environment,
            log=home() / "server.log",
            seconds=seconds,
            idle_clients=1000 if options.quick else 10_000,
            patience_seconds=10.0 if options.quick else 60.0,
            replies=1000 if options.quick else 10_000,
        )
        _measure(row, bench, results)
        if options.json:
            told = json.dumps(results.as_json(), indent=1)
            Path(options.json).write_text(told + "\n", encoding="utf-8")
    return results


def _installed(names: list[str]) -> tuple[dict[str, Path], dict[str, str], dict[str, str]]:
    binaries, versions, skipped = {}, {}, {}
    for name in names:
        server = SERVERS[name]
        try:
            binaries[name] = binaries_of(server)
            versions[name] = version_of(server, binaries[name])
        except InstallationError as error:
            if name in (OURS, RELEASED):
                raise SystemExit(f"cannot install {name}: {error}") from None
            sys.stderr.write(f"skipping {name}: {error}\n")
            skipped[name] = str(error)
    return binaries, versions, skipped


def _schedule(names: list[str], servers: list[str], rounds: int) -> Iterator[tuple[Row, Server]]:
    """Yield what to do: the servers in turn, every other round from the last to the first."""
    for name in names:
        for number in range(rounds):
            for server in servers if number % 2 == 0 else reversed(servers):
                yield ROWS[name], SERVERS[server]


def _measure(row: Row, bench: Bench, results: Results) -> None:
    name = bench.server.name
    if row.needs_keep_alive and not bench.server.keeps_alive:
        results.add(row.name, name, {}, "has no persistent connections")
        return
    can_do = bench.server.rows is None or row.name in bench.server.rows
    if not can_do or (row.is_for_ours_only and name != OURS):
        results.add(row.name, name, {}, "not applicable")
        return
    begun = time.monotonic()
    try:
        sample, failure = row.measure(bench), ""
    except (RowError, OSError, http.client.HTTPException) as error:
        sample, failure = {}, str(error) or type(error).__name__
    results.add(row.name, name, sample, failure)
    figure = failure or report.number_text(sample[row.targets[0].key])
    sys.stderr.write(f"{row.name:<16} {name:<18} {figure} ({time.monotonic() - begun:.1f} s)\n")


def _circumstances(cpus: Cpus, rounds: int, seconds: int) -> dict[str, Any]:
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} x {_processor()}, Linux {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "CPUs": "one for the server, others for the load" if cpus.are_apart else "shared",
        "rounds": rounds,
        "seconds of load": seconds,
        "load average before": f"{os.getloadavg()[0]:.2f}",
    }


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _large_file() -> str:
    path = home() / "large-file"
    if not path.exists() or path.stat().st_size != FILE_BYTES:
        path.write_bytes(bytes(FILE_BYTES))
    return str(path)


def _steps_of_a_millisecond() -> int:
    """Return how much of :func:`burn` takes a millisecond; the least disturbed try counts."""
    steps = 10_000
    tries = []
    for _ in range(20):
        begun = time.thread_time()
        burn(steps)
        tries.append(time.thread_time() - begun)
    return int(steps * 0.001 / min(tries))


if __name__ == "__main__":
    sys.exit(main())
