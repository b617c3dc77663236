"""``make bench``: measure, print the tables, write results.json, two charts, and the tables of docs/performance.md.

Environment: QUICK=1 measures the headline only (a minute, writes nothing into the repository), FULL=1 the
whole grid (an hour), E2E=1 adds the local stack with up to 336,776 records (half an hour).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from bench import charts, consumer, e2e, producer, tables, weight
from bench.contestants import BY_NAME, CONTESTANTS, CRASHED, Contestant
from bench.headline import AIMS, CONSUMER_FUNCTION, Results, headline
from bench.servers import DistantMiniStack, Ground, StandIn, durability
from bench.workers import ContestantError, database_name
from cli.errors import UserError
from local.errors import StackError
from local.machine import REPOSITORY
from local.postgres import Postgres

HERE = REPOSITORY / "bench"
WORK = REPOSITORY / ".local" / "bench"
DOCUMENT = REPOSITORY / "docs" / "performance.md"
GROWTH = (10, 30, 100, 300, 1000, 3000, 5000, 10_000)
END_TO_END = (20_000, 100_000, 336_776)
PACKAGES = ("aws-lambda-powertools", "boto3", "msgspec", "pg8000", "psycopg", "pydantic")
EMULATED = ("ours", "powertools")
EMULATED_CELL = consumer.Cell(cases={"fresh": (5, 1), "duplicates": (5, 1)})


class Steps:
    """What is going on, on one line that changes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begin(self, what: str, total: int) -> Callable[[str], None]:
        """A new step of ``total`` parts; returns what to call when one of them is done."""
        task = self._progress.add_task(what, total=total, now="")
        return lambda now: self._progress.update(task, advance=1, now=now)


