"""UUIDv7 as RFC 9562 has it."""

from __future__ import annotations

import uuid
from itertools import pairwise

from producer.uuid7 import uuid7


def test_has_version_variant_and_the_time_in_milliseconds() -> None:
    # The RFC's own example (appendix A.6): 2022-02-22 14:22:22.00-05:00.
    example = uuid7(0x017F22E279B0 * 1_000_000)
    assert str(example).startswith("017f22e2-79b0-7000-")
    assert example.version == 7
    assert example.variant == uuid.RFC_4122


def test_sorts_by_time_within_a_millisecond() -> None:
    # A step of the fraction is 1/4096 ms: 244.14 ns.
    drawn = [uuid7(1_700_000_000_000_000_000 + step * 245) for step in range(4_000)]
    assert all(earlier < later for earlier, later in pairwise(drawn))
    assert drawn[-1].int >> 80 == drawn[0].int >> 80, "all in one millisecond"


def test_is_random_in_62_bits() -> None:
    drawn = [uuid7(0).int & (1 << 62) - 1 for _ in range(2_000)]
    assert len(set(drawn)) == 2_000
    seen, always = 0, (1 << 62) - 1
    for value in drawn:
        seen |= value
        always &= value
    assert seen == (1 << 62) - 1
    assert always == 0


def test_takes_the_present_time() -> None:
    assert uuid7() < uuid7(2**48 * 1_000_000 - 1)
    assert uuid7() > uuid7(1_700_000_000_000_000_000)
