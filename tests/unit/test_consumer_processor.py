"""BulkProcessor: the six steps, their order, and the answer to Lambda."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import pytest
from aws_lambda_powertools.utilities.batch import EventType, process_partial_response
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import TransientError
from consumer.decode import decode
from oncestream.engine import Outcome
from oncestream.processor import SinkProcessor
from tests.unit.consumer_support import (
    POISON,
    Context,
    FakeIdempotency,
    FakeSink,
    failed,
    message,
    stream_event,
)


class World:
    """A processor between a table of claims and two tables of rows, all in memory."""

    def __init__(self, **options: Any) -> None:
        self.steps: list[tuple[str, Any]] = []
        self.idempotency = FakeIdempotency(self.steps)
        self.sink = FakeSink(self.steps)
        self.processor = SinkProcessor(EventType.KinesisDataStreams, self.idempotency, self.sink, **options)

    def deliver(self, *messages: bytes, first: int = 1, context: Any = None) -> list[int]:
        """Deliver a batch; returns the sequence numbers that are reported as failed."""
        event = stream_event(*messages, first=first)
        time: Any = context or Context()
        return failed(process_partial_response(event, decode, self.processor, time))

    @property
    def outcomes(self) -> list[str]:
        return [result.outcome.value for result in self.processor.results]

    @property
    def calls(self) -> list[str]:
        return [name for name, _ in self.steps]


def test_a_fresh_batch_is_claimed_committed_completed_and_answered_with_nothing() -> None:
    world = World()
    assert world.deliver(message("a"), message("b")) == []
    assert world.steps == [
        ("claim", ["a", "b"]),
        ("commit", ["a", "b"]),
        ("complete", ["a", "b"]),
        ("release", []),
    ]
    assert world.outcomes == ["processed", "processed"]
    assert world.sink.rows.keys() == {"a", "b"}


def test_a_batch_delivered_again_is_all_duplicates_and_does_not_touch_postgres() -> None:
    world = World()
    batch = [message("a"), message("b")]
    world.deliver(*batch)
    world.steps.clear()
    assert world.deliver(*batch) == []
    assert world.outcomes == ["duplicate", "duplicate"]
    assert "commit" not in world.calls


def test_what_was_stored_but_not_completed_is_found_by_its_key_and_completed() -> None:
    world = World()
    world.idempotency.uncompletable = True
    assert world.deliver(message("a")) == []
    world.idempotency.uncompletable = False
    world.idempotency.mine.clear()  # the claim has run out
    assert world.deliver(message("a")) == []
    assert world.outcomes == ["duplicate"]
    assert world.idempotency.completed == {"a"}


def test_equal_ids_in_a_batch_are_one_record() -> None:
    world = World()
    assert world.deliver(message("a", {"n": 1}), message("b"), message("a", {"n": 2})) == []
    assert world.outcomes == ["processed", "processed", "conflicting"]
    assert world.sink.rows["a"].record.payload_json == '{"n": 1}'
    [kept] = world.sink.rejected.values()
    assert (kept.kind, kept.record_id, kept.raw) == ("conflict", "a", message("a", {"n": 2}))


def test_poison_records_are_rejected_once_and_their_neighbours_land() -> None:
    world = World()
    poison = [data for data, _ in POISON.values()]
    assert world.deliver(message("a"), *poison, *poison, message("b")) == []
    assert Counter(world.outcomes) == {"processed": 2, "rejected": len(poison), "duplicate": len(poison)}
    assert {each.raw for each in world.sink.rejected.values()} == set(poison)
    world.deliver(*poison)
    assert set(world.outcomes) == {"duplicate"}


def test_a_batch_of_nothing_but_poison_needs_no_claim() -> None:
    world = World()
    assert world.deliver(b"x", b"y") == []
    assert ("claim", []) in world.steps
    assert world.outcomes == ["rejected", "rejected"]


def test_what_another_invocation_holds_fails_this_time_with_its_duplicates() -> None:
    world = World()
    world.idempotency.held = {"b"}
    assert world.deliver(message("a"), message("b"), message("c"), message("b")) == [2, 4]
    assert world.outcomes == ["processed", "retried", "processed", "retried"]
    world.idempotency.held.clear()
    assert world.deliver(message("b"), message("c"), message("b"), first=2) == []
    assert world.outcomes == ["processed", "duplicate", "duplicate"]


def test_what_dynamodb_throttles_fails_this_time_and_the_rest_lands() -> None:
    world = World()
    world.idempotency.undecided = {"a"}
    assert world.deliver(message("a"), message("b")) == [1]
    assert "DynamoDB" in str(world.processor.results[0].error)
    assert world.sink.rows.keys() == {"b"}


def test_while_dynamodb_is_away_everything_fails_and_nothing_is_stored() -> None:
    world = World()
    world.idempotency.down = True
    assert world.deliver(message("a"), b"poison") == [1, 2]
    assert world.calls == ["claim"]


def test_while_postgres_is_away_nothing_is_rejected_claims_are_released_and_all_fails() -> None:
    world = World()
    world.sink.down = True
    assert world.deliver(message("a"), b"poison", message("b")) == [1, 2, 3]
    assert world.steps[-1] == ("release", ["a", "b"])
    assert world.idempotency.mine == set()
    assert world.sink.rejected == {}
    assert {str(result.error) for result in world.processor.results} == {
        "Postgres at db:5432: Connection refused"
    }
    world.sink.down = False
    assert world.deliver(message("a"), b"poison", message("b")) == []
    assert world.outcomes == ["processed", "rejected", "processed"]


def test_while_postgres_is_away_completed_records_are_still_done() -> None:
    world = World()
    world.idempotency.completed = {"a"}
    world.sink.down = True
    assert world.deliver(message("a"), message("b")) == [2]


def test_a_repeated_line_is_not_done_before_postgres_has_noted_it() -> None:
    world = World()
    line = message("order-1", upload=("u", 0, 2))
    world.deliver(message("order-1"))
    world.sink.down = True
    assert world.deliver(line) == [1]
    world.sink.down = False
    assert world.deliver(line) == []
    assert world.outcomes == ["duplicate"]
    assert [each.record.id for each in world.sink.repeated] == ["order-1"]


def test_lines_that_follow_another_of_the_same_id_are_handed_to_the_sink() -> None:
    world = World()
    lines = [message("order-1", upload=("u", 0, line)) for line in (1, 2, 3)]
    assert world.deliver(*lines) == []
    places = [each.record.upload.line for each in world.sink.repeated if each.record.upload]
    assert places == [2, 3]


def test_lines_whose_id_comes_from_their_place_are_never_repeats() -> None:
    world = World()
    line = message("u:0", upload=("u", 0, 1))
    world.deliver(line, line)
    world.deliver(line)
    assert world.sink.repeated == []


ONE, OTHER, THIRD = (message("a", {"n": number}) for number in (1, 2, 3))


def kept(world: World) -> list[tuple[str, bytes]]:
    return sorted((each.kind, each.raw) for each in world.sink.rejected.values())


@pytest.mark.parametrize("slice_records", [1, 1_000])
@pytest.mark.parametrize("batches", [[[ONE, OTHER, THIRD, OTHER]], [[ONE], [OTHER, THIRD], [OTHER]]], ids=len)
def test_other_content_under_a_known_id_is_kept_once_and_never_stored(
    batches: list[list[bytes]], slice_records: int
) -> None:
    world = World(slice_records=slice_records)
    counts: Counter[str] = Counter()
    for batch in batches:
        assert world.deliver(*batch) == []
        counts.update(world.outcomes)
    assert counts == {"processed": 1, "conflicting": 2, "duplicate": 1}
    assert world.sink.rows["a"].raw == ONE
    assert kept(world) == [("conflict", OTHER), ("conflict", THIRD)]


def test_the_digest_that_is_completed_is_of_what_is_stored_so_that_every_other_content_is_compared() -> None:
    world = World()
    world.deliver(ONE)
    world.idempotency.completed.clear()  # its claim is forgotten
    for data in (OTHER, THIRD, ONE):
        assert world.deliver(data) == []
    assert kept(world) == [("conflict", OTHER), ("conflict", THIRD)]
    assert world.outcomes == ["duplicate"]


def test_a_completed_record_without_a_digest_is_a_duplicate_whatever_it_says() -> None:
    world = World()
    world.deliver(ONE)
    world.idempotency.digests.clear()  # another release has completed it
    assert world.deliver(OTHER) == []
    assert (world.outcomes, kept(world)) == (["duplicate"], [])


def test_a_record_in_progress_elsewhere_waits_whatever_it_says() -> None:
    world = World()
    world.idempotency.held = {"a"}
    world.idempotency.digests = {"a": "another"}
    assert world.deliver(OTHER) == [1]


def test_while_postgres_is_away_a_suspect_is_neither_a_duplicate_nor_a_conflict() -> None:
    world = World()
    world.deliver(ONE)
    world.sink.down = True
    assert world.deliver(OTHER, ONE) == [1, 2]
    world.sink.down = False
    assert world.deliver(OTHER, ONE) == []
    assert world.outcomes == ["conflicting", "duplicate"]


def test_the_same_content_in_other_bytes_is_a_duplicate() -> None:
    world = World()
    world.deliver(message("a", {"n": 1, "m": 2}))
    assert world.deliver(message("a", {"m": 2, "n": 1})) == []
    assert (world.outcomes, kept(world)) == (["duplicate"], [])


def test_a_refused_record_is_rejected_and_leaves_its_id_free() -> None:
    world = World()
    assert world.deliver(message("a", {"refuse": True}), message("b")) == []
    assert world.outcomes == ["rejected", "processed"]
    assert world.idempotency.completed == {"b"}
    assert world.idempotency.mine == set()
    assert world.deliver(message("a", {"n": 1})) == []
    assert world.outcomes == ["processed"]


def test_a_second_message_with_the_id_of_a_refused_one_is_tried_in_its_own_right() -> None:
    world = World()
    batch = [
        message("a", {"refuse": 1}),
        message("a", {"refuse": 1}),
        message("a", {"refuse": 2}),
        message("a", {"n": 3}),
        message("a", {"n": 4}),
    ]
    assert world.deliver(*batch) == []
    assert world.outcomes == ["rejected", "duplicate", "rejected", "processed", "conflicting"]
    assert world.sink.rows["a"].record.payload_json == '{"n": 3}'


def test_a_record_that_there_was_no_time_to_judge_is_released_and_retried() -> None:
    world = World()
    world.sink.unsettled = {"b"}
    assert world.deliver(message("a"), message("b")) == [2]
    assert ("release", ["b"]) in world.steps
    assert world.idempotency.mine == set()
    assert world.idempotency.completed == {"a"}
    world.sink.unsettled.clear()
    assert world.deliver(message("b"), first=2) == []
    assert world.outcomes == ["processed"]
    assert world.sink.rows.keys() == {"a", "b"}


def test_pieces_are_claimed_committed_and_completed_one_after_the_other() -> None:
    world = World(slice_records=2)
    assert world.deliver(*(message(name) for name in "abcde")) == []
    assert [step for step in world.steps if step[0] != "release"] == [
        ("claim", ["a", "b"]),
        ("commit", ["a", "b"]),
        ("complete", ["a", "b"]),
        ("claim", ["c", "d"]),
        ("commit", ["c", "d"]),
        ("complete", ["c", "d"]),
        ("claim", ["e"]),
        ("commit", ["e"]),
        ("complete", ["e"]),
    ]


def test_what_there_is_no_time_for_is_not_begun_and_reported() -> None:
    world = World(slice_records=2, reserve_milliseconds=5_000)
    # Asked before each piece, for the claim and for the statement's time.
    context = Context([60_000, 60_000, 60_000, 5_000])
    assert world.deliver(*(message(name) for name in "abcde"), context=context) == [3, 4, 5]
    assert world.sink.rows.keys() == {"a", "b"}
    assert world.idempotency.mine == set()
    assert "not begun" in str(world.processor.results[2].error)


@pytest.mark.parametrize("step", ["store", "complete"])
def test_a_defect_at_any_step_leaves_no_claim(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()

    def defect(*_: Any, **__: Any) -> None:
        raise AttributeError("a defect")

    with monkeypatch.context() as patch:
        patch.setattr(world.sink if step == "store" else world.idempotency, step, defect)
        with pytest.raises(AttributeError, match="a defect"):
            world.deliver(message("a"), message("b"))
    assert world.idempotency.mine == set()
    assert world.deliver(message("a"), message("b")) == []
    assert world.sink.rows.keys() == {"a", "b"}


def test_after_a_failure_the_rest_of_the_batch_is_not_tried() -> None:
    world = World(slice_records=1)
    world.sink.down = True
    assert world.deliver(message("a"), message("b")) == [1, 2]
    assert world.calls == ["claim", "commit", "release"]


def test_a_claim_is_valid_for_what_is_left_of_the_invocation() -> None:
    world = World()
    world.deliver(message("a"), context=Context(42_000))
    assert world.idempotency.valid_for == [42_000]


class CrashError(BaseException):
    """Stands for whatever ends the process."""


@pytest.mark.parametrize("step", ["claim", "commit", "complete"])
@pytest.mark.parametrize("effect", [True, False], ids=["after the effect", "before the effect"])
def test_a_crash_at_any_step_loses_and_doubles_nothing(step: str, effect: bool) -> None:
    world = World()
    owner, name = {
        "claim": (world.idempotency, "claim"),
        "commit": (world.sink, "store"),
        "complete": (world.idempotency, "complete"),
    }[step]
    original = getattr(owner, name)

    def crash(*arguments: Any, **options: Any) -> Any:
        if effect:
            original(*arguments, **options)
        raise CrashError

    setattr(owner, name, crash)
    batch = [message("a"), b"poison", message("b")]
    with pytest.raises(CrashError):
        world.deliver(*batch)
    setattr(owner, name, original)

    world.deliver(*batch)  # while the dead invocation's claims stand
    world.idempotency.mine.clear()  # they have run out
    assert world.deliver(*batch) == []
    assert world.sink.rows.keys() == world.idempotency.completed == {"a", "b"}
    assert [each.raw for each in world.sink.rejected.values()] == [b"poison"]


def test_the_answer_is_powertools_own_and_does_not_raise_when_all_fails() -> None:
    world = World()
    world.sink.down = True
    event = stream_event(message("a"), message("b"))
    with world.processor(event["Records"], decode, Context()):  # type: ignore[arg-type]
        entries = world.processor.process()
    assert [entry[0] for entry in entries] == ["fail", "fail"]
    assert world.processor.response() == {
        "batchItemFailures": [{"itemIdentifier": "1"}, {"itemIdentifier": "2"}]
    }
    assert all(isinstance(error, TransientError) for _, error, _ in world.processor.exceptions)
    world.sink.down = False
    with world.processor(event["Records"], decode, Context()):  # type: ignore[arg-type]
        entries = world.processor.process()
    assert [entry[:2] for entry in entries] == [("success", Outcome.PROCESSED)] * 2
    assert world.processor.success_messages == event["Records"]
    assert world.processor.response() == {"batchItemFailures": []}


def test_without_a_lambda_context_there_is_time() -> None:
    world = World()
    event = stream_event(message("a"))
    assert process_partial_response(event, decode, world.processor) == {"batchItemFailures": []}


IDS = st.sampled_from("abcdef")
PAYLOADS = st.sampled_from([{"n": 1}, {"n": 2}, {"refuse": 1}, {"refuse": 2}])
MESSAGES = st.builds(message, IDS, PAYLOADS) | st.sampled_from([b"", b"x", b"y"])


@settings(max_examples=200)
@given(
    batches=st.lists(st.lists(MESSAGES, min_size=1, max_size=12), min_size=1, max_size=4),
    held=st.sets(IDS, max_size=2),
    undecided=st.sets(IDS, max_size=2),
    down=st.booleans(),
    slice_records=st.integers(1, 4),
)
def test_every_record_has_one_outcome_and_ends_as_one_row(
    batches: list[list[bytes]], held: set[str], undecided: set[str], down: bool, slice_records: int
) -> None:
    world = World(slice_records=slice_records)
    world.idempotency.held, world.idempotency.undecided, world.sink.down = held, undecided, down
    counts: Counter[str] = Counter()
    for batch in batches:
        reported = world.deliver(*batch)
        assert len(world.outcomes) == len(batch)
        assert reported == [at for at, outcome in enumerate(world.outcomes, 1) if outcome == "retried"]
        counts.update(world.outcomes)
    world.idempotency.held, world.idempotency.undecided, world.sink.down = set(), set(), False
    for batch in batches:
        assert world.deliver(*batch) == []
        counts.update(world.outcomes)

    assert world.idempotency.mine == set()
    assert counts["processed"] == len(world.sink.rows)
    assert counts["rejected"] + counts["conflicting"] == len(world.sink.rejected)
    sent = [data for batch in batches for data in batch]
    good = {json.loads(data)["id"] for data in sent if b'"n"' in data}
    assert world.sink.rows.keys() == good
    kept = world.sink.rejected.values()
    for rejection in kept:
        assert rejection.raw in sent
        if rejection.kind == "rejected":
            assert b'"n"' not in rejection.raw
        else:
            assert rejection.record_id in good
    stored = {each.raw for each in world.sink.rows.values()}
    assert {each.raw for each in kept} | stored == set(sent)
    assert not {each.raw for each in kept} & stored
