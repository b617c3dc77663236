"""The benchmark's arithmetic: medians, spreads, and the headline with what it was to reach."""

from __future__ import annotations

from typing import Any

import pytest

from bench.figures import ratio, rotated, summarise
from bench.headline import AIMS, Aim, headline


@pytest.mark.parametrize(
    ("values", "median", "spread"),
    [
        ([4.0], 4.0, 0.0),
        ([2.0, 4.0], 3.0, 1 / 3),  # few runs: half of the whole range
        ([1.0, 2.0, 3.0], 2.0, 0.5),
        ([1.0, 2.0, 3.0, 4.0, 100.0], 3.0, 1 / 3),  # quartiles 2 and 4: an outlier does not count
        ([0.0, 0.0], 0.0, 0.0),
    ],
)
def test_summary_has_the_median_and_the_relative_spread(
    values: list[float], median: float, spread: float
) -> None:
    summary = summarise(values)

    assert (summary.median, summary.spread, summary.runs) == (median, pytest.approx(spread), len(values))


def test_ratio_to_nothing_is_infinite() -> None:
    assert ratio(3.0, 2.0) == 1.5
    assert ratio(3.0, 0.0) == float("inf")


def test_each_round_begins_with_another_contestant() -> None:
    assert [rotated("abc", round_number) for round_number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def _row(contestant: str, case: str, wall_ms: float, **more: Any) -> dict[str, Any]:
    setting = {"dataset": "flights", "size": 1000, "latency_ms": 5.0}
    return setting | {"contestant": contestant, "case": case, "wall_ms": wall_ms} | more


def test_headline_has_the_named_figures() -> None:
    other_setting = _row("ours", "fresh", 1.0) | {"size": 10}
    results = {
        "consumer": [
            other_setting,
            _row("ours", "fresh", 100.0, calls=80, write_units_per_record=2.0),
            _row("ours", "duplicates", 40.0),
            _row("question", "fresh", 80.0),
            _row("powertools", "fresh", 12_000.0),
            _row("copy_floor", "fresh", 10.0),
        ],
        "functions": [
            {"function": "Other", "seconds": 9.0},
            {"function": "ConsumerFunction", "seconds": 0.3},
        ],
        "producer": [
            {"producer": "ours", "share_of_limit": 0.99},
            {"producer": "ours", "share_of_limit": 0.97},
            {"producer": "put_record_each", "share_of_limit": 0.2},
        ],
        "package_mb": 6.2,
    }

    assert headline(results) == {
        "times_faster_than_powertools": 120.0,
        "times_question_consumer": 1.25,
        "dynamodb_calls": 80,
        "write_units_per_record": 2.0,
        "duplicate_batch_over_fresh": 0.4,
        "times_copy": 10.0,
        "cold_import_seconds": 0.3,
        "package_mb": 6.2,
        "producer_share_of_limit": 0.97,
    }


def test_what_was_not_measured_is_missing_from_the_headline() -> None:
    figures = headline({"consumer": [], "functions": [], "producer": []})

    assert set(figures.values()) == {None}
    assert {aim.key for aim in AIMS} <= figures.keys()


@pytest.mark.parametrize(
    ("aim", "value", "reached"),
    [
        (Aim(6, "key", "at most 60", 60), 60, True),
        (Aim(6, "key", "at most 60", 60), 61, False),
        (Aim(6, "key", "at least 100", 100, at_least=True), 100, True),
        (Aim(6, "key", "at least 100", 100, at_least=True), 99, False),
        (Aim(6, "key", "at least 100", 100, at_least=True), None, None),
    ],
)
def test_an_aim_is_reached_or_not_or_not_measured(
    aim: Aim, value: float | None, reached: bool | None
) -> None:
    assert aim.reached(value) is reached
