"""Every interleaving of invocations at once: depth first through the choices of the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class Choices:
    """One way through the choices: those of ``prefix`` first, then always the first."""

    def __init__(self, prefix: list[int]) -> None:
        self._prefix = prefix
        self.taken: list[tuple[int, int]] = []
        """Each choice, and among how many."""

    def choose(self, among: int) -> int:
        place = len(self.taken)
        choice = self._prefix[place] if place < len(self._prefix) else 0
        self.taken.append((choice, among))
        return choice


def every_order[Result](run: Callable[[Callable[[int], int]], Result]) -> Iterator[tuple[list[int], Result]]:
    """Run once for each sequence of choices; gives the choices and what came of them."""
    prefix: list[int] | None = []
    while prefix is not None:
        choices = Choices(prefix)
        result = run(choices.choose)
        yield [choice for choice, _ in choices.taken], result
        prefix = _following(choices.taken)


def _following(taken: list[tuple[int, int]]) -> list[int] | None:
    for place in range(len(taken) - 1, -1, -1):
        choice, among = taken[place]
        if choice + 1 < among:
            return [*(earlier for earlier, _ in taken[:place]), choice + 1]
    return None
