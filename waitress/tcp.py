"""What the kernel can tell about, and do for, a connection: asked carefully.

Every function answers also for sockets that are no TCP sockets, for stand-ins whose
number is no open descriptor, and on systems that do not know the question.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import struct
import sys
from array import array
from typing import Any

try:
    import fcntl
    import termios
except ImportError:  # Windows has neither.
    _unsent_request: int | None = None
    _unread_request: int | None = None
else:
    _unsent_request = getattr(termios, "TIOCOUTQ", None)
    _unread_request = getattr(termios, "FIONREAD", None)

__all__ = [
    "hold_newcomers_off",
    "limit_unsent",
    "reset_on_close",
    "resets_on_close",
    "share_port",
    "stop_sending",
    "unacknowledged_bytes",
    "unread_bytes",
]

#: Linux runs such a program over each packet that comes to a socket (socket(7)).
_SO_ATTACH_FILTER = 26
#: The program: of the flags (octet 13 of the TCP header) look at SYN and ACK; SYN alone, which
#: asks for a new connection, is dropped (keep 0 octets), and all else is kept. Each line
#: is code, jump if true, jump if false, and operand.
_DROP_SYN = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),
        (0x54, 0, 0, 0x12),
        (0x15, 0, 1, 0x02),
        (0x06, 0, 0, 0),
        (0x06, 0, 0, 0xFFFFFFFF),
    )
)


#: ``struct linger``: whether it is on, and for how long; Windows has short ones.
_LINGER = struct.Struct("hh" if os.name == "nt" else "ii")
_LINGER_FOR_NO_TIME = _LINGER.pack(1, 0)

#: How many unsent bytes the kernel may hold of a connection that has proved slow. What
#: it holds it cannot give back, and the server cannot tell a reader that progresses from
#: one that does not until it is gone. 128 KiB fill 100 Mbit/s at 10 ms.
UNSENT_LIMIT_BYTES = 128 * 1024


def unacknowledged_bytes(sock: Any) -> int | None:
    """Return how many bytes the peer has not acknowledged; ``None`` when unknown."""
    return _asked(sock, _unsent_request)


def unread_bytes(sock: Any) -> int | None:
    """Return how many bytes of the peer's wait to be read; ``None`` when unknown."""
    return _asked(sock, _unread_request)


def _asked(sock: Any, request: int | None) -> int | None:
    if request is None:
        return None
    try:
        answer = fcntl.ioctl(sock.fileno(), request, b"\0\0\0\0")
    except (OSError, ValueError, TypeError, AttributeError):
        return None
    return int.from_bytes(answer, sys.byteorder)


def limit_unsent(sock: Any) -> None:
    """Have the kernel keep few unsent bytes, so that what it keeps tells of progress."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None:
        with contextlib.suppress(OSError, AttributeError):
            sock.setsockopt(socket.IPPROTO_TCP, option, UNSENT_LIMIT_BYTES)


def hold_newcomers_off(sock: Any) -> bool:
    """Let nobody connect to a listening socket any more; say whether that was possible.

    Whoever connects between the last accept and the close is reset, after having sent a
    request perhaps. Whoever is not answered at all tries again a moment later, and is
    refused, which tells that nothing was sent.
    """
    if sys.platform != "linux" or not isinstance(sock, socket.socket):
        return False
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return False
    program = array("B", _DROP_SYN)
    option = struct.pack("HP", len(program) // 8, program.buffer_info()[0])
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, option)
    except OSError:
        return False
    return True


def is_waited_for(sock: Any) -> bool:
    """Say whether somebody waits to be accepted; nobody, where that cannot be asked."""
    if not (isinstance(sock, socket.socket) and hasattr(select, "poll")):
        return False
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def share_port(sock: Any) -> None:
    """Allow other sockets to be bound to the address of this one, if they allow it too.

    To be called before the socket is bound. Linux and macOS know of it; only sockets of
    the same user may share.

    Raises:
        OSError: the system does not know of it after all.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def stop_sending(sock: Any) -> bool:
    """Tell the peer that nothing more will come (FIN); say whether that was possible."""
    try:
        sock.shutdown(socket.SHUT_WR)
    except (OSError, AttributeError):
        return False
    return True


def reset_on_close(sock: Any) -> None:
    """Make the next ``close()`` of the socket a reset, which no peer takes for an end."""
    with contextlib.suppress(OSError, AttributeError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_FOR_NO_TIME)


def resets_on_close(sock: Any) -> bool:
    """Say whether the next ``close()`` of the socket is a reset; false when unknown."""
    try:
        option = sock.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER.size)
        lingers, seconds = _LINGER.unpack(option)
    except (OSError, AttributeError, TypeError, struct.error):
        return False
    return bool(lingers) and not seconds
