"""How soon threads that wait for the interpreter get it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

import waitress
from waitress.switching import PYTHON_DEFAULT, switching_within


@pytest.fixture(autouse=True)
def default() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(PYTHON_DEFAULT)
    yield
    sys.setswitchinterval(before)


def test_is_what_was_asked_for_until_the_end() -> None:
    with switching_within(0.001):
        assert sys.getswitchinterval() == pytest.approx(0.001)
    assert sys.getswitchinterval() == PYTHON_DEFAULT


def test_ends_with_an_exception_too() -> None:
    with pytest.raises(KeyboardInterrupt), switching_within(0.001):
        raise KeyboardInterrupt
    assert sys.getswitchinterval() == PYTHON_DEFAULT


def test_is_left_alone_where_that_is_wanted() -> None:
    with switching_within(0):
        assert sys.getswitchinterval() == PYTHON_DEFAULT


def test_is_left_alone_where_somebody_has_chosen() -> None:
    sys.setswitchinterval(0.02)
    with switching_within(0.001):
        assert sys.getswitchinterval() == pytest.approx(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


def test_what_somebody_has_chosen_meanwhile_stays() -> None:
    with switching_within(0.001):
        sys.setswitchinterval(0.02)
    assert sys.getswitchinterval() == pytest.approx(0.02)


@pytest.mark.parametrize(("settings", "expected"), [({}, 0.001), ({"switch_interval": 0}, 0.005)])
def test_is_short_while_serve_runs(settings: dict[str, Any], expected: float) -> None:
    seen: list[float] = []

    def make(app: Any, **kw: Any) -> Any:
        server = waitress.create_server(app, **kw)
        server.run = lambda: seen.append(sys.getswitchinterval())
        made.append(server)
        return server

    made: list[Any] = []
    waitress.serve(lambda environ, start: [], port=0, _quiet=True, _server=make, **settings)
    made[0].task_dispatcher.shutdown()
    made[0].close()
    assert seen == [pytest.approx(expected)]
    assert sys.getswitchinterval() == PYTHON_DEFAULT
