"""A JSON file into its elements: their exact bytes and places, whatever the blocks, and damage between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PermanentError
from records.json_text import BOM
from uploads.formats.json_elements import elements, is_array
from uploads.formats.lines import KEPT_BYTES, MAX_LINE_BYTES, FileLine


def blocks(data: bytes, size: int, start: int = 0) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(start, len(data), size))


def elements_of(data: bytes, size: int = 64 * 1024) -> list[FileLine]:
    return list(elements(blocks(data, size), array=is_array(blocks(data, size))))


ELEMENTS = [
    b'{"a": 1}',
    b'{"b": "]},{[\\""}',
    b'[1, [2, {"c": []}]]',
    b'"a \\\\\\" string"',
    b"-1.5e3",
    b"null",
    b"{}",
]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("between", [b",", b" ,\r\n\t"])
def test_each_element_comes_with_its_own_bytes_and_its_place(size: int, between: bytes) -> None:
    mark = BOM if size >= len(BOM) else b""
    data = mark + b" [\n" + between.join(ELEMENTS) + b"\n]\n"
    found = elements_of(data, size)
    assert [element.data for element in found] == ELEMENTS
    assert [element.number for element in found] == list(range(1, len(ELEMENTS) + 1))
    for element in found:
        assert data[element.offset :].startswith(element.data)
        assert element.length == len(element.data)


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_documents_one_after_the_other_are_elements_too(size: int) -> None:
    data = b'{\n "a": 1\n}\n{"b": [2]}{}\n\n3 4'
    assert [element.data for element in elements_of(data, size)] == [
        b'{\n "a": 1\n}',
        b'{"b": [2]}',
        b"{}",
        b"3",
        b"4",
    ]


@pytest.mark.parametrize("data", [b"[]", b" [ \n ] ", b"", b" \n", BOM])
def test_a_file_without_elements_has_none(data: bytes) -> None:
    assert elements_of(data) == []


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=200)
@given(
    values=st.lists(VALUES, max_size=8),
    indent=st.sampled_from([None, 1]),
    ascii_only=st.booleans(),
    size=st.integers(1, 40),
)
def test_what_a_json_writer_wrote_comes_back_the_same_and_can_be_gone_on_with_behind_any_element(
    values: list[Any], indent: int | None, ascii_only: bool, size: int
) -> None:
    data = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    found = elements_of(data, size)
    assert [json.loads(element.data.decode(errors="surrogatepass")) for element in found] == values
    for element in found:
        end = element.offset + element.length
        rest = elements(blocks(data, size, end), array=True, start=end, number=element.number)
        assert list(rest) == found[element.number :]


@pytest.mark.parametrize(
    ("data", "good", "damage"),
    [
        (
            b"[1, 2 3]",
            2,
            "at byte 6, behind element 2: a comma or the end of the array is expected, and not '3'",
        ),
        (
            b"[{}{}]",
            1,
            "at byte 3, behind element 1: a comma or the end of the array is expected, and not '{'",
        ),
        (b"[1,,2]", 1, "at byte 3, behind element 1: an element is expected, and not ','"),
        (b"[1,]", 1, "at byte 3, behind element 1: an element is expected, and not ']'"),
        (b"[,1]", 0, "at byte 1, behind element 0: an element is expected, and not ','"),
        (
            b"[1}, 2]",
            1,
            "at byte 2, behind element 1: a comma or the end of the array is expected, and not '}'",
        ),
        (b"[1] [2]", 1, "at byte 4, behind element 1: '[' follows the end of the array"),
        (
            b'[1, {"a": "x',
            1,
            "at byte 4, behind element 1: the file ends inside the element that begins there",
        ),
        (b"[1, {}", 2, "at byte 6, behind element 2: the file ends before its array does"),
        (b"[1, ", 1, "at byte 4, behind element 1: the file ends before its array does"),
        (b"[", 0, "at byte 1, behind element 0: the file ends before its array does"),
        (b"{} , {}", 1, "at byte 3, behind element 1: an element is expected, and not ','"),
    ],
)
@pytest.mark.parametrize("size", [1, 2, 1000])
def test_damage_between_elements_ends_the_file_there_and_says_where(
    data: bytes, good: int, damage: str, size: int
) -> None:
    found: list[bytes] = []
    read = (found.append(each.data) for each in elements(blocks(data, size), array=is_array([data])))
    with pytest.raises(PermanentError) as error:
        list(read)
    assert damage in str(error.value)
    assert len(found) == good


@pytest.mark.parametrize(
    "bad", [b'{"a": tru}', b"{'a': 1}", b'{"a": 1]', b"nul", b"\xc3", b'{"a"}', b'{"\xff": 1}']
)
def test_a_bad_element_is_one_element_and_those_around_it_are_good(bad: bytes) -> None:
    assert [element.data for element in elements_of(b"[{}, %b, {}]" % bad)] == [b"{}", bad, b"{}"]


@pytest.mark.parametrize("size", [100_000, 64 * 1024])
def test_an_element_that_is_too_long_is_measured_and_not_kept(size: int) -> None:
    long = b'{"a": "%b"}' % (b"x" * MAX_LINE_BYTES)
    first, found, last = elements_of(b"[1,%b,2]" % long, size)
    assert (first.data, last.data) == (b"1", b"2")
    assert (found.offset, found.length, found.data) == (3, len(long), long[:KEPT_BYTES])


@pytest.mark.parametrize(
    ("data", "at"),
    [
        (b'[1, {"a": "' + b"x" * 200, 4),  # a quotation mark is missing
        (b'[1, {"a": {"b": 1}' + b', {"a": 1}' * 30, 4),  # a bracket is missing
        (b"[1," + b" " * 200 + b"2]", 2),
    ],
)
def test_what_does_not_end_is_not_read_to_the_end_of_the_file(data: bytes, at: int) -> None:
    read = 0

    def counted() -> Iterator[bytes]:
        nonlocal read
        for block in blocks(data, 10):
            read += len(block)
            yield block

    with pytest.raises(
        PermanentError, match=f"damaged at byte {at}, behind element 1: .* over after 100 bytes"
    ):
        list(elements(counted(), array=True, max_open_bytes=100))
    assert read < 130


def test_blanks_without_an_end_are_no_array() -> None:
    assert not is_array((b" " * 10 for _ in range(1_000_000)), max_blank_bytes=100)


def test_memory_holds_an_element_and_a_block_and_no_more() -> None:
    block = b'{"a": 1},' * 7_000
    count = 0
    for element in elements((b"[" if not n else block for n in range(50)), array=True):
        count += 1
        assert element.length == 8
        if count == 300_000:
            break
    assert count == 300_000
