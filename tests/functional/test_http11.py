"""HTTP/1.1 as a client sees it: framing, persistence, refusals (RFC 9110 and RFC 9112)."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.validate import validator

import h11
import pytest

from tests.compat.live import Running
from tests.fakes import Simulation, chunks, get, post, request
from tests.functional.applications import Never, hello, path, stream

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]


def answer(
    status: str = "200 OK", headers: tuple[tuple[str, str], ...] = (), *body: bytes
) -> Callable[..., Any]:
    """Return an application that answers with this, as a list."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, list(headers))
        return list(body)

    return application


# -- persistence ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "application",
    [
        answer("200 OK", (), b"abc"),
        answer("200 OK", (("Content-Length", "3"),), b"abc"),
        answer("200 OK", (("Content-Length", "3"),), b"a", b"b", b"c"),
        answer("200 OK", (("Content-Length", "3"),), b"abcd"),
        answer("200 OK", (), b"a", b"b"),
        answer("200 OK", ()),
        answer("204 No Content", ()),
        answer("204 No Content", (("Content-Length", "0"),)),
        answer("304 Not Modified", (), b"ignored"),
        answer("500 Oh", (), b"abc"),
        stream,
    ],
)
def test_connection_persists_after_every_response_whose_end_is_known(
    application: Any, simulate: Simulate
) -> None:
    """D2: chunked, 204 and 304 too."""
    sim = simulate(application)
    client = sim.connect(get("/abc") * 3)
    first, second, third = client.responses()
    assert "connection" not in first.headers
    assert first.body == second.body == third.body
    assert client.is_open


def test_connection_ends_after_a_body_that_is_too_short(simulate: Simulate) -> None:
    client = simulate(answer("200 OK", (("Content-Length", "5"),), b"abc")).connect(get() * 2)
    assert bytes(client.data).count(b"HTTP/1.1") == 1
    assert client.data.endswith(b"\r\n\r\nabc")
    assert client.ended


@pytest.mark.parametrize("option", ["close", "Close", "keep-alive, close", "close, te", ",close"])
def test_connection_ends_when_the_client_asks_for_it(option: str, simulate: Simulate) -> None:
    client = simulate(path).connect(get("/a", f"Connection: {option}") + get("/b"))
    response = client.response()
    assert (response.body, response.headers["connection"]) == (b"/a", "close")
    assert client.ended


@pytest.mark.parametrize("option", ["keep-alive", "te", "x-close", ""])
def test_connection_goes_on_with_any_other_option(option: str, simulate: Simulate) -> None:
    client = simulate(path).connect(get("/a", f"Connection: {option}") + get("/b"))
    assert [response.body for response in client.responses()] == [b"/a", b"/b"]
    assert client.is_open


@pytest.mark.parametrize("version", ["1.2", "1.9"])
def test_later_minor_version_is_served_as_our_own(version: str, simulate: Simulate) -> None:
    """RFC 9110, 2.5."""
    sim = simulate(hello)
    client = sim.connect(b"GET / HTTP/%b\r\nHost: a\r\n\r\n" % version.encode())
    assert client.response().version == "1.1"
    assert client.is_open


# -- framing --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "application", [hello, stream, answer("200 OK", (), b"abc"), answer("404 No", (), b"")]
)
def test_head_is_answered_with_the_head_of_get_and_no_body(
    application: Any, simulate: Simulate
) -> None:
    """RFC 9110, 9.3.2."""
    sim = simulate(application)
    client = sim.connect(request("HEAD", "/abc") + get("/abc"))
    head, whole = client.responses("HEAD", "GET")
    head.headers.pop("date")
    whole.headers.pop("date")
    assert head.headers == whole.headers
    assert client.is_open


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_status_without_a_body_is_answered_without_one(status: str, simulate: Simulate) -> None:
    """RFC 9112, 6.3: no body, and no Content-Length on 204 (RFC 9110, 8.6)."""
    client = simulate(answer(status, (("Content-Length", "3"),), b"abc")).connect(get() * 2)
    first, second = client.responses()
    assert first.body == second.body == b""
    assert not {"content-length", "transfer-encoding"} & set(first.headers)


def test_bytes_beyond_the_promised_length_are_not_sent(simulate: Simulate) -> None:
    client = simulate(answer("200 OK", (("Content-Length", "2"),), b"abc", b"d")).connect(get())
    assert client.data.endswith(b"\r\n\r\nab")


