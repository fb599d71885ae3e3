"""Limits: connections (D7), temporary files (D3), and sizes of requests."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import FakeClient, Simulation, chunks, get, post, request
from tests.functional.applications import blocks, hello, large, path
from waitress.channel import HTTPChannel

Simulate = Callable[..., Simulation]

FULL = "total open connections reached the connection limit, no longer accepting new connections"
FREE = "total open connections dropped below the connection limit, listening again"


# -- connections ----------------------------------------------------------------------------


def busy(sim: Simulation, count: int) -> list[FakeClient]:
    """Return clients whose requests wait for a worker: none of them can be closed."""
    sim.dispatcher.is_held = True
    return [sim.connect(get()) for _ in range(count)]


def test_newcomer_waits_while_every_connection_is_in_use(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    sim = simulate(hello, connection_limit=3)
    clients = busy(sim, 3)
    newcomer = sim.knock()
    newcomer.send(get())
    sim.advance(10)
    assert len(sim.channels) == 3
    assert caplog.messages == [FULL]
    assert sim.server.in_connection_overflow
    clients[0].reset()
    sim.settle()
    sim.turn()
    sim.settle()
    assert len(sim.channels) == 3
    sim.dispatcher.is_held = False
    sim.advance(3)
    assert caplog.messages == [FULL, FREE]
    assert newcomer.response().body == b"hello"


def test_newcomer_is_accepted_as_soon_as_a_connection_closes(simulate: Simulate) -> None:
    """Not after a rest, nor at the end of the loop's wait."""
    sim = simulate(hello, connection_limit=2)
    clients = busy(sim, 2)
    sim.knock()
    sim.settle()
    assert sim.listener.backlog
    clients[0].reset()
    sim.settle()
    assert not sim.listener.backlog
    assert len(sim.channels) == 2


def test_limit_is_looked_at_again_every_second(simulate: Simulate) -> None:
    """A connection in use becomes an idle one, which makes room."""
    sim = simulate(hello, connection_limit=1)
    (first,) = busy(sim, 1)
    newcomer = sim.knock()
    newcomer.send(get())
    sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    assert first.response().body == b"hello"
    begin = sim.clock.now
    while not newcomer.data:
        sim.turn(30)
        sim.dispatcher.run()
        sim.network.let_clients_read()
        if first.ended:
            first.close()
        assert sim.clock.now - begin < 3
    assert first.ended


def test_idle_connection_makes_room_for_a_newcomer(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello, connection_limit=3)
    clients = []
    for _ in range(3):
        clients.append(sim.connect())
        sim.advance(2)
    newcomer = sim.connect()
    assert newcomer.is_open
    assert [client.is_open for client in clients] == [False, True, True]
    assert clients[0].ended
    assert caplog.records == []


def test_connection_that_was_just_used_does_not_make_room(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=1)
    first = sim.connect()
    sim.advance(0.5)
    newcomer = sim.knock()
    sim.settle()
    assert first.is_open
    sim.advance(2)
    assert first.ended
    newcomer.send(get())
    sim.settle()
    assert newcomer.response().body == b"hello"


def test_idle_connection_with_a_request_on_its_way_does_not_make_room(
    simulate: Simulate,
) -> None:
    sim = simulate(hello, connection_limit=2)
    clients = [sim.connect()]
    sim.advance(1)
    clients.append(sim.connect())
    sim.advance(5)
    # Both are idle, as far as the loop knows; the older one's request is in the kernel.
    newcomer = sim.knock()
    sim.network.after_poll.append(lambda: clients[0].send(get()))
    sim.settle()
    assert clients[0].response().body == b"hello"
    assert clients[1].ended
    assert newcomer.is_open


def test_nobody_makes_room_while_requests_of_all_are_on_their_way(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=1)
    client = sim.connect()
    sim.advance(5)
    newcomer = sim.knock()
    sim.network.after_poll.append(lambda: client.send(get()))
    sim.turn()
    assert len(sim.channels) == 1
    sim.settle()
    assert client.response().body == b"hello"
    newcomer.close()


def test_slow_head_makes_room_before_any_idle_connection(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=3)
    idle = sim.connect(get())
    older = sim.connect(b"GET / HT")
    sim.advance(1)
    younger = sim.connect(b"GET / HT")
    sim.advance(7)
    newcomer = sim.connect(get())
    assert newcomer.response().body == b"hello"
    assert (idle.is_open, older.is_open, younger.is_open) == (True, False, True)
    assert bytes(older.data).startswith(b"HTTP/1.0 408 ") or older.was_reset


