"""migrate on a real Postgres: once each, all or nothing, one at a time, and within the invocation's time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from pg8000.exceptions import DatabaseError
from pg8000.native import Connection

from common.errors import TransientError
from postgres.migrate import ANSWER_MILLISECONDS, LOCK, MigrationError, handler, migrate, migrations
from tests.unit.consumer_support import Context

NAMES = [migration.name for migration in migrations()]


@pytest.fixture
def connection(empty_database: Any) -> Iterator[Connection]:
    opened = empty_database.connect()
    yield opened
    opened.close()


def tables(connection: Connection) -> set[str]:
    return {row[0] for row in connection.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


def test_an_empty_database_gets_every_migration_once(connection: Connection) -> None:
    assert migrate(connection) == NAMES
    assert tables(connection) >= {"records", "rejected_records", "repeated_records", "schema_migrations"}
    assert migrate(connection) == []


def test_what_a_newer_version_of_the_code_has_applied_is_left_alone(connection: Connection) -> None:
    migrate(connection)
    connection.run("INSERT INTO schema_migrations VALUES ('9999')")
    assert migrate(connection) == []
    assert connection.run("SELECT version FROM schema_migrations WHERE version = '9999'") == [["9999"]]


def test_runs_at_the_same_time_take_turns(empty_database: Any) -> None:
    def run(_: int) -> list[str]:
        opened = empty_database.connect()
        try:
            return migrate(opened)
        finally:
            opened.close()

    with ThreadPoolExecutor(4) as threads:
        applied = list(threads.map(run, range(4)))
    assert sorted(name for names in applied for name in names) == NAMES


def test_a_file_that_fails_leaves_nothing_of_itself_and_keeps_those_before(
    connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "0001_good.sql").write_text("CREATE TABLE good (n integer)")
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE half (n integer); SELECT 1 / 0")
    with pytest.raises(MigrationError, match=r"migration 0002_bad: division by zero \(SQLSTATE 22012\)"):
        migrate(connection, tmp_path)
    assert tables(connection) == {"good", "schema_migrations"}
    (tmp_path / "0002_bad.sql").write_text("CREATE TABLE mended (n integer)")
    assert migrate(connection, tmp_path) == ["0002_bad"]


def test_a_connection_that_breaks_is_a_transient_error(connection: Connection, tmp_path: Path) -> None:
    (tmp_path / "0001_fatal.sql").write_text("SELECT pg_terminate_backend(pg_backend_pid())")
    with pytest.raises(TransientError, match="0001_fatal"):
        migrate(connection, tmp_path)


@pytest.fixture
def environment(empty_database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in empty_database.model_dump(by_alias=True).items():
        if value is not None:
            monkeypatch.setenv(name, str(value))


@pytest.mark.usefixtures("environment")
def test_the_function_migrates_the_database_of_its_environment(empty_database: Any) -> None:
    assert handler({}, Context()) == {"applied": NAMES}
    assert handler({}, Context()) == {"applied": []}


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize("left", [ANSWER_MILLISECONDS + 300, ANSWER_MILLISECONDS - 1])
def test_the_function_gives_up_while_there_is_time_to_say_so(connection: Connection, left: int) -> None:
    connection.run(f"SELECT pg_advisory_lock({LOCK})")
    with pytest.raises((MigrationError, TransientError)):
        handler({}, Context(left))
    connection.run(f"SELECT pg_advisory_unlock({LOCK})")
    assert handler({}, Context()) == {"applied": NAMES}


@pytest.mark.usefixtures("environment")
def test_migrations_that_are_each_short_enough_do_not_outlast_the_invocation_together(
    empty_database: Any, connection: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for number in range(10):
        wait = "SELECT pg_sleep(600)" if number == 3 else "SELECT 1"
        (tmp_path / f"000{number}_step.sql").write_text(wait)
    timers: list[float] = []

    class RingsAtTheFourth(Thread):
        """In the place of threading.Timer: the time is over when the migration that waits has begun."""

        def __init__(self, interval: float, function: Callable[[], None]) -> None:
            timers.append(interval)
            self._cancelled = Event()
            super().__init__(target=self._ring, args=(function,))

        def _ring(self, function: Callable[[], None]) -> None:
            waiting = (
                "SELECT FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
            )
            watching = empty_database.connect()
            while not watching.run(waiting):
                if self._cancelled.is_set():
                    return
            watching.close()
            function()

        def cancel(self) -> None:
            self._cancelled.set()
            self.join()

    monkeypatch.setattr("postgres.migrate.Timer", RingsAtTheFourth)
    monkeypatch.setattr(
        "postgres.migrate.migrate",
        lambda opened, seconds: migrate(opened, tmp_path, seconds=seconds),
    )
    with pytest.raises(TransientError, match="the time ran out"):
        handler({}, Context(ANSWER_MILLISECONDS + 700_000))
    assert timers == [700.0]
    assert connection.run("SELECT count(*) FROM schema_migrations") == [[3]]


def test_the_tables_refuse_what_the_code_never_writes(connection: Connection) -> None:
    migrate(connection)
    with pytest.raises(DatabaseError):
        connection.run("INSERT INTO records (id) VALUES ('a')")
