"""Stores of bytes: a string while small, memory while moderate, a file beyond that.

A request's body and a response that waits for its client are kept in an
:class:`OverflowableBuffer`, which climbs a ladder as it grows: nothing, a ``bytes``
object, a :class:`BytesIOBasedBuffer`, a :class:`TempfileBasedBuffer`. The last class,
:class:`ReadOnlyFileBasedBuffer`, wraps a file of the application; it is the
``wsgi.file_wrapper`` of every environ.

All of them are first-in, first-out: :meth:`~FileBasedBuffer.append` at the end,
:meth:`~FileBasedBuffer.get` from the read position, :meth:`~FileBasedBuffer.skip` to
move it. Lengths are asked for with ``x.__len__()``, because ``len(x)`` refuses what
exceeds ``sys.maxsize`` and a file may well do so on a 32-bit platform.

Nothing here locks, and nothing knows of sockets, requests or settings.
Row 1: imports instance_defaults.
"""

from __future__ import annotations

import os
import stat
import tempfile
from collections.abc import Callable
from contextlib import suppress
from io import SEEK_CUR, SEEK_END, BufferedRandom, BufferedReader, BytesIO, FileIO
from typing import IO, Any, Protocol

from waitress.instance_defaults import InstanceDefaults

__all__ = [
    "COPY_BYTES",
    "STRBUF_LIMIT",
    "BytesIO",
    "BytesIOBasedBuffer",
    "FileBasedBuffer",
    "OverflowableBuffer",
    "ReadOnlyFileBasedBuffer",
    "TempfileBasedBuffer",
]

#: Bytes read at a time when one file is copied into another.
COPY_BYTES = 262144

#: Bytes from which a plain ``bytes`` object is too dear to extend: every ``+`` copies it.
STRBUF_LIMIT = 8192

#: What ``NamedTemporaryFile`` returns: a wrapper of the file itself.
_NAMED_FILE_CLASS = getattr(tempfile, "_TemporaryFileWrapper", None)


class _HasFile(Protocol):
    """What a buffer may be filled from."""

    def getfile(self) -> Any: ...


class _UnreadFile(Protocol):
    """A temporary file that is written from its start, and read when that is done."""

    def append(self, data: bytes, /) -> None: ...
    def open(self) -> Any: ...
    def close(self) -> None: ...


class HasSpareFiles(Protocol):
    """Who keeps temporary files that were used, for others to use: the server's spool."""

    def take_file(self, directory: str | None, /) -> _UnreadFile | None: ...


