"""The thread that writes lines, so that nobody else waits for a disk, a pipe or a handler.

Owns the queue between those who have something to tell and the sink that takes it, the
thread, and the count of what was lost. The queue is bounded: while a sink takes nothing,
lines beyond the bound are lost, counted, and told of when the sink takes lines again.

Row 1: imports access_sink.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import threading
import time
from collections.abc import Callable
from math import inf
from typing import NamedTuple

from waitress.access_sink import Sink

__all__ = ["CLOSE_SECONDS", "QUEUE_BYTES", "Entry", "LineWriter"]

#: How much memory the lines that wait may take, about; some ten thousand lines.
QUEUE_BYTES = 16 * 1024 * 1024

#: How long the thread rests after it has written. Lines then come in batches, and a busy
#: server does not change threads for each.
REST_SECONDS = 0.02

#: How long it waits before it tries again: after an error, and when there is no room now.
RETRY_SECONDS = 1.0
FULL_SECONDS = 0.02

#: How long the end of a server waits for its lines to be written.
CLOSE_SECONDS = 5.0

#: How often it is told at most that lines were lost.
TELL_SECONDS = 30.0

logger = logging.getLogger("waitress")


class Entry(NamedTuple):
    """A line to be."""

    render: Callable[[], str]
    #: About how much memory it holds.
    size: int


class LineWriter:
    """Writes lines to one sink, in the order in which they were put.

    The thread starts with the first line, and ends when there is no user any more and
    everything is written. A line that comes even later starts it again.

    Threads: any. Entries, sizes, counts and what the thread does stand under ``_lock``,
    which nobody holds while anything is written or formatted; the sink belongs to the
    thread. ``reopen`` takes no lock, so that a signal's handler may call it whatever it
    interrupts.
    """

    def __init__(self, sink: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self._sink = sink
        self._clock = clock
        self._users = 1
        self._begin()

    def _begin(self) -> None:
        """Begin with nothing to write and no thread."""
        self._lock = threading.Lock()
        # guarded by _lock, as is _users:
        self._entries: list[Entry] = []
        self._size = 0
        #: Entries that are neither written nor lost.
        self._waiting = 0
        self._lost = 0
        #: Whether it was told that lines are being lost, since it was last told how many.
        self._loss_is_told = False
        self._is_running = False
        self._is_asleep = False
        self._ends_at = inf
        self._thread: threading.Thread | None = None

        # Held but when there is reason to wake; releasing it is all that wakes.
        self._token = threading.Lock()
        self._token.acquire()
        self._reopen_is_due = False
        # The thread's own:
        self._error_is_told = False
        self._render_error_is_told = False
        self._lost_told = 0
        self._told_at = -inf

    @property
    def name(self) -> str:
        """What messages call the sink."""
        return self._sink.name

    @property
    def lost(self) -> int:
        """How many lines have been lost so far."""
        return self._lost

    # -- those who have something to write ---------------------------------------------

    def put(self, render: Callable[[], str], size: int) -> None:
        """Have a line written soon; count it as lost if too much waits already.

        Args:
            render: makes the line, without its end, in the writing thread.
            size: about how many bytes of memory it holds until then.
        """
        with self._lock:
            if self._size + size > QUEUE_BYTES:
                self._lost += 1
                if self._loss_is_told or not self._waiting:
                    return
                self._loss_is_told = True
            else:
                self._take_locked(render, size)
                return
        self._tell_of_blockage()

    def _take_locked(self, render: Callable[[], str], size: int) -> None:
        self._entries.append(Entry(render, size))
        self._size += size
        self._waiting += 1
        if self._is_asleep:
            self._is_asleep = False
            self._wake()
        elif not self._is_running:
            self._start()

    def reopen(self) -> None:
        """Open the sink's file anew before the next line. Safe in a signal's handler."""
        self._reopen_is_due = True
        self._wake()

    def _wake(self) -> None:
        try:
            self._token.release()
        except RuntimeError:
            pass  # It is awake, or will be.

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="waitress-access-log", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            return  # The system has no thread for us now; the next line tries again.
        self._thread = thread
        self._is_running = True
        # Whatever way the process ends: connections that are open until then are told of.
        atexit.register(self.end)

    def _tell_of_blockage(self) -> None:
        """Tell that lines are being lost; not in this thread, which may be the loop's.

        The sink's own thread is caught in it, perhaps for ever, and the log may go the same
        way as the lines.
        """
        text = "access log %s takes no lines: too many wait, and further ones are lost"
        with contextlib.suppress(RuntimeError):  # There is no thread for us now.
            threading.Thread(
                target=logger.warning,
                args=(text, self.name),
                name="waitress-access-log-warning",
                daemon=True,
            ).start()

    def begin_anew_in_child(self) -> None:
        """Begin anew in a process that was forked: the thread stayed in the parent.

        So did the lines that wait, which it will write; and whoever held a lock then.
        """
        atexit.unregister(self.end)
        self._begin()

    # -- who uses it ---------------------------------------------------------------------

    def add_user(self) -> None:
        """Count one more user."""
        with self._lock:
            self._users += 1

    def remove_user(self) -> bool:
        """Count one user less; say whether it was the last one, who then calls ``end``."""
        with self._lock:
            self._users -= 1
            return not self._users

    def end(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what there is, and let go of the sink.

        Waits for that no longer than *timeout*, in seconds, and tells if it takes longer.
        """
        with self._lock:
            self._users = 0
            self._ends_at = self._clock() + timeout
            thread = self._thread
            self._is_asleep = False
        if thread is None:
            self._sink.close()
            return
        self._wake()
        thread.join(timeout)
        if thread.is_alive():
            atexit.unregister(self.end)
            logger.warning(
                "access log %s takes no lines: %d line(s) were not written within %g seconds, "
                "and %d were lost before",
                self.name,
                self._waiting,
                timeout,
                self._lost - self._lost_told,
            )

    # -- the thread ----------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            entries = self._taken()
            if entries is None:
                return
            self._write_entries(entries)
            if self._users:
                self._token.acquire(timeout=REST_SECONDS)

    def _taken(self) -> list[Entry] | None:
        """Return what there is to write, when there is; ``None``: it is over."""
        while True:
            if self._reopen_is_due:
                self._reopen()
            with self._lock:
                if self._entries:
                    entries, self._entries = self._entries, []
                    return entries
                is_last = not self._users
                self._is_asleep = not is_last
            self._tell_of_losses(at_once=is_last)
            if not is_last:
                self._token.acquire(timeout=-1 if self._lost == self._lost_told else TELL_SECONDS)
                continue
            # Closing a file may take its time too, so not under the lock.
            self._sink.close()
            with self._lock:
                if not self._entries:
                    self._is_running = False
                    self._thread = None
                    atexit.unregister(self.end)
                    return None

    def _write_entries(self, entries: list[Entry]) -> None:
        lines: list[bytes] = []
        size = length = 0
        for entry in entries:
            line = self._line(entry)
            if lines and length + len(line) > self._sink.batch_bytes:
                self._write_lines(lines, size)
                lines = []
                size = length = 0
            lines.append(line)
            length += len(line)
            size += entry.size
        self._write_lines(lines, size)

    def _line(self, entry: Entry) -> bytes:
        try:
            return f"{entry.render()}\n".encode()
        # Anything may be wrong with what others put into a request; the next has its line.
        except Exception:
            if not self._render_error_is_told:
                self._render_error_is_told = True
                logger.exception("Cannot make a line of the access log %s", self.name)
            return b""

    def _write_lines(self, lines: list[bytes], size: int) -> None:
        written = self._write(b"".join(lines))
        with self._lock:
            self._size -= size
            self._waiting -= len(lines)
            # Those among them that could not be made, too.
            self._lost += len(lines) - written
        if self._users:  # Otherwise once, at the end.
            self._tell_of_losses()

    def _write(self, data: bytes) -> int:
        """Write lines, however long it takes; say how many were written.

        All of them, but where the server ends meanwhile.
        """
        place = 0
        while place < len(data):
            if self._reopen_is_due and self._reopen():
                # The rest of a line alone would be no line in the new file.
                place = data.rfind(b"\n", 0, place) + 1
            try:
                place += self._sink.write(data[place:])
                continue
            except BlockingIOError:
                gives_up = not self._users and self._clock() >= self._ends_at
                rest = FULL_SECONDS
            # Of files it is OSError; the handlers of a logger may raise what they like.
            except Exception as error:  # noqa: BLE001
                self._tell_of_error(error)
                gives_up = not self._users
                rest = RETRY_SECONDS
            if gives_up:
                # So that what comes later, if anything does, begins a line of its own.
                self._sink.close()
                return data.count(b"\n", 0, place)
            self._token.acquire(timeout=rest)
        if self._error_is_told:
            self._error_is_told = False
            self._told_at = -inf
            logger.info("access log %s is written again", self.name)
        return data.count(b"\n")

    def _reopen(self) -> bool:
        # First, so that a signal that comes meanwhile is not forgotten.
        self._reopen_is_due = False
        try:
            return self._sink.reopen()
        except OSError as error:
            logger.error(
                "access log %s cannot be opened again, the open file is kept: %s",
                self.name,
                error.strerror or error,
            )
            return False

    def _tell_of_error(self, error: Exception) -> None:
        if not self._error_is_told:
            self._error_is_told = True
            logger.error(
                "access log %s cannot be written: %s; lines wait until it can, and are lost "
                "when too many wait",
                self.name,
                getattr(error, "strerror", None) or repr(error),
            )

    def _tell_of_losses(self, at_once: bool = False) -> None:
        """Tell how many lines were lost since it was last told, not too often."""
        lost = self._lost
        now = self._clock()
        if lost == self._lost_told or not (at_once or now - self._told_at >= TELL_SECONDS):
            return
        logger.warning("access log %s: %d line(s) were lost", self.name, lost - self._lost_told)
        self._lost_told = lost
        self._told_at = now
        with self._lock:
            self._loss_is_told = False
