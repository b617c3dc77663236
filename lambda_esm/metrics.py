"""What a mapping did, in the words of AWS: its event source mapping metrics and LastProcessingResult.

Sources: docs.aws.amazon.com/lambda/latest/dg/monitoring-metrics-types.html ("Event source mapping metrics", and
IteratorAge), lambda/latest/api/API_EventSourceMappingConfiguration.html (LastProcessingResult; its texts are those of
the API's answers).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lambda_esm.decisions import Decision
from lambda_esm.records import Answered, Batch, Discard, FunctionFailed, NotInvoked


@dataclass(slots=True)
class MappingMetrics:
    """Counts of one mapping since the poller started. Changed while the poller's condition is held."""

    polled: int = 0
    filtered: int = 0
    invoked: int = 0
    failed: int = 0
    dropped: int = 0
    kept: int = 0
    """Given up, and the on-failure destination has them."""
    delivered: int = 0
    """Records that the function took."""
    retried: int = 0
    """Deliveries of a record after its first."""
    deliveries: int = 0
    bisects: int = 0
    iterator_age_ms: float | None = None
    last_result: str = "No records processed"

    @property
    def discarded(self) -> int:
        """Records that were given up, whether a destination has them or not."""
        return self.dropped + self.kept

    def count_delivery(
        self,
        batch: Batch,
        outcome: Answered | FunctionFailed | NotInvoked,
        decision: Decision,
        now: float,
    ) -> None:
        """Take one invocation into account. ``now`` is in epoch seconds."""
        size = len(batch.records)
        self.deliveries += 1
        self.delivered += len(decision.done)
        self.bisects += len(decision.retry) > 1
        if batch.failures or batch.invocations:
            self.retried += size
        if batch.records:
            self.iterator_age_ms = max(0.0, (now - batch.records[-1].arrived_at) * 1_000)
        self.invoked += size
        self.failed += size - len(decision.done)
        if isinstance(outcome, NotInvoked):
            self.last_result = "PROBLEM: Function could not be invoked"
        elif isinstance(outcome, FunctionFailed) or decision.retry or decision.discard:
            self.last_result = "PROBLEM: Function call failed"
        else:
            self.last_result = "OK"

    def count_discard(self, discard: Discard, *, kept: bool) -> None:
        """Take records into account that were given up. "Dropped events also exclude events that you send to an
        on-failure destination."
        """
        size = len(discard.batch.records)
        self.kept += size if kept else 0
        self.dropped += 0 if kept else size

    def as_aws(self) -> dict[str, Any]:
        """The metrics by AWS's names. IteratorAge is in milliseconds, ``None`` before the first delivery."""
        return {
            "PolledEventCount": self.polled,
            "FilteredOutEventCount": self.filtered,
            "InvokedEventCount": self.invoked,
            "FailedInvokeEventCount": self.failed,
            "DroppedEventCount": self.dropped,
            "OnFailureDestinationDeliveredEventCount": self.kept,
            "IteratorAge": None if self.iterator_age_ms is None else round(self.iterator_age_ms),
        }


@dataclass(frozen=True, slots=True)
class Totals:
    """What became of the records, over all mappings of a poller."""

    delivered: int = 0
    retried: int = 0
    discarded: int = 0
    filtered: int = 0
