"""The loop and the dispatchers under the names of asyncore, as its users know them."""

from __future__ import annotations

import contextlib
import errno
import gc
import importlib.util
import logging
import os
import re
import select
import socket
import sys
import threading
import time
import warnings
from types import ModuleType, SimpleNamespace

import pytest

from tests.looping import (
    PATIENCE,
    InThread,
    Raises,
    Stranger,
    await_event,
    load_elsewhere,
    tcp_pair,
)
from waitress import utilities, wasyncore
from waitress.deadlines import Deadlines
from waitress.eventloop import EventLoop

pytestmark = pytest.mark.usefixtures("no_leaks")

ENDS = [wasyncore.ExitNow, KeyboardInterrupt, SystemExit]


@pytest.fixture
def own_map(monkeypatch):
    """The module's map, replaced."""
    replacement = {}
    monkeypatch.setattr(wasyncore, "socket_map", replacement)
    return replacement


class Collecting(wasyncore.dispatcher):
    """Reads all there is, and writes down what it is told."""

    def __init__(self, sock=None, map=None):
        self.events = []
        self.data = b""
        self.wants_to_write = False
        super().__init__(sock, map)

    def writable(self):
        return self.wants_to_write

    def handle_read(self):
        self.events.append("read")
        self.data += self.recv(4)

    def handle_write(self):
        self.events.append("write")
        self.wants_to_write = False

    def handle_expt(self):
        self.events.append("expt")

    def handle_close(self):
        self.events.append("close")
        self.close()


def messages(caplog):
    return [(each.levelname, each.getMessage()) for each in caplog.records]


# -- the module ---------------------------------------------------------------------------


class TestTheModule:
    @pytest.mark.parametrize(
        "name",
        [
            "EAGAIN",
            "EBADF",
            "ECONNABORTED",
            "ECONNRESET",
            "EINTR",
            "ENOTCONN",
            "EPIPE",
            "ESHUTDOWN",
            "EWOULDBLOCK",
        ],
    )
    def test_has_the_error_numbers(self, name):
        assert getattr(wasyncore, name) == getattr(errno, name)

    def test_knows_who_has_left(self):
        assert isinstance(wasyncore._DISCONNECTED, frozenset)
        assert {
            errno.ECONNRESET,
            errno.ENOTCONN,
            errno.ESHUTDOWN,
            errno.ECONNABORTED,
            errno.EPIPE,
            errno.EBADF,
        } == wasyncore._DISCONNECTED

    def test_knows_what_ends_the_loop(self):
        assert wasyncore._reraised_exceptions == (wasyncore.ExitNow, KeyboardInterrupt, SystemExit)
        assert issubclass(wasyncore.ExitNow, Exception)

    def test_reaches_its_modules_through_its_globals(self):
        for module in (logging, os, select, socket, sys, time, utilities, warnings):
            assert getattr(wasyncore, module.__name__.rpartition(".")[2]) is module

    def test_has_one_pass_under_two_names(self):
        assert wasyncore.poll3 is wasyncore.poll2

    def test_has_a_map_that_is_a_dict(self):
        assert isinstance(wasyncore.socket_map, dict)

    def test_keeps_its_map_when_it_is_reloaded(self, monkeypatch):
        module = ModuleType("waitress.wasyncore")
        spec = importlib.util.find_spec("waitress.wasyncore")
        module.__spec__ = spec
        load_elsewhere(monkeypatch, wasyncore, into=module)
        first = module.socket_map
        assert first == {}
        load_elsewhere(monkeypatch, wasyncore, into=module)
        assert module.socket_map is first
        assert module.dispatcher is not wasyncore.dispatcher

    def test_has_no_dispatchers_of_files_where_they_cannot_be_polled(self, monkeypatch):
        elsewhere = load_elsewhere(monkeypatch, wasyncore, os_name="nt")
        assert not hasattr(elsewhere, "file_dispatcher")
        assert not hasattr(elsewhere, "file_wrapper")
        assert hasattr(elsewhere, "dispatcher")


class TestStrerror:
    @pytest.mark.parametrize("code", [errno.EPIPE, errno.ECONNREFUSED])
    def test_says_what_the_system_says(self, code):
        assert wasyncore._strerror(code) == os.strerror(code)

    @pytest.mark.parametrize("code", ["wut", None, 1 << 70])
    def test_says_something_of_everything(self, code):
        assert wasyncore._strerror(code) == f"Unknown error {code}"

    def test_says_something_when_the_system_knows_nothing(self, monkeypatch):
        monkeypatch.setattr(os, "strerror", lambda code: Raises(ValueError("no such"))())
        assert wasyncore._strerror(5) == "Unknown error 5"


# -- handing over one event -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hand_over", "event"),
    [(wasyncore.read, "read"), (wasyncore.write, "write"), (wasyncore._exception, "expt")],
)
class TestHandingOverOneEvent:
    def test_calls_its_handler(self, hand_over, event):
        stranger = Stranger()
        assert hand_over(stranger) is None
        assert stranger.events == [event]

    @pytest.mark.parametrize("end", ENDS)
    def test_lets_the_loop_be_ended(self, hand_over, event, end):
        stranger = Stranger()
        stranger.actions[event] = Raises(end())
        with pytest.raises(end):
            hand_over(stranger)
        assert stranger.events == [event]

    @pytest.mark.parametrize(
        "error", [LookupError("x"), OSError(errno.EPIPE, "x"), GeneratorExit(), BaseException("x")]
    )
    def test_leaves_every_other_error_to_the_object(self, hand_over, event, error):
        stranger = Stranger()
        stranger.actions[event] = Raises(error)
        hand_over(stranger)
        assert stranger.events == [event, f"error {error!r}"]

    def test_leaves_a_missing_handler_to_the_object(self, hand_over, event):
        seen = []
        hand_over(SimpleNamespace(handle_error=lambda: seen.append(sys.exc_info()[0])))
        assert seen == [AttributeError]


POLL_FLAGS = [
    (select.POLLIN, ["read"]),
    (select.POLLOUT, ["write"]),
    (select.POLLPRI, ["expt"]),
    (select.POLLHUP, ["close"]),
    (select.POLLERR, ["close"]),
    (select.POLLNVAL, ["close"]),
    (select.POLLHUP | select.POLLERR | select.POLLNVAL, ["close"]),
    (0, []),
    (
        select.POLLHUP | select.POLLPRI | select.POLLOUT | select.POLLIN,
        ["read", "write", "expt", "close"],
    ),
]


class TestReadwrite:
    @pytest.mark.parametrize(("flags", "events"), POLL_FLAGS)
    def test_hands_over_in_a_fixed_order(self, flags, events):
        stranger = Stranger()
        assert wasyncore.readwrite(stranger, flags) is None
        assert stranger.events == events

    @pytest.mark.parametrize("code", sorted(wasyncore._DISCONNECTED))
    def test_closes_an_object_whose_peer_has_left(self, code):
        stranger = Stranger()
        stranger.actions["read"] = Raises(OSError(code))
        wasyncore.readwrite(stranger, select.POLLIN | select.POLLOUT)
        assert stranger.events == ["read", "close"]

    @pytest.mark.parametrize(
        "error", [OSError(errno.EINVAL, "x"), OSError(), LookupError("x"), GeneratorExit()]
    )
    def test_leaves_every_other_error_to_the_object(self, error):
        stranger = Stranger()
        stranger.actions["write"] = Raises(error)
        wasyncore.readwrite(stranger, select.POLLOUT)
        assert stranger.events == ["write", f"error {error!r}"]

    @pytest.mark.parametrize("end", ENDS)
    def test_lets_the_loop_be_ended(self, end):
        stranger = Stranger()
        stranger.actions["expt"] = Raises(end())
        with pytest.raises(end):
            wasyncore.readwrite(stranger, select.POLLPRI)
        assert stranger.events == ["expt"]

    def test_looks_up_who_has_left_at_every_use(self, monkeypatch):
        stranger = Stranger()
        stranger.actions["read"] = Raises(OSError(errno.EPROTOTYPE))
        monkeypatch.setattr(
            wasyncore, "_DISCONNECTED", wasyncore._DISCONNECTED.union({errno.EPROTOTYPE})
        )
        wasyncore.readwrite(stranger, select.POLLIN)
        assert stranger.events == ["read", "close"]


