"""The order in which queued tasks are taken when the peers that have some take turns."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from waitress.fair_queue import FairQueue


class Task(SimpleNamespace):
    """A task as the queue sees it."""

    def __init__(self, host: str | None, number: int = 0) -> None:
        super().__init__(addr=(host, 40000) if host else None, number=number)

    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


def tasks(*hosts: str | None) -> list[Task]:
    return [Task(host, number) for number, host in enumerate(hosts)]


def taken(queue: FairQueue) -> list[int]:
    """Take everything; return the numbers of the tasks."""
    return [queue.popleft().number for _ in range(len(queue))]


def test_the_peers_take_turns() -> None:
    queue = FairQueue(tasks("1.1.1.1", "1.1.1.1", "1.1.1.1", "2.2.2.2", "3.3.3.3", "2.2.2.2"))
    assert taken(queue) == [0, 3, 4, 1, 5, 2]
    assert not queue


def test_of_one_peer_the_oldest_comes_first() -> None:
    assert taken(FairQueue(tasks(*["1.1.1.1"] * 5))) == [0, 1, 2, 3, 4]


def test_whoever_comes_again_is_behind_those_who_wait() -> None:
    first, second, third = tasks("1.1.1.1", "2.2.2.2", "1.1.1.1")
    queue = FairQueue([first, second])
    assert queue.popleft() is first
    queue.append(third)
    assert taken(queue) == [1, 2]


def test_it_shows_the_tasks_in_the_order_of_their_arrival() -> None:
    all_tasks = tasks("1.1.1.1", "1.1.1.1", "2.2.2.2", "1.1.1.1")
    queue = FairQueue(all_tasks)
    assert list(queue) == all_tasks
    queue.popleft()
    queue.popleft()
    assert list(queue) == [all_tasks[1], all_tasks[3]]
    assert queue[0] is all_tasks[1]


def test_addresses_from_which_one_client_can_choose_are_one_peer() -> None:
    one = ["2001:db8::1", "2001:db8::2", "2001:db8::3"]
    assert taken(FairQueue(tasks(*one, "2001:db8:0:1::1"))) == [0, 3, 1, 2]


def test_tasks_without_an_address_are_those_of_one_peer() -> None:
    """Those of a unix socket, and those that no connection has."""
    queue = FairQueue([*tasks(None, None), Task("localhost", 2), Task("localhost", 3)])
    stranger: Any = SimpleNamespace(number=4)
    queue.append(stranger)
    assert taken(queue) == [0, 2, 1, 3, 4]


def test_what_is_removed_is_not_taken_and_costs_its_peer_no_turn() -> None:
    all_tasks = tasks("1.1.1.1", "1.1.1.1", "2.2.2.2", "3.3.3.3")
    queue = FairQueue(all_tasks)
    queue.remove(all_tasks[0])
    queue.remove(all_tasks[2])
    assert list(queue) == [all_tasks[1], all_tasks[3]]
    assert taken(queue) == [1, 3]
    with pytest.raises(ValueError):
        queue.remove(all_tasks[0])


def test_nothing_is_left_of_what_was_cleared() -> None:
    queue = FairQueue(tasks("1.1.1.1", "2.2.2.2"))
    queue.clear()
    assert not queue
    queue.append(Task("2.2.2.2", 7))
    assert taken(queue) == [7]
    with pytest.raises(IndexError):
        queue.popleft()


def test_what_outsiders_do_by_other_methods_loses_no_task_and_serves_none_twice() -> None:
    first, second, third, fourth = tasks("1.1.1.1", "1.1.1.1", "2.2.2.2", "3.3.3.3")
    queue = FairQueue([first, second, third])
    del queue[-1]
    queue.appendleft(fourth)
    assert taken(queue) == [0, 1, 3]
    queue.appendleft(fourth)
    queue.remove(fourth)
    assert not queue


def test_from_the_other_end_peers_take_turns_too_with_their_newest() -> None:
    queue = FairQueue(tasks("1.1.1.1", "1.1.1.1", "2.2.2.2", "1.1.1.1"))
    assert [queue.pop().number for _ in range(4)] == [3, 2, 1, 0]
    queue.appendleft(Task("3.3.3.3", 7))  # In no line.
    assert queue.pop().number == 7
    assert not queue


@pytest.mark.parametrize("seed", range(20))
def test_nobody_who_waits_is_passed_twice_by_the_same_peer(seed: int) -> None:
    rng = random.Random(seed)
    queue = FairQueue()
    #: How often each peer was served since another one began to wait.
    passed: dict[str, Counter[str]] = {}
    waiting: Counter[str] = Counter()
    for number in range(500):
        if rng.random() < 0.55 or not queue:
            host = rng.choice(["1.1.1.1"] * 6 + ["2.2.2.2", "3.3.3.3", "4.4.4.4"])
            queue.append(Task(host, number))
            if not waiting[host]:
                passed[host] = Counter()
            waiting[host] += 1
            continue
        task = rng.choice(queue) if rng.random() < 0.2 else None
        if task is not None:
            queue.remove(task)
            host = task.addr[0]
        else:
            host = queue.popleft().addr[0]
            for other, counts in passed.items():
                if other != host and waiting[other]:
                    counts[host] += 1
                    assert counts[host] <= 1, (other, host)
            passed[host] = Counter()
        waiting[host] -= 1
    assert sum(waiting.values()) == len(queue)
