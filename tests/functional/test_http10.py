"""HTTP/1.0 as a client sees it: one request, unless it asks for more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.live import Running
from tests.fakes import Simulation, chunks, get, post, request
from tests.functional.applications import hello, path, stream

Simulate = Callable[..., Simulation]

KEEP = "Connection: keep-alive"


def test_connection_ends_after_one_request(simulate: Simulate) -> None:
    client = simulate(path).connect(get("/a", version="1.0") + get("/b", version="1.0"))
    response = client.response()
    assert (response.version, response.body) == ("1.0", b"/a")
    assert response.headers["connection"] == "close"
    assert client.ended


def test_connection_persists_when_the_client_asks_for_it(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect(get("/a", KEEP, version="1.0"))
    assert client.response().headers["connection"] == "Keep-Alive"
    assert client.is_open
    assert sim.ask(client, get("/b", version="1.0")).body == b"/b"
    assert client.ended


def test_close_beside_keep_alive_wins(simulate: Simulate) -> None:
    client = simulate(path).connect(get("/a", "Connection: keep-alive, close", version="1.0"))
    assert client.response().headers["connection"] == "close"
    assert client.ended


def test_body_of_unknown_length_ends_with_the_connection(simulate: Simulate) -> None:
    client = simulate(stream).connect(get("/abc", KEEP, version="1.0"))
    response = client.response()
    assert response.body == b"/abc"
    assert response.headers["connection"] == "close"
    assert not {"transfer-encoding", "content-length"} & set(response.headers)


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_status_without_a_body_ends_the_connection(status: str, simulate: Simulate) -> None:
    """No length could tell a client of HTTP/1.0 that none is coming."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response(status, [])
        return []

    client = simulate(application).connect(get("/", KEEP, version="1.0"))
    assert client.response().headers["connection"] == "close"
    assert client.ended


def test_body_of_known_length_is_read(simulate: Simulate) -> None:
    client = simulate(path).connect(post("/a", b"bc", version="1.0"))
    assert client.response().body == b"/abc"


def test_expectation_is_ignored(simulate: Simulate) -> None:
    """RFC 9110, 10.1.1."""
    sim = simulate(path)
    client = sim.connect(
        request("POST", "/a", "Content-Length: 2", "Expect: 100-continue", version="1.0")
    )
    assert client.data == b""
    client.send(b"bc")
    sim.settle()
    assert client.response().body == b"/abc"


def test_transfer_encoding_is_refused(simulate: Simulate) -> None:
    """RFC 9112, 6.1: the framing is faulty, whatever else stands there."""
    head = request("POST", "/a", "Transfer-Encoding: chunked", KEEP, version="1.0")
    client = simulate(path).connect(head + chunks(b"x") + get("/b"))
    assert client.response().status == 400
    assert client.ended


def test_host_is_not_needed(simulate: Simulate) -> None:
    assert simulate(hello).connect(b"GET / HTTP/1.0\r\n\r\n").response().status == 200


def test_what_came_before_a_cut_arrives(serve: Callable[..., Running]) -> None:
    """On a real connection: a reset throws away what the kernel was holding back."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"the beginning"
        raise ValueError("for the test")

    with serve(application).connect() as wire:
        wire.send(get("/", version="1.0"))
        received: list[bytes] = []
        with pytest.raises(ConnectionResetError):
            received.extend(iter(lambda: wire.sock.recv(4096), b""))
    assert b"".join(received).endswith(b"\r\n\r\nthe beginning")
