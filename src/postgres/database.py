"""The connection to Postgres: one per execution environment, kept, checked when used, replaced when broken.

Everything that keeps us from the database becomes a :class:`TransientError`. Its message says which database it was and
what went wrong, and never holds a password or a token.
"""

from __future__ import annotations

import json
import re
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection
from scramp import ScramException

from common.errors import TransientError
from common.settings import DatabaseSettings

if TYPE_CHECKING:
    from ssl import SSLContext

CONNECT_SECONDS = 5.0
"""How long each step of opening or checking a connection may take."""
STATEMENT_SECONDS = 30.0
"""How long one statement may take, unless the caller has less time."""
GRACE_SECONDS = 2.0
"""Postgres ends an overlong statement itself; if it has not, this much later, the socket is given up."""
IDLE_IN_TRANSACTION_SECONDS = 30
"""A killed invocation leaves its transaction open on the server, the keys of its records locked. Postgres
ends it after this time, even if the network never told it that we are gone."""
PACKAGE = Path(__file__).resolve().parent.parent
"""What a relative path in the settings counts from: the root of what is deployed."""
WRONG_PASSWORD = {"28P01", "28000"}

_SSL_REQUEST = struct.pack("!ii", 8, 80877103)  # postgresql.org/docs/current/protocol-message-formats.html


class ConnectionLostError(TransientError):
    """The connection broke inside a transaction.

    ``committing`` says whether COMMIT had been sent: then nobody knows whether the transaction took effect.
    """

    def __init__(self, message: str, *, committing: bool) -> None:
        super().__init__(message)
        self.committing = committing


def error_fields(error: DatabaseError) -> dict[str, str]:
    """What the server said, by field: postgresql.org/docs/current/protocol-error-fields.html has their letters."""
    fields = error.args[0] if error.args else None
    return fields if isinstance(fields, dict) else {}


def sqlstate(error: DatabaseError) -> str:
    """The five characters that say what kind of error this is.

    postgresql.org/docs/current/errcodes-appendix.html lists them.
    """
    return error_fields(error).get("C", "")


def server_encoding(connection: Connection) -> str:
    """The encoding of the database that ``connection`` leads to, such as ``UTF8``."""
    return str(connection.parameter_statuses["server_encoding"])


_QUOTING = {
    "22": "a value is not what its type or an expression wants",
    "23": "a constraint is violated",
    "54": "a value is too large for a limit of Postgres",
    "P0": "a function raised an exception",
}
"""Classes of errors whose message, or detail, may quote the data; and what is said instead."""
_NAMES = {"n": "constraint", "t": "table", "c": "column", "d": "type"}
_QUOTES_NAMES = {"2200H"}
"""Of these classes, what names a thing of the schema and never a value."""
_VALUE = re.compile(r"""["'\d]""")
_RAISED_IN = re.compile(r"^PL/pgSQL function .* line \d+")


def describe(error: DatabaseError) -> str:
    """What Postgres said, in one line that may be logged: names and the SQLSTATE, and nothing of the data.

    The message is Postgres' own where it cannot quote a value. It can where it judges one, and where the error comes
    out of a function: a trigger may say anything. :func:`explain` says it in full.
    """
    fields = error_fields(error)
    if not fields:
        return str(error)
    code = fields.get("C", "unknown")
    where = fields.get("W", "")
    text = fields.get("M", "error")
    harmless = code in _QUOTES_NAMES or not (code[:2] in _QUOTING and _VALUE.search(text))
    if where or code[:2] == "P0" or not harmless:
        text = _QUOTING.get(code[:2], "an error in a function")
        names = [f'{name} "{fields[letter]}"' for letter, name in _NAMES.items() if fields.get(letter)]
        raised = _RAISED_IN.match(where.partition("\n")[0])
        text = ", ".join([text, *names, *([f"in {raised[0]}"] if raised else [])])
    return f"{text} (SQLSTATE {code})"


def explain(error: DatabaseError) -> str:
    """What Postgres said, in one line, with the values that it quotes: for a table, and never for a log."""
    fields = error_fields(error)
    if not fields:
        return str(error)
    detail = fields.get("D", "")
    # The whole row: whoever reads this has its bytes beside it.
    detail = f": {detail}" if detail and not detail.startswith("Failing row contains") else ""
    return f"{fields.get('M', 'error')}{detail} (SQLSTATE {fields.get('C', 'unknown')})"


@dataclass(slots=True)
class _Session:
    connection: Connection
    socket: socket.socket
    used: bool = False


