"""What DynamoDB was asked, counted and priced. The server tells (bench/standin.py), so no client is changed for it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from bench.units import cost


def counts(requests: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Calls, write and read units, and calls by operation, of requests: each its operation and its body."""
    requests = list(requests)
    costs = [cost(operation, body) for operation, body in requests]
    return {
        "calls": len(requests),
        "write_units": sum(one.write_units for one in costs),
        "read_units": sum(one.read_units for one in costs),
        "operations": dict(Counter(operation for operation, _ in requests)),
    }
