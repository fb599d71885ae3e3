"""The four ways to wait, behind one interface."""

from __future__ import annotations

import errno
import os
import select
import socket
import threading
from types import SimpleNamespace

import pytest

from tests.looping import InThread, load_elsewhere
from waitress import pollers
from waitress.pollers import (
    HANGUP,
    INVALID,
    PEER_CLOSED,
    PRIORITY,
    READ,
    WRITE,
    EpollPoller,
    KqueuePoller,
    PollPoller,
    SelectPoller,
    best_poller,
    descriptor_limit,
)

pytestmark = pytest.mark.usefixtures("no_leaks")


class FakeKqueueModule:
    """As much of ``select`` as BSD has, on top of ``poll()``."""

    KQ_FILTER_READ, KQ_FILTER_WRITE = -1, -2
    KQ_EV_ADD, KQ_EV_DELETE, KQ_EV_EOF = 1, 2, 0x8000

    def __init__(self):
        self.queues = []

    def kevent(self, ident, filter, flags):
        return SimpleNamespace(ident=ident, filter=filter, flags=flags)

    def kqueue(self):
        self.queues.append(FakeKqueue())
        return self.queues[-1]


class FakeKqueue:
    def __init__(self):
        self.registered = set()
        self.is_closed = False
        self.waits = []

    def close(self):
        self.is_closed = True

    def control(self, changes, max_events, timeout=None):
        for change in changes or ():
            key = change.ident, change.filter
            if change.flags == FakeKqueueModule.KQ_EV_ADD:
                os.fstat(change.ident)
                self.registered.add(key)
            elif key in self.registered:
                self.registered.remove(key)
            else:
                raise FileNotFoundError(errno.ENOENT, "no such event")
        if not max_events:
            return []
        self.waits.append((max_events, timeout))
        return list(self._ready(timeout))[:max_events]

    def _ready(self, timeout):
        module = FakeKqueueModule
        masks = {fd: 0 for fd, _ in self.registered}
        for fd, kq_filter in self.registered:
            masks[fd] |= WRITE if kq_filter == module.KQ_FILTER_WRITE else READ | PEER_CLOSED
        poll = select.poll()
        for fd, mask in masks.items():
            poll.register(fd, mask)
        for fd, flags in poll.poll(None if timeout is None else timeout * 1000):
            if flags & (READ | HANGUP) and (fd, module.KQ_FILTER_READ) in self.registered:
                eof = module.KQ_EV_EOF if flags & (PEER_CLOSED | HANGUP) else 0
                yield SimpleNamespace(ident=fd, filter=module.KQ_FILTER_READ, flags=eof)
            if flags & WRITE and (fd, module.KQ_FILTER_WRITE) in self.registered:
                eof = module.KQ_EV_EOF if flags & HANGUP else 0
                yield SimpleNamespace(ident=fd, filter=module.KQ_FILTER_WRITE, flags=eof)


KINDS = {
    "epoll": EpollPoller,
    "kqueue": lambda: KqueuePoller(FakeKqueueModule()),
    "poll": PollPoller,
    "select": SelectPoller,
}


@pytest.fixture(params=KINDS)
def poller(request):
    made = KINDS[request.param]()
    yield made
    made.close()


def ready(poller, sock, timeout=0):
    """Return what is told of a socket, without what only some systems tell."""
    told = dict(poller.poll(timeout))
    assert set(told) <= {sock.fileno()}
    return told.get(sock.fileno(), 0) & (READ | WRITE)


