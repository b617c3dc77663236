"""Every I/O call of every function is broken in every way, one at a time, and the account closes."""

from __future__ import annotations

import pytest

from tests.faults.history import Harness
from tests.faults.replay import script
from tests.faults.scenarios import SCENARIOS, function_of, single_faults

OPERATIONS = {
    "api": {"PutRecords"},
    "register": {"HeadObject", "PutItem", "GetItem"},
    "plan": {"GetItem", "PutItem", "GetObject", "SendMessageBatch", "UpdateItem"},
    "chunks": {"PutItem", "GetObject", "PutRecords", "UpdateItem"},
    "consumer": {
        *("BatchExecuteStatement", "PutItem", "BatchWriteItem"),
        *("connect", "BEGIN", "PREPARE", "INSERT records", "ROLLBACK", "COMMIT"),
        *("SET", "RELEASE", "ROLLBACK TO", "SELECT records", "SELECT rejected_records"),
        *("INSERT rejected_records", "INSERT repeated_records"),
    },
    "api over HTTP": {"PutRecords"},
    "api over HTTP, NDJSON": {"PutRecords"},
    "chunks of a gzip file": {"PutItem", "GetObject", "PutRecords", "UpdateItem"},
    "consumer in slices": {"BatchExecuteStatement", "PutItem", "BatchWriteItem", "INSERT records", "COMMIT"},
}
"""What each scenario has to reach: a step that is never made is never broken."""


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_account_closes_whichever_step_breaks_and_however(scenario: str, harness: Harness) -> None:
    undisturbed = harness.run(SCENARIOS[scenario])
    assert undisturbed.wrong == []
    reached = {step.operation for step in undisturbed.steps if step.function == function_of(scenario)}
    assert reached >= OPERATIONS[scenario]
    histories = list(single_faults(scenario, undisturbed.steps))
    failed = []
    for history in histories:
        account = harness.run(history)
        assert account.broken == 1
        if account.wrong:
            failed.append(f"{history.faults}: {account.wrong}\n{script(history)}")
    assert not failed, "\n".join([f"{len(failed)} of {len(histories)} histories", *failed[:5]])