# -- passes, by whatever name ---------------------------------------------------------------


def loop_select(timeout=0.0, map=None):
    wasyncore.loop(timeout, False, map, 1)


def loop_poll(timeout=0.0, map=None):
    wasyncore.loop(timeout, use_poll=True, map=map, count=1)


PASSES = {
    "poll": wasyncore.poll,
    "poll2": wasyncore.poll2,
    "loop": loop_select,
    "loop with use_poll": loop_poll,
}


@pytest.fixture(params=PASSES)
def one_pass(request):
    return PASSES[request.param]


@pytest.fixture(params=[dict, wasyncore.SocketMap], ids=["a dict", "our map"])
def socket_map(request):
    made = request.param()
    yield made
    made.clear()
    if isinstance(made, wasyncore.SocketMap):
        made.event_loop = None
    gc.collect()


class TestAPass:
    def test_tells_what_can_be_read(self, one_pass, socket_map, ours, theirs):
        stranger = socket_map[ours.fileno()] = Stranger()
        one_pass(0, socket_map)
        assert stranger.events == []
        theirs.send(b"x")
        assert one_pass(PATIENCE, socket_map) is None
        assert stranger.events == ["read"]

    def test_tells_what_can_be_written(self, one_pass, socket_map, ours):
        stranger = socket_map[ours.fileno()] = Stranger(False, True)
        one_pass(PATIENCE, socket_map)
        assert stranger.events == ["write"]

    def test_tells_a_listener_nothing_of_writing(self, one_pass, socket_map, ours, theirs):
        stranger = socket_map[ours.fileno()] = Stranger(True, True)
        stranger.accepting = True
        theirs.send(b"x")
        one_pass(PATIENCE, socket_map)
        assert stranger.events == ["read"]

    def test_tells_of_out_of_band_data(self, one_pass, socket_map, ours, theirs):
        collecting = Collecting(ours, socket_map)
        theirs.send(b"x", socket.MSG_OOB)
        one_pass(PATIENCE, socket_map)
        assert "expt" in collecting.events
        assert "close" not in collecting.events

    def test_asks_every_object_once_about_each(self, one_pass, socket_map, pair):
        asked = []
        for number, each in enumerate(pair):
            stranger = socket_map[each.fileno()] = Stranger()
            for question in ("readable", "writable"):
                stranger.actions[question] = lambda n=number, q=question: asked.append((n, q))
        one_pass(0, socket_map)
        assert sorted(asked) == [
            (0, "readable"),
            (0, "writable"),
            (1, "readable"),
            (1, "writable"),
        ]

    def test_takes_objects_that_are_no_dispatchers_and_have_no_socket(self, one_pass, ours):
        class Bare:
            __slots__ = ("events",)
            accepting = False

            def __init__(self):
                self.events = []

            def readable(self):
                return 0

            def writable(self):
                return 1

            def handle_write_event(self):
                self.events.append("write")

        bare = Bare()
        one_pass(PATIENCE, {ours.fileno(): bare})
        assert bare.events == ["write"]

    def test_reads_plain_files(self, one_pass, socket_map, tmp_path):
        (tmp_path / "file").write_bytes(b"content")
        with open(tmp_path / "file", "rb") as file:
            tail = CollectingFile(file, socket_map)
            for _ in range(2):
                one_pass(0, socket_map)
            assert tail.data == b"content"
            assert tail.events == ["read", "read"]
            tail.close()

    def test_reads_pipes_to_their_end(self, one_pass, socket_map):
        reading, writing = os.pipe()
        tail = CollectingFile(reading, socket_map)
        os.close(reading)
        os.write(writing, b"content")
        one_pass(PATIENCE, socket_map)
        one_pass(PATIENCE, socket_map)
        assert tail.data == b"content"
        os.close(writing)
        one_pass(PATIENCE, socket_map)
        assert "close" in tail.events
        assert socket_map == {}

    def test_skips_an_object_that_left_before_its_event(self, one_pass, socket_map, pair):
        ours, theirs = pair
        first, second = (
            socket_map.setdefault(each.fileno(), Stranger(False, True)) for each in pair
        )
        first.actions["write"] = lambda: socket_map.pop(theirs.fileno())
        second.actions["write"] = lambda: socket_map.pop(ours.fileno())
        one_pass(PATIENCE, socket_map)
        assert sorted([first.events, second.events]) == [[], ["write"]]

    def test_bears_objects_that_come_and_go_while_they_are_asked(self, one_pass, socket_map, pair):
        ours, theirs = pair
        stranger, comes = Stranger(False, True), Stranger(False, False)

        def come_and_go():
            socket_map[theirs.fileno()] = comes
            socket_map.pop(ours.fileno(), None)

        stranger.actions["readable"] = come_and_go
        socket_map[ours.fileno()] = stranger
        one_pass(0, socket_map)
        assert stranger.events == []
        assert socket_map == {theirs.fileno(): comes}

    @pytest.mark.parametrize("end", ENDS)
    def test_lets_the_loop_be_ended(self, one_pass, socket_map, ours, end):
        stranger = socket_map[ours.fileno()] = Stranger(False, True)
        stranger.actions["write"] = Raises(end())
        with pytest.raises(end):
            one_pass(PATIENCE, socket_map)

    def test_survives_what_an_object_runs_into(self, one_pass, socket_map, ours):
        stranger = socket_map[ours.fileno()] = Stranger(False, True)
        stranger.actions["write"] = Raises(LookupError("x"))
        one_pass(PATIENCE, socket_map)
        assert stranger.events == ["write", "error LookupError('x')"]

    def test_uses_the_module_s_map_unless_told_otherwise(self, one_pass, own_map, ours):
        stranger = own_map[ours.fileno()] = Stranger(False, True)
        one_pass(PATIENCE)
        assert stranger.events == ["write"]

    def test_does_nothing_with_an_empty_map(self, one_pass, own_map, ours):
        own_map[ours.fileno()] = Stranger(False, True)
        assert one_pass(PATIENCE, {}) is None
        assert own_map[ours.fileno()].events == []

    def test_takes_an_empty_map_for_the_module_s_when_that_is_empty(self, one_pass, own_map):
        assert one_pass(PATIENCE) is None


class CollectingFile(wasyncore.file_dispatcher):
    def __init__(self, fd, map):
        self.events = []
        self.data = b""
        super().__init__(fd, map)

    def writable(self):
        return False

    def handle_read(self):
        self.events.append("read")
        self.data += self.recv(4)

    def handle_expt(self):
        self.events.append("expt")

    def handle_close(self):
        self.events.append("close")
        self.close()


class FakeSelect:
    """A ``select`` module that says what the test says, as outsiders put in place."""

    def __init__(self, answer=None, error=None):
        self.answer = answer
        self.error = error
        self.calls = []
        self.registered = {}

    def _answer(self, *args):
        self.calls.append(args)
        if self.error is not None:
            raise self.error
        return self.answer


