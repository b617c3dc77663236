"""Ids are compared byte by byte: fresh tables at once, filled ones by indexes that nobody has to wait for."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

import local.postgres
from common.errors import TransientError
from common.settings import DatabaseSettings
from consumer.sink import PostgresSink
from local.postgres import Postgres
from postgres.database import Database
from postgres.migrate import ANSWER_MILLISECONDS, MigrationError, handler, migrate, migrations
from tests.integration.test_consumer_sink import Store, arrive
from tests.unit.consumer_support import Context

BEFORE = 4
"""The migrations of the release before."""
INDEXES = ["records_id_bytes", "rejected_records_id_bytes", "repeated_records_line_bytes"]
BUILDING = (
    "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    " AND query LIKE 'CREATE UNIQUE INDEX%'"
)
MILLION = 1_000_000


def old_release(connection: Connection, rows: int = 100) -> None:
    """A database of the release before, with rows in each table."""
    for migration in migrations()[:BEFORE]:
        connection.run(migration.text)
    connection.run(
        "CREATE TABLE schema_migrations (version text PRIMARY KEY, applied_at timestamptz DEFAULT now());"
        f"INSERT INTO schema_migrations SELECT '000' || n FROM generate_series(1, {BEFORE}) AS n;"
        "INSERT INTO records (id, partition_key, payload, shard_id, sequence_number, arrived_at)"
        " SELECT CASE WHEN n % 2 = 0 THEN 'a' ELSE 'B' END || n, 'p',"
        " jsonb_build_object('of', CASE WHEN n % 2 = 0 THEN 'a' ELSE 'B' END || n), 's', '1', now()"
        f" FROM generate_series(1, {rows}) AS n;"
        "INSERT INTO rejected_records (id, reason, raw, shard_id, sequence_number, arrived_at)"
        " VALUES ('x', 'r', 'x', 's', '1', now());"
        "INSERT INTO repeated_records (upload_id, upload_chunk, upload_line, record_id,"
        " shard_id, sequence_number, arrived_at) VALUES ('u', 0, 1, 'a2', 's', '1', now())"
    )


def ids(*numbers: int) -> list[str]:
    return [("B" if number % 2 else "a") + str(number) for number in numbers]


def collations(connection: Connection) -> dict[str, str]:
    """Of every column that is an id, as table.column."""
    return dict(
        connection.run(
            "SELECT attrelid::regclass || '.' || attname, collname FROM pg_attribute"
            " JOIN pg_collation ON pg_collation.oid = attcollation"
            " WHERE attrelid::regclass::text IN ('records', 'rejected_records', 'repeated_records')"
            " AND attname IN ('id', 'record_id', 'upload_id')"
        )
    )


def valid(connection: Connection) -> dict[str, bool]:
    """Our indexes, and whether each is valid."""
    return dict(
        connection.run(
            "SELECT indexrelid::regclass::text, indisvalid FROM pg_index"
            " WHERE indexrelid::regclass::text LIKE '%\\_bytes' ORDER BY 1"
        )
    )


@pytest.fixture
def connection(empty_database: Any) -> Iterator[Connection]:
    opened = empty_database.connect()
    yield opened
    opened.close()


def test_in_a_fresh_database_every_id_compares_by_its_bytes_and_no_index_is_added(
    connection: Connection,
) -> None:
    migrate(connection)
    found = collations(connection)
    assert len(found) == 7
    assert set(found.values()) == {"C"}
    assert valid(connection) == {}
    assert connection.run(
        "SELECT convalidated FROM pg_constraint WHERE conname = 'rejected_records_kind'"
    ) == [[True]]


def test_a_view_of_yours_on_an_empty_table_keeps_nobody_from_migrating(connection: Connection) -> None:
    for migration in migrations()[:BEFORE]:
        connection.run(migration.text)
    connection.run(
        "CREATE TABLE schema_migrations (version text PRIMARY KEY, applied_at timestamptz DEFAULT now());"
        f"INSERT INTO schema_migrations SELECT '000' || n FROM generate_series(1, {BEFORE}) AS n;"
        "CREATE VIEW mine AS SELECT id FROM records"
    )
    migrate(connection)
    assert collations(connection)["records.id"] == "default"
    assert valid(connection) == {"records_id_bytes": True}


def test_a_filled_database_gets_indexes_and_keeps_its_columns(
    empty_database: Any, connection: Connection
) -> None:
    old_release(connection)
    assert migrate(connection) == [migration.name for migration in migrations()[BEFORE:]]
    assert valid(connection) == dict.fromkeys(INDEXES, True)
    assert collations(connection)["records.id"] == "default"
    store = Store(empty_database)
    assert store.sink.store([arrive(each) for each in [*ids(1, 2), "new"]]).duplicates == set(ids(1, 2))
    assert len(store.ids()) == 101
    store.close()
    # The unique index is the arbiter where the primary key finds nothing.
    connection.run("ALTER TABLE records DROP CONSTRAINT records_pkey")
    connection.run("INSERT INTO records SELECT * FROM records ON CONFLICT (id) DO NOTHING")
    assert connection.run("SELECT count(*) FROM records") == [[101]]


@contextmanager
def somebody_reading(empty_database: Any) -> Iterator[None]:
    """A transaction that was there before: CREATE INDEX CONCURRENTLY waits for its end."""
    reader = empty_database.connect()
    reader.run("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
    try:
        yield
    finally:
        reader.run("COMMIT")
        reader.close()


def wait_for(connection: Connection, statement: str) -> Any:
    """The first value of its first row, when there is one."""
    for _ in range(20_000):  # some ten seconds
        if rows := connection.run(statement):
            return rows[0][0] if rows[0] else None
    raise AssertionError(f"never: {statement}")


def test_while_the_index_is_made_everybody_goes_on_writing(
    empty_database: Any, connection: Connection
) -> None:
    old_release(connection)
    store = Store(empty_database)
    with ThreadPoolExecutor(1) as pool:
        with somebody_reading(empty_database):
            running = pool.submit(migrate, empty_database.connect())
            wait_for(connection, BUILDING)
            stored = store.sink.store([arrive("new"), arrive("a2")], seconds=10)
            assert (stored.processed, stored.duplicates) == ({"new"}, {"a2"})
            assert not running.done()
        assert running.result()[-1] == migrations()[-1].name
    assert valid(connection) == dict.fromkeys(INDEXES, True)
    store.close()


@pytest.fixture
def environment(empty_database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in empty_database.model_dump(by_alias=True).items():
        if value is not None:
            monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("environment")
def test_where_the_time_is_too_short_postgres_goes_on_and_the_next_run_finds_it_done(
    empty_database: Any, connection: Connection
) -> None:
    old_release(connection)
    with somebody_reading(empty_database):
        with pytest.raises(TransientError, match=r"0006_collation.*still at work"):
            handler({}, Context(ANSWER_MILLISECONDS + 1_500))
        pid = wait_for(connection, BUILDING)
        # What comes next says who is at work, and does not wait for more than its own time.
        with pytest.raises(TransientError, match=r"another run is at work: CREATE UNIQUE INDEX CONCURRENTLY"):
            handler({}, Context(ANSWER_MILLISECONDS + 300))
        assert wait_for(connection, BUILDING) == pid
    wait_for(connection, f"SELECT WHERE NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})")
    assert valid(connection)["records_id_bytes"]
    before = connection.run("SELECT 'records_id_bytes'::regclass::oid")
    assert handler({}, Context()) == {"applied": [migration.name for migration in migrations()[BEFORE + 1 :]]}
    assert connection.run("SELECT 'records_id_bytes'::regclass::oid") == before, "not made anew"
    assert valid(connection) == dict.fromkeys(INDEXES, True)


def test_an_index_that_a_killed_run_left_half_made_is_made_anew(
    empty_database: Any, connection: Connection
) -> None:
    old_release(connection)
    with ThreadPoolExecutor(1) as pool, somebody_reading(empty_database):
        running = pool.submit(migrate, empty_database.connect())
        pid = wait_for(connection, BUILDING)
        connection.run("SELECT pg_terminate_backend(:pid ::integer, 5000)", pid=pid)
        assert isinstance(running.exception(), TransientError | MigrationError)
    assert valid(connection) == {"records_id_bytes": False}
    assert migrate(connection) == [migration.name for migration in migrations()[BEFORE + 1 :]]
    assert valid(connection) == dict.fromkeys(INDEXES, True)


def test_duplicates_that_are_there_already_are_reported_without_their_ids(connection: Connection) -> None:
    old_release(connection)
    # As a changed collation leaves them behind: rows that the primary key does not find.
    connection.run(
        "ALTER TABLE records DROP CONSTRAINT records_pkey; INSERT INTO records SELECT * FROM records WHERE id = 'a2'"
    )
    with pytest.raises(MigrationError, match="0006_collation") as raised:
        migrate(connection)
    assert "a2" not in str(raised.value)
    assert "records_id_bytes" in str(raised.value)
    connection.run("DELETE FROM records WHERE ctid = (SELECT max(ctid) FROM records WHERE id = 'a2')")
    assert migrate(connection) == [migration.name for migration in migrations()[BEFORE + 1 :]]
    assert valid(connection) == dict.fromkeys(INDEXES, True)


def test_a_million_rows_are_migrated_within_the_functions_time(
    empty_database: Any, connection: Connection
) -> None:
    for migration in migrations()[:BEFORE]:
        connection.run(migration.text)
    connection.run(
        "CREATE TABLE schema_migrations (version text PRIMARY KEY, applied_at timestamptz DEFAULT now());"
        f"INSERT INTO schema_migrations SELECT '000' || n FROM generate_series(1, {BEFORE}) AS n;"
        # The key is made afterwards: that is a tenth of the time.
        "ALTER TABLE records DROP CONSTRAINT records_pkey;"
        "INSERT INTO records (id, partition_key, payload, shard_id, sequence_number, arrived_at)"
        f" SELECT 'id-' || n, 'p', '{{}}', 's', '1', now() FROM generate_series(1, {MILLION}) AS n;"
        "ALTER TABLE records ADD PRIMARY KEY (id)"
    )
    assert migrate(connection, seconds=290) == [migration.name for migration in migrations()[BEFORE:]]
    assert valid(connection) == {"records_id_bytes": True}
    database = Database(empty_database)
    stored = PostgresSink(database).store([arrive("id-77", {"n": 1}), arrive("new")])
    assert (stored.taken.keys(), stored.processed) == ({"id-77"}, {"new"})
    database.close()


# --- a server whose collation is the operating system's, and an operating system that changes it

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian's package "postgresql" puts its servers: ours is built without the system's collations."""
SOURCES = Path("/usr/share/i18n/locales")