class Database:
    """Opens connections to the database that ``settings`` name, and keeps one.

    Example
    -------
    >>> database = Database(DatabaseSettings.from_environment())
    >>> with database.transaction() as connection:
    ...     connection.run("SELECT 1")
    """

    def __init__(self, settings: DatabaseSettings) -> None:
        self._settings = settings
        self._session: _Session | None = None
        self._secret: str | None = None

    @contextmanager
    def transaction(self, seconds: float = STATEMENT_SECONDS) -> Iterator[Connection]:
        """A transaction on the kept connection: committed at the end of the block, rolled back on any error.

        BEGIN is the check of a connection that was idle, or frozen with the execution environment: where it
        fails, nothing has happened yet, and a new connection takes over.

        Parameters
        ----------
        seconds
            How long each statement may take; Postgres cancels a longer one (SQLSTATE 57014).

        Raises
        ------
        pg8000.exceptions.DatabaseError
            Postgres refused a statement, or the commit. Everything is rolled back.
        ConnectionLostError
            The connection broke; see its ``committing``.
        TransientError
            There is no connection to be had.
        """
        session = self._begin(seconds)
        committing = False
        try:
            yield session.connection
            committing = True
            session.connection.run("COMMIT")
        except DatabaseError:
            try:
                session.connection.run("ROLLBACK")
            except (DatabaseError, InterfaceError, OSError):
                self._drop()
            raise
        except (InterfaceError, OSError) as error:
            self._drop()
            when = "at COMMIT: whether it took effect is unknown" if committing else "inside a transaction"
            raise ConnectionLostError(
                f"lost the connection to {self._name} {when} ({_cause(error)})", committing=committing
            ) from error
        except BaseException:
            self.close()  # the server rolls back
            raise

    def connect(self, seconds: float = STATEMENT_SECONDS) -> Connection:
        """Replace the kept connection by a new one, on which an answer may take ``seconds``.

        Raises
        ------
        TransientError
            Postgres cannot be reached or does not let us in. The message says which database and why.
        """
        session = self._replace()
        session.socket.settimeout(seconds + GRACE_SECONDS)
        return session.connection

    def abort(self) -> None:
        """Break the kept connection from another thread. A thread that waits for an answer on it gets an error."""
        if self._session:
            _shut_down(self._session.socket)

    def close(self) -> None:
        """Close the kept connection, if there is one; the next transaction opens another."""
        if self._session:
            with suppress(InterfaceError, OSError):
                self._session.connection.close()
        self._drop()

    def _drop(self) -> None:
        """Close the kept connection without a word to the server: it does not listen any more."""
        session, self._session = self._session, None
        if session:
            _hang_up(session.socket)

    def _begin(self, seconds: float) -> _Session:
        begin = (
            "BEGIN ISOLATION LEVEL READ COMMITTED;"
            f"SET LOCAL statement_timeout = {max(1, int(seconds * 1000))};"
            f"SET LOCAL idle_in_transaction_session_timeout = '{IDLE_IN_TRANSACTION_SECONDS}s'"
        )
        while True:
            session = self._session or self._replace()
            try:
                session.socket.settimeout(CONNECT_SECONDS)
                session.connection.run(begin)
            except (DatabaseError, InterfaceError, OSError) as error:
                self._drop()
                if session.used:
                    continue
                raise TransientError(
                    f"{self._name} took the connection and broke it: {_cause(error)}"
                ) from error
            session.used = True
            session.socket.settimeout(seconds + GRACE_SECONDS)
            return session

    def _replace(self) -> _Session:
        self.close()
        known = self._secret
        try:
            self._session = self._open(self._password())
        except DatabaseError as error:
            if sqlstate(error) not in WRONG_PASSWORD:
                raise self._refused(error) from error
            self._secret = None
            if known is None:
                raise self._refused(error) from error
            # The secret may have been rotated since it was read.
            try:
                self._session = self._open(self._password())
            except DatabaseError as again:
                raise self._refused(again) from again
        return self._session

    def _open(self, password: str) -> _Session:
        opened = self._socket()
        settings = self._settings
        try:
            connection = Connection(
                settings.database_user,
                host=settings.database_host,
                database=settings.database_name,
                password=password,
                sock=opened,
                ssl_context=False,  # the socket speaks TLS already
                application_name="oncestream",
                startup_params={"client_encoding": "UTF8"},
            )
        except (DatabaseError, InterfaceError, ScramException, OSError) as error:
            _hang_up(opened)
            refusal = _server_error(error)
            if refusal:
                raise refusal from error
            raise TransientError(f"cannot connect to {self._name}: {_cause(error)}") from error
        except (KeyError, ValueError, struct.error) as error:
            _hang_up(opened)
            raise TransientError(
                f"{self._name}: what answers there does not speak Postgres' protocol"
            ) from error
        return _Session(connection, opened)

    def _socket(self) -> socket.socket:
        host, port = self._settings.database_host, self._settings.database_port
        try:
            opened = socket.create_connection((host, port), CONNECT_SECONDS)
        except OSError as error:
            raise TransientError(f"cannot connect to {self._name}: {_cause(error)}") from error
        try:
            # Many small messages, each answered: waiting to fill a packet would only add delay.
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            # A NAT gateway forgets a connection that is silent for 350 s; a packet every minute keeps it.
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            if hasattr(socket, "TCP_KEEPIDLE"):
                opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
            if self._settings.database_tls == "disable":
                return opened
            opened.sendall(_SSL_REQUEST)
            if opened.recv(1) != b"S":
                raise TransientError(f"{self._name} does not offer TLS, and DATABASE_TLS asks for it")
            return self._tls.wrap_socket(opened, server_hostname=host)
        except OSError as error:
            _hang_up(opened)
            raise TransientError(f"cannot connect to {self._name}: {_cause(error)}") from error
        except TransientError:
            _hang_up(opened)
            raise

    @cached_property
    def _tls(self) -> SSLContext:
        import ssl  # noqa: PLC0415 - not needed where TLS is disabled

        file = self._settings.database_ca_file
        try:
            return ssl.create_default_context(cafile=PACKAGE / file if file else None)
        except OSError as error:
            raise TransientError(f"cannot read the authorities to trust ({file}): {error}") from error

    def _password(self) -> str:
        match self._settings.database_authentication:
            case "iam":
                return _iam_token(self._settings)
            case "secret":
                if self._secret is None:
                    self._secret = _read_secret(self._settings)
                return self._secret
            case "trust":
                return ""

    @property
    def _name(self) -> str:
        to = self._settings
        return f"Postgres at {to.database_host}:{to.database_port}, database {to.database_name}"

    def _refused(self, error: DatabaseError) -> TransientError:
        return TransientError(
            f"{self._name}, refuses the connection as {self._settings.database_user}: {describe(error)}"
        )


