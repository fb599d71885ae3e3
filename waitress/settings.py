"""The table of the settings: each declared once, and nowhere else.

Owns :data:`SETTINGS`. From it come the attributes and defaults of
:class:`waitress.adjustments.Adjustments`, the options and the help of the command line,
and the reference in the documentation. Knows nothing of what the settings do.

Row 5: imports ``bind_names``, ``compat``, ``converters``, ``settings_schema`` and the
header names of ``proxy_headers``.
"""

from __future__ import annotations

from waitress import bind_names
from waitress.compat import MAXINT
from waitress.converters import (
    as_access_log_format,
    as_callable,
    as_socket_list,
    as_trusted_proxy,
    aslist,
    asoctal,
    asseconds,
    asset,
    int_ifgiven,
    slash_fixed_str,
    str_iftruthy,
)
from waitress.proxy_headers import PROXY_HEADERS
from waitress.settings_schema import (
    Check,
    Section,
    Setting,
    _int_marker,
    _str_marker,
    anything,
    count,
    duration,
    flag,
    size,
    whole_number,
)

__all__ = ["KNOWN_PROXY_HEADERS", "SETTINGS", "SETTING_OF"]

#: What ``trusted_proxy_headers`` may name: the proxy headers as they stand on the wire,
#: in lower case.
KNOWN_PROXY_HEADERS: frozenset[str] = frozenset(
    header.lower().replace("_", "-") for header in PROXY_HEADERS
)

#: The longest time that the system's poll takes: milliseconds in a signed 32-bit number.
_LONGEST_POLL_SECONDS = 2_147_483

#: The most that ``listen()`` and ``recv()`` take: a signed 32-bit number.
_LARGEST_C_INT = 2**31 - 1

_ADDRESSES = Check(
    f"one or more of {bind_names.ALLOWED}, between blanks; ports from 0 to 65535",
    bool,
)

_HEADER_VALUE = Check(
    "visible characters and blanks of Latin-1, or empty",
    lambda value: value is None or (value.isprintable() and max(value) < "\u0100"),
)


