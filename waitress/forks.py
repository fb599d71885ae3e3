"""Whether a child process may have what is open here.

What was open when the process forked, the child has as well: what is closed here is still open
there. :data:`count` tells of each fork before it happens, so that whoever compares it with what
it was when something was opened knows whether that is so. Who acts on the answer holds
:data:`lock` meanwhile, and nobody forks in between.

Python calls nobody where a child is made that runs another program at once: it has only what was
left to it on purpose.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import os
import threading

__all__ = ["count", "lock"]

#: Forks of this process, and of those that it was forked from, since this was imported.
count = 0
#: Held by a thread that forks. Reentrant, since a signal's handler may fork.
lock = threading.RLock()


def _begin() -> None:
    global count
    lock.acquire()
    count += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_begin, after_in_parent=lock.release, after_in_child=lock.release)
