"""Channels of other people's: raw services, counted and broken transports, TLS."""

from __future__ import annotations

import os
import random
import socket
import ssl
import struct
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running, Wire, hello, mirror, request
from waitress import create_server
from waitress.channel import HTTPChannel
from waitress.server import TcpWSGIServer

CERTIFICATE = Path(__file__).with_name("localhost.pem")
MEGABYTE = 1024 * 1024


def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with four megabytes that are not all the same."""
    body = random.Random(1).randbytes(4 * MEGABYTE)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def large_file(environ: dict[str, Any], start_response: Any) -> Any:
    """Answer with the same four megabytes from a file."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the server closes it
    file.write(random.Random(1).randbytes(4 * MEGABYTE))
    file.seek(0)
    start_response("200 OK", [("Content-Length", str(4 * MEGABYTE))])
    return environ["wsgi.file_wrapper"](file)


def upload_size(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the number of bytes received."""
    body = str(len(environ["wsgi.input"].read())).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


LARGE = random.Random(1).randbytes(4 * MEGABYTE)


# -- raw services --------------------------------------------------------------------


class EchoChannel(HTTPChannel):
    """Sends back whatever arrives; no HTTP at all."""

    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        self.created_with = (addr, adj)
        super().__init__(server, sock, addr, adj, map=map)

    def received(self, data: bytes) -> bool:
        assert type(data) is bytes
        while data:
            data = data[self.send(data) :]
        return True


def test_raw_echo_gets_every_byte_that_arrives(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    running.server.channel_class = EchoChannel
    with running.connect() as wire:
        for data in (b"\x00\xff", b"GET / HTTP/1.1\r\n\r\n", b"x" * 50000):
            wire.send(data)
            assert wire.read(len(data)) == data
        (channel,) = running.server.active_channels.values()
        assert channel.created_with == (wire.sock.getsockname(), running.server.adj)
        assert channel.requests == []
        assert channel.request is None
        assert channel.last_activity >= channel.creation_time > 0


class NotingChannel(HTTPChannel):
    """Notes what arrives before it is read as HTTP, and the state it left."""

    def __init__(self, *args: Any, **kw: Any) -> None:
        self.noted: list[tuple[bytes, bool, int]] = []
        super().__init__(*args, **kw)

    def received(self, data: bytes) -> bool:
        result: bool = super().received(data)
        self.noted.append((data, self.request is not None, len(self.requests)))
        return result


def test_debug_channel_sees_partial_and_whole_requests(serve: Callable[..., Running]) -> None:
    gate = Gate()
    running = serve(gate)
    running.server.channel_class = NotingChannel
    head = b"GET / HTTP/1.1\r\nHost: localhost\r\n"
    with running.connect() as wire:
        wire.send(head)
        channels = running.server.active_channels
        while not any(each.noted for each in channels.values()):
            running.call_in_loop(lambda: None)
        wire.send(b"\r\n")
        gate.await_entry()
        (channel,) = channels.values()
        assert channel.noted == [(head, True, 0), (b"\r\n", False, 1)]
        gate.opened.set()
        assert wire.read_answer().body == b"hello"


# -- transports that count, dribble and fail ------------------------------------------


class CountingChannel(HTTPChannel):
    """Counts bytes in and out, all of which must pass here."""

    bytes_in = bytes_out = 0

    def send(self, data: Any, do_close: bool = True) -> int:
        count: int = super().send(data, do_close=do_close)
        type(self).bytes_out += count
        return count

    def recv(self, buffer_size: int) -> bytes:
        data: bytes = super().recv(buffer_size)
        type(self).bytes_in += len(data)
        return data


@pytest.mark.parametrize("application", [large, large_file])
def test_overridden_send_and_recv_see_every_byte(
    application: Any, serve: Callable[..., Running]
) -> None:
    class Counting(CountingChannel):
        pass

    running = serve(application)
    running.server.channel_class = Counting
    query = request("POST", "/", body=b"u" * 100000)
    with running.connect() as wire:
        wire.send(query)
        head = b""
        while line := wire.read_line():
            head += line + b"\r\n"
        assert wire.read(len(LARGE)) == LARGE
        assert wire.get("/", "Connection: close").body == LARGE
        assert wire.read_to_end() == b""
    running.stop()
    assert Counting.bytes_in == len(query) + len(request("GET", "/", "Connection: close"))
    closing_head = len(head) + len(b"Connection: close\r\n")
    assert Counting.bytes_out == len(head) + 2 + closing_head + 2 + 2 * len(LARGE)


@pytest.mark.parametrize("application", [large, large_file])
def test_send_that_takes_little_or_nothing_loses_nothing(
    application: Any, serve: Callable[..., Running]
) -> None:
    class Dribbling(HTTPChannel):
        calls = 0

        def send(self, data: Any, do_close: bool = True) -> int:
            self.calls += 1
            if self.calls % 3 == 0:
                return 0
            count: int = super().send(data[:60001], do_close=do_close)
            return count

    running = serve(application)
    running.server.channel_class = Dribbling
    with running.connect() as wire:
        assert wire.get().body == LARGE
        assert wire.get().body == LARGE


def test_recv_that_gives_single_bytes_is_served(serve: Callable[..., Running]) -> None:
    class Slow(HTTPChannel):
        def recv(self, buffer_size: int) -> bytes:
            return super().recv(1)

    running = serve(mirror)
    running.server.channel_class = Slow
    with running.connect() as wire:
        wire.send(request("POST", "/p", body=b"body") + request("GET", "/q"))
        assert wire.read_answer().json["body"] == "body"
        assert wire.read_answer().json["PATH_INFO"] == "/q"


def test_methods_replaced_on_the_instance_are_used(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        (channel,) = running.server.active_channels.values()
        received: list[bytes] = []
        sent: list[bytes] = []
        recv, send = channel.recv, channel.send

        def noted_recv(buffer_size: int) -> bytes:
            received.append(recv(buffer_size))
            return received[-1]

        def noted_send(data: Any, do_close: bool = True) -> int:
            count: int = send(data, do_close=do_close)
            sent.append(bytes(data[:count]))
            return count

        channel.recv, channel.send = noted_recv, noted_send
        assert wire.get("/second").body == b"hello"
        del channel.recv, channel.send
        assert wire.get("/third").body == b"hello"
    assert b"".join(received) == request("GET", "/second")
    assert b"".join(sent).endswith(b"\r\n\r\nhello")


class Wrapped:
    """A socket as some object that merely has its methods."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sent = 0

    def send(self, data: Any) -> int:
        count = self._sock.send(data)
        self.sent += count
        return count

    def recv(self, size: int) -> bytes:
        return self._sock.recv(size)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        self._sock.close()

    def setblocking(self, flag: bool) -> None:
        self._sock.setblocking(flag)

    def getsockopt(self, level: int, option: int) -> int:
        return self._sock.getsockopt(level, option)


@pytest.mark.parametrize("application", [large, large_file])
def test_socket_may_be_any_object_with_its_methods(
    application: Any, serve: Callable[..., Running]
) -> None:
    made: list[Wrapped] = []

    class Channel(HTTPChannel):
        def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
            made.append(Wrapped(sock))
            super().__init__(server, made[-1], addr, adj, map=map)

    running = serve(application)
    running.server.channel_class = Channel
    with running.connect() as wire:
        assert wire.get().body == LARGE
    running.stop()
    assert made[0].sent > len(LARGE)


@pytest.mark.parametrize("application", [large, large_file])
def test_failing_transport_ends_its_own_connection_only(
    application: Any, serve: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(HTTPChannel):
        left = MEGABYTE

        def send(self, data: Any, do_close: bool = True) -> int:
            if not self.left:
                raise OSError(5, "the cable is cut")
            count: int = super().send(data[: self.left], do_close=do_close)
            self.left -= count
            return count

    running = serve(application)
    running.server.channel_class = Failing
    for _ in range(5):
        with running.connect() as wire:
            wire.send(request("GET", "/"))
            assert len(wire.read_to_end()) <= MEGABYTE
    running.server.channel_class = HTTPChannel
    with running.connect() as wire:
        assert wire.get().body == LARGE
    assert "the cable is cut" in caplog.text
    assert "Socket error" in caplog.text


def test_closing_the_channel_from_the_application_ends_the_connection(
    serve: Callable[..., Running],
) -> None:
    # As fault injection does: a reset, made by whoever has the channel in hand.
    running = serve(hello)

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        (channel,) = running.server.active_channels.values()
        channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        channel.handle_close()
        return hello(environ, start_response)

    running.server.application = application
    for _ in range(6):
        with running.connect() as wire:
            wire.send(request("GET", "/"))
            with pytest.raises(ConnectionResetError):
                wire.sock.recv(1)
        running.call_in_loop(lambda: None)
        assert not running.server.active_channels


# -- TLS -----------------------------------------------------------------------------


class TlsServer(TcpWSGIServer):
    """Puts a TLS socket in the place of the accepted one; the handshake is blocking."""

    def __init__(self, application: Any, **kw: Any) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.load_cert_chain(CERTIFICATE)
        super().__init__(application, url_scheme="https", **kw)

    def accept(self) -> Any:
        accepted = super().accept()
        if accepted is None:
            return None
        conn, addr = accepted
        conn.settimeout(PATIENCE)
        return self.context.wrap_socket(conn, server_side=True), addr


class TlsChannel(HTTPChannel):
    """Reads on while the TLS layer has more, for which the descriptor says nothing."""

    def handle_read(self) -> None:
        while True:
            try:
                data = self.socket.recv(self.adj.recv_bytes)
            except ssl.SSLWantReadError:
                return
            except OSError:
                data = b""
            if not data:
                self.handle_close()
                return
            self.received(data)

    def send(self, data: Any, do_close: bool = True) -> int:
        try:
            count: int = super().send(data, do_close=do_close)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            return 0
        return count


def connect_tls(port: int) -> Wire:
    context = ssl.create_default_context(cafile=str(CERTIFICATE))
    sock = socket.create_connection(("127.0.0.1", port), PATIENCE)
    return Wire(context.wrap_socket(sock, server_hostname="localhost"))


def test_tls_socket_carries_requests_without_any_override(
    run_server: Callable[[Any], Running],
) -> None:
    running = run_server(TlsServer(mirror, host="127.0.0.1", port=0))
    with connect_tls(running.port) as wire:
        for _ in range(2):  # Nothing has come, and to read would be an error for all it knows.
            running.call_in_loop(lambda: None)
        seen = wire.get("/secret").json
        assert (seen["wsgi.url_scheme"], seen["PATH_INFO"]) == ("https", "/secret")
        assert wire.get("/again").json["PATH_INFO"] == "/again"


@pytest.mark.parametrize("application", [large, large_file])
def test_tls_channel_carries_large_responses(
    application: Any, run_server: Callable[[Any], Running]
) -> None:
    server = TlsServer(application, host="127.0.0.1", port=0)
    server.channel_class = TlsChannel
    running = run_server(server)
    with connect_tls(running.port) as wire:
        assert wire.get().body == LARGE
        assert wire.get("/", "Connection: close").body == LARGE


def test_tls_channel_carries_large_uploads(run_server: Callable[[Any], Running]) -> None:
    server = TlsServer(upload_size, host="127.0.0.1", port=0)
    server.channel_class = TlsChannel
    running = run_server(server)
    with connect_tls(running.port) as wire:
        for size in (10, 3 * MEGABYTE, 20000):
            wire.send(request("POST", "/", body=os.urandom(size)))
            assert wire.read_answer().body == str(size).encode()


def test_tls_client_that_talks_plainly_ends_its_own_connection_only(
    run_server: Callable[[Any], Running], caplog: pytest.LogCaptureFixture
) -> None:
    running = run_server(TlsServer(hello, host="127.0.0.1", port=0))
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert b"hello" not in wire.read_to_end()
    with connect_tls(running.port) as wire:
        assert wire.get().body == b"hello"
    assert "server accept() threw an exception" in caplog.text


# -- idle, limits, threads -----------------------------------------------------------


def test_only_the_loops_thread_touches_a_client_socket(serve: Callable[..., Running]) -> None:
    users: set[int] = set()

    class Watched(HTTPChannel):
        def send(self, data: Any, do_close: bool = True) -> int:
            users.add(threading.get_ident())
            return super().send(data, do_close=do_close)

        def recv(self, buffer_size: int) -> bytes:
            users.add(threading.get_ident())
            return super().recv(buffer_size)

    running = serve(large)
    running.server.channel_class = Watched
    with running.connect() as wire:
        assert wire.get().body == LARGE
    assert users == {running.thread.ident}


def test_settings_changed_on_the_adjustments_take_effect_at_once(
    serve: Callable[..., Running],
) -> None:
    running = serve(mirror)
    with running.connect() as wire:
        assert wire.get("/a/b").json["SCRIPT_NAME"] == ""
        running.server.adj.url_prefix = "/a"
        running.server.adj.ident = "renamed"
        answer = wire.get("/a/b")
        assert (answer.json["SCRIPT_NAME"], answer.json["PATH_INFO"]) == ("/a", "/b")
        assert answer.headers["server"] == "renamed"
        running.server.adj.max_request_body_size = 3
        wire.send(request("POST", "/", body=b"four"))
        assert wire.read_answer().status == 413


def test_server_name_and_application_may_be_replaced(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        running.server.application = mirror
        running.server.server_name = "renamed.test"
        assert wire.get().json["SERVER_NAME"] == "renamed.test"


def test_flood_beyond_the_connection_limit_is_served_in_turn(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello, connection_limit=6)
    wires = [running.connect() for _ in range(12)]
    for wire in wires:
        wire.send(request("GET", "/", "Connection: close"))
    for wire in wires:
        assert wire.read_answer().body == b"hello"
        wire.close()


def test_server_made_from_the_class_needs_no_create_server() -> None:
    server = TcpWSGIServer(hello, host="127.0.0.1", port=0, _start=False)
    assert not server.accepting
    assert server.socket.getsockname()[1] == int(server.effective_port)
    server.accept_connections()
    assert server.accepting
    running = Running(server)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
    running.stop()


def test_create_server_starts_nothing_that_it_does_not_end() -> None:
    server = create_server(hello, host="127.0.0.1", port=0, _start=False)
    server.task_dispatcher.shutdown()
    server.close()
    server.close()
    assert server._map == {}
