"""The command ``lambda-esm`` against emulators that others made: thousands of records over several shards, a quarter of
the invocations fail, shards are split and merged while records wait, and the poller is killed and started again.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest

from local.machine import REPOSITORY, free_port
from tests.esm.checker import read_log, violations
from tests.moto_server import moto_server, wait_for

RECORDS = int(os.environ.get("ONCESTREAM_RECORDS", "3000"))
KEYS, SHARDS, KILLS = 40, 4, 4
PATIENCE = 300
KINESALITE = REPOSITORY / ".local" / "tools" / "kinesalite" / "node_modules" / "kinesalite" / "cli.js"
AWS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def kinesalite() -> Iterator[str]:
    port = free_port()
    quick = ["--createStreamMs", "0", "--updateStreamMs", "0", "--deleteStreamMs", "0", "--shardLimit", "100"]
    process = subprocess.Popen(
        ["node", KINESALITE, "--port", str(port), *quick],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(params=["kinesalite", "moto", "ministack"])
def endpoint(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(its name, its URL)."""
    name = str(request.param)
    if name == "ministack":
        yield name, request.getfixturevalue("ministack").endpoint
        return
    with kinesalite() if name == "kinesalite" else moto_server() as url:
        yield name, url


class Stream:
    """A stream, what was put on it, and what the function noted."""

    def __init__(self, url: str, folder: Path, name: str = "records") -> None:
        self.name = name
        self.url = url
        self.sent: Counter[str] = Counter()
        self.log = folder / "log.ndjson"
        self._folder = folder
        self._kinesis: Any = boto3.client(
            "kinesis",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )

    def create(self) -> None:
        self._kinesis.create_stream(StreamName=self.name, ShardCount=SHARDS)
        self._settle()

    def make_again(self) -> None:
        self._kinesis.delete_stream(StreamName=self.name)
        self._kinesis.get_waiter("stream_not_exists").wait(StreamName=self.name, WaiterConfig={"Delay": 1})
        self.create()

    def put(self, number: int) -> None:
        records = []
        for index in range(number):
            key = f"k{index % KEYS}"
            records.append({"PartitionKey": key, "Data": f"{key}:{self.sent[key]}".encode()})
            self.sent[key] += 1
        for start in range(0, number, 500):
            answer = self._kinesis.put_records(StreamName=self.name, Records=records[start : start + 500])
            assert answer["FailedRecordCount"] == 0

    def split(self) -> None:
        """Divide the largest open shard."""
        shard = max(self._open(), key=lambda each: _end(each) - _start(each))
        middle = (_start(shard) + _end(shard)) // 2
        self._kinesis.split_shard(
            StreamName=self.name, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle)
        )
        self._settle()

    def merge(self) -> None:
        """Join the first two open shards that lie side by side."""
        one, other = sorted(self._open(), key=_start)[:2]
        self._kinesis.merge_shards(
            StreamName=self.name, ShardToMerge=one["ShardId"], AdjacentShardToMerge=other["ShardId"]
        )
        self._settle()

    def start(self, *options: str, module: str = "lambda_esm") -> subprocess.Popen[str]:
        command = [sys.executable, "-m", module, "--endpoint", self.url, "--stream", self.name]
        command += ["--handler", "tests.esm.recorder:handler", "--batch-size", "20", "--poll", "0.05"]
        command += ["--retry-delay", "0.01", "--retry-delay-limit", "0.05", "--parallelization-factor", "2"]
        command += ["--checkpoints", str(self._folder / "checkpoints.json"), "--json", *options]
        return subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=os.environ | AWS | {"ESM_LOG": str(self.log)},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def drain(self, module: str = "lambda_esm") -> dict[str, Any]:
        """Run the poller until everything is settled; the last line that it wrote."""
        process = self.start("--until-drained", "--timeout", str(PATIENCE), module=module)
        output, _ = process.communicate(timeout=PATIENCE + 30)
        assert process.returncode == 0, output[-2_000:]
        return json.loads(output.splitlines()[-1])  # type: ignore[no-any-return]

    def kill_after(self, lines: int) -> None:
        """Start the poller, and kill it when the function has noted so many more lines."""
        before = len(read_log(self.log))
        process = self.start()
        deadline = time.monotonic() + PATIENCE
        while len(read_log(self.log)) < before + lines:
            assert process.poll() is None, "the poller ended by itself"
            assert time.monotonic() < deadline, "the poller delivers nothing"
            time.sleep(0.02)
        process.kill()
        process.communicate()

    def _open(self) -> list[Any]:
        shards = self._kinesis.list_shards(StreamName=self.name)["Shards"]
        return [each for each in shards if "EndingSequenceNumber" not in each["SequenceNumberRange"]]

    def _settle(self) -> None:
        self._kinesis.get_waiter("stream_exists").wait(StreamName=self.name, WaiterConfig={"Delay": 1})


def _start(shard: Any) -> int:
    return int(shard["HashKeyRange"]["StartingHashKey"])


def _end(shard: Any) -> int:
    return int(shard["HashKeyRange"]["EndingHashKey"])


def test_nothing_is_lost_and_each_key_is_in_order(endpoint: tuple[str, str], tmp_path: Path) -> None:
    """Splits and merges are for kinesalite alone, which keeps the records of a parent as AWS does: moto puts them on
    the stream a second time, and MiniStack deletes them.
    """
    name, url = endpoint
    stream = Stream(url, tmp_path, f"records-{os.getpid()}")
    stream.create()
    reshards = [stream.split, stream.merge, stream.split, stream.merge]
    for turn in range(KILLS):
        stream.put(RECORDS // (KILLS + 1))
        if name == "kinesalite":
            reshards[turn]()
            stream.put(KEYS * 2)
        stream.kill_after(20)
    stream.put(RECORDS - RECORDS * KILLS // (KILLS + 1))
    end = stream.drain()

    log = read_log(stream.log)
    assert violations(stream.sent, log) == []
    begun = sum(line["what"] == "begun" for line in log)
    assert sum(line["what"] == "done" for line in log) < begun, "no invocation failed"
    assert end["discarded"] == 0
    print(  # noqa: T201 - the figures of the docs
        f"\n{name}: {stream.sent.total():,} records, {begun:,} invocations, {KILLS} kills"
    )


def test_the_checker_finds_a_poller_without_the_rule_of_parents(tmp_path: Path) -> None:
    with kinesalite() as url:
        stream = Stream(url, tmp_path)
        stream.create()
        stream.put(1_000)
        for _ in range(SHARDS):
            stream.split()
        stream.put(1_000)
        stream.drain(module="tests.esm.without_parents")

    found = violations(stream.sent, read_log(stream.log))
    assert any("began before" in each for each in found)


@pytest.mark.parametrize("name", ["kinesalite", "moto"])
def test_a_stream_that_was_made_again_is_read_anew(name: str, tmp_path: Path) -> None:
    with kinesalite() if name == "kinesalite" else moto_server() as url:
        stream = Stream(url, tmp_path)
        stream.create()
        stream.put(200)
        stream.drain()
        time.sleep(1.1)  # kinesalite tells when a stream was made in whole seconds
        stream.make_again()
        stream.put(100)
        stream.drain()

    assert violations(stream.sent, read_log(stream.log)) == []
