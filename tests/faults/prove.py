"""`make prove`: many random histories, on as many processes as there are processors."""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import sys
import time
from collections import Counter
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.faults.history import Harness
from tests.faults.laboratory import laboratory
from tests.faults.random_history import history_of, shrink
from tests.faults.replay import script

SHOWN = 5


def _number(name: str, default: int, least: int) -> int:
    """A number from the environment.

    Raises
    ------
    SystemExit
        It is none, or too small. Says so.
    """
    text = os.environ.get(name) or str(default)
    try:
        number = int(text)
    except ValueError:
        number = least - 1
    if number < least:
        raise SystemExit(f"{name} is a whole number from {least} on, not {text!r}.")
    return number


def main() -> int:
    """Run and report. The last line is the result; 0 if every account closes."""
    wanted = _number("HISTORIES", 10_000, 1)
    first = _number("SEED", 0, 0)
    processes = min(len(os.sched_getaffinity(0)), max(1, wanted // 50))
    started = time.monotonic()
    counts: Counter[str] = Counter()
    shown = 0
    context = multiprocessing.get_context("spawn")
    results: Any = context.Queue()
    workers = [
        context.Process(
            target=_work, args=(range(first + number, first + wanted, processes), results), daemon=True
        )
        for number in range(processes)
    ]
    for worker in workers:
        worker.start()
    console = Console()
    columns = (TextColumn("histories"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("histories", total=wanted)
        for _ in range(wanted):
            result, failure = _next(results, workers)
            counts.update(result)
            progress.advance(task)
            if failure and shown < SHOWN:
                shown += 1
                console.print(failure, markup=False, soft_wrap=True)
    for worker in workers:
        worker.join()
    names = (
        "histories",
        "steps",
        "steps_broken",
        "lost",
        "duplicated",
        "altered",
        "wrongly_rejected",
        "other_failures",
    )
    report = {name: counts[name] for name in names} | {"seconds": round(time.monotonic() - started, 1)}
    sys.stdout.write(f"RESULT {json.dumps(report)}\n")
    return int(counts["failed"] > 0)


def _next(results: Any, workers: list[Any]) -> tuple[dict[str, int], str]:
    while True:
        try:
            answer: tuple[dict[str, int], str] = results.get(timeout=5)
        except queue.Empty as empty:
            if any(worker.exitcode for worker in workers):
                raise RuntimeError("a worker process has ended with an error") from empty
        else:
            return answer


def _work(seeds: range, results: Any) -> None:
    with laboratory() as harness:
        for seed in seeds:
            results.put(_one(harness, seed))


def _one(harness: Harness, seed: int) -> tuple[dict[str, int], str]:
    history = history_of(seed)
    account = harness.run(history)
    counts = {
        "histories": 1,
        "steps": len(account.steps),
        "steps_broken": account.broken,
        "lost": len(account.lost),
        "duplicated": len(account.duplicated),
        "altered": len(account.altered),
        "wrongly_rejected": len(account.wrongly_rejected),
        "other_failures": len(account.others),
        "failed": int(bool(account.wrong)),
    }
    if not account.wrong:
        return counts, ""
    small = shrink(history, lambda candidate: bool(harness.run(candidate).wrong))
    wrong = "\n".join(harness.run(small).wrong)
    return counts, f"\nhistory {seed}:\n{wrong}\nreplay it with:\n{script(small)}\n"


if __name__ == "__main__":
    sys.exit(main())
