"""Where lines go: a file, the standard output, or a logger.

A sink takes bytes that end with a line's end, tells how many it took, and raises
``OSError`` when it cannot. It knows of no queue and no thread: it may block, and is
therefore used by nobody but the thread that writes.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import sys
from typing import Any, Protocol

__all__ = [
    "LOGGING",
    "STDOUT",
    "DescriptorSink",
    "FileSink",
    "LoggerSink",
    "Sink",
    "StreamSink",
    "access_logger",
    "identity_of",
    "is_file",
    "open_sink",
]

#: What names the standard output, and what the logger.
STDOUT = "-"
LOGGING = "logging:"

#: For those who configure logging themselves.
access_logger = logging.getLogger("waitress.access")

#: The most that is written at once: to a file, and to a pipe. What is so small goes into a
#: pipe whole, so that lines of several processes do not mix (POSIX, ``write``, PIPE_BUF).
FILE_BATCH_BYTES = 65536
PIPE_BATCH_BYTES = 512 if sys.platform == "darwin" else 4096

# A named pipe without a reader is an error, not a wait; nothing of this is inherited.
_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT
for _name in ("O_CLOEXEC", "O_NOCTTY", "O_NONBLOCK", "O_BINARY", "O_NOINHERIT"):
    _FLAGS |= getattr(os, _name, 0)
# Lines hold addresses and queries: not for everybody on the machine.
_MODE = 0o640


class Sink(Protocol):
    """Takes lines. Threads: one at a time."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def batch_bytes(self) -> int:
        """How much to hand over at once, as long as it is more than one line."""

    def write(self, data: bytes) -> int:
        """Take the beginning of *data*; say how many bytes that was. May block."""

    def reopen(self) -> bool:
        """Begin anew at the same name; say whether there is such a thing."""

    def close(self) -> None:
        """Let go; a later ``write`` takes hold again."""


def is_file(target: str | None) -> bool:
    """Say whether a setting names a file."""
    return bool(target) and target not in (STDOUT, LOGGING)


def identity_of(target: str) -> str:
    """Return the same text for all names of a sink, so that it is opened once."""
    return os.path.realpath(target) if is_file(target) else target


def open_sink(target: str) -> Sink:
    """Open what a setting names.

    Raises:
        OSError: it cannot be opened.
        ValueError: the path is none.
    """
    if target == LOGGING:
        return LoggerSink(access_logger)
    if target == STDOUT:
        return _standard_output()
    return FileSink(target)


def _standard_output() -> Sink:
    stream = sys.stdout
    if stream is None:
        raise OSError("there is no standard output")
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError, AttributeError):
        # Something else stands in its place; a console in a window, for example.
        return StreamSink(stream)
    return DescriptorSink(descriptor, "standard output")


class DescriptorSink:
    """A descriptor that belongs to somebody else.

    Bytes are written past the stream object: a thread that is caught in that one's lock
    when the interpreter ends would take the process down with it.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        self.name = name
        self._descriptor = descriptor
        self.batch_bytes = _batch_bytes(descriptor)

    def write(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        """Leave it open."""


class FileSink:
    """A file that lines are appended to, or a named pipe, or a device.

    Raises:
        OSError: it cannot be opened.
        ValueError: the path has a character that no path can have.
    """

    def __init__(self, path: str) -> None:
        self.name = path
        # The place, not the way to it: the process may go to another directory.
        self._path = os.path.abspath(path)
        self._descriptor: int | None = None
        self._is_amid_a_line = False
        self.reopen()

    def write(self, data: bytes) -> int:
        if self._descriptor is None:
            self.reopen()
        assert self._descriptor is not None
        if self._is_amid_a_line:
            os.write(self._descriptor, b"\n")
            self._is_amid_a_line = False
        return os.write(self._descriptor, data)

    def reopen(self) -> bool:
        """Open the path anew, and then let go of what was open before."""
        descriptor = os.open(self._path, _FLAGS, _MODE)
        if hasattr(os, "O_NONBLOCK"):
            os.set_blocking(descriptor, True)
        self.batch_bytes = _batch_bytes(descriptor)
        self.close()
        self._descriptor = descriptor
        self._is_amid_a_line = _ends_amid_a_line(self._path)
        return True

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            # What it took it has; there is nobody to give it to again.
            with contextlib.suppress(OSError):
                os.close(descriptor)


def _batch_bytes(descriptor: int) -> int:
    is_pipe = stat.S_ISFIFO(os.fstat(descriptor).st_mode)
    return PIPE_BATCH_BYTES if is_pipe else FILE_BATCH_BYTES


def _ends_amid_a_line(path: str) -> bool:
    """Say whether a file breaks off, as one does whose writer was killed or had no room."""
    try:
        if not os.path.isfile(path):
            return False
        with open(path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"
    except OSError:
        return False  # It is empty, or may be written and not read.


class StreamSink:
    """A text stream without a descriptor, which belongs to somebody else."""

    batch_bytes = FILE_BATCH_BYTES

    def __init__(self, stream: Any) -> None:
        self.name = "standard output"
        self._stream = stream

    def write(self, data: bytes) -> int:
        self._stream.write(data.decode("utf-8"))
        self._stream.flush()
        return len(data)

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        """Leave it open."""


class LoggerSink:
    """A logger: one record at INFO for each line."""

    batch_bytes = FILE_BATCH_BYTES

    def __init__(self, logger: logging.Logger) -> None:
        self.name = f"logger {logger.name}"
        self._logger = logger

    def write(self, data: bytes) -> int:
        for line in data.decode("utf-8").split("\n")[:-1]:
            self._logger.info("%s", line)
        return len(data)

    def reopen(self) -> bool:
        return False

    def close(self) -> None:
        """Handlers belong to whoever configured them."""
