"""Bulk idempotency for AWS Lambda. So far: the transport, which carries its requests to DynamoDB."""
