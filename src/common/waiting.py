"""Why a function cannot go on: noted in the ledger, where the command line finds it.

While something outside keeps a function from its work (Postgres refuses the password, the stream takes nothing), it is
retried, for days if need be, and logs why. ``once status`` reads the same reason from here. Each function has one item,
so nothing grows:

    upload = "waiting", item = the function, reason, since, last

A note is written when the reason changes, then at most once in ``EVERY``, and removed at the writer's next success. If
it cannot be written, that is ignored. An environment that ends before its next success leaves its note behind, so a
note counts only while its ``last`` is no older than ``BELIEVED``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from common.observability import logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_dynamodb.type_defs import AttributeValueTypeDef

WAITING = "waiting"
"""The partition of all notes. No upload's: those have ids of 32 hexadecimal digits."""
EVERY = timedelta(minutes=1)
BELIEVED = timedelta(minutes=15)
"""A chunk job that fails comes again after up to eleven minutes: its time-out, and the queue's."""
REASON_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class Note:
    """Why a function waits."""

    function: str
    reason: str
    since: datetime
    """When this reason was first noted."""
    last: datetime
    """When it was last noted."""

    @classmethod
    def from_item(cls, item: Mapping[str, AttributeValueTypeDef]) -> Note | None:
        """Read the ledger's item back; None if it is one that was taken away."""
        if "reason" not in item:
            return None
        return cls(
            item["item"]["S"],
            item["reason"]["S"],
            datetime.fromisoformat(item["since"]["S"]),
            datetime.fromisoformat(item["last"]["S"]),
        )


class Waiting:
    """The notes of one function. No method raises for what DynamoDB does.

    Parameters
    ----------
    client
        Makes a client on first use. One with short timeouts: a note is worth no waiting.
    table
        The ledger; None: nothing is noted.
    function
        Its name for people: ``consumer``, ``plan``, ``chunks``.
    """

    def __init__(
        self,
        client: Callable[[], DynamoDBClient],
        table: str | None,
        function: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._client = client
        self._table = table
        self._function = function
        self._now = now
        self._noted: str | None = None
        self._noted_at: datetime | None = None

    def note(self, reason: str) -> None:
        """The function cannot go on because of ``reason``, and will be tried again."""
        reason, now = reason[:REASON_CHARACTERS], self._now()
        if reason == self._noted and self._noted_at is not None and now - self._noted_at < EVERY:
            return
        told: dict[str, AttributeValueTypeDef] = {":reason": {"S": reason}, ":now": {"S": now.isoformat()}}
        # What somebody noted a moment ago goes on; anything else begins now.
        fresh: dict[str, AttributeValueTypeDef] = {":fresh": {"S": (now - BELIEVED).isoformat()}}
        if not self._update("SET #last = :now", told | fresh, "reason = :reason AND #last >= :fresh"):
            self._update("SET reason = :reason, since = :now, #last = :now", told)
        self._noted, self._noted_at = reason, now

    def clear(self) -> None:
        """The function has done its work. Costs nothing unless it has noted something before."""
        if self._noted is not None:
            self._noted = self._noted_at = None
            self._update("REMOVE reason, since, #last")

    def _update(
        self,
        expression: str,
        values: dict[str, AttributeValueTypeDef] | None = None,
        condition: str | None = None,
    ) -> bool:
        """Change the note; False if the condition does not hold."""
        if self._table is None:
            return True
        more: dict[str, Any] = {"ExpressionAttributeValues": values} if values else {}
        if condition:
            more["ConditionExpression"] = condition
        try:
            self._client().update_item(
                TableName=self._table,
                Key={"upload": {"S": WAITING}, "item": {"S": self._function}},
                UpdateExpression=expression,
                ExpressionAttributeNames={"#last": "last"},
                **more,
            )
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") == "ConditionalCheckFailedException":
                return False
            logger.info("Not noted why it waits", reason=str(error))
        except BotoCoreError as error:
            logger.info("Not noted why it waits", reason=str(error))
        return True
