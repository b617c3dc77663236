"""What moves through an event source mapping: records, batches, outcomes of deliveries, discards."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

type Event = dict[str, Any]
"""A Lambda event, or one record of it: decoded JSON."""

PAYLOAD_LIMIT = 6 * 1024 * 1024
"""Bytes of one synchronous invocation's request.

Source: docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html ("Invocation payload: 6 MB each for
request and response, synchronous").
"""

STATE_LIMIT = 1024 * 1024
"""Bytes of a tumbling window's state.

Source: docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html ("Your state can be a maximum of 1 MB per
shard. If it exceeds that size, Lambda terminates the window early").
"""

_OPENING, _SEPARATOR, _CLOSING = b'{"Records":[', b",", b"]}"
ENVELOPE_BYTES = len(_OPENING) + len(_CLOSING)
SEPARATOR_BYTES = len(_SEPARATOR)
_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """One record of a shard, as the function will see it."""

    sequence_number: str
    key: str
    """What keeps its order: the partition key (Kinesis), the item's key (DynamoDB)."""
    arrived_at: float
    """When the stream took it, in epoch seconds."""
    event: Event
    """Its entry in ``event["Records"]``."""
    body: bytes
    """The same as JSON. Made once: it gives the size that counts, and a retry costs no second encoding."""

    @classmethod
    def of(cls, sequence_number: str, key: str, arrived_at: float, event: Event) -> StreamRecord:
        try:
            body = _encode(event).encode()
        except UnicodeEncodeError:  # half of a surrogate pair, which Kinesis refuses and an emulator may not
            body = json.dumps(event).encode()
        return cls(sequence_number, key, arrived_at, event, body)


@dataclass(frozen=True, slots=True)
class Window:
    """A tumbling window, as one invocation sees it. Two windows of a shard never share a record."""

    start: float
    """Epoch seconds; a multiple of the window's length."""
    end: float
    shard_id: str = ""
    source_arn: str = ""
    state: Any = field(default_factory=dict)
    """What the function returned as ``state`` last time; ``{}`` at the start."""
    final: bool = False
    """The last invocation of the window."""
    early: bool = False
    """The state outgrew its limit."""

    @property
    def fields(self) -> Event:
        """What an event holds beside its records.

        Source: docs.aws.amazon.com/lambda/latest/dg/services-kinesis-windows.html, KinesisTimeWindowEvent.
        """
        return {
            "window": {"start": _iso(self.start), "end": _iso(self.end)},
            "state": self.state,
            "shardId": self.shard_id,
            "eventSourceARN": self.source_arn,
            "isFinalInvokeForWindow": self.final,
            "isWindowTerminatedEarly": self.early,
        }


def _iso(moment: float) -> str:
    return f"{datetime.fromtimestamp(moment, UTC):%Y-%m-%dT%H:%M:%SZ}"


@dataclass(frozen=True, slots=True)
class Answered:
    """The function returned."""

    response: Any
    """What it returned, decoded; ``None`` for nothing."""
    request_id: str = ""
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class FunctionFailed:
    """The function was invoked and raised, was killed or ran out of time."""

    error: Any
    """What Lambda says about it: usually ``{"errorType", "errorMessage", ...}``."""
    kind: str = "Unhandled"
    request_id: str = ""
    executed_version: str = "$LATEST"


@dataclass(frozen=True, slots=True)
class NotInvoked:
    """The batch did not reach the function, as far as we know: throttled, service error, no connection."""

    reason: str


@dataclass(frozen=True, slots=True)
class CheckpointLost:
    """The function did its work, but the poller died before its checkpoint: the batch comes again.

    Lambda's own pollers are replaced at any time, which is one reason why a stream is delivered *at least*
    once.
    """


type Outcome = Answered | FunctionFailed | NotInvoked | CheckpointLost


@dataclass(frozen=True, slots=True)
class Batch:
    """Records that are delivered in one invocation, with the history of their deliveries."""

    records: tuple[StreamRecord, ...]
    lane: int = 0
    retries: int = 0
    """How many of the MaximumRetryAttempts are used up."""
    invocations: int = 0
    """How often the function has had these records."""
    failures: int = 0
    """How often in a row a delivery came to nothing, for whatever reason; sets the pace of the retries."""
    last_outcome: Outcome | None = None
    window: Window | None = None
    """The tumbling window that the records belong to. Only the last batch of a window has no records."""

    @property
    def sequence_numbers(self) -> tuple[str, ...]:
        return tuple(record.sequence_number for record in self.records)

    @property
    def event(self) -> Event:
        """The event as the function sees it."""
        event: Event = {"Records": [record.event for record in self.records]}
        return event | self.window.fields if self.window else event

    @property
    def payload(self) -> bytes:
        """The event as JSON."""
        more = b"," + _encode(self.window.fields)[1:-1].encode() if self.window else b""
        return _OPENING + _SEPARATOR.join(record.body for record in self.records) + b"]" + more + b"}"


@dataclass(frozen=True, slots=True)
class Discard:
    """Records that the mapping gives up on. They count as processed once the on-failure destination has
    them."""

    batch: Batch
    condition: Literal["RetryAttemptsExhausted", "RecordAgeExceeded", "RecordTooLarge"]
    """``RecordTooLarge`` is ours: AWS does not say what becomes of a record that no invocation can hold."""
    at: float
