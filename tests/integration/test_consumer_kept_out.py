"""Postgres that does not let the consumer in: retried, told by name, and nothing is rejected. Then everything lands.

The server is a real one that asks for a password. The embedded Postgres is built without TLS, so what speaks TLS is
a small front of ours, which passes everything on to it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_lambda_powertools.utilities.batch import EventType
from moto import mock_aws

from common.observability import RECORDS_RETRIED, logger
from common.settings import DatabaseSettings
from consumer import handler as consumer
from consumer.sink import PostgresSink
from local.machine import LOOPBACK, free_port
from local.postgres import Postgres
from oncestream.processor import SinkProcessor
from postgres.database import Database
from postgres.migrate import migrate
from tests.unit.certificates import Authority
from tests.unit.consumer_support import Context, FakeIdempotency, failed, message, stream_event

PASSWORD = "correct-horse"
LOADER = "loader"
BATCH = (message("a"), b"poison", message("b"))


async def _front(context: ssl.SSLContext, port: int, reader: Any, writer: Any) -> None:
    """One connection: TLS as Postgres begins it (its documentation: Message Flow), then all that comes."""
    try:
        await reader.readexactly(8)
        writer.write(b"S")
        await writer.start_tls(context)
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, port)
    except (OSError, asyncio.IncompleteReadError):
        writer.close()
        return
    await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))


async def _copy(reader: Any, writer: Any) -> None:
    try:
        while block := await reader.read(65536):
            writer.write(block)
            await writer.drain()
    except OSError:
        pass
    writer.close()


@contextmanager
def tls_front(certificate: Path, port: int) -> Iterator[int]:
    """Speaks TLS with this certificate for the server at ``port``; gives its own port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    listening = asyncio.start_server(partial(_front, context, port), LOOPBACK, 0)
    server = asyncio.run_coroutine_threadsafe(listening, loop).result()
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_end(server), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


async def _end(server: asyncio.Server) -> None:
    server.close()
    others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)


@pytest.fixture(scope="module")
def server(server_directory: Path) -> Iterator[Postgres]:
    """A Postgres that asks the role "loader" for its password."""
    with Postgres(server_directory / "kept-out", durable=False) as made:
        admin = made.connect(user="postgres")
        admin.run(f"CREATE ROLE {LOADER} LOGIN PASSWORD '{PASSWORD}'")
        rules = made.data / "pg_hba.conf"
        rules.write_text(f"host all {LOADER} 127.0.0.1/32 scram-sha-256\n" + rules.read_text())
        admin.run("SELECT pg_reload_conf()")
        admin.close()
        yield made


@dataclass
class World:
    """The function with a database of its own behind TLS, and what may keep it out."""

    server: Postgres
    authority: Authority
    secrets: Any
    arn: str
    idempotency: FakeIdempotency
    use: Callable[[Any], None]

    def admin(self, sql: str, database: str = "postgres") -> list[list[Any]]:
        connection = self.server.connect(database, user="postgres")
        try:
            return connection.run(sql) or []
        finally:
            connection.close()

    def set_password(self, password: str) -> None:
        self.secrets.put_secret_value(SecretId=self.arn, SecretString=json.dumps({"password": password}))

    @contextmanager
    def reached(self, *, days: int = 1, trusted: bool = True, listening: bool = True) -> Iterator[None]:
        """The function connects by way of a front with such a certificate."""
        certificate = self.authority.certificate(LOOPBACK, days=days)
        with tls_front(certificate, self.server.port) as port:
            settings = DatabaseSettings.model_validate(
                {
                    "DATABASE_HOST": LOOPBACK,
                    "DATABASE_PORT": port if listening else free_port(),
                    "DATABASE_NAME": "kept",
                    "DATABASE_USER": LOADER,
                    "DATABASE_AUTHENTICATION": "secret",
                    "DATABASE_SECRET_ARN": self.arn,
                    "DATABASE_CA_FILE": str(self.authority.file)
                    if trusted
                    else "postgres/authorities/rds.pem",
                }
            )
            database = Database(settings)
            self.use(SinkProcessor(EventType.KinesisDataStreams, self.idempotency, PostgresSink(database)))
            yield
            database.close()

    def rows(self, table: str) -> int:
        return int(self.admin(f"SELECT count(*) FROM {table}", "kept")[0][0])


