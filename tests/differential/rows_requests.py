"""Rows about requests: lines, versions, targets, fields, bodies, connections."""

from __future__ import annotations

from tests.differential.table import (
    Row,
    but,
    chunked,
    closing,
    followed_by,
    get,
    in_turn,
    persisting,
    post,
    refusal,
    request,
    response,
    row,
    run,
    without_body,
)
from tests.differential.wire import Answer, Continue, HalfClose, Responses

_ONE = "/run/one-block"
_TEXT = "Content-Type: text/plain"
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _abc(version: str = "1.1", *fields: str) -> Answer:
    return response("200 OK", b"abc", _TEXT, *fields, version=version)


def _bad(text: str, version: str = "1.0") -> Answer:
    return refusal("400 Bad Request", text, version=version)


_HELLO = response("200 OK", b"hello", _TEXT)
_EMPTY_204 = Answer(
    b"HTTP/1.1 204 No Content\r\nDate: (masked)\r\nServer: waitress\r\n\r\n", "open"
)
_BARE = "Bare CR or LF found in HTTP message"
_NO_HOST = _bad("Host header is missing (setting: require_host)", "1.1")
_BOTH_LENGTHS = _bad("Content-Length and Transfer-Encoding in one request", "1.1")
_NO_CODING = _bad("Transfer-Encoding is not allowed in HTTP/1.0")
_CHUNKED_TWICE = refusal(
    "501 Not Implemented",
    "Transfer-Encoding is invalid. Multiple chunked encodings requested.",
)
_NO_CONNECT = refusal("501 Not Implemented", "CONNECT is not supported")
_NOT_EXPECTED = refusal("417 Expectation Failed", "Expectation not supported")
_OTHER_MAJOR = refusal(
    "505 HTTP Version Not Supported", "Only HTTP/1.0 and HTTP/1.1 are served", version="1.0"
)


def _in_1_1(answer: Answer) -> Answer:
    """A response of the released package in HTTP/1.0, as ours to the same request in 1.1."""
    return persisting(answer.with_data(answer.data.replace(b"HTTP/1.0", b"HTTP/1.1")))


def _raw(name: str, line: str, *, server: str = "default", **more: object) -> Row:
    """A row that sends ``line`` as the request line of an otherwise good request."""
    data = line.encode("latin-1") + b"\r\nHost: localhost\r\n\r\n"
    return row(name, data, server=server, methods=("GET",), **more)  # type: ignore[arg-type]


REQUEST_LINES = [
    row("plain", get("/")),
    row("one-block", get(_ONE)),
    row("several-fields", get("/", "User-Agent: x", "Accept: */*", "X-A: 1", "x-b: 2")),
    row("leading-empty-line", b"\r\n" + get("/")),
    row("two-leading-empty-lines", b"\r\n\r\n" + get("/")),
    row("many-leading-empty-lines", b"\r\n" * 9 + get("/")),
    row("leading-line-feeds", b"\n\n" + get(_ONE), because="D5-bare-cr-or-lf", ours=_bad(_BARE)),
    row(
        "leading-spaces",
        b"  " + get(_ONE),
        because="D5-white-space-before-request-line",
        ours=_bad("Start line is invalid"),
    ),
    row("leading-carriage-return", b"\r" + get(_ONE), because="D5-bare-cr-or-lf", ours=_bad(_BARE)),
    row("only-an-empty-block", b"\r\n\r\n", methods=()),
    _raw(
        "trailing-space-in-request-line",
        "GET / HTTP/1.1 ",
        because="D5-white-space-after-request-line",
        ours=_bad("Start line is invalid"),
    ),
    _raw(
        "trailing-tab-in-request-line",
        "GET / HTTP/1.1\t",
        because="D5-white-space-after-request-line",
        ours=_bad("Start line is invalid"),
    ),
    _raw("no-version", f"GET {_ONE}", because="D5-no-version", ours=_bad("Start line is invalid")),
    _raw("no-target", "GET"),
    _raw("empty-target", "GET  HTTP/1.1"),
    _raw("only-a-word", "BAD"),
    row("bad-and-nothing-else", b"BAD\r\n\r\n", methods=("GET",)),
    _raw("two-spaces-before-target", "GET  / HTTP/1.1"),
    _raw("two-spaces-before-version", "GET /  HTTP/1.1"),
    _raw("tab-as-separator", "GET\t/\tHTTP/1.1"),
    _raw("space-in-target", "GET /a b HTTP/1.1"),
    _raw("small-http", "GET / http/1.1"),
    _raw("another-protocol", "GET / RTSP/1.0"),
    _raw("version-of-two-digits", "GET / HTTP/1.10"),
    _raw("version-without-minor", "GET / HTTP/1"),
    _raw("version-without-major", "GET / HTTP/.1"),
    _raw("version-without-point", "GET / HTTP/11"),
    _raw("version-0.9", f"GET {_ONE} HTTP/0.9", because="D5-major-version", ours=_OTHER_MAJOR),
    _raw("version-2.0", f"GET {_ONE} HTTP/2.0", because="D5-major-version", ours=_OTHER_MAJOR),
    _raw("version-8.4", f"GET {_ONE} HTTP/8.4", because="D5-major-version", ours=_OTHER_MAJOR),
    _raw("version-1.2", f"GET {_ONE} HTTP/1.2", because="D5-minor-version", ours=_abc()),
    _raw("version-1.9-environ", "GET / HTTP/1.9", because="D5-minor-version", ours=_in_1_1),
    row(
        "http2-preface",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        because="D5-major-version",
        ours=_OTHER_MAJOR,
    ),
    _raw("small-method", "get / HTTP/1.1"),
    _raw("mixed-method", "Get / HTTP/1.1"),
    _raw("odd-but-valid-method", "G-ET1 / HTTP/1.1"),
    _raw("method-of-digits", "123 / HTTP/1.1"),
    _raw("method-of-marks", "!#$%&'*+-.^_`|~ / HTTP/1.1"),
    _raw("method-with-parentheses", "GE(T) / HTTP/1.1"),
    _raw("method-with-nul", "GE\x00T / HTTP/1.1"),
    _raw("method-beyond-ascii", "G\xc9T / HTTP/1.1"),
    _raw("unknown-method", "FROB / HTTP/1.1"),
    _raw("bare-line-feed-in-request-line", "GET / HTTP/1.1\nX-A: 1"),
    _raw("bare-carriage-return-in-request-line", "GET /\rHTTP/1.1"),
    row("line-feeds-only", b"GET / HTTP/1.1\nHost: localhost\n\n" + get(_ONE), methods=("GET",)),
    row("delete", request("DELETE", "/")),
    row("options", request("OPTIONS", "/")),
    row("patch-without-body", request("PATCH", "/")),
    row("binary-garbage", bytes(range(128, 256)) + b"\r\n\r\n", methods=("GET",)),
    row("tls-client-hello", b"\x16\x03\x01\x00\xa5\x01\x00\x00\r\n\r\n", methods=("GET",)),
]

