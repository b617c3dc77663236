"""Two invocations at once: every order of their I/O calls for two records, random ones for more."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from tests.faults.faults import Plan
from tests.faults.history import Act, Harness, History, Sent
from tests.faults.interleave import every_order
from tests.faults.replay import script
from tests.faults.twins import Twins
from tests.faults.world import World

A, B = Sent("a"), Sent("b")
REFUSED = Sent("b", 1, "refused")

CASES: dict[str, tuple[list[Sent], list[Sent], tuple[float, ...]]] = {
    "the same batch": ([A, B], [A, B], (0.0,)),
    "the same batch in another order": ([A, B], [B, A], (0.0,)),
    "batches that share a record": ([A, B], [B], (0.0,)),
    "a batch with a record that Postgres refuses": ([REFUSED], [REFUSED], (0.0,)),
    "one record, and a clock that is two minutes and more ahead": ([A], [A], (0.0, 130.0)),
}
"""Two batches, and the clocks' skews. By the last one's second clock every claim of the first has run out, so
both hold the record at once: the unique key alone is left."""


@pytest.mark.parametrize("case", CASES)
def test_every_interleaving_of_two_invocations_leaves_one_row_each(case: str, harness: Harness) -> None:
    first, second, skews = CASES[case]
    orders = 0
    for order, wrong in every_order(_runner(harness, first, second, skews)):
        orders += 1
        assert wrong == [], f"order {order}"
    assert orders > 5


def _runner(
    harness: Harness, first: list[Sent], second: list[Sent], skews: tuple[float, ...]
) -> Callable[[Callable[[int], int]], list[str]]:
    history = History(stream=(*first, *second), skews=skews)

    def run(choose: Callable[[int], int]) -> list[str]:
        harness.database.reset()
        world = World(harness.pool, Plan(), skews=skews)
        try:
            for sent in history.stream:
                world.kinesis.put(sent.raw, sent.id)
            events = [each for shard in world.kinesis.shards for each in shard.records]
            cut = len(first)
            Twins(world, harness.database, choose).both(
                "consumer", {"Records": events[:cut]}, {"Records": events[cut:]}
            )
            world.drain()  # delivers all of it once more
            account = harness.account(history, world)
            return [*account.wrong, *world.violations]
        finally:
            world.close()

    return run


@pytest.mark.parametrize("seed", range(6))
def test_random_interleavings_of_larger_batches_under_faults(seed: int, harness: Harness) -> None:
    random = Random(seed)
    stream = tuple(Sent(f"r{random.randrange(20)}") for _ in range(30))
    kinds = ("lost", "crash after", "part", "refuse")
    faults = tuple(("consumer", random.randrange(30), random.choice(kinds)) for _ in range(3))
    twice: Act = "twins"
    acts = tuple((delivery, twice, seed * 10 + delivery) for delivery in range(1, 5))
    history = History(stream=stream, faults=faults, acts=acts, batch_size=15)
    assert harness.run(history).wrong == [], script(history)
