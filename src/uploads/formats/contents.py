"""What the first bytes of a file show: its true format, or why it would not load and what to do about it. Pure.

People's files are often almost right. A file that would end as nothing but rejected lines fails here, with one
sentence, before anything is published. Doubtful files are let through: their lines are judged later.
"""

from __future__ import annotations

import csv
import zlib
from typing import TYPE_CHECKING, NamedTuple

from pydantic_core import from_json

from common.errors import PermanentError
from records.json_text import BOM

if TYPE_CHECKING:
    from uploads.chunk_job import Delimiter, Format

LOOKED_AT_BYTES = 64 * 1024
"""As much of a file is looked at, and of a gzip file as much of what it holds."""

_GZIP = b"\x1f\x8b"
_NO_TEXT = {
    _GZIP: "it looks gzipped: name it with .gz at the end, or give it the content encoding gzip",
    b"PK\x03\x04": "it looks like a zip archive or an Excel workbook: unpack it, or export it as CSV",
    b"\x28\xb5\x2f\xfd": "it looks packed by zstd: unpack it, or pack it by gzip",
}
# Longer ones first: the mark of UTF-16 is the beginning of that of UTF-32.
_MARKS = {
    b"\xff\xfe\0\0": "UTF-32",
    b"\0\0\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
# Where the first bytes of text are NUL, which UTF-8 never is (as RFC 4627, section 3, has it).
_NULS: dict[tuple[bool, ...], str] = {
    (True, True, True, False): "UTF-32BE",
    (False, True, True, True): "UTF-32LE",
    (True, False, True, False): "UTF-16BE",
    (False, True, False, True): "UTF-16LE",
}
_NAMES = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
_OPTIONS = {",": "','", ";": "';'", "\t": "tab", "|": "'|'"}
_BLANKS = b" \t\r\n"


class Beginning(NamedTuple):
    """The first bytes of a file."""

    data: bytes
    is_all: bool
    """Whether the file has no more."""

    def lines(self, count: int) -> list[bytes]:
        """The first lines that are not blank, as far as they are here whole."""
        lines = self.data.split(b"\n")
        whole = lines if self.is_all else lines[:-1]
        return [line for each in whole if (line := each.strip(_BLANKS))][:count]


def look(beginning: Beginning, known: Format, *, gzip: bool, delimiter: Delimiter | None) -> Format:
    """The format of a file that is called ``known``: itself, or NDJSON for a ``.json`` that has an object a line.

    Parameters
    ----------
    gzip
        Whether the file is called gzipped.
    delimiter
        What the fields of a CSV file are taken to be separated by; None if somebody has chosen it.

    Raises
    ------
    PermanentError
        The file is something else. The message says what, and what to do.
    """
    if gzip and beginning.data:
        beginning = _unpacked(beginning)
    _require_text(beginning.data)
    beginning = beginning._replace(data=beginning.data.removeprefix(BOM))
    if known == "csv":
        if delimiter is not None:
            _require_columns(beginning, delimiter)
        return known
    found = _kind(beginning)
    if known == "json":
        return "json" if found else "ndjson"
    if found:
        lines = "jq -c '.[]' FILE" if found == "array" else "jq -c . FILE"
        article = "a JSON array" if found == "array" else "a JSON document of several lines"
        raise PermanentError(
            f"this is {article}, and NDJSON has one object a line: name it .json, and it is loaded as it is,"
            f" or make lines of it: {lines}"
        )
    return known


def _unpacked(beginning: Beginning) -> Beginning:
    if not beginning.data.startswith(_GZIP):
        raise PermanentError(
            "it is called gzipped, and is not: name it without .gz, and without content encoding"
        )
    unpack = zlib.decompressobj(16 + zlib.MAX_WBITS)
    try:
        data = unpack.decompress(beginning.data, LOOKED_AT_BYTES)
    except zlib.error:
        data = b""  # where it is damaged is for the chunk to say, which loads what comes before
    return Beginning(data, is_all=beginning.is_all and unpack.eof and not unpack.unused_data)


def _require_text(data: bytes) -> None:
    for magic, sentence in _NO_TEXT.items():
        if data.startswith(magic):
            raise PermanentError(sentence)
    encoding = next((name for mark, name in _MARKS.items() if data.startswith(mark)), None)
    encoding = encoding or _NULS.get(tuple(byte == 0 for byte in data[:4]))
    if encoding:
        raise PermanentError(
            f"it looks like {encoding}, and text is UTF-8 here: iconv -f {encoding} -t UTF-8 FILE > NEW_FILE"
        )


def _require_columns(beginning: Beginning, delimiter: Delimiter) -> None:
    """Refuse a file whose one column holds what separates the fields of other files."""
    lines = beginning.lines(2)
    header_and_row = 2
    if len(lines) < header_and_row or _fields(lines[0], delimiter) != 1:
        return
    for other, name in _NAMES.items():
        # Both, and alike: a single header may well hold a semicolon.
        counts = {_fields(line, other) for line in lines}
        if other != delimiter and len(counts) == 1 and counts != {1}:
            raise PermanentError(
                f"its header is one column that holds {name}: load it with --delimiter {_OPTIONS[other]}"
                f" (or the object metadata delimiter={_OPTIONS[other]}). If it is one column indeed: --delimiter"
                f" {_OPTIONS[delimiter]}"
            )


def _fields(line: bytes, delimiter: str) -> int:
    try:
        return len(next(csv.reader([line.decode(errors="replace")], delimiter=delimiter)))
    except csv.Error:
        return 0


def _kind(beginning: Beginning) -> str | None:
    """``array`` or ``document``, where the file has a JSON text of several lines; None for an object a line."""
    text = beginning.data.lstrip(_BLANKS)
    lines = beginning.lines(2)
    if text.startswith(b"["):
        # An array that is whole on a line, with lines behind it, is a bad line among others.
        return "array" if len(lines) < 2 or not _is_json(lines[0]) else None
    if not text.startswith(b"{") or len(lines) < 2:
        return None
    if _is_json(lines[0]):
        return None
    # A line of NDJSON that breaks off is one bad line among others, and the next one is an object.
    first, second = lines
    if first.endswith(b"[") or second.startswith((b",", b"}", b"]")):
        return "document"
    return "document" if first.endswith((b"{", b",", b":")) and not second.startswith(b"{") else None


def _is_json(text: bytes) -> bool:
    try:
        from_json(text)
    except ValueError:
        return False
    return True
