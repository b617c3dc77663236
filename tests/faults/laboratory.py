"""The harness with everything that it needs: a Postgres server, a database, the fault layer."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from local.postgres import Postgres
from tests.faults.history import Harness
from tests.faults.postgres import TestDatabase
from tests.faults.scenarios import CHUNK_BYTES
from tests.faults.seams import installed

REPOSITORY = Path(__file__).resolve().parents[2]
EXPIRY_SECONDS = 300
"""How long a claim is remembered in the histories: short, so that it is forgotten in the middle of some."""


@contextmanager
def on(server: Postgres, name: str) -> Iterator[Harness]:
    """A harness on a database of its own of ``server``."""
    database = TestDatabase(server, name)
    settings = {"CHUNK_BYTES": str(CHUNK_BYTES), "IDEMPOTENCY_EXPIRY_SECONDS": str(EXPIRY_SECONDS)}
    try:
        with installed(**database.variables, **settings):
            harness = Harness(database)
            try:
                yield harness
            finally:
                harness.links.close()
    finally:
        database.close()


@contextmanager
def laboratory() -> Iterator[Harness]:
    """A harness on a server of its own."""
    parent = REPOSITORY / ".local" / "tests"
    parent.mkdir(parents=True, exist_ok=True)
    with (
        tempfile.TemporaryDirectory(dir=parent) as directory,
        Postgres(Path(directory) / "postgres", durable=False) as server,
        on(server, "faults") as harness,
    ):
        yield harness
