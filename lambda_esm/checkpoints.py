"""Where the positions in the shards are kept. Three methods; bring your own store if these do not do."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Protocol


class CheckpointStore(Protocol):
    """Remembers the position in each shard of each mapping (see ``mapping.TRIM_HORIZON`` for what a
    position is)."""

    def load(self, mapping: str) -> dict[str, str]:
        """Positions by shard id; empty for a mapping that was never run."""

    def save(self, mapping: str, shard_id: str, position: str) -> None:
        """Remember a position. Losing it costs redeliveries, never records."""

    def clear(self, mapping: str) -> None:
        """Forget a mapping's positions: its stream was deleted, and another one has the name."""


class MemoryCheckpoints:
    """Positions for as long as the process lives."""

    def __init__(self) -> None:
        self._positions: dict[str, dict[str, str]] = {}
        self._lock = threading.Lock()

    def load(self, mapping: str) -> dict[str, str]:
        with self._lock:
            return dict(self._positions.get(mapping, {}))

    def save(self, mapping: str, shard_id: str, position: str) -> None:
        with self._lock:
            self._positions.setdefault(mapping, {})[shard_id] = position

    def clear(self, mapping: str) -> None:
        with self._lock:
            self._positions.pop(mapping, None)


class FileCheckpoints:
    """Positions in a JSON file: ``{mapping: {shard: position}}``. A poller that is started again goes on
    from there.

    The file is replaced as a whole, so a process that dies while writing leaves the old one.

    Raises
    ------
    ValueError
        The file is there and is not such a file; the message names it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._positions = _read(path)

    def load(self, mapping: str) -> dict[str, str]:
        with self._lock:
            return dict(self._positions.get(mapping, {}))

    def save(self, mapping: str, shard_id: str, position: str) -> None:
        with self._lock:
            self._positions.setdefault(mapping, {})[shard_id] = position
            self._write()

    def clear(self, mapping: str) -> None:
        with self._lock:
            if self._positions.pop(mapping, None) is not None:
                self._write()

    def _write(self) -> None:
        draft = self._path.with_name(self._path.name + ".new")
        draft.write_text(json.dumps(self._positions, indent=1, sort_keys=True))
        draft.replace(self._path)


def _read(path: Path) -> dict[str, dict[str, str]]:
    try:
        positions = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ValueError(f"{path} does not hold checkpoints: {error}") from error
    if not isinstance(positions, dict) or not all(isinstance(shards, dict) for shards in positions.values()):
        raise ValueError(f"{path} does not hold checkpoints: expected {{mapping: {{shard: position}}}}")
    return positions
