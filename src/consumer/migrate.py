"""Brings the database to the schema that this version of the code expects.

Migrations are plain SQL files, applied in the order of their numbers, each once and each in one transaction.
A file that has been applied anywhere is never changed; a change is a new file. Versions in the database that
this code does not know are left alone: after the rollback of a deploy the database is newer than the code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Timer
from typing import Any

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection
from pydantic import ValidationError

from common.database import Database, describe
from common.errors import OncestreamError, TransientError
from common.observability import logger
from common.settings import DatabaseSettings

DIRECTORY = Path(__file__).parent / "migrations"
LOCK = 0x6F6E6365
"""Key of the advisory lock that lets one migration run at a time ("once" in ASCII)."""
ANSWER_MILLISECONDS = 10_000
"""Kept back from the invocation's time, to tell CloudFormation: unanswered, it waits for an hour."""
PHYSICAL_ID = "oncestream-migrations"
RESUME_SECONDS = 60.0
"""How long a database may be silent before we give up. One that was paused (Aurora at no capacity) takes 15 seconds
to resume, and 30 after a day.

Source: docs.aws.amazon.com/AmazonRDS/latest/AuroraUserGuide/aurora-serverless-v2-auto-pause.html
"""


class MigrationError(OncestreamError):
    """Postgres refused a migration. Nothing of that file was applied."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: ``0001_records.sql`` has version ``0001`` and name ``0001_records``."""

    version: str
    name: str
    path: Path


def migrations(directory: Path = DIRECTORY) -> list[Migration]:
    """The migrations that this code brings, in order."""
    return [
        Migration(path.stem.split("_")[0], path.stem, path)
        for path in sorted(directory.glob("*.sql"), key=lambda path: path.stem)
    ]


def migrate(connection: Connection, directory: Path = DIRECTORY, *, seconds: float = 0) -> list[str]:
    """Apply what is missing and return the names of what was applied.

    Runs at the same time are harmless: they take turns, and the later one finds nothing left to do.

    Parameters
    ----------
    seconds
        How long one statement may take, the wait for the turn included; 0 is without limit.

    Raises
    ------
    MigrationError
        Postgres refused a file. Those before it stay applied.
    TransientError
        The connection was lost.
    """
    # Under the lock too: CREATE TABLE IF NOT EXISTS by two sessions at once may fail in one of them.
    limit = int(seconds * 1000)
    with _turn(connection, "schema_migrations", limit):
        connection.run(
            "CREATE TABLE IF NOT EXISTS schema_migrations ("
            "version text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
    return [migration.name for migration in migrations(directory) if _apply(connection, migration, limit)]


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
        return migrate(connection, seconds=seconds)
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


def _apply(connection: Connection, migration: Migration, limit: int) -> bool:
    with _turn(connection, migration.name, limit):
        found = connection.run(
            "SELECT FROM schema_migrations WHERE version = :version", version=migration.version
        )
        if found:
            return False
        connection.run(migration.path.read_text(encoding="utf-8"))
        connection.run("INSERT INTO schema_migrations (version) VALUES (:version)", version=migration.version)
    return True


@contextmanager
def _turn(connection: Connection, name: str, limit: int) -> Iterator[None]:
    """A transaction that only one session has at a time. ``limit``: milliseconds a statement."""
    try:
        connection.run(f"BEGIN; SET LOCAL statement_timeout = {limit}; SELECT pg_advisory_xact_lock({LOCK})")
        yield
        connection.run("COMMIT")
    except DatabaseError as error:
        with suppress(DatabaseError, InterfaceError, OSError):  # what matters is the first error
            connection.run("ROLLBACK")
        raise MigrationError(f"migration {name}: {describe(error)}") from error
    except (InterfaceError, OSError) as error:
        raise TransientError(f"migration {name}: the connection was lost, or the time ran out") from error


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
