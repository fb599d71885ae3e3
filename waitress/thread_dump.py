"""What each thread is doing: its stack, as text.

Owns how workers are told apart from other threads, and what is said of each. All stacks
are taken at once, without stopping any thread.

Row 3: imports activity and stacks.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import FrameType

from waitress.activity import CurrentRequest, WorkerState, thread_names
from waitress.stacks import current_frames, format_frame

__all__ = ["thread_dump"]


def thread_dump(workers: Sequence[WorkerState]) -> str:
    """Return the stacks of all workers with what each runs, then those of other threads."""
    frames = current_frames()
    names = thread_names()
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


def _task_text(request: CurrentRequest | None) -> str:
    if request is None:
        return "runs no request"
    peer = f" from {request.peer}" if request.peer else ""
    return _printable(
        f"request {request.request_id} for {request.seconds:.3f} s: "
        f"{request.method} {request.path}{peer}"
    )


def _part(title: str, frame: FrameType | None) -> str:
    return f"{title}\n{format_frame(frame)}\n"


def _printable(text: str) -> str:
    """Escape what could pretend to be a line of its own."""
    return text.encode("unicode_escape").decode("ascii")
