"""More than the threads can do, on real sockets and with real threads."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running, Wire, hello
from tests.fakes import get, post

Serve = Callable[..., Running]


class Asked(Gate):
    """A gate that remembers who came through, by path."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.paths.append(environ["PATH_INFO"])
        return super().__call__(environ, start_response)


@pytest.fixture
def wires() -> Any:
    """Give a function that connects to a server, from an address of the loopback."""
    with ExitStack() as stack:

        def connect(running: Running, host: str = "127.0.0.1") -> Wire:
            sock = socket.create_connection(("127.0.0.1", running.port), PATIENCE, (host, 0))
            return stack.enter_context(Wire(sock))

        yield connect


def await_queued(running: Running, count: int) -> None:
    """Return when so many requests wait for a thread."""
    queue = running.server.task_dispatcher.queue
    while len(queue) != count:
        running.call_in_loop(lambda: None)


def test_the_oldest_are_refused_by_the_loop_while_all_threads_are_busy(
    serve: Serve, wires: Any
) -> None:
    gate = Asked()
    running = serve(gate, threads=2, queue_limit=2, health_prefix="/-")
    clients = []
    for number in range(6):
        clients.append(wires(running))
        clients[-1].send(get(f"/{number}"))
        if number < 2:
            gate.await_entry()
        else:
            await_queued(running, min(number - 1, 2))
    refused = [client.read_answer() for client in clients[2:4]]
    assert [answer.status for answer in refused] == [503, 503]
    assert {answer.headers["retry-after"] for answer in refused} == {"1"}
    # Nobody is free, and the queue is full.
    assert wires(running).get("/-/livez").body == b"ok\n"
    gate.opened.set()
    assert [clients[number].read_answer().status for number in (0, 1, 4, 5)] == [200] * 4
    assert clients[2].get("/again").status == 200
    assert sorted(gate.paths) == ["/0", "/1", "/4", "/5", "/again"]
    assert running.server.stats().rejects == {"queue-limit": 2}


def test_who_has_waited_too_long_is_refused_while_all_threads_are_busy(
    serve: Serve, wires: Any
) -> None:
    gate = Asked()
    running = serve(gate, threads=1, queue_timeout=0.3)
    busy, waiting = wires(running), wires(running)
    busy.send(get("/busy"))
    gate.await_entry()
    waiting.send(post("/waiting", b"x" * 100))
    assert waiting.read_answer().status == 503
    gate.opened.set()
    assert busy.read_answer().status == 200
    assert gate.paths == ["/busy"]


def test_request_of_a_client_that_has_reset_is_never_run(serve: Serve, wires: Any) -> None:
    gate = Asked()
    running = serve(gate, threads=1, queue_limit=5)
    busy, gone, last = wires(running), wires(running), wires(running)
    busy.send(get("/busy"))
    gate.await_entry()
    gone.send(get("/gone"))
    await_queued(running, 1)
    gone.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    gone.close()
    await_queued(running, 0)
    last.send(get("/last"))
    await_queued(running, 1)
    gate.opened.set()
    assert last.read_answer().status == 200
    assert gate.paths == ["/busy", "/last"]


def test_clients_take_turns_where_the_queue_is_fair(serve: Serve, wires: Any) -> None:
    gate = Asked()
    running = serve(gate, threads=1, fair_queue=True)
    busy = wires(running)
    busy.send(get("/busy"))
    gate.await_entry()
    clients = []
    for number, host in enumerate(["127.0.0.2"] * 3 + ["127.0.0.3"] * 2 + ["127.0.0.4"]):
        clients.append(wires(running, host))
        clients[-1].send(get(f"/{number}"))
        await_queued(running, number + 1)
    gate.opened.set()
    assert [client.read_answer().status for client in clients] == [200] * 6
    assert gate.paths == ["/busy", "/0", "/3", "/5", "/1", "/4", "/2"]


def test_bodies_that_do_not_fit_into_memory_together_all_arrive(serve: Serve, wires: Any) -> None:
    def length(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        body = b"%d" % len(environ["wsgi.input"].read())
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]

    running = serve(length, threads=2, max_buffered_bytes=100_000)
    clients = [wires(running) for _ in range(8)]
    request = post("/", b"x" * 80_000)
    for client in clients:
        client.send(request[:60_000])
    for client in clients:
        client.send(request[60_000:])
    assert [client.read_answer().body for client in clients] == [b"80000"] * 8


def test_all_is_answered_once_and_in_order_under_a_storm(serve: Serve, wires: Any) -> None:
    """Threads take from the queue what the loop takes back, at the same time."""
    running = serve(hello, threads=4, queue_limit=3, queue_timeout=0.5, fair_queue=True)
    clients = [wires(running) for _ in range(40)]
    answers = []
    for _ in range(25):
        for client in clients:
            client.send(get("/a") + get("/b"))
        answers += [client.read_answer().status for client in clients for _ in range(2)]
    assert set(answers) <= {200, 503}
    assert answers.count(200) > 25
    assert len(answers) == 40 * 25 * 2
    rejects = running.server.stats().rejects
    assert sum(rejects.values()) == answers.count(503)
