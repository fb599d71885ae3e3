"""Whose turn it is: one request of a connection at a time, in order, none after the end."""

from __future__ import annotations

import sys
import threading
from queue import SimpleQueue

import pytest

from tests.looping import PATIENCE, InThread
from waitress.request_queue import QueueEndedError, RequestQueue


def state_of(queue):
    state = {name: getattr(queue, name) for name in RequestQueue.__slots__ if name != "__dict__"}
    return {name: each[:] if isinstance(each, list) else each for name, each in state.items()}


class Request:
    def __init__(self, name, error=None):
        self.name = name
        self.error = error

    def __repr__(self):
        return self.name


A, B, C = Request("A"), Request("B"), Request("C")
REFUSED = Request("refused", error="bad")


def queue_of(*requests):
    queue = RequestQueue()
    for each in requests:
        assert queue.append(each)
    return queue


class TestTheTurn:
    def test_is_nobody_s_when_there_is_no_request(self):
        assert not queue_of().claim()

    def test_is_claimed_once(self):
        queue = queue_of(A, B)
        assert queue.claim()
        assert queue.in_service
        assert not queue.claim()

    def test_can_be_given_back(self):
        queue = queue_of(A)
        queue.claim()
        assert queue.awaits_worker()
        queue.release()
        assert not queue.in_service
        assert not queue.awaits_worker()
        assert queue.claim()

    def test_is_not_taken_where_no_worker_may_be_sent(self):
        queue = queue_of(A)
        assert queue.claim(may_serve=False) is None
        assert not queue.in_service

    def test_is_the_first_one_s_though_more_have_come(self):
        queue = queue_of(A)
        assert queue.claim(may_serve=False, arrived=[B]) is None
        assert queue.claim(arrived=[C]) is A
        assert queue.requests == [A, B, C]

    def test_passes_on_to_the_next_request(self):
        queue = queue_of(A, B)
        queue.claim()
        assert queue.head() is A
        assert queue.finish(True) == (True, ())
        assert queue.in_service
        assert queue.head() is B
        assert queue.finish(True) == (False, ())
        assert not queue.in_service
        assert len(queue) == 0

    def test_goes_back_to_the_loop_before_a_refused_request(self):
        queue = queue_of(A, REFUSED)
        queue.claim()
        queue.head()
        assert queue.finish(True) == (False, ())
        assert not queue.in_service
        assert queue.claim() is REFUSED


class TestIdleness:
    def test_is_that_nothing_waits_and_something_may_come(self):
        assert queue_of().is_idle()

    def test_is_not_while_a_request_waits(self):
        assert not queue_of(A).is_idle()
        assert not queue_of(REFUSED).is_idle()

    def test_is_not_while_a_worker_has_the_turn(self):
        queue = queue_of(A)
        queue.claim()
        queue.head()
        queue.replace([])
        assert not queue.is_idle()
        queue.finish(True)
        assert queue.is_idle()

    def test_is_not_behind_the_end(self):
        queue = queue_of()
        queue.close()
        assert not queue.is_idle()


class TestARefusedRequest:
    def test_is_given_to_the_loop_when_it_is_the_first(self):
        queue = queue_of(REFUSED)
        assert queue.claim() is REFUSED
        assert not queue.in_service
        assert queue.claim(may_serve=False) is REFUSED

    def test_waits_for_those_before_it(self):
        queue = queue_of(A, REFUSED)
        assert queue.claim() is A
        assert queue.claim() is None

    def test_ends_the_queue_when_it_was_answered(self):
        queue = queue_of(REFUSED, B)
        assert queue.finish(False) == (False, [B])
        assert queue.is_ended

    def test_is_a_worker_s_when_it_became_one_in_service(self):
        queue, request = queue_of(), Request("late")
        queue.append(request)
        queue.claim()
        request.error = "bad"
        assert queue.claim() is None


