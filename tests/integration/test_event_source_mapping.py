"""The poller against MiniStack: real HTTP, real functions, and an endpoint with a poller of its own to keep away."""

from __future__ import annotations

import base64
import io
import json
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from lambda_esm import (
    Backoff,
    Clients,
    Delivery,
    FileCheckpoints,
    NotInvoked,
    Observer,
    StreamPoller,
    every,
)

PATIENCE = 60.0
CODE = """
import base64, json, os

def handler(event, context):
    with open(os.environ["LOG"], "a") as log:
        log.write(json.dumps(event) + "\\n")
    failures = []
    for record in event["Records"]:
        if "kinesis" in record:
            data = base64.b64decode(record["kinesis"]["data"])
            if b"raise" in data:
                raise ValueError("told to")
            if b"report" in data:
                failures.append({"itemIdentifier": record["kinesis"]["sequenceNumber"]})
    return {"batchItemFailures": failures}
"""
_numbers = count(1)


class Function:
    """A deployed function that writes down every event it gets."""

    def __init__(self, ministack: Any, log: Path) -> None:
        archive = io.BytesIO()
        with zipfile.ZipFile(archive, "w") as code:
            code.writestr("app.py", CODE)
        self.name = "listener"
        self.log = log
        ministack.client("lambda").create_function(
            FunctionName=self.name,
            Runtime="python3.13",
            Handler="app.handler",
            Role="arn:aws:iam::000000000000:role/listener-role",
            Code={"ZipFile": archive.getvalue()},
            Timeout=30,
            Environment={"Variables": {"LOG": str(log)}},
        )

    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()] if self.log.exists() else []


@pytest.fixture(scope="module")
def function(ministack: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Function]:
    deployed = Function(ministack, tmp_path_factory.mktemp("listener") / "events.ndjson")
    yield deployed
    ministack.client("lambda").delete_function(FunctionName=deployed.name)


@pytest.fixture
def stream(ministack: Any) -> Iterator[str]:
    """The name of a new stream with two shards."""
    kinesis, name = ministack.client("kinesis"), f"listened-{next(_numbers)}"
    kinesis.create_stream(StreamName=name, ShardCount=2)
    yield name
    kinesis.delete_stream(StreamName=name)


@pytest.fixture
def mapped(ministack: Any, function: Function) -> Iterator[Any]:
    """Maps an event source to the function: ``mapped(arn, **settings)`` -> UUID. The log starts empty.

    The mapping is disabled, as after an earlier run of ours: MiniStack's own poller would deliver what is put on the
    stream before ours starts.
    """
    client, made = ministack.client("lambda"), []
    function.log.unlink(missing_ok=True)

    def make(source: str, **settings: Any) -> str:
        settings = {"StartingPosition": "TRIM_HORIZON"} | settings
        mapping = client.create_event_source_mapping(
            FunctionName=function.name, EventSourceArn=source, Enabled=False, **settings
        )
        made.append(mapping["UUID"])
        return str(mapping["UUID"])

    yield make
    for uuid in made:
        client.delete_event_source_mapping(UUID=uuid)


class Log(Observer):
    def __init__(self) -> None:
        self.deliveries: list[Delivery] = []

    def on_delivery(self, delivery: Delivery) -> None:
        self.deliveries.append(delivery)


def arn(ministack: Any, stream: str) -> str:
    summary = ministack.client("kinesis").describe_stream_summary(StreamName=stream)
    return str(summary["StreamDescriptionSummary"]["StreamARN"])


def put(ministack: Any, stream: str, *data: str, key: str | None = None) -> None:
    ministack.client("kinesis").put_records(
        StreamName=stream, Records=[{"Data": each.encode(), "PartitionKey": key or each} for each in data]
    )


def poller_for(ministack: Any, function: Function, **options: Any) -> StreamPoller:
    quick: dict[str, Any] = {"backoff": Backoff(0.01, 0.05), "poll_seconds": 0.02, "refresh_seconds": 0.1}
    return StreamPoller(
        Clients(ministack.endpoint), functions=[function.name], take_over=True, **(quick | options)
    )


def data_of(events: list[dict[str, Any]]) -> list[str]:
    return [base64.b64decode(r["kinesis"]["data"]).decode() for event in events for r in event["Records"]]


