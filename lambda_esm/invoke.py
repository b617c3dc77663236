"""Delivering a batch: one synchronous invocation, of whatever answers like a Lambda function."""

from __future__ import annotations

import importlib
import json
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import urllib3
from botocore.exceptions import ClientError

from lambda_esm.clients import FUNCTION_SECONDS, TRANSPORT_ERRORS, explain
from lambda_esm.mapping import EventSourceMapping
from lambda_esm.records import Answered, Batch, FunctionFailed, NotInvoked

if TYPE_CHECKING:
    from mypy_boto3_lambda import LambdaClient


class Invoker(Protocol):
    """Invokes the function of a mapping. It is called by several threads at once."""

    def invoke(self, mapping: EventSourceMapping, batch: Batch) -> Answered | FunctionFailed | NotInvoked:
        """Deliver a batch and say what became of it. Raises nothing: every failure is an outcome.

        An invocation whose answer is lost on the way counts as not invoked. The function may have run, so
        the batch may be processed twice; it is not lost.
        """


class LambdaInvoker:
    """Invokes functions through the Lambda API, or through what speaks it (``sam local start-lambda`` does).

    Parameters
    ----------
    client
        A client that does not retry by itself.
    names
        Functions that are to be invoked under another name: ``{"deployed name": "name there"}``.
    """

    def __init__(self, client: LambdaClient, names: Mapping[str, str] | None = None) -> None:
        self._client = client
        self._names = dict(names or {})

    def invoke(self, mapping: EventSourceMapping, batch: Batch) -> Answered | FunctionFailed | NotInvoked:
        name = self._names.get(mapping.function_name, mapping.function_name)
        request: dict[str, Any] = {"FunctionName": name}
        if mapping.qualifier and mapping.function_name not in self._names:
            request["Qualifier"] = mapping.qualifier
        try:
            answer = self._client.invoke(InvocationType="RequestResponse", Payload=batch.payload, **request)
            body = answer["Payload"].read()
        except (ClientError, *TRANSPORT_ERRORS) as error:
            return NotInvoked(f"Lambda Invoke of {name}: {explain(error)}")
        request_id = answer["ResponseMetadata"].get("RequestId", "")
        version = answer.get("ExecutedVersion", "$LATEST")
        if kind := answer.get("FunctionError"):
            return FunctionFailed(_decode(body), kind, request_id, version)
        return Answered(_decode(body), request_id, version)


