"""Limits of the queue of requests that wait for a thread: how many, and how long.

Owns the answer to "which request is not going to run?" and the giving of that answer: 503,
by the loop, so that it costs no thread and comes at once. The one that has waited longest
goes first: its client is the nearest to giving up, and what a thread does for a client
that has given up is lost for all the others.

Channels enter the table here when they are queued. Nothing is done when a thread takes
one, but to mark it: entries that have been taken are found, and dropped, when they come to
the front. The deadline is one for all: that of the oldest entry.

Who has neither setting does not have this module in memory, and his channels nothing of
it: limits make subclasses of the channel's class.

Row 3: imports alerts, eventloop, fair_queue and utilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, Any

from waitress.alerts import Alert, lasting
from waitress.eventloop import EventLoop
from waitress.fair_queue import FairQueue
from waitress.utilities import ServiceUnavailable, logger, queue_logger

__all__ = ["LimitedWait", "QueueLimits", "limit_queue"]

#: The reasons under which refusals are counted.
TOO_MANY, TOO_LONG = "queue-limit", "queue-timeout"


class QueueLimits:
    """The channels of a server that wait for a thread, the longest waiting first.

    Threads: loop.
    """

    #: See :mod:`waitress.deadlines`.
    deadline = inf
    deadline_bucket: int | None = None

    def __init__(self, event_loop: EventLoop, dispatcher: Any, limit: int, timeout: float) -> None:
        """Limit a queue.

        Args:
            event_loop: has the clock and the deadlines.
            dispatcher: has ``waiting()`` and ``withdraw(task)``.
            limit: how many may wait; 0 for any number.
            timeout: how long one may wait, in seconds; 0 for ever.
        """
        self._event_loop = event_loop
        self._dispatcher = dispatcher
        self._limit = limit
        self._timeout = timeout
        #: Since when each waits; some have been taken by a thread meanwhile.
        self._entries: dict[LimitedWait, float] = {}
        #: RFC 9110, 10.2.3. After the time that the queue takes from end to end, everything
        #: that waits now is over.
        self._retry_after = str(max(ceil(timeout), 1))
        self.alert = Alert(event_loop, self._tell, self._tell_cleared)

    def enter(self, channel: LimitedWait) -> None:
        """Take note of a channel that was queued; refuse what is too much now."""
        now = self._event_loop.clock()
        entries = self._entries
        entries.pop(channel, None)
        entries[channel] = now
        if self._limit:
            while entries and self._dispatcher.waiting() > self._limit:
                self._refuse(next(iter(entries)), TOO_MANY)
        if self._timeout and self.deadline == inf:
            self._event_loop.deadlines.arm(self, now + self._timeout)

    def forget(self, channel: LimitedWait) -> None:
        """Take a channel that has ended out of the table, and its task out of the queue."""
        self._entries.pop(channel, None)
        if channel.waits:
            self._dispatcher.withdraw(channel)
        if not self._entries:
            self._event_loop.deadlines.forget(self)

    def handle_deadline(self, now: float) -> None:
        """Refuse what has waited too long."""
        self.deadline = inf
        for channel, since in tuple(self._entries.items()):
            if channel.waits and since + self._timeout > now:
                self._event_loop.deadlines.arm(self, since + self._timeout)
                return
            self._refuse(channel, TOO_LONG)

    def handle_error(self) -> None:
        """Log what went wrong, which is no reason to end the loop."""
        logger.exception("Exception in the limits of the queue")

    def _refuse(self, channel: LimitedWait, reason: str) -> None:
        """Answer a channel's request, unless a thread has taken it."""
        self._entries.pop(channel, None)
        if not channel.waits or not self._dispatcher.withdraw(channel):
            return
        self.alert.note_threadsafe()
        error = ServiceUnavailable("The server has more to do than it can; please try again")
        error.reject_reason = reason
        error.headers = (("Retry-After", self._retry_after),)
        error.ends_connection = False
        try:
            channel.refuse_queued(error)
        except Exception:  # noqa: BLE001 - an observer's, or a task's of the user's: anything
            # The others shall not pay for it.
            channel.handle_error()

    def _tell(self, _: int) -> None:
        queue_logger.warning(
            "Requests are refused with 503, because too many wait for a thread or one has waited "
            "too long (queue_limit=%d, queue_timeout=%g)",
            self._limit,
            self._timeout,
        )

    def _tell_cleared(self, seconds: float, _: int) -> None:
        queue_logger.warning("Requests are no longer refused with 503, after %s", lasting(seconds))


if TYPE_CHECKING:

    class _Channel:
        """What the mix-in finds in the channel class that it is mixed into."""

        @property
        def will_close(self) -> bool: ...
        def service(self) -> None: ...
        def start_service(self) -> None: ...
        def del_channel(self, map: Any = None) -> None: ...
        def handle_error(self) -> None: ...
        def refuse_queued(self, error: Any) -> None: ...

        event_loop: Any
        _queued_again_at: float

else:
    _Channel = object


class LimitedWait(_Channel):
    """What makes a channel's wait for a thread a limited one; see :func:`limit_queue`.

    Threads: loop, but for ``service``, which a worker calls, or the loop for what it answers
    by itself, and ``_has_queued_again`` (worker).
    """

    queue_limits: QueueLimits
    #: Whether the channel is in the task queue. Set by the loop, cleared by whoever serves.
    waits = False

    def start_service(self) -> None:
        """Queue for the workers, within the limits."""
        self.waits = True
        super().start_service()
        # Unless somebody has taken it so soon, the loop has answered it, or it was closed
        # between its request's arrival and now.
        if self.waits and not self.will_close:
            self.queue_limits.enter(self)

    def service(self) -> None:
        """Serve the first request."""
        self.waits = False
        super().service()

    def _has_queued_again(self) -> bool:
        """Leave it to the loop to queue for the next request: limits are the loop's."""
        self._queued_again_at = self.event_loop.clock()
        return False

    def del_channel(self, map: Any = None) -> None:
        """Leave the queue, too."""
        super().del_channel(map)
        self.queue_limits.forget(self)


def limit_queue(listeners: Sequence[Any], adj: Any) -> None:
    """Limit the queue of listeners that share a task dispatcher, as the settings say.

    A dispatcher of the user's own may lack what this takes; a warning tells so.
    """
    first = listeners[0]
    dispatcher = first.task_dispatcher
    if getattr(adj, "fair_queue", False):
        queue = getattr(dispatcher, "queue", None)
        if queue is None:
            logger.warning("fair_queue has no effect: the task dispatcher has no queue")
        elif not isinstance(queue, FairQueue):
            dispatcher.queue = FairQueue(queue)
    limit, timeout = getattr(adj, "queue_limit", 0), getattr(adj, "queue_timeout", 0)
    if not (limit or timeout):
        return
    if not hasattr(dispatcher, "withdraw"):
        logger.warning(
            "queue_limit and queue_timeout have no effect: the task dispatcher has no withdraw()"
        )
        return
    limits = QueueLimits(first._event_loop, dispatcher, limit, timeout)
    first._alerts.append(limits.alert)
    for listener in listeners:
        listener.channel_class = _limited(listener.channel_class, limits)


def _limited(channel_class: Any, limits: QueueLimits) -> Any:
    members = {"__doc__": LimitedWait.__doc__, "queue_limits": limits}
    return type(channel_class.__name__, (LimitedWait, channel_class), members)
