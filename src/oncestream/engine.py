"""What becomes of a batch as a whole, whatever its source and wherever its records go.

1. decode; what cannot be decoded is refused
2. collapse equal keys
3. claim, the first records while the next ones are decoded; what is completed is a duplicate, what is in
   progress elsewhere or undecided fails this time
4. hand the new ones to the sink, all at once, and let it compare whatever has a known key and another digest
5. complete, with the digest of what the sink has
6. answer with what failed; Lambda delivers that again

For any record the order is claim, sink, complete. A crash between two of them loses nothing. Whether it doubles
anything is up to the sink: one that knows the keys of what it has (a table with a unique key) finds the duplicate.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

from oncestream.errors import OncestreamError, TransientError

if TYPE_CHECKING:
    from oncestream.idempotency import Claims


class Arrival(Protocol):
    """A record that could be decoded."""

    @property
    def key(self) -> str:
        """What it is known by: equal keys are one record."""

    @property
    def raw(self) -> bytes:
        """Its exact bytes."""

    @property
    def may_repeat(self) -> bool:
        """Whether the sink has to see it even though its key is known."""

    def content_digest(self) -> str:
        """Of what it says. Empty: nothing is to be compared."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """What cannot be processed, and never will be as it is."""

    id: str
    """What it is known by: as a rule the SHA-256 of its bytes."""
    reason: str
    """For a person. May quote the record."""
    raw: bytes
    """Its exact bytes."""

    @property
    def is_conflict(self) -> bool:
        """Whether nothing is wrong with it but that its key was done before, with other content."""
        return False


R = TypeVar("R", bound=Arrival)
X = TypeVar("X", bound=Refusal)


class Idempotency(Protocol):
    """What the engine needs of :class:`oncestream.BulkIdempotency`, which documents it."""

    def claim(self, keys: Iterable[tuple[str, str]], remaining_time_in_millis: int) -> Claims: ...
    def complete(self, keys: Iterable[tuple[str, str]]) -> frozenset[str]: ...
    def release(self, keys: Iterable[str]) -> frozenset[str]: ...


@dataclass(frozen=True, slots=True)
class Stored(Generic[X]):
    """What a sink has done. Every key that it was given as new is in exactly one of the first five."""

    processed: frozenset[str] = frozenset()
    """Keys of records that are done as of now."""
    duplicates: frozenset[str] = frozenset()
    """Keys of records that were done before, with the same content."""
    taken: Mapping[str, str] = field(default_factory=dict)
    """Keys of records that were done before with other content, and the digest of that."""
    refused: Mapping[str, X] = field(default_factory=dict)
    """Records that the sink refuses, by their keys."""
    unsettled: frozenset[str] = frozenset()
    """Keys of records that there was no time for: nothing is known about them."""
    rejected: frozenset[str] = frozenset()
    """Ids of refusals and conflicts that are kept now and were not before."""
    conflicts: Mapping[str, X] = field(default_factory=dict)
    """Deliveries whose key was done before with other content, by the SHA-256 of their bytes (hexadecimal)."""
    not_kept: Mapping[str, OncestreamError] = field(default_factory=dict)
    """Ids of refusals and conflicts that could not be kept, so that they have to come again; and why."""


R_contra = TypeVar("R_contra", bound=Arrival, contravariant=True)


class Sink(Protocol[R_contra, X]):
    """Where records go."""

    def store(
        self,
        new: Sequence[R_contra],
        refusals: Sequence[X],
        again: Sequence[R_contra],
        suspects: Sequence[R_contra],
        *,
        seconds: float,
    ) -> Stored[X]:
        """Process what is new; keep what is refused; compare what is known.

        Parameters
        ----------
        new
            Claimed records, one for each key.
        refusals
            What could not be decoded, one for each id.
        again
            Deliveries of a known key, or of one in ``new``, that have another digest or may repeat.
        suspects
            Deliveries of keys that were done before, with another digest. They are never new.
        seconds
            How much time there is.

        Raises
        ------
        TransientError
            The sink is away: the records have to come again.
        """


class Outcome(StrEnum):
    """What became of a delivery. Each has one outcome, so the counts add up to the batch."""

    PROCESSED = "processed"
    """The sink has done it, as of now."""
    DUPLICATE = "duplicate"
    """It was settled before, by an earlier delivery or by an equal one of the same batch."""
    CONFLICTING = "conflicting"
    """It has the key of another record, and other content; it is kept as a conflict, as of now."""
    REJECTED = "rejected"
    """It is refused and kept, as of now."""
    RETRIED = "retried"
    """It is reported as failed. Lambda delivers it again."""


class Result(NamedTuple, Generic[R, X]):
    """A delivery and its outcome; ``error`` says why it has to be retried."""

    record: R | X
    outcome: Outcome
    error: OncestreamError | None = None

    @property
    def id(self) -> str:
        """The record's key, or the refusal's id."""
        return _id_of(self.record)


@dataclass(slots=True)
class Piece:
    """A part of the batch: the positions of the deliveries of each record, by key, and of each refusal, by id."""

    records: dict[str, list[int]] = field(default_factory=dict)
    refusals: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records) + len(self.refusals)


class Decoding(Generic[R, X]):
    """Decodes a batch while somebody else is at work, and sorts it into pieces.

    :meth:`keys` gives the first piece's keys one after the other, each as soon as it is decoded: a claim that asks
    for them has its first request under way while the next records are decoded. :meth:`rest` does what nobody has
    asked for.

    Parameters
    ----------
    size
        Of a piece: this many different records, deliveries with equal keys together.
    """

    def __init__(
        self, records: Sequence[dict[str, Any]], decode: Callable[[dict[str, Any]], R | X], size: int
    ) -> None:
        self.decoded: list[R | X] = []
        """By position, as far as it has come."""
        self.pieces = deque([Piece()])
        """What is to be done, as far as it has come."""
        self._digests: dict[int, str] = {}
        self._steps = self._decode(records, decode, size, self.pieces[0])

    def keys(self, piece: Piece) -> Iterator[tuple[str, str]]:
        """Key and digest of each of a piece's records, its first delivery's."""
        for key, positions in piece.records.items():
            yield key, self.digest(positions[0])
        for key, position in self._steps:
            yield key, self.digest(position)

    def digest(self, position: int) -> str:
        """The digest of what a record says; made when it is asked for."""
        known = self._digests.get(position)
        if known is None:
            known = self._digests[position] = self.record(position).content_digest()
        return known

    def record(self, position: int) -> R:
        """The record at a position."""
        found = self.decoded[position]
        if isinstance(found, Refusal):
            raise TypeError(f"what is at {position} of the batch is no record")
        return found

    def rest(self) -> None:
        """Decode what nobody has asked for."""
        deque(self._steps, maxlen=0)

    def _decode(
        self,
        records: Sequence[dict[str, Any]],
        decode: Callable[[dict[str, Any]], R | X],
        size: int,
        first: Piece,
    ) -> Iterator[tuple[str, int]]:
        piece = first
        groups: dict[tuple[bool, str], list[int]] = {}
        for position, record in enumerate(records):
            decoded = decode(record)
            self.decoded.append(decoded)
            is_record = not isinstance(decoded, Refusal)
            key = _id_of(decoded)
            positions = groups.setdefault((is_record, key), [])
            positions.append(position)
            if len(positions) > 1:
                continue
            if len(piece) >= size:
                piece = Piece()
                self.pieces.append(piece)
            (piece.records if is_record else piece.refusals)[key] = positions
            if is_record and piece is first:
                yield key, position


class Batch(Generic[R, X]):
    """The results of a batch, by position, as they come to be known.

    Parameters
    ----------
    groups
        The group of each delivery whose order counts, by position: nothing of a group is handed over behind a
        delivery that has to come again. Empty: no order is kept.
    """

    def __init__(self, decoding: Decoding[R, X], size: int, groups: Mapping[int, str]) -> None:
        self.decoding = decoding
        self.results: list[Result[R, X] | None] = [None] * size
        self._groups = groups

    def records(self, piece: Piece, keys: Collection[str], which: slice) -> list[R]:
        """Of the deliveries of each of ``keys``, in their order, those that ``which`` selects."""
        return [
            self.decoding.record(at)
            for key, positions in piece.records.items()
            if key in keys
            for at in positions[which]
        ]

    def to_compare(self, piece: Piece, keys: Collection[str], which: slice) -> list[R]:
        """Of the deliveries that ``which`` selects, those that may say something new though their key is known.

        One that may repeat, and one with another digest than the first delivery, which may be a conflict. Every other
        delivery of a known record is done.
        """
        found = []
        for key, positions in piece.records.items():
            if key in keys:
                for at in positions[which]:
                    record = self.decoding.record(at)
                    if record.may_repeat or (
                        at != positions[0] and self.decoding.digest(at) != self.decoding.digest(positions[0])
                    ):
                        found.append(record)
        return found

    def refusals(self, piece: Piece) -> list[X]:
        """The first delivery of each of the piece's refusals."""
        chosen = (self.decoding.decoded[positions[0]] for positions in piece.refusals.values())
        return [refusal for refusal in chosen if isinstance(refusal, Refusal)]

    def stored_digests(self, piece: Piece, stored: Stored[X]) -> Iterator[tuple[str, str]]:
        """Key and digest of what the sink has now."""
        for key in stored.processed | stored.duplicates:
            yield key, self.decoding.digest(piece.records[key][0])
        yield from stored.taken.items()

    def fail_refusals(self, piece: Piece, error: Callable[[X], OncestreamError]) -> None:
        """Report the piece's refusals as failed: nobody keeps them."""
        for refusal, positions in zip(self.refusals(piece), piece.refusals.values(), strict=True):
            self._settle(positions, Outcome.RETRIED, error(refusal))
        piece.refusals.clear()

    def hold_back(self, piece: Piece) -> list[str]:
        """Take out of the piece what stands behind a failure of its group. Returns the keys."""
        if not self._groups:
            return []
        behind = self._behind()
        held = [key for key, positions in piece.records.items() if positions[0] in behind]
        for key in held:
            self._settle(piece.records.pop(key), Outcome.RETRIED, _BEHIND)
        for refusal, positions in list(piece.refusals.items()):
            if positions[0] in behind:
                self._settle(piece.refusals.pop(refusal), Outcome.RETRIED, _BEHIND)
        return held

    def fail_behind(self) -> None:
        """Report everything behind a failure of its group as failed; what is done there is a duplicate next time."""
        self._settle(self._behind(), Outcome.RETRIED, _BEHIND)

    def _behind(self) -> set[int]:
        failed, behind = set[str](), set[int]()
        for at, group in self._groups.items():
            result = self.results[at]
            if result is not None and result.outcome is Outcome.RETRIED:
                failed.add(group)
            elif group in failed:
                behind.add(at)
        return behind

    def settle_waiting(self, piece: Piece, claims: Claims) -> None:
        """What could not be claimed is retried."""
        held = TransientError("another invocation is at work on a record with this id")
        undecided = TransientError("DynamoDB did not decide on the claim of this record")
        for key in claims.in_progress:
            self._settle(piece.records[key], Outcome.RETRIED, held)
        for key in claims.undecided:
            self._settle(piece.records[key], Outcome.RETRIED, undecided)

    def settle_completed(self, piece: Piece, keys: Collection[str]) -> None:
        """All deliveries of ``keys`` are duplicates."""
        for key in keys:
            self._settle(piece.records[key], Outcome.DUPLICATE)

    def settle_known(self, piece: Piece, keys: Collection[str], stored: Stored[X]) -> None:
        """Every delivery of ``keys`` is a duplicate, or a conflict."""
        for key in keys:
            self._settle_known(piece.records[key], stored)

    def settle_stored(self, piece: Piece, stored: Stored[X]) -> Piece:
        """The first delivery of each record is what ``stored`` says, the others are its duplicates or conflicts.

        Returns the deliveries that counted on a record which the sink refused. They have the same key and
        other bytes, so they have to be tried in their own right.
        """
        again = Piece()
        late = TransientError("there was no time left to find out which records are refused")
        self.settle_known(piece, stored.duplicates | stored.taken.keys(), stored)
        for key in stored.processed:
            first, *others = piece.records[key]
            self._settle([first], Outcome.PROCESSED)
            self._settle_known(others, stored)
        for key in stored.unsettled:
            self._settle(piece.records[key], Outcome.RETRIED, late)
        for key, refusal in stored.refused.items():
            first, *others = piece.records[key]
            self._settle_refusal([first], refusal, stored)
            for at in others:
                if self.decoding.decoded[at].raw == refusal.raw:
                    self._settle_refusal([at], refusal, stored, repeated=True)
                else:
                    again.records.setdefault(key, []).append(at)
        for refusal, positions in zip(self.refusals(piece), piece.refusals.values(), strict=True):
            now = stored.conflicts.get(refusal.id, refusal)
            self._settle_refusal(positions[1:], refusal, stored, repeated=True)
            self._settle_refusal(positions[:1], now, stored)
        return again

    def settle_rest(self, error: TransientError) -> None:
        """Whatever has no result yet is retried because of ``error``."""
        self.decoding.rest()
        rest = [at for at, result in enumerate(self.results) if result is None]
        self._settle(rest, Outcome.RETRIED, error)

    def _settle_known(self, positions: Sequence[int], stored: Stored[X]) -> None:
        self._settle(positions, Outcome.DUPLICATE)
        if not stored.conflicts:
            return
        seen = set[str]()
        for at in positions:
            conflict = stored.conflicts.get(sha256(self.decoding.decoded[at].raw).hexdigest())
            if conflict is None:
                continue
            if conflict.id in stored.not_kept:
                self._settle_refusal([at], conflict, stored)
            elif conflict.id in stored.rejected and conflict.id not in seen:
                seen.add(conflict.id)
                self._settle_refusal([at], conflict, stored)

    def _settle_refusal(
        self, positions: Sequence[int], refusal: X, stored: Stored[X], *, repeated: bool = False
    ) -> None:
        """``repeated``: an equal one of this batch has come before."""
        if error := stored.not_kept.get(refusal.id):
            self._settle(positions, Outcome.RETRIED, error)
        elif repeated:
            self._settle(positions, Outcome.DUPLICATE)
        else:
            for at in positions:
                self.decoding.decoded[at] = refusal
            self._settle(positions, _rejected_or_known(refusal, stored))

    def _settle(
        self, positions: Iterable[int], outcome: Outcome, error: OncestreamError | None = None
    ) -> None:
        for at in positions:
            self.results[at] = Result(self.decoding.decoded[at], outcome, error)


