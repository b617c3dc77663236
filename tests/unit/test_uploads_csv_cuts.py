"""CSV cuts: at the beginnings of records, as Python's csv module sees them, whatever the blocks."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from itertools import accumulate

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploads.chunk_job import Delimiter
from uploads.formats.csv_cuts import CsvCuts, Place


def beginnings(data: bytes) -> list[int]:
    """Where the records of ``data`` begin, by the csv module (each byte is a character)."""
    text = data.decode("latin-1")
    taken = 0

    def lines() -> Iterator[str]:
        nonlocal taken
        for line in text.splitlines(keepends=True):
            taken += len(line)
            yield line

    return [0, *(taken for _ in csv.reader(lines()))][:-1] if text else []


def cuts(data: bytes, chunk_bytes: int, block_bytes: int = 1000, start: int = 0) -> list[int]:
    scan = CsvCuts(chunk_bytes, Place(position=start, cut=start))
    blocks = [data[at : at + block_bytes] for at in range(start, len(data), block_bytes)]
    return [cut for block in blocks for cut in scan.feed(block)]


def expected(data: bytes, chunk_bytes: int) -> list[int]:
    chosen, last = [], 0
    for begin in beginnings(data):
        if begin >= last + chunk_bytes:
            chosen.append(begin)
            last = begin
    return chosen


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        pytest.param(b"a,b\nc,d\n", [4], id="plain"),
        pytest.param(b"a,b\r\nc,d\r\n", [5], id="crlf"),
        pytest.param(b"a,b\nc,d", [4], id="no newline at the end"),
        pytest.param(b'"a\nb",c\nd,e\n', [8], id="newline in quotes"),
        pytest.param(b'"a""\nb",c\nd,e\n', [10], id="doubled quotation mark before the newline"),
        pytest.param(b'"a\n""\n",c\nd\n', [10], id="doubled quotation mark between newlines"),
        pytest.param(b'5" disk,"a\nb"\nc\n', [14], id="stray mark in an unquoted field"),
        pytest.param(b'"a"b"c\nd,e\n', [7], id="stray mark behind a closed field"),
        pytest.param(b'a, "b\nc"\n', [6], id="a mark behind a space opens nothing"),
        pytest.param(b'\xef\xbb\xbf"a\nb",c\nd\n', [11], id="byte order mark before a quoted field"),
        pytest.param(b'a,b\n"never closed\nc,d\n', [4], id="never closed: the rest is one record"),
        pytest.param(b"one record only", [], id="one record"),
        pytest.param(b"", [], id="empty"),
    ],
)
def test_cuts_only_where_a_record_begins(data: bytes, wanted: list[int]) -> None:
    for block_bytes in range(3, 12):
        assert cuts(data, 4, block_bytes) == wanted


csv_bytes = st.lists(st.sampled_from([b"a", b"bb", b",", b'"', b'""', b"\n", b"\r\n"]), max_size=60).map(
    b"".join
)


@given(data=csv_bytes, chunk_bytes=st.integers(1, 20), block_bytes=st.integers(1, 20))
def test_agrees_with_the_csv_module(data: bytes, chunk_bytes: int, block_bytes: int) -> None:
    assert cuts(data, chunk_bytes, block_bytes) == expected(data, chunk_bytes)


@given(data=csv_bytes, chunk_bytes=st.integers(1, 20), block_bytes=st.integers(1, 20))
def test_the_search_can_go_on_from_any_cut(data: bytes, chunk_bytes: int, block_bytes: int) -> None:
    whole = cuts(data, chunk_bytes, block_bytes)
    for number, cut in enumerate(whole, 1):
        assert cuts(data, chunk_bytes, block_bytes, start=cut) == whole[number:]


def test_chunks_are_as_large_as_asked_and_little_larger() -> None:
    row = b'12,"a quoted, field",plain\n'
    found = cuts(row * 1000, 1024, block_bytes=4096)
    sizes = [end - begin for begin, end in zip([0, *found], found, strict=False)]
    assert found
    assert all(1024 <= size < 1024 + len(row) for size in sizes)
    assert list(accumulate(sizes)) == found


@given(data=csv_bytes, chunk_bytes=st.integers(1, 20), block_bytes=st.integers(1, 20))
def test_the_search_can_stop_behind_any_block_and_go_on(
    data: bytes, chunk_bytes: int, block_bytes: int
) -> None:
    found: list[int] = []
    place = Place()
    while place.position < len(data):
        scan = CsvCuts(chunk_bytes, place)
        found += scan.feed(data[place.position : place.position + block_bytes])
        place = scan.place
    assert found == cuts(data, chunk_bytes, block_bytes)


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_a_mark_opens_a_field_behind_the_delimiter_of_the_file_and_no_other(delimiter: Delimiter) -> None:
    data = b'a,"b%b"c\nd"%be\nf\ng\n' % (delimiter.encode(), delimiter.encode())
    wanted = [cut for cut in range(len(data)) if data[cut:].startswith((b"f", b"g"))]
    # `"c ... d"` is one quoted field; with commas the mark in `a,"b` would have opened one.
    scan = CsvCuts(1, delimiter=delimiter)
    assert scan.feed(data) == wanted


def test_one_row_of_nothing_but_commas_is_read_in_linear_time() -> None:
    """Counted in steps of the search, and not in seconds: a step a field would be a million."""
    scan = CsvCuts(1000)
    steps = 0
    advance = scan._advance

    def counted(block: bytes, place: int) -> int:
        nonlocal steps
        steps += 1
        return advance(block, place)

    scan._advance = counted  # type: ignore[method-assign]
    for _ in range(100):
        assert scan.feed(b"," * 10_000) == []
    assert steps <= 101
    assert scan.feed(b"\nnext\n") == [1_000_001]


def test_a_field_that_is_never_closed_ends_the_search() -> None:
    scan = CsvCuts(5, max_open_bytes=100)
    assert scan.feed(b'a,b\nc,"d') == [4] or not scan.over
    for fed in range(10, 200, 10):
        scan.feed(b"x\n" * 5)
        assert scan.over is (fed > 91)


def test_a_field_that_is_closed_in_time_does_not_end_it() -> None:
    scan = CsvCuts(5, max_open_bytes=100)
    for _ in range(50):
        scan.feed(b'"x\nyyyyyyyyyyyyyyy')
        assert not scan.over
        scan.feed(b'",z\n')
