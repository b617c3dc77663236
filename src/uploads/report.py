"""Answers the command line about uploads, by direct invocation, because a laptop cannot reach a database in a VPC."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from common import clients
from common.errors import PermanentError, TransientError
from common.observability import logger, tracer
from common.settings import ReportSettings
from common.waiting import BELIEVED
from postgres.database import Database
from records.reasons import faults_of, first_of
from uploads.account import Account, account, lines_before
from uploads.ledger import Ledger
from uploads.redrive import Redrive
from uploads.rows import RejectedRow, StoredRows, place

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.typing import LambdaContext

    from uploads.ledger import UploadEntry


_QUESTIONS = frozenset({"account", "uploads", "rejected", "redrive", "stream"})


class Question(BaseModel):
    """What is asked: exactly one of ``account``, ``uploads``, ``rejected``, ``redrive`` and ``stream``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    account: Annotated[str, Field(min_length=1)] | None = None
    """The id of an upload."""
    uploads: Annotated[int, Field(ge=1, le=100)] | None = None
    """How many of the uploads registered last."""
    rejected: str | None = None
    """The id of an upload, or null for every rejected record, whatever it is of."""
    limit: Annotated[int, Field(ge=1, le=500)] = 20
    """How many rejected records at most."""
    redrive: Literal["count", "messages", "chunks"] | None = None
    """What is wanted of the rejected records that are to be tried again."""
    upload: str | None = None
    """Of which upload; null: of all, and of none."""
    after: str | None = None
    """Where the last answer about ``redrive`` or ``rejected`` ended."""
    reasons: Annotated[int, Field(ge=1, le=100)] | None = None
    """With the id of an upload in ``rejected``: so many reasons, each once, in the place of records."""
    stream: Literal[True] | None = None
    """How many records there are, and why something waits."""

    @model_validator(mode="after")
    def _one_question(self) -> Self:
        asked = self.model_fields_set & _QUESTIONS
        if len(asked) != 1 or (asked != {"rejected"} and getattr(self, *asked) is None):
            raise ValueError("ask for one of account, uploads, rejected, redrive, stream")
        if self.reasons is not None and self.rejected is None:
            raise ValueError("reasons are told of one upload: rejected is its id")
        return self


class Report:
    """Answers from the ledger and Postgres."""

    def __init__(
        self,
        ledger: Ledger,
        rows: StoredRows,
        stuck_after: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        redrive: Redrive | None = None,
    ) -> None:
        self.redrive = redrive
        self._ledger = ledger
        self._rows = rows
        self._stuck_after = stuck_after
        self._now = now

    def account(self, upload: str) -> Account | None:
        """The account of an upload, or None if there is no such upload."""
        entry = self._ledger.entry(upload)
        return None if entry is None else self._account(entry)

    def uploads(self, limit: int) -> list[Account]:
        """The accounts of the uploads registered last, the newest first."""
        found = (self.account(upload) for upload in self._ledger.latest(limit))
        return [each for each in found if each is not None]

    def rejected(self, upload: str | None, limit: int, after: str | None = None) -> dict[str, Any]:
        """Rejected records with their lines in the file, and where they ended.

        ``{"rejected": [{...}], "next": PLACE or null}``. Null in place of the list: there is no such upload.
        ``next`` is null when there are no more, and for the newest ones of all, which are not paged.
        """
        entries: dict[str, UploadEntry | None] = {}
        if upload is not None:
            entries[upload] = self._ledger.entry(upload)
            if entries[upload] is None:
                return {"rejected": None, "next": None}
        rows = self._rows.rejected(upload, limit, after)
        for named in {row.upload for row in rows if row.upload is not None} - set(entries):
            entries[named] = self._ledger.entry(named)
        before = {named: lines_before(entry.counts) for named, entry in entries.items() if entry}
        keys = {named: entry.upload.key for named, entry in entries.items() if entry}
        paged = (upload, after) != (None, None) and len(rows) == limit
        return {
            "rejected": [_shown(row, keys, before) for row in rows],
            "next": place(rows[-1]) if paged else None,
        }

    def reasons(self, upload: str, limit: int) -> list[tuple[str, int]]:
        """Why records of an upload were rejected: each reason with its number, the most frequent first."""
        return self._rows.reasons(upload, limit)

    def waiting(self) -> list[dict[str, Any]]:
        """Why functions cannot go on: ``{"function", "reason", "since", "last"}``, the longest first."""
        notes = [note for note in self._ledger.waiting() if self._now() - note.last < BELIEVED]
        return [
            {
                "function": note.function,
                "reason": note.reason,
                "since": note.since.isoformat(),
                "last": note.last.isoformat(),
            }
            for note in sorted(notes, key=lambda note: note.since)
        ]

    def stream(self) -> dict[str, Any]:
        """How many records Postgres has, and why something waits.

        ``{"rows", "rejected", "conflicting", "exact", "last_row_at", "database", "waiting"}``. Where Postgres does
        not answer, ``database`` says why and the figures are null: this question is asked when something is wrong.
        """
        try:
            totals, database = self._rows.totals(), None
        except TransientError as error:
            totals, database = None, str(error)
        last = totals.last_row_at if totals else None
        return {
            "rows": totals.rows if totals else None,
            "rejected": totals.rejected if totals else None,
            "conflicting": totals.conflicting if totals else None,
            "exact": totals.exact if totals else None,
            "last_row_at": last.isoformat() if last else None,
            "database": database,
            "waiting": self.waiting(),
        }

    def _account(self, entry: UploadEntry) -> Account:
        rows = self._rows.by_chunk(entry.upload.upload)
        now = self._now()
        known = account(entry, rows, now=now, stuck_after=self._stuck_after)
        if known.state != "stuck":
            return known
        # Only now is it worth looking into every row of it: has Postgres taken one lately?
        last_row = self._rows.last(entry.upload.upload)
        return account(entry, rows, now=now, stuck_after=self._stuck_after, last_row=last_row)


