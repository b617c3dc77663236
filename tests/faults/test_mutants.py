"""Each deliberate defect is noticed, and docs/guarantee.md says what came of it."""

from __future__ import annotations

import pytest

from tests.faults import guarantee
from tests.faults.history import Harness
from tests.faults.hunt import hunt
from tests.faults.mutants import MUTANTS, Mutant


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_defect_is_noticed_as_the_page_says(mutant: Mutant, harness: Harness) -> None:
    found = hunt(harness, mutant)
    assert found.account or mutant.covered_by, "no account was wrong: the harness has a hole"
    assert not (found.account and mutant.covered_by), "what is said to cover it does not"
    assert guarantee.lines([found])[-1] in guarantee.written(), "run python -m tests.faults.guarantee"


def test_the_page_has_every_mutant_and_no_other() -> None:
    assert len(guarantee.written()) == len(MUTANTS) + 2
