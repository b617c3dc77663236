"""What ``sam local`` lacks to run the functions against a stack on this machine: the stack's names, its endpoint.

``sam local invoke`` and ``sam local start-lambda`` hand a container the variables that the template declares, with the
logical id in the place of each ``!Ref`` of a resource. :func:`prepare` writes, from a build (``sam build``):

- ``template.yaml``: the built template, whose functions also declare ``AWS_ENDPOINT_URL``
- ``environment.json``: the variables' values (``--env-vars``)

From the command line, ``python -m local.sam_local COMMAND...`` runs ``sam local COMMAND...`` so, against the stack that
``once up`` runs, and lets the containers reach its servers meanwhile.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer
import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own, for this one call

from local.background import running
from local.containers import host_address
from local.errors import StackError
from local.machine import REPOSITORY, require_tool, user_environment
from local.ministack import CREDENTIALS, REGION, client
from local.relay import Relay
from local.stack import DIRECTORY as STACK_DIRECTORY
from local.stack import NAME

DIRECTORY = REPOSITORY / ".local" / "sam-local"
BUILD = STACK_DIRECTORY / "build"
FUNCTION = "AWS::Serverless::Function"


def environment_of_sam(endpoint: str) -> dict[str, str]:
    """The environment for a ``sam local`` command: nothing of the user's AWS settings, the local stack's instead."""
    return user_environment(
        **CREDENTIALS,
        SAM_CLI_TELEMETRY="0",
        __SAM_CLI_APP_DIR=str(REPOSITORY / ".local" / "sam"),  # instead of ~/.aws-sam
        AWS_CONFIG_FILE=os.devnull,
        AWS_SHARED_CREDENTIALS_FILE=os.devnull,
        AWS_DEFAULT_REGION=REGION,
        # SAM asks STS for the account, and would ask AWS. (Not AWS_ENDPOINT_URL: SAM hands that on to the functions.)
        AWS_ENDPOINT_URL_STS=endpoint,
    )


def prepare(
    build: Path, directory: Path, endpoint: str, environment: Mapping[str, Mapping[str, str]]
) -> list[str | Path]:
    """Write both files into ``directory``; returns the options for ``sam local`` that name them.

    Parameters
    ----------
    build
        The directory that ``sam build`` wrote.
    endpoint
        Where AWS's services answer, as seen from a container.
    environment
        Logical id of each function → its variables. What the template does not declare has no effect.
    """
    template = yaml.safe_load((build / "template.yaml").read_text())
    for resource in template["Resources"].values():
        if resource["Type"] == FUNCTION:
            properties = resource["Properties"]
            # Next to the build no more: the code is named from here.
            properties["CodeUri"] = str(build / properties["CodeUri"])
            properties.setdefault("Environment", {}).setdefault("Variables", {})["AWS_ENDPOINT_URL"] = (
                endpoint
            )
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "template.yaml").write_text(yaml.safe_dump(template, sort_keys=False))
    values = {name: {**variables, "AWS_ENDPOINT_URL": endpoint} for name, variables in environment.items()}
    (directory / "environment.json").write_text(json.dumps(values, indent=2))
    return [
        *("--template", directory / "template.yaml", "--env-vars", directory / "environment.json"),
        *("--region", REGION),
    ]


def deployed_environment(endpoint: str, stack: str) -> dict[str, dict[str, str]]:
    """The variables of each function as it is deployed at ``endpoint``, by logical id."""
    resources = client(endpoint, "cloudformation").describe_stack_resources(StackName=stack)
    functions = client(endpoint, "lambda")
    found: dict[str, dict[str, str]] = {}
    for resource in resources["StackResources"]:
        if resource["ResourceType"] == "AWS::Lambda::Function":
            configuration = functions.get_function_configuration(FunctionName=resource["PhysicalResourceId"])
            found[resource["LogicalResourceId"]] = configuration["Environment"]["Variables"]
    return found


def main(*, pass_on: Annotated[list[str], typer.Argument(metavar="COMMAND...", show_default=False)]) -> None:
    """Run ``sam local COMMAND...`` against the stack that `once up` runs.

    COMMAND is, for one, `invoke ConsumerFunction --event events/consumer-normal.json`, or `start-lambda`.
    """
    command, *rest = pass_on
    try:
        sam = require_tool("sam", "sam")
        state = running()
        if state is None:
            raise StackError(
                "No stack runs in the background. Start one with `once up`, then run this again."
            )
        address = host_address()
        ports = [int(state.endpoint.rpartition(":")[2]), int(state.database["database_port"])]
        environment = {
            function: variables | {"DATABASE_HOST": address}
            for function, variables in deployed_environment(state.endpoint, NAME).items()
        }
        options = prepare(BUILD, DIRECTORY, f"http://{address}:{ports[0]}", environment)
        arguments = [sam, "local", command, *options, *rest]
        with (
            Relay(address, ports),
            subprocess.Popen(arguments, env=environment_of_sam(state.endpoint)) as called,
        ):
            status = _wait(called)
    except StackError as error:
        sys.exit(str(error))
    sys.exit(status)


def _wait(called: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return called.wait()
        except KeyboardInterrupt:
            pass  # SAM got the Ctrl-C as well: it removes its containers, and ends


if __name__ == "__main__":
    app = typer.Typer(add_completion=False)
    app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})(main)
    app()
