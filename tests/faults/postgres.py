"""The database of the histories: a real Postgres, emptied before each history."""

from __future__ import annotations

import threading
from typing import Any, Literal

from local.postgres import Postgres
from postgres.migrate import migrate

TABLES = ("records", "rejected_records", "repeated_records")

_TASTE = """
ALTER TABLE records ADD CONSTRAINT taste CHECK (NOT payload ? 'refused');
CREATE FUNCTION swallow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
CREATE TRIGGER swallow BEFORE INSERT ON records
    FOR EACH ROW WHEN (NEW.payload ? 'swallowed') EXECUTE FUNCTION swallow()
"""


class TestDatabase:
    """A database of its own on ``server``, with the product's tables.

    A constraint and a trigger stand for a user's own table: it refuses payloads with a field ``refused``, and those
    with a field ``swallowed`` vanish without a word.
    """

    __test__ = False

    def __init__(self, server: Postgres, name: str) -> None:
        self.server = server
        self.name = name
        self._lock = threading.RLock()
        server.create_database(name)
        self._connection = server.connect(name)
        migrate(self._connection)
        self._connection.run(_TASTE)

    @property
    def variables(self) -> dict[str, str]:
        """The functions' environment variables."""
        return {
            "DATABASE_HOST": self.server.host,
            "DATABASE_PORT": str(self.server.port),
            "DATABASE_NAME": self.name,
            "DATABASE_USER": self.server.user,
            "DATABASE_AUTHENTICATION": "trust",
            "DATABASE_TLS": "disable",
        }

    def run(self, statement: str, **bound: Any) -> list[list[Any]]:
        """Run a statement from outside the functions."""
        with self._lock:
            rows: list[list[Any]] = self._connection.run(statement, **bound) or []
        return rows

    def reset(self) -> None:
        """No rows, and a server that runs."""
        if self.is_away:
            self.come_back()
        self.run("; ".join(f"DELETE FROM {table}" for table in TABLES))

    def terminate(self, pid: int | None = None) -> None:
        """End a session of the functions', or all, as an administrator or a failover does; returns when it is gone."""
        self.run(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid() AND pid = coalesce(:pid ::integer, pid)",
            pid=pid,
        )

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start the server."""
        with self._lock:  # nobody asks it anything in between
            self.go_away(mode)
            self.come_back()

    def go_away(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop the server: ``fast`` ends the sessions first, ``immediate`` is a crash."""
        with self._lock:
            self._connection.close()
            self.server.stop(mode)

    def come_back(self) -> None:
        """Start the server again."""
        with self._lock:
            self.server.start()
            self._connection = self.server.connect(self.name)

    @property
    def is_away(self) -> bool:
        """Whether the server is stopped."""
        return not self.server.is_running

    def drop_unique_key(self) -> None:
        """For a mutant: a table without the last line of defence."""
        self.run("ALTER TABLE records DROP CONSTRAINT records_pkey")

    def restore_unique_key(self) -> None:
        self.reset()
        self.run("ALTER TABLE records ADD PRIMARY KEY (id)")

    def close(self) -> None:
        self._connection.close()
        self.server.drop_database(self.name)
