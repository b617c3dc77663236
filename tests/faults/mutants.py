"""Deliberate defects, each put into the product for the length of a block. The harness has to notice each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import pytest

import consumer.handler
import consumer.sink
import consumer.verdicts
import producer.entry
import producer.packing
import producer.publish
import records.record
from common.errors import PermanentError
from consumer.compare import Compared
from consumer.decode import Arrived, Rejection, reject
from consumer.sink import PostgresSink
from oncestream.claim_items import Layout
from oncestream.engine import Batch, Outcome
from oncestream.idempotency import BulkIdempotency, Claims
from records.record import Record
from tables.check import check_payload
from tests.faults import types
from tests.faults.postgres import TestDatabase
from uploads.plan import Planner

type Change = Callable[[pytest.MonkeyPatch, TestDatabase], None]


@dataclass(frozen=True)
class Mutant:
    """A mechanism that is taken away or turned round."""

    name: str
    protects: str
    """Against what, in a few words, the mechanism is there."""
    change: Change
    function: str = "consumer"
    """Whose scenario is tried first."""
    covered_by: str = ""
    """What makes up for it, if something does: the account closes all the same."""

    @contextmanager
    def applied(self, database: TestDatabase) -> Iterator[None]:
        """The product has this defect."""
        patch = pytest.MonkeyPatch()
        try:
            self.change(patch, database)
            yield
        finally:
            patch.undo()
            if "unique key" in self.name:
                database.restore_unique_key()


def _no_claim(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    def claim(
        self: BulkIdempotency, keys: Iterable[tuple[str, str]], remaining_time_in_millis: int
    ) -> Claims:
        nothing = frozenset[str]()
        return Claims(frozenset(key for key, _ in keys), nothing, nothing, nothing, nothing)

    patch.setattr(BulkIdempotency, "claim", claim)


def _no_conflict_clause(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    statement = consumer.sink._INSERT_RECORDS
    assert "ON CONFLICT (id) DO NOTHING" in statement
    patch.setattr(consumer.sink, "_INSERT_RECORDS", statement.replace("ON CONFLICT (id) DO NOTHING", ""))


def _no_unique_key(patch: pytest.MonkeyPatch, database: TestDatabase) -> None:
    _no_conflict_clause(patch, database)
    database.drop_unique_key()


def _no_look_for_known(patch: pytest.MonkeyPatch, database: TestDatabase) -> None:
    """Neither ON CONFLICT nor the question whether a refused record is a row already."""
    _no_conflict_clause(patch, database)
    original = consumer.sink.Connection.run

    def run(self: Any, statement: str, **bound: Any) -> Any:
        if statement.startswith("SELECT FROM records"):
            return []
        return original(self, statement, **bound)

    patch.setattr(consumer.sink.Connection, "run", run)


def _complete_first(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = BulkIdempotency.claim

    def claim(self: BulkIdempotency, keys: Any, remaining_time_in_millis: int) -> Claims:
        claims = original(self, keys, remaining_time_in_millis)
        self.complete((key, "") for key in claims.claimed)
        return claims

    patch.setattr(BulkIdempotency, "claim", claim)


def _complete_unsettled(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    unsettled = set[str]()
    store, complete = PostgresSink.store, BulkIdempotency.complete

    def storing(self: PostgresSink, *arguments: Any, **named: Any) -> Any:
        stored = store(self, *arguments, **named)
        unsettled.update(stored.unsettled)
        return stored

    def completing(self: BulkIdempotency, keys: Iterable[tuple[str, str]]) -> frozenset[str]:
        more = [*keys, *((key, "") for key in unsettled)]
        unsettled.clear()
        return complete(self, more)

    patch.setattr(PostgresSink, "store", storing)
    patch.setattr(BulkIdempotency, "complete", completing)


def _release_anybodys(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = Layout.deletes

    def deletes(self: Layout, keys: Any, owners: Any) -> Any:
        body = original(self, keys, owners)
        for statement in body["Statements"]:
            statement["Statement"] = statement["Statement"].replace(' AND "owner" = ?', "")
            del statement["Parameters"][1]
        return body

    patch.setattr(Layout, "deletes", deletes)


def _checkpoint_too_far(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = consumer.handler.process_partial_response

    def process(*arguments: Any) -> Any:
        answer = original(*arguments)
        return {"batchItemFailures": answer["batchItemFailures"][1:]}

    patch.setattr(consumer.handler, "process_partial_response", process)


def _answers_out_of_order(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = producer.packing.Packing.answered

    def answered(self: Any, batch: Any, answers: Any, *times: float) -> None:
        original(self, batch, sorted(answers, key=lambda answer: "ErrorCode" in answer), *times)

    patch.setattr(producer.packing.Packing, "answered", answered)


def _lost_answer_is_success(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    def lost(self: Any, batch: Any, reason: str, *_: Any) -> None:
        self.result.published += len(batch)

    patch.setattr(producer.packing.Packing, "lost", lost)


def _reject_on_transient(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    classes = consumer.verdicts._RECORD_CLASSES
    patch.setattr(consumer.verdicts, "_RECORD_CLASSES", classes | {"55"})


def _reject_when_away(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = PostgresSink.store

    def store(self: PostgresSink, arrived: Any, rejections: Any = (), *more: Any, **named: Any) -> Any:
        try:
            return original(self, arrived, rejections, *more, **named)
        except consumer.sink.TransientError as error:
            refused = {each.record.id: reject(each, str(error)) for each in arrived}
            stored = original(self, (), [*rejections, *refused.values()])
            return replace(stored, refused=refused)

    patch.setattr(PostgresSink, "store", store)


def _sequence_ids(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = consumer.handler.decode

    def decode(record: Any) -> Arrived | Rejection:
        arrived = original(record)
        if isinstance(arrived, Rejection):
            return arrived
        other = msgspec.structs.replace(arrived.record, id=f"{arrived.shard_id}:{arrived.sequence_number}")
        return arrived._replace(record=other)

    patch.setattr(consumer.handler, "decode", decode)


def _producer_rewrites(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = producer.entry.Entry.of

    def of(record: Record) -> producer.entry.Entry:
        written_anew = json.dumps(json.loads(record.payload_json))
        return original(msgspec.structs.replace(record, payload_json=written_anew))

    patch.setattr(producer.entry.Entry, "of", of)


def _model_stored(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    """The consumer stores what the type makes of a payload."""
    original = consumer.handler.decode

    def decode(record: Any) -> Arrived | Rejection:
        arrived = original(record)
        if isinstance(arrived, Rejection):
            return arrived
        made = types.made_of(arrived.record.payload_json)
        return arrived._replace(record=msgspec.structs.replace(arrived.record, payload_json=made))

    patch.setattr(consumer.handler, "decode", decode)


def _model_applied_twice(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    """What the type has made of a payload is put to it again."""
    original = consumer.handler.decode

    def decode(record: Any) -> Arrived | Rejection:
        arrived = original(record)
        if isinstance(arrived, Rejection):
            return arrived
        try:
            check_payload(types.made_of(arrived.record.payload_json))
        except PermanentError as error:
            return reject(arrived, str(error))
        return arrived

    patch.setattr(consumer.handler, "decode", decode)


def _places_not_reserved(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    patch.setattr(records.record, "is_positional", lambda record_id: False)


def _never_released(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    patch.setattr(BulkIdempotency, "release", lambda self, keys: frozenset())


def _failed_slice_is_success(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = Batch.settle_rest

    def settle_rest(self: Batch, error: Any) -> None:
        original(self, error)
        self.results = [
            each._replace(outcome=Outcome.DUPLICATE, error=None) if each and each.error is error else each
            for each in self.results
        ]

    patch.setattr(Batch, "settle_rest", settle_rest)


def _failed_slice_fails_all(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = Batch.settle_rest

    def settle_rest(self: Batch, error: Any) -> None:
        self.results = [None] * len(self.results)
        original(self, error)

    patch.setattr(Batch, "settle_rest", settle_rest)


def _claims_for_ever(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    patch.setattr(Layout, "run_out", lambda self, item, now: False)


def _planned_before_sent(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    patch.setattr(Planner, "plan", _plan_marking_first(Planner.plan))


def _plan_marking_first(original: Any) -> Any:
    def plan(self: Any, upload_id: str, time_is_short: Any) -> Any:
        send = self._queue.send

        def marking(jobs: Any, short: Any) -> Any:
            listed = list(jobs)
            self._ledger.mark_planned(self._ledger.upload(upload_id), len(listed), self._now())
            return send(listed, short)

        self._queue.send = marking
        try:
            return original(self, upload_id, time_is_short)
        finally:
            self._queue.send = send

    return plan


def _chunk_done_half_way(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = producer.publish.Publisher.publish

    def publish(self: Any, source: Any, time_limit: float | None = None) -> Any:
        result = original(self, source, time_limit)
        result.failed.clear()
        result.exhausted = True
        return result

    patch.setattr(producer.publish.Publisher, "publish", publish)


def _conflict_is_duplicate(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = consumer.sink.compare

    def compare(*arguments: Any, **options: Any) -> Compared[Arrived]:
        found = original(*arguments, **options)
        return Compared([*found.same, *(each for each, _ in found.other)], [], found.gone)

    patch.setattr(consumer.sink, "compare", compare)


def _duplicate_inferred(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
    original = consumer.sink.compare

    def compare(*arguments: Any, **options: Any) -> Compared[Arrived]:
        found = original(*arguments, **options)
        return Compared([*found.same, *found.gone], found.other, [])

    patch.setattr(consumer.sink, "compare", compare)


def _suspects_are(into: str) -> Change:
    def change(patch: pytest.MonkeyPatch, _: TestDatabase) -> None:
        original = BulkIdempotency.claim

        def claim(self: BulkIdempotency, keys: Any, remaining_time_in_millis: int) -> Claims:
            claims = original(self, keys, remaining_time_in_millis)
            return replace(claims, suspect=frozenset(), **{into: getattr(claims, into) | claims.suspect})

        patch.setattr(BulkIdempotency, "claim", claim)

    return change


def _both(*changes: Change) -> Change:
    def change(patch: pytest.MonkeyPatch, database: TestDatabase) -> None:
        for each in changes:
            each(patch, database)

    return change


MUTANTS = (
    Mutant(
        "claim dropped",
        "a record in two hands at once; a duplicate that comes later, where no key can see it",
        _no_claim,
        covered_by="the unique key (the rule that who stores a record holds its claim is broken)",
    ),
    Mutant(
        "ON CONFLICT dropped",
        "a second insert of a row that is there",
        _no_conflict_clause,
        covered_by="the search for refused records, which knows a row that is there",
    ),
    Mutant(
        "ON CONFLICT and the look for known rows dropped",
        "a second insert of a row that is there",
        _no_look_for_known,
    ),
    Mutant(
        "unique key dropped",
        "a crash, or a lost answer, between commit and complete; a claim that was forgotten",
        _no_unique_key,
    ),
    Mutant(
        "claim and unique key dropped",
        "every second delivery",
        _both(_no_claim, _no_unique_key),
    ),
    Mutant("complete before commit", "a crash or a fault between the two", _complete_first),
    Mutant(
        "unsettled records completed",
        "a search for refused records that time cuts short",
        _complete_unsettled,
    ),
    Mutant(
        "release ignores ownership",
        "a late release of a claim that somebody else has by now",
        _release_anybodys,
        covered_by="the unique key (the rule that nobody releases another's claim is broken)",
    ),
    Mutant(
        "claims of what was not stored are not released",
        "a wait until the claim runs out, for whoever comes next",
        _never_released,
        covered_by="the claim's time (the rule that an orderly end leaves no claim behind is broken)",
    ),
    Mutant(
        "a slice that failed is reported as a success",
        "a fault after the first slice of a batch was stored",
        _failed_slice_is_success,
    ),
    Mutant(
        "a slice that failed makes the stored ones before it fail",
        "storing again what is stored",
        _failed_slice_fails_all,
        covered_by="the completed claims, which make duplicates of it the next time",
    ),
    Mutant("claims never run out", "an invocation that was killed", _claims_for_ever),
    Mutant(
        "checkpoint after the lowest failure",
        "a record that was not settled",
        _checkpoint_too_far,
    ),
    Mutant("ids drawn from sequence numbers", "a record that is on the stream twice", _sequence_ids),
    Mutant("rejecting on a transient SQLSTATE", "a table that is locked for a while", _reject_on_transient),
    Mutant("rejecting when Postgres is away", "a lost connection", _reject_when_away),
    Mutant("what is known is not compared", "other content under the id of a row", _conflict_is_duplicate),
    Mutant(
        "the claim decides what other content is",
        "other content under the id of a record that is completed",
        _suspects_are("completed"),
    ),
    Mutant(
        "what was completed with other content is inserted",
        "a second row for a record that is completed",
        _suspects_are("claimed"),
        covered_by="the unique key (the rule that who stores a record holds its claim is broken)",
    ),
    Mutant("a duplicate is inferred", "a trigger that returns NULL", _duplicate_inferred),
    Mutant(
        "answers of PutRecords out of order",
        "entries that failed in a request that succeeded",
        _answers_out_of_order,
        "api",
    ),
    Mutant(
        "a lost answer of PutRecords taken for success",
        "a request that did not arrive",
        _lost_answer_is_success,
        "api",
    ),
    Mutant(
        "a chunk counted though entries failed",
        "a stream that takes nothing for a while",
        _chunk_done_half_way,
        "chunks",
    ),
    Mutant(
        "planned before the jobs are sent",
        "a crash between the two",
        _planned_before_sent,
        "plan",
    ),
    Mutant("the producer writes payloads anew", "numbers that no double holds", _producer_rewrites, "api"),
    Mutant(
        "what the type makes of a payload is stored", "fields with another name in the type", _model_stored
    ),
    Mutant(
        "the type is applied twice",
        "a validator that does not take what it has returned",
        _model_applied_twice,
    ),
    Mutant(
        "ids of lines are not reserved",
        "a caller who gives the id of a line of a file that comes later",
        _places_not_reserved,
        "api",
    ),
)
