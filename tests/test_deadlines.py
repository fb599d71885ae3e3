"""Deadlines are met in time, and cost nothing while they move later."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitress.deadlines import BUCKET_SECONDS, Deadlines


class Owner:
    deadline = inf
    deadline_bucket = None

    def handle_deadline(self, now):
        raise AssertionError("only the event loop calls it")


@pytest.fixture
def deadlines():
    return Deadlines()


@pytest.fixture
def owner():
    return Owner()


def test_nobody_is_due_at_first(deadlines):
    assert deadlines.next_deadline() == inf
    assert deadlines.take_due(1e9) == []
    assert len(deadlines) == 0


def test_owner_is_due_at_its_deadline_and_once(deadlines, owner):
    deadlines.arm(owner, 10.0)
    assert deadlines.take_due(9.99) == []
    assert deadlines.take_due(10.0) == [owner]
    assert deadlines.take_due(1e9) == []


def test_owner_between_two_buckets_is_due_at_the_end_of_its_own(deadlines, owner):
    deadlines.arm(owner, 10.01)
    assert deadlines.next_deadline() == 10.125
    assert deadlines.take_due(10.02) == []
    assert deadlines.take_due(10.125) == [owner]


def test_deadline_that_is_over_already_is_due_at_once(deadlines, owner):
    deadlines.arm(owner, -3.0)
    assert deadlines.next_deadline() <= 0
    assert deadlines.take_due(0.0) == [owner]


def test_never_makes_no_entry(deadlines, owner):
    deadlines.arm(owner, inf)
    assert len(deadlines) == 0
    assert deadlines.next_deadline() == inf


def test_never_in_place_of_a_deadline_ends_it(deadlines, owner):
    deadlines.arm(owner, 10.0)
    deadlines.arm(owner, inf)
    assert deadlines.take_due(1e9) == []
    assert len(deadlines) == 0


def test_later_deadline_replaces_the_earlier(deadlines, owner):
    deadlines.arm(owner, 10.0)
    deadlines.arm(owner, 20.0)
    assert deadlines.take_due(19.0) == []
    assert deadlines.next_deadline() == 20.0
    assert deadlines.take_due(20.0) == [owner]


def test_moving_later_costs_one_attribute(deadlines, owner):
    deadlines.arm(owner, 10.0)
    deadlines.arm(owner, 20.0)
    assert owner.deadline == 20.0
    # The entry stays where it was, until it comes up.
    assert deadlines.next_deadline() == 10.0
    assert len(deadlines) == 1


def test_earlier_deadline_replaces_the_later(deadlines, owner):
    deadlines.arm(owner, 20.0)
    deadlines.arm(owner, 10.0)
    assert deadlines.next_deadline() == 10.0
    assert deadlines.take_due(10.0) == [owner]
    assert deadlines.take_due(1e9) == []
    assert len(deadlines) == 0


def test_forgotten_owner_is_never_due(deadlines, owner):
    deadlines.arm(owner, 10.0)
    deadlines.forget(owner)
    assert owner.deadline == inf
    assert len(deadlines) == 0
    assert deadlines.next_deadline() == inf
    assert deadlines.take_due(1e9) == []


def test_forgetting_a_stranger_is_harmless(deadlines, owner):
    deadlines.forget(owner)
    assert len(deadlines) == 0


def test_owner_forgotten_after_it_was_taken_shows_it(deadlines, owner):
    """What is done for one that is due may close another that is due."""
    deadlines.arm(owner, 10.0)
    (taken,) = deadlines.take_due(10.0)
    deadlines.forget(taken)
    assert taken.deadline == inf


def test_owner_can_be_armed_again_when_it_was_due(deadlines, owner):
    deadlines.arm(owner, 10.0)
    deadlines.take_due(10.0)
    deadlines.arm(owner, 11.0)
    assert deadlines.take_due(11.0) == [owner]


def test_empty_buckets_are_dropped_on_the_way_to_the_next(deadlines):
    owners = [Owner() for _ in range(3)]
    for number, each in enumerate(owners):
        deadlines.arm(each, 10.0 + number)
    deadlines.forget(owners[0])
    deadlines.forget(owners[1])
    assert deadlines.next_deadline() == 12.0


def test_many_of_one_instant_share_a_bucket(deadlines):
    owners = {Owner() for _ in range(100)}
    for each in owners:
        deadlines.arm(each, 10.0)
    assert len(deadlines) == 100
    assert set(deadlines.take_due(10.0)) == owners


MOVES = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.one_of(st.just(inf), st.floats(0, 50), st.none()),
        st.floats(0, 3),
    ),
    max_size=60,
)


@given(MOVES)
def test_whatever_the_moves_nobody_is_early_or_more_than_a_bucket_late(moves):
    deadlines, now = Deadlines(), 0.0
    owners = [Owner() for _ in range(4)]
    expected = dict.fromkeys(range(4), inf)
    for index, when, step in moves:
        if when is None:
            deadlines.forget(owners[index])
            expected[index] = inf
        else:
            deadlines.arm(owners[index], when)
            expected[index] = when
        assert deadlines.next_deadline() <= min(expected.values()) + BUCKET_SECONDS
        now += step
        for each in deadlines.take_due(now):
            found = owners.index(each)
            assert expected[found] <= now
            expected[found] = inf
            each.deadline = inf
        assert all(when > now - BUCKET_SECONDS for when in expected.values())
