"""Requests whose clients may have left: served last, and refused where there is no room."""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from math import inf
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, Wire
from tests.fakes import Simulation, get
from tests.functional.applications import hello, large
from waitress import channel as channel_module
from waitress import workers
from waitress.channel import HTTPChannel
from waitress.clients import Clients
from waitress.fair_queue import FairQueue
from waitress.parser import HTTPRequestParser
from waitress.server import BaseWSGIServer
from waitress.workers import ThreadedTaskDispatcher

Serve = Callable[..., Running]
Simulate = Callable[..., Simulation]

needs_word_of_end = pytest.mark.skipif(
    sys.platform == "win32", reason="select() does not tell of a client's end"
)


class Application:
    """Holds the request for ``/held``, and writes down which others were run, in order."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.may_go_on = threading.Event()
        self.served: list[str] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        path = environ["PATH_INFO"]
        if path == "/held":
            self.entered.set()
            self.may_go_on.wait(PATIENCE)
        else:
            self.served.append(path.lstrip("/"))
        return hello(environ, start_response)


class Crowd:
    """A server with one thread, which is busy, and clients whose requests wait."""

    def __init__(self, running: Running, application: Application, stack: ExitStack) -> None:
        self.running = running
        self.application = application
        self.wires: dict[str, Wire] = {}
        self._stack = stack
        # Whatever takes long in a test, the newest stays first.
        self.dispatcher.clock = lambda: 0.0
        self.ask("held")
        assert application.entered.wait(PATIENCE)

    @property
    def dispatcher(self) -> ThreadedTaskDispatcher:
        dispatcher: ThreadedTaskDispatcher = self.running.server.task_dispatcher
        return dispatcher

    def connect(self) -> socket.socket:
        if self.running.server.effective_host == "unix":
            sock = socket.socket(socket.AF_UNIX)
            sock.connect(self.running.server.effective_port)
            return sock
        return socket.create_connection(("127.0.0.1", self.running.port), PATIENCE)

    def ask(self, *paths: str) -> None:
        """Send a request for each path, one after the other, and see each in the queue."""
        for path in paths:
            wire = self.wires[path] = self._stack.enter_context(Wire(self.connect()))
            wire.send(get(f"/{path}"))
            if path != "held":
                self.until(lambda path=path: f"/{path}" in self.paths())

    def waiting(self) -> int:
        return len(self.dispatcher.queue)

    def paths(self) -> list[str]:
        return [task.requests[0].path for task in self.dispatcher.queue if task.requests]

    def until(self, holds: Callable[[], Any]) -> None:
        """Return when something holds that the loop brings about."""
        deadline = time.monotonic() + PATIENCE
        while not self.running.call_in_loop(holds):
            assert time.monotonic() < deadline

    def end_sides_of(self, *paths: str) -> None:
        """Have clients say that they send no more, and see the loop know it."""
        for path in paths:
            known = len(self.running.server.clients.perhaps_left)
            self.wires[path].sock.shutdown(socket.SHUT_WR)
            self.until(lambda known=known: len(self.running.server.clients.perhaps_left) > known)

    def go_on(self) -> str:
        """Let the thread go on; return in which order it served those that waited."""
        self.application.may_go_on.set()
        self.until(lambda: not self.dispatcher.queue and not self.dispatcher.given_way)
        self.until(lambda: self.dispatcher.active_count == 0)
        return " ".join(self.application.served)


@pytest.fixture
def crowd(serve: Serve) -> Iterator[Callable[..., Crowd]]:
    """Give a function that makes a crowd; it takes the server's settings."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Crowd:
            application = Application()
            stack.callback(application.may_go_on.set)
            return Crowd(serve(application, threads=1, **settings), application, stack)

        yield make


