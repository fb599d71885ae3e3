"""Warnings of what lasts: the first at once, few after it, and one that takes them back."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.looping import PATIENCE
from waitress.alerts import LONGEST_INTERVAL, Alert, watch_queue, watch_spool
from waitress.eventloop import EventLoop
from waitress.spool import SpoolBudget
from waitress.workers import ThreadedTaskDispatcher


class Scene:
    """A clock, a loop that is stepped by hand, and an alert."""

    def __init__(self, **kw: Any) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(clock=self.clock)
        self.told: list[Any] = []
        self.alert = Alert(
            self.loop,
            self.told.append,
            lambda seconds, size: self.told.append(("cleared", seconds, size)),
            **kw,
        )

    def advance(self, seconds: float, noting: int = 0) -> None:
        """Let time pass, in quarters of a second; note the condition at each."""
        for _ in range(int(seconds * 4)):
            self.clock.advance(0.25)
            if noting:
                self.alert.note_threadsafe(noting)
            self.step()

    def step(self) -> None:
        self.loop.drain_ready()
        self.loop._due_at = 0
        self.loop.tell_due()


class TestAnAlert:
    def test_tells_the_first_at_once(self) -> None:
        scene = Scene()
        scene.alert.note_threadsafe(3)
        assert scene.told == [3]
        assert scene.alert.is_raised

    def test_tells_the_largest_since_after_growing_intervals(self) -> None:
        scene = Scene()
        scene.alert.note_threadsafe(1)
        for size in (5, 9, 4):
            scene.alert.note_threadsafe(size)
        assert scene.told == [1]
        scene.advance(1.25)
        assert scene.told == [1, 9]
        scene.advance(10, noting=2)
        assert scene.told == [1, 9, 2, 2]

    def test_is_looked_after_when_the_loop_wakes_anyway(self) -> None:
        scene = Scene()
        scene.clock.advance(0.11)
        scene.alert.note_threadsafe(1)
        scene.alert.note_threadsafe(9)
        scene.clock.advance(0.01)
        scene.step()
        told = []
        for late in (0.003, 0.002, 0.001):
            assert scene.alert.is_raised
            look = scene.loop.deadlines.next_deadline()
            assert 0.8 < look - scene.clock.now <= 1
            scene.clock.now = look + late
            scene.step()
            told.append(len(scene.told))
        assert told == [2, 2, 3]
        assert scene.told[1:] == [9, ("cleared", pytest.approx(0.893), 9)]

    def test_never_tells_more_seldom_than_once_a_minute(self) -> None:
        scene = Scene()
        scene.advance(600, noting=1)
        count = len(scene.told)
        scene.advance(LONGEST_INTERVAL + 1, noting=1)
        assert len(scene.told) == count + 1

    def test_tells_when_it_has_gone_and_how_large_it_was(self) -> None:
        scene = Scene()
        scene.advance(3, noting=1)
        scene.alert.note_threadsafe(8)
        scene.advance(3)
        assert scene.told[-1][0] == "cleared"
        assert scene.told[-1][2] == 8
        assert not scene.alert.is_raised

    def test_asks_for_nothing_once_it_has_gone(self) -> None:
        scene = Scene()
        scene.alert.note_threadsafe()
        scene.advance(5)
        assert len(scene.loop.deadlines) == 0

    def test_lasts_as_long_as_it_is_said_to(self) -> None:
        size = [2]
        scene = Scene(renew=lambda: size[0])
        scene.alert.note_threadsafe(1)
        scene.advance(20)
        assert scene.alert.is_raised
        assert scene.told[:2] == [1, 2]
        size[0] = 0
        scene.advance(4)
        assert not scene.alert.is_raised

    def test_that_comes_and_goes_is_told_no_oftener_than_one_that_lasts(self) -> None:
        scene = Scene(interval=30)
        for _ in range(20):
            scene.alert.note_threadsafe(1)
            scene.advance(5)
        # At 0, and when it came again after 30 and after another 60 seconds.
        assert [each for each in scene.told if each == 1] == [1, 1, 1]
        assert len(scene.told) == 6  # Each is taken back, and nothing else is.

    def test_is_as_prompt_as_at_first_after_a_minute_of_rest(self) -> None:
        scene = Scene()
        scene.advance(300, noting=1)
        scene.advance(LONGEST_INTERVAL + 5)
        scene.told.clear()
        scene.advance(4.5, noting=1)
        assert scene.told == [1, 1, 1]

    def test_may_be_forgotten(self) -> None:
        scene = Scene()
        scene.alert.note_threadsafe()
        scene.step()
        assert len(scene.loop.deadlines) == 1
        scene.alert.forget()
        assert len(scene.loop.deadlines) == 0

    def test_logs_what_goes_wrong(self, caplog: pytest.LogCaptureFixture) -> None:
        def fail() -> int:
            raise LookupError

        scene = Scene(renew=fail)
        scene.alert.note_threadsafe()
        scene.advance(2)
        assert caplog.messages == ["Exception in an alert"]

    def test_is_told_by_one_of_many_threads(self) -> None:
        scene = Scene()
        barrier = threading.Barrier(4)

        def note() -> None:
            barrier.wait(PATIENCE)
            for _ in range(100):
                scene.alert.note_threadsafe(1)

        threads = [threading.Thread(target=note) for _ in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join(PATIENCE)
        assert scene.told == [1]


class Unserved:
    """A task for nobody."""

    def service(self) -> None: ...

    def cancel(self) -> None: ...


class TestTheDepthOfTheQueue:
    def test_is_told_at_once_and_then_seldom(self, caplog: pytest.LogCaptureFixture) -> None:
        scene = Scene()
        pool = ThreadedTaskDispatcher()
        watch_queue(scene.loop, pool)
        for _ in range(40):
            pool.add_task(Unserved())
        assert caplog.messages == ["Task queue depth is 1"]
        scene.advance(1.25)
        assert caplog.messages == ["Task queue depth is 1", "Task queue depth is 40"]
        assert {record.name for record in caplog.records} == {"waitress.queue"}
        pool.queue.clear()
        scene.advance(4)
        assert len(caplog.messages) == 3
        assert caplog.messages[2] == (
            "Task queue is short again: its depth was up to 40, for 1.2 s"
        )

    def test_reads_well_where_it_was_over_at_once(self, caplog):
        scene = Scene()
        pool = ThreadedTaskDispatcher()
        watch_queue(scene.loop, pool)
        pool.add_task(Unserved())
        pool.queue.clear()
        scene.advance(4)
        assert caplog.messages[1:] == [
            "Task queue is short again: its depth was up to 1, for less than a second"
        ]

    def test_lasts_while_tasks_wait_though_none_is_added(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        scene = Scene()
        pool = ThreadedTaskDispatcher()
        alert = watch_queue(scene.loop, pool)
        assert alert is not None
        pool.add_task(Unserved())
        scene.advance(10)
        assert alert.is_raised

    def test_costs_a_comparison_while_it_is_known(self) -> None:
        scene = Scene()
        pool = ThreadedTaskDispatcher()
        alert = watch_queue(scene.loop, pool)
        assert alert is not None
        noted: list[int] = []
        original: Callable[[int], None] = alert.note_threadsafe
        alert.note_threadsafe = lambda size=1: (noted.append(size), original(size))[1]  # type: ignore[method-assign]
        for _ in range(3):
            pool.add_task(Unserved())
        for _ in range(100):
            pool.queue.popleft()
            pool.add_task(Unserved())
        assert noted == [1, 2, 3]

    def test_of_a_dispatcher_of_another_kind_is_its_own_affair(self) -> None:
        assert watch_queue(Scene().loop, object()) is None


def test_spool_that_is_full_is_told_until_there_is_room(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    budget = SpoolBudget(100)
    watch_spool(scene.loop, budget, logging.getLogger("waitress.test"))
    assert budget.reserve(100)
    assert caplog.messages == []
    assert not budget.reserve(1)
    assert not budget.reserve(1)
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("temporary files have reached the spool limit of 100")

    class Waiter:
        def room_freed_threadsafe(self) -> None: ...

    waiter = Waiter()
    budget.add_waiter(waiter)
    scene.advance(10)
    budget.remove_waiter(waiter)
    scene.advance(4)
    assert caplog.messages[-1].startswith("temporary files have room again, after ")


def test_no_spool_at_all_is_no_news(caplog: pytest.LogCaptureFixture) -> None:
    budget = SpoolBudget(0)
    watch_spool(Scene().loop, budget, logging.getLogger("waitress.test"))
    assert not budget.reserve(1)
    assert caplog.messages == []
