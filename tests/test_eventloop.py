"""Which descriptors are watched, who is told what, and who is due."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import select
import socket
import sys
import threading
import weakref
from functools import partial
from itertools import pairwise
from math import inf
from types import SimpleNamespace

import pytest

from tests.fakes import FakeClock
from tests.looping import PATIENCE, InThread, Raises, Stranger, await_event, tcp_pair
from waitress import eventloop
from waitress.backoff import Backoff
from waitress.eventloop import (
    AUDIT_SOCKETS,
    LONGEST_WAIT,
    MOST_LOOKS_AGAIN,
    UNWAKEABLE_WAIT,
    EventLoop,
    ExitNow,
    FencedEventLoop,
    SocketMap,
    event_loop_of,
    find_event_loop,
    snapshot,
)
from waitress.pollers import PRIORITY, READ, WRITE, EpollPoller, SelectPoller

pytestmark = pytest.mark.usefixtures("no_leaks")


# -- the outside world -----------------------------------------------------------------


class ScriptedPoller:
    """Registrations as epoll has them; events as the test says."""

    descriptor_limit = None

    def __init__(self, script, refused, timeouts):
        self.masks = {}
        #: How often the system was asked to change a registration.
        self.calls = 0
        self.refused = refused
        self.script = script
        self.timeouts = timeouts
        self.is_closed = False

    def _check(self, fd):
        self.calls += 1
        if fd in self.refused:
            raise self.refused[fd]

    def register(self, fd, mask):
        self._check(fd)
        if fd in self.masks:
            raise FileExistsError(errno.EEXIST, "watched already")
        self.masks[fd] = mask

    def modify(self, fd, mask):
        self._check(fd)
        if fd not in self.masks:
            raise FileNotFoundError(errno.ENOENT, "not watched")
        self.masks[fd] = mask

    def unregister(self, fd):
        if fd not in self.masks:
            raise FileNotFoundError(errno.ENOENT, "not watched")
        del self.masks[fd]

    def poll(self, timeout):
        self.timeouts.append(timeout)
        events = self.script.pop(0) if self.script else []
        if isinstance(events, BaseException):
            raise events
        return list(events() if callable(events) else events)

    def close(self):
        self.is_closed = True


class World:
    """An event loop on a scripted poller and a clock that stands still."""

    def __init__(self, socket_map=None, loop_class=EventLoop):
        self.clock = FakeClock()
        self.script = []
        self.refused = {}
        self.timeouts = []
        self.pollers = []
        self.told = []
        self.loop = loop_class(
            SocketMap() if socket_map is None else socket_map,
            clock=self.clock,
            poller_factory=self._poller,
        )
        self.map = self.loop.map

    def _poller(self, select):
        self.pollers.append(ScriptedPoller(self.script, self.refused, self.timeouts))
        return self.pollers[-1]

    @property
    def masks(self):
        return self.pollers[-1].masks

    def dispatch(self, socket_map, fd, obj, flags, asked):
        assert socket_map is self.map
        self.told.append((fd, flags, asked))
        if "told" in obj.actions:
            obj.actions["told"]()

    def turn(self, *events, timeout=1.0, count=1):
        """Make a pass in which these events happen."""
        self.script.append(events)
        self.loop.run(timeout, self.dispatch, count)
        return self.told


@pytest.fixture(params=[SocketMap, dict], ids=["our map", "a dict"])
def world(request):
    return World(request.param())


class Native:
    """An object that keeps its interest as state."""

    interest_is_state = True
    touched = False
    accepting = False
    deadline = inf
    deadline_bucket = None

    def __init__(self, event_loop, interest=READ):
        self.event_loop = event_loop
        self.interest = interest
        self.events = []
        self.actions = {}

    def _happened(self, event):
        self.events.append(event)
        if event in self.actions:
            self.actions[event]()

    def readable(self):
        self._happened("asked")
        return True

    def writable(self):
        return False

    def handle_events(self, flags):
        self._happened(f"events {flags}")

    def handle_ready(self):
        self._happened("ready")

    def handle_deadline(self, now):
        self._happened(f"due {now}")

    def start_service(self):
        self._happened("started")

    def start_together(self, objs):
        """Start nobody."""

    def handle_close(self):
        self._happened("close")

    def handle_error(self):
        self._happened(f"error {sys.exc_info()[1]!r}")


# -- maps and their loops ----------------------------------------------------------------


class TestASocketMap:
    def test_is_a_dict(self):
        assert SocketMap() == {}
        assert SocketMap({1: "a"}) == {1: "a"}
        assert isinstance(SocketMap(), dict)

    @pytest.mark.parametrize(
        ("change", "expected"),
        [
            (lambda m: m.__setitem__(4, "new"), {3: "old", 4: "new"}),
            (lambda m: m.__setitem__(3, "new"), {3: "new"}),
            (lambda m: m.__delitem__(3), {}),
            (lambda m: m.pop(3), {}),
            (lambda m: m.pop(9, None), {3: "old"}),
            (lambda m: m.popitem(), {}),
            (lambda m: m.clear(), {}),
            (lambda m: m.setdefault(4, "new"), {3: "old", 4: "new"}),
            (lambda m: m.setdefault(3, "new"), {3: "old"}),
            (lambda m: m.update({4: "new", 3: "new"}), {3: "new", 4: "new"}),
            (lambda m: m.update(iter([(4, "new")])), {3: "old", 4: "new"}),
            (lambda m: m.__ior__({4: "new"}), {3: "old", 4: "new"}),
        ],
    )
    @pytest.mark.parametrize("from_outside", [False, True])
    def test_has_what_was_put_into_it_watched_whatever_the_way(
        self, change, expected, from_outside
    ):
        world = World()
        objects = {name: Native(world.loop) for name in ("old", "new")}
        world.map[3] = objects["old"]
        for _ in range(2):
            world.turn(timeout=1000)
            assert set(world.masks) == {3}
        poller = world.pollers[0]

        if from_outside:
            # In the middle of the wait, by another thread.
            world.script.append(lambda: InThread(put, world.map, change, objects).result() or ())
            world.loop.run(1000, world.dispatch, 1)
        else:
            put(world.map, change, objects)
        # Something to go on with.
        world.map[9] = Native(world.loop)
        world.turn(timeout=1000)
        assert set(world.masks) == {*expected, 9}
        assert set(poller.masks) <= {*expected, 9} or poller.is_closed
        del world.map[9]
        assert world.map == {fd: objects[name] for fd, name in expected.items()}
        for fd in world.map:
            world.turn((fd, READ), timeout=1000)
            assert world.map[fd].events == ["events 1"]
            world.map[fd].events.clear()

    def test_says_what_is_not_there_as_a_dict_does(self):
        with pytest.raises(KeyError):
            SocketMap().pop(3)
        with pytest.raises(KeyError):
            del SocketMap()[3]
        with pytest.raises(KeyError):
            SocketMap().popitem()

    def test_returns_what_a_dict_returns(self):
        socket_map = SocketMap({3: "a", 4: "b"})
        assert socket_map.popitem() == (4, "b")
        assert socket_map.pop(3) == "a"
        assert socket_map.pop(3, "c") == "c"
        assert socket_map.setdefault(5, "d") == "d"
        assert socket_map.setdefault(5, "e") == "d"
        same = socket_map
        socket_map |= {6: "f"}
        assert socket_map is same
        assert socket_map == {5: "d", 6: "f"}

    def test_remembers_no_more_than_there_are_descriptors(self):
        """Where nobody runs the loop, nobody reads what it remembers."""
        socket_map = SocketMap()
        for _ in range(1000):
            socket_map[3] = "a"
            del socket_map[3]
        assert len(socket_map.changes) <= 1


def put(socket_map, change, objects):
    """Make a change that is told in names with the objects of these names."""

    class Named(dict):
        """Stands for the map, and translates."""

        def __setitem__(self, fd, name):
            socket_map[fd] = objects[name]

        def __delitem__(self, fd):
            del socket_map[fd]

        def pop(self, *args):
            socket_map.pop(*args)

        def popitem(self):
            socket_map.popitem()

        def clear(self):
            socket_map.clear()

        def setdefault(self, fd, name):
            socket_map.setdefault(fd, objects[name])

        def update(self, items):
            pairs = dict(items).items()
            socket_map.update(iter([(fd, objects[name]) for fd, name in pairs]))

        def __ior__(self, items):
            socket_map.__ior__({fd: objects[name] for fd, name in items.items()})
            return self

    change(Named())


class TestTheLoopOfAMap:
    @pytest.mark.parametrize("kind", [SocketMap, dict])
    def test_is_one(self, kind):
        socket_map = kind()
        assert find_event_loop(socket_map) is None
        event_loop = event_loop_of(socket_map)
        assert event_loop_of(socket_map) is event_loop
        assert find_event_loop(socket_map) is event_loop
        assert event_loop.map is socket_map

    def test_is_the_one_that_was_made_for_it(self):
        socket_map = {}
        event_loop = EventLoop(socket_map)
        assert event_loop_of(socket_map) is event_loop

    def test_of_a_dict_lives_as_long_as_somebody_holds_it(self):
        socket_map = {}
        event_loop = event_loop_of(socket_map)
        del event_loop
        gc.collect()
        assert find_event_loop(socket_map) is None

    def test_of_equal_dicts_is_not_the_same(self):
        first, second = {}, {}
        one, other = event_loop_of(first), event_loop_of(second)
        assert one is not other

    def test_makes_a_map_when_it_is_given_none(self):
        event_loop = EventLoop()
        assert isinstance(event_loop.map, SocketMap)
        assert event_loop_of(event_loop.map) is event_loop

    def test_knows_what_workers_wait_on(self):
        assert EventLoop().condition_factory is threading.Condition
        assert EventLoop(condition_factory=list).condition_factory is list

    @pytest.mark.parametrize("kind", [SocketMap, dict])
    def test_is_one_for_all_threads(self, kind):
        for _ in range(50):
            socket_map, barrier = kind(), threading.Barrier(4)

            def find(socket_map=socket_map, barrier=barrier):
                barrier.wait(PATIENCE)
                return event_loop_of(socket_map)

            finders = [InThread(find) for _ in range(4)]
            assert len({id(each.result()) for each in finders}) == 1


class TestASnapshot:
    def test_is_tried_again_when_the_map_changes_meanwhile(self):
        class Changing(dict):
            def keys(self):
                if self.changes:
                    self.changes -= 1
                    raise RuntimeError("dictionary changed size during iteration")
                return super().keys()

            def __iter__(self):
                return iter(self.keys())

        changing = Changing({1: 2})
        changing.changes = 3
        assert snapshot(changing) == {1: 2}
        assert changing.changes == 0


# -- one pass ------------------------------------------------------------------------------


class TestAPass:
    def test_does_everything_in_its_order(self, world):
        order = []
        native, stranger = Native(world.loop), Stranger()
        world.map[3], world.map[4] = native, stranger
        stranger.actions["readable"] = lambda: order.append("ask")
        stranger.actions["told"] = lambda: order.append("told")
        native.actions["events 1"] = lambda: (
            order.append("events"),
            world.loop.start_soon(native),
            world.loop.touch_threadsafe(native),
        )
        world.loop.deadlines.arm(native, 0.0)
        native.actions["ready"] = lambda: order.append("ready")
        native.actions["started"] = lambda: order.append("started")
        native.actions[f"due {world.clock()}"] = lambda: order.append("due")
        world.script.append(lambda: order.append("wait") or [(4, READ), (3, READ)])
        world.loop.run(1.0, world.dispatch, 1)
        assert order == ["ask", "wait", "told", "events", "ready", "due", "started"]

    def test_is_made_as_often_as_wanted(self, world):
        world.map[3] = Stranger()
        world.turn(count=3)
        assert len(world.timeouts) == 3

    def test_is_not_made_without_objects(self, world):
        world.turn(count=None)
        assert world.timeouts == []

    def test_is_the_last_when_the_map_is_empty(self, world):
        world.map[3] = Stranger()
        world.script.append(lambda: world.map.clear() or ())
        world.loop.run(1.0, world.dispatch)
        assert len(world.timeouts) == 1

    def test_does_not_wait_when_asking_has_emptied_the_map(self, world):
        stranger = world.map[3] = Stranger()
        stranger.actions["readable"] = world.map.clear
        world.loop.run(1.0, world.dispatch)
        assert world.timeouts == []

    def test_knows_the_time_after_the_wait(self, world):
        native = world.map[3] = Native(world.loop)
        seen = []
        native.actions["events 1"] = lambda: seen.append(world.loop.now)
        world.script.append(lambda: world.clock.advance(5) or [(3, READ)])
        world.loop.run(9.0, world.dispatch, 1)
        assert seen == [1005.0]


class TestTheWait:
    def test_is_as_long_as_wanted(self, world):
        world.map[3] = Stranger()
        world.turn(timeout=2.5)
        assert world.timeouts == [2.5]

    def test_is_bounded_when_no_bound_is_named(self, world):
        world.map[3] = Stranger()
        world.turn(timeout=None)
        assert world.timeouts == [LONGEST_WAIT]

    def test_is_no_longer_than_a_system_can_count(self, world):
        world.map[3] = Stranger()
        world.turn(timeout=inf)
        assert world.timeouts == [86400.0]

    def test_ends_with_the_next_deadline(self, world):
        native = world.map[3] = Native(world.loop)
        world.loop.deadlines.arm(native, world.clock() + 0.5)
        world.turn(timeout=2)
        assert world.timeouts == [0.5]

    def test_is_none_when_somebody_is_overdue(self, world):
        native = world.map[3] = Native(world.loop)
        world.loop.deadlines.arm(native, world.clock() - 5)
        world.turn(timeout=2)
        assert world.timeouts == [0]
        assert native.events == ["due 1000.0"]

    def test_is_none_when_somebody_is_ready(self, world):
        native = world.map[3] = Native(world.loop)
        world.loop.touch_threadsafe(native)
        world.turn()
        assert world.timeouts == [0]
        assert native.events == ["ready"]

    def test_is_as_good_as_over_when_a_signal_ends_it(self, world):
        native = world.map[3] = Native(world.loop)
        world.loop.touch_threadsafe(native)
        world.script.append(InterruptedError())
        world.loop.run(1.0, world.dispatch, 1)
        assert native.events == ["ready"]

    def test_that_fails_for_no_object_s_fault_ends_the_loop(self, world):
        ours, theirs = socket.socketpair()
        stranger = world.map[ours.fileno()] = Stranger()
        broken = OSError(errno.EIO, "broken")
        world.script.append(broken)
        with pytest.raises(OSError, match="broken") as caught:
            world.loop.run(1.0, world.dispatch)
        assert caught.value is broken
        assert stranger.events == []
        ours.close()
        theirs.close()

    def test_that_fails_because_a_descriptor_was_closed_closes_its_object(self):
        pairs = [tcp_pair() for _ in range(2)]
        objects = [Stranger(), Stranger()]
        socket_map = {pair[0].fileno(): obj for pair, obj in zip(pairs, objects, strict=True)}
        event_loop = EventLoop(socket_map, poller_factory=SelectPoller)
        dispatch = World().dispatch
        event_loop.run(0, dispatch, 1)
        pairs[0][0].close()
        event_loop.run(0, dispatch, 2)
        assert objects[0].events == ["close"]
        assert objects[1].events == []
        assert list(socket_map.values()) == [objects[1]]
        for each in (*pairs[0], *pairs[1]):
            each.close()

    def test_once_over_makes_waking_unnecessary(self, world):
        world.loop.wakers.append(SimpleNamespace(pull_physically_threadsafe=Raises(AssertionError)))
        native = world.map[3] = Native(world.loop)
        native.actions["events 1"] = world.loop.wake_threadsafe
        world.turn((3, READ))
        assert native.events == ["events 1"]

    def test_wakes_the_loop_for_those_who_touch_it_meanwhile_only(self, world):
        pulled = []
        world.loop.wakers.append(
            SimpleNamespace(pull_physically_threadsafe=lambda: pulled.append(1) or True)
        )
        native = world.map[3] = Native(world.loop)
        native.actions["ready"] = world.loop.wake_threadsafe  # Awake: nothing to do.
        world.script.append(lambda: [world.loop.wake_threadsafe() for _ in range(3)] and ())
        world.loop.touch_threadsafe(native)
        world.loop.run(1.0, world.dispatch, 1)
        assert native.events == ["ready"]
        assert pulled == [1]

    def test_is_short_when_the_last_that_could_end_it_is_gone(self, world):
        """Workers may still finish responses while the server goes down."""
        world.map[3] = Stranger()
        first, last = object(), object()
        world.loop.wakers.extend([first, last])
        world.turn()
        world.loop.remove_waker_threadsafe(first)
        world.loop.remove_waker_threadsafe(object())
        world.turn()
        world.loop.remove_waker_threadsafe(last)
        world.turn()
        world.turn(timeout=0.01)
        world.loop.wakers.append(first)
        world.turn()
        assert world.timeouts == [1.0, 1.0, UNWAKEABLE_WAIT, 0.01, 1.0]

    def test_is_over_for_the_next_who_wakes_when_nothing_could_wake(self, world):
        world.map[3] = Stranger()
        world.turn()
        world.loop.wake_threadsafe()
        assert world.loop.claim_wakeup_threadsafe()
        assert not world.loop.claim_wakeup_threadsafe()


# -- objects that keep their interest as state ---------------------------------------------


class TestANativeObject:
    def test_is_watched_for_its_interest(self, world):
        world.map[3] = Native(world.loop, READ | WRITE)
        world.turn()
        assert world.masks == {3: READ | WRITE}

    def test_is_not_watched_without_interest(self, world):
        world.map[3] = Native(world.loop, 0)
        world.turn()
        assert world.masks == {}

    def test_is_never_asked(self, world):
        native = world.map[3] = Native(world.loop)
        world.turn((3, READ | WRITE), count=3)
        assert native.events == [f"events {READ | WRITE}"]
        assert world.told == []

    @pytest.mark.parametrize(
        "interests", [(READ, WRITE), (READ, READ | WRITE, READ), (READ, 0, WRITE), (0, READ)]
    )
    def test_tells_what_it_is_interested_in_from_now_on(self, world, interests):
        native = world.map[3] = Native(world.loop, interests[0])
        world.turn()
        for interest in interests[1:]:
            native.interest = interest
            world.loop.set_interest(3, interest)
            assert world.masks == ({3: interest} if interest else {})

    def test_costs_a_system_call_for_every_change_and_none_without(self, world):
        world.map[3], world.map[4] = Native(world.loop), Stranger()
        world.turn(count=5)
        world.loop.set_interest(3, READ)
        assert world.pollers[0].calls == 2
        world.loop.set_interest(3, WRITE)
        assert world.pollers[0].calls == 3

    def test_may_have_its_change_noted_before_anybody_waits(self, world):
        world.map[3] = Native(world.loop)
        world.loop.note_change(3)
        world.turn()
        assert world.masks == {3: READ}

    def test_may_tell_before_it_is_watched(self, world):
        native = world.map[3] = Native(world.loop, READ)
        native.interest = WRITE
        world.loop.set_interest(3, WRITE)
        world.turn()
        assert world.masks == {3: WRITE}

    def test_is_watched_at_once_when_its_change_is_noted(self, world):
        world.map[3] = Native(world.loop)
        world.turn()
        world.map[4] = Native(world.loop, WRITE)
        world.loop.note_change(4)
        assert world.masks == {3: READ, 4: WRITE}
        del world.map[4]
        world.loop.note_change(4)
        assert world.masks == {3: READ}
        world.turn()
        assert world.masks == {3: READ}

    @pytest.mark.parametrize("question", ["readable", "writable"])
    def test_is_asked_when_it_answers_for_itself(self, world, question):
        native = world.map[3] = Native(world.loop)
        native.actions["asked"] = native.events.clear
        setattr(native, question, lambda: native.events.append("itself"))
        world.turn()
        assert "itself" in native.events

    def test_is_asked_in_another_loop_than_its_own(self, world):
        native = world.map[3] = Native(EventLoop())
        world.turn()
        assert native.events == ["asked"]
        assert world.masks == {3: READ | PRIORITY}

    def test_handles_its_errors_itself(self, world):
        native = world.map[3] = Native(world.loop)
        native.actions["events 1"] = Raises(LookupError("x"))
        world.turn((3, READ))
        assert native.events == ["events 1", "error LookupError('x')"]

    @pytest.mark.parametrize("error", [ExitNow, KeyboardInterrupt, SystemExit])
    def test_can_end_the_loop(self, world, error):
        native = world.map[3] = Native(world.loop)
        native.actions["events 1"] = Raises(error())
        with pytest.raises(error):
            world.turn((3, READ))
        assert native.events == ["events 1"]


# -- objects that are asked ------------------------------------------------------------------


class TestAStranger:
    @pytest.mark.parametrize(
        ("reads", "writes", "accepting", "mask"),
        [
            (True, False, False, READ | PRIORITY),
            (False, True, False, WRITE),
            (True, True, False, READ | PRIORITY | WRITE),
            (True, True, True, READ | PRIORITY),
            (False, False, False, None),
        ],
    )
    def test_is_watched_for_what_it_answers(self, world, reads, writes, accepting, mask):
        stranger = world.map[3] = Stranger(reads, writes)
        stranger.accepting = accepting
        world.turn()
        assert world.masks == ({} if mask is None else {3: mask})

    def test_is_asked_in_every_pass_and_once(self, world):
        stranger = world.map[3] = Stranger()
        asked = []
        stranger.actions["readable"] = lambda: asked.append("r")
        stranger.actions["writable"] = lambda: asked.append("w")
        world.turn(count=3)
        assert asked == ["r", "w"] * 3

    def test_may_change_its_mind(self, world):
        stranger = world.map[3] = Stranger()
        seen = []
        for stranger.reads, stranger.writes in [(True, True), (False, True), (False, False)]:
            world.turn()
            seen.append(dict(world.masks))
        assert seen == [{3: READ | PRIORITY | WRITE}, {3: WRITE}, {}]

    def test_is_told_what_happened_and_what_it_had_asked_for(self, world):
        world.map[3] = Stranger(True, True)
        assert world.turn((3, WRITE)) == [(3, WRITE, READ | PRIORITY | WRITE)]

    def test_may_leave_while_it_is_asked(self, world):
        stranger, other = Stranger(), Stranger()
        world.map[3], world.map[4] = stranger, other
        stranger.actions["readable"] = lambda: world.map.pop(3)
        world.turn()
        assert world.masks == {4: READ | PRIORITY}
        world.turn()
        assert world.masks == {4: READ | PRIORITY}

    def test_may_put_another_in_its_place_while_it_is_asked(self, world):
        stranger, other = Stranger(), Stranger(False, True)
        world.map[3] = stranger

        def replace():
            world.map[3] = other

        stranger.actions["readable"] = replace
        world.turn()
        world.turn()
        assert world.masks == {3: WRITE}

    def test_may_make_another_leave_while_it_is_asked(self, world):
        stranger, other = Stranger(), Stranger()
        world.map[3], world.map[4] = stranger, other
        stranger.actions["readable"] = lambda: world.map.pop(4, None)
        other.actions["readable"] = Raises(AssertionError("it left before"))
        world.turn()
        assert world.masks == {3: READ | PRIORITY}

    def test_that_fails_to_answer_ends_the_loop(self, world):
        stranger = world.map[3] = Stranger()
        stranger.actions["readable"] = Raises(LookupError("x"))
        with pytest.raises(LookupError):
            world.turn()


# -- a map that changes ------------------------------------------------------------------------


class TestAnEvent:
    def test_is_not_for_an_object_that_left(self, world):
        native = Native(world.loop)
        world.map[3], world.map[4] = native, Native(world.loop)
        native.actions["events 1"] = lambda: world.map.pop(4)
        gone = world.map[4]
        world.turn((3, READ), (4, READ))
        assert gone.events == []

    def test_is_not_for_the_one_who_came_instead(self, world):
        native, other = Native(world.loop), Native(world.loop)
        world.map[3], world.map[4] = native, Native(world.loop)

        def replace():
            del world.map[4]
            world.map[4] = other
            world.loop.note_change(4)

        native.actions["events 1"] = replace
        world.turn((3, READ), (4, READ))
        assert other.events == []
        world.turn((4, READ))
        assert other.events == ["events 1"]

    def test_is_not_for_the_one_whom_another_thread_put_there(self, world):
        world.map[3] = Native(world.loop)
        other = Native(world.loop, WRITE)

        def replace():
            InThread(world.map.__setitem__, 3, other).result()
            return [(3, READ)]

        world.script.append(replace)
        world.loop.run(1.0, world.dispatch, 1)
        assert other.events == []
        world.turn()
        assert world.masks == {3: WRITE}

    def test_of_a_registration_that_nobody_knows_makes_a_new_poller(self, world):
        """The descriptor was closed, but a duplicate keeps it alive in the kernel."""
        stranger = world.map[3] = Stranger()
        world.map[4] = Native(world.loop, WRITE)
        world.turn()
        assert world.turn((99, READ), (3, READ)) == []
        world.turn()
        assert [each.is_closed for each in world.pollers] == [True, False]
        assert world.masks == {3: READ | PRIORITY, 4: WRITE}
        assert world.turn((3, READ)) == [(3, READ, READ | PRIORITY)]
        assert stranger.events == []


class TestAMapThatChanges:
    def test_is_followed_from_one_pass_to_the_next(self, world):
        world.map[3] = Native(world.loop)
        world.turn(timeout=1000)
        world.map[4] = Native(world.loop)
        world.turn(timeout=1000)
        assert set(world.masks) == {3, 4}
        del world.map[3]
        world.turn(timeout=1000)
        assert set(world.masks) == {4}

    def test_is_compared_in_full_once_in_a_while(self):
        """A dict tells nothing, and its length may be the same."""
        world = World({})
        world.map[3] = Native(world.loop)
        world.turn(timeout=5)
        del world.map[3]
        world.map[4] = Native(world.loop)
        world.turn(timeout=5)
        assert set(world.masks) == {3}
        world.clock.advance(5)
        world.turn(timeout=5)
        world.turn(timeout=5)
        assert set(world.masks) == {4}

    def test_of_thousands_is_audited_a_part_at_a_time(self, world, monkeypatch):
        looked_at = []
        monkeypatch.setattr(eventloop, "_socket_was_closed", lambda fd, obj: looked_at.append(fd))
        for fd in range(AUDIT_SOCKETS * 2 + 1):
            world.map[fd] = Native(world.loop)
        world.turn(timeout=1)
        world.clock.advance(1)
        world.turn(timeout=1)
        del world.map[AUDIT_SOCKETS * 2]
        rounds = []
        for _ in range(8):
            looked_at.clear()
            world.clock.advance(1)
            world.turn(timeout=1)
            rounds.append(list(looked_at))
        assert max(map(len, rounds)) == AUDIT_SOCKETS
        assert {fd for each in rounds for fd in each} == set(range(AUDIT_SOCKETS * 2))

    def test_is_compared_as_often_as_the_present_caller_wants(self):
        world = World({})
        world.map[3] = Native(world.loop)
        world.turn(timeout=1000)
        del world.map[3]
        world.map[4] = Native(world.loop)
        world.clock.advance(1)
        world.turn(timeout=1)
        world.turn(timeout=1)
        assert set(world.masks) == {4}

    @pytest.mark.parametrize("way", ["out and in", "in again"])
    @pytest.mark.parametrize("from_outside", [False, True])
    def test_of_ours_tells_that_an_object_came_back_with_another_socket(self, way, from_outside):
        """Of the same number: the registration went with the socket that was closed."""
        world = World()
        native = world.map[3] = Native(world.loop)
        world.turn(timeout=1000)

        def come_back():
            world.masks.clear()
            if way == "out and in":
                del world.map[3]
            world.map[3] = native
            return ()

        if from_outside:
            world.script.append(lambda: InThread(come_back).result())
            world.loop.run(1000, world.dispatch, 1)
        else:
            come_back()
        world.turn(timeout=1000)
        assert world.masks == {3: READ}

    def test_may_get_the_same_object_back_with_another_socket_of_the_same_number(self, world):
        native = world.map[3] = Native(world.loop)
        world.turn(timeout=1000)
        world.masks.clear()  # It was closed: the kernel forgets it.
        del world.map[3]
        world.loop.note_left_threadsafe(3)
        world.map[3] = native
        world.turn(timeout=1000)
        assert world.masks == {3: READ}
        assert native.events == []

    def test_has_strangers_registered_anew_once_in_a_while(self):
        """Whose socket is another one of the same number nobody tells."""
        world = World({})
        world.map[3] = Stranger()
        world.turn(timeout=5)
        world.masks.clear()
        world.clock.advance(5)
        world.turn(timeout=5)
        world.turn(timeout=5)
        assert world.masks == {3: READ | PRIORITY}

    def test_has_strangers_without_a_wish_left_alone(self):
        world = World({})
        world.map[3] = Stranger(reads=False)
        world.turn(timeout=5)
        world.clock.advance(5)
        world.turn(timeout=5)
        assert world.masks == {}


class TestALoopAndADuplicate:
    """With the real poller: what was closed lives on in a duplicate."""

    @staticmethod
    def run(event_loop, count=1):
        event_loop.run(0, World().dispatch, count)

    def test_leaves_no_registration_behind_when_the_map_is_left_first(self):
        pollers = []
        event_loop = EventLoop(
            poller_factory=lambda select: pollers.append(EpollPoller(select)) or pollers[-1]
        )
        (kept, far), (ours, theirs) = tcp_pair(), tcp_pair()
        event_loop.map[kept.fileno()] = Native(event_loop)
        native = event_loop.map[ours.fileno()] = Native(event_loop)
        self.run(event_loop)
        duplicate = ours.dup()
        native.actions["events 1"] = lambda: (event_loop.map.pop(ours.fileno()), ours.close())
        theirs.send(b"x")
        for _ in range(3):
            self.run(event_loop)
        assert native.events == ["events 1"]
        assert pollers[0].poll(0) == []
        assert len(pollers) == 1
        for each in (kept, far, theirs, duplicate):
            each.close()
        event_loop.map.clear()

    def test_gets_rid_of_one_that_was_left_behind(self):
        pollers = []
        event_loop = EventLoop(
            {}, poller_factory=lambda select: pollers.append(EpollPoller(select)) or pollers[-1]
        )
        (kept, far), (ours, theirs) = tcp_pair(), tcp_pair()
        event_loop.map[kept.fileno()] = Native(event_loop)
        event_loop.map[ours.fileno()] = Native(event_loop)
        self.run(event_loop)
        duplicate, fd = ours.dup(), ours.fileno()
        ours.close()
        del event_loop.map[fd]
        theirs.send(b"x")
        for _ in range(3):
            self.run(event_loop)
        assert len(pollers) == 2
        assert pollers[1].poll(0) == []
        far.send(b"x")
        self.run(event_loop)
        assert event_loop.map[kept.fileno()].events == ["events 1"]
        for each in (kept, far, theirs, duplicate):
            each.close()
        event_loop.map.clear()
        self.run(event_loop)


# -- descriptors that cannot be watched ------------------------------------------------------


class TestAPlainFile:
    """epoll refuses them: they are always ready."""

    @pytest.fixture
    def plain(self, world):
        world.refused[3] = PermissionError(errno.EPERM, "Operation not permitted")
        return world

    def test_is_always_ready_for_what_it_wants(self, plain):
        plain.map[3] = Stranger(True, True)
        assert plain.turn() == [(3, READ | WRITE, READ | WRITE)]
        assert plain.timeouts == [0]

    def test_is_not_ready_for_what_it_does_not_want(self, plain):
        stranger = plain.map[3] = Stranger(True, False)
        assert plain.turn() == [(3, READ, READ)]
        stranger.reads = False
        plain.turn()
        assert len(plain.told) == 1
        assert plain.timeouts == [0, 1.0]
        stranger.writes = True
        assert plain.turn()[1:] == [(3, WRITE, WRITE)]

    def test_may_take_the_number_of_what_could_be_watched(self, world):
        stranger = world.map[3] = Stranger(True, False)
        world.turn()
        world.refused[3] = PermissionError(errno.EPERM, "Operation not permitted")
        stranger.writes = True
        world.turn()
        stranger.writes = False
        world.told.clear()
        assert world.turn() == [(3, READ, READ)]

    def test_is_forgotten_when_it_leaves(self, plain):
        plain.map[3], plain.map[4] = Stranger(), Stranger(False)
        plain.turn()
        del plain.map[3]
        plain.told.clear()
        assert plain.turn() == []
        assert plain.timeouts[-1] == 1.0

    def test_may_be_watched_by_an_object_of_ours(self, plain):
        native = plain.map[3] = Native(plain.loop)
        plain.turn()
        assert native.events == ["events 1"]


class TestADescriptorThatIsRefused:
    @pytest.mark.parametrize(
        "error", [OSError(errno.EBADF, "x"), ValueError("negative"), OverflowError("large")]
    )
    def test_has_its_object_closed_and_removed(self, world, error):
        world.refused[3] = error
        stranger = world.map[3] = Stranger()
        world.map[4] = Stranger()
        world.turn(count=2)
        assert stranger.events == ["close"]
        assert set(world.map) == set(world.masks) == {4}

    def test_of_an_object_of_ours_too(self, world):
        world.refused[3] = OSError(errno.EBADF, "x")
        native = world.map[3] = Native(world.loop)
        world.turn()
        assert native.events == ["close"]
        assert world.map == {}

    def test_after_it_was_taken_once(self, world):
        native = world.map[3] = Native(world.loop)
        world.turn()
        world.refused[3] = OSError(errno.EBADF, "x")
        world.loop.set_interest(3, WRITE)
        assert native.events == ["close"]
        assert world.map == {}

    def test_whose_object_leaves_by_itself_is_not_missed(self, world):
        world.refused[3] = OSError(errno.EBADF, "x")
        stranger = world.map[3] = Stranger()
        stranger.actions["close"] = lambda: world.map.pop(3)
        world.turn()
        assert world.map == {}

    def test_whose_object_is_replaced_meanwhile_leaves_the_other_in_peace(self, world):
        world.refused[3] = OSError(errno.EBADF, "x")
        stranger, other = Stranger(), Native(world.loop)
        world.map[3] = stranger

        def replace():
            world.refused.clear()
            world.map[3] = other

        stranger.actions["close"] = replace
        world.turn(timeout=1000)
        world.turn(timeout=1000)
        assert world.map == {3: other}
        assert world.masks == {3: READ}
        assert other.events == []

    def test_whose_object_fails_to_close_is_removed(self, world):
        world.refused[3] = OSError(errno.EBADF, "x")
        stranger = world.map[3] = Stranger()
        stranger.actions["close"] = Raises(LookupError("x"))
        world.turn()
        assert stranger.events == ["close", "error LookupError('x')"]
        assert world.map == {}

    def test_that_is_watched_after_all_is_watched_for_what_is_wanted_now(self, world):
        """Registrations that were lost or kept behind the loop's back."""
        native = world.map[3] = Native(world.loop)
        world.turn()
        world.masks.clear()
        world.loop.set_interest(3, READ | WRITE)
        assert world.masks == {3: READ | WRITE}
        world.masks.clear()
        world.loop.set_interest(3, 0)
        world.masks[3] = READ
        world.loop.set_interest(3, WRITE)
        assert world.masks == {3: WRITE}
        assert native.events == []

    def test_whose_registration_is_gone_leaves_in_peace(self, world):
        world.map[3], world.map[4] = Native(world.loop), Native(world.loop)
        world.turn()
        world.masks.clear()
        del world.map[3]
        world.turn()
        assert set(world.map) == {4}


