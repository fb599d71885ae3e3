"""The end of a server, step by step: what is answered, what is closed, what is cut, and when."""

from __future__ import annotations

import logging
import os
import re
import select
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from math import inf
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import Gate, Running, Wire
from tests.fakes import FakeClient, Simulation, get, post
from tests.functional.applications import hello, large, path
from tests.looping import await_event, needs_stacks
from waitress import create_server, wasyncore
from waitress.channel import ChannelState, HTTPChannel
from waitress.server import MultiSocketServer, TcpWSGIServer
from waitress.shutdown import (
    CUT_STATUS,
    INTERRUPT_SECONDS,
    LAST_MOMENT_SECONDS,
    NEWCOMER_SECONDS,
    Phase,
    Shutdown,
    Stopped,
)
from waitress.task import ThreadedTaskDispatcher

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]

LOGGER = "waitress.shutdown"


class Pausing:
    """An application that stops at the point of its path's name."""

    simulation: Simulation

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        name = environ["PATH_INFO"]
        if name != "/":
            self.simulation.dispatcher.pause(name)
        return path(environ, start_response)


@pytest.fixture
def pausing(simulate: Simulate) -> Callable[..., Simulation]:
    def start(**settings: Any) -> Simulation:
        application = Pausing()
        application.simulation = sim = simulate(application, **settings)
        return sim

    return start


def phase(sim: Simulation) -> Phase:
    found: Phase = sim.server.lifecycle.phase
    return found


def let_pass(sim: Simulation, seconds: float) -> None:
    """Let time pass; when the server has ended, nobody waits any more."""
    end = sim.clock.now + seconds
    while sim.server._map and sim.clock.now < end:
        sim.turn(end - sim.clock.now)
        sim.network.let_clients_read()
        sim.dispatcher.run()
    sim.settle()


def close_all_channels(server: Any) -> None:
    for channel in list(server.active_channels.values()):
        channel.close()


def used(sim: Simulation) -> Any:
    """Return a client that has been answered, and stays."""
    client = sim.connect(get())
    assert client.response().status == 200
    client.data.clear()
    return client


# -- in order --------------------------------------------------------------------------


