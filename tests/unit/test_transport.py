"""What both transports do, over real sockets; and what AWS's C runtime has to do by itself."""

from __future__ import annotations

import datetime as dt
import hashlib
import hmac
import json
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.credentials import RefreshableCredentials
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)

from oncestream.calls import Calls, Fault, Request
from oncestream.transport import Transport
from oncestream.transport.boto3 import Boto3Transport
from oncestream.transport.crt import CrtTransport
from tests.unit.certificates import Authority
from tests.unit.http_server import Proxy, Server, reply, reply_json

SHORT = 0.2
"""Seconds that a client waits for an answer in vain."""
NOON = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
BODIES: dict[str, dict[str, Any]] = {
    "BatchExecuteStatement": {
        "Statements": [{"Statement": "DELETE FROM x", "Parameters": [{"S": "é\x00'"}]}]
    },
    "BatchWriteItem": {
        "RequestItems": {"t": [{"PutRequest": {"Item": {"id": {"S": "a"}, "n": {"N": "1"}}}}]}
    },
    "BatchGetItem": {"RequestItems": {"t": {"Keys": [{"id": {"S": "a"}}], "ConsistentRead": True}}},
    "PutItem": {"TableName": "t", "Item": {"id": {"S": "a"}}, "ExpressionAttributeNames": {"#i": "id"}},
    "UpdateItem": {"TableName": "t", "Key": {"id": {"S": "a"}}, "UpdateExpression": "REMOVE x"},
}
METHODS = {
    "BatchExecuteStatement": "batch_execute_statement",
    "BatchWriteItem": "batch_write_item",
    "BatchGetItem": "batch_get_item",
    "PutItem": "put_item",
    "UpdateItem": "update_item",
}
UNTRUSTED = {"boto3": SSLError, "crt": (SSLError, ConnectTimeoutError)}
"""The C runtime keeps it to itself for 10 seconds and more that TLS has failed."""
BOTH = pytest.mark.parametrize("kind", ["boto3", "crt"])


def session_of(token: str | None = None) -> boto3.Session:
    return boto3.Session("AKID", "secret", token, "eu-central-1")


SESSION = session_of()


def client_of(
    url: str | None, session: boto3.Session = SESSION, verify: str | None = None, **config: Any
) -> Any:
    settings = {"retries": {"total_max_attempts": 1}, "parameter_validation": False, **config}
    return session.client("dynamodb", endpoint_url=url, verify=verify, config=Config(**settings))


def transport(
    kind: str, url: str, *, threads: int = 4, verify: str | None = None, **config: Any
) -> Transport:
    if kind == "boto3":
        client = client_of(url, verify=verify, max_pool_connections=threads, **config)
        return Boto3Transport(client, threads)
    return CrtTransport(client_of(url, **config), session=SESSION, verify=verify)


def put(to: Transport, key: str = "a") -> Any:
    return to.send("PutItem", {"TableName": "t", "Item": {"id": {"S": key}}})


def key_of(body: bytes) -> str:
    key: str = json.loads(body)["Item"]["id"]["S"]
    return key


def echo(body: bytes) -> bytes:
    """Answers with what was put."""
    return reply_json({"Attributes": {"id": {"S": key_of(body)}}})


def echoed(answer: dict[str, Any]) -> str:
    key: str = answer["Attributes"]["id"]["S"]
    return key


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*arguments: Any, kind: type[Server] = Server, **named: Any) -> Server:
        servers.append(kind(*arguments, **named))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


# What is sent


@pytest.mark.parametrize("token", [None, "session-token"])
@pytest.mark.parametrize("path", ["", "/behind/a/path"])
@pytest.mark.parametrize("operation", BODIES)
def test_the_request_is_the_one_that_the_client_makes(
    serve: Callable[..., Server], operation: str, path: str, token: str | None
) -> None:
    server = serve(lambda body: reply(b"{}"))
    session = session_of(token)
    client = client_of(server.url + path, session)
    getattr(client, METHODS[operation])(**BODIES[operation])
    CrtTransport(client, session=session).send(operation, BODIES[operation]).result()
    theirs, ours = ({name.lower(): value for name, value in headers.items()} for headers in server.headers)
    assert server.paths[1] == server.paths[0]
    assert json.loads(server.bodies[1]) == json.loads(server.bodies[0])
    assert set(ours) == set(theirs) - {"amz-sdk-invocation-id", "amz-sdk-request"}
    for name in set(ours) - {"authorization", "user-agent", "content-length", "x-amz-date"}:
        assert ours[name] == theirs[name]
    assert "Boto3/" in ours["user-agent"]


