"""Kills the process at one of the two moments that tell the contestants apart, as Lambda kills a function
at its timeout.

``before``: just before the first statement that writes goes to Postgres. ``after``: as soon as Postgres has
confirmed the first commit. The place is the driver, which the contestants share; none of them knows.
"""

from __future__ import annotations

import os
import re
from typing import Any

from pg8000.core import CoreConnection

STATUS = 137
"""Exit status of the killed process: that of SIGKILL, as a shell would give it."""

_WRITE = re.compile(r"\b(INSERT\s+INTO|COPY\s+\S+.*\sFROM)\b", re.IGNORECASE | re.DOTALL)
_IDLE = (
    b"I"  # no transaction is open (postgresql.org/docs/current/protocol-message-formats.html, ReadyForQuery)
)


def arm(when: str) -> None:
    """Have this process die ``before`` its first write or ``after`` its first commit. Call it before it connects."""
    written = False
    query, parse = CoreConnection.send_QUERY, CoreConnection.send_PARSE
    complete, ready = CoreConnection.handle_COMMAND_COMPLETE, CoreConnection.handle_READY_FOR_QUERY

    def note(sql: str) -> None:
        if when == "before" and _WRITE.search(sql):
            os._exit(STATUS)

    def send_query(self: CoreConnection, sql: str) -> None:
        note(sql)
        query(self, sql)

    def send_parse(self: CoreConnection, name: bytes, statement: str, oids: Any = ()) -> None:
        note(statement)
        parse(self, name, statement, oids)

    def handle_complete(self: CoreConnection, data: bytes, context: Any) -> None:
        nonlocal written
        # A query may write and call itself SELECT (a WITH that inserts); COMMIT says it then.
        written = written or data.startswith((b"INSERT", b"COPY", b"COMMIT"))
        complete(self, data, context)

    def handle_ready(self: CoreConnection, data: bytes, context: Any) -> None:
        if written and data == _IDLE:
            os._exit(STATUS)
        ready(self, data, context)

    CoreConnection.send_QUERY = send_query
    CoreConnection.send_PARSE = send_parse
    CoreConnection.handle_COMMAND_COMPLETE = handle_complete
    CoreConnection.handle_READY_FOR_QUERY = handle_ready