class TestASocketThatWasClosedBehindTheLoopsBack:
    @staticmethod
    def with_socket(fileno):
        stranger = Stranger()
        stranger.socket = SimpleNamespace(fileno=fileno)
        return stranger

    @pytest.mark.parametrize("fileno", [lambda: -1, Raises(ValueError("closed file"))])
    def test_has_its_object_closed_within_one_timeout(self, world, fileno):
        stranger = world.map[3] = self.with_socket(lambda: 3)
        world.map[4] = Stranger()
        world.turn(timeout=5)
        stranger.socket.fileno = fileno
        world.turn(timeout=5)
        assert stranger.events == []
        world.clock.advance(5)
        world.turn(timeout=5)
        world.turn(timeout=5)
        assert stranger.events == ["close"]
        assert set(world.map) == {4}

    def test_is_not_one_that_never_had_a_number(self, world):
        stranger = world.map[3] = self.with_socket(lambda: 3)
        stranger.socket = SimpleNamespace()
        other = world.map[4] = Stranger()
        other.socket = None
        world.turn()
        assert stranger.events == other.events == []

    def test_is_not_looked_for_under_a_key_that_is_no_descriptor(self, world):
        stranger = world.map[-3] = self.with_socket(lambda: -1)
        stranger.reads = False
        world.turn()
        assert stranger.events == []

    def test_may_be_replaced_by_its_object_under_the_same_number(self, world):
        ours, theirs = socket.socketpair()
        fd = ours.fileno()
        stranger = world.map[fd] = self.with_socket(lambda: fd)
        world.turn(timeout=5)
        stranger.socket.fileno = lambda: -1

        def reconnect():
            stranger.socket.fileno = lambda: fd

        stranger.actions["close"] = reconnect
        world.clock.advance(5)
        world.turn(timeout=5, count=3)
        assert world.map == {fd: stranger}
        assert world.masks == {fd: READ | PRIORITY}
        ours.close()
        theirs.close()

    def test_may_be_taken_out_of_the_map_by_another_thread_at_that_moment(self, world):
        stranger = self.with_socket(lambda: -1)

        class Emptied(type(world.map)):
            def __delitem__(self, fd):
                super().__delitem__(fd)
                raise KeyError(fd)

        other = World(Emptied())
        other.map[3] = stranger
        other.turn()
        assert other.map == {}

    def test_is_one_whose_number_is_open_no_more(self, world):
        """Its own word counts for nothing then."""
        stranger = world.map[99999] = self.with_socket(lambda: 99999)
        world.refused[99999] = OSError(errno.EBADF, "x")
        world.turn()
        assert world.map == {}
        huge = world.map[1 << 70] = self.with_socket(lambda: 1 << 70)
        world.refused[1 << 70] = OverflowError("x")
        world.turn()
        assert world.map == {}
        assert stranger.events == huge.events == ["close"]


