"""What a batch leaves in the log and in the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from logging import DEBUG

from aws_lambda_powertools.metrics import MetricUnit

from common.observability import (
    DUPLICATES_SKIPPED,
    RECORDS_CONFLICTING,
    RECORDS_INSERTED,
    RECORDS_RECEIVED,
    RECORDS_REJECTED,
    RECORDS_RETRIED,
    logger,
    metrics,
)
from common.waiting import Waiting
from consumer.decode import Arrived, Rejection
from oncestream.engine import Outcome, Result

SHOWN = 20
"""A batch may be 10,000 records: this many of a kind are named in the log."""

_SAFE = ("not JSON", "not UTF-8", "not base64", "empty body", "Postgres: a trigger on records returned NULL")
"""Reasons that begin like this name a place in the bytes, and nothing of what stands there."""

_METRICS = {
    Outcome.PROCESSED: RECORDS_INSERTED,
    Outcome.DUPLICATE: DUPLICATES_SKIPPED,
    Outcome.CONFLICTING: RECORDS_CONFLICTING,
    Outcome.REJECTED: RECORDS_REJECTED,
    Outcome.RETRIED: RECORDS_RETRIED,
}


def report(results: Sequence[Result[Arrived, Rejection]]) -> None:
    """Count a batch and name what is not ordinary: duplicates, rejections, conflicts, why records have to be retried.

    Nothing of a record reaches the log but its id.
    """
    counts = Counter(result.outcome for result in results)
    metrics.add_metric(RECORDS_RECEIVED, MetricUnit.Count, len(results))
    for outcome, name in _METRICS.items():
        metrics.add_metric(name, MetricUnit.Count, counts[outcome])

    duplicates = [result for result in results if result.outcome is Outcome.DUPLICATE]
    if duplicates:
        shown = [result.id for result in duplicates[:SHOWN]]
        logger.info("Duplicate skipped", count=len(duplicates), ids=shown)
        if duplicates[SHOWN:] and logger.log_level <= DEBUG:
            logger.debug("Duplicate skipped, the others", ids=[result.id for result in duplicates[SHOWN:]])
    _warn(results, Outcome.REJECTED, "Record rejected", "More records rejected")
    _warn(results, Outcome.CONFLICTING, "Record conflicting", "More records conflicting")
    for reason, count in Counter(str(result.error) for result in results if result.error).items():
        logger.warning("Records will be retried", count=count, reason=reason)
    named = {outcome.value: counts[outcome] for outcome in Outcome if outcome is not Outcome.PROCESSED}
    logger.info("Batch done", extra={"received": len(results), "inserted": counts[Outcome.PROCESSED]} | named)


def note(results: Sequence[Result[Arrived, Rejection]], waiting: Waiting) -> None:
    """Note why records of the batch have to be retried, the reason of the most of them; or that none has to be."""
    reasons = Counter(str(result.error) for result in results if result.error)
    if reasons:
        [(reason, _)] = reasons.most_common(1)
        waiting.note(reason)
    else:
        waiting.clear()


def _warn(results: Sequence[Result[Arrived, Rejection]], outcome: Outcome, one: str, more: str) -> None:
    found = [result.record for result in results if result.outcome is outcome]
    for record in found[:SHOWN]:
        logger.warning(
            one,
            id=record.id if isinstance(record, Rejection) else record.record.id,
            record_id=record.record_id if isinstance(record, Rejection) else None,
            shard_id=record.shard_id,
            sequence_number=record.sequence_number,
            reason=_loggable(record) if isinstance(record, Rejection) else None,
        )
    if found[SHOWN:]:
        logger.warning(more, count=len(found) - SHOWN)


def _loggable(rejection: Rejection) -> str:
    """The reason, without what a model or a trigger of the user's may quote of the record."""
    if rejection.kind == "conflict":
        return "its id is that of a record with other content"
    if rejection.loggable is not None:
        return rejection.loggable
    if rejection.reason.startswith(_SAFE):
        return rejection.reason
    return "it is no record that the payload's type takes: rejected_records has the reason"
