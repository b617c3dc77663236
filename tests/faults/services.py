"""AWS in memory, where the network begins: answers to HTTP requests, with the effects that they have.

The idempotency table is tests.unit.fake_dynamodb; here are the ledger (with its stream), Kinesis, S3, SQS.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote, urlsplit

from oncestream.testing import holds
from tests.unit.fake_dynamodb import AnswerError, FakeDynamoDB, Item

HASHES = 1 << 128


class LedgerTable(FakeDynamoDB):
    """The ledger: conditions on every kind of write, and a stream of what changed."""

    def __init__(self, clock: Callable[[], float]) -> None:
        super().__init__("ledger", "upload", "item")
        self._clock = clock
        self.stream: list[dict[str, Any]] = []
        """Records of the table's stream that nobody has read yet."""
        self._sequence = 0

    def _put_item(self, body: dict[str, Any]) -> Any:
        old = self._checked(body, body["Item"])
        self._changed(body["Item"], "MODIFY" if old else "INSERT")
        self.put(body["Item"])
        return {}

    def _update_item(self, body: dict[str, Any]) -> Any:
        old = self._checked(body, body["Key"])
        item = dict(old or body["Key"])
        for name, value in re.findall(r"([\w#]+) = (:\w+)", body["UpdateExpression"]):
            attribute = body.get("ExpressionAttributeNames", {}).get(name, name)
            item[attribute] = body["ExpressionAttributeValues"][value]
        self._changed(item, "MODIFY" if old else "INSERT")
        self.put(item)
        return {}

    def _delete_item(self, body: dict[str, Any]) -> Any:
        if self._checked(body, body["Key"]):
            self._changed(body["Key"], "REMOVE")
            del self.items[self._key(body["Key"])]
        return {}

    def _checked(self, body: dict[str, Any], key: Item) -> Item | None:
        old = self.items.get(self._key(key))
        condition = body.get("ConditionExpression")
        if condition is None:
            return old
        names = body.get("ExpressionAttributeNames", {})
        names = names | {f"#{word}": word for word in re.findall(r"(?<![#:\w])[a-z]\w*(?! *\()", condition)}
        condition = re.sub(r"(?<![#:\w])([a-z]\w*)(?!\w* *\()", r"#\1", condition)
        question = {
            "ConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": body.get("ExpressionAttributeValues", {}),
        }
        if not holds(question, old or {}):
            raise AnswerError("ConditionalCheckFailedException", "The conditional request failed")
        return old

    def _changed(self, item: Item, name: str) -> None:
        self._sequence += 1
        keys = {key: item[key] for key in self.keys}
        self.stream.append(
            {
                "eventID": f"event-{self._sequence}",
                "eventName": name,
                "eventSource": "aws:dynamodb",
                "awsRegion": "us-east-1",
                "dynamodb": {
                    "ApproximateCreationDateTime": self._clock(),
                    "Keys": keys,
                    "SequenceNumber": f"{self._sequence:021d}",
                    "StreamViewType": "NEW_AND_OLD_IMAGES",
                },
                "eventSourceARN": "arn:aws:dynamodb:us-east-1:123456789012:table/ledger/stream/1",
            }
        )


@dataclass
class Shard:
    """A shard of the stream: its hash range, and what it holds."""

    id: str
    first: int
    last: int
    parents: tuple[str, ...] = ()
    closed: bool = False
    records: list[dict[str, Any]] = field(default_factory=list)


