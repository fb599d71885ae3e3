"""Servers: one for each kind of address, and one of several.

:func:`create_server` is the door of the library: it opens a server for each address that
the settings name. What servers of all kinds have in common stands in ``base_server``; how
they accept connections, in ``listener``; how their loop is run, in ``running``.

Row 10: imports adjustments, base_server, bind_names, channel, clients, compat, eventloop,
proxy_headers, running, shutdown, task, tcp, trigger, utilities and wasyncore; for a type,
stats.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import time
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from waitress import tcp, trigger, wasyncore
from waitress.adjustments import Adjustments
from waitress.base_server import BaseWSGIServer, limit_load, start_threads, watch_stuck
from waitress.bind_names import Inherited, open_inherited, unix_address_text
from waitress.channel import HTTPChannel
from waitress.clients import Clients
from waitress.compat import IPPROTO_IPV6, IPV6_V6ONLY
from waitress.eventloop import snapshot
from waitress.proxy_headers import proxy_headers_middleware
from waitress.running import Running, close_channels
from waitress.shutdown import Shutdown
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import cleanup_unix_socket

if TYPE_CHECKING:
    from waitress.stats import ServerStats

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

_Map = MutableMapping[int, Any]


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
            servers[0].open_status_listeners(_class_for, servers, _start)
        for server in servers[1:]:
            # What is limited is limited for all of them together.
            server.clients = servers[0].clients
            server.spool = servers[0].spool
            server.rejects.counts = servers[0].rejects.counts
            server.lifecycle = servers[0].lifecycle
            server.lifecycle.listeners.append(server)
            servers[0]._audience().take_in(server)
        stuck = watch_stuck(servers, adj)
        limit_load(servers, adj)
        if _dispatcher is None:
            start_threads(dispatcher, adj.threads, [server._address_text() for server in servers])
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


class MultiSocketServer(Running):
    """Several listeners in one map, run and closed together."""

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

    @property
    def _socket_map(self) -> _Map | None:
        return self.map

    def _end_at_once(self) -> None:
        close_channels(self.map)
        self.close()

    def close(self) -> None:
        """End the workers and close everything in the map."""
        self.task_dispatcher.shutdown()
        wasyncore.close_all(self.map)


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
            reason = _why_not_ours(path)
            if reason is not None:
                # Two servers by mistake: the first would lose its clients, and not know it.
                raise OSError(errno.EADDRINUSE, reason)
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


def _why_not_ours(path: str) -> str | None:
    """Return why a unix socket must not be replaced; ``None`` for what a dead server left."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except BlockingIOError:  # So many wait there already.
            pass
        except PermissionError:
            return "it is another user's, whose server may listen on it"
        except OSError:
            return None
    return "another server listens on it"
