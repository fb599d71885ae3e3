"""The requirements of the product, one by one: each test fails without its behaviour.

Each docstring begins with the number of the requirement that the test proves.
"""

from __future__ import annotations

import ast
import io
import itertools
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import waitress
from tests.compat.live import Running, mirror
from tests.fakes import (
    RecordingObserver,
    Simulation,
    chunks,
    get,
    post,
    request,
)
from tests.functional.applications import hello, path, stream
from waitress import create_server

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]

TRUSTED = {
    "trusted_proxy": "127.0.0.1",
    "trusted_proxy_headers": "x-forwarded-for x-forwarded-proto x-forwarded-host",
}


class Seen:
    """An application that keeps the environ of its last call."""

    def __init__(self) -> None:
        self.environ: dict[str, Any] = {}

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environ = environ
        return hello(environ, start_response)


def returning(body: Any, *headers: tuple[str, str], status: str = "200 OK") -> Any:
    """Return an application that answers with this iterable."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response(status, list(headers))
        return body

    return application


# -- R1, R2 -----------------------------------------------------------------------------------


def test_r1_nothing_but_the_standard_library_is_imported() -> None:
    """R1: no dependencies."""
    package = Path(waitress.__file__).parent
    allowed = sys.stdlib_module_names | {"waitress"}
    for source in package.glob("*.py"):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names = [str(node.module)]
            for name in names:
                assert name.partition(".")[0] in allowed, f"{source.name} imports {name}"


def test_r2_an_application_is_a_callable_of_two_arguments(simulate: Simulate) -> None:
    """R2: WSGI only: what is served is the application, and nothing beside it."""
    calls: list[tuple[Any, ...]] = []

    def application(*args: Any) -> list[bytes]:
        calls.append(args)
        return hello(*args)

    sim = simulate(application)
    for where in ("/", "/static/x.css", "/favicon.ico"):
        assert sim.connect(get(where)).response().body == b"hello"
    sim.connect(request("OPTIONS", "*"))
    assert [len(call) for call in calls] == [2, 2, 2, 2]
    assert [call[0]["wsgi.version"] for call in calls] == [(1, 0)] * 4


# -- R3 ---------------------------------------------------------------------------------------


def test_r3_body_is_invited_in_its_turn(simulate: Simulate) -> None:
    """R3: Expect: 100-continue honoured, in order under pipelining."""
    sim = simulate(path, channel_request_lookahead=1)
    sim.dispatcher.is_held = True
    expecting = request("POST", "/b", "Content-Length: 1", "Expect: 100-continue")
    client = sim.connect(get("/a") + expecting)
    assert client.data == b""
    sim.dispatcher.is_held = False
    sim.settle()
    assert [response.status for response in client.responses()] == [200, 100]
    client.send(b"c")
    sim.settle()
    assert client.responses()[-1].body == b"/bc"


# -- R4 ---------------------------------------------------------------------------------------


class Closing:
    """An iterable that counts how often it is closed."""

    def __init__(self, *items: Any) -> None:
        self.items = items
        self.closed = 0

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            if isinstance(item, BaseException):
                raise item
            yield item

    def close(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(
    "items",
    [
        (b"abc",),
        (),
        (b"a", b"b"),
        (ValueError(),),
        (b"a", ValueError()),
        (b"a", SystemExit()),
        ("text",),
        (b"a", "text"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_r4_iterable_is_closed_once(
    items: tuple[Any, ...], method: str, simulate: Simulate
) -> None:
    """R4: close() is called on the application's iterable, always, once."""
    body = Closing(*items)
    simulate(returning(body)).connect(request(method, "/"))
    assert body.closed == 1


def test_r4_iterable_is_closed_once_when_no_response_was_started(simulate: Simulate) -> None:
    """R4: the same, where the application did not call start_response."""
    body = Closing(b"abc")
    simulate(lambda environ, start_response: body).connect(get())
    assert body.closed == 1


@pytest.mark.parametrize("items", [(b"a" * 9000, b"b"), (b"",)])
def test_r4_iterable_is_closed_once_when_the_client_has_left(
    items: tuple[bytes, ...], simulate: Simulate
) -> None:
    """R4: the same, where the client left before the first byte."""
    body = Closing(*items)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("before")
        start_response("200 OK", [])
        return body

    sim = simulate(application)
    sim.connect(get()).reset()
    sim.settle()
    sim.dispatcher.resume("before")
    assert body.closed == 1


