"""Every I/O call of every function is broken in every way, one at a time, and the account closes."""

from __future__ import annotations

import pytest

from tests.faults.history import Harness
from tests.faults.replay import script
from tests.faults.scenarios import SCENARIOS, single_faults

OPERATIONS = {
    "api": {"PutRecords"},
    "register": {"HeadObject", "PutItem", "GetItem"},
    "plan": {"GetItem", "PutItem", "GetObject", "SendMessageBatch", "UpdateItem"},
    "chunks": {"PutItem", "GetObject", "PutRecords", "UpdateItem"},
    "consumer": {
        *("BatchExecuteStatement", "PutItem", "BatchWriteItem"),
        *("connect", "BEGIN", "PREPARE", "INSERT records", "ROLLBACK", "SET", "RELEASE", "SELECT", "COMMIT"),
        *("INSERT INTO rejected_records", "INSERT INTO repeated_records"),
    },
}
"""What each scenario has to reach: a step that is never made is never broken."""


@pytest.mark.parametrize("function", SCENARIOS)
def test_the_account_closes_whichever_step_breaks_and_however(function: str, harness: Harness) -> None:
    undisturbed = harness.run(SCENARIOS[function])
    assert undisturbed.wrong == []
    reached = {step.operation for step in undisturbed.steps if step.function == function}
    assert reached >= OPERATIONS[function]
    histories = list(single_faults(function, undisturbed.steps))
    failed = []
    for history in histories:
        account = harness.run(history)
        assert account.broken == 1
        if account.wrong:
            failed.append(f"{history.faults}: {account.wrong}\n{script(history)}")
    assert not failed, "\n".join([f"{len(failed)} of {len(histories)} histories", *failed[:5]])
