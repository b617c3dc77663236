"""The library's table in memory, with faults at will."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from oncestream.testing import URL, AnswerError, InMemoryTable, Item


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


__all__ = ["AnswerError", "Clock", "FakeDynamoDB", "Item", "OtherBytesError", "Trouble", "interleave"]


class FakeDynamoDB(InMemoryTable):
    """One table. ``attach`` it to a client."""

    def __init__(self, table: str = "claims", key: str = "id", sort_key: str | None = None) -> None:
        super().__init__(table, key, sort_key)
        self.trouble: Callable[[int, str, dict[str, Any]], Trouble | None] = lambda number, operation, body: (
            None
        )
        self.before: Callable[[], None] = lambda: None
        """Called when a request arrives."""
        self._now: Trouble | None = None
        """The trouble with the request that is carried out now."""

    def answer(self, request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        self.before()
        return super().answer(request)

    def carry_out(self, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        if operation == "BatchGetItem":
            ((_, asked),) = body["RequestItems"].items()
            assert asked["ConsistentRead"] is True
        self._now = trouble = self.trouble(len(self.requests), operation, body)
        kind = trouble.kind if trouble else ""
        if kind == "refused":
            raise EndpointConnectionError(endpoint_url=URL)
        if trouble and kind == "error":
            raise AnswerError(trouble.code, "trouble", trouble.status)
        answer = super().carry_out(operation, body)
        if kind == "lost":
            raise ReadTimeoutError(endpoint_url=URL)
        if kind == "error after":
            raise AnswerError("InternalServerError", "trouble", 500)
        if trouble and kind == "body":
            raise OtherBytesError(trouble.body, trouble.status)
        if kind == "garbage":
            raise OtherBytesError(json.dumps(answer).encode()[:-9])
        return answer

    def left_out(self, position: int, statement: dict[str, Any] | None = None) -> str:
        trouble = self._now
        if trouble is None or trouble.kind not in {"items", "items after"} or trouble.spare(position):
            return ""
        if trouble.kind == "items after" and statement is not None:
            self.execute(statement)
        return trouble.code


class OtherBytesError(AnswerError):
    """An answer that is not DynamoDB's."""

    def __init__(self, body: bytes, status: int = 200) -> None:
        super().__init__("", status=status)
        self.body: Any = body


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
