"""The client connections of one server, and which of them has to go.

Owns the set of open channels that the listeners of one server share, and the rules by
which room is made: for a newcomer when the connection limit is reached, and on the disk
when the spool is full. Knows of a channel what :class:`Client` lists.

Row 1: imports ``peers``.
"""

from __future__ import annotations

from collections.abc import Container
from math import inf
from typing import Any, Protocol

from waitress.peers import client_group

__all__ = ["Client", "Clients", "Watcher"]

#: Above this part of the connection limit, responses ask the client to leave.
CROWDED_PART = 0.9
#: A connection is idle enough to make room when it has been so for this long, in seconds.
IDLE_SECONDS = 1.0
#: Where nobody could make room, the same are not looked through again for so long, in
#: seconds, while there are others to choose from.
SEARCH_REST_SECONDS = 0.05
#: A reader counts as stalled after this long without progress, in seconds.
STALLED_SECONDS = 5.0
#: Connections that linger after an error at once; for one more, the oldest is closed.
LINGERING_LIMIT = 100


class Client(Protocol):
    """What is asked of a channel."""

    def head_pending_since(self) -> float:
        """Return when the head being received began; ``inf`` when none is."""

    def lingering_since(self) -> float:
        """Return since when the client could have seen the end; ``inf`` before."""

    def close(self) -> None:
        """Close."""

    def idle_since(self) -> float:
        """Return since when the connection has been idle; ``inf`` when it is not."""

    def stalled_since(self, now: float) -> float:
        """Return since when spooled bytes have waited without progress, else ``inf``."""

    def give_up_head(self) -> None:
        """Refuse the head being received and close."""

    def close_if_idle(self) -> bool:
        """Close if one last read finds nothing; say whether it did."""

    def give_up_queued(self) -> bool:
        """Refuse the request that waits for a worker and close; say whether it still did."""

    def cut(self, reason: str) -> None:
        """Close at once, whatever is unsent."""


class Watcher(Protocol):
    """Who is told how connections come to their end while the server does."""

    def channel_rests(self, channel: Any) -> None:
        """Take notice that a connection has nothing to do."""

    def channel_ended(self) -> None:
        """Take notice that a connection has left the set."""