class WithSelect(FakeSelect):
    def select(self, *args):
        return self._answer(*args)


class WithPoll(FakeSelect):
    def poll(self):
        return SimpleNamespace(register=self.register, poll=self._answer)

    def register(self, fd, flags):
        self.registered[fd] = flags


class TestPoll:
    """One pass with ``select()``, to the letter."""

    @pytest.fixture
    def replace(self, monkeypatch):
        def put(fake):
            monkeypatch.setattr(wasyncore, "select", fake)
            return fake

        return put

    def test_selects_with_four_arguments(self, replace):
        fake = replace(WithSelect(([], [], [])))
        listener = Stranger(True, True)
        listener.accepting = True
        wasyncore.poll(
            0.25,
            {3: Stranger(True, False), 4: Stranger(False, True), 5: Stranger(False), 6: listener},
        )
        assert fake.calls == [([3, 6], [4], [3, 4, 6], 0.25)]

    def test_hands_over_all_reads_then_all_writes_then_the_rest(self, replace):
        replace(WithSelect(([3, 4], [3, 4], [3, 4])))
        order = []
        socket_map = {3: Stranger(True, True), 4: Stranger(True, True)}
        for fd, stranger in socket_map.items():
            for event in ("read", "write", "expt"):
                stranger.actions[event] = lambda fd=fd, event=event: order.append((event, fd))
        wasyncore.poll(0, socket_map)
        assert order == [
            ("read", 3),
            ("read", 4),
            ("write", 3),
            ("write", 4),
            ("expt", 3),
            ("expt", 4),
        ]

    def test_skips_those_who_left(self, replace):
        replace(WithSelect(([3], [3], [3])))
        stranger = Stranger(True, True)
        socket_map = {3: stranger}
        stranger.actions["read"] = socket_map.clear
        wasyncore.poll(0, socket_map)
        assert stranger.events == ["read"]

    def test_sleeps_when_nobody_wants_anything(self, replace, monkeypatch):
        slept = []
        monkeypatch.setattr(wasyncore, "time", SimpleNamespace(sleep=slept.append))
        fake = replace(WithSelect(([], [], [])))
        assert wasyncore.poll(0.25, {3: Stranger(False)}) is None
        assert slept == [0.25]
        assert fake.calls == []

    def test_takes_an_interruption_for_a_pass_without_events(self, replace):
        replace(WithSelect(error=OSError(errno.EINTR)))
        stranger = Stranger()
        assert wasyncore.poll(0, {3: stranger}) is None
        assert stranger.events == []

    @pytest.mark.parametrize("error", [OSError(errno.EINVAL), OSError(), ValueError("x")])
    def test_passes_every_other_error_on(self, replace, error):
        replace(WithSelect(error=error))
        with pytest.raises(type(error)) as caught:
            wasyncore.poll(0, {3: Stranger()})
        assert caught.value is error

    def test_fails_when_a_descriptor_was_closed(self, pair):
        fd = pair[0].fileno()
        pair[0].close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            wasyncore.poll(0, {fd: Stranger()})

    def test_does_not_wait_by_default(self, replace):
        fake = replace(WithSelect(([], [], [])))
        wasyncore.poll(map={3: Stranger()})
        assert fake.calls == [([3], [], [3], 0.0)]


class TestPoll2:
    """One pass with ``poll()``, to the letter."""

    @pytest.fixture
    def replace(self, monkeypatch):
        def put(fake):
            monkeypatch.setattr(wasyncore, "select", fake)
            return fake

        return put

    def test_registers_what_is_wanted_and_nothing_else(self, replace):
        fake = replace(WithPoll([]))
        listener = Stranger(True, True)
        listener.accepting = True
        wasyncore.poll2(
            0.25,
            {3: Stranger(True, False), 4: Stranger(False, True), 5: Stranger(False), 6: listener},
        )
        incoming = select.POLLIN | select.POLLPRI
        assert fake.registered == {3: incoming, 4: select.POLLOUT, 6: incoming}

    @pytest.mark.parametrize(
        ("timeout", "milliseconds"), [(0.0, 0), (0.25, 250), (1.9999, 1999), (None, None)]
    )
    def test_waits_whole_milliseconds_or_for_ever(self, replace, timeout, milliseconds):
        fake = replace(WithPoll([]))
        wasyncore.poll2(timeout, {3: Stranger()})
        assert fake.calls == [(milliseconds,)]

    def test_does_not_wait_by_default(self, replace):
        fake = replace(WithPoll([]))
        wasyncore.poll2(map={3: Stranger()})
        assert fake.calls == [(0,)]

    @pytest.mark.parametrize(("flags", "events"), POLL_FLAGS)
    def test_hands_over_what_it_is_told(self, replace, flags, events):
        replace(WithPoll([(3, flags), (9, flags)]))
        stranger = Stranger()
        wasyncore.poll2(0, {3: stranger})
        assert stranger.events == events

    def test_takes_an_interruption_for_a_pass_without_events(self, replace):
        replace(WithPoll(error=OSError(errno.EINTR)))
        stranger = Stranger()
        assert wasyncore.poll2(0, {3: stranger}) is None
        assert stranger.events == []

    @pytest.mark.parametrize("error", [OSError(errno.EINVAL), OSError(), ValueError("x")])
    def test_passes_every_other_error_on(self, replace, error):
        replace(WithPoll(error=error))
        with pytest.raises(type(error)) as caught:
            wasyncore.poll2(0, {3: Stranger()})
        assert caught.value is error

    def test_closes_an_object_whose_descriptor_was_closed(self, pair):
        fd = pair[0].fileno()
        pair[0].close()
        stranger = Stranger()
        wasyncore.poll2(0, {fd: stranger})
        assert stranger.events == ["close"]


@pytest.mark.parametrize("name", ["poll", "poll2"])
class TestPollingByOneself:
    """Objects of ours rely on the clock and the deadlines of their loop."""

    class Owner(Stranger):
        deadline_bucket = None
        deadline = 0.0

        def handle_deadline(self, now):
            self.events.append("due")

    def test_keeps_the_time_and_the_deadlines(self, name, ours):
        event_loop = EventLoop(wasyncore.SocketMap())
        owner = event_loop.map[ours.fileno()] = self.Owner(False, True)
        before = event_loop.now
        event_loop.deadlines.arm(owner, before - 1)
        owner.actions["write"] = lambda: owner.events.append(event_loop.now > before)
        getattr(wasyncore, name)(PATIENCE, event_loop.map)
        assert owner.events == ["write", True, "due"]

    def test_makes_no_loop_for_a_map_that_has_none(self, name, ours):
        socket_map = {ours.fileno(): Stranger()}
        getattr(wasyncore, name)(0, socket_map)
        assert wasyncore.find_event_loop(socket_map) is None

    def test_in_a_handler_leaves_both_to_the_pass(self, name, ours):
        event_loop = EventLoop(wasyncore.SocketMap())
        owner = event_loop.map[ours.fileno()] = self.Owner(False, True)
        event_loop.deadlines.arm(owner, event_loop.now - 1)

        def nested():
            owner.actions.clear()
            getattr(wasyncore, name)(0, event_loop.map)
            assert "due" not in owner.events

        owner.actions["write"] = nested
        wasyncore.loop(0, map=event_loop.map, count=1)
        assert owner.events == ["write", "write", "due"]
        event_loop.map.clear()