#: Every setting, in the order in which help and manual tell of them.
SETTINGS: tuple[Setting, ...] = (
    Setting(
        "host",
        str,
        _str_marker("0.0.0.0"),
        "ADDR",
        "Host name or IP address to listen on; an asterisk means every interface, on IPv4 and on "
        "IPv6. Not together with listen, sockets or unix_socket.",
        check=Check("a host name, an IP address or *", anything),
    ),
    Setting(
        "port",
        int,
        _int_marker(8080),
        "PORT",
        "TCP port to listen on; with 0 the system picks a free one, which the server's "
        "effective_port tells. Not together with listen, sockets or unix_socket.",
        check=whole_number(0, 65535),
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
    flag(
        "ipv4",
        True,
        "Listen on the IPv4 addresses of the hosts named.",
        section=Section.STANDARD,
    ),
    flag(
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
            "IP addresses and CIDR ranges, between blanks or commas; *; localhost", anything
        ),
    ),
    Setting(
        "trusted_proxy_count",
        int,
        None,
        "INT",
        "How many proxies, one behind the other, add to the proxy headers before a request "
        "arrives: that many values, counted from the last one, are trusted. Needs trusted_proxy.",
        check=whole_number(1),
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
        check=Check(", ".join(sorted(KNOWN_PROXY_HEADERS)), anything),
    ),
    flag(
        "proxy_protocol",
        False,
        "Expect every connection of trusted_proxy, and of nobody else, to begin with a header of "
        "the PROXY protocol, version 1 or 2, which tells who the client is; a connection that "
        "begins otherwise is closed without an answer. Needs trusted_proxy. Which headers are "
        "trusted is then decided by the client's address, not by the proxy's.",
        section=Section.STANDARD,
    ),
    flag(
        "log_untrusted_proxy_headers",
        False,
        "Log a warning when proxy headers are removed because their sender, or they themselves, "
        "are not trusted.",
        section=Section.STANDARD,
    ),
    flag(
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
        check=Check("a path, -, or logging:", anything),
    ),
    Setting(
        "access_log_format",
        as_access_log_format,
        "combined",
        "FORMAT",
        "What a line of the access log looks like: common, combined, json, or a text with atoms "
        'such as %(h)s "%(r)s" %(s)s %(D)s.',
        check=Check("common, combined, json, or a text with atoms such as %(h)s", anything),
    ),
    count(
        "threads",
        4,
        "threads",
        "Worker threads, each of which runs one request of the application at a time. They do not "
        "wait for clients, so their number follows the application alone.",
        lowest=1,
    ),
    count(
        "backlog",
        1024,
        "connections",
        "Connections that the system keeps for the server until it accepts them. The system may "
        "set a lower limit of its own.",
        highest=_LARGEST_C_INT,
    ),
    flag(
        "reuse_port",
        False,
        "Let other processes of the same user listen on the same addresses (SO_REUSEPORT). Linux "
        "spreads connections over them; elsewhere that is up to the system, and Windows has no "
        "such thing. For Internet addresses that the server binds itself. Nobody is told any more "
        "when it is started twice by mistake.",
    ),
    size(
        "recv_bytes",
        8192,
        "The most that is read from a connection at once.",
        lowest=1,
        highest=_LARGEST_C_INT,
    ),
    size(
        "send_bytes",
        1,
        "Deprecated. Once the number of bytes that had to be waiting before any were sent; "
        "responses are sent as soon as there is something to send.",
    ),
    size(
        "outbuf_overflow",
        1048576,
        "How much of a response may wait in memory for a slow client; what goes beyond waits in a "
        "temporary file (see spool_dir).",
    ),
    size(
        "outbuf_high_watermark",
        16777216,
        "How much of a response may always wait for a slow client, in memory and in a temporary "
        "file together. What goes beyond needs room under spool_limit; where there is none the "
        "application pauses until the client has read enough.",
    ),
    size(
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
        check=Check("an existing directory in which this process may make files", anything),
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
    count(
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
    size(
        "max_buffered_bytes",
        0,
        "How much all connections together may hold in memory, of requests and of responses. "
        "Above it nothing is read from clients until a quarter of it has gone; what has been "
        "received is served and sent. 0: no limit, but for those of each connection "
        "(inbuf_overflow and outbuf_overflow, times connection_limit).",
    ),
    count(
        "queue_limit",
        0,
        "requests",
        "How many requests may wait for a thread. For one more, the one that has waited longest "
        "is answered 503 by the loop, without a thread; its connection stays open. 0: no limit.",
        default_note="0 (no limit)",
    ),
    duration(
        "queue_timeout",
        0,
        "How long a request may wait for a thread; then it is answered 503 by the loop, and "
        "never runs. Somewhat less than the time after which clients give up.",
    ),
    flag(
        "fair_queue",
        False,
        "Serve the clients that have requests waiting in turn, one request of each, rather than "
        "all requests in the order of their arrival. A client is an IPv4 address, or an IPv6 "
        "network of 64 bits; those behind a proxy are one, unless it speaks proxy_protocol.",
    ),
    count(
        "connection_limit_per_ip",
        0,
        "connections",
        "How many connections there may be at once from one IPv4 address, or from one IPv6 "
        "network of 64 bits; further ones are answered 503 and closed. Peers that trusted_proxy "
        "names are not limited, but with proxy_protocol their clients are. 0: no limit.",
        default_note="0 (no limit)",
    ),
    duration(
        "cleanup_interval",
        30,
        "Time between two rounds of upkeep, which closes connections that are idle for longer "
        "than channel_timeout.",
        zero="at every turn of the loop",
    ),
    duration(
        "channel_timeout",
        120,
        "How long a connection may be silent while the server waits for its client. No time "
        "counts in which it is the client that waits. Where a program changes it while the server "
        "runs, connections that rest learn of it after cleanup_interval at the latest.",
    ),
    duration(
        "header_timeout",
        30,
        "How long the head of a request may take, from its first byte to its last; a later one is "
        "answered 408.",
    ),
    duration(
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
    duration(
        "send_timeout",
        120,
        "How long a client may take none of the response that waits for it before its connection "
        "is cut. A client that reads slowly, but reads, is never cut.",
    ),
    duration(
        "linger_timeout",
        30,
        "How long the server reads on, and throws away, after it has refused a request that is "
        "still arriving, so that the client gets to read the answer.",
        zero="close at once",
    ),
    duration(
        "graceful_timeout",
        25,
        "How long a server that was told to stop goes on for the requests that it has received; "
        "what has not ended by then is cut. It counts from the order to stop, drain_delay "
        "included.",
        zero="cut at once",
    ),
    duration(
        "drain_delay",
        0,
        "How long a server that was told to stop still accepts connections, while its responses "
        "ask the clients to leave: as long as a load balancer takes to notice, and less than "
        "graceful_timeout.",
        zero="stop accepting at once",
    ),
    flag(
        "handle_signals",
        True,
        "Stop in order on SIGTERM, Ctrl-C and, on Windows, Ctrl-Break, where the program has no "
        "handlers of its own for them.",
    ),
    count(
        "channel_request_lookahead",
        0,
        "requests",
        "How many requests a connection may send ahead while one of its requests runs. With 1 or "
        "more the server goes on reading, and so notices when the client of a running request "
        "goes away: applications can ask waitress.client_disconnected().",
    ),
    duration(
        "stuck_request_seconds",
        0,
        "From which age on a request that a thread serves is logged, with its peer and the stack "
        "of its thread, and again each time its age has doubled.",
        zero="never",
    ),
    count(
        "replace_stuck_threads",
        0,
        "threads",
        "How many threads there may be more than threads says, one for each request that "
        "stuck_request_seconds has found; one goes when such a request ends. 0: none.",
        default_note="0 (none)",
    ),
    duration(
        "kill_stuck_seconds",
        0,
        "At which age a request that stuck_request_seconds has found is ended by an exception "
        "that is raised in its thread, anywhere in the application's code: the last resort. It "
        "cannot end what waits outside of Python.",
        zero="never",
    ),
    count(
        "recent_requests",
        0,
        "requests",
        "How many of the requests that ended last are kept to be told in the log on SIGUSR1, which "
        "waitress-serve answers with the stacks of all threads. 0: none.",
        highest=100_000,
        default_note="0 (none)",
    ),
    flag(
        "log_socket_errors",
        True,
        "Log errors of client connections with their tracebacks. Clients that simply leave are no "
        "errors.",
    ),
    size(
        "max_request_header_size",
        262144,
        "The size that the head of a request must stay below; a larger one is answered 431.",
        lowest=1,
    ),
    count(
        "max_request_header_fields",
        200,
        "fields",
        "How many header fields a request may have; more are answered 431.",
        lowest=1,
    ),
    size(
        "max_request_body_size",
        1073741824,
        "The size that the body of a request must stay below; a larger one is answered 413.",
        lowest=1,
    ),
    flag(
        "require_host",
        True,
        "Refuse HTTP/1.1 requests that have no Host header (400), as the standard demands. Switch "
        "it off for a health checker that sends none.",
    ),
    flag(
        "expose_tracebacks",
        False,
        "Show the traceback of an application's uncaught exception to the client, in the 500 "
        "response. For development only.",
    ),
    flag(
        "timeline_environ",
        False,
        "Give applications two more environ keys: waitress.timeline, which holds the instants of "
        "the request's life as far as they have come, and waitress.request_id, its number.",
    ),
    duration(
        "switch_interval",
        0.001,
        "How long a thread that computes may keep the interpreter while others wait for it; "
        "sys.setswitchinterval() is called with it while serve() runs, unless somebody has chosen "
        "an interval before.",
        zero="leave it to Python, which has 5 ms",
        longest=1,
    ),
    duration(
        "asyncore_loop_timeout",
        1,
        "The longest time the loop sleeps when nothing happens; it may be fractional.",
        zero="never sleep",
        longest=_LONGEST_POLL_SECONDS,
    ),
    flag(
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
        check=Check("HOST:PORT, [IPv6]:PORT, *:PORT or unix:PATH", anything),
        section=Section.STANDARD,
        default_note="none: no status listener",
    ),
    flag(
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
        check=Check("host names, between blanks", anything),
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
        check=Check("a list of bound stream sockets", anything),
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
        check=Check("a callable", anything),
        section=Section.PYTHON,
    ),
)

#: The same, by name.
SETTING_OF: dict[str, Setting] = {setting.name: setting for setting in SETTINGS}
