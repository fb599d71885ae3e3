"""Waking the loop from any thread, through a pipe and through a connection."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import socket
import sys
import threading

import pytest

from tests.looping import PATIENCE, InThread, Stranger, load_elsewhere
from waitress import trigger as trigger_module
from waitress import wasyncore
from waitress.pollers import HANGUP, READ
from waitress.trigger import _triggerbase, socket_trigger, trigger

pytestmark = pytest.mark.usefixtures("no_leaks")

KINDS = {"pipe": trigger, "loopback": socket_trigger}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture(params=[wasyncore.SocketMap, dict], ids=["our map", "a dict"])
def socket_map(request):
    made = request.param()
    yield made
    wasyncore.close_all(made)
    gc.collect()


@pytest.fixture
def pulled(kind, socket_map):
    """A trigger in a map."""
    return kind(socket_map)


def one_pass(socket_map, timeout=0.0):
    wasyncore.loop(timeout, map=socket_map, count=1)


class LoopInThread:
    """A loop that runs in a thread; ``waits`` tells that it is about to wait."""

    def __init__(self, socket_map):
        self.map = socket_map
        self.thread = InThread(wasyncore.loop, PATIENCE, False, socket_map)

    def call(self, pulled, function):
        """Return what the function returns in the loop's thread."""
        result, done = [], threading.Event()

        def thunk():
            result.append(function())
            done.set()

        pulled.pull_trigger(thunk)
        assert done.wait(PATIENCE), "nobody ran the thunk"
        return result[0]


def fill(fd, size):
    """Write until the kernel takes no more."""
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(fd, b"x" * size)


class TestATrigger:
    def test_stands_in_its_map_under_the_number_of_its_reading_end(self, pulled, socket_map):
        assert socket_map == {pulled.socket.fileno(): pulled}
        assert pulled._fileno == pulled.socket.fileno()

    def test_has_what_those_who_look_from_outside_know(self, pulled):
        assert pulled._closed is False
        assert pulled.thunks == []
        with pulled.lock:
            pass

    def test_is_of_its_kind(self, socket_map):
        assert _triggerbase.kind is None
        assert trigger.kind == "pipe"
        assert issubclass(trigger, wasyncore.file_dispatcher)
        assert socket_trigger.kind == "loopback"
        assert issubclass(socket_trigger, wasyncore.dispatcher)

    def test_reads_and_never_writes(self, pulled):
        assert pulled.readable() is True
        assert pulled.writable() is False
        assert pulled.handle_connect() is None

    def test_does_not_block(self, pulled):
        with pytest.raises(BlockingIOError):
            pulled.recv(1)

    def test_is_of_the_kind_that_the_platform_can_poll(self, monkeypatch):
        elsewhere = load_elsewhere(monkeypatch, trigger_module, os_name="nt")
        assert elsewhere.trigger is elsewhere.socket_trigger
        made = elsewhere.trigger({})
        assert made.kind == "loopback"
        made.close()


