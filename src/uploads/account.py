"""The account of an upload: every line of the file is a row, a rejection, a repetition or a conflict, or it is
missing. Pure.

What the file holds is in the ledger (each chunk's count, written once the chunk is published whole); what
became of it is in Postgres. Only both together can say ``done``:

    lines in the file = rows inserted + lines rejected + lines that repeat an id
                      + lines that have a known id and other content (conflicting)
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import timedelta
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from uploads.chunk_job import ChunkCount, ChunkFailure
    from uploads.ledger import UploadEntry

State = Literal["registered", "planned", "publishing", "loading", "done", "stuck", "failed"]
"""registered: known, its chunk jobs not all sent. planned: all sent, no chunk published. publishing: some
chunks are published. loading: all are, and Postgres has not all of their lines. done: it has, chunk by
chunk. stuck: not done, and nothing has moved for a while; it may still go on. failed: all of it, or a part, can
never be loaded as it is; the reason says why."""


@dataclass(frozen=True, slots=True)
class RowCounts:
    """How many lines Postgres has of one chunk, by what became of them."""

    inserted: int = 0
    rejected: int = 0
    repeated: int = 0
    conflicting: int = 0

    @property
    def settled(self) -> int:
        """All of them."""
        return self.inserted + self.rejected + self.repeated + self.conflicting


@dataclass(frozen=True, slots=True)
class ChunkAccount:
    """The account of one chunk."""

    chunk: int
    lines: int | None
    """None until it has been published whole: how many lines it has is then not known."""
    inserted: int
    rejected: int
    repeated: int
    conflicting: int
    missing: int | None
    """Lines that Postgres has not, or None with ``lines``. Below zero would be more rows than lines: a
    defect."""


@dataclass(frozen=True, slots=True)
class Account:
    """The account of an upload. Its numbers of lines are those of the chunks published so far."""

    upload: str
    bucket: str
    key: str
    size: int
    state: State
    reason: str | None
    """Of ``failed`` and ``stuck``: what is wrong, or what is missing; one sentence for a person."""
    lines: int
    inserted: int
    rejected: int
    repeated: int
    conflicting: int
    missing: int
    """Lines known to be in the file and not in Postgres. 0 is not enough to be done: see ``state``."""
    chunks_planned: int | None
    chunks_published: int
    registered_at: str
    """A file that was put again has the time of the first. So have the next four: what it is loaded as."""
    format: str | None
    delimiter: str | None
    """Of a CSV file: ``,`` ``;`` ``|`` or a tab."""
    id_field: str | None
    key_field: str | None
    moved_at: str
    """When anything last moved, as far as was looked."""
    chunks: tuple[ChunkAccount, ...]

    def to_json(self, *, chunks: bool = True) -> dict[str, Any]:
        """As JSON-compatible values; without the list of chunks for a summary."""
        fields = asdict(self)
        if not chunks:
            del fields["chunks"]
        return fields


def account(
    entry: UploadEntry,
    rows: Mapping[int, RowCounts],
    *,
    now: datetime,
    stuck_after: timedelta,
    last_row: datetime | None = None,
) -> Account:
    """The account of an upload.

    Parameters
    ----------
    entry
        What the ledger knows.
    rows
        What Postgres has, by chunk. Read it after the ledger, so that it is not behind the counts.
    stuck_after
        An upload that is not done and has not moved for this long is stuck.
    last_row
        When Postgres took the latest of its rows, if that is known: a sign of life while all chunks are
        published.
    """
    upload = entry.upload
    counts = {count.chunk: count for count in entry.counts}
    chunks = _chunks(counts, rows, upload.chunks or 0)
    moves = [
        upload.registered_at,
        upload.planned_at,
        last_row,
        *(count.published_at for count in entry.counts),
    ]
    moved_at = max(move for move in moves if move is not None)
    state = _state(entry, chunks)
    reason = upload.failed
    if state not in ("done", "failed"):
        surplus = [chunk for chunk in chunks if (chunk.missing or 0) < 0]
        failures = [failure for failure in entry.failures if failure.chunk not in counts]
        hopeless = bool(surplus or failures)
        if hopeless or now - moved_at >= stuck_after:
            reason = _what_is_missing(state, chunks, surplus, failures)
            state = "failed" if hopeless else "stuck"
    return Account(
        upload=upload.upload,
        bucket=upload.bucket,
        key=upload.key,
        size=upload.size,
        state=state,
        reason=reason,
        lines=sum(chunk.lines or 0 for chunk in chunks),
        inserted=sum(chunk.inserted for chunk in chunks),
        rejected=sum(chunk.rejected for chunk in chunks),
        repeated=sum(chunk.repeated for chunk in chunks),
        conflicting=sum(chunk.conflicting for chunk in chunks),
        missing=sum(max(0, chunk.missing or 0) for chunk in chunks),
        chunks_planned=upload.chunks,
        chunks_published=len(counts),
        registered_at=upload.registered_at.isoformat(),
        format=upload.format,
        delimiter=(upload.delimiter or ",") if upload.format == "csv" else None,
        id_field=upload.id_field,
        key_field=upload.key_field,
        moved_at=moved_at.isoformat(),
        chunks=chunks,
    )


def lines_before(counts: Sequence[ChunkCount]) -> dict[int, int]:
    """How many lines of the file, as an editor counts, lie before each chunk, as far as all before are
    counted.

    The line of the file = this + the line in the chunk.
    """
    in_order = sorted(counts, key=lambda count: count.chunk)
    known = [count for number, count in enumerate(in_order) if count.chunk == number]
    return dict(enumerate(accumulate((count.file_lines for count in known), initial=0)))


def _chunks(
    counts: Mapping[int, ChunkCount], rows: Mapping[int, RowCounts], planned: int
) -> tuple[ChunkAccount, ...]:
    accounts = []
    # Whatever names a chunk makes it one: rows may be there before the count, both before the plan is noted.
    for number in sorted({*range(planned), *counts, *rows}):
        row = rows.get(number, RowCounts())
        lines = counts[number].lines if number in counts else None
        missing = None if lines is None else lines - row.settled
        accounts.append(
            ChunkAccount(number, lines, row.inserted, row.rejected, row.repeated, row.conflicting, missing)
        )
    return tuple(accounts)


def _state(entry: UploadEntry, chunks: Sequence[ChunkAccount]) -> State:
    if entry.upload.failed is not None:
        return "failed"
    if entry.upload.chunks is None:
        return "registered"
    if all(chunk.missing == 0 for chunk in chunks):
        return "done"
    if all(chunk.lines is not None for chunk in chunks):
        return "loading"
    begun = any(
        chunk.lines is not None or chunk.inserted or chunk.rejected or chunk.repeated or chunk.conflicting
        for chunk in chunks
    )
    return "publishing" if begun else "planned"


def _what_is_missing(
    state: State,
    chunks: Sequence[ChunkAccount],
    surplus: Sequence[ChunkAccount],
    failures: Sequence[ChunkFailure],
) -> str:
    if surplus:
        return f"more rows than lines in {_numbers(surplus)}: please report this defect"
    parts = []
    if failures:
        more = f" (and {len(failures) - 1} more failed)" if len(failures) > 1 else ""
        parts.append(f"chunk {failures[0].chunk} failed: {failures[0].failed}{more}")
    if state == "registered":
        parts.append("its chunk jobs have not all been sent")
        return "; ".join(parts)
    if unpublished := [chunk for chunk in chunks if chunk.lines is None]:
        parts.append(f"not published: {_numbers(unpublished)}")
    if short := [chunk for chunk in chunks if chunk.missing]:
        lines = sum(chunk.missing or 0 for chunk in short)
        parts.append(f"published, but not in Postgres: {lines} lines of {_numbers(short)}")
    return "; ".join(parts)


def _numbers(chunks: Sequence[ChunkAccount]) -> str:
    shown = ", ".join(str(chunk.chunk) for chunk in chunks[:10])
    more = f" and {len(chunks) - 10} more" if len(chunks) > 10 else ""
    return f"chunk{'s' if len(chunks) > 1 else ''} {shown}{more}"
