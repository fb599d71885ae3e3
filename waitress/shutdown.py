"""How a server ends: in which steps, and by when.

Owns the one state machine of the end, which all listeners of a server share::

    SERVING      requests are served
    DRAIN_DELAY  nothing has changed but that responses carry ``Connection: close`` and that
                 whoever asks is told to look for another server
    DRAINING     nothing more is accepted; idle connections are closed; the others are
                 served to their end
    CLOSING      every connection has ended; the workers are on their way out
    DONE         nothing is left in the map

It moves when it is ordered to, when a connection rests or ends (:mod:`waitress.clients`
tells), when the workers have ended, and at its one deadline. Nothing polls.

Row 8: imports clients, cuts, eventloop and workers.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from waitress.clients import Clients
from waitress.cuts import Cuts
from waitress.eventloop import EventLoop, ExitNow
from waitress.workers import ThreadedTaskDispatcher

__all__ = ["CUT_STATUS", "INTERRUPT_SECONDS", "Phase", "Shutdown", "Stopped"]

#: How long an interrupted run (Ctrl-C, ``SystemExit``) goes on for what is in flight.
INTERRUPT_SECONDS = 5.0
#: How long a connection that has not sent anything yet, because it is new, may take to
#: send its first request when accepting ends: the client could not know.
NEWCOMER_SECONDS = 1.0
#: How often those who wait are looked after that the system has no descriptors for yet.
LOOK_SECONDS = 1.0
#: How long the workers are waited for when there is no time left, in seconds.
LAST_MOMENT_SECONDS = 0.5
#: The exit status of a process that had to cut requests.
CUT_STATUS = 3

logger = logging.getLogger("waitress.shutdown")


class Phase(enum.Enum):
    """Where on its way to the end a server is."""

    SERVING = "serving"
    DRAIN_DELAY = "asking clients to leave"
    DRAINING = "serving what is left"
    CLOSING = "ending the workers"
    DONE = "done"


# Whoever closes everything by hand leaves out what he likes.
_MOVES = {
    Phase.SERVING: {Phase.DRAIN_DELAY, Phase.DRAINING, Phase.DONE},
    Phase.DRAIN_DELAY: {Phase.DRAINING, Phase.DONE},
    Phase.DRAINING: {Phase.CLOSING, Phase.DONE},
    Phase.CLOSING: {Phase.DONE},
    Phase.DONE: set[Phase](),
}


class Stopped(ExitNow):
    """Leaves the loop when all that is left in its map belongs to somebody else."""


class Shutdown:
    """The end of one server, of one or several listeners.

    Threads: loop, but for :meth:`order` (any, and signal handlers).
    """

    #: See :mod:`waitress.eventloop` and :mod:`waitress.deadlines`.
    deadline = inf
    deadline_bucket: int | None = None
    touched = False

    def __init__(self, event_loop: EventLoop, clients: Clients, *listeners: Any) -> None:
        self.event_loop = event_loop
        #: What accepts; all of them have the settings and the workers of the first.
        self.listeners: list[Any] = list(listeners)
        self.clients = clients
        self.phase = Phase.SERVING
        #: Called with every new phase.
        self.listening: list[Callable[[Phase], None]] = []
        #: Orders from any thread: seconds, seconds of delay, and why.
        self._orders: deque[tuple[float | None, float | None, str]] = deque()
        self._delay_ends_at = self._newcomers_end_at = self._ends_at = inf
        #: Listeners at which somebody waits that cannot be accepted yet, and when to try.
        self._waited_for: list[Any] = []
        self._looks_at = inf
        #: Connections that came to rest since they were last looked at.
        self._resting: list[Any] = []
        self._workers_ended = False
        self._cuts = Cuts(event_loop, clients)
        self._is_in_run = False

    @property
    def exit_status(self) -> int:
        """What a process that ends with this server should exit with."""
        return CUT_STATUS if self._cuts.were_named else 0

    # -- any thread, and signal handlers -----------------------------------------------

    def order(
        self, timeout: float | None = None, delay: float | None = None, reason: str = ""
    ) -> None:
        """Have the server end; return at once.

        A later order can only bring the end forward.

        Args:
            timeout: seconds until what has not ended by itself is cut; by default the
                setting ``graceful_timeout``.
            delay: seconds in which connections are still accepted; by default the setting
                ``drain_delay``.
            reason: for the log.
        """
        # Nothing here waits for anything that the interrupted thread may hold.
        self._orders.append((timeout, delay, reason))
        self.event_loop.touch_threadsafe(self)
        self.event_loop.wake_threadsafe()

    # -- loop: running -------------------------------------------------------------------

    def run(self, loop: Callable[[], None], end_at_once: Callable[[], None]) -> None:
        """Run a loop to its end.

        An interruption lets what is in flight end; another one does not.

        Args:
            loop: returns when the map is empty.
            end_at_once: closes what is left.
        """
        outer, self._is_in_run = self._is_in_run, True
        try:
            try:
                loop()
                return
            except (SystemExit, KeyboardInterrupt) as error:
                self.order(INTERRUPT_SECONDS, 0, type(error).__name__)
            if self.clients.channels:
                for channel in self.clients.channels:
                    # What was about to be done for it may have been interrupted.
                    self.event_loop.touch_threadsafe(channel)
                try:
                    loop()
                except (SystemExit, KeyboardInterrupt):
                    self._cuts.name_all()
            self.end_by_hand(end_at_once)
        except Stopped:
            pass
        finally:
            self._is_in_run = outer

    def end_by_hand(self, end_at_once: Callable[[], None]) -> None:
        """Close what is left, where there is no loop any more to do it in order."""
        if self.phase is not Phase.DONE:
            self._move_to(Phase.DONE)
            end_at_once()

    # -- loop: what moves it -------------------------------------------------------------

    def handle_ready(self) -> None:
        """Take orders, and go on after what connections and workers have done."""
        while self._orders:
            self._take(*self._orders.popleft())
        self._go_on()

    def handle_deadline(self, now: float) -> None:
        """Go on because of the time."""
        self._go_on()

    def handle_error(self) -> None:
        """Log what one of the listeners ran into, and go on: the end must come."""
        logger.exception("Exception while shutting down")  # noqa: LOG004 - while handling it
        self.event_loop.touch_threadsafe(self)

    def channel_rests(self, channel: Any) -> None:
        """Take notice that a connection has nothing to do (:mod:`waitress.clients`)."""
        self._resting.append(channel)
        self.event_loop.touch_threadsafe(self)

    def channel_ended(self) -> None:
        """Take notice that a connection has ended (:mod:`waitress.clients`)."""
        if not self.clients.channels:
            self.event_loop.touch_threadsafe(self)

    # -- loop: the steps -----------------------------------------------------------------

    def _take(self, timeout: float | None, delay: float | None, reason: str) -> None:
        now = self.event_loop.clock()
        if timeout is None:
            timeout = self._setting("graceful_timeout", 25)
        if self.phase is Phase.SERVING:
            self._begin(now, timeout, delay, reason)
        elif now + timeout < self._ends_at:
            logger.info("shutdown%s: %.3g s left", _because(reason), timeout)
            self._ends_at = now + timeout
            self._delay_ends_at = min(
                self._delay_ends_at, now + (timeout if delay is None else delay)
            )

    def _begin(self, now: float, timeout: float, delay: float | None, reason: str) -> None:
        if delay is None:
            delay = self._setting("drain_delay", 0)
        self._ends_at = now + timeout
        self._delay_ends_at = now + min(delay, timeout)
        logger.info(
            "shutdown%s: %d connection(s) open, %d request(s) unfinished, at most %.3g s",
            _because(reason),
            len(self.clients.channels),
            sum(
                len(channel.requests) + (channel.request is not None)
                for channel in self.clients.channels
            ),
            timeout,
        )
        # From here on responses carry Connection: close.
        self.clients.watcher = self
        self._move_to(Phase.DRAIN_DELAY if delay > 0 else Phase.DRAINING)
        if self.phase is Phase.DRAINING:
            self._stop_accepting(now)

    def _go_on(self) -> None:
        now = self.event_loop.clock()
        if self.phase is Phase.DRAIN_DELAY and now >= self._delay_ends_at:
            self._move_to(Phase.DRAINING)
            self._stop_accepting(now)
        if self.phase is Phase.DRAINING:
            self._drain(now)
        if self.phase is Phase.CLOSING and (self._workers_ended or now >= self._ends_at):
            self._finish()
        self._arm()

    def _arm(self) -> None:
        next_step = {
            Phase.DRAIN_DELAY: min(self._delay_ends_at, self._ends_at),
            Phase.DRAINING: min(self._newcomers_end_at, self._looks_at, self._ends_at),
            Phase.CLOSING: self._ends_at,
        }
        self.event_loop.deadlines.arm(self, next_step.get(self.phase, inf))

    def _stop_accepting(self, now: float) -> None:
        self._waited_for = list(self.listeners)
        self._accept_the_last(now)

    def _accept_the_last(self, now: float) -> None:
        """Stop accepting, where nobody waits whom there are no descriptors for as yet."""
        self._newcomers_end_at = now + NEWCOMER_SECONDS
        self._waited_for = [
            listener
            for listener in self._waited_for
            if _survive(listener.stop_accepting, "closing a listener") is False
        ]
        self._looks_at = now + LOOK_SECONDS if self._waited_for else inf
        self._resting = list(self.clients.channels)

    def _drain(self, now: float) -> None:
        if self._waited_for and (now >= self._looks_at or not self.clients.channels):
            self._accept_the_last(now)
        resting, self._resting = self._resting, []
        newcomers_since = now - NEWCOMER_SECONDS
        if now >= self._newcomers_end_at:
            newcomers_since = self._newcomers_end_at = inf
        for channel in resting:
            if not channel.close_if_resting(newcomers_since):
                self._resting.append(channel)
        if (self.clients.channels or self._waited_for) and now >= self._ends_at:
            self._cut()
        if not (self.clients.channels or self._waited_for):
            self._stop_workers(now)

    def _cut(self) -> None:
        _survive(self._cuts.name_all, "naming what is cut")
        for channel in list(self.clients.channels):
            _survive(channel.close, "cutting a connection")
            self.clients.channels.discard(channel)
        for listener in self._waited_for:
            self._cuts.name_backlog(f"{listener.effective_host}:{listener.effective_port}")
        self._waited_for, self._looks_at = [], inf

    def _stop_workers(self, now: float) -> None:
        self._move_to(Phase.CLOSING)
        if now >= self._ends_at:
            self._ends_at = now + LAST_MOMENT_SECONDS
        dispatcher = getattr(self._first_listener(), "task_dispatcher", None)
        if isinstance(dispatcher, ThreadedTaskDispatcher):
            # Waiting is not for the loop, which may be told meanwhile to hurry.
            seconds = max(self._ends_at - now, 0)
            threading.Thread(
                target=self._await_workers,
                args=(dispatcher, seconds),
                name="waitress-shutdown",
                daemon=True,
            ).start()
            return
        if dispatcher is not None:
            dispatcher.shutdown()
        self._workers_ended = True

    def _await_workers(self, dispatcher: ThreadedTaskDispatcher, seconds: float) -> None:
        _survive(lambda: dispatcher.shutdown(True, seconds), "ending the workers")
        self._workers_ended = True
        self.event_loop.touch_threadsafe(self)
        self.event_loop.wake_threadsafe()

    def _finish(self) -> None:
        # Whose client has left may run still.
        _survive(self._cuts.name_running, "naming what is cut")
        self._move_to(Phase.DONE)
        self.event_loop.deadlines.forget(self)
        for listener in self.listeners:
            # Of a kind that tells nobody of its end.
            for channel in list(listener.active_channels.values()):
                _survive(channel.close, "cutting a connection")
            _survive(listener.close, "closing a listener")
        logger.info("shutdown: done%s", ", requests were cut" if self.exit_status else "")
        if self._is_in_run and self.event_loop.map:
            raise Stopped

    def _move_to(self, phase: Phase) -> None:
        assert phase in _MOVES[self.phase], (self.phase, phase)
        self.phase = phase
        for listener in self.listening:
            listener(phase)

    def _setting(self, name: str, default: float) -> float:
        return float(getattr(getattr(self._first_listener(), "adj", None), name, default))

    def _first_listener(self) -> Any:
        """Return the first listener; a server put together by hand may have none."""
        return self.listeners[0] if self.listeners else None


def _survive(step: Callable[[], Any], doing: str) -> Any:
    """Take a step that runs code of others; whatever it raises, the end must come."""
    try:
        return step()
    except Exception:
        logger.exception("Exception while %s", doing)
        return None


def _because(reason: str) -> str:
    return f" ({reason})" if reason else ""
