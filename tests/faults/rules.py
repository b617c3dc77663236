"""The rules about claims that the consumer has to keep. They are watched while it works.

The unique key makes up for some of them when they are broken, so the account at the end does not show it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING

from tests.faults.events import claim_key
from tests.faults.faults import Kind, Step
from tests.unit.fake_dynamodb import Clock, FakeDynamoDB, Item

if TYPE_CHECKING:
    from tests.faults.environment import Environment

_TAKES_LONG: tuple[Kind, ...] = ("late", "timeout", "slow", "lost")


class Rule(StrEnum):
    """What may not be. The model (tests/model/consumer.pml) has variables of these names."""

    UNCLAIMED = "stored without its claim"
    TAKEN_OVER = "a valid claim was taken over"
    RELEASED = "a claim was released by somebody else"
    FORGOTTEN = "a completed record was forgotten"
    LEFT_BEHIND = "an orderly end left a claim behind"


class ClaimRules:
    """Watches the idempotency table ``claims`` and says in ``violations`` which rule was broken."""

    def __init__(
        self, claims: FakeDynamoDB, clock: Clock, violations: list[str], *, clocks_agree: bool
    ) -> None:
        self.clocks_agree = clocks_agree
        """By another clock a claim may have run out: then some rules say nothing."""
        self._claims = claims
        self._clock = clock
        self._violations = violations
        self._late: set[tuple[str, ...]] = set()
        """Items that were written last by whoever had given up, or was dead: another one may be at work on them."""

    @contextmanager
    def asking(self, environment: Environment, operation: str) -> Iterator[None]:
        """Look at what a request to the table does to other environments' claims."""
        before = dict(self._claims.items)
        yield
        changed = self._changed_since(before)
        self._late.difference_update(changed)
        if operation == "BatchWriteItem":
            return
        for key, old in before.items():
            new = self._claims.items.get(key)
            if new is old:
                continue
            owner = old.get("owner", {}).get("S")
            if owner is None:
                if new is None and old["status"]["S"] == "COMPLETED" and key[0].startswith("records#"):
                    self._broken(Rule.FORGOTTEN)
                continue
            valid = float(old["in_progress_expiration"]["N"]) >= self._clock.now * 1000
            if new is None and owner not in environment.owners:
                self._broken(Rule.RELEASED)
            elif new is not None and valid and owner not in environment.owners and self.clocks_agree:
                self._broken(Rule.TAKEN_OVER)
        environment.owners.update(new["owner"]["S"] for new in changed.values() if "owner" in new)

    @contextmanager
    def arriving_late(self) -> Iterator[None]:
        """What a request does to the table comes later than whoever has sent it has waited."""
        before = dict(self._claims.items)
        yield
        self._late.update(self._changed_since(before))

    def _changed_since(self, before: dict[tuple[str, ...], Item]) -> dict[tuple[str, ...], Item]:
        return {key: new for key, new in self._claims.items.items() if before.get(key) is not new}

    def storing(self, environment: Environment, ids: list[str]) -> None:
        """Whoever stores a record holds its claim."""
        if not self.clocks_agree:
            return
        for record_id in ids:
            key = (claim_key(record_id),)
            item = self._claims.items.get(key, {})
            if key in self._late and item.get("status", {}).get("S") == "COMPLETED":
                continue  # it was completed while its claim, which had run out, was somebody else's
            if item.get("owner", {}).get("S") not in environment.owners:
                self._broken(f"{record_id} was {Rule.UNCLAIMED}")

    def ended(self, owners: set[str], steps: list[Step]) -> None:
        """An invocation that ends by itself leaves no claim behind, unless the table or the time failed it."""
        excused = any(
            step.fault and (step.service == "dynamodb" or step.fault in _TAKES_LONG) for step in steps
        )
        left = any(item.get("owner", {}).get("S") in owners for item in self._claims.items.values())
        if left and not excused:
            self._broken(Rule.LEFT_BEHIND)

    def _broken(self, rule: str) -> None:
        self._violations.append(f"claim rule: {rule}")
