"""A limit for what all connections together hold in memory.

Owns the count of the bytes that requests and responses hold, and the decision who may be
read from while they are too many: nobody, but for one. What was received goes on: it is
served and sent, and its memory is free again. The one that is still read from is the
connection whose unfinished request came first: were all that is in memory halves of
requests, nothing would ever be complete, and nothing be served. It is served or, if its
client does not go on, ended by the deadlines of receiving, and then it is the next one's
turn.

A connection at which bytes lie unread meanwhile is *paused*: it is watched for nothing,
and no deadline of its client's runs. All of them go on when the count has fallen below
three quarters of the limit. (A channel class of the user's own that wants to be asked
whether it reads is never paused: nothing is read from it either, but its deadlines run.)

What workers append is counted when the loop next looks at the connection, which is soon;
until then each of them may add as much as ``outbuf_overflow``.

Row 4: imports alerts, eventloop, outbound (its type), pollers, request_queue (its type)
and utilities.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from waitress.alerts import Alert, lasting
from waitress.eventloop import EventLoop
from waitress.outbound import OutboundBuffer
from waitress.pollers import READ
from waitress.request_queue import RequestQueue
from waitress.utilities import logger

__all__ = ["LimitedMemory", "MemoryLimit", "limit_memory"]

#: Reading goes on when so much of the limit is in use: not at the limit itself, or
#: thousands of connections would stop and go with every byte.
LOW_PART = 0.75

#: The phases in which it is the client's turn to send, by their names.
_RECEIVING = frozenset({"PROXY_HEADER", "IDLE", "HEAD", "BODY"})


class MemoryLimit:
    """How many bytes the connections of a server hold, and who may be read from.

    Threads: loop.
    """

    def __init__(self, event_loop: EventLoop, limit: int) -> None:
        """Count from nothing.

        Args:
            event_loop: brings back those that were paused.
            limit: the number of bytes above which reading stops.
        """
        self._event_loop = event_loop
        self.limit = limit
        #: How many bytes are held, as of the last look at each connection.
        self.used = 0
        self.is_full = False
        #: The connections that hold a part of a request, the longest first.
        self._receiving: dict[LimitedMemory, None] = {}
        self._paused: set[LimitedMemory] = set()
        self.alert = Alert(event_loop, self._tell, self._tell_cleared, lambda: int(self.is_full))

    def may_read(self, channel: LimitedMemory) -> bool:
        """Say whether a connection may be read from."""
        return not self.is_full or next(iter(self._receiving), None) is channel

    def pause(self, channel: LimitedMemory) -> None:
        """Have a connection go on when it may be read from again."""
        channel.is_paused = True
        self._paused.add(channel)

    def count(self, channel: LimitedMemory, held: int, is_receiving: bool) -> None:
        """Take note of what a connection holds.

        Args:
            channel: the connection.
            held: the number of bytes.
            is_receiving: whether a part of a request is among them.
        """
        self.used += held - channel.held_bytes
        channel.held_bytes = held
        if is_receiving:
            self._receiving.setdefault(channel)
        else:
            self._receiving.pop(channel, None)
        if self.is_full:
            if self.used <= self.limit * LOW_PART:
                self.is_full = False
                self._resume(*self._paused)
            else:
                self._resume(*itertools.islice(self._receiving, 1))
        elif self.used > self.limit:
            self.is_full = True
            self.alert.note_threadsafe()

    def forget(self, channel: LimitedMemory) -> None:
        """Take note that a connection has ended."""
        self._paused.discard(channel)
        self.count(channel, 0, is_receiving=False)

    def _resume(self, *channels: LimitedMemory) -> None:
        for channel in channels:
            if channel.is_paused:
                channel.is_paused = False
                self._paused.discard(channel)
                self._event_loop.touch_threadsafe(channel)

    def _tell(self, _: int) -> None:
        logger.warning(
            "connections hold more than %d bytes in memory (max_buffered_bytes); "
            "nothing more is read from clients",
            self.limit,
        )

    def _tell_cleared(self, seconds: float, _: int) -> None:
        logger.warning("clients are read from again, after %s", lasting(seconds))


if TYPE_CHECKING:

    class _Channel:
        """What the mix-in finds in the channel class that it is mixed into."""

        interest: int
        outbound: OutboundBuffer
        request: Any
        request_queue: RequestQueue
        state: Any

        @property
        def phase(self) -> Any: ...
        def readable(self) -> bool: ...
        def del_channel(self, map: Any = None) -> None: ...
        def handle_read(self) -> None: ...
        def _advance(self) -> None: ...
        def _ignore_input(self) -> None: ...
        def _update(self) -> None: ...
        def _update_deadline(self) -> None: ...

else:
    _Channel = object


class LimitedMemory(_Channel):
    """What makes a channel heed the limit of memory; see :func:`limit_memory`.

    Threads: loop.
    """

    memory_limit: MemoryLimit
    #: What it holds, as of the last look.
    held_bytes = 0
    #: Whether its client's bytes lie unread because there is no room for them.
    is_paused = False

    def readable(self) -> bool:
        """Say whether the loop should read from the connection.

        What is read when all is over is thrown away, and needs no room.
        """
        return super().readable() and (
            self.state.name != "OPEN" or self.memory_limit.may_read(self)
        )

    def _ignore_input(self) -> None:
        super()._ignore_input()
        if not self.memory_limit.may_read(self):
            self.memory_limit.pause(self)
            self._update_deadline()

    def _update(self) -> None:
        # It may have been something else for which it was not read from until now.
        if not self.interest & READ and not self.memory_limit.may_read(self):
            self.memory_limit.pause(self)
        super()._update()

    @property
    def phase(self) -> Any:
        """Whom the connection waits for."""
        phase = super().phase
        # It is we who do not read.
        return type(phase).OURS if self.is_paused and phase.name in _RECEIVING else phase

    def handle_read(self) -> None:
        """Read once, and hand on what came."""
        super().handle_read()
        self._count_memory()

    def _advance(self) -> None:
        super()._advance()
        self._count_memory()

    def _count_memory(self) -> None:
        if self.state.name == "CLOSED":
            return  # A worker may be about to find that out.
        held = _bytes_of(self.request)
        is_receiving = held > 0
        for request in tuple(self.request_queue.requests):  # Workers take from it meanwhile.
            held += _bytes_of(request)
        self.memory_limit.count(self, held + self.outbound.memory_bytes, is_receiving)

    def del_channel(self, map: Any = None) -> None:
        """Leave the count, too."""
        super().del_channel(map)
        self.memory_limit.forget(self)


def _bytes_of(request: Any) -> int:
    """Return how much of a request is in memory, in octets as they came."""
    head: int = getattr(request, "header_bytes_received", 0)
    receiver = getattr(request, "body_rcv", None)
    if receiver is None:
        return head
    body = receiver.getbuf()
    return head if getattr(body, "overflowed", False) else head + int(body.__len__())


def limit_memory(listeners: Sequence[Any], adj: Any) -> None:
    """Limit what the connections of listeners hold together, as the settings say."""
    first = listeners[0]
    limit = MemoryLimit(first._event_loop, adj.max_buffered_bytes)
    first._alerts.append(limit.alert)
    for listener in listeners:
        members = {"__doc__": LimitedMemory.__doc__, "memory_limit": limit}
        base = listener.channel_class
        listener.channel_class = type(base.__name__, (LimitedMemory, base), members)
