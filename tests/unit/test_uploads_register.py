"""uploads/register: every notification has one outcome, however often it comes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from threading import Lock
from typing import Any

import pytest
from botocore.exceptions import ClientError
from moto.dynamodb.responses import DynamoHandler

from common import clients
from common.errors import TransientError
from tests.unit.uploads_aws import BUCKET, Aws, Context, moto_aws, s3_record
from uploads import register as register_module
from uploads.objects import Objects
from uploads.register import Register, Registered
from uploads.upload import Upload, upload_id

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_aws() as resources:
        yield resources


@pytest.fixture
def versioned() -> Iterator[Aws]:
    with moto_aws(versioned=True) as resources:
        yield resources


def handle(aws: Aws, *records: Any) -> Registered:
    return Register(Objects(aws.s3), aws.ledger, BUCKET, now=lambda: NOW).handle({"Records": list(records)})


def registered(aws: Aws, outcome: Registered) -> Upload:
    (upload,) = outcome.inserted
    found = aws.ledger.upload(upload)
    assert found is not None
    return found


def test_a_new_object_is_entered_with_what_the_object_says(aws: Aws) -> None:
    record = aws.put(
        "a b/ü+1.csv", b"id,x\n1,2\n", Metadata={"id-field": "id", "key-field": "=?UTF-8?B?w7w=?="}
    )
    upload = registered(aws, handle(aws, record))
    etag = aws.s3.head_object(Bucket=BUCKET, Key="a b/ü+1.csv")["ETag"]
    assert upload == Upload(
        upload=upload_id(BUCKET, "a b/ü+1.csv", etag),
        bucket=BUCKET,
        key="a b/ü+1.csv",
        etag=etag,
        size=9,
        format="csv",
        id_field="id",
        key_field="ü",
        registered_at=NOW,
    )


def test_the_same_notification_again_is_a_duplicate(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    record = aws.put("a.ndjson")
    first = handle(aws, record)
    caplog.clear()
    with caplog.at_level(logging.INFO):
        again = handle(aws, record, record)
    assert again == Registered(duplicates=first.inserted * 2)
    assert [line.message for line in caplog.records] == ["Duplicate skipped"] * 2
    assert [vars(line)["upload"] for line in caplog.records] == first.inserted * 2


def test_of_five_notifications_at_once_one_inserts(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    record = aws.put("a.ndjson")
    # In DynamoDB a conditional put is one step, in moto it is two: there two threads may both find nothing.
    put_item, one_at_a_time = DynamoHandler.put_item, Lock()

    def put(handler: DynamoHandler) -> Any:
        with one_at_a_time:
            return put_item(handler)

    monkeypatch.setattr(DynamoHandler, "put_item", put)
    with ThreadPoolExecutor(5) as pool:
        outcomes = list(pool.map(lambda _: handle(aws, record), range(5)))
    assert sorted(len(outcome.inserted) for outcome in outcomes) == [0, 0, 0, 0, 1]
    assert sum(len(outcome.duplicates) for outcome in outcomes) == 4


def test_the_same_content_put_again_is_the_same_upload(aws: Aws) -> None:
    first = handle(aws, aws.put("a.ndjson"))
    assert handle(aws, aws.put("a.ndjson")) == Registered(duplicates=first.inserted)


def test_the_same_content_put_again_is_the_same_upload_with_versions_too(versioned: Aws) -> None:
    old, new = versioned.put("a.ndjson"), versioned.put("a.ndjson")
    assert old["s3"]["object"]["versionId"] != new["s3"]["object"]["versionId"]
    first = handle(versioned, old)
    assert registered(versioned, first).version_id == old["s3"]["object"]["versionId"]
    assert handle(versioned, new) == Registered(duplicates=first.inserted)


def test_the_same_content_with_other_fields_is_told(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    handle(aws, aws.put("a.ndjson"))
    caplog.clear()
    with caplog.at_level(logging.INFO):
        handle(aws, aws.put("a.ndjson", Metadata={"id-field": "id"}))
    (line,) = caplog.records
    assert line.message == "Duplicate skipped"
    assert vars(line)["named_before"] == {"id_field": None, "key_field": None, "delimiter": None}


def test_new_content_under_the_same_key_is_another_upload(aws: Aws) -> None:
    first = handle(aws, aws.put("a.ndjson"))
    second = handle(aws, aws.put("a.ndjson", b"{}\n"))
    assert first.inserted != second.inserted


def test_an_overwritten_version_is_still_read(versioned: Aws) -> None:
    old = versioned.put("a.ndjson", b'{"old": 1}\n')
    versioned.put("a.ndjson", b"{}\n")
    upload = registered(versioned, handle(versioned, old))
    assert (upload.size, upload.failed) == (11, None)


def test_an_object_overwritten_before_is_a_failed_upload(aws: Aws) -> None:
    old = aws.put("a.ndjson")
    new = aws.put("a.ndjson", b"{}\n")
    upload = registered(aws, handle(aws, old))
    assert upload.failed == "the object has been overwritten, and it was not registered before"
    assert registered(aws, handle(aws, new)).failed is None


def test_an_object_that_is_gone_is_a_failed_upload(aws: Aws) -> None:
    record = aws.put("a.ndjson")
    aws.s3.delete_object(Bucket=BUCKET, Key="a.ndjson")
    outcome = handle(aws, record)
    assert registered(aws, outcome).failed == "the object is gone, and it was not registered before"
    assert handle(aws, record) == Registered(duplicates=outcome.inserted)


def test_a_failed_upload_put_again_is_inserted_anew(aws: Aws) -> None:
    record = aws.put("a.ndjson")
    aws.s3.delete_object(Bucket=BUCKET, Key="a.ndjson")
    failed = handle(aws, record)
    anew = handle(aws, aws.put("a.ndjson"))
    assert anew == Registered(inserted=failed.inserted)
    assert registered(aws, anew).failed is None


def test_a_late_notification_of_a_gone_object_leaves_the_upload(aws: Aws) -> None:
    record = aws.put("a.ndjson")
    first = handle(aws, record)
    aws.s3.delete_object(Bucket=BUCKET, Key="a.ndjson")
    assert handle(aws, record) == Registered(duplicates=first.inserted)
    assert registered(aws, first).failed is None


def test_an_empty_file_is_entered(aws: Aws) -> None:
    assert registered(aws, handle(aws, aws.put("a.csv", b""))).size == 0


def test_a_folder_marker_is_ignored(aws: Aws) -> None:
    assert handle(aws, aws.put("a/", b"")) == Registered(ignored=["a folder marker"])


def test_an_unknown_format_is_a_failed_upload(aws: Aws) -> None:
    upload = registered(aws, handle(aws, aws.put("a.bin", b"123")))
    assert upload.failed is not None
    assert upload.failed.startswith("format not known")
    assert (upload.size, upload.format) == (3, None)


def test_metadata_that_cannot_be_decoded_is_a_failed_upload(aws: Aws) -> None:
    upload = registered(aws, handle(aws, aws.put("a.csv", Metadata={"id-field": "=?nope?B?YQ==?="})))
    assert upload.failed == "the object's metadata id-field cannot be decoded: '=?nope?B?YQ==?='"


def test_a_refused_notification_is_an_answer_and_no_error(aws: Aws, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        outcome = handle(aws, s3_record("a.csv", "e", 1, bucket="other"))
    assert outcome == Registered(refused=[f"bucket 'other', not '{BUCKET}'"])
    assert [(line.levelname, line.message) for line in caplog.records] == [("ERROR", "Notification refused")]


def client_error(code: str, status: int) -> ClientError:
    answer: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, "HeadObject")


def test_a_fault_of_aws_is_raised_after_the_other_records_are_entered(aws: Aws) -> None:
    class Refuses(Objects):
        def head(self, upload: Upload) -> Any:
            if upload.key == "bad.csv":
                raise client_error("SlowDown", 503)
            return super().head(upload)

    records = [aws.put("bad.csv"), aws.put("good.csv")]
    register = Register(Refuses(aws.s3), aws.ledger, BUCKET)
    with pytest.raises(TransientError, match=r"not registered: 'bad.csv': .*SlowDown"):
        register.handle({"Records": records})
    assert handle(aws, *records) == Registered(
        inserted=[upload_id(BUCKET, "bad.csv", records[0]["s3"]["object"]["eTag"])],
        duplicates=[upload_id(BUCKET, "good.csv", records[1]["s3"]["object"]["eTag"])],
    )


def test_no_permission_to_read_is_a_fault_and_not_an_object_that_is_gone(aws: Aws) -> None:
    def forbidden(**_: Any) -> Any:
        raise client_error("403", 403)

    record = aws.put("a.csv")
    aws.s3.head_object = forbidden
    with pytest.raises(TransientError, match="403"):
        handle(aws, record)


def test_the_handler_reads_its_environment_and_answers_in_json(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LEDGER_TABLE", aws.table)
    monkeypatch.setenv("UPLOAD_BUCKET", BUCKET)
    for made in (clients.dynamodb, clients.s3, register_module._register):
        made.cache_clear()
    record = aws.put("a.csv")
    answer = register_module.handler({"Records": [record]}, Context())
    upload = upload_id(BUCKET, "a.csv", record["s3"]["object"]["eTag"])
    assert json.loads(json.dumps(answer)) == {
        "inserted": [upload],
        "failed": [],
        "duplicates": [],
        "ignored": [],
        "refused": [],
    }


@pytest.mark.parametrize(
    ("key", "body", "options", "failed"),
    [
        ("a.ndjson", b'[{"a": 1}]', {}, "this is a JSON array"),
        ("a.csv", b"a\tb\n1\t2\n", {}, "its header is one column that holds tabs"),
        (
            "a.csv",
            b"a,b\n",
            {"Metadata": {"delimiter": "!"}},
            "names '!' as the delimiter; it may be ',' ';' 'tab' '|'",
        ),
        (
            "a.ndjson",
            b"{}\n",
            {"Metadata": {"delimiter": ";"}},
            "names a delimiter, ';', and only a CSV file has one",
        ),
        (
            "a.csv",
            b"a,b\n",
            {"Metadata": {"id-field": ""}},
            "metadata id-field is empty: name a field, or leave it",
        ),
        ("a.csv", b"a,b\n", {"Metadata": {"key-field": ""}}, "metadata key-field is empty"),
        ("a.csv.gz", b"a,b\n", {}, "it is called gzipped, and is not"),
        ("a.csv", b"a,b\n", {"ContentEncoding": "gzip"}, "it is called gzipped, and is not"),
    ],
)
def test_a_file_that_would_not_load_fails_at_once_and_says_what_to_do(
    aws: Aws, key: str, body: bytes, options: dict[str, Any], failed: str
) -> None:
    record = aws.put(key, body, **options)
    outcome = handle(aws, record)
    assert outcome.failed == outcome.inserted
    upload = registered(aws, outcome)
    assert upload.failed is not None
    assert failed in upload.failed
    assert upload.size == len(body)


@pytest.mark.parametrize(
    ("key", "options", "delimiter"),
    [
        ("a.csv", {}, None),
        ("a.csv", {"Metadata": {"delimiter": ","}}, None),
        ("a.csv", {"Metadata": {"delimiter": ";"}}, ";"),
        ("a.csv", {"Metadata": {"delimiter": "tab"}}, "\t"),
        ("a.csv", {"Metadata": {"delimiter": "|"}}, "|"),
        ("a.tsv", {}, "\t"),
        ("a.tsv", {"Metadata": {"delimiter": ";"}}, ";"),
        ("a", {"ContentType": "text/tab-separated-values"}, "\t"),
        ("a.csv", {"ContentType": "text/tab-separated-values"}, None),  # the extension first
    ],
)
def test_what_separates_fields(aws: Aws, key: str, options: dict[str, Any], delimiter: str | None) -> None:
    upload = registered(aws, handle(aws, aws.put(key, b"a\n1\n", **options)))
    assert (upload.failed, upload.format, upload.delimiter) == (None, "csv", delimiter)


def test_a_json_file_is_what_its_first_bytes_show(aws: Aws) -> None:
    array = registered(aws, handle(aws, aws.put("a.json", b'[{"a": 1}]')))
    lines = registered(aws, handle(aws, aws.put("b.json", b'{"a": 1}\n{"a": 2}\n')))
    assert (array.format, lines.format) == ("json", "ndjson")


def test_a_failed_file_put_again_with_its_delimiter_is_registered_anew(aws: Aws) -> None:
    body = b"a;b\n1;2\n"
    first = handle(aws, aws.put("a.csv", body))
    assert first.failed == first.inserted
    again = handle(aws, aws.put("a.csv", body, Metadata={"delimiter": ";"}))
    assert (again.inserted, again.failed) == (first.inserted, [])


def test_an_object_that_goes_between_two_looks_is_a_failed_upload(aws: Aws) -> None:
    class Goes(Objects):
        def beginning(self, upload: Upload, size: int) -> bytes:
            aws.s3.delete_object(Bucket=BUCKET, Key=upload.key)
            return super().beginning(upload, size)

    record = aws.put("a.csv")
    outcome = Register(Goes(aws.s3), aws.ledger, BUCKET, now=lambda: NOW).handle({"Records": [record]})
    failed = registered(aws, outcome).failed
    assert failed == "the object is gone, and it was not registered before"


def test_an_event_by_eventbridge_registers_the_same_upload(aws: Aws) -> None:
    record = aws.put("a b.csv")
    described = record["s3"]["object"]
    event = {
        "detail-type": "Object Created",
        "source": "aws.s3",
        "detail": {
            "bucket": {"name": BUCKET},
            "object": {"key": "a b.csv", "size": described["size"], "etag": described["eTag"]},
        },
    }
    first = Register(Objects(aws.s3), aws.ledger, BUCKET, now=lambda: NOW).handle(event)
    assert handle(aws, record) == Registered(duplicates=first.inserted)
