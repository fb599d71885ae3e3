"""Collaborators replaced by small objects that have no more than what is promised."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running, hello, mirror, request
from waitress import create_server, wasyncore
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.server import TcpWSGIServer

# -- another protocol on our channels -------------------------------------------------


class LineParser:
    """Reads one line a request; has what a channel asks of a parser, and no more."""

    completed = False
    empty = False
    error = None
    expect_continue = False
    headers_finished = False
    connection_close = False
    version = "1.0"
    path = "/"

    def __init__(self, adj: Any) -> None:
        self.headers: dict[str, str] = {}
        self.line = b""

    def received(self, data: bytes) -> int:
        end = data.find(b"\n")
        used = len(data) if end < 0 else end + 1
        self.line += data[:used]
        self.completed = end >= 0
        self.empty = self.line == b"\n"
        return used

    def close(self) -> None:
        """There is nothing to give back."""


class LineTask:
    """Answers a line with the same line in upper case; ``quit`` closes."""

    close_on_finish = False
    wrote_header = False

    def __init__(self, channel: Any, request: LineParser) -> None:
        self.channel = channel
        self.request = request

    def service(self) -> None:
        if self.request.line == b"quit\n":
            self.close_on_finish = True
            self.channel.write_soon(b"bye\n")
        else:
            self.channel.write_soon(self.request.line.upper())


class LineChannel(HTTPChannel):
    parser_class = LineParser
    task_class = LineTask


def test_line_protocol_runs_on_channels_with_parser_and_task_of_its_own(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello)
    running.server.channel_class = LineChannel
    with running.connect() as wire:
        wire.send(b"on")
        wire.send(b"e\n\ntwo\nthr")
        assert wire.read(8) == b"ONE\nTWO\n"
        wire.send(b"ee\nquit\nnever answered\n")
        assert wire.read_to_end() == b"THREE\nbye\n"


# -- loggers -------------------------------------------------------------------------


class ChannelLogger:
    """Has the two methods that a channel may call, with one argument each."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, message: str) -> None:
        self.lines.append("info: " + message)

    def exception(self, message: str) -> None:
        self.lines.append("exception: " + message)


def test_channel_logs_to_a_narrow_logger(serve: Callable[..., Running]) -> None:
    logger = ChannelLogger()

    class Channel(HTTPChannel):
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            self.logger = logger

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/gone":
            raise ClientDisconnected
        raise LookupError("on purpose")

    running = serve(application)
    running.server.channel_class = Channel
    with running.connect() as wire:
        assert wire.get("/broken").status == 500
    with running.connect() as wire:
        wire.send(request("GET", "/gone"))
        assert wire.read_to_end() == b""
    assert logger.lines == [
        "exception: Exception while serving /broken",
        "info: Client disconnected while serving /gone",
    ]


def test_server_reports_its_address_through_what_is_on_the_instance(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello)
    lines: list[str] = []
    running.server.log_info = lines.append
    running.server.print_listen("at {} port {}")
    assert lines == [f"at 127.0.0.1 port {running.port}"]


# -- triggers, maps, upkeep ----------------------------------------------------------


