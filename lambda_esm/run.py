"""One mapping at work: finds the shards of its stream and keeps a worker on each that may be read."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from lambda_esm.clients import GoneError, UnavailableError, calling
from lambda_esm.invoke import LambdaInvoker
from lambda_esm.mapping import LATEST, TRIM_HORIZON, EventSourceMapping
from lambda_esm.metrics import MappingMetrics
from lambda_esm.observer import Progress
from lambda_esm.shards import Lineage
from lambda_esm.sources import DynamoDBSource, KinesisSource, StreamSource
from lambda_esm.worker import ShardWorker, Tools

logger = logging.getLogger(__name__)


_CREATED: Final = "(when the streams were made)"
"""What the checkpoints call it. Beside the positions in the shards they hold it for each mapping."""


class MappingRun:
    """Runs one mapping. ``refresh`` is to be called again and again, by one thread."""

    def __init__(self, tools: Tools, mapping: EventSourceMapping) -> None:
        self.mapping = mapping
        self._tools = tools
        self._source: StreamSource | None = None
        self._lineage: Lineage | None = None
        self._workers: dict[str, ShardWorker] = {}
        self._past = Progress()  # of the shards that ended
        self._created: str | None = None
        self._gone: list[ShardWorker] = []
        """Of shards that vanished."""
        self._never_read: list[tuple[str, float]] = []
        """Shards of a stream that was deleted before they could be started, with the time when that was found out."""
        self.metrics = MappingMetrics()
        self._listed_at = 0.0
        self._stream_seen = False
        self._stream_gone = False

    def update(self, mapping: EventSourceMapping) -> None:
        """Go on with what the Lambda API says now."""
        if mapping == self.mapping:
            return
        logger.info("%s: the mapping's settings changed", mapping.function_name)
        self.mapping = mapping
        for worker in self._workers.values():
            worker.update(mapping)

    def refresh(self) -> None:
        """Look for new shards and for shards that ended, and start what may be started.

        A stream that does not exist (yet, or any more) ends the work on it; if it appears, the work starts. A stream
        that was deleted and made again is read from its start.

        Raises
        ------
        UnavailableError
            The stream could not be asked. The workers go on.
        """
        started = time.time()
        if self._source is None:
            self._source = self._make_source()
        try:
            created = self._source.created()
            listed = self._source.shards()
        except GoneError as error:
            if not self._stream_gone:
                state = "is gone" if self._stream_seen else "does not exist yet"
                logger.warning("%s: the stream %s: %s", self.mapping.function_name, state, error)
            self._end(stream_gone=True)
            return
        checkpoints = self._tools.checkpoints
        with self._tools.control.condition:
            if self._lineage is not None and self._is_another(created):
                logger.warning(
                    "%s: the stream was deleted and made again: reading the new one",
                    self.mapping.function_name,
                )
                self._end(stream_gone=True)
            if self._lineage is None:
                self._lineage = self._begin(created)
            for shard_id, worker in list(self._workers.items()):
                if worker.ended:
                    if worker.vanished_at is not None:
                        self._gone.append(worker)
                    self._lineage.finish(shard_id)
                    self._past += worker.progress
                    del self._workers[shard_id]
            for shard_id, position in self._lineage.update(listed).items():
                checkpoints.save(self.mapping.uuid, shard_id, self._source.pin(position, started))
            for shard_id, position in self._lineage.start().items():
                worker = ShardWorker(
                    self._tools, self.mapping, self._source, shard_id, position, metrics=self.metrics
                )
                self._workers[shard_id] = worker
                logger.info("%s: reading %s from %s", self.mapping.function_name, shard_id, position)
                worker.start()
            self._stream_seen, self._stream_gone = True, False
            self._listed_at = started
            self._tools.control.condition.notify_all()

    def stop(self) -> None:
        """End the work on this mapping."""
        self._end(stream_gone=False)

    def lost(self, since: float) -> list[str]:
        """The shards that vanished after ``since`` and may have held records that nobody read."""
        workers = (*self._gone, *self._workers.values())
        return [worker.shard_id for worker in workers if worker.lost(since)] + [
            shard_id for shard_id, found in self._never_read if since <= found
        ]

    def drained(self, since: float) -> bool:
        """Everything that was in the stream at ``since`` is processed. A shard that vanished since, and a stream that
        was deleted since, is not, unless its end was seen in time.
        """
        if self.lost(since):
            return False
        if self._stream_gone:
            return self._stream_seen
        if self._lineage is None or self._listed_at < since or self._lineage.waiting:
            return False
        return all(worker.drained(since) for worker in self._workers.values())

    @property
    def progress(self) -> Progress:
        """How far its shards have come, all together, since it runs."""
        parts = [self._past, *(worker.progress for worker in self._workers.values())]
        return sum(parts, Progress())

    @property
    def needs_refresh(self) -> bool:
        """A shard ended: its children may start."""
        return any(worker.ended for worker in self._workers.values())

    def status(self, now: float) -> dict[str, Any]:
        """The mapping, its metrics and its shards, as ``--status`` and ``--json`` have them."""
        return {
            "UUID": self.mapping.uuid,
            "EventSourceArn": self.mapping.source_arn,
            "FunctionArn": self.mapping.function_arn,
            "LastProcessingResult": self.metrics.last_result,
            "Metrics": self.metrics.as_aws(),
            "Deliveries": self.metrics.deliveries,
            "Bisects": self.metrics.bisects,
            "Retried": self.metrics.retried,
            "Shards": [worker.status(now) for worker in self._workers.values()],
        }

    def _is_another(self, created: str | None) -> bool:
        return None not in (created, self._created) and created != self._created

    def _begin(self, created: str | None) -> Lineage:
        """The shards of a stream that is met for the first time, or again."""
        checkpoints, uuid = self._tools.checkpoints, self.mapping.uuid
        positions = checkpoints.load(uuid)
        self._created = self._created or checkpoints.load(_CREATED).get(uuid)
        start = self.mapping.starting_position
        if self._is_another(created):
            checkpoints.clear(uuid)
            positions = {}
            if start == LATEST:  # nothing on it was there before
                start = TRIM_HORIZON
        if created is not None:
            self._created = created
            checkpoints.save(_CREATED, uuid, created)
        return Lineage(start, positions)

    def _end(self, *, stream_gone: bool) -> None:
        with self._tools.control.condition:
            now = time.time()
            for worker in self._workers.values():
                worker.stop(abandon=stream_gone)
            if stream_gone and self._lineage is not None:
                self._gone += self._workers.values()
                self._never_read += [(shard_id, now) for shard_id in self._lineage.waiting]
            self._workers.clear()
            self._lineage = None
            self._stream_gone = stream_gone
            self._tools.control.condition.notify_all()

    def _make_source(self) -> StreamSource:
        clients, mapping = self._tools.clients, self.mapping
        if mapping.service == "dynamodb":
            return DynamoDBSource(clients.streams, mapping.source_arn)
        return KinesisSource(clients.kinesis, mapping.source_arn, self._role_arn())

    def _role_arn(self) -> str:
        """The function's role, which Lambda reads the stream with and names in each record."""
        try:
            if not isinstance(self._tools.invoker, LambdaInvoker):
                raise GoneError("the function is not one of a Lambda API")
            with calling("Lambda GetFunctionConfiguration"):
                return self._tools.clients.mappings.get_function_configuration(
                    FunctionName=self.mapping.function_name
                )["Role"]
        except (GoneError, UnavailableError):  # ``sam local start-lambda`` knows no configurations
            _, partition, _, _, account, *_ = self.mapping.source_arn.split(":")
            return f"arn:{partition}:iam::{account}:role/{self.mapping.function_name}"
