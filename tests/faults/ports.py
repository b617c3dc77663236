"""What a step is to the fault layer: a call that can be carried out, or go wrong in several ways."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.faults.faults import Kind
    from tests.faults.turns import Touches


class Port:
    """One I/O call and the ways in which it can go wrong."""

    def touches(self) -> Touches:
        """What it looks at or changes. None: perhaps everything."""
        return None

    def send(self) -> None:
        """It is on its way. Whatever becomes of it comes later."""

    def perform(self) -> Any:
        """It happens. Returns the answer, or raises what the client raises."""
        raise NotImplementedError

    def happen(self) -> None:
        """It happens, and nobody is answered."""
        self.perform()

    def give_up(self) -> Any:
        """The client has waited for an answer in vain."""
        raise NotImplementedError

    def refuse(self) -> Any:
        """There is no connection."""
        raise NotImplementedError

    def fail(self, fault: Kind) -> Any:
        """It goes wrong in a way of its own."""
        raise NotImplementedError
