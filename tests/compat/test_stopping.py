"""Servers that are stopped from another thread, as test suites and editors do it."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running, Wire, hello, request
from waitress import create_server, wasyncore
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer, WSGIServer

# -- a server for test suites, which is stopped by closing all it has ----------------


class StoppableServer(WSGIServer):
    """Runs in a thread of the test's and can be stopped from another one.

    The base constructor is given a bound method, before there is anything it could use.
    """

    def __init__(self, application: Any, *args: Any, **kw: Any) -> None:
        super().__init__(self.wrapper, *args, **kw)
        self.thread: threading.Thread | None = None
        self.wrapped = application
        self.was_stopped = False
        self.url = f"http://{self.adj.host}:{self.adj.port}/"

    def wrapper(self, environ: dict[str, Any], start_response: Any) -> Any:
        environ["test.url"] = self.url
        return self.wrapped(environ, start_response)

    def run(self) -> None:
        try:
            self.asyncore.loop(0.5, map=self._map)
        except OSError:
            if not self.was_stopped:
                raise

    def start(self) -> None:
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.was_stopped = True
        level = self.logger.level
        self.logger.setLevel(logging.CRITICAL)
        try:
            while self._map:
                for each in list(self._map.values()):
                    each.handle_close()
            self.maintenance(0)
        finally:
            self.logger.setLevel(level)
        self.task_dispatcher.shutdown()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def test_stoppable_server_answers_and_stops_with_connections_open() -> None:
    port = free_port()
    server = StoppableServer(hello, host="127.0.0.1", port=port)
    server.start()
    assert server.url == f"http://127.0.0.1:{port}/"
    with Wire(socket.create_connection(("127.0.0.1", port), PATIENCE)) as wire:
        assert wire.get().body == b"hello"
        server.stop()
        assert wire.read_to_end() == b""
    assert server.thread
    server.thread.join(PATIENCE)
    assert not server.thread.is_alive()
    assert not server._map
    assert not server.active_channels


def test_stoppable_server_can_be_started_many_times_on_one_port() -> None:
    port = free_port()
    for _ in range(5):
        server = StoppableServer(hello, host="127.0.0.1", port=port)
        server.start()
        with Wire(socket.create_connection(("127.0.0.1", port), PATIENCE)) as wire:
            assert wire.get("/", "Connection: close").status == 200
        server.stop()
        assert server.thread
        server.thread.join(PATIENCE)
        assert not server.thread.is_alive()


# -- an editor's helper process: an HTTP request asks the server to go ---------------


class EditorServer(TcpWSGIServer):
    """Stops when asked to by a request; the request is answered, the process goes on."""

    def __init__(self, application: Any, close: Callable[[Any], None]) -> None:
        super().__init__(application, host="127.0.0.1", port=0, threads=3)
        self.close_one = close
        self.greeting = f"serving on http://{self.effective_host}:{self.effective_port}"

    def run(self) -> None:
        try:
            super().run()
        except OSError:
            if self.task_dispatcher.threads:
                raise

    def shut_down(self) -> None:
        self.task_dispatcher.shutdown()
        for each in list(self._map.values()):
            self.close_one(each)


@pytest.mark.parametrize(
    "close",
    [lambda each: each.close(), lambda each: each.socket.close()],
    ids=["objects", "sockets"],
)
def test_editor_server_stops_on_a_request(
    close: Callable[[Any], None], run_server: Callable[[Any], Running]
) -> None:
    stopper: list[threading.Thread] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/shutdown":
            # As a timer would: not from the worker, whose end the shutdown awaits.
            stopper.append(threading.Thread(target=server.shut_down))
            stopper[0].start()
        return hello(environ, start_response)

    server = EditorServer(application, close)
    assert server.greeting == f"serving on http://127.0.0.1:{server.effective_port}"
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get("/").body == b"hello"
        wire.send(request("POST", "/shutdown", body=b"{}"))
        assert wire.read_to_end()[-5:] in (b"hello", b"")
    running.await_end()
    stopper[0].join(PATIENCE)
    assert not stopper[0].is_alive()


# -- a desktop application, which knows one more way for a peer to be gone -----------


class Vanished(socket.socket):
    """A connection whose peer goes away in a manner that only some systems know."""

    def send(self, data: Any, flags: int = 0) -> int:
        raise OSError(errno.EPROTOTYPE, "protocol wrong type for socket")


class VanishingChannel(HTTPChannel):
    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        super().__init__(server, Vanished(fileno=sock.detach()), addr, adj, map=map)


def test_desktop_application_adds_an_errno_to_the_disconnected(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    serve: Callable[..., Running],
) -> None:
    monkeypatch.setattr(
        wasyncore, "_DISCONNECTED", wasyncore._DISCONNECTED.union({errno.EPROTOTYPE})
    )
    running = serve(hello)
    running.server.channel_class = VanishingChannel
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert wire.read_to_end() == b""
    assert "EPROTOTYPE" not in caplog.text
    assert "protocol wrong type" not in caplog.text


def test_desktop_application_sees_the_errno_as_an_error_without_the_addition(
    caplog: pytest.LogCaptureFixture, serve: Callable[..., Running]
) -> None:
    running = serve(hello)
    running.server.channel_class = VanishingChannel
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert wire.read_to_end() == b""
    assert "protocol wrong type" in caplog.text


def test_desktop_application_stops_with_handle_close(
    run_server: Callable[[Any], Running],
) -> None:
    server = create_server(hello, host="127.0.0.1", port=0, clear_untrusted_proxy_headers=True)
    assert int(server.effective_port) > 0
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get().status == 200
        for each in list(server._map.values()):
            each.handle_close()
        server.task_dispatcher.shutdown()
        assert wire.read_to_end() == b""
    running.await_end()


# -- every known way to stop, in every state of the server ---------------------------


def handle_close_until_empty(server: Any) -> None:
    while server._map:
        for each in list(server._map.values()):
            each.handle_close()


def close_values(server: Any) -> None:
    for each in list(server._map.values()):
        each.close()


def close_sockets(server: Any) -> None:
    for each in list(server._map.values()):
        each.socket.close()


def close_and_clear(server: Any) -> None:
    server.close()
    server._map.clear()


def close_all(server: Any) -> None:
    wasyncore.close_all(server._map)


def close_all_in_loop(server: Any) -> None:
    server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))


WAYS = [
    handle_close_until_empty,
    close_values,
    close_sockets,
    close_and_clear,
    close_all,
    close_all_in_loop,
]


def close_leftovers(server: Any, channels: list[Any]) -> None:
    """Close what a way of stopping leaves open, as the end of the process would."""
    for each in channels:
        each.handle_close()
    server.close()
    server._map.clear()


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__)
def stop(request: pytest.FixtureRequest) -> Callable[[Any], None]:
    found: Callable[[Any], None] = request.param
    return found


@pytest.mark.parametrize("use_poll", [False, True], ids=["select", "poll"])
@pytest.mark.parametrize("workers", ["workers-first", "workers-last"])
def test_loop_ends_with_idle_connections_open(
    stop: Callable[[Any], None],
    use_poll: bool,
    workers: str,
    serve: Callable[..., Running],
) -> None:
    running = serve(hello, asyncore_use_poll=use_poll, asyncore_loop_timeout=0.1)
    server = running.server
    with running.connect() as used, running.connect() as half:
        assert used.get().status == 200
        half.send(b"GET / HTTP/1.1\r\nHost")
        channels = running.call_in_loop(lambda: list(server.active_channels.values()))
        if workers == "workers-first":
            server.task_dispatcher.shutdown()
        stop(server)
        running.await_end()
        close_leftovers(server, channels)
        assert used.read_to_end() == b""
        assert half.read_to_end() == b""
    server.task_dispatcher.shutdown()
    assert not server.task_dispatcher.threads


@pytest.mark.parametrize("use_poll", [False, True], ids=["select", "poll"])
@pytest.mark.parametrize("stop", [way for way in WAYS if way is not close_sockets])
def test_loop_ends_with_a_request_in_service(
    stop: Callable[[Any], None], use_poll: bool, serve: Callable[..., Running]
) -> None:
    gate = Gate()
    running = serve(gate, asyncore_use_poll=use_poll, asyncore_loop_timeout=0.1, threads=1)
    server = running.server
    with running.connect() as wire, running.connect() as waiting:
        wire.send(request("GET", "/first"))
        gate.await_entry()
        waiting.send(request("GET", "/second"))
        stop(server)
        running.await_end()
        gate.opened.set()
        server.task_dispatcher.shutdown()
        assert not server.task_dispatcher.threads
        close_leftovers(server, list(server.active_channels.values()))


@pytest.mark.parametrize("use_poll", [False, True], ids=["select", "poll"])
def test_loop_ends_once_the_request_is_served_whose_socket_was_closed(
    use_poll: bool, serve: Callable[..., Running]
) -> None:
    # While the request is in service nobody needs the socket, so nobody need see that
    # it is closed.
    gate = Gate()
    running = serve(gate, asyncore_use_poll=use_poll, asyncore_loop_timeout=0.1)
    server = running.server
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        gate.await_entry()
        channels = running.call_in_loop(lambda: list(server.active_channels.values()))
        close_sockets(server)
        gate.opened.set()
        running.await_end()
        server.task_dispatcher.shutdown()
        close_leftovers(server, channels)
        assert wire.read_to_end() == b""


@pytest.mark.parametrize("use_poll", [False, True], ids=["select", "poll"])
def test_loop_ends_with_output_that_nobody_reads(
    stop: Callable[[Any], None], use_poll: bool, serve: Callable[..., Running]
) -> None:
    size = 32 * 1024 * 1024

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(size))])
        return [b"x" * size]

    running = serve(application, asyncore_use_poll=use_poll, asyncore_loop_timeout=0.1)
    server = running.server
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert wire.read_line() == b"HTTP/1.1 200 OK"
        channels = running.call_in_loop(lambda: list(server.active_channels.values()))
        stop(server)
        running.await_end()
        server.task_dispatcher.shutdown()
        close_leftovers(server, channels)
        assert len(wire.read_to_end()) < size


@pytest.mark.parametrize("use_poll", [False, True], ids=["select", "poll"])
def test_loop_does_not_spin_once_everything_is_closed(
    stop: Callable[[Any], None], use_poll: bool, run_server: Callable[[Any], Running]
) -> None:
    class Measured(WSGIServer):
        """Says how much processor time its loop took."""

        used_seconds = 0.0

        def run(self) -> None:
            try:
                super().run()
            finally:
                self.used_seconds = time.thread_time()

    server = Measured(hello, host="127.0.0.1", port=0, asyncore_use_poll=use_poll)
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get().status == 200
        channels = running.call_in_loop(lambda: list(server.active_channels.values()))
        stop(server)
        running.await_end()
        close_leftovers(server, channels)
    assert server.used_seconds < 0.5


def test_late_wake_up_after_close_hurts_nobody(
    serve: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    running = serve(gate, threads=1)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        gate.await_entry()
        running.server.close()
        gate.opened.set()
        # The request in service still gets its answer: only listening has ended.
        assert wire.read_answer().body == b"hello"
        wire.close()
    running.await_end()