@pytest.fixture(scope="module")
def system(server_directory: Path) -> Iterator[tuple[Postgres, Path]]:
    """Debian's Postgres with a locale of the system's library (libc) as its default, and the locale's directory."""
    versions = sorted(DEBIAN.glob("*/bin/initdb")) if DEBIAN.is_dir() else []
    if not versions:
        pytest.skip("needs Debian's package postgresql: apt-get install postgresql")
    if not (SOURCES / "en_US").exists() or not shutil.which("localedef"):
        pytest.skip("needs Debian's package locales, which has the sources of a locale")
    binaries = versions[-1].parent
    locales = server_directory / "locales"
    locales.mkdir()
    make_locale(locales, "en_US")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(local.postgres, "BINARIES", binaries)
        server = LibcPostgres(server_directory / "libc", durable=False)
        server.locales = locales
        with server:
            yield server, locales


def make_locale(directory: Path, source: str) -> None:
    """Make en_US.UTF-8 of the sources of a locale, as an upgrade of the operating system may."""
    target = directory / "en_US.UTF-8"
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["localedef", "-i", SOURCES / source, "-f", "UTF-8", target], check=True)


class LibcPostgres(Postgres):
    """As the local stack's, on a cluster with the collation en_US.UTF-8 of the system's library."""

    locales: Path

    def _initialise(self) -> None:
        subprocess.run(
            [
                local.postgres.BINARIES / "initdb",
                *("--pgdata", self.data, "--username", "postgres", "--auth=trust", "--no-sync"),
                *("--encoding=UTF8", "--locale=en_US.UTF-8", "--lc-messages=C"),
            ],
            env=self._environment(),
            cwd=self.data,
            user=self._system_user,
            group=self._system_user,
            extra_groups=[] if self._system_user else None,
            stdout=subprocess.DEVNULL,
            check=True,
        )

    def _environment(self) -> dict[str, str]:
        return super()._environment() | {"LOCPATH": os.fspath(self.locales)}


