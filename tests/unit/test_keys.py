"""Keys of every type: what is claimed here is seen by @idempotent_function, and the other way round."""

from __future__ import annotations

import dataclasses
import datetime as dt
import uuid
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from aws_lambda_powertools.utilities.data_classes import SQSEvent
from aws_lambda_powertools.utilities.idempotency import (
    DynamoDBPersistenceLayer,
    IdempotencyConfig,
    idempotent_function,
)
from aws_lambda_powertools.utilities.idempotency.exceptions import (
    IdempotencyAlreadyInProgressError,
    IdempotencyKeyError,
    IdempotencyValidationError,
)
from pydantic import BaseModel

from oncestream import BulkIdempotency, Key
from oncestream.testing import InMemoryTable

MINUTE = 60_000


@dataclasses.dataclass
class Order:
    id: int
    name: str = "a"


class Model(BaseModel):
    id: uuid.UUID = uuid.UUID(int=7)
    amount: Decimal = Decimal("1.50")
    day: dt.date = dt.date(2026, 1, 1)


DATA = [
    pytest.param("order-1", id="text"),
    pytest.param('ü "x" \ud800', id="text of any kind"),
    pytest.param(7, id="integer"),
    pytest.param(0, id="zero"),
    pytest.param(7.0, id="float"),
    pytest.param(1e300, id="large float"),
    pytest.param(True, id="boolean"),
    pytest.param(["a", 1, None], id="list"),
    pytest.param(("a", 1), id="tuple"),
    pytest.param({"b": 1, "a": {"d": [2.5], "c": None}}, id="object"),
    pytest.param(Decimal("12.340"), id="Decimal"),
    pytest.param({"n": Decimal("1.0"), "at": dt.date(2026, 1, 1), "id": uuid.UUID(int=1)}, id="other types"),
    pytest.param(Order(7), id="dataclass"),
    pytest.param(Model(), id="pydantic model"),
]
CHOSEN = [
    pytest.param("id", {"id": "a", "more": 1}, id="text"),
    pytest.param("id", {"id": 7}, id="integer"),
    pytest.param("id", {"id": 1.5}, id="float"),
    pytest.param("[id, at]", {"id": 7, "at": None}, id="list"),
    pytest.param("{id: id, at: at}", {"id": 7, "at": "now"}, id="object"),
    pytest.param("powertools_json(body).id", {"body": '{"id": 12}'}, id="Powertools' function"),
    pytest.param("id", Model(), id="of a model"),
    pytest.param("id", Order(9), id="of a dataclass"),
]


class World:
    """A table, and a function that is decorated with a layer of Powertools' own on it."""

    def __init__(self, **settings: Any) -> None:
        self.table = InMemoryTable()
        self.client = self.table.client()
        context = SimpleNamespace(get_remaining_time_in_millis=lambda: MINUTE)
        self.config = IdempotencyConfig(lambda_context=context, **settings)
        self.calls: list[Any] = []

    def store(self, **options: Any) -> BulkIdempotency:
        prefix = options or {"key_prefix": "orders"}
        return BulkIdempotency("idempotency", config=self.config, boto3_client=self.client, **prefix)

    def decorated(self, key_prefix: str | None = "orders") -> Any:
        def process_order(order: Any) -> None:
            self.calls.append(order)

        layer = DynamoDBPersistenceLayer("idempotency", boto3_client=self.client)
        return idempotent_function(
            process_order,
            data_keyword_argument="order",
            persistence_store=layer,
            config=self.config,
            key_prefix=key_prefix,
        )


def both_ways(world: World, data: Any, key_prefix: str | None = "orders", **options: Any) -> None:
    store, process = world.store(**options), world.decorated(key_prefix)
    key = store.key(data)
    assert store.claim([(key, "")], MINUTE).claimed == {key}
    with pytest.raises(IdempotencyAlreadyInProgressError):
        process(order=data)
    store.complete([(key, "")])
    process(order=data)
    assert world.calls == []

    world.table.items.clear()
    process(order=data)
    assert len(world.calls) == 1
    assert world.store(**options).claim([(key, "")], MINUTE).completed == {key}
    assert len(world.table.items) == 1


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("function", ["md5", "sha256"])
def test_a_key_is_the_decorators_in_both_directions(data: Any, function: str) -> None:
    both_ways(World(hash_function=function), data)


