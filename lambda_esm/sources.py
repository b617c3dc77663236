"""Readers of the two kinds of stream, and the event records that Lambda makes of what they read.

Sources: docs.aws.amazon.com/lambda/latest/dg/with-kinesis.html and with-ddb.html (the events);
docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html and
docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_streams_GetRecords.html (the reads).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

from lambda_esm.clients import UnavailableError, calling
from lambda_esm.mapping import AT_TIMESTAMP, LATEST, TRIM_HORIZON
from lambda_esm.records import Event, StreamRecord
from lambda_esm.shards import Shard

if TYPE_CHECKING:
    from mypy_boto3_dynamodbstreams import DynamoDBStreamsClient
    from mypy_boto3_kinesis import KinesisClient


@dataclass(frozen=True, slots=True)
class Page:
    """One read of a shard."""

    records: list[StreamRecord]
    iterator: str | None
    """For the next read; ``None``: the shard ended."""
    at_tip: bool
    """Nothing newer was in the shard when it was read."""
    last: str | None = None
    """The sequence number of the last record that was read, if any was: it may have been left out."""


class StreamSource(Protocol):
    """A stream to read. Every call may raise ``UnavailableError`` (again later) and ``GoneError`` (no such
    thing)."""

    def shards(self) -> list[Shard]:
        """All shards that the stream still knows."""

    def open(self, shard_id: str, position: str) -> str:
        """An iterator that starts behind (sequence number) or at (the other positions) ``position``."""

    def read(self, shard_id: str, iterator: str, limit: int) -> Page:
        """The next records, ``limit`` at most.

        Raises ``IteratorExpiredError`` and ``RecordsTrimmedError`` as well.
        """

    def pin(self, position: str, now: float) -> str:
        """A position that means the same later on. LATEST, for one, does not: it moves with every new
        record."""

    def created(self) -> str | None:
        """When the stream was made, which tells it from an earlier one of its name; ``None``: not known."""


class KinesisSource:
    """A Kinesis data stream, or a registered consumer of one (read through the shared throughput all the
    same)."""

    def __init__(self, client: KinesisClient, source_arn: str, role_arn: str) -> None:
        self._client = client
        self._source_arn = source_arn
        stream_arn, _, _ = source_arn.partition("/consumer/")
        # Of AWS, either would do. kinesalite knows the name alone, and moto the ARN alone in GetRecords, which takes no
        # name.
        self._stream: Any = {"StreamARN": stream_arn, "StreamName": stream_arn.rpartition("/")[2]}
        self._region = source_arn.split(":")[3]
        self._role_arn = role_arn

    def shards(self) -> list[Shard]:
        with calling("Kinesis ListShards"):
            answer = self._client.list_shards(**self._stream)
            listed = answer["Shards"]
            while token := answer.get("NextToken"):
                answer = self._client.list_shards(NextToken=token)
                listed += answer["Shards"]
        return [
            Shard(
                shard["ShardId"],
                tuple(shard[name] for name in ("ParentShardId", "AdjacentParentShardId") if shard.get(name)),
                closed="EndingSequenceNumber" in shard["SequenceNumberRange"],
            )
            for shard in listed
        ]

    def open(self, shard_id: str, position: str) -> str:
        start: dict[str, Any] = {
            "ShardIteratorType": "AFTER_SEQUENCE_NUMBER",
            "StartingSequenceNumber": position,
        }
        if position in (TRIM_HORIZON, LATEST):
            start = {"ShardIteratorType": position}
        elif position.startswith(AT_TIMESTAMP):
            moment = datetime.fromtimestamp(float(position.partition(":")[2]), UTC)
            start = {"ShardIteratorType": AT_TIMESTAMP, "Timestamp": moment}
        with calling(f"Kinesis GetShardIterator of {shard_id}"):
            answer = self._client.get_shard_iterator(**self._stream, ShardId=shard_id, **start)
        return answer["ShardIterator"]

    def read(self, shard_id: str, iterator: str, limit: int) -> Page:
        with calling(f"Kinesis GetRecords of {shard_id}"):
            answer = self._client.get_records(
                ShardIterator=iterator, Limit=min(limit, 10_000), StreamARN=self._stream["StreamARN"]
            )
        records = [self._record(shard_id, record) for record in answer["Records"]]
        return Page(
            records,
            answer.get("NextShardIterator"),
            at_tip=answer.get("MillisBehindLatest", 0) == 0,
            last=records[-1].sequence_number if records else None,
        )

    def pin(self, position: str, now: float) -> str:
        return f"{AT_TIMESTAMP}:{now:.3f}" if position == LATEST else position

    def created(self) -> str | None:
        try:
            with calling("Kinesis DescribeStreamSummary"):
                summary = self._client.describe_stream_summary(**self._stream)["StreamDescriptionSummary"]
        except UnavailableError:
            return None
        return summary["StreamCreationTimestamp"].astimezone(UTC).isoformat()

    def _record(self, shard_id: str, record: Any) -> StreamRecord:
        number = record["SequenceNumber"]
        arrived_at = round(record["ApproximateArrivalTimestamp"].timestamp(), 3)
        event: Event = {
            "kinesis": {
                "kinesisSchemaVersion": "1.0",
                "partitionKey": record["PartitionKey"],
                "sequenceNumber": number,
                "data": base64.b64encode(record["Data"]).decode("ascii"),
                "approximateArrivalTimestamp": arrived_at,
            },
            "eventSource": "aws:kinesis",
            "eventVersion": "1.0",
            "eventID": f"{shard_id}:{number}",
            "eventName": "aws:kinesis:record",
            "invokeIdentityArn": self._role_arn,
            "awsRegion": self._region,
            "eventSourceARN": self._source_arn,
        }
        return StreamRecord.of(number, record["PartitionKey"], arrived_at, event)


class DynamoDBSource:
    """The stream of a DynamoDB table."""

    def __init__(self, client: DynamoDBStreamsClient, source_arn: str) -> None:
        self._client = client
        self._source_arn = source_arn
        self._since: dict[str, float] = {}
        """Shards that are entered at a time, which DynamoDB's iterators cannot do: what is older is left out."""

    def shards(self) -> list[Shard]:
        listed: list[Any] = []
        more: dict[str, Any] = {}
        with calling("DynamoDB Streams DescribeStream"):
            while True:
                answer = self._client.describe_stream(StreamArn=self._source_arn, **more)["StreamDescription"]
                listed += answer.get("Shards", [])
                if not (last := answer.get("LastEvaluatedShardId")):
                    break
                more = {"ExclusiveStartShardId": last}
        return [
            Shard(
                shard["ShardId"],
                (shard["ParentShardId"],) if shard.get("ParentShardId") else (),
                closed="EndingSequenceNumber" in shard.get("SequenceNumberRange", {}),
            )
            for shard in listed
        ]

    def open(self, shard_id: str, position: str) -> str:
        start: dict[str, Any] = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": position}
        if position.startswith(AT_TIMESTAMP):
            self._since[shard_id] = float(position.partition(":")[2])
            position = TRIM_HORIZON
        if position in (TRIM_HORIZON, LATEST):
            start = {"ShardIteratorType": position}
        with calling(f"DynamoDB Streams GetShardIterator of {shard_id}"):
            answer = self._client.get_shard_iterator(StreamArn=self._source_arn, ShardId=shard_id, **start)
        return answer["ShardIterator"]

    def read(self, shard_id: str, iterator: str, limit: int) -> Page:
        with calling(f"DynamoDB Streams GetRecords of {shard_id}"):
            answer = self._client.get_records(ShardIterator=iterator, Limit=min(limit, 1_000))
        records = [self._record(record) for record in answer.get("Records", [])]
        last = records[-1].sequence_number if records else None
        if since := self._since.get(shard_id):
            records = [
                record for record in records if record.arrived_at >= int(since)
            ]  # they are in whole seconds
        # DynamoDB does not say how far behind a reader is. An empty page of an open shard is the best sign
        # there is.
        return Page(records, answer.get("NextShardIterator"), at_tip=last is None, last=last)

    def pin(self, position: str, now: float) -> str:
        return f"{AT_TIMESTAMP}:{now:.3f}" if position == LATEST else position

    def created(self) -> str | None:
        return None  # the ARN of another stream is another one

    def _record(self, record: Any) -> StreamRecord:
        event: Event = plain(record) | {"eventSourceARN": self._source_arn}
        change = event["dynamodb"]
        if identity := event.get("userIdentity"):  # in lower case in an event, unlike in the API's answer
            event["userIdentity"] = {name[0].lower() + name[1:]: value for name, value in identity.items()}
        key = json.dumps(change.get("Keys"), sort_keys=True)
        return StreamRecord.of(change["SequenceNumber"], key, change["ApproximateCreationDateTime"], event)


def plain(value: Any) -> Any:
    """boto3's values as an event holds them: bytes in base64, times in whole epoch seconds."""
    match value:
        case dict():
            return {name: plain(inner) for name, inner in value.items()}
        case list() | set():
            return [plain(inner) for inner in value]
        case bytes():
            return base64.b64encode(value).decode("ascii")
        case datetime():
            return int(value.timestamp())
        case _:
            return value
