"""The servers that tests share: a real Postgres and MiniStack, each started once, when first asked for."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings
from pydantic import PrivateAttr

from common.settings import DatabaseSettings

if TYPE_CHECKING:
    import pg8000.native

    from local.ministack import MiniStack
    from local.postgres import Postgres
    from local.stack import Stack

# No test reads the user's AWS configuration or reaches the real AWS.
os.environ.update(
    AWS_ACCESS_KEY_ID="test",
    AWS_SECRET_ACCESS_KEY="test",
    AWS_DEFAULT_REGION="us-east-1",
    AWS_CONFIG_FILE=os.devnull,
    AWS_SHARED_CREDENTIALS_FILE=os.devnull,
    AWS_EC2_METADATA_DISABLED="true",
    POWERTOOLS_TRACE_DISABLED="true",
    POWERTOOLS_METRICS_NAMESPACE="Oncestream",
)
for _name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION"):
    os.environ.pop(_name, None)

# The same examples each time, however busy the machine is.
settings.register_profile(
    "tests", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("tests")

REPOSITORY = Path(__file__).resolve().parent.parent
SHARE_THE_STACK = (
    "tests/e2e/",
    "tests/integration/test_build.py",
    "tests/integration/test_local_stack.py",
)
"""Who uses the fixture ``deployed``: in two processes it would be deployed twice."""
_database_numbers = count(1)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """With xdist (`make test`): a file's tests stay together, and so do those that share the deployed stack.

    xdist has this as ``--dist loadgroup``, which groups nothing under pytest 9.2 (pytest-dev/pytest-xdist issue 1386).
    """
    from xdist.scheduler import LoadScopeScheduling

    class ByServers(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file: str = nodeid.partition("::")[0]
            return "deployed" if file.startswith(SHARE_THE_STACK) else file

    return ByServers(config, log)


@pytest.fixture(scope="session", autouse=True)
def any_object_as_payload() -> Iterator[None]:
    """What the tests send is any JSON object, whatever ``tables/payload.py`` says: that file is its user's."""
    from tables import check
    from tables.model import AnyObject, judge_of

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(check, "judge", judge_of(AnyObject))
        yield


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """A directory for the servers of this session; gone afterwards.

    Not pytest's own: that one is for its owner alone, and Postgres runs as another user when we are root.
    """
    parent = REPOSITORY / ".local" / "tests"
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[Postgres]:
    """A Postgres server on 127.0.0.1 (``.host .port .user .dbname``), for the whole session."""
    from local.postgres import Postgres

    with Postgres(server_directory / "postgres", durable=False) as server:
        yield server


class Database(DatabaseSettings):
    """The settings of a test's own database, and ``connect()`` to look into it."""

    _server: Any = PrivateAttr()

    def connect(self) -> pg8000.native.Connection:
        """A new connection to it."""
        return self._server.connect(self.database_name)


@pytest.fixture
def empty_database(postgres: Postgres) -> Iterator[Database]:
    """A fresh database without any tables."""
    name = f"test_{next(_database_numbers)}"
    postgres.create_database(name)
    database = Database.model_validate(
        {
            "DATABASE_HOST": postgres.host,
            "DATABASE_PORT": postgres.port,
            "DATABASE_NAME": name,
            "DATABASE_USER": postgres.user,
            "DATABASE_AUTHENTICATION": "trust",
            "DATABASE_TLS": "disable",
        }
    )
    database._server = postgres
    yield database
    postgres.drop_database(name)


@pytest.fixture
def database(empty_database: Database) -> Database:
    """A fresh database with the tables of ``postgres/migrations``."""
    from postgres.migrate import migrate

    connection = empty_database.connect()
    try:
        migrate(connection)
    finally:
        connection.close()
    return empty_database


@pytest.fixture(scope="session")
def ministack(server_directory: Path) -> Iterator[MiniStack]:
    """MiniStack on a free port (``.endpoint``, ``.client(service)``), for the whole session."""
    from local.ministack import MiniStack

    with MiniStack(server_directory / "ministack") as emulator:
        yield emulator


@pytest.fixture(scope="session")
def deployed(server_directory: Path) -> Iterator[Stack]:
    """The whole stack, its template built and deployed by ``sam``, once for the session.

    It has a Postgres and a MiniStack of its own; its stream is not polled.
    """
    from local.stack import Stack

    with Stack(server_directory / "stack", durable=False) as stack:
        stack.deploy({"ChunkBytes": 2**20})  # so that a file of some megabytes has many chunks
        yield stack
