"""The page about a run of `make chaos`: what it says, and that it needs no network."""

from __future__ import annotations

import re
from html import unescape

import pytest

from chaos import chart, report
from chaos.journal import KINDS, Journal, Sample
from tests.chaos_outcome import events, outcome


@pytest.fixture(scope="module")
def page() -> str:
    return report.page(outcome())


def test_the_headline_says_that_the_account_closes() -> None:
    said = report.headline(outcome())
    assert said.startswith("The account closes: 100,000 records sent under ")
    assert "100,000 rows, each exactly once" in said
    assert "nothing lost, nothing doubled" in said


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (outcome(lost=3), "does NOT close: .* 3 lost"),
        (
            outcome(problem="after 600 s, 9 records of 10 were not settled"),
            "does NOT close: .* 9 records of 10",
        ),
    ],
)
def test_the_headline_says_what_is_wrong(broken: object, said: str) -> None:
    assert re.search(said, report.headline(broken))  # type: ignore[arg-type]  # both are outcomes


def test_a_calm_run_says_so() -> None:
    calm = outcome()
    calm.journal = Journal()
    assert "100,000 records sent with nothing broken in 120 s" in report.headline(calm)


def test_a_run_that_was_cut_short_has_no_account() -> None:
    cut = outcome(problem="MiniStack ended")
    cut.account = None
    assert not cut.closes
    assert report.headline(cut) == "No account was taken: MiniStack ended."
    assert "No account was taken" in report.page(cut)


def test_what_was_given_up_keeps_the_account_open() -> None:
    given_up = outcome()
    given_up.left["dead_letters"] = 1
    assert not given_up.closes
    assert "1 dead letters" in report.headline(given_up)


def test_the_page_loads_nothing_from_elsewhere(page: str) -> None:
    tags = re.findall(r"<(?:script|link|img|iframe)\b[^>]*>", page)
    assert tags
    assert not [tag for tag in tags if "src=" in tag or "href=" in tag]


def test_every_kind_of_fault_is_named_with_its_number(page: str) -> None:
    counts = outcome().journal.counts()
    text = unescape(page)
    for kind, (_, words) in KINDS.items():
        assert f"<td>{words}</td><td class=n>{counts[kind]}</td>" in text


def test_what_others_wrote_is_escaped(page: str) -> None:
    listed = page[page.index("Every fault, in order") :]
    assert "&lt;killed&gt; &amp; number 0" in listed
    assert "<killed>" not in listed


def test_the_cost_is_what_a_run_without_faults_did_not_take() -> None:
    measured = outcome()
    measured.calm_seconds = 100.0
    assert measured.lost_seconds == 20.0
    by_the_calm_wave = outcome()
    assert by_the_calm_wave.lost_seconds == pytest.approx(63 - 56)


def test_the_result_line_has_what_was_asked_for() -> None:
    line = outcome().to_json()
    assert {
        "records",
        "rows",
        "rejected",
        "lost",
        "duplicated",
        "delivered",
        "faults",
        "seconds",
    } <= line.keys()
    assert line["exact"] is True
    assert set(line["faults"]) == set(KINDS)


def test_rates_are_over_a_window() -> None:
    samples = [Sample(seconds, 0, 0, 0, True) for seconds in (0.0, 0.5, 1.0, 2.0, 2.5, 4.0)]
    assert chart.rates(samples, [0, 10, 20, 40, 50, 100]) == ([1.0, 3.0], [20.0, 30.0])


def test_a_lane_for_each_kind_that_happened() -> None:
    assert chart.lanes(events()) == list(reversed(KINDS))
    assert chart.lanes([event for event in events() if event.kind == "late"]) == ["late"]


def test_the_chart_has_its_axes_named_and_every_fault_marked() -> None:
    drawn = chart.figure(outcome())
    titles = [drawn.layout[axis].title.text for axis in ("yaxis", "yaxis2", "xaxis3")]
    assert titles == ["records a second", "records", "seconds after the first record was sent"]
    marks = sum(len(trace.x) for trace in drawn.data if trace.mode == "markers")
    assert marks == len(events())


def test_a_chart_of_nothing_can_be_drawn() -> None:
    empty = outcome()
    empty.samples, empty.waves = [], []
    empty.journal = Journal()
    assert len(chart.figure(empty).data) == 3
