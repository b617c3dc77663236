"""The metrics that functions of the local stack have put out, read back from their logs.

A function writes metrics as log lines in the embedded metric format, from which CloudWatch would make metrics; the
emulator keeps the lines. The format: docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/,
CloudWatch_Embedded_Metric_Format_Specification.html.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

from local.stack import NAME


def totals(logs: Any, service: str) -> Counter[str]:
    """The sum of every metric that a function has put out so far.

    Parameters
    ----------
    logs
        A client of CloudWatch Logs.
    service
        The function's service name, e.g. ``consumer``: its log group is named after it.
    """
    sums: Counter[str] = Counter()
    for message in messages(logs, service):
        if '"_aws"' not in message:
            continue
        try:
            document = json.loads(message)
        except ValueError:
            continue  # a log line that happens to hold the word
        for directive in document.get("_aws", {}).get("CloudWatchMetrics", []):
            for metric in directive["Metrics"]:
                value = document[metric["Name"]]
                sums[metric["Name"]] += int(sum(value) if isinstance(value, list) else value)
    return sums


def messages(logs: Any, service: str) -> list[str]:
    """Every line in the log of a function; none if it has not run."""
    found: list[str] = []
    group = f"/aws/lambda/{NAME}/{service}"
    try:
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group):
            found += [event["message"] for event in page["events"]]
    except logs.exceptions.ResourceNotFoundException:
        pass
    return found