TARGETS = [
    row("target-escapes", get("/a%20b?x=%20")),
    row("target-slashes", get("//a//b?x")),
    row(
        "target-fragment",
        get("/a?x=%20#y%20z"),
        because="RFC9112-target-fragment",
        ours=_bad("Bad URI", "1.1"),
    ),
    row("target-only-slashes", get("///")),
    row("target-query-twice", get("/a?b?c")),
    row("target-parameters", get("/a;p=1;q")),
    row("target-bad-escape", get("/%zz%")),
    row("target-nul-escape", get("/a%00b")),
    row("target-utf-8-escape", get("/caf%C3%A9")),
    row("target-slash-escape", get("/a%2Fb")),
    row("target-dots", get("/a/../b/./c")),
    row("target-backslash", get("/a\\b")),
    row("target-plus", get("/a+b?c+d")),
    row("target-empty-query", get("/a?")),
    row("target-colon", get("/a:b")),
    row("target-marks", get("/!$&'()*+,;=:@-._~")),
    row("target-brackets-and-pipes", get('/[a]|{b}^`"<>')),
    row("target-beyond-ascii", get("/caf\xe9")),
    row("target-beyond-ascii-in-query", get("/?caf\xe9")),
    row(
        "target-slashes-beyond-ascii",
        get("//caf\xe9"),
        because="RFC9112-target-beyond-ascii",
        ours=_bad("Bad URI", "1.1"),
    ),
    row("target-absolute", get("http://localhost/a/b?c=d")),
    row("target-absolute-no-path", get("http://localhost")),
    row("target-absolute-query-no-path", get("http://localhost?x=1")),
    row("target-absolute-capital-scheme", get("HTTP://localhost/")),
    row(
        "target-absolute-another-host",
        get("http://ex.com:8/a"),
        because="RFC9112-absolute-form",
        ours=but(('"HTTP_HOST": "localhost"', '"HTTP_HOST": "ex.com:8"')),
    ),
    row(
        "target-absolute-user",
        get("http://u:p@localhost/x"),
        because="RFC9110-userinfo",
        ours=_bad("Bad URI", "1.1"),
    ),
    row(
        "target-absolute-ipv6",
        get("http://[::1]:80/x"),
        because="RFC9112-absolute-form",
        ours=but(('"HTTP_HOST": "localhost"', '"HTTP_HOST": "[::1]:80"')),
    ),
    row(
        "target-absolute-broken-ipv6",
        get("http://[::1/x"),
        because="D6-bad-uri-answered",
        ours=_bad("Bad URI", "1.1"),
        ours_log=(),
    ),
    row("target-absolute-https", get("https://localhost/x")),
    row("target-asterisk-options", request("OPTIONS", "*")),
    row(
        "target-asterisk-get",
        get("*"),
        because="RFC9112-asterisk-form",
        ours=_bad("Bad URI", "1.1"),
    ),
    row("target-word", get("foo"), because="RFC9112-target-form", ours=_bad("Bad URI", "1.1")),
    row("target-query-only", get("?x"), because="RFC9112-target-form", ours=_bad("Bad URI", "1.1")),
    row(
        "target-mailto", get("mailto:x"), because="RFC9112-target-form", ours=_bad("Bad URI", "1.1")
    ),
    row(
        "target-connect",
        request("CONNECT", "example.com:443", host="example.com:443"),
        because="RFC9112-connect",
        ours=_NO_CONNECT,
    ),
    row(
        "target-connect-path", request("CONNECT", "/x"), because="RFC9112-connect", ours=_NO_CONNECT
    ),
    row(
        "target-tab", get("/a\tb"), because="D6-target-controls", ours=_bad("Start line is invalid")
    ),
    row(
        "target-control",
        get("/a\x01b"),
        because="D6-target-controls",
        ours=_bad("Start line is invalid"),
    ),
    row(
        "target-vertical-tab",
        get("/a\x0bb"),
        because="D6-target-controls",
        ours=_bad("Start line is invalid"),
    ),
    row(
        "target-delete-character",
        get("/a\x7fb"),
        because="D6-target-controls",
        ours=_bad("Start line is invalid"),
    ),
    row("target-long", get("/" + "x" * 7000)),
]

