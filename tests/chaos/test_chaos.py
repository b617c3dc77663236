"""`make chaos` as a whole, small: the account closes, and whatever ends it, nothing is left running."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.machine import REPOSITORY
from tests.ended import all_end, hearing_ctrl_c

RECORDS = 2_000
SECONDS = 300


def _command(directory: Path, *options: str) -> list[str]:
    return [
        sys.executable,
        "-m",
        "chaos",
        "--records",
        str(RECORDS),
        "--directory",
        str(directory),
        *options,
    ]


@pytest.fixture(scope="module")
def directory(server_directory: Path) -> Path:
    """Where the stack of the whole run is. Not pytest's own: Postgres runs as another user when we are root."""
    return server_directory / "chaos"


@pytest.fixture(scope="module")
def result(directory: Path) -> dict[str, Any]:
    """The last line of a whole run."""
    done = subprocess.run(
        _command(directory), cwd=REPOSITORY, capture_output=True, text=True, timeout=SECONDS, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    word, _, text = done.stdout.splitlines()[-1].partition(" ")
    assert word == "RESULT"
    found: dict[str, Any] = json.loads(text)
    return found


def test_every_record_is_there_once(result: dict[str, Any]) -> None:
    assert result["exact"] is True
    assert (result["records"], result["rows"]) == (RECORDS, RECORDS)
    assert result["rejected"] == result["poison"] > 0
    assert result["lost"] == result["duplicated"] == 0


def test_the_stack_was_broken(result: dict[str, Any]) -> None:
    faults = result["faults"]
    assert faults["killed"] >= 1
    assert faults["restarted"] + faults["crashed"] == 1
    assert faults["sessions_ended"] == faults["resharded"] == 1
    assert faults["notification_repeated"] + faults["jobs_repeated"] >= 1
    assert result["delivered"] > RECORDS + result["poison"], "nothing was delivered twice"


def test_the_page_shows_the_run(
    result: dict[str, Any], directory: Path, browse: Callable[[Path], str]
) -> None:
    shown = browse(directory / "report.html")
    assert "data-error" not in shown[: shown.index("<head>")], "a script of the page failed"
    assert f"The account closes: {RECORDS:,} records sent" in shown
    marks = len(re.findall(r'<path class="point"', shown))
    assert marks == sum(result["faults"].values())


def test_an_interruption_leaves_nothing_running(server_directory: Path) -> None:
    command = _command(server_directory / "interrupted")
    with hearing_ctrl_c():
        chaos = subprocess.Popen(
            command, cwd=REPOSITORY, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    with chaos:
        assert chaos.stderr is not None
        # After the reshard, the second wave is under way and things are being broken.
        assert any("resharded:" in line for line in chaos.stderr), "it ended before it was interrupted"
        started = [process.pid for process in psutil.Process(chaos.pid).children(recursive=True)]
        with all_end(started):
            chaos.send_signal(signal.SIGINT)
            said = chaos.stderr.read()
        assert chaos.wait(SECONDS) == 130
    assert "Nothing is left running" in said
