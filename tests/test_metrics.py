"""Counts and histograms of ended requests; all from timelines that the tests make."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tests.fakes import FakeClock
from tests.timelines import momentary_timeline
from waitress.metrics import (
    DURATION_BOUNDS,
    PATH_CHARACTERS,
    SLOWEST_KEPT,
    SLOWEST_WINDOW_SECONDS,
    WAIT_BOUNDS,
    Histogram,
    HistogramSnapshot,
    Metrics,
    path_text,
    peer_text,
)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.fixture
def metrics(clock: FakeClock) -> Metrics:
    return Metrics(clock, lambda: clock.now + 1e9)


# Histograms.


def test_a_value_falls_into_the_first_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1.0, 2.0, 5.0))
    for value in (0.0, 1.0, 1.0001, 2.0, 5.0, 5.1, 100.0):
        histogram.add(value)
    taken = histogram.snapshot()
    assert taken.counts == (2, 2, 1, 2)
    assert taken.count == 7
    assert taken.sum == pytest.approx(114.1001)


def test_a_snapshot_does_not_change_any_more() -> None:
    histogram = Histogram((1.0,))
    histogram.add(0.5)
    taken = histogram.snapshot()
    histogram.add(0.5)
    assert taken.counts == (1, 0)


@pytest.mark.parametrize(
    ("part", "value"), [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 3.0), (1.0, 4.0)]
)
def test_a_quantile_lies_evenly_in_its_bucket(part: float, value: float) -> None:
    assert HistogramSnapshot((1.0, 2.0, 4.0), (2, 0, 2, 0), 7.0).quantile(part) == value


def test_a_quantile_beyond_the_last_bound_is_that_bound() -> None:
    assert HistogramSnapshot((1.0, 2.0), (0, 0, 3), 90.0).quantile(0.5) == 2.0


def test_of_no_values_there_is_no_quantile() -> None:
    assert HistogramSnapshot((1.0,), (0, 0), 0.0).quantile(0.5) is None


def test_bounds_ascend() -> None:
    for bounds in (WAIT_BOUNDS, DURATION_BOUNDS):
        assert list(bounds) == sorted(set(bounds))


# Counting.


def test_nothing_is_counted_at_first(metrics: Metrics, clock: FakeClock) -> None:
    clock.advance(5)
    totals = metrics.totals()
    assert totals.count == 0
    assert totals.measured_seconds == 5
    assert totals.slowest == ()
    assert set(totals.responses) == {"1xx", "2xx", "3xx", "4xx", "5xx", "none"}


def test_each_request_counts_in_the_class_of_its_status(metrics: Metrics) -> None:
    for status in ("200 OK", "204 No Content", "304 Not Modified", "404 X", "500 X", "", "999 ?"):
        metrics.timeline_ended(momentary_timeline(status=status))
    responses = metrics.totals().responses
    assert responses == {"1xx": 0, "2xx": 2, "3xx": 1, "4xx": 1, "5xx": 1, "none": 2}
    assert metrics.totals().count == 7


def test_a_response_of_which_nothing_left_is_none(metrics: Metrics) -> None:
    """Its client had gone: whatever was to be said, nobody was told."""
    metrics.timeline_ended(momentary_timeline(status="200 OK", bytes_out=0, termination="CA"))
    assert metrics.totals().responses["none"] == 1
    assert metrics.totals().slowest[0].status == ""


def test_what_the_server_answers_by_itself_is_not_counted(metrics: Metrics) -> None:
    metrics.timeline_ended(momentary_timeline(is_own_answer=True))
    assert metrics.totals().count == metrics.totals().duration.count == 0
    assert metrics.totals().terminations == {}


def test_termination_codes_are_counted_and_strange_ones_together(metrics: Metrics) -> None:
    for code in ("--", "CD", "CD", "AQ", "XY", "", "CD!", "client said so"):
        metrics.timeline_ended(momentary_timeline(termination=code))
    assert metrics.totals().terminations == {"--": 1, "CD": 2, "AQ": 1, "other": 4}


def test_bytes_add_up(metrics: Metrics) -> None:
    metrics.timeline_ended(momentary_timeline(bytes_in=10, bytes_out=200))
    metrics.timeline_ended(momentary_timeline(bytes_in=5, bytes_out=1))
    totals = metrics.totals()
    assert (totals.bytes_in, totals.bytes_out) == (15, 201)


def test_times_are_taken_between_their_instants(metrics: Metrics) -> None:
    metrics.timeline_ended(
        momentary_timeline(
            first_byte=1.0,
            queued=2.0,
            started=4.0,
            application_started=4.5,
            application_finished=7.0,
            closed=7.5,
            last_byte_out=11.0,
            ended=12.0,
        )
    )
    totals = metrics.totals()
    assert totals.queue_wait.sum == 2.0
    assert totals.application.sum == 3.0
    assert totals.duration.sum == 10.0


def test_where_no_last_byte_left_the_end_counts(metrics: Metrics) -> None:
    metrics.timeline_ended(momentary_timeline(first_byte=1.0, last_byte_out=None, ended=4.0))
    assert metrics.totals().duration.sum == 3.0


def test_where_the_iterable_was_not_closed_its_end_counts(metrics: Metrics) -> None:
    metrics.timeline_ended(
        momentary_timeline(application_started=1.0, application_finished=2.0, closed=None)
    )
    assert metrics.totals().application.sum == 1.0


def test_what_did_not_happen_is_not_measured(metrics: Metrics) -> None:
    metrics.timeline_ended(
        momentary_timeline(first_byte=None, queued=None, application_started=None)
    )
    totals = metrics.totals()
    assert totals.count == 1
    assert totals.duration.count == totals.queue_wait.count == totals.application.count == 0


def test_what_was_refused_waited_for_no_worker(metrics: Metrics) -> None:
    metrics.timeline_ended(momentary_timeline(queued=1.0, started=2.0, refusal="obs-fold"))
    assert metrics.totals().queue_wait.count == 0


def test_instants_of_two_threads_that_seem_to_be_in_the_wrong_order_make_no_negative_time(
    metrics: Metrics,
) -> None:
    metrics.timeline_ended(momentary_timeline(queued=2.0, started=1.9))
    assert metrics.totals().queue_wait.sum == 0.0


# The slowest.


def durations(metrics: Metrics) -> list[float]:
    return [each.duration for each in metrics.totals().slowest]


def took(seconds: float, **facts: Any) -> Any:
    return momentary_timeline(first_byte=0.0, last_byte_out=seconds, **facts)


def test_the_slowest_are_told_the_slowest_first(metrics: Metrics) -> None:
    for seconds in range(1, 3 * SLOWEST_KEPT):
        metrics.timeline_ended(took((seconds * 7) % 31))
    expected = sorted(((s * 7) % 31 for s in range(1, 3 * SLOWEST_KEPT)), reverse=True)
    assert durations(metrics) == expected[:SLOWEST_KEPT]


def test_a_slow_one_is_told_with_what_is_known_of_it(metrics: Metrics, clock: FakeClock) -> None:
    metrics.timeline_ended(
        took(
            9.0,
            method="GET",
            path="/a?token=secret",
            status="200 OK",
            peer=("192.0.2.1", 4711),
            queued=1.0,
            started=2.0,
            application_started=2.0,
            closed=5.0,
            termination="--",
        )
    )
    (slow,) = metrics.totals().slowest
    assert slow.ended_at == clock.now + 1e9
    assert (slow.method, slow.path, slow.status) == ("GET", "/a", "200 OK")
    assert (slow.peer, slow.termination) == ("192.0.2.1:4711", "--")
    assert (slow.duration, slow.queue_wait, slow.application) == (9.0, 1.0, 3.0)


def test_what_a_client_says_is_cut_short(metrics: Metrics) -> None:
    metrics.timeline_ended(took(1.0, method="X" * 1000, path="/" * 1000))
    (slow,) = metrics.totals().slowest
    assert len(slow.method) == 20
    assert slow.path == "/" * PATH_CHARACTERS + "..."


def test_the_slowest_are_forgotten_after_two_windows(metrics: Metrics, clock: FakeClock) -> None:
    metrics.timeline_ended(took(9.0))
    clock.advance(SLOWEST_WINDOW_SECONDS)
    metrics.timeline_ended(took(1.0))
    assert durations(metrics) == [9.0, 1.0]
    clock.advance(SLOWEST_WINDOW_SECONDS)
    assert durations(metrics) == [1.0]
    clock.advance(2 * SLOWEST_WINDOW_SECONDS)
    assert durations(metrics) == []


def test_requests_of_one_duration_can_be_told(metrics: Metrics) -> None:
    for _ in range(SLOWEST_KEPT + 1):
        metrics.timeline_ended(took(1.0))
    assert durations(metrics) == [1.0] * SLOWEST_KEPT


def test_snapshots_of_another_thread_are_whole(metrics: Metrics) -> None:
    """Whatever the moment: as many durations as requests, and the bytes of as many."""
    done = threading.Event()

    def count() -> None:
        for _ in range(3000):
            metrics.timeline_ended(took(1.0, bytes_in=3))
        done.set()

    thread = threading.Thread(target=count)
    thread.start()
    while not done.is_set():
        totals = metrics.totals()
        assert totals.duration.count == totals.count
        assert totals.bytes_in == 3 * totals.count
    thread.join()
    assert metrics.totals().count == 3000


# Texts.


@pytest.mark.parametrize(
    ("peer", "text"),
    [
        (("192.0.2.1", 80), "192.0.2.1:80"),
        (("2001:db8::1", 80, 0, 0), "[2001:db8::1]:80"),
        (("localhost", None), "localhost"),
        ("somebody", "somebody"),
        (None, ""),
        ((), ""),
    ],
)
def test_peers_are_told_by_host_and_port(peer: Any, text: str) -> None:
    assert peer_text(peer) == text


def test_paths_are_shown_without_their_query() -> None:
    assert path_text("/a?b=c?d") == "/a"
