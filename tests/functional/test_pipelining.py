"""Requests sent ahead: responses in order, nothing lost, nothing after the last (T4)."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes import FakeClient, Simulation, chunks, get, post, request
from tests.functional.applications import large, path

Simulate = Callable[..., Simulation]

LOOKAHEADS = pytest.mark.parametrize("lookahead", [0, 1, 5])

CHUNKED = request("POST", "/chunked", "Transfer-Encoding: chunked") + chunks(b"a", b"bc")
BAD = b"GET /bad HTTP/1.1\r\n\r\n"


class Recording:
    """An application that answers in many ways, and remembers in what order it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        where = environ["PATH_INFO"]
        self.asked.append(where)
        if where == "/fail":
            raise ValueError
        if where == "/short":
            start_response("200 OK", [("Content-Length", "100")])
            return [b"short"]
        if where == "/none":
            start_response("204 No Content", [])
            return []
        if where == "/stream":
            start_response("200 OK", [])
            return self._stream()
        return path(environ, start_response)

    def _stream(self) -> Iterator[bytes]:
        yield b"/str"
        yield b"eam"


def send_cut(sim: Simulation, client: FakeClient, data: bytes, size: int) -> None:
    for start in range(0, len(data), size):
        if client.server_end.is_closed:
            return
        client.send(data[start : start + size])
        sim.settle()


GOOD = [
    (get("/a"), b"/a"),
    (post("/b", b"body"), b"/bbody"),
    (CHUNKED, b"/chunkedabc"),
    (get("/none"), b""),
    (get("/stream"), b"/stream"),
    (post("/large", b"x" * 20_000), b"/large" + b"x" * 20_000),
]


@LOOKAHEADS
@pytest.mark.parametrize("size", [7, 1000, 1 << 30])
def test_good_requests_of_every_kind_are_answered_in_order(
    lookahead: int, size: int, simulate: Simulate
) -> None:
    sim = simulate(Recording(), channel_request_lookahead=lookahead)
    client = sim.connect()
    wanted = GOOD + GOOD[::-1]
    send_cut(sim, client, b"".join(data for data, _ in wanted), size)
    assert [response.body for response in client.responses()] == [body for _, body in wanted]
    assert client.is_open


ENDINGS = {
    "close": (get("/end", "Connection: close"), 200),
    "close with a body": (post("/end", b"x", "Connection: close"), 200),
    "http10": (get("/end", version="1.0"), 200),
    "fail": (get("/fail"), 500),
    "bad": (BAD, 400),
    "bad chunk": (request("POST", "/", "Transfer-Encoding: chunked") + b"zz\r\n", 400),
    "too large": (request("POST", "/", "Content-Length: 99999999999"), 413),
    "version": (b"GET / HTTP/3.0\r\n\r\n", 505),
}


@LOOKAHEADS
@pytest.mark.parametrize("size", [9, 1 << 30])
@pytest.mark.parametrize("ending", ENDINGS)
def test_nothing_is_run_or_answered_behind_the_one_that_ends_the_connection(
    ending: str, size: int, lookahead: int, simulate: Simulate
) -> None:
    application = Recording()
    sim = simulate(application, channel_request_lookahead=lookahead)
    client = sim.connect()
    last, status = ENDINGS[ending]
    send_cut(sim, client, get("/a") + CHUNKED + last + get("/never") * 3 + BAD, size)
    statuses = [response.status for response in client.responses()]
    assert statuses == [200, 200, status]
    assert "/never" not in application.asked
    assert not client.is_open


@LOOKAHEADS
def test_response_cut_short_is_the_last(lookahead: int, simulate: Simulate) -> None:
    application = Recording()
    sim = simulate(application, channel_request_lookahead=lookahead)
    client = sim.connect(get("/a") + get("/short") + get("/never"))
    assert client.data.endswith(b"\r\n\r\nshort")
    assert client.ended
    assert application.asked == ["/a", "/short"]


@LOOKAHEADS
def test_order_holds_when_requests_come_while_others_are_served(
    lookahead: int, simulate: Simulate
) -> None:
    sim = simulate(Recording(), channel_request_lookahead=lookahead)
    client = sim.connect()
    for number in range(20):
        sim.dispatcher.is_held = number % 3 == 0
        client.send(get(f"/{number}"))
        sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    assert [response.body for response in client.responses()] == [
        b"/%d" % number for number in range(20)
    ]