def test_every_record_is_delivered_once_and_by_this_poller_alone(
    ministack: Any, function: Function, stream: str, mapped: Any
) -> None:
    uuid, client, log = mapped(arn(ministack, stream), BatchSize=7), ministack.client("lambda"), Log()
    client.update_event_source_mapping(UUID=uuid, Enabled=True)  # as a deployment leaves it
    with poller_for(ministack, function, observer=log) as poller:
        assert poller.wait_until_drained(PATIENCE)
        sent = [f"record {number}" for number in range(40)]
        put(ministack, stream, *sent)
        assert poller.wait_until_drained(PATIENCE)

    events = function.events()
    assert sorted(data_of(events)) == sorted(sent)
    assert {json.dumps(event, sort_keys=True) for event in events} == {
        json.dumps(delivery.event, sort_keys=True) for delivery in log.deliveries
    }
    assert max(len(event["Records"]) for event in events) == 7
    assert len({delivery.shard_id for delivery in log.deliveries}) == 2
    record = events[0]["Records"][0]
    assert record["invokeIdentityArn"] == "arn:aws:iam::000000000000:role/listener-role"
    assert isinstance(record["kinesis"]["approximateArrivalTimestamp"], float)
    assert client.get_event_source_mapping(UUID=uuid)["State"] == "Disabled"


def test_a_reported_record_is_discarded_whole_and_its_neighbours_are_not(
    ministack: Any, function: Function, stream: str, mapped: Any
) -> None:
    s3 = ministack.client("s3")
    s3.create_bucket(Bucket="discarded")
    uuid = mapped(
        arn(ministack, stream),
        FunctionResponseTypes=["ReportBatchItemFailures"],
        BisectBatchOnFunctionError=True,
        MaximumRetryAttempts=1,
        DestinationConfig={"OnFailure": {"Destination": "arn:aws:s3:::discarded"}},
    )
    put(ministack, stream, "a", "b", "raise", "c", "report", key="one shard")
    with poller_for(ministack, function) as poller:
        assert poller.wait_until_drained(PATIENCE)

    kept = []
    for each in s3.list_objects_v2(Bucket="discarded")["Contents"]:
        assert each["Key"].startswith(f"aws/lambda/{uuid}/shardId-")
        kept.append(json.loads(s3.get_object(Bucket="discarded", Key=each["Key"])["Body"].read()))
    assert sorted(data_of([json.loads(record["payload"]) for record in kept])) == ["raise", "report"]
    assert {record["requestContext"]["condition"] for record in kept} == {"RetryAttemptsExhausted"}
    [raised] = [record for record in kept if record["responseContext"]["functionError"]]
    assert raised["KinesisBatchInfo"]["batchSize"] == 1
    assert set(data_of(function.events())) == {"a", "b", "raise", "c", "report"}


def test_a_throttled_function_gets_its_records_later(
    ministack: Any, function: Function, stream: str, mapped: Any
) -> None:
    mapped(arn(ministack, stream), MaximumRetryAttempts=0)
    client, log = ministack.client("lambda"), Log()
    client.put_function_concurrency(FunctionName=function.name, ReservedConcurrentExecutions=0)
    put(ministack, stream, "a")
    with poller_for(ministack, function, observer=log) as poller:
        assert poller.wait_for(lambda: len(log.deliveries) >= 3, PATIENCE)
        client.delete_function_concurrency(FunctionName=function.name)
        assert poller.wait_until_drained(PATIENCE)

    *refused, last = log.deliveries
    assert all(isinstance(delivery.outcome, NotInvoked) for delivery in refused)
    assert "TooManyRequestsException" in str(refused[0].outcome)
    assert last.succeeded
    assert data_of(function.events()) == ["a"]


def test_the_changes_of_a_table_arrive_filtered(ministack: Any, function: Function, mapped: Any) -> None:
    dynamodb, table = ministack.client("dynamodb"), f"ledger-{next(_numbers)}"
    dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    source = dynamodb.describe_table(TableName=table)["Table"]["LatestStreamArn"]
    pattern = {"eventName": ["INSERT"], "dynamodb": {"Keys": {"id": {"S": [{"prefix": "upload#"}]}}}}
    mapped(source, FilterCriteria={"Filters": [{"Pattern": json.dumps(pattern)}]})
    with poller_for(ministack, function) as poller:
        assert poller.wait_until_drained(PATIENCE)
        dynamodb.put_item(TableName=table, Item={"id": {"S": "upload#1"}, "raw": {"B": b"\x00\xff"}})
        dynamodb.put_item(TableName=table, Item={"id": {"S": "upload#1"}, "state": {"S": "planned"}})
        dynamodb.put_item(TableName=table, Item={"id": {"S": "other#1"}})
        dynamodb.delete_item(TableName=table, Key={"id": {"S": "upload#1"}})
        assert poller.wait_until_drained(PATIENCE)
    dynamodb.delete_table(TableName=table)

    [record] = [record for event in function.events() for record in event["Records"]]
    assert record["eventName"] == "INSERT"
    assert record["eventSourceARN"] == source
    assert record["dynamodb"]["NewImage"] == {"id": {"S": "upload#1"}, "raw": {"B": "AP8="}}


