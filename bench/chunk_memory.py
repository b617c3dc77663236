"""Peak memory and speed of uploads/chunks on files that are made while they are read, never kept.

Everything is the function's own but for the services: S3 makes the bytes of a range when it is asked for them, and
Kinesis counts what it is given. Each file is one chunk, which is the hardest case, and has a process of its own.

    python bench/chunk_memory.py [--mebibytes 1024] [FILE ...]

prints one JSON object a file: ``grown_mib`` is the peak of the process over what it had before the file.
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

MEBIBYTE = 1024 * 1024
UPLOAD = "0123456789abcdef0123456789abcdef"
FLIGHT = {
    "year": 2013, "month": 1, "day": 1, "dep_time": 517, "sched_dep_time": 515, "dep_delay": 2, "arr_time": 830,
    "sched_arr_time": 819, "arr_delay": 11, "carrier": "UA", "flight": 1545, "tailnum": "N14228", "origin": "EWR",
    "dest": "IAH", "air_time": 227, "distance": 1400, "hour": 5, "minute": 15, "time_hour": "2013-01-01T10:00:00Z",
}  # fmt: skip


class Repeated:
    """A file: a beginning, then a part again and again, and an end. Any range of it is made on request."""

    def __init__(self, beginning: bytes, part: bytes, size: int, end: bytes = b"") -> None:
        self.beginning = beginning
        self.part = part
        self.end = end
        self.size = len(beginning) + max(1, size // len(part)) * len(part) + len(end)

    def get_object(self, *, Range: str, **_: Any) -> dict[str, Any]:
        """A range, as S3 answers it."""
        start, last = map(int, Range.removeprefix("bytes=").split("-"))
        data = self.beginning[start : last + 1]
        first = max(0, start - len(self.beginning)) % len(self.part)
        wanted = last + 1 - start - len(data)
        data += (self.part * (2 + wanted // len(self.part)))[first : first + wanted]
        beyond = last + 1 - (self.size - len(self.end))
        return {"Body": io.BytesIO(data[: len(data) - beyond] + self.end[:beyond] if beyond > 0 else data)}


def _lines(line: bytes) -> bytes:
    """About a mebibyte of one line."""
    return (line + b"\n") * max(1, MEBIBYTE // (len(line) + 1))


def _flight_lines(**more: str) -> bytes:
    return _lines(json.dumps(FLIGHT | more).encode())


def _elements() -> bytes:
    """About a mebibyte of elements of an array."""
    return _flight_lines(text="x" * 4000).replace(b"}\n", b"},\n")


def make(name: str, size: int) -> tuple[Repeated, dict[str, Any]]:
    """The file of this name, of about ``size`` bytes (a gzip file: unpacked), and what a job says of it."""
    csv: dict[str, Any] = {"format": "csv"}
    files: dict[str, tuple[bytes, dict[str, Any], Callable[[], bytes]]] = {
        "4kb-lines.ndjson": (b"", {}, lambda: _flight_lines(text="x" * 4000)),
        "4kb-lines.ndjson.gz": (b"", {"gzip": True}, lambda: gzip.compress(_flight_lines(text="x" * 4000))),
        "one-line.ndjson": (b"", {}, lambda: b"x" * MEBIBYTE),
        "bad-lines.ndjson": (b"", {}, lambda: _lines(b"x" * 700_000)),
        "flights.ndjson": (b"", {}, _flight_lines),
        "flights.csv": (
            ",".join(FLIGHT).encode() + b"\n",
            csv,
            lambda: _lines(",".join(map(str, FLIGHT.values())).encode()),
        ),
        "4kb-elements.json": (b"[", {"format": "json"}, _elements),
        "4kb-elements.json.gz": (
            gzip.compress(b"["),
            {"format": "json", "gzip": True},
            lambda: gzip.compress(_elements()),
        ),
        "blank-lines.ndjson.gz": (b"", {"gzip": True}, lambda: gzip.compress(b"\n" * MEBIBYTE)),
        "quoted.csv": (b"id,text\n", csv, lambda: _lines(b'17,"two\nlines, and a ""quote"""')),
    }
    beginning, about, part = files[name]
    repeated = part()
    ends = {"4kb-elements.json": b"{}]", "4kb-elements.json.gz": gzip.compress(b"{}]")}
    # A gzip file may be its members, one after the other; each is a mebibyte.
    stored = size * len(repeated) // MEBIBYTE if "gzip" in about else size
    return Repeated(beginning, repeated, stored, ends.get(name, b"")), about


