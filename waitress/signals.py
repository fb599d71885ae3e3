"""The signals that end a process, taken while a server starts and runs in it.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

__all__ = ["StopSignals", "Stoppable", "sigterm_ends"]

#: The signals that are taken where nobody else has: the handler that means so, and the
#: seconds that are left then and in which connections are accepted still. None: as the
#: settings say. Whoever presses keys waits for the end.
_TAKEN: tuple[tuple[str, Any, float | None, float | None], ...] = (
    ("SIGTERM", signal.SIG_DFL, None, None),
    ("SIGINT", signal.default_int_handler, 5.0, 0.0),
    ("SIGBREAK", signal.SIG_DFL, 5.0, 0.0),
)


class Stoppable(Protocol):
    """What signals stop; :class:`waitress.shutdown.Shutdown` is one."""

    def order(
        self, timeout: float | None = None, delay: float | None = None, reason: str = ""
    ) -> None:
        """Have it end within ``timeout`` seconds."""


class StopSignals:
    """Has SIGTERM and Ctrl-C, and on Windows Ctrl-Break, stop a server while this lasts.

    Only signals that nobody has a handler for are taken, and only in the main thread, since
    no other may. What was taken is given back at the end, unless the application has put its
    own handler there meanwhile.

    As long as there is no server (:meth:`stop`), the first signal waits: it would leave an
    address bound, or the file of a unix socket. It comes at the end if there never is one. A
    second one does not wait: making a server may take long.

    With a server, the first signal orders its end, and any further one that it comes at once.
    """

    def __init__(self, takes_any: bool = True) -> None:
        """Take nothing yet.

        Args:
            takes_any: whether any signal is to be taken at all.
        """
        self._takes_any = takes_any
        self._process_id = 0
        self._stoppable: Stoppable | None = None
        #: Those that came, and those of them that wait.
        self._came: list[int] = []
        self._waiting: list[int] = []
        #: Our handler of each signal taken, and the one that was there before.
        self._taken: dict[int, tuple[Any, Any]] = {}
        #: What a signal orders.
        self._terms: dict[int, tuple[float | None, float | None]] = {}

    def __enter__(self) -> StopSignals:
        if self._takes_any and threading.current_thread() is threading.main_thread():
            self._process_id = os.getpid()
            try:
                self._take()
            except BaseException:  # Ctrl-C: __exit__ is not going to be called.
                self.give_back()
                raise
        return self

    def _take(self) -> None:
        handle = self._handle  # One object: it is recognised by that.
        for name, default, timeout, delay in _TAKEN:
            number = getattr(signal, name, None)
            if number is None or signal.getsignal(number) is not default:
                continue
            self._terms[number] = timeout, delay
            self._taken[number] = handle, default
            try:
                signal.signal(number, handle)
            except ValueError:  # In a subinterpreter nobody has signals.
                del self._taken[number]

    def __exit__(self, *_: object) -> None:
        self.give_back()

    def stop(self, stoppable: Stoppable) -> None:
        """Have the signals stop this from now on, those that have come among them."""
        self._stoppable = stoppable
        while self._waiting:
            self._order(stoppable, self._waiting.pop())

    def give_back(self) -> None:
        """Take no signals any more; let those come that have waited."""
        while self._taken:
            self._give_back(next(iter(self._taken)))
        while self._waiting:
            signal.raise_signal(self._waiting.pop())

    def _give_back(self, number: int) -> None:
        ours, before = self._taken[number]
        if signal.getsignal(number) is ours:
            signal.signal(number, before)
        # After it: the same signal may come in between.
        self._taken.pop(number, None)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Between any two instructions: nothing is done here but to note it, or to tell.
        is_for_us = os.getpid() == self._process_id  # The application may have forked.
        if is_for_us:
            self._came.append(number)
        if is_for_us and self._stoppable is not None:
            self._order(self._stoppable, number)
        elif is_for_us and len(self._came) == 1:
            self._waiting.append(number)
        else:
            self._give_back(number)
            signal.raise_signal(number)

    def _order(self, stoppable: Stoppable, number: int) -> None:
        name = signal.Signals(number).name
        if len(self._came) > 1:
            stoppable.order(0, 0, f"{name}, again")
        else:
            stoppable.order(*self._terms[number], name)


@contextmanager
def sigterm_ends() -> Iterator[None]:
    """Have SIGTERM end the process while this lasts, where the system would drop it.

    Process 1 of a container has only the handlers that it sets, and an application may take
    long to be imported. Every other process ends by SIGTERM without that.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if os.getpid() != 1 or not is_main or signal.getsignal(signal.SIGTERM) != signal.SIG_DFL:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        # At once, as for others: no request is there yet.
        os._exit(128 + number)

    signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        # Unless the application has put its own there meanwhile.
        if signal.getsignal(signal.SIGTERM) is end:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
