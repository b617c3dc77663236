"""Programs that the stack starts end with it, whatever ends it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from local.errors import StackError
from local.machine import REPOSITORY
from local.process import Child
from tests.ended import all_end, hearing_ctrl_c

# A program that says it is ready, has a child of its own, and then waits for ever.
PROGRAM = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, {on_sigterm})
signal.signal(signal.SIGUSR1, lambda *_: sys.exit(7))
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("ready", grandchild.pid, flush=True)
time.sleep(600)
"""


def start(tmp_path: Path, on_sigterm: str = "lambda *_: sys.exit(3)", **options: Any) -> tuple[Child, int]:
    """A child that is ready, and the id of its own child."""
    log = tmp_path / "child.log"
    os.mkfifo(log)  # so that its output can be waited for
    with subprocess.Popen(["/bin/cat", log], stdout=subprocess.PIPE, text=True) as reader:
        assert reader.stdout is not None
        child = Child(
            [sys.executable, "-c", PROGRAM.format(on_sigterm=on_sigterm)],
            log=log,
            environment={"PATH": os.environ["PATH"], "ONLY": "this"},
            directory=tmp_path,
            **options,
        )
        word, grandchild = reader.stdout.readline().split()
        assert word == "ready"
        reader.terminate()
    return child, int(grandchild)


def test_a_child_gets_the_environment_it_is_given_and_no_other(tmp_path: Path) -> None:
    child, _ = start(tmp_path)
    environment = psutil.Process(child.pid).environ()
    child.stop()
    assert environment.keys() - {"LC_CTYPE"} == {"PATH", "ONLY"}


def test_stop_sends_the_stop_signal_and_returns_the_exit_status(tmp_path: Path) -> None:
    child, grandchild = start(tmp_path)
    assert child.is_running
    with all_end([child.pid, grandchild]):
        assert child.stop() == 3
    assert not child.is_running


def test_stop_can_send_another_signal(tmp_path: Path) -> None:
    child, _ = start(tmp_path)
    assert child.stop("SIGUSR1") == 7


def test_stopping_twice_is_harmless(tmp_path: Path) -> None:
    child, _ = start(tmp_path)
    assert child.stop() == child.stop() == 3


def test_a_child_that_ignores_its_stop_signal_is_killed_after_its_grace(tmp_path: Path) -> None:
    child, grandchild = start(tmp_path, on_sigterm="signal.SIG_IGN", grace=0.2)
    with all_end([child.pid, grandchild]):
        assert child.stop() == 128 + signal.SIGKILL


def test_a_child_that_ends_by_itself_leaves_no_children(tmp_path: Path) -> None:
    child, grandchild = start(tmp_path)
    with all_end([child.pid, grandchild, child.guard_pid]):
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait(30) == 128 + signal.SIGKILL


def test_a_child_dies_with_its_guard(tmp_path: Path) -> None:
    child, grandchild = start(tmp_path)
    with all_end([child.pid]):
        os.kill(child.guard_pid, signal.SIGKILL)
    assert psutil.pid_exists(grandchild)
    os.kill(grandchild, signal.SIGKILL)  # nobody is left to see to it


def test_ctrl_c_and_a_signal_to_the_whole_group_do_not_reach_a_child(tmp_path: Path) -> None:
    child, _ = start(tmp_path)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child.guard_pid, number)
    assert os.getsid(child.pid) != os.getsid(0)
    assert child.is_running
    assert child.stop() == 3


def test_a_program_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=r"Could not start /no/such/program: .*No such file"):
        Child(["/no/such/program"], log=tmp_path / "log", environment={}, directory=tmp_path)


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StackError, match=f"Could not work in {tmp_path / 'missing'}"):
        Child(
            [sys.executable], log=tmp_path / "missing" / "log", environment={}, directory=tmp_path / "missing"
        )


OWNER = """
import json, sys, time
from pathlib import Path
from local.ministack import MiniStack
from local.postgres import Postgres

with Postgres(Path(sys.argv[1]) / "postgres", durable=False) as p, MiniStack(Path(sys.argv[1]) / "ministack") as m:
    print(json.dumps([p.pid, m.pid]), flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_whatever_ends_the_owner_ends_postgres_and_ministack(number: int, server_directory: Path) -> None:
    directory = server_directory / "owner"  # the next owner finds what a killed one leaves
    directory.mkdir(exist_ok=True)
    with hearing_ctrl_c():
        owner = subprocess.Popen(
            [sys.executable, "-c", OWNER, directory],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        )
    assert owner.stdout is not None
    try:
        servers = json.loads(owner.stdout.readline())
        started = [process.pid for process in psutil.Process(owner.pid).children(recursive=True)]
        assert set(servers) < set(started)
        with all_end([owner.pid, *started]):
            owner.send_signal(number)
            owner.wait(30)
    finally:
        owner.stdout.close()
        owner.kill()


def test_it_gets_ready_when_it_says_so(tmp_path: Path) -> None:
    child, _ = start(tmp_path)
    looks = iter([False, False, True])
    assert child.gets_ready(lambda: next(looks))
    child.stop()


def test_it_does_not_get_ready_when_it_has_ended_whatever_answers_in_its_place(tmp_path: Path) -> None:
    child, _ = start(tmp_path)

    def answers_when_it_has_ended() -> bool:
        child.stop()
        return True

    assert not child.gets_ready(answers_when_it_has_ended)
    assert not child.gets_ready(lambda: True)