class TestPulling:
    def test_returns_nothing(self, pulled):
        assert pulled.pull_trigger() is None

    def test_makes_something_to_read(self, pulled):
        pulled._physical_pull()
        assert pulled.recv(8192) == b"x"

    def test_ends_the_wait(self, pulled, socket_map):
        pulled.pull_trigger()
        InThread(one_pass, socket_map, PATIENCE * 10).result()
        with pytest.raises(BlockingIOError):
            pulled.recv(1)

    def test_ends_the_wait_of_another_thread(self, pulled, socket_map):
        running = LoopInThread(socket_map)
        assert running.call(pulled, threading.get_ident) == running.thread.thread.ident
        running.call(pulled, pulled.close)
        running.thread.result()

    def test_writes_once_for_many_pulls_while_nobody_reads(self, pulled):
        for _ in range(10):
            pulled.pull_trigger()
        assert pulled.recv(8192) == b"x"

    def test_writes_again_when_the_loop_has_woken(self, pulled, socket_map):
        for _ in range(3):
            pulled.pull_trigger()
            one_pass(socket_map)
        pulled.pull_trigger()
        assert pulled.recv(8192) == b"x"

    def test_writes_nothing_while_the_loop_is_awake(self, pulled, socket_map):
        """What is put on its queue is seen before it waits again."""
        written = []
        pulled._physical_pull = lambda: written.append("x")
        thunks = []
        pulled.pull_trigger(lambda: pulled.pull_trigger(lambda: thunks.append("ran")))
        assert written == ["x"]
        one_pass(socket_map)
        one_pass(socket_map)
        assert written == ["x"]
        assert thunks == ["ran"]

    def test_never_waits_for_room(self, pulled):
        writing = pulled.trigger if pulled.kind == "pipe" else pulled.trigger.fileno()
        for size in (65536, 1):
            fill(writing, size)
        with pytest.raises(BlockingIOError):
            pulled._physical_pull()
        assert pulled.pull_physically_threadsafe() is True

    def test_is_told_by_every_error_but_that(self, pulled):
        def fail():
            raise OSError(errno.EIO, "broken")

        pulled._physical_pull = fail
        with pytest.raises(OSError, match="broken"):
            pulled.pull_trigger()

    def test_after_the_end_is_silent(self, pulled):
        pulled.close()
        ran = []
        assert pulled.pull_trigger() is None
        assert pulled.pull_trigger(lambda: ran.append(1)) is None
        assert pulled.thunks == []
        assert pulled.pull_physically_threadsafe() is False

    def test_after_the_end_wakes_the_loop_through_another_server_s(self, kind, socket_map):
        closed, other = kind(socket_map), kind(socket_map)
        one_pass(socket_map)
        closed.close()
        closed.pull_trigger()
        assert other.recv(8192) == b"x"

    def test_after_the_end_does_not_keep_others_from_waking_the_loop(self, kind, socket_map):
        """A claim to wake the loop that cannot be fulfilled is given back."""
        closed = kind(socket_map)
        closed.close()
        closed.pull_trigger()
        late = kind(socket_map)
        event_loop = wasyncore.event_loop_of(socket_map)
        if late.event_loop is event_loop is closed.event_loop:
            late.pull_trigger()
            assert late.recv(8192) == b"x"

    def test_by_a_waker_wakes_through_all_that_there_are(self, kind, socket_map):
        """One of them may have been taken out of the map without being closed."""
        lost, other = kind(socket_map), kind(socket_map)
        del socket_map[lost._fileno]
        other.event_loop.wake_threadsafe()
        assert other.recv(8192) == b"x"
        lost.close()


class TestThunks:
    def test_run_in_the_loop_in_order(self, pulled, socket_map):
        ran = []
        for number in range(3):
            pulled.pull_trigger(lambda number=number: ran.append(number))
        assert ran == []
        one_pass(socket_map)
        assert ran == [0, 1, 2]
        assert pulled.thunks == []
        one_pass(socket_map)
        assert ran == [0, 1, 2]

    def test_wait_in_a_list_under_the_lock(self, pulled):
        thunk = int
        pulled.pull_trigger(thunk)
        assert pulled.thunks == [thunk]

    @pytest.mark.parametrize("name", ["poll", "poll2"])
    def test_run_for_those_who_poll_by_themselves(self, pulled, socket_map, name):
        ran = []
        for number in range(3):
            pulled.pull_trigger(lambda number=number: ran.append(number))
            getattr(wasyncore, name)(0, socket_map)
        assert ran == [0, 1, 2]

    def test_run_when_somebody_calls_the_handler(self, pulled):
        ran = []
        pulled.pull_trigger(lambda: ran.append(1))
        pulled.handle_read_event()
        assert ran == [1]

    @pytest.mark.parametrize("error", [LookupError, GeneratorExit])
    def test_that_raise_are_reported_and_the_rest_runs(self, pulled, socket_map, error):
        def broken():
            raise error("nothing there")

        ran, logged = [], []
        pulled.log_info = logged.append
        pulled.pull_trigger(broken)
        pulled.pull_trigger(lambda: ran.append(1))
        one_pass(socket_map)
        assert ran == [1]
        assert len(logged) == 1
        assert logged[0].startswith(
            f"exception in trigger thunk: (<class '{error.__name__}'>:nothing there ["
        )
        assert pulled.thunks == []

    def test_can_end_the_loop_and_lose_none_of_the_rest(self, pulled, socket_map):
        def interrupt():
            raise KeyboardInterrupt

        ran = []
        pulled.pull_trigger(interrupt)
        pulled.pull_trigger(lambda: ran.append(1))
        with pytest.raises(KeyboardInterrupt):
            one_pass(socket_map)
        pulled.pull_trigger()
        one_pass(socket_map)
        assert ran == [1]

    def test_that_pull_the_trigger_again_do_not_hold_up_the_pass(self, pulled, socket_map):
        ran = []

        def again():
            ran.append(1)
            pulled.pull_trigger(again)

        pulled.pull_trigger(again)
        one_pass(socket_map)
        before = len(ran)
        one_pass(socket_map)
        assert 0 < before < len(ran) < 10

    def test_may_poll(self, pulled, socket_map):
        ran = []
        pulled.pull_trigger(lambda: pulled.handle_ready())
        pulled.pull_trigger(lambda: ran.append(1))
        one_pass(socket_map)
        assert ran == [1]
        assert not pulled._closed

    def test_may_close_the_trigger(self, pulled, socket_map):
        pulled.pull_trigger(pulled.close)
        one_pass(socket_map)
        assert socket_map == {}

    def test_do_not_run_without_something_to_read(self, pulled):
        """As subclasses and direct callers have it."""
        ran = []
        pulled.thunks.append(lambda: ran.append(1))
        pulled.handle_read()
        assert ran == []


