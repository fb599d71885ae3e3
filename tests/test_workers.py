"""The pool of workers: order, wake-ups, counts, and its end."""

from __future__ import annotations

import builtins
import gc
import logging
import os
import signal
import sys
import threading
import time
import weakref
from collections import deque
from math import inf
from types import SimpleNamespace

import pytest

from tests.looping import PATIENCE, InThread, Raises, await_event
from waitress import parking, workers
from waitress import task as task_module
from waitress.parking import Parker, has_semaphores
from waitress.utilities import logger, queue_logger
from waitress.workers import ThreadedTaskDispatcher

pytestmark = pytest.mark.usefixtures("no_leaks")


class Job:
    """A task that says when it runs, and runs until it is let go."""

    def __init__(self, held=False, error=None):
        self.begun = threading.Event()
        self.may_end = threading.Event()
        self.ended = threading.Event()
        self.cancelled = False
        self.error = error
        self.thread_name = None
        if not held:
            self.may_end.set()

    def __repr__(self):
        return "<Job>"

    def service(self):
        self.thread_name = threading.current_thread().name
        self.begun.set()
        await_event(self.may_end)
        self.ended.set()
        if self.error is not None:
            raise self.error

    def cancel(self):
        self.cancelled = True


class RecordingThreads(ThreadedTaskDispatcher):
    """Starts no threads, and remembers which were wanted."""

    def __init__(self):
        super().__init__()
        self.started = []

    def start_new_thread(self, target, thread_no):
        assert target == self.handler_thread
        self.started.append(thread_no)


@pytest.fixture
def pool():
    dispatcher = ThreadedTaskDispatcher()
    yield dispatcher
    dispatcher.shutdown(timeout=PATIENCE)


@pytest.fixture
def unstarted():
    return RecordingThreads()


class WatchedCondition(threading.Condition):
    """Tells how often somebody has begun to wait."""

    def __init__(self, lock):
        super().__init__(lock)
        self.waits = threading.Semaphore(0)

    def wait(self, timeout=None):
        self.waits.release()
        return super().wait(timeout)


class CheckedLock:
    """A lock that looks, whenever it is given back, whether something holds."""

    def __init__(self, invariant):
        self._lock = threading.Lock()
        self._invariant = invariant
        self.violations = 0

    def acquire(self, blocking=True, timeout=-1):
        return self._lock.acquire(blocking, timeout)

    def release(self):
        self.violations += not self._invariant()
        self._lock.release()

    def __enter__(self):
        return self.acquire()

    def __exit__(self, *exc_info):
        self.release()


