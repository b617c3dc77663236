"""The benchmark's own arithmetic."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Summary(NamedTuple):
    """What several runs of one measurement say."""

    median: float
    spread: float
    """Half the distance between the quartiles, as a share of the median: with few runs, half of the whole range."""
    runs: int


def summarise(values: Sequence[float]) -> Summary:
    """Median and spread of some runs (at least one)."""
    median = statistics.median(values)
    if len(values) < 4:
        width = max(values) - min(values)
    else:
        low, _, high = statistics.quantiles(values, n=4, method="inclusive")
        width = high - low
    return Summary(median, width / 2 / median if median else 0.0, len(values))


def ratio(value: float, base: float) -> float:
    """``value`` over ``base``; infinite over nothing."""
    return value / base if base else float("inf")


def rotated[T](items: Sequence[T], by: int) -> list[T]:
    """The same items, begun elsewhere: each round runs the contestants in another order."""
    by %= max(1, len(items))
    return [*items[by:], *items[:by]]
