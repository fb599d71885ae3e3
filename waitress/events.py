"""The life of connections and requests as event objects, and as lines of a log.

Owns the classes of events, their wording, and the logger ``waitress.events``. A callable
given as the setting ``on_event`` is called with each event, in the thread in which it
happens: the loop's, or that of the worker that serves the request. It must not block.

Of one request the events come in the order in which the classes stand here, but for
:class:`RequestCancelled`, which takes the place of all from :class:`RequestStarted` on. Of
one connection :class:`ChannelCreated` comes first and :class:`ChannelClosed` last, save
what is told of a request whose application runs on although its client has gone.

Row 1: imports observer and targets.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from waitress.observer import Observer
from waitress.targets import shown_target

__all__ = [
    "ApplicationFinished",
    "ApplicationStarted",
    "ChannelClosed",
    "ChannelCreated",
    "ChannelRequestsQueued",
    "Event",
    "EventTeller",
    "RequestCancelled",
    "RequestCreated",
    "RequestEvent",
    "RequestFinished",
    "RequestServiced",
    "RequestStarted",
    "event_logger",
    "log_event",
]

#: One line for each event, at DEBUG.
event_logger = logging.getLogger("waitress.events")


@dataclass(frozen=True)
class Event:
    """Something that happened; ``str()`` gives its line in the log."""

    #: What happened, in words.
    name: ClassVar[str] = ""

    #: When, in seconds on the monotonic clock.
    time: float
    #: The number of the connection.
    channel_id: int

    def __str__(self) -> str:
        return f"{self.name}: {self._subject()} at time {self.time:.6f}"

    def _subject(self) -> str:
        return f"channel {self.channel_id}"


@dataclass(frozen=True)
class ChannelCreated(Event):
    """A connection was accepted."""

    name = "channel created"

    #: The address of its other end.
    peer: Any


@dataclass(frozen=True)
class RequestEvent(Event):
    """Something that happened to one request."""

    #: The number of the request, unique in the process.
    request_id: int

    def _subject(self) -> str:
        return f"request id {self.request_id}"


@dataclass(frozen=True)
class RequestCreated(RequestEvent):
    """The head of a request was parsed."""

    name = "request created"

    #: The method; empty where the request line was not understood.
    method: str
    #: The target as sent, without its query.
    path: str

    def _subject(self) -> str:
        return f"channel {self.channel_id}, request id {self.request_id}"


@dataclass(frozen=True)
class ChannelRequestsQueued(Event):
    """One read of a connection completed these requests, and they wait for their turn."""

    name = "channel requests queued"

    #: The numbers of the requests, in their order.
    request_ids: tuple[int, ...]

    def _subject(self) -> str:
        numbers = ",".join(map(str, self.request_ids))
        return f"channel {self.channel_id}, request ids {numbers}"


@dataclass(frozen=True)
class RequestStarted(RequestEvent):
    """A worker took the request; or the loop, to answer one that was refused."""

    name = "request started"


@dataclass(frozen=True)
class ApplicationStarted(RequestEvent):
    """The application is about to be called."""

    name = "application started"


@dataclass(frozen=True)
class ApplicationFinished(RequestEvent):
    """The iterable of the application is exhausted and closed."""

    name = "application finished"


@dataclass(frozen=True)
class RequestServiced(RequestEvent):
    """All bytes of the response are in the output buffer."""

    name = "request serviced"


@dataclass(frozen=True)
class RequestFinished(RequestEvent):
    """The last byte of the response was handed to the kernel."""

    name = "request finished"


@dataclass(frozen=True)
class RequestCancelled(RequestEvent):
    """The request never starts: the connection ended before its turn came."""

    name = "request cancelled"


@dataclass(frozen=True)
class ChannelClosed(Event):
    """The connection is gone."""

    name = "channel closed"


def log_event(event: Event) -> None:
    """Log an event, as a line of its own."""
    event_logger.debug("%s", event)


class EventTeller(Observer):
    """Makes event objects of what an observer is told.

    Args:
        tell: called with each.
        clock: the monotonic clock.

    Threads: as of :class:`~waitress.observer.Observer`.
    """

    listening = True

    def __init__(self, tell: Callable[[Event], object], clock: Callable[[], float]) -> None:
        self.tell = tell
        self._clock = clock

    def __repr__(self) -> str:
        return f"<EventTeller of {self.tell!r}>"

    def channel_created(self, channel: Any) -> None:
        self.tell(ChannelCreated(self._clock(), channel.channel_id, channel.addr))

    def request_created(self, channel: Any, request: Any) -> None:
        number = request.channel_id = channel.channel_id
        path, _ = shown_target(request)
        method = getattr(request, "command", "")
        self.tell(RequestCreated(self._clock(), number, request.request_id, method, path))

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        number = channel.channel_id
        for request in requests:  # One whose head was never whole was not created.
            request.channel_id = number
        numbers = tuple(request.request_id for request in requests)
        self.tell(ChannelRequestsQueued(self._clock(), number, numbers))

    def request_started(self, request: Any) -> None:
        self._tell(RequestStarted, request)

    def application_started(self, request: Any) -> None:
        self._tell(ApplicationStarted, request)

    def application_finished(self, request: Any) -> None:
        self._tell(ApplicationFinished, request)

    def request_serviced(self, request: Any) -> None:
        self._tell(RequestServiced, request)

    def request_finished(self, request: Any) -> None:
        self._tell(RequestFinished, request)

    def request_cancelled(self, request: Any) -> None:
        self._tell(RequestCancelled, request)

    def channel_closed(self, channel: Any) -> None:
        self.tell(ChannelClosed(self._clock(), channel.channel_id))

    def _tell(self, kind: type[RequestEvent], request: Any) -> None:
        # 0 of a request that came before anybody listened.
        number = getattr(request, "channel_id", 0)
        self.tell(kind(self._clock(), number, request.request_id))
