"""What the contestants run against: a real Postgres, and a DynamoDB that all of them share."""

from __future__ import annotations

import http.client
import json
import sys
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import psutil

from bench.contestants import Contestant
from bench.contestants.shared import PLAIN_TABLE
from local.machine import LOOPBACK, REPOSITORY, clean_environment, failure, free_port
from local.ministack import CREDENTIALS, REGION, MiniStack, client
from local.postgres import Postgres
from local.process import Child

MIGRATIONS = REPOSITORY / "src" / "postgres" / "migrations"


class DynamoDB(Protocol):
    """An endpoint that speaks DynamoDB, in a process of its own, as far away as it is told to be."""

    @property
    def endpoint(self) -> str: ...
    @property
    def pid(self) -> int: ...
    def requests(self, latency: float) -> list[tuple[str, str]]: ...
    def stop(self) -> None: ...


class Ground(NamedTuple):
    """What contestants meet on: Postgres, a DynamoDB, and a directory for logs."""

    postgres: Postgres
    dynamodb: DynamoDB
    directory: Path


class StandIn:
    """The lean stand-in of bench/standin.py as a child process.

    Parameters
    ----------
    behind
        Port of an endpoint that answers in its place; it only adds the latency and counts.
    """

    def __init__(self, directory: Path, behind: int | None = None) -> None:
        self.port = free_port()
        self.endpoint = f"http://{LOOPBACK}:{self.port}"
        arguments = [str(each) for each in (self.port, behind) if each is not None]
        self._child = Child(
            [sys.executable, "-I", REPOSITORY / "bench" / "standin.py", *arguments],
            log=directory / "standin.log",
            environment=clean_environment(directory),
            directory=directory,
        )
        if not self._child.gets_ready(self._answers):
            self.stop()
            raise failure(f"The stand-in for DynamoDB did not get ready on {self.endpoint}.", self._child.log)

    @property
    def pid(self) -> int:
        """Process id of the server."""
        return self._child.pid

    def _answers(self) -> bool:
        try:
            self.requests(0.0)
        except ConnectionError:
            return False
        return True

    def requests(self, latency: float) -> list[tuple[str, str]]:
        """The requests since the last time, each its operation and its body. From now on it answers ``latency``
        seconds late."""
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=10)
        connection.request("GET", f"/?latency={latency}")
        taken = json.loads(connection.getresponse().read())["requests"]
        return [(operation, body) for operation, body in taken]

    def stop(self) -> None:
        """End it."""
        self._child.stop()


class DistantMiniStack:
    """MiniStack, and the stand-in in front of it for the latency and the count."""

    def __init__(self, directory: Path) -> None:
        self._emulator = MiniStack(directory)
        self._emulator.start()
        self._front = StandIn(directory, behind=self._emulator.port)
        self.endpoint = self._front.endpoint
        self.requests = self._front.requests

    @property
    def pid(self) -> int:
        """Process id of MiniStack."""
        return self._emulator.pid

    def stop(self) -> None:
        """End both."""
        self._front.stop()
        self._emulator.stop()


def create_idempotency_table(endpoint: str, name: str) -> None:
    """A table with the product's key."""
    client(endpoint, "dynamodb").create_table(
        TableName=name,
        BillingMode="PAY_PER_REQUEST",
        AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
        KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
    )


def create_database(postgres: Postgres, name: str) -> None:
    """A database with the product's tables, and the one of those who have no key."""
    postgres.create_database(name)
    connection = postgres.connect(name)
    for migration in sorted(MIGRATIONS.glob("*.sql")):
        connection.run(migration.read_text())
    connection.run(PLAIN_TABLE)
    connection.close()


def environment(postgres: Postgres, endpoint: str, contestant: Contestant, name: str) -> dict[str, str]:
    """The environment of a contestant's process: that of the deployed consumer, and nothing of the user's own AWS."""
    return {
        **clean_environment(postgres.directory),
        **CREDENTIALS,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_LAMBDA_FUNCTION_NAME": f"bench-{contestant.name}",
        "POWERTOOLS_SERVICE_NAME": "consumer",
        "POWERTOOLS_METRICS_NAMESPACE": "Oncestream",
        "POWERTOOLS_LOG_LEVEL": "INFO",
        "POWERTOOLS_TRACE_DISABLED": "true",  # there is no X-Ray daemon here
        "IDEMPOTENCY_TABLE": name,
        "DATABASE_HOST": postgres.host,
        "DATABASE_PORT": str(postgres.port),
        "DATABASE_NAME": name,
        "DATABASE_USER": postgres.user,
        "DATABASE_AUTHENTICATION": "trust",
        "DATABASE_TLS": "disable",
        "PYTHONPATH": f"{REPOSITORY / 'src'}:{REPOSITORY}",
    }


def durability(postgres: Postgres) -> dict[str, Any]:
    """The settings of Postgres that a figure depends on."""
    connection = postgres.connect()
    try:
        return {
            name: connection.run(f"SHOW {name}")[0][0]
            for name in (
                "server_version",
                "fsync",
                "synchronous_commit",
                "full_page_writes",
                "shared_buffers",
            )
        }
    finally:
        connection.close()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far. Its clock ticks a hundred times a second."""
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)
