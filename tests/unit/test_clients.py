"""Answers that break off, against a real socket at the other end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import BotoCoreError

from common import clients
from tests.unit.http_server import Server, reply

ENTRY = {"Data": b"x", "PartitionKey": "k"}
MESSAGE = {"Id": "1", "MessageBody": "x"}
CALLS: dict[str, tuple[str, Callable[[Any], Any], bytes]] = {
    "an item": (
        "dynamodb",
        lambda client: client.get_item(TableName="t", Key={"id": {"S": "a"}})["Item"],
        b'{"Item": {"id": {"S": "a"}}}',
    ),
    "entries": (
        "kinesis",
        lambda client: client.put_records(StreamName="s", Records=[ENTRY])["Records"],
        b'{"FailedRecordCount": 0, "Records": [{"SequenceNumber": "1", "ShardId": "s"}]}',
    ),
    "messages": (
        "sqs",
        lambda client: client.send_message_batch(QueueUrl="http://q/", Entries=[MESSAGE])["Successful"],
        b'{"Successful": [{"Id": "1", "MessageId": "m", "MD5OfMessageBody": "9dd4e461268c8034f5c8564e155c67a6"}]}',
    ),
}


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, bytes], Any]]:
    """A client of the product's that gets this answer, always."""
    servers: list[Server] = []

    def start(service: str, answer: bytes) -> Any:
        servers.append(Server(lambda body: answer))
        monkeypatch.setenv("AWS_ENDPOINT_URL", servers[-1].url)
        return getattr(clients, service).__wrapped__()

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_breaks_off_is_no_answer(serve: Callable[[str, bytes], Any], call: str) -> None:
    service, ask, body = CALLS[call]
    whole = reply(body)
    assert ask(serve(service, whole))
    head = whole.index(b"Content-Length")
    for end in (len(whole) - 1, len(whole) - len(body) // 2, len(whole) - len(body), head + 8):
        with pytest.raises(BotoCoreError):
            ask(serve(service, whole[:end]))


def test_a_head_that_breaks_off_is_none_either(serve: Callable[[str, bytes], Any]) -> None:
    whole = b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 12\r\n\r\n'
    assert serve("s3", whole).head_object(Bucket="b", Key="k")["ContentLength"] == 12
    with pytest.raises(BotoCoreError):
        serve("s3", whole[:30]).head_object(Bucket="b", Key="k")
