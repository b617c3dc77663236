"""Connecting to Postgres: passwords, tokens, TLS, and what is said when it fails. Against stand-in servers."""

from __future__ import annotations

import datetime as dt
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Thread
from typing import Any

import boto3
import botocore.auth
import pytest
from botocore.signers import generate_db_auth_token
from moto import mock_aws

from common.errors import TransientError
from common.settings import DatabaseSettings
from postgres import database as module
from postgres.database import Database
from tests.unit.certificates import Authority

SECRET = "correct-horse-battery-staple"


def settings(**changes: Any) -> DatabaseSettings:
    values = {"host": "127.0.0.1", "port": 5432, "name": "records", "user": "loader"}
    values |= {"authentication": "trust", "tls": "disable"} | changes
    return DatabaseSettings.model_validate(
        {f"DATABASE_{name.upper()}": each for name, each in values.items()}
    )


class Server:
    """Listens on a free port and lets ``talk`` have each connection, one after the other."""

    def __init__(self, talk: Callable[[socket.socket], None]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listening.getsockname()[1]
        self.talk = talk
        self.thread = Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self.listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(10)
                with suppress(OSError):
                    self.talk(connection)

    def close(self) -> None:
        self.listening.shutdown(socket.SHUT_RDWR)
        self.listening.close()
        self.thread.join()


@pytest.fixture
def serve() -> Iterator[Callable[[Callable[[socket.socket], None]], int]]:
    """Start a server that talks in the given way; returns its port."""
    servers: list[Server] = []

    def start(talk: Callable[[socket.socket], None]) -> int:
        servers.append(Server(talk))
        return servers[-1].port

    yield start
    for server in servers:
        server.close()


def error_message(**fields: str) -> bytes:
    """An ErrorResponse of Postgres' protocol."""
    body = b"".join(name.encode() + text.encode() + b"\0" for name, text in fields.items()) + b"\0"
    return b"E" + (len(body) + 4).to_bytes(4) + body


def failure(**changes: Any) -> str:
    with pytest.raises(TransientError) as raised:
        Database(settings(**changes)).connect()
    return str(raised.value)


def test_a_refused_connection_is_named_with_host_port_and_database() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert failure(port=port) == (
        f"cannot connect to Postgres at 127.0.0.1:{port}, database records: Connection refused"
    )


def test_a_name_that_does_not_resolve_is_named() -> None:
    message = failure(host="no-such-host.invalid")
    assert "Postgres at no-such-host.invalid:5432" in message
    assert "the name does not resolve" in message


def test_a_server_that_hangs_up_is_named(serve: Any) -> None:
    assert "cannot connect to Postgres at 127.0.0.1" in failure(port=serve(lambda connection: None))


def test_silence_is_called_silence(serve: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CONNECT_SECONDS", 0.1)

    def talk(connection: socket.socket) -> None:
        while connection.recv(1_000):
            pass

    assert failure(port=serve(talk)).endswith("no answer in time")


def test_what_does_not_speak_the_protocol_is_named(serve: Any) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(b"\x15\x03\x01\x00\x02\x02\x0a")

    assert "does not speak Postgres' protocol" in failure(port=serve(talk))


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("28P01", 'password authentication failed for user "loader"'),
        ("3D000", 'database "records" does not exist'),
        ("53300", "sorry, too many clients already"),
        ("57P03", "the database system is starting up"),
    ],
)
def test_a_refusal_by_postgres_is_quoted(serve: Any, code: str, text: str) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(error_message(S="FATAL", C=code, M=text))

    message = failure(port=serve(talk))
    assert f"refuses the connection as loader: {text} (SQLSTATE {code})" in message


def test_a_server_without_tls_is_not_spoken_to_in_the_clear(serve: Any) -> None:
    heard: Queue[bytes] = Queue()

    def talk(connection: socket.socket) -> None:
        heard.put(connection.recv(1_000))
        connection.sendall(b"N")
        heard.put(connection.recv(1_000))

    message = failure(port=serve(talk), tls="verify-full")
    assert "does not offer TLS" in message
    assert len(heard.get(timeout=10)) == 8
    assert heard.get(timeout=10) == b""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


def tls_server(certificate: Path) -> Callable[[socket.socket], None]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    def talk(connection: socket.socket) -> None:
        assert connection.recv(8) == (8).to_bytes(4) + (80877103).to_bytes(4)
        connection.sendall(b"S")
        with context.wrap_socket(connection, server_side=True) as secure:
            secure.recv(1_000)
            secure.sendall(error_message(S="FATAL", C="57P03", M="spoken over TLS"))

    return talk


def test_tls_is_used_when_the_certificate_is_trusted_and_names_the_host(
    serve: Any, authority: Authority
) -> None:
    port = serve(tls_server(authority.certificate("127.0.0.1")))
    assert "spoken over TLS" in failure(port=port, tls="verify-full", ca_file=str(authority.file))


@pytest.mark.parametrize(
    ("host", "trusted", "reason"),
    [
        ("127.0.0.1", False, "self-signed certificate in certificate chain|unable to get local issuer"),
        ("127.0.0.2", True, "IP address mismatch"),
    ],
    ids=["unknown authority", "another host's"],
)
def test_a_certificate_that_is_not_trusted_is_refused(
    serve: Any, authority: Authority, host: str, trusted: bool, reason: str
) -> None:
    port = serve(tls_server(authority.certificate(host)))
    changes = {"ca_file": str(authority.file)} if trusted else {}
    with pytest.raises(TransientError, match=f"its certificate is not trusted: .*({reason})"):
        Database(settings(port=port, tls="verify-full", **changes)).connect()


