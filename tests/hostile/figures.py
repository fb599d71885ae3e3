"""What was measured, what it may be at the most or at the least, and a table of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import inf

MIB = 1024 * 1024


@dataclass(frozen=True)
class Figure:
    """One measured value; a bound that is infinite is none."""

    name: str
    value: float
    unit: str = ""
    at_least: float = -inf
    at_most: float = inf

    @property
    def holds(self) -> bool:
        return self.at_least <= self.value <= self.at_most

    @property
    def bounds(self) -> str:
        if self.at_least == self.at_most:
            return f"= {self.at_least:g}"
        parts = []
        if self.at_least > -inf:
            parts.append(f">= {self.at_least:g}")
        if self.at_most < inf:
            parts.append(f"<= {self.at_most:g}")
        return ", ".join(parts)

    def __str__(self) -> str:
        mark = " " if self.holds else "!"
        value = f"{self.value:.0f}" if float(self.value).is_integer() else f"{self.value:.2f}"
        return f"{mark} {self.name:<58} {value:>9} {self.unit:<5} {self.bounds}".rstrip()


def exactly(name: str, value: float, wanted: float, unit: str = "") -> Figure:
    return Figure(name, value, unit, at_least=wanted, at_most=wanted)


def part(values: Iterable[float], fraction: float) -> float:
    """Return the value that such a fraction of the values does not exceed; NaN of none."""
    ordered = sorted(values)
    if not ordered:
        return float("nan")
    return ordered[min(len(ordered) - 1, int(len(ordered) * fraction))]


def waits(
    whose: str, seconds: Sequence[float], median_ms: float = inf, most_ms: float = inf
) -> list[Figure]:
    """Return the figures of how long somebody waited for each of many answers."""
    return [
        Figure(f"{whose}: answers", len(seconds), at_least=1),
        Figure(f"{whose}: median", part(seconds, 0.5) * 1000, "ms", at_most=median_ms),
        Figure(f"{whose}: 99 of 100 within", part(seconds, 0.99) * 1000, "ms"),
        Figure(f"{whose}: longest", part(seconds, 1) * 1000, "ms", at_most=most_ms),
    ]
