"""Asks the stack's report function about uploads, because a laptop cannot reach a database in a VPC."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from cli.errors import UserError, asking
from cli.show import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cli.target import Target

type AccountAnswer = dict[str, Any]
"""The fields of :class:`uploads.account.Account`, and ``waiting``: why functions cannot go on."""

CLOSED = "done"
ENDED = frozenset({CLOSED, "failed", "stuck"})
"""States that waiting does not change."""


PAGE = 500
"""Rejected records in one answer at most."""


class RejectedPage(NamedTuple):
    """Some rejected records, and the place behind the last one; None: there are no more."""

    rows: list[dict[str, Any]]
    next: str | None


class Reports:
    """Questions to a stack. Each raises :class:`UserError` when it cannot be answered."""

    def __init__(self, target: Target) -> None:
        self._client = target.client("lambda")
        self._function = target.output("ReportFunctionName")

    def account(self, upload: str) -> AccountAnswer | None:
        """The account of an upload; None if there is no such upload (yet)."""
        found: AccountAnswer | None = self._ask(account=upload)
        return found

    def uploads(self, limit: int) -> list[AccountAnswer]:
        """The accounts of the latest uploads, the newest first."""
        found: list[AccountAnswer] = self._ask(uploads=limit)
        return found

    def rejected(self, upload: str | None, limit: int) -> list[dict[str, Any]] | None:
        """The first rejected records of an upload, or the last ones of all; None if there is no such upload."""
        found: list[dict[str, Any]] | None = self._answer(rejected=upload, limit=limit)["rejected"]
        return found

    def rejected_pages(
        self, upload: str | None, limit: int | None, after: str = ""
    ) -> Iterator[RejectedPage] | None:
        """Rejected records behind the place ``after``, as many as ``limit`` says or all, a page at a time.

        Those of an upload come in the order of its file, those of all in the order of their ids. None if there is no
        such upload.
        """
        first = self._page(upload, limit, after)
        return None if first is None else self._pages(first, upload, limit)

    def _pages(self, page: RejectedPage, upload: str | None, limit: int | None) -> Iterator[RejectedPage]:
        left = limit
        while True:
            yield page
            left = None if left is None else left - len(page.rows)
            if page.next is None or left == 0:
                return
            page = self._page(upload, left, page.next) or RejectedPage([], None)

    def _page(self, upload: str | None, limit: int | None, after: str) -> RejectedPage | None:
        number = PAGE if limit is None else min(limit, PAGE)
        answer = self._answer(rejected=upload, limit=number, after=after)
        return None if answer["rejected"] is None else RejectedPage(answer["rejected"], answer.get("next"))

    def reasons(self, upload: str, limit: int) -> list[list[Any]]:
        """Why records of an upload were rejected: ``[reason, number]``, the most frequent first."""
        found: list[list[Any]] = self._answer(rejected=upload, reasons=limit)["rejected"]
        return found

    def stream(self) -> dict[str, Any]:
        """How many records Postgres has, and why something waits; see :meth:`uploads.report.Report.stream`."""
        found: dict[str, Any] = self._ask(stream=True)
        return found

    def redrive(self, what: str, upload: str | None, after: str = "") -> dict[str, Any]:
        """What of the rejected records is to be tried again; see :class:`uploads.redrive.Redrive`."""
        found: dict[str, Any] = self._ask(redrive=what, upload=upload, after=after)
        return found

    def _ask(self, **question: Any) -> Any:
        return self._answer(**question)[next(iter(question))]

    def _answer(self, **question: Any) -> Any:
        with asking("ask the stack"):
            answer = self._client.invoke(FunctionName=self._function, Payload=json.dumps(question).encode())
        body = json.loads(answer["Payload"].read())
        if "FunctionError" in answer:
            raise UserError(f"The stack could not answer: {printable(str(body.get('errorMessage') or body))}")
        return body
