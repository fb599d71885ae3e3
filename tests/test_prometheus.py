"""The exposition, read by the parser of those who made the format."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import FakeClock
from tests.timelines import momentary_timeline
from waitress.metrics import DURATION_BOUNDS, Metrics
from waitress.prometheus import CONTENT_TYPE, METRICS, exposition
from waitress.stats import ServerStats


def stats(**facts: Any) -> ServerStats:
    """Return statistics in which no two figures are alike."""
    clock = FakeClock(1000.0)
    metrics = Metrics(clock, clock)
    for seconds, status in ((0.002, "200 OK"), (0.02, "200 OK"), (700.0, "500 X")):
        metrics.timeline_ended(
            momentary_timeline(
                first_byte=0.0, last_byte_out=seconds, status=status, bytes_in=7, bytes_out=9
            )
        )
    taken = ServerStats(
        started_at=4900.125,
        taken_at=5000.5,
        uptime=100.25,
        connections={"idle": 11, "serving": 2},
        connection_limit=333,
        connections_accepted=12345,
        workers=4,
        workers_busy=3,
        workers_waiting=1,
        queue_depth=6,
        oldest_queue_wait=1.5,
        buffered_bytes=1001,
        memory_bytes=1004,
        memory_limit=1005,
        spooled_bytes=1002,
        spool_limit=1003,
        rejects={"obs-fold": 5},
        timeouts={"idle": 8},
        evictions={"head": 9},
        requests=metrics.totals(),
    )
    return replace(taken, **facts)


def families(taken: ServerStats) -> dict[str, Any]:
    return {family.name: family for family in text_string_to_metric_families(exposition(taken))}


def samples(taken: ServerStats) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in families(taken).values()
        for sample in family.samples
    }


def test_every_metric_is_read_with_its_type_and_its_help() -> None:
    found = families(stats())
    for metric in METRICS:
        family = found[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
        assert family.samples
    assert len(found) == len(METRICS)


@pytest.mark.parametrize(
    ("sample", "value"),
    [
        (("waitress_start_time_seconds",), 4900.125),
        (("waitress_connections", "idle"), 11),
        (("waitress_connections", "serving"), 2),
        (("waitress_connection_limit",), 333),
        (("waitress_connections_accepted_total",), 12345),
        (("waitress_workers",), 4),
        (("waitress_workers_busy",), 3),
        (("waitress_workers_waiting",), 1),
        (("waitress_queue_depth",), 6),
        (("waitress_queue_oldest_wait_seconds",), 1.5),
        (("waitress_requests_total", "2xx"), 2),
        (("waitress_requests_total", "5xx"), 1),
        (("waitress_request_terminations_total", "--"), 3),
        (("waitress_request_bytes_total",), 21),
        (("waitress_response_bytes_total",), 27),
        (("waitress_rejects_total", "obs-fold"), 5),
        (("waitress_timeouts_total", "idle"), 8),
        (("waitress_evictions_total", "head"), 9),
        (("waitress_buffered_bytes",), 1001),
        (("waitress_spooled_bytes",), 1002),
        (("waitress_spool_limit_bytes",), 1003),
        (("waitress_request_duration_seconds_count",), 3),
        (("waitress_request_duration_seconds_sum",), 700.022),
        (("waitress_request_queue_wait_seconds_count",), 3),
        (("waitress_request_application_seconds_count",), 0),
    ],
)
def test_each_figure_stands_where_it_belongs(sample: tuple[str, ...], value: float) -> None:
    assert samples(stats())[sample] == pytest.approx(value)


def test_buckets_are_cumulative_and_end_with_all() -> None:
    name = "waitress_request_duration_seconds_bucket"
    buckets = {key[1]: value for key, value in samples(stats()).items() if key[0] == name}
    assert buckets["0.001"] == 0
    assert buckets["0.0025"] == 1
    assert buckets["0.025"] == buckets["60.0"] == 2
    assert buckets["+Inf"] == 3
    assert len(buckets) == len(DURATION_BOUNDS) + 1


def test_a_limit_that_is_not_known_yet_is_0() -> None:
    assert samples(stats(connection_limit=None))["waitress_connection_limit",] == 0


def test_reasons_that_are_no_names_are_counted_together() -> None:
    """Those of somebody else's parser might be made of what a client sent."""
    rejects = {"fine-1": 1, 'quo"te': 2, "line\nwaitress_workers 99": 3, "x" * 65: 4, "other": 5}
    found = samples(stats(rejects=rejects))
    told = {key[1]: value for key, value in found.items() if key[0] == "waitress_rejects_total"}
    assert told == {"fine-1": 1, "other": 14}


def test_names_and_units_follow_the_conventions() -> None:
    for metric in METRICS:
        assert re.fullmatch(r"waitress_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert ("seconds" in metric.unit) == ("_seconds" in metric.name)
        assert metric.help.endswith(".")
        assert "\n" not in metric.help
        assert "\\" not in metric.help
    assert CONTENT_TYPE.startswith("text/plain; version=0.0.4")
