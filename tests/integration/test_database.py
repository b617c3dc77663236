"""Database on a real Postgres: transactions, and a connection that is kept and replaced."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from pg8000.exceptions import DatabaseError

from common.errors import TransientError
from common.settings import DatabaseSettings
from local.postgres import Postgres
from postgres.database import Database


@pytest.fixture
def kept(empty_database: Any) -> Iterator[Database]:
    made = Database(empty_database)
    yield made
    made.close()


def pid(database: Database) -> int:
    with database.transaction() as connection:
        [[number]] = connection.run("SELECT pg_backend_pid()")
    return int(number)


def test_the_connection_is_kept(kept: Database) -> None:
    assert pid(kept) == pid(kept)


def test_a_block_that_ends_is_committed(kept: Database, empty_database: Any) -> None:
    with kept.transaction() as connection:
        connection.run("CREATE TABLE t (n integer)")
    other = empty_database.connect()
    assert other.run("SELECT count(*) FROM t") == [[0]]
    other.close()


def test_a_block_that_fails_is_rolled_back(kept: Database) -> None:
    def fail(statement: str, error: type[Exception] | None = None) -> None:
        with kept.transaction() as connection:
            connection.run("CREATE TABLE t (n integer)")
            connection.run(statement)
            if error:
                raise error

    first = pid(kept)
    with pytest.raises(DatabaseError):
        fail("SELECT 1 / 0")
    assert pid(kept) == first
    with pytest.raises(KeyError):
        fail("SELECT 1", KeyError)
    with kept.transaction() as connection:
        assert connection.run("SELECT to_regclass('t')") == [[None]]


def test_every_transaction_reads_what_is_committed_whatever_the_database_prefers(kept: Database) -> None:
    with kept.transaction() as connection:
        connection.run("SET default_transaction_isolation = 'serializable'")
    with kept.transaction() as connection:
        assert connection.run("SHOW transaction_isolation") == [["read committed"]]


def test_text_is_utf_8_whatever_the_database_prefers(kept: Database, empty_database: Any) -> None:
    other = empty_database.connect()
    other.run(f"ALTER DATABASE {empty_database.database_name} SET client_encoding = 'LATIN1'")
    other.close()
    with kept.transaction() as connection:
        assert connection.run("SELECT :text", text="5 €") == [["5 €"]]


def test_limits_hold_for_the_transaction_only(kept: Database) -> None:
    with kept.transaction(1.5) as connection:
        assert connection.run("SHOW statement_timeout") == [["1500ms"]]
        assert connection.run("SHOW idle_in_transaction_session_timeout") == [["30s"]]
    with kept.transaction() as connection:
        assert connection.run("SHOW statement_timeout") == [["30s"]]


def test_a_connection_that_the_server_ended_while_idle_is_replaced(
    kept: Database, empty_database: Any
) -> None:
    first = pid(kept)
    other = empty_database.connect()
    assert other.run("SELECT pg_terminate_backend(:pid, 5000)", pid=first) == [[True]]
    other.close()
    assert pid(kept) != first


def test_a_restart_of_the_server_is_survived(server_directory: Path) -> None:
    with Postgres(server_directory / "restarted", durable=False) as server:
        settings = DatabaseSettings.model_validate(
            {
                "DATABASE_HOST": server.host,
                "DATABASE_PORT": server.port,
                "DATABASE_NAME": server.dbname,
                "DATABASE_USER": server.user,
                "DATABASE_AUTHENTICATION": "trust",
                "DATABASE_TLS": "disable",
            }
        )
        database = Database(settings)
        pid(database)
        server.stop()
        with pytest.raises(TransientError, match=f"{server.host}:{server.port}.*Connection refused"):
            pid(database)
        server.start()
        assert pid(database)
        database.close()


def test_a_waiting_statement_can_be_broken_off_from_another_thread(
    kept: Database, empty_database: Any
) -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            with kept.transaction() as connection:
                connection.run("SELECT pg_sleep(60)")
        except TransientError as error:
            errors.append(error)

    first = pid(kept)
    waiting = Thread(target=wait)
    waiting.start()
    other = empty_database.connect()
    sleeping = "SELECT FROM pg_stat_activity WHERE pid = :pid AND wait_event = 'PgSleep'"
    while not other.run(sleeping, pid=first):
        assert waiting.is_alive()
    kept.abort()
    waiting.join()
    other.close()
    assert "lost the connection" in str(errors[0])
    assert pid(kept) != first
