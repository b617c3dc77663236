"""The two charts of the README, as SVG. The same results give the same bytes."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from bench.consumer import HEADLINE, fate_of_duplicates
from bench.contestants import CONTESTANTS
from bench.headline import Results, find
from bench.producer import PRODUCERS, SHARDS

OURS, RIGHT, PARTLY, WRONG, LIMIT = "#0b6e4f", "#3f7fae", "#a9c3d6", "#d98c5f", "#888888"


def consumer(results: Results, path: Path) -> None:
    """Milliseconds a batch of each contestant, on a logarithmic axis, coloured by what deliveries repeated do."""
    bars = []
    for contestant in CONTESTANTS:
        fresh = find(results["consumer"], contestant=contestant.name, case="fresh", **HEADLINE.setting)
        if fresh:
            bars.append((fresh["wall_ms"], contestant.label, _colour(results, contestant.name)))
    bars.sort(reverse=True)
    figure = Figure(figsize=(8.6, 0.42 * len(bars) + 1.5), layout="constrained")
    axes = figure.subplots()
    drawn = axes.barh(
        [label for _, label, _ in bars], [wall for wall, _, _ in bars], color=[bar[2] for bar in bars]
    )
    axes.bar_label(drawn, labels=[f" {wall:,.0f} ms" for wall, _, _ in bars])
    axes.set_xscale("log")
    axes.set_xlim(min(bar[0] for bar in bars) / 2, max(bar[0] for bar in bars) * 4)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("ms for a batch of 1,000 records, 5 ms added to each DynamoDB call (logarithmic)")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(
        handles=[
            Patch(color=OURS, label="Oncestream: each record once, also when killed half way"),
            Patch(color=RIGHT, label="each record once, also when killed half way"),
            Patch(color=PARTLY, label="once when delivered again; lost or doubled when killed"),
            Patch(color=WRONG, label="stored twice, or failing, when delivered again"),
        ],
        loc="upper center",
        bbox_to_anchor=(0.35, -0.15),
        ncols=2,
        frameon=False,
        fontsize=8.5,
    )
    _save(figure, path)


def _colour(results: Results, contestant: str) -> str:
    if contestant == "ours":
        return OURS
    again = find(results["consumer"], contestant=contestant, case="duplicates", **HEADLINE.setting)
    if again is None or fate_of_duplicates(again) != "exactly once":
        return WRONG
    killed = [row for row in results["crashes"] if row["contestant"] == contestant]
    return RIGHT if all(row["rows"] == row["ids"] == row["sent"] for row in killed) else PARTLY


def producer(results: Results, path: Path) -> None:
    """Records a second of each producer against the number of shards, beside the shards' limit."""
    figure = Figure(figsize=(8.6, 4.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(
        SHARDS, [1000 * shards for shards in SHARDS], color=LIMIT, linestyle=":", label="the shards' limit"
    )
    for (name, (label, _)), colour in zip(PRODUCERS.items(), (OURS, WRONG, RIGHT), strict=True):
        rows = [
            find(results["producer"], producer=name, dataset="flights", shards=shards) for shards in SHARDS
        ]
        speeds = [row["records_per_second"] for row in rows if row]
        axes.plot(SHARDS, speeds, color=colour, marker="o", label=label)
    axes.set_xticks(SHARDS)
    axes.set_xlabel("shards")
    axes.set_ylabel("records a second")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    # Text stays text; ids are hashed with a fixed salt and no date is written, so that only figures make a difference.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "oncestream", "font.family": "sans-serif"}):
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
