"""Facts about the platform, most of them asked once at import.

Owns the answer to "which system is this, and does it speak IPv6?", and to "does one thread
run at a time?", which may change. Knows nothing of settings or sockets in use.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import platform
import socket
import sys
import warnings

__all__ = ["HAS_IPV6", "IPPROTO_IPV6", "IPV6_V6ONLY", "MAXINT", "WIN", "has_gil"]

#: Whether this is Windows.
WIN: bool = platform.system() == "Windows"

#: The largest size a container, a file position or a buffer can have, in bytes.
MAXINT: int = sys.maxsize

#: Whether IPv6 sockets can be made *and* be kept from serving IPv4 as well, which
#: listening on both families at one port needs.
HAS_IPV6: bool = socket.has_ipv6

# Python on Windows has not always exported these two, though the system has them: their
# numbers are those of its ws2ipdef.h.
_WINDOWS_IPPROTO_IPV6 = 41
_WINDOWS_IPV6_V6ONLY = 27

_protocol: int | None = getattr(socket, "IPPROTO_IPV6", _WINDOWS_IPPROTO_IPV6 if WIN else None)
_v6only: int | None = getattr(socket, "IPV6_V6ONLY", _WINDOWS_IPV6_V6ONLY if WIN else None)

if _protocol is not None and _v6only is not None:
    #: Protocol level of the IPv6 socket options.
    IPPROTO_IPV6: int = _protocol
    #: Socket option that keeps an IPv6 socket from taking IPv4 connections.
    IPV6_V6ONLY: int = _v6only
else:
    # The two names stay undefined: whoever reads them without asking HAS_IPV6 first
    # learns of it here and not from a setsockopt() with a made-up number.
    HAS_IPV6 = False
    warnings.warn(
        "The operating system lacks the required IPv6 flags (IPPROTO_IPV6, IPV6_V6ONLY); "
        "IPv6 support is disabled.",
        RuntimeWarning,
        stacklevel=2,
    )


def has_gil() -> bool:
    """Say whether the interpreter runs one thread at a time.

    That may be switched on later, by an extension module, but never off.
    """
    is_enabled = getattr(sys, "_is_gil_enabled", None)
    return is_enabled is None or bool(is_enabled())
