"""A process is really killed before and after each kind of its calls, and another one takes over."""

from __future__ import annotations

from typing import Literal

import pytest

from tests.faults.account import look
from tests.faults.faults import Killed
from tests.faults.history import File, Harness, History, Sent
from tests.faults.laboratory import EXPIRY_SECONDS
from tests.faults.process import Doomed
from tests.faults.scenarios import CHUNK_BYTES

HISTORIES = {
    "consumer": History(
        stream=(Sent("a"), Sent("stale"), Sent("refused", 1, "refused"), Sent("p", 1, "poison")),
        claims=(("stale", "stale"),),
    ),
    "chunks": History(files=(File("a.ndjson", (Sent("n1", 1), Sent("bad", 2, "poison"))),)),
}
CALLS = {
    "consumer": (
        *("BatchExecuteStatement", "PutItem", "connect", "BEGIN", "INSERT records", "ROLLBACK"),
        *("ROLLBACK TO", "SELECT records", "INSERT rejected_records", "COMMIT"),
        *("BatchWriteItem", "BatchExecuteStatement 2"),
    ),
    "chunks": ("PutItem", "GetObject", "PutRecords", "PutItem 2", "UpdateItem"),
}
"""Every kind of call that these histories come to and that others can see. A number says which of its kind."""


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("function", HISTORIES)
def test_a_process_that_is_really_killed_leaves_nothing_that_another_cannot_finish(
    function: str, when: Literal["before", "after"], harness: Harness
) -> None:
    wrong = {}
    for call in CALLS[function]:
        account = _kill(harness, function, call, when)
        if account:
            wrong[call] = account
    assert wrong == {}


def _kill(harness: Harness, function: str, call: str, when: Literal["before", "after"]) -> list[str]:
    """Run the function's history; its first process is killed at this call. Returns what is wrong."""
    history = HISTORIES[function]
    variables = harness.database.variables | {
        "CHUNK_BYTES": str(CHUNK_BYTES),
        "IDEMPOTENCY_EXPIRY_SECONDS": str(EXPIRY_SECONDS),
    }
    with harness.beginning(history) as world:
        doomed = Doomed(world, variables, call, when)
        invoke = world.invoke

        def first_in_a_process(name: str, event: object) -> object:
            if name != function or doomed.killed:
                return invoke(name, event)
            return doomed.invoke(name, event)

        world.invoke = world.deliver = first_in_a_process  # type: ignore[method-assign, assignment]
        harness.begin(history, world)
        world.drain()
        if not doomed.killed:
            return [f"{function} makes no call {call}"]
        return [*look(history, world).wrong, *world.violations]


def test_nothing_catches_the_end_of_a_process() -> None:
    assert not issubclass(Killed, Exception)
