"""What a DynamoDB request costs, in write and read units, by the documented rules.

Sources: docs.aws.amazon.com/amazondynamodb/latest/developerguide, pages "read-write-operations" (1 KB an
item and write unit, 4 KB an item and consistent read unit, half of that for an eventually consistent one, a
transaction costs twice), "WorkingWithItems" (a conditional write that fails costs what it would have cost),
"ql-reference.multiplestatements.batching" (a statement of a batch costs what it would cost alone), and
"CapacityUnitCalculations" (sizes).

Where the size of the stored item cannot be told from the request (a read, an update, a delete), it counts
as the least: items of an idempotency table are a few hundred bytes.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

type Request = dict[str, Any]


class Cost(NamedTuple):
    """Units of one request, and of many when added up."""

    write_units: float = 0.0
    read_units: float = 0.0


def cost(operation: str, body: bytes | str) -> Cost:
    """The units that one request consumes.

    Raises
    ------
    KeyError
        An operation that the benchmark does not know: a new one must be counted, not overlooked.
    """
    return _COSTS[operation](json.loads(body))


def _batch_get(request: Request) -> Cost:
    return Cost(
        read_units=sum(len(table["Keys"]) * _read(table) for table in request["RequestItems"].values())
    )


def _batch_write(request: Request) -> Cost:
    writes = [write for table in request["RequestItems"].values() for write in table]
    return Cost(write_units=sum(_write(write.get("PutRequest", {}).get("Item", {})) for write in writes))


def _transaction(request: Request) -> Cost:
    actions = [action for item in request["TransactItems"] for action in item.values()]
    return Cost(write_units=2.0 * sum(_write(action.get("Item", {})) for action in actions))


def _statements(members: list[Request], times: float = 1.0) -> Cost:
    costs = [_statement(member) for member in members]
    return Cost(times * sum(one.write_units for one in costs), times * sum(one.read_units for one in costs))


def _statement(statement: Request) -> Cost:
    text = statement["Statement"].lstrip()
    verb = text[:6].upper()
    if verb == "SELECT":
        return Cost(read_units=_read(statement))
    names = re.findall(r"'([^']*)'\s*:", text) if verb == "INSERT" else []
    return Cost(write_units=_write(dict(zip(names, statement.get("Parameters", []), strict=False))))


_COSTS: dict[str, Callable[[Request], Cost]] = {
    "PutItem": lambda request: Cost(write_units=_write(request["Item"])),
    "UpdateItem": lambda request: Cost(write_units=1.0),
    "DeleteItem": lambda request: Cost(write_units=1.0),
    "GetItem": lambda request: Cost(read_units=_read(request)),
    "BatchGetItem": _batch_get,
    "BatchWriteItem": _batch_write,
    "TransactWriteItems": _transaction,
    "ExecuteStatement": _statement,
    "BatchExecuteStatement": lambda request: _statements(request["Statements"]),
    "ExecuteTransaction": lambda request: _statements(request["TransactStatements"], 2.0),
}


def _read(request: Request) -> float:
    return 1.0 if request.get("ConsistentRead") else 0.5


def _write(item: dict[str, Any]) -> float:
    size = sum(len(name.encode()) + _size(value) for name, value in item.items())
    return float(max(1, math.ceil(size / 1024)))


def _size(value: dict[str, Any]) -> int:
    ((kind, content),) = value.items()
    return _SIZES[kind](content)


_SIZES: dict[str, Callable[[Any], int]] = {
    "S": lambda text: len(text.encode()),
    "N": lambda digits: len(digits.lstrip("-").replace(".", "")) // 2 + 2,
    "B": lambda base64: len(base64) * 3 // 4,
    "BOOL": lambda _: 1,
    "NULL": lambda _: 1,
    "M": lambda members: 3 + sum(1 + len(name.encode()) + _size(inner) for name, inner in members.items()),
    "L": lambda members: 3 + sum(1 + _size(inner) for inner in members),
}
