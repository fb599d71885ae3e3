"""Fixtures of the integration tests: the live server's, and commands as subprocesses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.conftest import no_leaks, run_server, serve
from tests.integration.commands import Command

__all__ = ["no_leaks", "run_server", "serve"]


@pytest.fixture
def start_command(tmp_path: Path, no_leaks: None) -> Iterator[Callable[..., Command]]:
    """Give a function that starts a command in an empty directory until the test ends."""
    started: list[Command] = []

    def start(*arguments: Any, **kw: Any) -> Command:
        started.append(Command(arguments, tmp_path, **kw))
        return started[-1]

    yield start
    for each in started:
        each.end()
