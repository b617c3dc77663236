"""register, plan and report against an S3, a DynamoDB with streams, an SQS and a Postgres that are real servers."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from common import clients
from common.errors import PermanentError, TransientError
from postgres.database import Database
from tests.unit.uploads_aws import Aws, Context, ledger_properties
from uploads import plan as plan_module
from uploads import register as register_module
from uploads import report as report_module
from uploads.chunk_job import ChunkCount
from uploads.rows import RAW_BYTES, StoredRows
from uploads.upload import Upload

if TYPE_CHECKING:
    from common.settings import DatabaseSettings
    from local.ministack import MiniStack

NOW = datetime.now(UTC)


@pytest.fixture
def aws(ministack: MiniStack, request: pytest.FixtureRequest) -> Aws:
    name = f"uploads-{abs(hash(request.node.nodeid)):x}"
    s3, dynamodb, sqs = (ministack.client(service) for service in ("s3", "dynamodb", "sqs"))
    s3.create_bucket(Bucket=name)
    s3.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
    dynamodb.create_table(TableName=name, **ledger_properties())
    return Aws(s3, dynamodb, sqs, name, name, sqs.create_queue(QueueName=name)["QueueUrl"])


@pytest.fixture
def functions(aws: Aws, ministack: MiniStack, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The functions' environment, and functions that have just been started."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", ministack.endpoint)
    monkeypatch.setenv("UPLOAD_BUCKET", aws.bucket)
    monkeypatch.setenv("LEDGER_TABLE", aws.table)
    monkeypatch.setenv("CHUNK_QUEUE_URL", aws.queue_url)
    monkeypatch.setenv("CHUNK_BYTES", "1000000")
    kept: list[Any] = [
        *(clients.dynamodb, clients.s3, clients.sqs, clients.dynamodb_for_notes, plan_module._waiting),
        *(register_module._register, plan_module._planner, plan_module._settings, report_module._report),
    ]
    for each in kept:
        each.cache_clear()
    yield
    for each in kept:
        each.cache_clear()


@pytest.fixture
def stream(aws: Aws, ministack: MiniStack) -> Callable[[], list[dict[str, Any]]]:
    """All records of the ledger's stream so far, as Lambda hands them to a function."""
    streams = ministack.client("dynamodbstreams")
    arn = aws.dynamodb.describe_table(TableName=aws.table)["Table"]["LatestStreamArn"]

    def read() -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = []
        for shard in streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]:
            iterator = streams.get_shard_iterator(
                StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            records += streams.get_records(ShardIterator=iterator)["Records"]
        return [json.loads(json.dumps(record, default=str)) for record in records]

    return read


def register(*records: dict[str, Any]) -> dict[str, list[str]]:
    answer: dict[str, list[str]] = register_module.handler({"Records": list(records)}, Context())
    return answer


def plan(records: list[dict[str, Any]]) -> list[Any]:
    return list(plan_module.handler({"Records": records}, Context())["batchItemFailures"])


@pytest.mark.usefixtures("functions")
@pytest.mark.filterwarnings("ignore:No application metrics to publish")  # once all is done
def test_a_notification_becomes_chunk_jobs_once(aws: Aws, stream: Callable[[], list[dict[str, Any]]]) -> None:
    record = aws.put("a b/ü+.ndjson", b'{"a": 1}\n' * 250_000, Metadata={"id-field": "a"})
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(register, [record] * 5))
    inserted = [upload for answer in answers for upload in answer["inserted"]]
    assert len(inserted) == 1
    assert [len(answer["duplicates"]) for answer in answers].count(1) == 4

    assert plan(stream()) == []
    sent = aws.jobs()
    assert [(job["start"], job["end"]) for job in sent] == [
        (0, 1_000_000),
        (1_000_000, 2_000_000),
        (2_000_000, 2_250_000),
    ]
    assert {(job["upload"], job["key"], job["id_field"]) for job in sent} == {
        (inserted[0], "a b/ü+.ndjson", "a")
    }

    # The stream has told of the plan and of its end by now, too: nothing comes of it, nor of the first again.
    events = [(record["eventName"], record["dynamodb"]["Keys"]["item"]["S"]) for record in stream()]
    assert events == [("INSERT", "upload"), ("INSERT", "plan"), ("MODIFY", "upload")]
    assert plan(stream()) == []
    assert aws.jobs() == []


