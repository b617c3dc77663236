"""The checker itself: each of its rules can fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.esm.checker import violations


def line(what: str, *records: str, pid: int = 1) -> dict[str, Any]:
    return {"pid": pid, "what": what, "records": list(records)}


GOOD = [line("begun", "k:0", "k:1"), line("begun", "k:0", "k:1"), line("done", "k:0", "k:1")]


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (GOOD, []),
        ([*GOOD, line("begun", "k:1", pid=2), line("done", "k:1", pid=2)], []),
        (GOOD[:2], ["k:0 was lost", "k:1 was lost"]),
        ([*GOOD, line("begun", "k:1")], ["k:1 came again, and the process that had done it still ran"]),
        ([line("begun", "k:1"), *GOOD], ["k:1 began before k:0 was done"]),
        ([line("begun", "k:1", "k:0"), line("done", "k:1", "k:0")], ["k:1 began before k:0 was done"]),
    ],
)
def test_a_rule_that_is_broken_is_reported(log: list[dict[str, Any]], expected: list[str]) -> None:
    assert violations({"k": 2}, log) == expected
