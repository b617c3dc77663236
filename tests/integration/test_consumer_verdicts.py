"""Refusals of a real Postgres: whose fault they are, and that nothing of a record reaches the log."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import EventType

from common.errors import TransientError
from common.observability import logger
from consumer import handler as consumer
from consumer.decode import Arrived, decode
from consumer.sink import PostgresSink
from oncestream.processor import SinkProcessor
from postgres.database import Database
from postgres.migrate import MigrationError, migrate, migrations
from tests.integration.test_consumer_sink import REFUSALS, Store, arrive, reject
from tests.unit.consumer_support import Context, FakeIdempotency, message, stream_event, stream_record


@pytest.fixture
def store(database: Any) -> Iterator[Store]:
    made = Store(database)
    yield made
    made.close()


WORLD = {
    "a sequence at its end": (
        (
            "CREATE SEQUENCE small MINVALUE 0 START 1 MAXVALUE 1; GRANT USAGE ON SEQUENCE small TO PUBLIC;"
            "ALTER TABLE records ADD n bigint DEFAULT nextval('small')"
        ),
        r"ALTER SEQUENCE .*",
        "ALTER SEQUENCE small MAXVALUE 1000",
    ),
    "no partition": (
        (
            "ALTER TABLE records RENAME TO flat; CREATE TABLE records (LIKE flat INCLUDING DEFAULTS, PRIMARY KEY (id))"
            " PARTITION BY LIST (id); CREATE TABLE a PARTITION OF records FOR VALUES IN ('a')"
        ),
        r"DEFAULT partition",
        "CREATE TABLE others PARTITION OF records DEFAULT",
    ),
    "a column that nothing fills": (
        "ALTER TABLE records ADD tenant text NOT NULL",
        r'column "tenant" of table "records" is NOT NULL and nothing gives it a value',
        "ALTER TABLE records ALTER tenant SET DEFAULT 'x'",
    ),
}


@pytest.mark.parametrize(("breaks", "advice", "mends"), WORLD.values(), ids=WORLD)
def test_what_no_record_can_help_rejects_nothing_says_what_to_do_and_passes(
    store: Store, breaks: str, advice: str, mends: str
) -> None:
    store.run(breaks)
    batch = [arrive("a"), arrive("b")], [reject(b"poison")]
    for _ in range(2):
        with pytest.raises(TransientError, match=advice):
            store.sink.store(*batch)
        assert (store.ids(), store.rejected()) == (set(), {})
    store.run(mends)
    assert store.sink.store(*batch).processed == {"a", "b"}


FILLED = {
    "generated": "ALTER TABLE records ADD tenant text GENERATED ALWAYS AS (payload->>'tenant') STORED NOT NULL",
    "by a trigger": """
        ALTER TABLE records ADD tenant text NOT NULL;
        CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            NEW.tenant := NEW.payload->>'tenant'; RETURN NEW;
        END $$;
        CREATE TRIGGER fill BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION fill()
        """,
}


@pytest.mark.parametrize("rule", FILLED.values(), ids=FILLED)
def test_a_column_that_the_payload_fills_is_the_records_matter(store: Store, rule: str) -> None:
    store.run(rule)
    stored = store.sink.store([arrive("a"), arrive("b", {"tenant": "t"})])
    assert (stored.processed, stored.refused.keys()) == ({"b"}, {"a"})
    assert stored.refused["a"].reason.endswith("(SQLSTATE 23502)")


# --- a server that does not have every character


@pytest.fixture
def latin(empty_database: Any, postgres: Any) -> Iterator[Any]:
    """A database in LATIN1."""
    name = f"{empty_database.database_name}_latin1"
    admin = postgres.connect("postgres", "postgres")
    admin.run(
        f"CREATE DATABASE {name} OWNER {postgres.user} ENCODING 'LATIN1' TEMPLATE template0"
        " LOCALE_PROVIDER libc LOCALE 'C' STRATEGY file_copy"
    )
    yield empty_database.model_copy(update={"database_name": name})
    admin.run(f"DROP DATABASE {name} WITH (FORCE)")
    admin.close()


def test_a_database_that_is_not_utf8_is_refused_before_anything_is_made(latin: Any) -> None:
    connection = latin.connect()
    with pytest.raises(MigrationError, match=r"encoding is LATIN1.*ENCODING 'UTF8' TEMPLATE template0"):
        migrate(connection)
    assert connection.run("SELECT FROM pg_tables WHERE schemaname = 'public'") == []
    connection.close()


@pytest.mark.parametrize("text", ["€", "\\u20ac"], ids=["character", "escape"])
def test_a_character_that_a_database_of_an_earlier_release_does_not_have_is_no_record_s_fault(
    latin: Any, text: str
) -> None:
    connection = latin.connect()
    for migration in migrations():
        if not migration.is_outside:
            connection.run(migration.text)
    connection.close()
    database = Database(latin)
    sink = PostgresSink(database)
    bad = decode(stream_record(f'{{"id":"b","partition_key":"p","payload":{{"n":"{text}"}}}}'.encode()))
    assert isinstance(bad, Arrived)
    with pytest.raises(TransientError, match="encoding is LATIN1"):
        sink.store([arrive("a"), bad])
    assert sink.store([arrive("a")]).processed == {"a"}
    database.close()


# --- nothing of a record reaches the log

MARKER = "Zq7-secret-Zq7"
RULES: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (rule, payload | {"ssn": MARKER}) for name, (rule, payload, _) in REFUSALS.items()},
    "check": ("ALTER TABLE records ADD CHECK (payload->>'ssn' IS NULL)", {"ssn": MARKER}),
    "not a number": (
        "ALTER TABLE records ADD n integer GENERATED ALWAYS AS ((payload->>'ssn')::integer) STORED",
        {"ssn": MARKER},
    ),
    "too long": (
        "ALTER TABLE records ADD n varchar(3) GENERATED ALWAYS AS (payload->>'ssn') STORED",
        {"ssn": MARKER},
    ),
    "a domain": (
        (
            "CREATE DOMAIN short AS text CHECK (length(VALUE) < 3);"
            "ALTER TABLE records ADD n short GENERATED ALWAYS AS (payload->>'ssn') STORED"
        ),
        {"ssn": MARKER},
    ),
    "unique": ("CREATE UNIQUE INDEX ON records ((payload->>'ssn'))", {"ssn": MARKER}),
    "foreign key": (
        (
            "CREATE TABLE people (ssn text PRIMARY KEY);"
            "ALTER TABLE records ADD n text GENERATED ALWAYS AS (payload->>'ssn') STORED REFERENCES people"
        ),
        {"ssn": MARKER},
    ),
    "exclusion": (
        "ALTER TABLE records ADD EXCLUDE USING btree ((payload->>'ssn') WITH =)",
        {"ssn": MARKER},
    ),
    "no partition": (
        (
            "ALTER TABLE records RENAME TO flat; CREATE TABLE records (LIKE flat INCLUDING DEFAULTS)"
            " PARTITION BY LIST ((payload->>'ssn'))"
        ),
        {"ssn": MARKER},
    ),
}
JUDGE = """
CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {action}; RETURN NEW; END $$;
CREATE TRIGGER judge BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION judge()
"""
for _name, _action in {
    "a trigger's verdict": "RAISE 'no: %', NEW.payload USING ERRCODE = 'check_violation'",
    "a trigger that quotes a row": "RAISE 'no' USING ERRCODE = '23505', DETAIL = NEW.payload::text,"
    " HINT = NEW.payload::text",
    "a trigger's exception": "RAISE EXCEPTION 'no: %', NEW.payload",
    "a trigger's code of its own": "RAISE EXCEPTION 'no: %', NEW.payload USING ERRCODE = 'ZZ001'",
    "a trigger's SQL": "EXECUTE 'SELECT ' || (NEW.payload->>'ssn')",
    "a trigger without a word": "RETURN NULL",
}.items():
    RULES[_name] = (JUDGE.format(action=_action), {"ssn": MARKER})
BROKEN = {
    "no JSON": f"hello {MARKER}".encode(),
    "a field too many": json.dumps({"id": "x", "partition_key": "p", "payload": {}, MARKER: 1}).encode(),
    "a wrong payload": json.dumps({"id": "x", "partition_key": "p", "payload": MARKER}).encode(),
    "NUL": json.dumps({"id": "x", "partition_key": "p", "payload": {MARKER: "\x00"}}).encode(),
    "a line that the producer refused": json.dumps(
        {
            "id": "u:1",
            "partition_key": "u",
            "rejected": {"reason": f"bad value {MARKER}", "raw": ""},
            "upload": {"id": "u", "chunk": 0, "line": 1},
        }
    ).encode(),
}


def log_of(
    store: Store, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture, *batches: list[bytes]
) -> str:
    """All that the function writes while it settles the batches, as talkative as it can be."""
    processor = SinkProcessor(EventType.KinesisDataStreams, FakeIdempotency(), store.sink)
    output = logger.registered_handler
    assert isinstance(output, logging.StreamHandler)
    level = logger.log_level
    capsys.readouterr()
    caplog.clear()
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.DEBUG):
        patch.setattr(consumer, "_processor", lambda: processor)
        before = output.setStream(sys.stdout)
        logger.setLevel("DEBUG")
        try:
            for batch in batches:
                consumer.handler(stream_event(*batch), Context())
        finally:
            logger.setLevel(level)
            output.setStream(before)
    errors = "".join(str(result.error) for result in processor.results)
    return capsys.readouterr().out + caplog.text + errors


@pytest.mark.filterwarnings("ignore:No application metrics to publish")
@pytest.mark.parametrize(("rule", "payload"), RULES.values(), ids=RULES)
def test_no_refusal_of_postgres_brings_a_payload_into_the_log(
    store: Store,
    rule: str,
    payload: dict[str, Any],
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    store.run(rule)
    batch = [message("a", payload), message("b", payload)]
    written = log_of(store, capsys, caplog, batch)
    assert "Batch done" in written
    assert MARKER not in written
    assert len(failed_or_kept(store, batch)) >= 1


def failed_or_kept(store: Store, batch: list[bytes]) -> list[bytes]:
    """What is not a row: otherwise nothing was refused, and the test shows nothing."""
    stored = {row[0] for row in store.run("SELECT id FROM records")}
    return [data for data in batch if json.loads(data)["id"] not in stored]


@pytest.mark.filterwarnings("ignore:No application metrics to publish")
def test_no_broken_message_and_no_conflict_is_quoted_in_the_log(
    store: Store, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    one, other = message("a", {"ssn": MARKER}), message("a", {"ssn": MARKER + "2"})
    written = log_of(store, capsys, caplog, list(BROKEN.values()), [one, other], [other])
    assert "Record rejected" in written
    assert "Record conflicting" in written
    assert MARKER not in written
    assert store.kinds().count("conflict") == 1
    assert any(MARKER in reason for reason in store.rejected().values()), "beside the bytes it may be quoted"
