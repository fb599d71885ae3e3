"""Task, parser and error classes of other people's, put in through the class attributes."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

import waitress
from tests.compat.live import Running, hello, map_of, mirror, request
from waitress import create_server
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError
from waitress.server import WSGIServer
from waitress.task import ErrorTask, Task, WSGITask
from waitress.utilities import Error

# -- a storage emulator: the application gets its hands on the connection -------------


class EmulatorTask(WSGITask):
    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ["emulator.channel"] = self.channel
        return environ


class EmulatorChannel(HTTPChannel):
    task_class = EmulatorTask


def give_channels(socket_map: dict[int, Any], channel_class: type[HTTPChannel]) -> int:
    """Set the channel class on the servers of a map, which are known by class name."""
    servers = [
        each
        for each in socket_map.values()
        if each.__class__.__name__ in ("TcpWSGIServer", "UnixWSGIServer")
    ]
    for each in servers:
        each.channel_class = channel_class
    return len(servers)


def test_emulator_finds_the_servers_by_class_name(
    run_server: Callable[[Any], Running],
) -> None:
    socket_map: dict[int, Any] = {}
    seen: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ["emulator.channel"])
        return hello(environ, start_response)

    server = create_server(application, map=socket_map, listen="127.0.0.1:0 127.0.0.1:0")
    assert give_channels(socket_map, EmulatorChannel) == 2
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get().status == 200
    assert type(seen[0]) is EmulatorChannel


def test_emulator_breaks_the_connection_before_the_answer(
    serve: Callable[..., Running],
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["emulator.channel"].socket.shutdown(2)
        return hello(environ, start_response)

    running = serve(application)
    assert give_channels(map_of(running.server), EmulatorChannel) == 1
    for _ in range(6):  # more often than there are workers
        with running.connect() as wire:
            wire.send(request("GET", "/"))
            assert wire.read_to_end() == b""


def test_emulator_breaks_the_connection_in_the_middle(serve: Callable[..., Running]) -> None:
    size = 4 * 1024 * 1024
    half_seen = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Length", str(size))])
        write(b"x" * (size // 2))
        half_seen.wait(20)
        environ["emulator.channel"].socket.shutdown(2)
        return [b"x" * (size // 2)]

    running = serve(application)
    give_channels(map_of(running.server), EmulatorChannel)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert wire.read_line() == b"HTTP/1.1 200 OK"
        assert wire.read(size // 2)
        half_seen.set()
        assert len(wire.read_to_end()) < size // 2
    running.server.application = hello
    with running.connect() as wire:
        assert wire.get().body == b"hello"


# -- a forward proxy: who was asked for stands in the environ -------------------------


class ProxyTask(WSGITask):
    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        if self.request.proxy_netloc:
            environ["proxy.origin"] = f"{self.request.proxy_scheme}://{self.request.proxy_netloc}"
        environ["proxy.client"] = self.channel.addr[0]
        environ["proxy.version"] = self.version
        return environ


class ProxyServer(WSGIServer):
    class channel_class(HTTPChannel):  # noqa: N801 - an attribute of the interface
        task_class = ProxyTask


def test_forward_proxy_knows_scheme_and_authority_of_the_target(
    run_server: Callable[[Any], Running],
) -> None:
    running = run_server(ProxyServer(mirror, host="127.0.0.1", port=0))
    with running.connect() as wire:
        wire.send(b"GET http://origin.test:81/a/b?c HTTP/1.1\r\nHost: origin.test:81\r\n\r\n")
        seen = wire.read_answer().json
        assert seen["proxy.origin"] == "http://origin.test:81"
        assert seen["PATH_INFO"] == "/a/b"
        assert seen["REQUEST_URI"] == "http://origin.test:81/a/b?c"
        assert (seen["proxy.client"], seen["proxy.version"]) == ("127.0.0.1", "1.1")
        assert "proxy.origin" not in wire.get("/direct").json


def test_serve_takes_a_server_class(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []

    class Once(ProxyServer):
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            made.append(self)

        def run(self) -> None:
            thread = threading.Thread(target=Running.stop, args=(Running(WSGIServerView(self)),))
            thread.start()
            thread.join()

    class WSGIServerView:
        """The server's own ``run``, below the one that this test overrides."""

        def __init__(self, server: Any) -> None:
            self._map, self.task_dispatcher = server._map, server.task_dispatcher
            self.run = super(Once, server).run

    assert waitress.serve(hello, _server=Once, _quiet=True, host="127.0.0.1", port=0) is None
    assert [type(each) for each in made] == [Once]
    assert not made[0]._map


# -- other tasks ---------------------------------------------------------------------


class JsonErrorTask(ErrorTask):
    """Tells errors of the protocol in JSON."""

    def execute(self) -> None:
        error = self.request.error
        body = json.dumps({"code": error.code, "reason": error.reason}).encode()
        self.status = f"{error.code} {error.reason}"
        self.response_headers.append(("Content-Type", "application/json"))
        self.response_headers.append(("Content-Length", str(len(body))))
        self.set_close_on_finish()
        self.write(body)


