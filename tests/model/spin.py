"""Runs spin on consumer.pml: translate, compile, search every state. Needs ``spin`` and ``gcc``."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

MODEL = Path(__file__).with_name("consumer.pml")
LOST, DUPLICATED, BLOCKED = "lost", "duplicated", "blocked"
"""What an account says (tests/faults/account.py, history.py). All other violations are rules about claims."""

_DEPTH = 2_000_000
_MEGABYTES = 8_000
_STATES = re.compile(r"^ *([\d.e+]+) states, stored", re.MULTILINE)
_ASSERTION = re.compile(r"assertion violated\s+!\((\w+)\)")


@dataclass(frozen=True)
class Found:
    """What a search has found: the names of what was violated, and how many states there are."""

    violations: frozenset[str]
    states: int


class SpinError(Exception):
    """A search that did not come to its end, so that it says nothing. The message holds spin's own."""


def missing() -> str:
    """What keeps the model from being checked here; empty: nothing."""
    wanted = [name for name in ("spin", "gcc") if not shutil.which(name)]
    return f"{' and '.join(wanted)} not found: apt-get install spin gcc" if wanted else ""


def search(scenario: str, faults: int, switches: tuple[str, ...] = (), *, liveness: bool = False) -> Found:
    """Search the whole of a scenario.

    Parameters
    ----------
    scenario
        ``SAME``, ``OVERLAP`` or ``CONTENT``; see consumer.pml.
    faults
        How many faults there are at most in a run.
    switches
        Names that consumer.pml looks for with ``#ifdef``.
    liveness
        Whether to look for runs that never end (under weak fairness) instead of for broken rules. The search
        ends at the first. Without it all violations are found.

    Raises
    ------
    SpinError
        The model cannot be translated, or the search ran out of depth or memory.
    """
    names = [f"-D{name}" for name in (scenario, f"FAULTS={faults}", *switches)]
    kind = ["-DNFAIR=3"] if liveness else ["-DSAFETY", "-DNOCLAIM"]
    # To optimise takes longer than a small search. COLLAPSE halves the memory and doubles the time.
    large = ["-O2", "-DCOLLAPSE"] if faults > 1 else ["-O2"] if liveness else ["-O0"]
    options = ["-a", "-f", "-c1"] if liveness else ["-c0"]
    with tempfile.TemporaryDirectory() as directory:
        _run(directory, "spin", "-a", *names, str(MODEL))
        _run(directory, "gcc", "-w", *large, *kind, f"-DMEMLIM={_MEGABYTES}", "-o", "pan", "pan.c")
        told = _run(directory, "./pan", f"-m{_DEPTH}", *options)
    violations = set(_ASSERTION.findall(told))
    if "acceptance cycle" in told:
        violations.add(BLOCKED)
    states = _STATES.search(told)
    unfinished = "Search not completed" in told and not (liveness and violations)
    if not states or unfinished or "error:" in told or "invalid end state" in told.partition("(Spin")[0]:
        raise SpinError(told)
    return Found(frozenset(each.replace("_", " ") for each in violations), int(float(states[1])))


def _run(directory: str, *command: str) -> str:
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SpinError(f"{command[0]} ended with {done.returncode}: {done.stdout}{done.stderr}")
    return done.stdout
