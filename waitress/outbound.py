"""The one way of a response's bytes from the worker to the loop.

Owns the bytes of one connection that wait to be sent, in memory up to a mark and in a
temporary file beyond it, and the back-pressure on the worker that makes them. Knows
nothing of HTTP and of sockets.

Who calls::

    worker  append(parts), append_file(file)     may wait for room
    worker  append_last(part)                    the end of a response, most often all of it
    worker  settle_last_part()                   it goes on with the next response at once
    loop    append(parts), append_last(part)     never waits (errors, 100 Continue)
    loop    settle_last_part()                   another worker is about to go on
    loop    file_at_front()                      what the kernel may send by itself
    loop    peek(n), advance(n)                  what to send next; what was sent
    loop    close()                              nobody will read any more

What cannot happen: two threads append at once (a connection serves one request at a
time, and the loop appends only while none is served); the loop waits for the disk or for
a worker (a worker writes to a temporary file outside of the lock, and the loop only
reads what has been written); a worker waits for a buffer that is closed.

Row 3: imports spool and, for its type, buffers.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.spool import SpoolBudget, SpoolFile

__all__ = [
    "MOST_PARTS",
    "ClientDisconnected",
    "FileFailedError",
    "OutboundBuffer",
    "OutboundLimits",
]

#: A temporary file ends here and another begins, so that what a slow client has read of
#: an endless response does not stay on the disk. In bytes.
SPOOL_FILE_BYTES = 64 * 1024 * 1024


class ClientDisconnected(Exception):  # noqa: N818 - the name that users know
    """Raised in a worker that writes to a connection that is gone."""


class FileFailedError(Exception):
    """A file cannot keep bytes of a response, or give them back: the disk is full, say.

    Not an :exc:`OSError`, which would be taken for one of the socket's.
    """


class OutboundLimits(Protocol):
    """The settings that are read at every use; ``spool_dir`` may be missing."""

    #: Unsent bytes from which on a file is used; a chunk of twice that size goes to a
    #: file at once.
    outbuf_overflow: int
    #: Unsent bytes above which more needs room in the budget.
    outbuf_high_watermark: int


#: Files behind which no further response is begun.
MOST_FILES = 4

#: As many buffers as every system takes in one sendmsg (POSIX guarantees 16, all have
#: 1024). Many, because each call also wakes the client, which costs more than the call.
MOST_PARTS = 512


class _SpoolSegment:
    """Bytes in a temporary file, from ``start`` to ``end``."""

    __slots__ = ("_budget", "end", "file", "start")

    def __init__(self, file: SpoolFile, budget: SpoolBudget) -> None:
        self.file = file
        self._budget = budget
        self.start = 0
        self.end = 0

    def __len__(self) -> int:
        return self.end - self.start

    def peek(self, limit: int) -> list[bytes | memoryview]:
        try:
            return [self.file.read_at(self.start, min(limit, self.end - self.start))]
        except OSError as error:
            raise FileFailedError(f"cannot read a temporary file: {error}") from error

    def extent(self) -> tuple[int, int, int] | None:
        """Return descriptor, position and size of what is unsent."""
        return self.file.fileno(), self.start, self.end - self.start

    def advance(self, count: int) -> None:
        self.start += count

    def close(self) -> None:
        self.file.close()
        self._budget.release(self.end)


class _FileSegment:
    """A file of the application's, handed over to be sent and closed."""

    __slots__ = ("_position", "file")

    def __init__(self, file: ReadOnlyFileBasedBuffer) -> None:
        self.file = file
        #: Where the next octet stands; ``None`` where only the object itself can read.
        self._position: int | None = None
        if _has_pread and file.descriptor is not None:
            self._position = file.file.tell()

    def __len__(self) -> int:
        return self.file.__len__()

    def extent(self) -> tuple[int, int, int] | None:
        """Return descriptor, position and size of what is unsent; ``None`` without one."""
        if self._position is None:
            return None
        return self.file.file.fileno(), self._position, len(self)

    def peek(self, limit: int) -> list[bytes | memoryview]:
        extent = self.extent()
        try:
            if extent is None:
                data = self.file.get(limit)
            else:
                descriptor, position, size = extent
                data = os.pread(descriptor, min(limit, size), position)
        except OSError as error:
            raise FileFailedError(f"cannot read the file of wsgi.file_wrapper: {error}") from error
        if not data:
            raise FileFailedError(f"the file of wsgi.file_wrapper ended {len(self)} bytes early")
        return [data]

    def advance(self, count: int) -> None:
        if self._position is not None:
            self._position += count
            self.file.remain -= count
            return
        try:
            self.file.skip(count)
        except OSError as error:
            raise FileFailedError(f"cannot read the file of wsgi.file_wrapper: {error}") from error

    def close(self) -> None:
        self.file.close()


