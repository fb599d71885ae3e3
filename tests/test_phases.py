"""Phases and deadlines; what HTTPChannel makes of them stands in test_channel.py."""

from __future__ import annotations

import pytest

from tests.fakes import FakeClock
from waitress import wasyncore
from waitress.eventloop import EventLoop
from waitress.phases import PhasedChannel


def test_phase_and_what_is_due_are_for_the_subclass_to_say() -> None:
    channel = PhasedChannel(wasyncore.SocketMap())
    with pytest.raises(NotImplementedError):
        _ = channel.phase
    with pytest.raises(NotImplementedError):
        channel.handle_deadline(0)


def test_is_never_due_before_it_is_told_so() -> None:
    clock = FakeClock()
    loop = EventLoop(clock=clock)
    channel = PhasedChannel(loop.map)
    assert channel.event_loop is loop
    assert loop.deadlines.next_deadline() == channel.deadline == float("inf")
    channel.last_activity = loop.wall_clock() - 7
    clock.advance(3)
    assert channel.last_activity == pytest.approx(loop.wall_clock() - 10)
