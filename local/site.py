"""Gathers the sources of the documents' site (make docs), laid out as the repository is, so that no link changes.

``python -m local.site``: the Markdown pages of the repository's root, of ``docs/`` and of ``lambda_esm/``, and every
file of the repository that they or pages linked from them link to. Zensical checks links to pages and their anchors;
links to anything else are checked here.
"""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from local.machine import REPOSITORY

DIRECTORY = REPOSITORY / ".local" / "docs"


def gather(repository: Path, directory: Path) -> list[str]:
    """Copy the pages and what they link to from ``repository`` into ``directory``, which is made anew.

    Returns
    -------
    list of str
        What is wrong with links, one sentence each.
    """
    shutil.rmtree(directory, ignore_errors=True)
    folders = ("docs", "lambda_esm")
    pages = [
        *repository.glob("*.md"),
        *(page for folder in folders for page in (repository / folder).rglob("*.md")),
    ]
    wrong = []
    for page in pages:  # grows: a page that is linked to is one more
        _copy(page, repository, directory)
        for target in links(page.read_text()):
            path = (page.parent / target).resolve()
            if path in pages:
                continue
            if repository in path.parents and path.is_file():
                if path.suffix == ".md":
                    pages.append(path)
                else:
                    _copy(path, repository, directory)
            else:
                wrong.append(
                    f"{page.relative_to(repository)} links to {target}, which is no file of the repository."
                )
    return wrong


def links(markdown: str) -> Iterator[str]:
    """The files that a page links to or shows, without anchors; neither other sites nor examples in code."""
    prose = re.sub(r"^(```|~~~).*?^\1", "", markdown, flags=re.DOTALL | re.MULTILINE)
    prose = re.sub(r"`[^`\n]*`", "", prose)
    for target in re.findall(r"\]\(([^)\s]+)[^)]*\)", prose):
        path = target.partition("#")[0]
        if path and not re.match(r"[a-z]+:", path):
            yield path


def _copy(path: Path, repository: Path, directory: Path) -> None:
    copy = directory / path.relative_to(repository)
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, copy)


if __name__ == "__main__":
    sys.exit("\n".join(gather(REPOSITORY, DIRECTORY)) or 0)
