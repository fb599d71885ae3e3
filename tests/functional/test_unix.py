"""Unix sockets: the same server on a path."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, Wire, mirror, nothing_left_behind
from tests.fakes import get
from tests.functional.applications import hello, large
from waitress import create_server

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets here")

Serve = Callable[..., Running]


def connect(path: Path) -> Wire:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return Wire(sock)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "s"


def test_requests_are_served(serve: Serve, path: Path) -> None:
    serve(hello, unix_socket=str(path))
    with connect(path) as wire:
        assert wire.get().body == b"hello"
        assert wire.get().body == b"hello"


def test_peer_is_told_as_localhost(serve: Serve, path: Path) -> None:
    running = serve(mirror, unix_socket=str(path))
    with connect(path) as wire:
        environ = wire.get().json
    assert environ["REMOTE_ADDR"] == environ["REMOTE_HOST"] == "localhost"
    assert environ["SERVER_PORT"] == str(path)
    assert (running.server.effective_host, running.server.effective_port) == ("unix", str(path))


def test_large_response_arrives_whole(serve: Serve, path: Path) -> None:
    serve(large(3_000_000), unix_socket=str(path))
    with connect(path) as wire:
        assert len(wire.get().body) == 3_000_000


def test_client_that_leaves_with_its_request_running_is_forgotten(serve: Serve, path: Path) -> None:
    """Here a close is told as a hang-up, at every turn of the loop."""
    running = serve(hello, unix_socket=str(path))
    for _ in range(3):
        with connect(path) as wire:
            wire.send(get())
    with connect(path) as wire:
        assert wire.get().body == b"hello"
        # The loop has accepted and served those before this one.
        while len(running.call_in_loop(lambda: list(running.server.active_channels))) > 1:
            pass


@pytest.mark.parametrize("mode", [0o600, 0o666])
def test_file_has_the_mode_asked_for(serve: Serve, path: Path, mode: int) -> None:
    serve(hello, unix_socket=str(path), unix_socket_perms=f"{mode:o}")
    assert stat.S_IMODE(os.stat(path).st_mode) == mode


def test_file_is_removed_with_the_server(path: Path) -> None:
    with nothing_left_behind():
        server = create_server(hello, unix_socket=str(path))
        assert path.exists()
        server.task_dispatcher.shutdown()
        server.close()
        server.close()
    assert not path.exists()


def test_file_of_another_server_is_not_removed(path: Path) -> None:
    """It took our place after somebody had removed ours, to start it before the old one ends."""
    with nothing_left_behind():
        old = create_server(hello, unix_socket=str(path))
        path.unlink()
        new = create_server(hello, unix_socket=str(path))
        for server in (old, new):
            assert path.exists()
            server.task_dispatcher.shutdown()
            server.close()
    assert not path.exists()


def test_file_that_has_gone_is_no_error_at_the_end(path: Path) -> None:
    with nothing_left_behind():
        server = create_server(hello, unix_socket=str(path))
        path.unlink()
        server.task_dispatcher.shutdown()
        server.close()


def test_path_that_cannot_be_bound_is_named_and_leaves_nothing(path: Path) -> None:
    with nothing_left_behind():
        with pytest.raises(OSError, match=r"cannot listen on unix socket .*/none/s"):
            create_server(hello, unix_socket=str(path.parent / "none" / "s"))


def test_mode_that_cannot_be_set_leaves_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(1, "not permitted")

    monkeypatch.setattr(os, "chmod", refuse)
    with nothing_left_behind():
        with pytest.raises(PermissionError, match="cannot listen on unix socket"):
            create_server(hello, unix_socket=str(path))
    assert not path.exists()


def test_ready_made_socket_is_served_and_its_file_left_alone(serve: Serve, path: Path) -> None:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(str(path))
    running = serve(hello, sockets=[sock])
    assert type(running.server).__name__ == "UnixWSGIServer"
    with connect(path) as wire:
        assert wire.get().body == b"hello"
    running.stop()
    assert path.exists()


def test_ready_made_socket_needs_no_address(no_leaks: None) -> None:
    sock = socket.socket(socket.AF_UNIX)
    server = create_server(hello, sockets=[sock], _start=False)
    assert server.effective_host == "unix"
    server.task_dispatcher.shutdown()
    server.close()


def test_server_class_makes_its_own_arguments(path: Path) -> None:
    from waitress.server import UnixWSGIServer

    with nothing_left_behind():
        server = UnixWSGIServer(hello, unix_socket=str(path))
        assert server.sockinfo == (socket.AF_UNIX, socket.SOCK_STREAM, None, None)
        server.task_dispatcher.shutdown()
        server.close()
