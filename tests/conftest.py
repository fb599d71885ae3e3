"""Fixtures that tests of every kind may use."""

from __future__ import annotations

import gc
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

# Their assertions count under "python -O" too, as those of the tests do.
pytest.register_assert_rewrite("tests.compat.live", "tests.fakes", "tests.feeding", "tests.looping")

from tests.compat.live import Running, nothing_left_behind  # noqa: E402
from tests.fakes import Simulation, simulation  # noqa: E402
from tests.looping import tcp_pair  # noqa: E402
from waitress import create_server  # noqa: E402


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what was imported out of sight of the collector, which runs after each test."""
    gc.collect()
    gc.freeze()


def pytest_configure() -> None:
    """Have SIGINT end the servers that are started, though a shell's ``&`` has it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def levels_of_loggers() -> Iterator[None]:
    """Put the levels of our loggers back: the command sets them, and programs do."""
    names = ("waitress", "waitress.queue", "waitress.reject")
    before = {name: logging.getLogger(name).level for name in names}
    yield
    for name, level in before.items():
        logging.getLogger(name).setLevel(level)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if a thread or a descriptor outlives it."""
    with nothing_left_behind():
        yield


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Give the two ends of a TCP connection."""
    ends = tcp_pair()
    yield ends
    for each in ends:
        each.close()


@pytest.fixture
def ours(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    """Give one end of it."""
    return pair[0]


@pytest.fixture
def theirs(pair: tuple[socket.socket, socket.socket]) -> socket.socket:
    """Give its other end."""
    return pair[1]


@pytest.fixture
def serve(no_leaks: None) -> Iterator[Callable[..., Running]]:
    """Give a function that serves an application, on a free port of 127.0.0.1.

    The loop runs in a thread of its own; all is ended with the test.
    """
    with ExitStack() as stack:

        def start(application: Any, **settings: Any) -> Running:
            if not settings.keys() & {"listen", "sockets", "unix_socket"}:
                settings = {"host": "127.0.0.1", "port": 0, **settings}
            running = Running(create_server(application, **settings))
            stack.callback(running.stop)
            return running

        yield start


@pytest.fixture
def simulate(no_leaks: None) -> Iterator[Callable[..., Simulation]]:
    """Give a function that puts an application on a simulated clock and network."""
    with ExitStack() as stack:

        def start(application: Any, **settings: Any) -> Simulation:
            return stack.enter_context(simulation(application, **settings))

        yield start
