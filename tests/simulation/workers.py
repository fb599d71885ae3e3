"""The task dispatcher of the simulation: real threads, of which one runs at any time.

A worker runs until it comes to a *point*: a place between two steps at which the system
could have another thread go on. There the seeded generator decides whether it stops, and
who goes on: a waiting worker, a new one for a queued task, or the loop. The loop's own
points are its system calls. In a *fine* run every line of the modules that threads share
is a point, for the workers and for the loop, unless a lock is held.

Threads: what belongs to the run is touched by whoever has the baton; handing it over is
the only synchronisation.
"""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from waitress import (
    channel,
    clients,
    deadlines,
    eventloop,
    outbound,
    request_queue,
    service,
    spool,
    trigger,
)

#: Real seconds after which a worker that should stop somewhere is declared to hang.
PATIENCE = 20.0

RUNNABLE, SLEEPING, WAITING, DONE = "runnable", "sleeping", "waiting", "done"


#: The modules whose lines are points of a fine run.
_FINE_FILES = frozenset(
    module.__file__
    for module in (
        channel,
        clients,
        deadlines,
        eventloop,
        outbound,
        request_queue,
        service,
        spool,
        trigger,
    )
)


class Carrier:
    """A thread that carries one worker after the other, and stands still in between."""

    _free: list[Carrier] = []

    def __init__(self) -> None:
        self._go = threading.Lock()
        self._back = threading.Lock()
        self._go.acquire()
        self._back.acquire()
        self._body: Callable[[], None] | None = None
        threading.Thread(target=self._carry, name="simulated worker", daemon=True).start()

    @classmethod
    def take(cls, body: Callable[[], None]) -> Carrier:
        """Return a carrier that is going to call ``body()``."""
        carrier = cls._free.pop() if cls._free else cls()
        carrier._body = body
        return carrier

    def give_back(self) -> None:
        """Let another one use the carrier."""
        self._body = None
        self._free.append(self)

    def _carry(self) -> None:
        while True:
            self._go.acquire()
            assert self._body is not None
            self._body()
            self._back.release()

    def resume(self) -> None:
        """Hand the baton to the carrier's thread; return when it is handed back."""
        self._go.release()
        if not self._back.acquire(timeout=PATIENCE):
            raise AssertionError("a worker hangs: it holds, or waits for, what no point knows")

    def suspend(self) -> None:
        """Hand the baton back, from inside; return when it comes again."""
        self._back.release()
        self._go.acquire()


class Worker:
    """One task being served."""

    def __init__(self, scheduler: Scheduler, task: Any, number: int) -> None:
        self.scheduler = scheduler
        self.task = task
        self.number = number
        self.state = RUNNABLE
        self.stands_at = "start"
        #: How often the application was called.
        self.calls = 0
        self.carrier = Carrier.take(self._serve)

    def __repr__(self) -> str:
        return f"worker {self.number}"

    def _serve(self) -> None:
        self.scheduler.begin_lines()
        try:
            self.task.service()
        except BaseException as error:
            self.scheduler.on_failure(f"{error!r} escaped from the service of {self.task}")
        self.scheduler.end_lines()
        self.state = DONE


