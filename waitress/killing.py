"""The last resort: an exception raised in the thread of an application that does not end.

Owns the protocol that makes this hit the application and nothing else. CPython raises such
an exception at the thread's next step in Python code, wherever that is: amid a response
being handed over, or amid the next request, if the application has ended meanwhile. So
there is a :class:`KillSwitch` for each request, armed while the application's own code
runs and at no other time. It is fired under its lock, and disarmed under its lock; and a
worker that finds it fired when it disarms it makes the exception come at once, and takes
it, before it does anything else.

A switch is fired once. That is what makes disarming safe: the exception may come in the
middle of it, but then it has come, and disarming anew is not disturbed.

Row 2: imports buffers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer

__all__ = ["KillSwitch", "KillableApplication", "StuckRequestKilled", "can_kill"]

#: Steps within which a pending exception comes for certain; it comes at the first.
_STEPS = 100

_NOTHING: Any = object()


class StuckRequestKilled(BaseException):
    """The application has run for longer than ``kill_stuck_seconds``.

    Raised in its own code, at any point of it. It is no ``Exception``, so that a handler of
    those does not take it for a failure of what it was doing. An application that catches
    it may clean up, and should raise it again; one that goes on is not told again.
    """


def can_kill() -> bool:
    """Tell whether the interpreter can raise an exception in another thread."""
    return _find_raiser() is not None


def _find_raiser() -> Callable[[Any, Any], int] | None:
    try:
        import ctypes

        function = ctypes.pythonapi.PyThreadState_SetAsyncExc
    except (ImportError, AttributeError):
        return None

    def raise_in(thread_id: int, exception: type[BaseException]) -> int:
        return int(function(ctypes.c_ulong(thread_id), ctypes.py_object(exception)))

    return raise_in


class KillSwitch:
    """Raises an exception in one thread, while that is in the application's code.

    Threads: made, armed and disarmed by the worker; ``fire`` any other.
    """

    def __init__(self) -> None:
        self._thread_id = threading.get_ident()
        self._lock = threading.Lock()
        # guarded by _lock:
        self._is_armed = False
        #: Whether the exception was raised, once and for all.
        self.is_fired = False

    def fire(self) -> bool:
        """Raise the exception; say whether it was.

        It was not where the application's code does not run now, or where it was before.
        """
        raise_in = _find_raiser()
        with self._lock:
            if raise_in is None or not self._is_armed or self.is_fired:
                return False
            self.is_fired = True
            raise_in(self._thread_id, StuckRequestKilled)
            return True

    def run(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the application's, in which the exception may come.

        Raises:
            StuckRequestKilled: it came before the function had ended.
        """
        result = _NOTHING
        try:
            try:
                self._arm()
                result = function(*args)
            finally:
                self._disarm()
        except StuckRequestKilled:
            self._disarm()  # It has come, perhaps amid that.
            if result is _NOTHING:
                raise
        return result

    def shield(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call a function of the server's from within the application's code.

        The exception does not come in it, but before or after.
        """
        if threading.get_ident() != self._thread_id or not self._is_armed:
            return function(*args)
        if self._disarm():
            raise StuckRequestKilled
        try:
            return function(*args)
        finally:
            self._arm()

    def _arm(self) -> None:
        with self._lock:
            self._is_armed = True

    def _disarm(self) -> bool:
        """Make sure that no exception comes from now on; say whether one was under way."""
        with self._lock:
            self._is_armed = False
            is_fired = self.is_fired
        return is_fired and _meet_pending()


def _meet_pending() -> bool:
    """Let an exception that is under way come here; say whether there was one.

    Not taken back by the call that could: in some versions of CPython that leaves all
    threads looking for one for ever, which is slow.
    """
    try:
        for _ in range(_STEPS):
            pass
    except StuckRequestKilled:
        return True
    return False


class KillableApplication:
    """A WSGI application whose every call can be ended.

    Args:
        application: the application.
        switch_for_this_thread: makes, and makes known, the switch of the request that the
            calling thread serves; returns ``None`` where it serves none.
    """

    def __init__(
        self, application: Any, switch_for_this_thread: Callable[[], KillSwitch | None]
    ) -> None:
        self.application = application
        self._switch_for_this_thread = switch_for_this_thread

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        """Call the application; return its iterable, or one in its place."""
        switch = self._switch_for_this_thread()
        if switch is None:
            return self.application(environ, start_response)

        def shielded_start_response(*args: Any, **kw: Any) -> Any:
            write = switch.shield(lambda: start_response(*args, **kw))
            return lambda data: switch.shield(write, data)

        result = switch.run(self.application, environ, shielded_start_response)
        if type(result) in (list, tuple) or isinstance(result, ReadOnlyFileBasedBuffer):
            return result  # No code of the application's runs any more.
        return (_SizedIterable if hasattr(result, "__len__") else _Iterable)(result, switch)


class _Iterable:
    """An application's iterable; its every step can be ended."""

    def __init__(self, iterable: Any, switch: KillSwitch) -> None:
        self._iterable = iterable
        self._iterator: Any = None
        self._switch = switch

    def __iter__(self) -> Iterator[Any]:
        self._iterator = self._switch.run(iter, self._iterable)
        return self

    def __next__(self) -> Any:
        return self._switch.run(next, self._iterator)

    def close(self) -> None:
        """Close the application's iterable, if it can be."""
        close = getattr(self._iterable, "close", None)
        if close is not None:
            self._switch.run(close)


class _SizedIterable(_Iterable):
    """One that tells how many chunks it has."""

    def __len__(self) -> int:
        return int(self._switch.run(len, self._iterable))
