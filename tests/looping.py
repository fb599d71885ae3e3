"""Help for the tests of the loop: objects for its map, threads, and other platforms."""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from waitress import forks
from waitress.stacks import stacks_can_be_read

#: Real seconds after which something that should have happened is declared missing.
PATIENCE = 20.0


class Stranger:
    """An object for a socket map that has what the loop asks for, and no base class.

    What happens to it is written down in ``events``; what it is to do then stands in
    ``actions``, by the event's name.
    """

    accepting = False

    def __init__(self, reads: bool = True, writes: bool = False) -> None:
        self.reads = reads
        self.writes = writes
        self.events: list[str] = []
        self.actions: dict[str, Callable[[], Any]] = {}

    def _happened(self, event: str) -> None:
        self.events.append(event)
        if event in self.actions:
            self.actions[event]()

    def readable(self) -> bool:
        self._asked("readable")
        return self.reads

    def writable(self) -> bool:
        self._asked("writable")
        return self.writes

    def _asked(self, question: str) -> None:
        """Questions are many, and seldom of interest."""
        if question in self.actions:
            self.actions[question]()

    def handle_read_event(self) -> None:
        self._happened("read")

    def handle_write_event(self) -> None:
        self._happened("write")

    def handle_expt_event(self) -> None:
        self._happened("expt")

    def handle_error(self) -> None:
        self._happened(f"error {sys.exc_info()[1]!r}")

    def handle_close(self) -> None:
        self._happened("close")

    def close(self) -> None:
        self._happened("closed")


class Raises:
    """An action that raises."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __call__(self) -> None:
        raise self.error


#: Marks tests that read the stacks of other threads.
needs_stacks = pytest.mark.skipif(
    not stacks_can_be_read(), reason="the stacks of other threads cannot be read"
)


class InThread:
    """A function that runs in a thread of its own; its result, or what it raised."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self._call = function, args
        self._result: Any = None
        self._error: BaseException | None = None
        self.thread = threading.Thread(target=self._run, name="test", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        function, args = self._call
        try:
            self._result = function(*args)
        except BaseException as error:
            self._error = error

    def result(self) -> Any:
        """Wait for the end; return the result, or raise."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the thread hangs"
        if self._error is not None:
            raise self._error
        return self._result


def await_event(event: threading.Event) -> None:
    """Wait for an event that must come."""
    assert event.wait(PATIENCE), "it did not happen"


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return the two ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname(), PATIENCE)
        server, _ = listener.accept()
    return client, server


def load_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
    module: ModuleType,
    *,
    os_name: str = os.name,
    without: tuple[str, ...] = (),
    into: ModuleType | None = None,
) -> ModuleType:
    """Run a module's source as another platform would.

    Args:
        monkeypatch: pytest's.
        module: the module; it stays as it is.
        os_name: the platform's ``os.name``.
        without: standard modules that the platform does not have.
        into: run it in this module, instead of a new one.
    """
    spec = importlib.util.find_spec(module.__name__)
    assert spec is not None
    assert spec.loader is not None
    target = importlib.util.module_from_spec(spec) if into is None else into
    with monkeypatch.context() as patch:
        patch.setattr(os, "name", os_name)
        for name in without:
            patch.setitem(sys.modules, name, None)
        spec.loader.exec_module(target)
    return target


def may_fork() -> bool:
    """Say whether another thread could fork now; see :mod:`waitress.forks`."""
    free: list[bool] = []

    def look() -> None:
        free.append(forks.lock.acquire(blocking=False))
        if free[0]:
            forks.lock.release()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(PATIENCE)
    return free[0]
