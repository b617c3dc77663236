"""``once redrive``: sends again what was set aside. A second run changes nothing."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from cli.errors import UserError, asking
from common.errors import PermanentError, TransientError
from producer.entry import Entry
from producer.publish import Publisher
from uploads.chunk_job import ChunkJob

if TYPE_CHECKING:
    from cli.reports import Reports
    from cli.target import Target

What = Literal["rejected", "discarded", "chunks", "notifications"]
REDRIVEN = "redriven/"
"""Where a discarded batch goes when it is on its way again; the bucket forgets it after 30 days."""
DISCARDED = "aws/lambda/"
"""Where Lambda puts discarded batches."""


@dataclass(slots=True)
class Found:
    """What there is to redrive of one kind."""

    what: What
    count: int
    says: list[str]
    """In words, a line each."""


@dataclass(slots=True)
class Done:
    """What became of it."""

    sent: int = 0
    left: list[str] = field(default_factory=list)
    """What stays where it is, and why."""


class Redriver:
    """Finds what one stack has set aside, and sends it again.

    Every method raises :class:`UserError` when AWS or the stack cannot be asked.
    """

    def __init__(self, target: Target, reports: Reports) -> None:
        self._target = target
        self._reports = reports

    def find(self, what: What, upload: str | None = None) -> Found:
        """What there is. Nothing is changed."""
        match what:
            case "rejected":
                return self._find_rejected(upload)
            case "discarded":
                keys = list(self._discarded())
                return Found(what, len(keys), [f"{len(keys):,} discarded batches: each as a whole"])
            case "chunks":
                count = self._waiting("ChunkDeadLetterQueueUrl")
                return Found(what, count, [f"{count:,} chunk jobs in the dead-letter queue: to the queue"])
            case "notifications":
                count = self._waiting("LostNotificationsQueueUrl")
                return Found(what, count, [f"{count:,} lost notifications: to register"])

    def run(self, what: What, upload: str | None = None) -> Done:
        """Send it."""
        done = Done()
        match what:
            case "rejected":
                self._redrive_messages(upload, done)
                self._redrive_lines(upload, done)
            case "discarded":
                for key in self._discarded():
                    self._redrive_batch(key, done)
            case "chunks":
                self._drain("ChunkDeadLetterQueueUrl", self._send_job, done)
            case "notifications":
                self._drain("LostNotificationsQueueUrl", self._register, done)
        return done

    # rejected records

    def _find_rejected(self, upload: str | None) -> Found:
        counts = self._reports.redrive("count", upload)
        says = []
        if counts["messages"]:
            says.append(f"{counts['messages']:,} rejected records: onto the stream, as they were")
        if counts["lines"]:
            says.append(
                f"{counts['lines']:,} rejected lines: their {counts['chunks']:,} chunks are read again; "
                "lines that are stored are skipped"
            )
        says += [f"  {number:,} of them: {reason}" for reason, number in counts["reasons"]]
        return Found("rejected", counts["messages"] + counts["lines"], says)

    def _redrive_messages(self, upload: str | None, done: Done) -> None:
        after = ""
        while True:
            page = self._reports.redrive("messages", upload, after)
            self._publish(
                (Entry(each["id"], each["id"], base64.b64decode(each["data"])) for each in page["messages"]),
                done,
            )
            if page["next"] is None:
                return
            after = page["next"]

    def _redrive_lines(self, upload: str | None, done: Done) -> None:
        after = ""
        while True:
            page = self._reports.redrive("chunks", upload, after)
            for body in page["jobs"]:
                self._forget(ChunkJob.from_json(body).job)
                self._send_job(body)
                done.sent += 1
            done.left += [f"chunk job {job}: the ledger does not know it" for job in page["unknown"]]
            if page["next"] is None:
                return
            after = page["next"]

    def _forget(self, job: str) -> None:
        """Remove the completed job from the idempotency table: it would be skipped. One at work stays."""
        client = self._target.client("dynamodb")
        # One that is worked on at this moment reads the file anew anyway: it stays.
        with asking("prepare a chunk job"), suppress(client.exceptions.ConditionalCheckFailedException):
            client.delete_item(
                TableName=self._target.output("IdempotencyTableName"),
                Key={"id": {"S": job_key(job)}},
                ConditionExpression="attribute_not_exists(id) OR #status = :completed",
                ExpressionAttributeNames={"#status": "status"},
                ExpressionAttributeValues={":completed": {"S": "COMPLETED"}},
            )

    # discarded batches

    def _discarded(self) -> Iterator[str]:
        with asking("list the discarded batches"):
            pages = self._target.client("s3").get_paginator("list_objects_v2")
            bucket = self._target.output("DiscardedBatchesBucket")
            for page in pages.paginate(Bucket=bucket, Prefix=DISCARDED):
                yield from (each["Key"] for each in page.get("Contents", []))

    def _redrive_batch(self, key: str, done: Done) -> None:
        s3, bucket = self._target.client("s3"), self._target.output("DiscardedBatchesBucket")
        with asking(f"read the discarded batch {key}"):
            body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        try:
            records = json.loads(json.loads(body)["payload"])["Records"]
            source = records[0]["eventSource"]
        except (ValueError, KeyError, TypeError, IndexError):
            done.left.append(f"{key}: not an invocation record of Lambda's with its payload")
            return
        if source == "aws:kinesis":
            sent = self._publish((_entry(record["kinesis"]) for record in records), done)
        else:
            sent = self._plan(key, {"Records": records}, done)
        if sent:
            with asking(f"put the discarded batch {key} aside"):
                s3.copy_object(Bucket=bucket, Key=REDRIVEN + key, CopySource={"Bucket": bucket, "Key": key})
                s3.delete_object(Bucket=bucket, Key=key)

    def _plan(self, key: str, event: dict[str, Any], done: Done) -> bool:
        answer = self._invoke("PlanFunctionName", event)
        if answer.get("batchItemFailures", True):
            done.left.append(f"{key}: plan could not do it; its log says why")
            return False
        done.sent += len(event["Records"])
        return True

    # queues

    def _waiting(self, output: str) -> int:
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        with asking("look into the queue"):
            answer = self._target.client("sqs").get_queue_attributes(
                QueueUrl=self._target.output(output), AttributeNames=names
            )
        return sum(int(answer["Attributes"][name]) for name in names)

    def _drain(self, output: str, send: Callable[[str], object], done: Done) -> None:
        """Send every message of a queue and delete it then. What cannot be sent comes back in five minutes."""
        sqs, url = self._target.client("sqs"), self._target.output(output)
        while True:
            with asking("read the queue"):
                messages = sqs.receive_message(
                    QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=300, WaitTimeSeconds=1
                ).get("Messages", [])
            if not messages:
                return
            for message in messages:
                try:
                    send(message["Body"])
                except PermanentError as error:
                    done.left.append(f"message {message['MessageId']}: {error}")
                    continue
                with asking("delete a message that was sent"):
                    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
                done.sent += 1

    def _send_job(self, body: str) -> None:
        job = ChunkJob.from_json(body)
        with asking(f"send the chunk job {job.job}"):
            self._target.client("sqs").send_message(
                QueueUrl=self._target.output("ChunkQueueUrl"), MessageBody=job.to_json()
            )

    def _register(self, body: str) -> None:
        try:
            event = json.loads(body)["requestPayload"]
        except (ValueError, KeyError, TypeError) as error:
            raise PermanentError("not an invocation record of Lambda's with its request") from error
        self._invoke("RegisterFunctionName", event)

    # the stream, functions

    def _publish(self, entries: Iterable[Entry], done: Done) -> bool:
        publisher = Publisher(self._target.client("kinesis"), self._target.output("RecordStreamName"))
        with asking("put records on the stream"):
            try:
                result = publisher.publish(entries)
            except TransientError as error:
                raise UserError(f"Could not put records on the stream: {error}. Run this again.") from error
        done.sent += result.published
        done.left += [f"{each.id}: {each.reason}" for each in (*result.failed, *result.rejected)]
        return result.complete and not result.rejected

    def _invoke(self, output: str, event: dict[str, Any]) -> Any:
        with asking("invoke a function"):
            answer = self._target.client("lambda").invoke(
                FunctionName=self._target.output(output), Payload=json.dumps(event).encode()
            )
        body = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise UserError(
                f"The stack could not do it: {body.get('errorMessage') or body}. Nothing is lost."
            )
        return body


def job_key(job: str) -> str:
    """The key of a chunk job in the idempotency table, as Powertools makes it for uploads/chunks."""
    return f"chunks#{hashlib.sha256(json.dumps(job).encode()).hexdigest()}"


def _entry(kinesis: dict[str, Any]) -> Entry:
    return Entry(kinesis["sequenceNumber"], kinesis["partitionKey"], base64.b64decode(kinesis["data"]))
