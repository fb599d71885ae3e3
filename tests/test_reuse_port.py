"""Several servers on one address: what the setting allows, and what it loses: nothing."""

from __future__ import annotations

import contextlib
import select
import socket
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, hello
from waitress import create_server, tcp
from waitress.adjustments import Adjustments
from waitress.shutdown import Phase

pytestmark = pytest.mark.usefixtures("no_leaks")

needs_reuse_port = pytest.mark.skipif(
    not hasattr(socket, "SO_REUSEPORT"), reason="the system has no SO_REUSEPORT"
)

#: So many that all of them at one of two servers would be a wonder, and that each has more
#: of them than it accepts in one turn of its loop.
CLIENTS = 200


@contextlib.contextmanager
def two_servers(**kw: Any) -> Iterator[list[Any]]:
    """Two listening servers on one port, whose loops do not run yet."""
    servers = [create_server(hello, host="127.0.0.1", port=0, reuse_port=True, **kw)]
    port = servers[0].effective_port
    try:
        servers.append(create_server(hello, host="127.0.0.1", port=port, reuse_port=True, **kw))
        yield servers
    finally:
        for server in servers:
            server.task_dispatcher.shutdown()
            server.close()


def ask(sock: socket.socket) -> None:
    sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")


def answer(sock: socket.socket) -> bytes:
    data = bytearray()
    while piece := sock.recv(4096):
        data += piece
    return bytes(data)


@pytest.mark.parametrize(
    "elsewhere",
    [{"unix_socket": "/run/myapp.sock"}, {"listen": "unix:/run/myapp.sock"}, {"listen": "fd://3"}],
)
@needs_reuse_port
def test_there_must_be_an_address_to_bind(elsewhere: dict[str, str]) -> None:
    if not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no unix sockets")
    with pytest.raises(ValueError, match=r"no Internet address .*reuse_port=True; allowed"):
        Adjustments(reuse_port=True, **elsewhere)


@needs_reuse_port
def test_inherited_sockets_are_no_address_to_bind() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        with pytest.raises(ValueError, match="no Internet address"):
            Adjustments(reuse_port=True, sockets=[sock])


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no unix sockets")
@needs_reuse_port
def test_one_address_to_bind_is_enough() -> None:
    listen = "127.0.0.1:0 unix:/run/myapp.sock"
    assert Adjustments(reuse_port=True, listen=listen).reuse_port


def test_a_system_that_has_no_such_thing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "SO_REUSEPORT", raising=False)
    with pytest.raises(ValueError, match=r"This system has no SO_REUSEPORT \(reuse_port=True; "):
        Adjustments(reuse_port=True)
    assert not Adjustments(reuse_port=False).reuse_port


def test_a_system_that_refuses_it_is_named_with_the_address() -> None:
    class Refusing(socket.socket):
        def setsockopt(self, level: int, option: int, *value: Any) -> None:
            if option == getattr(socket, "SO_REUSEPORT", None):
                raise OSError(92, "Protocol not available")
            super().setsockopt(level, option, *value)

    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("refused earlier")
    with Refusing() as sock:
        with pytest.raises(OSError, match=r"cannot listen on 127.0.0.1:0: Protocol not available"):
            create_server(hello, host="127.0.0.1", port=0, reuse_port=True, _sock=sock)


@needs_reuse_port
def test_without_it_the_second_server_is_refused() -> None:
    with two_servers() as (first, _):
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{first.effective_port}"):
            create_server(hello, host="127.0.0.1", port=first.effective_port)


@needs_reuse_port
def test_sharing_is_for_the_asked_socket_only() -> None:
    with socket.socket() as shared, socket.socket() as own, socket.socket() as third:
        tcp.share_port(shared)
        tcp.share_port(third)
        shared.bind(("127.0.0.1", 0))
        third.bind(shared.getsockname())
        with pytest.raises(OSError, match="in use"):
            own.bind(shared.getsockname())


@needs_reuse_port
def test_status_listener_is_not_shared() -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        status = probe.getsockname()[1]
    with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{status}"):
        with two_servers(status_listen=f"127.0.0.1:{status}"):
            raise AssertionError("both are there")


@needs_reuse_port
def test_a_server_that_stops_serves_who_waits_and_leaves_the_rest_to_the_other() -> None:
    with two_servers() as servers, contextlib.ExitStack() as stack:
        address = ("127.0.0.1", int(servers[0].effective_port))
        # The loops do not run: who connects is in the backlog of one server or the other.
        early = [
            stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(CLIENTS)
        ]
        for sock in early:
            ask(sock)
        servers[0].shutdown()
        ending = Running(servers[0])
        ending.await_end()
        served_by_first = servers[0].clients.accepted
        late = [
            stack.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(CLIENTS)
        ]
        for sock in late:
            ask(sock)
        other = Running(servers[1])
        for sock in early + late:
            assert answer(sock).startswith(b"HTTP/1.1 200 OK")
        assert 0 < served_by_first < CLIENTS
        assert servers[1].clients.accepted == 2 * CLIENTS - served_by_first
        other.stop()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they cannot be held off")
@needs_reuse_port
def test_who_comes_after_the_last_accept_gets_to_the_other_server() -> None:
    late: list[socket.socket] = []
    with two_servers() as servers, contextlib.ExitStack() as stack:
        ending, going_on = servers
        address = ("127.0.0.1", int(ending.effective_port))

        def accept() -> Any:
            pair = type(ending).accept(ending)
            if pair is None and ending.lifecycle.phase is Phase.DRAINING:
                # This was the last look: whoever the system lets in now is lost.
                for _ in range(20):
                    late.append(stack.enter_context(socket.socket()))
                    late[-1].setblocking(False)
                    late[-1].connect_ex(address)
            return pair

        ending.accept = accept
        ending.shutdown()
        Running(ending).await_end()
        other = Running(going_on)
        assert len(late) == 20
        for sock in late:
            # About half of them have asked in vain, and ask again after a second.
            assert select.select([], [sock], [], PATIENCE)[1]
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            sock.settimeout(PATIENCE)
            ask(sock)
        for sock in late:
            assert answer(sock).startswith(b"HTTP/1.1 200 OK")
        assert going_on.clients.accepted == len(late)
        other.stop()