def test_the_children_of_a_split_are_read_from_their_start(
    ministack: Any, function: Function, stream: str, mapped: Any
) -> None:
    mapped(arn(ministack, stream), StartingPosition="LATEST")
    put(ministack, stream, "before")
    kinesis = ministack.client("kinesis")
    with poller_for(ministack, function, refresh_seconds=3600) as poller:
        assert poller.wait_for(poller.drained, PATIENCE)
        shard = kinesis.list_shards(StreamName=stream)["Shards"][0]
        middle = (
            int(shard["HashKeyRange"]["StartingHashKey"]) + int(shard["HashKeyRange"]["EndingHashKey"])
        ) // 2
        kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle))
        sent = [f"after {number}" for number in range(20)]
        put(ministack, stream, *sent)
        # The end of the parent is what makes the poller look for children: it looks for them at no other time here.
        assert poller.wait_for(lambda: len(data_of(function.events())) == len(sent), PATIENCE)

    assert sorted(data_of(function.events())) == sorted(sent)


def test_a_poller_started_again_goes_on_where_the_last_one_stopped(
    ministack: Any, function: Function, stream: str, mapped: Any, tmp_path: Path
) -> None:
    mapped(arn(ministack, stream))
    path = tmp_path / "checkpoints.json"
    for data in ("first", "second"):
        put(ministack, stream, data)
        with poller_for(ministack, function, checkpoints=FileCheckpoints(path)) as poller:
            assert poller.wait_until_drained(PATIENCE)

    assert data_of(function.events()) == ["first", "second"]


def test_batches_come_again_on_purpose(ministack: Any, function: Function, stream: str, mapped: Any) -> None:
    mapped(arn(ministack, stream))
    put(ministack, stream, "a", "b", key="one shard")
    with poller_for(ministack, function, redeliver=every(1)) as poller:
        assert poller.wait_until_drained(PATIENCE)

    assert data_of(function.events()) == ["a", "b", "a", "b"]


def start_cli(ministack: Any, *arguments: str) -> subprocess.Popen[str]:
    command = [
        sys.executable,
        "-m",
        "lambda_esm",
        "--endpoint",
        ministack.endpoint,
        "--take-over",
        *arguments,
    ]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_the_command_line_drains_and_ends(
    ministack: Any, function: Function, stream: str, mapped: Any
) -> None:
    mapped(arn(ministack, stream))
    put(ministack, stream, "a")
    process = start_cli(ministack, "--function", function.name, "--until-drained", "--timeout", str(PATIENCE))
    _, output = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, output
    assert "1 record in" in output
    assert data_of(function.events()) == ["a"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_line_ends_cleanly_on_a_signal(
    ministack: Any, function: Function, stream: str, mapped: Any, number: int
) -> None:
    mapped(arn(ministack, stream))
    process = start_cli(ministack, "--function", function.name)
    assert process.stderr is not None
    assert "reading shardId-" in process.stderr.readline()

    process.send_signal(number)
    _, output = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, output
    assert "Traceback" not in output


def test_a_mapping_written_by_hand_is_run_without_the_lambda_api_knowing(
    ministack: Any, function: Function, stream: str
) -> None:
    function.log.unlink(missing_ok=True)
    put(ministack, stream, "a")
    mapping = {
        "EventSourceArn": arn(ministack, stream),
        "FunctionName": "ListenerFunction",
        "StartingPosition": "TRIM_HORIZON",
    }
    process = start_cli(
        ministack,
        *("--mapping", json.dumps(mapping), "--lambda-endpoint", ministack.endpoint),
        *("--invoke-as", f"ListenerFunction={function.name}", "--once", "--timeout", str(PATIENCE)),
    )
    _, output = process.communicate(timeout=PATIENCE)

    assert process.returncode == 0, output
    assert data_of(function.events()) == ["a"]
