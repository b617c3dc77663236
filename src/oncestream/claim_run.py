"""One run of a claim: insert, read what was there before, take over what is stale, until all is decided.

Keys are hashed ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import Any, Literal

from oncestream.calls import Calls, Exchange, Fault, Outcome, Request
from oncestream.claim_items import COMPLETED, INPROGRESS, Item, Layout

STATEMENTS_A_CALL = 25
"""docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchExecuteStatement.html"""
READS_A_CALL = 100
"""docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchGetItem.html"""

_INSERT, _READ = "BatchExecuteStatement", "BatchGetItem"

State = Literal["claimed", "completed", "suspect", "in_progress"]


class ClaimRun:
    """Finds out who has each key, and claims for ``owner`` those that nobody has.

    Parameters
    ----------
    claim
        The attributes of a claim of that owner (:meth:`Layout.claim`).
    digests
        The digest of what is to be done, by key; empty: not known. A key is there once it has been asked for.
    abandoned
        Owners by key: claims of ours for which nobody works.
    deadline
        No request is begun after it.
    """

    def __init__(
        self,
        layout: Layout,
        calls: Calls,
        *,
        claim: Item,
        digests: Mapping[str, str],
        abandoned: Mapping[str, str],
        deadline: float,
    ) -> None:
        self.states: dict[str, State] = {}
        """What is known. A key that is not here when the run is over could not be decided."""
        self.done_with: dict[str, str] = {}
        """The digests of what is suspect."""
        self.written: set[str] = set()
        """Keys that some request was to claim, whatever became of it."""
        self.unsure: set[str] = set()
        """Keys of which a write was sent and not answered. It may have been carried out."""
        self.fault: Fault | None = None
        """Why keys are undecided: the last fault that was more than throttling, or else the last one."""
        self._layout = layout
        self._calls = calls
        self._claim = claim
        self._digests = digests
        self._owner = layout.owner_of(claim)
        self._abandoned = abandoned
        self._deadline = deadline

    def decide(self, keys: Iterable[str]) -> None:
        """Fill in ``states``, ``unsure`` and ``fault``. Each key is asked for when it can be sent."""
        insert, read = keys, list[str]()
        for _ in self._calls.rounds(self._deadline):
            first = _Inquiry(self, insert, read, probing=True)
            first.make()
            # With what is left nothing went wrong, so there is no reason for a pause.
            second = _Inquiry(self, first.gone, first.existing)
            second.make()
            stale = self._judge(first.items | second.items)
            insert = [*first.insert_again, *second.insert_again, *second.gone]
            read = [*first.read_again, *second.read_again, *second.existing, *self._take_over(stale)]
            if not insert and not read:
                break

    def exchange(self) -> Exchange:
        """For the requests of one go."""
        return self._calls.exchange(self._deadline)

    def insertion(self, keys: tuple[str, ...]) -> Request:
        """The request that claims keys."""
        self.written.update(keys)
        return Request(_INSERT, keys, self._layout.inserts(keys, self._claim, self._digests))

    def reading(self, keys: tuple[str, ...]) -> Request:
        """The request that reads the items of keys."""
        return Request(_READ, keys, self._layout.gets(keys))

    def items_by_key(self, items: Iterable[Item]) -> dict[str, Item]:
        """Items, or keys as a request has them, by hashed key."""
        return {self._layout.key_of(item): item for item in items}

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
        status = self._layout.status_of(item)
        if status == COMPLETED:
            done, asked = self._layout.digest_of(item), self._digests[key]
            if not done or not asked or done == asked:
                return "completed"
            self.done_with[key] = done
            return "suspect"
        if status == INPROGRESS:
            owner = self._layout.owner_of(item)
            if owner == self._owner:
                return "claimed"  # by a request of this very run whose answer was lost
            if self._layout.run_out(item, now) or (owner and owner == self._abandoned.get(key)):
                return None
        # A status that Powertools does not know is left alone, as somebody else's, until it expires.
        return "in_progress"

    def _take_over(self, keys: list[str]) -> list[str]:
        """Put claims in the place of stale ones. Returns keys to read again."""
        again: list[str] = []
        self.written.update(keys)
        puts = (Request("PutItem", (key,), self._replacement(key)) for key in keys)
        for (_, (key,), _), answer in self._calls.send(puts, self._deadline):
            if not isinstance(answer, Fault):
                self.states[key] = "claimed"
            elif answer.code != "ConditionalCheckFailedException":
                again += self.failed((key,), answer)
            else:
                # Another invocation was faster, or this repeated a put of ours that had worked.
                again += self._judge({key: answer.item}) if answer.item else [key]
        return again

    def _replacement(self, key: str) -> dict[str, Any]:
        now, owner = self._calls.clock(), self._abandoned.get(key)
        return self._layout.take_over(key, self._claim, self._digests[key], now, owner)

    def failed(self, keys: tuple[str, ...], fault: Fault, *, wrote: bool = True) -> tuple[str, ...]:
        """Note why keys are undecided. Returns those worth another attempt."""
        if self.fault is None or self.fault.throttled or not fault.throttled:
            self.fault = fault
        if wrote and fault.ambiguous:
            self.unsure.update(keys)
        return keys if fault.again else ()


class _Inquiry:
    """Inserts claims and reads items, all in one go, and notes what became of it.

    What exists is read, as far as that is known in time. When ``probing``, a request in which every single key
    exists ends the inserting, and all keys after it are read. A batch that is delivered again is full of such:
    finding that out takes a write unit a key and a call for 25 by inserting, a read unit and a call for 100 by
    reading. So the first request goes ahead, and for as long as it is under way and there are keys still to be
    made, these are only collected. Nobody waits for it.
    """

    def __init__(
        self, run: ClaimRun, insert: Iterable[str], read: Iterable[str], *, probing: bool = False
    ) -> None:
        self.items: dict[str, Item] = {}
        """Items of keys that are not claimed now, by key."""
        self.existing: list[str] = []
        """These keys exist, and have not been read yet."""
        self.gone: list[str] = []
        """These were read, and do not exist."""
        self.insert_again: list[str] = []
        self.read_again: list[str] = []
        self._run = run
        self._to_insert = iter(insert)
        self._to_read = iter(read)
        self._probing = probing
        self._probe_is_back = not probing
        self._redelivered = False
        """The batch was here before: a whole request found nothing but existing keys."""

    def make(self) -> None:
        """Send all that is to be asked, and note each answer as soon as it is there."""
        with self._run.exchange() as exchange:
            if probe := self._next_to_insert():
                exchange.send(self._run.insertion(probe))
            collected: list[str] = []
            while not self._probe_is_back and (keys := self._next_to_insert()):
                collected += keys
                self._note(exchange.here())
            self._to_insert = chain(collected, self._to_insert)
            while not self._redelivered and (keys := self._next_to_insert()):
                self._note(exchange.room())
                exchange.send(self._run.insertion(keys))
            while keys := self._next_to_read():
                self._note(exchange.room())
                exchange.send(self._run.reading(keys))
            self._note(exchange.rest())

    def _next_to_insert(self) -> tuple[str, ...]:
        return tuple(islice(self._to_insert, STATEMENTS_A_CALL))

    def _next_to_read(self) -> tuple[str, ...]:
        keys = list(islice(chain(self._to_read, self._to_insert), READS_A_CALL))
        while self.existing and len(keys) < READS_A_CALL:
            keys.append(self.existing.pop())
        return tuple(keys)

    def _note(self, outcomes: Iterable[Outcome]) -> None:
        for request, answer in outcomes:
            if request.operation == _READ:
                self._was_read(request.keys, answer)
            else:
                self._was_inserted(request.keys, answer)

    def _was_inserted(self, keys: tuple[str, ...], answer: dict[str, Any] | Fault) -> None:
        self._probe_is_back = True
        if isinstance(answer, Fault):
            self.insert_again += self._run.failed(keys, answer)
            return
        exist = 0
        for key, result in zip(keys, answer["Responses"], strict=True):
            error = result.get("Error")
            if error is None:
                self._run.states[key] = "claimed"
            elif error["Code"] != "DuplicateItem":
                self.insert_again += self._run.failed((key,), Fault.of_statement(error))
            else:
                exist += 1
                if "Item" in error:
                    self.items[key] = error["Item"]  # was asked for, but not every endpoint sends it
                else:
                    self.existing.append(key)
        self._redelivered |= self._probing and exist == STATEMENTS_A_CALL

    def _was_read(self, keys: tuple[str, ...], answer: dict[str, Any] | Fault) -> None:
        if isinstance(answer, Fault):
            self.read_again += self._run.failed(keys, answer, wrote=False)
            return
        here = self._run.items_by_key(item for items in answer["Responses"].values() for item in items)
        requests = answer.get("UnprocessedKeys", {}).values()
        unread = self._run.items_by_key(key for request in requests for key in request["Keys"])
        self.items |= here
        self.read_again += unread
        self.gone += [key for key in keys if key not in here and key not in unread]
