"""A network: AWS behind sockets on loopback. A request that arrives is held until somebody says what becomes of it.

Who says so is whoever has made the request, in the invocation's own thread. So sockets, connections that are kept,
timeouts and threads of the real clients are part of a history, and its order is still its own, however fast each of
them is.
"""

from __future__ import annotations

import selectors
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any, Protocol

from botocore.awsrequest import AWSPreparedRequest, AWSResponse, HeadersDict

LOOPBACK = "127.0.0.1"
_LOOK_SECONDS = 0.001
_HANG_UP_SECONDS = 5.0
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close() sends RST


class Pending(Protocol):
    """A request under way."""

    def done(self) -> bool: ...

    def result(self) -> Any: ...


class Held:
    """A request that has arrived. Nothing has happened yet."""

    def __init__(
        self, connection: _Connection, method: str, target: str, headers: dict[str, str], body: bytes
    ):
        self._connection = connection
        self.request: Any = AWSPreparedRequest(
            method, f"http://{LOOPBACK}{target}", HeadersDict(headers), body, stream_output=False
        )

    def answer(self, answer: AWSResponse, *, cut: bool = False) -> None:
        """Send the answer. ``cut``: without its end, and then the connection is closed."""
        body = b"" if self.request.method == "HEAD" else answer.content
        headers = {"content-length": str(len(body))} | dict(answer.headers)
        head = [f"HTTP/1.1 {answer.status_code} -", *(f"{name}: {value}" for name, value in headers.items())]
        message = "\r\n".join([*head, "", ""]).encode("latin-1") + body
        # A client that has given up is not there to hear it.
        with suppress(OSError):
            self._connection.socket.sendall(message[:-3] if cut else message)
        self._connection.idle = True
        if cut:
            self._connection.close()

    def reset(self) -> None:
        """Break the connection."""
        with suppress(OSError):
            self._connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._connection.close()


class _Connection:
    """A client's connection to a door."""

    def __init__(self, door: Door, accepted: socket.socket) -> None:
        self.door = door
        self.socket = accepted
        self.ended = threading.Event()
        self.idle = True
        """No request on it waits for its answer."""
        self._received = b""
        accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def read(self) -> bool:
        """What has come. False: the client has hung up."""
        try:
            data = self.socket.recv(1 << 16)
        except OSError:
            return False
        self._received += data
        while (held := self._request()) is not None:
            self.door.has_arrived(held)
        return bool(data)

    def _request(self) -> Held | None:
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers.get("content-length", 0))
        if len(rest) < length:
            return None
        self._received = rest[length:]
        self.idle = False
        method, target, _ = first.split(" ")
        return Held(self, method, target, headers, rest[:length])

    def close(self) -> None:
        """Hang up."""
        self.door.network.do(lambda: self.door.forget(self))


class Door:
    """An address of its own, for one execution environment at a time."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.clients_watch = False
        """Whether the clients close their end as soon as we close ours (awscrt). Others look when they need it."""
        # It keeps the port while nobody listens there.
        self._holder = self._bind(0)
        self._port: int = self._holder.getsockname()[1]
        self.url = f"http://{LOOPBACK}:{self._port}"
        self._listening: socket.socket | None = None
        self._connections: set[_Connection] = set()
        self._arrived: deque[Held] = deque()
        self._something = threading.Condition()
        network.do(self._listen)

    def ask[P: Pending](self, send: Callable[[], P]) -> tuple[P, Held | None]:
        """Send a request and wait until it has arrived, or has failed on its way: then there is nothing to hold."""
        pending = send()
        with self._something:
            while not self._arrived and not pending.done():
                self._something.wait(_LOOK_SECONDS)
            return pending, self._arrived.popleft() if self._arrived else None

    def has_arrived(self, held: Held) -> None:
        """Called by the network."""
        with self._something:
            self._arrived.append(held)
            self._something.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Whoever wants to connect is refused, and no connection is left for another request."""
        self.network.do(self._close)
        self.hang_up(idle=True)
        try:
            yield
        finally:
            self.network.do(self._listen)

    def close(self) -> None:
        """End all connections and give the port back."""
        self.network.do(self._close)
        self.hang_up()
        self._holder.close()

    def hang_up(self, *, idle: bool = False) -> None:
        """End all connections, or those that are idle. The clients know it then, or will when they look."""
        connections = [each for each in self._connections if each.idle or not idle]
        for each in connections:
            with suppress(OSError):
                each.socket.shutdown(socket.SHUT_WR)
        for each in connections:
            if self.clients_watch:
                each.ended.wait(_HANG_UP_SECONDS)
            each.close()
        if not idle:
            self._arrived.clear()

    def forget(self, connection: _Connection) -> None:
        """Called by the network: the connection has ended."""
        if connection in self._connections:
            self._connections.discard(connection)
            self.network.unwatch(connection.socket)
            connection.socket.close()
        connection.ended.set()

    def _accept(self) -> None:
        assert self._listening
        accepted, _ = self._listening.accept()
        connection = _Connection(self, accepted)
        self._connections.add(connection)

        def read() -> None:
            if not connection.read():
                self.forget(connection)

        self.network.watch(accepted, read)

    def _listen(self) -> None:
        self._listening = self._bind(self._port)
        self._listening.listen()
        self.network.watch(self._listening, self._accept)

    def _close(self) -> None:
        assert self._listening
        self.network.unwatch(self._listening)
        self._listening.close()

    @staticmethod
    def _bind(port: int) -> socket.socket:
        bound = socket.socket()
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind((LOOPBACK, port))
        return bound


class Network:
    """Listens at all doors, in one thread."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._tasks: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._woken, self._wake = socket.socketpair()
        self.watch(self._woken, self._work)
        self._open = True
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def do(self, task: Callable[[], None]) -> None:
        """Do something in the network's thread. Returns when it is done."""
        if threading.current_thread() is self._thread:
            task()
            return
        done = threading.Event()

        def tell() -> None:
            task()
            done.set()

        self._tasks.put(tell)
        self._wake.send(b"x")
        while not done.wait(1.0):
            assert self._thread.is_alive(), "the network has ended with an error"

    def watch(self, watched: socket.socket, react: Callable[[], None]) -> None:
        """Call ``react`` when there is something to read."""
        self._selector.register(watched, selectors.EVENT_READ, react)

    def unwatch(self, watched: socket.socket) -> None:
        """Leave it alone from now on."""
        self._selector.unregister(watched)

    def close(self) -> None:
        """End the thread. The doors are closed by then."""

        def end() -> None:
            self._open = False

        self.do(end)
        self._thread.join()
        self._selector.close()
        self._woken.close()
        self._wake.close()

    def _run(self) -> None:
        while self._open:
            for key, _ in self._selector.select():
                # One that was closed by a reaction before it has no number any more.
                if key.fileobj.fileno() >= 0 and key.fileobj in self._selector.get_map():  # type: ignore[union-attr]
                    key.data()

    def _work(self) -> None:
        self._woken.recv(1)
        self._tasks.get()()
