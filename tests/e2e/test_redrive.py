"""What was set aside comes back, on the deployed stack; twice changes nothing."""

from __future__ import annotations

import base64
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cli import uploading
from cli.redrive import Redriver, job_key
from cli.reports import Reports
from uploads.chunk_job import ChunkJob, job_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.reports import AccountAnswer
    from cli.target import Target
    from lambda_esm import StreamPoller
    from local.stack import Stack


@pytest.fixture
def sql(deployed: Stack) -> Iterator[Any]:
    connection = deployed.postgres.connect()
    yield connection.run
    connection.close()


@pytest.fixture
def redriver(target: Target, reports: Reports) -> Redriver:
    return Redriver(target, reports)


def load(target: Target, reports: Reports, path: Path, lines: int) -> AccountAnswer:
    path.write_text("".join(json.dumps({"number": number}) + "\n" for number in range(lines)))
    upload = uploading.put(target, path, key=f"{uuid.uuid4().hex}/{path.name}")
    return uploading.follow(reports, upload, lambda account: None, seconds=120)


def send(target: Target, records: list[dict[str, Any]]) -> None:
    answer = target.client("lambda").invoke(
        FunctionName=target.output("ProducerFunctionName"), Payload=json.dumps({"records": records}).encode()
    )
    body = json.loads(answer["Payload"].read())
    assert body.get("accepted") == len(records), body


def test_a_record_that_postgres_refused_is_a_row_after_the_fix(
    target: Target, redriver: Redriver, poller: StreamPoller, sql: Any
) -> None:
    ids = [f"redrive-{uuid.uuid4().hex}" for _ in range(3)]
    bad = f"bad_{uuid.uuid4().hex}"
    sql(f"ALTER TABLE records ADD CONSTRAINT {bad} CHECK (NOT payload ? '{bad}')")
    send(target, [{"id": each, "payload": {bad: 1}} for each in ids])
    poller.wait_until_drained(60)
    count = (
        "SELECT (SELECT count(*) FROM records WHERE id = ANY(:ids)),"
        " (SELECT count(*) FROM rejected_records WHERE record_id = ANY(:ids))"
    )
    assert sql(count, ids=ids) == [[0, 3]]
    sql(f"ALTER TABLE records DROP CONSTRAINT {bad}")

    assert any("rejected records" in line for line in redriver.find("rejected").says)
    redriver.run("rejected")
    poller.wait_until_drained(60)
    assert sql(count, ids=ids) == [[3, 0]]
    redriver.run("rejected")
    poller.wait_until_drained(60)
    assert sql(count, ids=ids) == [[3, 0]]


def test_a_record_whose_id_comes_while_it_is_on_its_way_stays_rejected_and_is_awaited_no_more(
    target: Target, redriver: Redriver, poller: StreamPoller, sql: Any
) -> None:
    record, bad = f"redrive-{uuid.uuid4().hex}", f"bad_{uuid.uuid4().hex}"
    sql(f"ALTER TABLE records ADD CONSTRAINT {bad} CHECK (NOT payload ? '{bad}')")
    send(target, [{"id": record, "payload": {bad: 1}}])
    poller.wait_until_drained(60)
    sql(f"ALTER TABLE records DROP CONSTRAINT {bad}")
    page = Reports(target).redrive("messages", None, "")
    [marked] = [each for each in page["messages"] if record.encode() in base64.b64decode(each["data"])]
    send(target, [{"id": record, "payload": {"good": 1}}])
    poller.wait_until_drained(60)
    state = "SELECT redriven_at IS NOT NULL FROM rejected_records WHERE record_id = :record"
    assert sql(state, record=record) == [[True]]
    # As the redriver does, which was interrupted here.
    target.client("kinesis").put_record(
        StreamName=target.output("RecordStreamName"),
        Data=base64.b64decode(marked["data"]),
        PartitionKey=marked["id"],
    )
    poller.wait_until_drained(60)
    assert sql(state, record=record) == [[False]]
    assert sql("SELECT payload ? 'good' FROM records WHERE id = :record", record=record) == [[True]]
    sql("DELETE FROM rejected_records WHERE record_id = :record", record=record)


