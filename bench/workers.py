"""The other end of bench/worker.py: one process for each contestant, and what a run of it left in Postgres."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pg8000.native

from bench.contestants import Contestant
from bench.meter import counts
from bench.servers import (
    Ground,
    cpu_seconds,
    create_database,
    create_idempotency_table,
    environment,
)
from local.machine import REPOSITORY


class ContestantError(Exception):
    """A contestant's process ended."""


def database_name(contestant: Contestant) -> str:
    """The database, and the idempotency table, of a contestant."""
    return f"bench_{contestant.name}"


class Worker:
    """A contestant, running, with a database and an idempotency table of its own.

    Parameters
    ----------
    name
        Of its database and its table.
    crash
        ``before`` or ``after``: its first invocation is killed at that moment (bench/crash.py).
    new
        False: database and table are there already. So a killed contestant is continued.
    """

    def __init__(
        self,
        contestant: Contestant,
        ground: Ground,
        *,
        name: str | None = None,
        crash: str | None = None,
        new: bool = True,
    ) -> None:
        self.contestant = contestant
        self._dynamodb = ground.dynamodb
        name = name or database_name(contestant)
        if new:
            create_database(ground.postgres, name)
            create_idempotency_table(ground.dynamodb.endpoint, name)
        self._database: pg8000.native.Connection = ground.postgres.connect(name)
        with (ground.directory / f"{name}.log").open("ab") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "bench.worker", contestant.name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(ground.postgres, ground.dynamodb.endpoint, contestant, name),
                cwd=REPOSITORY,
                text=True,
            )
        if crash:
            self._ask(do="crash", when=crash)
        self.start_seconds: float = self._ask(do="start")["seconds"]

    def run(self, *, latency: float, **invocation: Any) -> dict[str, Any]:
        """Invoke it once, DynamoDB's answers being ``latency`` seconds late.

        Returns what the worker measured, the emulator's processor time, what DynamoDB was asked, and the rows that
        are there now.
        """
        before = cpu_seconds(self._dynamodb.pid)
        self._dynamodb.requests(latency)
        result: dict[str, Any] = self._ask(do="run", **invocation)
        result["emulator_cpu"] = cpu_seconds(self._dynamodb.pid) - before
        return result | counts(self._dynamodb.requests(0.0)) | self.rows()

    def is_killed_by(self, **invocation: Any) -> bool:
        """Invoke it and see whether it died, as it was armed to."""
        try:
            self._ask(do="run", **invocation)
        except ContestantError:
            return True
        return False

    def rows(self) -> dict[str, int]:
        """Rows, different ids among them, and rejected records."""
        rows, ids = self._database.run(f"SELECT count(*), count(DISTINCT id) FROM {self.contestant.table}")[0]
        ((rejected,),) = self._database.run("SELECT count(*) FROM rejected_records")
        return {"rows": rows, "ids": ids, "rejected": rejected}

    def clear(self) -> None:
        """Empty its tables."""
        self._database.run("TRUNCATE records, rejected_records, plain_records")

    def stop(self) -> None:
        """End the process."""
        self._database.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _ask(self, **command: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            answer = ""
        if not answer:
            raise ContestantError(
                f"{self.contestant.label}: its process ended with status {self._process.wait(10)}"
            )
        return json.loads(answer)
