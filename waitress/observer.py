"""The one seam through which the life of a request can be watched.

The server tells an :class:`Observer` what happens; it never asks it anything, and no
other module knows who listens. The default observer listens to nothing and costs one
attribute test per event: callers ask :attr:`Observer.listening` first, and no clock is
read and no argument is built when it is false. :class:`Observers` tells many.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["NO_OBSERVER", "FirstFailures", "Observer", "Observers"]

logger = logging.getLogger("waitress")


class Observer:
    """Receive the events of channels and requests; every method does nothing here.

    Subclasses set :attr:`listening` and override what they need. Requests are told by
    the request object itself, which carries ``request_id``; channels by the channel,
    which carries ``channel_id``. Times are up to the listener, which has its own clock:
    each method is called at the moment of the event.

    Threads: methods marked *loop* are called by the loop's thread, methods marked
    *worker* by the worker that serves the request. A method must not raise, and must
    not block: it stands in the path of every request.
    """

    #: Whether anybody listens. When false, only :meth:`refused` is called.
    listening: bool = False

    def channel_created(self, channel: Any) -> None:
        """Tell that a connection was accepted (loop)."""

    def head_begun(self, channel: Any, request: Any) -> None:
        """Tell that a read has left a head incomplete; at each such read (loop).

        Not told of a head that comes in one piece, nor once it is complete.
        """

    def request_created(self, channel: Any, request: Any) -> None:
        """Tell that a whole head was parsed; the request has its id now (loop)."""

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        """Tell which complete requests one read of the connection queued (loop)."""

    def request_started(self, request: Any) -> None:
        """Tell that a worker took the request (worker; loop for an error's answer)."""

    def application_started(self, request: Any) -> None:
        """Tell that the WSGI application is about to be called (worker)."""

    def environ_built(self, request: Any, environ: dict[str, Any]) -> None:
        """Hand over the environ before the application sees it (worker).

        Keys may be added; none that the server has set may be changed.
        """

    def response_started(self, request: Any, status: str) -> None:
        """Tell that the application called ``start_response`` (worker)."""

    def head_written(self, request: Any, status: str, head: bytes) -> None:
        """Tell the head of the response, as it goes to the client (worker, loop)."""

    def response_leaving(self, request: Any) -> None:
        """Tell that the first byte of the response was handed to the kernel (loop)."""

    def iterable_exhausted(self, request: Any) -> None:
        """Tell that an iterable that has a ``close()`` is about to be closed (worker)."""

    def application_finished(self, request: Any) -> None:
        """Tell that the iterable is exhausted and closed (worker)."""

    def request_failed(self, request: Any, error: BaseException | None) -> None:
        """Tell why the response is not what the application meant (worker).

        Args:
            request: the request.
            error: what was raised while it was served; ``None`` when the body is shorter
                than its Content-Length.
        """

    def request_serviced(self, request: Any) -> None:
        """Tell that all bytes of the response are in the output buffer (worker, loop)."""

    def request_finished(self, request: Any) -> None:
        """Tell that the last byte of the response was handed to the kernel.

        (Loop; worker, where all of it had left before the request was serviced.)
        """

    def request_cancelled(self, request: Any) -> None:
        """Tell that the request never starts: an earlier one ended the connection."""

    def refused(
        self,
        reason: str,
        peer: Any,
        channel_id: int = 0,
        request_id: int = 0,
        sample: bytes | str = b"",
    ) -> None:
        """Tell that something of a client's was refused (any thread).

        The one method that is called whether :attr:`listening` or not: refusals are rare,
        and always of interest to somebody.

        Args:
            reason: the rule that was broken, e.g. ``obs-fold``;
                :attr:`waitress.utilities.Error.reject_reason`. Empty: it has no name.
            peer: the peer's address: a tuple of host and port, or a text.
            channel_id: the number of the connection; 0 if there is none.
            request_id: that of the request; 0 if there is none.
            sample: what was refused, or its beginning; text is that of an environ.
        """

    def channel_closed(self, channel: Any) -> None:
        """Tell that the connection is gone (loop)."""


#: The observer of a server that nobody listens to.
NO_OBSERVER = Observer()

_Method = Callable[..., None]


class FirstFailures:
    """Logs the first failure of each of those who are told things, and no more.

    Whoever fails once as a rule fails with every request, and a traceback for each would
    be another failure.

    Threads: any; at worst two tell of the same.
    """

    def __init__(self) -> None:
        self._known: set[int] = set()

    def tell(self, who: Any) -> None:
        """Log the exception being handled, unless this one has failed before."""
        if id(who) not in self._known:
            self._known.add(id(who))
            logger.exception(  # noqa: LOG004 - called while handling it
                "%r failed when it was told of an event; further failures are not logged", who
            )

    def forget(self, who: Any) -> None:
        """Log the next failure again: another object may get the same identity."""
        self._known.discard(id(who))


class Observers(Observer):
    """Tells many what it is told, in the order in which they subscribed.

    An exception in one of them is logged once, with its traceback, and harms neither the
    request nor the others.

    Threads: ``subscribe`` and ``unsubscribe`` loop; the events as in :class:`Observer`.
    """

    def __init__(self, *subscribers: Observer) -> None:
        self._failures = FirstFailures()
        # Replaced as a whole, so that workers always see one or the other.
        self._subscribers: tuple[Observer, ...] = ()
        self._hearers: dict[str, tuple[tuple[Observer, _Method], ...]] = {}
        self._set(subscribers)

    @property
    def subscribers(self) -> tuple[Observer, ...]:
        """Who is told."""
        return self._subscribers

    def subscribe(self, observer: Observer) -> None:
        """Tell one more; whether it listens is asked now.

        One that does not is told of refusals only.
        """
        if not any(each is observer for each in self._subscribers):
            self._set((*self._subscribers, observer))

    def unsubscribe(self, observer: Observer) -> None:
        """Tell one less; harmless when it was not told anything."""
        self._set(tuple(each for each in self._subscribers if each is not observer))
        self._failures.forget(observer)

    def _set(self, subscribers: tuple[Observer, ...]) -> None:
        self._subscribers = subscribers
        self._hearers = {
            event: tuple(
                (each, method)
                for each in subscribers
                if each.listening or event == "refused"
                # Whoever has nothing to do with an event is not called for it.
                if (method := _own_method(each, event)) is not None
            )
            for event in _EVENTS
        }
        self.listening = any(each.listening for each in subscribers)

    def _tell(self, event: str, *args: Any) -> None:
        for subscriber, method in self._hearers[event]:
            try:
                method(*args)
            except Exception:  # noqa: BLE001 - a stranger's: anything
                self._failures.tell(subscriber)

    def channel_created(self, channel: Any) -> None:
        self._tell("channel_created", channel)

    def head_begun(self, channel: Any, request: Any) -> None:
        self._tell("head_begun", channel, request)

    def request_created(self, channel: Any, request: Any) -> None:
        self._tell("request_created", channel, request)

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        self._tell("requests_queued", channel, requests)

    def request_started(self, request: Any) -> None:
        self._tell("request_started", request)

    def application_started(self, request: Any) -> None:
        self._tell("application_started", request)

    def environ_built(self, request: Any, environ: dict[str, Any]) -> None:
        self._tell("environ_built", request, environ)

    def response_started(self, request: Any, status: str) -> None:
        self._tell("response_started", request, status)

    def head_written(self, request: Any, status: str, head: bytes) -> None:
        self._tell("head_written", request, status, head)

    def response_leaving(self, request: Any) -> None:
        self._tell("response_leaving", request)

    def iterable_exhausted(self, request: Any) -> None:
        self._tell("iterable_exhausted", request)

    def application_finished(self, request: Any) -> None:
        self._tell("application_finished", request)

    def request_failed(self, request: Any, error: BaseException | None) -> None:
        self._tell("request_failed", request, error)

    def request_serviced(self, request: Any) -> None:
        self._tell("request_serviced", request)

    def request_finished(self, request: Any) -> None:
        self._tell("request_finished", request)

    def request_cancelled(self, request: Any) -> None:
        self._tell("request_cancelled", request)

    def refused(
        self,
        reason: str,
        peer: Any,
        channel_id: int = 0,
        request_id: int = 0,
        sample: bytes | str = b"",
    ) -> None:
        self._tell("refused", reason, peer, channel_id, request_id, sample)

    def channel_closed(self, channel: Any) -> None:
        self._tell("channel_closed", channel)


#: The names of the methods by which an observer is told.
_EVENTS = tuple(
    name for name, value in vars(Observer).items() if callable(value) and not name.startswith("_")
)


def _own_method(observer: Observer, event: str) -> _Method | None:
    """Return the method for an event; ``None`` where it is the one that does nothing."""
    method: _Method = getattr(observer, event)
    return None if getattr(method, "__func__", None) is vars(Observer)[event] else method
