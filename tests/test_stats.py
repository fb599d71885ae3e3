"""What ``server.stats()`` tells, on a simulated clock and network."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.compat.live import Gate
from tests.fakes import FakeClient, Simulation, get, post
from tests.looping import InThread
from waitress import create_server
from waitress.channel import Phase
from waitress.health import LONGEST_READY_WAIT, Health
from waitress.stats import CONNECTION_STATES, EVICTIONS, TIMEOUTS, Monitor

Simulate = Callable[..., Simulation]


def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
    path = environ["PATH_INFO"]
    if path == "/fail":
        raise ZeroDivisionError
    start_response("200 OK", [])
    if path == "/large":
        return [b"x" * 1000 for _ in range(1000)]
    return [b"hello"]


def knock_and_stall(sim: Simulation, data: bytes) -> FakeClient:
    """Return a client that has sent a request and reads nothing; nothing has gone on yet."""
    client = sim.knock(capacity=1000)
    client.is_reading = False
    client.send(data)
    return client


def stall(sim: Simulation, data: bytes) -> FakeClient:
    """Return a client that reads nothing of what comes."""
    client = knock_and_stall(sim, data)
    sim.settle()
    return client


def test_every_phase_of_a_connection_has_a_name() -> None:
    assert set(CONNECTION_STATES) == {phase.name for phase in Phase}
    assert set(TIMEOUTS) == set(CONNECTION_STATES) - {"OURS"}


def test_the_start_of_a_server_is_the_same_each_time(simulate: Simulate) -> None:
    """A metric that is never quite the same looks to Prometheus like restarts."""
    sim = simulate(app)
    sim.clock.advance(0.1)
    first = sim.server.stats()
    listener = sim.server
    for step in (0.1, 0.7, 1 / 3):
        sim.clock.advance(step)
        stats = listener.stats()
        assert stats.started_at == first.started_at
        assert stats.started_at + stats.uptime == pytest.approx(stats.taken_at)


def test_the_start_of_a_server_stays_when_the_clock_on_the_wall_is_set() -> None:
    server = create_server(app, listen="127.0.0.1:0")
    try:
        before = server.stats().started_at
        server.monitor.wall_clock = lambda: 5.0
        assert server.stats().taken_at == 5.0
        assert server.stats().started_at == before
    finally:
        server.task_dispatcher.shutdown()
        server.close()


def test_a_server_that_has_done_nothing_tells_so(simulate: Simulate) -> None:
    sim = simulate(app, spool_limit=12345)
    sim.clock.advance(7)
    stats = sim.server.stats()
    assert stats.taken_at == sim.clock.now
    assert stats.uptime == 7
    assert stats.connections == dict.fromkeys(CONNECTION_STATES.values(), 0)
    assert stats.connection_limit is None
    assert stats.connections_accepted == stats.queue_depth == stats.buffered_bytes == 0
    assert (stats.spooled_bytes, stats.spool_limit) == (0, 12345)
    assert stats.rejects == {}
    assert stats.timeouts == dict.fromkeys(TIMEOUTS.values(), 0)
    assert stats.evictions == dict.fromkeys(EVICTIONS, 0)
    assert stats.requests.count == 0


def test_a_snapshot_cannot_be_changed(simulate: Simulate) -> None:
    stats = simulate(app).server.stats()
    with pytest.raises(dataclasses.FrozenInstanceError):
        stats.uptime = 0


def test_connections_are_counted_by_what_they_are_doing(simulate: Simulate) -> None:
    sim = simulate(app, connection_limit=50, outbuf_high_watermark=10**9)
    sim.dispatcher.is_held = True
    sim.connect()
    sim.connect(b"GET / HT")
    sim.connect(post("/", b"12345")[:-2])
    sim.connect(get("/"))
    stall(sim, get("/large"))
    sim.connect(b"GET / HTTP/1.1\r\n\r\n")
    sim.dispatcher.queue.rotate(1)
    sim.dispatcher.run_next()
    sim.settle(workers=False)
    stats = sim.server.stats()
    assert stats.connections == {
        "proxy-header": 0,
        "idle": 1,
        "receiving-head": 1,
        "receiving-body": 1,
        "serving": 1,
        "sending": 1,
        "closing": 1,
    }
    assert stats.connection_limit == 50
    assert stats.connections_accepted == 6
    assert stats.queue_depth == 1
    assert stats.buffered_bytes > 900_000
    assert stats.rejects == {"no-host": 1}


def test_connections_that_are_gone_were_accepted_too(simulate: Simulate) -> None:
    sim = simulate(app)
    sim.connect().close()
    sim.settle()
    stats = sim.server.stats()
    assert sum(stats.connections.values()) == 0
    assert stats.connections_accepted == 1


def test_a_worker_that_waits_for_a_client_is_told(simulate: Simulate) -> None:
    def endless(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        while True:
            yield b"x" * 100_000

    sim = simulate(endless, outbuf_overflow=1000, outbuf_high_watermark=50_000, spool_limit=0)
    stall(sim, get("/"))
    stats = sim.server.stats()
    assert stats.workers_waiting == 1
    assert stats.spooled_bytes > 50_000


def test_what_waits_is_told_with_its_age(simulate: Simulate) -> None:
    sim = simulate(app)
    sim.dispatcher.is_held = True
    sim.connect(get("/"))
    sim.clock.advance(3)
    assert sim.server.stats().oldest_queue_wait == 3


def test_a_pipelined_request_waits_from_when_its_turn_comes(simulate: Simulate) -> None:
    sim = simulate(app)
    sim.dispatcher.is_held = True
    sim.connect(get("/") + get("/"))
    sim.clock.advance(100)
    sim.dispatcher.run_next()  # Serves the first, and queues for the second.
    sim.clock.advance(2)
    assert sim.server.stats().oldest_queue_wait == 2


# Ended requests.


def test_requests_are_counted_from_the_first_call_on(simulate: Simulate) -> None:
    sim = simulate(app)
    client = sim.connect(get("/"))
    assert sim.server.stats().requests.count == 0
    sim.ask(client, get("/"))
    requests = sim.server.stats().requests
    assert requests.responses["2xx"] == 1
    assert requests.terminations == {"--": 1}
    assert requests.bytes_in == len(get("/"))
    assert requests.bytes_out > 5
    assert requests.duration.count == requests.queue_wait.count == requests.application.count == 1


def test_failures_and_refusals_are_counted(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    sim = simulate(app)
    sim.server.stats()
    sim.connect(get("/fail"))
    sim.connect(b"GET / HTTP/1.1\r\n\r\n")
    requests = sim.server.stats().requests
    assert requests.responses["5xx"] == requests.responses["4xx"] == 1
    assert requests.queue_wait.count == 1


def test_nobody_listens_before_somebody_asks(simulate: Simulate) -> None:
    sim = simulate(app)
    assert not sim.server.observer.listening
    sim.server.stats()
    assert sim.server.observer.listening


def test_all_ask_one_monitor(simulate: Simulate) -> None:
    server = simulate(app).server
    assert server.monitor is server.monitor
    assert server.monitor.measure() is server.monitor.measure()


# What is counted where it happens.


@pytest.mark.parametrize(
    ("data", "seconds", "state"),
    [
        (b"", 121, "idle"),
        (b"GET / HT", 31, "receiving-head"),
        (b"\r\n\r\n", 31, "receiving-head"),
        (post("/", b"12345")[:-2], 61, "receiving-body"),
        (b"GET / HTTP/1.1\r\n\r\n", 6, "closing"),
    ],
)
def test_timeouts_are_counted_by_what_the_client_was_doing(
    simulate: Simulate, data: bytes, seconds: float, state: str
) -> None:
    sim = simulate(app)
    sim.connect(data)
    sim.advance(seconds)
    timeouts = sim.server.stats().timeouts
    assert timeouts[state] == 1
    assert sum(timeouts.values()) - timeouts["closing"] == (state != "closing")


def test_a_reader_that_stalls_is_late_in_sending(simulate: Simulate) -> None:
    sim = simulate(app)
    stall(sim, get("/large"))
    sim.advance(130)
    assert sim.server.stats().timeouts["sending"] == 1


def test_a_proxy_that_does_not_say_who_the_client_is_is_late(simulate: Simulate) -> None:
    sim = simulate(app, trusted_proxy="*", proxy_protocol=True)
    sim.connect()
    sim.advance(31)
    assert sim.server.stats().timeouts["proxy-header"] == 1


def test_a_client_that_writes_at_the_last_moment_is_not_late(simulate: Simulate) -> None:
    sim = simulate(app)
    client = sim.connect()
    channel = sim.channel
    client.send(get("/"))
    channel.handle_deadline(sim.clock.now)
    assert sim.server.stats().timeouts["idle"] == 0


@pytest.mark.parametrize(
    ("data", "seconds", "kind"),
    [
        (b"", 2, "idle"),
        (b"GET / HT", 10, "head"),
        (b"GET / HTTP/1.1\r\n\r\n", 2, "lingering"),
    ],
)
def test_evictions_are_counted_by_what_had_to_go(
    simulate: Simulate, data: bytes, seconds: float, kind: str
) -> None:
    sim = simulate(app, connection_limit=1)
    sim.connect(data)
    sim.advance(seconds)
    sim.connect()
    assert sim.server.stats().evictions == {**dict.fromkeys(EVICTIONS, 0), kind: 1}


def test_readers_cut_for_the_spool_s_sake_are_counted(simulate: Simulate) -> None:
    def endless(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(1 if environ["PATH_INFO"] == "/once" else 20):
            yield b"x" * 90_000

    sim = simulate(endless, outbuf_overflow=1000, outbuf_high_watermark=50_000, spool_limit=0)
    stall(sim, get("/once"))
    sim.advance(6)
    stall(sim, get("/"))
    sim.advance(6)
    assert sim.server.stats().evictions["spool"] == 1


def test_too_many_that_linger_make_room_for_each_other(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waitress.clients.LINGERING_LIMIT", 2)
    sim = simulate(app)
    for _ in range(3):
        sim.connect(b"GET / HTTP/1.1\r\n\r\n")
    assert sim.server.stats().evictions["lingering"] == 1


# Real threads, several listeners.


def test_workers_are_counted_and_known_by_their_threads(serve: Any) -> None:
    gate = Gate()
    running = serve(gate, threads=3)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(running.connect()).send(get("/"))
            gate.await_entry()
        stats = running.server.stats()
        gate.opened.set()
    assert (stats.workers, stats.workers_busy) == (3, 3)
    dispatcher = running.server.task_dispatcher
    alive = {thread.ident for thread in threading.enumerate()}
    assert set(dispatcher.thread_idents) == {0, 1, 2}
    assert set(dispatcher.thread_idents.values()) <= alive
    dispatcher.set_thread_count(0)
    assert dispatcher.shutdown() is False
    assert dispatcher.thread_idents == {}


def test_a_busy_worker_is_busy_only_as_long_as_it_is(serve: Any) -> None:
    seen = []

    def asks(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        seen.append(running.server.stats())
        start_response("200 OK", [("Content-Length", "0")])
        return []

    running = serve(asks, threads=2)
    while running.server.stats().workers_busy:  # They are about to begin.
        threading.Event().wait(0.005)
    with running.connect() as wire:
        assert wire.get("/").status == 200
    assert seen[0].workers_busy == 1
    assert seen[0].connections["serving"] == 1


def test_several_listeners_tell_together(serve: Any) -> None:
    running = serve(app, listen="127.0.0.1:0 127.0.0.1:0", threads=1)
    server = running.server
    running.call_in_loop(server.stats)
    for _, port in server.effective_listen:
        ask(int(port))
    stats = running.call_in_loop(server.stats)
    while stats.requests.count < 2:  # The clients had theirs a moment before the end.
        stats = running.call_in_loop(server.stats)
    assert stats.requests.responses["2xx"] == stats.connections_accepted == 2


def ask(port: int) -> None:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/")
    connection.getresponse().read()
    connection.close()


def test_a_server_of_several_listeners_that_is_closed_has_nothing_to_tell() -> None:
    server = create_server(app, listen="127.0.0.1:0 127.0.0.1:0")
    server.close()
    with pytest.raises(RuntimeError, match="closed"):
        server.stats()


def test_any_thread_may_ask_first(serve: Any) -> None:
    server = serve(app).server
    askers = [InThread(lambda: server.monitor) for _ in range(8)]
    assert len({id(each.result()) for each in askers}) == 1


# Health.


def health(sim: Simulation) -> Health:
    return Health(Monitor(sim.server))


def test_a_server_at_rest_lives_and_is_ready(simulate: Simulate) -> None:
    checked = health(simulate(app))
    assert checked.failures() == checked.obstacles() == []
    assert checked.livez().status == checked.readyz().status == "200 OK"
    assert checked.readyz().body == b"ok\n"


def test_a_long_wait_for_a_worker_makes_unready_until_it_ends(simulate: Simulate) -> None:
    sim = simulate(app)
    checked = health(sim)
    sim.dispatcher.is_held = True
    sim.connect(get("/"))
    sim.clock.advance(LONGEST_READY_WAIT)
    assert checked.obstacles() == []
    sim.clock.advance(0.5)
    assert checked.readyz().status == "503 Service Unavailable"
    assert checked.readyz().body == b"requests wait for a worker, the first one for 10.5 s\n"
    assert checked.livez().status == "200 OK"
    sim.dispatcher.is_held = False
    sim.settle()
    assert checked.obstacles() == []


def test_a_server_that_is_about_to_stop_is_not_ready(simulate: Simulate) -> None:
    sim = simulate(app)
    type(sim.server).is_draining, before = True, type(sim.server).__dict__.get("is_draining")
    try:
        assert health(sim).readyz().body == b"the server is about to stop\n"
        assert health(sim).livez().status == "200 OK"
    finally:
        del type(sim.server).is_draining
        assert before is None


def test_a_server_without_workers_does_not_live(simulate: Simulate) -> None:
    sim = simulate(app)
    sim.server.is_live = lambda: False
    assert health(sim).livez().status == "503 Service Unavailable"
    assert health(sim).readyz().status == "503 Service Unavailable"
