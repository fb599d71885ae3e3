"""What SIGUSR1 writes to the log."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.compat.live import Gate, Running, map_of, request
from tests.looping import PATIENCE, needs_stacks
from tests.test_stuck import Heard
from tests.test_stuck import heard as heard  # a fixture
from tests.timelines import make_timeline
from waitress import runner
from waitress.config import Config
from waitress.dump import MOST_TASKS, Dump, RecentRequests, dump_on_signal
from waitress.eventloop import EventLoop
from waitress.timeline import Timeline
from waitress.wasyncore import event_loop_of

pytestmark = pytest.mark.skipif(
    not hasattr(signal, "SIGUSR1"), reason="this platform has no such signal"
)


def timeline(request_id: int, **kw: Any) -> Timeline:
    facts: dict[str, Any] = {"first_byte": 10.0, "ended": 10.25, "bytes_out": 20, **kw}
    return make_timeline(request_id=request_id, **facts)


class TestTheText:
    @needs_stacks
    def test_tells_what_each_thread_serves_and_what_waits(
        self, serve: Callable[..., Running]
    ) -> None:
        gate = Gate()
        running = serve(gate, threads=1)
        server = running.server
        with running.connect() as first, running.connect() as second:
            first.send(request("GET", "/one"))
            gate.await_entry()
            second.send(request("GET", "/two?x"))
            while not server.task_dispatcher.queue:
                running.call_in_loop(lambda: None)
            worker = next(t for t in threading.enumerate() if t.name == "waitress-0")
            (served,) = [
                channel.requests[0]
                for channel in server.active_channels.values()
                if channel.requests[0].path == "/one"
            ]
            served.timeline = SimpleNamespace(worker=worker.ident)
            dump = Dump(event_loop_of(map_of(server)), server.task_dispatcher)
            text = running.call_in_loop(dump.text)
            gate.opened.set()
            first.read_answer()
            second.read_answer()
        assert ", serving request " in text
        assert '"GET /one HTTP/1.1" from 127.0.0.1:' in text
        assert "thread waitress-0, serving" in text
        assert "self.opened.wait(PATIENCE)" in text
        assert "task queue: 1 tasks" in text
        assert '"GET /two HTTP/1.1" from 127.0.0.1:' in text
        assert "requests that ended" not in text

    def test_tells_the_last_requests_the_latest_at_the_end(self) -> None:
        recent = RecentRequests(2)
        for number in (1, 2):
            recent.timeline_ended(timeline(number))
        recent.timeline_ended(timeline(3, first_byte=None, status="", termination="CH"))
        text = Dump(EventLoop(), None, recent).text()
        assert text.splitlines()[-3:] == [
            "requests that ended last: 2, the latest at the end",
            '  request 2: "GET /p HTTP/1.1" from 192.0.2.1:4711, 200 --, 80 bytes in, '
            "20 bytes out, 0.250 s",
            '  request 3: "GET /p HTTP/1.1" from 192.0.2.1:4711, - CH, 80 bytes in, '
            "20 bytes out, -",
        ]

    def test_of_a_long_queue_is_short(self) -> None:
        queue = deque(["a task"] * (MOST_TASKS + 5))
        lines = Dump(EventLoop(), SimpleNamespace(queue=queue)).text().splitlines()
        assert lines.count("  'a task'") == MOST_TASKS
        assert lines[-1] == "  and 5 more"

    def test_that_cannot_be_written_ends_nothing(self, heard: Heard) -> None:
        loop = EventLoop()
        dump = Dump(loop, SimpleNamespace(queue=3))
        dump.ask_threadsafe()
        loop.drain_ready()
        assert heard.lines == ["Exception while writing what the server is doing"]


@pytest.fixture
def default_action() -> Iterator[None]:
    before = signal.signal(signal.SIGUSR1, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("default_action")
class TestTheSignal:
    def test_is_answered_by_the_loop_in_its_wait(
        self, serve: Callable[..., Running], heard: Heard
    ) -> None:
        running = serve(lambda environ, start: [])
        undo = dump_on_signal(running.server)
        os.kill(os.getpid(), signal.SIGUSR1)
        heard.wait_for("what the server is doing: ")
        undo()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

    def test_subscribes_to_timelines_where_some_are_kept(self) -> None:
        subscribed: list[Any] = []
        server = SimpleNamespace(
            map=EventLoop().map, task_dispatcher=None, subscribe_timelines=subscribed.append
        )
        undo = dump_on_signal(server, recent_requests=5)
        assert subscribed[0].timelines.maxlen == 5
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        undo()  # Somebody else's is left in place.
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN
        undo_nothing = dump_on_signal(server)
        undo_nothing()
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_IGN

    def test_is_not_taken_in_another_thread(self) -> None:
        undone: list[Any] = []
        thread = threading.Thread(target=lambda: undone.append(dump_on_signal(None)))
        thread.start()
        thread.join(PATIENCE)
        assert undone[0]() is None
        assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL

    def test_is_not_taken_where_there_is_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(signal, "SIGUSR1")
        assert dump_on_signal(None)() is None  # type: ignore[func-returns-value]


@pytest.mark.usefixtures("default_action", "no_leaks")
def test_command_takes_the_signal_until_its_end() -> None:
    with contextlib.ExitStack() as at_end:
        server = runner._make_server(
            at_end, Config(), lambda environ, start: [], host="127.0.0.1", port=0
        )
        assert signal.getsignal(signal.SIGUSR1) is not signal.SIG_DFL
        server.close()
        server.task_dispatcher.shutdown()
    assert signal.getsignal(signal.SIGUSR1) is signal.SIG_DFL


@needs_stacks
def test_command_answers_the_signal_and_serves_on() -> None:
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "waitress",
            "--listen=127.0.0.1:0",
            "wsgiref.simple_server:demo_app",
        ],
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        assert "Serving on" in process.stderr.readline()
        for _ in range(2):
            process.send_signal(signal.SIGUSR1)
            assert "what the server is doing: 5 threads" in process.stderr.readline()
            while not process.stderr.readline().startswith("task queue: 0 tasks"):
                pass
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
