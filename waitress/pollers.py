"""One interface over epoll, kqueue, poll and select.

A poller holds registrations and answers which descriptors are ready. It knows numbers
and masks, no objects. The masks are poll's own bits on every platform, whatever the
system call underneath understands.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import errno
import os
import select as default_select
import time
from math import ceil, inf
from types import ModuleType
from typing import Any, Protocol

__all__ = [
    "ERROR",
    "HANGUP",
    "INVALID",
    "PEER_CLOSED",
    "PRIORITY",
    "READ",
    "WRITE",
    "EpollPoller",
    "KqueuePoller",
    "PollPoller",
    "Poller",
    "SelectPoller",
    "best_poller",
    "descriptor_limit",
]

READ = 0x001
PRIORITY = 0x002
WRITE = 0x004
ERROR = 0x008
HANGUP = 0x010
INVALID = 0x020
#: The peer sends no more (epoll and, on Linux, poll tell it without a read).
PEER_CLOSED = 0x2000

#: select() can watch descriptors below this number only (POSIX: FD_SETSIZE) ...
SELECT_DESCRIPTORS = 1024
#: ... or this many, whatever their numbers (Windows, as Python is built there).
SELECT_DESCRIPTORS_WINDOWS = 512


class Poller(Protocol):
    """Registered descriptors and a way to wait for them.

    ``register``, ``modify`` and ``unregister`` raise :exc:`OSError` for a descriptor
    that the system refuses (``PermissionError`` for a regular file under epoll).
    """

    #: Number of descriptors that can be watched at once; ``None`` for no limit.
    descriptor_limit: int | None

    def register(self, fd: int, mask: int) -> None:
        """Start to watch a descriptor that is not watched yet."""

    def modify(self, fd: int, mask: int) -> None:
        """Change what a watched descriptor is watched for."""

    def unregister(self, fd: int) -> None:
        """Stop watching a descriptor."""

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        """Wait, and return pairs of descriptor and mask.

        Args:
            timeout: the longest wait, in seconds; ``None`` for ever.
        """

    def close(self) -> None:
        """Release what the poller holds."""


class EpollPoller:
    """Linux: registrations live in the kernel, a wait costs what is ready."""

    descriptor_limit = None

    def __init__(self, select: Any = default_select) -> None:
        epoll = select.epoll()
        # The bound methods of the C object serve as they are: its masks are poll's.
        self.register = epoll.register
        self.modify = epoll.modify
        self.unregister = epoll.unregister
        self.poll = epoll.poll
        self.close = epoll.close


class KqueuePoller:
    """BSD and macOS: read and write interest are two filters of a descriptor."""

    descriptor_limit = None

    def __init__(self, select: Any = default_select) -> None:
        self._select = select
        self._kqueue = select.kqueue()
        self._masks: dict[int, int] = {}

    def register(self, fd: int, mask: int) -> None:
        self._change(fd, 0, mask)

    def modify(self, fd: int, mask: int) -> None:
        self._change(fd, self._masks.get(fd, 0), mask)

    def unregister(self, fd: int) -> None:
        mask = self._masks.get(fd, 0)
        try:
            self._change(fd, mask, 0)
        finally:
            # Whatever the system says, nobody wants to know of it any more.
            self._masks.pop(fd, None)

    def _change(self, fd: int, old: int, new: int) -> None:
        select = self._select
        changes = [
            select.kevent(fd, kq_filter, select.KQ_EV_ADD if new & bit else select.KQ_EV_DELETE)
            for bit, kq_filter in (
                (READ, select.KQ_FILTER_READ),
                (WRITE, select.KQ_FILTER_WRITE),
            )
            if (old ^ new) & bit
        ]
        if changes:
            self._kqueue.control(changes, 0)
        self._masks[fd] = new

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        ready: dict[int, int] = {}
        select = self._select
        for event in self._kqueue.control(None, self._most_events(), timeout):
            mask = READ if event.filter == select.KQ_FILTER_READ else WRITE
            if event.flags & select.KQ_EV_EOF:
                # On the write filter: nobody reads any more. On the read filter: what
                # was sent can still be read, and the read tells the end.
                mask = HANGUP if mask == WRITE else mask | PEER_CLOSED
            ready[event.ident] = ready.get(event.ident, 0) | mask
        return list(ready.items())

    def _most_events(self) -> int:
        return max(2 * len(self._masks), 1)

    def close(self) -> None:
        self._kqueue.close()


class PollPoller:
    """poll(): no limit on the descriptor's number, a wait costs what is watched."""

    descriptor_limit = None

    def __init__(self, select: Any = default_select) -> None:
        poll = select.poll()
        self._poll = poll.poll
        self.register = poll.register
        self.modify = poll.modify

        def unregister(fd: int) -> None:
            try:
                poll.unregister(fd)
            except KeyError as error:
                raise FileNotFoundError(f"descriptor {fd} is not watched") from error

        self.unregister = unregister

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        # Rounded up: a wait that ends before its deadline would be made again at once.
        milliseconds = None if timeout is None else ceil(timeout * 1000)
        return self._poll(milliseconds)  # type: ignore[no-any-return]

    def close(self) -> None:
        """Do nothing: poll() holds nothing in the kernel."""


