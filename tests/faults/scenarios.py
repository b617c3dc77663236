"""For each function small inputs that take every branch. Each of its I/O calls is broken in each way."""

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

_CONSUMED = (
    Sent("new"),
    Sent("twice"),
    Sent("twice"),
    Sent("p", 1, "poison"),
    Sent("refused then good", 1, "refused"),
    Sent("refused then good", 2),
    Sent("swallowed", quality="swallowed"),
    Sent("held"),
    Sent("stale"),
    Sent("expired"),
    Sent("twice"),
    Sent("p", 1, "poison"),
    Sent("repeated", 1, line=1),
    Sent("repeated", 1, line=2),
    Sent("repeated", 2, line=3),
    Sent("last"),
)
_POSTED = ((Sent("a"), Sent("b"), Sent("c")),)

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
    "chunks": History(files=(replace(_NDJSON, notified=1), File("d.csv", (Sent("d1", 31), Sent("d2", 32))))),
    "consumer": History(
        stream=_CONSUMED,
        claims=(("held", "held"), ("stale", "stale"), ("expired", "expired")),
        batch_size=10,
    ),
    "api over HTTP": History(posts=_POSTED, via="http"),
    "api over HTTP, NDJSON": History(posts=_POSTED, via="ndjson"),
    "chunks of a gzip file": History(
        files=(File("e.ndjson.gz", (Sent("n1", 1), Sent("bad", 2, "poison"), Sent("n3", 3))),)
    ),
    "consumer in slices": History(
        stream=tuple(Sent(name) for name in "abcbde"), slice_records=2, claims=(("c", "stale"),)
    ),
}
"""By name, which begins with the function whose calls are broken."""


def function_of(scenario: str) -> str:
    """The function whose calls are broken."""
    return scenario.split(maxsplit=1)[0]


def single_faults(scenario: str, steps: list[Step]) -> Iterator[History]:
    """The scenario, once for each step of its function and each fault that the step can meet."""
    function = function_of(scenario)
    for step in steps:
        if step.function == function:
            for kind in kinds(step.service, step.operation):
                yield with_fault(scenario, step.number, kind)


def with_fault(scenario: str, step: int | str, kind: Kind) -> History:
    """The scenario with one fault, at the step of this number or of this name."""
    return replace(SCENARIOS[scenario], faults=((function_of(scenario), step, kind),))
