"""Each function's whole job, as small as it can be while it uses every permission of its role.

On a deployed stack whose emulator enforces IAM. A job says whether all of it was done.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from typing import TYPE_CHECKING, Any

import boto3
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
from botocore.exceptions import ClientError

from consumer.handler import KEY_PREFIX
from local.ministack import REGION
from oncestream.idempotency import BulkIdempotency
from tests.unit.consumer_support import message, stream_event
from tests.unit.uploads_aws import s3_record, stream_record
from uploads.chunk_job import ChunkJob
from uploads.ledger import Ledger
from uploads.upload import Upload, upload_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from local.stack import Stack

CHUNK_BYTES = 1024
POLLED = ("ConsumerFunction", "ChunksFunction")
"""The functions whose events Lambda fetches under their roles; of plan see ``NOT_CHECKED`` in test_iam.py."""
HUGE = '{"id":"%s","partition_key":"p","payload":{"n":1' + "0" * 200_000 + "}}"
"""A record that Postgres refuses: its claim is released."""


class Jobs:
    """The jobs of the functions of ``stack``."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._s3 = stack.client("s3")
        self._dynamodb = stack.client("dynamodb")
        self._bucket = stack.outputs["UploadBucketName"]
        self._ledger = Ledger(self._dynamodb, stack.outputs["LedgerTableName"])
        self._starts = 0
        self._notifications: dict[str, Any] = {}
        resources = stack.client("cloudformation").describe_stack_resources(StackName=stack.name)
        self.physical = {
            each["LogicalResourceId"]: each["PhysicalResourceId"] for each in resources["StackResources"]
        }

    @property
    def of(self) -> dict[str, Callable[[], bool]]:
        """The job of each function, by logical id."""
        return {
            "ProducerFunction": self.produce,
            "ConsumerFunction": self.consume,
            "MigrateFunction": self.migrate,
            "RegisterFunction": self.register,
            "PlanFunction": self.plan,
            "ChunksFunction": self.publish_chunks,
            "ReportFunction": self.report,
        }

    def hold_events_back(self) -> None:
        """Turn the mappings and the bucket's notifications off."""
        self._turn_mappings(on=False)
        self._notifications = self._s3.get_bucket_notification_configuration(Bucket=self._bucket)
        self._notifications.pop("ResponseMetadata")
        self._s3.put_bucket_notification_configuration(Bucket=self._bucket, NotificationConfiguration={})

    def let_events_through(self) -> None:
        """Turn them on again. What the jobs have left on the queue goes first."""
        self._stack.client("sqs").purge_queue(QueueUrl=self._stack.outputs["ChunkQueueUrl"])
        self._s3.put_bucket_notification_configuration(
            Bucket=self._bucket, NotificationConfiguration=self._notifications
        )
        self._turn_mappings(on=True)

    def _turn_mappings(self, *, on: bool) -> None:
        client = self._stack.client("lambda")
        for mapping in client.list_event_source_mappings()["EventSourceMappings"]:
            client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=on)

    def start_anew(self, function: str) -> None:
        """Have the next invocation be a cold start: what a function keeps (a password) is gone."""
        self._starts += 1
        client, name = self._stack.client("lambda"), self.physical[function]
        variables = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
        client.update_function_configuration(
            FunctionName=name, Environment={"Variables": variables | {"START": str(self._starts)}}
        )

    def produce(self) -> bool:
        record = {"id": _new(), "partition_key": "p", "payload": {}}
        return bool(self._invoke("ProducerFunction", {"records": [record]}).get("accepted") == 1)

    def _poll(self, function: str, calls: Callable[[Callable[[str], Any]], bool]) -> bool:
        """Whether ``calls`` are made under the function's role; it is given what makes clients."""
        credentials = self._stack.client("sts").assume_role(
            RoleArn=self._stack.client("iam").get_role(RoleName=self.physical[f"{function}Role"])["Role"][
                "Arn"
            ],
            RoleSessionName="poller",
        )["Credentials"]
        session = boto3.Session(
            credentials["AccessKeyId"], credentials["SecretAccessKey"], credentials["SessionToken"], REGION
        )
        try:
            return calls(lambda service: session.client(service, endpoint_url=self._stack.ministack.endpoint))
        except ClientError as error:
            if error.response["Error"]["Code"] not in ("AccessDenied", "AccessDeniedException"):
                raise
            return False

    def _poll_records(self, client: Callable[[str], Any]) -> bool:
        """What Lambda does to read the record stream."""
        kinesis, name = client("kinesis"), self._stack.outputs["RecordStreamName"]
        arn = kinesis.describe_stream(StreamName=name)["StreamDescription"]["StreamARN"]
        kinesis.describe_stream_summary(StreamName=name)
        [shard, *_] = kinesis.list_shards(StreamName=name)["Shards"]
        iterator = kinesis.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )
        batch = kinesis.get_records(ShardIterator=iterator["ShardIterator"], Limit=1, StreamARN=arn)
        return "Records" in batch

    def _poll_jobs(self, client: Callable[[str], Any]) -> bool:
        """What Lambda does to take a job off the queue."""
        sqs, url = client("sqs"), self._stack.outputs["ChunkQueueUrl"]
        self._stack.client("sqs").send_message(QueueUrl=url, MessageBody="{}")
        sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])
        [message] = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1)["Messages"]
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return True

    def consume(self) -> bool:
        """A new record, one that is completed, one whose claim has expired, and one that Postgres refuses."""
        if not self._poll("ConsumerFunction", self._poll_records):
            return False
        new, completed, expired, refused = (_new() for _ in range(4))
        earlier = self._invoke("ConsumerFunction", stream_event(message(completed)))
        table = BulkIdempotency(
            self._stack.outputs["IdempotencyTableName"],
            config=IdempotencyConfig(hash_function="sha256"),
            key_prefix=KEY_PREFIX,
            boto3_client=self._dynamodb,
        )
        table.claim([(expired, "")], 1)
        batch = [*map(message, (new, completed, expired)), (HUGE % refused).encode()]
        answer = self._invoke("ConsumerFunction", stream_event(*batch, first=2))
        statuses = [self._status(each) for each in (new, completed, expired, refused)]
        return earlier == answer == {"batchItemFailures": []} and statuses == ["COMPLETED"] * 3 + [None]

    def migrate(self) -> bool:
        return self._invoke("MigrateFunction", {}) == {"applied": []}

    def register(self) -> bool:
        """A file by its version and another without one, a duplicate, and a file that was gone and is back."""
        versioned = self._put(f"{_new()}.ndjson", b"{}\n")
        unversioned = self._put(f"{_new()}.ndjson", b"{}\n")
        del unversioned["s3"]["object"]["versionId"]
        gone = f"{_new()}.ndjson"
        etag = hashlib.md5(b"{}\n", usedforsecurity=False).hexdigest()
        # Each makes its record when its turn has come; the first wrong answer ends it.
        steps: list[tuple[Callable[[], dict[str, Any]], list[str]]] = [
            (lambda: versioned, ["inserted"]),
            (lambda: unversioned, ["inserted"]),
            (lambda: versioned, ["duplicates"]),
            (lambda: s3_record(gone, etag, 3, bucket=self._bucket), ["inserted", "failed"]),
            (lambda: self._put(gone, b"{}\n"), ["inserted"]),
        ]
        return all(
            _filled(self._invoke("RegisterFunction", {"Records": [record()]})) == outcome
            for record, outcome in steps
        )

    def plan(self) -> bool:
        """A CSV file of several chunks, and one that has been overwritten; the first once more."""
        rows = b"id,text\n" + b"".join(b"%d,%b\n" % (number, b"x" * 90) for number in range(40))
        current, overwritten = self._enter("csv", rows), self._enter("csv", rows)
        self._s3.put_object(Bucket=self._bucket, Key=overwritten.key, Body=b"other")
        for upload in (current, overwritten, current):
            answer = self._invoke("PlanFunction", {"Records": [stream_record(upload.upload)]})
            if answer != {"batchItemFailures": []}:
                return False
        planned = [self._ledger.upload(upload.upload) for upload in (current, overwritten)]
        return all(upload is not None and (upload.chunks or 0) > 1 for upload in planned)

    def publish_chunks(self) -> bool:
        """A chunk, the same job again, one of a file that has been overwritten, and one whose file is gone: that one
        goes into the dead-letter queue."""
        if not self._poll("ChunksFunction", self._poll_jobs):
            return False
        current, overwritten, gone = (self._enter("ndjson", b'{"a": 1}\n' * 10) for _ in range(3))
        self._s3.put_object(Bucket=self._bucket, Key=overwritten.key, Body=b"other")
        self._s3.delete_object(Bucket=self._bucket, Key=gone.key, VersionId=gone.version_id)
        jobs = [_job(upload) for upload in (current, current, overwritten, gone)]
        answers = [self._invoke("ChunksFunction", _queue_event(job)) for job in jobs]
        failures = [len(answer.get("batchItemFailures", [None])) for answer in answers]
        counts = [self._ledger.entry(upload.upload) for upload in (current, overwritten)]
        return (
            failures == [0, 0, 0, 0]
            and all(entry is not None and [count.lines for count in entry.counts] == [10] for entry in counts)
            and [self._status(job.job, "chunks") for job in jobs] == ["COMPLETED"] * 3 + [None]
        )

    def report(self) -> bool:
        upload = self._enter("ndjson", b"{}\n")
        account = self._invoke("ReportFunction", {"account": upload.upload}).get("account")
        uploads = self._invoke("ReportFunction", {"uploads": 1}).get("uploads")
        return bool(account and account["key"] == upload.key and uploads)

    def _invoke(self, function: str, event: Any) -> dict[str, Any]:
        answer = self._stack.client("lambda").invoke(
            FunctionName=self.physical[function], Payload=json.dumps(event).encode()
        )
        value: dict[str, Any] = json.loads(answer["Payload"].read())
        return value

    def _status(self, key: str, prefix: str = KEY_PREFIX) -> str | None:
        hashed = hashlib.sha256(json.dumps(key).encode()).hexdigest()
        item = self._dynamodb.get_item(
            TableName=self._stack.outputs["IdempotencyTableName"], Key={"id": {"S": f"{prefix}#{hashed}"}}
        ).get("Item")
        return str(item["status"]["S"]) if item else None

    def _put(self, key: str, body: bytes) -> dict[str, Any]:
        put = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        return s3_record(key, put["ETag"], len(body), put["VersionId"], bucket=self._bucket)

    def _enter(self, known: str, body: bytes) -> Upload:
        """Put a file and enter it into the ledger, as register would."""
        key = f"{_new()}.{known}"
        put = self._s3.put_object(Bucket=self._bucket, Key=key, Body=body)
        upload = Upload.model_validate(
            {
                "upload": upload_id(self._bucket, key, put["ETag"]),
                "bucket": self._bucket,
                "key": key,
                "version_id": put["VersionId"],
                "etag": put["ETag"],
                "size": len(body),
                "format": known,
                "registered_at": "2026-11-21T00:00:00Z",
            }
        )
        self._ledger.register(upload)
        return upload


def _new() -> str:
    return uuid.uuid4().hex


def _filled(answer: dict[str, Any]) -> list[str]:
    return [name for name, values in answer.items() if values]


def _job(upload: Upload) -> ChunkJob:
    return ChunkJob.model_validate(
        {
            **upload.model_dump(include={"upload", "bucket", "key", "version_id", "etag", "size", "format"}),
            "job": f"{upload.upload}:0",
            "chunk": 0,
            "start": 0,
            "end": upload.size,
            "gzip": False,
        }
    )


def _queue_event(job: ChunkJob) -> dict[str, Any]:
    record = {
        "messageId": _new(),
        "receiptHandle": base64.b64encode(b"handle").decode(),
        "body": job.to_json(),
        "attributes": {},
        "messageAttributes": {},
        "eventSource": "aws:sqs",
    }
    return {"Records": [record]}
