"""Where an idle thread sleeps, and that it is woken."""

from __future__ import annotations

import _thread
import ctypes
import sys
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.looping import PATIENCE, InThread
from waitress import parking
from waitress.parking import Parker, has_semaphores

needs_semaphores = pytest.mark.skipif(
    not has_semaphores(), reason="threads do not sleep on semaphores here"
)


@pytest.fixture(params=[False, pytest.param(True, marks=needs_semaphores)], ids=["lock", "sem"])
def parker(request: pytest.FixtureRequest) -> Parker:
    return Parker(request.param)


@pytest.fixture
def library_is_asked_for_again() -> Iterator[None]:
    parking._c_library.cache_clear()
    yield
    parking._c_library.cache_clear()


def sleeps(sleeper: InThread) -> bool:
    sleeper.thread.join(0.01)
    return sleeper.thread.is_alive()


@pytest.mark.parametrize("way", ["unpark", "unpark_and_leave"])
class TestWakeUp:
    def test_ends_a_sleep(self, parker: Parker, way: str) -> None:
        sleeper = InThread(parker.park)
        assert sleeps(sleeper)
        getattr(parker, way)()
        sleeper.result()

    def test_is_kept_for_the_next_sleep(self, parker: Parker, way: str) -> None:
        getattr(parker, way)()
        InThread(parker.park).result()
        sleeper = InThread(parker.park)
        assert sleeps(sleeper)
        parker.unpark()
        sleeper.result()

    def test_may_come_twice(self, parker: Parker, way: str) -> None:
        getattr(parker, way)()
        getattr(parker, way)()
        InThread(parker.park).result()

    @needs_semaphores
    def test_leaves_the_interpreter_or_keeps_it(self, way: str) -> None:
        """A thread that waits for the interpreter gets it meanwhile, or it does not."""
        parker, may_go, passed = Parker(True), threading.Lock(), threading.Event()
        wake, leaves = getattr(parker, way), way == "unpark_and_leave"
        may_go.acquire()
        other = InThread(lambda: may_go.acquire() and passed.set())
        assert sleeps(other)
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1000)  # Nobody is made to leave it.
        try:
            may_go.release()
            deadline = time.monotonic() + (PATIENCE if leaves else 0.1)
            while not passed.is_set() and time.monotonic() < deadline:
                wake()
            has_left = passed.is_set()
        finally:
            sys.setswitchinterval(interval)
        other.result()
        assert has_left is leaves


@needs_semaphores
@pytest.mark.usefixtures("library_is_asked_for_again")
class TestLockInsteadOfASemaphore:
    @pytest.mark.parametrize(
        ("name", "fault"),
        [
            ("CDLL", OSError("cannot open shared object file")),
            ("PyDLL", MemoryError()),
            ("CDLL", None),
        ],
        ids=["not opened", "forbidden", "without semaphores"],
    )
    def test_is_used_where_the_library_is_not_had(
        self, monkeypatch: pytest.MonkeyPatch, name: str, fault: Exception | None
    ) -> None:
        def load(_: object) -> Any:
            if fault is not None:
                raise fault
            return SimpleNamespace(sem_init=None)

        monkeypatch.setattr(ctypes, name, load)
        self.check_lock()

    def test_is_used_where_there_is_no_ctypes(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "ctypes", None)
        self.check_lock()

    def test_is_used_where_the_system_makes_none(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = SimpleNamespace(sem_init=lambda *_: -1, sem_wait=None, sem_post=None)
        monkeypatch.setattr(ctypes, "CDLL", lambda _: library)
        self.check_lock()

    def check_lock(self) -> None:
        parker = Parker(True)
        assert parker.unpark_and_leave is parker.unpark
        parker.unpark()
        parker.park()


class TestSemaphores:
    @pytest.fixture(autouse=True)
    def _usable(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setattr(sys.implementation, "name", "cpython")
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True, raising=False)

    def test_are_used_on_linux(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert has_semaphores()
        monkeypatch.setattr(sys, "platform", "darwin")
        assert not has_semaphores()

    def test_are_not_used_by_other_interpreters(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys.implementation, "name", "pypy")
        assert not has_semaphores()

    def test_are_not_used_without_the_gil(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
        assert not has_semaphores()

    def test_are_not_used_where_threads_are_somebodys_own(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_thread, "start_new_thread", lambda *args: 0)
        assert not has_semaphores()
