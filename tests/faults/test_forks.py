"""Forks: before the server, after it, and amid a request."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, Wire, map_of, request
from tests.faults.processes import faulty
from tests.functional.applications import hello
from tests.hostile.processes import ROOT
from waitress import create_server, wasyncore

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")

#: What every program below begins and ends with; it ends when its input does.
BEGIN = """
import os, signal, socket, sys, threading
from waitress import create_server, wasyncore

def app(environ, start_response):
    body = str(os.getpid()).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

def report(server):
    # In one write: another process writes to the same pipe.
    os.write(1, f"{server.effective_port} {os.getpid()}\\n".encode())

def reap(*children):
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
"""

FORK_THEN_SERVE = """
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        server = create_server(app, host="127.0.0.1", port=0)
        report(server)
        server.run()
        os._exit(1)
    children.append(child)
reap(*children)
"""

SHARED_LISTENER = """
listener = socket.create_server(("127.0.0.1", 0))
children = []
for _ in range(2):
    child = os.fork()
    if not child:
        server = create_server(app, sockets=[listener])
        report(server)
        server.run()
        os._exit(1)
    children.append(child)
reap(*children)
"""

SERVE_THEN_FORK = """
server = create_server(app, host="127.0.0.1", port=0)
child = os.fork()
if not child:
    try:
        server.run()
    except RuntimeError as error:
        print(error, flush=True)
    os._exit(0)
os.waitpid(child, 0)
report(server)
threading.Thread(target=server.run, daemon=True).start()
reap()
"""


@contextlib.contextmanager
def running(program: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + program],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.communicate(timeout=PATIENCE)


def _line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def _ask(port: str) -> str:
    with Wire(socket.create_connection(("127.0.0.1", int(port)), PATIENCE)) as wire:
        return wire.get().body.decode()


@pytest.mark.faults
@needs_fork
def test_processes_that_were_forked_after_the_import_serve_each_for_itself(
    no_leaks: None,
) -> None:
    with running(FORK_THEN_SERVE) as process:
        for port, pid in [_line(process).split() for _ in range(2)]:
            assert [_ask(port) for _ in range(3)] == [pid] * 3


@pytest.mark.faults
@needs_fork
def test_processes_share_a_listener_that_was_made_before_the_fork(no_leaks: None) -> None:
    with running(SHARED_LISTENER) as process:
        (port, first), (_, second) = [_line(process).split() for _ in range(2)]
        assert {_ask(port) for _ in range(20)} <= {first, second}


@pytest.mark.faults
@needs_fork
def test_server_that_was_made_before_the_fork_does_not_run_without_its_threads(
    no_leaks: None,
) -> None:
    """It would accept and never answer; in the process that made it, it serves."""
    with running(SERVE_THEN_FORK) as process:
        assert "was made in another process" in _line(process)
        port, pid = _line(process).split()
        assert _ask(port) == pid


def test_stand_in_for_a_dispatcher_runs_in_any_process(serve: Callable[..., Running]) -> None:
    """Its threads are its own affair; it may have none."""
    made: list[Any] = []

    class Inline:
        def add_task(self, task: Any) -> None:
            task.service()

        def shutdown(self) -> None:
            made.append(self)

    running = serve(hello, _dispatcher=Inline())
    with running.connect() as wire:
        assert wire.get().body == b"hello"


def test_server_refuses_to_run_in_another_process_than_its_threads(no_leaks: None) -> None:
    for listen in ("127.0.0.1:0", "127.0.0.1:0 127.0.0.1:0"):
        server = create_server(hello, listen=listen)
        made_in = server.task_dispatcher.process_id
        assert made_in == os.getpid()
        server.task_dispatcher.process_id = made_in + 1
        with pytest.raises(RuntimeError, match=rf"another process \({made_in + 1}\)"):
            server.run()
        server.task_dispatcher.shutdown()
        wasyncore.close_all(map_of(server))


@pytest.mark.faults
@needs_fork
def test_program_that_the_application_runs_inherits_no_connection(no_leaks: None) -> None:
    with faulty() as server, server.connect() as wire:
        # The one that lists, alone.
        assert wire.get("/program").body.count(b",") == 0


@pytest.mark.faults
@needs_fork
def test_connection_ends_for_its_client_though_a_copy_of_the_process_lives(
    no_leaks: None,
) -> None:
    """The copy holds the connection and the listener, and does nothing with them."""
    with faulty() as server:
        copies = []
        try:
            for _ in range(3):
                with server.connect() as wire:
                    wire.send(request("GET", "/child", "Connection: close"))
                    copies.append(int(wire.read_answer().body))
                    assert wire.read_to_end() == b""
            with server.connect() as wire:
                assert wire.get("/ok").body == b"/ok"
            work = server.work()
            assert server.ask("/after/0.5").body == b"/after/0.5"
            # What lives on in the copies ends no wait of the loop's.
            assert server.work().main_thread_waits - work.main_thread_waits < 20
        finally:
            for copy in copies:
                os.kill(copy, signal.SIGKILL)
