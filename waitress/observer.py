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
from dataclasses import dataclass
from types import FunctionType
from typing import Any

__all__ = ["NO_OBSERVER", "FirstFailures", "Observer", "Observers", "Refusal"]

logger = logging.getLogger("waitress")


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused, of whom, and why."""

    #: The rule that was broken, e.g. ``obs-fold``;
    #: :attr:`waitress.utilities.Error.reject_reason`. Empty: it has no name.
    reason: str
    peer: Any  #: the peer's address: a tuple of host and port, or a text
    channel_id: int = 0  #: the number of the connection; 0 if there is none
    request_id: int = 0  #: that of the request; 0 if there is none
    #: What was refused, or its beginning; text is that of an environ.
    sample: bytes | str = b""


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

    def refused(self, refusal: Refusal) -> None:
        """Tell that something of a client's was refused (any thread).

        The one method that is called whether :attr:`listening` or not: refusals are rare,
        and always of interest to somebody.
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

    def guarded(self, who: Any, method: _Method, takes_one: bool = False) -> _Method:
        """Return what calls a method of a stranger, and lets nothing out but Ctrl-C.

        Args:
            who: whose failure it is.
            method: the method.
            takes_one: it has one argument. Most have; calling these takes half the time.
        """

        def tell(*args: Any) -> None:
            try:
                method(*args)
            except KeyboardInterrupt:  # The operator's, wherever it happened to strike.
                raise
            # sys.exit() too: who listens has no say in when the server ends.
            except BaseException:  # noqa: BLE001
                self.tell(who)

        def tell_one(arg: Any) -> None:
            try:
                method(arg)
            except KeyboardInterrupt:
                raise
            except BaseException:  # noqa: BLE001
                self.tell(who)

        return tell_one if takes_one else tell

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

    Whatever one of them raises is logged once, with its traceback, and harms neither the
    request nor the others, nor the thread in which it happens; only ``KeyboardInterrupt``
    passes.

    The methods for the events are attributes of the object, made anew of those of the
    subscribers whenever these change: of one, it is its own method, guarded; of none, the
    one that does nothing.

    Threads: ``subscribe`` and ``unsubscribe`` loop; the events as in :class:`Observer`. An
    event that another thread tells of meanwhile is told to those before or those after.
    """

    def __init__(self, *subscribers: Observer) -> None:
        self._failures = FirstFailures()
        self._subscribers: tuple[Observer, ...] = ()
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
        for event, takes_one in _EVENTS.items():
            setattr(self, event, self._teller(event, takes_one))
        self.listening = any(each.listening for each in subscribers)

    def _teller(self, event: str, takes_one: bool) -> _Method:
        """Return what tells of an event those who have something to do with it."""
        tellers = tuple(
            self._failures.guarded(each, method, takes_one)
            for each in self._subscribers
            if each.listening or event == "refused"
            if (method := _own_method(each, event)) is not None
        )
        if len(tellers) == 1:
            return tellers[0]

        def tell_each(*args: Any) -> None:
            for tell in tellers:
                tell(*args)

        return tell_each if tellers else _method(NO_OBSERVER, event)


#: The methods by which an observer is told, and whether they have one argument.
_EVENTS = {
    name: method.__code__.co_argcount == 2  # self, too
    for name, method in vars(Observer).items()
    if isinstance(method, FunctionType) and not name.startswith("_")
}


def _method(observer: Observer, event: str) -> _Method:
    method: _Method = getattr(observer, event)
    return method


def _own_method(observer: Observer, event: str) -> _Method | None:
    """Return the method for an event; ``None`` where it is the one that does nothing."""
    method = _method(observer, event)
    return None if getattr(method, "__func__", None) is vars(Observer)[event] else method
