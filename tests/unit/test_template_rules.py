"""The template's rules: a wrong combination of parameters is refused by a sentence that names it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

TEMPLATE = Path(__file__).resolve().parents[2] / "template.yaml"


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Reads CloudFormation's short forms as (name, argument)."""


def _function(loader: yaml.SafeLoader, name: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return (name, loader.construct_scalar(node))
    if isinstance(node, yaml.SequenceNode):
        return (name, loader.construct_sequence(node, deep=True))
    return (name, loader.construct_mapping(node, deep=True))


_Loader.add_multi_constructor("!", _function)
PARSED = yaml.load(TEMPLATE.read_text(), _Loader)


def members(name: str, parameters: dict[str, str]) -> list[str]:
    """The values of a list."""
    assert PARSED["Parameters"][name]["Type"] == "CommaDelimitedList"
    return parameters[name].split(",")


def holds(condition: Any, parameters: dict[str, str]) -> bool:
    """What CloudFormation's rule functions say (docs: intrinsic-function-reference-rules.html)."""
    match condition:
        case ("Equals", [("Ref", name), right]):
            found = parameters[name] == str(right)
        case {"Fn::EachMemberEquals": [("Ref", name), right]}:
            found = all(each == right for each in members(name, parameters))
        case ("Not", [inner]):
            found = not holds(inner, parameters)
        case ("And", parts):
            found = all(holds(each, parameters) for each in parts)
        case _:
            raise AssertionError(condition)
    return found


def refused(**given: object) -> list[str]:
    """The sentences that a deploy with these parameters fails with."""
    parameters = {name: str(each.get("Default", "")) for name, each in PARSED["Parameters"].items()}
    assert set(given) <= set(parameters)
    parameters |= {name: str(each) for name, each in given.items()}
    return [
        assertion["AssertDescription"]
        for rule in PARSED["Rules"].values()
        if holds(rule["RuleCondition"], parameters)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], parameters)
    ]


EXISTING = {"DatabaseHost": "db.example.com", "DatabaseResourceId": "db-ABC"}
SECRET = {
    "DatabaseHost": "db.example.com",
    "DatabaseAuthentication": "secret",
    "DatabaseSecretArn": "arn:aws:secretsmanager:eu-central-1:1:secret:s",
}


@pytest.mark.parametrize(
    "given",
    [
        {"Database": "aurora"},
        EXISTING,
        EXISTING | {"DatabaseSubnetIds": "a,b", "DatabaseSecurityGroupIds": "c"},
        SECRET,
        {
            "DatabaseHost": "127.0.0.1",
            "DatabaseAuthentication": "trust",
            "DatabaseTls": "disable",
            "DatabasePort": 1,
        },
        SECRET | {"DatabaseHost": "127.0.0.1", "DatabaseTls": "disable"},
    ],
    ids=["aurora", "iam", "iam in a VPC", "secret", "this machine", "a secret on this machine"],
)
def test_what_makes_sense_passes(given: dict[str, object]) -> None:
    assert refused(**given) == []


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"DatabaseResourceId": "db-A"}, "Database=existing needs DatabaseHost."),
        ({"DatabaseHost": "h"}, "DatabaseAuthentication=iam needs DatabaseResourceId"),
        (EXISTING | {"DatabaseTls": "disable"}, "DatabaseAuthentication=iam needs DatabaseTls=verify-full"),
        (EXISTING | {"DatabaseSubnetIds": "a"}, "DatabaseSubnetIds needs DatabaseSecurityGroupIds."),
        (EXISTING | {"DatabaseSecurityGroupIds": "a"}, "DatabaseSecurityGroupIds needs DatabaseSubnetIds."),
        (
            EXISTING | {"DatabaseSecretArn": "arn"},
            "DatabaseSecretArn is used with DatabaseAuthentication=secret",
        ),
        (SECRET | {"DatabaseSecretArn": ""}, "DatabaseAuthentication=secret needs DatabaseSecretArn."),
        (
            SECRET | {"DatabaseResourceId": "db-A"},
            "DatabaseResourceId is used with DatabaseAuthentication=iam",
        ),
        (SECRET | {"DatabaseTls": "disable"}, "DatabaseAuthentication=secret needs DatabaseTls=verify-full"),
        (
            {"DatabaseHost": "db.example.com", "DatabaseAuthentication": "trust"},
            "DatabaseAuthentication=trust asks for no password. It needs DatabaseHost=127.0.0.1",
        ),
        (
            {"DatabaseHost": "10.0.0.7", "DatabaseAuthentication": "trust", "DatabaseTls": "disable"},
            "DatabaseAuthentication=trust asks for no password. It needs DatabaseHost=127.0.0.1",
        ),
        ({"Database": "aurora", "DatabaseHost": "h"}, "DatabaseHost goes with Database=existing."),
        ({"Database": "aurora", "DatabasePort": 5433}, "DatabasePort goes with Database=existing."),
        ({"Database": "aurora", "DatabaseTls": "disable"}, "It needs DatabaseTls=verify-full."),
        (
            {"Database": "aurora", "DatabaseResourceId": "db-A"},
            "DatabaseResourceId goes with Database=existing.",
        ),
        (
            {"Database": "aurora", "DatabaseSubnetIds": "a", "DatabaseSecurityGroupIds": "b"},
            "DatabaseSubnetIds goes",
        ),
        (
            {"Database": "aurora", "DatabaseInstanceIdentifier": "db-1"},
            "DatabaseInstanceIdentifier goes with Database=existing.",
        ),
        ({"Database": "aurora", "DatabaseAuthentication": "trust"}, "It needs DatabaseAuthentication=iam."),
    ],
)
def test_what_makes_none_is_refused_by_name(given: dict[str, object], named: str) -> None:
    [sentence] = refused(**given)
    assert named in sentence
