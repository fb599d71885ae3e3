"""Tells systemd how the server is: ready, stopping, alive.

The protocol is that of sd_notify(3): one datagram of lines ``NAME=value`` to the socket
that ``NOTIFY_SOCKET`` names. Outside of systemd there is none, and nothing is sent.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from math import inf
from typing import Any, ClassVar

__all__ = ["Notifier", "notifier_from", "notify", "reloading"]

#: How many times the watchdog is told within its interval that all is well.
WATCHDOG_PARTS = 2

logger = logging.getLogger("waitress.server")


def notify(address: str, message: str, warns: bool = True) -> bool:
    """Send one message; say whether it was sent.

    Args:
        address: the path of the socket; one that begins with ``@`` is abstract.
        message: lines ``NAME=value``.
        warns: log it where the message cannot be sent.
    """
    if not hasattr(socket, "AF_UNIX"):
        return False
    path = "\0" + address[1:] if address.startswith("@") else address
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            # Nobody is told at the price of those who are served.
            sock.setblocking(False)
            sock.sendto(message.encode("utf-8"), path)
    except OSError as error:
        if warns:
            logger.warning("cannot notify systemd at %s: %s", address, error.strerror or error)
        return False
    return True


class Notifier:
    """Tells systemd of one server, from its loop.

    READY in the loop's first pass; while it turns, the watchdog's sign of life; STOPPING
    when the end begins.

    Threads: loop, but for :meth:`start`.
    """

    #: See :mod:`waitress.eventloop` and :mod:`waitress.deadlines`.
    deadline = inf
    deadline_bucket: int | None = None
    touched = False
    #: Who has told that the server serves, and has not told its end.
    serving: ClassVar[Notifier | None] = None

    def __init__(self, event_loop: Any, address: str, watchdog_seconds: float) -> None:
        """Take what the environment says.

        Args:
            event_loop: the server's.
            address: the path of systemd's socket.
            watchdog_seconds: after so long without a sign of life systemd ends the
                process; ``inf`` for never.
        """
        self.event_loop = event_loop
        self.address = address
        self.watchdog_seconds = watchdog_seconds
        #: Whether the last message arrived, or nobody has tried yet.
        self._is_heard = True

    def start(self) -> None:
        """Begin when the loop does."""
        self.event_loop.touch_threadsafe(self)

    def handle_ready(self) -> None:
        """Tell that the server serves."""
        # First: a reload that comes at once is told, or systemd would wait for it.
        Notifier.serving = self
        notify(self.address, f"READY=1\nMAINPID={os.getpid()}\nSTATUS=serving")
        self._arm()

    def handle_deadline(self, now: float) -> None:
        """Show that the loop turns."""
        # Nobody wants to read every few seconds that it still fails.
        self._is_heard = notify(self.address, "WATCHDOG=1", warns=self._is_heard)
        self._arm()

    def handle_error(self) -> None:
        """Log what went wrong."""
        logger.exception("Exception while notifying systemd")  # noqa: LOG004 - while handling it

    def phase_changed(self, phase: Any) -> None:
        """Tell of a phase of :class:`waitress.shutdown.Shutdown`."""
        Notifier.serving = None
        notify(self.address, f"STOPPING=1\nSTATUS={phase.value}")
        if phase.name == "DONE":
            self.event_loop.deadlines.forget(self)

    def _arm(self) -> None:
        due = self.event_loop.clock() + self.watchdog_seconds / WATCHDOG_PARTS
        self.event_loop.deadlines.arm(self, due)


@contextmanager
def reloading() -> Iterator[None]:
    """Tell systemd that the server reloads, and then that it has: ``Type=notify-reload``.

    For a signal's handler. Nothing is told before the server serves, or in its end: READY
    would be untrue then.
    """
    notifier = Notifier.serving
    if notifier is None:
        yield
        return
    # As clock_gettime(CLOCK_MONOTONIC) tells it, by which systemd knows which reload it is.
    now = time.monotonic_ns() // 1000
    notify(notifier.address, f"RELOADING=1\nMONOTONIC_USEC={now}")
    try:
        yield
    finally:
        notify(notifier.address, "READY=1\nSTATUS=serving")


def notifier_from(environ: Mapping[str, str], event_loop: Any) -> Notifier | None:
    """Return who tells systemd, if the environment says that systemd wants to know."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return None
    return Notifier(event_loop, address, _watchdog_seconds(environ))


def _watchdog_seconds(environ: Mapping[str, str]) -> float:
    """Return the watchdog's interval; ``inf`` where it watches nobody, or somebody else."""
    if environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return inf
    interval = environ.get("WATCHDOG_USEC", "")
    if not (interval.isascii() and interval.isdigit()) or int(interval) == 0:
        return inf
    return int(interval) / 1_000_000
