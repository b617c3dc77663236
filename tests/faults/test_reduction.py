"""What the reduction of orders (interleave.py) leaves out, against all orders, counted out in another way."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

import pytest

from tests.faults.interleave import every_order
from tests.faults.turns import Call, Choose

type Step = frozenset[tuple[str, ...]] | None
"""What a step of a toy program reads and writes. None: everything."""
type Program = tuple[tuple[Step, ...], ...]
"""The steps of each actor."""

NAMES = "xyz"


def _program(seed: int) -> Program:
    """Two actors with three or four steps, or three with two: at most 90 orders."""
    random = Random(seed)
    sizes = random.choice([(3, 3), (3, 4), (4, 4), (2, 2, 2)])
    # Who may touch everything is kept apart from who touches nothing, too: a caution that costs orders.
    cautious = random.random() < 0.5

    def step() -> Step:
        if cautious and random.random() < 0.2:
            return None
        return frozenset((name,) for name in random.sample(NAMES, random.choice((cautious, 1, 1, 2))))

    return tuple(tuple(step() for _ in range(size)) for size in sizes)


def _outcome(program: Program, order: tuple[int, ...]) -> tuple[tuple[str, ...], ...]:
    """For each variable, who wrote it when having seen what: two orders with one outcome are one run."""
    memory = dict.fromkeys(NAMES, "")
    at = [0] * len(program)
    seen = [""] * len(program)
    for actor in order:
        step, at[actor] = program[actor][at[actor]], at[actor] + 1
        names = [name for name in NAMES if step is None or (name,) in step]
        seen[actor] = f"({actor}.{at[actor]} {seen[actor]} {[memory[name] for name in names]})"
        memory |= dict.fromkeys(names, seen[actor])
    return tuple(memory.values()), tuple(seen)


def _all_orders(left: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Every order of so many steps of each actor."""
    if not any(left):
        yield ()
    for actor, steps in enumerate(left):
        if steps:
            for rest in _all_orders((*left[:actor], steps - 1, *left[actor + 1 :])):
                yield (actor, *rest)


def _run(program: Program, choose: Choose) -> tuple[int, ...]:
    order: list[int] = []
    while len(order) < sum(map(len, program)):
        at = [order.count(actor) for actor in range(len(program))]
        calls = [
            Call(actor, f"step {at[actor]}", lambda step=steps[at[actor]]: step)
            for actor, steps in enumerate(program)
            if at[actor] < len(steps)
        ]
        order.append(calls[choose(calls)].actor)
    return tuple(order)


def _reduced(program: Program) -> list[tuple[tuple[str, ...], ...]]:
    return [_outcome(program, order) for _, order in every_order(lambda choose: _run(program, choose))]


def _brute(program: Program) -> set[tuple[tuple[str, ...], ...]]:
    return {_outcome(program, order) for order in _all_orders(tuple(map(len, program)))}


@pytest.mark.parametrize("seed", range(40))
def test_the_orders_that_are_run_have_each_outcome_that_there_is_once(seed: int) -> None:
    program = _program(seed)
    reduced = _reduced(program)
    assert set(reduced) == _brute(program)
    assert len(reduced) == len(set(reduced)), "an order that makes no difference was run"


def test_an_order_too_few_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "commutes", lambda self, other: self.actor != other.actor)
    assert any(set(_reduced(program)) != _brute(program) for program in map(_program, range(40)))


def test_without_the_reduction_each_order_is_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Call, "commutes", lambda self, other: False)
    program = _program(0)
    orders = [order for _, order in every_order(lambda choose: _run(program, choose))]
    assert sorted(orders) == sorted(_all_orders(tuple(map(len, program))))
