"""The producer's front door: takes records from a caller, directly or over HTTP, and puts them on the stream.

A direct caller invokes the function with ``{"records": [{"id"?, "partition_key"?, "payload"}, ...]}`` and
gets an ``Answer`` (see ``producer.request``). An HTTP caller posts the same to ``/records``, or NDJSON with a
record a line, and gets the same answer with a status:

====  ===========================================================================================
200   every record is on the stream
207   some are; the rest is in ``rejected``
400   none is, because all were rejected; or the request is wrong as a whole (``error``). 415: its type
503   some good records could not be published (``failed``); after ``Retry-After`` seconds the same
      request may be sent again, with the same ids
====  ===========================================================================================

A record without an id gets a UUIDv7, which is in the answer. The price: if the caller never sees the answer and
repeats the request, the records get other ids and are stored twice.

A payload posted over HTTP goes onto the stream byte for byte. Lambda's runtime parses a direct caller's payload before
we see it, so a number with a fraction or an exponent is what a double holds of it. If you need more digits, send them
as text, or over HTTP.

Faults of the caller or the stream never raise: they are in the answer. So a direct caller should wait for it
(invocation type ``RequestResponse``); nobody reads the answer to an ``Event``.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from aws_lambda_powertools.event_handler import APIGatewayHttpResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError
from aws_lambda_powertools.logging.correlation_paths import API_GATEWAY_HTTP
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.typing import LambdaContext

from common import clients
from common.errors import PermanentError, TransientError
from common.observability import (
    RECORDS_NOT_PUBLISHED,
    RECORDS_PUBLISHED,
    RECORDS_REJECTED,
    REQUESTS_REFUSED,
    logger,
    metrics,
    tracer,
)
from common.settings import ProducerSettings
from producer.publish import Publisher
from producer.request import (
    Answer,
    BadRequestError,
    RecordsRequest,
    records_of_body,
    records_of_event,
    unpublished,
)

HTTP_SECONDS = 29.0
"""An HTTP API waits 30 seconds for its function, whatever the function's own timeout.

Source: docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
"""
RETRY_AFTER_SECONDS = 5

app = APIGatewayHttpResolver()


@logger.inject_lambda_context(correlation_id_path=API_GATEWAY_HTTP)
@tracer.capture_lambda_handler(capture_response=False)
@metrics.log_metrics
def handler(event: Any, context: LambdaContext) -> Any:
    """Publish the records of a direct invocation or of an HTTP API event (payload format 2.0)."""
    if isinstance(event, dict) and "rawPath" in event and "requestContext" in event:
        return app.resolve(event, context)
    try:
        return _publish(records_of_event(event), _seconds(context))
    except BadRequestError as error:
        return _refused(error)


@app.post("/records")
def post_records() -> Response[str]:
    """Publish the records of the request's body."""
    event = app.current_event
    try:
        records = records_of_body(
            event.body or "",
            is_base64=bool(event.is_base64_encoded),
            content_type=event.headers.get("content-type") or "",
        )
    except BadRequestError as error:
        return _response(error.status, _refused(error))
    answer = _publish(records, min(HTTP_SECONDS, _seconds(app.lambda_context)))
    return _response(_status(answer), answer)


@app.not_found
def no_such_route(_: NotFoundError) -> Response[str]:
    """Say what there is instead."""
    if app.current_event.path == "/records":
        error = BadRequestError("only POST is allowed here", status=405)
        return _response(error.status, _refused(error), Allow="POST")
    error = BadRequestError("no such path: POST records to /records", status=404)
    return _response(error.status, _refused(error))


@cache
def _settings() -> ProducerSettings:
    return ProducerSettings.from_environment()


@cache
def _publisher() -> Publisher:
    settings = _settings()
    return Publisher(clients.kinesis(), settings.stream_name, attempts=settings.publish_attempts)


def _seconds(context: LambdaContext) -> float:
    return context.get_remaining_time_in_millis() / 1000


@tracer.capture_method(capture_response=False)
def _publish(records: list[bytes | PermanentError], seconds: float) -> Answer:
    """Publish what can be published in so many seconds, and leave early rather than be killed."""
    request = RecordsRequest(records)
    try:
        published = _publisher().publish(
            request.entries, time_limit=seconds - _settings().reserve_milliseconds / 1000
        )
    except TransientError as error:
        logger.exception("The stream cannot be written")
        published = unpublished(request, str(error))
    answer = request.answer(published)
    metrics.add_metric(RECORDS_PUBLISHED, MetricUnit.Count, published.published)
    metrics.add_metric(RECORDS_NOT_PUBLISHED, MetricUnit.Count, len(answer["failed"]))
    metrics.add_metric(RECORDS_REJECTED, MetricUnit.Count, len(answer["rejected"]))
    logger.info(
        "Records published",
        received=len(records),
        published=published.published,
        not_published=len(answer["failed"]),
        rejected=len(answer["rejected"]),
        requests=published.requests,
        resent=published.resent,
    )
    return answer


def _refused(error: BadRequestError) -> Answer:
    logger.warning("Request refused", reason=str(error))
    metrics.add_metric(REQUESTS_REFUSED, MetricUnit.Count, 1)
    return {"accepted": 0, "ids": [], "rejected": [], "failed": [], "error": str(error)}


def _status(answer: Answer) -> int:
    if answer["failed"]:
        return 503
    if not answer["rejected"]:
        return 200
    return 207 if answer["accepted"] else 400


def _response(status: int, body: Answer, **headers: str) -> Response[str]:
    if status == 503:
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return Response(
        status_code=status,
        content_type="application/json",
        body=json.dumps(body, ensure_ascii=False, separators=(",", ":")),
        headers=headers,
    )
