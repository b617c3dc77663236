"""The producers of the benchmark, on a short job: what each loses, repeats, and reaches of the limit."""

from __future__ import annotations

from bench import producer
from bench.kinesis_limits import LimitedKinesis, VirtualClock
from producer.publish import Entry

ENTRIES = [Entry(str(number), str(number), f"record {number}".encode()) for number in range(3_000)]


def test_a_record_each_is_sent_again_as_often_as_an_sdk_does() -> None:
    account = producer._account(ENTRIES, producer.put_record_each(ENTRIES, 1))

    assert account["requests"] == account["sent"] >= len(ENTRIES)
    assert account["stored_twice"] == 0
    assert account["records_per_second"] <= producer.AT_ONCE / producer.LATENCY[0]


def test_whole_batches_sent_again_are_stored_twice() -> None:
    account = producer._account(ENTRIES, producer.put_records_whole(ENTRIES, 2))

    assert account["lost"] == 0
    assert account["stored_twice"] > 0
    assert account["sent"] == 500 * account["requests"]


def test_ours_loses_nothing_and_stores_nothing_twice() -> None:
    account = producer._account(ENTRIES, producer.ours(ENTRIES, 2))

    assert (account["lost"], account["stored_twice"]) == (0, 0)
    assert account["share_of_limit"] > 0.9


def test_the_limit_is_that_of_the_fullest_shard() -> None:
    halves = LimitedKinesis(VirtualClock(), shards=2)
    small = [Entry(str(number), str(number), b"x") for number in range(2_000)]
    fullest = max(sum(halves.shard(entry.partition_key) == shard for entry in small) for shard in (0, 1))
    large = [Entry("0", "0", bytes(1024 * 1024 - 1))] * 7

    assert producer.seconds_at_limit(small, halves) == fullest / 1_000
    assert producer.seconds_at_limit(large, halves) == 7.0
