"""How many requests there were, how they ended, and how long they took.

Owns the counts and the histograms that are made of ended requests, and the slowest of the
recent ones. Knows of a request what its :class:`~waitress.timeline.Timeline` tells.

Everything is bounded, whatever clients send: buckets are fixed, labels come from the short
lists below, and of what a client says only the paths of the few slowest requests are
kept, cut short and for some minutes.

Row 1: imports peers and timeline.
"""

from __future__ import annotations

import heapq
import itertools
import re
import threading
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from waitress.peers import peer_text
from waitress.timeline import Timeline

__all__ = [
    "DURATION_BOUNDS",
    "NO_RESPONSE",
    "OTHER",
    "WAIT_BOUNDS",
    "Histogram",
    "HistogramSnapshot",
    "Metrics",
    "RequestTotals",
    "SlowRequest",
    "path_text",
]

#: Upper bounds of the buckets, in seconds. A wait is short where all is well.
WAIT_BOUNDS = (0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
DURATION_BOUNDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)

#: How many of the slowest requests are kept, and of what time: of the current window of
#: so many seconds and of the one before.
SLOWEST_KEPT = 10
SLOWEST_WINDOW_SECONDS = 300.0
#: How much of a path or a method is kept.
PATH_CHARACTERS = 200
METHOD_CHARACTERS = 20

#: The class of a request of whose response no byte left, and what stands for all that is
#: in none of the lists.
NO_RESPONSE = "none"
OTHER = "other"

_CLASSES = {"1": "1xx", "2": "2xx", "3": "3xx", "4": "4xx", "5": "5xx"}
_TERMINATION = re.compile(r"[-CSAO][-HBQADL]")


