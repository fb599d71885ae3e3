"""The doors from Python: ``serve``, and ``create_server`` with ``run`` and ``close``."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

import waitress
from tests.compat.live import PATIENCE, Running, Wire, call_in_loop, hello, map_of, mirror
from waitress import wasyncore

pytestmark = pytest.mark.integration


class Serving:
    """A call of ``waitress.serve`` in a thread, and the server that it made."""

    def __init__(self, application: Any, **settings: Any) -> None:
        self.server: Any = None
        self.made = threading.Event()
        self.result: list[Any] = []
        self.thread = threading.Thread(target=self._serve, args=(application, settings))
        self.thread.start()
        assert self.made.wait(PATIENCE)

    def _serve(self, application: Any, settings: dict[str, Any]) -> None:
        self.result.append(waitress.serve(application, _server=self._create, **settings))

    def _create(self, application: Any, **settings: Any) -> Any:
        self.server = waitress.create_server(application, **settings)
        self.made.set()
        return self.server

    def end(self) -> None:
        """Close everything from inside the loop, as a signal handler would."""
        socket_map = map_of(self.server)
        call_in_loop(socket_map, lambda: wasyncore.close_all(socket_map))
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        self.server.task_dispatcher.shutdown()


def connect(host: str, port: str | int) -> Wire:
    return Wire(socket.create_connection((host, int(port)), PATIENCE))


def test_serve_says_where_serves_and_returns(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "waitress")
    serving = Serving(hello, host="127.0.0.1", port=0)
    port = serving.server.effective_port
    with connect("127.0.0.1", port) as wire:
        assert wire.get().body == b"hello"
    serving.end()
    assert serving.result == [None]
    assert caplog.messages[0] == f"Serving on http://127.0.0.1:{port}"


def test_serve_listens_on_all_interfaces_by_default() -> None:
    serving = Serving(mirror, port=0, ipv6=False)
    host, port = serving.server.effective_host, serving.server.effective_port
    assert host == "0.0.0.0"
    with connect("127.0.0.1", port) as wire:
        assert wire.get().json["SERVER_PORT"] == port
    serving.end()


def test_serve_listens_on_both_families(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "waitress")
    serving = Serving(mirror, listen="127.0.0.1:0 [::1]:0")
    for host, port in serving.server.effective_listen:
        with connect(host, port) as wire:
            assert wire.get().json["REMOTE_ADDR"] == host
    serving.end()
    assert any(each.startswith("Serving on http://[::1]:") for each in caplog.messages)


def test_closing_the_server_lets_open_connections_finish(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        running.call_in_loop(running.server.close)
        with pytest.raises(OSError):
            running.connect()
        assert wire.get("/", "Connection: close").body == b"hello"
        assert wire.read_to_end() == b""
    running.await_end()


def test_two_servers_run_side_by_side(serve: Callable[..., Running]) -> None:
    first, second = serve(hello), serve(mirror)
    with first.connect() as one, second.connect() as other:
        for _ in range(3):
            assert one.get().body == b"hello"
            assert other.get("/other").json["PATH_INFO"] == "/other"
        first.stop()
        assert other.get("/still").json["PATH_INFO"] == "/still"


def test_port_of_a_stopped_server_is_free_at_once(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    port = running.port
    for _ in range(3):
        with running.connect() as wire:
            assert wire.get().body == b"hello"
        running.stop()
        running = serve(hello, port=port)
