"""The documented rules of partial responses, bisecting and retries, one row each."""

from __future__ import annotations

from typing import Any

import pytest

from lambda_esm.decisions import count_done, decide
from lambda_esm.mapping import MappingSettings
from lambda_esm.records import (
    Answered,
    Batch,
    CheckpointLost,
    FunctionFailed,
    NotInvoked,
    Outcome,
)
from tests.unit.stream_records import numbers, records

THROWN = FunctionFailed({"errorType": "ValueError", "errorMessage": "no"})
THROTTLED = NotInvoked("TooManyRequestsException: Rate Exceeded")


def failures(*identifiers: object) -> dict[str, Any]:
    return {"batchItemFailures": [{"itemIdentifier": identifier} for identifier in identifiers]}


@pytest.mark.parametrize(
    ("response", "done"),
    [
        pytest.param(None, 4, id="null response"),
        pytest.param("", 4, id="empty response"),
        pytest.param({}, 4, id="empty object"),
        pytest.param({"batchItemFailures": []}, 4, id="empty list"),
        pytest.param({"batchItemFailures": None}, 4, id="null list"),
        pytest.param({"statusCode": 200}, 4, id="object without the list"),
        pytest.param(failures("3"), 2, id="one failure"),
        pytest.param(failures("1"), 0, id="the first record"),
        pytest.param(failures("4"), 3, id="the last record"),
        pytest.param(failures("4", "2", "3"), 1, id="the lowest of several, in any order"),
        pytest.param(failures("2", "2"), 1, id="the same twice"),
        pytest.param(failures(""), None, id="empty identifier"),
        pytest.param(failures(None), None, id="null identifier"),
        pytest.param(failures("99"), None, id="unknown identifier"),
        pytest.param(failures("3", "99"), None, id="one known, one unknown identifier"),
        pytest.param(failures(3), None, id="a number is not an identifier"),
        pytest.param({"batchItemFailures": [{"itemIdentifer": "3"}]}, None, id="bad key name"),
        pytest.param({"batchItemFailures": ["3"]}, None, id="bare identifiers"),
        pytest.param({"batchItemFailures": "3"}, None, id="not a list"),
        pytest.param("ok", None, id="a string"),
        pytest.param([], 4, id="an empty list"),
        pytest.param(["3"], None, id="a list"),
        pytest.param(0, None, id="a number"),
    ],
)
def test_count_done_reads_a_partial_batch_response(response: object, done: int | None) -> None:
    assert count_done(response, ["1", "2", "3", "4"]) == done


REPORT: dict[str, Any] = {"report_batch_item_failures": True}
BISECT: dict[str, Any] = {"bisect_batch_on_function_error": True}
BOTH = REPORT | BISECT
NO_RETRIES: dict[str, Any] = {"maximum_retry_attempts": 0}
TWO_RETRIES: dict[str, Any] = {"maximum_retry_attempts": 2}
PARTIAL = Answered(failures("3"))
FIRST = Answered(failures("1"))
MALFORMED = Answered(failures(None))
ALL = [1, 2, 3, 4]
SUCCESS: tuple[list[int], list[Any], list[int]] = (ALL, [], [])


