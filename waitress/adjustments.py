"""The server's settings as one object: converted, checked, resolved.

Settings become an :class:`Adjustments` in three steps: *convert* (text or value to the
setting's type), *check* (pure: each value alone, then values together), *resolve* (names
to addresses and directories: the only step that asks the system).

What the steps are made of stands in modules of its own, from ``converters`` up to
``listen_addresses``; the names that have always been found here are still found here.

A setting is read as an attribute of whatever settings object a part of the server was
given. That may be an object of the user's own with the older names only, so a setting
that came with this line of releases is read with a fallback.

Row 8: imports ``bind_names``, ``command_line``, ``compat``, ``converters``,
``listen_addresses``, ``settings``, ``settings_schema`` and ``validation``.
"""

from __future__ import annotations

import importlib
import os
import socket
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from waitress.bind_names import ListenAddress
from waitress.command_line import (
    AppResolutionError,
    only_app,
    read_options,
    resolve_wsgi_app,
    setting_options,
)
from waitress.compat import HAS_IPV6, WIN
from waitress.converters import (
    as_access_log_format,
    as_callable,
    as_socket_list,
    as_trusted_proxy,
    asbool,
    aslist,
    aslist_cronly,
    asoctal,
    asseconds,
    asset,
    int_ifgiven,
    slash_fixed_str,
    str_iftruthy,
    truthy,
)
from waitress.listen_addresses import resolve_listen, resolve_status_listen
from waitress.proxy_headers import PROXY_HEADERS
from waitress.settings import KNOWN_PROXY_HEADERS, SETTING_OF, SETTINGS
from waitress.settings_schema import Check, Section, Setting, _int_marker, _str_marker
from waitress.validation import (
    check_combination,
    check_drain_delay,
    check_proxy_trust,
    check_range,
    check_reuse_port,
    check_setting,
    check_sockets,
    check_stuck,
    converted,
    refusal,
)

__all__ = [
    "KNOWN_PROXY_HEADERS",
    "PROXY_HEADERS",
    "SETTINGS",
    "Adjustments",
    "AppResolutionError",
    "Check",
    "Section",
    "Setting",
    "as_access_log_format",
    "as_callable",
    "as_socket_list",
    "as_trusted_proxy",
    "asbool",
    "aslist",
    "aslist_cronly",
    "asoctal",
    "asseconds",
    "asset",
    "check_setting",
    "int_ifgiven",
    "read_options",
    "resolve_wsgi_app",
    "setting_options",
    "slash_fixed_str",
    "str_iftruthy",
    "truthy",
]


