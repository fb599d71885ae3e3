"""Whether a child process may have what is open here."""

from __future__ import annotations

import os
import warnings

import pytest

from tests.looping import load_elsewhere, may_fork
from waitress import forks

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")


def fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The child does nothing that needs a lock.
        return os.fork()


@needs_fork
def test_each_fork_is_counted_on_both_sides_and_lets_others_go_on() -> None:
    before = forks.count
    child = fork()
    if not child:
        os._exit(0 if forks.count == before + 1 and may_fork() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert forks.count == before + 1
    assert may_fork()


@needs_fork
def test_whoever_holds_the_lock_may_fork() -> None:
    with forks.lock:
        child = fork()
        if not child:
            os._exit(0)
        os.waitpid(child, 0)
    assert may_fork()


class Lock:
    """What is known when the lock is taken; the handler of a signal may raise then."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.counts: list[int] = []
        self.error = error

    def acquire(self) -> None:
        self.counts.append(forks.count)
        if self.error is not None:
            raise self.error

    def release(self) -> None:
        raise RuntimeError("cannot release un-acquired lock")


def test_a_fork_is_counted_when_nobody_acts_on_the_count_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = forks.count
    monkeypatch.setattr(forks, "lock", Lock())
    monkeypatch.setattr(forks, "count", before)
    forks._begin()
    assert forks.lock.counts == [before]
    assert forks.count == before + 1


def test_a_fork_is_counted_though_a_signal_ends_the_wait_for_the_lock(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = forks.count
    monkeypatch.setattr(forks, "lock", Lock(KeyboardInterrupt()))
    monkeypatch.setattr(forks, "count", before)
    with pytest.raises(KeyboardInterrupt):
        forks._begin()
    assert forks.count == before + 1
    forks._end()


def test_nothing_is_counted_where_nobody_can_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "register_at_fork", raising=False)
    assert load_elsewhere(monkeypatch, forks).count == 0
