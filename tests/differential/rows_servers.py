"""Rows about settings: what a differently configured server answers, and whom it trusts."""

from __future__ import annotations

import hashlib
import json
from typing import NamedTuple

from tests.differential.table import (
    Expected,
    LogLine,
    Row,
    but,
    followed_by,
    get,
    persisting,
    post,
    request,
    response,
    row,
    run,
    without_body,
)
from tests.differential.wire import Answer


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
    *_on("no-ident", _PLAIN, _FAILURE, _BAD, ("own", run("headers-server-own"))),
    *_on("empty-ident", _PLAIN, _FAILURE, _BAD),
    *(
        row(
            f"{server}-environ",
            get("/a"),
            server=server,
            because="D6-server-software-text",
            ours=but(('"SERVER_SOFTWARE": "None"', '"SERVER_SOFTWARE": ""')),
        )
        for server in ("no-ident", "empty-ident")
    ),
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


class _Case(NamedTuple):
    """Header fields that the two packages take differently."""

    fields: tuple[str, ...]
    because: str
    ours: Expected
    ours_log: list[LogLine] | None = None


def _forwarded(server: str, **cases: str | tuple[str, ...] | _Case) -> list[Row]:
    return [_proxied(server, name.replace("_", "-"), case) for name, case in cases.items()]


def _proxied(server: str, name: str, case: str | tuple[str, ...] | _Case) -> Row:
    name = f"{server}-{name}"
    if isinstance(case, _Case):
        data = get("/", *case.fields)
        return row(
            name,
            data,
            server=server,
            because=case.because,
            ours=case.ours,
            ours_log=case.ours_log,
        )
    return row(name, get("/", *((case,) if isinstance(case, str) else case)), server=server)


def _told(*fields: str) -> _Case:
    """Malformed in both; the answer, in chunks, closes the connection no longer."""
    return _Case(fields, "D2-chunked-keeps-alive", persisting)


