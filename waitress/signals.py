"""The signals that end a process, taken while a server starts and runs in it.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Protocol

__all__ = ["Stoppable", "raise_again", "signals_held", "signals_stop", "sigterm_ends"]

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


@contextmanager
def signals_held() -> Iterator[list[int]]:
    """Have SIGTERM and Ctrl-C wait while a server is made, where nobody has a handler for it.

    They would leave an address bound, or the file of a unix socket. The number of one that
    came is yielded, for the caller to raise when it can be taken; it is raised here when
    the making fails. A second one is not held: the making may take long.
    """
    came: list[int] = []
    held: dict[int, Any] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        if came:
            signal.signal(number, held[number])
            signal.raise_signal(number)
        else:
            came.append(number)

    if threading.current_thread() is threading.main_thread():
        for name, default, *_ in _TAKEN:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is default:
                held[number] = default
                signal.signal(number, hold)
    try:
        yield came
    except BaseException:
        _restore(held)
        raise_again(came)
        raise
    _restore(held)


def _restore(handlers: dict[int, Any]) -> None:
    for number, handler in handlers.items():
        signal.signal(number, handler)


def raise_again(numbers: list[int]) -> None:
    """Raise the signals that were held."""
    for number in numbers:
        signal.raise_signal(number)


@contextmanager
def signals_stop(stoppable: Stoppable) -> Iterator[None]:
    """Have SIGTERM and Ctrl-C, and on Windows Ctrl-Break, stop a server while this lasts.

    The first of them orders the end, any further one that it comes at once. Only signals
    that nobody has a handler for are taken, and only in the main thread, since no other
    may. What was taken is given back at the end.
    """
    previous: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        take = _handlers(stoppable)
        for name, default, timeout, delay in _TAKEN:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is default:
                previous[number] = signal.signal(number, take(timeout, delay))
    ours = {number: signal.getsignal(number) for number in previous}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # Unless the application has put its own there meanwhile.
            if signal.getsignal(number) is ours[number]:
                signal.signal(number, handler)


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


def _handlers(stoppable: Stoppable) -> Callable[..., Callable[[int, FrameType | None], None]]:
    came: list[int] = []

    def take(timeout: float | None, delay: float | None) -> Callable[[int, FrameType | None], None]:
        def handle(number: int, frame: FrameType | None) -> None:
            # Between any two instructions of the loop: nothing is done here but to tell it.
            came.append(number)
            name = signal.Signals(number).name
            if len(came) > 1:
                stoppable.order(0, 0, f"{name}, again")
            else:
                stoppable.order(timeout, delay, name)

        return handle

    return take
