"""The memory of a chunk job stays flat, whatever its file's size, its lines' length and its compression."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]

# What is held at most, for any file: a segment of the object, what waits for the stream (16 MiB), a request (5 MiB).
GROWTH_MIB = 80


@pytest.mark.parametrize(
    ("file", "mebibytes", "lines"),
    [
        ("4kb-lines.ndjson", 1024, 247_025),
        ("4kb-lines.ndjson.gz", 192, 46_272),
        ("one-line.ndjson", 1024, 1),
        ("bad-lines.ndjson", 256, 383),
        ("flights.csv", 4, 47_660),
        ("4kb-elements.json", 192, 46_273),
        ("4kb-elements.json.gz", 192, 46_273),
    ],
)
def test_a_file_of_any_size_takes_the_memory_of_a_small_one(file: str, mebibytes: int, lines: int) -> None:
    program = REPOSITORY / "bench" / "chunk_memory.py"
    run = subprocess.run(
        [sys.executable, program, "--mebibytes", str(mebibytes), file],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
        text=True,
    )
    measured = json.loads(run.stdout)
    assert measured["lines"] == lines
    assert measured["grown_mib"] < GROWTH_MIB
