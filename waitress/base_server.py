"""What the connections of one listener have in common, and with those of others.

Owns the wiring: settings, application, task dispatcher, trigger, budget of temporary
files, set of clients, observers.

Row 9: imports adjustments, alerts, audience, channel, clients, listener, observer, peers,
proxy_headers, rejects, running, shutdown, spare_files, spool, task, trigger, utilities and
wasyncore; access_log, access_sink, memory_limit, queue_limits, stats, status and stuck where they
are wanted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, MutableMapping, Sequence
from typing import TYPE_CHECKING, Any

from waitress import trigger, wasyncore
from waitress.adjustments import Adjustments
from waitress.alerts import watch_queue, watch_spool
from waitress.audience import Audience
from waitress.channel import HTTPChannel
from waitress.clients import Clients
from waitress.listener import Listener
from waitress.observer import Observer
from waitress.peers import TrustedPeers
from waitress.proxy_headers import proxy_headers_middleware
from waitress.rejects import Rejects
from waitress.running import Running, close_channels
from waitress.shutdown import Shutdown
from waitress.spare_files import SpareFiles
from waitress.spool import SpoolBudget, default_spool_limit
from waitress.task import ThreadedTaskDispatcher
from waitress.utilities import is_method_of

if TYPE_CHECKING:
    from waitress.access_log import AccessLog
    from waitress.stats import Monitor, ServerStats

__all__ = ["BaseWSGIServer", "limit_load", "start_threads", "watch_stuck"]

_Map = MutableMapping[int, Any]


class BaseWSGIServer(Running, Listener):
    """One listener, and all that is behind it: settings, application, workers.

    Threads: loop, but for ``add_task``, ``pull_trigger`` and ``shutdown`` (any), and
    ``close`` and ``handle_close``, which users call from any thread to end the server.
    """

    channel_class = HTTPChannel
    #: Shows what this one does; none by default.
    status_listeners: Sequence[BaseWSGIServer] = ()
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
        self._has_own_socket = _sock is None
        self.socket = self._fileno = None
        self._map = map
        self._event_loop = wasyncore.event_loop_of(map)
        self._make_alerts()
        if isinstance(self.task_dispatcher, ThreadedTaskDispatcher):
            self._event_loop.join_pool(self, self.task_dispatcher)
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
                watch_stuck([self], adj)
                limit_load([self], adj)
                start_threads(self.task_dispatcher, adj.threads, [self._address_text()])
        except BaseException as error:
            if dispatcher is None:
                self.task_dispatcher.shutdown()
            self.abandon()
            if isinstance(error, OSError):
                raise self._naming_the_address(error) from error
            raise

    def _make_alerts(self) -> None:
        """Prepare the warnings of what lasts."""
        self._make_accept_alerts()
        loop = self._event_loop
        self._alerts = [
            self._limit_alert,
            self._exhaustion_alert,
            watch_spool(loop, self.spool, self.logger),
            watch_queue(loop, self.task_dispatcher),
        ]

    def _default_sockinfo(self, adj: Any) -> tuple[Any, ...]:
        return adj.listen[0]  # type: ignore[no-any-return]

    def open_status_listeners(
        self,
        class_of: Callable[[int], type[BaseWSGIServer]],
        together: Sequence[BaseWSGIServer],
        start: bool,
    ) -> None:
        """Open the listeners that the setting ``status_listen`` asks for.

        Args:
            class_of: returns the class of listeners of an address family.
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
        open_status_listeners(opened, self.monitor, class_of, HTTPChannel, start)

    def abandon(self) -> None:
        """Undo the opening; leave nothing behind but a socket that was handed in."""
        self._close_access_log()
        self._event_loop.leave_pool(self)
        for listener in self.status_listeners:
            listener.abandon()
        self.trigger.close()
        if self._has_own_socket:
            wasyncore.dispatcher.close(self)
        else:
            self.del_channel()

    # -- any thread ------------------------------------------------------------------

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

    def add_gathered(self, tasks: Iterable[Any]) -> bool:
        """Queue several tasks at once; nothing, and false, where ``add_task`` is somebody's own."""
        if not is_method_of(self, self.add_task, _add_task):
            return False
        dispatcher = self.task_dispatcher
        # Asked of its class: what stands before another dispatcher may pass on all else.
        knows_how = hasattr(type(dispatcher), "add_gathered")
        return knows_how and dispatcher.add_gathered(tasks)

    def pull_trigger(self) -> None:
        """Wake the loop, where it is not awake already."""
        self.trigger.pull_trigger()

    # -- running -----------------------------------------------------------------------

    def accept_connections(self) -> None:
        """Begin to listen."""
        super().accept_connections()
        for listener in self.status_listeners:
            listener.accept_connections()

    @property
    def _socket_map(self) -> _Map | None:
        return self._map

    def _end_at_once(self) -> None:
        close_channels(self._map)
        self.task_dispatcher.shutdown()
        self.close()

    def print_listen(self, format_str: str) -> None:
        """Log the address; the format's fields are host and port."""
        self.log_info(format_str.format(self.effective_host, self.effective_port))

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
        self._event_loop.leave_pool(self)
        if getattr(self.task_dispatcher, "depth_alert", None) in self._alerts:
            self.task_dispatcher.depth_alert = None


_add_task = BaseWSGIServer.add_task


def watch_stuck(servers: list[BaseWSGIServer], adj: Any) -> Any:
    """Have requests that run for too long found, where that is wanted; return who does."""
    if not getattr(adj, "stuck_request_seconds", 0):
        return None
    # Few ask for it; the others need not carry it in memory.
    from waitress.stuck import watch_requests

    return watch_requests(servers, adj)


def limit_load(servers: list[BaseWSGIServer], adj: Any) -> None:
    """Have the queue and the buffers limited, where that is wanted."""
    if any(getattr(adj, name, 0) for name in ("queue_limit", "queue_timeout", "fair_queue")):
        from waitress.queue_limits import limit_queue

        limit_queue(servers, adj)
    if getattr(adj, "max_buffered_bytes", 0):
        from waitress.memory_limit import limit_memory

        limit_memory(servers, adj)


def start_threads(dispatcher: Any, count: int, addresses: list[str]) -> None:
    """Start the workers.

    Raises:
        RuntimeError: the system refuses a thread; the addresses are named.
    """
    try:
        dispatcher.set_thread_count(count)
    except RuntimeError as error:
        raise RuntimeError(
            f"cannot start {count} threads for {', '.join(addresses)}: {error}"
        ) from error


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


def _spool_limit(adj: Any) -> int:
    limit = getattr(adj, "spool_limit", None)
    if limit is None:
        return default_spool_limit(getattr(adj, "spool_dir", None))
    return int(limit)
