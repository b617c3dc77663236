"""The recorded events, and a world in which they are true: the bucket, the files and the uploads they speak of.

The events are used as they are. The world goes by their names instead: the bucket has the recorded bucket's name,
and the files have the recorded content, so that bucket, key and ETag agree. One thing cannot be arranged, since S3
draws it: the version of an object. :meth:`World.event` puts the version that is there in the place of the recorded
one.
"""

from __future__ import annotations

import base64
import itertools
import json
import uuid
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

from local.records import flights
from records.record import Record, RejectedLine
from tables.check import check_payload
from tests.unit.uploads_aws import ledger_properties
from uploads.ledger import Ledger

if TYPE_CHECKING:
    from local.ministack import MiniStack

EVENTS = Path(__file__).resolve().parents[1] / "events"
FUNCTIONS = {
    path.stem: path.stem.partition("-")[0].capitalize() + "Function" for path in EVENTS.glob("*.json")
}
"""The logical id of the function that each event is for."""


def read(name: str) -> Any:
    """An event as it was recorded."""
    return json.loads((EVENTS / f"{name}.json").read_text())


@cache
def lines() -> bytes:
    """The file that local/record_events.py uploads."""
    return b"".join(json.dumps(row).encode() + b"\n" for row in itertools.islice(flights(), 20))


BAD_LINES = (b"", b"not JSON", b'{"text": "\\u0000"}', b"\xff\xfe")
"""What it puts behind the first 1,000 bytes of that file for the poison file."""


def files() -> dict[str, bytes]:
    """What is in the bucket, by key."""
    return {
        **dict.fromkeys(("flights.ndjson", "planned.ndjson", "chunked.ndjson"), lines()),
        "poison.ndjson": lines()[:1000] + b"\n".join([*BAD_LINES, b""]),
        "Flüge 2013 + more.csv": b"a,b\r\n1,2\r\n",
    }


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What a function leaves behind."""

    rows: frozenset[str] = frozenset()
    """Ids in the table ``records``."""
    rejected: tuple[str, ...] = ()
    """The reasons in the table ``rejected_records``, sorted."""
    published: frozenset[str] = frozenset()
    """Ids of the records on the stream, however often they are there."""
    bad_lines: tuple[str, ...] = ()
    """The reasons of the rejected lines on the stream, each line once, sorted."""
    uploads: dict[str, str | int | None] = field(default_factory=dict)
    """What the ledger has: key → number of chunks, or why it failed, or None when it is not planned."""
    counts: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Item of the ledger → lines published and rejected of that chunk."""
    jobs: int = 0
    """Messages in the queue of chunk jobs."""
    set_aside: bool = False
    """Whether there are messages in its dead-letter queue."""