class TestTheEnd:
    def test_by_a_response_names_the_requests_that_never_run(self):
        queue = queue_of(A, B, C)
        queue.claim()
        queue.head()
        assert queue.finish(False) == (False, [B, C])
        assert not queue.in_service
        assert queue.requests == []

    def test_lets_nothing_in(self):
        queue = queue_of()
        queue.close()
        assert not queue.append(A)
        assert len(queue) == 0

    def test_by_closing_names_all_that_nobody_serves(self):
        assert queue_of(A, B).close() == [A, B]

    def test_by_closing_leaves_to_the_worker_what_it_serves(self):
        queue = queue_of(A, B)
        queue.claim()
        assert queue.head() is A
        assert queue.close() == [B]
        assert queue.finish(True) == (False, ())
        assert not queue.in_service

    def test_by_closing_names_what_a_worker_was_turn_and_has_not_looked_at(self):
        """Nobody else would release what the request holds."""
        queue = queue_of(A, B)
        queue.claim()
        assert queue.close() == [A, B]
        assert queue.head() is None
        assert queue.finish(True) == (False, ())

    def test_by_closing_names_what_was_put_in_after_the_end(self):
        queue = queue_of()
        queue.close()
        queue.replace((B,))
        assert queue.close() == [B]

    def test_keeps_nothing_that_no_worker_has(self):
        queue = queue_of(A)
        queue.claim()
        queue.close()
        assert A not in state_of(queue).values()

    def test_by_closing_names_nothing_the_second_time(self):
        queue = queue_of(A)
        queue.close()
        assert queue.close() == []

    def test_by_closing_names_what_follows_a_request_that_was_given_back(self):
        queue = queue_of(A)
        queue.claim()
        queue.head()
        queue.release()
        assert queue.close() == [A]


class TestAListPutInFromOutside:
    def test_after_the_end_changes_nothing(self):
        queue = queue_of(A)
        queue.close()
        for request in (B, REFUSED):
            queue.replace([request])
            assert queue.claim() is None

    def test_after_the_end_gives_no_turn_to_the_worker_that_comes_back(self):
        queue = queue_of(A)
        queue.claim()
        queue.head()
        queue.close()
        queue.replace([B])
        assert queue.finish(True) == (False, ())
        assert not queue.in_service
        assert queue.requests == [B]

    def test_takes_the_place_of_the_queue(self):
        queue = queue_of(A)
        queue.replace([B])
        assert queue.claim()
        assert queue.head() is B

    def test_loses_nothing_to_the_request_that_was_in_service(self):
        queue = queue_of(A)
        queue.claim()
        queue.head()
        queue.replace([B])
        assert queue.finish(True) == (True, ())
        assert queue.head() is B

    def test_is_named_whole_at_the_end(self):
        queue = queue_of(A)
        queue.claim()
        queue.head()
        queue.replace([B])
        assert queue.close() == [B]

    def test_gives_the_turn_back_where_it_is_empty_before_the_worker_comes(self):
        queue = queue_of(A)
        queue.claim()
        queue.replace([])
        assert queue.head() is None
        assert queue.claim(arrived=[B]) is B

    def test_may_be_empty(self):
        queue = queue_of(A)
        queue.claim()
        queue.head()
        queue.replace([])
        assert queue.finish(True) == (False, ())


def test_whoever_comes_unsent_takes_the_turn_if_it_is_nobody_s():
    queue = queue_of(A, B)
    assert queue.head() is A
    assert queue.head() is None
    assert queue.claim() is None
    assert queue.finish(True) == (True, ())
    assert queue.head() is B


def test_whoever_comes_unsent_after_the_end_has_nothing():
    queue = queue_of()
    queue.close()
    queue.replace([A])
    assert queue.head() is None
    assert not queue.in_service


def test_whoever_comes_unsent_and_for_nothing_takes_no_turn():
    queue = queue_of()
    assert queue.head() is None
    assert queue.claim(arrived=[A]) is A


def test_finishing_without_looking_ends_the_only_one():
    queue = queue_of(A)
    queue.claim()
    assert queue.finish(True) == (False, ())
    assert queue.claim(arrived=[B]) is B
    assert queue.head() is B
    assert queue.head() is None


