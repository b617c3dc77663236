"""Why something is refused, in one line that a person can read and a log and a text column can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pydantic import ValidationError

_MAX_REASON = 500
_SHOWN_FAULTS = 3


def printable(reason: str) -> str:
    """A reason that a log line and a text column can hold: names and values in it are the sender's."""
    start = reason[:_MAX_REASON]
    escaped = "".join(char if char.isprintable() else f"\\u{ord(char):04x}" for char in start)
    return escaped if start == reason else f"{escaped}..."


def first_of(faults: Sequence[str]) -> str:
    """Faults in one line: the first three, and how many more there are."""
    shown = list(faults[:_SHOWN_FAULTS])
    if len(faults) > len(shown):
        shown.append(f"and {len(faults) - len(shown)} more")
    return printable("; ".join(shown))


def faults_of(error: ValidationError, *within: str, words: Mapping[str, str] | None = None) -> list[str]:
    """What pydantic finds wrong, a sentence a fault: the field's path, a colon, the fault. Never the input.

    ``within`` goes before each path. ``words`` has our words for kinds of faults, where pydantic's speak of Python.
    """
    found: list[Any] = error.errors(include_url=False, include_context=False, include_input=False)
    faults = []
    for fault in found:
        path = ".".join(map(str, (*within, *fault["loc"])))
        text = (words or {}).get(fault["type"], fault["msg"].removeprefix("Value error, "))
        faults.append(f"{path}: {text}" if path else text)
    return faults
