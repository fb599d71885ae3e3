"""Clients that leave: half-closed connections get their responses, resets end them (D9)."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running
from tests.fakes import RecordingObserver, Simulation, get, post, request
from tests.functional.applications import Never, hello, large, path
from waitress.outbound import ClientDisconnected

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]


class Watching:
    """An application that pauses, and then tells whether its client was seen to leave."""

    def __init__(self) -> None:
        self.sim: Simulation | None = None
        self.saw: list[bool] = []
        self.raised: list[BaseException] = []
        self.closed = 0

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.disconnected = environ["waitress.client_disconnected"]
        start_response("200 OK", [("Content-Length", "6")])
        return self

    def __iter__(self) -> Iterator[bytes]:
        assert self.sim is not None
        yield b"one"
        self.sim.dispatcher.pause("between")
        self.saw.append(self.disconnected())
        try:
            yield b"two"
        except BaseException as error:
            self.raised.append(error)
            raise

    def close(self) -> None:
        self.closed += 1


def watched(simulate: Simulate, **settings: Any) -> tuple[Watching, Simulation]:
    application = Watching()
    application.sim = simulate(application, **settings)
    return application, application.sim


# -- half-close -----------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["with the request", "while it is queued", "while it runs"])
def test_half_closed_connection_gets_its_response_whole(when: str, simulate: Simulate) -> None:
    application, sim = watched(simulate)
    client = sim.knock()
    client.send(get())
    if when == "with the request":
        client.shutdown()
    sim.dispatcher.is_held = True
    sim.settle()
    if when == "while it is queued":
        client.shutdown()
        sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    if when == "while it runs":
        client.shutdown()
        sim.settle()
    sim.dispatcher.resume("between")
    sim.settle()
    assert client.response().body == b"onetwo"
    assert client.ended
    assert application.saw == [True]
    assert application.closed == 1


def test_all_requests_sent_before_a_half_close_are_answered(simulate: Simulate) -> None:
    sim = simulate(path, recv_bytes=50)
    client = sim.knock()
    client.send(get("/a") + post("/b", b"x" * 500) + get("/c"))
    client.shutdown()
    sim.settle()
    assert [response.body for response in client.responses()] == [
        b"/a", b"/b" + b"x" * 500, b"/c"
    ]  # fmt: skip
    assert client.ended


def test_half_close_does_not_wake_the_loop_again_and_again(simulate: Simulate) -> None:
    _, sim = watched(simulate)
    client = sim.connect(get())
    client.shutdown()
    sim.settle()
    waited = sim.network.waited
    sim.advance(10)
    assert sim.network.waited - waited == 10  # All of the time was spent waiting.
    sim.dispatcher.resume("between")
    sim.settle()
    assert client.ended


def test_half_close_in_mid_request_ends_the_connection(simulate: Simulate) -> None:
    for part in (b"", b"GET / HT", request("POST", "/", "Content-Length: 5") + b"ab"):
        sim = simulate(hello)
        client = sim.connect(part)
        client.shutdown()
        sim.settle()
        assert (bytes(client.data), client.ended) == (b"", True)
        assert not sim.channels


def test_half_close_is_a_disconnect_with_lookahead(simulate: Simulate) -> None:
    application, sim = watched(simulate, channel_request_lookahead=1)
    client = sim.connect(get())
    client.shutdown()
    sim.settle()
    sim.dispatcher.resume("between")
    sim.settle()
    assert application.saw == [True]
    assert application.closed == 1
    assert sim.dispatcher.served == 1
    assert client.data.endswith(b"one")
    assert client.ended
    assert not sim.channels


def test_write_to_a_client_that_left_raises_with_lookahead(simulate: Simulate) -> None:
    raised: list[BaseException] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"one")
        sim.dispatcher.pause("between")
        try:
            write(b"two")
        except ClientDisconnected as error:
            raised.append(error)
            raise
        return []

    sim = simulate(application, channel_request_lookahead=1)
    client = sim.connect(get())
    client.shutdown()
    sim.settle()
    sim.dispatcher.resume("between")
    assert len(raised) == 1


def test_requests_of_a_client_that_left_are_run_with_lookahead(simulate: Simulate) -> None:
    """Only a reset lets a queued request be dropped; for a half-close nothing is written."""
    ran: list[str] = []
    raised: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ran.append(environ["PATH_INFO"])
        try:
            start_response("200 OK", [])(b"x")
        except ClientDisconnected:
            raised.append(environ["PATH_INFO"])
            raise
        return []

    sim = simulate(application, channel_request_lookahead=5)
    sim.dispatcher.is_held = True
    client = sim.connect(get("/1") + get("/2") + get("/3"))
    client.shutdown()
    sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    assert ran == raised == ["/1", "/2", "/3"]
    assert client.data == b""
    assert client.ended
    assert not sim.channels


def test_response_of_a_client_that_left_is_cut_visibly_with_lookahead(
    simulate: Simulate,
) -> None:
    """One that ends with the connection would look whole."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        sim.dispatcher.pause("between")
        yield b"two"

    sim = simulate(application, channel_request_lookahead=1)
    client = sim.connect(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    client.shutdown()
    sim.settle()
    sim.dispatcher.resume("between")
    sim.settle()
    assert client.was_reset
    assert not sim.channels


def test_client_that_is_there_is_not_reported_as_disconnected(simulate: Simulate) -> None:
    application, sim = watched(simulate)
    client = sim.connect(get())
    sim.dispatcher.resume("between")
    sim.settle()
    assert application.saw == [False]
    assert client.response().body == b"onetwo"


def test_answer_reaches_a_client_that_half_closed_behind_bytes_nobody_reads(
    simulate: Simulate,
) -> None:
    """The end of its stream was seen while a request ran; its bytes are read afterwards."""
    _, sim = watched(simulate, max_request_body_size=100)
    client = sim.connect(get() + request("POST", "/", "Content-Length: 200000"))
    client.send(b"x" * 200_000)
    client.shutdown()
    sim.settle()
    sim.dispatcher.resume("between")
    sim.settle()
    assert [response.status for response in client.responses()] == [200, 413]
    assert client.ended


# -- resets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lookahead", [0, 1])
def test_reset_is_seen_by_the_application(lookahead: int, simulate: Simulate) -> None:
    application, sim = watched(simulate, channel_request_lookahead=lookahead)
    client = sim.connect(get())
    client.reset()
    sim.settle()
    assert not sim.channels
    sim.dispatcher.resume("between")
    assert application.saw == [True]
    assert application.closed == 1


@pytest.mark.parametrize("lookahead", [0, 1])
def test_reset_drops_a_queued_request_unrun(lookahead: int, simulate: Simulate) -> None:
    application = Never()
    sim = simulate(
        application,
        channel_request_lookahead=lookahead,
    )
    sim.server.observer = observer = RecordingObserver()
    sim.dispatcher.is_held = True
    client = sim.connect(get())
    client.reset()
    sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    assert observer.names == ["channel created", "created", "queued", "cancelled", "channel closed"]
    assert not application.was_run


@pytest.mark.parametrize(
    "part",
    [b"", b"GET / HT", request("POST", "/", "Content-Length: 5") + b"ab"],
    ids=["idle", "head", "body"],
)
def test_reset_in_every_phase_of_a_request_closes_the_connection(
    part: bytes, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    client = sim.connect(part)
    client.reset()
    sim.settle()
    assert not sim.channels
    assert caplog.records == []


def test_reset_in_mid_body_gives_back_what_came_of_it(simulate: Simulate) -> None:
    sim = simulate(hello, inbuf_overflow=1000)
    client = sim.connect(request("POST", "/", "Content-Length: 50000"))
    client.send(b"x" * 20_000)
    sim.settle()
    assert sim.server.spool.used == 20_000
    client.reset()
    sim.settle()
    assert sim.server.spool.used == 0


def test_reset_while_the_response_is_sent_closes_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(large(50_000), outbuf_overflow=1000)
    client = sim.connect(get(), capacity=1000)
    client.is_reading = False
    sim.settle()
    client.reset()
    sim.settle()
    assert not sim.channels
    assert sim.server.spool.used == 0
    assert caplog.records == []


def test_client_that_closes_without_reading_is_found_out_by_sending(simulate: Simulate) -> None:
    """Its system answers what comes with a reset; until then it looks like a half-close."""
    sim = simulate(hello)
    sim.dispatcher.is_held = True
    client = sim.connect(get() + get())
    client.close()
    sim.settle()
    assert len(sim.channels) == 1
    sim.dispatcher.is_held = False
    sim.settle()
    assert not sim.channels


# -- early answers --------------------------------------------------------------------------


def test_early_refusal_reaches_a_client_that_is_still_sending(simulate: Simulate) -> None:
    sim = simulate(hello, max_request_body_size=1000)
    client = sim.connect(request("POST", "/", "Content-Length: 50000000"))
    client.is_reading = False
    for _ in range(50):
        client.send(b"x" * 100_000)
        sim.settle()
    client.is_reading = True
    sim.settle()
    assert client.response().status == 413
    assert client.ended


def test_lingering_ends_when_the_client_closes(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(b"BAD\r\n\r\n" + b"x" * 1000)
    client.send(b"x" * 1000)
    sim.settle()
    assert len(sim.channels) == 1
    client.close()
    sim.settle()
    assert not sim.channels


def test_lingering_ends_with_a_reset(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(b"BAD\r\n\r\n" + b"x")
    client.reset()
    sim.settle()
    assert not sim.channels


def test_lingering_ends_after_five_seconds_of_silence(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.connect(b"BAD\r\n\r\n" + b"x")
    sim.advance(4.5)
    assert len(sim.channels) == 1
    sim.advance(1)
    assert not sim.channels


def test_lingering_ends_after_half_a_minute(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(b"BAD\r\n\r\n" + b"x")
    for number in range(1, 8):
        sim.at(number * 4, lambda: client.send(b"x"))
    sim.advance(29)
    assert len(sim.channels) == 1
    client.send(b"x")
    sim.advance(1.5)
    assert not sim.channels


def test_lingering_ends_after_64_mebibytes(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(b"BAD\r\n\r\n" + b"x")
    for _ in range(64):
        assert len(sim.channels) == 1
        client.send(bytes(1024 * 1024))
        sim.settle()
    client.send(bytes(1024))
    sim.settle()
    assert not sim.channels


def test_lingering_can_be_switched_off(simulate: Simulate) -> None:
    """ "0: close at once" is what the setting's help says."""
    sim = simulate(hello, linger_timeout=0)
    sim.connect(b"BAD\r\n\r\n" + b"x")
    assert not sim.channels


def test_only_so_many_connections_linger_at_once(simulate: Simulate) -> None:
    sim = simulate(hello)
    for _ in range(103):
        sim.connect(b"BAD\r\n\r\n" + b"x")
    assert len(sim.channels) == 100
    sim.advance(6)
    assert not sim.channels
    sim.connect(b"BAD\r\n\r\n" + b"x")
    assert len(sim.channels) == 1


def test_bytes_behind_the_last_request_do_not_destroy_its_response(simulate: Simulate) -> None:
    """The client asked to close, and sent more all the same."""
    sim = simulate(hello)
    client = sim.connect(get("/", "Connection: close") + b"x" * 100_000)
    assert client.response().body == b"hello"
    assert client.ended


def test_bytes_that_come_while_the_last_request_runs_do_not_destroy_its_response(
    simulate: Simulate,
) -> None:
    _, sim = watched(simulate)
    client = sim.connect(get("/", "Connection: close"))
    client.send(b"x" * 100)
    sim.settle()
    sim.dispatcher.resume("between")
    sim.settle()
    assert client.response().body == b"onetwo"
    assert client.ended


def test_upload_of_many_megabytes_gets_to_read_its_refusal(serve: Serve) -> None:
    """On real sockets, where unread bytes at a close destroy what was sent."""
    running = serve(hello, max_request_body_size=1000)
    for _ in range(10):
        with running.connect() as wire:
            wire.send(request("POST", "/", "Content-Length: 5000000"))
            wire.send(bytes(5_000_000))
            wire.sock.shutdown(socket.SHUT_WR)
            assert wire.read_answer().status == 413
            assert wire.read_to_end() == b""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_end_is_seen_though_a_child_of_the_application_holds_the_socket(serve: Serve) -> None:
    """Whoever forks in mid-request leaves a copy of every descriptor in the child."""
    children: list[int] = []
    read_end, write_end = os.pipe()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        child = os.fork()
        if not child:
            os.close(write_end)
            os.read(read_end, 1)
            os._exit(0)
        children.append(child)
        return hello(environ, start_response)

    running = serve(application)
    try:
        with running.connect() as wire:
            wire.send(get("/", "Connection: close"))
            assert wire.read_to_end().endswith(b"hello")
    finally:
        os.close(write_end)
        os.waitpid(children[0], 0)
        os.close(read_end)


def test_half_close_is_answered_on_a_real_socket(serve: Serve) -> None:
    entered, opened = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        assert opened.wait(PATIENCE)
        return hello(environ, start_response)

    running = serve(application)
    with running.connect() as wire:
        wire.send(get())
        assert entered.wait(PATIENCE)
        wire.sock.shutdown(socket.SHUT_WR)
        # Two rounds of the loop: the end of the stream has been seen.
        running.call_in_loop(lambda: None)
        running.call_in_loop(lambda: None)
        opened.set()
        assert wire.read_answer().body == b"hello"
        assert wire.read_to_end() == b""
