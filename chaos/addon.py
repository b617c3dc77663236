"""The addon of mitmproxy that breaks requests on their way to MiniStack; ``chaos.proxy`` starts it.

Every fault is a line of JSON in the log: ``{"time", "kind", "operation", "number", "seconds", "status"}``, the status
being MiniStack's answer where the request reached it. The rates are in a file that is read again when it changes.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from mitmproxy import http

from chaos.wire import BEFORE_EFFECT, CALM, Rates, WireFault, decide, operation

_FAULT = "chaos"  # in a flow's metadata
_JSON = {"content-type": "application/x-amz-json-1.1"}


class BreakerAddon:
    """Decides about each request, does what was decided, and writes it down."""

    def __init__(self, seed: int, control: Path, log: Path) -> None:
        self._seed = seed
        self._control = control
        self._log = log.open("a", buffering=1, encoding="utf-8")
        self._number = 0
        self._rates, self._read_at = CALM, 0

    async def request(self, flow: http.HTTPFlow) -> None:
        """Called by mitmproxy before a request goes on to MiniStack."""
        self._number += 1
        fault = decide(self._seed, self._number, self._current_rates())
        if fault is None:
            return
        flow.metadata[_FAULT] = fault, self._number
        match fault.kind:
            case "delayed":
                await asyncio.sleep(fault.seconds)
            case "refused":
                flow.kill()
            case "unavailable":
                flow.response = http.Response.make(503, b"{}", _JSON)
        if fault.kind in BEFORE_EFFECT:
            self._note(flow, fault, None)

    async def response(self, flow: http.HTTPFlow) -> None:
        """Called by mitmproxy before an answer goes on to the function."""
        fault, _ = flow.metadata.get(_FAULT, (None, 0))
        if fault is None or fault.kind in BEFORE_EFFECT or flow.response is None:
            return
        status = flow.response.status_code
        self._note(flow, fault, status)
        match fault.kind:
            case "dropped":
                flow.kill()
            case "failed":
                body = b'{"__type": "InternalServerError", "message": "chaos: the answer is lost"}'
                flow.response = http.Response.make(500, body, _JSON)
            case "late":
                await asyncio.sleep(fault.seconds)

    def done(self) -> None:
        """Called by mitmproxy at its end."""
        self._write({"time": time.time(), "kind": "end", "requests": self._number})

    def _current_rates(self) -> Rates:
        changed_at = os.stat(self._control).st_mtime_ns  # noqa: PTH116 - for every request: half as costly
        if changed_at != self._read_at:
            self._rates, self._read_at = Rates.from_json(self._control.read_text()), changed_at
        return self._rates

    def _note(self, flow: http.HTTPFlow, fault: WireFault, status: int | None) -> None:
        self._write(
            {
                "time": time.time(),
                "kind": fault.kind,
                "operation": operation(flow.request.method, flow.request.headers),
                "number": flow.metadata[_FAULT][1],
                "seconds": fault.seconds,
                "status": status,
            }
        )

    def _write(self, entry: dict[str, Any]) -> None:
        self._log.write(json.dumps(entry) + "\n")


def load_from_environment() -> BreakerAddon:
    """The addon as ``chaos.proxy`` wants it."""
    wanted = json.loads(os.environ["ONCESTREAM_CHAOS"])
    return BreakerAddon(wanted["seed"], Path(wanted["control"]), Path(wanted["log"]))
