"""Runs one command and makes sure that it does not outlive the process that wanted it.

Started by ``local.process.Child`` as ``python -I -S guard.py USER|- SIGNAL GRACE COMMAND...``, it holds the
reading end of a pipe. As long as the other end is open, the command runs. When it closes, because the owner
asked for it or because the owner is gone (whatever ended it, SIGKILL included), the command gets SIGNAL, and
after GRACE seconds its whole process group gets SIGKILL. The owner may write another signal's name before it
closes the pipe.

Why not PR_SET_PDEATHSIG alone: it fires when the *thread* that started the child ends, and it does not reach
grandchildren (MiniStack's function workers). It serves here for the one case that a pipe cannot see, the
death of the guard itself.

Output: the command's goes to standard error. Standard output carries one line, ``pid N`` or ``error TEXT``.
Only the standard library is used, and little of it: the guard is ready in some 20 milliseconds.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable

PR_SET_PDEATHSIG = 1  # linux/prctl.h


def _die_with_guard(number: int) -> Callable[[], object] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl  # loaded before the fork: after it, only the call is left to do
    return lambda: prctl(PR_SET_PDEATHSIG, number)


def _kill_group(group: int) -> None:
    with contextlib.suppress(
        ProcessLookupError, PermissionError
    ):  # nobody is left (macOS: EPERM, all zombies)
        os.killpg(group, signal.SIGKILL)


def _watch(child: subprocess.Popen[bytes], signal_name: str, grace: float) -> None:
    asked = sys.stdin.readline().strip()
    child.send_signal(getattr(signal, asked or signal_name))
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        _kill_group(child.pid)


def main(user: str, signal_name: str, grace: str, *command: str) -> int:
    """Run the command and return its exit status (128 + N when signal N ended it)."""
    # The owner decides when the command ends, not whoever signals a whole group of processes. A handler that
    # does nothing rather than SIG_IGN: the command would inherit that, and be deaf to the signals itself.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: None)
    identity = None if user == "-" else user
    groups: Iterable[str] | None = None if identity is None else ()
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            # Unsafe when there are threads; here are none yet.
            preexec_fn=_die_with_guard(getattr(signal, signal_name)),  # noqa: PLW1509
            user=identity,
            group=identity,
            extra_groups=groups,
        )
    except (OSError, LookupError, subprocess.SubprocessError) as error:
        print(f"error {error}", flush=True)
        return 127
    print(f"pid {child.pid}", flush=True)
    threading.Thread(target=_watch, args=(child, signal_name, float(grace)), daemon=True).start()
    code: int = child.wait()
    _kill_group(child.pid)  # what the command left behind
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
