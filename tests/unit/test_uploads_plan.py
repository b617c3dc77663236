"""uploads/plan: chunk jobs of each new upload, the same however often it is planned."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from common import clients
from common.errors import PermanentError, TransientError
from common.settings import ChunksSettings, PlanSettings, RegisterSettings, ReportSettings, Settings
from tests.unit.uploads_aws import (
    BUCKET,
    Aws,
    Context,
    moto_aws,
    stream_record,
    template,
)
from uploads import objects as objects_module
from uploads import plan as plan_module
from uploads.chunk_job import ChunkJob
from uploads.formats.csv_cuts import CsvCuts
from uploads.jobs import ChunkQueue
from uploads.ledger import ChunkPlan
from uploads.objects import Objects
from uploads.plan import Planner, handler, jobs
from uploads.register import Register
from uploads.upload import Upload

NOW = datetime(2026, 11, 21, 8, tzinfo=UTC)
LINE = b'{"a": 1}\n'


@pytest.fixture
def aws() -> Iterator[Aws]:
    with moto_aws() as resources:
        yield resources


def register(aws: Aws, key: str, body: bytes, **options: Any) -> str:
    outcome = Register(Objects(aws.s3), aws.ledger, BUCKET, now=lambda: NOW).handle(
        {"Records": [aws.put(key, body, **options)]}
    )
    return outcome.inserted[0]


def never() -> bool:
    return False


def after(blocks: int) -> Callable[[], bool]:
    """Time that runs short when it is asked for the next time after so many."""
    asked = iter(range(1_000_000))
    return lambda: next(asked) >= blocks


def planner(aws: Aws, chunk_bytes: int = 20) -> Planner:
    queue = ChunkQueue(aws.sqs, aws.queue_url)
    return Planner(Objects(aws.s3), aws.ledger, queue, chunk_bytes, now=lambda: NOW)


def ranges(found: list[dict[str, Any]]) -> list[tuple[int, int | None]]:
    return [(job["start"], job.get("end")) for job in found]


def test_ndjson_is_cut_at_multiples_of_the_chunk_size(aws: Aws) -> None:
    upload = register(aws, "a.ndjson", LINE * 5)
    assert planner(aws).plan(upload, never) == 3
    assert ranges(aws.jobs()) == [(0, 20), (20, 40), (40, 45)]


def test_a_job_says_all_that_the_chunk_needs(aws: Aws) -> None:
    upload = register(aws, "ü b+.ndjson", LINE, Metadata={"id-field": "id", "key-field": "k"})
    planner(aws).plan(upload, never)
    (job,) = aws.jobs()
    assert ChunkJob.model_validate(job) == ChunkJob(
        job=f"{upload}:0",
        upload=upload,
        bucket=BUCKET,
        key="ü b+.ndjson",
        etag=aws.s3.head_object(Bucket=BUCKET, Key="ü b+.ndjson")["ETag"],
        chunk=0,
        start=0,
        end=len(LINE),
        size=len(LINE),
        format="ndjson",
        id_field="id",
        key_field="k",
    )


def test_gzip_is_one_chunk_to_its_end(aws: Aws) -> None:
    upload = register(aws, "a.csv.gz", gzip.compress(b"x" * 100))
    planner(aws).plan(upload, never)
    (job,) = aws.jobs()
    assert (job["start"], "end" in job, job["gzip"]) == (0, False, True)


def test_an_empty_file_has_no_chunks(aws: Aws) -> None:
    upload = register(aws, "a.csv", b"")
    assert planner(aws).plan(upload, never) == 0
    assert aws.jobs() == []
    planned = aws.ledger.upload(upload)
    assert planned is not None
    assert (planned.chunks, planned.planned_at) == (0, NOW)


def test_the_ledger_learns_the_number_of_chunks(aws: Aws) -> None:
    upload = register(aws, "a.ndjson", LINE * 5)
    planner(aws).plan(upload, never)
    planned = aws.ledger.upload(upload)
    assert planned is not None
    assert (planned.chunks, planned.planned_at) == (3, NOW)


CSV = b'id,text\n1,"a\nb"\n2,"c, ""d"" \n\n e"\n3,plain\n4,plain\n'


def test_csv_is_cut_where_records_begin(aws: Aws) -> None:
    upload = register(aws, "a.csv", CSV)
    planner(aws, 10).plan(upload, never)
    cuts = [start for start, _ in ranges(aws.jobs())]
    assert [CSV[start:].partition(b",")[0] for start in cuts] == [b"id", b"2", b"3"]


@pytest.mark.parametrize("blocks", [2, 5])
def test_a_search_that_ran_out_of_time_goes_on(
    aws: Aws, monkeypatch: pytest.MonkeyPatch, blocks: int
) -> None:
    monkeypatch.setattr(objects_module, "BLOCK_BYTES", 16)
    body = b"id,text\n" + b"".join(b'%d,"x\ny"\n' % number for number in range(20))
    whole = register(aws, "whole.csv", body)
    planner(aws, 20).plan(whole, never)
    expected = ranges(aws.jobs())

    upload = register(aws, "a.csv", body)
    for attempt in range(20):
        with suppress(TransientError):
            # Another chunk size each time, as if a deploy came in between: the first one holds.
            planner(aws, 20 + attempt).plan(upload, after(blocks))
            break
    assert attempt >= 2
    assert ranges(aws.jobs()) == expected


def test_planning_again_sends_nothing(aws: Aws) -> None:
    upload = register(aws, "a.ndjson", LINE * 5)
    planner(aws).plan(upload, never)
    aws.jobs()
    assert planner(aws, 7).plan(upload, never) == 0
    assert aws.jobs() == []


@pytest.mark.parametrize("key", ["a.ndjson", "a.csv"])
def test_a_deploy_between_two_attempts_does_not_move_the_cuts(aws: Aws, key: str) -> None:
    class Full(ChunkQueue):
        def send(self, jobs: Any, time_is_short: Any) -> int:
            raise TransientError("the queue takes nothing")

    upload = register(aws, key, LINE * 5)
    first = Planner(Objects(aws.s3), aws.ledger, Full(aws.sqs, aws.queue_url), 20)
    with pytest.raises(TransientError):
        first.plan(upload, never)
    planner(aws, 7).plan(upload, never)
    found = ranges(aws.jobs())
    assert found == ([(0, 20), (20, 40), (40, 45)] if key == "a.ndjson" else [(0, 27), (27, 45)])


def test_a_crash_before_the_jobs_are_noted_sends_them_again(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = register(aws, "a.ndjson", LINE * 5)

    class CrashError(Exception):
        pass

    def crash(*_: Any) -> None:
        raise CrashError

    with monkeypatch.context() as patch:
        patch.setattr("uploads.ledger.Ledger.mark_planned", crash)
        with pytest.raises(CrashError):
            planner(aws).plan(upload, never)
    first = aws.jobs()
    planner(aws).plan(upload, never)
    assert aws.jobs() == first


def test_a_file_with_too_many_chunks_gets_larger_ones(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_module, "MAX_CHUNKS", 4)
    upload = register(aws, "a.ndjson", LINE * 5)
    planner(aws, 2).plan(upload, never)
    assert ranges(aws.jobs()) == [(0, 12), (12, 24), (24, 36), (36, 45)]


@pytest.mark.parametrize(("key", "body"), [("a.bin", b"x"), ("a.csv", b"\n")])
def test_an_upload_that_failed_or_is_removed_is_not_planned(aws: Aws, key: str, body: bytes) -> None:
    upload = register(aws, key, body)
    if key == "a.csv":
        aws.dynamodb.delete_item(TableName=aws.table, Key={"upload": {"S": upload}, "item": {"S": "upload"}})
    assert planner(aws).plan(upload, never) == 0
    assert aws.jobs() == []
    left = aws.ledger.upload(upload)
    assert left is None or left.chunks is None


@pytest.mark.parametrize("change", ["deleted", "overwritten"])
def test_an_object_gone_before_it_was_searched_fails_the_upload(aws: Aws, change: str) -> None:
    upload = register(aws, "a.csv", LINE * 5)
    if change == "deleted":
        aws.s3.delete_object(Bucket=BUCKET, Key="a.csv")
    else:
        aws.put("a.csv", b"other")
    assert planner(aws).plan(upload, never) == 0
    failed = aws.ledger.upload(upload)
    assert failed is not None
    assert failed.failed is not None
    assert failed.failed.endswith("and it was not planned before")
    assert planner(aws).plan(upload, never) == 0


def test_a_version_is_searched_though_it_is_overwritten() -> None:
    with moto_aws(versioned=True) as aws:
        upload = register(aws, "a.csv", LINE * 5)
        aws.put("a.csv", b"other")
        planner(aws).plan(upload, never)
        assert {job["version_id"] for job in aws.jobs()} == {
            version["VersionId"]
            for version in aws.s3.list_object_versions(Bucket=BUCKET)["Versions"]
            if not version["IsLatest"]
        }


@pytest.fixture
def invoke(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    monkeypatch.setenv("LEDGER_TABLE", aws.table)
    monkeypatch.setenv("CHUNK_QUEUE_URL", aws.queue_url)
    monkeypatch.setenv("CHUNK_BYTES", "20")
    made: list[Any] = [
        clients.dynamodb,
        clients.s3,
        clients.sqs,
        clients.dynamodb_for_notes,
        plan_module._planner,
        plan_module._settings,
        plan_module._waiting,
    ]
    for each in made:
        each.cache_clear()

    def invoke(*records: dict[str, Any], context: Context | None = None) -> list[str]:
        answer = handler({"Records": list(records)}, context or Context())
        return [failure["itemIdentifier"] for failure in answer["batchItemFailures"]]

    return invoke


def test_the_handler_plans_what_is_inserted(aws: Aws, invoke: Callable[..., list[str]]) -> None:
    upload = register(aws, "a.ndjson", LINE * 5)
    assert invoke(stream_record(upload)) == []
    assert len(aws.jobs()) == 3


@pytest.mark.parametrize(
    ("event", "item"),
    [
        ("MODIFY", "upload"),
        ("REMOVE", "upload"),
        ("INSERT", "plan"),
        ("INSERT", "chunk#000000"),
        ("MODIFY", "plan"),
    ],
)
def test_the_handler_ignores_everything_else(
    aws: Aws, invoke: Callable[..., list[str]], event: str, item: str
) -> None:
    upload = register(aws, "a.ndjson", LINE)
    assert invoke(stream_record(upload, item, event)) == []
    assert aws.jobs() == []


def test_only_what_failed_is_reported(
    aws: Aws, invoke: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    good, bad = register(aws, "a.ndjson", LINE), register(aws, "b.csv", LINE * 5)
    # Time for the first, and none for the search in the second.
    context = Context(remaining=[60_000, 0])
    assert invoke(stream_record(good, number=7), stream_record(bad, number=8), context=context) == ["8"]
    assert [job["upload"] for job in aws.jobs()] == [good]
    assert [vars(line)["upload"] for line in caplog.records if line.message == "Not planned"] == [bad]


def test_that_all_fail_is_an_answer_and_no_error(aws: Aws, invoke: Callable[..., list[str]]) -> None:
    upload = register(aws, "a.ndjson", LINE)
    assert invoke(stream_record(upload, number=7), context=Context(remaining=[0])) == ["7"]


def test_why_an_upload_waits_is_noted_until_one_is_planned(
    aws: Aws, invoke: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = register(aws, "a.ndjson", LINE)
    invoke(stream_record(upload), context=Context(remaining=[0]))
    [note] = aws.ledger.waiting()
    assert (note.function, note.reason) == ("plan", "the time ran short after 0 chunk jobs")
    invoke(stream_record(upload))
    assert aws.ledger.waiting() == []


def test_a_defect_is_noted_without_what_it_says(
    aws: Aws, invoke: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a secret of the file")

    monkeypatch.setattr(plan_module, "jobs", broken)
    invoke(stream_record(register(aws, "a.ndjson", LINE)))
    [note] = aws.ledger.waiting()
    assert note.reason == "it fails with ZeroDivisionError: see its log"


def test_the_template_lets_only_inserted_uploads_through() -> None:
    resources = template()["Resources"]
    event = resources["PlanFunction"]["Properties"]["Events"]["Registered"]["Properties"]
    (pattern,) = [each["Pattern"] for each in event["FilterCriteria"]["Filters"]]
    assert pattern == '{"eventName": ["INSERT"], "dynamodb": {"Keys": {"item": {"S": ["upload"]}}}}'
    assert event["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    stream = resources["LedgerTable"]["Properties"]["StreamSpecification"]["StreamViewType"]
    assert stream == "NEW_AND_OLD_IMAGES"


def test_an_upload_without_a_format_has_no_jobs() -> None:
    upload = Upload(upload="u", bucket="b", key="k", etag="e", size=1, registered_at=NOW)
    with pytest.raises(ValueError, match="unknown format"):
        list(jobs(upload, [0]))


def test_the_template_gives_each_function_the_settings_it_needs() -> None:
    resources = template()["Resources"]
    functions: dict[str, type[Settings]] = {
        "RegisterFunction": RegisterSettings,
        "PlanFunction": PlanSettings,
        "ChunksFunction": ChunksSettings,
        "ReportFunction": ReportSettings,
    }
    for function, settings in functions.items():
        given = set(resources[function]["Properties"]["Environment"]["Variables"])
        given |= set(template()["Globals"]["Function"]["Environment"]["Variables"])
        needed = {name.upper() for name, field in settings.model_fields.items() if field.is_required()}
        assert needed <= given, function


def test_a_job_is_hidden_for_longer_than_the_function_may_run() -> None:
    resources = template()["Resources"]
    timeout = resources["ChunksFunction"]["Properties"]["Timeout"]
    assert resources["ChunkQueue"]["Properties"]["VisibilityTimeout"] >= timeout


def test_a_search_that_finds_no_cut_goes_on_where_it_was(aws: Aws, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row of nothing but commas: each attempt has the time for one block."""
    monkeypatch.setattr(objects_module, "BLOCK_BYTES", 16)
    upload = register(aws, "a.csv", b"a,b\n" + b"," * 200 + b"\nc,d\n")
    read: list[int] = []
    objects = Objects(aws.s3)
    blocks = objects.blocks

    def counted(upload: Upload, start: int) -> Iterator[bytes]:
        read.append(start)
        return blocks(upload, start)

    monkeypatch.setattr(objects, "blocks", counted)
    for _ in range(20):
        one = Planner(objects, aws.ledger, ChunkQueue(aws.sqs, aws.queue_url), 20, now=lambda: NOW)
        with suppress(TransientError):
            one.plan(upload, after(2))
            break
    assert read == list(range(0, 209, 32))
    assert ranges(aws.jobs()) == [(0, 205), (205, 209)]


