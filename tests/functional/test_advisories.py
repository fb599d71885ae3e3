"""Known advisories of this family of servers: each a test that fails where it is open.

The names of the tests are those of the advisories.
"""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running
from tests.fakes import RecordingObserver, Simulation, chunks, get, request
from tests.feeding import assert_linear
from tests.functional.applications import hello, path
from waitress.adjustments import Adjustments
from waitress.parser import HTTPRequestParser

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]

SMUGGLED = get("/smuggled")


class Asked:
    """An application that remembers what it was asked for."""

    def __init__(self) -> None:
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        self.environ = environ
        return path(environ, start_response)


def assert_refused(simulate: Simulate, data: bytes, *statuses: int) -> None:
    """Fail unless the request is refused and nothing behind it is read as another."""
    application = Asked()
    client = simulate(application).connect(data)
    assert client.response().status in statuses
    assert client.ended
    assert application.paths == []


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\nHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        b"GET / HTTP/1.1\rHost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: y\rz\r\n\r\n",
        request("POST", "/", "Transfer-Encoding: chunked") + b"1\nx\r\n0\r\n\r\n",
        request("POST", "/", "Transfer-Encoding: chunked") + b"1;a\nb\r\nx\r\n0\r\n\r\n",
        request("POST", "/", "Transfer-Encoding: chunked") + b"1\n\r\nx\r\n0\r\n\r\n",
    ],
)
def test_cve_2019_16785_bare_line_feed_ends_no_line(data: bytes, simulate: Simulate) -> None:
    """GHSA-pg36-wpm5-g57p."""
    assert_refused(simulate, data + SMUGGLED, 400)


@pytest.mark.parametrize(
    ("coding", "status"),
    [
        ("gzip", 501),
        ("identity", 501),
        ("gzip, chunked", 501),
        ("chunked, gzip", 501),
        ("chunked, identity", 501),
        ("chunked, chunked", 501),
        ("xchunked", 501),
        ("chunked\x0b", 400),
        ("\x0bchunked", 400),
        (" \tgzip ,\r\n chunked", 400),
        (",", 400),
    ],
)
def test_cve_2019_16786_transfer_coding_is_chunked_or_refused(
    coding: str, status: int, simulate: Simulate
) -> None:
    """GHSA-g2xc-35jw-c63p: and never is the length read in its place."""
    head = request("POST", "/", f"Transfer-Encoding: {coding}", "Content-Length: 5")
    assert_refused(simulate, head + b"0\r\n\r\n" + SMUGGLED, 400, 501)
    head = request("POST", "/", f"Transfer-Encoding: {coding}")
    assert_refused(simulate, head + b"0\r\n\r\n" + SMUGGLED, status)


@pytest.mark.parametrize(
    "field",
    [
        b"Content-Length : 5",
        b"Content-Length\t: 5",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding\x0b: chunked",
        b"\x0bTransfer-Encoding: chunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding: \x0cchunked",
        b"X: a\x00b",
        b"X: a\x7fb",
        b"X\xa0: a",
        b": a",
        b"X",
    ],
)
def test_cve_2019_16789_field_lines_are_exactly_those_of_the_grammar(
    field: bytes, simulate: Simulate
) -> None:
    """GHSA-m5ff-3wj3-8ph4."""
    data = b"POST / HTTP/1.1\r\nHost: a\r\n" + field + b"\r\n\r\n"
    assert_refused(simulate, data + SMUGGLED, 400)


@pytest.mark.parametrize("white", [b"\xa0", b"\x85"])
def test_cve_2019_16789_only_blank_and_tab_are_white_space(
    white: bytes, simulate: Simulate
) -> None:
    application = Asked()
    data = b"GET / HTTP/1.1\r\nHost: a\r\nX-Y: \t" + white + b"z" + white + b"\t \r\n\r\n"
    simulate(application).connect(data)
    expected = (white + b"z" + white).decode("latin-1")
    assert application.environ["HTTP_X_Y"] == expected


