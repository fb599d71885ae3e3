"""Listening sockets, and what the connections they accept have in common.

Owns the listeners, the trigger, and the wiring of everything else: settings, task
dispatcher, budget of temporary files, set of clients. :func:`create_server` is the door
of the library; :class:`BaseWSGIServer` and its subclasses are one listener each.

Row 9: imports adjustments, alerts, audience, bind_names, channel, clients, compat,
embedding, eventloop, observer, pollers, proxy_headers, peers, rejects, shutdown,
spare_files, spool, tcp, trigger, utilities and wasyncore; access_log, access_sink,
fair_queue, memory_limit, queue_limits, stats, status and stuck where they are wanted.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import select
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

from waitress import tcp, trigger, wasyncore
from waitress.adjustments import Adjustments, _int_marker
from waitress.alerts import Alert, lasting, watch_queue, watch_spool
from waitress.audience import Audience, Watched
from waitress.bind_names import Inherited, address_text, open_inherited, unix_address_text
from waitress.channel import HTTPChannel
from waitress.clients import Clients
from waitress.compat import IPPROTO_IPV6, IPV6_V6ONLY
from waitress.embedding import Embeddable
from waitress.eventloop import snapshot
from waitress.observer import Observer
from waitress.peers import TrustedPeers
from waitress.pollers import descriptor_limit
from waitress.proxy_headers import proxy_headers_middleware
from waitress.rejects import Rejects
from waitress.shutdown import Shutdown
from waitress.spare_files import SpareFiles
from waitress.spool import SpoolBudget, default_spool_limit
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import cleanup_unix_socket

if TYPE_CHECKING:
    from waitress.access_log import AccessLog
    from waitress.stats import Monitor, ServerStats

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

__all__ = [
    "IPPROTO_IPV6",
    "IPV6_V6ONLY",
    "Adjustments",
    "BaseWSGIServer",
    "HTTPChannel",
    "MultiSocketServer",
    "TcpWSGIServer",
    "ThreadedTaskDispatcher",
    "WSGIServer",
    "cleanup_unix_socket",
    "create_server",
    "os",
    "proxy_headers_middleware",
    "socket",
    "time",
    "trigger",
    "wasyncore",
]

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
#: What the poller watches beside client connections: listeners, triggers, an
#: application's own. Only where it has a limit.
RESERVED_DESCRIPTORS = 16
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

logger = logging.getLogger("waitress.server")


def create_server(
    application: Any,
    map: _Map | None = None,
    _start: bool = True,
    _sock: Any = None,
    _dispatcher: Any = None,
    **kw: Any,
) -> Any:
    """Make a server for a WSGI application, bound and ready to ``run()``.

    Args:
        application: the WSGI application (PEP 3333).
        map: the socket map to stand in; a new one by default.
        _start: listen at once; otherwise ``accept_connections()`` does.
        _sock: a socket to use in place of a new one.
        _dispatcher: a task dispatcher in place of a
            :class:`~waitress.task.ThreadedTaskDispatcher`; its threads are its owner's
            affair.
        kw: the settings, see :class:`~waitress.adjustments.Adjustments`.

    Returns:
        A :class:`TcpWSGIServer` or :class:`UnixWSGIServer`; a :class:`MultiSocketServer`
        when there is more than one address.

    Raises:
        ValueError: a setting is wrong, or there is no application.
        OSError: an address cannot be bound; it is named, and nothing is left behind.
        RuntimeError: the system refuses a thread; nothing is left behind either.
    """
    if application is None:
        raise ValueError(
            'The "app" passed to ``create_server`` was ``None``.  You forgot '
            "to return a WSGI app within your application."
        )
    adj = Adjustments(**kw)
    if map is None:
        map = wasyncore.SocketMap()
    dispatcher = ThreadedTaskDispatcher() if _dispatcher is None else _dispatcher
    servers: list[BaseWSGIServer] = []
    inherited: list[socket.socket] = []
    try:
        if not (adj.sockets or adj.unix_socket):
            inherited = open_inherited(info[3] for info in adj.listen if _is_inherited(info))
        for server_class, options in _listeners(adj, _sock, inherited):
            servers.append(
                server_class(application, map, _start, dispatcher=dispatcher, adj=adj, **options)
            )
        if getattr(adj, "status_listen", ()):
            servers[0].open_status_listeners(servers, _start)
        for server in servers[1:]:
            # What is limited is limited for all of them together.
            server.clients = servers[0].clients
            server.spool = servers[0].spool
            server.rejects.counts = servers[0].rejects.counts
            server.lifecycle = servers[0].lifecycle
            server.lifecycle.listeners.append(server)
            servers[0]._audience().take_in(server)
        stuck = _watch_requests(servers, adj)
        _limit_load(servers, adj)
        if _dispatcher is None:
            _start_threads(dispatcher, adj.threads, [server._address_text() for server in servers])
    except BaseException:
        for server in servers:
            server.abandon()
        for sock in inherited:
            # It was open before, and stays so.
            sock.detach()
        if _dispatcher is None:
            dispatcher.shutdown()
        raise
    if len(servers) == 1:
        return servers[0]
    several = MultiSocketServer(
        map,
        adj,
        [(server.effective_host, server.effective_port) for server in servers],
        dispatcher,
        servers[0].log_info,
    )
    several.audience = servers[0].audience
    several.stuck = stuck
    return several


def _watch_requests(servers: list[BaseWSGIServer], adj: Any) -> Any:
    if not getattr(adj, "stuck_request_seconds", 0):
        return None
    # Few ask for it; the others need not carry it in memory.
    from waitress.stuck import watch_requests

    return watch_requests(servers, adj)


def _limit_load(servers: list[BaseWSGIServer], adj: Any) -> None:
    """Have the queue and the buffers limited, where that is wanted."""
    if any(getattr(adj, name, 0) for name in ("queue_limit", "queue_timeout", "fair_queue")):
        from waitress.queue_limits import limit_queue

        limit_queue(servers, adj)
    if getattr(adj, "max_buffered_bytes", 0):
        from waitress.memory_limit import limit_memory

        limit_memory(servers, adj)


def _listeners(
    adj: Adjustments, _sock: Any, inherited: list[socket.socket]
) -> Iterator[tuple[type[BaseWSGIServer], dict[str, Any]]]:
    """Yield the class and the arguments of each listener that the settings ask for."""
    if adj.unix_socket and hasattr(socket, "AF_UNIX"):
        only = (socket.AF_UNIX, socket.SOCK_STREAM, None, None)
        yield UnixWSGIServer, {"_sock": _sock, "sockinfo": only}
        return
    if not adj.sockets:
        for info in adj.listen:
            if not _is_inherited(info):
                yield _class_for(info[0]), {"_sock": _sock, "sockinfo": info}
    for sock in adj.sockets or inherited:
        bound = (sock.family, sock.type, sock.proto, sock.getsockname())
        yield _class_for(sock.family), {"_sock": sock, "bind_socket": False, "sockinfo": bound}


def _is_inherited(info: tuple[Any, ...]) -> bool:
    return isinstance(info[3], Inherited)


def _class_for(family: int) -> type[BaseWSGIServer]:
    return TcpWSGIServer if family in (socket.AF_INET, socket.AF_INET6) else UnixWSGIServer


def _start_threads(dispatcher: Any, count: int, addresses: list[str]) -> None:
    try:
        dispatcher.set_thread_count(count)
    except RuntimeError as error:
        raise RuntimeError(
            f"cannot start {count} threads for {', '.join(addresses)}: {error}"
        ) from error


class MultiSocketServer(Watched, Embeddable):
    """Several listeners in one map, run and closed together."""

    asyncore = wasyncore
    #: Finds requests that run for too long; ``None`` where nobody wants them found.
    stuck: Any = None

    def __init__(
        self,
        map: _Map | None = None,
        adj: Any = None,
        effective_listen: list[tuple[str, str]] | None = None,
        dispatcher: Any = None,
        log_info: Callable[..., Any] | None = None,
    ) -> None:
        self.adj = adj
        self.map = map
        self.effective_listen = effective_listen
        self.task_dispatcher = dispatcher
        self.log_info = log_info
        if map is None:
            map = {}
        #: That of the listeners; one without any where there are none.
        self.lifecycle = next(
            (each.lifecycle for each in map.values() if isinstance(each, BaseWSGIServer)),
            Shutdown(wasyncore.event_loop_of(map), Clients()),
        )

    def print_listen(self, format_str: str) -> None:
        """Log one line for each address; the format's fields are host and port."""
        assert self.log_info is not None
        for host, port in self.effective_listen or ():
            self.log_info(format_str.format(f"[{host}]" if ":" in host else host, port))

    @property
    def status_listeners(self) -> Sequence[BaseWSGIServer]:
        """Those that show what this server does; none by default."""
        return self._listeners(of_status=True)

    def stats(self) -> ServerStats:
        """Return figures of all listeners together; see :meth:`BaseWSGIServer.stats`."""
        listeners = self._listeners(of_status=False)
        if not listeners:
            raise RuntimeError("the server is closed")
        return listeners[0].stats()

    def _listeners(self, *, of_status: bool) -> list[BaseWSGIServer]:
        found = snapshot(self.map or {}).values()
        return [
            each
            for each in found
            if isinstance(each, BaseWSGIServer) and each.is_status_listener is of_status
        ]

    def run(self) -> None:
        """Serve until the map is empty, or until Ctrl-C or ``SystemExit``, then close.

        Raises:
            RuntimeError: the process is a fork of the one that made the server.
        """
        _refuse_fork(self.task_dispatcher)
        if self.audience is not None:
            self.audience.log_events_if_wanted()
        self.lifecycle.run(self._loop, self._end_at_once)

    def _loop(self) -> None:
        self.asyncore.loop(
            timeout=self.adj.asyncore_loop_timeout,
            map=self.map,
            use_poll=self.adj.asyncore_use_poll,
        )

    def _end_at_once(self) -> None:
        _close_channels(self.map)
        self.close()

    def is_live(self) -> bool:
        """Say whether the server can be expected to serve (any thread).

        False when so many requests are stuck that no thread can be added for another.
        """
        return self.stuck is None or self.stuck.is_live()

    def close(self) -> None:
        """End the workers and close everything in the map."""
        self.task_dispatcher.shutdown()
        wasyncore.close_all(self.map)


