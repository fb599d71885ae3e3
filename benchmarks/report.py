"""Tables of a run: on the terminal, and as the page that the manual includes.

``python -m benchmarks.report RESULTS.json [docs/performance_figures.txt]`` prints those of
an earlier run, or writes the page. Row 4: imports ``results``, ``rows`` and ``servers``.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from math import isinf
from pathlib import Path

from benchmarks.results import MEASURES, Results
from benchmarks.rows import ROWS, Row
from benchmarks.servers import OURS, SERVERS

MISSED = "!"
BEHIND = "<"

_LEGEND = f"""\
"{MISSED}" marks a target that ours misses, "{BEHIND}" names rivals that are ahead of ours in the
first measure of a row. A ratio is to the released waitress in the same round, 2 being twice as
good; all else is as measured. Medians over the rounds; none where a server gave no figure."""


def text(results: Results) -> str:
    """Return everything in plain text."""
    parts = [
        *_told(results),
        "",
        *_aligned(_overview(results)),
        "",
        _LEGEND,
        "",
        *_every_figure(results),
        *_failures(results),
    ]
    return "\n".join(parts) + "\n"


def page(results: Results) -> str:
    """Return what ``docs/performance.rst`` includes: the same as reStructuredText."""
    head, *body = _overview(results)
    lines = [f"| {line}" for line in _told(results)]
    lines += ["", ".. csv-table::", "   :header-rows: 1", ""]
    lines += ["   " + ",".join(f'"{cell}"' for cell in cells) for cells in (head, *body)]
    lines += ["", _LEGEND, "", "Every figure::", ""]
    figures = [*_every_figure(results), *_failures(results)]
    lines += [f"   {line}".rstrip() for line in figures]
    return "\n".join(lines).rstrip() + "\n"


def missed(results: Results) -> int:
    """Return how many targets ours misses."""
    return sum(
        not target.is_met(results.figure(row.name, OURS, target))
        for row in _rows(results)
        for target in row.targets
    )


def rivals_ahead(results: Results, row: Row) -> list[str]:
    """Return the rivals that are ahead of ours in the first measure of a row."""
    return [
        server
        for server in results.servers
        if SERVERS[server].is_rival
        and results.is_level(row.name, server, row.targets[0].key) is False
    ]


def _told(results: Results) -> Iterator[str]:
    for name, value in results.circumstances.items():
        yield f"{name}: {value}"
    yield "versions: " + ", ".join(
        name if name.endswith(version) else f"{name} {version}"
        for name, version in results.versions.items()
    )
    for name, why in results.skipped.items():
        yield f"skipped: {name}: {why}"


def _overview(results: Results) -> Iterator[Sequence[str]]:
    servers = [server for server in results.servers if server != OURS]
    yield ("work", "measure", "target", "ours", "", *servers, "")
    for row in _rows(results):
        for number, target in enumerate(row.targets):
            figure = results.figure(row.name, OURS, target)
            ahead = [] if number else rivals_ahead(results, row)
            yield (
                row.title if number == 0 else "",
                target.label,
                target.bound,
                number_text(figure),
                "" if target.is_met(figure) else MISSED,
                *(number_text(results.figure(row.name, server, target)) for server in servers),
                f"{BEHIND} {', '.join(ahead)}" if ahead else "",
            )


def _every_figure(results: Results) -> Iterator[str]:
    for row in _rows(results):
        keys = results.keys(row.name)
        yield row.title
        cells = [["", *(MEASURES[key].label for key in keys)]]
        for server in results.samples[row.name]:
            figures = (results.median(row.name, server, key) for key in keys)
            cells.append([server, *map(number_text, figures)])
        yield from _aligned(cells)
        yield ""


def _failures(results: Results) -> Iterator[str]:
    for row, by_server in results.failures.items():
        for server, why in by_server.items():
            yield f"{ROWS[row].title}: {server}: {why}"


def _rows(results: Results) -> Iterator[Row]:
    return (ROWS[name] for name in results.samples)


def number_text(value: float | None) -> str:
    """Return a figure with as many digits as it deserves."""
    if value is None:
        return "none"
    if isinf(value):
        return "inf"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _aligned(table: Iterable[Sequence[str]]) -> Iterator[str]:
    rows = list(table)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [
            cell.ljust(width) if number == 0 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()


def read(path: str) -> Results:
    """Return the results that a run has written."""
    return Results.from_json(json.loads(Path(path).read_text(encoding="utf-8")))


def main(argv: Sequence[str]) -> int:
    """Run the command."""
    if len(argv) not in (1, 2):
        sys.stderr.write("usage: python -m benchmarks.report RESULTS.json [PAGE]\n")
        return 2
    results = read(argv[0])
    if len(argv) == 2:
        Path(argv[1]).write_text(page(results), encoding="utf-8")
    else:
        sys.stdout.write(text(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