# -- those who are ready, due, or to start ---------------------------------------------------


class TestTheReadyQueue:
    def test_has_an_object_once_until_it_was_called(self, world):
        native = world.map[3] = Native(world.loop)
        for _ in range(3):
            world.loop.touch_threadsafe(native)
        world.turn()
        assert native.events == ["ready"]
        assert not native.touched

    def test_sees_a_touch_that_comes_while_it_is_called_in_the_next_pass(self, world):
        native = world.map[3] = Native(world.loop)
        native.actions["ready"] = lambda: (
            native.events.count("ready") < 2 and world.loop.touch_threadsafe(native)
        )
        world.loop.touch_threadsafe(native)
        world.script.extend([(), ()])
        world.loop.run_pass(1.0, world.dispatch)
        assert native.events == ["ready"]
        world.loop.run_pass(1.0, world.dispatch)
        assert native.events == ["ready", "ready"]
        assert world.timeouts == [0, 0]

    def test_survives_whoever_fails(self, world):
        first, second = Native(world.loop), Native(world.loop)
        world.map[3] = first
        first.actions["ready"] = Raises(LookupError("x"))
        world.loop.touch_threadsafe(first)
        world.loop.touch_threadsafe(second)
        world.turn()
        assert first.events == ["ready", "error LookupError('x')"]
        assert second.events == ["ready"]

    def test_lets_the_loop_be_ended(self, world):
        native = world.map[3] = Native(world.loop)
        native.actions["ready"] = Raises(ExitNow())
        world.loop.touch_threadsafe(native)
        with pytest.raises(ExitNow):
            world.turn()

    @pytest.mark.parametrize("error", [None, ExitNow()])
    def test_is_looked_at_once_more_when_the_run_ends(self, world, error):
        """A thread that saw the loop running relies on it."""
        native, late = Native(world.loop), Native(world.loop)
        world.map[3] = native

        def last_word():
            world.map.clear()
            world.loop.touch_threadsafe(late)
            if error is not None:
                raise error

        native.actions["started"] = last_word
        native.actions["events 1"] = lambda: world.loop.start_soon(native)
        with contextlib.suppress(ExitNow):
            world.turn((3, READ), count=None)
        assert late.events == ["ready"]

    def test_goes_on_for_those_who_poll_by_themselves(self, world):
        native = Native(world.loop)
        world.loop.touch_threadsafe(native)
        assert world.loop.claim_wakeup_threadsafe()
        world.clock.advance(7)
        world.loop.drain_ready()
        assert native.events == ["ready"]
        assert world.loop.now == 1007.0
        # And whoever comes next wakes it.
        assert world.loop.claim_wakeup_threadsafe()

    def test_is_left_to_the_pass_inside_of_one(self, world):
        native = world.map[3] = Native(world.loop)
        late = Native(world.loop)

        def drain():
            world.loop.touch_threadsafe(late)
            world.loop.drain_ready()
            assert late.events == []

        native.actions["events 1"] = drain
        world.turn((3, READ))
        assert late.events == ["ready"]
        assert native.events == ["events 1"]


