"""What follows from a delivery: the rules of retries, partial responses and bisecting. Pure functions.

Sources, all under docs.aws.amazon.com/lambda/latest/dg:

- services-kinesis-batchfailurereporting.html (the same for DynamoDB:
  services-ddb-batchfailurereporting.html): what counts as success and failure; "Lambda uses the record with
  the lowest sequence number as the checkpoint. Lambda then retries all records starting from that
  checkpoint"; "If your invocation fails and BisectBatchOnFunctionError is turned on, the batch is bisected
  regardless of your ReportBatchItemFailures setting"; with both and a partial response, "the batch is
  bisected at the returned sequence number and Lambda retries only the remaining records".
- kinesis-on-failure-destination.html: when retries end; throttles are retried until the records' age ends
  them; "Splitting batches doesn't consume the retry quota".

- services-kinesis-windows.html: in a tumbling window, "if a response doesn't contain a state property, Lambda considers
  this a failed invocation", and after the last invocation of a window failed, nothing goes on until it succeeds.

Where the pages are silent, what LocalStack's tests recorded on AWS decides (localstack/localstack at 8b9a79f,
tests/aws/services/lambda_/event_source_mapping); else the choice made here is marked "Not documented".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from lambda_esm.mapping import MappingSettings
from lambda_esm.records import (
    Answered,
    Batch,
    CheckpointLost,
    FunctionFailed,
    NotInvoked,
    Outcome,
    StreamRecord,
)


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a batch's records. Each is in exactly one of the three."""

    done: tuple[StreamRecord, ...] = ()
    retry: tuple[Batch, ...] = ()
    """To deliver again, one after the other, before anything newer of the same lane."""
    discard: Batch | None = None
    """Its retries are used up."""


def decide(batch: Batch, outcome: Outcome, settings: MappingSettings) -> Decision:
    """What Lambda does after a delivery of ``batch`` ended with ``outcome``."""
    match outcome:
        case NotInvoked():
            # "This doesn't apply to service errors or throttles where the batch didn't reach the function."
            return Decision(retry=(replace(batch, failures=batch.failures + 1, last_outcome=outcome),))
        case CheckpointLost():
            return Decision(retry=(replace(batch, invocations=batch.invocations + 1, failures=0),))
        case FunctionFailed():
            done = None
        case Answered(response):
            size = len(batch.records)
            reports = settings.report_batch_item_failures
            done = count_done(response, batch.sequence_numbers) if reports else size
            if batch.window and not batch.window.final and state_of(response) is None:
                done = None
            if done == size:
                return Decision(done=batch.records)
    delivered = replace(
        batch, invocations=batch.invocations + 1, failures=batch.failures + 1, last_outcome=outcome
    )
    return _after_failure(delivered, done, settings)


def count_done(response: Any, sequence_numbers: Sequence[str]) -> int | None:
    """How many records, from the first on, a response declares done; ``None``: complete failure.

    Complete success is an empty or null response (an empty list is one too, as recorded on AWS), or an empty or null
    list of failures. An identifier that is empty, null, misnamed or not of this batch makes the whole batch a failure.
    """
    if response is None or response in ("", {}, []):
        return len(sequence_numbers)
    # Not documented: another response that is not an object (a bare string, a list of something). Taking it for
    # success could lose records silently; taking it for failure is seen at once.
    if not isinstance(response, dict):
        return None
    failures = response.get("batchItemFailures")
    if failures is None or failures == []:
        return len(sequence_numbers)
    if not isinstance(failures, list):
        return None
    place = {number: index for index, number in enumerate(sequence_numbers)}
    lowest = len(sequence_numbers)
    for failure in failures:
        identifier = failure.get("itemIdentifier") if isinstance(failure, dict) else None
        if not isinstance(identifier, str) or identifier not in place:
            return None
        lowest = min(lowest, place[identifier])  # a batch is in the order of its sequence numbers
    return lowest


def state_of(response: Any) -> Any:
    """The state of a tumbling window in a response; ``None``: there is none, which makes it a failure."""
    return response.get("state") if isinstance(response, dict) else None


def _after_failure(batch: Batch, done: int | None, settings: MappingSettings) -> Decision:
    if not batch.records:  # the last invocation of a window is tried until it succeeds
        return Decision(retry=(replace(batch, retries=batch.retries + 1),))
    finished = batch.records[: done or 0]
    if finished:
        # What remains is a new batch: as recorded on AWS, with MaximumRetryAttempts 3 the record that is reported is
        # delivered once with those that are done and four times after, and the invocation record counts the four.
        rest = _part(replace(batch, failures=1, retries=0, invocations=0), len(finished))
        return Decision(done=finished, retry=(rest,))
    if settings.bisect_batch_on_function_error and done is None and len(batch.records) > 1:
        # Not documented: whether a malformed response, "a complete failure", is bisected as a thrown error is. It is
        # here; and of an odd number of records, the first half is the smaller one.
        middle = len(batch.records) // 2
        return Decision(retry=(_part(batch, 0, middle), _part(batch, middle)))
    # Not documented: a partial response that names the very first record, with bisecting. The batch is to be "bisected
    # at the returned sequence number", which leaves nothing to cut off: it is a retry like any other here.
    limit = settings.maximum_retry_attempts
    if limit is not None and batch.retries >= limit:
        return Decision(discard=batch)
    return Decision(retry=(replace(batch, retries=batch.retries + 1),))


def _part(batch: Batch, start: int, end: int | None = None) -> Batch:
    return replace(batch, records=batch.records[start:end])
