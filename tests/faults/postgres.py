"""The database of the histories: a real Postgres, emptied before each history."""

from __future__ import annotations

from typing import Any

from consumer.migrate import migrate
from local.postgres import Postgres

TABLES = ("records", "rejected_records", "repeated_records")


class TestDatabase:
    """A database of its own on ``server``, with the product's tables.

    A constraint stands for what a user's own table may refuse: payloads with a field ``refuse``.
    """

    __test__ = False

    def __init__(self, server: Postgres, name: str) -> None:
        self.server = server
        self.name = name
        server.create_database(name)
        self._connection = server.connect(name)
        migrate(self._connection)
        self._connection.run("ALTER TABLE records ADD CONSTRAINT taste CHECK (NOT payload ? 'refuse')")

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
        rows: list[list[Any]] = self._connection.run(statement, **bound) or []
        return rows

    def reset(self) -> None:
        """No rows."""
        self.run("; ".join(f"DELETE FROM {table}" for table in TABLES))

    def terminate(self) -> None:
        """End the functions' sessions, as an administrator or a failover does."""
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def restart(self) -> None:
        """Stop and start the server."""
        self._connection.close()
        self.server.restart()
        self._connection = self.server.connect(self.name)

    def drop_unique_key(self) -> None:
        """For a mutant: a table without the last line of defence."""
        self.run("ALTER TABLE records DROP CONSTRAINT records_pkey")

    def restore_unique_key(self) -> None:
        self.reset()
        self.run("ALTER TABLE records ADD PRIMARY KEY (id)")

    def close(self) -> None:
        self._connection.close()
        self.server.drop_database(self.name)
