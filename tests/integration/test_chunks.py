"""uploads/chunks against MiniStack: S3 ranges and versions, the stream, the ledger, deliveries at the same time."""

from __future__ import annotations

import csv
import gzip
import io
import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest

from common import clients
from records.record import Record, RejectedLine
from tables.check import check_payload
from tests.unit.uploads_aws import Context
from uploads import chunks
from uploads.chunk_job import ChunkCount, ChunkJob
from uploads.formats.csv_cuts import CsvCuts
from uploads.ledger import Ledger, UploadEntry
from uploads.plan import jobs
from uploads.upload import Upload, upload_id

if TYPE_CHECKING:
    from local.ministack import MiniStack

KEY = "the files/a+b ü.ndjson"
CHUNK_BYTES = 4_000
CACHES: list[Any] = [
    clients.s3,
    clients.kinesis,
    clients.dynamodb,
    clients.dynamodb_for_notes,
    clients.sqs,
    chunks._settings,
    chunks._waiting,
    chunks._idempotency,
    chunks._publish_once,
]


@dataclass
class World:
    """A bucket, a stream and tables of the test's own."""

    ministack: MiniStack
    name: str
    dead_letters: str

    def put(self, data: bytes, **fields: Any) -> list[ChunkJob]:
        """Put a file, register it, and return its chunk jobs, as plan would send them."""
        head = self.ministack.client("s3").put_object(Bucket=self.name, Key=KEY, Body=data)
        upload = Upload(
            upload=upload_id(self.name, KEY, head["ETag"]),
            bucket=self.name,
            key=KEY,
            version_id=head.get("VersionId"),
            etag=head["ETag"],
            size=len(data),
            registered_at=datetime.now(UTC),
            **({"format": "ndjson"} | fields),
        )
        self.ledger.register(upload)
        if upload.gzip:
            starts = [0]
        elif upload.format == "csv":
            starts = [0, *CsvCuts(CHUNK_BYTES).feed(data)]
        else:
            starts = list(range(0, len(data), CHUNK_BYTES))
        return list(jobs(upload, starts))

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.ministack.client("dynamodb"), self.name)

    def entry(self, job: ChunkJob) -> UploadEntry:
        entry = self.ledger.entry(job.upload)
        assert entry is not None
        return entry

    def counts(self, job: ChunkJob) -> tuple[ChunkCount, ...]:
        return self.entry(job).counts

    def deliver(self, *batch: ChunkJob) -> int:
        """Have the handler called; how many messages it gives back."""
        records = [
            {
                "messageId": str(number),
                "receiptHandle": "handle",
                "body": job.to_json(),
                "attributes": {},
                "messageAttributes": {},
                "eventSource": "aws:sqs",
                "eventSourceARN": "arn:aws:sqs:us-east-1:000000000000:chunks",
                "awsRegion": "us-east-1",
            }
            for number, job in enumerate(batch)
        ]
        answer = chunks.handler({"Records": records}, Context())  # type: ignore[arg-type]
        return len(answer["batchItemFailures"])

    def stream(self) -> list[bytes]:
        kinesis = self.ministack.client("kinesis")
        data: list[bytes] = []
        for shard in kinesis.list_shards(StreamName=self.name)["Shards"]:
            iterator = kinesis.get_shard_iterator(
                StreamName=self.name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            while records := (answer := kinesis.get_records(ShardIterator=iterator))["Records"]:
                data += [record["Data"] for record in records]
                iterator = answer["NextShardIterator"]
        return data

    def records(self) -> list[Record]:
        return [
            Record.from_bytes(data, check_payload)
            for data in self.stream()
            if RejectedLine.from_bytes(data) is None
        ]

    def rejected(self) -> list[RejectedLine]:
        return [line for data in self.stream() if (line := RejectedLine.from_bytes(data))]


@pytest.fixture
def world(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    name = f"chunks-{uuid.uuid4().hex}"
    ministack.client("s3").create_bucket(Bucket=name)
    ministack.client("kinesis").create_stream(StreamName=name, ShardCount=2)
    dynamodb = ministack.client("dynamodb")
    for table, keys in ((name, {"upload": "HASH", "item": "RANGE"}), (f"{name}-idempotency", {"id": "HASH"})):
        dynamodb.create_table(
            TableName=table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key in keys],
            KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys.items()],
        )
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.endpoint)
    monkeypatch.setenv("STREAM_NAME", name)
    monkeypatch.setenv("LEDGER_TABLE", name)
    monkeypatch.setenv("IDEMPOTENCY_TABLE", f"{name}-idempotency")
    dead_letters = ministack.client("sqs").create_queue(QueueName=f"{name}-dead")["QueueUrl"]
    monkeypatch.setenv("CHUNK_DEAD_LETTER_QUEUE_URL", dead_letters)
    for cache in CACHES:
        cache.cache_clear()
    yield World(ministack, name, dead_letters)
    for cache in CACHES:
        cache.cache_clear()


