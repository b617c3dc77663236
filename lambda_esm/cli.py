"""The command ``lambda-esm``."""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import typer

from lambda_esm.checkpoints import FileCheckpoints, MemoryCheckpoints
from lambda_esm.clients import Clients, GoneError, UnavailableError
from lambda_esm.filters import InvalidPatternError
from lambda_esm.invoke import HandlerInvoker, Invoker, UrlInvoker
from lambda_esm.lookup import TemplateNames, stream_arn
from lambda_esm.mapping import Backoff, EventSourceMapping, InvalidMappingError
from lambda_esm.observer import Observer
from lambda_esm.output import JsonLines, Reporter, totals
from lambda_esm.poller import StreamPoller
from lambda_esm.template import TemplateError, read_mappings

logger = logging.getLogger(__name__)

_SERVICES = {
    "kinesis": "kinesis",
    "dynamodb": "dynamodbstreams",
    "dynamodbstreams": "dynamodbstreams",
    "lambda": "lambda",
    "s3": "s3",
    "sqs": "sqs",
    "sns": "sns",
    "cloudformation": "cloudformation",
}


def _pairs(values: Sequence[str] | None, option: str) -> dict[str, str]:
    pairs = dict(value.partition("=")[::2] for value in values or ())
    if not all(name and other for name, other in pairs.items()):
        raise typer.BadParameter("takes NAME=VALUE", param_hint=option)
    return pairs


def _endpoints(values: Sequence[str]) -> tuple[str | None, dict[str, str]]:
    everything, some = None, {}
    for value in values:
        name, separator, url = value.partition("=")
        if separator and "/" not in name:
            if name not in _SERVICES:
                known = ", ".join(_SERVICES)
                raise typer.BadParameter(f"{name}: not one of {known}", param_hint="--endpoint")
            some[_SERVICES[name]] = url
        else:
            everything = value
    return everything, some


def _mapping(text: str) -> dict[str, Any]:
    try:
        value = json.loads(Path(text[1:]).read_text() if text.startswith("@") else text)
        if not isinstance(value, dict):
            raise ValueError("not a JSON object")
        EventSourceMapping.from_configuration(value)
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{text}: {error}", param_hint="--mapping") from error
    return value


def _invoker(function_url: str | None, handlers: Sequence[str], *, reload: bool) -> Invoker | None:
    if function_url and handlers:
        raise typer.BadParameter("give --function-url or --handler, not both", param_hint="--handler")
    if function_url:
        return UrlInvoker(function_url)
    if handlers:
        named = dict(text.rpartition("=")[::2] for text in handlers)
        try:
            return HandlerInvoker({name or "*": text for name, text in named.items()}, reload=reload)
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="--handler") from error
    return None


