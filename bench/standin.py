"""A lean stand-in for DynamoDB, for timing: ``python bench/standin.py PORT [PORT]``. One process, its table in
memory. With a second port it answers nothing itself: it stands in front of the endpoint there.

Why there is one: an emulator answers a request of 25 statements with 3 ms of its own processor time, one
request after the other, where DynamoDB answers many at once. The 80 requests of a bulk claim would be timed
as a queue in front of the emulator (docs/performance.md has the figures of both). This answers the same
requests in a tenth of the time, by doing no more than the contestants ask for: the operations below, their
conditions and update expressions, the errors that they rely on. All contestants use it, and
``tests/unit/test_bench_standin.py`` holds it against the documented behaviour.

Each answer is late by the latency that ``GET /?latency=0.005`` has set (seconds), as if the server were distant:
requests that are under way at once are late at the same time. It answers with the requests since it was last asked so:
what a contestant sends is counted and priced where it arrives, however it is sent.

Only the standard library: it may not import what it is measured with.
"""

from __future__ import annotations

import asyncio
import json
import re
import selectors
import sys
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

type Value = dict[str, Any]
type Item = dict[str, Value]
type Names = dict[str, str]

KEY = "id"
"""The key attribute of every table here, as of an idempotency table."""


class RefusedError(Exception):
    """An error answer of DynamoDB: its code, its message, and the item of a failed condition when it was asked for."""

    def __init__(self, code: str, message: str, item: Item | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.item = item


class Tables:
    """The tables, and the operations on them. Every operation is atomic: one thread runs them."""

    def __init__(self) -> None:
        self.tables: dict[str, dict[str, Item]] = {}

    def answer(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Do one operation.

        Raises
        ------
        RefusedError
            DynamoDB would answer with an error.
        """
        handle = _OPERATIONS.get(operation)
        if handle is None:
            raise RefusedError("UnknownOperationException", f"the stand-in has no {operation}")
        return handle(self, request)

    def create_table(self, request: dict[str, Any]) -> dict[str, Any]:
        self.tables[request["TableName"]] = {}
        return {"TableDescription": {"TableName": request["TableName"], "TableStatus": "ACTIVE"}}

    def put_item(self, request: dict[str, Any]) -> dict[str, Any]:
        table, item = self._table(request), request["Item"]
        key = item[KEY]["S"]
        _check(request, table.get(key))
        table[key] = item
        return {}

    def get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        item = self._table(request).get(request["Key"][KEY]["S"])
        return {} if item is None else {"Item": item}

    def delete_item(self, request: dict[str, Any]) -> dict[str, Any]:
        table, key = self._table(request), request["Key"][KEY]["S"]
        _check(request, table.get(key))
        table.pop(key, None)
        return {}

    def update_item(self, request: dict[str, Any]) -> dict[str, Any]:
        table, key = self._table(request), request["Key"][KEY]["S"]
        _check(request, table.get(key))
        item = dict(table.get(key, request["Key"]))
        names, values = request.get("ExpressionAttributeNames", {}), request["ExpressionAttributeValues"]
        verb, _, assignments = request["UpdateExpression"].strip().partition(" ")
        if verb != "SET":
            raise RefusedError("ValidationException", f"the stand-in has no {verb} in an update")
        for assignment in assignments.split(","):
            name, _, value = assignment.partition("=")
            item[names.get(name.strip(), name.strip())] = values[value.strip()]
        table[key] = item
        return {}

    def batch_get_item(self, request: dict[str, Any]) -> dict[str, Any]:
        found = {}
        for name, wanted in request["RequestItems"].items():
            _limit(wanted["Keys"], 100)
            table = self._table({"TableName": name})
            found[name] = [table[key[KEY]["S"]] for key in wanted["Keys"] if key[KEY]["S"] in table]
        return {"Responses": found, "UnprocessedKeys": {}}

    def batch_write_item(self, request: dict[str, Any]) -> dict[str, Any]:
        for name, writes in request["RequestItems"].items():
            _limit(writes, 25)
            table = self._table({"TableName": name})
            for write in writes:
                if "PutRequest" in write:
                    item = write["PutRequest"]["Item"]
                    table[item[KEY]["S"]] = item
                else:
                    table.pop(write["DeleteRequest"]["Key"][KEY]["S"], None)
        return {"UnprocessedItems": {}}

    def batch_execute_statement(self, request: dict[str, Any]) -> dict[str, Any]:
        _limit(request["Statements"], 25)
        return {"Responses": [self._member(statement) for statement in request["Statements"]]}

    def _member(self, statement: dict[str, Any]) -> dict[str, Any]:
        table, run = _partiql(statement["Statement"])
        try:
            run(self._table({"TableName": table}), statement.get("Parameters", []))
        except RefusedError as refused:
            return {"TableName": table, "Error": {"Code": refused.code, "Message": str(refused)}}
        return {"TableName": table}

    def _table(self, request: dict[str, Any]) -> dict[str, Item]:
        try:
            return self.tables[request["TableName"]]
        except KeyError:
            raise RefusedError("ResourceNotFoundException", "Requested resource not found") from None


_OPERATIONS: dict[str, Callable[[Tables, dict[str, Any]], dict[str, Any]]] = {
    "CreateTable": Tables.create_table,
    "PutItem": Tables.put_item,
    "GetItem": Tables.get_item,
    "UpdateItem": Tables.update_item,
    "DeleteItem": Tables.delete_item,
    "BatchGetItem": Tables.batch_get_item,
    "BatchWriteItem": Tables.batch_write_item,
    "BatchExecuteStatement": Tables.batch_execute_statement,
}


def _limit(members: list[Any], most: int) -> None:
    if len(members) > most:
        raise RefusedError("ValidationException", f"more than {most} members in one request")


def _check(request: dict[str, Any], item: Item | None) -> None:
    expression = request.get("ConditionExpression")
    if expression is None:
        return
    holds = condition(expression)
    names, values = request.get("ExpressionAttributeNames", {}), request.get("ExpressionAttributeValues", {})
    if not holds(item or {}, names, values):
        wanted = request.get("ReturnValuesOnConditionCheckFailure") == "ALL_OLD"
        raise RefusedError(
            "ConditionalCheckFailedException", "The conditional request failed", item if wanted else None
        )


# Conditions: comparisons and attribute_[not_]exists, joined by AND, OR, NOT and parentheses.

type Condition = Callable[[Item, Names, Item], bool]

_TOKEN = re.compile(r"\s*(<=|>=|<>|[=<>(),]|[#:]?[A-Za-z_][A-Za-z0-9_]*)")
_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "=": lambda left, right: bool(left == right),
    "<>": lambda left, right: bool(left != right),
    "<": lambda left, right: bool(left < right),
    "<=": lambda left, right: bool(left <= right),
    ">": lambda left, right: bool(left > right),
    ">=": lambda left, right: bool(left >= right),
}


@cache
def condition(expression: str) -> Condition:
    """Compile a condition expression."""
    tokens = [*_TOKEN.findall(expression), ""]
    position = 0

    def take(expected: str | None = None) -> str:
        nonlocal position
        token = str(tokens[position])
        if expected is not None and token.upper() != expected:
            raise RefusedError("ValidationException", f"expected {expected} at {token!r} in {expression!r}")
        position += 1
        return token

    def peek() -> str:
        return str(tokens[position]).upper()

    def either() -> Condition:
        left = both()
        while peek() == "OR":
            take()
            left = _either(left, both())
        return left

    def both() -> Condition:
        left = term()
        while peek() == "AND":
            take()
            left = _both(left, term())
        return left

    def term() -> Condition:
        if peek() == "NOT":
            take()
            return _negated(term())
        if peek() == "(":
            take()
            inner = either()
            take(")")
            return inner
        word = take()
        if word.lower() in ("attribute_exists", "attribute_not_exists"):
            take("(")
            name = take()
            take(")")
            return _exists(name, wanted=word.lower() == "attribute_exists")
        comparison = take()
        return _compared(word, comparison, take())

    compiled = either()
    take("")
    return compiled


def _either(left: Condition, right: Condition) -> Condition:
    return lambda item, names, values: left(item, names, values) or right(item, names, values)


def _both(left: Condition, right: Condition) -> Condition:
    return lambda item, names, values: left(item, names, values) and right(item, names, values)


def _negated(inner: Condition) -> Condition:
    return lambda item, names, values: not inner(item, names, values)


def _exists(name: str, *, wanted: bool) -> Condition:
    return lambda item, names, values: (names.get(name, name) in item) is wanted


def _compared(name: str, comparison: str, value: str) -> Condition:
    compare = _COMPARISONS.get(comparison)
    if compare is None:
        raise RefusedError("ValidationException", f"the stand-in has no comparison {comparison!r}")

    def holds(item: Item, names: Names, values: Item) -> bool:
        stored, wanted = item.get(names.get(name, name)), values[value]
        # An attribute that is missing, or of another type, compares as false.
        return (
            stored is not None and stored.keys() == wanted.keys() and compare(_plain(stored), _plain(wanted))
        )

    return holds


def _plain(value: Value) -> Any:
    ((kind, content),) = value.items()
    return float(content) if kind == "N" else content


# PartiQL: INSERT of an item of parameters, DELETE and UPDATE with conditions on equality.

type Statement = Callable[[dict[str, Item], list[Value]], None]


@cache
def _partiql(text: str) -> tuple[str, Statement]:
    if found := re.fullmatch(r"INSERT INTO \"?([\w.-]+)\"? VALUE \{(.*)\}\s*", text.strip(), re.I | re.S):
        table, fields = found.groups()
        return table, _insert(re.findall(r"'([^']+)'\s*:\s*\?", fields))
    if found := re.fullmatch(r"DELETE FROM \"?([\w.-]+)\"? WHERE (.*)", text.strip(), re.I | re.S):
        table, where = found.groups()
        return table, _delete(re.findall(r"\"?(\w+)\"?\s*=\s*\?", where))
    raise RefusedError("ValidationException", f"the stand-in does not understand {text!r}")


def _insert(names: list[str]) -> Statement:
    def run(table: dict[str, Item], parameters: list[Value]) -> None:
        item = dict(zip(names, parameters, strict=True))
        key = item[KEY]["S"]
        if key in table:
            raise RefusedError("DuplicateItem", "Duplicate primary key exists in table")
        table[key] = item

    return run


def _delete(names: list[str]) -> Statement:
    def run(table: dict[str, Item], parameters: list[Value]) -> None:
        wanted = dict(zip(names, parameters, strict=True))
        item = table.get(wanted[KEY]["S"])
        if item is None:  # nothing to delete is no failure (ql-reference.delete.html)
            return
        if any(item.get(name) != value for name, value in wanted.items()):
            raise RefusedError("ConditionalCheckFailed", "The conditional request failed")
        del table[wanted[KEY]["S"]]

    return run


class Site:
    """What the connections have in common."""

    def __init__(self, tables: Tables, behind: int | None = None) -> None:
        self.tables = tables
        self.behind = behind
        """The port of the endpoint that answers, if it is another one."""
        self.latency = 0.0
        """Seconds."""
        self._requests: list[tuple[str, str]] = []

    def note(self, operation: str, body: bytes) -> None:
        """Keep a request. That the table is made is the benchmark's own doing."""
        if operation != "CreateTable":
            self._requests.append((operation, body.decode()))

    def control(self, target: str) -> dict[str, Any]:
        """What the benchmark itself asks for: ``GET /?latency=0.005``."""
        self.latency = float(target.partition("?latency=")[2])
        taken, self._requests = self._requests, []
        return {"requests": taken}


class Connection(asyncio.Protocol):
    """Just enough of HTTP/1.1: requests with a Content-Length, one after the other on a connection kept open."""

    def __init__(self, site: Site, later: Callable[..., object]) -> None:
        self._site = site
        self._call_later = later
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None
        self._behind: asyncio.Task[asyncio.Transport] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        if self._site.behind is not None:
            self._behind = asyncio.ensure_future(_connect(self._site.behind, transport))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._behind is not None:
            self._behind.add_done_callback(lambda task: task.exception() or task.result().close())

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            headers = _headers(head)
            length = int(headers.get(b"content-length", b"0"))
            if len(self._received) < end + 4 + length:
                return
            request = bytes(self._received[: end + 4 + length])
            del self._received[: end + 4 + length]
            operation = headers.get(b"x-amz-target", b"").decode().partition(".")[2]
            if not operation:
                self._write(_response(200, self._site.control(head.split(b" ", 2)[1].decode())))
                continue
            self._site.note(operation, request[end + 4 :])
            if self._behind is not None:
                self._later(self._pass_on, request)
            else:
                self._later(self._write, self._respond(operation, request[end + 4 :]))

    def _later(self, do: Callable[[bytes], None], data: bytes) -> None:
        if self._site.latency:
            self._call_later(self._site.latency, do, data)
        else:
            do(data)

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _pass_on(self, data: bytes) -> None:
        assert self._behind is not None
        self._behind.add_done_callback(lambda task: task.result().write(data))

    def _respond(self, operation: str, body: bytes) -> bytes:
        try:
            return _response(200, self._site.tables.answer(operation, json.loads(body)))
        except RefusedError as refused:
            answer = {"__type": f"com.amazonaws.dynamodb.v20120810#{refused.code}", "message": str(refused)}
            return _response(400, answer if refused.item is None else answer | {"Item": refused.item})


class Behind(asyncio.Protocol):
    """A connection to the endpoint behind: what comes from there goes to ``transport``."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport.close()


async def _connect(port: int, transport: asyncio.Transport) -> asyncio.Transport:
    loop = asyncio.get_running_loop()
    behind, _ = await loop.create_connection(lambda: Behind(transport), "127.0.0.1", port)
    return behind


def _headers(head: bytes) -> dict[bytes, bytes]:
    lines = (line.partition(b":") for line in head.split(b"\r\n")[1:])
    return {name.lower(): value.strip() for name, _, value in lines}


def _response(status: int, answer: dict[str, Any]) -> bytes:
    body = json.dumps(answer, separators=(",", ":")).encode()
    return (
        b"HTTP/1.1 %d X\r\nContent-Type: application/x-amz-json-1.0\r\nContent-Length: %d\r\n"
        b"x-amzn-RequestId: 0\r\nx-amz-crc32: %d\r\n\r\n" % (status, len(body), zlib.crc32(body))
    ) + body


async def serve(port: int, behind: int | None = None) -> None:
    """Listen on the loopback address until cancelled; port 0 takes a free one, which is printed."""
    site = Site(Tables(), behind)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Connection(site, loop.call_later), "127.0.0.1", port)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


def _loop() -> asyncio.AbstractEventLoop:
    # epoll, the usual selector, knows only whole milliseconds: every answer would be one late beside its latency.
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(serve(*map(int, sys.argv[1:])))