class TestLoop:
    def test_returns_at_once_when_the_map_is_empty(self, own_map):
        assert wasyncore.loop() is None
        assert wasyncore.loop(map={}) is None

    def test_makes_as_many_passes_as_told(self, ours):
        stranger = Stranger(False, True)
        wasyncore.loop(PATIENCE, map={ours.fileno(): stranger}, count=3)
        assert stranger.events == ["write"] * 3

    def test_makes_none_when_told_so(self, ours):
        stranger = Stranger(False, True)
        wasyncore.loop(PATIENCE, map={ours.fileno(): stranger}, count=0)
        assert stranger.events == []

    def test_goes_on_until_the_map_is_empty(self, socket_map, ours):
        stranger = socket_map[ours.fileno()] = Stranger(False, True)
        stranger.actions["write"] = lambda: len(stranger.events) == 5 and socket_map.clear()
        wasyncore.loop(PATIENCE, False, socket_map)
        assert stranger.events == ["write"] * 5

    def test_works_in_the_module_s_map_by_default(self, own_map, ours):
        stranger = own_map[ours.fileno()] = Stranger(False, True)
        stranger.actions["write"] = own_map.clear
        wasyncore.loop()
        assert stranger.events == ["write"]

    @pytest.mark.parametrize("timeout", [0, 0.001, None])
    def test_takes_its_timeout_by_position_and_by_name(self, ours, timeout):
        stranger = Stranger(False, True)
        wasyncore.loop(timeout, map={ours.fileno(): stranger}, count=1)
        wasyncore.loop(timeout=timeout, map={ours.fileno(): stranger}, count=1)
        assert stranger.events == ["write"] * 2

    def test_waits_no_longer_than_told(self, ours):
        began = time.monotonic()
        wasyncore.loop(0.02, map={ours.fileno(): Stranger()}, count=1)
        assert 0.01 < time.monotonic() - began < PATIENCE

    def test_ends_when_another_thread_clears_the_map(self, socket_map, ours):
        stranger = socket_map[ours.fileno()] = Stranger()
        asked = threading.Event()
        stranger.actions["readable"] = asked.set
        running = InThread(wasyncore.loop, 0.02, False, socket_map)
        await_event(asked)
        socket_map.clear()
        running.result()

    def test_has_no_limit_at_descriptor_1024(self, ours):
        import fcntl
        import resource

        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft < 2100:
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, hard), hard))
        try:
            high = fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD_CLOEXEC, 2000)
            stranger = Stranger(False, True)
            wasyncore.loop(PATIENCE, map={high: stranger}, count=1)
            assert stranger.events == ["write"]
            os.close(high)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

    def test_uses_the_module_that_was_put_in_place_of_select(self, monkeypatch, ours, theirs):
        stranger = Stranger()
        socket_map = {ours.fileno(): stranger}
        fake = WithSelect(([ours.fileno()], [], []))
        monkeypatch.setattr(wasyncore, "select", fake)
        wasyncore.loop(0.5, map=socket_map, count=1)
        assert fake.calls == [([ours.fileno()], [], [ours.fileno()], 0.5)]
        assert stranger.events == ["read"]

    def test_does_without_anything_but_select(self, monkeypatch, ours, theirs):
        """As under gevent's monkey-patching."""
        monkeypatch.setattr(wasyncore, "select", SimpleNamespace(select=select.select))
        collecting = Collecting(ours, {})
        theirs.send(b"x")
        wasyncore.loop(PATIENCE, map=collecting._map, count=1)
        assert collecting.data == b"x"
        collecting.close()

    def test_leaves_the_waiting_to_the_module_that_is_there_now(self, monkeypatch, ours):
        """Replaced for a time, and put back, amid the life of one loop."""
        event_loop = EventLoop(wasyncore.SocketMap())
        stranger = event_loop.map[ours.fileno()] = Stranger(False, True)
        with monkeypatch.context() as patch:
            patch.setattr(wasyncore, "select", WithSelect(([], [], [])))
            wasyncore.loop(0, map=event_loop.map, count=1)
        assert stranger.events == []
        wasyncore.loop(PATIENCE, map=event_loop.map, count=1)
        assert stranger.events == ["write"]
        event_loop.map.clear()


class TestTheEventsOfALoop:
    """What the caller of ``loop`` saw with ``select()`` it still sees, whatever waits."""

    @staticmethod
    def told(asked, flags, *, use_poll=False, leaves_at=None):
        """Return the events of an object that is told these flags."""
        stranger = Stranger(*asked)
        socket_map = {3: stranger}
        stranger.actions[leaves_at] = socket_map.clear

        class Poller:
            register = modify = unregister = staticmethod(lambda *args: None)
            poll = staticmethod(lambda timeout: [(3, flags)])
            close = staticmethod(lambda: None)

        # The loop lives as long as somebody holds it.
        event_loop = EventLoop(socket_map, poller_factory=lambda module: Poller())
        wasyncore.loop(0, use_poll, socket_map, 1)
        assert event_loop.map is socket_map
        return stranger.events

    @pytest.mark.parametrize(
        ("asked", "flags", "events"),
        [
            ((True, True), select.POLLIN, ["read"]),
            ((True, True), select.POLLOUT, ["write"]),
            ((True, True), select.POLLIN | select.POLLOUT, ["read", "write"]),
            ((True, True), select.POLLPRI, ["expt"]),
            # A hang-up is something to read: nothing of what was sent before is lost.
            ((True, False), select.POLLHUP, ["read"]),
            ((True, False), select.POLLHUP | select.POLLIN, ["read"]),
            ((True, False), select.POLLERR, ["read"]),
            ((True, True), select.POLLERR, ["read", "write"]),
            ((False, True), select.POLLERR, ["write"]),
            # Who wants to know of neither would be told again and again.
            ((False, True), select.POLLHUP, ["close"]),
            ((True, False), select.POLLNVAL, ["close"]),
        ],
    )
    def test_are_those_of_select(self, asked, flags, events):
        assert self.told(asked, flags) == events

    def test_end_when_the_object_has_left(self):
        flags = select.POLLIN | select.POLLOUT
        assert self.told((True, True), flags, leaves_at="read") == ["read"]

    @pytest.mark.parametrize(("flags", "events"), [each for each in POLL_FLAGS if each[0]])
    def test_are_those_of_poll_for_those_who_want_that(self, flags, events):
        assert self.told((True, True), flags, use_poll=True) == events

    def test_bring_all_of_a_pipe_that_was_closed_already(self):
        reading, writing = os.pipe()
        socket_map = {}
        tail = CollectingFile(reading, socket_map)
        os.close(reading)
        os.write(writing, b"all of it, in many pieces")
        os.close(writing)
        wasyncore.loop(PATIENCE, map=socket_map)
        assert tail.data == b"all of it, in many pieces"
        assert tail.events[-1] == "close"

    def test_tell_a_writer_that_nobody_reads(self):
        reading, writing = os.pipe()
        socket_map = {}

        class Writer(wasyncore.file_dispatcher):
            def readable(self):
                return False

            def handle_write(self):
                self.send(b"x")

        writer = Writer(writing, socket_map)
        os.close(writing)
        os.close(reading)
        with contextlib.suppress(BrokenPipeError):
            wasyncore.loop(PATIENCE, map=socket_map)
        assert socket_map == {}
        assert writer.socket is None