class Engine(Generic[R, X]):
    """Settles batches.

    Parameters
    ----------
    idempotency
        Claims and completes keys.
    reserve_milliseconds
        No further piece of the batch is begun when less than this is left of the invocation's time. What has
        not been begun is reported as failed: better than to be killed with claims in hand.
    slice_records
        Size of a piece.
    unkept
        What to report of refusals that the sink does not keep; None: it keeps them.
    """

    def __init__(
        self,
        idempotency: Idempotency,
        *,
        reserve_milliseconds: int,
        slice_records: int,
        unkept: Callable[[X], OncestreamError] | None = None,
    ) -> None:
        self._idempotency = idempotency
        self._reserve = reserve_milliseconds
        self._slice_records = slice_records
        self._unkept = unkept

    def run(
        self,
        records: Sequence[dict[str, Any]],
        decode: Callable[[dict[str, Any]], R | X],
        sink: Sink[R, X],
        milliseconds_left: Callable[[], int],
        groups: Mapping[int, str],
    ) -> list[Result[R, X]]:
        """Settle a batch. The results are in its order."""
        decoding = Decoding(records, decode, self._slice_records)
        batch = Batch(decoding, len(records), groups)
        while decoding.pieces:
            if milliseconds_left() - self._reserve <= 0:
                left = TransientError(
                    f"not begun: less than {self._reserve} ms of the invocation's time were left"
                )
                batch.settle_rest(left)
                break
            try:
                again = self._settle(batch, decoding.pieces.popleft(), sink, milliseconds_left)
            except TransientError as error:
                # What keeps this piece from being stored keeps the next ones, too.
                batch.settle_rest(error)
                break
            if again.records:
                decoding.pieces.appendleft(again)
        batch.fail_behind()
        return [result for result in batch.results if result is not None]

    def _settle(
        self, batch: Batch[R, X], piece: Piece, sink: Sink[R, X], milliseconds_left: Callable[[], int]
    ) -> Piece:
        """Claim, store and complete a piece. Returns the part of it that has to be done anew, at once.

        Raises
        ------
        TransientError
            The piece could not be claimed or stored. Its claims are released, as far as possible.
        """
        # The first records are on their way to DynamoDB while the next ones are decoded.
        claims = self._idempotency.claim(batch.decoding.keys(piece), milliseconds_left())
        try:
            return self._settle_claimed(batch, piece, claims, sink, milliseconds_left)
        except Exception:
            # Of whatever kind: others need not wait for the claims to run out. What is completed stays so.
            self._idempotency.release(claims.claimed)
            raise

    def _settle_claimed(
        self,
        batch: Batch[R, X],
        piece: Piece,
        claims: Claims,
        sink: Sink[R, X],
        milliseconds_left: Callable[[], int],
    ) -> Piece:
        batch.decoding.rest()
        batch.settle_waiting(piece, claims)
        if self._unkept is not None:
            batch.fail_refusals(piece, self._unkept)
        held_back = batch.hold_back(piece)
        claimed, known = claims.claimed, claims.completed
        suspected = claims.suspect
        if held_back:
            claimed, known, suspected = (keys.difference(held_back) for keys in (claimed, known, suspected))
        first = batch.records(piece, claimed, slice(1))
        again = batch.to_compare(piece, claimed, slice(1, None))
        again += batch.to_compare(piece, known, slice(None))
        # Done with another digest than these. The sink finds out whether that is other content; a claim does not.
        suspects = [
            each
            for each in batch.records(piece, suspected, slice(None))
            if each.may_repeat or each.content_digest() != claims.done_with.get(each.key)
        ]
        asked = {each.key for each in again}
        batch.settle_completed(piece, known - asked)
        refusals = batch.refusals(piece)

        stored: Stored[X] = Stored()
        if first or refusals or again or suspects:
            seconds = max(1.0, (milliseconds_left() - self._reserve) / 1000)
            stored = sink.store(first, refusals, again, suspects, seconds=seconds)
        # What cannot be completed stays in progress until its claim runs out. It is stored, so it is a
        # success: failing it would deliver the rest of the batch again, for rows that are there. The price: a
        # duplicate that comes before the claim runs out has to wait until then.
        self._idempotency.complete(batch.stored_digests(piece, stored))
        # A refused record leaves its key free: it may come again with a value that the sink takes.
        self._idempotency.release(
            (stored.refused.keys() | stored.unsettled).union(claims.claimed.intersection(held_back))
        )
        batch.settle_known(piece, (known & asked) | suspected, stored)
        return batch.settle_stored(piece, stored)


_BEHIND = TransientError("a record before it in its group has to come again first")


def _id_of(record: Any) -> str:
    return record.id if isinstance(record, Refusal) else record.key


def _rejected_or_known(refusal: Refusal, stored: Stored[Any]) -> Outcome:
    if refusal.id not in stored.rejected:
        return Outcome.DUPLICATE
    return Outcome.CONFLICTING if refusal.is_conflict else Outcome.REJECTED
