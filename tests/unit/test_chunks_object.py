"""The object reader: bounded requests, repeated reads, and which errors are for good."""

from __future__ import annotations

from itertools import islice

import pytest
from botocore.exceptions import EndpointConnectionError, IncompleteReadError, ReadTimeoutError

from common.errors import PermanentError, TransientError
from tests.unit.chunk_files import ETAG, FakeS3, client_error, job_of
from uploads.object_bytes import BLOCK_BYTES, SEGMENT_BYTES, ObjectBytes

KIB = 1024
DATA = bytes(range(251)) * (40 * KIB)  # 9.8 MiB; 251 is prime, so no two blocks are alike


def read(s3: FakeS3, start: int, end: int, stop: int | None = None) -> bytes:
    source = ObjectBytes(s3, job_of(DATA), lambda: 1.0)  # type: ignore[arg-type]
    data = b""
    for block in source.blocks(start, end):
        assert 0 < len(block) <= BLOCK_BYTES
        data += block
        if stop is not None and start + len(data) >= stop:
            break
    return data


def test_the_whole_object_arrives_in_requests_of_a_few_mebibytes() -> None:
    s3 = FakeS3(DATA)
    assert read(s3, 0, len(DATA)) == DATA
    assert s3.ranges == [
        (0, SEGMENT_BYTES),
        (SEGMENT_BYTES, 2 * SEGMENT_BYTES),
        (2 * SEGMENT_BYTES, len(DATA)),
    ]


def test_a_range_is_read_to_its_end_first_and_beyond_it_in_growing_steps() -> None:
    s3 = FakeS3(DATA)
    end = 1000 * KIB
    assert read(s3, 999, end, stop=end + 400 * KIB).startswith(DATA[999 : end + 400 * KIB])
    assert s3.ranges == [
        (999, end),
        (end, end + 64 * KIB),
        (end + 64 * KIB, end + 320 * KIB),
        (end + 320 * KIB, end + 1344 * KIB),
    ]


def test_nothing_is_requested_beyond_what_the_reader_takes() -> None:
    s3 = FakeS3(DATA)
    read(s3, 0, 1000 * KIB, stop=1000 * KIB)
    assert s3.ranges == [(0, 1000 * KIB)]


def test_a_byte_more_than_a_segment_is_no_request_of_its_own() -> None:
    s3 = FakeS3(DATA)
    read(s3, 0, SEGMENT_BYTES + 1, stop=SEGMENT_BYTES + 1)
    assert s3.ranges == [(0, SEGMENT_BYTES + 1)]


@pytest.mark.parametrize("version", [None, "v1"])
def test_every_request_names_the_content_that_was_planned(version: str | None) -> None:
    s3 = FakeS3(DATA)
    source = ObjectBytes(s3, job_of(DATA, version_id=version), lambda: 1.0)  # type: ignore[arg-type]
    next(source.blocks(0, 10))
    assert s3.requests == [{"Bucket": "uploads", "Key": "a file.ndjson", "IfMatch": ETAG}]


def test_once_the_current_object_is_another_one_the_version_is_read() -> None:
    s3 = FakeS3(DATA)
    s3.faults = [client_error("PreconditionFailed", 412)]
    source = ObjectBytes(s3, job_of(DATA, version_id="v1"), lambda: 1.0)  # type: ignore[arg-type]
    blocks = source.blocks(0, 2 * SEGMENT_BYTES)
    assert b"".join(islice(blocks, 2 * SEGMENT_BYTES // BLOCK_BYTES)) == DATA[: 2 * SEGMENT_BYTES]
    assert [request.get("VersionId") for request in s3.requests] == [None, "v1", "v1"]
    assert {request["IfMatch"] for request in s3.requests} == {ETAG}


@pytest.mark.parametrize(
    "fault",
    [
        IncompleteReadError(actual_bytes=1, expected_bytes=2),
        ReadTimeoutError(endpoint_url="https://s3"),
        EndpointConnectionError(endpoint_url="https://s3"),
        b"short",
    ],
)
def test_a_read_that_breaks_off_is_repeated_and_after_the_third_time_left_to_redelivery(
    fault: Exception | bytes,
) -> None:
    s3 = FakeS3(DATA)
    s3.faults = [fault, fault]
    assert read(s3, 5, 100, stop=100) == DATA[5:100]
    assert s3.ranges == [(5, 100)] * 3
    s3.faults = [fault] * 3
    with pytest.raises(TransientError, match="S3 does not deliver bytes=5-99 of the object"):
        read(s3, 5, 100)


@pytest.mark.parametrize(
    ("code", "status", "reason"),
    [
        ("PreconditionFailed", 412, "the object has changed since it was planned"),
        ("NoSuchKey", 404, "the object is gone"),
        ("NoSuchVersion", 404, "the object is gone"),
        ("MethodNotAllowed", 405, "the object is gone"),
        ("InvalidRange", 416, "the object is shorter than it was when it was planned"),
        ("InvalidObjectState", 403, "the object is archived and cannot be read"),
    ],
)
def test_an_object_that_is_not_what_was_planned_is_a_permanent_error(
    code: str, status: int, reason: str
) -> None:
    s3 = FakeS3(DATA)
    s3.faults = [client_error(code, status)]
    with pytest.raises(PermanentError, match=f"^{reason}$"):
        read(s3, 0, 100)


@pytest.mark.parametrize(
    ("code", "status"),
    [("SlowDown", 503), ("InternalError", 500), ("AccessDenied", 403), ("NoSuchBucket", 404)],
)
def test_any_other_answer_of_s3_is_a_transient_error(code: str, status: int) -> None:
    s3 = FakeS3(DATA)
    s3.faults = [client_error(code, status)]
    with pytest.raises(TransientError, match=code):
        read(s3, 0, 100)


def test_reading_ends_when_the_time_runs_out() -> None:
    s3 = FakeS3(DATA)
    left = iter([2.0, 1.0, 0.0])
    source = ObjectBytes(s3, job_of(DATA), lambda: next(left))  # type: ignore[arg-type]
    with pytest.raises(TransientError, match=f"the time ran out at byte {2 * SEGMENT_BYTES} of the object"):
        for _ in source.blocks(0, len(DATA)):
            pass
    assert len(s3.ranges) == 2