class SelectPoller:
    """select(): everywhere, and the one that gevent replaces."""

    descriptor_limit: int | None = (
        SELECT_DESCRIPTORS_WINDOWS if os.name == "nt" else SELECT_DESCRIPTORS
    )
    #: Descriptors from this number on would make every wait fail.
    _refused_from = inf if os.name == "nt" else SELECT_DESCRIPTORS

    def __init__(self, select: Any = default_select) -> None:
        self._select = select
        self._masks: dict[int, int] = {}

    def register(self, fd: int, mask: int) -> None:
        if not 0 <= fd < self._refused_from:
            raise OSError(errno.EINVAL, f"select() cannot watch descriptor {fd}")
        if len(self._masks) == self.descriptor_limit and fd not in self._masks:
            # Refused here, where one connection pays for it: in the wait, all would.
            raise OSError(errno.EMFILE, "select() cannot watch more descriptors")
        self._masks[fd] = mask

    modify = register

    def unregister(self, fd: int) -> None:
        self._masks.pop(fd, None)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        readers = [fd for fd, mask in self._masks.items() if mask & READ]
        writers = [fd for fd, mask in self._masks.items() if mask & WRITE]
        if not readers and not writers and timeout is not None:
            time.sleep(timeout)  # Windows refuses to select nothing.
            return []
        # Only where somebody takes it: out-of-band data is told again until it is read.
        watched = [fd for fd, mask in self._masks.items() if mask & PRIORITY]
        ready: dict[int, int] = {}
        r, w, x = self._select.select(readers, writers, watched, timeout)
        for fds, bit in ((r, READ), (w, WRITE), (x, PRIORITY)):
            for fd in fds:
                ready[fd] = ready.get(fd, 0) | bit
        return list(ready.items())

    def close(self) -> None:
        """Do nothing: select() holds nothing in the kernel."""


def best_poller(select: ModuleType | Any = default_select) -> Poller:
    """Return a new poller of the best kind that the ``select`` module offers.

    gevent removes what it cannot replace from that module, so that this choice is the
    right one under its monkey-patching too.
    """
    return _best_kind(select)(select)  # type: ignore[no-any-return]


def descriptor_limit(select: ModuleType | Any = default_select) -> int | None:
    """Return how many descriptors the best poller can watch; ``None`` for no limit."""
    return _best_kind(select).descriptor_limit  # type: ignore[no-any-return]


def _best_kind(select: Any) -> Any:
    if hasattr(select, "epoll"):
        return EpollPoller
    if hasattr(select, "kqueue"):
        return KqueuePoller
    if hasattr(select, "poll"):
        return PollPoller
    return SelectPoller
