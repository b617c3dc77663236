"""A JSON file cut into its elements: those of one array, or documents one after the other. Memory stays flat.

This only looks for boundaries: quotation marks, escapes, and how deep the brackets go. Afterwards the real parser
checks each element. So a bad element is one rejected line, and each travels byte for byte. Between elements only
commas and blanks are allowed. Anything else is damage, and the beginning of the next element is unknown.

Why no library: ijson and json-stream read a file of any size, and give events and values. Neither says at which byte
an element begins and ends. That is needed three times: for the record's id, for the bytes that are kept of a bad
element, and to go on in the next invocation. They would also parse every value, which is then thrown away and parsed
once more.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal, NoReturn

from common.errors import PermanentError
from records.json_text import BOM
from uploads.chunk_job import MAX_OPEN_BYTES
from uploads.formats.lines import MAX_LINE_BYTES, FileLine, UnfinishedLine

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_BLANKS = re.compile(rb"[ \t\r\n]*+")
# All quantifiers are possessive: no way back, so the time is linear in the block.
_STRING = rb'(?:[^"\\]++|\\.)*+'
_FLAT = re.compile(rb'(?:[^"{}\[\]]++|"%b")*+' % _STRING, re.DOTALL)
"""To the next bracket, or to a string that goes on in the next block."""
_REST_OF_STRING = re.compile(_STRING, re.DOTALL)
_QUOTE = ord('"')
_SCALAR = re.compile(rb'[^,\[\]{}": \t\r\n]*+')

type _Place = Literal["array", "first", "next", "behind", "end"]
"""Between elements: before the array; before its first element; behind a comma; behind an element; behind it all."""
type _Inside = Literal["", "brackets", "string", "byte", "scalar"]
"""Where in an element; empty between two. byte: at one that means nothing, the mark that opens a text or what a
backslash escapes."""


def is_array(blocks: Iterable[bytes], *, max_blank_bytes: int = MAX_OPEN_BYTES) -> bool:
    """Whether a file is one array. ``blocks`` begin with byte 0, and are read as far as the first that is not blank."""
    read = 0
    for block in blocks:
        text = (block.removeprefix(BOM) if not read else block).lstrip(b" \t\r\n")
        if text:
            return text.startswith(b"[")
        read += len(block)
        if read > max_blank_bytes:
            return False  # the scanner says so
    return False


def elements(
    blocks: Iterable[bytes],
    *,
    array: bool,
    start: int = 0,
    number: int = 0,
    max_open_bytes: int = MAX_OPEN_BYTES,
) -> Iterator[FileLine]:
    """The elements of an array, or the documents of a file, each as a ``FileLine``.

    Its ``number`` is that of the element, from 1; ``offset``, ``data`` and ``length`` are those of its own bytes, and
    ``data`` is only the beginning of one that is too long, as of a line.

    Parameters
    ----------
    blocks
        The bytes from ``start`` on; at the file's start at least 3 at once: it may have a byte order mark.
    array
        Whether the file is one array (:func:`is_array`).
    start, number
        Where to begin: 0 and 0, or the byte behind an element and its number.
    max_open_bytes
        An element, or the blanks before one, that go on for longer are damage.

    Raises
    ------
    PermanentError
        The file is damaged between two elements, or ends inside one or before its array does. The message has the
        byte. All elements before it have been yielded.
    """
    scanner = _Scanner(array, start, number, max_open_bytes)
    for block in blocks:
        yield from scanner.feed(block)
    yield from scanner.finish()


class _Scanner:
    def __init__(self, array: bool, start: int, number: int, max_open_bytes: int) -> None:
        self._array = array
        self._position = start
        self._number = number
        self._max_open_bytes = max_open_bytes
        self._place: _Place = "behind" if number or not array else "array"
        self._inside: _Inside = ""
        self._depth = 0
        self._begin = start
        """Of the element, or of what lies between two."""
        self._line = UnfinishedLine()

    def feed(self, block: bytes) -> Iterator[FileLine]:
        """The elements that end in the next block."""
        place = begin = len(BOM) if self._position == 0 and block.startswith(BOM) else 0
        size = len(block)
        while place < size:
            if not self._inside:
                place = _end(_BLANKS, block, place)
                if place < size:
                    place = begin = self._between(block, place)
                continue
            place = self._advance(block, place)
            if not self._inside:
                yield self._element(block[begin:place], self._position + place)
        if self._inside:
            self._line.add(block[begin:])
        self._position += size
        if self._position - self._begin > self._max_open_bytes:
            self._fail(
                self._begin,
                f"what begins there is not over after {self._max_open_bytes} bytes: a bracket or a quotation mark is"
                " missing",
            )

    def finish(self) -> Iterator[FileLine]:
        """The file ends here."""
        if self._inside == "scalar" and not self._array:
            self._inside = ""
            yield self._element(b"", self._position)
        if self._inside:
            self._fail(self._begin, "the file ends inside the element that begins there")
        if self._array and self._place != "end":
            self._fail(self._position, "the file ends before its array does")

    def _between(self, block: bytes, place: int) -> int:
        """Take one byte that is not blank, or begin an element at it; returns where to go on."""
        byte = block[place : place + 1]
        at = self._position + place
        match self._place:
            case "array":  # its reader has looked
                self._place = "first"
                return place + 1
            case "end":
                self._fail(at, f"{_shown(byte)} follows the end of the array")
            case "first" | "behind" if byte == b"]" and self._array:
                self._place = "end"
                return place + 1
            case "behind" if self._array:
                if byte != b",":
                    self._fail(at, f"a comma or the end of the array is expected, and not {_shown(byte)}")
                self._place = "next"
                return place + 1
        if byte in b",:]}":
            self._fail(at, f"an element is expected, and not {_shown(byte)}")
        self._begin = at
        self._depth = 0
        self._inside = "brackets" if byte in b"{[" else "byte" if byte == b'"' else "scalar"
        return place

    def _advance(self, block: bytes, place: int) -> int:
        """Go on in an element, as far as it goes without looking around; returns the place behind that."""
        match self._inside:
            case "brackets":
                return self._in_brackets(block, place)
            case "string":
                return self._in_string(block, place)
            case "byte":
                self._inside = "string"
                return place + 1
        end = _end(_SCALAR, block, place)
        if end < len(block):
            self._inside = ""
        return end

    def _in_brackets(self, block: bytes, place: int) -> int:
        place = _end(_FLAT, block, place)
        if place == len(block):
            return place
        if block[place] == _QUOTE:
            self._inside = "string"
        else:
            self._depth += 1 if block[place] in b"{[" else -1
            self._inside = "brackets" if self._depth else ""
        return place + 1

    def _in_string(self, block: bytes, place: int) -> int:
        place = _end(_REST_OF_STRING, block, place)
        if place == len(block):
            return place
        if block[place] != _QUOTE:  # a backslash is the block's last byte
            self._inside = "byte"
        else:
            self._inside = "brackets" if self._depth else ""
        return place + 1

    def _element(self, rest: bytes, end: int) -> FileLine:
        """The element that ends with ``rest``, before the byte ``end`` of the file."""
        self._number += 1
        self._place = "behind"
        begin, self._begin = self._begin, end
        if not self._line.length and len(rest) <= MAX_LINE_BYTES:
            return FileLine(self._number, begin, rest, len(rest))
        line, self._line = self._line, UnfinishedLine()
        line.add(rest)
        return line.finished(self._number, begin)

    def _fail(self, at: int, what: str) -> NoReturn:
        raise PermanentError(
            f"the JSON is damaged at byte {at}, behind element {self._number}: {what}. The elements before are loaded"
        )


def _end(pattern: re.Pattern[bytes], block: bytes, place: int) -> int:
    """Where a match that may be empty ends."""
    found = pattern.match(block, place)
    return found.end() if found else place


def _shown(byte: bytes) -> str:
    return repr(byte.decode("ascii", errors="backslashreplace"))