def _shown(row: RejectedRow, keys: dict[str, str], before: dict[str, dict[int, int]]) -> dict[str, Any]:
    lines = before.get(row.upload, {}).get(row.chunk) if row.upload and row.chunk is not None else None
    return {
        "upload": row.upload,
        "key": keys.get(row.upload) if row.upload else None,
        # As an editor shows it. None until all chunks before are published.
        "line": lines + row.line if lines is not None and row.line is not None else None,
        "chunk": row.chunk,
        "line_in_chunk": row.line,
        "record_id": row.record_id,
        "kind": row.kind,
        "reason": row.reason,
        "raw": row.raw.decode(errors="replace"),
        "raw_bytes": row.raw_bytes,
        "rejected_at": row.rejected_at.isoformat(),
    }


@cache
def _report() -> Report:
    settings = ReportSettings.from_environment()
    ledger, database = Ledger(clients.dynamodb(), settings.ledger_table), Database(settings)
    return Report(
        ledger,
        StoredRows(database),
        timedelta(seconds=settings.stuck_after_seconds),
        redrive=Redrive(ledger, database),
    )


@tracer.capture_lambda_handler(capture_response=False)
@logger.inject_lambda_context
def handler(event: Any, _context: LambdaContext) -> dict[str, Any]:
    """Answer one question.

    - ``{"account": ID}`` → ``{"account": {...}}``: see :class:`~uploads.account.Account`, with ``waiting`` as
      :meth:`Report.waiting` has it; null: no such upload.
    - ``{"uploads": N}`` → ``{"uploads": [{...}, ...]}``: the same without ``chunks``, the newest first.
    - ``{"rejected": ID, "limit": N, "after": PLACE}`` → ``{"rejected": [{...}, ...], "next": PLACE}``: in the order
      of the file, conflicts among them (``kind``), 500 at most; ``next`` is null at the end. With ``"rejected": null``
      the last N rejected records of all, or with a place (``""`` at first) all of them in the order of their ids.
      With ``"reasons": N`` → ``{"rejected": [[reason, number], ...]}``.
    - ``{"stream": true}`` → ``{"stream": {...}}``: see :meth:`Report.stream`.
    - ``{"redrive": "count" | "messages" | "chunks", "upload": ID or null, "after": ...}`` →
      ``{"redrive": {...}}``: see :class:`~uploads.redrive.Redrive`.

    Raises
    ------
    PermanentError
        The question is none of these.
    TransientError
        Postgres does not answer.
    """
    try:
        asked = Question.model_validate(event)
    except ValidationError as error:
        raise PermanentError(first_of(faults_of(error))) from error
    return _answer(_report(), asked)


def _answer(report: Report, asked: Question) -> dict[str, Any]:
    match asked:
        case Question(account=str(upload)):
            found = report.account(upload)
            waiting = [] if found is None or found.state in ("done", "failed") else report.waiting()
            return {"account": found and found.to_json() | {"waiting": waiting}}
        case Question(uploads=int(number)):
            return {"uploads": [each.to_json(chunks=False) for each in report.uploads(number)]}
        case Question(stream=True):
            return {"stream": report.stream()}
        case Question(redrive=str(what)) if report.redrive is not None:
            return {"redrive": _redrive(report.redrive, what, asked)}
        case Question(rejected=str(upload), reasons=int(number)):
            return {"rejected": report.reasons(upload, number)}
        case _:
            return report.rejected(asked.rejected, asked.limit, asked.after)


def _redrive(redrive: Redrive, what: str, asked: Question) -> dict[str, Any]:
    if what == "count":
        return redrive.count(asked.upload)
    page = redrive.messages if what == "messages" else redrive.chunks
    return page(asked.upload, asked.after or "")
