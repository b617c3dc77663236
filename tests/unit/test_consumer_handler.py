"""The consumer function as Lambda sees it: events in, partial batch responses, log lines and metrics out."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import EventType
from pydantic import ValidationError

from common import clients
from common.errors import PermanentError
from common.observability import logger
from consumer import handler as consumer
from consumer.report import SHOWN
from oncestream.processor import SinkProcessor
from tests.unit.consumer_support import Context, FakeIdempotency, FakeSink, message, stream_event
from tests.unit.uploads_aws import moto_aws
from uploads.ledger import Ledger

pytestmark = pytest.mark.filterwarnings("ignore:No application metrics to publish")

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("POWERTOOLS_METRICS_NAMESPACE", "Oncestream")
    monkeypatch.setenv("POWERTOOLS_SERVICE_NAME", "consumer")
    make_processor = consumer._processor
    make_processor.cache_clear()
    yield
    make_processor.cache_clear()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> tuple[FakeIdempotency, FakeSink]:
    """The handler's processor works on these."""
    idempotency, sink = FakeIdempotency(), FakeSink()
    processor = SinkProcessor(EventType.KinesisDataStreams, idempotency, sink)
    monkeypatch.setattr(consumer, "_processor", lambda: processor)
    return idempotency, sink


def invoke(event: Any, capsys: pytest.CaptureFixture[str]) -> tuple[Any, list[dict[str, Any]]]:
    """The function's answer and its log, metrics included, as JSON objects."""
    capsys.readouterr()
    # The logger writes to what was standard output when it was made; metrics are printed.
    output = logger.registered_handler
    assert isinstance(output, logging.StreamHandler)
    before = output.setStream(sys.stdout)
    try:
        answer = consumer.handler(event, Context())
    finally:
        output.setStream(before)
    return answer, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def entries(log: list[dict[str, Any]], text: str) -> list[dict[str, Any]]:
    return [line for line in log if line.get("message") == text]


def test_the_counts_are_exact_metrics_and_add_up(
    world: tuple[FakeIdempotency, FakeSink], capsys: pytest.CaptureFixture[str]
) -> None:
    idempotency, _ = world
    idempotency.completed, idempotency.held = {"old"}, {"busy"}
    event = stream_event(
        *(message("a"), message("a"), message("b"), message("old"), message("busy"), message("busy")),
        *(b"poison", b"poison", b"other poison"),
        message("refused", {"refuse": 1}),
    )
    answer, log = invoke(event, capsys)
    assert [item["itemIdentifier"] for item in answer["batchItemFailures"]] == ["5", "6"]
    [metrics] = [line for line in log if "_aws" in line]
    counts = {
        name: sum(metrics[name])
        for name in (
            "RecordsReceived",
            "RecordsInserted",
            "DuplicatesSkipped",
            "RecordsRejected",
            "RecordsRetried",
        )
    }
    assert counts == {
        "RecordsReceived": 10,
        "RecordsInserted": 2,
        "DuplicatesSkipped": 3,
        "RecordsRejected": 3,
        "RecordsRetried": 2,
    }
    [done] = entries(log, "Batch done")
    assert (done["received"], done["inserted"], done["duplicate"], done["rejected"], done["retried"]) == (
        *(10, 2),
        *(3, 3, 2),
    )


def test_duplicates_are_named_in_one_line_of_bounded_length(
    world: tuple[FakeIdempotency, FakeSink], capsys: pytest.CaptureFixture[str]
) -> None:
    idempotency, _ = world
    idempotency.completed = {str(number) for number in range(SHOWN + 5)}
    _, log = invoke(stream_event(*(message(str(number)) for number in range(SHOWN + 5))), capsys)
    [skipped] = entries(log, "Duplicate skipped")
    assert skipped["count"] == SHOWN + 5
    assert skipped["ids"] == [str(number) for number in range(SHOWN)]


def test_each_rejection_is_a_warning_with_reason_and_place_up_to_a_bound(
    world: tuple[FakeIdempotency, FakeSink], capsys: pytest.CaptureFixture[str]
) -> None:
    _, log = invoke(stream_event(*(b"poison %d" % number for number in range(SHOWN + 5))), capsys)
    rejected = entries(log, "Record rejected")
    assert len(rejected) == SHOWN
    assert rejected[1]["level"] == "WARNING"
    assert rejected[1]["sequence_number"] == "2"
    assert rejected[1]["reason"].startswith("not JSON")
    assert entries(log, "More records rejected")[0]["count"] == 5


