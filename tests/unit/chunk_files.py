"""Files as S3 would deliver them, and the jobs that name their chunks."""

from __future__ import annotations

import io
from typing import Any

from botocore.exceptions import ClientError

from uploads.chunk_job import ChunkJob

UPLOAD = "0123456789abcdef0123456789abcdef"
ETAG = '"e1"'


def job_of(
    data: bytes, *, chunk: int = 0, start: int = 0, end: int | None = None, **changes: Any
) -> ChunkJob:
    """The job of a chunk of ``data``; without ``end`` it goes to the end of the file."""
    fields = {
        "job": f"{UPLOAD}:{chunk}",
        "upload": UPLOAD,
        "bucket": "uploads",
        "key": "a file.ndjson",
        "etag": ETAG,
        "chunk": chunk,
        "start": start,
        "end": len(data) if end is None else end,
        "size": len(data),
        "format": "ndjson",
    }
    if changes.get("gzip"):
        fields["end"] = None
    return ChunkJob.model_validate(fields | changes)


class FakeS3:
    """An S3 client that has one object, counts the ranges it is asked for, and fails as told."""

    def __init__(self, data: bytes, etag: str = ETAG) -> None:
        self.data = data
        self.etag = etag
        self.ranges: list[tuple[int, int]] = []
        self.requests: list[dict[str, Any]] = []
        self.faults: list[Exception | bytes] = []
        """What the next requests answer, instead of what they ask for."""

    def get_object(self, *, Range: str, **request: Any) -> dict[str, Any]:
        first, last = map(int, Range.removeprefix("bytes=").split("-"))
        self.ranges.append((first, last + 1))
        self.requests.append(request)
        if self.faults:
            fault = self.faults.pop(0)
            if isinstance(fault, Exception):
                raise fault
            return {"Body": io.BytesIO(fault)}
        if request["IfMatch"] != self.etag:
            raise client_error("PreconditionFailed", 412)
        return {"Body": io.BytesIO(self.data[first : last + 1])}


def client_error(code: str, status: int = 400) -> ClientError:
    """An error as botocore raises it for an answer of AWS."""
    answer: Any = {
        "Error": {"Code": code, "Message": "said AWS"},
        "ResponseMetadata": {"HTTPStatusCode": status},
    }
    return ClientError(answer, "AnOperation")
