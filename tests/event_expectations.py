"""What each event of ``events/`` has to lead to: the answer, and the effect.

Shared by tests/integration/test_events.py, which hands the events to the functions in this process, and
tests/sam, which does so in containers.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from tests.recorded_events import Effect, World, lines, read
from uploads.upload import upload_id

if TYPE_CHECKING:
    from collections.abc import Callable

NOTHING = Effect()
DONE: dict[str, Any] = {"batchItemFailures": []}
NOT_JSON = "not JSON: invalid character at line 1 column 2"
NOT_UTF8 = "not UTF-8: byte 0xff at offset 0"
NUL = "payload holds a NUL (U+0000), which Postgres cannot store"
LONG_ID = "id: has 10000 characters; at most 256 are allowed"


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What is to come of one event."""

    answer: Any
    """What the function answers; an exception's type name if it fails."""
    effect: Effect = NOTHING
    """What is there afterwards."""
    again: Any = None
    """What it answers when the event comes once more, if that is something else. The effect stays the same."""
    before: Callable[[World], None] | None = None
    """Sets up what the event takes for granted."""
    part: Callable[[Any], Any] = lambda answer: answer
    """The part of the answer that is compared."""
    consumed: tuple[int, tuple[str, ...]] | None = None
    """For what goes onto the stream: rows and rejections once the consumer has taken it."""


def _flights(*numbers: int) -> frozenset[str]:
    return frozenset(f"flight-{number}" for number in numbers)


def _ids(upload: str, count: int) -> frozenset[str]:
    """The ids of the first ``count`` lines of the uploaded file: the upload and the line's offset."""
    offsets = accumulate((len(line) for line in lines().splitlines(keepends=True)), initial=0)
    return frozenset(f"{upload}:{offset}" for offset, _ in zip(offsets, range(count), strict=False))


def _registered(name: str, key: str) -> str:
    """The id of the upload that a notification leads to."""
    entity = read(name)["Records"][0]["s3"]
    return upload_id(entity["bucket"]["name"], key, f'"{entity["object"]["eTag"]}"')


def _outcome(**ids: list[str]) -> dict[str, list[str]]:
    return {name: ids.get(name, []) for name in ("inserted", "failed", "duplicates", "ignored", "refused")}


def _published(*ids: str | None, **faults: Any) -> dict[str, Any]:
    accepted = sum(each is not None for each in ids)
    return {"accepted": accepted, "ids": list(ids), "rejected": [], "failed": []} | faults


def _http(answer: dict[str, Any]) -> tuple[int, Any]:
    return answer["statusCode"], json.loads(answer["body"])


def _chunks(name: str, published: int, *bad_lines: str) -> Expected:
    upload = json.loads(read(name)["Records"][0]["body"])["upload"]
    return Expected(
        answer=DONE,
        effect=Effect(
            published=_ids(upload, published),
            bad_lines=tuple(sorted(bad_lines)),
            counts={"chunk#000000": (published, len(bad_lines))},
        ),
        consumed=(published, tuple(sorted(bad_lines))),
    )


def _register(name: str, key: str) -> Expected:
    upload = _registered(name, key)
    return Expected(
        answer=_outcome(inserted=[upload]),
        again=_outcome(duplicates=[upload]),
        effect=Effect(uploads={key: None}),
    )


_PLANNED: dict[str, str | int | None] = {"planned.ndjson": 1}
_NOT_PLANNED: dict[str, str | int | None] = {"planned.ndjson": None}
_THREE = _flights(0, 1, 2)

EXPECTED: dict[str, Expected] = {
    "chunks-normal": _chunks("chunks-normal", 20),
    # The same job in another message.
    "chunks-duplicates": _chunks("chunks-duplicates", 20),
    "chunks-poison-lines": _chunks(
        "chunks-poison-lines",
        3,
        NOT_JSON,
        "not JSON: it ends too early",
        NUL,
        NOT_UTF8,
    ),
    # No job: it is put into the dead-letter queue.
    "chunks-poison": Expected(answer=DONE, effect=Effect(set_aside=True)),
    "consumer-normal": Expected(answer=DONE, effect=Effect(rows=_flights(5, 6, 7, 8, 9))),
    "consumer-duplicates": Expected(answer=DONE, effect=Effect(rows=_flights(10, 11, 12))),
    "consumer-poison": Expected(
        answer=DONE,
        effect=Effect(
            rows=_flights(13, 14),
            rejected=(
                "empty body",
                LONG_ID,
                "id: is missing; partition_key: is missing; payload: is missing; and 2 more",
                NOT_JSON,
                NOT_UTF8,
                NUL,
            ),
        ),
    ),
    "migrate-normal": Expected(answer={"applied": []}),
    "plan-normal": Expected(
        answer=DONE, before=World.enter_planned_upload, effect=Effect(uploads=_PLANNED, jobs=1)
    ),
    "plan-modify": Expected(answer=DONE),
    # A removed entry is not planned anew, even where the ledger has the upload.
    "plan-remove": Expected(
        answer=DONE, before=World.enter_planned_upload, effect=Effect(uploads=_NOT_PLANNED)
    ),
    "producer-normal": Expected(
        answer=_published("flight-0", "flight-1", "flight-2"),
        effect=Effect(published=_THREE),
        consumed=(3, ()),
    ),
    "producer-duplicates": Expected(
        answer=_published(*["flight-0", "flight-1", "flight-2"] * 2),
        effect=Effect(published=_THREE),
        consumed=(3, ()),
    ),
    "producer-poison": Expected(
        answer=_published(
            "flight-0",
            *[None] * 7,
            "flight-1",
            rejected=[
                {"index": 1, "reason": 'not an object: expected {"id"?, "partition_key"?, "payload"}'},
                {"index": 2, "reason": "payload: is missing"},
                {"index": 3, "reason": "id: is a number, and must be a text"},
                {"index": 4, "reason": NUL},
                {"index": 5, "reason": LONG_ID},
                {"index": 6, "reason": "colour: is no field of a record"},
                {
                    "index": 7,
                    "id": "oversized",
                    "reason": "1100065 bytes with its partition key; a record has 1048576 at most",
                },
            ],
        ),
        effect=Effect(published=_flights(0, 1)),
        consumed=(2, ()),
    ),
    "producer-http-normal": Expected(
        answer=(200, _published("flight-3", "flight-4")),
        part=_http,
        effect=Effect(published=_flights(3, 4)),
        consumed=(2, ()),
    ),
    "producer-http-not-json": Expected(
        answer=(
            400,
            _published(error="the body is not JSON: it ends too early"),
        ),
        part=_http,
    ),
    "register-normal": _register("register-normal", "flights.ndjson"),
    # The same file, put once more: alone it is a new upload, after register-normal it is none (see the tests).
    "register-duplicates": _register("register-duplicates", "flights.ndjson"),
    "register-encoded-key": _register("register-encoded-key", "Flüge 2013 + more.csv"),
    "register-poison": Expected(answer=_outcome(ignored=["a folder marker"])),
    "report-normal": Expected(
        answer=("planned.ndjson", 0, 0, None),
        part=lambda answer: tuple(
            answer["account"][name] for name in ("key", "inserted", "missing", "chunks_planned")
        ),
        before=World.enter_planned_upload,
        effect=Effect(uploads=_NOT_PLANNED),
    ),
    "report-poison": Expected(answer="PermanentError"),
}