@pytest.mark.usefixtures("functions")
def test_a_failed_upload_put_again_comes_as_an_insert(
    aws: Aws, stream: Callable[[], list[dict[str, Any]]]
) -> None:
    record = aws.put("a.ndjson")
    version = record["s3"]["object"]["versionId"]
    aws.s3.delete_object(Bucket=aws.bucket, Key="a.ndjson", VersionId=version)
    (failed,) = register(record)["inserted"]
    assert aws.ledger.upload(failed).failed  # type: ignore[union-attr]
    assert plan(stream()) == []
    assert aws.jobs() == []

    assert register(aws.put("a.ndjson"))["inserted"] == [failed]
    assert [record["eventName"] for record in stream()] == ["INSERT", "REMOVE", "INSERT"]
    assert plan(stream()) == []
    assert [job["upload"] for job in aws.jobs()] == [failed]


@pytest.mark.usefixtures("functions")
def test_the_chunks_of_a_csv_file_are_csv_files(aws: Aws, stream: Callable[[], list[dict[str, Any]]]) -> None:
    rows = [[str(number), f'a "quoted"\nfield, {number % 7 * "x"}\n', "plain"] for number in range(300_000)]
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    body = text.getvalue().encode()
    assert len(body) > 8 * 1024 * 1024  # more than one block
    register(aws.put("a.csv", body))
    assert plan(stream()) == []
    found = []
    for job in aws.jobs():
        chunk = body[job["start"] : job["end"]].decode()
        found += list(csv.reader(io.StringIO(chunk, newline=""), strict=True))
    assert found == rows


UPLOAD = Upload(
    upload="u" * 32, bucket="b", key="a.csv", etag='"e"', size=300, format="csv", registered_at=NOW
)


def count(chunk: int, lines: int, rejected: int) -> ChunkCount:
    return ChunkCount(
        chunk=chunk, start=chunk * 100, end=chunk * 100 + 100, lines=lines, published=lines - rejected,
        rejected=rejected, file_lines=lines + 10, published_at=NOW,
    )  # fmt: skip


class Rows:
    """Writes rows as the consumer does."""

    def __init__(self, database: Any) -> None:
        self.connection = database.connect()

    def add(
        self, table: str, chunk: int | None, line: int | None, *, age: timedelta = timedelta(), **more: Any
    ) -> None:
        times = {"records": "loaded_at", "rejected_records": "rejected_at", "repeated_records": "repeated_at"}
        name = f"{chunk}:{line}"
        own: dict[str, dict[str, Any]] = {
            "records": {"id": name, "partition_key": "k", "payload": "{}"},
            "rejected_records": {"id": name, "reason": "why", "raw": b"raw"},
            "repeated_records": {"record_id": name},
        }
        values = (
            own[table]
            | {
                "upload_id": None if chunk is None else UPLOAD.upload,
                "upload_chunk": chunk,
                "upload_line": line,
                "shard_id": "s",
                "sequence_number": "1",
                "arrived_at": NOW,
                times[table]: NOW - age,
            }
            | more
        )
        self.connection.run(
            f"INSERT INTO {table} ({', '.join(values)}) VALUES ({', '.join(':' + name for name in values)})",
            **values,
        )


@pytest.fixture
def rows(database: Any) -> Iterator[Rows]:
    written = Rows(database)
    yield written
    written.connection.close()