@pytest.mark.parametrize("size", [1, 16_384, 16_385, 300_000])
def test_chunks_of_every_size_arrive_whole(size: int, simulate: Simulate) -> None:
    client = simulate(answer("200 OK", (), b"x" * size, b"y")).connect(get())
    assert client.response().body == b"x" * size + b"y"


def test_each_response_has_a_date_and_a_server(simulate: Simulate) -> None:
    headers = simulate(hello).connect(get()).response().headers
    assert headers["server"] == "waitress"
    assert headers["date"].endswith(" GMT")


# -- requests -------------------------------------------------------------------------------


def test_body_in_chunks_is_given_to_the_application_with_its_length(simulate: Simulate) -> None:
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append((environ.get("CONTENT_LENGTH"), environ.get("HTTP_TRANSFER_ENCODING")))
        return path(environ, start_response)

    sim = simulate(application)
    head = request("POST", "/a", "Transfer-Encoding: chunked")
    client = sim.connect(head + chunks(b"one", b"two") + get("/b"))
    assert [response.body for response in client.responses()] == [b"/aonetwo", b"/b"]
    assert seen == [("6", None), (None, None)]


def test_request_may_come_one_octet_at_a_time(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect()
    for octet in post("/a", b"bc"):
        assert client.data == b""
        client.send(bytes((octet,)))
        sim.settle()
    assert client.response().body == b"/abc"


@pytest.mark.parametrize("count", [1, 2])
def test_empty_line_before_a_request_is_ignored(count: int, simulate: Simulate) -> None:
    """RFC 9112, 2.2."""
    sim = simulate(path)
    client = sim.connect(b"\r\n" + get("/a") + b"\r\n" + get("/b"))
    assert [response.body for response in client.responses()] == [b"/a", b"/b"]


REFUSED = [
    (b"BAD\r\n\r\n", 400),
    (b"GET /\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n y\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n", 400),
    (b"GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
    (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"GET * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    (b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 501),
    (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 501),
    (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n",
        400,
    ),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
    (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 200-ok\r\nContent-Length: 1\r\n\r\n", 417),
]


@pytest.mark.parametrize("cut", ["whole", "octets", "tail"])
@pytest.mark.parametrize(("data", "status"), REFUSED)
def test_bad_request_is_answered_and_ends_the_connection(
    data: bytes, status: int, cut: str, simulate: Simulate
) -> None:
    """By the loop itself: no worker, no application; nothing behind it is served."""
    application = Never()
    sim = simulate(application)
    client = sim.connect()
    if cut == "octets":
        for octet in data:
            client.send(bytes((octet,)))
            sim.settle()
    else:
        client.send(data + (get("/tail") if cut == "tail" else b""))
        sim.settle()
    response = client.response()
    assert (response.status, response.headers["connection"]) == (status, "close")
    assert client.ended
    assert sim.dispatcher.served == 0
    assert not application.was_run


def test_bad_request_is_told_to_nobody_but_its_client(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    simulate(hello).connect(b"BAD\r\n\r\n")
    assert caplog.records == []


def test_request_without_host_is_served_where_the_settings_allow_it(simulate: Simulate) -> None:
    sim = simulate(hello, require_host=False)
    assert sim.connect(b"GET / HTTP/1.1\r\n\r\n").response().status == 200


# -- other people's clients -------------------------------------------------------------------


def test_client_of_the_standard_library_is_served(serve: Serve) -> None:
    running = serve(validator(_validated))
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=20)
    for method, body in (("GET", None), ("POST", b"abc"), ("HEAD", None), ("GET", None)):
        connection.request(method, "/x", body)
        response = connection.getresponse()
        expected = b"" if method == "HEAD" else method.encode() + (body or b"")
        assert (response.status, response.read()) == (200, expected)
    connection.close()


def _validated(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return iter([environ["REQUEST_METHOD"].encode(), body])


def test_strict_client_reads_every_response(simulate: Simulate) -> None:
    """h11 keeps a state machine of its own of what may follow what."""
    sim = simulate(stream)
    connection = h11.Connection(h11.CLIENT)
    client = sim.connect()
    for _ in range(3):
        head = h11.Request(method="GET", target="/abc", headers=[("Host", "a")])
        before = len(client.data)
        client.send((connection.send(head) or b"") + (connection.send(h11.EndOfMessage()) or b""))
        sim.settle()
        connection.receive_data(bytes(client.data[before:]))
        body = b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            assert event is not h11.NEED_DATA
            body += bytes(event.data) if isinstance(event, h11.Data) else b""
        assert body == b"/abc"
        connection.start_next_cycle()
