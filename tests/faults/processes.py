"""A server in a process of its own, with faults, and how to ask it something."""

from __future__ import annotations

import contextlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from tests.compat.live import PATIENCE, Answer, Wire, request
from tests.hostile.processes import Server


class FaultyServer(Server):
    """See :mod:`tests.faults.serving`."""

    module = "tests.faults.serving"

    def connect(self) -> Wire:
        return Wire(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def ask(self, path: str, body: bytes = b"") -> Answer:
        """Have one request answered, on a connection of its own."""
        with self.connect() as wire:
            wire.send(request("POST" if body else "GET", path, body=body))
            return wire.read_answer()

    def logged(self, text: str) -> int:
        """Return how many lines of the log contain a text."""
        return sum(text in line for line in self.log)


@contextlib.contextmanager
def faulty(**settings: Any) -> Iterator[FaultyServer]:
    """Give a server, which has to be alive in the end."""
    server = FaultyServer(**settings)
    try:
        yield server
        assert server.is_alive
    except BaseException:
        print("the server's log ends:", *server.log[-40:], file=sys.stderr)
        raise
    finally:
        server.stop()
