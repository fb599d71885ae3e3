"""The loop of a server, of one listener or of several: begun, and left.

Row 8: imports ``audience``, ``channel``, ``embedding`` and ``wasyncore``.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping
from typing import Any

from waitress import wasyncore
from waitress.audience import Watched
from waitress.channel import HTTPChannel
from waitress.embedding import Embeddable

__all__ = ["Running", "close_channels"]


class Running(Watched, Embeddable):
    """What a server of one listener and one of several have in common: it runs a loop.

    Threads: loop, but for ``is_live`` (any).
    """

    asyncore = wasyncore
    adj: Any
    task_dispatcher: Any
    #: Finds requests that run for too long; ``None`` where nobody wants them found.
    stuck: Any = None

    def run(self) -> None:
        """Serve until the map is empty, or until Ctrl-C or ``SystemExit``, then close.

        Raises:
            RuntimeError: the process is a fork of the one that made the server.
        """
        _refuse_fork(self.task_dispatcher)
        if self.audience is not None:
            self.audience.log_events_if_wanted()
        self.lifecycle.run(self._loop, self._end_at_once)

    @property
    def _socket_map(self) -> MutableMapping[int, Any] | None:
        """What the loop runs on, under the name that each of them has for it."""
        raise NotImplementedError

    def _loop(self) -> None:
        self.asyncore.loop(
            timeout=self.adj.asyncore_loop_timeout,
            map=self._socket_map,
            use_poll=self.adj.asyncore_use_poll,
        )

    def is_live(self) -> bool:
        """Say whether the server can be expected to serve.

        False when so many requests are stuck that no thread can be added for another.
        """
        return self.stuck is None or self.stuck.is_live()


def _refuse_fork(dispatcher: Any) -> None:
    """Raise where the threads of a dispatcher stayed behind in another process.

    Requests would be accepted, and never answered. A stand-in's threads are its own affair.
    """
    made_in = getattr(dispatcher, "process_id", None)
    if made_in is not None and made_in != os.getpid():
        raise RuntimeError(
            f"the server was made in another process ({made_in}), whose threads no fork takes "
            "along: fork first, then make the server"
        )


def close_channels(map: MutableMapping[int, Any] | None) -> None:
    """Close the connections of a loop that has ended.

    Nobody sends for them any more; a worker that waits for its reader would wait in vain.
    """
    for obj in list((map or {}).values()):
        if isinstance(obj, HTTPChannel):
            obj.close()
