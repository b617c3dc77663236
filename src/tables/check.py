"""The check of every payload, on its way in and off the stream: can Postgres hold it, and does it fit its type?"""

from __future__ import annotations

from common.errors import PermanentError
from records.json_text import has_nul, value_of
from tables.model import judge_of
from tables.payload import Payload

judge = judge_of(Payload)
"""Raises :class:`PermanentError` for a payload (JSON text) that does not fit its type."""


def check_payload(text: str) -> None:
    """Check a payload, given as valid JSON text: that Postgres can hold it, and that it fits its type.

    What jsonb refuses for its size (nesting, digits) is left to Postgres.

    Raises
    ------
    PermanentError
        The message is the reason.
    """
    if has_nul(text):
        raise PermanentError("payload holds a NUL (U+0000), which Postgres cannot store")
    judge(text)


def checked_payload(data: bytes) -> str:
    """The payload in ``data``, as it stands there.

    Raises
    ------
    PermanentError
        The bytes are not UTF-8, not JSON, or JSON that is no payload. The message is the reason.
    """
    text = value_of(data).decode()
    check_payload(text)
    return text
