"""The handler of these tests, inside ``lambda-esm``: notes what it gets, and fails in a quarter of its invocations."""

from __future__ import annotations

import base64
import json
import os
import random
from typing import Any

LOG = os.environ.get("ESM_LOG", os.devnull)
_random = random.Random(os.getpid())


def handler(event: dict[str, Any], context: Any) -> None:
    """Append a line ``{"pid", "what": "begun" or "done", "records"}`` when it begins, and when it is done."""
    records = [base64.b64decode(record["kinesis"]["data"]).decode() for record in event["Records"]]
    _note("begun", records)
    if _random.random() < 0.25:
        raise RuntimeError("a fault on purpose")
    _note("done", records)


def _note(what: str, records: list[str]) -> None:
    line = json.dumps({"pid": os.getpid(), "what": what, "records": records}) + "\n"
    log = os.open(LOG, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        os.write(log, line.encode())  # one call: it is there as a whole, or not at all
    finally:
        os.close(log)
