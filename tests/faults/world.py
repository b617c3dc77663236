"""A small cloud in memory with a real Postgres: its functions are the product's handlers.

Deliveries follow the documented rules of S3 (asynchronous invocation: two more attempts), SQS (visibility
timeout) and the event source mappings (local.streams, which is what the local stack uses too).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import consumer.handler
import producer.api
import producer.chunks
import uploads.plan
import uploads.register
from local.streams.mapping import Backoff, MappingSettings
from local.streams.queue import ShardQueue
from local.streams.records import Answered, Batch, CheckpointLost, Discard, FunctionFailed, StreamRecord
from local.streams.shards import Lineage
from local.streams.shards import Shard as ListedShard
from tests.faults.client_pool import ClientPool
from tests.faults.environment import Environment
from tests.faults.events import claim_key, s3_event, sqs_event, stream_record
from tests.faults.faults import Killed, Plan
from tests.faults.services import Bucket, Kinesis, LedgerTable, Object, Queue
from tests.unit.fake_dynamodb import Clock, FakeDynamoDB

HANDLERS: dict[str, Callable[[Any, Any], Any]] = {
    "api": producer.api.handler,
    "register": uploads.register.handler,
    "plan": uploads.plan.handler,
    "chunks": producer.chunks.handler,
    "consumer": consumer.handler.handler,
}
TIMEOUTS = {"api": 60.0, "register": 60.0, "plan": 900.0, "chunks": 300.0, "consumer": 120.0}
"""Seconds, as in template.yaml."""
VISIBILITY_SECONDS = 330.0
RECEIVES = 24
ASYNC_PAUSES = (60.0, 120.0)
"""docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html"""
PATIENCE = 400
"""Deliveries after which a history that has not drained counts as blocked."""
BACKOFF = Backoff(1.0, 30.0)
LEDGER_SETTINGS = MappingSettings(
    batch_size=10, report_batch_item_failures=True, bisect_batch_on_function_error=True
)


class BlockedError(Exception):
    """The history does not come to an end."""


@dataclass
class Notification:
    """An S3 notification on its way to register."""

    event: dict[str, Any]
    due: float
    attempts: int = 0


@dataclass(frozen=True)
class Mapping:
    """The settings of the consumer's event source mapping."""

    batch_size: int = 100
    factor: int = 1

    def settings(self) -> MappingSettings:
        return MappingSettings(
            batch_size=self.batch_size,
            parallelization_factor=self.factor,
            report_batch_item_failures=True,
            bisect_batch_on_function_error=True,
            maximum_record_age_seconds=518_400,
        )


@dataclass
class _Stream:
    """The consumer's side of the stream: a queue for each shard that may be read."""

    lineage: Lineage = field(default_factory=lambda: Lineage("TRIM_HORIZON"))
    queues: dict[str, ShardQueue] = field(default_factory=dict)
    read: dict[str, int] = field(default_factory=dict)