class TestADeadline:
    def test_is_told_when_it_is_over(self, world):
        native = world.map[3] = Native(world.loop)
        world.loop.deadlines.arm(native, 1001.0)
        world.turn()
        assert native.events == []
        world.script.append(lambda: world.clock.advance(1) or ())
        world.loop.run(9.0, world.dispatch, 1)
        assert native.events == ["due 1001.0"]

    def test_is_not_told_to_one_whom_another_has_closed(self, world):
        """As happens when one that is due cuts another that is due."""
        both = [Native(world.loop), Native(world.loop)]
        world.map[3], world.map[4] = both
        for number, native in enumerate(both):
            other = both[1 - number]
            native.actions["due 1000.0"] = lambda other=other: world.loop.deadlines.forget(other)
            world.loop.deadlines.arm(native, 1000.0)
        world.turn()
        assert sorted(len(each.events) for each in both) == [0, 1]

    def test_that_fails_is_its_owner_s_error(self, world):
        native = world.map[3] = Native(world.loop)
        native.actions["due 1000.0"] = Raises(LookupError("x"))
        world.loop.deadlines.arm(native, 1000.0)
        world.turn()
        assert native.events == ["due 1000.0", "error LookupError('x')"]

    def test_that_ends_the_loop_loses_no_other(self, world):
        both = [Native(world.loop), Native(world.loop)]
        world.map[3], world.map[4] = both
        for native in both:
            native.actions["due 1000.0"] = Raises(ExitNow())
            world.loop.deadlines.arm(native, 1000.0)
        for _ in both:
            with pytest.raises(ExitNow):
                world.turn()
        world.turn()
        assert [each.events for each in both] == [["due 1000.0"]] * 2

    def test_is_told_for_those_who_poll_by_themselves(self, world):
        native = Native(world.loop)
        world.loop.deadlines.arm(native, 1001.0)
        world.loop.tell_due()
        world.clock.advance(1)
        world.loop.tell_due()
        assert native.events == ["due 1001.0"]

    def test_is_left_to_the_pass_inside_of_one(self, world):
        native = world.map[3] = Native(world.loop)
        late = Native(world.loop)
        world.loop.deadlines.arm(late, 1000.0)

        def tell():
            world.loop.tell_due()
            assert late.events == []

        native.actions["events 1"] = tell
        world.turn((3, READ))
        assert late.events == ["due 1000.0"]
        assert native.events == ["events 1"]


