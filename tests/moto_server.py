"""moto as a server: an endpoint that the stream poller is tested against."""

from __future__ import annotations

import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from local.machine import REPOSITORY, free_port

PROGRAM = REPOSITORY / ".local" / "tools" / "moto" / "bin" / "moto_server"
START_SECONDS = 60


@contextmanager
def moto_server() -> Iterator[str]:
    """Its URL; it ends with the block."""
    port = free_port()
    process = subprocess.Popen(
        [PROGRAM, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        wait_for(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    """Return when something answers at ``url``; an error if the process ends before."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
        except urllib.error.HTTPError:
            return
        except OSError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"nothing answers at {url}: {error}") from error
            time.sleep(0.05)
        else:
            return
