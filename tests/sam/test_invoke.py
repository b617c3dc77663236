"""``sam local invoke``: every function with every event of ``events/``, in a container."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from tests.event_expectations import EXPECTED

if TYPE_CHECKING:
    from tests.recorded_events import World

from tests.recorded_events import FUNCTIONS


def test_it_is_said_which_image_the_functions_run_in(image: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert image in {"image", "stand-in"}
    with capsys.disabled():
        what = "AWS's own base image" if image == "image" else "a stand-in (Debian 13) for AWS's base image"
        sys.stdout.write(f"\nThe functions run in {what}.\n")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_an_event_leads_to_what_is_expected(
    name: str, world: World, sam_invoke: Callable[[str, Any], Any]
) -> None:
    expected = EXPECTED[name]
    if expected.before:
        expected.before(world)
    answer = sam_invoke(FUNCTIONS[name], world.event(name))
    assert (answer if isinstance(answer, str) else expected.part(answer)) == expected.answer
    assert world.effect() == expected.effect
