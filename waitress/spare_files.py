"""Temporary files that are written again when nobody needs them any more.

For a file that is new, the system has to find room for every page that is written, and to
give it up when the file is closed: several times what writing over the same pages costs.
So the files of a few large request bodies are kept for the next ones.

What must not happen is that one client's bytes are read by another. Therefore

* a file ends where the body ends before anybody may read it;
* what the application reads from is closed with its request, as any file would be;
* a file whose descriptor the application has asked for, which a child process or
  a duplicate may still be reading from, is not used again;
* nor is one that was open when the process forked.

Nor is one used again that the disk had no room for: others need what it has taken.

Row 1: imports forks.
"""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from io import SEEK_SET, BufferedRandom, FileIO
from typing import IO, Any

from waitress import forks

__all__ = ["MOST_SPARE_FILES", "SPARE_BYTES", "SPARE_FILE_BYTES", "BodyFile", "SpareFiles"]

#: How many files are kept at the most, how much of each, and how much of all together. As many
#: bodies of a mebibyte may be on their way at once; making a file anew takes as long as receiving
#: one of them.
MOST_SPARE_FILES = 16
SPARE_FILE_BYTES = 4 * 1024 * 1024
SPARE_BYTES = 16 * 1024 * 1024

#: Whether files can be used again: written without moving their position, and known not
#: to be shared with a child.
_can_spare = hasattr(os, "pwrite") and hasattr(os, "register_at_fork")


class _ReadFile(FileIO):
    """What the application reads from; closing it leaves the descriptor open."""

    #: Whether somebody has asked for the descriptor, and may have it still.
    is_exposed = False
    #: The owner of the descriptor, which whoever detached this file goes on to read from.
    owner: Any = None

    def fileno(self) -> int:
        self.is_exposed = True
        return super().fileno()


class BodyFile:
    """A temporary file that is written from its start, and read when that is done.

    Threads: one at a time.
    """

    def __init__(self, spares: SpareFiles, directory: str | None) -> None:
        """Make a new file without a name.

        Args:
            spares: takes the file back when it is closed.
            directory: where the file is made; ``None`` for the system's place.

        Raises:
            OSError: the file cannot be made.
        """
        self.directory = directory
        self._forks = forks.count  # Before: another thread may fork as soon as there is a file.
        # Its life is longer than any block: it ends when nobody needs a spare one.
        self._file: IO[bytes] = tempfile.TemporaryFile(  # noqa: SIM115
            buffering=0, dir=directory
        )
        self._descriptor = self._file.fileno()
        self._spares = spares
        #: How much was written this time, and what of the time before lies in the file.
        self._end = self._old_end = 0
        #: Whether the disk had no room for it, and needs what it has taken.
        self._has_failed = False
        #: What :meth:`open` returned; ``None`` before.
        self.opened: BufferedRandom | None = None

    @property
    def spare_bytes(self) -> int:
        """What it takes on the disk while nobody uses it."""
        return self._old_end

    @property
    def is_shared(self) -> bool:
        """Whether a child process may have the file as well."""
        return self._forks != forks.count

    def append(self, data: bytes | memoryview) -> None:
        """Write ``data`` at the end.

        Raises:
            OSError: the disk is full, for example; what of ``data`` was written is undefined.
        """
        end = self._end
        try:
            written = os.pwrite(self._descriptor, data, end)
            rest = data.__len__() - written
            while rest:  # The usual system takes all at once.
                written += os.pwrite(self._descriptor, memoryview(data)[written:], end + written)
                rest = data.__len__() - written
        except OSError:
            self._has_failed = True
            raise
        self._end = end + written

    def open(self) -> BufferedRandom:
        """Return what was written as a file at its start, for the application.

        Raises:
            OSError: the system does not let the file be cut to its length.
        """
        if self._old_end > self._end:
            os.ftruncate(self._descriptor, self._end)
        raw = _ReadFile(self._descriptor, "r+", closefd=False)
        raw.owner = self._file
        self.opened = BufferedRandom(raw)
        return self.opened

    def close(self) -> None:
        """Have the file used again, where nobody else can be reading from it."""
        opened, self.opened = self.opened, None
        was_passed_on = False
        if opened is not None:
            try:
                raw = opened.raw
                with suppress(OSError):  # What was written to it may not fit the disk.
                    opened.close()
            except ValueError:  # It was detached, and belongs to whoever did that.
                return
            was_passed_on = getattr(raw, "is_exposed", True)
        is_ours_alone = not was_passed_on and not self.is_shared
        if is_ours_alone and not self._has_failed and self._rewind():
            self._spares.give_back(self)
        else:
            self.discard()

    def discard(self) -> None:
        """Close the file itself, which removes it; repeatable."""
        self._file.close()

    def _rewind(self) -> bool:
        """Make the file ready to be written again; say whether it is."""
        try:
            os.lseek(self._descriptor, 0, SEEK_SET)
            # The application may have written to it.
            self._old_end = os.fstat(self._descriptor).st_size
            if self._old_end > SPARE_FILE_BYTES:
                os.ftruncate(self._descriptor, SPARE_FILE_BYTES)
                self._old_end = SPARE_FILE_BYTES
        except OSError:
            return False
        self._end = 0
        return True


class SpareFiles:
    """The files of one server that are kept to be used again.

    Threads: any; the list stands under the object's own lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock:
        self._files: list[BodyFile] = []
        self._bytes = 0
        self._is_closed = False
        #: Files that nobody has needed since :meth:`close_unused` was last called.
        self._unused = 0

    def __len__(self) -> int:
        """Return how many files are kept."""
        return len(self._files)

    def __del__(self) -> None:
        self.close()

    def take_file(self, directory: str | None) -> BodyFile | None:
        """Return an empty file in a directory; ``None`` stands for the system's.

        Nothing is returned where the system has not what it takes to use a file again.

        Raises:
            OSError: there is none, and no other can be made.
        """
        if not _can_spare:
            return None
        with self._lock:
            file = self._files.pop() if self._files else None
            if file is not None:
                self._bytes -= file.spare_bytes
            self._unused = min(self._unused, len(self._files))
        if file is not None:
            if file.directory == directory and not file.is_shared:
                return file
            file.discard()
        return BodyFile(self, directory)

    def give_back(self, file: BodyFile) -> None:
        """Keep a file that nobody reads from any more, or close it."""
        with self._lock:
            is_kept = (
                not (self._is_closed or file.is_shared)
                and len(self._files) < MOST_SPARE_FILES
                and self._bytes + file.spare_bytes <= SPARE_BYTES
            )
            if is_kept:
                self._files.append(file)
                self._bytes += file.spare_bytes
        if not is_kept:
            file.discard()

    def close_unused(self) -> None:
        """Close the files that nobody has needed since the last call."""
        with self._lock:
            unused, self._files = self._files[: self._unused], self._files[self._unused :]
            self._bytes -= sum(file.spare_bytes for file in unused)
            self._unused = len(self._files)
        for file in unused:
            file.discard()

    def close(self) -> None:
        """Close the files, and keep none from now on; repeatable."""
        with self._lock:
            files, self._files = self._files, []
            self._bytes = 0
            self._is_closed = True
        for file in files:
            with suppress(OSError):
                file.discard()
