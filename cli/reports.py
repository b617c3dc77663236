"""What the stack knows of uploads: asked of its report function, since a laptop reaches no database in a VPC."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from cli.errors import UserError, asking

if TYPE_CHECKING:
    from cli.target import Target

type Account = dict[str, Any]
"""The fields of :class:`uploads.account.Account`."""

CLOSED = "done"
ENDED = frozenset({CLOSED, "failed", "stuck"})
"""States that waiting does not change."""


class Reports:
    """Questions to a stack. Each raises :class:`UserError` when it cannot be answered."""

    def __init__(self, target: Target) -> None:
        self._client = target.client("lambda")
        self._function = target.output("ReportFunctionName")

    def account(self, upload: str) -> Account | None:
        """The account of an upload; None if there is no such upload (yet)."""
        found: Account | None = self._ask(account=upload)
        return found

    def uploads(self, limit: int) -> list[Account]:
        """The accounts of the latest uploads, the newest first."""
        found: list[Account] = self._ask(uploads=limit)
        return found

    def rejected(self, upload: str | None, limit: int) -> list[dict[str, Any]] | None:
        """Rejected records, of one upload or of all; None if there is no such upload."""
        found: list[dict[str, Any]] | None = self._ask(rejected=upload, limit=limit)
        return found

    def redrive(self, what: str, upload: str | None, after: str = "") -> dict[str, Any]:
        """What of the rejected records is to be tried again; see :class:`uploads.redrive.Redrive`."""
        found: dict[str, Any] = self._ask(redrive=what, upload=upload, after=after)
        return found

    def _ask(self, **question: Any) -> Any:
        with asking("ask the stack"):
            answer = self._client.invoke(FunctionName=self._function, Payload=json.dumps(question).encode())
        body = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise UserError(f"The stack could not answer: {body.get('errorMessage') or body}")
        return body[next(iter(question))]