@pytest.mark.parametrize(
    ("settings", "used", "outcome", "expected"),
    [
        # settings, retries used up, outcome -> (done, [(records to retry, retries then used up)], discarded)
        pytest.param({}, 0, Answered(None), SUCCESS, id="success"),
        pytest.param({}, 0, PARTIAL, SUCCESS, id="the response is ignored unless reporting is on"),
        pytest.param({}, 0, MALFORMED, SUCCESS, id="and so is a malformed one"),
        pytest.param({}, 0, THROWN, ([], [(ALL, 1)], []), id="error: the whole batch again"),
        pytest.param({}, 9_000, THROWN, ([], [(ALL, 9_001)], []), id="without a limit, for ever"),
        pytest.param(REPORT, 0, Answered({}), SUCCESS, id="reported success"),
        pytest.param(REPORT, 0, PARTIAL, ([1, 2], [([3, 4], 0)], []), id="again from the lowest on"),
        pytest.param(REPORT, 0, FIRST, ([], [(ALL, 1)], []), id="the very first"),
        pytest.param(REPORT, 0, MALFORMED, ([], [(ALL, 1)], []), id="malformed: complete failure"),
        pytest.param(REPORT, 0, THROWN, ([], [(ALL, 1)], []), id="reporting does not change an error"),
        pytest.param(BISECT, 1, THROWN, ([], [([1, 2], 1), ([3, 4], 1)], []), id="error: halves, for free"),
        pytest.param(BISECT, 0, PARTIAL, SUCCESS, id="bisecting alone ignores the response"),
        pytest.param(BOTH, 1, THROWN, ([], [([1, 2], 1), ([3, 4], 1)], []), id="both: an error halves"),
        pytest.param(
            REPORT, 9, PARTIAL, ([1, 2], [([3, 4], 0)], []), id="after progress the count starts anew"
        ),
        pytest.param(BOTH, 1, PARTIAL, ([1, 2], [([3, 4], 0)], []), id="both: cut at the number, for free"),
        pytest.param(BOTH, 1, FIRST, ([], [(ALL, 2)], []), id="both: nothing to cut off is a retry"),
        pytest.param(BOTH, 1, MALFORMED, ([], [([1, 2], 1), ([3, 4], 1)], []), id="both: malformed halves"),
        pytest.param(TWO_RETRIES, 1, THROWN, ([], [(ALL, 2)], []), id="the last retry"),
        pytest.param(TWO_RETRIES, 2, THROWN, ([], [], ALL), id="retries used up"),
        pytest.param(NO_RETRIES, 0, THROWN, ([], [], ALL), id="no retries"),
        pytest.param(
            REPORT | NO_RETRIES,
            0,
            PARTIAL,
            ([1, 2], [([3, 4], 0)], []),
            id="no retries: the rest starts anew",
        ),
        pytest.param(BOTH | NO_RETRIES, 0, THROWN, ([], [([1, 2], 0), ([3, 4], 0)], []), id="still halved"),
        pytest.param(BOTH | NO_RETRIES, 0, PARTIAL, ([1, 2], [([3, 4], 0)], []), id="still cut"),
        pytest.param(NO_RETRIES, 0, THROTTLED, ([], [(ALL, 0)], []), id="throttled: no retry used"),
        pytest.param(BISECT, 0, THROTTLED, ([], [(ALL, 0)], []), id="throttled: not bisected"),
        pytest.param(NO_RETRIES, 0, CheckpointLost(), ([], [(ALL, 0)], []), id="checkpoint lost"),
    ],
)
def test_decide_follows_the_documented_rules(
    settings: dict[str, Any],
    used: int,
    outcome: Outcome,
    expected: tuple[list[int], list[tuple[list[int], int]], list[int]],
) -> None:
    decision = decide(Batch(tuple(records(*ALL)), retries=used), outcome, MappingSettings(**settings))

    assert (
        numbers(decision.done),
        [(numbers(part), part.retries) for part in decision.retry],
        numbers(decision.discard) if decision.discard else [],
    ) == expected


def test_a_single_record_cannot_be_split_and_uses_up_its_retries() -> None:
    settings = MappingSettings(bisect_batch_on_function_error=True, maximum_retry_attempts=1)
    [again] = decide(Batch(tuple(records(1))), THROWN, settings).retry

    assert again.retries == 1
    assert decide(again, THROWN, settings).discard is not None


def test_an_odd_batch_is_cut_without_losing_a_record() -> None:
    left, right = decide(Batch(tuple(records(1, 2, 3))), THROWN, MappingSettings(**BISECT)).retry

    assert numbers(left) + numbers(right) == [1, 2, 3]


@pytest.mark.parametrize(
    ("outcome", "invocations", "in_a_row"),
    [
        pytest.param(THROWN, 4, 6, id="error"),
        pytest.param(THROTTLED, 3, 6, id="throttled: not an invocation"),
        pytest.param(PARTIAL, 0, 1, id="progress starts all counts anew"),
        pytest.param(FIRST, 4, 6, id="no progress"),
        pytest.param(CheckpointLost(), 4, 0, id="a lost checkpoint is no failure"),
    ],
)
def test_what_is_retried_keeps_its_history(outcome: Outcome, invocations: int, in_a_row: int) -> None:
    batch = Batch(tuple(records(1, 2, 3, 4)), lane=7, invocations=3, failures=5)

    [again] = decide(batch, outcome, MappingSettings(**REPORT)).retry

    assert (again.invocations, again.failures, again.lane) == (invocations, in_a_row, 7)