# -- R5, R6 -----------------------------------------------------------------------------------


def test_r5_trusted_proxy_tells_scheme_host_and_client(simulate: Simulate) -> None:
    """R5: trusted proxies may set wsgi.url_scheme and friends per request."""
    application = Seen()
    sim = simulate(application, **TRUSTED)
    sim.connect(
        get("/", "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4", "X-Forwarded-Host: b.c")
    )
    environ = application.environ
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["REMOTE_ADDR"] == "1.2.3.4"
    assert environ["HTTP_HOST"] == "b.c"
    sim.connect(get())
    assert application.environ["wsgi.url_scheme"] == "http"


def test_r5_trusted_proxy_may_speak_the_standard(simulate: Simulate) -> None:
    """R5: the same by Forwarded (RFC 7239)."""
    application = Seen()
    sim = simulate(application, **{**TRUSTED, "trusted_proxy_headers": "forwarded"})
    sim.connect(get("/", 'Forwarded: for="1.2.3.5";proto=https;host=d.e'))
    environ = application.environ
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["REMOTE_ADDR"] == "1.2.3.5"
    assert environ["HTTP_HOST"] == "d.e"


def test_r5_untrusted_peer_tells_nothing(simulate: Simulate) -> None:
    """R5: what an untrusted peer says of itself is cleared."""
    application = Seen()
    for settings in ({}, {**TRUSTED, "trusted_proxy": "10.0.0.1"}):
        simulate(application, **settings).connect(
            get("/", "X-Forwarded-Proto: https", "X-Forwarded-For: 1.2.3.4", "Forwarded: for=x")
        )
        environ = application.environ
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert not {"HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"} & set(
            environ
        )


def test_r6_scheme_and_prefix_may_be_set(simulate: Simulate) -> None:
    """R6: explicit url_scheme, url_prefix."""
    application = Seen()
    sim = simulate(application, url_scheme="https", url_prefix="/app")
    sim.connect(get("/app/x"))
    environ = application.environ
    assert environ["wsgi.url_scheme"] == "https"
    assert (environ["SCRIPT_NAME"], environ["PATH_INFO"]) == ("/app", "/x")


# -- R7 ---------------------------------------------------------------------------------------


