"""What a batch leaves in the log and in the metrics."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from logging import DEBUG

from aws_lambda_powertools.metrics import MetricUnit

from common.observability import (
    DUPLICATES_SKIPPED,
    RECORDS_INSERTED,
    RECORDS_RECEIVED,
    RECORDS_REJECTED,
    RECORDS_RETRIED,
    logger,
    metrics,
)
from consumer.decode import Rejection
from consumer.processor import Outcome, Result

SHOWN = 20
"""A batch may be 10,000 records: this many of a kind are named in the log."""

_METRICS = {
    Outcome.INSERTED: RECORDS_INSERTED,
    Outcome.DUPLICATE: DUPLICATES_SKIPPED,
    Outcome.REJECTED: RECORDS_REJECTED,
    Outcome.RETRIED: RECORDS_RETRIED,
}


def report(results: Sequence[Result]) -> None:
    """Count a batch and name what is not ordinary: duplicates, rejections, why records have to be retried."""
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
    rejected = [result for result in results if result.outcome is Outcome.REJECTED]
    for result in rejected[:SHOWN]:
        logger.warning(
            "Record rejected",
            id=result.id,
            shard_id=result.record.shard_id,
            sequence_number=result.record.sequence_number,
            reason=result.record.reason if isinstance(result.record, Rejection) else None,
        )
    if rejected[SHOWN:]:
        logger.warning("More records rejected", count=len(rejected) - SHOWN)
    for reason, count in Counter(str(result.error) for result in results if result.error).items():
        logger.warning("Records will be retried", count=count, reason=reason)
    logger.info(
        "Batch done",
        extra={"received": len(results)} | {outcome.value: counts[outcome] for outcome in Outcome},
    )
