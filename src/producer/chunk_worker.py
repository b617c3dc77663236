"""One chunk job: a byte range of an object becomes entries on the stream, and a count in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from common.chunk_job import ChunkCount, ChunkFailure
from common.errors import PermanentError, TransientError
from producer.csv_rows import csv_rows
from producer.gunzip import gunzip
from producer.lines import split_lines
from producer.object_bytes import BLOCK_BYTES, ObjectBytes
from producer.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef
    from mypy_boto3_s3 import S3Client

    from common.chunk_job import ChunkJob
    from producer.entry import Entry
    from producer.lines import FileLine
    from producer.publish import Publisher


class ChunkWorker:
    """Publishes chunks and enters them in the ledger."""

    def __init__(
        self,
        s3: S3Client,
        publisher: Publisher,
        dynamodb: DynamoDBClient,
        ledger_table: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._s3 = s3
        self._publisher = publisher
        self._dynamodb = dynamodb
        self._ledger_table = ledger_table
        self._now = now

    def work(self, job: ChunkJob, seconds_left: Callable[[], float]) -> ChunkCount:
        """Publish every line of the chunk, then put its count into the ledger.

        Doing it twice publishes the same ids and puts the same count.

        Parameters
        ----------
        job
            The chunk.
        seconds_left
            How long may still be worked. When it is over, what has not been published is left to the next
            delivery.

        Raises
        ------
        PermanentError
            The chunk can never be published whole: its object is gone or has changed, its gzip is damaged,
            its CSV header is none. The ledger says so. Lines before the place of the damage have been
            published.
        TransientError
            Some lines may not have been published, or could not be counted. The job is to be delivered again.
        """
        chunk = _Chunk(job, ObjectBytes(self._s3, job, seconds_left))
        result = self._publisher.publish(chunk.entries(), time_limit=seconds_left())
        if chunk.fault:
            failure = ChunkFailure(chunk=job.chunk, failed=str(chunk.fault), failed_at=self._now())
            self._put(failure.to_item(job.upload))
            raise chunk.fault
        if not result.complete or result.rejected:
            left = [*result.failed, *result.rejected]
            reason = left[0].reason if left else "the time ran out"
            raise TransientError(f"{result.published} entries were published, not all of the chunk: {reason}")
        count = ChunkCount(
            chunk=job.chunk,
            start=job.start,
            end=job.end,
            lines=chunk.rows.published + chunk.rows.rejected,
            published=chunk.rows.published,
            rejected=chunk.rows.rejected,
            file_lines=chunk.file_lines,
            published_at=self._now(),
        )
        self._put(count.to_item(job.upload))
        return count

    def _put(self, item: dict[str, AttributeValueTypeDef]) -> None:
        try:
            self._dynamodb.put_item(TableName=self._ledger_table, Item=item)
        except (BotoCoreError, ClientError) as error:
            raise TransientError(f"the chunk could not be entered in the ledger: {error}") from error


class _Chunk:
    """The lines of one chunk on their way, and what is known of them at the end."""

    def __init__(self, job: ChunkJob, source: ObjectBytes) -> None:
        self._job = job
        self._source = source
        self.rows = Rows(job)
        self.file_lines = 0
        """Lines as an editor counts them that begin in the chunk."""
        self.fault: PermanentError | None = None
        """Why the lines ended before the chunk did."""

    def entries(self) -> Iterator[Entry]:
        """What goes onto the stream. A fault ends it, so that the publisher finishes what it was given."""
        try:
            yield from self._entries()
        except PermanentError as error:
            self.fault = error

    def _entries(self) -> Iterator[Entry]:
        lines = self._lines()
        if self._job.format == "ndjson":
            return self.rows.ndjson(lines)
        header = next(csv_rows(split_lines(self._blocks(0, BLOCK_BYTES))), None)
        # Without a header the file has nothing but empty lines, which are to be counted as any others.
        return self.rows.csv(lines, header) if header else self.rows.ndjson(lines)

    def _lines(self) -> Iterator[FileLine]:
        job = self._job
        # With what lies behind the end: as a rule the last line goes on there, and a request is saved.
        end = job.size if job.end is None else job.end + BLOCK_BYTES
        for line in split_lines(self._blocks(max(job.start - 1, 0), end), start=job.start, end=job.end):
            self.file_lines = line.number
            yield line

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the file from ``start`` on, requested to ``end`` first."""
        blocks = self._source.blocks(start, min(end, self._job.size))
        return gunzip(blocks) if self._job.gzip else blocks
