"""The results as tables, for the terminal and for docs/performance.md alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import rich.table

from bench.consumer import fate_of_duplicates, fate_of_poison
from bench.contestants import BY_NAME, CONTESTANTS
from bench.figures import ratio
from bench.headline import AIMS, Results, find
from bench.producer import PRODUCERS

BEGIN, END = "<!-- tables: written by make bench -->", "<!-- end of tables -->"
MISSING = "-"
"""In a place that was not measured: the slow contestants are not run everywhere (``make bench FULL=1`` does)."""


@dataclass
class Table:
    """A table of text; the first column is a name, the others are figures."""

    title: str
    columns: list[str]
    rows: list[list[str]] = field(default_factory=list)
    is_detail: bool = False
    """The terminal shows it and results.json has its figures; the page does without."""

    def rich(self) -> rich.table.Table:
        """For the terminal."""
        table = rich.table.Table(title=self.title, title_justify="left", title_style="bold")
        for number, column in enumerate(self.columns):
            table.add_column(column, justify="right" if number else "left", no_wrap=not number)
        for row in self.rows:
            table.add_row(*row, style="green" if row[0] == BY_NAME["ours"].label else None)
        return table

    def markdown(self) -> str:
        """For the documentation."""
        lines = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)], *self.rows]
        return f"**{self.title}**\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines)


def tables(results: Results) -> Iterator[Table]:
    """All tables that the results have figures for."""
    if results["consumer"]:
        yield _headline(results)
        yield from _by_setting(results)
    if results["emulators"]:
        yield _emulators(results)
    if results["producer"]:
        yield from _producer(results)
    if results["growth"]:
        yield _growth(results)
    if results["functions"]:
        yield _functions(results)
    if results["end_to_end"]:
        yield _end_to_end(results)
    yield _aims(results)


def write_into(path: Path, results: Results) -> None:
    """Replace the tables in a Markdown file, between its two marks."""
    text = path.read_text()
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    machine = results["machine"]
    measured = (
        f"Measured on {results['date']}: {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']:g} GB,"
        f" {machine['system']}, Python {results['versions']['python']}, Postgres"
        f" {results['postgres']['server_version']} (fsync {results['postgres']['fsync']})."
    )
    written = "\n\n".join(
        [BEGIN, measured, *(each.markdown() for each in tables(results) if not each.is_detail), END]
    )
    path.write_text(before + written + after)


def _headline(results: Results) -> Table:
    setting = {"dataset": "flights", "size": 1000, "latency_ms": 5.0}
    table = Table(
        "1,000 flights, 5 ms added to each DynamoDB call",
        [
            *("consumer", "ms", "±", "to ours", "CPU ms", "calls", "write units a record"),
            *("delivered again", "ms then", "poison records", "killed before commit", "killed after commit"),
        ],
    )
    ours = find(results["consumer"], contestant="ours", case="fresh", **setting)
    for contestant in CONTESTANTS:
        of = {"contestant": contestant.name} | setting
        fresh = find(results["consumer"], case="fresh", **of)
        again = find(results["consumer"], case="duplicates", **of)
        poisoned = find(results["consumer"], case="poisoned", **of)
        if fresh is None or ours is None:
            continue
        table.rows.append(
            [
                contestant.label,
                f"{fresh['wall_ms']:,.1f}",
                f"{fresh['wall_spread']:.0%}" if fresh["runs"] > 1 else MISSING,
                _times(fresh["wall_ms"], ours["wall_ms"]),
                f"{fresh['cpu_ms']:,.0f}",
                f"{fresh['calls']:,}",
                f"{fresh['write_units_per_record']:g}",
                MISSING if again is None else fate_of_duplicates(again),
                MISSING if again is None else f"{again['wall_ms']:,.1f}",
                MISSING if poisoned is None else fate_of_poison(poisoned),
                *(_killed(results, contestant.name, when) for when in ("before", "after")),
            ]
        )
    return table


def _killed(results: Results, contestant: str, when: str) -> str:
    row = find(results["crashes"], contestant=contestant, killed=when)
    if row is None:
        return MISSING
    lost, doubled = row["sent"] - row["ids"], row["rows"] - row["ids"]
    said = [f"{lost} of {row['sent']} lost"] * bool(lost) + [f"{doubled} of {row['sent']} twice"] * bool(
        doubled
    )
    return ", ".join(said) or "exactly once"


def _by_setting(results: Results) -> Iterator[Table]:
    by_size = {
        f"{size:,} records": {"size": size, "latency_ms": 5.0, "dataset": "flights"}
        for size in (10, 100, 1000, 5000)
    }
    by_latency = {
        f"{latency:g} ms a call": {"size": 1000, "latency_ms": latency, "dataset": "flights"}
        for latency in (0.0, 2.0, 5.0, 10.0)
    }
    by_dataset = {
        dataset: {"size": 1000, "latency_ms": 5.0, "dataset": dataset} for dataset in ("flights", "1 KB")
    }
    for title, case, settings in (
        ("By batch size: milliseconds (and times ours), fresh batch, 5 ms a call", "fresh", by_size),
        ("By batch size: the same batch delivered again", "duplicates", by_size),
        ("By batch size: one record in a hundred is poison", "poisoned", by_size),
        ("By latency: 1,000 records, fresh batch", "fresh", by_latency),
        ("By record: 1,000 fresh, flights of some 370 bytes and synthetic ones of 1 KB", "fresh", by_dataset),
    ):
        measured = {
            name: setting
            for name, setting in settings.items()
            if find(results["consumer"], contestant="ours", case=case, **setting)
        }
        table = Table(title, ["consumer", *measured], is_detail=(case, settings) != ("fresh", by_size))
        for contestant in CONTESTANTS:
            cells = []
            for setting in measured.values():
                row = find(results["consumer"], contestant=contestant.name, case=case, **setting)
                ours = find(results["consumer"], contestant="ours", case=case, **setting)
                cells.append(
                    MISSING
                    if row is None or ours is None
                    else f"{row['wall_ms']:,.1f} ({_times(row['wall_ms'], ours['wall_ms'])})"
                )
            if set(cells) != {MISSING}:
                table.rows.append([contestant.label, *cells])
        if len(measured) > 1:
            yield table


def _emulators(results: Results) -> Table:
    table = Table(
        "How much of it is the emulator: 1,000 flights, 5 ms a call",
        ["consumer", "against", "ms", "own CPU ms", "emulator's CPU ms", "emulator's CPU over ms"],
        is_detail=True,
    )
    for row in results["emulators"]:
        table.rows.append(
            [
                f"{BY_NAME[row['contestant']].label}, {row['case']}",
                row["emulator"],
                f"{row['wall_ms']:,.1f}",
                f"{row['cpu_ms']:,.0f}",
                f"{row['emulator_cpu_ms']:,.0f}",
                f"{ratio(row['emulator_cpu_ms'], row['wall_ms']):.0%}",
            ]
        )
    return table


def _producer(results: Results) -> Iterator[Table]:
    for dataset, bound in (("flights", "1,000 records a second"), ("4 KB", "1 MiB a second")):
        table = Table(
            f"Producers, 20,000 records of {dataset}: bound by {bound} a shard",
            [
                "producer",
                "shards",
                "seconds",
                "records/s",
                "of the limit",
                "requests",
                "sent",
                "lost",
                "stored twice",
            ],
            is_detail=dataset != "flights",
        )
        for row in results["producer"]:
            if row["dataset"] == dataset:
                table.rows.append(
                    [
                        PRODUCERS[row["producer"]][0],
                        str(row["shards"]),
                        f"{row['seconds']:,.1f}",
                        f"{row['records_per_second']:,}",
                        f"{row['share_of_limit']:.1%}",
                        *(f"{row[key]:,}" for key in ("requests", "sent", "lost", "stored_twice")),
                    ]
                )
        yield table


def _growth(results: Results) -> Table:
    table = Table(
        "Growth of ours with the batch, 5 ms a call",
        ["records", "ms", "µs a record", "CPU ms", "calls", "peak memory, MB"],
    )
    for row in results["growth"]:
        table.rows.append(
            [
                f"{row['size']:,}",
                f"{row['wall_ms']:,.1f}",
                f"{row['wall_ms'] / row['size'] * 1000:,.0f}",
                f"{row['cpu_ms']:,.1f}",
                str(row["calls"]),
                f"{row['peak_mb']:,.0f}",
            ]
        )
    return table


def _functions(results: Results) -> Table:
    table = Table(
        "Cold start: importing each function's module from the built package",
        ["function", "module", "seconds", "±", "memory, MB", "modules"],
    )
    for row in results["functions"]:
        figures = [
            f"{row['seconds']:.3f}",
            f"{row['spread']:.0%}",
            f"{row['peak_mb']:.0f}",
            str(row["modules"]),
        ]
        table.rows.append([row["function"], row["module"], *figures])
    return table


def _end_to_end(results: Results) -> Table:
    functions = sorted({name for row in results["end_to_end"] for name in row["peak_mb"]})
    table = Table(
        "End to end on the local stack, a file of flights (peak memory of each function in MB)",
        ["records", "seconds", "records/s", "rows", "different ids", *functions],
    )
    for row in results["end_to_end"]:
        figures = [
            f"{row['seconds']:,.1f}",
            f"{row['records_per_second']:,}",
            f"{row['rows']:,}",
            f"{row['ids']:,}",
        ]
        memory = [f"{row['peak_mb'][name]:.0f}" if name in row["peak_mb"] else MISSING for name in functions]
        table.rows.append([f"{row['records']:,}", *figures, *memory])
    return table


def _aims(results: Results) -> Table:
    table = Table("Figures to reach", ["figure", "measured", "aim", "reached", "aim of"])
    for aim in AIMS:
        value = results["headline"][aim.key]
        reached = {True: "yes", False: "NO", None: "not measured"}[aim.reached(value)]
        bound = f"{'at least' if aim.at_least else 'at most'} {aim.limit:g}"
        table.rows.append([aim.says, MISSING if value is None else f"{value:g}", bound, reached, aim.of])
    return table


def _times(value: float, base: float) -> str:
    times = ratio(value, base)
    return f"{times:,.0f}x" if times >= 10 else f"{times:.2f}x"
