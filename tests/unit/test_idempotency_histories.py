"""Bulk idempotency in any history: two invocations, any state of the table, any faults, any order."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import TransientError
from oncestream.idempotency import Claims
from tests.unit.fake_dynamodb import Trouble, interleave
from tests.unit.idempotency_world import (
    DENIED,
    LOST,
    MINUTE,
    REFUSED,
    THROTTLED,
    World,
    bare,
    nothing_but,
    troubles,
)

# Any history

KEYS = ["a", "b", "c"]

existing = st.sampled_from(
    [
        None,
        {"status": "COMPLETED"},
        {"status": "COMPLETED", "expiration": -1},
        {"owner": "other"},
        {"in_progress_expiration": -1, "owner": "other"},
        {"in_progress_expiration": None},
        {"expiration": -1},
    ]
)
FREE = [
    {"status": "COMPLETED", "expiration": -1},
    {"in_progress_expiration": -1, "owner": "other"},
    {"expiration": -1},
]
trouble = st.sampled_from(
    [
        None,
        None,
        LOST,
        REFUSED,
        THROTTLED,
        Trouble("error after"),
        Trouble("garbage"),
        Trouble("items", spare=lambda position: position % 2 == 0),
        Trouble("items", spare=lambda position: position % 2 == 1),
        DENIED,
    ]
)


@st.composite
def histories(draw: st.DrawFn) -> tuple[dict[str, Any], list[Any], list[int], bool]:
    table = draw(st.fixed_dictionaries(dict.fromkeys(KEYS, existing)))
    faults = draw(st.lists(trouble, max_size=12))
    return table, faults, draw(st.lists(st.integers(0, 1), max_size=40)), draw(st.booleans())


class TestAnyHistory:
    """Two invocations with one batch, any state of the table, any faults, any order of their requests."""

    @settings(max_examples=400)
    @given(histories())
    def test_no_key_is_owned_twice_and_nothing_of_ours_stays_in_the_way(self, history: Any) -> None:
        table, faults, order, returned = history
        world = World()
        world.dynamodb.returns_duplicates = returned
        for key, there in table.items():
            if there is not None:
                world.put(key, **there)
        foreign = {key: item for key in KEYS if (item := world.item(key)) and table[key] not in FREE}
        world.dynamodb.trouble = troubles(*faults)
        stores = [world.store(), world.store()]
        results: list[Claims | None] = [None, None]

        def claim(number: int) -> None:
            try:
                results[number] = stores[number].claim(bare([*KEYS, KEYS[0]]), MINUTE)
            except TransientError:
                results[number] = None

        interleave(world.dynamodb, [lambda: claim(0), lambda: claim(1)], order)
        world.dynamodb.trouble = troubles()

        claimed = [result.claimed if result else frozenset() for result in results]
        assert not claimed[0] & claimed[1]
        for result in filter(None, results):
            parts = [result.claimed, result.completed, result.suspect, result.in_progress, result.undecided]
            assert sorted(key for part in parts for key in part) == KEYS
            assert not result.claimed & foreign.keys()
            assert result.completed <= {key for key in foreign if foreign[key]["status"]["S"] == "COMPLETED"}
        for key in claimed[0] | claimed[1]:
            assert world.status(key) == "INPROGRESS"

        # The first one completes, the second one gives up. Whoever comes then finds nothing in the way.
        assert stores[0].complete(bare(claimed[0])) == frozenset()
        assert stores[1].release(claimed[1]) == frozenset()
        assert stores[0].release([]) == frozenset()
        for key, item in foreign.items():
            assert world.item(key) == item
        done = {key for key in KEYS if world.status(key) == "COMPLETED" and table[key] not in FREE} | claimed[
            0
        ]
        assert world.store().claim(bare(KEYS), MINUTE) == nothing_but(
            claimed=set(KEYS) - foreign.keys() - claimed[0],
            completed=done,
            in_progress=foreign.keys() - done,
        )
