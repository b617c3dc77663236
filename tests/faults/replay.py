"""Replays a history that ``make prove`` has printed: ``python -m tests.faults.replay "History(...)"``."""

from __future__ import annotations

import sys

from tests.faults.history import File, History, Sent
from tests.faults.laboratory import laboratory

NAMES = {"History": History, "Sent": Sent, "File": File}


def script(history: History) -> str:
    """The command that replays a history."""
    return f'.venv/bin/python -m tests.faults.replay "{history!r}"'


def main() -> int:
    history: History = eval(sys.argv[1], {"__builtins__": {}}, NAMES)
    with laboratory() as harness:
        account = harness.run(history)
    for step in account.steps:
        line = f"{step.function:9}{step.number:4}  {step.service:9} {step.operation:28} {step.fault or ''}"
        sys.stdout.write(f"{line}\n")
    for wrong in account.wrong:
        sys.stdout.write(f"WRONG  {wrong}\n")
    return bool(account.wrong)


if __name__ == "__main__":
    sys.exit(main())
