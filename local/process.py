"""A child process that ends with us, whatever ends us."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import psutil

from local.errors import StackError
from local.machine import directory_error

GUARD = Path(__file__).with_name("guard.py")
START_SECONDS = 60.0
LOOK_SECONDS = 0.02


class Child:
    """A program under ``local/guard.py``: ended by :meth:`stop`, or when this process ends for any reason.

    Parameters
    ----------
    command
        What to run, by absolute path.
    log
        File that takes its output (appended to).
    environment
        Its whole environment; nothing of ours is added.
    directory
        Where it runs.
    user
        System user to run as; needs root. None: as we do.
    stop_signal, grace
        Sent when it has to end; after ``grace`` seconds its process group is killed.

    Raises
    ------
    StackError
        It could not be started.
    """

    def __init__(
        self,
        command: Sequence[str | Path],
        *,
        log: Path,
        environment: Mapping[str, str],
        directory: Path,
        user: str | None = None,
        stop_signal: str = "SIGTERM",
        grace: float = 10.0,
    ) -> None:
        self.log = log
        self._grace = grace
        try:
            with log.open("ab") as output:
                self._guard = subprocess.Popen(
                    [sys.executable, "-I", "-S", GUARD, user or "-", stop_signal, str(grace), *command],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=dict(environment),
                    cwd=directory,
                    start_new_session=True,
                )
        except OSError as error:
            raise directory_error(error, directory) from error
        assert self._guard.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert self._guard.stdout is not None  # noqa: S101
        self._lifeline = self._guard.stdin
        with self._guard.stdout as answer:
            word, _, rest = answer.readline().decode().strip().partition(" ")
        if word != "pid":
            self.stop()
            raise StackError(f"Could not start {command[0]}: {rest or 'its guard ended'}. Its log: {log}")
        self.pid = int(rest)
        self._process: psutil.Process | None = None
        with contextlib.suppress(psutil.NoSuchProcess):  # it may have ended at once
            self._process = psutil.Process(self.pid)

    @property
    def guard_pid(self) -> int:
        """Process id of its guard."""
        return self._guard.pid

    @property
    def is_running(self) -> bool:
        """Whether it still runs."""
        if self._process is None or self._guard.poll() is not None:
            return False
        try:
            # The guard may need a moment to notice; until then, what has ended is a zombie.
            return bool(self._process.status() != psutil.STATUS_ZOMBIE)
        except psutil.NoSuchProcess:
            return False

    def gets_ready(self, is_ready: Callable[[], bool]) -> bool:
        """Wait until ``is_ready`` says so. False: it ended first, or took more than ``START_SECONDS``."""
        give_up = time.monotonic() + START_SECONDS
        while self.is_running and time.monotonic() < give_up:
            if is_ready():
                # What answers may be another program, which has taken the port that ours has given up on.
                return self.is_running
            time.sleep(LOOK_SECONDS)
        return False

    def stop(self, signal_name: str | None = None) -> int:
        """End it by ``signal_name`` (its stop signal by default), wait, and return its exit status."""
        with contextlib.suppress(BrokenPipeError):  # it has ended already
            if signal_name and not self._lifeline.closed:
                self._lifeline.write(f"{signal_name}\n".encode())
            self._lifeline.close()
        return self._guard.wait(self._grace + 10)

    def wait(self, seconds: float | None = None) -> int:
        """Wait for it to end by itself and return its exit status (128 + N: signal N ended it).

        Raises
        ------
        subprocess.TimeoutExpired
            It still runs.
        """
        return self._guard.wait(seconds)
