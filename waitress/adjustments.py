"""The server's settings: declared, converted, checked, resolved.

Owns :data:`SETTINGS`, the one table in which a setting is declared. From it come the
attributes and defaults of :class:`Adjustments`, the options and the help of the command
line, and the reference in the documentation. Knows nothing of what the settings do.

Settings become an :class:`Adjustments` in three steps: *convert* (text or value to the
setting's type), *check* (pure: each value alone, then values together), *resolve* (names
to addresses and directories: the only step that asks the system).

A setting is read as an attribute of whatever settings object a part of the server was
given. That may be an object of the user's own with the older names only, so a setting
that came with this line of releases is read with a fallback.

Row 3: imports ``bind_names``, ``compat``, ``peers``, the header names of
``proxy_headers``, and ``access_format`` when a format without a name is given.
"""

from __future__ import annotations

import enum
import getopt
import ipaddress
import os
import pkgutil
import socket
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from waitress import bind_names
from waitress.bind_names import Inherited, ListenAddress, ServiceNameError
from waitress.compat import HAS_IPV6, MAXINT, WIN
from waitress.peers import TrustedPeers, split_trusted
from waitress.proxy_headers import PROXY_HEADERS

__all__ = [
    "KNOWN_PROXY_HEADERS",
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

#: The texts, in lower case, that switch a boolean setting on.
truthy: frozenset[str] = frozenset({"t", "true", "y", "yes", "on", "1"})

#: What ``trusted_proxy_headers`` may name: the proxy headers as they stand on the wire,
#: in lower case.
KNOWN_PROXY_HEADERS: frozenset[str] = frozenset(
    header.lower().replace("_", "-") for header in PROXY_HEADERS
)


class _str_marker(str):
    """A text default that can be told from the same text given by the user."""


class _int_marker(int):
    """A number default that can be told from the same number given by the user."""


class AppResolutionError(Exception):
    """No application was named, or the named one cannot be found or imported."""


# Converters: what the user gave, native or text, to the setting's type.


def asbool(s: Any) -> bool:
    """Read a boolean: a text of :data:`truthy` is true, any other false."""
    if s is None:
        return False
    if isinstance(s, bool):
        return s
    return str(s).strip().lower() in truthy


def asoctal(s: str) -> int:
    """Read a number in base 8 from text (``"600"`` or ``"0o600"``).

    Raises:
        TypeError: ``s`` is not text. A number is refused on purpose: 600 may be meant
            as it stands or as its digits.
        ValueError: the text is not an octal number.
    """
    return int(s, 8)


def asseconds(value: Any) -> int | float:
    """Read a length of time in seconds, whole or fractional.

    Raises:
        ValueError: the text is not a number.
        TypeError: neither text nor a number.
    """
    if isinstance(value, str):
        try:
            return int(value)
        except ValueError as not_whole:
            try:
                return float(value)
            except ValueError:
                raise not_whole from None
    number = float(value)
    return int(number) if number.is_integer() else number


def int_ifgiven(value: Any) -> int | None:
    """Read a whole number; ``None`` and blank text mean that there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return int(value)


def aslist_cronly(value: str | Iterable[str]) -> list[str]:
    """Split text into its lines, stripped and without the empty ones; list anything else."""
    if isinstance(value, str):
        return [line for line in map(str.strip, value.splitlines()) if line]
    return list(value)


def aslist(value: str | Iterable[str]) -> list[str]:
    """Split text, or each text of an iterable, at white space."""
    return [word for line in aslist_cronly(value) for word in line.split()]


def asset(value: str | Iterable[str]) -> set[str]:
    """Split as :func:`aslist` does; drop the repetitions."""
    return set(aslist(value))


def slash_fixed_str(s: str) -> str:
    """Give a path prefix exactly one slash in front and none behind; leave ``""`` empty."""
    s = s.strip()
    if not s:
        return ""
    return "/" + s.lstrip("/").rstrip("/")


def str_iftruthy(s: Any) -> str | None:
    """Read text; whatever is empty or false means that there is none."""
    return str(s) if s else None


def as_trusted_proxy(value: Any) -> str | None:
    """Read the peers to trust; return them between blanks, or ``None`` where there is none.

    Raises:
        ValueError: see :class:`waitress.peers.TrustedPeers`.
    """
    words = split_trusted(value)
    TrustedPeers(words)
    return " ".join(words) or None


def as_access_log_format(value: Any) -> str:
    """Read the format of access log lines; return it as it is.

    Raises:
        ValueError: see :func:`waitress.access_format.make_format`.
    """
    text = str(value)
    if text not in _NAMED_FORMATS:
        # Most are content with one that has a name, and need not carry this in memory.
        from waitress.access_format import make_format

        make_format(text)
    return text


def as_callable(value: Any) -> Any:
    """Take what can be called; ``None`` means that there is nothing to call.

    Raises:
        ValueError: it cannot be called, as no text can.
    """
    if value is not None and not callable(value):
        raise ValueError("not callable")
    return value


def as_socket_list(sockets: Iterable[Any]) -> list[socket.socket]:
    """List the sockets of an iterable in their order; drop what is no socket."""
    return [sock for sock in sockets if isinstance(sock, socket.socket)]


# The declaration of a setting.


class Section(enum.Enum):
    """Where the help and the manual show a setting; the value is the heading."""

    STANDARD = "Standard options"
    TUNING = "Tuning options"
    #: Settings whose values only a Python program can pass.
    PYTHON = "Python only"


@dataclass(frozen=True)
class Check:
    """What a setting's converted value may be.

    Args:
        text: what is allowed, as error messages and the manual say it.
        accepts: whether a value is allowed; pure.
    """

    text: str
    accepts: Callable[[Any], bool]


def _anything(value: Any) -> bool:
    return True


@dataclass(frozen=True)
class Setting:
    """One setting, declared.

    Args:
        name: the keyword and attribute; with hyphens, the option.
        converter: makes the value from text or from a native value.
        default: the value where none is given.
        metavar: what stands for the value in the help; empty for a flag.
        help: one paragraph: what it does, what special values mean, what it works with.
        check: what a given value may be.
        unit: of a number, in the plural (``"bytes"``); otherwise empty.
        section: where help and manual show it.
        default_note: what holds by default where :attr:`default` does not tell it.
    """

    name: str
    converter: Callable[[Any], Any]
    default: Any
    metavar: str
    help: str
    check: Check = Check("any text", _anything)
    unit: str = ""
    section: Section = Section.STANDARD
    default_note: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value and has a ``--no-`` form."""
        return self.converter is asbool

    @property
    def option(self) -> str:
        """The option as the help shows it: ``--port=PORT``, ``--[no-]ipv4``."""
        name = self.name.replace("_", "-")
        return f"--[no-]{name}" if self.is_flag else f"--{name}={self.metavar}"

    @property
    def default_text(self) -> str:
        """The default in words, with its unit; never empty."""
        if self.default_note:
            return self.default_note
        if self.converter is asbool:
            return "on" if self.default else "off"
        if self.converter is asoctal:
            return format(self.default, "03o")
        if not self.default and not isinstance(self.default, int):
            return "none"
        if isinstance(self.default, list):
            return " ".join(self.default)
        unit = self.unit.removesuffix("s") if self.default == 1 else self.unit
        return f"{self.default} {unit}".rstrip()


#: The longest time that the system's poll takes: milliseconds in a signed 32-bit number.
_LONGEST_POLL_SECONDS = 2_147_483

#: The most that ``listen()`` and ``recv()`` take: a signed 32-bit number.
_LARGEST_C_INT = 2**31 - 1

_NAMED_FORMATS = ("common", "combined", "json")

_ADDRESSES = Check(
    f"one or more of {bind_names.ALLOWED}, between blanks; ports from 0 to 65535",
    bool,
)

_HEADER_VALUE = Check(
    "visible characters and blanks of Latin-1, or empty",
    lambda value: value is None or (value.isprintable() and max(value) < "\u0100"),
)


def _whole(lowest: int, highest: int = MAXINT) -> Check:
    limit = f"{lowest} or more" if highest == MAXINT else f"{lowest} to {highest}"
    return Check(f"a whole number, {limit}", lambda value: lowest <= value <= highest)


# The kinds of settings that come several times.


def _flag(name: str, default: bool, help: str, section: Section = Section.TUNING) -> Setting:
    check = Check("true or false", _anything)
    return Setting(name, asbool, default, "", help, check, section=section)


def _count(
    name: str,
    default: int,
    unit: str,
    help: str,
    lowest: int = 0,
    highest: int = MAXINT,
    default_note: str = "",
) -> Setting:
    check = _whole(lowest, highest)
    return Setting(name, int, default, "INT", help, check, unit, Section.TUNING, default_note)


def _size(name: str, default: int, help: str, lowest: int = 0, highest: int = MAXINT) -> Setting:
    check = _whole(lowest, highest)
    return Setting(name, int, default, "BYTES", help, check, "bytes", Section.TUNING)


def _time(
    name: str, default: float, help: str, zero: str = "no limit", longest: int = MAXINT
) -> Setting:
    limit = "or more" if longest == MAXINT else f"to {longest}"
    check = Check(
        f"a number of seconds, 0 {limit} (0: {zero})",
        # An infinity is too large, and a NaN compares with nothing.
        lambda value: 0 <= value <= longest,
    )
    return Setting(name, asseconds, default, "SECONDS", help, check, "seconds", Section.TUNING)


#: Every setting, in the order in which help and manual tell of them.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "host",
        str,
        _str_marker("0.0.0.0"),
        "ADDR",
        "Host name or IP address to listen on; an asterisk means every interface, on IPv4 and on "
        "IPv6. Not together with listen, sockets or unix_socket.",
        check=Check("a host name, an IP address or *", _anything),
    ),
    Setting(
        "port",
        int,
        _int_marker(8080),
        "PORT",
        "TCP port to listen on; with 0 the system picks a free one, which the server's "
        "effective_port tells. Not together with listen, sockets or unix_socket.",
        check=_whole(0, 65535),
    ),
    Setting(
        "listen",
        aslist,
        ["0.0.0.0:8080"],
        "HOST:PORT",
        "Address to listen on: a host name, IPv4 address, IPv6 address in brackets, or an "
        "asterisk for every interface, then a colon and a port. Several addresses stand between "
        "blanks; the option may also be repeated. Without a port, that of port is used. Or "
        "unix:PATH, a Unix socket; unix:@NAME, one without a file (Linux); fd://3, an inherited "
        "descriptor; systemd, all descriptors that systemd has passed on, or systemd:NAME.",
        check=_ADDRESSES,
    ),
    Setting(
        "server_name",
        str,
        "waitress.invalid",
        "NAME",
        "The SERVER_NAME that applications see. It names the server where a request has no Host "
        "header; it is never guessed from the machine's name.",
    ),
    _flag(
        "ipv4",
        True,
        "Listen on the IPv4 addresses of the hosts named.",
        section=Section.STANDARD,
    ),
    _flag(
        "ipv6",
        True,
        "Listen on the IPv6 addresses of the hosts named.",
        section=Section.STANDARD,
    ),
    Setting(
        "unix_socket",
        str,
        None,
        "PATH",
        "Path of a Unix socket to listen on, instead of a host and a port. A socket that an "
        "earlier run has left there is replaced. Not together with host, port, listen or sockets.",
    ),
    Setting(
        "unix_socket_perms",
        asoctal,
        0o600,
        "PERMS",
        "Access permissions of the Unix socket, in octal digits: 600 lets only the server's own "
        "user connect, 660 also its group. In Python the digits are given as text.",
        check=Check('octal digits as text, such as "600"', lambda value: 0 <= value <= 0o7777),
    ),
    Setting(
        "url_scheme",
        str,
        "http",
        "SCHEME",
        "The wsgi.url_scheme that applications see. Set it to https where everything comes "
        "through a proxy that speaks HTTPS and does not say so itself.",
    ),
    Setting(
        "url_prefix",
        slash_fixed_str,
        "",
        "PATH",
        "The SCRIPT_NAME that applications see. Where a request's path begins with it, it is "
        "taken off PATH_INFO.",
    ),
    Setting(
        "ident",
        str_iftruthy,
        "waitress",
        "NAME",
        "How the server names itself in the Server header of responses. Empty: no such header is "
        "sent.",
        check=_HEADER_VALUE,
    ),
    Setting(
        "trusted_proxy",
        as_trusted_proxy,
        None,
        "IP",
        "IP address of the proxy whose headers (those of trusted_proxy_headers) may change what "
        "applications see of client, host and scheme. Several addresses, and ranges of them such "
        "as 10.0.0.0/8, stand between blanks or commas. An asterisk trusts every peer; localhost "
        "stands for the peer at a Unix socket.",
        check=Check(
            "IP addresses and CIDR ranges, between blanks or commas; *; localhost", _anything
        ),
    ),
    Setting(
        "trusted_proxy_count",
        int,
        None,
        "INT",
        "How many proxies, one behind the other, add to the proxy headers before a request "
        "arrives: that many values, counted from the last one, are trusted. Needs trusted_proxy.",
        check=_whole(1),
        unit="proxies",
        default_note="1 proxy",
    ),
    Setting(
        "trusted_proxy_headers",
        asset,
        set(),
        "LIST",
        "Proxy headers, between blanks, that the trusted proxy sets or removes on every request: "
        "some of x-forwarded-for, x-forwarded-host, x-forwarded-proto, x-forwarded-port and "
        "x-forwarded-by, or else forwarded alone. Needs trusted_proxy. A header that the proxy "
        "passes on from clients must not be named.",
        check=Check(", ".join(sorted(KNOWN_PROXY_HEADERS)), _anything),
    ),
    _flag(
        "proxy_protocol",
        False,
        "Expect every connection of trusted_proxy, and of nobody else, to begin with a header of "
        "the PROXY protocol, version 1 or 2, which tells who the client is; a connection that "
        "begins otherwise is closed without an answer. Needs trusted_proxy. Which headers are "
        "trusted is then decided by the client's address, not by the proxy's.",
        section=Section.STANDARD,
    ),
    _flag(
        "log_untrusted_proxy_headers",
        False,
        "Log a warning when proxy headers are removed because their sender, or they themselves, "
        "are not trusted.",
        section=Section.STANDARD,
    ),
    _flag(
        "clear_untrusted_proxy_headers",
        True,
        "Remove proxy headers that are not trusted, so that no application can be taken in by "
        "them.",
        section=Section.STANDARD,
    ),
    Setting(
        "access_log",
        str_iftruthy,
        None,
        "FILE",
        "Where to write a line for each request: a file, which is appended to, or - for the "
        "standard output, or logging: for the logger waitress.access. Lines that the place does "
        "not take in time are lost, and counted; requests never wait for it. waitress-serve opens "
        "the file anew on SIGHUP. Unset, the logger is used if it has a handler of its own and is "
        "enabled for INFO when the server is made.",
        check=Check("a path, -, or logging:", _anything),
    ),
    Setting(
        "access_log_format",
        as_access_log_format,
        "combined",
        "FORMAT",
        "What a line of the access log looks like: common, combined, json, or a text with atoms "
        'such as %(h)s "%(r)s" %(s)s %(D)s.',
        check=Check("common, combined, json, or a text with atoms such as %(h)s", _anything),
    ),
    _count(
        "threads",
        4,
        "threads",
        "Worker threads, each of which runs one request of the application at a time. They do not "
        "wait for clients, so their number follows the application alone.",
        lowest=1,
    ),
    _count(
        "backlog",
        1024,
        "connections",
        "Connections that the system keeps for the server until it accepts them. The system may "
        "set a lower limit of its own.",
        highest=_LARGEST_C_INT,
    ),
    _flag(
        "reuse_port",
        False,
        "Let other processes of the same user listen on the same addresses (SO_REUSEPORT). Linux "
        "spreads connections over them; elsewhere that is up to the system, and Windows has no "
        "such thing. For Internet addresses that the server binds itself. Nobody is told any more "
        "when it is started twice by mistake.",
    ),
    _size(
        "recv_bytes",
        8192,
        "The most that is read from a connection at once.",
        lowest=1,
        highest=_LARGEST_C_INT,
    ),
    _size(
        "send_bytes",
        1,
        "Deprecated. Once the number of bytes that had to be waiting before any were sent; "
        "responses are sent as soon as there is something to send.",
    ),
    _size(
        "outbuf_overflow",
        1048576,
        "How much of a response may wait in memory for a slow client; what goes beyond waits in a "
        "temporary file (see spool_dir).",
    ),
    _size(
        "outbuf_high_watermark",
        16777216,
        "How much of a response may always wait for a slow client, in memory and in a temporary "
        "file together. What goes beyond needs room under spool_limit; where there is none the "
        "application pauses until the client has read enough.",
    ),
    _size(
        "inbuf_overflow",
        524288,
        "How much of a request's body is kept in memory; a larger body goes to a temporary file "
        "(see spool_dir).",
    ),
    Setting(
        "spool_dir",
        str_iftruthy,
        None,
        "DIR",
        "Directory for temporary files that hold large request bodies, and responses that wait "
        "for slow clients.",
        check=Check("an existing directory in which this process may make files", _anything),
        section=Section.TUNING,
        default_note="the system's directory for temporary files",
    ),
    Setting(
        "spool_limit",
        int_ifgiven,
        None,
        "BYTES",
        "How many bytes all temporary files together may hold, those of requests and of "
        "responses. When it is spent a request body is refused (507), and a response waits or the "
        "client that has stalled longest is cut. 0: nothing beyond outbuf_high_watermark. Up to "
        "outbuf_high_watermark each connection may always put on the disk, so that all of them "
        "together may take that times connection_limit.",
        check=Check(
            "a whole number, 0 or more, or nothing",
            lambda value: value is None or 0 <= value <= MAXINT,
        ),
        unit="bytes",
        section=Section.TUNING,
        default_note="a quarter of the space free at start, at most 8 GiB",
    ),
    _count(
        "connection_limit",
        _int_marker(1000),
        "connections",
        "How many clients may be connected at once. At the limit connections that are idle make "
        "room for new ones; where none is, new ones wait in the backlog. A client that sends a "
        "body, however slowly within body_min_rate, is not idle; connection_limit_per_ip bounds "
        "what one client can hold in this way.",
        lowest=1,
        default_note="1000 connections, or fewer where file descriptors are few",
    ),
    _size(
        "max_buffered_bytes",
        0,
        "How much all connections together may hold in memory, of requests and of responses. "
        "Above it nothing is read from clients until a quarter of it has gone; what has been "
        "received is served and sent. 0: no limit, but for those of each connection "
        "(inbuf_overflow and outbuf_overflow, times connection_limit).",
    ),
    _count(
        "queue_limit",
        0,
        "requests",
        "How many requests may wait for a thread. For one more, the one that has waited longest "
        "is answered 503 by the loop, without a thread; its connection stays open. 0: no limit.",
        default_note="0 (no limit)",
    ),
    _time(
        "queue_timeout",
        0,
        "How long a request may wait for a thread; then it is answered 503 by the loop, and "
        "never runs. Somewhat less than the time after which clients give up.",
    ),
    _flag(
        "fair_queue",
        False,
        "Serve the clients that have requests waiting in turn, one request of each, rather than "
        "all requests in the order of their arrival. A client is an IPv4 address, or an IPv6 "
        "network of 64 bits; those behind a proxy are one, unless it speaks proxy_protocol.",
    ),
    _count(
        "connection_limit_per_ip",
        0,
        "connections",
        "How many connections there may be at once from one IPv4 address, or from one IPv6 "
        "network of 64 bits; further ones are answered 503 and closed. Peers that trusted_proxy "
        "names are not limited, but with proxy_protocol their clients are. 0: no limit.",
        default_note="0 (no limit)",
    ),
    _time(
        "cleanup_interval",
        30,
        "Time between two rounds of upkeep, which closes connections that are idle for longer "
        "than channel_timeout.",
        zero="at every turn of the loop",
    ),
    _time(
        "channel_timeout",
        120,
        "How long a connection may be silent while the server waits for its client. No time "
        "counts in which it is the client that waits.",
    ),
    _time(
        "header_timeout",
        30,
        "How long the head of a request may take, from its first byte to its last; a later one is "
        "answered 408.",
    ),
    _time(
        "body_timeout",
        60,
        "How long the body of a request may stand still before it is answered 408.",
    ),
    Setting(
        "body_min_rate",
        asseconds,
        240,
        "BYTES",
        "The rate at which the body of a request must arrive at least, on average and after its "
        "first 30 seconds; a slower one is answered 408.",
        check=Check(
            "a number of bytes per second, 0 or more (0: no limit)",
            lambda value: 0 <= value <= MAXINT,
        ),
        unit="bytes/second",
        section=Section.TUNING,
    ),
    _time(
        "send_timeout",
        120,
        "How long a client may take none of the response that waits for it before its connection "
        "is cut. A client that reads slowly, but reads, is never cut.",
    ),
    _time(
        "linger_timeout",
        30,
        "How long the server reads on, and throws away, after it has refused a request that is "
        "still arriving, so that the client gets to read the answer.",
        zero="close at once",
    ),
    _time(
        "graceful_timeout",
        25,
        "How long a server that was told to stop goes on for the requests that it has received; "
        "what has not ended by then is cut. It counts from the order to stop, drain_delay "
        "included.",
        zero="cut at once",
    ),
    _time(
        "drain_delay",
        0,
        "How long a server that was told to stop still accepts connections, while its responses "
        "ask the clients to leave: as long as a load balancer takes to notice, and less than "
        "graceful_timeout.",
        zero="stop accepting at once",
    ),
    _flag(
        "handle_signals",
        True,
        "Stop in order on SIGTERM, Ctrl-C and, on Windows, Ctrl-Break, where the program has no "
        "handlers of its own for them.",
    ),
    _count(
        "channel_request_lookahead",
        0,
        "requests",
        "How many requests a connection may send ahead while one of its requests runs. With 1 or "
        "more the server goes on reading, and so notices when the client of a running request "
        "goes away: applications can ask waitress.client_disconnected().",
    ),
    _time(
        "stuck_request_seconds",
        0,
        "From which age on a request that a thread serves is logged, with its peer and the stack "
        "of its thread, and again each time its age has doubled.",
        zero="never",
    ),
    _count(
        "replace_stuck_threads",
        0,
        "threads",
        "How many threads there may be more than threads says, one for each request that "
        "stuck_request_seconds has found; one goes when such a request ends. 0: none.",
        default_note="0 (none)",
    ),
    _time(
        "kill_stuck_seconds",
        0,
        "At which age a request that stuck_request_seconds has found is ended by an exception "
        "that is raised in its thread, anywhere in the application's code: the last resort. It "
        "cannot end what waits outside of Python.",
        zero="never",
    ),
    _count(
        "recent_requests",
        0,
        "requests",
        "How many of the requests that ended last are kept to be told in the log on SIGUSR1, which "
        "waitress-serve answers with the stacks of all threads. 0: none.",
        highest=100_000,
        default_note="0 (none)",
    ),
    _flag(
        "log_socket_errors",
        True,
        "Log errors of client connections with their tracebacks. Clients that simply leave are no "
        "errors.",
    ),
    _size(
        "max_request_header_size",
        262144,
        "The size that the head of a request must stay below; a larger one is answered 431.",
        lowest=1,
    ),
    _count(
        "max_request_header_fields",
        200,
        "fields",
        "How many header fields a request may have; more are answered 431.",
        lowest=1,
    ),
    _size(
        "max_request_body_size",
        1073741824,
        "The size that the body of a request must stay below; a larger one is answered 413.",
        lowest=1,
    ),
    _flag(
        "require_host",
        True,
        "Refuse HTTP/1.1 requests that have no Host header (400), as the standard demands. Switch "
        "it off for a health checker that sends none.",
    ),
    _flag(
        "expose_tracebacks",
        False,
        "Show the traceback of an application's uncaught exception to the client, in the 500 "
        "response. For development only.",
    ),
    _flag(
        "timeline_environ",
        False,
        "Give applications two more environ keys: waitress.timeline, which holds the instants of "
        "the request's life as far as they have come, and waitress.request_id, its number.",
    ),
    _time(
        "switch_interval",
        0.001,
        "How long a thread that computes may keep the interpreter while others wait for it; "
        "sys.setswitchinterval() is called with it while serve() runs, unless somebody has chosen "
        "an interval before.",
        zero="leave it to Python, which has 5 ms",
        longest=1,
    ),
    _time(
        "asyncore_loop_timeout",
        1,
        "The longest time the loop sleeps when nothing happens; it may be fractional.",
        zero="never sleep",
        longest=_LONGEST_POLL_SECONDS,
    ),
    _flag(
        "asyncore_use_poll",
        False,
        "Watch sockets by other means than select(). Without it, too, the best that the platform "
        "offers is used; the setting is kept for those who have it in their configuration.",
    ),
    Setting(
        "status_listen",
        str_iftruthy,
        None,
        "HOST:PORT",
        "Address of the status listener, which shows what the server does: a page at /, "
        "/metrics, /status.json, /threads, /livez and /readyz. As in listen, or unix:PATH for a "
        "Unix socket with the permissions of unix_socket_perms. Where other machines can reach "
        "it, status_public must be set.",
        check=Check("HOST:PORT, [IPv6]:PORT, *:PORT or unix:PATH", _anything),
        section=Section.STANDARD,
        default_note="none: no status listener",
    ),
    _flag(
        "status_public",
        False,
        "Let status_listen be an address that other machines can reach. Whoever can connect to "
        "it sees paths, addresses of clients and lines of source code.",
        section=Section.STANDARD,
    ),
    Setting(
        "status_hosts",
        asset,
        set(),
        "LIST",
        "Host names, between blanks, by which the status listener may be asked, besides IP "
        "addresses and localhost. Other names are answered 421, so that no page of another site "
        "can read the answers through a browser.",
        check=Check("host names, between blanks", _anything),
        section=Section.STANDARD,
    ),
    Setting(
        "health_prefix",
        slash_fixed_str,
        "",
        "PATH",
        "Where to answer health checks on the server's own addresses: with /- there are /-/livez "
        "and /-/readyz. They wait for no worker, and hide what the application has at these "
        "paths. Neither the access log nor the figures of requests tell of them.",
        section=Section.STANDARD,
        default_note="none: no health checks",
    ),
    Setting(
        "sockets",
        as_socket_list,
        [],
        "SOCKETS",
        "Sockets to accept on, bound by the caller: stream sockets, either all of the Internet "
        "families or all Unix ones. What is no socket is ignored. Not together with host, port, "
        "listen or unix_socket.",
        check=Check("a list of bound stream sockets", _anything),
        section=Section.PYTHON,
    ),
    Setting(
        "on_event",
        as_callable,
        None,
        "CALLABLE",
        "Called with an object of waitress.events for each event in the life of connections and "
        "requests, in the thread in which it happens; it must not block. What it raises, "
        "SystemExit too, is logged once and harms nothing.",
        check=Check("a callable", _anything),
        section=Section.PYTHON,
    ),
)

