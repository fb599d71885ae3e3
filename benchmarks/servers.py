"""The table of the servers under test: what to install, and how each is started.

Row 1: imports ``launch``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.launch import BACKLOG, HOST, KEEP_ALIVE_SECONDS, Facts

HERE = Path(__file__).parent

OURS = "waitress"
RELEASED = "waitress 3.0.2"

#: What to install for a server that is this project itself.
TREE = "."


@dataclass(frozen=True)
class Server:
    """One server: ``command`` gives the arguments that start it, from a *bin* directory."""

    name: str
    requirement: str
    command: Callable[[Path, Facts], list[str]]
    distribution: str
    #: One of those that this project means to be ahead of; the others are for orientation.
    is_rival: bool = True
    keeps_alive: bool = True
    #: The only rows that it can do; None for all.
    rows: frozenset[str] | None = None


def _launched(name: str) -> Callable[[Path, Facts], list[str]]:
    def command(binaries: Path, facts: Facts) -> list[str]:
        numbers = map(str, (facts.port, facts.threads, facts.connections))
        launch = str(HERE / "launch.py")
        return [str(binaries / "python"), launch, name, *numbers, *facts.settings]

    return command


def _gunicorn(*of_class: str) -> Callable[[Path, Facts], list[str]]:
    def command(binaries: Path, facts: Facts) -> list[str]:
        return [
            str(binaries / "gunicorn"),
            *(option.format(facts=facts) for option in of_class),
            f"--bind={HOST}:{facts.port}",
            f"--backlog={BACKLOG}",
            f"--keep-alive={KEEP_ALIVE_SECONDS}",
            "--log-level=critical",
            f"--pythonpath={HERE}",
            "applications:application",
        ]

    return command


def _uwsgi(binaries: Path, facts: Facts) -> list[str]:
    return [
        str(binaries / "uwsgi"),
        f"--http11-socket={HOST}:{facts.port}",
        f"--threads={facts.threads}",
        f"--home={binaries.parent}",
        f"--pythonpath={HERE}",
        "--module=applications:application",
        f"--listen={BACKLOG}",
        "--enable-threads",
        "--disable-logging",
        "--die-on-term",
    ]


def _granian(binaries: Path, facts: Facts) -> list[str]:
    return [
        str(binaries / "granian"),
        "--interface=wsgi",
        "--http=1",
        f"--host={HOST}",
        f"--port={facts.port}",
        "--workers=1",
        f"--blocking-threads={facts.threads}",
        f"--backlog={BACKLOG}",
        # By default as many connections as the backlog is long.
        f"--backpressure={facts.connections}",
        "--no-log",
        f"--working-dir={HERE}",
        "applications:application",
    ]


#: Four threads each, where a server has threads; gunicorn's "sync" has processes instead.
#: A row asks for other numbers where it has to.
SERVERS: dict[str, Server] = {
    server.name: server
    for server in (
        Server(OURS, TREE, _launched("waitress"), "waitress", is_rival=False),
        Server(RELEASED, "waitress==3.0.2", _launched("waitress"), "waitress", is_rival=False),
        Server("cheroot", "cheroot", _launched("cheroot"), "cheroot"),
        Server(
            "gunicorn-gthread",
            "gunicorn",
            _gunicorn(
                "--worker-class=gthread",
                "--threads={facts.threads}",
                "--worker-connections={facts.connections}",
            ),
            "gunicorn",
        ),
        Server(
            "gunicorn-sync",
            "gunicorn",
            _gunicorn("--worker-class=sync", "--workers={facts.threads}"),
            "gunicorn",
            keeps_alive=False,
        ),
        Server("gevent", "gevent", _launched("gevent"), "gevent"),
        Server("bjoern", "bjoern", _launched("bjoern"), "bjoern", is_rival=False),
        Server("uWSGI", "uwsgi", _uwsgi, "uwsgi", is_rival=False),
        Server("granian", "granian", _granian, "granian", is_rival=False),
        Server(
            "bare",
            TREE,
            _launched("bare"),
            "waitress",
            is_rival=False,
            rows=frozenset(
                {
                    "hello-1",
                    "hello-8",
                    "hello-64",
                    "hello-256",
                    "browser-64",
                    "connect-16",
                    "pipeline-16",
                }
            ),
        ),
    )
}

PEERS = [name for name in SERVERS if name not in (OURS, RELEASED)]
