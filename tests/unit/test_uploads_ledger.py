"""The ledger: every write may come twice, late, or from two places at once."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from common.errors import TransientError
from tests.unit.uploads_aws import Aws, moto_aws
from uploads.chunk_job import ChunkCount, ChunkFailure
from uploads.ledger import ChunkPlan, UploadEntry
from uploads.upload import Upload

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
UPLOAD = Upload(upload="u", bucket="b", key="k", etag='"e"', size=9, format="csv", registered_at=NOW)
FAILED = UPLOAD.model_copy(update={"failed": "the object is gone"})
ANEW = UPLOAD.model_copy(update={"registered_at": LATER})


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_aws() as resources:
        yield resources


def test_the_first_entry_stays(aws: Aws) -> None:
    assert aws.ledger.register(UPLOAD) is None
    assert aws.ledger.register(ANEW) == UPLOAD
    assert aws.ledger.register(FAILED) == UPLOAD
    assert aws.ledger.upload("u") == UPLOAD


def test_a_failed_entry_makes_way_for_one_that_has_not_failed(aws: Aws) -> None:
    aws.ledger.register(FAILED)
    assert aws.ledger.register(FAILED) == FAILED
    assert aws.ledger.register(ANEW) is None
    assert aws.ledger.upload("u") == ANEW


def test_an_entry_that_keeps_changing_is_left_for_another_attempt(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws.ledger.register(FAILED)
    monkeypatch.setattr("uploads.ledger.Ledger._delete_failed", lambda *_: None)
    with pytest.raises(TransientError, match="keeps changing"):
        aws.ledger.register(ANEW)


def test_planned_and_failed_are_noted_once(aws: Aws) -> None:
    aws.ledger.register(UPLOAD)
    aws.ledger.mark_planned(UPLOAD, 3, NOW)
    aws.ledger.mark_planned(UPLOAD, 4, LATER)
    aws.ledger.mark_failed(UPLOAD, "too late")
    assert aws.ledger.upload("u") == UPLOAD.model_copy(update={"chunks": 3, "planned_at": NOW})


def test_what_is_noted_is_for_the_entry_that_was_read(aws: Aws) -> None:
    aws.ledger.register(ANEW)
    aws.ledger.mark_failed(UPLOAD, "the object is gone")
    aws.ledger.mark_planned(UPLOAD, 3, NOW)
    assert aws.ledger.upload("u") == ANEW


def test_nothing_is_noted_of_an_upload_that_is_not_there(aws: Aws) -> None:
    aws.ledger.mark_planned(UPLOAD, 3, NOW)
    aws.ledger.mark_failed(UPLOAD, "the object is gone")
    assert aws.item("u") is None


def test_the_first_plan_holds(aws: Aws) -> None:
    assert aws.ledger.open_plan("u", 100) == ChunkPlan(chunk_bytes=100)
    assert aws.ledger.open_plan("u", 200) == ChunkPlan(chunk_bytes=100)


def test_a_plan_grows_until_it_is_complete(aws: Aws) -> None:
    plan = aws.ledger.open_plan("u", 100)
    aws.ledger.save_plan("u", plan.model_copy(update={"cuts": (100,)}))
    assert aws.ledger.open_plan("u", 100).cuts == (100,)
    complete = plan.model_copy(update={"cuts": (100, 200), "complete": True})
    aws.ledger.save_plan("u", complete)
    aws.ledger.save_plan("u", plan.model_copy(update={"cuts": (100,)}))
    assert aws.ledger.open_plan("u", 100) == complete


def test_the_largest_plan_fits_into_an_item() -> None:
    size = 50 * 10**12  # the largest object that S3 takes has 50 TB
    cuts = tuple(range(size // 10_000, size, size // 10_000))
    item = ChunkPlan(chunk_bytes=size // 10_000, cuts=cuts, complete=True).to_item("u" * 32)
    # A number takes a byte for two digits and one or two more; an element of a list one more:
    # docs.aws.amazon.com/amazondynamodb/latest/developerguide/CapacityUnitCalculations.html
    assert sum(len(cut["N"]) // 2 + 3 for cut in item["cuts"]["L"]) < 400 * 1024 - 1000


def test_an_entry_is_the_upload_and_its_counts_in_order(aws: Aws) -> None:
    def count(chunk: int) -> ChunkCount:
        return ChunkCount(
            chunk=chunk, start=chunk, end=chunk + 1, lines=1, published=1, rejected=0, file_lines=1,
            published_at=NOW,
        )  # fmt: skip

    aws.ledger.register(UPLOAD)
    aws.ledger.open_plan("u", 1)
    for chunk in (10, 2, 0, 2):
        aws.dynamodb.put_item(TableName=aws.table, Item=count(chunk).to_item("u"))
    aws.dynamodb.put_item(TableName=aws.table, Item=count(0).to_item("another"))
    assert aws.ledger.entry("u") == UploadEntry(UPLOAD, (count(0), count(2), count(10)))
    assert aws.ledger.entry("another") is None


def test_an_entry_knows_of_failed_chunks_and_passes_over_unfinished_ones(aws: Aws) -> None:
    failure = ChunkFailure(chunk=3, failed="the object is gone", failed_at=NOW)
    progress = {"upload": {"S": "u"}, "item": {"S": "progress#000004"}, "offset": {"N": "17"}}
    aws.ledger.register(UPLOAD)
    for item in (failure.to_item("u"), progress):
        aws.dynamodb.put_item(TableName=aws.table, Item=item)
    assert aws.ledger.entry("u") == UploadEntry(UPLOAD, (), (failure,))


def test_the_latest_uploads(aws: Aws) -> None:
    for minute, upload in enumerate("abc"):
        entered = NOW + timedelta(minutes=minute)
        aws.ledger.register(UPLOAD.model_copy(update={"upload": upload, "registered_at": entered}))
        aws.ledger.open_plan(upload, 1)
    assert aws.ledger.latest(2) == ["c", "b"]
    assert aws.ledger.latest(10) == ["c", "b", "a"]
