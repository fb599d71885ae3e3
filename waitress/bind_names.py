"""The names of what can be listened to, and the sockets that some of them stand for.

Owns the grammar of an item of ``listen``:

* ``HOST:PORT``, ``HOST``, ``[IPv6]:PORT``, ``*:PORT``: an Internet address;
* ``unix:PATH``: a Unix socket; ``unix:@NAME``: one in Linux' abstract namespace;
* ``fd://3``: the descriptor of a bound socket that this process has inherited;
* ``systemd``, ``systemd:NAME``: all descriptors that a service manager has passed on, or
  those of one name (the environment's ``LISTEN_FDS``, ``LISTEN_FDNAMES``, ``LISTEN_PID``).

Reading a name asks the system for the addresses of a host and for nothing else. Inherited
sockets are looked at, and owned, from :func:`open_inherited` on.

Row 1: imports ``compat``.
"""

from __future__ import annotations

import os
import platform
import socket
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from waitress.compat import WIN

__all__ = [
    "ALLOWED",
    "Inherited",
    "ListenAddress",
    "ServiceNameError",
    "address_text",
    "internet_addresses",
    "open_inherited",
    "resolve",
    "unix_address_text",
]

#: What an item may be, for messages and the manual.
ALLOWED = (
    "HOST:PORT, HOST, [IPv6]:PORT, *:PORT, unix:PATH, unix:@NAME, fd://NUMBER, systemd and "
    "systemd:NAME"
)

#: Family, type, protocol, and what to bind: an address, a path, or an :class:`Inherited`.
ListenAddress = tuple[int, int, int, Any]

#: The first descriptor that a service manager passes on (sd_listen_fds(3)).
FIRST_PASSED_DESCRIPTOR = 3

_UNIX = "unix:"
_DESCRIPTOR = "fd://"
_SYSTEMD = "systemd"


class ServiceNameError(ValueError):
    """A port that is no number, where the system does not look up names of services."""


@dataclass(frozen=True)
class Inherited:
    """Bound sockets that the process was started with, by their name in ``listen``."""

    name: str

    def __str__(self) -> str:
        return self.name

    def descriptors(self, environ: Mapping[str, str]) -> list[int]:
        """Return the numbers that the name stands for.

        Raises:
            ValueError: the environment tells of none.
        """
        if self.name.startswith(_DESCRIPTOR):
            return [int(self.name.removeprefix(_DESCRIPTOR))]
        passed = _passed_names(environ)
        _, colon, wanted = self.name.partition(":")
        found = [number for number, name in passed.items() if not colon or name == wanted]
        if not found:
            there = ", ".join(sorted(set(passed.values()) - {""})) or "none"
            raise ValueError(f"no descriptor has that name (LISTEN_FDNAMES has: {there})")
        return found


def resolve(item: str, default_port: int, family: int, windows: bool = WIN) -> list[ListenAddress]:
    """Return the addresses that an item of ``listen`` names.

    Args:
        item: the name.
        default_port: for a host without a port.
        family: the one that hosts are looked up in, or ``AF_UNSPEC``.
        windows: whether ports are numbers alone.

    Raises:
        ValueError: the name is malformed, or means nothing on this system.
        OSError: the host is not found.
    """
    if item.startswith(_UNIX):
        return [_unix_address(item.removeprefix(_UNIX))]
    if item.startswith(_DESCRIPTOR):
        number = item.removeprefix(_DESCRIPTOR)
        if not (number.isdecimal() and number.isascii()):
            raise ValueError("fd:// and the number of a descriptor, such as fd://3, is meant")
        return [_inherited(item)]
    if item == _SYSTEMD or item.startswith(f"{_SYSTEMD}:"):
        if item.endswith(":"):
            raise ValueError("systemd: and the name of a descriptor, or systemd alone, is meant")
        return [_inherited(item)]
    return list(internet_addresses(item, default_port, family, windows))


def _unix_address(path: str) -> ListenAddress:
    family = getattr(socket, "AF_UNIX", None)
    if family is None:
        raise ValueError("this system has no Unix sockets")
    if path.startswith("@"):
        if platform.system() != "Linux":
            raise ValueError("abstract names (unix:@NAME) are for Linux")
        path = "\0" + path[1:]
    if not path.strip("\0"):
        raise ValueError("the path is empty")
    return family, socket.SOCK_STREAM, 0, path


def _inherited(item: str) -> ListenAddress:
    return socket.AF_UNSPEC, socket.SOCK_STREAM, 0, Inherited(item)


def internet_addresses(
    item: str, default_port: int, family: int, windows: bool = WIN
) -> Iterator[ListenAddress]:
    """Yield what a host and port, or a host alone, stand for; see :func:`resolve`."""
    host, port = _split_address(item, default_port, windows)
    found = socket.getaddrinfo(
        # Without AI_ADDRCONFIG, so that a machine without a network can be served on too.
        None if host == "*" else host,
        port,
        family,
        socket.SOCK_STREAM,
        socket.IPPROTO_TCP,
        socket.AI_PASSIVE,
    )
    for family_found, socktype, proto, _, sockaddr in found:
        yield family_found, socktype, proto, sockaddr