class Lock:
    """A lock that tells the scheduler when it is held: no point stops there.

    That is all it has to do, since nobody else runs meanwhile.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def acquire(self) -> bool:
        self._scheduler.held += 1
        return True

    def release(self) -> None:
        self._scheduler.held -= 1

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *exc_info: Any) -> None:
        self.release()


class Condition:
    """A condition variable whose waiters stand at a point."""

    def __init__(self, scheduler: Scheduler, lock: Any) -> None:
        self._scheduler = scheduler
        self._lock = lock
        self._waiters: list[Worker] = []

    def wait(self, timeout: float | None = None) -> bool:
        scheduler = self._scheduler
        worker = scheduler.running
        assert worker is not None, "the loop waits for a worker"
        self._waiters.append(worker)
        self._lock.release()
        worker.state = WAITING
        scheduler.note("%s waits for room", worker)
        worker.stands_at = "room"
        if scheduler.random.random() < 0.05:
            worker.state = RUNNABLE  # Woken by nobody, as condition variables may be.
        worker.carrier.suspend()
        self._lock.acquire()
        return True

    def notify_all(self) -> None:
        for worker in self._waiters:
            if worker.state is WAITING:
                worker.state = RUNNABLE
        self._waiters.clear()


class Scheduler:
    """The task dispatcher, and the choice of who goes on.

    Args:
        random: draws every choice.
        threads: how many tasks are served at once.
        preemption: how likely a worker stops at a point, from 0 to 1.
        fineness: the same for a line; 0 for a run that is not fine.
    """

    def __init__(
        self, random: random.Random, threads: int, preemption: float, fineness: float
    ) -> None:
        self.random = random
        self.threads = threads
        self.preemption = preemption
        self.fineness = fineness
        #: How many locks are held.
        self.held = 0
        self.queue: deque[Any] = deque()
        self.workers: list[Worker] = []
        #: Who has the baton; ``None`` for the loop.
        self.running: Worker | None = None
        self.steps = 0
        self.served = 0
        #: Whether points are passed without stopping: at the end of a run.
        self.is_ending = False
        self.on_failure: Callable[[str], None] = print
        self.note: Callable[..., None] = lambda text, *args: None
        self.at: Callable[[float, Callable[[], None]], None]

    # -- what the server uses

    def add_task(self, task: Any) -> None:
        self.point("hand-over")
        self.queue.append(task)
        self.note("%s is queued", task)

    def add_gathered(self, tasks: Iterable[Any]) -> bool:
        self.point("hand-over")
        for task in tasks:
            self.queue.append(task)
            self.note("%s is queued", task)
        return True

    def waiting(self) -> int:
        """Count those for whom no thread is free."""
        return max(len(self.queue) - (self.threads - len(self.workers)), 0)

    def withdraw(self, task: Any) -> bool:
        """Take a task back; say whether it was there."""
        self.point("withdraw")
        if task not in self.queue:
            return False
        self.queue.remove(task)
        self.note("%s is withdrawn", task)
        return True

    def set_thread_count(self, count: int) -> None:
        """Have as many threads as the run wants."""

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        pending = list(self.queue)
        self.queue.clear()
        for task in pending:
            task.cancel()
        return bool(pending)

    def condition(self, lock: Any) -> Any:
        """Make what workers wait on; the factory that the event loop wants."""
        return Condition(self, lock)

    # -- points

    def point(self, name: str) -> None:
        """Let others go on, perhaps; called by whoever has the baton."""
        if self.is_ending:
            return
        worker = self.running
        if worker is None:
            if self.held:
                return
            if (self.workers or self.queue) and self.random.random() < self.preemption * 0.3:
                self.step()
        elif not self.held and self.random.random() < self.preemption:
            worker.stands_at = name
            worker.carrier.suspend()

    def begin_lines(self) -> None:
        """Make every line a point, in the current thread, if the run is fine."""
        if self.fineness:
            sys.settrace(self._trace)

    def end_lines(self) -> None:
        """End that."""
        if self.fineness:
            sys.settrace(None)

    def _trace(self, frame: Any, event: str, arg: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename in _FINE_FILES else None

    def _trace_line(self, frame: Any, event: str, arg: Any) -> Any:
        if event == "line" and not self.held and not self.is_ending:
            worker = self.running
            if worker is None:
                if (self.workers or self.queue) and self.random.random() < self.fineness:
                    self.step()
            elif self.random.random() < self.fineness:
                worker.stands_at = f"{frame.f_code.co_name}:{frame.f_lineno}"
                worker.carrier.suspend()
        return self._trace_line

    def sleep(self, seconds: float) -> None:
        """Let simulated time pass; called by an application."""
        worker = self.running
        assert worker is not None
        if self.is_ending:
            return
        worker.state = SLEEPING
        worker.stands_at = "sleep"

        def wake() -> None:
            if worker.state is SLEEPING:
                worker.state = RUNNABLE

        self.at(seconds, wake)
        worker.carrier.suspend()

    # -- the choice

    @property
    def can_start(self) -> bool:
        """Whether there is a task and a thread for it."""
        return bool(self.queue) and len(self.workers) < self.threads

    def run_some(self) -> None:
        """Let workers go on for a random while."""
        while (self.workers or self.queue) and self.random.random() < 0.5 and self.step():
            pass

    def step(self) -> bool:
        """Let one worker go on to its next point; say whether there was one that can."""
        runnable = [worker for worker in self.workers if worker.state is RUNNABLE]
        if self.can_start and (not runnable or self.random.random() < 0.5):
            worker = Worker(self, self.queue.popleft(), self.served)
            self.served += 1
            self.workers.append(worker)
        elif runnable:
            worker = runnable[0] if len(runnable) == 1 else self.random.choice(runnable)
        else:
            return False
        self.resume(worker)
        return True

    def resume(self, worker: Worker) -> None:
        """Let a worker go on to its next point."""
        assert self.running is None
        self.steps += 1
        self.note("%s goes on from %s", worker, worker.stands_at)
        self.running = worker
        try:
            worker.carrier.resume()
        finally:
            self.running = None
        if worker.state is DONE:
            self.workers.remove(worker)
            worker.carrier.give_back()
            worker.task = None

    def end(self) -> None:
        """Let every worker come to its end, without a stop at any point."""
        self.is_ending = True
        for worker in list(self.workers):
            if worker.state is not WAITING:
                self.resume(worker)
        self.queue.clear()
