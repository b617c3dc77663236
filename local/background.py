"""The stack in the background: what ``once up`` and ``once down`` stand on.

A supervisor process holds the stack and polls its streams until it is told to end (SIGTERM). As everywhere
here, the servers end with the process that holds them, so there is one process to end. What others need to
know is in ``state.json``; the lock on the directory says whether it is true.

``python -m local.background DIRECTORY OPTIONS`` (JSON) is the supervisor. On standard output it reports one
JSON object a line: ``{"step", "seconds"}`` for each step, at the end ``{"ready": true}`` or ``{"error"}``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

from lambda_esm import Clients, Delivery, FunctionFailed, NotInvoked, Observer, Progress, StreamPoller
from local.errors import StackError
from local.machine import REPOSITORY, failure, user_environment
from local.ministack import CREDENTIALS, REGION, client
from local.stack import DIRECTORY, STATE, Stack, lock
from local.stack import Progress as Steps

STOP_SECONDS = 60.0
FLOW = "flow.json"
"""Written anew about every second where something has changed."""


@dataclass(frozen=True, slots=True)
class StackState:
    """A stack that runs in the background: its supervisor, where its parts are, what was deployed."""

    pid: int
    endpoint: str
    database: dict[str, Any]
    """The fields of :class:`common.settings.DatabaseSettings`."""
    outputs: dict[str, str]
    api_url: str

    def client(self, service: str) -> Any:
        """A boto3 client of ``service`` in this stack."""
        return client(self.endpoint, service)


@dataclass(frozen=True, slots=True)
class Flow:
    """How the streams of one function stand, as the poller of the background stack knows."""

    read: int
    """Records that it has read for the function."""
    waiting: int
    """Those of them that are not processed."""
    all_read: bool
    """Whether the streams held nothing more at the last look."""
    failed_in_a_row: int
    """Deliveries since the last one that succeeded."""
    problem: str | None
    """Why the function failed as a whole at the last of these; what it answered, it logs itself."""


class Failures(Observer):
    """Counts the deliveries of each function that failed, since the last one that did not."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_a_row: Counter[str] = Counter()
        self._problems: dict[str, str | None] = {}

    def on_delivery(self, delivery: Delivery) -> None:
        name = delivery.mapping.function_name
        with self._lock:
            self._in_a_row[name] = 0 if delivery.succeeded else self._in_a_row[name] + 1
            self._problems[name] = _problem(delivery)

    def flow(self, progress: Mapping[str, Progress]) -> dict[str, Flow]:
        """What is known of each function, with how far its mappings have come."""
        with self._lock:
            return {
                name: Flow(
                    **asdict(each), failed_in_a_row=self._in_a_row[name], problem=self._problems.get(name)
                )
                for name, each in progress.items()
            }


def _problem(delivery: Delivery) -> str | None:
    match delivery.outcome:
        case FunctionFailed(error=error):
            return f"the function failed: {error}"[:500]
        case NotInvoked(reason=reason):
            return f"the function could not be invoked: {reason}"[:500]
        case _:
            return None


def flow(directory: Path = DIRECTORY) -> dict[str, Flow] | None:
    """How the streams of the stack in ``directory`` stand, by function; None if nothing has been said yet."""
    try:
        found = json.loads((directory / FLOW).read_text())
        return {name: Flow(**each) for name, each in found.items()}
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None


def tell(directory: Path, stands: Mapping[str, Flow]) -> None:
    """Write what :func:`flow` reads."""
    _replace(directory / FLOW, json.dumps({name: asdict(each) for name, each in stands.items()}))


def dump(state: StackState) -> str:
    """The text of ``state.json``."""
    return json.dumps(asdict(state), indent=2)


