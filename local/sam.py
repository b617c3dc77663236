"""``sam build``, ``sam deploy`` and ``sam delete`` of the unchanged template, against an endpoint on this machine."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO, Self

from local.errors import StackError
from local.machine import (
    REPOSITORY,
    clean_environment,
    directory_error,
    failure,
    require_tool,
    user_environment,
)
from local.ministack import CREDENTIALS, REGION
from local.process import Child

BUILD_SECONDS = 900.0  # the first one fetches the packages
DEPLOY_SECONDS = 900.0
DEPENDENCIES = REPOSITORY / ".aws-sam"


class Sam:
    """The SAM CLI, one command at a time, with its own files under ``directory`` and ``.local/``.

    Parameters
    ----------
    directory
        Takes the build (``build/``), the log and temporary files; it exists. Only the functions' dependencies are
        shared with other builds (in ``.aws-sam``, see src/Makefile), which therefore take turns.

    Raises
    ------
    StackError
        The SAM CLI is not installed.
    """

    def __init__(self, directory: Path) -> None:
        self.log = directory / "sam.log"
        self.build = directory / "build"
        self._temporary = directory / "sam"
        self._program = require_tool("sam", "sam")
        self._lock: BinaryIO | None = None
        self._child: Child | None = None

    def __enter__(self) -> Self:
        try:
            self.log.unlink(missing_ok=True)
            self._temporary.mkdir(exist_ok=True)
        except OSError as error:
            raise directory_error(error, self._temporary) from error
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._temporary, ignore_errors=True)  # sam leaves some of its temporary files

    def start_build(self) -> None:
        """Start ``sam build``; :meth:`finish_build` waits for it."""
        try:
            DEPENDENCIES.mkdir(exist_ok=True)
            self._lock = (DEPENDENCIES / "lock").open("wb")
            fcntl.flock(self._lock, fcntl.LOCK_EX)
        except OSError as error:
            raise directory_error(error, DEPENDENCIES) from error
        self._run(
            "build",
            *("--build-dir", self.build),
            environment=user_environment(
                PYTHON=sys.executable,  # src/Makefile compiles with it: it is the runtime's
                DEPENDENCIES_DIR=str(DEPENDENCIES),
                **self._settings(),
            ),
        )

    def finish_build(self) -> None:
        """Wait for the build.

        Raises
        ------
        StackError
            It failed; the message has the end of its output.
        """
        self._finish("build", BUILD_SECONDS)
        self._unlock()

    def deploy(self, endpoint: str, name: str, parameters: Mapping[str, str]) -> None:
        """``sam deploy`` of what was built, as the CloudFormation stack ``name`` at ``endpoint``.

        Raises
        ------
        StackError
            It failed; the message has the end of its output.
        """
        self._run(
            "deploy",
            *(
                "--template-file",
                self.build / "template.yaml",
                "--config-file",
                REPOSITORY / "samconfig.toml",
            ),
            *("--config-env", "local", "--stack-name", name, "--region", REGION),
            *("--parameter-overrides", *(f"{key}={value}" for key, value in parameters.items())),
            environment=self._at(endpoint),
        )
        self._finish("deploy", DEPLOY_SECONDS)

    def delete(self, endpoint: str, name: str) -> None:
        """``sam delete`` of the CloudFormation stack ``name`` at ``endpoint``.

        Raises
        ------
        StackError
            It failed; the message has the end of its output.
        """
        self._run(
            "delete",
            *("--stack-name", name, "--region", REGION, "--no-prompts"),
            environment=self._at(endpoint),
        )
        self._finish("delete", DEPLOY_SECONDS)

    def stop(self) -> None:
        """End the command that runs, if one does."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        self._unlock()

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _at(self, endpoint: str) -> dict[str, str]:
        return clean_environment(
            self._temporary,
            **CREDENTIALS,
            **self._settings(),
            AWS_ENDPOINT_URL=endpoint,
            AWS_DEFAULT_REGION=REGION,
            SAM_CLI_POLL_DELAY="0.5",  # of stack events; its 5 seconds spare an API that is not ours
        )

    def _settings(self) -> dict[str, str]:
        return {
            "SAM_CLI_TELEMETRY": "0",
            "__SAM_CLI_APP_DIR": str(REPOSITORY / ".local" / "sam"),  # instead of ~/.aws-sam
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "TMPDIR": str(self._temporary),
        }

    def _run(self, *arguments: str | Path, environment: Mapping[str, str]) -> None:
        self._child = Child(
            [self._program, *arguments], log=self.log, environment=environment, directory=REPOSITORY
        )

    def _finish(self, command: str, seconds: float) -> None:
        if self._child is None:
            raise StackError(f"sam {command} was not started.")
        try:
            status = self._child.wait(seconds)
        except subprocess.TimeoutExpired as error:
            self.stop()
            raise failure(f"`sam {command}` took longer than {seconds:.0f} seconds.", self.log) from error
        if status:
            raise failure(f"`sam {command}` failed (exit status {status}).", self.log)
        self._child = None
