"""Whom a connection waits for, and until when.

Owns the phases of a connection and the rules of their deadlines. Knows of bytes only that
some came or went, and when; which phase it is, and what is done when its time is over, its
subclass :class:`waitress.channel.HTTPChannel` decides.

A phase is noted when it begins, with two exceptions, the most usual ones: while a request is
served that a connection has sent as a whole when it rested, whatever comes behind it meanwhile,
and when that was served and it rests again. The phase noted is still the first rest, and so is the
deadline, which can only be too early. When it comes, it is found out what is the case.

Row 4: imports clients, outbound, request_queue, tcp and wasyncore.
"""

from __future__ import annotations

import enum
from collections.abc import MutableMapping
from math import inf
from typing import Any

from waitress import tcp, wasyncore
from waitress.clients import Clients
from waitress.outbound import OutboundBuffer
from waitress.request_queue import RequestQueue

__all__ = ["Phase", "PhasedChannel"]

#: A body may be as slow as it likes for this long before its rate is looked at, seconds.
BODY_RATE_GRACE_SECONDS = 30.0
#: A reader without progress is cut after this long while a worker waits for it, seconds.
SEND_TIMEOUT_WORKER_WAITS_SECONDS = 30.0
#: How often the kernel is asked whether a reader progresses: in parts of its time-out,
#: and in seconds at the most.
SEND_LOOK_PART = 0.25
SEND_LOOK_SECONDS = 5.0
#: How often a waiting worker's plight is looked at again, in seconds.
WORKER_WAIT_LOOK_SECONDS = 1.0
#: The end of a lingering close: without a byte for so long, in seconds.
LINGER_SILENCE_SECONDS = 5.0


class Phase(enum.Enum):
    """Whom the connection waits for: which of the deadlines runs."""

    PROXY_HEADER = "the proxy is to tell who the client is"
    IDLE = "the client may send a request, or leave"
    HEAD = "the client is sending a head"
    BODY = "the client is sending a body"
    OURS = "the server works; no deadline of the client's runs"
    SEND = "the client has to read"
    LINGER = "the client has to see that we are done"


_PROXY_HEADER = Phase.PROXY_HEADER
_IDLE, _HEAD, _BODY = Phase.IDLE, Phase.HEAD, Phase.BODY
_OURS, _SEND, _LINGER = Phase.OURS, Phase.SEND, Phase.LINGER


class PhasedChannel(wasyncore.dispatcher):
    """A connection that is in one phase at any time, with one deadline.

    Threads: loop.
    """

    # Slots, because CPython finds what stands in one at once; and a default of the class,
    # where most connections would have it, is slower to read than either.
    __slots__ = (
        "_acknowledged_total",
        "_phase",
        "_phase_bytes",
        "_phase_since",
        "_progress_at",
        "adj",
        "clients",
        "deadline",
        "deadline_bucket",
        "event_loop",
        "outbound",
        "request",
        "request_queue",
    )

    adj: Any
    clients: Clients
    outbound: OutboundBuffer
    request: Any
    request_queue: RequestQueue

    def __init__(self, map: MutableMapping[int, Any] | None) -> None:
        """Begin idle.

        Args:
            map: the socket map that it is going to stand in.
        """
        self.event_loop = wasyncore.event_loop_of(wasyncore.socket_map if map is None else map)
        #: See :mod:`waitress.deadlines`.
        self.deadline = inf
        self.deadline_bucket: int | None = None
        #: The phase that was noted last; see the module.
        self._phase = _IDLE
        #: When the phase began, when it last saw a byte, and how many it saw.
        self._phase_since = self._progress_at = self.event_loop.now
        self._phase_bytes = 0
        #: Bytes that the client was known to have acknowledged when it was last asked.
        self._acknowledged_total = 0

    @property
    def phase(self) -> Phase:
        """Whom the connection waits for; for a moment, other threads may see another phase."""
        raise NotImplementedError

    def handle_deadline(self, now: float) -> None:
        """End what has taken too long."""
        raise NotImplementedError

    def _update_deadline(self) -> None:
        phase = self.phase
        if phase is not self._phase:
            self._enter(phase)
        if phase is _IDLE and self.clients.watcher is not None:
            self.clients.watcher.channel_rests(self)
        if phase is _OURS:
            self.deadline = inf
        else:
            self.event_loop.deadlines.arm(self, self._current_deadline())

    def _enter(self, phase: Phase) -> None:
        self._phase = phase
        self._phase_since = self._progress_at = self.event_loop.now
        self._phase_bytes = 0

    def _current_deadline(self) -> float:
        phase = self._phase
        if phase is _SEND:
            return self._send_deadline()
        if phase is _LINGER:
            return min(
                self._phase_since + _seconds(self.adj, "linger_timeout", 30),
                self._progress_at + LINGER_SILENCE_SECONDS,
            )
        deadline = self._progress_at + (self.adj.channel_timeout or inf)
        if phase is _HEAD or phase is _PROXY_HEADER:
            deadline = min(deadline, self._phase_since + _seconds(self.adj, "header_timeout", 30))
        elif phase is _BODY:
            deadline = min(
                deadline,
                self._progress_at + _seconds(self.adj, "body_timeout", 60),
                self._body_rate_deadline(),
            )
        return deadline

    def _body_rate_deadline(self) -> float:
        """Return the instant at which the body's average rate will be too low."""
        rate = getattr(self.adj, "body_min_rate", 240)
        if not rate:
            return inf
        # The part that came with the head, or while the server was busy, counts too.
        receiver = getattr(self.request, "body_rcv", None)
        received = 0 if receiver is None else receiver.getbuf().__len__()
        return self._phase_since + max(BODY_RATE_GRACE_SECONDS, received / rate)

    def _send_deadline(self) -> float:
        timeout = self._send_timeout()
        look = min(timeout * SEND_LOOK_PART, SEND_LOOK_SECONDS)
        if self.outbound.worker_is_waiting:
            look = WORKER_WAIT_LOOK_SECONDS
        return min(self._progress_at + timeout, self.event_loop.now + look)

    def _send_timeout(self) -> float:
        timeout = _seconds(self.adj, "send_timeout", 120)
        if self.outbound.worker_is_waiting:
            return min(timeout, SEND_TIMEOUT_WORKER_WAITS_SECONDS)
        return timeout

    def _has_progressed(self) -> bool:
        """Say whether the client has acknowledged bytes since this was last asked."""
        unacknowledged = tcp.unacknowledged_bytes(self.socket)
        if unacknowledged is None:
            return False
        total = self.outbound.sent_total - unacknowledged
        progressed, self._acknowledged_total = total > self._acknowledged_total, total
        return progressed

    @property
    def last_activity(self) -> float:
        """Time (seconds since the epoch) of the last byte received or sent."""
        loop = self.event_loop
        return loop.wall_clock() - (loop.clock() - self._progress_at)

    @last_activity.setter
    def last_activity(self, value: float) -> None:
        loop = self.event_loop
        self._progress_at = loop.clock() - (loop.wall_clock() - value)


def _seconds(adj: Any, name: str, default: float) -> float:
    """Return a time-out, ``inf`` when it is off; settings objects may not have it."""
    return getattr(adj, name, default) or inf
