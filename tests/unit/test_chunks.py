"""The SQS handler: what becomes of each message of a batch, and what is said about it."""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import boto3
import pytest
from moto.core.models import DEFAULT_ACCOUNT_ID

from common import clients
from common.errors import PermanentError
from common.observability import logger
from records.record import Record, RejectedLine
from tables.check import check_payload
from tests.unit.chunk_files import UPLOAD, job_of
from tests.unit.uploads_aws import LEDGER, Aws, Context, moto_aws
from uploads import chunks
from uploads.chunk_job import ChunkJob

KEY = "some files/a+b ü.ndjson"
DATA = b'{"n": 1}\nbad\n\n{"n": 2}\n'
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
    aws: Aws
    kinesis: Any
    dead_letter_queue: str
    log: io.StringIO
    number: int = 0
    logs: list[dict[str, Any]] = field(default_factory=list)

    def put(self, data: bytes = DATA, **changes: Any) -> ChunkJob:
        """Put the file and return the job of all of it."""
        etag = self.aws.s3.put_object(Bucket=self.aws.bucket, Key=KEY, Body=data)["ETag"]
        return job_of(data, bucket=self.aws.bucket, key=KEY, etag=etag, **changes)

    def deliver(self, *jobs: ChunkJob | str, milliseconds: int = 60_000) -> list[int]:
        """Have the handler called with these messages; the places of those that it gives back."""
        records = []
        for job in jobs:
            self.number += 1
            records.append(
                {
                    "messageId": f"message-{self.number}",
                    "receiptHandle": "handle",
                    "body": job if isinstance(job, str) else job.to_json(),
                    "attributes": {"ApproximateReceiveCount": "1"},
                    "messageAttributes": {},
                    "eventSource": "aws:sqs",
                    "eventSourceARN": f"arn:aws:sqs:us-east-1:{DEFAULT_ACCOUNT_ID}:chunks",
                    "awsRegion": "us-east-1",
                }
            )
        self.log.truncate(self.log.seek(0))
        answer = chunks.handler({"Records": records}, Context([milliseconds]))  # type: ignore[arg-type]
        self.logs = [json.loads(line) for line in self.log.getvalue().splitlines()]
        back = [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]
        return [place for place, record in enumerate(records) if record["messageId"] in back]

    def said(self) -> list[tuple[str, str, str | None]]:
        return [(log["level"], log["message"], log.get("job")) for log in self.logs]

    def stream(self) -> list[bytes]:
        shards = self.kinesis.list_shards(StreamName="records")["Shards"]
        data: list[bytes] = []
        for shard in shards:
            iterator = self.kinesis.get_shard_iterator(
                StreamName="records", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            data += [record["Data"] for record in self.kinesis.get_records(ShardIterator=iterator)["Records"]]
        return data

    def dead_letters(self) -> list[str]:
        """Take what is in the dead-letter queue."""
        messages = self.aws.sqs.receive_message(QueueUrl=self.dead_letter_queue, MaxNumberOfMessages=10)
        return [message["Body"] for message in messages.get("Messages", [])]

    def lock(self, job: ChunkJob, until: int = 99999999999000) -> None:
        """Have another invocation hold the job until then, in milliseconds of the epoch."""
        self.aws.dynamodb.put_item(
            TableName="idempotency",
            Item={
                "id": {"S": "chunks#" + sha256(json.dumps(job.job).encode()).hexdigest()},
                "status": {"S": "INPROGRESS"},
                "expiration": {"N": "99999999999"},
                "in_progress_expiration": {"N": str(until)},
            },
        )

    def claim(self, job: str) -> dict[str, Any] | None:
        key = "chunks#" + sha256(json.dumps(job).encode()).hexdigest()
        found: dict[str, Any] | None = self.aws.dynamodb.get_item(
            TableName="idempotency", Key={"id": {"S": key}}
        ).get("Item")
        return found


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with moto_aws() as aws:
        kinesis = boto3.client("kinesis")
        kinesis.create_stream(StreamName="records", ShardCount=1)
        dead_letter_queue = aws.sqs.create_queue(QueueName="dead-letters")["QueueUrl"]
        aws.dynamodb.create_table(
            TableName="idempotency",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        for name, value in {
            "STREAM_NAME": "records",
            "LEDGER_TABLE": LEDGER,
            "IDEMPOTENCY_TABLE": "idempotency",
            "CHUNK_DEAD_LETTER_QUEUE_URL": dead_letter_queue,
            "POWERTOOLS_SERVICE_NAME": "chunks",
            "POWERTOOLS_METRICS_NAMESPACE": "Oncestream",
        }.items():
            monkeypatch.setenv(name, value)
        for cache in CACHES:
            cache.cache_clear()
        log = io.StringIO()
        monkeypatch.setattr(logger.registered_handler, "stream", log)
        yield World(aws, kinesis, dead_letter_queue, log)
    for cache in CACHES:
        cache.cache_clear()


def test_a_chunk_job_is_published_counted_and_remembered(world: World) -> None:
    job = world.put()
    assert world.deliver(job) == []
    assert world.said() == [("INFO", "Chunk published", job.job)]
    assert world.logs[0]["count"] == {"lines": 3, "published": 2, "rejected": 1}
    messages = world.stream()
    assert [
        json.loads(Record.from_bytes(data, check_payload).payload_json)
        for data in messages
        if b"rejected" not in data
    ] == [
        {"n": 1},
        {"n": 2},
    ]
    (bad,) = [RejectedLine.from_bytes(data) for data in messages if b"rejected" in data]
    assert bad
    assert (bad.rejected.raw, bad.upload.line) == (b"bad", 2)
    count = world.aws.item(UPLOAD, "chunk#000000")
    assert count
    assert [
        count[name]["N"] for name in ("lines", "published", "rejected", "file_lines", "start", "end")
    ] == [
        "3",
        "2",
        "1",
        "4",
        "0",
        str(len(DATA)),
    ]
    claim = world.claim(job.job)
    assert claim
    assert claim["status"] == {"S": "COMPLETED"}


def test_a_job_delivered_again_is_skipped(world: World) -> None:
    job = world.put()
    world.deliver(job)
    published = world.stream()
    assert world.deliver(job, job) == []
    assert world.said() == [("INFO", "Duplicate skipped", job.job)] * 2
    assert world.stream() == published


def test_each_message_of_a_batch_is_answered_for_itself(world: World) -> None:
    good = world.put()
    changed = good.model_copy(update={"etag": '"another"', "chunk": 1, "job": f"{UPLOAD}:1"})
    locked = good.model_copy(update={"chunk": 2, "job": f"{UPLOAD}:2"})
    world.lock(locked)
    assert world.deliver("{}", good, changed, locked) == [3]
    assert world.dead_letters() == ["{}", changed.to_json()]
    assert world.said() == [
        ("ERROR", "Chunk failed, for good", None),
        ("INFO", "Chunk published", good.job),
        ("ERROR", "Chunk failed, for good", changed.job),
        ("INFO", "Chunk is in progress in another invocation, its message goes back", locked.job),
    ]


@pytest.mark.parametrize("body", [" ", "no JSON", "[]", "{}", '{"job": "a:0"}'])
def test_a_poison_job_is_put_into_the_dead_letter_queue_at_once_and_the_log_says_why(
    world: World, body: str
) -> None:
    assert world.deliver(body) == []
    assert world.dead_letters() == [body]
    (log,) = world.logs
    assert (log["level"], log["message"]) == ("ERROR", "Chunk failed, for good")
    assert log["reason"].startswith("not a chunk job: ")
    assert log["message_id"] == "message-1"


@pytest.mark.parametrize("change", ["gone", "overwritten"])
def test_an_object_that_is_not_what_was_planned_is_a_failure_in_the_ledger(world: World, change: str) -> None:
    job = world.put()
    if change == "gone":
        world.aws.s3.delete_object(Bucket=world.aws.bucket, Key=KEY)
    else:
        world.put(b'{"n": 3}\n' + DATA)
    assert world.deliver(job) == []
    assert world.dead_letters() == [job.to_json()]
    reason = "the object is gone" if change == "gone" else "the object has changed since it was planned"
    item = world.aws.item(UPLOAD, "failure#000000")
    assert item
    assert item["failed"] == {"S": reason}
    assert world.logs[0]["reason"] == reason
    assert world.claim(job.job) is None
    assert world.stream() == []


def test_a_job_whose_object_is_restored_is_published_when_it_is_redriven(world: World) -> None:
    job = world.put()
    world.aws.s3.delete_object(Bucket=world.aws.bucket, Key=KEY)
    world.deliver(job)
    world.put()
    assert world.deliver(*world.dead_letters()) == []
    assert len(world.stream()) == 3
    assert world.aws.item(UPLOAD, "chunk#000000")


def test_a_file_that_is_damaged_is_published_once_up_to_there_and_not_again_by_a_redrive(
    world: World,
) -> None:
    lines = b"".join(b'{"n": %d}\n' % number for number in range(2_000))
    job = world.put(gzip.compress(lines) + b"damage", gzip=True)
    assert world.deliver(job) == []
    published = world.stream()
    assert len(published) > 1_000
    reason = world.logs[0]["reason"]
    assert reason.startswith("not a gzip file, or a damaged one")
    assert world.deliver(*world.dead_letters()) == []
    assert [said[1] for said in world.said()] == ["Chunk failed, for good"]
    assert world.logs[0]["reason"] == reason
    assert world.stream() == published
    assert world.dead_letters() == [job.to_json()]


def test_a_job_that_the_dead_letter_queue_does_not_take_goes_back(world: World) -> None:
    job = world.put()
    world.aws.s3.delete_object(Bucket=world.aws.bucket, Key=KEY)
    world.aws.sqs.delete_queue(QueueUrl=world.dead_letter_queue)
    assert world.deliver(job) == [0]
    assert world.said() == [
        ("ERROR", "Chunk failed, for good", job.job),
        ("WARNING", "Chunk not finished, its message goes back", job.job),
    ]
    assert "the dead-letter queue does not take the job" in world.logs[1]["reason"]


@pytest.mark.parametrize(
    ("event", "named"),
    [
        ({"invocationId": "i", "deliveryStreamArn": "arn:a", "records": []}, "it comes from Firehose, arn:a"),
        ({"Records": [{"eventSource": "aws:kinesis"}]}, r"'aws:kinesis' \(a Kinesis stream\)"),
        ({"Records": [{"EventSource": "aws:sns"}]}, r"'aws:sns' \(SNS\)"),
        ({"detail-type": "Object Created", "source": "aws.s3"}, "EventBridge: 'Object Created' of 'aws.s3'"),
        ({"rmqMessagesByQueue": {}}, "its keys are rmqMessagesByQueue"),
        (["text"], "no object but of type list"),
    ],
)
@pytest.mark.filterwarnings("ignore:No application metrics to publish")
def test_an_event_of_another_service_is_refused_by_its_name(event: Any, named: str) -> None:
    with pytest.raises(PermanentError, match=f"^not an event of an SQS queue: .*{named}"):
        chunks.handler(event, Context())  # type: ignore[arg-type]


def test_a_job_that_another_invocation_is_at_goes_back(world: World) -> None:
    job = world.put()
    world.lock(job)
    assert world.deliver(job) == [0]
    assert world.said() == [
        ("INFO", "Chunk is in progress in another invocation, its message goes back", job.job)
    ]
    assert world.stream() == []


def test_a_claim_holds_as_long_as_its_invocation_has_left(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.put()
    work = chunks.ChunkWorker.work
    claims = []

    def looked_at(*arguments: Any) -> Any:
        claims.append(world.claim(job.job))
        return work(*arguments)

    monkeypatch.setattr(chunks.ChunkWorker, "work", looked_at)
    now = datetime.now(UTC).timestamp() * 1000
    world.deliver(job, milliseconds=600_000)
    (claim,) = claims
    assert claim
    assert claim["status"] == {"S": "INPROGRESS"}
    assert 0 <= float(claim["in_progress_expiration"]["N"]) - now - 600_000 < 300_000


def test_a_claim_frees_itself_when_the_time_of_its_invocation_is_over(world: World) -> None:
    job = world.put()
    world.lock(job, until=1000)
    assert world.deliver(job) == []


def test_a_job_is_not_begun_when_too_little_time_is_left(world: World) -> None:
    job = world.put()
    assert world.deliver(job, milliseconds=5_000) == [0]
    assert world.said() == [("WARNING", "Chunk not finished, its message goes back", job.job)]
    assert world.logs[0]["reason"] == "no time is left to begin the chunk"
    assert world.claim(job.job) is None


def test_a_stream_that_cannot_be_written_leaves_the_job_to_redelivery(world: World) -> None:
    job = world.put()
    world.kinesis.delete_stream(StreamName="records")
    assert world.deliver(job) == [0]
    assert [said[:2] for said in world.said()] == [("WARNING", "Chunk not finished, its message goes back")]
    assert world.claim(job.job) is None
    assert world.aws.item(UPLOAD, "chunk#000000") is None
    world.kinesis.create_stream(StreamName="records", ShardCount=1)
    assert world.deliver(job) == []
    assert len(world.stream()) == 3


def test_why_a_job_waits_is_noted_until_one_is_done(world: World) -> None:
    job = world.put()
    world.kinesis.delete_stream(StreamName="records")
    world.deliver(job)
    [note] = world.aws.ledger.waiting()
    assert note.function == "chunks"
    assert note.reason == world.logs[-1]["reason"]
    world.kinesis.create_stream(StreamName="records", ShardCount=1)
    world.deliver(job)
    assert world.aws.ledger.waiting() == []


def test_a_job_that_can_never_be_done_waits_for_nothing(world: World) -> None:
    world.deliver("not a chunk job")
    assert world.aws.ledger.waiting() == []


def test_an_idempotency_table_that_is_away_leaves_the_job_to_redelivery(world: World) -> None:
    job = world.put()
    world.aws.dynamodb.delete_table(TableName="idempotency")
    assert world.deliver(job) == [0]
    assert world.said() == [("WARNING", "Chunk not finished, its message goes back", job.job)]
    assert world.stream() == []


def test_a_defect_is_logged_with_its_traceback_and_the_message_goes_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = world.put()

    def broken(*_: object) -> None:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(chunks.ChunkWorker, "work", broken)
    assert world.deliver(job) == [0]
    (log,) = world.logs
    assert (log["level"], log["exception_name"]) == ("ERROR", "ZeroDivisionError")
    assert world.claim(job.job) is None


def test_importing_the_handler_needs_neither_environment_nor_network() -> None:
    program = "import socket; socket.socket.connect = None; import uploads.chunks"
    subprocess.run([sys.executable, "-c", program], env={"PYTHONPATH": "src"}, check=True)
