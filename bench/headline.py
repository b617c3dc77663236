"""The few figures that stand for all, and what they were to reach. Pure: from the results to numbers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

from bench.figures import ratio

type Results = dict[str, Any]

CONSUMER_FUNCTION = "ConsumerFunction"


FIRST, SECOND = "the first version", "the faster version"


class Aim(NamedTuple):
    """A figure to reach."""

    of: str
    """Which version of the consumer and the producer was to reach it."""
    key: str
    says: str
    limit: float
    at_least: bool = False

    def reached(self, value: float | None) -> bool | None:
        """Whether it is reached; None when it was not measured."""
        if value is None:
            return None
        return value >= self.limit if self.at_least else value <= self.limit


AIMS = (
    Aim(
        FIRST, "times_faster_than_powertools", "times faster than Powertools as documented", 60, at_least=True
    ),
    Aim(FIRST, "dynamodb_calls", "DynamoDB calls for 1,000 records", 90),
    Aim(FIRST, "write_units_per_record", "write units a new record", 2),
    Aim(FIRST, "cold_import_seconds", "seconds to import the consumer", 0.6),
    Aim(FIRST, "package_mb", "MB, the package zipped", 25),
    Aim(
        SECOND,
        "times_faster_than_powertools",
        "times faster than Powertools as documented",
        100,
        at_least=True,
    ),
    Aim(SECOND, "times_question_consumer", "times as long as the question's consumer", 1),
    Aim(SECOND, "dynamodb_calls", "DynamoDB calls for 1,000 records", 60),
    Aim(SECOND, "duplicate_batch_over_fresh", "a batch of duplicates over a fresh one", 0.5),
    Aim(SECOND, "cold_import_seconds", "seconds to import the consumer", 0.35),
    Aim(
        SECOND,
        "producer_share_of_limit",
        "of the shards' limit, the least of 1 to 8 shards",
        0.95,
        at_least=True,
    ),
)


def find(rows: Iterable[dict[str, Any]], **wanted: Any) -> dict[str, Any] | None:
    """The first row with these values."""
    return next((row for row in rows if wanted.items() <= row.items()), None)


def headline(results: Results) -> dict[str, float | None]:
    """The headline figures: 1,000 flights a batch, 5 ms added to each DynamoDB call. None: not measured."""
    setting = {"dataset": "flights", "size": 1000, "latency_ms": 5.0}

    def wall(contestant: str, case: str = "fresh") -> float | None:
        row = find(results["consumer"], contestant=contestant, case=case, **setting)
        return None if row is None else float(row["wall_ms"])

    ours = find(results["consumer"], contestant="ours", case="fresh", **setting) or {}
    consumer = find(results["functions"], function=CONSUMER_FUNCTION) or {}
    shares = [row["share_of_limit"] for row in results["producer"] if row["producer"] == "ours"]
    return {
        "times_faster_than_powertools": _over(wall("powertools"), wall("ours")),
        "times_question_consumer": _over(wall("ours"), wall("question")),
        "dynamodb_calls": ours.get("calls"),
        "write_units_per_record": ours.get("write_units_per_record"),
        "duplicate_batch_over_fresh": _over(wall("ours", "duplicates"), wall("ours")),
        "times_copy": _over(wall("ours"), wall("copy_floor")),
        "cold_import_seconds": consumer.get("seconds"),
        "package_mb": results.get("package_mb"),
        "producer_share_of_limit": min(shares, default=None),
    }


def _over(value: float | None, base: float | None) -> float | None:
    return None if value is None or base is None else round(ratio(value, base), 3)
