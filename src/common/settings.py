"""The environment of each function as a typed model, checked once, when the function starts.

Reading is explicit (``ConsumerSettings.from_environment()``): importing this module touches nothing.
"""

from __future__ import annotations

import os
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt


class Settings(BaseModel):
    """Base: each field is read from the environment variable of its name in capitals."""

    # Deferred: a function uses one of these classes, and each takes two milliseconds to be made ready.
    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=str.upper, defer_build=True)

    @classmethod
    def from_environment(cls) -> Self:
        """Check the environment and return the settings.

        Raises
        ------
        pydantic.ValidationError
            A variable is missing or has a wrong value; the message names it.
        """
        # SAM cannot leave a variable out on a condition, so an empty one means "not set".
        return cls.model_validate({name: value for name, value in os.environ.items() if value})


class DatabaseSettings(Settings):
    """How to reach Postgres."""

    database_host: str
    database_port: PositiveInt = 5432
    database_name: str
    database_user: str
    database_authentication: Literal["iam", "secret", "trust"] = "iam"
    """``iam``: a token signed with the function's role. ``secret``: a password from Secrets Manager.
    ``trust``: none, for a database on this machine."""
    database_secret_arn: str | None = None
    database_tls: Literal["verify-full", "disable"] = "verify-full"
    database_ca_file: str | None = None
    """A PEM file of the authorities to trust, counted from the package's root (``src/``); without it, those that the
    platform trusts."""


class NotesSettings(Settings):
    """Of a function that notes why it waits (:mod:`common.waiting`), also where its other settings are wrong."""

    ledger_table: str | None = None
    """Without one, its log alone says it."""


class ConsumerSettings(DatabaseSettings, NotesSettings):
    """The consumer's environment."""

    idempotency_table: str
    idempotency_expiry_seconds: PositiveInt = 14 * 24 * 3600
    """How long a completed record is remembered. Longer than the stream keeps it, or a replay could slip by."""
    idempotency_requests_in_flight: PositiveInt = 40
    """DynamoDB calls in flight at once. 40 calls claim, or complete, 1,000 records."""
    reserve_milliseconds: NonNegativeInt = 5_000
    """The consumer stops taking on work when less than this is left of its time, and says what it has not done."""


class ProducerSettings(Settings):
    """The environment of the producer's functions."""

    stream_name: str = Field(min_length=1)
    publish_attempts: PositiveInt = 12
    """How often one record is sent before it is reported as failed."""
    reserve_milliseconds: NonNegativeInt = 13_000
    """No request is begun when less than this is left of the caller's time: one that hangs takes 12 seconds."""


class LedgerSettings(Settings):
    """Every function that knows the ledger."""

    ledger_table: str = Field(min_length=1)


class RegisterSettings(LedgerSettings):
    """The environment of uploads/register."""

    upload_bucket: str = Field(min_length=1)
    """The one bucket whose notifications are believed."""


class PlanSettings(LedgerSettings):
    """The environment of uploads/plan."""

    chunk_queue_url: str = Field(min_length=1)
    chunk_bytes: PositiveInt = 8 * 1024 * 1024
    """Bytes of the file that one chunk job covers (more for a file that would have over 10,000 chunks)."""
    reserve_milliseconds: NonNegativeInt = 10_000
    """Planning stops, keeps what it knows and goes on in the next invocation when less than this is left."""


class ChunksSettings(ProducerSettings, LedgerSettings):
    """The environment of uploads/chunks."""

    chunk_dead_letter_queue_url: str = Field(min_length=1)
    idempotency_table: str = Field(min_length=1)
    idempotency_expiry_seconds: PositiveInt = 14 * 24 * 3600
    """How long a chunk job that is done is remembered. Longer than the queue keeps it."""
    reserve_milliseconds: NonNegativeInt = 15_000
    """No request is begun when less than this is left of the invocation's time (one that hangs takes 12 seconds); how
    far the chunk has come is kept, and the job is delivered again."""


class ReportSettings(DatabaseSettings, LedgerSettings):
    """The environment of uploads/report."""

    stuck_after_seconds: PositiveInt = 900
    """An upload that is not done and has not moved for this long is called stuck."""
