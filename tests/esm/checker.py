"""What has to hold, whatever happened: nothing lost, each key in order, nothing again without a reason."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of ``recorder.handler``."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def violations(sent: Mapping[str, int], log: Iterable[Mapping[str, Any]]) -> list[str]:
    """What is wrong with the deliveries of ``sent`` (keys, with the number of their records; a record is ``KEY:N``).

    A key's records are numbered in the order in which they were put, over all shards that the key was ever in. So a
    parent that comes after its child shows as a record that begins before its forerunner is done.
    """
    found = []
    done: dict[str, int] = dict.fromkeys(sent, 0)
    done_by: dict[str, set[int]] = {}
    for line in log:
        begun = dict(done)
        for record in line["records"]:
            key, _, text = record.partition(":")
            number = int(text)
            if line["what"] == "done":
                done[key] = max(done[key], number + 1)
                done_by.setdefault(record, set()).add(line["pid"])
                continue
            if number > begun[key]:
                found.append(f"{record} began before {key}:{number - 1} was done")
            begun[key] = max(begun[key], number + 1)
            if line["pid"] in done_by.get(record, ()):
                found.append(f"{record} came again, and the process that had done it still ran")
    found += [f"{key}:{number} was lost" for key in sent for number in range(done[key], sent[key])]
    return found
