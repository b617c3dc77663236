"""The queue of chunk jobs: calls that succeed while entries of them fail."""

from __future__ import annotations

import json
from typing import Any

import pytest

from common.errors import TransientError
from uploads.chunk_job import ChunkJob, job_id
from uploads.jobs import ChunkQueue


def job(chunk: int) -> ChunkJob:
    return ChunkJob(
        job=job_id("u", chunk), upload="u", bucket="b", key="k", etag='"e"', chunk=chunk,
        start=chunk, end=chunk + 1, size=1000, format="ndjson",
    )  # fmt: skip


class Sqs:
    """Takes every entry but those of the jobs that are to fail now."""

    def __init__(self, *failing: set[str]) -> None:
        self.failing = list(failing)
        self.calls: list[list[str]] = []
        self.taken: list[str] = []

    def send_message_batch(self, *, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
        assert QueueUrl == "url"
        assert len({entry["Id"] for entry in Entries}) == len(Entries) <= 10
        failing = self.failing.pop(0) if self.failing else set()
        jobs = {entry["Id"]: json.loads(entry["MessageBody"])["job"] for entry in Entries}
        self.calls.append(list(jobs.values()))
        failed = [name for name, job in jobs.items() if job in failing]
        self.taken += [job for name, job in jobs.items() if name not in failed]
        return {"Failed": [{"Id": name, "Code": "InternalError", "SenderFault": False} for name in failed]}


def queue(sqs: Sqs, pauses: list[float] | None = None) -> ChunkQueue:
    pauses = [] if pauses is None else pauses
    return ChunkQueue(sqs, "url", sleep=pauses.append, jitter=lambda: 0.5)  # type: ignore[arg-type]


def test_ten_jobs_a_call() -> None:
    sqs = Sqs()
    assert queue(sqs).send(map(job, range(23)), lambda: False) == 23
    assert [len(call) for call in sqs.calls] == [10, 10, 3]
    assert sqs.taken == [f"u:{chunk}" for chunk in range(23)]


def test_no_jobs_no_call() -> None:
    sqs = Sqs()
    assert queue(sqs).send([], lambda: False) == 0
    assert sqs.calls == []


def test_only_the_entries_that_failed_are_sent_again() -> None:
    sqs, pauses = Sqs({"u:1", "u:3"}, {"u:3"}), list[float]()
    assert queue(sqs, pauses).send(map(job, range(5)), lambda: False) == 5
    assert sqs.calls == [["u:0", "u:1", "u:2", "u:3", "u:4"], ["u:1", "u:3"], ["u:3"]]
    assert sorted(sqs.taken) == [f"u:{chunk}" for chunk in range(5)]
    assert pauses == [0.05, 0.1]


def test_entries_that_keep_failing_are_an_error_in_the_end() -> None:
    sqs, pauses = Sqs(*[{"u:1"}] * 20), list[float]()
    with pytest.raises(TransientError, match="1 of 3 chunk jobs could not be sent: InternalError"):
        queue(sqs, pauses).send(map(job, range(3)), lambda: False)
    assert len(sqs.calls) == 6
    assert len(pauses) == 5


def test_when_the_time_runs_short_the_rest_is_not_begun() -> None:
    sqs = Sqs()
    short = iter([False, True])
    with pytest.raises(TransientError, match="after 10 chunk jobs"):
        queue(sqs).send(map(job, range(20)), lambda: next(short))
    assert len(sqs.calls) == 1
