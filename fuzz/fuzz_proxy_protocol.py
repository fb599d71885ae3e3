"""Fuzz the header that a proxy puts in front of a connection.

Whatever comes: nothing raises; any cut gives the same verdict, the same source and the
same end; what is kept is bounded; a source is an address and a port, and means the same
when it is written anew in either version.
"""

from __future__ import annotations

import ipaddress
import struct
from typing import Any

from fuzz import harness

with harness.instrumented():
    from waitress.proxy_protocol import (
        LONGEST_BLOCK,
        TRANSITIONS,
        ProxyProtocolReceiver,
        ProxyProtocolState,
    )

REASONS = {"proxy-protocol-missing", "proxy-protocol-malformed"}
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
NEXT = b"GET / HTTP/1.1\r\n\r\n"


def check(data: bytes) -> None:
    """Check one input."""
    octets, chance = harness.controlled(data)
    with harness.limited_time():
        whole = read([octets] if octets else [])
        in_pieces = read(harness.cut(octets, chance))
        assert whole.state is in_pieces.state
        assert whole.source == in_pieces.source
        if whole.error:
            assert whole.error.reject_reason == in_pieces.error.reject_reason
            assert whole.error.body == in_pieces.error.body
        else:
            assert whole.octets_used == in_pieces.octets_used
            assert whole.header == in_pieces.header == octets[: whole.octets_used]
        if whole.source is not None:
            check_written_anew(whole.source)
        if chance.random() < 0.1:
            read([harness.pumped(octets, chance)])


def read(pieces: list[bytes]) -> Any:
    """Feed the pieces until the header ends; note how many octets that took."""
    receiver: Any = ProxyProtocolReceiver()
    receiver.octets_used = 0
    for piece in pieces:
        before = receiver.state
        if not TRANSITIONS[before]:
            break
        used = receiver.received(piece)
        receiver.octets_used += used
        assert used == len(piece) or (0 <= used < len(piece) and not TRANSITIONS[receiver.state])
        assert receiver.completed is (receiver.state is ProxyProtocolState.COMPLETE)
        assert (receiver.error is not None) is (receiver.state is ProxyProtocolState.FAILED)
        assert len(receiver.header) <= 16 + LONGEST_BLOCK
        assert receiver.source is None or receiver.completed
        assert receiver.error is None or receiver.error.reject_reason in REASONS
    if not TRANSITIONS[receiver.state]:
        assert receiver.received(NEXT) == 0
    return receiver


def check_written_anew(source: tuple[str, int]) -> None:
    """Check that both versions tell the same source."""
    host, port = source
    address = ipaddress.ip_address(host)
    assert str(address) == host
    assert 0 <= port <= 65535
    family = "TCP4" if address.version == 4 else "TCP6"
    line = f"PROXY {family} {host} {host} {port} 80\r\n".encode()
    code = 0x11 if address.version == 4 else 0x21
    addresses = address.packed * 2 + struct.pack("!HH", port, 80)
    block = SIGNATURE + struct.pack("!BBH", 0x21, code, len(addresses)) + addresses
    for header in (line, block):
        again = read([header + NEXT])
        assert again.source == source
        assert again.octets_used == len(header)


if __name__ == "__main__":
    harness.main(check)
