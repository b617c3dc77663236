"""End to end on the local stack: a file of flights into the bucket, and every record in Postgres.

Everything of the deployed stack takes part: notification, ledger, chunk jobs, producer, stream, consumer.
MiniStack runs the functions and the stream, and it is one Python process: it sets the pace, not Oncestream.
What this shows is that time and memory grow with the file as they should, not how fast a stack in AWS is.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import psutil

from bench.memory import peak_bytes_of
from cli import uploading
from cli.reports import Reports
from cli.target import Target
from lambda_esm import Clients, StreamPoller
from local.records import write_flights
from local.stack import Stack

SAMPLE_SECONDS = 0.5


class MemoryWatch:
    """The most memory that each function's process was seen to use, while the block runs."""

    def __init__(self, emulator: int) -> None:
        self.peak_mb: dict[str, float] = {}
        self._emulator = psutil.Process(emulator)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(SAMPLE_SECONDS):
            for process in self._emulator.children(recursive=True):
                try:
                    function = process.environ().get("AWS_LAMBDA_FUNCTION_NAME")
                    used = (peak_bytes_of(process.pid) or process.memory_info().rss) / 1e6
                except (psutil.NoSuchProcess, psutil.AccessDenied):
                    continue  # it has ended in the meantime
                if function:  # oncestream-ConsumerFunction-71F83BA614A9A
                    name = function.split("-")[1]
                    self.peak_mb[name] = round(max(used, self.peak_mb.get(name, 0.0)), 1)


def measure(directory: Path, sizes: Sequence[int], done: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Load so many flights into a fresh stack, for each of ``sizes``."""
    for size in sizes:
        with Stack(directory / "stack") as stack:
            stack.deploy()
            done(f"{size:,}: deployed")
            path = directory / "flights.ndjson"
            write_flights(path, size)
            target = Target("of the benchmark", stack.outputs, stack.client)
            begin = time.monotonic()
            with (
                MemoryWatch(stack.ministack.pid) as memory,
                StreamPoller(Clients(stack.ministack.endpoint), take_over=True) as poller,
            ):
                account = uploading.follow(Reports(target), uploading.put(target, path), lambda _: None)
                poller.wait_until_drained()
                seconds = time.monotonic() - begin
            connection = stack.postgres.connect()
            rows, ids = connection.run("SELECT count(*), count(DISTINCT id) FROM records")[0]
            connection.close()
            done(f"{size:,}: loaded")
        yield {
            "records": size,
            "seconds": round(seconds, 1),
            "records_per_second": round(size / seconds),
            "rows": rows,
            "ids": ids,
            "state": account["state"],
            "peak_mb": {
                name.removeprefix("oncestream-"): peak for name, peak in sorted(memory.peak_mb.items())
            },
        }
