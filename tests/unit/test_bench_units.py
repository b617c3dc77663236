"""What a DynamoDB request costs: the documented rules, and the counting of real requests."""

from __future__ import annotations

import json
from typing import Any

import botocore.session
import pytest
from botocore.awsrequest import AWSResponse

from bench.meter import Meter
from bench.units import Cost, cost

SMALL = {"id": {"S": "key"}, "expiration": {"N": "1700000000"}}
INSERT = {"Statement": "INSERT INTO \"t\" VALUE {'id': ?, 'text': ?}"}


@pytest.mark.parametrize(
    ("operation", "request_", "expected"),
    [
        ("PutItem", {"Item": SMALL}, Cost(write_units=1)),
        ("PutItem", {"Item": {"id": {"S": "x" * 1022}}}, Cost(write_units=1)),  # 2 bytes of name: 1 KB
        ("PutItem", {"Item": {"id": {"S": "x" * 1023}}}, Cost(write_units=2)),
        ("PutItem", {"Item": {"id": {"S": "é" * 512}}}, Cost(write_units=2)),  # counted in UTF-8
        ("UpdateItem", {"Key": SMALL}, Cost(write_units=1)),
        ("DeleteItem", {"Key": SMALL}, Cost(write_units=1)),
        ("GetItem", {"Key": SMALL, "ConsistentRead": True}, Cost(read_units=1)),
        ("GetItem", {"Key": SMALL}, Cost(read_units=0.5)),
        (
            "BatchGetItem",
            {"RequestItems": {"t": {"Keys": [SMALL] * 3, "ConsistentRead": True}, "u": {"Keys": [SMALL]}}},
            Cost(read_units=3.5),
        ),
        (
            "BatchWriteItem",
            {
                "RequestItems": {
                    "t": [{"PutRequest": {"Item": SMALL}}] * 2 + [{"DeleteRequest": {"Key": SMALL}}]
                }
            },
            Cost(write_units=3),
        ),
        (
            "BatchExecuteStatement",
            {
                "Statements": [
                    INSERT | {"Parameters": [{"S": "a"}, {"S": "small"}]},
                    INSERT | {"Parameters": [{"S": "b"}, {"S": "x" * 2000}]},
                    {"Statement": "DELETE FROM t WHERE id=?", "Parameters": [{"S": "a"}]},
                    {"Statement": "SELECT * FROM t WHERE id=?", "ConsistentRead": True},
                ]
            },
            Cost(write_units=4, read_units=1),
        ),
        ("TransactWriteItems", {"TransactItems": [{"Put": {"Item": SMALL}}] * 5}, Cost(write_units=10)),
        (
            "ExecuteTransaction",
            {"TransactStatements": [INSERT | {"Parameters": [{"S": "a"}, {"S": "b"}]}] * 3},
            Cost(write_units=6),
        ),
    ],
)
def test_cost_follows_the_documented_rules(operation: str, request_: dict[str, Any], expected: Cost) -> None:
    assert cost(operation, json.dumps(request_)) == expected


def test_an_unknown_operation_is_not_counted_as_free() -> None:
    with pytest.raises(KeyError, match="Query"):
        cost("Query", "{}")


def _client(meter: Meter) -> Any:
    session = botocore.session.Session()
    session.set_credentials("test", "test")
    session.register("before-send.dynamodb", meter._before_send)
    # Answers in place of the network, after the meter has seen the request.
    answer = AWSResponse("http://nowhere", 200, {}, None)
    answer._content = b"{}"
    session.get_component("event_emitter").register_last("before-send.dynamodb", lambda **_: answer)
    return session.create_client("dynamodb", region_name="us-east-1", endpoint_url="http://nowhere")


def test_meter_counts_requests() -> None:
    meter = Meter()
    client = _client(meter)

    client.put_item(TableName="t", Item=SMALL)
    client.batch_write_item(RequestItems={"t": [{"PutRequest": {"Item": SMALL}}] * 2})
    client.get_item(TableName="t", Key={"id": {"S": "key"}})

    assert meter.counts() == {
        "calls": 3,
        "write_units": 3.0,
        "read_units": 0.5,
        "operations": {"PutItem": 1, "BatchWriteItem": 1, "GetItem": 1},
    }


def test_meter_begins_anew_after_a_reset() -> None:
    meter = Meter()
    client = _client(meter)
    client.put_item(TableName="t", Item=SMALL)

    meter.reset()

    assert meter.counts()["calls"] == 0
