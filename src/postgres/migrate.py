"""Brings the database to the schema that this version of the code expects.

Migrations are plain SQL files, applied in the order of their numbers, each once and each in one transaction.
A file that has been applied anywhere is never changed; a change is a new file. Versions in the database that
this code does not know are left alone: after the rollback of a deploy the database is newer than the code.

A file whose first line is ``-- outside a transaction`` runs statement by statement. Use it for what would otherwise
lock a filled table for long (CREATE INDEX CONCURRENTLY). If such a statement returns a row, the row is the next
statement to run, as with psql's ``gexec``. The file must be safe to run again after a killed run. When the time runs
out, Postgres goes on with the statement by itself, and the next run waits for it.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection
from pydantic import ValidationError

from common.errors import OncestreamError, TransientError
from common.observability import logger
from common.settings import DatabaseSettings
from postgres.database import Database, describe, server_encoding

DIRECTORY = Path(__file__).parent / "migrations"
LOCK = 0x6F6E6365
"""Key of the advisory lock that lets one migration run at a time ("once" in ASCII)."""
ANSWER_MILLISECONDS = 10_000
"""Kept back from the invocation's time, to tell CloudFormation: unanswered, it waits for an hour."""
PHYSICAL_ID = "oncestream-migrations"
OUTSIDE = "-- outside a transaction"
"""First line of a file that is not run in a transaction."""
ASK_SECONDS = 0.2
"""How often we ask whether it is our turn."""
RESUME_SECONDS = 60.0
"""How long a database may be silent before we give up. One that was paused (Aurora at no capacity) takes 15 seconds
to resume, and 30 after a day.

Source: docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html
"""


class MigrationError(OncestreamError):
    """Postgres refused a migration. Nothing of that file was applied."""


