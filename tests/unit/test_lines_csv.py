"""Lines into CSV rows: RFC 4180, exact offsets and bytes, a fault for what is not."""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PermanentError
from records.json_text import BOM
from uploads.chunk_job import Delimiter
from uploads.formats.csv_cuts import CsvCuts
from uploads.formats.csv_rows import CsvRow, column_names, csv_rows
from uploads.formats.lines import KEPT_BYTES, MAX_LINE_BYTES, split_lines


def rows_of(data: bytes, start: int = 0, end: int | None = None, size: int = 64 * 1024) -> list[CsvRow]:
    begin = max(start - 1, 0)
    blocks: Iterator[bytes] = (data[place : place + size] for place in range(begin, len(data), size))
    return [row for row in csv_rows(split_lines(blocks, start=start, end=end)) if not row.is_empty]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"a,b\n1,2\n", [["a", "b"], ["1", "2"]]),
        (b"a,b\r\n1,2\r\n", [["a", "b"], ["1", "2"]]),
        (b"a,b\n1,2", [["a", "b"], ["1", "2"]]),
        (b"a,,\n", [["a", "", ""]]),
        (b'"a","b"\n', [["a", "b"]]),
        (b'"a""b",""\n', [['a"b', ""]]),
        (b'"a\nb",c\n', [["a\nb", "c"]]),
        (b'"a\r\n\r\nb",c\r\nd,e', [["a\r\n\r\nb", "c"], ["d", "e"]]),
        (b'"a\rb",c\n', [["a\rb", "c"]]),
        (b'"a,b",c\n', [["a,b", "c"]]),
        (b'""\n', [[""]]),
        (b"\n\r\na\n\n", [["a"]]),
        (b'5" disk,3\n6" disk,4\n', [['5" disk', "3"], ['6" disk', "4"]]),
        ("käse,🧀\n".encode(), [["käse", "🧀"]]),
        (BOM + b"a,b\n", [["a", "b"]]),
        (BOM + b'"a",b\n', [["a", "b"]]),
    ],
)
def test_rows_are_read_as_rfc_4180_says(data: bytes, expected: list[list[str]]) -> None:
    rows = rows_of(data)
    assert [row.fields for row in rows] == expected
    assert not any(row.fault for row in rows)


def test_a_row_knows_its_first_line_its_offset_and_its_bytes() -> None:
    data = b'h1,h2\r\n\r\n"a\r\nb",c\r\nd,"e"'
    assert rows_of(data) == [
        CsvRow(1, 0, b"h1,h2", 5, ["h1", "h2"]),
        CsvRow(3, 9, b'"a\r\nb",c', 8, ["a\r\nb", "c"]),
        CsvRow(5, 19, b'd,"e"', 5, ["d", "e"]),
    ]


@pytest.mark.parametrize(
    ("bad", "fault"),
    [
        (b"a,\xff", "not UTF-8: byte 0xff at offset 2"),
        (b'"a\n\xc3(",b', "not UTF-8: byte 0xc3 at offset 3"),
        (b"a\rb,c", "a carriage return outside quotation marks"),
        (b'"a",b\rc', "a carriage return outside quotation marks"),
        (b'"a"b,c', "text after the closing quotation mark of a field"),
        (b'"a\nb"c,"d\ne"', "text after the closing quotation mark of a field"),
    ],
)
def test_a_bad_row_is_one_fault_and_the_rows_around_it_are_good(bad: bytes, fault: str) -> None:
    before, row, after = rows_of(b"1,2\n" + bad + b"\n3,4\n")
    assert (before.fields, after.fields) == (["1", "2"], ["3", "4"])
    assert (row.raw, row.length, row.fault, row.fields) == (bad, len(bad), fault, [])


def test_a_quoted_field_that_is_never_closed_is_a_fault_to_the_end_of_the_file() -> None:
    _, row = rows_of(b'1,2\n"a,b\nc,d\n')
    assert (row.offset, row.raw, row.fault) == (4, b'"a,b\nc,d', "a quoted field is not closed")


