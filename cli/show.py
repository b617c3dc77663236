"""What people see: progress on standard error, results on standard output.

Object keys, ids, reasons and raw bytes come from strangers. Everything printed for a person goes through
:func:`printable`; ``--json`` prints the same characters as JSON's escapes.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
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

    from cli.reports import AccountAnswer
    from cli.stream import Stream

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_COUNTS = ("lines", "inserted", "rejected", "conflicting", "repeated", "missing")
_ALWAYS = {"lines", "inserted", "rejected", "repeated", "missing"}
_COLOURS = {"done": "green", "failed": "red", "stuck": "red"}
# Most of what can do harm, or cannot be seen: all but this is looked at one by one.
_HARMLESS = re.compile(r"[ -~]*")


def printable(text: str, *, lines: bool = False) -> str:
    r"""The text with everything written out that a terminal would act on or hide.

    Control characters, the marks that turn the direction of text, line separators and lone surrogates become
    escapes as Python and JSON know them, such as ``\x1b`` and ``\u202e``. ``lines``: line feeds stay.
    """
    if _HARMLESS.fullmatch(text):
        return text
    return "".join(
        each if each.isprintable() or (lines and each == "\n") else each.encode("unicode_escape").decode()
        for each in text
    )


def json_text(value: Any) -> str:
    """The value as JSON in one line. What a terminal would act on is written as an escape of JSON's."""
    text = json.dumps(value, ensure_ascii=False)
    if _HARMLESS.fullmatch(text):
        return text
    return "".join(each if each.isprintable() else json.dumps(each)[1:-1] for each in text)


def as_json(value: Any) -> None:
    """Print for scripts: one JSON value."""
    out.out(json_text(value), highlight=False)


def as_json_list(values: Iterable[Any]) -> None:
    """Print for scripts: a JSON list, each value in a line of its own and as soon as it is there."""
    first = True
    for value in values:
        out.out(f"{'[' if first else ','}\n{json_text(value)}", highlight=False, end="")
        first = False
    out.out("[]" if first else "\n]", highlight=False)


def say(message: str, style: str = "") -> None:
    """Print a sentence, or several lines."""
    out.print(Text(printable(message, lines=True), style=style), soft_wrap=True)


def warn(message: str) -> None:
    """Print what may be wrong."""
    err.print(Text.assemble(("warning: ", "bold yellow"), printable(message, lines=True)), soft_wrap=True)


def error(message: str) -> None:
    """Print what went wrong."""
    err.print(Text.assemble(("error: ", "bold red"), printable(message, lines=True)), soft_wrap=True)


def progress() -> Progress:
    """A progress display of records. Its descriptions are text, and no markup."""
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=err,
    )


def following(display: Progress, task: TaskID, name: str) -> Callable[[AccountAnswer], None]:
    """A callback that shows on the display how much of a file's account is settled, and why something waits."""

    def seen(account: AccountAnswer) -> None:
        settled = sum(account.get(each, 0) for each in ("inserted", "rejected", "conflicting", "repeated"))
        notes = account.get("waiting") or []
        why = f" (the {notes[0]['function']} function waits: {notes[0]['reason']})" if notes else ""
        display.update(
            task,
            description=printable(f"{name}: {account['state']}{why}"),
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


def accounts(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the accounts of uploads as a table."""
    counts = [name for name in _COUNTS if name in _ALWAYS or any(row.get(name) for row in rows)]
    table = Table(box=None, pad_edge=False)
    table.add_column("upload, file", overflow="fold")
    for name in counts:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for row in rows:
        state = row["state"]
        table.add_row(
            Text.assemble((printable(row["upload"]), "dim"), "\n", printable(row["key"])),
            *(f"{row.get(name, 0):,}" for name in counts),
            Text(state, style=_COLOURS.get(state, "yellow")),
        )
    out.print(table)


def account(found: Mapping[str, Any]) -> None:
    """Print one account, what is missing, and why it waits."""
    accounts([found])
    if found["reason"]:
        say(f"why: {printable(found['reason'])}")
    waiting(found.get("waiting") or [])


def waiting(notes: Iterable[Mapping[str, Any]]) -> None:
    """Print why functions wait: as they noted it themselves."""
    for note in notes:
        since, last = (_moment(note[name]) for name in ("since", "last"))
        seen = f", last at {last}" if last != since else ""
        say(
            f"the {note['function']} function waits since {since}{seen}: {printable(note['reason'])}",
            style="yellow",
        )


def stream(figures: Stream, stored: Mapping[str, Any]) -> None:
    """Print how the stream stands: what went in, what is settled, what waits and why. Each line names its source."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="dim")
    table.add_column(overflow="fold")
    for name, said in (*figures.lines(), *_stored(stored)):
        table.add_row(name, Text(printable(said)))
    out.print(table)
    waiting(stored["waiting"])


def _stored(stored: Mapping[str, Any]) -> Iterable[tuple[str, str]]:
    if stored["database"]:
        yield "Postgres", f"gives no figures: {stored['database']}"
        return
    about = "" if stored["exact"] else "about "
    kinds = [
        f"{about}{stored[name]:,} {name}"
        for name in ("rejected", "conflicting")
        if stored.get(name) is not None
    ]
    last = f"; the last row at {_moment(stored['last_row_at'])}" if stored["last_row_at"] else ""
    yield "Postgres", f"{about}{stored['rows']:,} rows, {', '.join(kinds)}{last}"


def rejections(rows: Iterable[Mapping[str, Any]], *, with_origin: bool = False) -> None:
    """Print rejected records: where each was, of which kind it is, the reason, and below it the raw text.

    ``with_origin``: and what it is of, a file or a record's id.

    The reason is wrapped and the raw text cut off, so both can be read however narrow the terminal is.
    """
    table = Table(box=None, pad_edge=False)
    table.add_column("line", justify="right", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    table.add_column("reason, and the raw text", overflow="fold", ratio=1)
    for row in rows:
        raw = Text(printable(row["raw"]), style="dim", no_wrap=True, overflow="ellipsis")
        line = "" if row["line"] is None else f"{row['line']:,}"
        told = Table.grid(expand=True)
        told.add_column(overflow="fold", ratio=1)
        told.add_row(Text(printable(row["reason"])))
        if with_origin and (origin := _origin(row)):
            told.add_row(Text(printable(origin), style="dim"))
        told.add_row(raw)
        table.add_row(line, row.get("kind", "rejected"), told)
    out.print(table)


def _origin(row: Mapping[str, Any]) -> str:
    if row["upload"]:
        return f"of upload {row['upload']}" + (f", {row['key']}" if row["key"] else "")
    return f"of record {row['record_id']}" if row["record_id"] else ""


def reasons(groups: Iterable[Sequence[Any]]) -> None:
    """Print why records were rejected, each reason once, with its number."""
    for reason, number in groups:
        say(f"  {number:,} of them: {printable(reason)}")


def _moment(iso: str) -> str:
    """A moment as the clock on this machine shows it; with its date, unless it is of today."""
    moment = datetime.fromisoformat(iso).astimezone()
    today = moment.date() == datetime.now(moment.tzinfo).date()
    return moment.strftime("%H:%M:%S" if today else "%Y-%m-%d %H:%M:%S")