def running(directory: Path = DIRECTORY) -> StackState | None:
    """The stack that runs in the background in ``directory``; None if there is none."""
    try:
        state = StackState(**json.loads((directory / STATE).read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return None
    try:
        lock(directory).close()
    except StackError:
        return state  # somebody holds the directory, and state.json says who
    return None


def start(
    directory: Path = DIRECTORY,
    *,
    progress: Steps = lambda step, seconds: None,
    **options: Any,
) -> StackState:
    """Start the stack in the background and deploy it. When it runs already, nothing happens.

    Parameters
    ----------
    directory, progress, options
        As for :class:`local.stack.Stack`.

    Raises
    ------
    StackError
        It could not be started; nothing is left running.
    """
    found = running(directory)
    if found is not None:
        return found
    directory.mkdir(parents=True, exist_ok=True)
    log = directory / "stack.log"
    with log.open("wb") as output:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "local.background", str(directory), json.dumps(options)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=output,
            cwd=REPOSITORY,
            env=user_environment(PYTHONPATH=f"{REPOSITORY}{os.pathsep}{REPOSITORY / 'src'}"),
            start_new_session=True,
        )
    try:
        _follow(supervisor, progress, log)
    except BaseException:  # Ctrl-C as well: what is half started ends
        supervisor.terminate()
        supervisor.wait()
        raise
    state = running(directory)
    if state is None:
        raise failure("The stack ended right after its start.", log)
    return state


def stop(directory: Path = DIRECTORY) -> bool:
    """End the stack that runs in the background. False if none does.

    Raises
    ------
    StackError
        It does not end.
    """
    state = running(directory)
    if state is None:
        return False
    try:
        supervisor = psutil.Process(state.pid)
        supervisor.terminate()
        supervisor.wait(STOP_SECONDS)
    except psutil.NoSuchProcess:
        pass
    except psutil.TimeoutExpired as error:
        raise StackError(f"The stack in {directory} (process {state.pid}) does not end: kill it.") from error
    return True


def _follow(supervisor: subprocess.Popen[bytes], progress: Steps, log: Path) -> None:
    assert supervisor.stdout is not None  # noqa: S101 - for the type checker: it is a pipe
    with supervisor.stdout as lines:
        for line in lines:
            report: dict[str, Any] = json.loads(line)
            if "error" in report:
                supervisor.wait()
                raise StackError(report["error"])
            if "ready" in report:
                return
            progress(report["step"], report["seconds"])
    raise failure("The stack ended while it was starting.", log)


def _supervise(directory: Path, options: Mapping[str, Any]) -> None:
    def report(**what: Any) -> None:
        print(json.dumps(what), flush=True)

    def end(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, end)
    file = directory / STATE
    never = threading.Event()
    try:
        with Stack(
            directory, progress=lambda step, seconds: report(step=step, seconds=seconds), **options
        ) as stack:
            stack.deploy()
            state = StackState(
                os.getpid(),
                stack.ministack.endpoint,
                stack.database.model_dump(mode="json"),
                stack.outputs,
                stack.api_url,
            )
            clients = Clients(
                stack.ministack.endpoint,
                region=REGION,
                credentials=(CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"]),
            )
            failures = Failures()
            with StreamPoller(clients, observer=failures, take_over=True) as poller:
                _replace(file, dump(state))
                report(ready=True)
                # From here on nobody reads our output: the one who started us may go.
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
                told: dict[str, Flow] = {}
                while stack.is_running:
                    stands = failures.flow(poller.progress())
                    if stands != told:
                        tell(directory, stands)
                        told = stands
                    never.wait(1)
                print(f"A server of the stack ended by itself: see the logs in {directory}.")
    except StackError as error:
        report(error=str(error))
        raise SystemExit(1) from error
    finally:
        file.unlink(missing_ok=True)
        (directory / FLOW).unlink(missing_ok=True)


def _replace(file: Path, text: str) -> None:
    """Write a file that readers find whole, as it was or as it is."""
    new = file.with_suffix(".new")
    new.write_text(text)
    new.rename(file)


if __name__ == "__main__":
    _supervise(Path(sys.argv[1]), json.loads(sys.argv[2]))
