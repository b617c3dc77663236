"""The poller at moto as a server: the stream of a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest

from lambda_esm import Clients, MemoryCheckpoints, StreamPoller
from lambda_esm.invoke import HandlerInvoker
from lambda_esm.metrics import Totals
from lambda_esm.pytest_plugin import RunningMapping, event_source_mapping
from tests.moto_server import moto_server

__all__ = ["event_source_mapping"]


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


@pytest.fixture
def event_source_mapping_clients(moto: str, monkeypatch: pytest.MonkeyPatch) -> Clients:
    for name, value in {
        "AWS_ENDPOINT_URL": moto,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    return Clients()


@pytest.fixture
def table(event_source_mapping_clients: Clients) -> Iterator[str]:
    """The ARN of a table's stream."""
    made = boto3.client("dynamodb").create_table(
        TableName="ledger",
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    )
    yield str(made["TableDescription"]["LatestStreamArn"])
    boto3.client("dynamodb").delete_table(TableName="ledger")


def write(*ids: str) -> None:
    for each in ids:
        boto3.client("dynamodb").put_item(TableName="ledger", Item={"id": {"S": each}})


def test_the_changes_of_a_table_are_delivered(
    event_source_mapping: Callable[..., RunningMapping], table: str
) -> None:
    seen: list[str] = []
    write("a", "b", "c")

    def handler(event: Any, context: Any) -> None:
        seen.extend(record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"])

    assert event_source_mapping(table, handler).drain() == Totals(delivered=3)
    assert seen == ["a", "b", "c"]


def test_latest_of_a_table_loses_nothing_across_a_restart(
    event_source_mapping_clients: Clients, table: str
) -> None:
    seen: list[str] = []

    def handler(event: Any, context: Any) -> None:
        seen.extend(record["dynamodb"]["Keys"]["id"]["S"] for record in event["Records"])

    mapping = {"EventSourceArn": table, "FunctionName": "f", "StartingPosition": "LATEST"}
    store = MemoryCheckpoints()

    def poll() -> None:
        quick: dict[str, Any] = {"poll_seconds": 0.01, "refresh_seconds": 0.05, "checkpoints": store}
        invoker = HandlerInvoker({"*": handler})
        with StreamPoller(
            event_source_mapping_clients, mappings=[mapping], invoker=invoker, **quick
        ) as poller:
            assert poller.wait_until_drained(30)

    poll()
    write("a", "b", "c", "d", "e")
    poll()

    assert seen == ["a", "b", "c", "d", "e"]
