"""Help for tests of everything that takes bytes: how to cut them, and what they may cost."""

from __future__ import annotations

import time
from collections.abc import Callable
from math import inf
from typing import Protocol

import pytest

#: The three cuts of everything that takes bytes.
CUTS = ("whole", "octets", "tail")

#: What stands behind a message in the cut "tail"; no part of it may be taken.
TAIL = b"GET /tail HTTP/1.1\r\nHost: tail\r\n\r\n"


class Machine(Protocol):
    completed: bool

    def received(self, data: bytes, /) -> int: ...


def feed(machine: Machine, data: bytes, size: int) -> int:
    """Feed *data* in pieces of *size* octets until the machine completes; count the used."""
    used = 0
    while used < len(data) and not machine.completed:
        piece = data[used : used + size]
        taken = machine.received(piece)
        assert 0 < taken <= len(piece)
        used += taken
    return used


def feed_cut(machine: Machine, data: bytes, cut: str) -> int:
    """Feed *data* in one of the :data:`CUTS`; count the octets used."""
    if cut == "octets":
        return feed(machine, data, 1)
    offered = data + TAIL if cut == "tail" else data
    return feed(machine, offered, len(offered))


def assert_linear(work: Callable[[int], object], n: int) -> None:
    """Fail when sixteen times the input costs much more than sixteen times the time.

    A quadratic cost would be 256 times as much. The limit of 100 lies far from both (what
    no longer fits into a cache has been seen to cost 3 times as much), and processor time
    does not count what others do meanwhile, or hardly: where a machine is shared, some of
    theirs is taken for ours. So it is measured again where it was too much.
    """
    small = min(_cost(work, n) for _ in range(3))
    large = inf
    for _ in range(20):
        large = min(large, _cost(work, 16 * n))
        if large < 100 * small:
            return
    pytest.fail(f"{small:.6f} s for {n}, {large:.6f} s for {16 * n}")


def _cost(work: Callable[[int], object], n: int) -> float:
    begin = time.process_time()
    work(n)
    # Never nothing: too little to measure is no reason to fail.
    return max(time.process_time() - begin, 1e-4)
