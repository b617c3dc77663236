"""The two kinds of error, in the library and in what is built on it. The name says whose fault it is.

*Permanent* is the record's fault: trying again gives the same answer, so the record is rejected and its bytes
and the reason are kept. *Transient* is the world's fault: the record is good, so it is retried and nothing is
lost. Anything that is neither is a defect in the program; it is not caught, Lambda reports the invocation as
failed, and the batch is retried as for a transient error.
"""


class OncestreamError(Exception):
    """Base of the errors that Oncestream raises itself."""


class PermanentError(OncestreamError):
    """The record can never be processed as it is. The message is the reason that a person will read."""


class TransientError(OncestreamError):
    """A store, a queue or the clock did not let us finish. The same record may succeed later."""
