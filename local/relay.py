"""Lets containers reach servers that listen on this machine's loopback address only.

Postgres and MiniStack listen on 127.0.0.1, so that no other machine reaches them. A container is another machine in
that sense: it reaches the host by the address of Docker's bridge. A relay listens there, on the same port numbers, and
passes every connection on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Sequence
from functools import partial
from typing import Self

from local.errors import StackError
from local.machine import LOOPBACK

_BLOCK = 65536


class Relay:
    """Listens on ``address`` while it is open.

    Parameters
    ----------
    address
        An address of this machine.
    ports
        Passed on to the same ports of the loopback address.
    """

    def __init__(self, address: str, ports: Sequence[int]) -> None:
        self._address = address
        self._ports = tuple(ports)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="relay", daemon=True)
        self._servers: list[asyncio.Server] = []

    def __enter__(self) -> Self:
        self._thread.start()
        try:
            for port in self._ports:
                listening = asyncio.start_server(partial(_pass_on, port), self._address, port)
                self._servers.append(asyncio.run_coroutine_threadsafe(listening, self._loop).result())
        except OSError as error:
            self.__exit__()
            raise StackError(
                f"Containers cannot be let in at {self._address}: {error.strerror}. The relay needs Docker on Linux, "
                "whose bridge is an address of this machine."
            ) from error
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        for server in self._servers:
            server.close()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)


async def _pass_on(port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        there_reader, there_writer = await asyncio.open_connection(LOOPBACK, port)
    except OSError:
        writer.close()
        return
    try:
        await asyncio.gather(_copy(reader, there_writer), _copy(there_reader, writer))
    finally:
        there_writer.close()
        writer.close()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # one side has gone: the other hears of it by the end of the stream
        while block := await reader.read(_BLOCK):
            writer.write(block)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.write_eof()
