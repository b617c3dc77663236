"""The consumers side by side: which runs, in which order, and what they add up to."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.contestants import CONTESTANTS, CRASHED, OURS, Contestant
from bench.figures import rotated, summarise
from bench.records import Dataset, poison_in
from bench.servers import Ground
from bench.workers import ContestantError, Worker

type Case = Literal["fresh", "duplicates", "poisoned"]
CASES: tuple[Case, ...] = ("fresh", "duplicates", "poisoned")

WARM_UP = 20
GROWTH_ROUNDS = 3
CRASH_SIZE = 100
CRASH_TIMEOUT = 8.0
"""Seconds after which the claims of a killed invocation have run out. Oncestream keeps five of them in reserve."""


@dataclass(frozen=True)
class Cell:
    """A batch as all contestants get it. Those that call DynamoDB for each record get it in ``slow_rounds``."""

    size: int = 1000
    latency_ms: float = 5.0
    dataset: Dataset = "flights"
    cases: dict[Case, tuple[int, int]] = field(default_factory=dict)
    """Rounds of each case: of the fast, of the slow. Duplicates follow a fresh batch and cannot have more of them."""

    @property
    def setting(self) -> dict[str, Any]:
        """What identifies it among the results."""
        return {"dataset": self.dataset, "size": self.size, "latency_ms": self.latency_ms}


HEADLINE = Cell()
DEFAULT = (
    Cell(cases={"fresh": (9, 2), "duplicates": (9, 1), "poisoned": (5, 1)}),
    Cell(size=10, cases={"fresh": (7, 2), "duplicates": (7, 2), "poisoned": (5, 1)}),
    Cell(size=100, cases={"fresh": (7, 2), "duplicates": (7, 1), "poisoned": (5, 1)}),
    Cell(size=5000, cases={"fresh": (5, 0), "duplicates": (5, 0), "poisoned": (3, 0)}),
    Cell(latency_ms=0.0, cases={"fresh": (7, 1), "duplicates": (7, 0)}),
    Cell(latency_ms=2.0, cases={"fresh": (5, 1), "duplicates": (5, 0)}),
    Cell(latency_ms=10.0, cases={"fresh": (5, 1), "duplicates": (5, 0)}),
    Cell(dataset="1 KB", cases={"fresh": (5, 1), "duplicates": (5, 0)}),
)
QUICK = (Cell(cases={"fresh": (7, 1), "duplicates": (7, 1)}),)
FULL = tuple(
    Cell(size, latency_ms, dataset, {"fresh": (7, 1), "duplicates": (7, 1), "poisoned": (5, 1)})
    for dataset in ("flights", "1 KB")
    for latency_ms in (5.0, 0.0, 2.0, 10.0)
    for size in (1000, 10, 100, 5000)
)


class Runs:
    """Every run of every contestant, by cell and case."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, Dataset, int, float, Case], list[dict[str, Any]]] = defaultdict(list)

    def add(self, contestant: Contestant, cell: Cell, case: Case, run: dict[str, Any]) -> None:
        """Keep a run."""
        self._runs[contestant.name, cell.dataset, cell.size, cell.latency_ms, case].append(run)

    def rows(self) -> list[dict[str, Any]]:
        """One line for each contestant, cell and case: medians, spread, what a record costs, and what became of it."""
        return [
            {
                "contestant": name,
                "dataset": dataset,
                "size": size,
                "latency_ms": latency_ms,
                "case": case,
                **_summary(runs, size),
            }
            for (name, dataset, size, latency_ms, case), runs in self._runs.items()
        ]


def _summary(runs: list[dict[str, Any]], size: int) -> dict[str, Any]:
    wall, cpu = summarise([run["wall"] for run in runs]), summarise([run["cpu"] for run in runs])
    last = runs[-1]
    return {
        "runs": wall.runs,
        "wall_ms": round(wall.median * 1000, 2),
        "wall_spread": round(wall.spread, 3),
        "cpu_ms": round(cpu.median * 1000, 2),
        # The emulator's clock has ticks of 10 ms: only a mean of several runs says something.
        "emulator_cpu_ms": round(sum(run["emulator_cpu"] for run in runs) / len(runs) * 1000, 1),
        "calls": last["calls"],
        "operations": last["operations"],
        "write_units_per_record": round(last["write_units"] / size, 3),
        "read_units_per_record": round(last["read_units"] / size, 3),
        "rows": last["rows"],
        "ids": last["ids"],
        "rejected": last["rejected"],
        "failures": last["failures"],
        "error": last["error"],
    }


def start_all(stack: ExitStack, ground: Ground, contestants: Sequence[Contestant]) -> list[Worker]:
    """A warm worker for each contestant."""
    workers = []
    for contestant in contestants:
        worker = Worker(contestant, ground)
        stack.callback(worker.stop)
        _warm_up(worker)
        workers.append(worker)
    return workers


