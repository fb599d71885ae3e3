"""Requests that the loop answers: in order, on their own connection, without a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from tests.fakes import Simulation, get, request
from waitress.answers import text_answer
from waitress.channel import HTTPChannel
from waitress.loop_answers import answering, answering_at
from waitress.task import WSGITask

Simulate = Callable[..., Simulation]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    body = f"application {environ['PATH_INFO']}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def told(threads: list[int] | None = None) -> Any:
    def respond(_request: Any) -> Any:
        if threads is not None:
            threads.append(threading.get_ident())
        return text_answer("200 OK", "loop\n")

    return respond


def with_loop_answers(simulate: Simulate, threads: list[int] | None = None) -> Simulation:
    sim = simulate(app)
    sim.server.channel_class = answering_at(HTTPChannel, {"/loop": told(threads)})
    return sim


def test_the_loop_answers_while_no_worker_runs(simulate: Simulate) -> None:
    threads: list[int] = []
    sim = with_loop_answers(simulate, threads)
    sim.dispatcher.is_held = True
    client = sim.connect(get("/loop"))
    assert client.response("GET").body == b"loop\n"
    assert not sim.dispatcher.queue
    assert threads == [threading.get_ident()]


def test_other_paths_go_to_the_workers(simulate: Simulate) -> None:
    sim = with_loop_answers(simulate)
    client = sim.connect(get("/other"))
    assert client.response("GET").body == b"application /other"
    assert sim.dispatcher.served == 1


def test_pipelined_answers_come_in_order(simulate: Simulate) -> None:
    sim = with_loop_answers(simulate)
    paths = ["/loop", "/a", "/loop", "/loop", "/b", "/c", "/loop"]
    client = sim.connect(b"".join(get(path) for path in paths))
    bodies = [each.body for each in client.responses(*["GET"] * len(paths))]
    expected = [b"loop\n" if path == "/loop" else f"application {path}".encode() for path in paths]
    assert bodies == expected
    assert sim.dispatcher.served == 3


def test_an_answer_behind_a_running_request_waits_for_it_but_not_in_the_queue(
    simulate: Simulate,
) -> None:
    sim = with_loop_answers(simulate)
    sim.dispatcher.is_held = True
    client = sim.connect(get("/a") + get("/loop"))
    assert not client.data
    sim.dispatcher.run_next()  # The worker ends /a, and does not queue for what follows.
    assert not sim.dispatcher.queue
    sim.settle(workers=False)
    assert [each.body for each in client.responses("GET", "GET")] == [
        b"application /a",
        b"loop\n",
    ]


def test_many_pipelined_answers_are_given_one_in_each_turn(simulate: Simulate) -> None:
    """Others have their turn in between, and no stack grows."""
    sim = with_loop_answers(simulate)
    client = sim.knock()
    client.send(get("/loop") * 300)
    sim.turn()
    before = 0
    while len(client.data) == 0:
        sim.turn()
        sim.network.let_clients_read()
    before = len(client.data)
    sim.turn()
    sim.network.let_clients_read()
    assert len(client.data) <= 3 * before
    sim.settle()
    assert len(client.responses(*["GET"] * 300)) == 300


def test_head_has_the_head_alone(simulate: Simulate) -> None:
    sim = with_loop_answers(simulate)
    response = sim.connect(request("HEAD", "/loop")).response("HEAD")
    assert response.headers["content-length"] == "5"
    assert response.body == b""


def test_other_methods_are_refused_with_what_is_allowed(simulate: Simulate) -> None:
    sim = with_loop_answers(simulate)
    response = sim.connect(request("DELETE", "/loop")).response("DELETE")
    assert response.status == 405
    assert response.headers["allow"] == "GET, HEAD"


def test_what_a_responder_raises_is_a_500_and_the_server_lives(
    simulate: Simulate, caplog: Any
) -> None:
    def respond(_request: Any) -> Any:
        raise ZeroDivisionError

    sim = simulate(app)
    sim.server.channel_class = answering_at(HTTPChannel, {"/loop": respond})
    assert sim.connect(get("/loop")).response("GET").status == 500
    assert "ZeroDivisionError" in caplog.text
    assert sim.connect(get("/a")).response("GET").body == b"application /a"


def test_a_subclass_keeps_its_name_and_its_task(simulate: Simulate) -> None:
    class Loud(WSGITask):
        def execute(self) -> None:
            self.request.headers["X_LOUD"] = "1"
            super().execute()

    class Own(HTTPChannel):
        task_class = Loud

    made = answering(Own, lambda request: request.path == "/loop", told())
    assert made.__name__ == "Own"
    assert issubclass(made, Own)

    def echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        start_response("200 OK", [])
        return [environ.get("HTTP_X_LOUD", "0").encode()]

    sim = simulate(echo)
    sim.server.channel_class = made
    client = sim.connect(get("/loop") + get("/a"))
    assert [each.body for each in client.responses("GET", "GET")] == [b"loop\n", b"1"]


def test_a_connection_that_ends_before_its_turn_harms_nothing(simulate: Simulate) -> None:
    sim = with_loop_answers(simulate)
    client = sim.connect()
    channel = sim.channel
    client.send(get("/loop"))
    channel.handle_read = lambda: (HTTPChannel.handle_read(channel), channel.cancel())
    sim.settle()
    assert not sim.channels


def test_the_loop_never_waits_for_room(simulate: Simulate) -> None:
    """A client that reads nothing holds no loop, however large the answer is."""
    sim = simulate(app, outbuf_overflow=100, outbuf_high_watermark=100, spool_limit=0)

    class Greedy(HTTPChannel):
        def writev_soon(self, parts: Any, last: bool = False) -> None:
            for _ in range(3):
                super().writev_soon([b"x" * 1000])
            super().writev_soon(parts, last)

    sim.server.channel_class = answering_at(Greedy, {"/loop": told()})
    client = sim.knock(capacity=1)
    client.is_reading = False
    client.send(get("/loop"))
    sim.settle()
    assert sim.channel.total_outbufs_len > 3000
