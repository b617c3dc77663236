"""The command line, as far as it goes without a server."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from lambda_esm.cli import main

app = typer.Typer()
app.command()(main)
GOOD = {
    "EventSourceArn": "arn:aws:kinesis:us-east-1:000000000000:stream/records",
    "FunctionName": "consumer",
    "StartingPosition": "TRIM_HORIZON",
}


def run(*arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["--endpoint", "http://127.0.0.1:1", *arguments])
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
    ):
        assert option in output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--mapping", "{"], "--mapping"),
        (["--mapping", "[]"], "not a JSON object"),
        (["--mapping", "@/no/such/file"], "No such file"),
        (["--mapping", json.dumps(GOOD | {"BatchSize": 0})], "BatchSize is 0"),
        (["--mapping", json.dumps(GOOD), "--invoke-as", "consumer"], "DEPLOYED=OTHER"),
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