class TestEveryPoller:
    def test_tells_nothing_when_nothing_is_ready(self, poller, ours):
        poller.register(ours.fileno(), READ)
        assert poller.poll(0) == []

    def test_waits_no_longer_than_it_is_told_to(self, poller, ours):
        poller.register(ours.fileno(), READ)
        assert poller.poll(0.001) == []

    def test_tells_what_can_be_read(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ)
        theirs.send(b"x")
        assert ready(poller, ours, 5) == READ

    def test_tells_it_again_until_it_was_read(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ)
        theirs.send(b"x")
        assert ready(poller, ours, 5) == READ
        assert ready(poller, ours, 5) == READ
        ours.recv(1)
        assert ready(poller, ours) == 0

    def test_tells_what_can_be_written(self, poller, ours):
        poller.register(ours.fileno(), WRITE)
        assert ready(poller, ours, 5) == WRITE

    def test_tells_both_at_once(self, poller, ours, theirs):
        theirs.send(b"x")
        poller.register(ours.fileno(), READ)
        assert ready(poller, ours, 5) == READ
        poller.modify(ours.fileno(), READ | WRITE)
        assert ready(poller, ours, 5) == READ | WRITE

    def test_tells_only_what_is_watched_for(self, poller, ours, theirs):
        theirs.send(b"x")
        poller.register(ours.fileno(), READ | WRITE)
        assert ready(poller, ours, 5) == READ | WRITE
        poller.modify(ours.fileno(), WRITE)
        assert ready(poller, ours, 5) == WRITE
        poller.modify(ours.fileno(), READ)
        assert ready(poller, ours, 5) == READ

    def test_modifying_to_the_same_changes_nothing(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ)
        poller.modify(ours.fileno(), READ)
        theirs.send(b"x")
        assert ready(poller, ours, 5) == READ

    def test_tells_nothing_of_what_is_no_longer_watched(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ)
        theirs.send(b"x")
        poller.unregister(ours.fileno())
        assert poller.poll(0) == []

    def test_tells_the_end_of_the_stream_as_something_to_read(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ | PEER_CLOSED)
        theirs.shutdown(socket.SHUT_WR)
        assert ready(poller, ours, 5) == READ

    def test_waits_without_end_until_something_comes(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ)
        begun = threading.Event()

        def wait():
            begun.set()
            return ready(poller, ours, None)

        waiting = InThread(wait)
        assert begun.wait(5)
        theirs.send(b"x")
        assert waiting.result() == READ

    def test_refuses_a_number_that_is_no_descriptor(self, poller):
        with pytest.raises((OSError, ValueError)):
            poller.register(-1, READ)


@pytest.mark.parametrize("kind", ["epoll", "kqueue", "poll"])
def test_unregistering_a_stranger_is_an_os_error(kind, ours):
    poller = KINDS[kind]()
    try:
        if kind == "kqueue":  # It knows by itself that there is nothing to do.
            poller.unregister(ours.fileno())
        else:
            with pytest.raises(FileNotFoundError):
                poller.unregister(ours.fileno())
    finally:
        poller.close()


def test_select_forgets_a_stranger_silently(ours):
    SelectPoller().unregister(ours.fileno())


@pytest.mark.parametrize("kind", ["epoll", "poll"])
def test_peer_that_sends_no_more_is_told_without_reading(kind, ours, theirs):
    poller = KINDS[kind]()
    try:
        poller.register(ours.fileno(), PEER_CLOSED)
        assert poller.poll(0) == []
        theirs.shutdown(socket.SHUT_WR)
        assert poller.poll(5) == [(ours.fileno(), PEER_CLOSED)]
    finally:
        poller.close()


class TestEpoll:
    def test_refuses_plain_files(self, tmp_path):
        poller = EpollPoller()
        try:
            with open(tmp_path / "file", "w") as file, pytest.raises(PermissionError):
                poller.register(file.fileno(), READ)
        finally:
            poller.close()

    def test_holds_a_descriptor_until_closed(self):
        poller = EpollPoller()
        poller.close()
        with pytest.raises(ValueError, match="closed"):
            poller.poll(0)


class TestPoll:
    def test_rounds_the_wait_up(self, monkeypatch):
        waits = []
        poll = SimpleNamespace(
            poll=lambda ms: waits.append(ms) or [], register=None, modify=None, unregister=None
        )
        poller = PollPoller(SimpleNamespace(poll=lambda: poll))
        for timeout in (0, 0.0001, 0.0011, None):
            poller.poll(timeout)
        assert waits == [0, 1, 2, None]

    def test_tells_of_a_descriptor_that_was_closed(self, pair):
        ours, _ = pair
        poller, fd = PollPoller(), ours.fileno()
        poller.register(fd, READ)
        ours.close()
        assert poller.poll(0) == [(fd, INVALID)]


