"""What is known already, on a real Postgres: compared, and never inferred."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from consumer.decode import Arrived, Rejection, decode, digest
from consumer.sink import FORGOTTEN, SWALLOWED
from oncestream.engine import Stored
from tests.integration.test_consumer_sink import FIRST, SECOND, Store, arrive
from tests.unit.consumer_support import message, stream_record


@pytest.fixture
def store(database: Any) -> Iterator[Store]:
    made = Store(database)
    yield made
    made.close()


def kept(store: Store) -> list[tuple[str, bytes]]:
    """Kind and bytes of what is in rejected_records."""
    return [(row[0], row[1]) for row in store.run("SELECT kind, raw FROM rejected_records ORDER BY raw")]


def payload_of(store: Store, record_id: str = "a") -> Any:
    [[payload]] = store.run(f"SELECT payload FROM records WHERE id = '{record_id}'")
    return payload


# Pairs of JSON texts; the second part says whether Postgres writes them alike.
TEXTS = {
    "order of keys and spaces": ('{"a":1,"b":[1,2]}', '{ "b" : [1, 2], "a" : 1 }', True),
    "an escape": ('{"a":"é"}', '{"a":"\\u00e9"}', True),
    "a key that comes twice": ('{"a":1,"a":2}', '{"a":2}', True),
    "an exponent": ('{"a":1e3}', '{"a":1000}', True),
    "a digit behind the 17th": ('{"a":12345678901234567.1}', '{"a":12345678901234567.2}', False),
    "a scale": ('{"a":1.0}', '{"a":1}', False),
    "number and text": ('{"a":1}', '{"a":"1"}', False),
    "order of a list": ('{"a":[1,2]}', '{"a":[2,1]}', False),
    "null and nothing": ('{"a":null}', "{}", False),
}


def raw_message(payload: str, record_id: str = "a") -> bytes:
    return f'{{"id":"{record_id}","partition_key":"p","payload":{payload}}}'.encode()


def arrive_raw(payload: str, record_id: str = "a") -> Arrived:
    arrived = decode(stream_record(raw_message(payload, record_id)))
    assert isinstance(arrived, Arrived)
    return arrived


@pytest.mark.parametrize("way", ["first", "again", "suspect", "no record any more"])
def test_what_is_the_same_is_decided_by_postgres(store: Store, way: str) -> None:
    for name, (one, other, same) in TEXTS.items():
        store.run("TRUNCATE records, rejected_records")
        store.sink.store([arrive_raw(one)])
        later = arrive_raw(other)
        broken = Rejection(digest(later.raw), "too strict", later.raw, "s", "1", 1.0, record_id="a")
        for attempt in (1, 2):
            match way:
                case "first":
                    stored = store.sink.store([later])
                    assert ("a" in stored.duplicates, "a" in stored.taken) == (same, not same), name
                case "again":
                    stored = store.sink.store([], [], [later])
                case "suspect":
                    stored = store.sink.store([], [], [], [later])
                case _:
                    stored = store.sink.store([], [broken])
            assert not stored.processed
            assert stored.conflicts.keys() == (set() if same else {digest(later.raw)}), name
            assert stored.rejected == (frozenset() if same or attempt == 2 else {digest(later.raw)})
            assert kept(store) == ([] if same else [("conflict", later.raw)])
            assert len(store.ids()) == 1


def test_the_reason_says_what_it_conflicts_with(store: Store) -> None:
    store.sink.store([arrive("a", {"n": 1}, FIRST), arrive("b", {"n": 1})])
    store.sink.store([arrive("a", {"n": 2}), arrive("b", {"n": 2})])
    reasons = dict(store.run("SELECT record_id, reason FROM rejected_records"))
    assert "upload u, chunk 0, line 1" in reasons["a"]
    assert reasons["b"].startswith("its id is that of a record with other content (stored at 20")
    assert "upload" not in reasons["b"]


def test_three_contents_under_one_id_in_one_batch_are_one_row_and_two_conflicts(store: Store) -> None:
    one, two, three = (arrive("a", {"n": number}) for number in (1, 2, 3))
    stored = store.sink.store([one], [], [two, three, two])
    assert stored.processed == {"a"}
    assert stored.rejected == stored.conflicts.keys() == {digest(two.raw), digest(three.raw)}
    assert kept(store) == [("conflict", two.raw), ("conflict", three.raw)]
    assert payload_of(store) == {"n": 1}


def test_what_conflicted_is_an_ordinary_row_once_the_other_one_is_gone(store: Store) -> None:
    store.sink.store([arrive("a", {"n": 1})])
    store.sink.store([arrive("a", {"n": 2})])
    store.run("DELETE FROM records")
    assert store.sink.store([arrive("a", {"n": 2})]).processed == {"a"}
    assert kept(store) == []


def test_a_suspect_whose_row_is_gone_is_kept_and_never_inserted(store: Store) -> None:
    suspect = arrive("a", {"n": 2})
    for _ in range(2):
        stored = store.sink.store([], [], [], [suspect])
        assert stored.conflicts.keys() == {digest(suspect.raw)}
        assert store.run("SELECT kind, reason FROM rejected_records") == [["conflict", FORGOTTEN]]
        assert store.ids() == set()


def test_other_deliveries_of_a_record_that_is_not_there_say_nothing(store: Store) -> None:
    assert store.sink.store([], [], [arrive("a", {"n": 2}), arrive("a", None, FIRST)]) == Stored()
    assert kept(store) == []


def test_a_payload_that_jsonb_cannot_hold_is_other_content_than_any_row(store: Store) -> None:
    store.sink.store([arrive("a", {"n": 1}), arrive("b", {"n": 1})])
    huge = '{"n":1' + "0" * 200_000 + "}"
    bad, same = arrive_raw(huge), arrive("b", {"n": 1})
    for at, stored in enumerate(
        [
            store.sink.store([bad, same]),
            store.sink.store([], [], [same, bad, same]),
            store.sink.store([], [], [], [same, bad, same]),
        ]
    ):
        assert stored.conflicts.keys() == {digest(bad.raw)}
        assert (stored.rejected == frozenset()) is (at > 0)
        assert not stored.refused | stored.taken if at else stored.duplicates == {"b"}
    assert kept(store) == [("conflict", bad.raw)]


# --- a type that has become stricter: the message is no record any more


def stricter(record_id: str, payload: Any, upload: tuple[str, int, int] | None = None) -> Rejection:
    """A record that the type of today refuses."""
    data = message(record_id, payload, upload)
    arrived = arrive(record_id, payload, upload)
    return Rejection(digest(data), "n: wrong", data, "s", "1", 1.0, record_id, arrived.record.upload)


def test_a_stored_record_that_comes_again_to_a_stricter_type_is_one_row_and_no_rejection(
    store: Store,
) -> None:
    store.sink.store([arrive("a", {"n": 1})])
    for _ in range(2):
        assert store.sink.store([], [stricter("a", {"n": 1}), stricter("b", {"n": 1})]).conflicts == {}
        assert (store.ids(), kept(store)) == ({"a"}, [("rejected", message("b", {"n": 1}))])


def test_other_content_that_a_stricter_type_refuses_is_a_conflict_with_both_reasons(store: Store) -> None:
    store.sink.store([arrive("a", {"n": 1})])
    store.sink.store([], [stricter("a", {"n": 2})])
    [[kind, reason]] = store.run("SELECT kind, reason FROM rejected_records")
    assert kind == "conflict"
    assert reason.startswith("its id is that of a record with other content")
    assert reason.endswith("And by itself: n: wrong")


def test_a_message_that_cannot_be_read_is_other_content_than_any_row(store: Store) -> None:
    store.sink.store([arrive("a", {"n": 1}), arrive("b", {"n": 1})])
    unreadable = [
        b'{"id":"a","payload":"\\u0000"}',
        b'{"id":"a"}',
        b'{"id":"a","payload":{"n":1}} x',
        b'{"id":"a\xff"}',
        message("aa", {"n": 1}),  # its id was cut off to be that of a row
    ]
    broken = [Rejection(digest(data), "why", data, "s", "1", 1.0, record_id="a") for data in unreadable]
    for _ in range(2):
        store.sink.store([], [*broken, stricter("b", {"n": 1})])
        assert kept(store) == [("conflict", data) for data in sorted(unreadable)]


def test_a_line_that_repeats_a_row_is_a_repeat_though_the_type_refuses_it_today(store: Store) -> None:
    store.sink.store([arrive("a", {"n": 1}, FIRST)])
    for _ in range(2):
        store.sink.store([], [stricter("a", {"n": 1}, FIRST), stricter("a", {"n": 1}, SECOND)])
        assert (store.lines("repeated_records"), kept(store)) == ([SECOND], [])


def test_a_record_that_is_in_both_tables_is_healed_when_it_comes_again(store: Store) -> None:
    """What releases before this one left behind, and what two versions at once can."""
    data = message("a", {"n": 1})
    for again in ([arrive("a", {"n": 1})], [stricter("a", {"n": 1})]):
        store.run("TRUNCATE records, rejected_records")
        store.sink.store([], [stricter("a", {"n": 1})])
        store.run("INSERT INTO records VALUES ('a', 'p', '{\"n\": 1}', NULL, NULL, NULL, 's', '1', now())")
        assert kept(store) == [("rejected", data)]
        if isinstance(again[0], Rejection):
            store.sink.store([], again)
        else:
            store.sink.store(again)
        assert (store.ids(), kept(store)) == ({"a"}, [])


# --- a duplicate is verified: what was not inserted has to be there


SWALLOW = """
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.payload ? 'swallow' THEN RETURN NULL; END IF; RETURN NEW;
END $$;
CREATE TRIGGER swallow BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION swallow()
"""


@pytest.mark.parametrize("searching", [False, True], ids=["one statement", "searching"])
def test_what_a_trigger_takes_without_a_word_is_rejected_and_never_a_duplicate(
    store: Store, searching: bool
) -> None:
    store.run(SWALLOW)
    if searching:
        store.run("ALTER TABLE records ADD CHECK (NOT payload ? 'refuse')")
    batch = [arrive("a"), arrive("b", {"swallow": 1}), arrive("c")]
    bad = arrive("d", {"refuse": 1})
    for attempt in (1, 2):
        stored = store.sink.store([*batch, bad] if searching else batch)
        assert store.ids() == {"a", "c"}
        assert stored.duplicates == (frozenset() if attempt == 1 else {"a", "c"})
        assert stored.refused.keys() == ({"b", "d"} if searching else {"b"})
        assert stored.refused["b"].reason == SWALLOWED
        assert ("rejected", batch[1].raw) in kept(store)
        assert len(kept(store)) == len(stored.refused)
    store.run("DROP TRIGGER swallow ON records")
    assert store.sink.store(batch).processed == {"b"}


def test_what_was_neither_inserted_nor_seen_is_looked_for_once_more(store: Store) -> None:
    """As where another session deletes the row between the insert, which finds it, and the look."""
    store.sink.store([arrive("a")])
    store.run(
        "CREATE SEQUENCE looks; GRANT USAGE ON SEQUENCE looks TO PUBLIC;"
        "ALTER TABLE records RENAME TO kept;"
        "CREATE VIEW records AS SELECT * FROM kept WHERE nextval('looks') > 1"
    )
    assert store.sink.store([arrive("a")]).duplicates == {"a"}
    assert store.run("SELECT last_value FROM looks") == [[2]]
    assert kept(store) == []


# --- databases that earlier releases left behind


def test_the_migration_heals_records_that_are_in_both_tables(empty_database: Any) -> None:
    from postgres.migrate import migrate, migrations

    connection = empty_database.connect()
    for migration in migrations()[:4]:
        connection.run(migration.text)
    row = "INSERT INTO records VALUES (:id, 'p', :payload, :upload, :chunk, :line, 's', '1', now())"
    bad = (
        "INSERT INTO rejected_records (id, reason, raw, record_id, upload_id, upload_chunk, upload_line,"
        " shard_id, sequence_number, arrived_at)"
        " VALUES (:id, 'r', :raw, :record, :upload, :chunk, :line, 's', '1', now())"
    )
    nowhere: dict[str, Any] = {"upload": None, "chunk": None, "line": None}
    here, there = (dict(zip(("upload", "chunk", "line"), place, strict=True)) for place in (FIRST, SECOND))
    for record_id, place in (("a", nowhere), ("b", nowhere), ("c", nowhere), ("l", here)):
        connection.run(row, id=record_id, payload='{"n": 1}', **place)
    rejected: list[tuple[bytes, str | None, dict[str, Any]]] = [
        (message("a", {"n": 1}), "a", nowhere),
        (message("b", {"n": 2}), "b", nowhere),
        (b"\xff\x00", "c", nowhere),
        (message("free", {"n": 1}), "free", nowhere),
        (message("l", {"n": 1}, SECOND), "l", there),
        (b"nameless", None, nowhere),
    ]
    for raw, record_id, place in rejected:
        connection.run(bad, id=digest(raw), raw=raw, record=record_id, **place)
    connection.run(
        "CREATE TABLE schema_migrations (version text PRIMARY KEY, applied_at timestamptz DEFAULT now());"
        "INSERT INTO schema_migrations SELECT '000' || n FROM generate_series(1, 4) AS n"
    )
    migrate(connection)
    found = connection.run("SELECT record_id, kind FROM rejected_records ORDER BY record_id")
    assert found == [["b", "conflict"], ["c", "conflict"], ["free", "rejected"], [None, "rejected"]]
    assert connection.run("SELECT upload_chunk, upload_line FROM repeated_records") == [[1, 5]]
    connection.close()


def test_the_release_before_goes_on_writing_after_the_migration(store: Store) -> None:
    rows = json.dumps([{"id": "x", "reason": "r", "raw": "eA==", "shard_id": "s", "sequence_number": "1"}])
    store.run(
        "INSERT INTO rejected_records (id, reason, raw, record_id, upload_id, upload_chunk, upload_line,"
        " shard_id, sequence_number, arrived_at)"
        " SELECT id, reason, decode(raw, 'base64'), NULL, NULL, NULL, NULL, shard_id, sequence_number, now()"
        f" FROM jsonb_to_recordset('{rows}') AS r"
        " (id text, reason text, raw text, shard_id text, sequence_number text)"
        " ON CONFLICT (id) DO UPDATE SET redriven_at = NULL, reason = excluded.reason"
    )
    assert store.kinds() == ["rejected"]
