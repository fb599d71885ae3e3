"""The server's process: ``python -m tests.hostile.serving '{"threads": 4}'``.

The one argument holds the settings, as JSON. The port is the first line of its output;
it ends when its standard input does, so that nothing outlives a test that was killed.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tests.slowness import be_slow
from waitress import create_server

BLOCK_BYTES = 65536

servers: list[Any] = []


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with so many bytes, after so many seconds, with the path, or with its counts."""
    _, what, *rest = environ["PATH_INFO"].split("/")
    if what == "blocks":
        size = int(rest[0])
        start_response("200 OK", [("Content-Length", str(size))])
        # Each one new, as an application's would be: shared, they would cost no memory.
        return (b"x" * min(BLOCK_BYTES, size - at) for at in range(0, size, BLOCK_BYTES))
    if what == "after":
        be_slow(float(rest[0]))
    body = environ["PATH_INFO"].encode("latin-1")
    if what == "counts":
        server = servers[0]
        # Counts of another thread's: each is one number, right at some moment.
        counts = {"spool": server.spool.used, "channels": len(server.active_channels)}
        body = json.dumps(counts).encode("ascii")
    elif what == "body":
        body = str(len(environ["wsgi.input"].read())).encode("ascii")
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def end_with_input() -> None:
    """End the process when nobody holds the other end of its input."""
    sys.stdin.buffer.read()
    os._exit(0)


def main() -> None:
    """Serve until killed."""
    settings = {"host": "127.0.0.1", "port": 0, **json.loads(sys.argv[1])}
    servers.append(create_server(application, **settings))
    threading.Thread(target=end_with_input, daemon=True).start()
    print(servers[0].effective_port, flush=True)
    servers[0].run()


if __name__ == "__main__":
    main()
