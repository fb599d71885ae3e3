"""What goes on at this moment: which request each worker runs, and which ones wait.

Owns the table of running requests. It follows the workers, not the connections: a request
whose client has left is still run, and its connection is no more.

Row 2: imports metrics, observer, peers and targets.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from waitress.metrics import METHOD_CHARACTERS, path_text
from waitress.observer import Observer
from waitress.peers import peer_text
from waitress.targets import shown_target

__all__ = [
    "Activity",
    "CurrentRequest",
    "RunningRequests",
    "WorkerState",
    "oldest_queue_wait",
    "thread_names",
]

#: How many of the requests that wait are told of, the oldest first.
QUEUED_SHOWN = 50


@dataclass(frozen=True)
class CurrentRequest:
    """A request that runs or waits."""

    request_id: int
    method: str
    path: str  #: without its query
    peer: str  #: empty when it is not known
    seconds: float  #: how long it has run, or waited
    stage: str  #: of a running one: ``application``, or ``response`` once it has begun


@dataclass(frozen=True)
class WorkerState:
    """A worker and what it runs; ``None``: nothing, or something begun before the watch."""

    name: str
    thread_id: int
    request: CurrentRequest | None


class RunningRequests(Observer):
    """Knows the request that each thread serves.

    Threads: any; each worker writes its own entry of a dict only, which is atomic, and
    whoever reads copies the dict first.
    """

    listening = True

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._running: dict[int, tuple[Any, float]] = {}

    def request_started(self, request: Any) -> None:
        """Note whose request it is."""
        self._running[threading.get_ident()] = request, self._clock()

    def request_serviced(self, request: Any) -> None:
        """Forget it."""
        self._running.pop(threading.get_ident(), None)

    def snapshot(self) -> dict[int, tuple[Any, float]]:
        """Return each thread's request and the instant of its start; the caller's to keep."""
        return self._running.copy()


class Activity:
    """Tells of the workers and the queue of one task dispatcher.

    Threads: any; what is told may be a moment old.
    """

    def __init__(self, dispatcher: Any, clock: Callable[[], float]) -> None:
        self._dispatcher = dispatcher
        self._clock = clock
        self.running = RunningRequests(clock)

    def workers(self) -> list[WorkerState]:
        """Return the workers by their number, each with what it runs."""
        running = self.running.snapshot()
        now = self._clock()
        # Somebody else's dispatcher may not tell who its threads are; then those that run
        # something are all that is known.
        idents: dict[int, int] = dict(getattr(self._dispatcher, "thread_idents", {}))
        known = [ident for _, ident in sorted(idents.items())]
        mine = threading.get_ident()  # The loop's, which may be about to answer this.
        others = [ident for ident in running if ident not in (*known, mine)]
        names = thread_names()
        return [
            WorkerState(
                names.get(each, f"thread {each}"), each, _told_running(running.get(each), now)
            )
            for each in (*known, *others)
        ]

    def queued(self) -> list[CurrentRequest]:
        """Return the requests that wait for a worker, the oldest first, some at the most.

        Those whose clients may have left come after all others.
        """
        now = self._clock()
        found = []
        waiting = itertools.chain(
            _front(self._dispatcher, "queue", QUEUED_SHOWN),
            _front(self._dispatcher, "given_way", QUEUED_SHOWN),
        )
        for channel in itertools.islice(waiting, QUEUED_SHOWN):
            requests = getattr(channel, "requests", ())
            if requests:
                since = _waits_since(channel)
                waited = 0.0 if since is None else max(now - since, 0.0)
                found.append(_told(requests[0], waited, channel.addr, ""))
        return found


def oldest_queue_wait(dispatcher: Any, now: float) -> float:
    """Return how long the task at the front of the queue has waited, in seconds."""
    since = [_waits_since(task) for task in _front(dispatcher, "queue", 1)]
    return max(now - since[0], 0.0) if since and since[0] is not None else 0.0


def thread_names() -> dict[int, str]:
    """Return the names of the threads that Python knows of."""
    return {thread.ident: thread.name for thread in threading.enumerate() if thread.ident}


def _front(dispatcher: Any, name: str, count: int) -> Sequence[Any]:
    """Return the first tasks of a queue that workers take from meanwhile."""
    queue = getattr(dispatcher, name, ())
    while True:
        try:
            return tuple(itertools.islice(queue, count))
        except RuntimeError:  # It changed under the copy: try again.
            continue


def _waits_since(task: Any) -> float | None:
    queued_since = getattr(task, "queued_since", None)
    return None if queued_since is None else queued_since()


def _told_running(entry: tuple[Any, float] | None, now: float) -> CurrentRequest | None:
    if entry is None:
        return None
    request, since = entry
    timeline = getattr(request, "timeline", None)
    stage = "response" if getattr(timeline, "response_started", None) else "application"
    return _told(request, max(now - since, 0.0), getattr(timeline, "peer", None), stage)


def _told(request: Any, seconds: float, peer: Any, stage: str) -> CurrentRequest:
    return CurrentRequest(
        request_id=getattr(request, "request_id", 0),
        method=getattr(request, "command", "")[:METHOD_CHARACTERS],
        path=path_text(shown_target(request)[0]),
        peer=peer_text(peer),
        seconds=seconds,
        stage=stage,
    )