def _malformed(field: str, because: str, reason: str, told: str | None = None) -> _Case:
    """Malformed in ours only; ``told`` is the value in the log where it is not the whole."""
    name, _, value = field.partition(": ")
    chunk = f'Bad Request\r\n\r\nHeader "{name}" malformed.\r\n\r\n(generated by server)'
    head = (
        "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n"
        "Date: (masked)\r\nServer: waitress\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    body = f"{len(chunk):X}\r\n{chunk}\r\n0\r\n\r\n"
    text = f'Malformed proxy header "{name}" from "127.0.0.1": {reason} value: {told or value}'
    answer = Answer((head + body).encode("latin-1"), "open")
    return _Case((field,), because, answer, [("waitress", "WARNING", text)])


def _for(value: str) -> str:
    return f"X-Forwarded-For: {value}"


def _host(value: str, *more: str) -> tuple[str, ...]:
    return (f"X-Forwarded-Host: {value}", *more)


_QUOTED_SPACE = _malformed(
    'X-Forwarded-For: " "', "D6-forwarded-for-malformed", "invalid address", told=" "
)
_CLIENT_2001_PORT_99 = but(
    ('_ADDR": "[2001:db8::1]:99"', '_ADDR": "2001:db8::1"'),
    ('_HOST": "[2001:db8::1]:99"', '_HOST": "2001:db8::1"'),
    ('"REMOTE_PORT": "(the client\'s port)"', '"REMOTE_PORT": "99"'),
)


def _dump(**changes: str) -> Answer:
    """What the application sees of ``GET /`` with no body, but for ``changes``."""
    seen = {
        "(body)": {
            "start": 0,
            "length": 0,
            "sha256": hashlib.sha256(b"").hexdigest(),
            "head": "",
        },
        "HTTP_HOST": "localhost",
        "PATH_INFO": "/",
        "QUERY_STRING": "",
        "REMOTE_ADDR": "127.0.0.1",
        "REMOTE_HOST": "127.0.0.1",
        "REMOTE_PORT": "(the client's port)",
        "REQUEST_METHOD": "GET",
        "REQUEST_URI": "/",
        "SCRIPT_NAME": "",
        "SERVER_NAME": "waitress.invalid",
        "SERVER_PORT": "(the server's port)",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": "waitress",
        "waitress.client_disconnected": "returns False",
        "wsgi.errors": "sys.stderr",
        "wsgi.file_wrapper": "a class: True, ReadOnlyFileBasedBuffer",
        "wsgi.input": "BytesIO",
        "wsgi.input_terminated": "True",
        "wsgi.multiprocess": "False",
        "wsgi.multithread": "True",
        "wsgi.run_once": "False",
        "wsgi.url_scheme": "http",
        "wsgi.version": "(1, 0)",
        **changes,
    }
    body = json.dumps(seen, indent=0, sort_keys=True).encode("ascii")
    return response("200 OK", body, "Content-Type: application/json")


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
        for_ipv6_brackets_port=_Case(
            (_for("[2001:db8::1]:99"),),
            "D6-forwarded-for-addresses",
            _CLIENT_2001_PORT_99,
        ),
        for_ipv4_in_ipv6=_Case(
            (_for("::ffff:192.0.2.1"),),
            "D6-forwarded-for-addresses",
            but(
                ('"::ffff"', '"::ffff:192.0.2.1"'),
                ('"REMOTE_PORT": "192.0.2.1"', '"REMOTE_PORT": "(the client\'s port)"'),
            ),
        ),
        for_quoted=_for('"192.0.2.1"'),
        for_quoted_ipv6=_Case(
            (_for('"[2001:db8::1]:99"'),),
            "D6-forwarded-for-addresses",
            _CLIENT_2001_PORT_99,
        ),
        for_quoted_blank=_for('"", 192.0.2.1'),
        for_last_quoted_blank=_for('""'),
        for_quoted_space=_QUOTED_SPACE,
        for_bad_quoting=_told(_for('"192.0.2.1')),
        for_lone_quote=_told(_for('"')),
        for_several=_for("192.0.2.1, 198.51.100.2,203.0.113.3"),
        for_twice=(_for("192.0.2.1"), _for("198.51.100.2")),
        for_unknown=_for("unknown"),
        for_hidden=_for("_hidden"),
        for_empty=_for(""),
        for_empty_elements=_for(",, 192.0.2.1,"),
        for_only_comma=_for(","),
        for_garbage=_malformed(
            _for("not an address"), "D6-forwarded-for-malformed", "invalid address"
        ),
        for_quoted_comma=_told(_for('"192.0.2.1, x"')),
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
        host_bad_quoting=_told(*_host('"example.com')),
        host_capitals=_host("Example.COM"),
        host_empty=_host(""),
        host_garbage=_malformed(
            "X-Forwarded-Host: exa mple/com", "D6-forwarded-host-malformed", "invalid host"
        ),
        proto_https=_HTTPS,
        proto_capitals="X-Forwarded-Proto: HTTPS",
        proto_quoted='X-Forwarded-Proto: "https"',
        proto_unknown=_told("X-Forwarded-Proto: gopher"),
        proto_several=_Case(
            ("X-Forwarded-Proto: https, http",),
            "D6-forwarded-proto-several",
            _dump(HTTP_X_FORWARDED_PROTO="http", SERVER_PORT="80"),
            [],
        ),
        proto_empty="X-Forwarded-Proto:",
        proto_bad_quoting=_told('X-Forwarded-Proto: "https'),
        port="X-Forwarded-Port: 8443",
        port_quoted='X-Forwarded-Port: "8443"',
        port_several=_told("X-Forwarded-Port: 8443, 80"),
        port_word=_malformed(
            "X-Forwarded-Port: http", "D6-forwarded-port-number", "invalid port number"
        ),
        port_large=_malformed(
            "X-Forwarded-Port: 70000", "D6-forwarded-port-number", "invalid port number"
        ),
        port_negative=_malformed(
            "X-Forwarded-Port: -1", "D6-forwarded-port-number", "invalid port number"
        ),
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
        host_capitals=_Case(
            ("Forwarded: host=Example.COM",),
            "D6-forwarded-host-case",
            but(('"example.com"', '"Example.COM"')),
        ),
        quoted='Forwarded: for="192.0.2.1"',
        quoted_ipv6='Forwarded: for="[2001:db8::1]:4711"',
        quoted_semicolon=_Case(
            ('Forwarded: for=192.0.2.1;by="a;b"',),
            "D6-forwarded-quoted-strings",
            _dump(
                HTTP_FORWARDED='for=192.0.2.1;by="a;b"',
                REMOTE_ADDR="192.0.2.1",
                REMOTE_HOST="192.0.2.1",
            ),
            [],
        ),
        quoted_comma=_Case(
            ('Forwarded: for=192.0.2.1;by="a,b"',),
            "D6-forwarded-quoted-strings",
            _dump(
                HTTP_FORWARDED='for=192.0.2.1;by="a,b"',
                REMOTE_ADDR="192.0.2.1",
                REMOTE_HOST="192.0.2.1",
            ),
            [],
        ),
        quoted_pair='Forwarded: for="192.0.2\\.1"',
        bad_quoting=_told('Forwarded: for="192.0.2.1'),
        several="Forwarded: for=192.0.2.1, for=198.51.100.2",
        twice=("Forwarded: for=192.0.2.1", "Forwarded: for=198.51.100.2"),
        empty_pairs="Forwarded: ;for=192.0.2.1;;proto=https;",
        empty="Forwarded:",
        no_equals=_told("Forwarded: for"),
        space_before_equals=_told("Forwarded: for =192.0.2.1"),
        space_after_equals=_told("Forwarded: for= 192.0.2.1"),
        space_after_semicolon=_told("Forwarded: for=192.0.2.1; proto=https"),
        space_before_semicolon=_told("Forwarded: for=192.0.2.1 ;proto=https"),
        unknown_token="Forwarded: for=192.0.2.1;secret=x",
        repeated_token="Forwarded: for=192.0.2.1;for=198.51.100.2",
        proto_unknown=_told("Forwarded: proto=gopher"),
        unknown_client="Forwarded: for=unknown",
        hidden_client="Forwarded: for=_hidden",
        hidden_client_in_capitals=_Case(
            ("Forwarded: for=_SEVKISEK",),
            "D6-forwarded-host-case",
            but(('"_sevkisek"', '"_SEVKISEK"')),
        ),
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
    *_forwarded("unix-trust", all=_ALL, malformed=_told("X-Forwarded-Proto: x")),
    row(
        "malformed-keeps-the-connection",
        get("/", "X-Forwarded-Proto: gopher") + run("one-block"),
        methods=["GET", "GET"],
        server="trust-x",
        because="D2-pipelining-continues",
        ours=followed_by(response("200 OK", b"abc", "Content-Type: text/plain")),
    ),
    row(
        "malformed-in-a-head-request",
        request("HEAD", "/", "X-Forwarded-Proto: gopher"),
        server="trust-x",
        because=("D6-head-no-body", "D2-chunked-keeps-alive"),
        ours=lambda answer: without_body(persisting(answer)),
    ),
    row(
        "malformed-in-1.0",
        get("/", "X-Forwarded-Proto: gopher", version="HTTP/1.0"),
        server="trust-x",
    ),
]

ROWS = [*SETTINGS, *PROXIES]
