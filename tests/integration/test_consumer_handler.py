"""The consumer function against a DynamoDB table in MiniStack and a real Postgres."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pg8000.native import Connection

from common import clients
from consumer import handler as consumer
from records.record import Record
from tables.check import check_payload
from tests.unit.consumer_support import POISON, Context, failed, message, stream_event

HUGE = b'{"id":"huge","partition_key":"p","payload":{"n":1' + b"0" * 200_000 + b"}}"


class Consumer:
    def __init__(
        self, database: Any, table: Callable[[], list[dict[str, Any]]], delete: Callable[[Any], Any]
    ) -> None:
        self.database = database
        self.table = table
        self._delete = delete

    def forget(self) -> None:
        """Nobody remembers what was claimed or completed."""
        for item in self.table():
            self._delete({"id": item["id"]})

    def deliver(self, *messages: bytes, first: int = 1) -> list[int]:
        return failed(consumer.handler(stream_event(*messages, first=first), Context()))

    def query(self, sql: str) -> list[list[Any]]:
        connection = self.database.connect()
        try:
            rows: list[list[Any]] = connection.run(sql)
            return rows
        finally:
            connection.close()

    def ids(self) -> list[str]:
        return [row[0] for row in self.query("SELECT id FROM records ORDER BY id")]

    def statuses(self) -> list[str]:
        return sorted(item["status"]["S"] for item in self.table())


@pytest.fixture
def function(database: Any, ministack: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Consumer]:
    dynamodb = ministack.client("dynamodb")
    name = f"idempotency-{database.database_name}"
    dynamodb.create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )
    for variable, value in database.model_dump(by_alias=True).items():
        if value is not None:
            monkeypatch.setenv(variable, str(value))
    monkeypatch.setenv("IDEMPOTENCY_TABLE", name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.endpoint)
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Oncestream")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "consumer")
    caches: list[Any] = [
        consumer._processor,
        consumer._waiting,
        clients.dynamodb,
        clients.dynamodb_for_notes,
        clients.dynamodb_transport,
    ]
    for cache in caches:
        cache.cache_clear()
    yield Consumer(
        database,
        lambda: dynamodb.scan(TableName=name)["Items"],
        lambda key: dynamodb.delete_item(TableName=name, Key=key),
    )
    consumer._processor()._sink._database.close()  # type: ignore[attr-defined]
    for cache in caches:
        cache.cache_clear()
    dynamodb.delete_table(TableName=name)


def test_a_batch_delivered_three_times_is_one_row_each(function: Consumer) -> None:
    batch = [message(str(number)) for number in range(120)] + [message("7")]
    assert function.deliver(*batch) == []
    rows = function.query("SELECT * FROM records ORDER BY id")
    assert len(rows) == 120
    assert function.statuses() == ["COMPLETED"] * 120
    for _ in range(2):
        assert function.deliver(*batch) == []
    assert function.query("SELECT * FROM records ORDER BY id") == rows


def test_every_poison_record_is_one_rejected_record_and_the_records_around_it_land(
    function: Consumer,
) -> None:
    poison = [data for data, _ in POISON.values()] + [HUGE]
    batch = [each for at, data in enumerate(poison) for each in (message(f"good-{at}"), data)]
    for _ in range(2):
        assert function.deliver(*batch) == []
        assert len(function.ids()) == len(poison)
        rejected = {row[0]: row[1] for row in function.query("SELECT raw, reason FROM rejected_records")}
        assert len(rejected) == len(poison)
        assert rejected.items() >= dict(POISON.values()).items()
        assert rejected[HUGE]


def test_what_postgres_refuses_is_rejected_once_and_its_id_stays_free(function: Consumer) -> None:
    function.query("ALTER TABLE records ADD CONSTRAINT positive CHECK ((payload->>'n')::numeric > 0)")
    batch = [message(str(number), {"n": number}) for number in range(10)]
    for _ in range(2):
        assert function.deliver(*batch) == []
        assert function.ids() == [str(number) for number in range(1, 10)]
        [[raw, reason, record_id]] = function.query("SELECT raw, reason, record_id FROM rejected_records")
        assert (raw, record_id) == (batch[0], "0")
        assert 'violates check constraint "positive"' in reason
    assert function.statuses() == ["COMPLETED"] * 9
    assert function.deliver(message("0", {"n": 5})) == []
    assert function.ids()[0] == "0"


def test_while_postgres_is_down_all_fails_and_nothing_is_rejected_and_then_all_land(
    function: Consumer, postgres: Any
) -> None:
    batch = [message("a"), b"poison", message("b")]
    assert function.deliver(message("earlier")) == []
    postgres.stop()
    try:
        assert function.deliver(*batch) == [1, 2, 3]
        assert function.deliver(*batch) == [1, 2, 3]
        assert function.statuses() == ["COMPLETED"]
    finally:
        postgres.start()
    assert function.deliver(*batch) == []
    assert function.ids() == ["a", "b", "earlier"]
    assert function.query("SELECT raw FROM rejected_records") == [[b"poison"]]
    assert function.statuses() == ["COMPLETED"] * 3


def test_a_backend_that_is_ended_in_the_middle_of_the_transaction_costs_a_retry(function: Consumer) -> None:
    function.query(
        "CREATE SEQUENCE attempts;"
        "CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF nextval('attempts') = 2 THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;"
        " RETURN NEW; END $$;"
        "CREATE TRIGGER die AFTER INSERT ON records FOR EACH ROW EXECUTE FUNCTION die()"
    )
    batch = [message("a"), message("b"), b"poison"]
    assert function.deliver(*batch) == [1, 2, 3]
    assert function.ids() == []
    assert function.query("SELECT FROM rejected_records") == []
    assert function.deliver(*batch) == []
    assert function.ids() == ["a", "b"]


def test_the_order_is_claim_then_commit_then_complete(
    function: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seen from outside: at COMMIT every claim stands, and before it nothing is completed."""
    seen: list[tuple[str, list[str]]] = []
    run = Connection.run

    def look(connection: Any, sql: str, **parameters: Any) -> Any:
        if sql.startswith(("BEGIN", "COMMIT")):
            seen.append((sql.split(maxsplit=1)[0], function.statuses()))
        return run(connection, sql, **parameters)

    monkeypatch.setattr(Connection, "run", look)
    assert function.deliver(message("a"), message("b")) == []
    assert seen == [("BEGIN", ["INPROGRESS"] * 2), ("COMMIT", ["INPROGRESS"] * 2)]
    monkeypatch.undo()
    assert function.statuses() == ["COMPLETED"] * 2


