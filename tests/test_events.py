"""T7: the life of requests, told as event objects and as lines, in the order of the design."""

from __future__ import annotations

import dataclasses
import logging
import socket
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running, request
from tests.fakes import Simulation, get, post
from tests.functional.applications import hello
from tests.watching import KeptEvents, KeptTimelines
from waitress.events import (
    ApplicationFinished,
    ApplicationStarted,
    ChannelClosed,
    ChannelCreated,
    ChannelRequestsQueued,
    Event,
    EventTeller,
    RequestCancelled,
    RequestCreated,
    RequestFinished,
    RequestServiced,
    RequestStarted,
)
from waitress.observer import Observer

Serve = Callable[..., Running]
Simulate = Callable[..., Simulation]

GET = request("GET", "/")
OF_THE_APPLICATION = ("application started", "application finished")
TOLD_BY_THE_LOOP_MEANWHILE = "request finished"


def short(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Promise more than there is."""
    start_response("200 OK", [("Content-Length", "5")])
    return [b"abc"]


def served(number: int) -> list[str]:
    return [
        f"request started {number}",
        f"application started {number}",
        f"application finished {number}",
        f"request serviced {number}",
    ]


class TestOnRealSockets:
    """The three sequences of the design."""

    def test_two_requests_in_one_segment(self, serve: Serve):
        kept = KeptEvents()
        with serve(hello, on_event=kept).connect() as wire:
            wire.send(GET * 2)
            assert [wire.read_answer().status for _ in range(2)] == [200, 200]
            kept.await_event("request finished", 2)
        kept.await_event("channel closed")

        assert kept.told(TOLD_BY_THE_LOOP_MEANWHILE) == [
            "channel created",
            "request created 1",
            "request created 2",
            "channel requests queued 1,2",
            *served(1),
            *served(2),
            "channel closed",
        ]
        told = kept.told()
        assert told.index("request serviced 1") < told.index("request finished 1")
        assert told.index("request serviced 2") < told.index("request finished 2")
        assert told.index("request finished 1") < told.index("request finished 2")

    def test_one_that_fails_so_that_the_next_cannot_proceed(self, serve: Serve):
        kept = KeptEvents()
        with serve(short, on_event=kept).connect() as wire:
            wire.send(GET * 2)
            wire.read_to_end()
        kept.await_event("channel closed")

        assert kept.told(TOLD_BY_THE_LOOP_MEANWHILE, *OF_THE_APPLICATION) == [
            "channel created",
            "request created 1",
            "request created 2",
            "channel requests queued 1,2",
            "request started 1",
            "request serviced 1",
            "request cancelled 2",
            "channel closed",
        ]

    def test_two_pairs_between_which_the_client_waits(self, serve: Serve):
        kept = KeptEvents()
        with serve(hello, on_event=kept).connect() as wire:
            for pair in (1, 2):
                wire.send(GET * 2)
                assert [wire.read_answer().status for _ in range(2)] == [200, 200]
                kept.await_event("request finished", 2 * pair)
        kept.await_event("channel closed")

        assert kept.told(TOLD_BY_THE_LOOP_MEANWHILE, *OF_THE_APPLICATION) == [
            "channel created",
            "request created 1",
            "request created 2",
            "channel requests queued 1,2",
            "request started 1",
            "request serviced 1",
            "request started 2",
            "request serviced 2",
            "request created 3",
            "request created 4",
            "channel requests queued 3,4",
            "request started 3",
            "request serviced 3",
            "request started 4",
            "request serviced 4",
            "channel closed",
        ]
        assert len({event.channel_id for event in kept.events}) == 1

    def test_times_never_go_back_and_finishing_waits_for_the_kernel(self, serve: Serve):
        """The first response fills the client's and the kernel's buffers."""

        def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Length", str(20_000_000))])
            return [b"x" * 20_000_000]

        kept = KeptEvents()
        running = serve(large, on_event=kept, outbuf_overflow=50_000_000)
        with running.connect() as wire:
            wire.send(GET)
            kept.await_event("request serviced")
            assert "request finished 1" not in kept.told()
            received = 0
            while received < 20_000_000:
                received += len(wire.sock.recv(1 << 20))
            kept.await_event("request finished")
        kept.await_event("channel closed")
        times = [event.time for event in kept.events]
        assert times == sorted(times)


class TestOrder:
    def test_being_queued_is_told_before_a_worker_can_start(self, simulate: Simulate):
        """A worker that is done with the one before comes to the next by itself."""
        kept = KeptEvents()
        sim = simulate(hello, on_event=kept, channel_request_lookahead=5)
        sim.dispatcher.is_held = True
        client = sim.connect(get())
        client.send(get() * 2)
        queue = sim.channel.request_queue
        claim, seen = queue.claim, []

        def claimed(may_serve: bool, arrived: Sequence[Any] = ()) -> Any:
            if arrived:
                seen.append(kept.told()[-1])
            return claim(may_serve, arrived)

        queue.claim = claimed
        sim.settle()
        assert seen == ["channel requests queued 2,3"]
        sim.dispatcher.is_held = False
        sim.settle()
        assert len(client.responses()) == 3

    def test_response_of_which_nothing_was_sent_is_never_finished(self, simulate: Simulate):
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            sim.dispatcher.pause("before")
            return hello(environ, start_response)

        kept = KeptEvents()
        sim = simulate(application, on_event=kept, channel_request_lookahead=1)
        client = sim.connect(get())
        client.shutdown()
        sim.settle()
        sim.dispatcher.resume("before")
        sim.settle()
        assert kept.told()[-2:] == ["request serviced 1", "channel closed"]

    def test_refused_head_is_queued_without_having_been_created(self, simulate: Simulate):
        kept = KeptEvents()
        sim = simulate(hello, on_event=kept)
        sim.connect(b"GET / HTTP/1.1\nHost: a\n\n")
        assert kept.told() == [
            "channel created",
            "channel requests queued 1",
            "request started 1",
            "request serviced 1",
            "request finished 1",
        ]

    def test_request_that_times_out_is_queued_to_be_answered(self, simulate: Simulate):
        kept = KeptEvents()
        sim = simulate(hello, on_event=kept)
        sim.connect(b"GET / HT")
        sim.advance(31)
        assert kept.told()[1:4] == [
            "channel requests queued 1",
            "request started 1",
            "request serviced 1",
        ]

    def test_request_that_comes_too_late_is_cancelled(self, simulate: Simulate):
        """The response before it has ended the connection just now."""
        kept = KeptEvents()
        sim = simulate(hello, on_event=kept)
        client = sim.connect()
        channel = sim.channel
        claim = channel.request_queue.claim

        def ended(may_serve: bool, arrived: Sequence[Any] = ()) -> Any:
            channel.request_queue.close()
            return claim(may_serve, arrived)

        channel.request_queue.claim = ended
        client.send(get())
        sim.settle()
        assert kept.told()[:4] == [
            "channel created",
            "request created 1",
            "channel requests queued 1",
            "request cancelled 1",
        ]

    def test_one_that_times_out_too_late_is_cancelled(self, simulate: Simulate):
        kept = KeptEvents()
        sim = simulate(hello, on_event=kept)
        sim.connect(b"GET / HT")
        sim.channel.request_queue.close()
        sim.advance(31)
        assert "request cancelled 1" in kept.told()


class TestObjects:
    def test_tell_what_happened(self, simulate: Simulate):
        kept = KeptEvents()
        sim = simulate(hello, on_event=kept)
        client = sim.connect()
        sim.advance(2)
        client.send(get("/a?secret=1"))
        sim.settle()
        created, request_created, queued, started, app, done, serviced, finished = kept.events
        channel, number = created.channel_id, request_created.request_id
        assert created == ChannelCreated(1000.0, channel, created.peer)
        assert created.peer[0] == "127.0.0.1"
        assert request_created == RequestCreated(1002.0, channel, number, "GET", "/a")
        assert queued == ChannelRequestsQueued(1002.0, channel, (number,))
        assert [started, app, done, serviced, finished] == [
            RequestStarted(1002.0, channel, number),
            ApplicationStarted(1002.0, channel, number),
            ApplicationFinished(1002.0, channel, number),
            RequestServiced(1002.0, channel, number),
            RequestFinished(1002.0, channel, number),
        ]
        client.close()
        sim.settle()
        assert kept.events[-1] == ChannelClosed(1002.0, channel)

    def test_of_different_kinds_differ(self):
        assert RequestStarted(1.0, 2, 3) != RequestServiced(1.0, 2, 3)

    @pytest.mark.parametrize("field", ["time", "anything"])
    def test_cannot_be_changed(self, field: str):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(RequestFinished(1.0, 2, 3), field, 4.0)

    @pytest.mark.parametrize(
        ("event", "line"),
        [
            (ChannelCreated(1.5, 1, None), "channel created: channel 1 at time 1.500000"),
            (
                RequestCreated(1.5, 1, 2, "GET", "/"),
                "request created: channel 1, request id 2 at time 1.500000",
            ),
            (
                ChannelRequestsQueued(1.5, 1, (1, 2)),
                "channel requests queued: channel 1, request ids 1,2 at time 1.500000",
            ),
            (RequestStarted(1.5, 1, 2), "request started: request id 2 at time 1.500000"),
            (ApplicationStarted(1.5, 1, 2), "application started: request id 2 at time 1.500000"),
            (ApplicationFinished(1.5, 1, 2), "application finished: request id 2 at time 1.500000"),
            (RequestServiced(1.5, 1, 2), "request serviced: request id 2 at time 1.500000"),
            (RequestFinished(1.5, 1, 2), "request finished: request id 2 at time 1.500000"),
            (RequestCancelled(1.5, 1, 2), "request cancelled: request id 2 at time 1.500000"),
            (ChannelClosed(1.5, 1), "channel closed: channel 1 at time 1.500000"),
        ],
    )
    def test_have_the_line_of_the_log(self, event: Event, line: str):
        assert str(event) == line

    def test_are_told_of_requests_whose_beginning_nobody_heard(self, simulate: Simulate):
        sim = simulate(hello)
        sim.dispatcher.is_held = True
        sim.connect(get())
        kept = KeptEvents()
        sim.server.audience.subscribe_events(kept)
        sim.dispatcher.is_held = False
        sim.settle()
        assert kept.told()[0] == "request started 1"
        assert kept.events[0].channel_id == 0

    def test_come_from_a_teller_that_names_whom_it_tells(self):
        assert repr(EventTeller(print, float)) == f"<EventTeller of {print!r}>"


class TestTheLogger:
    def test_writes_a_line_for_each_event(self, simulate: Simulate, caplog: Any):
        caplog.set_level(logging.DEBUG, "waitress.events")
        sim = simulate(short)
        sim.server.audience.log_events_if_wanted()
        sim.server.audience.log_events_if_wanted()
        sim.connect(get() * 2).close()
        sim.settle()
        records = [record for record in caplog.records if record.name == "waitress.events"]
        assert {record.levelno for record in records} == {logging.DEBUG}
        lines = [record.getMessage() for record in records]
        channel = lines[0].split("channel ")[2].split()[0]
        first = int(lines[1].split("request id ")[1].split()[0])
        assert lines == [
            f"{line} at time 1000.000000"
            for line in (
                f"channel created: channel {channel}",
                f"request created: channel {channel}, request id {first}",
                f"request created: channel {channel}, request id {first + 1}",
                f"channel requests queued: channel {channel}, request ids {first},{first + 1}",
                f"request started: request id {first}",
                f"application started: request id {first}",
                f"application finished: request id {first}",
                f"request serviced: request id {first}",
                f"request cancelled: request id {first + 1}",
                f"request finished: request id {first}",
                f"channel closed: channel {channel}",
            )
        ]

    def test_is_asked_when_the_server_starts(self, serve: Serve, caplog: Any):
        caplog.set_level(logging.DEBUG, "waitress.events")
        running = serve(hello)
        with running.connect() as wire:
            assert wire.get().status == 200
        assert any("request created" in record.getMessage() for record in caplog.records)

    def test_is_asked_when_a_server_of_several_sockets_starts(self, serve: Serve, caplog: Any):
        caplog.set_level(logging.DEBUG, "waitress.events")
        running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0")
        with running.connect() as wire:
            assert wire.get().status == 200
        assert any("request created" in record.getMessage() for record in caplog.records)

    def test_is_left_alone_where_it_shows_nothing(self, serve: Serve, caplog: Any):
        caplog.set_level(logging.INFO, "waitress.events")
        running = serve(hello)
        with running.connect() as wire:
            assert wire.get().status == 200
        assert running.server.observer is running.server.rejects

    def test_can_be_asked_for_later(self, serve: Serve, caplog: Any):
        running = serve(hello)
        with running.connect() as wire:
            assert wire.get().status == 200
            caplog.set_level(logging.DEBUG, "waitress.events")
            running.server.log_events()
            running.server.log_events()
            running.call_in_loop(lambda: None)  # It was done before this.
            assert wire.get().status == 200
        created = [each for each in caplog.records if "request created" in each.getMessage()]
        assert len(created) == 1


class TestOnEvent:
    def test_may_raise_without_harm_and_is_told_of_once(self, serve: Serve, caplog: Any):
        def failing(event: Event) -> None:
            raise LookupError(f"at {event.name}")

        running = serve(hello, on_event=failing)
        with running.connect() as wire:
            assert [wire.get().status for _ in range(3)] == [200] * 3
        records = [each for each in caplog.records if each.exc_info]
        assert [record.name for record in records] == ["waitress"]
        assert "LookupError: at channel created" in caplog.text

    def test_is_called_where_it_happens(self, serve: Serve):
        threads: dict[str, str] = {}
        kept = KeptEvents()

        def on_event(event: Event) -> None:
            threads[event.name] = threading.current_thread().name
            kept(event)

        gate = Gate()
        running = serve(gate, on_event=on_event)
        with running.connect() as wire:
            wire.send(GET)
            gate.await_entry()
            gate.opened.set()
            assert wire.read_answer().status == 200
            kept.await_event("request finished")
        assert threads["request created"] == "loop"
        assert threads["request started"].startswith("waitress-")
        assert threads["request serviced"].startswith("waitress-")

    def test_hears_of_every_listener_of_a_server(self, serve: Serve):
        kept = KeptEvents()
        running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0", on_event=kept)
        for _, port in running.server.effective_listen:
            with socket.create_connection(("127.0.0.1", int(port)), 20) as sock:
                sock.sendall(GET)
                assert sock.recv(100).startswith(b"HTTP/1.1 200")
        kept.await_event("channel closed", 2)
        assert len(kept.told()) == 2 * 9

    @pytest.mark.parametrize("value", ["module:function", 5])
    def test_is_no_text(self, value: Any, simulate: Simulate):
        with pytest.raises(ValueError, match=r"not callable .*on_event"):
            simulate(hello, on_event=value)


def test_nobody_is_told_by_default(simulate: Simulate) -> None:
    """No observer stands in the way, and a body is no reason for one either."""
    sim = simulate(hello)
    client = sim.connect(post("/", b"abc"))
    assert client.response().status == 200
    assert sim.server.observer is sim.server.rejects
    assert sim.channel.observer is sim.server.rejects
    assert not Observer.listening


@pytest.mark.parametrize(
    ("target", "path"),
    [("/a%3Fb?c", "/a%3Fb"), ("http://a/b?c", "/b"), ("http://u:secret@a/b", "http://a/b")],
)
def test_a_request_is_called_by_its_target_as_it_was_sent(
    simulate: Simulate, target: str, path: str
) -> None:
    events = KeptEvents()
    sim = simulate(hello, on_event=events)
    sim.connect(f"GET {target} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    assert [each.path for each in events.events if isinstance(each, RequestCreated)] == [path]


@pytest.mark.parametrize(
    "kind", [ChannelCreated, RequestCreated, RequestStarted, RequestServiced, ChannelClosed]
)
def test_sys_exit_of_a_listener_ends_neither_loop_nor_worker_nor_request(
    kind: type[Event], serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    """Of the loop's events and of the worker's."""
    raised = threading.Condition()
    count = 0

    def leave(event: Event) -> None:
        nonlocal count
        if isinstance(event, kind):
            with raised:
                count += 1
                raised.notify_all()
            sys.exit(3)

    running = serve(hello, threads=1, on_event=leave)
    for _ in range(3):
        with running.connect() as wire:
            wire.send(GET)
            assert wire.read_answer().status == 200
    with raised:
        assert raised.wait_for(lambda: count >= 3, PATIENCE)
    assert running.thread.is_alive()
    (record,) = [each for each in caplog.records if each.exc_info]
    assert record.exc_info is not None
    assert record.exc_info[0] is SystemExit
    assert "further failures are not logged" in record.getMessage()


def test_sys_exit_of_a_listener_of_timelines_does_not_end_the_loop(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    class Leaving:
        @staticmethod
        def timeline_ended(timeline: Any) -> None:
            sys.exit(3)

    kept = KeptTimelines()
    running = serve(hello)
    running.server.subscribe_timelines(Leaving)
    running.server.subscribe_timelines(kept)
    for _ in range(2):
        with running.connect() as wire:
            wire.send(GET)
            assert wire.read_answer().status == 200
    assert len(kept.await_ends(2)) == 2
    assert len([each for each in caplog.records if each.exc_info]) == 1
