"""What a server is worth when more is asked of it than it can do.

``python -m benchmarks.overload`` offers each server an open-loop load from a quarter to
three times of what four threads can serve, with clients that wait for one second, and
counts the answers that came in time: the *goodput*. ``--plot FILE`` draws it, and
``--json FILE`` keeps the figures, from which ``--from FILE`` draws and prints again.

Row 5: imports all but ``rows``, ``report``, ``results`` and the command.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.applications import WORK_SECONDS
from benchmarks.environments import ROOT, binaries_of, environment_with, home, version_of
from benchmarks.errors import InstallationError, RowError
from benchmarks.launch import Facts
from benchmarks.open_loop import OpenLoop, Outcome
from benchmarks.processes import Cpus, raise_descriptor_limit, running, unused_port
from benchmarks.servers import OURS, RELEASED, SERVERS, Server

THREADS = 4
#: What the threads can do at best.
SATURATION = THREADS / WORK_SECONDS
#: What is offered, in parts of that.
LOADS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
#: How long a client waits.
PATIENCE_SECONDS = 1.0
#: No more than its default is asked of any server.
_CONNECTIONS = 512


@dataclass(frozen=True)
class Contestant:
    """A server, and how it is set."""

    name: str
    server: Server
    settings: tuple[str, ...] = ()
    colour: str = "#7f8c8d"


LIMITED = Contestant(
    "waitress, queue_limit=200 queue_timeout=0.5",
    SERVERS[OURS],
    ("queue_limit=200", "queue_timeout=0.5"),
    "#c0392b",
)
CONTESTANTS = (
    LIMITED,
    Contestant("waitress, defaults", SERVERS[OURS], (), "#e59866"),
    Contestant(RELEASED, SERVERS[RELEASED], (), "#2c3e50"),
    Contestant("gunicorn gthread", SERVERS["gunicorn-gthread"], (), "#27ae60"),
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    parser.add_argument("--seconds", type=float, default=6.0, help="measured at each load")
    parser.add_argument("--warming", type=float, default=6.0, help="seconds of load before that")
    parser.add_argument("--loads", metavar="A,B", help="in parts of saturation")
    parser.add_argument("--no-pin", action="store_true", help="server and load share all CPUs")
    parser.add_argument("--json", metavar="FILE", help="where to write what was measured")
    parser.add_argument("--from", dest="source", metavar="FILE", help="measure nothing")
    parser.add_argument("--plot", metavar="FILE", help="where to draw it")
    options = parser.parse_args(argv)
    if options.source:
        told = json.loads(Path(options.source).read_text(encoding="utf-8"))
    else:
        told = _measure(options)
    if options.json:
        Path(options.json).write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(told))
    if options.plot:
        if find_spec("matplotlib") is None:
            return _plot_elsewhere(told, options.plot)
        draw(told, options.plot)
    return 0


# -- measuring


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    loads = [float(load) for load in options.loads.split(",")] if options.loads else LOADS
    cpus = Cpus.shared() if options.no_pin else Cpus.pinned()
    raise_descriptor_limit()
    told: dict[str, Any] = {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
        "CPUs": f"{os.cpu_count()}, {'one for the server' if cpus.are_apart else 'shared'}",
        "saturation": SATURATION,
        "versions": {},
        "samples": {},
    }
    places = {}
    for contestant in CONTESTANTS:
        try:
            places[contestant] = binaries_of(contestant.server)
        except InstallationError as error:
            sys.stderr.write(f"skipping {contestant.name}: {error}\n")
            continue
        told["versions"][contestant.name] = version_of(contestant.server, places[contestant])
        told["samples"][contestant.name] = []
    os.sched_setaffinity(0, cpus.of_load)
    for load in loads:
        # All at one load, one after the other: what disturbs the machine disturbs all.
        for contestant, binaries in places.items():
            sample = _sample(contestant, binaries, cpus, load, options)
            told["samples"][contestant.name].append(sample)
            sys.stderr.write(f"{load:4.2f} {contestant.name:<44} {sample}\n")
    return told


def _sample(
    contestant: Contestant, binaries: Path, cpus: Cpus, load: float, options: argparse.Namespace
) -> dict[str, Any]:
    facts = Facts(unused_port(), THREADS, _CONNECTIONS, contestant.settings)
    log = home() / "server.log"
    rate = load * SATURATION
    try:
        with running(contestant.server, binaries, facts, cpus, {}, log) as server:
            clients = OpenLoop(server.port, "/work", rate, PATIENCE_SECONDS, seed=int(rate))
            outcome = clients.run(options.warming, options.seconds)
    except RowError as error:
        return {"load": load, "failure": str(error)}
    return {"load": load, **figures(outcome)}


def figures(outcome: Outcome) -> dict[str, Any]:
    """Return an outcome as rates a second and milliseconds."""
    seconds = outcome.seconds
    latencies = {"p50_ms": outcome.latency(0.5), "p99_ms": outcome.latency(0.99)}
    return {
        "offered": round(outcome.offered / seconds, 1),
        "good": round(len(outcome.good) / seconds, 1),
        "refused": round(outcome.refused / seconds, 1),
        "late": round(outcome.late / seconds, 1),
        "broken": round(outcome.broken / seconds, 1),
        **{name: value and round(1000 * value, 1) for name, value in latencies.items()},
        "lag_ms": round(1000 * outcome.lag, 1),
    }


# -- telling


def table(told: dict[str, Any]) -> str:
    """Return what was measured as a table in plain text."""
    columns = ("load", "offered", "good", "refused", "late", "broken", "p50_ms", "p99_ms")
    lines = []
    for name, samples in told["samples"].items():
        lines += [f"{name} ({told['versions'][name]})", ""]
        lines.append("".join(f"{column:>9}" for column in columns))
        for sample in samples:
            if "failure" in sample:
                lines.append(f"{sample['load']:9.2f} {sample['failure']}")
            else:
                lines.append("".join(_cell(sample[column]) for column in columns))
        lines.append("")
    return "\n".join(lines)


def _cell(value: float | None) -> str:
    if value is None:
        return f"{'-':>9}"
    return f"{value:9.2f}" if value < 10 else f"{value:9.0f}"


def draw(told: dict[str, Any], path: str) -> None:
    """Draw goodput against offered load."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    # The same figures give the same bytes; letters, not outlines of letters.
    matplotlib.rcParams["svg.hashsalt"] = "waitress"
    matplotlib.rcParams["svg.fonttype"] = "none"
    figure, axes = import_module("matplotlib.pyplot").subplots(
        figsize=(7.5, 4.2), layout="constrained"
    )
    saturation = told["saturation"]
    colours = {contestant.name: contestant.colour for contestant in CONTESTANTS}
    for name, samples in told["samples"].items():
        drawn = [sample for sample in samples if "failure" not in sample]
        axes.plot(
            [sample["load"] for sample in drawn],
            [sample["good"] / saturation for sample in drawn],
            marker="o",
            markersize=4,
            label=name,
            color=colours.get(name),
            linewidth=2.2 if name == LIMITED.name else 1.4,
        )
    axes.plot(
        [0, 1, 3], [0, 1, 1], color="#bdc3c7", linestyle=":", label="all that four threads can"
    )
    axes.set_xlabel("offered load, in parts of saturation")
    axes.set_ylabel("answered 200 within 1 s, in parts of saturation")
    axes.set_ylim(0, 1.1)
    axes.set_xlim(0, 3.1)
    axes.grid(linewidth=0.3)
    axes.set_title(f"{told['date']}; {saturation:.0f} requests/s are saturation", fontsize=8)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def _plot_elsewhere(told: dict[str, Any], path: str) -> int:
    """Draw in an environment that has matplotlib."""
    python = environment_with("matplotlib") / "python"
    kept = home() / "overload.json"
    kept.write_text(json.dumps(told), encoding="utf-8")
    command = [str(python), "-m", "benchmarks.overload", "--from", str(kept), "--plot", path]
    environment = {"PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, env=environment, check=False, stdout=subprocess.DEVNULL
    ).returncode


if __name__ == "__main__":
    sys.exit(main())