def test_lines_that_repeat_an_id_are_counted_once_each(function: Consumer) -> None:
    def line(number: int, upload: str = "u") -> bytes:
        return message("order-1", {"n": 1}, (upload, 0, number))

    for _ in range(2):
        assert function.deliver(line(1), line(2), message("u:30", None, ("u", 0, 3)), line(4)) == []
        assert function.deliver(line(1, "v")) == []
    assert function.query("SELECT upload_id, upload_line FROM records ORDER BY upload_line") == [
        ["u", 1],
        ["u", 3],
    ]
    repeated = "SELECT upload_id, upload_line, record_id FROM repeated_records ORDER BY 1, 2"
    assert function.query(repeated) == [["u", 2, "order-1"], ["u", 4, "order-1"], ["v", 1, "order-1"]]


def digest_of(data: bytes) -> str:
    return hashlib.sha256(Record.from_bytes(data, check_payload).payload_json.encode()).hexdigest()


def test_lines_with_a_known_id_and_other_content_are_kept_once_each(function: Consumer) -> None:
    def line(number: int, upload: str = "u") -> bytes:
        return message("order-1", {"n": number}, (upload, 0, number))

    for _ in range(2):
        assert function.deliver(line(1), line(2), message("u:30", None, ("u", 0, 3)), line(4)) == []
        assert function.deliver(line(1), line(5, "v")) == []
    assert function.query("SELECT upload_id, upload_line FROM records ORDER BY upload_line") == [
        ["u", 1],
        ["u", 3],
    ]
    kept = "SELECT kind, upload_id, upload_line, record_id, raw FROM rejected_records ORDER BY 3"
    assert function.query(kept) == [
        ["conflict", "u", 2, "order-1", line(2)],
        ["conflict", "u", 4, "order-1", line(4)],
        ["conflict", "v", 5, "order-1", line(5, "v")],
    ]
    assert function.query("SELECT FROM repeated_records") == []


@pytest.mark.parametrize("forgotten", [False, True], ids=["claim completed", "claim forgotten"])
def test_the_claim_remembers_what_is_stored_and_not_what_came_last(
    function: Consumer, forgotten: bool
) -> None:
    first, other = message("a", {"n": 1}), message("a", {"n": 2})
    assert function.deliver(first) == []
    if forgotten:
        function.forget()
    for data in (other, message("a", {"n": 3}), other, first):
        assert function.deliver(data) == []
    assert function.query("SELECT payload FROM records") == [[{"n": 1}]]
    kept = "SELECT kind, raw FROM rejected_records ORDER BY raw"
    assert function.query(kept) == [["conflict", other], ["conflict", message("a", {"n": 3})]]
    [item] = function.table()
    assert item["status"]["S"] == "COMPLETED"
    # These bytes are just as Postgres writes them, which is what it has to say of a row that was there before.
    assert item["validation"]["S"] == digest_of(first) == hashlib.sha256(b'{"n": 1}').hexdigest()


def test_claims_have_the_layout_of_powertools_under_a_prefix_of_their_own(function: Consumer) -> None:
    assert function.deliver(message("a")) == []
    [item] = function.table()
    assert item["id"]["S"] == f"records#{hashlib.sha256(b'"a"').hexdigest()}"
    assert item["status"]["S"] == "COMPLETED"
    assert item["validation"]["S"] == digest_of(message("a"))
    assert int(item["expiration"]["N"]) > 0
