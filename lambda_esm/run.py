"""One mapping at work: finds the shards of its stream and keeps a worker on each that may be read."""

from __future__ import annotations

import logging
import time

from lambda_esm.clients import GoneError, UnavailableError, calling
from lambda_esm.mapping import EventSourceMapping
from lambda_esm.observer import Progress
from lambda_esm.shards import Lineage
from lambda_esm.sources import DynamoDBSource, KinesisSource, StreamSource
from lambda_esm.worker import ShardWorker, Tools

logger = logging.getLogger(__name__)


class MappingRun:
    """Runs one mapping. ``refresh`` is to be called again and again, by one thread."""

    def __init__(self, tools: Tools, mapping: EventSourceMapping) -> None:
        self.mapping = mapping
        self._tools = tools
        self._source: StreamSource | None = None
        self._lineage: Lineage | None = None
        self._workers: dict[str, ShardWorker] = {}
        self._past = Progress()  # of the shards that ended
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

        A stream that does not exist (yet, or any more) ends the work on it; if it appears, the work starts.

        Raises
        ------
        UnavailableError
            The stream could not be asked. The workers go on.
        """
        started = time.time()
        if self._source is None:
            self._source = self._make_source()
        try:
            listed = self._source.shards()
        except GoneError as error:
            if not self._stream_gone:
                state = "is gone" if self._stream_seen else "does not exist yet"
                logger.warning("%s: the stream %s: %s", self.mapping.function_name, state, error)
            self._end(stream_gone=True)
            return
        checkpoints = self._tools.checkpoints
        with self._tools.control.condition:
            if self._lineage is None:
                self._lineage = Lineage(self.mapping.starting_position, checkpoints.load(self.mapping.uuid))
            for shard_id, worker in list(self._workers.items()):
                if worker.ended:
                    self._lineage.finish(shard_id)
                    self._past += worker.progress
                    del self._workers[shard_id]
            for shard_id, position in self._lineage.update(listed).items():
                checkpoints.save(self.mapping.uuid, shard_id, self._source.pin(position, started))
            for shard_id, position in self._lineage.start().items():
                worker = ShardWorker(self._tools, self.mapping, self._source, shard_id, position)
                self._workers[shard_id] = worker
                logger.info("%s: reading %s from %s", self.mapping.function_name, shard_id, position)
                worker.start()
            self._stream_seen, self._stream_gone = True, False
            self._listed_at = started
            self._tools.control.condition.notify_all()

    def stop(self) -> None:
        """End the work on this mapping."""
        self._end(stream_gone=False)

    def drained(self, since: float) -> bool:
        """Everything that was in the stream at ``since`` is processed, or the stream is gone."""
        if self._stream_gone:
            return self._stream_seen
        if self._lineage is None or self._listed_at < since or self._lineage.pending:
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

    def _end(self, *, stream_gone: bool) -> None:
        with self._tools.control.condition:
            for worker in self._workers.values():
                worker.stop()
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
            with calling("ask for the function's role"):
                return self._tools.clients.mappings.get_function_configuration(
                    FunctionName=self.mapping.function_name
                )["Role"]
        except (GoneError, UnavailableError):  # ``sam local start-lambda`` knows no configurations
            _, partition, _, _, account, *_ = self.mapping.source_arn.split(":")
            return f"arn:{partition}:iam::{account}:role/{self.mapping.function_name}"
