"""What each worker runs and what waits; and the stacks."""

from __future__ import annotations

import sys
import threading
from collections import deque
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.looping import InThread, await_event, needs_stacks
from tests.timelines import momentary_timeline
from waitress.activity import (
    QUEUED_SHOWN,
    Activity,
    CurrentRequest,
    WorkerState,
    oldest_queue_wait,
)
from waitress.stacks import MOST_FRAMES
from waitress.thread_dump import thread_dump


def request(path: str = "/a", **facts: Any) -> Any:
    return SimpleNamespace(request_id=7, command="GET", request_uri=path, **facts)


class QueuedChannel:
    """A task that waits, as a channel does."""

    addr = ("192.0.2.9", 99)

    def __init__(self, since: float, *requests: Any) -> None:
        self._since = since
        self.requests = list(requests)

    def queued_since(self) -> float:
        return self._since


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(100.0)


def dispatcher(*queue: Any, idents: dict[int, int] | None = None) -> Any:
    return SimpleNamespace(queue=deque(queue), thread_idents={} if idents is None else idents)


def in_a_worker(activity: Activity, *requests: Any) -> tuple[InThread, threading.Event]:
    """Have a thread begin the requests; it waits in the last one for the event."""
    begun, release = threading.Event(), threading.Event()

    def work() -> int:
        for each in requests:
            activity.running.request_started(each)
        begun.set()
        await_event(release)
        activity.running.request_serviced(requests[-1])
        return threading.get_ident()

    thread = InThread(work)
    await_event(begun)
    return thread, release


def test_a_worker_is_shown_with_its_request_until_that_is_served(clock: FakeClock) -> None:
    idents: dict[int, int] = {}
    activity = Activity(dispatcher(idents=idents), clock)
    facts = momentary_timeline(peer=("192.0.2.1", 5), response_started=None)
    worker, release = in_a_worker(activity, request("/slow?secret", timeline=facts))
    idents[3] = worker.thread.ident or 0
    clock.advance(2.5)
    current = CurrentRequest(7, "GET", "/slow", "192.0.2.1:5", 2.5, "application")
    assert activity.workers() == [WorkerState("test", idents[3], current)]
    facts.response_started = 101.0
    (told,) = activity.workers()
    assert told.request is not None
    assert told.request.stage == "response"
    release.set()
    worker.result()
    (told,) = activity.workers()
    assert told.request is None


def test_workers_are_told_in_the_order_of_their_numbers(clock: FakeClock) -> None:
    activity = Activity(dispatcher(idents={2: 22, 0: 11, 1: 33}), clock)
    assert [each.thread_id for each in activity.workers()] == [11, 33, 22]


def test_workers_have_the_names_of_their_threads(clock: FakeClock) -> None:
    """A dispatcher of the user's may call them what it likes."""
    mine = threading.current_thread()
    activity = Activity(dispatcher(idents={0: 11, 1: mine.ident or 0}), clock)
    assert [each.name for each in activity.workers()] == ["thread 11", mine.name]


@pytest.mark.parametrize(
    ("target", "shown"),
    [("/a%3Fb/%C3%A9?c=d", "/a%3Fb/%C3%A9"), ("http://u:secret@h/x", "http://h/x"), ("*", "*")],
)
def test_a_request_is_called_by_its_target_as_it_was_sent(
    clock: FakeClock, target: str, shown: str
) -> None:
    (told,) = Activity(dispatcher(QueuedChannel(90.0, request(target))), clock).queued()
    assert told.path == shown


def test_of_a_strange_dispatcher_those_threads_are_known_that_serve(clock: FakeClock) -> None:
    activity = Activity(object(), clock)
    worker, release = in_a_worker(activity, request())
    (told,) = activity.workers()
    assert told.name == worker.thread.name
    assert told.request is not None
    assert told.request.peer == ""
    release.set()
    worker.result()
    assert activity.workers() == []


def test_what_the_asking_thread_serves_is_the_question_itself(clock: FakeClock) -> None:
    activity = Activity(dispatcher(), clock)
    activity.running.request_started(request())
    assert activity.workers() == []


def test_whoever_ends_what_nobody_saw_begin_harms_nothing(clock: FakeClock) -> None:
    activity = Activity(dispatcher(), clock)
    activity.running.request_serviced(request())
    assert activity.running.snapshot() == {}


def test_queued_requests_are_told_oldest_first_with_their_wait(clock: FakeClock) -> None:
    queue = [QueuedChannel(90.0, request("/1")), QueuedChannel(98.0, request("/2"), request("/3"))]
    told = Activity(dispatcher(*queue), clock).queued()
    assert told == [
        CurrentRequest(7, "GET", "/1", "192.0.2.9:99", 10.0, ""),
        CurrentRequest(7, "GET", "/2", "192.0.2.9:99", 2.0, ""),
    ]


