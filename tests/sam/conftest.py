"""A build, a container engine with the Lambda base image, and ``sam local`` on top of them.

Where there is no engine or no image, every test here is skipped with that reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from local.containers import NoEngineError, host_address
from local.machine import require_tool
from local.relay import Relay
from local.sam import Sam
from local.sam_local import environment_of_sam, prepare
from tests.recorded_events import FUNCTIONS, World
from tests.sam import engine

if TYPE_CHECKING:
    from local.ministack import MiniStack
    from local.postgres import Postgres

INVOKE_SECONDS = 180.0


@pytest.fixture(scope="session")
def image() -> Iterator[str]:
    """The Lambda base image in a running engine: ``image`` or ``stand-in``."""
    daemon = None
    try:
        daemon = engine.start_engine()
        yield engine.prepare_image()
    except NoEngineError as error:
        pytest.skip(str(error))
    finally:
        if daemon is not None:
            daemon.stop()


@pytest.fixture(scope="session")
def build(image: str, server_directory: Path) -> Path:
    """What ``sam build`` makes of the repository."""
    with Sam(server_directory) as sam:
        sam.start_build()
        sam.finish_build()
        return sam.build


@pytest.fixture
def world(ministack: MiniStack, database: Any) -> Iterator[World]:
    """What the events speak of; the functions get its names."""
    made = World(ministack, database)
    yield made
    made.remove()


@pytest.fixture(scope="session")
def host(image: str, ministack: MiniStack, postgres: Postgres) -> Iterator[str]:
    """The address by which containers reach MiniStack and Postgres."""
    address = host_address()
    with Relay(address, [ministack.port, postgres.port]):
        yield address


@pytest.fixture
def sam_options(build: Path, host: str, world: World, ministack: MiniStack, tmp_path: Path) -> list[Any]:
    """The options of ``sam local`` for this world."""
    variables = world.environment | {"DATABASE_HOST": host}
    environment = dict.fromkeys(FUNCTIONS.values(), variables)
    # The image is there; SAM would ask its registry for a newer one.
    return [*prepare(build, tmp_path, f"http://{host}:{ministack.port}", environment), "--skip-pull-image"]


@pytest.fixture
def sam_invoke(sam_options: list[Any], ministack: MiniStack, tmp_path: Path) -> Callable[[str, Any], Any]:
    """Hands an event to a function by ``sam local invoke``; an error is answered as its type's name."""
    program = require_tool("sam", "sam")

    def call(function: str, event: Any) -> Any:
        path = tmp_path / "event.json"
        path.write_text(json.dumps(event))
        done = subprocess.run(
            [program, "local", "invoke", function, "--event", path, *sam_options],
            env=environment_of_sam(ministack.endpoint),
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=INVOKE_SECONDS,
            check=False,
        )
        sys.stderr.write(done.stderr)  # the function's log; pytest shows it when the test fails
        assert done.stdout.strip(), f"{function} answered nothing"
        answer = json.loads(done.stdout.strip().splitlines()[-1])
        if isinstance(answer, dict) and "errorType" in answer:
            return answer["errorType"]
        return answer

    return call