class TestClosing:
    def test_leaves_the_map_and_nothing_behind(self, pulled, socket_map):
        reading = pulled.socket.fileno()
        assert pulled.close() is None
        assert socket_map == {}
        assert pulled._closed is True
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(reading)

    def test_can_be_repeated(self, pulled):
        pulled.close()
        pulled.close()
        pulled.handle_close()

    def test_of_a_pipe_closes_both_of_its_ends(self):
        made = trigger({})
        reading, writing = made._fds
        assert made.trigger == writing
        made.close()
        assert tuple(made._fds) == ()
        for fd in (reading, writing):
            with pytest.raises(OSError, match="Bad file descriptor"):
                os.read(fd, 1)

    def test_comes_with_the_end_of_the_stream(self, socket_map):
        made = socket_trigger(socket_map)
        made.trigger.close()
        one_pass(socket_map)
        assert made._closed
        assert socket_map == {}

    def test_amid_the_event_is_not_an_error(self, pulled, caplog):
        pulled._physical_pull()
        pulled.close()
        pulled.handle_read_event()
        pulled.handle_events(READ)
        pulled.handle_events(READ | HANGUP)
        assert caplog.records == []

    def test_from_another_thread_ends_the_loop(self, pulled, socket_map):
        thread = InThread(wasyncore.loop, 0.01, False, socket_map)
        pulled.pull_trigger()
        pulled.close()
        thread.result()
        assert socket_map == {}

    def test_takes_it_off_the_wakers_of_the_loop(self, pulled):
        event_loop = pulled.event_loop
        assert event_loop.wakers == [pulled]
        pulled.close()
        assert event_loop.wakers == []


class TestMaking:
    def test_that_fails_leaves_nothing_behind(self, monkeypatch):
        def refuse(fd):
            raise OSError(errno.EMFILE, "Too many open files")

        monkeypatch.setattr(os, "dup", refuse)
        socket_map = {}
        with pytest.raises(OSError, match="Too many"):
            trigger(socket_map)
        assert socket_map == {}
        gc.collect()

    def test_in_the_module_s_map_is_the_default(self, kind, monkeypatch):
        own = {}
        monkeypatch.setattr(wasyncore, "socket_map", own)
        made = kind(None)
        assert own == {made._fileno: made}
        made.close()


