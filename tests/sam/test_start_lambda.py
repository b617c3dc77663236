"""``sam local start-lambda`` with the project's poller in front: the way to debug on real stream events."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lambda_esm import Clients, StreamPoller
from local.machine import LOOPBACK, free_port, require_tool, tail
from local.process import Child
from local.sam_local import environment_of_sam
from tests.recorded_events import World

if TYPE_CHECKING:
    from local.ministack import MiniStack

DRAIN_SECONDS = 180.0


@pytest.fixture
def start_lambda(sam_options: list[Any], ministack: MiniStack, tmp_path: Path) -> Iterator[str]:
    """The URL of ``sam local start-lambda``."""
    port, log = free_port(), tmp_path / "start-lambda.log"
    server = Child(
        [
            *(require_tool("sam", "sam"), "local", "start-lambda", "--port", str(port)),
            *("--warm-containers", "LAZY", *map(str, sam_options)),
        ],
        log=log,
        environment=environment_of_sam(ministack.endpoint),
        directory=tmp_path,
        stop_signal="SIGINT",  # which it answers by removing its containers
        grace=30.0,
    )
    assert server.gets_ready(lambda: _answers(port)), f"start-lambda does not get ready:\n{tail(log)}"
    yield f"http://{LOOPBACK}:{port}"
    server.stop()


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=5)
    try:
        connection.request("GET", "/")
        connection.getresponse()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def test_records_on_the_stream_reach_the_function_in_its_container(
    world: World, ministack: MiniStack, start_lambda: str
) -> None:
    ids = [f"id-{number}" for number in range(20)]
    records = [json.dumps({"id": each, "partition_key": "p", "payload": {}}).encode() for each in ids]
    kinesis = ministack.client("kinesis")
    kinesis.put_records(
        StreamName=world.name,
        Records=[{"Data": data, "PartitionKey": "p"} for data in [*records, b"not JSON", *records[:5]]],
    )
    mapping = {
        "EventSourceArn": kinesis.describe_stream_summary(StreamName=world.name)["StreamDescriptionSummary"][
            "StreamARN"
        ],
        "FunctionName": "ConsumerFunction",
        "StartingPosition": "TRIM_HORIZON",
        "BatchSize": 10,
        "FunctionResponseTypes": ["ReportBatchItemFailures"],
    }
    clients = Clients(ministack.endpoint, lambda_endpoint_url=start_lambda)
    with StreamPoller(clients, mappings=[mapping]) as poller:
        assert poller.wait_until_drained(DRAIN_SECONDS)
    assert sorted(world.query("SELECT id FROM records")) == sorted(ids)
    assert world.query("SELECT reason FROM rejected_records") == [
        "not JSON: invalid character at line 1 column 2"
    ]
