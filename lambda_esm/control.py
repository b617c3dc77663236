"""What the threads of one poller share: a condition to wait on, the wish to stop, and the first crash."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)


class Control:
    """Starts the threads of a poller and lets others wait for them.

    All state of the poller changes while ``condition`` is held, and is announced on it: a thread that waits
    on it misses nothing and notices a stop at once.
    """

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.stopping = False
        self.crash: BaseException | None = None
        self._threads: set[threading.Thread] = set()

    def spawn(self, name: str, target: Callable[[], None]) -> None:
        """Run ``target`` in a thread. Threads are daemons: a process may end without waiting for a slow
        function."""
        thread = threading.Thread(target=self._run, args=(target,), name=name, daemon=True)
        with self.condition:
            self._threads.add(thread)
        thread.start()

    def stop(self) -> None:
        """Ask all threads to end. What is in flight is brought home first."""
        with self.condition:
            self.stopping = True
            self.condition.notify_all()

    def join(self, timeout: float | None = None) -> bool:
        """Wait until all threads ended; ``False`` if they did not in time."""
        with self.condition:
            return self.condition.wait_for(lambda: not self._threads, timeout)

    def changed(self) -> None:
        """Wake up everyone who waits."""
        with self.condition:
            self.condition.notify_all()

    def _run(self, target: Callable[[], None]) -> None:
        try:
            target()
        except BaseException as crash:
            # Neither permanent nor transient: what the world does is handled where it happens, so this is a
            # defect (of an observer, say). A shard that stands still in silence would be worse than a
            # poller that stops.
            logger.exception("the poller stops: defect in thread %r", threading.current_thread().name)
            with self.condition:
                self.crash = self.crash or crash
                self.stopping = True
        finally:
            with self.condition:
                self._threads.discard(threading.current_thread())
                self.condition.notify_all()