class FileBasedBuffer:
    """Keep bytes in a seekable binary file; its position is the read position.

    ``remain`` counts the bytes from the read position to the end of the file. It is a
    plain attribute, so that whoever fills ``file`` by other means can set it.

    Args:
        file: a binary file open for reading and writing, positioned at what is to be
            read first. It is not looked at unless ``from_buffer`` is given.
        from_buffer: another buffer, whose file is copied from its first byte to its
            last. Both files are left at the position the source was read up to.

    Threads: none of its own; one thread at a time.
    """

    remain: int = 0

    def __init__(self, file: Any, from_buffer: _HasFile | None = None) -> None:
        self.file = file
        if from_buffer is not None:
            source = from_buffer.getfile()
            read_position = source.tell()
            try:
                source.seek(0)
                _copy_rest(source, file)
                self.remain = file.tell() - read_position
                file.seek(read_position)
            finally:
                source.seek(read_position)

    def __len__(self) -> int:
        """Say how many bytes wait; call it as a method, it may exceed ``sys.maxsize``."""
        return self.remain

    def __bool__(self) -> bool:
        """Be true, always: an exhausted file is still a file that has to be closed."""
        return True

    def append(self, s: bytes) -> None:
        """Write ``s`` (bytes, or a view of bytes) at the end, keeping the read position.

        Raises:
            OSError: the file could not take it. What it holds of ``s`` is undefined, and
                ``remain`` does not count it.
        """
        file = self.file
        read_position = file.tell()
        file.seek(0, SEEK_END)
        file.write(s)
        file.seek(read_position)
        self.remain += s.__len__()

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        """Return up to ``numbytes`` bytes from the read position; all if negative.

        The read position stays where it was, unless ``skip`` is true: then it moves
        behind the bytes returned, and ``remain`` shrinks by them.
        """
        file = self.file
        if skip:
            data: bytes = file.read() if numbytes < 0 else file.read(numbytes)
            self.remain -= len(data)
            return data
        read_position = file.tell()
        data = file.read() if numbytes < 0 else file.read(numbytes)
        file.seek(read_position)
        return data

    def skip(self, numbytes: int, allow_prune: bool | int = 0) -> None:
        """Move the read position ``numbytes`` bytes forward.

        Args:
            numbytes: at most what remains.
            allow_prune: not used by file-backed buffers.

        Raises:
            ValueError: fewer than ``numbytes`` bytes remain; nothing moved.
        """
        if self.remain < numbytes:
            raise ValueError(f"Can't skip {numbytes} bytes in buffer of {self.remain} bytes")
        self.file.seek(numbytes, SEEK_CUR)
        self.remain -= numbytes

    def newfile(self) -> Any:
        """Return a new, empty file of the kind this buffer uses; subclasses must."""
        raise NotImplementedError

    def prune(self) -> None:
        """Let go of the bytes already read: copy the rest into a new file.

        The new file, made by :meth:`newfile`, is positioned at its first byte; the old
        one is closed. An empty file is left as it is.
        """
        old = self.file
        if _is_empty(old):
            return
        new = self.newfile()
        read_position = old.tell()
        try:
            _copy_rest(old, new)
            new.seek(0)
        except BaseException:
            old.seek(read_position)
            _close_file(new)
            raise
        self.file = new
        _close_file(old)

    def getfile(self) -> Any:
        """Return the file itself, at the read position."""
        return self.file

    def close(self) -> None:
        """Close the file, if it can be closed; nothing remains afterwards."""
        self.remain = 0
        _close_file(self.file)


class TempfileBasedBuffer(FileBasedBuffer):
    """Keep bytes in an unnamed temporary file.

    Args:
        from_buffer: a buffer to copy, as for :class:`FileBasedBuffer`.
        dir: the directory of the file; ``None`` means the system's (``tempfile``).
        files: where a file comes from that was used before, which is much cheaper to
            write; ``None`` for a new one. Not used for what is copied.

    Raises:
        OSError: the file could not be made, or could not take the copy. No descriptor
            stays open then.
    """

    #: The file while it is only written to. Opened for reading when :attr:`file` is asked
    #: for the first time, which is mostly in a worker's thread.
    _unread: _UnreadFile | None = None

    def __init__(
        self,
        from_buffer: _HasFile | None = None,
        dir: str | None = None,
        files: HasSpareFiles | None = None,
    ) -> None:
        self.dir = dir
        if files is not None and from_buffer is None:
            self._unread = files.take_file(dir)
            if self._unread is not None:
                return
        file = self.newfile()
        try:
            super().__init__(file, from_buffer)
            file.flush()
        except BaseException:
            self.close()
            raise

    def __getattr__(self, name: str) -> Any:
        """Open the file that was only written to so far."""
        if name != "file" or self._unread is None:
            raise AttributeError(name)
        self.file = self._unread.open()
        return self.file

    def newfile(self) -> IO[bytes]:
        """Return a new temporary file, which vanishes when it is closed."""
        # Who owns the buffer closes it; there is no block for a `with` to span.
        return tempfile.TemporaryFile("w+b", dir=self.dir)

    def append(self, s: bytes) -> None:
        """Write ``s`` at the end, through to the operating system.

        Written through, so that a full disk is noticed here, by the caller who can
        answer for it, and not by whoever reads later; and so that the descriptor may be
        read from directly (``os.sendfile``).
        """
        if self._unread is not None and "file" not in self.__dict__:
            self._unread.append(s)
            self.remain += s.__len__()
            return
        if not hasattr(os, "pwrite"):
            super().append(s)
            self.file.flush()
            return
        # In one call and without copying; the file's own position stays where it is.
        descriptor = self.file.fileno()
        end = os.fstat(descriptor).st_size
        rest = memoryview(s)
        while rest:
            written = os.pwrite(descriptor, rest, end)
            end += written
            rest = rest[written:]
        self.remain += s.__len__()

    def close(self) -> None:
        """Close the file. What a full disk did not take is of no concern any more."""
        unread, self._unread = self._unread, None
        if unread is not None:
            self.file = self.__dict__.get("file")
            unread.close()
        # A failing flush, which closing begins with, leaves the descriptor closed all the
        # same, and the bytes were about to be thrown away.
        with suppress(OSError):
            super().close()


