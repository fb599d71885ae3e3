"""How watching begins and ends: before the start and after it, from any thread."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.compat.live import Running
from tests.fakes import RecordingObserver, Simulation, get
from tests.functional.applications import hello
from tests.watching import KeptEvents, KeptTimelines
from waitress import create_server, wasyncore
from waitress.observer import Observer, Refusal
from waitress.server import MultiSocketServer

Serve = Callable[..., Running]
Simulate = Callable[..., Simulation]


class Refusals(Observer):
    """Hears of refusals, and listens to nothing else."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def refused(self, refusal: Refusal) -> None:
        self.reasons.append(refusal.reason)


def test_one_that_subscribes_before_the_start_hears_all(simulate: Simulate) -> None:
    sim = simulate(hello)
    observer = RecordingObserver()
    sim.server.subscribe(observer)
    sim.connect(get())
    assert observer.names[0] == "channel created"
    assert observer.names[-1] == "finished"


def test_one_that_subscribes_later_hears_of_open_connections(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(get())
    observer = RecordingObserver()
    sim.server.subscribe(observer)
    client.send(get())
    sim.settle()
    assert observer.names[:2] == ["created", "queued"]
    assert len(client.responses()) == 2


def test_several_hear_the_same(simulate: Simulate) -> None:
    sim = simulate(hello)
    first, second = RecordingObserver(), RecordingObserver()
    sim.server.subscribe(first)
    client = sim.connect()
    sim.server.subscribe(second)
    client.send(get())
    sim.settle()
    assert first.events[1:] == second.events
    assert len(second.events) > 5


def test_one_that_has_gone_hears_nothing_and_nobody_listens(simulate: Simulate) -> None:
    sim = simulate(hello)
    observer = RecordingObserver()
    sim.server.subscribe(observer)
    client = sim.connect()
    sim.server.unsubscribe(observer)
    client.send(get())
    sim.settle()
    assert observer.names == ["channel created"]
    assert not sim.channel.observer.listening


def test_refusals_are_counted_whoever_listens(simulate: Simulate) -> None:
    sim = simulate(hello)
    refusals = Refusals()
    sim.server.subscribe(refusals)
    sim.connect(b"bad\r\n\r\n")
    assert refusals.reasons == ["bad-request-line"]
    assert sim.server.rejects.counts.snapshot() == {"bad-request-line": 1}
    assert not sim.server.observer.listening


def test_refusals_by_the_proxy_headers_are_heard_too(simulate: Simulate) -> None:
    sim = simulate(hello, trusted_proxy="127.0.0.1", trusted_proxy_headers="forwarded")
    refusals = Refusals()
    sim.server.subscribe(refusals)
    assert sim.connect(get("/", "Forwarded: nonsense")).response().status == 400
    assert refusals.reasons == ["proxy-header"]
    assert sim.server.rejects.counts.snapshot() == {"proxy-header": 1}


def test_observer_that_fails_harms_no_request(simulate: Simulate, caplog: Any) -> None:
    sim = simulate(hello)
    failing = RecordingObserver()

    def fail(*args: Any) -> None:
        raise LookupError("on purpose")

    for event in ("channel_created", "requests_queued", "request_started", "request_serviced"):
        setattr(failing, event, fail)
    sim.server.subscribe(failing)
    client = sim.connect(get() * 2)
    assert [each.status for each in client.responses()] == [200, 200]
    assert len([each for each in caplog.records if each.exc_info]) == 1


def test_subscribing_from_another_thread_is_done_by_the_loop(serve: Serve) -> None:
    running = serve(hello)
    done_in: list[str] = []

    class Asked(KeptTimelines):
        pass

    kept = Asked()
    events = KeptEvents()
    subscribe = running.server.audience._subscribe

    def noted(observer: Observer) -> None:
        done_in.append(threading.current_thread().name)
        subscribe(observer)

    running.server.audience._subscribe = noted
    with running.connect() as wire:
        assert wire.get().status == 200
        running.server.subscribe_timelines(kept)
        running.server.audience.subscribe_events(events)
        running.call_in_loop(lambda: None)
        assert wire.get().status == 200
        assert kept.await_ends(1)[0].termination == "--"
        events.await_event("request finished")
    assert done_in == ["loop", "loop"]


def test_listeners_of_one_server_share_an_audience(serve: Serve) -> None:
    running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0")
    kept = KeptTimelines()
    running.server.subscribe_timelines(kept)
    observer = RecordingObserver()
    running.server.subscribe(observer)
    running.call_in_loop(lambda: None)
    for _, port in running.server.effective_listen:
        with socket.create_connection(("127.0.0.1", int(port)), 20) as sock:
            sock.sendall(get("/" + port))
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    timelines = kept.await_ends(2)
    assert {each.path[1:] for each in timelines} == {
        port for _, port in running.server.effective_listen
    }
    running.server.unsubscribe(observer)
    running.server.unsubscribe_timelines(kept)


def test_whoever_was_never_told_of_timelines_can_be_taken_off_and_nothing_begins(
    serve: Serve,
) -> None:
    running = serve(hello)
    running.server.unsubscribe_timelines(KeptTimelines())
    running.call_in_loop(lambda: None)
    assert not running.server.observer.listening


def test_listeners_of_one_server_share_the_recorder_of_its_settings(serve: Serve) -> None:
    running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0", timeline_environ=True)
    kept = KeptTimelines()
    running.server.subscribe_timelines(kept)
    running.call_in_loop(lambda: None)
    for _, port in running.server.effective_listen:
        with socket.create_connection(("127.0.0.1", int(port)), 20) as sock:
            sock.sendall(get())
            assert sock.recv(1000).startswith(b"HTTP/1.1 200")
    assert len(kept.await_ends(2)) == 2


def test_error_that_is_answered_instead_has_the_number_of_the_request(simulate: Simulate) -> None:
    numbers: list[int] = []

    class Heads(Observer):
        listening = True

        def head_written(self, request: Any, status: str, head: bytes) -> None:
            assert head.startswith(b"HTTP/1.1 500 ")
            numbers.append(request.request_id)

    def failing(environ: dict[str, Any], start_response: Any) -> Any:
        raise LookupError

    sim = simulate(failing)
    observer = RecordingObserver()
    sim.server.subscribe(Heads())
    sim.server.subscribe(observer)
    sim.connect(get())
    assert numbers == [number for name, number in observer.events if name == "created"]


def test_several_addresses_put_together_by_hand_have_no_audience() -> None:
    server = MultiSocketServer()
    with pytest.raises(RuntimeError, match="subscribe to the servers"):
        server.subscribe(RecordingObserver())


def test_several_addresses_put_together_by_hand_run_all_the_same(no_leaks: None) -> None:
    single = create_server(hello, listen="127.0.0.1:0")
    server = MultiSocketServer(single._map, single.adj, [], single.task_dispatcher)
    single.trigger.pull_trigger(lambda: wasyncore.close_all(single._map))
    server.run()
    single.task_dispatcher.shutdown()


def test_nothing_that_watches_is_imported_until_somebody_does(simulate: Simulate) -> None:
    sim = simulate(hello)
    assert sim.server.observer is sim.server.rejects
    sim.server.log_events()
    assert sim.server.observer is not sim.server.rejects
