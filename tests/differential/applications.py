"""The applications that both servers run, one behaviour each.

``application`` looks at the path: ``/run/<name>`` runs the behaviour of that name,
``/probe`` says that the connection is alive, anything else dumps what the application
sees. This module runs under both packages and imports neither.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import IO, Any

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], object]]
Application = Callable[[Environ, StartResponse], Any]

BEHAVIOURS: dict[str, Application] = {}

TEXT = [("Content-Type", "text/plain")]
HELLO = b"hello, world\n"
LARGE = bytes(range(256)) * 1200  # 300 KiB: more than one read of any block size here

log = logging.getLogger("application")
"""Closings are logged, because the log is compared too, and so counts them."""


def behaviour(function: Application) -> Application:
    """Register ``function``; ``str_block`` is served at ``/run/str-block``."""
    BEHAVIOURS[function.__name__.replace("_", "-")] = function
    return function


def application(environ: Environ, start_response: StartResponse) -> Any:
    path = environ["PATH_INFO"]
    if path == "/probe":
        start_response("200 OK", [("Content-Length", "0"), ("X-Probe", "alive")])
        return [b""]
    if path.startswith("/run/"):
        return BEHAVIOURS[path[len("/run/") :]](environ, start_response)
    return dump(environ, start_response)


# What the application sees.


def dump(environ: Environ, start_response: StartResponse) -> Any:
    """Answer with the sorted environ, what changes from run to run masked."""
    port = environ.pop("differential.port")
    seen = {name: _steady(name, value, port) for name, value in environ.items()}
    body_stream = environ["wsgi.input"]
    start = body_stream.tell()
    body = body_stream.read()
    seen["(body)"] = {
        "start": start,
        "length": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "head": body[:40].decode("latin-1"),
    }
    answer = json.dumps(seen, indent=0, sort_keys=True).encode("ascii")
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(answer)))]
    start_response("200 OK", headers)
    return [answer]


def _steady(name: str, value: Any, port: str) -> Any:
    if name == "SERVER_PORT" and value == port:
        return "(the server's port)"
    if name == "REMOTE_PORT" and isinstance(value, str) and value.isdigit() and len(value) > 3:
        return "(the client's port)"
    if name == "wsgi.errors":
        return "sys.stderr" if value is sys.stderr else repr(type(value))
    if name == "wsgi.file_wrapper":
        return f"a class: {isinstance(value, type)}, {value.__name__}"
    if name == "wsgi.input":
        return type(value).__name__
    if name == "waitress.client_disconnected":
        return f"returns {value()!r}"
    if isinstance(value, str):
        return value
    return repr(value)


# Bodies and their lengths.


def _plain(
    start_response: StartResponse, *headers: tuple[str, str], status: str = "200 OK"
) -> None:
    start_response(status, [*TEXT, *headers])


@behaviour
def one_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return [b"abc"]


@behaviour
def one_block_in_a_tuple(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return (b"abc",)


@behaviour
def one_empty_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return [b""]


@behaviour
def no_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return []


@behaviour
def no_block_of_declared_length(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "0"))
    return []


@behaviour
def two_blocks(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return [b"a", b"bcd" * 10]


@behaviour
def empty_then_full(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return [b"", b"abc", b""]


@behaviour
def generator(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    yield b"first"
    yield b""
    yield b"second, longer than fifteen"


@behaviour
def generator_of_nothing(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return iter(())


@behaviour
def generator_of_empty_blocks(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    yield b""
    yield b""


@behaviour
def generator_of_declared_length(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "6"))
    yield b"abc"
    yield b"def"


class _Sized:
    """An iterable with a length that is no list."""

    def __init__(self, length: int, *blocks: bytes) -> None:
        self.length = length
        self.blocks = blocks

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)


@behaviour
def sized_iterable_of_one(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return _Sized(1, b"abc")


@behaviour
def sized_iterable_that_lies(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return _Sized(1, b"abc", b"def")


class _OldStyle:
    """An iterable of the days before iterators."""

    def __getitem__(self, index: int) -> bytes:
        return (b"old", b"style")[index]


@behaviour
def old_style_iterable(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return _OldStyle()


@behaviour
def length_exact(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "13"))
    return [HELLO]


@behaviour
def length_too_short(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "2"))
    return [b"abc", b"d"]


@behaviour
def length_too_long(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "5"))
    return [b"abc"]


@behaviour
def length_too_long_in_a_generator(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "7"))
    yield b"abc"
    yield b"def"


@behaviour
def length_zero_with_a_body(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "0"))
    return [b"abc"]


@behaviour
def length_three_with_an_empty_body(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "3"))
    return [b""]


@behaviour
def length_in_small_letters(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("content-length", "3"))
    return [b"abc"]


@behaviour
def length_with_a_leading_zero(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "003"))
    return [b"abc"]


@behaviour
def length_not_a_number(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "three"))
    return [b"abc"]


@behaviour
def length_empty(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", ""))
    return [b"abc"]


@behaviour
def length_negative(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "-1"))
    return [b"abc"]


@behaviour
def length_twice(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "3"), ("Content-Length", "3"))
    return [b"abc"]


@behaviour
def large_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return [LARGE]


@behaviour
def large_generator(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    for start in range(0, len(LARGE), 4096):
        yield LARGE[start : start + 4096]


@behaviour
def many_small_blocks(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "3000"))
    return [b"x"] * 3000


@behaviour
def bytearray_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "3"))
    return [bytearray(b"abc")]


@behaviour
def memoryview_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "3"))
    return [memoryview(b"abc")]


@behaviour
def str_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return ["abc"]


@behaviour
def str_block_of_declared_length(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response, ("Content-Length", "3"))
    return ["abc"]


@behaviour
def str_block_after_a_good_one(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    yield b"good"
    yield "bad"


@behaviour
def number_block(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return [5]


@behaviour
def returns_bytes(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return b"abc"


@behaviour
def returns_str(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return "abc"


@behaviour
def returns_none(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)


@behaviour
def returns_a_number(environ: Environ, start_response: StartResponse) -> Any:
    _plain(start_response)
    return 5


# Statuses.


def _status(status: str, body: bytes, *headers: tuple[str, str]) -> Application:
    def serve(environ: Environ, start_response: StartResponse) -> Any:
        start_response(status, list(headers))
        return [body] if body else []

    return serve


_LENGTH_3 = ("Content-Length", "3")
_ETAG = ("ETag", '"v1"')
BEHAVIOURS.update(
    {
        "204": _status("204 No Content", b""),
        "204-with-a-length": _status("204 No Content", b"", ("Content-Length", "0")),
        "204-with-a-body": _status("204 No Content", b"abc", _LENGTH_3),
        "204-with-a-body-of-no-length": _status("204 No Content", b"abc"),
        "304": _status("304 Not Modified", b"", _ETAG),
        "304-with-a-length": _status("304 Not Modified", b"", _ETAG, _LENGTH_3),
        "304-with-a-body": _status("304 Not Modified", b"abc", _ETAG, _LENGTH_3),
        "205": _status("205 Reset Content", b"", ("Content-Length", "0")),
        "201": _status("201 Created", b"abc", ("Location", "/new")),
        "302": _status("302 Found", b"", ("Location", "/there"), ("Content-Length", "0")),
        "404": _status("404 Not Found", b"gone", *TEXT),
        "500": _status("500 Internal Server Error", b"the application's own", *TEXT),
        "status-of-two-words": _status("299 Quite All Right", b"abc"),
        "status-with-an-empty-reason": _status("200 ", b"abc"),
        "status-without-a-reason": _status("200", b"abc"),
        "status-in-latin-1": _status("200 D\xe9j\xe0 vu", b"abc"),
        "status-beyond-latin-1": _status("200 \u20ac", b"abc"),
        "status-without-a-number": _status("Fine", b"abc"),
        "status-of-four-digits": _status("2000 OK", b"abc"),
        "status-of-two-digits": _status("20 OK", b"abc"),
        "status-with-a-control": _status("200 O\x00K", b"abc"),
        "status-empty": _status("", b"abc"),
        "status-with-line-feed": _status("200 OK\nX-Evil: 1", b"abc"),
        "status-with-carriage-return": _status("200 OK\rX-Evil: 1", b"abc"),
        "status-number": _status(200, b"abc"),  # type: ignore[arg-type]
        "status-bytes": _status(b"200 OK", b"abc"),  # type: ignore[arg-type]
    }
)


# Response headers.


def _headers(headers: Any) -> Application:
    def serve(environ: Environ, start_response: StartResponse) -> Any:
        start_response("200 OK", headers() if callable(headers) else headers)
        return [b"abc"]

    return serve


BEHAVIOURS.update(
    {
        "headers-none": _headers([]),
        "headers-recapitalised": _headers(
            [("x-FOO-bar", "1"), ("ETag", '"1"'), ("WWW-Authenticate", "Basic"), ("dNT", "1")]
        ),
        "headers-sorted": _headers([("Zebra", "1"), ("Apple", "2"), ("Mango", "3")]),
        "headers-repeated": _headers(
            [("Set-Cookie", "b=2"), ("Vary", "x"), ("Set-Cookie", "a=1"), ("set-cookie", "c=3")]
        ),
        "headers-empty-value": _headers([("X-Empty", "")]),
        "headers-white-space-around-value": _headers([("X-Spaces", "  a  b  ")]),
        "headers-tab-in-value": _headers([("X-Tab", "a\tb")]),
        "headers-latin-1": _headers([("X-Name", "caf\xe9")]),
        "headers-beyond-latin-1": _headers([("X-Name", "\u20ac")]),
        "headers-as-lists": _headers([["X-List", "1"]]),
        "headers-as-tuple": _headers((("X-Tuple", "1"), ("Content-Length", "3"))),
        "headers-of-a-dict": _headers({"X-Dict": "1", "Content-Length": "3"}.items()),
        "headers-from-an-iterator": _headers(
            lambda: iter([("X-Iterator", "1"), ("Content-Length", "3")])
        ),
        "headers-date-own": _headers([("Date", "yesterday")]),
        "headers-date-empty": _headers([("Date", "")]),
        "headers-server-own": _headers([("Server", "mine")]),
        "headers-server-empty": _headers([("Server", "")]),
        "headers-via-own": _headers([("Via", "1.1 me"), ("Server", "mine")]),
        "headers-name-not-text": _headers([(b"X-Bytes", "1")]),
        "headers-value-not-text": _headers([("X-Bytes", b"1")]),
        "headers-value-number": _headers([("X-Number", 1)]),
        "headers-value-with-line-feed": _headers([("X-A", "a\nX-Evil: 1")]),
        "headers-value-with-carriage-return": _headers([("X-A", "a\rX-Evil: 1")]),
        "headers-name-with-line-feed": _headers([("X-A\nX-Evil", "1")]),
        "headers-value-with-nul": _headers([("X-A", "a\x00b")]),
        "headers-value-with-escape": _headers([("X-A", "a\x1bb")]),
        "headers-name-with-space": _headers([("X A", "1")]),
        "headers-name-with-colon": _headers([("X-A:", "1")]),
        "headers-name-empty": _headers([("", "1")]),
        "headers-name-in-latin-1": _headers([("X-\xe9", "1")]),
        "headers-triple": _headers([("X-A", "1", "2")]),
        "headers-no-pairs": _headers(["X-A: 1"]),
        "headers-not-iterable": _headers(5),
    }
)
HOP_BY_HOP = (
    ("Connection", "close"),
    ("connection", "keep-alive"),
    ("Keep-Alive", "timeout=5"),
    ("Proxy-Authenticate", "Basic"),
    ("Proxy-Authorization", "Basic"),
    ("TE", "trailers"),
    ("Trailer", "X-A"),
    ("Trailers", "X-A"),
    ("Transfer-Encoding", "chunked"),
    ("Upgrade", "h2c"),
)
for _name, _value in HOP_BY_HOP:
    BEHAVIOURS[f"hop-by-hop-{_name}"] = _headers([(_name, _value)])


# start_response and write.


@behaviour
def start_response_twice(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    start_response("404 Not Found", TEXT)
    return [b"abc"]


def _failure() -> Any:
    try:
        raise LookupError("lost")
    except LookupError:
        return sys.exc_info()


@behaviour
def start_response_again_for_an_error(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("X-First", "1")])
    start_response("500 Oh No", [("X-Second", "2")], _failure())
    return [b"abc"]


@behaviour
def start_response_again_drops_the_length(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [("Content-Length", "13")])
    start_response("500 Oh No", TEXT, _failure())
    return [b"sorry"]


@behaviour
def start_response_first_with_exc_info(environ: Environ, start_response: StartResponse) -> Any:
    start_response("500 Oh No", TEXT, _failure())
    return [b"abc"]


@behaviour
def start_response_exc_info_none(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT, None)
    return [b"abc"]


@behaviour
def start_response_exc_info_by_keyword(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", headers=TEXT, exc_info=None)
    return [b"abc"]


@behaviour
def start_response_after_the_head(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "20")])
    yield b"part"
    start_response("500 Oh No", TEXT, _failure())
    yield b"never"


@behaviour
def start_response_never(environ: Environ, start_response: StartResponse) -> Any:
    return [b"abc"]


@behaviour
def start_response_never_no_block(environ: Environ, start_response: StartResponse) -> Any:
    return []


@behaviour
def start_response_late(environ: Environ, start_response: StartResponse) -> Any:
    """A generator's first line runs only when it is iterated: allowed by PEP 3333."""
    start_response("200 OK", [*TEXT, ("Content-Length", "4")])
    yield b"late"


