"""PostgresSink on a real Postgres: what is stored, what is rejected, what is retried."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import permutations
from threading import Thread
from typing import Any

import pytest
from pg8000.native import Connection

from common.errors import TransientError
from consumer.decode import Arrived, Rejection, decode
from consumer.sink import CHANCE_ATTEMPTS, PostgresSink
from oncestream.engine import Stored
from postgres.database import ConnectionLostError, Database
from records.record import LineFault, Origin, RejectedLine
from tests.unit.consumer_support import POISON, message, stream_record


def arrive(record_id: str, payload: Any = None, upload: tuple[str, int, int] | None = None) -> Arrived:
    arrived = decode(stream_record(message(record_id, payload, upload)))
    assert isinstance(arrived, Arrived)
    return arrived


def reject(data: bytes) -> Rejection:
    rejection = decode(stream_record(data))
    assert isinstance(rejection, Rejection)
    return rejection


class Store:
    """A sink on a fresh database, and a second connection to look at it and to meddle."""

    def __init__(self, settings: Any) -> None:
        self.settings = settings
        self.database = Database(settings)
        self.sink = PostgresSink(self.database)
        self.admin: Connection = settings.connect()

    def run(self, sql: str) -> list[list[Any]]:
        rows: list[list[Any]] = self.admin.run(sql)
        return rows

    def ids(self) -> set[str]:
        return {row[0] for row in self.run("SELECT id FROM records")}

    def rejected(self) -> dict[bytes, str]:
        """Reasons by raw bytes."""
        rows = self.run("SELECT raw, reason FROM rejected_records")
        assert len({row[0] for row in rows}) == len(rows)
        return {row[0]: row[1] for row in rows}

    def kinds(self) -> list[str]:
        return [row[0] for row in self.run("SELECT kind FROM rejected_records ORDER BY id")]

    def lines(self, table: str) -> list[tuple[str, int, int]]:
        return sorted(
            (row[0], row[1], row[2])
            for row in self.run(
                f"SELECT upload_id, upload_chunk, upload_line FROM {table} WHERE upload_id IS NOT NULL"
            )
        )

    def close(self) -> None:
        self.database.close()
        self.admin.close()


@pytest.fixture
def store(database: Any) -> Iterator[Store]:
    made = Store(database)
    yield made
    made.close()


def test_a_record_is_stored_with_its_origin(store: Store) -> None:
    arrived = arrive("a", {"text": "é\u2028\x1f\\ \"'", "n": [1, None, 1.5]}, ("u", 2, 3))
    stored = store.sink.store([arrived, arrive("b")])
    assert stored == Stored(processed=frozenset({"a", "b"}))
    [row] = store.run(
        "SELECT partition_key, payload, upload_id, upload_chunk, upload_line, shard_id, sequence_number,"
        " extract(epoch FROM arrived_at)::float8, loaded_at > arrived_at FROM records WHERE id = 'a'"
    )
    assert row == [
        *("p", {"text": "é\u2028\x1f\\ \"'", "n": [1, None, 1.5]}, "u", 2, 3),
        *("shardId-000000000006", "1", 1545084650.987, True),
    ]
    assert store.run("SELECT upload_id, upload_chunk, upload_line FROM records WHERE id = 'b'") == [
        [None] * 3
    ]


def test_a_batch_stored_again_changes_nothing(store: Store) -> None:
    arrived = [arrive(str(number)) for number in range(100)]
    rejections = [reject(data) for data, _ in POISON.values()]
    ids = frozenset(each.record.id for each in arrived)
    assert store.sink.store(arrived, rejections) == Stored(
        processed=ids, rejected=frozenset(each.id for each in rejections)
    )
    before = store.run("SELECT * FROM records ORDER BY id"), store.run("SELECT * FROM rejected_records")
    assert store.sink.store(arrived, rejections) == Stored(duplicates=ids)
    assert before == (
        store.run("SELECT * FROM records ORDER BY id"),
        store.run("SELECT * FROM rejected_records"),
    )


def test_a_rejection_keeps_reason_raw_bytes_and_origin(store: Store) -> None:
    upload = Origin(id="u", chunk=1, line=2)
    fault = LineFault(reason="no field\x00 'order_id'", raw=bytes(range(256)))
    line = RejectedLine(id="u:99", partition_key="u", rejected=fault, upload=upload)
    store.sink.store([], [reject(line.to_bytes()), reject(b'{"id":"x\\u0000y"}'), reject(b"")])
    rows = store.run(
        "SELECT id, reason, raw, record_id, upload_id, upload_chunk, upload_line, shard_id, sequence_number"
        " FROM rejected_records ORDER BY id = 'u:99' DESC, raw DESC"
    )
    stream = ["shardId-000000000006", "1"]
    assert rows[0] == ["u:99", "no field\\u0000 'order_id'", fault.raw, None, "u", 1, 2, *stream]
    assert rows[1][2:] == [b'{"id":"x\\u0000y"}', "x\\u0000y", None, None, None, *stream]
    assert rows[2][:4] == [hashlib.sha256(b"").hexdigest(), "empty body", b"", None]


# Rules that Postgres checks, and a payload that breaks each. What an owner of the tables may add.
REFUSALS = {
    "check": ("ALTER TABLE records ADD CHECK (payload->>'n' <> 'bad')", {"n": "bad"}, "23514"),
    "unique index": (
        """
        CREATE UNIQUE INDEX ON records ((payload->>'n')) WHERE payload->>'n' = 'twin';
        INSERT INTO records VALUES ('twin', 'p', '{"n": "twin"}', NULL, NULL, NULL, 's', '0', now())
        """,
        {"n": "twin"},
        "23505",
    ),
    "number too large": (
        "CREATE INDEX ON records (((payload->>'n')::integer)) WHERE payload->>'n' LIKE '1%'",
        {"n": "1" + "0" * 200},
        "22003",
    ),
    "not a number": (
        "CREATE INDEX ON records (((payload->>'n')::integer)) WHERE payload->>'n' LIKE 'x%'",
        {"n": "x"},
        "22P02",
    ),
    "too long for an index": (
        "CREATE INDEX ON records ((payload->>'n'))",
        {"n": hashlib.shake_256(b"random").hexdigest(8_000)},
        "54000",
    ),
    "trigger with a verdict": (
        """
        CREATE FUNCTION judge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF NEW.payload->>'n' = 'bad' THEN RAISE 'no' USING ERRCODE = 'check_violation'; END IF;
            RETURN NEW;
        END $$;
        CREATE TRIGGER judge BEFORE INSERT ON records FOR EACH ROW EXECUTE FUNCTION judge()
        """,
        {"n": "bad"},
        "23514",
    ),
    "deferred constraint": (
        """
        CREATE TABLE carriers (code text PRIMARY KEY);
        ALTER TABLE records ADD carrier text GENERATED ALWAYS AS (payload->>'carrier') STORED
            REFERENCES carriers DEFERRABLE INITIALLY DEFERRED
        """,
        {"carrier": "none"},
        "23503",
    ),
}


@pytest.mark.parametrize(("rule", "payload", "state"), REFUSALS.values(), ids=REFUSALS)
def test_what_postgres_refuses_is_rejected_with_its_message_and_the_rest_lands(
    store: Store, rule: str, payload: Any, state: str
) -> None:
    store.run(rule)
    for places in ({0}, {6}, {0, 3, 4}, set(range(7))):
        before = store.ids()
        store.run("TRUNCATE rejected_records")
        arrived = [arrive(f"{places}-{at}", payload if at in places else None) for at in range(7)]
        good = {each.record.id for at, each in enumerate(arrived) if at not in places}
        stored = store.sink.store(arrived, [reject(b"poison")])
        assert store.ids() - before == stored.processed == good
        assert stored.refused.keys() == {arrived[at].record.id for at in places}
        assert not stored.duplicates | stored.unsettled
        reasons = store.rejected()
        assert reasons.keys() == {arrived[at].raw for at in places} | {b"poison"}
        assert stored.rejected == {hashlib.sha256(raw).hexdigest() for raw in reasons}
        for rejection in stored.refused.values():
            assert rejection.reason.startswith("Postgres: ")
            assert rejection.reason.endswith(f"(SQLSTATE {state})")

        again = store.sink.store(arrived, [reject(b"poison")])
        assert again.duplicates == good
        assert not again.processed | again.rejected
        assert store.rejected() == reasons


def test_a_row_stays_a_row_when_a_later_rule_would_refuse_it(store: Store) -> None:
    arrived = [arrive("a", {"n": "bad"}), arrive("b", {"n": "bad"})]
    store.sink.store(arrived[:1])
    store.run("ALTER TABLE records ADD CHECK (payload->>'n' <> 'bad') NOT VALID")
    stored = store.sink.store(arrived)
    assert stored.duplicates == {"a"}
    assert stored.refused.keys() == {"b"}
    assert store.rejected().keys() == {arrived[1].raw}


def test_what_there_is_no_time_to_search_stays_unsettled_and_the_rest_is_committed(store: Store) -> None:
    store.run("ALTER TABLE records ADD CHECK (payload->>'n' <> 'bad')")
    arrived = [arrive(str(at), {"n": "bad" if at in {1, 5} else "good"}) for at in range(8)]
    # Read once for the deadline, then before each piece: all, 0-3, 0-1, 0, 1, and too late for 2-3 and 4-7.
    clock = iter([0.0] * 6)
    sink = PostgresSink(store.database, lambda: next(clock, 1e9))
    stored = sink.store(arrived, [reject(b"poison")])
    assert store.ids() == stored.processed == {"0"}
    assert stored.refused.keys() == {"1"}
    assert stored.unsettled == {"2", "3", "4", "5", "6", "7"}
    assert store.rejected().keys() == {arrived[1].raw, b"poison"}


TRIGGER = (
    "CREATE SEQUENCE attempts; GRANT USAGE ON SEQUENCE attempts TO PUBLIC;"
    "CREATE FUNCTION stumble() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " IF nextval('attempts') <= {times} THEN {action}; END IF; RETURN NEW; END $$;"
    "CREATE {kind} stumble {when} INSERT ON records {defer} FOR EACH ROW EXECUTE FUNCTION stumble()"
)


def trigger(action: str, times: int = 1, *, at_commit: bool = False) -> str:
    """SQL for a trigger that does ``action`` at the first ``times`` rows. A sequence survives a rollback."""
    return TRIGGER.format(
        action=action,
        times=times,
        kind="CONSTRAINT TRIGGER" if at_commit else "TRIGGER",
        when="AFTER" if at_commit else "BEFORE",
        defer="DEFERRABLE INITIALLY DEFERRED" if at_commit else "",
    )


@pytest.mark.parametrize("state", ["40001", "40P01"])
@pytest.mark.parametrize("at_commit", [False, True], ids=["in a statement", "at COMMIT"])
def test_what_is_chance_is_tried_again_at_once(store: Store, state: str, at_commit: bool) -> None:
    store.run(trigger(f"RAISE 'chance' USING ERRCODE = '{state}'", CHANCE_ATTEMPTS - 1, at_commit=at_commit))
    assert store.sink.store([arrive("a")], [reject(b"poison")]).processed == {"a"}
    assert store.rejected().keys() == {b"poison"}


def test_chance_does_not_go_on_for_ever(store: Store) -> None:
    store.run(trigger("RAISE 'chance' USING ERRCODE = '40001'", CHANCE_ATTEMPTS))
    with pytest.raises(TransientError, match="40001"):
        store.sink.store([arrive("a")])
    assert store.sink.store([arrive("a")]).processed == {"a"}


def rename(store: Store, table: str) -> Callable[[], Any]:
    store.run(f"ALTER TABLE {table} RENAME TO hidden")
    return lambda: store.run(f"ALTER TABLE hidden RENAME TO {table}")


def make_read_only(store: Store) -> Callable[[], Any]:
    # As after a failover: sessions that are open stay on the server that only reads.
    store.database.connect().run("SET default_transaction_read_only = on")
    return lambda: None


def unknown_verdict(store: Store) -> Callable[[], Any]:
    store.run(trigger("RAISE EXCEPTION 'maintenance'", 1))
    return lambda: None


def constraint_on_rejections(store: Store) -> Callable[[], Any]:
    store.run("ALTER TABLE rejected_records ADD CONSTRAINT mistake CHECK (reason = 'x')")
    return lambda: store.run("ALTER TABLE rejected_records DROP CONSTRAINT mistake")


WORLD: dict[str, tuple[Callable[[Store], Callable[[], Any]], str]] = {
    "no table": (lambda store: rename(store, "records"), "42P01"),
    "no table of rejected records": (lambda store: rename(store, "rejected_records"), "42P01"),
    "a server that only reads": (make_read_only, "25006"),
    "a trigger that does not say why": (unknown_verdict, "P0001"),
    "a constraint on rejected records": (constraint_on_rejections, "23514"),
    "out of space": (
        lambda store: (store.run(trigger("RAISE 'x' USING ERRCODE = '53100'")), lambda: None)[1],
        "53100",
    ),
}


@pytest.mark.parametrize(("breaks", "state"), WORLD.values(), ids=WORLD)
def test_what_is_the_worlds_fault_rejects_nothing_and_passes(
    store: Store, breaks: Callable[[Store], Callable[[], Any]], state: str
) -> None:
    mend = breaks(store)
    batch = [arrive("a"), arrive("b")], [reject(b"poison")]
    with pytest.raises(TransientError, match=state):
        store.sink.store(*batch)
    mend()
    assert store.ids() == set()
    assert store.rejected() == {}
    assert store.sink.store(*batch).processed == {"a", "b"}
    assert store.rejected().keys() == {b"poison"}


def test_a_statement_that_takes_too_long_is_ended(store: Store) -> None:
    store.run("BEGIN; LOCK TABLE records")
    with pytest.raises(TransientError, match="57014"):
        store.sink.store([arrive("a")], seconds=0.1)
    store.run("COMMIT")
    assert store.sink.store([arrive("a")]).processed == {"a"}


KILL = "PERFORM pg_terminate_backend(pg_backend_pid())"


@pytest.mark.parametrize("at_commit", [False, True], ids=["in a statement", "at COMMIT"])
def test_a_connection_that_breaks_rejects_nothing_and_is_replaced(store: Store, at_commit: bool) -> None:
    store.run(trigger(KILL, at_commit=at_commit))
    batch = [arrive("a"), arrive("b")], [reject(b"poison")]
    with pytest.raises(ConnectionLostError) as raised:
        store.sink.store(*batch)
    assert raised.value.committing is at_commit
    assert (store.ids(), store.rejected()) == (set(), {})
    assert store.sink.store(*batch).processed == {"a", "b"}


def test_a_commit_whose_answer_is_lost_is_found_by_the_retry(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Connection.run

    def lose_answer(connection: Any, sql: str, **parameters: Any) -> Any:
        answer = run(connection, sql, **parameters)
        if sql == "COMMIT":
            raise ConnectionResetError("answer lost")
        return answer

    batch = [arrive("a")], [reject(b"poison")]
    with monkeypatch.context() as patch:
        patch.setattr(Connection, "run", lose_answer)
        with pytest.raises(ConnectionLostError, match="unknown") as raised:
            store.sink.store(*batch)
    assert raised.value.committing
    assert store.sink.store(*batch) == Stored(duplicates=frozenset({"a"}))
    assert store.ids() == {"a"}
    assert store.rejected().keys() == {b"poison"}


def test_a_connection_that_was_ended_while_idle_is_replaced_unnoticed(store: Store) -> None:
    store.sink.store([arrive("a")])
    store.run(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    assert store.sink.store([arrive("b")]).processed == {"b"}


# Before the row "middle-..." is inserted, whoever inserts it waits until the test lets go of the lock.
HALF_WAY = (
    "CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
    " PERFORM pg_advisory_xact_lock_shared(1); RETURN NEW; END $$;"
    "CREATE TRIGGER wait BEFORE INSERT ON records FOR EACH ROW WHEN (NEW.id LIKE 'middle-%')"
    " EXECUTE FUNCTION wait()"
)


def test_two_batches_with_equal_keys_in_different_order_wait_for_each_other_and_do_not_deadlock(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("consumer.sink.CHANCE_ATTEMPTS", 1)  # a deadlock is an error at once
    other = Store(store.settings)
    store.run(HALF_WAY)
    store.run("SELECT pg_advisory_lock(1)")
    results: dict[str, Stored | TransientError] = {}

    def deliver(sink: PostgresSink, *ids: str) -> None:
        try:
            results[ids[0]] = sink.store([arrive(each) for each in ids])
        except TransientError as error:
            results[ids[0]] = error

    threads = [
        Thread(target=deliver, args=(store.sink, "a", "middle-1", "z")),
        Thread(target=deliver, args=(other.sink, "z", "middle-2", "a")),
    ]
    for waiting, thread in enumerate(threads, 1):
        thread.start()
        while len(store.run("SELECT FROM pg_locks WHERE NOT granted")) < waiting:
            assert thread.is_alive()
    store.run("SELECT pg_advisory_unlock(1)")
    for thread in threads:
        thread.join()
    other.close()
    assert results == {
        "a": Stored(processed=frozenset({"a", "middle-1", "z"})),
        "z": Stored(processed=frozenset({"middle-2"}), duplicates=frozenset({"a", "z"})),
    }


def test_one_connection_serves_all_batches(store: Store) -> None:
    for number in range(3):
        store.sink.store([arrive(str(number))])
    sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'oncestream'"
    assert store.run(f"{sessions} AND datname = current_database()") == [[1]]


FIRST, SECOND = ("u", 0, 1), ("u", 1, 5)


def settle_lines(store: Store) -> dict[str, list[tuple[str, int, int]]]:
    return {
        table: lines
        for table in ("records", "rejected_records", "repeated_records")
        if (lines := store.lines(table))
    }


def test_a_second_line_with_the_id_of_a_row_is_a_repeat_and_the_first_is_not(store: Store) -> None:
    one, two = arrive("order-1", {"n": 1}, FIRST), arrive("order-1", {"n": 1}, SECOND)
    store.sink.store([one])
    for _ in range(2):
        store.sink.store([two])
        store.sink.store([one])
        store.sink.store([], [], [two, one, two])
    assert settle_lines(store) == {"records": [FIRST], "repeated_records": [SECOND]}
    assert store.run("SELECT record_id, shard_id, sequence_number FROM repeated_records") == [
        ["order-1", "shardId-000000000006", "1"]
    ]


def test_a_line_that_repeats_a_record_without_a_file_or_of_another_file_is_a_repeat(store: Store) -> None:
    store.sink.store([arrive("order-1"), arrive("order-2", None, ("other", 0, 1))])
    store.sink.store([arrive("order-1", None, FIRST), arrive("order-2", None, SECOND)])
    assert store.lines("repeated_records") == [FIRST, SECOND]


def test_lines_of_one_batch_with_one_id_are_one_row_and_repeats(store: Store) -> None:
    lines = [("u", 0, number) for number in range(1, 5)]
    first, *others = [arrive("order-1", None, line) for line in lines]
    store.sink.store([first], [], others)
    assert settle_lines(store) == {"records": lines[:1], "repeated_records": lines[1:]}


def test_a_line_whose_id_comes_from_its_place_is_no_repeat_wherever_it_is_said_to_be(store: Store) -> None:
    store.sink.store([arrive("u:0", None, ("u", 0, 1))])
    store.sink.store([arrive("u:0", None, ("u", 7, 7))])
    assert store.lines("repeated_records") == []


def test_three_lines_with_one_id_of_which_one_is_refused_are_settled_once_each_in_every_order(
    store: Store,
) -> None:
    store.run("ALTER TABLE records ADD CHECK (payload->>'n' <> 'bad')")
    names = ("bad", "good", "other")
    for number, order in enumerate(
        (*one, *again) for one in permutations(names) for again in permutations(names)
    ):
        upload = f"upload-{number}"
        places = {name: (upload, 0, line) for line, name in enumerate(names, 1)}
        for name in order:
            store.sink.store([arrive(f"order-{number}", {"n": name}, places[name])])
        settled = {
            table: [line for line in lines if line[0] == upload]
            for table, lines in settle_lines(store).items()
        }
        assert sorted(line for lines in settled.values() for line in lines) == sorted(places.values()), order
        row = order[1] if order[0] == "bad" else order[0]
        assert settled["records"] == [places[row]]
        kinds = store.run(
            f"SELECT upload_line, kind FROM rejected_records WHERE upload_id = '{upload}' ORDER BY 1"
        )
        assert kinds == [
            [places[name][2], "rejected" if name == order[0] else "conflict"] for name in names if name != row
        ], order


def test_a_line_that_a_stricter_type_rejects_later_stays_what_it_was(store: Store) -> None:
    one, two = arrive("order-1", None, FIRST), arrive("order-1", None, SECOND)
    store.sink.store([one], [], [two])
    now_bad = [
        json.dumps(
            {"id": "order-1", "payload": 5, "upload": dict(zip(("id", "chunk", "line"), line, strict=True))}
        ).encode()
        for line in (FIRST, SECOND, ("u", 9, 9))
    ]
    store.sink.store([], [reject(data) for data in now_bad])
    assert settle_lines(store) == {
        "records": [FIRST],
        "rejected_records": [("u", 9, 9)],
        "repeated_records": [SECOND],
    }


def insert_of(payload: str) -> str:
    return f"INSERT INTO records VALUES ('order-1', 'p', '{payload}', 'u', 0, 1, 's', '1', now())"


@pytest.mark.parametrize("payload", ['{"of":"order-1"}', '{"of":"order-2"}'], ids=["same", "other content"])
@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_two_lines_with_one_id_at_the_same_time_are_one_row_and_one_repeat_or_conflict_at_most(
    store: Store, end: str, payload: str
) -> None:
    other = Store(store.settings)
    other.run(f"BEGIN; {insert_of(payload)}")
    results: list[Stored] = []
    waiting = Thread(target=lambda: results.append(store.sink.store([arrive("order-1", None, SECOND)])))
    waiting.start()
    blocked = "SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
    while not store.run(blocked):
        assert waiting.is_alive()
    other.run(end)
    waiting.join()
    other.close()
    if end == "COMMIT" and payload == '{"of":"order-1"}':
        assert results[0].duplicates == {"order-1"}
        assert settle_lines(store) == {"records": [FIRST], "repeated_records": [SECOND]}
    elif end == "COMMIT":
        assert results[0].taken.keys() == {"order-1"}
        assert settle_lines(store) == {"records": [FIRST], "rejected_records": [SECOND]}
        assert store.kinds() == ["conflict"]
    else:
        assert results[0].processed == {"order-1"}
        assert settle_lines(store) == {"records": [SECOND]}
