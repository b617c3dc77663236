"""What the tests of bulk idempotency share: a table in memory, a clock, and stores on them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
from botocore.config import Config

from oncestream.idempotency import BulkIdempotency, Claims
from oncestream.transport import Pending
from oncestream.transport.boto3 import Boto3Transport
from tests.unit.fake_dynamodb import Clock, FakeDynamoDB, Item, Trouble

TABLE = "claims"
DAY = 86_400
MINUTE = 60_000

CLIENT = boto3.client(
    "dynamodb",
    region_name="eu-central-1",
    aws_access_key_id="test",
    aws_secret_access_key="test",
    endpoint_url="https://dynamodb.test",
    # With one connection there is one request at a time, in the thread of the test.
    config=Config(parameter_validation=False, retries={"total_max_attempts": 1}, max_pool_connections=1),
)


class Slow:
    """A transport whose answers count as here only when ``here`` says so."""

    def __init__(self, here: Callable[[], bool]) -> None:
        self._at_once = Boto3Transport(CLIENT, threads=1)
        self._here = here

    def send(self, operation: str, request: dict[str, Any]) -> Pending:
        sent = self._at_once.send(operation, request)
        sent.done = self._here  # type: ignore[method-assign]
        return sent


def config(**changes: Any) -> IdempotencyConfig:
    return IdempotencyConfig(**({"hash_function": "sha256", "expires_after_seconds": DAY} | changes))


class World:
    """A table, a clock, and stores on them."""

    def __init__(self, fake: FakeDynamoDB | None = None) -> None:
        self.dynamodb = fake or FakeDynamoDB(TABLE)
        self.dynamodb.attach(CLIENT)
        self.clock = Clock()

    def store(self, **options: Any) -> BulkIdempotency:
        settings = {
            "config": config(),
            "key_prefix": "consumer",
            "in_flight": 1,
            "jitter": lambda: 0.5,
        } | options
        return BulkIdempotency(
            TABLE, boto3_client=CLIENT, clock=self.clock, sleep=self.clock.sleep, **settings
        )

    def put(self, key: str, status: str = "INPROGRESS", **changes: float | str | None) -> Item:
        """Store an item of somebody else's. Times are seconds from now; None leaves an attribute out."""
        times = {"expiration": DAY, "in_progress_expiration": 60.0} | changes
        item: Item = {"id": {"S": hashed(key)}, "status": {"S": status}}
        if (seconds := times["expiration"]) is not None:
            item["expiration"] = {"N": str(int(self.clock.now) + int(seconds))}
        if (seconds := times["in_progress_expiration"]) is not None:
            item["in_progress_expiration"] = {"N": str(int(self.clock.now * 1000) + round(seconds * 1000))}
        if "validation" in times:
            item["validation"] = {"S": times["validation"]}
        if "owner" in times:
            item["owner"] = {"S": times["owner"]}
        self.dynamodb.put(item)
        return item

    def item(self, key: str) -> Item | None:
        return self.dynamodb.items.get((hashed(key),))

    def status(self, key: str) -> str | None:
        item = self.item(key)
        return item["status"]["S"] if item else None


def hashed(key: str, prefix: str = "consumer") -> str:
    return f"{prefix}#{hashlib.sha256(json.dumps(key).encode()).hexdigest()}"


def ids(count: int) -> list[str]:
    return [f"record-{number}" for number in range(count)]


def bare(keys: Iterable[str]) -> Iterator[tuple[str, str]]:
    """The keys without a digest, as a claim takes them."""
    return ((key, "") for key in keys)


def nothing_but(**sets: set[str]) -> Claims:
    names = ("claimed", "completed", "suspect", "in_progress", "undecided")
    return Claims(**{name: frozenset(sets.get(name, set())) for name in names})


def troubles(*planned: Trouble | None, then: Trouble | None = None) -> Callable[..., Trouble | None]:
    """The trouble of the first requests, in order, and of all that follow."""
    return lambda number, operation, body: planned[number - 1] if number <= len(planned) else then


def trouble_with(operation: str, trouble: Trouble, times: int = 1) -> Callable[..., Trouble | None]:
    """Trouble with the first requests for one operation."""
    left = [times]

    def plan(number: int, asked: str, body: Any) -> Trouble | None:
        if asked != operation or not left[0]:
            return None
        left[0] -= 1
        return trouble

    return plan


LOST = Trouble("lost")
REFUSED = Trouble("refused")
THROTTLED = Trouble("error", "ProvisionedThroughputExceededException")
DENIED = Trouble("error", "AccessDeniedException")
