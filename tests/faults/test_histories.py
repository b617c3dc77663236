"""Random histories: several faults, acts of Lambda, Kinesis, DynamoDB and Postgres, and skewed clocks."""

from __future__ import annotations

from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.history import Harness, History
from tests.faults.random_history import draw
from tests.faults.replay import script

_TAKES_TIME = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture, HealthCheck.data_too_large]


@settings(max_examples=300, deadline=None, derandomize=True, database=None, suppress_health_check=_TAKES_TIME)
@given(random=st.randoms(use_true_random=False))
def test_the_account_of_300_random_histories_closes(harness: Harness, random: Random) -> None:
    history = draw(random)
    account = harness.run(history)
    assert account.wrong == [], script(history)


def test_the_account_closes_when_the_postgres_server_is_restarted(harness: Harness) -> None:
    stream = tuple(draw(Random(1)).stream)
    account = harness.run(History(stream=stream, acts=((1, "restart", 0), (2, "restart", 0)), batch_size=2))
    assert account.wrong == []