class _Listener(socket.socket):
    """A socket that remembers of what kind it is.

    Others make an enumeration's member of the number whenever somebody asks, which
    ``accept()`` does twice for each connection, for more than the system's call costs.
    """

    __slots__ = ("family", "type")

    def __init__(self, family: int, type: int) -> None:
        super().__init__(family, type)
        self.family = super().family  # type: ignore[misc]
        self.type = super().type  # type: ignore[misc]


class BaseWSGIServer(Watched, Embeddable, wasyncore.dispatcher):
    """One listening socket, and the upkeep of the connections that it accepted.

    Threads: loop, but for ``add_task``, ``pull_trigger`` and ``shutdown`` (any), and
    ``close`` and ``handle_close``, which users call from any thread to end the server.
    """

    channel_class = HTTPChannel
    #: When ``maintenance`` is due next, in seconds since the epoch.
    next_channel_cleanup: float = 0
    socketmod = socket
    asyncore = wasyncore
    #: Whether newcomers are held off because the connection limit is reached.
    in_connection_overflow = False
    #: Finds requests that run for too long; ``None`` where nobody wants them found.
    stuck: Any = None
    #: Shows what this one does; none by default.
    status_listeners: Sequence[BaseWSGIServer] = ()
    #: Whether it is itself one of those.
    is_status_listener = False
    #: See :mod:`waitress.deadlines`: until when accepting rests.
    deadline = inf
    deadline_bucket: int | None = None
    #: What writes a line for each request; ``None``: nothing does.
    access_log: AccessLog | None = None

    def __init__(
        self,
        application: Any,
        map: _Map | None = None,
        _start: bool = True,
        _sock: Any = None,
        dispatcher: Any = None,
        adj: Any = None,
        sockinfo: tuple[Any, ...] | None = None,
        bind_socket: bool = True,
        **kw: Any,
    ) -> None:
        """Open the listener.

        Args:
            application: the WSGI application.
            map: the socket map to stand in; a new one by default.
            _start: listen at once.
            _sock: a socket to use in place of a new one.
            dispatcher: the task dispatcher; one with ``adj.threads`` threads by default.
            adj: the settings; made of ``kw`` by default.
            sockinfo: family, type, protocol and address.
            bind_socket: bind the socket; false for one that is bound already.

        Raises:
            ValueError: a setting is wrong.
            OSError: the address cannot be bound; it is named, and nothing is left behind.
        """
        if adj is None:
            adj = Adjustments(**kw)
        #: Who is believed when it speaks for others.
        self.trusted_peers = TrustedPeers(adj.trusted_proxy)
        #: Counts and logs what is refused.
        self.rejects = Rejects()
        #: Told of whatever happens; refusals are all that is of interest by default.
        self.observer: Observer = self.rejects
        if adj.trusted_proxy or adj.clear_untrusted_proxy_headers:
            application = proxy_headers_middleware(
                application,
                trusted_proxy=adj.trusted_proxy,
                trusted_proxy_count=adj.trusted_proxy_count,
                trusted_proxy_headers=adj.trusted_proxy_headers,
                clear_untrusted=adj.clear_untrusted_proxy_headers,
                log_untrusted=adj.log_untrusted_proxy_headers,
                logger=self.logger,
                # Of whoever watches at that moment.
                tell_refusal=lambda refusal: self.observer.refused(refusal),
            )
        if map is None:
            map = wasyncore.SocketMap()
        if sockinfo is None:
            sockinfo = self._default_sockinfo(adj)
        self.sockinfo = sockinfo
        self.family = sockinfo[0]
        self.socktype = sockinfo[1]
        self.application = application
        self.adj = adj
        self.server_name = adj.server_name
        self.active_channels: dict[int, Any] = {}
        self.clients = Clients()
        self.clients.limit_per_ip = getattr(adj, "connection_limit_per_ip", 0)
        self.clients.unlimited = self.trusted_peers
        self.spool = SpoolBudget(_spool_limit(adj))
        self.spare_files = SpareFiles()
        self.task_dispatcher = ThreadedTaskDispatcher() if dispatcher is None else dispatcher
        self._rests_until = -inf
        #: Connections that are accepted still when accepting ends; ``None`` before.
        self._last_ones: int | None = None
        self._has_own_socket = _sock is None
        self.socket = self._fileno = None
        self._map = map
        self._event_loop = wasyncore.event_loop_of(map)
        self._make_alerts()
        self.audience = Audience(self, self._event_loop)
        if getattr(adj, "timeline_environ", False):
            self.audience.record(fills_environ=True)
        if getattr(adj, "on_event", None) is not None:
            self.audience.subscribe_events(adj.on_event)
        self.lifecycle = Shutdown(self._event_loop, self.clients, self)
        #: When that was, in seconds on the loop's clock.
        self.made_at = self._event_loop.clock()
        self._monitor_lock = threading.Lock()
        # guarded by _monitor_lock:
        self._monitor: Monitor | None = None

        if getattr(adj, "health_prefix", ""):
            from waitress.status import with_health

            self.channel_class = with_health(self.channel_class, adj.health_prefix, self.monitor)
        self.trigger = trigger.trigger(map)
        try:
            self._open(_sock, map, bind_socket)
            self.effective_host, self.effective_port = self.getsockname()
            self.access_log = _access_log(adj)
            if self.access_log is not None:
                self.subscribe_timelines(self.access_log)
            if _start:
                self.accept_connections()
            if dispatcher is None:
                _watch_requests([self], adj)
                _limit_load([self], adj)
                _start_threads(self.task_dispatcher, adj.threads, [self._address_text()])
        except BaseException as error:
            if dispatcher is None:
                self.task_dispatcher.shutdown()
            self.abandon()
            if isinstance(error, OSError):
                raise self._naming_the_address(error) from error
            raise

    def _whose(self) -> str:
        """Return what a message about its connections begins with, if not the server's."""
        return "status listener: " if self.is_status_listener else ""

    def _make_alerts(self) -> None:
        """Prepare the warnings of what lasts."""
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
        self._alerts = [
            self._limit_alert,
            self._exhaustion_alert,
            watch_spool(loop, self.spool, self.logger),
            watch_queue(loop, self.task_dispatcher),
        ]

    def _default_sockinfo(self, adj: Any) -> tuple[Any, ...]:
        return adj.listen[0]  # type: ignore[no-any-return]

    def _open(self, _sock: Any, map: _Map, bind_socket: bool) -> None:
        super().__init__(_sock, map=map)
        if _sock is None:
            self.create_socket(self.family, self.socktype)
            if self.family == socket.AF_INET6:
                self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 1)
        self.set_reuse_addr()
        if bind_socket:
            self.bind_server_socket()

    def open_status_listeners(self, together: Sequence[BaseWSGIServer], start: bool) -> None:
        """Open the listeners that the setting ``status_listen`` asks for.

        Args:
            together: this listener and those that it shares limits and workers with.
            start: listen at once.

        Raises:
            OSError: an address cannot be bound; it is named.
        """
        from waitress.status import open_status_listeners

        self.monitor.listeners = together
        # First, so that they are closed with this one even when one cannot be opened.
        opened: list[BaseWSGIServer] = []
        self.status_listeners = opened
        open_status_listeners(opened, self.monitor, _class_for, HTTPChannel, start)

    def abandon(self) -> None:
        """Undo the opening; leave nothing behind but a socket that was handed in."""
        self._close_access_log()
        for listener in self.status_listeners:
            listener.abandon()
        self.trigger.close()
        if self._has_own_socket:
            wasyncore.dispatcher.close(self)
        else:
            self.del_channel()

    def _naming_the_address(self, error: OSError) -> OSError:
        message = f"cannot listen on {self._address_text()}: {error.strerror or error}"
        return OSError(error.errno, message) if error.errno else OSError(message)

    def _address_text(self) -> str:
        return address_text(self.sockinfo[3])

    def create_socket(self, family: int = socket.AF_INET, type: int = socket.SOCK_STREAM) -> None:
        """Make a non-blocking socket, for connections to be accepted from."""
        self.family_and_type = family, type
        sock = _Listener(family, type)
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

    # -- any thread ------------------------------------------------------------------

    def is_live(self) -> bool:
        """Say whether the server can be expected to serve.

        False when so many requests are stuck that no thread can be added for another.
        """
        return self.stuck is None or self.stuck.is_live()

    @property
    def monitor(self) -> Monitor:
        """What :meth:`stats` asks; made when it is first wanted."""
        with self._monitor_lock:
            if self._monitor is None:
                # Few are asked; the others need not carry it in memory.
                from waitress.stats import Monitor

                self._monitor = Monitor(self)
            return self._monitor

    def stats(self) -> ServerStats:
        """Return figures about connections, workers, queue, requests and refusals.

        Those of all listeners that :func:`create_server` made together. Ended requests are
        counted from the first call on, or from the start with the setting
        ``status_listen``: it costs some microseconds for each of them.

        Returns:
            A frozen :class:`waitress.stats.ServerStats`, as of now.
        """
        return self.monitor.stats()

    def add_task(self, task: Any) -> None:
        """Queue a task for the workers."""
        self.task_dispatcher.add_task(task)

    def pull_trigger(self) -> None:
        """Wake the loop, where it is not awake already."""
        self.trigger.pull_trigger()

    # -- the loop asks in every pass ---------------------------------------------------

    def readable(self) -> bool:
        """Say whether connections are accepted now; do the upkeep when it is due."""
        now = self._event_loop.wall_clock()
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

        Deadlines do that for channels of ours, and earlier; this sweep is for
        replacements that have none, and for those who order one by hand.

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
                channel.will_close = True

    # -- accepting ---------------------------------------------------------------------

    def accept_connections(self) -> None:
        """Begin to listen."""
        self.accepting = True
        self.socket.listen(self.adj.backlog)
        for listener in self.status_listeners:
            listener.accept_connections()

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
        turns = ACCEPTS_PER_TURN if type(self.socket) in (socket.socket, _Listener) else 1
        for _ in range(turns):
            if (self.clients.is_full and not self._make_room()) or not self._accept_one():
                return

    def _accept_one(self) -> bool:
        """Accept a connection; say whether to try for another."""
        conn = None
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
            elif getattr(channel, "reads_at_once", False) and not _is_wrapped(conn):
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
            derived = self.clients.derived_limit = _derived_connection_limit(int(limit))
            reason = ""
            if derived < limit:
                reason = (
                    ": the system allows no more descriptors; raise its limit, or set "
                    "connection_limit"
                )
            self.logger.info(f"connection limit is {derived}{reason}")
        return derived

    # -- running -----------------------------------------------------------------------

    def run(self) -> None:
        """Serve until the map is empty, or until Ctrl-C or ``SystemExit``, then close.

        Raises:
            RuntimeError: the process is a fork of the one that made the server.
        """
        _refuse_fork(self.task_dispatcher)
        self._audience().log_events_if_wanted()
        self.lifecycle.run(self._loop, self._end_at_once)

    def _loop(self) -> None:
        self.asyncore.loop(
            timeout=self.adj.asyncore_loop_timeout,
            map=self._map,
            use_poll=self.adj.asyncore_use_poll,
        )

    def _end_at_once(self) -> None:
        _close_channels(self._map)
        self.task_dispatcher.shutdown()
        self.close()

    def print_listen(self, format_str: str) -> None:
        """Log the address; the format's fields are host and port."""
        self.log_info(format_str.format(self.effective_host, self.effective_port))

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
        room = max(_descriptors_for_connections(), 1)
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

    def close(self) -> None:
        """Close the listener and the trigger; open connections and workers stay."""
        for listener in self.status_listeners:
            # A page that stays open must not keep the loop running.
            for channel in tuple(listener.clients.channels):
                channel.close()
            listener.close()
        self._event_loop.deadlines.forget(self)
        self._forget_alerts()
        self.spare_files.close()
        self.trigger.close()
        super().close()
        self._close_access_log()

    def _close_access_log(self) -> None:
        """Write what there is; a request that ends even later still has its line."""
        if self.access_log is not None:
            self.access_log.close()

    def _forget_alerts(self) -> None:
        for alert in self._alerts:
            if alert is not None:
                alert.forget()
        # The dispatcher may go on without the server.
        if getattr(self.task_dispatcher, "depth_alert", None) in self._alerts:
            self.task_dispatcher.depth_alert = None


