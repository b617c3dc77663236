"""Lines of a file into what goes onto the stream: a record each, or a rejected line. Never an exception.

What a line is, in words for users: docs/formats.md.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError
from pydantic_core import from_json, to_json

from common.errors import PermanentError
from common.payload import Payload
from common.record import MAX_RECORD_BYTES, Fault, Line, Record, RejectedLine, reason_of
from producer.csv_rows import column_names, csv_rows
from producer.entry import Entry
from producer.lines import BOM, KEPT_BYTES, MAX_LINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from common.chunk_job import ChunkJob
    from producer.csv_rows import CsvRow
    from producer.lines import FileLine

MAX_RAW_BYTES = 750 * 1024
"""So many bytes of a rejected line fit on the stream: as base64 they are 1,000 KiB."""
_MAX_REASON = 2_000
_JSON_BLANKS = b" \t\r"


class Rows:
    """Turns the lines of one chunk into entries for the publisher, and counts them."""

    def __init__(self, job: ChunkJob, *, published: int = 0, rejected: int = 0) -> None:
        self._upload = job.upload
        self._chunk = job.chunk
        self._id_field = job.id_field
        self._key_field = job.key_field
        self._names_fields = bool(job.id_field or job.key_field)
        self.published = published
        """Records made so far, with those of earlier deliveries."""
        self.rejected = rejected
        """Rejected lines made so far, with those of earlier deliveries."""

    def ndjson(self, lines: Iterable[FileLine]) -> Iterator[Entry]:
        """One entry for each line that is not blank."""
        for line in lines:
            data = line.data.removeprefix(BOM) if line.offset == 0 else line.data
            if line.length > MAX_LINE_BYTES:
                yield self._too_long(line.number, line.offset, data, line.length)
                continue
            if not data.strip(_JSON_BLANKS):
                continue
            data = data.removesuffix(b"\r")
            try:
                payload = Payload.model_validate_json(data)
                named = from_json(data) if self._names_fields else None
                entry = self._record(line.number, line.offset, payload, named)
            except ValidationError as error:
                yield self._rejected(line.number, line.offset, data, reason_of(error, data))
            except PermanentError as error:
                yield self._rejected(line.number, line.offset, data, str(error))
            else:
                yield entry

    def csv(self, lines: Iterable[FileLine], header: CsvRow) -> Iterator[Entry]:
        """One entry for each row after the header.

        Raises
        ------
        PermanentError
            The header is none that rows can be read by. Nothing has been yielded.
        """
        names = column_names(header)
        for row in csv_rows(lines):
            if row.offset <= header.offset:
                continue
            if row.length > MAX_LINE_BYTES:
                yield self._too_long(row.number, row.offset, row.raw, row.length)
                continue
            try:
                if row.fault:
                    raise PermanentError(row.fault)
                if len(row.fields) != len(names):
                    raise PermanentError(f"{len(row.fields)} fields, and the header has {len(names)}")
                fields = dict(zip(names, row.fields, strict=True))
                # By way of JSON: pydantic judges Python values by other rules, and one type fits both formats.
                payload = Payload.model_validate_json(to_json(fields))
                entry = self._record(row.number, row.offset, payload, fields)
            except ValidationError as error:
                yield self._rejected(row.number, row.offset, row.raw, reason_of(error))
            except PermanentError as error:
                yield self._rejected(row.number, row.offset, row.raw, str(error))
            else:
                yield entry

    def _record(self, number: int, offset: int, payload: Payload, data: Any) -> Entry:
        """The entry of a good line; ``data`` is what it says, before validation may have changed it."""
        record_id = _named(data, self._id_field, "id-field") if self._id_field else f"{self._upload}:{offset}"
        record = Record(
            id=record_id,
            partition_key=_named(data, self._key_field, "key-field") if self._key_field else record_id,
            payload=payload,
            upload=Line(id=self._upload, chunk=self._chunk, line=number),
        )
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
            rejected=Fault(reason=reason.encode(errors="backslashreplace").decode(), raw=raw),
            upload=Line(id=self._upload, chunk=self._chunk, line=number),
        )
        return Entry(line_id, line_id, rejected.to_bytes())


def _named(data: Any, field: str, role: str) -> str:
    """The value of the field that the upload names, as text.

    Raises
    ------
    PermanentError
        There is no such field, or its value cannot be an id or a key.
    """
    if not isinstance(data, dict) or field not in data:
        raise PermanentError(f"the field {field!r}, which the upload names as its {role}, is missing")
    value = data[field]
    if value == "" or isinstance(value, bool) or not isinstance(value, str | int):
        shown = "empty" if value == "" else "null" if value is None else f"a {_JSON_NAMES[type(value)]}"
        raise PermanentError(f"the {role} {field!r} is {shown}, and must be a text or an integer")
    return str(value)


_JSON_NAMES = {bool: "boolean", float: "number with a fraction", list: "list", dict: "JSON object"}
