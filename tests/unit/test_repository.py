"""What is pinned, and what the continuous integration runs."""

from __future__ import annotations

import re
import stat
import subprocess
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]

from local.machine import REPOSITORY

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
PINS = REPOSITORY / "src" / "requirements.txt"


def workflow() -> dict[str, Any]:
    parsed: dict[str, Any] = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "ci.yml").read_text())
    return parsed


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_pinned_by_commit_and_name_their_version(path: Any) -> None:
    used = re.findall(r"uses: (.*)", path.read_text())
    assert used
    for each in used:
        assert re.fullmatch(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", each), each


def test_what_ships_is_pinned_with_hashes() -> None:
    requirements = re.split(r"\n(?=\w)", PINS.read_text().replace("\\\n", " ").strip())
    assert len(requirements) > 5
    for each in requirements:
        assert re.match(r"[\w-]+(\[[\w,]+\])?==\S+ ", each), each
        assert "--hash=sha256:" in each, each


def test_what_ships_is_what_the_tests_run() -> None:
    pinned = re.compile(r"^([\w-]+)==([^\s\\]+)", re.MULTILINE)
    developed = dict(pinned.findall((REPOSITORY / "requirements-dev.txt").read_text()))
    for name, version in pinned.findall(PINS.read_text()):
        assert developed[name] == version, name


def test_dependabot_looks_wherever_something_is_pinned() -> None:
    updates = yaml.safe_load((REPOSITORY / ".github" / "dependabot.yml").read_text())["updates"]
    [pip] = [each for each in updates if each["package-ecosystem"] == "pip"]
    listed = [path for pattern in ("*.in", "src/*.in", "local/*/*.in") for path in REPOSITORY.glob(pattern)]
    places = {f"/{path.relative_to(REPOSITORY).parent.as_posix().removeprefix('.')}" for path in listed}
    assert places == set(pip["directories"])
    assert "github-actions" in {each["package-ecosystem"] for each in updates}


def test_the_jobs_run_targets_that_exist_and_together_all_suites() -> None:
    jobs = {
        each["name"]: each["run"] for each in workflow()["jobs"]["check"]["strategy"]["matrix"]["include"]
    }
    assert set(jobs) == {"lint", "unit", "integration", "iam", "sam", "chaos", "esm"}
    run = {word for command in jobs.values() for word in command.split()[1:]}
    assert run <= targets()
    # What .ci/run does in one go: `make test` is the unit tests and the others.
    [listed] = re.findall(r"^for target in (.*); do$", (REPOSITORY / ".ci" / "run").read_text(), re.MULTILINE)
    assert run == set(listed.split()) - {"test"} | {"test-unit", "test-integration"}


@pytest.mark.parametrize("name", ["run", "programs"])
def test_the_scripts_can_be_executed_and_are_sound(name: str) -> None:
    path = REPOSITORY / ".ci" / name
    assert path.stat().st_mode & stat.S_IXUSR
    subprocess.run(["bash", "-n", path], check=True)


def test_the_licence_is_the_one_that_is_named() -> None:
    assert 'license = "MIT"' in (REPOSITORY / "pyproject.toml").read_text()
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License\n")
