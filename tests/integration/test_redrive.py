"""Rejected records that come again: rows and rejections add up at every moment."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from common.chunk_job import ChunkCount, ChunkJob
from common.database import Database
from common.record import Fault, Line, RejectedLine
from consumer.decode import Arrived, Rejection, decode
from consumer.sink import PostgresSink
from tests.unit.consumer_support import message, stream_record
from uploads import redrive as module
from uploads.ledger import Entry
from uploads.redrive import Redrive
from uploads.upload import Upload

NOW = datetime(2026, 11, 21, tzinfo=UTC)
UPLOAD = Upload(
    upload="u" * 32, bucket="b", key="a.ndjson", etag='"e"', size=300, format="ndjson", registered_at=NOW
)


class Ledger:
    """Knows one upload, and two chunks of it."""

    def entry(self, upload: str) -> Entry | None:
        counts = tuple(
            ChunkCount(
                chunk=chunk, start=chunk * 100, end=chunk * 100 + 100, lines=5, published=5, rejected=0,
                file_lines=5, published_at=NOW,
            )
            for chunk in (0, 1)
        )  # fmt: skip
        return Entry(UPLOAD, counts) if upload == UPLOAD.upload else None


class World:
    """A sink and a redriver on one database, and a connection to look at it."""

    def __init__(self, settings: Any) -> None:
        self.database = Database(settings)
        self.sink = PostgresSink(self.database)
        self.redrive = Redrive(Ledger(), self.database)  # type: ignore[arg-type]
        self.admin = settings.connect()

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
        rejected=Fault(reason="too strict", raw=b"raw"),
        upload=Line(id=upload, chunk=chunk, line=number),
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
