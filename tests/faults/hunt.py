"""Looks for a history that shows a mutant."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from tests.faults.directed import DIRECTED
from tests.faults.history import Account, Harness, History
from tests.faults.mutants import Mutant
from tests.faults.rules import Rule
from tests.faults.scenarios import SCENARIOS, single_faults

SINGLE = 20
"""Every so many of the scenario's single faults is tried."""
_RULE = "claim rule"


@dataclass(frozen=True)
class Found:
    """What the hunt for one mutant brought."""

    mutant: Mutant
    tried: int
    account: str
    """What was wrong with an account first; empty: every account closed."""
    fault: str
    """Of the history that showed it."""
    rule: str
    """A rule about claims that was broken, whether or not the account closed."""

    @property
    def caught(self) -> bool:
        return bool(self.account or self.rule)


def hunt(harness: Harness, mutant: Mutant) -> Found:
    """Apply the mutant and run histories until an account does not close.

    For a mutant that something else covers, a rule about claims is enough, after all histories made for the
    purpose have closed their accounts.
    """
    undisturbed = harness.run(SCENARIOS[mutant.function])
    singles = islice(single_faults(mutant.function, undisturbed.steps), 0, None, SINGLE)
    tried, rule, broken_by = 0, "", ""
    with mutant.applied(harness.database):
        for history in _histories(mutant, list(singles)):
            tried += 1
            found = harness.run(history)
            account = _of_account(found)
            if account:
                return Found(mutant, tried, account, _cause(history), rule or _rule(found))
            if not rule and (rule := _rule(found)):
                broken_by = _cause(history)
    return Found(mutant, tried, "", broken_by, rule)


def _histories(mutant: Mutant, singles: list[History]) -> Iterator[History]:
    if mutant.name in DIRECTED:
        yield DIRECTED[mutant.name]
    yield SCENARIOS[mutant.function]
    yield from singles


def _of_account(found: Account) -> str:
    if found.wrongly_rejected:  # so it is missing, too
        return "wrongly rejected"
    wrong = [each for each in found.wrong if not each.startswith(_RULE)]
    return wrong[0].partition(":")[0] if wrong else ""


def _rule(found: Account) -> str:
    rules = [each for each in found.others if each.startswith(_RULE)]
    if not rules:
        return ""
    return Rule.UNCLAIMED if Rule.UNCLAIMED in rules[0] else rules[0].partition(": ")[2]


def _cause(history: History) -> str:
    """What disturbed the history, in words."""
    faults = dict.fromkeys(f"{function}: {kind}{_at(step)}" for function, step, kind in history.faults)
    acts = dict.fromkeys(act for _, act, _ in history.acts)
    return ", ".join([*faults, *acts]) or "nothing"


def _at(step: int | str) -> str:
    return f" at {step}" if isinstance(step, str) else ""