@pytest.mark.parametrize(
    "fields",
    [
        ("Content-Length: 5", "Content-Length: 5"),
        ("Content-Length: 5", "Content-Length: 0"),
        ("Content-Length: 5, 5",),
        ("Content-Length: 5 5",),
        ("Content-Length: x",),
        ("Content-Length:",),
        ("Content-Length: \x0b5",),
    ],
)
def test_cve_2019_16792_content_length_is_one_number(
    fields: tuple[str, ...], simulate: Simulate
) -> None:
    """GHSA-4ppp-gpcr-7qf6."""
    assert_refused(simulate, request("POST", "/", *fields) + SMUGGLED, 400)


@pytest.mark.parametrize("end", [b"\x10", b"\x00", b" \x7f"])
@pytest.mark.parametrize("filling", [b"x", b" ", b"\t ", b"x "])
def test_cve_2020_5236_hostile_field_lines_cost_what_their_length_says(
    filling: bytes, end: bytes
) -> None:
    """GHSA-73m2-3pwg-5fgc."""
    adj = Adjustments(max_request_header_size=10_000_000)

    def parse(size: int) -> None:
        value = (filling * size)[:size] + end
        parser = HTTPRequestParser(adj)
        parser.received(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + value + b"\r\n\r\n")
        assert parser.error is not None

    assert_linear(parse, 5000)


@pytest.mark.parametrize("length", ["+5", "-5", "0x5", "5_0", "\uff15", "5.0"])
def test_cve_2022_24761_content_length_has_digits_only(length: str, simulate: Simulate) -> None:
    """GHSA-4f7p-27jc-3c36."""
    head = f"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n".encode()
    assert_refused(simulate, head + SMUGGLED, 400)


@pytest.mark.parametrize(
    "line", [b"+5", b"-5", b"0x5", b"5_0", b"", b" 5", b"5 ", b'5;a="', b"5;\x00", b"5;=", b"g"]
)
def test_cve_2022_24761_chunk_line_is_exactly_that_of_the_grammar(
    line: bytes, simulate: Simulate
) -> None:
    head = request("POST", "/", "Transfer-Encoding: chunked")
    assert_refused(simulate, head + line + b"\r\nabcde\r\n0\r\n\r\n" + SMUGGLED, 400)


def test_cve_2022_31015_worker_closes_no_socket(serve: Serve) -> None:
    """GHSA-f5x9-8jwc-25rw: it is the loop that ends a connection, whatever a worker meets."""
    threads: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        threads.append(threading.current_thread().name)
        raise ValueError

    running = serve(application, threads=1)
    with running.connect() as wire:
        channel_class = running.server.channel_class

        class Noting(channel_class):  # type: ignore[misc,valid-type]
            def del_channel(self, map: Any = None) -> None:
                threads.append(threading.current_thread().name)
                super().del_channel(map)

        running.server.channel_class = Noting
        with running.connect() as other:
            assert other.get().status == 500
            assert other.read_to_end() == b""
        assert wire.get().status == 500
        assert wire.read_to_end() == b""
    assert threads[:2] == ["waitress-0", "loop"]


def test_cve_2022_31015_loop_survives_channels_that_vanish(simulate: Simulate) -> None:
    """Between the wait and the handling of what it found."""
    sim = simulate(hello)
    clients = [sim.connect() for _ in range(3)]
    for client in clients:
        client.send(get())
    sim.network.after_poll.append(lambda: [channel.close() for channel in sim.channels])
    sim.settle()
    assert not sim.channels
    assert sim.connect(get()).response().body == b"hello"


@pytest.mark.parametrize("lookahead", [0, 1, 5])
@pytest.mark.parametrize("size", [1, 20, 1 << 30])
def test_cve_2024_49768_nothing_is_served_behind_a_refusal(
    size: int, lookahead: int, simulate: Simulate
) -> None:
    """GHSA-9298-4cf8-g4wj."""
    application = Asked()
    sim = simulate(application, channel_request_lookahead=lookahead)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect()
    data = b"GET /bad HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n" + get("/a") + get("/b")
    for start in range(0, len(data), size):
        client.send(data[start : start + size])
        sim.turn()
    sim.settle()
    assert client.response().status == 400
    assert application.paths == []
    assert observer.names.count("created") == 1


