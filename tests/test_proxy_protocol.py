"""The PROXY protocol: both versions, every cut, and nothing else."""

from __future__ import annotations

import ipaddress
import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitress.proxy_protocol import (
    LONGEST_BLOCK,
    LONGEST_LINE,
    TRANSITIONS,
    ProxyProtocolReceiver,
    ProxyProtocolState,
)
from waitress.utilities import BadRequest

State = ProxyProtocolState

SIGNATURE = b"\x0d\x0a\x0d\x0a\x00\x0d\x0a\x51\x55\x49\x54\x0a"
REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"

CLIENT = socket.inet_aton("192.0.2.1")
SERVER = socket.inet_aton("198.51.100.9")
CLIENT6 = socket.inet_pton(socket.AF_INET6, "2001:db8::1")
SERVER6 = socket.inet_pton(socket.AF_INET6, "2001:db8::2")
IPV4 = CLIENT + SERVER + struct.pack("!HH", 56324, 443)
IPV6 = CLIENT6 + SERVER6 + struct.pack("!HH", 56324, 443)


def block(
    command: int = 0x21, family: int = 0x11, rest: bytes = IPV4, length: int | None = None
) -> bytes:
    """Return a header of version 2."""
    size = len(rest) if length is None else length
    return SIGNATURE + struct.pack("!BBH", command, family, size) + rest


def feed(data: bytes, cut: str) -> tuple[ProxyProtocolReceiver, bytes]:
    """Return a receiver that was given the data, and what it left over."""
    receiver = ProxyProtocolReceiver()
    size = 1 if cut == "bytes" else len(data) or 1
    taken = 0
    for start in range(0, len(data), size):
        if receiver.completed or receiver.error:
            break
        piece = data[start : start + size]
        used = receiver.received(piece)
        assert 0 < used <= len(piece)
        taken += used
        if used < len(piece):
            break
    assert receiver.header == data[:taken]
    return receiver, data[taken:]


def accepted(data: bytes, cut: str) -> tuple[str, int] | None:
    """Return the source told by a whole header, of which nothing may be left over."""
    receiver, rest = feed(data, cut)
    assert receiver.completed
    assert receiver.error is None
    assert rest == b""
    return receiver.source


def refused(data: bytes, cut: str) -> tuple[str, str]:
    """Return reason and text of the error."""
    receiver, _ = feed(data, cut)
    assert not receiver.completed
    assert receiver.source is None
    assert isinstance(receiver.error, BadRequest)
    return receiver.error.reject_reason, str(receiver.error.body)


MISSING = ("proxy-protocol-missing", "there is no PROXY protocol header")
MALFORMED = "proxy-protocol-malformed"

cuts = pytest.mark.parametrize("cut", ["whole", "bytes"])


