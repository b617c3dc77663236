"""S3 ObjectCreated notifications: each new upload is entered into the ledger, once.

S3 delivers a notification at least once, and Lambda retries a failed asynchronous invocation twice; after
that it goes to the queue of lost notifications. Entering is a conditional put, so repeats change nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from aws_lambda_powertools.metrics import MetricUnit
from botocore.exceptions import BotoCoreError, ClientError

from common import clients
from common.errors import PermanentError, TransientError
from common.observability import (
    DUPLICATE_UPLOADS_SKIPPED,
    NOTIFICATIONS_REFUSED,
    UPLOADS_FAILED,
    UPLOADS_REGISTERED,
    logger,
    metrics,
    tracer,
)
from common.settings import RegisterSettings
from uploads.formats import contents
from uploads.ledger import Ledger
from uploads.notification import ObjectCreated, PassedOver, read
from uploads.objects import ObjectGoneError, Objects
from uploads.upload import Upload, delimiter_of, format_of, named_field, upload_id

if TYPE_CHECKING:
    from collections.abc import Callable

    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_s3.type_defs import HeadObjectOutputTypeDef


@dataclass(slots=True)
class Registered:
    """What became of a notification's records: upload ids, or the reasons they were passed over for."""

    inserted: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    """Those of the inserted that nothing will be loaded of."""
    duplicates: list[str] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


class Register:
    """Looks at what the notifications are about and enters it into the ledger."""

    def __init__(
        self,
        objects: Objects,
        ledger: Ledger,
        bucket: str,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._objects = objects
        self._ledger = ledger
        self._bucket = bucket
        self._now = now

    def handle(self, event: Any) -> Registered:
        """Enter what the event's records announce.

        One record that fails does not keep the others from being entered.

        Raises
        ------
        TransientError
            S3 or DynamoDB did not let us finish some records. All of them may come again.
        """
        outcome = Registered()
        errors = []
        for notified in read(event, self._bucket):
            if isinstance(notified, PassedOver):
                _pass_over(notified, outcome)
                continue
            try:
                self._enter(notified, outcome)
            except (BotoCoreError, ClientError, TransientError) as error:
                logger.exception("Not registered", bucket=notified.bucket, key=notified.key)
                errors.append(f"{notified.key!r}: {error}")
        _measure(outcome)
        if errors:
            raise TransientError(f"not registered: {'; '.join(errors)}")
        return outcome

    def _enter(self, notified: ObjectCreated, outcome: Registered) -> None:
        upload = self._describe(notified)
        about = upload.model_dump(include={"upload", "key", "size", "failed"}, exclude_none=True)
        there = self._ledger.register(upload)
        if there is None:
            outcome.inserted.append(upload.upload)
            if upload.failed is not None:
                outcome.failed.append(upload.upload)
            logger.info("Inserted", **about)
            return
        outcome.duplicates.append(upload.upload)
        if upload.failed is None and _named(there) != _named(upload):
            # The same content, so the same upload: its lines have been given their ids already.
            about["named_before"] = _named(there)
        logger.info("Duplicate skipped", **about)

    def _describe(self, notified: ObjectCreated) -> Upload:
        """The upload as the object itself shows it; a failed one if it cannot be loaded."""
        upload = Upload(
            upload=upload_id(notified.bucket, notified.key, notified.etag),
            bucket=notified.bucket,
            key=notified.key,
            version_id=notified.version_id,
            etag=notified.etag,
            size=notified.size,
            registered_at=self._now(),
        )
        try:
            head = self._objects.head(upload)
            upload = upload.model_copy(update={"size": head["ContentLength"]})
            return self._look(upload, head)
        except ObjectGoneError as gone:
            return upload.model_copy(update={"failed": f"{gone}, and it was not registered before"})
        except PermanentError as unknown:
            return upload.model_copy(update={"failed": str(unknown)})

    def _look(self, upload: Upload, head: HeadObjectOutputTypeDef) -> Upload:
        """The upload with what its name, its metadata and its first bytes say.

        Raises
        ------
        PermanentError
            It cannot be loaded as it is; the message says what to do.
        """
        content_type, metadata = head.get("ContentType", ""), head["Metadata"]
        known, gzip = format_of(upload.key, content_type, head.get("ContentEncoding", ""))
        delimiter, is_chosen = delimiter_of(known, upload.key, content_type, metadata)
        named: dict[str, Any] = {
            "gzip": gzip,
            "delimiter": delimiter,
            "id_field": named_field(metadata, "id-field"),
            "key_field": named_field(metadata, "key-field"),
        }
        stored = self._objects.beginning(upload, contents.LOOKED_AT_BYTES)
        beginning = contents.Beginning(stored, is_all=len(stored) == upload.size)
        named["format"] = contents.look(
            beginning, known, gzip=gzip, delimiter=None if is_chosen else delimiter or ","
        )
        return upload.model_copy(update=named)


def _named(upload: Upload) -> dict[str, Any]:
    return upload.model_dump(include={"id_field", "key_field", "delimiter"})


def _pass_over(passed: PassedOver, outcome: Registered) -> None:
    if passed.refused:
        # Not raised: another attempt would give the same answer.
        logger.error("Notification refused", reason=passed.reason, key=passed.key)
        outcome.refused.append(passed.reason)
    else:
        logger.info("Notification ignored", reason=passed.reason, key=passed.key)
        outcome.ignored.append(passed.reason)


def _measure(outcome: Registered) -> None:
    for name, counted in (
        (UPLOADS_REGISTERED, outcome.inserted),
        (UPLOADS_FAILED, outcome.failed),
        (DUPLICATE_UPLOADS_SKIPPED, outcome.duplicates),
        (NOTIFICATIONS_REFUSED, outcome.refused),
    ):
        metrics.add_metric(name, MetricUnit.Count, len(counted))


@cache
def _register() -> Register:
    settings = RegisterSettings.from_environment()
    ledger = Ledger(clients.dynamodb(), settings.ledger_table)
    return Register(Objects(clients.s3()), ledger, settings.upload_bucket)


@metrics.log_metrics
@tracer.capture_lambda_handler(capture_response=False)
@logger.inject_lambda_context
def handler(event: Any, _context: LambdaContext) -> dict[str, list[str]]:
    """Enter a notification's uploads; answers with the :class:`Registered`."""
    return asdict(_register().handle(event))
