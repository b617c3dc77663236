"""Random histories: several faults, acts of Lambda, Kinesis, DynamoDB and Postgres, and skewed clocks."""

from __future__ import annotations

from collections import Counter

from tests.faults.faults import AWS, EVERYWHERE, PARTS, POSTGRES
from tests.faults.history import Harness
from tests.faults.random_history import history_of
from tests.faults.replay import script

HISTORIES = 300
LEAST = {
    **dict.fromkeys([*EVERYWHERE, *AWS, *PARTS, *POSTGRES], 10),
    **dict.fromkeys(["jump", "sweep", "split", "merge", "terminate", "again", "twins", "cold"], 20),
    "deploy": 15,
    "restart": 5,
    "immediate": 2,
    "clocks apart": 100,
    "slices": 100,
    "types of one's own": 100,
    "several in flight": 100,
    "over crt": 50,
    "over boto3": 50,
}
"""How often each of these happens in all of them, at least. The histories are the same each time."""


def test_the_account_of_300_random_histories_closes_and_everything_happens_in_them(harness: Harness) -> None:
    met: Counter[str] = Counter()
    for seed in range(HISTORIES):
        history = history_of(seed)
        account = harness.run(history)
        assert account.wrong == [], script(history)
        met.update(account.met)
        met["clocks apart"] += any(history.skews)
        met["several in flight"] += history.in_flight > 1
        met[f"over {history.way}"] += 1
        met["types of one's own"] += history.payload_type != "any"
        met["slices"] += history.slice_records < len(history.stream)
    assert {name: met[name] for name, least in LEAST.items() if met[name] < least} == {}
