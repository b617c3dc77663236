"""Two invocations at once: every order of their I/O calls for small batches, random ones for larger."""

from __future__ import annotations

from random import Random

import pytest

from tests.faults.account import look
from tests.faults.history import Act, Harness, History, Sent
from tests.faults.interleave import every_order
from tests.faults.replay import script
from tests.faults.turns import Choose, at_random
from tests.faults.twins import Twins

A, B, C = Sent("a"), Sent("b"), Sent("c")
REFUSED = Sent("b", 1, "refused")

CASES: dict[str, tuple[list[Sent], list[Sent], History]] = {
    "the same batch": ([A, B], [A, B], History()),
    "the same batch in another order": ([A, B], [B, A], History()),
    "batches that share a record": ([A, B], [B], History()),
    "batches that overlap in part": ([A, B], [B, C], History()),
    "batches that overlap in part, a record at a time": ([A, B], [B, C], History(slice_records=1)),
    "a record twice in one batch, and in the other": ([B, A, B], [B], History()),
    "a batch with a record that Postgres refuses": ([REFUSED], [REFUSED], History()),
    "one record, and a clock that is two minutes and more ahead": ([A], [A], History(skews=(0.0, 130.0))),
}
"""Two batches, and the history's settings. By the last one's second clock every claim of the first has run out,
so both hold the record at once: the unique key alone is left."""


@pytest.mark.parametrize("case", CASES)
def test_every_interleaving_of_two_invocations_leaves_one_row_each(case: str, harness: Harness) -> None:
    first, second, settings = CASES[case]
    orders = 0
    for order, wrong in every_order(lambda choose: _at_once(harness, first, second, settings, choose)):
        orders += 1
        assert wrong == [], f"order {order}"
    assert orders > 1


@pytest.mark.parametrize("seed", range(12))
def test_random_interleavings_of_larger_batches_that_overlap(seed: int, harness: Harness) -> None:
    random = Random(seed)
    kinds = ["good"] * 8 + ["refused", "poison"]
    many = [Sent(f"r{random.randrange(20)}", 0, random.choice(kinds)) for _ in range(30)]
    settings = History(slice_records=random.choice((3, 7, 1_000)), a_call=random.choice((2, 25)))
    cut = random.randrange(5, 15)
    assert _at_once(harness, many[:-cut], many[cut:], settings, at_random(seed)) == []


@pytest.mark.parametrize("seed", range(6))
def test_random_interleavings_of_larger_batches_under_faults(seed: int, harness: Harness) -> None:
    random = Random(seed)
    stream = tuple(Sent(f"r{random.randrange(20)}") for _ in range(30))
    kinds = ("lost", "crash after", "part", "refuse")
    faults = tuple(("consumer", random.randrange(30), random.choice(kinds)) for _ in range(3))
    twice: Act = "twins"
    acts = tuple((delivery, twice, seed * 10 + delivery) for delivery in range(1, 5))
    slices = 5 if seed % 2 else 1_000
    history = History(stream=stream, faults=faults, acts=acts, batch_size=15, slice_records=slices)
    assert harness.run(history).wrong == [], script(history)


def _at_once(
    harness: Harness, first: list[Sent], second: list[Sent], settings: History, choose: Choose
) -> list[str]:
    """Two invocations at once, each with its batch, and then all of it once more. Returns what is wrong."""
    history = settings.sending(*first, *second)
    with harness.beginning(history) as world:
        harness.begin(history, world)
        events = [each for shard in world.kinesis.shards for each in shard.records]
        cut = len(first)
        Twins(world, harness.database, choose).both(
            "consumer", {"Records": events[:cut]}, {"Records": events[cut:]}
        )
        world.drain()
        return [*look(history, world).wrong, *world.violations]
