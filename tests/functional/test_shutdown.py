"""The end of a server: what runs is finished or cut, and nothing stays behind."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running
from tests.fakes import RecordingObserver, Simulation, get, post
from tests.functional.applications import Never, hello, large, path
from tests.looping import await_event
from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]


def interrupting(error: type[BaseException]) -> Any:
    """Return a stand-in for the module that runs the loop: the run is interrupted."""

    class Interrupted:
        @staticmethod
        def loop(**kw: Any) -> None:
            wasyncore.loop(count=1, **kw)
            raise error

    return Interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_ends_the_run_and_the_workers(error: type[BaseException], no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0, asyncore_loop_timeout=0)
    server.asyncore = interrupting(error)
    server.run()
    assert not server.task_dispatcher.threads
    server.close()
    assert not server._map


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no unix sockets")
def test_interrupt_removes_the_file_of_a_unix_socket(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "socket"
    server = create_server(hello, unix_socket=str(path), asyncore_loop_timeout=0)
    assert path.exists()
    server.asyncore = interrupting(KeyboardInterrupt)
    server.run()
    assert not path.exists()


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.0.0.1:0 127.0.0.1:0"])
def test_interrupt_lets_a_worker_go_that_waits_for_its_reader(listen: str, no_leaks: None) -> None:
    ended = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        try:
            while True:
                yield b"x" * 1_000_000
        finally:
            ended.set()

    server = create_server(
        application, listen=listen, spool_limit=0, outbuf_high_watermark=1_000_000
    )
    channels: dict[int, Any] = {}

    def interrupt() -> None:
        if any(each.outbound.worker_is_waiting for each in channels.values()):
            raise KeyboardInterrupt

    one = server_listeners(server)[0]
    channels = one.active_channels
    one.readable = lambda: interrupt() or type(one).readable(one)
    server.adj.asyncore_loop_timeout = 0.05
    with socket.create_connection((one.effective_host, int(one.effective_port))) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        server.run()
        assert ended.is_set()
    assert not server.task_dispatcher.threads


def server_listeners(server: Any) -> list[Any]:
    """Return the listeners of a server of one or several addresses."""
    objects = getattr(server, "_map", None) or server.map
    return [each for each in objects.values() if hasattr(each, "accept_connections")]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupt_ends_a_server_of_several_addresses(
    error: type[BaseException], no_leaks: None
) -> None:
    server = create_server(hello, listen="127.0.0.1:0 127.0.0.1:0", asyncore_loop_timeout=0)
    server.asyncore = interrupting(error)
    server.run()
    assert not server.task_dispatcher.threads
    assert not server.map


def test_other_errors_leave_the_run(no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0, asyncore_loop_timeout=0)
    server.asyncore = interrupting(ZeroDivisionError)
    with pytest.raises(ZeroDivisionError):
        server.run()
    server.task_dispatcher.shutdown()
    server.close()


def test_close_ends_the_run_when_the_last_connection_has_gone(serve: Serve) -> None:
    gate = Gate()
    running = serve(gate)
    with running.connect() as wire:
        wire.send(get("/", "Connection: close"))
        gate.await_entry()
        running.call_in_loop(running.server.close)
        gate.opened.set()
        assert wire.read_answer().body == b"hello"
        assert wire.read_to_end() == b""
    running.await_end()


def test_close_may_be_repeated(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.close()
    sim.server.close()
    sim.server.pull_trigger()
    assert not sim.server._map


def test_channel_closed_from_another_thread_is_closed_by_the_loop(serve: Serve) -> None:
    """A worker, or whoever else, never closes a socket (CVE-2022-31015)."""
    closed_in: list[str] = []
    closed = threading.Event()

    class Noting(HTTPChannel):
        def del_channel(self, map: Any = None) -> None:
            closed_in.append(threading.current_thread().name)
            super().del_channel(map)
            closed.set()

    running = serve(hello)
    running.server.channel_class = Noting
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        (channel,) = running.server.active_channels.values()
        channel.close()
        assert wire.read_to_end() == b""
    await_event(closed)
    assert closed_in == ["loop"]


def test_queued_requests_are_cancelled_with_the_dispatcher(simulate: Simulate) -> None:
    application = Never()
    sim = simulate(application, inbuf_overflow=10)
    sim.server.observer = observer = RecordingObserver()
    sim.dispatcher.is_held = True
    client = sim.connect(post("/", b"x" * 1000) + get())
    assert sim.dispatcher.shutdown() is True
    sim.settle()
    assert (bytes(client.data), sim.channels) == (b"", [])
    assert observer.names[-3:] == ["cancelled", "cancelled", "channel closed"]
    assert sim.server.spool.used == 0
    assert not application.was_run


def test_pending_response_is_sent_before_an_ordered_close(simulate: Simulate) -> None:
    sim = simulate(large(5000))
    client = sim.connect(get(), capacity=1000)
    client.is_reading = False
    sim.settle()
    sim.channel.close_when_flushed = True
    sim.settle()
    client.is_reading = True
    sim.settle()
    assert len(client.response().body) == 5000
    assert client.ended


def test_immediate_close_drops_what_is_unsent(simulate: Simulate) -> None:
    """Visibly: nobody takes what was sent for a whole response."""
    sim = simulate(large(5000))
    client = sim.knock(1000)
    client.is_reading = False
    client.send(get())
    sim.settle()
    sim.channel.will_close = True
    sim.settle()
    assert not sim.channels
    client.is_reading = True
    sim.settle()
    assert len(client.data) <= 1000
    assert client.was_reset


def test_iterable_that_runs_at_the_end_is_closed(serve: Serve) -> None:
    """Its next write fails, which ends it."""
    entered, opened, closed = threading.Event(), threading.Event(), threading.Event()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            entered.set()
            assert opened.wait(PATIENCE)
            while True:
                yield b"x" * 1000

        def close(self) -> None:
            closed.set()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Body()

    running = serve(application)
    with running.connect() as wire:
        wire.send(get())
        assert entered.wait(PATIENCE)
        running.call_in_loop(lambda: wasyncore.close_all(running.server._map))
        running.await_end()
        opened.set()
        assert closed.wait(PATIENCE)


def test_nothing_is_accepted_after_the_close(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect(get("/a"))
    sim.server.close()
    late = sim.knock()
    late.send(get("/late"))
    assert sim.ask(client, get("/b")).body == b"/b"
    assert late.data == b""