def signature(path: str, headers: dict[str, str], body: bytes, secret: str = "secret") -> str:
    """Signature version 4, from docs.aws.amazon.com/IAM/latest/UserGuide/create-signed-request.html"""
    values = {name.lower(): value for name, value in headers.items()}
    fields = authorization(headers)
    signed = fields["SignedHeaders"].split(";")
    canonical = "\n".join(
        [
            "POST",
            path,
            "",
            *[f"{name}:{values[name]}" for name in signed],
            "",
            ";".join(signed),
            hashlib.sha256(body).hexdigest(),
        ]
    )
    stamp = values["x-amz-date"]
    scope = f"{stamp[:8]}/eu-central-1/dynamodb/aws4_request"
    text = "\n".join(["AWS4-HMAC-SHA256", stamp, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    key = f"AWS4{secret}".encode()
    for part in [*scope.split("/"), text]:
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    return key.hex()


def authorization(headers: dict[str, str]) -> dict[str, str]:
    fields = headers["Authorization"].removeprefix("AWS4-HMAC-SHA256 ").split(", ")
    return dict(field.split("=", 1) for field in fields)


@pytest.mark.parametrize("operation", BODIES)
def test_the_signature_covers_target_token_and_body(serve: Callable[..., Server], operation: str) -> None:
    server = serve(lambda body: reply(b"{}"))
    session = session_of("session-token")
    to = CrtTransport(client_of(server.url, session), session=session, clock=NOON.timestamp)
    to.send(operation, BODIES[operation]).result()
    (headers,) = server.headers
    fields = authorization(headers)
    signed = set(fields["SignedHeaders"].split(";"))
    assert {"host", "x-amz-date", "x-amz-target", "x-amz-security-token"} <= signed
    assert fields["Credential"] == "AKID/20261121/eu-central-1/dynamodb/aws4_request"
    assert fields["Signature"] == signature("/", headers, server.bodies[0])


def test_a_request_of_the_next_day_is_signed_with_that_days_key(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: reply(b"{}"))
    times = [dt.datetime(2026, 12, 31, 23, 59, 59, tzinfo=dt.UTC), dt.datetime(2027, 1, 1, tzinfo=dt.UTC)]
    clock = iter(times)
    to = CrtTransport(client_of(server.url), session=SESSION, clock=lambda: next(clock).timestamp())
    for _ in times:
        put(to).result()
    assert [headers["X-Amz-Date"] for headers in server.headers] == ["20261231T235959Z", "20270101T000000Z"]
    for headers, day in zip(server.headers, ["20261231", "20270101"], strict=True):
        fields = authorization(headers)
        assert fields["Credential"].split("/")[1] == day
        assert fields["Signature"] == signature("/", headers, server.bodies[0])


def test_credentials_that_were_renewed_sign_the_next_request(serve: Callable[..., Server]) -> None:
    server = serve(lambda body: reply(b"{}"))
    now = [NOON]

    def renew() -> dict[str, str]:
        expiry = (NOON + dt.timedelta(hours=9)).isoformat()
        return {"access_key": "AKID2", "secret_key": "new", "token": "token2", "expiry_time": expiry}

    expiry = NOON + dt.timedelta(hours=1)
    credentials = RefreshableCredentials(
        "AKID1", "old", "token1", expiry, renew, "test", time_fetcher=lambda: now[0]
    )
    session: Any = SimpleNamespace(get_credentials=lambda: credentials)
    to = CrtTransport(client_of(server.url), session=session)
    put(to).result()
    now[0] = NOON + dt.timedelta(minutes=55)  # so near the end botocore renews them
    put(to).result()
    assert [headers["X-Amz-Security-Token"] for headers in server.headers] == ["token1", "token2"]
    for headers, secret in zip(server.headers, ["old", "new"], strict=True):
        assert authorization(headers)["Signature"] == signature("/", headers, server.bodies[0], secret)


def test_credentials_are_those_of_boto3s_default_session(
    serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(lambda body: reply(b"{}"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", boto3.Session("DEFAULT", "secret", region_name="eu-west-1"))
    put(CrtTransport(boto3.client("dynamodb", endpoint_url=server.url))).result()
    assert authorization(server.headers[0])["Credential"].split("/")[::2] == [
        "DEFAULT",
        "eu-west-1",
        "aws4_request",
    ]


def test_there_is_no_call_without_credentials(serve: Callable[..., Server]) -> None:
    server = serve()
    session: Any = SimpleNamespace(get_credentials=lambda: None)
    with pytest.raises(NoCredentialsError) as caught:
        put(CrtTransport(client_of(server.url), session=session))
    assert not Fault.of_request(caught.value).ambiguous
    assert server.connections == []


@pytest.mark.parametrize(
    ("region", "config", "host"),
    [
        ("eu-central-1", {}, "dynamodb.eu-central-1.amazonaws.com"),
        ("cn-north-1", {}, "dynamodb.cn-north-1.amazonaws.com.cn"),
        ("us-east-1", {"use_fips_endpoint": True}, "dynamodb-fips.us-east-1.amazonaws.com"),
        ("eu-central-1", {"use_dualstack_endpoint": True}, "dynamodb.eu-central-1.api.aws"),
    ],
    ids=["region", "partition", "fips", "dual-stack"],
)
@BOTH
def test_the_endpoint_is_the_clients_and_a_proxy_is_asked_for_it(
    serve: Callable[..., Server], kind: str, region: str, config: dict[str, Any], host: str
) -> None:
    proxy = serve(kind=Proxy)
    assert isinstance(proxy, Proxy)
    session = boto3.Session("AKID", "secret", region_name=region)
    proxies = {"https": proxy.url.replace("//", "//me:pass%20word@")}
    client = client_of(None, session, proxies=proxies, **config)
    to: Transport = Boto3Transport(client, 1) if kind == "boto3" else CrtTransport(client, session=session)
    with pytest.raises(ProxyConnectionError) as caught:
        put(to).result()
    assert proxy.asked == [(f"{host}:443", "Basic bWU6cGFzcyB3b3Jk")]
    assert not Fault.of_request(caught.value).ambiguous
    assert "pass" not in str(caught.value)


# Answers


@pytest.mark.parametrize(
    ("status", "content"),
    [
        (
            400,
            b'{"__type":"com.amazonaws.dynamodb.v20120810#ResourceNotFoundException","message":"gone"}',
        ),
        (400, b'{"__type":"com.amazon.coral.service#AccessDeniedException","Message":"not you"}'),
        (400, b'{"__type":"a#ConditionalCheckFailedException","message":"m","Item":{"id":{"S":"x"}}}'),
        (500, b'{"__type":"a#InternalServerError"}'),
        (503, b"<html>try later</html>"),
        (413, b""),
    ],
)
def test_an_error_is_the_one_that_the_client_raises(
    serve: Callable[..., Server], status: int, content: bytes
) -> None:
    server = serve(lambda body: reply(content, status=status))
    errors = []
    for kind in ("boto3", "crt"):
        with pytest.raises(ClientError) as caught:
            put(transport(kind, server.url)).result()
        errors.append(caught.value)
    theirs, ours = errors
    assert ours.response["Error"]["Code"] == theirs.response["Error"]["Code"]
    assert ours.response.get("Item") == theirs.response.get("Item")
    assert ours.operation_name == theirs.operation_name == "PutItem"
    metadata = ours.response["ResponseMetadata"]
    assert metadata["HTTPStatusCode"] == status
    assert metadata["RequestId"] == "r-1"
    assert Fault.of_request(ours).ambiguous == Fault.of_request(theirs).ambiguous == (status >= 500)
    said = theirs.response["Error"].get("Message")
    if said and content.startswith(b"{"):
        assert ours.response["Error"]["Message"] == said


@BOTH
@pytest.mark.parametrize("body", [b'{"Responses": [', b"", b"<html>", b"null", b"[1]", b'"text"', b"\xff"])
@pytest.mark.parametrize("operation", ["BatchExecuteStatement", "BatchGetItem", "BatchWriteItem"])
def test_what_is_no_json_object_is_a_fault_that_leaves_open_what_was_done(
    serve: Callable[..., Server], kind: str, body: bytes, operation: str
) -> None:
    server = serve(lambda asked: reply(body))
    calls = Calls(transport(kind, server.url), 2)
    ((_, fault),) = calls.send([Request(operation, ("a",), BODIES[operation])], calls.clock() + 60)
    assert isinstance(fault, Fault)
    assert (fault.again, fault.ambiguous, fault.throttled) == (True, True, False)
    assert operation in fault.reason


@BOTH
@pytest.mark.parametrize("body", [b'"Service Unavailable"', b"null", b"[1]", b"<html>"])
def test_an_error_that_is_no_json_object_is_a_fault_too(
    serve: Callable[..., Server], kind: str, body: bytes
) -> None:
    server = serve(lambda asked: reply(body, status=503))
    calls = Calls(transport(kind, server.url), 2)
    ((_, fault),) = calls.send([Request("PutItem", ("a",), BODIES["PutItem"])], calls.clock() + 60)
    assert isinstance(fault, Fault)
    assert (fault.again, fault.ambiguous) == (True, True)


def test_an_answer_that_dynamodb_has_not_signed_with_a_request_id_is_none_for_boto3(
    serve: Callable[..., Server],
) -> None:
    # botocore would take this page for the empty answer of a PutItem that succeeded.
    server = serve(lambda body: b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>")
    with pytest.raises(HTTPClientError, match="PutItem"):
        put(transport("boto3", server.url)).result()


@BOTH
@pytest.mark.parametrize(
    "message",
    [
        "Signature not yet current: 20261121T120000Z is still later than 20261121T110000Z (20261121T105500Z + 5 min.)",
        "Signature expired: 20261121T110000Z is now earlier than 20261121T115500Z (20261121T120000Z - 5 min.)",
    ],
)
def test_a_clock_that_is_off_is_named(serve: Callable[..., Server], kind: str, message: str) -> None:
    error = {"__type": "com.amazon.coral.service#InvalidSignatureException", "message": message}
    date = b"Date: Sat, 21 Nov 2026 11:00:00 GMT"
    server = serve(lambda body: reply_json(error, date, status=400))
    calls = Calls(transport(kind, server.url), 2)
    ((_, fault),) = calls.send([Request("PutItem", ("a",), BODIES["PutItem"])], calls.clock() + 60)
    assert isinstance(fault, Fault)
    assert message in fault.reason
    assert "the clock of this machine is off" in fault.reason
    assert "Sat, 21 Nov 2026 11:00:00 GMT" in fault.reason


def test_a_wrong_signature_is_no_matter_of_the_clock() -> None:
    response: Any = {
        "Error": {"Code": "InvalidSignatureException", "Message": "The request signature does not match"},
        "ResponseMetadata": {"HTTPStatusCode": 400},
    }
    assert "clock" not in Fault.of_request(ClientError(response, "PutItem")).reason


@pytest.mark.parametrize(("attempts", "ambiguous"), [(1, False), (2, True)])
def test_a_client_that_repeats_by_itself_may_have_been_heard_the_first_time(
    serve: Callable[..., Server], attempts: int, ambiguous: bool
) -> None:
    error = {"__type": "a#ThrottlingException", "message": "slow down"}
    server = serve(lambda body: reply_json(error, status=400))
    to = transport("boto3", server.url, retries={"mode": "standard", "total_max_attempts": attempts})
    with pytest.raises(ClientError) as caught:
        put(to).result()
    assert len(server.bodies) == attempts
    assert Fault.of_request(caught.value).ambiguous == ambiguous


# Connections


@BOTH
def test_requests_are_under_way_at_once_and_each_gets_its_own_answer(
    serve: Callable[..., Server], kind: str
) -> None:
    together = threading.Barrier(3, timeout=10)

    def respond(body: bytes) -> bytes:
        together.wait()  # nobody is answered before all have asked
        return echo(body)

    server = serve(respond)
    to = transport(kind, server.url)
    pending = [put(to, key) for key in "abc"]
    assert [echoed(each.result()) for each in pending] == ["a", "b", "c"]
    assert len(server.connections) == 3


@BOTH
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_twenty_requests_on_cold_tls_connections_are_under_way_at_once(
    serve: Callable[..., Server], authority: Authority, kind: str, version: ssl.TLSVersion
) -> None:
    together = threading.Barrier(20, timeout=10)

    def respond(body: bytes) -> bytes:
        together.wait()
        return echo(body)

    server = serve(respond, authority.certificate("127.0.0.1"), version)
    calls = Calls(transport(kind, server.url, threads=20, verify=str(authority.file)), 20)
    keys = [str(number) for number in range(20)]
    requests = [Request("PutItem", (key,), {"TableName": "t", "Item": {"id": {"S": key}}}) for key in keys]
    outcomes = list(calls.send(requests, calls.clock() + 60))
    assert [answer if isinstance(answer, Fault) else echoed(answer) for _, answer in outcomes] == keys
    tls = {connection.version() for connection in server.connections if isinstance(connection, ssl.SSLSocket)}
    assert tls == {version.name.replace("_", ".")}


@BOTH
def test_an_answer_is_there_when_it_has_come(serve: Callable[..., Server], kind: str) -> None:
    asked, may_answer = threading.Event(), threading.Event()

    def respond(body: bytes) -> bytes:
        asked.set()
        assert may_answer.wait(10)
        return reply(b"{}")

    pending = put(transport(kind, serve(respond).url))
    assert asked.wait(10)
    assert not pending.done()
    may_answer.set()
    while not pending.done():  # ends with the answer; nothing is waited for without one
        pass
    assert pending.result() == {}


@BOTH
def test_a_connection_is_used_again(serve: Callable[..., Server], kind: str) -> None:
    server = serve(echo)
    to = transport(kind, server.url)
    assert [echoed(put(to, key).result()) for key in "abc"] == ["a", "b", "c"]
    assert len(server.connections) == 1


@BOTH
def test_a_server_that_says_goodbye_gets_a_new_connection(serve: Callable[..., Server], kind: str) -> None:
    server = serve(lambda body: reply(b"{}", b"Connection: close"))
    to = transport(kind, server.url)
    assert [put(to).result() for _ in range(2)] == [{}, {}]
    assert len(server.connections) == 2


@BOTH
def test_an_answer_that_nobody_asked_for_is_not_taken_for_another(
    serve: Callable[..., Server], kind: str
) -> None:
    to = transport(kind, serve(echo).url)
    put(to, "forgotten")
    assert [echoed(put(to, key).result()) for key in "ab"] == ["a", "b"]


def test_a_connection_that_was_closed_while_idle_costs_at_most_one_ambiguous_fault(
    serve: Callable[..., Server],
) -> None:
    server = serve(echo)
    to = transport("crt", server.url)
    put(to).result()
    server.connections[0].shutdown(socket.SHUT_RDWR)
    calls = Calls(to, 1)
    ((_, outcome),) = calls.send([Request("PutItem", ("a",), BODIES["PutItem"])], calls.clock() + 60)
    # The connection's end has reached the event loop before the request, or it has not.
    assert isinstance(outcome, dict) or (outcome.again and outcome.ambiguous)
    assert echoed(put(to, "b").result()) == "b"
    assert len(server.connections) == 2


@BOTH
@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        reply(b'{"UnprocessedItems": {').replace(b"h: 22", b"h: 24"),
        b"garbage\r\n\r\n",
    ],
    ids=["none", "half a head", "a short body", "not HTTP"],
)
def test_an_answer_that_breaks_off_leaves_open_what_was_done(
    serve: Callable[..., Server], kind: str, answer: bytes
) -> None:
    server = serve(lambda body: answer)
    to = transport(kind, server.url)
    calls = Calls(to, 2)
    ((_, fault),) = calls.send(
        [Request("BatchWriteItem", ("a",), BODIES["BatchWriteItem"])], calls.clock() + 60
    )
    assert isinstance(fault, Fault)
    assert (fault.again, fault.ambiguous) == (True, True)
    server.respond = echo
    assert echoed(put(to, "next").result()) == "next"
    assert len(server.connections) == 2


@BOTH
def test_an_answer_that_does_not_come_in_time_leaves_open_what_was_done(
    serve: Callable[..., Server], kind: str
) -> None:
    over = threading.Event()

    def respond(body: bytes) -> bytes:
        over.wait(10)
        return echo(body)

    server = serve(respond)
    to = transport(kind, server.url, read_timeout=SHORT)
    with pytest.raises(ReadTimeoutError) as caught:
        put(to, "late").result()
    assert Fault.of_request(caught.value).ambiguous
    over.set()
    assert echoed(put(to, "next").result()) == "next"
    assert len(server.connections) == 2


def test_a_connection_that_does_not_come_in_time_carries_nothing_later(
    serve: Callable[..., Server], authority: Authority
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and does not shake hands
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        to = transport("crt", url, connect_timeout=SHORT, verify=str(authority.file))
        pending = put(to)
        with pytest.raises(ConnectTimeoutError, match="127") as caught:
            pending.result()
    assert pending.done()
    assert not Fault.of_request(caught.value).ambiguous


@BOTH
@pytest.mark.parametrize("host", ["127.0.0.1:1", "no-such-host.invalid"])
def test_without_a_server_nothing_was_sent(kind: str, host: str) -> None:
    with pytest.raises(EndpointConnectionError, match=host) as caught:
        put(transport(kind, f"http://{host}/")).result()
    assert not Fault.of_request(caught.value).ambiguous


# Whom to trust, and by way of whom


@BOTH
def test_a_server_is_trusted_as_it_is_said(
    serve: Callable[..., Server], authority: Authority, kind: str
) -> None:
    server = serve(echo, authority.certificate("127.0.0.1"))
    assert echoed(put(transport(kind, server.url, verify=str(authority.file))).result()) == "a"
    with pytest.raises(UNTRUSTED[kind], match=r"certificate|SSL") as caught:
        put(transport(kind, server.url, connect_timeout=SHORT)).result()
    assert not Fault.of_request(caught.value).ambiguous


@BOTH
def test_the_environment_may_say_whom_to_trust(
    serve: Callable[..., Server], authority: Authority, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(echo, authority.certificate("127.0.0.1"))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
    session = boto3.Session("AKID", "secret", region_name="eu-central-1")
    client = client_of(server.url, session)
    to: Transport = Boto3Transport(client, 1) if kind == "boto3" else CrtTransport(client, session=session)
    assert echoed(put(to).result()) == "a"


@BOTH
def test_a_certificate_of_another_server_or_of_yesterday_is_not_trusted(
    serve: Callable[..., Server], authority: Authority, kind: str
) -> None:
    for certificate in (authority.certificate("127.0.0.2"), authority.certificate("127.0.0.1", days=-1)):
        server = serve(echo, certificate)
        with pytest.raises(UNTRUSTED[kind], match=r"certificate|SSL"):
            put(transport(kind, server.url, verify=str(authority.file), connect_timeout=SHORT)).result()
        assert server.bodies == []


def test_without_verification_anybody_is_trusted(serve: Callable[..., Server], authority: Authority) -> None:
    server = serve(echo, authority.certificate("127.0.0.1"))
    to = CrtTransport(client_of(server.url), session=SESSION, verify=False)
    assert echoed(put(to).result()) == "a"


@BOTH
@pytest.mark.parametrize("secure", [False, True], ids=["http", "https"])
def test_a_proxy_of_the_environment_is_gone_through_and_sees_nothing(
    serve: Callable[..., Server],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    secure: bool,
) -> None:
    certificate = authority.certificate("127.0.0.1")
    server = serve(echo, certificate)
    proxy = serve(server, certificate if secure else None, kind=Proxy)
    assert isinstance(proxy, Proxy)
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    if secure:  # botocore trusts for a proxy what the environment says
        monkeypatch.setenv("AWS_CA_BUNDLE", str(authority.file))
        monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    to = transport(kind, server.url, verify=str(authority.file))
    assert [echoed(put(to, key).result()) for key in "ab"] == ["a", "b"]
    assert proxy.asked == [(server.url.removeprefix("https://"), None)]
    assert len(server.connections) == 1
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    assert echoed(put(transport(kind, server.url, verify=str(authority.file))).result()) == "a"
    assert len(proxy.asked) == 1


@BOTH
def test_a_proxy_that_is_not_there_has_sent_nothing(kind: str) -> None:
    to = transport(kind, "https://127.0.0.1:1", proxies={"https": "http://127.0.0.1:1"})
    with pytest.raises(BotoCoreError) as caught:
        put(to).result()
    assert not Fault.of_request(caught.value).ambiguous


@pytest.mark.parametrize(
    ("config", "what"),
    [
        ({"client_cert": "file.pem"}, "client_cert"),
        ({"proxies_config": {"proxy_ca_bundle": "file.pem"}}, "proxies_config"),
        ({"proxies": {"https": "socks5://127.0.0.1:1"}}, "socks5"),
    ],
)
def test_what_the_c_runtime_cannot_do_is_refused_with_a_way_out(config: dict[str, Any], what: str) -> None:
    with pytest.raises(ValueError, match=rf"{what}.*use Boto3Transport"):
        transport("crt", "https://127.0.0.1:1", **config)
