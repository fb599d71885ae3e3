"""The access log: one line for each request, whatever became of it.

Owns which sinks are open in this process. Servers that name the same one share its writer,
each with a format of its own, so that no line of one ends up within a line of another.

Row 3: imports access_format, access_sink, access_writer and timeline.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

from waitress.access_format import make_format
from waitress.access_sink import identity_of, open_sink
from waitress.access_writer import CLOSE_SECONDS, LineWriter
from waitress.timeline import Timeline

__all__ = ["AccessLog", "reopen_all"]

#: What a line that waits takes in memory, about, beside what its client sent.
_BASE_BYTES = 1024

_lock = threading.Lock()
# guarded by _lock, but for reopen_all:
_writers: dict[str, LineWriter] = {}


def reopen_all() -> None:
    """Open the files of all access logs of the process anew, after they were moved away.

    Threads: any; takes no lock, so that a signal's handler may call it.
    """
    for writer in list(_writers.values()):
        writer.reopen()


def _begin_anew_in_child() -> None:
    global _lock
    _lock = threading.Lock()
    for writer in _writers.values():
        writer.begin_anew_in_child()


# Windows has no forks.
getattr(os, "register_at_fork", dict)(after_in_child=_begin_anew_in_child)


class AccessLog:
    """The access log of one server: a format, and a share in a writer.

    Args:
        target: ``-`` for the standard output, ``logging:`` for the logger
            ``waitress.access``, else a path.
        format_text: see :func:`waitress.access_format.make_format`.

    Raises:
        ValueError: the format is wrong, or the target cannot be opened; it is named.

    Threads: ``timeline_ended`` the loop; all else any.
    """

    def __init__(self, target: str, format_text: str) -> None:
        self._format = make_format(format_text)
        #: See :class:`waitress.timeline.TimelineListener`.
        self.environ_names = self._format.environ_names
        self._is_closed = False
        with _lock, _naming(target):
            self._identity = identity_of(target)
            writer = _writers.get(self._identity)
            if writer is None:
                writer = _writers[self._identity] = LineWriter(open_sink(target))
            else:
                writer.add_user()
        self._writer = writer

    def timeline_ended(self, timeline: Timeline) -> None:
        """Have the line of a request written, by and by; health checks have none."""
        if timeline.is_own_answer:
            return
        capture = self._format.capture(timeline)
        # What a client can make large; it must not fill the memory while a sink is slow.
        size = len(timeline.path) + len(timeline.query) + sum(map(len, timeline.headers.values()))
        self._writer.put(
            functools.partial(self._format.render, timeline, capture), size + _BASE_BYTES
        )

    @property
    def lost(self) -> int:
        """How many lines have been lost, of all servers that share the sink."""
        return self._writer.lost

    def reopen(self) -> None:
        """Open the file anew before the next line, after it was moved away.

        Without meaning where it is not a file. A signal's handler may call it.
        """
        self._writer.reopen()

    def close(self, timeout: float = CLOSE_SECONDS) -> None:
        """Write what there is, and let go; wait for that *timeout* seconds at most.

        A request that ends even later still has its line.
        """
        with _lock:
            if self._is_closed:
                return
            self._is_closed = True
            is_last = self._writer.remove_user()
            if is_last:
                del _writers[self._identity]
        if is_last:
            self._writer.end(timeout)


@contextlib.contextmanager
def _naming(target: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ValueError(
            f"Cannot open the access log: {reason} (access_log={target!r}; allowed: the path of "
            "a file that can be written, - for the standard output, or logging:)"
        ) from error
