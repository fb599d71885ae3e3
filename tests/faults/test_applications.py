"""Whatever an application raises: the client is told, and the worker lives."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from tests.compat.live import PATIENCE, Running, request
from tests.faults.applications import FAILURES, PLACES, Body, failing

Serve = Callable[..., Running]

EVERY_PLACE_AND_KIND = [(place, kind) for place in PLACES for kind in FAILURES]


def test_every_failure_is_answered_or_cut_and_the_only_worker_lives(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    running = serve(failing, threads=1)
    worker = {each for each in threading.enumerate() if each.name.startswith("waitress-")}
    for place, kind in EVERY_PLACE_AND_KIND:
        caplog.clear()
        Body.closed = 0
        with running.connect() as wire:
            wire.send(request("POST", f"/{place}/{kind}", body=b"x") + request("GET", "/next"))
            came = wire.read_to_end()
        if PLACES[place]:
            head, _, body = came.partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 200 OK"), (place, kind)
            # The last chunk is missing.
            assert body == b"3\r\nabc\r\n", (place, kind)
        else:
            assert came.startswith(b"HTTP/1.1 500 Internal Server Error"), (place, kind)
            assert came.count(b"HTTP/1.1") == 1, (place, kind)
        assert Body.closed == (place in {"first", "later", "close", "close-of-nothing"})
        assert [record.getMessage() for record in caplog.records] == [
            f"Exception while serving /{place}/{kind}"
        ]
        with running.connect() as wire:
            assert wire.get("/ok").body == b"ok"
    (thread,) = worker
    assert thread.is_alive()
    assert running.server.task_dispatcher.active_count <= 1


def test_failures_of_many_connections_at_once_cost_no_worker(serve: Serve) -> None:
    running = serve(failing, threads=3)
    before = running.server.task_dispatcher.threads.copy()
    wires = [running.connect() for _ in range(8 * len(FAILURES))]
    for number, wire in enumerate(wires):
        wire.send(request("GET", f"/call/{list(FAILURES)[number % len(FAILURES)]}"))
    for wire in wires:
        with wire:
            assert wire.read_answer().status == 500
    with running.connect() as wire:
        assert wire.get("/ok").body == b"ok"
    assert running.server.task_dispatcher.threads == before


def test_client_that_waits_is_served_though_the_one_before_it_exits(serve: Serve) -> None:
    """One worker: the second connection's request stands behind the first one's failure."""
    entered, go_on = threading.Event(), threading.Event()

    def application(environ, start_response):  # type: ignore[no-untyped-def]
        if environ["PATH_INFO"] == "/first":
            entered.set()
            assert go_on.wait(PATIENCE)
            raise SystemExit
        return failing(environ, start_response)

    running = serve(application, threads=1)
    with running.connect() as first, running.connect() as second:
        first.send(request("GET", "/first"))
        assert entered.wait(PATIENCE)
        second.send(request("GET", "/ok"))
        go_on.set()
        assert second.read_answer().body == b"ok"
        assert first.read_answer().status == 500
