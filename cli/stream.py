"""How the stream stands: what came in, what is settled, what waits.

On this machine our own poller counts. AWS does not count a stream's records, so a deployed stack shows CloudWatch's
metrics of the last hour, a minute or two late.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cli.errors import UserError, asking
from common.observability import (
    DUPLICATES_SKIPPED,
    RECORDS_CONFLICTING,
    RECORDS_INSERTED,
    RECORDS_REJECTED,
    RECORDS_RETRIED,
)
from local import background

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.target import Target

SPAN = timedelta(hours=1)
"""What CloudWatch is asked about."""
RECENT = timedelta(minutes=5)
"""What "now" is with CloudWatch, whose figures come in minutes and late."""

_SETTLED = (RECORDS_INSERTED, DUPLICATES_SKIPPED, RECORDS_REJECTED, RECORDS_CONFLICTING)


@dataclass(frozen=True, slots=True)
class Stream:
    """What is known of the stream. None: not known there."""

    source: str
    """Who counted, and over which time."""
    came_in: int | None = None
    """Records that went onto the stream, repetitions counted."""
    settled: int | None = None
    """Records that the consumer has settled: a row, a duplicate, a rejection."""
    waiting: int | None = None
    """Records that are on the stream and not settled."""
    waiting_may_be_more: bool = False
    """Whether the stream has records that the poller has not read yet."""
    oldest_seconds: float | None = None
    """How long the oldest record that waits, or waited within ``RECENT``, has been on the stream."""
    failing: int | None = None
    """Deliveries, or records on AWS, that have to be retried: on this machine since the last success, on AWS within
    ``RECENT``."""
    problem: str | None = None
    """Why the last delivery failed as a whole, or why there are no figures."""

    def lines(self) -> Iterator[tuple[str, str]]:
        """The figures in words: a name and a text each."""
        if self.came_in is not None:
            parts = [f"{self.came_in:,} records in", f"{self.settled or 0:,} settled"]
            if self.waiting is not None:
                more = " or more" if self.waiting_may_be_more else ""
                parts.append(f"{self.waiting:,}{more} waiting")
            if self.oldest_seconds is not None and self.oldest_seconds >= 1:
                parts.append(f"the oldest for {_duration(self.oldest_seconds)}")
            yield "stream", f"{', '.join(parts)} ({self.source})"
        if self.failing:
            yield "failing", f"{self.failing:,} {self._failing_what}"
        if self.problem:
            yield "", self.problem

    @property
    def _failing_what(self) -> str:
        return (
            "deliveries in a row" if self.waiting is not None else "records retried in the last five minutes"
        )

    def to_json(self) -> dict[str, Any]:
        """As ``once status --stream --json`` prints it."""
        return asdict(self)


def of(target: Target) -> Stream:
    """The figures of the target's stream. Where there are none, ``problem`` says why."""
    try:
        return _on_this_machine(target) if target.is_local else _in_the_cloud(target)
    except UserError as error:
        return Stream(source="nobody", problem=f"no figures of the stream. {error}")


def _on_this_machine(target: Target) -> Stream:
    flow = background.flow()
    found = None if flow is None else flow.get(target.output("ConsumerFunctionName"))
    if found is None:
        raise UserError("The poller of this stack has not told of the consumer yet.")
    return Stream(
        source="counted by this stack's poller",
        came_in=found.read,
        settled=found.read - found.waiting,
        waiting=found.waiting,
        waiting_may_be_more=not found.all_read,
        failing=found.failed_in_a_row,
        problem=found.problem,
    )


def _in_the_cloud(target: Target) -> Stream:
    ours, consumer = f"Oncestream/{target.name}", target.output("ConsumerFunctionName")
    stream = [{"Name": "StreamName", "Value": target.output("RecordStreamName")}]
    function = [{"Name": "FunctionName", "Value": consumer}]
    service = [{"Name": "service", "Value": "consumer"}]
    wanted = {
        "in": ("AWS/Kinesis", "IncomingRecords", stream, "Sum"),
        "age": ("AWS/Lambda", "IteratorAge", function, "Maximum"),
        "errors": ("AWS/Lambda", "Errors", function, "Sum"),
        "retried": (ours, RECORDS_RETRIED, service, "Sum"),
    } | {f"settled{number}": (ours, name, service, "Sum") for number, name in enumerate(_SETTLED)}
    now = datetime.now(UTC)
    with asking("ask CloudWatch"):
        pages = target.client("cloudwatch").get_paginator("get_metric_data")
        points: dict[str, list[tuple[datetime, float]]] = {name.lower(): [] for name in wanted}
        for page in pages.paginate(
            StartTime=now - SPAN,
            EndTime=now,
            MetricDataQueries=[
                {
                    "Id": f"m_{name}",
                    "MetricStat": {
                        "Metric": {"Namespace": namespace, "MetricName": metric, "Dimensions": dimensions},
                        "Period": 60,
                        "Stat": statistic,
                    },
                }
                for name, (namespace, metric, dimensions, statistic) in wanted.items()
            ],
        ):
            for result in page["MetricDataResults"]:
                points[result["Id"].removeprefix("m_")] += zip(
                    result["Timestamps"], result["Values"], strict=True
                )

    def recent(name: str) -> list[float]:
        return [value for at, value in points[name] if at >= now - RECENT]

    errors = int(sum(recent("errors")))
    return Stream(
        source="CloudWatch, the last hour, a minute or two late",
        came_in=int(sum(value for _, value in points["in"])),
        settled=int(sum(value for name in points if name.startswith("settled") for _, value in points[name])),
        oldest_seconds=max(recent("age"), default=0.0) / 1000,
        failing=int(sum(recent("retried"))),
        problem=f"{errors:,} invocations of the consumer failed in the last five minutes: see its log"
        if errors
        else None,
    )


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"
