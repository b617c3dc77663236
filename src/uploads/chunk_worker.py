"""One chunk job: a byte range of an object becomes entries on the stream, and a count in the ledger."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from common.errors import PermanentError, TransientError
from uploads.chunk_job import ChunkCount, ChunkFailure
from uploads.chunk_ledger import ChunkProgress
from uploads.formats.csv_rows import csv_rows
from uploads.formats.entries import LineEntries
from uploads.formats.gunzip import gunzip
from uploads.formats.json_elements import elements, is_array
from uploads.formats.lines import MAX_LINE_BYTES, split_lines
from uploads.object_bytes import BLOCK_BYTES, ObjectBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_s3 import S3Client

    from producer.entry import Entry
    from producer.publish import Publisher
    from uploads.chunk_job import ChunkJob
    from uploads.chunk_ledger import ChunkLedger
    from uploads.formats.csv_rows import CsvRow
    from uploads.formats.lines import FileLine

PART_SECONDS = 30.0
"""A chunk that takes longer is published in parts of so many seconds. Between two parts nothing is on its way, so
that the place is known from which another delivery can go on. (Most chunks have one part: ending one means waiting
for the slowest shard.)"""

HEADER_WITHIN_BYTES = 64 * 1024
"""So far into a CSV file its header is looked for: every chunk of the file does so."""


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
            The chunk can never be published whole: its object is gone or has changed, its gzip or JSON is damaged,
            its CSV header is none, a row or a line of it has no end. The ledger says so. Lines before the place of
            the damage have been published, and are not published again by whoever tries again.
        TransientError
            Some lines may not have been published, or could not be counted. The job is to be delivered again.
        """
        begun_at = self._ledger.progress(job)
        chunk = _Chunk(job, ObjectBytes(self._s3, job, seconds_left), begun_at, seconds_left)
        try:
            self._publish(chunk, seconds_left)
        except TransientError:
            if chunk.progress != begun_at:
                self._ledger.save(job, chunk.progress)
            raise
        if chunk.fault:
            if chunk.progress != begun_at:
                self._ledger.save(job, chunk.progress)
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
        beginning = ChunkProgress.beginning(job)
        if begun_at != beginning:
            self._ledger.save(job, beginning)  # whoever has the chunk published again means all of it
        return count

    def _publish(self, chunk: _Chunk, seconds_left: Callable[[], float]) -> None:
        while not chunk.exhausted:
            left = seconds_left()
            part = chunk.part(until=left - PART_SECONDS)
            result = self._publisher.publish(part, time_limit=left)
            if not result.complete or result.rejected:
                missing = [*result.failed, *result.rejected]
                reason = missing[0].reason if missing else "the time ran out"
                raise TransientError(f"the chunk was not published whole: {reason}")
            chunk.part_is_published()


