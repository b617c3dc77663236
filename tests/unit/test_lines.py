"""Byte blocks into lines: every line once, with its true offset and number, wherever the file is cut."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import accumulate, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PermanentError
from uploads.formats.lines import KEPT_BYTES, MAX_LINE_BYTES, FileLine, split_lines


def blocks(data: bytes, size: int, start: int = 0) -> Iterator[bytes]:
    """What the object reader gives: from the byte before ``start`` on, in blocks."""
    for place in range(max(start - 1, 0), len(data), size):
        yield data[place : place + size]


def lines_of(data: bytes, start: int = 0, end: int | None = None, size: int = 7) -> list[FileLine]:
    return list(split_lines(blocks(data, size, start), start=start, end=end))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", []),
        (b"\n", [(1, 0, b"")]),
        (b"a", [(1, 0, b"a")]),
        (b"a\n", [(1, 0, b"a")]),
        (b"a\nb", [(1, 0, b"a"), (2, 2, b"b")]),
        (b"a\r\nb\r\n", [(1, 0, b"a\r"), (2, 3, b"b\r")]),
        (b"\n\na\n\n", [(1, 0, b""), (2, 1, b""), (3, 2, b"a"), (4, 4, b"")]),
        (b"a\rb", [(1, 0, b"a\rb")]),
    ],
)
def test_lines_end_at_lf_and_nothing_follows_a_final_one(
    data: bytes, expected: list[tuple[int, int, bytes]]
) -> None:
    assert [line[:3] for line in lines_of(data)] == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 1, [b"one"]),
        (0, 3, [b"one"]),  # its LF belongs to it
        (0, 4, [b"one"]),  # cut exactly between two lines
        (0, 5, [b"one", b"two"]),
        (1, 4, []),
        (3, 5, [b"two"]),  # begins on the LF before
        (4, 8, [b"two"]),
        (5, 8, []),
        (8, 13, [b"three"]),
        (9, 13, []),
    ],
)
def test_a_line_belongs_to_the_chunk_in_which_it_begins(start: int, end: int, expected: list[bytes]) -> None:
    assert [line.data for line in lines_of(b"one\ntwo\nthree", start, end)] == expected


@given(
    data=st.lists(st.sampled_from([b"\n", b"\r\n", b"a", b"bc", b'"', b"\xff", b"\0"]), max_size=60).map(
        b"".join
    ),
    cuts=st.sets(st.integers(1, 80), max_size=6),
    size=st.integers(1, 20),
)
def test_the_lines_of_the_chunks_are_the_lines_of_the_file(data: bytes, cuts: set[int], size: int) -> None:
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    chunks = [lines_of(data, start, end, size) for start, end in pairwise(edges)]
    whole = lines_of(data, size=1000)
    assert b"".join(line.data + b"\n" for line in whole).removesuffix(b"\n") == data.removesuffix(b"\n")
    assert [line[1:] for chunk in chunks for line in chunk] == [line[1:] for line in whole]
    # The line's number in the file is that in its chunk and what the chunks before have.
    before = accumulate((len(chunk) for chunk in chunks), initial=0)
    numbers = [lines + line.number for lines, chunk in zip(before, chunks, strict=False) for line in chunk]
    assert numbers == [line.number for line in whole]


def test_no_block_is_asked_for_beyond_the_last_line_of_the_chunk() -> None:
    asked = []

    def source() -> Iterator[bytes]:
        for block in (b"one\ntwo", b"\nthree\n", b"four"):
            asked.append(block)
            yield block

    assert [line.data for line in split_lines(source(), end=5)] == [b"one", b"two"]
    assert asked == [b"one\ntwo", b"\nthree\n"]


def test_a_chunk_inside_one_long_line_is_not_read_beyond_its_end() -> None:
    asked = 0

    def source() -> Iterator[bytes]:
        nonlocal asked
        while asked < 1000:
            asked += 1
            yield b"x" * 10

    assert list(split_lines(source(), start=51, end=90)) == []
    assert asked == 4


@pytest.mark.parametrize("size", [1000, 64 * 1024, 3 * 1024 * 1024])
def test_a_line_that_is_too_long_is_measured_and_only_its_beginning_is_kept(size: int) -> None:
    length = 2 * 1024 * 1024
    data = b'{"a":1}\n' + b"x" * (length - 3) + b'"""' + b"\nlast\n"
    first, long, last = split_lines(blocks(data, size))
    assert first.data == b'{"a":1}'
    assert (long.number, long.offset, long.length) == (2, 8, length)
    assert long.data == b"x" * KEPT_BYTES
    assert long.unkept_quotes == 3
    assert last == FileLine(3, 8 + length + 1, b"last", 4)


@pytest.mark.parametrize("terminated", [True, False])
@pytest.mark.parametrize(
    ("length", "kept"), [(MAX_LINE_BYTES, MAX_LINE_BYTES), (MAX_LINE_BYTES + 1, KEPT_BYTES)]
)
def test_the_longest_line_is_held_whole(length: int, kept: int, terminated: bool) -> None:
    (line,) = split_lines(blocks(b"x" * length + b"\n" * terminated, 64 * 1024))
    assert (line.length, len(line.data)) == (length, kept)


def test_a_line_without_an_end_takes_no_memory_of_its_own() -> None:
    block = b"x" * (64 * 1024)
    tracemalloc.start()
    (line,) = split_lines(block for _ in range(4 * 1024))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (line.length, len(line.data)) == (256 * 1024**2, KEPT_BYTES)
    assert peak < 4 * 1024**2


@given(
    lines=st.lists(st.sampled_from([b"", b"", b"a", b" ", b"\r"]), max_size=40),
    size=st.integers(1, 20),
    start=st.integers(0, 20),
    length=st.integers(1, 40),
)
def test_without_every_empty_line_the_others_and_the_count_are_the_same(
    lines: list[bytes], size: int, start: int, length: int
) -> None:
    data = b"\n".join(lines)
    if start > len(data):
        return
    whole = lines_of(data, start, start + length, size)
    sparse = list(split_lines(blocks(data, size, start), start=start, end=start + length, every_empty=False))
    assert [line for line in sparse if line.data] == [line for line in whole if line.data]
    assert set(sparse) <= set(whole)
    assert sparse[-1:] == whole[-1:], "so that the lines of a chunk are counted to the last"


def test_a_gigabyte_of_empty_lines_shows_its_reader_how_far_it_is_and_no_more() -> None:
    seen = list(split_lines([b"\n" * 1000] * 50, every_empty=False))
    assert [line.number for line in seen] == list(range(1000, 50_001, 1000))


def test_a_line_that_does_not_end_is_not_read_to_the_end_of_the_file() -> None:
    read = iter([b"a\nb\n", *[b"x" * 10] * 1000])
    found: list[bytes] = []
    lines = (found.append(line.data) for line in split_lines(read, max_bytes=100))
    with pytest.raises(PermanentError, match="the line that begins at byte 4 is not over after 100 bytes"):
        list(lines)
    assert found == [b"a", b"b"]
    assert len(list(read)) == 989