@pytest.mark.parametrize(("expression", "data"), CHOSEN)
def test_a_chosen_key_is_the_decorators_in_both_directions(expression: str, data: Any) -> None:
    both_ways(World(event_key_jmespath=expression), data)


@pytest.mark.parametrize("name", ["orders-function", None], ids=["in Lambda", "outside"])
def test_a_store_that_replaces_a_function_has_its_memory(
    name: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name:
        monkeypatch.setenv("AWS_LAMBDA_FUNCTION_NAME", name)
    else:
        monkeypatch.delenv("AWS_LAMBDA_FUNCTION_NAME", raising=False)
    world = World()
    decorated = world.decorated(None).__wrapped__
    both_ways(world, 7, None, replaces=f"{decorated.__module__}.{decorated.__qualname__}")


def test_an_events_data_class_is_what_it_wraps() -> None:
    event = SQSEvent({"Records": []})
    world = World()
    assert world.store().key(event) == world.store().key({"Records": []})


@pytest.mark.parametrize("data", [None, "", [], {}, [None], {"a": None}], ids=repr)
def test_what_powertools_takes_for_no_key_is_refused(data: Any) -> None:
    with pytest.raises(IdempotencyKeyError):
        World().store().key(data)


def test_an_expression_that_finds_nothing_is_named() -> None:
    with pytest.raises(IdempotencyKeyError, match=r"order\.id"):
        World(event_key_jmespath="order.id").store().key({"order": {}})


def test_numbers_of_one_value_and_different_types_are_different_keys() -> None:
    store = World().store()
    keys = [store.key(data) for data in (1, 1.0, True, "1")]
    assert store.claim([(key, "") for key in keys], MINUTE).claimed == set(keys)
    assert len(set(keys)) == 4


def test_a_text_is_the_key_that_an_expression_would_find() -> None:
    store = World(event_key_jmespath="id").store()
    store.complete([("a", "")])
    key = store.key({"id": "a"})
    assert store.claim([(key, "")], MINUTE).completed == {key}


def test_a_text_that_reads_like_a_key_is_another() -> None:
    store = World().store()
    key = store.key("a")
    text = str(key)
    assert key != text
    assert len({key, text}) == 2
    assert store.claim([(key, ""), (text, "")], MINUTE).claimed == {key, text}
    assert isinstance(key, Key)
    assert len(store.claim([(text, "")], MINUTE).in_progress) == 1


@pytest.mark.parametrize("prefixes", [{}, {"key_prefix": "a", "replaces": "b"}, {"key_prefix": ""}], ids=repr)
def test_one_prefix_is_needed(prefixes: dict[str, str]) -> None:
    world = World()
    with pytest.raises(ValueError, match="replaces"):
        BulkIdempotency("idempotency", config=world.config, boto3_client=world.client, **prefixes)


class TestPayloadValidation:
    SETTINGS: ClassVar = {"event_key_jmespath": "id", "payload_validation_jmespath": "[amount, currency]"}

    def test_is_powertools_own_in_both_directions(self) -> None:
        world = World(**self.SETTINGS)
        store, process = world.store(), world.decorated()
        order = {"id": 1, "amount": 5, "currency": "EUR", "note": "x"}
        other = order | {"amount": 6}
        key = store.key(order)
        store.complete([(key, store.digest(order))])
        process(order=order | {"note": "y"})
        with pytest.raises(IdempotencyValidationError):
            process(order=other)
        assert world.calls == []

        world.table.items.clear()
        process(order=order)
        assert store.claim([(key, store.digest(order))], MINUTE).completed == {key}
        assert store.claim([(key, store.digest(other))], MINUTE).suspect == {key}

    def test_is_off_where_it_is_not_configured(self) -> None:
        assert World().store().digest({"id": 1}) == ""
