"""The table of docs/guarantee.md, from what the mutants led to: ``python -m tests.faults.guarantee`` writes it."""

from __future__ import annotations

import sys

from tests.faults.hunt import Found, hunt
from tests.faults.laboratory import REPOSITORY, laboratory
from tests.faults.mutants import MUTANTS

PAGE = REPOSITORY / "docs" / "guarantee.md"
BEGIN, END = "<!-- mutants: begin -->\n", "<!-- mutants: end -->\n"

_HEAD = (
    "what is taken away or turned round",
    "what it protects against",
    "without it",
    "shown by",
    "covered by",
)


def lines(found: list[Found]) -> list[str]:
    """The table in Markdown, a line each."""
    rows = [_HEAD, ("---",) * len(_HEAD)]
    for each in found:
        result = f"**{each.account}**" if each.account else "the account closes"
        if each.rule and not each.account:
            result += f"; {each.rule}"
        rows.append(
            (each.mutant.name, each.mutant.protects, result, each.fault or "-", each.mutant.covered_by or "-")
        )
    return ["| " + " | ".join(row) + " |\n" for row in rows]


def written() -> list[str]:
    """The table as the page has it."""
    table = PAGE.read_text().partition(BEGIN)[2].partition(END)[0]
    return table.splitlines(keepends=True)


def main() -> int:
    with laboratory() as harness:
        table = "".join(lines([hunt(harness, mutant) for mutant in MUTANTS]))
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + table + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
