"""The application's errors: those of the library, by the names that the application has always had."""

from oncestream.errors import OncestreamError, PermanentError, TransientError

__all__ = ["OncestreamError", "PermanentError", "TransientError"]
