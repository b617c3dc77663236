"""Bulk idempotency and bulk batch processing for AWS Lambda, in Powertools' tables and by Powertools' rules.

See README.md beside this file. Transports are in :mod:`oncestream.transport`, places for rejected records in
:mod:`oncestream.rejected`, a table in memory for unit tests in :mod:`oncestream.testing`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from oncestream.errors import PermanentError, TransientError
    from oncestream.handling import Rejected, RejectedRecord
    from oncestream.idempotency import BulkIdempotency, Claims, Key
    from oncestream.processor import BulkProcessor, SinkProcessor

__all__ = [
    "BulkIdempotency",
    "BulkProcessor",
    "Claims",
    "Key",
    "PermanentError",
    "Rejected",
    "RejectedRecord",
    "SinkProcessor",
    "TransientError",
]

_MODULES = {
    "idempotency": ("BulkIdempotency", "Claims", "Key"),
    "processor": ("BulkProcessor", "SinkProcessor"),
    "handling": ("Rejected", "RejectedRecord"),
    "errors": ("PermanentError", "TransientError"),
}


def __getattr__(name: str) -> Any:
    # Only what is asked for is imported: a function that needs an error from here does not wait for boto3 and
    # Powertools at its cold start.
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"oncestream.{module}"), name)
    raise AttributeError(f"module 'oncestream' has no attribute {name!r}")
