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


class _triggerbase:
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
        # Reentrant: what reads under it may close, and a signal handler may pull.
        self.lock = threading.RLock()
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
        if self.event_loop is not None:
            self.event_loop.remove_waker_threadsafe(self)

    def pull_trigger(self, thunk: Callable[[], Any] | None = None) -> None:
        """Wake the loop, and have ``thunk()`` called in its thread.

        After the trigger was closed it does nothing, silently: a worker may finish a
        request while the server goes down.
        """
        event_loop = self.event_loop
        if thunk:
            with self.lock:
                if self._closed:
                    return
                self.thunks.append(thunk)
            if event_loop is not None:
                event_loop.touch_threadsafe(self)
        if event_loop is None:
            self.pull_physically_threadsafe()
        elif event_loop.claim_wakeup_threadsafe() and not self.pull_physically_threadsafe():
            # Another server of the same loop may still be able to wake it.
            event_loop.pull_wakers_threadsafe()

    def pull_physically_threadsafe(self) -> bool:
        """Write the byte that ends the loop's wait; false when closed."""
        # Under the lock, because a descriptor closed meanwhile may be somebody else's by
        # the time of the write.
        with self.lock:
            if self._closed:
                return False
            try:
                self._physical_pull()
            except BlockingIOError:
                pass  # So many bytes wait that the loop is going to wake anyway.
            return True

    def handle_events(self, flags: int) -> None:
        """Take the byte that woke the loop."""
        if flags == READ:
            self.handle_read()
        else:
            wasyncore.readwrite(self, flags)

    def handle_read(self) -> None:
        """Take the bytes, run the thunks, and let go on what has been waiting."""
        # Under the lock for the reason that pulling has, and because another thread may
        # have closed between the event and now.
        with self.lock:
            if self._closed:
                return
            try:
                self.recv(8192)  # type: ignore[attr-defined]
            except OSError:
                return
        self.handle_ready()
        if self.event_loop is not None:
            self.event_loop.drain_ready()

    def handle_ready(self) -> None:
        """Run the thunks, in order; one that raises is reported, and the rest still run."""
        # Only those present now: one that pulls with another has that run later. One by
        # one, so that none is lost when Ctrl-C ends the loop amid them.
        for _ in range(len(self.thunks)):
            with self.lock:
                if not self.thunks:  # A thunk ran a pass of the loop.
                    return
                thunk = self.thunks.pop(0)
            try:
                thunk()
            except (wasyncore.ExitNow, KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - outside code: anything
                _, kind, value, info = wasyncore.compact_traceback()
                self.log_info(  # type: ignore[attr-defined]
                    f"exception in trigger thunk: ({kind}:{value} {info})"
                )

    def _physical_pull(self) -> None:
        raise NotImplementedError

    def _close(self) -> None:
        raise NotImplementedError

    def _attach(self, map: MutableMapping[int, Any]) -> None:
        self.event_loop = wasyncore.event_loop_of(map)
        self.event_loop.wakers.append(self)


class socket_trigger(_triggerbase, wasyncore.dispatcher):
    """Wake the loop through a TCP connection to itself: where pipes cannot be polled."""

    kind = "loopback"

    def __init__(self, map: MutableMapping[int, Any]) -> None:
        """Make the connection, and enter the map.

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
    try:
        sender.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(10):
            with socket.socket() as listener:
                listener.bind(("127.0.0.1", 0))
                listener.listen(1)
                try:
                    sender.connect(listener.getsockname())
                except OSError as error:
                    if error.errno != errno.EADDRINUSE:
                        raise
                    continue
                return sender, _accept_from(listener, sender.getsockname())
        raise RuntimeError("Cannot bind trigger!")
    except BaseException:
        sender.close()
        raise


def _accept_from(listener: socket.socket, wanted: Any) -> socket.socket:
    """Accept the connection that comes from an address; anybody may have been faster."""
    while True:
        receiver, peer = listener.accept()
        if peer == wanted:
            return receiver
        receiver.close()


if os.name == "posix":

    class trigger(_triggerbase, wasyncore.file_dispatcher):
        """Wake the loop through a pipe."""

        kind = "pipe"

        def __init__(self, map: MutableMapping[int, Any]) -> None:
            """Make the pipe, and enter the map.

            Args:
                map: the map of the loop to wake.

            Raises:
                OSError: the system has no more descriptors.
            """
            _triggerbase.__init__(self)
            self._fds: tuple[int, ...] = os.pipe()
            read_fd, self.trigger = self._fds
            try:
                os.set_blocking(self.trigger, False)
                wasyncore.file_dispatcher.__init__(self, read_fd, map)
            except OSError:
                self._close_pipe()
                raise
            self._attach(self._map)

        def _close(self) -> None:
            self._close_pipe()
            wasyncore.file_dispatcher.close(self)

        def _close_pipe(self) -> None:
            fds, self._fds = self._fds, ()
            for fd in fds:
                os.close(fd)

        def _physical_pull(self) -> None:
            os.write(self.trigger, b"x")

else:
    trigger = socket_trigger  # type: ignore[assignment,misc]
