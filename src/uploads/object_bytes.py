"""Reads one S3 object as a stream that survives broken connections."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from common.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

    from uploads.chunk_job import ChunkJob

SEGMENT_BYTES = 4 * 1024 * 1024
BLOCK_BYTES = 64 * 1024
_READS = 3

_GONE = "the object is gone"
_PERMANENT = {
    # docs.aws.amazon.com/AmazonS3/latest/API/API_GetObject.html and .../API/ErrorResponses.html
    "PreconditionFailed": "the object has changed since it was planned",
    "InvalidRange": "the object is shorter than it was when it was planned",
    "NoSuchKey": _GONE,
    "NoSuchVersion": _GONE,
    "404": _GONE,
    "MethodNotAllowed": _GONE,  # this version of it is a delete marker
    "InvalidObjectState": "the object is archived and cannot be read",
}


class ObjectBytes:
    """Reads an upload's object: the version, or at least the content, that was planned, and no other.

    A range is read as several requests of a few MiB, each taken whole. So no connection stays open while
    its reader waits for the stream (S3 closes one that is not read), a broken one costs one repeated
    request, and whoever stops reading leaves nothing behind.

    Parameters
    ----------
    client
        A boto3 S3 client.
    job
        Names the object.
    seconds_left
        How long may still be worked, asked before each request.
    """

    def __init__(self, client: S3Client, job: ChunkJob, seconds_left: Callable[[], float]) -> None:
        self._client = client
        self._size = job.size
        self._seconds_left = seconds_left
        # As long as the current object has the ETag, it is as good as the version. It is asked for first since
        # MiniStack 1.5.33 does not read ranges of versions.
        self._request: dict[str, Any] = {"Bucket": job.bucket, "Key": job.key, "IfMatch": job.etag}
        self._version = {"VersionId": job.version_id} if job.version_id else {}

    def blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes from ``start`` to the end of the object, 64 KiB at a time: stop when you have enough.

        Requests end at ``end`` first. Beyond, where a reader looks for the end of a line, they begin small
        and grow.

        Raises
        ------
        PermanentError
            The object is gone, or is not what was planned.
        TransientError
            S3 does not answer, denies access, or the time runs out.
        """
        position = start
        beyond = BLOCK_BYTES
        while position < self._size:
            if position < end:
                rest = end - position  # a short one goes along with the last whole segment
                size = rest if rest <= SEGMENT_BYTES + BLOCK_BYTES else SEGMENT_BYTES
            else:
                size = min(beyond, self._size - position)
                beyond = min(4 * beyond, SEGMENT_BYTES)
            if self._seconds_left() <= 0:
                raise TransientError(f"the time ran out at byte {position} of the object")
            segment = self._read(position, size)
            for place in range(0, size, BLOCK_BYTES):
                yield segment[place : place + BLOCK_BYTES]
            position += size

    def _read(self, position: int, size: int) -> bytes:
        wanted = f"bytes={position}-{position + size - 1}"
        fault: Exception | None = None
        for _ in range(_READS):
            try:
                body = self._get(wanted)["Body"]
                with body:
                    data = body.read()
            except ClientError as error:
                raise _kind(error) from error
            except BotoCoreError as error:
                fault = error  # it may be a body that breaks off: botocore does not repeat that
                continue
            if len(data) == size:
                return data
            fault = TransientError(f"{len(data)} bytes came instead of {size}")
        raise TransientError(f"S3 does not deliver {wanted} of the object: {fault}") from fault

    def _get(self, wanted: str) -> GetObjectOutputTypeDef:
        try:
            return self._client.get_object(**self._request, Range=wanted)
        except ClientError as error:
            if not self._version or isinstance(_kind(error), TransientError):
                raise
        self._request |= self._version
        self._version = {}
        return self._client.get_object(**self._request, Range=wanted)


def _kind(error: ClientError) -> PermanentError | TransientError:
    fault = error.response.get("Error", {})
    code = fault.get("Code", "")
    reason = _PERMANENT.get(code)
    if reason:
        return PermanentError(reason)
    # Also a denial: it is the policy's fault and not the object's, and redelivery outlasts a mended policy.
    return TransientError(f"S3 does not deliver the object: {code}: {fault.get('Message', '')}")
