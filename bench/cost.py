"""What a month costs: list prices times what a record takes.

``python -m bench.cost`` prints the table of docs/deploy.md.

The requests and units of a record are those that the benchmark measures (docs/performance.md), and a test compares
where it can. The prices are the list prices of us-east-1 in US dollars, as of ``DATE``, without free tier and without
tax. AWS's own pages, which are named, fill their figures in by script and could not be read here; each figure was
compared on ``DATE`` with public texts that quote it, the youngest of which is named behind it. Nothing here asks AWS.
"""

from __future__ import annotations

from dataclasses import dataclass

DATE = "2026-11-21"
GIB = 1024**3
HOURS = 730
"""In a month, as AWS counts."""

# aws.amazon.com/kinesis/data-streams/pricing (on-demand standard; all four quoted from the AWS price list of 2026-09)
STREAM_HOUR = 0.04
STREAM_GIB_IN = 0.08
STREAM_GIB_OUT = 0.04
STREAM_GIB_MONTH = 0.10  # beyond the first day
# aws.amazon.com/dynamodb/pricing/on-demand (since 2024-11; airbyte.com/data-engineering-resources/dynamodb-pricing,
# 2025-07; storage and point-in-time recovery: READMEs of public repositories)
WRITE_UNIT = 0.625e-6
TABLE_GIB_MONTH = 0.25
TABLE_BACKUP_GIB_MONTH = 0.20  # point-in-time recovery
# aws.amazon.com/lambda/pricing (x86; READMEs of public repositories, all the same since 2024)
INVOCATION = 0.20e-6
GIB_SECOND = 0.0000166667
# aws.amazon.com/sqs/pricing, aws.amazon.com/s3/pricing (READMEs of public repositories)
QUEUE_REQUEST = 0.40e-6
S3_GIB_MONTH = 0.023
# aws.amazon.com/cloudwatch/pricing, aws.amazon.com/xray/pricing
# (factualminds.com/blog/amazon-cloudwatch-pricing-metrics-logs-alarms-dashboards, 2026-06)
ALARM = 0.10
METRIC = 0.30
LOG_GIB = 0.50
TRACE = 5e-6
# aws.amazon.com/rds/aurora/pricing (Aurora Standard; input and output, $0.20 a million, comes on top)
# (factualminds.com/blog/amazon-aurora-pricing-io-optimized-serverless-v2-global, 2026-06)
ACU_HOUR = 0.12
AURORA_GIB_MONTH = 0.10

RECORD_BYTES = 500
"""Of an assumed record, its JSON on the stream. Kinesis bills in steps of 1 KiB."""
BATCH = 1000
WRITE_UNITS = 2
"""A new record: one to claim it, one to complete it (measured: docs/performance.md)."""
ITEM_BYTES = 300
"""Of a record in the idempotency table, with the 100 bytes that DynamoDB adds."""
REMEMBERED_DAYS = 14
CHUNK_BYTES = 8 * 1024**2
CONSUMER_SECONDS = 0.4
"""Of one invocation for a batch: measured 0.2 s at 5 ms a DynamoDB call; doubled, as 1 GiB has half a processor."""
CHUNK_SECONDS_A_RECORD = 0.0002
"""Of the chunks function: assumed, 5,000 records a second."""
ALARMS, METRICS, LOG_BYTES_A_BATCH = 23, 20, 1500
ROW_BYTES = 700
"""Of a row with its keys."""


@dataclass(frozen=True, slots=True)
class Month:
    """What one month costs, in dollars."""

    stream: float
    claims: float
    functions: float
    watching: float
    files: float
    database: float

    @property
    def total(self) -> float:
        """All of it."""
        return self.stream + self.claims + self.functions + self.watching + self.files + self.database


def month(records: int, *, acu_hours: float) -> Month:
    """The costs of so many records in files, spread over a month.

    Parameters
    ----------
    acu_hours
        What the database made by the stack was up for: capacity units times hours.
    """
    batches = records / BATCH
    chunks = records * RECORD_BYTES / CHUNK_BYTES
    on_stream = records * max(RECORD_BYTES, 1024) / GIB
    remembered = records * ITEM_BYTES * REMEMBERED_DAYS / 30 / GIB
    return Month(
        stream=STREAM_HOUR * HOURS
        + on_stream * (STREAM_GIB_IN + STREAM_GIB_OUT)
        + on_stream * 6 / 30 * STREAM_GIB_MONTH,
        claims=records * WRITE_UNITS * WRITE_UNIT + remembered * (TABLE_GIB_MONTH + TABLE_BACKUP_GIB_MONTH),
        functions=(batches + chunks) * INVOCATION
        + (batches * CONSUMER_SECONDS + records * CHUNK_SECONDS_A_RECORD) * GIB_SECOND,
        watching=ALARMS * ALARM
        + (METRICS * METRIC if records else 0)
        + (batches + chunks) * (LOG_BYTES_A_BATCH / GIB * LOG_GIB + TRACE),
        files=chunks * 3 * QUEUE_REQUEST + records * RECORD_BYTES / GIB * S3_GIB_MONTH,
        database=acu_hours * ACU_HOUR + records * ROW_BYTES / GIB * AURORA_GIB_MONTH,
    )


CASES = {
    "idle": (0, 0.0),
    "1 million records": (1_000_000, 30.0),
    "1 billion records": (1_000_000_000, 2.0 * HOURS),
}
"""Records in a month, and the assumed ACU hours: none, an hour of 1 ACU a day, 2 ACUs all the time."""


def table() -> str:
    """The table of docs/deploy.md."""
    names = {
        "stream": "Kinesis stream, kept 7 days",
        "claims": "DynamoDB: 2 write units a record, kept 14 days",
        "functions": "Lambda",
        "watching": "CloudWatch, X-Ray",
        "files": "S3, SQS",
        "database": "Aurora, made by the stack",
    }
    months = [month(records, acu_hours=acu) for records, acu in CASES.values()]
    lines = [f"| dollars a month | {' | '.join(CASES)} |", "|---|" + "---:|" * len(CASES)]
    for field, name in names.items():
        lines.append(f"| {name} | {' | '.join(f'{getattr(each, field):,.2f}' for each in months)} |")
    lines.append(f"| **together** | {' | '.join(f'**{each.total:,.2f}**' for each in months)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
