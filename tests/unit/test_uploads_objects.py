"""Reading uploaded objects: what is gone for good, what is only a fault of the moment."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from common.errors import TransientError
from uploads import objects as objects_module
from uploads.objects import ObjectGoneError, Objects
from uploads.upload import Upload

DATA = b"0123456789"
UPLOAD = Upload(
    upload="u",
    bucket="b",
    key="a.csv",
    etag='"e"',
    size=len(DATA),
    format="csv",
    registered_at=datetime(2026, 11, 21, tzinfo=UTC),
)
VERSION = UPLOAD.model_copy(update={"version_id": "v"})


def client_error(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "GetObject")


class Body:
    def __init__(self, outcome: bytes | Exception) -> None:
        self.outcome = outcome

    def read(self) -> bytes:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class S3:
    """Answers with the given faults first: an answer that is an error, a body that breaks, a wrong body."""

    def __init__(self, *faults: Any) -> None:
        self.faults = list(faults)
        self.requests: list[dict[str, Any]] = []

    def get_object(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, ClientError):
            raise fault
        first, last = map(int, request["Range"].removeprefix("bytes=").split("-"))
        return {"Body": Body(DATA[first : last + 1] if fault is None else fault)}

    def head_object(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        if self.faults:
            raise self.faults.pop(0)
        return {"ContentLength": len(DATA)}


def read(s3: S3, upload: Upload = UPLOAD, start: int = 0) -> bytes:
    return b"".join(Objects(s3).blocks(upload, start))  # type: ignore[arg-type]


def test_blocks_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objects_module, "BLOCK_BYTES", 4)
    s3 = S3()
    assert read(s3, start=1) == DATA[1:]
    assert [request["Range"] for request in s3.requests] == ["bytes=1-4", "bytes=5-8", "bytes=9-9"]
    assert {request["IfMatch"] for request in s3.requests} == {'"e"'}


BROKEN = ReadTimeoutError(endpoint_url="https://s3")


def test_a_body_that_breaks_off_or_is_another_is_read_again() -> None:
    assert read(S3(BROKEN, b"short"), start=2) == DATA[2:]
    with pytest.raises(TransientError, match=r"bytes 2 to 10 of 'a.csv' cannot be read: 5 bytes came"):
        read(S3(BROKEN, BROKEN, b"short"), start=2)


GONE = [
    ("NoSuchKey", 404, "the object is gone"),
    ("NoSuchVersion", 404, "the object is gone"),
    ("MethodNotAllowed", 405, "the object is deleted"),
    ("PreconditionFailed", 412, "the object has been overwritten"),
    ("InvalidObjectState", 403, "the object is archived"),
]


@pytest.mark.parametrize(("code", "status", "reason"), GONE)
def test_what_can_never_be_read_again(code: str, status: int, reason: str) -> None:
    with pytest.raises(ObjectGoneError, match=f"^{reason}$"):
        read(S3(client_error(code, status)))


@pytest.mark.parametrize("status", [404, 405, 412])
def test_a_head_has_only_a_status(status: int) -> None:
    with pytest.raises(ObjectGoneError):
        Objects(S3(client_error(str(status), status))).head(UPLOAD)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("SlowDown", 503), ("NoSuchBucket", 404)]
)
def test_anything_else_is_left_to_another_attempt(code: str, status: int) -> None:
    with pytest.raises(ClientError, match=code):
        read(S3(client_error(code, status)))


def test_an_object_overwritten_meanwhile_is_read_by_its_version() -> None:
    s3 = S3(client_error("PreconditionFailed", 412))
    assert read(s3, VERSION) == DATA
    assert [request.get("VersionId") for request in s3.requests] == [None, "v"]
    with pytest.raises(ObjectGoneError, match="the object is gone"):
        read(S3(client_error("PreconditionFailed", 412), client_error("NoSuchVersion", 404)), VERSION)


def test_metadata_is_that_of_the_version() -> None:
    s3 = S3()
    Objects(s3).head(VERSION)  # type: ignore[arg-type]
    assert s3.requests == [{"Bucket": "b", "Key": "a.csv", "IfMatch": '"e"', "VersionId": "v"}]
