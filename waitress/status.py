"""The answers of the status listener.

Owns what stands at each of its paths, and who may ask. The loop gives the answers by
itself (:mod:`waitress.loop_answers`), so that they come while all workers are stuck; the
application has no part in it.

What is told may hold what others must not see: paths, addresses, source lines. So a
request whose Host is a name that nobody has allowed is refused: a page of a hostile site
can make a browser connect to this address under its own name (DNS rebinding), but not
under another.

Row 7: imports answers, health, loop_answers, metrics, prometheus, stats, status_page and
thread_dump.
"""

from __future__ import annotations

import copy
import ipaddress
import json
import os
import platform
from collections.abc import Callable, Iterable
from dataclasses import asdict
from math import inf
from typing import Any

from waitress import prometheus, status_page
from waitress.answers import NO_SNIFF, NO_STORE, TEXT, Answer, method_refusal, text_answer
from waitress.health import Health
from waitress.loop_answers import answering, answering_at
from waitress.metrics import HistogramSnapshot
from waitress.stats import Monitor
from waitress.thread_dump import thread_dump

__all__ = ["CONNECTION_LIMIT", "StatusAnswers", "open_status_listeners", "with_health"]

#: Connections to the status listener at once; they count in no figure of the server's.
CONNECTION_LIMIT = 50
#: A question comes in one piece. Connections are few: whoever keeps one without asking loses it
#: after a quarter of this time where another wants it, and then in any case.
_MOST_HEADER_SECONDS = 4
#: A question has no body worth keeping.
_MOST_BODY_BYTES = 65536
#: Answers stay in memory: the loop shall not wait for a disk.
_MOST_ANSWER_BYTES = 64 * 1024 * 1024

