"""The server's process: ``python -m tests.soak.serving '{"threads": 4}'``.

Paths are ``/<kept>/<what>/<name>/<size>``: the first part says whether the client means to
read the whole answer (such requests are counted), the name what the body contains.
"""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from tests.hostile.serving import end_with_input
from tests.slowness import be_slow
from tests.soak.content import BLOCK_BYTES, blocks, content
from waitress import create_server

#: Where the file is begun to be sent at is told by the size: any place will do.
FILE_BYTES = 4 * 1024 * 1024
FILE_NAME = "the file"
#: What an application that makes its answer slowly takes for each block of it.
PAUSE_SECONDS = 0.002

servers: list[Any] = []
counted = 0
_count_lock = threading.Lock()
_file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - as long as the process


class Broken(Exception):  # noqa: N818 - what it says
    """Raised by the application on request."""


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer what the path asks for; the answer names its request."""
    global counted
    kept, what, name, size_text = environ["PATH_INFO"].lstrip("/").split("/")
    size = int(size_text)
    if kept == "kept":
        with _count_lock:
            counted += 1
    headers = [("X-Name", name), ("X-Method", environ["REQUEST_METHOD"])]
    return HANDLERS[what](environ, start_response, name, size, headers)


Headers = list[tuple[str, str]]
Start = Callable[..., Any]


def one(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("200 OK", headers)
    return [content(name, size)]


def length(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("200 OK", [*headers, ("Content-Length", str(size))])
    return blocks(name, size)


def chunked(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("200 OK", headers)
    return blocks(name, size)


def written(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    write = start("200 OK", [*headers, ("Content-Length", str(size))])
    for block in blocks(name, size):
        write(block)
    return []


def paused(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("200 OK", [*headers, ("Content-Length", str(size))])

    def pieces() -> Iterator[bytes]:
        for block in blocks(name, size):
            be_slow(PAUSE_SECONDS)
            yield block

    return pieces()


def file(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    """Send the file's last ``size`` bytes."""
    start("200 OK", [*headers, ("Content-Length", str(size))])
    opened = open(_file.name, "rb")  # noqa: SIM115 - the server closes it
    opened.seek(FILE_BYTES - size)
    wrapped: Iterable[bytes] = environ["wsgi.file_wrapper"](opened, BLOCK_BYTES)
    return wrapped


def hashed(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    """Say what came."""
    result = hashlib.sha256()
    came = 0
    while block := environ["wsgi.input"].read(BLOCK_BYTES):
        result.update(block)
        came += len(block)
    body = f"{came} {result.hexdigest()}".encode("ascii")
    start("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]


def echo(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("200 OK", headers)
    return iter(lambda: environ["wsgi.input"].read(BLOCK_BYTES), b"")


def unread(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    """Answer without having read the body."""
    start("200 OK", headers)
    return [content(name, 100)]


def nothing(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("204 No Content", headers)
    return []


def broken(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    raise Broken(name)


def cut(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    start("200 OK", [*headers, ("Content-Length", str(size + 1))])
    yield from blocks(name, size)
    raise Broken(name)


def counts(environ: Any, start: Start, name: str, size: int, headers: Headers) -> Iterable[bytes]:
    server = servers[0]
    if hasattr(server, "map"):
        server = next(each for each in server.map.values() if hasattr(each, "active_channels"))
    told = {
        "spool": server.spool.used,
        "channels": len(server.clients.channels),
        "counted": counted,
        "threads": threading.active_count(),
    }
    body = json.dumps(told).encode("ascii")
    start("200 OK", [*headers, ("Content-Length", str(len(body)))])
    return [body]


HANDLERS: dict[str, Callable[..., Iterable[bytes]]] = {
    each.__name__: each
    for each in (
        one,
        length,
        chunked,
        written,
        paused,
        file,
        hashed,
        echo,
        unread,
        nothing,
        broken,
        cut,
        counts,
    )
}


def main() -> None:
    """Serve until killed."""
    _file.write(content(FILE_NAME, FILE_BYTES))
    _file.flush()
    # Crowds queue; and what the application raises on request is no news.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    servers.append(create_server(application, **json.loads(sys.argv[1])))
    port = next(port for host, port in servers[0].effective_listen if host != "unix")
    threading.Thread(target=end_with_input, daemon=True).start()
    print(port, flush=True)
    servers[0].run()


if __name__ == "__main__":
    main()
