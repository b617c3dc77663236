"""One run: the stack is set up and loaded, wave by wave, while the plan's faults happen; then the account is taken."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from chaos import account, faults, inputs, wire
from chaos.caller import Caller
from chaos.journal import Journal, Sample
from chaos.outcome import ChaosOutcome, WaveTimes
from chaos.plan import Plan, PlannedFault, Wave
from chaos.proxy import Proxy
from chaos.repeats import Uploaded
from chaos.watch import Deliveries, Watch, redeliver
from cli import uploading
from cli.errors import UserError
from cli.reports import CLOSED, Reports
from cli.target import Target
from lambda_esm import Clients, StreamPoller
from local.errors import StackError
from local.machine import REPOSITORY
from local.metrics import totals
from local.records import flights
from local.stack import Progress, Stack

DIRECTORY = REPOSITORY / ".local" / "chaos"
REDELIVERED = 0.15
"""The share of the batches that are delivered again after a success."""
PARAMETERS = {
    "ChunkBytes": 512 * 1024,  # some 1,300 lines: many chunk jobs, so that a kill meets one of many
    "ChunkConcurrency": 4,  # ten cold starts at once take longer here than a job may
}

# A process that is killed leaves claims that are valid for as long as its invocation might have taken, and a job that
# comes back after the visibility timeout. With the template's timeouts (120, 300 and 330 s) a run would mostly wait.
CONSUMER_SECONDS = 15
CHUNKS_SECONDS = 15
CHUNKS_RESERVE_MILLISECONDS = 5_000
VISIBILITY_SECONDS = 16

FUNCTIONS = ("producer", "consumer", "register", "plan", "chunks")
REPORT_ATTEMPTS = 5


class NotDrainedError(Exception):
    """A wave was not settled in time. The account is taken all the same, and says what is missing."""


class Run:
    """A run of a plan; used once, as a context that ends all that it has started.

    Parameters
    ----------
    limit
        Seconds that a wave may take.
    progress
        Told the steps of the setup.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        directory: Path = DIRECTORY,
        limit: float = 600.0,
        progress: Progress = lambda step, seconds: None,
    ) -> None:
        self.outcome = ChaosOutcome(plan, Journal())
        self.on_sample: Callable[[Sample, str], None] = lambda sample, state: None
        self._plan = plan
        self._directory = directory
        self._limit = limit
        self._draw = random.Random(f"{plan.seed}:reshard")  # noqa: S311 - chance that can be repeated
        self._stack = Stack(directory, parameters=PARAMETERS, progress=progress)
        self._expected = inputs.Expected()
        self._uploaded: list[Uploaded] = []
        self._errors: list[BaseException] = []  # of the threads of a wave
        self._redelivered = 0.0
        self._state = "setting up"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.stop()

    def run(self) -> ChaosOutcome:
        """Set up, load, break, take the account.

        Raises
        ------
        StackError
            The stack, or the proxy, could not be set up or ended by itself.
        """
        outcome, stack = self.outcome, self._stack
        stack.deploy()
        deliveries = Deliveries(stack.outputs["ConsumerFunctionName"])
        watch = Watch(stack.postgres.connect, outcome.journal, deliveries)
        outcome.samples = watch.samples
        watch.on_sample = lambda sample: self.on_sample(sample, self._state)
        proxy = Proxy(self._directory / "proxy", stack.ministack.port, self._plan.seed)
        with proxy:
            self._point_functions_at(proxy.endpoint)
            # A generator of its own: how often it is asked depends on the machine, and the reshards must not.
            draw = random.Random(f"{self._plan.seed}:redeliver")  # noqa: S311 - as above
            again = redeliver(draw, lambda: self._redelivered, outcome.journal)
            clients = Clients(
                stack.ministack.endpoint
            )  # the poller is AWS's part: it does not go through the proxy
            with (
                StreamPoller(clients, observer=deliveries, redeliver=again, take_over=True) as poller,
                watch.running(),
            ):
                outcome.journal.begin()
                try:
                    self._load(proxy, watch, poller)
                except NotDrainedError as error:
                    outcome.problem = str(error)
                outcome.seconds = outcome.journal.now
                proxy.set_rates(wire.CALM)
        outcome.requests = outcome.journal.note_wire(proxy.entries())
        outcome.delivered, outcome.batches = deliveries.records, deliveries.batches
        outcome.batches_failed = deliveries.partly_failed + deliveries.crashed + deliveries.not_invoked
        self._close(deliveries)
        return outcome

    # ------------------------------------------------------------- set up

    def _point_functions_at(self, endpoint: str) -> None:
        """Let every function reach AWS through the proxy, and shorten the timeouts."""
        client = self._stack.client("lambda")
        changes: dict[str, dict[str, Any]] = {
            "consumer": {"Timeout": CONSUMER_SECONDS},
            "chunks": {"Timeout": CHUNKS_SECONDS},
        }
        more = {"chunks": {"RESERVE_MILLISECONDS": str(CHUNKS_RESERVE_MILLISECONDS)}}
        for function, name in self._names.items():
            known = client.get_function_configuration(FunctionName=name)["Environment"]["Variables"]
            variables = known | {"AWS_ENDPOINT_URL": endpoint} | more.get(function, {})
            client.update_function_configuration(
                FunctionName=name, Environment={"Variables": variables}, **changes.get(function, {})
            )
        self._stack.client("sqs").set_queue_attributes(
            QueueUrl=self._stack.outputs["ChunkQueueUrl"],
            Attributes={"VisibilityTimeout": str(VISIBILITY_SECONDS)},
        )

    @property
    def _names(self) -> dict[str, str]:
        return {name: self._stack.outputs[f"{name.capitalize()}FunctionName"] for name in FUNCTIONS}

    # --------------------------------------------------------------- load

    def _load(self, proxy: Proxy, watch: Watch, poller: StreamPoller) -> None:
        source, start, settled = flights(), 0, 0
        breaker = faults.Breaker(
            self._stack,
            self._names,
            self.outcome.journal,
            random.Random(f"{self._plan.seed}:breaker"),  # noqa: S311 - as above
        )
        for wave in self._plan.waves:
            sent = inputs.write(wave, self._directory, source, start)
            proxy.set_rates(wire.STORM if wave.faults else wire.CALM)
            self._redelivered = REDELIVERED if wave.faults else 0.0
            times = WaveTimes(wave.number, wave.records, not wave.faults, self.outcome.journal.now)
            self.outcome.waves.append(times)
            with self._meanwhile(wave, sent, watch, breaker, settled):
                settled += wave.records + wave.poison
                self._wait(proxy, watch, settled)
                times.settled = self.outcome.journal.now
            self._drain(wave, poller)
            times.drained = self.outcome.journal.now
            if wave.reshard:
                self._state = "resharding"
                done = faults.reshard(
                    self._stack.client("kinesis"),
                    self._stack.outputs["RecordStreamName"],
                    wave.reshard,
                    self._draw,
                )
                self.outcome.journal.note("resharded", done)
            start += wave.records

    @contextlib.contextmanager
    def _meanwhile(
        self, wave: Wave, sent: inputs.WaveInput, watch: Watch, breaker: faults.Breaker, before: int
    ) -> Iterator[None]:
        """Send a wave and break things; the block waits until the wave is settled."""
        errors = self._errors
        all_of_it = wave.records + wave.poison
        ending = breaker.ending

        def due(share: float) -> Callable[[], bool]:
            return lambda: ending.is_set() or bool(errors) or watch.settled - before >= share * all_of_it

        def break_things() -> None:
            for fault in wave.faults:
                watch.wait(due(fault.at))
                if ending.is_set() or errors:
                    return
                self._state = f"wave {wave.number + 1} of {len(self._plan.waves)}: {_in_words(fault)}"
                breaker.carry_out(fault, self._uploaded)

        def call() -> None:
            client, name = self._stack.client("lambda"), self._names["producer"]
            caller = Caller(client, name, watch.sent, ending)
            for record in sent.api:
                self._expected.expect(record["id"], record["payload"])
            # Spread over the wave: so that faults at any time meet it.
            caller.send(sent.api, lambda share: watch.wait(due(share * 0.7)))
            self.outcome.sent_again += caller.sent_again

        def guarded(work: Callable[[], None]) -> Callable[[], None]:
            def run() -> None:
                try:
                    work()
                except BaseException as error:  # noqa: BLE001 - a thread's error is raised where it is waited for
                    errors.append(error)

            return run

        self._state = f"wave {wave.number + 1} of {len(self._plan.waves)}{'' if wave.faults else ', calm'}"
        threads = [threading.Thread(target=guarded(work), daemon=True) for work in (break_things, call)]
        for thread in threads:
            thread.start()
        try:
            self._send(sent, watch)
            yield
        except BaseException:
            ending.set()
            raise
        finally:
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]

    def _send(self, sent: inputs.WaveInput, watch: Watch) -> None:
        target = self._target
        for file in sent.files:
            upload = uploading.put(target, file.path, options=uploading.Options(id_field=file.id_field))
            file.expect_in(self._expected, upload)
            self._uploaded.append(Uploaded(file.path.name, upload))
            watch.sent(file.records)
        kinesis = self._stack.client("kinesis")
        for raw in sent.garbage:
            kinesis.put_record(
                StreamName=self._stack.outputs["RecordStreamName"], Data=raw, PartitionKey=raw.decode()
            )
            self._expected.rejected[raw] += 1
            watch.sent(1)

    def _wait(self, proxy: Proxy, watch: Watch, settled: int) -> None:
        give_up = time.monotonic() + self._limit
        while not watch.wait(lambda: watch.settled >= settled or bool(self._errors), 5.0):
            proxy.require_running()
            if not self._stack.ministack.is_running:
                raise StackError(f"MiniStack ended by itself. Its log: {self._stack.ministack.log}")
            if time.monotonic() > give_up:
                raise NotDrainedError(
                    f"after {self._limit:.0f} s, {settled - watch.settled:,} records of {settled:,} were not settled"
                )

    def _drain(self, wave: Wave, poller: StreamPoller) -> None:
        """Wait until no chunk job and no batch is on the way: nobody writes to the stream any more."""
        self._state = f"wave {wave.number + 1} of {len(self._plan.waves)}: settled, draining"
        give_up = time.monotonic() + self._limit
        while self._jobs():
            if time.monotonic() > give_up:
                raise NotDrainedError(f"after {self._limit:.0f} s, chunk jobs were still on the queue")
            time.sleep(0.5)
        if not poller.wait_until_drained(self._limit):
            raise NotDrainedError(f"after {self._limit:.0f} s, the streams were not drained")

    def _jobs(self) -> int:
        return sum(self._depth("ChunkQueueUrl"))

    def _depth(self, output: str) -> list[int]:
        names = ("ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible")
        found = self._stack.client("sqs").get_queue_attributes(
            QueueUrl=self._stack.outputs[output], AttributeNames=list(names)
        )["Attributes"]
        return [int(found.get(name, 0)) for name in names]

    # -------------------------------------------------------------- close

    def _close(self, deliveries: Deliveries) -> None:
        """Take the account, and look for what was given up."""
        self._state = "taking the account"
        outcome, stack = self.outcome, self._stack
        if not stack.postgres.is_running:  # interrupted while it was away
            stack.postgres.start()
        connection = stack.postgres.connect()
        try:
            outcome.account = account.take(connection, self._expected)
        finally:
            connection.close()
        consumer = totals(stack.client("logs"), "consumer")
        outcome.duplicates_skipped = consumer["DuplicatesSkipped"]
        bucket = stack.client("s3").list_objects_v2(Bucket=stack.outputs["DiscardedBatchesBucket"])
        outcome.left = {
            "discarded_batches": deliveries.discarded + bucket.get("KeyCount", 0),
            "dead_letters": sum(self._depth("ChunkDeadLetterQueueUrl")),
            "lost_notifications": sum(self._depth("LostNotificationsQueueUrl")),
            "uploads_not_done": self._uploads_not_done(),
        }

    def _uploads_not_done(self) -> int:
        """By the stack's own account: asked as ``once status`` asks it."""
        reports = Reports(self._target)
        return sum(not _is_done(reports, uploaded.upload) for uploaded in self._uploaded)

    @property
    def _target(self) -> Target:
        return Target("of the chaos", self._stack.outputs, self._stack.client)


def _is_done(reports: Reports, upload: str) -> bool:
    for _ in range(REPORT_ATTEMPTS):
        try:
            found = reports.account(upload)
        except UserError:  # its connection to Postgres was ended before it asked
            continue
        return found is not None and found["state"] == CLOSED and found["missing"] == 0
    return False


def _in_words(fault: PlannedFault) -> str:
    return {
        "kill": f"killing {fault.target}",
        "postgres": "Postgres is stopped",
        "sessions": "ending Postgres' sessions",
        "notification": "repeating a notification",
        "jobs": "repeating chunk jobs",
    }[fault.kind]