def test_not_all_of_a_long_queue_is_told(clock: FakeClock) -> None:
    queue = [QueuedChannel(90.0, request()) for _ in range(QUEUED_SHOWN + 5)]
    assert len(Activity(dispatcher(*queue), clock).queued()) == QUEUED_SHOWN


def test_tasks_that_are_no_channels_are_left_out(clock: FakeClock) -> None:
    strange = SimpleNamespace(requests=[request()], addr=None)
    told = Activity(dispatcher(object(), QueuedChannel(0.0), strange), clock).queued()
    assert [each.seconds for each in told] == [0.0]


def test_a_queue_that_changes_meanwhile_is_read_again(clock: FakeClock) -> None:
    class Restless(deque[Any]):
        turns = 0

        def __iter__(self) -> Any:
            self.turns += 1
            if self.turns < 3:
                raise RuntimeError("deque mutated during iteration")
            return super().__iter__()

    queue = Restless([QueuedChannel(90.0, request())])
    assert oldest_queue_wait(SimpleNamespace(queue=queue), 100.0) == 10.0


def test_the_oldest_wait_is_that_of_the_first() -> None:
    queue = dispatcher(QueuedChannel(90.0, request()), QueuedChannel(95.0, request()))
    assert oldest_queue_wait(queue, 100.0) == 10.0


@pytest.mark.parametrize("queue", [(), (object(),), (QueuedChannel(200.0, request()),)])
def test_where_nobody_is_known_to_wait_the_wait_is_0(queue: tuple[Any, ...]) -> None:
    assert oldest_queue_wait(dispatcher(*queue), 100.0) == 0.0
    assert oldest_queue_wait(object(), 100.0) == 0.0


# Stacks.


def waits_here(entered: threading.Event, release: threading.Event, depth: int = 0) -> None:
    if depth:
        waits_here(entered, release, depth - 1)
        return
    entered.set()
    await_event(release)


def dump_of_one_worker(current: CurrentRequest | None, depth: int = 0) -> str:
    entered, release = threading.Event(), threading.Event()
    thread = InThread(waits_here, entered, release, depth)
    await_event(entered)
    try:
        return thread_dump([WorkerState("waitress-0", thread.thread.ident or 0, current)])
    finally:
        release.set()
        thread.result()


@needs_stacks
def test_a_worker_s_stack_stands_below_its_request() -> None:
    current = CurrentRequest(7, "GET", "/slow", "192.0.2.1:5", 2.5, "application")
    first, *rest = dump_of_one_worker(current).splitlines()
    assert re_worker(first) == "request 7 for 2.500 s: GET /slow from 192.0.2.1:5"
    assert any("in waits_here" in line for line in rest)


def re_worker(line: str) -> str:
    head, _, told = line.partition("): ")
    assert head.startswith("Worker waitress-0 (thread ")
    return told


def test_idle_workers_and_requests_of_unknown_peers_are_told_too() -> None:
    assert re_worker(dump_of_one_worker(None).splitlines()[0]) == "runs no request"
    current = CurrentRequest(7, "GET", "/", "", 0.0, "application")
    assert dump_of_one_worker(current).splitlines()[0].endswith("GET /")


def test_no_path_can_pretend_to_be_a_line_of_its_own() -> None:
    current = CurrentRequest(7, "GET", "/\nWorker x", "", 0.0, "application")
    assert "GET /\\nWorker x" in dump_of_one_worker(current)


@needs_stacks
def test_of_a_deep_stack_the_innermost_frames_are_shown() -> None:
    text = dump_of_one_worker(None, depth=3 * MOST_FRAMES).partition("Other thread")[0]
    assert text.count("  File ") <= MOST_FRAMES
    assert "await_event" in text


@needs_stacks
def test_other_threads_follow_by_name_but_not_the_one_that_asks() -> None:
    entered, release = threading.Event(), threading.Event()
    thread = threading.Thread(target=waits_here, args=(entered, release), name="mine\n")
    thread.start()
    await_event(entered)
    text = thread_dump([])
    release.set()
    thread.join()
    assert f"Other thread mine\\n (thread {thread.ident})\n" in text
    assert f"(thread {threading.get_ident()})" not in text


def test_where_the_interpreter_tells_no_stacks_the_requests_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(sys, "_current_frames")
    assert (
        thread_dump([WorkerState("w", 5, None)])
        == "Worker w (thread 5): runs no request\n  (its stack is not known)\n"
    )