def options(arguments: Sequence[str]) -> argparse.Namespace:
    """What is to be measured: by the command line, or by the variables that ``make bench`` passes on.

    Raises
    ------
    SystemExit
        After the help, or after a sentence on what is wrong (status 2).
    """
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure the consumers and the producers side by side. Without an option it takes six minutes "
        "and writes bench/results.json, two charts, and the tables of docs/performance.md.",
        epilog="The variables QUICK, FULL and E2E do the same as the options: make bench QUICK=1.",
    )
    size = parser.add_mutually_exclusive_group()
    size.add_argument(
        "--quick",
        action="store_true",
        help="the headline only: a minute, nothing is written into the repository",
    )
    size.add_argument(
        "--full",
        action="store_true",
        help="every contestant at every size, latency and kind of record: an hour",
    )
    parser.add_argument(
        "--e2e",
        action="store_true",
        help=f"the local stack as well, with {', '.join(f'{count:,}' for count in END_TO_END)} records: half an hour",
    )
    chosen = parser.parse_args(arguments)
    for name in ("quick", "full", "e2e"):
        setattr(chosen, name, getattr(chosen, name) or bool(os.environ.get(name.upper())))
    if chosen.quick and chosen.full:
        parser.error("quick and full exclude each other (options, or the variables QUICK and FULL)")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Measure, print and write; returns the exit status."""
    chosen = options(arguments)
    full, quick, end_to_end = chosen.full, chosen.quick, chosen.e2e
    console = Console()
    directory = WORK / "run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    load = os.getloadavg()[0]
    if load > 0.5:
        console.print(f"[yellow]The machine is busy (load {load:.1f}): times will be too long, and ± wide.")
    columns = (TextColumn("{task.description:<28}"), BarColumn(30), MofNCompleteColumn(), TimeElapsedColumn())
    try:
        with Progress(*columns, TextColumn("{task.fields[now]}"), console=console) as progress:
            results = measure(Steps(progress), directory, full=full, quick=quick)
            if end_to_end:
                done = Steps(progress).begin("End to end", 2 * len(END_TO_END))
                results["end_to_end"] = list(e2e.measure(directory, END_TO_END, done))
    except (StackError, UserError, ContestantError, weight.ImportFailedError) as error:
        console.print(f"[red]{error}", highlight=False)
        return 1
    except KeyboardInterrupt:
        return 130
    wide = Console(width=max(console.width, 190))
    for table in tables.tables(results):
        wide.print(table.rich())
    where = write(results, quick=quick)
    console.print(f"Written: {', '.join(str(path.relative_to(REPOSITORY)) for path in where)}")
    missed = [aim.says for aim in AIMS if aim.reached(results["headline"][aim.key]) is False]
    console.print(f"Not reached: {'; '.join(missed)}" if missed else "All figures reached.")
    return 0


def measure(steps: Steps, directory: Path, *, full: bool, quick: bool) -> Results:
    """Everything, one thing after the other: the machine has few cores, and the figures are to be those of one."""
    results: Results = describe("full" if full else "quick" if quick else "default")
    results |= {"emulators": [], "crashes": [], "growth": [], "end_to_end": []}
    done = steps.begin("Package and imports", 1 + weight.ROUNDS * len(weight.functions()))
    package = weight.build(WORK)
    done("built")
    results["package_mb"] = weight.package_megabytes(package / CONSUMER_FUNCTION)
    results["functions"] = list(weight.imports(package, done))
    done = steps.begin("Producers", 2 * len(producer.SHARDS) * len(producer.PRODUCERS))
    results["producer"] = list(producer.measure(done))
    cells = consumer.FULL if full else consumer.QUICK if quick else consumer.DEFAULT
    with ExitStack() as stack:
        postgres = stack.enter_context(Postgres(directory / "postgres"))
        results["postgres"] = durability(postgres)
        standin = StandIn(directory)
        stack.callback(standin.stop)
        ground = Ground(postgres, standin, directory)
        results["consumer"] = measure_consumers(steps, ground, CONTESTANTS, cells)
        if not quick:
            done = steps.begin("Killed and delivered again", 4 * len(CRASHED))
            results["crashes"] = list(consumer.crashes(ground, done))
            done = steps.begin("Growth", consumer.GROWTH_ROUNDS * len(GROWTH))
            results["growth"] = list(consumer.grow(ground, GROWTH, done))
            results["emulators"] = measure_emulator(steps, ground, results["consumer"])
    results["headline"] = headline(results)
    return results


def measure_consumers(
    steps: Steps, ground: Ground, contestants: Sequence[Contestant], cells: Sequence[consumer.Cell]
) -> list[dict[str, Any]]:
    """The contestants against one DynamoDB."""
    with ExitStack() as stack:
        workers = consumer.start_all(stack, ground, contestants)
        done = steps.begin("Consumers", consumer.count_runs(cells, contestants))
        return consumer.measure(workers, cells, done).rows()


def measure_emulator(steps: Steps, ground: Ground, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Two contestants against MiniStack, beside what they did against the stand-in."""
    contestants = [BY_NAME[name] for name in EMULATED]
    with ExitStack() as stack:
        ministack = DistantMiniStack(ground.directory / "ministack")
        stack.callback(ministack.stop)
        for contestant in contestants:
            ground.postgres.drop_database(database_name(contestant))
        rows = measure_consumers(steps, ground._replace(dynamodb=ministack), contestants, [EMULATED_CELL])
    kept = ("contestant", "case", "wall_ms", "cpu_ms", "emulator_cpu_ms")
    setting = EMULATED_CELL.setting.items()
    return [
        {"emulator": emulator, **{key: row[key] for key in kept}}
        for name in EMULATED
        for case in EMULATED_CELL.cases
        for emulator, source in (("stand-in", measured), ("MiniStack", rows))
        for row in source
        if row["contestant"] == name and row["case"] == case and setting <= row.items()
    ]


def describe(mode: str) -> Results:
    """Where and when this is measured."""
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "mode": mode,
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip(),
        "machine": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
            "system": f"{platform.system()} {platform.release()}",
            "load_before": [round(load, 2) for load in os.getloadavg()],
        },
        "versions": {
            "python": platform.python_version(),
            **{package: version(package) for package in PACKAGES},
        },
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def write(results: Results, *, quick: bool) -> list[Path]:
    """Write the results: into the repository, or for a quick run beside it."""
    text = json.dumps(results, indent=1, ensure_ascii=False) + "\n"
    if quick:
        path = WORK / "results.json"
        path.write_text(text)
        return [path]
    paths = [HERE / "results.json", HERE / "consumer.svg", HERE / "producer.svg", DOCUMENT]
    paths[0].write_text(text)
    charts.consumer(results, paths[1])
    charts.producer(results, paths[2])
    tables.write_into(DOCUMENT, results)
    return paths


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
