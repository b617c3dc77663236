"""Files from the bucket to Postgres, with an account of every line."""

from __future__ import annotations

import json
import os
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus

import pytest

from cli import uploading

if TYPE_CHECKING:
    from cli.reports import AccountAnswer, Reports
    from cli.target import Target
    from lambda_esm import StreamPoller
    from local.stack import Stack

LINES = int(os.environ.get("ONCESTREAM_LINES", "20000"))
"""Of the large file. `make test-large` takes 200,000."""


def followed(reports: Reports, upload: str) -> AccountAnswer:
    return uploading.follow(reports, upload, lambda account: None, seconds=600)


@pytest.fixture
def paused_chunks(target: Target) -> Any:
    """The mapping of the queue of chunk jobs, switched off; ``resume()`` switches it on."""
    client = target.client("lambda")
    [mapping] = client.list_event_source_mappings(FunctionName=target.output("ChunksFunctionName"))[
        "EventSourceMappings"
    ]

    def switch(*, on: bool) -> None:
        client.update_event_source_mapping(UUID=mapping["UUID"], Enabled=on)

    switch(on=False)
    yield lambda: switch(on=True)
    switch(on=True)


def test_the_same_file_again_and_its_notification_five_times_at_once_change_nothing(
    deployed: Stack, target: Target, reports: Reports, poller: StreamPoller, tmp_path: Path
) -> None:
    path = tmp_path / f"same {uuid.uuid4().hex} + ä.ndjson"
    path.write_text("".join(json.dumps({"number": number}) + "\n" for number in range(500)))
    upload = uploading.put(target, path)
    first = followed(reports, upload)

    again = uploading.put(target, path)
    notification = {
        "Records": [
            {
                "eventSource": "aws:s3",
                "eventName": "ObjectCreated:Put",
                "s3": {
                    "bucket": {"name": target.output("UploadBucketName")},
                    "object": {"key": quote_plus(path.name), "size": 1, "eTag": _etag(target, path.name)},
                },
            }
        ]
    }  # fmt: skip
    with ThreadPoolExecutor(5) as pool:
        answers = list(pool.map(lambda _: _register(target, notification), range(5)))
    assert poller.wait_until_drained(120)

    assert again == upload
    assert all("FunctionError" not in answer for answer in answers)
    last = followed(reports, upload)
    numbers = ("lines", "inserted", "rejected", "repeated", "missing")
    assert [first[name] for name in numbers] == [500, 500, 0, 0, 0]
    assert [last[name] for name in numbers] == [500, 500, 0, 0, 0]


def test_the_account_of_a_large_file_is_exact_although_every_chunk_job_comes_twice(
    target: Target, reports: Reports, paused_chunks: Any, tmp_path: Path
) -> None:
    bad, repeated = LINES // 200, LINES // 400
    path = tmp_path / f"large-{uuid.uuid4().hex}.ndjson"
    bad_lines = _write(path, bad=bad, repeated=repeated)

    upload = uploading.put(target, path, options=uploading.Options(id_field="order"))
    uploading.follow(_Until(reports, "planned"), upload, lambda account: None, seconds=120)  # type: ignore[arg-type]
    jobs = _take_jobs(target)
    for body in [*jobs, *jobs]:
        target.client("sqs").send_message(QueueUrl=target.output("ChunkQueueUrl"), MessageBody=body)
    paused_chunks()
    account = followed(reports, upload)

    assert account["state"] == "done"
    assert {name: account[name] for name in ("lines", "inserted", "rejected", "repeated", "missing")} == {
        "lines": LINES,
        "inserted": LINES - bad - repeated,
        "rejected": bad,
        "repeated": repeated,
        "missing": 0,
    }
    assert account["chunks_planned"] == len(jobs) >= 16
    rejected = reports.rejected(upload, 500) or []
    assert {row["line"]: row["raw"] for row in rejected} == dict(list(bad_lines.items())[: len(rejected)])
    assert len(rejected) == min(bad, 500)


class _Until:
    """Reports for which a state is an end."""

    def __init__(self, reports: Reports, state: str) -> None:
        self._reports = reports
        self._state = state

    def account(self, upload: str) -> AccountAnswer | None:
        account = self._reports.account(upload)
        return account | {"state": "done"} if account and account["state"] == self._state else account


def _write(path: Path, *, bad: int, repeated: int) -> dict[int, str]:
    """Write the file and return its bad lines by their numbers."""
    chosen = random.Random(20131).sample(range(2, LINES), bad + repeated)
    bad_at, repeated_at = set(chosen[:bad]), set(chosen[bad:])
    good = next(number for number in range(LINES) if number not in bad_at | repeated_at)
    bad_lines = {}
    with path.open("w") as file:
        for number in range(LINES):
            if number in bad_at:
                bad_lines[number + 1] = f"bad line {number}"
                file.write(bad_lines[number + 1] + "\n")
            else:
                order = good if number in repeated_at else number
                file.write(json.dumps({"order": f"{path.stem}-{order}", "filler": "x" * 800}) + "\n")
    return dict(sorted(bad_lines.items()))


def _take_jobs(target: Target) -> list[str]:
    queue, url = target.client("sqs"), target.output("ChunkQueueUrl")
    bodies = []
    while messages := queue.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages"):
        for message in messages:
            bodies.append(message["Body"])
            queue.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return bodies


def _register(target: Target, event: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = target.client("lambda").invoke(
        FunctionName=target.output("RegisterFunctionName"), Payload=json.dumps(event).encode()
    )
    return answer


def _etag(target: Target, key: str) -> str:
    etag: str = target.client("s3").head_object(Bucket=target.output("UploadBucketName"), Key=key)["ETag"]
    return etag.strip('"')
