"""A small cloud in memory with a real Postgres: its functions are the product's handlers.

Deliveries follow the documented rules of S3 (asynchronous invocation: two more attempts), SQS (visibility
timeout) and the event source mappings (lambda_esm, which is what the local stack uses too).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import consumer.handler
import producer.api
import uploads.chunks
import uploads.plan
import uploads.register
from lambda_esm import (
    Answered,
    Backoff,
    Batch,
    CheckpointLost,
    Discard,
    FunctionFailed,
    Lineage,
    MappingSettings,
    ShardQueue,
    StreamRecord,
)
from lambda_esm import Shard as ListedShard
from oncestream.processor import SLICE_RECORDS
from tests.faults.environment import Environment
from tests.faults.events import Via, post_event, s3_event, sqs_event, stream_record
from tests.faults.faults import Killed, Plan
from tests.faults.links import PATIENT_SECONDS, Links, Way
from tests.faults.postgres import TestDatabase
from tests.faults.rules import ClaimRules
from tests.faults.services import Bucket, Kinesis, LedgerTable, Object, Queue
from tests.faults.turns import Turns
from tests.unit.fake_dynamodb import Clock, FakeDynamoDB

HANDLERS: dict[str, Callable[[Any, Any], Any]] = {
    "api": producer.api.handler,
    "register": uploads.register.handler,
    "plan": uploads.plan.handler,
    "chunks": uploads.chunks.handler,
    "consumer": consumer.handler.handler,
}
TIMEOUTS = {"api": 60.0, "register": 60.0, "plan": 900.0, "chunks": 300.0, "consumer": 120.0}
"""Seconds, as in template.yaml."""
HTTP_SECONDS = 30.0
"""docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html"""
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
    links
        Ways to AWS, shared with other worlds of the process.
    database
        The Postgres that the functions use.
    plan
        The faults.
    skews
        How far the clocks of the environments are ahead, in seconds, in the order of their making (again from
        the first).
    slice_records
        How many records the consumer claims, stores and completes together.
    way
        How requests get to AWS.
    patience
        Over sockets: how many seconds a client really waits for an answer.
    order
        Of several requests in flight, which is answered first: a seed.
    """

    def __init__(
        self,
        links: Links,
        database: TestDatabase,
        plan: Plan | None = None,
        *,
        shards: int = 1,
        mapping: Mapping | None = None,
        skews: tuple[float, ...] = (0.0,),
        slice_records: int = SLICE_RECORDS,
        way: Way = "memory",
        patience: float = PATIENT_SECONDS,
        order: int = 0,
    ) -> None:
        self.links = links
        self.way = way
        self.patience = patience
        self.order = order
        self.database = database
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
        self.rules = ClaimRules(self.claims, self.clock, self.violations, clocks_agree=not any(skews))
        self.told: set[str] = set()
        """Records that the producer has rejected, as their callers wrote them."""
        self.parked = 0
        """Notifications that went to the queue of lost ones, and were sent again from there."""
        self.deliveries = 0
        self.before_delivery: Callable[[int], None] = lambda number: None
        """Called before each delivery of a Kinesis batch, with its number."""
        self.after_delivery: Callable[[int], bool] = lambda number: False
        """Whether the poller dies before its checkpoint after this delivery."""
        self.deliver: Callable[[str, Any], Any] = self.invoke
        """How a Kinesis batch is handed over: ``invoke``, or several invocations at once."""
        self.turns: Turns | None = None
        """Only while several invocations are at work at once."""
        self.slice_records = slice_records
        self._mapping = mapping or Mapping()
        self._skews = skews
        self._made = 0
        self._warm: dict[str, list[Environment]] = {}
        self._retired: list[Environment] = []
        self._stream = _Stream()
        self._overdue: list[tuple[int, Callable[[], None]]] = []
        """What happens when so many calls have been made."""
        self._ledger_queue = ShardQueue(LEDGER_SETTINGS, backoff=BACKOFF)
        self.sources: dict[str, Callable[[], bool]] = {
            "register": self._notify,
            "plan": self._deliver_ledger,
            "chunks": self._deliver_queue,
            "consumer": self._deliver_stream,
        }
        """By function: one delivery of what is due to it. Whether there was something."""

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
        owners, steps = set(environment.owners), len(self.plan.steps)
        try:
            answer = environment.invoke(HANDLERS[function], event, TIMEOUTS[function])
            if self.turns is None and function == "consumer":
                own = environment.owners - owners - environment.late_owners
                self.rules.ended(own, self.plan.steps[steps:])
            return Answered(answer)
        except Killed:
            return FunctionFailed({"errorType": "Runtime.ExitError"})
        except (AttributeError, NameError, TypeError):
            raise  # no fault leads to these: the harness, or a mutant, does not fit the product any more
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
                wake = self.next_wake()
                if wake is not None:
                    self.clock.now = max(self.clock.now, wake)
                elif not self.let_arrive(everything=True):
                    return

    def postpone(self, environment: Environment, happen: Callable[[], None]) -> None:
        """What the environment has asked for and given up happens later: one to seven calls from now."""
        calls = len(self.plan.steps)

        def arrive() -> None:
            known = set(environment.owners)
            with self.rules.arriving_late():
                happen()
            environment.late_owners |= environment.owners - known

        self._overdue.append((calls + 1 + calls * 5 % 7, arrive))

    def let_arrive(self, *, everything: bool = False) -> bool:
        """Let happen what is due of it, or all of it. Whether there was something."""
        calls = len(self.plan.steps)
        due = [each for each in self._overdue if everything or each[0] <= calls]
        self._overdue = [each for each in self._overdue if each not in due]
        for _, arrive in due:
            arrive()
        return bool(due)

    def deliver_something(self) -> bool:
        """One delivery of each source that has one due."""
        return sum(deliver() for deliver in self.sources.values()) > 0

    def pending(self, function: str) -> bool:
        """Whether something is left to deliver to it, now or later."""
        match function:
            case "register":
                return bool(self.notifications)
            case "plan":
                return bool(self.ledger.stream) or not self._ledger_queue.idle
            case "chunks":
                return bool(self.queue.messages)
        stream = self._stream
        unread = (len(each.records) > stream.read.get(each.id, 0) for each in self.kinesis.shards)
        return any(unread) or any(not queue.idle for queue in stream.queues.values())

    def next_wake(self) -> float | None:
        """When something will be due that is not due now. None: never."""
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

    def _deliver_stream(self) -> bool:
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

    def sweep(self) -> None:
        """DynamoDB's TTL deletes what has expired."""
        for key, item in list(self.claims.items.items()):
            if float(item["expiration"]["N"]) < self.clock.now:
                del self.claims.items[key]

    def skew(self, function: str, seconds: float) -> None:
        """The clock of a warm environment is this far ahead from now on."""
        self.environment(function).skew = seconds
        self.rules.clocks_agree = False

    # ------------------------------------------------------------- callers

    def upload(self, key: str, data: bytes, *, times: int = 1, **metadata: str) -> None:
        """Put a file into the bucket; S3 notifies ``times`` times."""
        self.bucket.objects[key] = Object(data, metadata)
        for _ in range(times):
            self.notify(key)

    def notify(self, key: str) -> None:
        """S3 notifies of a file that is there."""
        found = self.bucket.objects[key]
        self.notifications.append(Notification(s3_event(key, found.etag, len(found.data)), self.clock.now))

    def post(self, records: list[str], via: Via = "direct") -> None:
        """A caller of the producer, who sends again what failed, and any request without an answer.

        What is rejected is ``told``.
        """
        for _ in range(PATIENCE):
            answer = self._ask(post_event(records, via))
            if answer is not None:
                if "error" in answer:
                    raise AssertionError(answer)
                self.told.update(records[fault["index"]] for fault in answer["rejected"])
                records = [records[fault["index"]] for fault in answer["failed"]]
                if not records:
                    return
            self.clock.now += 5
        raise BlockedError("the producer does not take the records")

    def _ask(self, event: dict[str, Any]) -> dict[str, Any] | None:
        """What the caller of the producer gets to see, if anything."""
        began = self.clock.now
        outcome = self.invoke("api", event)
        if not isinstance(outcome, Answered):
            return None
        if "rawPath" not in event:
            answer: dict[str, Any] = outcome.response
            return answer
        if self.clock.now - began > HTTP_SECONDS:
            return None  # the caller got a 503 of API Gateway's own
        answer = json.loads(outcome.response["body"])
        status = outcome.response["statusCode"]
        if (status == 503) != bool(answer["failed"]):
            self.violations.append(f"status {status} for {answer}")
        return answer
