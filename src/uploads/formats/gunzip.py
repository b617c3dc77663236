"""Decompresses gzip as a stream. Memory stays flat, even if a file unpacks to a thousand times its size."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from common.errors import PermanentError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_GZIP = 16 + zlib.MAX_WBITS  # zlib's way to say: with a gzip header and its checksum


def gunzip(blocks: Iterable[bytes], *, block_bytes: int = 64 * 1024) -> Iterator[bytes]:
    """The decompressed bytes, at most ``block_bytes`` at a time.

    Several gzip members one after the other are one file, and zero bytes behind a member are padding (as
    gzip(1) and Python's gzip take them).

    Raises
    ------
    PermanentError
        The file is not gzip, is damaged, or ends early. What comes before that block has been yielded.
    """
    member = None
    complete = False
    for block in blocks:
        data = block.lstrip(b"\0") if complete and member is None else block
        while data:
            member = member or zlib.decompressobj(_GZIP)
            try:
                out = member.decompress(data, block_bytes)
            except zlib.error as error:
                raise PermanentError(f"not a gzip file, or a damaged one: {error}") from error
            if out:
                yield out
            if member.eof:
                data = member.unused_data.lstrip(b"\0")
                member, complete = None, True
            else:
                # A full block may not be all that zlib holds; the member's end, still to come, brings the rest.
                data = member.unconsumed_tail
    if member is not None or not complete:
        raise PermanentError("damaged gzip file: it ends early")
