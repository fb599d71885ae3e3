"""Whether a child process may have what is open here.

What was open when the process forked, the child has as well: what is closed here is still open
there. :data:`count` tells of each fork before it happens, so that whoever compares it with what
it was before something was opened knows whether that is so. Who acts on the answer tries to take
:data:`lock`: either nobody else forks until it is given back, or somebody is about to. Whoever
forks has it for as long as the hooks of others take, and must not be waited for.

Python tells of :func:`os.fork` and what is built on that. It calls nobody where a child is made
that runs another program at once, which has only what was left to it on purpose; nor where C code
forks by itself.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import threading

__all__ = ["count", "lock"]

#: Forks of this process, and of those that it was forked from, since this was imported.
count = 0
#: Held by a thread that forks. Reentrant, since a signal's handler may fork at any time.
lock = threading.RLock()


def _begin() -> None:
    global count
    try:
        lock.acquire()
    finally:  # The handler of a signal may raise meanwhile; Python forks all the same.
        count += 1


def _end() -> None:
    with contextlib.suppress(RuntimeError):  # It was not acquired then.
        lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin, after_in_parent=_end, after_in_child=_end)