_has_pread = hasattr(os, "pread")

#: Octets read from a file at once. What a slow client does not take is read again.
_FILE_READ_BYTES = 256 * 1024
#: Octets of a file that leave together with the head before it: a small file is one
#: segment with its head, and of a large one the kernel sends the rest by itself.
_FILE_BEHIND_HEAD_BYTES = 64 * 1024


def _parts_of(part: bytes | Sequence[bytes]) -> Sequence[bytes]:
    return (part,) if isinstance(part, bytes) else part


def _tell_nobody() -> None:
    """Take the place of a callback that is not wanted any more."""


class OutboundBuffer:
    """The unsent bytes of one connection.

    Most responses are made in one go, while nothing is pending. Such a one becomes the *last
    part*, which needs no lock because it changes hands as a whole: it is the worker's until the
    service ends, and the loop's from then on.

    Invariant: :attr:`pending` is the length of the last part, or the sum of the segments'
    lengths. There are both for no longer than :meth:`advance` takes to forget what was sent,
    and relies on nothing that it has seen then.

    Threads: any, as the module's docstring tells; everything stands under one lock that
    only this object takes, held for pointer work only, but for the last part, with
    the marks that it passes, and for one look in :meth:`peek`.
    """

    def __init__(
        self,
        budget: SpoolBudget,
        on_wait: Callable[[], None],
        condition_factory: Callable[[Any], threading.Condition] = threading.Condition,
    ) -> None:
        """Make an empty buffer.

        Args:
            budget: counts the bytes of temporary files.
            on_wait: called, without the lock, by a worker that is about to wait.
            condition_factory: makes what workers wait on, from the lock.
        """
        self._budget = budget
        self._on_wait = on_wait
        self._condition_factory = condition_factory
        self._lock = threading.Lock()
        # guarded by _lock:
        #: Bytes objects as they were handed over, none is copied, and files between them. A
        #: list, because an empty deque takes 760 bytes, and there is one for each connection.
        self._segments: list[bytes | _SpoolSegment | _FileSegment] = []
        #: Octets of the first bytes object that were sent.
        self._offset = 0
        #: How many of the segments are files, and how many unsent octets they hold.
        self._files = self._in_files = 0
        #: All unsent octets. Together with a last part its owner sets it, without the lock.
        self.pending = 0
        #: See above; a few bytes objects where a large body follows its head.
        self.last_part: bytes | Sequence[bytes] | None = None
        #: Octets sent since the connection began.
        self.sent_total = 0
        self.is_closed = False
        #: What a worker waits on, made when one has to for the first time: thousands of
        #: idle connections need none.
        self._room: threading.Condition | None = None
        self.worker_is_waiting = False
        self._wakes_at = 0
        #: Whether there ever was a file, so that most connections are not asked for one.
        self.had_files = False
        #: The segment whose file a worker writes to outside of the lock.
        self._being_spooled: _SpoolSegment | None = None
        #: What to tell when everything up to a position was sent; while somebody listens.
        self._marks: list[tuple[int, Any]] = []

    def __len__(self) -> int:
        """Return the number of unsent bytes."""
        return self.pending

    @property
    def appended_total(self) -> int:
        """Octets handed over since the connection began."""
        with self._lock:
            return self.sent_total + self.pending

    @property
    def memory_bytes(self) -> int:
        """Unsent octets in memory; those in files are not counted."""
        with self._lock:
            return self.pending - self._in_files

    @property
    def segments(self) -> Sequence[Any]:
        """What holds the unsent bytes, for those who look from outside."""
        with self._lock:
            segments: list[Any] = list(self._segments)
            if self._offset:
                segments[0] = memoryview(segments[0])[self._offset :]
            last_part = self.last_part  # Read once: the loop drops it without the lock.
        if last_part is not None:
            segments.extend(_parts_of(last_part))
        return segments

    @property
    def holds_spool(self) -> bool:
        """Whether unsent bytes lie in temporary files."""
        with self._lock:
            return any(isinstance(segment, _SpoolSegment) for segment in self._segments)

    # -- appending: the worker, or the loop while there is none ----------------------

    def append(
        self, parts: Sequence[bytes], size: int, limits: OutboundLimits, may_wait: bool = True
    ) -> None:
        """Add bytes at the end, in memory or in a file.

        Args:
            parts: the bytes objects, kept as they are.
            size: the sum of their lengths.
            limits: the settings.
            may_wait: wait for room above the high watermark; the loop never does.

        Raises:
            ClientDisconnected: the buffer is closed, at once or while waiting.
            FileFailedError: the temporary file cannot be made or written.
        """
        with self._lock:
            if self.is_closed:
                raise ClientDisconnected
            if not size:
                return  # A segment without octets would end the sending for ever.
            if self.last_part is not None:
                self._settle_last_part_locked()
            memory_limit = limits.outbuf_overflow
            # A chunk is in memory already: keeping it costs nothing that it did not cost
            # before, and the reader may well be fast. What counts is what waits before it.
            if (
                self.pending - self._in_files < memory_limit
                and size < 2 * memory_limit
                # Behind unsent bytes in a file, new ones have to queue.
                and not (self._files and type(self._segments[-1]) is _SpoolSegment)
            ):
                self._segments.extend(parts)
                self.pending += size
                return
            high_watermark = limits.outbuf_high_watermark
            has_room = not may_wait or self.pending <= high_watermark
        if has_room:
            self._budget.take(size)
        else:
            self._wait_for_room(size, high_watermark)
        self._spool(parts, size, getattr(limits, "spool_dir", None))

    def append_last(
        self,
        part: bytes | Sequence[bytes],
        size: int,
        limits: OutboundLimits,
        may_wait: bool = True,
    ) -> None:
        """Add the last bytes of a response; all else as :meth:`append`.

        Args:
            part: one bytes object, or up to :data:`MOST_PARTS` of them.
            size: the sum of their lengths.
            limits: the settings.
            may_wait: as there.
        """
        if self.pending or self.is_closed or not 0 < size < 2 * limits.outbuf_overflow:
            self.append(_parts_of(part), size, limits, may_wait)
            return
        # With nothing pending the loop sends nothing; but it may close.
        self.last_part = part
        self.pending = size
        if self.is_closed:  # Since it was looked at above.
            self.last_part = None  # type: ignore[unreachable]
            self.pending = 0
            raise ClientDisconnected

    def settle_last_part(self) -> None:
        """Keep the last part as all else: by the lock, and for who comes next to add to."""
        with self._lock:
            self._settle_last_part_locked()

    def _settle_last_part_locked(self) -> None:
        last_part = self.last_part
        if last_part is not None:
            self._segments.extend(_parts_of(last_part))
            self.last_part = None

    def has_room(self, limits: OutboundLimits) -> bool:
        """Say whether another response may be begun before these bytes have left.

        Bounded in files too, since each is an open descriptor.
        """
        if self.pending > limits.outbuf_high_watermark:
            return False
        return self._files <= MOST_FILES

    def append_file(self, file: ReadOnlyFileBasedBuffer) -> None:
        """Add a prepared file at the end; it is closed when sent or cut.

        Raises:
            ClientDisconnected: the buffer is closed; the file is still the caller's.
        """
        segment = _FileSegment(file)  # Without the lock: it asks the system.
        size = len(segment)
        with self._lock:
            if self.is_closed:
                raise ClientDisconnected
            if size:
                self._settle_last_part_locked()
                self._append_file_locked(segment, size)
        if not size:
            segment.close()

    def mark(self, what: Any) -> bool:
        """Remember ``what`` until everything appended so far was sent.

        True, and not remembered, when all of it was sent already; false when it never
        will be, as when nothing was appended since :meth:`mark_next`.
        """
        with self._lock:
            if self._marks and self._marks[-1][0] > self.sent_total + self.pending:
                del self._marks[-1]  # Of a first byte that never came: nor does a last one.
                return False
            if self.is_closed:
                return False
            if not self.pending:
                return True
            self._marks.append((self.sent_total + self.pending, what))
            return False

    def mark_next(self, what: Any) -> None:
        """Remember ``what`` until the first byte of what is appended next was sent."""
        with self._lock:
            if not self.is_closed:
                self._marks.append((self.sent_total + self.pending + 1, what))

    def _append_file_locked(self, segment: _SpoolSegment | _FileSegment, size: int) -> None:
        self._segments.append(segment)
        self.had_files = True
        self._files += 1
        self._in_files += size
        self.pending += size

    # -- room: the worker

    def _wait_for_room(self, size: int, high_watermark: int) -> None:
        """Wait until the reader has caught up or the budget allows more.

        The bytes are taken from the budget.
        """
        self._budget.add_waiter(self)
        try:
            while True:
                # Said before looking, so that room freed after the look wakes us.
                with self._lock:
                    self.worker_is_waiting = True
                    self._wakes_at = high_watermark
                if self._budget.reserve(size):
                    return
                # Told without the lock: the loop answers by taking it.
                self._on_wait()
                with self._lock:
                    if self.is_closed:
                        raise ClientDisconnected
                    if self.pending <= high_watermark:
                        self._budget.take(size)
                        return
                    if self._room is None:
                        self._room = self._condition_factory(self._lock)
                    # False when somebody woke us before we slept.
                    if self.worker_is_waiting:
                        self._room.wait()
        finally:
            self._budget.remove_waiter(self)
            with self._lock:
                self.worker_is_waiting = False

    def room_freed_threadsafe(self) -> None:
        """Let a waiting worker look again."""
        with self._lock:
            self._wake_worker_locked()

    def _wake_worker_locked(self) -> None:
        # Cleared here, so that a wake-up between the worker's two looks is not lost.
        self.worker_is_waiting = False
        if self._room is not None:
            self._room.notify_all()

    # -- spooling: the worker

    def _spool(self, parts: Sequence[bytes], size: int, spool_dir: str | None) -> None:
        with self._lock:
            last = self._segments[-1] if self._segments else None
            segment = None
            if isinstance(last, _SpoolSegment) and last.end < SPOOL_FILE_BYTES:
                segment = last
            self._being_spooled = segment
        written = 0
        try:
            if segment is None:
                segment = _SpoolSegment(SpoolFile(spool_dir), self._budget)
            for part in parts:
                segment.file.write_at(segment.end + written, part)
                written += len(part)
        except OSError as error:
            raise FileFailedError(f"cannot keep {size} bytes of a response: {error}") from error
        finally:
            self._commit_spooled(segment, size, complete=written == size)

    def _commit_spooled(self, segment: _SpoolSegment | None, size: int, *, complete: bool) -> None:
        """Make what was written visible to the reader, or clean up what nobody reads."""
        with self._lock:
            self._being_spooled = None
            closed = self.is_closed
            is_new = segment is None or not any(item is segment for item in self._segments)
            if complete and not closed and segment is not None:
                segment.end += size
                if is_new:
                    self._append_file_locked(segment, size)
                else:
                    self._in_files += size
                    self.pending += size
                return
            if not is_new and segment is not None and not len(segment):
                # Its bytes were sent meanwhile, and no more will come.
                self._segments.remove(segment)
                self._files -= 1
                is_new = True
        if segment is not None and (closed or is_new):
            segment.close()
        self._budget.release(size)
        if closed:
            raise ClientDisconnected

    # -- sending: the loop -----------------------------------------------------------

    def file_at_front(self) -> tuple[int, int, int] | None:
        """Return the file that is to be sent next: descriptor, position, size in octets.

        ``None`` when the next octets lie in memory, or in a file without a descriptor.
        """
        with self._lock:
            segment = self._segments[0] if self._segments else None
            if segment is None or type(segment) is bytes:
                return None
            return segment.extent()  # type: ignore[union-attr]

    def peek(self, limit: int) -> bytes | Sequence[bytes | memoryview]:
        """Return the next unsent octets, about ``limit`` at the most, without copying.

        One bytes object, where there is no more; else all that can be sent at once,
        which is nothing when the buffer was closed meanwhile. What lies in a file is read.

        Raises:
            FileFailedError: a file cannot be read, or is shorter than it was.
        """
        if self.last_part is not None:
            if self.pending <= limit:
                return self.last_part
            self.settle_last_part()
        segments = self._segments
        # Another usual case: a response in one piece. No lock is needed to look at what is in
        # front and no file: only the loop, which is here, takes that away or closes; a worker
        # adds behind it. That there is a file is told before it is counted as pending.
        if len(segments) == 1 and not (self._offset or self.had_files):
            first = segments[0]
            if len(first) <= limit:
                return first  # type: ignore[return-value]
        with self._lock:
            views, file = self._views_locked(limit)
        if file is None:
            return views
        most = _FILE_BEHIND_HEAD_BYTES if views else _FILE_READ_BYTES
        room = min(limit - sum(map(len, views)), most)
        # A file is read without the lock: no worker waits for the disk on our account.
        return views + file.peek(room)

    def _views_locked(
        self, limit: int
    ) -> tuple[list[bytes | memoryview], _SpoolSegment | _FileSegment | None]:
        """Return views of the bytes objects in front, and the file behind if there is room."""
        segments = self._segments
        offset = self._offset
        if not (offset or self._files) and self.pending <= limit and len(segments) <= MOST_PARTS:
            return list(segments), None  # type: ignore[arg-type]  # There are no files.
        views: list[bytes | memoryview] = []
        for segment in segments:
            if limit <= 0 or len(views) == MOST_PARTS:
                break
            if not isinstance(segment, bytes):
                return views, segment
            view = memoryview(segment)[offset : offset + limit]
            offset = 0
            if view:  # Sending nothing would look like a peer that takes nothing.
                views.append(view)
                limit -= len(view)
        return views, None

    def advance(self, count: int) -> tuple[list[Any], list[Any]] | None:
        """Drop ``count`` octets that were sent.

        Returns:
            The marks that they pass, and the files that they exhaust, for the caller to
            close without the lock; ``None`` when there is neither, as a rule.

        Raises:
            FileFailedError: the application's file; what was sent is not dropped, and there
                is nothing left to do but to close.
        """
        if self.last_part is not None:
            if count == self.pending:
                self.last_part = None
                self.pending = 0
                self.sent_total += count
                # Its worker has said what it had to, and no other has begun.
                return (self._take_passed(), []) if self._marks else None
            self.settle_last_part()
        with self._lock:
            if self.is_closed:
                return None
            self.pending -= count
            self.sent_total += count
            if not (self.pending or self._files or self._marks or self.worker_is_waiting):
                # A usual case: all of it went, and nobody waits for that.
                self._segments.clear()
                self._offset = 0
                return None
            drained = self._drop_locked(count)
            passed = self._take_passed()
            if self.worker_is_waiting and self.pending <= self._wakes_at:
                self._wake_worker_locked()
        return (passed, drained) if passed or drained else None

    def _take_passed(self) -> list[Any]:
        """Take off, and return, what is to be told of what was sent.

        Under the lock, or where all of a last part was sent: then nobody else is here.
        """
        marks = self._marks
        passed = [what for position, what in marks if position <= self.sent_total]
        del marks[: len(passed)]  # They are in order.
        return passed

    def _drop_locked(self, count: int) -> list[Any]:
        """Drop octets in front; return the files that have no more."""
        drained: list[Any] = []
        segments = self._segments
        passed = 0
        while count:
            segment = segments[passed]
            if isinstance(segment, bytes):
                left = len(segment) - self._offset
                if count < left:
                    self._offset += count
                    break
                self._offset = 0
                count -= left
            else:
                step = min(count, len(segment))
                segment.advance(step)
                self._in_files -= step
                count -= step
                # The worker may be about to make it longer.
                if len(segment) or segment is self._being_spooled:
                    break
                drained.append(segment)
                self._files -= 1
            passed += 1
        # Together, because all that is behind them moves. (Of a million bytes written one by
        # one, which is as bad as it gets, half a microsecond for each.)
        del segments[:passed]
        return drained

    def close(self) -> None:
        """Drop everything unsent and end every wait; repeatable.

        Raises:
            Exception: whatever closing a file of the application's raised, after all
                the others were closed.
        """
        with self._lock:
            self.is_closed = True
            # It holds the channel, which holds this: let go, so that both are freed now.
            self._on_wait = _tell_nobody
            if self._room is not None:
                self._wake_worker_locked()
            if not (self.pending or self._segments or self._marks):
                return  # The most usual case: all of it went.
            self.last_part = None
            files = [
                item
                for item in self._segments
                if not (isinstance(item, bytes) or item is self._being_spooled)
            ]
            self._segments.clear()
            self._marks.clear()
            self.pending = self._offset = self._files = self._in_files = 0
        failure: Exception | None = None
        for segment in files:
            try:
                segment.close()
            except Exception as error:  # noqa: BLE001 - an application's file: anything
                failure = error
        if failure is not None:
            raise failure
