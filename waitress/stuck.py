"""Requests that run for too long: found, shown, replaced, and as the last resort killed.

Owns the table of what the workers serve, by thread, and since when. A worker enters and
leaves it; the loop looks at it when the first request that runs may have become too old,
and not at all while nothing runs. No other thread and no poll is needed, and any task
dispatcher will do: requests tell of themselves, through the observer.

1. *Find and show*: past ``stuck_request_seconds`` the request, its peer, its age and the
   stack of its thread are logged, and again each time its age has doubled; at its end,
   how long it took.
2. *Replace*: with ``replace_stuck_threads``, the dispatcher gets a thread for each stuck
   one, up to so many. When a replaced request ends, its thread, or one like it, goes.
3. *Kill*: past ``kill_stuck_seconds`` an exception is raised in it: see
   :mod:`waitress.killing`.

Row 3: imports activity, eventloop, killing, observer, stacks and utilities.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from math import inf
from typing import Any

from waitress.activity import thread_names
from waitress.eventloop import EventLoop, event_loop_of, snapshot
from waitress.killing import KillableApplication, KillSwitch, can_kill
from waitress.observer import Observer
from waitress.stacks import current_frames, format_frame, peer_text, request_line
from waitress.utilities import logger

__all__ = ["Serving", "StuckRequests", "watch_requests"]

#: When a request cannot be killed at this moment, it is tried again so much later, seconds.
KILL_AGAIN_SECONDS = 0.5


class Serving:
    """One request in the hands of a worker."""

    __slots__ = (
        "is_replaced",
        "is_stuck",
        "kill_at",
        "request",
        "show_at",
        "since",
        "switch",
        "thread_id",
    )

    def __init__(self, request: Any, thread_id: int, since: float) -> None:
        self.request = request
        self.thread_id = thread_id
        #: The beginning, and what is to be done at which instant, on the loop's clock.
        self.since = since
        self.show_at = self.kill_at = inf
        #: Ends it; ``None`` where the application is not to be killed, or not called yet.
        self.switch: KillSwitch | None = None
        # guarded by the lock of StuckRequests:
        self.is_stuck = False
        self.is_replaced = False


class StuckRequests(Observer):
    """Finds the requests of one server that run for too long.

    Threads: ``request_started``, ``request_serviced`` and ``switch_for_this_thread``
    worker; :meth:`is_live` any; the rest loop.
    """

    listening = True
    #: See :mod:`waitress.deadlines` and :mod:`waitress.eventloop`.
    deadline = inf
    deadline_bucket: int | None = None
    touched = False

    def __init__(
        self,
        event_loop: EventLoop,
        dispatcher: Any,
        seconds: float,
        replacements: int = 0,
        kill_seconds: float = 0,
    ) -> None:
        """Make a watch.

        Args:
            event_loop: has the clock, and looks.
            dispatcher: the task dispatcher; is given threads if it knows ``add_thread()``
                and ``retire_thread()``.
            seconds: the age from which a request is stuck.
            replacements: the most threads that are added; 0 for none.
            kill_seconds: the age at which a request is killed; 0 for never.
        """
        self._event_loop = event_loop
        self._clock = event_loop.clock
        self._dispatcher = dispatcher
        self._seconds = seconds
        self._replacements = replacements
        self._kill_seconds = kill_seconds or inf
        #: What each thread serves; each changes its own entry.
        self.serving: dict[int, Serving] = {}
        #: Whether the loop is going to look. As with the loop's flag ``is_awake``: a worker
        #: enters its request, then tests it; the loop clears it, then looks.
        self._is_watching = False
        self._has_begun_since_look = False
        self._lock = threading.Lock()
        # guarded by _lock:
        self._stuck_count = 0
        self._replaced_count = 0

    # -- worker ------------------------------------------------------------------------

    def request_started(self, request: Any) -> None:
        """Enter a request."""
        thread_id = threading.get_ident()
        serving = Serving(request, thread_id, self._clock())
        serving.show_at = serving.since + self._seconds
        serving.kill_at = serving.since + self._kill_seconds
        self.serving[thread_id] = serving
        self._has_begun_since_look = True
        if not self._is_watching:
            self._is_watching = True
            self._event_loop.touch_threadsafe(self)
            self._event_loop.wake_threadsafe()

    def request_serviced(self, request: Any) -> None:
        """Let a request leave; where it was stuck, tell how long it took."""
        with self._lock:
            serving = self.serving.pop(threading.get_ident(), None)
            if serving is None or not serving.is_stuck:
                return
            self._stuck_count -= 1
            is_replaced = serving.is_replaced
            self._replaced_count -= is_replaced
        if is_replaced:
            self._dispatcher.retire_thread()
        age = self._clock() - serving.since
        was_killed = serving.switch is not None and serving.switch.is_fired
        logger.warning(
            "request %s %s after %.1f s: %s",
            request.request_id,
            "was killed" if was_killed else "recovered",
            age,
            request_line(request),
        )

    def switch_for_this_thread(self) -> KillSwitch | None:
        """Make the switch of the request that the calling thread serves, if it has none."""
        serving = self.serving.get(threading.get_ident())
        if serving is None or serving.switch is not None:
            return None
        serving.switch = KillSwitch()
        return serving.switch

    # -- any thread --------------------------------------------------------------------

    def is_live(self) -> bool:
        """Say whether the server can be expected to serve.

        False when more requests are stuck than threads may be replaced; where none may be,
        when all threads are stuck.
        """
        stuck = self._stuck_count
        if self._replacements:
            return stuck <= self._replacements
        threads = len(getattr(self._dispatcher, "threads", ()))
        return not stuck or stuck < threads

    @property
    def stuck_count(self) -> int:
        """How many requests are stuck."""
        return self._stuck_count

    # -- loop --------------------------------------------------------------------------

    def handle_ready(self) -> None:
        """Begin to look, or go on."""
        self._look(self._clock())

    def handle_deadline(self, now: float) -> None:
        """Look."""
        self._look(now)

    def handle_error(self) -> None:
        """Log what went wrong; the requests are still served."""
        logger.exception("Exception in the search for stuck requests")

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        """Note whose requests they are: their clients may have left when somebody asks."""
        for request in requests:
            request.addr = channel.addr
            request.channel_id = channel.channel_id

    def forget(self) -> None:
        """Look no more: the server closes."""
        self._event_loop.deadlines.forget(self)

    def _look(self, now: float) -> None:
        self._is_watching = False
        has_begun, self._has_begun_since_look = self._has_begun_since_look, False
        running = list(snapshot(self.serving).values())
        next_look = inf
        if running or has_begun:
            # Whatever begins from now on is younger, so that it need not wake the loop.
            self._is_watching = True
            next_look = now + min(self._seconds, self._kill_seconds)
        try:
            for serving in running:
                self._attend(serving, now)
                next_look = min(next_look, serving.show_at, serving.kill_at)
        finally:
            self._event_loop.deadlines.arm(self, next_look)

    def _attend(self, serving: Serving, now: float) -> None:
        """Do what is due about one request."""
        age = now - serving.since
        if now >= serving.show_at:
            serving.show_at = serving.since + 2 * max(age, self._seconds)
            if not serving.is_stuck and not self._mark_stuck(serving):
                return
            stack = format_frame(current_frames().get(serving.thread_id))
            self._show(serving, age, "has been running for", stack)
        if now >= serving.kill_at:
            self._kill(serving, now)

    def _mark_stuck(self, serving: Serving) -> bool:
        """Count a request as stuck, and replace its thread; false if it has just ended."""
        with self._lock:
            if self.serving.get(serving.thread_id) is not serving:
                return False
            serving.is_stuck = True
            self._stuck_count += 1
            may_replace = self._replaced_count < self._replacements
        if may_replace and self._add_thread():
            with self._lock:
                if self.serving.get(serving.thread_id) is serving:
                    serving.is_replaced = True
                    self._replaced_count += 1
                    return True
            self._dispatcher.retire_thread()  # It ended meanwhile.
        return True

    def _add_thread(self) -> bool:
        add_thread = getattr(self._dispatcher, "add_thread", None)
        if add_thread is None:
            self._replacements_are_impossible("this task dispatcher has no add_thread()")
            return False
        try:
            return bool(add_thread())
        except Exception as error:  # noqa: BLE001 - the system's, or somebody's dispatcher
            logger.warning("cannot replace the thread of a stuck request: %s", error)
            return False

    def _replacements_are_impossible(self, reason: str) -> None:
        logger.warning("replace_stuck_threads has no effect: %s", reason)
        self._replacements = 0

    def _kill(self, serving: Serving, now: float) -> None:
        switch = serving.switch
        serving.kill_at = now + KILL_AGAIN_SECONDS
        if switch is None:
            return
        stack = format_frame(current_frames().get(serving.thread_id))
        if switch.fire():
            self._show(serving, now - serving.since, "is being killed after", stack)
        if switch.is_fired:
            serving.kill_at = inf

    def _show(self, serving: Serving, age: float, what: str, stack: str) -> None:
        """Log a request, and where its thread is."""
        request = serving.request
        logger.warning(
            "request %s %s %.1f s: %s from %s, channel %s, in thread %s, which is at\n%s",
            request.request_id,
            what,
            age,
            request_line(request),
            peer_text(request),
            getattr(request, "channel_id", "-"),
            thread_names().get(serving.thread_id, serving.thread_id),
            stack,
        )


def watch_requests(servers: Iterable[Any], adj: Any) -> StuckRequests:
    """Watch the requests of listeners that share their connections and their dispatcher.

    Raises:
        ValueError: requests are to be killed, which this interpreter cannot do.
    """
    servers = list(servers)
    first = servers[0]
    if adj.kill_stuck_seconds and not can_kill():
        raise ValueError(
            "This Python cannot raise an exception in another thread, which killing needs "
            f"(kill_stuck_seconds={adj.kill_stuck_seconds!r}; allowed: 0)"
        )
    stuck = StuckRequests(
        event_loop_of(first._map),
        first.task_dispatcher,
        adj.stuck_request_seconds,
        adj.replace_stuck_threads,
        adj.kill_stuck_seconds,
    )
    for server in servers:
        server.stuck = stuck
        server.subscribe(stuck)
        if adj.kill_stuck_seconds:
            server.application = KillableApplication(
                server.application, stuck.switch_for_this_thread
            )
    return stuck
