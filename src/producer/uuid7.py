"""UUIDs of version 7 (RFC 9562), which Python has from 3.14 on."""

from __future__ import annotations

import os
import time
import uuid


def uuid7(nanoseconds: int | None = None) -> uuid.UUID:
    """A new UUIDv7: sorted by time, 62 bits of it random.

    The 12 bits after the milliseconds hold their fraction (RFC 9562, section 6.2, method 3), so that ids
    drawn one after the other in a process sort in that order, as long as its clock does not go back.

    Parameters
    ----------
    nanoseconds
        Unix time; now, if not given.
    """
    milliseconds, rest = divmod(time.time_ns() if nanoseconds is None else nanoseconds, 1_000_000)
    fraction = (rest << 12) // 1_000_000
    random = int.from_bytes(os.urandom(8)) & (1 << 62) - 1
    return uuid.UUID(int=milliseconds << 80 | 7 << 76 | fraction << 64 | 2 << 62 | random)