def patient_for(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(channel_module, "PATIENCE_SECONDS", seconds)


@pytest.fixture
def nobody_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends his side does not do so because he has waited."""
    patient_for(monkeypatch, 1e9)


@pytest.fixture
def who_ends_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever ends his side has waited for too long."""
    patient_for(monkeypatch, 0)


# -- real sockets, and the default settings ----------------------------------------------------


def test_client_that_ended_its_side_is_served_where_a_thread_is_free(serve: Serve) -> None:
    running = serve(hello)
    with running.connect() as wire:
        wire.sock.sendall(get("/"))
        wire.sock.shutdown(socket.SHUT_WR)
        assert wire.read_answer().status == 200
        assert wire.read_to_end() == b""


@needs_word_of_end
@pytest.mark.usefixtures("nobody_gives_up")
def test_those_whose_clients_are_there_are_served_first_and_in_their_order(
    crowd: Callable[..., Crowd],
) -> None:
    queue = crowd()
    queue.ask("a", "b", "c", "d", "e")
    queue.end_sides_of("d", "a", "b")
    assert queue.go_on() == "c e a b d"
    assert [queue.wires[path].read_answer().status for path in "abcde"] == [200] * 5


@needs_word_of_end
@pytest.mark.usefixtures("who_ends_gives_up")
def test_while_clients_give_up_the_newest_is_first_and_all_are_served(
    crowd: Callable[..., Crowd],
) -> None:
    queue = crowd()
    queue.ask("a", "b", "c", "d", "e")
    queue.end_sides_of("a", "c")
    assert queue.go_on() == "e d b a c"
    assert [queue.wires[path].read_answer().status for path in "abcde"] == [200] * 5


@needs_word_of_end
@pytest.mark.usefixtures("who_ends_gives_up")
def test_order_is_that_of_arrival_again_when_nobody_waits_any_more(
    crowd: Callable[..., Crowd],
) -> None:
    queue = crowd()
    queue.ask("a", "b")
    queue.end_sides_of("a")
    assert queue.go_on() == "b a"
    application = queue.application
    application.served.clear()
    application.entered.clear()
    application.may_go_on.clear()
    queue.ask("held")
    assert application.entered.wait(PATIENCE)
    queue.ask("x", "y", "z")
    assert queue.go_on() == "x y z"


def test_nobody_is_asked_while_all_are_there(crowd: Callable[..., Crowd]) -> None:
    queue = crowd()
    queue.ask("a", "b", "c")
    assert not queue.dispatcher._asks
    assert queue.go_on() == "a b c"


@needs_word_of_end
@pytest.mark.usefixtures("who_ends_gives_up")
def test_request_whose_client_has_reset_is_never_run_and_leaves_the_queue(
    crowd: Callable[..., Crowd],
) -> None:
    queue = crowd()
    queue.ask("a", "b", "c", "d")
    queue.end_sides_of("a")  # From now on, the oldest might stay for long.
    for path in "bd":
        wire = queue.wires.pop(path)
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        wire.sock.close()
    queue.until(lambda: queue.waiting() == 2)
    assert queue.go_on() == "c a"


@needs_word_of_end
@pytest.mark.usefixtures("who_ends_gives_up")
def test_what_was_sent_ahead_is_not_the_newest_for_ever(crowd: Callable[..., Crowd]) -> None:
    queue = crowd()
    queue.ask("a", "left")
    pipelining = queue.wires["p1"] = Wire(queue.connect())
    with pipelining:
        pipelining.send(get("/p1") + get("/p2") + get("/p3"))
        queue.until(lambda: queue.waiting() == 3)
        queue.end_sides_of("left")
        assert queue.go_on() == "p1 a p2 p3 left"
        assert [pipelining.read_answer().status for _ in range(3)] == [200] * 3


@needs_word_of_end
@pytest.mark.usefixtures("nobody_gives_up")
def test_what_waits_for_the_reader_is_queued_when_there_is_room(simulate: Simulate) -> None:
    """Its client has been slow, and not the workers."""
    sim = simulate(large(3_000_000), outbuf_high_watermark=1_000_000, outbuf_overflow=10_000_000)
    client = sim.knock(capacity=65536)
    client.is_reading = False
    client.send(get() + get())
    sim.settle()
    for _ in range(20):
        sim.advance(1)
        client.read(60_000)
    client.is_reading = True
    while not sim.channel.request_queue.awaits_worker():
        sim.settle(workers=False)
    assert sim.clock() - sim.channel.queued_since() < 1
    assert not sim.channel.gives_way(is_overloaded=True)


def test_what_was_sent_ahead_is_queued_when_its_turn_has_come(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sim.dispatcher.pause("running")
        return hello(environ, start_response)

    sim = simulate(application)
    client = sim.connect(get() + get())
    assert not sim.channel.gives_way(is_overloaded=True)
    sim.advance(10)
    sim.dispatcher.resume("running")
    sim.settle()
    assert sim.clock() - sim.channel.queued_since() < 1
    assert sim.channel.gives_way(is_overloaded=True)
    sim.dispatcher.resume("running")
    sim.settle()
    client.send(get())
    sim.settle()
    assert not sim.channel.gives_way(is_overloaded=True)
    sim.dispatcher.resume("running")


def test_what_is_put_in_from_outside_is_queued_then(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect()
    request = HTTPRequestParser(sim.server.adj)
    request.received(get())
    sim.channel.requests = [request]
    sim.turn()
    assert sim.clock() - sim.channel.queued_since() < 1
    sim.settle()
    assert client.response().status == 200


def test_peers_in_turn_do_so_too(crowd: Callable[..., Crowd]) -> None:
    queue = crowd(fair_queue=True)
    queue.ask("a", "b", "c")
    queue.end_sides_of("a")
    assert queue.go_on() == "b c a"


@needs_word_of_end
@pytest.mark.usefixtures("who_ends_gives_up")
def test_peers_in_turn_with_their_newest_first(crowd: Callable[..., Crowd]) -> None:
    queue = crowd(fair_queue=True)
    queue.ask("a", "b", "c")
    queue.end_sides_of("a")
    assert queue.go_on() == "c b a"


@needs_word_of_end
@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="has no unix sockets")
@pytest.mark.usefixtures("nobody_gives_up")
def test_client_of_a_unix_socket_that_has_closed_gives_way(
    crowd: Callable[..., Crowd], tmp_path: Any
) -> None:
    queue = crowd(unix_socket=os.fspath(tmp_path / "socket"))
    queue.ask("a", "b")
    queue.wires.pop("a").sock.close()
    queue.until(lambda: queue.running.server.clients.perhaps_left)
    assert queue.go_on() == "b a"


@needs_word_of_end
@pytest.mark.usefixtures("nobody_gives_up")
def test_with_look_ahead_the_end_is_read_and_gives_way_too(crowd: Callable[..., Crowd]) -> None:
    queue = crowd(channel_request_lookahead=2)
    queue.ask("a", "b")
    queue.end_sides_of("a")
    assert queue.go_on() == "b a"


@needs_word_of_end
@pytest.mark.usefixtures("nobody_gives_up")
def test_at_the_connection_limit_it_is_refused_in_favour_of_a_newcomer(
    crowd: Callable[..., Crowd],
) -> None:
    queue = crowd(connection_limit=4)
    queue.ask("a", "b", "c")
    queue.end_sides_of("b")
    queue.ask("d")
    refused = queue.wires["b"].read_answer()
    assert refused.status == 503
    assert refused.headers["retry-after"] == "1"
    assert queue.wires["b"].read_to_end() == b""
    stats = queue.running.server.stats()
    assert stats.evictions["queued"] == stats.rejects["evicted"] == 1
    # Now all are there, and the next newcomer waits outside until it is seen who is not.
    with Wire(queue.connect()) as outside:
        outside.send(get("/e"))
        queue.until(lambda: queue.running.server.in_connection_overflow)
        queue.wires["a"].sock.shutdown(socket.SHUT_WR)
        assert queue.wires["a"].read_answer().status == 503
        queue.application.may_go_on.set()
        assert outside.read_answer().status == 200


class Raising(HTTPChannel):
    """Whose service() of the user's does not work in the loop."""

    def service(self) -> None:
        if self.event_loop.is_current_thread():
            raise ZeroDivisionError
        super().service()


@needs_word_of_end
@pytest.mark.usefixtures("nobody_gives_up")
def test_newcomer_has_the_place_of_one_whose_refusal_fails(
    crowd: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(BaseWSGIServer, "channel_class", Raising)
    queue = crowd(connection_limit=3)
    queue.ask("a", "b")
    queue.end_sides_of("b")
    queue.ask("d")
    assert "ZeroDivisionError" in caplog.text
    with contextlib.suppress(ConnectionResetError):
        assert queue.wires["b"].read_to_end() == b""
    assert queue.go_on() == "a d"


@needs_word_of_end
def test_statistics_and_the_list_of_the_queue_have_those_that_gave_way(
    crowd: Callable[..., Crowd], monkeypatch: pytest.MonkeyPatch
) -> None:
    patient_for(monkeypatch, 1e9)
    queue = crowd()
    queue.ask("a", "b")
    queue.end_sides_of("a")
    dispatcher = queue.dispatcher
    with dispatcher.lock:
        chosen = dispatcher._choose_locked()
    dispatcher.queue.append(chosen)
    assert [each.requests[0].path for each in dispatcher.given_way] == ["/a"]
    stats = queue.running.server.stats()
    assert stats.queue_depth == dispatcher.waiting() == 2
    assert stats.oldest_queue_wait > 0
    queued = queue.running.server.monitor.activity.queued()
    assert [each.path for each in queued] == ["/b", "/a"]
    assert queue.go_on() == "b a"


# -- a simulated network, and other dispatchers ------------------------------------------------


def test_newcomer_that_waits_outside_comes_in_as_soon_as_somebody_may_have_left(
    simulate: Simulate,
) -> None:
    sim = simulate(hello, connection_limit=2)
    sim.dispatcher.is_held = True
    clients = [sim.connect(get()) for _ in range(2)]
    late = sim.connect(get())
    assert sim.server.in_connection_overflow
    clients[0].shutdown()
    sim.settle()  # No time passes.
    assert clients[0].response("GET").status == 503
    assert clients[0].ended
    sim.dispatcher.is_held = False
    sim.settle()
    assert [client.response("GET").status for client in (clients[1], late)] == [200, 200]
    assert sim.dispatcher.served == 2


def test_refusal_reaches_a_client_that_had_sent_more(simulate: Simulate) -> None:
    """What lies unread when a connection is closed turns the end into a reset."""
    sim = simulate(hello, connection_limit=2)
    sim.dispatcher.is_held = True
    client, _ = [sim.connect(get()) for _ in range(2)]
    client.send(get("/ahead") + b"x" * 1000)
    client.shutdown()
    sim.connect(get())
    assert client.response("GET").status == 503
    assert client.ended
    assert not client.was_reset


def test_client_that_is_found_to_have_left_makes_room_too(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=2)
    sim.dispatcher.is_held = True
    client, _ = [sim.connect(get()) for _ in range(2)]
    client.shutdown()
    sim.settle()
    client.reset()
    late = sim.connect(get())
    sim.dispatcher.is_held = False
    sim.settle()
    assert late.response("GET").status == 200


def test_dispatcher_that_cannot_give_back_keeps_its_order_and_its_tasks(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = simulate(hello, connection_limit=3)
    sim.dispatcher.is_held = True
    monkeypatch.delattr(type(sim.dispatcher), "withdraw")
    clients = [sim.connect(get()) for _ in range(3)]
    for client in clients:
        client.shutdown()
    sim.settle()
    late = sim.connect(get())
    assert sim.server.in_connection_overflow
    assert not sim.server.clients.perhaps_left  # All were tried.
    sim.dispatcher.is_held = False
    sim.advance(2)
    assert [client.response("GET").status for client in (*clients, late)] == [200] * 4


class Left:
    """A connection whose client may have left."""

    def __init__(self, waits: bool) -> None:
        self._waits = waits

    def give_up_queued(self) -> bool:
        return self._waits


class TestMakingRoom:
    def test_takes_the_first_whose_request_still_waits(self) -> None:
        clients = Clients()
        served, first, second = Left(False), Left(True), Left(True)
        clients.perhaps_left = dict.fromkeys((served, first, second))
        assert clients.make_room(1000.0, 5)
        assert list(clients.perhaps_left) == [second]
        assert clients.make_room(1000.0, 5)
        assert not clients.make_room(1000.0, 5)
        assert clients.evictions == {"queued": 2}

    def test_looks_the_others_through_once_in_a_while(self) -> None:
        looks: list[float] = []
        clients = Clients()
        clients._make_room_easily = lambda now, _: bool(looks.append(now))  # type: ignore[method-assign]
        clients.perhaps_left = dict.fromkeys(Left(True) for _ in range(5))
        for now in (10.0, 10.04, 10.0625, 10.1):
            assert clients.make_room(now, 5)
        assert looks == [10.0, 10.0625]
        clients.perhaps_left.clear()
        assert not clients.make_room(10.1, 5)  # Nobody else is left to choose.
        assert looks[2:] == [10.1]


class Job:
    """A task that may give way, or does not know of it."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cancelled = False

    def service(self) -> None:
        """Never called."""

    def cancel(self) -> None:
        self.cancelled = True


class Giving(Job):
    def gives_way(self, is_overloaded: bool) -> bool:
        return self.name.isupper() or (is_overloaded and self.name == "p")


def dispatcher_with(text: str) -> ThreadedTaskDispatcher:
    dispatcher = ThreadedTaskDispatcher()
    for name in text:
        dispatcher.add_task(Job(name) if name == "j" else Giving(name))
    return dispatcher


def choose(dispatcher: ThreadedTaskDispatcher) -> str:
    with dispatcher.lock:
        task: Any = dispatcher._choose_locked()
    return str(task.name)


class TestADispatcher:
    @pytest.mark.parametrize(
        ("tasks", "is_overloaded", "order"),
        [
            ("abc", False, "abc"),
            ("abc", True, "cba"),
            ("AbCjE", False, "bjACE"),
            ("AbCjE", True, "jbEAC"),
            ("apb", False, "apb"),
            ("apb", True, "bap"),
            ("ABC", False, "ABC"),
            ("A", True, "A"),
        ],
    )
    def test_serves_those_last_that_give_way(
        self, tasks: str, is_overloaded: bool, order: str
    ) -> None:
        dispatcher = dispatcher_with(tasks)
        dispatcher.note_giving_way(is_overloaded)
        assert "".join(choose(dispatcher) for _ in tasks) == order
        assert not dispatcher._asks
        assert dispatcher._newest_until == -inf

    def test_stays_overloaded_until_nobody_waits(self) -> None:
        dispatcher = dispatcher_with("ab")
        dispatcher.note_giving_way(True)
        dispatcher.note_giving_way(False)
        assert choose(dispatcher) == "b"
        dispatcher.add_task(Giving("c"))
        assert choose(dispatcher) == "c"
        assert choose(dispatcher) == "a"
        assert not dispatcher._asks

    def test_has_the_newest_first_for_a_second_after_somebody_gave_up(self) -> None:
        now = [5.0]
        dispatcher = dispatcher_with("abcdef")
        dispatcher.clock = lambda: now[0]
        dispatcher.note_giving_way(True)
        assert choose(dispatcher) == "f"
        now[0] += 0.75
        assert choose(dispatcher) == "e"
        dispatcher.note_giving_way(True)
        now[0] += 0.75
        assert choose(dispatcher) == "d"
        now[0] += 0.25
        assert choose(dispatcher) == "a"
        assert choose(dispatcher) == "b"

    def test_does_not_pass_over_those_that_gave_way_for_ever(self) -> None:
        """The client of one has ended its side, and waits for its answer."""
        dispatcher = dispatcher_with("A")
        dispatcher.note_giving_way(False)
        served = []
        for _ in range(40):
            dispatcher.add_task(Giving("b"))
            dispatcher.add_task(Giving("b"))
            served.append(choose(dispatcher))
        assert served.count("A") == 1
        assert served.index("A") <= workers.FAIR_TURN

    def test_does_not_pass_over_the_oldest_for_ever_either(self) -> None:
        """Others come and leave, and its client is patient."""
        dispatcher = dispatcher_with("o")
        served = []
        for _ in range(40):
            dispatcher.note_giving_way(True)
            dispatcher.add_task(Giving("b"))
            dispatcher.add_task(Giving("b"))
            served.append(choose(dispatcher))
        assert served.count("o") == 1
        assert served.index("o") <= workers.FAIR_TURN

    def test_tells_of_those_that_gave_way_when_it_tells_how_many_wait(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        dispatcher = dispatcher_with("AAAb")
        dispatcher.note_giving_way(False)
        assert choose(dispatcher) == "b"
        caplog.clear()
        dispatcher.add_task(Giving("c"))
        assert [each.getMessage() for each in caplog.records] == ["Task queue depth is 4"]

    @pytest.mark.parametrize("queue_class", [deque, FairQueue])
    def test_takes_many_back_together(self, queue_class: Any) -> None:
        """One by one each would be searched for among all."""
        dispatcher = dispatcher_with("a" * 320 + "b" * 32)
        dispatcher.queue = queue_class(dispatcher.queue)
        dispatcher.note_giving_way(False)
        ended = list(dispatcher.queue)[:320]
        for task in ended[:20]:
            dispatcher.withdraw_ended(task)
        assert dispatcher.waiting() == 352
        for task in ended[20:]:
            dispatcher.withdraw_ended(task)
        assert dispatcher.waiting() <= 34
        assert "b" * 32 in "".join(choose(dispatcher) for _ in range(dispatcher.waiting()))
        assert not dispatcher._asks
        assert not dispatcher._ended  # Nothing keeps them alive.

    def test_keeps_the_turns_of_peers_when_it_takes_many_back(self) -> None:
        class OfPeer(Giving):
            def __init__(self, name: str, peer: str) -> None:
                super().__init__(name)
                self.addr = (peer, 1)

        dispatcher = ThreadedTaskDispatcher()
        dispatcher.queue = FairQueue()
        for name in "abc":
            dispatcher.add_task(OfPeer(name, "192.0.2.1"))
        left = OfPeer("L", "192.0.2.3")
        dispatcher.add_task(OfPeer("x", "192.0.2.2"))
        dispatcher.add_task(left)
        dispatcher.note_giving_way(False)
        assert choose(dispatcher) == "a"
        dispatcher.withdraw_ended(left)
        assert "".join(choose(dispatcher) for _ in range(3)) == "xbc"
        assert not dispatcher.waiting()

    def test_has_one_at_the_front_that_does_not_give_way(self) -> None:
        dispatcher = dispatcher_with("ABcdE")
        dispatcher.note_giving_way(True)
        assert choose(dispatcher) == "d"
        assert [task.name for task in dispatcher.queue] == ["c"]  # type: ignore[attr-defined]
        assert dispatcher.waiting() == 4

    def test_gives_back_those_that_gave_way_too(self) -> None:
        dispatcher = dispatcher_with("Abc")
        ended = dispatcher.queue[0]
        dispatcher.withdraw_ended(ended)
        assert len(dispatcher.queue) == 3  # It is not in the way, and its turn comes.
        dispatcher.note_giving_way(False)
        assert choose(dispatcher) == "b"
        dispatcher.withdraw_ended(ended)
        assert not dispatcher.given_way
        assert not dispatcher.withdraw(ended)

    def test_cancels_those_that_gave_way_too(self) -> None:
        dispatcher = dispatcher_with("Abc")
        dispatcher.note_giving_way(False)
        assert choose(dispatcher) == "b"
        waiting: list[Any] = [*dispatcher.queue, *dispatcher.given_way]
        assert dispatcher.shutdown(timeout=0)
        assert [task.cancelled for task in waiting] == [True, True]
        assert not dispatcher.given_way
        assert not dispatcher.queue

    def test_has_them_served_by_threads(self) -> None:
        dispatcher = ThreadedTaskDispatcher()
        served: list[str] = []
        done = threading.Event()

        class Noted(Giving):
            def service(self) -> None:
                served.append(self.name)
                if len(served) == 4:
                    done.set()

        for name in "AbCd":
            dispatcher.add_task(Noted(name))
        dispatcher.note_giving_way(False)
        dispatcher.set_thread_count(2)
        assert done.wait(PATIENCE)
        assert dispatcher.shutdown(timeout=PATIENCE) is False
        assert sorted(served) == ["A", "C", "b", "d"]
