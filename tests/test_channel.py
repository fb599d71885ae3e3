"""One connection, seen from the loop: its states, its doors, its errors."""

from __future__ import annotations

import errno
import io
import itertools
import os
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from math import inf
from typing import Any

import pytest

from tests.fakes import FakeClient, RecordingObserver, Simulation, get, post, request
from tests.functional.applications import Never, hello, large, path
from tests.looping import InThread, may_fork
from waitress import forks, tcp
from waitress.adjustments import Adjustments
from waitress.base_server import BaseWSGIServer
from waitress.buffers import BytesIOBasedBuffer, ReadOnlyFileBasedBuffer
from waitress.channel import SEND_BYTES, ChannelState, ClientDisconnected, HTTPChannel, Phase
from waitress.eventloop import ExitNow
from waitress.outbound import MOST_PARTS
from waitress.parser import HTTPRequestParser
from waitress.request_queue import RequestQueue
from waitress.utilities import BadRequest

Simulate = Callable[..., Simulation]

OPEN, DRAINING = ChannelState.OPEN, ChannelState.DRAINING
LINGERING, CLOSED = ChannelState.LINGERING, ChannelState.CLOSED


def channel_class(**attributes: Any) -> type[HTTPChannel]:
    """Return a channel class with these attributes."""
    return type("Channel", (HTTPChannel,), attributes)


# -- states -----------------------------------------------------------------------------------


def in_state(state: ChannelState, simulate: Simulate) -> tuple[Simulation, FakeClient, Any]:
    """Return a channel that was brought into a state by what brings it there in life."""
    sim = simulate(large(5000))
    client = sim.knock(1000)
    client.is_reading = False
    sim.settle()
    channel = sim.channel
    if state is DRAINING:
        client.send(get("/", "Connection: close"))
    elif state is LINGERING:
        client.send(b"BAD\r\n\r\n" + b"more")
    elif state is CLOSED:
        channel.close()
    sim.settle()
    assert channel.state is state
    return sim, client, channel


def more_bytes(sim: Simulation, client: FakeClient, channel: Any) -> None:
    if not client.server_end.is_closed:
        client.send(b"GET / HT")


def half_close(sim: Simulation, client: FakeClient, channel: Any) -> None:
    client.shutdown()


def reset(sim: Simulation, client: FakeClient, channel: Any) -> None:
    client.reset()


def order_close(sim: Simulation, client: FakeClient, channel: Any) -> None:
    channel.will_close = True


def order_drain(sim: Simulation, client: FakeClient, channel: Any) -> None:
    channel.close_when_flushed = True


def close(sim: Simulation, client: FakeClient, channel: Any) -> None:
    channel.close()


def handle_close(sim: Simulation, client: FakeClient, channel: Any) -> None:
    channel.handle_close()


def touch(sim: Simulation, client: FakeClient, channel: Any) -> None:
    sim.event_loop.touch_threadsafe(channel)


def all_is_read(sim: Simulation, client: FakeClient, channel: Any) -> None:
    client.is_reading = True


def time_passes(sim: Simulation, client: FakeClient, channel: Any) -> None:
    sim.advance(121)


NEXT = {
    (OPEN, more_bytes): OPEN,
    (OPEN, half_close): CLOSED,
    (OPEN, reset): CLOSED,
    (OPEN, order_close): CLOSED,
    (OPEN, order_drain): CLOSED,
    (OPEN, close): CLOSED,
    (OPEN, handle_close): CLOSED,
    (OPEN, touch): OPEN,
    (OPEN, all_is_read): OPEN,
    (OPEN, time_passes): CLOSED,
    (DRAINING, more_bytes): DRAINING,
    (DRAINING, half_close): DRAINING,
    (DRAINING, reset): CLOSED,
    (DRAINING, order_close): CLOSED,
    (DRAINING, order_drain): DRAINING,
    (DRAINING, close): CLOSED,
    (DRAINING, handle_close): CLOSED,
    (DRAINING, touch): DRAINING,
    (DRAINING, all_is_read): CLOSED,
    (DRAINING, time_passes): CLOSED,
    (LINGERING, more_bytes): LINGERING,
    (LINGERING, half_close): CLOSED,
    (LINGERING, reset): CLOSED,
    (LINGERING, order_close): CLOSED,
    (LINGERING, order_drain): LINGERING,
    (LINGERING, close): CLOSED,
    (LINGERING, handle_close): CLOSED,
    (LINGERING, touch): LINGERING,
    (LINGERING, all_is_read): LINGERING,
    (LINGERING, time_passes): CLOSED,
    (CLOSED, more_bytes): CLOSED,
    (CLOSED, order_close): CLOSED,
    (CLOSED, order_drain): CLOSED,
    (CLOSED, close): CLOSED,
    (CLOSED, handle_close): CLOSED,
    (CLOSED, touch): CLOSED,
    (CLOSED, all_is_read): CLOSED,
    (CLOSED, time_passes): CLOSED,
}


@pytest.mark.parametrize(
    ("state", "event"), NEXT, ids=lambda what: getattr(what, "name", None) or what.__name__
)
def test_each_event_in_each_state_leads_to_the_one_that_the_table_tells(
    state: ChannelState, event: Callable[..., None], simulate: Simulate
) -> None:
    sim, client, channel = in_state(state, simulate)
    event(sim, client, channel)
    sim.settle()
    assert channel.state is NEXT[state, event]
    is_closed = channel.state is CLOSED
    assert client.server_end.is_closed is is_closed
    assert channel.will_close is is_closed
    assert bool(sim.server.active_channels) is not is_closed
    assert bool(sim.server.clients.channels) is not is_closed
    if is_closed:
        assert len(sim.event_loop.deadlines) == 0


