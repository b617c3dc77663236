"""BulkProcessor: each source's events, answers and rejections, on a table in memory."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any, ClassVar

import boto3
import pytest
from aws_lambda_powertools.utilities.batch import EventType, process_partial_response
from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
from moto import mock_aws
from pydantic import BaseModel

import oncestream
from oncestream import BulkIdempotency, BulkProcessor, Rejected, RejectedRecord, TransientError
from oncestream.rejected import to_queue, to_table
from oncestream.testing import InMemoryTable

CONTEXT: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 60_000)
QUEUE = "arn:aws:sqs:us-east-1:123456789012:orders"


def encoded(body: Any) -> bytes:
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def sqs(bodies: Iterable[Any], arn: str = QUEUE, groups: str = "") -> dict[str, Any]:
    return {
        "Records": [
            {
                "messageId": str(at),
                "body": encoded(body).decode(),
                "eventSource": "aws:sqs",
                "eventSourceARN": arn,
                "attributes": {"MessageGroupId": groups[at - 1]} if groups else {},
            }
            for at, body in enumerate(bodies, 1)
        ]
    }


def fifo(bodies: Iterable[Any], groups: str) -> dict[str, Any]:
    return sqs(bodies, f"{QUEUE}.fifo", groups)


def kinesis(bodies: Iterable[Any]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventSource": "aws:kinesis",
                "kinesis": {"sequenceNumber": str(at), "data": base64.b64encode(encoded(body)).decode()},
            }
            for at, body in enumerate(bodies, 1)
        ]
    }


def kafka(bodies: Iterable[Any], source: str = "aws:kafka") -> dict[str, Any]:
    records: dict[str, list[Any]] = {}
    for at, body in enumerate(bodies, 1):
        partition = at % 2
        records.setdefault(f"orders-{partition}", []).append(
            {
                "topic": "orders",
                "partition": partition,
                "offset": at,
                "value": None if body is None else base64.b64encode(encoded(body)).decode(),
            }
        )
    return {"eventSource": source, "records": records}


def changes(bodies: Iterable[Any]) -> dict[str, Any]:
    return {
        "Records": [
            {
                "eventID": str(body["order_id"]) if isinstance(body, dict) else "",
                "eventName": "INSERT",
                "eventSource": "aws:dynamodb",
                "dynamodb": {
                    "Keys": {"order_id": {"N": "1"}},
                    "NewImage": {"order_id": {"N": "1"}, "tags": {"L": [{"S": "x"}]}},
                    "SequenceNumber": str(at),
                },
            }
            for at, body in enumerate(bodies, 1)
        ]
    }


def order(number: Any, **more: Any) -> dict[str, Any]:
    return {"order_id": number, **more}


class World:
    def __init__(self, event_type: EventType = EventType.SQS, **options: Any) -> None:
        self.table = InMemoryTable()
        settings = {"event_key_jmespath": "order_id"} | options.pop("config", {})
        self.store = BulkIdempotency(
            "idempotency",
            config=IdempotencyConfig(hash_function="sha256", **settings),
            key_prefix="orders",
            boto3_client=self.table.client(),
        )
        self.processor = BulkProcessor(event_type, self.store, **options)
        self.batches: list[list[Any]] = []
        self.reject: dict[Any, str] = {}
        self.error: Exception | None = None

    def handle(self, orders: list[Any]) -> list[Rejected]:
        self.batches.append(orders)
        if self.error:
            raise self.error
        return [
            Rejected(each, self.reject[each["order_id"]])
            for each in orders
            if each["order_id"] in self.reject
        ]

    def deliver(self, event: dict[str, Any]) -> list[Any]:
        answer = process_partial_response(event, self.handle, self.processor, CONTEXT)
        return [each["itemIdentifier"] for each in answer["batchItemFailures"]]

    @property
    def outcomes(self) -> list[str]:
        return [result.outcome.value for result in self.processor.results]

    def claim_elsewhere(self, *numbers: Any) -> BulkIdempotency:
        other = BulkIdempotency(
            "idempotency",
            config=IdempotencyConfig(hash_function="sha256", event_key_jmespath="order_id"),
            key_prefix="orders",
            boto3_client=self.table.client(),
        )
        other.claim([(other.key(order(number)), "") for number in numbers], 60_000)
        return other


SOURCES = [
    pytest.param(EventType.SQS, sqs, ["2"], id="SQS"),
    pytest.param(EventType.KinesisDataStreams, kinesis, ["2"], id="Kinesis"),
    pytest.param(EventType.Kafka, kafka, [{"partition": "orders-0", "offset": 2}], id="MSK"),
    pytest.param(
        EventType.Kafka,
        lambda bodies: kafka(bodies, "SelfManagedKafka"),
        [{"partition": "orders-0", "offset": 2}],
        id="Kafka of one's own",
    ),
]


@pytest.mark.parametrize(("event_type", "make", "second"), SOURCES)
class TestEverySource:
    def test_hands_over_what_is_new_as_one_list_and_once(
        self, event_type: EventType, make: Any, second: Any
    ) -> None:
        world = World(event_type)
        assert world.deliver(make([order(1), order(2), order(1)])) == []
        assert world.deliver(make([order(2), order(3)])) == []
        assert [sorted(each["order_id"] for each in batch) for batch in world.batches] == [[1, 2], [3]]
        assert set(world.table.statuses()) == {"COMPLETED"}

    def test_reports_what_another_invocation_has(self, event_type: EventType, make: Any, second: Any) -> None:
        world = World(event_type)
        world.claim_elsewhere(2)
        assert world.deliver(make([order(1), order(2), order(3)])) == second

    def test_reports_what_cannot_be_decoded_if_nobody_keeps_it(
        self, event_type: EventType, make: Any, second: Any
    ) -> None:
        world = World(event_type)
        assert world.deliver(make([order(1), b"not JSON", order(3)])) == second

    def test_gives_what_cannot_be_decoded_to_on_rejected(
        self, event_type: EventType, make: Any, second: Any
    ) -> None:
        kept: list[RejectedRecord] = []
        world = World(event_type, on_rejected=kept.extend)
        assert world.deliver(make([order(1), b"not JSON", order(None), b"not JSON"])) == []
        assert sorted((each.raw, each.reason[:21]) for each in kept) == [
            (b"not JSON", "it cannot be decoded: "[:21]),
            (b'{"order_id": null}', "it has no key: 'order"),
        ]

    def test_has_all_come_again_when_the_handler_raises(
        self, event_type: EventType, make: Any, second: Any
    ) -> None:
        world = World(event_type)
        world.error = TransientError("the shop is closed")
        assert len(world.deliver(make([order(1), order(2)]))) == 2
        world.error = AttributeError("a defect")
        with pytest.raises(AttributeError):
            world.deliver(make([order(1), order(2)]))
        assert world.table.items == {}
        world.error = None
        assert world.deliver(make([order(1), order(2)])) == []


def test_a_change_of_a_table_has_plain_values() -> None:
    world = World(EventType.DynamoDBStreams, config={"event_key_jmespath": "eventID"})
    world.handle = world.batches.append  # type: ignore[method-assign,assignment]
    assert world.deliver(changes([order("a"), order("b"), order("a")])) == []
    ((first, second),) = world.batches
    assert (first["eventID"], second["eventID"], first["OldImage"]) == ("a", "b", None)
    assert first["NewImage"] == {"order_id": 1, "tags": ["x"]}
    world.claim_elsewhere("c")
    assert world.deliver(changes([order("c"), order("d")])) == ["1"]


def test_a_tombstone_is_rejected() -> None:
    kept: list[RejectedRecord] = []
    assert World(EventType.Kafka, on_rejected=kept.extend).deliver(kafka([None])) == []
    assert "tombstone" in kept[0].reason


class TestFifo:
    def test_hands_nothing_over_behind_what_waits_in_its_group(self) -> None:
        world = World()
        other = world.claim_elsewhere(2)
        event = fifo([order(number) for number in (1, 2, 3, 4, 5)], "aabab")
        assert world.deliver(event) == ["2", "4"]
        assert [each["order_id"] for each in world.batches[0]] == [1, 3, 5]
        other.release([other.key(order(2))])
        assert world.deliver(fifo([order(2), order(4)], "aa")) == []
        assert [each["order_id"] for each in world.batches[1]] == [2, 4]

    def test_hands_nothing_over_behind_what_cannot_be_decoded_and_is_not_kept(self) -> None:
        world = World()
        assert world.deliver(fifo([order(1), b"{", order(3), order(4)], "aaab")) == ["2", "3"]
        assert [each["order_id"] for each in world.batches[0]] == [1, 4]
        assert len(world.table.items) == 2

    def test_goes_on_behind_what_is_rejected_and_kept(self) -> None:
        world = World(on_rejected=lambda rejected: None)
        assert world.deliver(fifo([order(1), b"{", order(3)], "aaa")) == []
        assert [each["order_id"] for each in world.batches[0]] == [1, 3]

    def test_reports_what_is_behind_a_rejected_record_that_nobody_keeps(self) -> None:
        world = World()
        world.reject = {1: "no such customer"}
        assert world.deliver(fifo([order(1), order(2), order(3)], "aab")) == ["1", "2"]
        world.reject = {}
        assert world.deliver(fifo([order(1), order(2)], "aa")) == []
        assert [[each["order_id"] for each in batch] for batch in world.batches] == [[1, 2, 3], [1]]

    def test_holds_back_across_pieces(self) -> None:
        world = World(slice_records=1)
        world.claim_elsewhere(1)
        assert world.deliver(fifo([order(1), order(2), order(3)], "aab")) == ["1", "2"]
        assert world.batches == [[order(3)]]

    def test_a_group_of_a_standard_queue_is_no_order(self) -> None:
        world = World()
        world.claim_elsewhere(1)
        assert world.deliver(sqs([order(1), order(2)], groups="aa")) == ["1"]


class TestRejections:
    def test_of_the_handler_are_kept_and_leave_the_key_free(self) -> None:
        kept: list[RejectedRecord] = []
        world = World(on_rejected=kept.extend)
        world.reject = {2: "no such customer"}
        assert world.deliver(sqs([order(1), order(2)])) == []
        assert [(each.reason, json.loads(each.raw)) for each in kept] == [("no such customer", order(2))]
        assert kept[0].record["messageId"] == "2"
        assert world.outcomes == ["processed", "rejected"]
        world.reject = {}
        assert world.deliver(sqs([order(2)])) == []
        assert world.outcomes == ["processed"]

    def test_are_reported_when_nobody_keeps_them(self) -> None:
        world = World()
        world.reject = {2: "no such customer"}
        assert world.deliver(sqs([order(1), order(2), order(2)])) == ["2", "3"]
        assert str(world.processor.results[1].error) == "no such customer"

    def test_are_reported_when_on_rejected_raises_and_the_rest_is_done(self) -> None:
        def fails(rejected: list[RejectedRecord]) -> None:
            raise ConnectionError("no queue")

        world = World(on_rejected=fails)
        world.reject = {2: "no such customer"}
        assert world.deliver(sqs([order(1), order(2), b"{"])) == ["2", "3"]
        assert "no queue" in str(world.processor.results[1].error)
        assert world.table.statuses() == ["COMPLETED"]

    def test_have_to_be_of_the_batch(self) -> None:
        world = World()
        world.handle = lambda orders: [Rejected({"another": 1}, "?")]  # type: ignore[method-assign]
        with pytest.raises(ValueError, match="was not given"):
            world.deliver(sqs([order(1)]))
        world.handle = lambda orders: orders  # type: ignore[method-assign]
        with pytest.raises(TypeError, match=r"return Rejected\(record, reason\)"):
            world.deliver(sqs([order(1)]))
        assert world.table.items == {}

    @mock_aws
    @pytest.mark.parametrize("fifo_queue", [False, True])
    def test_go_to_a_queue(self, fifo_queue: bool) -> None:
        client = boto3.client("sqs", region_name="us-east-1")
        attributes = {"FifoQueue": "true"} if fifo_queue else {}
        name = "rejected.fifo" if fifo_queue else "rejected"
        url = client.create_queue(QueueName=name, Attributes=attributes)["QueueUrl"]  # type: ignore[arg-type]
        world = World(on_rejected=to_queue(url, client))
        bodies = [b"x" * 100_000 + str(number).encode() for number in range(12)]
        assert world.deliver(sqs(bodies)) == []
        raws = []
        while messages := client.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
            raws += [json.loads(each["Body"]) for each in messages]
            for each in messages:
                client.delete_message(QueueUrl=url, ReceiptHandle=each["ReceiptHandle"])
        assert sorted(base64.b64decode(each["raw"]) for each in raws) == sorted(bodies)
        assert {each["source"] for each in raws} == {QUEUE}
        client.delete_queue(QueueUrl=url)
        assert len(world.deliver(sqs([b"x"]))) == 1

    @mock_aws
    def test_go_to_a_table(self) -> None:
        resource = boto3.resource("dynamodb", region_name="us-east-1")
        table = resource.create_table(
            TableName="rejected",
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": "id", "AttributeType": "S"}],
            KeySchema=[{"AttributeName": "id", "KeyType": "HASH"}],
        )
        world = World(on_rejected=to_table("rejected", resource))
        bodies = [f"x{number}".encode() for number in range(30)]
        assert world.deliver(sqs([*bodies, *bodies])) == []
        items = table.scan()["Items"]
        assert sorted(each["raw"].value for each in items) == sorted(bodies)  # type: ignore[union-attr]
        table.delete()
        assert len(world.deliver(sqs([b"x"]))) == 1


class TestConflicts:
    CONFIG: ClassVar = {"payload_validation_jmespath": "amount"}

    def test_are_never_processed_and_rejected_without_on_conflict(self) -> None:
        kept: list[RejectedRecord] = []
        world = World(config=self.CONFIG, on_rejected=kept.extend)
        assert world.deliver(sqs([order(1, amount=1), order(1, amount=2), order(1, amount=1)])) == []
        assert world.outcomes == ["processed", "conflicting", "duplicate"]
        assert world.deliver(sqs([order(1, amount=3), order(1, amount=1)])) == []
        assert world.batches == [[order(1, amount=1)]]
        assert [(json.loads(each.raw)["amount"], each.conflict) for each in kept] == [(2, True), (3, True)]

    def test_are_reported_where_nobody_keeps_them(self) -> None:
        world = World(config=self.CONFIG)
        world.deliver(sqs([order(1, amount=1)]))
        assert world.deliver(sqs([order(1, amount=2)])) == ["1"]

    def test_are_what_on_conflict_says(self) -> None:
        kept: list[RejectedRecord] = []
        asked: list[Any] = []

        def compare(orders: list[Any]) -> list[Rejected]:
            asked.extend(orders)
            return [Rejected(each, "too much") for each in orders if each["amount"] > 2]

        world = World(config=self.CONFIG, on_rejected=kept.extend, on_conflict=compare)
        world.deliver(sqs([order(1, amount=1)]))
        assert world.deliver(sqs([order(1, amount=2), order(1, amount=3)])) == []
        assert [each["amount"] for each in asked] == [2, 3]
        assert world.outcomes == ["duplicate", "conflicting"]
        assert [each.reason for each in kept] == ["too much"]

    def test_come_again_when_on_conflict_raises_and_what_is_new_is_done(self) -> None:
        def fails(orders: list[Any]) -> None:
            raise ConnectionError("no database")

        world = World(config=self.CONFIG, on_conflict=fails)
        world.deliver(sqs([order(1, amount=1)]))
        assert world.deliver(sqs([order(1, amount=2), order(2, amount=2)])) == ["1"]
        assert world.table.statuses() == ["COMPLETED"] * 2

    def test_are_none_where_nothing_is_compared(self) -> None:
        world = World()
        assert world.deliver(sqs([order(1, amount=1), order(1, amount=2)])) == []
        assert world.outcomes == ["processed", "duplicate"]


class Order(BaseModel):
    order_id: int
    amount: int


def test_a_model_is_what_the_handler_gets_and_what_does_not_fit_is_rejected() -> None:
    kept: list[RejectedRecord] = []
    world = World(model=Order, on_rejected=kept.extend)
    world.handle = world.batches.append  # type: ignore[method-assign,assignment]
    assert world.deliver(sqs([order(1, amount=5), order(2, amount="much"), order("1", amount=5)])) == []
    assert world.batches == [[Order(order_id=1, amount=5)]]
    assert [json.loads(each.raw)["order_id"] for each in kept] == [2]


def test_bodies_may_be_decoded_otherwise() -> None:
    world = World(decode=bytes.decode, config={"event_key_jmespath": ""})
    world.handle = world.batches.append  # type: ignore[method-assign,assignment]
    assert world.deliver(sqs([b"a", b"b", b"a"])) == []
    assert world.batches == [["a", "b"]]


def test_a_handler_may_ask_for_the_context() -> None:
    world = World()
    seen: list[Any] = []

    def handler(orders: list[Any], lambda_context: Any) -> None:
        seen.append(lambda_context)

    process_partial_response(sqs([order(1)]), handler, world.processor, CONTEXT)
    assert seen == [CONTEXT]


def test_what_there_is_no_time_for_is_reported() -> None:
    world = World()
    context: Any = SimpleNamespace(get_remaining_time_in_millis=lambda: 4_000)
    answer = process_partial_response(sqs([order(1)]), world.handle, world.processor, context)
    assert len(answer["batchItemFailures"]) == 1
    assert world.table.requests == []


def test_the_public_face_is_small_and_all_there() -> None:
    assert len(oncestream.__all__) <= 9
    for name in oncestream.__all__:
        assert getattr(oncestream, name).__name__ == name
    with pytest.raises(AttributeError, match="Nothing"):
        _ = oncestream.Nothing  # type: ignore[attr-defined]