def test_r7_write_sends_at_once(simulate: Simulate) -> None:
    """R7: a real write callable from start_response: the client has it before the end."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        sim.dispatcher.pause("written")
        write(b"two")
        return [b"three"]

    sim = simulate(application)
    client = sim.connect(get())
    assert client.data.endswith(b"3\r\none\r\n")
    sim.dispatcher.resume("written")
    sim.settle()
    assert client.response().body == b"onetwothree"


# -- R8 ---------------------------------------------------------------------------------------


def test_r8_port_is_told_when_any_was_asked_for(no_leaks: None) -> None:
    """R8: getsockname/effective_port tell the port when bound to port 0."""
    server = create_server(hello, host="127.0.0.1", port=0)
    port = server.socket.getsockname()[1]
    assert port > 0
    assert (server.effective_host, server.effective_port) == ("127.0.0.1", str(port))
    assert server.getsockname() == ("127.0.0.1", str(port))
    server.task_dispatcher.shutdown()
    server.close()


# -- R9, R10 ----------------------------------------------------------------------------------


def test_r9_short_body_is_warned_of_and_ends_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """R9: a warning when the body is shorter than Content-Length."""
    client = simulate(returning([b"abc"], ("Content-Length", "5"))).connect(get() * 2)
    assert client.data.endswith(b"\r\n\r\nabc")
    assert client.ended
    (message,) = caplog.messages
    assert message.startswith("application returned too few bytes (3)")


@pytest.mark.parametrize("body", [[b"abcde"], [b"ab", b"cde"], [b"abc", b"de"]])
def test_r9_long_body_is_warned_of_and_cut(
    body: list[bytes], simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """R9: the same when it is longer; never more bytes on the wire than promised."""
    client = simulate(returning(body, ("Content-Length", "3"))).connect(get() * 2)
    assert [response.body for response in client.responses()] == [b"abc", b"abc"]
    assert len(caplog.messages) == 2
    assert caplog.messages[0].startswith("application-written content exceeded the number")


def test_r10_length_of_a_single_block_is_told(simulate: Simulate) -> None:
    """R10: Content-Length set when len(app_iter) == 1 and none given."""

    class Single:
        def __len__(self) -> int:
            return 1

        def __iter__(self) -> Iterator[bytes]:
            return iter((b"abcd",))

    for body in ([b"abcd"], (b"abcd",), Single()):
        headers = simulate(returning(body)).connect(get()).response().headers
        assert headers["content-length"] == "4"
        assert "transfer-encoding" not in headers


# -- R11, R12 ---------------------------------------------------------------------------------


def test_r11_body_before_start_response_is_an_error(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """R11: an error when a body is written before start_response."""
    client = simulate(lambda environ, start_response: [b"abc"]).connect(get())
    assert client.response().status == 500
    assert "start_response was not called before body written" in caplog.text


@pytest.mark.parametrize("block", ["text", 1, None, bytearray(b"x"), ["x"]])
def test_r12_only_bytes_can_be_written(block: Any, simulate: Simulate) -> None:
    """R12: only bytes can be written, returned, yielded."""

    def writing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])(block)
        return []

    for application in (returning([block]), returning(iter([block])), writing):
        assert simulate(application).connect(get()).response().status == 500


# -- R13 --------------------------------------------------------------------------------------


def test_r13_server_is_one_process_of_many_threads(simulate: Simulate) -> None:
    """R13: wsgi.multiprocess False, multithread True."""
    application = Seen()
    simulate(application).connect(get())
    assert application.environ["wsgi.multiprocess"] is False
    assert application.environ["wsgi.multithread"] is True
    assert application.environ["wsgi.run_once"] is False


# -- R14, R15 ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\nX: " + b"x" * 300, 431),
        (b"G" * 300, 431),
        (get("/" + "x" * 300), 431),
        (request("POST", "/", "Content-Length: 1000"), 413),
        (request("POST", "/", "Transfer-Encoding: chunked") + chunks(b"x" * 1000), 413),
        (request("POST", "/", "Transfer-Encoding: chunked") + chunks(*[b"x"] * 500), 413),
    ],
)
def test_r14_sizes_are_bounded(data: bytes, status: int, simulate: Simulate) -> None:
    """R14: total header and body sizes bounded."""
    sim = simulate(hello, max_request_header_size=250, max_request_body_size=1000)
    client = sim.connect(data)
    assert client.response().status == status
    assert client.ended


@pytest.mark.parametrize(
    "body",
    [
        b"x\r\n",
        b"-1\r\n",
        b"FFFFFFFFFFFFFFFFFFFF\r\n",
        b"1\r\nab\r\n",
        b"1\r\na\r\nz",
        b"\r\n\r\n\r\n",
        b"1;\x00\r\n",
        b"0\r\nbad trailer\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b";" * 10_000,
    ],
)
def test_r15_broken_chunks_hurt_nobody(
    body: bytes, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """R15: broken chunked bodies never hurt the server."""
    sim = simulate(hello)
    head = request("POST", "/", "Transfer-Encoding: chunked")
    client = sim.connect(head + body + b"\r\n")
    assert client.response().status in (400, 413, 431)
    assert client.ended
    assert caplog.records == []
    assert sim.connect(get()).response().status == 200


@pytest.mark.parametrize("body", [b"5\r\nab", b"5", b"0\r\n", b"5\r\nabcde"])
def test_r15_chunks_that_stop_hurt_nobody(body: bytes, simulate: Simulate) -> None:
    """R15: the same where they just stop."""
    sim = simulate(hello)
    client = sim.connect(request("POST", "/", "Transfer-Encoding: chunked") + body)
    sim.advance(61)
    assert client.response().status == 408
    assert client.ended


# -- R16 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead", [0, 1, 5])
@pytest.mark.parametrize("size", [1, 13, 1 << 30])
def test_r16_every_request_has_its_response_in_order(
    size: int, lookahead: int, simulate: Simulate
) -> None:
    """R16: keep-alive and pipelining exact: nothing out of order, closed early, lost."""
    sim = simulate(stream, channel_request_lookahead=lookahead)
    client = sim.connect()
    data = b"".join(get(f"/{number}") for number in range(20))
    for start in range(0, len(data), size):
        client.send(data[start : start + size])
        sim.settle()
    assert [response.body for response in client.responses()] == [
        b"/%d" % number for number in range(20)
    ]
    assert client.is_open


# -- R17 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("expose", [False, True])
def test_r17_failure_is_answered_500(expose: bool, simulate: Simulate) -> None:
    """R17: 500 on an uncaught exception, traceback shown only with expose_tracebacks."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        raise ValueError("the secret")

    response = simulate(application, expose_tracebacks=expose).connect(get()).response()
    assert response.status == 500
    assert (b"the secret" in response.body) is expose
    assert (b"Traceback" in response.body) is expose