@dataclass
class World:
    """Tables, a stream, a queue and a database of one test; the bucket is made anew for each."""

    ministack: MiniStack
    database: Any
    name: str = field(default_factory=lambda: f"events-{uuid.uuid4().hex[:12]}")
    queue_url: str = ""
    dead_letter_queue_url: str = ""
    _versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        s3, dynamodb = self.ministack.client("s3"), self.ministack.client("dynamodb")
        s3.create_bucket(Bucket=self.bucket)
        s3.put_bucket_versioning(Bucket=self.bucket, VersioningConfiguration={"Status": "Enabled"})
        for key, body in files().items():
            self._versions[key] = s3.put_object(Bucket=self.bucket, Key=key, Body=body)["VersionId"]
        dynamodb.create_table(TableName=self.name, **ledger_properties())
        dynamodb.create_table(
            TableName=f"{self.name}-idempotency",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        self.ministack.client("kinesis").create_stream(StreamName=self.name, ShardCount=1)
        sqs = self.ministack.client("sqs")
        self.queue_url = sqs.create_queue(QueueName=self.name)["QueueUrl"]
        self.dead_letter_queue_url = sqs.create_queue(QueueName=f"{self.name}-dead-letters")["QueueUrl"]

    @property
    def bucket(self) -> str:
        """The recorded bucket's name."""
        return str(read("register-normal")["Records"][0]["s3"]["bucket"]["name"])

    @property
    def environment(self) -> dict[str, str]:
        """The names, in the variables that the template sets to its own resources."""
        database = {
            name: str(value)
            for name, value in self.database.model_dump(by_alias=True).items()
            if value is not None
        }
        return database | {
            "STREAM_NAME": self.name,
            "LEDGER_TABLE": self.name,
            "IDEMPOTENCY_TABLE": f"{self.name}-idempotency",
            "UPLOAD_BUCKET": self.bucket,
            "CHUNK_QUEUE_URL": self.queue_url,
            "CHUNK_DEAD_LETTER_QUEUE_URL": self.dead_letter_queue_url,
        }

    def event(self, name: str) -> Any:
        """An event as it was recorded, with the versions that the objects have here."""
        event = read(name)
        for record in event.get("Records", []) if isinstance(event, dict) else []:
            described = record.get("s3", {}).get("object", {})
            if described.get("size"):
                described["versionId"] = self._versions[unquote_plus(described["key"])]
        return event

    def enter_planned_upload(self) -> None:
        """Enter the upload that plan-normal.json announces, without a notification."""
        image = read("plan-normal")["Records"][0]["dynamodb"]["NewImage"]
        self.ministack.client("dynamodb").put_item(TableName=self.name, Item=image)

    def query(self, sql: str) -> list[Any]:
        """The first column of what Postgres answers."""
        connection = self.database.connect()
        try:
            return [row[0] for row in connection.run(sql)]
        finally:
            connection.close()

    def stream(self) -> list[bytes]:
        """Everything on the stream."""
        kinesis = self.ministack.client("kinesis")
        found = []
        for shard in kinesis.list_shards(StreamName=self.name)["Shards"]:
            iterator = kinesis.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            found += kinesis.get_records(ShardIterator=iterator, Limit=10_000)["Records"]
        return [record["Data"] for record in found]

    def consumer_event(self) -> Any:
        """Everything on the stream as the consumer's event."""
        record = read("consumer-normal")["Records"][0]
        return {
            "Records": [
                record
                | {
                    "eventID": f"shardId-000000000000:{number}",
                    "kinesis": record["kinesis"]
                    | {"sequenceNumber": str(number), "data": base64.b64encode(data).decode()},
                }
                for number, data in enumerate(self.stream(), 1)
            ]
        }

    def effect(self) -> Effect:
        """What there is in this world now, besides what it began with."""
        data = self.stream()
        bad = {each: line for each in data if (line := RejectedLine.from_bytes(each))}
        ledger = Ledger(self.ministack.client("dynamodb"), self.name)
        entries = [ledger.entry(upload) for upload in ledger.latest(100)]
        return Effect(
            rows=frozenset(self.query("SELECT id FROM records")),
            rejected=tuple(sorted(self.query("SELECT reason FROM rejected_records"))),
            published=frozenset(
                Record.from_bytes(each, check_payload).id for each in data if each not in bad
            ),
            bad_lines=tuple(sorted({line.id: line.rejected.reason for line in bad.values()}.values())),
            uploads={
                entry.upload.key: entry.upload.failed or entry.upload.chunks for entry in entries if entry
            },
            counts={
                item["item"]["S"]: (int(item["published"]["N"]), int(item["rejected"]["N"]))
                for item in self.ministack.client("dynamodb").scan(TableName=self.name)["Items"]
                if "published" in item
            },
            jobs=self._waiting(self.queue_url),
            set_aside=self._waiting(self.dead_letter_queue_url) > 0,
        )

    def _waiting(self, queue_url: str) -> int:
        attributes = self.ministack.client("sqs").get_queue_attributes(
            QueueUrl=queue_url, AttributeNames=["ApproximateNumberOfMessages"]
        )
        return int(attributes["Attributes"]["ApproximateNumberOfMessages"])

    def remove(self) -> None:
        """Delete what was made."""
        self.ministack.client("kinesis").delete_stream(StreamName=self.name)
        for queue_url in (self.queue_url, self.dead_letter_queue_url):
            self.ministack.client("sqs").delete_queue(QueueUrl=queue_url)
        for table in (self.name, f"{self.name}-idempotency"):
            self.ministack.client("dynamodb").delete_table(TableName=table)
