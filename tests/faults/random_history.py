"""Histories drawn at random. `make prove` runs those of many seeds, the tests those of the first 300."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import fields, replace
from random import Random
from typing import Any

from tests.faults.events import Via
from tests.faults.faults import AWS, EVERYWHERE, PARTS, POSTGRES, Kind
from tests.faults.history import Act, File, History, Sent
from tests.faults.links import Way
from tests.faults.types import TYPES

_KINDS: list[Kind] = [*EVERYWHERE, *AWS, *PARTS, *POSTGRES]
_FUNCTIONS = {"consumer": 40, "api": 4, "chunks": 20, "plan": 12, "register": 6}
"""Functions and how many of their first steps may be broken."""
_ACTS: dict[Act, int] = {
    "again": 0,
    "twins": 1_000,
    "jump": 400,
    "sweep": 0,
    "split": 8,
    "merge": 8,
    "terminate": 0,
    "cold": 0,
    "deploy": len(TYPES),
}
"""Acts and the bound of their argument. ``jump`` passes the time for which claims are remembered here."""

_SERVER: dict[int, History] = {
    25: History(acts=((2, "restart", 0),)),
    50: History(acts=((1, "restart", 3),)),
    75: History(acts=((3, "immediate", 1),)),
    99: History(faults=(("consumer", "INSERT records 2", "restart"), ("consumer", "COMMIT", "restart"))),
}
"""By the last two digits of the seed: what happens to the Postgres server. It takes a fifth of a second."""

_STYLES = ("plain", "spaced", "escaped", "digits")
_QUALITIES_OF_LINES = [*["good"] * 8, "poison", "poison", "refused", "swallowed", "unfit"]
_WAYS: dict[int, Way] = {1: "crt", 3: "boto3"}
"""By the seed modulo 4: how requests get to AWS. Elsewhere in memory, which takes two fifths of the time."""


def history_of(seed: int) -> History:
    """The random history of this seed."""
    history = _network(seed, draw(Random(seed)))
    if server := _SERVER.get(seed % 100):
        acts, faults = (*history.acts, *server.acts), (*history.faults, *server.faults)
        stream = history.stream or (Sent("a"), Sent("b"))
        history = replace(history, acts=acts, faults=faults, stream=stream)
    return history


def _network(seed: int, history: History) -> History:
    """Every other history goes over sockets. Each has a number of requests in flight, and an order for them."""
    way: Way = _WAYS.get(seed % 4, "memory")
    if history.waits_in_vain and any(act == "twins" for _, act, _ in history.acts):
        way = "memory"  # while the one waits, really, the other's requests would not be answered
    in_flight = Random(f"in flight {seed}").choice((1, 2, 4))
    return replace(history, way=way, in_flight=in_flight, order=seed)


def draw(random: Random) -> History:
    """A history of a few requests, files and foreign messages, with several faults and acts."""
    marks = iter(range(1, 1_000))
    via: Via = random.choice(("direct", "http", "ndjson"))
    # The runtime parses what comes by a direct invocation, and digits are lost before we see them.
    styles = ["plain", "spaced", "escaped", *(["digits"] if via != "direct" else [])]
    names = [f"r{number}" for number in range(random.randint(2, 9))]
    posts = tuple(
        _distinct(_sent(random, names, marks, styles) for _ in range(random.randint(1, 6)))
        for _ in range(random.randint(0, 2))
    )
    stream = tuple(_sent(random, names, marks, _STYLES, poison=True) for _ in range(random.randint(0, 8)))
    files = tuple(_file(random, number, marks) for number in range(random.choice((0, 0, 1))))
    claims = tuple(
        (name, random.choice(("held", "stale", "expired"))) for name in names[: random.randint(0, 2)]
    )
    functions = (
        ["consumer"] * 4 + (["api"] if posts else []) + (["chunks", "plan", "register"] if files else [])
    )
    faults: dict[tuple[str, int], Kind] = {}
    for _ in range(random.randint(1, 5)):
        function = random.choice(functions)
        first = random.randrange(_FUNCTIONS[function])
        kind = random.choice(_KINDS)
        for number in range(first, first + random.choice((1, 1, 2, 4))):  # several in a row
            faults[function, number] = kind
    acts = []
    for _ in range(random.randint(0, 4)):
        act = random.choice(list(_ACTS))
        bound = _ACTS[act]
        acts.append((random.randint(1, 8), act, random.randrange(bound) if bound else 0))
    return History(
        posts=posts,
        stream=stream,
        files=files,
        claims=claims,
        faults=tuple((function, number, kind) for (function, number), kind in faults.items()),
        acts=tuple(sorted(acts)),
        shards=random.randint(1, 3),
        batch_size=random.choice((2, 3, 10, 100)),
        factor=random.randint(1, 3),
        skews=random.choice(((0.0,), (0.0,), (0.0, 60.0), (-60.0, 0.0, 60.0))),
        payload_type=random.choice(("any", *TYPES)),
        via=via,
        slice_records=random.choice((1, 2, 3, 1_000, 1_000)),
        a_call=random.choice((2, 25)),
    )


def shrink(history: History, fails: Callable[[History], bool]) -> History:
    """Leave out whatever the failure does not need."""
    smaller = True
    while smaller:
        smaller = False
        for candidate in _smaller(history):
            if fails(candidate):
                history, smaller = candidate, True
                break
    return history


def _smaller(history: History) -> Iterator[History]:
    for each in fields(history):
        value: Any = getattr(history, each.name)
        if not isinstance(value, tuple):
            if value != each.default:
                yield replace(history, **{each.name: each.default})
        elif each.name == "skews":
            if any(value):
                yield replace(history, skews=(0.0,))
        else:
            for place in range(len(value)):
                yield replace(history, **{each.name: value[:place] + value[place + 1 :]})
    for place, post in enumerate(history.posts):
        for inner in range(len(post)) if len(post) > 1 else ():
            shorter = post[:inner] + post[inner + 1 :]
            yield replace(history, posts=(*history.posts[:place], shorter, *history.posts[place + 1 :]))


def _distinct(records: Iterator[Sent]) -> tuple[Sent, ...]:
    # One request with two contents under one id is told so and has nothing to do with faults.
    return tuple({sent.id: sent for sent in records}.values())


def _sent(
    random: Random, names: list[str], marks: Iterator[int], styles: Sequence[str], *, poison: bool = False
) -> Sent:
    kinds = ["good"] * 12 + ["refused", "swallowed", "unfit"] + (["poison"] if poison else [])
    quality: Any = random.choice(kinds)
    if quality == "poison":
        return Sent("p", random.randint(1, 2), "poison")
    # Messages with one id mostly say the same, and sometimes do not.
    name, mark = random.choice(names), next(marks) if random.random() < 0.2 else 0
    return Sent(name, mark, quality, written=_written(random, name, styles))


def _written(random: Random, name: str, styles: Sequence[str]) -> Any:
    # Mostly one way of writing for one record: other digits are other content.
    return random.choice(styles) if random.random() < 0.2 else styles[ord(name[-1]) % len(styles)]


def _file(random: Random, number: int, marks: Iterator[int]) -> File:
    csv = random.random() < 0.3
    named = not csv and random.random() < 0.5
    lines = []
    for place in range(random.randint(1, 6)):
        quality: Any = "good" if csv else random.choice(_QUALITIES_OF_LINES)
        name = random.choice("xyz") if named else f"f{place}"
        # A line that repeats another mostly says the same.
        mark = 100 + (ord(name[0]) if named and random.random() < 0.7 else next(marks))
        lines.append(Sent(name, mark, quality, written=_written(random, name, _STYLES)))
    key = f"file{number}.{'csv' if csv else 'ndjson'}{random.choice(('', '', '.gz'))}"
    return File(key, tuple(lines), named, notified=random.randint(1, 2))
