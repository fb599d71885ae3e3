"""Task dispatchers of other people's: subclasses, replacements, patches from monitoring."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Running, hello, mirror, request
from waitress import create_server
from waitress.task import ThreadedTaskDispatcher

# -- a media manager: each worker has a database connection to close -----------------


class CleaningDispatcher(ThreadedTaskDispatcher):
    """Each thread opens something when it starts and closes it when it ends."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[int] = []
        self.closed: list[int] = []
        self.thread_names: set[str] = set()

    def handler_thread(self, thread_no: int) -> None:
        self.opened.append(thread_no)
        self.thread_names.add(threading.current_thread().name)
        try:
            super().handler_thread(thread_no)
        finally:
            self.closed.append(thread_no)

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        self.stopped_with = (cancel_pending, timeout)
        result: bool = super().shutdown(cancel_pending, timeout)
        return result


def test_threads_of_a_subclass_open_and_close_their_own_things(
    run_server: Callable[[Any], Running],
) -> None:
    dispatcher = CleaningDispatcher()
    server = create_server(hello, _dispatcher=dispatcher, host="127.0.0.1", port=0, threads=9)
    assert dispatcher.threads == set()  # nobody but its owner starts its threads
    dispatcher.set_thread_count(3)
    assert dispatcher.threads == {0, 1, 2}
    running = run_server(server)
    for _ in range(6):
        with running.connect() as wire:
            assert wire.get("/", "Connection: close").body == b"hello"
    while running.call_in_loop(lambda: len(server.active_channels)):
        pass  # The last connection's end is on its way.

    server.task_dispatcher.shutdown()
    server.close()
    server._map.clear()
    running.await_end()
    assert dispatcher.stopped_with == (True, 5)
    assert sorted(dispatcher.opened) == [0, 1, 2]
    assert sorted(dispatcher.closed) == [0, 1, 2]
    assert dispatcher.thread_names == {"waitress-0", "waitress-1", "waitress-2"}


def test_restart_on_the_same_dispatcher_is_possible(
    run_server: Callable[[Any], Running],
) -> None:
    dispatcher = CleaningDispatcher()
    for _ in range(2):
        dispatcher.set_thread_count(2)
        server = create_server(hello, _dispatcher=dispatcher, host="127.0.0.1", port=0)
        running = run_server(server)
        with running.connect() as wire:
            assert wire.get().status == 200
        running.stop()
    assert sorted(dispatcher.closed) == [0, 0, 1, 1]


# -- replacements --------------------------------------------------------------------


