"""The command line, as far as it goes without a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import boto3
import pytest
from moto import mock_aws
from typer.testing import CliRunner

from lambda_esm.cli import app
from tests.unit.stream_records import STREAM_ARN

GOOD = {
    "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/records",
    "FunctionName": "consumer",
    "StartingPosition": "TRIM_HORIZON",
}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env={"TERMINAL_WIDTH": "200"}).invoke(
        app, ["--endpoint", "http://127.0.0.1:1", *arguments]
    )
    return result.exit_code, re.sub(r"[\s│]+", " ", result.output)


def test_help_names_every_option() -> None:
    status, output = run("--help")

    assert status == 0
    for option in (
        "--endpoint",
        "--function",
        "--mapping",
        "--lambda-endpoint",
        "--checkpoints",
        "--until-drained",
        "--template",
        "--stream",
        "--function-url",
        "--handler",
        "--take-over",
        "--json",
        "--status",
    ):
        assert option in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mapping", "{"], "--mapping"),
        (["--mapping", "[]"], "not a JSON object"),
        (["--mapping", "@/no/such/file"], "No such file"),
        (["--mapping", json.dumps(GOOD | {"BatchSize": 0})], "BatchSize is 0"),
        (["--mapping", json.dumps(GOOD), "--invoke-as", "consumer"], "NAME=VALUE"),
        (["--endpoint", "kinesys=http://127.0.0.1:1"], "kinesys: not one of kinesis"),
        (["--handler", "no_such_module:f"], "no_such_module:f cannot be imported"),
        (["--handler", "handler"], "MODULE:FUNCTION"),
        (["--handler", "m:f", "--function-url", "http://127.0.0.1:1"], "not both"),
    ],
)
def test_a_wrong_option_is_named(arguments: list[str], complaint: str) -> None:
    status, output = run(*arguments)

    assert status == 2
    assert complaint in output


def test_a_checkpoint_file_of_something_else_is_named(tmp_path: Path) -> None:
    path = tmp_path / "positions"
    path.write_text("{")
    status, output = run("--checkpoints", str(path))

    assert status == 2
    assert "does not hold checkpoints" in output


def test_not_drained_in_time_is_status_one(tmp_path: Path) -> None:
    path = tmp_path / "mapping.json"
    path.write_text(json.dumps(GOOD))

    assert run("--mapping", f"@{path}", "--until-drained", "--timeout", "0.05")[0] == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--template", "/no/such/file"], "is not a SAM or CloudFormation template"),
        (["--stream", STREAM_ARN, "--maximum-record-age", "5"], "or 60 and more"),
        (["--stream", STREAM_ARN, "--on-failure", "kafka://t"], "Kafka topic"),
    ],
)
def test_what_cannot_be_run_is_status_two(
    arguments: list[str], complaint: str, caplog: pytest.LogCaptureFixture
) -> None:
    status, _ = run(*arguments)

    assert status == 2
    assert complaint in caplog.text


def test_the_last_line_of_json_has_the_totals(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "json_app.py").write_text(
        "def handler(event, context):\n    if any(r['kinesis']['partitionKey'] == 'bad' for r in event['Records']):\n"
        "        raise ValueError('bad')\n"
    )
    status_file = tmp_path / "status.json"
    with mock_aws():
        kinesis = boto3.client("kinesis", region_name="us-east-1")
        kinesis.create_stream(StreamName="orders", ShardCount=1)
        for key, data in (("a", '{"n": 1}'), ("bad", '{"n": 1}'), ("b", '{"n": 2}')):
            kinesis.put_record(StreamName="orders", PartitionKey=key, Data=data)
        result = CliRunner().invoke(
            app,
            [
                *("--stream", "orders", "--handler", "json_app:handler", "--until-drained", "--json"),
                *("--batch-size", "1", "--maximum-retries", "1", "--filter", '{"data": {"n": [1]}}'),
                *("--retry-delay", "0", "--status", str(status_file), "--poll", "0.01"),
            ],
        )

    assert result.exit_code == 0, result.output
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    end = {"delivered": 1, "retried": 1, "discarded": 1, "filtered": 1}
    assert lines[-1] == {"event": "end"} | end | {"problem": None}
    assert [line["outcome"] for line in lines if line["event"] == "delivery"] == [
        "answered", "function failed", "function failed",
    ]  # fmt: skip
    [discard] = [line for line in lines if line["event"] == "discard"]
    assert (discard["condition"], discard["records"]) == ("RetryAttemptsExhausted", 1)
    told = json.loads(status_file.read_text())
    assert {name: told[name] for name in end} == end
    [mapping] = told["Mappings"]
    assert mapping["Metrics"]["DroppedEventCount"] == 1
    assert [line["UUID"] for line in lines if line["event"] == "metrics"][-1:] == [mapping["UUID"]]
