"""Rows about applications: what they return, hand over, raise, and how it is framed."""

from __future__ import annotations

from tests.differential.applications import HOP_BY_HOP
from tests.differential.table import (
    FAILED,
    LogLine,
    Row,
    cut_short,
    get,
    persisting,
    request,
    response,
    row,
    run,
    without_body,
)
from tests.differential.wire import Answer

_KEEP = "Connection: keep-alive"
_TEXT = "Content-Type: text/plain"
_TRAILER = ("Trailer", "Trailers")
_FAILED_IN_1_0 = Answer(FAILED.data.replace(b"HTTP/1.1", b"HTTP/1.0"), "closed")


def _served_badly(name: str) -> LogLine:
    return ("waitress", "ERROR", f"Exception while serving /run/{name}")


def _ignored(status: str) -> LogLine:
    text = "application-written content was ignored due to HTTP response that may not contain"
    return ("waitress", "WARNING", f"{text} a message-body: ({status})")


def _in_chunks(chunks: bytes) -> Answer:
    head = (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nDate: (masked)\r\n"
        b"Server: waitress\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    return Answer(head + chunks + b"0\r\n\r\n", "open")


def _bodiless(status: str) -> Answer:
    head = f"HTTP/1.1 {status}\r\n{_TEXT}\r\nDate: (masked)\r\nServer: waitress\r\n\r\n"
    return Answer(head.encode("ascii"), "open")


def _runs(*names: str, prefix: str = "", **more: object) -> list[Row]:
    return [row(f"run-{prefix}{name}", run(name, **more)) for name in names]  # type: ignore[arg-type]


def _run(name: str, **more: object) -> Row:
    return row(f"run-{name}", run(name), **more)  # type: ignore[arg-type]


def _chunked(name: str) -> Row:
    """Framed by chunks in both, the connection kept in ours."""
    return _run(name, because="D2-chunked-keeps-alive", ours=persisting)


BODIES = [
    *_runs(
        "one-block",
        "one-block-in-a-tuple",
        "one-empty-block",
        "no-block-of-declared-length",
        "generator-of-declared-length",
        "sized-iterable-of-one",
        "sized-iterable-that-lies",
        "length-exact",
        "length-too-short",
        "length-too-long",
        "length-too-long-in-a-generator",
        "length-zero-with-a-body",
        "length-three-with-an-empty-body",
        "length-in-small-letters",
        "length-with-a-leading-zero",
        "length-not-a-number",
        "length-empty",
        "large-block",
        "many-small-blocks",
        "number-block",
        "returns-bytes",
        "returns-none",
        "returns-a-number",
    ),
    _run("no-block", because="D2-empty-list-keeps-alive", ours=persisting),
    _chunked("two-blocks"),
    _chunked("empty-then-full"),
    _chunked("generator"),
    _chunked("generator-of-nothing"),
    _chunked("generator-of-empty-blocks"),
    _chunked("old-style-iterable"),
    _chunked("large-generator"),
    *(
        _run(name, because="PEP3333-only-bytes", ours=FAILED, ours_log=[_served_badly(name)])
        for name in ("bytearray-block", "memoryview-block")
    ),
    _run(
        "length-negative",
        because="D6-negative-content-length",
        ours=FAILED,
        ours_log=[_served_badly("length-negative")],
    ),
    _run(
        "length-twice",
        because="D6-two-content-lengths",
        ours=FAILED,
        ours_log=[_served_badly("length-twice")],
    ),
    _run("str-block", because="D6-str-chunks", ours=FAILED),
    _run("str-block-of-declared-length", because="D6-str-chunks", ours=FAILED),
    _run("str-block-after-a-good-one", because="D2-chunked-keeps-alive", ours=cut_short),
    _run("returns-str", because="D6-str-chunks", ours=FAILED),
]

STATUSES = [
    *_runs(
        "205",
        "201",
        "302",
        "404",
        "500",
        "status-of-two-words",
        "status-with-an-empty-reason",
        "status-in-latin-1",
        "status-beyond-latin-1",
        "status-with-line-feed",
        "status-with-carriage-return",
        "status-number",
        "status-bytes",
    ),
    _run("204", because="D2-204-keeps-alive", ours=persisting),
    _run("204-with-a-length", because="D2-204-keeps-alive", ours=persisting),
    _run("204-with-a-body", because="D2-204-keeps-alive", ours=persisting),
    _run("204-with-a-body-of-no-length", because="D2-204-keeps-alive", ours=persisting),
    _run("304", because="D2-304-keeps-alive", ours=persisting),
    _run(
        "304-with-a-length",
        because=("D2-304-keeps-alive", "D6-no-bogus-length-warning"),
        ours=persisting,
        ours_log=[],
    ),
    _run("304-with-a-body", because="D2-304-keeps-alive", ours=persisting),
    _run("status-without-a-reason", because="PEP3333-status-form", ours=response("200 ", b"abc")),
    _run(
        "status-without-a-number",
        because="PEP3333-status-form",
        ours=FAILED,
        ours_log=[_served_badly("status-without-a-number")],
    ),
    _run(
        "status-of-four-digits",
        because="PEP3333-status-form",
        ours=FAILED,
        ours_log=[_served_badly("status-of-four-digits")],
    ),
    _run(
        "status-of-two-digits",
        because="PEP3333-status-form",
        ours=FAILED,
        ours_log=[_served_badly("status-of-two-digits")],
    ),
    _run(
        "status-with-a-control",
        because="PEP3333-status-form",
        ours=FAILED,
        ours_log=[_served_badly("status-with-a-control")],
    ),
    _run(
        "status-empty",
        because="PEP3333-status-form",
        ours=FAILED,
        ours_log=[_served_badly("status-empty")],
    ),
]

HEADERS = [
    *_runs(
        "headers-none",
        "headers-recapitalised",
        "headers-sorted",
        "headers-repeated",
        "headers-empty-value",
        "headers-white-space-around-value",
        "headers-tab-in-value",
        "headers-latin-1",
        "headers-beyond-latin-1",
        "headers-as-lists",
        "headers-as-tuple",
        "headers-of-a-dict",
        "headers-date-own",
        "headers-server-own",
        "headers-via-own",
        "headers-name-not-text",
        "headers-value-not-text",
        "headers-value-number",
        "headers-value-with-line-feed",
        "headers-value-with-carriage-return",
        "headers-name-with-line-feed",
        "headers-triple",
        "headers-no-pairs",
        "headers-not-iterable",
    ),
    _run(
        "headers-from-an-iterator",
        because="D6-header-iterators",
        ours=response("200 OK", b"abc", "X-Iterator: 1"),
    ),
    _run(
        "headers-date-empty",
        because="D6-empty-date",
        ours=response("200 OK", b"abc"),
    ),
    _run(
        "headers-server-empty",
        because="D6-empty-server",
        ours=response("200 OK", b"abc", "Server: ", "Via: waitress", server=None),
    ),
    _run(
        "headers-value-with-nul",
        because="PEP3333-header-value-controls",
        ours=FAILED,
        ours_log=[_served_badly("headers-value-with-nul")],
    ),
    _run(
        "headers-value-with-escape",
        because="PEP3333-header-value-controls",
        ours=FAILED,
        ours_log=[_served_badly("headers-value-with-escape")],
    ),
    _run(
        "headers-name-with-space",
        because="PEP3333-header-name-token",
        ours=FAILED,
        ours_log=[_served_badly("headers-name-with-space")],
    ),
    _run(
        "headers-name-with-colon",
        because="PEP3333-header-name-token",
        ours=FAILED,
        ours_log=[_served_badly("headers-name-with-colon")],
    ),
    _run(
        "headers-name-empty",
        because="PEP3333-header-name-token",
        ours=FAILED,
        ours_log=[_served_badly("headers-name-empty")],
    ),
    _run(
        "headers-name-in-latin-1",
        because="PEP3333-header-name-token",
        ours=FAILED,
        ours_log=[_served_badly("headers-name-in-latin-1")],
    ),
    *_runs(*(f"hop-by-hop-{name}" for name, _ in HOP_BY_HOP if name not in _TRAILER)),
    _run(
        "hop-by-hop-Trailer",
        because="N17-trailer-is-hop-by-hop",
        ours=FAILED,
        ours_log=[_served_badly("hop-by-hop-Trailer")],
    ),
    _run(
        "hop-by-hop-Trailers",
        because="N17-trailer-is-hop-by-hop",
        ours=response("200 OK", b"abc", "Trailers: X-A"),
        ours_log=[],
    ),
]

CALLS = [
    *_runs(
        "start-response-twice",
        "start-response-again-for-an-error",
        "start-response-first-with-exc-info",
        "start-response-exc-info-none",
        "start-response-exc-info-by-keyword",
        "start-response-after-the-head",
        "start-response-never",
        "start-response-never-no-block",
        "start-response-late",
        "start-response-failed-and-caught",
        "write-of-declared-length",
        "write-too-much",
        "write-too-little",
        "writes-errors",
    ),
    _run(
        "start-response-again-drops-the-length",
        because="D6-exc-info-resets-length",
        ours=response("500 Oh No", b"sorry", _TEXT),
        ours_log=[],
    ),
    _run("write-once", because="D2-chunked-keeps-alive", ours=persisting),
    _run(
        "write-twice-then-iterate",
        because=("D2-chunked-keeps-alive", "D6-no-bogus-length-warning"),
        ours=persisting,
        ours_log=[],
    ),
    _run(
        "write-nothing",
        because=("D2-chunked-keeps-alive", "D6-no-bogus-length-warning"),
        ours=persisting,
        ours_log=[],
    ),
    _run("write-text", because="D6-str-chunks", ours=FAILED),
    _run("write-then-fail", because="D2-chunked-keeps-alive", ours=cut_short),
    _run("write-with-204", because="D2-204-keeps-alive", ours=persisting),
]

FAILURES = [
    *_runs(
        "raises-value-error",
        "raises-unicode",
        "raises-os-error",
        "raises-broken-pipe",
        "raises-stop-iteration",
        "raises-memory-error",
        "raises-recursion-error",
        "raises-after-start-response",
        "raises-before-the-first-block",
        "raises-after-an-empty-block",
        "raises-after-a-block-of-declared-length",
        "raises-after-the-whole-length",
        "closed-after-success",
        "closed-without-blocks",
        "closed-after-failure",
        "closed-without-start-response",
        "closing-fails-before-the-head",
    ),
    *(
        _run(name, because="D2-chunked-keeps-alive", ours=cut_short)
        for name in (
            "raises-after-the-first-block",
            "os-error-after-the-first-block",
            "closing-fails",
        )
    ),
    _run(
        "raises-system-exit",
        released_is_silent=True,
        because="D6-base-exceptions-answered",
        ours=FAILED,
        ours_log=[_served_badly("raises-system-exit")],
    ),
    _run(
        "raises-keyboard-interrupt",
        released_is_silent=True,
        because="D6-base-exceptions-answered",
        ours=FAILED,
        ours_log=[_served_badly("raises-keyboard-interrupt")],
    ),
    _run(
        "raises-generator-exit",
        released_is_silent=True,
        because="D6-base-exceptions-answered",
        ours=FAILED,
        ours_log=[_served_badly("raises-generator-exit")],
    ),
    row(
        "run-raises-os-error-quietly",
        run("raises-os-error"),
        server="quiet",
        because="D6-application-oserror",
        ours=FAILED,
        ours_log=[_served_badly("raises-os-error")],
    ),
    row(
        "run-os-error-in-mid-body-quietly",
        run("os-error-after-the-first-block"),
        server="quiet",
        because="D6-application-oserror",
        ours=cut_short,
        ours_log=[_served_badly("os-error-after-the-first-block")],
    ),
    row(
        "run-raises-broken-pipe-quietly",
        run("raises-broken-pipe"),
        server="quiet",
        because="D6-application-oserror",
        ours=FAILED,
        ours_log=[_served_badly("raises-broken-pipe")],
    ),
]

FILES = [
    *_runs(
        "file",
        "file-from-7",
        "file-empty-of-declared-length",
        "file-on-disk",
        "file-on-disk-of-declared-length",
        "file-on-disk-from-the-middle",
        "file-length-exact",
        "file-length-1",
        "file-length-0",
        "file-length-too-long",
        "file-of-block-size-4",
        "file-unseekable-length-exact",
        "file-unseekable-length-too-long",
        "file-unseekable-length-too-short",
        "file-pipe-length-exact",
        "file-told",
        "file-told-length-0",
        "file-unwrapped-by-middleware",
        "file-described",
        "file-without-start-response",
    ),
    _run("file-empty", because="D2-chunked-keeps-alive", ours=persisting),
    _run("file-told-empty", because="D2-chunked-keeps-alive", ours=persisting),
    _run("file-unseekable", because="D2-chunked-keeps-alive", ours=persisting),
    _run("file-unseekable-of-block-size-4", because="D2-chunked-keeps-alive", ours=persisting),
    _run("file-unseekable-empty", because="D2-chunked-keeps-alive", ours=persisting),
    _run("file-that-says-unseekable", because="D2-chunked-keeps-alive", ours=persisting),
    _run("file-pipe", because="D2-chunked-keeps-alive", ours=persisting),
    _run(
        "file-that-does-not-tell",
        because="D6-file-tell-raises",
        ours=_in_chunks(b"D\r\nhello, world\n\r\n"),
        ours_log=[],
    ),
    _run(
        "file-with-204",
        because="D6-file-wrapper-no-body",
        ours=_bodiless("204 No Content"),
        ours_log=[_ignored("204 No Content")],
    ),
    _run(
        "file-with-304",
        because="D6-file-wrapper-no-body",
        ours=_bodiless("304 Not Modified"),
        ours_log=[_ignored("304 Not Modified")],
    ),
    _run(
        "file-told-with-204",
        because="D6-file-wrapper-no-body",
        ours=_bodiless("204 No Content"),
        ours_log=[_ignored("204 No Content"), ("application", "WARNING", "closed: file")],
    ),
    _run(
        "file-after-write",
        because="D6-file-after-write",
        ours=_in_chunks(b"7\r\nbefore \r\nD\r\nhello, world\n\r\n"),
    ),
]


def _head(name: str, **more: object) -> Row:
    """A HEAD request that the released package answers with a body."""
    more = {"because": "D6-head-no-body", "ours": without_body, **more}
    return row(f"run-head-{name}", run(name, method="HEAD"), **more)  # type: ignore[arg-type]


def _head_in_chunks(answer: Answer) -> Answer:
    return without_body(persisting(answer))


_HEAD_IN_CHUNKS = ("D6-head-no-body", "D2-chunked-keeps-alive")

HEADS = [
    *_runs(
        "length-three-with-an-empty-body",
        "no-block-of-declared-length",
        "closed-without-blocks",
        prefix="head-",
        method="HEAD",
    ),
    _head("one-block"),
    _head("length-exact"),
    _head("length-too-long"),
    _head("length-too-short", ours_log=[]),
    _head("write-of-declared-length"),
    _head("file"),
    _head("file-length-exact"),
    _head("file-on-disk"),
    _head("404"),
    _head("raises-value-error"),
    *(
        _head(name, because=_HEAD_IN_CHUNKS, ours=_head_in_chunks)
        for name in ("no-block", "two-blocks", "generator", "write-once", "file-unseekable")
    ),
    _head(
        "raises-after-the-first-block",
        because=_HEAD_IN_CHUNKS,
        ours=lambda answer: without_body(cut_short(answer)),
    ),
    _head("204", because="D2-204-keeps-alive", ours=persisting),
    _head("304-with-a-length", because="D2-304-keeps-alive", ours=persisting),
    row(
        "head-of-the-environ",
        request("HEAD", "/"),
        because="D6-head-no-body",
        ours=without_body,
    ),
    row("head-of-a-bad-request", b"HEAD / HTTP/1.1\r\nHost : x\r\n\r\n"),
    row("head-over-the-head-limit", run("x", "X-A: " + "x" * 2000, method="HEAD"), server="limits"),
]

OLD_VERSION = [
    *_runs(
        "one-block",
        "no-block",
        "two-blocks",
        "generator",
        "length-exact",
        "length-too-long",
        "length-too-short",
        "204",
        "304",
        "write-once",
        "file",
        "file-unseekable",
        "raises-value-error",
        "raises-after-the-first-block",
        "headers-server-own",
        prefix="1.0-",
        version="HTTP/1.0",
    ),
    *(
        row(f"run-1.0-kept-{name}", run(name, _KEEP, version="HTTP/1.0"))
        for name in (
            "one-block",
            "one-empty-block",
            "no-block",
            "no-block-of-declared-length",
            "two-blocks",
            "generator",
            "generator-of-declared-length",
            "length-too-long",
            "length-too-short",
            "204",
            "204-with-a-length",
            "304",
            "write-once",
            "write-of-declared-length",
            "file",
            "file-unseekable",
        )
    ),
    *(
        row(
            f"run-1.0-kept-{name}",
            run(name, _KEEP, version="HTTP/1.0"),
            because="D6-one-connection-field",
            ours=_FAILED_IN_1_0,
        )
        for name in ("raises-value-error", "headers-value-with-line-feed")
    ),
    row(
        "run-1.0-kept-head",
        run("length-exact", _KEEP, method="HEAD", version="HTTP/1.0"),
        because="D6-head-no-body",
        ours=without_body,
    ),
    row("run-closed-generator", run("generator", "Connection: close")),
    row("run-closed-204", run("204", "Connection: close")),
    row("run-closed-file", run("file", "Connection: close")),
    row("run-closed-failure", run("raises-value-error", "Connection: close")),
    row("run-closed-length-too-long", run("length-too-long", "Connection: close")),
]

IN_TURN = [
    row(
        "headers-do-not-accumulate",
        run("headers-repeated") + run("one-block") + run("headers-sorted"),
        methods=["GET"] * 3,
    ),
    row("closings-in-turn", run("closed-after-success") * 3, methods=["GET"] * 3),
    row("file-then-environ", run("file-told") + get("/"), methods=["GET"] * 2),
]

ROWS: list[Row] = [
    *BODIES,
    *STATUSES,
    *HEADERS,
    *CALLS,
    *FAILURES,
    *FILES,
    *HEADS,
    *OLD_VERSION,
    *IN_TURN,
]
