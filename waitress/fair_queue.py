"""A queue of tasks in which the peers that have some take turns.

Owns the order in which queued tasks are taken: one of each peer, round and round, and of
one peer the oldest. As a deque it shows them in the order of their arrival, the oldest
first, as those expect who look at a dispatcher's queue from outside.

Row 1: imports peers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from waitress.peers import client_group

__all__ = ["FairQueue"]


class FairQueue(deque[Any]):
    """The task queue of a dispatcher that serves peers in turn.

    ``append``, ``popleft``, ``pop``, ``remove`` and ``clear`` know of the turns. What is put in or
    taken out by any other method is served too, or not, but in no particular order.

    Taking a task costs a search from the oldest to it, a comparison for each that arrived
    before: some microseconds where hundreds wait.

    Threads: as the deque in whose place it stands, under its owner's lock.
    """

    def __init__(self, tasks: Iterable[Any] = ()) -> None:
        super().__init__()
        #: The tasks of each peer that has some; the first peer is the next.
        self._lines: dict[str, deque[Any]] = {}
        for task in tasks:
            self.append(task)

    def append(self, task: Any) -> None:
        """Let a task stand behind those of its peer."""
        super().append(task)
        peer = _peer_of(task)
        line = self._lines.get(peer)
        if line is None:
            self._lines[peer] = deque((task,))
        else:
            line.append(task)

    def popleft(self) -> Any:
        """Take the oldest task of the peer whose turn it is."""
        task = self._take(deque.popleft)
        return super().popleft() if task is None else task

    def pop(self) -> Any:  # type: ignore[override]
        """Take the newest task of the peer whose turn it is."""
        task = self._take(deque.pop)
        return super().pop() if task is None else task

    def _take(self, end: Callable[[deque[Any]], Any]) -> Any | None:
        """Take a task from one end of the line whose turn it is; ``None`` for no line."""
        while self._lines:
            peer, line = next(iter(self._lines.items()))
            task = end(line)
            del self._lines[peer]
            if line:
                self._lines[peer] = line  # Behind the others.
            try:
                super().remove(task)
            except ValueError:  # Somebody took it by another way.
                continue
            return task
        return None

    def remove(self, task: Any) -> None:
        """Take a task out; its peer's turn stays where it is.

        Raises:
            ValueError: it is not there.
        """
        super().remove(task)
        for peer, line in self._lines.items():
            if task in line:
                line.remove(task)
                if not line:
                    del self._lines[peer]
                return

    def clear(self) -> None:
        """Take everything out."""
        super().clear()
        self._lines.clear()


def _peer_of(task: Any) -> str:
    """Return what is the same for all tasks of a client; those of nobody are one's, too."""
    address = getattr(task, "addr", None)
    if not address:
        return ""
    host = str(address[0])
    return client_group(host) or host
