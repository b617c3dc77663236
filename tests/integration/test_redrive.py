"""Rejected records that come again: rows and rejections add up at every moment."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import EventType

from consumer.decode import Arrived, Rejection, decode, digest
from consumer.sink import PostgresSink
from oncestream.engine import Outcome
from oncestream.processor import SinkProcessor
from postgres.database import Database
from records.record import LineFault, Origin, RejectedLine
from tests.unit.consumer_support import Context, FakeIdempotency, message, stream_record
from uploads import redrive as module
from uploads.chunk_job import ChunkCount, ChunkJob
from uploads.ledger import UploadEntry
from uploads.redrive import Redrive
from uploads.upload import Upload

NOW = datetime(2026, 11, 21, tzinfo=UTC)
UPLOAD = Upload(
    upload="u" * 32, bucket="b", key="a.ndjson", etag='"e"', size=300, format="ndjson", registered_at=NOW
)


class Ledger:
    """Knows one upload, and two chunks of it."""

    def entry(self, upload: str) -> UploadEntry | None:
        counts = tuple(
            ChunkCount(
                chunk=chunk, start=chunk * 100, end=chunk * 100 + 100, lines=5, published=5, rejected=0,
                file_lines=5, published_at=NOW,
            )
            for chunk in (0, 1)
        )  # fmt: skip
        return UploadEntry(UPLOAD, counts) if upload == UPLOAD.upload else None


class World:
    """A sink and a redriver on one database, and a connection to look at it."""

    def __init__(self, settings: Any) -> None:
        self.database = Database(settings)
        self.sink = PostgresSink(self.database)
        self.redrive = Redrive(Ledger(), self.database)  # type: ignore[arg-type]
        self.admin = settings.connect()
        self.claims = FakeIdempotency()

    def deliver(self, *messages: bytes, redriven: bool = False) -> list[Outcome]:
        """The consumer at work on a batch, with its claims; ``redriven`` ones have the key that the redriver gives."""
        records = [stream_record(data, number) for number, data in enumerate(messages, 1)]
        if redriven:
            for record, data in zip(records, messages, strict=True):
                record["kinesis"]["partitionKey"] = digest(data)
        processor = SinkProcessor(EventType.KinesisDataStreams, self.claims, self.sink)
        with processor(records, decode, Context()):  # type: ignore[arg-type]
            processor.process()
        return [result.outcome for result in processor.results]

    def reject(self, data: bytes) -> None:
        """Have Postgres refuse a message that it would take otherwise."""
        self.refuse()
        assert self.deliver(data) == [Outcome.REJECTED]
        self.accept()

    def refuse(self) -> None:
        """From now on Postgres takes no payload with a field "bad"."""
        self.admin.run("ALTER TABLE records ADD CONSTRAINT good CHECK (NOT payload ? 'bad')")

    def accept(self) -> None:
        self.admin.run("ALTER TABLE records DROP CONSTRAINT good")

    def ids(self, table: str) -> list[str]:
        return [row[0] for row in self.admin.run(f"SELECT id FROM {table} ORDER BY id")]

    def marked(self) -> int:
        return int(
            self.admin.run("SELECT count(*) FROM rejected_records WHERE redriven_at IS NOT NULL")[0][0]
        )


@pytest.fixture
def world(database: Any) -> Iterator[World]:
    made = World(database)
    yield made
    made.admin.close()
    made.database.close()


def arrive(data: bytes | str) -> Arrived:
    found = decode(stream_record(data))
    assert isinstance(found, Arrived)
    return found


def line(place: tuple[str, int, int], offset: int) -> Rejection:
    upload, chunk, number = place
    rejected = RejectedLine(
        id=f"{upload}:{offset}",
        partition_key="k",
        rejected=LineFault(reason="too strict", raw=b"raw"),
        upload=Origin(id=upload, chunk=chunk, line=number),
    )
    found = decode(stream_record(rejected.to_bytes()))
    assert isinstance(found, Rejection)
    return found


PLACE = (UPLOAD.upload, 0, 3)


def test_a_message_that_comes_again_and_is_taken_is_a_row_and_no_rejection(world: World) -> None:
    world.refuse()
    bad = arrive(message("r1", {"bad": 1}))
    world.sink.store([bad, arrive(message("r2", {"fine": 1}))])
    assert (world.ids("records"), len(world.ids("rejected_records"))) == (["r2"], 1)

    world.accept()
    page = world.redrive.messages(None, "")
    [sent] = page["messages"]
    assert base64.b64decode(sent["data"]) == bad.raw
    assert page["next"] == sent["id"]
    assert world.redrive.messages(None, page["next"]) == {"messages": [], "next": None}
    assert world.marked() == 1
    for _ in range(2):
        world.sink.store([arrive(base64.b64decode(sent["data"]))])
        assert (world.ids("records"), world.ids("rejected_records")) == (["r1", "r2"], [])


def test_a_message_that_is_refused_again_stays_one_rejection_and_is_counted_again(world: World) -> None:
    world.refuse()
    bad = arrive(message("r1", {"bad": 1}))
    world.sink.store([bad])
    for _ in range(2):
        world.redrive.messages(None, "")
        stored = world.sink.store([bad])
        assert len(stored.rejected) == 1
        assert (len(world.ids("rejected_records")), world.marked()) == (1, 0)
    assert world.sink.store([bad]).rejected == frozenset()


def test_what_nobody_redrives_is_left_alone(world: World) -> None:
    world.refuse()
    bad = arrive(message("r1", {"bad": 1}))
    world.sink.store([bad])
    world.accept()
    world.sink.store([arrive(message("r2", {}))])
    assert len(world.ids("rejected_records")) == 1


def test_a_line_that_comes_again_is_settled_once_whatever_it_becomes(world: World) -> None:
    """A row, another rejection (now Postgres refuses what the producer took), or the same one."""
    record = message(f"{UPLOAD.upload}:40", {"bad": 1}, PLACE)
    world.sink.store([], [line(PLACE, 40)])
    assert world.redrive.chunks(None, "")["jobs"]
    world.refuse()
    world.sink.store([arrive(record)])
    assert world.ids("records") == []
    assert len(world.ids("rejected_records")) == 1
    assert world.ids("rejected_records") != [f"{UPLOAD.upload}:40"]

    world.accept()
    assert len(world.redrive.messages(UPLOAD.upload, "")["messages"]) == 1
    world.sink.store([arrive(record)])
    assert (world.ids("records"), world.ids("rejected_records")) == ([f"{UPLOAD.upload}:40"], [])


def test_a_line_that_repeats_an_id_is_a_repeat_and_no_rejection(world: World) -> None:
    world.sink.store([arrive(message("own", {}, (UPLOAD.upload, 0, 1)))], [line(PLACE, 40)])
    world.redrive.chunks(None, "")
    world.sink.store([arrive(message("own", {}, PLACE))])
    assert world.ids("rejected_records") == []
    assert world.admin.run("SELECT upload_line FROM repeated_records") == [[3]]


def test_the_jobs_are_those_of_plan_one_a_chunk(world: World) -> None:
    places = [(UPLOAD.upload, 0, 1), (UPLOAD.upload, 0, 2), (UPLOAD.upload, 1, 1), ("gone", 0, 1)]
    world.sink.store([], [line(place, number) for number, place in enumerate(places)])
    assert world.redrive.count(None) == {
        "messages": 0, "lines": 4, "chunks": 3, "reasons": [["too strict", 4]],
    }  # fmt: skip
    assert world.redrive.count(UPLOAD.upload)["lines"] == 3
    page = world.redrive.chunks(None, "")
    jobs = [ChunkJob.from_json(body) for body in page["jobs"]]
    assert [(job.chunk, job.start, job.end, job.etag) for job in jobs] == [
        (0, 0, 100, '"e"'),
        (1, 100, 200, '"e"'),
    ]
    assert page["unknown"] == ["gone:0"]
    assert world.redrive.chunks(None, page["next"]) == {"jobs": [], "unknown": [], "next": None}
    assert world.marked() == 3


def test_messages_come_in_pages_that_fit_into_an_answer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PAGE_BYTES", 250)
    bodies = [json.dumps({"no record": f"{number}", "x": "x" * 80}).encode() for number in range(5)]
    rejections = [decode(stream_record(body)) for body in bodies]
    world.sink.store([], [each for each in rejections if isinstance(each, Rejection)])
    seen: list[bytes] = []
    pages, after = 0, ""
    while True:
        page = world.redrive.messages(None, after)
        if page["next"] is None:
            break
        after, pages = page["next"], pages + 1
        seen += [base64.b64decode(each["data"]) for each in page["messages"]]
    assert sorted(seen) == sorted(bodies)
    assert pages == 3


def test_a_message_whose_id_another_one_has_brought_since_stays_rejected(world: World) -> None:
    world.refuse()
    world.sink.store([arrive(message("r1", {"bad": 1}))])
    world.sink.store([arrive(message("r1", {"good": 1}))])
    assert world.redrive.count(None)["messages"] == 0
    assert world.redrive.messages(None, "")["messages"] == []
    assert (world.ids("records"), len(world.ids("rejected_records"))) == (["r1"], 1)


# --- a redriven record whose id is known: it never was, or is no more, this record's turn


def test_a_redriven_record_whose_id_came_before_it_stays_rejected_and_is_awaited_no_more(
    world: World,
) -> None:
    bad = message("r1", {"bad": 1})
    world.reject(bad)
    assert len(world.redrive.messages(None, "")["messages"]) == 1
    assert world.deliver(message("r1", {"good": 1})) == [Outcome.PROCESSED]
    assert (world.marked(), "r1" in world.claims.completed) == (1, True)
    assert world.deliver(bad, redriven=True) == [Outcome.CONFLICTING]
    assert (world.ids("records"), len(world.ids("rejected_records")), world.marked()) == (["r1"], 1, 0)
    assert world.deliver(bad, redriven=True) == [Outcome.DUPLICATE]
    assert world.redrive.messages(None, "")["messages"] == []


def test_a_redriven_record_whose_id_comes_in_its_own_batch_is_awaited_no_more(world: World) -> None:
    bad = message("r1", {"bad": 1})
    world.reject(bad)
    world.redrive.messages(None, "")
    assert world.deliver(message("r1", {"good": 1}), bad, redriven=True) == [
        Outcome.PROCESSED,
        Outcome.CONFLICTING,
    ]
    assert (world.ids("records"), len(world.ids("rejected_records")), world.marked()) == (["r1"], 1, 0)


def test_a_redriven_record_whose_id_is_remembered_though_its_row_is_gone_is_awaited_no_more(
    world: World,
) -> None:
    bad = message("r1", {"bad": 1})
    world.reject(bad)
    world.claims.completed.add("r1")
    world.redrive.messages(None, "")
    assert world.deliver(bad, redriven=True) == [Outcome.DUPLICATE]
    assert (world.ids("records"), len(world.ids("rejected_records")), world.marked()) == ([], 1, 0)


@pytest.mark.parametrize("completed", [True, False], ids=["claim completed", "claim forgotten"])
def test_a_redriven_line_whose_id_another_line_has_brought_is_a_repeat(world: World, completed: bool) -> None:
    first, bad = message("own", {"bad": 1}, (UPLOAD.upload, 0, 1)), message("own", {"bad": 1}, PLACE)
    world.reject(bad)
    world.redrive.messages(None, "")
    world.deliver(first)
    if not completed:
        world.claims.completed.clear()
    for _ in range(2):
        assert world.deliver(bad, redriven=True) == [Outcome.DUPLICATE]
        assert (world.ids("records"), world.ids("rejected_records")) == (["own"], [])
        assert world.admin.run("SELECT upload_line FROM repeated_records") == [[3]]


@pytest.mark.parametrize("completed", [True, False], ids=["claim completed", "claim forgotten"])
def test_a_redriven_line_whose_id_another_line_has_brought_with_other_content_is_a_conflict(
    world: World, completed: bool
) -> None:
    first, bad = message("own", {}, (UPLOAD.upload, 0, 1)), message("own", {"bad": 1}, PLACE)
    world.reject(bad)
    world.redrive.messages(None, "")
    world.deliver(first)
    if not completed:
        world.claims.completed.clear()
    assert world.deliver(bad, redriven=True) == [Outcome.CONFLICTING]
    assert world.deliver(bad, redriven=True) == [Outcome.DUPLICATE]
    assert world.ids("records") == ["own"]
    assert world.admin.run("SELECT id, kind, redriven_at, upload_line FROM rejected_records") == [
        [digest(bad), "conflict", None, 3]
    ]
    assert world.admin.run("SELECT FROM repeated_records") == []
    assert world.redrive.count(None)["messages"] == 0


# --- a record that is rejected by one version of the code and comes again, unasked, to another


def test_a_record_that_was_rejected_and_is_taken_when_its_batch_comes_again_is_a_row_only(
    world: World,
) -> None:
    bad, line = message("r1", {"bad": 1}), message(f"{UPLOAD.upload}:40", {"bad": 1}, PLACE)
    other = message("r2", {"bad": 1})
    for each in (bad, line, other):
        world.reject(each)
    assert world.deliver(bad, line) == [Outcome.PROCESSED] * 2
    assert world.ids("records") == ["r1", f"{UPLOAD.upload}:40"]
    assert world.ids("rejected_records") == [digest(other)]


def test_a_line_that_the_producer_had_rejected_and_publishes_now_is_settled_once(world: World) -> None:
    world.sink.store([], [line(PLACE, 40), line((UPLOAD.upload, 0, 4), 50), line((UPLOAD.upload, 0, 5), 60)])
    world.deliver(message("own", {}, (UPLOAD.upload, 0, 1)))
    world.deliver(message("own", {}, PLACE), message("new", {}, (UPLOAD.upload, 0, 4)))
    assert world.ids("records") == ["new", "own"]
    assert world.admin.run("SELECT upload_line FROM repeated_records") == [[3]]
    assert world.ids("rejected_records") == [f"{UPLOAD.upload}:60"]


def test_a_line_that_is_stored_or_repeated_stays_so_when_the_producer_rejects_it_later(world: World) -> None:
    world.deliver(message("own", {}, (UPLOAD.upload, 0, 1)))
    world.deliver(message("own", {}, PLACE))
    world.sink.store([], [line((UPLOAD.upload, 0, 1), 0), line(PLACE, 40), line((UPLOAD.upload, 0, 4), 50)])
    assert world.ids("rejected_records") == [f"{UPLOAD.upload}:50"]


@pytest.mark.parametrize("later", ["a message", "a line"])
def test_a_line_that_is_rejected_twice_in_different_bytes_is_one_rejected_record(
    world: World, later: str
) -> None:
    earlier = message(f"{UPLOAD.upload}:40", {"bad": 1, "a": 1}, PLACE)
    other = message(f"{UPLOAD.upload}:50", {"bad": 1}, (UPLOAD.upload, 0, 4))
    world.refuse()
    world.deliver(earlier, other)
    if later == "a message":
        again = message(f"{UPLOAD.upload}:40", {"bad": 1, "a": 1.0}, PLACE)
        world.deliver(again)
        expected = digest(again)
    else:
        world.sink.store([], [line(PLACE, 40)])
        expected = f"{UPLOAD.upload}:40"
    assert world.ids("rejected_records") == sorted([expected, digest(other)])


def test_what_somebody_else_says_of_a_line_does_not_remove_its_rejection(world: World) -> None:
    world.reject(message("own", {"bad": 1}, PLACE))
    world.deliver(message("another", {}, PLACE))
    nameless = {"partition_key": "p", "upload": dict(zip(("id", "chunk", "line"), PLACE, strict=True))}
    world.deliver(json.dumps(nameless).encode())
    assert len(world.ids("rejected_records")) == 2