class Kinesis:
    """One stream: PutRecords, and splits."""

    def __init__(self, clock: Callable[[], float], shards: int) -> None:
        self._clock = clock
        self._sequence = 0
        width = HASHES // shards
        self.shards = [Shard(_shard_name(n), n * width, (n + 1) * width - 1) for n in range(shards)]

    def put(self, data: bytes, partition_key: str) -> dict[str, str]:
        """Store one record, as PutRecords does; answers with its entry of the response."""
        hashed = int.from_bytes(hashlib.md5(partition_key.encode(), usedforsecurity=False).digest())
        opened = sorted((shard for shard in self.shards if not shard.closed), key=lambda shard: shard.first)
        shard = opened[bisect_right([each.first for each in opened], hashed) - 1]
        self._sequence += 1
        number = f"{49_600_000_000 + self._sequence}"
        shard.records.append(
            {
                "kinesis": {
                    "kinesisSchemaVersion": "1.0",
                    "partitionKey": partition_key,
                    "sequenceNumber": number,
                    "data": base64.b64encode(data).decode(),
                    "approximateArrivalTimestamp": self._clock(),
                },
                "eventSource": "aws:kinesis",
                "eventVersion": "1.0",
                "eventID": f"{shard.id}:{number}",
                "eventName": "aws:kinesis:record",
                "invokeIdentityArn": "arn:aws:iam::123456789012:role/consumer",
                "awsRegion": "us-east-1",
                "eventSourceARN": "arn:aws:kinesis:us-east-1:123456789012:stream/records",
            }
        )
        return {"SequenceNumber": number, "ShardId": shard.id}

    def split(self, choice: int) -> None:
        """Two children in place of an open shard."""
        opened = [shard for shard in self.shards if not shard.closed]
        parent = opened[choice % len(opened)]
        parent.closed = True
        middle = (parent.first + parent.last) // 2
        for first, last in ((parent.first, middle), (middle + 1, parent.last)):
            self.shards.append(Shard(_shard_name(len(self.shards)), first, last, (parent.id,)))

    def merge(self, choice: int) -> None:
        """One shard in place of two neighbours, if there are two."""
        opened = sorted((shard for shard in self.shards if not shard.closed), key=lambda shard: shard.first)
        if len(opened) < 2:
            return
        place = choice % (len(opened) - 1)
        lower, upper = opened[place : place + 2]
        lower.closed = upper.closed = True
        name = _shard_name(len(self.shards))
        self.shards.append(Shard(name, lower.first, upper.last, (lower.id, upper.id)))

    def answer(self, operation: str, body: dict[str, Any], part: str | None) -> dict[str, Any]:
        """PutRecords; ``part`` makes some entries fail."""
        assert operation == "PutRecords"
        entries = []
        for place, record in enumerate(body["Records"]):
            if part == "part" and place % 2 == 0:
                entries.append({"ErrorCode": "ProvisionedThroughputExceededException", "ErrorMessage": "x"})
                continue
            answer = self.put(base64.b64decode(record["Data"]), record["PartitionKey"])
            if part == "part after" and place % 2 == 1:
                answer = {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal Service Failure"}
            entries.append(answer)
        failed = sum("ErrorCode" in entry for entry in entries)
        return {"FailedRecordCount": failed, "Records": entries}


@dataclass
class Message:
    """A message in the queue."""

    id: str
    body: str
    visible_at: float
    receives: int = 0


class Queue:
    """The queue of chunk jobs."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._sent = 0
        self.messages: list[Message] = []

    def send(self, body: str) -> str:
        self._sent += 1
        self.messages.append(Message(f"message-{self._sent}", body, self._clock()))
        return self.messages[-1].id

    def answer(self, operation: str, body: dict[str, Any], part: str | None) -> dict[str, Any]:
        """SendMessageBatch; ``part`` makes some entries fail."""
        assert operation == "SendMessageBatch"
        done, failed = [], []
        for place, entry in enumerate(body["Entries"]):
            fails = {"part": place % 2 == 0, "part after": place % 2 == 1}.get(part or "", False)
            text = entry["MessageBody"]
            if not fails or part == "part after":
                message = self.send(text)
            if fails:
                failed.append({"Id": entry["Id"], "Code": "InternalError", "SenderFault": False})
            else:
                digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
                done.append({"Id": entry["Id"], "MessageId": message, "MD5OfMessageBody": digest})
        return {"Successful": done, "Failed": failed}


@dataclass
class Object:
    """An object in the bucket."""

    data: bytes
    metadata: dict[str, str]

    @property
    def etag(self) -> str:
        return hashlib.md5(self.data, usedforsecurity=False).hexdigest()

    @property
    def quoted_etag(self) -> str:
        """As the header has it."""
        return f'"{self.etag}"'


class Bucket:
    """The bucket of uploads: HEAD and ranged GET, under If-Match."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}

    def answer(self, method: str, url: str, headers: dict[str, str]) -> tuple[int, dict[str, str], bytes]:
        key = unquote(urlsplit(url).path).lstrip("/").split("/")[-1]
        found = self.objects.get(key)
        if found is None:
            return 404, {}, b"<Error><Code>NoSuchKey</Code><Message>gone</Message></Error>"
        if headers.get("if-match", f'"{found.etag}"').strip('"') != found.etag:
            return 412, {}, b"<Error><Code>PreconditionFailed</Code><Message>changed</Message></Error>"
        answer = {"etag": found.quoted_etag, "content-length": str(len(found.data))}
        answer |= {f"x-amz-meta-{name}": value for name, value in found.metadata.items()}
        if method == "HEAD":
            return 200, answer, b""
        data = found.data
        if wanted := re.fullmatch(r"bytes=(\d+)-(\d+)", headers.get("range", "")):
            data = data[int(wanted[1]) : int(wanted[2]) + 1]
            answer["content-range"] = f"bytes {wanted[1]}-{wanted[2]}/{len(found.data)}"
        return 206, answer | {"content-length": str(len(data))}, data


def error_body(service: str, code: str) -> bytes:
    """An error, as the service writes it."""
    if service == "s3":
        return f"<Error><Code>{code}</Code><Message>trouble</Message></Error>".encode()
    return json.dumps({"__type": f"com.amazonaws#{code}", "message": "trouble"}).encode()


def _shard_name(number: int) -> str:
    return f"shardId-{number:012d}"