@pytest.mark.parametrize("lookahead", [1, 5])
def test_cve_2024_49768_nothing_is_served_behind_a_response_that_ends(
    lookahead: int, simulate: Simulate
) -> None:
    """The next request arrives after the worker decided, and before the loop has looked."""
    paths: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        paths.append(environ["PATH_INFO"])
        sim.dispatcher.pause("at work")
        raise ValueError

    sim = simulate(application, channel_request_lookahead=lookahead)
    client = sim.connect(get("/a"))
    sim.dispatcher.resume("at work")
    client.send(get("/b"))
    sim.settle()
    assert client.response().status == 500
    assert paths == ["/a"]
    assert not client.is_open


def test_cve_2024_49769_client_that_left_at_once_leaves_nothing(simulate: Simulate) -> None:
    """GHSA-3f84-rpwh-47g6: no entry that is ready for ever."""
    sim = simulate(hello)
    for leave in ("reset", "close", "shutdown"):
        client = sim.knock()
        getattr(client, leave)()
        sim.settle()
        assert not sim.channels
    waited = sim.network.waited
    sim.advance(5)
    assert sim.network.waited - waited == 5


def test_cve_2024_49769_client_that_left_at_once_leaves_nothing_in_the_kernel(
    serve: Serve,
) -> None:
    running = serve(hello)
    for _ in range(20):
        with running.connect() as wire:
            wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        deadline = time.monotonic() + PATIENCE
        while len(running.call_in_loop(lambda: list(running.server.active_channels))) > 1:
            assert time.monotonic() < deadline


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        ("200 OK\r\nX: y", []),
        ("200 OK", [("X\r\nY", "z")]),
        ("200 OK", [("X", "y\r\nZ: 1")]),
        ("200 OK", [("X", "y\nZ: 1")]),
        ("200 OK", [("X", "y\rZ: 1")]),
    ],
)
def test_response_splitting_is_refused(
    status: str, headers: list[tuple[str, str]], simulate: Simulate
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, headers)
        return [b"never"]

    assert simulate(application).connect(get()).response().status == 500


def test_field_names_with_underscores_are_dropped(simulate: Simulate) -> None:
    """They could pass for fields that a proxy in front sets or removes."""
    application = Asked()
    simulate(application).connect(get("/", "X_Real_IP: 1.2.3.4", "X_Forwarded-For: 5.6.7.8"))
    assert not [key for key in application.environ if key.startswith("HTTP_X")]


def test_only_trusted_hops_reach_the_application(simulate: Simulate) -> None:
    application = Asked()
    sim = simulate(
        application,
        trusted_proxy="127.0.0.1",
        trusted_proxy_count=1,
        trusted_proxy_headers="x-forwarded-for x-forwarded-host",
    )
    sim.connect(get("/", "X-Forwarded-For: 6.6.6.6, 1.2.3.4", "X-Forwarded-Host: evil, good"))
    assert application.environ["HTTP_X_FORWARDED_FOR"] == "1.2.3.4"
    assert application.environ["HTTP_X_FORWARDED_HOST"] == "good"
    assert application.environ["REMOTE_ADDR"] == "1.2.3.4"


def test_untrusted_forwarding_fields_are_cleared(simulate: Simulate) -> None:
    application = Asked()
    simulate(application).connect(get("/", "X-Forwarded-For: 6.6.6.6", "Forwarded: for=6.6.6.6"))
    assert not {"HTTP_X_FORWARDED_FOR", "HTTP_FORWARDED"} & set(application.environ)


def test_length_beside_chunks_is_refused(simulate: Simulate) -> None:
    """The two framings could be read differently by a proxy in front."""
    head = request("POST", "/", "Content-Length: 3", "Transfer-Encoding: chunked")
    assert_refused(simulate, head + chunks(b"abc") + SMUGGLED, 400)


@pytest.mark.parametrize("field", ["Host: b", "Content-Type: a/b", "Authorization: x"])
def test_fields_that_stand_once_are_refused_when_repeated(field: str, simulate: Simulate) -> None:
    assert_refused(simulate, get("/", field, field) + SMUGGLED, 400)