class TcpWSGIServer(BaseWSGIServer):
    """A listener on an IPv4 or IPv6 address."""

    def bind_server_socket(self) -> None:
        """Bind the socket to the resolved address."""
        if getattr(self.adj, "reuse_port", False):
            tcp.share_port(self.socket)
        self.bind(self.sockinfo[3])

    def getsockname(self) -> tuple[str, str]:
        """Return host and port as numeric text; the real port when 0 was asked for."""
        host, port = self.socketmod.getnameinfo(
            self.socket.getsockname(),
            self.socketmod.NI_NUMERICHOST | self.socketmod.NI_NUMERICSERV,
        )
        return host, port

    def set_socket_options(self, conn: Any) -> None:
        """Set the options that ``adj.socket_options`` lists."""
        for level, option, value in self.adj.socket_options:
            conn.setsockopt(level, option, value)


#: The same class under the name that subclasses of old know.
WSGIServer = TcpWSGIServer


if hasattr(socket, "AF_UNIX"):

    class UnixWSGIServer(BaseWSGIServer):
        """A listener on a unix socket."""

        #: Device and inode of the socket file that this server made.
        _made_file: tuple[int, int] | None = None

        def _default_sockinfo(self, adj: Any) -> tuple[Any, ...]:
            return (socket.AF_UNIX, socket.SOCK_STREAM, None, None)

        @property
        def _path(self) -> str:
            # Of ``listen``, or else of the setting for the one unix socket.
            return self.sockinfo[3] or self.adj.unix_socket  # type: ignore[no-any-return]

        def _address_text(self) -> str:
            return f"unix socket {unix_address_text(self._path)}"

        def bind_server_socket(self) -> None:
            """Bind the path, in place of a socket file left by an earlier process."""
            path = self._path
            if path.startswith("\0"):
                # Linux' abstract names are no files.
                self.bind(path)
                return
            if _is_listened_to(path):
                # Two servers by mistake: the first would lose its clients, and not know it.
                raise OSError(errno.EADDRINUSE, "another server listens on it")
            cleanup_unix_socket(path)
            self.bind(path)
            if os.path.exists(path):
                made = os.stat(path)
                self._made_file = made.st_dev, made.st_ino
                os.chmod(path, self.adj.unix_socket_perms)

        def getsockname(self) -> tuple[str, Any]:
            """Return ``"unix"`` and the path, or ``@`` and the abstract name."""
            return "unix", unix_address_text(self.socket.getsockname())

        def fix_addr(self, addr: Any) -> tuple[str, None]:
            """Return what stands for the address of a unix peer."""
            return "localhost", None

        def stop_accepting(self) -> bool:
            """Remove the file first: nobody connects between the last accept and the end."""
            self._remove_file()
            return super().stop_accepting()

        def close(self) -> None:
            """Close the listener and the trigger, and remove the socket file."""
            super().close()
            self._remove_file()

        def abandon(self) -> None:
            """Undo the opening; leave nothing behind but a socket that was handed in."""
            super().abandon()
            self._remove_file()

        def _remove_file(self) -> None:
            """Remove the file, if it is still the one that this server made."""
            made, self._made_file = self._made_file, None
            if made is not None:
                with contextlib.suppress(OSError):
                    found = os.stat(self._path)
                    if made == (found.st_dev, found.st_ino):
                        os.unlink(self._path)


