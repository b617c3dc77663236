"""The poller: runs the event source mappings of functions until it is stopped."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from lambda_esm.checkpoints import CheckpointStore, MemoryCheckpoints
from lambda_esm.clients import Clients, GoneError, UnavailableError, calling
from lambda_esm.control import Control
from lambda_esm.filters import InvalidPatternError
from lambda_esm.invoke import Invoker, LambdaInvoker
from lambda_esm.mapping import Backoff, EventSourceMapping, InvalidMappingError, is_stream
from lambda_esm.metrics import MappingMetrics, Totals
from lambda_esm.observer import Observer, Progress, Redeliver, never
from lambda_esm.run import MappingRun
from lambda_esm.worker import Tools

logger = logging.getLogger(__name__)

_STOP_SECONDS = 10.0
"""How long leaving a ``with`` block waits for what is in flight."""


_TAKEN = "(the endpoint's own pollers that were switched off)"
"""What the checkpoints call them."""


def _unique(mappings: Iterable[EventSourceMapping]) -> dict[str, EventSourceMapping]:
    found: dict[str, EventSourceMapping] = {}
    for mapping in mappings:
        if mapping.uuid in found:
            raise InvalidMappingError(
                f"{mapping.source_arn} and {mapping.function_name} are mapped twice: leave one of the two out"
            )
        found[mapping.uuid] = mapping
    return found


class StreamPoller:
    """Polls the streams of event source mappings and invokes their functions, until it is stopped.

    Parameters
    ----------
    clients
        Where everything is.
    functions
        Names of the functions whose mappings to run; none: those of all functions.
    mappings
        Mappings to run that no Lambda API knows, in the form of its answers: ``{"EventSourceArn",
        "FunctionName", "StartingPosition", "BatchSize", ...}``. With these given and no ``functions``, the
        API is not asked.
    invoker
        What delivers the batches; by default the Lambda API of ``clients``.
    invoke_as
        Functions that are invoked under another name: ``{"deployed name": "name at the Lambda endpoint"}``.
    checkpoints
        Where positions are kept; by default for as long as the poller lives.
    observer
        Is told of deliveries, checkpoints and discards.
    redeliver
        Decides after a success whether the checkpoint was "lost" and the batch comes again.
    backoff
        The pace of retries.
    poll_seconds
        The wait before a shard is read again when it held nothing new. Lambda's is a second (a quarter of
        one for DynamoDB).
    refresh_seconds
        How often settings and shards are looked up.
    take_over
        Run the mappings of the Lambda API that are Disabled as well, and leave the endpoint's own pollers off at the
        end. Otherwise a Disabled mapping is not polled, and what was Enabled is so again at the end.

    Raises
    ------
    InvalidMappingError, InvalidPatternError
        One of ``mappings`` cannot be run, or is there twice.
    """

    def __init__(
        self,
        clients: Clients,
        *,
        functions: Sequence[str] = (),
        mappings: Iterable[Mapping[str, Any]] = (),
        invoker: Invoker | None = None,
        invoke_as: Mapping[str, str] | None = None,
        checkpoints: CheckpointStore | None = None,
        observer: Observer | None = None,
        redeliver: Redeliver = never,
        backoff: Backoff | None = None,
        poll_seconds: float = 0.2,
        refresh_seconds: float = 1.0,
        take_over: bool = False,
    ) -> None:
        self._control = Control()
        self._condition = self._control.condition
        self._clients = clients
        self._functions = tuple(functions)
        self._given = _unique(map(EventSourceMapping.from_configuration, mappings))
        self._take_over = take_over
        self._checkpoints = checkpoints or MemoryCheckpoints()
        self._taken = set(self._checkpoints.load(_TAKEN))
        self._asks = bool(functions) or not self._given
        self._refresh_seconds = refresh_seconds
        self._runs: dict[str, MappingRun] = {}
        self._past: list[MappingMetrics] = []
        self._refused: dict[str, str] = {}
        self._lonely = False
        self._tools = Tools(
            control=self._control,
            clients=clients,
            invoker=invoker or LambdaInvoker(clients.functions, invoke_as),
            checkpoints=self._checkpoints,
            observer=observer or Observer(),
            redeliver=redeliver,
            backoff=backoff or Backoff(),
            poll_seconds=poll_seconds,
        )

    # ---------------------------------------------------------------- life

    def start(self) -> None:
        """Start polling. Returns at once."""
        self._control.spawn("event source mappings", self._supervise)

    def stop(self) -> None:
        """Ask everything to end. What is in flight is brought home and checkpointed."""
        self._control.stop()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until everything ended, and put the endpoint's own pollers back; ``False`` if something (a long
        invocation) did not end in time.

        Raises
        ------
        RuntimeError
            The poller stopped because of a defect in it, or in an observer; the cause is attached.
        """
        ended = self._control.join(timeout)
        self._put_back()
        self._raise_crash()
        return ended

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if not self.join(_STOP_SECONDS):
            logger.warning("an invocation is still running; its batch will be delivered again")

    # ------------------------------------------------------------ watching

    @property
    def mappings(self) -> list[EventSourceMapping]:
        """The mappings that are being run."""
        with self._condition:
            return [run.mapping for run in self._runs.values()]

    def progress(self) -> dict[str, Progress]:
        """How far each function's mappings have come since this poller runs them, all together."""
        found: dict[str, Progress] = {}
        with self._condition:
            for run in self._runs.values():
                name = run.mapping.function_name
                found[name] = found.get(name, Progress()) + run.progress
        return found

    @property
    def totals(self) -> Totals:
        """What became of the records since the start."""
        with self._condition:
            of = [run.metrics for run in self._runs.values()] + self._past
            return Totals(
                delivered=sum(each.delivered for each in of),
                retried=sum(each.retried for each in of),
                discarded=sum(each.discarded for each in of),
                filtered=sum(each.filtered for each in of),
            )

    def status(self) -> list[dict[str, Any]]:
        """Each mapping with its metrics and shards, JSON-ready."""
        now = time.time()
        with self._condition:
            return [run.status(now) for run in self._runs.values()]

    def lost(self, since: float = 0.0) -> list[str]:
        """The shards that vanished after ``since`` (epoch seconds) with records that may never have been read."""
        with self._condition:
            return [shard_id for run in self._runs.values() for shard_id in run.lost(since)]

    def drained(self, since: float = 0.0) -> bool:
        """Whether everything that was in the streams at ``since`` (epoch seconds) is processed.

        That takes a look at every shard after ``since``; without it, the answer is as of the last look at
        each. ``False`` while no mapping is known, and for ever if a shard vanished (see ``lost``).
        """
        with self._condition:
            return bool(self._runs) and all(run.drained(since) for run in self._runs.values())

    def wait_for(self, predicate: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait, without polling, until ``predicate`` holds. It is looked at whenever the poller's state
        changes.

        An observer's state may be part of it: ``on_delivery`` is called before the change that it announces.

        Raises
        ------
        RuntimeError
            As ``join``.
        """
        with self._condition:
            self._condition.wait_for(lambda: self._control.crash is not None or predicate(), timeout)
            self._raise_crash()
            return predicate()

    def wait_until_drained(self, timeout: float | None = None) -> bool:
        """Wait until everything that is in the streams now is processed; ``False`` if that took too long."""
        since = time.time()
        return self.wait_for(lambda: self.drained(since), timeout)

    # ------------------------------------------------------------- private

    def _raise_crash(self) -> None:
        if self._control.crash is not None:
            raise RuntimeError("the poller stopped because of a defect") from self._control.crash

    def _supervise(self) -> None:
        while not self._control.stopping:
            early = self._is_wanted if self._refresh() else self._is_stopping  # after a failure: not at once
            with self._condition:
                self._condition.wait_for(early, self._refresh_seconds)

    def _is_stopping(self) -> bool:
        return self._control.stopping

    def _is_wanted(self) -> bool:
        return self._control.stopping or any(run.needs_refresh for run in self._runs.values())

    def _refresh(self) -> bool:
        """Look up mappings and shards; ``False`` if something could not be looked up now."""
        complete = True
        try:
            self._adopt(self._given | (self._ask() if self._asks else {}))
        except UnavailableError as error:
            complete = False
            logger.warning("%s", error)
        if not self._runs and not self._lonely:
            logger.info("no stream mappings yet")
        self._lonely = not self._runs
        for run in self._runs.values():
            try:
                run.refresh()
            except UnavailableError as error:
                complete = False
                logger.warning("%s: %s", run.mapping.function_name, error)
        return complete

    def _adopt(self, mappings: Mapping[str, EventSourceMapping]) -> None:
        with self._condition:
            for uuid in self._runs.keys() - mappings.keys():
                run = self._runs.pop(uuid)
                self._past.append(run.metrics)
                logger.info("%s: the mapping was deleted", run.mapping.function_name)
                run.stop()
            for uuid, mapping in mappings.items():
                if uuid in self._runs:
                    self._runs[uuid].update(mapping)
                else:
                    self._runs[uuid] = MappingRun(self._tools, mapping)
            self._condition.notify_all()

    def _ask(self) -> dict[str, EventSourceMapping]:
        """The stream mappings that the Lambda API knows, each with the endpoint's own poller off."""
        found = {}
        for configuration in self._list():
            uuid = configuration["UUID"]
            try:
                mapping = EventSourceMapping.from_configuration(configuration)
                if not str(configuration.get("State", "")).startswith("Disabl"):
                    # Noted first: whoever dies in between has to know the next time that it was Enabled.
                    self._checkpoints.save(_TAKEN, uuid, "Enabled")
                    self._taken.add(uuid)
                    with calling("Lambda UpdateEventSourceMapping (to disable the endpoint's own poller)"):
                        self._clients.mappings.update_event_source_mapping(UUID=uuid, Enabled=False)
                elif uuid not in self._taken and not self._take_over:
                    raise InvalidMappingError(
                        f"of {mapping.function_name} is Disabled. Enable it "
                        f"(aws lambda update-event-source-mapping --uuid {uuid} --enabled), or use --take-over"
                    )
            except (InvalidMappingError, InvalidPatternError) as error:
                if self._refused.get(uuid) != str(error):  # said once, not every second
                    self._refused[uuid] = str(error)
                    logger.error("not running mapping %s: %s", uuid, error)
            except GoneError:  # deleted since it was listed
                pass
            else:
                found[uuid] = mapping
        return found

    def _put_back(self) -> None:
        """Leave the endpoint's own pollers as they were found."""
        if self._take_over:
            return
        for uuid in sorted(self._taken):
            try:
                with calling("Lambda UpdateEventSourceMapping (to enable the endpoint's own poller again)"):
                    self._clients.mappings.update_event_source_mapping(UUID=uuid, Enabled=True)
            except GoneError:
                pass
            except UnavailableError as error:
                logger.error(
                    "mapping %s stays Disabled: %s. Enable it when the endpoint answers again", uuid, error
                )
        self._taken.clear()
        self._checkpoints.clear(_TAKEN)

    def _list(self) -> list[Mapping[str, Any]]:
        found: list[Mapping[str, Any]] = []
        pages = self._clients.mappings.get_paginator("list_event_source_mappings")
        requests: list[dict[str, Any]] = [{"FunctionName": name} for name in self._functions] or [{}]
        for request in requests:
            try:
                with calling("Lambda ListEventSourceMappings"):
                    for page in pages.paginate(**request):
                        found += page["EventSourceMappings"]
            except GoneError:  # the function does not exist (yet)
                pass
        return [each for each in found if is_stream(each.get("EventSourceArn", ""))]
