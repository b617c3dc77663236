"""The patterns of docs/delivery, executed; and that the pages show these very files and name what is in the code."""

from __future__ import annotations

import base64
import importlib.util
import json
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import boto3
import pytest
from moto import mock_aws

from tests.unit.fake_dynamodb import FakeDynamoDB

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = sorted((REPOSITORY / "docs" / "delivery").glob("*.md"))
EXAMPLES = sorted((REPOSITORY / "docs" / "delivery" / "examples").glob("*.py"))
CONTEXT = SimpleNamespace(function_name="example", get_remaining_time_in_millis=lambda: 60_000)


@pytest.fixture
def load(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports an example with its environment set."""

    def load(name: str, **environment: str) -> ModuleType:
        for variable, value in environment.items():
            monkeypatch.setenv(variable, value)
        path = REPOSITORY / "docs" / "delivery" / "examples" / f"{name}.py"
        spec = importlib.util.spec_from_file_location(f"example_{name}", path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.fixture
def aws() -> Iterator[None]:
    with mock_aws():
        yield


def create_table(name: str) -> None:
    boto3.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )


def received(queue_url: str) -> list[Any]:
    client, bodies = boto3.client("sqs"), []
    while messages := client.receive_message(QueueUrl=queue_url, MaxNumberOfMessages=10).get("Messages"):
        bodies += [json.loads(message["Body"]) for message in messages]
    return bodies


def on_stream(name: str) -> list[Any]:
    client = boto3.client("kinesis")
    shards = client.list_shards(StreamName=name)["Shards"]
    found = []
    for shard in shards:
        iterator = client.get_shard_iterator(
            StreamName=name, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        found += [json.loads(each["Data"]) for each in client.get_records(ShardIterator=iterator)["Records"]]
    return found


def kinesis_event(*bodies: bytes) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventSource": "aws:kinesis",
                "kinesis": {"sequenceNumber": str(number), "data": base64.b64encode(body).decode()},
            }
            for number, body in enumerate(bodies, 1)
        ]
    }


@pytest.mark.usefixtures("aws")
def test_s3_enters_each_object_once(load: Any) -> None:
    create_table("uploads")
    example = load("s3", UPLOADS_TABLE="uploads")

    def notify(key: str, etag: str) -> None:
        entity = {"bucket": {"name": "bucket"}, "object": {"key": key, "eTag": etag}}
        example.handler({"Records": [{"eventSource": "aws:s3", "s3": entity}]}, CONTEXT)

    for key, etag in [("a+b%2Bc.csv", "1"), ("a+b%2Bc.csv", "1"), ("a+b%2Bc.csv", "2"), ("d.csv", "1")]:
        notify(key, etag)
    items = boto3.client("dynamodb").scan(TableName="uploads")["Items"]
    found = sorted((item["key"]["S"], item["etag"]["S"]) for item in items)
    assert found == [("a b+c.csv", "1"), ("a b+c.csv", "2"), ("d.csv", "1")]


@pytest.mark.usefixtures("aws")
def test_dynamodb_streams_act_on_inserts_only_and_ask_for_the_same_jobs_again(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = boto3.client("sqs").create_queue(QueueName="jobs")["QueueUrl"]
    example = load("dynamodb_streams", JOBS_QUEUE_URL=queue)

    def record(number: int, name: str, upload: str) -> dict[str, Any]:
        change = {"Keys": {"id": {"S": upload}}, "SequenceNumber": str(number)}
        return {"eventSource": "aws:dynamodb", "eventName": name, "dynamodb": change}

    event = {"Records": [record(1, "INSERT", "u"), record(2, "MODIFY", "v"), record(3, "REMOVE", "w")]}
    for _ in range(2):
        assert example.handler(event, CONTEXT) == {"batchItemFailures": []}
    jobs = [body["job"] for body in received(queue)]
    assert sorted(jobs) == sorted([f"u:{part}" for part in range(4)] * 2)

    refused = {"Failed": [{"Id": "0", "Code": "InternalError", "SenderFault": False}]}
    monkeypatch.setattr(example.sqs, "send_message_batch", lambda **_: refused)
    assert example.handler(event, CONTEXT) == {"batchItemFailures": [{"itemIdentifier": "1"}]}


@pytest.mark.usefixtures("aws")
def test_sqs_does_each_job_once_and_gives_back_what_failed(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_table("idempotency")
    boto3.client("kinesis").create_stream(StreamName="stream", ShardCount=1)
    example = load("sqs", IDEMPOTENCY_TABLE="idempotency", STREAM_NAME="stream")

    def deliver(*bodies: str) -> list[str]:
        records = [
            {"messageId": str(number), "eventSource": "aws:sqs", "body": body}
            for number, body in enumerate(bodies)
        ]
        answer = example.handler({"Records": records}, CONTEXT)
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    with monkeypatch.context() as outage:
        outage.setattr(example, "kinesis", None)
        assert deliver('{"job": "a"}') == ["0"]
    assert deliver('{"job": "a"}', '{"job": "b"}', '{"job": "a"}', "not JSON", '{"no": "id"}') == ["3", "4"]
    assert deliver('{"job": "a"}') == []
    assert sorted(each["job"] for each in on_stream("stream")) == ["a", "b"]


@pytest.mark.usefixtures("aws")
def test_the_kinesis_producer_sends_again_only_what_failed_with_the_same_ids(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    boto3.client("kinesis").create_stream(StreamName="stream", ShardCount=1)
    example = load("kinesis_producer", STREAM_NAME="stream")
    put, sizes = example.kinesis.put_records, []

    def flaky(StreamName: str, Records: list[Any]) -> dict[str, Any]:
        sizes.append(len(Records))
        if len(sizes) > 1:
            return put(StreamName=StreamName, Records=Records)
        throttled = {"ErrorCode": "ProvisionedThroughputExceededException"}
        return {"Records": [throttled, *put(StreamName=StreamName, Records=Records[1:])["Records"]]}

    monkeypatch.setattr(example.kinesis, "put_records", flaky)
    monkeypatch.setattr(example, "time", SimpleNamespace(sleep=lambda _: None))
    example.publish([{"order_id": number, "customer": "c"} for number in range(501)])
    assert sizes == [500, 1, 1]
    assert sorted(each["id"] for each in on_stream("stream")) == sorted(f"order-{n}" for n in range(501))


def test_the_kinesis_consumer_makes_one_row_of_each_record_and_keeps_bad_ones(
    load: Any, empty_database: Any
) -> None:
    example = load(
        "kinesis_consumer",
        DATABASE_HOST=empty_database.database_host,
        DATABASE_PORT=str(empty_database.database_port),
        DATABASE_NAME=empty_database.database_name,
        DATABASE_USER=empty_database.database_user,
        DATABASE_TLS="disable",
    )
    database = empty_database.connect()
    for statement in re.findall(r"CREATE TABLE [^;]*", example.__doc__):
        database.run(statement)
    good = [json.dumps({"id": name, "payload": {"text": r"no NUL: \u0000"}}).encode() for name in "ab"]
    bad = [
        b"not JSON",
        b"\xff\xfe",
        b'{"id": "c"}',
        b'{"id": "c", "payload": {"n": 1e999}}',
        b'{"id": "c", "payload": {"n": "\\u0000"}}',
        b'{"id": "c", "payload": {"n": "\\\\\\u0000"}}',
        b'{"id": "c", "payload": {"n": "\\ud800"}}',
        b"[" * 100_000,
        json.dumps({"id": "c" * 10_000, "payload": {}}).encode(),
    ]
    for _ in range(2):
        example.handler(kinesis_event(*good, *bad, *good), CONTEXT)
    found = database.run("SELECT id FROM orders ORDER BY id")
    rejected = database.run("SELECT raw FROM rejected_orders")
    database.close()
    example.connection().close()
    assert found == [["a"], ["b"]]
    assert sorted(bytes(raw) for (raw,) in rejected) == sorted(bad)


def test_the_claim_lets_an_effect_happen_once_and_frees_what_was_not_done(
    load: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    example = load("kinesis_claim", IDEMPOTENCY_TABLE="claims", MAIL_QUEUE_URL="https://sqs.test/mails")
    FakeDynamoDB("claims").attach(example.store.client)  # moto knows no PartiQL INSERT with parameters
    event = kinesis_event(*(json.dumps({"id": name, "payload": name}).encode() for name in "abca"))
    sent, away = [], {"b"}

    def send(QueueUrl: str, MessageBody: str) -> None:
        if json.loads(MessageBody) in away:
            raise ConnectionError
        sent.append(json.loads(MessageBody))

    monkeypatch.setattr(example.sqs, "send_message", send)
    with pytest.raises(ConnectionError):
        example.handler(event, CONTEXT)
    away.clear()
    example.store.claim([("b", "")], 60_000)  # another invocation has it now
    assert example.handler(event, CONTEXT) == {"batchItemFailures": [{"itemIdentifier": "2"}]}
    example.store.release(["b"])
    assert example.handler(event, CONTEXT) == {"batchItemFailures": []}
    assert sorted(sent) == ["a", "b", "c"]


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_a_page_shows_the_example_as_it_is(example: Path) -> None:
    block = f"```python\n{example.read_text()}```"
    assert [page.name for page in PAGES if block in page.read_text()]


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.stem)
def test_what_a_page_names_is_there(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (page.parent / target).exists(), target
    # Rows of the tables "Where": a link to a file, and names that it defines.
    for target, names in re.findall(r"^\| \[`[^`]+`\]\(([^)]+)\) \| ([^|]+) \|", text, re.MULTILINE):
        source = (page.parent / target).read_text()
        for name in re.findall(r"`([^`]+)`", names):
            last = re.escape(name.rpartition(".")[2])
            assert re.search(rf"(def|class) {last}\b|^ *{last}\b *[:=]", source, re.MULTILINE), (
                f"{target}: {name}"
            )
