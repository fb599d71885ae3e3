"""Peers by their addresses: which are trusted, and which count as one client.

Owns how addresses are compared: by value, not by spelling, and an IPv4 address that is
told in the form of IPv6 (RFC 4291, 2.5.5.2) as the IPv4 address that it is. Knows nothing
of sockets, requests or settings.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

__all__ = ["Trusted", "TrustedPeers", "client_group", "peer_text", "read_address", "split_trusted"]

#: How trusted peers are told, see :class:`TrustedPeers`.
Trusted = str | IPv4Address | IPv6Address | IPv4Network | IPv6Network | Collection[object] | None

#: Stands for every peer.
EVERYONE = "*"
#: Stands for the peers at unix sockets, which have no address.
UNIX_PEER = "localhost"

#: What holds the IPv4 addresses in IPv6 (RFC 4291, 2.5.5.2).
_MAPPED = IPv6Network("::ffff:0:0/96")

#: Most peers whose answer is kept; it is clients who choose their addresses.
_MOST_KEPT = 1024


class TrustedPeers:
    """The peers that are believed; ask with ``in``.

    Args:
        trusted: IP addresses and ranges of them in CIDR notation, in one text between
            blanks or commas, or as a list, tuple or set; ``*`` for every peer;
            ``localhost`` for the peers at unix sockets; None for nobody.

    One word alone may be any text, and is then compared as it stands: subclasses of the
    server tell peers as they like. Of several words each must be understood.

    Raises:
        ValueError: a range is malformed, or has bits set behind its prefix; one of
            several words is no address.

    Threads: any. It never changes; the answers kept stand under a lock of their own.
    """

    def __init__(self, trusted: Trusted) -> None:
        words = split_trusted(trusted)
        # Both as written and as the system writes them.
        exact = set(words)
        self._networks = [_read_network(word) for word in words if "/" in word]
        for word in words:
            if "/" not in word and word not in (EVERYONE, UNIX_PEER):
                exact.add(_normal_form(word, is_alone=len(words) == 1))
        self._exact = frozenset(exact)
        self._is_everyone = EVERYONE in exact
        self._is_known_by_value = lru_cache(_MOST_KEPT)(self._find)

    def __bool__(self) -> bool:
        """Whether anybody is trusted."""
        return bool(self._exact)

    def __contains__(self, peer: object) -> bool:
        if self._is_everyone or peer in self._exact:
            return True
        # There is one way only to write an IPv4 address.
        is_worth_reading = isinstance(peer, str) and (self._networks or ":" in peer)
        return bool(is_worth_reading) and self._is_known_by_value(peer)

    def _find(self, peer: str) -> bool:
        address = read_address(peer)
        if address is None:
            return False
        return str(address) in self._exact or any(address in net for net in self._networks)


def split_trusted(trusted: Trusted) -> list[str]:
    """Split a list of peers, one text or several, at white space and commas.

    Besides texts there may be objects of :mod:`ipaddress`, alone or among the several.
    """
    # Not whatever is iterable: a network is, over each of its addresses.
    if not isinstance(trusted, (list, tuple, set, frozenset)):
        trusted = (trusted or "",)
    return [word for text in trusted for word in str(text).replace(",", " ").split()]


def _normal_form(word: str, is_alone: bool) -> str:
    address = read_address(word)
    if address is not None:
        return str(address)
    if is_alone:
        return word
    raise ValueError(f"{word!r} is neither an IP address nor a range of them")


def read_address(text: str) -> IPv4Address | IPv6Address | None:
    """Return the address that a text means; None if it means none.

    An IPv6 address that stands for an IPv4 one is returned as the latter.
    """
    try:
        address = ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _read_network(text: str) -> IPv4Network | IPv6Network:
    network = ip_network(text)
    if isinstance(network, IPv6Network) and network.subnet_of(_MAPPED):
        first = int(network.network_address) & 0xFFFFFFFF
        return IPv4Network((first, network.prefixlen - 96))
    return network


def client_group(host: str) -> str:
    """Return what is the same for all addresses that one client can choose from.

    That is an IPv4 address itself, and of an IPv6 address the first 64 bits: the network
    that even a single subscriber is given (RFC 6177, 2). Empty for what is no address.
    """
    address = read_address(host)
    if address is None:
        return ""
    return str(address) if address.version == 4 else f"{address.packed[:8].hex(':', 2)}::/64"


def peer_text(address: object) -> str:
    """Return a peer's address in words: host and port, as far as there are such.

    Args:
        address: as a connection has it: a tuple of host and port, the latter ``None`` at a
            unix socket; subclasses of a server make it as they like.
    """
    if not isinstance(address, tuple) or not address:
        return str(address or "")
    host = str(address[0])
    if len(address) < 2 or address[1] is None:
        return host
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"
