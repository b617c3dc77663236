"""For each function a small input that takes every branch. Each of its I/O calls is broken in each way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from tests.faults.faults import Kind, Step, kinds
from tests.faults.history import File, History, Sent

CHUNK_BYTES = 64

_NDJSON = File(
    "a.ndjson",
    (
        Sent("n1", 1),
        Sent("n2", 2),
        Sent("bad", 3, "poison"),
        Sent("n4", 4),
        Sent("n5", 5),
    ),
    notified=2,
)
_CSV = File("b.csv", tuple(Sent(f"c{n}", 10 + n) for n in range(12)))

SCENARIOS: dict[str, History] = {
    "api": History(
        posts=(
            (Sent("a"), Sent("b"), Sent("c"), Sent("d")),
            (Sent("b"), Sent("e", 5), Sent("f", quality="refused")),
        ),
        shards=2,
    ),
    "register": History(files=(_NDJSON,)),
    "plan": History(files=(_NDJSON, _CSV)),
    "chunks": History(files=(_NDJSON, File("d.csv", (Sent("d1", 31), Sent("d2", 32))))),
    "consumer": History(
        stream=(
            Sent("new"),
            Sent("twice"),
            Sent("twice"),
            Sent("p", 1, "poison"),
            Sent("refused then good", 1, "refused"),
            Sent("refused then good", 2),
            Sent("held"),
            Sent("stale"),
            Sent("expired"),
            Sent("twice"),
            Sent("p", 1, "poison"),
            Sent("repeated", 1, line=1),
            Sent("repeated", 2, line=2),
            Sent("last"),
        ),
        claims=(("held", "held"), ("stale", "stale"), ("expired", "expired")),
        batch_size=10,
    ),
}


def single_faults(function: str, steps: list[Step]) -> Iterator[History]:
    """The function's scenario, once for each of its steps and each fault that the step can meet."""
    for step in steps:
        if step.function == function:
            for kind in kinds(step.service, step.operation):
                yield with_fault(function, step.number, kind)


def with_fault(function: str, step: int | str, kind: Kind) -> History:
    """The function's scenario with one fault, at the step of this number or of this name."""
    return replace(SCENARIOS[function], faults=((function, step, kind),))
