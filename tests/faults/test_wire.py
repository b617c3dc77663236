"""Histories over real sockets: by boto3 in threads and by AWS's C runtime, with several requests in flight."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.faults.faults import AWS, EVERYWHERE, PARTS, Kind
from tests.faults.history import Harness, History, Sent
from tests.faults.links import Way
from tests.faults.random_history import history_of
from tests.faults.replay import script

WAYS: list[Way] = ["boto3", "crt"]
BATCH = History(
    stream=tuple(Sent(name) for name in "abcdef"), claims=(("b", "stale"),), a_call=2, in_flight=3, order=1
)
QUIET = {"garbage", "lost", "overdue"}
"""An answer that breaks off is less in memory than it is on a socket; and who waits in vain waits really."""
KINDS: list[Kind] = [*EVERYWHERE, *AWS, *PARTS]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_account_closes_whatever_happens_to_a_request_on_the_wire(
    kind: Kind, way: Way, harness: Harness
) -> None:
    for call in ("BatchExecuteStatement", "BatchExecuteStatement 2", "BatchWriteItem 2"):
        history = replace(BATCH, faults=(("consumer", call, kind),), way=way)
        account = harness.run(history)
        assert account.wrong == [], script(history)
        assert account.broken == 1


@pytest.mark.parametrize("way", WAYS)
def test_a_history_is_the_same_over_sockets_as_in_memory(way: Way, harness: Harness) -> None:
    seeds = [seed for seed in range(40) if QUIET.isdisjoint(kind for _, _, kind in history_of(seed).faults)]
    for seed in seeds[:12]:
        history = replace(history_of(seed), in_flight=3)
        steps = [harness.run(replace(history, way=each)).steps for each in ("memory", way)]
        assert steps[0] == steps[1], script(history)


def test_requests_in_flight_are_answered_in_the_order_that_the_history_draws(harness: Harness) -> None:
    def answered(order: int) -> tuple[str, ...]:
        history = replace(BATCH, order=order, way="crt")
        with harness.beginning(history) as world:
            harness.begin(history, world)
            world.drain()
            inserts = [body for name, body in world.claims.requests if name == "BatchExecuteStatement"]
            return tuple(each["Statements"][0]["Parameters"][0]["S"] for each in inserts)

    orders = [answered(order) for order in (0, 1, 2, 3, 4, 0, 1, 2, 3, 4)]
    assert orders[:5] == orders[5:]
    assert len(set(orders)) > 1
    assert {tuple(sorted(each)) for each in orders} == {tuple(sorted(orders[0]))}
