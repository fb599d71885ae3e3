"""Sockets and maps that callers bring along."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import (
    PATIENCE,
    Running,
    Wire,
    hello,
    mirror,
    nothing_left_behind,
    request,
)
from waitress import create_server, wasyncore
from waitress.server import MultiSocketServer, TcpWSGIServer, UnixWSGIServer
from waitress.task import ThreadedTaskDispatcher


def bound_socket(family: int = socket.AF_INET, host: str = "127.0.0.1") -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind((host, 0))
    return sock


def connect_unix(path: str | Path) -> Wire:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return Wire(sock)


# -- a socket of the caller's --------------------------------------------------------


def test_sock_keyword_gives_the_listening_socket(run_server: Callable[[Any], Running]) -> None:
    sock = socket.socket()
    server = create_server(hello, _sock=sock, host="127.0.0.1", port=0)
    assert server.socket is sock
    assert sock.getsockname()[1] == int(server.effective_port)
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get().body == b"hello"


class FakeListener:
    """A listening socket without a kernel: its descriptor is only a number."""

    family, type, proto = socket.AF_INET, socket.SOCK_STREAM, 0

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.accepted: list[Any] = []

    def setblocking(self, flag: Any) -> None:
        self.calls.append(("setblocking", bool(flag)))

    def fileno(self) -> int:
        return 987654

    def getsockopt(self, level: int, option: int) -> int:
        return 2048

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.calls.append(("setsockopt", level, option, value))

    def bind(self, address: Any) -> None:
        self.calls.append(("bind", address))

    def getsockname(self) -> Any:
        return ("127.0.0.1", 8181)

    def listen(self, backlog: int) -> None:
        self.calls.append(("listen", backlog))

    def accept(self) -> Any:
        return self.accepted.pop()

    def close(self) -> None:
        self.calls.append(("close",))


class FakeConnection(FakeListener):
    """An accepted connection of the same kind."""

    def fileno(self) -> int:
        return 987655

    def getpeername(self) -> Any:
        raise OSError(errno.ENOTCONN, "gone before it was looked at")


class InlineDispatcher:
    """Holds tasks until it is told to run them; no thread anywhere."""

    def __init__(self) -> None:
        self.tasks: list[Any] = []

    def add_task(self, task: Any) -> None:
        self.tasks.append(task)

    def shutdown(self) -> None:
        self.tasks.clear()


def test_server_can_be_driven_without_a_loop_and_without_a_kernel() -> None:
    listener, connection = FakeListener(), FakeConnection()
    socket_map: dict[int, Any] = {}
    server = create_server(
        hello,
        map=socket_map,
        _sock=listener,
        _dispatcher=InlineDispatcher(),
        host="127.0.0.1",
        port=0,
    )
    assert socket_map[987654] is server
    assert (server.effective_host, server.effective_port) == ("127.0.0.1", "8181")
    assert ("bind", ("127.0.0.1", 0)) in listener.calls
    assert ("listen", 1024) in listener.calls
    assert server.accepting
    assert server.readable()
    assert not server.writable()

    listener.accepted.append((connection, ("192.0.2.7", 5555)))
    server.handle_accept()
    channel = socket_map[987655]
    assert server.active_channels == {987655: channel}
    assert channel.addr == ("192.0.2.7", 5555)
    assert channel.readable()
    assert ("setsockopt", socket.IPPROTO_TCP, socket.TCP_NODELAY, 1) in connection.calls

    assert channel.received(request("GET", "/"))
    assert server.task_dispatcher.tasks == [channel]
    assert not channel.readable()
    channel.handle_close()
    assert server.active_channels == {}
    server.close()
    assert socket_map == {}
    assert ("close",) in listener.calls
    assert ("close",) in connection.calls


def test_accept_of_a_connection_that_is_gone_is_logged_and_survived(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Gone(FakeConnection):
        def setsockopt(self, level: int, option: int, value: int) -> None:
            raise OSError(errno.EINVAL, "no longer connected")

    listener = FakeListener()
    server = create_server(
        hello, _sock=listener, _dispatcher=InlineDispatcher(), host="127.0.0.1", port=0
    )
    listener.accepted.append((Gone(), ("192.0.2.7", 5555)))
    server.handle_accept()
    assert server.active_channels == {}
    (record,) = caplog.records
    assert record.getMessage() == "server accept() threw an exception"
    assert record.exc_info
    server.close()


# -- ready-made sockets --------------------------------------------------------------


def test_sockets_keyword_serves_all_of_them(serve: Callable[..., Running]) -> None:
    sockets = [bound_socket(), bound_socket()]
    running = serve(mirror, sockets=sockets)
    assert type(running.server) is MultiSocketServer
    for sock in sockets:
        with Wire(socket.create_connection(sock.getsockname(), PATIENCE)) as wire:
            assert wire.get().json["SERVER_PORT"] == str(sock.getsockname()[1])


def test_one_ready_made_socket_makes_an_ordinary_server(serve: Callable[..., Running]) -> None:
    sock = bound_socket()
    sock.listen(1)  # as a process manager hands it over
    running = serve(hello, sockets=[sock])
    assert type(running.server) is TcpWSGIServer
    assert int(running.server.effective_port) == sock.getsockname()[1]
    with running.connect() as wire:
        assert wire.get().body == b"hello"


def test_ready_made_unix_sockets_are_served(serve: Callable[..., Running], tmp_path: Path) -> None:
    sockets = []
    for name in ("a", "b"):
        sockets.append(socket.socket(socket.AF_UNIX))
        sockets[-1].bind(str(tmp_path / name))
    serve(mirror, sockets=sockets)
    for name in ("a", "b"):
        with connect_unix(tmp_path / name) as wire:
            seen = wire.get().json
            assert seen["SERVER_PORT"] == str(tmp_path / name)
            assert seen["REMOTE_ADDR"] == "localhost"


def test_two_servers_share_one_listening_socket(run_server: Callable[[Any], Running]) -> None:
    # The thread-per-core arrangement: several loops accept from the same queue.
    sock = bound_socket()
    other = sock.dup()
    first = run_server(create_server(hello, sockets=[sock]))
    second = run_server(create_server(hello, sockets=[other]))
    for _ in range(20):
        with first.connect() as wire:
            assert wire.get("/", "Connection: close").body == b"hello"
    second.stop()
    with first.connect() as wire:
        assert wire.get().body == b"hello"


# -- several addresses, one map ------------------------------------------------------


def test_several_addresses_are_one_server_on_one_map(
    run_server: Callable[[Any], Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "waitress")
    socket_map: dict[int, Any] = {}
    server = create_server(hello, map=socket_map, listen="127.0.0.1:0 [::1]:0 127.0.0.1:0")
    assert server.map is socket_map
    hosts = [host for host, _ in server.effective_listen]
    assert hosts == ["127.0.0.1", "::1", "127.0.0.1"]
    server.print_listen("Serving on http://{}:{}")
    ports = [port for _, port in server.effective_listen]
    assert caplog.messages == [
        f"Serving on http://127.0.0.1:{ports[0]}",
        f"Serving on http://[::1]:{ports[1]}",
        f"Serving on http://127.0.0.1:{ports[2]}",
    ]
    run_server(server)
    for host, port in server.effective_listen:
        with Wire(socket.create_connection((host, int(port)), PATIENCE)) as wire:
            assert wire.get().body == b"hello"


def test_several_addresses_stop_together() -> None:
    server = create_server(hello, listen="127.0.0.1:0 127.0.0.1:0")
    running = Running(server)
    with running.connect() as wire:
        assert wire.get().status == 200
        server.close()
        running.await_end()
        assert wire.read_to_end() == b""
    assert server.map == {}
    assert not server.task_dispatcher.threads


def test_global_map_is_left_alone(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    assert wasyncore.socket_map == {}
    assert running.server._map is not wasyncore.socket_map


def test_map_that_is_not_exactly_a_dict_is_live_as_well(
    run_server: Callable[[Any], Running],
) -> None:
    class Registry(dict[int, Any]):
        """A dict of the caller's own."""

    registry = Registry()
    server = create_server(hello, map=registry, host="127.0.0.1", port=0)
    running = run_server(server)
    with running.connect() as wire:
        assert wire.get().status == 200
        names = sorted(type(each).__name__ for each in registry.values())
        assert names == ["HTTPChannel", "TcpWSGIServer", "trigger"]
        (channel,) = (each for each in registry.values() if hasattr(each, "requests"))
        channel.handle_close()
        assert wire.read_to_end() == b""