@dataclass(frozen=True)
class HistogramSnapshot:
    """How many values fell between which bounds, at one moment.

    Args:
        bounds: upper bounds of the buckets, inclusive, ascending, in seconds.
        counts: values in each bucket alone; one more than there are bounds, for the
            values above the last.
        sum: the sum of all values, in seconds.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    sum: float

    @property
    def count(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def quantile(self, part: float) -> float | None:
        """Return about what value the given part (0 to 1) of all stays below.

        Within a bucket values are taken to lie evenly. For what lies above the last bound,
        that bound; ``None`` when there are no values.
        """
        rank = part * self.count
        lower = 0.0
        for upper, count in zip(self.bounds, self.counts, strict=False):
            if count and rank <= count:
                return lower + (upper - lower) * rank / count
            rank -= count
            lower = upper
        return lower if self.count else None


class Histogram:
    """Counts values in fixed buckets.

    Threads: none of its own; whoever has it has a lock.
    """

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self.bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self._sum += value

    def snapshot(self) -> HistogramSnapshot:
        """Return what was counted so far."""
        return HistogramSnapshot(self.bounds, tuple(self._counts), self._sum)


@dataclass(frozen=True)
class SlowRequest:
    """One of the slowest requests of late; times in seconds."""

    ended_at: float  #: seconds since the epoch
    method: str
    path: str  #: without its query
    status: str  #: code and reason phrase; empty when there was no response
    peer: str
    duration: float  #: from its first byte to the last one of the response
    queue_wait: float | None  #: until a worker took it
    application: float | None  #: in the application
    termination: str  #: who ended it, and in which phase


@dataclass(frozen=True)
class RequestTotals:
    """All requests that ended since the measuring began, at one moment.

    Args:
        measured_seconds: how long they have been counted.
        responses: how many, by class of status: ``2xx`` and so on; ``none``: of a response
            no byte left.
        terminations: how many, by termination code.
        bytes_in: octets of their heads and bodies as they came.
        bytes_out: octets of the responses that were handed to the kernel.
        queue_wait: from the whole request's arrival until a worker took it.
        application: from the application's call to the end of its iterable.
        duration: from a request's first byte to the last one of its response.
        slowest: the slowest of the last minutes, the slowest first.
    """

    measured_seconds: float
    responses: dict[str, int]
    terminations: dict[str, int]
    bytes_in: int
    bytes_out: int
    queue_wait: HistogramSnapshot
    application: HistogramSnapshot
    duration: HistogramSnapshot
    slowest: Sequence[SlowRequest]

    @property
    def count(self) -> int:
        """How many requests have ended."""
        return sum(self.responses.values())


class Metrics:
    """Counts requests as they end; a :class:`~waitress.timeline.TimelineListener`.

    Threads: the loop's counts, any reads. Both under one lock, which makes a snapshot whole:
    the sum, the buckets and the classes of one and the same set of requests.
    """

    def __init__(self, clock: Callable[[], float], wall_clock: Callable[[], float]) -> None:
        """Begin with nothing counted.

        Args:
            clock: the monotonic one that timelines are made with, in seconds.
            wall_clock: seconds since the epoch.
        """
        self._clock = clock
        self._wall_clock = wall_clock
        self._since = clock()
        self._lock = threading.Lock()
        # guarded by _lock:
        self._responses = dict.fromkeys((*_CLASSES.values(), NO_RESPONSE), 0)
        self._terminations: dict[str, int] = {}
        self._bytes_in = 0
        self._bytes_out = 0
        self._queue_wait = Histogram(WAIT_BOUNDS)
        self._application = Histogram(DURATION_BOUNDS)
        self._duration = Histogram(DURATION_BOUNDS)
        self._slowest = _Slowest()

    def timeline_ended(self, timeline: Timeline) -> None:
        """Count a request, unless it was a health check: those would blur the figures."""
        if timeline.is_own_answer:
            return
        end = timeline.last_byte_out
        if end is None:
            end = timeline.ended
        duration = _between(timeline.first_byte, end)
        queue_wait = None
        if not timeline.refusal:  # What was refused waited for no worker.
            queue_wait = _between(timeline.queued, timeline.started)
        application_end = timeline.closed
        if application_end is None:
            application_end = timeline.application_finished
        application = _between(timeline.application_started, application_end)
        kind = _CLASSES.get(_seen_status(timeline)[:1], NO_RESPONSE)
        code = timeline.termination
        if _TERMINATION.fullmatch(code) is None:
            code = OTHER
        with self._lock:
            self._responses[kind] += 1
            self._terminations[code] = self._terminations.get(code, 0) + 1
            self._bytes_in += timeline.bytes_in
            self._bytes_out += timeline.bytes_out
            if queue_wait is not None:
                self._queue_wait.add(queue_wait)
            if application is not None:
                self._application.add(application)
            if duration is not None:
                self._duration.add(duration)
                if self._slowest.wants(duration, self._clock()):
                    self._slowest.add(self._told(timeline, duration, queue_wait, application))

    def _told(
        self,
        timeline: Timeline,
        duration: float,
        queue_wait: float | None,
        application: float | None,
    ) -> SlowRequest:
        return SlowRequest(
            ended_at=self._wall_clock(),
            method=timeline.method[:METHOD_CHARACTERS],
            path=path_text(timeline.path),
            status=_seen_status(timeline)[:PATH_CHARACTERS],
            peer=peer_text(timeline.peer),
            duration=duration,
            queue_wait=queue_wait,
            application=application,
            termination=timeline.termination,
        )

    def totals(self) -> RequestTotals:
        """Return what was counted so far.

        Threads: any.
        """
        now = self._clock()
        with self._lock:
            return RequestTotals(
                measured_seconds=now - self._since,
                responses=self._responses.copy(),
                terminations=self._terminations.copy(),
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                queue_wait=self._queue_wait.snapshot(),
                application=self._application.snapshot(),
                duration=self._duration.snapshot(),
                slowest=self._slowest.sorted(now),
            )


class _Slowest:
    """The slowest requests of two windows of time: the current one and the one before.

    Of most requests only their duration is looked at.

    Threads: none of its own.
    """

    def __init__(self) -> None:
        self._window = 0.0
        #: Heaps, the least slow first; the number settles between equals.
        self._current: list[tuple[float, int, SlowRequest]] = []
        self._before: list[tuple[float, int, SlowRequest]] = []
        self._numbers = itertools.count()

    def wants(self, duration: float, now: float) -> bool:
        """Say whether a request of this duration belongs to the slowest."""
        self._turn(now)
        return len(self._current) < SLOWEST_KEPT or duration > self._current[0][0]

    def add(self, request: SlowRequest) -> None:
        entry = (request.duration, next(self._numbers), request)
        if len(self._current) < SLOWEST_KEPT:
            heapq.heappush(self._current, entry)
        else:
            heapq.heapreplace(self._current, entry)

    def sorted(self, now: float) -> tuple[SlowRequest, ...]:
        """Return the slowest of both windows, the slowest first."""
        self._turn(now)
        entries = sorted((*self._before, *self._current), reverse=True)[:SLOWEST_KEPT]
        return tuple(request for _, _, request in entries)

    def _turn(self, now: float) -> None:
        window = now // SLOWEST_WINDOW_SECONDS
        if window != self._window:
            self._before = self._current if window == self._window + 1 else []
            self._current = []
            self._window = window


def _seen_status(timeline: Timeline) -> str:
    """Return the status that left; none, where the client had gone before anything could."""
    return timeline.status if timeline.bytes_out else ""


def path_text(path: str) -> str:
    """Return a path as it may be shown: without a query, cut short."""
    path = path.partition("?")[0]
    return path if len(path) <= PATH_CHARACTERS else path[:PATH_CHARACTERS] + "..."


def _between(start: float | None, end: float | None) -> float | None:
    """Return the seconds between two instants; ``None`` when one has not come."""
    if start is None or end is None:
        return None
    return max(end - start, 0.0)
