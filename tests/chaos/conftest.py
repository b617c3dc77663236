"""Headless Chromium, for the page of `make chaos`. Where there is none, the tests that need it are skipped."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS = 120


@pytest.fixture(scope="session")
def browse() -> Callable[[Path], str]:
    """Opens a page and gives what it has become (the DOM, as HTML) once its scripts have run."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium ({', '.join(NAMES)}): on Debian, `apt-get install chromium`")

    def open_page(path: Path) -> str:
        with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
            done = subprocess.run(
                [
                    program,
                    *("--headless", "--disable-gpu", "--disable-dev-shm-usage"),
                    "--no-sandbox",  # as root, Chromium does not start with it; the page is our own
                    f"--user-data-dir={profile}",
                    "--virtual-time-budget=10000",
                    "--dump-dom",
                    path.resolve().as_uri(),
                ],
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return open_page
