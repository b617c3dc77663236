"""Replays what ``make prove`` or a test has printed: ``python -m tests.faults.replay "History(...)"``."""

from __future__ import annotations

import sys

from tests.faults.course import Course, play
from tests.faults.history import File, History, Sent
from tests.faults.laboratory import laboratory

NAMES = {"History": History, "Sent": Sent, "File": File, "Course": Course}


def script(told: History | Course) -> str:
    """The command that replays a history, or a course of events."""
    return f'.venv/bin/python -m tests.faults.replay "{told!r}"'


def read(text: str) -> History | Course:
    """What :func:`script` wrote between the quotes."""
    told: History | Course = eval(text, {"__builtins__": {}}, NAMES)
    return told


def main() -> int:
    told = read(sys.argv[1])
    with laboratory() as harness:
        if isinstance(told, Course):
            found = play(harness, told, lambda move: sys.stdout.write(f"{move}\n") and None)
        else:
            account = harness.run(told)
            found = account.wrong
            for step in account.steps:
                names = f"{step.function:9}{step.number:4}  {step.service:9} {step.operation:28}"
                sys.stdout.write(f"{names} {step.fault or ''}\n")
    for wrong in found:
        sys.stdout.write(f"WRONG  {wrong}\n")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
