"""A limit for what all connections together hold in memory: reading stops, nothing else."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest

from tests.fakes import FakeClient, Simulation, chunks, get, post, request
from tests.functional.applications import hello, large
from waitress.channel import HTTPChannel, Phase

Simulate = Callable[..., Simulation]

FULL = (
    "connections hold more than 10000 bytes in memory (max_buffered_bytes); nothing more is "
    "read from clients"
)
FREE = "clients are read from again, after {} s"


def length(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with how long the body was."""
    body = b"%d" % len(environ["wsgi.input"].read())
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


def limited(simulate: Simulate, application: Any = length, **settings: Any) -> Simulation:
    return simulate(application, **{"max_buffered_bytes": 10_000, **settings})


def limit_of(sim: Simulation) -> Any:
    return sim.server.channel_class.memory_limit


def half(size: int) -> bytes:
    """Return a head that promises twice so many bytes, and so many of them."""
    return request("POST", "/", f"Content-Length: {2 * size}") + b"x" * size


def test_what_connections_hold_is_counted_as_it_comes_and_goes(simulate: Simulate) -> None:
    sim = limited(simulate, max_buffered_bytes=10**6)
    limit = limit_of(sim)
    sim.connect()
    assert limit.used == 0
    client = sim.connect(half(3000))
    assert 3000 < limit.used < 3200
    second = sim.connect(get()[:-2])
    assert limit.used > 3000 + len(get()) - 2
    client.send(b"x" * 3000)
    sim.dispatcher.is_held = True
    sim.settle()
    assert 6000 < limit.used < 6300
    sim.dispatcher.is_held = False
    sim.settle()
    assert client.response("POST").body == b"6000"
    assert limit.used == len(get()) - 2
    second.reset()
    sim.settle()
    assert limit.used == 0


def test_whole_requests_that_wait_for_a_worker_count(simulate: Simulate) -> None:
    sim = limited(simulate, max_buffered_bytes=10**6)
    sim.dispatcher.is_held = True
    for _ in range(3):
        sim.connect(post("/", b"x" * 3000))
    assert limit_of(sim).used > 9000
    sim.dispatcher.is_held = False
    sim.settle()
    assert limit_of(sim).used == 0


def test_responses_that_wait_for_their_readers_count(simulate: Simulate) -> None:
    sim = limited(simulate, large(5000), max_buffered_bytes=10**6)
    client = sim.knock(capacity=1000)
    client.is_reading = False
    client.send(get())
    sim.settle()
    assert 4000 < limit_of(sim).used < 4300
    client.is_reading = True
    sim.settle()
    assert limit_of(sim).used == 0


def test_what_lies_in_files_does_not_count(simulate: Simulate) -> None:
    sim = limited(
        simulate, large(50_000), inbuf_overflow=1000, outbuf_overflow=1000, max_buffered_bytes=10**6
    )
    sim.connect(half(20_000))
    assert sim.server.spool.used >= 20_000
    reader = sim.knock(capacity=1000)
    reader.is_reading = False
    reader.send(get())
    sim.settle()
    assert sim.server.spool.used >= 60_000
    assert limit_of(sim).used < 2000


def test_above_the_limit_nothing_is_read_from_the_others(simulate: Simulate) -> None:
    sim = limited(simulate)
    sim.dispatcher.is_held = True
    waiting = sim.connect(post("/", b"x" * 12_000))
    others = [sim.connect(get()) for _ in range(3)]
    assert len(sim.dispatcher.queue) == 1
    for _ in range(5):  # The loop has nothing to do meanwhile, and does not spin.
        sim.turn()
        assert sim.network.last_events == 0
    sim.dispatcher.is_held = False
    sim.settle()
    assert waiting.response("POST").body == b"12000"
    assert [client.response("GET").body for client in others] == [b"0"] * 3


def test_slow_reader_of_what_fills_the_memory_stops_the_others_until_it_reads(
    simulate: Simulate,
) -> None:
    sim = limited(simulate, large(12_000))
    reader = sim.knock(capacity=100)
    reader.is_reading = False
    reader.send(get())
    sim.settle()
    other = sim.connect(get())
    sim.advance(10)
    assert not other.data
    reader.is_reading = True
    sim.settle()
    assert len(reader.response("GET").body) == 12_000
    assert len(other.response("GET").body) == 12_000


def test_reader_that_stalls_is_cut_by_its_deadline_and_the_others_go_on(
    simulate: Simulate,
) -> None:
    sim = limited(simulate, large(12_000), send_timeout=20)
    reader = sim.knock(capacity=100)
    reader.is_reading = False
    reader.send(get())
    sim.settle()
    other = sim.connect(get())
    sim.advance(30)
    assert len(other.response("GET").body) == 12_000


