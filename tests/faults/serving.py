"""The server's process: ``python -m tests.faults.serving '{"threads": 4, "limits": {}}'``.

Beside the settings, ``limits`` are the soft limits that it sets itself once it listens, by
the names of ``resource``. It takes SIGUSR2 and does nothing of it.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

from tests.faults.applications import failing
from tests.hostile import serving
from waitress import create_server

signals_taken = 0


def take_signal(*args: Any) -> None:
    global signals_taken
    signals_taken += 1
    # As handlers do: it logs, which takes a lock, and asks for memory.
    logging.getLogger("signals").debug("taken %s", args)


def application(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Do what the path says."""
    _, what, *rest = environ["PATH_INFO"].split("/")
    if what == "fail":
        return failing({**environ, "PATH_INFO": "/" + "/".join(rest)}, start_response)  # type: ignore[no-any-return]
    own = OWN.get(what)
    if own is None:
        return serving.application(environ, start_response)
    body = own(environ, *rest)
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def memory(environ: Any) -> bytes:
    """Take memory until the system gives no more."""
    held = []
    while True:
        held.append(bytearray(b"x" * (16 * 1024 * 1024)))


def signals(environ: Any) -> bytes:
    return str(signals_taken).encode()


def program(environ: Any) -> bytes:
    """Run a program, which names its descriptors beyond the first three."""
    listing = "import os; print([n for n in os.listdir('/proc/self/fd') if int(n) > 2])"
    return subprocess.run(
        [sys.executable, "-S", "-c", listing], close_fds=False, capture_output=True, check=True
    ).stdout


def child(environ: Any) -> bytes:
    """Fork, as old libraries do: the copy rests until its pipe is closed."""
    copy = os.fork()
    if not copy:
        try:
            signal.pause()
        finally:
            os._exit(0)
    return str(copy).encode()


OWN: dict[str, Callable[..., bytes]] = {
    each.__name__: each for each in (memory, signals, program, child)
}


def main() -> None:
    """Serve until killed."""
    settings = json.loads(sys.argv[1])
    limits = settings.pop("limits", {})
    if "unix_socket" not in settings:
        settings = {"host": "127.0.0.1", "port": 0, **settings}
    signal.signal(signal.SIGUSR2, take_signal)
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    server = create_server(application, **settings)
    serving.servers.append(server)
    for name, value in limits.items():
        limit = getattr(resource, name)
        resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))
    threading.Thread(target=serving.end_with_input, daemon=True).start()
    port = server.effective_port
    print(port if port.isdigit() else 0, flush=True)
    server.run()


if __name__ == "__main__":
    main()
