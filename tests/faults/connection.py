"""In the place of pg8000's connection: it leads to the real Postgres, and each message with its answer is a step."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pg8000.native
from pg8000.exceptions import InterfaceError

from tests.faults.faults import Kind
from tests.faults.ports import Port
from tests.faults.turns import Touches

if TYPE_CHECKING:
    from tests.faults.environment import Environment

INSERT = "INSERT records"
_LOCAL = {"connect", "BEGIN", "PREPARE", "SET", "RELEASE"}
"""Steps that nobody else can see: which of two invocations makes them first changes nothing."""
_ENDS = {"COMMIT", "ROLLBACK", "ROLLBACK TO"}
_TABLES = re.compile(r"\b(?:[a-z]+_)?records\b")
_SQLSTATES = {"deadlock": "40P01", "locked": "55P03"}


here = threading.local()
"""``here.environment`` is the environment whose code runs in this thread."""


def current() -> Environment:
    """The environment whose code runs in this thread."""
    environment: Environment = here.environment
    return environment


class Connection(pg8000.native.Connection):  # type: ignore[misc]  # pg8000 has no types
    """A connection to the real Postgres; each message with its answer is a step."""

    def __init__(self, *arguments: Any, sock: Any, **options: Any) -> None:
        self.environment = current()
        self._socket = sock
        self._sock: Any = None
        self.pid: int | None = None
        """The server's process; None while it is not connected."""
        self.broken = False
        self._written: Touches = frozenset()
        """Rows that the open transaction has inserted. None: it has done other things, too."""
        self.environment.connections.append(self)

        def connect() -> None:
            super(Connection, self).__init__(*arguments, sock=sock, **options)
            self.pid = int.from_bytes(self._backend_key_data[:4])

        self._step("connect", connect)

    def execute_simple(self, statement: str) -> Any:
        return self._step(statement, lambda: super(Connection, self).execute_simple(statement))

    def execute_unnamed(self, statement: str, *arguments: Any, **options: Any) -> Any:
        return self._step(
            statement, lambda: super(Connection, self).execute_unnamed(statement, *arguments, **options)
        )

    def prepare_statement(self, statement: str, *arguments: Any) -> Any:
        return self._step("PREPARE", lambda: super(Connection, self).prepare_statement(statement, *arguments))

    def execute_named(self, name: bytes, parameters: Any, *arguments: Any) -> Any:
        ids = parameters[0].split("\x1f")
        self.environment.world.rules.storing(self.environment, ids)
        arguments = (name, parameters, *arguments)
        rows = frozenset(("row", each) for each in ids)
        return self._step(
            "INSERT INTO records", lambda: super(Connection, self).execute_named(*arguments), rows
        )

    def close(self) -> None:
        if self.environment.dead:
            return
        super().close()

    def break_off(self) -> None:
        """The connection is gone, without a word to the server."""
        if not self.broken:
            self.broken = True
            with suppress(OSError):
                self._socket.shutdown(2)

    def discard(self) -> None:
        """Free what is left of it; what it had not sent yet is of no use to anybody."""
        for file in (self._sock, self._socket):
            with suppress(OSError, ValueError):
                if file is not None:
                    file.close()

    def raise_in_server(self, sqlstate: str) -> None:
        """Have the server refuse with this SQLSTATE, in the transaction that is open."""
        super().execute_simple(f"DO $$BEGIN RAISE EXCEPTION 'trouble' USING ERRCODE='{sqlstate}'; END$$")

    def _step(self, statement: str, call: Callable[[], Any], rows: Touches = None) -> Any:
        operation = name_of(statement)
        if operation == "BEGIN":
            self._written = frozenset()
        elif operation in _ENDS:
            rows = self._written
        elif operation in _LOCAL or _only_looks(statement):
            rows = frozenset()
        elif operation == INSERT and self._written is not None and rows is not None:
            self._written |= rows
        else:
            self._written = None
        query = _Query(self, call, rows)
        return self.environment.step("postgres", operation, query, alone=operation in _LOCAL)


class _Query(Port):
    def __init__(self, connection: Connection, call: Callable[[], Any], rows: Touches) -> None:
        self._connection = connection
        self._call = call
        self._rows = rows

    def touches(self) -> Touches:
        return self._rows

    def perform(self) -> Any:
        return self._call()

    def give_up(self) -> Any:
        self._connection.break_off()
        raise InterfaceError("network error") from TimeoutError("timed out")

    def refuse(self) -> Any:
        self._connection.break_off()
        raise InterfaceError("network error") from ConnectionResetError(104, "Connection reset by peer")

    def fail(self, fault: Kind) -> Any:
        database = self._connection.environment.world.database
        match fault:
            case "shutdown":
                database.terminate(self._connection.pid)
                return self._call()
            case "restart":
                database.restart()
                return self._call()
        self._connection.raise_in_server(_SQLSTATES[fault])
        raise AssertionError("the server did not refuse")


def name_of(statement: str) -> str:
    """A statement's name as a step: its verb, and the table that it is about."""
    verb = statement.split(None, 1)[0].rstrip(";")
    if statement.startswith("ROLLBACK TO"):
        return "ROLLBACK TO"
    table = _TABLES.search(statement) if verb in {"SELECT", "INSERT", "DELETE", "UPDATE"} else None
    return f"{verb} {table[0]}" if table else verb


def _only_looks(statement: str) -> bool:
    # Whatever writes rejected_records touches everything, so this is told apart from that.
    return statement.lstrip().startswith("SELECT") and set(_TABLES.findall(statement)) == {"rejected_records"}
