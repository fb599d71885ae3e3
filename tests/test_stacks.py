"""How stacks, requests and peers read in the log."""

from __future__ import annotations

import sys
import threading
from types import SimpleNamespace
from typing import Any

import pytest

from tests.looping import needs_stacks
from waitress import stacks
from waitress.stacks import current_frames, format_frame, peer_text, request_line


def deep(levels: int) -> str:
    # Two callers in turn, so that they are not summed up as repetitions.
    return other(levels - 1) if levels else format_frame(sys._getframe())


def other(levels: int) -> str:
    return deep(levels - 1) if levels else format_frame(sys._getframe())


def test_stack_shows_the_innermost_calls_last_and_not_too_many() -> None:
    text = deep(200)
    assert text.count("File ") <= stacks.MOST_FRAMES
    assert text.splitlines()[-2].strip().endswith("in deep")


def test_stack_that_is_not_known_is_said_to_be_so() -> None:
    assert format_frame(None) == "  (its stack is not known)"


@needs_stacks
def test_every_thread_has_a_frame() -> None:
    assert threading.get_ident() in current_frames()


def test_interpreter_that_tells_no_frames_tells_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(sys, "_current_frames")
    assert current_frames() == {}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/a?secret", '"GET /a HTTP/1.1"'),
        ("/a\x1b[0m\n", '"GET /a\\x1b[0m\\n HTTP/1.1"'),
    ],
)
def test_request_is_shown_without_query_and_escaped(target: str, expected: str) -> None:
    request = SimpleNamespace(command="GET", request_uri=target, version="1.1")
    assert request_line(request) == expected


def test_request_of_which_nothing_is_known_is_an_empty_line() -> None:
    assert request_line(SimpleNamespace()) == '""'


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        (("localhost", None), "localhost"),
        ("anything\n", "anything\\n"),
        (None, "-"),
        ((), "-"),
    ],
)
def test_peer_is_shown_by_its_address(address: Any, expected: str) -> None:
    assert peer_text(SimpleNamespace(addr=address)) == expected


def test_peer_of_no_channel_is_a_dash() -> None:
    assert peer_text(None) == "-"


def test_no_thread_has_one_where_it_runs_on_while_it_is_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without the GIL; its frames may be gone at any moment, and the process with them."""
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: False, raising=False)
    assert current_frames() == {}
    monkeypatch.setattr(sys, "_is_gil_enabled", lambda: True)
    assert current_frames()
    monkeypatch.delattr(sys, "_is_gil_enabled")
    assert current_frames()
