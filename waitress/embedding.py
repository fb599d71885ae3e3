"""A server as a part of another program: of a test, of a desktop program.

Owns the thread that a server runs in as a context manager, and what a program asks of a
server that runs elsewhere: where it is, whether it is ready, and that it may end.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import logging
import threading
from functools import cached_property
from types import TracebackType
from typing import Any

__all__ = ["Embeddable"]

logger = logging.getLogger("waitress.server")

#: Hosts that stand for every address of the machine, and how to reach one of them.
_REACHABLE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class Embeddable:
    """What a server of one or of several addresses has for the program that it is in.

    As a context manager it serves, in a thread of its own, as long as the block lasts::

        with create_server(app, port=0) as server:
            urllib.request.urlopen(server.url)

    Threads: any but the loop's.
    """

    #: :class:`waitress.shutdown.Shutdown`
    lifecycle: Any
    _background: _Background | None = None

    @property
    def is_draining(self) -> bool:
        """Whether the server is about to end, or has; whoever has a choice goes elsewhere."""
        return bool(self.lifecycle.phase.name != "SERVING")

    @property
    def exit_status(self) -> int:
        """What the process should exit with, which is 3 when requests were cut, else 0."""
        return int(self.lifecycle.exit_status)

    def shutdown(self, timeout: float | None = None) -> None:
        """Have the server end, and return at once; ``run()`` returns when it has.

        What was received is answered, then connections are closed, the workers stop, and
        a unix socket's file is removed. A further call can bring the end forward.

        Args:
            timeout: seconds after which what has not come to its end is cut; 0 cuts at
                once. The setting ``graceful_timeout`` by default.

        Threads: any, and handlers of signals.
        """
        self.lifecycle.order(timeout)

    # Not a property: programs have subclasses that assign an attribute of this name.
    @cached_property
    def url(self) -> str:
        """The URL of the (first) address, without a slash, as ``http://127.0.0.1:8080``.

        A host that stands for all addresses is replaced by the local one. A unix socket
        has a URL in the form that HTTP clients have agreed on: ``http+unix://%2Fpath``.
        """
        listener = self.lifecycle.listeners[0]
        host, port = listener.effective_host, listener.effective_port
        if host == "unix":
            from urllib.parse import quote

            return f"http+unix://{quote(str(port), safe='')}"
        host = _REACHABLE.get(host, host)
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def wait_ready(self, timeout: float | None = None) -> bool:
        """Wait until the loop runs; say whether it does.

        Connections are accepted by the system as soon as the server was created; from
        here on they are answered, too.

        Args:
            timeout: the longest wait in seconds; ``None`` for no limit.

        Raises:
            BaseException: what has ended the thread of the context manager.
        """
        ready = threading.Event()
        self.lifecycle.listeners[0].trigger.pull_trigger(ready.set)
        if self._background is None:
            return ready.wait(timeout)
        return self._background.wait(ready, timeout)

    def __enter__(self) -> Any:
        """Run in a thread, and return the server when it is ready.

        Raises:
            RuntimeError: the server has ended before.
            BaseException: what has ended the thread.
        """
        self._background = _Background(self)
        self._background.start()
        try:
            if not self.wait_ready():
                raise RuntimeError("the server has ended; create another one")
        except BaseException:
            self._end_background()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        frames: TracebackType | None,
    ) -> None:
        """Drain, and wait for the end.

        Raises:
            BaseException: what has ended the thread, unless the block itself raised.
        """
        own = self._end_background()
        if own is None:
            return
        if error is None:
            raise own
        logger.error("Exception in the server's thread", exc_info=own)

    def _end_background(self) -> BaseException | None:
        """Drain, and wait for the thread's end; return what has ended it, if it did."""
        background, self._background = self._background, None
        assert background is not None
        self.lifecycle.order()
        background.join()
        self.lifecycle.end_by_hand(self._end_at_once)
        return background.error

    def _end_at_once(self) -> None:
        """Close everything, where there is no loop any more."""
        raise NotImplementedError


class _Background(threading.Thread):
    """The thread of a loop; what is raised in it is kept for whoever waits for it."""

    def __init__(self, server: Any) -> None:
        super().__init__(name="waitress-server", daemon=True)
        self.server = server
        self.error: BaseException | None = None
        self.has_ended = False
        self._waiting: list[threading.Event] = []

    def run(self) -> None:
        try:
            self.server.run()
        except BaseException as error:  # noqa: BLE001 - raised where it is waited for
            self.error = error
        self.has_ended = True
        for event in tuple(self._waiting):
            event.set()

    def wait(self, ready: threading.Event, timeout: float | None) -> bool:
        """Wait for the loop to be ready or to end."""
        self._waiting.append(ready)
        if self.has_ended:
            ready.set()
        is_set = ready.wait(timeout)
        self._waiting.remove(ready)
        if self.error is not None:
            raise self.error
        return is_set and not self.has_ended
