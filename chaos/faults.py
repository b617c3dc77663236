"""Breaking the parts of the stack, as the plan says."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import psutil
from botocore.exceptions import BotoCoreError, ClientError
from pg8000.exceptions import DatabaseError, InterfaceError

from chaos import repeats
from chaos.journal import Journal
from chaos.plan import PlannedFault
from common.errors import TransientError
from local.machine import failure

if TYPE_CHECKING:
    from chaos.repeats import Uploaded
    from local.stack import Stack

WORKER = "_worker.py"  # the program that MiniStack runs for each execution environment of a Python function
BUSY_SECONDS = 5.0
"""How long a kill waits for the function to be at work."""
_LOOK_SECONDS = 0.02

_END_SESSIONS = (
    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)


class Breaker:
    """Carries out the faults of a plan, one after the other.

    Parameters
    ----------
    functions
        The deployed name of each function that the plan speaks of.
    """

    def __init__(
        self, stack: Stack, functions: Mapping[str, str], journal: Journal, draw: random.Random
    ) -> None:
        self._stack = stack
        self._functions = functions
        self._journal = journal
        self._draw = draw
        self.ending = threading.Event()

    def carry_out(self, fault: PlannedFault, uploads: list[Uploaded]) -> None:
        """Do it. ``uploads`` are those whose notifications and jobs may be repeated."""
        match fault.kind:
            case "kill":
                self._kill(fault.target)
            case "postgres":
                self._stop_postgres(fault.target, fault.seconds)
            case "sessions":
                self._end_sessions()
            case "notification" if uploads:
                upload = self._draw.choice(uploads)
                self._repeat("notification_repeated", upload, repeats.notify)
            case "jobs" if uploads:
                upload = self._draw.choice(uploads)
                self._repeat("jobs_repeated", upload, repeats.queue_jobs)

    def _kill(self, function: str) -> None:
        """SIGKILL a process of the function: one that is at work, if one is within ``BUSY_SECONDS``."""
        name = self._functions[function]
        give_up = time.monotonic() + BUSY_SECONDS
        before: dict[int, float] = {}
        while True:
            workers = _workers(self._stack.ministack.pid, name)
            now = {worker.pid: _cpu_seconds(worker) for worker in workers}
            busy = [worker for worker in workers if now[worker.pid] > before.get(worker.pid, now[worker.pid])]
            if busy or time.monotonic() > give_up or self.ending.wait(_LOOK_SECONDS):
                break
            before = now
        victims = busy or workers
        if not victims:
            return  # it has no process: there is nothing to kill
        victim = self._draw.choice(victims)
        try:
            victim.kill()
        except psutil.NoSuchProcess:
            return
        self._journal.note("killed", f"{function} (process {victim.pid}, {'at work' if busy else 'idle'})")

    def _stop_postgres(self, mode: str, seconds: float) -> None:
        postgres, began = self._stack.postgres, self._journal.now
        postgres.stop("immediate" if mode == "immediate" else "fast")
        self.ending.wait(seconds)
        if self.ending.is_set():
            return
        postgres.start()
        lasted = self._journal.now - began
        kind = "crashed" if mode == "immediate" else "restarted"
        self._journal.note(kind, f"Postgres away for {lasted:.1f} s", at=began, lasted=lasted)

    def _end_sessions(self) -> None:
        try:
            connection = self._stack.postgres.connect(user="postgres")
            try:
                (ended,) = connection.run(_END_SESSIONS)[0]
            finally:
                connection.close()
        except (OSError, DatabaseError, InterfaceError) as error:
            raise failure(f"Postgres did not come back ({error}).", self._stack.postgres.log) from error
        self._journal.note("sessions_ended", f"{ended} sessions")

    def _repeat(self, kind: str, upload: Uploaded, repeat: Callable[[Stack, Uploaded], int]) -> None:
        try:
            count = repeat(self._stack, upload)
        except (BotoCoreError, ClientError, TransientError):
            return  # MiniStack was too busy to take it: nothing was repeated
        if count:
            self._journal.note(kind, f"{upload.key}, {count}")


def _workers(ministack: int, function: str) -> list[psutil.Process]:
    """The processes in which MiniStack runs a function: its children, and nobody else's."""
    found = []
    for child in psutil.Process(ministack).children():
        try:
            ours = any(word.endswith(WORKER) for word in child.cmdline())
            if ours and child.environ().get("AWS_LAMBDA_FUNCTION_NAME") == function:
                found.append(child)
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def _cpu_seconds(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def reshard(kinesis: Any, stream: str, how: str, draw: random.Random) -> str:
    """Split a shard, or merge two that are neighbours. Returns what was done, in words.

    Only when the stream is drained and nobody writes: MiniStack deletes the parents with what they hold.
    """
    shards = kinesis.list_shards(StreamName=stream)["Shards"]
    shards = sorted(shards, key=lambda shard: int(shard["HashKeyRange"]["StartingHashKey"]))
    if how == "merge" and len(shards) > 1:
        place = draw.randrange(len(shards) - 1)
        first, second = shards[place]["ShardId"], shards[place + 1]["ShardId"]
        kinesis.merge_shards(StreamName=stream, ShardToMerge=first, AdjacentShardToMerge=second)
        return f"{first} and {second} merged"
    shard = draw.choice(shards)
    start, end = (int(shard["HashKeyRange"][key]) for key in ("StartingHashKey", "EndingHashKey"))
    middle = str((start + end) // 2 + 1)
    kinesis.split_shard(StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=middle)
    return f"{shard['ShardId']} split"
