"""Watching a poller at work, and making it deliver twice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

from lambda_esm.decisions import Decision
from lambda_esm.mapping import EventSourceMapping
from lambda_esm.records import Answered, Batch, Discard, Event, FunctionFailed, NotInvoked


@dataclass(frozen=True, slots=True)
class Delivery:
    """One invocation, and what followed from it."""

    mapping: EventSourceMapping
    shard_id: str
    batch: Batch
    outcome: Answered | FunctionFailed | NotInvoked
    decision: Decision
    seconds: float
    """How long the invocation took."""

    @property
    def event(self) -> Event:
        """The event as the function saw it."""
        return self.batch.event

    @property
    def succeeded(self) -> bool:
        """All records of the batch are done."""
        # The last batch of a tumbling window has no records: done or not, none is left.
        return self.decision.done == self.batch.records and not self.decision.retry


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a mapping has come, since the poller runs it."""

    read: int = 0
    """Records that were read."""
    waiting: int = 0
    """Those of them that are not processed yet."""
    all_read: bool = True
    """Whether the streams held nothing more at the last look."""

    def __add__(self, other: Progress) -> Progress:
        return Progress(
            self.read + other.read, self.waiting + other.waiting, self.all_read and other.all_read
        )


class Observer:
    """Told what happens. Override what is of interest.

    The calls come from the threads that do the work, several at once when several batches are in flight. They hold the
    work up, and must not wait for another thread that uses the poller. An exception stops the poller.
    """

    def on_delivery(self, delivery: Delivery) -> None:
        """A batch was delivered, or could not be (``NotInvoked``). Its records are not checkpointed yet."""

    def on_checkpoint(self, mapping: EventSourceMapping, shard_id: str, sequence_number: str) -> None:
        """Everything in the shard up to this sequence number is processed."""

    def on_discard(self, mapping: EventSourceMapping, shard_id: str, discard: Discard) -> None:
        """Records were given up, and the on-failure destination has them (if there is one)."""


type Redeliver = Callable[[Delivery], bool]
"""Asked after a success: pretend that the poller died before its checkpoint, and deliver the batch again?"""


def never(_: Delivery) -> bool:
    """Redeliver nothing."""
    return False


def every(nth: int) -> Redeliver:
    """Redeliver every nth batch once: the 1st, the (n+1)th, ..."""
    deliveries = count()
    return lambda delivery: delivery.batch.invocations == 0 and next(deliveries) % nth == 0