def test_connection_that_only_lingers_makes_room_first(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=2)
    idle = sim.connect()
    lingering = sim.connect(b"BAD\r\n\r\n" + b"x")
    assert lingering.response().status == 400
    sim.advance(2)
    assert sim.connect().is_open
    assert idle.is_open
    assert lingering.server_end.is_closed


def test_refusal_that_was_just_sent_is_not_destroyed_by_a_newcomer(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=1)
    client = sim.connect()
    client.is_reading = False
    client.send(b"BAD\r\n\r\n" + b"x")
    sim.knock()
    sim.settle()
    client.send(b"x")
    sim.settle()
    client.is_reading = True
    sim.settle()
    assert client.response().status == 400


def test_young_head_does_not_make_room(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=1)
    client = sim.connect(b"GET / HT")
    sim.advance(7)
    sim.knock()
    sim.settle()
    assert client.is_open


def test_head_makes_no_room_where_heads_have_no_time_limit(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=1, header_timeout=0, channel_timeout=0)
    client = sim.connect(b"GET / HT")
    sim.advance(3600)
    sim.knock()
    sim.settle()
    assert client.is_open


def test_responses_close_their_connections_when_it_becomes_crowded(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=10)
    clients = [sim.connect() for _ in range(9)]
    assert "connection" not in sim.ask(clients[0], get()).headers
    last = sim.connect(get())
    assert last.response().headers["connection"] == "close"
    assert last.ended
    assert clients[0].is_open


def test_limit_may_be_changed_while_the_server_runs(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit=1)
    busy(sim, 1)
    sim.knock()
    sim.settle()
    assert len(sim.channels) == 1
    sim.server.adj.connection_limit = 2
    sim.advance(2)
    assert len(sim.channels) == 2


@pytest.mark.parametrize("error", [errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM])
def test_lack_of_descriptors_neither_ends_nor_spins_the_server(
    error: int, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)

    def fail() -> None:
        sim.listener.backlog.appendleft(OSError(error, "no more"))

    fail()
    newcomer = sim.knock()
    sim.turn()
    before = sim.clock.now
    sim.turn(30)
    assert 0.8 < sim.clock.now - before < 1.5  # It rests, and looks again by itself.
    fail()
    sim.turn()
    fail()
    sim.advance(2.5)
    assert len(sim.channels) == 1
    assert caplog.messages == ["server accept() threw an exception"]
    sim.advance(70)
    assert caplog.messages[1:] == ["connections are accepted again, after 2.6 s"]
    fail()
    sim.settle()
    assert caplog.messages[2:] == ["server accept() threw an exception"]
    assert sim.ask(newcomer, get()).body == b"hello"


