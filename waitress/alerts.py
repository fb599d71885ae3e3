"""Warnings that mean something: told at once, seldom repeated, and taken back.

Owns the decision when a line about a condition that lasts is written: the first at once,
further ones at growing intervals and with the largest size seen since the last, and one
when the condition has gone. Knows nothing of what it is about: whoever has something to
warn of says how it reads.

Whatever meets the condition calls :meth:`Alert.note_threadsafe`, as often as it likes. All
else happens in the loop, by a deadline that runs while the condition lasts, and only then.

Row 2: imports deadlines, eventloop and utilities.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf
from typing import Any

from waitress.deadlines import BUCKET_SECONDS
from waitress.eventloop import EventLoop
from waitress.utilities import logger

__all__ = ["Alert", "lasting", "watch_queue", "watch_spool"]

#: How often it is looked whether a condition lasts, in seconds.
LOOK_SECONDS = 1.0
#: When it is looked next: not later than the loop wakes anyway, after one second by default. So
#: there is one wake-up for both. As deadlines are met up to that much later, all times here may be
#: so much shorter than they are named.
_LOOK_AFTER = LOOK_SECONDS - BUCKET_SECONDS
#: The longest interval between two lines about one condition, in seconds. After so long
#: without it, the intervals are as short as at first.
LONGEST_INTERVAL = 60.0


class Alert:
    """One condition, while it lasts.

    Threads: ``note_threadsafe`` any, and the first line is told in the thread that met the
    condition; the rest loop.
    """

    #: See :mod:`waitress.deadlines` and :mod:`waitress.eventloop`.
    deadline = inf
    deadline_bucket: int | None = None
    touched = False

    def __init__(
        self,
        event_loop: EventLoop,
        tell: Callable[[int], None],
        tell_cleared: Callable[[float, int], None],
        renew: Callable[[], int] = lambda: 0,
        interval: float = LOOK_SECONDS,
        quiet: float = 2 * LOOK_SECONDS,
    ) -> None:
        """Make an alert for a condition that is not met.

        Args:
            event_loop: has the clock, and looks after the alert.
            tell: writes the line; called with the largest size since the last line.
            tell_cleared: writes that the condition has gone; called with its length in
                seconds and the largest size.
            renew: called at each look; returns the size that the condition still has,
                whether it was noted or not.
            interval: the least time between the first two lines, in seconds; it doubles.
            quiet: how long the condition must not have been met to count as gone.
        """
        self._event_loop = event_loop
        self._tell = tell
        self._tell_cleared = tell_cleared
        self._renew = renew
        self._first_interval = interval
        self._quiet = quiet
        self._lock = threading.Lock()
        # guarded by _lock:
        #: Whether the condition is met.
        self.is_raised = False
        #: Whether a line has said so, since it is.
        self._is_told = False
        #: The largest size since the last look, since the last line, and in all.
        self._noted = self._untold = self._largest = 0
        self._interval = interval
        self._tell_at = -inf
        self._since = self._noted_at = self._cleared_at = -inf

    def note_threadsafe(self, size: int = 1) -> None:
        """Take notice that the condition is met.

        Args:
            size: how much of it there is, from 1.
        """
        with self._lock:
            if size > self._noted:
                self._noted = size
            if self.is_raised:
                return
            told = self._raise_locked(self._event_loop.clock())
        if told:
            self._tell(told)
        self._event_loop.touch_threadsafe(self)
        self._event_loop.wake_threadsafe()

    def forget(self) -> None:
        """Look no more: the server closes."""
        self._event_loop.deadlines.forget(self)

    def _raise_locked(self, now: float) -> int:
        """Begin; return the size to tell, 0 for none."""
        self.is_raised = True
        self._is_told = False
        self._since = self._noted_at = now
        self._untold = self._largest = 0
        if now - self._cleared_at >= LONGEST_INTERVAL:
            self._interval = self._first_interval
        return self._take_locked(now)

    def _take_locked(self, now: float) -> int:
        """Count what was noted; return the size to tell, 0 where it is not time."""
        noted, self._noted = self._noted, 0
        self._untold = max(self._untold, noted)
        self._largest = max(self._largest, noted)
        if now < self._tell_at:
            return 0
        told, self._untold = self._untold, 0
        if told:
            self._is_told = True
            self._tell_at = now + self._interval - BUCKET_SECONDS
            self._interval = min(2 * self._interval, LONGEST_INTERVAL)
        return told

    def handle_ready(self) -> None:
        """Begin to look."""
        self._event_loop.deadlines.arm(self, self._event_loop.clock() + _LOOK_AFTER)

    def handle_deadline(self, now: float) -> None:
        """Look whether the condition lasts."""
        still = self._renew()
        told, is_cleared = 0, False
        with self._lock:
            self._noted = max(self._noted, still)
            if self._noted:
                self._noted_at = now
            told = self._take_locked(now)
            if now - self._noted_at >= self._quiet - BUCKET_SECONDS:
                self.is_raised = False
                self._cleared_at = now
                is_cleared = self._is_told
            lasted, largest = self._noted_at - self._since, self._largest
        if self.is_raised:
            self._event_loop.deadlines.arm(self, now + _LOOK_AFTER)
        if told:
            self._tell(told)
        if is_cleared:
            self._tell_cleared(lasted, largest)

    def handle_error(self) -> None:
        """Log what went wrong, which is no reason to end the loop."""
        logger.exception("Exception in an alert")


def lasting(seconds: float) -> str:
    """Return how long something lasted, in words that can follow "for" and "after"."""
    return f"{seconds:.1f} s" if seconds >= 1 else "less than a second"


def watch_queue(event_loop: EventLoop, dispatcher: Any) -> Alert | None:
    """Make the dispatcher's warnings of a deep queue seldom; ``None`` for one that has none."""
    if not hasattr(dispatcher, "renew_depth"):
        return None

    def tell(depth: int) -> None:
        # Looked up at each use: whoever tests replaces it.
        dispatcher.queue_logger.warning("Task queue depth is %d", depth)

    def tell_cleared(seconds: float, depth: int) -> None:
        dispatcher.queue_logger.warning(
            "Task queue is short again: its depth was up to %d, for %s", depth, lasting(seconds)
        )

    alert = Alert(event_loop, tell, tell_cleared, dispatcher.renew_depth)
    dispatcher.depth_alert = alert
    return alert


def watch_spool(
    event_loop: EventLoop, budget: Any, logger: logging.Logger | logging.LoggerAdapter[Any]
) -> Alert:
    """Tell when there is no room in temporary files any more."""

    def tell(_: int) -> None:
        logger.warning(
            "temporary files have reached the spool limit of %d bytes: large request bodies are "
            "refused, readers that stall are cut, and workers may have to wait for the others",
            budget.limit,
        )

    def tell_cleared(seconds: float, _: int) -> None:
        logger.warning("temporary files have room again, after %s", lasting(seconds))

    alert = Alert(event_loop, tell, tell_cleared, lambda: int(budget.is_waited_for))
    budget.on_refused = alert.note_threadsafe
    return alert
