"""Serve ``applications`` by whichever ``waitress`` the running interpreter imports.

Run as ``python serving.py '{"name": {"setting": value, ...}, ...}'``: one server for each
name, each with its own map and thread. The first line on standard output is a JSON object:
where the package came from, and the address of each server. From then on each line on
standard input is answered by one line: the log records written since the last answer, as
JSON. At the end of standard input the process ends, so it never outlives who started it.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections import deque
from importlib import metadata
from typing import Any

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

from applications import Environ, StartResponse, application  # type: ignore[import-not-found]

import waitress


class Log(logging.Handler):
    """Keeps what an operator would read: logger, level and message, not the traceback."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.records: deque[tuple[str, str, str]] = deque()

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append((record.name, record.levelname, record.getMessage()))

    def drained(self) -> list[tuple[str, str, str]]:
        return [self.records.popleft() for _ in range(len(self.records))]


class Told:
    """The application, told which port it is served at."""

    port = ""

    def __call__(self, environ: Environ, start_response: StartResponse) -> Any:
        environ["differential.port"] = self.port
        return application(environ, start_response)


def start(settings: dict[str, Any]) -> list[Any]:
    """Start one server; return the address that clients connect to."""
    told = Told()
    if "unix_socket" not in settings:
        settings = {"listen": "127.0.0.1:0", **settings}
    server: Any = waitress.create_server(told, **settings)
    told.port = server.effective_port
    threading.Thread(target=server.run, daemon=True).start()
    if "unix_socket" in settings:
        return [settings["unix_socket"]]
    return [server.effective_host, int(server.effective_port)]


def _version() -> str:
    try:
        return metadata.version("waitress")
    except metadata.PackageNotFoundError:  # a source tree that is not installed
        return ""


def main() -> None:
    log = Log()
    logging.getLogger().addHandler(log)
    addresses = {name: start(settings) for name, settings in json.loads(sys.argv[1]).items()}
    hello = {
        "package": waitress.__file__,
        "version": _version(),
        "addresses": addresses,
    }
    print(json.dumps(hello), flush=True)
    for _ in sys.stdin:
        print(json.dumps(log.drained()), flush=True)
    os._exit(0)  # workers of a server that hangs must not keep the process


if __name__ == "__main__":
    main()
