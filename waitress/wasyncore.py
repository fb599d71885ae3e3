"""The select-style loop and its dispatchers, under the names of the old asyncore.

Owns the map of descriptors to dispatchers, the ways to run it, and the dispatcher base
class. Servers reach :func:`loop`, which runs the map's
:class:`~waitress.eventloop.EventLoop`; :func:`poll` and :func:`poll2` are one pass over
``select()`` and ``poll()`` for those who call them directly.

The names and effects are those that the users of asyncore know, because applications run
their own loops and dispatchers on them. Several of the module's globals
(``_DISCONNECTED``, ``socket_map``, ``select``, ``time``) are re-bound from outside and
therefore read at every use.

Row 2: imports eventloop and utilities.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import sys
import time
import warnings
from collections.abc import Iterator, MutableMapping
from errno import (
    EAGAIN,
    EBADF,
    ECONNABORTED,
    ECONNRESET,
    EINTR,
    ENOTCONN,
    EPIPE,
    ESHUTDOWN,
    EWOULDBLOCK,
)
from typing import Any, ClassVar

from waitress import utilities
from waitress.eventloop import (
    EventLoop,
    ExitNow,
    SocketMap,
    event_loop_of,
    find_event_loop,
    snapshot,
)
from waitress.pollers import ERROR, HANGUP, INVALID, PRIORITY, READ, WRITE

__all__ = [
    "EAGAIN",
    "EBADF",
    "ECONNABORTED",
    "ECONNRESET",
    "EINTR",
    "ENOTCONN",
    "EPIPE",
    "ESHUTDOWN",
    "EWOULDBLOCK",
    "EventLoop",
    "ExitNow",
    "SocketMap",
    "close_all",
    "compact_traceback",
    "dispatcher",
    "event_loop_of",
    "loop",
    "poll",
    "poll2",
    "poll3",
    "read",
    "readwrite",
    "socket_map",
    "utilities",
    "write",
]

#: The errors that say the peer just left.
_DISCONNECTED = frozenset({ECONNRESET, ENOTCONN, ESHUTDOWN, ECONNABORTED, EPIPE, EBADF})

_reraised_exceptions = (ExitNow, KeyboardInterrupt, SystemExit)

_Map = MutableMapping[int, Any]

# Kept when the module is reloaded: objects in it still hold it.
if "socket_map" not in globals():
    socket_map: _Map = {}


def _strerror(err: Any) -> str:
    """Return the system's text for an error number; never empty."""
    try:
        return os.strerror(err)
    except (TypeError, ValueError, OverflowError, NameError):
        return f"Unknown error {err}"


# -- handing events to objects ---------------------------------------------------------


def read(obj: Any) -> None:
    """Hand a read event to the object; what goes wrong is the object's to handle."""
    _hand_over(obj, "handle_read_event")


def write(obj: Any) -> None:
    """Hand a write event to the object."""
    _hand_over(obj, "handle_write_event")


def _exception(obj: Any) -> None:
    """Hand an exceptional event (out-of-band data, a failed connect) to the object."""
    _hand_over(obj, "handle_expt_event")


def _hand_over(obj: Any, handler: str) -> None:
    try:
        getattr(obj, handler)()
    except _reraised_exceptions:
        raise
    except BaseException:  # noqa: BLE001 - what one object runs into, the loop survives
        obj.handle_error()


def readwrite(obj: Any, flags: int) -> None:
    """Hand the events in a mask of poll's to the object, in a fixed order."""
    try:
        if flags & READ:
            obj.handle_read_event()
        if flags & WRITE:
            obj.handle_write_event()
        if flags & PRIORITY:
            obj.handle_expt_event()
        if flags & (HANGUP | ERROR | INVALID):
            obj.handle_close()
    except OSError as error:
        if _code(error) in _DISCONNECTED:
            obj.handle_close()
        else:
            obj.handle_error()
    except _reraised_exceptions:
        raise
    except BaseException:  # noqa: BLE001 - as above
        obj.handle_error()


