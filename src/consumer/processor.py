"""Powertools' batch processor, for a batch as a whole.

``BatchProcessor`` calls a handler for each record, one after the other. :class:`BulkProcessor` calls it to
decode each record and then does the rest for all of them at once:

1. decode; what cannot be decoded is a rejection
2. collapse equal ids
3. claim, the first records while the next ones are decoded; what is completed is a duplicate, what is in
   progress elsewhere or undecided fails this time
4. store in one transaction, and compare there whatever has a known id and other bytes
5. complete, with the digest of what was stored
6. answer with what failed; Lambda retries everything from the lowest sequence number of these on

For any record the order is claim, commit, complete. A crash between two of them loses nothing and doubles
nothing: before the commit there is no row, and the claim runs out; after it the row's key makes a duplicate
of the retry.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, Self

from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType

from common.errors import TransientError
from consumer.decode import Arrived, Rejection
from consumer.decode import digest as digest_of
from consumer.sink import Stored
from postgres.database import STATEMENT_SECONDS

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

    from oncestream.idempotency import Claims

SLICE_RECORDS = 1_000
"""Records that are claimed, stored and completed together."""
LONGEST_MILLISECONDS = 900_000
"""What is left of the time where nobody says so: the longest that an invocation can have."""


class Idempotency(Protocol):
    """What the processor needs of :class:`oncestream.idempotency.BulkIdempotency`, which documents it."""

    def claim(self, keys: Iterable[tuple[str, str]], remaining_time_in_millis: int) -> Claims: ...
    def complete(self, keys: Iterable[tuple[str, str]]) -> frozenset[str]: ...
    def release(self, keys: Iterable[str]) -> frozenset[str]: ...


class Decode(Protocol):
    """What makes a record of an entry of the event; :func:`consumer.decode.decode`."""

    def __call__(self, record: dict[str, Any]) -> Arrived | Rejection: ...


class Sink(Protocol):
    """What the processor needs of :class:`consumer.sink.PostgresSink`, which documents it."""

    def store(
        self,
        arrived: Sequence[Arrived],
        rejections: Sequence[Rejection],
        again: Sequence[Arrived],
        suspects: Sequence[Arrived],
        *,
        seconds: float,
    ) -> Stored: ...


class Outcome(StrEnum):
    """What became of a stream record. Each has one outcome, so the counts add up to the batch."""

    INSERTED = "inserted"
    """It is a row of records, as of now."""
    DUPLICATE = "duplicate"
    """It was settled before, by an earlier delivery or by an equal one of the same batch."""
    CONFLICTING = "conflicting"
    """It has the id of another record, and other content: a row of rejected_records of kind conflict, as of now."""
    REJECTED = "rejected"
    """It is a row of rejected_records, as of now."""
    RETRIED = "retried"
    """It is not settled. Lambda delivers it again."""


class Result(NamedTuple):
    """A stream record and its outcome; ``error`` says why it has to be retried."""

    record: Arrived | Rejection
    outcome: Outcome
    error: TransientError | None = None

    @property
    def id(self) -> str:
        """The record's id, or the rejection's."""
        return _id_of(self.record)


@dataclass(slots=True)
class _Piece:
    """A part of the batch: the positions of the deliveries of each record, by id, and of each rejection."""

    records: dict[str, list[int]] = field(default_factory=dict)
    rejections: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records) + len(self.rejections)


class _Batch:
    """The decoded records of a batch, by position, and the results as they come to be known.

    Parameters
    ----------
    size
        Of a piece: this many different records, deliveries with equal ids together.
    """

    def __init__(self, records: Sequence[dict[str, Any]], decode: Decode, size: int) -> None:
        self.decoded: list[Arrived | Rejection] = []
        self.results: list[Result | None] = [None] * len(records)
        first = _Piece()
        self.pieces = deque([first])
        """What is to be done, as far as it has been decoded."""
        self._digests: dict[int, str] = {}
        """Of the payloads' bytes, by position, as far as they were asked for."""
        self._decoding = self._decode(records, decode, size, first)

    def keys(self, piece: _Piece) -> Iterator[tuple[str, str]]:
        """Id and digest of each of a piece's records, its first delivery's.

        Asking for them decodes the batch, as far as it is not decoded yet.
        """
        for key, positions in piece.records.items():
            yield key, self.digest(positions[0])
        for key, position in self._decoding:
            yield key, self.digest(position)

    def digest(self, position: int) -> str:
        """The digest of the payload's bytes of a record."""
        known = self._digests.get(position)
        if known is None:
            record = self.decoded[position]
            if not isinstance(record, Arrived):
                raise TypeError(f"what is at {position} of the batch is no record")
            known = self._digests[position] = sha256(record.record.payload_json.encode()).hexdigest()
        return known

    def stored_digests(self, piece: _Piece, stored: Stored) -> Iterator[tuple[str, str]]:
        """Id and digest of what there are rows of now."""
        for key in stored.inserted | stored.duplicates:
            yield key, self.digest(piece.records[key][0])
        yield from stored.taken.items()

    def decode_rest(self) -> None:
        """Decode what nobody has asked for."""
        deque(self._decoding, maxlen=0)

    def _decode(
        self, records: Sequence[dict[str, Any]], decode: Decode, size: int, first: _Piece
    ) -> Iterator[tuple[str, int]]:
        """Decode the batch, fill its pieces, and yield id and position of the first one's records as they turn up."""
        piece = first
        groups: dict[tuple[bool, str], list[int]] = {}
        for position, record in enumerate(records):
            decoded = decode(record=record)
            self.decoded.append(decoded)
            is_record = isinstance(decoded, Arrived)
            key = _id_of(decoded)
            positions = groups.setdefault((is_record, key), [])
            positions.append(position)
            if len(positions) > 1:
                continue
            if len(piece) >= size:
                piece = _Piece()
                self.pieces.append(piece)
            (piece.records if is_record else piece.rejections)[key] = positions
            if is_record and piece is first:
                yield key, position

    def arrived(self, piece: _Piece, ids: Collection[str], which: slice) -> list[Arrived]:
        """Of the deliveries of each of ``ids``, in stream order, those that ``which`` selects."""
        chosen = (at for key, positions in piece.records.items() if key in ids for at in positions[which])
        return [record for at in chosen if isinstance(record := self.decoded[at], Arrived)]

    def to_compare(self, piece: _Piece, ids: Collection[str], which: slice) -> list[Arrived]:
        """Of the deliveries that ``which`` selects, those that may say something new though their id is known.

        A line that comes second with its id has to be noted; a record that is redriven is awaited; and one with
        other bytes than the first delivery may be a conflict. Every other delivery of a known record is done.
        """
        found = []
        for key, positions in piece.records.items():
            if key in ids:
                for at in positions[which]:
                    record = self.decoded[at]
                    if isinstance(record, Arrived) and (
                        record.may_repeat
                        or (at != positions[0] and self.digest(at) != self.digest(positions[0]))
                    ):
                        found.append(record)
        return found

    def rejections(self, piece: _Piece) -> list[Rejection]:
        """The first delivery of each of the piece's rejections."""
        chosen = (positions[0] for positions in piece.rejections.values())
        return [record for at in chosen if isinstance(record := self.decoded[at], Rejection)]

    def settle_waiting(self, piece: _Piece, claims: Claims) -> None:
        """What could not be claimed is retried."""
        held = TransientError("another invocation is at work on a record with this id")
        undecided = TransientError("DynamoDB did not decide on the claim of this record")
        for key in claims.in_progress:
            self._settle(piece.records[key], Outcome.RETRIED, held)
        for key in claims.undecided:
            self._settle(piece.records[key], Outcome.RETRIED, undecided)

    def settle_completed(self, piece: _Piece, ids: Collection[str]) -> None:
        """All deliveries of ``ids`` are duplicates."""
        for key in ids:
            self._settle(piece.records[key], Outcome.DUPLICATE)

    def settle_known(self, piece: _Piece, ids: Collection[str], stored: Stored) -> None:
        """Every delivery of ``ids`` is a duplicate, or a conflict."""
        for key in ids:
            self._settle_known(piece.records[key], stored)

    def settle_stored(self, piece: _Piece, stored: Stored) -> _Piece:
        """The first delivery of each record is what ``stored`` says, the others are its duplicates or conflicts.

        Returns the deliveries that counted on a record which Postgres refused. They have the same id and
        other bytes, so they have to be tried in their own right.
        """
        again = _Piece()
        late = TransientError("there was no time left to find out which records Postgres refuses")
        self.settle_known(piece, stored.duplicates | stored.taken.keys(), stored)
        for key in stored.inserted:
            first, *others = piece.records[key]
            self._settle([first], Outcome.INSERTED)
            self._settle_known(others, stored)
        for key in stored.unsettled:
            self._settle(piece.records[key], Outcome.RETRIED, late)
        for key, rejection in stored.refused.items():
            first, *others = piece.records[key]
            self.decoded[first] = rejection
            self._settle([first], _rejected_or_known(rejection, stored))
            for at in others:
                if self.decoded[at].raw == rejection.raw:
                    self._settle([at], Outcome.DUPLICATE)
                else:
                    again.records.setdefault(key, []).append(at)
        for positions in piece.rejections.values():
            self._settle(positions, Outcome.DUPLICATE)
        for rejection, positions in zip(self.rejections(piece), piece.rejections.values(), strict=True):
            now = stored.conflicts.get(rejection.id, rejection)
            self.decoded[positions[0]] = now
            self._settle(positions[:1], _rejected_or_known(now, stored))
        return again

    def _settle_known(self, positions: Sequence[int], stored: Stored) -> None:
        self._settle(positions, Outcome.DUPLICATE)
        if not stored.conflicts:
            return
        seen = set[str]()
        for at in positions:
            conflict = stored.conflicts.get(digest_of(self.decoded[at].raw))
            if conflict and conflict.id in stored.rejected and conflict.id not in seen:
                seen.add(conflict.id)
                self.decoded[at] = conflict
                self._settle([at], Outcome.CONFLICTING)

    def settle_rest(self, error: TransientError) -> None:
        """Whatever has no result yet is retried because of ``error``."""
        self.decode_rest()
        rest = [at for at, result in enumerate(self.results) if result is None]
        self._settle(rest, Outcome.RETRIED, error)

    def _settle(
        self, positions: Iterable[int], outcome: Outcome, error: TransientError | None = None
    ) -> None:
        for at in positions:
            self.results[at] = Result(self.decoded[at], outcome, error)


