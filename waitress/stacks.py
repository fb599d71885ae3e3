"""What the threads of the process are doing, as text for the log.

Owns how a stack and a request line read there. What a client sent is escaped, and shown
without its query, which may hold what is secret.

Row 2: imports compat, peers, rejects and targets.
"""

from __future__ import annotations

import sys
import traceback
from types import FrameType
from typing import Any

from waitress import peers
from waitress.compat import has_gil
from waitress.rejects import escaped
from waitress.targets import shown_target

__all__ = ["current_frames", "format_frame", "peer_text", "request_line", "stacks_can_be_read"]

#: The most frames of one stack that are shown: the innermost.
MOST_FRAMES = 60


def stacks_can_be_read() -> bool:
    """Say whether the stack of another thread can be read.

    Without the GIL that thread goes on meanwhile, and its frames may be gone at any moment:
    whoever follows them there ends the process.
    """
    return hasattr(sys, "_current_frames") and has_gil()


def current_frames() -> dict[int, FrameType]:
    """Return where each thread is; nothing where that cannot be read.

    Frames keep everything alive that stands in them: drop them soon.
    """
    if not stacks_can_be_read():
        return {}
    frames: dict[int, FrameType] = sys._current_frames()
    return frames


def format_frame(frame: FrameType | None) -> str:
    """Return a stack, outermost call first, in the form of a traceback.

    Args:
        frame: the innermost call; ``None`` where it is not known.
    """
    if frame is None:
        return "  (its stack is not known)"
    entries = traceback.extract_stack(frame, limit=MOST_FRAMES)
    return "".join(traceback.format_list(entries)).rstrip("\n")


def request_line(request: Any) -> str:
    """Return method, target without its query, and version, between double quotes."""
    method = getattr(request, "command", "")
    if not method:  # Nothing is known of it.
        return '""'
    path, _ = shown_target(request)
    return f'"{escaped(f"{method} {path} HTTP/{request.version}")}"'


def peer_text(channel: Any) -> str:
    """Return the address of the peer of a channel, or of what has one; else ``-``."""
    return escaped(peers.peer_text(getattr(channel, "addr", None))) or "-"