def test_a_certificate_that_has_expired_is_transient_and_called_so(serve: Any, authority: Authority) -> None:
    port = serve(tls_server(authority.certificate("127.0.0.1", days=-1)))
    message = failure(port=port, tls="verify-full", ca_file=str(authority.file))
    assert message.endswith("its certificate is not trusted: certificate has expired")


def test_a_relative_file_of_authorities_counts_from_the_package(serve: Any, authority: Authority) -> None:
    # The authorities of RDS, which have not signed this one.
    port = serve(tls_server(authority.certificate("127.0.0.1")))
    message = failure(port=port, tls="verify-full", ca_file="postgres/authorities/rds.pem")
    assert "its certificate is not trusted" in message


def test_a_missing_file_of_authorities_is_named(serve: Any) -> None:
    def talk(connection: socket.socket) -> None:
        connection.recv(8)
        connection.sendall(b"S")

    message = failure(port=serve(talk), tls="verify-full", ca_file="/no/such/file.pem")
    assert "/no/such/file.pem" in message


def cleartext_server(passwords: list[str], correct: Callable[[], str]) -> Callable[[socket.socket], None]:
    """Asks for the password in the clear, notes it, and refuses all but the ``correct`` one."""

    def talk(connection: socket.socket) -> None:
        connection.recv(1_000)
        connection.sendall(b"R" + (8).to_bytes(4) + (3).to_bytes(4))
        password = connection.recv(4_000)[5:-1].decode()
        passwords.append(password)
        if password != correct():
            connection.sendall(error_message(S="FATAL", C="28P01", M="password authentication failed"))
            return
        ready = b"R" + (8).to_bytes(4) + (0).to_bytes(4) + b"Z" + (5).to_bytes(4) + b"I"
        connection.sendall(ready)
        connection.recv(1_000)

    return talk


@pytest.fixture
def secrets() -> Iterator[Any]:
    with mock_aws():
        yield boto3.client("secretsmanager", region_name="us-east-1")


def test_a_secret_is_read_once_and_again_when_the_password_has_changed(serve: Any, secrets: Any) -> None:
    arn = secrets.create_secret(Name="db", SecretString=json.dumps({"password": "old"}))["ARN"]
    given: list[str] = []
    correct = "old"
    database = Database(
        settings(
            port=serve(cleartext_server(given, lambda: correct)), authentication="secret", secret_arn=arn
        )
    )
    database.connect()
    secrets.put_secret_value(SecretId=arn, SecretString=json.dumps({"password": "new"}))
    database.connect()
    assert given == ["old", "old"]
    correct = "new"
    database.connect()
    assert given == ["old", "old", "old", "new"]
    database.close()


def test_a_wrong_password_is_said_without_the_password(serve: Any, secrets: Any) -> None:
    arn = secrets.create_secret(Name="db", SecretString=json.dumps({"password": SECRET}))["ARN"]
    given: list[str] = []
    port = serve(cleartext_server(given, lambda: "another"))
    database = Database(settings(port=port, authentication="secret", secret_arn=arn))
    for _ in range(2):
        with pytest.raises(TransientError) as raised:
            database.connect()
        text = f"{raised.value!r} {raised.value.__cause__!r}"
        assert "password authentication failed" in text
        assert SECRET not in text
    assert set(given) == {SECRET}


@pytest.mark.parametrize("content", ["not JSON " + SECRET, '["x"]', '{"user": "u"}', '{"password": 5}'])
def test_a_secret_without_a_password_is_named(secrets: Any, content: str) -> None:
    arn = secrets.create_secret(Name="db", SecretString=content)["ARN"]
    with pytest.raises(TransientError, match='"password"') as raised:
        Database(settings(port=1, authentication="secret", secret_arn=arn)).connect()
    assert SECRET not in str(raised.value)


def test_a_secret_that_is_not_there_is_named(secrets: Any) -> None:
    del secrets
    arn = "arn:aws:secretsmanager:us-east-1:123456789012:secret:gone"
    assert arn in failure(port=1, authentication="secret", secret_arn=arn)


def test_the_iam_token_is_the_one_that_boto3_makes_for_rds(
    serve: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session/token+")
    now = dt.datetime(2026, 11, 21, tzinfo=dt.UTC)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda: now)
    # Where awscrt is installed botocore signs with it, by the clock of the machine.
    monkeypatch.setitem(botocore.auth.AUTH_TYPE_MAPS, "v4-query", botocore.auth.SigV4QueryAuth)
    given: list[str] = []
    port = serve(cleartext_server(given, lambda: "nothing"))
    message = failure(port=port, authentication="iam", user="the loader")
    client = boto3.Session().client("rds")
    expected = generate_db_auth_token(client, "127.0.0.1", port, "the loader")
    assert given == [expected]
    assert "X-Amz-Signature" not in message


def test_without_credentials_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    assert "no credentials" in failure(port=1, authentication="iam")
