"""What the local stack asks of the machine: a free port, room on the disk, the tools of ``make setup``."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

from local.errors import StackError

REPOSITORY = Path(__file__).resolve().parent.parent
TOOLS = REPOSITORY / ".local" / "tools"
LOOPBACK = "127.0.0.1"
DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


def free_port(host: str = LOOPBACK) -> int:
    """A TCP port that nothing listens on now. Somebody may take it before its user does: ask again then."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


def require_free_port(port: int, what: str, host: str = LOOPBACK) -> None:
    """Check that ``port`` can be listened on.

    Raises
    ------
    StackError
        It is in use, not allowed, or not a port.
    """
    if not 0 < port < 65536:
        raise StackError(f"{what} cannot listen on port {port}: ports go from 1 to 65535. Give another one.")
    try:
        with socket.socket() as probe:
            # As the servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise StackError(
                f"Port {port} is in use, so {what} cannot listen on {host}:{port}. Stop what uses it "
                f"(`ss -ltnp 'sport = :{port}'` shows it), or give another port, or none to take a free one."
            ) from error
        raise StackError(
            f"{what} cannot listen on {host}:{port}: {error.strerror}. Give another one."
        ) from error


def require_space(directory: Path, needed: int) -> None:
    """Check that ``needed`` bytes are free where ``directory`` is or will be.

    Raises
    ------
    StackError
        There is less.
    """
    existing = next(place for place in (directory, *directory.absolute().parents) if place.exists())
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise StackError(
            f"The disk is full: {directory} needs about {needed / 1e6:,.0f} MB, and {free / 1e6:,.0f} MB are "
            "free. Free some space (`make clean` removes what this project has built), then run this again."
        )


def directory_error(error: OSError, directory: Path) -> StackError:
    """What to raise for an ``OSError`` met while the stack works in ``directory``."""
    if error.errno in DISK_FULL:
        return StackError(f"The disk is full: {error}. Free some space, then run this again.")
    return StackError(
        f"Could not work in {directory}: {error}. Make it writable or choose another directory."
    )


def failure(what: str, log: Path, lines: int = 20) -> StackError:
    """What to raise when a program of the stack failed: the sentence ``what``, and the end of its log."""
    if os.strerror(errno.ENOSPC) in tail(log, 200):
        what = f"The disk is full: {what} Free some space, then run this again."
    return StackError(f"{what} The end of its log, {log}:\n{tail(log, lines)}")


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, indented for a message; a sentence when there is none."""
    try:
        text = log.read_text(errors="replace")
    except OSError as error:
        return f"  (no log: {error})"
    return "\n".join(f"  {line}" for line in text.splitlines()[-lines:]) or "  (the log is empty)"


def require_tool(name: str, program: str) -> Path:
    """The path of ``program`` in the environment of the tool ``name`` (``.local/tools/NAME``).

    Raises
    ------
    StackError
        The environment is not there, or its Python is gone.
    """
    path = TOOLS / name / "bin" / program
    # A missing .ready shows a setup that was cut short; a dangling link, a Python that was removed since.
    if not (TOOLS / name / ".ready").exists() or not os.access(path, os.X_OK):
        raise StackError(
            f"{name} is not installed: {path} is missing or unfinished. "
            "Run `make setup` (it needs Python 3.13), then run this again."
        )
    return path


def user_environment(**more: str) -> dict[str, str]:
    """Our own environment without AWS, SAM and Python settings, which belong to other work than ours.

    For programs that need what else there is: pip wants its index, proxy and certificates.
    """
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "SAM_", "PYTHON"))
    }
    return kept | more


def clean_environment(home: Path, **more: str) -> dict[str, str]:
    """The environment for the stack's own programs: nothing of the user's AWS, Python or proxy settings.

    Programs find ``home`` as their home and temporary directory, so that they leave nothing elsewhere and
    read no configuration that would make one machine differ from another.
    """
    kept = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ")
    ours = {"HOME": str(home), "TMPDIR": str(home)}
    return {name: os.environ[name] for name in kept if name in os.environ} | ours | more
