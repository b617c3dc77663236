"""What is sent, and what has to be found afterwards: every record by its id and by a digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chaos.plan import FILES_A_WAVE, GARBAGE_A_WAVE, POISON_A_FILE, Wave

NUMBER = "chaos_number"
"""A field of every payload that no other record has: what is stored twice under two ids shows by it."""
ID_FIELD = "chaos_id"
"""The field that holds the record's id, in files that bring their own ids."""

_POISON = (
    b'{"chaos_poison": "%d-%d", "not": "closed"',
    b'{"chaos_poison": "%d-%d", "not utf-8": "\xe9"}',
    b'{"chaos_poison": "%d-%d", "nul": "\\u0000"}',
    b'["chaos poison %d-%d", "no object"]',
)


@dataclass(slots=True)
class Expected:
    """What has to be in Postgres when all is settled."""

    digests: dict[str, str] = field(default_factory=dict)
    """Of the payload of each good record, by the record's id."""
    rejected: Counter[bytes] = field(default_factory=Counter)
    """The exact bytes of the bad ones; each time they were sent from another place, another row."""

    def expect(self, record_id: str, payload: Any) -> None:
        """A good record is sent."""
        if record_id in self.digests:
            raise ValueError(f"two records with the id {record_id}: the input is wrong")
        self.digests[record_id] = digest(payload)


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file of a wave. Its lines' ids are known when it is an upload, or are in its lines."""

    path: Path
    id_field: str | None
    lines: tuple[tuple[int, dict[str, Any]], ...]
    """Of each good line: the byte offset and the payload."""
    poison: tuple[bytes, ...]

    @property
    def records(self) -> int:
        """Lines, good and bad."""
        return len(self.lines) + len(self.poison)

    def expect_in(self, expected: Expected, upload: str) -> None:
        """Note what has to be found of it, now that it is the upload ``upload``."""
        for offset, payload in self.lines:
            expected.expect(payload[self.id_field] if self.id_field else f"{upload}:{offset}", payload)
        expected.rejected.update(self.poison)


@dataclass(frozen=True, slots=True)
class WaveInput:
    """All that is sent in a wave."""

    files: tuple[InputFile, ...]
    api: tuple[dict[str, Any], ...]
    """Records as a caller of the producer function sends them: id, partition key, payload."""
    garbage: tuple[bytes, ...]
    """Bytes that are put on the stream as they are."""


def digest(payload: Any) -> str:
    """Equal for equal JSON values, whatever the order of their keys."""
    text = json.dumps(payload, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def write(wave: Wave, directory: Path, flights: Iterator[dict[str, Any]], start: int) -> WaveInput:
    """Make a wave's input from the next flights, numbered from ``start``; the files go to ``directory``."""
    numbers = iter(range(start, start + wave.records))

    def payloads(count: int) -> Iterator[dict[str, Any]]:
        for _ in range(count):
            number = next(numbers)
            yield {NUMBER: number, ID_FIELD: f"chaos-{number}"} | next(flights)

    files = tuple(
        _write_file(
            directory / f"wave-{wave.number}-{place}.ndjson",
            list(payloads(count)),
            # Every second file brings its own ids; the lines of the others get theirs from their place.
            ID_FIELD if place % 2 else None,
            [_poison(wave.number, place * POISON_A_FILE + each) for each in range(POISON_A_FILE)],
        )
        for place, count in enumerate(wave.in_files)
    )
    api = tuple(
        {"id": payload[ID_FIELD], "partition_key": str(payload[NUMBER]), "payload": payload}
        for payload in payloads(wave.through_api)
    )
    garbage = tuple(b"chaos garbage %d-%d" % (wave.number, each) for each in range(GARBAGE_A_WAVE))
    return WaveInput(files, api, garbage)


def _poison(wave: int, number: int) -> bytes:
    return _POISON[(wave * FILES_A_WAVE + number) % len(_POISON)] % (wave, number)


def _write_file(
    path: Path, payloads: list[dict[str, Any]], id_field: str | None, poison: list[bytes]
) -> InputFile:
    lines, offset = [], 0
    every = max(1, len(payloads) // (len(poison) + 1))
    waiting = list(poison)
    with path.open("wb") as file:
        for number, payload in enumerate(payloads, start=1):
            lines.append((offset, payload))
            offset += file.write(json.dumps(payload).encode() + b"\n")
            if waiting and number % every == 0:
                offset += file.write(waiting.pop() + b"\n")
        for left in waiting:
            offset += file.write(left + b"\n")
    return InputFile(path, id_field, tuple(lines), tuple(poison))
