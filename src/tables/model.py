"""What a payload's type is made of: :class:`AnyObject`, or a model that derives from :class:`Model`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, TypeAliasType, get_args

from pydantic import BaseModel, ConfigDict, RootModel, ValidationError

from common.errors import PermanentError
from records.json_text import kind_of
from records.reasons import faults_of, first_of, printable

# For a person, where pydantic's own words speak of Python.
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is no field of the payload's type",
    "model_type": "must be an object",
    "dict_type": "must be an object",
}
# What a validator raises that did not expect such data. Anything else (no memory, no network) is not the data's fault.
_SURPRISES = (ArithmeticError, AttributeError, LookupError, TypeError, RecursionError, ValueError)


class AnyObject:
    """Any JSON object, with whatever Postgres can hold in it."""


class Model(BaseModel):
    """A pydantic model that refuses fields which it does not name, unless it says otherwise::

    class Payload(Model, extra="ignore"):   # or "allow"
        ...
    """

    model_config = ConfigDict(extra="forbid")


def judge_of(payload: type[AnyObject] | type[BaseModel]) -> Callable[[str], None]:
    """The check of payloads against their type.

    It takes the payload as JSON text and raises :class:`PermanentError` with the reason when it does not fit. It
    changes nothing: what is stored is the text.

    Raises
    ------
    TypeError
        It is no pydantic model; or a model in it says nothing about fields that it does not name. pydantic would
        pass over them without a word, so a misspelt name would never be noticed.
    """
    if issubclass(payload, AnyObject):
        return _any_object
    if not issubclass(payload, BaseModel):
        raise TypeError(f"{payload.__qualname__} is no pydantic model: derive it from tables.model.Model")
    for model in _models(payload, set()):
        if "extra" not in model.model_config and not issubclass(model, RootModel):
            raise TypeError(
                f"{model.__qualname__} does not say what becomes of fields that it does not name: derive it from "
                "tables.model.Model, which refuses them, or say it: "
                f'class {model.__name__}(BaseModel, extra="forbid"), or "ignore", or "allow"'
            )

    def judge(text: str) -> None:
        try:
            payload.model_validate_json(text)
        except ValidationError as error:
            raise PermanentError(_reason_of(error)) from error
        except _SURPRISES as error:
            # Without its message: that may quote the data, and a reason is logged.
            raise PermanentError(f"payload: its type fails on it with {type(error).__name__}") from error

    return judge


def _any_object(text: str) -> None:
    if not text.startswith("{"):
        raise PermanentError(f"payload: is {kind_of(text[:1].encode())}, and must be an object")


def _models(annotation: Any, seen: set[Any]) -> Iterator[type[BaseModel]]:
    """The models that a type is made of."""
    if isinstance(annotation, TypeAliasType):
        annotation = annotation.__value__
    if isinstance(annotation, type) and issubclass(annotation, BaseModel) and annotation not in seen:
        seen.add(annotation)
        yield annotation
        for field in annotation.model_fields.values():
            yield from _models(field.annotation, seen)
    for argument in get_args(annotation):
        yield from _models(argument, seen)


def _reason_of(error: ValidationError) -> str:
    first, *_ = error.errors(include_url=False, include_context=False, include_input=False)
    if first["type"] == "json_invalid":
        # The text is JSON. pydantic's parser has limits of its own: 200 levels, 4,300 digits of an integer.
        problem = first["msg"].removeprefix("Invalid JSON: ")
        problem = problem.replace("number out of range", "an integer of more than 4,300 digits")
        problem = problem.replace("recursion limit exceeded", "nested too deeply")
        return printable(f"payload: its type cannot be checked: {problem}")
    return first_of(faults_of(error, "payload", words=_WORDS))