class BytesIOBasedBuffer(FileBasedBuffer):
    """Keep bytes in memory, behind the interface of a file.

    Args:
        from_buffer: a buffer to copy, as for :class:`FileBasedBuffer`.
    """

    def __init__(self, from_buffer: _HasFile | None = None) -> None:
        super().__init__(self.newfile(), from_buffer)

    def newfile(self) -> BytesIO:
        """Return a new, empty ``BytesIO``."""
        return BytesIO()

    def close(self) -> None:
        """Close the file; nothing remains afterwards."""
        self.remain = 0
        self.file.close()


class ReadOnlyFileBasedBuffer(FileBasedBuffer):
    """Hand a file of the application to the server: the ``wsgi.file_wrapper``.

    A task calls :meth:`prepare` and, where that tells a size, gives the whole object to
    the channel, which sends the file and closes it. A file that cannot be measured is
    iterated over like any other iterable, ``block_size`` bytes at a time.

    An instance has ``seek``, ``tell`` and ``seekable`` exactly if its file can seek (and
    has ``seekable``): frameworks look for them to find out what they were given.

    Args:
        file: an object with ``read(size)``; also used if there: ``seek``, ``tell``,
            ``seekable``, ``close``, ``fileno``.
        block_size: the most bytes of one iteration step.

    Threads: the worker's until given to the channel, the loop's from then on.
    Source: PEP 3333, "Optional Platform-Specific File Handling".
    """

    # Declared, not defined: hasattr() on an instance tells whether the file can seek.
    seek: Callable[..., Any]
    tell: Callable[[], int]
    seekable: Callable[[], bool]

    def __init__(self, file: Any, block_size: int = 32768) -> None:
        super().__init__(file)
        self.block_size = block_size
        if _is_seekable(file):
            self.seek = file.seek
            self.tell = file.tell
            if hasattr(file, "seekable"):
                self.seekable = file.seekable

    def prepare(self, size: int | None = None) -> int:
        """Measure the file; return (and keep in ``remain``) how many bytes will be sent.

        Args:
            size: the most bytes to send; ``None`` means up to the end of the file.

        Returns:
            The bytes from the current position to the end, or ``size`` if that is less.
            Zero for a file that is at its end or that cannot be measured: such a one is
            to be iterated over.
        """
        if _is_seekable(self.file):
            to_end = _measure(self.file)
            if to_end is not None:
                self.remain = to_end if size is None else min(to_end, size)
        return self.remain

    @property
    def descriptor(self) -> int | None:
        """The descriptor of a regular file whose bytes are exactly what is read.

        ``None`` for every other object: one that has ``fileno`` but gives other bytes (a
        decompressor, say), or that has none.
        """
        file = _unwrapped(self.file)
        if file is None or file.closed:
            return None
        fd: int = file.fileno()
        return fd if stat.S_ISREG(os.fstat(fd).st_mode) else None

    @property
    def reads_at_once(self) -> bool:
        """Whether reading waits for nothing but the disk, so that the loop may do it.

        What an object of the application's does in its ``read`` nobody knows.
        """
        return type(self.file) is BytesIO or self.descriptor is not None

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        """Return up to ``numbytes`` bytes, and never more than remain to be sent."""
        if numbytes < 0 or numbytes > self.remain:
            numbytes = self.remain
        return super().get(numbytes, skip)

    def __iter__(self) -> ReadOnlyFileBasedBuffer:
        return self

    def __next__(self) -> bytes:
        data: bytes = self.file.read(self.block_size)
        if not data:
            raise StopIteration
        return data

    #: The name that this method had in Python 2, still called by some middleware.
    next = __next__

    def append(self, s: bytes) -> None:
        """Refuse: the file belongs to the application."""
        raise NotImplementedError


