"""The producer and a real Kinesis API (MiniStack): requests over HTTP, real answers, a real reshard."""

from __future__ import annotations

import json
import uuid
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from common import clients
from common.errors import TransientError
from producer import api
from producer.publish import Entry, Publisher
from records.record import Record
from tables.check import check_payload

if TYPE_CHECKING:
    from local.ministack import MiniStack


@pytest.fixture
def kinesis(ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The functions' own client, pointed at MiniStack."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.endpoint)
    clients.kinesis.cache_clear()
    yield clients.kinesis()
    clients.kinesis.cache_clear()


@pytest.fixture
def stream(kinesis: Any) -> Iterator[str]:
    """A stream of four shards."""
    name = f"stream-{uuid.uuid4()}"
    kinesis.create_stream(StreamName=name, ShardCount=4)
    kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    yield name
    kinesis.delete_stream(StreamName=name)


def read(kinesis: Any, stream: str) -> list[dict[str, Any]]:
    """Everything on the stream."""
    records = []
    for shard in kinesis.list_shards(StreamName=stream)["Shards"]:
        iterator = kinesis.get_shard_iterator(
            StreamName=stream, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=10_000)
            if not answer["Records"]:
                break
            records += answer["Records"]
            iterator = answer.get("NextShardIterator")
    return records


def entries(first: int, count: int) -> Iterator[Entry]:
    for n in range(first, first + count):
        yield Entry(f"id-{n}", f"key-{n}", f"{n}".encode())


def test_every_record_is_on_the_stream_once_with_its_key(kinesis: Any, stream: str) -> None:
    result = Publisher(kinesis, stream).publish(entries(0, 3_000))
    assert (result.published, result.requests, result.resent, result.complete) == (3_000, 6, 0, True)
    assert Counter((record["Data"], record["PartitionKey"]) for record in read(kinesis, stream)) == Counter(
        (entry.data, entry.partition_key) for entry in entries(0, 3_000)
    )


def test_a_reshard_goes_unnoticed(kinesis: Any, stream: str) -> None:
    ours = Publisher(kinesis, stream)
    ours.publish(entries(0, 1_000))
    before = {record["Data"] for record in read(kinesis, stream)}  # MiniStack's split forgets the parent's
    (shard, *_) = kinesis.list_shards(StreamName=stream)["Shards"]
    bounds = shard["HashKeyRange"]
    middle = (int(bounds["StartingHashKey"]) + int(bounds["EndingHashKey"])) // 2
    kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
    kinesis.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
    assert ours.publish(entries(1_000, 1_000)).complete
    after = {record["Data"] for record in read(kinesis, stream)}
    assert sorted(int(data) for data in before | after) == list(range(2_000))


def test_a_record_of_the_largest_size_is_taken(kinesis: Any, stream: str) -> None:
    key = "ü" * 10
    result = Publisher(kinesis, stream).publish([Entry("large", key, bytes(1024 * 1024 - 20))])
    assert result.published == 1
    assert len(read(kinesis, stream)[0]["Data"]) == 1024 * 1024 - 20


def test_a_missing_stream_is_named(kinesis: Any) -> None:
    with pytest.raises(TransientError, match="stream nowhere cannot be written: ResourceNotFoundException"):
        Publisher(kinesis, "nowhere").publish(entries(0, 1))


def test_an_endpoint_that_is_away_ends_in_a_report(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    clients.kinesis.cache_clear()
    waits: list[float] = []
    ours = Publisher(clients.kinesis(), "stream", attempts=3, sleep=waits.append, clock=lambda: sum(waits))
    result = ours.publish(entries(0, 2))
    clients.kinesis.cache_clear()
    assert [failed.id for failed in result.failed] == ["id-0", "id-1"]
    assert "Could not connect to the endpoint URL" in result.failed[0].reason
    assert len(waits) == 2


def test_the_handler_publishes_an_http_request(
    kinesis: Any, stream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAM_NAME", stream)
    api._settings.cache_clear()
    api._publisher.cache_clear()
    payloads = [{"n": n, "text": "ü" * 100} for n in range(2_000)]
    event = {
        "version": "2.0",
        "rawPath": "/records",
        "headers": {"content-type": "application/x-ndjson"},
        "requestContext": {
            "http": {"method": "POST", "path": "/records"},
            "requestId": "request",
            "stage": "$default",
        },
        "body": "\n".join(json.dumps({"payload": payload}) for payload in payloads),
        "isBase64Encoded": False,
    }
    context = SimpleNamespace(
        function_name="producer",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn",
        aws_request_id="request",
        get_remaining_time_in_millis=lambda: 60_000,
    )
    response = api.handler(event, context)
    api._settings.cache_clear()
    api._publisher.cache_clear()
    answer = json.loads(response["body"])
    assert (response["statusCode"], answer["accepted"]) == (200, 2_000)
    found = {
        record.id: record
        for record in (Record.from_bytes(r["Data"], check_payload) for r in read(kinesis, stream))
    }
    assert [json.loads(found[record_id].payload_json) for record_id in answer["ids"]] == payloads
