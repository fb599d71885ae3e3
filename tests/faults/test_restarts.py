"""Killed and started again: the next one has the address, a live one's is not lost."""

from __future__ import annotations

import errno
import os
import signal
import socket
from pathlib import Path

import pytest

from tests.compat.live import PATIENCE, Wire, nothing_left_behind, request
from tests.faults.processes import FaultyServer
from tests.functional.applications import hello
from waitress import create_server

needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets here")


def connect(path: Path) -> Wire:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    sock.connect(str(path))
    return Wire(sock)


@needs_unix
@pytest.mark.faults
def test_unix_socket_of_a_killed_server_is_replaced(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "s"
    for _ in range(2):
        server = FaultyServer(unix_socket=str(path))
        with connect(path) as wire:
            assert wire.get("/one").body == b"/one"
            wire.send(request("GET", "/after/50"))
            server.stop()
            assert wire.read_to_end() == b""
        assert path.is_socket()
        with socket.socket(socket.AF_UNIX) as client:
            with pytest.raises(ConnectionRefusedError):
                client.connect(str(path))
        assert server.process.returncode == -signal.SIGKILL
        assert server.log == []


@pytest.mark.faults
def test_port_of_a_killed_server_is_free_at_once(no_leaks: None) -> None:
    first = FaultyServer()
    try:
        with first.connect() as wire:
            assert wire.get("/one").body == b"/one"
            wire.send(request("GET", "/after/50"))
            first.stop()
            second = FaultyServer(port=first.port)
    except BaseException:
        first.stop()
        raise
    try:
        assert second.ask("/two").body == b"/two"
    finally:
        second.stop()


@needs_unix
def test_unix_socket_that_belongs_to_another_user_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else can find out whether his server listens."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as theirs:
        theirs.bind(str(path))
        made = path.stat()

        def deny(self: socket.socket, address: str) -> None:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

        monkeypatch.setattr(socket.socket, "connect", deny)
        with nothing_left_behind(), pytest.raises(OSError, match="it is another user's") as refused:
            create_server(hello, unix_socket=str(path))
    assert refused.value.errno == errno.EADDRINUSE
    assert path.stat().st_ino == made.st_ino


@needs_unix
def test_unix_socket_of_a_live_server_is_refused_and_goes_on_to_be_his(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever starts a second one by mistake takes nothing from the first."""
    path = tmp_path / "s"
    with nothing_left_behind():
        first = create_server(hello, unix_socket=str(path))
        made = path.stat()
        with pytest.raises(OSError, match="another server listens on it") as refused:
            create_server(hello, unix_socket=str(path))
        assert path.stat().st_ino == made.st_ino
        first.task_dispatcher.shutdown()
        first.close()
    assert refused.value.errno == errno.EADDRINUSE
    assert refused.value.strerror == (
        f"cannot listen on unix socket {path}: another server listens on it"
    )
    assert caplog.messages == []
    assert not path.exists()


@needs_unix
def test_stale_unix_socket_is_replaced_silently(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
        stale.listen()
    with nothing_left_behind():
        server = create_server(hello, unix_socket=str(path))
        server.task_dispatcher.shutdown()
        server.close()
    assert caplog.messages == []
    assert not path.exists()


@needs_unix
def test_live_unix_socket_with_a_full_backlog_is_refused_without_waiting(tmp_path: Path) -> None:
    """Nobody accepts: it is asked without waiting, and is alive all the same."""
    path = tmp_path / "s"
    clients = []
    with nothing_left_behind():
        with socket.socket(socket.AF_UNIX) as busy:
            busy.bind(str(path))
            busy.listen(0)
            while True:
                client = socket.socket(socket.AF_UNIX)
                client.setblocking(False)
                clients.append(client)
                try:
                    client.connect(str(path))
                except BlockingIOError:
                    break
            with pytest.raises(OSError, match="another server listens on it"):
                create_server(hello, unix_socket=str(path))
        for client in clients:
            client.close()