def test_reading_goes_on_below_three_quarters_of_the_limit(simulate: Simulate) -> None:
    sim = limited(simulate, large(12_000))
    reader = sim.knock(capacity=0)
    reader.is_reading = False
    reader.send(get())
    sim.settle()
    other = sim.connect(get())
    limit = limit_of(sim)
    reader.server_end.outgoing.capacity = 4000
    sim.settle()
    assert 7500 < limit.used < 10_000
    assert not other.data
    reader.server_end.outgoing.capacity = 5500
    sim.settle()
    assert limit.used < 7500
    assert other.response("GET").status == 200


def test_requests_that_are_halves_are_completed_one_after_the_other(simulate: Simulate) -> None:
    """Together they hold all the memory there is: none may wait for another."""
    sim = limited(simulate)
    clients = [sim.connect(half(3000)) for _ in range(4)]
    limit = limit_of(sim)
    assert limit.is_full
    for client in clients:
        client.send(b"x" * 3000)
    sim.settle()
    assert [client.response("POST").body for client in clients] == [b"6000"] * 4
    assert not limit.is_full
    assert limit.used == 0


def test_only_the_first_of_the_halves_is_read_from(simulate: Simulate) -> None:
    sim = limited(simulate)
    clients = [sim.connect(half(3000)) for _ in range(4)]
    before = limit_of(sim).used
    for client in clients[1:]:
        client.send(b"x" * 3000)
    sim.settle()
    assert limit_of(sim).used == before
    clients[0].send(b"x" * 2000)
    sim.settle()
    assert limit_of(sim).used == before + 2000


def test_half_that_does_not_go_on_is_ended_and_the_next_goes_on(simulate: Simulate) -> None:
    sim = limited(simulate, body_timeout=10)
    clients = [sim.connect(half(3000)) for _ in range(4)]
    for client in clients[1:]:
        client.send(b"x" * 3000)
    sim.advance(9)
    assert not any(client.data for client in clients)
    sim.advance(2)
    assert clients[0].response("POST").status == 408
    assert [client.response("POST").body for client in clients[1:]] == [b"6000"] * 3


def test_no_deadline_of_receiving_runs_while_it_is_the_server_that_does_not_read(
    simulate: Simulate,
) -> None:
    sim = limited(
        simulate,
        large(12_000),
        send_timeout=1000,
        body_timeout=1000,
        body_min_rate=0,
        header_timeout=10,
    )
    sim.connect(half(100))  # The one that may go on, and does not.
    head = sim.connect(get()[:10])
    reader = sim.knock(capacity=100)
    reader.is_reading = False
    reader.send(get())
    sim.settle()
    assert limit_of(sim).is_full
    head.send(get()[10:-2])
    sim.settle()
    channel = sim.channels[1]
    assert channel.phase is Phase.OURS
    assert channel.deadline == inf
    sim.advance(50)
    assert head.is_open
    reader.is_reading = True
    sim.settle()
    sim.advance(9)
    assert not head.data
    head.send(get()[-2:])
    sim.settle()
    assert len(head.response("GET").body) == 12_000


def test_deadlines_run_for_whoever_is_silent_although_it_would_not_be_read_from(
    simulate: Simulate,
) -> None:
    sim = limited(simulate, header_timeout=10)
    sim.connect(half(6000))
    head = sim.connect(get()[:10])
    sim.connect(half(6000))
    assert limit_of(sim).is_full
    sim.advance(11)
    assert head.response("GET").status == 408


def test_connection_whose_turn_it_is_goes_on_at_once(simulate: Simulate) -> None:
    """One that was paused, and is the first when the one before it has ended."""
    sim = limited(simulate)
    clients = [sim.connect(half(3000)) for _ in range(4)]
    clients[1].send(b"x" * 2999)
    sim.settle()
    assert sim.channels[1].is_paused
    clients[0].reset()
    sim.settle()
    assert not sim.channels[0].is_paused
    assert limit_of(sim).used > 3 * 3000 + 2900


def test_client_that_leaves_while_it_is_paused_is_forgotten(simulate: Simulate) -> None:
    sim = limited(simulate)
    clients = [sim.connect(half(3000)) for _ in range(4)]
    clients[3].send(b"x")
    sim.settle()
    for client in reversed(clients):
        client.reset()
        sim.settle()
    assert not sim.channels
    assert limit_of(sim).used == 0
    assert not limit_of(sim).is_full
    assert sim.ask(sim.connect(), get()).body == b"0"


