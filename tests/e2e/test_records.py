"""Records from the deployed producer to Postgres: each exactly once, whatever happens on the way."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from cli.reports import Reports
    from cli.target import Target
    from lambda_esm import StreamPoller
    from local.stack import Stack

DRAIN_SECONDS = 120


@pytest.fixture
def prefix() -> str:
    """What the ids of a test's records begin with: the stack is shared."""
    return f"{uuid.uuid4().hex[:12]}-"


def rows_of(stack: Stack, prefix: str) -> list[str]:
    connection = stack.postgres.connect()
    try:
        return [
            row[0] for row in connection.run("SELECT id FROM records WHERE starts_with(id, :p)", p=prefix)
        ]
    finally:
        connection.close()


def rejected_with(stack: Stack, raw: bytes) -> list[tuple[str, bytes]]:
    connection = stack.postgres.connect()
    try:
        found = connection.run("SELECT reason, raw FROM rejected_records WHERE raw = :raw", raw=raw)
        return [(reason, bytes(kept)) for reason, kept in found]
    finally:
        connection.close()


def produce(target: Target, records: list[dict[str, Any]]) -> dict[str, Any]:
    answer = target.client("lambda").invoke(
        FunctionName=target.output("ProducerFunctionName"), Payload=json.dumps({"records": records}).encode()
    )
    answered: dict[str, Any] = json.loads(answer["Payload"].read())
    return answered


def numbered(prefix: str, count: int) -> list[dict[str, Any]]:
    return [{"id": f"{prefix}{number:05}", "payload": {"number": number}} for number in range(count)]


def test_every_record_is_one_row_although_the_producer_repeats_and_batches_come_again(
    deployed: Stack, target: Target, poller: StreamPoller, prefix: str
) -> None:
    records = numbered(prefix, 3_000)

    for part in (records[:1_500], records[1_500:], records[1_000:2_000]):
        assert produce(target, part)["accepted"] == len(part)
    assert poller.wait_until_drained(DRAIN_SECONDS)

    assert sorted(rows_of(deployed, prefix)) == [record["id"] for record in records]


def test_poison_from_a_foreign_producer_is_rejected_once_and_its_neighbours_land(
    deployed: Stack, target: Target, poller: StreamPoller, prefix: str
) -> None:
    mark = prefix.encode()
    poison = {
        mark + b"not JSON": "not JSON",
        mark + b"\xff\xfe": "not UTF-8",
        b'{"wrong": "shape", "of": "' + mark + b'"}': "id: is missing",
        b'{"id": "' + mark + b'nul", "partition_key": "k", "payload": {"t": "\\u0000"}}': "NUL",
        b'{"id": "' + mark + b"x" * 10_000 + b'", "partition_key": "k", "payload": {}}': "at most 256",
        b"": "empty body",
    }
    good = [json.dumps(each | {"partition_key": "k"}).encode() for each in numbered(prefix, 2)]
    bodies = [good[0], *poison, good[1]]

    for _ in range(2):  # the foreign producer repeats itself, too
        target.client("kinesis").put_records(
            StreamName=target.output("RecordStreamName"),
            Records=[{"Data": body, "PartitionKey": "k"} for body in bodies],
        )
    assert poller.wait_until_drained(DRAIN_SECONDS)

    for raw, reason in poison.items():
        [(told, kept)] = rejected_with(deployed, raw)
        assert reason in told
        assert kept == raw
    assert len(rows_of(deployed, prefix)) == 2


def test_postgres_away_in_the_middle_loses_and_rejects_nothing_and_status_says_why_records_wait(
    deployed: Stack, target: Target, reports: Reports, poller: StreamPoller, prefix: str
) -> None:
    records = numbered(prefix, 1_000)
    connection = deployed.postgres.connect()
    [(rejected_before,)] = connection.run("SELECT count(*) FROM rejected_records")
    connection.close()

    produce(target, records[:500])
    deployed.postgres.stop("immediate")
    try:
        failures_seen = len(records)  # the second half is sent while the database is down
        produce(target, records[500:failures_seen])

        def told() -> dict[str, str]:
            return {note["function"]: note["reason"] for note in reports.stream()["waiting"]}

        assert poller.wait_for(lambda: "consumer" in told(), DRAIN_SECONDS)
        assert "Connection refused" in told()["consumer"]
        assert "Connection refused" in reports.stream()["database"]
    finally:
        deployed.postgres.start()
    assert poller.wait_until_drained(DRAIN_SECONDS)

    assert len(rows_of(deployed, prefix)) == 1_000
    connection = deployed.postgres.connect()
    [(rejected_after,)] = connection.run("SELECT count(*) FROM rejected_records")
    connection.close()
    assert rejected_after == rejected_before
    listed = deployed.client("s3").list_objects_v2(Bucket=target.output("DiscardedBatchesBucket"))
    assert listed["KeyCount"] == 0