class UrlInvoker:
    """Invokes the one function behind a URL, as the runtime interface emulator of Lambda's container images has it
    (``http://HOST:PORT/2015-03-31/functions/function/invocations``).

    That emulator answers 200 to a function that raised, and says so only by the shape of the answer; 400 while the
    function is at work on another event; and another status, or a text, if the function ended or ran out of time.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._pool = urllib3.PoolManager(
            retries=False, timeout=urllib3.Timeout(connect=2, read=FUNCTION_SECONDS + 20)
        )

    def invoke(self, mapping: EventSourceMapping, batch: Batch) -> Answered | FunctionFailed | NotInvoked:
        try:
            answer = self._pool.request("POST", self._url, body=batch.payload)
        except urllib3.exceptions.HTTPError as error:
            return NotInvoked(f"POST {self._url}: {error} (start the function, or correct --function-url)")
        request_id = answer.headers.get("X-Amzn-RequestId", "")
        result = _decode(answer.data)
        if answer.status in (400, 404, 429, 503):
            return NotInvoked(f"POST {self._url}: status {answer.status}: {str(result)[:200]}")
        failed = answer.status >= 300 or "X-Amz-Function-Error" in answer.headers or _is_error(result)
        if failed or (isinstance(result, str) and result.startswith("Task timed out")):
            return FunctionFailed(result, "Unhandled", request_id)
        return Answered(result, request_id)


def _is_error(result: Any) -> bool:
    return isinstance(result, dict) and {"errorType", "errorMessage"} <= result.keys()


class HandlerInvoker:
    """Calls Python handlers in this process, as Lambda's runtime would: with the event as JSON, and a context.

    Parameters
    ----------
    handlers
        By function name; the key ``"*"`` is for all others. A handler is a callable, or text: ``module:function``.
    reload
        Import a module that is named by text anew when a file under the working directory has changed.

    Raises
    ------
    ValueError
        A text names no handler; the message says why.
    """

    def __init__(
        self, handlers: Mapping[str, Callable[[Any, Any], Any] | str], *, reload: bool = False
    ) -> None:
        self._handlers = {
            name: PythonHandler(handler, reload=reload) if isinstance(handler, str) else handler
            for name, handler in handlers.items()
        }

    def invoke(self, mapping: EventSourceMapping, batch: Batch) -> Answered | FunctionFailed | NotInvoked:
        name = mapping.function_name
        handler = self._handlers.get(name) or self._handlers.get("*")
        if handler is None:
            return NotInvoked(f"no handler is given for the function {name}")
        context = LambdaContext(name, mapping.function_arn)
        try:
            result = json.loads(json.dumps(handler(json.loads(batch.payload), context)))
        except Exception as error:  # noqa: BLE001 - whatever a function raises is a function error, as in Lambda
            frames = traceback.format_tb(error.__traceback__)[1:]
            told = {"errorType": type(error).__name__, "errorMessage": str(error), "stackTrace": frames}
            return FunctionFailed(told, "Unhandled", context.aws_request_id)
        return Answered(result, context.aws_request_id)


@dataclass(slots=True)
class LambdaContext:
    """What a handler in process gets as its context: the documented fields, and 15 minutes.

    Source: docs.aws.amazon.com/lambda/latest/dg/python-context.html
    """

    function_name: str
    invoked_function_arn: str
    function_version: str = "$LATEST"
    memory_limit_in_mb: str = "128"
    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    log_group_name: str = "/aws/lambda/local"
    log_stream_name: str = "local"
    _ends_at: float = field(default_factory=lambda: time.monotonic() + FUNCTION_SECONDS)

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until Lambda's longest time-out."""
        return max(0, int((self._ends_at - time.monotonic()) * 1_000))


class PythonHandler:
    """The function that ``module:function`` names, imported from the working directory or the path."""

    def __init__(self, name: str, *, reload: bool = False) -> None:
        self._module, colon, self._function = name.partition(":")
        if not (self._module and colon and self._function):
            raise ValueError(f"{name!r}: name a handler as MODULE:FUNCTION")
        self._reload = reload
        self._lock = threading.Lock()
        self._root = Path.cwd()
        if str(self._root) not in sys.path:
            sys.path.insert(0, str(self._root))
        self._seen: dict[str, float] = {}
        self._handler = self._load()

    def __call__(self, event: Any, context: Any) -> Any:
        if self._reload:
            with self._lock:
                if self._files() != self._seen:
                    self._handler = self._load()
        return self._handler(event, context)

    def _load(self) -> Callable[[Any, Any], Any]:
        for module in self._ours():
            del sys.modules[module]
        importlib.invalidate_caches()
        try:
            handler = getattr(importlib.import_module(self._module), self._function)
        except (ImportError, AttributeError) as error:
            raise ValueError(f"{self._module}:{self._function} cannot be imported: {error}") from error
        self._seen = self._files()
        if not callable(handler):
            raise ValueError(f"{self._module}:{self._function} is not a function")
        return handler  # type: ignore[no-any-return]

    def _ours(self) -> list[str]:
        """The handler's modules: those that were imported from the working directory, installed ones left out."""
        installed = self._root / ".venv"
        found = []
        for name, module in list(sys.modules.items()):
            file = Path(getattr(module, "__file__", None) or "/")
            mine = file.is_relative_to(self._root) and not file.is_relative_to(installed)
            if mine and name.partition(".")[0] == self._module.partition(".")[0]:
                found.append(name)
        return found

    def _files(self) -> dict[str, float]:
        files = [Path(str(sys.modules[name].__file__)) for name in self._ours()]
        return {str(file): file.stat().st_mtime_ns for file in files if file.exists()}


def _decode(body: bytes) -> Any:
    """A function's answer. What is not JSON (Lambda never sends such, a stand-in might) stays text."""
    try:
        return json.loads(body) if body.strip() else None
    except ValueError:
        return body.decode(errors="replace")
