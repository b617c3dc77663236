"""What ``sam build`` makes of src/ (src/Makefile): complete, small, compiled, and never stale."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import zipfile
from importlib.util import MAGIC_NUMBER
from pathlib import Path

import pytest

from local.machine import REPOSITORY
from local.stack import Stack

TEMPLATE = (REPOSITORY / "template.yaml").read_text()
HANDLERS = dict(
    re.findall(
        r"^  (\w+):\n    Type: AWS::Serverless::Function\n(?:    .*\n)*?      Handler: ([\w.]+)",
        TEMPLATE,
        re.M,
    )
)


@pytest.fixture(scope="module", params=sorted(HANDLERS))
def package(request: pytest.FixtureRequest, deployed: Stack) -> Path:
    """The built package of each function."""
    return deployed.build / str(request.param)


def test_every_function_of_the_template_is_known_to_this_test() -> None:
    assert len(HANDLERS) == TEMPLATE.count("Type: AWS::Serverless::Function") > 0


def test_the_package_holds_all_that_the_handler_imports(package: Path) -> None:
    # Only the package and the standard library can be imported: no site-packages, no environment.
    module = HANDLERS[package.name].rpartition(".")[0]
    imported = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import sys; sys.path.insert(0, {str(package)!r}); import {module}",
        ],
        env={"AWS_DEFAULT_REGION": "us-east-1", "POWERTOOLS_METRICS_NAMESPACE": "Oncestream"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert imported.returncode == 0, imported.stderr


def test_every_module_of_the_package_is_compiled_for_the_runtime(package: Path) -> None:
    sources = [path for path in package.rglob("*.py") if path.parent.name != "__pycache__"]
    unchecked_hash = (1).to_bytes(4, "little")  # peps.python.org/pep-0552: flag bits of the .pyc header
    for source in sources:
        compiled = source.parent / "__pycache__" / f"{source.stem}.cpython-313.pyc"
        assert compiled.exists(), f"{source} is not compiled"
        assert compiled.read_bytes()[:8] == MAGIC_NUMBER + unchecked_hash, f"{compiled} would be checked"
    assert len(list(package.rglob("*.pyc"))) == len(sources)


def test_the_package_has_the_models_of_the_services_in_use_and_no_others(package: Path) -> None:
    models = {path.name for path in (package / "botocore" / "data").iterdir() if path.is_dir()}
    assert models == {"dynamodb", "kinesis", "s3", "secretsmanager", "sqs", "sts", "xray"}


def test_only_who_claims_in_bulk_has_the_c_runtime(package: Path) -> None:
    found = {path.name.partition(".")[0].partition("-")[0] for path in package.glob("*awscrt*")}
    assert found == ({"awscrt", "_awscrt"} if package.name == "ConsumerFunction" else set())


def test_the_consumer_reaches_dynamodb_with_nothing_but_its_package(deployed: Stack) -> None:
    # awscrt is imported at the first use, which importing the handler is not.
    package = deployed.build / "ConsumerFunction"
    code = "from common import clients; print(type(clients.dynamodb_transport()).__name__)"
    made = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {str(package)!r}); {code}"],
        env={"AWS_DEFAULT_REGION": "us-east-1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (made.stdout, made.returncode) == ("CrtTransport\n", 0), made.stderr


@pytest.mark.parametrize(
    ("function", "most"), [("ConsumerFunction", 16_000_000), ("ReportFunction", 12_000_000)]
)
def test_the_package_is_well_under_25_mb_zipped(deployed: Stack, function: str, most: int) -> None:
    package = deployed.build / function
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in package.rglob("*"):
            packed.write(path, path.relative_to(package))
    assert len(archive.getvalue()) < most


def wheel(directory: Path, version: str) -> None:
    """A package ``dependency`` with one module that says its version, and a model of a service not in use."""
    info = f"dependency-{version}.dist-info"
    with zipfile.ZipFile(directory / f"dependency-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr("dependency.py", f"VERSION = {version!r}\n")
        archive.writestr("botocore/data/ec2/service-2.json", "{}")
        archive.writestr("botocore/data/s3/service-2.json", "{}")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: dependency\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")


class Project:
    """A small src/ with our Makefile, whose dependencies come from ``wheels/``."""

    def __init__(self, directory: Path) -> None:
        self.source = directory / "src"
        self.output = directory / ".aws-sam" / "build" / "AFunction"
        self._wheels = directory / "wheels"
        self._wheels.mkdir()
        (self.source / "app").mkdir(parents=True)
        (self.source / "Makefile").write_bytes((REPOSITORY / "src" / "Makefile").read_bytes())
        self.require("1.0")
        self.write("ANSWER = 1\n")

    def require(self, version: str) -> None:
        wheel(self._wheels, version)
        (self.source / "requirements.txt").write_text(f"dependency=={version}\n")

    def write(self, code: str) -> None:
        (self.source / "app" / "handler.py").write_text(code)

    def build(self, **variables: str) -> subprocess.CompletedProcess[str]:
        self.output.mkdir(parents=True, exist_ok=True)
        return subprocess.run(
            ["make", "build-AFunction", f"ARTIFACTS_DIR={self.output}"],
            cwd=self.source,
            env={
                "PATH": os.environ["PATH"],
                "PYTHON": sys.executable,
                "PIP_NO_INDEX": "1",
                "PIP_FIND_LINKS": str(self._wheels),
                "PIP_CONFIG_FILE": os.devnull,
                **variables,
            },
            capture_output=True,
            text=True,
            check=False,
        )

    def dependencies(self) -> list[Path]:
        return sorted((self.output.parent.parent).glob("dependencies-*"))

    def run(self, expression: str) -> str:
        imports = f"import sys; sys.path.insert(0, {str(self.output)!r}); import app.handler, dependency"
        command = [sys.executable, "-I", "-S", "-c", f"{imports}; print({expression})"]
        return subprocess.check_output(command, text=True).strip()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_change_of_the_code_is_built_and_the_dependencies_are_kept(project: Project) -> None:
    assert project.build().returncode == 0
    (kept,) = project.dependencies()
    mark = kept.stat().st_ino
    project.write("ANSWER = 2\n")
    assert project.build().returncode == 0
    assert project.run("app.handler.ANSWER") == "2"
    assert [path.stat().st_ino for path in project.dependencies()] == [mark]


def test_a_change_of_the_requirements_is_built_and_the_old_dependencies_go(project: Project) -> None:
    assert project.build().returncode == 0
    (old,) = project.dependencies()
    project.require("2.0")
    assert project.build().returncode == 0
    assert project.run("dependency.VERSION") == "2.0"
    (new,) = project.dependencies()
    assert new != old


def test_compiled_files_of_the_developers_own_runs_are_not_packaged(project: Project) -> None:
    stale = project.source / "app" / "__pycache__" / "gone.cpython-313.pyc"
    stale.parent.mkdir()
    stale.write_bytes(b"of a module that was deleted")
    assert project.build().returncode == 0
    assert [path.name for path in (project.output / "app" / "__pycache__").iterdir()] == [
        "handler.cpython-313.pyc"
    ]


def test_a_package_that_is_built_again_or_changed_leaves_the_dependencies_of_others_alone(
    project: Project,
) -> None:
    assert project.build().returncode == 0
    project.write("ANSWER = 2\n")
    assert project.build().returncode == 0
    (dependencies,) = project.dependencies()
    assert not (dependencies / "app").exists()
    assert (dependencies / "dependency.py").read_text() == "VERSION = '1.0'\n"


def test_models_of_services_not_in_use_are_left_out(project: Project) -> None:
    assert project.build().returncode == 0
    assert [path.name for path in (project.output / "botocore" / "data").iterdir()] == ["s3"]


def test_a_syntax_error_fails_the_build(project: Project) -> None:
    project.write("def handler(:\n")
    built = project.build()
    assert built.returncode != 0
    assert "SyntaxError" in built.stdout + built.stderr


def test_a_dependency_that_cannot_be_installed_fails_the_build_and_leaves_nothing(project: Project) -> None:
    (project.source / "requirements.txt").write_text("dependency==9.9\n")
    built = project.build()
    assert built.returncode != 0
    assert "dependency==9.9" in built.stderr
    assert project.dependencies() == []


def test_another_python_builds_too_and_leaves_out_what_it_cannot_compile(project: Project) -> None:
    other = project.source.parent / "python"
    other.write_text(f'#!/bin/sh\ncase $2 in *version_info*) exit 1 ;; esac\nexec {sys.executable} "$@"\n')
    other.chmod(0o755)
    assert project.build(PYTHON=str(other)).returncode == 0
    assert list(project.output.rglob("*.pyc")) == []
    assert project.build().returncode == 0  # and the next build with a 3.13 does not take these
    assert project.run("dependency.VERSION") == "1.0"
    assert len(list(project.output.rglob("*.pyc"))) == 2
