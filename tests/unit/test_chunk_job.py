"""The chunk job and the chunk count: what plan and chunks say to each other."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import ValidationError

from common.errors import PermanentError
from uploads.chunk_job import ChunkCount, ChunkJob, chunk_item, job_id

JOB: dict[str, Any] = {
    "job": "u:3", "upload": "u", "bucket": "b", "key": "k", "etag": '"e"', "chunk": 3,
    "start": 20, "end": 30, "size": 40, "format": "csv", "gzip": False,
}  # fmt: skip


def changed(**changes: Any) -> str:
    return json.dumps({name: value for name, value in (JOB | changes).items() if value is not ...})


def test_a_job_survives_the_queue() -> None:
    job = ChunkJob.model_validate(
        JOB | {"key": "ü\x01\uffff😀", "version_id": "v", "id_field": "id", "key_field": "日本"}
    )
    body = job.to_json()
    assert body.isascii()
    assert ChunkJob.from_json(body) == job


def test_what_is_not_set_is_not_sent() -> None:
    assert set(json.loads(ChunkJob.model_validate(JOB).to_json())) == set(JOB)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("", "Invalid JSON"),
        ("[]", "not a chunk job: "),
        (changed(key=...), "key: Field required"),
        (changed(chunk="3"), "chunk: "),
        (changed(more=1), "more: Extra inputs"),
        (changed(format="xml"), "format: "),
        (changed(job="u:4"), "job is not upload:chunk"),
        (changed(end=...), "end must be absent for a gzip file"),
        (changed(gzip=True), "end must be absent for a gzip file"),
        (changed(end=20), "do not make a byte range"),
        (changed(end=41), "do not make a byte range"),
        (changed(etag=""), "etag: "),
    ],
)
def test_anything_else_is_refused_with_the_reason(body: str, reason: str) -> None:
    with pytest.raises(PermanentError, match=reason):
        ChunkJob.from_json(body)


def test_chunks_sort_as_text() -> None:
    assert sorted(map(chunk_item, [10, 9, 0, 9999, 100])) == [chunk_item(n) for n in [0, 9, 10, 100, 9999]]
    assert job_id("u", 7) == "u:7"


@pytest.mark.parametrize("end", [100, None])
def test_a_count_survives_the_ledger(end: int | None) -> None:
    count = ChunkCount(
        chunk=7, start=10, end=end, lines=5, published=3, rejected=2, file_lines=9,
        published_at=datetime(2026, 11, 21, 8, 1, 2, 3, tzinfo=UTC),
    )  # fmt: skip
    item = count.to_item("u")
    assert (item["upload"], item["item"]) == ({"S": "u"}, {"S": "chunk#000007"})
    assert ChunkCount.from_item(item) == count


def test_a_count_that_does_not_add_up_is_none() -> None:
    with pytest.raises(ValidationError, match="lines is not published"):
        ChunkCount(
            chunk=0, start=0, lines=5, published=3, rejected=1, file_lines=5,
            published_at=datetime(2026, 11, 21, tzinfo=UTC),
        )  # fmt: skip
