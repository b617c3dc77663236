"""The uploaded objects in S3, each read as the version and content that was registered."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from common.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef, HeadObjectOutputTypeDef

    from uploads.upload import Upload

BLOCK_BYTES = 8 * 1024 * 1024
_ATTEMPTS = 3


class ObjectGoneError(PermanentError):
    """The uploaded content is gone for good."""


class Objects:
    """Reads what was uploaded: the version, where the bucket keeps them, and in any case the content of that ETag.

    S3 says that an object is missing only to a caller that may list the bucket; to others it says 403
    (docs.aws.amazon.com/AmazonS3/latest/API/API_HeadObject.html). The functions' roles may.
    """

    def __init__(self, client: S3Client) -> None:
        self._client = client

    def head(self, upload: Upload) -> HeadObjectOutputTypeDef:
        """Size, type and metadata.

        Raises
        ------
        ObjectGoneError
            It cannot be read any more.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
            S3 does not answer, or does not let us.
        """
        return _call(self._client.head_object, **_content(upload), **_version(upload))

    def beginning(self, upload: Upload, size: int) -> bytes:
        """The first ``size`` bytes, or all if there are no more.

        Raises as :meth:`blocks` does.
        """
        end = min(size, upload.size)
        return self._block(upload, 0, end) if end else b""

    def blocks(self, upload: Upload, start: int) -> Iterator[bytes]:
        """The bytes from ``start`` to the end, in blocks that fit into memory.

        Raises
        ------
        ObjectGoneError
            It cannot be read any more.
        TransientError
            The connection broke several times.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
            S3 does not answer, or does not let us.
        """
        for begin in range(start, upload.size, BLOCK_BYTES):
            yield self._block(upload, begin, min(begin + BLOCK_BYTES, upload.size))

    def _block(self, upload: Upload, begin: int, end: int) -> bytes:
        fault: str | BotoCoreError = ""
        for _ in range(_ATTEMPTS):
            answer = self._get(upload, f"bytes={begin}-{end - 1}")
            try:
                data = answer["Body"].read()
            except BotoCoreError as error:  # a body that breaks off: botocore does not repeat that
                fault = error
                continue
            if len(data) == end - begin:
                return data
            fault = f"{len(data)} bytes came"
        raise TransientError(f"bytes {begin} to {end} of {upload.key!r} cannot be read: {fault}")

    def _get(self, upload: Upload, wanted: str) -> GetObjectOutputTypeDef:
        # As long as the current object has the ETag, it is as good as the version. It is asked for first since
        # MiniStack 1.5.33 does not read ranges of versions.
        try:
            return _call(self._client.get_object, **_content(upload), Range=wanted)
        except ObjectGoneError:
            if upload.version_id is None:
                raise
        return _call(self._client.get_object, **_content(upload), **_version(upload), Range=wanted)


def _content(upload: Upload) -> dict[str, Any]:
    return {"Bucket": upload.bucket, "Key": upload.key, "IfMatch": upload.etag}


def _version(upload: Upload) -> dict[str, Any]:
    return {"VersionId": upload.version_id} if upload.version_id else {}


def _call[Answer](operation: Callable[..., Answer], **parameters: Any) -> Answer:
    try:
        return operation(**parameters)
    except ClientError as error:
        reason = _gone(error)
        if reason:
            raise ObjectGoneError(reason) from error
        raise


def _gone(error: ClientError) -> str | None:
    if error.response["Error"]["Code"] == "InvalidObjectState":
        return "the object is archived"
    match error.response["ResponseMetadata"]["HTTPStatusCode"]:
        case 404 if error.response["Error"]["Code"] != "NoSuchBucket":
            return "the object is gone"
        case 405:  # a delete marker, asked for by its version
            return "the object is deleted"
        case 412:
            return "the object has been overwritten"
    return None