# -- R18 --------------------------------------------------------------------------------------


def test_r18_body_of_unknown_length_is_sent_in_chunks(simulate: Simulate) -> None:
    """R18: chunked responses to 1.1 clients without Content-Length, and to no others."""
    sim = simulate(stream)
    response = sim.connect(get("/abc")).response()
    assert response.headers["transfer-encoding"] == "chunked"
    assert response.body == b"/abc"
    response = sim.connect(get("/abc", version="1.0")).response()
    assert "transfer-encoding" not in response.headers
    assert response.body == b"/abc"


# -- R19 --------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_r19_file_is_sent_by_the_loop_and_closed(
    method: str, size: int, simulate: Simulate
) -> None:
    """R19: wsgi.file_wrapper: the worker is free at once, the file is closed in the end."""
    file = io.BytesIO(b"x" * size)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file)

    sim = simulate(application)
    client = sim.knock(1000)
    client.is_reading = False
    client.send(request(method, "/"))
    sim.settle()
    assert sim.dispatcher.served == 1
    client.is_reading = True
    sim.settle()
    response = client.response(method)
    assert response.headers["content-length"] == str(size)
    assert len(response.body) == (size if method == "GET" else 0)
    assert file.closed
    assert client.is_open


def test_r19_unseekable_file_is_sent_in_blocks(simulate: Simulate) -> None:
    """R19: the same for a file of which nothing is known."""

    class Pipe:
        def __init__(self) -> None:
            self.blocks = iter([b"abc", b"de", b""])
            self.closed = 0

        def read(self, size: int) -> bytes:
            return next(self.blocks)

        def close(self) -> None:
            self.closed += 1

    pipe = Pipe()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](pipe)

    response = simulate(application).connect(get()).response()
    assert response.body == b"abcde"
    assert pipe.closed == 1


# -- R20 --------------------------------------------------------------------------------------


def test_r20_idle_check_is_not_starved_by_busy_clients(simulate: Simulate) -> None:
    """R20: idle connections are closed in time whatever others do."""
    sim = simulate(hello, channel_timeout=10)
    idle = sim.connect()
    busy = sim.connect()
    for _ in range(110):
        sim.at(0.1, lambda: busy.send(get()))
        sim.advance(0.1)
    assert idle.ended
    assert busy.is_open


def test_r20_idle_check_costs_nothing_while_nobody_is_idle_for_long(simulate: Simulate) -> None:
    """R20: nor does it wake the loop for each connection."""
    sim = simulate(hello)
    for _ in range(50):
        sim.connect()
    before = sim.clock.now
    passes = 0
    while sim.clock.now < before + 110:
        sim.turn(30)
        passes += 1
    assert passes < 20


@pytest.mark.parametrize(
    "piece", [b"x", b"\r\n", b"GET / HTTP/1.1\r\n"], ids=["octet", "empty line", "request line"]
)
def test_r20_idle_check_is_not_abused_by_dripping_bytes(piece: bytes, simulate: Simulate) -> None:
    """R20: bytes that make no request do not keep a connection open."""
    sim = simulate(hello)
    client = sim.connect()

    def send() -> None:
        if not client.server_end.is_closed:
            client.send(piece)

    for number in range(1, 100):
        sim.at(number, send)
    sim.advance(100)
    assert not client.is_open


def test_r20_unread_output_does_not_keep_a_connection_open(simulate: Simulate) -> None:
    """R20: nor does a response that nobody reads."""
    sim = simulate(returning([b"x" * 50_000]))
    client = sim.knock(1000)
    client.is_reading = False
    client.send(get())
    sim.advance(122)
    assert client.server_end.is_closed


# -- R21 --------------------------------------------------------------------------------------