def test_client_that_has_sent_all_and_its_end_is_served_when_there_is_room(
    simulate: Simulate,
) -> None:
    sim = limited(simulate)
    sim.dispatcher.is_held = True
    sim.connect(post("/", b"x" * 12_000))
    client = sim.connect(get())
    client.shutdown()
    sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    assert client.response("GET").body == b"0"
    assert client.ended


def test_idle_connection_with_unread_bytes_is_not_closed_as_idle(simulate: Simulate) -> None:
    sim = limited(simulate, large(12_000), channel_timeout=20, send_timeout=1000)
    idle = sim.connect()
    reader = sim.knock(capacity=100)
    reader.is_reading = False
    reader.send(get())
    sim.settle()
    idle.send(get())
    sim.advance(30)
    assert idle.is_open
    reader.is_reading = True
    sim.settle()
    assert len(idle.response("GET").body) == 12_000


def test_what_is_read_to_be_thrown_away_needs_no_room(simulate: Simulate) -> None:
    sim = limited(simulate, max_request_body_size=100)
    sim.dispatcher.is_held = True
    refused = sim.connect(request("POST", "/", "Content-Length: 1000000") + b"x" * 10)
    sim.connect(post("/", b"x" * 90))
    limit_of(sim).is_full = True
    refused.send(b"x" * 50_000)
    sim.settle()
    assert refused.response("POST").status == 413
    assert not refused.server_end.incoming.data


def test_it_is_told_when_it_begins_and_ends(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = limited(simulate)
    sim.dispatcher.is_held = True
    sim.connect(post("/", b"x" * 12_000))
    assert caplog.messages == [FULL]
    sim.advance(2.5, workers=False)
    sim.dispatcher.is_held = False
    sim.settle()
    sim.advance(10)
    assert caplog.messages[-1].startswith(FREE.format("")[:32])
    assert set(caplog.messages[:-1]) == {FULL}


def test_connection_that_is_closed_by_what_it_sends_is_not_counted_afterwards(
    simulate: Simulate,
) -> None:
    sim = limited(simulate, proxy_protocol=True, trusted_proxy="127.0.0.1")
    client = sim.connect(b"this is no PROXY header\r\n" + b"x" * 20_000)
    assert not client.is_open
    assert limit_of(sim).used == 0
    assert not limit_of(sim).is_full


def test_chunked_bodies_count_too(simulate: Simulate) -> None:
    sim = limited(simulate)
    sim.dispatcher.is_held = True
    client = sim.connect(
        request("POST", "/", "Transfer-Encoding: chunked") + chunks(b"x" * 6000, b"y" * 6000)
    )
    assert limit_of(sim).is_full
    sim.dispatcher.is_held = False
    sim.settle()
    assert client.response("POST").body == b"12000"
    assert limit_of(sim).used == 0


def test_works_together_with_the_limits_of_the_queue(simulate: Simulate) -> None:
    sim = limited(simulate, queue_limit=1, health_prefix="/-")
    sim.dispatcher.is_held = True
    clients: list[FakeClient] = [sim.connect(post("/", b"x" * 6000)) for _ in range(2)]
    assert clients[0].response("POST").status == 503
    assert limit_of(sim).used < 7000
    assert sim.connect(get("/-/livez")).response("GET").body == b"ok\n"
    sim.dispatcher.is_held = False
    sim.settle()
    assert clients[1].response("POST").body == b"6000"


def test_without_the_setting_nothing_is_counted(simulate: Simulate) -> None:
    sim = simulate(hello)
    assert sim.server.channel_class is HTTPChannel
    sim.connect(half(3000))
    stats = sim.server.stats()
    assert (stats.memory_bytes, stats.memory_limit) == (0, 0)


def test_statistics_tell_what_is_held_and_how_much_may_be(simulate: Simulate) -> None:
    sim = limited(simulate)
    sim.connect(half(3000))
    stats = sim.server.stats()
    assert 3000 < stats.memory_bytes < 3200
    assert stats.memory_limit == 10_000


def test_what_a_worker_adds_while_the_connection_closes_is_not_counted(simulate: Simulate) -> None:
    """It finds out, and takes it back."""
    sim = limited(simulate, max_buffered_bytes=10**6)
    client = sim.connect(get())
    channel = sim.channel
    client.reset()
    sim.settle()
    channel.outbound.last_part = b"x" * 5000
    channel.outbound.pending = 5000
    channel._advance()
    assert limit_of(sim).used == 0