class TestAStart:
    def test_comes_at_the_end_of_the_pass_in_order(self, world):
        first, second = Native(world.loop), Native(world.loop)
        world.map[3] = first
        order = []
        first.actions["events 1"] = lambda: (
            [world.loop.start_soon(each) for each in (first, second)] and order.append("events")
        )
        first.actions["started"] = lambda: order.append("first")
        second.actions["started"] = lambda: order.append("second")
        world.turn((3, READ))
        assert order == ["events", "first", "second"]

    def test_comes_at_once_outside_of_a_pass(self, world):
        world.map[3] = Stranger()
        world.turn()
        native = Native(world.loop)
        world.loop.start_soon(native)
        assert native.events == ["started"]

    def test_that_fails_is_its_object_s_error_and_no_other_s(self, world):
        first, second = Native(world.loop), Native(world.loop)
        world.map[3] = first
        first.actions["events 1"] = lambda: [
            world.loop.start_soon(each) for each in (first, second)
        ]
        first.actions["started"] = Raises(LookupError("x"))
        world.turn((3, READ))
        assert first.events[1:] == ["started", "error LookupError('x')"]
        assert second.events == ["started"]

    def test_is_left_to_the_first_of_several_who_may_take_all(self, world):
        first, second, third = (Native(world.loop) for _ in range(3))
        world.map[3] = first
        asked = []

        def take_all(objs):
            asked.append(list(objs))
            objs.clear()

        first.start_together = take_all
        first.actions["events 1"] = lambda: [
            world.loop.start_soon(each) for each in (first, second, third)
        ]
        world.turn((3, READ))
        assert asked == [[first, second, third]]
        assert [each.events for each in (first, second, third)] == [["events 1"], [], []]
        first.actions["events 1"] = lambda: world.loop.start_soon(second)
        world.turn((3, READ))
        assert len(asked) == 1, "one alone needs nobody's leave"
        assert second.events == ["started"]

    def test_of_several_is_nobody_s_loss_when_the_first_fails_to_take_all(self, world):
        first, second = Native(world.loop), Native(world.loop)
        world.map[3] = first
        first.start_together = lambda objs: Raises(LookupError("x"))()
        first.actions["events 1"] = lambda: [
            world.loop.start_soon(each) for each in (first, second)
        ]
        world.turn((3, READ))
        assert first.events[1:] == ["error LookupError('x')", "started"]
        assert second.events == ["started"]

    def test_is_not_lost_when_the_loop_is_ended_before(self, world):
        native, other = Native(world.loop), Native(world.loop)
        world.map[3], world.map[4] = native, other
        native.actions["events 1"] = lambda: world.loop.start_soon(native)
        other.actions["events 1"] = Raises(ExitNow())
        with pytest.raises(ExitNow):
            world.turn((3, READ), (4, READ))
        assert "started" not in native.events
        world.turn()
        assert native.events == ["events 1", "started"]
        assert world.timeouts[-1] == 0

    def test_is_forgotten_when_the_loop_is_ended_before_and_the_map_emptied(self, world):
        native = world.map[3] = Native(world.loop)
        other = world.map[4] = Native(world.loop)
        native.actions["events 1"] = partial(world.loop.start_soon, native)
        other.actions["events 1"] = Raises(ExitNow())
        with pytest.raises(ExitNow):
            world.turn((3, READ), (4, READ))
        newcomer = Native(world.loop)
        world.loop._newcomers.append(newcomer)
        world.map.clear()
        world.loop.run(0, world.dispatch)
        left = [weakref.ref(native), weakref.ref(newcomer)]
        del native, newcomer
        gc.collect()
        assert [each() for each in left] == [None, None]


