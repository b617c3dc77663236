"""Bulk idempotency when others are faster, DynamoDB refuses, or answers are lost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError, ClientError

from common.errors import TransientError
from oncestream.calls import Calls
from tests.unit.fake_dynamodb import Trouble
from tests.unit.idempotency_world import (
    DENIED,
    LOST,
    MINUTE,
    REFUSED,
    THROTTLED,
    World,
    bare,
    ids,
    nothing_but,
    trouble_with,
    troubles,
)


@pytest.fixture
def world() -> World:
    return World()


class TestRaces:
    def race(self, world: World, operation: str, event: Callable[[], Any], times: int = 1) -> None:
        """Let something happen just before requests for an operation are carried out."""

        def plan(number: int, asked: str, body: Any) -> None:
            nonlocal times
            if asked == operation and times:
                times -= 1
                event()

        world.dynamodb.trouble = plan

    @pytest.mark.parametrize(
        ("winner", "expected"),
        [({"owner": "other"}, "in_progress"), ({"status": "COMPLETED"}, "completed")],
    )
    def test_a_lost_take_over_leaves_the_winners_item(
        self, world: World, winner: dict[str, str], expected: str
    ) -> None:
        world.put("a", in_progress_expiration=-1)
        self.race(world, "PutItem", lambda: world.put("a", **winner))
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(**{expected: {"a"}})
        assert world.dynamodb.operations() == ["BatchExecuteStatement", "PutItem"]

    def test_a_take_over_of_an_item_that_ttl_has_just_deleted_succeeds(self, world: World) -> None:
        world.put("a", expiration=-1)
        self.race(world, "PutItem", world.dynamodb.items.clear)
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(claimed={"a"})

    def test_an_item_that_vanishes_before_it_is_read_is_claimed(self, world: World) -> None:
        world.dynamodb.returns_duplicates = False
        world.put("a")
        self.race(world, "BatchGetItem", world.dynamodb.items.clear)
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(claimed={"a"})

    def test_an_item_that_was_left_unread_is_read_again_and_not_inserted(self, world: World) -> None:
        world.dynamodb.returns_duplicates = False
        world.put("a", "COMPLETED")
        world.dynamodb.trouble = trouble_with("BatchGetItem", Trouble("items"))
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(completed={"a"})
        assert world.dynamodb.operations() == ["BatchExecuteStatement", "BatchGetItem", "BatchGetItem"]

    def test_an_item_that_comes_and_goes_for_ever_is_left_undecided(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.dynamodb.returns_duplicates = False

        def plan(number: int, operation: str, body: Any) -> None:
            world.dynamodb.items.clear()
            if operation == "BatchExecuteStatement":
                world.put("a")

        world.dynamodb.trouble = plan
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(undecided={"a"})
        assert len(world.dynamodb.requests) == 2 * Calls.attempts
        assert "could not claim 1 keys" in caplog.text

    def test_a_put_that_fails_without_the_item_is_followed_by_a_read(self, world: World) -> None:
        world.put("a", in_progress_expiration=-1)
        world.dynamodb.trouble = trouble_with("PutItem", Trouble("error", "ConditionalCheckFailedException"))
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(claimed={"a"})
        assert world.dynamodb.operations() == ["BatchExecuteStatement", "PutItem", "BatchGetItem", "PutItem"]


PASSING = [
    pytest.param(LOST, id="answer lost"),
    pytest.param(Trouble("garbage"), id="answer cut off"),
    pytest.param(Trouble("error after"), id="server error after the effect"),
    pytest.param(Trouble("error", "InternalServerError", 500), id="server error"),
    pytest.param(Trouble("error", "Bad Gateway", 502), id="something on the way"),
    pytest.param(REFUSED, id="no connection"),
    pytest.param(THROTTLED, id="throttled"),
    pytest.param(Trouble("error", "ThrottlingException"), id="throttled by the control plane"),
    pytest.param(Trouble("error", "RequestLimitExceeded"), id="account's limit"),
    pytest.param(Trouble("items", spare=lambda n: n % 3 > 0), id="every third item throttled"),
    pytest.param(Trouble("items", "ProvisionedThroughputExceeded"), id="all items throttled"),
    pytest.param(Trouble("items", "InternalServerError"), id="server error for each item"),
    pytest.param(Trouble("items", "TransactionConflict"), id="in a transaction"),
]


@pytest.mark.parametrize("returned", [True, False], ids=["item in the answer", "item read back"])
@pytest.mark.parametrize("trouble", PASSING)
class TestPassingTrouble:
    @pytest.mark.parametrize("request_number", [1, 2, 3, 4])
    def test_with_any_request_of_a_claim_changes_nothing_in_the_result(
        self, world: World, trouble: Trouble, returned: bool, request_number: int
    ) -> None:
        world.dynamodb.returns_duplicates = returned
        world.put("done", "COMPLETED")
        world.put("theirs")
        world.put("stale", in_progress_expiration=-1)
        world.dynamodb.trouble = troubles(*[None] * (request_number - 1), trouble)
        claims = world.store().claim(bare(["new", "done", "theirs", "stale"]), MINUTE)
        assert claims == nothing_but(claimed={"new", "stale"}, completed={"done"}, in_progress={"theirs"})

    def test_is_gone_when_the_batch_is_completed_or_released(
        self, world: World, trouble: Trouble, returned: bool
    ) -> None:
        store = world.store()
        store.claim(bare(["a", "b", "c", "d"]), MINUTE)
        world.dynamodb.trouble = trouble_with("BatchWriteItem", trouble)
        assert store.complete(bare(["a", "b"])) == frozenset()
        world.dynamodb.trouble = trouble_with("BatchExecuteStatement", trouble)
        assert store.release(["c", "d"]) == frozenset()
        assert [world.status(key) for key in "abcd"] == ["COMPLETED", "COMPLETED", None, None]


class TestLastingTrouble:
    def test_throttling_of_every_third_item_ends_with_all_claimed(self, world: World) -> None:
        world.dynamodb.trouble = troubles(then=Trouble("items", spare=lambda n: n % 3 != 2))
        keys = ids(1000)
        assert world.store().claim(bare(keys), MINUTE) == nothing_but(claimed=set(keys))
        assert len(world.dynamodb.requests) < 70
        assert world.store().complete(bare(keys)) == frozenset()

    @pytest.mark.parametrize("trouble", [THROTTLED, Trouble("items")], ids=["requests", "items"])
    def test_throttling_of_everything_is_reported_and_not_raised(
        self, world: World, trouble: Trouble, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.dynamodb.trouble = troubles(then=trouble)
        assert world.store().claim(bare(["a", "b"]), MINUTE) == nothing_but(undecided={"a", "b"})
        assert len(world.dynamodb.requests) == Calls.attempts
        assert "could not claim 2 keys: " in caplog.text
        assert "Thr" in caplog.text

    def test_pauses_grow_from_a_twentieth_of_a_second_to_two_at_most(self, world: World) -> None:
        world.dynamodb.trouble = troubles(then=THROTTLED)
        world.store(jitter=lambda: 1.0).claim(bare(["a"]), 10 * MINUTE)
        assert world.clock.sleeps == [0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0]

    @pytest.mark.parametrize(
        ("remaining", "patience", "allowed"), [(2_000, 10.0, 1.0), (10 * MINUTE, 3.0, 3.0), (0, 10.0, 0.0)]
    )
    def test_is_borne_for_half_of_the_remaining_time_or_while_patience_lasts(
        self, world: World, remaining: int, patience: float, allowed: float
    ) -> None:
        world.dynamodb.trouble = troubles(then=THROTTLED)
        world.store(jitter=lambda: 1.0, patience_seconds=patience).claim(bare(["a"]), remaining)
        assert sum(world.clock.sleeps) <= allowed
        assert sum(world.clock.sleeps) + 2.0 > allowed

    def test_or_not_a_claim_without_any_time_left_is_tried_once(self, world: World) -> None:
        assert world.store().claim(bare(["a"]), 0) == nothing_but(claimed={"a"})

    def test_of_slow_answers_lets_no_more_requests_begin_when_time_is_up(self, world: World) -> None:
        def slow(number: int, operation: str, body: Any) -> None:
            world.clock.now += 8

        world.dynamodb.trouble = slow
        keys = ids(100)
        claims = world.store().claim(bare(keys), MINUTE)
        assert claims == nothing_but(claimed=set(keys[:50]), undecided=set(keys[50:]))
        assert len(world.dynamodb.requests) == 2

    @pytest.mark.parametrize("code", ["AccessDenied", "ResourceNotFound", "Validation"])
    def test_that_asking_again_cannot_mend_names_table_and_cause_at_once(
        self, world: World, code: str
    ) -> None:
        for trouble in (
            Trouble("error", f"{code}Exception"),
            Trouble("items", {"Validation": "ValidationError"}.get(code, code)),
        ):
            world.dynamodb.requests.clear()
            world.dynamodb.trouble = troubles(then=trouble)
            with pytest.raises(TransientError, match=f"table claims: {code}.*: trouble"):
                world.store().claim(bare(ids(60)), MINUTE)
            assert len(world.dynamodb.requests) == 3

    def test_without_any_connection_is_raised_with_the_error_from_botocore(self, world: World) -> None:
        world.dynamodb.trouble = troubles(then=REFUSED)
        with pytest.raises(TransientError, match="table claims: Could not connect") as caught:
            world.store().claim(bare(["a"]), MINUTE)
        assert isinstance(caught.value.__cause__, BotoCoreError)
        assert (
            len(world.dynamodb.requests) == Calls.attempts
        )  # nothing was sent, so there is nothing to delete

    def test_is_named_before_mere_throttling(self, world: World) -> None:
        world.dynamodb.trouble = troubles(DENIED, then=THROTTLED)
        with pytest.raises(TransientError, match="AccessDenied"):
            world.store().claim(bare(ids(60)), MINUTE)

    def test_that_leaves_no_time_to_send_the_rest_is_not_raised(self, world: World) -> None:
        def slow(number: int, operation: str, body: Any) -> Trouble:
            world.clock.now += 40
            return THROTTLED

        world.dynamodb.trouble = slow
        assert world.store().claim(bare(ids(60)), MINUTE) == nothing_but(undecided=set(ids(60)))
        assert len(world.dynamodb.requests) == 1

    def test_that_is_an_answer_is_raised_with_it(self, world: World) -> None:
        world.dynamodb.trouble = troubles(then=DENIED)
        with pytest.raises(TransientError) as caught:
            world.store().claim(bare(["a"]), MINUTE)
        assert isinstance(caught.value.__cause__, ClientError)

    def test_with_one_request_does_not_take_the_others_along(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        world.dynamodb.trouble = troubles(None, DENIED)
        keys = ids(60)
        claims = world.store().claim(bare(keys), MINUTE)
        assert claims == nothing_but(claimed={*keys[:25], *keys[50:]}, undecided=set(keys[25:50]))
        assert "table claims: could not claim 25 keys: AccessDeniedException: trouble" in caplog.text

    def test_with_reading_leaves_only_those_undecided_that_had_to_be_read(self, world: World) -> None:
        world.dynamodb.returns_duplicates = False
        world.put("a", "COMPLETED")
        world.dynamodb.trouble = trouble_with("BatchGetItem", DENIED)
        assert world.store().claim(bare(["a", "b"]), MINUTE) == nothing_but(claimed={"b"}, undecided={"a"})

    def test_with_taking_over_leaves_only_those_undecided_that_were_stale(self, world: World) -> None:
        world.put("a", in_progress_expiration=-1)
        world.dynamodb.trouble = trouble_with("PutItem", DENIED)
        assert world.store().claim(bare(["a", "b"]), MINUTE) == nothing_but(claimed={"b"}, undecided={"a"})

    def test_is_not_reported_when_it_has_passed(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.dynamodb.trouble = troubles(LOST, THROTTLED)
        world.store().claim(bare(["a"]), MINUTE)
        assert caplog.records == []

    def test_of_our_own_making_is_not_taken_for_the_worlds(self, world: World) -> None:
        def broken(number: int, operation: str, body: Any) -> None:
            raise RuntimeError("a defect")

        world.dynamodb.trouble = broken
        for in_flight in (1, 4):
            with pytest.raises(RuntimeError, match="a defect"):
                world.store(in_flight=in_flight).claim(bare(ids(60)), MINUTE)


def only(*operations: str, trouble: Trouble, first_statement: str = "") -> Callable[..., Trouble | None]:
    """Lasting trouble with some operations, or with statements that begin in one way."""

    def plan(number: int, operation: str, body: Any) -> Trouble | None:
        statements = body.get("Statements", [{"Statement": ""}])
        return (
            trouble
            if operation in operations and statements[0]["Statement"].startswith(first_statement)
            else None
        )

    return plan


class TestClaimsThatMayHaveBeenWritten:
    """Every answer to the INSERTs is lost, and to reading: the items are there, and nobody has been told."""

    def lose_all(self, world: World, *, deletes_too: bool = False) -> None:
        world.dynamodb.returns_duplicates = False
        lost = only("BatchExecuteStatement", "BatchGetItem", trouble=LOST, first_statement="INSERT")

        def plan(number: int, operation: str, body: Any) -> Trouble | None:
            if operation == "BatchGetItem":
                return REFUSED
            if deletes_too and operation == "BatchExecuteStatement" and number > 1:
                return REFUSED
            return lost(number, operation, body)

        world.dynamodb.trouble = plan

    def test_are_deleted_before_the_claim_gives_up(self, world: World) -> None:
        self.lose_all(world)
        with pytest.raises(TransientError):
            world.store().claim(bare(["a", "b"]), MINUTE)
        assert world.dynamodb.items == {}

    def test_are_deleted_when_others_succeed(self, world: World) -> None:
        world.dynamodb.returns_duplicates = False
        world.dynamodb.trouble = only("BatchGetItem", trouble=REFUSED)
        inner = world.dynamodb.trouble
        world.dynamodb.trouble = lambda number, *rest: LOST if number == 1 else inner(number, *rest)
        keys = ids(30)
        claims = world.store().claim(bare(keys), MINUTE)
        assert claims == nothing_but(claimed=set(keys[25:]), undecided=set(keys[:25]))
        assert {key for key in keys if world.item(key)} == set(keys[25:])

    def test_block_others_but_not_the_next_claim_of_the_same_store(self, world: World) -> None:
        store = world.store()
        self.lose_all(world, deletes_too=True)
        with pytest.raises(TransientError):
            store.claim(bare(["a"]), MINUTE)
        assert world.status("a") == "INPROGRESS"
        world.dynamodb.trouble = troubles()
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(in_progress={"a"})
        assert store.claim(bare(["a"]), MINUTE) == nothing_but(claimed={"a"})
        assert store.claim(bare(["a"]), MINUTE) == nothing_but(in_progress={"a"})

    def test_are_deleted_by_the_next_release(self, world: World) -> None:
        store = world.store()
        self.lose_all(world, deletes_too=True)
        with pytest.raises(TransientError):
            store.claim(bare(["a"]), MINUTE)
        world.dynamodb.trouble = troubles()
        assert store.release([]) == frozenset()
        assert world.dynamodb.items == {}

    def test_are_forgotten_when_they_have_run_out(self, world: World) -> None:
        store = world.store()
        self.lose_all(world, deletes_too=True)
        with pytest.raises(TransientError):
            store.claim(bare(["a"]), MINUTE)
        world.dynamodb.trouble = troubles()
        world.clock.now += 61
        world.put("a", owner="other")
        assert store.claim(bare(["b"]), MINUTE) == nothing_but(claimed={"b"})
        assert store.release(["a", "b"]) == frozenset()
        assert world.status("a") == "INPROGRESS"
        assert len(world.dynamodb.requests[-1][1]["Statements"]) == 1

    def test_are_not_taken_from_one_who_was_faster(self, world: World) -> None:
        store = world.store()
        self.lose_all(world, deletes_too=True)
        with pytest.raises(TransientError):
            store.claim(bare(["a"]), MINUTE)

        def faster(number: int, operation: str, body: Any) -> None:
            if operation == "PutItem":
                world.put("a", owner="other")

        world.dynamodb.trouble = faster
        assert store.claim(bare(["a"]), MINUTE) == nothing_but(in_progress={"a"})

    def test_do_not_make_the_store_forget_an_earlier_claim_of_its_own(self, world: World) -> None:
        store = world.store()
        store.claim(bare(["a"]), MINUTE)
        self.lose_all(world)
        with pytest.raises(TransientError):
            store.claim(bare(["a"]), MINUTE)
        assert world.status("a") == "INPROGRESS"
        world.dynamodb.trouble = troubles()
        assert store.release(["a"]) == frozenset()
        assert world.dynamodb.items == {}

    def test_a_statement_that_ends_in_a_server_error_counts_as_one(self, world: World) -> None:
        world.dynamodb.returns_duplicates = False
        failing = Trouble("items after", "InternalServerError")

        def plan(number: int, operation: str, body: Any) -> Trouble | None:
            return failing if number == 1 else {"BatchGetItem": REFUSED}.get(operation)

        world.dynamodb.trouble = plan
        with pytest.raises(TransientError):
            world.store().claim(bare(["a"]), MINUTE)
        assert world.dynamodb.items == {}

    def test_a_put_without_an_answer_counts_as_one(self, world: World) -> None:
        world.dynamodb.returns_duplicates = True
        world.put("a", in_progress_expiration=-1)

        def plan(number: int, operation: str, body: Any) -> Trouble | None:
            return {"PutItem": LOST, "BatchGetItem": REFUSED}.get(operation)

        world.dynamodb.trouble = plan
        with pytest.raises(TransientError):
            world.store().claim(bare(["a"]), MINUTE)
        assert world.dynamodb.items == {}


NO_ANSWERS = [
    Trouble("body", status=503, body=b'"Service Unavailable"'),
    *[
        Trouble("body", status=200, body=body)
        for body in (
            b"null",
            b"[1]",
            b"{}",
            b'{"Responses": []}',
            b'{"Responses": {}}',
            b'{"Responses": [1, 2, 3]}',
            b'{"Responses": [{"Error": "no"}, {}, {}]}',
            b'{"Responses": [{"Error": {"Code": "DuplicateItem", "Item": 1}}, {}, {}]}',
            b'{"Responses": {"claims": [1]}}',
            b'{"Responses": {}, "UnprocessedKeys": {"claims": 1}}',
            b'{"UnprocessedItems": 1}',
        )
    ],
]


@pytest.mark.parametrize("trouble", NO_ANSWERS, ids=lambda trouble: trouble.body.decode())
class TestWhatIsNoAnswer:
    """It counts as one that was lost: the request may have had its effect, and is repeated."""

    KEYS = ("a", "b", "c")

    @pytest.mark.parametrize("operation", ["BatchExecuteStatement", "BatchGetItem", "BatchWriteItem"])
    def test_changes_nothing_when_the_next_is_one(
        self, world: World, trouble: Trouble, operation: str
    ) -> None:
        if operation == "BatchGetItem" and trouble.body == b'{"Responses": {}}':
            pytest.skip("is an answer: there are no such items")
        world.dynamodb.returns_duplicates = False
        world.put("done", "COMPLETED")
        world.dynamodb.trouble = trouble_with(operation, trouble)
        store = world.store()
        claims = store.claim(bare([*self.KEYS, "done"]), MINUTE)
        assert claims == nothing_but(claimed=set(self.KEYS), completed={"done"})
        assert store.complete(bare(claims.claimed)) == frozenset()
        assert {world.status(key) for key in self.KEYS} == {"COMPLETED"}

    def test_to_every_claim_is_the_worlds_fault_and_leaves_no_claim(
        self, world: World, trouble: Trouble
    ) -> None:
        world.dynamodb.trouble = only("BatchExecuteStatement", trouble=trouble, first_statement="INSERT")
        with pytest.raises(TransientError, match="nothing could be claimed in idempotency table claims"):
            world.store().claim(bare(self.KEYS), MINUTE)
        assert world.dynamodb.items == {}

    def test_to_every_completion_is_reported(self, world: World, trouble: Trouble) -> None:
        store = world.store()
        store.claim(bare(self.KEYS), MINUTE)
        world.dynamodb.trouble = trouble_with("BatchWriteItem", trouble, times=Calls.attempts)
        assert store.complete(bare(self.KEYS)) == frozenset(self.KEYS)

    def test_to_every_release_is_reported_and_not_raised(self, world: World, trouble: Trouble) -> None:
        store = world.store()
        store.claim(bare(self.KEYS), MINUTE)
        world.dynamodb.trouble = only("BatchExecuteStatement", trouble=trouble, first_statement="DELETE")
        assert store.release(self.KEYS) == frozenset(self.KEYS)


class TestADefectWhileClaiming:
    @pytest.mark.parametrize("in_flight", [1, 4])
    def test_leaves_no_claim(self, world: World, in_flight: int) -> None:
        def keys() -> Iterator[str]:
            yield from ids(60)
            raise RuntimeError("a defect")

        world.put("record-3", "COMPLETED")
        world.put("record-4", owner="other")
        store = world.store(in_flight=in_flight)
        with pytest.raises(RuntimeError, match="a defect"):
            store.claim(bare(keys()), MINUTE)
        statuses = {key: world.status(key) for key in ids(60) if world.status(key)}
        assert statuses == {"record-3": "COMPLETED", "record-4": "INPROGRESS"}

    def test_leaves_what_cannot_be_deleted_to_the_next_claim(self, world: World) -> None:
        def keys() -> Iterator[str]:
            yield from ids(30)
            raise RuntimeError("a defect")

        world.dynamodb.trouble = only("BatchExecuteStatement", trouble=REFUSED, first_statement="DELETE")
        store = world.store()
        with pytest.raises(RuntimeError, match="a defect"):
            store.claim(bare(keys()), MINUTE)
        world.dynamodb.trouble = troubles()
        assert store.claim(bare(ids(30)), MINUTE) == nothing_but(claimed=set(ids(30)))
