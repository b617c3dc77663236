"""uploads/report: one question, one answer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import pytest

from common.errors import PermanentError, TransientError
from common.waiting import BELIEVED, Waiting
from tests.unit.uploads_aws import Aws, Context, moto_aws
from uploads import report as report_module
from uploads.account import RowCounts
from uploads.chunk_job import ChunkCount
from uploads.report import Report, handler
from uploads.rows import RejectedRow, StoredTotals, place
from uploads.upload import Upload

REGISTERED = datetime(2026, 11, 21, 8, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


class Stored:
    """Postgres, as far as the report sees it."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, RowCounts]] = {}
        self.last_row: datetime | None = None
        self.rejections: list[RejectedRow] = []
        self.asked_for_last = 0
        self.away = False

    def by_chunk(self, upload: str) -> dict[int, RowCounts]:
        return self.rows.get(upload, {})

    def last(self, _upload: str) -> datetime | None:
        self.asked_for_last += 1
        return self.last_row

    def rejected(self, upload: str | None, limit: int, after: str | None = None) -> list[RejectedRow]:
        found = [row for row in self.rejections if upload in (None, row.upload)]
        places = [place(row) for row in found]
        begin = places.index(after) + 1 if after else 0
        return found[begin : begin + limit]

    def reasons(self, upload: str, limit: int) -> list[tuple[str, int]]:
        return Counter(row.reason for row in self.rejections if row.upload == upload).most_common(limit)

    def totals(self) -> StoredTotals:
        if self.away:
            raise TransientError("Postgres does not answer")
        return StoredTotals(500, 2, 1, exact=True, last_row_at=REGISTERED)


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_aws() as resources:
        yield resources


@pytest.fixture
def stored() -> Stored:
    return Stored()


def enter(aws: Aws, upload: str, minute: int = 0, file_lines: tuple[int, ...] = (10, 20)) -> None:
    entered = Upload(
        upload=upload,
        bucket="b",
        key=f"{upload}.csv",
        etag='"e"',
        size=200,
        format="csv",
        registered_at=REGISTERED + minute * MINUTE,
    )
    aws.ledger.register(entered)
    aws.ledger.open_plan(upload, 100)
    aws.ledger.mark_planned(entered, 2, REGISTERED + minute * MINUTE)
    for chunk, number in enumerate(file_lines):
        count = ChunkCount(
            chunk=chunk, start=chunk * 100, end=chunk * 100 + 100, lines=3, published=3, rejected=0,
            file_lines=number, published_at=REGISTERED + minute * MINUTE,
        )  # fmt: skip
        aws.dynamodb.put_item(TableName=aws.table, Item=count.to_item(upload))


def report(aws: Aws, stored: Stored, now: datetime = REGISTERED + MINUTE) -> Report:
    return Report(aws.ledger, stored, 15 * MINUTE, now=lambda: now)  # type: ignore[arg-type]


def test_an_account_from_ledger_and_postgres(aws: Aws, stored: Stored) -> None:
    enter(aws, "u")
    stored.rows["u"] = {0: RowCounts(2, 1), 1: RowCounts(1)}
    found = report(aws, stored).account("u")
    assert found is not None
    assert (found.state, found.lines, found.inserted, found.rejected, found.missing) == (
        "loading",
        6,
        3,
        1,
        2,
    )
    assert stored.asked_for_last == 0


def test_before_it_says_stuck_it_looks_at_the_last_row(aws: Aws, stored: Stored) -> None:
    enter(aws, "u")
    later = REGISTERED + 20 * MINUTE
    stored.last_row = later - MINUTE
    found = report(aws, stored, later).account("u")
    assert found is not None
    assert found.state == "loading"
    stored.last_row = None
    found = report(aws, stored, later).account("u")
    assert found is not None
    assert found.state == "stuck"


def test_no_such_upload(aws: Aws, stored: Stored) -> None:
    assert report(aws, stored).account("nope") is None
    assert report(aws, stored).rejected("nope", 5)["rejected"] is None


def test_the_uploads_registered_last_come_first(aws: Aws, stored: Stored) -> None:
    for minute, upload in enumerate(["a", "b", "c"]):
        enter(aws, upload, minute)
    assert [each.upload for each in report(aws, stored).uploads(2)] == ["c", "b"]


def rejected(upload: str | None, chunk: int | None, line: int | None, raw: bytes = b"x") -> RejectedRow:
    return RejectedRow(
        f"{upload}/{chunk}/{line}", upload, chunk, line, "id", "conflict", "why", raw, len(raw), REGISTERED
    )


def test_rejections_have_the_line_that_an_editor_shows(aws: Aws, stored: Stored) -> None:
    enter(aws, "u")
    stored.rejections = [rejected("u", 0, 4), rejected("u", 1, 4), rejected("u", 2, 1), rejected("v", 0, 1)]
    shown = report(aws, stored).rejected("u", 10)["rejected"]
    assert shown is not None
    assert [row["line"] for row in shown] == [4, 14, 31]
    assert {row["kind"] for row in shown} == {"conflict"}
    assert {row["key"] for row in shown} == {"u.csv"}


def test_the_line_is_unknown_until_the_chunks_before_are_counted(aws: Aws, stored: Stored) -> None:
    enter(aws, "u", file_lines=())
    stored.rejections = [rejected("u", 0, 4), rejected("u", 1, 4)]
    shown = report(aws, stored).rejected("u", 10)["rejected"]
    assert shown is not None
    assert [(row["line"], row["chunk"], row["line_in_chunk"]) for row in shown] == [(4, 0, 4), (None, 1, 4)]


