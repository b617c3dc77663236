"""What a DynamoDB request costs: the documented rules, and the counting of real requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bench.meter import counts
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


def test_requests_are_counted_and_priced() -> None:
    requests = [
        ("PutItem", {"TableName": "t", "Item": SMALL}),
        ("BatchWriteItem", {"RequestItems": {"t": [{"PutRequest": {"Item": SMALL}}] * 2}}),
        ("GetItem", {"TableName": "t", "Key": {"id": {"S": "key"}}}),
    ]
    assert counts((operation, json.dumps(body)) for operation, body in requests) == {
        "calls": 3,
        "write_units": 3.0,
        "read_units": 0.5,
        "operations": {"PutItem": 1, "BatchWriteItem": 1, "GetItem": 1},
    }
