"""The stack that a command talks to: the one on this machine, or a deployed one by its name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import boto3

from cli.errors import UserError, asking
from local import background

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Target:
    """A stack: how its outputs read and how its services are reached."""

    name: str
    outputs: Mapping[str, str]
    client: Callable[[str], Any]
    is_local: bool = False
    """Whether it is the stack of `once up` on this machine."""

    def output(self, name: str) -> str:
        """One of the stack's outputs.

        Raises
        ------
        UserError
            The stack has none of this name: it is not an Oncestream stack, or one of an older version.
        """
        try:
            return self.outputs[name]
        except KeyError:
            raise UserError(
                f"The stack {self.name} has no output {name}: is it an Oncestream stack, deployed by this version?"
            ) from None


def find(stack: str | None) -> Target:
    """The deployed stack of this name, or the one on this machine.

    Raises
    ------
    UserError
        There is none, or AWS cannot be asked.
    """
    return _deployed(stack) if stack else _local()


def _local() -> Target:
    state = background.running()
    if state is None:
        raise UserError(
            "No stack runs on this machine. Start it (`once up`), or name a deployed one (--stack NAME)."
        )
    return Target("on this machine", state.outputs, state.client, is_local=True)


def _deployed(name: str) -> Target:
    with asking(f"find the stack {name}"):
        session = boto3.session.Session()
        described = session.client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described.get("Outputs", [])}
    return Target(name, outputs, session.client)  # type: ignore[arg-type]  # boto3-stubs: one overload a service
