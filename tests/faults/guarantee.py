"""The tables of docs/guarantee.md. ``python -m tests.faults.guarantee`` writes the one of the mutants."""

from __future__ import annotations

import sys

from tests.faults.hunt import Found, hunt
from tests.faults.laboratory import REPOSITORY, laboratory
from tests.faults.mutants import MUTANTS

PAGE = REPOSITORY / "docs" / "guarantee.md"
TABLE = "mutants"

_HEAD = (
    "what is taken away or turned round",
    "what it protects against",
    "without it",
    "shown by",
    "covered by",
)


def lines(found: list[Found]) -> list[str]:
    """The table in Markdown, a line each."""
    rows = [markdown(*_HEAD), markdown(*("---",) * len(_HEAD))]
    for each in found:
        result = f"**{each.account}**" if each.account else "the account closes"
        if each.rule and not each.account:
            result += f"; {each.rule}"
        mutant = each.mutant
        rows.append(
            markdown(mutant.name, mutant.protects, result, each.fault or "-", mutant.covered_by or "-")
        )
    return rows


def markdown(*cells: str) -> str:
    """A row of a table."""
    return "| " + " | ".join(cells) + " |\n"


def table_of(name: str) -> list[str]:
    """The rows that the page has between the marks of this name."""
    begin, end = _marks(name)
    return PAGE.read_text().partition(begin)[2].partition(end)[0].splitlines(keepends=True)


def replace(name: str, rows: list[str]) -> None:
    """Put rows between the marks of this name."""
    begin, end = _marks(name)
    before, _, rest = PAGE.read_text().partition(begin)
    PAGE.write_text(before + begin + "".join(rows) + end + rest.partition(end)[2])


def _marks(name: str) -> tuple[str, str]:
    return f"<!-- {name}: begin -->\n", f"<!-- {name}: end -->\n"


def written() -> list[str]:
    """The mutants' table as the page has it."""
    return table_of(TABLE)


def main() -> int:
    with laboratory() as harness:
        replace(TABLE, lines([hunt(harness, mutant) for mutant in MUTANTS]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