_SECURITY = (
    NO_STORE,
    NO_SNIFF,
    ("Referrer-Policy", "no-referrer"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("X-Frame-Options", "DENY"),
)


def open_status_listeners(
    listeners: list[Any],
    monitor: Monitor,
    class_of: Callable[[int], Any],
    channel_class: Any,
    start: bool,
) -> None:
    """Open a listener at each address that the setting names.

    Args:
        listeners: takes them, one by one, so that the caller has them when one fails.
        monitor: looks at the server.
        class_of: returns the class of listeners of an address family.
        channel_class: that of connections, which learns to answer here.
        start: listen at once.

    Raises:
        OSError: an address cannot be bound; it is named.
    """
    listener = monitor.listener
    adj = listener.adj
    answers = StatusAnswers(monitor, adj.status_hosts)
    own_channel_class = answering(channel_class, lambda request: True, answers.respond)
    for family, socktype, proto, address in adj.status_listen:
        own = class_of(family)(
            None,
            listener._map,
            False,
            dispatcher=listener.task_dispatcher,
            adj=_own_adjustments(adj, address if isinstance(address, str) else None),
            sockinfo=(family, socktype, proto, address),
        )
        if listeners:
            own.clients = listeners[0].clients
        own.channel_class = own_channel_class
        own.is_status_listener = True
        listeners.append(own)
        if start:
            own.accept_connections()


def _own_adjustments(adj: Any, unix_socket: str | None) -> Any:
    """Return the settings of a status listener: those of the server, but for what differs."""
    own = copy.copy(adj)
    own.unix_socket = unix_socket
    own.connection_limit = CONNECTION_LIMIT
    own.connection_limit_per_ip = 0
    own.header_timeout = min(getattr(adj, "header_timeout", 0) or inf, _MOST_HEADER_SECONDS)
    own.proxy_protocol = False
    # Whoever asks shall know which process answers.
    own.reuse_port = False
    own.channel_request_lookahead = 0
    own.max_request_body_size = _MOST_BODY_BYTES
    own.outbuf_overflow = own.outbuf_high_watermark = _MOST_ANSWER_BYTES
    own.spool_limit = 0
    own.status_listen = ()
    # Whoever watches the server does not watch its watchers.
    own.on_event = None
    own.access_log = ""
    own.timeline_environ = False
    return own


def with_health(channel_class: Any, prefix: str, monitor: Monitor) -> Any:
    """Return the channel class with ``/livez`` and ``/readyz`` below a path prefix.

    They tell nothing that others must not see, so that no Host is too strange for them.
    """
    health = Health(monitor)
    prefix = prefix.rstrip("/")
    return answering_at(
        channel_class, {f"{prefix}/livez": health.livez, f"{prefix}/readyz": health.readyz}
    )


class StatusAnswers:
    """What the status listener answers.

    Threads: loop.
    """

    def __init__(self, monitor: Monitor, hosts: Iterable[str]) -> None:
        """Answer for one server.

        Args:
            monitor: looks at the server; measuring begins.
            hosts: names under which the listener may be asked, besides addresses.
        """
        self._monitor = monitor
        monitor.measure()
        self._health = Health(monitor)
        self._hosts = {"localhost", *(host.lower() for host in hosts)}
        self._answers: dict[str, Callable[[Any], Answer]] = {
            "/": self._page,
            "/livez": self._health.livez,
            "/readyz": self._health.readyz,
            "/metrics": self._metrics,
            "/status.json": self._status,
            "/threads": self._threads,
        }

    def respond(self, request: Any) -> Answer:
        """Answer a request."""
        if not self._allows(request):
            return text_answer(
                "421 Misdirected Request",
                "Not a name of the status listener's: ask it by an IP address, as localhost, "
                "or by a name of the setting status_hosts.\n",
            )
        refusal = method_refusal(request)
        if refusal is not None:
            return refusal
        answer = self._answers.get(request.path)
        if answer is None:
            paths = "".join(f"{path}\n" for path in self._answers)
            return text_answer("404 Not Found", f"There are:\n{paths}")
        return answer(request)

    def _allows(self, request: Any) -> bool:
        host = request.headers.get("HOST")
        if not host:
            # Only HTTP/1.0 can come without one; no browser speaks that.
            return bool(request.version == "1.0")
        name = _host_name(host)
        return name in self._hosts or _is_address(name)

    def _page(self, _request: Any) -> Answer:
        headers = (
            ("Content-Type", "text/html; charset=utf-8"),
            ("Content-Security-Policy", status_page.content_security_policy()),
            *_SECURITY,
        )
        return Answer("200 OK", headers, status_page.page())

    def _metrics(self, _request: Any) -> Answer:
        text = prometheus.exposition(self._monitor.stats())
        headers = (("Content-Type", prometheus.CONTENT_TYPE), *_SECURITY)
        return Answer("200 OK", headers, text.encode("utf-8"))

    def _threads(self, _request: Any) -> Answer:
        text = thread_dump(self._monitor.activity.workers())
        headers = (TEXT, *_SECURITY)
        # Source lines may hold what is no character.
        return Answer("200 OK", headers, text.encode("utf-8", "backslashreplace"))

    def _status(self, _request: Any) -> Answer:
        headers = (("Content-Type", "application/json"), *_SECURITY)
        return Answer("200 OK", headers, json.dumps(self._told()).encode("ascii"))

    def _told(self) -> dict[str, Any]:
        activity = self._monitor.activity
        stats = self._monitor.stats()
        requests = stats.requests
        told = asdict(stats)
        for name in ("queue_wait", "application", "duration"):
            told["requests"][name].update(_quantiles(getattr(requests, name)))
        failures, obstacles = self._health.failures(), self._health.obstacles()
        return {
            "server": self._server_facts(),
            "live": not failures,
            "ready": not obstacles,
            "problems": obstacles,
            "stats": told,
            "workers": [asdict(worker) for worker in activity.workers()],
            "queued": [asdict(request) for request in activity.queued()],
        }

    def _server_facts(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "python": platform.python_version(),
            "listen": [
                _address_text(each.effective_host, each.effective_port)
                for each in self._monitor.listeners
            ],
        }


def _quantiles(histogram: HistogramSnapshot) -> dict[str, Any]:
    return {
        "count": histogram.count,
        **{f"p{part}": histogram.quantile(part / 100) for part in (50, 90, 99)},
    }


def _address_text(host: Any, port: Any) -> str:
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"


def _host_name(host: str) -> str:
    """Return the host of a Host field, in lower case, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0].lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
