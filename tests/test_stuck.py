"""Requests that run for too long: found, shown, replaced, killed."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.compat.live import Gate, Running, hello, request
from tests.fakes import FakeClock, Simulation
from tests.looping import PATIENCE, needs_stacks
from waitress import create_server, killing
from waitress.eventloop import EventLoop
from waitress.killing import StuckRequestKilled, can_kill
from waitress.stuck import StuckRequests
from waitress.task import ThreadedTaskDispatcher

Serve = Callable[..., Running]


class Heard(logging.Handler):
    """Takes the lines of the log, and lets one wait for them."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        with self._changed:
            self.lines.append(record.getMessage())
            self._changed.notify_all()

    def wait_for(self, part: str, count: int = 1) -> str:
        def found() -> bool:
            return len(self.having(part)) >= count

        with self._changed:
            assert self._changed.wait_for(found, PATIENCE), (part, self.lines)
        return self.having(part)[count - 1]

    def having(self, part: str) -> list[str]:
        return [line for line in self.lines if part in line]


@pytest.fixture
def heard() -> Iterator[Heard]:
    handler = Heard()
    logger = logging.getLogger("waitress")
    logger.addHandler(handler)
    yield handler
    logger.removeHandler(handler)


class TestAStuckRequest:
    @needs_stacks
    def test_is_shown_with_its_stack_its_peer_and_its_age(self, serve: Serve, heard: Heard) -> None:
        gate = Gate()
        running = serve(gate, stuck_request_seconds=0.1)
        with running.connect() as wire:
            wire.send(request("GET", "/slow?token=secret"))
            line = heard.wait_for("has been running for")
            assert '"GET /slow HTTP/1.1" from 127.0.0.1:' in line
            assert "in thread waitress-" in line
            assert "self.opened.wait(PATIENCE)" in line
            assert "secret" not in line
            assert "channel -" not in line
            gate.opened.set()
            assert wire.read_answer().body == b"hello"
            assert "/slow HTTP/1.1" in heard.wait_for("recovered after")

    def test_is_shown_again_each_time_its_age_has_doubled(self, heard: Heard) -> None:
        scene = Scene(seconds=10)
        scene.begin()
        scene.advance(9)
        assert heard.lines == []
        scene.advance(100)
        ages = [line.split(" for ")[1].split(" s:")[0] for line in heard.having("running for")]
        assert ages == ["10.0", "20.0", "40.0", "80.0"]
        scene.end()
        assert heard.lines[-1].startswith("request 7 recovered after 109.0 s: ")
        scene.advance(1000)
        assert len(heard.lines) == 5

    def test_that_is_quick_is_not_told_of(self, heard: Heard) -> None:
        scene = Scene(seconds=10)
        for _ in range(30):
            scene.begin()
            scene.advance(1)
            scene.end()
        assert heard.lines == []

    def test_makes_the_server_dead_when_it_holds_the_last_thread(self, heard: Heard) -> None:
        scene = Scene(seconds=1, dispatcher=SimpleNamespace(threads={0}))
        assert scene.stuck.is_live()
        scene.begin()
        scene.advance(2)
        assert not scene.stuck.is_live()
        assert scene.stuck.stuck_count == 1
        scene.end()
        assert scene.stuck.is_live()

    def test_that_has_just_ended_is_not_counted(self, heard: Heard) -> None:
        scene = Scene(seconds=1)
        scene.begin()
        (serving,) = scene.stuck.serving.values()
        scene.end()
        scene.stuck._attend(serving, scene.clock.now + 5)
        assert scene.stuck.stuck_count == 0
        assert heard.lines == []

    def test_is_found_by_the_one_wake_up_that_is_due(self) -> None:
        scene = Scene(seconds=10)
        scene.begin()
        scene.step()
        assert scene.stuck.deadline == scene.clock.now + 10
        scene.end()
        scene.advance(30)
        assert len(scene.loop.deadlines) == 0  # Nothing runs: nobody looks.

    def test_does_not_wake_the_loop_for_each_that_begins(self) -> None:
        scene = Scene(seconds=10)
        for _ in range(5):
            scene.begin()
            scene.end()
        assert len(scene.loop.ready) == 1

    def test_is_searched_by_any_dispatcher(self, heard: Heard) -> None:
        sim = Simulation(
            lambda environ, start: (sim.dispatcher.pause("app"), hello(environ, start))[1],
            stuck_request_seconds=5,
            replace_stuck_threads=1,
        )
        client = sim.connect(request("GET", "/x"))
        sim.advance(6)
        assert heard.having("replace_stuck_threads has no effect: this task dispatcher has no")
        assert '"GET /x HTTP/1.1" from ' in heard.having("has been running for")[0]
        sim.dispatcher.resume("app")
        sim.settle()
        assert client.response().body == b"hello"
        sim.close()

    def test_is_known_by_its_peer_after_that_has_left(self, heard: Heard) -> None:
        sim = Simulation(
            lambda environ, start: (sim.dispatcher.pause("app"), hello(environ, start))[1],
            stuck_request_seconds=5,
        )
        client = sim.connect(request("GET", "/x"))
        number, peer = sim.channel.channel_id, sim.channel.addr
        other = sim.connect()
        client.reset()
        other.close()
        sim.settle()
        assert not sim.channels
        sim.advance(6)
        (line,) = heard.having("has been running for")
        assert f'"GET /x HTTP/1.1" from {peer[0]}:{peer[1]}, channel {number}, in thread' in line
        sim.dispatcher.resume("app")
        sim.settle()
        sim.close()

    def test_search_survives_a_failure(self, heard: Heard, monkeypatch: pytest.MonkeyPatch) -> None:
        scene = Scene(seconds=1)

        def fail() -> Any:
            raise LookupError

        monkeypatch.setattr("waitress.stuck.thread_names", fail)
        scene.begin()
        scene.advance(2)
        assert heard.having("Exception in the search for stuck requests")
        scene.end()
        scene.stuck.forget()

    def test_unknown_end_is_harmless(self) -> None:
        scene = Scene(seconds=1)
        scene.end()
        assert scene.stuck.switch_for_this_thread() is None


