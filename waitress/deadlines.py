"""Deadlines of many owners, at a cost that does not grow with those that rest.

Owns the answer to "who is due?". Knows nothing of connections: an owner is anything
with a ``deadline`` that it moves as it likes.

A deadline that moves *later*, which is what every read and write of a busy connection
does, costs one attribute store: the entry made earlier stays where it is, and is put
where it belongs when it comes up. Only a deadline that moves *earlier* than its entry
touches the structure. Entries live in buckets of :data:`BUCKET_SECONDS`, so that the
entry of a closed connection is removed at once and at no cost, where a heap would keep
it, and the connection with it, until its time.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import heapq
from math import ceil, inf
from typing import Protocol

__all__ = ["BUCKET_SECONDS", "Deadlines", "HasDeadline"]

#: Width of a bucket, in seconds: how late a deadline may be noticed.
BUCKET_SECONDS = 0.125


class HasDeadline(Protocol):
    """What :class:`Deadlines` needs of an owner."""

    #: Instant on the monotonic clock at which the owner is due; ``inf`` for never.
    deadline: float
    #: Bucket that holds the owner's entry, or ``None``; belongs to :class:`Deadlines`.
    deadline_bucket: int | None

    def handle_deadline(self, now: float) -> None:
        """React to the deadline (which is not later than ``now``)."""


class Deadlines:
    """The deadlines of one event loop.

    Invariant: an owner with a finite deadline has an entry in a bucket that ends no
    later than :data:`BUCKET_SECONDS` after that deadline.

    Threads: loop.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, set[HasDeadline]] = {}
        self._order: list[int] = []

    def __len__(self) -> int:
        """Return how many owners have an entry."""
        return sum(len(bucket) for bucket in self._buckets.values())

    def arm(self, owner: HasDeadline, when: float) -> None:
        """Make ``when`` the owner's one deadline, in place of the one it had.

        Args:
            when: instant on the monotonic clock, in seconds; ``inf`` for never.
        """
        owner.deadline = when
        entry = owner.deadline_bucket
        if when == inf or (entry is not None and when >= entry * BUCKET_SECONDS):
            return  # Whoever has an entry is looked at when it comes.
        number = ceil(when / BUCKET_SECONDS)
        if entry is not None:
            if number >= entry:
                return
            self._buckets[entry].discard(owner)
        bucket = self._buckets.get(number)
        if bucket is None:
            bucket = self._buckets[number] = set()
            heapq.heappush(self._order, number)
        bucket.add(owner)
        owner.deadline_bucket = number

    def forget(self, owner: HasDeadline) -> None:
        """Let the owner never be due; harmless when it was not going to be."""
        owner.deadline = inf
        number = owner.deadline_bucket
        if number is not None:
            owner.deadline_bucket = None
            self._buckets[number].discard(owner)

    def next_deadline(self) -> float:
        """Return the instant before which nobody is due; ``inf`` when nobody waits."""
        order = self._order
        while order:
            if self._buckets[order[0]]:
                return order[0] * BUCKET_SECONDS
            del self._buckets[heapq.heappop(order)]
        return inf

    def take_due(self, now: float) -> list[HasDeadline]:
        """Remove and return the owners whose deadline is not later than ``now``.

        What is done for one may move or end the deadline of another: look at it again.
        """
        due: list[HasDeadline] = []
        while self._order and self._order[0] * BUCKET_SECONDS <= now:
            for owner in self._buckets.pop(heapq.heappop(self._order)):
                owner.deadline_bucket = None
                if owner.deadline <= now:
                    due.append(owner)
                else:  # It moved later since its entry was made.
                    self.arm(owner, owner.deadline)
        return due