class Clients:
    """The open channels of one server.

    It has no length: an empty one would be false, and be taken for none at all.

    Threads: loop; workers read ``channels`` and ``crowded_from``, and may see either a moment late.
    """

    def __init__(self) -> None:
        #: Changed by the loop only; for others there is :meth:`snapshot`.
        self.channels: set[Any] = set()
        #: Those that wait for their client to see the end, the longest first.
        self.lingering: dict[Any, None] = {}
        #: Those whose client sends no more, since before a worker came for its request: it
        #: may have left. The first to be seen so is the first.
        self.perhaps_left: dict[Any, None] = {}
        #: When nobody else could make room, the last time.
        self._searched_at = -inf
        self._limit = inf
        #: With more of them than this, responses carry ``Connection: close``, to make room soon.
        self.crowded_from = inf
        #: The limit that follows from what the system allows, once it was asked for.
        self.derived_limit: int | None = None
        #: Connections allowed at once of one client; 0 for any number.
        self.limit_per_ip = 0
        #: Peers that are not limited, since many clients come through them.
        self.unlimited: Container[str] = ()
        #: There is one while the server comes to its end: responses ask clients to leave.
        self.watcher: Watcher | None = None
        #: Connections of each client that is limited and has one.
        self._counts: dict[str, int] = {}
        # For the statistics; what is rare is counted where it happens.
        #: Connections that were accepted.
        self.accepted = 0
        #: Those whose client took too long, by the name of the phase.
        self.timeouts: dict[str, int] = {}
        #: Those that had to make room, by what they were doing or held.
        self.evictions: dict[str, int] = {}

    def snapshot(self) -> tuple[Any, ...]:
        """Return the open channels; any thread, which may see some a moment late."""
        while True:
            try:
                return tuple(self.channels)
            except RuntimeError:  # It changed its size under the copy: try again.
                continue

    def count_timeout(self, phase: str) -> None:
        """Count a connection whose client took too long."""
        self.timeouts[phase] = self.timeouts.get(phase, 0) + 1

    def _count_eviction(self, kind: str) -> None:
        self.evictions[kind] = self.evictions.get(kind, 0) + 1

    @property
    def limit(self) -> float:
        """Connections allowed at once; set by the server when it begins to listen."""
        return self._limit

    @limit.setter
    def limit(self, value: float) -> None:
        self._limit = value
        self.crowded_from = value * CROWDED_PART

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another connection."""
        return len(self.channels) >= self._limit

    def has_room_for(self, host: str) -> bool:
        """Say whether a client may have one connection more."""
        group = self._group(host)
        return not group or self._counts.get(group, 0) < self.limit_per_ip

    def count(self, host: str) -> str:
        """Count a connection of a client; return what :meth:`uncount` is to be given."""
        group = self._group(host)
        if group:
            self._counts[group] = self._counts.get(group, 0) + 1
        return group

    def uncount(self, group: str) -> None:
        """Take back what :meth:`count` counted."""
        if group:
            self._counts[group] -= 1
            if not self._counts[group]:
                del self._counts[group]

    def _group(self, host: str) -> str:
        """Return what stands for a client; empty for one that is not limited."""
        if not self.limit_per_ip or host in self.unlimited:
            return ""
        return client_group(host)

    def linger(self, channel: Any) -> None:
        """Let a connection wait for its client to see the end.

        Where there are too many, the one that has waited longest goes: its client has had
        more time than any other to read its answer.
        """
        if len(self.lingering) >= LINGERING_LIMIT:
            self._count_eviction("lingering")
            next(iter(self.lingering)).close()
        self.lingering[channel] = None

    def make_room(self, now: float, head_age_limit: float) -> bool:
        """Close one connection in favour of a newcomer; say whether one could go.

        First one that only waits for its client to have seen the end; then a head that has
        been coming for longer than ``head_age_limit`` seconds; then the longest idle
        connection; then a request that waits for a worker and whose client may have left;
        the oldest of each.
        """
        is_rested = now - self._searched_at >= SEARCH_REST_SECONDS
        if (is_rested or not self.perhaps_left) and self._make_room_easily(now, head_age_limit):
            return True
        if is_rested:
            self._searched_at = now
        return self._give_up_queued()

    def _make_room_easily(self, now: float, head_age_limit: float) -> bool:
        """Close one connection that nobody has asked anything of, or nothing whole."""
        channel, since = self._oldest(lambda client: client.lingering_since())
        if now - since >= IDLE_SECONDS:
            self._count_eviction("lingering")
            channel.close()
            return True
        channel, since = self._oldest(lambda client: client.head_pending_since())
        if now - since > head_age_limit:
            self._count_eviction("head")
            channel.give_up_head()
            return True
        for since, channel in sorted(
            ((client.idle_since(), client) for client in self.channels), key=lambda pair: pair[0]
        ):
            if now - since < IDLE_SECONDS:
                break
            if channel.close_if_idle():
                self._count_eviction("idle")
                return True
        return False

    def _give_up_queued(self) -> bool:
        """Close one connection whose request waits, and whose client may have left."""
        while self.perhaps_left:
            channel = next(iter(self.perhaps_left))
            del self.perhaps_left[channel]
            if channel.give_up_queued():
                self._count_eviction("queued")
                return True
        return False

    def relieve_spool(self, now: float, asking: Any) -> bool:
        """Cut the reader that has stalled longest; say whether one had stalled.

        The channel whose worker asks is spared: how long its own reader may rest while
        the worker waits is for its deadline to say.
        """
        channel, since = self._oldest(
            lambda client: inf if client is asking else client.stalled_since(now)
        )
        if now - since < STALLED_SECONDS:
            return False
        self._count_eviction("spool")
        channel.cut("the spool is full and this reader has stalled longest")
        return True

    def _oldest(self, since: Any) -> tuple[Any, float]:
        oldest, oldest_since = None, inf
        for client in self.channels:
            when = since(client)
            if when < oldest_since:
                oldest, oldest_since = client, when
        return oldest, oldest_since