def _id_of(record: Arrived | Rejection) -> str:
    return record.record.id if isinstance(record, Arrived) else record.id


def _rejected_or_known(rejection: Rejection, stored: Stored) -> Outcome:
    if rejection.id not in stored.rejected:
        return Outcome.DUPLICATE
    return Outcome.CONFLICTING if rejection.kind == "conflict" else Outcome.REJECTED


class BulkProcessor(BatchProcessor):
    """Processes a batch of a Kinesis stream in bulk.

    Parameters
    ----------
    idempotency
        Claims and completes record ids.
    sink
        Stores records.
    reserve_milliseconds
        No further piece of the batch is begun when less than this is left of the invocation's time. What has
        not been begun is reported as failed: better than to be killed with claims in hand.
    slice_records
        Size of a piece.

    Example
    -------
    >>> processor = BulkProcessor(BulkIdempotency(...), PostgresSink(database))
    >>> process_partial_response(event, decode, processor, context)
    {'batchItemFailures': []}
    """

    def __init__(
        self,
        idempotency: Idempotency,
        sink: Sink,
        *,
        reserve_milliseconds: int = 5_000,
        slice_records: int = SLICE_RECORDS,
    ) -> None:
        # A batch that fails as a whole is answered with its records, too. Powertools would raise an error by
        # default, and for an error Lambda cuts the batch in half, again and again: an outage would leave a
        # stream of single records. For a list of failures it cuts at the lowest, the first, so the batch
        # stays whole.
        super().__init__(EventType.KinesisDataStreams, raise_on_entire_batch_failure=False)
        self.results: list[Result] = []
        """The last batch's, in its order."""
        self._idempotency = idempotency
        self._sink = sink
        self._reserve = reserve_milliseconds
        self._slice_records = slice_records
        self._context: LambdaContext | None = None

    def __call__(
        self,
        records: list[dict[str, Any]],
        handler: Callable[..., Arrived | Rejection],
        lambda_context: LambdaContext | None = None,
    ) -> Self:
        """Set the batch to process. ``handler`` decodes one record and does no I/O."""
        self._context = lambda_context
        super().__call__(records, handler, lambda_context)
        return self

    def process(self) -> list[tuple[Any, ...]]:
        """Process the batch and return Powertools' entry for each record, in order."""
        batch = _Batch(self.records, self.handler, self._slice_records)
        while batch.pieces:
            if self._milliseconds_left(self._reserve) <= 0:
                left = TransientError(
                    f"not begun: less than {self._reserve} ms of the invocation's time were left"
                )
                batch.settle_rest(left)
                break
            try:
                again = self._settle(batch, batch.pieces.popleft())
            except TransientError as error:
                # What keeps this piece from being stored keeps the next ones, too.
                batch.settle_rest(error)
                break
            if again.records:
                batch.pieces.appendleft(again)
        self.results = [result for result in batch.results if result is not None]
        return [
            self._entry(record, result) for record, result in zip(self.records, self.results, strict=True)
        ]

    def _settle(self, batch: _Batch, piece: _Piece) -> _Piece:
        """Claim, store and complete a piece. Returns the part of it that has to be done anew, at once.

        Raises
        ------
        TransientError
            The piece could not be claimed or stored. Its claims are released, as far as possible.
        """
        # The first records are on their way to DynamoDB while the next ones are decoded.
        claims = self._idempotency.claim(batch.keys(piece), self._milliseconds_left())
        try:
            return self._settle_claimed(batch, piece, claims)
        except Exception:
            # Of whatever kind: others need not wait for the claims to run out. What is completed stays so.
            self._idempotency.release(claims.claimed)
            raise

    def _settle_claimed(self, batch: _Batch, piece: _Piece, claims: Claims) -> _Piece:
        batch.decode_rest()
        batch.settle_waiting(piece, claims)
        first = batch.arrived(piece, claims.claimed, slice(1))
        again = batch.to_compare(piece, claims.claimed, slice(1, None))
        again += batch.to_compare(piece, claims.completed, slice(None))
        # Done with other bytes than these. Postgres finds out whether that is other content; a claim does not.
        suspects = batch.arrived(piece, claims.suspect, slice(None))
        asked = {each.record.id for each in again}
        batch.settle_completed(piece, claims.completed - asked)
        rejections = batch.rejections(piece)

        stored = Stored()
        if first or rejections or again or suspects:
            seconds = min(STATEMENT_SECONDS, max(1.0, self._milliseconds_left(self._reserve) / 1000))
            stored = self._sink.store(first, rejections, again, suspects, seconds=seconds)
        # What cannot be completed stays in progress until its claim runs out. It is stored, so it is a
        # success: failing it would deliver the rest of the batch again, for rows that are there. The price: a
        # duplicate that comes before the claim runs out has to wait until then.
        self._idempotency.complete(batch.stored_digests(piece, stored))
        # A refused record leaves its id free: it may come again with a value that Postgres takes.
        self._idempotency.release(stored.refused.keys() | stored.unsettled)
        batch.settle_known(piece, (claims.completed & asked) | claims.suspect, stored)
        return batch.settle_stored(piece, stored)

    def _milliseconds_left(self, reserve: int = 0) -> int:
        context = self._context
        left = context.get_remaining_time_in_millis() if context else LONGEST_MILLISECONDS
        return left - reserve

    def _entry(self, record: dict[str, Any], result: Result) -> tuple[Any, ...]:
        if result.error is None:
            return self.success_handler(record=record, result=result.outcome)
        # Powertools takes the sequence number from its data class. Not needed for what succeeded.
        failed = self._to_batch_type(record, self.event_type)
        return self.failure_handler(record=failed, exception=(type(result.error), result.error, None))
