"""The event loop: which descriptors are watched, who is ready, who is due.

Owns the poller and its registrations, the ready queue, and the deadlines of everything
in one socket map. Knows nothing of HTTP, and of sockets only that they have a number.

One pass (:meth:`EventLoop.run_pass`):

1. *reconcile* the registrations with the map, which anybody may change at any time;
2. *ask* the objects that want to be asked whether they read or write;
3. *wait* for events, a deadline, or a wake-up, whichever comes first;
4. hand the events to their objects; where tasks come of that, look whether more has come
   meanwhile; then let what is on the ready queue go on;
5. tell those who are due;
6. start the tasks that all these have put together: handing them over in one go, with no
   system call between, lets the workers and the loop take turns once and not per task;
7. leave the processor to the workers: where tasks are quick they have run when the loop
   has it back, nobody has had to wake it, and the responses leave at once. Where that is
   not worth while, or several tasks were started and none has run by then, wait a moment
   for the workers, on a lock: one of them ends this wait for a fraction of what waking the
   poller costs.

Two kinds of objects live in a map. A *native* one (``interest_is_state``) keeps its
interest as state and reports changes with :meth:`EventLoop.set_interest`; it costs
nothing while nothing happens. Any other object is *asked* ``readable()`` and
``writable()`` in every pass, as asyncore did.

Row 1: imports backoff, deadlines and pollers.
"""

from __future__ import annotations

import contextlib
import os
import select as default_select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from functools import partial
from math import inf
from types import BuiltinFunctionType
from typing import Any, ClassVar, Protocol

from waitress.backoff import Backoff
from waitress.compat import has_gil
from waitress.deadlines import Deadlines
from waitress.pollers import PRIORITY, READ, WRITE, Poller, best_poller

__all__ = [
    "Dispatch",
    "EventLoop",
    "ExitNow",
    "FencedEventLoop",
    "SocketMap",
    "event_loop_of",
    "find_event_loop",
    "snapshot",
]

#: The longest wait, in seconds, when the caller names none: what outsiders do to the
#: map or to a socket behind the loop's back is noticed after a wait at the latest.
LONGEST_WAIT = 30.0
#: The longest wait, in seconds, when the triggers are closed but connections are not yet:
#: workers still finish responses, and nothing can end the wait for them. So a server that
#: was closed looks round 20 times a second until its last connection has ended.
UNWAKEABLE_WAIT = 0.05

#: Leaving the processor to others was worth while when it came back within so long for each
#: response that was made meanwhile, in seconds. Somebody who computes may have it for some
#: milliseconds.
QUICK_TASK = 0.0002
#: How long the loop waits for the workers to whom it has just given something to do, in
#: seconds. So much later it may notice that a client has sent something.
HAND_OVER_WAIT = 0.0005

#: How often the loop looks for further events before it hands tasks over. The clients of the
#: first ones wait meanwhile.
MOST_LOOKS_AGAIN = 4
#: It looks once more where the last look has found more than this part of them.
FEW_LATECOMERS = 0.25

#: Sockets that are looked at in one audit, of which there is one per longest wait.
AUDIT_SOCKETS = 500

#: A longer wait than a day is not asked of the system, which may not be able to count it.
_MOST_SECONDS = 86400.0

#: What a poller raises for a number that it cannot watch. A number that cannot be a
#: descriptor at all is no OSError.
_REFUSALS = (OSError, ValueError, OverflowError)

#: Mask of a registration that has to be made anew; differs from every other mask.
_UNKNOWN = -1

#: Hands events to an asked object: called with the map, the descriptor, the object, the
#: mask of the events, and the mask that was asked for.
Dispatch = Callable[[MutableMapping[int, Any], int, Any, int, int], None]


class WorkerPool(Protocol):
    """Workers that the loop hands tasks to, many at a time.

    See :class:`waitress.workers.ThreadedTaskDispatcher`.
    """

    def hold_wakeups(self) -> None:
        """Wake nobody for the tasks that are added from now on."""

    def wake_first(self, leaves: bool) -> None:
        """Wake one worker, if there is a task; leave the interpreter to it, or keep it."""

    def wake_rest(self) -> None:
        """Wake a worker for each task that is still there."""


class ExitNow(Exception):  # noqa: N818 - the name that asyncore's users know
    """Raised by a handler to end the loop; it passes through everything."""


# Each connection enters a map and leaves it, and in CPython 3.11 super() costs as much as that.
_dict_setitem = dict.__setitem__
_dict_delitem = dict.__delitem__


