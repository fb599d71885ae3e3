"""Rows about settings: what a differently configured server answers, and whom it trusts."""

from __future__ import annotations

from tests.differential.table import Row, get, post, request, row, run


def _on(server: str, *requests: tuple[str, bytes]) -> list[Row]:
    return [row(f"{server}-{name}", data, server=server) for name, data in requests]


_PLAIN = ("plain", run("one-block"))
_ENVIRON = ("environ", get("/a"))
_FAILURE = ("failure", run("raises-value-error"))
_BAD = ("bad", b"BAD\r\n\r\n")

# What a traceback tells of the server itself is its own affair.
_SERVER_FRAMES = (
    (r'(?m)^  File ".*[/\\]waitress[/\\][^"]*", line \d+, in .*\n(?:    .*\n)*', ""),
    (r"Content-Length: \d+", "Content-Length: (masked)"),
)

SETTINGS = [
    *_on("one-thread", _PLAIN, _ENVIRON),
    *_on("poll", _PLAIN, _ENVIRON),
    row("tracebacks-failure", run("raises-value-error"), server="tracebacks", masks=_SERVER_FRAMES),
    row("tracebacks-unicode", run("raises-unicode"), server="tracebacks", masks=_SERVER_FRAMES),
    row("tracebacks-plain", run("one-block"), server="tracebacks"),
    *_on("no-ident", _PLAIN, _ENVIRON, _FAILURE, _BAD, ("own", run("headers-server-own"))),
    *_on("empty-ident", _PLAIN, _ENVIRON, _FAILURE, _BAD),
    *_on("own-ident", _PLAIN, _ENVIRON, _FAILURE, _BAD, ("own", run("headers-server-own"))),
    *_on(
        "prefix",
        ("below", get("/pre/a")),
        ("exact", get("/pre")),
        ("exact-slash", get("/pre/")),
        ("outside", get("/other")),
        ("longer-name", get("/prefer")),
        ("slashes", get("//pre//a")),
        ("query", get("/pre?x")),
        ("escaped", get("/%70re/a")),
        ("asterisk", request("OPTIONS", "*")),
        ("absolute", get("http://localhost/pre/x")),
        ("run", get("/pre/run/one-block")),
    ),
    *_on("long-prefix", ("below", get("/pre/fix/a")), ("half", get("/pre/a"))),
    *_on("https", _ENVIRON),
    *_on("server-name", _ENVIRON),
    *_on("ipv6", _PLAIN, _ENVIRON, ("host", get("/", host="[::1]:99"))),
    *_on("lookahead", _PLAIN, _ENVIRON, ("post", post("/run/echo", b"hello"))),
    *_on("quiet", _PLAIN, ("failure", run("raises-value-error"))),
    *_on(
        "tiny-buffers",
        ("environ-of-a-body", post("/", b"x" * 100)),
        ("environ-of-a-small-body", post("/", b"x" * 10)),
        ("large", run("large-block")),
        ("large-of-declared-length", run("many-small-blocks")),
        ("file", run("file-on-disk")),
        ("lines", post("/run/reads-lines", b"one\ntwo\n" * 50)),
        ("bounded-lines", post("/run/reads-bounded-lines", b"one\ntwelve\n" * 5)),
        ("by-iteration", post("/run/reads-by-iteration", b"one\ntwelve\n" * 5)),
    ),
    *_on("low-watermark", ("large", run("large-block")), ("file", run("file-on-disk"))),
    *_on("strings", _PLAIN, _ENVIRON),
    *_on("unix", _PLAIN, _ENVIRON, _FAILURE, _BAD, ("post", post("/", b"hello"))),
]

_ALL = (
    "X-Forwarded-For: 192.0.2.1",
    "X-Forwarded-Host: example.com",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Port: 8443",
    "X-Forwarded-By: proxy",
    "Forwarded: for=198.51.100.7",
    "X-Forwarded-Server: kept",
    "X-Real-Ip: kept",
)


def _forwarded(server: str, **cases: str | tuple[str, ...]) -> list[Row]:
    rows = []
    for name, fields in cases.items():
        lines = (fields,) if isinstance(fields, str) else fields
        rows.append(row(f"{server}-{name.replace('_', '-')}", get("/", *lines), server=server))
    return rows


