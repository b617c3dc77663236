"""What a cold start pays for: how long each function's module takes to import, its memory, the size of the
package.

Measured on the package that ``sam build`` makes, without the development environment: each import in a
process of its own, the functions in turn. The files are in the page cache of the machine, as they are not
in a new execution environment of Lambda's; what is counted is the work of importing.
"""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bench.figures import summarise
from local.machine import REPOSITORY, clean_environment
from local.sam import Sam

ROUNDS = 5
HEAVIEST = 12

_IMPORT = """
import sys, time
started = time.perf_counter()
__import__(sys.argv[1])
seconds = time.perf_counter() - started
modules = len(sys.modules)
sys.path.append(sys.argv[2])
from bench.memory import peak_bytes
print([seconds, peak_bytes(), modules])
"""
_FUNCTION = re.compile(
    r"^  (\w+):\n    Type: AWS::Serverless::Function\n(?:(?:    .*)?\n)*?      Handler: ([\w.]+)\.\w+$",
    re.MULTILINE,
)
_VARIABLE = re.compile(r"^ +([A-Z][A-Z0-9]*_[A-Z0-9_]*): ", re.MULTILINE)


# The template's other variables are all set to "1": what is read at import is read, and nothing is connected to.
_VALUES = {
    "AWS_DEFAULT_REGION": "us-east-1",
    "POWERTOOLS_LOG_LEVEL": "INFO",
    # As in Lambda, with tracing on: elsewhere the X-Ray SDK makes a client of its own, which takes 60 ms.
    "LAMBDA_TASK_ROOT": "/var/task",
    "AWS_LAMBDA_FUNCTION_NAME": "bench",
    "DATABASE_AUTHENTICATION": "trust",
    "DATABASE_TLS": "disable",
}


class ImportFailedError(Exception):
    """A function's module cannot be imported from its package."""


def build(directory: Path) -> Path:
    """Build the package by ``sam build`` into ``directory``, and return where each function's is.

    Raises
    ------
    StackError
        SAM's own message.
    """
    with Sam(directory) as sam:
        sam.start_build()
        sam.finish_build()
        return sam.build


def functions() -> dict[str, str]:
    """The functions of the template: logical name and the module of the handler."""
    return dict(_FUNCTION.findall((REPOSITORY / "template.yaml").read_text()))


def imports(package: Path, done: Callable[[str], None]) -> Iterator[dict[str, Any]]:
    """Seconds and memory of importing each function's module, and the modules that cost most."""
    runs: dict[str, list[list[float]]] = {name: [] for name in functions()}
    for _ in range(ROUNDS):
        for name, module in functions().items():
            ran = _python(package / name, "-c", _IMPORT, module, str(REPOSITORY))
            runs[name].append(json.loads(ran.stdout))
            done(f"import {module}")
    for name, module in functions().items():
        seconds = summarise([run[0] for run in runs[name]])
        _, peak, modules = runs[name][-1]
        yield {
            "function": name,
            "module": module,
            "seconds": round(seconds.median, 4),
            "spread": round(seconds.spread, 3),
            "peak_mb": round(peak / 1e6, 1),
            "modules": int(modules),
            "heaviest_ms": heaviest(
                _python(package / name, "-X", "importtime", "-c", f"import {module}").stderr
            ),
        }


def heaviest(importtime: str) -> dict[str, float]:
    """The modules that took longest by themselves, in milliseconds, from what ``-X importtime`` prints."""
    own = {}
    for line in importtime.splitlines():
        if found := re.match(r"import time:\s+(\d+) \|\s+\d+ \|\s*(\S+)", line):
            own[found[2]] = int(found[1]) / 1000
    return dict(sorted(own.items(), key=lambda item: -item[1])[:HEAVIEST])


def package_megabytes(directory: Path) -> float:
    """Size of a function's package as a zip archive, in units of 10^6 bytes."""
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as zipped:
        for path in sorted(directory.rglob("*")):
            if path.is_file():
                zipped.write(path, path.relative_to(directory))
    return round(archive.tell() / 1e6, 2)


def _python(package: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    # -S: not even the site-packages of the environment that runs the benchmark. A missing dependency must show.
    variables = dict.fromkeys(_VARIABLE.findall((REPOSITORY / "template.yaml").read_text()), "1")
    environment = clean_environment(package) | variables | _VALUES | {"PYTHONPATH": str(package)}
    ran = subprocess.run(
        [sys.executable, "-S", *arguments],
        cwd=package,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if ran.returncode:
        raise ImportFailedError(f"cannot import from {package}:\n{ran.stderr.strip()}")
    return ran
