"""The stand-in answers as DynamoDB does, as far as the benchmark's contestants ask.

moto answers the same requests, where it can: it models conditions and updates, but no PartiQL with parameters.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from moto import mock_aws

from bench.servers import StandIn, create_idempotency_table
from bench.standin import Connection, RefusedError, Site, Tables
from local.ministack import client

TABLE = {"TableName": "table"}
IN_PROGRESS = {
    "id": {"S": "a"},
    "status": {"S": "INPROGRESS"},
    "expiration": {"N": "200"},
    "ipe": {"N": "1500"},
}
POWERTOOLS = (
    "attribute_not_exists(#id) OR #expiry < :now OR"
    " (#status = :inprogress AND attribute_exists(#ipe) AND #ipe < :ms)"
)
INSERT = "INSERT INTO \"table\" VALUE {'id': ?, 'status': ?}"
# moto adds figures without being asked for them.
NOT_ASKED = {"ResponseMetadata", "ConsumedCapacity", "ItemCollectionMetrics"}
DELETE = 'DELETE FROM "table" WHERE "id" = ? AND "status" = ?'


def _take_over(now: int, milliseconds: int) -> dict[str, Any]:
    return TABLE | {
        "Item": IN_PROGRESS | {"expiration": {"N": "9000"}},
        "ConditionExpression": POWERTOOLS,
        "ExpressionAttributeNames": {
            "#id": "id",
            "#expiry": "expiration",
            "#status": "status",
            "#ipe": "ipe",
        },
        "ExpressionAttributeValues": {
            ":now": {"N": str(now)},
            ":inprogress": {"S": "INPROGRESS"},
            ":ms": {"N": str(milliseconds)},
        },
        "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
    }


CALLS: list[list[tuple[str, dict[str, Any]]]] = [
    [("put_item", TABLE | {"Item": IN_PROGRESS}), ("get_item", TABLE | {"Key": {"id": {"S": "a"}}})],
    [("get_item", TABLE | {"Key": {"id": {"S": "missing"}}})],
    [("put_item", _take_over(100, 1000))],  # nothing there: taken
    [("put_item", TABLE | {"Item": IN_PROGRESS}), ("put_item", _take_over(100, 1000))],  # held by another
    [("put_item", TABLE | {"Item": IN_PROGRESS}), ("put_item", _take_over(100, 2000))],  # its time is over
    [("put_item", TABLE | {"Item": IN_PROGRESS}), ("put_item", _take_over(300, 1000))],  # expired
    [
        ("put_item", TABLE | {"Item": IN_PROGRESS, "ConditionExpression": "attribute_not_exists(id)"}),
        ("put_item", TABLE | {"Item": IN_PROGRESS, "ConditionExpression": "attribute_not_exists(id)"}),
    ],
    [
        (
            "update_item",
            TABLE
            | {
                "Key": {"id": {"S": "a"}},
                "UpdateExpression": "SET #data = :data, #status = :status",
                "ExpressionAttributeNames": {"#data": "data", "#status": "status"},
                "ExpressionAttributeValues": {":data": {"S": "null"}, ":status": {"S": "COMPLETED"}},
            },
        ),
        ("get_item", TABLE | {"Key": {"id": {"S": "a"}}}),
    ],
    [
        ("put_item", TABLE | {"Item": IN_PROGRESS}),
        (
            "delete_item",
            TABLE | {"Key": {"id": {"S": "a"}}, "ConditionExpression": "NOT attribute_exists(ipe)"},
        ),
        ("delete_item", TABLE | {"Key": {"id": {"S": "a"}}}),
        ("delete_item", TABLE | {"Key": {"id": {"S": "a"}}}),
        ("get_item", TABLE | {"Key": {"id": {"S": "a"}}}),
    ],
    [
        (
            "batch_write_item",
            {"RequestItems": {"table": [{"PutRequest": {"Item": {"id": {"S": str(n)}}}} for n in range(3)]}},
        ),
        ("batch_write_item", {"RequestItems": {"table": [{"DeleteRequest": {"Key": {"id": {"S": "1"}}}}]}}),
        (
            "batch_get_item",
            {
                "RequestItems": {
                    "table": {"Keys": [{"id": {"S": str(n)}} for n in range(4)], "ConsistentRead": True}
                }
            },
        ),
    ],
    [("put_item", {"TableName": "missing", "Item": IN_PROGRESS})],
]


def _of_moto(calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    with mock_aws():
        client: Any = boto3.client("dynamodb", region_name="us-east-1")
        client.create_table(
            **TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        answers = []
        for operation, request in calls:
            try:
                answer = getattr(client, operation)(**request)
                answers.append({key: value for key, value in answer.items() if key not in NOT_ASKED})
            except ClientError as error:
                answers.append((error.response["Error"]["Code"], error.response.get("Item")))
        return answers


def _of_standin(calls: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    tables = Tables()
    tables.answer("CreateTable", TABLE)
    answers: list[Any] = []
    for operation, request in calls:
        try:
            answers.append(tables.answer(operation.title().replace("_", ""), request))
        except RefusedError as refused:
            answers.append((refused.code, refused.item))
    return answers


@pytest.mark.parametrize("calls", CALLS)
def test_answers_are_those_of_moto(calls: list[tuple[str, dict[str, Any]]]) -> None:
    assert _of_standin(calls) == _of_moto(calls)


def _tables() -> Tables:
    tables = Tables()
    tables.answer("CreateTable", TABLE)
    return tables


def _execute(tables: Tables, *statements: tuple[str, list[str]]) -> list[Any]:
    request = {
        "Statements": [
            {"Statement": text, "Parameters": [{"S": parameter} for parameter in parameters]}
            for text, parameters in statements
        ]
    }
    answers = tables.answer("BatchExecuteStatement", request)["Responses"]
    return [answer.get("Error", {}).get("Code") for answer in answers]


def test_an_insert_of_an_existing_key_fails_alone() -> None:
    tables = _tables()

    assert _execute(tables, (INSERT, ["a", "x"]), (INSERT, ["a", "y"]), (INSERT, ["b", "x"])) == [
        None,
        "DuplicateItem",
        None,
    ]
    assert tables.tables["table"]["a"] == {"id": {"S": "a"}, "status": {"S": "x"}}


def test_a_delete_takes_only_what_fits_its_conditions() -> None:
    # docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.delete.html: no item is no failure.
    tables = _tables()
    _execute(tables, (INSERT, ["a", "x"]), (INSERT, ["b", "x"]))

    assert _execute(tables, (DELETE, ["a", "x"]), (DELETE, ["b", "y"]), (DELETE, ["c", "x"])) == [
        None,
        "ConditionalCheckFailed",
        None,
    ]
    assert set(tables.tables["table"]) == {"b"}


@pytest.mark.parametrize(
    ("operation", "request_"),
    [
        ("BatchExecuteStatement", {"Statements": [{"Statement": INSERT}] * 26}),
        ("BatchWriteItem", {"RequestItems": {"table": [{}] * 26}}),
        ("BatchGetItem", {"RequestItems": {"table": {"Keys": [{}] * 101}}}),
        ("BatchExecuteStatement", {"Statements": [{"Statement": "SELECT * FROM table"}]}),
        ("PutItem", TABLE | {"Item": IN_PROGRESS, "ConditionExpression": "size(id) > 3"}),
    ],
)
def test_what_it_does_not_take_is_refused_and_not_guessed(operation: str, request_: dict[str, Any]) -> None:
    with pytest.raises(RefusedError) as raised:
        _tables().answer(operation, request_)

    assert raised.value.code == "ValidationException"


def test_the_stand_in_tells_what_it_was_asked_alone_and_in_front_of_another(tmp_path: Path) -> None:
    alone = StandIn(tmp_path)
    front = StandIn(tmp_path, behind=alone.port)
    try:
        create_idempotency_table(front.endpoint, "table")
        through = client(front.endpoint, "dynamodb")
        through.put_item(TableName="table", Item=IN_PROGRESS)
        assert client(alone.endpoint, "dynamodb").get_item(TableName="table", Key={"id": {"S": "a"}})["Item"]
        put = ("PutItem", json.dumps({"TableName": "table", "Item": IN_PROGRESS}))
        assert front.requests(0.0) == [put]
        assert [operation for operation, _ in alone.requests(0.0)] == ["PutItem", "GetItem"]
        assert front.requests(0.0) == alone.requests(0.0) == []
    finally:
        front.stop()
        alone.stop()


def test_an_answer_is_as_late_as_the_latency_says() -> None:
    loop = Loop()
    site = Site(Tables())
    site.control("/?latency=0.005")
    connection, transport = Connection(site, loop.call_later), Transport()
    connection.connection_made(transport)
    connection.data_received(b"POST / HTTP/1.1\r\nX-Amz-Target: D.Nothing\r\nContent-Length: 2\r\n\r\n{}")
    assert transport.written == b""
    ((seconds, do, data),) = loop.later
    assert seconds == 0.005
    do(data)
    assert transport.written.startswith(b"HTTP/1.1 400")


class Loop:
    def __init__(self) -> None:
        self.later: list[Any] = []

    def call_later(self, *call: Any) -> None:
        self.later.append(call)


class Transport(asyncio.Transport):
    written = b""

    def write(self, data: Any) -> None:
        self.written += data