def test_finishing_without_looking_ends_the_first():
    queue = queue_of(A, B)
    queue.claim()
    assert queue.finish(True) == (True, ())
    assert queue.requests == [B]


def test_a_worker_that_is_done_keeps_nothing_alive():
    queue = queue_of(A)
    queue.claim()
    queue.head()
    queue.finish(True)
    assert A not in state_of(queue).values()
    assert A not in queue._turn


class EnteredError(Exception):
    pass


class ClosedLock:
    def __enter__(self):
        raise EnteredError

    def __exit__(self, *args):
        raise AssertionError("never entered")


WITH_LOCK = [
    lambda queue: queue.is_idle(),
    lambda queue: queue.cancel(),
    lambda queue: queue.append(C),
    lambda queue: queue.release(),
    lambda queue: queue.finish(True),
    lambda queue: queue.finish(False),
    lambda queue: queue.close(),
    lambda queue: queue.replace([C]),
]
WITH_LOCK_BESIDE_A_WORKER = [
    *WITH_LOCK,
    lambda queue: queue.claim(),
    lambda queue: queue.claim(arrived=[C]),
]


@pytest.mark.parametrize(
    ("has_turn", "call"),
    [(False, call) for call in WITH_LOCK] + [(True, call) for call in WITH_LOCK_BESIDE_A_WORKER],
)
def test_nothing_is_decided_before_the_lock_is_taken(has_turn, call):
    """The windows are too narrow for threads to meet in them whenever a test would."""
    queue = queue_of(A, B)
    if has_turn:
        queue.claim()
        queue.head()
    queue.lock = ClosedLock()
    before = state_of(queue)
    with pytest.raises(EnteredError):
        call(queue)
    assert state_of(queue) == before


def test_loop_takes_no_lock_to_take_the_turn_that_is_nobody_s():
    queue = queue_of()
    queue.lock = ClosedLock()
    assert queue.claim() is None
    assert queue.claim(arrived=[A, B]) is A
    assert queue.awaits_worker()


class LockAwaited:
    """The lock, which another has until it has called something."""

    def __init__(self, queue, meanwhile):
        self.queue, self.meanwhile, self.lock = queue, meanwhile, queue.lock

    def __enter__(self):
        self.queue.lock = self.lock
        self.meanwhile()
        self.lock.acquire()

    def __exit__(self, *args):
        self.lock.release()


def test_loop_that_waited_for_a_worker_to_end_takes_the_turn():
    queue = queue_of(A)
    queue.claim()
    queue.head()
    queue.lock = LockAwaited(queue, lambda: queue.finish(True))
    assert queue.claim(arrived=[B]) is B
    assert queue.requests == [B]


def test_loop_that_waited_for_a_worker_to_end_the_queue_is_told():
    queue = queue_of(A)
    queue.claim()
    queue.head()
    queue.lock = LockAwaited(queue, lambda: queue.finish(False))
    with pytest.raises(QueueEndedError):
        queue.claim(arrived=[B])
    assert queue.requests == []


class TakenMeanwhile(list):
    """The turn; a worker takes it, sent or unsent, as somebody else is about to."""

    def pop(self):
        self.queue._turn = [super().pop()]
        self.head = self.queue.head()
        self.queue._turn = self
        return super().pop()


def test_loop_sends_nobody_where_somebody_has_come_unsent():
    queue = queue_of()
    turn = queue._turn = TakenMeanwhile([None])
    turn.queue = queue
    assert queue.claim(arrived=[A, B]) is None
    assert turn.head is A
    assert queue.finish(True) == (True, ())
    assert queue.requests == [B]


class GivenBackMeanwhile(list):
    """The turn; the loop looks for it while it is given back."""

    def clear(self):
        self.claimed = [self.queue.claim(), self.queue.in_service]
        super().clear()

    def append(self, turn):
        if turn is None:
            self.claimed += [self.queue.claim(), self.queue.in_service]
        super().append(turn)


class LookedForUnlocked:
    """The lock, which the loop does not need; it would wait for itself."""

    def __enter__(self):
        pass

    def __exit__(self, *args):
        pass


