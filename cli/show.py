"""What people see: progress on standard error, results on standard output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from rich.progress import TaskID

    from cli.reports import Account

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_COUNTS = ("lines", "inserted", "rejected", "repeated", "missing")
_COLOURS = {"done": "green", "failed": "red", "stuck": "red"}


def as_json(value: Any) -> None:
    """Print for scripts: one JSON value."""
    out.out(json.dumps(value, ensure_ascii=False), highlight=False)


def error(message: str) -> None:
    """Print what went wrong."""
    err.print(Text.assemble(("error: ", "bold red"), message), soft_wrap=True)


def progress() -> Progress:
    """A progress display of records."""
    return Progress(
        SpinnerColumn(),
        TextColumn("[progress.description]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def following(display: Progress, task: TaskID, name: str) -> Callable[[Account], None]:
    """A callback that shows on the display how much of a file's account is settled."""

    def seen(account: Account) -> None:
        settled = account["inserted"] + account["rejected"] + account["repeated"]
        display.update(
            task,
            description=f"{name}: {account['state']}",
            completed=settled,
            total=max(account["lines"], settled) or None,
        )

    return seen


def steps() -> Callable[[str, float | None], None]:
    """A printer of the steps in which a stack is set up (see :data:`local.stack.Progress`)."""

    def step(name: str, seconds: float | None) -> None:
        if seconds is not None:
            err.print(f"  [green]✓[/] {name} [dim]({seconds:.1f} s)[/]")

    return step


def accounts(rows: Iterable[Mapping[str, Any]]) -> None:
    """Print the accounts of uploads as a table."""
    table = Table(box=None, pad_edge=False)
    table.add_column("upload, file", overflow="fold")
    for name in _COUNTS:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in rows:
        state = row["state"]
        table.add_row(
            Text.assemble((row["upload"], "dim"), "\n", row["key"]),
            *(f"{row[name]:,}" for name in _COUNTS),
            Text(state, style=_COLOURS.get(state, "yellow")),
        )
    out.print(table)


def account(found: Mapping[str, Any]) -> None:
    """Print one account, and what is missing."""
    accounts([found])
    if found["reason"]:
        out.print(Text.assemble("why: ", found["reason"]), soft_wrap=True)


def rejections(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print rejected records: the line in the file, the reason, the raw text."""
    table = Table(box=None, pad_edge=False)
    table.add_column("line", justify="right")
    table.add_column("reason", overflow="fold", ratio=2)
    table.add_column("raw", overflow="ellipsis", no_wrap=True, ratio=3)
    for row in rows:
        # Bytes of strangers: control characters must not reach the terminal.
        raw = "".join(each if each.isprintable() else "·" for each in row["raw"])
        line = "" if row["line"] is None else f"{row['line']:,}"
        table.add_row(line, Text(row["reason"]), Text(raw, style="dim"))
    out.print(table)
