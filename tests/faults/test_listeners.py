"""A listener that fails: it is told, it costs no time, and the rest goes on."""

from __future__ import annotations

import errno
import os
import select
import socket
import time
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, Wire, open_descriptors, request
from tests.fakes import Simulation, get
from tests.functional.applications import hello
from waitress import create_server

Serve = Callable[..., Running]
Simulate = Callable[..., Simulation]

pytestmark = pytest.mark.skipif(os.name != "posix", reason="descriptors are POSIX'")

FAILED = "The listener on 127.0.0.1:{} has failed and is closed; "


def shut_down(listener: socket.socket) -> None:
    """As another process that holds the same listener can."""
    listener.shutdown(socket.SHUT_RDWR)


def give_to_a_pipe(listener: socket.socket) -> None:
    """Its number is another file's, which has something to read."""
    reader, writer = os.pipe()
    os.write(writer, b"x")
    os.dup2(reader, listener.fileno())
    os.close(reader)
    os.close(writer)


def give_to_a_connection(listener: socket.socket) -> None:
    """Its number is a connection's, as the application may have opened one."""
    ours, theirs = socket.socketpair()
    theirs.send(b"x")
    os.dup2(ours.fileno(), listener.fileno())
    ours.close()
    theirs.close()


def close_descriptor(listener: socket.socket) -> None:
    """Behind the back of Python's object, which knows nothing of it."""
    os.close(listener.fileno())


def close_object(listener: socket.socket) -> None:
    listener.close()


GONE = [close_descriptor, close_object]
FAULTS = [shut_down, give_to_a_pipe, give_to_a_connection]


def await_log(caplog: pytest.LogCaptureFixture, text: str) -> None:
    end = time.monotonic() + PATIENCE
    while not any(text in message for message in caplog.messages):
        assert time.monotonic() < end, caplog.messages
        select.select([], [], [], 0.01)


@pytest.mark.parametrize("use_poll", [True, False])
@pytest.mark.parametrize("fault", [*FAULTS, *GONE])
def test_listener_that_has_failed_is_told_once_and_open_connections_are_served(
    fault: Any, use_poll: bool, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(hello, asyncore_loop_timeout=0.05, asyncore_use_poll=use_poll)
    listener = running.server.socket
    number = listener.fileno()
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        running.call_in_loop(lambda: fault(listener))
        await_log(caplog, FAILED.format(running.port))
        before = time.process_time()
        select.select([], [], [], 0.3)
        assert time.process_time() - before < 0.2
        assert len(caplog.messages) == 1
        for _ in range(3):
            assert wire.get().body == b"hello"
        with socket.socket() as newcomer:
            assert newcomer.connect_ex(("127.0.0.1", running.port)) == errno.ECONNREFUSED
        # What stands under the number now is somebody else's, and left to them.
        is_taken = fault in (give_to_a_pipe, give_to_a_connection)
        assert (number in open_descriptors()) == is_taken
    # It was the only one: with the last connection the loop has nothing left to do.
    running.await_end()
    assert len(caplog.messages) == 1
    if is_taken:
        os.close(number)


def test_other_listeners_of_the_server_go_on(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0")
    first, second = (
        each for each in running.server.map.values() if hasattr(each, "active_channels")
    )
    running.call_in_loop(lambda: shut_down(first.socket))
    await_log(caplog, FAILED.format(first.effective_port))
    for _ in range(3):
        with Wire(
            socket.create_connection(("127.0.0.1", int(second.effective_port)), PATIENCE)
        ) as wire:
            assert wire.get().body == b"hello"
    assert len(caplog.messages) == 1


class OddListener(socket.socket):
    """A real listener whose ``accept()`` fails as often as it is told to."""

    errors: list[int]
    accepts = 0

    def accept(self) -> Any:
        self.accepts += 1
        if self.errors:
            number = self.errors.pop(0)
            raise OSError(number, os.strerror(number))
        return super().accept()


@pytest.mark.parametrize("name", ["ECONNABORTED", "EPROTO", "ENETDOWN", "EPERM"])
def test_errors_of_one_connection_keep_none_waiting(name: str, serve: Serve) -> None:
    listener = OddListener()
    listener.bind(("127.0.0.1", 0))
    listener.errors = [getattr(errno, name)] * 3
    serve(hello, sockets=[listener])
    begun = time.monotonic()
    with Wire(socket.create_connection(listener.getsockname(), PATIENCE)) as wire:
        assert wire.get().body == b"hello"
    assert time.monotonic() - begun < 0.9  # The rest of those that wait is a second.
    assert not listener.errors


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.EIO])
def test_error_that_stays_is_no_reason_to_ask_again_at_once(
    number: int, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    newcomer = sim.knock()
    for _ in range(3):
        sim.listener.backlog.appendleft(OSError(number, "no"))
    sim.turn()
    for left in (2, 1, 0):
        before = sim.clock.now
        while len(sim.listener.backlog) > left:
            sim.turn(30)
        assert 0.9 < sim.clock.now - before < 1.5
    sim.settle()
    assert sim.ask(newcomer, get()).body == b"hello"
    assert caplog.messages == ["server accept() threw an exception"]


def test_option_that_cannot_be_set_costs_its_connection_only(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """EINVAL of a connection whose client has gone is not one of the listener's."""
    running = serve(hello)
    own = type(running.server).set_socket_options
    failures = [OSError(errno.EINVAL, "gone")]

    def set_socket_options(server: Any, conn: Any) -> None:
        if failures:
            raise failures.pop()
        own(server, conn)

    running.server.set_socket_options = set_socket_options.__get__(running.server)
    with running.connect() as wire:
        wire.sock.settimeout(PATIENCE)
        assert wire.read_to_end() == b""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        with running.connect() as wire:
            wire.send(request("GET", "/"))
            if wire.read_answer().body == b"hello":
                break
    assert caplog.messages == ["server accept() threw an exception"]


def test_stand_in_for_a_listener_is_closed_as_ever(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    """It cannot be asked whether it listens; a second order finds nothing to close."""
    sim = simulate(hello)
    sim.server.handle_close()
    sim.server.handle_close()
    assert sim.listener.fileno() not in sim.event_loop.map
    assert caplog.messages == ["unhandled close event"]


def test_listener_that_is_closed_by_order_has_not_failed(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    server.handle_close()
    server.task_dispatcher.shutdown()
    assert caplog.messages == ["unhandled close event"]
