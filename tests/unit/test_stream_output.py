"""The live view and the reporter."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from lambda_esm.output import JsonLines, Reporter, table
from lambda_esm.poller import StreamPoller
from tests.unit.fake_streams import world


def drawn(*statuses: dict[str, Any]) -> str:
    console = Console(file=io.StringIO(), width=160)
    console.print(table(statuses))
    return console.file.getvalue()  # type: ignore[attr-defined, no-any-return]


def status(**shard: Any) -> dict[str, Any]:
    with StreamPoller(world(lambda _: None).clients, poll_seconds=0.001, refresh_seconds=0.01) as poller:
        assert poller.wait_until_drained(10)
        [found] = poller.status()
    found["Shards"][0] |= shard
    return found


def test_the_view_shows_shards_lag_and_what_became_of_the_records() -> None:
    given = status(lag=2_500, waiting=1_200, checkpoint="4959033827149025660855969253")
    given |= {"Deliveries": 12, "Retried": 3, "Bisects": 1, "LastProcessingResult": "OK"}
    given["Metrics"] |= {"DroppedEventCount": 4, "OnFailureDestinationDeliveredEventCount": 5}
    text = drawn(given)

    assert "consumer" in text
    assert "2.5 s" in text
    assert "1,200" in text
    assert "…855969253"[-9:] in text
    assert "12 deliveries, 3 retried, 1 bisects, 9 given up, 0 filtered" in text
    assert "OK" in text


def test_a_shard_at_its_end_has_no_lag_and_one_that_was_not_read_an_unknown_one() -> None:
    assert "none" in drawn(status(lag=0))
    assert "?" in drawn(status(lag=None))


def test_the_last_state_is_told_when_it_ends(tmp_path: Path) -> None:
    given, written, file = world(lambda _: None), io.StringIO(), tmp_path / "status.json"
    given.kinesis.put("a")
    with StreamPoller(given.clients, poll_seconds=0.001, refresh_seconds=0.01) as poller:
        lines = JsonLines(written)
        with Reporter(poller, live=False, lines=lines, status=file, seconds=3_600):
            assert poller.wait_until_drained(10)

    [line] = [json.loads(each) for each in written.getvalue().splitlines()]
    assert (line["event"], line["Metrics"]["PolledEventCount"]) == ("metrics", 1)
    assert json.loads(file.read_text())["delivered"] == 1