class TestSelect:
    def test_tells_out_of_band_data(self, ours, theirs):
        poller = SelectPoller()
        poller.register(ours.fileno(), READ | PRIORITY)
        theirs.send(b"x", socket.MSG_OOB)
        assert poller.poll(5) == [(ours.fileno(), PRIORITY)]

    def test_fails_as_a_whole_when_a_descriptor_was_closed(self, pair):
        ours, _ = pair
        poller = SelectPoller()
        poller.register(ours.fileno(), READ)
        ours.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            poller.poll(0)

    def test_sleeps_when_there_is_nothing_to_wait_for(self, ours, monkeypatch):
        """Windows refuses to select nothing."""
        slept = []
        monkeypatch.setattr(pollers.time, "sleep", slept.append)
        poller = SelectPoller()
        assert poller.poll(0.25) == []
        poller.register(ours.fileno(), 0)
        assert poller.poll(0.5) == []
        assert slept == [0.25, 0.5]

    def test_refuses_a_number_that_would_make_every_wait_fail(self):
        with pytest.raises(OSError, match="1024"):
            SelectPoller().register(1024, READ)
        SelectPoller().register(1023, READ)

    def test_on_windows_the_count_is_limited_and_not_the_number(self, monkeypatch):
        elsewhere = load_elsewhere(monkeypatch, pollers, os_name="nt")
        assert elsewhere.SelectPoller.descriptor_limit == 512
        elsewhere.SelectPoller().register(70000, READ)
        with pytest.raises(OSError, match="-1"):
            elsewhere.SelectPoller().register(-1, READ)


class TestKqueue:
    @pytest.fixture
    def module(self):
        return FakeKqueueModule()

    @pytest.fixture
    def poller(self, module):
        return KqueuePoller(module)

    def test_end_of_the_stream_is_told_beside_what_can_be_read(self, poller, ours, theirs):
        poller.register(ours.fileno(), READ)
        theirs.shutdown(socket.SHUT_WR)
        assert poller.poll(5) == [(ours.fileno(), READ | PEER_CLOSED)]

    def test_end_of_writing_is_a_hangup(self, poller, ours, theirs):
        poller.register(ours.fileno(), WRITE)
        ours.shutdown(socket.SHUT_WR)
        theirs.shutdown(socket.SHUT_WR)
        assert poller.poll(5) == [(ours.fileno(), HANGUP)]

    def test_asks_for_as_many_events_as_there_can_be(self, poller, module, pair):
        poller.poll(0)
        for each in pair:
            poller.register(each.fileno(), READ)
        poller.poll(0.001)
        assert module.queues[0].waits == [(1, 0), (4, 0.001)]

    def test_forgets_a_descriptor_that_was_closed_first(self, poller, module, ours):
        fd = ours.fileno()
        poller.register(fd, READ)
        module.queues[0].registered.clear()  # As the kernel does when it is closed.
        with pytest.raises(FileNotFoundError):
            poller.unregister(fd)
        poller.register(fd, READ)
        assert module.queues[0].registered == {(fd, module.KQ_FILTER_READ)}

    def test_close_closes_the_queue(self, poller, module):
        poller.close()
        assert module.queues[0].is_closed


class TestTheBestPoller:
    def test_is_the_platform_s(self):
        poller = best_poller()
        try:
            assert isinstance(poller, EpollPoller)
        finally:
            poller.close()
        assert descriptor_limit() is None

    @pytest.mark.parametrize(
        ("names", "kind", "limit"),
        [
            (("epoll", "poll", "select"), EpollPoller, None),
            (("kqueue", "poll", "select"), KqueuePoller, None),
            (("poll", "select"), PollPoller, None),
            (("select",), SelectPoller, 1024),
        ],
    )
    def test_is_the_best_that_the_module_offers(self, names, kind, limit):
        """gevent takes away what it cannot replace."""
        fake = FakeKqueueModule()
        module = SimpleNamespace(
            **{name: getattr(select, name, getattr(fake, name, None)) for name in names}
        )
        poller = best_poller(module)
        try:
            assert isinstance(poller, kind)
        finally:
            poller.close()
        assert descriptor_limit(module) == limit


def test_select_refuses_what_it_cannot_watch_before_a_wait_fails(monkeypatch):
    monkeypatch.setattr(SelectPoller, "descriptor_limit", 2)
    poller = SelectPoller()
    poller.register(3, READ)
    poller.register(4, READ)
    with pytest.raises(OSError, match="more descriptors"):
        poller.register(5, READ)
    poller.modify(4, WRITE)
    poller.unregister(3)
    poller.register(5, READ)
