"""ARNs of streams that somebody names: by a Kinesis stream's name, a table's name, or a template's logical id."""

from __future__ import annotations

from collections.abc import Mapping

from lambda_esm.clients import Clients, GoneError, calling
from lambda_esm.mapping import is_stream
from lambda_esm.template import TemplateError


def stream_arn(clients: Clients, name: str) -> str:
    """The ARN of a stream that is named by its ARN or, for Kinesis, by its name.

    Raises
    ------
    GoneError, UnavailableError
        There is no such stream, or the endpoint does not answer.
    """
    if is_stream(name):
        return name
    with calling(f"Kinesis DescribeStreamSummary of {name}"):
        summary = clients.kinesis.describe_stream_summary(StreamName=name)
    return summary["StreamDescriptionSummary"]["StreamARN"]


def table_stream_arn(clients: Clients, table: str) -> str:
    """The ARN of a table's stream.

    Raises
    ------
    GoneError, UnavailableError
        There is no such table, it has no stream, or the endpoint does not answer.
    """
    with calling(f"DynamoDB Streams ListStreams of the table {table}"):
        streams = clients.streams.list_streams(TableName=table)["Streams"]
    if not streams:
        raise GoneError(f"the table {table} has no stream: create it with StreamSpecification.StreamEnabled")
    return max(streams, key=lambda each: each.get("StreamLabel", ""))["StreamArn"]


class TemplateNames:
    """Finds the streams and destinations of a template at the endpoint.

    Parameters
    ----------
    clients
        Where they are.
    stack
        The CloudFormation stack that made them, if the endpoint has it: it knows names that the template does not give.
    known
        ARNs or names by logical id, which need no looking up.
    """

    def __init__(
        self, clients: Clients, stack: str | None = None, known: Mapping[str, str] | None = None
    ) -> None:
        self._clients = clients
        self._stack = stack
        self._known = dict(known or {})

    def __call__(self, logical: str, kind: str, name: str | None) -> str:
        """Raises ``TemplateError`` if the name cannot be known; ``GoneError`` and ``UnavailableError`` as above."""
        name = self._known.get(logical, name)
        if name is None and self._stack is not None:
            with calling(f"CloudFormation DescribeStackResource of {self._stack} {logical}"):
                answer = self._clients.cloudformation.describe_stack_resource(
                    StackName=self._stack, LogicalResourceId=logical
                )
            name = str(answer["StackResourceDetail"]["PhysicalResourceId"])
        if name is None:
            raise TemplateError(
                f"{logical} has no name in the template: say which one it is (--name-of {logical}=NAME or ARN), or "
                "name the stack that made it (--stack NAME)"
            )
        if name.startswith("arn:"):
            return name
        match kind:
            case "AWS::DynamoDB::Table":
                return table_stream_arn(self._clients, name)
            case "AWS::S3::Bucket":
                return f"arn:aws:s3:::{name}"
            case "AWS::SQS::Queue":
                return self._queue(name.rpartition("/")[2])  # CloudFormation knows queues by their URL
            case "AWS::SNS::Topic":
                return self._topic(name)
            case _:
                return stream_arn(self._clients, name)

    def _queue(self, name: str) -> str:
        sqs = self._clients.sqs
        with calling(f"SQS GetQueueAttributes of {name}"):
            url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
            answer = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])
        return answer["Attributes"]["QueueArn"]

    def _topic(self, name: str) -> str:
        with calling("SNS ListTopics"):
            for page in self._clients.sns.get_paginator("list_topics").paginate():
                for topic in page["Topics"]:
                    if str(topic["TopicArn"]).endswith(f":{name}"):
                        return str(topic["TopicArn"])
        raise GoneError(f"there is no topic {name}: create it first")
