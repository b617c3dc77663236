"""How the streams of the background stack stand: counted by its supervisor, read by the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from lambda_esm import Answered, Batch, Delivery, FunctionFailed, NotInvoked, Progress
from lambda_esm.decisions import decide
from local.background import FLOW, Failures, Flow, flow, tell
from tests.unit.stream_records import mapping, records

BATCH = Batch(tuple(records(1, 2)))


def delivered(outcome: Answered | FunctionFailed | NotInvoked) -> Delivery:
    wanted = mapping(FunctionResponseTypes=["ReportBatchItemFailures"])
    return Delivery(wanted, "s0", BATCH, outcome, decide(BATCH, outcome, wanted.settings), 0.1)


DONE = delivered(Answered(None))
PARTLY = delivered(Answered({"batchItemFailures": [{"itemIdentifier": "2"}]}))
THROWN = delivered(FunctionFailed({"errorType": "MemoryError", "errorMessage": "m" * 1000}))
THROTTLED = delivered(NotInvoked("TooManyRequestsException"))


@pytest.mark.parametrize(
    ("deliveries", "failed_in_a_row", "problem"),
    [
        ([], 0, None),
        ([DONE], 0, None),
        ([PARTLY, PARTLY], 2, None),
        ([THROWN, PARTLY, DONE], 0, None),
        ([DONE, THROTTLED], 1, "the function could not be invoked: TooManyRequestsException"),
        ([THROWN], 1, "the function failed: {'errorType': 'MemoryError'"),
    ],
)
def test_deliveries_that_fail_are_counted_since_the_last_success(
    deliveries: list[Delivery], failed_in_a_row: int, problem: str | None
) -> None:
    failures = Failures()
    for each in deliveries:
        failures.on_delivery(each)
    found = failures.flow({"consumer": Progress(read=7, waiting=2, all_read=False)})["consumer"]
    assert (found.read, found.waiting, found.all_read) == (7, 2, False)
    assert found.failed_in_a_row == failed_in_a_row
    assert (found.problem or "").startswith(problem or "")
    assert (found.problem is None) == (problem is None)
    assert len(found.problem or "") <= 500


def test_what_is_told_is_read(tmp_path: Path) -> None:
    stands = {"consumer": Flow(3, 1, all_read=True, failed_in_a_row=2, problem="why")}
    tell(tmp_path, stands)
    assert flow(tmp_path) == stands


@pytest.mark.parametrize("text", [None, "", "{", '{"consumer": {"read": 1}}', '{"consumer": 1}'])
def test_what_cannot_be_read_is_not_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / FLOW).write_text(text)
    assert flow(tmp_path) is None