@pytest.mark.parametrize("size", [1000, 64 * 1024])
def test_a_row_that_is_too_long_is_measured_to_its_end(size: int) -> None:
    long = b'"' + b"x" * (MAX_LINE_BYTES // 2) + b"\n" + b"y" * MAX_LINE_BYTES + b'""\n",z'
    before, row, after = rows_of(b"1,2\n" + long + b"\n3,4\n", size=size)
    assert (before.fields, after.fields) == (["1", "2"], ["3", "4"])
    assert (row.offset, row.number, row.length, row.raw) == (4, 2, len(long), long[:KEPT_BYTES])
    assert (after.offset, after.number) == (4 + len(long) + 1, 5)


def test_a_field_may_be_as_long_as_a_record() -> None:
    (row,) = rows_of(b'"' + b"x" * (MAX_LINE_BYTES - 3) + b'",')
    assert [len(field) for field in row.fields] == [MAX_LINE_BYTES - 3, 0]


TEXT = st.text(alphabet='ab", \r\n\N{SNOWMAN}', max_size=8)


def cuts_of(data: bytes, chunk_bytes: int) -> list[int]:
    return [0, *CsvCuts(chunk_bytes).feed(data), len(data)]


@given(
    table=st.lists(st.lists(TEXT, min_size=2, max_size=3), min_size=1, max_size=12),
    terminator=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    chunk_bytes=st.integers(1, 60),
    size=st.integers(1, 40),
)
def test_what_a_csv_writer_wrote_comes_back_the_same_wherever_it_is_cut(
    table: list[list[str]], terminator: str, quoting: int, chunk_bytes: int, size: int
) -> None:
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=terminator, quoting=quoting).writerows(table)  # type: ignore[arg-type]
    data = file.getvalue().encode()
    edges = cuts_of(data, chunk_bytes)
    chunks = [rows_of(data, start, end, size) for start, end in itertools.pairwise(edges)]
    assert [row.fields for chunk in chunks for row in chunk] == table
    for row in (row for chunk in chunks for row in chunk):
        assert data[row.offset :].startswith(row.raw + terminator.encode())


@given(
    data=st.lists(
        st.sampled_from([b'"', b'""', b",", b"\n", b"\r\n", b"\r", b"a", b"\xff"]), max_size=40
    ).map(b"".join),
    chunk_bytes=st.integers(1, 30),
)
def test_rows_begin_where_the_file_may_be_cut_also_in_a_file_that_is_not_well_formed(
    data: bytes, chunk_bytes: int
) -> None:
    whole = rows_of(data)
    beginnings = set(cuts_of(data, 1))
    assert {row.offset for row in whole} <= beginnings
    skipped = beginnings - {row.offset for row in whole} - {len(data)}
    assert all(data[place:].partition(b"\n")[0] in (b"", b"\r") for place in skipped)
    edges = cuts_of(data, chunk_bytes)
    chunks = [rows_of(data, start, end) for start, end in itertools.pairwise(edges)]
    assert [row[1:] for chunk in chunks for row in chunk] == [row[1:] for row in whole]


@pytest.mark.parametrize(
    ("header", "names"),
    [
        (b"a,b", ["a", "b"]),
        (b'"",b,""', ["column_1", "b", "column_3"]),
        (b'"two\nlines",b', ["two\nlines", "b"]),
        (b"a,", ["a", "column_2"]),
    ],
)
def test_a_column_without_a_name_is_named_by_its_place(header: bytes, names: list[str]) -> None:
    assert column_names(rows_of(header)[0]) == names


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"a,b,a", "the CSV header names 2 columns 'a'"),
        (b"column_2,", "the CSV header names 2 columns 'column_2'"),
        (b"a\0,b", "the CSV header holds a NUL"),
        (b"a,\xff", "the CSV header cannot be read: not UTF-8: byte 0xff at offset 2"),
        (b"a,b\rc,d\re,f\r", "the CSV header cannot be read: a carriage return outside quotation marks"),
        (b'"a,b', "the CSV header cannot be read: a quoted field is not closed"),
        (b"a" * (MAX_LINE_BYTES + 1), f"the CSV header cannot be read: it has over {MAX_LINE_BYTES} bytes"),
    ],
)
def test_a_header_that_names_no_columns_is_an_error_of_the_whole_file(header: bytes, reason: str) -> None:
    with pytest.raises(PermanentError, match=f"^{reason}"):
        column_names(rows_of(header)[0])


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_fields_are_separated_by_the_delimiter_of_the_file(delimiter: Delimiter) -> None:
    mark = delimiter.encode()
    data = b'a,1%bb\n"x%b""y"%bc\n"z"w%bd\n"two\nlines"%b5" disk\n'.replace(b"%b", mark)
    rows = list(csv_rows(split_lines([data]), delimiter))
    assert [(row.fields, row.fault) for row in rows] == [
        (["a,1", "b"], ""),
        ([f'x{delimiter}"y', "c"], ""),
        ([], "text after the closing quotation mark of a field"),
        (["two\nlines", '5" disk'], ""),
    ]


def test_a_row_that_is_not_over_is_not_read_to_the_end_of_the_file() -> None:
    lines = split_lines([b'a,b\n1,"two\nlines"\n3,"open\n' + b"x,y\n" * 1000])
    found: list[list[str]] = []
    rows = (found.append(row.fields) for row in csv_rows(lines, max_open_bytes=100))
    with pytest.raises(
        PermanentError, match=r"begins at byte 18 \(line 4 of its chunk\) is not over after 100"
    ):
        list(rows)
    assert found == [["a", "b"], ["1", "two\nlines"]]
    assert len(list(lines)) > 900