def test_client_that_left_before_it_was_accepted_ends_nothing(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    sim.listener.backlog.append(OSError(errno.EPROTO, "gone"))
    client = sim.connect(get())
    assert client.response().body == b"hello"
    (record,) = caplog.records
    assert record.getMessage() == "server accept() threw an exception"
    assert record.exc_info


def test_errors_of_accept_are_not_logged_where_socket_errors_are_not(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello, log_socket_errors=False)
    sim.listener.backlog.append(OSError(errno.EPROTO, "gone"))
    sim.settle()
    assert caplog.records == []


def test_channel_that_cannot_be_made_costs_its_client_only(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(HTTPChannel):
        def __init__(self, *args: Any, **kw: Any) -> None:
            raise LookupError("no channel today")

    sim = simulate(hello)
    sim.server.channel_class = Broken
    client = sim.connect()
    assert not client.is_open
    sim.server.channel_class = HTTPChannel
    assert sim.connect(get()).response().body == b"hello"
    assert len(caplog.records) == 1


# -- temporary files: responses -----------------------------------------------------------------

SMALL = {"outbuf_overflow": 1000, "outbuf_high_watermark": 20_000}


def reader(sim: Simulation, where: str = "/") -> FakeClient:
    """Return a client that asks and does not read."""
    client = sim.knock(1000)
    client.is_reading = False
    client.send(get(where))
    sim.settle()
    return client


def test_response_beyond_the_watermark_is_spooled_and_the_worker_free(
    simulate: Simulate, tmp_path: Path
) -> None:
    sim = simulate(blocks(20, 10_000), spool_dir=str(tmp_path), **SMALL)
    client = reader(sim)
    assert sim.dispatcher.served == 1
    assert sim.server.spool.used >= 190_000
    client.is_reading = True
    sim.settle()
    assert client.response().body == b"x" * 200_000
    assert sim.server.spool.used == 0


def test_response_within_the_watermark_needs_no_spool(simulate: Simulate) -> None:
    sim = simulate(blocks(2, 10_000), spool_limit=0, **SMALL)
    reader(sim)
    assert sim.dispatcher.served == 1


def test_worker_waits_while_the_spool_is_spent_and_no_reader_has_stalled(
    simulate: Simulate,
) -> None:
    sim = simulate(blocks(20, 10_000), spool_limit=50_000, **SMALL)
    client = reader(sim)
    assert sim.dispatcher.stops == ["room"]
    assert 40_000 < sim.server.spool.used < 70_000
    client.is_reading = True
    sim.settle()
    assert client.response().body == b"x" * 200_000
    assert sim.dispatcher.stops == []
    assert sim.server.spool.used == 0


def test_worker_that_waits_goes_on_when_another_response_gives_room(simulate: Simulate) -> None:
    sim = simulate(blocks(6, 10_000), spool_limit=70_000, **SMALL)
    first = reader(sim)
    second = reader(sim)
    assert sim.dispatcher.stops == ["room"]
    first.is_reading = True
    sim.settle()
    assert first.response().body == b"x" * 60_000
    assert sim.dispatcher.stops == []
    second.is_reading = True
    sim.settle()
    assert second.response().body == b"x" * 60_000


def test_reader_that_has_stalled_longest_is_cut_when_the_spool_is_spent(
    simulate: Simulate,
) -> None:
    sim = simulate(blocks(6, 10_000), spool_limit=130_000, **SMALL)
    older = reader(sim)
    sim.advance(3)
    younger = reader(sim)
    sim.advance(10)
    assert not older.server_end.is_closed
    newest = reader(sim)
    sim.advance(2)
    ends = [client.server_end.is_closed for client in (older, younger, newest)]
    assert ends == [True, False, False]
    assert sim.dispatcher.stops == []


def test_reader_that_has_just_read_is_not_the_one_to_be_cut(simulate: Simulate) -> None:
    sim = simulate(blocks(6, 10_000), spool_limit=130_000, **SMALL)
    reading = reader(sim)
    stalled = reader(sim)
    sim.advance(10)
    reading.read(500)
    sim.settle()
    reader(sim)
    sim.advance(2)
    assert not reading.server_end.is_closed
    assert stalled.server_end.is_closed


def test_reader_that_holds_none_of_the_spool_is_not_cut_for_it(simulate: Simulate) -> None:
    """Its end would give no room."""

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        size = 1 if environ["PATH_INFO"] == "/small" else 6
        return blocks(size, 10_000)(environ, start_response)

    sim = simulate(
        application, spool_limit=60_000, outbuf_overflow=20_000, outbuf_high_watermark=20_000
    )
    modest = reader(sim, "/small")
    assert sim.server.spool.used == 0
    sim.advance(60)
    greedy = reader(sim)
    sim.advance(10)
    reader(sim)
    sim.advance(10)
    assert greedy.server_end.is_closed
    assert not modest.server_end.is_closed


def test_worker_that_waits_goes_on_as_soon_as_its_reader_is_below_the_watermark(
    simulate: Simulate,
) -> None:
    """Whatever the spool: the files themselves are given back much later."""
    sim = simulate(blocks(20, 10_000), spool_limit=0, **SMALL)
    client = reader(sim)
    outbound = sim.channel.outbound
    made = outbound.sent_total + outbound.pending
    assert outbound.pending > 20_000
    client.read(1000)
    sim.settle()
    assert (outbound.sent_total + outbound.pending) == made
    for _ in range(11):
        client.read(1000)
        sim.settle()
    assert (outbound.sent_total + outbound.pending) == made + 10_000
    assert sim.dispatcher.stops == ["room"]


def test_client_that_leaves_frees_the_worker_that_waits_for_it(simulate: Simulate) -> None:
    sim = simulate(blocks(20, 10_000), spool_limit=0, **SMALL)
    client = reader(sim)
    assert sim.dispatcher.stops == ["room"]
    client.reset()
    sim.settle()
    assert sim.dispatcher.stops == []
    assert sim.server.spool.used == 0


def test_endless_response_takes_no_more_of_the_disk_than_is_unread(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        for _ in range(300):
            yield b"x" * 1_000_000

    sim = simulate(application, spool_limit=5_000_000, **SMALL)
    client = sim.knock(1 << 20)
    client.send(get())
    most = 0
    total = 0
    while not sim.dispatcher.served:
        sim.turn()
        sim.dispatcher.run()
        most = max(most, sim.server.spool.used)
        total += len(client.data)
        client.data.clear()
    sim.settle()
    total += len(client.data)
    assert total > 300_000_000
    assert most < 64 * 1024 * 1024 + 6_000_000  # One file, and what may be unread.


# -- temporary files: requests -------------------------------------------------------------------


def test_body_that_finds_no_room_is_answered_507(simulate: Simulate) -> None:
    sim = simulate(path, inbuf_overflow=1000, spool_limit=50_000, **SMALL)
    client = sim.connect(request("POST", "/", "Content-Length: 100000"))
    for _ in range(10):
        client.send(b"x" * 10_000)
        sim.settle()
    assert client.response().status == 507
    assert client.ended
    assert sim.server.spool.used == 0
    assert sim.dispatcher.served == 0


def test_body_in_chunks_that_finds_no_room_is_answered_507(simulate: Simulate) -> None:
    sim = simulate(path, inbuf_overflow=1000, spool_limit=0, **SMALL)
    head = request("POST", "/", "Transfer-Encoding: chunked")
    client = sim.connect(head + chunks(*[b"x" * 1000] * 30))
    assert client.response().status == 507


def test_body_within_the_watermark_is_read_whatever_the_spool(simulate: Simulate) -> None:
    sim = simulate(path, inbuf_overflow=1000, spool_limit=0, **SMALL)
    assert len(sim.connect(post("/", b"x" * 19_000)).response().body) == 19_001


def test_bodies_and_responses_share_one_spool(simulate: Simulate) -> None:
    sim = simulate(blocks(6, 10_000), inbuf_overflow=1000, spool_limit=70_000, **SMALL)
    reader(sim)
    client = sim.connect(post("/", b"x" * 30_000))
    assert client.response().status == 507


def test_body_that_cannot_be_written_is_answered_507(simulate: Simulate, tmp_path: Path) -> None:
    """The disk is full, or the directory is gone."""
    place = tmp_path / "spool"
    place.mkdir()
    sim = simulate(path, inbuf_overflow=1000, spool_dir=str(place))
    place.rmdir()
    client = sim.connect(post("/", b"x" * 30_000))
    assert client.response().status == 507
    assert sim.connect(post("/", b"x")).response().body == b"/x"


def test_response_that_cannot_be_spooled_is_cut_and_the_worker_lives(
    simulate: Simulate, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "spool"
    place.mkdir()
    sim = simulate(blocks(6, 10_000), spool_dir=str(place), **SMALL)
    place.rmdir()
    client = reader(sim)
    client.is_reading = True
    sim.settle()
    assert not client.is_open
    assert sim.server.spool.used == 0
    assert sim.dispatcher.served == 1
    assert caplog.messages == ["Exception while serving /"]


# -- sizes of requests ----------------------------------------------------------------------


def test_head_below_the_limit_is_served_and_one_at_the_limit_refused(simulate: Simulate) -> None:
    sim = simulate(hello, max_request_header_size=1000)
    spare = 1000 - len(get("/", "X: "))
    assert sim.connect(get("/", "X: " + "x" * (spare - 1))).response().status == 200
    assert sim.connect(get("/", "X: " + "x" * spare)).response().status == 431


def test_endless_head_is_refused_when_it_reaches_the_limit(simulate: Simulate) -> None:
    sim = simulate(hello, max_request_header_size=1000)
    client = sim.connect(b"GET / HTTP/1.1\r\nX: " + b"x" * 2000)
    assert client.response().status == 431
    assert client.ended


def test_too_many_fields_are_refused(simulate: Simulate) -> None:
    sim = simulate(hello)
    assert sim.connect(get("/", *["A: 1"] * 199)).response().status == 200
    assert sim.connect(get("/", *["A: 1"] * 200)).response().status == 431


def test_body_below_the_limit_is_served_and_one_at_the_limit_refused(simulate: Simulate) -> None:
    sim = simulate(path, max_request_body_size=100)
    assert sim.connect(post("/", b"x" * 99)).response().status == 200
    client = sim.connect(post("/", b"x" * 100))
    assert client.response().status == 413
    assert client.ended


def test_body_in_chunks_is_refused_when_it_reaches_the_limit(simulate: Simulate) -> None:
    sim = simulate(path, max_request_body_size=100)
    head = request("POST", "/", "Transfer-Encoding: chunked")
    assert sim.connect(head + chunks(b"x" * 50)).response().status == 200
    assert sim.connect(head + chunks(b"x" * 150)).response().status == 413


def test_one_client_does_not_keep_the_loop_from_the_others(simulate: Simulate) -> None:
    """What one connection may send in a turn is bounded."""
    sim = simulate(large(10_000_000))
    greedy = sim.connect()
    greedy.send(get())
    sim.turn()
    sim.dispatcher.run()
    sim.turn()
    sim.turn()
    sent = sum(map(len, greedy.server_end.sends))
    assert 0 < sent <= 3 * 1024 * 1024
    sim.settle()
    assert len(greedy.response().body) == 10_000_000
