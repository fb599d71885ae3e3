"""A normal client's process: ``python -m tests.hostile.asking PORT PATH PACE PERSISTS``.

It asks for the path, waits for the answer, rests for PACE seconds, and asks again, until
its input ends; then it prints, as JSON, when each question was asked (monotonic clock)
and how long its answer took, and what went wrong. A process of its own, so that what it
measures is the server and not the crowd's interpreter. A connection that the server ends
between two requests is opened again, as browsers do; with PERSISTS 0 each has its own.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import time
from dataclasses import dataclass, field

PATIENCE = 50.0


@dataclass
class Asker:
    """The client: one connection at a time."""

    port: int
    path: str
    persists: bool
    waits: list[tuple[float, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    sock: socket.socket | None = None

    def ask(self) -> None:
        begun = time.monotonic()
        try:
            status = self._exchange()
        except OSError as error:
            self._forget()
            self.failures.append(f"{type(error).__name__}: {error}")
        else:
            if status == b"200":
                self.waits.append((begun, time.monotonic() - begun))
            else:
                self.failures.append(f"status {status!r}")

    def _exchange(self) -> bytes:
        was_open = self.sock is not None
        try:
            return self._try()
        except (ConnectionError, EOFError):
            self._forget()
            if not was_open:
                raise
            return self._try()  # It was ended while it rested; that is nobody's fault.

    def _try(self) -> bytes:
        if self.sock is None:
            self.sock = socket.create_connection(("127.0.0.1", self.port), PATIENCE)
        self.sock.sendall(b"GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n" % self.path.encode())
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, body = data.split(b"\r\n\r\n", 1)
        lines = head.split(b"\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in lines[1:])
        while len(body) < int(fields[b"content-length"]):
            body += self._receive()
        if fields.get(b"connection") == b"close" or not self.persists:
            self._forget()
        return lines[0].split()[1]

    def _receive(self) -> bytes:
        assert self.sock is not None
        data = self.sock.recv(65536)
        if not data:
            raise ConnectionAbortedError("closed instead of answered")
        return data

    def _forget(self) -> None:
        if self.sock is not None:
            with contextlib.suppress(OSError):
                self.sock.close()
            self.sock = None


def main() -> None:
    """Ask until the input ends."""
    port, path, pace, persists = sys.argv[1:]
    asker = Asker(int(port), path, persists == "1")
    while not select.select([sys.stdin], [], [], float(pace))[0]:
        asker.ask()
    json.dump({"waits": asker.waits, "failures": asker.failures}, sys.stdout)


if __name__ == "__main__":
    main()
