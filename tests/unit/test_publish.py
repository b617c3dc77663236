"""The publisher against PutRecords with all its limits and failures, on a virtual clock."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import boto3
import pytest
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from moto import mock_aws

from bench.kinesis_limits import (
    HASHES,
    LIMITERS,
    THROTTLED,
    LimitedKinesis,
    VirtualClock,
    client_error,
    entry_size,
)
from common.errors import TransientError
from producer.packing import MAX_REQUEST_BYTES, MAX_REQUEST_RECORDS
from producer.publish import Entry, Published, Publisher
from records.record import MAX_RECORD_BYTES, Record


def entries(count: int, size: int = 300, key: Callable[[int], str] = "key-{}".format) -> Iterator[Entry]:
    for n in range(count):
        yield Entry(f"id-{n}", key(n), f"{n}:".encode().ljust(size, b"x"))


def publisher(kinesis: Any, **options: Any) -> Publisher:
    clock = kinesis.clock
    options.setdefault("random", random.Random(1).random)
    return Publisher(kinesis, "the-stream", clock=clock, sleep=clock.sleep, **options)


def kinesis(**options: Any) -> LimitedKinesis:
    return LimitedKinesis(VirtualClock(), **options)


def stored_numbers(fake: LimitedKinesis) -> list[int]:
    return [int(entry["Data"].partition(b":")[0]) for entry in fake.stored]


class Unreliable:
    """Kinesis whose requests, one after the other, meet what a script says; the rest go well.

    In the script: None (goes well), an exception instead of the request, ("after", exception) once everything
    is stored, or a number of answers to leave out.
    """

    def __init__(self, fake: LimitedKinesis, script: Iterable[Any]) -> None:
        self.fake = fake
        self.clock = fake.clock
        self.calls = 0
        self._script = iter(script)

    def put_records(self, **request: Any) -> dict[str, Any]:
        self.calls += 1
        fate = next(self._script, None)
        if isinstance(fate, Exception):
            raise fate
        answer = self.fake.put_records(**request)
        if isinstance(fate, tuple):
            raise fate[1]
        if isinstance(fate, int):
            del answer["Records"][-fate:]
        return answer


class TestRequests:
    def test_have_500_records_at_most_and_are_full(self) -> None:
        fake = kinesis(limiter=None)
        result = publisher(fake).publish(entries(1_201))
        assert [len(request) for request in fake.requests] == [500, 500, 201]
        assert stored_numbers(fake) == list(range(1_201))
        assert result == Published(published=1_201, taken=1_201, exhausted=True, requests=3)
        assert result.complete

    def test_have_5_mib_at_most_and_are_full(self) -> None:
        size = 400_000
        fake = kinesis(limiter=None, shards=8)
        publisher(fake).publish(entries(60, size))
        # The later ones are smaller: a shard takes but two such records a second.
        assert len(fake.requests[0]) == MAX_REQUEST_BYTES // (size + len("key-nn")) == 13
        assert all(sum(map(entry_size, request)) <= MAX_REQUEST_BYTES for request in fake.requests)

    def test_count_the_partition_keys(self) -> None:
        # 5 entries of 1 MiB each fill a request to the byte, keys included.
        fake = kinesis(limiter=None, shards=8)
        publisher(fake).publish(
            Entry(f"{n}", "é" * 100 + f"{n:08}", bytes(MAX_RECORD_BYTES - 208)) for n in range(6)
        )
        assert [sum(map(entry_size, request)) for request in fake.requests] == [
            5 * MAX_RECORD_BYTES,
            MAX_RECORD_BYTES,
        ]

    def test_carry_each_record_with_its_own_key(self) -> None:
        fake = kinesis(limiter=None)
        publisher(fake).publish(entries(700))
        assert all(
            entry["PartitionKey"] == f"key-{n}"
            for n, entry in zip(stored_numbers(fake), fake.stored, strict=True)
        )

    def test_are_none_when_there_is_nothing(self) -> None:
        fake = kinesis()
        assert publisher(fake).publish([]) == Published(exhausted=True)
        assert not fake.requests

    def test_take_records_as_the_stream_carries_them(self) -> None:
        fake = kinesis()
        record = Record(id="a", partition_key="k", payload_json='{"n": 1}')
        publisher(fake).publish([record])
        assert fake.stored == [{"Data": record.to_bytes(), "PartitionKey": "k"}]


class TestOversized:
    def test_record_is_rejected_before_it_is_sent_and_the_others_go_on(self) -> None:
        fake = kinesis()
        source = [
            Entry("fits", "k" * 10, bytes(MAX_RECORD_BYTES - 10)),
            Entry("too large", "k" * 10, bytes(MAX_RECORD_BYTES - 9)),
            Entry("too large by its key", "é" * 5, bytes(MAX_RECORD_BYTES - 9)),
            Entry("small", "k", b"x"),
        ]
        result = publisher(fake).publish(source)
        assert [rejected.id for rejected in result.rejected] == ["too large", "too large by its key"]
        assert (
            result.rejected[0].reason == "1048577 bytes with its partition key; a record has 1048576 at most"
        )
        assert (result.published, result.taken, result.complete) == (2, 4, True)

    @pytest.mark.parametrize("key", ["", "k" * 257])
    def test_or_empty_partition_key_is_rejected(self, key: str) -> None:
        result = publisher(kinesis()).publish([Entry("a", key, b"x"), Entry("b", "k" * 256, b"x")])
        assert [(rejected.id, rejected.reason) for rejected in result.rejected] == [
            ("a", f"a partition key of {len(key)} characters; it has 1 to 256")
        ]
        assert result.published == 1


class TestFailedEntries:
    @pytest.mark.parametrize("code", ["InternalFailure", "SomethingNew"])
    def test_alone_are_sent_again_together_with_fresh_ones(self, code: str) -> None:
        fake = kinesis(
            limiter=None, fault=lambda request, index, _: code if request == 0 and index < 10 else None
        )
        result = publisher(fake, random=lambda: 0.0).publish(entries(1_000))
        assert [len(request) for request in fake.requests] == [500, 500, 10]
        assert [request["Data"] for request in fake.requests[1][:10]] == [
            request["Data"] for request in fake.requests[0][:10]
        ]
        assert sorted(stored_numbers(fake)) == list(range(1_000))
        assert (result.published, result.resent, result.failed) == (1_000, 10, [])

    def test_are_reported_with_the_reason_after_so_many_attempts(self) -> None:
        fake = kinesis(
            fault=lambda _, __, entry: "InternalFailure" if entry["Data"].startswith(b"3:") else None
        )
        result = publisher(fake, attempts=4).publish(entries(10))
        assert result.failed == [("id-3", "InternalFailure: Internal Service Failure (sent 4 times)")]
        assert Counter(entry["Data"][:2] for request in fake.requests for entry in request)[b"3:"] == 4
        assert (result.published, result.exhausted, result.complete) == (9, True, False)

    def test_of_a_shard_that_never_takes_anything_are_reported(self) -> None:
        fake = kinesis(fault=lambda _, __, ___: THROTTLED)
        result = publisher(fake, attempts=3).publish(entries(5))
        assert [failed.id for failed in result.failed] == [f"id-{n}" for n in range(5)]
        shard = "shard shardId-000000000000 in stream the-stream under account 123456789012."
        assert {failed.reason for failed in result.failed} == {
            f"{THROTTLED}: Rate exceeded for {shard} (sent 3 times)"
        }

    def test_outlast_any_throttling_while_their_shard_takes_something(self) -> None:
        # One entry a request is taken: the last of 40 has been refused 39 times, and attempts are 3.
        fake = kinesis(limiter=None, fault=lambda _, index, __: THROTTLED if index else None)
        result = publisher(fake, attempts=3).publish(entries(40))
        assert (result.published, result.failed) == (40, [])

    def test_without_code_and_sequence_number_count_as_failed(self) -> None:
        fake = kinesis()
        plain = fake.put_records

        def forgetful(**request: Any) -> dict[str, Any]:
            answer = plain(**request)
            return {"Records": [{} for _ in answer["Records"]]} if len(fake.requests) == 1 else answer

        fake.put_records = forgetful  # type: ignore[method-assign]
        result = publisher(fake).publish(entries(3))
        assert (result.published, result.resent) == (3, 3)

    def test_wait_with_full_jitter(self) -> None:
        fake = kinesis(
            latency=(0, 0), fault=lambda request, _, __: "InternalFailure" if request < 8 else None
        )
        publisher(fake, random=lambda: 1.0).publish(entries(1))
        assert fake.clock.slept == pytest.approx(0.1 + 0.2 + 0.4 + 0.8 + 1.6 + 3.2 + 5 + 5)


PASSING = [
    client_error(THROTTLED),
    client_error("InternalFailureException", status=500),
    client_error("KMSThrottlingException"),
    client_error("Unheard", status=503),
    client_error("TooManyRequests", status=429),
    ConnectTimeoutError(endpoint_url="https://kinesis"),
    ReadTimeoutError(endpoint_url="https://kinesis"),
    EndpointConnectionError(endpoint_url="https://kinesis"),
    ConnectionClosedError(endpoint_url="https://kinesis"),
]
LASTING = [
    client_error("ResourceNotFoundException"),
    client_error("AccessDeniedException"),
    client_error("KMSDisabledException"),
    client_error("ValidationException"),
    client_error("ExpiredTokenException"),
    NoCredentialsError(),
]


class TestFailedRequests:
    @pytest.mark.parametrize("error", PASSING, ids=repr)
    def test_that_may_pass_are_sent_again_whole(self, error: Exception) -> None:
        fake = Unreliable(kinesis(limiter=None), [error, error])
        result = publisher(fake).publish(entries(600))
        assert [len(request) for request in fake.fake.requests] == [500, 100]
        assert stored_numbers(fake.fake) == list(range(600))
        assert (result.published, result.resent, result.requests) == (600, 1_000, 4)

    @pytest.mark.parametrize("error", LASTING, ids=repr)
    def test_that_cannot_pass_raise_and_name_the_stream(self, error: Exception) -> None:
        fake = Unreliable(kinesis(), [None, error])
        with pytest.raises(TransientError, match="stream the-stream cannot be written") as raised:
            publisher(fake).publish(entries(600))
        assert raised.value.__cause__ is error
        assert fake.calls == 2

    def test_whose_answer_is_lost_may_store_records_twice_and_lose_none(self) -> None:
        fake = Unreliable(
            kinesis(limiter=None), [("after", ReadTimeoutError(endpoint_url="https://kinesis"))]
        )
        result = publisher(fake).publish(entries(3))
        assert stored_numbers(fake.fake) == [0, 1, 2, 0, 1, 2]
        assert result.published == 3

    def test_with_an_answer_of_another_length_are_sent_again(self) -> None:
        fake = Unreliable(kinesis(limiter=None), [2])
        result = publisher(fake).publish(entries(5))
        assert (result.published, result.requests) == (5, 2)

    def test_end_with_all_records_reported(self) -> None:
        fake = Unreliable(kinesis(), [client_error("ServiceUnavailable", "try later", 503)] * 3)
        result = publisher(fake, attempts=3).publish(entries(2))
        assert result.failed == [(f"id-{n}", "ServiceUnavailable: try later (sent 3 times)") for n in (0, 1)]

    def test_wait_with_full_jitter(self) -> None:
        fake = Unreliable(kinesis(latency=(0, 0)), [client_error(THROTTLED)] * 3)
        publisher(fake, random=lambda: 0.5).publish(entries(1))
        assert fake.clock.slept == pytest.approx(0.05 + 0.1 + 0.2)

    def test_wait_less_again_once_a_request_went_well(self) -> None:
        error = client_error(THROTTLED)
        fake = Unreliable(kinesis(latency=(0, 0), limiter=None), [error, error, None, error, None])
        publisher(fake, random=lambda: 1.0).publish(entries(600))
        assert fake.clock.slept == pytest.approx(0.1 + 0.2 + 0.1)


class TestTimeLimit:
    def test_is_kept_and_what_was_taken_is_reported(self) -> None:
        fake = kinesis(shards=1)
        source = entries(10_000)
        result = publisher(fake).publish(source, time_limit=3.5)
        assert fake.clock() - fake.began < 3.5
        assert result.published == len(fake.stored) > 3_000
        assert not result.exhausted
        assert all(
            failed.reason.startswith("the time ran out before it was sent") for failed in result.failed
        )
        left = [entry.id for entry in source]
        accounted = Counter([f"id-{n}" for n in stored_numbers(fake)] + [f.id for f in result.failed] + left)
        assert accounted == Counter(f"id-{n}" for n in range(10_000))
        assert result.taken + len(left) == 10_000

    def test_that_is_over_sends_nothing(self) -> None:
        fake = kinesis()
        result = publisher(fake).publish(entries(3), time_limit=-1.0)
        assert not fake.requests
        assert [failed.id for failed in result.failed] == ["id-0", "id-1", "id-2"]
        assert result.exhausted
        assert not result.complete

    def test_is_not_slept_away(self) -> None:
        fake = Unreliable(kinesis(), [client_error(THROTTLED)] * 99)
        result = publisher(fake, random=lambda: 1.0).publish(entries(1), time_limit=1.0)
        # 0.1 + 0.2 + 0.4 are waited; the next 0.8 would end too late.
        assert fake.clock.slept == pytest.approx(0.7)
        assert result.failed == [
            ("id-0", f"the time ran out before it was sent again, after {THROTTLED}: as told")
        ]

    def test_that_suffices_changes_nothing(self) -> None:
        assert publisher(kinesis()).publish(entries(10), time_limit=60.0).complete


class TestOrder:
    """Not promised, and yet kept as far as it can be."""

    @pytest.mark.parametrize("limiter", LIMITERS)
    def test_of_a_shard_survives_throttling(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, others=lambda *_: 0.6)
        result = publisher(fake).publish(entries(4_000))
        assert result.resent > 50
        assert stored_numbers(fake) == list(range(4_000))

    def test_of_a_shard_survives_being_held_back(self) -> None:
        # The large ones have to wait for room, and the small ones behind them wait as well: also those that
        # are taken from the source only after the 16 MiB that may wait have become fewer.
        fake = kinesis(limiter=None)
        sizes = (10 if n % 3 else 400_000 for n in range(200))
        publisher(fake).publish(Entry(f"{n}", "k", f"{n}:".encode().ljust(s)) for n, s in enumerate(sizes))
        assert stored_numbers(fake) == list(range(200))


class TestMemory:
    @pytest.mark.parametrize(("count", "size"), [(60_000, 50), (3_000, 20_000)])
    @pytest.mark.parametrize("broken", [False, True])
    def test_stays_flat_when_the_stream_is_slower_than_the_source(
        self, count: int, size: int, broken: bool
    ) -> None:
        fake = kinesis(
            limiter=None if broken else "sliding",
            fault=lambda request, _, __: "InternalFailure" if broken and request % 4 else None,
        )
        most = 0

        def source() -> Iterator[Entry]:
            nonlocal most
            for taken, entry in enumerate(entries(count, size)):
                most = max(most, taken - len(fake.stored))
                yield entry

        assert publisher(fake, attempts=99).publish(source()).published == count
        assert most <= min(4_000, 16 * 1024 * 1024 // size) + MAX_REQUEST_RECORDS + 1


@pytest.mark.parametrize("limiter", LIMITERS)
class TestPace:
    @pytest.mark.parametrize("shards", range(1, 9))
    def test_reaches_95_percent_of_the_limit_and_sends_hardly_anything_twice(
        self, limiter: str, shards: int
    ) -> None:
        fake = kinesis(limiter=limiter, shards=shards)
        result = publisher(fake).publish(entries(20_000))
        # No publisher can be faster than the shard with the most records.
        best = max(fake.stored_by_shard.values()) / 1_000
        assert best / (fake.clock() - fake.began) >= 0.95
        assert sorted(stored_numbers(fake)) == list(range(20_000))
        assert result.resent == fake.throttled <= 300
        assert result.requests <= 55

    @pytest.mark.parametrize("shards", range(1, 9))
    def test_reaches_95_percent_of_the_limit_with_4_kb_records(self, limiter: str, shards: int) -> None:
        fake = kinesis(limiter=limiter, shards=shards)
        result = publisher(fake).publish(entries(20_000, 4_096))
        best = max(fake.stored_by_shard.values()) * 4_105 / 1024**2
        assert best / (fake.clock() - fake.began) >= 0.95
        assert result.published == 20_000
        assert result.resent <= 0.015 * result.published

    @pytest.mark.parametrize("shards", [1, 4])
    def test_reaches_95_percent_of_the_limit_in_bytes(self, limiter: str, shards: int) -> None:
        fake = kinesis(limiter=limiter, shards=shards)
        result = publisher(fake).publish(entries(6_000 * shards, 2_048))
        best = max(fake.stored_by_shard.values()) * 2_057 / 1024**2
        assert best / (fake.clock() - fake.began) >= 0.95
        assert result.resent <= 0.02 * result.published

    def test_of_a_hot_shard_does_not_hold_back_the_others(self, limiter: str) -> None:
        # Half of the records go to one shard of eight. Nothing ends before that one, and it is never idle.
        fake = kinesis(limiter=limiter, shards=8)
        result = publisher(fake).publish(entries(12_000, key=lambda n: "hot" if n % 2 else f"key-{n}"))
        best = max(fake.stored_by_shard.values()) / 1_000
        assert best / (fake.clock() - fake.began) >= 0.95
        assert result.resent <= 120

    def test_of_a_blocked_shard_does_not_hold_back_the_others(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, shards=4, fault=lambda _, __, entry: blocked(entry))

        def blocked(entry: dict[str, Any]) -> str | None:
            waits = fake.shard(entry["PartitionKey"]) == 2 and fake.clock() < fake.began + 5
            return THROTTLED if waits else None

        result = publisher(fake).publish(entries(3_000))
        assert result.complete
        late = [entry for entry, at in zip(fake.stored, fake.stored_at, strict=True) if at > 1]
        assert {fake.shard(entry["PartitionKey"]) for entry in late} == {2}
        assert result.resent <= 300

    def test_adapts_to_other_producers(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, shards=2, others=lambda *_: 0.5)
        result = publisher(fake).publish(entries(20_000))
        assert 10_000 * 2 / 1_000 / (fake.clock() - fake.began) >= 0.95
        assert result.resent <= 0.05 * 20_000

    def test_recovers_when_other_producers_are_gone(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, shards=2, others=lambda seconds, _: 0.2 if seconds < 5 else 1.0)
        result = publisher(fake).publish(entries(30_000))
        assert result.complete
        # 5 s at a fifth, then the rest at full pace would be 19 s.
        assert fake.clock() - fake.began <= 19 + 6

    def test_follows_a_reshard(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, shards=1)

        def source() -> Iterator[Entry]:
            for n, entry in enumerate(entries(30_000)):
                if n == 12_000:
                    fake.split(0)
                yield entry

        result = publisher(fake).publish(source())
        assert sorted(stored_numbers(fake)) == list(range(30_000))
        # What was sent before the split took 1 s a 1,000 records, what comes after half of that.
        slow = 12_000 / 1_000
        fast = 18_000 / 2_000
        assert fake.clock() - fake.began <= (slow + fast) / 0.9
        assert result.resent <= 600

    def test_is_right_for_shards_of_unequal_size(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, shards=[HASHES // 100, HASHES // 3])
        result = publisher(fake).publish(entries(20_000))
        best = max(fake.stored_by_shard.values()) / 1_000
        assert best / (fake.clock() - fake.began) >= 0.95
        assert result.resent <= 200

    def test_is_remembered_from_call_to_call(self, limiter: str) -> None:
        fake = kinesis(limiter=limiter, shards=2)
        ours = publisher(fake)
        ours.publish(entries(10_000))
        again = [ours.publish(entries(500)) for _ in range(20)]
        assert sum(result.published for result in again) == 10_000
        assert sum(result.resent for result in again) <= 50


def test_an_emulator_without_limits_is_not_held_to_them() -> None:
    fake = kinesis(limiter=None, shards=2, latency=(0.01, 0.01))
    publisher(fake).publish(entries(100_000))
    assert fake.clock() - fake.began < 100_000 / 2_000 / 3


FATES = st.one_of(
    st.none(),
    st.sampled_from(PASSING),
    st.tuples(st.just("after"), st.sampled_from(PASSING)),
    st.just(1),
)
CODES = st.sampled_from([None, None, None, THROTTLED, "InternalFailure"])


@settings(max_examples=150)
@given(
    sizes=st.lists(st.sampled_from([3, 50, 300, 200_000, 1_000_000, 1_048_570, 1_100_000]), max_size=60),
    copies=st.integers(1, 12),
    codes=st.lists(CODES, min_size=1, max_size=50),
    script=st.lists(FATES, max_size=12),
    shards=st.integers(1, 5),
    limiter=st.sampled_from([None, *LIMITERS]),
    attempts=st.integers(1, 5),
    time_limit=st.one_of(st.none(), st.floats(-1, 20)),
)
def test_every_record_ends_in_one_place_whatever_fails(  # noqa: PLR0917 (hypothesis names them)
    sizes: list[int],
    copies: int,
    codes: list[str | None],
    script: list[Any],
    shards: int,
    limiter: str | None,
    attempts: int,
    time_limit: float | None,
) -> None:
    source = [
        Entry(f"id-{n}", f"key-{n}", f"{n}:".encode().ljust(size, b"x"))
        for n, size in enumerate(size for size in sizes for _ in range(copies if size < 1_000 else 1))
    ]
    answered: Counter[str] = Counter()
    count = 0

    def fault(_: int, __: int, ___: dict[str, Any]) -> str | None:
        nonlocal count
        count += 1
        return codes[count % len(codes)]

    fake = Unreliable(kinesis(shards=shards, limiter=limiter, fault=fault), script)
    plain = fake.put_records

    def watched(**request: Any) -> dict[str, Any]:
        # The fake refuses a request over the limits, which would raise TransientError.
        answer = plain(**request)
        if len(answer["Records"]) == len(request["Records"]):
            for entry, told in zip(request["Records"], answer["Records"], strict=True):
                if "SequenceNumber" in told:
                    answered[entry["PartitionKey"].replace("key", "id")] += 1
        return answer

    fake.put_records = watched  # type: ignore[method-assign]
    result = publisher(fake, attempts=attempts).publish(iter(source), time_limit)

    assert all(
        f"key-{int(entry['Data'].partition(b':')[0])}" == entry["PartitionKey"]
        for request in fake.fake.requests
        for entry in request
    )
    assert result.published == answered.total()
    reported = Counter(unpublished.id for unpublished in result.failed + result.rejected)
    untouched = [entry.id for entry in source[result.taken :]]
    assert answered + reported + Counter(untouched) == Counter(entry.id for entry in source)
    assert not (result.exhausted and untouched)
    taken = source[: result.taken]
    too_large = {each.id for each in taken if len(each.data) + len(each.partition_key) > MAX_RECORD_BYTES}
    assert {unpublished.id for unpublished in result.rejected} == too_large
    if time_limit is None:
        assert result.exhausted


def test_publishes_through_boto3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    with mock_aws():
        client = boto3.client("kinesis", region_name="eu-central-1")
        client.create_stream(StreamName="orders", ShardCount=2)
        result = Publisher(client, "orders").publish(entries(700))
        assert (result.published, result.requests) == (700, 2)
        data = []
        for shard in client.list_shards(StreamName="orders")["Shards"]:
            iterator = client.get_shard_iterator(
                StreamName="orders", ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
            )["ShardIterator"]
            data += [record["Data"] for record in client.get_records(ShardIterator=iterator)["Records"]]
        assert sorted(data) == sorted(entry.data for entry in entries(700))

        with pytest.raises(
            TransientError, match="stream nowhere cannot be written: ResourceNotFoundException"
        ):
            Publisher(client, "nowhere").publish(entries(1))
