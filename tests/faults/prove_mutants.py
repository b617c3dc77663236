"""`make prove-mutants`: puts each deliberate defect into the product and says what noticed it."""

from __future__ import annotations

import sys

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.faults.hunt import Found, hunt
from tests.faults.laboratory import laboratory
from tests.faults.mutants import MUTANTS


def main() -> int:
    """Print the table; 0 if each mutant was caught, or is covered by what the table names."""
    console = Console()
    found: list[Found] = []
    with laboratory() as harness:
        for mutant in track(MUTANTS, "mutants", console=console):
            found.append(hunt(harness, mutant))
    console.print(table(found))
    missed = [each.mutant.name for each in found if not each.caught and not each.mutant.covered_by]
    for name in missed:
        console.print(f"Not caught: {name}. The harness has a hole.")
    return int(bool(missed))


def table(found: list[Found]) -> Table:
    """What each mutant led to."""
    grid = Table(title="What happens without it", show_lines=True)
    for name in ("mutant", "the account", "broken by", "rule about claims", "histories", "covered by"):
        grid.add_column(name)
    for each in found:
        grid.add_row(
            each.mutant.name,
            f"[red]{each.account}[/red]" if each.account else "[green]closes[/green]",
            each.fault,
            each.rule,
            str(each.tried),
            each.mutant.covered_by,
        )
    return grid


if __name__ == "__main__":
    sys.exit(main())