def after_the_loop_sleeps(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer when nobody but a trigger can tell the loop of it."""
    loop = wasyncore.event_loop_of(environ["test.server"]._map)
    until = time.monotonic() + PATIENCE
    while (loop.is_awake or loop._awaits_workers) and time.monotonic() < until:
        threading.Event().wait(0.002)
    return hello(environ, start_response)


def test_replaced_trigger_is_pulled_for_a_response(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    server = running.server

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        return after_the_loop_sleeps({**environ, "test.server": server}, start_response)

    server.application = application
    own = running.server.trigger

    class Counting:
        """Passes the pulls on."""

        pulls = 0

        def pull_trigger(self, thunk: Any = None) -> None:
            self.pulls += 1
            own.pull_trigger(thunk)

        def close(self) -> None:
            own.close()

    running.server.trigger = counting = Counting()
    with running.connect() as wire:
        assert wire.get().body == b"hello"
    running.stop()
    assert counting.pulls >= 1


def test_method_that_wakes_the_loop_may_be_overridden(
    run_server: Callable[[Any], Running],
) -> None:
    class Noting(TcpWSGIServer):
        wakers: set[str] = set()

        def pull_trigger(self) -> None:
            self.wakers.add(threading.current_thread().name)
            super().pull_trigger()

    server = Noting(hello, host="127.0.0.1", port=0, threads=1)
    server.application = lambda environ, start_response: after_the_loop_sleeps(
        {**environ, "test.server": server}, start_response
    )
    running = run_server(server)
    with running.connect() as wire:
        # A loop that has not gone to sleep yet is not woken.
        for _ in range(100):
            assert wire.get().body == b"hello"
            if "waitress-0" in Noting.wakers:
                break
    running.stop()
    assert "waitress-0" in Noting.wakers


def test_map_may_be_assigned_before_the_loop_starts(
    run_server: Callable[[Any], Running],
) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    server._map = own = dict(server._map)
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        assert len(own) == 3


def test_upkeep_replaced_on_the_class_is_used(
    monkeypatch: pytest.MonkeyPatch, run_server: Callable[[Any], Running]
) -> None:
    called = threading.Event()
    monkeypatch.setattr(TcpWSGIServer, "maintenance", lambda self, now: called.set())
    running = run_server(create_server(hello, host="127.0.0.1", port=0))
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        assert called.wait(PATIENCE)


def test_upkeep_closes_what_is_silent_for_too_long(serve: Callable[..., Running]) -> None:
    running = serve(hello, channel_timeout=60)
    server = running.server
    with running.connect() as old, running.connect() as recent:
        assert old.get().status == 200
        (silent,) = list(server.active_channels.values())[:1]
        assert recent.get().status == 200
        silent.last_activity = time.time() - 100
        running.call_in_loop(lambda: server.maintenance(time.time()))
        closed = old if silent.addr == old.sock.getsockname() else recent
        left = recent if closed is old else old
        assert closed.read_to_end() == b""
        assert left.get().body == b"hello"


def test_upkeep_takes_channels_of_another_kind() -> None:
    class Idle:
        will_close = False
        requests: list[Any] = []
        last_activity = 0.0

    class Busy(Idle):
        requests = ["a request"]

    server = create_server(hello, host="127.0.0.1", port=0)
    idle, busy = Idle(), Busy()
    server.active_channels.update({100001: idle, 100002: busy})
    server.maintenance(time.time())
    assert (idle.will_close, busy.will_close) == (True, False)
    server.active_channels.clear()
    server.task_dispatcher.shutdown()
    server.close()
    server.maintenance(0)


# -- what is set on a channel from outside --------------------------------------------


def test_stream_ends_when_its_channel_is_marked_as_disconnected(
    serve: Callable[..., Running],
) -> None:
    gate = Gate()
    outcome: list[str] = []
    done = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "10")])
        write(b"first")
        gate(environ, lambda *args: None)
        try:
            write(b"last.")
        except ClientDisconnected:
            outcome.append("disconnected")
            raise
        finally:
            done.set()
        return []

    running = serve(application)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        gate.await_entry()
        (channel,) = running.server.active_channels.values()
        assert channel.connected
        channel.connected = False
        gate.opened.set()
        assert done.wait(PATIENCE)
        assert outcome == ["disconnected"]
        channel.handle_close()
        assert not wire.read_to_end().endswith(b"last.")


# -- errors in handlers --------------------------------------------------------------


class Failing(wasyncore.dispatcher):
    """Reads a pipe's end by hand, and fails."""

    def __init__(self, map: dict[int, Any]) -> None:
        super().__init__(map=map)
        self.reading, self.writing = os.pipe()
        self._fileno = self.reading
        self.add_channel()
        self.messages: list[tuple[str, str]] = []

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return False

    def handle_read(self) -> None:
        raise LookupError("of the handler's own")

    def log_info(self, message: str, type: str = "info") -> None:
        self.messages.append((type, message))

    def close(self) -> None:
        self.del_channel()

    def end(self) -> None:
        """Close both ends of the pipe."""
        os.close(self.reading)
        os.close(self.writing)


@pytest.mark.parametrize("use_poll", [False, True])
def test_failing_handler_is_reported_and_closed(use_poll: bool) -> None:
    socket_map: dict[int, Any] = {}
    failing = Failing(socket_map)
    os.write(failing.writing, b"x")
    wasyncore.loop(0.1, use_poll, socket_map, 5)
    assert socket_map == {}
    (level, message), (_, closing) = failing.messages
    assert level == "error"
    assert message.startswith("uncaptured python exception, closing channel <")
    assert "(<class 'LookupError'>:of the handler's own [" in message
    assert closing == "unhandled close event"
    failing.end()


@pytest.mark.parametrize("use_poll", [False, True])
def test_error_handler_may_raise_again(use_poll: bool) -> None:
    class Strict(Failing):
        def handle_error(self) -> None:
            raise

    socket_map: dict[int, Any] = {}
    failing = Strict(socket_map)
    os.write(failing.writing, b"x")
    with pytest.raises(LookupError, match="of the handler's own"):
        wasyncore.loop(0.1, use_poll, socket_map)
    failing.end()


def test_traceback_of_a_handler_is_told_in_one_line() -> None:
    try:
        mirror({}, None)  # type: ignore[arg-type]
    except KeyError:
        (file, function, line), kind, value, info = wasyncore.compact_traceback()
    assert (os.path.basename(file), function, kind) == ("live.py", "mirror", KeyError)
    assert str(value) == "'wsgi.input'"
    assert info.endswith(f"[{file}|mirror|{line}]")