class _Chunk:
    """The lines of one chunk on their way, and what is known of them.

    Two places look at the clock. One is behind every line, also one that is blank and becomes no entry: there the
    next delivery can go on. The other is before every block of bytes, for the lines, rows and blanks that are longer
    than a block: what was taken since the last part is then taken again.
    """

    def __init__(
        self, job: ChunkJob, source: ObjectBytes, begin: ChunkProgress, seconds_left: Callable[[], float]
    ) -> None:
        self._job = job
        self._source = source
        self._begin = begin
        self._seconds_left = seconds_left
        self._begun_with = seconds_left()
        self._rows = LineEntries(job, published=begin.published, rejected=begin.rejected)
        self._entries = self._entries_to_a_fault()
        self._offset = begin.offset
        self._file_lines = begin.file_lines
        self._taken = (begin.offset, begin.file_lines)
        self.progress = begin
        """How far it is published."""
        self.exhausted = False
        """Whether all lines have been taken."""
        self.fault: PermanentError | None = None
        """Why the lines ended before the chunk did."""

    def part(self, until: float) -> Iterator[Entry]:
        """The next lines as entries, until no more than ``until`` seconds are left or there are no more lines."""
        for entry in self._entries:
            # Neither lines nor rows are read ahead, so the last line that was read is the last of this entry.
            self._taken = (self._offset, self._file_lines)
            if entry:
                yield entry
            if self._seconds_left() <= until:
                return
        self.exhausted = True

    def part_is_published(self) -> None:
        """Everything that was taken so far is on the stream."""
        self.progress = ChunkProgress(*self._taken, self._rows.published, self._rows.rejected)

    def _entries_to_a_fault(self) -> Iterator[Entry | None]:
        """What goes onto the stream. A fault ends it, so that the publisher finishes what it was given."""
        try:
            yield from self._all_entries()
        except PermanentError as error:
            self.fault = error

    def _all_entries(self) -> Iterator[Entry | None]:
        match self._job.format:
            case "ndjson":
                return self._rows.ndjson(self._lines(every_empty=False))
            case "json":
                return self._rows.ndjson(self._elements())
            case "csv":
                header = self._header()
                # Without a header the file has nothing but empty lines, which are to be counted as any others.
                return self._rows.csv(self._lines(), header) if header else self._rows.ndjson(self._lines())

    def _lines(self, *, every_empty: bool = True) -> Iterator[FileLine]:
        job, begin = self._job, self._begin
        # With what lies behind the end: as a rule the last line goes on there, and a request is saved.
        end = job.size if job.end is None else job.end + BLOCK_BYTES
        blocks = self._blocks(max(begin.offset - 1, 0), end)
        for line in split_lines(blocks, start=begin.offset, end=job.end, every_empty=every_empty):
            self._file_lines = begin.file_lines + line.number
            self._offset = line.offset + line.length + 1
            yield line._replace(number=self._file_lines) if begin.file_lines else line

    def _elements(self) -> Iterator[FileLine]:
        array = is_array(self._blocks(0, BLOCK_BYTES))
        begin = self._begin
        blocks = self._blocks(begin.offset, self._job.size)
        for element in elements(blocks, array=array, start=begin.offset, number=begin.file_lines):
            self._file_lines = element.number
            self._offset = element.offset + element.length
            yield element

    def _header(self) -> CsvRow | None:
        """The first row of the CSV file. None: there is none.

        Raises
        ------
        PermanentError
            It does not begin in the first ``HEADER_WITHIN_BYTES``: they are empty lines.
        """
        rows = csv_rows(split_lines(self._beginning()), self._job.delimiter or ",")
        for row in rows:
            if row.offset > HEADER_WITHIN_BYTES:
                raise PermanentError(
                    f"the CSV header does not begin in the file's first {HEADER_WITHIN_BYTES} bytes, which are empty"
                    " lines"
                )
            if not row.is_empty:
                return row
        return None

    def _beginning(self) -> Iterator[bytes]:
        """As much of the file as a header may have that is none: one byte more than it can be long."""
        read = 0
        for block in self._blocks(0, BLOCK_BYTES):
            yield block
            read += len(block)
            if read > HEADER_WITHIN_BYTES + MAX_LINE_BYTES:
                return

    def _blocks(self, start: int, end: int) -> Iterator[bytes]:
        """The bytes of the file from ``start`` on. Of one that is not packed, the requests go to ``end`` first.

        Raises
        ------
        TransientError
            The time ran out.
        PermanentError
            It ran out before ``start``: a packed file is unpacked from its beginning each time.
        """
        if not self._job.gzip:
            yield from self._source.blocks(start, min(end, self._job.size))
            return
        place = 0
        try:
            for block in gunzip(self._source.blocks(0, self._job.size)):
                if self._seconds_left() <= 0:
                    raise TransientError(f"the time ran out at byte {place} of the unpacked file")
                if start < place + len(block):
                    yield block[start - place :] if start > place else block
                place += len(block)
        except TransientError as error:
            if place < start and self._begun_with > 2 * PART_SECONDS and self._seconds_left() <= 0:
                raise PermanentError(
                    f"to unpack the file as far as it is published, {start} bytes, takes longer than an invocation"
                    " has: load it unpacked, or as several files"
                ) from error
            raise