FIELDS = [
    row("field-empty-value", get("/", "X-A:")),
    row("field-no-space", get("/", "X-A:1")),
    row("field-much-white-space", get("/", "X-A: \t  1 \t ")),
    row("field-inner-white-space", get("/", "X-A: a  \t b")),
    row("field-name-marks", get("/", "!#$%&'*+-.^`|~: 1")),
    row("field-name-case", get("/", "x-MIXED-case: Value")),
    row("field-latin-1", get("/", "X-A: caf\xe9 \xa0x\x85")),
    row("field-colons", get("/", "X-A: a:b:c")),
    row("field-repeated", get("/", "X-A: 1", "X-B: 2", "x-a: 3")),
    row("field-repeated-empty", get("/", "X-A: 1", "X-A:", "X-A: 3")),
    row("field-accept-repeated", get("/", "Accept: a/b", "Accept: c/d")),
    row("field-underscore", get("/", "X_A: 1", "X-A: 2", "Content_Length: 5")),
    row("field-underscore-transfer-encoding", get("/", "Transfer_Encoding: chunked")),
    row("field-space-before-colon", get("/", "X-A : 1")),
    row("field-tab-before-colon", get("/", "X-A\t: 1")),
    row("field-without-colon", get("/", "X-A")),
    row("field-without-name", get("/", ": 1")),
    row("field-name-with-space", get("/", "X A: 1")),
    row("field-name-beyond-ascii", get("/", "X-\xc9: 1")),
    row("field-with-nul", get("/", "X-A: a\x00b")),
    row("field-with-vertical-tab", get("/", "X-A: a\x0bb")),
    row("field-with-delete-character", get("/", "X-A: a\x7fb")),
    row("field-with-bare-line-feed", get("/", "X-A: a\nX-B: 2")),
    row("field-with-bare-carriage-return", get("/", "X-A: a\rX-B: 2")),
    row("field-ending-in-line-feed", get("/", "X-A: a\n")),
    row("field-ending-in-carriage-return", get("/", "X-A: a\r")),
    row(
        "fold",
        get("/", "X-A: slim", " slam"),
        because="D5-obs-fold",
        ours=_bad('Folded header line " slam"'),
    ),
    row(
        "fold-with-tab",
        get("/", "X-A: slim", "\tslam"),
        because="D5-obs-fold",
        ours=_bad('Folded header line "\tslam"'),
    ),
    row(
        "fold-first",
        b"GET / HTTP/1.1\r\n X-A: 1\r\nHost: localhost\r\n\r\n",
        because="D5-obs-fold",
        ours=_bad('Folded header line " X-A: 1"'),
    ),
    row(
        "fold-blank",
        get("/", "X-A: slim", " ", "X-B: 1"),
        because="D5-obs-fold",
        ours=_bad('Folded header line " "'),
    ),
    row("host-missing", get(_ONE, host=None), because="D5-host-missing", ours=_NO_HOST),
    row("host-missing-in-1.0", get("/", version="HTTP/1.0", host=None)),
    row("host-empty", get("/", host=""), because="D5-host-missing", ours=_NO_HOST),
    row("host-with-port", get("/", host="example.com:8080")),
    row("host-ipv6", get("/", host="[::1]:8080")),
    row("host-empty-port", get("/", host="example.com:")),
    row(
        "host-with-space",
        get(_ONE, host="exa mple.com"),
        because="D5-host-invalid",
        ours=_bad("Invalid Host header", "1.1"),
    ),
    row(
        "host-with-slash",
        get(_ONE, host="example.com/x"),
        because="D5-host-invalid",
        ours=_bad("Invalid Host header", "1.1"),
    ),
    row(
        "host-with-user",
        get(_ONE, host="u@example.com"),
        because="D5-host-invalid",
        ours=_bad("Invalid Host header", "1.1"),
    ),
    row("host-with-comma", get(_ONE, host="a,b")),
    row(
        "host-with-bad-port",
        get(_ONE, host="example.com:http"),
        because="D5-host-invalid",
        ours=_bad("Invalid Host header", "1.1"),
    ),
    row(
        "host-repeated",
        get(_ONE, "Host: localhost"),
        because="D5-host-repeated",
        ours=_bad("Duplicate header: Host"),
    ),
    row(
        "host-repeated-and-different",
        get(_ONE, "Host: other"),
        because="D5-host-repeated",
        ours=_bad("Duplicate header: Host"),
    ),
    row(
        "host-repeated-in-1.0",
        get(_ONE, "Host: localhost", version="HTTP/1.0"),
        because="D5-host-repeated",
        ours=_bad("Duplicate header: Host"),
    ),
    row(
        "content-type-repeated",
        get(_ONE, "Content-Type: a/b", "Content-Type: a/b"),
        because="D5-content-type-repeated",
        ours=_bad("Duplicate header: Content-Type"),
    ),
    row(
        "authorization-repeated",
        get(_ONE, "Authorization: Basic eA==", "Authorization: B"),
        because="D5-authorization-repeated",
        ours=_bad("Duplicate header: Authorization"),
    ),
    row("cookie", get("/", "Cookie: a=1; b=2")),
    row(
        "cookie-repeated",
        get("/", "Cookie: a=1", "Cookie: b=2"),
        because="D5-cookie-joined-with-semicolon",
        ours=but(("a=1, b=2", "a=1; b=2")),
    ),
    row("fields-200", get(_ONE, *[f"X-{number}: 1" for number in range(199)])),
    row(
        "fields-201",
        get(_ONE, *[f"X-{number}: 1" for number in range(200)]),
        because="D5-too-many-fields",
        ours=refusal(
            "431 Request Header Fields Too Large",
            "exceeds max_request_header_fields of 200",
            version="1.1",
        ),
    ),
    row("field-long", get("/run/one-block", "X-A: " + "x" * 7000)),
    row("field-environ-clash", get("/", "Remote-Addr: 1.2.3.4", "Request-Method: FROB")),
    row("field-proxy", get("/", "Proxy: http://evil/")),
    row("field-te-trailers", get("/", "TE: trailers", "Connection: TE")),
    row("field-upgrade", get("/", "Upgrade: h2c", "Connection: Upgrade")),
    row("field-if-none-match", get("/", 'If-None-Match: "a"', "Range: bytes=0-1")),
]