def main(
    *,
    endpoint: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[SERVICE=]URL",
            help="Where Kinesis, DynamoDB Streams, Lambda, S3, SQS and SNS answer; or one of them alone "
            "(kinesis=URL). May be repeated.",
        ),
    ] = None,
    function: Annotated[
        list[str] | None,
        typer.Option(
            help="Run this function's mappings only; with --stream: the function to invoke. May be repeated."
        ),
    ] = None,
    mapping: Annotated[
        list[str] | None,
        typer.Option(
            metavar="JSON|@FILE",
            help="A mapping that no Lambda API knows: EventSourceArn, FunctionName, StartingPosition and, as needed, "
            "BatchSize and the API's other settings. May be repeated.",
        ),
    ] = None,
    template: Annotated[
        Path | None, typer.Option(help="Run the mappings of streams in this SAM or CloudFormation template.")
    ] = None,
    stack: Annotated[
        str | None, typer.Option(help="With --template: the stack that knows the names of its streams.")
    ] = None,
    name_of: Annotated[
        list[str] | None,
        typer.Option(metavar="LOGICALID=NAME", help="With --template: the name or ARN of a logical id."),
    ] = None,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="With --template: a parameter of it.")
    ] = None,
    stream: Annotated[
        str | None,
        typer.Option(metavar="ARN|NAME", help="Poll this stream, with the settings given as options."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="With --stream.")] = 100,
    batching_window: Annotated[int, typer.Option(metavar="SECONDS", help="With --stream.")] = 0,
    starting_position: Annotated[
        str, typer.Option(help="With --stream: TRIM_HORIZON or LATEST.")
    ] = "TRIM_HORIZON",
    maximum_retries: Annotated[int, typer.Option(help="With --stream; -1: no limit.")] = -1,
    maximum_record_age: Annotated[
        int, typer.Option(metavar="SECONDS", help="With --stream; -1: no limit.")
    ] = -1,
    parallelization_factor: Annotated[int, typer.Option(help="With --stream.")] = 1,
    tumbling_window: Annotated[int, typer.Option(metavar="SECONDS", help="With --stream.")] = 0,
    bisect: Annotated[
        bool, typer.Option("--bisect", help="With --stream: BisectBatchOnFunctionError.")
    ] = False,
    report_failures: Annotated[
        bool, typer.Option("--report-failures", help="With --stream: ReportBatchItemFailures.")
    ] = False,
    filter_: Annotated[
        list[str] | None, typer.Option("--filter", metavar="JSON", help="With --stream: a filter pattern.")
    ] = None,
    on_failure: Annotated[
        str | None,
        typer.Option(metavar="ARN", help="With --stream: bucket, queue or topic for what is given up."),
    ] = None,
    lambda_endpoint: Annotated[
        str | None,
        typer.Option(
            "--lambda",
            "--lambda-endpoint",
            metavar="URL",
            help="Where functions are invoked, if elsewhere: sam local start-lambda, for one.",
        ),
    ] = None,
    function_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL", help="Post events to this URL instead: the runtime interface emulator, for one."
        ),
    ] = None,
    handler: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[FUNCTION=]MODULE:NAME",
            help="Call this Python function in process instead. May be repeated, one for each function.",
        ),
    ] = None,
    reload: Annotated[
        bool, typer.Option("--reload", help="With --handler: import it anew when its files have changed.")
    ] = False,
    invoke_as: Annotated[
        list[str] | None,
        typer.Option(metavar="DEPLOYED=OTHER", help="Invoke a function under another name. May be repeated."),
    ] = None,
    checkpoints: Annotated[
        Path | None, typer.Option(help="Keep positions in this file, and go on from there.")
    ] = None,
    take_over: Annotated[
        bool,
        typer.Option(
            "--take-over",
            help="Run Disabled mappings as well, and leave the endpoint's own pollers off at the end.",
        ),
    ] = False,
    until_drained: Annotated[
        bool, typer.Option("--until-drained", "--once", help="End when all records of now are settled.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(help="With --until-drained: give up after so many seconds (exit status 1)."),
    ] = None,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Write what happens to the standard output, a JSON object a line.")
    ] = False,
    plain: Annotated[
        bool, typer.Option("--plain", help="Lines of text, where a terminal would have the live view.")
    ] = False,
    status: Annotated[
        Path | None, typer.Option(help="Keep how it stands in this file (JSON), written anew every second.")
    ] = None,
    retry_delay: Annotated[
        float, typer.Option(help="Seconds before a first retry; doubled each time.")
    ] = 0.1,
    retry_delay_limit: Annotated[float, typer.Option(help="The bound of that. Lambda's is about 60.")] = 2.0,
    poll: Annotated[float, typer.Option(help="Seconds before an idle shard is read again.")] = 0.2,
) -> None:
    """Poll Kinesis and DynamoDB streams and invoke functions, as Lambda's event source mappings do.

    The mappings come from the Lambda API of the endpoint, or from --template, --stream or --mapping. The endpoint's own
    poller is disabled for each mapping of the API that is run, and put back at the end.
    """
    live = sys.stderr.isatty() and not (plain or json_lines)
    logging.basicConfig(
        level=logging.WARNING if live else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(message)s",
        datefmt="%H:%M:%S",
        stream=sys.stderr,
    )
    logging.getLogger("botocore").setLevel(logging.WARNING)
    try:
        store = FileCheckpoints(checkpoints) if checkpoints else MemoryCheckpoints()
    except (OSError, ValueError) as error:
        raise typer.BadParameter(str(error), param_hint="--checkpoints") from error
    everywhere, some = _endpoints(endpoint or ())
    clients = Clients(everywhere, lambda_endpoint_url=lambda_endpoint, endpoints=some)
    lines = JsonLines() if json_lines else None
    mappings = [_mapping(text) for text in mapping or ()]
    try:
        if template is not None:
            streams = TemplateNames(clients, stack, _pairs(name_of, "--name-of"))
            found = read_mappings(template, streams, _pairs(parameter, "--parameter"))
            mappings += [each for each in found if not function or each["FunctionName"] in function]
            if not mappings:
                raise TemplateError(f"{template} maps no stream to a function")
        if stream is not None:
            mappings.append(
                {
                    "EventSourceArn": stream_arn(clients, stream),
                    "FunctionName": (function or ["function"])[0],
                    "StartingPosition": starting_position,
                    "BatchSize": batch_size,
                    "MaximumBatchingWindowInSeconds": batching_window,
                    "MaximumRetryAttempts": maximum_retries,
                    "MaximumRecordAgeInSeconds": maximum_record_age,
                    "ParallelizationFactor": parallelization_factor,
                    "TumblingWindowInSeconds": tumbling_window,
                    "BisectBatchOnFunctionError": bisect,
                    "FunctionResponseTypes": ["ReportBatchItemFailures"] if report_failures else [],
                    "FilterCriteria": {"Filters": [{"Pattern": each} for each in filter_ or ()]},
                    "DestinationConfig": {"OnFailure": {"Destination": on_failure or ""}},
                }
            )
        poller = StreamPoller(
            clients,
            functions=() if template or stream else function or (),
            mappings=mappings,
            invoker=_invoker(function_url, handler or (), reload=reload),
            invoke_as=_pairs(invoke_as, "--invoke-as"),
            checkpoints=store,
            observer=lines or Observer(),
            backoff=Backoff(retry_delay, retry_delay_limit),
            poll_seconds=poll,
            take_over=take_over,
        )
    except (InvalidMappingError, InvalidPatternError, TemplateError, GoneError, UnavailableError) as error:
        logger.error("%s", error)
        raise typer.Exit(2) from error
    problem = _run(poller, until_drained, timeout, {"live": live, "lines": lines, "status": status})
    if lines is not None:
        lines.write("end", **totals(poller), problem=problem)
    else:
        found_totals = ", ".join(f"{number:,} {name}" for name, number in totals(poller).items())
        logger.log(logging.WARNING if live else logging.INFO, "%s", found_totals)
    if problem:
        logger.error("%s", problem)
        raise typer.Exit(1)


def _run(
    poller: StreamPoller, until_drained: bool, timeout: float | None, report: Mapping[str, Any]
) -> str | None:
    """Run the poller to its end. Answers with what went wrong, if anything did."""
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

    def is_over() -> bool:
        return asked_to_stop or (until_drained and (poller.drained(since) or bool(poller.lost(since))))

    with ExitStack() as stack:
        stack.enter_context(poller)
        stack.enter_context(Reporter(poller, **report))
        over = poller.wait_for(is_over, timeout if until_drained else None)
        if lost := poller.lost(since):
            return f"not drained: {', '.join(lost)} vanished with records that may never have been read"
        if not over:
            return f"not drained within {timeout:g} seconds"
        if until_drained and not poller.drained(since):
            return "not drained: stopped before"
    return None


app = typer.Typer(add_completion=False)
app.command()(main)
