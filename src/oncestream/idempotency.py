"""Idempotency for a whole batch: what Powertools does for one function call, in 25 items a request.

Powertools' idempotency makes one call of a function happen once: it claims the key by a conditional put
before, and writes ``COMPLETED`` after. For 1,000 records that is 2,000 requests, one after the other.
:class:`BulkIdempotency` claims and completes them in 80, several in flight, for the same two write units a
record.

Keys, attributes, expiry and the rules of who may take what are Powertools' own, so a record claimed or
completed here is in progress or completed there, and the other way round. The items differ in one attribute
that Powertools ignores: ``owner``, drawn at random for each :meth:`~BulkIdempotency.claim`. It answers two
questions:

- *Is this claim mine?* When an answer is lost, the repeated request finds its own claim, and must not take it
  for somebody else's.
- *Is it still mine?* A release must not delete a claim that has run out and was taken over in the meantime.

Each key comes with a digest of what is to be done under it. It is kept in Powertools' own attribute for payload
validation, but decides nothing at the claim: what is done already with another digest is ``suspect``, and whoever
asked has to compare.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import random
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii
from typing import TYPE_CHECKING, Any, NamedTuple

import jmespath
from aws_lambda_powertools.utilities.idempotency import BasePersistenceLayer, DynamoDBPersistenceLayer
from aws_lambda_powertools.utilities.idempotency.exceptions import IdempotencyKeyError
from botocore.config import Config

from oncestream.calls import Calls, Fault, Request, in_groups
from oncestream.claim_items import Layout
from oncestream.claim_run import STATEMENTS_A_CALL, ClaimRun, State
from oncestream.errors import TransientError
from oncestream.transport.boto3 import Boto3Transport

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.idempotency import IdempotencyConfig
    from aws_lambda_powertools.utilities.idempotency.persistence.datarecord import DataRecord
    from mypy_boto3_dynamodb import DynamoDBClient

    from oncestream.transport import Transport

logger = logging.getLogger(__name__)

WRITES_A_CALL = 25
"""docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html"""


@dataclass(frozen=True, slots=True)
class Claims:
    """What became of each record id of a claim. Every id is in exactly one of the sets."""

    claimed: frozenset[str]
    """Ours to work on, until completed, released or run out."""
    completed: frozenset[str]
    """Done before: duplicates."""
    suspect: frozenset[str]
    """Done before, by something with another digest. A claim does not decide what that means: compare."""
    in_progress: frozenset[str]
    """Somebody else's claim, still valid. Completed or free again later."""
    undecided: frozenset[str]
    """Not decided, because DynamoDB refused or did not answer. To be tried again later."""
    done_with: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Of what is suspect: the digest that it was done with."""


class Key(str):
    """A key as the table has it, prefix and hash: :meth:`BulkIdempotency.key` makes one. It equals no text."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        """Whether the other one is the same key."""
        return isinstance(other, Key) and str.__eq__(self, other)

    def __ne__(self, other: object) -> bool:
        """Whether the other one is another key, or a text."""
        return not self == other


class _Hold(NamedTuple):
    """A claim of ours, or one that may be: the owner it was written for, and until when it is valid (ms)."""

    owner: str
    until: int
    abandoned: bool
    """Nobody works for that owner, so the next claim may take it at once."""


class BulkIdempotency(DynamoDBPersistenceLayer):
    """Claims, completes and releases many keys at once, in the items of Powertools' DynamoDB layer.

    It is such a layer itself, and can be given to ``@idempotent_function`` as it is. Threads may share it.

    Parameters
    ----------
    table_name
        A table of Powertools' own layout, with TTL on ``expiration``.
    config
        Powertools' configuration. Choose ``hash_function="sha256"``: under the default, md5, somebody can make two ids
        with one hash; they would count as one record, and one be lost.
    key_prefix
        Comes before the hash in each key, as with the decorators' parameter of this name.
    replaces
        The function whose memory goes on here: ``"app.process_order"``, module and name of what
        ``@idempotent_function`` decorates. The prefix is then the one that Powertools makes of it and of the Lambda
        function's name. One of ``key_prefix`` and ``replaces`` is needed.
    boto3_client
        What Powertools' own calls use, and bulk requests too if there is no ``transport``. If there is none, one
        is made.
    transport
        How bulk requests get to DynamoDB. If there is none: by ``boto3_client``, in threads.
    in_flight
        Requests in flight at once. Each has a connection, opened when it is needed and kept. The boto3 transport
        has as many as the client keeps (``max_pool_connections``) at most.
    owner_attr
        The attribute that says which claim wrote an item.
    patience_seconds
        How long one :meth:`claim`, :meth:`complete` or :meth:`release` goes on asking. A request that has
        begun is waited for, so the client's timeouts come on top.
    clock, sleep, jitter
        The world outside, for tests: seconds since the epoch, a pause, a number from 0 to 1.
    options
        Names of keys and attributes, as ``DynamoDBPersistenceLayer`` takes them. A sort key is fine.

    Raises
    ------
    ValueError
        ``use_local_cache``: a claim always asks the table, for another invocation may have it by now. Or neither or
        both of ``key_prefix`` and ``replaces``.

    Example
    -------
    >>> config = IdempotencyConfig(hash_function="sha256", expires_after_seconds=14 * 24 * 3600)
    >>> store = BulkIdempotency("idempotency", config=config, key_prefix="consumer", boto3_client=client)
    >>> digests = {"a": sha256(b"{}").hexdigest(), "b": ""}
    >>> claims = store.claim(digests.items(), context.get_remaining_time_in_millis())
    >>> try:
    ...     process(claims.claimed)
    ... except TransientError:
    ...     store.release(claims.claimed)
    ...     raise
    >>> store.complete((key, digests[key]) for key in claims.claimed)
    """

    def __init__(
        self,
        table_name: str,
        *,
        config: IdempotencyConfig,
        key_prefix: str = "",
        replaces: str = "",
        boto3_client: DynamoDBClient | None = None,
        transport: Transport | None = None,
        in_flight: int = 40,
        owner_attr: str = "owner",
        patience_seconds: float = 10.0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
        jitter: Callable[[], float] = random.random,
        **options: Any,
    ) -> None:
        if config.use_local_cache:
            raise ValueError("use_local_cache has no meaning for a bulk claim, which always asks the table")
        if bool(key_prefix) == bool(replaces):
            raise ValueError(
                "give either key_prefix, or replaces with the module and name of the function that was decorated: "
                "without a prefix, keys would depend on the name of the function that asks"
            )
        if replaces:
            # Powertools' own: persistence/base.py, configure.
            key_prefix = f"{os.getenv('AWS_LAMBDA_FUNCTION_NAME', 'test-func')}.{replaces}"
        if boto3_client is None and not {"boto3_session", "boto_config"} & options.keys():
            options["boto_config"] = Config(max_pool_connections=in_flight)
        super().__init__(table_name, boto3_client=boto3_client, **options)
        self._key_prefix = key_prefix
        self._patience = patience_seconds
        transport = transport or Boto3Transport(self.client, in_flight)
        self._calls = Calls(transport, in_flight, clock=clock, sleep=sleep, jitter=jitter)
        self._holds: dict[str, _Hold] = {}
        self._hashes: dict[str, str] = {}
        """By key, for the last claim's: they are about to be completed or released."""
        self._layout = Layout(
            table=table_name,
            key=self.key_attr,
            sort_key=self.sort_key_attr,
            partition=self.static_pk_value,
            expiry=self.expiry_attr,
            in_progress_expiry=self.in_progress_expiry_attr,
            status=self.status_attr,
            data=self.data_attr,
            owner=owner_attr,
            validation=self.validation_key_attr,
        )
        self.configure(config, key_prefix=key_prefix)
        self._powertools = _AsPowertools(config, key_prefix)

    def configure(
        self, config: IdempotencyConfig, function_name: str | None = None, key_prefix: str | None = None
    ) -> None:
        """Called by Powertools' decorators. Another prefix than the constructor's would change every key."""
        if key_prefix not in {None, self._key_prefix}:
            raise ValueError(f"this store's key prefix is {self._key_prefix!r}, not {key_prefix!r}")
        super().configure(config, function_name, self._key_prefix)

    def key(self, data: Any) -> Key:
        """The key of ``data``, as Powertools finds and hashes it: by ``event_key_jmespath``, or all of it.

        ``data`` is what Powertools takes: anything that JSON has, a pydantic model, a dataclass, an event's data class.
        Claim, complete and release take such keys and texts. A text is hashed as it is: as the key that the
        expression would have found.

        Raises
        ------
        IdempotencyKeyError
            There is none: the expression finds nothing, or what it finds is null or empty. (Powertools would go on
            without idempotency then, unless ``raise_on_no_idempotency_key`` is set.)
        """
        plain = _plain(data)
        found = plain
        if self.event_key_compiled_jmespath is not None:
            options = jmespath.Options(**(self.jmespath_options or {}))
            found = self.event_key_compiled_jmespath.search(plain, options=options)
        if self.is_missing_idempotency_key(found):
            where = f"{self.event_key_jmespath!r} finds nothing" if self.event_key_jmespath else "it is empty"
            raise IdempotencyKeyError(where)
        return Key(self._hash_of(found) or self._powertools.ask(plain).idempotency_key)

    def digest(self, data: Any) -> str:
        """What Powertools keeps of ``data`` to compare; empty if ``payload_validation_jmespath`` is not set."""
        if not self.payload_validation_enabled:
            return ""
        return str(self._powertools.ask(_plain(data)).payload_hash)

    def claim(self, keys: Iterable[tuple[str, str]], remaining_time_in_millis: int) -> Claims:
        """Claim ``keys`` for this invocation, each with its digest; equal ones count once, with the first digest.

        An empty digest says nothing, and so does that of an item without one: what is completed is completed.
        Where both are there and differ, the key is ``suspect``. A claim in progress stays in progress whatever
        its digest is.

        Each key is asked for when it can be sent, and all of them are: with an iterator, the work of making
        the next ones is done while DynamoDB decides on the first.

        New ones are inserted, 25 a request. An INSERT fails alone when its key exists; it costs one write
        unit. What exists is judged by Powertools' rules, and what has expired, or was in progress past its
        time, is taken over by Powertools' own conditional put. Once a request has found nothing but existing
        keys, the rest is read first, 100 a request.

        A claim that was perhaps written although the answer is missing is reported as undecided. It is
        deleted again before this returns, if time and DynamoDB allow. If not it is remembered, and the next
        :meth:`claim` or :meth:`release` of this object deals with it. Failing that, it runs out like any
        claim.

        Parameters
        ----------
        remaining_time_in_millis
            How long the claims are valid: what is left of the invocation, as Powertools takes it. No request
            is begun here after half of it.

        Raises
        ------
        TransientError
            Nothing could be decided, and not for throttling: no connection, no permission, no such table. The
            message names the table and the cause.
        IdempotencyKeyError
            A key is empty.
        """
        hashes: dict[str, str] = {}
        digests: dict[str, str] = {}
        now = self._calls.clock()
        self._forget_what_ran_out(now)
        owner, until = secrets.token_hex(8), int((now + remaining_time_in_millis / 1000) * 1000)
        run = ClaimRun(
            self._layout,
            self._calls,
            claim=self._layout.claim(owner, int(now + self.expires_after_seconds), until),
            digests=digests,
            abandoned={key: hold.owner for key, hold in list(self._holds.items()) if hold.abandoned},
            deadline=now + min(self._patience, remaining_time_in_millis / 2000),
        )
        until_half = now + remaining_time_in_millis / 2000
        try:
            run.decide(self._hashed(keys, hashes, digests))
        except Exception:
            # Keys that cannot be made, or a defect: nobody will work on what was claimed so far.
            self._disown(run.written, owner, until, until_half)
            raise
        for key, state in run.states.items():
            if state == "claimed":
                self._holds[key] = _Hold(owner, until, abandoned=False)
        self._disown(run.unsure - run.states.keys(), owner, until, until_half)
        self._hashes = hashes
        return self._report(run, hashes)

    def complete(self, keys: Iterable[tuple[str, str]]) -> frozenset[str]:
        """Mark ``keys`` as done, whoever claimed them, for ``expires_after_seconds`` from now.

        Each comes with the digest of what was done under it, which need not be what was claimed last.

        Returns
        -------
        The keys that could not be written: they stay in progress until their claims run out. Nothing that
        DynamoDB or the network does is raised; the cause is logged.
        """
        now = self._calls.clock()
        deadline, expires = now + self._patience, int(now + self.expires_after_seconds)
        hashes: dict[str, str] = {}
        digests: dict[str, str] = {}
        for key, digest in keys:
            hashed = self._hash(key)
            hashes[hashed], digests[hashed] = key, digest
        waiting, failed, fault = list(hashes), set[str](), None
        for _ in self._calls.rounds(deadline):
            groups, waiting = list(in_groups(waiting, WRITES_A_CALL)), []
            requests = (
                Request("BatchWriteItem", group, self._layout.completions(group, digests, expires))
                for group in groups
            )
            for (_, group, _), answer in self._calls.send(requests, deadline):
                if not isinstance(answer, Fault):
                    # What DynamoDB throttled of a request that it took (API_BatchWriteItem.html).
                    for writes in answer.get("UnprocessedItems", {}).values():
                        waiting += [self._layout.key_of(write["PutRequest"]["Item"]) for write in writes]
                    continue
                fault = answer
                if answer.again:
                    waiting += group
                else:
                    failed.update(group)
            if not waiting:
                break
        failed.update(waiting)
        for key in hashes.keys() - failed:
            self._holds.pop(key, None)
        self._complain("complete", len(failed), fault)
        return frozenset(hashes[key] for key in failed)

    def release(self, keys: Iterable[str]) -> frozenset[str]:
        """Delete the claims on ``keys``, so that another invocation need not wait for them to run out.

        Deletes only what this object claimed, and nobody has completed or taken over since. All else counts
        as released.

        Returns
        -------
        The keys that could not be released: their claims run out, or the next :meth:`claim` of this object
        takes them at once. Nothing that DynamoDB or the network does is raised; the cause is logged.
        """
        hashes = {self._hash(key): key for key in keys}
        holds = {key: hold for key, hold in list(self._holds.items()) if key in hashes or hold.abandoned}
        deadline = self._calls.clock() + self._patience
        waiting, failed, fault = list(holds), set[str](), None
        for _ in self._calls.rounds(deadline):
            faults = self._delete(waiting, holds, deadline)
            waiting = [key for key, why in faults.items() if why.again]
            failed.update(key for key, why in faults.items() if not why.again)
            fault = next(iter(faults.values()), fault)
            if not waiting:
                break
        failed.update(waiting)
        for key in failed:
            self._holds[key] = holds[key]._replace(abandoned=True)
        self._complain("release", len(failed), fault)
        return frozenset(hashes[key] for key in failed & hashes.keys())

    def _hashed(
        self, keys: Iterable[tuple[str, str]], hashes: dict[str, str], digests: dict[str, str]
    ) -> Iterator[str]:
        """The hash of each key, once; noted in ``hashes``, its digest in ``digests``."""
        for key, digest in keys:
            if key not in hashes:
                hashes[key] = hashed = self._hash(key)
                if hashed not in digests:
                    digests[hashed] = digest
                    yield hashed

    def _hash(self, key: str) -> str:
        if isinstance(key, Key):
            return str(key)
        if known := self._hashes.get(key):
            return known
        if not key:
            raise IdempotencyKeyError("an empty record id identifies nothing")
        # What Powertools does for a text, at a fifth of its price: the JSON of a text is its own, whatever encoder
        # Powertools has for other things.
        return self._hash_text(encode_basestring_ascii(key))

    def _hash_of(self, found: Any) -> str | None:
        """The hash of what is JSON by itself; None for what only Powertools' encoder knows (Decimals, dates, ...)."""
        try:
            return self._hash_text(json.dumps(found, sort_keys=True))
        except TypeError:
            return None

    def _hash_text(self, text: str) -> str:
        return f"{self.function_name}#{self.hash_function(text.encode()).hexdigest()}"

    def _disown(self, keys: Iterable[str], owner: str, until: int, deadline: float) -> None:
        """Try to delete what ``owner`` may have claimed of ``keys``; remember what cannot be deleted."""
        stray = {key: _Hold(owner, until, abandoned=True) for key in keys}
        for key, hold in stray.items():
            self._holds.setdefault(key, hold)
        self._delete(list(stray), stray, deadline)

    def _forget_what_ran_out(self, now: float) -> None:
        for key, hold in list(self._holds.items()):
            if hold.until < now * 1000:
                self._holds.pop(key, None)

    def _delete(self, keys: list[str], holds: dict[str, _Hold], deadline: float) -> dict[str, Fault]:
        """Try once to delete claims of ours. Returns what failed; that one is not there is no failure."""
        owners = {key: holds[key].owner for key in keys}
        failed: dict[str, Fault] = {}
        requests = (
            Request("BatchExecuteStatement", group, self._layout.deletes(group, owners))
            for group in in_groups(keys, STATEMENTS_A_CALL)
        )
        for (_, group, _), answer in self._calls.send(requests, deadline):
            if isinstance(answer, Fault):
                failed |= dict.fromkeys(group, answer)
                continue
            for key, result in zip(group, answer["Responses"], strict=True):
                # A condition that fails means: completed, or somebody else's by now. Without an item there is
                # nothing to fail.
                # docs.aws.amazon.com/amazondynamodb/latest/developerguide/ql-reference.delete.html
                error = result.get("Error")
                if error is not None and error["Code"] != "ConditionalCheckFailed":
                    failed[key] = Fault.of_statement(error)
                elif self._holds.get(key) == holds[key]:
                    del self._holds[key]
        return failed

    def _report(self, run: ClaimRun, hashes: dict[str, str]) -> Claims:
        undecided = len(set(hashes.values()) - run.states.keys())
        if undecided and not run.states and run.fault and not run.fault.throttled:
            what = f"nothing could be claimed in idempotency table {self.table_name}: {run.fault.reason}"
            raise TransientError(what) from run.fault.error
        self._complain("claim", undecided, run.fault)

        keys: dict[State | None, set[str]] = defaultdict(set)
        for key, hashed in hashes.items():
            keys[run.states.get(hashed)].add(key)
        return Claims(
            claimed=frozenset(keys["claimed"]),
            completed=frozenset(keys["completed"]),
            suspect=frozenset(keys["suspect"]),
            in_progress=frozenset(keys["in_progress"]),
            undecided=frozenset(keys[None]),
            done_with={key: run.done_with[hashes[key]] for key in keys["suspect"]},
        )

    def _complain(self, verb: str, keys: int, fault: Fault | None) -> None:
        if keys:
            reason = (
                fault.reason if fault else "DynamoDB left them unprocessed, or others were faster each time"
            )
            logger.warning(
                "idempotency table %s: could not %s %d keys: %s", self.table_name, verb, keys, reason
            )


