"""The demonstration: load a file on this machine, repeat deliveries on purpose, and show the account.

An unprotected consumer, the one of the question that started this project, gets the same deliveries.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
import threading
import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli import show, uploading
from cli.errors import UserError
from cli.reports import AccountAnswer, Reports
from cli.target import Target
from lambda_esm import Answered, Clients, Delivery, Observer, StreamPoller, every
from local.machine import REPOSITORY
from local.metrics import totals
from local.naive import NaiveConsumer
from local.records import FLIGHTS, write_flights
from local.stack import Stack
from uploads.upload import format_of

if TYPE_CHECKING:
    from collections.abc import Iterator

REDELIVERED = 3
"""Every third batch is delivered once more, as if the mapping had died before its checkpoint."""


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demonstration's last line holds."""

    sent: int
    """Records in the file."""
    rows: int
    """Rows in Postgres."""
    missing: int
    """Records of the file that are neither a row nor a rejected record."""
    duplicate_rows: int
    """Rows more than different ids."""
    rejected: int
    deliveries: int
    """Records that the consumer was handed, repetitions counted."""
    duplicates_skipped: int
    """By the consumer's own metric."""
    naive_rows: int
    """Rows of the naive consumer, from the same deliveries."""
    seconds: float
    """From the start of the upload until everything was processed."""
    upload: dict[str, int]

    @property
    def exact(self) -> bool:
        """Whether every record is there exactly once."""
        return self.rows + self.rejected == self.sent and self.missing == self.duplicate_rows == 0


class _Watcher(Observer):
    """Counts what the consumer was handed, and hands the naive consumer the same."""

    def __init__(self, consumer: str, naive: NaiveConsumer) -> None:
        self.records = 0
        self.batches = 0
        self.batches_again = 0
        self._consumer = consumer
        self._naive = naive
        self._lock = threading.Lock()

    def on_delivery(self, delivery: Delivery) -> None:
        if delivery.mapping.function_name != self._consumer or not isinstance(delivery.outcome, Answered):
            return
        with self._lock:
            self.batches += 1
            self.batches_again += delivery.batch.invocations > 0
            self.records += len(delivery.batch.records)
            self._naive(delivery.event)


def run(
    records: Annotated[int, typer.Option(min=1, max=FLIGHTS, help="How many flights to load.")] = 20_000,
    file: Annotated[
        Path | None,
        typer.Option(
            "--input",
            exists=True,
            dir_okay=False,
            readable=True,
            help="Load this file instead.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run the whole stack on this machine, load records, repeat deliveries on purpose, and show the account."""
    if file is not None:
        uploading.require_format(file, file.name, param_hint="--input")
    try:
        result = _demonstrate(records, file)
    except KeyboardInterrupt:
        show.err.print("Interrupted. Nothing is left running.")
        raise typer.Exit(130) from None
    show.out.out(f"RESULT {json.dumps(asdict(result))}", highlight=False)
    if not result.exact:
        raise typer.Exit(1)


def _demonstrate(records: int, file: Path | None) -> DemoResult:
    show.err.print("Setting up: the template, built and deployed by sam, beside a real Postgres")
    with Stack(REPOSITORY / ".local" / "demo", progress=show.steps()) as stack, _input(records, file) as path:
        stack.deploy()
        where = Target("of the demonstration", stack.outputs, stack.client)
        consumer = stack.outputs["ConsumerFunctionName"]
        watcher = _Watcher(consumer, NaiveConsumer(stack.postgres.connect))
        begin = time.monotonic()
        with StreamPoller(
            Clients(stack.ministack.endpoint),
            observer=watcher,
            redeliver=every(REDELIVERED),
            take_over=True,
        ) as poller:
            account = _load(where, path)
            poller.wait_until_drained()
        seconds = time.monotonic() - begin
        skipped = totals(stack.client("logs"), "consumer")["DuplicatesSkipped"]
        return _compare(stack, path, account, watcher, skipped=skipped, seconds=seconds)


@contextlib.contextmanager
def _input(records: int, file: Path | None) -> Iterator[Path]:
    if file is not None:
        yield file
        return
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "flights.ndjson"
        write_flights(path, records)
        yield path


def _load(where: Target, path: Path) -> AccountAnswer:
    reports = Reports(where)
    with show.progress() as display:
        task = display.add_task(f"{path.name}: uploading", total=None)

        account = uploading.follow(
            reports, uploading.put(where, path), show.following(display, task, path.name)
        )
    if account["state"] == "failed":
        raise UserError(f"{path} could not be loaded: {account['reason']}")
    return account


def _compare(
    stack: Stack, path: Path, account: AccountAnswer, watcher: _Watcher, *, skipped: int, seconds: float
) -> DemoResult:
    connection = stack.postgres.connect()
    try:
        rows, distinct = connection.run("SELECT count(*), count(DISTINCT id) FROM records")[0]
        (rejected,) = connection.run("SELECT count(*) FROM rejected_records")[0]
        (naive,) = connection.run("SELECT count(*) FROM naive_records")[0]
        expected = _expected_ids(path, account["upload"])
        if expected is None:
            sent, missing = account["lines"], account["missing"]
        else:
            # Not taken from the account: read from the file itself.
            found = connection.run("SELECT id FROM records UNION ALL SELECT record_id FROM rejected_records")
            sent, missing = len(expected), len(expected - {each for (each,) in found})
    finally:
        connection.close()
    result = DemoResult(
        sent=sent,
        rows=rows,
        missing=missing,
        duplicate_rows=rows - distinct,
        rejected=rejected,
        deliveries=watcher.records,
        duplicates_skipped=skipped,
        naive_rows=naive,
        seconds=round(seconds, 1),
        upload={name: account[name] for name in ("lines", "inserted", "rejected", "repeated", "missing")},
    )
    _tell(result, account, watcher)
    return result


def _expected_ids(path: Path, upload: str) -> set[str] | None:
    """The ids that the lines of a plain NDJSON file must have: the upload's id and the byte offset."""
    if format_of(path.name) != ("ndjson", False):
        return None
    ids, offset = set(), 0
    with path.open("rb") as lines:
        for line in lines:
            if line.strip():
                ids.add(f"{upload}:{offset}")
            offset += len(line)
    return ids


def _tell(result: DemoResult, account: dict[str, Any], watcher: _Watcher) -> None:
    counts = Counter(asdict(result) | {"upload": 0})
    batches = f"{watcher.batches} batches, {watcher.batches_again} of them again on purpose"
    show.out.print()
    show.accounts([account])
    show.out.print(
        f"""
  sent                 {counts["sent"]:>9,}  records in the file
  delivered            {counts["deliveries"]:>9,}  in {batches}
  inserted             {counts["rows"]:>9,}  rows
  skipped as duplicate {counts["duplicates_skipped"]:>9,}
  rejected             {counts["rejected"]:>9,}
  missing              {counts["missing"]:>9,}

  The naive consumer, on the same deliveries: {counts["naive_rows"]:,} rows.
""",
        soft_wrap=True,
    )
