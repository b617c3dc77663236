"""Turns each line of a file into what goes onto the stream: a record or a rejected line, never an exception.

What a line is, in words for users: docs/formats.md.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from common.errors import PermanentError
from producer.entry import Entry
from records.json_text import BOM, fields_of, kind_of, text_of
from records.record import (
    MAX_RECORD_BYTES,
    LineFault,
    Origin,
    Record,
    RejectedLine,
    check_identifier,
    check_own_id,
)
from tables.check import check_payload, checked_payload
from uploads.formats.csv_rows import column_names, csv_rows
from uploads.formats.lines import KEPT_BYTES, MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uploads.chunk_job import ChunkJob, Delimiter
    from uploads.formats.csv_rows import CsvRow
    from uploads.formats.lines import FileLine

MAX_RAW_BYTES = 750 * 1024
"""So many bytes of a rejected line fit on the stream: as base64 they are 1,000 KiB."""
_MAX_REASON = 2_000
_JSON_BLANKS = b" \t\r"


class LineEntries:
    """Turns the lines of one chunk into entries for the publisher, and counts them."""

    def __init__(self, job: ChunkJob, *, published: int = 0, rejected: int = 0) -> None:
        self._upload = job.upload
        self._chunk = job.chunk
        self._id_field = job.id_field
        self._key_field = job.key_field
        self._delimiter: Delimiter = job.delimiter or ","
        self._names_fields = bool(job.id_field or job.key_field)
        self.published = published
        """Records made so far, with those of earlier deliveries."""
        self.rejected = rejected
        """Rejected lines made so far, with those of earlier deliveries."""

    def ndjson(self, lines: Iterable[FileLine]) -> Iterator[Entry | None]:
        """One entry for each line that is not blank; None for one that is."""
        for line in lines:
            data = line.data.removeprefix(BOM) if line.offset == 0 else line.data
            if line.length > MAX_LINE_BYTES:
                yield self._too_long(line.number, line.offset, data, line.length)
                continue
            if not data.strip(_JSON_BLANKS):
                yield None
                continue
            data = data.removesuffix(b"\r")
            try:
                entry = self._record(line.number, line.offset, checked_payload(data))
            except PermanentError as error:
                yield self._rejected(line.number, line.offset, data, str(error))
            else:
                yield entry

    def csv(self, lines: Iterable[FileLine], header: CsvRow) -> Iterator[Entry | None]:
        """One entry for each row after the header; None for the header and for an empty line.

        Raises
        ------
        PermanentError
            The header is none that rows can be read by. Nothing has been yielded.
        """
        names = column_names(header)
        for row in csv_rows(lines, self._delimiter):
            if row.offset <= header.offset or row.is_empty:
                yield None
                continue
            if row.length > MAX_LINE_BYTES:
                yield self._too_long(row.number, row.offset, row.raw, row.length)
                continue
            try:
                if row.fault:
                    raise PermanentError(row.fault)
                if len(row.fields) != len(names):
                    raise PermanentError(f"{len(row.fields)} fields, and the header has {len(names)}")
                payload = _encode(dict(zip(names, row.fields, strict=True))).decode()
                check_payload(payload)
                entry = self._record(row.number, row.offset, payload)
            except PermanentError as error:
                yield self._rejected(row.number, row.offset, row.raw, str(error))
            else:
                yield entry

    def _record(self, number: int, offset: int, payload: str) -> Entry:
        """The entry of a good line."""
        record_id = f"{self._upload}:{offset}"
        partition_key = None
        if self._names_fields:
            # A payload of any other kind than an object has no fields to name.
            fields = fields_of(payload.encode()) or {}
            if self._id_field:
                record_id = _named(fields, self._id_field, "id-field")
                check_own_id(record_id)
            if self._key_field:
                partition_key = _named(fields, self._key_field, "key-field")
                check_identifier("partition_key", partition_key)
        place = Origin(self._upload, self._chunk, number)
        record = Record(record_id, partition_key or record_id, payload, place)
        entry = Entry.of(record)
        size = len(entry.data) + len(entry.partition_key.encode())
        if size > MAX_RECORD_BYTES:
            raise PermanentError(f"{size} bytes as a record, and it has at most {MAX_RECORD_BYTES}")
        self.published += 1
        return entry

    def _rejected(self, number: int, offset: int, raw: bytes, reason: str) -> Entry:
        reason = reason[:_MAX_REASON]
        if len(raw) > MAX_RAW_BYTES:
            reason += f" (of its {len(raw)} bytes the first {KEPT_BYTES} are kept)"
            raw = raw[:KEPT_BYTES]
        return self._rejection(number, offset, raw, reason)

    def _too_long(self, number: int, offset: int, kept: bytes, length: int) -> Entry:
        reason = f"{length} bytes, and a line has at most {MAX_LINE_BYTES} (the first {KEPT_BYTES} are kept)"
        return self._rejection(number, offset, kept, reason)

    def _rejection(self, number: int, offset: int, raw: bytes, reason: str) -> Entry:
        self.rejected += 1
        line_id = f"{self._upload}:{offset}"
        rejected = RejectedLine(
            id=line_id,
            partition_key=line_id,
            # A reason may quote the data, and the data may say anything.
            rejected=LineFault(reason=reason.encode(errors="backslashreplace").decode(), raw=raw),
            upload=Origin(self._upload, self._chunk, number),
        )
        return Entry(line_id, line_id, rejected.to_bytes())


def _named(fields: dict[str, msgspec.Raw], field: str, role: str) -> str:
    """The value of the field that the upload names, as text.

    Raises
    ------
    PermanentError
        There is no such field, or its value cannot be an id or a key.
    """
    if field not in fields:
        raise PermanentError(f"the field {field!r}, which the upload names as its {role}, is missing")
    value = bytes(fields[field])
    kind = kind_of(value)
    if kind == "a text":
        text = text_of(fields[field])
        if text:
            return text
        kind = "empty"
    elif kind == "a number":
        if _INTEGER.fullmatch(value):
            return "0" if value == b"-0" else value.decode()
        kind = "a number with a fraction"
    raise PermanentError(f"the {role} {field!r} is {kind}, and must be a text or an integer")


_INTEGER = re.compile(rb"-?[0-9]+")
_encode = msgspec.json.Encoder().encode
