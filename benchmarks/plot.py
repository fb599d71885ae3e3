"""A picture of a run: ``python -m benchmarks.plot RESULTS.json docs/performance.svg``.

Row 5: imports ``environments``, ``report``, ``results`` and ``rows``. It is drawn by
matplotlib, in an environment of its own unless it is installed here.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from math import isfinite
from typing import Any

from benchmarks.environments import ROOT, environment_with
from benchmarks.report import read
from benchmarks.results import Results
from benchmarks.rows import ROWS, Row
from benchmarks.servers import OURS, RELEASED

_COLOURS = {OURS: "#c0392b", RELEASED: "#2c3e50"}
_MARKS = "svD^P*X"
#: What is far to the left has starved; it does not push the others together.
_LEAST = 0.1


def draw(results: Results, path: str) -> None:
    """Draw, row by row, how each server compares with the released one."""
    matplotlib = import_module("matplotlib")
    matplotlib.use("Agg")
    # The same figures give the same bytes.
    matplotlib.rcParams["svg.hashsalt"] = "waitress"
    # Letters, not outlines of letters.
    matplotlib.rcParams["svg.fonttype"] = "none"
    rows = [row for row in reversed(ROWS.values()) if _is_drawn(results, row)]
    figure, axes = import_module("matplotlib.pyplot").subplots(
        figsize=(9, 1.8 + 0.34 * len(rows)), layout="constrained"
    )
    axes.set_xscale("log")
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.axvline(1, color=_COLOURS[RELEASED], linewidth=1)
    axes.grid(axis="both", linewidth=0.3)
    axes.xaxis.set_major_formatter(import_module("matplotlib.ticker").FormatStrFormatter("%g"))
    for server in results.servers:
        _draw_server(axes, results, rows, server)
    for height, row in enumerate(rows):
        target = row.targets[0].at_least
        axes.plot([target, target], [height - 0.35, height + 0.35], color="#7f8c8d", zorder=1)
    axes.set_xlabel(f"times as good as {RELEASED} (grey bars: what is aimed at)")
    axes.set_title(_title(results), fontsize=8)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, metadata={"Date": None} if path.endswith(".svg") else None)


def _is_drawn(results: Results, row: Row) -> bool:
    return row.name in results.samples and row.targets[0].compared == "ratio"


def _draw_server(axes: Any, results: Results, rows: Sequence[Row], server: str) -> None:
    number = results.servers.index(server)
    points = [
        (max(figure, _LEAST), height)
        for height, row in enumerate(rows)
        if (figure := results.figure(row.name, server, row.targets[0])) is not None
        and isfinite(figure)
    ]
    axes.scatter(
        [x for x, _ in points],
        [y for _, y in points],
        label=f"{server} {results.versions[server]}".replace("3.0.2 3.0.2", "3.0.2"),
        s=70 if server == OURS else 26,
        marker="o" if server in _COLOURS else _MARKS[number % len(_MARKS)],
        color=_COLOURS.get(server, f"C{number}"),
        zorder=3 if server == OURS else 2,
    )


def _title(results: Results) -> str:
    told = results.circumstances
    return f"{told['date']}; {told['python']}; {told['machine']}"


def main(argv: Sequence[str]) -> int:
    """Run the command, where need be in the environment that has matplotlib."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m benchmarks.plot RESULTS.json PICTURE\n")
        return 2
    if find_spec("matplotlib") is None:
        python = environment_with("matplotlib") / "python"
        command = [str(python), "-m", "benchmarks.plot", *argv]
        return subprocess.run(command, env={"PYTHONPATH": str(ROOT)}, check=False).returncode
    draw(read(argv[0]), argv[1])
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