class TestReconnecting:
    def test_under_the_same_number_goes_on(self, socket_map):
        """A dispatcher whose handler closes and opens anew gets the lowest free number."""
        (first, first_peer), (second, second_peer) = tcp_pair(), tcp_pair()
        number = first.fileno()

        class Reconnecting(Collecting):
            def handle_close(self):
                self.events.append("close")
                self.close()
                again = os.dup(second.fileno())
                assert again == number
                self.set_socket(socket.socket(fileno=again))

        client = Reconnecting(first, socket_map)
        first_peer.close()
        for _ in range(2):
            wasyncore.loop(PATIENCE, False, socket_map, 1)
            if "close" in client.events:
                break
        assert client._fileno == number
        second_peer.send(b"new")
        wasyncore.loop(PATIENCE, False, socket_map, 1)
        assert client.data == b"new"
        client.close()
        second.close()
        second_peer.close()


# -- dispatcher -----------------------------------------------------------------------------


class StandIn:
    """A socket that does what the test says."""

    def __init__(self, number=10_000_000, **answers):
        self.number = number
        self.answers = answers
        self.calls = []

    def fileno(self):
        return self.number

    def setblocking(self, flag):
        self.calls.append(("setblocking", flag))

    def _answer(self, name, *args):
        self.calls.append((name, *args))
        answer = self.answers.get(name)
        if isinstance(answer, BaseException):
            raise answer
        return answer

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args: self._answer(name, *args)


@pytest.fixture
def quiet():
    """A dispatcher that stands nowhere."""
    return wasyncore.dispatcher(map={})


class TestADispatcher:
    def test_has_its_defaults_on_the_class(self):
        cls = wasyncore.dispatcher
        assert cls.debug is cls.connected is cls.accepting is False
        assert cls.connecting is cls.closing is False
        assert cls.addr is None
        assert cls.ignore_log_types == frozenset({"warning"})
        assert cls.logger is utilities.logger
        assert cls.compact_traceback is wasyncore.compact_traceback

    def test_without_a_socket_stands_in_no_map(self):
        socket_map = {}
        dispatcher = wasyncore.dispatcher(map=socket_map)
        assert socket_map == {}
        assert dispatcher._map is socket_map
        assert dispatcher.socket is None
        assert dispatcher._fileno is None

    def test_with_a_socket_stands_in_its_map_under_its_number(self):
        sock, socket_map = StandIn(), {}
        dispatcher = wasyncore.dispatcher(sock, socket_map)
        assert socket_map == {10_000_000: dispatcher}
        assert dispatcher.socket is sock
        assert not dispatcher.connected
        # It asks nothing of it but its number: no peer's name.
        assert sock.calls == [("setblocking", 0)]

    def test_stands_in_the_module_s_map_by_default(self, own_map):
        dispatcher = wasyncore.dispatcher(StandIn())
        assert own_map == {10_000_000: dispatcher}
        assert dispatcher._map is own_map

    def test_stands_in_an_empty_map_when_given_one(self, own_map):
        socket_map = {}
        assert wasyncore.dispatcher(StandIn(), socket_map)._map is socket_map
        assert own_map == {}

    def test_reads_and_writes(self, quiet):
        assert quiet.readable() is True
        assert quiet.writable() is True


class TestTheNameOfADispatcher:
    NAME = "waitress.wasyncore.dispatcher"

    @pytest.mark.parametrize(
        ("accepting", "connected", "addr", "text"),
        [
            (False, False, None, ""),
            (False, True, None, " connected"),
            (True, False, None, ""),
            (True, False, ("localhost", 8080), " listening localhost:8080"),
            (False, True, ("localhost", 8080), " connected localhost:8080"),
            (True, True, ("localhost", 8080), " listening localhost:8080"),
            (False, False, "/run/sock", " '/run/sock'"),
            (False, False, "ab", " 'ab'"),
            (True, False, 0, " 0"),
            (False, False, ("::1", 8080, 0, 0), " ('::1', 8080, 0, 0)"),
            (False, False, ("localhost", None), " ('localhost', None)"),
        ],
    )
    def test_tells_what_it_does_and_where(self, quiet, accepting, connected, addr, text):
        quiet.accepting, quiet.connected, quiet.addr = accepting, connected, addr
        assert repr(quiet) == str(quiet)
        assert repr(quiet) == f"<{self.NAME}{text} at {id(quiet):#x}>"

    def test_is_that_of_its_class(self):
        class Outer:
            class Own(wasyncore.dispatcher):
                pass

        name = re.escape(f"{__name__}.TestTheNameOfADispatcher.test_is_that_of_its_class.")
        assert re.match(rf"<{name}<locals>\.Outer\.Own at 0x", repr(Outer.Own(map={})))


class TestStandingInAMap:
    def test_may_be_in_another_than_its_own(self, quiet):
        other = {}
        quiet._fileno = 7
        quiet.add_channel(other)
        assert other == {7: quiet}
        assert quiet._map == {}
        quiet.del_channel(other)
        assert other == {}
        assert quiet._fileno is None

    def test_ends_once(self, quiet):
        quiet.del_channel()
        quiet._fileno = 7
        quiet.del_channel()
        assert quiet._fileno is None

    def test_is_not_ended_for_the_one_who_came_instead(self, quiet):
        quiet._fileno = 7
        other = quiet._map[7] = Stranger()
        quiet.del_channel()
        assert quiet._map == {7: other}

    def test_may_be_ended_by_another_thread_at_that_moment(self):
        class Emptied(dict):
            def __delitem__(self, fd):
                super().__delitem__(fd)
                raise KeyError(fd)

        dispatcher = wasyncore.dispatcher(StandIn(), Emptied())
        dispatcher.del_channel()
        assert dispatcher._map == {}


class TestSocketsOfADispatcher:
    def test_can_be_made_by_it(self):
        socket_map = {}
        dispatcher = wasyncore.dispatcher(map=socket_map)
        dispatcher.create_socket()
        assert dispatcher.family_and_type == (socket.AF_INET, socket.SOCK_STREAM)
        assert dispatcher.socket.getblocking() is False
        assert socket_map == {dispatcher.socket.fileno(): dispatcher}
        dispatcher.close()
        dispatcher.create_socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        assert dispatcher.socket.family == socket.AF_UNIX
        assert dispatcher.family_and_type == (socket.AF_UNIX, socket.SOCK_DGRAM)
        dispatcher.close()

    def test_can_be_given_to_it(self, quiet):
        sock, other = StandIn(), {}
        quiet.set_socket(sock, other)
        assert quiet.socket is sock
        assert quiet._fileno == 10_000_000
        assert other == {10_000_000: quiet}

    def test_can_reuse_an_address(self, quiet):
        quiet.create_socket()
        quiet.set_reuse_addr()
        assert quiet.socket.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR) & 1
        quiet.close()

    def test_keep_the_other_bits_of_that_option(self, quiet):
        quiet.socket = StandIn(getsockopt=4)
        quiet.set_reuse_addr()
        assert quiet.socket.calls[-1] == ("setsockopt", socket.SOL_SOCKET, socket.SO_REUSEADDR, 5)

    def test_need_not_know_that_option(self, quiet):
        quiet.socket = StandIn(getsockopt=OSError(errno.ENOPROTOOPT))
        quiet.set_reuse_addr()

    def test_listen_and_accept(self, quiet):
        quiet.create_socket()
        quiet.bind(("127.0.0.1", 0))
        assert quiet.addr == ("127.0.0.1", 0)
        quiet.listen(10)
        assert quiet.accepting
        assert quiet.accept() is None
        with socket.create_connection(quiet.socket.getsockname()) as client:
            conn, addr = quiet.accept()
            assert addr == client.getsockname()
            conn.close()
        quiet.close()

    @pytest.mark.parametrize(
        ("name", "asked", "taken"), [("posix", 64, 64), ("nt", 64, 5), ("nt", 3, 3)]
    )
    def test_listen_for_as_many_as_the_platform_has(self, quiet, monkeypatch, name, asked, taken):
        quiet.socket = StandIn()
        monkeypatch.setattr(wasyncore, "os", SimpleNamespace(name=name))
        quiet.listen(asked)
        assert quiet.socket.calls == [("listen", taken)]