class TestALookForLatecomers:
    """Before tasks are handed over: who has come meanwhile?"""

    def world(self, count):
        world = World()
        world.natives = [Native(world.loop) for _ in range(count)]
        for fd, native in enumerate(world.natives, 10):
            native.actions["events 1"] = partial(world.loop.start_soon, native)
            world.map[fd] = native
        world.started = []
        for fd, native in enumerate(world.natives, 10):
            native.actions["started"] = partial(world.started.append, fd)
        world.turn()
        world.timeouts.clear()
        return world

    def test_has_their_tasks_handed_over_together_with_the_others(self):
        world = self.world(2)
        pool = Pool(world.started)
        world.loop.join_pool("server", pool)
        world.script += [[(10, READ)], [(11, READ)]]
        world.loop.run_pass(1.0, world.dispatch)
        assert world.started == ["held", 10, 11, "first", "rest"]
        assert world.timeouts == [1.0, 0, 0]

    def test_is_not_taken_where_nothing_is_to_be_handed_over(self):
        world = self.world(1)
        world.natives[0].actions.clear()
        world.script += [[(10, READ)]]
        world.loop.run_pass(1.0, world.dispatch)
        assert world.timeouts == [1.0]

    def test_ends_when_what_has_come_is_no_task(self):
        world = self.world(2)
        world.natives[1].actions.clear()
        world.script += [[(10, READ)], [(11, READ)]]
        world.loop.run_pass(1.0, world.dispatch)
        assert world.natives[1].events == ["events 1"]
        assert world.timeouts == [1.0, 0]

    def test_ends_after_some_though_as_many_come_again(self):
        ends = [10 + 2**number for number in range(MOST_LOOKS_AGAIN + 2)]
        world = self.world(ends[-1] - 10)
        for start, end in pairwise([10, *ends]):
            world.script.append([(fd, READ) for fd in range(start, end)])
        world.loop.run_pass(1.0, world.dispatch)
        assert world.started == list(range(10, ends[-2]))
        world.loop.run_pass(1.0, world.dispatch)
        assert world.started == list(range(10, ends[-1]))

    def test_ends_where_few_come(self):
        """They are served with those that come next, as soon."""
        world = self.world(6)
        world.script += [[(fd, READ) for fd in (10, 11, 12)], [(13, READ)], [(14, READ)]]
        world.loop.run_pass(1.0, world.dispatch)
        assert world.started == [10, 11, 12, 13]
        assert world.timeouts == [1.0, 0]

    def test_passes_over_those_who_want_to_be_asked_first(self):
        world = self.world(1)
        stranger = world.map[20] = Stranger()
        world.turn()
        stranger.actions["told"] = lambda: None
        world.script += [[(10, READ)], [(20, READ)]]
        world.loop.run_pass(1.0, world.dispatch)
        assert world.told == []
        world.turn((20, READ))
        assert [fd for fd, *_ in world.told] == [20]

    def test_does_not_make_responses_wait(self):
        world = self.world(2)
        first = world.natives[0]
        first.actions["events 1"] = lambda: [
            world.loop.start_soon(first),
            world.loop.touch_threadsafe(first),
        ]
        world.script += [[(10, READ)], [(11, READ)]]
        world.loop.run_pass(1.0, world.dispatch)
        assert first.events == ["events 1", "ready", "started"]
        assert world.timeouts == [1.0]

    @pytest.mark.parametrize(
        ("socket_map", "in_thread"), [(SocketMap(), True), ({}, False)], ids=["another", "this"]
    )
    def test_tells_nobody_of_a_stranger_that_was_closed_in_its_own_thread(
        self, socket_map, in_thread
    ):
        """select() fails as a whole where one was, and it is told whom that hits."""
        loop = EventLoop(socket_map)
        ours, theirs = tcp_pair()
        native = Native(loop)
        stranger = Stranger()
        stranger.socket, peer = tcp_pair()
        loop.map[stranger.socket.fileno()] = stranger
        loop.map[ours.fileno()] = native

        def close():
            del loop.map[stranger.socket.fileno()]
            stranger.socket.close()

        def act():
            ours.recv(1)
            if in_thread:
                InThread(close).result()
            else:
                close()
            loop.start_soon(native)

        native.actions["events 1"] = act
        theirs.send(b"x")
        loop.run(PATIENCE, World().dispatch, 1, SimpleNamespace(select=select.select))
        assert native.events == ["events 1", "started"]
        assert stranger.events == []
        loop.map.clear()
        loop.run(0, World().dispatch)
        for sock in (ours, theirs, peer):
            sock.close()

    def test_becomes_rare_while_nobody_comes(self):
        world = self.world(1)
        looked = []
        for number in range(60):
            del world.timeouts[:]
            world.turn((10, READ))
            if len(world.timeouts) > 1:
                looked.append(number)
        gaps = [later - earlier - 1 for earlier, later in pairwise(looked)]
        assert gaps == [1, 3, 7, 15, 16]

    def test_is_worth_while_as_long_as_somebody_comes(self):
        world = self.world(2)
        for _ in range(3):
            del world.timeouts[:]
            world.script += [[(10, READ)], [(11, READ)]]
            world.loop.run_pass(1.0, world.dispatch)
            assert world.timeouts == [1.0, 0, 0]

    def test_is_over_when_a_handler_has_run_the_loop_to_its_end(self):
        world = self.world(2)

        def end():
            world.loop.start_soon(world.natives[0])
            world.map.clear()
            world.loop.run(1.0, world.dispatch)

        world.natives[0].actions["events 1"] = end
        world.turn((10, READ))
        assert world.timeouts == [1.0]
        assert world.started == []


# -- the run -----------------------------------------------------------------------------------


