"""The pytest plugin, in moto's mock_aws: no server at all."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from lambda_esm import Answered, FunctionFailed
from lambda_esm.clients import Clients
from lambda_esm.metrics import Totals
from lambda_esm.pytest_plugin import RunningMapping, event_source_mapping

__all__ = ["event_source_mapping"]


@pytest.fixture
def event_source_mapping_clients(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clients]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    with mock_aws():
        boto3.client("kinesis").create_stream(StreamName="orders", ShardCount=2)
        yield Clients()


def put(*data: str) -> None:
    for each in data:
        boto3.client("kinesis").put_record(StreamName="orders", PartitionKey=each, Data=each)


def data(event: Any) -> list[str]:
    return [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]


def test_every_record_is_settled_when_it_is_drained(
    event_source_mapping: Callable[..., RunningMapping],
) -> None:
    seen: list[str] = []
    put(*map(str, range(50)))

    def handler(event: Any, context: Any) -> None:
        seen.extend(data(event))

    mapping = event_source_mapping("orders", handler, BatchSize=7)

    assert mapping.drain() == Totals(delivered=50)
    assert sorted(seen, key=int) == list(map(str, range(50)))
    put("late")
    mapping.drain()
    assert seen[-1] == "late"


def test_deliveries_and_discards_are_told(event_source_mapping: Callable[..., RunningMapping]) -> None:
    put("bad")

    def handler(event: Any, context: Any) -> None:
        raise ValueError("never")

    mapping = event_source_mapping("orders", handler, MaximumRetryAttempts=1)

    assert mapping.drain() == Totals(retried=1, discarded=1)
    assert [type(delivery.outcome) for delivery in mapping.deliveries] == [FunctionFailed] * 2
    assert [discard.condition for discard in mapping.discards] == ["RetryAttemptsExhausted"]


def test_what_is_not_drained_in_time_says_why(event_source_mapping: Callable[..., RunningMapping]) -> None:
    put("a")

    def handler(event: Any, context: Any) -> None:
        raise ValueError("the reason")

    mapping = event_source_mapping("orders", handler)
    with pytest.raises(
        AssertionError, match=r"not drained within 0.5 seconds; the last failure: .*the reason"
    ):
        mapping.drain(timeout=0.5)


def test_the_answer_of_a_handler_is_read(event_source_mapping: Callable[..., RunningMapping]) -> None:
    put("a")
    mapping = event_source_mapping("orders", lambda *_: {"batchItemFailures": []})

    mapping.drain()

    assert [
        delivery.outcome.response for delivery in mapping.deliveries if isinstance(delivery.outcome, Answered)
    ] == [{"batchItemFailures": []}]