def test_a_rejected_line_is_a_row_after_the_fix_and_the_account_stays_closed(
    target: Target, redriver: Redriver, poller: StreamPoller, sql: Any, tmp_path: Path
) -> None:
    reports = Reports(target)
    # What an older version of the code has rejected: its line is in rejected_records, and nowhere else.
    account = load(target, reports, tmp_path / "lines.ndjson", 20)
    upload = account["upload"]
    [[record, line]] = sql(
        "SELECT id, upload_line FROM records WHERE upload_id = :upload ORDER BY upload_line LIMIT 1",
        upload=upload,
    )
    sql("DELETE FROM records WHERE id = :id", id=record)
    sql(
        "INSERT INTO rejected_records (id, reason, raw, upload_id, upload_chunk, upload_line, shard_id,"
        " sequence_number, arrived_at) VALUES (:id, 'too strict', 'x', :upload, 0, :line, 's', '1', now())",
        id=record, upload=upload, line=line,
    )  # fmt: skip
    items = target.client("dynamodb")
    table = target.output("IdempotencyTableName")
    claims = items.scan(TableName=table)["Items"]
    assert job_key(job_id(upload, 0)) in {item["id"]["S"] for item in claims}
    for (
        item
    ) in claims:  # the claim of that record is one of these; without them all are new, and the rows are there
        if item["id"]["S"].startswith("records#"):
            items.delete_item(TableName=table, Key={"id": item["id"]})
    before = reports.account(upload)
    assert before is not None
    assert (before["state"], before["inserted"], before["rejected"]) == ("done", 19, 1)

    for _ in range(2):
        done = redriver.run("rejected", upload)
        assert done.left == []
        poller.wait_until_drained(60)
        after = reports.account(upload)
        assert after is not None
        assert (after["state"], after["inserted"], after["rejected"]) == ("done", 20, 0)


def test_a_discarded_batch_is_put_on_the_stream_again_and_kept_aside(
    target: Target, redriver: Redriver, poller: StreamPoller, sql: Any
) -> None:
    record = f"discarded-{uuid.uuid4().hex}"
    body = json.dumps({"id": record, "partition_key": "k", "payload": {}}).encode()
    kinesis = {"data": base64.b64encode(body).decode(), "partitionKey": "k", "sequenceNumber": "1"}
    payload = {"Records": [{"eventSource": "aws:kinesis", "kinesis": kinesis}] * 2}
    s3, bucket = target.client("s3"), target.output("DiscardedBatchesBucket")
    key = f"aws/lambda/{uuid.uuid4()}/shardId-0/2026/11/21/batch"
    s3.put_object(Bucket=bucket, Key=key, Body=json.dumps({"payload": json.dumps(payload)}).encode())
    s3.put_object(Bucket=bucket, Key=f"{key}-strange", Body=b"{}")

    assert redriver.find("discarded").count == 2
    done = redriver.run("discarded")
    assert done.sent == 2
    [left] = done.left
    assert left.startswith(f"{key}-strange")
    s3.delete_object(Bucket=bucket, Key=f"{key}-strange")
    assert redriver.find("discarded").count == 0
    assert s3.head_object(Bucket=bucket, Key=f"redriven/{key}")
    poller.wait_until_drained(60)
    assert sql("SELECT count(*) FROM records WHERE id = :id", id=record) == [[1]]


def test_a_dead_chunk_job_goes_back_to_its_queue_and_what_is_none_stays(
    target: Target, reports: Reports, redriver: Redriver, poller: StreamPoller, tmp_path: Path
) -> None:
    account = load(target, reports, tmp_path / "jobs.ndjson", 10)
    upload = account["upload"]
    head = target.client("s3").head_object(Bucket=account["bucket"], Key=account["key"])
    job = ChunkJob(
        job=job_id(upload, 0), upload=upload, bucket=account["bucket"], key=account["key"], etag=head["ETag"],
        version_id=head.get("VersionId"), chunk=0, start=0, end=account["size"], size=account["size"],
        format="ndjson",
    )  # fmt: skip
    sqs, dead = target.client("sqs"), target.output("ChunkDeadLetterQueueUrl")
    for body in (job.to_json(), "no job"):
        sqs.send_message(QueueUrl=dead, MessageBody=body)
    assert redriver.find("chunks").count == 2
    done = redriver.run("chunks")
    assert done.sent == 1
    [left] = done.left
    assert "not a chunk job" in left
    poller.wait_until_drained(60)
    assert reports.account(upload) == account | {"moved_at": reports.account(upload)["moved_at"]}  # type: ignore[index]
    assert redriver.run("chunks").sent == 0
    sqs.purge_queue(QueueUrl=dead)


def test_a_lost_notification_is_handed_to_register(
    target: Target, reports: Reports, redriver: Redriver, tmp_path: Path
) -> None:
    account = load(target, reports, tmp_path / "lost.ndjson", 1)
    notification = {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": account["bucket"]},
                    "object": {"key": account["key"], "size": account["size"], "eTag": "e" * 32},
                },
            }
        ]
    }
    queue = target.output("LostNotificationsQueueUrl")
    body = json.dumps({"requestPayload": notification})
    target.client("sqs").send_message(QueueUrl=queue, MessageBody=body)
    assert redriver.find("notifications").count == 1
    done = redriver.run("notifications")
    assert (done.sent, done.left) == (1, [])
    assert redriver.find("notifications").count == 0
