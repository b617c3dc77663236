"""One chunk job from the object to the ledger: what is published, what is counted, and what becomes of faults."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import accumulate, pairwise
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import PermanentError, TransientError
from producer.publish import Publisher
from records.record import Record, RejectedLine
from tables.check import check_payload
from tests.unit.chunk_files import ETAG, UPLOAD, FakeS3, client_error, job_of
from uploads import chunk_worker, object_bytes
from uploads.chunk_job import ChunkCount, ChunkFailure, ChunkJob
from uploads.chunk_ledger import ChunkLedger
from uploads.chunk_worker import ChunkWorker
from uploads.formats import entries as rows
from uploads.formats.csv_cuts import CsvCuts
from uploads.formats.csv_rows import csv_rows
from uploads.formats.gunzip import gunzip

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)


class FakeKinesis:
    """A stream of one shard that takes everything, or refuses everything."""

    def __init__(self) -> None:
        self.data: list[bytes] = []
        self.refuses: set[bytes] = set()
        self.on_put: Callable[[], None] = lambda: None

    def put_records(self, *, StreamName: str, Records: list[dict[str, Any]]) -> dict[str, Any]:
        assert StreamName == "records"
        self.on_put()
        answers: list[dict[str, str]] = []
        for record in Records:
            if any(word in record["Data"] for word in self.refuses):
                answers.append({"ErrorCode": "InternalFailure", "ErrorMessage": "refused"})
            else:
                self.data.append(record["Data"])
                answers.append({"SequenceNumber": "1", "ShardId": "shardId-000000000000"})
        return {"Records": answers}


class FakeDynamoDB:
    def __init__(self) -> None:
        self.items: dict[tuple[str, str], Any] = {}
        self.fault: Exception | None = None
        self.read_fault: Exception | None = None

    def get_item(self, *, TableName: str, Key: dict[str, Any], ConsistentRead: bool) -> dict[str, Any]:
        assert TableName == "ledger"
        assert ConsistentRead
        if self.read_fault:
            raise self.read_fault
        item = self.items.get((Key["upload"]["S"], Key["item"]["S"]))
        return {"Item": item} if item else {}

    def put_item(self, *, TableName: str, Item: dict[str, Any]) -> None:
        assert TableName == "ledger"
        if self.fault:
            raise self.fault
        self.items[Item["upload"]["S"], Item["item"]["S"]] = Item


class World:
    """A worker between an object, a stream and a ledger."""

    def __init__(self, data: bytes, etag: str = ETAG) -> None:
        self.s3 = FakeS3(data, etag)
        self.kinesis = FakeKinesis()
        self.ledger = FakeDynamoDB()
        self.time = 0.0
        publisher = Publisher(
            self.kinesis,  # type: ignore[arg-type]
            "records",
            attempts=2,
            clock=lambda: self.time,
            sleep=self._sleep,
            random=lambda: 0.0,
        )
        self.worker = ChunkWorker(
            self.s3,  # type: ignore[arg-type]
            publisher,
            ChunkLedger(self.ledger, "ledger"),  # type: ignore[arg-type]
            now=lambda: NOW,
        )

    def _sleep(self, seconds: float) -> None:
        self.time += seconds

    def invocation(self, seconds: float) -> Callable[[], float]:
        """What is left of one that begins now."""
        ends = self.time + seconds
        return lambda: ends - self.time

    def work(self, job: ChunkJob, seconds: float = 60.0) -> ChunkCount:
        return self.worker.work(job, lambda: seconds)

    @property
    def records(self) -> list[Record]:
        return [
            Record.from_bytes(data, check_payload) for data in self.kinesis.data if b'"rejected":' not in data
        ]

    @property
    def rejected(self) -> list[RejectedLine]:
        lines = [RejectedLine.from_bytes(data) for data in self.kinesis.data if b'"rejected":' in data]
        return [line for line in lines if line]

    @property
    def failure(self) -> ChunkFailure | None:
        item = self.ledger.items.get((UPLOAD, "failure#000000"))
        return ChunkFailure.from_item(item) if item else None


def lines_of(numbers: range) -> bytes:
    return b"".join(b'{"n": %d}\n' % number for number in numbers)


def test_a_chunk_is_published_and_then_counted_and_doing_it_twice_changes_neither_ids_nor_count() -> None:
    data = b'{"n": 1}\n\nnonsense\n{"n": 2}'
    world = World(data)
    count = world.work(job_of(data))
    assert count == ChunkCount(
        chunk=0, start=0, end=len(data), lines=3, published=2, rejected=1, file_lines=4, published_at=NOW
    )
    items = dict(world.ledger.items)
    assert items == {(UPLOAD, "chunk#000000"): count.to_item(UPLOAD)}
    ids = [record.id for record in world.records]
    assert world.work(job_of(data)) == count
    assert world.ledger.items == items
    assert [record.id for record in world.records] == ids * 2
    assert len({line.id for line in world.rejected}) == 1


@settings(max_examples=60)
@given(
    lines=st.lists(st.sampled_from([b'{"n":1}', b"bad", b"", b" ", b'{"n":"\\u00e9"}\r']), max_size=30),
    last=st.sampled_from([b"", b"\n"]),
    chunk_bytes=st.integers(1, 50),
    gzipped=st.booleans(),
)
def test_the_chunks_of_an_ndjson_file_publish_each_line_once_with_its_true_number(
    lines: list[bytes], last: bytes, chunk_bytes: int, gzipped: bool
) -> None:
    data = b"\n".join(lines) + last
    stored = gzip.compress(data) if gzipped else data
    starts = [0] if gzipped else list(range(0, len(data), chunk_bytes))
    world = World(stored)
    counts = [
        world.work(job_of(stored, chunk=chunk, start=start, end=end, gzip=gzipped))
        for chunk, (start, end) in enumerate(pairwise([*starts, len(stored)]))
    ]
    before = list(accumulate((count.file_lines for count in counts), initial=0))
    arrived = {}
    for message in [*world.records, *world.rejected]:
        assert message.upload is not None
        offset = int(message.id.removeprefix(f"{UPLOAD}:"))
        assert offset not in arrived
        arrived[offset] = before[message.upload.chunk] + message.upload.line
    offsets = list(accumulate((len(line) + 1 for line in lines), initial=0))
    wanted = {
        offset: number
        for number, (offset, line) in enumerate(zip(offsets, lines, strict=False), 1)
        if line.strip()
    }
    assert arrived == wanted
    assert sum(count.lines for count in counts) == len(wanted)
    assert before[-1] == len(data.splitlines())


@pytest.mark.parametrize("gzipped", [False, True])
def test_every_chunk_of_a_csv_file_reads_the_header_from_the_files_start(gzipped: bool) -> None:
    text = b'n,"te""xt"\r\n' + b"".join(b'%d,"two\nlines"\r\n' % number for number in range(50)) + b"x\r\n"
    data = gzip.compress(text) if gzipped else text
    starts = [0] if gzipped else [0, *CsvCuts(200).feed(text)]
    world = World(data)
    counts = [
        world.work(job_of(data, chunk=chunk, start=start, end=end, format="csv", gzip=gzipped))
        for chunk, (start, end) in enumerate(pairwise([*starts, len(data)]))
    ]
    assert len(counts) == (1 if gzipped else 4)
    assert [json.loads(record.payload_json) for record in world.records] == [
        {"n": str(number), 'te"xt': "two\nlines"} for number in range(50)
    ]
    assert [line.rejected.reason for line in world.rejected] == ["1 fields, and the header has 2"]
    assert sum(count.lines for count in counts) == 51
    assert sum(count.file_lines for count in counts) == 102


def test_a_csv_file_of_nothing_but_a_header_or_blank_lines_has_no_lines() -> None:
    for data, file_lines in ((b"a,b", 1), (b"\n\r\n\n", 3)):
        count = World(data).work(job_of(data, format="csv"))
        assert (count.lines, count.file_lines) == (0, file_lines)


@pytest.mark.parametrize(
    ("cut", "reason"),
    [(-20, "damaged gzip file: it ends early"), (None, "not a gzip file, or a damaged one: ")],
)
def test_a_damaged_gzip_file_fails_for_good_after_what_could_be_read(cut: int | None, reason: str) -> None:
    packed = gzip.compress(lines_of(range(20_000)))
    data = packed[:cut] if cut else packed + b"garbage"
    world = World(data)
    with pytest.raises(PermanentError, match=f"^{reason}"):
        world.work(job_of(data, gzip=True))
    numbers = [json.loads(record.payload_json)["n"] for record in world.records]
    assert numbers == list(range(len(numbers)))
    assert len(numbers) > 10_000
    assert world.failure
    assert world.failure.failed.startswith(reason)
    assert world.failure.failed_at == NOW
    assert (UPLOAD, "chunk#000000") not in world.ledger.items


def test_a_csv_file_whose_header_is_none_fails_for_good_and_publishes_nothing() -> None:
    data = b"a,b,a\n1,2,3\n"
    world = World(data)
    with pytest.raises(PermanentError, match="names 2 columns"):
        world.work(job_of(data, format="csv"))
    assert world.failure
    assert world.failure.failed == "the CSV header names 2 columns 'a'"
    assert world.kinesis.data == []


def test_an_object_that_has_changed_fails_for_good_and_the_ledger_says_why() -> None:
    data = lines_of(range(3))
    world = World(data, etag='"another"')
    with pytest.raises(PermanentError, match="the object has changed since it was planned"):
        world.work(job_of(data))
    assert world.failure
    assert world.failure.failed == "the object has changed since it was planned"


def test_a_failure_is_no_count_so_a_chunk_that_was_published_stays_published() -> None:
    data = lines_of(range(3))
    world = World(data)
    world.work(job_of(data))
    world.s3.faults = [client_error("NoSuchKey", 404)]
    with pytest.raises(PermanentError):
        world.work(job_of(data))
    assert set(world.ledger.items) == {(UPLOAD, "chunk#000000"), (UPLOAD, "failure#000000")}


def test_records_that_the_stream_did_not_take_leave_the_chunk_uncounted() -> None:
    data = lines_of(range(3))
    world = World(data)
    world.kinesis.refuses = {b'"n": 1}'}
    with pytest.raises(TransientError, match="the chunk was not published whole: InternalFailure: refused"):
        world.work(job_of(data))
    assert world.ledger.items == {}
    world.kinesis.refuses = set()
    assert world.work(job_of(data)).published == 3
    assert {json.loads(record.payload_json)["n"] for record in world.records} == {0, 1, 2}


def test_when_the_time_runs_out_the_chunk_is_left_to_the_next_delivery() -> None:
    data = lines_of(range(3))
    world = World(data)
    with pytest.raises(TransientError, match="the time ran out"):
        world.work(job_of(data), seconds=0.0)
    assert (world.ledger.items, world.kinesis.data) == ({}, [])


def interrupted(
    world: World, job: ChunkJob, *, a_request: float, an_invocation: float
) -> tuple[ChunkCount, int]:
    """Deliver a job whose requests take so long, to invocations of so many seconds, until it is done."""

    def request() -> None:
        world.time += a_request

    world.kinesis.on_put = request
    for delivery in range(1, 100):
        ends = world.time + an_invocation
        try:
            return world.worker.work(job, lambda ends=ends: ends - world.time), delivery  # type: ignore[misc]
        except TransientError as error:
            assert "the time ran out" in str(error)  # noqa: PT017 (each delivery but the last)
    raise AssertionError("it never gets done")


CSV = b'n,"te""xt"\r\n' + b"".join(b'%d,"two\nlines"\r\n' % number for number in range(6_000)) + b"x\r\n\r\n"
NDJSON = b"{}\n\n" + b"\n".join(b'{"n": %d}' % number for number in range(6_000)) + b"\nbad"


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (NDJSON, {}),
        (NDJSON, {"start": 100}),
        (NDJSON, {"end": len(NDJSON) - 20_000}),
        (gzip.compress(NDJSON), {"gzip": True}),
        (CSV, {"format": "csv"}),
        (gzip.compress(CSV), {"format": "csv", "gzip": True}),
    ],
)
def test_a_chunk_that_takes_longer_than_an_invocation_goes_on_where_it_was(
    data: bytes, changes: dict[str, Any]
) -> None:
    job = job_of(data, **changes)
    at_once, world = World(data), World(data)
    count, deliveries = interrupted(world, job, a_request=10.0, an_invocation=50.0)
    assert deliveries > 1
    assert count == at_once.work(job)
    assert set(world.kinesis.data) == set(at_once.kinesis.data)
    before = len(world.kinesis.data)
    world.kinesis.on_put = lambda: None
    assert world.work(job) == count
    assert len(world.kinesis.data) - before == len(at_once.kinesis.data)
    # What is sent twice is what was on its way when the time ran out.
    assert before < 1.8 * len(at_once.kinesis.data)


def test_a_chunk_in_many_parts_is_not_published_twice() -> None:
    world = World(NDJSON)
    count, deliveries = interrupted(world, job_of(NDJSON), a_request=10.0, an_invocation=10_000.0)
    assert deliveries == 1
    assert count.lines == len(world.kinesis.data) == len(set(world.kinesis.data))
    assert set(world.ledger.items) == {(UPLOAD, "chunk#000000")}


def test_what_s3_does_not_deliver_is_left_to_the_next_delivery() -> None:
    data = lines_of(range(3))
    world = World(data)
    world.s3.faults = [client_error("SlowDown", 503)]
    with pytest.raises(TransientError, match="SlowDown"):
        world.work(job_of(data))
    assert world.ledger.items == {}


@pytest.mark.parametrize(
    "fault",
    [client_error("ProvisionedThroughputExceededException"), EndpointConnectionError(endpoint_url="x")],
)
def test_a_chunk_that_could_not_be_counted_is_done_again(fault: Exception) -> None:
    data = lines_of(range(3))
    world = World(data)
    world.ledger.fault = fault
    with pytest.raises(TransientError, match="the ledger cannot be written"):
        world.work(job_of(data))


def test_a_ledger_that_cannot_be_read_leaves_the_chunk_to_the_next_delivery() -> None:
    data = lines_of(range(3))
    world = World(data)
    world.ledger.read_fault = client_error("InternalServerError", 500)
    with pytest.raises(TransientError, match="the ledger cannot be read"):
        world.work(job_of(data))
    assert world.kinesis.data == []


def test_a_record_on_the_stream_is_what_the_consumer_reads() -> None:
    data = b'{"order": 17, "customer": "c"}\n'
    world = World(data)
    world.work(job_of(data, id_field="order", key_field="customer"))
    assert [json.loads(data) for data in world.kinesis.data] == [
        {
            "id": "17",
            "partition_key": "c",
            "payload": {"order": 17, "customer": "c"},
            "upload": {"id": UPLOAD, "chunk": 0, "line": 1},
        }
    ]


JSON = b"\xef\xbb\xbf[\n" + b",\n".join(b'{"n": %d}' % number for number in range(6_000)) + b', "bad"\n]\n'
DOCUMENTS = b'{\n"n": 0}\n{"n": 1}{"n": 2}\n[]'


@pytest.mark.parametrize("gzipped", [False, True])
def test_each_element_of_an_array_is_a_record_and_its_number_is_its_line(gzipped: bool) -> None:
    data = gzip.compress(JSON) if gzipped else JSON
    world = World(data)
    count = world.work(job_of(data, format="json", gzip=gzipped))
    assert (count.lines, count.published, count.rejected, count.file_lines) == (6_001, 6_000, 1, 6_001)
    for number, record in enumerate(world.records):
        assert json.loads(record.payload_json) == {"n": number}
        assert record.id == f"{UPLOAD}:{JSON.index(b'{"n": %d}' % number)}"
        assert record.upload
        assert record.upload.line == number + 1
    (bad,) = world.rejected
    assert (bad.rejected.raw, bad.upload.line) == (b'"bad"', 6_001)


def test_documents_of_several_lines_are_records() -> None:
    world = World(DOCUMENTS)
    count = world.work(job_of(DOCUMENTS, format="json"))
    assert [json.loads(record.payload_json) for record in world.records] == [{"n": 0}, {"n": 1}, {"n": 2}]
    assert world.records[0].payload_json == '{\n"n": 0}', "byte for byte"
    assert [line.rejected.raw for line in world.rejected] == [b"[]"]
    assert (count.lines, count.file_lines) == (4, 4)


@pytest.mark.parametrize(
    ("data", "changes"),
    [
        (JSON, {"format": "json"}),
        (gzip.compress(JSON), {"format": "json", "gzip": True}),
        (JSON[5 : JSON.index(b', "bad"')].replace(b",\n", b" "), {"format": "json"}),
        (CSV.replace(b",", b";"), {"format": "csv", "delimiter": ";"}),
    ],
)
def test_what_takes_longer_than_an_invocation_goes_on_behind_an_element_or_row(
    data: bytes, changes: dict[str, Any]
) -> None:
    test_a_chunk_that_takes_longer_than_an_invocation_goes_on_where_it_was(data, changes)


def test_damage_in_a_json_file_fails_it_there_and_nothing_is_published_twice() -> None:
    data = JSON.replace(b',\n{"n": 5000}', b'\n{"n": 5000}')
    world = World(data)
    job = job_of(data, format="json")
    for _ in range(2):
        with pytest.raises(
            PermanentError, match=r"damaged at byte .*, behind element 5000: a comma or the end"
        ):
            world.work(job)
        assert [json.loads(record.payload_json)["n"] for record in world.records] == list(range(5_000))
    assert world.failure
    assert str(data.index(b'{"n": 5000}')) in world.failure.failed


@pytest.mark.parametrize(
    ("known", "blank"),
    [("ndjson", b"\n"), ("ndjson", b"\r\n"), ("ndjson", b"  \n"), ("csv", b"\n"), ("csv", b"\r\n")],
)
def test_blank_lines_are_looked_at_by_the_clock_and_gone_on_behind(
    known: str, blank: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    for size in ("SEGMENT_BYTES", "BLOCK_BYTES"):
        monkeypatch.setattr(object_bytes, size, 8192)
    empty = blank * (250_000 // len(blank))
    first, second = (b'{"n": "1"}\n', b'{"n": "2"}\n') if known == "ndjson" else (b"n\n1\n", b"2\n")
    data = first + empty + second
    world = World(data)
    job = job_of(data, format=known)
    get_object = world.s3.get_object

    def slow(**request: Any) -> dict[str, Any]:
        world.time += 4.0
        return get_object(**request)

    monkeypatch.setattr(world.s3, "get_object", slow)
    count, ends = None, []
    while count is None and len(ends) < 20:
        left = world.invocation(60.0)
        with suppress(TransientError):
            count = world.worker.work(job, left)
        ends.append(left())
    assert len(ends) > 2
    assert min(ends) > -5, "nothing is begun after an invocation's time"
    assert count
    assert (count.lines, count.file_lines) == (2, data.count(b"\n"))
    assert [json.loads(record.payload_json)["n"] for record in world.records] == ["1", "2"]


def test_a_packed_file_that_takes_an_invocation_to_unpack_as_far_as_it_is_published_fails_for_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = gzip.compress(b'{"n": 1}\n' + b"\n" * 20_000_000)
    world = World(data)
    job = job_of(data, gzip=True)

    def slow(blocks: Iterable[bytes]) -> Iterator[bytes]:
        for block in gunzip(blocks):
            world.time += 1.0
            yield block

    monkeypatch.setattr(chunk_worker, "gunzip", slow)
    with pytest.raises(TransientError, match="the time ran out"):
        world.worker.work(job, world.invocation(200.0))
    with pytest.raises(
        PermanentError, match=r"to unpack the file as far as it is published, .* load it unpacked"
    ):
        world.worker.work(job, world.invocation(90.0))
    assert world.failure
    assert len(world.kinesis.data) == 1


def test_a_csv_row_that_is_never_over_fails_the_chunk_and_what_comes_before_is_loaded_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(rows, "csv_rows", partial(csv_rows, max_open_bytes=100_000))
    data = (
        b"n,text\n" + b"".join(b"%d,x\n" % number for number in range(3_000)) + b'9,"' + b"open\n" * 100_000
    )
    world = World(data)
    job = job_of(data, format="csv")
    for _ in range(2):
        with pytest.raises(
            PermanentError, match=r"\(line 3002 of its chunk\) is not over after 100000 bytes: a quot"
        ):
            world.work(job)
        assert len(world.kinesis.data) == 3_000
    assert world.failure


def test_a_csv_file_whose_header_does_not_begin_is_not_searched_to_its_end() -> None:
    data = b"\n" * 3_000_000
    world = World(data)
    with pytest.raises(PermanentError, match="the CSV header does not begin in the file's first 65536 bytes"):
        world.work(job_of(data, format="csv"))
    assert world.s3.ranges[-1][1] < 1_000_000