class Scene:
    """A watch on a clock that is moved by hand; this thread is the worker."""

    def __init__(self, seconds: float, dispatcher: Any = None, **kw: Any) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(clock=self.clock)
        self.stuck = StuckRequests(self.loop, dispatcher, seconds, **kw)
        self.request = SimpleNamespace(
            request_id=7, command="GET", request_uri="/a?b", version="1.1"
        )

    def begin(self) -> None:
        self.stuck.request_started(self.request)

    def end(self) -> None:
        self.stuck.request_serviced(self.request)

    def step(self) -> None:
        self.loop.drain_ready()
        self.loop.tell_due()

    def advance(self, seconds: float) -> None:
        for _ in range(int(seconds * 4)):
            self.step()
            self.clock.advance(0.25)
        self.step()


class TestReplacing:
    def test_keeps_the_server_serving_up_to_the_cap(self, serve: Serve, heard: Heard) -> None:
        gate = Gate()

        def application(environ: Any, start: Any) -> Any:
            return (gate if environ["PATH_INFO"] == "/slow" else hello)(environ, start)

        running = serve(application, threads=1, stuck_request_seconds=0.1, replace_stuck_threads=1)
        dispatcher = running.server.task_dispatcher
        with running.connect() as first, running.connect() as second, running.connect() as third:
            first.send(request("GET", "/slow"))
            heard.wait_for("has been running for")
            assert second.get().status == 200  # By the thread that was added.
            assert running.server.is_live()
            second.send(request("GET", "/slow"))
            heard.wait_for("has been running for", 2)
            while running.server.is_live():
                running.call_in_loop(lambda: None)
            assert len(dispatcher.threads) == 2
            third.send(request("GET", "/"))
            gate.opened.set()
            for wire in (first, second, third):
                assert wire.read_answer().body == b"hello"
        heard.wait_for("recovered after", 2)
        while len(dispatcher.threads) - dispatcher.stop_count != 1:
            running.call_in_loop(lambda: None)
        assert running.server.is_live()
        with running.connect() as wire:
            assert wire.get().status == 200
        while len(dispatcher.threads) != 1:
            running.call_in_loop(lambda: None)

    def test_of_a_request_that_ends_meanwhile_is_undone(self) -> None:
        class Dispatcher:
            changes: list[int] = []

            def add_thread(self) -> bool:
                scene.end()
                self.changes.append(1)
                return True

            def retire_thread(self) -> None:
                self.changes.append(-1)

        scene = Scene(1, Dispatcher(), replacements=1)
        scene.begin()
        scene.advance(2)
        assert Dispatcher.changes == [1, -1]
        assert scene.stuck.stuck_count == 0

    def test_that_the_system_refuses_is_told(self, heard: Heard) -> None:
        def refuse() -> bool:
            raise RuntimeError("can't start new thread")

        scene = Scene(1, SimpleNamespace(add_thread=refuse), replacements=1)
        scene.begin()
        scene.advance(1.5)
        assert heard.having("cannot replace the thread of a stuck request: can't start new thread")
        scene.end()