def _code(error: OSError) -> Any:
    """Return the error number; not from ``errno``, which is not set by ``OSError(32)``."""
    return error.args[0] if error.args else None


def _as_poll_does(map: _Map, fd: int, obj: Any, flags: int, asked: int) -> None:
    """Hand over what select() would have told.

    It tells nothing of a hang-up but that there is something to read: the object reads
    to the end, and loses nothing of what was sent before it.
    """
    told = False
    for signs, interest, hand_over in (
        (READ | HANGUP | ERROR, READ, read),
        (WRITE | ERROR, WRITE, write),
        (PRIORITY, PRIORITY, _exception),
    ):
        if flags & signs and asked & interest and map.get(fd) is obj:
            told = True
            hand_over(obj)
    if not told and flags & (HANGUP | ERROR | INVALID):
        # It wants to know of nothing that it would learn this from.
        _hand_over(obj, "handle_close")


def _as_poll2_does(map: _Map, fd: int, obj: Any, flags: int, asked: int) -> None:
    """Hand over what poll() told."""
    readwrite(obj, flags)


# -- running ---------------------------------------------------------------------------


def loop(
    timeout: float | None = 30.0,
    use_poll: bool = False,
    map: _Map | None = None,
    count: int | None = None,
) -> None:
    """Serve the objects of a map until it is empty.

    The map may be changed by handlers and by other threads at any moment.

    Args:
        timeout: the longest wait of one pass, in seconds.
        use_poll: hand events over as :func:`poll2` does, a hang-up at once, and not as
            :func:`poll` does; the platform's best poller is used either way.
        map: descriptors and their objects; ``None`` for the module's ``socket_map``.
        count: the number of passes; ``None`` for as many as it takes.

    Raises:
        ExitNow, KeyboardInterrupt, SystemExit: raised by a handler, to end the loop.
        OSError: waiting failed, and not because of one of the objects.
    """
    if map is None:
        map = socket_map
    if map:
        dispatch = _as_poll2_does if use_poll else _as_poll_does
        event_loop_of(map).run(timeout, dispatch, count, select)


def poll(timeout: float = 0.0, map: _Map | None = None) -> None:
    """Make one pass with ``select()``."""
    if map is None:
        map = socket_map
    if not map:
        return
    readers, writers, watched = [], [], []
    for fd, obj in snapshot(map).items():
        is_reader, is_writer = _ask(obj)
        if is_reader:
            readers.append(fd)
        if is_writer:
            writers.append(fd)
        if is_reader or is_writer:
            watched.append(fd)
    if not watched:
        time.sleep(timeout)
        return
    try:
        readers, writers, watched = select.select(readers, writers, watched, timeout)
    except OSError as error:
        if _code(error) != EINTR:
            raise
        return
    with _time_goes_on(map):
        for fds, hand_over in ((readers, read), (writers, write), (watched, _exception)):
            for fd in fds:
                obj = map.get(fd)
                if obj is not None:
                    hand_over(obj)


def poll2(timeout: float | None = 0.0, map: _Map | None = None) -> None:
    """Make one pass with ``poll()``."""
    if map is None:
        map = socket_map
    milliseconds = None if timeout is None else int(timeout * 1000)
    pollster = select.poll()
    if not map:
        return
    for fd, obj in snapshot(map).items():
        is_reader, is_writer = _ask(obj)
        flags = (READ | PRIORITY if is_reader else 0) | (WRITE if is_writer else 0)
        if flags:
            pollster.register(fd, flags)
    try:
        events = pollster.poll(milliseconds)
    except OSError as error:
        if _code(error) != EINTR:
            raise
        events = []
    with _time_goes_on(map):
        for fd, flags in events:
            obj = map.get(fd)
            if obj is not None:
                readwrite(obj, flags)


poll3 = poll2


@contextlib.contextmanager
def _time_goes_on(map: _Map) -> Iterator[None]:
    """Keep clock and deadlines going for those of a map's objects that rely on its loop.

    The programs that call :func:`poll` instead of :func:`loop` do not run it.
    """
    event_loop = find_event_loop(map)
    if event_loop is not None:
        event_loop.note_time()
    yield
    if event_loop is not None:
        event_loop.tell_due()