def _warm_up(worker: Worker) -> None:
    # Twice: connections are opened at the first use, and some contestants have many.
    for number in range(2):
        worker.run(dataset="flights", size=WARM_UP, tag=f"warm-{number}", poisoned=False, latency=0.0)


def count_runs(cells: Sequence[Cell], contestants: Sequence[Contestant] = CONTESTANTS) -> int:
    """How many invocations :func:`measure` will time."""
    return sum(
        rounds[one.per_record] for cell in cells for rounds in cell.cases.values() for one in contestants
    )


def measure(workers: Sequence[Worker], cells: Sequence[Cell], done: Callable[[str], None]) -> Runs:
    """Run the cells, the contestants in turn within each round and in another order each time.

    Every batch has ids of its own and every contestant empty tables.
    """
    runs = Runs()
    for number, cell in enumerate(cells):
        most = max(max(rounds) for rounds in cell.cases.values())
        for round_number in range(most):
            for worker in rotated(workers, round_number):
                for case in CASES:
                    rounds = cell.cases.get(case, (0, 0))[worker.contestant.per_record]
                    if round_number >= rounds:
                        continue
                    if case != "duplicates":
                        worker.clear()
                    run = worker.run(
                        dataset=cell.dataset,
                        size=cell.size,
                        tag=f"{number}-{round_number}{'-p' if case == 'poisoned' else ''}",
                        poisoned=case == "poisoned",
                        latency=cell.latency_ms / 1000,
                    )
                    runs.add(worker.contestant, cell, case, run)
                    done(f"{worker.contestant.label}: {cell.size:,} {case}, {cell.latency_ms:g} ms a call")
    return runs


def crashes(ground: Ground, done: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """What is there after an invocation was killed and its batch delivered again, once its claims had run out."""
    invocation = {"dataset": "flights", "size": CRASH_SIZE, "tag": "crash", "poisoned": False}
    killed_at = {}
    for when in ("before", "after"):
        for contestant in CRASHED:
            worker = Worker(contestant, ground, name=f"crash_{when}_{contestant.name}", crash=when)
            if not worker.is_killed_by(**invocation, timeout=CRASH_TIMEOUT):
                raise ContestantError(f"{contestant.label} was not killed {when} its first commit")
            killed_at[when, contestant] = time.monotonic()
            worker.stop()
            done(f"{contestant.label}: killed {when} its first commit")
    for (when, contestant), moment in killed_at.items():
        time.sleep(max(0.0, moment + CRASH_TIMEOUT + 1.0 - time.monotonic()))
        worker = Worker(contestant, ground, name=f"crash_{when}_{contestant.name}", new=False)
        result = worker.run(**invocation, latency=0.0)
        worker.stop()
        yield {
            "contestant": contestant.name,
            "killed": when,
            "sent": CRASH_SIZE,
            **{key: result[key] for key in ("rows", "ids", "failures", "error")},
        }
        done(f"{contestant.label}: delivered again")


def grow(ground: Ground, sizes: Sequence[int], done: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Ours against the batch size, in a fresh process, smallest batch first: its peak memory only ever grows."""
    worker = Worker(OURS, ground, name="growth")
    try:
        _warm_up(worker)
        for size in sizes:
            runs = []
            for number in range(GROWTH_ROUNDS):
                worker.clear()
                runs.append(
                    worker.run(
                        dataset="flights",
                        size=size,
                        tag=f"growth-{size}-{number}",
                        poisoned=False,
                        latency=HEADLINE.latency_ms / 1000,
                    )
                )
                done(f"growth: {size:,}")
            summary = _summary(runs, size)
            yield {
                "size": size,
                **{key: summary[key] for key in ("wall_ms", "wall_spread", "cpu_ms", "calls", "rows")},
                "peak_mb": round(runs[-1]["peak_bytes"] / 1e6, 1),
            }
    finally:
        worker.stop()


def fate_of_duplicates(row: dict[str, Any]) -> str:
    """What a redelivery left, in a word: ``row`` is the line of a case ``duplicates``."""
    if row["error"] or row["failures"]:
        return "the batch fails"
    if row["rows"] == row["ids"] == row["size"]:
        return "exactly once"
    return f"{row['rows'] / row['size']:.2f} rows a record"


def fate_of_poison(row: dict[str, Any]) -> str:
    """What became of the poison records, in a word: ``row`` is the line of a case ``poisoned``."""
    poison = poison_in(row["size"])
    if row["error"]:
        return "the batch fails"
    if row["rows"] != row["size"] - poison:
        return f"{row['size'] - poison - row['rows']} good records missing"
    if row["rejected"] == poison:
        return "kept, with the reason"
    return "retried until it expires" if row["failures"] else "logged and dropped"
