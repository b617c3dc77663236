"""The whole stack on this machine: Postgres, MiniStack, and the template as ``sam deploy`` puts it there.

::

    with Stack() as stack:
        stack.deploy()
        stack.client("lambda").invoke(FunctionName=stack.outputs["ProducerFunctionName"], Payload=...)

Everything it starts ends with the ``with`` block, or with this process, whatever ends it.
"""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

from common.settings import DatabaseSettings
from local.errors import StackError
from local.machine import REPOSITORY, directory_error, require_free_port, require_space, require_tool
from local.ministack import MiniStack
from local.postgres import Postgres
from local.sam import Sam

DIRECTORY = REPOSITORY / ".local" / "stack"
NAME = "oncestream"
STATE = "state.json"  # of a stack in the background: see local/background.py
SPACE = 1_000_000_000
"""Bytes: the build (150 MB), the cluster and its log of changes, the code once for every running worker."""

Progress = Callable[[str, float | None], None]
"""Told ``(step, None)`` when a step begins and ``(step, seconds)`` when it is done. Steps overlap."""

BUILD, POSTGRES, MINISTACK, DEPLOY = STEPS = ("sam build", "Postgres", "MiniStack", "sam deploy")


class Stack:
    """The local stack. It starts empty: what an earlier one left in its directory is removed.

    Parameters
    ----------
    directory
        Holds the data, the logs and the lock; one stack at a time uses it.
    postgres_port, ministack_port
        Where the servers listen on 127.0.0.1; None takes free ports.
    parameters
        Parameters of the template besides those that say where Postgres is, e.g. ``{"BatchSize": 100}``.
    durable
        As for :class:`local.postgres.Postgres`.
    environment
        More variables for MiniStack, e.g. ``{"AUTH": "true"}``, which has it enforce the functions' roles.
    progress
        See :data:`Progress`.
    """

    def __init__(
        self,
        directory: Path = DIRECTORY,
        *,
        postgres_port: int | None = None,
        ministack_port: int | None = None,
        parameters: Mapping[str, object] | None = None,
        durable: bool = True,
        environment: dict[str, str] | None = None,
        progress: Progress = lambda step, seconds: None,
    ) -> None:
        self.directory = directory.resolve()
        self.name = NAME
        self.postgres = Postgres(self.directory / "postgres", port=postgres_port, durable=durable)
        self.ministack = MiniStack(self.directory / "ministack", port=ministack_port, environment=environment)
        self.build = self.directory / "build"  # where each function's package is, by its logical id
        self.outputs: dict[str, str] = {}
        self._ports = {"Postgres": postgres_port, "MiniStack": ministack_port}
        self._parameters = dict(parameters or {})
        self._progress = progress
        self._lock: BinaryIO | None = None

    def start(self) -> None:
        """Start both servers, empty. Nothing happens when they run.

        Raises
        ------
        StackError
            Whatever stands in the way, and what to do about it.
        """
        self._claim()
        for step, server in ((POSTGRES, self.postgres), (MINISTACK, self.ministack)):
            if not server.is_running:
                with self._step(step):
                    server.start()

    def deploy(self, parameters: Mapping[str, object] | None = None) -> dict[str, str]:
        """Build, start what does not run yet meanwhile, and deploy. Returns the outputs.

        May be called again, with other ``parameters`` (which then stay) or after a change of the code.

        Raises
        ------
        StackError
            Whatever stands in the way, and what to do about it.
        """
        self._parameters |= parameters or {}
        self._claim()
        with Sam(self.directory) as sam:
            with self._step(BUILD):
                sam.start_build()
                self.start()
                sam.finish_build()
            with self._step(DEPLOY):
                sam.deploy(self.ministack.endpoint, self.name, self._all_parameters())
        self._mend_mappings()
        described = self.client("cloudformation").describe_stacks(StackName=self.name)["Stacks"][0]
        self.outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
        return self.outputs

    def stop(self) -> None:
        """End everything that was started. Data and logs stay until the next start."""
        self.ministack.stop()
        self.postgres.stop()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    @property
    def is_running(self) -> bool:
        """Whether both servers run."""
        return self.postgres.is_running and self.ministack.is_running

    def client(self, service: str) -> Any:
        """A boto3 client of ``service`` in this stack."""
        return self.ministack.client(service)

    @property
    def database(self) -> DatabaseSettings:
        """How to reach the stack's database."""
        return DatabaseSettings.model_validate(
            {
                "DATABASE_HOST": self.postgres.host,
                "DATABASE_PORT": self.postgres.port,
                "DATABASE_NAME": self.postgres.dbname,
                "DATABASE_USER": self.postgres.user,
                "DATABASE_AUTHENTICATION": "trust",
                "DATABASE_TLS": "disable",
            }
        )

    @property
    def api_url(self) -> str:
        """The URL that serves the output ``ApiUrl`` here (that one names a host of AWS)."""
        host, _, path = self.outputs["ApiUrl"].removeprefix("https://").partition("/")
        return f"{self.ministack.endpoint}/_aws/execute-api/{host.partition('.')[0]}/$default/{path}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _all_parameters(self) -> dict[str, str]:
        ours = {
            "DatabaseHost": self.postgres.host,
            "DatabasePort": self.postgres.port,
            "DatabaseName": self.postgres.dbname,
            "DatabaseUser": self.postgres.user,
            "DatabaseAuthentication": "trust",
            "DatabaseTls": "disable",
        }
        return {name: str(value) for name, value in (ours | self._parameters).items()}

    def _mend_mappings(self) -> None:
        """Set concurrency limits anew as numbers.

        MiniStack 1.5.33 keeps a template's ``!Ref`` of a Number parameter as text there, and its poller of queues
        then fails when it compares.
        """
        functions = self.client("lambda")
        for mapping in functions.list_event_source_mappings()["EventSourceMappings"]:
            limit = mapping.get("ScalingConfig", {}).get("MaximumConcurrency")
            if limit is not None:  # botocore reads the text as a number: it cannot be told apart here
                functions.update_event_source_mapping(
                    UUID=mapping["UUID"], ScalingConfig={"MaximumConcurrency": int(limit)}
                )

    def _claim(self) -> None:
        """Make the directory ours and empty, and see that everything is there before anything is started."""
        if self._lock is not None:
            return
        require_tool("ministack", "python")
        require_tool("sam", "sam")
        require_space(self.directory, SPACE)
        try:
            self._lock = lock(self.directory)
            self.postgres.remove()
            shutil.rmtree(self.directory / "ministack", ignore_errors=True)
            (self.directory / STATE).unlink(missing_ok=True)
            for what, port in self._ports.items():
                if port is not None:
                    require_free_port(port, what)
        except OSError as error:
            self.stop()
            raise directory_error(error, self.directory) from error
        except StackError:
            self.stop()
            raise

    @contextlib.contextmanager
    def _step(self, step: str) -> Iterator[None]:
        begin = time.perf_counter()
        self._progress(step, None)
        yield
        self._progress(step, time.perf_counter() - begin)


def lock(directory: Path) -> BinaryIO:
    """Take the stack directory for this process, until the answer is closed or the process ends.

    Raises
    ------
    StackError
        Another process has it.
    """
    directory.mkdir(parents=True, exist_ok=True)
    file = (directory / "lock").open("a+b")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise StackError(
            f"Another stack uses {directory}. End it (`once down`, or Ctrl-C where it runs), "
            "or choose another directory."
        ) from error
    return file