class TestAccept:
    @pytest.mark.parametrize(
        "error",
        [
            TypeError(),
            *map(OSError, (errno.EWOULDBLOCK, errno.EAGAIN, errno.ECONNABORTED)),
        ],
    )
    def test_is_nothing_when_nobody_is_there(self, quiet, error):
        quiet.socket = StandIn(accept=error)
        assert quiet.accept() is None

    @pytest.mark.parametrize("error", [OSError(errno.EMFILE), OSError(), LookupError()])
    def test_passes_every_other_error_on(self, quiet, error):
        quiet.socket = StandIn(accept=error)
        with pytest.raises(type(error)):
            quiet.accept()


class TestSend:
    @pytest.fixture
    def sending(self):
        collecting = Collecting(map={})
        collecting.socket = StandIn()
        return collecting

    def test_tells_how_much_was_taken(self, sending):
        sending.socket.answers["send"] = 3
        assert sending.send(b"abcd") == 3
        assert sending.socket.calls == [("send", b"abcd")]

    def test_sends_nothing_when_nothing_is_taken(self, sending):
        sending.socket.answers["send"] = OSError(errno.EWOULDBLOCK)
        assert sending.send(b"x") == 0
        assert sending.events == []

    @pytest.mark.parametrize("code", sorted(wasyncore._DISCONNECTED))
    def test_closes_when_the_peer_has_left(self, sending, code):
        sending.socket.answers["send"] = OSError(code)
        assert sending.send(b"x") == 0
        assert sending.events == ["close"]

    def test_does_not_close_when_told_not_to(self, sending):
        sending.socket.answers["send"] = OSError(errno.EPIPE)
        assert sending.send(b"x", do_close=False) == 0
        assert sending.events == []

    @pytest.mark.parametrize("error", [OSError(errno.EINVAL), OSError(), LookupError()])
    def test_passes_every_other_error_on(self, sending, error):
        sending.socket.answers["send"] = error
        with pytest.raises(type(error)):
            sending.send(b"x")
        assert sending.events == []

    def test_looks_up_who_has_left_at_every_use(self, sending, monkeypatch):
        sending.socket.answers["send"] = OSError(errno.EPROTOTYPE)
        with pytest.raises(OSError, match=str(errno.EPROTOTYPE)):
            sending.send(b"x")
        monkeypatch.setattr(
            wasyncore, "_DISCONNECTED", wasyncore._DISCONNECTED.union({errno.EPROTOTYPE})
        )
        assert sending.send(b"x") == 0
        assert sending.events == ["close"]


class TestRecv:
    @pytest.fixture
    def receiving(self):
        collecting = Collecting(map={})
        collecting.socket = StandIn()
        return collecting

    def test_gives_what_came(self, receiving):
        receiving.socket.answers["recv"] = b"abc"
        assert receiving.recv(5) == b"abc"
        assert receiving.socket.calls == [("recv", 5)]

    def test_closes_at_the_end_of_the_stream(self, receiving):
        receiving.socket.answers["recv"] = b""
        assert receiving.recv(5) == b""
        assert receiving.events == ["close"]

    @pytest.mark.parametrize("code", sorted(wasyncore._DISCONNECTED))
    def test_closes_when_the_peer_has_left(self, receiving, code):
        receiving.socket.answers["recv"] = OSError(code)
        assert receiving.recv(5) == b""
        assert receiving.events == ["close"]

    @pytest.mark.parametrize(
        "error", [BlockingIOError(errno.EWOULDBLOCK, "x"), OSError(errno.EINVAL), OSError()]
    )
    def test_passes_every_other_error_on(self, receiving, error):
        receiving.socket.answers["recv"] = error
        with pytest.raises(type(error)):
            receiving.recv(5)
        assert receiving.events == []

    def test_looks_up_who_has_left_at_every_use(self, receiving, monkeypatch):
        receiving.socket.answers["recv"] = OSError(errno.EPROTOTYPE)
        monkeypatch.setattr(wasyncore, "_DISCONNECTED", frozenset({errno.EPROTOTYPE}))
        assert receiving.recv(5) == b""
        assert receiving.events == ["close"]


class TestClosing:
    def test_leaves_the_map_and_the_socket(self):
        sock, socket_map = StandIn(), {}
        dispatcher = wasyncore.dispatcher(sock, socket_map)
        dispatcher.connected = dispatcher.accepting = dispatcher.connecting = True
        dispatcher.close()
        assert socket_map == {}
        assert dispatcher.socket is None
        assert dispatcher._fileno is None
        flags = (dispatcher.connected, dispatcher.accepting, dispatcher.connecting)
        assert flags == (False, False, False)
        assert sock.calls[-1] == ("close",)

    def test_can_be_repeated(self, quiet):
        quiet.close()
        quiet.close()

    def test_goes_through_del_channel(self, quiet):
        called = []
        quiet.del_channel = lambda: called.append(1)
        quiet.close()
        assert called == [1]

    @pytest.mark.parametrize("code", [errno.ENOTCONN, errno.EBADF])
    def test_of_what_is_gone_is_no_error(self, quiet, code):
        quiet.socket = StandIn(close=OSError(code))
        quiet.close()
        assert quiet.socket is None

    @pytest.mark.parametrize("error", [OSError(errno.EIO), OSError()])
    def test_passes_every_other_error_on(self, quiet, error):
        quiet.socket = StandIn(close=error)
        with pytest.raises(OSError) as caught:
            quiet.close()
        assert caught.value is error
        assert quiet.socket is None


class TestLogging:
    @pytest.fixture(autouse=True)
    def everything(self, caplog):
        caplog.set_level(logging.DEBUG, "waitress")

    def test_of_messages_is_for_debugging(self, quiet, caplog):
        quiet.log("message")
        assert messages(caplog) == [("DEBUG", "message")]

    @pytest.mark.parametrize(
        ("kind", "level"),
        [("info", "INFO"), ("warning", "WARNING"), ("error", "ERROR"), ("other", "INFO")],
    )
    def test_has_levels(self, quiet, caplog, kind, level):
        quiet.log_info("message", kind)
        quiet.log_info("message", type=kind)
        assert messages(caplog) == [(level, "message")] * 2

    def test_is_of_information_by_default(self, quiet, caplog):
        quiet.log_info("message")
        assert messages(caplog) == [("INFO", "message")]

    @pytest.mark.parametrize(
        ("handler", "message"),
        [
            ("handle_expt", "unhandled incoming priority event"),
            ("handle_read", "unhandled read event"),
            ("handle_write", "unhandled write event"),
            ("handle_connect", "unhandled connect event"),
            ("handle_close", "unhandled close event"),
        ],
    )
    def test_tells_what_nobody_handles(self, quiet, caplog, handler, message):
        getattr(quiet, handler)()
        assert messages(caplog) == [("WARNING", message)]

    def test_needs_nothing_of_a_logger_but_log(self, quiet):
        logged = []
        quiet.logger = SimpleNamespace(log=lambda *args: logged.append(args))
        quiet.log("a")
        quiet.log_info("b", "error")
        assert logged == [(logging.DEBUG, "a"), (logging.ERROR, "b")]


