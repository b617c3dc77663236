"""A Hypothesis state machine: anything that can happen, at any time, and the account after each move."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.faults.course import Course, Player, play
from tests.faults.faults import AWS, EVERYWHERE, PARTS, POSTGRES
from tests.faults.history import File, Harness, History, Sent
from tests.faults.mutants import MUTANTS
from tests.faults.replay import read, script
from tests.faults.types import TYPES

SETTINGS = settings(
    print_blob=False,
    max_examples=45,
    stateful_step_count=25,
)
MOST_SHARDS = 6

_ids = st.sampled_from(["r0", "r1", "r2", "r3", "r4"])
_marks = st.sampled_from([0, 0, 0, 1, 2])
_qualities = st.sampled_from([*["good"] * 7, "refused", "swallowed", "unfit"])
_written = st.sampled_from(["plain", "plain", "spaced", "escaped"])
_records = st.builds(Sent, _ids, _marks, _qualities, written=_written)
_foreign = _records | st.builds(Sent, st.just("p"), st.sampled_from([1, 2]), st.just("poison"))
_requests = st.lists(_records, min_size=1, max_size=5, unique_by=lambda sent: sent.id).map(tuple)
_functions = st.sampled_from(["consumer", "api", "register", "plan", "chunks"])
_choices = st.integers(0, MOST_SHARDS)


def _faults(*kinds: str) -> Any:
    fault = st.tuples(st.integers(0, 3), st.sampled_from(kinds))
    return st.one_of(fault, fault, st.none())


_aws_faults = _faults(*EVERYWHERE, *AWS, *PARTS)
_consumer_faults = _faults(*EVERYWHERE, *AWS, *PARTS, *POSTGRES)
_worlds = st.builds(
    History,
    stream=st.lists(_foreign, max_size=6).map(tuple),
    claims=st.lists(
        st.tuples(_ids, st.sampled_from(["held", "stale", "expired"])), max_size=2, unique_by=lambda it: it[0]
    ).map(tuple),
    shards=st.integers(1, 3),
    batch_size=st.sampled_from([2, 3, 10, 100]),
    factor=st.integers(1, 3),
    via=st.sampled_from(["direct", "http", "ndjson"]),
    slice_records=st.sampled_from([1, 2, 3, 1_000]),
    a_call=st.sampled_from([2, 25]),
)
# One rule for all of these, so that they do not crowd out the deliveries.
_around = st.one_of(
    st.tuples(st.just("wait"), st.sampled_from([1, 30, 125, 400])),
    st.tuples(st.just("sweep")),
    st.tuples(st.just("split"), _choices),
    st.tuples(st.just("merge"), _choices),
    st.tuples(st.just("cool"), _functions),
    st.tuples(st.just("skew"), _functions, st.integers(-60, 60)),
    st.tuples(st.just("deploy"), st.sampled_from(list(TYPES))),
    st.tuples(st.just("terminate")),
)
"""Time passes, up to past the time for which a claim is held (two minutes), and for which it is remembered (five);
TTL deletes; shards are split and merged; Lambda takes environments away; a clock is put forward or back; payloads get
another type; Postgres ends its sessions."""


class Events(RuleBasedStateMachine):
    """What can happen. Each rule is a move of ``Player``."""

    requests = Bundle("requests")

    def __init__(self, harness: Harness, ignored: str = "") -> None:
        super().__init__()
        self._harness = harness
        self._ignored = ignored
        self._player: Player | None = None
        self._failed = False
        self._lines = 100

    @property
    def player(self) -> Player:
        assert self._player
        return self._player

    def _check(self, wrong: list[str]) -> None:
        self._failed = bool(wrong)
        assert not wrong, "\n".join([*wrong, "replay it with:", script(self.player.course)])

    @initialize(world=_worlds)
    def begin(self, world: History) -> None:
        self._player = Player(self._harness, world, self._ignored)

    @invariant()
    def nothing_is_wrong_so_far(self) -> None:
        self._check(self.player.wrong())

    def teardown(self) -> None:
        if self._player:
            try:
                if not self._failed:
                    self._check(self._player.finish())
            finally:
                self._player.close()

    @rule(target=requests, records=_requests, fault=_aws_faults)
    def post(self, records: tuple[Sent, ...], fault: Any) -> tuple[Sent, ...]:
        self.player.make("post", records, fault)
        return records

    @rule(records=requests)
    def post_again(self, records: tuple[Sent, ...]) -> None:
        self.player.make("post", records)

    @rule(sent=_foreign)
    def put(self, sent: Sent) -> None:
        self.player.make("put", sent)

    @rule(
        poison=st.lists(st.booleans(), min_size=1, max_size=5),
        kind=st.sampled_from(["ndjson", "ndjson.gz", "csv", "csv.gz", "named"]),
    )
    def drop(self, poison: list[bool], kind: str) -> None:
        lines = []
        for place, bad in enumerate(poison):
            self._lines += 1
            quality: Any = "poison" if bad and not kind.startswith("csv") else "good"
            name = "xyz"[place % 3] if kind == "named" else f"f{place}"
            lines.append(Sent(name, self._lines, quality))
        key = f"file{self._lines}.{kind if kind != 'named' else 'ndjson'}"
        self.player.make("drop", File(key, tuple(lines), named=kind == "named"))

    @precondition(lambda self: self.player.history.files)
    @rule(choice=_choices)
    def notify_again(self, choice: int) -> None:
        files = self.player.history.files
        self.player.make("notify", files[choice % len(files)].key)

    @precondition(lambda self: self.player.world.pending("register"))
    @rule(fault=_aws_faults)
    def register(self, fault: Any) -> None:
        self.player.make("deliver", "register", fault)

    @precondition(lambda self: self.player.world.pending("plan"))
    @rule(fault=_aws_faults)
    def plan(self, fault: Any) -> None:
        self.player.make("deliver", "plan", fault)

    @precondition(lambda self: self.player.world.pending("chunks"))
    @rule(fault=_aws_faults)
    def chunks(self, fault: Any) -> None:
        self.player.make("deliver", "chunks", fault)

    @precondition(lambda self: self.player.world.pending("consumer"))
    @rule(fault=_consumer_faults, checkpoint_lost=st.booleans())
    def consume(self, fault: Any, checkpoint_lost: bool) -> None:
        self.player.make("consume", fault, checkpoint_lost)

    @precondition(lambda self: self.player.world.pending("consumer"))
    @rule(seed=st.integers(0, 1_000), fault=_consumer_faults)
    def consume_twice_at_once(self, seed: int, fault: Any) -> None:
        self.player.make("deliver_twice", seed, fault)

    @rule(move=_around)
    def happen(self, move: tuple[Any, ...]) -> None:
        opened = sum(not shard.closed for shard in self.player.world.kinesis.shards)
        needless = {"split": opened == MOST_SHARDS, "merge": opened == 1, "terminate": self.player.away}
        if not needless.get(move[0]):
            self.player.make(*move)

    @precondition(lambda self: not self.player.away and self.player.world.pending("consumer"))
    @rule(mode=st.sampled_from(["fast", "immediate"]), luck=st.integers(1, 4))
    def stop(self, mode: str, luck: int) -> None:
        if luck == 4:  # it takes a fifth of a second
            self.player.make("stop", mode)

    @precondition(lambda self: self.player.away)
    @rule()
    def start(self) -> None:
        self.player.make("start")


def test_nothing_that_can_happen_leaves_anything_wrong(harness: Harness) -> None:
    run_state_machine_as_test(lambda: Events(harness), settings=SETTINGS)


@pytest.mark.parametrize(
    ("name", "shown"),
    [("claim and unique key dropped", "duplicated: "), ("complete before commit", "lost: ")],
)
def test_a_defect_is_found_and_what_shows_it_can_be_replayed(name: str, shown: str, harness: Harness) -> None:
    mutant = next(each for each in MUTANTS if each.name == name)
    first = settings(SETTINGS, phases=[Phase.generate], report_multiple_bugs=False)
    with mutant.applied(harness.database):
        with pytest.raises(AssertionError) as failure:  # by the account: the claim rules see it at once
            run_state_machine_as_test(lambda: Events(harness, ignored="claim rule"), settings=first)
        script_of_it = re.search(r'replay "(Course\(.*\))"', str(failure.value))
        assert script_of_it
        course = read(script_of_it[1])
        assert isinstance(course, Course)
        assert any(each.startswith(shown) for each in play(harness, course, ignored="claim rule"))
    assert play(harness, course) == []


def test_a_course_without_moves_leaves_nothing_wrong(harness: Harness) -> None:
    assert play(harness, Course(History())) == []
