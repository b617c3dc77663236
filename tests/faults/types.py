"""Types of payloads, as users make them. Each takes every payload that the histories send, but for the unfit ones.

Those are taken by ``any`` and ``loose`` alone. What a type makes of a value is nobody's: Postgres holds what was sent.
"""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, computed_field

import tables.check
from tables.model import Model, judge_of
from tables.payload import Payload

if TYPE_CHECKING:
    from tests.faults.history import History


class _Named(Model):
    """Names every field that is fit."""

    m: int | str
    of: str
    n: float | None = None
    t: str = "not given"
    refused: bool = False
    swallowed: bool = False


class _Aliased(Model):
    number: int | str = Field(alias="m")
    owner: str = Field(alias="of")
    amount: float | None = Field(default=None, alias="n")
    text: str = Field(default="not given", alias="t")
    refused: bool = False
    swallowed: bool = False


class _Computed(_Named):
    @computed_field  # type: ignore[prop-decorator]
    @property
    def label(self) -> str:
        """A field of the model that is none of the data."""
        return f"{self.of}/{self.m}"


class _Strict(_Named):
    model_config = ConfigDict(strict=True)


class _Exact(_Named):
    n: Decimal | None = None  # type: ignore[assignment]


def _to_cents(value: object) -> object:
    if isinstance(value, int):
        raise ValueError("this has been made cents already")
    return int(value * 100) if isinstance(value, float) else value


class _Cents(_Named):
    """Its validator cannot be applied to what it has returned."""

    n: Annotated[int | None, BeforeValidator(_to_cents)] = None  # type: ignore[assignment]


class _Loose(BaseModel, extra="ignore"):
    of: str


TYPES = {
    "any": Payload,
    "loose": _Loose,
    "aliased": _Aliased,
    "computed": _Computed,
    "strict": _Strict,
    "exact": _Exact,
    "cents": _Cents,
}


_LAX = {"any", "loose"}


def may_be_lax(history: History) -> bool:
    """Whether one of the types of this history takes unfit payloads, too."""
    names = list(TYPES)
    deployed = {names[argument] for _, act, argument in history.acts if act == "deploy"}
    return not _LAX.isdisjoint({history.payload_type, *deployed})


_deployed: list[type[Any]] = []


def deploy(name: str) -> None:
    """From now on payloads have this type."""
    _deployed[:] = [TYPES[name]]
    tables.check.judge = judge_of(TYPES[name])


def made_of(payload: str) -> str:
    """What the deployed type makes of a payload, as JSON: what the product does not store."""
    (deployed,) = _deployed
    if not issubclass(deployed, BaseModel):
        return payload
    return deployed.model_validate_json(payload).model_dump_json(exclude_unset=True)
