"""gzip as a stream: members, padding, damage, and no more memory than a block."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import PermanentError
from uploads.formats.gunzip import gunzip

TEXT = b"".join(b'{"n": %d}\n' % number for number in range(5000))


def blocks(data: bytes, size: int) -> Iterator[bytes]:
    return (data[place : place + size] for place in range(0, len(data), size))


def readable(source: Iterable[bytes]) -> tuple[bytes, str]:
    out = b""
    try:
        for block in gunzip(source):
            out += block
    except PermanentError as error:
        return out, str(error)
    return out, ""


@given(
    members=st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    padding=st.integers(0, 20),
    size=st.integers(1, 50),
    block_bytes=st.integers(1, 64),
)
def test_members_and_padding_are_one_file_however_it_arrives(
    members: list[bytes], padding: int, size: int, block_bytes: int
) -> None:
    data = b"".join(gzip.compress(member, mtime=0) for member in members) + b"\0" * padding
    parts = list(gunzip(blocks(data, size), block_bytes=block_bytes))
    assert b"".join(parts) == b"".join(members)
    assert all(0 < len(part) <= block_bytes for part in parts)


@pytest.mark.parametrize("left", [0, 5, 18, 1000, -9, -1])
def test_a_file_that_ends_early_gives_what_is_there_and_then_an_error(left: int) -> None:
    out, reason = readable(blocks(gzip.compress(TEXT)[:left] if left else b"", 100))
    assert TEXT.startswith(out)
    assert reason == "damaged gzip file: it ends early"
    assert (left < 1000 and left >= 0) or len(out) > 1000


def test_a_second_member_that_ends_early_is_an_error_too() -> None:
    out, reason = readable(blocks(gzip.compress(TEXT) + gzip.compress(TEXT)[:-1], 100))
    assert out.startswith(TEXT)
    assert reason == "damaged gzip file: it ends early"


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"n": 1}\n', "incorrect header check"),
        (gzip.compress(TEXT)[:-8] + b"\1" * 8, "incorrect data check"),
        (gzip.compress(TEXT) + b"garbage", "incorrect header check"),
    ],
)
def test_a_damaged_file_is_a_permanent_error(data: bytes, reason: str) -> None:
    out, error = readable(blocks(data, 100))
    assert error.startswith("not a gzip file, or a damaged one: ")
    assert reason in error
    assert TEXT.startswith(out)


def test_a_file_that_unpacks_to_a_thousand_times_its_size_comes_in_small_blocks() -> None:
    packer = zlib.compressobj(9, wbits=31)
    bomb = b"".join(packer.compress(b"\0" * 2**20) for _ in range(64)) + packer.flush()
    assert len(bomb) < 70_000
    sizes = [len(block) for block in gunzip([bomb])]
    assert sum(sizes) == 64 * 2**20
    assert max(sizes) <= 64 * 1024