def test_a_collation_that_changes_with_the_system_makes_no_second_row(system: tuple[Postgres, Path]) -> None:
    server, locales = system
    names = {}
    for name in ("migrated", "left_alone"):
        server.create_database(name)
        names[name] = connection = server.connect(name)
        old_release(connection, 2_000)
        assert connection.run("SELECT 'a' < 'B' COLLATE \"default\"") == [[True]]
        if name == "migrated":
            migrate(connection)
            assert valid(connection) == dict.fromkeys(INDEXES, True)
        connection.close()
    server.stop()
    make_locale(locales, "C")
    server.start()

    again = "INSERT INTO records SELECT * FROM records ON CONFLICT (id) DO NOTHING"
    connection = server.connect("left_alone")
    assert connection.run("SELECT 'a' < 'B' COLLATE \"default\"") == [[False]]
    connection.run(again)
    assert connection.run("SELECT count(*) > 2000 FROM records") == [[True]], "what the index is there for"
    connection.close()

    connection = server.connect("migrated")
    connection.run(again)
    settings = DatabaseSettings.model_validate(
        {
            "DATABASE_HOST": server.host,
            "DATABASE_PORT": server.port,
            "DATABASE_NAME": "migrated",
            "DATABASE_USER": server.user,
            "DATABASE_AUTHENTICATION": "trust",
            "DATABASE_TLS": "disable",
        }
    )
    database = Database(settings)
    every = [arrive(each) for each in ids(*range(1, 2_001))]
    stored = PostgresSink(database).store(every)
    assert stored.duplicates == {each.record.id for each in every}
    assert connection.run("SELECT count(*), count(DISTINCT id) FROM records") == [[2_000, 2_000]]
    with pytest.raises(DatabaseError):
        connection.run("INSERT INTO records SELECT * FROM records WHERE id = 'a2'")
    connection.close()
    database.close()
