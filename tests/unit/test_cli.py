"""The command line: what it prints, how it ends, and a sentence for everything that a user can cause."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from cli import main, show, target, uploading
from cli.errors import UserError
from cli.reports import Reports
from cli.target import Target
from local import background
from uploads.upload import upload_id

ACCOUNT = {
    "upload": "u" * 32,
    "key": "flights.ndjson",
    "state": "done",
    "reason": None,
    "lines": 3,
    "inserted": 1,
    "rejected": 1,
    "repeated": 1,
    "missing": 0,
}


class FakeLambda:
    """Answers the questions to the report function, one account after the other."""

    def __init__(self, accounts: list[dict[str, Any] | None]) -> None:
        self.accounts = accounts
        self.rejected: list[dict[str, Any]] | None = [
            {"line": 7, "reason": "not JSON", "raw": "x\x1b[31mred\n", "record_id": None}
        ]

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert FunctionName == "report"
        question = json.loads(Payload)
        if "account" in question:
            found: Any = {"account": self.accounts.pop(0) if len(self.accounts) > 1 else self.accounts[0]}
        elif "uploads" in question:
            found = {"uploads": [each for each in self.accounts if each]}
        else:
            found = {"rejected": self.rejected}
        return {"Payload": io.BytesIO(json.dumps(found).encode())}


class FakeS3:
    """Takes uploads."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}

    def upload_file(
        self, path: str, bucket: str, key: str, *, ExtraArgs: Any, Callback: Any, Config: Any
    ) -> None:
        self.metadata = ExtraArgs["Metadata"]
        Callback(Path(path).stat().st_size)

    def head_object(self, Bucket: str, Key: str) -> dict[str, str]:
        return {"ETag": '"e"'}


@pytest.fixture
def stack(monkeypatch: pytest.MonkeyPatch) -> FakeLambda:
    functions, s3 = FakeLambda([dict(ACCOUNT)]), FakeS3()
    clients = {"lambda": functions, "s3": s3}
    outputs = {"ReportFunctionName": "report", "UploadBucketName": "bucket"}
    monkeypatch.setattr(target, "find", lambda stack: Target("fake", outputs, clients.__getitem__))
    monkeypatch.setattr(show.out, "width", 200)
    return functions


