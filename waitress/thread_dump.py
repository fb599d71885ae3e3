"""What each thread is doing: its stack, as text.

Owns the form in which stacks are shown to people. The frames are those of
``sys._current_frames()``: taken at once for all threads, without stopping any.

Row 3: imports activity.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType

from waitress.activity import CurrentRequest, WorkerState

__all__ = ["thread_dump"]

#: How many frames of a stack are shown, the innermost ones.
MOST_FRAMES = 100


def thread_dump(workers: Sequence[WorkerState]) -> str:
    """Return the stacks of all workers with what each runs, then those of other threads."""
    frames = _current_frames()
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    parts = [
        _part(
            f"Worker {worker.name} (thread {worker.thread_id}): {_task_text(worker.request)}",
            frames.pop(worker.thread_id, None),
        )
        for worker in workers
    ]
    mine = threading.get_ident()  # Its stack says no more than that it was asked.
    parts += [
        _part(f"Other thread {_printable(names.get(ident) or '-')} (thread {ident})", frame)
        for ident, frame in sorted(frames.items())
        if ident != mine
    ]
    return "\n".join(parts)


def _current_frames() -> dict[int, FrameType]:
    """Return where each thread is; nothing where the interpreter does not tell."""
    frames: dict[int, FrameType] = getattr(sys, "_current_frames", dict)()
    return frames


def _task_text(request: CurrentRequest | None) -> str:
    if request is None:
        return "runs no request"
    peer = f" from {request.peer}" if request.peer else ""
    return _printable(
        f"request {request.request_id} for {request.seconds:.3f} s: "
        f"{request.method} {request.path}{peer}"
    )


def _part(title: str, frame: FrameType | None) -> str:
    lines = "".join(_frame_lines(frame)) if frame is not None else "  no stack\n"
    return f"{title}\n{lines}"


def _frame_lines(frame: FrameType) -> Iterator[str]:
    """Yield the stack as tracebacks have it, the innermost frame last."""
    yield from traceback.format_list(traceback.extract_stack(frame, limit=MOST_FRAMES))


def _printable(text: str) -> str:
    """Escape what could pretend to be a line of its own."""
    return text.encode("unicode_escape").decode("ascii")
