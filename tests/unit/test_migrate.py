"""Migrations: the files, and the custom resource that tells CloudFormation how it went."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from common.errors import TransientError
from postgres import migrate
from postgres.migrate import MigrationError, handler, migrations
from tests.unit.cloudformation import long_form
from tests.unit.consumer_support import Context


def test_the_files_are_numbered_without_gaps() -> None:
    versions = [migration.version for migration in migrations()]
    assert versions == [f"{number:04d}" for number in range(1, len(versions) + 1)]


def test_the_template_asks_for_them_anew_with_every_change_of_the_code() -> None:
    # CloudFormation runs the resource again only when a property changes. SAM gives the function's version another
    # name when its code is another (docs.aws.amazon.com/serverless-application-model, "AutoPublishAlias").
    resources = long_form()["Resources"]
    assert resources["Migrations"]["Properties"]["Code"] == {"Ref": "MigrateFunction.Version"}
    assert resources["MigrateFunction"]["Properties"]["AutoPublishAlias"]


def test_migrations_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for name in ("0010_ten.sql", "0002_two.sql", "0001_one.sql", "README.md"):
        (tmp_path / name).write_text("")
    assert [(each.version, each.name) for each in migrations(tmp_path)] == [
        ("0001", "0001_one"),
        ("0002", "0002_two"),
        ("0010", "0010_ten"),
    ]


class CloudFormation:
    """Takes the answers of custom resources; ``statuses`` are what it says to each of them."""

    def __init__(self) -> None:
        self.answers: list[dict[str, Any]] = []
        self.content_types: list[str | None] = []
        self.statuses = [200]
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                assert len(body) <= 4096
                outer.answers.append(json.loads(body))
                outer.content_types.append(self.headers["Content-Type"])
                self.send_response(outer.statuses.pop(0) if len(outer.statuses) > 1 else outer.statuses[0])
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def event(self, request: str, **more: Any) -> dict[str, Any]:
        return {
            "RequestType": request,
            "ResponseURL": f"http://127.0.0.1:{self.server.server_port}/answer?signature=s",
            "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/oncestream/1",
            "RequestId": "request-1",
            "LogicalResourceId": "Migrations",
            "ResourceType": "Custom::Migrations",
            **more,
        }


@pytest.fixture
def cloudformation() -> Iterator[CloudFormation]:
    stand_in = CloudFormation()
    stand_in.thread.start()
    yield stand_in
    stand_in.server.shutdown()
    stand_in.thread.join()
    stand_in.server.server_close()


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What migrating does: returns or raises the last element. Every run appends "ran" in front of it."""
    steps: list[Any] = [["0001_records"]]

    def run(_context: Any) -> Any:
        steps.insert(0, "ran")
        if isinstance(steps[-1], Exception):
            raise steps[-1]
        return steps[-1]

    monkeypatch.setattr(migrate, "_run", run)
    return steps


def test_create_and_update_migrate_and_succeed(cloudformation: CloudFormation, outcome: list[Any]) -> None:
    handler(cloudformation.event("Create"), Context())
    handler(cloudformation.event("Update", PhysicalResourceId="what-create-said"), Context())
    assert outcome[:2] == ["ran", "ran"]
    first, second = cloudformation.answers
    assert first == {
        "Status": "SUCCESS",
        "Reason": "done",
        "PhysicalResourceId": migrate.PHYSICAL_ID,
        "StackId": "arn:aws:cloudformation:us-east-1:123456789012:stack/oncestream/1",
        "RequestId": "request-1",
        "LogicalResourceId": "Migrations",
    }
    assert second["PhysicalResourceId"] == "what-create-said"
    assert cloudformation.content_types == ["", ""]


def test_delete_keeps_the_tables_and_succeeds(cloudformation: CloudFormation, outcome: list[Any]) -> None:
    handler(cloudformation.event("Delete", PhysicalResourceId="p"), Context())
    assert "ran" not in outcome
    assert cloudformation.answers[0]["Status"] == "SUCCESS"


@pytest.mark.parametrize(
    "error",
    [
        MigrationError("migration 0002_x: syntax error"),
        TransientError("cannot connect to Postgres at db:5432"),
    ],
    ids=str,
)
def test_a_failure_is_answered_with_its_reason(
    cloudformation: CloudFormation, outcome: list[Any], error: Exception
) -> None:
    outcome.append(error)
    handler(cloudformation.event("Create"), Context())
    assert cloudformation.answers[0]["Status"] == "FAILED"
    assert cloudformation.answers[0]["Reason"] == str(error)


def test_an_unforeseen_error_is_answered_and_raised(
    cloudformation: CloudFormation, outcome: list[Any]
) -> None:
    outcome.append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        handler(cloudformation.event("Create"), Context())
    assert cloudformation.answers[0]["Status"] == "FAILED"
    assert "log-stream-1" in cloudformation.answers[0]["Reason"]


def test_a_missing_setting_is_answered_by_name(
    cloudformation: CloudFormation, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_HOST", "DATABASE_NAME", "DATABASE_USER"):
        monkeypatch.delenv(name, raising=False)
    handler(cloudformation.event("Create"), Context())
    assert cloudformation.answers[0]["Status"] == "FAILED"
    assert "DATABASE_HOST" in cloudformation.answers[0]["Reason"]


def test_a_reason_of_any_length_fits_the_answer(cloudformation: CloudFormation, outcome: list[Any]) -> None:
    outcome.append(MigrationError("\u2028" * 10_000))
    handler(cloudformation.event("Create"), Context())
    assert cloudformation.answers[0]["Status"] == "FAILED"


def test_the_answer_is_sent_again_when_it_does_not_get_through(
    cloudformation: CloudFormation, outcome: list[Any]
) -> None:
    cloudformation.statuses = [503, 200]
    handler(cloudformation.event("Create"), Context())
    assert [answer["Status"] for answer in cloudformation.answers] == ["SUCCESS", "SUCCESS"]


def test_an_answer_that_is_refused_is_an_error(cloudformation: CloudFormation, outcome: list[Any]) -> None:
    cloudformation.statuses = [403]
    with pytest.raises(TransientError, match="HTTP 403"):
        handler(cloudformation.event("Create"), Context())


def test_invoked_directly_it_says_what_it_applied(outcome: list[Any]) -> None:
    assert handler({}, Context()) == {"applied": ["0001_records"]}


def test_invoked_directly_it_raises(outcome: list[Any]) -> None:
    outcome.append(MigrationError("migration 0002_x: syntax error"))
    with pytest.raises(MigrationError):
        handler({}, Context())
