"""What a person or a program sees of a running poller: a live table, plain lines, JSON lines, a status file."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.table import Table

from lambda_esm.mapping import EventSourceMapping
from lambda_esm.observer import Delivery, Observer
from lambda_esm.poller import StreamPoller
from lambda_esm.records import Answered, Discard, FunctionFailed, NotInvoked


class JsonLines(Observer):
    """Writes a JSON object a line: ``delivery``, ``discard``, now and then ``metrics``, and at the end ``end``.

    Parameters
    ----------
    stream
        Where to; by default the standard output.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._lock = threading.Lock()

    def write(self, event: str, **fields: Any) -> None:
        """Write one line."""
        line = json.dumps({"event": event} | fields)
        with self._lock:
            print(line, file=self._stream, flush=True)

    def on_delivery(self, delivery: Delivery) -> None:
        decision, batch = delivery.decision, delivery.batch
        outcome = {Answered: "answered", FunctionFailed: "function failed", NotInvoked: "not invoked"}
        self.write(
            "delivery",
            function=delivery.mapping.function_name,
            shard=delivery.shard_id,
            records=len(batch.records),
            first=batch.records[0].sequence_number if batch.records else None,
            last=batch.records[-1].sequence_number if batch.records else None,
            milliseconds=round(delivery.seconds * 1_000),
            outcome=outcome[type(delivery.outcome)],
            done=len(decision.done),
            retry=[len(part.records) for part in decision.retry],
            given_up=len(decision.discard.records) if decision.discard else 0,
        )

    def on_discard(self, mapping: EventSourceMapping, shard_id: str, discard: Discard) -> None:
        records = discard.batch.records
        self.write(
            "discard",
            function=mapping.function_name,
            shard=shard_id,
            condition=discard.condition,
            records=len(records),
            first=records[0].sequence_number,
            last=records[-1].sequence_number,
            destination=mapping.settings.on_failure_destination,
        )


def write_status(path: Path, poller: StreamPoller) -> None:
    """Replace the file with how it stands: ``{"Mappings": [...], "delivered": ..., ...}``."""
    draft = path.with_name(path.name + ".new")
    draft.write_text(json.dumps({"Mappings": poller.status()} | totals(poller), indent=1))
    draft.replace(path)


def totals(poller: StreamPoller) -> dict[str, int]:
    """The last line of ``--json``: records that were delivered, discarded and filtered out, and repeated deliveries."""
    total = poller.totals
    return {
        "delivered": total.delivered,
        "retried": total.retried,
        "discarded": total.discarded,
        "filtered": total.filtered,
    }


def table(statuses: Sequence[Mapping[str, Any]]) -> Table:
    """The live view."""
    view = Table(
        "function", "shard", "lag", "waiting", "checkpoint", title="lambda-esm", title_justify="left"
    )
    for status in statuses:
        metrics = status["Metrics"]
        function = status["FunctionArn"].rpartition("function:")[2]
        for shard in status["Shards"]:
            view.add_row(
                function,
                shard["shard"],
                _lag(shard["lag"]),
                f"{shard['waiting']:,}",
                "…" + shard["checkpoint"][-12:] if shard["checkpoint"] else "-",
            )
        given_up = metrics["DroppedEventCount"] + metrics["OnFailureDestinationDeliveredEventCount"]
        view.add_row(
            function,
            f"{status['Deliveries']:,} deliveries, {status['Retried']:,} retried, {status['Bisects']:,} bisects, "
            f"{given_up:,} given up, {metrics['FilteredOutEventCount']:,} filtered",
            "",
            "",
            status["LastProcessingResult"],
            end_section=True,
        )
    return view


def _lag(milliseconds: int | None) -> str:
    if milliseconds is None:
        return "?"
    return "none" if milliseconds == 0 else f"{milliseconds / 1_000:,.1f} s"


class Reporter:
    """Tells how it stands every so often, in a thread of its own: a live table, JSON lines, a status file.

    Use it in a ``with`` block inside the poller's.
    """

    def __init__(
        self,
        poller: StreamPoller,
        *,
        live: bool = False,
        lines: JsonLines | None = None,
        status: Path | None = None,
        seconds: float = 1.0,
    ) -> None:
        self._poller = poller
        self._live = Live(console=Console(stderr=True), auto_refresh=False) if live else None
        self._tasks: list[Callable[[], None]] = []
        if self._live is not None:
            self._tasks.append(self._draw)
        if lines is not None:
            self._tasks.append(self._lines(lines))
        if status is not None:
            self._tasks.append(lambda: write_status(status, poller))
        self._seconds = seconds
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="report", daemon=True)

    def __enter__(self) -> None:
        if self._live is not None:
            self._live.start()
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self._tell()
        if self._live is not None:
            self._live.stop()

    def _run(self) -> None:
        while not self._ended.wait(self._seconds):
            self._tell()

    def _tell(self) -> None:
        for task in self._tasks:
            task()

    def _draw(self) -> None:
        assert self._live is not None  # noqa: S101 - for the type checker
        self._live.update(table(self._poller.status()), refresh=True)

    def _lines(self, lines: JsonLines) -> Callable[[], None]:
        told: dict[str, Any] = {}

        def tell() -> None:
            for status in self._poller.status():
                if told.get(status["UUID"]) != status:
                    told[status["UUID"]] = status
                    lines.write("metrics", **status)

        return tell