def test_what_is_read_ahead_is_bounded_by_the_lookahead(simulate: Simulate) -> None:
    sim = simulate(path, channel_request_lookahead=2, recv_bytes=len(get("/0")))
    sim.dispatcher.is_held = True
    client = sim.connect()
    for number in range(9):
        client.send(get(f"/{number}"))
    sim.settle()
    assert [each.path for each in sim.channel.requests] == ["/0", "/1", "/2"]
    sim.dispatcher.is_held = False
    sim.settle()
    assert len(client.responses()) == 9


def test_nothing_is_read_ahead_without_lookahead(simulate: Simulate) -> None:
    sim = simulate(path, recv_bytes=len(get("/0")))
    sim.dispatcher.is_held = True
    sim.connect(get("/0") + get("/1"))
    assert [each.path for each in sim.channel.requests] == ["/0"]


@pytest.mark.parametrize(
    "last", [get("/end", "Connection: close"), get("/end", version="1.0"), BAD]
)
def test_nothing_is_read_behind_the_one_that_ends_the_connection(
    last: bytes, simulate: Simulate
) -> None:
    sim = simulate(path, channel_request_lookahead=5)
    sim.dispatcher.is_held = True
    client = sim.connect(get("/a") + last + get("/never"))
    client.send(get("/never"))
    sim.settle()
    assert len(sim.channel.requests) == 2
    assert sim.channel.request is None
    assert not sim.channel.readable()


def test_pipelining_client_does_not_keep_a_worker_from_the_others(simulate: Simulate) -> None:
    """Each of its requests queues behind those of the others."""
    application = Recording()
    sim = simulate(application)
    greedy, modest = sim.connect(), sim.connect()
    greedy.send(get("/greedy") * 5)
    sim.turn()
    modest.send(get("/modest"))
    sim.turn()
    sim.settle()
    assert application.asked == ["/greedy", "/modest", *["/greedy"] * 4]
    assert len(greedy.responses()) == 5
    assert modest.response().body == b"/modest"


def test_next_request_waits_until_the_client_has_read_enough(simulate: Simulate) -> None:
    """Otherwise one client that reads nothing could fill the disk with responses."""
    sim = simulate(large(6000), outbuf_high_watermark=5000, outbuf_overflow=1000)
    client = sim.connect(capacity=100)
    client.is_reading = False
    client.send(get() * 4)
    sim.settle()
    assert len(sim.channel.requests) == 3
    assert sim.dispatcher.served == 1
    client.is_reading = True
    sim.settle()
    assert sim.dispatcher.served == 4
    assert [len(response.body) for response in client.responses()] == [6000] * 4


def test_response_headers_do_not_pass_to_the_next_response(simulate: Simulate) -> None:
    numbers = itertools.count()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [(f"X-Number-{next(numbers)}", "1")])
        return [b""]

    first, second = simulate(application).connect(get() * 2).responses()
    assert "x-number-0" in first.headers
    assert "x-number-0" not in second.headers
    assert "x-number-1" in second.headers


def test_many_requests_that_are_read_at_once_are_all_answered(simulate: Simulate) -> None:
    """The parser is given a read of any size in parts."""
    sim = simulate(path, recv_bytes=1 << 20)
    client = sim.connect(get("/abc") * 3000)
    sim.settle()
    assert len(client.responses()) == 3000


def test_client_that_reads_nothing_holds_few_files(simulate: Simulate, tmp_path: Any) -> None:
    """Each response that waits is an open file: the next one is not begun before they leave."""
    file = tmp_path / "file"
    file.write_bytes(b"x" * 3000)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file.open("rb"))

    sim = simulate(application)
    client = sim.knock(1000)
    client.is_reading = False
    client.send(get() * 100)
    sim.settle()
    assert sim.dispatcher.served <= 10
    assert len(sim.channel.outbufs) <= 12
    client.is_reading = True
    sim.settle()
    assert [len(each.body) for each in client.responses()] == [3000] * 100


def test_write_that_outlives_its_response_reaches_no_other(simulate: Simulate) -> None:
    kept: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/1":
            kept.append(start_response("200 OK", []))
            kept[0](b"one")
            return []
        with pytest.raises(RuntimeError, match="after the end of the response"):
            kept[0](b"EVIL")
        start_response("200 OK", [("Content-Length", "3")])
        return [b"two"]

    client = simulate(application).connect(get("/1") + get("/2"))
    assert [each.body for each in client.responses()] == [b"one", b"two"]
