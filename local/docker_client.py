"""Asks the container engine, through the SDK that the SAM CLI itself uses. See local/containers.py.

A program of its own, run by the SAM CLI's Python: so it finds the engine as that does, and no docker client has
to be there. Commands: ``ping``, ``has TAG``, ``gateway``, ``pull TAG``, ``import TAG ARCHIVE``. Exit status 0: yes, or
done.
"""

from __future__ import annotations

import ipaddress
import sys

import docker  # type: ignore[import-untyped]  # in the SAM CLI's environment

# What the real image has, as far as the functions and SAM see it.
CHANGES = [
    "ENV LAMBDA_TASK_ROOT=/var/task LAMBDA_RUNTIME_DIR=/var/runtime LANG=en_US.UTF-8 TZ=:/etc/localtime",
    "WORKDIR /var/task",
    'ENTRYPOINT ["/var/runtime/bootstrap"]',
    "LABEL oncestream.stand-in=true",
]


def main(command: str, *arguments: str) -> None:
    """Do one command; an exception, and so exit status 1, says that it could not be done."""
    engine = docker.from_env(timeout=600)
    match command, arguments:
        case "ping", ():
            sys.stdout.write(engine.version()["Version"])
        case "has", (tag,):
            labels = engine.images.get(tag).labels or {}
            sys.stdout.write("stand-in" if "oncestream.stand-in" in labels else "image")
        case "gateway", ():
            configurations = engine.networks.get("bridge").attrs["IPAM"]["Config"]
            configured = next(each for each in configurations if "." in each["Subnet"])
            # Not always told: then it is the first address of the network.
            first = ipaddress.ip_network(configured["Subnet"])[1]
            sys.stdout.write(configured.get("Gateway") or str(first))
        case "pull", (tag,):
            engine.images.pull(tag)
        case "import", (tag, archive):
            repository, _, version = tag.rpartition(":")
            engine.api.import_image_from_file(archive, repository=repository, tag=version, changes=CHANGES)
            engine.images.get(tag)
        case _:
            raise SystemExit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:])