@pytest.fixture
def ask(functions: None, database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    for name, value in database.model_dump(exclude_none=True).items():
        monkeypatch.setenv(name.upper(), str(value))
    return lambda **event: json.loads(json.dumps(report_module.handler(event, Context())))


def test_the_account_closes_line_by_line(aws: Aws, rows: Rows, ask: Callable[..., Any]) -> None:
    def state() -> tuple[str, int]:
        account = ask(account=UPLOAD.upload)["account"]
        return account["state"], account["missing"]

    assert ask(account=UPLOAD.upload) == {"account": None}
    aws.ledger.register(UPLOAD)
    assert state() == ("registered", 0)
    aws.ledger.open_plan(UPLOAD.upload, 100)
    aws.ledger.mark_planned(UPLOAD, 2, NOW)
    assert state() == ("planned", 0)
    for _ in range(2):  # done twice, counted once
        aws.dynamodb.put_item(TableName=aws.table, Item=count(0, 3, 1).to_item(UPLOAD.upload))
    rows.add("records", 0, 2)
    assert state() == ("publishing", 2)
    aws.dynamodb.put_item(TableName=aws.table, Item=count(1, 1, 0).to_item(UPLOAD.upload))
    rows.add("rejected_records", 0, 3)
    assert state() == ("loading", 2)
    rows.add("repeated_records", 0, 4)
    rows.add("records", 1, 1)
    assert state() == ("done", 0)
    account = ask(account=UPLOAD.upload)["account"]
    assert [account[name] for name in ("lines", "inserted", "rejected", "repeated")] == [4, 2, 1, 1]
    assert [chunk["missing"] for chunk in account["chunks"]] == [0, 0]
    assert [each["upload"] for each in ask(uploads=10)["uploads"]] == [UPLOAD.upload]


def test_a_line_counts_once_whatever_there_is_of_it(aws: Aws, rows: Rows, ask: Callable[..., Any]) -> None:
    aws.ledger.register(UPLOAD)
    aws.ledger.mark_planned(UPLOAD, 1, NOW)
    aws.dynamodb.put_item(TableName=aws.table, Item=count(0, 4, 0).to_item(UPLOAD.upload))
    for number, place in enumerate([1, 1, 2, 3, 4]):  # line 1 was rejected in other bytes before a deploy
        rows.add("rejected_records", 0, place, id=f"{number}")
    rows.add("records", 0, 2)
    rows.add("repeated_records", 0, 3)
    account = ask(account=UPLOAD.upload)["account"]
    assert [account[name] for name in ("inserted", "rejected", "repeated", "missing")] == [1, 2, 1, 0]
    assert (account["state"], account["reason"]) == ("done", None)


def test_a_line_in_conflict_is_settled_and_not_rejected(
    aws: Aws, rows: Rows, ask: Callable[..., Any]
) -> None:
    aws.ledger.register(UPLOAD)
    aws.ledger.mark_planned(UPLOAD, 1, NOW)
    aws.dynamodb.put_item(TableName=aws.table, Item=count(0, 4, 0).to_item(UPLOAD.upload))
    rows.add("records", 0, 1)
    rows.add("rejected_records", 0, 2)
    # Line 3 says two things in two messages, and one of them is no record.
    for number, (place, kind) in enumerate(
        [(3, "conflict"), (3, "rejected"), (4, "conflict"), (4, "conflict")]
    ):
        rows.add("rejected_records", 0, place, id=f"{number}", kind=kind)
    account = ask(account=UPLOAD.upload)["account"]
    names = ("lines", "inserted", "rejected", "repeated", "conflicting", "missing")
    assert [account[name] for name in names] == [4, 1, 2, 0, 1, 0]
    assert [account["chunks"][0][name] for name in names] == [4, 1, 2, 0, 1, 0]
    assert account["state"] == "done"
    shown = ask(rejected=UPLOAD.upload, limit=10)["rejected"]
    assert sorted(row["kind"] for row in shown) == ["conflict"] * 3 + ["rejected"] * 2


def test_a_row_taken_lately_keeps_an_upload_from_being_stuck(
    aws: Aws, rows: Rows, ask: Callable[..., Any]
) -> None:
    hour = timedelta(hours=1)
    upload = UPLOAD.model_copy(update={"registered_at": NOW - hour})
    aws.ledger.register(upload)
    aws.ledger.mark_planned(upload, 1, NOW - hour)
    old = count(0, 3, 0).model_copy(update={"published_at": NOW - hour})
    aws.dynamodb.put_item(TableName=aws.table, Item=old.to_item(UPLOAD.upload))
    rows.add("records", 0, 1, age=hour)
    account = ask(account=UPLOAD.upload)["account"]
    assert (account["state"], account["reason"]) == (
        "stuck",
        "published, but not in Postgres: 2 lines of chunk 0",
    )
    rows.add("records", 0, 2)
    assert ask(account=UPLOAD.upload)["account"]["state"] == "loading"


def test_rejected_records_come_with_their_lines(aws: Aws, rows: Rows, ask: Callable[..., Any]) -> None:
    aws.ledger.register(UPLOAD)
    for chunk in (0, 1):
        aws.dynamodb.put_item(TableName=aws.table, Item=count(chunk, 3, 1).to_item(UPLOAD.upload))
    rows.add("rejected_records", 1, 12, raw=b"\xffx" * RAW_BYTES, record_id="r")
    rows.add("rejected_records", 1, 2)
    rows.add("rejected_records", 0, 7, age=timedelta(hours=1))
    rows.add("rejected_records", None, None, id="other", raw=b"", age=timedelta(hours=2))
    found = ask(rejected=UPLOAD.upload, limit=10)["rejected"]
    assert [(row["line"], row["chunk"], row["line_in_chunk"]) for row in found] == [
        (7, 0, 7),
        (15, 1, 2),
        (25, 1, 12),
    ]
    assert found[2]["raw"] == "\ufffdx" * (RAW_BYTES // 2)
    assert (found[2]["raw_bytes"], found[2]["record_id"]) == (2 * RAW_BYTES, "r")
    assert [row["line"] for row in ask(rejected=UPLOAD.upload, limit=1)["rejected"]] == [7]
    assert [row["upload"] for row in ask(rejected=None, limit=10)["rejected"]][2:] == [UPLOAD.upload, None]
    assert ask(rejected="nope")["rejected"] is None


def test_rejected_records_are_paged_and_none_is_missed(aws: Aws, rows: Rows, ask: Callable[..., Any]) -> None:
    aws.ledger.register(UPLOAD)
    expected = [(chunk, line) for chunk in range(3) for line in range(9, 12)]
    for chunk, line in reversed(expected):
        rows.add("rejected_records", chunk, line)
    # A message of a line that was rejected as a line, too: two rows of one place.
    rows.add("rejected_records", 1, 9, id="digest")
    rows.add("rejected_records", None, None, id="other", raw=b"")

    def pages(upload: str | None, limit: int) -> list[dict[str, Any]]:
        found, after = [], ""
        while after is not None:
            page = ask(rejected=upload, limit=limit, after=after)
            found += page["rejected"]
            after = page["next"]
        return found

    of_upload = pages(UPLOAD.upload, 4)
    assert [(row["chunk"], row["line_in_chunk"]) for row in of_upload] == sorted([*expected, (1, 9)])
    everything = pages(None, 2)
    assert len(everything) == len(expected) + 2
    assert [row["upload"] for row in everything].count(None) == 1
    assert [row["rejected_at"] for row in ask(rejected=None, limit=3)["rejected"]] == [NOW.isoformat()] * 3


@pytest.mark.parametrize("place", ["x", "1:2", "::", "1:x:id"])
def test_a_place_that_is_none_is_the_askers_fault(rows: Rows, ask: Callable[..., Any], place: str) -> None:
    with pytest.raises(PermanentError, match="not a place to go on from"):
        ask(rejected=None, after=place)


def test_reasons_come_once_each_with_their_number(aws: Aws, rows: Rows, ask: Callable[..., Any]) -> None:
    aws.ledger.register(UPLOAD)
    for line in range(1, 4):
        rows.add("rejected_records", 0, line, reason="not JSON")
    rows.add("rejected_records", 0, 4, reason="no object")
    rows.add("rejected_records", None, None, id="other", reason="of no upload")
    assert ask(rejected=UPLOAD.upload, reasons=5)["rejected"] == [["not JSON", 3], ["no object", 1]]
    assert ask(rejected=UPLOAD.upload, reasons=1)["rejected"] == [["not JSON", 3]]


def test_the_stream_is_what_postgres_has_of_all_records(
    aws: Aws, rows: Rows, ask: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = ask(stream=True)["stream"]
    assert (empty["rows"], empty["rejected"], empty["last_row_at"]) == (0, 0, None)
    for line in range(1, 6):
        rows.add("records", None, None, id=f"direct-{line}", age=timedelta(minutes=line))
    rows.add("rejected_records", None, None, id="bad")
    rows.add("rejected_records", None, None, id="other", kind="conflict")
    found = ask(stream=True)["stream"]
    assert (found["rows"], found["rejected"], found["conflicting"], found["exact"]) == (5, 1, 1, True)
    assert datetime.fromisoformat(found["last_row_at"]) == NOW - timedelta(minutes=1)

    monkeypatch.setattr("uploads.rows.COUNTED_BYTES", 0)
    rows.connection.run("ANALYZE records, rejected_records")
    found = ask(stream=True)["stream"]
    assert (found["rows"], found["rejected"], found["exact"]) == (5, 2, False)


def test_the_stream_is_told_while_postgres_is_away(
    aws: Aws, functions: None, empty_database: DatabaseSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in empty_database.model_dump(exclude_none=True).items():
        monkeypatch.setenv(name.upper(), str(value))
    found = report_module.handler({"stream": True}, Context())["stream"]
    assert found["rows"] is None
    assert "does not exist" in found["database"]


def test_a_database_that_does_not_answer_is_a_transient_error(empty_database: DatabaseSettings) -> None:
    stored = StoredRows(Database(empty_database))
    with pytest.raises(TransientError, match=r"Postgres does not answer this: .*records.* does not exist"):
        stored.by_chunk("u")