def once(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr("sys.argv", ["once", *arguments])
    with pytest.raises(SystemExit) as ended:
        main.main()
    return int(ended.value.code or 0)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flights.ndjson"
    path.write_text('{"a": 1}\n')
    return path


class TestLoad:
    def test_prints_one_object_for_one_file(
        self, stack: Any, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        assert once(monkeypatch, "load", str(file), "--json") == 0

        printed = json.loads(capsys.readouterr().out)
        wanted = ("lines", "inserted", "rejected", "repeated", "missing", "state")
        assert {name: printed[name] for name in wanted} == {name: ACCOUNT[name] for name in wanted}
        assert printed["upload"] == upload_id("bucket", "flights.ndjson", '"e"')
        assert printed["seconds"] >= 0

    def test_prints_a_list_for_several_files(
        self, stack: Any, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        other = file.with_name("other.csv")
        other.write_text("a\n1\n")

        assert once(monkeypatch, "load", str(file), str(other), "--json") == 0

        assert [Path(each["file"]).name for each in json.loads(capsys.readouterr().out)] == [
            "flights.ndjson",
            "other.csv",
        ]

    def test_names_the_fields_in_the_objects_metadata(
        self, stack: Any, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        once(monkeypatch, "load", str(file), "--id-field", "order_id", "--key-field", "customer")

        assert target.find(None).client("s3").metadata == {"id-field": "order_id", "key-field": "customer"}

    def test_follows_the_upload_until_its_account_closes(
        self, stack: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        stack.accounts = [None, ACCOUNT | {"state": "loading", "missing": 2}, ACCOUNT]
        monkeypatch.setattr(
            uploading.follow, "__kwdefaults__", {**uploading.follow.__kwdefaults__, "pause": id}
        )

        assert once(monkeypatch, "load", str(file)) == 0

        shown = capsys.readouterr().out
        assert "done" in shown
        assert "not JSON" in shown, "the first rejections are shown"

    @pytest.mark.parametrize("state", ["failed", "stuck"])
    def test_fails_when_the_account_does_not_close(
        self, stack: FakeLambda, file: Path, monkeypatch: Any, capsys: Any, state: str
    ) -> None:
        stack.accounts = [ACCOUNT | {"state": state, "reason": "chunk 3 is not published"}]

        assert once(monkeypatch, "load", str(file)) == 1
        assert "chunk 3 is not published" in capsys.readouterr().out

    def test_without_watching_says_how_to_follow(
        self, stack: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        stack.accounts = [None]

        assert once(monkeypatch, "load", str(file), "--no-watch") == 0
        assert "once status" in capsys.readouterr().out

    @pytest.mark.parametrize("name", ["missing.ndjson", "notes.txt", "."])
    def test_a_file_that_cannot_be_loaded_is_a_usage_error(
        self, stack: Any, tmp_path: Path, monkeypatch: Any, capsys: Any, name: str
    ) -> None:
        (tmp_path / "notes.txt").write_text("hello")

        assert once(monkeypatch, "load", str(tmp_path / name)) == 2
        assert "Traceback" not in capsys.readouterr().err


class TestFollow:
    def test_says_when_no_notification_came(self, stack: FakeLambda) -> None:
        stack.accounts = [None]
        clock = iter(range(0, 10_000, 50))

        with pytest.raises(UserError, match="has not been registered after 150 s"):
            uploading.follow(
                Reports(target.find(None)),
                "u",
                lambda account: None,
                pause=lambda _: None,
                clock=lambda: next(clock),
            )

    def test_gives_up_after_the_time_it_was_given(self, stack: FakeLambda) -> None:
        stack.accounts = [ACCOUNT | {"state": "loading", "missing": 2}]
        clock = iter(range(0, 10_000, 50))

        with pytest.raises(UserError, match=r"did not close in 60 s.*loading"):
            uploading.follow(
                Reports(target.find(None)),
                "u",
                lambda account: None,
                seconds=60,
                pause=lambda _: None,
                clock=lambda: next(clock),
            )


class TestStatusAndRejected:
    def test_a_closed_account_is_exit_status_0_and_an_open_one_1(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any
    ) -> None:
        assert once(monkeypatch, "status", "u") == 0
        stack.accounts = [ACCOUNT | {"state": "loading"}]
        assert once(monkeypatch, "status", "u") == 1

    @pytest.mark.parametrize("command", ["status", "rejected"])
    def test_an_unknown_upload_is_a_sentence(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any, command: str
    ) -> None:
        stack.accounts, stack.rejected = [None], None

        assert once(monkeypatch, command, "nothing") == 1
        assert "There is no upload nothing" in capsys.readouterr().err

    def test_the_latest_uploads_are_listed(self, stack: Any, monkeypatch: Any, capsys: Any) -> None:
        assert once(monkeypatch, "status", "--json") == 0
        assert json.loads(capsys.readouterr().out) == [ACCOUNT]

    def test_rejected_bytes_do_not_reach_the_terminal_raw(
        self, stack: Any, monkeypatch: Any, capsys: Any
    ) -> None:
        assert once(monkeypatch, "rejected", "u") == 0

        shown = capsys.readouterr().out
        assert "not JSON" in shown
        assert "\x1b[31mred" not in shown

    def test_rejected_as_json_keeps_the_text(self, stack: Any, monkeypatch: Any, capsys: Any) -> None:
        assert once(monkeypatch, "rejected", "u", "--json") == 0
        assert json.loads(capsys.readouterr().out)[0]["raw"] == "x\x1b[31mred\n"


class TestNoStack:
    def test_on_this_machine(self, monkeypatch: Any, capsys: Any) -> None:
        monkeypatch.setattr(background, "running", lambda: None)

        assert once(monkeypatch, "status") == 1
        assert "No stack runs on this machine" in capsys.readouterr().err

    def test_without_credentials(self, monkeypatch: Any, capsys: Any) -> None:
        monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
        monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)

        assert once(monkeypatch, "status", "--stack", "production") == 1
        assert "no AWS credentials" in capsys.readouterr().err

    def test_of_this_name(self, monkeypatch: Any, capsys: Any) -> None:
        client = boto3.client("cloudformation", region_name="us-east-1")
        monkeypatch.setattr(boto3.session.Session, "client", lambda *_: client)

        with Stubber(client) as answers:
            answers.add_client_error(
                "describe_stacks", "ValidationError", "Stack with id nowhere does not exist"
            )
            assert once(monkeypatch, "status", "--stack", "nowhere") == 1
        assert "Could not find the stack nowhere" in capsys.readouterr().err

    def test_of_another_kind(self) -> None:
        with pytest.raises(UserError, match="is it an Oncestream stack"):
            Target("other", {}, lambda service: None).output("ReportFunctionName")


def test_down_without_a_stack_is_fine(monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr(background, "stop", lambda: False)

    assert once(monkeypatch, "down") == 0
    assert "No stack runs" in capsys.readouterr().out