@pytest.mark.parametrize(
    ("give_back", "left"),
    [(lambda queue: queue.release(), B), (lambda queue: queue.finish(True), None)],
    ids=["release", "finish"],
)
def test_loop_that_looks_while_the_turn_is_given_back_takes_it_afterwards(give_back, left):
    queue = queue_of(A, B) if left else queue_of(A)
    queue.claim()
    queue.head()
    if left:
        queue.finish(True)
    turn = queue._turn = GivenBackMeanwhile(queue._turn)
    turn.queue, turn.claimed = queue, []
    queue.lock = LookedForUnlocked()
    give_back(queue)
    assert turn.claimed[-2:] == [None, False]
    assert queue.claim() is left
    assert queue.awaits_worker() == bool(left)


def test_a_worker_that_was_sent_for_what_outsiders_took_away_gives_the_turn_back():
    queue = queue_of(A)
    queue.claim()
    queue.replace([])
    assert queue.head() is None
    assert queue.claim(arrived=[B]) is B


class TestCancelling:
    def test_in_place_of_the_worker_that_was_sent_names_all(self):
        queue = queue_of(A, B)
        queue.claim()
        assert queue.cancel() == [A, B]
        assert queue.is_ended
        assert queue.head() is None

    def test_does_nothing_where_a_worker_has_come(self):
        queue = queue_of(A, B)
        queue.claim()
        queue.head()
        before = state_of(queue)
        assert queue.cancel() is None
        assert state_of(queue) == before

    def test_does_nothing_where_nobody_has_the_turn(self):
        queue = queue_of(A)
        assert queue.cancel() is None
        assert queue.claim() is A


def test_worker_takes_no_lock_for_a_request_that_is_alone():
    queue = queue_of(A)
    queue.claim()
    queue.lock = ClosedLock()
    assert queue.head() is A
    assert queue.finish(True) == (False, ())
    assert not queue.in_service
    assert queue.requests == []


def test_a_worker_that_comes_as_the_queue_is_closed_has_its_request():
    queue = queue_of(A, B)
    queue.claim()
    turn = queue._turn = TakenMeanwhile([A])
    turn.queue = queue
    assert queue.close() == [B]
    assert turn.head is A
    assert queue.finish(True) == (False, ())


class ClosedBehind(list):
    """What a worker was sent for; the queue is closed when it has that."""

    def pop(self):
        request = super().pop()
        if not self.queue.is_ended:
            self.dropped = self.queue.close()
        return request


def test_a_worker_has_its_request_though_the_queue_is_closed_at_once():
    queue = queue_of(A, B)
    queue.claim()
    sent_for = queue._turn = ClosedBehind([A])
    sent_for.queue = queue
    assert queue.head() is A
    assert sent_for.dropped == [B]
    assert queue.finish(True) == (False, ())


class OrderedQueue(RequestQueue):
    """Tells, and lets the test go on, when an attribute was set."""

    when_set = staticmethod(lambda name: None)

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        self.when_set(name)


def test_the_end_is_seen_before_what_follows_from_it():
    """Whoever looks without the lock relies on that."""
    queue, names = OrderedQueue(), []
    queue.claim(arrived=[A])
    queue.head()
    queue.when_set = names.append
    queue.finish(False)
    assert names[-3:] == ["is_ended", "requests", "in_service"]


class ClosedFirst:
    """A lock that whoever closes the queue has first."""

    def __init__(self, queue):
        self.queue = queue
        self.lock = queue.lock

    def __enter__(self):
        self.queue.lock = self.lock
        self.dropped = self.queue.close()
        return self.lock.__enter__()

    def __exit__(self, *args):
        self.lock.__exit__(*args)


def test_a_worker_that_waits_as_the_queue_is_closed_has_its_request():
    queue = queue_of(A)
    queue.claim()
    queue.replace([B])
    lock = queue.lock = ClosedFirst(queue)
    assert queue.head() is A
    assert lock.dropped == [B]