class CannedTask(Task):
    """Answers without an application."""

    complete = True

    def execute(self) -> None:
        self.status = "200 OK"
        self.content_length = 6
        self.write(b"canned")


def test_error_task_of_a_subclass_answers_what_the_parser_refused(
    serve: Callable[..., Running],
) -> None:
    class Channel(HTTPChannel):
        error_task_class = JsonErrorTask

    running = serve(hello)
    running.server.channel_class = Channel
    with running.connect() as wire:
        wire.send(request("GET", "/") + b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n")
        assert wire.read_answer().body == b"hello"
        answer = wire.read_answer()
        assert answer.json == {"code": 400, "reason": "Bad Request"}
        assert answer.headers["connection"] == "close"
        assert wire.read_to_end() == b""


def test_error_task_of_a_subclass_answers_for_the_application_that_failed(
    serve: Callable[..., Running],
) -> None:
    class Channel(HTTPChannel):
        error_task_class = JsonErrorTask

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        raise LookupError("nothing there")

    running = serve(application)
    running.server.channel_class = Channel
    with running.connect() as wire:
        assert wire.get().json == {"code": 500, "reason": "Internal Server Error"}


def test_task_class_is_looked_up_on_the_channel_at_each_request(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        (channel,) = running.server.active_channels.values()
        channel.task_class = CannedTask
        answer = wire.get()
        assert (answer.status, answer.body) == (200, b"canned")
        del channel.task_class
        assert wire.get().body == b"hello"


class StrictParser(HTTPRequestParser):
    """Refuses one more thing, and notes what it was given."""

    seen: list[bytes] = []

    def parse_header(self, header_plus: bytes) -> None:
        self.seen.append(bytes(header_plus))
        super().parse_header(header_plus)
        if "X_FORBIDDEN" in self.headers:
            raise ParsingError("that field is not wanted here")


def test_parser_of_a_subclass_may_refuse_more(serve: Callable[..., Running]) -> None:
    class Channel(HTTPChannel):
        parser_class = StrictParser

    StrictParser.seen.clear()
    running = serve(hello)
    running.server.channel_class = Channel
    with running.connect() as wire:
        assert wire.get("/fine").body == b"hello"
        answer = wire.get("/not", "X-Forbidden: yes")
        assert answer.status == 400
        assert b"that field is not wanted here" in answer.body
    assert [each.split(b"\r\n")[0] for each in StrictParser.seen] == [
        b"GET /fine HTTP/1.1",
        b"GET /not HTTP/1.1",
    ]


# -- patches on classes --------------------------------------------------------------


def test_patched_response_header_is_the_one_that_leaves(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Running]
) -> None:
    original = Task.build_response_header

    def build_response_header(self: Any) -> bytes:
        self.response_headers.append(("X-Patched", "yes"))
        head: bytes = original(self)
        return head

    running = serve(hello)
    with running.connect() as wire:
        assert "x-patched" not in wire.get().headers
        monkeypatch.setattr(Task, "build_response_header", build_response_header)
        assert wire.get().headers["x-patched"] == "yes"
        wire.send(b"BAD\r\n\r\n")
        assert wire.read_answer().headers["x-patched"] == "yes"


def test_patched_error_text_is_the_one_that_leaves(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Running]
) -> None:
    def to_response(self: Any, ident: str | None = None) -> tuple[str, Any, bytes]:
        return f"{self.code} {self.reason}", [("Content-Type", "text/x-own")], b"own text"

    monkeypatch.setattr(Error, "to_response", to_response)
    running = serve(hello)
    with running.connect() as wire:
        wire.send(b"BAD\r\n\r\n")
        answer = wire.read_answer()
    assert (answer.status, answer.body) == (400, b"own text")
    assert answer.headers["content-type"] == "text/x-own"


def test_patched_reuse_of_addresses_is_called(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[Any] = []
    monkeypatch.setattr(
        waitress.server.TcpWSGIServer, "set_reuse_addr", lambda self: called.append(self)
    )
    server = create_server(hello, host="127.0.0.1", port=0)
    assert called == [server]
    server.task_dispatcher.shutdown()
    server.close()


def test_application_may_find_its_task_in_the_calling_frame(
    serve: Callable[..., Running],
) -> None:
    # Some streaming applications have no other way to the socket.
    found: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        frame = sys._getframe(1)
        while frame and not isinstance(frame.f_locals.get("self"), WSGITask):
            assert frame.f_back
            frame = frame.f_back
        found.append(frame.f_locals["self"].channel.socket.getpeername())
        return hello(environ, start_response)

    running = serve(application)
    with running.connect() as wire:
        address = wire.sock.getsockname()
        assert wire.get().status == 200
    assert found == [address]
