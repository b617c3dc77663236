"""A caller of the producer function that does what the guarantee asks of callers.

It sends again, with the same ids, what the answer names as failed, and any request that got no answer.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from itertools import batched
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

RECORDS_A_REQUEST = 200
PAUSE_SECONDS = 0.5
"""Before something is sent again."""


class Caller:
    """Sends records through the producer function.

    Parameters
    ----------
    client
        Of Lambda.
    accepted
        Told how many more records the producer has accepted.
    """

    def __init__(
        self, client: Any, function: str, accepted: Callable[[int], object], ending: threading.Event
    ) -> None:
        self._client = client
        self._function = function
        self._accepted = accepted
        self._ending = ending
        self.sent_again = 0
        """Records, counted each time."""

    def send(self, records: Sequence[dict[str, Any]], turn: Callable[[float], object]) -> None:
        """Send all of them, and return when all are accepted.

        Parameters
        ----------
        turn
            Waits for the turn of a request, given the share of the records that are sent already.
        """
        requests = list(batched(records, RECORDS_A_REQUEST, strict=False))
        for number, request in enumerate(requests):
            turn(number / len(requests))
            waiting: Sequence[dict[str, Any]] = request
            while waiting and not self._ending.is_set():
                left = self._left(waiting)
                self._accepted(len(waiting) - len(left))
                if left:
                    self.sent_again += len(left)
                    self._ending.wait(PAUSE_SECONDS)
                waiting = left

    def _left(self, records: Sequence[dict[str, Any]]) -> Sequence[dict[str, Any]]:
        """Send once; returns what has to be sent again."""
        payload = json.dumps({"records": list(records)}).encode()
        try:
            answer = self._client.invoke(FunctionName=self._function, Payload=payload)
            body = json.loads(answer["Payload"].read())
        except (BotoCoreError, ClientError):
            return records
        if "FunctionError" in answer:
            return records
        if body["rejected"] or "error" in body:
            raise ValueError(f"the producer refused good records: {body}")
        return [records[failed["index"]] for failed in body["failed"]]
