"""The container engine, as the SAM CLI finds it (DOCKER_HOST, or the default socket)."""

from __future__ import annotations

import subprocess
from pathlib import Path

from local.errors import StackError
from local.machine import require_tool, user_environment

CLIENT = Path(__file__).with_name("docker_client.py")


class NoEngineError(StackError):
    """There is no container engine, or it could not do what was asked; the message says why."""


def ask(*command: str, seconds: float = 60.0) -> str:
    """Have ``docker_client.py`` do a command; returns what it printed.

    Raises
    ------
    NoEngineError
        It could not be done; the message ends with the engine's own words.
    """
    try:
        done = subprocess.run(
            [require_tool("sam", "python"), CLIENT, *command],
            env=user_environment(),
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise NoEngineError(f"docker {' '.join(command)}: no answer in {seconds:.0f} seconds") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise NoEngineError(f"docker {' '.join(command)}: {last}")
    return done.stdout


def host_address() -> str:
    """The address by which containers reach this machine: the host's end of Docker's bridge.

    Raises
    ------
    NoEngineError
        No engine answers, or it has no bridge.
    """
    return ask("gateway")
