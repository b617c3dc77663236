"""Your function as a sink: it is called with the bodies of what is new, and says what of these it rejects."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from oncestream.engine import Refusal, Stored
from oncestream.errors import OncestreamError, PermanentError, TransientError

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rejected:
    """What a batch handler returns for a record that it will never be able to process.

    Parameters
    ----------
    record
        As the handler was given it: a body, or a model.
    reason
        Why, for a person.
    """

    record: Any
    reason: str


@dataclass(frozen=True, slots=True)
class RejectedRecord(Refusal):
    """What ``on_rejected`` is called with: ``id``, ``reason`` and ``raw``, the exact bytes.

    ``id`` is the SHA-256 of the bytes, in hexadecimal: the same bytes are the same rejected record.
    """

    record: dict[str, Any] = field(repr=False)
    """The record of the event, as Lambda gave it."""
    conflict: bool = False
    """Nothing is wrong with it but that its key was done before, with another digest."""

    @property
    def is_conflict(self) -> bool:
        """The same as ``conflict``."""
        return self.conflict


OnRejected = Callable[[list[RejectedRecord]], None]
OnConflict = Callable[[list[Any]], "list[Rejected] | None"]


@dataclass(frozen=True, slots=True)
class Delivery:
    """A decoded record of an event."""

    body: Any
    """What the handler gets."""
    raw: bytes
    record: dict[str, Any]
    key: str
    digest: str
    may_repeat: bool = False

    def content_digest(self) -> str:
        """The digest by Powertools' payload validation; empty if that is not configured."""
        return self.digest

    def reject(self, reason: str, *, conflict: bool = False) -> RejectedRecord:
        """What becomes of it when somebody rejects it."""
        return RejectedRecord(sha256(self.raw).hexdigest(), reason, self.raw, self.record, conflict)


class HandlerSink:
    """Hands records to a batch handler. :class:`oncestream.BulkProcessor` documents the parameters."""

    def __init__(
        self,
        handler: Callable[[list[Any]], list[Rejected] | None],
        on_rejected: OnRejected | None,
        on_conflict: OnConflict | None,
    ) -> None:
        self._handler = handler
        self._on_rejected = on_rejected
        self._on_conflict = on_conflict

    def store(
        self,
        new: Sequence[Delivery],
        refusals: Sequence[RejectedRecord],
        again: Sequence[Delivery],
        suspects: Sequence[Delivery],
        *,
        seconds: float,
    ) -> Stored[RejectedRecord]:
        """Call the handler with what is new: :meth:`oncestream.engine.Sink.store`. What it raises is passed on."""
        del seconds  # the handler has Lambda's context
        refused = {each.key: each.reject(reason) for each, reason in _call(self._handler, new)}
        others = [each for each in (*again, *suspects) if each.key not in refused]
        conflicts, not_compared = self._compare(others)
        rejected = _by_id((*refusals, *refused.values(), *conflicts.values()))
        not_kept = self._keep({key: each for key, each in rejected.items() if key not in not_compared})
        not_kept |= not_compared
        return Stored(
            processed=frozenset(each.key for each in new if each.key not in refused),
            refused=refused,
            rejected=frozenset(rejected.keys() - not_kept.keys()),
            conflicts=conflicts,
            not_kept=not_kept,
        )

    def _compare(
        self, others: Sequence[Delivery]
    ) -> tuple[dict[str, RejectedRecord], dict[str, OncestreamError]]:
        """The conflicts among deliveries of known keys, and those of which nobody could say."""
        taken = "its key was done before with other content"
        if self._on_conflict is None:
            return _by_id(each.reject(taken, conflict=True) for each in others), {}
        try:
            found = _call(self._on_conflict, others)
        except Exception as error:
            # Whatever it raises, nobody could say: they come again, and are taken neither for the same nor for others.
            logger.warning("on_conflict has compared none of %d records", len(others), exc_info=True)
            conflicts = _by_id(each.reject(taken, conflict=True) for each in others)
            why = TransientError(f"on_conflict: {type(error).__name__}: {error}")
            return conflicts, dict.fromkeys(conflicts, why)
        return _by_id(each.reject(reason, conflict=True) for each, reason in found), {}

    def _keep(self, rejected: dict[str, RejectedRecord]) -> dict[str, OncestreamError]:
        if not rejected:
            return {}
        if self._on_rejected is None:
            return {key: unkept(each) for key, each in rejected.items()}
        try:
            self._on_rejected(list(rejected.values()))
        except Exception as error:
            # Whatever it raises, nothing is lost: these are not kept and come again, with this error as the reason,
            # and the others are done.
            logger.warning("on_rejected has kept none of %d records", len(rejected), exc_info=True)
            why = TransientError(f"on_rejected: {type(error).__name__}: {error}")
            return dict.fromkeys(rejected, why)
        return {}


def _by_id(rejected: Iterable[RejectedRecord]) -> dict[str, RejectedRecord]:
    return {each.id: each for each in rejected}


def unkept(rejected: RejectedRecord) -> PermanentError:
    """Why a rejected record is reported as failed where there is no ``on_rejected``."""
    return PermanentError(rejected.reason)


def _call(
    function: Callable[[list[Any]], list[Rejected] | None], deliveries: Sequence[Delivery]
) -> list[tuple[Delivery, str]]:
    """Call a function with bodies. Returns the deliveries that it rejects, with the reasons."""
    if not deliveries:
        return []
    answer = function([each.body for each in deliveries])
    return [(_find(rejected, deliveries, function), rejected.reason) for rejected in answer or ()]


def _find(rejected: Rejected, deliveries: Sequence[Delivery], function: Callable[..., Any]) -> Delivery:
    name = getattr(function, "__qualname__", repr(function))
    if not isinstance(rejected, Rejected):
        raise TypeError(
            f"{name} returned a list with a {type(rejected).__name__}: return Rejected(record, reason) for each record "
            "that is rejected, and an empty list if there is none"
        )
    # The very object first: two records may be equal in everything but their keys.
    for each in deliveries:
        if each.body is rejected.record:
            return each
    for each in deliveries:
        if each.body == rejected.record:
            return each
    raise ValueError(f"{name} rejected a record that it was not given: return what was in its list")