class TestARun:
    def test_belongs_to_its_thread(self, world):
        native = world.map[3] = Native(world.loop)
        seen = []

        def look():
            seen.append(world.loop.is_current_thread())
            seen.append(InThread(world.loop.is_current_thread).result())

        native.actions["events 1"] = look
        assert world.loop.is_current_thread()
        assert InThread(world.loop.is_current_thread).result()
        world.turn((3, READ))
        assert seen == [True, False]
        assert InThread(world.loop.is_current_thread).result()

    def test_closes_the_poller_when_the_map_is_empty(self, world):
        world.map[3] = Stranger()
        world.turn()
        assert not world.pollers[0].is_closed
        world.script.append(lambda: world.map.clear() or ())
        world.loop.run(1.0, world.dispatch)
        assert world.pollers[0].is_closed

    def test_closes_the_poller_when_the_map_is_emptied_after_it(self):
        world = World()
        world.map[3], world.map[4] = Stranger(), Stranger()
        world.turn()
        del world.map[3]
        assert not world.pollers[0].is_closed
        del world.map[4]
        assert world.pollers[0].is_closed

    def test_makes_a_new_poller_when_the_map_fills_again(self, world):
        world.map[3] = Native(world.loop)
        world.script.append(lambda: world.map.clear() or ())
        world.loop.run(1000.0, world.dispatch)
        world.map[4] = Native(world.loop)
        world.turn(timeout=1000)
        assert world.masks == {4: READ}

    def test_makes_a_new_poller_when_the_module_was_replaced(self, world):
        world.map[3] = Native(world.loop)
        world.turn()
        elsewhere = SimpleNamespace()
        world.loop.run(1.0, world.dispatch, 1, elsewhere)
        world.loop.run(1.0, world.dispatch, 1, elsewhere)
        assert [each.is_closed for each in world.pollers] == [True, False]
        assert world.masks == {3: READ}
        world.turn((3, READ))
        assert world.map[3].events == ["events 1"]

    def test_can_be_begun_by_a_handler(self, world):
        native, other = Native(world.loop), Native(world.loop)
        world.map[3], world.map[4] = native, other

        def nested():
            world.turn((4, READ))
            world.loop.start_soon(native)
            assert "started" not in native.events  # The outer pass has not ended.
            assert not InThread(world.loop.is_current_thread).result()

        native.actions["events 1"] = nested
        world.turn((3, READ), (4, WRITE))
        assert native.events == ["events 1", "started"]
        # The outer pass forgets what it was told before: it may be of others by now.
        assert other.events == ["events 1"]

    def test_that_a_handler_begins_may_end_everything(self, world):
        native = world.map[3] = Native(world.loop)
        world.map[4] = Stranger()

        def nested():
            world.script.append(lambda: world.map.clear() or ())
            world.loop.run(1.0, world.dispatch)

        native.actions["events 1"] = nested
        world.turn((3, READ), (4, READ), count=None)
        assert native.events == ["events 1"]
        assert world.told == []

    def test_that_is_begun_while_asking_may_end_everything(self, world):
        stranger = world.map[3] = Stranger()

        def nested():
            del stranger.actions["readable"]
            world.script.insert(0, lambda: world.map.clear() or ())
            world.loop.run(1.0, world.dispatch)
            world.map[3] = stranger

        stranger.actions["readable"] = nested
        world.turn()
        assert len(world.timeouts) == 1
        world.turn()
        assert world.masks == {3: READ | PRIORITY}


class TestOtherThreads:
    def test_may_clear_the_map_and_the_loop_ends(self):
        ours, theirs = tcp_pair()
        waiting = threading.Event()

        class Telling(EpollPoller):
            def __init__(self, select):
                super().__init__(select)
                wait = self.poll
                self.poll = lambda timeout: waiting.set() or wait(timeout)

        event_loop = EventLoop(poller_factory=Telling)
        event_loop.map[ours.fileno()] = Stranger()
        running = InThread(event_loop.run, 0.02, World().dispatch)
        await_event(waiting)
        event_loop.map.clear()
        running.result()
        ours.close()
        theirs.close()

    def test_may_close_sockets_and_reuse_their_numbers(self):
        """What happens under the number afterwards concerns the newcomer alone."""
        event_loop = EventLoop()
        (ours, theirs), (kept, far) = tcp_pair(), tcp_pair()
        fd = ours.fileno()
        old = event_loop.map[fd] = Native(event_loop)
        event_loop.map[kept.fileno()] = Native(event_loop)
        dispatch = World().dispatch
        event_loop.run(0, dispatch, 1)

        def replace():
            ours.close()
            newcomer, peer = socket.socketpair()
            assert newcomer.fileno() == fd
            event_loop.map[fd] = new
            return newcomer, peer

        new = Native(event_loop)
        replaced = []
        wake = event_loop.map[kept.fileno()]
        wake.actions["events 1"] = lambda: (
            replaced.extend(InThread(replace).result()),
            kept.recv(9),
        )
        far.send(b"x")
        event_loop.run(5, dispatch, 1)
        replaced[1].send(b"x")
        event_loop.run(5, dispatch, 1)
        assert old.events == []
        assert new.events == ["events 1"]
        for each in (theirs, kept, far, *replaced):
            each.close()
        event_loop.map.clear()

    @pytest.mark.stress
    def test_may_do_with_the_map_what_they_want(self):
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        event_loop = EventLoop()
        ours, theirs = tcp_pair()
        event_loop.map[ours.fileno()] = Stranger()
        stop = threading.Event()

        def churn():
            while not stop.is_set():
                mine, other = socket.socketpair()
                with mine, other:
                    event_loop.map[mine.fileno()] = Native(event_loop)
                    event_loop.map.pop(mine.fileno(), None)

        try:
            churning = [InThread(churn) for _ in range(2)]
            event_loop.run(0, World().dispatch, 3000)
            stop.set()
            for each in churning:
                each.result()
            event_loop.run(0, World().dispatch, 2)
            assert set(event_loop._watched) == {ours.fileno()}
        finally:
            stop.set()
            sys.setswitchinterval(interval)
        ours.close()
        theirs.close()
        event_loop.map.clear()


def test_real_wait_ends_when_something_comes():
    event_loop = EventLoop()
    ours, theirs = tcp_pair()
    native = event_loop.map[ours.fileno()] = Native(event_loop)
    theirs.send(b"x")
    event_loop.run(PATIENCE, World().dispatch, 1, select)
    assert native.events == ["events 1"]
    ours.close()
    theirs.close()
    event_loop.map.clear()


def test_one_that_is_ready_may_run_the_loop(world):
    first, second = Native(world.loop), Native(world.loop)
    world.map[3], world.map[4] = first, second
    world.turn()
    first.actions["ready"] = world.turn
    world.loop.touch_threadsafe(first)
    world.loop.touch_threadsafe(second)
    world.turn()
    assert first.events == second.events == ["ready"]


# -- the hand-over to the workers ---------------------------------------------------------


class Pool:
    """Workers that say how they were woken."""

    def __init__(self, said=None):
        self._said = [] if said is None else said
        self.on_wake_first = lambda: None
        #: Whether the interpreter was left each time to whom it woke.
        self.left = []

    def hold_wakeups(self):
        self._said.append("held")

    def wake_first(self, leaves):
        self._said.append("first")
        self.left.append(leaves)
        self.on_wake_first()

    def wake_rest(self):
        self._said.append("rest")


class CountedLock:
    """A lock that nobody releases in time, and that counts the attempts."""

    def __init__(self):
        self.attempts = []

    def acquire(self, timeout):
        self.attempts.append(timeout)
        return False


class TestTheBestYield:
    def test_is_of_the_system(self, monkeypatch):
        monkeypatch.setattr(os, "sched_yield", lambda: None, raising=False)
        assert eventloop.best_yield() is os.sched_yield

    def test_is_a_sleep_of_no_time_where_there_is_no_other(self, monkeypatch):
        monkeypatch.delattr(os, "sched_yield", raising=False)
        eventloop.best_yield()()
        assert eventloop.best_yield().args == (0,)

    def test_is_somebodys_who_has_threads_of_his_own(self, monkeypatch):
        slept = []
        monkeypatch.setattr(eventloop.time, "sleep", lambda seconds: slept.append(seconds))
        eventloop.best_yield()()
        assert slept == [0]


