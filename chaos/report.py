"""The page about a run: verdict, timeline, account, what was done, what it cost. One file, no network."""

from __future__ import annotations

from html import escape
from string import Template
from typing import TYPE_CHECKING

from chaos import chart
from chaos.journal import KINDS
from chaos.run import CHUNKS_SECONDS, CONSUMER_SECONDS, VISIBILITY_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from chaos.outcome import ChaosOutcome

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<script>window.addEventListener("error", e => { document.documentElement.dataset.error = e.message; });</script>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff; max-width: 1100px; margin: 2rem auto;
  padding: 0 1.2rem; }
h1 { font-size: 1.6rem; margin: 0 0 .3rem; }
h2 { font-size: 1.15rem; margin: 2.2rem 0 .5rem; }
.verdict { font-size: 1.1rem; border-left: 6px solid $colour; padding: .5rem .9rem; background: #f6f6f6; }
.figures { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1.2rem 0; padding: 0; list-style: none; }
.figures li { flex: 1 1 6rem; border: 1px solid #ddd; border-radius: 6px; padding: .5rem .8rem; color: #555; }
.figures b { display: block; font-size: 1.4rem; color: #222; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
th { font-weight: 600; color: #555; }
td.n, th.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(20rem, 1fr)); gap: 0 2.5rem; }
summary { cursor: pointer; }
.small { color: #555; font-size: .92rem; }
code { background: #f2f2f2; padding: .05rem .3rem; border-radius: 3px; }
</style>
</head>
<body>
<h1>The stack under fire</h1>
<p class="verdict">$verdict</p>
<ul class="figures">$figures</ul>
<h2>What happened, and when</h2>
$chart
<p class="small">Rates are over 2 seconds. Green: nothing is broken. Blue: Postgres is away. Dotted lines: between two
waves, when nothing is on the way. Point at a mark to see what was done; click a name in the legend to hide it.</p>
<div class="columns">
<section><h2>The account</h2>$account</section>
<section><h2>What it cost</h2>$cost</section>
</div>
<h2>What was done</h2>
$faults
<h2>Wave by wave</h2>
$waves
<h2>How it is done, and its limits</h2>
$limits
<details><summary>Every fault, in order ($count)</summary>$every</details>
<p class="small">Again: <code>make chaos RECORDS=$records SEED=$seed</code>. The same seed makes the same plan; a
fault is due when a share of the records is settled, so the times depend on the machine.</p>
</body>
</html>
""")


def headline(outcome: ChaosOutcome) -> str:
    """The verdict in one sentence."""
    found, total = outcome.account, sum(outcome.journal.counts().values())
    under = f"{f'under {total:,} faults' if total else 'with nothing broken'} in {outcome.seconds:,.0f} s"
    if found is None:
        return f"No account was taken: {outcome.problem or 'the run was cut short'}."
    if outcome.closes:
        return (
            f"The account closes: {found.records:,} records sent {under}, {found.rows:,} rows, each exactly once and "
            f"as it was sent; all {found.poison:,} bad records rejected, nothing lost, nothing doubled."
        )
    wrong = {
        "lost": found.lost,
        "duplicated": found.duplicated,
        "altered": found.altered,
        "under an id that nobody sent": found.unexpected,
        "wrongly rejected": found.wrongly_rejected,
        "bad records missing among the rejected": found.poison_missing,
        "said to repeat another line": found.repeated,
    }
    said = [f"{number:,} {what}" for what, number in wrong.items() if number]
    said += [f"{number:,} {what.replace('_', ' ')}" for what, number in outcome.left.items() if number]
    said += [outcome.problem] if outcome.problem else []
    what = "; ".join(said) or "the counts differ"
    return f"The account does NOT close: of {found.records:,} records sent {under}, {what}."


def page(outcome: ChaosOutcome) -> str:
    """The page as text."""
    events = outcome.journal.events
    return _PAGE.substitute(
        title=f"Oncestream under fire: {'closes' if outcome.closes else 'does NOT close'}",
        colour="#009E73" if outcome.closes else "#D55E00",
        verdict=f"<b>{'✓' if outcome.closes else '✗'}</b> {escape(headline(outcome))}",
        figures=_figures(outcome),
        chart=chart.as_html(outcome),
        account=_account(outcome),
        cost=_cost(outcome),
        faults=_faults(outcome),
        waves=_waves(outcome),
        limits=_limits(),
        count=f"{len(events):,}",
        every=_table(
            ("seconds|n", "what", ""),
            ((f"{each.seconds:,.1f}", chart.in_words(each.kind), each.what) for each in events),
        ),
        records=outcome.plan.records,
        seed=outcome.plan.seed,
    )


def write(outcome: ChaosOutcome, path: Path) -> None:
    """Write the page to ``path``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(outcome), encoding="utf-8")


def _figures(outcome: ChaosOutcome) -> str:
    found = outcome.account
    shown = [("records sent", f"{outcome.plan.records:,}")]
    if found is not None:
        shown += [
            ("rows", f"{found.rows:,}"),
            ("rejected", f"{found.rejected:,}"),
            ("lost", f"{found.lost:,}"),
            ("doubled", f"{found.duplicated:,}"),
        ]
    shown += [
        ("faults", f"{sum(outcome.journal.counts().values()):,}"),
        ("seconds", f"{outcome.seconds:,.0f}"),
    ]
    return "".join(f"<li><b>{number}</b> {name}</li>" for name, number in shown)


def _account(outcome: ChaosOutcome) -> str:
    found = outcome.account
    if found is None:
        return "<p>None was taken.</p>"
    rows = [
        ("good records sent", found.records),
        ("rows in <code>records</code>", found.rows),
        ("bad records sent", found.poison),
        ("rows in <code>rejected_records</code>", found.rejected),
        ("lost: sent, and no row", found.lost),
        ("doubled: rows more than records, by content", found.duplicated),
        ("altered: a row that is not what was sent", found.altered),
        ("unexpected: an id that nobody sent", found.unexpected),
        ("wrongly rejected", found.wrongly_rejected),
        ("bad, and not among the rejected", found.poison_missing),
        ("lines said to repeat another's id", found.repeated),
        *((name.replace("_", " "), number) for name, number in outcome.left.items()),
    ]
    return _table(("", "records|n"), ((name, f"{number:,}") for name, number in rows), raw=True)


def _cost(outcome: ChaosOutcome) -> str:
    counts = outcome.journal.counts()
    needed = (outcome.account.records + outcome.account.poison) if outcome.account else 0
    away = sum(event.lasted for event in outcome.journal.events)
    rate, lost = outcome.calm_rate, outcome.lost_seconds
    rows = [
        ("seconds, from the first record until nothing was on the way", f"{outcome.seconds:,.1f}"),
        ("records a second in the wave without faults", "not measured" if rate is None else f"{rate:,.0f}"),
        (
            "seconds of a run of as many records without faults",
            "not measured (--calm)" if outcome.calm_seconds is None else f"{outcome.calm_seconds:,.1f}",
        ),
        ("seconds lost by the faults", "not measured" if lost is None else f"{lost:,.1f}"),
        ("seconds without Postgres", f"{away:,.1f}"),
        ("records handed to the consumer", f"{outcome.delivered:,}"),
        ("of these, more than once", f"{max(0, outcome.delivered - needed):,}"),
        ("skipped as duplicates by the claim", f"{outcome.duplicates_skipped:,}"),
        ("batches delivered", f"{outcome.batches:,}"),
        ("of these, failed and retried", f"{outcome.batches_failed:,}"),
        ("delivered again after a success, on purpose", f"{counts['redelivered']:,}"),
        ("records that the caller had to send again", f"{outcome.sent_again:,}"),
        ("HTTP requests of functions through the proxy", f"{outcome.requests:,}"),
    ]
    return _table(("", "|n"), rows)


def _faults(outcome: ChaosOutcome) -> str:
    counts = outcome.journal.counts()
    rows = ((group, words, f"{counts[kind]:,}") for kind, (group, words) in KINDS.items() if counts[kind])
    return _table(("where", "what", "times|n"), rows)


def _waves(outcome: ChaosOutcome) -> str:
    rows = (
        (
            str(wave.number + 1),
            "nothing broken" if wave.calm else "under fire",
            f"{wave.records:,}",
            f"{wave.began:,.1f}",
            f"{wave.settled - wave.began:,.1f}" if wave.settled else "-",
            f"{wave.drained - wave.began:,.1f}" if wave.drained else "-",
        )
        for wave in outcome.waves
    )
    return _table(("wave", "", "records|n", "began, s|n", "settled after, s|n", "drained after, s|n"), rows)


def _limits() -> str:
    return f"""<ul>
<li>The deployed template runs in MiniStack, an emulator: one process on this machine. It is not AWS, and nothing here
says how AWS fails.</li>
<li>mitmproxy stands between the functions and MiniStack. S3, SQS and the stream poller, which are AWS's side, talk to
MiniStack directly.</li>
<li>The stream is resharded between waves only, when it is drained and nobody writes: MiniStack deletes the parents of
a reshard with the records that nobody has read yet, where Kinesis keeps them.</li>
<li>A killed process leaves claims behind that are valid for as long as its invocation might have taken. So that a run
takes minutes, the consumer's timeout is {CONSUMER_SECONDS} s here (template: 120 s), that of the chunk function
{CHUNKS_SECONDS} s (300 s), and a chunk job comes back after {VISIBILITY_SECONDS} s (330 s).</li>
<li>Every record is known by its id and a digest of its content; the account compares these, not counts.</li>
</ul>"""


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], *, raw: bool = False) -> str:
    """An HTML table. A heading that ends in ``|n`` is that of a column of numbers."""
    numeric = [name.endswith("|n") for name in head]
    names = [name.removesuffix("|n") for name in head]

    def cells(tag: str, texts: Sequence[str], *, plain: bool) -> str:
        return "".join(
            f"<{tag}{' class=n' if is_number else ''}>{text if plain else escape(text)}</{tag}>"
            for text, is_number in zip(texts, numeric, strict=True)
        )

    body = "".join(f"<tr>{cells('td', row, plain=raw)}</tr>" for row in rows)
    return f"<table><thead><tr>{cells('th', names, plain=False)}</tr></thead><tbody>{body}</tbody></table>"
