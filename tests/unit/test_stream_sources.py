"""Reading both kinds of stream through botocore (stubbed), and the records that Lambda makes of them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar

import boto3
import pytest
from botocore.exceptions import EndpointConnectionError
from botocore.parsers import ResponseParserError
from botocore.stub import Stubber

from lambda_esm.clients import (
    GoneError,
    IteratorExpiredError,
    RecordsTrimmedError,
    UnavailableError,
    calling,
)
from lambda_esm.shards import Shard
from lambda_esm.sources import DynamoDBSource, KinesisSource
from tests.unit.stream_records import STREAM_ARN, TABLE_STREAM_ARN

ROLE = "arn:aws:iam::000000000000:role/reader"
SHARD = "shardId-00000000000000000000-00000000"
NUMBER = "111000000000000000001"
STREAM = {"StreamARN": STREAM_ARN, "StreamName": STREAM_ARN.rpartition("/")[2]}
"""Both: kinesalite knows the name alone, and moto's GetRecords the ARN alone."""
MOMENT = datetime(2026, 11, 21, 8, 30, 0, 250_000, tzinfo=UTC)


@pytest.fixture
def kinesis() -> Any:
    return boto3.client("kinesis")


@pytest.fixture
def streams() -> Any:
    return boto3.client("dynamodbstreams")


