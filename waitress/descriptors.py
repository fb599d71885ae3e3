"""How many connections the system has descriptors for.

Row 1: imports ``pollers``.
"""

from __future__ import annotations

import os
import select
import sys

from waitress.pollers import descriptor_limit

try:
    import resource
except ImportError:  # Windows has no such limits.
    resource = None  # type: ignore[assignment]

__all__ = ["derived_connection_limit", "descriptors_for_connections", "open_descriptors"]

#: What the poller watches beside client connections: listeners, triggers, an
#: application's own. Only where it has a limit.
RESERVED_DESCRIPTORS = 16


def derived_connection_limit(highest: int) -> int:
    """Return the connection limit that nobody set: what the system has room for."""
    limits = [highest, descriptors_for_connections()]
    watchable = descriptor_limit(select)
    if watchable is not None:
        limits.append(watchable - RESERVED_DESCRIPTORS)
    return max(min(limits), 1)


def descriptors_for_connections() -> int:
    """Return how many descriptors more connections may have, so that others have some."""
    if resource is not None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if soft != resource.RLIM_INFINITY:
            return int(soft - open_descriptors()) * 3 // 4
    return sys.maxsize


def open_descriptors() -> int:
    """Return how many this process has open; 0 where the system does not list them."""
    try:
        return len(os.listdir("/dev/fd"))
    except OSError:
        return 0
