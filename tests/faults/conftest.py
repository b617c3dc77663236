"""The harness for the tests here. It is put around the product for one module's tests at a time."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from local.postgres import Postgres
    from tests.faults.history import Harness

_numbers = count(1)


@pytest.fixture(scope="module")
def harness(postgres: Postgres) -> Iterator[Harness]:
    """Runs histories on a database of this module."""
    from tests.faults.laboratory import on

    with on(postgres, f"faults_{next(_numbers)}") as harness:
        yield harness


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """An invocation that is broken off may have nothing to count, and Powertools warns of it."""
    for item in items:
        if "faults" in item.path.parts:
            item.add_marker(pytest.mark.filterwarnings("ignore:No application metrics to publish"))
