"""Waking the loop from any thread.

Owns a pipe (or, without pipes that can be polled, a pair of sockets) whose reading end
stands in the map: a byte written to it ends the loop's wait. Also runs functions,
*thunks*, in the loop's thread.

Bytes are written only when the loop needs them: while it is awake, what was put on its
ready queue is seen anyway, and many finished responses share one wake-up.

Row 3: imports wasyncore.
"""

from __future__ import annotations

import errno
import os
import socket
import threading
from collections.abc import Callable, MutableMapping
from typing import Any

from waitress import wasyncore
from waitress.pollers import READ

__all__ = ["trigger"]


class _triggerbase:  # noqa: N801 - the name that outside subclasses know
    """What triggers of every kind have in common; mixed into a dispatcher.

    Threads: ``pull_trigger`` and ``close`` any; the rest loop. ``thunks`` and the writing
    end stand under ``lock``.
    """

    #: ``"pipe"`` or ``"loopback"``.
    kind: str | None = None
    #: See :mod:`waitress.eventloop`: a trigger's interest never changes.
    interest_is_state = True
    interest = READ
    touched = False
    #: The loop to wake; ``None`` for a trigger that was put together outside, which is
    #: pulled physically every time.
    event_loop: wasyncore.EventLoop | None = None

    def __init__(self) -> None:
        self._closed = False
        self.lock = threading.Lock()
        # guarded by lock:
        self.thunks: list[Callable[[], Any]] = []

    def readable(self) -> bool:
        """Always."""
        return True

    def writable(self) -> bool:
        """Never."""
        return False

    def handle_connect(self) -> None:
        """Do nothing: the two ends are connected from the start."""

    def handle_close(self) -> None:
        """Close."""
        self.close()

    def close(self) -> None:
        """Leave the map and close both ends; repeatable, from any thread."""
        with self.lock:
            if self._closed:
                return
            self._closed = True
            self.del_channel()  # type: ignore[attr-defined]
            self._close()
        if self.event_loop is not None and self in self.event_loop.wakers:
            self.event_loop.wakers.remove(self)

    def pull_trigger(self, thunk: Callable[[], Any] | None = None) -> None:
        """Wake the loop, and have ``thunk()`` called in its thread.

        After the trigger was closed it does nothing, silently: a worker may finish a
        request while the server goes down.
        """
        if thunk:
            with self.lock:
                self.thunks.append(thunk)
            if self.event_loop is not None:
                self.event_loop.touch_threadsafe(self)
        if self.event_loop is None or self.event_loop.claim_wakeup_threadsafe():
            self.pull_physically_threadsafe()

    def pull_physically_threadsafe(self) -> None:
        """Write the byte that ends the loop's wait."""
        # Under the lock, because a descriptor closed meanwhile may be somebody else's by
        # the time of the write.
        with self.lock:
            if not self._closed:
                try:
                    self._physical_pull()
                except BlockingIOError:
                    pass  # So many bytes wait that the loop is going to wake anyway.

    def handle_events(self, flags: int) -> None:
        """Take the byte that woke the loop."""
        wasyncore.readwrite(self, flags)

    def handle_read(self) -> None:
        """Take the bytes, run the thunks, and let go on what has been waiting."""
        try:
            self.recv(8192)  # type: ignore[attr-defined]
        except OSError:
            return
        self.handle_ready()
        if self.event_loop is not None:
            self.event_loop.drain_ready()

    def handle_ready(self) -> None:
        """Run the thunks, in order; one that raises is reported, and the rest still run."""
        with self.lock:
            thunks, self.thunks = self.thunks, []
        for thunk in thunks:
            try:
                thunk()
            except Exception:  # noqa: BLE001 - outside code: anything
                _, kind, value, info = wasyncore.compact_traceback()
                self.log_info(  # type: ignore[attr-defined]
                    f"exception in trigger thunk: ({kind}:{value} {info})"
                )

    def _physical_pull(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _attach(self, map: MutableMapping[int, Any]) -> None:  # noqa: A002
        self.event_loop = wasyncore.event_loop_of(map)
        self.event_loop.wakers.append(self)


class socket_trigger(_triggerbase, wasyncore.dispatcher):  # noqa: N801 - as the other
    """Wake the loop through a TCP connection to itself: where pipes cannot be polled."""

    kind = "loopback"

    def __init__(self, map: MutableMapping[int, Any]) -> None:  # noqa: A002
        """
        Args:
            map: the map of the loop to wake.

        Raises:
            RuntimeError: no address could be bound.
        """
        _triggerbase.__init__(self)
        self.trigger, received = _connected_pair()
        self.trigger.setblocking(False)
        wasyncore.dispatcher.__init__(self, received, map)
        self.connected = True
        self._attach(self._map)

    def _close(self) -> None:
        self.trigger.close()
        wasyncore.dispatcher.close(self)

    def _physical_pull(self) -> None:
        self.trigger.send(b"x")


def _connected_pair() -> tuple[socket.socket, socket.socket]:
    """Return two ends of a TCP connection on the loopback interface.

    Some systems hand out, as a free port, one that cannot be connected to (address in
    use); a few attempts get by.
    """
    sender = socket.socket()
    sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(10):
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen(1)
            try:
                sender.connect(listener.getsockname())
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    sender.close()
                    raise
                continue
            receiver, _ = listener.accept()
            return sender, receiver
    sender.close()
    raise RuntimeError("Cannot bind trigger!")


if os.name == "posix":

    class trigger(_triggerbase, wasyncore.file_dispatcher):  # noqa: N801 - a known name
        """Wake the loop through a pipe."""

        kind = "pipe"

        def __init__(self, map: MutableMapping[int, Any]) -> None:  # noqa: A002
            """
            Args:
                map: the map of the loop to wake.

            Raises:
                OSError: the system has no more descriptors.
            """
            _triggerbase.__init__(self)
            self._fds: tuple[int, ...] = os.pipe()
            read_fd, self.trigger = self._fds
            os.set_blocking(self.trigger, False)
            wasyncore.file_dispatcher.__init__(self, read_fd, map)
            self._attach(self._map)

        def _close(self) -> None:
            for fd in self._fds:
                os.close(fd)
            self._fds = ()
            wasyncore.file_dispatcher.close(self)

        def _physical_pull(self) -> None:
            os.write(self.trigger, b"x")

else:
    trigger = socket_trigger  # type: ignore[assignment,misc]
