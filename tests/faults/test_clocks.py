"""The wall clock jumps, as when it is set by hand or by the network's time: nobody is cut
or kept for it, and the Date is the clock's. What times out follows another clock.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.compat.live import Running
from tests.fakes import Simulation, get, request
from tests.functional.applications import hello

Serve = Callable[..., Running]
Simulate = Callable[..., Simulation]

DAY = 86400.0
JUMPS = [DAY, -DAY, 20 * 365 * DAY]


class WallClock:
    """Seconds since the epoch: so many, and as many as have passed since."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.offset = 1.7e9

    def __call__(self) -> float:
        return self._clock() + self.offset


@pytest.fixture
def jumping(simulate: Simulate) -> Callable[..., tuple[Simulation, WallClock]]:
    def start(**settings: Any) -> tuple[Simulation, WallClock]:
        sim = simulate(hello, **settings)
        wall = WallClock(sim.clock)
        sim.event_loop.wall_clock = wall
        return sim, wall

    return start


Jumping = Callable[..., tuple[Simulation, WallClock]]


@pytest.mark.parametrize("jump", JUMPS)
def test_idle_connection_is_kept_for_its_time_whatever_the_wall_clock_says(
    jump: float, jumping: Jumping
) -> None:
    sim, wall = jumping(channel_timeout=120)
    client = sim.connect(get())
    sim.advance(60)
    wall.offset += jump
    sim.advance(59)
    assert client.is_open
    assert sim.ask(client, get()).body == b"hello"
    wall.offset -= 2 * jump
    sim.advance(119)
    assert client.is_open
    sim.advance(2)
    assert not client.is_open


@pytest.mark.parametrize("jump", JUMPS)
def test_slow_head_is_refused_in_its_time_whatever_the_wall_clock_says(
    jump: float, jumping: Jumping
) -> None:
    sim, wall = jumping(header_timeout=30)
    client = sim.connect(b"GET / HT")
    sim.advance(15)
    wall.offset += jump
    sim.advance(14)
    assert client.is_open
    assert not client.data
    sim.advance(2)
    assert client.response().status == 408


@pytest.mark.parametrize("jump", JUMPS)
def test_slow_body_is_refused_in_its_time_whatever_the_wall_clock_says(
    jump: float, jumping: Jumping
) -> None:
    sim, wall = jumping(body_timeout=20)
    client = sim.connect(request("POST", "/", "Content-Length: 10") + b"abc")
    wall.offset += jump
    sim.advance(19)
    assert not client.data
    sim.advance(2)
    assert client.response().status == 408


def test_upkeep_goes_on_when_the_wall_clock_was_set_back(jumping: Jumping) -> None:
    """Channels of somebody else's, which have no deadlines of ours, depend on it."""
    sim, wall = jumping(cleanup_interval=30)
    sim.connect()
    wall.offset -= DAY
    sim.connect()
    orders: list[float] = []
    sim.server.maintenance = orders.append
    sim.advance(31)
    assert len(orders) == 1
    assert sim.server.next_channel_cleanup <= wall() + 30


@pytest.mark.parametrize("jump", JUMPS)
def test_last_activity_is_told_by_the_clock_of_now(jump: float, jumping: Jumping) -> None:
    sim, wall = jumping()
    sim.connect(get())
    sim.advance(10)
    wall.offset += jump
    assert wall() - sim.channel.last_activity == pytest.approx(10)


def test_date_is_that_of_the_clock_before_and_after_it_jumps(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(hello)
    real = time.time
    with running.connect() as wire:
        for jump in (0, DAY, -DAY, 0.5, 20 * 365 * DAY, -3600, 0):
            monkeypatch.setattr(time, "time", lambda jump=jump: real() + jump)
            before = int(time.time())
            told = parsedate_to_datetime(wire.get().headers["date"]).timestamp()
            assert before <= told <= time.time()
