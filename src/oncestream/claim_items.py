"""What the idempotency table holds, and the requests about it: Powertools' items, with an owner.

Nothing is sent from here. Keys are hashed ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import STATUS_CONSTANTS

INPROGRESS = STATUS_CONSTANTS["INPROGRESS"]
COMPLETED = STATUS_CONSTANTS["COMPLETED"]

_ALL_OLD = {"ReturnValuesOnConditionCheckFailure": "ALL_OLD"}

Item = dict[str, dict[str, Any]]
"""As DynamoDB writes it: ``{"id": {"S": "..."}, "expiration": {"N": "..."}}``."""

Body = dict[str, Any]
"""A request, as the API reference shows it."""


@dataclass(frozen=True)
class Layout:
    """The table and its attributes' names, as ``DynamoDBPersistenceLayer`` has them, and the owner's."""

    table: str
    key: str
    sort_key: str | None
    """If there is one, it has the hash, and the partition key is the same for all items."""
    partition: str
    """That partition key."""
    expiry: str
    in_progress_expiry: str
    status: str
    data: str
    owner: str
    validation: str
    """Powertools' attribute for payload validation: the digest of what is claimed, then of what was stored."""

    def __post_init__(self) -> None:
        # A statement has no parameters for names. All else in it is bound.
        for name in (self.table, *self._keys, *self._fields, self.validation):
            if "'" in name or '"' in name:
                raise ValueError(f"{name!r} cannot be quoted in a statement")

    def key_of(self, item: Item) -> str:
        """The hashed key of an item, or of a key as a request has it."""
        key: str = item[self.sort_key or self.key]["S"]
        return key

    def owner_of(self, item: Item) -> str | None:
        """Which claim wrote the item. None: not one of ours."""
        return item.get(self.owner, {}).get("S")

    def digest_of(self, item: Item) -> str:
        """The digest that the item has; empty if it has none, as the items of other releases."""
        digest: str = item.get(self.validation, {}).get("S", "")
        return digest

    def status_of(self, item: Item) -> str | None:
        """``INPROGRESS`` or ``COMPLETED``."""
        return item.get(self.status, {}).get("S")

    def expired(self, item: Item, now: float) -> bool:
        """Whether its time in the table is over. DynamoDB deletes such items late, by days even."""
        return _number(item, self.expiry) < int(now)

    def run_out(self, item: Item, now: float) -> bool:
        """Whether the time of the invocation that claimed it is over."""
        return _number(item, self.in_progress_expiry) < int(now * 1000)

    def claim(self, owner: str, expires: int, until: int) -> Item:
        """A claim's attributes beside its key. ``expires`` is in seconds, ``until`` in milliseconds."""
        return {
            self.expiry: {"N": str(expires)},
            self.status: {"S": INPROGRESS},
            self.in_progress_expiry: {"N": str(until)},
            self.owner: {"S": owner},
        }

    def inserts(self, keys: Iterable[str], claim: Item, digests: Mapping[str, str]) -> Body:
        """BatchExecuteStatement: insert claims. Each fails alone, with DuplicateItem, if its key exists."""
        bare, validated = ({"Statement": text, **_ALL_OLD} for text in self._insert)
        fields = list(claim.values())
        statements = []
        for key in keys:
            parameters = [*self._key(key).values(), *fields]
            if digest := digests[key]:
                statements.append(validated | {"Parameters": [*parameters, {"S": digest}]})
            else:
                statements.append(bare | {"Parameters": parameters})
        return {"Statements": statements}

    def deletes(self, keys: Iterable[str], owners: Mapping[str, str]) -> Body:
        """BatchExecuteStatement: delete claims, each only if it is its owner's, and in progress, still."""
        statements = []
        for key in keys:
            parameters = [*self._key(key).values(), {"S": owners[key]}, {"S": INPROGRESS}]
            statements.append({"Statement": self._delete, "Parameters": parameters})
        return {"Statements": statements}

    def gets(self, keys: Iterable[str]) -> Body:
        """BatchGetItem: read all that a claim looks at, and no functions' results."""
        return {"RequestItems": {self.table: {"Keys": [self._key(key) for key in keys], **self._reading}}}

    def completions(self, keys: Iterable[str], digests: Mapping[str, str], expires: int) -> Body:
        """BatchWriteItem: completed items, as Powertools writes them for a function that returned nothing."""
        fields = {self.expiry: {"N": str(expires)}, self.status: {"S": COMPLETED}, self.data: {"S": "null"}}
        puts = [
            {"PutRequest": {"Item": self._key(key) | fields | self._validation(digests[key])}} for key in keys
        ]
        return {"RequestItems": {self.table: puts}}

    def take_over(self, key: str, claim: Item, digest: str, now: float, abandoned: str | None) -> Body:
        """PutItem: a claim in the place of a stale one, under Powertools' own condition, word for word.

        ``abandoned`` is an owner of ours for whom nobody works: his claim may be taken before it runs out.
        """
        condition = (
            "attribute_not_exists(#id) OR #expiry < :now OR "
            "(#status = :inprogress AND attribute_exists(#in_progress_expiry) AND "
            "#in_progress_expiry < :now_in_millis)"
        )
        names = {
            "#id": self.key,
            "#expiry": self.expiry,
            "#in_progress_expiry": self.in_progress_expiry,
            "#status": self.status,
        }
        values = {
            ":now": {"N": str(int(now))},
            ":now_in_millis": {"N": str(int(now * 1000))},
            ":inprogress": {"S": INPROGRESS},
        }
        if abandoned is not None:
            condition += " OR (#status = :inprogress AND #owner = :abandoned)"
            names["#owner"] = self.owner
            values[":abandoned"] = {"S": abandoned}
        return {
            "TableName": self.table,
            "Item": self._key(key) | claim | self._validation(digest),
            "ConditionExpression": condition,
            "ExpressionAttributeNames": names,
            "ExpressionAttributeValues": values,
            **_ALL_OLD,
        }

    @property
    def _keys(self) -> list[str]:
        return [self.key, self.sort_key] if self.sort_key else [self.key]

    @property
    def _fields(self) -> list[str]:
        """In the order of :meth:`claim`."""
        return [self.expiry, self.status, self.in_progress_expiry, self.owner]

    def _validation(self, digest: str) -> Item:
        # Powertools, too, leaves the attribute out where there is nothing to validate.
        return {self.validation: {"S": digest}} if digest else {}

    def _key(self, key: str) -> Item:
        if self.sort_key:
            return {self.key: {"S": self.partition}, self.sort_key: {"S": key}}
        return {self.key: {"S": key}}

    @cached_property
    def _insert(self) -> tuple[str, str]:
        """Without a digest, and with one."""
        names = self._keys + self._fields
        bare, validated = (
            ", ".join(f"'{name}': ?" for name in each) for each in (names, [*names, self.validation])
        )
        return (
            f'INSERT INTO "{self.table}" VALUE {{{bare}}}',
            f'INSERT INTO "{self.table}" VALUE {{{validated}}}',
        )

    @cached_property
    def _delete(self) -> str:
        conditions = " AND ".join(f'"{name}" = ?' for name in [*self._keys, self.owner, self.status])
        return f'DELETE FROM "{self.table}" WHERE {conditions}'  # noqa: S608 - names only, and checked above

    @cached_property
    def _reading(self) -> Body:
        wanted = [*self._keys, *self._fields, self.validation]
        names = {f"#{number}": name for number, name in enumerate(wanted)}
        return {
            "ConsistentRead": True,
            "ProjectionExpression": ",".join(names),
            "ExpressionAttributeNames": names,
        }


def _number(item: Item, name: str) -> float:
    """A missing number is never in the past: in DynamoDB, too, a comparison with it is false."""
    return float(item[name]["N"]) if name in item else math.inf