@behaviour
def start_response_failed_and_caught(environ: Environ, start_response: StartResponse) -> Any:
    try:
        start_response("200 OK", [("X-Bad", "a\nb")])
    except ValueError:
        start_response("500 Caught", TEXT, sys.exc_info())
    return [b"caught"]


@behaviour
def write_once(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", TEXT)
    write(b"written")
    return []


@behaviour
def write_twice_then_iterate(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", TEXT)
    write(b"one")
    write(b"two")
    return [b"three"]


@behaviour
def write_of_declared_length(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", [*TEXT, ("Content-Length", "9")])
    write(b"one")
    return [b"two", b"six"]


@behaviour
def write_too_much(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", [*TEXT, ("Content-Length", "4")])
    write(b"one")
    write(b"two")
    return [b"six"]


@behaviour
def write_too_little(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", [*TEXT, ("Content-Length", "9")])
    write(b"one")
    return []


@behaviour
def write_nothing(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", TEXT)
    write(b"")
    return [b"abc"]


@behaviour
def write_text(environ: Environ, start_response: StartResponse) -> Any:
    write: Any = start_response("200 OK", TEXT)
    write("text")
    return []


@behaviour
def write_with_204(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("204 No Content", [])
    write(b"abc")
    return []


@behaviour
def write_then_fail(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", TEXT)
    write(b"written")
    raise ValueError("after writing")


# Failures.


def _raising(error: BaseException) -> Application:
    def serve(environ: Environ, start_response: StartResponse) -> Any:
        raise error

    return serve


BEHAVIOURS.update(
    {
        "raises-value-error": _raising(ValueError("wrong")),
        "raises-unicode": _raising(ValueError("\u20ac \xe9")),
        "raises-os-error": _raising(OSError(2, "no such thing")),
        "raises-broken-pipe": _raising(BrokenPipeError(32, "the application's own pipe")),
        "raises-stop-iteration": _raising(StopIteration()),
        "raises-memory-error": _raising(MemoryError()),
        "raises-recursion-error": _raising(RecursionError("deep")),
        "raises-system-exit": _raising(SystemExit(3)),
        "raises-keyboard-interrupt": _raising(KeyboardInterrupt()),
        "raises-generator-exit": _raising(GeneratorExit()),
    }
)


@behaviour
def raises_after_start_response(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "3")])
    raise ValueError("too late")


@behaviour
def raises_before_the_first_block(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    if environ:
        raise ValueError("in the generator")
    yield b""


@behaviour
def raises_after_an_empty_block(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    yield b""
    raise ValueError("nothing was sent yet")


@behaviour
def raises_after_the_first_block(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    yield b"first"
    raise ValueError("in the middle")


@behaviour
def raises_after_a_block_of_declared_length(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "10")])
    yield b"first"
    raise ValueError("in the middle")


@behaviour
def raises_after_the_whole_length(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "5")])
    yield b"first"
    raise ValueError("at the end")


@behaviour
def os_error_after_the_first_block(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    yield b"first"
    raise OSError(5, "the application's own disk")


class _Closing:
    """An iterable that tells the log when it is closed, and may fail then."""

    def __init__(self, name: str, blocks: Iterable[bytes], error: Exception | None = None) -> None:
        self.name = name
        self.blocks = blocks
        self.error = error

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.blocks)

    def close(self) -> None:
        log.warning("closed: %s", self.name)
        if self.error is not None:
            raise self.error


@behaviour
def closed_after_success(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "3")])
    return _Closing("success", [b"abc"])


@behaviour
def closed_without_blocks(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", "0")])
    return _Closing("nothing", [])


@behaviour
def closed_after_failure(environ: Environ, start_response: StartResponse) -> Any:
    def blocks() -> Iterator[bytes]:
        if environ:
            raise ValueError("no block")
        yield b""

    start_response("200 OK", TEXT)
    return _Closing("failure", blocks())


@behaviour
def closed_without_start_response(environ: Environ, start_response: StartResponse) -> Any:
    return _Closing("unstarted", [b"abc"])


@behaviour
def closing_fails(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    return _Closing("failing", [b"abc"], ValueError("cannot close"))


@behaviour
def closing_fails_before_the_head(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", TEXT)
    return _Closing("failing early", [], ValueError("cannot close"))


# Request bodies.


def _reading(read: Callable[[Any], object]) -> Application:
    def serve(environ: Environ, start_response: StartResponse) -> Any:
        answer = repr(read(environ["wsgi.input"])).encode("ascii", "backslashreplace")
        start_response("200 OK", [*TEXT, ("Content-Length", str(len(answer)))])
        return [answer]

    return serve


BEHAVIOURS.update(
    {
        "reads-all": _reading(lambda stream: stream.read()),
        "reads-in-threes": _reading(lambda stream: list(iter(lambda: stream.read(3), b""))),
        "reads-beyond": _reading(
            lambda stream: (stream.read(10_000), stream.read(), stream.read(1))
        ),
        "reads-lines": _reading(lambda stream: stream.readlines()),
        "reads-line-by-line": _reading(lambda stream: [stream.readline() for _ in range(4)]),
        "reads-bounded-lines": _reading(lambda stream: [stream.readline(4) for _ in range(4)]),
        "reads-with-a-hint": _reading(lambda stream: stream.readlines(2)),
        "reads-by-iteration": _reading(list),
        "reads-digest": _reading(lambda stream: hashlib.sha256(stream.read()).hexdigest()),
    }
)


@behaviour
def echo(environ: Environ, start_response: StartResponse) -> Any:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(body)))])
    return [body]


@behaviour
def writes_errors(environ: Environ, start_response: StartResponse) -> Any:
    environ["wsgi.errors"].write("to the error stream\n")
    environ["wsgi.errors"].flush()
    start_response("200 OK", TEXT)
    return [b"abc"]


# Files.


class _Unseekable:
    """A stream with nothing but ``read``."""

    def __init__(self, body: bytes) -> None:
        self._stream = io.BytesIO(body)

    def read(self, size: int = -1) -> bytes:
        return self._stream.read(size)


class _SaysUnseekable(io.BytesIO):
    def seekable(self) -> bool:
        return False


class _NotTelling(io.BytesIO):
    def tell(self) -> int:
        raise OSError(29, "this file does not tell")


class _ToldFile(io.BytesIO):
    def close(self) -> None:
        if not self.closed:
            log.warning("closed: file")
        super().close()


def _file(
    make: Callable[[], Any],
    *headers: tuple[str, str],
    status: str = "200 OK",
    block_size: int | None = None,
) -> Application:
    def serve(environ: Environ, start_response: StartResponse) -> Any:
        start_response(status, [*TEXT, *headers])
        wrap = environ["wsgi.file_wrapper"]
        return wrap(make()) if block_size is None else wrap(make(), block_size)

    return serve


def _hello() -> IO[bytes]:
    return io.BytesIO(HELLO)


def _hello_from_7() -> IO[bytes]:
    stream = _hello()
    stream.seek(7)
    return stream


def _on_disk() -> IO[bytes]:
    stream = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    stream.write(LARGE)
    stream.seek(0)
    return stream


def _on_disk_from_the_middle() -> IO[bytes]:
    stream = _on_disk()
    stream.seek(len(LARGE) - 1000)
    return stream


def _pipe() -> IO[bytes]:
    read_end, write_end = os.pipe()
    os.write(write_end, HELLO)
    os.close(write_end)
    return os.fdopen(read_end, "rb")


def _length(length: int) -> tuple[str, str]:
    return ("Content-Length", str(length))


def _unseekable() -> Any:
    return _Unseekable(HELLO)


BEHAVIOURS.update(
    {
        "file": _file(_hello),
        "file-from-7": _file(_hello_from_7),
        "file-empty": _file(io.BytesIO),
        "file-empty-of-declared-length": _file(io.BytesIO, _length(0)),
        "file-on-disk": _file(_on_disk),
        "file-on-disk-of-declared-length": _file(_on_disk, _length(len(LARGE))),
        "file-on-disk-from-the-middle": _file(_on_disk_from_the_middle),
        "file-length-exact": _file(_hello, _length(len(HELLO))),
        "file-length-1": _file(_hello, _length(1)),
        "file-length-0": _file(_hello, _length(0)),
        "file-length-too-long": _file(_hello, _length(len(HELLO) + 10)),
        "file-of-block-size-4": _file(_hello, block_size=4),
        "file-unseekable": _file(_unseekable),
        "file-unseekable-of-block-size-4": _file(_unseekable, block_size=4),
        "file-unseekable-length-exact": _file(_unseekable, _length(len(HELLO))),
        "file-unseekable-length-too-long": _file(_unseekable, _length(len(HELLO) + 10)),
        "file-unseekable-length-too-short": _file(_unseekable, _length(5)),
        "file-unseekable-empty": _file(lambda: _Unseekable(b"")),
        "file-that-says-unseekable": _file(lambda: _SaysUnseekable(HELLO)),
        "file-pipe": _file(_pipe),
        "file-pipe-length-exact": _file(_pipe, _length(len(HELLO))),
        "file-that-does-not-tell": _file(lambda: _NotTelling(HELLO)),
        "file-with-204": _file(_hello, status="204 No Content"),
        "file-with-304": _file(_hello, status="304 Not Modified"),
        "file-told": _file(lambda: _ToldFile(HELLO)),
        "file-told-with-204": _file(lambda: _ToldFile(HELLO), status="204 No Content"),
        "file-told-length-0": _file(lambda: _ToldFile(HELLO), _length(0)),
        "file-told-empty": _file(_ToldFile),
    }
)


@behaviour
def file_unwrapped_by_middleware(environ: Environ, start_response: StartResponse) -> Any:
    start_response("200 OK", [*TEXT, ("Content-Length", str(len(HELLO)))])
    wrapper = environ["wsgi.file_wrapper"](_hello(), 5)
    return [block.upper() for block in wrapper]


@behaviour
def file_described(environ: Environ, start_response: StartResponse) -> Any:
    wrap = environ["wsgi.file_wrapper"]
    seekable, unseekable = wrap(_hello()), wrap(_unseekable())
    seekable.seek(3)
    told = [
        isinstance(seekable, wrap),
        hasattr(unseekable, "seek"),
        hasattr(unseekable, "tell"),
        seekable.seekable(),
        seekable.tell(),
        seekable.block_size,
    ]
    seekable.close()
    unseekable.close()
    start_response("200 OK", TEXT)
    return [repr(told).encode("ascii")]


@behaviour
def file_after_write(environ: Environ, start_response: StartResponse) -> Any:
    write = start_response("200 OK", TEXT)
    write(b"before ")
    return environ["wsgi.file_wrapper"](_hello())


@behaviour
def file_without_start_response(environ: Environ, start_response: StartResponse) -> Any:
    return environ["wsgi.file_wrapper"](_hello())
