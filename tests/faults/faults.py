"""What can go wrong with one I/O call, and the plan of what does.

A step is one I/O call of a handler: an HTTP request to AWS, or a message to Postgres and its answer. Steps of
a function are counted from 0 over the whole history, whichever invocation makes them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from typing import Literal, NamedTuple

type Kind = Literal[
    "refuse",
    "lost",
    "error",
    "error after",
    "throttle",
    "denied",
    "garbage",
    "reset",
    "reset after",
    "overdue",
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
    "restart",
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
    "reset": "the connection breaks after the request is sent, nothing happened",
    "reset after": "it happened, and the connection breaks before the answer",
    "overdue": "the client waits in vain and gives up, and then it happens, some calls later",
}
PARTS: dict[Kind, str] = {
    "part": "the first, third, ... item of the request is throttled",
    "part after": "the second, fourth, ... item is answered with an internal error",
}
POSTGRES: dict[Kind, str] = {
    "deadlock": "SQLSTATE 40P01",
    "shutdown": "the session is ended by pg_terminate_backend (SQLSTATE 57P01)",
    "locked": "SQLSTATE 55P03 (somebody alters the table), for each insert until the invocation ends",
}
RARE: dict[Kind, str] = {"restart": "the Postgres server is stopped and started"}
"""Takes a fifth of a second, so it is not tried at every step."""
IN_VAIN: tuple[Kind, ...] = ("lost", "overdue")
"""Of these: the client waits until it gives up."""
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
        return [*EVERYWHERE, *(POSTGRES if operation not in {"connect", "close"} else ())]
    found: list[Kind] = [*EVERYWHERE, *AWS]
    return [*found, *PARTS] if operation in BATCHED else found


def names_of(operation: str, which: int) -> tuple[str, ...]:
    """How a call can be named: by its operation and which of these it is (from 1), the first by its operation alone."""
    return (f"{operation} {which}", *((operation,) if which == 1 else ()))


@cache
def _possible(service: str, operation: str) -> frozenset[Kind]:
    possible = kinds(service, operation)
    return frozenset([*possible, *RARE] if POSTGRES.keys() & set(possible) else possible)


@dataclass
class Armed:
    """A fault for the step of ``function`` that can meet it next, after ``skip`` others that could."""

    function: str
    skip: int
    kind: Kind


@dataclass
class Plan:
    """Which step of which function meets which fault, and what was met."""

    faults: dict[tuple[str, int | str], Kind] = field(default_factory=dict)
    """By function and step: its number, or the operation and which of these it is ("COMMIT 2"; "COMMIT" is the
    first)."""
    steps: list[Step] = field(default_factory=list)
    armed: Armed | None = None
    """One that waits for its step."""
    _counts: Counter[str | tuple[str, str]] = field(default_factory=Counter)

    def next(self, function: str, service: str, operation: str) -> Kind | None:
        """The fault of this step; it counts as made."""
        number = self._counts[function]
        self._counts[function] += 1
        self._counts[function, operation] += 1
        names = (number, *names_of(operation, self._counts[function, operation]))
        found = (fault for name in names if (fault := self.faults.get((function, name))))
        fault = next((each for each in found if each in _possible(service, operation)), None)
        fault = fault or self._disarm(function, _possible(service, operation))
        self.steps.append(Step(function, number, service, operation, fault))
        return fault

    def _disarm(self, function: str, possible: frozenset[Kind]) -> Kind | None:
        armed = self.armed
        if armed is None or armed.function != function or armed.kind not in possible:
            return None
        armed.skip -= 1
        if armed.skip >= 0:
            return None
        self.armed = None
        return armed.kind
