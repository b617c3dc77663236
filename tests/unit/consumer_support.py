"""What the consumer's tests share: stream records, poison ones, and stand-ins for what lies around the processor."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from common.errors import TransientError
from consumer.decode import Arrived, Rejection, reject
from oncestream.engine import Stored
from oncestream.idempotency import Claims

LONG_ID = "i" * 10_000
POISON: dict[str, tuple[bytes, str]] = {
    "not JSON": (b"hello", "not JSON: invalid character at line 1 column 1"),
    "not UTF-8": (
        b'{"id":"\xff","partition_key":"p","payload":{}}',
        "not UTF-8: byte 0xff at offset 7",
    ),
    "wrong shape": (
        b'{"id":"wrong-shape","payload":[1]}',
        "partition_key: is missing; payload: is a list, and must be an object",
    ),
    "NUL in a string": (
        b'{"id":"nul","partition_key":"p","payload":{"a":["x\\u0000y"]}}',
        "payload holds a NUL (U+0000), which Postgres cannot store",
    ),
    "empty body": (b"", "empty body"),
    "id of 10,000 characters": (
        json.dumps({"id": LONG_ID, "partition_key": "p", "payload": {}}).encode(),
        "id: has 10000 characters; at most 256 are allowed",
    ),
}
"""Bytes that a foreign producer may put on the stream, and why each is no record."""


def message(record_id: str, payload: Any = None, upload: tuple[str, int, int] | None = None) -> bytes:
    """The bytes of a record; ``upload`` is (upload id, chunk, line)."""
    value: dict[str, Any] = {"id": record_id, "partition_key": "p", "payload": payload or {"of": record_id}}
    if upload:
        value["upload"] = dict(zip(("id", "chunk", "line"), upload, strict=True))
    return json.dumps(value).encode()


def stream_record(data: bytes, sequence_number: int = 1) -> dict[str, Any]:
    """An entry of a Kinesis event's ``Records``, as Lambda hands it over."""
    return {
        "kinesis": {
            "kinesisSchemaVersion": "1.0",
            "partitionKey": "p",
            "sequenceNumber": str(sequence_number),
            "data": base64.b64encode(data).decode(),
            "approximateArrivalTimestamp": 1545084650.987,
        },
        "eventSource": "aws:kinesis",
        "eventVersion": "1.0",
        "eventID": f"shardId-000000000006:{sequence_number}",
        "eventName": "aws:kinesis:record",
        "invokeIdentityArn": "arn:aws:iam::123456789012:role/consumer",
        "awsRegion": "us-east-1",
        "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/records",
    }


def stream_event(*messages: bytes, first: int = 1) -> dict[str, Any]:
    """A Kinesis event; sequence numbers count from ``first``."""
    return {"Records": [stream_record(data, first + at) for at, data in enumerate(messages)]}


def failed(response: Any) -> list[int]:
    """The sequence numbers in a partial batch response."""
    return [int(item["itemIdentifier"]) for item in response["batchItemFailures"]]


@dataclass
class Context:
    """A Lambda context; ``milliseconds`` is what is left of the time, each answer the next of them if several."""

    milliseconds: int | list[int] = 120_000
    function_name: str = "consumer"
    memory_limit_in_mb: int = 1024
    invoked_function_arn: str = "arn:aws:lambda:us-east-1:123456789012:function:consumer"
    aws_request_id: str = "request-1"
    log_stream_name: str = "log-stream-1"

    def get_remaining_time_in_millis(self) -> int:
        if isinstance(self.milliseconds, int):
            return self.milliseconds
        return self.milliseconds.pop(0) if len(self.milliseconds) > 1 else self.milliseconds[0]