_FIVE = b"5\r\nhello\r\n0\r\n\r\n"

BODIES = [
    row("body-echoed", post("/run/echo", b"hello")),
    row("body-environ", post("/", b"hello", "Content-Type: text/plain")),
    row("body-put", request("PUT", "/run/echo", "Content-Length: 3", body=b"abc")),
    row("body-get", request("GET", "/run/echo", "Content-Length: 3", body=b"abc")),
    row(
        "body-head",
        request("HEAD", "/", "Content-Length: 3", body=b"abc"),
        because="D6-head-no-body",
        ours=without_body,
    ),
    row("body-empty", post("/", b"")),
    row("body-no-length", request("POST", "/")),
    row("body-unread", post("/run/one-block", b"x" * 5000)),
    row(
        "body-in-pieces",
        *(bytes([octet]) for octet in post("/run/echo", b"hello")),
        methods=["POST"],
    ),
    row("body-after-the-head", post("/run/echo", b"hello")[:-5], b"hel", b"lo"),
    row("body-large", post("/run/reads-digest", bytes(range(256)) * 800)),
    row("body-over-the-memory-limit", post("/", b"x" * 600_000)),
    row("body-read-in-threes", post("/run/reads-in-threes", b"12345678")),
    row("body-read-beyond", post("/run/reads-beyond", b"12345678")),
    row("body-read-lines", post("/run/reads-lines", b"one\ntwo\n\nfour")),
    row("body-read-line-by-line", post("/run/reads-line-by-line", b"one\ntwo\n\nfour")),
    row("body-read-bounded-lines", post("/run/reads-bounded-lines", b"one\ntwelve\nx")),
    row("body-read-with-a-hint", post("/run/reads-with-a-hint", b"one\ntwo\nthree")),
    row("body-read-by-iteration", post("/run/reads-by-iteration", b"one\ntwo\nthree")),
    row("body-read-when-there-is-none", get("/run/reads-all")),
    row("body-read-lines-when-there-is-none", get("/run/reads-line-by-line")),
    row("body-cut-short", post(_ONE, b"hello")[:-2], HalfClose(), methods=["POST"]),
    row("length-leading-zeros", request("POST", "/", "Content-Length: 0005", body=b"hello")),
    row("length-zero", request("POST", "/", "Content-Length: 0")),
    row("length-white-space", request("POST", "/", "Content-Length: \t 5 \t", body=b"hello")),
    *(
        row(f"length-bad-{name}", request("POST", _ONE, f"Content-Length: {value}", body=b"hello"))
        for name, value in (
            ("plus", "+5"),
            ("minus", "-5"),
            ("hexadecimal", "0x5"),
            ("fraction", "5.0"),
            ("underscore", "5_0"),
            ("exponent", "1e3"),
            ("superscript", "\xb2"),
            ("empty", ""),
            ("word", "five"),
            ("list", "5, 5"),
            ("inner-space", "5 5"),
        )
    ),
    row(
        "length-repeated",
        request("POST", _ONE, "Content-Length: 5", "Content-Length: 5", body=b"hello"),
        because="D5-content-length-repeated",
        ours=_bad("Duplicate header: Content-Length"),
    ),
    row(
        "length-repeated-and-different",
        request("POST", _ONE, "Content-Length: 5", "Content-Length: 6", body=b"hello"),
        because="D5-content-length-repeated",
        ours=_bad("Duplicate header: Content-Length"),
    ),
    row("length-bad-in-1.0", request("POST", _ONE, "Content-Length: x", version="HTTP/1.0")),
]


def _sent_in_chunks(name: str, body: bytes, *fields: str, **more: object) -> Row:
    return row(name, chunked("/run/echo", body, *fields), **more)  # type: ignore[arg-type]