class TestAReadEvent:
    def test_is_a_connection_for_a_listener(self, quiet):
        accepted = []
        quiet.accepting = True
        quiet.handle_accept = lambda: accepted.append(1)
        quiet.handle_read_event()
        assert accepted == [1]

    @pytest.mark.parametrize(
        ("connected", "connecting", "expected"),
        [
            (True, False, ["read"]),
            (False, False, ["read"]),
            (False, True, ["connect", "read"]),
            (True, True, ["read"]),
        ],
    )
    def test_ends_a_connect_first(self, quiet, connected, connecting, expected):
        events = []
        quiet.connected, quiet.connecting = connected, connecting
        quiet.handle_connect_event = lambda: events.append("connect")
        quiet.handle_read = lambda: events.append("read")
        quiet.handle_read_event()
        assert events == expected


class TestAWriteEvent:
    def test_is_nothing_for_a_listener(self, quiet):
        quiet.accepting = True
        quiet.handle_write = Raises(AssertionError("a listener writes nothing"))
        assert quiet.handle_write_event() is None

    @pytest.mark.parametrize(
        ("connected", "connecting", "expected"),
        [
            (True, False, ["write"]),
            (False, False, ["write"]),
            (False, True, ["connect", "write"]),
        ],
    )
    def test_ends_a_connect_first(self, quiet, connected, connecting, expected):
        events = []
        quiet.connected, quiet.connecting = connected, connecting
        quiet.handle_connect_event = lambda: events.append("connect")
        quiet.handle_write = lambda: events.append("write")
        quiet.handle_write_event()
        assert events == expected


class TestAConnectEvent:
    def test_makes_it_connected(self, quiet):
        events = []
        quiet.socket = StandIn(getsockopt=0)
        quiet.connecting = True
        quiet.handle_connect = lambda: events.append((quiet.connected, quiet.connecting))
        quiet.handle_connect_event()
        assert events == [(False, True)]
        assert quiet.connected
        assert not quiet.connecting
        assert quiet.socket.calls == [("getsockopt", socket.SOL_SOCKET, socket.SO_ERROR)]

    def test_tells_that_it_failed(self, quiet):
        quiet.socket = StandIn(getsockopt=errno.ECONNREFUSED)
        with pytest.raises(ConnectionRefusedError, match=os.strerror(errno.ECONNREFUSED)):
            quiet.handle_connect_event()
        assert not quiet.connected


class TestAnExceptionalEvent:
    def test_is_out_of_band_data_without_an_error(self):
        collecting = Collecting(map={})
        collecting.socket = StandIn(getsockopt=0)
        collecting.handle_expt_event()
        assert collecting.events == ["expt"]

    @pytest.mark.parametrize("sock", [StandIn(getsockopt=errno.EPIPE), None])
    def test_is_the_end_with_an_error_or_without_a_socket(self, sock):
        collecting = Collecting(map={})
        collecting.socket = sock
        collecting.handle_expt_event()
        assert collecting.events == ["close"]


class TestAccepting:
    def test_hands_the_connection_over(self, quiet):
        accepted = []
        quiet.accept = lambda: ("conn", "addr")
        quiet.handle_accepted = lambda *args: accepted.append(args)
        quiet.handle_accept()
        assert accepted == [("conn", "addr")]

    def test_of_nobody_is_nothing(self, quiet):
        quiet.accept = lambda: None
        quiet.handle_accepted = Raises(AssertionError("nobody was accepted"))
        quiet.handle_accept()

    def test_without_a_handler_closes_the_connection(self, quiet, caplog):
        conn = StandIn()
        quiet.handle_accepted(conn, "addr")
        assert conn.calls == [("close",)]
        assert messages(caplog) == [("WARNING", "unhandled accepted event")]


class TestAnError:
    @staticmethod
    def run_into(dispatcher, error):
        try:
            raise error
        except BaseException:
            dispatcher.handle_error()

    def test_is_logged_and_ends_the_object(self):
        collecting, logged = Collecting(map={}), []
        collecting.log_info = lambda *args: logged.append((args, list(collecting.events)))
        self.run_into(collecting, LookupError("nothing there"))
        ((message, kind), events_before), *rest = logged
        assert rest == []
        assert kind == "error"
        assert message.startswith(
            f"uncaptured python exception, closing channel {collecting!r} "
            "(<class 'LookupError'>:nothing there ["
        )
        assert message.endswith("])")
        assert events_before == []
        assert collecting.events == ["close"]

    def test_is_described_by_the_instance_s_own_description(self, quiet):
        logged = []
        quiet.compact_traceback = lambda: (("f", "g", "1"), "Kind", "value", "info")
        quiet.log_info = lambda *args: logged.append(args)
        quiet.handle_close = lambda: None
        self.run_into(quiet, LookupError())
        assert logged[0][0].endswith("(Kind:value info)")

    def test_is_told_of_an_object_that_cannot_name_itself(self):
        class Nameless(Collecting):
            def __repr__(self):
                raise LookupError("no name")

        nameless, logged = Nameless(map={}), []
        nameless.log_info = lambda *args: logged.append(args)
        self.run_into(nameless, ValueError("x"))
        assert f"<__repr__(self) failed for object at {id(nameless):#x}>" in logged[0][0]
        assert nameless.events == ["close"]

    def test_can_be_raised_again_by_those_who_override(self, ours):
        class Strict(Collecting):
            def handle_error(self):
                raise

        strict = Strict(ours, {})
        strict.wants_to_write = True
        strict.handle_write = Raises(LookupError("x"))
        with pytest.raises(LookupError):
            wasyncore.loop(PATIENCE, map=strict._map, count=1)
        strict.close()


class TestCompactTraceback:
    def test_describes_the_exception_being_handled(self):
        def inner():
            raise LookupError("x")

        try:
            inner()
        except LookupError:
            (file, function, line), kind, value, info = wasyncore.compact_traceback()
        assert value.args == ("x",)
        assert (file, function) == (__file__, "inner")
        assert line.isdigit()
        assert kind is LookupError
        frames = re.findall(r"\[([^|\]]+)\|([^|\]]+)\|(\d+)\]", info)
        assert [each[1] for each in frames] == [
            "test_describes_the_exception_being_handled",
            "inner",
        ]
        assert frames[-1] == (file, function, line)
        assert info == " ".join("[{}|{}|{}]".format(*each) for each in frames)

    def test_has_nothing_to_describe_without_one(self):
        with pytest.raises(AssertionError, match=r"^traceback does not exist$"):
            wasyncore.compact_traceback()