@pytest.fixture
def world(server: Postgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with mock_aws():
        secrets = boto3.client("secretsmanager", region_name="us-east-1")
        secret = secrets.create_secret(Name="db", SecretString=json.dumps({"password": PASSWORD}))

        def use(processor: Any) -> None:
            monkeypatch.setattr(consumer, "_processor", lambda: processor)

        made = World(server, Authority(tmp_path), secrets, secret["ARN"], FakeIdempotency(), use)
        made.admin(f"CREATE DATABASE kept OWNER {LOADER}")
        connection = server.connect("kept", user="postgres")
        connection.run(f"SET ROLE {LOADER}")
        migrate(connection)
        connection.close()
        yield made
        made.admin(f"ALTER ROLE {LOADER} CONNECTION LIMIT -1")
        made.admin("DROP DATABASE kept WITH (FORCE)")


def deliver(capsys: pytest.CaptureFixture[str]) -> tuple[list[int], list[dict[str, Any]]]:
    """The sequence numbers that failed, and the log with the metrics."""
    capsys.readouterr()
    output = logger.registered_handler
    assert isinstance(output, logging.StreamHandler)
    before = output.setStream(sys.stdout)
    try:
        answer = failed(consumer.handler(stream_event(*BATCH), Context()))
    finally:
        output.setStream(before)
    return answer, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@contextmanager
def wrong_password(world: World) -> Iterator[None]:
    world.set_password("another")
    with world.reached():
        yield
    world.set_password(PASSWORD)


@contextmanager
def too_many_connections(world: World) -> Iterator[None]:
    world.admin(f"ALTER ROLE {LOADER} CONNECTION LIMIT 0")
    with world.reached():
        yield
    world.admin(f"ALTER ROLE {LOADER} CONNECTION LIMIT -1")


@contextmanager
def connections_not_accepted(world: World) -> Iterator[None]:
    world.admin("ALTER DATABASE kept ALLOW_CONNECTIONS false")
    with world.reached():
        yield
    world.admin("ALTER DATABASE kept ALLOW_CONNECTIONS true")


FAULTS: dict[str, tuple[Callable[[World], Any], str]] = {
    "wrong password": (wrong_password, 'password authentication failed for user "loader" (SQLSTATE 28P01)'),
    "expired certificate": (
        lambda world: world.reached(days=-1),
        "its certificate is not trusted: certificate has expired",
    ),
    "unknown authority": (lambda world: world.reached(trusted=False), "its certificate is not trusted: "),
    "nobody listens": (lambda world: world.reached(listening=False), "Connection refused"),
    "too many connections": (too_many_connections, 'too many connections for role "loader" (SQLSTATE 53300)'),
    "connections not accepted": (
        connections_not_accepted,
        'database "kept" is not currently accepting connections (SQLSTATE 55000)',
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_database_that_keeps_us_out_is_retried_named_and_counted_and_nothing_is_rejected(
    name: str, world: World, capsys: pytest.CaptureFixture[str]
) -> None:
    fault, reason = FAULTS[name]
    with fault(world):
        for _ in range(2):
            answer, log = deliver(capsys)
            assert answer == [1, 2, 3]
            [line] = [each for each in log if each.get("message") == "Records will be retried"]
            assert (line["level"], line["count"]) == ("WARNING", 3)
            assert reason in line["reason"]
            assert PASSWORD not in json.dumps(log)
            [counted] = [each for each in log if "_aws" in each]
            assert counted[RECORDS_RETRIED] == [3.0]  # what RecordsRetriedAlarm watches
            assert world.idempotency.mine == set(), "the claims are free for the next attempt"
    with world.reached():
        answer, _ = deliver(capsys)
    assert (answer, world.rows("records"), world.rows("rejected_records")) == ([], 2, 1)
