"""Bulk idempotency and Powertools' own decorator on one table, in MiniStack: each understands the other."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyAlreadyInProgressError

from common.errors import TransientError
from oncestream.idempotency import BulkIdempotency
from tests.unit.idempotency_world import bare, nothing_but

if TYPE_CHECKING:
    from local.ministack import MiniStack

DAY = 86_400
MINUTE = 60_000
PREFIX = "consumer"


class Context:
    """A Lambda context with a minute left."""

    def get_remaining_time_in_millis(self) -> int:
        return MINUTE


@dataclass
class Table:
    """A table of its own for each test, and both kinds of store on it."""

    ministack: MiniStack
    name: str
    options: dict[str, str]
    hash_function: str = "sha256"
    calls: Counter[str] = field(default_factory=Counter)
    """Batch requests by operation."""

    def config(self, **changes: Any) -> IdempotencyConfig:
        settings = {
            "hash_function": self.hash_function,
            "expires_after_seconds": DAY,
            "lambda_context": Context(),
        }
        return IdempotencyConfig(**(settings | changes))

    def store(self, *, seconds_from_now: float = 0, table: str = "", **changes: Any) -> BulkIdempotency:
        """Ours, perhaps living in the past or the future."""
        return BulkIdempotency(
            table or self.name,
            config=self.config(),
            key_prefix=PREFIX,
            boto3_client=self.ministack.client("dynamodb"),
            clock=lambda: time.time() + seconds_from_now,
            **(self.options | changes),
        )

    def function(self, work: Callable[[str], Any] = str.upper, store: Any = None) -> Callable[..., Any]:
        """A function under Powertools' decorator."""

        @idempotent_function(
            data_keyword_argument="record_id",
            persistence_store=store
            or DynamoDBPersistenceLayer(
                self.name, boto3_client=self.ministack.client("dynamodb"), **self.options
            ),
            config=self.config(),
            key_prefix=PREFIX,
        )
        def process(record_id: str) -> Any:
            return work(record_id)

        return process

    def items(self) -> list[dict[str, Any]]:
        pages = self.ministack.client("dynamodb").get_paginator("scan").paginate(TableName=self.name)
        return [item for page in pages for item in page["Items"]]


@pytest.fixture(params=["key", "sort key", "md5"])
def table(request: pytest.FixtureRequest, ministack: MiniStack) -> Iterator[Table]:
    name = f"idempotency-{uuid.uuid4()}"
    keys = [("id", "HASH"), ("sort", "RANGE")] if request.param == "sort key" else [("id", "HASH")]
    ministack.client("dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": key, "AttributeType": "S"} for key, _ in keys],
        KeySchema=[{"AttributeName": key, "KeyType": kind} for key, kind in keys],
    )
    options = {"sort_key_attr": "sort", "static_pk_value": "records"} if request.param == "sort key" else {}
    table = Table(ministack, name, options, "md5" if request.param == "md5" else "sha256")

    def count(request: Any, **_: Any) -> None:
        target = request.headers["X-Amz-Target"]
        operation = (target.decode() if isinstance(target, bytes) else target).partition(".")[2]
        if operation.startswith("Batch"):
            table.calls[operation] += 1

    events = ministack.client("dynamodb").meta.events
    events.register("before-send.dynamodb", count)
    yield table
    events.unregister("before-send.dynamodb", count)


one_table = pytest.mark.parametrize("table", ["key"], indirect=True)


def ran(process: Callable[..., Any], record_id: str) -> str:
    """What Powertools makes of a call."""
    try:
        return "ran" if process(record_id=record_id) == record_id.upper() else "completed"
    except IdempotencyAlreadyInProgressError:
        return "in progress"


@pytest.mark.parametrize("record_id", ["abc", "0", '\' OR "1"="1', "Straße #1 \N{SNOWMAN}", "x" * 256])
class TestPowertoolsSeesOurs:
    def test_claim_as_in_progress(self, table: Table, record_id: str) -> None:
        assert table.store().claim(bare([record_id]), MINUTE) == nothing_but(claimed={record_id})
        assert ran(table.function(), record_id) == "in progress"

    def test_completed_record_as_completed_by_a_function_that_returned_nothing(
        self, table: Table, record_id: str
    ) -> None:
        store = table.store()
        store.claim(bare([record_id]), MINUTE)
        assert store.complete(bare([record_id])) == frozenset()
        assert table.function()(record_id=record_id) is None
        assert ran(table.function(), record_id) == "completed"

    def test_released_claim_as_absent(self, table: Table, record_id: str) -> None:
        store = table.store()
        store.claim(bare([record_id]), MINUTE)
        assert store.release([record_id]) == frozenset()
        assert ran(table.function(), record_id) == "ran"

    def test_claim_that_ran_out_as_free_to_take(self, table: Table, record_id: str) -> None:
        store = table.store(seconds_from_now=-120)
        store.claim(bare([record_id]), MINUTE)
        assert ran(table.function(), record_id) == "ran"
        assert table.store().claim(bare([record_id]), MINUTE) == nothing_but(completed={record_id})

    def test_expired_record_as_free_to_take(self, table: Table, record_id: str) -> None:
        store = table.store(seconds_from_now=-DAY - 10)
        store.claim(bare([record_id]), MINUTE)
        store.complete(bare([record_id]))
        assert ran(table.function(), record_id) == "ran"