def _access_log(adj: Any) -> AccessLog | None:
    """Return the access log that the settings, or else the logger's own handlers, ask for.

    An empty text asks for none; the settings of a status listener have it.
    """
    target = getattr(adj, "access_log", None)
    if target is None:
        logger = logging.getLogger("waitress.access")
        if not (logger.handlers and logger.isEnabledFor(logging.INFO)):
            return None
    elif not target:
        return None
    # Not in memory where there is none.
    from waitress.access_log import AccessLog
    from waitress.access_sink import LOGGING

    return AccessLog(target or LOGGING, getattr(adj, "access_log_format", "combined"))


def _is_wrapped(conn: Any) -> bool:
    """Say whether somebody stands between the socket and the system, for TLS as a rule.

    Where there is nothing to read, it may say so in words of its own.
    """
    return isinstance(conn, socket.socket) and type(conn) is not socket.socket


def _spool_limit(adj: Any) -> int:
    limit = getattr(adj, "spool_limit", None)
    if limit is None:
        return default_spool_limit(getattr(adj, "spool_dir", None))
    return int(limit)


def _listens(sock: Any) -> bool:
    """Say whether a socket listens; where that cannot be asked, it does."""
    option = getattr(socket, "SO_ACCEPTCONN", None)
    if option is None or not isinstance(sock, socket.socket):
        return True
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, option))
    except OSError:
        return False