def _ask(obj: Any) -> tuple[bool, bool]:
    return bool(obj.readable()), bool(obj.writable() and not obj.accepting)


def compact_traceback() -> tuple[tuple[str, str, str], type[BaseException], BaseException, str]:
    """Describe the exception being handled.

    Returns:
        The innermost frame as file, function and line; the exception's type; the
        exception; and all frames on one line.

    Raises:
        AssertionError: no exception is being handled.
    """
    kind, value, trace = sys.exc_info()
    if kind is None or value is None or trace is None:
        raise AssertionError("traceback does not exist")
    frames = []
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append((code.co_filename, code.co_name, str(trace.tb_lineno)))
        trace = trace.tb_next
    info = " ".join("[{}|{}|{}]".format(*frame) for frame in frames)
    return frames[-1], kind, value, info


def close_all(map: _Map | None = None, ignore_all: bool = False) -> None:
    """Close every object of a map, and empty it.

    Raises:
        OSError, Exception: what closing an object raised, unless ``ignore_all``; that
            a descriptor is closed already is never an error.
    """
    if map is None:
        map = socket_map
    for obj in snapshot(map).values():
        try:
            obj.close()
        except OSError as error:
            if _code(error) != EBADF and not ignore_all:
                raise
        except _reraised_exceptions:
            raise
        except Exception:
            if not ignore_all:
                raise
    map.clear()


# -- dispatchers -----------------------------------------------------------------------