@pytest.mark.parametrize("record_id", ["abc", "0", '\' OR "1"="1', "Straße #1 \N{SNOWMAN}", "x" * 256])
class TestWeSeePowertools:
    def test_call_in_progress_and_then_completed(self, table: Table, record_id: str) -> None:
        seen = []
        store = table.store()
        table.function(lambda key: seen.append(store.claim(bare([key]), MINUTE)))(record_id=record_id)
        assert seen == [nothing_but(in_progress={record_id})]
        assert store.claim(bare([record_id]), MINUTE) == nothing_but(completed={record_id})

    def test_call_that_failed_as_absent(self, table: Table, record_id: str) -> None:
        with pytest.raises(ZeroDivisionError):
            table.function(lambda key: 1 // 0)(record_id=record_id)
        assert table.store().claim(bare([record_id]), MINUTE) == nothing_but(claimed={record_id})

    def test_call_that_ran_out_as_free_to_take(self, table: Table, record_id: str) -> None:
        seen = []
        later = table.store(seconds_from_now=61)
        table.function(lambda key: seen.append(later.claim(bare([key]), MINUTE)))(record_id=record_id)
        assert seen == [nothing_but(claimed={record_id})]

    def test_expired_record_as_free_to_take(self, table: Table, record_id: str) -> None:
        table.function()(record_id=record_id)
        later = table.store(seconds_from_now=DAY + 10)
        assert later.claim(bare([record_id]), MINUTE) == nothing_but(claimed={record_id})


class TestBothAtOnce:
    def test_release_leaves_what_powertools_took_over_and_is_working_on(self, table: Table) -> None:
        store = table.store(seconds_from_now=-120)
        store.claim(bare(["abc"]), MINUTE)
        table.function(lambda key: list(store.release([key])))(record_id="abc")
        assert ran(table.function(), "abc") == "completed"

    def test_release_leaves_what_powertools_completed(self, table: Table) -> None:
        store = table.store(seconds_from_now=-120)
        store.claim(bare(["abc"]), MINUTE)
        table.function()(record_id="abc")
        assert store.release(["abc"]) == frozenset()
        assert table.store().claim(bare(["abc"]), MINUTE) == nothing_but(completed={"abc"})

    def test_the_decorator_works_on_a_bulk_store(self, table: Table) -> None:
        store = table.store()
        process = table.function(store=store)
        assert [ran(process, "abc"), process(record_id="abc")] == ["ran", "ABC"]
        assert store.claim(bare(["abc", "def"]), MINUTE) == nothing_but(claimed={"def"}, completed={"abc"})
        assert ran(process, "def") == "in progress"


class TestABatch:
    KEYS = tuple(f"upload-0123456789abcdef-{number:012d}" for number in range(1000))

    @one_table
    def test_of_1000_new_records_costs_80_calls_and_two_write_units_a_record(self, table: Table) -> None:
        store = table.store()
        assert store.claim(bare(self.KEYS), MINUTE).claimed == frozenset(self.KEYS)
        items = table.items()
        assert len({item["owner"]["S"] for item in items}) == 1
        # A write unit is 1 KB: docs.aws.amazon.com/amazondynamodb/latest/developerguide/read-write-operations.html
        assert max(len(repr(item)) for item in items) < 1024
        assert store.complete(bare(self.KEYS)) == frozenset()
        assert table.calls == {"BatchExecuteStatement": 40, "BatchWriteItem": 40}
        assert Counter(item["status"]["S"] for item in table.items()) == {"COMPLETED": 1000}

    @one_table
    def test_of_1000_duplicates_costs_50_calls_at_most(self, table: Table) -> None:
        table.store().complete(bare(self.KEYS))
        table.calls.clear()
        assert table.store().claim(bare(self.KEYS), MINUTE) == nothing_but(completed=set(self.KEYS))
        # What is under way when the first answer comes is inserted; the rest is read, and what was inserted in vain.
        assert table.calls.keys() == {"BatchExecuteStatement", "BatchGetItem"}
        assert table.calls["BatchGetItem"] in {10, 11}
        assert table.calls.total() <= 50

    def test_whose_invocation_was_killed_is_taken_over_when_its_time_is_up(self, table: Table) -> None:
        keys = self.KEYS[:130]
        table.store(seconds_from_now=-120).claim(bare(keys), MINUTE)
        store = table.store()
        assert store.claim(bare(keys), MINUTE) == nothing_but(claimed=set(keys))
        assert table.store().claim(bare(keys), MINUTE) == nothing_but(in_progress=set(keys))
        assert store.release(keys) == frozenset()
        assert table.items() == []

    def test_that_two_workers_have_at_once_is_divided_between_them(self, table: Table) -> None:
        stores = [table.store(), table.store()]
        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda store: store.claim(bare(self.KEYS), MINUTE), stores)
        assert not first.claimed & second.claimed
        assert first.claimed | second.claimed == frozenset(self.KEYS)
        assert first.in_progress == second.claimed
        assert second.in_progress == first.claimed

    @one_table
    def test_for_a_table_that_is_not_there_names_it(self, table: Table) -> None:
        with pytest.raises(TransientError, match=r"table no-such-table: ResourceNotFound"):
            table.store(table="no-such-table").claim(bare(["abc"]), MINUTE)