def test_r21_headers_do_not_accumulate(simulate: Simulate) -> None:
    """R21: response headers never accumulate from one response to the next."""
    numbers = itertools.count()
    shared: list[tuple[str, str]] = [("X-Shared", "1")]

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/shared":
            start_response("200 OK", shared)
        else:
            start_response("200 OK", [(f"X-{next(numbers)}", "1")])
        return [b"abc"]

    sim = simulate(application)
    client = sim.connect(get("/shared") + get() + get("/shared") + get())
    own = [
        sorted(name for name in response.headers if name.startswith("x-"))
        for response in client.responses()
    ]
    assert own == [["x-shared"], ["x-0"], ["x-shared"], ["x-1"]]
    assert shared == [("X-Shared", "1")]


# -- T1 ---------------------------------------------------------------------------------------


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as sock:
            sock.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not _has_ipv6(), reason="the system has no IPv6")


def ask_port(host: str, port: str | int) -> bytes:
    with socket.create_connection((host, int(port)), 20) as sock:
        sock.sendall(get("/", "Connection: close"))
        received = b""
        while data := sock.recv(65536):
            received += data
        return received


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "127.0.0.1:0"])
def test_t1_ipv4_is_listened_to(listen: str, serve: Serve) -> None:
    """T1: 0.0.0.0."""
    running = serve(hello, listen=listen)
    assert ask_port("127.0.0.1", running.port).endswith(b"hello")


@needs_ipv6
def test_t1_ipv6_is_listened_to(serve: Serve) -> None:
    """T1: IPv6."""
    running = serve(hello, listen="[::1]:0")
    assert ask_port("::1", running.server.effective_port).endswith(b"hello")
    assert running.server.effective_host == "::1"


@needs_ipv6
def test_t1_ipv6_leaves_ipv4_to_others(serve: Serve) -> None:
    """T1: or one port could not be listened to by both."""
    port = serve(hello, listen="[::]:0").server.effective_port
    assert ask_port("::1", port).endswith(b"hello")
    with pytest.raises(ConnectionRefusedError):
        ask_port("127.0.0.1", port)


@needs_ipv6
def test_t1_every_address_is_listened_to(serve: Serve) -> None:
    """T1: ``*``, dual-stack: two sockets, so that neither takes the other's port."""
    running = serve(hello, listen="*:0")
    listening = dict(running.server.effective_listen)
    assert set(listening) == {"0.0.0.0", "::"}
    assert ask_port("127.0.0.1", listening["0.0.0.0"]).endswith(b"hello")
    assert ask_port("::1", listening["::"]).endswith(b"hello")


def test_t1_several_addresses_are_listened_to(serve: Serve) -> None:
    """T1: several listen at once."""
    running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0")
    ports = [port for _, port in running.server.effective_listen]
    assert len(set(ports)) == 2
    for port in ports:
        assert ask_port("127.0.0.1", port).endswith(b"hello")


# -- T2 ---------------------------------------------------------------------------------------


def test_t2_idle_connections_cost_no_time(simulate: Simulate) -> None:
    """T2: nobody asks a connection that does nothing whether it wants something."""
    sim = simulate(hello)
    asked: list[str] = []
    for _ in range(20):
        sim.connect()
    before = sys.getprofile()

    def count(frame: Any, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code.co_filename.endswith("channel.py"):
            asked.append(frame.f_code.co_name)

    client = sim.connect()
    sys.setprofile(count)
    try:
        for _ in range(10):
            sim.turn()
    finally:
        sys.setprofile(before)
    assert asked == []
    assert client.is_open


def test_t2_response_is_sent_without_asking_whether_it_can_be(simulate: Simulate) -> None:
    """T2: a worker's bytes leave in the pass that hears of them, and with one wake-up."""
    sim = simulate(hello)
    clients = [sim.connect() for _ in range(5)]
    for client in clients:
        client.send(get())
    sim.turn()
    sim.dispatcher.run()
    sim.turn()
    sim.network.let_clients_read()
    assert [client.response().body for client in clients] == [b"hello"] * 5


# -- T3 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "key", "value"),
    [
        (("Accept: a/b", "Accept: c/d"), "HTTP_ACCEPT", "a/b, c/d"),
        (("Cookie: a=1", "Cookie: b=2"), "HTTP_COOKIE", "a=1; b=2"),
        (("X-Own: 1", "X-Own: 2"), "HTTP_X_OWN", "1, 2"),
    ],
)
def test_t3_fields_that_are_lists_are_joined(
    fields: tuple[str, ...], key: str, value: str, simulate: Simulate
) -> None:
    """T3: the parser knows which request headers may repeat."""
    application = Seen()
    simulate(application).connect(get("/", *fields))
    assert application.environ[key] == value


