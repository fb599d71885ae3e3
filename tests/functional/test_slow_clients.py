"""Deadlines: each ends what has taken too long, and none ends what has not (D4).

The clock is simulated, and moves only while the loop waits.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.fakes import FakeClient, FakeClock, Simulation, get, request
from tests.functional.applications import blocks, hello, large, path
from waitress import create_server, tcp
from waitress.deadlines import BUCKET_SECONDS
from waitress.eventloop import EventLoop, SocketMap

Simulate = Callable[..., Simulation]

HALF_HEAD = b"GET / HTTP/1.1\r\nHost: "
HALF_BODY = request("POST", "/", "Content-Length: 100000") + b"x"

#: How late a deadline may be noticed.
LATE = 2 * BUCKET_SECONDS


def drip(sim: Simulation, client: FakeClient, piece: bytes, every: float, times: int) -> None:
    """Have the client send a piece, again and again, as long as it is connected."""

    def send() -> None:
        if not client.server_end.is_closed:
            client.send(piece)

    for number in range(1, times + 1):
        sim.at(number * every, send)


def is_closed(client: FakeClient) -> bool:
    """Say whether the server has closed the connection, whether the client sees it or not."""
    return client.server_end.is_closed


def assert_ends_after(sim: Simulation, client: FakeClient, seconds: float) -> None:
    """Fail unless the server ends the connection in so many seconds from now."""
    sim.advance(seconds - BUCKET_SECONDS)
    assert client.is_open
    sim.advance(BUCKET_SECONDS + LATE)
    assert not client.is_open


# -- idle connections -----------------------------------------------------------------------


def test_connection_that_never_sent_a_byte_is_closed_without_an_answer(
    simulate: Simulate,
) -> None:
    sim = simulate(hello)
    client = sim.connect()
    assert_ends_after(sim, client, 120)
    assert (bytes(client.data), client.ended) == (b"", True)


def test_idle_connection_is_closed_in_order_after_its_last_response(simulate: Simulate) -> None:
    sim = simulate(hello, channel_timeout=20)
    client = sim.connect(get())
    sim.advance(19)
    client.send(get())
    sim.settle()
    assert_ends_after(sim, client, 20)
    assert client.ended
    assert len(client.responses()) == 2


def test_request_that_arrives_at_the_last_moment_is_served_at_once(simulate: Simulate) -> None:
    """It is found by the last read before the close."""
    sim = simulate(hello, channel_timeout=20)
    client = sim.connect()
    due = sim.clock.now + 20

    def send_behind_the_pollers_back() -> None:
        if sim.clock.now >= due:
            client.send(get())
        else:
            sim.network.after_poll.append(send_behind_the_pollers_back)

    sim.network.after_poll.append(send_behind_the_pollers_back)
    sim.advance(20 - BUCKET_SECONDS)
    while not sim.dispatcher.queue:
        sim.turn(1)
        assert sim.clock.now < due + LATE
    sim.settle()
    assert client.response().body == b"hello"


def test_idle_time_out_can_be_switched_off(simulate: Simulate) -> None:
    sim = simulate(hello, channel_timeout=0)
    client = sim.connect(get())
    sim.advance(3600)
    sim.server.maintenance(sim.clock() + 3600)
    sim.settle()
    assert client.is_open


@pytest.mark.parametrize("before", [120, 0])
@pytest.mark.parametrize("is_used", [False, True])
def test_changed_idle_time_out_holds_from_the_next_sweep_on(
    before: int, is_used: bool, simulate: Simulate
) -> None:
    sim = simulate(hello, channel_timeout=before, cleanup_interval=20)
    client = sim.connect(get())
    sim.server.adj.channel_timeout = 5
    if is_used:
        client.send(get())
    sim.advance(4.5)
    assert client.is_open
    sim.advance(20)
    assert not client.is_open
    assert sim.server.clients.timeouts == {"IDLE": 1}


def test_sweep_looks_for_a_request_before_it_closes(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(get())
    client.send(get())
    sim.server.maintenance(sim.clock() + 3600)
    sim.settle()
    assert [each.status for each in client.responses()] == [200, 200]
    assert client.is_open


def test_sweep_by_hand_closes_idle_connections(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(get())
    sim.server.maintenance(sim.clock())
    sim.settle()
    assert client.is_open
    sim.server.maintenance(sim.clock() + 121)
    sim.settle()
    assert client.ended


# -- heads ----------------------------------------------------------------------------------


def test_late_head_is_answered_408(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(HALF_HEAD)
    assert_ends_after(sim, client, 30)
    response = client.response()
    assert (response.status, response.headers["connection"]) == (408, "close")


def test_head_that_drips_is_answered_408_all_the_same(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(HALF_HEAD)
    drip(sim, client, b"a", every=1, times=60)
    assert_ends_after(sim, client, 30)
    assert client.response().status == 408


def test_silence_in_a_head_is_bounded_by_the_idle_time_out(simulate: Simulate) -> None:
    sim = simulate(hello, header_timeout=0, channel_timeout=50)
    client = sim.connect(HALF_HEAD)
    assert_ends_after(sim, client, 50)
    assert client.response().status == 408


def test_head_may_take_for_ever_where_the_settings_allow_it(simulate: Simulate) -> None:
    sim = simulate(hello, header_timeout=0)
    client = sim.connect(HALF_HEAD)
    drip(sim, client, b"a", every=100, times=20)
    sim.at(2050, lambda: client.send(b"\r\n\r\n"))
    sim.advance(2051)
    assert client.response().status == 200


def test_time_of_a_head_begins_with_its_first_byte(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(get())
    sim.advance(100)
    client.send(HALF_HEAD)
    sim.settle()
    assert_ends_after(sim, client, 30)


def test_time_of_a_head_is_not_counted_while_an_earlier_request_is_served(
    simulate: Simulate,
) -> None:
    """A pipelining client behind a slow request has done nothing wrong."""
    sim = simulate(hello)
    sim.dispatcher.is_held = True
    client = sim.connect(get() + HALF_HEAD)
    sim.advance(300)
    assert client.is_open
    sim.dispatcher.is_held = False
    sim.settle()
    sim.advance(29)
    client.send(b"a\r\n\r\n")
    sim.settle()
    assert [response.status for response in client.responses()] == [200, 200]


def test_settings_object_of_old_may_have_no_deadlines_of_its_own(simulate: Simulate) -> None:
    """The defaults are the same then."""
    sim = simulate(hello)
    client = sim.connect(HALF_HEAD)
    adj = sim.server.adj
    unknown = {"header_timeout", "body_timeout", "body_min_rate", "send_timeout"}
    known = {name for name in dir(adj) if not name.startswith("_")} - unknown
    sim.channel.adj = SimpleNamespace(**{name: getattr(adj, name) for name in known})
    client.send(b"a")
    sim.settle()
    assert_ends_after(sim, client, 30)


# -- bodies ---------------------------------------------------------------------------------


def test_silent_body_is_answered_408(simulate: Simulate) -> None:
    sim = simulate(hello, body_min_rate=0)
    client = sim.connect(HALF_BODY)
    assert_ends_after(sim, client, 60)
    assert client.response().status == 408


def test_body_below_the_least_rate_is_answered_408_after_half_a_minute(
    simulate: Simulate,
) -> None:
    sim = simulate(hello)
    client = sim.connect(HALF_BODY)
    drip(sim, client, b"x" * 239, every=1, times=100)
    assert_ends_after(sim, client, 30)
    assert client.response().status == 408


def test_body_at_the_least_rate_is_read_to_its_end(simulate: Simulate) -> None:
    """A mobile upload that progresses is not cut."""
    sim = simulate(hello)
    client = sim.connect(request("POST", "/", "Content-Length: 100000"))
    drip(sim, client, b"x" * 250, every=1, times=400)
    sim.advance(401)
    assert client.response().status == 200


def test_body_that_pauses_after_a_good_start_is_not_cut(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(request("POST", "/", "Content-Length: 100000") + b"x" * 50_000)
    drip(sim, client, b"x" * 25_000, every=55, times=2)
    sim.advance(111)
    assert client.response().status == 200


def test_body_that_came_with_its_head_counts_for_its_rate(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(request("POST", "/", "Content-Length: 100001") + b"x" * 100_000)
    sim.advance(55)
    client.send(b"x")
    sim.settle()
    assert client.response().status == 200


def test_body_may_take_for_ever_where_the_settings_allow_it(simulate: Simulate) -> None:
    sim = simulate(path, body_timeout=0, body_min_rate=0)
    client = sim.connect(request("POST", "/", "Content-Length: 10"))
    drip(sim, client, b"x", every=110, times=10)
    sim.advance(1111)
    assert client.response().body == b"/" + b"x" * 10


def test_uninvited_body_is_not_timed_while_the_invitation_waits(simulate: Simulate) -> None:
    """It is we who let the client wait."""
    sim = simulate(path)
    sim.dispatcher.is_held = True
    expecting = request("POST", "/b", "Content-Length: 1", "Expect: 100-continue")
    client = sim.connect(get("/a") + expecting)
    sim.advance(600)
    sim.dispatcher.is_held = False
    sim.settle()
    assert [response.status for response in client.responses()] == [200, 100]
    sim.advance(29)
    client.send(b"x")
    sim.settle()
    assert client.responses()[-1].body == b"/bx"


# -- the server at work ---------------------------------------------------------------------


def test_no_timer_runs_while_a_request_waits_or_runs(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("at work")
        return hello(environ, start_response)

    sim = simulate(application)
    sim.dispatcher.is_held = True
    client = sim.connect(get())
    sim.advance(1000)
    sim.dispatcher.is_held = False
    sim.settle()
    sim.advance(1000)
    assert (bytes(client.data), client.is_open) == (b"", True)
    sim.dispatcher.resume("at work")
    sim.settle()
    assert client.response().body == b"hello"


def test_no_timer_runs_between_the_parts_of_a_response(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        sim.dispatcher.pause("thinking")
        yield b"two"

    sim = simulate(application)
    client = sim.connect(get())
    sim.advance(1000)
    sim.dispatcher.resume("thinking")
    sim.settle()
    assert client.response().body == b"onetwo"


# -- readers --------------------------------------------------------------------------------


def stalled(sim: Simulation, capacity: int = 1000) -> FakeClient:
    """Return a client that asks and does not read."""
    client = sim.knock(capacity)
    client.is_reading = False
    client.send(get())
    sim.settle()
    return client


def test_stalled_reader_is_cut(simulate: Simulate, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    sim = simulate(large(50_000))
    client = stalled(sim)
    sim.advance(120 - BUCKET_SECONDS)
    assert not is_closed(client)
    sim.advance(BUCKET_SECONDS + LATE)
    assert is_closed(client)
    assert client.sock.is_reset
    assert any("was cut: its reader has stalled" in message for message in caplog.messages)


def test_slow_reader_that_progresses_is_never_cut(simulate: Simulate) -> None:
    sim = simulate(large(50_000))
    client = stalled(sim)
    for number in range(1, 30):
        sim.at(number * 115, lambda: client.read(1000))
    sim.advance(30 * 115)
    client.is_reading = True
    sim.settle()
    assert len(client.response().body) == 50_000
    assert client.is_open


def test_player_that_pauses_and_reads_on_gets_everything(simulate: Simulate) -> None:
    sim = simulate(large(50_000))
    client = stalled(sim)
    sim.advance(115)
    client.read(1)
    sim.advance(115)
    client.is_reading = True
    sim.settle()
    assert len(client.response().body) == 50_000


def test_stalled_reader_is_cut_soon_after_its_time(simulate: Simulate) -> None:
    """However long it has, the kernel is asked every few seconds."""
    sim = simulate(large(50_000), send_timeout=600)
    stalled(sim)
    sim.advance(599)
    assert sim.channels
    sim.advance(12)
    assert not sim.channels


def test_stalled_reader_is_kept_where_the_settings_allow_it(simulate: Simulate) -> None:
    sim = simulate(large(50_000), send_timeout=0)
    client = stalled(sim)
    sim.advance(10_000)
    client.is_reading = True
    sim.settle()
    assert len(client.response().body) == 50_000


def test_stalled_reader_holds_no_worker(simulate: Simulate) -> None:
    sim = simulate(blocks(50, 10_000), outbuf_overflow=1000)
    stalled(sim)
    assert sim.dispatcher.served == 1
    assert sim.server.spool.used > 400_000


WITHOUT_SPOOL = {
    "outbuf_overflow": 1000, "outbuf_high_watermark": 20_000, "spool_limit": 0
}  # fmt: skip


def test_stalled_reader_is_cut_sooner_while_a_worker_waits_for_it(simulate: Simulate) -> None:
    sim = simulate(blocks(50, 10_000), **WITHOUT_SPOOL)
    client = stalled(sim)
    assert sim.dispatcher.stops == ["room"]
    sim.advance(29)
    assert not is_closed(client)
    sim.advance(1 + LATE)
    assert is_closed(client)
    assert sim.dispatcher.stops == []
    assert sim.server.spool.used == 0


def test_reader_that_goes_on_frees_the_worker_that_waits(simulate: Simulate) -> None:
    sim = simulate(blocks(50, 10_000), **WITHOUT_SPOOL)
    client = stalled(sim, 12_000)
    for number in range(1, 20):
        sim.at(number * 20, lambda: client.read(12_000))
    sim.advance(385)
    assert sim.dispatcher.stops == ["room"]
    client.is_reading = True
    sim.settle()
    assert len(client.response().body) == 500_000
    assert sim.dispatcher.stops == []
    assert sim.server.spool.used == 0


# -- progress, as the kernel tells it ---------------------------------------------------------


class RealReader:
    """A client on a real socket, of a server whose clock is simulated."""

    def __init__(self, size: int, **settings: Any) -> None:
        self.clock = FakeClock()
        self.event_loop = EventLoop(SocketMap(), clock=self.clock)
        settings = {"host": "127.0.0.1", "port": 0, "threads": 1, **settings}
        self.server = create_server(large(size), map=self.event_loop.map, **settings)
        self.sock = socket.socket()
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        self.sock.settimeout(20)
        self.sock.connect(("127.0.0.1", int(self.server.effective_port)))
        self.sock.sendall(get())

    def __enter__(self) -> RealReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.sock.close()
        self.server.close()
        for channel in list(self.server.active_channels.values()):
            channel.close()
        self.turn()
        self.server.task_dispatcher.shutdown()

    def turn(self, timeout: float = 0) -> None:
        self.server.asyncore.loop(timeout=timeout, map=self.event_loop.map, count=1)

    def fill_the_kernel(self) -> Any:
        """Let the server send until the kernel takes no more; return the channel."""
        deadline = time.monotonic() + 20
        unchanged = 0
        before = -1
        while unchanged < 20:
            assert time.monotonic() < deadline
            self.turn(0.01)
            channels = list(self.server.active_channels.values())
            sent = channels[0].outbound.sent_total if channels else 0
            unchanged = unchanged + 1 if sent == before and sent else 0
            before = sent
        return channels[0]

    @property
    def channel(self) -> Any:
        """The only channel of the server."""
        (channel,) = self.server.active_channels.values()
        return channel

    def unacknowledged(self) -> int | None:
        return tcp.unacknowledged_bytes(self.channel.socket)

    def read_until_acknowledged(self, at_most: int) -> None:
        """Read until the kernel tells less than so many unacknowledged bytes."""
        deadline = time.monotonic() + 20
        self.sock.settimeout(0.2)
        while (self.unacknowledged() or 0) >= at_most:
            assert time.monotonic() < deadline
            self.sock.recv(4096)


needs_acknowledgements = pytest.mark.skipif(
    tcp._unsent_request is None, reason="the system does not tell what was acknowledged"
)

SIZE = 8_000_000


@needs_acknowledgements
def test_reader_that_acknowledges_nothing_is_cut_in_time(no_leaks: None) -> None:
    """What it acknowledged before it stalled is no progress."""
    with RealReader(SIZE) as reader:
        reader.fill_the_kernel()
        begin = reader.clock.now
        while reader.server.active_channels:
            reader.clock.advance(0.5)
            reader.turn()
            assert reader.clock.now - begin < 200
        # What was on its way when the reader stalled is found at the first look, after a
        # quarter of the time.
        assert 119 < reader.clock.now - begin < 152


@needs_acknowledgements
def test_reader_that_acknowledges_is_not_cut_though_the_kernel_takes_no_more(
    no_leaks: None,
) -> None:
    with RealReader(SIZE) as reader:
        reader.fill_the_kernel()
        for _ in range(4):
            reader.clock.advance(100)
            unacknowledged = reader.unacknowledged()
            assert unacknowledged
            # The kernel of the server must have less than before, and the server not look.
            reader.read_until_acknowledged(unacknowledged)
            reader.turn()
            assert reader.server.active_channels


@needs_acknowledgements
def test_reader_that_acknowledges_has_not_stalled(no_leaks: None) -> None:
    """So that it is not the one to be cut when the spool is full."""
    with RealReader(SIZE, outbuf_overflow=1000) as reader:
        reader.fill_the_kernel()
        channel = reader.channel
        begin = reader.clock.now
        channel.stalled_since(begin)
        assert channel.stalled_since(begin + 50) == begin
        unacknowledged = reader.unacknowledged()
        assert unacknowledged
        reader.read_until_acknowledged(unacknowledged)
        assert channel.stalled_since(begin + 50) == begin + 50
