"""The container engine and the Lambda base image: found, or made on this machine; or a reason why not.

Where no engine runs, one is started if ``ONCESTREAM_DOCKERD`` is set (``make test-sam`` sets it), dockerd is installed
and we are root. It has its own directory under ``.local/`` and ends with the tests.

Where the base image cannot be pulled, a stand-in is built: Debian 13, whose Python is the runtime's 3.13, with AWS's
own runtime interface client. It differs from the real image in the operating system's libraries and in where Python
is: what runs in it is likely to run in the real one, and not shown to. It is labelled as a stand-in, and the tests say
so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from local.containers import NoEngineError, ask
from local.machine import REPOSITORY, TOOLS, failure, tail, user_environment
from local.process import Child

TAG = "public.ecr.aws/lambda/python:3.13-x86_64"
DIRECTORY = REPOSITORY / ".local" / "docker"
IMAGE_ROOT = REPOSITORY / ".local" / "lambda-image"
ARCHIVE = IMAGE_ROOT / "root.tar"
RUNTIME_CLIENT = "awslambdaric==4.2.2"
PULL_SECONDS = 300.0
BOOTSTRAP = """#!/bin/sh
export PYTHONPATH=/var/runtime:/var/task
exec /usr/bin/python3.13 -m awslambdaric "$_HANDLER"
"""
# What SAM starts under a debugger, with the Python at /var/lang/bin: the real image has both.
DEBUGGED_BOOTSTRAP = """import os, runpy, sys
sys.path[:0] = ["/var/runtime", "/var/task"]
sys.argv = ["awslambdaric", os.environ["_HANDLER"]]
runpy.run_module("awslambdaric", run_name="__main__")
"""


def start_engine() -> Child | None:
    """See that an engine answers; returns the daemon if one had to be started for it.

    Sets DOCKER_HOST for this process then.

    Raises
    ------
    NoEngineError
        None answers, and none can be started.
    """
    try:
        ask("ping")
    except NoEngineError as error:
        nobody = str(error)
    else:
        return None
    dockerd = shutil.which("dockerd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
    if not os.environ.get("ONCESTREAM_DOCKERD"):
        raise NoEngineError(f"no container engine answers, and none is to be started here ({nobody})")
    if dockerd is None or os.geteuid() != 0:
        why = "dockerd is not installed" if dockerd is None else "only root could start one"
        raise NoEngineError(f"no container engine answers, and {why} ({nobody})")
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    socket, log = DIRECTORY / "sock", DIRECTORY / "dockerd.log"
    log.unlink(missing_ok=True)
    daemon = Child(
        [
            dockerd,
            f"--host=unix://{socket}",
            f"--data-root={DIRECTORY / 'data'}",
            f"--exec-root={DIRECTORY / 'exec'}",
            f"--pidfile={DIRECTORY / 'pid'}",
        ],
        log=log,
        environment=user_environment(),
        directory=DIRECTORY,
        grace=30.0,
    )
    os.environ["DOCKER_HOST"] = f"unix://{socket}"
    if daemon.gets_ready(_answers):
        return daemon
    daemon.stop()
    raise NoEngineError(f"dockerd does not get ready; the end of its log, {log}:\n{tail(log, 5)}")


def _answers() -> bool:
    try:
        ask("ping")
    except NoEngineError:
        return False
    return True


def prepare_image() -> str:
    """See that the base image is there. Answers what it is: ``image`` or ``stand-in``.

    Raises
    ------
    NoEngineError
        It cannot be pulled, and what a stand-in is made with is not here.
    """
    try:
        return ask("has", TAG)
    except NoEngineError:
        pass
    try:
        ask("pull", TAG, seconds=PULL_SECONDS)
    except NoEngineError as error:
        _build_archive(error)
        ask("import", TAG, str(ARCHIVE), seconds=300)
    return ask("has", TAG)


def _build_archive(not_pulled: NoEngineError) -> None:
    """Build the stand-in's root file system; kept for the next time."""
    if ARCHIVE.exists():
        return
    debootstrap = shutil.which("debootstrap", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if debootstrap is None or os.geteuid() != 0:
        why = "debootstrap is not installed" if debootstrap is None else "only root can build a stand-in"
        raise NoEngineError(f"the base image cannot be pulled, and {why} ({not_pulled})")
    shutil.rmtree(IMAGE_ROOT, ignore_errors=True)
    root, log = IMAGE_ROOT / "root", IMAGE_ROOT / "build.log"
    runtime = root / "var" / "runtime"
    IMAGE_ROOT.mkdir(parents=True)
    steps: list[list[str | Path]] = [
        # Without a mirror named, debootstrap takes its own default.
        [debootstrap, "--variant=minbase", "--include=python3,ca-certificates", "trixie", root],
        [
            *(TOOLS / "sam" / "bin" / "python", "-m", "pip", "install", "--quiet"),
            *("--disable-pip-version-check", "--only-binary=:all:", "--target", runtime, RUNTIME_CLIENT),
        ],
    ]
    for step in steps:
        _run(step, log)
    (runtime / "bootstrap").write_text(BOOTSTRAP)
    (runtime / "bootstrap").chmod(0o755)
    (runtime / "bootstrap.py").write_text(DEBUGGED_BOOTSTRAP)
    (root / "var" / "lang" / "bin").mkdir(parents=True)
    (root / "var" / "lang" / "bin" / "python3.13").symlink_to("/usr/bin/python3.13")
    (root / "var" / "task").mkdir(exist_ok=True)
    for cache in ("var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(root / cache, ignore_errors=True)
    unfinished = ARCHIVE.with_suffix(".new")
    _run(["tar", "-C", root, "-c", "-f", unfinished, "."], log)
    unfinished.rename(ARCHIVE)
    shutil.rmtree(root)


def _run(command: list[str | Path], log: Path) -> None:
    with log.open("ab") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=user_environment(DEBIAN_FRONTEND="noninteractive"),
            check=False,
        )
    if done.returncode:
        raise NoEngineError(str(failure(f"{Path(command[0]).name} failed.", log, 5)))
