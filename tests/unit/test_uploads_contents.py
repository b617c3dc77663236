"""What the first bytes of a file show: files that are almost right fail with a sentence, all others pass."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from common.errors import PermanentError
from uploads.chunk_job import Delimiter, Format
from uploads.formats.contents import LOOKED_AT_BYTES, Beginning, look

BOM = b"\xef\xbb\xbf"


def looked_at(
    data: bytes, known: Format = "ndjson", *, gzipped: bool = False, delimiter: Delimiter | None = ","
) -> Format:
    beginning = Beginning(data[:LOOKED_AT_BYTES], is_all=len(data) <= LOOKED_AT_BYTES)
    return look(beginning, known, gzip=gzipped, delimiter=delimiter)


ROWS: list[dict[str, Any]] = [{"a": 1, "b": [{"c": 2}]}, {"a": 2, "b": []}]
ARRAY = json.dumps(ROWS).encode()
LINES = b"".join(json.dumps(row).encode() + b"\n" for row in ROWS)
ARRAYS = [
    ARRAY,
    ARRAY + b"\n",
    BOM + ARRAY,
    b"\n " + json.dumps(ROWS, indent=2).encode(),
    b"[\n" + LINES.replace(b"}\n", b"},\n") + b"{}\n]\n",
    b"[" + ARRAY[1:-1] + b",\n" + ARRAY[1:],
    json.dumps(ROWS * 10_000).encode(),
    b"[",
    b"[]",
]
DOCUMENTS = [
    json.dumps(ROWS[0], indent=2).encode(),
    b'{\n"a": {}\n}\n{\n"a": {}\n}\n',
    b'{"a": [\n1,\n2]}\n',
    b"{\n}\n",
    b'{"a": 1\n,"b": 2\n}\n',
    b'{"items": [\n{"a": 1},\n{"a": 2}\n]}\n',
]
OBJECTS_A_LINE = [
    LINES,
    BOM + LINES,
    LINES.replace(b"\n", b"\r\n"),
    b"\n\n" + LINES,
    json.dumps(ROWS[0]).encode(),
    b"",
    b"\n \n",
    b'{"a": \n' + LINES,  # a line that breaks off
    b"not JSON\n" + LINES,
    b"{'a': 1}\n{'a': 2}\n",
    b'{"a": 1\nnot JSON\n',
    b"[1, 2]\n" + LINES,  # a bad line among others
    b'{"text": "' + b"x" * (2 * LOOKED_AT_BYTES) + b'"}\n',
]


@pytest.mark.parametrize("data", ARRAYS)
@pytest.mark.parametrize("packed", [False, True])
def test_a_json_array_that_is_called_ndjson_fails_and_is_told_what_to_do(data: bytes, packed: bool) -> None:
    with pytest.raises(
        PermanentError, match=r"this is a JSON array, .* name it .json, .* jq -c '\.\[\]' FILE$"
    ):
        looked_at(gzip.compress(data, mtime=0) if packed else data, gzipped=packed)
    assert looked_at(data, "json") == "json"


@pytest.mark.parametrize("data", DOCUMENTS)
def test_a_document_of_several_lines_that_is_called_ndjson_is_told_what_to_do(data: bytes) -> None:
    with pytest.raises(PermanentError, match=r"this is a JSON document of several lines, .* jq -c \. FILE$"):
        looked_at(data)
    assert looked_at(data, "json") == "json"


@pytest.mark.parametrize("data", OBJECTS_A_LINE)
def test_a_file_of_an_object_a_line_is_ndjson_whatever_it_is_called(data: bytes) -> None:
    assert looked_at(data) == "ndjson"
    assert looked_at(data, "json") == "ndjson"


@pytest.mark.parametrize("known", ["ndjson", "json", "csv"])
@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (gzip.compress(LINES, mtime=0), "it looks gzipped: name it with .gz"),
        (b"PK\x03\x04\x14\0\0\0", "a zip archive or an Excel workbook"),
        (b"\x28\xb5\x2f\xfd\x04", "packed by zstd"),
        ("a,b\n".encode("utf-16"), "it looks like UTF-16, .* iconv -f UTF-16 -t UTF-8 FILE"),
        ("a,b\n".encode("utf-32"), "it looks like UTF-32, .* iconv -f UTF-32 -t"),
        (b"\xfe\xff\0a\0,", "it looks like UTF-16, "),
        ('{"a": 1}'.encode("utf-16-le"), "it looks like UTF-16LE, .* iconv -f UTF-16LE -t"),
        ('{"a": 1}'.encode("utf-16-be"), "it looks like UTF-16BE, "),
        ('{"a": 1}'.encode("utf-32-le"), "it looks like UTF-32LE, "),
        ('{"a": 1}'.encode("utf-32-be"), "it looks like UTF-32BE, "),
    ],
)
def test_what_is_no_text_in_utf_8_says_what_it_looks_like(known: Format, data: bytes, sentence: str) -> None:
    with pytest.raises(PermanentError, match=sentence):
        looked_at(data, known)


def test_a_gzip_file_is_looked_into() -> None:
    with pytest.raises(PermanentError, match="it looks like UTF-16"):
        looked_at(gzip.compress("a,b\n".encode("utf-16"), mtime=0), "csv", gzipped=True)
    with pytest.raises(PermanentError, match="it looks gzipped"):
        looked_at(gzip.compress(gzip.compress(LINES), mtime=0), gzipped=True)
    assert looked_at(gzip.compress(LINES, mtime=0) + gzip.compress(LINES), "json", gzipped=True) == "ndjson"


def test_what_is_called_gzipped_and_is_not_says_so() -> None:
    with pytest.raises(PermanentError, match=r"called gzipped, and is not: name it without .gz"):
        looked_at(LINES, gzipped=True)


@pytest.mark.parametrize("data", [b"", gzip.compress(LINES, mtime=0)[:15], b"\x1f\x8bdamaged"])
def test_a_gzip_file_that_is_damaged_is_for_its_chunk_to_judge(data: bytes) -> None:
    assert looked_at(data, gzipped=True) == "ndjson"


@pytest.mark.parametrize(
    ("data", "delimiter", "sentence"),
    [
        (b"a\tb\tc\n1\t2\t3\n", ",", r"one column that holds tabs: load it with --delimiter tab"),
        (b"a;b;c\r\n1,5;2;3\r\n", ",", r"one column that holds semicolons: load it with --delimiter ';'"),
        (b'a|b\n1|"x\n', ",", r"one column that holds vertical bars: load it with --delimiter '\|'"),
        (BOM + b'"a";"b"\n1;2', ",", r"holds semicolons"),
        (b"a,b\n1,2\n", "\t", r"one column that holds commas: load it with --delimiter ','"),
    ],
)
def test_a_csv_file_of_one_column_that_holds_other_separators_says_so(
    data: bytes, delimiter: Delimiter, sentence: str
) -> None:
    with pytest.raises(PermanentError, match=sentence):
        looked_at(data, "csv", delimiter=delimiter)
    assert looked_at(data, "csv", delimiter=None) == "csv", "somebody has chosen it"


@pytest.mark.parametrize(
    "data",
    [
        b"a,b;c\n1,2;3\n",  # more than one column
        b"text\nyes; no\n",
        b"notes; or none\nfree text\n",
        b"a;b\n",  # a header alone: nothing that would be rejected
        b"a;b",
        b'"a;b"\n"c;d"\n',
        b"a\n1\n",
        b"",
    ],
)
def test_any_other_csv_file_passes(data: bytes) -> None:
    assert looked_at(data, "csv") == "csv"
