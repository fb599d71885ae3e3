"""Temporary files: the budget of their bytes, and a file that two threads can share.

Everything that the server puts on disk for a connection is counted here, request
bodies and responses alike, so that no mixture of clients can fill the disk.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import IO, Protocol

__all__ = ["LARGEST_DEFAULT_LIMIT", "SpoolBudget", "SpoolFile", "default_spool_limit"]

#: The most that is taken of a disk unasked, in bytes.
LARGEST_DEFAULT_LIMIT = 8 * 1024**3


def default_spool_limit(directory: str | None) -> int:
    """Return a quarter of the space free in ``directory``, at most 8 GiB, in bytes.

    Nothing where there is no such directory: the first temporary file will tell so to
    the one request that needs it, and the others are served.
    """
    try:
        free = shutil.disk_usage(directory or tempfile.gettempdir()).free
    except OSError:
        return 0
    return min(free // 4, LARGEST_DEFAULT_LIMIT)


class _Waiter(Protocol):
    def room_freed_threadsafe(self) -> None: ...


class SpoolBudget:
    """How many bytes of temporary files there are, and how many there may be.

    Threads: any; the counts stand under the object's own lock.
    """

    def __init__(self, limit: int) -> None:
        """Make a budget of which nothing is used.

        Args:
            limit: the number of bytes up to which :meth:`reserve` grants; ``0`` for none.
        """
        self.limit = limit
        #: Called, without the lock, when the limit does not allow what is wanted.
        self.on_refused: Callable[[], None] | None = None
        self._lock = threading.Lock()
        # guarded by _lock:
        self._used = 0
        self._waiters: set[_Waiter] = set()

    @property
    def used(self) -> int:
        """Bytes in temporary files at this moment."""
        return self._used

    @property
    def is_waited_for(self) -> bool:
        """Whether somebody waits for room."""
        return bool(self._waiters)

    def reserve(self, size: int) -> bool:
        """Take ``size`` bytes if the limit allows them; say whether it did."""
        with self._lock:
            if self._used + size <= self.limit:
                self._used += size
                return True
        # Where there is to be no room at all, its lack is no news.
        if self.limit and self.on_refused is not None:
            self.on_refused()
        return False

    def take(self, size: int) -> None:
        """Take ``size`` bytes whatever the limit says."""
        with self._lock:
            self._used += size

    def release(self, size: int) -> None:
        """Give ``size`` bytes back, and tell those who wait for them."""
        with self._lock:
            self._used -= size
            waiters = tuple(self._waiters)
        for waiter in waiters:
            waiter.room_freed_threadsafe()

    def add_waiter(self, waiter: _Waiter) -> None:
        """Have the waiter told at every release, until it is removed."""
        with self._lock:
            self._waiters.add(waiter)

    def remove_waiter(self, waiter: _Waiter) -> None:
        """End what :meth:`add_waiter` began; harmless for a stranger."""
        with self._lock:
            self._waiters.discard(waiter)


class SpoolFile:
    """A temporary file: one thread appends while another reads what was appended.

    Both work at positions of their own, so that neither moves the other's. The reader
    must not read beyond what the writer has told it about.

    Threads: one writer, one reader, one of them (or a third) closes when both are done.
    """

    def __init__(self, directory: str | None) -> None:
        """Make an empty file without a name.

        Args:
            directory: where the file is made; ``None`` for the system's place.

        Raises:
            OSError: the file cannot be made.
        """
        # Its life is longer than any block: it ends when the last byte was sent.
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115
            buffering=0, dir=directory
        )
        self._lock = threading.Lock()  # For platforms without pread and pwrite.

    def fileno(self) -> int:
        """Return the descriptor, for ``os.sendfile``."""
        return self._file.fileno()

    def write_at(self, position: int, data: bytes | memoryview) -> None:
        """Write all of ``data`` at ``position``.

        Raises:
            OSError: the disk is full, for example.
        """
        view = memoryview(data)
        while view:
            written = self._pwrite(view, position)
            position += written
            view = view[written:]

    def read_at(self, position: int, size: int) -> bytes:
        """Return up to ``size`` bytes from ``position``."""
        return self._pread(size, position)

    def close(self) -> None:
        """Close the file, which removes it."""
        self._file.close()

    def _os_pwrite(self, data: memoryview, position: int) -> int:
        return os.pwrite(self._file.fileno(), data, position)

    def _os_pread(self, size: int, position: int) -> bytes:
        return os.pread(self._file.fileno(), size, position)

    def _seek_and_write(self, data: memoryview, position: int) -> int:
        with self._lock:
            self._file.seek(position)
            return self._file.write(data)

    def _seek_and_read(self, size: int, position: int) -> bytes:
        with self._lock:
            self._file.seek(position)
            return self._file.read(size)

    _pwrite = _os_pwrite if hasattr(os, "pwrite") else _seek_and_write
    _pread = _os_pread if hasattr(os, "pread") else _seek_and_read