class SocketMap(dict[int, Any]):
    """A socket map that remembers which of its keys changed.

    A drop-in dict: the loop reads :attr:`changes` instead of comparing the whole map in
    every pass. Any thread may change the map; ``set.add`` is atomic, and the entry is
    made after the change, so that the loop never misses one. A set, because nobody may
    ever read it: programs that poll by themselves compare nothing.
    """

    def __init__(self, *args: Any, **kw: Any) -> None:
        super().__init__(*args, **kw)
        self.changes: set[int] = set(self)
        self.event_loop: EventLoop | None = None

    def _note_left(self, fd: int) -> None:
        if self.event_loop is not None:
            self.event_loop.note_left_threadsafe(fd)

    def __setitem__(self, fd: int, obj: Any) -> None:
        is_new = fd not in self
        _dict_setitem(self, fd, obj)
        if not is_new:
            # Even the same object may come with another socket.
            self._note_left(fd)
        self.changes.add(fd)

    def __delitem__(self, fd: int) -> None:
        _dict_delitem(self, fd)
        self._note_left(fd)

    def pop(self, fd: int, *default: Any) -> Any:
        result = super().pop(fd, *default)
        self._note_left(fd)
        return result

    def popitem(self) -> tuple[int, Any]:
        item = super().popitem()
        self._note_left(item[0])
        return item

    def clear(self) -> None:
        fds = list(self)
        super().clear()
        for fd in fds:
            self._note_left(fd)

    def setdefault(self, fd: int, default: Any = None) -> Any:
        result = super().setdefault(fd, default)
        self.changes.add(fd)
        return result

    def update(self, *args: Any, **kw: Any) -> None:
        for fd, obj in dict(*args, **kw).items():
            self[fd] = obj

    def __ior__(self, other: Any) -> SocketMap:  # type: ignore[override,misc]
        self.update(other)
        return self


