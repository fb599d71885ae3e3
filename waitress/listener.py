"""One listening socket: it accepts connections, and sees to those that it has accepted.

Owns when a connection is accepted, and when none is: at the connection limit, when the
system has no descriptor left, and when the listening socket itself is lost.

Row 5: imports ``alerts``, ``bind_names``, ``clients``, ``compat``, ``descriptors``, ``forks``,
``eventloop``, ``settings_schema``, ``tcp`` and ``wasyncore``.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import MutableMapping
from math import inf
from typing import Any

from waitress import forks, tcp, wasyncore
from waitress.alerts import Alert, lasting
from waitress.bind_names import address_text
from waitress.clients import Clients
from waitress.compat import IPPROTO_IPV6, IPV6_V6ONLY
from waitress.descriptors import derived_connection_limit, descriptors_for_connections
from waitress.eventloop import EventLoop
from waitress.settings_schema import _int_marker

__all__ = ["Listener", "ListeningSocket"]

#: Connections accepted in one turn of the loop before the others have theirs.
ACCEPTS_PER_TURN = 64
#: How long accepting rests when the system has no descriptor left, and how often the
#: connection limit is looked at again while it holds newcomers off, in seconds.
ACCEPT_REST_SECONDS = 1.0
#: How often the lack of descriptors, or a limit that is reached, is logged at first, in
#: seconds.
ACCEPT_ERROR_LOG_SECONDS = 30.0
#: How long there must have been no lack of them to count as gone, in seconds.
ACCEPT_QUIET_SECONDS = 5.0
#: Errors of accept() that trying again at once does not mend.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
#: Errors of accept() that tell of the one connection only, or of the network it came by:
#: the next may be well (accept(2), "Error handling"; BSD has ECONNRESET).
_OF_THE_CONNECTION = frozenset(
    getattr(errno, name)
    for name in (
        "ECONNABORTED",
        "ECONNRESET",
        "EHOSTDOWN",
        "EHOSTUNREACH",
        "ENETDOWN",
        "ENETUNREACH",
        "ENONET",
        "ENOPROTOOPT",
        "EOPNOTSUPP",
        "EPERM",
        "EPROTO",
        "ETIMEDOUT",
    )
    if hasattr(errno, name)
)
#: Errors of accept() that say that no connection will ever come again: somebody closed the
#: descriptor behind our back, gave its number to another file, or shut the socket down.
_LISTENER_LOST = frozenset({errno.EBADF, errno.EINVAL, errno.ENOTSOCK})

_Map = MutableMapping[int, Any]


class ListeningSocket(socket.socket):
    """A socket that remembers of what kind it is.

    Others make an enumeration's member of the number whenever somebody asks, which
    ``accept()`` does twice for each connection, for more than the system's call costs.
    """

    __slots__ = ("family", "type")

    def __init__(self, family: int, type: int) -> None:
        super().__init__(family, type)
        self.family = super().family  # type: ignore[misc]
        self.type = super().type  # type: ignore[misc]


class Listener(wasyncore.dispatcher):
    """A listening socket, and the upkeep of the connections that it accepted.

    Threads: loop, but for ``close`` and ``handle_close``, which users call from any thread
    to end the server.
    """

    #: When ``maintenance`` is due next, in seconds since the epoch.
    next_channel_cleanup: float = 0
    socketmod = socket
    #: Whether it shows what other listeners do.
    is_status_listener = False
    #: Whether newcomers are held off because the connection limit is reached.
    in_connection_overflow = False
    #: See :mod:`waitress.deadlines`: until when accepting rests.
    deadline = inf
    deadline_bucket: int | None = None
    _rests_until = -inf
    #: How often the process had forked before the last connection was accepted.
    forks_before_accept: int = -1
    #: Connections that are accepted still when accepting ends; ``None`` before.
    _last_ones: int | None = None

    # What whoever opens the socket has set before.
    channel_class: Any
    adj: Any
    clients: Clients
    #: Files that may be used again.
    spare_files: Any
    #: The connections, by the numbers of their descriptors.
    active_channels: dict[int, Any]
    #: Family, type, protocol and address.
    sockinfo: tuple[Any, ...]
    family: int
    socktype: int
    effective_host: Any
    effective_port: Any
    _event_loop: EventLoop
    _has_own_socket: bool

    # -- opening -----------------------------------------------------------------------

    def _open(self, _sock: Any, map: _Map, bind_socket: bool) -> None:
        super().__init__(_sock, map=map)
        if _sock is None:
            self.create_socket(self.family, self.socktype)
            if self.family == socket.AF_INET6:
                self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        self.set_reuse_addr()
        if bind_socket:
            self.bind_server_socket()

    def _naming_the_address(self, error: OSError) -> OSError:
        message = f"cannot listen on {self._address_text()}: {error.strerror or error}"
        return OSError(error.errno, message) if error.errno else OSError(message)

    def _address_text(self) -> str:
        return address_text(self.sockinfo[3])

    def create_socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> None:
        """Make a non-blocking socket, for connections to be accepted from."""
        self.family_and_type = family, type
        sock = ListeningSocket(family, type)
        sock.setblocking(False)
        self.set_socket(sock)

    def bind_server_socket(self) -> None:
        """Bind the socket to the address that the settings name."""
        raise NotImplementedError

    def getsockname(self) -> tuple[str, Any]:
        """Return host and port, or what stands for them, as the socket has them."""
        raise NotImplementedError

    def set_socket_options(self, conn: Any) -> None:
        """Set the options of an accepted connection."""

    def fix_addr(self, addr: Any) -> Any:
        """Return the peer's address in the form that the environ is made of."""
        return addr

    def _whose(self) -> str:
        """Return what a message about its connections begins with, if not the server's."""
        return "status listener: " if self.is_status_listener else ""

    def _make_accept_alerts(self) -> None:
        """Prepare the warnings that no connection is accepted."""
        loop = self._event_loop
        self._limit_alert = Alert(
            loop,
            lambda _: self.logger.warning(
                f"{self._whose()}total open connections reached the connection limit, "
                "no longer accepting new connections"
            ),
            lambda *_: self.logger.info(
                f"{self._whose()}total open connections dropped below the connection limit, "
                "listening again"
            ),
            lambda: int(self.in_connection_overflow),
            interval=ACCEPT_ERROR_LOG_SECONDS,
        )
        self._exhaustion_alert = Alert(
            loop,
            self._tell_exhaustion,
            lambda seconds, _: self.logger.warning(
                f"connections are accepted again, after {lasting(seconds)}"
            ),
            interval=ACCEPT_ERROR_LOG_SECONDS,
            quiet=ACCEPT_QUIET_SECONDS,
        )

    # -- the loop asks in every pass ---------------------------------------------------

    def readable(self) -> bool:
        """Say whether connections are accepted now; do the upkeep when it is due."""
        wall_clock = self._event_loop.wall_clock  # CPython calls what is no method faster so.
        now = wall_clock()
        if now >= self.next_channel_cleanup:
            self.next_channel_cleanup = now + self.adj.cleanup_interval
            self.maintenance(now)
        if not self.accepting or self._last_ones is not None:
            return False
        if self.in_connection_overflow and not self.clients.is_full:
            self.in_connection_overflow = False
            self._rests_until = -inf
        # While newcomers are held off, one look a second finds out whether somebody can
        # make room for them by now.
        return self._rests_until <= self._event_loop.now or (
            self.in_connection_overflow and bool(self.clients.perhaps_left)
        )

    def writable(self) -> bool:
        """Never: a listener has nothing to write."""
        return False

    def maintenance(self, now: float) -> None:
        """Close the channels that have been idle for too long, and files kept in vain.

        Deadlines do that for channels of ours, and earlier; this sweep is for replacements that
        have none, for those who order one by hand, and where the time-out was changed.

        Args:
            now: seconds since the epoch.
        """
        self.spare_files.close_unused()
        if not self.adj.channel_timeout:
            return
        cutoff = now - self.adj.channel_timeout
        for channel in list(self.active_channels.values()):
            rests = not (
                channel.requests
                or getattr(channel, "total_outbufs_len", 0)
                # What is being received has a deadline, which answers.
                or getattr(channel, "request", None)
                # The loop has yet to hear that it is idle.
                or getattr(channel, "touched", False)
                # There is no room for what it has sent.
                or getattr(channel, "is_paused", False)
            )
            if rests and channel.last_activity < cutoff:
                close_if_idle = getattr(channel, "close_if_idle", None)
                if close_if_idle is not None and self._event_loop.is_current_thread():
                    if close_if_idle():  # Not where a last look finds its next request.
                        self.clients.count_timeout("IDLE")
                else:
                    channel.will_close = True

    # -- accepting ---------------------------------------------------------------------

    def accept_connections(self) -> None:
        """Begin to listen."""
        self.accepting = True
        self.socket.listen(self.adj.backlog)

    def handle_read(self) -> None:
        """Do nothing: a listener reads nothing."""

    def handle_connect(self) -> None:
        """Do nothing: a listener does not connect."""

    def handle_accept(self) -> None:
        """Accept the connections that wait, within the connection limit."""
        self.clients.limit = self._connection_limit()
        if self.next_channel_cleanup > self._event_loop.wall_clock() + self.adj.cleanup_interval:
            self.next_channel_cleanup = 0  # The wall clock was set back.
        # A stand-in for a socket may have one connection to give without end.
        turns = ACCEPTS_PER_TURN if type(self.socket) in (socket.socket, ListeningSocket) else 1
        for _ in range(turns):
            if (self.clients.is_full and not self._make_room()) or not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept a connection; say whether to try for another."""
        conn = None
        self.forks_before_accept = forks.count
        try:
            pair = self.accept()
            if pair is None:
                return False
            conn, addr = pair
            self.set_socket_options(conn)
        except OSError as error:
            # A client that left before it was accepted ends nothing.
            number = error.errno
            lasts = number in _EXHAUSTED
            if conn is not None:
                conn.close()
            elif number in _LISTENER_LOST:
                self._give_up(error)
                return False
            elif number not in _OF_THE_CONNECTION:
                lasts = True
            self._handle_accept_error(error, lasts)
            return False
        except BaseException:
            if conn is not None:
                conn.close()
            raise
        try:
            addr = self.fix_addr(addr)
            clients = self.clients
            has_room = not (clients.limit_per_ip and addr) or clients.has_room_for(str(addr[0]))
            channel = self.channel_class(self, conn, addr, self.adj, map=self._map)
            self.clients.accepted += 1
            if not has_room:
                channel.turn_away()
            elif getattr(channel, "reads_at_once", False) and (
                type(conn) is socket.socket or not _is_wrapped(conn)
            ):
                self._event_loop.read_soon(channel)
        except Exception:
            # One connection less; the listener goes on.
            self.logger.exception(f"Cannot serve the connection from {addr}")
            # A subclass may fail after its channel has entered the tables.
            failed = self.active_channels.get(conn.fileno())
            if failed is not None and failed.socket is conn:
                failed.close()
            conn.close()
        return True

    def _handle_accept_error(self, error: OSError, lasts: bool) -> None:
        if lasts:  # At once it would be the same again, and again.
            self._rest(self._event_loop.clock())
            if self.adj.log_socket_errors:
                self._exhaustion = error
                self._exhaustion_alert.note_threadsafe()
                # For further lines it is kept, but not its frames, and all that they hold.
                error.with_traceback(None)
        elif self.adj.log_socket_errors:
            self._tell_accept_error(True)

    def _tell_exhaustion(self, _: int) -> None:
        is_first = sys.exc_info()[1] is self._exhaustion
        self._tell_accept_error(True if is_first else self._exhaustion)

    def _tell_accept_error(self, exc_info: Any) -> None:
        self.logger.warning("server accept() threw an exception", exc_info=exc_info)

    def handle_close(self) -> None:
        """Close; users order it, and some pollers tell so of a listener that has failed."""
        if self._fileno is None:
            return  # Closed already, by what the same event told first.
        if self.accepting and not _listens(self.socket):
            self._give_up("its descriptor was closed, shut down or given to another file")
        else:
            super().handle_close()

    def _give_up(self, reason: object) -> None:
        """Close a listener that can accept nothing more; the loop ends with the last one."""
        self.logger.error(
            f"The listener on {self.effective_host}:{self.effective_port} has failed and is "
            f"closed; connections that are open are served to their end: {reason}"
        )
        try:
            is_ours = self.getsockname() == (self.effective_host, self.effective_port)
        except (OSError, TypeError):  # No socket, or one of another family.
            is_ours = False
        if not is_ours:
            # Its number may be that of another file by now, which is not ours to close.
            self.socket.detach()
        self.close()

    def handle_error(self) -> None:
        """Log what went wrong, and go on: no connection's fault closes the listener."""
        self.logger.exception(  # noqa: LOG004 - called while handling it
            f"Exception in the listener on {self._address_text()}"
        )
        self._rest(self._event_loop.now)

    def _rest(self, now: float) -> None:
        """Accept nothing for a while."""
        self._rests_until = now + ACCEPT_REST_SECONDS
        self._event_loop.deadlines.arm(self, self._rests_until)

    def handle_deadline(self, now: float) -> None:
        """Do nothing: the loop woke, and asks whether connections are accepted now."""

    def _make_room(self) -> bool:
        """Close a connection in favour of a newcomer; hold it off when none can go."""
        now = self._event_loop.now
        if self.clients.make_room(now, (getattr(self.adj, "header_timeout", 30) or inf) / 4):
            return True
        self._rest(now)
        if not self.in_connection_overflow:
            self.in_connection_overflow = True
            self._limit_alert.note_threadsafe()
        return False

    def _connection_limit(self) -> int:
        """Return how many client connections there may be at once."""
        limit: int = self.adj.connection_limit
        if not isinstance(limit, _int_marker):
            return limit
        # Once for all listeners: to the second, the first one's connections would look
        # like descriptors that somebody else has taken.
        derived = self.clients.derived_limit
        if derived is None:
            derived = self.clients.derived_limit = derived_connection_limit(int(limit))
            reason = ""
            if derived < limit:
                reason = (
                    ": the system allows no more descriptors; raise its limit, or set "
                    "connection_limit"
                )
            self.logger.info(f"connection limit is {derived}{reason}")
        return derived

    def stop_accepting(self) -> bool:
        """Accept what has connected by now, and close the socket; the trigger stays.

        Returns:
            False where descriptors are short and somebody waits still: nothing is closed
            then. To be called again when connections have ended.
        """
        if self.accepting and not self._accept_the_last():
            return False
        self._event_loop.deadlines.forget(self)
        super().close()
        return True

    def _accept_the_last(self) -> bool:
        """Accept those who have connected; say whether nobody waits for this server now."""
        if self._last_ones is None:
            if self._has_own_socket:
                tcp.hold_newcomers_off(self.socket)
            self._last_ones = self.adj.backlog + 1
        self._rests_until = -inf
        # The connection limit is none for them: they are the last ones. What the requests
        # need to be served is.
        room = max(descriptors_for_connections(), 1)
        while self._last_ones and room:
            self._last_ones -= 1
            room -= 1
            if not self._accept_one():
                break
        is_exhausted = not room or self._rests_until > -inf
        # The backlog of a socket that was handed in stays, for whoever has it next.
        if not (is_exhausted and self._last_ones and self._has_own_socket):
            return True
        return not tcp.is_waited_for(self.socket)


def _is_wrapped(conn: Any) -> bool:
    """Say whether what is no plain socket is one that somebody has put between, as for TLS.

    Where there is nothing to read, it may say so in words of its own.
    """
    return isinstance(conn, socket.socket)


def _listens(sock: Any) -> bool:
    """Say whether a socket listens; where that cannot be asked, it does."""
    option = getattr(socket, "SO_ACCEPTCONN", None)
    if option is None or not isinstance(sock, socket.socket):
        return True
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, option))
    except OSError:
        return False
