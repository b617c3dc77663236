"""One run of a claim: insert, read what was there before, take over what is stale, until all is decided.

Keys are hashed ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import batched, islice
from typing import Literal

from common.claim_items import COMPLETED, INPROGRESS, Item, Layout
from common.dynamodb import Calls, Fault

STATEMENTS_A_CALL = 25
"""docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html"""
READS_A_CALL = 100
"""docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html"""

type State = Literal["claimed", "completed", "in_progress"]


class ClaimRun:
    """Finds out who has each key, and claims for ``owner`` those that nobody has.

    Parameters
    ----------
    claim
        The attributes of a claim of that owner (:meth:`Layout.claim`).
    abandoned
        Owners by key: claims of ours for which nobody works.
    deadline
        No request is begun after it.
    """

    def __init__(
        self, layout: Layout, calls: Calls, *, claim: Item, abandoned: Mapping[str, str], deadline: float
    ) -> None:
        self.states: dict[str, State] = {}
        """What is known. A key that is not here when the run is over could not be decided."""
        self.unsure: set[str] = set()
        """Keys of which a write was sent and not answered. It may have been carried out."""
        self.fault: Fault | None = None
        """Why keys are undecided: the last fault that was more than throttling, or else the last one."""
        self._layout = layout
        self._calls = calls
        self._claim = claim
        self._owner = layout.owner_of(claim)
        self._abandoned = abandoned
        self._deadline = deadline

    def decide(self, keys: Iterable[str]) -> None:
        """Fill in ``states``, ``unsure`` and ``fault``. Each key is asked for when it can be sent."""
        read = list[str]()
        for _ in self._calls.rounds(self._deadline):
            found, known, again = self._insert(keys, probing=True)
            items, gone, unread = self._read(read + known)
            # Nothing went wrong with these: no reason for a pause.
            new, known, again_gone = self._insert(gone)
            read = unread + known + self._take_over(self._judge(found | items | new))
            keys = again + again_gone
            if not keys and not read:
                break

    def _insert(
        self, keys: Iterable[str], *, probing: bool = False
    ) -> tuple[dict[str, Item], list[str], list[str]]:
        """Insert claims. Returns items that exist, keys to read, and keys to insert again.

        To be read are keys whose items exist; and when ``probing``, all keys that come after a request in
        which every single one did. A batch that is delivered again is full of such: finding that out takes a
        write unit a key and a call for 25 by inserting, a read unit and a call for 100 by reading.
        """
        found: dict[str, Item] = {}
        known: list[str] = []
        again: list[str] = []
        left = iter(keys)
        redelivered = False

        def groups() -> Iterator[tuple[str, ...]]:
            while not redelivered and (group := tuple(islice(left, STATEMENTS_A_CALL))):
                yield group

        for group, answer in self._calls.send(
            "BatchExecuteStatement",
            groups(),
            lambda group: self._layout.inserts(group, self._claim),
            self._deadline,
        ):
            if isinstance(answer, Fault):
                again += self._failed(group, answer)
                continue
            existing = 0
            for key, result in zip(group, answer["Responses"], strict=True):
                error = result.get("Error")
                if error is None:
                    self.states[key] = "claimed"
                elif error["Code"] != "DuplicateItem":
                    again += self._failed((key,), Fault.of_statement(error))
                else:
                    existing += 1
                    if "Item" in error:
                        found[key] = error["Item"]  # was asked for, but not every endpoint sends it
                    else:
                        known.append(key)
            redelivered = redelivered or (probing and existing == STATEMENTS_A_CALL)
        return found, known + list(left), again

    def _read(self, keys: list[str]) -> tuple[dict[str, Item], list[str], list[str]]:
        """Read items. Returns them, the keys of those that are gone, and keys to read again."""
        found: dict[str, Item] = {}
        gone: list[str] = []
        again: list[str] = []
        for group, answer in self._calls.send(
            "BatchGetItem", batched(keys, READS_A_CALL, strict=False), self._layout.gets, self._deadline
        ):
            if isinstance(answer, Fault):
                again += self._failed(group, answer, wrote=False)
                continue
            items = [item for items in answer["Responses"].values() for item in items]
            here = {self._layout.key_of(item): item for item in items}
            requests = answer.get("UnprocessedKeys", {}).values()
            unread = {self._layout.key_of(key) for request in requests for key in request["Keys"]}
            found |= here
            again += unread
            gone += [key for key in group if key not in here and key not in unread]
        return found, gone, again

    def _judge(self, items: dict[str, Item]) -> list[str]:
        """Note who has each item, by Powertools' rules. Returns the keys that nobody has."""
        now = self._calls.clock()
        stale = []
        for key, item in items.items():
            state = self._state(key, item, now)
            if state is None:
                stale.append(key)
            else:
                self.states[key] = state
        return stale

    def _state(self, key: str, item: Item, now: float) -> State | None:
        # The rules say the same as Powertools' condition in Layout.take_over: what is called stale here can
        # be taken there.
        if self._layout.expired(item, now):
            return None
        status, owner = self._layout.status_of(item), self._layout.owner_of(item)
        if status == COMPLETED:
            return "completed"
        if status == INPROGRESS:
            if owner == self._owner:
                return "claimed"  # by a request of this very run whose answer was lost
            if self._layout.run_out(item, now) or (owner and owner == self._abandoned.get(key)):
                return None
        # A status that Powertools does not know is left alone, as somebody else's, until it expires.
        return "in_progress"

    def _take_over(self, keys: list[str]) -> list[str]:
        """Put claims in the place of stale ones. Returns keys to read again."""
        again: list[str] = []
        for (key,), answer in self._calls.send(
            "PutItem",
            batched(keys, 1, strict=False),
            lambda group: self._layout.take_over(
                group[0], self._claim, self._calls.clock(), self._abandoned.get(group[0])
            ),
            self._deadline,
        ):
            if not isinstance(answer, Fault):
                self.states[key] = "claimed"
            elif answer.code != "ConditionalCheckFailedException":
                again += self._failed((key,), answer)
            else:
                # Another invocation was faster, or this repeated a put of ours that had worked.
                again += self._judge({key: answer.item}) if answer.item else [key]
        return again

    def _failed(self, keys: tuple[str, ...], fault: Fault, *, wrote: bool = True) -> tuple[str, ...]:
        """Note why keys are undecided. Returns those worth another attempt."""
        if self.fault is None or self.fault.throttled or not fault.throttled:
            self.fault = fault
        if wrote and fault.ambiguous:
            self.unsure.update(keys)
        return keys if fault.again else ()
