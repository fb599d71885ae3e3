"""Fixtures that tests of every kind may use; none of them acts unasked."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from tests.compat.live import Running, nothing_left_behind
from tests.fakes import Simulation, simulation
from waitress import create_server


def pytest_collection_finish(session: pytest.Session) -> None:
    """Take what was imported out of sight of the collector, which runs after each test."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def no_leaks() -> Iterator[None]:
    """Fail the test if a thread or a descriptor outlives it."""
    with nothing_left_behind():
        yield


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
