"""A DynamoDB in memory, as far as the idempotency table needs one, with faults at will.

It stands where the network begins, in the place of a boto3 client's HTTP session, so that serialisation and
errors are tested too. moto cannot stand there: it has no PartiQL INSERT with bound parameters.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

type Item = dict[str, dict[str, Any]]

URL = "https://dynamodb.test/"


@dataclass
class Clock:
    """Time that passes only when somebody sleeps."""

    now: float = 1_800_000_000.25
    sleeps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@dataclass(frozen=True)
class Trouble:
    """What goes wrong with one request."""

    kind: str
    """refused, lost, error, error after (the effect), garbage; items (not all are carried out), items after;
    body (carried out, and answered with other bytes)"""
    code: str = "ThrottlingError"
    status: int = 400
    spare: Callable[[int], bool] = lambda position: False
    """items: which positions are carried out all the same"""
    body: bytes = b""


class AnswerError(Exception):
    """An error that DynamoDB answers with."""

    def __init__(self, code: str, message: str = "the fake says so", status: int = 400, **more: Any) -> None:
        super().__init__(code)
        self.status = status
        self.body = {"__type": f"com.amazonaws.dynamodb.v20120810#{code}", "message": message, **more}


class FakeDynamoDB:
    """One table. ``attach`` it to a client."""

    def __init__(self, table: str = "claims", key: str = "id", sort_key: str | None = None) -> None:
        self.table = table
        self.keys = [key, sort_key] if sort_key else [key]
        self.items: dict[tuple[str, ...], Item] = {}
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.trouble: Callable[[int, str, dict[str, Any]], Trouble | None] = lambda number, operation, body: (
            None
        )
        self.before: Callable[[], None] = lambda: None
        """Called when a request arrives."""
        self.returns_duplicates = True
        """Whether DuplicateItem comes with the item, as ALL_OLD asks for. MiniStack's does not."""
        self._carry_out_all_the_same = False
        self._lock = threading.Lock()

    def attach(self, client: Any) -> None:
        client._endpoint.http_session = self

    def operations(self) -> list[str]:
        return [operation for operation, _ in self.requests]

    def put(self, item: Item) -> None:
        self.items[self._key(item)] = item

    # What botocore calls

    def close(self) -> None:
        """Nothing is open."""

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        self.before()
        with self._lock:
            operation = _text(request.headers["X-Amz-Target"]).removeprefix("DynamoDB_20120810.")
            body = json.loads(request.body)
            self.requests.append((operation, body))
            trouble = self.trouble(len(self.requests), operation, body)
            kind = trouble.kind if trouble else ""
            if kind == "refused":
                raise EndpointConnectionError(endpoint_url=URL)
            if trouble and kind == "error":
                return _response(trouble.status, {"__type": trouble.code, "message": "trouble"})
            spared = trouble.spare if trouble and kind in {"items", "items after"} else lambda position: True
            self._carry_out_all_the_same = kind == "items after"
            code = trouble.code if trouble else ""
            try:
                answer = getattr(self, f"_{_snake(operation)}")(body, spared, code)
            except AnswerError as failure:
                return _response(failure.status, failure.body)
            if kind == "lost":
                raise ReadTimeoutError(endpoint_url=URL)
            if trouble and kind == "error after":
                return _response(500, {"__type": "InternalServerError", "message": "trouble"})
            if trouble and kind == "body":
                return AWSResponse(URL, trouble.status, {"x-amzn-requestid": "fake"}, _Raw(trouble.body))
            if kind == "garbage":
                return AWSResponse(URL, 200, {}, _Raw(json.dumps(answer).encode()[:-9]))
            return _response(200, answer)

    # The operations

    def _batch_execute_statement(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        assert set(body) == {"Statements"}
        assert 1 <= len(body["Statements"]) <= 25
        responses = []
        for position, statement in enumerate(body["Statements"]):
            if spared(position):
                responses.append(self._statement(statement))
            else:
                if self._carry_out_all_the_same:
                    self._statement(statement)
                responses.append({"Error": {"Code": code, "Message": "trouble"}})
        return {"Responses": responses}

    def _statement(self, request: dict[str, Any]) -> dict[str, Any]:
        statement, parameters = request["Statement"], request["Parameters"]
        returns_old = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        if insert := re.fullmatch(r'INSERT INTO "([^"]+)" VALUE \{(.*)\}', statement):
            names = re.findall(r"'([^']+)': \?", insert[2])
            assert insert[1] == self.table
            item = dict(zip(names, parameters, strict=True))
            if old := self.items.get(self._key(item)):
                error: dict[str, Any] = {
                    "Code": "DuplicateItem",
                    "Message": "Duplicate primary key exists in table",
                }
                if self.returns_duplicates and returns_old:
                    error["Item"] = old
                return {"Error": error, "TableName": self.table}
            self.put(item)
            return {"TableName": self.table}
        delete = re.fullmatch(r'DELETE FROM "([^"]+)" WHERE (.*)', statement)
        assert delete
        assert delete[1] == self.table
        wanted = dict(zip(re.findall(r'"([^"]+)" = \?', delete[2]), parameters, strict=True))
        if old := self.items.get(self._key(wanted)):
            if any(old.get(name) != value for name, value in wanted.items()):
                return {
                    "Error": {"Code": "ConditionalCheckFailed", "Message": "The conditional request failed"}
                }
            del self.items[self._key(wanted)]
        return {"TableName": self.table}

    def _batch_get_item(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        ((table, request),) = body["RequestItems"].items()
        assert table == self.table
        assert request["ConsistentRead"] is True
        assert 1 <= len(request["Keys"]) <= 100
        names = [
            request["ExpressionAttributeNames"][alias] for alias in request["ProjectionExpression"].split(",")
        ]
        found, unread = [], []
        for position, key in enumerate(request["Keys"]):
            if not spared(position):
                unread.append(key)
            elif item := self.items.get(self._key(key)):
                found.append({name: item[name] for name in names if name in item})
        return {
            "Responses": {table: found},
            "UnprocessedKeys": {table: request | {"Keys": unread}} if unread else {},
        }

    def _batch_write_item(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        ((table, writes),) = body["RequestItems"].items()
        assert table == self.table
        assert 1 <= len(writes) <= 25
        keys = [self._key(write["PutRequest"]["Item"]) for write in writes]
        if len(set(keys)) < len(keys):
            raise AnswerError("ValidationException", "Provided list of item keys contains duplicates")
        unprocessed = []
        for position, write in enumerate(writes):
            if spared(position):
                self.put(write["PutRequest"]["Item"])
            else:
                unprocessed.append(write)
        return {"UnprocessedItems": {table: unprocessed} if unprocessed else {}}

    def _put_item(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        assert body["TableName"] == self.table
        old = self.items.get(self._key(body["Item"]), {})
        if not _holds(body, old):
            wanted = body.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
            raise AnswerError("ConditionalCheckFailedException", **({"Item": old} if wanted else {}))
        self.put(body["Item"])
        return {}

    def _get_item(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        item = self.items.get(self._key(body["Key"]))
        return {"Item": item} if item else {}

    def _update_item(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        item = dict(self.items.get(self._key(body["Key"]), body["Key"]))
        for name, value in re.findall(r"(#\w+) = (:\w+)", body["UpdateExpression"]):
            item[body["ExpressionAttributeNames"][name]] = body["ExpressionAttributeValues"][value]
        self.put(item)
        return {}

    def _delete_item(self, body: dict[str, Any], spared: Callable[[int], bool], code: str) -> Any:
        self.items.pop(self._key(body["Key"]), None)
        return {}

    def _key(self, item: Item) -> tuple[str, ...]:
        return tuple(item[name]["S"] for name in self.keys)


def _holds(body: dict[str, Any], item: Item) -> bool:
    """Evaluate a condition of functions and comparisons, joined by AND and OR."""
    names, values = body["ExpressionAttributeNames"], body["ExpressionAttributeValues"]

    def compare(name: str, operator: str, value: str) -> bool:
        ((kind, right),) = values[value].items()
        left = item.get(names[name], {}).get(kind)
        if left is None:
            return False
        return float(left) < float(right) if operator == "<" else bool(left == right)

    def exists(name: str) -> bool:
        return names[name] in item

    text = body["ConditionExpression"]
    text = re.sub(r"attribute_not_exists\((#\w+)\)", r"not exists('\1')", text)
    text = re.sub(r"attribute_exists\((#\w+)\)", r"exists('\1')", text)
    text = re.sub(r"(#\w+) (<|=) (:\w+)", r"compare('\1', '\2', '\3')", text)
    text = text.replace(" AND ", " and ").replace(" OR ", " or ")
    return bool(eval(text, {"__builtins__": {}, "exists": exists, "compare": compare}))


def interleave(fake: FakeDynamoDB, actions: list[Callable[[], None]], order: Iterable[int]) -> None:
    """Run ``actions`` in threads of which one goes at a time, from one request to the next.

    ``order`` says who goes next (modulo those that are left). The same order is the same history.
    """
    go = [threading.Semaphore(0) for _ in actions]
    stopped = threading.Semaphore(0)
    mine = threading.local()
    done: set[int] = set()

    def pause() -> None:
        stopped.release()
        go[mine.number].acquire()

    def run(number: int) -> None:
        mine.number = number
        go[number].acquire()
        try:
            actions[number]()
        finally:
            done.add(number)
            stopped.release()

    fake.before = pause
    turns = iter(order)
    with ThreadPoolExecutor(len(actions)) as pool:
        runs = [pool.submit(run, number) for number in range(len(actions))]
        while len(done) < len(actions):
            waiting = [number for number in range(len(actions)) if number not in done]
            go[waiting[next(turns, 0) % len(waiting)]].release()
            stopped.acquire()
    fake.before = lambda: None
    for finished in runs:
        finished.result()


class _Raw:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def stream(self) -> list[bytes]:
        return [self._content]


def _response(status: int, body: Any) -> AWSResponse:
    return AWSResponse(URL, status, {"x-amzn-requestid": "fake"}, _Raw(json.dumps(body).encode()))


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])([A-Z])", r"_\1", name).lower()