class TestVersion1:
    @cuts
    @pytest.mark.parametrize(
        ("line", "source"),
        [
            (b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443", ("192.0.2.1", 56324)),
            (b"PROXY TCP4 0.0.0.0 255.255.255.255 0 65535", ("0.0.0.0", 0)),
            (b"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443", ("2001:db8::1", 56324)),
            (b"PROXY TCP6 2001:DB8:0:0::1 ::1 65535 0", ("2001:db8::1", 65535)),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.9 1 2", ("192.0.2.1", 1)),
            (b"PROXY TCP6 " + b"f" * 4 + b":ffff" * 7 + b" ::1 1 2", ("ffff" + ":ffff" * 7, 1)),
            (b"PROXY UNKNOWN", None),
            (b"PROXY UNKNOWN ", None),
            (b"PROXY UNKNOWN any \0\xff\n octets at all", None),
            (b"PROXY UNKNOWN 2001:db8::1 2001:db8::2 56324 443", None),
            (b"PROXY UNKNOWN" + b" ffff" * 18, None),
        ],
    )
    def test_tells_the_source(self, line, source, cut):
        assert accepted(line + b"\r\n", cut) == source

    @cuts
    def test_leaves_what_follows_to_the_first_request(self, cut):
        line = b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r\n"

        receiver, rest = feed(line + REQUEST, cut)

        assert receiver.source == ("192.0.2.1", 56324)
        assert receiver.header == line
        assert rest == REQUEST

    @cuts
    @pytest.mark.parametrize(
        "line",
        [
            b"PROXY ",
            b"PROXY TCP4",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 56324",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443 ",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443 0",
            b"PROXY TCP4  192.0.2.1 198.51.100.9 56324 443",
            b"PROXY  TCP4 192.0.2.1 198.51.100.9 56324 443",
            b"PROXY TCP4 192.0.2.1\t198.51.100.9 56324 443",
            b"PROXY tcp4 192.0.2.1 198.51.100.9 56324 443",
            b"PROXY TCP5 192.0.2.1 198.51.100.9 56324 443",
            b"PROXY UDP4 192.0.2.1 198.51.100.9 56324 443",
            b"PROXY UNKNOWNX",
            b"PROXY TCP4 localhost 198.51.100.9 56324 443",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 +1 443",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 01 443",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 1 00",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 123456 443",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 1 -1",
            b"PROXY TCP4 192.0.2.1 198.51.100.9 1 443\n",
            b"PROXY TCP4 2001:db8::1 2001:db8::2 1 443",
            b"PROXY TCP6 fe80::1%eth0 2001:db8::2 1 443",
            b"PROXY TCP6 [2001:db8::1] 2001:db8::2 1 443",
        ],
    )
    def test_refuses_a_line_of_another_form(self, line, cut):
        assert refused(line + b"\r\n", cut) == (MALFORMED, "the line is malformed")

    @cuts
    @pytest.mark.parametrize(
        "addresses",
        [
            b"TCP4 192.0.2.256 198.51.100.9",
            b"TCP4 192.0.2.1 198.51.100",
            b"TCP4 192.0.2.01 198.51.100.9",
            b"TCP4 . 198.51.100.9",
            b"TCP6 192.0.2.1 198.51.100.9",
            b"TCP6 2001:db8::1 198.51.100.9",
            b"TCP6 2001:db8::1::2 2001:db8::2",
            b"TCP6 2001:db8::1 12345::",
            b"TCP6 : ::1",
        ],
    )
    def test_refuses_what_is_no_address_of_the_family(self, addresses, cut):
        line = b"PROXY " + addresses + b" 1 2\r\n"

        assert refused(line, cut) == (MALFORMED, "an address is malformed")

    @cuts
    @pytest.mark.parametrize("ports", [b"65536 1", b"1 65536", b"99999 99999"])
    def test_refuses_what_is_no_port(self, ports, cut):
        line = b"PROXY TCP4 192.0.2.1 198.51.100.9 " + ports + b"\r\n"

        assert refused(line, cut) == (MALFORMED, "a port is larger than 65535")

    @cuts
    def test_has_a_longest_line(self, cut):
        head = b"PROXY UNKNOWN "
        longest = head + b"a" * (LONGEST_LINE - len(head) - 2) + b"\r\n"
        assert len(longest) == 107

        assert accepted(longest, cut) is None
        assert refused(longest[:-2] + b"a\r\n", cut) == (MALFORMED, "the line exceeds 107 bytes")
        assert refused(longest[:-2] + b"aaa", cut) == (MALFORMED, "the line exceeds 107 bytes")

    def test_waits_for_the_end_of_the_line(self):
        receiver, _ = feed(b"PROXY TCP4 192.0.2.1 198.51.100.9 56324 443\r", "whole")

        assert receiver.state is State.LINE
        assert not receiver.completed
        assert receiver.error is None
        assert receiver.received(b"\n" + REQUEST) == 1
        assert receiver.source == ("192.0.2.1", 56324)


class TestVersion2:
    @cuts
    @pytest.mark.parametrize(
        ("header", "source"),
        [
            (block(), ("192.0.2.1", 56324)),
            (block(family=0x21, rest=IPV6), ("2001:db8::1", 56324)),
            (
                block(family=0x21, rest=bytes(10) + b"\xff\xff" + CLIENT + bytes(16) + b"\0\1\0\2"),
                ("192.0.2.1", 1),
            ),
            (block(rest=IPV4 + b"\x04\x00\x01\x00\xee\x00\x02ab"), ("192.0.2.1", 56324)),
            (block(rest=IPV4 + b"records that nobody checks"), ("192.0.2.1", 56324)),
            # For these nothing can be told: the proxy stays who the peer is.
            (block(family=0x00, rest=b""), None),
            (block(family=0x00, rest=b"anything"), None),
            (block(family=0x12, rest=IPV4), None),
            (block(family=0x22, rest=IPV6), None),
            (block(family=0x31, rest=bytes(216)), None),
            (block(family=0x32, rest=bytes(216)), None),
            # LOCAL: the family and all that follows do not count.
            (block(0x20, 0x00, b""), None),
            (block(0x20, 0x11, IPV4), None),
            (block(0x20, 0x11, b""), None),
            (block(0x20, 0xFF, b"anything"), None),
        ],
    )
    def test_tells_the_source(self, header, source, cut):
        assert accepted(header, cut) == source

    @cuts
    @pytest.mark.parametrize("header", [block(), block(0x20, 0, b"")])
    def test_leaves_what_follows_to_the_first_request(self, header, cut):
        receiver, rest = feed(header + REQUEST, cut)

        assert receiver.completed
        assert receiver.header == header
        assert rest == REQUEST

    @cuts
    @pytest.mark.parametrize("command", [0x00, 0x01, 0x11, 0x22, 0x2F, 0x31, 0xFF])
    def test_refuses_other_versions_and_commands(self, command, cut):
        assert refused(block(command), cut) == (MALFORMED, "the version or command is unknown")

    @cuts
    @pytest.mark.parametrize("family", [0x01, 0x10, 0x13, 0x20, 0x30, 0x33, 0x41, 0xFF])
    def test_refuses_other_families(self, family, cut):
        text = "the family is unknown, or its addresses are incomplete"

        assert refused(block(family=family, rest=bytes(300)), cut) == (MALFORMED, text)

    @cuts
    @pytest.mark.parametrize(
        ("family", "size"), [(0x11, 11), (0x12, 0), (0x21, 35), (0x22, 12), (0x31, 215), (0x32, 1)]
    )
    def test_refuses_addresses_that_are_cut_short(self, family, size, cut):
        text = "the family is unknown, or its addresses are incomplete"

        assert refused(block(family=family, rest=bytes(size)), cut) == (MALFORMED, text)

    @cuts
    @pytest.mark.parametrize("command", [0x20, 0x21])
    def test_has_a_longest_block(self, command, cut):
        longest = block(command, rest=IPV4 + bytes(LONGEST_BLOCK - len(IPV4)))

        accepted(longest, cut)
        text = "the block exceeds 4096 bytes"
        assert refused(block(command, length=LONGEST_BLOCK + 1), cut) == (MALFORMED, text)
        assert refused(block(command, length=65535), cut) == (MALFORMED, text)

    def test_is_judged_before_it_is_whole(self):
        receiver = ProxyProtocolReceiver()

        receiver.received(block(length=65535)[:16])

        assert receiver.error is not None

    def test_waits_for_the_last_octet(self):
        receiver, _ = feed(block()[:-1], "bytes")

        assert receiver.state is State.BLOCK
        assert not receiver.completed
        assert receiver.error is None
        assert receiver.received(block()[-1:] + REQUEST) == 1
        assert receiver.source == ("192.0.2.1", 56324)


class TestNoHeader:
    @cuts
    @pytest.mark.parametrize(
        "data",
        [
            REQUEST,
            b"POST / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            b"PROXYTCP4",
            b"proxy TCP4 192.0.2.1 198.51.100.9 1 2\r\n",
            b" PROXY UNKNOWN\r\n",
            b"\r\nPROXY UNKNOWN\r\n",
            b"\r\n\r\nGET / HTTP/1.1\r\n",
            SIGNATURE[:-1] + b"\r",
            b"\x16\x03\x01\x02\x00",
            b"\0",
        ],
    )
    def test_is_never_taken_for_one(self, data, cut):
        assert refused(data, cut) == MISSING

    @pytest.mark.parametrize(
        ("data", "sample"),
        [
            (b"GET / HTTP/1.1\r\nAuthorization: x\r\n\r\n", b"GET / HTTP/1.1\r"),
            (b"PROXY x\r\nGET / HTTP/1.1\r\n", b"PROXY x\r"),
            (b"\x16\x03\x01", b"\x16\x03\x01"),
            (b"\r\n\r\nGET / HTTP/1.1\r\n", b"\r"),
            (block(0xFF), block(0xFF)),
        ],
    )
    def test_is_told_to_logs_without_a_request_behind_it(self, data, sample):
        receiver, _ = feed(data, "whole")

        assert receiver.error is not None
        assert receiver.sample == sample

    def test_is_seen_with_the_first_octet_that_differs(self):
        for start in (b"PROXY ", SIGNATURE):
            for size in range(len(start)):
                receiver, _ = feed(start[:size] + b"x", "bytes")
                assert receiver.error is not None
                assert receiver.header == start[:size] + b"x"


class TestStates:
    # For each state the octets that lead there.
    LEADING = {
        State.START: b"",
        State.LINE: b"PROXY UNKNOWN ",
        State.BLOCK: SIGNATURE,
        State.COMPLETE: b"PROXY UNKNOWN\r\n",
        State.FAILED: b"G",
    }

    @pytest.mark.parametrize(
        ("state", "octets", "expected"),
        [
            (State.START, b"P", State.LINE),
            (State.START, b"\r", State.BLOCK),
            (State.START, b"PROXY UNKNOWN\r\n", State.COMPLETE),
            (State.START, b"G", State.FAILED),
            (State.LINE, b"P", State.LINE),
            (State.LINE, b"\r", State.LINE),
            (State.LINE, b"\r\n", State.COMPLETE),
            (State.LINE, b"G" * 93, State.FAILED),
            (State.BLOCK, b"\x20", State.BLOCK),
            (State.BLOCK, b"\x20\x00\x00", State.BLOCK),
            (State.BLOCK, b"\x20\x00\x00\x00", State.COMPLETE),
            (State.BLOCK, b"\x00\x00\x00\x00", State.FAILED),
            (State.COMPLETE, b"P", State.COMPLETE),
            (State.COMPLETE, b"\r\n", State.COMPLETE),
            (State.COMPLETE, b"G", State.COMPLETE),
            (State.FAILED, b"P", State.FAILED),
            (State.FAILED, b"PROXY UNKNOWN\r\n", State.FAILED),
            (State.FAILED, b"G", State.FAILED),
        ],
    )
    def test_follow_each_other(self, state, octets, expected):
        receiver, _ = feed(self.LEADING[state], "whole")
        assert receiver.state is state

        used = receiver.received(octets)

        assert receiver.state is expected
        assert used == (len(octets) if TRANSITIONS[state] else 0)

    def test_that_are_final_take_nothing_and_keep_what_they_told(self):
        receiver, _ = feed(block(), "whole")

        assert receiver.received(b"PROXY TCP4 203.0.113.7 198.51.100.9 1 2\r\n") == 0
        assert receiver.source == ("192.0.2.1", 56324)
        assert receiver.header == block()

    def test_that_follow_are_told_for_each(self):
        assert set(TRANSITIONS) == set(State)
        assert not TRANSITIONS[State.COMPLETE] | TRANSITIONS[State.FAILED]


PIECES = st.lists(
    st.sampled_from(
        [
            *(b"PROXY ", b"TCP4 ", b"TCP6 ", b"UNKNOWN", b"192.0.2.1 ", b"2001:db8::1 "),
            *(b"1 ", b"65536", b"\r\n", SIGNATURE, SIGNATURE[:5], b"\x21\x11\x00\x0c"),
            *(b"\x20\x00\x00\x00", b"\x21\x21\x00\x24", IPV4, IPV6, b"\xff", REQUEST),
        ]
    ),
    max_size=10,
).map(b"".join)


class TestAnyInput:
    @given(data=st.one_of(PIECES, st.binary(max_size=200)), cuts=st.lists(st.integers(1, 20)))
    def test_means_the_same_however_it_is_cut(self, data, cuts):
        whole, rest = feed(data, "whole")

        receiver = ProxyProtocolReceiver()
        left = data
        for size in [*cuts, *[1] * len(data)]:
            piece, left = left[:size], left[size:]
            if not piece or receiver.completed or receiver.error:
                left = piece + left
                break
            used = receiver.received(piece)
            left = piece[used:] + left

        assert (receiver.state, receiver.source) == (whole.state, whole.source)
        if whole.completed:
            assert left == rest
            assert receiver.header == whole.header

    @given(address=st.ip_addresses(), port=st.integers(0, 65535), to=st.integers(0, 65535))
    def test_both_versions_tell_any_source_alike(self, address, port, to):
        mapped = getattr(address, "ipv4_mapped", None)
        other = ipaddress.ip_address(0 if address.version == 4 else 2**127)
        line = f"PROXY TCP{address.version} {address} {other} {port} {to}\r\n".encode()
        family = 0x11 if address.version == 4 else 0x21
        packed = address.packed + other.packed + struct.pack("!HH", port, to)

        expected = (str(mapped or address), port)
        assert accepted(line, "whole") == expected
        assert accepted(block(family=family, rest=packed), "whole") == expected

    @pytest.mark.parametrize("start", [b"PROXY UNKNOWN ", block(length=4096), b"x", b"\r\n"])
    def test_takes_no_more_than_the_longest_header(self, start):
        receiver = ProxyProtocolReceiver()

        used = receiver.received(start + b"a" * 10_000_000)

        assert used <= 16 + LONGEST_BLOCK
        assert len(receiver.header) <= 16 + LONGEST_BLOCK
