"""The state of a server in figures, at one moment.

Owns :class:`ServerStats`, which ``server.stats()`` returns, and the :class:`Monitor` that
makes it: from counts that are always kept, because they cost nothing, from a look at the
open connections, and from the :class:`~waitress.metrics.Metrics` of ended requests, which
cost something and are kept from the first time that anybody asks.

Row 3: imports activity and metrics.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

from waitress.activity import Activity, oldest_queue_wait
from waitress.metrics import Metrics, RequestTotals

__all__ = ["CONNECTION_STATES", "EVICTIONS", "TIMEOUTS", "Monitor", "ServerStats"]

#: What a connection may be doing: the names of its phases, and what we call them.
CONNECTION_STATES = {
    "PROXY_HEADER": "proxy-header",
    "IDLE": "idle",
    "HEAD": "receiving-head",
    "BODY": "receiving-body",
    "OURS": "serving",
    "SEND": "sending",
    "LINGER": "closing",
}
#: The same for the deadlines that a client can miss: all but the server's own.
TIMEOUTS = {phase: state for phase, state in CONNECTION_STATES.items() if phase != "OURS"}
#: Why connections were closed to make room.
EVICTIONS = ("lingering", "head", "idle", "queued", "spool")


@dataclass(frozen=True)
class ServerStats:
    """What a server has done and does. Times in seconds, sizes in bytes.

    Args:
        started_at: when the server was made, in seconds since the epoch; the same each time.
        taken_at: when this was, likewise.
        uptime: since the server was made.
        connections: open connections by what they are doing (:data:`CONNECTION_STATES`).
        connection_limit: how many there may be; ``None`` before the first one.
        connections_accepted: how many there were, those that are gone included.
        workers: threads that run the application.
        workers_busy: those of them that have something to do.
        workers_waiting: those of the busy ones that wait for a client to read.
        queue_depth: requests that wait for a worker.
        oldest_queue_wait: how long the first of them has waited whose client has not left.
        buffered_bytes: what responses have yet to send, in memory and in files.
        memory_bytes: what requests and responses hold in memory; 0 without a limit for it.
        memory_limit: how much that may be before nothing more is read; 0 for no limit.
        spooled_bytes: what lies in temporary files, of requests and responses.
        spool_limit: how much may.
        rejects: what was refused, by reason.
        timeouts: connections whose client took too long, by what it was doing.
        evictions: connections that were closed to make room, by :data:`EVICTIONS`.
        requests: the requests that have ended since the measuring began.
    """

    started_at: float
    taken_at: float
    uptime: float
    connections: dict[str, int]
    connection_limit: int | None
    connections_accepted: int
    workers: int
    workers_busy: int
    workers_waiting: int
    queue_depth: int
    oldest_queue_wait: float
    buffered_bytes: int
    memory_bytes: int
    memory_limit: int
    spooled_bytes: int
    spool_limit: int
    rejects: dict[str, int]
    timeouts: dict[str, int]
    evictions: dict[str, int]
    requests: RequestTotals


class Monitor:
    """Looks at a server, for those who ask.

    Threads: any. A snapshot is taken without stopping anybody: figures of different kinds
    may be some microseconds apart.
    """

    def __init__(self, listener: Any) -> None:
        """Look at a server; measure nothing yet.

        Args:
            listener: the first of its listeners; the others have in common with it what is
                looked at.
        """
        self.listener = listener
        #: All of them, to name their addresses.
        self.listeners: Sequence[Any] = (listener,)
        event_loop = listener._event_loop
        self.clock = event_loop.clock
        self.wall_clock = event_loop.wall_clock
        # Once: the difference of two clocks is never quite the same again.
        self._started_at = self.wall_clock() - (self.clock() - listener.made_at)
        self.activity = Activity(listener.task_dispatcher, self.clock)
        self._lock = threading.Lock()
        # guarded by _lock:
        self._metrics: Metrics | None = None

    def measure(self) -> Metrics:
        """Count requests from now on; repeatable."""
        with self._lock:
            metrics = self._metrics
            if metrics is None:
                metrics = self._metrics = Metrics(self.clock, self.wall_clock)
                self.listener.subscribe_timelines(metrics)
                self.listener.subscribe(self.activity.running)
            return metrics

    def queue_wait(self) -> float:
        """Return how long the first request of the queue has waited, in seconds."""
        return oldest_queue_wait(self.listener.task_dispatcher, self.clock())

    def stats(self) -> ServerStats:
        """Return a snapshot; measuring begins with the first one."""
        requests = self.measure().totals()
        listener = self.listener
        clients = listener.clients
        spool = listener.spool
        dispatcher = listener.task_dispatcher
        # Part of the channel class, where there is one.
        memory = getattr(getattr(listener, "channel_class", None), "memory_limit", None)
        connections, waiting, buffered = _look_at(clients.snapshot())
        return ServerStats(
            started_at=self._started_at,
            taken_at=self.wall_clock(),
            uptime=self.clock() - listener.made_at,
            connections=connections,
            connection_limit=int(clients.limit) if isfinite(clients.limit) else None,
            connections_accepted=clients.accepted,
            workers=len(getattr(dispatcher, "threads", ())) - getattr(dispatcher, "stop_count", 0),
            workers_busy=getattr(dispatcher, "active_count", 0),
            workers_waiting=waiting,
            queue_depth=sum(len(getattr(dispatcher, name, ())) for name in ("queue", "given_way")),
            oldest_queue_wait=self.queue_wait(),
            buffered_bytes=buffered,
            memory_bytes=0 if memory is None else memory.used,
            memory_limit=0 if memory is None else memory.limit,
            spooled_bytes=spool.used,
            spool_limit=spool.limit,
            rejects=listener.rejects.counts.snapshot(),
            timeouts={state: clients.timeouts.get(phase, 0) for phase, state in TIMEOUTS.items()},
            evictions={kind: clients.evictions.get(kind, 0) for kind in EVICTIONS},
            requests=requests,
        )


def _look_at(channels: tuple[Any, ...]) -> tuple[dict[str, int], int, int]:
    """Count connections by state, workers that wait for a client, and unsent bytes."""
    states = dict.fromkeys(CONNECTION_STATES.values(), 0)
    waiting = buffered = 0
    for channel in channels:
        states[CONNECTION_STATES[channel.phase.name]] += 1
        outbound = channel.outbound
        buffered += outbound.pending
        waiting += outbound.worker_is_waiting
    return states, waiting, buffered
