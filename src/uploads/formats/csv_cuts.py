"""Where a CSV file may be cut: exactly at the beginnings of records.

A newline inside quotes is part of a field (RFC 4180), so whether a newline ends a record depends on every
byte before it. The file is therefore read once, from its start, before it is cut. That is cheap: the
scanning runs in the regular expression engine, at 50 to 250 MB/s, as fast as S3 delivers (and far faster
where there are no quotation marks), whatever the file holds; memory is one block. The search can stop behind
any block and go on from there.

The rules are those of Python's ``csv`` module, which also reads the chunks later: a quotation mark opens a
quoted field only as the field's first character, and inside an unquoted field it is a character like any
other. (Counting quotation marks would do for a file that keeps to the RFC; a single stray mark, as in ``5"
disk``, would turn all that follows inside out.) Fields are separated by the delimiter; a record ends at LF, with
or without a CR before it.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from records.json_text import BOM
from uploads.chunk_job import MAX_OPEN_BYTES

if TYPE_CHECKING:
    from uploads.chunk_job import Delimiter

_INSIDE_QUOTES = re.compile(rb'[^"]*+(?:""[^"]*+)*+')


class _Patterns(NamedTuple):
    """Complete fields, each with what ends it. All quantifiers are possessive: no way back, and no memory for one."""

    fields: re.Pattern[bytes]
    """As many as there are, of as many records as there are."""
    record: re.Pattern[bytes]
    """As many as there are, to the end of the record."""
    end_of_field: re.Pattern[bytes]


@cache
def _patterns(delimiter: Delimiter) -> _Patterns:
    mark = re.escape(delimiter.encode())
    field = rb'(?:"[^"]*+(?:""[^"]*+)*+"|(?!"))[^%b\n]*+' % mark
    return _Patterns(
        re.compile(rb"(?:%b[%b\n])*+" % (field, mark)),
        re.compile(rb"(?:%b%b)*+(?:%b\n)?+" % (field, mark, field)),
        re.compile(rb"[%b\n]" % mark),
    )


type CutState = Literal["record", "field", "plain", "quoted", "quote"]
"""At the beginning of a record; of a further field; in an unquoted field (or behind the closing quotation
mark); inside quotes; inside quotes, behind a mark that either closes them or is the first of a pair."""


class Place(NamedTuple):
    """How far a search has come, and all that it has to know to go on."""

    position: int = 0
    """The next byte of the file."""
    state: CutState = "record"
    cut: int = 0
    """The last cut, or the beginning of the file."""
    opened: int = 0
    """In quotes: the first byte of the block in which they were opened."""


class CsvCuts:
    """Finds the cuts of one file, a block at a time.

    Each chunk has ``chunk_bytes`` or more: a cut is the first beginning of a record at least that far behind
    the cut before. So the cuts follow from the file and ``chunk_bytes`` alone.

    A quoted field that stays open over more than ``max_open_bytes`` is never closed, as far as anybody can tell:
    the search is ``over``, and what is left of the file is one chunk, whose reader says what is wrong.

    Parameters
    ----------
    chunk_bytes
        The least size of a chunk but the last.
    place
        Where the first block begins: the beginning of the file, or where an earlier search stopped.
    delimiter
        What separates fields.

    Example
    -------
    >>> cuts = CsvCuts(chunk_bytes=5)
    >>> cuts.feed(b'a,b\\n"x') + cuts.feed(b'\\n",y\\nz,z\\n')
    [11]
    """

    def __init__(
        self,
        chunk_bytes: int,
        place: Place = Place(),  # noqa: B008 (it cannot be changed)
        delimiter: Delimiter = ",",
        *,
        max_open_bytes: int = MAX_OPEN_BYTES,
    ) -> None:
        self._chunk_bytes = chunk_bytes
        self._position, self._state, self._cut, self._opened = place
        self._target = self._cut + chunk_bytes
        self._patterns = _patterns(delimiter)
        self._delimiter = ord(delimiter)
        self._max_open_bytes = max_open_bytes
        self.over = False
        """Whether the rest of the file can have no cut."""

    @property
    def place(self) -> Place:
        """Where the next block begins."""
        return Place(self._position, self._state, self._cut, self._opened)

    def feed(self, block: bytes) -> list[int]:
        """Read the next bytes (at least 3 at the file's start: it may have a byte order mark), return the
        cuts.

        A cut at the very end of what was fed is returned with the next block, so the end of the file is
        never one.
        """
        cuts: list[int] = []
        was_open = self._state in ("quoted", "quote")
        place = len(BOM) if self._position == 0 and block.startswith(BOM) else 0
        while place < len(block):
            if self._state == "record" and self._position + place >= self._target:
                self._cut = self._position + place
                cuts.append(self._cut)
                self._target = self._cut + self._chunk_bytes
            was_open = was_open and self._state in ("quoted", "quote")
            place = self._advance(block, place)
        if self._state == "quoted" and not was_open:
            self._opened = self._position
        self._position += len(block)
        self.over = self._state == "quoted" and self._position - self._opened > self._max_open_bytes
        return cuts

    def _advance(self, block: bytes, place: int) -> int:
        """Go on from ``place``, at least a byte; past the target no farther than to the end of a record."""
        match self._state:
            case "record" | "field":
                return self._fields(block, place)
            case "plain":
                found = self._patterns.end_of_field.search(block, place)
                return self._ended(block, found.end()) if found else len(block)
            case "quoted":
                return self._quoted(block, place)
            case "quote":
                if block.startswith(b'"', place):
                    return self._quoted(block, place + 1)
                self._state = "plain"
                return self._advance(block, place)

    def _fields(self, block: bytes, place: int) -> int:
        end = min(self._target - self._position, len(block))
        if end > place:  # all that is before the target, in one go
            if block.find(b'"', place, end) < 0:
                return self._ended(block, end)
            whole = self._patterns.fields.match(block, place, end)
            if whole and whole.end() > place:
                return self._ended(block, whole.end())
        rest = self._patterns.record.match(block, place)
        if rest and rest.end() > place:
            return self._ended(block, rest.end())
        if block.startswith(b'"', place):  # the field goes on in the next block
            return self._quoted(block, place + 1)
        self._state = "plain"
        return len(block)

    def _quoted(self, block: bytes, place: int) -> int:
        found = _INSIDE_QUOTES.match(block, place)
        end = found.end() if found else place
        if end == len(block):
            self._state = "quoted"
            return end
        self._state = "quote" if end + 1 == len(block) else "plain"
        return end + 1

    def _ended(self, block: bytes, end: int) -> int:
        """Unquoted bytes end here: with a separator, or in the middle of a field."""
        last = block[end - 1]
        self._state = "record" if last == 0x0A else "field" if last == self._delimiter else "plain"
        return end
