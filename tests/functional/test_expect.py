"""``Expect: 100-continue`` (RFC 9110, 10.1.1)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import Simulation, chunks, get, post, request
from tests.functional.applications import path

Simulate = Callable[..., Simulation]

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
EXPECT = "Expect: 100-continue"


def expecting(where: str = "/a", length: int = 2, *fields: str) -> bytes:
    """Return the head of a request that awaits an invitation."""
    return request("POST", where, f"Content-Length: {length}", EXPECT, *fields)


def test_body_is_invited_and_then_read(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect(expecting())
    assert client.data == CONTINUE
    client.send(b"bc")
    sim.settle()
    interim, final = client.responses()
    assert (interim.status, final.body) == (100, b"/abc")
    assert client.is_open


@pytest.mark.parametrize("cut", [1, 10, 60])
def test_body_is_invited_once_however_head_and_body_are_cut(cut: int, simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect()
    data = expecting("/a", 8) + b"12345678"
    for start in range(0, len(data), cut):
        client.send(data[start : start + cut])
        sim.settle()
    assert client.data.count(CONTINUE) == 1
    assert client.responses()[-1].body == b"/a12345678"


def test_body_in_chunks_is_invited(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect(request("POST", "/a", "Transfer-Encoding: chunked", EXPECT))
    assert client.data == CONTINUE
    client.send(chunks(b"b", b"c"))
    sim.settle()
    assert client.responses()[-1].body == b"/abc"


def test_each_request_of_a_connection_is_invited(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect(expecting() + b"bc")
    client.send(expecting("/d"))
    sim.settle()
    assert client.data.endswith(CONTINUE)
    client.send(b"ef")
    sim.settle()
    assert [response.status for response in client.responses()] == [100, 200, 100, 200]


def test_body_that_came_while_an_earlier_request_was_served_needs_no_invitation(
    simulate: Simulate,
) -> None:
    """RFC 9110, 10.1.1: a server may omit it once it has received some of the body."""
    client = simulate(path).connect(get("/first") + expecting() + b"bc")
    assert [response.body for response in client.responses()] == [b"/first", b"/abc"]


@pytest.mark.parametrize("fields", [(), ("Content-Length: 0",)])
def test_request_without_a_body_is_served_at_once(
    fields: tuple[str, ...], simulate: Simulate
) -> None:
    client = simulate(path).connect(request("POST", "/a", EXPECT, *fields))
    assert client.response().body == b"/a"


def test_refused_request_is_not_invited(simulate: Simulate) -> None:
    client = simulate(path, max_request_body_size=100).connect(expecting("/a", 1000))
    assert client.response().status == 413
    assert client.ended


def test_invitation_waits_for_the_responses_before_it(simulate: Simulate) -> None:
    """With look-ahead, when the head has long been read; without it, when it is read."""
    for lookahead in (0, 3):
        sim = simulate(path, channel_request_lookahead=lookahead)
        sim.dispatcher.is_held = True
        client = sim.connect(get("/first") + expecting("/a"))
        assert client.data == b""
        sim.dispatcher.is_held = False
        sim.settle()
        first, interim = client.responses()
        assert (first.body, interim.status) == (b"/first", 100)
        client.send(b"bc")
        sim.settle()
        assert client.responses()[-1].body == b"/abc"


def test_invitation_waits_for_a_response_that_the_client_has_not_read(
    simulate: Simulate,
) -> None:
    sim = simulate(path)
    client = sim.connect(post("/first", b"x" * 5000), capacity=1000)
    client.is_reading = False
    client.send(expecting("/a"))
    client.is_reading = True
    sim.settle()
    first, interim = client.responses()
    assert (len(first.body), interim.status) == (5006, 100)


@pytest.mark.parametrize("lookahead", [0, 1])
def test_nothing_is_invited_behind_a_response_that_ended_the_connection(
    lookahead: int, simulate: Simulate
) -> None:
    """The head arrives while the worker is done and the loop has not looked yet."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        yield b"abc"
        sim.dispatcher.pause("sent")
        # Too little: the connection is to end.

    sim = simulate(application, channel_request_lookahead=lookahead)
    client = sim.connect(get())
    assert client.data.endswith(b"abc")
    client.send(expecting())
    sim.dispatcher.resume("sent")
    sim.settle()
    assert client.data.endswith(b"abc")
    assert client.ended
    assert sim.dispatcher.served == 1


def test_client_that_leaves_instead_of_being_invited_is_forgotten(simulate: Simulate) -> None:
    """The reset is found while the invitation is sent, with the body's bytes at hand."""
    sim = simulate(path)
    client = sim.connect()
    client.send(expecting("/a", 200) + expecting("/b"))
    channel = sim.channel
    received = channel.received

    def leave_and_receive(data: bytes) -> Any:
        client.reset()
        return received(data)

    channel.received = leave_and_receive
    sim.settle()
    assert not sim.channels
    assert channel.request is None
