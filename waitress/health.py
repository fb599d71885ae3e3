"""Whether a server lives, and whether it is ready for more.

Owns the two questions and their answers at ``/livez`` and ``/readyz``, on the status
listener and, where ``health_prefix`` is set, on the server's own addresses.

Row 4: imports answers and stats.
"""

from __future__ import annotations

from typing import Any

from waitress.answers import Answer, text_answer
from waitress.stats import Monitor

__all__ = ["LONGEST_READY_WAIT", "Health"]

#: A server whose first queued request has waited longer than this is not ready, seconds.
LONGEST_READY_WAIT = 10.0


class Health:
    """The health of one server.

    Threads: loop. Only flags and the front of the queue are looked at, so that it can be
    asked often.
    """

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor

    def failures(self) -> list[str]:
        """Return why the server should be restarted; empty while it lives.

        That the loop answers at all is most of the proof. The rest is whether there are
        workers left.
        """
        is_live = getattr(self._monitor.listener, "is_live", None)
        if is_live is not None and not is_live():
            return ["all workers are stuck, and no more may be added"]
        return []

    def obstacles(self) -> list[str]:
        """Return why no more requests should be sent here; empty when it is ready."""
        found = self.failures()
        if getattr(self._monitor.listener, "is_draining", False):
            found.append("the server is about to stop")
        waited = self._monitor.queue_wait()
        if waited > LONGEST_READY_WAIT:
            found.append(f"requests wait for a worker, the first one for {waited:.1f} s")
        return found

    def livez(self, _request: Any = None) -> Answer:
        """Answer ``/livez``."""
        return _told(self.failures())

    def readyz(self, _request: Any = None) -> Answer:
        """Answer ``/readyz``."""
        return _told(self.obstacles())


def _told(problems: list[str]) -> Answer:
    if problems:
        return text_answer("503 Service Unavailable", "".join(f"{line}\n" for line in problems))
    return text_answer("200 OK", "ok\n")
