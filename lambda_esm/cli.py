"""The command ``lambda-esm``."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from lambda_esm.checkpoints import FileCheckpoints, MemoryCheckpoints
from lambda_esm.clients import Clients
from lambda_esm.mapping import Backoff, EventSourceMapping
from lambda_esm.poller import StreamPoller

logger = logging.getLogger(__name__)


def _pairs(values: Sequence[str]) -> dict[str, str]:
    pairs = dict(value.partition("=")[::2] for value in values)
    if not all(name and other for name, other in pairs.items()):
        raise typer.BadParameter("takes DEPLOYED=OTHER", param_hint="--invoke-as")
    return pairs


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        EventSourceMapping.from_configuration(value)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{text}: {error}", param_hint="--mapping") from error
    return value


def main(
    *,
    endpoint: Annotated[
        str, typer.Option(help="Where Kinesis, DynamoDB Streams, Lambda, S3, SQS and SNS answer.")
    ],
    function: Annotated[
        list[str] | None, typer.Option(help="Run this function's mappings only. May be repeated.")
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            help="A mapping that no Lambda API knows: JSON (or @FILE) with EventSourceArn, FunctionName, "
            "StartingPosition and, as needed, BatchSize and the API's other settings. May be repeated. "
            "Without --function, only these are run.",
        ),
    ] = None,
    lambda_endpoint: Annotated[
        str | None,
        typer.Option(help="Where functions are invoked, if elsewhere: sam local start-lambda, for one."),
    ] = None,
    invoke_as: Annotated[
        list[str] | None,
        typer.Option(metavar="DEPLOYED=OTHER", help="Invoke a function under another name. May be repeated."),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep positions in this file, and go on from there.")
    ] = None,
    until_drained: Annotated[
        bool, typer.Option("--until-drained", "--once", help="End when all records of now are processed.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(help="With --until-drained: give up after so many seconds (exit status 1)."),
    ] = None,
    retry_delay: Annotated[
        float, typer.Option(help="Seconds before a first retry; doubled each time.")
    ] = 0.1,
    retry_delay_limit: Annotated[float, typer.Option(help="The bound of that. Lambda's is about 60.")] = 2.0,
    poll: Annotated[float, typer.Option(help="Seconds before an idle shard is read again.")] = 0.2,
) -> None:
    """Poll Kinesis and DynamoDB streams and invoke functions, as Lambda's event source mappings do.

    The endpoint's own poller is disabled for each mapping that is run, and stays so.
    """
    logging.basicConfig(
        level=logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        store = FileCheckpoints(checkpoints) if checkpoints else MemoryCheckpoints()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--checkpoints") from error
    poller = StreamPoller(
        Clients(endpoint, lambda_endpoint_url=lambda_endpoint),
        functions=function or (),
        mappings=[_mapping(text) for text in mapping or ()],
        invoke_as=_pairs(invoke_as or ()),
        checkpoints=store,
        backoff=Backoff(retry_delay, retry_delay_limit),
        poll_seconds=poll,
    )
    asked_to_stop = False

    def stop(*_: object) -> None:
        nonlocal asked_to_stop
        if asked_to_stop:
            raise KeyboardInterrupt
        asked_to_stop = True
        poller.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    since = time.time()
    with poller:
        drained = poller.wait_for(
            lambda: asked_to_stop or (until_drained and poller.drained(since)),
            timeout if until_drained else None,
        )
    if not drained:
        logger.error("not drained within %g seconds", timeout)
        raise typer.Exit(1)


app = typer.Typer(add_completion=False)
app.command()(main)