class OverflowableBuffer(metaclass=InstanceDefaults, in_instances=("buf", "strbuf")):
    """Keep bytes wherever so many of them are best kept.

    Fewer than ``STRBUF_LIMIT`` bytes stay one ``bytes`` object (``strbuf``); more go
    to a file buffer (``buf``), which is in memory below ``overflow`` bytes and a
    temporary file (``overflowed`` is true) from there on. Invariant: ``strbuf`` is empty
    whenever ``buf`` is not ``None``.

    Args:
        overflow: bytes from which the data is kept in a temporary file.
        spool_dir: the directory of that file; ``None`` means the system's.
        expected: so many bytes will come, so that it is known where to keep them; zero if
            that is not known.

    Raises:
        OSError: from any method that has to create or fill a temporary file. The data
            held before is still there then.

    Threads: none of its own; one thread at a time.
    """

    overflowed: bool = False
    buf: FileBasedBuffer | None = None
    strbuf: bytes = b""

    #: Where temporary files come from that were used before; ``None`` for new ones.
    files: HasSpareFiles | None = None

    def __init__(self, overflow: int, spool_dir: str | None = None, expected: int = 0) -> None:
        self.buf = None
        self.strbuf = b""
        self.overflow = overflow
        self.spool_dir = spool_dir
        # What will overflow need not pass through memory first.
        self._will_overflow = expected >= overflow

    def __len__(self) -> int:
        """Say how many bytes wait; call it as a method, it may exceed ``sys.maxsize``."""
        buf = self.buf
        return self.strbuf.__len__() if buf is None else buf.__len__()

    def __bool__(self) -> bool:
        """Say whether any bytes wait."""
        return self.__len__() > 0

    def append(self, s: bytes) -> None:
        """Add ``s`` (bytes, or a view of bytes) at the end."""
        buf = self.buf
        if buf is None:
            strbuf = self.strbuf
            if len(strbuf) + s.__len__() < STRBUF_LIMIT:
                self.strbuf = strbuf + s
                return
            if self._will_overflow and not strbuf and type(s) is bytes and len(s) < self.overflow:
                self.strbuf = s  # As it is: what comes next goes to the file behind it.
                return
            buf = self._create_buffer()
        if not self.overflowed and buf.__len__() + s.__len__() >= self.overflow:
            # Before, not after: what overflows need not pass through memory first.
            buf = self._set_large_buffer()
        buf.append(s)

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        """Return up to ``numbytes`` bytes from the front; all if negative.

        While the data is one small ``bytes`` object and ``skip`` is false, all of it is
        returned, whatever ``numbytes`` says: it costs nothing, and slicing would.

        Args:
            numbytes: the most bytes to return.
            skip: whether to remove what is returned.
        """
        buf = self.buf
        if buf is None:
            if not skip:
                return self.strbuf
            buf = self._create_buffer()
        return buf.get(numbytes, skip)

    def skip(self, numbytes: int, allow_prune: bool | int = False) -> None:
        """Remove ``numbytes`` bytes from the front.

        Args:
            numbytes: at most the length.
            allow_prune: whether a small string that is skipped as a whole may simply be
                let go; without it (or if some of it stays) a file buffer takes over.

        Raises:
            ValueError: there are fewer bytes; none was removed.
        """
        buf = self.buf
        if buf is None:
            if allow_prune and numbytes == len(self.strbuf):
                self.strbuf = b""
                return
            buf = self._create_buffer()
        buf.skip(numbytes, allow_prune)

    def prune(self) -> None:
        """Give back the memory or disk space of the bytes already read.

        Returns to memory where so few bytes are left that they fit below ``overflow``.
        """
        buf = self.buf
        if buf is None:
            self.strbuf = b""
            return
        buf.prune()
        if self.overflowed and buf.__len__() < self.overflow:
            self._set_small_buffer()

    def getfile(self) -> Any:
        """Return the file that holds the data, positioned at the first unread byte."""
        buf = self.buf
        if buf is None:
            return self._create_buffer().file
        return buf.getfile()

    def close(self) -> None:
        """Close the file, if there is one; nothing can be read or added then."""
        if self.buf is not None:
            self.buf.close()

    def _create_buffer(self) -> FileBasedBuffer:
        """Leave the string: move it into a file buffer of the right kind, and return that."""
        if len(self.strbuf) >= self.overflow or self._will_overflow:
            return self._set_large_buffer()
        # The string is not copied before it changes, or more comes.
        buf = BytesIOBasedBuffer.__new__(BytesIOBasedBuffer)
        buf.file = BytesIO(self.strbuf)
        buf.remain = len(self.strbuf)
        self.buf = buf
        self.strbuf = b""
        return buf

    def _set_small_buffer(self) -> FileBasedBuffer:
        """Move to memory, and return the buffer there."""
        return self._move_to(BytesIOBasedBuffer(self.buf), overflowed=False)

    def _set_large_buffer(self) -> FileBasedBuffer:
        """Move to a temporary file, and return the buffer there."""
        return self._move_to(
            TempfileBasedBuffer(self.buf, self.spool_dir, self.files), overflowed=True
        )

    def _move_to(self, new: FileBasedBuffer, *, overflowed: bool) -> FileBasedBuffer:
        """Let ``new``, which holds a copy of ``buf``, take over from string and ``buf``."""
        if self.strbuf:
            try:
                new.append(self.strbuf)
            except BaseException:
                new.close()
                raise
        old, self.buf = self.buf, new
        self.strbuf = b""
        self.overflowed = overflowed
        _close_file(old)
        return new