class TestKinesis:
    def test_shards_are_listed_page_by_page_with_their_parents(self, kinesis: Any) -> None:
        hashes = {"StartingHashKey": "0", "EndingHashKey": "1"}
        first = {
            "ShardId": "s0",
            "HashKeyRange": hashes,
            "SequenceNumberRange": {"StartingSequenceNumber": "1", "EndingSequenceNumber": "2"},
        }
        second = {
            "ShardId": "s2",
            "ParentShardId": "s0",
            "AdjacentParentShardId": "s1",
            "HashKeyRange": hashes,
            "SequenceNumberRange": {"StartingSequenceNumber": "3"},
        }
        with Stubber(kinesis) as stub:
            stub.add_response("list_shards", {"Shards": [first], "NextToken": "more"}, STREAM)
            stub.add_response("list_shards", {"Shards": [second]}, {"NextToken": "more"})

            assert KinesisSource(kinesis, STREAM_ARN, ROLE).shards() == [
                Shard("s0", closed=True),
                Shard("s2", ("s0", "s1")),
            ]

    def test_a_consumer_is_read_through_its_stream_and_named_in_its_records(self, kinesis: Any) -> None:
        consumer = f"{STREAM_ARN}/consumer/app:1700000000"
        record = {
            "SequenceNumber": "1",
            "Data": b"",
            "PartitionKey": "k",
            "ApproximateArrivalTimestamp": MOMENT,
        }
        source = KinesisSource(kinesis, consumer, ROLE)
        with Stubber(kinesis) as stub:
            stub.add_response("list_shards", {"Shards": []}, STREAM)
            stub.add_response("get_records", {"Records": [record]})

            assert source.shards() == []
            assert source.read("s0", "i", 1).records[0].event["eventSourceARN"] == consumer

    @pytest.mark.parametrize(
        ("position", "expected"),
        [
            ("TRIM_HORIZON", {"ShardIteratorType": "TRIM_HORIZON"}),
            ("LATEST", {"ShardIteratorType": "LATEST"}),
            (
                f"AT_TIMESTAMP:{MOMENT.timestamp()}",
                {"ShardIteratorType": "AT_TIMESTAMP", "Timestamp": MOMENT},
            ),
            ("4959", {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": "4959"}),
        ],
    )
    def test_every_position_has_its_iterator(
        self, kinesis: Any, position: str, expected: dict[str, Any]
    ) -> None:
        with Stubber(kinesis) as stub:
            request = STREAM | {"ShardId": "s0"} | expected
            stub.add_response("get_shard_iterator", {"ShardIterator": "i"}, request)

            assert KinesisSource(kinesis, STREAM_ARN, ROLE).open("s0", position) == "i"

    def test_latest_is_pinned_to_the_time_and_nothing_else_is(self, kinesis: Any) -> None:
        source = KinesisSource(kinesis, STREAM_ARN, ROLE)

        assert source.pin("LATEST", 1_700_000_000.1234) == "AT_TIMESTAMP:1700000000.123"
        assert [source.pin(each, 1.0) for each in ("TRIM_HORIZON", "4959")] == ["TRIM_HORIZON", "4959"]

    @pytest.mark.parametrize(("behind", "at_tip"), [(0, True), (1, False)])
    def test_a_page_says_whether_the_tip_is_reached(self, kinesis: Any, behind: int, at_tip: bool) -> None:
        answer = {"Records": [], "NextShardIterator": "next", "MillisBehindLatest": behind}
        with Stubber(kinesis) as stub:
            request = {"ShardIterator": "i", "Limit": 10_000, "StreamARN": STREAM_ARN}
            stub.add_response("get_records", answer, request)
            page = KinesisSource(kinesis, STREAM_ARN, ROLE).read("s0", "i", 20_000)

        assert (page.iterator, page.at_tip) == ("next", at_tip)

    def test_the_last_page_of_a_closed_shard_has_no_iterator(self, kinesis: Any) -> None:
        with Stubber(kinesis) as stub:
            stub.add_response("get_records", {"Records": []})

            assert KinesisSource(kinesis, STREAM_ARN, ROLE).read("s0", "i", 1).iterator is None

    def test_bytes_that_are_no_text_survive(self, kinesis: Any) -> None:
        data = bytes(range(256))
        record = {
            "SequenceNumber": "1",
            "Data": data,
            "PartitionKey": "ключ",
            "ApproximateArrivalTimestamp": MOMENT,
        }
        with Stubber(kinesis) as stub:
            stub.add_response("get_records", {"Records": [record]})
            [read] = KinesisSource(kinesis, STREAM_ARN, ROLE).read("s0", "i", 1).records

        assert read.key == "ключ"
        assert read.event["kinesis"]["approximateArrivalTimestamp"] == MOMENT.timestamp()
        assert read.body.decode().count("ключ") == 1, "the payload is UTF-8, as Lambda's is"


class TestDynamoDB:
    CHANGE: ClassVar[dict[str, Any]] = {
        "eventID": "e1",
        "eventName": "INSERT",
        "eventVersion": "1.1",
        "eventSource": "aws:dynamodb",
        "awsRegion": "us-east-1",
        "dynamodb": {
            "ApproximateCreationDateTime": MOMENT,
            "Keys": {"sk": {"S": "b"}, "pk": {"S": "a"}},
            "NewImage": {
                "pk": {"S": "a"},
                "raw": {"B": b"\x00\xff"},
                "raws": {"BS": [b"\x01"]},
                "deep": {"M": {"list": {"L": [{"B": b"\x02"}, {"N": "1"}]}}},
            },
            "SequenceNumber": NUMBER,
            "SizeBytes": 26,
            "StreamViewType": "NEW_AND_OLD_IMAGES",
        },
    }

    def read(self, streams: Any, *changes: dict[str, Any]) -> Any:
        with Stubber(streams) as stub:
            answer = {"Records": list(changes), "NextShardIterator": "next"}
            stub.add_response("get_records", answer, {"ShardIterator": "i", "Limit": 1_000})
            return DynamoDBSource(streams, TABLE_STREAM_ARN).read("s0", "i", 10_000)

    def test_a_change_becomes_the_event_that_lambda_sends(self, streams: Any) -> None:
        [read] = self.read(streams, self.CHANGE).records

        assert read.event == {
            "eventID": "e1",
            "eventName": "INSERT",
            "eventVersion": "1.1",
            "eventSource": "aws:dynamodb",
            "awsRegion": "us-east-1",
            "dynamodb": {
                "ApproximateCreationDateTime": int(MOMENT.timestamp()),
                "Keys": {"sk": {"S": "b"}, "pk": {"S": "a"}},
                "NewImage": {
                    "pk": {"S": "a"},
                    "raw": {"B": "AP8="},
                    "raws": {"BS": ["AQ=="]},
                    "deep": {"M": {"list": {"L": [{"B": "Ag=="}, {"N": "1"}]}}},
                },
                "SequenceNumber": NUMBER,
                "SizeBytes": 26,
                "StreamViewType": "NEW_AND_OLD_IMAGES",
            },
            "eventSourceARN": TABLE_STREAM_ARN,
        }
        assert (read.sequence_number, read.arrived_at) == (NUMBER, int(MOMENT.timestamp()))

    def test_the_item_keeps_its_order_whatever_the_order_of_its_key_attributes(self, streams: Any) -> None:
        turned = self.CHANGE["dynamodb"] | {"Keys": {"pk": {"S": "a"}, "sk": {"S": "b"}}}
        other = self.CHANGE["dynamodb"] | {"Keys": {"pk": {"S": "a"}, "sk": {"S": "c"}}}
        one, same, different = self.read(
            streams, self.CHANGE, self.CHANGE | {"dynamodb": turned}, self.CHANGE | {"dynamodb": other}
        ).records

        assert one.key == same.key != different.key

    def test_a_deletion_by_ttl_names_its_author_as_lambda_does(self, streams: Any) -> None:
        identity = {"Type": "Service", "PrincipalId": "dynamodb.amazonaws.com"}
        [read] = self.read(streams, self.CHANGE | {"userIdentity": identity}).records

        assert read.event["userIdentity"] == {"type": "Service", "principalId": "dynamodb.amazonaws.com"}

    def test_an_empty_page_is_the_tip(self, streams: Any) -> None:
        assert self.read(streams).at_tip
        assert not self.read(streams, self.CHANGE).at_tip

    def test_shards_are_described_page_by_page(self, streams: Any) -> None:
        request = {"StreamArn": TABLE_STREAM_ARN}
        ended = {"StartingSequenceNumber": NUMBER, "EndingSequenceNumber": NUMBER}
        first = {"ShardId": SHARD, "SequenceNumberRange": ended}
        second = {"ShardId": f"{SHARD}-1", "ParentShardId": SHARD, "SequenceNumberRange": {}}
        with Stubber(streams) as stub:
            page = {"StreamDescription": {"Shards": [first], "LastEvaluatedShardId": SHARD}}
            stub.add_response("describe_stream", page, request)
            page = {"StreamDescription": {"Shards": [second]}}
            stub.add_response("describe_stream", page, request | {"ExclusiveStartShardId": SHARD})

            assert DynamoDBSource(streams, TABLE_STREAM_ARN).shards() == [
                Shard(SHARD, closed=True),
                Shard(f"{SHARD}-1", (SHARD,)),
            ]

    @pytest.mark.parametrize(
        ("position", "expected"),
        [
            ("TRIM_HORIZON", {"ShardIteratorType": "TRIM_HORIZON"}),
            ("LATEST", {"ShardIteratorType": "LATEST"}),
            (NUMBER, {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "SequenceNumber": NUMBER}),
            ("AT_TIMESTAMP:1700000000.5", {"ShardIteratorType": "TRIM_HORIZON"}),
        ],
    )
    def test_every_position_has_its_iterator(
        self, streams: Any, position: str, expected: dict[str, Any]
    ) -> None:
        with Stubber(streams) as stub:
            request = {"StreamArn": TABLE_STREAM_ARN, "ShardId": SHARD} | expected
            stub.add_response("get_shard_iterator", {"ShardIterator": "i"}, request)

            assert DynamoDBSource(streams, TABLE_STREAM_ARN).open(SHARD, position) == "i"

    def test_latest_is_pinned_to_the_time_and_what_is_older_is_left_out(self, streams: Any) -> None:
        """DynamoDB has no iterator for a time. Its records name whole seconds, so those of the same second come too."""
        source = DynamoDBSource(streams, TABLE_STREAM_ARN)
        position = source.pin("LATEST", MOMENT.timestamp())

        def changed(number: str, seconds: int) -> dict[str, Any]:
            moment = MOMENT.replace(microsecond=0) + timedelta(seconds=seconds)
            return {"dynamodb": {"Keys": {}, "SequenceNumber": number, "ApproximateCreationDateTime": moment}}

        page = [changed(NUMBER[:-1] + str(index), seconds) for index, seconds in enumerate((-60, -1, 0, 9))]
        with Stubber(streams) as stub:
            stub.add_response("get_shard_iterator", {"ShardIterator": "i"})
            stub.add_response("get_records", {"Records": page, "NextShardIterator": "j"})
            stub.add_response("get_records", {"Records": page[:1], "NextShardIterator": "k"})
            iterator = source.open(SHARD, position)
            read = source.read(SHARD, iterator, 10)
            old = source.read(SHARD, iterator, 10)

        assert [record.sequence_number for record in read.records] == [NUMBER[:-1] + "2", NUMBER[:-1] + "3"]
        assert (old.records, old.at_tip, old.last) == ([], False, NUMBER[:-1] + "0")


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        ("ResourceNotFoundException", GoneError),
        ("ExpiredIteratorException", IteratorExpiredError),
        ("TrimmedDataAccessException", RecordsTrimmedError),
        ("ProvisionedThroughputExceededException", UnavailableError),
        ("LimitExceededException", UnavailableError),
        ("AccessDeniedException", UnavailableError),
        ("InternalServerError", UnavailableError),
    ],
)
def test_an_error_of_the_service_says_what_was_being_done(
    kinesis: Any, code: str, meaning: type[Exception]
) -> None:
    with Stubber(kinesis) as stub:
        stub.add_client_error("get_records", code, "because")

        with pytest.raises(meaning, match=f"Kinesis GetRecords of s0: {code}: because"):
            KinesisSource(kinesis, STREAM_ARN, ROLE).read("s0", "i", 1)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:1"), UnavailableError),
        (ResponseParserError("broken answer"), UnavailableError),
        (KeyError("a defect"), KeyError),
    ],
)
def test_an_error_of_the_transport_is_transient_and_a_defect_stays_one(
    error: Exception, expected: type[Exception]
) -> None:
    with pytest.raises(expected), calling("do something"):
        raise error
