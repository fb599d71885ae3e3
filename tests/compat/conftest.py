"""Fixtures of the tests that run other people's programs on a live server."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.live import Running, nothing_left_behind
from waitress import create_server


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """Fail the test if a thread or a descriptor outlives it."""
    with nothing_left_behind():
        yield


@pytest.fixture
def run_server() -> Iterator[Callable[[Any], Running]]:
    """Give a function that runs a server's loop in a thread until the test ends."""
    running: list[Running] = []

    def run(server: Any) -> Running:
        running.append(Running(server))
        return running[-1]

    yield run
    for each in running:
        each.stop()


@pytest.fixture
def serve(run_server: Callable[[Any], Running]) -> Callable[..., Running]:
    """Give a function that serves an application on a free port of 127.0.0.1."""

    def start(application: Any, **settings: Any) -> Running:
        if "sockets" not in settings and "_sock" not in settings:
            settings = {"host": "127.0.0.1", "port": 0, **settings}
        return run_server(create_server(application, **settings))

    return start
