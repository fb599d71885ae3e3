"""The pool of worker threads and the queue of tasks that they serve.

Owns the threads and the task queue. Knows of a task only that it has ``service()`` and
``cancel()``.

The queue and the counts are plain attributes, because monitoring reads them and
subclasses write them; they are read anew at every step. What is not visible from outside
is the wake-up: an idle worker sleeps at a place of its own, its *parker*
(:mod:`waitress.parking`), and whoever adds a task unparks one idle worker. That costs a
quarter of what a condition variable does, which makes a new lock for every wait.

Whoever adds many tasks at once, as the event loop does, holds the wake-ups until all are
there, wakes one worker, lets it run for a moment, and then wakes as many as there are tasks
left: where tasks are short, the first worker serves them all, and the others sleep on.
Meanwhile it adds without the lock, and looks at the queue under it afterwards; and a worker
that does not come from its sleep takes a task without it. Both only where the queue is a
deque, whose ``append`` and ``popleft`` are atomic, and the former only where no subclass's
workers are to be notified. Who holds the lock can therefore rely on what is in the queue
only when it has taken it out.

Tasks are served in the order of their arrival, until somebody tells that one of them may
*give way* (:meth:`ThreadedTaskDispatcher.note_giving_way`): as a rule, because its client
may have left. Then each is asked as it is taken, and those that do so are served when no
other waits. Where clients leave because they have waited for long, the newest goes first
until that has been over for a second: it has the longest before it that its client will
wait, and whoever is served in the order of arrival then is served when it is about to
leave. Both are what is usual, not what is sure: one of sixteen tasks is taken from those
that were passed over.

Row 4: imports parking, utilities.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Any, Protocol

from waitress.parking import Parker, has_semaphores
from waitress.utilities import is_method_of, logger, queue_logger

__all__ = ["Task", "ThreadedTaskDispatcher"]


#: For so long the newest is first, from when a client was last seen to have left for
#: having waited, in seconds.
NEWEST_FIRST_SECONDS = 1.0
#: Nobody is passed over for ever. Of so many tasks served, one is the first that gave way,
#: though others wait: its client may have ended its own side only. And while the newest is
#: first, one is the oldest: its client may be patient.
FAIR_TURN = 16
#: Of those that wait, one part of so many may be tasks that have nothing to do any more.
ENDED_PART = 16


class Task(Protocol):
    """What the dispatcher serves; a channel is one."""

    def service(self) -> None:
        """Do the work, in a worker's thread."""

    def cancel(self) -> None:
        """Drop the work: the dispatcher shuts down."""

    # A task may have ``gives_way(is_overloaded)``, too: whether it is to be served when no
    # other waits. It is called under the dispatcher's lock.


