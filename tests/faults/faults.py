"""What can go wrong with one I/O call, and the plan of what does.

A step is one I/O call of a handler: an HTTP request to AWS, or a message to Postgres and its answer. Steps of
a function are counted from 0 over the whole history, whichever invocation makes them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple

type Kind = Literal[
    "refuse",
    "lost",
    "error",
    "error after",
    "throttle",
    "denied",
    "garbage",
    "part",
    "part after",
    "crash before",
    "crash after",
    "late",
    "timeout",
    "slow",
    "deadlock",
    "shutdown",
    "locked",
]

EVERYWHERE: dict[Kind, str] = {
    "refuse": "no connection, nothing happened",
    "lost": "it happened, the answer is lost",
    "crash before": "the process is killed before the call",
    "crash after": "the process is killed after the call, before the answer is read",
    "late": "the call takes until 3 seconds before the function's timeout",
    "timeout": "the call takes beyond the function's timeout, Lambda kills it",
    "slow": "the call takes 5 seconds",
}
AWS: dict[Kind, str] = {
    "error": "HTTP 500, nothing happened",
    "error after": "HTTP 500, and it happened",
    "throttle": "the whole request is throttled",
    "denied": "access denied, as after a broken deployment",
    "garbage": "it happened, and the answer is cut off",
}
PARTS: dict[Kind, str] = {
    "part": "the first, third, ... item of the request is throttled",
    "part after": "the second, fourth, ... item is answered with an internal error",
}
POSTGRES: dict[Kind, str] = {
    "deadlock": "SQLSTATE 40P01",
    "shutdown": "SQLSTATE 57P01, and the server hangs up",
    "locked": "SQLSTATE 55P03 (somebody alters the table), for each insert until the invocation ends",
}
BATCHED = {"BatchExecuteStatement", "BatchGetItem", "BatchWriteItem", "PutRecords", "SendMessageBatch"}


class Killed(BaseException):
    """The process of the invocation ends at this point. Nothing in the product may catch it."""


class Step(NamedTuple):
    """One I/O call that was made."""

    function: str
    number: int
    service: str
    operation: str
    fault: Kind | None = None


def kinds(service: str, operation: str) -> list[Kind]:
    """The faults that a step can meet."""
    if service == "postgres":
        return [*EVERYWHERE, *(POSTGRES if operation not in ("connect", "close") else ())]
    found: list[Kind] = [*EVERYWHERE, *AWS]
    return [*found, *PARTS] if operation in BATCHED else found


@dataclass
class Plan:
    """Which step of which function meets which fault, and what was met."""

    faults: dict[tuple[str, int | str], Kind] = field(default_factory=dict)
    """By function and the number of its step, or the first step with an operation of that name."""
    steps: list[Step] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    fired: int = 0

    def next(self, function: str, service: str, operation: str) -> Kind | None:
        """The fault of this step; it counts as made."""
        number = self.counts.get(function, 0)
        self.counts[function] = number + 1
        fault = self.faults.get((function, number)) or self.faults.pop((function, operation), None)
        if fault is not None and fault not in kinds(service, operation):
            fault = None
        self.fired += fault is not None
        self.steps.append(Step(function, number, service, operation, fault))
        return fault