def test_why_records_are_retried_is_said_once_for_all_of_them(
    world: tuple[FakeIdempotency, FakeSink], capsys: pytest.CaptureFixture[str]
) -> None:
    _, sink = world
    sink.down = True
    _, log = invoke(stream_event(message("a"), message("b"), b"poison"), capsys)
    [line] = entries(log, "Records will be retried")
    assert (line["count"], line["reason"]) == (3, "Postgres at db:5432: Connection refused")


@pytest.fixture
def ledger(monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    """The ledger, into which the consumer notes why records wait."""
    caches: list[Any] = [clients.dynamodb_for_notes, consumer._waiting]
    with moto_aws() as aws:
        monkeypatch.setenv("LEDGER_TABLE", aws.table)
        for each in caches:
            each.cache_clear()
        yield aws.ledger
    for each in caches:
        each.cache_clear()


def test_why_records_wait_is_noted_until_a_batch_is_settled(
    world: tuple[FakeIdempotency, FakeSink], ledger: Ledger, capsys: pytest.CaptureFixture[str]
) -> None:
    _, sink = world
    sink.down = True
    invoke(stream_event(message("a")), capsys)
    [note] = ledger.waiting()
    assert (note.function, note.reason) == ("consumer", "Postgres at db:5432: Connection refused")
    sink.down = False
    invoke(stream_event(message("a")), capsys)
    assert ledger.waiting() == []


def test_an_invocation_that_fails_is_noted_without_what_it_says(
    ledger: Ledger, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise ZeroDivisionError("a secret of a record")

    monkeypatch.setattr(consumer, "_processor", broken)
    with pytest.raises(ZeroDivisionError):
        invoke(stream_event(message("a")), capsys)
    [note] = ledger.waiting()
    assert note.reason == "it fails with ZeroDivisionError, which is no outage: see its log"


def test_a_ledger_that_is_away_does_not_matter(
    world: tuple[FakeIdempotency, FakeSink],
    ledger: Ledger,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LEDGER_TABLE", "nowhere")
    _, sink = world
    sink.down = True
    answer, log = invoke(stream_event(message("a")), capsys)
    assert len(answer["batchItemFailures"]) == 1
    assert len(entries(log, "Not noted why it waits")) == 1


@pytest.mark.parametrize(
    "event",
    [
        {},
        [],
        {"Records": []},
        {"Records": {}},
        {"Records": ["x"]},
        {"Records": [{"eventSource": "aws:sqs", "body": "{}"}]},
        {"records": [{"id": "a"}]},
    ],
    ids=str,
)
def test_an_event_that_is_not_of_a_kinesis_stream_is_refused(event: Any) -> None:
    with pytest.raises(PermanentError, match="not an event of a Kinesis stream"):
        consumer.handler(event, Context())


def test_a_missing_setting_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_HOST", "db")
    for name in ("DATABASE_NAME", "DATABASE_USER", "IDEMPOTENCY_TABLE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValidationError, match="IDEMPOTENCY_TABLE"):
        consumer.handler(stream_event(message("a")), Context())


def test_importing_the_function_opens_nothing_and_leaves_the_parsers_models_out() -> None:
    script = (
        "import socket, sys\n"
        "def refuse(*_): raise AssertionError('network at import')\n"
        "socket.socket.connect = refuse\n"
        "import consumer.handler\n"
        "print('aws_lambda_powertools.utilities.parser' in sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        cwd=SOURCE,
        env={"PATH": "", "POWERTOOLS_TRACE_DISABLED": "true"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (run.stdout, run.returncode) == ("False\n", 0), run.stderr


def test_of_a_tumbling_window_the_state_is_handed_back_as_it_came(
    world: tuple[FakeIdempotency, FakeSink], capsys: pytest.CaptureFixture[str]
) -> None:
    window = {
        "window": {"start": "2020-12-09T07:04:00Z", "end": "2020-12-09T07:06:00Z"},
        "shardId": "shardId-000000000006",
        "isFinalInvokeForWindow": False,
    }
    event = stream_event(message("a")) | window | {"state": {"1": 282}}
    assert invoke(event, capsys)[0] == {"batchItemFailures": [], "state": {"1": 282}}
    last = window | {"Records": [], "state": {"1": 282}, "isFinalInvokeForWindow": True}
    assert invoke(last, capsys)[0] == {"batchItemFailures": [], "state": {"1": 282}}
    assert invoke(stream_event(message("b")) | window, capsys)[0] == {"batchItemFailures": [], "state": {}}
    assert "state" not in invoke(stream_event(message("c")), capsys)[0]
