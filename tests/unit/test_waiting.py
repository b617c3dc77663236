"""Why a function waits: noted seldom, taken away with the next success, and never in the way."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from common.waiting import BELIEVED, EVERY, REASON_CHARACTERS, WAITING, Note, Waiting
from tests.unit.cloudformation import Variant
from tests.unit.uploads_aws import Aws, moto_aws

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SECOND = timedelta(seconds=1)


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_aws() as resources:
        yield resources


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> datetime:
        return self.now


class Counting:
    """A client that counts what is written."""

    def __init__(self, client: Any) -> None:
        self._client = client
        self.writes = 0

    def update_item(self, **parameters: Any) -> Any:
        self.writes += 1
        return self._client.update_item(**parameters)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def client(aws: Aws) -> Counting:
    return Counting(aws.dynamodb)


@pytest.fixture
def waiting(aws: Aws, client: Counting, clock: Clock) -> Waiting:
    return environment(aws, client, clock)


def environment(aws: Aws, client: Any, clock: Clock) -> Waiting:
    """A new execution environment of the function."""
    return Waiting(lambda: client, aws.table, "consumer", now=clock)


def test_says_why_and_since_when(aws: Aws, waiting: Waiting, clock: Clock) -> None:
    waiting.note("refused")
    clock.now += 2 * EVERY
    waiting.note("refused")
    assert aws.ledger.waiting() == [Note("consumer", "refused", NOON, NOON + 2 * EVERY)]


def test_is_written_when_the_reason_changes_and_then_once_a_minute(
    waiting: Waiting, client: Counting, clock: Clock
) -> None:
    waiting.note("refused")
    before = client.writes
    for _ in range(59):
        clock.now += SECOND
        waiting.note("refused")
    assert client.writes == before
    clock.now += SECOND
    waiting.note("refused")
    assert client.writes == before + 1
    waiting.note("no space")
    assert client.writes > before + 1


def test_another_reason_begins_anew(aws: Aws, waiting: Waiting, clock: Clock) -> None:
    waiting.note("refused")
    clock.now += SECOND
    waiting.note("no space")
    assert aws.ledger.waiting() == [Note("consumer", "no space", NOON + SECOND, NOON + SECOND)]


def test_another_environment_goes_on_with_a_fresh_note_only(aws: Aws, waiting: Waiting, clock: Clock) -> None:
    waiting.note("refused")
    clock.now += SECOND
    environment(aws, aws.dynamodb, clock).note("refused")
    assert aws.ledger.waiting()[0].since == NOON
    clock.now += BELIEVED + SECOND
    environment(aws, aws.dynamodb, clock).note("refused")
    assert aws.ledger.waiting()[0].since == clock.now, "it worked in between, for all we know"


def test_a_success_takes_it_away_and_costs_nothing_otherwise(
    aws: Aws, waiting: Waiting, client: Counting
) -> None:
    waiting.clear()
    assert client.writes == 0
    waiting.note("refused")
    waiting.clear()
    assert aws.ledger.waiting() == []
    before = client.writes
    waiting.clear()
    assert client.writes == before


def test_a_long_reason_is_cut(aws: Aws, waiting: Waiting) -> None:
    waiting.note("x" * 10_000)
    assert len(aws.ledger.waiting()[0].reason) == REASON_CHARACTERS


def test_it_is_no_upload(aws: Aws, waiting: Waiting) -> None:
    waiting.note("refused")
    assert aws.ledger.latest(10) == []
    assert aws.ledger.entry("waiting") is None


@pytest.mark.parametrize(
    "error",
    [
        EndpointConnectionError(endpoint_url="http://ledger"),
        ClientError({"Error": {"Code": "AccessDeniedException"}}, "UpdateItem"),
    ],
)
def test_a_note_that_cannot_be_written_is_left(error: Exception, clock: Clock) -> None:
    class Broken:
        calls = 0

        def update_item(self, **_: Any) -> None:
            Broken.calls += 1
            raise error

    waiting = Waiting(Broken, "ledger", "consumer", now=clock)  # type: ignore[arg-type]
    waiting.note("refused")
    waiting.note("refused")
    assert Broken.calls == 1, "and not tried again at once"
    waiting.clear()


def test_without_a_ledger_nothing_is_noted(clock: Clock) -> None:
    waiting = Waiting(lambda: pytest.fail("no client is made"), None, "consumer", now=clock)
    waiting.note("refused")
    waiting.clear()


def test_a_function_may_write_its_notes_and_nothing_else_of_the_ledger_by_that() -> None:
    resources = Variant(DatabaseHost="db", DatabaseResourceId="db-A").resources
    for function in ("ConsumerFunction", "ChunksFunction"):
        [note] = [
            statement
            for policy in resources[f"{function}Role"]["Properties"]["Policies"]
            for statement in policy["PolicyDocument"]["Statement"]
            if "LedgerTable" in str(statement["Resource"])
            and "dynamodb:UpdateItem" in str(statement["Action"])
        ]
        assert note["Action"] == "dynamodb:UpdateItem"
        assert note["Condition"] == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [WAITING]}}