_END = re.compile(r";[ \t]*$", re.MULTILINE)
_COMMENT = re.compile(r"--.*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: ``0001_records.sql`` has version ``0001`` and name ``0001_records``."""

    version: str
    name: str
    path: Path

    @property
    def text(self) -> str:
        """What is in it."""
        return self.path.read_text(encoding="utf-8")

    @property
    def is_outside(self) -> bool:
        """Whether it is run outside a transaction."""
        return self.text.startswith(OUTSIDE)

    def statements(self) -> list[str]:
        """The statements of a file that is run outside a transaction: each ends with a semicolon and its line."""
        parts = (part.strip() for part in _END.split(self.text))
        return [part for part in parts if _COMMENT.sub("", part).strip()]


def migrations(directory: Path = DIRECTORY) -> list[Migration]:
    """The migrations that this code brings, in order."""
    return [
        Migration(path.stem.split("_")[0], path.stem, path)
        for path in sorted(directory.glob("*.sql"), key=lambda path: path.stem)
    ]


def migrate(
    connection: Connection,
    directory: Path = DIRECTORY,
    *,
    seconds: float = 0,
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Runs at the same time are harmless: they take turns, and the later one finds nothing left to do.

    Parameters
    ----------
    seconds
        How long one statement in a transaction may take, and the wait for the turn; 0 is without limit.

    Raises
    ------
    MigrationError
        Postgres refused a file, or the database's encoding is not UTF8. The files before it stay applied.
    TransientError
        The connection was lost, the time ran out, or another run is still at work.
    """
    _require_utf8(connection)
    limit = int(seconds * 1000)
    with _turn(connection, seconds, sleep):
        with _transaction(connection, "schema_migrations", limit):
            connection.run(
                "CREATE TABLE IF NOT EXISTS schema_migrations ("
                "version text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
            )
            known = {row[0] for row in connection.run("SELECT version FROM schema_migrations")}
        missing = [migration for migration in migrations(directory) if migration.version not in known]
        for migration in missing:
            _apply(connection, migration, limit)
    return [migration.name for migration in missing]


@logger.inject_lambda_context
def handler(event: dict[str, Any], context: Any) -> dict[str, Any]:
    """A CloudFormation custom resource; invoked directly, it answers ``{"applied": [...]}``.

    CloudFormation is told the outcome in every case, also when something unforeseen is raised. Deleting the
    resource keeps the tables: the data outlives the stack.
    """
    if "ResponseURL" not in event:
        return {"applied": _run(context)}
    status, reason = "FAILED", f"unforeseen error: see the log stream {context.log_stream_name}"
    try:
        if event.get("RequestType") != "Delete":
            applied = _run(context)
            logger.info("Migrated", applied=applied)
        status, reason = "SUCCESS", ""
    except (OncestreamError, ValidationError) as error:
        logger.exception("Migration failed")
        reason = str(error)
    finally:
        _answer(event, status, reason)
    return {"status": status}


def _run(context: Any) -> list[str]:
    seconds = (context.get_remaining_time_in_millis() - ANSWER_MILLISECONDS) / 1000
    if seconds <= 0:
        raise TransientError("migrations: the invocation's time is too short to begin")
    database = Database(DatabaseSettings.from_environment())
    connection = _connect(database, seconds)
    # Postgres ends a statement that takes too long, but only a statement: the timer is for all of them.
    watch = Timer(seconds, database.abort)
    watch.start()
    try:
        # Who waits for another run has the time left to say so.
        return migrate(connection, seconds=0.8 * seconds)
    finally:
        watch.cancel()
        database.close()


def _connect(database: Database, seconds: float) -> Connection:
    """A connection. Silence is waited out for a while; any other failure is final."""
    deadline = time.monotonic() + min(RESUME_SECONDS, seconds)
    while True:
        try:
            return database.connect(seconds)
        except TransientError as error:
            if not isinstance(error.__cause__, TimeoutError) or time.monotonic() > deadline:
                raise
            logger.info("The database is silent, trying again", reason=str(error))


def _require_utf8(connection: Connection) -> None:
    # In any other encoding a record with a character that it does not have could never be stored, nor rejected.
    encoding = server_encoding(connection)
    if encoding != "UTF8":
        raise MigrationError(
            f"the database's encoding is {encoding}, which does not have every character. "
            "Make one with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and name it in DatabaseName"
        )


def _apply(connection: Connection, migration: Migration, limit: int) -> None:
    note = "INSERT INTO schema_migrations (version) VALUES (:version)"
    if not migration.is_outside:
        with _transaction(connection, migration.name, limit):
            connection.run(migration.text)
            connection.run(note, version=migration.version)
        return
    with _errors(
        f"migration {migration.name}",
        "Postgres is still at work on it, and goes on. Run it again later",
    ):
        # Postgres is not told how long it may take: it goes on when we have to give up.
        connection.run("SET statement_timeout = 0")
        for statement in migration.statements():
            for row in connection.run(statement) or []:
                connection.run(row[0])
        connection.run(note, version=migration.version)


@contextmanager
def _turn(connection: Connection, seconds: float, sleep: Callable[[float], None]) -> Iterator[None]:
    """The turn, which one session has at a time, until its end.

    It is asked for again and again: who waited for it in a statement would be waited for by CREATE INDEX CONCURRENTLY.
    """
    with _errors("the turn to migrate", "Run it again"):
        deadline = time.monotonic() + seconds
        while not connection.run("SELECT pg_try_advisory_lock(:lock ::bigint)", lock=LOCK)[0][0]:
            if seconds and time.monotonic() > deadline:
                raise TransientError(
                    f"migrations: another run is at work{_at_work(connection)}. Run it again later"
                )
            sleep(min(ASK_SECONDS, max(0.0, deadline - time.monotonic())) if seconds else ASK_SECONDS)
    try:
        yield
    except TransientError:
        raise  # the connection is lost, and the turn with it
    except BaseException:
        _give_back(connection)
        raise
    _give_back(connection)


def _give_back(connection: Connection) -> None:
    with suppress(DatabaseError, InterfaceError, OSError):  # the turn ends with the session, too
        connection.run("SELECT pg_advisory_unlock(:lock ::bigint)", lock=LOCK)


def _at_work(connection: Connection) -> str:
    """What the session is doing that has the turn, if we may know."""
    rows = connection.run(
        "SELECT query FROM pg_stat_activity JOIN pg_locks USING (pid)"
        " WHERE locktype = 'advisory' AND objid = :lock ::bigint AND granted AND state = 'active'",
        lock=LOCK,
    )
    return f": {' '.join(rows[0][0].split())[:200]}" if rows else ""


@contextmanager
def _transaction(connection: Connection, name: str, limit: int) -> Iterator[None]:
    """A transaction. ``limit``: milliseconds a statement."""
    with _errors(f"migration {name}", "Nothing of it was applied"):
        try:
            connection.run(f"BEGIN; SET LOCAL statement_timeout = {limit}")
            yield
            connection.run("COMMIT")
        except DatabaseError:
            with suppress(DatabaseError, InterfaceError, OSError):  # what matters is the first error
                connection.run("ROLLBACK")
            raise


@contextmanager
def _errors(name: str, what_then: str) -> Iterator[None]:
    """Say what went wrong, and with what. Never the data: an index that cannot be unique quotes a row."""
    try:
        yield
    except DatabaseError as error:
        raise MigrationError(f"{name}: {describe(error)}") from None
    except (InterfaceError, OSError) as error:
        raise TransientError(f"{name}: the connection was lost, or the time ran out. {what_then}") from error


def _answer(event: dict[str, Any], status: str, reason: str) -> None:
    """PUT the outcome to CloudFormation's signed URL.

    The fields are those of docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/crpg-ref-responses.html,
    which also limits the body to 4,096 bytes. The URL is signed for an empty content type.
    """
    import urllib3  # noqa: PLC0415 - only CloudFormation's invocations need it

    body = {
        "Status": status,
        "Reason": reason[:500] or "done",
        "PhysicalResourceId": event.get("PhysicalResourceId", PHYSICAL_ID),
        "StackId": event["StackId"],
        "RequestId": event["RequestId"],
        "LogicalResourceId": event["LogicalResourceId"],
    }
    answer = urllib3.request(
        "PUT",
        event["ResponseURL"],
        body=json.dumps(body, ensure_ascii=False).encode(errors="replace"),
        headers={"content-type": ""},
        retries=urllib3.Retry(3, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        timeout=urllib3.Timeout(2.0),
    )
    if answer.status >= 300:
        # Raised, Lambda repeats the (asynchronous) invocation; what was migrated is then found done.
        raise TransientError(f"CloudFormation's answer to our outcome was HTTP {answer.status}")
