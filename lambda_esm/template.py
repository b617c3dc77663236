"""Mappings from a SAM or CloudFormation template.

A template names streams by reference. Those that it gives a name are looked up at the endpoint under that name; of the
others, CloudFormation at the endpoint is asked for the physical name (``stack``), or you say which one it is
(``streams``).

Sources: docs.aws.amazon.com/serverless-application-model/latest/developerguide/sam-property-function-kinesis.html and
-dynamodb.html, AWSCloudFormation/latest/UserGuide/aws-resource-lambda-eventsourcemapping.html
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

_SETTINGS = (
    "BatchSize",
    "BisectBatchOnFunctionError",
    "DestinationConfig",
    "FilterCriteria",
    "FunctionResponseTypes",
    "MaximumBatchingWindowInSeconds",
    "MaximumRecordAgeInSeconds",
    "MaximumRetryAttempts",
    "ParallelizationFactor",
    "StartingPosition",
    "StartingPositionTimestamp",
    "TumblingWindowInSeconds",
)
_STREAMS = {"Kinesis": "Stream", "DynamoDB": "Stream"}


class TemplateError(ValueError):
    """A template that cannot be read, or a value in it that cannot be known here. Says which, and what to do."""


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """YAML with CloudFormation's short forms: ``!Ref X`` becomes ``{"Ref": "X"}``."""


def _short_form(loader: _Loader, suffix: str, node: yaml.Node) -> Any:
    value: Any
    match node:
        case yaml.ScalarNode():
            value = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case yaml.MappingNode():
            value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {"Ref" if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _short_form)

type Resolve = Callable[[str, str, str | None], str]
"""(logical id, resource type, name in the template or None) -> the ARN of the stream or the destination."""


def read_mappings(
    path: Path, resolve: Resolve, parameters: Mapping[str, str] | None = None
) -> list[dict[str, Any]]:
    """The mappings of streams in a template, in the form of the Lambda API's answers. A function is named by its
    logical id, as ``sam local start-lambda`` names it. A mapping with ``Enabled: false`` is left out.

    Raises
    ------
    TemplateError
        The file is no template, or a value in it depends on something that is not known here.
    """
    try:
        template = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader with CloudFormation's tags
        resources = template["Resources"]
        items = list(resources.items())
    except (OSError, yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise TemplateError(f"{path} is not a SAM or CloudFormation template: {error}") from error
    values = _Values(template, resources, resolve, dict(parameters or {}))
    found = []
    for name, resource in items:
        properties = resource.get("Properties") or {}
        kind = resource.get("Type")
        if kind == "AWS::Serverless::Function":
            for event, source in (properties.get("Events") or {}).items():
                if source.get("Type") in _STREAMS:
                    given = source.get("Properties") or {}
                    found.append(values.mapping(f"{name}.{event}", name, given.get("Stream"), given))
        elif kind == "AWS::Lambda::EventSourceMapping" and values.is_stream(properties.get("EventSourceArn")):
            function = values.function(name, properties.get("FunctionName"))
            found.append(values.mapping(name, function, properties.get("EventSourceArn"), properties))
    return [each for each in found if each is not None]


class _Values:
    def __init__(
        self, template: Any, resources: Mapping[str, Any], resolve: Resolve, parameters: dict[str, str]
    ) -> None:
        self._resources = resources
        self._resolve = resolve
        self._parameters = {
            name: declared["Default"]
            for name, declared in (template.get("Parameters") or {}).items()
            if "Default" in declared
        } | parameters

    def mapping(
        self, where: str, function: str, source: Any, given: Mapping[str, Any]
    ) -> dict[str, Any] | None:
        if str(self._plain(where, given.get("Enabled", True))).lower() == "false":
            return None
        settings = {name: self._plain(f"{where}.{name}", given[name]) for name in _SETTINGS if name in given}
        return settings | {"EventSourceArn": self._stream(where, source), "FunctionName": function}

    def is_stream(self, source: Any) -> bool:
        if isinstance(source, str):
            return ":kinesis:" in source or ":dynamodb:" in source
        logical = self._logical(source)
        return self._type(logical) in ("AWS::Kinesis::Stream", "AWS::DynamoDB::Table")

    def function(self, where: str, given: Any) -> str:
        logical = self._logical(given)
        return logical if logical in self._resources else str(self._plain(f"{where}.FunctionName", given))

    def _stream(self, where: str, source: Any) -> str:
        logical = self._logical(source)
        kind = self._type(logical)
        if kind in ("AWS::Kinesis::Stream", "AWS::DynamoDB::Table"):
            properties = self._resources[logical].get("Properties") or {}
            name = properties.get("Name" if kind == "AWS::Kinesis::Stream" else "TableName")
            return self._resolve(
                logical, kind, None if name is None else str(self._plain(f"{logical}.Name", name))
            )
        return str(self._plain(f"{where}.Stream", source))

    def _type(self, logical: str) -> str:
        return str((self._resources.get(logical) or {}).get("Type", ""))

    @staticmethod
    def _logical(value: Any) -> str:
        match value:
            case {"Fn::GetAtt": [str(name), *_]} | {"Ref": str(name)}:
                return name
            case {"Fn::GetAtt": str(text)}:
                return text.split(".", 1)[0]
            case {"Fn::Sub": str(text)} if match := re.fullmatch(r"\$\{(\w+)(\.\w+)?\}", text):
                return match[1]
            case _:
                return ""

    def _plain(self, where: str, value: Any) -> Any:  # noqa: PLR0911 - a case for each form
        """A value without CloudFormation's functions."""
        match value:
            case {"Ref": "AWS::NoValue"}:
                return None
            case {"Ref": str(name)} if name in self._parameters:
                return self._parameters[name]
            case {"Fn::Sub": str(text)}:
                return re.sub(
                    r"\$\{([^}!]+)\}", lambda m: str(self._plain(where, {"Ref": m[1].strip()})), text
                )
            case {"Fn::Join": [str(separator), list(parts)]}:
                return separator.join(str(self._plain(where, part)) for part in parts)
            case {"Fn::GetAtt": _} if where.endswith(".DestinationConfig"):
                return self._destination(where, self._logical(value))
            case {"Ref": str(name)} if where.endswith(".DestinationConfig"):
                return self._destination(where, name)
            case dict() if len(value) == 1 and str(next(iter(value))).startswith(("Ref", "Fn::")):
                raise TemplateError(
                    f"{where}: {value} is not known here. Give parameters with --parameter NAME=VALUE, or write the "
                    "mapping out with --mapping"
                )
            case {**inner}:
                return {name: self._plain(where, each) for name, each in inner.items()}
            case list():
                return [self._plain(where, each) for each in value]
            case _:
                return value

    def _destination(self, where: str, logical: str) -> str:
        name_of = {
            "AWS::SQS::Queue": "QueueName",
            "AWS::SNS::Topic": "TopicName",
            "AWS::S3::Bucket": "BucketName",
        }
        kind = self._type(logical)
        if kind not in name_of:
            raise TemplateError(
                f"{where}: {logical} is no bucket, queue or topic of this template: write its ARN"
            )
        name = (self._resources[logical].get("Properties") or {}).get(name_of[kind])
        return self._resolve(logical, kind, None if name is None else str(self._plain(logical, name)))
