"""A table in memory, for unit tests of functions that use this library.

moto cannot stand there: it has no PartiQL INSERT with bound parameters. This one answers the requests that
:class:`oncestream.BulkIdempotency` and Powertools' own layer make, by the rules of DynamoDB. This library's own tests
run on it; what they say of both layers on one table is said on an emulator, too.

>>> table = InMemoryTable()
>>> store = BulkIdempotency("idempotency", config=config, key_prefix="orders", boto3_client=table.client())
>>> processor = BulkProcessor(EventType.SQS, store)
>>> process_partial_response(event, batch_handler, processor)
>>> assert table.statuses() == ["COMPLETED"]
"""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING, Any

import boto3
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

Item = dict[str, dict[str, Any]]
"""As DynamoDB writes it: ``{"id": {"S": "..."}}``."""

URL = "https://dynamodb.test/"


class AnswerError(Exception):
    """An error that DynamoDB answers with."""

    def __init__(self, code: str, message: str = "the table says so", status: int = 400, **more: Any) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **more}


class InMemoryTable:
    """One table of DynamoDB, in the place of the network: serialisation and errors are botocore's own.

    Parameters
    ----------
    table
        Its name. Requests for another table fail.
    key, sort_key
        Its key's attributes.
    """

    def __init__(self, table: str = "idempotency", key: str = "id", sort_key: str | None = None) -> None:
        self.table = table
        self.keys = [key, sort_key] if sort_key else [key]
        self.items: dict[tuple[str, ...], Item] = {}
        """By key."""
        self.requests: list[tuple[str, dict[str, Any]]] = []
        """Operation and body of each request."""
        self.returns_duplicates = True
        """Whether DuplicateItem comes with the item, as ALL_OLD asks for. MiniStack's does not."""
        self._lock = threading.Lock()

    def client(self) -> DynamoDBClient:
        """A boto3 client that talks to this table and needs no credentials."""
        client = boto3.client(
            "dynamodb",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - nobody's
            config=Config(retries={"total_max_attempts": 1}, max_pool_connections=1),
        )
        self.attach(client)
        return client

    def attach(self, client: DynamoDBClient) -> None:
        """Answer what ``client`` asks, from now on."""
        events = client.meta.events
        events.unregister("before-send.dynamodb", unique_id="oncestream-testing")
        answer: Any = self.answer
        events.register("before-send.dynamodb", answer, unique_id="oncestream-testing")

    def operations(self) -> list[str]:
        """The operations that were asked for, in order."""
        return [operation for operation, _ in self.requests]

    def statuses(self) -> list[str]:
        """The status of each item: ``INPROGRESS`` or ``COMPLETED``."""
        return [item["status"]["S"] for item in self.items.values()]

    def put(self, item: Item) -> None:
        """Put an item there, whatever it replaces."""
        self.items[self._key(item)] = item

    def answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        """Botocore asks for this in the place of sending a request (its event ``before-send``)."""
        with self._lock:
            operation = _text(request.headers["X-Amz-Target"]).removeprefix("DynamoDB_20120810.")
            content: Any = request.body
            body = json.loads(content)
            self.requests.append((operation, body))
            try:
                return self.response(200, self.carry_out(operation, body))
            except AnswerError as failure:
                return self.response(failure.status, failure.body)

    def carry_out(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        """Do what a request asks.

        Raises
        ------
        AnswerError
            What DynamoDB would answer.
        """
        answer: dict[str, Any] = getattr(self, f"_{_snake(operation)}")(body)
        return answer

    def left_out(self, position: int, statement: dict[str, Any] | None = None) -> str:
        """The code with which a position of a batch is not carried out; empty: it is. For tables with faults."""
        del position, statement
        return ""

    @staticmethod
    def response(status: int, body: Any) -> AWSResponse:
        """An answer of DynamoDB's; bytes are sent as they are."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        return AWSResponse(URL, status, {"x-amzn-requestid": "in-memory"}, _Raw(content))  # type: ignore[arg-type]

    # The operations

    def _batch_execute_statement(self, body: dict[str, Any]) -> Any:
        _check(set(body) == {"Statements"} and 1 <= len(body["Statements"]) <= 25, "1 to 25 statements")
        responses: list[Any] = []
        for position, statement in enumerate(body["Statements"]):
            if code := self.left_out(position, statement):
                responses.append({"Error": {"Code": code, "Message": "trouble"}})
            else:
                responses.append(self.execute(statement))
        return {"Responses": responses}

    def execute(self, request: dict[str, Any]) -> dict[str, Any]:
        """One statement: an INSERT of an item, or a DELETE under conditions of equality."""
        statement, parameters = request["Statement"], request["Parameters"]
        if insert := re.fullmatch(r'INSERT INTO "([^"]+)" VALUE \{(.*)\}', statement):
            self._check_table(insert[1])
            item = dict(zip(re.findall(r"'([^']+)': \?", insert[2]), parameters, strict=True))
            if old := self.items.get(self._key(item)):
                error: dict[str, Any] = {
                    "Code": "DuplicateItem",
                    "Message": "Duplicate primary key exists in table",
                }
                if self.returns_duplicates and "ReturnValuesOnConditionCheckFailure" in request:
                    error["Item"] = old
                return {"Error": error, "TableName": self.table}
            self.put(item)
            return {"TableName": self.table}
        delete = re.fullmatch(r'DELETE FROM "([^"]+)" WHERE (.*)', statement)
        if delete is None:
            raise AnswerError("ValidationException", f"this table does not know the statement {statement!r}")
        self._check_table(delete[1])
        wanted = dict(zip(re.findall(r'"([^"]+)" = \?', delete[2]), parameters, strict=True))
        if old := self.items.get(self._key(wanted)):
            if any(old.get(name) != value for name, value in wanted.items()):
                return {
                    "Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
                }
            del self.items[self._key(wanted)]
        return {"TableName": self.table}

    def _batch_get_item(self, body: dict[str, Any]) -> Any:
        ((table, request),) = body["RequestItems"].items()
        self._check_table(table)
        _check(1 <= len(request["Keys"]) <= 100, "1 to 100 keys")
        names = [
            request["ExpressionAttributeNames"][alias] for alias in request["ProjectionExpression"].split(",")
        ]
        found, unread = [], []
        for position, key in enumerate(request["Keys"]):
            if self.left_out(position):
                unread.append(key)
            elif item := self.items.get(self._key(key)):
                found.append({name: item[name] for name in names if name in item})
        return {
            "Responses": {table: found},
            "UnprocessedKeys": {table: request | {"Keys": unread}} if unread else {},
        }

    def _batch_write_item(self, body: dict[str, Any]) -> Any:
        ((table, writes),) = body["RequestItems"].items()
        self._check_table(table)
        _check(1 <= len(writes) <= 25, "1 to 25 writes")
        keys = [self._key(write["PutRequest"]["Item"]) for write in writes]
        _check(len(set(keys)) == len(keys), "Provided list of item keys contains duplicates")
        unprocessed = []
        for position, write in enumerate(writes):
            if self.left_out(position):
                unprocessed.append(write)
            else:
                self.put(write["PutRequest"]["Item"])
        return {"UnprocessedItems": {table: unprocessed} if unprocessed else {}}

    def _put_item(self, body: dict[str, Any]) -> Any:
        self._check_table(body["TableName"])
        old = self.items.get(self._key(body["Item"]), {})
        if not holds(body, old):
            wanted = body.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            more: dict[str, Any] = {"Item": old} if wanted else {}
            raise AnswerError("ConditionalCheckFailedException", **more)
        self.put(body["Item"])
        return {}

    def _get_item(self, body: dict[str, Any]) -> Any:
        item = self.items.get(self._key(body["Key"]))
        return {"Item": item} if item else {}

    def _update_item(self, body: dict[str, Any]) -> Any:
        item = dict(self.items.get(self._key(body["Key"]), body["Key"]))
        for name, value in re.findall(r"(#\w+) = (:\w+)", body["UpdateExpression"]):
            item[body["ExpressionAttributeNames"][name]] = body["ExpressionAttributeValues"][value]
        self.put(item)
        return {}

    def _delete_item(self, body: dict[str, Any]) -> Any:
        self.items.pop(self._key(body["Key"]), None)
        return {}

    def _key(self, item: Item) -> tuple[str, ...]:
        return tuple(item[name]["S"] for name in self.keys)

    def _check_table(self, name: str) -> None:
        if name != self.table:
            raise AnswerError("ResourceNotFoundException", f"this table is {self.table!r}, not {name!r}")


def holds(body: dict[str, Any], item: Item) -> bool:
    """Whether a request's condition holds for an item: functions and comparisons, ANDs joined by OR."""
    names, values = body["ExpressionAttributeNames"], body["ExpressionAttributeValues"]

    def term(text: str) -> bool:
        if function := re.fullmatch(r"attribute_(not_)?exists\((#\w+)\)", text):
            return (names[function[2]] in item) is not bool(function[1])
        comparison = re.fullmatch(r"(#\w+) (<|=) (:\w+)", text)
        if comparison is None:
            raise AnswerError("ValidationException", f"this table does not know the condition {text!r}")
        ((kind, right),) = values[comparison[3]].items()
        left = item.get(names[comparison[1]], {}).get(kind)
        if left is None:
            return False
        return float(left) < float(right) if comparison[2] == "<" else bool(left == right)

    alternatives = body["ConditionExpression"].split(" OR ")
    return any(
        all(term(each) for each in re.sub(r"^\((.* AND .*)\)$", r"\1", alternative).split(" AND "))
        for alternative in alternatives
    )


class _Raw:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self, *_: Any, **__: Any) -> list[bytes]:
        return [self._content]


def _check(condition: bool, rule: str) -> None:
    if not condition:
        raise AnswerError("ValidationException", rule)


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