class TestTheLoopback:
    @staticmethod
    def sockets(monkeypatch, connect):
        """Have sockets connect in the way that is given."""

        class Socket(socket.socket):
            def connect(self, address):
                connect(self, address)
                super().connect(address)

        monkeypatch.setattr(trigger_module.socket, "socket", Socket)

    def test_sends_at_once(self):
        made = socket_trigger({})
        assert made.trigger.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert made.connected
        made.close()

    def test_tries_another_port_when_one_cannot_be_used(self, monkeypatch):
        tried = []

        def refuse_twice(sock, address):
            tried.append(address)
            if len(tried) < 3:
                raise OSError(errno.EADDRINUSE, "Address already in use")

        self.sockets(monkeypatch, refuse_twice)
        made = socket_trigger({})
        made._physical_pull()
        assert made.recv(9) == b"x"
        made.close()
        assert len(tried) == 3

    def test_gives_up_after_ten(self, monkeypatch):
        tried = []

        def refuse(sock, address):
            tried.append(address)
            raise OSError(errno.EADDRINUSE, "Address already in use")

        self.sockets(monkeypatch, refuse)
        with pytest.raises(RuntimeError, match=r"^Cannot bind trigger!$"):
            socket_trigger({})
        assert len(tried) == 10

    def test_is_told_by_every_error_but_that(self, monkeypatch):
        def fail(sock, address):
            raise OSError(errno.ENETDOWN, "Network is down")

        self.sockets(monkeypatch, fail)
        with pytest.raises(OSError, match="down"):
            socket_trigger({})

    def test_is_never_with_a_stranger(self, monkeypatch):
        strangers = []

        def let_a_stranger_in_first(sock, address):
            intruder = original()
            strangers.append(intruder)
            intruder.connect(address)

        original = socket.socket
        self.sockets(monkeypatch, let_a_stranger_in_first)
        made = socket_trigger({})
        monkeypatch.undo()
        made._physical_pull()
        assert made.recv(9) == b"x"
        assert strangers[0].recv(9) == b""
        strangers[0].close()
        made.close()


class TestAnOutsideSubclass:
    """Written against the base alone, with a loop that knows nothing of us."""

    class Own(_triggerbase, wasyncore.dispatcher):
        def __init__(self, socket_map):
            _triggerbase.__init__(self)
            self.pulls = 0
            ours, self.trigger = socket.socketpair()
            wasyncore.dispatcher.__init__(self, ours, socket_map)

        def _physical_pull(self):
            self.pulls += 1
            self.trigger.send(b"x")

        def _close(self):
            self.trigger.close()
            wasyncore.dispatcher.close(self)

    def test_is_pulled_physically_every_time(self, socket_map):
        own = self.Own(socket_map)
        own.pull_trigger()
        own.pull_trigger()
        assert own.pulls == 2

    def test_runs_its_thunks(self, socket_map):
        own, ran = self.Own(socket_map), []
        own.pull_trigger(lambda: ran.append(1))
        one_pass(socket_map)
        assert ran == [1]

    def test_closes(self, socket_map):
        own = self.Own(socket_map)
        own.close()
        assert socket_map == {}

    def test_must_say_how_it_is_pulled_and_closed(self):
        bare = _triggerbase()
        with pytest.raises(NotImplementedError):
            bare._physical_pull()
        with pytest.raises(NotImplementedError):
            bare._close()


def test_writing_end_can_be_replaced(socket_map):
    made = trigger(socket_map)
    reading, writing = os.pipe()
    original, made.trigger = made.trigger, writing
    made.pull_trigger()
    assert os.read(reading, 9) == b"x"
    made.trigger = original
    os.close(reading)
    os.close(writing)


@pytest.mark.stress
def test_no_wake_up_is_ever_missed(kind, socket_map):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    made = kind(socket_map)
    loop = InThread(wasyncore.loop, PATIENCE, False, socket_map)
    count = 1500

    class Touched(Stranger):
        touched = False

        def __init__(self):
            super().__init__()
            self.seen = threading.Semaphore(0)

        def handle_ready(self):
            self.seen.release()

    def pull():
        own = Touched()
        for _ in range(count):
            made.event_loop.touch_threadsafe(own)
            made.pull_trigger()
            assert own.seen.acquire(timeout=PATIENCE / 2), "a wake-up was missed"

    try:
        for each in [InThread(pull) for _ in range(4)]:
            each.result()
    finally:
        sys.setswitchinterval(interval)
        made.pull_trigger(made.close)
        loop.result()