def _is_seekable(fp: Any) -> bool:
    """Say whether ``fp`` can be moved about in: by its own word, or by its methods."""
    if hasattr(fp, "seekable"):
        return bool(fp.seekable())
    return hasattr(fp, "seek") and hasattr(fp, "tell")


def _unwrapped(fp: Any) -> Any:
    """Return the file of the standard library's that ``fp`` is, or ``None``."""
    if type(fp) is _NAMED_FILE_CLASS:
        fp = fp.file
    if type(fp) in (BufferedReader, BufferedRandom):
        # What it reads from may be anything; what it has buffered is of no concern, since
        # its position is the application's.
        return fp if type(fp.raw) is FileIO else None
    return fp if type(fp) is FileIO else None


def _measure(fp: Any) -> int | None:
    """Return the bytes from the position of ``fp`` to its end; ``None`` if it cannot tell.

    A file may say that it can seek and then fail to (a pipe behind a wrapper that did
    not ask). As long as it has not moved, that makes it unseekable and not an error.
    """
    try:
        start: int = fp.tell()
        fp.seek(0, SEEK_END)
    except (OSError, NotImplementedError):
        return None
    end: int = fp.tell()
    fp.seek(start)
    return max(end - start, 0)


def _is_empty(fp: Any) -> bool:
    """Say whether ``fp`` holds no byte at all, read or unread."""
    position = fp.tell()
    fp.seek(0, SEEK_END)
    size: int = fp.tell()
    fp.seek(position)
    return size == 0


def _copy_rest(source: Any, target: Any) -> None:
    """Copy what follows the position of ``source`` to that of ``target``."""
    while data := source.read(COPY_BYTES):
        target.write(data)


def _close_file(fp: Any) -> None:
    """Close ``fp`` if it is something that can be closed."""
    if hasattr(fp, "close"):
        fp.close()
