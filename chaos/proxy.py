"""mitmproxy between the functions and MiniStack, in an environment of its own (``.local/tools/mitmproxy``)."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any, Self

from chaos.wire import CALM, Rates
from local.machine import LOOPBACK, REPOSITORY, clean_environment, failure, free_port, require_tool
from local.process import Child

SCRIPT = Path(__file__).with_name("addon_script.py")


class Proxy:
    """A reverse proxy in front of MiniStack that breaks requests by the rates that it was last given.

    Parameters
    ----------
    directory
        Holds its log, what it did (``wire.ndjson``) and its certificates, which nobody uses.
    port
        MiniStack's, on the loopback address.
    seed
        Of the decisions about requests.
    """

    def __init__(self, directory: Path, port: int, seed: int) -> None:
        self.directory = directory
        self.log = directory / "mitmproxy.log"
        self.done = directory / "wire.ndjson"
        self._upstream = port
        self._seed = seed
        self._control = directory / "rates.json"
        self._port: int | None = None
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        """The URL under which functions reach MiniStack through it."""
        return f"http://{LOOPBACK}:{self._port}"

    @property
    def is_running(self) -> bool:
        """Whether its process runs."""
        return self._child is not None and self._child.is_running

    def set_rates(self, rates: Rates) -> None:
        """Break requests by these rates from now on."""
        new = self._control.with_suffix(".new")
        new.write_text(rates.to_json())
        new.replace(self._control)

    def entries(self) -> list[dict[str, Any]]:
        """What it did so far: the lines of ``wire.ndjson`` (see ``chaos.addon``)."""
        if not self.done.exists():
            return []
        # The last line may be half written.
        whole = self.done.read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def __enter__(self) -> Self:
        program = require_tool("mitmproxy", "mitmdump")
        self.directory.mkdir(parents=True, exist_ok=True)
        self.done.unlink(missing_ok=True)
        self.set_rates(CALM)
        self._port = free_port()
        wanted = {"seed": self._seed, "control": str(self._control), "log": str(self.done)}
        options = {
            "confdir": str(self.directory / "certificates"),
            "connection_strategy": "lazy",
            "termlog_verbosity": "warn",
            "flow_detail": "0",
        }
        self._child = Child(
            [
                program,
                *("--mode", f"reverse:http://{LOOPBACK}:{self._upstream}"),
                *("--listen-host", LOOPBACK, "--listen-port", str(self._port)),
                *(word for name, value in options.items() for word in ("--set", f"{name}={value}")),
                *("--scripts", str(SCRIPT)),
            ],
            log=self.log,
            environment=clean_environment(
                self.directory, PYTHONPATH=str(REPOSITORY), ONCESTREAM_CHAOS=json.dumps(wanted)
            ),
            directory=self.directory,
        )
        if not self._child.gets_ready(self._listens):
            self.stop()
            raise failure(f"mitmproxy did not get ready on {self.endpoint}.", self.log)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it."""
        if self._child is not None:
            self._child.stop()
            self._child = None

    def require_running(self) -> None:
        """Raise :class:`StackError` if it ended by itself: its faults would be everybody's."""
        if not self.is_running:
            raise failure("mitmproxy ended by itself.", self.log)

    def _listens(self) -> bool:
        try:
            socket.create_connection((LOOPBACK, self._port), timeout=1).close()
        except OSError:
            return False
        return True