def _is_listened_to(path: str) -> bool:
    """Say whether a server, and not only the file that one left, is behind a unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # So many wait there already.
            return True
        except OSError:
            return False
    return True


def _refuse_fork(dispatcher: Any) -> None:
    """Raise where the threads of a dispatcher stayed behind in another process.

    Requests would be accepted, and never answered. A stand-in's threads are its own affair.
    """
    made_in = getattr(dispatcher, "process_id", None)
    if made_in is not None and made_in != os.getpid():
        raise RuntimeError(
            f"the server was made in another process ({made_in}), whose threads no fork takes "
            "along: fork first, then make the server"
        )


def _close_channels(map: _Map | None) -> None:
    """Close the connections of a loop that has ended.

    Nobody sends for them any more; a worker that waits for its reader would wait in vain.
    """
    for obj in list((map or {}).values()):
        if isinstance(obj, HTTPChannel):
            obj.close()


def _derived_connection_limit(highest: int) -> int:
    """Return the connection limit that nobody set: what the system has room for."""
    limits = [highest, _descriptors_for_connections()]
    watchable = descriptor_limit(select)
    if watchable is not None:
        limits.append(watchable - RESERVED_DESCRIPTORS)
    return max(min(limits), 1)


def _descriptors_for_connections() -> int:
    """Return how many descriptors more connections may have, so that others have some."""
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return int(soft - _open_descriptors()) * 3 // 4
    return sys.maxsize


def _open_descriptors() -> int:
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0
