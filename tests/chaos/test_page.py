"""The page of `make chaos` in a browser: its chart is drawn, by its own script."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from chaos import chart, report
from tests.chaos_outcome import events, outcome

TRACE = re.compile(r'class="trace scatter\b')
MARK = re.compile(r'<path class="point"')


def test_the_chart_is_drawn(browse: Callable[[Path], str], tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    report.write(outcome(), page)
    shown = browse(page)
    assert "data-error" not in shown[: shown.index("<head>")], "a script of the page failed"
    assert len(TRACE.findall(shown)) == len(chart.figure(outcome()).data)
    assert len(MARK.findall(shown)) == len(events())


def test_a_script_that_fails_is_seen(browse: Callable[[Path], str], tmp_path: Path) -> None:
    """What the other test looks for is there when something is wrong."""
    page = tmp_path / "broken.html"
    page.write_text(report.page(outcome()).replace("Plotly.newPlot(", "Plotly.noSuchFunction("))
    shown = browse(page)
    assert "data-error" in shown[: shown.index("<head>")]
    assert not TRACE.findall(shown)
