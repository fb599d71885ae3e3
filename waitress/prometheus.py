"""The figures of a server in the text format that Prometheus reads.

Owns :data:`METRICS`, the one table in which a metric is declared: the exposition and the
manual's list are made of it.

Source: https://prometheus.io/docs/instrumenting/exposition_formats/

Row 4: imports metrics and stats.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate

from waitress.metrics import OTHER, HistogramSnapshot
from waitress.stats import ServerStats

__all__ = ["CONTENT_TYPE", "METRICS", "Metric", "exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: What a metric is now: one figure, one for each value of its label, or a histogram.
_Value = float | int | Mapping[str, int] | HistogramSnapshot


@dataclass(frozen=True)
class Metric:
    """One metric, declared.

    Args:
        name: as Prometheus has it, unit and ``_total`` included.
        kind: ``counter``, ``gauge`` or ``histogram``.
        unit: of the figures, in the plural.
        help: what it means, one sentence.
        value: finds it in the statistics.
        label: the name of its label; empty for none.
    """

    name: str
    kind: str
    unit: str
    help: str
    value: Callable[[ServerStats], _Value]
    label: str = ""


def _gauge(
    name: str, unit: str, help: str, value: Callable[[ServerStats], _Value], label: str = ""
) -> Metric:
    return Metric(f"waitress_{name}", "gauge", unit, help, value, label)


def _counter(
    name: str, unit: str, help: str, value: Callable[[ServerStats], _Value], label: str = ""
) -> Metric:
    return Metric(f"waitress_{name}_total", "counter", unit, help, value, label)


def _histogram(name: str, help: str, value: Callable[[ServerStats], _Value]) -> Metric:
    return Metric(f"waitress_{name}_seconds", "histogram", "seconds", help, value)


#: Every metric, in the order in which they are told.
METRICS: tuple[Metric, ...] = (
    _gauge(
        "start_time_seconds",
        "seconds since the epoch",
        "When the server was made.",
        lambda stats: stats.started_at,
    ),
    _gauge(
        "connections",
        "connections",
        "Open connections, by what they are doing.",
        lambda stats: stats.connections,
        "state",
    ),
    _gauge(
        "connection_limit",
        "connections",
        "How many connections there may be at once; 0 until it is known.",
        lambda stats: stats.connection_limit or 0,
    ),
    _counter(
        "connections_accepted",
        "connections",
        "Connections accepted.",
        lambda stats: stats.connections_accepted,
    ),
    _gauge(
        "workers",
        "threads",
        "Threads that run the application.",
        lambda stats: stats.workers,
    ),
    _gauge(
        "workers_busy",
        "threads",
        "Workers that have something to do.",
        lambda stats: stats.workers_busy,
    ),
    _gauge(
        "workers_waiting",
        "threads",
        "Busy workers that wait for a client to read, because there is no room to buffer more.",
        lambda stats: stats.workers_waiting,
    ),
    _gauge(
        "queue_depth",
        "requests",
        "Requests that wait for a worker.",
        lambda stats: stats.queue_depth,
    ),
    _gauge(
        "queue_oldest_wait_seconds",
        "seconds",
        "How long the first request of the queue has waited whose client has not left.",
        lambda stats: stats.oldest_queue_wait,
    ),
    _counter(
        "requests",
        "requests",
        "Requests that have ended, by class of their status; none: no byte of a response left.",
        lambda stats: stats.requests.responses,
        "class",
    ),
    _counter(
        "request_terminations",
        "requests",
        "Requests that have ended, by termination code: who ended them, and in which phase.",
        lambda stats: stats.requests.terminations,
        "code",
    ),
    _histogram(
        "request_queue_wait",
        "From the arrival of a whole request until a worker took it.",
        lambda stats: stats.requests.queue_wait,
    ),
    _histogram(
        "request_application",
        "From the application's call to the end of its iterable.",
        lambda stats: stats.requests.application,
    ),
    _histogram(
        "request_duration",
        "From the first byte of a request to the last one of its response.",
        lambda stats: stats.requests.duration,
    ),
    _counter(
        "request_bytes",
        "bytes",
        "Bytes of ended requests, heads and bodies as they came.",
        lambda stats: stats.requests.bytes_in,
    ),
    _counter(
        "response_bytes",
        "bytes",
        "Bytes of responses to ended requests, heads included.",
        lambda stats: stats.requests.bytes_out,
    ),
    _counter(
        "rejects",
        "refusals",
        "What was refused of clients, by reason.",
        lambda stats: stats.rejects,
        "reason",
    ),
    _counter(
        "timeouts",
        "connections",
        "Connections whose client took too long, by what it was doing.",
        lambda stats: stats.timeouts,
        "state",
    ),
    _counter(
        "evictions",
        "connections",
        "Connections closed to make room, by what they were doing or held.",
        lambda stats: stats.evictions,
        "kind",
    ),
    _gauge(
        "buffered_bytes",
        "bytes",
        "Bytes of responses that wait to be sent, in memory and in files.",
        lambda stats: stats.buffered_bytes,
    ),
    _gauge(
        "memory_bytes",
        "bytes",
        "Bytes of requests and responses in memory; counted with max_buffered_bytes, else 0.",
        lambda stats: stats.memory_bytes,
    ),
    _gauge(
        "memory_limit_bytes",
        "bytes",
        "How many bytes of them there may be before nothing more is read; 0 for any number.",
        lambda stats: stats.memory_limit,
    ),
    _gauge(
        "spooled_bytes",
        "bytes",
        "Bytes in temporary files, of requests and of responses.",
        lambda stats: stats.spooled_bytes,
    ),
    _gauge(
        "spool_limit_bytes",
        "bytes",
        "How many bytes there may be in temporary files.",
        lambda stats: stats.spool_limit,
    ),
)

#: What a reason may look like. They are names in our source, but a parser of somebody
#: else's can give reasons of its own.
_LABEL_VALUE = re.compile(r"[-0-9A-Za-z_]{1,64}")


def exposition(stats: ServerStats) -> str:
    """Return all metrics as text."""
    return "".join(line for metric in METRICS for line in _lines(metric, metric.value(stats)))


def _lines(metric: Metric, value: _Value) -> Iterator[str]:
    yield f"# HELP {metric.name} {metric.help}\n"
    yield f"# TYPE {metric.name} {metric.kind}\n"
    if isinstance(value, HistogramSnapshot):
        yield from _histogram_lines(metric.name, value)
    elif isinstance(value, Mapping):
        for name, count in _labelled(value.items()).items():
            yield f'{metric.name}{{{metric.label}="{name}"}} {count}\n'
    else:
        yield f"{metric.name} {value}\n"


def _labelled(items: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Add up what has a name that is no label's value."""
    counts: dict[str, int] = {}
    for name, count in items:
        label = name if _LABEL_VALUE.fullmatch(name) else OTHER
        counts[label] = counts.get(label, 0) + count
    return counts


def _histogram_lines(name: str, histogram: HistogramSnapshot) -> Iterator[str]:
    for bound, count in zip(
        (*map(str, histogram.bounds), "+Inf"), accumulate(histogram.counts), strict=True
    ):
        yield f'{name}_bucket{{le="{bound}"}} {count}\n'
    yield f"{name}_sum {histogram.sum}\n"
    yield f"{name}_count {histogram.count}\n"
