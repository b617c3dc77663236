"""The command line: what it prints, how it ends, and a sentence for everything that a user can cause."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, ClassVar

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from botocore.stub import Stubber
from moto import mock_aws

from cli import main, show, target, uploading
from cli import stream as streaming
from cli.errors import UserError
from cli.reports import AccountAnswer, Reports
from cli.target import Target
from local import background
from local.background import Flow
from tests.unit.uploads_aws import moto_aws
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
    "registered_at": "2026-11-20T08:00:00+00:00",
}
NASTY = "a\x1b[31m\u202eb\nc\x9b2J"
"""What a stranger may call an object, or write as a reason: ESC, a mark that turns text, a line feed, a C1 control."""
ESCAPED = r"a\x1b[31m\u202eb\nc\x9b2J"


class FakeLambda:
    """Answers the questions to the report function, one account after the other."""

    def __init__(self, accounts: list[dict[str, Any] | None]) -> None:
        self.accounts = accounts
        self.before: dict[str, Any] | None = None
        """The account of a file before it is put, under the id that its own content gives it."""
        self.rejected: list[dict[str, Any]] | None = [rejection(7, raw="x\x1b[31mred\n")]
        self.stream: dict[str, Any] = dict(STREAM)
        self.asked: list[dict[str, Any]] = []

    def invoke(self, FunctionName: str, Payload: bytes) -> dict[str, Any]:
        assert FunctionName == "report"
        question = json.loads(Payload)
        self.asked.append(question)
        return {"Payload": io.BytesIO(json.dumps(self._answer(question)).encode())}

    def _answer(self, question: dict[str, Any]) -> dict[str, Any]:
        match question:
            case {"account": upload}:
                return {"account": self.before if upload in UNPUT else self._next_account()}
            case {"uploads": _}:
                return {"uploads": [each for each in self.accounts if each]}
            case {"stream": True}:
                return {"stream": self.stream}
            case {"reasons": _}:
                return {"rejected": Counter(row["reason"] for row in self.rejected or []).most_common()}
            case _:
                return self._page(question)

    def _next_account(self) -> dict[str, Any] | None:
        return self.accounts.pop(0) if len(self.accounts) > 1 else self.accounts[0]

    def _page(self, question: dict[str, Any]) -> dict[str, Any]:
        if self.rejected is None:
            return {"rejected": None, "next": None}
        begin = int(question.get("after") or 0)
        end = begin + question["limit"]
        more = end < len(self.rejected)
        return {"rejected": self.rejected[begin:end], "next": str(end) if more else None}


def rejection(line: int | None, reason: str = "not JSON", raw: str = "x", **more: Any) -> dict[str, Any]:
    place = {"upload": None, "key": None, "record_id": None}
    return {"line": line, "reason": reason, "raw": raw} | place | more


STREAM = {
    "rows": 500,
    "rejected": 2,
    "exact": True,
    "last_row_at": "2026-11-20T08:00:00+00:00",
    "database": None,
    "waiting": [],
}
WAITS = {
    "function": "consumer",
    "reason": "Postgres at db:5432, refuses the connection as app: password authentication failed (SQLSTATE 28P01)",
    "since": "2026-11-20T08:00:00+00:00",
    "last": "2026-11-20T08:05:00+00:00",
}


CONTENT = b'{"a": 1}\n'
UNPUT = {
    upload_id("bucket", name, hashlib.md5(content, usedforsecurity=False).hexdigest())
    for name, content in (("flights.ndjson", CONTENT), ("other.csv", b"a\n1\n"), ("in/k.ndjson", CONTENT))
}


class FakeS3:
    """Takes uploads, and gives them an ETag that does not follow from their content."""

    def __init__(self) -> None:
        self.metadata: dict[str, str] = {}
        self.keys: list[str] = []

    def upload_file(
        self, path: str, bucket: str, key: str, *, ExtraArgs: Any, Callback: Any, Config: Any
    ) -> None:
        self.metadata = ExtraArgs["Metadata"]
        self.keys.append(key)
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
    path.write_bytes(CONTENT)
    return path


def s3() -> FakeS3:
    made: FakeS3 = target.find(None).client("s3")
    return made


class TestLoad:
    def test_prints_one_object_for_one_file(
        self, stack: Any, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        assert once(monkeypatch, "load", str(file), "--json", "--max-rejected", "1") == 0

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

        assert once(monkeypatch, "load", str(file), str(other), "--json", "--max-rejected", "1") == 0

        assert [Path(each["file"]).name for each in json.loads(capsys.readouterr().out)] == [
            "flights.ndjson",
            "other.csv",
        ]

    def test_names_the_fields_in_the_objects_metadata(
        self, stack: Any, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        once(monkeypatch, "load", str(file), "--id-field", "order_id", "--key-field", "customer")

        assert s3().metadata == {"id-field": "order_id", "key-field": "customer"}

    @pytest.mark.parametrize(
        ("named", "is_"), [(";", ";"), ("tab", "tab"), ("\\t", "tab"), ("\t", "tab"), ("|", "|"), (",", ",")]
    )
    def test_names_the_delimiter_in_the_objects_metadata(
        self, *, stack: Any, file: Path, monkeypatch: Any, capsys: Any, named: str, is_: str
    ) -> None:
        once(monkeypatch, "load", str(file), "--delimiter", named)

        assert s3().metadata == {"delimiter": is_}

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--id-field", ""], "--id-field: is empty"),
            (["--id-field", "  "], "--id-field: is empty"),
            (["--key-field", ""], "--key-field: is empty"),
            (["--delimiter", ""], "--delimiter: is one of"),
            (["--delimiter", ";;"], "--delimiter: is one of"),
            (["--delimiter", "a"], "--delimiter: is one of"),
            (["--key", "k.ndjson", "--prefix", "p/"], "--key: is for one file"),
            (["--key", "k.txt"], "format not known"),
        ],
    )
    def test_an_option_that_says_nothing_is_refused(
        self, *, stack: Any, file: Path, monkeypatch: Any, capsys: Any, arguments: list[str], said: str
    ) -> None:
        assert once(monkeypatch, "load", str(file), *arguments) == 2
        assert said in " ".join(capsys.readouterr().err.split())
        assert s3().keys == []

    def test_a_key_for_one_file(self, stack: Any, file: Path, monkeypatch: Any, capsys: Any) -> None:
        once(monkeypatch, "load", str(file), "--key", "in/k.ndjson")
        assert s3().keys == ["in/k.ndjson"]
        assert once(monkeypatch, "load", str(file), str(file), "--key", "k.ndjson") == 2

    def test_follows_the_upload_until_its_account_closes(
        self, stack: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        stack.accounts = [None, ACCOUNT | {"state": "loading", "missing": 2}, ACCOUNT]
        monkeypatch.setattr(
            uploading.follow, "__kwdefaults__", {**uploading.follow.__kwdefaults__, "pause": id}
        )

        assert once(monkeypatch, "load", str(file), "--max-rejected", "1") == 0

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

    @pytest.mark.parametrize(
        ("counts", "arguments", "status"),
        [
            ({"rejected": 0}, [], 0),
            ({"rejected": 1}, [], 3),
            ({"rejected": 1}, ["--max-rejected", "1"], 0),
            ({"rejected": 2}, ["--max-rejected", "1"], 3),
            ({"rejected": 0, "conflicting": 1}, [], 3),
            ({"rejected": 1, "conflicting": 1}, ["--max-rejected", "1"], 3),
            ({"rejected": 1}, ["--json"], 3),
            ({"rejected": 1}, ["--no-watch"], 0),
            ({"rejected": 1, "state": "stuck", "reason": "r"}, [], 1),
        ],
    )
    def test_the_exit_status_tells_of_lines_that_were_refused(
        self,
        *,
        stack: FakeLambda,
        file: Path,
        monkeypatch: Any,
        capsys: Any,
        counts: dict[str, Any],
        arguments: list[str],
        status: int,
    ) -> None:
        stack.accounts = [ACCOUNT | counts]

        assert once(monkeypatch, "load", str(file), *arguments) == status

    def test_done_does_not_hide_that_everything_was_rejected(
        self, stack: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        stack.accounts = [ACCOUNT | {"lines": 200, "inserted": 0, "rejected": 200, "repeated": 0}]
        stack.rejected = [rejection(line, "not JSON" if line else "not UTF-8") for line in range(200)]

        assert once(monkeypatch, "load", str(file)) == 3

        shown = capsys.readouterr().out
        assert "done, but 200 of 200 lines were rejected: `once rejected " in shown
        assert "199 of them: not JSON" in shown
        assert "1 of them: not UTF-8" in shown

    def test_says_before_the_upload_that_a_file_is_not_what_its_name_says(
        self, stack: Any, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        other = file.with_name("other.csv")
        other.write_text("a;b\n1;2\n")
        file.write_text('[{"a": 1}]')

        once(monkeypatch, "load", str(file), str(other))

        told = capsys.readouterr().err
        assert "jq -c '.[]'" in told
        assert "--delimiter ';'" in told
        once(monkeypatch, "load", str(other), "--delimiter", ";")
        assert "warning" not in capsys.readouterr().err

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


class TestReload:
    """The same file under the same key is one upload, with the options that it was first loaded with."""

    @pytest.fixture
    def loaded(self, stack: FakeLambda) -> FakeLambda:
        stack.before = ACCOUNT | {"rejected": 0, "inserted": 2, "id_field": "order_id", "delimiter": ";"}
        return stack

    def test_says_that_there_was_nothing_to_do(
        self, loaded: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        assert once(monkeypatch, "load", str(file), "--id-field", "order_id", "--delimiter", ";") == 0

        shown = capsys.readouterr().out
        assert "was loaded before (2026-11-20" in shown
        assert "nothing to do: 2 of 3 lines inserted then" in shown
        assert s3().keys == [], "nothing is uploaded"

    @pytest.mark.parametrize(
        ("arguments", "said"),
        [
            (["--id-field", "other"], "registered with --id-field order_id; --id-field other is ignored"),
            ([], "registered with --id-field order_id; that there is no --id-field now is ignored"),
            (
                ["--id-field", "order_id", "--key-field", "k"],
                "registered without --key-field; --key-field k is ignored",
            ),
            (
                ["--id-field", "order_id", "--delimiter", "tab"],
                "registered with --delimiter ;; --delimiter tab is ignored",
            ),
        ],
    )
    def test_other_options_are_ignored_not_in_silence(
        self,
        *,
        loaded: FakeLambda,
        file: Path,
        monkeypatch: Any,
        capsys: Any,
        arguments: list[str],
        said: str,
    ) -> None:
        assert once(monkeypatch, "load", str(file), *arguments) == 4

        told = capsys.readouterr().err
        assert said in told
        assert "give it another key (`--key`)" in told

    def test_as_json(self, loaded: FakeLambda, file: Path, monkeypatch: Any, capsys: Any) -> None:
        assert once(monkeypatch, "load", str(file), "--json") == 4

        printed = json.loads(capsys.readouterr().out)
        assert printed["loaded_before"] == ACCOUNT["registered_at"]
        assert len(printed["ignored_options"]) == 1

    def test_what_is_on_its_way_is_followed(
        self, loaded: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        loaded.before = ACCOUNT | {"state": "loading"}

        assert once(monkeypatch, "load", str(file)) == 3
        assert s3().keys == []

    def test_what_failed_is_put_once_more(
        self, loaded: FakeLambda, file: Path, monkeypatch: Any, capsys: Any
    ) -> None:
        loaded.before = ACCOUNT | {"state": "failed", "reason": "the object is gone", "id_field": "other"}
        loaded.accounts = [ACCOUNT | {"rejected": 0}]

        assert once(monkeypatch, "load", str(file)) == 0
        assert s3().keys == ["flights.ndjson"]
        assert "loaded before" not in capsys.readouterr().out

    def test_the_id_is_known_before_the_upload(self, tmp_path: Path, monkeypatch: Any) -> None:
        """As S3 makes the ETag: moto does the same. In parts of 5 MiB, the least that S3 takes."""
        part = 5 * 1024**2
        monkeypatch.setattr(uploading, "PART_BYTES", part)
        monkeypatch.setattr(
            uploading, "_PARTS", TransferConfig(multipart_threshold=part, multipart_chunksize=part)
        )
        with moto_aws() as aws:
            where = Target(
                "moto", {"UploadBucketName": aws.bucket, "ReportFunctionName": "r"}, lambda _: aws.s3
            )

            class Asked:
                def account(self, upload: str) -> AccountAnswer:
                    return {"upload": upload}

            for name, size in (("empty", 0), ("small", 10), ("one", part), ("two", part + 1)):
                path = tmp_path / f"{name}.ndjson"
                with path.open("wb") as sparse:
                    sparse.truncate(size)
                known = uploading.known_before(where, Asked(), path, path.name)  # type: ignore[arg-type]
                assert known == {"upload": uploading.put(where, path)}


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
        stack.accounts = [ACCOUNT | {"state": "loading", "missing": 2, "waiting": [WAITS]}]
        clock = iter(range(0, 10_000, 50))

        with pytest.raises(UserError, match=r"did not close in 60 s.*loading.*waits: Postgres at db:5432"):
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

    @pytest.mark.parametrize("width", [80, 120, 200])
    def test_reasons_are_readable_beside_long_raw_text(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any, width: int
    ) -> None:
        monkeypatch.setattr(show.out, "width", width)
        reason = "payload.amount: Input should be a valid number, and not the word that is there"
        stack.rejected = [rejection(1_234_567, reason, "{" + "x" * 900, kind="conflict")]

        once(monkeypatch, "rejected", "u")

        lines = capsys.readouterr().out.splitlines()
        assert len(lines) <= 4
        shown = " ".join(line[20:].strip() for line in lines[1:])
        assert reason in shown
        assert "1,234,567  conflict" in lines[1]
        assert max(map(len, lines)) <= width

    def test_an_upload_is_shown_page_by_page(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        stack.rejected = [rejection(line) for line in range(1, 1_202)]

        once(monkeypatch, "rejected", "u")
        shown = capsys.readouterr().out
        assert shown.count("not JSON") == 20
        assert "--after 20" in shown

        once(monkeypatch, "rejected", "u", "--after", "20", "--limit", "3")
        shown = capsys.readouterr().out
        assert [line.split()[0] for line in shown.splitlines() if "not JSON" in line] == ["21", "22", "23"]

        once(monkeypatch, "rejected", "u", "--all")
        assert capsys.readouterr().out.count("not JSON") == 1_201
        assert once(monkeypatch, "rejected", "u", "--all", "--limit", "3") == 2

    @pytest.mark.parametrize("arguments", [["u"], []])
    def test_all_of_them_as_json(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any, arguments: list[str]
    ) -> None:
        stack.rejected = [rejection(line) for line in range(1, 1_202)]

        once(monkeypatch, "rejected", *arguments, "--json")

        assert json.loads(capsys.readouterr().out) == stack.rejected
        assert [each["limit"] for each in stack.asked] == [500, 500, 500]

    def test_none_as_json(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        stack.rejected = []
        once(monkeypatch, "rejected", "u", "--json")
        assert json.loads(capsys.readouterr().out) == []

    def test_without_an_upload_the_newest_and_what_they_are_of(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any
    ) -> None:
        stack.rejected = [
            rejection(1, upload="u1", key="a.csv"),
            rejection(None, record_id="order-1"),
            rejection(None),
        ]
        once(monkeypatch, "rejected")
        assert stack.asked == [{"rejected": None, "limit": 20}]
        shown = capsys.readouterr().out
        assert "of upload u1, a.csv" in shown
        assert "of record order-1" in shown

    def test_an_account_says_why_it_waits(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        stack.accounts = [ACCOUNT | {"state": "loading", "waiting": [WAITS]}]

        assert once(monkeypatch, "status", "u") == 1
        shown = capsys.readouterr().out
        assert "the consumer function waits since 2026-11-20" in shown
        assert "password authentication failed" in shown


class TestStreamStatus:
    FLOW: ClassVar = {"consumer": Flow(read=500, waiting=120, all_read=True, failed_in_a_row=3, problem=None)}

    @pytest.fixture(autouse=True)
    def poller(self, stack: FakeLambda, monkeypatch: pytest.MonkeyPatch) -> None:
        stack.accounts = [None]
        where = target.find(None)
        outputs = {**where.outputs, "ConsumerFunctionName": "consumer", "RecordStreamName": "stream"}
        made = Target(where.name, outputs, where.client, is_local=True)
        monkeypatch.setattr(target, "find", lambda _: made)
        monkeypatch.setattr(background, "flow", lambda: self.FLOW)

    def test_shows_what_the_stream_has_done_without_any_upload(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any
    ) -> None:
        assert once(monkeypatch, "status") == 0

        shown = capsys.readouterr().out
        assert "500 records in, 380 settled, 120 waiting (counted by this stack's poller)" in shown
        assert "3 deliveries in a row" in shown
        assert "500 rows, 2 rejected" in shown
        assert "No uploads yet" in shown

    def test_says_why_records_wait(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        stack.stream["waiting"] = [WAITS]
        once(monkeypatch, "status")
        assert "the consumer function waits since 2026-11-20" in capsys.readouterr().out

    def test_says_so_when_postgres_gives_no_figures(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any
    ) -> None:
        stack.stream |= {
            "rows": None,
            "rejected": None,
            "exact": None,
            "database": "refuses",
            "waiting": [WAITS],
        }
        assert once(monkeypatch, "status") == 1
        shown = capsys.readouterr().out
        assert "gives no figures: refuses" in shown
        assert "password authentication failed" in shown

    def test_as_json(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        once(monkeypatch, "status", "--stream", "--json")
        printed = json.loads(capsys.readouterr().out)
        assert (printed["stream"]["waiting"], printed["postgres"]["rows"]) == (120, 500)

    def test_before_the_poller_has_told_anything(self, monkeypatch: Any, capsys: Any) -> None:
        monkeypatch.setattr(background, "flow", lambda: None)
        assert once(monkeypatch, "status") == 0
        assert "The poller of this stack has not told" in capsys.readouterr().out

    def test_of_a_deployed_stack_by_cloudwatch(self, monkeypatch: Any, capsys: Any) -> None:
        now = datetime.now(UTC)
        with mock_aws():
            metrics = boto3.client("cloudwatch", region_name="us-east-1")
            for namespace, name, dimension, points in (
                ("AWS/Kinesis", "IncomingRecords", ("StreamName", "stream"), [(50, 400), (2, 100)]),
                ("Oncestream/fake", "RecordsInserted", ("service", "consumer"), [(50, 390)]),
                ("Oncestream/fake", "DuplicatesSkipped", ("service", "consumer"), [(50, 5)]),
                ("Oncestream/fake", "RecordsRetried", ("service", "consumer"), [(50, 70), (2, 100)]),
                ("AWS/Lambda", "IteratorAge", ("FunctionName", "consumer"), [(2, 240_000)]),
                ("AWS/Lambda", "Errors", ("FunctionName", "consumer"), [(2, 1)]),
            ):
                for minutes, value in points:
                    metrics.put_metric_data(
                        Namespace=namespace,
                        MetricData=[
                            {
                                "MetricName": name,
                                "Dimensions": [{"Name": dimension[0], "Value": dimension[1]}],
                                "Timestamp": now - timedelta(minutes=minutes),
                                "Value": value,
                            }
                        ],
                    )
            outputs = {"ConsumerFunctionName": "consumer", "RecordStreamName": "stream"}
            found = streaming.of(Target("fake", outputs, lambda _: metrics))
        assert (found.came_in, found.settled, found.waiting) == (500, 395, None)
        assert (found.oldest_seconds, found.failing) == (240, 100)
        assert [said for _, said in found.lines()] == [
            "500 records in, 395 settled, the oldest for 4 minutes (CloudWatch, the last hour, a minute or two late)",
            "100 records retried in the last five minutes",
            "1 invocations of the consumer failed in the last five minutes: see its log",
        ]

    def test_without_the_right_to_ask_cloudwatch(self) -> None:
        client = boto3.client("cloudwatch", region_name="us-east-1")
        outputs = {"ConsumerFunctionName": "consumer", "RecordStreamName": "stream"}
        with Stubber(client) as answers:
            answers.add_client_error("get_metric_data", "AccessDenied", "not yours")
            found = streaming.of(Target("fake", outputs, lambda _: client))
        assert found.problem == "no figures of the stream. Could not ask CloudWatch: not yours"


class TestStrangersText:
    """Whatever comes from strangers is written out where a person reads it, and exact where a program does."""

    @pytest.mark.parametrize("place", ["key", "upload", "reason"])
    def test_an_account(self, stack: FakeLambda, monkeypatch: Any, capsys: Any, place: str) -> None:
        stack.accounts = [ACCOUNT | {"state": "stuck", "reason": "r", place: NASTY}]
        once(monkeypatch, "status", "u")
        self.check(capsys)

    def test_an_accounts_waiting(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        stack.accounts = [ACCOUNT | {"state": "loading", "waiting": [WAITS | {"reason": NASTY}]}]
        once(monkeypatch, "status", "u")
        self.check(capsys)

    @pytest.mark.parametrize("place", ["reason", "raw"])
    def test_a_rejection(self, stack: FakeLambda, monkeypatch: Any, capsys: Any, place: str) -> None:
        stack.rejected = [rejection(1, **{place: NASTY})]
        once(monkeypatch, "rejected", "u")
        self.check(capsys)

    @pytest.mark.parametrize("origin", [{"upload": "u", "key": NASTY}, {"record_id": NASTY}])
    def test_what_a_rejection_is_of(
        self, stack: FakeLambda, monkeypatch: Any, capsys: Any, origin: dict[str, str]
    ) -> None:
        stack.rejected = [rejection(1, **origin)]
        once(monkeypatch, "rejected")
        self.check(capsys)

    def test_grouped_reasons(self, stack: FakeLambda, file: Path, monkeypatch: Any, capsys: Any) -> None:
        stack.rejected = [rejection(1, NASTY)]
        once(monkeypatch, "load", str(file))
        self.check(capsys)

    def test_a_files_own_name(self, stack: FakeLambda, tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
        path = tmp_path / f"{NASTY}[bold].ndjson"
        path.write_text("[1]")
        once(monkeypatch, "load", str(path))
        shown = capsys.readouterr()
        assert "\x1b" not in shown.out + shown.err
        assert re.search(re.escape(f"{ESCAPED}[bold].ndjson: ") + "(it|this) is a JSON array", shown.err)
        assert f"{ESCAPED}[bold].ndjson: this file" in shown.out

    def test_an_answer_that_is_an_error(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        body = json.dumps({"errorMessage": NASTY}).encode()
        monkeypatch.setattr(
            stack, "invoke", lambda **_: {"FunctionError": "Unhandled", "Payload": io.BytesIO(body)}
        )
        assert once(monkeypatch, "rejected", "u") == 1
        assert ESCAPED in capsys.readouterr().err

    def test_the_progress_display(self) -> None:
        display = show.progress()
        task = display.add_task("")
        notes = [WAITS | {"reason": NASTY}]
        show.following(display, task, NASTY)(ACCOUNT | {"state": "loading", "waiting": notes})
        described = display.tasks[0].description
        assert described.isprintable()
        assert described.count(ESCAPED) == 2

    def test_json_is_exact(self, stack: FakeLambda, monkeypatch: Any, capsys: Any) -> None:
        text = f"{NASTY} \ud800 \U000e0001 Zürich"
        stack.rejected = [rejection(1, text)]
        once(monkeypatch, "rejected", "u", "--json")
        shown = capsys.readouterr().out
        assert json.loads(shown)[0]["reason"] == text
        assert shown.replace("\n", "").isprintable()
        assert "Zürich" in shown

    def check(self, capsys: Any) -> None:
        shown = capsys.readouterr().out
        assert ESCAPED in shown
        assert all(each.isprintable() or each == "\n" for each in shown)


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