class _AsPowertools(BasePersistenceLayer):
    """Powertools' own key and digest of anything. A persistence layer is given them, with the record to put.

    What it has to implement: docs.aws.amazon.com/powertools/python/latest/utilities/idempotency, "Bringing your own
    persistent store".
    """

    def __init__(self, config: IdempotencyConfig, key_prefix: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.configure(config, key_prefix=key_prefix)
        self._put: list[DataRecord] = []

    def ask(self, data: Any) -> DataRecord:
        """The record that would be put for ``data``."""
        put: list[DataRecord] = []
        self._put = put
        self.save_inprogress(data, remaining_time_in_millis=0)
        return put[0]

    def _put_record(self, data_record: DataRecord) -> None:
        self._put.append(data_record)

    def _get_record(self, idempotency_key: str) -> DataRecord:
        raise NotImplementedError

    def _update_record(self, data_record: DataRecord) -> None:
        raise NotImplementedError

    def _delete_record(self, data_record: DataRecord) -> None:
        raise NotImplementedError


def _plain(data: Any) -> Any:
    """What ``@idempotent_function`` makes of its argument before it looks for the key."""
    if dataclasses.is_dataclass(data) and not isinstance(data, type):
        return dataclasses.asdict(data)
    if callable(dump := getattr(data, "model_dump", None)):
        return dump(mode="json")
    if callable(dump := getattr(data, "dict", None)):
        return dump()
    return getattr(data, "raw_event", data)