def all_idle(dispatcher):
    """Wait until every worker sleeps, and return whether that came."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        with dispatcher.lock:
            if dispatcher.active_count == 0:
                return True
        os.sched_yield()
    return False


def watch_sleeps(parker):
    """Return a semaphore that is released each time before somebody sleeps there."""
    sleeps, park = threading.Semaphore(0), parker.park

    def watched():
        sleeps.release()
        park()

    parker.park = watched
    return sleeps


needs_pthread_kill = pytest.mark.skipif(
    not hasattr(signal, "pthread_kill"), reason="signals cannot be sent to threads"
)


def messages(caplog, name):
    return [each.getMessage() for each in caplog.records if each.name == name]


class TestTasksThatAreAddedTogether:
    def test_are_queued_in_order_by_who_holds_the_wake_ups(self, unstarted):
        jobs = [Job(), Job(), Job()]
        unstarted.hold_wakeups()
        assert unstarted.add_gathered(jobs)
        assert list(unstarted.queue) == jobs

    def test_are_warned_of_when_workers_are_woken(self, unstarted, caplog):
        unstarted.hold_wakeups()
        unstarted.add_gathered([Job(), Job()])
        assert not caplog.messages
        unstarted.wake_first()
        assert caplog.messages == ["Task queue depth is 2"]

    def test_are_not_taken_from_anybody_else(self, unstarted):
        assert not unstarted.add_gathered([Job()])
        unstarted.hold_wakeups()
        assert not InThread(unstarted.add_gathered, [Job()]).result()
        unstarted.wake_first()
        assert not unstarted.add_gathered([Job()])
        assert not unstarted.queue

    @pytest.mark.parametrize("where", ["subclass", "instance", "class", "another's", "wrapper"])
    def test_are_left_to_an_add_task_of_somebody_s_own(self, where, monkeypatch):
        class Own(ThreadedTaskDispatcher):
            def add_task(self, task):
                """Never called here."""

        dispatcher = Own() if where == "subclass" else ThreadedTaskDispatcher()
        if where == "instance":
            dispatcher.add_task = list
        if where == "class":
            monkeypatch.setattr(ThreadedTaskDispatcher, "add_task", Own.add_task)
        if where == "another's":
            dispatcher.add_task = ThreadedTaskDispatcher().add_task
        if where == "wrapper":  # As tools that trace put them around methods.
            dispatcher.add_task = SimpleNamespace(
                __func__=ThreadedTaskDispatcher.add_task, __self__=dispatcher
            )
        dispatcher.hold_wakeups()
        assert not dispatcher.add_gathered([Job()])
        assert not dispatcher.queue


class TestANewDispatcher:
    def test_has_what_monitoring_looks_at(self, unstarted):
        assert unstarted.threads == set()
        assert list(unstarted.queue) == []
        assert unstarted.stop_count == unstarted.active_count == 0
        assert ThreadedTaskDispatcher.stop_count == ThreadedTaskDispatcher.active_count == 0
        assert unstarted.logger is logger
        assert unstarted.queue_logger is queue_logger

    def test_has_conditions_on_its_one_lock(self, unstarted):
        for condition in (unstarted.queue_cv, unstarted.thread_exit_cv):
            with unstarted.lock:
                condition.notify_all()  # Raises unless the lock is held.
            with pytest.raises(RuntimeError):
                condition.notify_all()

    def test_is_found_where_it_always_was(self):
        assert task_module.ThreadedTaskDispatcher is ThreadedTaskDispatcher


class TestServing:
    def test_is_done_by_a_daemon_thread_with_a_name(self, pool):
        before = set(threading.enumerate())
        pool.set_thread_count(1)
        (thread,) = set(threading.enumerate()) - before
        assert thread.daemon
        job = Job()
        pool.add_task(job)
        await_event(job.ended)
        assert job.thread_name == "waitress-0"

    def test_is_in_the_order_of_arrival(self, pool):
        pool.set_thread_count(1)
        first = Job(held=True)
        pool.add_task(first)
        await_event(first.begun)
        order = []

        class Numbered:
            def __init__(self, number):
                self.number = number

            def service(self):
                order.append(self.number)

        for number in range(20):
            pool.add_task(Numbered(number))
        last = Job()
        pool.add_task(last)
        first.may_end.set()
        await_event(last.ended)
        assert order == list(range(20))

    def test_is_parallel(self, pool):
        pool.set_thread_count(3)
        jobs = [Job(held=True) for _ in range(3)]
        for each in jobs:
            pool.add_task(each)
        for each in jobs:
            await_event(each.begun)
        for each in jobs:
            each.may_end.set()

    def test_wakes_a_sleeper_for_every_task(self, pool):
        pool.set_thread_count(2)
        for _ in range(200):
            assert all_idle(pool)
            jobs = [Job(held=True), Job(held=True)]
            for each in jobs:
                pool.add_task(each)
            for each in jobs:
                await_event(each.begun)
            for each in jobs:
                each.may_end.set()

    @pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt()])
    def test_survives_whatever_a_task_raises(self, pool, caplog, error):
        pool.set_thread_count(1)
        broken, after = Job(error=error), Job()
        pool.add_task(broken)
        pool.add_task(after)
        await_event(after.ended)
        assert messages(caplog, "waitress") == ["Exception when servicing <Job>"]
        assert any(each.exc_info and each.exc_info[1] is error for each in caplog.records)

    def test_tells_a_task_that_its_service_failed(self, pool, caplog):
        """And survives what that raises in turn."""
        told = []

        class Failing(Job):
            def service_failed(self):
                told.append(threading.current_thread().name)
                raise LookupError("again")

        pool.set_thread_count(1)
        pool.add_task(Failing(error=LookupError("x")))
        after = Job()
        pool.add_task(after)
        await_event(after.ended)
        assert told == ["waitress-0"]
        assert messages(caplog, "waitress") == [
            "Exception when servicing <Job>",
            "Exception when ending <Job>",
        ]

    def test_keeps_nothing_of_the_last_task_alive(self, pool):
        pool.set_thread_count(1)
        job = Job()
        gone = weakref.ref(job)
        ended = job.ended
        pool.add_task(job)
        await_event(ended)
        del job
        assert all_idle(pool)
        gc.collect()
        assert gone() is None

    def test_can_be_wrapped_by_a_subclass(self):
        events = []

        class Wrapping(ThreadedTaskDispatcher):
            def handler_thread(self, thread_no):
                events.append(("begin", thread_no))
                super().handler_thread(thread_no)
                events.append(("end", thread_no))

        dispatcher = Wrapping()
        dispatcher.set_thread_count(1)
        dispatcher.shutdown(timeout=PATIENCE)
        # The thread is counted out before it is gone.
        for each in threading.enumerate():
            if each.name == "waitress-0":
                each.join(PATIENCE)
        assert events == [("begin", 0), ("end", 0)]

    def test_can_be_done_in_the_current_thread(self, unstarted):
        unstarted.threads.add(0)
        unstarted.active_count = 1
        served = []

        class Last:
            def service(self):
                served.append(self)
                unstarted.stop_count += 1

        task = Last()
        unstarted.queue.append(task)
        unstarted.handler_thread(0)
        assert served == [task]
        assert unstarted.threads == set()
        assert unstarted.stop_count == unstarted.active_count == 0

    def test_gives_stopping_precedence_over_what_is_queued(self, unstarted):
        unstarted.threads.add(0)
        unstarted.active_count += 1
        unstarted.stop_count += 1
        unstarted.queue.append(Job())
        unstarted.handler_thread(0)
        assert len(unstarted.queue) == 1
        assert unstarted.stop_count == unstarted.active_count == 0


class TestSleepers:
    """Workers that wait for something to do."""

    class Parker:
        def __init__(self):
            self.wakeups = 0
            #: How many of them left the interpreter.
            self.left = 0

        def unpark(self):
            self.wakeups += 1

        def unpark_and_leave(self):
            self.wakeups += 1
            self.left += 1

    def asleep(self, unstarted, count):
        parkers = [self.Parker() for _ in range(count)]
        unstarted._idle.extend(parkers)
        return parkers

    def test_are_woken_one_for_each_task_the_last_to_fall_asleep_first(self, unstarted):
        parkers = self.asleep(unstarted, 3)
        unstarted.add_task(Job())
        assert [parker.wakeups for parker in parkers] == [0, 0, 1]
        unstarted.add_task(Job())
        assert [parker.wakeups for parker in parkers] == [0, 1, 1]

    def test_sleep_on_while_wakeups_are_held(self, unstarted):
        parkers = self.asleep(unstarted, 3)
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        unstarted.add_task(Job())
        assert [parker.wakeups for parker in parkers] == [0, 0, 0]
        unstarted.wake_first()
        assert [parker.wakeups for parker in parkers] == [0, 0, 1]
        unstarted.add_task(Job())  # Held no more.
        assert [parker.wakeups for parker in parkers] == [0, 1, 1]

    def test_are_woken_for_what_the_first_one_has_left(self, unstarted):
        parkers = self.asleep(unstarted, 4)
        unstarted.hold_wakeups()
        for _ in range(3):
            unstarted.add_task(Job())
        unstarted.wake_first()
        unstarted.queue.popleft()
        unstarted.wake_rest()
        assert [parker.wakeups for parker in parkers] == [0, 1, 1, 1]

    def test_are_all_woken_for_more_tasks_than_they_are(self, unstarted):
        parkers = self.asleep(unstarted, 2)
        unstarted.hold_wakeups()
        for _ in range(3):
            unstarted.add_task(Job())
        unstarted.wake_first()
        unstarted.wake_rest()
        assert [parker.wakeups for parker in parkers] == [1, 1]

    def test_sleep_on_where_there_is_nothing_to_do(self, unstarted):
        parkers = self.asleep(unstarted, 2)
        unstarted.hold_wakeups()
        unstarted.wake_first()
        unstarted.wake_rest()
        assert [parker.wakeups for parker in parkers] == [0, 0]

    def test_that_are_none_need_not_be_woken(self, unstarted):
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        unstarted.wake_first()
        unstarted.wake_rest()
        assert len(unstarted.queue) == 1

    def test_are_woken_by_the_next_where_an_interruption_prevented_it(self, unstarted):
        parkers = self.asleep(unstarted, 2)
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        unstarted.wake_rest()  # Without the first: the loop was interrupted, and runs again.
        unstarted.add_task(Job())
        assert [parker.wakeups for parker in parkers] == [1, 1]

    @pytest.mark.parametrize("notifies", [False, True])
    def test_are_woken_again_where_nothing_was_added_before_an_interruption(
        self, unstarted, notifies
    ):
        (parker,) = self.asleep(unstarted, 1)
        unstarted._notifies = notifies
        unstarted.hold_wakeups()
        unstarted.wake_rest()
        InThread(unstarted.add_task, Job()).result()
        assert parker.wakeups == 1

    def test_are_woken_again_by_who_was_interrupted_between_the_steps_of_another(self, unstarted):
        """Two loops share the workers."""
        (parker,) = self.asleep(unstarted, 1)
        unstarted.hold_wakeups()
        InThread(unstarted.wake_first).result()
        unstarted._gatherer = threading.get_ident()  # As hold_wakeups() sets it last.
        unstarted.wake_rest()
        unstarted.add_task(Job())
        assert parker.wakeups == 1

    def test_are_woken_for_those_that_gave_way(self, unstarted, caplog):
        parkers = self.asleep(unstarted, 2)
        unstarted.threads.update(range(2))
        unstarted.given_way.extend(Job() for _ in range(4))
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        unstarted.wake_first()
        unstarted.queue.popleft()
        assert messages(caplog, "waitress.queue") == ["Task queue depth is 3"]
        assert [parker.wakeups for parker in parkers] == [0, 1]
        unstarted.wake_rest()
        assert [parker.wakeups for parker in parkers] == [1, 1]

    def test_are_woken_for_the_first_where_all_gave_way(self, unstarted):
        (parker,) = self.asleep(unstarted, 1)
        unstarted.given_way.append(Job())
        unstarted.hold_wakeups()
        unstarted.wake_first()
        assert parker.wakeups == 1

    def test_are_left_the_interpreter_where_the_loop_says_so(self, unstarted):
        parkers = self.asleep(unstarted, 3)
        unstarted.hold_wakeups()
        for _ in range(2):
            unstarted.add_task(Job())
        unstarted.wake_first(True)
        assert [(parker.wakeups, parker.left) for parker in parkers] == [(0, 0), (0, 0), (1, 1)]
        unstarted.wake_rest()
        assert [(parker.wakeups, parker.left) for parker in parkers] == [(1, 0), (1, 0), (1, 1)]

    def test_are_left_the_interpreter_when_the_lock_is_free(self, unstarted):
        (parker,) = self.asleep(unstarted, 1)
        parker.unpark_and_leave = lambda: locked.append(unstarted.lock.locked())
        locked = []
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        unstarted.wake_first(True)
        assert locked == [False]

    def test_are_woken_again_where_one_was_called_and_its_caller_interrupted(self, unstarted):
        (parker,) = self.asleep(unstarted, 1)
        parker.unpark_and_leave = Raises(KeyboardInterrupt())
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        with pytest.raises(KeyboardInterrupt):
            unstarted.wake_first(True)
        unstarted.wake_rest()  # As the loop does that runs again.
        assert parker.wakeups == 1

    def test_are_woken_again_to_stop_where_who_told_them_was_interrupted(self, unstarted):
        parkers = self.asleep(unstarted, 2)
        unstarted.threads.update(range(2))
        parkers[1].unpark = Raises(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            unstarted.set_thread_count(0)
        del parkers[1].unpark
        unstarted.set_thread_count(0)
        assert [parker.wakeups for parker in parkers] == [1, 1]
        assert unstarted.stop_count == 2

    def test_are_told_of_once_where_many_tasks_are_added_together(self, unstarted, caplog):
        self.asleep(unstarted, 1)
        unstarted.threads.add(0)
        unstarted.hold_wakeups()
        for _ in range(4):
            unstarted.add_task(Job())
        assert messages(caplog, "waitress.queue") == []
        unstarted.wake_first()
        unstarted.wake_rest()
        assert messages(caplog, "waitress.queue") == ["Task queue depth is 3"]

    def test_are_woken_for_what_another_thread_adds_while_wakeups_are_held(self, unstarted):
        (parker,) = self.asleep(unstarted, 1)
        unstarted.hold_wakeups()
        InThread(unstarted.add_task, Job()).result()
        assert parker.wakeups == 0
        unstarted.wake_first()
        assert parker.wakeups == 1
        assert len(unstarted.queue) == 1

    @pytest.mark.parametrize("asks", [False, True], ids=["in order", "asked"])
    def test_fall_asleep_where_another_took_what_was_there(self, pool, asks):
        class Vanishing(deque):
            """Gives its task to another worker first."""

            def popleft(self):
                super().popleft()
                gone.set()
                return super().popleft()

        gone = threading.Event()
        pool.queue = Vanishing()
        pool._asks = asks
        pool.set_thread_count(1)
        assert all_idle(pool)
        pool.add_task(Job())
        await_event(gone)
        assert all_idle(pool)
        left = Job()
        with pool.lock:
            pool.queue.extend([Job(), left])
            pool._wake_one_locked()
        await_event(left.ended)

    def test_pass_over_a_task_that_was_taken_while_it_was_asked(self, unstarted):
        class Taken(Job):
            def gives_way(self, newest_first):
                if unstarted.queue[-1] is self:
                    unstarted.queue.pop()
                return True

        chosen = Job()
        unstarted.queue.extend([chosen, Taken()])
        unstarted.note_giving_way(True)
        unstarted.queue.reverse()
        assert unstarted._choose_locked() is chosen
        assert not unstarted.given_way

    def test_are_not_told_of_again_where_nothing_was_added(self, unstarted, caplog):
        unstarted.hold_wakeups()
        unstarted.add_task(Job())
        unstarted.wake_first()
        caplog.clear()
        unstarted.hold_wakeups()
        unstarted.wake_first()
        assert messages(caplog, "waitress.queue") == []

    def test_are_given_tasks_though_telling_of_them_fails(self, unstarted, caplog):
        (parker,) = self.asleep(unstarted, 1)
        unstarted.threads.add(0)
        unstarted.depth_alert = SimpleNamespace(note_threadsafe=lambda depth: 1 // 0)
        unstarted.hold_wakeups()
        for _ in range(2):
            unstarted.add_task(Job())
        unstarted.wake_first()
        assert parker.wakeups == 1
        assert "ZeroDivisionError" in caplog.text

    def test_pass_over_a_task_whose_comparison_lets_others_work(self, unstarted):
        class Compared(Job):
            __hash__ = object.__hash__

            def __eq__(self, other):
                if len(unstarted.queue) < 3:
                    unstarted.queue.append(Job())
                return self is other

        first, second = Compared(), Compared()
        unstarted.queue.extend([first, second])
        assert unstarted.withdraw(second)
        assert second not in list(unstarted.queue)[:2]
        assert not unstarted.withdraw(Job())

    def test_touch_a_queue_of_somebodys_own_under_the_lock_only(self, pool):
        class Own(deque):
            def append(self, task):
                held.append(pool.lock.locked())
                super().append(task)

            def popleft(self):
                held.append(pool.lock.locked())
                return super().popleft()

        held = []
        pool.queue = Own()
        pool.set_thread_count(1)
        assert all_idle(pool)
        jobs = Job(), Job()
        pool.hold_wakeups()
        for job in jobs:
            pool.add_task(job)
        pool.wake_first()
        pool.wake_rest()
        for job in jobs:
            await_event(job.ended)
        assert held == [True] * 4

    def test_are_notified_where_they_wait_in_their_own_way(self, caplog):
        class Waiting(RecordingThreads):
            def handler_thread(self, thread_no):
                """Wait for the next task as the workers of earlier releases did."""
                with self.lock:
                    while not self.queue:
                        self.queue_cv.wait()
                    return self.queue.popleft()

        dispatcher = Waiting()
        worker = InThread(dispatcher.handler_thread, 0)
        job = Job()
        dispatcher.hold_wakeups()
        dispatcher.add_task(job)
        assert worker.result() is job

    def test_find_their_parker_where_who_woke_them_was_interrupted(self, pool):
        pool.set_thread_count(1)
        assert all_idle(pool)
        (parker,) = pool._idle
        job = Job()
        with pool.lock:
            pool.queue.append(job)
            parker.unpark()
        await_event(job.ended)
        assert all_idle(pool)
        assert list(pool._idle) == [parker]
        assert pool.active_count == 0

    def test_that_wake_for_nothing_sleep_on(self, pool):
        pool.set_thread_count(1)
        assert all_idle(pool)
        (parker,) = pool._idle
        sleeps = watch_sleeps(parker)
        for _ in range(3):
            parker.unpark()
            assert sleeps.acquire(timeout=PATIENCE)
        assert all_idle(pool)
        assert list(pool._idle) == [parker]

    @needs_pthread_kill
    def test_that_a_signal_wakes_sleep_on(self, pool):
        """The system may deliver it to any thread."""
        pool.set_thread_count(1)
        assert all_idle(pool)
        previous = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            for _ in range(3):
                signal.pthread_kill(pool.thread_idents[0], signal.SIGUSR1)
                job = Job()
                pool.add_task(job)
                await_event(job.ended)
                assert all_idle(pool)
        finally:
            signal.signal(signal.SIGUSR1, previous)
        assert len(pool._idle) == 1

    @pytest.mark.parametrize("has_them", [False, True])
    def test_sleep_on_semaphores_where_threads_are_plain_ones(self, monkeypatch, has_them):
        class Kind(Parker):
            """Tells what it was asked to be; it sleeps on a lock."""

            def __init__(self, uses_semaphore):
                super().__init__()
                self.kind = "semaphore" if uses_semaphore else "lock"

        monkeypatch.setattr(workers, "Parker", Kind)
        monkeypatch.setattr(workers, "has_semaphores", lambda: has_them)

        class GreenThreads(ThreadedTaskDispatcher):
            def start_new_thread(self, target, thread_no):
                super().start_new_thread(target, thread_no)

        def use_them(dispatcher):
            dispatcher.set_thread_count(1)
            assert all_idle(dispatcher)
            (parker,) = dispatcher._idle
            return parker.kind == "semaphore"

        pool, green, patched = ThreadedTaskDispatcher(), GreenThreads(), ThreadedTaskDispatcher()
        patched.start_new_thread = lambda *args: pool.start_new_thread(*args)
        assert use_them(pool) is has_them
        assert not use_them(green)
        assert not use_them(patched)
        for dispatcher in (pool, green, patched):
            dispatcher.shutdown(timeout=PATIENCE)

    @pytest.mark.skipif(not has_semaphores(), reason="threads do not sleep on semaphores here")
    def test_import_nothing(self, monkeypatch):
        """A child that is forked meanwhile could never import it."""
        asked, importing = [], __import__

        def watched(*args):
            asked.append(threading.current_thread().name)
            return importing(*args)

        parking._c_library.cache_clear()
        pool = ThreadedTaskDispatcher()
        monkeypatch.setattr(builtins, "__import__", watched)
        pool.set_thread_count(2)
        assert all_idle(pool)
        pool.shutdown(timeout=PATIENCE)
        assert set(asked) == {threading.current_thread().name}

    def test_are_all_woken_where_each_task_waits_for_the_others(self, pool):
        pool.set_thread_count(8)
        all_idle(pool)
        barrier = threading.Barrier(8)
        jobs = [SimpleNamespace(service=lambda: barrier.wait(PATIENCE)) for _ in range(8)]
        ended = Job()
        for job in jobs:
            pool.add_task(job)
        pool.add_task(ended)
        await_event(ended.ended)
        assert not barrier.broken


class TestTheNumberOfThreads:
    def test_grows_with_the_lowest_numbers_that_are_free(self, unstarted):
        unstarted.threads.add(1)
        unstarted.set_thread_count(4)
        assert unstarted.started == [0, 2, 3]
        assert unstarted.threads == {0, 1, 2, 3}
        assert unstarted.active_count == 3

    def test_stays_when_it_is_right(self, unstarted):
        unstarted.threads = {0, 1}
        unstarted.set_thread_count(2)
        assert unstarted.started == []
        assert unstarted.stop_count == 0

    def test_counts_those_that_are_about_to_stop_out(self, unstarted):
        unstarted.threads = {0, 1}
        unstarted.stop_count = 1
        unstarted.set_thread_count(2)
        assert unstarted.started == [2]

    def test_shrinks_by_asking_some_to_stop(self, unstarted):
        unstarted.threads = {0, 1, 2}
        unstarted.set_thread_count(1)
        assert unstarted.stop_count == 2
        assert unstarted.threads == {0, 1, 2}

    def test_is_left_as_it_is_when_the_system_has_no_more(self, unstarted):
        def refuse(target, thread_no):
            if thread_no == 1:
                raise RuntimeError("can't start new thread")

        unstarted.start_new_thread = refuse
        with pytest.raises(RuntimeError, match="can't start"):
            unstarted.set_thread_count(3)
        assert unstarted.threads == {0}
        assert unstarted.active_count == 1
        assert unstarted.lock.acquire(timeout=1)
        unstarted.lock.release()

    def test_shrinks_while_all_sleep(self, pool):
        pool.set_thread_count(4)
        assert all_idle(pool)
        pool.set_thread_count(1)
        with pool.lock:
            assert pool.thread_exit_cv.wait_for(lambda: len(pool.threads) == 1, PATIENCE)
            assert pool.stop_count == 0
        job = Job()
        pool.add_task(job)
        await_event(job.ended)

    def test_grows_again(self, pool):
        pool.set_thread_count(2)
        pool.set_thread_count(0)
        pool.set_thread_count(2)
        jobs = [Job(held=True), Job(held=True)]
        for each in jobs:
            pool.add_task(each)
        for each in jobs:
            await_event(each.begun)
            each.may_end.set()


class TestAWorkerThatStops:
    def test_passes_on_the_wake_up_that_it_got_for_a_task(self, pool):
        pool.set_thread_count(2)
        assert all_idle(pool)
        with pool.lock:
            pool.stop_count += 1  # From outside, where nobody is woken.
        job = Job()
        pool.add_task(job)
        await_event(job.ended)

    def test_tells_everybody_who_waits_for_it(self, pool):
        pool.set_thread_count(1)
        held = Job(held=True)
        pool.add_task(held)
        await_event(held.begun)
        pool.thread_exit_cv = WatchedCondition(pool.lock)
        waiting = [InThread(pool.shutdown, True, PATIENCE * 10) for _ in range(2)]
        for _ in waiting:
            assert pool.thread_exit_cv.waits.acquire(timeout=PATIENCE)
        with pool.lock:  # They have it until they wait.
            pass
        held.may_end.set()
        assert [each.result() for each in waiting] == [False, False]


class TestTheDepthOfTheQueue:
    def test_is_told_when_nobody_is_free(self, unstarted, caplog):
        unstarted.add_task(Job())
        unstarted.add_task(Job())
        assert messages(caplog, "waitress.queue") == [
            "Task queue depth is 1",
            "Task queue depth is 2",
        ]
        assert caplog.records[0].levelno == logging.WARNING

    def test_is_not_told_when_somebody_is_free(self, unstarted, caplog):
        unstarted.threads = {0, 1}
        unstarted.add_task(Job())
        unstarted.add_task(Job())
        assert messages(caplog, "waitress.queue") == []
        unstarted.add_task(Job())
        assert messages(caplog, "waitress.queue") == ["Task queue depth is 1"]

    def test_counts_neither_busy_threads_nor_those_that_stop(self, unstarted, caplog):
        unstarted.threads = {0, 1, 2}
        unstarted.active_count = 1
        unstarted.stop_count = 1
        unstarted.add_task(Job())
        unstarted.add_task(Job())
        assert messages(caplog, "waitress.queue") == ["Task queue depth is 1"]

    def test_is_told_without_the_lock(self, unstarted):
        def warn(*args):
            assert unstarted.lock.acquire(timeout=1)
            unstarted.lock.release()
            asked.append(args)

        asked = []
        unstarted.queue_logger = SimpleNamespace(warning=warn)
        unstarted.add_task(Job())
        assert len(asked) == 1

    def test_never_counts_a_task_for_nobody_while_its_worker_wakes(self, pool):
        """A task that is queued for the one free worker counts for it until it is taken."""
        pool.lock = CheckedLock(lambda: len(pool.queue) <= len(pool.threads) - pool.active_count)
        pool.thread_exit_cv = threading.Condition(pool.lock)
        pool.queue_cv = threading.Condition(pool.lock)
        pool.set_thread_count(1)
        for _ in range(20):
            assert all_idle(pool)
            job = Job()
            pool.add_task(job)
            await_event(job.begun)
        assert pool.shutdown(timeout=PATIENCE) is False
        assert pool.lock.violations == 0


class TestThreadsOfASubclassItself:
    @pytest.mark.parametrize("is_mixed_in", [False, True])
    def test_are_woken_in_the_way_that_is_known(self, is_mixed_in):
        class Waits:
            def handler_thread(self, thread_no):
                with self.queue_cv:
                    while not self.queue and not self.stop_count:
                        self.queue_cv.wait()
                    task = self.queue.popleft() if self.queue else None
                if task is not None:
                    task.service()
                with self.lock:
                    while not self.stop_count:
                        self.queue_cv.wait()
                    self._leave_locked(thread_no)

        if is_mixed_in:

            class Waiting(Waits, ThreadedTaskDispatcher):
                """Has its threads from elsewhere."""

        else:

            class Waiting(ThreadedTaskDispatcher):
                handler_thread = Waits.handler_thread

        pool = Waiting()
        pool.set_thread_count(1)
        job = Job()
        pool.add_task(job)
        await_event(job.ended)
        assert pool.shutdown(timeout=PATIENCE) is False
        assert pool.threads == set()


class TestShutdown:
    def test_ends_all_threads(self, pool):
        pool.set_thread_count(3)
        assert pool.shutdown(timeout=PATIENCE) is False
        assert pool.threads == set()
        assert pool.stop_count == pool.active_count == 0

    def test_waits_for_a_thread_that_serves(self, pool, caplog):
        pool.set_thread_count(1)
        job = Job(held=True)
        pool.add_task(job)
        await_event(job.begun)
        ending = InThread(pool.shutdown, True, inf)
        job.may_end.set()
        assert ending.result() is False
        assert job.ended.is_set()
        assert messages(caplog, "waitress") == []

    def test_does_not_wait_for_ever(self, pool, caplog):
        pool.set_thread_count(1)
        job = Job(held=True)
        pool.add_task(job)
        await_event(job.begun)
        pending = Job()
        pool.add_task(pending)
        assert pool.shutdown(timeout=0.01) is True
        assert pending.cancelled
        assert list(pool.queue) == []
        assert messages(caplog, "waitress") == [
            "1 thread(s) still running",
            "Canceling 1 pending task(s)",
        ]
        job.may_end.set()

    def test_cancels_what_is_queued(self, unstarted, caplog):
        jobs = [Job(), Job()]
        unstarted.queue.extend(jobs)
        assert unstarted.shutdown() is True
        assert [each.cancelled for each in jobs] == [True, True]
        assert messages(caplog, "waitress") == ["Canceling 2 pending task(s)"]

    def test_leaves_what_is_queued_when_told_to(self, unstarted, caplog):
        job = Job()
        unstarted.queue.append(job)
        assert unstarted.shutdown(cancel_pending=False) is False
        assert not job.cancelled
        assert list(unstarted.queue) == [job]
        assert messages(caplog, "waitress") == []

    def test_of_nothing_is_silent(self, unstarted, caplog):
        assert unstarted.shutdown() is False
        assert caplog.records == []

    def test_waits_no_time_at_all_when_told_so(self, unstarted, caplog):
        unstarted.threads.add(0)
        assert unstarted.shutdown(timeout=0) is False
        assert messages(caplog, "waitress") == ["1 thread(s) still running"]


@pytest.mark.stress
def test_no_task_is_lost_or_served_twice_while_threads_come_and_go(pool):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        count, served, done = 3000, [], threading.Event()

        class Counted:
            def service(self):
                served.append(self)
                if len(served) == count:
                    done.set()

        pool.queue_logger = SimpleNamespace(warning=lambda *args: None)
        tasks = [Counted() for _ in range(count)]
        pool.set_thread_count(4)

        def add(part):
            for each in part:
                pool.add_task(each)

        adders = [InThread(add, tasks[each::3]) for each in range(3)]
        for number in range(200):
            pool.set_thread_count(1 + number % 5)
        for each in adders:
            each.result()
        await_event(done)
        assert len(set(served)) == len(served) == count
    finally:
        sys.setswitchinterval(interval)


def test_withdrawn_task_never_runs_and_one_that_runs_cannot_be_withdrawn():
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(1)
    running, waiting, last = Job(held=True), Job(), Job()
    dispatcher.add_task(running)
    await_event(running.begun)
    dispatcher.add_task(waiting)
    dispatcher.add_task(last)
    assert dispatcher.waiting() == 2
    assert dispatcher.withdraw(waiting)
    assert not dispatcher.withdraw(waiting)
    assert not dispatcher.withdraw(running)
    assert dispatcher.waiting() == 1
    running.may_end.set()
    await_event(last.ended)
    assert not waiting.begun.is_set()
    dispatcher.shutdown()


def test_a_task_for_which_a_thread_is_free_does_not_wait():
    dispatcher = ThreadedTaskDispatcher()
    assert dispatcher.waiting() == 0
    dispatcher.threads.add(0)  # One that is idle, and will not come.
    dispatcher.queue.append(Job())
    assert dispatcher.waiting() == 0
    dispatcher.queue.append(Job())
    assert dispatcher.waiting() == 1


class Beaten(ThreadedTaskDispatcher):
    """Its workers see a task that another one takes at once."""

    def __init__(self):
        super().__init__()
        self.taken_by_another = []

    @property
    def stop_count(self):
        if self.queue and not self.taken_by_another:
            self.taken_by_another.append(self.queue.popleft())
        return self.asked_to_stop

    @stop_count.setter
    def stop_count(self, value):
        self.asked_to_stop = value


def test_worker_that_comes_too_late_for_a_task_waits_for_the_next(monkeypatch):
    pool, first, second = Beaten(), Job(), Job()
    pool.queue.append(first)
    pool.threads.add(0)
    parker = SimpleNamespace(park=lambda: pool.queue.append(second))
    second.service = lambda: (Job.service(second), setattr(pool, "stop_count", 1))
    monkeypatch.setattr(workers, "Parker", lambda _: parker)
    pool.handler_thread(0)
    assert pool.taken_by_another == [first]
    assert second.ended.is_set()
    assert not first.begun.is_set()
