"""`make prove-model`: checks the model at full size, and writes what it found into docs/guarantee.md."""

from __future__ import annotations

import sys
import time

from tests.faults.guarantee import markdown, replace, table_of
from tests.model.spin import Found, missing, search
from tests.model.switches import SCENARIOS, SWITCHES, Switch

SIZES, TABLE = "model sizes", "model"
_SIZES = (
    ("SAME", 3, False),
    ("CONTENT", 2, False),
    ("OVERLAP", 2, False),
    ("SAME", 1, True),
    ("SAME", 2, True),
    ("CONTENT", 1, True),
    ("OVERLAP", 1, True),
)
"""Scenario, faults, and whether it is about runs that never end."""


def switch(each: Switch) -> str:
    """The row of a mechanism that is taken away."""
    found = [*(f"**{name}**" for name in each.account), *each.rules]
    return markdown(each.name, "; ".join(found), each.covered_by or "-")


def size(scenario: str, faults: int, found: Found, *, liveness: bool) -> str:
    """The row of a search that found nothing."""
    what = "a record that is never settled" if liveness else "a broken rule or account"
    return markdown(SCENARIOS[scenario], what, str(faults), f"{found.states:,}")


def written(table: str) -> list[str]:
    """The rows of one of the two tables as the page has them."""
    return table_of(table)


def main() -> int:
    """Search everything; 0 if spin found what is expected, and nothing else."""
    if why := missing():
        sys.stderr.write(f"The model cannot be checked: {why}\n")
        return 1
    sizes = [markdown("scenario", "searched for", "faults, at most", "states"), markdown(*["---"] * 4)]
    rows = [markdown("what is taken away", "spin finds", "covered by"), markdown(*["---"] * 3)]
    wrong = 0
    for scenario, faults, liveness in _SIZES:
        found = _timed(f"{scenario}, {faults} faults", frozenset(), scenario, faults, (), liveness=liveness)
        wrong += bool(found.violations)
        sizes.append(size(scenario, faults, found, liveness=liveness))
    for each in SWITCHES:
        found = _timed(each.name, each.breaks, "CONTENT", 1, each.defines, liveness=each.liveness)
        wrong += found.violations != each.breaks
        if each.covered_by:  # and then all is settled in the end, all the same
            found = _timed(
                each.name, frozenset(), "CONTENT", 1, (*each.defines, "ACCOUNT_ONLY"), liveness=True
            )
            wrong += bool(found.violations)
        rows.append(switch(each))
    if not wrong:
        replace(SIZES, sizes)
        replace(TABLE, rows)
    return int(wrong > 0)


def _timed(
    name: str,
    expected: frozenset[str],
    scenario: str,
    faults: int,
    defines: tuple[str, ...],
    *,
    liveness: bool,
) -> Found:
    began = time.monotonic()
    found = search(scenario, faults, defines, liveness=liveness)
    verdict = "as expected" if found.violations == expected else f"EXPECTED {sorted(expected)}"
    kind = "liveness" if liveness else "safety"
    told = ", ".join(sorted(found.violations)) or "nothing"
    seconds = time.monotonic() - began
    sys.stdout.write(f"{name} ({kind}): {told}, {verdict}; {found.states:,} states, {seconds:.0f} s\n")
    sys.stdout.flush()
    return found


if __name__ == "__main__":
    sys.exit(main())