class TestAHandOver:
    def world(self, tasks=1, wait=0.0):
        world = World()
        world.native = world.map[3] = Native(world.loop)

        def start():
            for _ in range(tasks):
                world.loop.start_soon(world.native)

        world.native.actions["events 1"] = start
        world.loop._yield_processor = lambda: world.native.events.append("yielded")
        world.loop._hand_over_wait = wait
        return world

    def test_leaves_the_processor_to_the_workers_and_goes_on_with_what_they_report(self):
        world = self.world(tasks=2, wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        woken = []

        def work():
            world.loop.touch_threadsafe(world.native)
            woken.append(world.loop.claim_wakeup_threadsafe())

        world.loop._yield_processor = work
        world.turn((3, READ))
        assert world.native.events == ["events 1", "started", "started", "ready"]
        assert woken == [False]  # No trigger has to be pulled.
        assert lock.attempts == []

    def test_goes_on_in_the_same_pass(self):
        world = self.world()
        world.loop._yield_processor = lambda: world.loop.touch_threadsafe(world.native)
        world.loop.run_pass(0, world.dispatch)  # It has the poller made.
        world.script.append([(3, READ)])
        world.loop.run_pass(0, world.dispatch)
        assert world.native.events == ["events 1", "started", "ready"]

    def test_leaves_it_to_nobody_when_somebody_has_reported_already(self):
        world = self.world(tasks=2, wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        world.native.actions["started"] = lambda: world.loop.touch_threadsafe(world.native)
        world.turn((3, READ))
        assert world.native.events == ["events 1", "started", "started", "ready"]
        assert lock.attempts == []

    @pytest.mark.parametrize(
        ("seconds", "reports", "is_quick"),
        [
            (0.0001, 0, True),
            (0.0003, 0, False),
            (0.0003, 1, False),
            (0.0018, 10, True),
        ],
    )
    @pytest.mark.parametrize("what", ["processor", "interpreter"])
    def test_leaves_it_each_time_while_tasks_are_quick(self, what, seconds, reports, is_quick):
        world, pool = self.world(), Pool()

        def others():
            world.clock.now += seconds
            for _ in range(reports):
                world.loop.ready.append(SimpleNamespace(handle_ready=lambda: None))

        if what == "processor":
            world.loop._yield_processor = others
        else:
            pool.on_wake_first = others
        world.loop.join_pool("server", pool)
        world.turn((3, READ))
        world.turn((3, READ))
        assert pool.left == [True, is_quick]

    def test_of_several_is_awaited_so_that_what_is_reported_goes_on_in_the_same_pass(self):
        world = self.world(tasks=2, wait=PATIENCE)
        woken = []

        def work():
            await_event(has_begun)
            world.loop.touch_threadsafe(world.native)
            woken.append(world.loop.claim_wakeup_threadsafe())

        has_begun = threading.Event()
        worker = InThread(work)
        world.loop._yield_processor = has_begun.set
        world.turn((3, READ))
        worker.result()
        assert world.native.events == ["events 1", "started", "started", "ready"]
        assert woken == [False]

    def test_is_not_awaited_when_somebody_reports_as_the_wait_begins(self):
        world = self.world(wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        world.loop.touch_threadsafe(world.native)
        assert world.loop._await_workers()
        assert lock.attempts == []
        assert world.loop.is_awake

    def test_of_one_to_a_worker_who_has_had_the_processor_is_not_awaited(self):
        world = self.world(wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        world.turn((3, READ))
        assert lock.attempts == []

    def test_of_one_is_awaited_where_the_processor_was_not_left_to_anybody(self):
        world = self.world(wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        world.loop._yields.note(False)
        world.turn((3, READ))
        assert lock.attempts == [1.5]
        assert "yielded" not in world.native.events

    def test_of_one_is_awaited_where_workers_run_beside_the_loop(self):
        world = World(loop_class=FencedEventLoop)
        assert world.loop._yield_processor is None
        world = self.world(wait=1.5)
        world.loop._yield_processor = None
        world.loop._hand_over_lock = lock = CountedLock()
        world.turn((3, READ))
        assert lock.attempts == [1.5]

    def test_is_awaited_where_a_sandbox_forbids_to_leave_the_processor(self):
        world = self.world(wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        world.loop._yield_processor = Raises(PermissionError())
        world.turn((3, READ))
        assert world.native.events == ["events 1", "started"]
        assert lock.attempts == [1.5]
        assert world.loop._yield_processor is None

    def test_leaves_the_processor_to_nobody_for_a_while_where_somebody_computes(self):
        world = self.world()

        def others():
            world.native.events.append("yielded")
            world.clock.now += 1

        world.loop._yield_processor = others
        yielded = []
        for number in range(1 + 64 + 1 + 192 + 1 + 448 + 1 + 960 + 1 + 1024 + 1):
            world.native.events.clear()
            world.turn((3, READ))
            if "yielded" in world.native.events:
                yielded.append(number)
        assert [later - earlier - 1 for earlier, later in pairwise(yielded)] == [
            *(64, 192, 448, 960, 1024)
        ]

    def test_of_several_is_awaited_less_and_less_to_a_limit_while_that_is_in_vain(self):
        world = self.world(tasks=2, wait=1.5)
        world.loop._hand_over_lock = lock = CountedLock()
        awaited = []
        for number in range(1, 400):
            lock.attempts.clear()
            world.turn((3, READ))
            if lock.attempts:
                assert lock.attempts == [1.5]
                awaited.append(number)
        assert awaited == [1, 3, 7, 15, 31, 63, 127, 192, 257, 322, 387]

    def test_goes_on_with_what_was_done_while_the_first_worker_was_woken(self):
        world = self.world()
        world.loop._yields.note(False)  # Even where leaving the processor is not worth while.
        pool = Pool()
        pool.on_wake_first = lambda: world.loop.touch_threadsafe(world.native)
        world.loop.join_pool("server", pool)
        world.turn((3, READ))
        assert world.native.events == ["events 1", "started", "ready"]

    def test_leaves_the_processor_to_nobody_when_the_first_worker_has_reported(self):
        world = self.world()
        pool = Pool()
        pool.on_wake_first = lambda: world.loop.touch_threadsafe(world.native)
        world.loop.join_pool("server", pool)
        world.turn((3, READ))
        assert pool.left == [True]
        assert world.native.events == ["events 1", "started", "ready"]

    def test_wakes_workers_when_all_tasks_are_there_and_more_of_them_when_one_has_run(self):
        world = self.world()
        said = world.native.events
        world.loop.join_pool("server", Pool(said))
        world.turn((3, READ))
        assert said == ["rest", "events 1", "held", "started", "first", "yielded", "rest"]

    def test_leaves_the_interpreter_where_it_leaves_the_processor(self):
        world = self.world()
        pool = Pool()
        world.loop.join_pool("server", pool)
        world.turn((3, READ))
        assert world.native.events.pop() == "yielded"
        world.loop._yields.note(False)
        world.turn((3, READ))
        world.loop._yields = Backoff(64, 1024)
        world.native.actions["started"] = lambda: world.loop.touch_threadsafe(world.native)
        world.turn((3, READ))
        world.loop._yield_processor = None
        del world.native.actions["started"]
        world.turn((3, READ))
        assert "yielded" not in world.native.events
        assert pool.left == [True, False, False, False]

    def test_wakes_workers_whatever_happens(self):
        world = self.world()
        said = world.native.events
        world.loop.join_pool("server", Pool(said))
        world.native.actions["started"] = Raises(ExitNow())
        with pytest.raises(ExitNow):
            world.turn((3, READ))
        assert said == ["rest", "events 1", "held", "started", "rest"]
        said.clear()
        del world.native.actions["started"]
        world.loop._yield_processor = Raises(KeyboardInterrupt())
        with pytest.raises(KeyboardInterrupt):
            world.turn((3, READ))
        assert said == ["rest", "events 1", "held", "started", "first", "rest"]

    def test_is_to_each_pool_once_however_many_servers_share_it(self):
        world = self.world()
        said = world.native.events
        pool = Pool(said)
        for server in ("a", "b"):
            world.loop.join_pool(server, pool)
        world.loop.leave_pool("a")
        world.loop.leave_pool("a")
        world.loop.leave_pool("a stranger")
        world.turn((3, READ))
        assert said == ["rest", "events 1", "held", "started", "first", "yielded", "rest"]
        said.clear()
        world.loop.leave_pool("b")
        world.turn((3, READ))
        assert said == ["events 1", "started", "yielded"]

    def test_that_was_interrupted_is_made_up_for_by_the_next_run(self):
        world = self.world()
        said = world.native.events
        world.loop.join_pool("server", Pool(said))
        world.loop.run(0, lambda *_: None, count=0)
        assert said == ["rest"]

    def test_of_nothing_leaves_the_processor_to_nobody(self):
        world = self.world()
        world.turn((3, WRITE))
        assert world.native.events == ["events 4"]

    def test_may_be_ended_by_two_at_once(self):
        world = self.world(tasks=2, wait=1.5)
        loop = world.loop
        loop._awaits_workers = True
        assert not loop.claim_wakeup_threadsafe()
        loop.is_awake = False
        assert not loop.claim_wakeup_threadsafe()
        # What was released for nobody only makes the next wait short.
        loop._awaits_workers = False
        world.turn((3, READ))
        assert world.native.events == ["events 1", "started", "started", "yielded"]

    @pytest.mark.parametrize("is_waiting", [False, True])
    def test_that_a_signal_interrupts_leaves_the_loop_to_be_woken_as_ever(self, is_waiting):
        world = self.world(tasks=2, wait=1.5)
        interrupt = Raises(KeyboardInterrupt())
        if is_waiting:
            world.loop._hand_over_lock = SimpleNamespace(acquire=lambda timeout: interrupt())
        else:
            world.loop._yield_processor = interrupt
        with pytest.raises(KeyboardInterrupt):
            world.turn((3, READ))
        assert world.loop.claim_wakeup_threadsafe()  # By a trigger.

    def test_may_fail_like_anything_else_that_one_object_does(self):
        world = self.world()
        world.native.actions["started"] = Raises(LookupError("x"))
        world.turn((3, READ))
        assert world.native.events == ["events 1", "started", "error LookupError('x')", "yielded"]

    @pytest.mark.parametrize("error", [ExitNow, KeyboardInterrupt, SystemExit])
    def test_can_end_the_loop(self, error):
        world = self.world()
        world.native.actions["started"] = Raises(error())
        with pytest.raises(error):
            world.turn((3, READ))