class PoolDispatcher:
    """Runs tasks in a pool of the standard library; has the two required methods only."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(2, thread_name_prefix="pool")

    def add_task(self, task: Any) -> None:
        self._pool.submit(task.service)

    def shutdown(self) -> None:
        self._pool.shutdown()


def test_dispatcher_with_two_methods_is_enough(serve: Callable[..., Running]) -> None:
    running = serve(hello, _dispatcher=PoolDispatcher())
    with running.connect() as wire:
        wire.send(request("GET", "/") * 3)
        assert [wire.read_answer().body for _ in range(3)] == [b"hello"] * 3


def test_dispatcher_may_be_replaced_on_a_running_server(
    serve: Callable[..., Running],
) -> None:
    names: list[str] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        names.append(threading.current_thread().name)
        return hello(environ, start_response)

    running = serve(application)
    with running.connect() as wire:
        assert wire.get().status == 200
        running.server.task_dispatcher.shutdown()
        running.server.task_dispatcher = PoolDispatcher()
        assert wire.get().status == 200
    assert names[0].startswith("waitress-")
    assert names[1].startswith("pool")


def test_channel_is_the_task_that_a_dispatcher_gets(serve: Callable[..., Running]) -> None:
    taken: Future[Any] = Future()

    class Holding:
        """Keeps the task for the test to run."""

        def add_task(self, task: Any) -> None:
            taken.set_result(task)

        def shutdown(self) -> None:
            """Nothing runs."""

    running = serve(hello, _dispatcher=Holding())
    with running.connect() as wire:
        wire.send(request("GET", "/page"))
        task = taken.result(PATIENCE)
        assert task in running.call_in_loop(lambda: list(running.server._map.values()))
        assert [each.path for each in task.requests] == ["/page"]
        task.service()
        assert wire.read_answer().body == b"hello"


def test_cancelled_channel_is_closed_without_an_answer(serve: Callable[..., Running]) -> None:
    taken: Future[Any] = Future()

    class Refusing:
        def add_task(self, task: Any) -> None:
            taken.set_result(task)

        def shutdown(self) -> None:
            """Nothing runs."""

    running = serve(hello, _dispatcher=Refusing())
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        taken.result(PATIENCE).cancel()
        assert wire.read_to_end() == b""


# -- monitoring ----------------------------------------------------------------------


def test_patch_of_add_task_on_the_class_sees_each_request(
    monkeypatch: pytest.MonkeyPatch, serve: Callable[..., Running]
) -> None:
    seen: list[tuple[str, int, int, int]] = []
    original = ThreadedTaskDispatcher.add_task

    def add_task(self: Any, task: Any) -> None:
        seen.append((type(task).__name__, len(self.queue), len(self.threads), self.stop_count))
        original(self, task)

    monkeypatch.setattr(ThreadedTaskDispatcher, "add_task", add_task)
    running = serve(hello, threads=3)
    with running.connect() as wire:
        assert wire.get().status == 200
        assert wire.get().status == 200
    assert seen == [("HTTPChannel", 0, 3, 0)] * 2


def test_counts_tell_who_is_busy_and_what_waits(
    serve: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    gate = Gate()
    running = serve(gate, threads=2)
    dispatcher = running.server.task_dispatcher
    while dispatcher.active_count:  # A thread that is on its way to the queue is busy.
        running.call_in_loop(lambda: None)
    wires = [running.connect() for _ in range(5)]
    for wire in wires:
        wire.send(request("GET", "/"))
    gate.await_entry()
    gate.await_entry()
    # All five have been read once the loop has run a thunk after each read.
    while len(dispatcher.queue) < 3:
        running.call_in_loop(lambda: None)
    assert (dispatcher.active_count, dispatcher.stop_count) == (2, 0)
    assert len(dispatcher.threads) == 2
    # The first is told at once, the largest so far a second later.
    while "Task queue depth is 3" not in caplog.messages:
        running.call_in_loop(lambda: None)
    gate.opened.set()
    for wire in wires:
        assert wire.read_answer().body == b"hello"
        wire.close()


# -- tasks of the owner's own --------------------------------------------------------


class Job:
    """A task that has nothing to do with a connection."""

    def __init__(self, function: Callable[[], Any]) -> None:
        self.function = function
        self.done = threading.Event()
        self.cancelled = False

    def service(self) -> None:
        try:
            self.function()
        finally:
            self.done.set()

    def cancel(self) -> None:
        self.cancelled = True


def test_any_object_with_service_and_cancel_is_a_task(serve: Callable[..., Running]) -> None:
    running = serve(hello, threads=1)
    job = Job(lambda: None)
    running.server.task_dispatcher.add_task(job)
    assert job.done.wait(PATIENCE)
    assert not job.cancelled


class Stop(BaseException):
    """Not an ``Exception``, as ``SystemExit`` is not."""


@pytest.mark.parametrize("kind", [ValueError, SystemExit, KeyboardInterrupt, Stop])
def test_worker_outlives_whatever_a_task_raises(
    kind: type[BaseException], serve: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise kind("on purpose")

    running = serve(hello, threads=1)
    job = Job(fail)
    running.server.task_dispatcher.add_task(job)
    assert job.done.wait(PATIENCE)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == f"Exception when servicing {job!r}"
    assert record.exc_info


def test_shutdown_cancels_what_is_queued_and_names_what_still_runs(
    caplog: pytest.LogCaptureFixture,
) -> None:
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(1)
    gate = threading.Event()
    running, waiting = Job(lambda: gate.wait(PATIENCE)), Job(lambda: None)
    dispatcher.add_task(running)
    while dispatcher.queue:
        threading.Event().wait(0.001)
    dispatcher.add_task(waiting)
    assert dispatcher.shutdown(timeout=0.01) is True
    assert waiting.cancelled
    assert not waiting.done.is_set()
    messages = [r.getMessage() for r in caplog.records if r.name == "waitress"]
    assert messages == ["1 thread(s) still running", "Canceling 1 pending task(s)"]
    gate.set()
    assert dispatcher.shutdown(cancel_pending=False) is False
    assert not dispatcher.threads


def test_shutdown_leaves_queued_tasks_alone_when_told_so() -> None:
    dispatcher = ThreadedTaskDispatcher()
    job = Job(lambda: None)
    dispatcher.queue.append(job)
    assert dispatcher.shutdown(cancel_pending=False, timeout=1) is False
    assert not job.cancelled
    assert list(dispatcher.queue) == [job]


def test_thread_count_follows_what_is_asked() -> None:
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(3)
    dispatcher.set_thread_count(1)
    with dispatcher.thread_exit_cv:
        assert dispatcher.thread_exit_cv.wait_for(lambda: len(dispatcher.threads) == 1, PATIENCE)
    dispatcher.set_thread_count(2)
    with dispatcher.lock:
        assert len(dispatcher.threads) - dispatcher.stop_count == 2
    dispatcher.shutdown()
    assert dispatcher.threads == set()


def test_worker_loop_can_be_run_in_the_callers_own_thread() -> None:
    dispatcher = ThreadedTaskDispatcher()
    ran: list[str] = []

    class Last(Job):
        def service(self) -> None:
            ran.append("last")
            with dispatcher.lock:
                dispatcher.stop_count += 1

    dispatcher.queue.append(Job(lambda: ran.append("first")))
    dispatcher.queue.append(Last(lambda: None))
    dispatcher.queue.append(Job(lambda: ran.append("never: stopping comes first")))
    dispatcher.threads.add(0)
    dispatcher.active_count += 1
    dispatcher.handler_thread(0)
    assert ran == ["first", "last"]
    assert (dispatcher.threads, dispatcher.stop_count, dispatcher.active_count) == (set(), 0, 0)


def test_threads_are_started_through_the_method_on_the_instance() -> None:
    dispatcher = ThreadedTaskDispatcher()
    started: list[tuple[Any, int]] = []
    dispatcher.start_new_thread = lambda target, number: started.append((target, number))
    dispatcher.set_thread_count(2)
    assert started == [(dispatcher.handler_thread, 0), (dispatcher.handler_thread, 1)]
    assert dispatcher.active_count == 2


def test_environ_is_the_same_under_a_replacement(serve: Callable[..., Running]) -> None:
    running = serve(mirror, _dispatcher=PoolDispatcher())
    with running.connect() as wire:
        seen = wire.get("/a?b=c", "X-Field: value").json
    assert (seen["PATH_INFO"], seen["QUERY_STRING"], seen["HTTP_X_FIELD"]) == ("/a", "b=c", "value")