class TestTheDispatcher:
    def test_gets_no_thread_when_all_were_asked_to_stop(self) -> None:
        pool = ThreadedTaskDispatcher()
        assert pool.add_thread() is False
        pool.retire_thread()
        assert pool.stop_count == 0

    def test_never_loses_its_last_thread(self) -> None:
        pool = ThreadedTaskDispatcher()
        pool.threads.add(0)
        pool.retire_thread()
        assert pool.stop_count == 0
        pool.threads.add(1)
        pool.retire_thread()
        assert pool.stop_count == 1


def spin(environ: Any, start_response: Any) -> Any:
    while True:
        pass


@pytest.mark.skipif(not can_kill(), reason="this Python cannot do it")
class TestKilling:
    KILL = {"stuck_request_seconds": 0.1, "kill_stuck_seconds": 0.2, "threads": 1}

    @needs_stacks
    def test_answers_500_and_the_worker_lives(self, serve: Serve, heard: Heard) -> None:
        def application(environ: Any, start: Any) -> Any:
            return (spin if environ["PATH_INFO"] == "/slow" else hello)(environ, start)

        running = serve(application, **self.KILL)
        with running.connect() as wire:
            wire.send(request("GET", "/slow"))
            assert wire.read_answer().status == 500
        line = heard.wait_for("is being killed after")
        assert "in spin" in line
        heard.wait_for("was killed after")
        heard.wait_for("Exception while serving /slow")
        with running.connect() as wire:
            assert wire.get().body == b"hello"
        assert len(running.server.task_dispatcher.threads) == 1

    def test_cuts_a_response_that_has_begun_and_closes_the_iterable(
        self, serve: Serve, heard: Heard
    ) -> None:
        closed = threading.Event()

        class Endless:
            def __iter__(self) -> Iterator[bytes]:
                yield b"begun"
                while True:
                    pass

            def close(self) -> None:
                closed.set()

        def application(environ: Any, start: Any) -> Any:
            start("200 OK", [("Content-Length", "100")])
            return Endless()

        running = serve(application, **self.KILL)
        with running.connect() as wire:
            wire.send(request("GET", "/"))
            with pytest.raises(EOFError):
                wire.read_answer()
        assert closed.wait(PATIENCE)
        heard.wait_for("was killed after")

    def test_can_be_caught_and_is_not_repeated(self, serve: Serve, heard: Heard) -> None:
        def application(environ: Any, start: Any) -> Any:
            try:
                spin(environ, start)
            except StuckRequestKilled:
                return hello(environ, start)

        running = serve(application, **self.KILL)
        with running.connect() as wire:
            assert wire.get().body == b"hello"
        heard.wait_for("was killed after")
        assert len(heard.having("is being killed")) == 1

    def test_waits_until_the_application_is_called(self, heard: Heard) -> None:
        scene = Scene(1, kill_seconds=2)
        scene.begin()
        scene.advance(4)
        assert heard.having("killed") == []
        switch = scene.stuck.switch_for_this_thread()
        assert switch is not None
        assert scene.stuck.switch_for_this_thread() is None
        scene.advance(4)  # It is not armed.
        assert heard.having("killed") == []
        scene.end()

    def test_is_refused_where_the_interpreter_cannot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(killing, "_find_raiser", lambda: None)
        with pytest.raises(ValueError, match="This Python cannot raise an exception in another"):
            create_server(hello, host="127.0.0.1", port=0, **self.KILL)


class TestTheServer:
    def test_has_no_watch_unless_asked(self, serve: Serve) -> None:
        running = serve(hello)
        assert running.server.stuck is None
        assert running.server.is_live()
        assert running.server.observer.listening is False

    def test_of_several_addresses_has_one_watch(self, serve: Serve, heard: Heard) -> None:
        gate = Gate()
        running = serve(
            gate, listen="127.0.0.1:0 127.0.0.1:0", threads=1, stuck_request_seconds=0.1
        )
        assert running.server.is_live()
        with running.connect() as wire:
            wire.send(request("GET", "/"))
            heard.wait_for("has been running for")
            while running.server.is_live():
                running.call_in_loop(lambda: None)
            gate.opened.set()
            assert wire.read_answer().status == 200

    @pytest.mark.parametrize("name", ["replace_stuck_threads", "kill_stuck_seconds"])
    def test_refuses_what_has_no_meaning_alone(self, name: str) -> None:
        with pytest.raises(ValueError, match=f"{name} has no meaning without setting stuck_req"):
            create_server(hello, host="127.0.0.1", port=0, **{name: 1})