@dataclass
class FakeIdempotency:
    """The claims of one table, in memory. ``steps`` tells what was called, in order, together with FakeSink."""

    steps: list[tuple[str, Any]] = field(default_factory=list)
    completed: set[str] = field(default_factory=set)
    digests: dict[str, str] = field(default_factory=dict)
    """Of completed ones; what is not here has none."""
    mine: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)
    undecided: set[str] = field(default_factory=set)
    valid_for: list[int] = field(default_factory=list)
    uncompletable: bool = False
    down: bool = False

    def claim(self, keys: Iterable[tuple[str, str]], remaining_time_in_millis: int) -> Claims:
        asked = dict(keys)
        wanted = frozenset(asked)
        self.steps.append(("claim", sorted(wanted)))
        self.valid_for.append(remaining_time_in_millis)
        if self.down:
            raise TransientError("idempotency table: no connection")
        done = wanted & self.completed
        suspect = frozenset(key for key in done if self.digests.get(key, asked[key]) != asked[key])
        in_progress = (wanted & (self.held | self.mine)) - done
        undecided = (wanted & self.undecided) - done - in_progress
        claimed = wanted - done - in_progress - undecided
        self.mine |= claimed
        return Claims(claimed, done - suspect, suspect, in_progress, undecided)

    def complete(self, keys: Iterable[tuple[str, str]]) -> frozenset[str]:
        digests = dict(keys)
        done = frozenset(digests)
        self.steps.append(("complete", sorted(done)))
        if self.uncompletable:
            return done
        self.completed |= done
        self.digests |= digests
        self.mine -= done
        return frozenset()

    def release(self, keys: Iterable[str]) -> frozenset[str]:
        released = frozenset(keys)
        self.steps.append(("release", sorted(released)))
        self.mine -= released
        return frozenset()


@dataclass
class FakeSink:
    """Two tables in memory. Payloads with a key ``refuse`` are refused; ``down`` is Postgres being away."""

    steps: list[tuple[str, Any]] = field(default_factory=list)
    rows: dict[str, Arrived] = field(default_factory=dict)
    rejected: dict[str, Rejection] = field(default_factory=dict)
    repeated: list[Arrived] = field(default_factory=list)
    unsettled: set[str] = field(default_factory=set)
    down: bool = False

    def store(
        self,
        arrived: Sequence[Arrived],
        rejections: Sequence[Rejection],
        again: Sequence[Arrived],
        suspects: Sequence[Arrived],
        *,
        seconds: float,
    ) -> Stored:
        self.steps.append(("commit", sorted(each.record.id for each in arrived)))
        if self.down:
            raise TransientError("Postgres at db:5432: Connection refused")
        refused = {
            each.record.id: reject(each, "Postgres: refused")
            for each in arrived
            if "refuse" in _content(each) and each.record.id not in self.rows
        }
        tried = {
            each.record.id: each
            for each in arrived
            if each.record.id not in refused and each.record.id not in self.unsettled
        }
        inserted = tried.keys() - self.rows.keys()
        known = tried.keys() & self.rows.keys()
        self.rows |= {key: tried[key] for key in inserted}
        same = {key for key in known if _content(tried[key]) == _content(self.rows[key])}
        others = [tried[key] for key in known - same]
        others += [each for each in again if each.record.id in self.rows and not self._is_known(each)]
        others += [each for each in suspects if not self._is_known(each)]
        conflicts = {(made := reject(each, "its id is taken", kind="conflict")).id: made for each in others}
        kept = {each.id: each for each in (*rejections, *refused.values(), *conflicts.values())}
        new = kept.keys() - self.rejected.keys()
        self.rejected |= {key: kept[key] for key in new}
        self.repeated += [each for each in (*again, *suspects) if self._is_known(each) and each.has_own_id]
        return Stored(
            processed=frozenset(inserted),
            duplicates=frozenset(same),
            taken={
                key: sha256(self.rows[key].record.payload_json.encode()).hexdigest() for key in known - same
            },
            refused=refused,
            unsettled=frozenset({each.record.id for each in arrived} & self.unsettled),
            rejected=frozenset(new),
            conflicts=conflicts,
        )

    def _is_known(self, each: Arrived) -> bool:
        row = self.rows.get(each.record.id)
        return row is not None and _content(row) == _content(each)


def _content(each: Arrived) -> Any:
    return json.loads(each.record.payload_json)
