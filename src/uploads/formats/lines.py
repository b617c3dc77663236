"""A stream of byte blocks, cut into lines with their offsets and numbers. Memory stays flat."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from common.errors import PermanentError
from records.record import MAX_RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

MAX_LINE_BYTES = MAX_RECORD_BYTES
"""A longer line cannot become a record. It is counted and measured, and never held in memory."""

MAX_MEASURED_BYTES = 2 * 1024 * 1024 * 1024
"""A line that has not ended by then is not measured to its end: to read on would take longer than an invocation has,
each time anew."""

KEPT_BYTES = 64 * 1024
"""How much of a line that is too long is kept, for the person who looks into it."""


class FileLine(NamedTuple):
    """One line as an editor shows it. Lines end at LF; the CR of a CRLF is still in ``data``."""

    number: int
    """From 1, counted among the lines that begin in the chunk."""
    offset: int
    """Of its first byte in the (decompressed) file."""
    data: bytes
    """Without the LF; only the first ``KEPT_BYTES`` of a line longer than ``MAX_LINE_BYTES``."""
    length: int
    """Its true length in bytes, without the LF."""
    unkept_quotes: int = 0
    """Quotation marks among the bytes that were not kept: a CSV reader must know whether one is open."""


def split_lines(
    blocks: Iterable[bytes],
    *,
    start: int = 0,
    end: int | None = None,
    every_empty: bool = True,
    max_bytes: int = MAX_MEASURED_BYTES,
) -> Iterator[FileLine]:
    """The lines that begin in ``[start, end)``, each whole; ``end=None`` means to the end of the file.

    ``blocks`` begin with the byte *before* ``start`` (but with byte 0 for ``start=0``): it tells whether a
    line begins at ``start``. They are read past ``end`` as far as the last line goes, and no further. A
    last line without LF is a line; nothing after a final LF is none.

    Without ``every_empty`` empty lines are counted, and only the last of a block is yielded, so that its reader sees
    how far the file is read: a gigabyte of them takes seconds, and not minutes.

    Raises
    ------
    PermanentError
        A line has not ended after ``max_bytes``. The lines before it have been yielded.
    """
    skipping = start > 0  # what the first LF ends belongs to the chunk before
    number = 0
    offset = start - 1 if skipping else 0
    line = UnfinishedLine()
    for block in blocks:
        *whole, rest = block.split(b"\n")
        passed_over = False
        for piece in whole:
            if skipping or line.length or len(piece) > MAX_LINE_BYTES:
                line.add(piece)
                length = line.length
                if not skipping:
                    number += 1
                    yield line.finished(number, offset)
                skipping = False
                line = UnfinishedLine()
                passed_over = False
            elif piece or every_empty:  # the usual line, which lies in one block
                length = len(piece)
                number += 1
                passed_over = False
                yield FileLine(number, offset, piece, length)
            else:
                length = 0
                number += 1
                passed_over = True
            offset += length + 1
            if end is not None and offset >= end:
                break
        if passed_over:
            yield FileLine(number, offset - 1, b"", 0)
        if end is not None and whole and offset >= end:
            return
        line.add(rest)
        if line.length > max_bytes:
            raise PermanentError(
                f"the line that begins at byte {offset} is not over after {max_bytes} bytes: is the file text, with an"
                " end to its lines?"
            )
        if skipping and end is not None and offset + line.length >= end:
            return  # inside one long line, which began before this chunk and ends after it
    if line.length and not skipping:
        yield line.finished(number + 1, offset)


class UnfinishedLine:
    """A line whose end has not been seen. Holds at most ``MAX_LINE_BYTES`` and one block."""

    def __init__(self) -> None:
        self.length = 0
        self._parts: list[bytes] = []
        self._unkept_quotes = 0

    def add(self, piece: bytes) -> None:
        """More of it."""
        self.length += len(piece)
        if piece:
            self._parts.append(piece)
        if self.length > MAX_LINE_BYTES:
            data = b"".join(self._parts)
            self._parts = [data[:KEPT_BYTES]]
            self._unkept_quotes += data.count(b'"', KEPT_BYTES)

    def finished(self, number: int, offset: int) -> FileLine:
        """It ends here."""
        return FileLine(number, offset, b"".join(self._parts), self.length, self._unkept_quotes)
