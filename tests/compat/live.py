"""What tests with a live server need: a loop in a thread, a raw client, small applications.

Standard library only, and nothing of the server but its documented doors, so that the
same tests say something about any server that has them.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from waitress import wasyncore

#: Seconds after which something that should have happened is declared missing.
PATIENCE = 20.0


# -- applications -------------------------------------------------------------------


def hello(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer 200 with a fixed text."""
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "5")])
    return [b"hello"]


def mirror(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    """Answer with what of the environ is text, and the body, as one JSON object."""
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    seen["body"] = environ["wsgi.input"].read().decode("latin-1")
    body = json.dumps(seen).encode("ascii")
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]


class Gate:
    """An application that says when it was entered, and answers when it is let go.

    Threads: the application runs in workers; everything else is for the test.
    """

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self.opened = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.entered.release()
        self.opened.wait(PATIENCE)
        return hello(environ, start_response)

    def await_entry(self) -> None:
        """Return once another request has reached the application."""
        assert self.entered.acquire(timeout=PATIENCE)


# -- the server's side --------------------------------------------------------------


def map_of(server: Any) -> dict[int, Any]:
    """Return the live socket map of a server of one or several sockets."""
    found: dict[int, Any] = server.map if hasattr(server, "map") else server._map
    return found


class Running:
    """A server whose loop runs in a thread of its own.

    ``ended_by`` is the ``OSError`` that left ``run()``, if one did: where descriptors are
    closed behind the loop's back, that is one of the two allowed ends.
    """

    def __init__(self, server: Any) -> None:
        self.server = server
        self.ended_by: OSError | None = None
        self.thread = threading.Thread(target=self._run, name="loop", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except OSError as error:
            self.ended_by = error

    @property
    def port(self) -> int:
        """The TCP port of the (first) listening socket."""
        if hasattr(self.server, "effective_listen"):
            return int(self.server.effective_listen[0][1])
        return int(self.server.effective_port)

    def connect(self) -> Wire:
        """Open a connection to the server on 127.0.0.1."""
        return Wire(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def call_in_loop(self, thunk: Callable[[], Any]) -> Any:
        """Run ``thunk`` in the loop's thread and return what it returned."""
        return call_in_loop(map_of(self.server), thunk)

    def await_end(self) -> None:
        """Return once the loop has ended; fail if it does not."""
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive(), "the loop did not end"

    def stop(self) -> None:
        """End loop and workers in the orderly way, from inside the loop; repeatable."""
        socket_map = map_of(self.server)
        if self.thread.is_alive():
            call_in_loop(socket_map, lambda: wasyncore.close_all(socket_map))
        self.await_end()
        wasyncore.close_all(socket_map, ignore_all=True)
        self.server.task_dispatcher.shutdown()


def call_in_loop(socket_map: dict[int, Any], thunk: Callable[[], Any]) -> Any:
    """Run ``thunk`` through the first trigger of the map; return its result."""
    done = threading.Event()
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(thunk())
        finally:
            done.set()

    # A copy: the loop goes on meanwhile, and without the GIL amid the search.
    trigger = next(each for each in socket_map.copy().values() if hasattr(each, "pull_trigger"))
    trigger.pull_trigger(run)
    assert done.wait(PATIENCE), "the loop did not run the thunk"
    return results[0]


# -- the client's side --------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A response as it stood on the wire, header names in lower case."""

    version: str
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


class Wire:
    """A client's socket with just enough reading to tell responses apart."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        self.sock = sock
        self._buffer = b""

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        self.sock.sendall(data)

    def get(self, path: str = "/", *fields: str) -> Answer:
        """Send a GET of HTTP/1.1 and return the answer."""
        self.send(request("GET", path, *fields))
        return self.read_answer()

    def _fill(self) -> None:
        data = self.sock.recv(65536)
        if not data:
            raise EOFError(f"closed after {self._buffer!r}")
        self._buffer += data

    def read_line(self) -> bytes:
        """Return the octets before the next CRLF."""
        while b"\r\n" not in self._buffer:
            self._fill()
        line, self._buffer = self._buffer.split(b"\r\n", 1)
        return line

    def read(self, count: int) -> bytes:
        """Return exactly ``count`` octets."""
        while len(self._buffer) < count:
            self._fill()
        data, self._buffer = self._buffer[:count], self._buffer[count:]
        return data

    def read_to_end(self) -> bytes:
        """Return what comes until the server closes its side; a reset is an end as well."""
        with contextlib.suppress(EOFError, ConnectionResetError):
            while True:
                self._fill()
        data, self._buffer = self._buffer, b""
        return data

    def read_answer(self) -> Answer:
        """Return the next response, its body delimited by length, chunks or the end."""
        version, status = self.read_line().decode("latin-1").split(" ")[:2]
        headers: dict[str, str] = {}
        while line := self.read_line().decode("latin-1"):
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        return Answer(version, int(status), headers, self._read_body(int(status), headers))

    def _read_body(self, status: int, headers: dict[str, str]) -> bytes:
        if status < 200:
            return b""
        if "content-length" in headers:
            return self.read(int(headers["content-length"]))
        if "transfer-encoding" in headers:
            return b"".join(self._read_chunks())
        return self.read_to_end()

    def _read_chunks(self) -> Iterator[bytes]:
        while size := int(self.read_line(), 16):
            yield self.read(size)
            self.read(2)
        self.read(2)


def request(method: str, path: str, *fields: str, body: bytes = b"") -> bytes:
    """Return the octets of a request of HTTP/1.1, with a length if it has a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", *fields]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


# -- leaks --------------------------------------------------------------------------


def open_descriptors() -> dict[int, tuple[int, int]]:
    """Return each open descriptor with what tells its file from another one's."""
    found = {}
    for name in os.listdir("/dev/fd") if os.path.isdir("/dev/fd") else ():
        with contextlib.suppress(OSError):  # the listing's own descriptor
            status = os.fstat(int(name))
            found[int(name)] = (status.st_dev, status.st_ino)
    return found


@contextlib.contextmanager
def nothing_left_behind() -> Iterator[None]:
    """Fail if threads or descriptors opened inside are still there at the end."""
    threads = set(threading.enumerate())
    descriptors = open_descriptors().items()
    yield
    gc.collect()
    deadline = time.monotonic() + PATIENCE
    for thread in set(threading.enumerate()) - threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    assert not {each for each in threading.enumerate() if each.is_alive()} - threads
    assert not dict(open_descriptors().items() - descriptors), "descriptors left open"


def chunked(pieces: Iterable[bytes]) -> bytes:
    """Return a chunked message body of the given pieces."""
    return b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