@pytest.mark.parametrize(
    "field", ["Host: localhost", "Content-Length: 0", "Content-Type: a/b", "Authorization: x"]
)
def test_t3_fields_that_are_single_are_refused_when_repeated(
    field: str, simulate: Simulate
) -> None:
    """T3: and which may not."""
    fields = (field,) if field.startswith("Host") else (field, field)
    assert simulate(hello).connect(get("/", *fields)).response().status == 400


# -- T4 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead", [0, 1, 5])
@pytest.mark.parametrize("place", range(4))
def test_t4_close_in_the_middle_of_a_pipeline_is_its_end(
    place: int, lookahead: int, simulate: Simulate
) -> None:
    """T4: complex pipelining, with an intermediate ``Connection: close``."""
    requests = [
        get("/a"),
        post("/b", b"body"),
        request("POST", "/c", "Transfer-Encoding: chunked") + chunks(b"x", b"y"),
        get("/d"),
        get("/never"),
    ]
    bodies = [b"/a", b"/bbody", b"/cxy", b"/d"]
    head, blank, rest = requests[place].partition(b"\r\n\r\n")
    requests[place] = head + b"\r\nConnection: close" + blank + rest
    client = simulate(path, channel_request_lookahead=lookahead).connect(b"".join(requests))
    responses = client.responses()
    assert [response.body for response in responses] == bodies[: place + 1]
    assert ["connection" in response.headers for response in responses] == [
        *[False] * place,
        True,
    ]
    assert client.ended


# -- T5: see the tests of the observability of stuck workers ------------------------------------


def test_t5_stuck_worker_holds_no_other_request(serve: Serve) -> None:
    """T5 (its ground): a hung application is assumed to end; others are served meanwhile."""
    entered, opened = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/stuck":
            entered.set()
            assert opened.wait(20)
        return hello(environ, start_response)

    running = serve(application, threads=2)
    with running.connect() as stuck, running.connect() as other:
        stuck.send(get("/stuck"))
        assert entered.wait(20)
        for _ in range(3):
            assert other.get().body == b"hello"
        opened.set()
        assert stuck.read_answer().body == b"hello"


# -- T6 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "application",
    [
        hello,
        returning([b"abc"]),
        returning([b"ab", b"c"], ("Content-Length", "3")),
        returning([b"ab", b"c"]),
        returning([]),
        returning([], status="204 No Content"),
        mirror,
    ],
)
def test_t6_small_response_leaves_in_one_piece(application: Any, simulate: Simulate) -> None:
    """T6: headers and body are never two sends."""
    client = simulate(application).connect(get())
    assert len(client.server_end.sends) == 1
    assert client.response()


def test_t6_head_leaves_with_the_first_block(simulate: Simulate) -> None:
    """T6: also where the body comes in pieces."""
    client = simulate(stream).connect(get("/abc"))
    assert b"\r\n\r\n1\r\n/" in client.server_end.sends[0]


def test_t6_refusal_leaves_in_one_piece(simulate: Simulate) -> None:
    """T6: and for what the loop answers by itself."""
    client = simulate(hello).connect(b"BAD\r\n\r\n")
    assert len(client.server_end.sends) == 1


# -- T7 ---------------------------------------------------------------------------------------


def test_t7_life_of_requests_is_told(simulate: Simulate) -> None:
    """T7: two requests, twice, on one channel: the pattern twice, numbers going on."""
    sim = simulate(hello)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect()
    for _ in range(2):
        client.send(get() * 2)
        sim.settle()
    client.close()
    sim.settle()
    numbers = [number for name, number in observer.events if name == "created"]
    first = numbers[0]
    assert numbers == [first, first + 1, first + 2, first + 3]
    once = [
        "created", "created", "queued",
        *["started", "application started", "response started", "application finished",
          "serviced"] * 2,
        "finished", "finished",
    ]  # fmt: skip
    assert observer.names == ["channel created", *once, *once, "channel closed"]
    assert [what for name, what in observer.events if name == "queued"] == [
        (first, first + 1),
        (first + 2, first + 3),
    ]