def __getattr__(name: str) -> Any:
    """Return a module that was always to be found here, and is rarely needed."""
    if name in ("getopt", "pkgutil"):
        return importlib.import_module(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


# The order of ``Adjustments._params`` is interface, and older than the order in which the
# help tells of the settings. Newer settings follow in the table's order.
_PARAMS_ORDER = """
    host port ipv4 ipv6 listen threads trusted_proxy trusted_proxy_count trusted_proxy_headers
    log_untrusted_proxy_headers clear_untrusted_proxy_headers url_scheme url_prefix backlog
    recv_bytes send_bytes outbuf_overflow outbuf_high_watermark inbuf_overflow connection_limit
    cleanup_interval channel_timeout log_socket_errors max_request_header_size
    max_request_body_size expose_tracebacks ident asyncore_loop_timeout asyncore_use_poll
    unix_socket unix_socket_perms sockets channel_request_lookahead server_name
""".split()  # noqa: SIM905  (a list literal of the same words would be 40 lines)


def _all_params() -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    names = dict.fromkeys([*_PARAMS_ORDER, *SETTING_OF])
    return tuple((name, SETTING_OF[name].converter) for name in names)


#: Defaults that an instance has as well: CPython finds what an instance has in a fifth of
#: the time that what its class has takes.
_READ_FOR_EACH_REQUEST = (
    "channel_request_lookahead",
    "channel_timeout",
    "ident",
    "max_request_body_size",
    "max_request_header_fields",
    "max_request_header_size",
    "outbuf_high_watermark",
    "outbuf_overflow",
    "recv_bytes",
    "url_prefix",
    "url_scheme",
)


class Adjustments:
    """The settings of one server, each an attribute.

    The class attributes are the defaults; construction sets attributes of the instance
    only. Attributes may be set from outside at any time, under any name.

    Args:
        kw: settings by name, as native values or as text; see :data:`waitress.settings.SETTINGS`.

    Raises:
        ValueError: a setting is unknown, has a value that is not allowed, contradicts
            another, or names an address or directory that does not exist.
        TypeError: a value is of a kind that the setting cannot be made from.

    Threads: constructed by any; read by all; whoever sets an attribute while the server
    runs sets it to a whole new value.
    """

    _params = _all_params()
    _param_map = dict(_params)

    host: str
    port: int
    ipv4: bool
    ipv6: bool
    #: After construction: the addresses to bind, as tuples of family, type, protocol and
    #: address, in the order in which they were named and resolved.
    listen: list[ListenAddress]
    threads: int
    access_log: str | None
    access_log_format: str
    trusted_proxy: str | None
    trusted_proxy_count: int
    trusted_proxy_headers: set[str]
    proxy_protocol: bool
    log_untrusted_proxy_headers: bool
    clear_untrusted_proxy_headers: bool
    url_scheme: str
    url_prefix: str
    backlog: int
    reuse_port: bool
    recv_bytes: int
    send_bytes: int
    outbuf_overflow: int
    outbuf_high_watermark: int
    inbuf_overflow: int
    spool_dir: str | None
    spool_limit: int | None
    #: An ``_int_marker`` where it was not given: the server then derives its own.
    connection_limit: int
    max_buffered_bytes: int
    queue_limit: int
    queue_timeout: int | float
    fair_queue: bool
    connection_limit_per_ip: int
    cleanup_interval: int | float
    channel_timeout: int | float
    header_timeout: int | float
    body_timeout: int | float
    body_min_rate: int | float
    send_timeout: int | float
    linger_timeout: int | float
    graceful_timeout: int | float
    drain_delay: int | float
    handle_signals: bool
    stuck_request_seconds: int | float
    replace_stuck_threads: int
    kill_stuck_seconds: int | float
    recent_requests: int
    log_socket_errors: bool
    max_request_header_size: int
    max_request_header_fields: int
    max_request_body_size: int
    require_host: bool
    expose_tracebacks: bool
    timeline_environ: bool
    ident: str | None
    switch_interval: int | float
    asyncore_loop_timeout: int | float
    asyncore_use_poll: bool
    unix_socket: str | None
    unix_socket_perms: int
    #: After construction: the addresses of the status listener, in the form of ``listen``;
    #: that of a Unix socket is its path.
    status_listen: list[ListenAddress]
    status_public: bool
    status_hosts: set[str]
    health_prefix: str
    sockets: list[socket.socket]
    on_event: Callable[[Any], object] | None
    channel_request_lookahead: int
    server_name: str

    #: Options set on each accepted TCP connection: level, option, value. No parameter, but
    #: an attribute that may be assigned.
    socket_options: list[tuple[int, int, int]] = [(socket.SOL_TCP, socket.TCP_NODELAY, 1)]

    def __init__(self, **kw: Any) -> None:
        for name in _READ_FOR_EACH_REQUEST:
            setattr(self, name, getattr(self, name))
        check_combination(kw)
        if "send_bytes" in kw:
            warnings.warn(
                "send_bytes will be removed in a future release", DeprecationWarning, stacklevel=2
            )
        self._convert(kw)
        self._check_values(kw)
        check_proxy_trust(self, kw)
        check_stuck(self)
        check_drain_delay(self)
        self.check_sockets(self.sockets)
        self._resolve()
        check_reuse_port(self)

    # Convert.

    def _convert(self, kw: Mapping[str, Any]) -> None:
        for name, value in kw.items():
            if name not in self._param_map:
                raise ValueError(f"Unknown adjustment {name!r}")
            setattr(self, name, converted(name, self._param_map[name], value))
        # Nobody who changes a list of an instance changes the default of the others.
        self.socket_options = list(self.socket_options)
        self.sockets = list(self.sockets)

    # Check: no I/O.

    def _check_values(self, kw: Mapping[str, Any]) -> None:
        for name, value in kw.items():
            if name in SETTING_OF:
                check_range(SETTING_OF[name], value, getattr(self, name))
        if not self.ipv4 and not HAS_IPV6:
            raise ValueError(
                "IPv4 is disabled but IPv6 is not available. Cowardly refusing to start."
            )

    @classmethod
    def check_sockets(cls, sockets: Sequence[Any]) -> None:
        """Check that ready-made sockets are of kinds that can be served together.

        Raises:
            ValueError: Internet and Unix sockets are mixed, or one is neither, or one is
                no stream socket.
        """
        check_sockets(sockets)

    # Resolve: asks the system.

    def _resolve(self) -> None:
        option, items = self._listen_items()
        family = self._family()
        self.listen = resolve_listen(option, items, self.port, family, WIN)
        self.status_listen = resolve_status_listen(
            self.status_listen, family, WIN, self.status_public
        )
        if self.spool_dir is not None and not _can_make_files_in(self.spool_dir):
            raise ValueError(refusal("Cannot use this directory", "spool_dir", self.spool_dir))

    def _listen_items(self) -> tuple[str, list[Any]]:
        """Tell which option names the addresses, and the texts that name them."""
        if isinstance(self.host, _str_marker) and isinstance(self.port, _int_marker):
            return "listen", self.listen
        return "host and port", [f"{self.host}:{self.port}"]

    def _family(self) -> socket.AddressFamily:
        if self.ipv4 and not self.ipv6:
            return socket.AF_INET
        if self.ipv6 and not self.ipv4 and HAS_IPV6:
            return socket.AF_INET6
        return socket.AF_UNSPEC

    # The command line.

    @classmethod
    def parse_args(cls, argv: Sequence[str]) -> dict[str, Any]:
        """Read the command line's options and resolve the application it names.

        Args:
            argv: the arguments, without the program's name.

        Returns:
            The settings given, by name and as text; ``"help"``, whether help is asked
            for; ``"app"``, the application, or ``None`` with help.

        Raises:
            getopt.GetoptError: an option is unknown, or has or lacks a value.
            AppResolutionError: not exactly one application is named, or it is not found.
            Exception: whatever the application's module raises while it is imported, or
                its factory while it is called.
        """
        meanings = setting_options(cls._params)
        meanings.update(help=("help", "true"), call=("call", "true"), app=("app", None))
        given = read_options(argv, meanings)
        kw: dict[str, Any] = {"help": given.pop("help", None) == "true", "app": None}
        call = given.pop("call", None) == "true"
        app_name = given.pop("app", None)
        if not kw["help"]:
            kw["app"] = resolve_wsgi_app(only_app(app_name), call)
        return {**kw, **given}


for _setting in SETTINGS:
    setattr(Adjustments, _setting.name, _setting.default)
del _setting


def _can_make_files_in(directory: str) -> bool:
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)