CHUNKED = [
    _sent_in_chunks("chunked", _FIVE),
    row("chunked-environ", chunked("/", _FIVE)),
    _sent_in_chunks("chunked-two-chunks", b"5\r\nhello\r\n7\r\n, world\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-empty", b"0\r\n\r\n"),
    row("chunked-empty-environ", chunked("/", b"0\r\n\r\n")),
    _sent_in_chunks("chunked-capital-hex", b"A\r\n0123456789\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-small-hex", b"a\r\n0123456789\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-leading-zeros", b"0005\r\nhello\r\n000\r\n\r\n"),
    row(
        "chunked-octet-by-octet",
        *(bytes([octet]) for octet in chunked("/run/echo", _FIVE)),
        methods=["POST"],
    ),
    row(
        "chunked-large",
        chunked("/run/reads-digest", b"%x\r\n%s\r\n0\r\n\r\n" % (600_000, b"y" * 600_000)),
    ),
    row(
        "chunked-large-environ", chunked("/", b"%x\r\n%s\r\n0\r\n\r\n" % (600_000, b"y" * 600_000))
    ),
    row("chunked-get", request("GET", "/run/echo", "Transfer-Encoding: chunked", body=_FIVE)),
    _sent_in_chunks("chunked-extension", b"5;name\r\nhello\r\n0;last\r\n\r\n"),
    _sent_in_chunks("chunked-extension-value", b'5;a=b;c="d;e"\r\nhello\r\n0\r\n\r\n'),
    _sent_in_chunks(
        "chunked-extension-space",
        b"5 ; a = b\r\nhello\r\n0\r\n\r\n",
        because="D5-chunk-extension-white-space",
        ours=_HELLO,
    ),
    _sent_in_chunks(
        "chunked-extension-tab",
        b'5;\ta="b"\r\nhello\r\n0\r\n\r\n',
        because="D5-chunk-extension-white-space",
        ours=_HELLO,
    ),
    _sent_in_chunks("chunked-extension-empty", b"5;\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-extension-bad", b"5;a=\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-extension-control", b"5;a=\x00\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-extension-unclosed", b'5;a="b\r\nhello\r\n0\r\n\r\n'),
    _sent_in_chunks("chunked-size-bad", b"x\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-size-plus", b"+5\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-size-minus", b"-5\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-size-0x", b"0x5\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-size-underscore", b"0_5\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-size-space-before", b" 5\r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-size-space-after", b"5 \r\nhello\r\n0\r\n\r\n"),
    _sent_in_chunks(
        "chunked-size-line-feed",
        b"5\n\r\nhello\r\n0\r\n\r\n",
        because="D6-chunk-line-bare-lf",
        ours=_bad("Invalid chunk size", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-extension-line-feed",
        b"5;a\n\r\nhello\r\n0\r\n\r\n",
        because="D6-chunk-line-bare-lf",
        ours=_bad("Invalid chunk extension", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-line-feeds-only",
        b"5\nhello\n0\n\n\r\n",
    ),
    _sent_in_chunks(
        "chunked-empty-line-before-size",
        b"\r\n5\r\nhello\r\n0\r\n\r\n",
        because="D5-chunk-empty-line",
        ours=_bad("Invalid chunk size", "1.1"),
    ),
    _sent_in_chunks("chunked-data-too-long", b"5\r\nhello!\r\n0\r\n\r\n"),
    _sent_in_chunks("chunked-data-ends-in-line-feeds", b"5\r\nhello\n\n0\r\n\r\n"),
    _sent_in_chunks("chunked-trailer", b"5\r\nhello\r\n0\r\nX-Sum: 5\r\nX-More: 6\r\n\r\n"),
    row("chunked-trailer-environ", chunked("/", b"5\r\nhello\r\n0\r\nX-Sum: 5\r\n\r\n")),
    _sent_in_chunks(
        "chunked-trailer-malformed",
        b"5\r\nhello\r\n0\r\nno colon\r\n\r\n",
        because="D6-trailers-validated",
        ours=_bad("Invalid trailer", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-trailer-control",
        b"5\r\nhello\r\n0\r\nX-A: \x00\r\n\r\n",
        because="D6-trailers-validated",
        ours=_bad("Invalid trailer", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-trailer-folded",
        b"5\r\nhello\r\n0\r\nX-A: 1\r\n 2\r\n\r\n",
        because="D6-trailers-validated",
        ours=_bad("Invalid trailer", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-trailer-line-feed",
        b"5\r\nhello\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n",
        because="D6-trailers-validated",
        ours=_bad("Invalid trailer", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-trailer-length",
        b"5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n",
        because="D6-trailers-validated",
        ours=_bad("Forbidden trailer", "1.1"),
    ),
    _sent_in_chunks(
        "chunked-trailer-host",
        b"5\r\nhello\r\n0\r\nHost: other\r\n\r\n",
        because="D6-trailers-validated",
        ours=_bad("Forbidden trailer", "1.1"),
    ),
    row("chunked-cut-short", chunked(_ONE, b"5\r\nhel"), HalfClose(), methods=["POST"]),
    *(
        row(
            f"coding-{name}",
            request("POST", "/run/echo", f"Transfer-Encoding: {value}", body=_FIVE),
        )
        for name, value in (
            ("capitals", "ChUnKed"),
            ("tab-after", "chunked\t"),
            ("gzip", "gzip"),
            ("identity", "identity"),
            ("gzip-then-chunked", "gzip, chunked"),
            ("chunked-then-gzip", "chunked, gzip"),
            ("quoted", '"chunked"'),
            ("parameter", "chunked;q=1"),
            ("two-words", "chunked gzip"),
            ("next-line-before", "\x85chunked"),
            ("no-break-space", "\xa0chunked"),
            ("unknown", "xchunked"),
        )
    ),
    *(
        row(
            f"coding-comma-{where}",
            request("POST", "/run/echo", f"Transfer-Encoding: {value}", body=_FIVE),
            because="D5-transfer-coding-not-chunked-once",
            ours=_bad("Transfer-Encoding is invalid.", "1.1"),
        )
        for where, value in (("after", "chunked,"), ("before", ",chunked"))
    ),
    row(
        "coding-chunked-twice",
        request("POST", "/run/echo", "Transfer-Encoding: chunked, chunked", body=_FIVE),
        because="D5-transfer-coding-not-chunked-once",
        ours=_CHUNKED_TWICE,
    ),
    row(
        "coding-empty",
        request("POST", _ONE, "Transfer-Encoding:", "Content-Length: 0"),
        because="D5-transfer-coding-not-chunked-once",
        ours=_bad("Transfer-Encoding is invalid.", "1.1"),
    ),
    row(
        "coding-only-comma",
        request("POST", _ONE, "Transfer-Encoding: ,", "Content-Length: 0"),
        because="D5-transfer-coding-not-chunked-once",
        ours=_bad("Transfer-Encoding is invalid.", "1.1"),
    ),
    row(
        "coding-twice-in-two-fields",
        chunked("/run/echo", _FIVE, "Transfer-Encoding: chunked"),
        because="D5-transfer-coding-not-chunked-once",
        ours=_CHUNKED_TWICE,
    ),
    row(
        "coding-folded",
        request("POST", "/run/echo", "Transfer-Encoding:", " chunked", body=_FIVE),
        because="D5-obs-fold",
        ours=_bad('Folded header line " chunked"'),
    ),
    row(
        "coding-with-length",
        chunked("/run/echo", _FIVE, "Content-Length: 15"),
        because="D5-content-length-with-transfer-encoding",
        ours=_BOTH_LENGTHS,
    ),
    row(
        "coding-with-bad-length",
        chunked("/run/echo", _FIVE, "Content-Length: x"),
        because="D5-content-length-with-transfer-encoding",
        ours=_BOTH_LENGTHS,
    ),
    row(
        "coding-with-length-zero",
        chunked("/run/echo", _FIVE, "Content-Length: 0"),
        because="D5-content-length-with-transfer-encoding",
        ours=_BOTH_LENGTHS,
    ),
    row(
        "coding-in-1.0",
        chunked(_ONE, b"", version="HTTP/1.0"),
        because="D5-transfer-encoding-on-http10",
        ours=_NO_CODING,
    ),
    row(
        "coding-in-1.0-with-length",
        chunked(_ONE, b"abc", "Content-Length: 3", version="HTTP/1.0"),
        because="D5-transfer-encoding-on-http10",
        ours=_NO_CODING,
    ),
    row(
        "coding-in-1.0-kept-alive",
        chunked(_ONE, _FIVE, "Connection: keep-alive", version="HTTP/1.0"),
        because="D5-transfer-encoding-on-http10",
        ours=_NO_CODING,
    ),
    row(
        "coding-gzip-in-1.0",
        request("POST", _ONE, "Transfer-Encoding: gzip", version="HTTP/1.0"),
        because="D5-transfer-encoding-on-http10",
        ours=_NO_CODING,
    ),
]

LIMITS = [
    row("head-below-the-limit", get("/run/one-block", "X-A: " + "x" * 930), server="limits"),
    row("head-at-the-limit", get("/run/one-block", "X-A: " + "x" * (1000 - 61)), server="limits"),
    row(
        "head-one-below-the-limit",
        get("/run/one-block", "X-A: " + "x" * (999 - 61)),
        server="limits",
    ),
    row("head-over-the-limit", get("/run/one-block", "X-A: " + "x" * 2000), server="limits"),
    row("head-without-end-over-the-limit", get("/")[:-2] + b"X-A: " + b"x" * 2000, server="limits"),
    row("request-line-over-the-limit", get("/" + "x" * 2000), server="limits"),
    row("head-over-the-limit-and-bad", get("/", "X-A : " + "x" * 2000), server="limits"),
    row("body-below-the-limit", post("/run/echo", b"x" * 99), server="limits"),
    row("body-at-the-limit", post("/run/echo", b"x" * 100), server="limits"),
    row("body-over-the-limit", post("/run/echo", b"x" * 101), server="limits"),
    row("body-over-the-limit-not-sent", post("/run/echo", b"x" * 101)[:-101], server="limits"),
    row("body-over-the-limit-in-1.0", post("/x", b"x" * 101, version="HTTP/1.0"), server="limits"),
    row(
        "body-over-the-limit-by-far",
        request("POST", "/run/echo", "Content-Length: 99999999999999999999"),
        server="limits",
    ),
    row(
        "chunked-below-the-limit",
        chunked("/run/echo", b"32\r\n" + b"x" * 50 + b"\r\n0\r\n\r\n"),
        server="limits",
    ),
    row(
        "chunked-over-the-limit",
        chunked("/run/echo", b"c8\r\n" + b"x" * 200 + b"\r\n0\r\n\r\n"),
        server="limits",
    ),
    row(
        "chunked-framing-over-the-limit",
        chunked("/run/echo", b"1\r\nx\r\n" * 20 + b"0\r\n\r\n"),
        server="limits",
    ),
    row(
        "chunked-trailer-over-the-limit",
        chunked("/run/echo", b"1\r\nx\r\n0\r\nX-A: " + b"x" * 200 + b"\r\n\r\n"),
        server="limits",
    ),
    row(
        "junk-after-a-body",
        post("/run/echo", b"hello") + b"x" * 1050,
        methods=["POST", "GET"],
        server="limits",
    ),
]

_EXPECT = "Expect: 100-continue"


def _waiting(*fields: str, version: str = "HTTP/1.1", length: int = 5) -> bytes:
    return request("POST", "/run/echo", f"Content-Length: {length}", *fields, version=version)


EXPECTATIONS = [
    row("expect-then-body", _waiting(_EXPECT), Continue(), b"hello"),
    row("expect-with-body", _waiting(_EXPECT) + b"hello"),
    row("expect-in-capitals", _waiting("Expect: 100-CONTINUE"), Continue(), b"hello"),
    row("expect-environ", request("POST", "/", "Content-Length: 5", _EXPECT), Continue(), b"hello"),
    row("expect-chunked", chunked("/run/echo", b"", _EXPECT), Continue(), _FIVE),
    row("expect-in-1.0", _waiting(_EXPECT, version="HTTP/1.0") + b"hello"),
    row(
        "expect-in-1.0-kept-alive",
        _waiting(_EXPECT, "Connection: keep-alive", version="HTTP/1.0") + b"hello",
    ),
    row(
        "expect-without-body",
        get(_ONE, _EXPECT),
        released_is_silent=True,
        because="D6-expect-without-body",
        ours=_abc(),
    ),
    row(
        "expect-with-length-zero",
        request("POST", _ONE, "Content-Length: 0", _EXPECT),
        released_is_silent=True,
        because="D6-expect-without-body",
        ours=_abc(),
    ),
    row(
        "expect-over-the-limit",
        _waiting(_EXPECT, length=200),
        server="limits",
        released_is_silent=True,
        because="D6-expect-refused-at-once",
        ours=refusal("413 Request Entity Too Large", "exceeds max_body of 100"),
    ),
    row(
        "expect-with-bad-length",
        request("POST", "/run/echo", "Content-Length: x", _EXPECT),
        released_is_silent=True,
        because="D6-expect-refused-at-once",
        ours=_bad("Content-Length is invalid", "1.1"),
    ),
    row("expect-with-bad-coding", request("POST", _ONE, "Transfer-Encoding: gzip", _EXPECT)),
    row(
        "expect-unknown",
        _waiting("Expect: nothing") + b"hello",
        because="RFC9110-expectation-failed",
        ours=_NOT_EXPECTED,
    ),
    row(
        "expect-unknown-without-body",
        get(_ONE, "Expect: nothing"),
        because="RFC9110-expectation-failed",
        ours=_NOT_EXPECTED,
    ),
    row("expect-unknown-in-1.0", get(_ONE, "Expect: nothing", version="HTTP/1.0")),
    row(
        "expect-list",
        _waiting("Expect: 100-continue, 100-continue") + b"hello",
        because="RFC9110-expect-list",
        ours=Answer(_CONTINUE + _HELLO.data, "open"),
    ),
    row(
        "expect-behind-another",
        get(_ONE) + _waiting(_EXPECT),
        Continue(),
        b"hello",
        methods=["GET", "POST"],
    ),
    row(
        "expect-twice-in-turn",
        _waiting(_EXPECT),
        Continue(),
        b"hello",
        Responses(1),
        _waiting(_EXPECT) + b"again",
        methods=["POST", "POST"],
    ),
]

_KEEP = "Connection: keep-alive"
_CLOSE = "Connection: close"

CONNECTIONS = [
    row("close-in-1.1", get(_ONE, _CLOSE)),
    row("close-in-capitals", get(_ONE, "Connection: CLOSE")),
    row("keep-alive-in-1.1", get(_ONE, _KEEP)),
    row("keep-alive-environ", get("/", _KEEP)),
    row("unknown-option-in-1.1", get(_ONE, "Connection: x-option")),
    row(
        "close-among-options",
        get(_ONE, "Connection: close, te"),
        because="D6-connection-token-list",
        ours=closing,
    ),
    row(
        "close-last-of-options",
        get(_ONE, "Connection: te, close"),
        because="D6-connection-token-list",
        ours=closing,
    ),
    row(
        "close-in-a-second-field",
        get(_ONE, "Connection: te", "Connection: close"),
        because="D6-connection-token-list",
        ours=closing,
    ),
    row(
        "close-and-keep-alive",
        get(_ONE, "Connection: keep-alive, close"),
        because="D6-connection-token-list",
        ours=closing,
    ),
    row("close-white-space", get(_ONE, "Connection: \tclose ")),
    row("1.0", get(_ONE, version="HTTP/1.0")),
    row("1.0-environ", get("/", version="HTTP/1.0")),
    row("1.0-keep-alive", get(_ONE, _KEEP, version="HTTP/1.0")),
    row("1.0-keep-alive-in-capitals", get(_ONE, "Connection: Keep-Alive", version="HTTP/1.0")),
    row(
        "1.0-keep-alive-among-options",
        get(_ONE, "Connection: keep-alive, x", version="HTTP/1.0"),
        because="D6-connection-token-list",
        ours=_abc("1.0", "Connection: Keep-Alive"),
    ),
    row("1.0-keep-alive-and-close", get(_ONE, "Connection: keep-alive, close", version="HTTP/1.0")),
    row("1.0-close", get(_ONE, _CLOSE, version="HTTP/1.0")),
    row("1.0-body", post("/run/echo", b"hello", version="HTTP/1.0")),
    row("1.0-body-keep-alive", post("/run/echo", b"hello", _KEEP, version="HTTP/1.0")),
    row(
        "1.0-keep-alive-twice",
        get(_ONE, _KEEP, version="HTTP/1.0") * 2,
        methods=["GET", "GET"],
    ),
    row("1.0-junk-behind", get(_ONE, version="HTTP/1.0") + b"junk\r\n\r\n"),
    row("half-closed", get(_ONE), HalfClose()),
    row("half-closed-after-close", get(_ONE, _CLOSE), HalfClose()),
    row("half-closed-before-anything", HalfClose(), methods=()),
    row("half-closed-in-a-head", b"GET / HTTP/1.1\r\nHost:", HalfClose(), methods=()),
    row("two-in-turn", get(_ONE), Responses(1), get("/run/length-exact"), methods=["GET", "GET"]),
]


def _pipeline(name: str, *requests: bytes, expect: int | None = None, **more: object) -> Row:
    methods = [data.split(b" ", 1)[0].decode() for data in requests]
    return row(
        f"pipelined-{name}",
        b"".join(requests),
        methods=methods[:expect],
        **more,  # type: ignore[arg-type]
    )


PIPELINES = [
    _pipeline("two", get(_ONE), get("/run/length-exact")),
    _pipeline("ten", *[get(_ONE)] * 10),
    _pipeline("ten-looking-ahead", *[get(_ONE)] * 10, server="lookahead"),
    _pipeline("ten-on-one-thread", *[get(_ONE)] * 10, server="one-thread"),
    _pipeline("ten-dumps", *[get(f"/{number}") for number in range(10)]),
    _pipeline("posts", post("/run/echo", b"one"), post("/run/echo", b"two"), get(_ONE)),
    _pipeline("chunked-posts", chunked("/run/echo", _FIVE), chunked("/run/echo", _FIVE), get(_ONE)),
    _pipeline("post-unread", post(_ONE, b"x" * 3000), get(_ONE)),
    _pipeline(
        "head-between",
        get(_ONE),
        run("204-with-a-length", method="HEAD"),
        get(_ONE),
        because="D2-pipelining-continues",
        ours=in_turn(_abc(), _EMPTY_204, _abc()),
    ),
    _pipeline("close-in-the-middle", get(_ONE), get(_ONE, _CLOSE), get(_ONE)),
    _pipeline(
        "close-in-the-middle-looking-ahead",
        get(_ONE),
        get(_ONE, _CLOSE),
        get(_ONE),
        server="lookahead",
    ),
    _pipeline(
        "first-without-length",
        run("generator"),
        get(_ONE),
        because="D2-pipelining-continues",
        ours=followed_by(_abc()),
    ),
    _pipeline(
        "no-block-first",
        run("no-block"),
        get(_ONE),
        because="D2-pipelining-continues",
        ours=followed_by(_abc()),
    ),
    _pipeline(
        "204-first",
        run("204"),
        get(_ONE),
        because="D2-pipelining-continues",
        ours=in_turn(_EMPTY_204, _abc()),
    ),
    _pipeline("1.0-first", get(_ONE, version="HTTP/1.0"), get(_ONE)),
    _pipeline("1.0-kept-alive-first", get(_ONE, _KEEP, version="HTTP/1.0"), get(_ONE)),
    _pipeline("bad-in-the-middle", get(_ONE), b"BAD\r\n\r\n", get(_ONE)),
    _pipeline("bad-first", b"BAD\r\n\r\n", get(_ONE)),
    _pipeline(
        "bad-in-the-middle-looking-ahead", get(_ONE), b"BAD\r\n\r\n", get(_ONE), server="lookahead"
    ),
    _pipeline("bad-chunk-in-the-middle", get(_ONE), chunked("/run/echo", b"x\r\n\r\n"), get(_ONE)),
    _pipeline(
        "coding-in-the-middle", get(_ONE), request("POST", "/", "Transfer-Encoding: x"), get(_ONE)
    ),
    _pipeline("failure-first", run("raises-value-error"), get(_ONE)),
    _pipeline("failure-in-the-middle", get(_ONE), run("raises-value-error"), get(_ONE)),
    _pipeline("too-short-first", run("length-too-long"), get(_ONE)),
    _pipeline("too-much-first", run("length-too-short"), get(_ONE)),
    _pipeline("empty-lines-between", get(_ONE), b"\r\n\r\n" + get(_ONE)),
    _pipeline("one-empty-line-between", get(_ONE), b"\r\n" + get(_ONE)),
    _pipeline("large-then-small", run("large-block"), get(_ONE)),
    _pipeline("file-then-file", run("file-on-disk"), run("file-from-7"), get(_ONE)),
    _pipeline("low-watermark", *[run("large-block")] * 3, get(_ONE), server="low-watermark"),
    _pipeline("tiny-buffers", *[post("/run/echo", b"x" * 100)] * 3, server="tiny-buffers"),
    _pipeline("half-closed", get(_ONE), get(_ONE)),
    _pipeline("upgrade-then-more", get(_ONE, "Upgrade: h2c", "Connection: Upgrade"), get(_ONE)),
    row(
        "pipelined-then-half-closed",
        get(_ONE) * 3,
        HalfClose(),
        methods=["GET", "GET", "GET"],
    ),
]

ROWS = [
    *REQUEST_LINES,
    *TARGETS,
    *FIELDS,
    *BODIES,
    *CHUNKED,
    *LIMITS,
    *EXPECTATIONS,
    *CONNECTIONS,
    *PIPELINES,
]