def test_nothing_in_flight_ends_at_once(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.shutdown()
    sim.settle()
    assert phase(sim) is Phase.DONE
    assert not sim.server._map
    assert sim.server.exit_status == 0


def test_idle_connections_are_closed_in_order(simulate: Simulate) -> None:
    sim = simulate(path)
    client = used(sim)
    sim.server.shutdown()
    sim.settle()
    assert client.ended
    assert not client.was_reset
    assert phase(sim) is Phase.DONE


def test_request_in_flight_is_answered_and_asks_the_client_to_leave(
    pausing: Callable[..., Simulation],
) -> None:
    sim = pausing()
    client = sim.connect(get("/slow"))
    sim.server.shutdown()
    sim.settle()
    assert phase(sim) is Phase.DRAINING
    sim.dispatcher.resume("/slow")
    sim.settle()
    assert client.response().body == b"/slow"
    assert client.response().headers["connection"] == "close"
    client.close()
    sim.settle()
    assert phase(sim) is Phase.DONE
    assert sim.server.exit_status == 0


def test_what_was_sent_ahead_is_answered_too(pausing: Callable[..., Simulation]) -> None:
    sim = pausing()
    client = sim.connect(get("/slow") + get("/second") + get("/third"))
    sim.server.shutdown()
    sim.settle()
    for name in ("/slow", "/second", "/third"):
        sim.dispatcher.resume(name)
        sim.settle()
    answers = client.responses("GET", "GET", "GET")
    assert [each.body for each in answers] == [b"/slow", b"/second", b"/third"]
    assert ["connection" in each.headers for each in answers] == [False, False, True]


def test_body_that_is_being_received_is_awaited(simulate: Simulate) -> None:
    sim = simulate(path)
    whole = post("/upload", b"x" * 10)
    client = sim.connect(whole[:-5])
    sim.server.shutdown()
    let_pass(sim, 3)
    assert phase(sim) is Phase.DRAINING
    client.send(whole[-5:])
    sim.settle()
    assert client.response("POST").body == b"/upload" + b"x" * 10
    assert client.response("POST").headers["connection"] == "close"


def test_request_sent_ahead_in_part_is_awaited(pausing: Callable[..., Simulation]) -> None:
    sim = pausing(channel_request_lookahead=1)
    following = post("/second", b"x" * 10)
    client = sim.connect(get("/slow") + following[:-5])
    sim.server.shutdown()
    sim.settle()
    sim.dispatcher.resume("/slow")
    sim.settle()
    client.send(following[-5:])
    sim.settle()
    sim.dispatcher.resume("/second")
    sim.settle()
    assert [each.body[:7] for each in client.responses("GET", "POST")] == [b"/slow", b"/second"]


def test_connection_whose_answer_promised_to_go_on_is_closed_when_it_rests(
    simulate: Simulate,
) -> None:
    """Its head was made before the order; the client is slow to read what follows."""
    sim = simulate(large(5000))
    client = sim.connect(capacity=1000)
    client.is_reading = False
    client.send(get())
    sim.settle()
    sim.server.shutdown()
    let_pass(sim, 2)
    assert phase(sim) is Phase.DRAINING
    client.is_reading = True
    sim.settle()
    assert "connection" not in client.response().headers
    assert len(client.response().body) == 5000
    assert client.ended
    assert phase(sim) is Phase.DONE


def test_connection_whose_answer_has_left_already_is_closed_when_its_service_ends(
    simulate: Simulate,
) -> None:
    def lingering(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        yield b"hello"
        sim.dispatcher.pause("sent")

    sim = simulate(lingering)
    client = sim.connect(get())
    assert client.response().body == b"hello"
    sim.server.shutdown()
    let_pass(sim, 2)
    assert client.is_open
    sim.dispatcher.resume("sent")
    sim.settle()
    assert client.ended
    assert phase(sim) is Phase.DONE


def ask_before_accepted(sim: Simulation, count: int) -> list[FakeClient]:
    """Have clients in the backlog, each with a request already sent."""
    waiting = [sim.knock() for _ in range(count)]
    for client in waiting:
        client.send(get("/waited"))
    return waiting


def test_backlog_is_served(simulate: Simulate) -> None:
    sim = simulate(path)
    waiting = ask_before_accepted(sim, 5)
    sim.server.shutdown()
    sim.settle()
    assert [client.response().body for client in waiting] == [b"/waited"] * 5


def test_backlog_is_served_beyond_the_connection_limit(simulate: Simulate) -> None:
    sim = simulate(path, connection_limit=2)
    waiting = ask_before_accepted(sim, 5)
    sim.server.lifecycle.order()
    sim.server.lifecycle.handle_ready()
    sim.settle()
    assert [client.response().body for client in waiting] == [b"/waited"] * 5


def test_newcomers_without_end_do_not_keep_the_server_from_ending(simulate: Simulate) -> None:
    """No more are accepted than can have waited."""
    sim = simulate(path, backlog=1)
    waiting = ask_before_accepted(sim, 4)
    sim.server.lifecycle.order()
    sim.server.lifecycle.handle_ready()
    sim.settle()
    assert [bool(client.data) for client in waiting] == [True, True, False, False]
    for client in waiting:
        client.close()
    sim.settle()
    assert phase(sim) is Phase.DONE


def test_newcomer_has_a_moment_for_its_request(simulate: Simulate) -> None:
    sim = simulate(path)
    quick, silent = sim.connect(), sim.connect()
    sim.server.shutdown()
    let_pass(sim, NEWCOMER_SECONDS / 2)
    assert silent.is_open
    assert sim.ask(quick, get("/first")).body == b"/first"
    assert silent.is_open
    let_pass(sim, NEWCOMER_SECONDS / 2 + 0.25)
    assert silent.ended


def test_old_connection_without_a_request_is_no_newcomer(simulate: Simulate) -> None:
    sim = simulate(path)
    client = sim.connect()
    let_pass(sim, NEWCOMER_SECONDS)
    sim.server.shutdown()
    sim.settle()
    assert client.ended


def test_proxy_that_has_told_nothing_is_closed(simulate: Simulate) -> None:
    sim = simulate(path, proxy_protocol=True, trusted_proxy="127.0.0.1")
    client = sim.connect()
    sim.server.shutdown()
    sim.settle()
    assert client.is_open
    let_pass(sim, NEWCOMER_SECONDS + 0.25)
    assert client.ended
    assert phase(sim) is Phase.DONE


def test_request_that_comes_with_the_last_look_is_answered(simulate: Simulate) -> None:
    sim = simulate(path)
    client = used(sim)
    sim.server.shutdown()
    client.send(get("/late"))
    sim.server.lifecycle.handle_ready()
    sim.settle()
    assert client.response().body == b"/late"


# -- the delay -------------------------------------------------------------------------


def test_connections_are_served_during_the_delay_and_asked_to_leave(simulate: Simulate) -> None:
    sim = simulate(path, drain_delay=5)
    idle, busy = used(sim), used(sim)
    sim.server.shutdown()
    sim.settle()
    assert sim.server.is_draining
    assert phase(sim) is Phase.DRAIN_DELAY
    answer = sim.ask(busy, get("/still"))
    assert (answer.body, answer.headers["connection"]) == (b"/still", "close")
    assert busy.ended
    newcomer = sim.connect(get("/new"))
    assert newcomer.response().headers["connection"] == "close"
    let_pass(sim, 4.5)
    assert idle.is_open
    let_pass(sim, 1)
    assert idle.ended
    busy.close()
    newcomer.close()
    sim.settle()
    assert phase(sim) is Phase.DONE


def test_delay_ends_with_the_time_for_all(simulate: Simulate) -> None:
    sim = simulate(path, drain_delay=60, graceful_timeout=100)
    client = used(sim)
    sim.server.shutdown(3)
    let_pass(sim, 3.25)
    assert client.ended
    assert phase(sim) is Phase.DONE


def test_later_order_can_end_the_delay(simulate: Simulate) -> None:
    sim = simulate(path, drain_delay=10)
    client = used(sim)
    sim.server.shutdown()
    sim.settle()
    assert client.is_open
    sim.server.lifecycle.order(5, 0)
    sim.settle()
    assert client.ended


# -- the end of patience ---------------------------------------------------------------


@needs_stacks
@pytest.mark.parametrize("idle_seconds", [120, 8])
def test_what_takes_too_long_is_cut_and_named(
    idle_seconds: int, pausing: Callable[..., Simulation], caplog: pytest.LogCaptureFixture
) -> None:
    sim = pausing(graceful_timeout=10, channel_timeout=idle_seconds)
    client = sim.connect()
    let_pass(sim, 7)
    client.send(get("/slow?secret=1"))
    sim.settle()
    sim.server.shutdown()
    let_pass(sim, 9.5)
    assert client.is_open
    let_pass(sim, 0.75)
    assert (client.ended, bytes(client.data)) == (True, b"")
    assert sim.server.exit_status == CUT_STATUS
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    text = record.getMessage()
    assert text.startswith('cut by the shutdown: "GET /slow HTTP/1.1" (request ')
    assert "secret" not in text
    first = text.splitlines()[0]
    (seconds,) = re.findall(r"([0-9.]+) s old, in service by$", first)
    assert 10 <= float(seconds) < 10.5
    assert ", from 127.0.0.1:" in first
    assert "in __call__" in text
    assert "serve_next" not in text


@pytest.mark.parametrize(
    ("address", "text"),
    [(("2001:db8::1", 4711, 0, 0), "[2001:db8::1]:4711"), (("localhost", None), "localhost")],
)
def test_peer_of_what_is_cut_is_named_by_host_and_port(
    pausing: Callable[..., Simulation], caplog: pytest.LogCaptureFixture, address: Any, text: str
) -> None:
    sim = pausing(graceful_timeout=10)
    sim.connect(get("/slow"))
    sim.channel.addr = address
    sim.server.shutdown(1)
    let_pass(sim, 1.25)
    (record,) = [each for each in caplog.records if each.levelno == logging.WARNING]
    assert f", from {text}, " in record.getMessage()


def test_setting_is_overridden_by_the_order(pausing: Callable[..., Simulation]) -> None:
    sim = pausing(graceful_timeout=100)
    client = sim.connect(get("/slow"))
    sim.server.shutdown(2)
    let_pass(sim, 2.25)
    assert client.ended


def test_later_order_brings_the_end_forward_but_never_puts_it_off(
    pausing: Callable[..., Simulation],
) -> None:
    sim = pausing()
    client = sim.connect(get("/slow"))
    sim.server.shutdown(5)
    sim.server.shutdown(100)
    let_pass(sim, 5.25)
    assert client.ended
    assert phase(sim) is Phase.DONE


def test_order_for_no_time_cuts_at_once(
    pausing: Callable[..., Simulation], caplog: pytest.LogCaptureFixture
) -> None:
    sim = pausing(drain_delay=10)
    client = sim.connect(get("/slow"))
    sim.server.shutdown()
    sim.settle()
    sim.server.shutdown(0)
    sim.settle()
    assert client.ended
    assert "GET /slow" in caplog.text


def test_half_received_body_is_cut_and_named(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    client = sim.connect(post("/upload", b"x" * 10)[:-5])
    sim.server.shutdown(1)
    let_pass(sim, 1.25)
    assert client.ended
    assert '"POST /upload HTTP/1.1"' in caplog.text
    assert "in service" not in caplog.text
    assert sim.server.exit_status == CUT_STATUS


def test_half_received_head_is_no_request(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    client = sim.connect(b"GET / HT")
    sim.server.shutdown(1)
    sim.settle()
    assert client.is_open
    let_pass(sim, 1.25)
    assert client.ended
    assert "cut by" not in caplog.text
    assert sim.server.exit_status == 0


def test_unsent_end_of_a_response_is_cut_and_named(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(large(5000))
    client = sim.connect(capacity=1000)
    client.is_reading = False
    client.send(get())
    sim.settle()
    unsent = sim.channel.total_outbufs_len
    sim.server.shutdown(1)
    let_pass(sim, 1.25)
    assert f"the last {unsent} bytes of a response, from 127.0.0.1" in caplog.text
    client.read()
    assert client.was_reset
    assert sim.server.exit_status == CUT_STATUS


def test_what_the_log_tells(simulate: Simulate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    sim = simulate(path)
    used(sim)
    sim.connect(get("/"))
    sim.dispatcher.is_held = True
    sim.connect(get("/"))
    sender = sim.connect(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    sim.server.lifecycle.order(20, reason="SIGTERM")
    sim.settle()
    sim.server.lifecycle.order(10, reason="SIGTERM, again")
    sim.settle()
    sim.dispatcher.is_held = False
    sender.send(b"whole")
    let_pass(sim, 6)
    assert [each.getMessage() for each in caplog.records if each.name == LOGGER] == [
        "shutdown (SIGTERM): 4 connection(s) open, 2 request(s) unfinished, at most 20 s",
        "shutdown (SIGTERM, again): 10 s left",
        "shutdown: done",
    ]


def test_connection_that_lingers_is_waited_for_and_not_named(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    client = sim.connect(b"nonsense\r\n\r\n")
    assert sim.channel.state is ChannelState.LINGERING
    sim.server.shutdown(2)
    let_pass(sim, 1)
    assert phase(sim) is Phase.DRAINING
    client.close()
    sim.settle()
    assert phase(sim) is Phase.DONE
    assert "cut by" not in caplog.text


# -- what goes wrong on the way --------------------------------------------------------


def test_listener_that_cannot_be_closed_does_not_stop_the_end(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)

    def raises() -> None:
        raise ZeroDivisionError

    sim.server.stop_accepting = raises
    sim.server.lifecycle.order()
    sim.settle()
    assert phase(sim) is Phase.DONE
    assert "Exception while closing a listener" in caplog.text
    assert not sim.server._map


class Looks:
    """Takes the place of ``stop_accepting``: as if somebody waited for so many looks."""

    def __init__(self, sim: Simulation, still: float) -> None:
        self.sim, self.still = sim, still
        self.stop_accepting = sim.server.stop_accepting
        self.at: list[float] = []

    def __call__(self) -> bool:
        self.at.append(self.sim.clock.now)
        return len(self.at) > self.still and self.stop_accepting()


def test_those_who_cannot_be_accepted_yet_are_looked_after_once_a_second(
    pausing: Callable[..., Simulation],
) -> None:
    sim = pausing()
    client = sim.connect(get("/slow"))
    sim.settle()
    begun = sim.clock.now
    looks = sim.server.stop_accepting = Looks(sim, 3)
    sim.server.shutdown()
    sim.settle()
    let_pass(sim, 10)
    assert [round(at - begun) for at in looks.at] == [0, 1, 2, 3]
    assert phase(sim) is Phase.DRAINING
    sim.dispatcher.resume("/slow")
    sim.settle()
    assert client.response().status == 200
    client.close()
    sim.settle()
    assert phase(sim) is Phase.DONE
    assert sim.server.exit_status == 0


def test_they_are_looked_after_when_the_last_connection_ends(simulate: Simulate) -> None:
    sim = simulate(path)
    client = used(sim)
    looks = sim.server.stop_accepting = Looks(sim, 1)
    sim.server.shutdown()
    sim.settle()
    assert client.ended
    assert looks.at == [looks.at[0]] * 2
    assert phase(sim) is Phase.DONE


def test_they_are_cut_and_told_of_when_the_time_is_over(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(path, graceful_timeout=3)
    begun = sim.clock.now
    sim.server.stop_accepting = Looks(sim, inf)
    sim.server.shutdown()
    let_pass(sim, 2.5)
    assert phase(sim) is Phase.DRAINING
    let_pass(sim, 2)
    assert phase(sim) is Phase.DONE
    assert sim.clock.now - begun < 5
    assert sim.server.exit_status == CUT_STATUS
    (line,) = [each for each in caplog.messages if each.startswith("cut by")]
    address = f"{sim.server.effective_host}:{sim.server.effective_port}"
    assert line == f"cut by the shutdown: connections to {address} that could not be accepted"


def test_listener_whose_close_fails_does_not_stop_the_end(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    close = sim.server.close

    def raises() -> None:
        close()
        raise ZeroDivisionError

    sim.server.close = raises
    sim.server.lifecycle.order()
    sim.settle()
    del sim.server.close
    assert phase(sim) is Phase.DONE
    assert "Exception while closing a listener" in caplog.text


def test_somebody_elses_mistake_does_not_stop_the_end(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    told: list[Phase] = []

    def listens(new: Phase) -> None:
        told.append(new)
        if new is Phase.CLOSING:
            raise ZeroDivisionError

    sim.server.lifecycle.listening.append(listens)
    sim.server.shutdown()
    let_pass(sim, 60)
    assert told == [Phase.DRAINING, Phase.CLOSING, Phase.DONE]
    assert "Exception while shutting down" in caplog.text


def test_connection_that_cannot_be_cut_does_not_stop_the_end(
    pausing: Callable[..., Simulation], caplog: pytest.LogCaptureFixture
) -> None:
    sim = pausing()
    client = sim.connect(get("/slow"))
    channel = sim.channel

    class Broken(type(channel)):  # type: ignore[misc]
        def close(self) -> None:
            raise ZeroDivisionError

        def unfinished_request(self) -> None:
            raise ZeroDivisionError

    channel.__class__ = Broken
    sim.server.shutdown(0)
    sim.settle()
    assert "Exception while naming what is cut" in caplog.text
    assert "Exception while cutting a connection" in caplog.text
    assert phase(sim) is Phase.DONE
    channel.__class__ = Broken.__base__
    channel.close()
    client.read()
    assert client.ended


def test_workers_that_cannot_be_ended_do_not_stop_the_end(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ThreadedTaskDispatcher):
        def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
            raise ZeroDivisionError

    dispatcher = Broken()
    dispatcher.set_thread_count(1)
    server = create_server(hello, _dispatcher=dispatcher, host="127.0.0.1", port=0)
    server.shutdown()
    server.run()
    assert "Exception while ending the workers" in caplog.text
    assert not server._map
    ThreadedTaskDispatcher.shutdown(dispatcher)


def test_connection_of_another_make_is_closed_at_the_end(simulate: Simulate) -> None:
    sim = simulate(hello)

    class Other(wasyncore.dispatcher):
        was_closed = False
        requests = ()
        last_activity = inf

        def close(self) -> None:
            self.was_closed = True
            sim.server.active_channels.clear()

    other = Other(map={})
    sim.server.active_channels[1_000_000] = other
    sim.server.shutdown()
    sim.settle()
    assert other.was_closed


def test_server_put_together_by_hand_without_listeners_ends(no_leaks: None) -> None:
    map = wasyncore.SocketMap()
    server = MultiSocketServer(map, None, [], None, None)
    server.lifecycle.order()
    server.lifecycle.handle_ready()
    assert server.is_draining
    assert server.lifecycle.phase is Phase.DONE


# -- the run ---------------------------------------------------------------------------


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_interrupted_run_answers_what_is_in_flight(
    error: type[BaseException], no_leaks: None
) -> None:
    gate = Gate()
    server = create_server(gate, host="127.0.0.1", port=0)
    loop = server.asyncore = Interruptible(server)
    running = Running(server)
    with running.connect() as wire:
        wire.send(get())
        gate.await_entry()
        loop.interrupt(error)
        await_event(loop.has_begun_again)
        gate.opened.set()
        assert wire.read_answer().headers["connection"] == "close"
        assert wire.read_to_end() == b""
    running.await_end()
    assert not server.task_dispatcher.threads
    assert not server._map
    assert server.exit_status == 0


@needs_stacks
def test_second_interruption_cuts(no_leaks: None, caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    server = create_server(gate, host="127.0.0.1", port=0)
    loop = server.asyncore = Interruptible(server)
    running = Running(server)
    with running.connect() as wire:
        wire.send(get("/stuck"))
        gate.await_entry()
        loop.interrupt(KeyboardInterrupt)
        await_event(loop.has_begun_again)
        loop.interrupt(KeyboardInterrupt)
        assert wire.read_to_end() == b""
        gate.opened.set()
    running.await_end()
    assert not server._map
    assert server.exit_status == CUT_STATUS
    assert '"GET /stuck HTTP/1.1"' in caplog.text
    assert "self.opened.wait" in caplog.text


def test_answer_is_sent_though_the_interruption_came_just_before(no_leaks: None) -> None:
    class Interrupted(HTTPChannel):
        interruptions = 0

        def handle_ready(self) -> None:
            if self.outbound.pending and not Interrupted.interruptions:
                Interrupted.interruptions += 1
                raise KeyboardInterrupt
            super().handle_ready()

    server = create_server(hello, host="127.0.0.1", port=0)
    server.channel_class = Interrupted
    running = Running(server)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
    running.await_end()
    assert Interrupted.interruptions == 1
    assert server.exit_status == 0


def test_interruption_gives_five_seconds() -> None:
    assert INTERRUPT_SECONDS == 5


class Interruptible:
    """Runs the loop, and raises in it what a signal's handler would."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.has_begun_again = threading.Event()
        self._runs = 0

    def loop(self, **kw: Any) -> None:
        self._runs += 1
        if self._runs > 1:
            self.server.trigger.pull_trigger(self.has_begun_again.set)
        wasyncore.loop(**kw)

    def interrupt(self, error: type[BaseException]) -> None:
        def interrupts() -> None:
            raise error

        self.server.trigger.pull_trigger(interrupts)


def test_run_ends_though_the_map_holds_what_is_not_the_servers(no_leaks: None) -> None:
    map = wasyncore.SocketMap()
    other = create_server(hello, map=map, host="127.0.0.1", port=0)
    server = create_server(hello, map=map, host="127.0.0.1", port=0)
    server.shutdown()
    server.run()
    assert server.lifecycle.phase is Phase.DONE
    assert set(map.values()) == {other, other.trigger}
    assert not other.is_draining
    other.shutdown()
    other.run()
    assert not map


def test_loop_of_the_callers_own_is_not_left_by_an_exception(no_leaks: None) -> None:
    map = wasyncore.SocketMap()
    other = create_server(hello, map=map, host="127.0.0.1", port=0)
    server = create_server(hello, map=map, host="127.0.0.1", port=0)
    server.shutdown()
    while server.lifecycle.phase is not Phase.DONE:
        wasyncore.loop(timeout=0.05, map=map, count=1)
    other.shutdown()
    other.run()


def test_end_can_be_made_by_hand_once(no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    ends: list[int] = []
    server.lifecycle.end_by_hand(lambda: ends.append(1))
    server.lifecycle.end_by_hand(lambda: ends.append(2))
    assert ends == [1]
    server.task_dispatcher.shutdown()
    server.close()


# -- real threads ----------------------------------------------------------------------


def test_stopped_server_has_no_threads_and_no_sockets(serve: Serve) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        running.server.shutdown()
        assert wire.read_to_end() == b""
    running.await_end()
    assert not running.server._map
    assert not running.server.task_dispatcher.threads


def test_server_of_several_addresses_ends_as_one(no_leaks: None) -> None:
    server = create_server(hello, listen="127.0.0.1:0 127.0.0.1:0")
    running = Running(server)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        server.shutdown()
        assert wire.read_to_end() == b""
    running.await_end()
    assert server.is_draining
    assert not server.map


def test_workers_whose_client_has_left_are_waited_for(no_leaks: None) -> None:
    gate = Gate()
    server = create_server(gate, host="127.0.0.1", port=0)
    phases: list[Phase] = []
    is_closing = threading.Event()

    def note(new: Phase) -> None:
        phases.append(new)
        if new is Phase.CLOSING:
            is_closing.set()

    server.lifecycle.listening.append(note)
    running = Running(server)
    wire = running.connect()
    wire.send(get())
    gate.await_entry()
    running.call_in_loop(lambda: close_all_channels(server))
    server.shutdown()
    await_event(is_closing)
    assert phases[-1] is Phase.CLOSING
    gate.opened.set()
    running.await_end()
    wire.close()
    assert server.exit_status == 0
    assert phases == [Phase.DRAINING, Phase.CLOSING, Phase.DONE]


@needs_stacks
def test_worker_whose_client_has_left_is_named_when_time_is_up(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    server = create_server(gate, host="127.0.0.1", port=0)
    running = Running(server)
    wire = running.connect()
    wire.send(get())
    gate.await_entry()
    running.call_in_loop(lambda: close_all_channels(server))
    server.shutdown(LAST_MOMENT_SECONDS)
    running.await_end()
    gate.opened.set()
    wire.close()
    server.task_dispatcher.shutdown()
    assert server.exit_status == CUT_STATUS
    assert "a request whose client has left" in caplog.text
    assert caplog.text.count("cut by the shutdown") == 1


def test_workers_have_a_last_moment_after_a_cut(
    no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("waitress.shutdown.LAST_MOMENT_SECONDS", 20)
    gate = Gate()
    server = create_server(gate, host="127.0.0.1", port=0)

    def open_in_the_next_turn(new: Phase) -> None:
        if new is Phase.CLOSING:
            server.trigger.pull_trigger(gate.opened.set)

    server.lifecycle.listening.append(open_in_the_next_turn)
    running = Running(server)
    with running.connect() as wire:
        wire.send(get())
        gate.await_entry()
        server.shutdown(0)
        running.await_end()
        assert not server.task_dispatcher.threads
    assert server.exit_status == CUT_STATUS


def test_worker_of_another_server_is_not_named(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    other = Running(create_server(gate, host="127.0.0.1", port=0))
    with other.connect() as wire:
        wire.send(get())
        gate.await_entry()
        server = create_server(hello, host="127.0.0.1", port=0)
        server.shutdown(0)
        server.run()
        gate.opened.set()
        assert wire.read_answer().body == b"hello"
    other.stop()
    assert "cut by" not in caplog.text
    assert server.exit_status == 0


@needs_stacks
def test_hurry_is_heard_while_the_workers_are_waited_for(no_leaks: None) -> None:
    gate = Gate()
    server = create_server(gate, host="127.0.0.1", port=0)
    is_closing = threading.Event()
    server.lifecycle.listening.append(lambda new: new is Phase.CLOSING and is_closing.set())
    running = Running(server)
    wire = running.connect()
    wire.send(get())
    gate.await_entry()
    running.call_in_loop(lambda: close_all_channels(server))
    server.shutdown(1000)
    await_event(is_closing)
    server.shutdown(0)
    running.await_end()
    gate.opened.set()
    wire.close()
    server.task_dispatcher.shutdown()
    assert server.exit_status == CUT_STATUS
    for thread in threading.enumerate():
        if thread.name == "waitress-shutdown":
            thread.join()


def test_slow_reader_gets_all_its_bytes(no_leaks: None) -> None:
    """What the kernel holds is waited for, too: a container's network ends with the process."""
    size = 4_000_000
    server = create_server(large(size), host="127.0.0.1", port=0)
    running = Running(server)
    with running.connect() as wire:
        wire.send(get("/", "Connection: close"))
        assert wire.read_line() == b"HTTP/1.1 200 OK"
        server.shutdown()
        unread = wire.read_to_end()
    running.await_end()
    assert unread.endswith(b"x" * size)
    assert server.exit_status == 0


def test_connection_is_kept_until_the_client_has_acknowledged_all(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    unacknowledged = [3000]
    monkeypatch.setattr("waitress.tcp.unacknowledged_bytes", lambda sock: unacknowledged[0])
    sim = simulate(large(5000))
    client = sim.connect()
    sim.server.shutdown()
    client.send(get("/", "Connection: close"))
    sim.settle()
    assert sim.channel.state is ChannelState.LINGERING
    for left in (2000, 1000):
        unacknowledged[0] = left
        let_pass(sim, 5.25)
        assert phase(sim) is Phase.DRAINING
    let_pass(sim, 5.25)  # Without progress.
    assert phase(sim) is Phase.DONE
    assert len(client.response().body) == 5000


def test_loop_may_be_left_by_what_ends_it() -> None:
    assert issubclass(Stopped, wasyncore.ExitNow)


def test_subclass_may_have_a_shutdown_and_a_url_of_its_own(no_leaks: None) -> None:
    """As test suites have them."""

    class Own(TcpWSGIServer):
        def __init__(self) -> None:
            super().__init__(hello, host="127.0.0.1", port=0)
            self.url = "own"

        def shutdown(self) -> str:  # type: ignore[override]
            return "own"

    server = Own()
    assert (server.url, server.shutdown()) == ("own", "own")
    server.lifecycle.order()
    server.run()
    assert isinstance(server.lifecycle, Shutdown)


def test_request_of_a_parser_that_knows_little_is_named_by_its_number(
    pausing: Callable[..., Simulation], caplog: pytest.LogCaptureFixture
) -> None:
    sim = pausing()
    sim.connect(get("/slow"))
    (request,) = sim.channel.requests
    request.command = ""
    sim.server.shutdown(0)
    sim.settle()
    assert f'cut by the shutdown: "" (request {request.request_id}), from' in caplog.text


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no such filter")
def test_nobody_connects_between_the_last_accept_and_the_end(no_leaks: None) -> None:
    """Whoever did would be reset with his request."""
    late = socket.socket()
    late.setblocking(False)

    class Listener(TcpWSGIServer):
        def _accept_one(self) -> bool:
            goes_on = super()._accept_one()
            if not goes_on:
                late.connect_ex(self.socket.getsockname())
                is_connected.append(bool(select.select([], [late], [], 0.05)[1]))
            return goes_on

    is_connected: list[bool] = []
    server = Listener(hello, host="127.0.0.1", port=0)
    server.shutdown()
    with late:
        server.run()
    assert is_connected == [False]


def test_listening_socket_of_somebody_else_is_not_changed(no_leaks: None) -> None:
    """Another process may go on with it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        own = socket.socket(fileno=os.dup(listener.fileno()))
        server = create_server(hello, sockets=[own])
        server.shutdown()
        server.run()
        with socket.create_connection(listener.getsockname(), 5):
            listener.accept()[0].close()


def test_server_that_never_listened_accepts_nothing_at_the_end(no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0, _start=False)
    server.shutdown()
    server.run()
    assert not server._map


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no unix sockets")
def test_file_of_a_unix_socket_goes_with_the_last_accept(tmp_path: Path, no_leaks: None) -> None:
    gate = Gate()
    path = tmp_path / "socket"
    server = create_server(gate, unix_socket=str(path))
    running = Running(server)
    client = socket.socket(socket.AF_UNIX)
    client.connect(str(path))
    is_draining = threading.Event()
    server.lifecycle.listening.append(lambda phase: is_draining.set())
    with Wire(client) as wire:
        wire.send(get("/", "Connection: close"))
        gate.await_entry()
        server.shutdown()
        await_event(is_draining)
        running.call_in_loop(lambda: None)
        assert not path.exists()
        gate.opened.set()
        assert wire.read_answer().body == b"hello"
    running.await_end()