class EventLoop:
    """Everything the loop's thread knows about the objects of one map.

    The clock and the poller come from outside, with production defaults, so that the
    whole server can run on a simulated network and time.

    Threads: the loop's own, but for the methods named ``*_threadsafe``, the ready queue
    (a deque, whose ``append`` and ``popleft`` are atomic) and the flag ``is_awake``.
    """

    # Slots, because CPython finds more attributes than 30 slowly in an instance; and a dict for
    # whoever replaces a method.
    __slots__ = (
        "__dict__",
        "__weakref__",
        "_always_ready",
        "_asked",
        "_audited_at",
        "_awaits_workers",
        "_due_at",
        "_hand_over_lock",
        "_hand_over_wait",
        "_in_pass",
        "_joined",
        "_left",
        "_looks_again",
        "_lost_wakers",
        "_masks",
        "_newcomers",
        "_outdated",
        "_poller",
        "_poller_factory",
        "_pools",
        "_select",
        "_starting",
        "_thread_id",
        "_to_audit",
        "_wait_no",
        "_waits",
        "_watched",
        "_yield_processor",
        "_yields",
        "clock",
        "condition_factory",
        "deadlines",
        "is_awake",
        "map",
        "now",
        "ready",
        "wakers",
        "wall_clock",
    )

    #: Loops by the identity of their map, for maps that cannot carry a reference. A loop
    #: holds its map, so an identity is never reused while its entry lives.
    _by_map: ClassVar[weakref.WeakValueDictionary[int, EventLoop]] = weakref.WeakValueDictionary()
    #: Held while a loop is looked for and made, so that a map gets one only.
    _by_map_lock: ClassVar[threading.RLock] = threading.RLock()
    #: Whether leaving the processor lets workers run that could not run before.
    _may_yield: ClassVar[bool] = True

    def __init__(
        self,
        map: MutableMapping[int, Any] | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        poller_factory: Callable[[Any], Poller] = best_poller,
        condition_factory: Callable[[Any], threading.Condition] = threading.Condition,
        yield_processor: Callable[[], object] | None = None,
        hand_over_wait: float = HAND_OVER_WAIT,
    ) -> None:
        self.map: MutableMapping[int, Any] = SocketMap() if map is None else map
        self.clock = clock
        #: Seconds since the epoch, for the few attributes that are told so.
        self.wall_clock = wall_clock
        #: The instant of the current pass, in seconds on the monotonic clock.
        self.now = clock()
        self.deadlines = Deadlines()
        #: When the first of them is due, as of the last wait.
        self._due_at = inf
        #: Makes what workers wait on; replaced where workers are stepped by a test.
        self.condition_factory = condition_factory
        self._poller_factory = poller_factory
        self._poller: Poller | None = None
        #: The module that the poller was made of.
        self._select: Any = None
        #: The objects whose registrations are up to date, and those among them to ask.
        self._watched: dict[int, Any] = {}
        self._asked: dict[int, Any] = {}
        self._masks: dict[int, int] = {}
        #: Descriptors that cannot be polled because they are always ready: plain files.
        self._always_ready: dict[int, int] = {}
        #: Descriptors that left the map, and may have come back as others since.
        self._left: set[int] = set()
        #: Descriptors whose registration ended since the last wait: what that wait told
        #: of them is not for who stands there now.
        self._outdated: set[int] = set()
        self._wait_no = 0
        self._audited_at = -inf
        #: Descriptors that the audit has yet to come to in its round.
        self._to_audit: list[int] = []
        self._starting: deque[Any] = deque()
        #: Native objects that came in this pass, and may have something to read already.
        self._newcomers: list[Any] = []
        #: The pool that each server of this map uses; and each of them once.
        self._joined: dict[Any, WorkerPool] = {}
        self._pools: tuple[WorkerPool, ...] = ()
        #: Leaves the processor to the workers; None where that does nothing.
        self._yield_processor = yield_processor
        if yield_processor is None and self._may_yield:
            self._yield_processor = best_yield()
        #: Where tasks are stepped by a test, nobody can be waited for: 0.
        self._hand_over_wait = hand_over_wait
        # One yield that is not worth while costs as much as a hundred others save.
        self._yields = Backoff(64, 1024)
        self._waits = Backoff(1, 64)
        self._looks_again = Backoff(1, 16)
        #: Released by whoever wakes the loop while it waits for the workers.
        self._hand_over_lock = threading.Lock()
        self._hand_over_lock.acquire()
        self._awaits_workers = False
        self._in_pass = False
        self._thread_id: int | None = None

        #: Objects to look at; any thread appends, the loop takes.
        self.ready: deque[Any] = self._new_ready_queue()
        #: Triggers that can end the wait.
        self.wakers: list[Any] = []
        self._lost_wakers = False
        #: False while the loop waits, or may begin to without looking at the ready queue
        #: again: then whoever appends must wake it. The order makes it sound without a
        #: lock: a worker appends, then tests the flag; the loop clears the flag, then
        #: looks at the queue. One of the two sees what the other did.
        self.is_awake = False

        # Last: from here on other threads have it.
        if isinstance(self.map, SocketMap):
            self.map.event_loop = self
        else:
            with self._by_map_lock:
                self._by_map[id(self.map)] = self

    def _new_ready_queue(self) -> deque[Any]:
        return deque()

    # -- any thread ----------------------------------------------------------------

    def is_current_thread(self) -> bool:
        """Tell whether the caller may touch what the loop owns.

        True in the loop's thread, and in every thread while nobody runs the loop.
        """
        return self._thread_id is None or self._thread_id == threading.get_ident()

    def claim_wakeup_threadsafe(self) -> bool:
        """Tell whether the caller has to end the loop's wait; one caller is told so.

        Two callers at the same instant may both be told so; the second wake-up is
        harmless.
        """
        if self.is_awake:
            return False
        self.is_awake = True
        # Read after the flag was set: a loop that has gone on to the poller since had ended
        # this wait before it cleared the flag.
        if not self._awaits_workers:
            return True
        with contextlib.suppress(RuntimeError):  # Another caller has released it already.
            self._hand_over_lock.release()
        return False

    def touch_threadsafe(self, obj: Any) -> bool:
        """Have ``obj.handle_ready()`` called in the loop's thread, soon.

        Does not wake the loop, but says whether that is needed: by a trigger's
        ``pull_trigger`` or by :meth:`wake_threadsafe`. ``obj.touched`` keeps an object from
        standing in the queue many times: it is cleared before ``handle_ready`` runs, so
        that whatever was done before a touch that found it set is seen by that run.
        """
        if not obj.touched:
            obj.touched = True
            self.ready.append(obj)
        return not self.is_awake

    def wake_threadsafe(self) -> None:
        """End the loop's wait, if it waits and there is a trigger to end it with."""
        if self.claim_wakeup_threadsafe():
            self.pull_wakers_threadsafe()

    def remove_waker_threadsafe(self, waker: Any) -> None:
        """Forget a trigger that is closed."""
        if waker in self.wakers:
            self.wakers.remove(waker)
            self._lost_wakers = True

    def pull_wakers_threadsafe(self) -> None:
        """End the loop's wait, after the claim to do so."""
        # All of them: one may have been taken out of the map without being closed.
        pulled = [waker.pull_physically_threadsafe() for waker in tuple(self.wakers)]
        if not any(pulled):
            self.is_awake = False  # The claim was in vain; whoever comes next tries again.

    def note_left_threadsafe(self, fd: int) -> None:
        """Take notice that a descriptor left the map.

        In the loop's thread its registration ends at once, while the descriptor is still
        open: when it was closed first, but lives on as a duplicate (in a child process,
        say), the system goes on to report it and knows no way to stop that.
        """
        if not self.is_current_thread():
            self._left.add(fd)
            return
        self._unwatch(fd)
        if self._thread_id is None and not self.map:
            # No run is going to end, and to clean up behind it.
            self._clean_up()

    # -- loop's thread: for native objects -------------------------------------------

    def note_change(self, fd: int) -> None:
        """Bring the registration of one descriptor up to date with the map."""
        obj = self.map.get(fd)
        watched = self._watched.get(fd)
        if watched is not obj:
            if watched is not None:
                self._unwatch(fd)
            if obj is not None and self._poller is not None:
                self._watch(fd, obj)

    def set_interest(self, fd: int, mask: int) -> None:
        """Change what a native object is watched for; not yet watched: harmless."""
        obj = self._watched.get(fd)
        if obj is not None:
            self._set_mask(fd, obj, mask)

    def read_soon(self, obj: Any) -> None:
        """Have a new native object read when the events of this pass have been handled.

        What it has to read is often there already, and may be answered, and the object be
        gone, before the poller is told of it. Outside of a pass the poller tells.
        """
        if self._in_pass:
            self._newcomers.append(obj)

    def start_soon(self, obj: Any) -> None:
        """Call ``obj.start_service()`` when the events of this pass have been handled.

        Of several the first is asked before whether it can start all of them at once:
        ``obj.start_together(objs)`` takes off that deque what it has started.

        Outside of a pass, when somebody drives the objects by hand, at once.
        """
        if self._in_pass:
            self._starting.append(obj)
        else:
            obj.start_service()

    def join_pool(self, server: Any, pool: WorkerPool) -> None:
        """Hand tasks to the pool of a server all together from now on."""
        self._joined[server] = pool
        self._pools = tuple(dict.fromkeys(self._joined.values()))

    def leave_pool(self, server: Any) -> None:
        """Undo :meth:`join_pool`, if there was one."""
        self._joined.pop(server, None)
        self._pools = tuple(dict.fromkeys(self._joined.values()))

    # -- loop's thread: running ------------------------------------------------------

    def run(
        self,
        timeout: float | None,
        dispatch: Dispatch,
        count: int | None = None,
        select: Any = default_select,
    ) -> None:
        """Make passes until the map is empty, at most ``count`` of them.

        Args:
            timeout: the longest wait of one pass, in seconds.
            dispatch: called for an asked object that has events; see :data:`Dispatch`.
            count: how many passes; ``None`` for no limit.
            select: the module that the poller comes from.
        """
        outer_thread_id, self._thread_id = self._thread_id, threading.get_ident()
        try:
            for pool in self._pools:
                pool.wake_rest()  # Whoever interrupted an earlier run may have prevented it.
            while self.map and (count is None or count > 0):
                self.run_pass(timeout, dispatch, select)
                if count is not None:
                    count -= 1
        finally:
            self._thread_id = outer_thread_id
            if not self.map:
                self._clean_up()
            # A foreign thread that saw the loop running may have left it work on its way
            # out.
            self._drain_ready()

    def run_pass(
        self,
        timeout: float | None,
        dispatch: Dispatch,
        select: Any = default_select,
    ) -> None:
        """Make one pass, as the module's docstring tells."""
        timeout = LONGEST_WAIT if timeout is None else min(timeout, _MOST_SECONDS)
        # A handler may run the loop itself.
        outer_in_pass, self._in_pass = self._in_pass, True
        try:
            if self._select is not select:
                self._release_poller()
            if self._poller is None:
                self._make_poller(select)
            self._reconcile(timeout)
            self._ask()
            events = self._wait(timeout)
            if events:
                self._handle_events(events, dispatch)
                if self._newcomers:
                    self._read_newcomers()
                if self._starting and self._looks_again.take_occasion():
                    self._handle_latecomers(dispatch)
            if self.ready:
                self._drain_ready()
            if self.now >= self._due_at:
                self._expire()
            if self._starting:
                self._start()
        finally:
            self._in_pass = outer_in_pass
            self.is_awake = False

    def _make_poller(self, select: Any) -> None:
        self._poller = self._poller_factory(select)
        self._select = select
        self._audited_at = -inf
        self._compare()

    def _clean_up(self) -> None:
        """Keep nothing of what stood in the map, which is empty."""
        self._release_poller()
        self._newcomers.clear()
        self._starting.clear()

    def _release_poller(self) -> None:
        registrations: tuple[dict[int, Any], ...]
        registrations = (self._watched, self._asked, self._masks, self._always_ready)
        for registration in registrations:
            registration.clear()
        poller, self._poller = self._poller, None
        if poller is not None:
            poller.close()

    # -- reconcile

    def _reconcile(self, timeout: float) -> None:
        """Follow the map's changes; compare what tells of none once per ``timeout``."""
        while self._left:
            fd = self._left.pop()
            self._unwatch(fd)
            self.note_change(fd)
        if isinstance(self.map, SocketMap):
            changes = self.map.changes
            while changes:
                self.note_change(changes.pop())
        elif self._is_behind():
            self._compare()
        if self.now >= self._audited_at + timeout:
            self._audited_at = self.now
            self._audit()

    def _is_behind(self) -> bool:
        """Say whether somebody is watched who may have left the map, as far as that is told."""
        if isinstance(self.map, SocketMap):
            return bool(self._left)
        return bool(self._left) or len(self.map) != len(self._watched)

    def _audit(self) -> None:
        """Find what was done to the map and to sockets behind the loop's back.

        Of many thousands of sockets a part each time: what does nothing shall cost nothing.
        """
        if not isinstance(self.map, SocketMap):
            self._compare()
        if not self._to_audit:
            self._to_audit = list(self._watched)
        batch, self._to_audit = self._to_audit[:AUDIT_SOCKETS], self._to_audit[AUDIT_SOCKETS:]
        found = [(fd, self._watched[fd]) for fd in batch if fd in self._watched]
        self._close_vanished(each for each in found if _socket_was_closed(*each))
        for fd in self._asked:
            # The same stranger may stand there with another socket of the same number.
            if self._masks.get(fd, 0):
                self._masks[fd] = _UNKNOWN

    def _compare(self) -> None:
        current = snapshot(self.map)
        for fd, obj in list(self._watched.items()):
            if current.get(fd) is not obj:
                self._unwatch(fd)
        for fd, obj in current.items():
            if fd not in self._watched:
                self._watch(fd, obj)

    def _close_vanished(self, vanished: Iterable[tuple[int, Any]]) -> None:
        """Close the objects whose descriptor somebody closed behind the loop's back."""
        for fd, obj in vanished:
            self._unwatch(fd)
            self._guard(obj, obj.handle_close)
            if self.map.get(fd) is not obj:
                continue
            if _is_open_with(fd, obj):  # With a new socket, under the same number.
                self._left.add(fd)
            else:
                with contextlib.suppress(KeyError):
                    del self.map[fd]

    def _watch(self, fd: int, obj: Any) -> None:
        self._watched[fd] = obj
        if _is_native(obj, self):
            self._set_mask(fd, obj, obj.interest)
        else:
            self._asked[fd] = obj

    def _unwatch(self, fd: int) -> None:
        if self._watched.pop(fd, None) is not None:
            self._outdated.add(fd)
            self._asked.pop(fd, None)
            self._always_ready.pop(fd, None)
            if self._masks.pop(fd, 0) and self._poller is not None:
                try:
                    self._poller.unregister(fd)
                except _REFUSALS:
                    pass  # Gone already when the descriptor was closed first.

    def _set_mask(self, fd: int, obj: Any, mask: int) -> None:
        if fd in self._always_ready:
            self._always_ready[fd] = mask & (READ | WRITE)
            return
        old = self._masks.get(fd, 0)
        if mask == old or self._poller is None:
            return
        try:
            self._register(self._poller, fd, old, mask)
        except PermissionError:
            self._masks.pop(fd, None)
            self._always_ready[fd] = mask & (READ | WRITE)
        except _REFUSALS:
            self._close_vanished([(fd, obj)])
        else:
            self._masks[fd] = mask

    def _register(self, poller: Poller, fd: int, old: int, mask: int) -> None:
        if not mask:
            # A registration for nothing still reports errors, again and again.
            with contextlib.suppress(*_REFUSALS):
                poller.unregister(fd)
        elif old:
            try:
                poller.modify(fd, mask)
            except FileNotFoundError:  # Closed and opened again behind our back.
                poller.register(fd, mask)
        else:
            try:
                poller.register(fd, mask)
            except FileExistsError:
                poller.modify(fd, mask)

    # -- ask

    def _ask(self) -> None:
        for fd, asked in list(self._asked.items()):
            obj = asked
            if self.map.get(fd) is not obj:
                self.note_change(fd)
                obj = self._asked.get(fd)
                if obj is None:
                    continue
            mask = READ | PRIORITY if obj.readable() else 0
            if obj.writable() and not obj.accepting:
                mask |= WRITE
            if self._masks.get(fd) == mask:
                continue  # As it is most often.
            # The answer may have closed the object.
            if self._watched.get(fd) is obj and self.map.get(fd) is obj:
                self._set_mask(fd, obj, mask)

    # -- wait

    def _wait(self, timeout: float) -> list[tuple[int, int]]:
        poller = self._poller
        if not self.map or poller is None:  # A handler that ran the loop ended it.
            return []
        clock = self.clock  # CPython calls what is no method faster so.
        self._due_at = self.deadlines.next_deadline()
        due_in = self._due_at - clock()
        if due_in < timeout:
            timeout = max(due_in, 0)
        if self._lost_wakers and not self.wakers:
            timeout = min(timeout, UNWAKEABLE_WAIT)
        self.is_awake = False
        if (
            self.ready
            or self._starting
            or (self._always_ready and any(self._always_ready.values()))
        ):
            timeout = 0
        events = self._poll(poller, timeout)
        self.is_awake = True
        self.now = clock()
        if self._always_ready:
            events.extend(item for item in self._always_ready.items() if item[1])
        return events

    def _poll(self, poller: Poller, timeout: float) -> list[tuple[int, int]]:
        if self._outdated:
            self._outdated.clear()
        self._wait_no += 1
        try:
            return poller.poll(timeout)
        except InterruptedError:
            pass
        except (OSError, ValueError):
            # select() fails as a whole when one of its descriptors was closed.
            if not self._close_invalid():
                raise
        return []

    def _close_invalid(self) -> bool:
        invalid = [(fd, obj) for fd, obj in self._watched.items() if not _is_open(fd)]
        self._close_vanished(invalid)
        return bool(invalid)

    # -- act

    def _handle_events(self, events: list[tuple[int, int]], dispatch: Dispatch) -> None:
        wait_no = self._wait_no
        # The same ones for as long as the loop lives.
        outdated, watched, asked_ones = self._outdated, self._watched, self._asked
        standing: Callable[[int], Any] = self.map.get
        for fd, flags in events:
            if self._wait_no != wait_no:
                return  # A handler ran the loop: these are old, and told again if still so.
            if outdated and fd in outdated:
                continue
            obj = watched.get(fd)
            if obj is None:
                # The descriptor was closed, and what it stood for lives on as a duplicate
                # somewhere. It would end every wait from now on.
                self._release_poller()
                return
            if standing(fd) is not obj:
                self.note_change(fd)
            elif fd in asked_ones and not hasattr(obj, "handle_events"):
                asked = self._masks.get(fd) or self._always_ready.get(fd, 0)
                dispatch(self.map, fd, obj, flags, asked)
            else:
                try:
                    obj.handle_events(flags)
                except (ExitNow, KeyboardInterrupt, SystemExit):
                    raise
                except BaseException:  # noqa: BLE001 - as in _guard
                    obj.handle_error()

    def _handle_latecomers(self, dispatch: Dispatch) -> None:
        """Handle what has come since the poll, to hand its tasks over together with the others.

        A client is often as quick to send its next request as the loop to read those of
        others, and handing over takes the workers and the loop as long as some requests do.
        """
        count = before = len(self._starting)
        for _ in range(MOST_LOOKS_AGAIN):
            # Responses wait; or the registrations are not up to date: they are in the next pass.
            if self.ready or self._poller is None or self._is_behind():
                break
            # Those who want to be asked before each wait were not before this one; what
            # listens is among them, so that nobody is accepted here.
            events = [each for each in self._poll(self._poller, 0) if each[0] not in self._asked]
            self._handle_events(events, dispatch)
            found = len(self._starting) - count
            count += found
            if found <= count * FEW_LATECOMERS:
                break
        self._looks_again.note(count > before)

    def _read_newcomers(self) -> None:
        newcomers, self._newcomers = self._newcomers, []
        for obj in newcomers:
            try:
                obj.handle_events(READ)
            except (ExitNow, KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - as in _guard, without its call
                obj.handle_error()

    def note_time(self) -> None:
        """Bring :attr:`now` up to date, where no pass does: for those who poll themselves."""
        self.now = self.clock()

    def drain_ready(self) -> None:
        """Let what is on the ready queue go on, where no pass is going to.

        For those who poll by themselves; inside of a pass it does nothing.
        """
        if not self._in_pass:
            self.is_awake = False
            self.note_time()
            self._drain_ready()

    def tell_due(self) -> None:
        """Tell those who are due, where no pass is going to; as :meth:`drain_ready`."""
        if not self._in_pass:
            self.note_time()
            self._expire()

    def _drain_ready(self) -> None:
        ready = self.ready
        # Only those present now: a handler that touches again waits for the next pass.
        for _ in range(len(ready)):
            if not ready:
                return  # A handler ran the loop.
            obj = ready.popleft()
            obj.touched = False
            try:
                obj.handle_ready()
            except (ExitNow, KeyboardInterrupt, SystemExit):
                raise
            except BaseException:  # noqa: BLE001 - as in _guard, without its call
                obj.handle_error()

    def _start(self) -> None:
        pools = self._pools
        starting = self._starting
        count = len(starting)
        try:
            for pool in pools:
                pool.hold_wakeups()
            if count > 1:
                first = starting[0]
                self._guard(first, first.start_together, starting)
            while starting:
                obj = starting.popleft()
                try:
                    obj.start_service()
                except (ExitNow, KeyboardInterrupt, SystemExit):
                    raise
                except BaseException:  # noqa: BLE001 - as in _guard, without its call
                    obj.handle_error()
            self._hand_over(count)
        finally:
            for pool in pools:
                pool.wake_rest()

    def _hand_over(self, count: int) -> None:
        """Let the workers run, to whom so many tasks were given; go on with what they do.

        The loop is awake meanwhile, so that nobody has to wake it. Interpreter and processor are
        left to others as long as they soon come back.

        Whoever has had the processor and has not reported is not waited for: its task takes
        longer. But of several workers one may just be coming, on another processor.
        """
        may_leave = self._yield_processor is not None and not self.ready
        leaves = may_leave and self._yields.take_occasion()
        began_at = self.clock()
        for pool in self._pools:
            pool.wake_first(leaves)
        had_processor = leaves and not self.ready and self._leave_processor()
        if leaves:
            seconds = self.clock() - began_at
            self._yields.note(seconds <= QUICK_TASK * (len(self.ready) or 1))
        waits = self._hand_over_wait and (count > 1 or not had_processor) and not self.ready
        if waits and self._waits.take_occasion():
            self._waits.note(self._await_workers())
        self._drain_ready()

    def _leave_processor(self) -> bool:
        """Leave the processor to others; say whether it was done."""
        assert self._yield_processor is not None
        try:
            self._yield_processor()
        except OSError:  # A sandbox forbids it.
            self._yield_processor = None
            return False
        return True

    def _await_workers(self) -> bool:
        """Wait until a worker reports, for a moment; say whether one did."""
        self._awaits_workers = True
        self.is_awake = False  # In this order; as in _wait, the queue is looked at afterwards.
        try:
            if not self.ready:
                self._hand_over_lock.acquire(timeout=self._hand_over_wait)
        finally:  # A signal may end the wait, and the loop go on.
            self._awaits_workers = False
            self.is_awake = True
        return bool(self.ready)

    def _expire(self) -> None:
        due = self.deadlines.take_due(self.now)
        try:
            while due:
                owner = due.pop()
                # What was done for another may have ended or moved its deadline.
                if owner.deadline <= self.now:
                    self._guard(owner, owner.handle_deadline, self.now)
        finally:
            for owner in due:  # Whoever ends the loop may run it again.
                self.deadlines.arm(owner, owner.deadline)

    def _guard(self, obj: Any, method: Callable[..., Any], *args: Any) -> None:
        try:
            method(*args)
        except (ExitNow, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:  # noqa: BLE001 - what one object runs into, the loop survives
            obj.handle_error()


class FencedEventLoop(EventLoop):
    """An event loop whose two flags stand under a lock: for interpreters without the GIL.

    Whoever appends and then tests a flag, and whoever clears the flag and then looks, must
    not both miss what the other did. With the GIL they cannot. Without it that takes a
    barrier between the two steps of each, which no operation of Python promises to be; that
    both sides use the flag under one lock is one.

    Threads: as :class:`EventLoop`.
    """

    # The workers run beside the loop anyway.
    _may_yield: ClassVar[bool] = False

    def __init__(self, *args: Any, **kw: Any) -> None:
        # Reentrant: a signal may order the end of the server while this thread has it.
        self.flag_lock = threading.RLock()
        # guarded by flag_lock:
        self._is_awake = False

        super().__init__(*args, **kw)

    def _new_ready_queue(self) -> deque[Any]:
        return _FencedQueue(self.flag_lock)

    @property
    def is_awake(self) -> bool:
        """Whether the loop is going to look at the ready queue."""
        with self.flag_lock:
            return self._is_awake

    @is_awake.setter
    def is_awake(self, value: bool) -> None:
        with self.flag_lock:
            self._is_awake = value

    def touch_threadsafe(self, obj: Any) -> bool:
        with self.flag_lock:
            if not obj.touched:
                obj.touched = True
                self.ready.append(obj)
            return not self._is_awake


class _FencedQueue(deque[Any]):
    """A ready queue that clears ``touched`` of what it gives, under the lock of the flags.

    The loop clears it once more: an object that was touched in between may stand in the
    queue twice, and is looked at twice.
    """

    def __init__(self, lock: threading.RLock) -> None:
        super().__init__()
        self._lock = lock

    def popleft(self) -> Any:
        obj = super().popleft()
        with self._lock:
            obj.touched = False
        return obj


def best_yield() -> Callable[[], object]:
    """Return what leaves the processor to other threads, at once and for no longer than needed."""
    if not isinstance(time.sleep, BuiltinFunctionType):
        return partial(time.sleep, 0)  # Somebody's own, as gevent's: the threads are his, too.
    return getattr(os, "sched_yield", partial(time.sleep, 0))


def _event_loop_class() -> type[EventLoop]:
    return EventLoop if has_gil() else FencedEventLoop


def event_loop_of(map: MutableMapping[int, Any]) -> EventLoop:
    """Return the event loop of a socket map; make one with the defaults if it has none.

    For a dict that is no :class:`SocketMap` the loop lives as long as one of the
    objects that hold it.
    """
    if type(map) is SocketMap and map.event_loop is not None:
        return map.event_loop  # It keeps the one that it has.
    with EventLoop._by_map_lock:
        return find_event_loop(map) or _event_loop_class()(map)


def find_event_loop(map: Mapping[int, Any]) -> EventLoop | None:
    """Return the event loop of a socket map, if it has one."""
    if isinstance(map, SocketMap):
        return map.event_loop
    with EventLoop._by_map_lock:
        return EventLoop._by_map.get(id(map))


def _is_native(obj: Any, event_loop: EventLoop) -> bool:
    return (
        getattr(obj, "interest_is_state", False) is True
        and obj.event_loop is event_loop
        # Not replaced on this very object. Asked of the methods, because CPython keeps the
        # attributes of an object whose __dict__ was looked at in a slower form from then on.
        and getattr(obj.readable, "__func__", None) is type(obj).readable
        and getattr(obj.writable, "__func__", None) is type(obj).writable
    )


def snapshot(map: Mapping[int, Any]) -> dict[int, Any]:
    """Copy a map that other threads may change meanwhile."""
    while True:
        try:
            return dict(map)
        except RuntimeError:  # It changed its size under the copy: try again.
            continue


def _socket_was_closed(fd: int, obj: Any) -> bool:
    """Tell whether somebody closed the object's socket without telling the object."""
    return fd >= 0 and _number_of(obj, fd) < 0


def _is_open_with(fd: int, obj: Any) -> bool:
    """Tell whether the object's socket is an open one of this number."""
    return _number_of(obj, -1) == fd and _is_open(fd)


def _number_of(obj: Any, default: int) -> int:
    """Return the number of the object's socket: -1 when closed, the default without one."""
    fileno = getattr(getattr(obj, "socket", None), "fileno", None)
    if fileno is None:
        return default
    try:
        return int(fileno())
    except ValueError:  # As closed files have it.
        return -1


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except (OSError, OverflowError):
        return False
    return True