class ThreadedTaskDispatcher:
    """A fixed pool of threads that serve tasks in the order of their arrival.

    Threads: any. ``threads``, ``stop_count``, ``active_count``, the parkers and what is
    about giving way stand under ``lock``, and ``queue`` does but for two steps (see the
    module); that wake-ups are held is said without it, and taken back under it; tasks run, and
    log records are made, without it.
    """

    #: Threads that were asked to stop and have not gone yet.
    stop_count: int = 0
    #: Threads that serve a task or are on their way to the queue.
    active_count: int = 0
    #: The process that the threads were started in, once one was.
    process_id: int | None = None
    #: The time, in seconds; tests have a clock of their own.
    clock: Callable[[], float] = staticmethod(time.monotonic)
    logger: logging.Logger = logger
    queue_logger: logging.Logger = queue_logger
    #: Whether a subclass's workers may wait on ``queue_cv``, as they could always.
    _notifies: bool = False
    #: Who decides when the depth of the queue is told; without it, every time.
    depth_alert: Any = None
    #: The depth that was noted already.
    _noted_depth: int = 0
    #: Whether workers sleep on semaphores, as far as is known before they are started.
    _uses_semaphores: bool = False

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        cls._notifies = cls.handler_thread is not ThreadedTaskDispatcher.handler_thread

    def __init__(self) -> None:
        self.lock = threading.Lock()
        # guarded by lock:
        self.stop_count = 0  # Asked for each task, and read faster here than in the class.
        self.threads: set[int] = set()
        #: The identities of those that run, by their number.
        self.thread_idents: dict[int, int] = {}
        self.queue: deque[Task] = deque()
        #: Those taken from the queue that gave way; they still wait.
        self.given_way: deque[Task] = deque()
        #: Whether tasks are asked, and until when the newest is first; see the module.
        self._asks = False
        self._newest_until = -inf
        #: How many were chosen so.
        self._chosen = 0
        #: Tasks that have nothing to do any more, and may be in the queue still.
        self._ended: set[Task] = set()
        #: Where those sleep that wait for a task; the last one is to be woken first.
        self._idle: deque[Parker] = deque()
        #: Whether whoever adds tasks wakes nobody, because somebody is about to.
        self._holds_wakeups = False
        #: The thread that does so, where it may add without the lock; and whether it did.
        self._gatherer: int | None = None
        self._has_gathered = False

        self.queue_cv = threading.Condition(self.lock)
        self.thread_exit_cv = threading.Condition(self.lock)

    def start_new_thread(self, target: Callable[[int], Any], thread_no: int) -> None:
        """Start a daemon thread named ``waitress-<thread_no>`` on ``target(thread_no)``."""
        threading.Thread(
            target=target, name=f"waitress-{thread_no}", args=(thread_no,), daemon=True
        ).start()

    def handler_thread(self, thread_no: int) -> None:
        """Serve tasks until told to stop; the body of a worker thread.

        A worker survives whatever a task raises: it is logged, and the next one is
        served.
        """
        parker = Parker(self._uses_semaphores)
        with self.lock:
            self.thread_idents[thread_no] = threading.get_ident()
        while True:
            task = None  # An idle worker keeps nothing of its last request alive.
            queue = self.queue
            if type(queue) is deque and queue and not (self.stop_count or self._asks):
                # If a change of these two is seen too late, one task more is taken in the order
                # of its arrival.
                try:
                    task = queue.popleft()
                except IndexError:
                    pass  # Another worker took the last one.
            if task is None:
                task = self._next_task(thread_no, parker)
                if task is None:
                    return
            try:
                task.service()
            except BaseException:  # The border that must survive anything.
                self.logger.exception("Exception when servicing %r", task)
                self._end_surely(task)

    def _starts_plain_threads(self) -> bool:
        """Say whether threads are started by our own method, and not by that of a subclass."""
        return is_method_of(self, self.start_new_thread, _start_new_thread)

    def _end_surely(self, task: Task) -> None:
        """Tell a task that its ``service()`` failed, if it wants to know."""
        try:
            getattr(task, "service_failed", _do_nothing)()
        except BaseException:
            self.logger.exception("Exception when ending %r", task)

    def _next_task(self, thread_no: int, parker: Parker) -> Task | None:
        """Return the next task, waiting for it; ``None`` when the thread is to end."""
        has_waited = False
        while True:
            with self.lock:
                if has_waited:
                    # Together with taking the task: whoever counts the idle and the
                    # queued in between would count the task for nobody.
                    self.active_count += 1
                    if parker in self._idle:  # As wake_first() leaves it, for instance.
                        self._idle.remove(parker)
                if self.stop_count > 0:
                    self._leave_locked(thread_no)
                    return None
                if self.queue or self.given_way:
                    task = self._choose_locked() if self._asks else _take(self.queue.popleft)
                    if task is not None:
                        return task
                self.active_count -= 1
                self._idle.append(parker)
            parker.park()
            has_waited = True

    def _choose_locked(self) -> Task | None:
        """Take the task that is to be served next, where some may give way."""
        queue, given_way = self.queue, self.given_way
        self._chosen += 1
        turn = self._chosen % FAIR_TURN
        if turn == 0 and given_way:
            return given_way.popleft()
        newest_first = self.clock() < self._newest_until and turn != FAIR_TURN // 2
        take = queue.pop if newest_first else queue.popleft
        while (chosen := _take(take)) is not None and _gives_way(chosen, newest_first):
            given_way.append(chosen)
        # What is never come to from the other end: whoever asks how long the first of the
        # queue has waited asks for one whose client is there.
        while (first := _first(queue)) is not None and _gives_way(first, newest_first):
            if _remove(first, queue):
                given_way.append(first)
        if chosen is None:
            chosen = _take(given_way.popleft)
        if not queue:  # All have been asked.
            self._newest_until = -inf
            self._asks = bool(given_way)
            if not self._asks:
                self._ended.clear()
        return chosen

    def note_giving_way(self, is_overloaded: bool) -> None:
        """Take notice that one of the queued tasks may give way.

        Args:
            is_overloaded: it has waited for so long that its client left.
        """
        with self.lock:
            self._asks = True
            if is_overloaded:
                self._newest_until = self.clock() + NEWEST_FIRST_SECONDS

    def _wake_one_locked(self) -> None:
        # The last to fall idle is the first to work: its memory is still warm. A signal's
        # handler may raise in between: then a worker finds its own place among the idle ones.
        self._idle[-1].unpark()
        self._idle.pop()

    def _leave_locked(self, thread_no: int) -> None:
        self.active_count -= 1
        self.stop_count -= 1
        self.threads.discard(thread_no)
        self.thread_idents.pop(thread_no, None)
        self.thread_exit_cv.notify_all()
        if (self.queue or self.given_way) and self._idle:
            # It was woken for a task, perhaps, and stops instead.
            self._wake_one_locked()

    def set_thread_count(self, count: int) -> None:
        """Start threads, or ask some to stop, until ``count`` will be running.

        Does not wait for those that stop.

        Raises:
            RuntimeError: the system refuses another thread; those started before stay.
        """
        if count:
            self._uses_semaphores = self._starts_plain_threads() and has_semaphores()
        with self.lock:
            running = len(self.threads) - self.stop_count
            while running < count:
                self._start_one_locked()
                running += 1
            if running > count:
                self.stop_count += running - count
            if self.stop_count:  # Or an earlier call was interrupted.
                while self._idle:
                    self._wake_one_locked()
                self.queue_cv.notify_all()

    def _start_one_locked(self) -> None:
        thread_no = 0
        while thread_no in self.threads:
            thread_no += 1
        self.threads.add(thread_no)
        self.process_id = os.getpid()
        self.active_count += 1
        try:
            self.start_new_thread(self.handler_thread, thread_no)
        except BaseException:
            self.threads.discard(thread_no)
            self.active_count -= 1
            raise

    def add_thread(self) -> bool:
        """Start one thread more; not where all were asked to stop. Say whether it was.

        Raises:
            RuntimeError: the system refuses another thread.
        """
        with self.lock:
            if len(self.threads) <= self.stop_count:
                return False
            self._start_one_locked()
            return True

    def retire_thread(self) -> None:
        """Have the next thread that comes to the queue end; the last one goes on.

        Wakes nobody: that thread is the calling one, as a rule, when its task has ended.
        """
        with self.lock:
            if len(self.threads) - self.stop_count > 1:
                self.stop_count += 1

    def add_task(self, task: Task) -> None:
        """Queue a task and wake a worker for it; warn when none is free."""
        if self._gatherer == threading.get_ident():
            self.queue.append(task)
            self._has_gathered = True
            return
        with self.lock:
            self.queue.append(task)
            if self._idle and not self._holds_wakeups:
                self._wake_one_locked()
            if self._notifies:
                self.queue_cv.notify()
            depth = len(self.queue) + len(self.given_way)
            if depth <= self._noted_depth:
                return
            depth -= len(self.threads) - self.stop_count - self.active_count  # the idle ones
        if depth > self._noted_depth:
            self._note_depth(depth)

    def add_gathered(self, tasks: Iterable[Task]) -> bool:
        """Queue several tasks at once, for who holds the wake-ups.

        Nothing, and false, for anybody else, and where ``add_task`` is somebody's own.
        """
        if (
            not is_method_of(self, self.add_task, _add_task)
            or self._gatherer != threading.get_ident()
        ):
            return False
        self.queue.extend(tasks)
        self._has_gathered = True
        return True

    def hold_wakeups(self) -> None:
        """Wake nobody for the tasks that are added from now on, until :meth:`wake_first`.

        What the calling thread adds meanwhile it may add without the lock, and is warned of
        then.
        """
        # No lock: whoever sees it too late wakes a worker, as always.
        self._holds_wakeups = True
        if type(self.queue) is deque and not self._notifies:
            self._gatherer = threading.get_ident()

    def wake_first(self, leaves: bool = False) -> None:
        """Wake one worker, if there is a task, and hold wake-ups no more.

        Warns when there are more tasks than workers are free. To be followed by
        :meth:`wake_rest`.

        Args:
            leaves: whether to leave the interpreter to the worker, if possible.
        """
        first = None
        with self.lock:
            has_gathered, self._has_gathered = self._has_gathered, False
            self._release_wakeups_locked()
            depth = len(self.queue) + len(self.given_way)
            if depth and self._idle:
                if leaves:
                    # To be woken when the lock is free, too. Until it comes it is the last one
                    # that others wake, and the next one if this thread is interrupted.
                    first = self._idle[-1]
                    self._idle.rotate(1)
                else:
                    self._wake_one_locked()
            depth -= len(self.threads) - self.stop_count - self.active_count  # the idle ones
        if first is not None:
            first.unpark_and_leave()
        if has_gathered and depth > self._noted_depth:
            try:
                self._note_depth(depth)
            except Exception:  # A handler of somebody's own: the loop, which is here, goes on.
                self.logger.exception("Unexpected error when telling the depth of the queue")

    def wake_rest(self) -> None:
        """Wake as many workers as there are tasks, or all, and hold wake-ups no more."""
        is_released = self._gatherer is None and not self._holds_wakeups
        if is_released and not (self.queue or self.given_way):
            return  # As it is where tasks are short. Whoever adds another wakes its worker.
        with self.lock:
            self._release_wakeups_locked()
            for _ in range(min(len(self.queue) + len(self.given_way), len(self._idle))):
                self._wake_one_locked()

    def _release_wakeups_locked(self) -> None:
        self._gatherer = None
        self._holds_wakeups = False

    def _note_depth(self, depth: int) -> None:
        alert = self.depth_alert
        if alert is None:
            self.queue_logger.warning("Task queue depth is %d", depth)
        else:
            self._noted_depth = depth
            alert.note_threadsafe(depth)

    def renew_depth(self) -> int:
        """Return how many tasks wait for a thread; have the depth noted anew."""
        with self.lock:
            self._noted_depth = 0
            return self._waiting_locked()

    def waiting(self) -> int:
        """Return how many tasks wait, beside those for which a thread is free."""
        with self.lock:
            return self._waiting_locked()

    def _waiting_locked(self) -> int:
        idle = len(self.threads) - self.stop_count - self.active_count
        return max(len(self.queue) + len(self.given_way) - idle, 0)

    def withdraw(self, task: Task) -> bool:
        """Take a task back that no thread has begun; say whether it was still there."""
        with self.lock:
            return _remove(task, self.queue) or _remove(task, self.given_way)

    def withdraw_ended(self, task: Task) -> None:
        """Take a task back, soon, that has nothing to do any more, if it might stay for long.

        One that is taken in its turn costs less than the search for it, and many cost less
        together.
        """
        if not self._asks:
            return
        with self.lock:
            self._ended.add(task)
            if len(self._ended) * ENDED_PART > len(self.queue) + len(self.given_way):
                _drop(self._ended, self.given_way)
                if type(self.queue) is deque:
                    _drop(self._ended, self.queue)
                else:  # It has an order of its own.
                    for each in self._ended:
                        _remove(each, self.queue)
                self._ended.clear()

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """End all threads.

        Args:
            cancel_pending: cancel the tasks that are still queued afterwards.
            timeout: how long to wait for threads that serve a task, in seconds.

        Returns:
            Whether tasks were cancelled.
        """
        self.set_thread_count(0)
        deadline = time.monotonic() + timeout
        with self.lock:
            while self.threads:
                remaining = deadline - time.monotonic()
                if remaining <= 0:
                    break
                self.thread_exit_cv.wait(min(remaining, threading.TIMEOUT_MAX))
            running = len(self.threads)
            pending: list[Task] = []
            for tasks in (self.queue, self.given_way) if cancel_pending else ():
                while (task := _take(tasks.popleft)) is not None:
                    pending.append(task)
        if running:
            self.logger.warning("%d thread(s) still running", running)
        if not cancel_pending:
            return False
        if pending:
            self.logger.warning("Canceling %d pending task(s)", len(pending))
        for task in pending:
            task.cancel()
        return bool(pending)


_add_task = ThreadedTaskDispatcher.add_task
_start_new_thread = ThreadedTaskDispatcher.start_new_thread


def _do_nothing() -> None:
    """Take the place of what a task does not have."""


def _gives_way(task: Task, newest_first: bool) -> bool:
    gives_way = getattr(task, "gives_way", None)
    return gives_way is not None and bool(gives_way(newest_first))


def _take(pop: Callable[[], Task]) -> Task | None:
    try:
        return pop()
    except IndexError:
        return None


def _first(tasks: deque[Task]) -> Task | None:
    try:
        return tasks[0]
    except IndexError:
        return None


def _drop(ended: set[Task], tasks: deque[Task]) -> None:
    # One by one: others may add and take meanwhile.
    for _ in range(len(tasks)):
        task = _take(tasks.popleft)
        if task is not None and task not in ended:
            tasks.append(task)


def _remove(task: Task, tasks: deque[Task]) -> bool:
    while True:
        try:
            tasks.remove(task)
        except ValueError:
            return False
        except IndexError:  # Others took or added while tasks of somebody's own were compared.
            continue
        return True
