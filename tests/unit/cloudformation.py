"""template.yaml in CloudFormation's long form, and what it comes to with given parameters."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"
PSEUDO = {
    f"AWS::{name}" for name in ("AccountId", "Partition", "Region", "StackId", "StackName", "URLSuffix")
}
_SHORT = {"Ref": "Ref", "Condition": "Condition"}


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads short forms (``!Sub``) as long ones (``Fn::Sub``)."""


def _long(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> Any:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if name == "GetAtt":
        value = value.split(".", 1)
    return {_SHORT.get(name, f"Fn::{name}"): value}


_Loader.add_multi_constructor("!", _long)


def long_form() -> dict[str, Any]:
    """The template, with every function of CloudFormation as a mapping with one key."""
    parsed: dict[str, Any] = yaml.load(TEMPLATE.read_text(), _Loader)
    return parsed


class Variant:
    """The template with these parameters, the others at their defaults: conditions decided, ``Fn::If`` resolved."""

    def __init__(self, **given: object) -> None:
        parsed = long_form()
        self.parameters = {name: str(each.get("Default", "")) for name, each in parsed["Parameters"].items()}
        assert set(given) <= set(self.parameters)
        self.parameters |= {name: str(value) for name, value in given.items()}
        self._lists = {
            name for name, each in parsed["Parameters"].items() if each["Type"] == "CommaDelimitedList"
        }
        self.conditions = {name: self._holds(each) for name, each in parsed["Conditions"].items()}
        self.globals: dict[str, Any] = self._resolved(parsed["Globals"])
        self.resources: dict[str, Any] = self._existing(parsed["Resources"])
        self.outputs: dict[str, Any] = self._existing(parsed["Outputs"])

    def _existing(self, section: dict[str, Any]) -> dict[str, Any]:
        return {
            name: self._resolved(each)
            for name, each in section.items()
            if "Condition" not in each or self.conditions[each["Condition"]]
        }

    def _holds(self, condition: dict[str, Any]) -> bool:
        match condition:
            case {"Fn::Equals": [left, right]}:
                found = self._value(left) == self._value(right)
            case {"Fn::Not": [inner]}:
                found = not self._holds(inner)
            case {"Fn::Or": parts}:
                found = any(self._holds(each) for each in parts)
            case _:
                raise AssertionError(condition)
        return found

    def _value(self, part: Any) -> str:
        match part:
            case {"Ref": name}:
                return self.parameters[name]
            case {"Fn::Select": [index, {"Ref": name}]} if name in self._lists:
                return self.parameters[name].split(",")[index]
            case str() | int():
                return str(part)
            case _:
                raise AssertionError(part)

    def _resolved(self, part: Any) -> Any:
        match part:
            case {"Fn::If": [condition, yes, no]}:
                return self._resolved(yes if self.conditions[condition] else no)
            case dict():
                return {
                    key: found for key, value in part.items() if (found := self._resolved(value)) != _NO_VALUE
                }
            case list():
                return [found for each in part if (found := self._resolved(each)) != _NO_VALUE]
            case _:
                return part


_NO_VALUE = {"Ref": "AWS::NoValue"}


def references(part: Any) -> Iterator[tuple[str, str | None]]:
    """What a part of a template refers to: names, and attributes of them (of ``Ref``: None)."""
    match part:
        case {"Ref": str(name)}:
            yield name, None
        case {"Fn::GetAtt": [name, attribute]}:
            yield name, attribute
        case {"Fn::Sub": [text, values]}:
            yield from ((name, attribute) for name, attribute in _in_text(text) if name not in values)
            yield from references(values)
        case {"Fn::Sub": str(text)}:
            yield from _in_text(text)
        case dict():
            for value in part.values():
                yield from references(value)
        case list():
            for each in part:
                yield from references(each)


def _in_text(text: str) -> Iterator[tuple[str, str | None]]:
    for found in re.findall(r"\$\{([^!}]+)\}", text):
        name, _, attribute = found.partition(".")
        yield name, attribute or None