class World:
    """Everything outside the functions, and the functions' environments.

    Parameters
    ----------
    pool
        boto3 clients, shared with other worlds of the process.
    plan
        The faults.
    skews
        How far the clocks of the environments are ahead, in seconds, in the order of their making (again from
        the first).
    """

    def __init__(
        self,
        pool: ClientPool,
        plan: Plan | None = None,
        *,
        shards: int = 1,
        mapping: Mapping | None = None,
        skews: tuple[float, ...] = (0.0,),
    ) -> None:
        self.pool = pool
        self.plan = plan or Plan()
        self.clock = Clock()
        self.claims = FakeDynamoDB("claims")
        self.ledger = LedgerTable(self.clock)
        self.kinesis = Kinesis(self.clock, shards)
        self.queue = Queue(self.clock)
        self.bucket = Bucket()
        self.notifications: list[Notification] = []
        self.violations: list[str] = []
        """Rules that were broken on the way, beside what the account shows at the end."""
        self.parked = 0
        """Notifications that went to the queue of lost ones, and were sent again from there."""
        self.deliveries = 0
        self.before_delivery: Callable[[int], None] = lambda number: None
        """Called before each delivery of a Kinesis batch, with its number."""
        self.after_delivery: Callable[[int], bool] = lambda number: False
        """Whether the poller dies before its checkpoint after this delivery."""
        self.deliver: Callable[[str, Any], Any] = self.invoke
        """How a Kinesis batch is handed over: ``invoke``, or several invocations at once."""
        self.pause: Callable[[Environment], None] = lambda environment: None
        """Called before each step: where a scheduler may let another invocation go on."""
        self._mapping = mapping or Mapping()
        self._skews = skews
        self._made = 0
        self._warm: dict[str, list[Environment]] = {}
        self._retired: list[Environment] = []
        self._stream = _Stream()
        self._ledger_queue = ShardQueue(LEDGER_SETTINGS, backoff=BACKOFF)

    # ---------------------------------------------------------- functions

    def environment(self, function: str) -> Environment:
        """A warm environment that is free, or a new one."""
        for environment in self._warm.setdefault(function, []):
            if not environment.busy and not environment.dead:
                return environment
        skew = self._skews[self._made % len(self._skews)]
        self._made += 1
        fresh = Environment(self, function, skew)
        self._warm[function].append(fresh)
        return fresh

    def environments(self) -> Iterator[Environment]:
        for each in self._warm.values():
            yield from each

    def cool_down(self, function: str) -> None:
        """Lambda takes the warm environments of a function away."""
        for environment in self._warm.get(function, []):
            if not environment.busy:
                environment.kill()

    def invoke(self, function: str, event: Any) -> Answered | FunctionFailed:
        """Invoke a function and say how it ended."""
        return self.invoke_in(self.environment(function), event)

    def invoke_in(self, environment: Environment, event: Any) -> Answered | FunctionFailed:
        """Invoke the function of this environment."""
        function = environment.function
        try:
            return Answered(environment.invoke(HANDLERS[function], event, TIMEOUTS[function]))
        except Killed:
            return FunctionFailed({"errorType": "Runtime.ExitError"})
        except Exception as error:  # noqa: BLE001 - what Lambda's runtime does with whatever a handler raises
            return FunctionFailed({"errorType": type(error).__name__, "errorMessage": str(error)})

    def close(self) -> None:
        """End all environments."""
        for environment in self.environments():
            environment.retire()

    # ----------------------------------------------------------- delivery

    def drain(self) -> None:
        """Deliver until nothing is left to deliver.

        Raises
        ------
        BlockedError
            It does not come to an end.
        """
        while True:
            if self.deliveries > PATIENCE:
                raise BlockedError(f"not drained after {PATIENCE} deliveries")
            if not self.deliver_something():
                wake = self._next_wake()
                if wake is None:
                    return
                self.clock.now = max(self.clock.now, wake)

    def deliver_something(self) -> bool:
        """One delivery of each source that has one due."""
        return any([self._notify(), self._deliver_ledger(), self._deliver_queue(), self.deliver_stream()])

    def _next_wake(self) -> float | None:
        times = [each.due for each in self.notifications]
        times += [message.visible_at for message in self.queue.messages]
        queues = [self._ledger_queue, *self._stream.queues.values()]
        times += [queue.wake_at for queue in queues if queue.wake_at is not None]
        return min(times, default=None)

    def _notify(self) -> bool:
        due = [each for each in self.notifications if each.due <= self.clock.now]
        for notification in due:
            self.deliveries += 1
            outcome = self.invoke("register", notification.event)
            if isinstance(outcome, Answered):
                self.notifications.remove(notification)
            elif notification.attempts < len(ASYNC_PAUSES):
                notification.due = self.clock.now + ASYNC_PAUSES[notification.attempts]
                notification.attempts += 1
            else:
                # It is in the queue of lost notifications, whose alarm rings; somebody sends it again.
                self.parked += 1
                notification.attempts, notification.due = 0, self.clock.now + 3_600
        return bool(due)

    def _deliver_ledger(self) -> bool:
        # All of it, as if the mapping's filter were missing: the code filters as well.
        fresh, self.ledger.stream = self.ledger.stream, []
        self._ledger_queue.feed(
            [
                StreamRecord.of(each["dynamodb"]["SequenceNumber"], "k", self.clock.now, each)
                for each in fresh
            ],
            self.clock.now,
        )
        return self._work_off(self._ledger_queue, "plan", self.invoke)

    def _deliver_queue(self) -> bool:
        visible = [each for each in self.queue.messages if each.visible_at <= self.clock.now]
        for message in visible:
            self.deliveries += 1
            message.receives += 1
            received = self.clock.now
            if message.receives > RECEIVES:
                self.violations.append(
                    f"discarded: chunk job {message.body[:60]} is in the dead-letter queue"
                )
                self.queue.messages.remove(message)
                continue
            message.visible_at = received + VISIBILITY_SECONDS
            outcome = self.invoke("chunks", sqs_event(message.id, message.body))
            if isinstance(outcome, Answered) and not outcome.response["batchItemFailures"]:
                self.queue.messages.remove(message)
        return bool(visible)

    def deliver_stream(self) -> bool:
        """One batch of each shard of the Kinesis stream that has one due."""
        stream = self._stream
        stream.lineage.update(ListedShard(each.id, each.parents, each.closed) for each in self.kinesis.shards)
        for shard_id in stream.lineage.start():
            stream.queues[shard_id] = ShardQueue(self._mapping.settings(), backoff=BACKOFF)
            stream.read[shard_id] = 0
        worked = False
        for shard in self.kinesis.shards:
            queue = stream.queues.get(shard.id)
            if queue is None:
                continue
            fresh = shard.records[stream.read[shard.id] :]
            stream.read[shard.id] += len(fresh)
            queue.feed([stream_record(each) for each in fresh], self.clock.now)
            if shard.closed:
                queue.close()
            worked |= self._work_off(queue, "consumer", self._hand_over)
            if queue.finished:
                stream.lineage.finish(shard.id)
                del stream.queues[shard.id]
                worked = True
        return worked

    def _hand_over(self, function: str, event: Any) -> Answered | FunctionFailed | CheckpointLost:
        self.before_delivery(self.deliveries)
        outcome: Answered | FunctionFailed = self.deliver(function, event)
        if self.after_delivery(self.deliveries) and isinstance(outcome, Answered):
            return CheckpointLost()
        return outcome

    def _work_off(self, queue: ShardQueue, function: str, invoke: Callable[[str, Any], Any]) -> bool:
        work = queue.next_work(self.clock.now)
        match work:
            case Batch():
                self.deliveries += 1
                queue.settle(work, invoke(function, work.event), self.clock.now)
            case Discard():
                self.violations.append(f"discarded: {len(work.batch.records)} records of {function}")
                queue.discarded(work)
        return work is not None

    # ------------------------------------------------------ what is watched

    @contextmanager
    def watch(self, environment: Environment, operation: str, body: dict[str, Any]) -> Iterator[None]:
        """Look at what a request does to other environments' claims.

        Only while all clocks agree: by another clock, a claim may have run out.
        """
        before = dict(self.claims.items)
        yield
        if operation == "BatchWriteItem":
            return
        for key, old in before.items():
            new = self.claims.items.get(key)
            if new is old:
                continue
            owner = old.get("owner", {}).get("S")
            if owner is None:
                if new is None and old["status"]["S"] == "COMPLETED" and key[0].startswith("records#"):
                    self.violations.append("claim rule: a completed record was forgotten")
                continue
            valid = float(old["in_progress_expiration"]["N"]) >= self.clock.now * 1000
            if new is None and owner not in environment.owners:
                self.violations.append("claim rule: a claim was released by somebody else")
            elif new is not None and valid and owner not in environment.owners and not any(self._skews):
                self.violations.append("claim rule: a valid claim was taken over")
        for key, new in self.claims.items.items():
            if before.get(key) is not new and "owner" in new:
                environment.owners.add(new["owner"]["S"])

    def watch_insert(self, environment: Environment, ids: list[str]) -> None:
        """Whoever stores a record holds its claim (as long as all clocks agree)."""
        if any(self._skews):
            return
        for record_id in ids:
            item = self.claims.items.get((claim_key(record_id),), {})
            if item.get("owner", {}).get("S") not in environment.owners:
                self.violations.append(f"claim rule: {record_id} was stored without its claim")

    def sweep(self) -> None:
        """DynamoDB's TTL deletes what has expired."""
        for key, item in list(self.claims.items.items()):
            if float(item["expiration"]["N"]) < self.clock.now:
                del self.claims.items[key]

    # ------------------------------------------------------------- callers

    def upload(self, key: str, data: bytes, *, times: int = 1, **metadata: str) -> None:
        """Put a file into the bucket; S3 notifies ``times`` times."""
        found = self.bucket.objects[key] = Object(data, metadata)
        for _ in range(times):
            self.notifications.append(Notification(s3_event(key, found.etag, len(data)), self.clock.now))

    def post(self, records: list[dict[str, Any]]) -> None:
        """A caller of the producer, who sends again what failed, and any request without an answer."""
        for _ in range(PATIENCE):
            outcome = self.invoke("api", {"records": records})
            if isinstance(outcome, Answered):
                if "error" in outcome.response:
                    raise AssertionError(outcome.response)
                records = [records[fault["index"]] for fault in outcome.response["failed"]]
                if not records:
                    return
            self.clock.now += 5
        raise BlockedError("the producer does not take the records")
