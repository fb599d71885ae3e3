"""What the kernel is asked of a connection, on every kind of socket and none."""

from __future__ import annotations

import select
import socket
import struct
import sys

import pytest

from tests.looping import load_elsewhere
from waitress import tcp

pytestmark = pytest.mark.usefixtures("no_leaks")


@pytest.fixture
def unix_pair():
    ends = socket.socketpair()
    yield ends
    for each in ends:
        each.close()


class StandIn:
    """A socket whose number is no descriptor, and which has no option."""

    def __init__(self, number):
        self.number = number

    def fileno(self):
        return self.number


STAND_INS = [StandIn(10_000_000), StandIn(-1), StandIn("no number"), None]


def fill(sock):
    """Send until the kernel takes no more; return how much it took."""
    sent = 0
    try:
        while True:
            sent += sock.send(b"x" * 65536)
    except BlockingIOError:
        return sent


class TestUnreadBytes:
    def test_are_those_that_the_peer_has_sent(self, pair):
        ours, theirs = pair
        assert tcp.unread_bytes(ours) == 0
        theirs.send(b"abc")
        theirs.shutdown(socket.SHUT_WR)
        assert ours.recv(1) == b"a"
        assert tcp.unread_bytes(ours) == 2
        assert ours.recv(2) == b"bc"
        assert tcp.unread_bytes(ours) == 0

    @pytest.mark.parametrize("stand_in", STAND_INS)
    def test_are_unknown_without_a_descriptor(self, stand_in):
        assert tcp.unread_bytes(stand_in) is None


class TestUnacknowledgedBytes:
    def test_are_those_that_the_peer_cannot_take(self, pair):
        ours, theirs = pair
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours.setblocking(False)
        assert tcp.unacknowledged_bytes(ours) == 0
        sent = fill(ours)
        unread = tcp.unacknowledged_bytes(ours)
        assert unread is not None
        assert 0 < unread < sent

    @pytest.mark.parametrize("stand_in", STAND_INS)
    def test_are_unknown_of_what_is_no_socket(self, stand_in):
        assert tcp.unacknowledged_bytes(stand_in) is None

    def test_are_unknown_where_nobody_can_be_asked(self, monkeypatch, pair):
        elsewhere = load_elsewhere(monkeypatch, tcp, without=("fcntl", "termios"))
        assert elsewhere.unacknowledged_bytes(pair[0]) is None


class TestLimitUnsent:
    def test_keeps_little_in_the_kernel(self, pair):
        ours, _ = pair
        tcp.limit_unsent(ours)
        option = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        assert option == tcp.UNSENT_LIMIT_BYTES

    def test_is_not_for_unix_sockets(self, unix_pair):
        tcp.limit_unsent(unix_pair[0])

    @pytest.mark.parametrize("stand_in", STAND_INS)
    def test_is_not_for_what_is_no_socket(self, stand_in):
        tcp.limit_unsent(stand_in)

    def test_is_not_where_the_system_has_no_such_option(self, monkeypatch, pair):
        ours, _ = pair
        before = ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
        monkeypatch.delattr(socket, "TCP_NOTSENT_LOWAT")
        tcp.limit_unsent(ours)
        monkeypatch.undo()
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == before


class TestStopSending:
    def test_tells_the_peer_that_this_was_all(self, pair):
        ours, theirs = pair
        ours.send(b"all")
        assert tcp.stop_sending(ours)
        assert theirs.recv(9) == b"all"
        assert theirs.recv(9) == b""
        theirs.send(b"still read")
        assert ours.recv(99) == b"still read"

    def test_tells_when_there_is_no_connection(self, pair):
        ours, _ = pair
        ours.close()
        assert not tcp.stop_sending(ours)

    @pytest.mark.parametrize("stand_in", STAND_INS)
    def test_is_not_for_what_is_no_socket(self, stand_in):
        assert not tcp.stop_sending(stand_in)


class TestResetOnClose:
    def test_makes_the_end_no_end(self, pair):
        ours, theirs = pair
        ours.send(b"not whole")
        tcp.reset_on_close(ours)
        ours.close()
        assert theirs.recv(99) in (b"not whole", b"")  # The kernel may drop it.
        with pytest.raises(ConnectionResetError):
            theirs.recv(99)

    def test_without_it_the_end_is_one(self, pair):
        ours, theirs = pair
        ours.close()
        assert theirs.recv(99) == b""

    @pytest.mark.parametrize("stand_in", STAND_INS)
    def test_is_not_for_what_is_no_socket(self, stand_in):
        tcp.reset_on_close(stand_in)
        assert not tcp.resets_on_close(stand_in)

    def test_can_be_seen(self, pair):
        ours, _ = pair
        assert not tcp.resets_on_close(ours)
        tcp.reset_on_close(ours)
        assert tcp.resets_on_close(ours)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        assert not tcp.resets_on_close(ours)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 0, 0))
        assert not tcp.resets_on_close(ours)


@pytest.mark.skipif(sys.platform != "linux", reason="the system has no such filter")
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_newcomers_are_held_off_and_those_who_are_here_are_not(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.create_server((host, 0), family=family) as listener,
        socket.socket(family) as early,
        socket.socket(family) as late,
    ):
        early.connect(listener.getsockname())
        assert tcp.hold_newcomers_off(listener)
        late.settimeout(0.05)
        with pytest.raises(TimeoutError):
            late.connect(listener.getsockname())
        accepted, _ = listener.accept()
        with accepted:
            early.sendall(b"hello")
            assert accepted.recv(5) == b"hello"


def test_newcomers_are_not_held_off_where_that_is_unknown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        monkeypatch.setattr(sys, "platform", "other")
        assert not tcp.hold_newcomers_off(listener)


def test_newcomers_are_not_held_off_from_stand_ins_and_closed_sockets() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    listener.close()
    assert not tcp.hold_newcomers_off(listener)
    assert not tcp.hold_newcomers_off(object())


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no unix sockets")
def test_newcomers_are_not_held_off_from_unix_sockets() -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        assert not tcp.hold_newcomers_off(listener)


@pytest.mark.skipif(not hasattr(select, "poll"), reason="cannot be asked")
def test_somebody_waits_from_connecting_to_being_accepted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert not tcp.is_waited_for(listener)
        with socket.create_connection(listener.getsockname()):
            assert tcp.is_waited_for(listener)
            listener.accept()[0].close()
            assert not tcp.is_waited_for(listener)


def test_nobody_waits_where_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not tcp.is_waited_for(object())
    monkeypatch.delattr(select, "poll", raising=False)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()),
    ):
        assert not tcp.is_waited_for(listener)
