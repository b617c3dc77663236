"""The documents' site: what is gathered for it, and which links are wrong."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from local.machine import REPOSITORY
from local.site import gather, links


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    made = tmp_path / "repository"
    for name, text in {
        "README.md": "[Files](docs/files.md#csv) ![chart](bench/chart.svg) [site](https://example.com/a.md)\n",
        "docs/files.md": "# CSV\n\n[code](../src/rows.py) and `[no](link.md)`\n\n```\n[no](link.md)\n```\n",
        "bench/chart.svg": "<svg/>",
        "src/rows.py": "",
        "src/other.py": "",
    }.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    return made


def gathered(directory: Path) -> set[str]:
    return {path.relative_to(directory).as_posix() for path in directory.rglob("*") if path.is_file()}


def test_pages_and_what_they_link_to_are_laid_out_as_in_the_repository(
    repository: Path, tmp_path: Path
) -> None:
    assert gather(repository, tmp_path / "site") == []
    assert gathered(tmp_path / "site") == {"README.md", "docs/files.md", "bench/chart.svg", "src/rows.py"}


def test_a_page_that_is_linked_to_brings_what_it_links_to(repository: Path, tmp_path: Path) -> None:
    (repository / "part").mkdir()
    (repository / "docs" / "more.md").write_text("[part](../part/README.md)\n")
    (repository / "part" / "README.md").write_text("[rules](rules.md) [gone](gone.md)\n")
    (repository / "part" / "rules.md").write_text("[back](README.md)\n")
    assert gather(repository, tmp_path / "site") == [
        "part/README.md links to gone.md, which is no file of the repository."
    ]
    assert gathered(tmp_path / "site") >= {"docs/more.md", "part/README.md", "part/rules.md"}


def test_a_link_to_a_file_that_is_not_there_is_named(repository: Path, tmp_path: Path) -> None:
    (repository / "src" / "rows.py").unlink()
    assert gather(repository, tmp_path / "site") == [
        "docs/files.md links to ../src/rows.py, which is no file of the repository."
    ]


def test_a_link_out_of_the_repository_or_to_a_directory_is_named(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "outside.txt").touch()
    (repository / "docs" / "more.md").write_text("[a](../../outside.txt) [b](../src)\n")
    assert [each.split(",")[0] for each in gather(repository, tmp_path / "site")] == [
        "docs/more.md links to ../../outside.txt",
        "docs/more.md links to ../src",
    ]


def test_what_was_gathered_before_is_gone(repository: Path, tmp_path: Path) -> None:
    gather(repository, tmp_path / "site")
    (repository / "docs" / "files.md").write_text("")
    gather(repository, tmp_path / "site")
    assert gathered(tmp_path / "site") == {"README.md", "docs/files.md", "bench/chart.svg"}


def test_links_are_found_with_titles_and_without_anchors() -> None:
    assert list(links('[a](b.md "title") [c](#here) [d](mailto:e@f) [g](h.md#i)')) == ["b.md", "h.md"]


def test_every_page_is_in_the_navigation() -> None:
    text = (REPOSITORY / "zensical.toml").read_text()
    named = set(_names(tomllib.loads(text)["project"]["nav"]))
    pages = {
        *REPOSITORY.glob("*.md"),
        *(REPOSITORY / "docs").rglob("*.md"),
        *(REPOSITORY / "lambda_esm").rglob("*.md"),
    }
    assert named == {page.relative_to(REPOSITORY).as_posix() for page in pages}, "see nav in zensical.toml"


def _names(part: object) -> list[str]:
    if isinstance(part, str):
        return [part]
    values = part if isinstance(part, list) else part.values()  # type: ignore[attr-defined]
    return [name for each in values for name in _names(each)]
