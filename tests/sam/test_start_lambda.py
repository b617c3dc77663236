"""``sam local start-lambda`` with the project's poller in front: the way to debug on real stream events."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.event_source_mapping import Clients, StreamPoller
from local.machine import LOOPBACK, free_port, require_tool, tail
from local.process import Child
from local.sam_local import environment_of_sam
from tests.recorded_events import World

if TYPE_CHECKING:
    from local.ministack import MiniStack

START_SECONDS = 60.0
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
    give_up = time.monotonic() + START_SECONDS
    while not _answers(port):
        assert server.is_running, f"start-lambda has ended:\n{tail(log)}"
        assert time.monotonic() < give_up, f"start-lambda does not answer:\n{tail(log)}"
        time.sleep(0.2)
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
        "not JSON: expected ident at line 1 column 2"
    ]