def test_every_line_of_a_file_is_on_the_stream_once_though_every_job_is_delivered_twice(world: World) -> None:
    lines = [b'{"n": %d, "text": "%b"}' % (number, b"x" * (number % 90)) for number in range(500)]
    bad = {number: b"bad %d" % number for number in range(0, 500, 50)}
    data = b"\n\n".join(bad.get(number, line) for number, line in enumerate(lines))
    plan = world.put(data)
    assert len(plan) > 5
    assert world.deliver(*plan, *reversed(plan)) == 0
    counts = world.counts(plan[0])
    assert [count.chunk for count in counts] == list(range(len(plan)))
    assert sum(count.lines for count in counts) == 500
    assert sum(count.rejected for count in counts) == 10
    assert sum(count.file_lines for count in counts) == 999
    good = sorted(set(range(500)) - set(bad))
    assert sorted(json.loads(record.payload_json)["n"] for record in world.records()) == good

    def line_of_file(line: RejectedLine) -> int:
        return sum(count.file_lines for count in counts[: line.upload.chunk]) + line.upload.line

    found = {line_of_file(line): line.rejected.raw for line in world.rejected()}
    assert found == {2 * number + 1: raw for number, raw in bad.items()}


@pytest.mark.parametrize("packed", [False, True])
def test_a_csv_file_with_line_breaks_in_its_fields_is_published_row_by_row(
    world: World, packed: bool
) -> None:
    file = io.StringIO(newline="")
    writer = csv.writer(file)
    writer.writerow(["order_id", "text"])
    writer.writerows([f"o-{number}", 'two\nlines, and a "quote"'] for number in range(400))
    data = file.getvalue().encode()
    plan = world.put(gzip.compress(data) if packed else data, format="csv", gzip=packed, id_field="order_id")
    assert (len(plan) > 3) is not packed
    assert world.deliver(*plan) == 0
    records = world.records()
    assert sorted(record.id for record in records) == sorted(f"o-{number}" for number in range(400))
    assert {json.loads(record.payload_json)["text"] for record in records} == {'two\nlines, and a "quote"'}
    assert sum(count.lines for count in world.counts(plan[0])) == 400


def test_a_delivery_while_another_is_at_the_job_goes_back_and_is_skipped_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (job,) = world.put(b"".join(b'{"n": %d}\n' % number for number in range(100)))
    s3 = clients.s3()
    get_object = s3.get_object
    back = []

    def get_while_others_deliver(**request: Any) -> Any:
        back.extend([world.deliver(job), world.deliver(job)])
        return get_object(**request)

    monkeypatch.setattr(s3, "get_object", get_while_others_deliver)
    assert world.deliver(job) == 0
    assert back == [1, 1]
    assert world.deliver(job) == 0
    assert back == [1, 1]
    assert sorted(json.loads(record.payload_json)["n"] for record in world.records()) == list(range(100))


def test_a_job_reads_the_version_that_was_planned(world: World) -> None:
    world.ministack.client("s3").put_bucket_versioning(
        Bucket=world.name, VersioningConfiguration={"Status": "Enabled"}
    )
    (old,) = world.put(b'{"n": "old"}\n')
    (new,) = world.put(b'{"n": "new"}\n')
    assert old.version_id != new.version_id
    assert world.deliver(old) == 0
    assert [json.loads(record.payload_json)["n"] for record in world.records()] == ["old"]


@pytest.mark.parametrize(
    ("overwrite", "reason"),
    [(True, "the object has changed since it was planned"), (False, "the object is gone")],
)
def test_an_object_that_is_not_what_was_planned_fails_and_the_ledger_says_why(
    world: World, overwrite: bool, reason: str
) -> None:
    (job,) = world.put(b'{"n": "old"}\n')
    if overwrite:
        world.put(b'{"n": "new"}\n')
    else:
        world.ministack.client("s3").delete_object(Bucket=world.name, Key=KEY)
    assert world.deliver(job) == 0
    (dead,) = world.ministack.client("sqs").receive_message(QueueUrl=world.dead_letters)["Messages"]
    assert ChunkJob.from_json(dead["Body"]) == job
    assert world.stream() == []
    item = world.ministack.client("dynamodb").get_item(
        TableName=world.name, Key={"upload": {"S": job.upload}, "item": {"S": "failure#000000"}}
    )["Item"]
    assert item["failed"] == {"S": reason}
    assert world.counts(job) == ()


def test_a_line_longer_than_a_chunk_belongs_to_the_chunk_in_which_it_begins(world: World) -> None:
    long = json.dumps({"n": 1, "text": "x" * 300_000}).encode()
    data = b'{"n": 0}\n' + long + b'\n{"n": 2}'
    plan = world.put(data)
    assert world.deliver(*plan) == 0
    assert sorted(json.loads(record.payload_json)["n"] for record in world.records()) == [0, 1, 2]
    counts = world.counts(plan[0])
    assert [count.lines for count in counts if count.lines] == [2, 1]
    assert len(counts) == len(plan)
