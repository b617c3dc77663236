"""The timeline: throughput, backlog and faults over one axis of time, drawn by Plotly."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from plotly import graph_objects
from plotly.io import to_html
from plotly.subplots import make_subplots

from chaos import journal
from chaos.journal import KINDS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chaos.journal import JournalEvent, Sample
    from chaos.outcome import ChaosOutcome

WINDOW_SECONDS = 2.0
"""Rates are over so long: batches of a thousand rows arrive at once."""
LANE_PIXELS = 24
CHART_ID = "timeline"

# Okabe and Ito's palette, which colour-blind people can tell apart; the symbols tell the groups apart as well.
_GROUPS = {
    journal.FUNCTIONS: ("#D55E00", "x"),
    journal.POSTGRES: ("#0072B2", "square"),
    journal.WIRE: ("#E69F00", "circle"),
    journal.STREAM: ("#009E73", "star"),
    journal.REPEATS: ("#CC79A7", "diamond"),
}
_SETTLED, _DELIVERED, _BACKLOG = "#222222", "#56B4E9", "#666666"
_TITLES = ("Throughput", "Backlog: sent, and not yet settled", "Faults")
_CALM, _AWAY = "rgba(0, 158, 115, 0.09)", "rgba(0, 114, 178, 0.16)"


def rates(
    samples: Sequence[Sample], numbers: Sequence[int], window: float = WINDOW_SECONDS
) -> tuple[list[float], list[float]]:
    """How fast ``numbers`` grew, one of which belongs to each sample: middles of spans, rates a second. Pure."""
    times, values = [], []
    first = 0
    for last in range(1, len(samples)):
        passed = samples[last].seconds - samples[first].seconds
        if passed >= window:
            times.append((samples[last].seconds + samples[first].seconds) / 2)
            values.append((numbers[last] - numbers[first]) / passed)
            first = last
    return times, values


def lanes(events: Sequence[JournalEvent]) -> list[str]:
    """The kinds that happened, from the bottom of the chart to its top. Pure."""
    happened = {event.kind for event in events}
    return [kind for kind in reversed(KINDS) if kind in happened]


def figure(outcome: ChaosOutcome) -> graph_objects.Figure:
    """The chart of a run."""
    samples, events = outcome.samples, outcome.journal.events
    rows = lanes(events)
    heights = [230, 170, LANE_PIXELS * max(len(rows), 2) + 10]
    drawn = make_subplots(
        rows=3,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.045,
        row_heights=heights,
        subplot_titles=_TITLES,
    )
    for name, numbers, colour, width in (
        ("delivered to the consumer, repeats counted", [each.delivered for each in samples], _DELIVERED, 1.5),
        ("settled in Postgres", [each.settled for each in samples], _SETTLED, 2),
    ):
        times, values = rates(samples, numbers)
        drawn.add_scatter(
            x=times,
            y=values,
            name=name,
            mode="lines",
            line={"color": colour, "width": width},
            hovertemplate="%{y:,.0f} records/s<extra>" + name + "</extra>",
            row=1,
            col=1,
        )
    drawn.add_scatter(
        x=[each.seconds for each in samples],
        y=[max(0, each.sent - each.settled) for each in samples],
        name="backlog",
        mode="lines",
        line={"color": _BACKLOG, "width": 1.5, "shape": "hv"},
        fill="tozeroy",
        fillcolor="rgba(102, 102, 102, 0.18)",
        hovertemplate="%{y:,} records<extra>backlog</extra>",
        row=2,
        col=1,
    )
    _add_faults(drawn, events)
    _add_bands(drawn, outcome)
    _lay_out(drawn, rows, sum(heights))
    return drawn


def as_html(outcome: ChaosOutcome) -> str:
    """The chart as a piece of a page, with Plotly's script in it."""
    return str(
        to_html(
            figure(outcome),
            include_plotlyjs=True,
            full_html=False,
            div_id=CHART_ID,
            config={"displaylogo": False, "responsive": True},
        )
    )


def _add_faults(drawn: graph_objects.Figure, events: Sequence[JournalEvent]) -> None:
    for group, (colour, symbol) in _GROUPS.items():
        shown = [event for event in events if KINDS[event.kind][0] == group]
        if not shown:
            continue
        drawn.add_scatter(
            x=[event.seconds for event in shown],
            y=[in_words(event.kind) for event in shown],
            text=[event.what for event in shown],
            name=group,
            mode="markers",
            marker={"color": colour, "symbol": symbol, "size": 9, "line": {"width": 0.5, "color": "white"}},
            hovertemplate="%{x:.1f} s: %{y}<br>%{text}<extra></extra>",
            row=3,
            col=1,
        )


def _add_bands(drawn: graph_objects.Figure, outcome: ChaosOutcome) -> None:
    for wave in outcome.waves:
        if wave.calm and wave.drained:
            for row in (1, 2, 3):
                drawn.add_vrect(
                    x0=wave.began,
                    x1=wave.drained,
                    fillcolor=_CALM,
                    line_width=0,
                    layer="below",
                    row=row,
                    col=1,
                )
            # In the row of the faults, where nothing is drawn then.
            drawn.add_annotation(
                x=(wave.began + wave.drained) / 2,
                y=0.5,
                xref="x3",
                yref="y3 domain",
                text="nothing is broken",
                showarrow=False,
                font={"color": "#00664b"},
            )
    for one, other in pairwise(outcome.waves):
        drawn.add_vline(
            x=(one.drained + other.began) / 2, line={"color": "#bbbbbb", "width": 1, "dash": "dot"}
        )
    for event in outcome.journal.events:
        if event.lasted:
            for row in (1, 2):
                drawn.add_vrect(
                    x0=event.seconds,
                    x1=event.seconds + event.lasted,
                    fillcolor=_AWAY,
                    line_width=0,
                    layer="below",
                    row=row,
                    col=1,
                )


def _lay_out(drawn: graph_objects.Figure, rows: Sequence[str], height: int) -> None:
    drawn.update_layout(
        template="simple_white",
        height=height + 190,
        margin={"l": 10, "r": 20, "t": 90, "b": 50},
        font={"family": "system-ui, sans-serif", "size": 13},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.05, "x": 0},
        hovermode="closest",
    )
    drawn.update_xaxes(showgrid=True, gridcolor="#eeeeee", zeroline=False)
    drawn.update_xaxes(title_text="seconds after the first record was sent", row=3, col=1)
    drawn.update_yaxes(automargin=True, rangemode="tozero")
    drawn.update_yaxes(title_text="records a second", tickformat=",d", row=1, col=1)
    drawn.update_yaxes(title_text="records", tickformat=",d", row=2, col=1)
    names = [in_words(kind) for kind in rows]
    drawn.update_yaxes(
        categoryorder="array",
        categoryarray=names,
        range=[-0.7, max(len(rows), 1) - 0.3],
        showgrid=True,
        gridcolor="#eeeeee",
        row=3,
        col=1,
    )
    for title in drawn.layout.annotations:  # those of the rows go to the left, over their axes
        if title.text in _TITLES:
            title.update(x=0, xanchor="left", font={"size": 13}, text=f"<b>{title.text}</b>")


def in_words(kind: str) -> str:
    """A kind of fault as a label."""
    return kind.replace("_", " ")
