"""Where an idle thread sleeps until another one wakes it.

A *parker* is one thread's: that thread parks, and others unpark it. A wake-up that comes early is
kept, so that nobody sleeps through it; but a thread may wake for nothing, and has to look why it
was woken.

What a wake-up costs is decided by where the interpreter is meanwhile. A thread that releases a lock
has the interpreter and keeps it. On the same processor the kernel lets the woken thread run at
once; it finds the interpreter taken, sleeps again, and is woken anew when the other one leaves it.
So there are two ways to wake: ``unpark`` keeps the interpreter, and ``unpark_and_leave`` leaves it
for as long as the call takes, so that the woken thread finds it free. Where others compute, they
may have it then, and whoever woke waits for it.

Of what Python has, only writing to a descriptor wakes a thread so. A descriptor others may close,
and children have it, too. A semaphore of the C library (sem_overview(7)) is memory of this process
only, and :mod:`ctypes` calls it in both ways: by ``CDLL`` without the interpreter, by ``PyDLL``
with it. Where that cannot be had a lock does, which is always released in the first way.

The library is loaded by whoever asks for it first, before there are threads that use it: a child
forked while one of them imported :mod:`ctypes` could never import it.

Row 1: imports compat.
"""

from __future__ import annotations

import _thread
import sys
import threading
from collections.abc import Callable
from functools import cache, partial
from types import BuiltinFunctionType
from typing import Any, NamedTuple

from waitress.compat import has_gil

__all__ = ["Parker", "has_semaphores"]

#: The memory of a semaphore, in units of C's ``long``. It takes 4 of them with the C libraries
#: there are; the rest is for others.
SEMAPHORE_LONGS = 16


class Parker:
    """The place where one thread sleeps.

    Args:
        uses_semaphore: whether it is one of the C library; see :func:`has_semaphores`.

    Threads: ``park`` the one that sleeps here, the rest any.
    """

    __slots__ = ("park", "unpark", "unpark_and_leave")

    def __init__(self, uses_semaphore: bool = False) -> None:
        #: Sleep until somebody unparks, unless that was done since the last sleep; or until a
        #: signal comes.
        self.park: Callable[[], object]
        #: Wake the thread that sleeps here, or keep it from its next sleep.
        self.unpark: Callable[[], object]
        #: The same, and leave the interpreter meanwhile, if possible.
        self.unpark_and_leave: Callable[[], object]

        if not (uses_semaphore and self._use_semaphore()):
            lock = threading.Lock()
            lock.acquire()
            self.park = lock.acquire
            self.unpark = self.unpark_and_leave = partial(_release, lock)

    def _use_semaphore(self) -> bool:
        library = _c_library()
        if library is None:
            return False
        semaphore = library.new_semaphore()
        if library.leaving.sem_init(semaphore, 0, 0) != 0:
            return False
        self.park = partial(library.leaving.sem_wait, semaphore)
        self.unpark = partial(library.keeping.sem_post, semaphore)
        self.unpark_and_leave = partial(library.leaving.sem_post, semaphore)
        return True


def _release(lock: threading.Lock) -> None:
    try:
        lock.release()
    except RuntimeError:
        pass  # It was released before.


class _CLibrary(NamedTuple):
    #: For calls without the interpreter, and with it.
    leaving: Any
    keeping: Any
    #: Returns a reference to memory for a semaphore, and keeps the memory as long.
    new_semaphore: Callable[[], Any]


@cache
def _c_library() -> _CLibrary | None:
    try:
        import ctypes

        leaving, keeping = ctypes.CDLL(None), ctypes.PyDLL(None)
        for library in (leaving, keeping):
            for name in ("sem_init", "sem_wait", "sem_post"):
                getattr(library, name)
    # Python was built without it, the library has none of these, or somebody forbids to load
    # it, who says so in his own way.
    except Exception:  # noqa: BLE001
        return None
    memory, reference = ctypes.c_long * SEMAPHORE_LONGS, ctypes.byref
    return _CLibrary(leaving, keeping, lambda: reference(memory()))


def has_semaphores() -> bool:
    """Say whether threads that Python starts may sleep on semaphores of the C library; load it.

    Where the threads are not the system's, but gevent's for instance, one that sleeps there would
    keep all of them from running. Without the GIL nothing is gained.
    """
    return (
        sys.platform == "linux"
        and sys.implementation.name == "cpython"
        and has_gil()
        and isinstance(_thread.start_new_thread, BuiltinFunctionType)
        and _c_library() is not None
    )