def test_phases_tell_whom_the_connection_waits_for(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("at work")
        return large(5000)(environ, start_response)

    sim = simulate(application)
    client = sim.knock(1000)
    client.is_reading = False
    sim.settle()
    channel = sim.channel
    phases = [channel.phase]
    for data in (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Le", b"ngth: 3\r\n\r\nab", b"c"):
        client.send(data)
        sim.settle()
        phases.append(channel.phase)
    sim.dispatcher.resume("at work")
    sim.settle()
    phases.append(channel.phase)
    client.is_reading = True
    sim.settle()
    phases.append(channel.phase)
    client.send(b"BAD\r\n\r\nx")
    sim.settle()
    phases.append(channel.phase)
    assert phases == [
        Phase.IDLE,
        Phase.HEAD,
        Phase.BODY,
        Phase.OURS,
        Phase.SEND,
        Phase.IDLE,
        Phase.LINGER,
    ]


def test_moves_are_told_to_who_debugs(simulate: Simulate, caplog: pytest.LogCaptureFixture) -> None:
    sim = simulate(hello)
    caplog.set_level("DEBUG", logger="waitress.channel")
    client = sim.connect(b"BAD\r\n\r\n" + b"x")
    number = sim.channel.channel_id
    client.close()
    sim.settle()
    told = [each.getMessage() for each in caplog.records if each.name == "waitress.channel"]
    assert told == [
        f"channel {number} is DRAINING: a request was refused",
        f"channel {number} is LINGERING: the client may still be sending",
        f"channel {number} is CLOSED: closed",
    ]


# -- what outsiders read and write --------------------------------------------------------------


def test_new_channel_is_open_and_empty(simulate: Simulate) -> None:
    sim = simulate(hello)
    before = sim.clock()
    client = sim.connect()
    channel = sim.channel
    assert channel.connected
    assert (channel.will_close, channel.close_when_flushed) == (False, False)
    assert (channel.requests, channel.request) == ([], None)
    assert (channel.total_outbufs_len, list(channel.outbufs)) == (0, [])
    assert channel.sendbuf_len == 65536
    assert channel.sent_continue is False
    assert before <= channel.creation_time <= sim.clock()
    assert (channel.readable(), channel.writable()) == (True, False)
    assert channel.addr == ("127.0.0.1", 40000 + client.server_end.fd)
    assert channel.server is sim.server
    assert channel.adj is sim.server.adj
    assert channel.socket is client.server_end


def test_channels_are_numbered(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.connect()
    sim.connect()
    first, second = sim.channels
    assert second.channel_id == first.channel_id + 1


def test_request_being_received_and_those_that_wait_can_be_looked_at(simulate: Simulate) -> None:
    sim = simulate(hello, channel_request_lookahead=2)
    sim.dispatcher.is_held = True
    sim.connect(get("/a") + get("/b") + b"GET /c HTTP/1.1\r\n")
    channel = sim.channel
    assert [each.path for each in channel.requests] == ["/a", "/b"]
    assert not channel.request.completed
    assert channel.readable()


def test_queue_can_be_emptied_from_outside(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.dispatcher.is_held = True
    client = sim.connect(get("/a") + get("/b"))
    sim.channel.requests = []
    sim.dispatcher.is_held = False
    sim.settle()
    assert client.data == b""
    assert sim.channel.requests == []
    assert sim.ask(client, get("/c")).body == b"hello"


def test_channel_whose_queue_was_emptied_from_outside_can_be_closed(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.dispatcher.is_held = True
    sim.connect(get("/a"))
    channel = sim.channel
    channel.requests = []
    assert channel.unfinished_request() is None
    channel.close()
    assert channel.state is ChannelState.CLOSED


def test_request_put_in_from_outside_can_be_served_by_hand(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect()
    channel = sim.channel
    request = HTTPRequestParser(channel.adj)
    request.received(get("/"))
    channel.requests = [request]
    channel.service()
    sim.settle()
    assert client.response().body == b"hello"


def test_unsent_bytes_can_be_counted(simulate: Simulate) -> None:
    sim = simulate(large(5000))
    client = sim.knock(1000)
    client.is_reading = False
    client.send(get())
    sim.settle()
    channel = sim.channel
    assert 4000 < channel.total_outbufs_len < 4300
    assert sum(map(len, channel.outbufs)) == channel.total_outbufs_len
    assert (channel.readable(), channel.writable()) == (False, True)


def test_last_activity_is_the_time_of_the_last_byte(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect(get())
    channel = sim.channel
    assert abs(sim.clock() - channel.last_activity) < 5
    sim.advance(50)
    assert 45 < sim.clock() - channel.last_activity < 55
    client.send(b"G")
    sim.settle()
    assert abs(sim.clock() - channel.last_activity) < 5


def test_last_activity_can_be_set(simulate: Simulate) -> None:
    """By those who sweep by hand."""
    sim = simulate(hello)
    client = sim.connect()
    sim.channel.last_activity = sim.clock() - 60
    sim.server.maintenance(sim.clock() + 59)
    sim.settle()
    assert client.is_open
    sim.server.maintenance(sim.clock() + 61)
    sim.settle()
    assert client.ended


def test_orders_can_be_withdrawn_before_they_are_carried_out(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect()
    channel = sim.channel
    channel.will_close = channel.close_when_flushed = True
    assert channel.writable()
    channel.will_close = channel.close_when_flushed = False
    assert not channel.writable()
    sim.settle()
    assert client.is_open


@pytest.mark.parametrize("order", ["will_close", "close_when_flushed"])
def test_bytes_that_come_after_an_order_to_close_are_dropped(
    order: str, simulate: Simulate
) -> None:
    """CVE-2024-49768."""
    application = Never()
    sim = simulate(application)
    sim.connect()
    channel = sim.channel
    setattr(channel, order, True)
    assert channel.received(get()) is False
    assert channel.requests == []
    assert not application.was_run


def test_no_bytes_are_of_no_interest(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.connect()
    assert sim.channel.received(b"") is False
    assert sim.channel.received(b"GET / HT") is True


# -- overrides ----------------------------------------------------------------------------------


def test_subclass_that_answers_readable_is_asked(simulate: Simulate) -> None:
    class Shy(HTTPChannel):
        is_shy = True

        def readable(self) -> bool:
            return not self.is_shy and super().readable()

    sim = simulate(hello)
    sim.server.channel_class = Shy
    client = sim.connect(get())
    assert client.data == b""
    sim.channel.is_shy = False
    sim.settle()
    assert client.response().body == b"hello"


def test_subclass_that_answers_writable_is_asked(simulate: Simulate) -> None:
    class Eager(HTTPChannel):
        asked = 0

        def writable(self) -> bool:
            self.asked += 1
            return super().writable()

    sim = simulate(hello)
    sim.server.channel_class = Eager
    client = sim.connect(get())
    assert client.response().body == b"hello"
    assert sim.channel.asked > 0


def test_write_soon_of_a_subclass_sees_every_byte(simulate: Simulate) -> None:
    written: list[bytes] = []

    class Noting(HTTPChannel):
        def write_soon(self, data: Any) -> int:
            written.append(data)
            return super().write_soon(data)

    sim = simulate(hello)
    sim.server.channel_class = Noting
    client = sim.connect(get())
    assert written == [bytes(client.data)]


def test_write_soon_replaced_on_the_instance_sees_every_byte(simulate: Simulate) -> None:
    written: list[bytes] = []
    sim = simulate(hello)
    client = sim.connect()
    sim.channel.write_soon = written.append
    client.send(get())
    sim.settle()
    assert b"".join(written).endswith(b"hello")
    assert client.data == b""


def test_send_of_a_subclass_sees_every_byte_as_bytes(simulate: Simulate) -> None:
    sent: list[bytes] = []

    class Noting(HTTPChannel):
        def send(self, data: Any, do_close: bool = True) -> int:
            sent.append(data)
            return super().send(data, do_close)

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"x" * 20_000, b"y" * 300_000]

    sim = simulate(application)
    sim.server.channel_class = Noting
    client = sim.connect(get())
    assert {type(data) for data in sent} == {bytes}
    assert b"".join(sent) == bytes(client.data)


def test_exception_in_a_subclass_costs_one_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(HTTPChannel):
        def received(self, data: bytes) -> bool:
            raise LookupError("not today")

    sim = simulate(hello)
    other = sim.connect()
    sim.server.channel_class = Broken
    client = sim.connect(get())
    assert not client.is_open
    (message,) = caplog.messages
    assert message.startswith("uncaptured python exception, closing channel")
    assert sim.ask(other, get()).body == b"hello"


class StandInParser:
    """A parser with what a channel may ask of one, and no more; every 3 octets a request."""

    completed = False
    empty = False
    error: Any = None
    expect_continue = False
    headers_finished = False
    connection_close = False
    version = "1.1"
    path = "/stand-in"

    def __init__(self, adj: Any) -> None:
        self.headers: dict[str, str] = {}
        self.data = b""
        self.is_closed = False

    def received(self, data: bytes) -> int:
        taken = data[: 3 - len(self.data)]
        self.data += taken
        self.completed = self.headers_finished = len(self.data) == 3
        if self.data == b"bad":
            self.error = BadRequest("bad it is")
        return len(taken)

    def close(self) -> None:
        self.is_closed = True


class AnsweringTask:
    """A task that answers with its request."""

    close_on_finish = False
    wrote_header = False

    def __init__(self, channel: Any, request: Any) -> None:
        self.channel = channel
        self.request = request

    def service(self) -> None:
        self.channel.write_soon(b"<" + self.request.data + b">")


def test_stand_in_for_a_parser_makes_requests(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.channel_class = channel_class(parser_class=StandInParser, task_class=AnsweringTask)
    client = sim.connect(b"abcdefgh")
    client.send(b"i")
    sim.settle()
    assert bytes(client.data) == b"<abc><def><ghi>"


def test_stand_in_for_a_request_may_come_from_outside(simulate: Simulate) -> None:
    """Of such a one the channel has seen nothing before."""
    sim = simulate(hello)
    sim.server.channel_class = channel_class(task_class=AnsweringTask)
    client = sim.connect()
    request = StandInParser(sim.server.adj)
    request.received(b"abc")
    sim.channel.requests = [request]
    sim.settle()
    assert bytes(client.data) == b"<abc>"
    assert request.is_closed
    assert client.is_open


def test_error_of_a_stand_in_for_a_parser_is_answered(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.channel_class = channel_class(parser_class=StandInParser, task_class=AnsweringTask)
    client = sim.connect(b"abcbadxyz")
    assert bytes(client.data).startswith(b"<abc>HTTP/1.1 400 Bad Request\r\n")
    assert client.ended


def test_parser_that_takes_nothing_does_not_hold_the_loop(simulate: Simulate) -> None:
    class Picky(StandInParser):
        def received(self, data: bytes) -> int:
            return 0

    sim = simulate(hello)
    sim.server.channel_class = channel_class(parser_class=Picky)
    client = sim.connect(b"abc")
    assert client.is_open
    client.close()
    sim.settle()
    assert not sim.channels


def test_parser_that_has_no_number_for_its_requests_is_given_one(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.channel_class = channel_class(parser_class=StandInParser, task_class=AnsweringTask)
    sim.server.observer = observer = RecordingObserver()
    sim.connect(b"abcdef")
    (numbers,) = (what for name, what in observer.events if name == "queued")
    assert numbers[1] == numbers[0] + 1


def test_request_that_cannot_be_released_is_logged(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    class Clinging(StandInParser):
        def close(self) -> None:
            raise LookupError("no")

    sim = simulate(hello)
    sim.server.channel_class = channel_class(parser_class=Clinging, task_class=AnsweringTask)
    client = sim.connect(b"abc")
    assert bytes(client.data) == b"<abc>"
    assert caplog.messages == ["Unexpected error when closing a request"]


# -- errors of the socket -----------------------------------------------------------------------


def test_refusal_that_cannot_be_sent_closes_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(data: bytes) -> int:
        raise OSError(errno.EPIPE, "gone")

    sim = simulate(hello)
    client = sim.connect()
    client.server_end.send = fail  # type: ignore[method-assign]
    client.send(b"BAD\r\n\r\n")
    sim.settle()
    assert client.server_end.is_closed
    assert caplog.messages == []


@pytest.mark.parametrize("logs", [True, False])
@pytest.mark.parametrize("method", ["recv", "send"])
def test_error_of_the_socket_costs_one_connection(
    method: str, logs: bool, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError(errno.EIO, "the cable")

    sim = simulate(hello, log_socket_errors=logs)
    client = sim.connect()
    setattr(client.server_end, method, fail)
    client.send(get())
    sim.settle()
    assert client.server_end.is_closed
    assert caplog.messages == (["Socket error"] if logs else [])
    assert sim.connect(get()).response().body == b"hello"


def test_false_alarm_is_harmless(simulate: Simulate) -> None:
    """An event may be told of a socket that has nothing to read."""
    sim = simulate(hello)
    client = sim.connect(b"GET / HT")
    sim.channel.handle_read()
    assert client.is_open
    lingering = sim.connect(b"BAD\r\n\r\n" + b"x")
    channel = sim.channels[-1]
    channel.handle_read()
    assert channel.state is LINGERING
    assert (channel.readable(), channel.writable()) == (True, False)
    lingering.close()
    sim.settle()
    assert channel.state is CLOSED


def test_connection_that_cannot_be_half_closed_is_closed(simulate: Simulate) -> None:
    def fail(how: int) -> None:
        raise OSError(errno.ENOTCONN, "gone")

    sim = simulate(hello)
    client = sim.connect()
    client.server_end.shutdown = fail  # type: ignore[method-assign]
    client.send(b"BAD\r\n\r\n" + b"x")
    sim.settle()
    assert not sim.channels


def test_socket_that_cannot_be_asked_for_unread_bytes_is_closed(simulate: Simulate) -> None:
    """The last read before the close fails."""
    sim = simulate(hello)
    client = sim.connect()
    recv = client.server_end.recv
    calls = itertools.count()

    def fail_later(size: int) -> bytes:
        if next(calls):
            raise OSError(errno.EIO, "the cable")
        return recv(size)

    client.server_end.recv = fail_later  # type: ignore[method-assign]
    client.send(get("/", "Connection: close"))
    sim.settle()
    assert client.response().body == b"hello"
    assert not sim.channels


# -- files of the application's -------------------------------------------------------------------


class BadFile(ReadOnlyFileBasedBuffer):
    """A wrapped file with an error in one of its methods, when the loop uses it."""

    read_error: Exception | None = None
    close_error: Exception | None = None
    is_prepared = False

    def __init__(self, data: bytes) -> None:
        super().__init__(io.BytesIO(data))

    def get(self, numbytes: int = -1, skip: bool = False) -> bytes:
        if self.read_error is not None and self.is_prepared:
            raise self.read_error
        return super().get(numbytes, skip)

    def close(self) -> None:
        super().close()
        if self.close_error is not None:
            raise self.close_error


def sending(file: Any) -> Any:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return file

    return application


def half_sent(simulate: Simulate, file: BadFile) -> tuple[Simulation, FakeClient]:
    """Return a connection on which some of a file was sent, and not all."""
    sim = simulate(sending(file))
    client = sim.knock(1000)
    client.is_reading = False
    client.send(get())
    sim.settle()
    file.is_prepared = True
    return sim, client


def test_file_that_cannot_be_read_cuts_the_response(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    # Told whatever the setting says: it is not the socket's error.
    for error in (OSError(errno.EIO, "the disk"), ValueError("odd")):
        file = BadFile(b"x" * 5000)
        file.read_error = error
        sim, client = half_sent(simulate, file)
        client.is_reading = True
        sim.settle()
        assert 1000 <= len(client.data) < 5000
        assert not client.is_open
        assert file.file.closed
        assert caplog.messages[-1] == "Unexpected exception when flushing"


def test_file_that_shrank_cuts_the_response(simulate: Simulate) -> None:
    file = BadFile(b"x" * 5000)
    sim, client = half_sent(simulate, file)
    file.file.truncate(2000)
    client.is_reading = True
    sim.settle()
    assert len(client.data) < 5000
    assert not client.is_open


def test_file_that_cannot_be_closed_after_it_was_sent_is_logged(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    file = BadFile(b"x" * 5000)
    file.close_error = ValueError("odd")
    sim, client = half_sent(simulate, file)
    client.is_reading = True
    sim.settle()
    assert len(client.response().body) == 5000
    assert client.is_open
    assert caplog.messages == ["Unexpected error when closing an outbuf"]


def test_file_that_cannot_be_closed_when_the_client_leaves_is_logged(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    file = BadFile(b"x" * 5000)
    file.close_error = ValueError("odd")
    sim, client = half_sent(simulate, file)
    client.reset()
    sim.settle()
    assert not sim.channels
    assert caplog.messages == ["Unknown exception while trying to close outbuf"]


def test_body_is_kept_wherever_a_parser_of_the_users_wants_it(simulate: Simulate) -> None:
    class Parser(HTTPRequestParser):
        def _new_buffer(self, expected: int = 0) -> Any:
            return BytesIOBasedBuffer()

    def mirror(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    sim = simulate(mirror, inbuf_overflow=1)
    sim.server.channel_class = channel_class(parser_class=Parser)
    assert sim.ask(sim.connect(), post("/", b"abc")).body == b"abc"


def test_parser_that_takes_more_than_there_is_has_taken_all(simulate: Simulate) -> None:
    class Parser(HTTPRequestParser):
        def received(self, data: bytes) -> int:
            return super().received(data) + 5

    sim = simulate(hello)
    sim.server.channel_class = channel_class(parser_class=Parser)
    client = sim.connect()
    for _ in range(2):
        assert sim.ask(client, get()).body == b"hello"


def test_one_piece_larger_than_a_turn_allows_leaves_in_several(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect()
    sizes = []
    plain_send = sim.channel.send
    sim.channel.send = lambda data: sizes.append(len(data)) or plain_send(data)
    sim.channel.outbound.append_last(b"x" * (SEND_BYTES + 5), SEND_BYTES + 5, sim.server.adj)
    sim.channel.handle_write()
    sim.settle()
    assert sizes[0] == SEND_BYTES
    assert client.data == b"x" * (SEND_BYTES + 5)


def test_invitation_that_the_kernel_does_not_take_is_sent_while_the_body_is_served(
    simulate: Simulate,
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sim.dispatcher.pause("busy")
        return hello(environ, start_response)

    sim = simulate(application)
    client = sim.knock(capacity=10)
    client.is_reading = False
    client.send(request("POST", "/", "Expect: 100-continue", "Content-Length: 5") + b"hello")
    sim.settle()
    client.is_reading = True
    sim.settle()
    assert client.data == b"HTTP/1.1 100 Continue\r\n\r\n"
    sim.advance(300)
    sim.dispatcher.resume("busy")
    sim.settle()
    assert client.data.endswith(b"\r\n\r\nhello")


@pytest.mark.parametrize("comes_behind", [True, False])
def test_next_request_waits_for_the_bytes_that_the_last_worker_left_in_its_last_moment(
    simulate: Simulate, comes_behind: bool
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/first":
            sim.dispatcher.pause("busy")
        return hello(environ, start_response)

    sim = simulate(application, outbuf_high_watermark=0, channel_request_lookahead=5)
    client = sim.knock(capacity=10)
    client.is_reading = False
    client.send(get("/first"))
    sim.settle()
    channel = sim.channel
    claim = channel.request_queue.claim

    def worker_ends_before(*args: Any) -> Any:
        if "busy" in sim.dispatcher.stops:
            sim.dispatcher.resume("busy")
        return claim(*args)

    client.send(get("/second"))
    if comes_behind:
        channel.request_queue.claim = worker_ends_before
        sim.turn()
    else:
        sim.settle()
        channel.request_queue.claim = worker_ends_before
        channel.turn_away()
    assert channel.outbound.pending
    assert not channel.request_queue.in_service
    client.is_reading = True
    sim.settle()
    assert client.data.count(b"hello") == 2


# -- new connections -----------------------------------------------------------------------------


def test_request_that_came_with_its_connection_is_read_at_once(simulate: Simulate) -> None:
    """The poller is told of the connection when it has to wait, and not before."""
    sim = simulate(hello)
    client = sim.knock()
    client.send(get())
    sim.turn()
    fd = sim.channel.socket.fileno()
    assert sim.channel.requests
    assert fd not in sim.event_loop._masks
    sim.turn()
    assert fd in sim.event_loop._masks
    sim.settle()
    assert client.data.endswith(b"hello")


def test_connection_that_has_nothing_to_read_yet_waits_for_the_poller(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect()
    assert sim.event_loop._masks[sim.channel.socket.fileno()]
    assert sim.ask(client, get()).body == b"hello"


@pytest.mark.parametrize("name", ["handle_events", "handle_read", "handle_read_event", "recv"])
def test_subclass_that_reads_otherwise_is_never_asked_to_read_in_vain(
    name: str, simulate: Simulate
) -> None:
    asked = []
    inherited = getattr(HTTPChannel, name)

    def own(self: Any, *args: Any) -> Any:
        asked.append(name)
        return inherited(self, *args)

    sim = simulate(hello)
    sim.server.channel_class = channel_class(**{name: own})
    client = sim.connect()
    assert asked == []
    assert sim.ask(client, get()).body == b"hello"
    assert asked


def test_exception_while_reading_a_new_connection_costs_that_one(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Any, data: bytes) -> bool:
        raise ValueError("from received")

    sim = simulate(hello)
    sim.server.channel_class = channel_class(received=fail)
    assert sim.connect(get()).ended
    assert "from received" in caplog.text
    sim.server.channel_class = HTTPChannel
    assert sim.ask(sim.connect(), get()).body == b"hello"


def test_loop_can_be_ended_by_who_reads_a_new_connection(simulate: Simulate) -> None:
    def end(self: Any, data: bytes) -> bool:
        raise ExitNow

    sim = simulate(hello)
    sim.server.channel_class = channel_class(received=end)
    client = sim.knock()
    client.send(get())
    with pytest.raises(ExitNow):
        sim.turn()


@pytest.mark.parametrize(("count", "is_one"), [(MOST_PARTS, True), (MOST_PARTS + 1, False)])
def test_last_bytes_change_hands_as_a_whole_as_far_as_they_can_be_sent_so(
    simulate: Simulate, count: int, is_one: bool
) -> None:
    sim = simulate(hello)
    client = sim.connect()
    outbound = sim.channel.outbound
    sim.channel.writev_soon([b"x"] * count, last=True)
    assert (outbound.last_part is not None) is is_one
    sim.channel.handle_ready()
    sim.settle()
    assert client.data == b"x" * count


class TestRequestsThatComeTogether:
    """What several clients send between two looks is handed over in one go."""

    def clients(self, sim: Simulation, count: int = 3) -> list[FakeClient]:
        clients = [sim.connect() for _ in range(count)]
        for client in clients:
            client.send(get())
        return clients

    def answers(self, clients: list[FakeClient]) -> list[bytes]:
        return [response.body for client in clients for response in client.responses()]

    def test_are_queued_together_in_order(self, simulate: Simulate) -> None:
        sim = simulate(hello)
        clients = self.clients(sim)
        channels = list(sim.server.active_channels.values())
        sim.turn()
        assert sim.dispatcher.batches == [3]
        assert list(sim.dispatcher.queue) == channels
        sim.settle()
        assert self.answers(clients) == [b"hello"] * 3

    @pytest.mark.parametrize("where", ["class", "instance"])
    @pytest.mark.parametrize("name", ["add_task", "start_service"])
    def test_are_queued_one_by_one_where_somebody_is_to_see_each(
        self, simulate: Simulate, monkeypatch: pytest.MonkeyPatch, where: str, name: str
    ) -> None:
        sim = simulate(hello)
        clients = self.clients(sim)
        seen = []

        def see(self: Any, *args: Any) -> None:
            seen.append(self)
            original(self, *args)

        owner: Any = HTTPChannel if name == "start_service" else BaseWSGIServer
        original = getattr(owner, name)
        if where == "class":
            monkeypatch.setattr(owner, name, see)
        elif name == "add_task":
            sim.server.add_task = partial(see, sim.server)
        else:
            for channel in sim.server.active_channels.values():
                channel.__class__ = type("Own", (HTTPChannel,), {"start_service": see})
        sim.settle()
        assert (sim.dispatcher.batches, len(seen)) == ([], 3)
        assert self.answers(clients) == [b"hello"] * 3

    def test_are_queued_one_by_one_for_a_dispatcher_that_knows_no_other_way(
        self, simulate: Simulate
    ) -> None:
        """Not even where another one behind it does."""

        class Proxy:
            def add_task(self, task: Any) -> None:
                dispatcher.add_task(task)

            def __getattr__(self, name: str) -> Any:
                return getattr(dispatcher, name)

        sim = simulate(hello)
        dispatcher = sim.dispatcher
        sim.server.task_dispatcher = Proxy()
        clients = self.clients(sim)
        sim.settle()
        assert dispatcher.batches == []
        assert self.answers(clients) == [b"hello"] * 3

    def test_are_started_by_their_own_methods(self, simulate: Simulate) -> None:
        started = []

        class Own(HTTPChannel):
            def start_service(self) -> None:
                started.append(self)
                super().start_service()

        sim = simulate(hello)
        ours = self.clients(sim, 2)
        sim.server.channel_class = Own
        theirs = self.clients(sim, 2)
        sim.settle()
        assert (sim.dispatcher.batches, len(started)) == ([2], 2)
        for client in ours + theirs:
            client.send(get())
        sim.settle()
        assert (sim.dispatcher.batches, len(started)) == ([2], 4)
        assert self.answers(ours + theirs) == [b"hello"] * 8

    def test_are_not_mixed_with_those_of_another_server(self, simulate: Simulate) -> None:
        sim = simulate(hello)
        self.clients(sim, 2)
        first, second = sim.server.active_channels.values()
        second.server = StandInServer()
        sim.turn()
        assert list(sim.dispatcher.queue) == [first]
        assert second.server.tasks == [second]

    def test_are_queued_one_by_one_for_a_server_that_knows_no_other_way(
        self, simulate: Simulate
    ) -> None:
        sim = simulate(hello)
        self.clients(sim, 2)
        server = StandInServer()
        channels = list(sim.server.active_channels.values())
        for channel in channels:
            channel.server = server
        sim.turn()
        assert server.tasks == channels


# -- driven by hand, without a loop ---------------------------------------------------------------


class StandInServer:
    """A server with what a channel may ask of one, and no more."""

    def __init__(self) -> None:
        self.adj = Adjustments()
        self.active_channels: dict[int, Any] = {}
        self.tasks: list[Any] = []
        self.pulls = 0
        self.application = hello
        self.effective_port = "8080"
        self.server_name = "localhost"

    def add_task(self, task: Any) -> None:
        self.tasks.append(task)

    def pull_trigger(self) -> None:
        self.pulls += 1


@pytest.fixture
def by_hand(no_leaks: None) -> Iterator[tuple[Any, StandInServer, socket.socket]]:
    """Give a channel on a real socket, its server, and the client's end."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        client = socket.create_connection(listener.getsockname(), 20)
        sock, addr = listener.accept()
    server = StandInServer()
    channel = HTTPChannel(server, sock, addr, adj=server.adj, map={})
    yield channel, server, client
    client.close()
    channel.close()
    assert server.active_channels == {}


def test_channel_serves_when_its_methods_are_called(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, server, client = by_hand
    assert server.active_channels == {channel.socket.fileno(): channel}
    assert channel.received(get()) is True
    assert server.tasks == [channel]
    channel.service()
    assert server.pulls > 0
    assert channel.writable()
    channel.handle_write()
    assert client.recv(65536).endswith(b"\r\n\r\nhello")


def test_channel_of_a_server_without_spare_files_spools_a_body(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    def mirror(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["wsgi.input"].read()]

    channel, server, client = by_hand
    server.adj.inbuf_overflow = 1000
    server.application = mirror
    assert channel.received(post("/", b"x" * 10_000)) is True
    assert channel.requests[0].body_rcv.getbuf().overflowed
    channel.service()
    channel.handle_write()
    assert client.recv(65536).endswith(b"\r\n\r\n" + b"x" * 10_000)


#: More than leaves together with the head.
CONTENT = bytes(range(256)) * 1000


@pytest.fixture
def real_file(tmp_path: Any) -> Iterator[Any]:
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    with path.open("r+b") as file:
        yield file


def send_file(by_hand: tuple[Any, StandInServer, socket.socket], file: Any) -> bytes:
    """Have a channel send ``head`` and a file; return what its client gets."""
    channel, _server, client = by_hand
    wrapper = ReadOnlyFileBasedBuffer(file)
    size = wrapper.prepare()
    channel.writev_soon([b"head"])
    channel.write_soon(wrapper)
    received = b""
    while channel.total_outbufs_len:
        channel.handle_write()
        received += client.recv(1 << 20)
    while channel.connected and len(received) < 4 + size:
        received += client.recv(1 << 20)
    return received


def test_kernel_sends_from_a_file_by_itself(
    by_hand: tuple[Any, StandInServer, socket.socket],
    real_file: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent = []
    os_sendfile = os.sendfile

    def watched(out: int, descriptor: int, position: int, count: int) -> int:
        sent.append((descriptor == real_file.fileno(), position))
        return os_sendfile(out, descriptor, position, count)

    monkeypatch.setattr(os, "sendfile", watched)
    real_file.read(10)
    assert send_file(by_hand, real_file) == b"head" + CONTENT[10:]
    assert all(is_file for is_file, _ in sent)
    assert sent[0][1] == 10 + 64 * 1024  # What is before has left with the head.
    assert real_file.closed


@pytest.mark.parametrize("failure", [errno.EINVAL, errno.ENOSYS])
def test_file_is_read_where_the_kernel_cannot_send_it(
    by_hand: tuple[Any, StandInServer, socket.socket],
    real_file: Any,
    monkeypatch: pytest.MonkeyPatch,
    failure: int,
) -> None:
    def unable(*args: Any) -> int:
        raise OSError(failure, "no such call for this file")

    monkeypatch.setattr(os, "sendfile", unable)
    assert send_file(by_hand, real_file) == b"head" + CONTENT


def test_file_is_read_where_the_system_has_no_such_call(
    by_hand: tuple[Any, StandInServer, socket.socket],
    real_file: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(os, "sendfile")
    assert send_file(by_hand, real_file) == b"head" + CONTENT


def test_kernel_that_is_full_is_asked_again_for_a_file(
    by_hand: tuple[Any, StandInServer, socket.socket],
    real_file: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = iter([BlockingIOError()])
    os_sendfile = os.sendfile

    def full_at_first(*args: Any) -> int:
        for answer in answers:
            raise answer
        return os_sendfile(*args)

    monkeypatch.setattr(os, "sendfile", full_at_first)
    assert send_file(by_hand, real_file) == b"head" + CONTENT


def test_file_that_ends_while_the_kernel_sends_it_cuts_the_response(
    by_hand: tuple[Any, StandInServer, socket.socket],
    real_file: Any,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    os_sendfile = os.sendfile

    def shrinking(*args: Any) -> int:
        os.truncate(real_file.name, 100_000)
        return os_sendfile(*args)

    monkeypatch.setattr(os, "sendfile", shrinking)
    assert len(send_file(by_hand, real_file)) <= 100_004
    assert not by_hand[0].connected
    assert "ended 156000 bytes early" in caplog.text
    assert real_file.closed


def test_nothing_is_sent_of_a_buffer_that_was_closed_meanwhile(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    assert by_hand[0]._send_parts([]) == 0


@pytest.mark.skipif(not hasattr(socket, "MSG_MORE"), reason="needs MSG_MORE")
def test_last_bytes_leave_together_with_the_end_of_the_connection(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, client = by_hand
    client.setblocking(False)
    assert channel._send_parts(b"first") == 5
    assert client.recv(100) == b"first"
    assert channel._send_parts([b"la", b"st"], is_last=True) == 4
    with pytest.raises(BlockingIOError):
        client.recv(100)
    channel.close()
    assert client.recv(100) == b"last"
    assert client.recv(100) == b""


@pytest.mark.parametrize("can_ask", [True, False])
def test_connection_with_unread_input_lingers(
    by_hand: tuple[Any, StandInServer, socket.socket],
    can_ask: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Closing would reset it, and destroy the response."""
    if not can_ask:
        monkeypatch.setattr(tcp, "_unread_request", None)
    channel, _server, client = by_hand
    channel.received(get("/", "Connection: close"))
    channel.service()
    client.send(b"more")
    channel.handle_write()
    assert channel.state is ChannelState.LINGERING
    assert client.recv(65536).endswith(b"hello")


def test_many_parts_leave_by_one_call(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, client = by_hand
    parts = [b"a" * 20_000, b"b" * 20_000, b"c"]
    channel.writev_soon(parts)
    channel.handle_write()
    received = b""
    while len(received) < 40_001:
        received += client.recv(65536)
    assert received == b"".join(parts)


def test_many_parts_wait_when_the_kernel_is_full(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, client = by_hand
    channel.adj.outbuf_overflow = 1 << 30
    parts = [b"a" * 100_000] * 300
    channel.writev_soon(parts)
    for _ in range(100):
        channel.handle_write()
    left = channel.total_outbufs_len
    assert 0 < left < 30_000_000
    received = 0
    while received < 30_000_000:
        received += len(client.recv(1 << 20))
        channel.handle_write()
    assert channel.total_outbufs_len == 0


@pytest.mark.parametrize("parts", [[b"a" * 20_000], [b"a" * 20_000, b"b"]])
def test_bytes_for_a_client_that_left_close_the_connection(
    parts: list[bytes], by_hand: tuple[Any, StandInServer, socket.socket]
) -> None:
    channel, server, client = by_hand
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    channel.writev_soon(parts)
    channel.handle_write()
    assert channel.state is CLOSED
    assert server.active_channels == {}


def test_reset_that_somebody_else_has_asked_for_has_no_end_before_it(
    by_hand: tuple[Any, StandInServer, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    channel, _server, client = by_hand
    ends: list[Any] = []
    monkeypatch.setattr(tcp, "stop_sending", ends.append)
    monkeypatch.setattr(forks, "count", forks.count + 1)
    channel.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    channel.handle_close()
    assert ends == []
    with pytest.raises(ConnectionResetError):
        client.recv(1)


@pytest.mark.parametrize("when", ["never", "since", "before", "about to", "nobody knows"])
def test_end_is_told_before_it_is_closed_where_a_child_may_have_the_connection(
    when: str,
    by_hand: tuple[Any, StandInServer, socket.socket],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    channel, _server, client = by_hand
    ends: list[Any] = []
    monkeypatch.setattr(tcp, "stop_sending", ends.append)
    sock = channel.socket
    if when != "nobody knows":
        channel._forks = forks.count + (when == "before")
    if when in ("since", "before"):
        monkeypatch.setattr(forks, "count", forks.count + 1)
    if when == "about to":  # Whoever forks may wait for somebody who waits for the loop.
        monkeypatch.setattr(forks, "lock", threading.RLock())
        InThread(forks.lock.acquire).result()
    channel.handle_close()
    assert ends == [sock] * (when not in ("never", "before"))
    assert client.recv(1) == b""


def test_a_fork_between_accepting_and_making_the_channel_counts(
    simulate: Callable[..., Simulation], monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = simulate(hello)
    ends: list[Any] = []
    monkeypatch.setattr(tcp, "stop_sending", ends.append)
    set_socket_options = sim.server.set_socket_options

    def fork(conn: Any) -> None:
        monkeypatch.setattr(forks, "count", forks.count + 1)
        set_socket_options(conn)

    sim.connect().close()
    sim.settle()
    assert ends == []
    sim.server.set_socket_options = fork
    sim.connect().close()
    sim.settle()
    assert len(ends) == 1


def test_nobody_forks_while_a_connection_is_closed(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, _client = by_hand

    class ClosingSocket:
        could_fork = True

        def close(self) -> None:
            self.could_fork = may_fork()

    sock = ClosingSocket()
    channel._close_socket(sock)
    assert not sock.could_fork


def test_what_is_written_is_counted(by_hand: tuple[Any, StandInServer, socket.socket]) -> None:
    channel, server, _client = by_hand
    assert channel.write_soon(b"") == 0
    assert server.pulls == 0
    assert channel.write_soon(b"abc") == 3
    assert server.pulls == 1
    file = ReadOnlyFileBasedBuffer(io.BytesIO(b"defg"))
    file.prepare()
    assert channel.write_soon(file) == 4
    assert channel.total_outbufs_len == 7
    channel.writev_soon([b"h"])
    assert server.pulls == 3
    channel.writev_soon([b"i"], last=True)
    assert server.pulls == 3


def test_nothing_is_written_to_a_closed_connection(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, _client = by_hand
    channel.handle_close()
    channel.handle_close()
    assert channel.check_client_disconnected()
    writes: list[Callable[[], Any]] = [
        lambda: channel.write_soon(b"abc"),
        lambda: channel.writev_soon([b"abc"]),
        lambda: channel.write_soon(b""),
    ]
    for write in writes:
        with pytest.raises(ClientDisconnected):
            write()


def test_peer_need_not_be_there_when_the_channel_is_made(no_leaks: None) -> None:
    """CVE-2024-49769."""

    class Gone:
        def fileno(self) -> int:
            return 1_000_000

        def setblocking(self, flag: Any) -> None:
            pass

        def getsockopt(self, *args: Any) -> int:
            return 1

        def close(self) -> None:
            pass

    server = StandInServer()
    channel = HTTPChannel(server, Gone(), ("127.0.0.1", 1), server.adj, {})
    assert channel.connected
    channel.close()


def test_channel_leaves_only_what_is_its_own(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    """Its number may be another connection's by now."""
    channel, server, _client = by_hand
    fd = channel.socket.fileno()
    other = object()
    server.active_channels[fd] = other
    channel.del_channel()
    assert server.active_channels == {fd: other}
    channel.del_channel()
    del server.active_channels[fd]


def test_cancelled_channel_is_disconnected(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, server, _client = by_hand
    channel.received(post("/", b"abc") + get())
    channel.cancel()
    assert (channel.connected, channel.will_close, channel.requests) == (False, True, [])
    channel.service()  # A worker had it in its hands already.
    assert server.tasks == [channel]


def test_poll_of_others_closes_a_channel_that_is_to_be_closed(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, _client = by_hand
    channel.will_close = True
    assert channel.writable()
    channel.handle_write()
    assert channel.state is CLOSED


def test_continue_is_sent_when_it_is_asked_for(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, client = by_hand
    channel.received(request("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
    assert channel.sent_continue
    assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
    channel.received(b"abc")
    assert not channel.sent_continue
    assert [each.path for each in channel.requests] == ["/"]


def test_head_is_given_up_quietly_when_the_connection_has_ended(
    by_hand: tuple[Any, StandInServer, socket.socket],
) -> None:
    channel, _server, client = by_hand
    client.sendall(b"GET / HT")
    client.shutdown(socket.SHUT_WR)
    channel.handle_read()
    assert channel.head_pending_since() < float("inf")
    channel.request_queue.close()
    channel.give_up_head()
    assert channel.state is CLOSED
    assert client.recv(100) == b""


# -- the loop and a worker at the same time -------------------------------------------------------


def test_request_that_is_parsed_while_another_ends_the_connection_is_released(
    simulate: Simulate,
) -> None:
    """The worker comes to its decision in the middle of the loop's reading."""

    class Interrupted(HTTPRequestParser):
        def received(self, data: bytes) -> int:
            taken = super().received(data)
            if self.completed and self.path == "/second":
                sim.dispatcher.resume("at work")
            return taken

        def close(self) -> None:
            closed.append(self.path)
            super().close()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        assert environ["PATH_INFO"] == "/first"
        sim.dispatcher.pause("at work")
        raise ValueError

    closed: list[str] = []
    sim = simulate(application, channel_request_lookahead=1)
    sim.server.channel_class = channel_class(parser_class=Interrupted)
    client = sim.connect(get("/first"))
    client.send(get("/second"))
    sim.settle()
    assert client.response().status == 500
    assert closed == ["/first", "/second"]


def test_service_asks_for_the_next_request_behind_others(simulate: Simulate) -> None:
    sim = simulate(path)
    sim.dispatcher.is_held = True
    client = sim.connect(get("/a") + get("/b") + get("/c"))
    for done in (1, 2, 3):
        sim.dispatcher.run_next()
        sim.settle()
        assert len(client.responses()) == done
    assert not sim.dispatcher.queue


def test_last_part_of_a_response_is_left_to_its_worker_until_that_reports(
    simulate: Simulate, monkeypatch: pytest.MonkeyPatch
) -> None:
    sim = simulate(hello)
    client = sim.connect()
    channel = sim.channel
    finish = RequestQueue.finish

    def look_and_finish(queue: RequestQueue, keep_alive: bool) -> Any:
        channel.handle_ready()
        looks.append((channel.total_outbufs_len > 0, channel.writable()))
        return finish(queue, keep_alive)

    looks: list[tuple[bool, bool]] = []
    monkeypatch.setattr(RequestQueue, "finish", look_and_finish)
    assert sim.ask(client, get("/")).body == b"hello"
    assert looks == [(True, False)]
    assert channel.total_outbufs_len == 0


def test_channel_whose_output_has_lost_count_is_closed(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    sim.connect()
    channel = sim.channel
    channel.outbound.pending = -5
    channel.handle_ready()
    assert channel.state is ChannelState.CLOSED
    assert "has lost count" in caplog.text


def test_channel_that_is_asked_does_not_spin_while_it_lingers(simulate: Simulate) -> None:
    class Asked(HTTPChannel):
        def readable(self) -> bool:
            return super().readable()

    sim = simulate(hello)
    sim.server.channel_class = Asked
    sim.connect(b"bad\r\n\r\n")
    (channel,) = sim.server.active_channels.values()
    assert channel.state is ChannelState.LINGERING
    assert not channel.writable()


def test_order_to_close_is_not_lost_on_a_loop_that_ends_meanwhile(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.connect()
    (channel,) = sim.server.active_channels.values()
    answers = itertools.chain([False], itertools.repeat(True))
    channel.event_loop.is_current_thread = lambda: next(answers)
    try:
        channel.handle_close()
    finally:
        del channel.event_loop.is_current_thread
    assert channel.state is ChannelState.CLOSED


def test_full_disk_under_an_invitation_cuts_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello, outbuf_overflow=0)
    client = sim.connect()
    sim.server.adj.spool_dir = "/no/such/directory"
    client.send(request("POST", "/", "Content-Length: 3", "Expect: 100-continue"))
    sim.settle()
    assert not client.is_open
    assert not client.data
    assert caplog.messages == ["Unexpected exception when flushing"]


def test_channel_is_not_idle_before_its_worker_has_reported(simulate: Simulate) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        sim.dispatcher.pause("running")
        return hello(environ, start_response)

    sim = simulate(application)
    client = sim.connect(get())
    sim.advance(10)
    queue = sim.channel.request_queue
    queue.finish(keep_alive=True)
    assert sim.channel.phase is Phase.IDLE
    assert sim.channel.idle_since() == inf
    assert not sim.channel.close_if_idle()
    sim.dispatcher.resume("running")
    sim.settle()
    assert sim.channel.idle_since() == sim.event_loop.now
    assert client.is_open


def test_idle_channel_whose_last_read_fails_is_the_one_to_be_closed(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.connect()
    (channel,) = sim.server.active_channels.values()

    def fail() -> None:
        raise ValueError("odd")

    channel.handle_read = fail
    assert channel.close_if_idle()
    assert sim.server.accepting


def test_empty_lines_that_nothing_follows_are_not_answered(simulate: Simulate) -> None:
    sim = simulate(hello, header_timeout=5)
    client = sim.connect(get() + b"\r\n")
    assert client.response().status == 200
    sim.advance(6)
    assert not client.is_open
    assert b"408" not in client.data


def test_service_that_fails_ends_the_connection(
    serve: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody else would: no deadline runs while the server works."""

    class Failing(HTTPChannel):
        def service(self) -> None:
            raise LookupError("on purpose")

    running = serve(hello)
    running.server.channel_class = Failing
    with running.connect() as wire:
        wire.send(get() * 2)
        assert wire.read_to_end() == b""
    assert caplog.messages[-1].startswith("Exception when servicing")


def test_hand_over_that_fails_costs_no_response(simulate: Simulate) -> None:
    """The next request waits for the loop, which hears of the one that was answered."""
    sim = simulate(path)
    add_task, calls = sim.server.add_task, []

    def refuse_the_second(task: Any) -> None:
        calls.append(task)
        if len(calls) == 2:
            raise LookupError("full")
        add_task(task)

    sim.server.add_task = refuse_the_second
    client = sim.connect(get("/1") + get("/2"))
    sim.settle()
    assert [each.body for each in client.responses()] == [b"/1", b"/2"]
    assert len(calls) == 3


@pytest.mark.parametrize("event", ["request_started", "request_serviced"])
def test_observer_that_fails_leaves_no_connection_behind(simulate: Simulate, event: str) -> None:
    """A request that stayed in service would stay for ever: no deadline runs meanwhile."""
    sim = simulate(hello)
    sim.server.observer = observer = RecordingObserver()

    def fail(request: Any) -> None:
        raise LookupError("on purpose")

    setattr(observer, event, fail)
    with pytest.raises(LookupError):  # To the worker, which logs it.
        sim.connect(get())
    sim.settle()
    assert not sim.channels


@pytest.mark.skipif(
    sys.implementation.name != "cpython" or sys.version_info < (3, 11),
    reason="of this interpreter, and newer ones",
)
def test_idle_connection_stays_small(simulate: Simulate) -> None:
    """Its attributes share the table of their names with those of all other connections."""
    sim = simulate(hello)
    for _ in range(40):
        client = sim.connect(get())
        assert client.response().status == 200
    assert {sys.getsizeof(vars(channel)) < 500 for channel in sim.channels} == {True}
