"""Killed and started again: the next one has the address, a live one's is not lost."""

from __future__ import annotations

import logging
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
def test_unix_socket_of_a_live_server_is_taken_over_and_that_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A restart without a gap does it on purpose; whoever does not is told."""
    path = tmp_path / "s"
    with nothing_left_behind():
        old = create_server(hello, unix_socket=str(path))
        assert caplog.messages == []
        new = create_server(hello, unix_socket=str(path))
        for server in (new, old):
            server.task_dispatcher.shutdown()
            server.close()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        f"unix socket {path} belonged to a server that still listens; "
        "it gets no new connections from now on"
    )


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
def test_live_unix_socket_with_a_full_backlog_does_not_hold_up_the_next_server(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
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
            server = create_server(hello, unix_socket=str(path))
            server.task_dispatcher.shutdown()
            server.close()
        for client in clients:
            client.close()
    assert len(caplog.records) == 1
