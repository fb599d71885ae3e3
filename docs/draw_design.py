"""Draw design.svg: the path of a request's bytes through threads and modules, and who watches.

Run `python docs/draw_design.py` after a change; a test fails while the picture and this
script differ. Needs nothing but the standard library.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from xml.sax.saxutils import escape

PICTURE = Path(__file__).parent / "design.svg"
WIDTH, HEIGHT = 1080, 800
BOX_WIDTH, BOX_HEIGHT = 160, 56


class Lane(NamedTuple):
    """A part of the picture that belongs to one thread, or to none."""

    title: str
    left: int
    right: int
    fill: str
    top: int = 15
    bottom: int = 545


class Box(NamedTuple):
    """A thing that data passes; ``x`` and ``y`` are its middle."""

    x: int
    y: int
    title: str
    note: str
    shared: bool = False


class Arrow(NamedTuple):
    """A way of the data; it leaves and enters at a side: l, r, t or b.

    ``shift`` moves it along both sides, so that two arrows can run in parallel.
    """

    start: str
    start_side: str
    end: str
    end_side: str
    label: str
    shift: int = 0
    dotted: bool = False


LANES = (
    Lane("loop thread: all network I/O", 15, 425, "#eef4fb"),
    Lane("shared by both", 440, 640, "#f6f6f6"),
    Lane("worker threads: no network I/O", 655, 1065, "#fbf4ea"),
    Lane("watching: there when somebody asks for it", 15, 1065, "#eff6ef", 560, 785),
)

BOXES = {
    "listener": Box(110, 120, "listener", "accepts"),
    "client": Box(110, 300, "client", "socket"),
    "channel": Box(330, 300, "channel", "one connection"),
    "parser": Box(330, 120, "parser, receiver", "bytes to requests"),
    "shutdown": Box(110, 480, "shutdown", "ends it in order"),
    "loop": Box(330, 480, "eventloop", "poller, deadlines"),
    "requests": Box(540, 120, "request_queue", "one per channel", shared=True),
    "tasks": Box(540, 210, "workers", "one task queue", shared=True),
    "outbound": Box(540, 300, "outbound", "memory, then file", shared=True),
    "ready": Box(540, 480, "ready queue", "one per loop", shared=True),
    "service": Box(755, 210, "service, task", "one application call"),
    "environ": Box(755, 120, "environ", "PEP 3333"),
    "application": Box(970, 210, "application", "yours"),
    "response": Box(755, 300, "response", "framing, head"),
    "observer": Box(540, 640, "observer, audience", "the one seam", shared=True),
    "events": Box(330, 640, "events, stuck", "and rejects, always"),
    "recorder": Box(755, 640, "recorder", "timelines"),
    "access_log": Box(970, 640, "access_log", "a thread that writes"),
    "metrics": Box(540, 740, "metrics, stats", "figures"),
    "status": Box(330, 740, "status", "answered by the loop"),
}

ARROWS = (
    Arrow("client", "r", "channel", "l", "recv", -12),
    Arrow("channel", "l", "client", "r", "send", 12),
    Arrow("channel", "t", "parser", "b", "bytes"),
    Arrow("parser", "r", "requests", "l", ""),
    Arrow("requests", "b", "tasks", "t", ""),
    Arrow("tasks", "r", "service", "l", "run"),
    Arrow("service", "t", "environ", "b", ""),
    Arrow("service", "r", "application", "l", "call", -12),
    Arrow("application", "l", "service", "r", "chunks", 12),
    Arrow("service", "b", "response", "t", ""),
    Arrow("response", "l", "outbound", "r", "bytes"),
    Arrow("outbound", "l", "channel", "r", "bytes"),
    Arrow("response", "b", "ready", "r", "bytes are there"),
    Arrow("ready", "l", "loop", "r", "wake"),
    Arrow("loop", "t", "channel", "b", "ready or due"),
    Arrow("client", "t", "listener", "b", "connect"),
    Arrow("listener", "r", "channel", "t", "", -20),
    Arrow("shutdown", "r", "loop", "l", ""),
    Arrow("channel", "r", "observer", "t", "", 18, dotted=True),
    Arrow("service", "l", "observer", "t", "", 18, dotted=True),
    Arrow("observer", "l", "events", "r", "", dotted=True),
    Arrow("observer", "r", "recorder", "l", "", dotted=True),
    Arrow("recorder", "r", "access_log", "l", "", dotted=True),
    Arrow("recorder", "b", "metrics", "r", "", dotted=True),
    Arrow("status", "r", "metrics", "l", "asks"),
    Arrow("loop", "l", "status", "l", "", 18),
)

# Where an arrow turns.
CORNERS = {
    ("response", "ready"): [(755, 480)],
    ("listener", "channel"): [(215, 100), (215, 235), (310, 235)],
    ("channel", "observer"): [(432, 318), (432, 552), (558, 552)],
    ("service", "observer"): [(648, 228), (648, 552), (558, 552)],
    ("recorder", "metrics"): [(755, 740)],
    ("loop", "status"): [(215, 498), (215, 758)],
}


def edge(box: Box, side: str, shift: int) -> tuple[int, int]:
    """Return the point in the middle of a side, moved along it by *shift*."""
    across = {"l": -1, "r": 1}.get(side, 0) * BOX_WIDTH // 2
    down = {"t": -1, "b": 1}.get(side, 0) * BOX_HEIGHT // 2
    if across:
        return box.x + across, box.y + shift
    return box.x + shift, box.y + down


def lines() -> Iterator[str]:
    """Yield the lines of the picture."""
    yield (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="14" text-anchor="middle">'
    )
    yield "<title>The path of a request through the threads of the server</title>"
    yield (
        '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
        'markerHeight="8" orient="auto"><path d="M0 0L10 5L0 10z" fill="#444"/></marker></defs>'
    )
    yield f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>'
    for lane in LANES:
        yield from lane_lines(lane)
    for arrow in ARROWS:
        yield from arrow_lines(arrow)
    for box in BOXES.values():
        yield from box_lines(box)
    yield "</svg>"


def lane_lines(lane: Lane) -> Iterator[str]:
    width = lane.right - lane.left
    yield (
        f'<rect x="{lane.left}" y="{lane.top}" width="{width}" '
        f'height="{lane.bottom - lane.top}" rx="8" '
        f'fill="{lane.fill}"/>'
    )
    # Where no arrow passes.
    middle = lane.right - min(width, 410) // 2
    yield (
        f'<text x="{middle}" y="{lane.top + 30}" font-weight="bold" fill="#333">'
        f"{escape(lane.title)}</text>"
    )


def box_lines(box: Box) -> Iterator[str]:
    dashes = ' stroke-dasharray="6 3"' if box.shared else ""
    yield (
        f'<rect x="{box.x - BOX_WIDTH // 2}" y="{box.y - BOX_HEIGHT // 2}" width="{BOX_WIDTH}" '
        f'height="{BOX_HEIGHT}" rx="6" fill="#fff" stroke="#444" stroke-width="1.5"{dashes}/>'
    )
    yield f'<text x="{box.x}" y="{box.y - 3}" font-weight="bold">{escape(box.title)}</text>'
    yield f'<text x="{box.x}" y="{box.y + 16}" font-size="12">{escape(box.note)}</text>'


def arrow_lines(arrow: Arrow) -> Iterator[str]:
    corners = CORNERS.get((arrow.start, arrow.end), [])
    begin = edge(BOXES[arrow.start], arrow.start_side, arrow.shift)
    end = edge(BOXES[arrow.end], arrow.end_side, arrow.shift)
    points = [begin, *corners, end]
    drawn = " ".join(f"{x},{y}" for x, y in points)
    dots = ' stroke-dasharray="2 4"' if arrow.dotted else ""
    yield (
        f'<polyline points="{drawn}" fill="none" stroke="#444" stroke-width="1.5"{dots} '
        'marker-end="url(#head)"/>'
    )
    if arrow.label:
        yield label_line(arrow, points)


def label_line(arrow: Arrow, points: list[tuple[int, int]]) -> str:
    # Beside the longest stretch: above a level one, to the right of an upright one.
    stretches = list(itertools.pairwise(points))
    (x1, y1), (x2, y2) = max(
        stretches, key=lambda ends: abs(ends[0][0] - ends[1][0]) + abs(ends[0][1] - ends[1][1])
    )
    x, y = (x1 + x2) // 2, (y1 + y2) // 2
    if x1 == x2:
        x, y = x + 6, y + 4
        return f'<text x="{x}" y="{y}" font-size="12" text-anchor="start">{arrow.label}</text>'
    drop = 16 if arrow.shift > 0 else -6
    return f'<text x="{x}" y="{y + drop}" font-size="12">{arrow.label}</text>'


def picture() -> str:
    """Return the whole picture."""
    return "\n".join(lines()) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
