"""The addresses that the settings name: read, looked up, each of them once.

The grammar of a name is that of :mod:`waitress.bind_names`; here is what the settings make
of it: which of them names addresses, and which addresses each of them may name.

Row 7: imports ``bind_names``, ``settings`` and ``validation``.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from typing import Any

from waitress import bind_names
from waitress.bind_names import Inherited, ListenAddress, ServiceNameError
from waitress.settings import SETTING_OF
from waitress.validation import refusal

__all__ = ["resolve_listen", "resolve_status_listen"]


def resolve_listen(
    option: str, items: Iterable[Any], port: int, family: int, windows: bool
) -> list[ListenAddress]:
    """Return the addresses to bind, in the order in which they were named and found.

    Args:
        option: what names them: ``"listen"``, or ``"host and port"``.
        items: their names.
        port: of a host without a port.
        family: the one that hosts are looked up in, or ``AF_UNSPEC``.
        windows: whether ports are numbers alone.

    Raises:
        ValueError: a name is malformed, means nothing on this system, or is not found.
    """
    # A host may be called like the beginning of another kind of name.
    read = bind_names.resolve if option == "listen" else bind_names.internet_addresses
    addresses: list[ListenAddress] = []
    seen = set()
    for item in items:
        try:
            found = list(read(item, port, family, windows))
        # All that a strange host or port makes the parsing, the host name's encoding
        # and the resolver raise; the texts are those of the causes.
        except (OSError, ValueError) as exc:
            raise ValueError(_unresolved(option, item, exc)) from exc
        for address in found:
            key = _sameness(address)
            if key in seen:
                continue
            seen.add(key)
            addresses.append(address)
    return addresses


def resolve_status_listen(
    item: Any, family: int, windows: bool, public: bool
) -> list[ListenAddress]:
    """Return the addresses of the status listener; none where none is named.

    Args:
        item: their name.
        family: as for :func:`resolve_listen`.
        windows: as for :func:`resolve_listen`.
        public: whether other machines may reach them.

    Raises:
        ValueError: as for :func:`resolve_listen`, or other machines could reach one.
    """
    if not (item and item.strip()):
        return []
    try:
        if ":" not in item.rpartition("]")[2]:
            raise ValueError("the port is missing")
        found = bind_names.resolve(item, 0, family, windows)
        if any(isinstance(each[3], Inherited) for each in found):
            raise ValueError("inherited descriptors are for listen")
    except (OSError, ValueError) as exc:
        raise ValueError(refusal(f"Cannot listen there: {exc}", "status_listen", item)) from exc
    is_private = (isinstance(each[3], str) or _is_loopback(each[3][0]) for each in found)
    if not public and not all(is_private):
        raise ValueError(
            refusal(
                "Other machines could see paths, addresses and stacks; set status_public if "
                "they shall, or listen on a loopback address or a Unix socket",
                "status_listen",
                item,
            )
        )
    return found


def _sameness(address: ListenAddress) -> Any:
    """Return what is equal for addresses that cannot both be listened to."""
    bound = address[3]
    if isinstance(bound, (str, Inherited)):
        return bound
    # The same address may be found again with the name of an interface. A port that the
    # system picks is another one each time.
    return (str(bound[0]).split("%", 1)[0], bound[1]) if bound[1] else object()


def _is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback


def _unresolved(option: str, item: str, exc: Exception) -> str:
    if isinstance(exc, ServiceNameError):
        return f"{exc} ({option}={item!r})"
    allowed = SETTING_OF["listen"].check.text
    return (
        f"Invalid host/port specified. ({option}={item!r}: {exc}; allowed: {allowed}, "
        "of a family that ipv4 and ipv6 leave on)"
    )
