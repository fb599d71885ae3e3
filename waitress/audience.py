"""Who watches the servers of one loop, and how watching begins.

Owns the list of observers that the listeners of one server share. While there is none but
the one that counts refusals, a server's observer is that one, and channels ask one
attribute that is false; what makes events and timelines is not even imported.

Row 5: imports observer; events, recorder and, for their types, timeline when somebody
watches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from waitress.observer import Observer, Observers

if TYPE_CHECKING:
    from waitress.events import Event
    from waitress.recorder import Recorder
    from waitress.timeline import TimelineListener

__all__ = ["Audience", "Watched"]


class Audience:
    """The observers of one or more servers that stand in one loop.

    Args:
        server: the first of them; has ``rejects``, ``observer``, ``clients`` and
            ``trigger``.
        event_loop: the loop.

    Threads: any; what is asked for by another thread than the loop's is done by the loop,
    soon.
    """

    def __init__(self, server: Any, event_loop: Any) -> None:
        self._servers = [server]
        self._event_loop = event_loop
        self._observers = Observers(server.rejects)
        self._recorder: Recorder | None = None
        self._logs_events = False

    def take_in(self, server: Any) -> None:
        """Watch another server, too, in place of its own audience."""
        self._servers.append(server)
        server.audience = self
        self._show_to(server)

    def subscribe(self, observer: Observer) -> None:
        """Tell an observer of what happens from now on, on open connections too."""
        self._in_loop(lambda: self._subscribe(observer))

    def unsubscribe(self, observer: Observer) -> None:
        """Tell it no more."""
        self._in_loop(lambda: self._observers.unsubscribe(observer))

    def subscribe_timelines(self, listener: TimelineListener) -> None:
        """Tell a listener of each request that ends, from now on."""
        self._in_loop(lambda: self.record().subscribe(listener))

    def unsubscribe_timelines(self, listener: TimelineListener) -> None:
        """Tell it no more."""
        self._in_loop(lambda: self._unsubscribe_timelines(listener))

    def subscribe_events(self, tell: Callable[[Event], object]) -> None:
        """Call ``tell`` with an object for each event from now on."""
        from waitress.events import EventTeller

        self.subscribe(EventTeller(tell, self._event_loop.clock))

    def log_events(self) -> None:
        """Log events, from now on, at the level DEBUG of ``waitress.events``; repeatable."""
        if not self._logs_events:
            self._logs_events = True
            from waitress.events import log_event

            self.subscribe_events(log_event)

    def log_events_if_wanted(self) -> None:
        """Log events if anybody has configured logging so that they are shown."""
        if logging.getLogger("waitress.events").isEnabledFor(logging.DEBUG):
            self.log_events()

    def record(self, *, fills_environ: bool = False) -> Recorder:
        """Return the recorder of timelines, after having begun with it if need be (loop)."""
        recorder = self._recorder
        if recorder is None:
            from waitress.recorder import Recorder

            recorder = self._recorder = Recorder(self._event_loop, fills_environ=fills_environ)
        self._subscribe(recorder)
        return recorder

    def _subscribe(self, observer: Observer) -> None:
        self._observers.subscribe(observer)
        for server in self._servers:
            self._show_to(server)

    def _unsubscribe_timelines(self, listener: TimelineListener) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        recorder.unsubscribe(listener)
        if not recorder.has_work:
            self._observers.unsubscribe(recorder)
            recorder.stop(self._servers[0].clients.snapshot())

    def _show_to(self, server: Any) -> None:
        if len(self._observers.subscribers) > 1:
            server.observer = self._observers
            for channel in server.clients.snapshot():
                channel.observer = self._observers

    def _in_loop(self, action: Callable[[], object]) -> None:
        if self._event_loop.is_current_thread():
            action()
        else:
            self._servers[0].trigger.pull_trigger(action)


class Watched:
    """The doors for those who want to know what happens; see :mod:`waitress.observer`.

    Threads: any, before and while the server runs.
    """

    #: Who watches; ``None`` for servers put together by hand, which are watched one by one.
    audience: Audience | None = None

    def subscribe(self, observer: Observer) -> None:
        """Tell an observer of what happens from now on, on open connections too.

        What it raises is logged once, and harms nothing.
        """
        self._audience().subscribe(observer)

    def unsubscribe(self, observer: Observer) -> None:
        """Tell an observer no more."""
        self._audience().unsubscribe(observer)

    def subscribe_timelines(self, listener: TimelineListener) -> None:
        """Have ``listener.timeline_ended(timeline)`` called once for each request.

        In the loop's thread, when the request has ended, however it has. Timelines of
        connections and requests that were there before lack what happened before.
        """
        self._audience().subscribe_timelines(listener)

    def unsubscribe_timelines(self, listener: TimelineListener) -> None:
        """Tell a listener of timelines no more."""
        self._audience().unsubscribe_timelines(listener)

    def log_events(self) -> None:
        """Have the logger ``waitress.events`` tell what happens from now on.

        Done by itself where that logger is enabled for DEBUG when the server starts.
        """
        self._audience().log_events()

    def _audience(self) -> Audience:
        if self.audience is None:
            raise RuntimeError("subscribe to the servers that this one was made of")
        return self.audience