def _for(value: str) -> str:
    return f"X-Forwarded-For: {value}"


def _host(value: str, *more: str) -> tuple[str, ...]:
    return (f"X-Forwarded-Host: {value}", *more)


_HTTP = "X-Forwarded-Proto: http"
_HTTPS = "X-Forwarded-Proto: https"

PROXIES = [
    *_forwarded("default", all_cleared=_ALL, underscore="X_Forwarded_For: 192.0.2.1"),
    *_forwarded("keep-untrusted", all_kept=_ALL),
    *_forwarded("log-untrusted", one_cleared=_for("192.0.2.1"), none="X-A: 1"),
    *_forwarded("trust-another", all_cleared=_ALL),
    *_forwarded("trust-any", all=_ALL),
    *_forwarded("trust-implied", all=_ALL, proto=_HTTPS, none="X-A: 1"),
    *_forwarded("trust-x-for", one=_for("192.0.2.1"), proto=(_for("192.0.2.1"), _HTTPS)),
    *_forwarded("trust-x-for-keep", all=_ALL),
    *_forwarded(
        "trust-x",
        none="X-A: 1",
        all=_ALL,
        for_ipv4=_for("192.0.2.1"),
        for_port=_for("192.0.2.1:99"),
        for_ipv6=_for("2001:db8::1"),
        for_ipv6_brackets=_for("[2001:db8::1]"),
        for_ipv6_brackets_port=_for("[2001:db8::1]:99"),
        for_ipv4_in_ipv6=_for("::ffff:192.0.2.1"),
        for_quoted=_for('"192.0.2.1"'),
        for_quoted_ipv6=_for('"[2001:db8::1]:99"'),
        for_quoted_blank=_for('"", 192.0.2.1'),
        for_last_quoted_blank=_for('""'),
        for_bad_quoting=_for('"192.0.2.1'),
        for_lone_quote=_for('"'),
        for_several=_for("192.0.2.1, 198.51.100.2,203.0.113.3"),
        for_twice=(_for("192.0.2.1"), _for("198.51.100.2")),
        for_unknown=_for("unknown"),
        for_hidden=_for("_hidden"),
        for_empty=_for(""),
        for_empty_elements=_for(",, 192.0.2.1,"),
        for_only_comma=_for(","),
        for_garbage=_for("not an address"),
        for_quoted_comma=_for('"192.0.2.1, x"'),
        host=_host("example.com"),
        host_http=_host("example.com", _HTTP),
        host_https=_host("example.com", _HTTPS),
        host_http_port=_host("example.com", _HTTP, "X-Forwarded-Port: 8080"),
        host_with_port_http=_host("example.com:8080", _HTTP),
        host_https_port_80=_host("example.com", _HTTPS, "X-Forwarded-Port: 80"),
        host_http_port_443=_host("example.com", _HTTP, "X-Forwarded-Port: 443"),
        host_https_port_443=_host("example.com", _HTTPS, "X-Forwarded-Port: 443"),
        host_with_port_wins=_host("example.com:81", _HTTPS, "X-Forwarded-Port: 443"),
        host_ipv6_port=_host("[::1]:81"),
        host_ipv6=_host("[::1]", _HTTP),
        host_several=_host("a.example, b.example"),
        host_quoted=_host('"example.com"'),
        host_bad_quoting=_host('"example.com'),
        host_capitals=_host("Example.COM"),
        host_empty=_host(""),
        host_garbage=_host("exa mple/com"),
        proto_https=_HTTPS,
        proto_capitals="X-Forwarded-Proto: HTTPS",
        proto_quoted='X-Forwarded-Proto: "https"',
        proto_unknown="X-Forwarded-Proto: gopher",
        proto_several="X-Forwarded-Proto: https, http",
        proto_empty="X-Forwarded-Proto:",
        proto_bad_quoting='X-Forwarded-Proto: "https',
        port="X-Forwarded-Port: 8443",
        port_quoted='X-Forwarded-Port: "8443"',
        port_several="X-Forwarded-Port: 8443, 80",
        port_word="X-Forwarded-Port: http",
        port_large="X-Forwarded-Port: 70000",
        port_negative="X-Forwarded-Port: -1",
        port_empty="X-Forwarded-Port:",
        port_http=("X-Forwarded-Port: 80", _HTTP),
        by="X-Forwarded-By: proxy",
    ),
    *_forwarded(
        "trust-x-two",
        one=_for("192.0.2.1"),
        two=_for("192.0.2.1, 198.51.100.2"),
        three=_for("192.0.2.1, 198.51.100.2, 203.0.113.3"),
        three_without_spaces=_for("192.0.2.1,198.51.100.2,203.0.113.3"),
        hosts=_host("a.example, b.example, c.example"),
        hosts_and_for=(_for("192.0.2.1, 198.51.100.2"), *_host("a.example:81, b.example")),
    ),
    *_forwarded(
        "trust-forwarded",
        none="X-A: 1",
        all=_ALL,
        for_="Forwarded: for=192.0.2.1",
        everything="Forwarded: for=192.0.2.1;host=example.com;proto=https;by=203.0.113.43",
        port="Forwarded: for=192.0.2.1;host=example.com:8080;proto=http",
        capitals="Forwarded: For=192.0.2.1;PROTO=HTTPS",
        host_capitals="Forwarded: host=Example.COM",
        quoted='Forwarded: for="192.0.2.1"',
        quoted_ipv6='Forwarded: for="[2001:db8::1]:4711"',
        quoted_semicolon='Forwarded: for=192.0.2.1;by="a;b"',
        quoted_comma='Forwarded: for=192.0.2.1;by="a,b"',
        quoted_pair='Forwarded: for="192.0.2\\.1"',
        bad_quoting='Forwarded: for="192.0.2.1',
        several="Forwarded: for=192.0.2.1, for=198.51.100.2",
        twice=("Forwarded: for=192.0.2.1", "Forwarded: for=198.51.100.2"),
        empty_pairs="Forwarded: ;for=192.0.2.1;;proto=https;",
        empty="Forwarded:",
        no_equals="Forwarded: for",
        space_before_equals="Forwarded: for =192.0.2.1",
        space_after_equals="Forwarded: for= 192.0.2.1",
        space_after_semicolon="Forwarded: for=192.0.2.1; proto=https",
        space_before_semicolon="Forwarded: for=192.0.2.1 ;proto=https",
        unknown_token="Forwarded: for=192.0.2.1;secret=x",
        repeated_token="Forwarded: for=192.0.2.1;for=198.51.100.2",
        proto_unknown="Forwarded: proto=gopher",
        unknown_client="Forwarded: for=unknown",
        hidden_client="Forwarded: for=_hidden",
        hidden_client_in_capitals="Forwarded: for=_SEVKISEK",
        value_with_equals='Forwarded: for=192.0.2.1;by="a=b"',
        untrusted_ignored=("Forwarded: for=192.0.2.1", _HTTPS, _for("198.51.100.2")),
    ),
    *_forwarded(
        "trust-forwarded-two",
        three="Forwarded: for=192.0.2.1, for=198.51.100.2;proto=https, for=203.0.113.3",
        oldest_wins="Forwarded: host=a.example, host=b.example;proto=https",
        one="Forwarded: for=192.0.2.1;proto=http",
    ),
    *_forwarded("unix", all_cleared=_ALL),
    *_forwarded("unix-trust", all=_ALL, malformed="X-Forwarded-Proto: x"),
    row(
        "malformed-keeps-the-connection",
        get("/", "X-Forwarded-Proto: gopher") + run("one-block"),
        methods=["GET", "GET"],
        server="trust-x",
    ),
    row(
        "malformed-in-a-head-request",
        request("HEAD", "/", "X-Forwarded-Proto: gopher"),
        server="trust-x",
    ),
    row(
        "malformed-in-1.0",
        get("/", "X-Forwarded-Proto: gopher", version="HTTP/1.0"),
        server="trust-x",
    ),
]

ROWS = [*SETTINGS, *PROXIES]
