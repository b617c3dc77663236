"""``python -m chaos``: the command behind ``make chaos``."""

from __future__ import annotations

import json
import logging
import signal
from pathlib import Path
from typing import Annotated

import typer

from chaos import plan, report
from chaos.journal import Sample
from chaos.outcome import ChaosOutcome
from chaos.run import DIRECTORY, Run
from cli import show
from cli.errors import UserError
from local.errors import StackError
from local.records import FLIGHTS

REPORT = "report.html"
LOG = "chaos.log"
CALM = "calm.json"
"""Seconds that a run without faults took on this machine, by its number of records."""


def main(
    *,
    records: Annotated[int, typer.Option(min=100, max=FLIGHTS, help="How many good records.")] = 100_000,
    seed: Annotated[int, typer.Option(help="Of the plan: the same seed breaks the same things.")] = 1,
    calm: Annotated[
        bool, typer.Option("--calm", help="Break nothing: what the run costs by itself.")
    ] = False,
    directory: Annotated[
        Path, typer.Option(help="For data, logs and the page; one stack at a time.", file_okay=False)
    ] = DIRECTORY,
    limit: Annotated[float, typer.Option(help="Seconds that one wave may take.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result only, as JSON.")] = False,
) -> None:
    """Load records into the local stack while its parts are broken, and check that the account closes.

    Function processes are killed, Postgres is stopped, API calls are refused, delayed and left without an answer,
    the stream is resharded, notifications, jobs and batches are repeated. The last line is RESULT and JSON; the exit
    status is 0 only if every record is there exactly once.
    """
    signal.signal(signal.SIGTERM, _interrupt)
    directory.mkdir(parents=True, exist_ok=True)
    # The poller reports every failed batch: what this is about, and too much beside the progress.
    logging.basicConfig(
        filename=directory / LOG,
        filemode="w",
        format="%(asctime)s %(levelname)-7s %(message)s",
        level=logging.INFO,
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        outcome = _run(plan.make(seed, records, calm=calm), directory, limit)
    except KeyboardInterrupt:
        show.err.print("Interrupted. Nothing is left running.")
        raise typer.Exit(130) from None
    _compare(outcome, directory / CALM, calm=calm)
    output = directory / REPORT
    report.write(outcome, output)
    if as_json:
        show.as_json(outcome.to_json() | {"report": str(output)})
    else:
        show.out.print(f"\n{report.headline(outcome)}\nThe report: {output}\n", soft_wrap=True)
        show.out.out(f"RESULT {json.dumps(outcome.to_json())}", highlight=False)
    if not outcome.closes:
        raise typer.Exit(1)


def _run(wanted: plan.Plan, directory: Path, limit: float) -> ChaosOutcome:
    show.err.print(
        "Setting up: the template, built and deployed by sam, with mitmproxy between it and its functions"
    )
    with (
        show.progress() as display,
        Run(wanted, directory=directory, limit=limit, progress=show.steps()) as run,
    ):
        task = display.add_task("setting up", total=wanted.records + wanted.poison)

        def seen(sample: Sample, state: str) -> None:
            display.update(task, description=state, completed=sample.settled)

        run.on_sample = seen
        run.outcome.journal.on_event = lambda event: display.console.print(
            f"  [dim]{event.seconds:6.1f} s[/]  {event.kind.replace('_', ' ')}: {event.what}"
        )
        return run.run()


def _compare(outcome: ChaosOutcome, kept: Path, *, calm: bool) -> None:
    """Keep how long a run without faults took; a run with them is told it."""
    known: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    records = str(outcome.plan.records)
    if not calm:
        outcome.calm_seconds = known.get(records)
    elif outcome.closes:
        kept.write_text(json.dumps(known | {records: round(outcome.seconds, 1)}))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        typer.run(main)
    except (UserError, StackError) as error:
        show.error(str(error))
        raise SystemExit(1) from None
