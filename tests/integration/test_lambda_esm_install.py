"""The wheel lambda-esm as a stranger meets it: an empty environment, an emulator, the first example of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.machine import REPOSITORY, free_port
from tests.moto_server import moto_server

README = REPOSITORY / "lambda_esm" / "README.md"
SECONDS = 120


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment that holds the wheel and what it needs, and nothing else."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheels = [*pip, "wheel", "--no-deps", "-w", str(folder / "dist"), str(REPOSITORY / "lambda_esm")]
    subprocess.run(wheels, check=True, timeout=SECONDS)
    [wheel] = (folder / "dist").glob("lambda_esm-*.whl")
    venv.create(folder / "env", with_pip=False)
    programs = folder / "env" / "bin"
    python = ["--python", str(programs / "python")]
    subprocess.run([*pip, *python, "install", "--no-compile", str(wheel)], check=True, timeout=SECONDS)
    return programs


@pytest.fixture(scope="module")
def moto() -> Iterator[str]:
    with moto_server() as url:
        yield url


def blocks(language: str) -> list[str]:
    """The code of the README's first use, in order."""
    [section] = re.findall(r"## First use\n(.*?)\n## ", README.read_text(), flags=re.DOTALL)
    return re.findall(rf"```{language}\n(.*?)```", section, flags=re.DOTALL)


def test_the_first_example_of_the_readme_delivers_every_record(
    installed: Path, moto: str, tmp_path: Path
) -> None:
    for code in blocks("python"):
        [name] = re.findall(r"# (\w+\.py)\n", code)
        (tmp_path / name).write_text(code)
    _install, example = blocks("console")
    commands = re.sub(r"^\$ ", "", example, flags=re.MULTILINE)
    assert "http://127.0.0.1:5000" in commands
    environment = {"PATH": f"{installed}:{os.defpath}", "HOME": str(tmp_path)}

    result = subprocess.run(
        ["bash", "-euc", commands.replace("http://127.0.0.1:5000", moto)],  # a port that is free
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )

    assert result.returncode == 0, result.stderr
    printed = result.stdout.splitlines()
    assert sorted(printed) == sorted(f"order {number}" for number in range(1000))


def test_the_wheel_holds_the_package_alone(installed: Path) -> None:
    code = "import lambda_esm, importlib.metadata as m; print(lambda_esm.__file__); print(m.requires('lambda-esm'))"
    result = subprocess.run(
        [installed / "python", "-c", code], capture_output=True, text=True, check=True, cwd="/"
    )

    file, needed = result.stdout.splitlines()
    assert file.startswith(str(installed.parent))
    assert "oncestream" not in needed


def test_an_endpoint_that_does_not_answer_is_named_with_the_call_and_the_cure(
    installed: Path, tmp_path: Path
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    result = subprocess.run(
        [installed / "lambda-esm", "--endpoint", url, "--stream", "orders", "--until-drained"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=SECONDS,
        check=False,
        env={"PATH": os.defpath, "HOME": str(tmp_path)},
    )

    assert result.returncode == 2
    assert "Kinesis DescribeStreamSummary of orders: EndpointConnectionError" in result.stderr
    assert f"{url}/" in result.stderr
    assert "start what should answer there, or correct --endpoint" in result.stderr