class TestCloseAll:
    def test_closes_everything_and_empties_the_map(self):
        objects = [Stranger(), Stranger()]
        socket_map = dict(enumerate(objects))
        wasyncore.close_all(socket_map)
        assert socket_map == {}
        assert [each.events for each in objects] == [["closed"], ["closed"]]

    def test_closes_the_module_s_map_by_default(self, own_map):
        stranger = own_map[3] = Stranger()
        wasyncore.close_all()
        assert own_map == {}
        assert stranger.events == ["closed"]

    def test_takes_an_empty_map_as_it_is(self, own_map):
        own_map[3] = Stranger()
        wasyncore.close_all({})
        assert 3 in own_map

    def test_bears_objects_that_leave_by_themselves(self):
        socket_map = {}
        dispatchers = [Collecting(StandIn(number), socket_map) for number in range(3)]
        wasyncore.close_all(socket_map)
        assert socket_map == {}
        assert all(each.socket is None for each in dispatchers)

    @staticmethod
    def failing(error):
        stranger, other = Stranger(), Stranger()
        stranger.actions["closed"] = Raises(error)
        return {3: stranger, 4: other}, other

    def test_does_not_care_for_what_is_closed_already(self):
        socket_map, other = self.failing(OSError(errno.EBADF))
        wasyncore.close_all(socket_map)
        assert socket_map == {}
        assert other.events == ["closed"]

    @pytest.mark.parametrize("error", [OSError(errno.EIO), OSError(), LookupError()])
    def test_passes_errors_on_unless_told_to_ignore_them(self, error):
        socket_map, _ = self.failing(error)
        with pytest.raises(type(error)):
            wasyncore.close_all(socket_map)
        socket_map, other = self.failing(error)
        wasyncore.close_all(socket_map, ignore_all=True)
        assert socket_map == {}
        assert other.events == ["closed"]

    @pytest.mark.parametrize("end", ENDS)
    @pytest.mark.parametrize("ignore_all", [False, True])
    def test_lets_the_loop_be_ended(self, end, ignore_all):
        socket_map, _ = self.failing(end())
        with pytest.raises(end):
            wasyncore.close_all(socket_map, ignore_all)


# -- files ------------------------------------------------------------------------------------


@pytest.fixture
def pipe():
    reading, writing = os.pipe()
    yield reading, writing
    for fd in (reading, writing):
        with contextlib.suppress(OSError):
            os.close(fd)


class TestAFileWrapper:
    def test_works_on_a_duplicate(self, pipe):
        reading, writing = pipe
        wrapped = wasyncore.file_wrapper(reading)
        assert wrapped.fd == wrapped.fileno() != reading
        os.close(reading)
        os.write(writing, b"abc")
        assert wrapped.recv(2) == b"ab"
        assert wrapped.read(2) == b"c"
        wrapped.close()

    def test_writes(self, pipe):
        reading, writing = pipe
        wrapped = wasyncore.file_wrapper(writing)
        assert wrapped.send(b"ab") == 2
        assert wrapped.write(b"c") == 1
        assert os.read(reading, 9) == b"abc"
        wrapped.close()

    def test_has_no_error_and_no_other_option(self, pipe):
        wrapped = wasyncore.file_wrapper(pipe[0])
        assert wrapped.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        text = r"^Only asyncore specific behaviour implemented\.$"
        for args in [
            (socket.SOL_SOCKET, socket.SO_REUSEADDR),
            (socket.IPPROTO_TCP, socket.SO_ERROR),
            (socket.SOL_SOCKET, socket.SO_ERROR, 4),
        ]:
            with pytest.raises(NotImplementedError, match=text):
                wrapped.getsockopt(*args)
        wrapped.close()

    def test_closes_once(self, pipe):
        wrapped = wasyncore.file_wrapper(pipe[0])
        fd = wrapped.fd
        wrapped.close()
        assert wrapped.fd == wrapped.fileno() == -1
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)
        wrapped.close()

    def test_that_cannot_be_closed_says_so_once(self, pipe):
        wrapped = wasyncore.file_wrapper(pipe[0])
        os.close(wrapped.fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            wrapped.close()
        assert wrapped.fd == -1
        wrapped.close()

    def test_warns_when_it_is_collected_open(self, pipe):
        wrapped = wasyncore.file_wrapper(pipe[0])
        text = re.escape(f"unclosed file {wrapped!r}")
        with pytest.warns(ResourceWarning, match=text):
            wrapped = gc.collect()

    def test_is_silent_when_it_could_not_be_made(self):
        with pytest.raises(OSError, match="Bad file descriptor"):
            wasyncore.file_wrapper(-1)
        gc.collect()


class TestAFileDispatcher:
    def test_takes_a_descriptor(self, pipe):
        reading, writing = pipe
        socket_map = {}
        dispatcher = wasyncore.file_dispatcher(reading, socket_map)
        assert dispatcher.connected
        assert isinstance(dispatcher.socket, wasyncore.file_wrapper)
        assert socket_map == {dispatcher.socket.fd: dispatcher}
        assert os.get_blocking(reading) is False
        os.write(writing, b"abc")
        assert dispatcher.recv(9) == b"abc"
        dispatcher.close()
        assert socket_map == {}
        os.fstat(reading)

    def test_takes_an_object_that_has_one(self, pipe, own_map):
        reading, _ = pipe
        with open(reading, "rb", buffering=0, closefd=False) as file:
            dispatcher = wasyncore.file_dispatcher(file)
            assert own_map == {dispatcher._fileno: dispatcher}
            dispatcher.close()

    def test_can_be_given_another(self, pipe):
        reading, writing = pipe
        socket_map = {}
        dispatcher = wasyncore.file_dispatcher(reading, socket_map)
        dispatcher.close()
        dispatcher.set_file(writing)
        assert socket_map == {dispatcher._fileno: dispatcher}
        assert dispatcher.send(b"x") == 1
        dispatcher.close()

    def test_that_cannot_be_made_leaves_nothing_behind(self):
        socket_map = {}
        with pytest.raises(OSError, match="Bad file descriptor"):
            wasyncore.file_dispatcher(10_000_000, socket_map)
        assert socket_map == {}
        gc.collect()

    def test_has_out_of_band_data_handled_where_there_can_be_none(self, pipe, caplog):
        dispatcher = wasyncore.file_dispatcher(pipe[0], {})
        dispatcher.handle_expt_event()
        assert messages(caplog) == [("WARNING", "unhandled incoming priority event")]
        dispatcher.close()


# -- foreign threads ---------------------------------------------------------------------------


class TestAnotherThread:
    @pytest.mark.parametrize("use_poll", [False, True])
    def test_may_close_dispatchers_of_a_loop_that_waits(self, use_poll, socket_map, pair):
        asked = threading.Event()

        class Waiting(Collecting):
            def readable(self):
                asked.set()
                return True

        dispatchers = [Waiting(each, socket_map) for each in pair]
        running = InThread(wasyncore.loop, 0.02, use_poll, socket_map)
        await_event(asked)
        for each in dispatchers:
            each.close()
        running.result()
        assert socket_map == {}

    @pytest.mark.parametrize("use_poll", [False, True])
    def test_may_close_sockets_behind_the_back_of_a_loop_that_waits(
        self, use_poll, socket_map, pair
    ):
        asked = threading.Event()

        class Waiting(Collecting):
            def readable(self):
                asked.set()
                return True

        dispatchers = [Waiting(each, socket_map) for each in pair]
        running = InThread(wasyncore.loop, 0.02, use_poll, socket_map)
        await_event(asked)
        for each in pair:
            each.close()
        running.result()
        assert socket_map == {}
        assert [each.events[-1] for each in dispatchers] == ["close", "close"]

    def test_may_close_all_while_the_loop_waits(self, socket_map, pair):
        asked = threading.Event()
        strangers = []
        for each in pair:
            strangers.append(Stranger())
            strangers[-1].actions["readable"] = asked.set
            socket_map[each.fileno()] = strangers[-1]
        running = InThread(wasyncore.loop, 0.02, False, socket_map)
        await_event(asked)
        wasyncore.close_all(socket_map)
        running.result()
        assert [each.events for each in strangers] == [["closed"], ["closed"]]


def test_objects_of_ours_find_their_loop_through_the_module():
    socket_map = wasyncore.SocketMap()
    event_loop = wasyncore.event_loop_of(socket_map)
    assert isinstance(event_loop, wasyncore.EventLoop)
    assert isinstance(event_loop.deadlines, Deadlines)
    assert wasyncore.event_loop_of(socket_map) is event_loop