def test_rejections_of_all_kinds(aws: Aws, stored: Stored) -> None:
    enter(aws, "u")
    stored.rejections = [
        rejected("u", 1, 1),
        rejected(None, None, None, b"\xff\x00a"),
        rejected("gone", 0, 1),
    ]
    shown = report(aws, stored).rejected(None, 10)["rejected"]
    assert shown is not None
    assert [(row["upload"], row["key"], row["line"]) for row in shown] == [
        ("u", "u.csv", 11),
        (None, None, None),
        ("gone", None, None),
    ]
    assert (shown[1]["raw"], shown[1]["raw_bytes"]) == ("\ufffd\x00a", 3)


def test_rejections_go_on_where_the_last_page_ended(aws: Aws, stored: Stored) -> None:
    enter(aws, "u")
    stored.rejections = [rejected("u", 0, line) for line in range(1, 6)]
    lines, after = [], None
    for _ in range(3):
        page = report(aws, stored).rejected("u", 2, after)
        lines.append([row["line"] for row in page["rejected"]])
        after = page["next"]
    assert lines == [[1, 2], [3, 4], [5]]
    assert after is None


def test_the_newest_of_all_are_not_paged(aws: Aws, stored: Stored) -> None:
    stored.rejections = [rejected(None, None, None), rejected(None, None, None)]
    assert report(aws, stored).rejected(None, 2)["next"] is None
    assert report(aws, stored).rejected(None, 2, "")["next"] == "::None/None/None"


def test_the_stream_is_reported_with_why_it_waits_also_while_postgres_is_away(
    aws: Aws, stored: Stored
) -> None:
    clock = REGISTERED
    for function in ("consumer", "chunks"):
        Waiting(lambda: aws.dynamodb, aws.table, function, now=partial(lambda at: at, clock)).note(
            f"{function}: no answer"
        )
        clock += MINUTE
    found = report(aws, stored, clock).stream()
    assert (found["rows"], found["rejected"], found["exact"], found["database"]) == (500, 2, True, None)
    assert found["conflicting"] == 1
    assert [note["function"] for note in found["waiting"]] == ["consumer", "chunks"]

    stored.away = True
    found = report(aws, stored, clock).stream()
    assert (found["rows"], found["database"]) == (None, "Postgres does not answer")
    assert found["waiting"][0] == {
        "function": "consumer",
        "reason": "consumer: no answer",
        "since": REGISTERED.isoformat(),
        "last": REGISTERED.isoformat(),
    }


def test_a_note_that_nobody_has_renewed_is_not_believed(aws: Aws, stored: Stored) -> None:
    Waiting(lambda: aws.dynamodb, aws.table, "consumer", now=lambda: REGISTERED).note("no answer")
    assert report(aws, stored, REGISTERED + BELIEVED).waiting() == []


def test_an_account_that_is_open_says_why_functions_wait(aws: Aws, stored: Stored, ask: Any) -> None:
    enter(aws, "u")
    Waiting(lambda: aws.dynamodb, aws.table, "consumer", now=lambda: REGISTERED).note("no answer")
    assert [note["reason"] for note in ask({"account": "u"})["account"]["waiting"]] == ["no answer"]
    stored.rows["u"] = {0: RowCounts(3), 1: RowCounts(3)}
    assert ask({"account": "u"})["account"]["waiting"] == []


@pytest.fixture
def ask(aws: Aws, stored: Stored, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setattr(report_module, "_report", lambda: report(aws, stored))
    return lambda event: json.loads(json.dumps(handler(event, Context())))


def test_the_handler_answers_in_json(aws: Aws, stored: Stored, ask: Any) -> None:
    enter(aws, "u")
    stored.rejections = [rejected("u", 0, 1)]
    assert ask({"account": "u"})["account"]["chunks"][0]["chunk"] == 0
    assert ask({"account": "nope"}) == {"account": None}
    assert [each["upload"] for each in ask({"uploads": 5})["uploads"]] == ["u"]
    assert "chunks" not in ask({"uploads": 5})["uploads"][0]
    assert [row["line"] for row in ask({"rejected": "u", "limit": 3})["rejected"]] == [1]
    assert len(ask({"rejected": None})["rejected"]) == 1
    assert ask({"rejected": "nope"}) == {"rejected": None, "next": None}
    assert ask({"rejected": "u", "reasons": 3}) == {"rejected": [["why", 1]]}
    assert ask({"stream": True})["stream"]["rows"] == 500


@pytest.mark.parametrize(
    ("event", "reason"),
    [
        ({}, "ask for one of"),
        ({"limit": 3}, "ask for one of"),
        ({"account": "u", "uploads": 1}, "ask for one of"),
        ({"account": None}, "ask for one of"),
        ({"uploads": 0}, "uploads: "),
        ({"uploads": 101}, "uploads: "),
        ({"rejected": None, "limit": 501}, "limit: "),
        ({"acount": "u"}, "acount: "),
        ({"stream": False}, "stream: "),
        ({"stream": None}, "ask for one of"),
        ({"rejected": None, "reasons": 3}, "reasons are told of one upload"),
        ("text", "valid dictionary"),
    ],
)
def test_any_other_question_is_refused(ask: Any, event: Any, reason: str) -> None:
    with pytest.raises(PermanentError, match=reason):
        ask(event)
