"""Logger, tracer and metrics, made once for all functions (their service name comes from the template)."""

from aws_lambda_powertools import Logger, Metrics, Tracer

logger = Logger()
# Of the libraries that the X-Ray SDK can trace, this is the one that the code here calls through what the SDK
# wraps. For each of the others that is in the package it would import more: pg8000's DB-API, for one.
tracer = Tracer(patch_modules=("botocore",))
metrics = Metrics()

RECORDS_RECEIVED = "RecordsReceived"
RECORDS_INSERTED = "RecordsInserted"
DUPLICATES_SKIPPED = "DuplicatesSkipped"
RECORDS_REJECTED = "RecordsRejected"
RECORDS_CONFLICTING = "RecordsConflicting"
RECORDS_RETRIED = "RecordsRetried"
RECORDS_PUBLISHED = "RecordsPublished"
RECORDS_NOT_PUBLISHED = "RecordsNotPublished"
REQUESTS_REFUSED = "RequestsRefused"
UPLOADS_REGISTERED = "UploadsRegistered"
DUPLICATE_UPLOADS_SKIPPED = "DuplicateUploadsSkipped"
UPLOADS_FAILED = "UploadsFailed"
NOTIFICATIONS_REFUSED = "NotificationsRefused"
CHUNK_JOBS_SENT = "ChunkJobsSent"
CHUNKS_PUBLISHED = "ChunksPublished"
CHUNKS_RETRIED = "ChunksRetried"
CHUNKS_FAILED = "ChunksFailed"
DUPLICATE_CHUNKS_SKIPPED = "DuplicateChunksSkipped"
LINES_REJECTED = "LinesRejected"
