"""The mechanisms that can be taken away from the model, and what spin says then.

Those of tests/faults/mutants.py have the same names: what a history shows by chance, spin shows for all runs.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.faults.rules import Rule
from tests.model.spin import BLOCKED, DUPLICATED, LOST

SCENARIOS = {
    "SAME": "one record three times",
    "CONTENT": "one id with two contents",
    "OVERLAP": "two records, in two orders",
}
"""By their names in consumer.pml."""


@dataclass(frozen=True)
class Switch:
    """A mechanism that the model can do without."""

    name: str
    defines: tuple[str, ...]
    """Its names in consumer.pml."""
    breaks: frozenset[str]
    """All that spin finds violated, of the account and of the rules about claims."""
    covered_by: str = ""
    """What makes up for it, if something does: the account closes all the same."""

    @property
    def liveness(self) -> bool:
        """Whether only a run that never ends shows it."""
        return BLOCKED in self.breaks

    @property
    def account(self) -> list[str]:
        """What is then wrong with the account."""
        return sorted(self.breaks & {LOST, DUPLICATED, BLOCKED})

    @property
    def rules(self) -> list[str]:
        """The rules that are broken."""
        return sorted(self.breaks - {LOST, DUPLICATED, BLOCKED})


def _switch(name: str, defines: str, *breaks: str, covered_by: str = "") -> Switch:
    return Switch(name, tuple(defines.split()), frozenset(map(str, breaks)), covered_by)


SWITCHES = (
    _switch("claim dropped", "NO_CLAIM", Rule.UNCLAIMED, covered_by="the unique key"),
    _switch("unique key dropped", "NO_UNIQUE_KEY", DUPLICATED),
    _switch("claim and unique key dropped", "NO_CLAIM NO_UNIQUE_KEY", DUPLICATED, Rule.UNCLAIMED),
    _switch("complete before commit", "COMPLETE_FIRST", LOST),
    _switch(
        "release ignores ownership",
        "RELEASE_ANYBODYS",
        Rule.RELEASED,
        Rule.UNCLAIMED,
        covered_by="the unique key",
    ),
    _switch(
        "claims of what was not stored are not released",
        "NEVER_RELEASED",
        Rule.LEFT_BEHIND,
        covered_by="the claim's time",
    ),
    _switch("claims never run out", "NEVER_RUN_OUT", BLOCKED),
    _switch("checkpoint after the lowest failure", "CHECKPOINT_TOO_FAR", LOST),
    _switch("unsettled records completed", "COMPLETE_UNSETTLED", LOST),
    # Not all of those below have a mutant in the code.
    _switch(
        "release takes what is completed, too",
        "RELEASE_ANYTHING",
        Rule.FORGOTTEN,
        covered_by="the unique key",
    ),
    _switch(
        "take-over without its condition",
        "TAKE_OVER_BLINDLY",
        Rule.TAKEN_OVER,
        Rule.UNCLAIMED,
        covered_by="the unique key",
    ),
    _switch(
        "a lost answer to a claim taken for success",
        "LOST_CLAIM_IS_OURS",
        Rule.UNCLAIMED,
        covered_by="the unique key",
    ),
    _switch("the claim decides what other content is", "CLAIM_DECIDES", LOST),
    _switch(
        "what was completed with other content is inserted",
        "INSERT_SUSPECTS",
        Rule.UNCLAIMED,
        covered_by="the unique key",
    ),
    _switch("complete keeps the digest of the last claim", "COMPLETE_KEEPS_DIGEST", LOST),
)
