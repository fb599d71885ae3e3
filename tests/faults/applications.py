"""Applications that fail, where and how their path says."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

Start = Callable[..., Any]


def exhaust_memory() -> None:
    """Ask for more memory than there is: the real error."""
    bytearray(1 << 62)


def exit_process() -> None:
    sys.exit(3)


def interrupt() -> None:
    raise KeyboardInterrupt


def exit_generator() -> None:
    raise GeneratorExit


FAILURES = {
    "MemoryError": exhaust_memory,
    "SystemExit": exit_process,
    "KeyboardInterrupt": interrupt,
    "GeneratorExit": exit_generator,
}
#: Where it fails, and whether the head has left by then.
PLACES = {
    "call": False,
    "start": False,
    "first": False,
    "later": True,
    "write": True,
    "close": True,
    "close-of-nothing": False,
    "read": False,
}


class Body:
    """An iterable that fails at a place, and says when it was closed."""

    closed = 0

    def __init__(self, place: str, fail: Callable[[], None]) -> None:
        self._place = place
        self._fail = fail

    def __iter__(self) -> Iterator[bytes]:
        if self._place == "first":
            self._fail()
        if self._place != "close-of-nothing":
            yield b"abc"
        if self._place == "later":
            self._fail()

    def close(self) -> None:
        Body.closed += 1
        if self._place.startswith("close"):
            self._fail()


def failing(environ: dict[str, Any], start_response: Start) -> Any:
    """Fail as ``/<place>/<kind>`` says; answer ``ok`` everywhere else."""
    _, place, *rest = environ["PATH_INFO"].split("/")
    if place not in PLACES:
        start_response("200 OK", [("Content-Length", "2")])
        return [b"ok"]
    fail = FAILURES[rest[0]]
    if place == "call":
        fail()
    if place == "read":
        environ["wsgi.input"].read()
        fail()
    if place == "start":
        start_response("200 OK", Headers(fail))
    write = start_response("200 OK", [])
    if place == "write":
        write(b"abc")
        fail()
    return Body(place, fail)


class Headers(list[tuple[str, str]]):
    """Response headers that fail when start_response looks at them."""

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__([("X-Never", "sent")])
        self._fail = fail

    def __iter__(self) -> Iterator[tuple[str, str]]:
        self._fail()
        return super().__iter__()
