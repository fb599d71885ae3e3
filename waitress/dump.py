"""What a running server is doing, written to the log when somebody asks for it.

Owns the answer to SIGUSR1: the stacks of all threads, with the request that each serves,
the task queue, and the requests that ended last. The signal's handler does nothing but
touch and wake the loop; the loop writes, at its next turn. A loop that is itself caught in
code outside of Python cannot: :mod:`faulthandler` is for that.

Row 3: imports activity, eventloop, stacks, timeline, utilities and wasyncore.
"""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Any

from waitress import wasyncore
from waitress.activity import thread_names
from waitress.eventloop import EventLoop
from waitress.stacks import current_frames, format_frame, peer_text, request_line
from waitress.timeline import Timeline
from waitress.utilities import logger

__all__ = ["Dump", "RecentRequests", "dump_on_signal"]

#: The most tasks of the queue that are told one by one.
MOST_TASKS = 100


class RecentRequests:
    """The timelines of the requests that ended last.

    Threads: loop.
    """

    def __init__(self, size: int) -> None:
        self.timelines: deque[Timeline] = deque(maxlen=size)

    def timeline_ended(self, timeline: Timeline) -> None:
        """Keep a timeline; drop the oldest where there are too many."""
        self.timelines.append(timeline)


class Dump:
    """Writes to the log what the server of a socket map is doing.

    Threads: ``ask_threadsafe`` any, from the handler of a signal too; the rest loop.
    """

    #: See :mod:`waitress.eventloop`.
    touched = False

    def __init__(
        self,
        event_loop: EventLoop,
        dispatcher: Any,
        recent: RecentRequests | None = None,
    ) -> None:
        self._event_loop = event_loop
        self._dispatcher = dispatcher
        self._recent = recent

    def ask_threadsafe(self) -> None:
        """Have it written soon."""
        self._event_loop.touch_threadsafe(self)
        self._event_loop.wake_threadsafe()

    def handle_ready(self) -> None:
        """Write."""
        logger.warning("%s", self.text())

    def handle_error(self) -> None:
        """Log what went wrong, which is no reason to end the loop."""
        logger.exception("Exception while writing what the server is doing")

    def text(self) -> str:
        """Return what the server is doing, in several lines."""
        return "\n".join([*self._threads(), *self._queue(), *self._ended()])

    def _channels(self) -> list[Any]:
        return [each for each in list(self._event_loop.map.values()) if hasattr(each, "requests")]

    def _threads(self) -> Iterator[str]:
        frames = current_frames()
        names = thread_names()
        channels = self._channels()
        served = _served_by_thread(channels)
        yield f"what the server is doing: {len(frames)} threads, {len(channels)} connections"
        for ident, frame in frames.items():
            yield f"thread {names.get(ident, ident)}{served.get(ident, '')}:"
            yield format_frame(frame)

    def _queue(self) -> Iterator[str]:
        queue = list(getattr(self._dispatcher, "queue", ()))
        queue += getattr(self._dispatcher, "given_way", ())
        yield f"task queue: {len(queue)} tasks"
        for task in islice(queue, MOST_TASKS):
            first = next(iter(getattr(task, "requests", ())), None)
            yield f"  {_what(task, first) if first is not None else repr(task)}"
        if len(queue) > MOST_TASKS:
            yield f"  and {len(queue) - MOST_TASKS} more"

    def _ended(self) -> Iterator[str]:
        if self._recent is None:
            return
        timelines = list(self._recent.timelines)
        yield f"requests that ended last: {len(timelines)}, the latest at the end"
        for timeline in timelines:
            yield f"  {_line(timeline)}"


def _served_by_thread(channels: Iterable[Any]) -> dict[int, str]:
    """Return what each thread serves, as far as the requests' timelines tell."""
    served: dict[int, str] = {}
    for channel in channels:
        for request in channel.requests[:1]:
            worker = getattr(getattr(request, "timeline", None), "worker", 0)
            if worker:
                served[worker] = f", serving {_what(channel, request)}"
    return served


def _what(channel: Any, request: Any) -> str:
    ident = getattr(request, "request_id", "-")
    return f"request {ident}: {request_line(request)} from {peer_text(channel)}"


def _line(timeline: Timeline) -> str:
    """Return one ended request: what it was, how it ended, and how long it took."""
    seconds = "-"
    if timeline.first_byte is not None and timeline.ended is not None:
        seconds = f"{timeline.ended - timeline.first_byte:.3f} s"
    return (
        f"request {timeline.request_id}: {request_line(_Told(timeline))} from "
        f"{peer_text(_Told(timeline))}, {timeline.status[:3] or '-'} {timeline.termination}, "
        f"{timeline.bytes_in} bytes in, {timeline.bytes_out} bytes out, {seconds}"
    )


class _Told:
    """A timeline in the place of its request and its channel."""

    def __init__(self, timeline: Timeline) -> None:
        self.command = timeline.method
        self.request_uri = timeline.path
        self.version = timeline.version
        self.addr = timeline.peer


def dump_on_signal(server: Any, recent_requests: int = 0) -> Callable[[], None]:
    """Have SIGUSR1 answered for a server; return a function that undoes it.

    Does nothing where there is no such signal, where somebody else has a handler for it,
    and in any thread but the main one, which alone can have one.

    Args:
        server: as :func:`waitress.create_server` returns it.
        recent_requests: how many ended requests are kept for it; 0 for none.
    """
    number = getattr(signal, "SIGUSR1", None)
    if (
        number is None
        or threading.current_thread() is not threading.main_thread()
        or signal.getsignal(number) is not signal.SIG_DFL
    ):
        return lambda: None
    recent = None
    if recent_requests:
        recent = RecentRequests(recent_requests)
        server.subscribe_timelines(recent)
    socket_map = server._map if hasattr(server, "_map") else server.map
    dump = Dump(wasyncore.event_loop_of(socket_map), server.task_dispatcher, recent)

    def handle(signum: int, frame: Any) -> None:
        dump.ask_threadsafe()

    signal.signal(number, handle)

    def undo() -> None:
        if signal.getsignal(number) is handle:
            signal.signal(number, signal.SIG_DFL)

    return undo