def _split_address(item: str, default_port: int, windows: bool) -> tuple[str, str | int]:
    """Split ``HOST:PORT`` at its last colon.

    ``[::1]:80`` has a port and ``[::1]`` has none. ``::1:80`` has one as well, since that
    is what a ``host`` of ``::1`` and a ``port`` make together.
    """
    host, colon, port = item.rpartition(":")
    number: str | int = port
    if not colon or "]" in port:
        # An exact int: the resolver takes no subclass, such as the marker of the default.
        host, number = item, int(default_port)
    host = host.strip("[]")
    if not host:
        raise ValueError("the host is empty")
    if windows:
        number = _port_number(number)
    # The resolver would take a larger number for the remainder of its division by 65536.
    if str(number).isdecimal() and int(number) > 65535:
        raise ValueError("the port is larger than 65535")
    return host, number


def _port_number(port: str | int) -> int:
    try:
        return int(port)
    except ValueError as exc:
        raise ServiceNameError(
            "Windows does not support service names instead of port numbers"
        ) from exc


# Inherited sockets.


def _passed_names(environ: Mapping[str, str]) -> dict[int, str]:
    """Map the descriptors that a service manager has passed on to their names.

    Source: sd_listen_fds(3). Unlike there, LISTEN_PID may be absent: not every supervisor
    that passes descriptors on can know it.
    """
    count = environ.get("LISTEN_FDS", "")
    if not count:
        raise ValueError("LISTEN_FDS is not set: no service manager has passed a socket on")
    if not (count.isdecimal() and count.isascii() and int(count)):
        raise ValueError(f"LISTEN_FDS is {count!r}; allowed: a whole number, 1 or more")
    pid = environ.get("LISTEN_PID", "")
    if pid not in ("", str(os.getpid())):
        raise ValueError(
            f"the sockets are for process {pid} (LISTEN_PID), and this is process {os.getpid()}; "
            "a program that starts the server must exec it"
        )
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    numbers = range(FIRST_PASSED_DESCRIPTOR, FIRST_PASSED_DESCRIPTOR + int(count))
    names += [""] * (len(numbers) - len(names))
    return dict(zip(numbers, names, strict=False))


def open_inherited(
    names: Iterable[Inherited], environ: Mapping[str, str] | None = None
) -> list[socket.socket]:
    """Make sockets of the descriptors that the names stand for, each of them once.

    The sockets own the descriptors: closing one closes the other.

    Args:
        names: of ``listen``.
        environ: the environment; that of the process by default.

    Raises:
        ValueError: there is no such descriptor, or it is none to accept connections on.
            All descriptors are then as they were.
    """
    opened: dict[int, socket.socket] = {}
    try:
        for name in names:
            try:
                for number in name.descriptors(os.environ if environ is None else environ):
                    if number not in opened:
                        opened[number] = _opened(number)
            except ValueError as error:
                raise ValueError(f"cannot listen on {name}: {error}") from error
    except ValueError:
        for sock in opened.values():
            sock.detach()
        raise
    return list(opened.values())


def _opened(number: int) -> socket.socket:
    try:
        sock = socket.socket(fileno=number)
    except OSError as error:
        raise ValueError(f"descriptor {number}: {error.strerror}") from error
    families = (socket.AF_INET, socket.AF_INET6, getattr(socket, "AF_UNIX", None))
    if sock.family not in families or sock.type != socket.SOCK_STREAM:
        # Numbers, where Python has no names for them.
        kind = ", ".join(str(getattr(kind, "name", kind)) for kind in (sock.family, sock.type))
        sock.detach()
        raise ValueError(f"descriptor {number}: no Internet or Unix stream socket ({kind})")
    if _is_connected(sock):
        sock.detach()
        raise ValueError(
            f"descriptor {number}: a connection, which somebody has accepted already; a socket "
            "to accept from is meant (Accept=no in systemd's socket unit)"
        )
    # Not for the programs that the application starts.
    sock.set_inheritable(False)
    return sock


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


# Addresses in words.


def unix_address_text(address: Any) -> Any:
    """Return a Unix socket's address as it is written after ``unix:``.

    Args:
        address: an abstract name as bytes or text that begins with a NUL, which the text
            has an ``@`` for; anything else, a path for instance, is returned as it is.
    """
    text = os.fsdecode(address) if isinstance(address, bytes) else address
    return f"@{text[1:]}" if isinstance(text, str) and text.startswith("\0") else text


def address_text(address: Any) -> str:
    """Return what a socket is, or is to be, bound to, in words.

    Args:
        address: host and port, as the first two of a tuple; a path; an :class:`Inherited`.
    """
    if isinstance(address, tuple):
        host, port = address[:2]
        return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
    return str(address)
