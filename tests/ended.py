"""Ending processes, and waiting for their end, also for those that are not our children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import time
from collections.abc import Iterable, Iterator


@contextlib.contextmanager
def all_end(pids: Iterable[int], seconds: float = 30.0) -> Iterator[None]:
    """Whatever the block does, the processes ``pids`` have to end of it, within ``seconds``.

    A process that has ended may remain as a zombie until its parent asks, so its descriptor is watched (Linux
    makes it readable at the end) and not the process table.
    """
    descriptors = {pid: os.pidfd_open(pid) for pid in pids}
    assert descriptors, "no processes to wait for"
    try:
        yield
        deadline = time.monotonic() + seconds
        still = {pid for pid, descriptor in descriptors.items() if not _ended(descriptor, deadline)}
        assert not still, f"of the processes {sorted(descriptors)}, still running: {sorted(still)}"
    finally:
        for descriptor in descriptors.values():
            os.close(descriptor)


@contextlib.contextmanager
def hearing_ctrl_c() -> Iterator[None]:
    """Processes that the block starts hear SIGINT.

    A shell without job control starts ``command &`` with SIGINT ignored, and whatever we start inherits that.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # exec makes the default of a handler
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _ended(descriptor: int, deadline: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(max(0.0, deadline - time.monotonic()) * 1000))