def test_a_search_that_a_release_before_began_goes_on_from_its_last_cut(aws: Aws) -> None:
    upload = register(aws, "a.csv", CSV)
    cut = CSV.index(b"2,")
    aws.ledger.open_plan(upload, 10)
    aws.ledger.save_plan(upload, ChunkPlan(chunk_bytes=10, cuts=(cut,)))
    assert aws.item(upload, "plan") is not None
    assert "searched" not in (aws.item(upload, "plan") or {})
    planner(aws, 10).plan(upload, never)
    assert [CSV[start:].partition(b",")[0] for start, _ in ranges(aws.jobs())] == [b"id", b"2", b"3"]


def test_a_csv_file_with_a_field_that_is_never_closed_is_not_searched_to_its_end(
    aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "BLOCK_BYTES", 16)
    monkeypatch.setattr(plan_module, "CsvCuts", partial(CsvCuts, max_open_bytes=64))
    body = b"a,b\n" * 10 + b'c,"' + b"d\n" * 1000
    upload = register(aws, "a.csv", body)
    requests: list[str] = []
    get_object = aws.s3.get_object

    def counted(**request: Any) -> Any:
        requests.append(request["Range"])
        return get_object(**request)

    monkeypatch.setattr(aws.s3, "get_object", counted)
    planner(aws, 20).plan(upload, never)
    assert ranges(aws.jobs()) == [(0, 20), (20, 40), (40, len(body))]
    assert len(requests) < 10


