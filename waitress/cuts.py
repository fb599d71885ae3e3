"""What the end of a server cuts, told by name: no request is lost in silence.

Owns the warnings that name each request that is cut, by its request line, its peer, its age
and, where a worker still serves it, the stack of that worker.

Row 7: imports clients, eventloop, service and stacks.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterator
from itertools import takewhile
from types import FrameType
from typing import Any

from waitress.clients import Clients
from waitress.eventloop import EventLoop
from waitress.service import serve_next
from waitress.stacks import current_frames, peer_text, request_line

__all__ = ["Cuts"]

logger = logging.getLogger("waitress.shutdown")


class Cuts:
    """Names what is cut of one server.

    Threads: loop.
    """

    def __init__(self, event_loop: EventLoop, clients: Clients) -> None:
        #: Whether there was anything to name.
        self.were_named = False
        self._event_loop = event_loop
        self._clients = clients
        #: Workers whose request was named.
        self._named_threads: set[int] = set()

    def name_all(self) -> None:
        """Name what is not answered, or not wholly sent, and what runs."""
        running = {id(channel): thread for thread, channel in _channels_in_service()}
        for channel in self._clients.channels:
            thread = running.get(id(channel))
            request = channel.unfinished_request()
            if request is not None:
                number = getattr(request, "request_id", 0)
                self._name(channel, f"{request_line(request)} (request {number})", thread)
            elif channel.total_outbufs_len:
                unsent = f"the last {channel.total_outbufs_len} bytes of a response"
                self._name(channel, unsent, thread)
        self.name_running()

    def name_running(self) -> None:
        """Name what runs for clients that have left."""
        for thread, channel in _channels_in_service():
            is_own = channel.event_loop is self._event_loop
            if is_own and thread not in self._named_threads:
                self._name(channel, "a request whose client has left", thread)

    def name_backlog(self, address: str) -> None:
        """Name the connections to a listener that were never accepted."""
        self.were_named = True
        logger.warning("cut by the shutdown: connections to %s that could not be accepted", address)

    def _name(self, channel: Any, what: str, thread: int | None) -> None:
        self.were_named = True
        stack = ""
        if thread is not None:
            self._named_threads.add(thread)
            stack = f", in service by\n{_stack_of(thread)}"
        logger.warning(
            "cut by the shutdown: %s, from %s, %.3f s old%s",
            what,
            peer_text(channel),
            self._event_loop.clock() - channel.phase_since,
            stack,
        )


def _channels_in_service() -> Iterator[tuple[int, Any]]:
    """Yield each thread that serves a request, and the connection that it serves.

    Found on the stacks of all threads: so serving costs nothing for being named here.
    """
    for thread, top in list(current_frames().items()):
        frame: FrameType | None = top
        while frame is not None and frame.f_code is not serve_next.__code__:
            frame = frame.f_back
        if frame is not None:
            yield thread, frame.f_locals["channel"]


def _stack_of(thread: int) -> str:
    """Return the stack of a thread, from the request's beginning on."""
    frame = current_frames().get(thread)
    summary = traceback.StackSummary.extract(
        takewhile(_is_below_serving, traceback.walk_stack(frame))
    )
    summary.reverse()
    return "".join(summary.format()).rstrip("\n")


def _is_below_serving(step: tuple[FrameType, int]) -> bool:
    return step[0].f_code is not serve_next.__code__
