"""Bulk idempotency: what is stored, by whose rules, and what is asked of DynamoDB for it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from aws_lambda_powertools.utilities.idempotency import DynamoDBPersistenceLayer
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyKeyError,
    IdempotencyValidationError,
)
from aws_lambda_powertools.utilities.idempotency.persistence import base, dynamodb
from hypothesis import example, given
from hypothesis import strategies as st

from oncestream.calls import Calls
from oncestream.idempotency import Claims
from tests.unit.fake_dynamodb import Clock, FakeDynamoDB, Trouble
from tests.unit.idempotency_world import (
    CLIENT,
    DAY,
    DENIED,
    MINUTE,
    REFUSED,
    TABLE,
    THROTTLED,
    Slow,
    World,
    bare,
    config,
    hashed,
    ids,
    nothing_but,
    troubles,
)


@pytest.fixture
def world() -> World:
    return World()


class TestClaimsOfNewKeys:
    def test_are_stored_as_powertools_stores_a_call_in_progress_with_an_owner_beside(
        self, world: World
    ) -> None:
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(claimed={"a"})
        item = world.item("a") or {}
        assert len(item.pop("owner")["S"]) == 16
        assert item == {
            "id": {"S": hashed("a")},
            "status": {"S": "INPROGRESS"},
            "expiration": {"N": str(int(world.clock.now + DAY))},
            "in_progress_expiration": {"N": str(int(world.clock.now * 1000) + MINUTE)},
        }

    def test_of_no_keys_ask_nothing(self, world: World) -> None:
        assert world.store().claim(bare([]), MINUTE) == nothing_but()
        assert world.dynamodb.requests == []

    def test_of_equal_keys_are_one_claim(self, world: World) -> None:
        assert world.store().claim(bare(["a", "b", "a"]), MINUTE) == nothing_but(claimed={"a", "b"})
        ((_, body),) = world.dynamodb.requests
        assert len(body["Statements"]) == 2

    def test_of_1000_keys_are_40_requests_and_as_many_complete_them(self, world: World) -> None:
        store, keys = world.store(in_flight=4), ids(1000)
        assert store.claim(bare(keys), MINUTE) == nothing_but(claimed=set(keys))
        assert store.complete(bare(keys)) == frozenset()
        assert world.dynamodb.operations() == ["BatchExecuteStatement"] * 40 + ["BatchWriteItem"] * 40
        assert {world.status(key) for key in keys} == {"COMPLETED"}

    def test_bind_all_values_in_the_statements(self, world: World) -> None:
        world.store(key_prefix='it\'s "x" ?').claim(bare(["'; --"]), MINUTE)
        ((_, body),) = world.dynamodb.requests
        assert body["Statements"][0]["Statement"] == (
            "INSERT INTO \"claims\" VALUE {'id': ?, 'expiration': ?, 'status': ?, "
            "'in_progress_expiration': ?, 'owner': ?}"
        )
        assert body["Statements"][0]["Parameters"][0] == {"S": hashed("'; --", 'it\'s "x" ?')}

    def test_have_another_owner_each_time(self, world: World) -> None:
        store = world.store()
        store.claim(bare(["a"]), MINUTE)
        store.claim(bare(["b"]), MINUTE)
        owners = {item["owner"]["S"] for item in world.dynamodb.items.values()}
        assert len(owners) == 2

    def test_of_an_empty_key_are_refused(self, world: World) -> None:
        with pytest.raises(IdempotencyKeyError):
            world.store().claim(bare(["a", ""]), MINUTE)
        assert world.dynamodb.requests == []


EXISTING = [
    pytest.param({"status": "COMPLETED"}, "completed", id="completed"),
    pytest.param({"status": "COMPLETED", "in_progress_expiration": None}, "completed", id="completed here"),
    pytest.param({"status": "COMPLETED", "in_progress_expiration": -1}, "completed", id="completed late"),
    pytest.param({"status": "COMPLETED", "expiration": 0}, "completed", id="completed, expires this second"),
    pytest.param({"status": "COMPLETED", "expiration": -1}, "claimed", id="completed, expired"),
    pytest.param({"status": "COMPLETED", "expiration": None}, "completed", id="completed, never expires"),
    pytest.param({}, "in_progress", id="in progress"),
    pytest.param({"owner": "other"}, "in_progress", id="in progress for another owner"),
    pytest.param({"in_progress_expiration": 0}, "in_progress", id="in progress, runs out this millisecond"),
    pytest.param({"in_progress_expiration": -0.001}, "claimed", id="run out"),
    pytest.param(
        {"in_progress_expiration": -0.001, "owner": "other"}, "claimed", id="other owner's, run out"
    ),
    pytest.param({"in_progress_expiration": None}, "in_progress", id="in progress without an end"),
    pytest.param(
        {"in_progress_expiration": None, "expiration": -1},
        "claimed",
        id="in progress without an end, expired",
    ),
    pytest.param({"expiration": -1}, "claimed", id="in progress, expired"),
    pytest.param({"status": "PAUSED", "in_progress_expiration": -1}, "in_progress", id="unknown status"),
    pytest.param({"status": "PAUSED", "expiration": -1}, "claimed", id="unknown status, expired"),
]


@pytest.mark.parametrize("returned", [True, False], ids=["item in the answer", "item read back"])
@pytest.mark.parametrize(("existing", "expected"), EXISTING)
class TestExistingItems:
    def test_are_judged_by_powertools_rules(
        self, world: World, existing: dict[str, Any], expected: str, returned: bool
    ) -> None:
        world.dynamodb.returns_duplicates = returned
        before = world.put("a", **existing)
        assert world.store().claim(bare(["a", "b"]), MINUTE) == Claims(
            **{
                "completed": frozenset(),
                "suspect": frozenset(),
                "in_progress": frozenset(),
                "undecided": frozenset(),
                expected: frozenset({"a"}),
                "claimed": frozenset({"a", "b"} if expected == "claimed" else {"b"}),
            }
        )
        after = world.item("a") or {}
        if expected == "claimed":
            assert after["owner"] == (world.item("b") or {})["owner"]
            assert after["status"] == {"S": "INPROGRESS"}
        else:
            assert after == before
        assert ("BatchGetItem" in world.dynamodb.operations()) is not returned

    def test_would_be_put_or_not_by_powertools_in_the_same_way(
        self,
        world: World,
        existing: dict[str, Any],
        expected: str,
        returned: bool,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        world.put("a", **existing)
        layer = DynamoDBPersistenceLayer(TABLE, boto3_client=CLIENT)
        layer.configure(config(), key_prefix="consumer")
        layer.return_value_on_condition = {}  # it cannot read an item without an expiry
        freeze(monkeypatch, world.clock)
        try:
            layer.save_inprogress(data="a", remaining_time_in_millis=MINUTE)
            taken = True
        except dynamodb.IdempotencyItemAlreadyExistsError:
            taken = False
        assert taken is (expected == "claimed")


COMPLETED = {"status": "COMPLETED", "in_progress_expiration": None}
DIGESTS = [
    pytest.param(COMPLETED | {"validation": "one"}, "one", "completed", id="done with the same"),
    pytest.param(COMPLETED | {"validation": "one"}, "two", "suspect", id="done with another"),
    pytest.param(COMPLETED, "two", "completed", id="done by a release without digests"),
    pytest.param(COMPLETED | {"validation": ""}, "two", "completed", id="done with none"),
    pytest.param(COMPLETED | {"validation": "one"}, "", "completed", id="asked with none"),
    pytest.param(COMPLETED | {"validation": "one", "expiration": -1}, "two", "claimed", id="done, expired"),
    pytest.param({"validation": "one"}, "one", "in_progress", id="in progress with the same"),
    pytest.param({"validation": "one"}, "two", "in_progress", id="in progress with another"),
    pytest.param({"validation": "one", "in_progress_expiration": -1}, "two", "claimed", id="run out"),
]


class TestDigests:
    @pytest.mark.parametrize("returned", [True, False], ids=["item in the answer", "item read back"])
    @pytest.mark.parametrize(("existing", "digest", "expected"), DIGESTS)
    def test_make_what_is_done_with_another_one_suspect_and_decide_nothing_else(
        self, world: World, existing: dict[str, Any], digest: str, expected: str, returned: bool
    ) -> None:
        world.dynamodb.returns_duplicates = returned
        before = world.put("a", **existing)
        assert world.store().claim([("a", digest)], MINUTE) == nothing_but(**{expected: {"a"}})
        if expected == "claimed":
            assert (world.item("a") or {})["validation"] == {"S": digest}
        else:
            assert world.item("a") == before

    def test_of_a_redelivered_batch_are_compared_as_well(self, world: World) -> None:
        for key in ids(300):
            world.put(key, "COMPLETED", validation="one")
        claims = world.store().claim(
            ((key, "two" if key == "record-250" else "one") for key in ids(300)), MINUTE
        )
        assert claims == nothing_but(suspect={"record-250"}, completed=set(ids(300)) - {"record-250"})
        assert claims.done_with == {"record-250": "one"}

    def test_are_claimed_with_the_key_and_completed_with_what_was_stored(self, world: World) -> None:
        store = world.store()
        store.claim([("a", "asked"), ("b", ""), ("c", "asked")], MINUTE)
        assert [(world.item(key) or {}).get("validation") for key in "abc"] == [
            {"S": "asked"}, None, {"S": "asked"},
        ]  # fmt: skip
        assert store.complete([("a", "stored"), ("b", "stored"), ("c", "")]) == frozenset()
        assert [(world.item(key) or {}).get("validation") for key in "abc"] == [
            {"S": "stored"}, {"S": "stored"}, None,
        ]  # fmt: skip

    def test_of_equal_keys_are_the_first_ones(self, world: World) -> None:
        world.store().claim([("a", "one"), ("a", "two")], MINUTE)
        assert (world.item("a") or {})["validation"] == {"S": "one"}

    def test_survive_what_dynamodb_leaves_undone(self, world: World) -> None:
        store = world.store()
        world.dynamodb.trouble = troubles(
            THROTTLED, None, Trouble("items", spare=lambda number: number % 2 > 0)
        )
        keys = [(key, f"digest of {key}") for key in ids(30)]
        assert store.claim(keys, MINUTE).claimed == set(ids(30))
        assert store.complete(keys) == frozenset()
        assert {(world.item(key) or {})["validation"]["S"] for key in ids(30)} == {
            digest for _, digest in keys
        }

    def test_are_read_by_powertools_with_payload_validation_and_ignored_without(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        freeze(monkeypatch, world.clock)
        plain = DynamoDBPersistenceLayer(TABLE, boto3_client=CLIENT)
        plain.configure(config(), key_prefix="consumer")
        validating = DynamoDBPersistenceLayer(TABLE, boto3_client=CLIENT)
        settings = config(event_key_jmespath="id", payload_validation_jmespath="payload")
        validating.configure(settings, key_prefix="consumer")
        order = {"id": "a", "payload": {"n": 1}}
        world.store().complete([("a", validating._get_hashed_payload(order))])
        assert plain.get_record(data="a").status == "COMPLETED"
        assert validating.get_record(data=order).status == "COMPLETED"
        with pytest.raises(IdempotencyValidationError):
            validating.get_record(data=order | {"payload": {"n": 2}})
        # And the other way round: what it completes is suspect here under another digest.
        validating.save_inprogress(data={"id": "b", "payload": 1}, remaining_time_in_millis=MINUTE)
        validating.save_success(data={"id": "b", "payload": 1}, result={})
        same = validating._get_hashed_payload({"payload": 1})
        assert world.store().claim([("b", same)], MINUTE) == nothing_but(completed={"b"})
        assert world.store().claim([("b", "another")], MINUTE) == nothing_but(suspect={"b"})


def freeze(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Let Powertools see the test's clock."""

    class Frozen(base.dt.datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return cls.fromtimestamp(clock.now, tz)

    class Module:
        datetime = Frozen
        timedelta = base.dt.timedelta

    monkeypatch.setattr(base, "dt", Module)
    monkeypatch.setattr(dynamodb, "dt", Module)


class TestTheFormatIsPowertools:
    def powertools(
        self, world: World, monkeypatch: pytest.MonkeyPatch, **options: Any
    ) -> DynamoDBPersistenceLayer:
        freeze(monkeypatch, world.clock)
        layer = DynamoDBPersistenceLayer(TABLE, boto3_client=CLIENT, **options)
        layer.configure(config(), key_prefix="consumer")
        return layer

    def test_a_take_over_is_their_put_with_an_owner_in_the_item(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.put("a", in_progress_expiration=-1)
        world.store().claim(bare(["a"]), MINUTE)
        world.put("a", in_progress_expiration=-1)
        self.powertools(world, monkeypatch).save_inprogress(data="a", remaining_time_in_millis=MINUTE)
        ours, theirs = [body for operation, body in world.dynamodb.requests if operation == "PutItem"]
        del ours["Item"]["owner"]
        assert ours == theirs

    def test_a_completed_item_has_the_values_that_theirs_has_for_a_function_that_returns_nothing(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        world.store().complete(bare(["a"]))
        layer = self.powertools(world, monkeypatch)
        layer.save_inprogress(data="b", remaining_time_in_millis=MINUTE)
        layer.save_success(data="b", result=None)  # type: ignore[arg-type]  # what their handler passes for None
        ours, theirs = world.item("a") or {}, world.item("b") or {}
        del theirs["in_progress_expiration"]  # they leave it standing; it means nothing once completed
        assert ours | {"id": theirs["id"]} == theirs
        assert layer.get_record(data="a").status == "COMPLETED"
        assert layer.get_record(data="a").response_json_as_dict() is None

    @pytest.mark.parametrize("function", ["sha256", "md5"])
    @given(key=st.text(min_size=1))
    def test_keys_are_hashed_as_theirs(self, function: str, key: str) -> None:
        world = World()
        world.store(config=config(hash_function=function)).claim(bare([key]), MINUTE)
        layer = DynamoDBPersistenceLayer(TABLE, boto3_client=CLIENT)
        layer.configure(config(hash_function=function), key_prefix="consumer")
        assert list(world.dynamodb.items) == [(layer._get_hashed_idempotency_key(key),)]

    def test_with_a_sort_key_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        world = World(FakeDynamoDB(TABLE, sort_key="sort"))
        options = {"sort_key_attr": "sort", "static_pk_value": "all"}
        store = world.store(**options)
        store.claim(bare(["done", "mine"]), MINUTE)
        store.complete(bare(["done"]))
        layer = self.powertools(world, monkeypatch, **options)
        assert layer.get_record(data="done").status == "COMPLETED"
        assert layer.get_record(data="mine").status == "INPROGRESS"
        for returned in (True, False):
            world.dynamodb.returns_duplicates = returned
            expected = nothing_but(completed={"done"}, in_progress={"mine"})
            assert world.store(**options).claim(bare(["done", "mine"]), MINUTE) == expected
        store.release(["done", "mine"])
        assert list(world.dynamodb.items) == [("all", hashed("done"))]

    def test_with_other_names(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        names = {
            "expiry_attr": "ttl",
            "in_progress_expiry_attr": "until",
            "status_attr": "state",
            "data_attr": "result",
        }
        world.store(**names, owner_attr="who").claim(bare(["a"]), MINUTE)
        world.store(**names, owner_attr="who").complete(bare(["b"]))
        assert set(world.item("a") or {}) == {"id", "ttl", "until", "state", "who"}
        assert set(world.item("b") or {}) == {"id", "ttl", "state", "result"}
        layer = self.powertools(world, monkeypatch, **names)
        assert [layer.get_record(data=key).status for key in "ab"] == ["INPROGRESS", "COMPLETED"]


class TestTheConstructor:
    @pytest.mark.parametrize("wish", [{"use_local_cache": True}], ids=lambda wish: next(iter(wish)))
    def test_refuses_what_a_bulk_claim_cannot_honour(self, world: World, wish: dict[str, Any]) -> None:
        with pytest.raises(ValueError, match=next(iter(wish))):
            world.store(config=config(**wish))

    def test_refuses_an_empty_prefix(self, world: World) -> None:
        with pytest.raises(ValueError, match="key_prefix"):
            world.store(key_prefix="")

    @pytest.mark.parametrize("name", ["it's", 'a"b'])
    def test_refuses_a_name_that_would_end_its_quotes(self, world: World, name: str) -> None:
        with pytest.raises(ValueError, match="quoted"):
            world.store(expiry_attr=name)

    def test_makes_a_store_whose_prefix_a_decorator_cannot_change(self, world: World) -> None:
        store = world.store()
        store.configure(config(), function_name="module.function")
        store.configure(config(), key_prefix="consumer")
        with pytest.raises(ValueError, match="consumer"):
            store.configure(config(), key_prefix="other")
        store.claim(bare(["a"]), MINUTE)
        assert world.item("a")


class TestRelease:
    def test_frees_the_keys_for_others(self, world: World) -> None:
        store = world.store()
        store.claim(bare(ids(30)), MINUTE)
        assert store.release(ids(30)) == frozenset()
        assert world.store().claim(bare(ids(30)), MINUTE) == nothing_but(claimed=set(ids(30)))

    def test_leaves_a_claim_that_ran_out_and_was_taken_over(self, world: World) -> None:
        store = world.store()
        store.claim(bare(["a"]), 1_000)
        world.clock.now += 2
        assert world.store().claim(bare(["a"]), MINUTE) == nothing_but(claimed={"a"})
        taken = world.item("a")
        assert store.release(["a"]) == frozenset()
        assert world.item("a") == taken

    def test_leaves_a_completed_item_even_if_powertools_left_our_owner_in_it(self, world: World) -> None:
        store = world.store()
        store.claim(bare(["a"]), MINUTE)
        (world.item("a") or {})["status"] = {"S": "COMPLETED"}
        assert store.release(["a"]) == frozenset()
        assert world.status("a") == "COMPLETED"

    def test_after_completion_asks_nothing(self, world: World) -> None:
        store = world.store()
        store.claim(bare(["a"]), MINUTE)
        store.complete(bare(["a"]))
        world.dynamodb.requests.clear()
        assert store.release(["a"]) == frozenset()
        assert world.dynamodb.requests == []

    def test_of_what_was_never_claimed_or_is_released_asks_nothing(self, world: World) -> None:
        world.put("theirs")
        world.put("done", "COMPLETED")
        store = world.store()
        store.claim(bare(["mine", "theirs", "done"]), MINUTE)
        store.release(["mine"])
        world.dynamodb.requests.clear()
        assert store.release(["mine", "theirs", "done", "unknown"]) == frozenset()
        assert world.dynamodb.requests == []

    @pytest.mark.parametrize(
        "trouble", [THROTTLED, DENIED, REFUSED, Trouble("items"), Trouble("items", "AccessDenied")]
    )
    def test_that_fails_is_reported_and_mended_by_the_next_claim(
        self, world: World, trouble: Trouble, caplog: pytest.LogCaptureFixture
    ) -> None:
        store = world.store()
        store.claim(bare(["a", "b"]), MINUTE)
        world.dynamodb.trouble = troubles(then=trouble)
        assert store.release(["a"]) == frozenset({"a"})
        assert re.search(r"table claims: could not release 1 keys: .*(Thr|Denied|connect)", caplog.text)
        world.dynamodb.trouble = troubles()
        assert store.claim(bare(["a", "b"]), MINUTE) == nothing_but(claimed={"a"}, in_progress={"b"})


class TestComplete:
    def test_of_no_keys_asks_nothing(self, world: World) -> None:
        assert world.store().complete(bare([])) == frozenset()
        assert world.dynamodb.requests == []

    def test_replaces_whatever_is_there(self, world: World) -> None:
        world.put("a", owner="other")
        assert world.store().complete(bare(["a", "a"])) == frozenset()
        assert world.status("a") == "COMPLETED"
        assert "owner" not in (world.item("a") or {})

    @pytest.mark.parametrize("trouble", [THROTTLED, DENIED, REFUSED])
    def test_reports_what_it_could_not_write_and_writes_the_rest(
        self, world: World, trouble: Trouble, caplog: pytest.LogCaptureFixture
    ) -> None:
        keys = ids(60)
        first = {hashed(key) for key in keys[:25]}

        def plan(number: int, operation: str, body: Any) -> Trouble | None:
            asked = {write["PutRequest"]["Item"]["id"]["S"] for write in body["RequestItems"][TABLE]}
            return trouble if asked & first else None

        world.dynamodb.trouble = plan
        assert world.store().complete(bare(keys)) == frozenset(keys[:25])
        assert {key for key in keys if world.status(key)} == set(keys[25:])
        assert re.search(r"table claims: could not complete 25 keys: .*(Thr|Denied|connect)", caplog.text)

    def test_reports_what_stays_unprocessed(self, world: World, caplog: pytest.LogCaptureFixture) -> None:
        world.dynamodb.trouble = troubles(then=Trouble("items", spare=lambda position: position > 1))
        assert world.store().complete(bare(ids(10))) == frozenset(ids(2))
        assert len(world.dynamodb.requests) == Calls.attempts
        assert "could not complete 2 keys" in caplog.text


class TestAnIterator:
    def test_is_asked_for_each_key_once_and_for_all_of_them(self, world: World) -> None:
        asked = []

        def keys() -> Iterator[str]:
            for key in [*ids(60), "record-0"]:
                asked.append(key)
                yield key

        assert world.store().claim(bare(keys()), MINUTE) == nothing_but(claimed=set(ids(60)))
        assert asked == [*ids(60), "record-0"]

    def test_is_asked_for_the_next_keys_when_the_first_are_under_way(self, world: World) -> None:
        sent_when_asked = []

        def keys() -> Iterator[str]:
            for key in ids(75):
                sent_when_asked.append(len(world.dynamodb.requests))
                yield key

        world.store().claim(bare(keys()), MINUTE)
        assert sent_when_asked == [0] * 25 + [1] * 25 + [2] * 25

    @pytest.mark.parametrize("known_after", [200, 10_000])
    def test_is_collected_while_the_first_answer_may_change_what_is_asked(
        self, world: World, known_after: int
    ) -> None:
        sent_when_asked: list[int] = []
        slow = Slow(lambda: len(sent_when_asked) > known_after)

        def keys() -> Iterator[str]:
            for key in ids(1000):
                sent_when_asked.append(len(world.dynamodb.requests))
                yield key

        claims = world.store(in_flight=40, transport=slow).claim(bare(keys()), MINUTE)
        assert claims == nothing_but(claimed=set(ids(1000)))
        assert world.dynamodb.operations() == ["BatchExecuteStatement"] * 40
        assert sent_when_asked[:200] == [0] * 25 + [1] * 175
        assert (max(sent_when_asked) == 1) == (known_after > 1000)

    def test_is_asked_to_its_end_when_there_is_no_time_left(self, world: World) -> None:
        def keys() -> Iterator[str]:
            for key in ids(60):
                world.clock.now += 1
                yield key

        claims = world.store(patience_seconds=30).claim(bare(keys()), MINUTE)
        assert claims == nothing_but(claimed=set(ids(25)), undecided=set(ids(60)) - set(ids(25)))


class TestARedeliveredBatch:
    def completed(self, world: World, keys: list[str]) -> None:
        for key in keys:
            world.put(key, "COMPLETED")

    def test_is_read_rather_than_inserted_once_that_is_clear(self, world: World) -> None:
        self.completed(world, ids(1000))
        assert world.store().claim(bare(ids(1000)), MINUTE) == nothing_but(completed=set(ids(1000)))
        operations = world.dynamodb.operations()
        assert operations == ["BatchExecuteStatement"] + ["BatchGetItem"] * 10

    def test_is_known_by_its_first_keys_however_far_dynamodb_is(self, world: World) -> None:
        self.completed(world, ids(1000))
        asked: list[str] = []
        store = world.store(in_flight=40, transport=Slow(lambda: len(asked) > 600))
        claims = store.claim(bare(asked.append(key) or key for key in ids(1000)), MINUTE)
        assert claims == nothing_but(completed=set(ids(1000)))
        assert world.dynamodb.operations() == ["BatchExecuteStatement"] + ["BatchGetItem"] * 10

    def test_that_was_done_in_part_is_claimed_where_it_was_not(self, world: World) -> None:
        self.completed(world, ids(100))
        before = world.clock.now
        claims = world.store().claim(bare(ids(300)), MINUTE)
        assert claims == nothing_but(completed=set(ids(100)), claimed=set(ids(300)) - set(ids(100)))
        assert world.clock.now == before  # that keys are free is no reason for a pause

    def test_is_not_suspected_for_some_duplicates(self, world: World) -> None:
        self.completed(world, ids(24))
        world.store().claim(bare(ids(100)), MINUTE)
        assert world.dynamodb.operations().count("BatchExecuteStatement") == 4


@given(key=st.text(min_size=1))
@example(key='é\x7f\u2028\\"😀')
def test_a_key_is_hashed_as_powertools_hashes_it(key: str) -> None:
    store = World().store()
    assert store._hash(key) == store._get_hashed_idempotency_key(key)  # type: ignore[arg-type]  # texts are fine