class dispatcher:
    """A socket in a map, and the methods that the loop calls on it.

    Threads: loop, but for ``close`` and ``handle_close`` of subclasses that say so.
    """

    debug: bool = False
    connected: bool = False
    accepting: bool = False
    connecting: bool = False
    closing: bool = False
    addr: Any = None
    ignore_log_types: ClassVar[frozenset[str]] = frozenset({"warning"})
    logger: logging.Logger = utilities.logger
    compact_traceback = staticmethod(compact_traceback)

    socket: Any
    _fileno: int | None

    def __init__(self, sock: Any = None, map: _Map | None = None) -> None:
        """Enter the map with a socket, if there is one.

        Args:
            sock: a socket to work on, or ``None``; made non-blocking.
            map: the map to stand in; ``None`` for the module's ``socket_map``.
        """
        self._map: _Map = socket_map if map is None else map
        self._fileno = None
        if sock:
            sock.setblocking(0)
            self.set_socket(sock, map)
        else:
            self.socket = None

    def __repr__(self) -> str:
        status = [f"{type(self).__module__}.{type(self).__qualname__}"]
        if self.accepting and self.addr:
            status.append("listening")
        elif self.connected:
            status.append("connected")
        if self.addr is not None:
            try:
                status.append("%s:%d" % self.addr)
            except TypeError:
                status.append(repr(self.addr))
        return f"<{' '.join(status)} at {id(self):#x}>"

    __str__ = __repr__

    def add_channel(self, map: _Map | None = None) -> None:
        """Enter the map under the socket's number."""
        if map is None:
            map = self._map
        assert self._fileno is not None
        map[self._fileno] = self

    def del_channel(self, map: _Map | None = None) -> None:
        """Leave the map; harmless when not in it."""
        fd = self._fileno
        if map is None:
            map = self._map
        if fd is not None and map.get(fd) is self:
            try:
                del map[fd]
            except KeyError:
                pass  # Another thread may be emptying the map.
            if not isinstance(map, SocketMap):  # Which tells by itself.
                event_loop = find_event_loop(map)
                if event_loop is not None:
                    event_loop.note_left_threadsafe(fd)
        self._fileno = None

    def create_socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> None:
        """Make a non-blocking socket and work on it.

        Raises:
            OSError: the system has no more, or not of that family.
        """
        self.family_and_type = family, type
        sock = socket.socket(family, type)
        sock.setblocking(False)
        self.set_socket(sock)

    def set_socket(self, sock: Any, map: _Map | None = None) -> None:
        """Work on ``sock``, and enter the map."""
        self.socket = sock
        self._fileno = sock.fileno()
        self.add_channel(map)

    def set_reuse_addr(self) -> None:
        """Allow to bind an address that connections of an earlier process still use."""
        with contextlib.suppress(OSError):
            self.socket.setsockopt(
                socket.SOL_SOCKET,
                socket.SO_REUSEADDR,
                self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) | 1,
            )

    # -- what the loop asks

    def readable(self) -> bool:
        """Say whether the object wants to know when it can read."""
        return True

    def writable(self) -> bool:
        """Say whether the object wants to know when it can write."""
        return True

    # -- socket methods

    def listen(self, num: int) -> None:
        """Accept connections from now on."""
        self.accepting = True
        if os.name == "nt" and num > 5:
            num = 5
        self.socket.listen(num)

    def bind(self, addr: Any) -> None:
        """Bind the socket."""
        self.addr = addr
        self.socket.bind(addr)

    def accept(self) -> tuple[Any, Any] | None:
        """Return a new connection and its peer's address; ``None`` if there is none."""
        try:
            conn, addr = self.socket.accept()
        except TypeError:
            return None
        except OSError as error:
            if _code(error) in (EWOULDBLOCK, EAGAIN, ECONNABORTED):
                return None
            raise
        return conn, addr

    def send(self, data: Any, do_close: bool = True) -> int:
        """Send what the system takes now; return how much that was.

        Returns 0 when it takes nothing, and when the peer is gone, which also closes the
        object unless ``do_close`` is false.
        """
        try:
            return self.socket.send(data)  # type: ignore[no-any-return]
        except OSError as error:
            code = _code(error)
            if code == EWOULDBLOCK:
                return 0
            if code in _DISCONNECTED:
                if do_close:
                    self.handle_close()
                return 0
            raise

    def recv(self, buffer_size: int) -> bytes:
        """Receive up to ``buffer_size`` bytes.

        At the end of the stream, and when the peer is gone, close the object and return
        nothing.
        """
        try:
            data: bytes = self.socket.recv(buffer_size)
        except OSError as error:
            if _code(error) not in _DISCONNECTED:
                raise
            self.handle_close()
            return b""
        if not data:
            self.handle_end_of_stream()
        return data

    def handle_end_of_stream(self) -> None:
        """React to the peer's last byte having been read: by :meth:`handle_close`."""
        self.handle_close()

    def close(self) -> None:
        """Leave the map and close the socket; repeatable."""
        self.connected = False
        # Not where the class says so already. CPython keeps the names of attributes once for all
        # instances of a class, as far as the first thirty had them: a connection that has one
        # more at its end would get a dict for it, and in 3.11 have the methods of all others
        # looked up anew.
        if self.accepting:
            self.accepting = False
        if self.connecting:
            self.connecting = False
        self.del_channel()
        sock, self.socket = self.socket, None
        if sock is not None:
            try:
                self._close_socket(sock)
            except OSError as error:
                if _code(error) not in (ENOTCONN, EBADF):
                    raise

    def _close_socket(self, sock: Any) -> None:
        sock.close()

    # -- logging

    def log(self, message: str) -> None:
        """Log at level DEBUG."""
        self.logger.log(logging.DEBUG, message)

    def log_info(self, message: str, type: str = "info") -> None:
        """Log at the level that ``type`` names: info, warning or error."""
        levels = {"warning": logging.WARNING, "error": logging.ERROR}
        self.logger.log(levels.get(type, logging.INFO), message)

    # -- events

    def handle_read_event(self) -> None:
        """Something can be read."""
        if self.accepting:
            # A listening socket has a connection to give.
            self.handle_accept()
            return
        if not self.connected and self.connecting:
            self.handle_connect_event()
        self.handle_read()

    def handle_connect_event(self) -> None:
        """A connect ended, well or badly.

        Raises:
            OSError: badly.
        """
        err = self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if err != 0:
            raise OSError(err, _strerror(err))
        self.handle_connect()
        self.connected = True
        self.connecting = False

    def handle_write_event(self) -> None:
        """Something can be written."""
        if self.accepting:
            return
        if not self.connected and self.connecting:
            self.handle_connect_event()
        self.handle_write()

    def handle_expt_event(self) -> None:
        """The socket has an error or out-of-band data."""
        sock = self.socket
        if sock is None or sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0:
            self.handle_close()
        else:
            self.handle_expt()

    def handle_error(self) -> None:
        """A handler raised; called while the exception is being handled."""
        _, kind, value, info = self.compact_traceback()
        try:
            representation = repr(self)
        except Exception:  # noqa: BLE001 - a subclass's repr: anything
            representation = f"<__repr__(self) failed for object at {id(self):#x}>"
        self.log_info(
            f"uncaptured python exception, closing channel {representation} "
            f"({kind}:{value} {info})",
            "error",
        )
        self.handle_close()

    def handle_expt(self) -> None:
        """Out-of-band data came."""
        self.log_info("unhandled incoming priority event", "warning")

    def handle_read(self) -> None:
        """Read."""
        self.log_info("unhandled read event", "warning")

    def handle_write(self) -> None:
        """Write."""
        self.log_info("unhandled write event", "warning")

    def handle_connect(self) -> None:
        """Be connected."""
        self.log_info("unhandled connect event", "warning")

    def handle_accept(self) -> None:
        """Accept a connection."""
        pair = self.accept()
        if pair is not None:
            self.handle_accepted(*pair)

    def handle_accepted(self, sock: Any, addr: Any) -> None:
        """Take a connection."""
        sock.close()
        self.log_info("unhandled accepted event", "warning")

    def handle_close(self) -> None:
        """The peer is gone."""
        self.log_info("unhandled close event", "warning")
        self.close()


