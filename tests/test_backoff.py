"""How often something is tried that is worth while at times only."""

from __future__ import annotations

from itertools import pairwise

from waitress.backoff import Backoff


def occasions(backoff: Backoff, count: int, *, worth_while: bool) -> list[int]:
    """Return on which of so many occasions it is tried, when it always goes like that."""
    tried = []
    for number in range(count):
        if backoff.take_occasion():
            tried.append(number)
            backoff.note(worth_while)
    return tried


def test_is_tried_each_time_while_worth_while() -> None:
    assert occasions(Backoff(64, 1024), 5, worth_while=True) == [0, 1, 2, 3, 4]


def test_is_tried_less_and_less_while_in_vain() -> None:
    tried = occasions(Backoff(64, 1024), 6000, worth_while=False)
    rests = [later - earlier - 1 for earlier, later in pairwise(tried)]
    assert rests[:6] == [64, 192, 448, 960, 1024, 1024]


def test_is_soon_forgiven_where_it_was_worth_while_again() -> None:
    backoff = Backoff(8, 100)
    assert occasions(backoff, 1 + 8 + 1, worth_while=False) == [0, 9]  # Then 24 go by.
    assert occasions(backoff, 24 + 10, worth_while=True) == list(range(24, 34))
    assert occasions(backoff, 50, worth_while=False) == [0, 1 + 2 * (24 - 10) + 8]


def test_is_forgiven_at_last() -> None:
    backoff = Backoff(1, 100)
    assert occasions(backoff, 1, worth_while=False) == [0]
    assert occasions(backoff, 11, worth_while=True) == list(range(1, 11))
    assert occasions(backoff, 3, worth_while=False) == [0, 2]
