"""Chunk jobs, and their queue."""

from __future__ import annotations

import random
import time
from itertools import batched
from typing import TYPE_CHECKING

from common.errors import TransientError
from uploads.chunk_job import ChunkJob, job_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from mypy_boto3_sqs import SQSClient

    from uploads.upload import Upload

ENTRIES_A_CALL = 10
"""docs.aws.amazon.com/AWSSimpleQueueService/latest/APIReference/API_SendMessageBatch.html. Ten jobs are far
below its limit of bytes: the longest key (1,024 bytes) and the largest metadata (2 KB) make a body of some
10 KB."""
_ATTEMPTS = 6
_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 2.0


def job_of(upload: Upload, chunk: int, start: int, end: int | None) -> ChunkJob:
    """The job of a chunk: bytes ``start`` to ``end`` of the object. The same whenever it is asked for.

    Raises
    ------
    ValueError
        The upload failed because its format is not known: it has no chunks.
    """
    if upload.format is None:
        raise ValueError("an upload of unknown format has no chunks")
    return ChunkJob(
        job=job_id(upload.upload, chunk),
        upload=upload.upload,
        bucket=upload.bucket,
        key=upload.key,
        version_id=upload.version_id,
        etag=upload.etag,
        chunk=chunk,
        start=start,
        end=None if upload.gzip else end,
        size=upload.size,
        format=upload.format,
        gzip=upload.gzip,
        id_field=upload.id_field,
        key_field=upload.key_field,
        delimiter=upload.delimiter,
    )


class ChunkQueue:
    """Sends chunk jobs."""

    def __init__(
        self,
        client: SQSClient,
        url: str,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._client = client
        self._url = url
        self._sleep = sleep
        self._jitter = jitter

    def send(self, jobs: Iterable[ChunkJob], time_is_short: Callable[[], bool]) -> int:
        """Send all jobs and return how many there were.

        A call can succeed while some of its entries fail: only those are sent again, with full jitter.

        Raises
        ------
        TransientError
            Not all could be sent, or the time ran short. Those sent may be sent again.
        botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError
            SQS does not answer, or does not let us.
        """
        sent = 0
        for batch in batched(jobs, ENTRIES_A_CALL, strict=False):
            if time_is_short():
                raise TransientError(f"the time ran short after {sent} chunk jobs")
            self._send(batch)
            sent += len(batch)
        return sent

    def _send(self, batch: tuple[ChunkJob, ...]) -> None:
        left = {str(number): job for number, job in enumerate(batch)}
        for attempt in range(_ATTEMPTS):
            answer = self._client.send_message_batch(
                QueueUrl=self._url,
                Entries=[{"Id": name, "MessageBody": job.to_json()} for name, job in left.items()],
            )
            failed = answer.get("Failed", [])
            left = {fault["Id"]: left[fault["Id"]] for fault in failed}
            if not left:
                return
            if attempt + 1 < _ATTEMPTS:
                self._sleep(self._jitter() * min(_LONGEST_PAUSE, _FIRST_PAUSE * 2**attempt))
        reasons = ", ".join(sorted({fault["Code"] for fault in failed}))
        raise TransientError(f"{len(left)} of {len(batch)} chunk jobs could not be sent: {reasons}")
