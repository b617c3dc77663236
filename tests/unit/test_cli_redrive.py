"""``once redrive``: it shows, it asks, and only then it does anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer, IdempotencyConfig
from typer.testing import CliRunner

from cli import main
from cli import redrive as module
from cli.redrive import Done, Found, job_key
from uploads import chunks


class Redriver:
    """Has three rejected records and no more."""

    ran: list[str]
    left: list[str]

    def __init__(self, *_: Any) -> None:
        pass

    def find(self, what: module.What, upload: str | None = None) -> Found:
        count = 3 if what == "rejected" else 0
        return Found(what, count, [f"{count} of {what}, upload {upload}"])

    def run(self, what: module.What, upload: str | None = None) -> Done:
        type(self).ran.append(f"{what} {upload}")
        return Done(3, self.left)


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setattr(module, "Redriver", Redriver)
    monkeypatch.setattr(main.target, "find", lambda stack: stack)
    monkeypatch.setattr(main, "Reports", lambda target: target)
    Redriver.ran = []
    Redriver.left = []
    return Redriver.ran


def once(*arguments: str, answer: str = "") -> Any:
    return CliRunner().invoke(main.app, ["redrive", *arguments], input=answer)


def test_it_shows_what_there_is_and_does_nothing_without_a_yes(ran: list[str]) -> None:
    for answer in ("n\n", ""):
        result = once(answer=answer)
        assert "3 of rejected" in result.output
        assert "discarded" not in result.output
        assert ran == []


def test_a_yes_sends_what_was_shown_and_no_more(ran: list[str]) -> None:
    assert once(answer="y\n").exit_code == 0
    assert ran == ["rejected None"]


def test_an_upload_goes_with_rejected_only(ran: list[str]) -> None:
    assert once("rejected", "--upload", "u", "--yes").exit_code == 0
    assert ran == ["rejected u"]
    assert once("chunks", "--upload", "u", "--yes").exit_code == 2
    assert once("--upload", "u", "--yes").exit_code == 2


def test_nothing_is_nothing(ran: list[str]) -> None:
    result = once("chunks", "--yes")
    assert (result.exit_code, result.output, ran) == (0, "Nothing is set aside.\n", [])


def test_what_is_left_is_named_and_is_no_success(ran: list[str]) -> None:
    Redriver.left = ["r1: refused"]
    result = once("--yes", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout) == {"rejected": {"found": 3, "sent": 3, "left": ["r1: refused"]}}
    assert "r1: refused" in result.stderr
    assert ran == ["rejected None"]


def test_the_key_of_a_job_is_the_one_that_powertools_makes() -> None:
    layer = DynamoDBPersistenceLayer("table")
    layer.configure(
        IdempotencyConfig(event_key_jmespath="job", hash_function="sha256"), key_prefix=chunks.KEY_PREFIX
    )
    assert layer._get_hashed_idempotency_key({"job": "u:0"}) == job_key("u:0")
