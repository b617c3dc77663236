"""Stand-ins for the clients of a poller: a Kinesis stream that splits as AWS's does, and functions as
callables.

They answer in the shapes of boto3 and raise its errors; one call fails for each error in ``faults``.
"""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

from botocore.exceptions import ClientError

from lambda_esm.clients import Clients
from tests.unit.stream_records import CONFIGURATION

type Handler = Callable[[dict[str, Any]], Any]


def client_error(code: str, operation: str = "Operation") -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "said the fake"}}, operation)


@dataclass
class _Shard:
    parents: tuple[str, ...] = ()
    records: list[dict[str, Any]] = field(default_factory=list)
    closed: bool = False


class FakeKinesis:
    """One stream. Its first shard is ``s0``."""

    def __init__(self) -> None:
        self.shards: dict[str, _Shard] = {"s0": _Shard()}
        self.faults: list[Exception] = []
        self.read_faults: list[Exception] = []
        self.deleted = False
        self.created = datetime(2026, 11, 21, tzinfo=UTC)
        self.opened: list[tuple[str, str]] = []
        self._lock = threading.Lock()
        self._generation = 0
        self._number = 0

    def put(self, *data: str, shard: str = "s0", key: str = "k", at: float = 1_700_000_000.25) -> None:
        with self._lock:
            for each in data:
                self._number += 1
                self.shards[shard].records.append(
                    {
                        "SequenceNumber": str(self._number),
                        "PartitionKey": key,
                        "Data": each.encode(),
                        "ApproximateArrivalTimestamp": datetime.fromtimestamp(at, UTC),
                    }
                )

    def split(self, parent: str, *children: str) -> None:
        with self._lock:
            self.shards[parent].closed = True
            self.shards |= {child: _Shard((parent,)) for child in children}

    def make_again(self) -> None:
        """Delete the stream and make another one of the name: the same shard, and no record."""
        with self._lock:
            self.shards = {"s0": _Shard()}
            self.created += timedelta(minutes=1)
            self._generation += 1
            self._number = 0

    def describe_stream_summary(self, **_: Any) -> dict[str, Any]:
        if self.deleted:
            raise client_error("ResourceNotFoundException")
        return {"StreamDescriptionSummary": {"StreamCreationTimestamp": self.created}}

    def expire_iterators(self) -> None:
        with self._lock:
            self._generation += 1

    def list_shards(self, **_: Any) -> dict[str, Any]:
        self._check()
        return {
            "Shards": [
                {
                    "ShardId": name,
                    "SequenceNumberRange": {"StartingSequenceNumber": "0"}
                    | ({"EndingSequenceNumber": "9"} if shard.closed else {}),
                    **dict(zip(("ParentShardId", "AdjacentParentShardId"), shard.parents, strict=False)),
                }
                for name, shard in self.shards.items()
            ]
        }

    def get_shard_iterator(self, *, ShardId: str, ShardIteratorType: str, **more: Any) -> dict[str, Any]:
        self._check()
        with self._lock:
            if ShardId not in self.shards:
                raise client_error("ResourceNotFoundException", "GetShardIterator")
            records = self.shards[ShardId].records
            self.opened.append((ShardId, ShardIteratorType))
            match ShardIteratorType:
                case "TRIM_HORIZON":
                    index = 0
                case "LATEST":
                    index = len(records)
                case "AT_TIMESTAMP":
                    moment = more["Timestamp"]
                    index = sum(record["ApproximateArrivalTimestamp"] < moment for record in records)
                case _:
                    after = int(more["StartingSequenceNumber"])
                    index = sum(int(record["SequenceNumber"]) <= after for record in records)
            return {"ShardIterator": f"{self._generation} {ShardId} {index}"}

    def get_records(self, *, ShardIterator: str, Limit: int, StreamARN: str) -> dict[str, Any]:
        self._check()
        if self.read_faults:
            raise self.read_faults.pop(0)
        generation, name, index = ShardIterator.split()
        with self._lock:
            if int(generation) != self._generation:
                raise client_error("ExpiredIteratorException", "GetRecords")
            if name not in self.shards:
                raise client_error("ResourceNotFoundException", "GetRecords")
            shard = self.shards[name]
            page = shard.records[int(index) : int(index) + Limit]
            end = int(index) + len(page)
            answer: dict[str, Any] = {
                "Records": page,
                "MillisBehindLatest": 0 if end == len(shard.records) else 1_000,
            }
            if not (shard.closed and end == len(shard.records)):
                answer["NextShardIterator"] = f"{generation} {name} {end}"
            return answer

    def _check(self) -> None:
        if self.faults:
            raise self.faults.pop(0)
        if self.deleted:
            raise client_error("ResourceNotFoundException")


