"""One chunk job: a byte range of an object becomes entries on the stream, and a count in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.chunk_job import ChunkCount, ChunkFailure
from common.errors import PermanentError, TransientError
from producer.chunk_ledger import Progress
from producer.csv_rows import csv_rows
from producer.gunzip import gunzip
from producer.lines import split_lines
from producer.object_bytes import BLOCK_BYTES, ObjectBytes
from producer.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mypy_boto3_s3 import S3Client

    from common.chunk_job import ChunkJob
    from producer.chunk_ledger import ChunkLedger
    from producer.entry import Entry
    from producer.lines import FileLine
    from producer.publish import Publisher

PART_SECONDS = 30.0
"""A chunk that takes longer is published in parts of so many seconds. Between two parts nothing is on its way, so
that the place is known from which another delivery can go on. (Most chunks have one part: ending one means waiting
for the slowest shard.)"""


class ChunkWorker:
    """Publishes chunks and enters them in the ledger."""

    def __init__(
        self,
        s3: S3Client,
        publisher: Publisher,
        ledger: ChunkLedger,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._s3 = s3
        self._publisher = publisher
        self._ledger = ledger
        self._now = now

    def work(self, job: ChunkJob, seconds_left: Callable[[], float]) -> ChunkCount:
        """Publish every line of the chunk, then put its count into the ledger.

        Doing it twice publishes the same ids and puts the same count. When the time runs out, how far it came is
        kept, and the next delivery goes on from there: a file of any size is loaded at last, also one of gzip, which
        is one chunk.

        Parameters
        ----------
        job
            The chunk.
        seconds_left
            How long may still be worked.

        Raises
        ------
        PermanentError
            The chunk can never be published whole: its object is gone or has changed, its gzip is damaged, its CSV
            header is none. The ledger says so. Lines before the place of the damage have been published.
        TransientError
            Some lines may not have been published, or could not be counted. The job is to be delivered again.
        """
        begun_at = self._ledger.progress(job)
        chunk = _Chunk(job, ObjectBytes(self._s3, job, seconds_left), begun_at)
        try:
            self._publish(chunk, seconds_left)
        except TransientError:
            if chunk.progress != begun_at:
                self._ledger.save(job, chunk.progress)
            raise
        if chunk.fault:
            failure = ChunkFailure(chunk=job.chunk, failed=str(chunk.fault), failed_at=self._now())
            self._ledger.failure(job, failure)
            raise chunk.fault
        _, file_lines, published, rejected = chunk.progress
        count = ChunkCount(
            chunk=job.chunk,
            start=job.start,
            end=job.end,
            lines=published + rejected,
            published=published,
            rejected=rejected,
            file_lines=file_lines,
            published_at=self._now(),
        )
        self._ledger.count(job, count)
        beginning = Progress.beginning(job)
        if begun_at != beginning:
            self._ledger.save(job, beginning)  # whoever has the chunk published again means all of it
        return count

    def _publish(self, chunk: _Chunk, seconds_left: Callable[[], float]) -> None:
        while not chunk.exhausted:
            left = seconds_left()
            part = chunk.part(seconds_left, until=left - PART_SECONDS)
            result = self._publisher.publish(part, time_limit=left)
            if not result.complete or result.rejected:
                missing = [*result.failed, *result.rejected]
                reason = missing[0].reason if missing else "the time ran out"
                raise TransientError(f"the chunk was not published whole: {reason}")
            chunk.part_is_published()


class _Chunk:
    """The lines of one chunk on their way, and what is known of them."""

    def __init__(self, job: ChunkJob, source: ObjectBytes, begin: Progress) -> None:
        self._job = job
        self._source = source
        self._begin = begin
        self._rows = Rows(job, published=begin.published, rejected=begin.rejected)
        self._entries = self._entries_to_a_fault()
        self._offset = begin.offset
        self._file_lines = begin.file_lines
        self.progress = begin
        """How far it is published."""
        self.exhausted = False
        """Whether all lines have been taken."""
        self.fault: PermanentError | None = None
        """Why the lines ended before the chunk did."""

    def part(self, seconds_left: Callable[[], float], until: float) -> Iterator[Entry]:
        """The next lines as entries, until no more than ``until`` seconds are left or there are no more lines."""
        for entry in self._entries:
            yield entry
            if seconds_left() <= until:
                return
        self.exhausted = True

    def part_is_published(self) -> None:
        """Everything that was taken so far is on the stream."""
        # Neither lines nor rows are read ahead, so the last line that was read belongs to the last entry taken.
        self.progress = Progress(self._offset, self._file_lines, self._rows.published, self._rows.rejected)

    def _entries_to_a_fault(self) -> Iterator[Entry]:
        """What goes onto the stream. A fault ends it, so that the publisher finishes what it was given."""
        try:
            yield from self._all_entries()
        except PermanentError as error:
            self.fault = error

    def _all_entries(self) -> Iterator[Entry]:
        lines = self._lines()
        if self._job.format == "ndjson":
            return self._rows.ndjson(lines)
        header = next(csv_rows(split_lines(self._blocks(0, BLOCK_BYTES))), None)
        # Without a header the file has nothing but empty lines, which are to be counted as any others.
        return self._rows.csv(lines, header) if header else self._rows.ndjson(lines)

    def _lines(self) -> Iterator[FileLine]:
        job, begin = self._job, self._begin
        # With what lies behind the end: as a rule the last line goes on there, and a request is saved.
        end = job.size if job.end is None else job.end + BLOCK_BYTES
        blocks = self._blocks(max(begin.offset - 1, 0), end)
        for line in split_lines(blocks, start=begin.offset, end=job.end):
            self._file_lines = begin.file_lines + line.number
            self._offset = line.offset + line.length + 1
            yield line._replace(number=self._file_lines) if begin.file_lines else line

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the file from ``start`` on. Of one that is not packed, the requests go to ``end`` first."""
        if self._job.gzip:
            return _without(start, gunzip(self._source.blocks(0, self._job.size)))
        return self._source.blocks(start, min(end, self._job.size))


def _without(count: int, blocks: Iterable[bytes]) -> Iterator[bytes]:
    """The blocks without their first ``count`` bytes."""
    for block in blocks:
        if count < len(block):
            yield block[count:] if count else block
        count = max(0, count - len(block))