_SETTING_OF: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}

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
    names = dict.fromkeys([*_PARAMS_ORDER, *_SETTING_OF])
    return tuple((name, _SETTING_OF[name].converter) for name in names)


#: Defaults that an instance has as well: CPython finds what an instance has in a fifth of
#: the time that what its class has takes.
_READ_FOR_EACH_REQUEST = (
    "channel_request_lookahead",
    "channel_timeout",
    "ident",
    "max_request_body_size",
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
        kw: settings by name, as native values or as text; see :data:`SETTINGS`.

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
        _check_combination(kw)
        if "send_bytes" in kw:
            warnings.warn(
                "send_bytes will be removed in a future release", DeprecationWarning, stacklevel=2
            )
        self._convert(kw)
        self._check_values(kw)
        self._check_proxy_trust(kw)
        self._check_stuck()
        self._check_drain_delay()
        self.check_sockets(self.sockets)
        self._resolve()
        self._check_reuse_port()

    # Convert.

    def _convert(self, kw: Mapping[str, Any]) -> None:
        for name, value in kw.items():
            if name not in self._param_map:
                raise ValueError(f"Unknown adjustment {name!r}")
            setattr(self, name, _converted(name, self._param_map[name], value))
        # Nobody who changes a list of an instance changes the default of the others.
        self.socket_options = list(self.socket_options)
        self.sockets = list(self.sockets)

    # Check: no I/O.

    def _check_values(self, kw: Mapping[str, Any]) -> None:
        for name, value in kw.items():
            if name in _SETTING_OF:
                _check_range(_SETTING_OF[name], value, getattr(self, name))
        if not self.ipv4 and not HAS_IPV6:
            raise ValueError(
                "IPv4 is disabled but IPv6 is not available. Cowardly refusing to start."
            )

    def _check_proxy_trust(self, kw: Mapping[str, Any]) -> None:
        if self.trusted_proxy is None:
            if "trusted_proxy_count" in kw:
                raise ValueError("trusted_proxy_count has no meaning without setting trusted_proxy")
            if self.trusted_proxy_headers:
                raise ValueError(
                    "trusted_proxy_headers has no meaning without setting trusted_proxy"
                )
            if self.proxy_protocol:
                raise ValueError("proxy_protocol has no meaning without setting trusted_proxy")
        # The default of the class is None: "not given", to those who read it there.
        self.trusted_proxy_count = self.trusted_proxy_count or 1
        self.trusted_proxy_headers = _checked_proxy_headers(self.trusted_proxy_headers)
        # With the PROXY protocol, peers may be trusted for the sake of that alone.
        is_for_headers = self.trusted_proxy is not None and not self.proxy_protocol
        if is_for_headers and not self.trusted_proxy_headers:
            warnings.warn(
                "No proxy headers were marked as trusted, but trusted_proxy was set. "
                "Implicitly trusting X-Forwarded-Proto for backwards compatibility. "
                "This will be removed in future versions of waitress.",
                DeprecationWarning,
                stacklevel=3,
            )
            self.trusted_proxy_headers = {"x-forwarded-proto"}

    def _check_stuck(self) -> None:
        if not self.stuck_request_seconds:
            for name in ("replace_stuck_threads", "kill_stuck_seconds"):
                if getattr(self, name):
                    raise ValueError(f"{name} has no meaning without setting stuck_request_seconds")

    def _check_drain_delay(self) -> None:
        if self.drain_delay and self.drain_delay >= self.graceful_timeout:
            raise ValueError(
                "No time is left after drain_delay for what is in flight (drain_delay="
                f"{self.drain_delay:g}; allowed: less than graceful_timeout, "
                f"{self.graceful_timeout:g}, which includes it)"
            )

    def _check_reuse_port(self) -> None:
        if not self.reuse_port:
            return
        if not hasattr(socket, "SO_REUSEPORT"):
            raise ValueError(
                "This system has no SO_REUSEPORT (reuse_port=True; allowed: false; several "
                "processes can share one inherited socket instead)"
            )
        internet = (socket.AF_INET, socket.AF_INET6)
        is_bound_elsewhere = bool(self.unix_socket or self.sockets)
        if is_bound_elsewhere or not any(address[0] in internet for address in self.listen):
            raise ValueError(
                "There is no Internet address for the server to bind (reuse_port=True; allowed: "
                "false, or a host and port in listen)"
            )

    @classmethod
    def check_sockets(cls, sockets: Sequence[Any]) -> None:
        """Check that ready-made sockets are of kinds that can be served together.

        Raises:
            ValueError: Internet and Unix sockets are mixed, or one is neither, or one is
                no stream socket.
        """
        internet = {socket.AF_INET, socket.AF_INET6}
        unix = {getattr(socket, "AF_UNIX", None)}
        families = {sock.family for sock in sockets}
        told = ", ".join(f"{_name(sock.family)} {_name(sock.type)}" for sock in sockets)
        if families & internet and families & unix:
            raise ValueError(f"Internet and UNIX sockets may not be mixed. (sockets: {told})")
        if families - internet - unix or any(sock.type != socket.SOCK_STREAM for sock in sockets):
            raise ValueError(f"Only Internet or UNIX stream sockets may be used. (sockets: {told})")

    # Resolve: asks the system.

    def _resolve(self) -> None:
        self.listen = self._resolve_listen()
        self.status_listen = self._resolve_status_listen(self.status_listen)
        if self.spool_dir is not None and not _can_make_files_in(self.spool_dir):
            raise ValueError(_refusal("Cannot use this directory", "spool_dir", self.spool_dir))

    def _resolve_listen(self) -> list[ListenAddress]:
        option, items = self._listen_items()
        # A host may be called like the beginning of another kind of name.
        read = bind_names.resolve if option == "listen" else bind_names.internet_addresses
        family = self._family()
        addresses: list[ListenAddress] = []
        seen = set()
        for item in items:
            try:
                found = list(read(item, self.port, family, WIN))
            # All that a strange host or port makes the parsing, the host name's encoding
            # and the resolver raise; the texts are those of the causes.
            except (OSError, ValueError) as exc:
                raise ValueError(_unresolved(option, item, exc)) from exc
            for address in found:
                key = _sameness(address)
                if key in seen:
                    continue
                seen.add(key)
                addresses.append(address)
        return addresses

    def _resolve_status_listen(self, item: Any) -> list[ListenAddress]:
        if not (item and item.strip()):
            return []
        try:
            if ":" not in item.rpartition("]")[2]:
                raise ValueError("the port is missing")
            found = bind_names.resolve(item, 0, self._family(), WIN)
            if any(isinstance(each[3], Inherited) for each in found):
                raise ValueError("inherited descriptors are for listen")
        except (OSError, ValueError) as exc:
            raise ValueError(
                _refusal(f"Cannot listen there: {exc}", "status_listen", item)
            ) from exc
        is_private = (isinstance(each[3], str) or _is_loopback(each[3][0]) for each in found)
        if not self.status_public and not all(is_private):
            raise ValueError(
                _refusal(
                    "Other machines could see paths, addresses and stacks; set status_public if "
                    "they shall, or listen on a loopback address or a Unix socket",
                    "status_listen",
                    item,
                )
            )
        return found

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
            kw["app"] = resolve_wsgi_app(_named(app_name), call)
        return {**kw, **given}


for _setting in SETTINGS:
    setattr(Adjustments, _setting.name, _setting.default)
del _setting


#: What a long option gives: the name of a setting, and the text that a flag stands for.
Meanings = dict[str, tuple[str, str | None]]


def setting_options(params: Iterable[tuple[str, Callable[[Any], Any]]]) -> Meanings:
    """Map each long option to its setting, and a flag to the text it stands for."""
    options: Meanings = {}
    for name, converter in params:
        option = name.replace("_", "-")
        if converter is asbool:
            options[option] = (name, "true")
            options[f"no-{option}"] = (name, "false")
        else:
            options[option] = (name, None)
    return options


def read_options(argv: Sequence[str], meanings: Meanings) -> dict[str, str]:
    """Read the words of a command line.

    Args:
        argv: the words, without the program's name.
        meanings: of the options.

    Returns:
        The values by name, as text. What follows the options is the application's name,
        ``"app"``.

    Raises:
        getopt.GetoptError: an option is unknown, or has or lacks a value.
        AppResolutionError: more than one application is named.
    """
    # In the notation of getopt "=" demands a value.
    options = [f"{option}=" if flag is None else option for option, (_, flag) in meanings.items()]
    found, names = getopt.getopt(list(argv), "", options)
    given: dict[str, str] = {}
    for option, value in found:
        name, flag = meanings[option[2:]]
        if name == "listen":
            given[name] = f"{given.get(name, '')} {value}"
        else:
            given[name] = value if flag is None else flag
    if "app" in given:
        names.insert(0, given["app"])
    if len(names) > 1 and "help" not in given:
        raise AppResolutionError("Provide only one WSGI app")
    if names:
        given["app"] = names[0]
    return given


def _named(app_name: str | None) -> str:
    if app_name is None:
        raise AppResolutionError("Specify an application")
    return app_name


def resolve_wsgi_app(app_name: str, call: bool = False) -> Any:
    """Find an application by its name, importing what is needed.

    Args:
        app_name: ``package.module:object.attribute``, or all with dots as
            :func:`pkgutil.resolve_name` reads it.
        call: the name is that of a factory: call it, and take what it returns.

    Raises:
        AppResolutionError: the name is malformed, or there is nothing of that name.
        Exception: any other that the module raises while it is imported, and all that
            the factory raises.
    """
    try:
        app = pkgutil.resolve_name(app_name)
    except (ValueError, ImportError, AttributeError) as exc:
        raise AppResolutionError(f"Cannot import WSGI application '{app_name}': {exc}") from exc
    return app() if call else app


# What the steps are made of.


def _check_combination(given: Iterable[str]) -> None:
    """Refuse settings that contradict each other by being there, whatever their values."""
    names = set(given)
    host_or_port = names & {"host", "port"}
    if "listen" in names and host_or_port:
        raise ValueError("host or port may not be set if listen is set.")
    if "listen" in names and "sockets" in names:
        raise ValueError("socket may not be set if listen is set.")
    if "sockets" in names and host_or_port:
        raise ValueError("host or port may not be set if sockets is set.")
    if "sockets" in names and "unix_socket" in names:
        raise ValueError("unix_socket may not be set if sockets is set")
    if "unix_socket" in names and host_or_port:
        raise ValueError("unix_socket may not be set if host or port is set")
    if "unix_socket" in names and "listen" in names:
        raise ValueError("unix_socket may not be set if listen is set")


def _converted(name: str, converter: Callable[[Any], Any], value: Any) -> Any:
    try:
        return converter(value)
    except (ValueError, OverflowError) as exc:
        raise ValueError(_refusal(str(exc), name, value)) from exc
    except (TypeError, AttributeError) as exc:
        raise TypeError(_refusal(str(exc), name, value)) from exc


def _check_range(setting: Setting, value: Any, converted: Any) -> None:
    if not setting.check.accepts(converted):
        raise ValueError(_refusal(f"Invalid value for {setting.name}", setting.name, value))


def check_setting(setting: Setting, value: Any) -> Any:
    """Convert and check one value, without regard to others and without asking the system.

    Returns:
        The converted value.

    Raises:
        ValueError, TypeError: as :class:`Adjustments` does, with the same text.
    """
    converted = _converted(setting.name, setting.converter, value)
    _check_range(setting, value, converted)
    return converted


def _refusal(reason: str, name: str, value: Any) -> str:
    """Tell why a value is refused: the reason, the option, the value, what is allowed."""
    setting = _SETTING_OF.get(name)
    allowed = f"; allowed: {setting.check.text}" if setting is not None else ""
    return f"{reason} ({name}={value!r}{allowed})"


def _checked_proxy_headers(headers: Iterable[str]) -> set[str]:
    trusted = {header.lower() for header in headers}
    unknown = trusted - KNOWN_PROXY_HEADERS
    if unknown:
        raise ValueError(
            f"Received unknown trusted_proxy_headers value ({', '.join(sorted(unknown))}) "
            f"expected one of {', '.join(sorted(KNOWN_PROXY_HEADERS))}"
        )
    if "forwarded" in trusted and len(trusted) > 1:
        raise ValueError(
            "The Forwarded proxy header and the X-Forwarded-{By,Host,Proto,Port,For} headers "
            "are mutually exclusive. Can't trust both!"
        )
    return trusted


def _name(number: int) -> str:
    """Name a family or type of a socket, which may be a number unknown to Python."""
    return str(getattr(number, "name", number))


def _can_make_files_in(directory: str) -> bool:
    return os.path.isdir(directory) and os.access(directory, os.W_OK | os.X_OK)


def _sameness(address: ListenAddress) -> Any:
    """Return what is equal for addresses that cannot both be listened to."""
    bound = address[3]
    if isinstance(bound, (str, Inherited)):
        return bound
    # The same address may be found again with the name of an interface. A port that the
    # system picks is another one each time.
    return (str(bound[0]).split("%", 1)[0], bound[1]) if bound[1] else object()


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _unresolved(option: str, item: str, exc: Exception) -> str:
    if isinstance(exc, ServiceNameError):
        return f"{exc} ({option}={item!r})"
    return (
        f"Invalid host/port specified. ({option}={item!r}: {exc}; allowed: {_ADDRESSES.text}, "
        "of a family that ipv4 and ipv6 leave on)"
    )