class EndedWhileCopied(list):
    """The requests of a queue whose worker ends its own while they are copied."""

    def __getitem__(self, index):
        copied = super().__getitem__(index)
        if isinstance(index, slice):
            assert self.queue.finish(True) == (False, ())
        return copied


def test_closing_does_not_name_what_a_worker_ends_meanwhile():
    queue = queue_of()
    requests = EndedWhileCopied([A])
    requests.queue = queue
    queue.replace(requests)
    queue.claim()
    queue.head()
    assert queue.close() == []


class ShortenedMeanwhile(list):
    """Requests of which the first is taken off while somebody goes through them."""

    def __iter__(self):
        for request in super().__iter__():
            self[:] = self[1:]
            yield request


def test_closing_names_all_others_while_a_worker_takes_its_own_off():
    queue = queue_of()
    queue.replace(ShortenedMeanwhile([A, B]))
    queue.claim()
    queue.head()
    assert queue.close() == [B]


class ClosedMeanwhile(list):
    """The requests of a queue that is closed while one is taken off."""

    def __delitem__(self, index):
        self.dropped = self.queue.close()
        super().__delitem__(index)


def test_closing_as_the_last_request_ends_leaves_it_to_its_worker():
    queue = queue_of()
    requests = ClosedMeanwhile([A])
    requests.queue = queue
    queue.replace(requests)
    queue.claim()
    queue.head()
    assert queue.finish(True) == (False, ())
    assert requests.dropped == []
    assert requests == []
    assert queue.is_ended
    assert not queue.in_service


class AddedMeanwhile(list):
    """The requests of a queue to which another is added while one is taken off."""

    def __delitem__(self, index):
        assert self.queue.claim(arrived=[B]) is None
        super().__delitem__(index)


def test_a_request_that_comes_as_the_last_one_ends_is_for_the_loop_to_find():
    queue = queue_of()
    requests = AddedMeanwhile([A])
    requests.queue = queue
    queue.replace(requests)
    queue.claim()
    queue.head()
    assert queue.finish(True) == (False, ())
    assert not queue.in_service
    assert queue.claim() is B


def _race_of_loop_and_worker(repetition):
    """The loop adds a request at a time, a worker serves and reports, and somebody closes."""
    queue, requests = RequestQueue(), [Request(str(number)) for number in range(40)]
    served, refused, sent, reports = [], [], SimpleQueue(), SimpleQueue()

    def work():
        while sent.get(timeout=PATIENCE):
            has_turn = True
            while has_turn:
                request = queue.head()
                if request is None:
                    break
                served.append(request)
                has_turn, _ = queue.finish(True)
            reports.put(None)

    def close():
        for _ in range(repetition):
            queue.is_idle()
        return queue.close()

    worker, closer = InThread(work), InThread(close)
    for request in requests:
        try:
            first = queue.claim(arrived=[request])
        except QueueEndedError:
            refused.append(request)
            continue
        if first is not None:
            sent.put(True)
        while not reports.empty():
            reports.get()
            if not queue.in_service and queue.claim() is not None:
                sent.put(True)
    dropped = closer.result()
    sent.put(False)
    worker.result()
    assert sorted(map(str, served + dropped + refused)) == sorted(map(str, requests))


def _race(repetition):
    queue, requests = RequestQueue(), [Request(str(number)) for number in range(8)]
    served, barrier = [], threading.Barrier(2)

    def work():
        barrier.wait(PATIENCE)
        while not queue.is_ended:
            if queue.claim():
                has_turn = True
                while has_turn:
                    request = queue.head()
                    if request is not None:
                        served.append(request)
                    has_turn, _ = queue.finish(True)

    worker = InThread(work)
    barrier.wait(PATIENCE)
    appended = [each for each in requests[: repetition % 9] if queue.append(each)]
    dropped = queue.close()
    worker.result()
    assert sorted(map(str, served + dropped)) == sorted(map(str, appended))


@pytest.mark.stress
@pytest.mark.parametrize("race", [_race, _race_of_loop_and_worker])
def test_every_request_is_either_served_or_named_once(race):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for repetition in range(300):
            race(repetition)
    finally:
        sys.setswitchinterval(interval)