def test_a_file_of_other_separators_is_cut_by_them(aws: Aws) -> None:
    body = b'a;b\n1;"x\ny"\n2;x,"y"\n3;z\n'
    upload = register(aws, "a.csv", body, Metadata={"delimiter": ";"})
    planner(aws, 8).plan(upload, never)
    found = aws.jobs()
    assert {job["delimiter"] for job in found} == {";"}
    assert [body[job["start"] :].partition(b";")[0] for job in found] == [b"a", b"2", b"3"]


def test_a_json_file_is_one_chunk(aws: Aws) -> None:
    body = b"[" + b'{"a": 1},\n' * 50 + b"{}]"
    upload = register(aws, "a.json", body)
    planner(aws, 20).plan(upload, never)
    (job,) = aws.jobs()
    assert (job["format"], job["start"], job["end"]) == ("json", 0, len(body))


def test_a_record_of_another_table_is_not_passed_over_in_silence(
    aws: Aws, invoke: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    upload = register(aws, "a.ndjson", LINE)
    foreign = stream_record("x", number=7)
    foreign["dynamodb"]["Keys"] = {"order_id": {"N": "17"}}
    foreign["eventSourceARN"] = "arn:aws:dynamodb:eu-west-1:123456789012:table/orders/stream/1"
    assert invoke(foreign, stream_record(upload, number=8)) == ["7"]
    (line,) = [line for line in caplog.records if line.message == "Not planned"]
    assert line.exc_info
    assert "its keys are order_id, and not item, upload; it comes from arn:aws:dynamodb" in str(
        line.exc_info[1]
    )
    assert len(aws.jobs()) == 1


@pytest.mark.filterwarnings("ignore:No application metrics to publish")
@pytest.mark.parametrize("source", ["aws:kinesis", "aws:sqs"])
def test_an_event_of_another_service_is_refused_by_its_name(source: str) -> None:
    with pytest.raises(
        PermanentError, match=f"^not an event of a DynamoDB stream: .* eventSource is '{source}'"
    ):
        handler({"Records": [{"eventSource": source}]}, Context())
