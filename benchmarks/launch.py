"""The process of a server that has no command of its own, or whose command says too little.

``python launch.py NAME PORT THREADS CONNECTIONS [SETTING=VALUE ...]`` runs in that server's
environment, so it imports nothing of this project but the application. Nothing is logged by
any server. Further settings are for waitress only.
"""

from __future__ import annotations

import logging
import sys
from dataclasses import dataclass
from importlib import import_module
from typing import Any

HOST = "127.0.0.1"
BACKLOG = 2048
#: Seconds for which a silent connection is kept, by every server that has such a setting.
KEEP_ALIVE_SECONDS = 120
#: More connections than select() can watch, or than servers take by default.
MANY_CONNECTIONS = 900


@dataclass(frozen=True)
class Facts:
    """What the server is told."""

    port: int
    threads: int
    connections: int
    #: Further settings, as ``NAME=VALUE``; a value may be a name of :data:`CALLABLES`.
    settings: tuple[str, ...] = ()


def hear(event: object) -> None:
    """Hear of an event, and do nothing about it."""


#: What settings may name that are no text.
CALLABLES = {"hear": hear}


def run_waitress(application: Any, facts: Facts) -> None:
    """Run waitress, whichever release is installed, with equal settings."""
    # The warnings about the task queue are made, but not written; both releases alike.
    logger = logging.getLogger("waitress")
    logger.addHandler(logging.NullHandler())
    logger.propagate = False
    settings: dict[str, Any] = {"host": HOST, "port": facts.port, "threads": facts.threads}
    settings.update(backlog=BACKLOG, channel_timeout=KEEP_ALIVE_SECONDS)
    if facts.connections > MANY_CONNECTIONS:
        settings.update(connection_limit=facts.connections, asyncore_use_poll=True)
    for setting in facts.settings:
        name, _, value = setting.partition("=")
        settings[name] = CALLABLES.get(value, value)
    import_module("waitress").serve(application, _quiet=True, **settings)


def run_cheroot(application: Any, facts: Facts) -> None:
    """Run cheroot; by default it keeps only ten connections alive."""
    server = import_module("cheroot.wsgi").Server(
        (HOST, facts.port), application, numthreads=facts.threads, max=facts.threads
    )
    server.request_queue_size = BACKLOG
    server.timeout = KEEP_ALIVE_SECONDS
    server.keep_alive_conn_limit = facts.connections + 100
    server.start()


def run_gevent(application: Any, facts: Facts) -> None:
    """Run gevent's server as it is used, with the standard library patched."""
    import_module("gevent.monkey").patch_all()
    server = import_module("gevent.pywsgi").WSGIServer(
        (HOST, facts.port), application, log=None, backlog=BACKLOG
    )
    server.serve_forever()


def run_bjoern(application: Any, facts: Facts) -> None:
    """Run bjoern, which has one thread."""
    import_module("bjoern").run(application, HOST, facts.port)


def run_bare(application: Any, facts: Facts) -> None:
    """Run what is no server, for comparison."""
    import_module("bare").run(application, HOST, facts.port, facts.threads)


SERVERS = {
    "waitress": run_waitress,
    "bare": run_bare,
    "cheroot": run_cheroot,
    "gevent": run_gevent,
    "bjoern": run_bjoern,
}


if __name__ == "__main__":
    # By this name, as the servers that have a command of their own import it.
    _application = import_module("applications").application
    _port, _threads, _connections = map(int, sys.argv[2:5])
    SERVERS[sys.argv[1]](_application, Facts(_port, _threads, _connections, tuple(sys.argv[5:])))