# -- unix sockets --------------------------------------------------------------------


def test_unix_socket_has_the_permissions_asked_for(
    run_server: Callable[[Any], Running], tmp_path: Path
) -> None:
    path = tmp_path / "server.sock"
    server = create_server(mirror, unix_socket=str(path), unix_socket_perms="666")
    assert type(server) is UnixWSGIServer
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert (server.effective_host, server.effective_port) == ("unix", str(path))
    run_server(server)
    with connect_unix(path) as wire:
        seen = wire.get().json
        assert (seen["REMOTE_ADDR"], seen["SERVER_PORT"]) == ("localhost", str(path))


def test_stale_unix_socket_is_replaced(
    run_server: Callable[[Any], Running], tmp_path: Path
) -> None:
    path = tmp_path / "server.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    run_server(create_server(hello, unix_socket=str(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with connect_unix(path) as wire:
        assert wire.get().body == b"hello"


def test_plain_file_in_the_place_of_a_unix_socket_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("keep me")
    with pytest.raises(OSError, match="use"):
        create_server(hello, unix_socket=str(path), _dispatcher=InlineDispatcher())
    assert path.read_text() == "keep me"


def test_server_class_with_a_unix_socket_of_its_own(
    run_server: Callable[[Any], Running], tmp_path: Path
) -> None:
    class Private(UnixWSGIServer):
        def __init__(self, application: Any, directory: Path, **kw: Any) -> None:
            kw["unix_socket"] = str(directory / "private.sock")
            super().__init__(application, **kw)
            self.bound = self.socket.getsockname()

    server = Private(hello, tmp_path, threads=1)
    run_server(server)
    with connect_unix(server.bound) as wire:
        assert wire.get().body == b"hello"


# -- binding that fails --------------------------------------------------------------


def busy_port() -> socket.socket:
    sock = bound_socket()
    sock.listen(1)
    return sock


def test_port_in_use_leaves_nothing_behind() -> None:
    with busy_port() as busy:
        port = busy.getsockname()[1]
        with nothing_left_behind(), pytest.raises(OSError) as caught:
            create_server(hello, listen=f"127.0.0.1:0 127.0.0.1:{port}")
        assert caught.value.errno == errno.EADDRINUSE


def test_unix_path_that_cannot_be_bound_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "server.sock"
    with nothing_left_behind(), pytest.raises(FileNotFoundError):
        create_server(hello, unix_socket=str(path))
    assert not os.path.exists(path)


def test_dispatcher_of_the_caller_survives_a_bind_that_fails() -> None:
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(1)
    with busy_port() as busy, pytest.raises(OSError):
        create_server(hello, _dispatcher=dispatcher, host="127.0.0.1", port=busy.getsockname()[1])
    done = threading.Event()

    class Job:
        def service(self) -> None:
            done.set()

        def cancel(self) -> None:
            """Not called."""

    dispatcher.add_task(Job())
    assert done.wait(PATIENCE)
    dispatcher.shutdown()
