"""The most memory that a process has used: of itself alone, where the system says so."""

from __future__ import annotations

import resource
import sys
from pathlib import Path


def peak_bytes() -> int:
    """Peak resident memory of this process in bytes.

    Linux' VmHWM begins anew when a program is started. ``getrusage`` does not: there a child begins with the
    peak of the process that started it.
    """
    peak = peak_bytes_of("self")
    if peak is None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return peak


def peak_bytes_of(process: int | str) -> int | None:
    """Peak resident memory of a process, where Linux' /proc tells it; None elsewhere, or when it has ended."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
    except OSError:
        return None
    line = next((line for line in status.splitlines() if line.startswith("VmHWM:")), None)
    return None if line is None else int(line.split()[1]) * 1024