FILES = (
    "4kb-lines.ndjson",
    "4kb-lines.ndjson.gz",
    "one-line.ndjson",
    "bad-lines.ndjson",
    "flights.ndjson",
    "flights.csv",
    "4kb-elements.json",
    "4kb-elements.json.gz",
    "blank-lines.ndjson.gz",
    "quoted.csv",
)


class Kinesis:
    """Takes everything, keeps nothing."""

    def __init__(self) -> None:
        self.bytes = 0

    def put_records(self, *, Records: list[dict[str, Any]], **_: Any) -> dict[str, Any]:
        """Count a request."""
        self.bytes += sum(len(record["Data"]) for record in Records)
        return {"Records": [{"SequenceNumber": "1", "ShardId": "shardId-000000000000"} for _ in Records]}


class DynamoDB:
    """Takes the chunk's count."""

    def get_item(self, **_: Any) -> dict[str, Any]:
        """No earlier delivery has left anything."""
        return {}

    def put_item(self, **_: Any) -> None:
        """Nothing comes of it."""


class Clock:
    """Time that passes only in waits: what is measured is the work, not the pace of a stream's shards."""

    def __init__(self) -> None:
        self.now = 0.0

    def time(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Wait."""
        self.now += seconds


def measure(name: str, size: int) -> dict[str, Any]:
    """Work on one file in this process."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from producer.publish import Publisher  # noqa: PLC0415
    from uploads.chunk_job import ChunkJob  # noqa: PLC0415 (the parent process stays small: its peak is inherited)
    from uploads.chunk_ledger import ChunkLedger  # noqa: PLC0415
    from uploads.chunk_worker import ChunkWorker  # noqa: PLC0415

    file, about = make(name, size)
    fields = {
        "bucket": "b",
        "key": name,
        "etag": '"e"',
        "chunk": 0,
        "start": 0,
        "format": "ndjson",
        "end": file.size,
    }
    if about.get("gzip"):
        del fields["end"]
    job = ChunkJob.model_validate(
        fields | about | {"job": f"{UPLOAD}:0", "upload": UPLOAD, "size": file.size}
    )
    clock = Clock()
    kinesis: Any = Kinesis()
    publisher = Publisher(kinesis, "s", clock=clock.time, sleep=clock.sleep)
    s3: Any = file
    dynamodb: Any = DynamoDB()
    worker = ChunkWorker(s3, publisher, ChunkLedger(dynamodb, "ledger"))
    before = _peak_mib()
    began = time.process_time()
    count = worker.work(job, lambda: 1e9)
    seconds = time.process_time() - began
    return {
        "file": name,
        "file_mib": round(file.size / MEBIBYTE, 1),
        "published_mib": round(kinesis.bytes / MEBIBYTE, 1),
        "lines": count.lines,
        "rejected": count.rejected,
        "cpu_seconds": round(seconds, 1),
        "lines_a_second": round(count.lines / seconds),
        "peak_mib": round(_peak_mib(), 1),
        "grown_mib": round(_peak_mib() - before, 1),
    }


def _peak_mib() -> float:
    # In kibibytes on Linux (getrusage(2)), in bytes on macOS.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1024 if sys.platform == "linux" else MEBIBYTE
    )


def main() -> None:
    """Measure the files, each in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--mebibytes", type=int, default=1024)
    parser.add_argument(
        "files", nargs="*", default=FILES, metavar="FILE", choices=FILES, help=", ".join(FILES)
    )
    arguments = parser.parse_args()
    with multiprocessing.get_context("spawn").Pool(1, maxtasksperchild=1) as pool:
        for name in arguments.files:
            print(json.dumps(pool.apply(measure, (name, arguments.mebibytes * MEBIBYTE))), flush=True)


if __name__ == "__main__":
    main()
