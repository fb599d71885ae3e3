"""Slowness on purpose: of an application that takes its time, of a client that reads slowly.

Not for waiting until something has happened: for that there are events, conditions, and
processes that say when they are ready. That no test sleeps is tested.
"""

from __future__ import annotations

import threading


def be_slow(seconds: float) -> None:
    """Take so long, as what is imitated would; nothing that follows depends on it."""
    threading.Event().wait(seconds)
