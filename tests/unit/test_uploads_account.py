"""The account: what is in the file against what is in Postgres, chunk by chunk."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploads.account import Account, ChunkAccount, RowCounts, account, lines_before
from uploads.chunk_job import ChunkCount, ChunkFailure
from uploads.ledger import UploadEntry
from uploads.upload import Upload

REGISTERED = datetime(2026, 11, 21, 8, tzinfo=UTC)
PLANNED = REGISTERED + timedelta(minutes=1)
PUBLISHED = REGISTERED + timedelta(minutes=2)
SOON = REGISTERED + timedelta(minutes=3)
STUCK_AFTER = timedelta(minutes=15)


def count(
    chunk: int, lines: int, rejected: int = 0, at: datetime = PUBLISHED, file_lines: int = 0
) -> ChunkCount:
    return ChunkCount(
        chunk=chunk,
        start=chunk * 100,
        end=chunk * 100 + 100,
        lines=lines,
        published=lines - rejected,
        rejected=rejected,
        file_lines=file_lines or lines,
        published_at=at,
    )


def entry(
    *counts: ChunkCount,
    chunks: int | None = 2,
    failed: str | None = None,
    failures: tuple[ChunkFailure, ...] = (),
) -> UploadEntry:
    upload = Upload(
        upload="u",
        bucket="b",
        key="k.csv",
        etag='"e"',
        size=200,
        format="csv",
        registered_at=REGISTERED,
        chunks=chunks,
        planned_at=None if chunks is None else PLANNED,
        failed=failed,
    )
    return UploadEntry(upload, counts, failures)


def of(
    known: UploadEntry,
    rows: dict[int, RowCounts] | None = None,
    now: datetime = SOON,
    last_row: datetime | None = None,
) -> Account:
    return account(known, rows or {}, now=now, stuck_after=STUCK_AFTER, last_row=last_row)


BOTH = (count(0, 10, rejected=1), count(1, 5))


@pytest.mark.parametrize(
    ("known", "rows", "state"),
    [
        pytest.param(entry(chunks=None), {}, "registered", id="no jobs yet"),
        pytest.param(
            entry(BOTH[0], chunks=None), {0: RowCounts(9, 1)}, "registered", id="jobs sent, not noted yet"
        ),
        pytest.param(entry(), {}, "planned", id="jobs sent"),
        pytest.param(entry(), {1: RowCounts(1)}, "publishing", id="rows before the first count"),
        pytest.param(entry(BOTH[0]), {}, "publishing", id="one of two"),
        pytest.param(
            entry(BOTH[0]), {0: RowCounts(9, 1)}, "publishing", id="the first closed, the second to come"
        ),
        pytest.param(entry(*BOTH), {}, "loading", id="all published, no rows"),
        pytest.param(entry(*BOTH), {0: RowCounts(9, 1), 1: RowCounts(4)}, "loading", id="one row to come"),
        pytest.param(
            entry(*BOTH), {0: RowCounts(9, 1), 1: RowCounts(4, 0, 1)}, "done", id="every line is somewhere"
        ),
        pytest.param(
            entry(*BOTH), {0: RowCounts(0, 10), 1: RowCounts(5)}, "done", id="rejected by the consumer"
        ),
        pytest.param(entry(*BOTH), {0: RowCounts(0, 0, 0, 10), 1: RowCounts(5)}, "done", id="in conflict"),
        pytest.param(
            entry(), {1: RowCounts(0, 0, 0, 1)}, "publishing", id="a conflict before the first count"
        ),
        pytest.param(
            entry(count(0, 0), count(1, 5)), {1: RowCounts(5)}, "done", id="a chunk in which no line begins"
        ),
        pytest.param(entry(chunks=0), {}, "done", id="an empty file"),
        pytest.param(entry(chunks=None, failed="the object is gone"), {}, "failed", id="failed"),
    ],
)
def test_the_state(known: UploadEntry, rows: dict[int, RowCounts], state: str) -> None:
    assert of(known, rows).state == state


def test_one_chunk_too_many_does_not_pay_for_another() -> None:
    closed = of(entry(count(0, 10), count(1, 5)), {0: RowCounts(11), 1: RowCounts(4)})
    assert (closed.state, closed.missing) == ("failed", 1)
    assert closed.reason == "more rows than lines in chunk 0: please report this defect"


def test_the_numbers() -> None:
    closed = of(entry(*BOTH), {0: RowCounts(6, 2, 0, 1), 1: RowCounts(3, 0, 1)})
    assert (closed.lines, closed.inserted, closed.rejected, closed.repeated, closed.conflicting) == (
        15,
        9,
        2,
        1,
        1,
    )
    assert closed.missing == 2
    assert (closed.chunks_planned, closed.chunks_published) == (2, 2)
    assert closed.chunks == (ChunkAccount(0, 10, 6, 2, 0, 1, 1), ChunkAccount(1, 5, 3, 0, 1, 0, 1))


def test_a_chunk_not_counted_is_not_called_missing_by_lines() -> None:
    open_ = of(entry(BOTH[0]), {0: RowCounts(9, 1), 1: RowCounts(3)})
    assert (open_.lines, open_.inserted, open_.missing) == (10, 12, 0)
    assert open_.chunks[1] == ChunkAccount(1, None, 3, 0, 0, 0, None)


@pytest.mark.parametrize(
    ("known", "rows", "reason"),
    [
        (entry(chunks=None), {}, "its chunk jobs have not all been sent"),
        (entry(), {}, "not published: chunks 0, 1"),
        (entry(BOTH[0]), {0: RowCounts(9, 1)}, "not published: chunk 1"),
        (
            entry(BOTH[0]),
            {},
            "not published: chunk 1; published, but not in Postgres: 10 lines of chunk 0",
        ),
        (entry(*BOTH), {1: RowCounts(5)}, "published, but not in Postgres: 10 lines of chunk 0"),
        (entry(chunks=12), {}, "not published: chunks 0, 1, 2, 3, 4, 5, 6, 7, 8, 9 and 2 more"),
    ],
)
def test_stuck_says_what_is_missing(known: UploadEntry, rows: dict[int, RowCounts], reason: str) -> None:
    stuck = of(known, rows, now=PUBLISHED + STUCK_AFTER)
    assert (stuck.state, stuck.reason) == ("stuck", reason)


@pytest.mark.parametrize(
    ("known", "moved"),
    [(entry(chunks=None), REGISTERED), (entry(), PLANNED), (entry(BOTH[0]), PUBLISHED)],
)
def test_stuck_counts_from_the_last_move(known: UploadEntry, moved: datetime) -> None:
    moment = timedelta(microseconds=1)
    assert of(known, now=moved + STUCK_AFTER - moment).state != "stuck"
    stuck = of(known, now=moved + STUCK_AFTER)
    assert (stuck.state, stuck.moved_at) == ("stuck", moved.isoformat())


def test_a_row_taken_lately_is_a_move() -> None:
    later = PUBLISHED + STUCK_AFTER
    assert of(entry(*BOTH), now=later, last_row=SOON).state == "loading"
    assert of(entry(*BOTH), now=SOON + STUCK_AFTER, last_row=SOON).state == "stuck"


def test_done_and_failed_never_become_stuck() -> None:
    year = REGISTERED + timedelta(days=365)
    assert of(entry(*BOTH), {0: RowCounts(9, 1), 1: RowCounts(5)}, now=year).state == "done"
    failed = of(entry(chunks=None, failed="the object is gone"), now=year)
    assert (failed.state, failed.reason) == ("failed", "the object is gone")


def test_the_account_is_json() -> None:
    closed = of(entry(*BOTH), {0: RowCounts(9, 1)})
    as_json = json.loads(json.dumps(closed.to_json()))
    assert as_json["chunks"][1] == {
        "chunk": 1,
        "lines": 5,
        "inserted": 0,
        "rejected": 0,
        "repeated": 0,
        "conflicting": 0,
        "missing": 5,
    }
    assert as_json["registered_at"] == "2026-11-21T08:00:00+00:00"
    assert set(as_json) - set(closed.to_json(chunks=False)) == {"chunks"}


def test_lines_of_the_file_are_known_as_far_as_all_chunks_before_are_counted() -> None:
    counts = [count(3, 1), count(1, 2, file_lines=5), count(0, 9, file_lines=10)]
    assert lines_before(counts) == {0: 0, 1: 10, 2: 15}
    assert lines_before([]) == {0: 0}


rows = st.builds(RowCounts, *[st.integers(0, 3)] * 4)


@given(
    lines=st.lists(st.none() | st.integers(0, 9), max_size=4),
    stored=st.dictionaries(st.integers(0, 3), rows),
    planned=st.none() | st.integers(0, 4),
)
def test_done_means_every_line_of_every_chunk(
    lines: list[int | None], stored: dict[int, RowCounts], planned: int | None
) -> None:
    counts = [count(chunk, number) for chunk, number in enumerate(lines) if number is not None]
    closed = of(entry(*counts, chunks=planned), stored)
    if closed.state == "done":
        assert planned is not None
        assert {c.chunk for c in counts} >= set(range(planned))
        assert all(
            (row := stored.get(c.chunk, RowCounts())).inserted + row.rejected + row.repeated + row.conflicting
            == c.lines
            for c in counts
        )
        assert set(stored) <= {c.chunk for c in counts}
        assert closed.lines == closed.inserted + closed.rejected + closed.repeated + closed.conflicting
        assert closed.missing == 0


GONE = ChunkFailure(chunk=1, failed="the object is gone", failed_at=PUBLISHED)


@pytest.mark.parametrize(
    ("known", "reason"),
    [
        (entry(BOTH[0], failures=(GONE,)), "chunk 1 failed: the object is gone; not published: chunk 1"),
        (
            entry(failures=(GONE.model_copy(update={"chunk": 0}), GONE)),
            "chunk 0 failed: the object is gone (and 1 more failed); not published: chunks 0, 1",
        ),
        (
            entry(chunks=None, failures=(GONE,)),
            "chunk 1 failed: the object is gone; its chunk jobs have not all been sent",
        ),
    ],
)
def test_an_upload_has_failed_as_soon_as_one_of_its_chunks_has(known: UploadEntry, reason: str) -> None:
    made = of(known, {0: RowCounts(9, 1)} if known.counts else {})
    assert (made.state, made.reason) == ("failed", reason)


def test_a_chunk_that_failed_and_was_published_after_all_has_not_failed() -> None:
    made = of(entry(*BOTH, failures=(GONE,)), {0: RowCounts(9, 1), 1: RowCounts(5)})
    assert (made.state, made.reason) == ("done", None)


def test_the_account_says_as_what_the_file_was_registered() -> None:
    made = of(entry(*BOTH), {})
    assert (made.format, made.delimiter, made.id_field, made.key_field) == ("csv", ",", None, None)
    upload = entry(*BOTH).upload.model_copy(update={"format": "ndjson", "id_field": "id", "key_field": "k"})
    shown = of(replace(entry(*BOTH), upload=upload), {}).to_json()
    names = ("format", "delimiter", "id_field", "key_field")
    assert [shown[name] for name in names] == ["ndjson", None, "id", "k"]
    tabs = replace(entry(*BOTH), upload=upload.model_copy(update={"format": "csv", "delimiter": "\t"}))
    assert of(tabs, {}).delimiter == "\t"
