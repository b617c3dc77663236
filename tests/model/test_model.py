"""The protocol as a model: spin finds nothing wrong with it, and notices each mechanism that is taken away."""

from __future__ import annotations

import re

import pytest

from tests.faults.mutants import MUTANTS
from tests.faults.rules import Rule
from tests.model import page
from tests.model.spin import BLOCKED, DUPLICATED, LOST, MODEL, missing, search
from tests.model.switches import SCENARIOS, SWITCHES, Switch

needs_spin = pytest.mark.skipif(bool(missing()), reason=missing())


@needs_spin
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_is_lost_doubled_or_released_by_somebody_else_whatever_happens(scenario: str) -> None:
    assert search(scenario, faults=1).violations == frozenset()


@needs_spin
def test_every_record_is_settled_in_the_end() -> None:
    found = search("SAME", faults=1, liveness=True)
    assert found.violations == frozenset()
    assert page.size("SAME", 1, found, liveness=True) in page.written(page.SIZES)


@needs_spin
@pytest.mark.parametrize("switch", SWITCHES, ids=lambda switch: switch.name)
def test_spin_finds_exactly_what_is_expected_without_a_mechanism(switch: Switch) -> None:
    found = search("CONTENT", 1, switch.defines, liveness=switch.liveness)
    assert found.violations == switch.breaks
    assert bool(switch.covered_by) == (not switch.account)


def test_the_model_has_the_rules_of_the_histories_and_each_can_be_broken() -> None:
    declared = re.findall(
        r"^bool (.*);$", MODEL.read_text().partition("tests/faults/rules.py)")[2], re.MULTILINE
    )
    names = {name.strip().replace("_", " ") for line in declared[:3] for name in line.split(",")}
    assert names == {*map(str, Rule), LOST, DUPLICATED}
    assert {each for switch in SWITCHES for each in switch.breaks} == names | {BLOCKED}


def test_a_mechanism_has_one_name_and_the_same_cover_in_the_model_and_in_the_code() -> None:
    mutants = {mutant.name: mutant for mutant in MUTANTS}
    common = [switch for switch in SWITCHES if switch.name in mutants]
    assert len(common) >= 9
    for switch in common:
        assert bool(switch.covered_by) == bool(mutants[switch.name].covered_by)
        assert mutants[switch.name].covered_by.startswith(switch.covered_by)


def test_every_switch_of_the_model_is_tried() -> None:
    used = set(re.findall(r"^#(?:el)?if(?:def| defined\()\s*(\w+)", MODEL.read_text(), re.MULTILINE))
    assert used - {*SCENARIOS, "ACCOUNT_ONLY"} == {name for switch in SWITCHES for name in switch.defines}


def test_the_page_says_what_each_mechanism_is_good_for() -> None:
    rows = [page.switch(each) for each in SWITCHES]
    assert [line for line in page.written(page.TABLE) if line in rows] == rows


def test_the_functions_that_the_model_names_exist() -> None:
    sources = [path.read_text() for path in MODEL.parents[2].glob("src/**/*.py")]
    named = set(re.findall(r"\b(_?[A-Z][a-zA-Z]+)\.(\w+)", MODEL.read_text()))
    assert len(named) > 15
    for owner, name in named:
        defined = re.compile(
            rf"^class {owner}\b(?:\n|.)*?^    (?:(?:async )?def )?(?:self\.)?{name}\b", re.MULTILINE
        )
        assert any(defined.search(source) or f"self.{name}" in source for source in sources), (
            f"{owner}.{name}"
        )