def _hang_up(opened: socket.socket) -> None:
    # close() alone would wait for pg8000's file on the socket, which an error's traceback may hold for long.
    _shut_down(opened)
    opened.close()


def _shut_down(opened: socket.socket) -> None:
    with suppress(OSError):
        opened.shutdown(socket.SHUT_RDWR)


def _server_error(error: BaseException | None) -> DatabaseError | None:
    """What the server said before it hung up. pg8000 may fail at saying goodbye and so hide it."""
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__context__
    return error


def _cause(error: Exception) -> str:
    """Why a connection failed, in a few words. pg8000 puts the cause behind its own "network error"."""
    if isinstance(error, DatabaseError):
        return describe(error)
    cause = error.__cause__ or error
    verification = getattr(cause, "verify_message", None)
    if verification:
        return f"its certificate is not trusted: {verification}"
    if isinstance(cause, TimeoutError):
        return "no answer in time"
    if isinstance(cause, socket.gaierror):
        return f"the name does not resolve: {cause.strerror}"
    if isinstance(cause, OSError) and cause.strerror:
        return cause.strerror
    return str(cause) or type(cause).__name__


def _iam_token(settings: DatabaseSettings) -> str:
    """A token for IAM authentication: a signed URL without its scheme, good for 15 minutes.

    As botocore.signers.generate_db_auth_token makes it; that one needs a client of ``rds``, whose model is
    1 MB that we do not ship.
    """
    import boto3  # noqa: PLC0415 - not needed for a database on this machine
    from botocore.auth import SigV4QueryAuth  # noqa: PLC0415
    from botocore.awsrequest import AWSRequest  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415

    session = boto3.Session()
    try:
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise TransientError(f"no credentials to sign a database token with: {error}") from error
    if credentials is None or session.region_name is None:
        raise TransientError("no credentials or no region to sign a database token with")
    request = AWSRequest(
        "GET",
        f"https://{settings.database_host}:{settings.database_port}/",
        params={"Action": "connect", "DBUser": settings.database_user},
    )
    signer = SigV4QueryAuth(credentials.get_frozen_credentials(), "rds-db", session.region_name, expires=900)
    signer.add_auth(request)
    return str(request.url).removeprefix("https://")


def _read_secret(settings: DatabaseSettings) -> str:
    import boto3  # noqa: PLC0415 - only for this kind of authentication
    from botocore.config import Config  # noqa: PLC0415
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    name = settings.database_secret_arn
    config = Config(connect_timeout=2, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 3})
    try:
        answer = boto3.client("secretsmanager", config=config).get_secret_value(SecretId=name)
        # Not the secret itself in the message: json's errors do not quote the text.
        password = json.loads(answer["SecretString"])["password"]
    except (BotoCoreError, ClientError) as error:
        raise TransientError(f"cannot read the database's secret {name}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise TransientError(f'the secret {name} is not a JSON object with a field "password"') from error
    if not isinstance(password, str):
        raise TransientError(f'the field "password" of the secret {name} is not a string')
    return password
