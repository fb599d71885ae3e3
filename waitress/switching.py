"""How soon a thread that waits for the interpreter gets it.

Owns the decision when :func:`sys.setswitchinterval` is called, and that it is undone.
CPython lets a thread that computes go on for 5 ms while others wait. Each request needs
the interpreter three times in different threads (loop, worker, loop), so that beside
threads that compute, one that takes microseconds would wait for many such intervals.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["PYTHON_DEFAULT", "switching_within"]

#: What CPython begins with, in seconds. Whoever has set another value knows better.
PYTHON_DEFAULT = 0.005


@contextmanager
def switching_within(seconds: float) -> Iterator[None]:
    """Have threads that wait for the interpreter get it after ``seconds``, for a while.

    Does nothing if somebody has chosen an interval before, nor undoes what somebody has
    chosen meanwhile.

    Args:
        seconds: the interval; 0 leaves it as it is.

    Threads: concerns all of the process.
    """
    if not seconds or sys.getswitchinterval() != PYTHON_DEFAULT:
        yield
        return
    sys.setswitchinterval(seconds)
    ours = sys.getswitchinterval()  # It may have been rounded.
    try:
        yield
    finally:
        if sys.getswitchinterval() == ours:
            sys.setswitchinterval(PYTHON_DEFAULT)
