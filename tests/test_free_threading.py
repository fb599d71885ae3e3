"""What the loop does differently where threads run at the same time."""

from __future__ import annotations

import sys
import threading
from typing import Any

import pytest

from tests.compat.live import Running, hello
from tests.looping import InThread
from waitress import create_server
from waitress.eventloop import EventLoop, FencedEventLoop, SocketMap, event_loop_of

pytestmark = pytest.mark.usefixtures("no_leaks")


class Touched:
    """Something for the ready queue."""

    def __init__(self) -> None:
        self.touched = False
        self.looked = 0

    def handle_ready(self) -> None:
        self.looked += 1

    def handle_error(self) -> None:
        raise AssertionError("nothing goes wrong here")


def waits_for(lock: Any, step: Any) -> bool:
    """Say whether a step, in another thread, ends only when a lock is free."""
    ended = threading.Event()

    def run() -> None:
        step()
        ended.set()

    thread = threading.Thread(target=run)
    with lock:
        thread.start()
        waited = not ended.wait(0.05)
    thread.join()
    return waited and ended.is_set()


def test_loop_is_chosen_by_what_the_interpreter_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert type(event_loop_of(SocketMap())) is FencedEventLoop
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)
    assert type(event_loop_of(SocketMap())) is EventLoop
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert type(event_loop_of(SocketMap())) is EventLoop


def test_flag_is_read_and_written_under_the_lock() -> None:
    loop = FencedEventLoop()
    assert waits_for(loop.flag_lock, lambda: loop.is_awake)
    assert waits_for(loop.flag_lock, lambda: setattr(loop, "is_awake", True))
    assert loop.is_awake


def test_touching_and_taking_happen_under_the_lock() -> None:
    loop = FencedEventLoop()
    obj = Touched()
    assert waits_for(loop.flag_lock, lambda: loop.touch_threadsafe(obj))
    assert obj.touched
    assert list(loop.ready) == [obj]
    assert waits_for(loop.flag_lock, loop.ready.popleft)
    assert not obj.touched


def test_signal_may_touch_while_the_thread_that_it_interrupts_does() -> None:
    loop = FencedEventLoop()
    obj = Touched()
    InThread(lambda: touch_within(loop, obj)).result()
    assert list(loop.ready) == [obj]


def touch_within(loop: FencedEventLoop, obj: Touched) -> None:
    """Do what a handler does that comes while its thread has the lock."""
    with loop.flag_lock:
        loop.touch_threadsafe(obj)


def test_touching_says_whether_the_loop_has_to_be_woken() -> None:
    loop = FencedEventLoop()
    obj = Touched()
    assert loop.touch_threadsafe(obj)
    loop.is_awake = True
    assert not loop.touch_threadsafe(obj)
    assert list(loop.ready) == [obj]
    loop.drain_ready()
    assert obj.looked == 1


def test_server_serves_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    server = create_server(hello, host="127.0.0.1", port=0)
    assert type(server._event_loop) is FencedEventLoop
    running = Running(server)
    with running.connect() as wire:
        for _ in range(20):
            assert wire.get("/").body == b"hello"
    running.stop()
