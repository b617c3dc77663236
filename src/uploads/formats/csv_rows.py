"""Lines into CSV rows (RFC 4180), each with its exact offset, bytes and line number.

Rows end by the rules of ``uploads.formats.csv_cuts``, so that rows and cuts fit together: a quotation mark opens a
quoted field only as the field's first character, and a line break inside a quoted field is data. Python's csv
module then reads the row in its strict mode: if the row is not RFC 4180, only that row is at fault.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from functools import cache
from typing import TYPE_CHECKING, NamedTuple

from common.errors import PermanentError
from records.json_text import BOM
from uploads.chunk_job import MAX_OPEN_BYTES
from uploads.formats.lines import KEPT_BYTES, MAX_LINE_BYTES, FileLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from uploads.chunk_job import Delimiter

# The module's default, 128 KiB a field, is below what a record may hold. The setting is the process's.
csv.field_size_limit(MAX_LINE_BYTES)


class _Patterns(NamedTuple):
    """Possessive quantifiers: no way back, so the time is linear in the line, whatever it holds."""

    closed: re.Pattern[bytes]
    """Whole fields to the end of the line."""
    closing: re.Pattern[bytes]
    """The rest of a quoted field."""


@cache
def _patterns(delimiter: Delimiter) -> _Patterns:
    mark = re.escape(delimiter.encode())
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^%b]*+' % mark
    return _Patterns(
        re.compile(rb"(?:%b%b)*+%b\Z" % (field, mark, field)),
        re.compile(rb'[^"]*+(?:""[^"]*+)*+"[^%b]*+(%b|\Z)' % (mark, mark)),
    )


_FAULTS = {
    "expected after '\"'": "text after the closing quotation mark of a field",
    "new-line character seen": "a carriage return outside quotation marks",
}


class CsvRow(NamedTuple):
    """One row: its fields, or what is wrong with it."""

    number: int
    """Of the line on which it begins, counted as in ``FileLine``."""
    offset: int
    raw: bytes
    """Its bytes without the line break at its end; of more than ``MAX_LINE_BYTES`` the first ``KEPT_BYTES``."""
    length: int
    """Its true length in bytes."""
    fields: list[str]
    fault: str = ""

    @property
    def is_empty(self) -> bool:
        """Whether it is an empty line, which is no row."""
        return not self.length


def csv_rows(
    lines: Iterable[FileLine], delimiter: Delimiter = ",", *, max_open_bytes: int = MAX_OPEN_BYTES
) -> Iterator[CsvRow]:
    """The rows of the lines, and the empty lines between them. A row that is too long has no fields and no fault.

    Raises
    ------
    PermanentError
        A row is not over after ``max_open_bytes``, since a quoted field is not closed. The rows before it have been
        yielded.
    """
    lines = iter(lines)
    patterns = _patterns(delimiter)
    for line in lines:
        data = line.data.removeprefix(BOM) if line.offset == 0 else line.data
        if b'"' in data or line.length > MAX_LINE_BYTES:
            yield _quoted(line._replace(data=data), lines, delimiter, patterns, max_open_bytes)
            continue
        # No quotation mark: the fields are what stands between the delimiters. Much faster than a csv reader
        # for each row.
        data = data.removesuffix(b"\r")
        fields, fault = _split(data, delimiter) if data else ([], "")
        yield CsvRow(line.number, line.offset, data, len(data), fields, fault)


def column_names(header: CsvRow) -> list[str]:
    """The names of the columns. One without a name is called ``column_`` and its number, from 1.

    Raises
    ------
    PermanentError
        The header cannot be read, or two columns have the same name.
    """
    fault = f"it has over {MAX_LINE_BYTES} bytes" if header.length > MAX_LINE_BYTES else header.fault
    if fault:
        raise PermanentError(f"the CSV header cannot be read: {fault}")
    names = [name or f"column_{number}" for number, name in enumerate(header.fields, start=1)]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise PermanentError(f"the CSV header names {times} columns {name[:100]!r}")
    if any("\x00" in name for name in names):
        raise PermanentError("the CSV header holds a NUL (U+0000), which Postgres cannot store")
    return names


def _split(data: bytes, delimiter: Delimiter) -> tuple[list[str], str]:
    try:
        fields = data.decode().split(delimiter)
    except UnicodeDecodeError as error:
        return [], not_utf8(error)
    return ([], _FAULTS["new-line character seen"]) if b"\r" in data else (fields, "")


def _quoted(
    first: FileLine,
    lines: Iterator[FileLine],
    delimiter: Delimiter,
    patterns: _Patterns,
    max_open_bytes: int,
) -> CsvRow:
    """The row that begins with a line, and takes as many of the further ones as its quoted fields go on."""
    parts = [first.data]
    length = first.length
    is_open = _ends_open(first, False, patterns)
    while is_open and (line := next(lines, None)):
        if length > max_open_bytes:
            raise PermanentError(
                f"the row that begins at byte {first.offset} (line {first.number} of its chunk) is not over after"
                f" {max_open_bytes} bytes: a quotation mark that opens a field is not closed. Close it, or double it"
                " if it is a character. The rows before it are loaded"
            )
        is_open = _ends_open(line, True, patterns)
        if length <= MAX_LINE_BYTES:  # else there is enough of it
            parts.append(line.data)
        length += 1 + line.length
    raw = b"\n".join(parts)
    if length > MAX_LINE_BYTES:
        return CsvRow(first.number, first.offset, raw[:KEPT_BYTES], length, [])
    raw = raw.removesuffix(b"\r")
    fields, fault = ([], "a quoted field is not closed") if is_open else _read(raw, delimiter)
    return CsvRow(first.number, first.offset, raw, len(raw), fields, fault)


def _read(raw: bytes, delimiter: Delimiter) -> tuple[list[str], str]:
    try:
        return next(csv.reader([raw.decode()], strict=True, delimiter=delimiter)), ""
    except UnicodeDecodeError as error:
        return [], not_utf8(error)
    except csv.Error as error:
        known = (ours for theirs, ours in _FAULTS.items() if theirs in str(error))
        return [], next(known, f"not CSV: {error}")


def _ends_open(line: FileLine, was_open: bool, patterns: _Patterns) -> bool:
    """Whether a quoted field is open at the end of a line, if one was or was not at its beginning."""
    if line.length > MAX_LINE_BYTES:
        # Not all of it is here. In a well-formed row the number of quotation marks tells as much.
        return was_open ^ bool((line.data.count(b'"') + line.unkept_quotes) % 2)
    place = 0
    if was_open:
        closing = patterns.closing.match(line.data)
        if closing is None:
            return True
        if not closing[1]:
            return False
        place = closing.end()
    return patterns.closed.match(line.data, place) is None


def not_utf8(error: UnicodeDecodeError) -> str:
    """The reason for bytes that are no UTF-8."""
    return f"not UTF-8: byte 0x{error.object[error.start]:02x} at offset {error.start}"
