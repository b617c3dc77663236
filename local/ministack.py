"""MiniStack, the AWS emulator, as a child process. It executes the deployed functions as children of its own.

It runs in an environment of its own (``.local/tools/ministack``) whose Python is the functions' runtime,
3.13, and it hands its whole process environment on to the functions: so it gets a clean one.
"""

from __future__ import annotations

import http.client
import os
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Self

import boto3
import botocore.session
from botocore.config import Config

from local.errors import StackError
from local.machine import (
    LOOPBACK,
    clean_environment,
    directory_error,
    failure,
    free_port,
    require_free_port,
    require_tool,
    tail,
)
from local.process import Child

REGION = "us-east-1"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}  # MiniStack's root user


class MiniStack:
    """The emulator, its state in memory: it starts empty.

    Parameters
    ----------
    directory
        Holds the log and, while it runs, the functions' unpacked code (``tmp/``, emptied at the start).
    port
        Where to listen on the loopback address; None takes a free one.
    environment
        More variables for the emulator and the functions it runs.
    """

    def __init__(
        self, directory: Path, *, port: int | None = None, environment: dict[str, str] | None = None
    ) -> None:
        self.directory = directory.resolve()
        self.log = self.directory / "ministack.log"
        self._temporary = self.directory / "tmp"
        self._wanted_port = port
        self._port = port
        self._environment = environment or {}
        self._child: Child | None = None

    @property
    def port(self) -> int:
        """The port it listens on (from the first start on)."""
        if self._port is None:
            raise StackError("MiniStack has no port yet: start it first.")
        return self._port

    @property
    def endpoint(self) -> str:
        """The endpoint URL of every service."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether its process runs (it may still be starting)."""
        return self._child is not None and self._child.is_running

    @property
    def pid(self) -> int:
        """Process id of the emulator."""
        if self._child is None:
            raise StackError("MiniStack is not running: start it first.")
        return self._child.pid

    def start(self) -> None:
        """Start it and wait until it answers.

        Raises
        ------
        StackError
            Its environment is not installed, the port is in use, the disk is full, or it does not get ready.
        """
        if self.is_running:
            return
        self.stop()  # of one that has ended by itself, what remains
        python = require_tool("ministack", "python")
        if self._wanted_port is not None:
            require_free_port(self._wanted_port, "MiniStack")
        for attempt in (1, 2, 3):
            child = self._launch(python, self._wanted_port or free_port())
            if child.gets_ready(self._answers):
                return
            self.stop()
            # Between choosing a free port and listening on it, somebody else may have taken it.
            taken = "already in use" in tail(self.log)
            if self._wanted_port is not None or not taken or attempt == 3:
                break
        raise failure(f"MiniStack did not get ready on {self.endpoint}.", self.log)

    def stop(self) -> None:
        """End it and every function it runs, and remove what it unpacked."""
        if self._child is not None:
            self._child.stop()
            self._child = None
        shutil.rmtree(self._temporary, ignore_errors=True)

    def client(self, service: str) -> Any:
        """A boto3 client of ``service`` (cached)."""
        return client(self.endpoint, service)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _launch(self, python: Path, port: int) -> Child:
        self._port = port
        try:
            shutil.rmtree(self._temporary, ignore_errors=True)
            self._temporary.mkdir(parents=True)
        except OSError as error:
            raise directory_error(error, self.directory) from error
        self._child = Child(
            [python, "-m", "ministack"],
            log=self.log,
            environment=clean_environment(
                self._temporary,
                GATEWAY_PORT=str(port),
                BIND_HOST=LOOPBACK,
                IOT_MTLS_ENABLED="0",  # it would listen on port 8883 of every interface
                SFTP_ENABLED="0",
                **self._environment,
            ),
            directory=self._temporary,
        )
        return self._child

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=2)
        try:
            connection.request("GET", "/_ministack/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False  # not listening yet
        finally:
            connection.close()


def _session() -> boto3.session.Session:
    # No profile and no files: a profile that AWS_PROFILE names would be used, or be missing and an error.
    nothing = (None, None, os.devnull, None)
    session = botocore.session.Session(
        session_vars={
            "profile": (None, None, None, None),
            "config_file": nothing,
            "credentials_file": nothing,
        }
    )
    return boto3.session.Session(
        CREDENTIALS["AWS_ACCESS_KEY_ID"],
        CREDENTIALS["AWS_SECRET_ACCESS_KEY"],
        region_name=REGION,
        botocore_session=session,
    )


@cache
def client(endpoint: str, service: str) -> Any:
    """A boto3 client of ``service`` at ``endpoint``, whatever the user's own AWS configuration says (cached).

    It retries nothing and waits long: what fails here is the test's or the demonstration's business.
    """
    return _session().client(
        service,  # type: ignore[call-overload]  # boto3-stubs wants a literal
        endpoint_url=endpoint,
        config=Config(
            connect_timeout=5,
            read_timeout=180,
            retries={"total_max_attempts": 1},
            max_pool_connections=32,
            s3={"addressing_style": "path"},
        ),
    )