class FakeLambda:
    """Functions, and the mappings of ``configurations``. A handler that raises is a function error."""

    def __init__(self, handler: Handler, *configurations: dict[str, Any]) -> None:
        self.handler = handler
        self.configurations = list(configurations)
        self.faults: list[Exception] = []
        self.asked = 0
        self.disabled: list[str] = []
        self.enabled: list[str] = []
        self.update_faults: list[Exception] = []
        self.invoked: list[dict[str, Any]] = []

    def get_paginator(self, _: str) -> Any:
        def paginate(FunctionName: str | None = None) -> Iterable[Any]:
            self._check()
            self.asked += 1
            yield {
                "EventSourceMappings": [
                    configuration
                    for configuration in self.configurations
                    if FunctionName is None or configuration["FunctionArn"].endswith(f":{FunctionName}")
                ]
            }

        return SimpleNamespace(paginate=paginate)

    def update_event_source_mapping(self, *, UUID: str, Enabled: bool) -> None:
        if self.update_faults:
            raise self.update_faults.pop(0)
        (self.enabled if Enabled else self.disabled).append(UUID)
        for configuration in self.configurations:
            if configuration["UUID"] == UUID:
                configuration["State"] = "Enabled" if Enabled else "Disabled"

    def get_function_configuration(self, **_: Any) -> dict[str, Any]:
        return {"Role": "arn:aws:iam::000000000000:role/consumer-role"}

    def invoke(self, *, Payload: bytes, **request: Any) -> dict[str, Any]:
        self.invoked.append(request)
        answer: dict[str, Any] = {"ResponseMetadata": {"RequestId": "r"}, "ExecutedVersion": "$LATEST"}
        try:
            result = self.handler(json.loads(Payload))
        except ArithmeticError as error:  # what the handlers of these tests raise to fail
            result = {"errorType": type(error).__name__, "errorMessage": str(error)}
            answer["FunctionError"] = "Unhandled"
        return answer | {"Payload": io.BytesIO(json.dumps(result).encode())}

    def _check(self) -> None:
        if self.faults:
            raise self.faults.pop(0)


class FakeS3:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.faults: list[Exception] = []
        self.attempts = 0

    def put_object(self, *, Bucket: str, Key: str, Body: bytes, **_: Any) -> None:
        self.attempts += 1
        if self.faults:
            raise self.faults.pop(0)
        self.objects[f"{Bucket}/{Key}"] = json.loads(Body)


@dataclass
class World:
    """Everything that a poller talks to."""

    kinesis: FakeKinesis
    functions: FakeLambda
    s3: FakeS3

    @property
    def clients(self) -> Clients:
        return cast(
            "Clients",
            SimpleNamespace(
                kinesis=self.kinesis, mappings=self.functions, functions=self.functions, s3=self.s3
            ),
        )


def world(handler: Handler, **settings: Any) -> World:
    """A stream, and one mapping of it to ``handler``."""
    configuration = CONFIGURATION | {"State": "Enabled"} | settings
    return World(FakeKinesis(), FakeLambda(handler, configuration), FakeS3())
