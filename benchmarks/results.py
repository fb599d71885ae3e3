"""What is measured, what is wanted of it, and the arithmetic of rounds; pure.

Row 2: imports ``servers``.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from math import inf, isfinite
from typing import Any, Literal

from benchmarks.servers import OURS, RELEASED

#: What one server did in one round of one row, by the keys of :data:`MEASURES`.
Sample = dict[str, float]


#: Less than this much behind is level: runs of one and the same server differ by more.
LEVEL = 0.99


@dataclass(frozen=True)
class Measure:
    """A quantity: how it is called, and whether more of it is better."""

    label: str
    more_is_better: bool = False


MEASURES = {
    "requests_per_cpu_second": Measure("requests/CPU s", more_is_better=True),
    "requests_per_second": Measure("requests/s", more_is_better=True),
    "p50_ms": Measure("p50 ms"),
    "p99_ms": Measure("p99 ms"),
    "failures": Measure("failures"),
    "cpu_seconds_per_gib": Measure("CPU s/GiB"),
    "gib_per_second": Measure("GiB/s", more_is_better=True),
    "growth_mib": Measure("growth MiB"),
    "pss_mib": Measure("Pss MiB"),
    "idle_clients": Measure("idle clients", more_is_better=True),
    "seconds_per_10000_accepted": Measure("s/10,000 accepted"),
    "kib_per_idle_client": Measure("KiB/idle client"),
    "cost_beside": Measure("CPU/request beside ÷ alone"),
    "cost_watched": Measure("CPU/request watched ÷ unwatched"),
    "p99_beside": Measure("p99 beside ÷ alone"),
    "percent_fed": Measure("% fed", more_is_better=True),
    "percent_of_ideal": Measure("% of threads/10 ms", more_is_better=True),
    "wake_ups_per_second": Measure("wake-ups/s"),
    "cpu_percent": Measure("CPU %"),
}


@dataclass(frozen=True)
class Target:
    """What is wanted of a measure.

    As a "ratio" it is compared with the released waitress, oriented so that 2 is twice as
    good, whichever way is better; as a "difference" so much may be added to what the
    released one has; a "value" stands for itself.
    """

    key: str
    compared: Literal["ratio", "difference", "value"] = "ratio"
    at_least: float = -inf
    at_most: float = inf

    @property
    def bound(self) -> str:
        """The target in words."""
        return f">= {self.at_least:g}" if self.at_least > -inf else f"<= {self.at_most:g}"

    @property
    def label(self) -> str:
        suffix = {"ratio": " ratio", "difference": " more", "value": ""}[self.compared]
        return MEASURES[self.key].label + suffix

    def is_met(self, value: float | None) -> bool:
        """Say whether a figure is good enough; none is not."""
        return value is not None and self.at_least <= value <= self.at_most


@dataclass
class Results:
    """A whole run: its circumstances, and every sample by row, server and round.

    A round in which a server failed is an empty sample; ``failures`` tells why.
    """

    circumstances: dict[str, Any]
    versions: dict[str, str]
    skipped: dict[str, str]
    samples: dict[str, dict[str, list[Sample]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    @property
    def servers(self) -> list[str]:
        return list(self.versions)

    def as_json(self) -> dict[str, Any]:
        """Return what :meth:`from_json` takes."""
        return asdict(self)

    @classmethod
    def from_json(cls, told: dict[str, Any]) -> Results:
        """Take what was written."""
        return cls(**told)

    def add(self, row: str, server: str, sample: Sample, failure: str = "") -> None:
        """Put down what a server did in the next round of a row."""
        self.samples.setdefault(row, {}).setdefault(server, []).append(sample)
        if failure:
            self.failures.setdefault(row, {})[server] = failure

    def median(self, row: str, server: str, key: str) -> float | None:
        """Return the median over the rounds; None if there is nothing."""
        rounds = self.samples.get(row, {}).get(server, [])
        return _median(sample[key] for sample in rounds if key in sample)

    def keys(self, row: str) -> list[str]:
        """Return which measures a row has, in the order of the table of them."""
        found = {
            key
            for rounds in self.samples.get(row, {}).values()
            for sample in rounds
            for key in sample
        }
        return [key for key in MEASURES if key in found]

    def figure(self, row: str, server: str, target: Target) -> float | None:
        """Return what a target is about: a median of what was compared within each round."""
        if target.compared == "value":
            return self.median(row, server, target.key)
        better = MEASURES[target.key].more_is_better
        compared = []
        for value, released in self._pairs(row, server, RELEASED, target.key):
            if target.compared == "difference":
                compared.append(value - released)
            else:
                compared.append(_ratio(value, released) if better else _ratio(released, value))
        return _median(compared)

    def is_level(self, row: str, other: str, key: str) -> bool | None:
        """Say whether ours is level with another, or ahead; None where one gave no figure."""
        better = MEASURES[key].more_is_better
        pairs = list(self._pairs(row, OURS, other, key))
        ratio = _median(_ratio(*pair) if better else _ratio(*reversed(pair)) for pair in pairs)
        return None if ratio is None else ratio >= LEVEL

    def _pairs(self, row: str, one: str, other: str, key: str) -> Iterable[tuple[float, float]]:
        by_server = self.samples.get(row, {})
        rounds = zip(by_server.get(one, []), by_server.get(other, []), strict=False)
        for sample, beside in rounds:
            if key in sample and key in beside:
                yield sample[key], beside[key]


def _ratio(value: float, base: float) -> float:
    if base:
        return value / base
    return inf if value else 1.0


def _median(values: Iterable[float]) -> float | None:
    present = list(values)
    if not present:
        return None
    # Of one without end and one with, the mean would have none.
    if not all(map(isfinite, present)):
        return statistics.median_low(present)
    return statistics.median(present)
