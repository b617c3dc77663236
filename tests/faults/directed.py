"""Histories made for one mutant each, where chance would take long."""

from __future__ import annotations

from tests.faults.history import File, History, Sent
from tests.faults.scenarios import with_fault
from tests.faults.services import Object
from uploads.upload import upload_id

_ONE = (Sent("a"),)
_CRASH_AFTER_COMMIT = History(stream=_ONE, faults=(("consumer", "COMMIT", "crash after"),))
# The second of two has a clock by which the first one's claim has run out; then the first cannot store.
_LATE_RELEASE = History(
    stream=_ONE,
    skews=(0.0, 130.0),
    acts=((1, "twins", 1),),
    faults=(("consumer", "INSERT records", "refuse"),),
)
_OTHER_CONTENT_LATER = History(stream=(Sent("a", 1), Sent("a", 2)), batch_size=1)
_SECOND_SLICE_FAILS = History(
    stream=tuple(Sent(name) for name in "abcd"),
    slice_records=2,
    faults=(("consumer", "COMMIT 2", "refuse"),),
)
_DIGITS = (Sent("a", 1, written="digits"),)
_FILE = File("a.ndjson", (Sent("first", 1),))
_ID_OF_ITS_LINE = f"{upload_id('uploads', _FILE.key, Object(_FILE.data, {}).quoted_etag)}:0"

DIRECTED: dict[str, History] = {
    "ON CONFLICT dropped": _CRASH_AFTER_COMMIT,
    "ON CONFLICT and the look for known rows dropped": _CRASH_AFTER_COMMIT,
    "unique key dropped": _CRASH_AFTER_COMMIT,
    "claim and unique key dropped": _CRASH_AFTER_COMMIT,
    "what is known is not compared": _OTHER_CONTENT_LATER,
    "the claim decides what other content is": _OTHER_CONTENT_LATER,
    "what was completed with other content is inserted": _OTHER_CONTENT_LATER,
    "a duplicate is inferred": History(stream=(Sent("a", quality="swallowed"),)),
    "complete before commit": with_fault("consumer", "COMMIT", "refuse"),
    "unsettled records completed": with_fault("consumer", "ROLLBACK TO", "late"),
    "release ignores ownership": _LATE_RELEASE,
    "claims of what was not stored are not released": with_fault("consumer", "INSERT records", "refuse"),
    "a slice that failed is reported as a success": _SECOND_SLICE_FAILS,
    "a slice that failed makes the stored ones before it fail": _SECOND_SLICE_FAILS,
    "rejecting on a transient SQLSTATE": with_fault("consumer", "INSERT records", "locked"),
    "rejecting when Postgres is away": History(stream=_ONE, faults=(("consumer", "INSERT records", "lost"),)),
    "answers of PutRecords out of order": with_fault("api", "PutRecords", "part"),
    "a lost answer of PutRecords taken for success": with_fault("api", "PutRecords", "refuse"),
    "a chunk counted though entries failed": with_fault("chunks", "GetObject", "late"),
    "the producer writes payloads anew": History(posts=(_DIGITS,), via="http"),
    "what the type makes of a payload is stored": History(stream=_DIGITS, payload_type="aliased"),
    "the type is applied twice": History(stream=_DIGITS, payload_type="cents"),
    "ids of lines are not reserved": History(posts=((Sent(_ID_OF_ITS_LINE),),), files=(_FILE,)),
    "planned before the jobs are sent": with_fault("plan", "SendMessageBatch", "crash before"),
}