if os.name == "posix":

    class file_wrapper:
        """A descriptor that looks like a socket; it is duplicated, not taken over."""

        def __init__(self, fd: int) -> None:
            #: The duplicate; -1 when there is none (yet, or any more).
            self.fd = -1
            self.fd = os.dup(fd)

        def __del__(self) -> None:
            if self.fd >= 0:
                warnings.warn(f"unclosed file {self!r}", ResourceWarning, source=self, stacklevel=2)
            self.close()

        def recv(self, size: int) -> bytes:
            """Read up to ``size`` bytes."""
            return os.read(self.fd, size)

        def send(self, data: bytes) -> int:
            """Write; return how much was written."""
            return os.write(self.fd, data)

        read = recv
        write = send

        def getsockopt(self, level: int, optname: int, buflen: int | None = None) -> int:
            """Say that there is no error; no other question is known."""
            if level == socket.SOL_SOCKET and optname == socket.SO_ERROR and not buflen:
                return 0
            raise NotImplementedError("Only asyncore specific behaviour implemented.")

        def close(self) -> None:
            """Close the duplicate; repeatable."""
            if self.fd < 0:
                return
            fd, self.fd = self.fd, -1
            os.close(fd)

        def fileno(self) -> int:
            """Return the duplicate's number, -1 when closed."""
            return self.fd

    class file_dispatcher(dispatcher):
        """A dispatcher on a pipe or another descriptor instead of a socket."""

        def __init__(self, fd: Any, map: _Map | None = None) -> None:
            """Enter the map with a duplicate of a descriptor, which is made non-blocking.

            Args:
                fd: a descriptor, or an object with ``fileno()``.
                map: as for :class:`dispatcher`.
            """
            super().__init__(None, map)
            self.connected = True
            with contextlib.suppress(AttributeError):
                fd = fd.fileno()
            # First: when it fails, nothing has been made yet.
            os.set_blocking(fd, False)
            self.set_file(fd)

        def set_file(self, fd: int) -> None:
            """Work on a duplicate of ``fd``, and enter the map."""
            self.socket = file_wrapper(fd)
            self._fileno = self.socket.fileno()
            self.add_channel()
