"""A contestant in a process of its own, as in an execution environment of Lambda's: ``python -m
bench.worker NAME``.

Commands come as lines of JSON on standard input, each is answered by one on what was standard output. What
the contestant prints goes to /dev/null (its logs are part of its work, reading them is not).
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from types import SimpleNamespace
from typing import Any

from bench import crash
from bench.memory import peak_bytes
from bench.records import event

TIMEOUT_SECONDS = 900.0
"""Lambda's longest timeout, so that the slow are measured to their end."""


def main(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    handler: Any = None
    for line in sys.stdin:
        command = json.loads(line)
        match command.pop("do"):
            case "start":
                started = time.perf_counter()
                handler = importlib.import_module(f"bench.contestants.{name}").handler
                answer = {"seconds": time.perf_counter() - started}
            case "run":
                answer = run(handler, **command)
            case "crash":  # no answer: the next invocation is killed
                crash.arm(command["when"])
                answer = {}
        answers.write(json.dumps(answer) + "\n")


def run(
    handler: Any,
    *,
    dataset: Any,
    size: int,
    tag: str,
    poisoned: bool,
    timeout: float = TIMEOUT_SECONDS,
) -> dict[str, Any]:
    """Invoke the handler once; the clock runs from the event to the answer."""
    invocation = event(dataset, size, tag, poisoned=poisoned)
    deadline = time.monotonic() + timeout
    context = SimpleNamespace(
        function_name="bench",
        function_version="$LATEST",
        memory_limit_in_mb=1024,
        invoked_function_arn="arn:aws:lambda:us-east-1:000000000000:function:bench",
        aws_request_id=tag,
        get_remaining_time_in_millis=lambda: max(0, int((deadline - time.monotonic()) * 1000)),
    )
    gc.collect()
    error = None
    response = None
    cpu, wall = time.process_time(), time.perf_counter()
    try:
        response = handler(invocation, context)
    except Exception as raised:  # noqa: BLE001 - whatever a contestant raises is its result: Lambda retries the batch
        error = f"{type(raised).__name__}: {raised}".splitlines()[0][:200]
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    failures = response.get("batchItemFailures", []) if isinstance(response, dict) else []
    return {
        "wall": wall,
        "cpu": cpu,
        "error": error,
        "failures": len(failures),
        "peak_bytes": peak_bytes(),
    }


if __name__ == "__main__":
    main(sys.argv[1])
