"""The server that is restarted: ``python -m tests.restarts.backend PORT DRAIN_DELAY``.

A line on its standard output says that it listens.
"""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from tests.slowness import be_slow
from waitress import create_server, serve

#: What the slow reader reads.
LARGE = bytes(range(256)) * (4 * 1024 * 4)
#: How long the application works for a request, so that some are always in flight.
WORK_SECONDS = 0.01


def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer what the client can check."""
    path = environ["PATH_INFO"]
    if path == "/large":
        body = LARGE
    else:
        body = answer_to(environ["REQUEST_METHOD"], path, environ["wsgi.input"].read())
        be_slow(WORK_SECONDS)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]


def answer_to(method: str, path: str, body: bytes) -> bytes:
    """Return the only right answer to a request."""
    return f"{method} {path} {hashlib.sha256(body).hexdigest()}".encode("ascii")


def make(app: Any, **kw: Any) -> Any:
    """Make the server, which listens from here on, and tell so."""
    made = create_server(app, **kw)
    print("listening", flush=True)
    return made


def main(port: str, drain_delay: str) -> int:
    """Serve until told to stop."""
    status = serve(
        application,
        _server=make,
        host="127.0.0.1",
        port=port,
        threads=8,
        drain_delay=drain_delay,
        health_prefix="/-",
    )
    return status or 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
