"""The fakes behave as what they stand for: the same tests run on real sockets too."""

from __future__ import annotations

import errno
import select
import socket
import struct
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes import (
    FakeClock,
    FakeNetwork,
    Incomplete,
    Simulation,
    SteppedDispatcher,
    chunks,
    get,
    read_responses,
    simulation,
)
from tests.functional.applications import hello
from waitress.pollers import ERROR, HANGUP, PEER_CLOSED, READ, WRITE, best_poller

LINGER = struct.pack("ii", 1, 0)

Pair = tuple[Any, Any, Any]


@pytest.fixture(params=["fake", "real"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Give two connected sockets and a poller that can watch them."""
    if request.param == "fake":
        network = FakeNetwork(FakeClock())
        client = network.pair(100_000)
        client.is_reading = False
        yield client.server_end, client.sock, network.poller()
        return
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1)
        near = socket.create_connection(listener.getsockname())
        far, _ = listener.accept()
    poller = best_poller(select)
    near.setblocking(False)
    far.setblocking(False)
    yield near, far, poller
    poller.close()
    near.close()
    far.close()


def ready(poller: Any, sock: Any, mask: int, expected: int = 0) -> int:
    """Return what a poller tells of a socket, waiting for what is expected."""
    poller.register(sock.fileno(), mask)
    try:
        for _ in range(200):
            found = dict(poller.poll(0.05 if expected else 0)).get(sock.fileno(), 0)
            if found & expected == expected:
                break
        return int(found)
    finally:
        poller.unregister(sock.fileno())


def fill(sock: Any) -> int:
    """Send until there is no room; return how much was sent."""
    sent = 0
    while True:
        try:
            sent += sock.send(b"x" * 1_000_000)
        except BlockingIOError:
            return sent


def test_bytes_arrive_in_order_and_end(pair: Pair) -> None:
    near, far, poller = pair
    assert far.send(b"abc") == 3
    assert far.send(memoryview(b"def")) == 3
    far.shutdown(socket.SHUT_WR)
    assert ready(poller, near, READ | PEER_CLOSED, PEER_CLOSED) == READ | PEER_CLOSED
    assert near.recv(4) + near.recv(100) == b"abcdef"
    assert near.recv(100) == near.recv(100) == b""
    assert near.send(b"back") == 4
    with pytest.raises(BrokenPipeError):
        far.send(b"x")


def test_nothing_to_read_and_no_room_are_told_alike(pair: Pair) -> None:
    near, _, poller = pair
    with pytest.raises(BlockingIOError):
        near.recv(1)
    assert ready(poller, near, READ | WRITE) == WRITE
    assert fill(near) > 0
    assert ready(poller, near, READ | WRITE) == 0


def test_close_behind_unread_bytes_is_a_reset(pair: Pair) -> None:
    near, far, poller = pair
    far.send(b"unread")
    assert ready(poller, near, READ, READ) == READ
    near.close()
    assert ready(poller, far, READ, ERROR | HANGUP) & READ
    with pytest.raises(ConnectionResetError):
        far.recv(1)


def test_close_with_nothing_unread_is_an_end(pair: Pair) -> None:
    near, far, poller = pair
    near.close()
    assert near.fileno() == -1
    assert ready(poller, far, READ, READ) == READ
    assert far.recv(1) == b""


def test_close_may_be_made_a_reset(pair: Pair) -> None:
    near, far, poller = pair
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, LINGER)
    near.close()
    near.close()
    assert ready(poller, far, READ, ERROR | HANGUP) & PEER_CLOSED == 0  # Not asked for.
    assert far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    with pytest.raises(OSError, match=r"(?i)not connected"):
        far.shutdown(socket.SHUT_WR)


def test_sending_to_one_that_has_closed_brings_a_reset(pair: Pair) -> None:
    near, far, poller = pair
    far.close()
    assert near.send(b"into the void") == 13
    ready(poller, near, READ, ERROR)
    for _ in range(2):
        with pytest.raises(BrokenPipeError):
            near.send(b"x")


def test_closed_socket_is_good_for_nothing(pair: Pair) -> None:
    near, _, _ = pair
    near.close()
    uses: list[Callable[[], Any]] = [lambda: near.recv(1), lambda: near.send(b"x")]
    for use in uses:
        with pytest.raises(OSError) as caught:
            use()
        assert caught.value.errno == errno.EBADF


def test_registrations_are_kept_exactly(pair: Pair) -> None:
    near, _, poller = pair
    fd = near.fileno()
    wrongs: list[Callable[[], Any]] = [
        lambda: poller.modify(fd, READ),
        lambda: poller.unregister(fd),
    ]
    for wrong in wrongs:
        with pytest.raises(FileNotFoundError):
            wrong()
    poller.register(fd, READ)
    with pytest.raises(FileExistsError):
        poller.register(fd, READ)
    poller.modify(fd, WRITE)
    assert poller.poll(0) == [(fd, WRITE)]
    poller.unregister(fd)
    assert poller.poll(0) == []


def test_size_of_the_buffer_can_be_asked(pair: Pair) -> None:
    near, _, _ = pair
    assert near.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF) > 0


# -- what is only there in fakes --------------------------------------------------------------


def test_wait_moves_the_clock_to_what_happens_next() -> None:
    clock = FakeClock(5.0)
    network = FakeNetwork(clock)
    client = network.pair()
    poller = network.poller()
    poller.register(client.server_end.fileno(), READ)
    network.at(7.0, lambda: client.send(b"x"))
    assert poller.poll(10) == [(client.server_end.fileno(), READ)]
    assert clock() == 7.0
    client.server_end.recv(1)
    assert poller.poll(10) == []
    assert clock() == 17.0


def test_closed_descriptor_is_no_longer_reported() -> None:
    network = FakeNetwork(FakeClock())
    client = network.pair()
    poller = network.poller()
    poller.register(client.server_end.fileno(), WRITE)
    client.server_end.close()
    assert poller.poll(1) == []


class Counting:
    """A task that stops at points, and counts how far it has come."""

    def __init__(self, dispatcher: SteppedDispatcher, *points: str) -> None:
        self.dispatcher = dispatcher
        self.points = points
        self.passed = 0
        self.cancelled = False

    def service(self) -> None:
        for point in self.points:
            self.dispatcher.pause(point)
            self.passed += 1

    def cancel(self) -> None:
        self.cancelled = True


def test_task_goes_to_its_next_point_and_no_further(no_leaks: None) -> None:
    dispatcher = SteppedDispatcher()
    task = Counting(dispatcher, "one", "two")
    dispatcher.add_task(task)
    assert not dispatcher.is_idle
    dispatcher.run()
    assert (dispatcher.stops, task.passed, dispatcher.is_idle) == (["one"], 0, True)
    dispatcher.resume("one")
    assert (dispatcher.stops, task.passed) == (["two"], 1)
    dispatcher.finish()
    assert (dispatcher.stops, task.passed, dispatcher.served) == ([], 2, 1)


def test_tasks_that_nobody_began_are_cancelled() -> None:
    dispatcher = SteppedDispatcher()
    task = Counting(dispatcher)
    dispatcher.add_task(task)
    assert dispatcher.shutdown() is True
    assert task.cancelled
    assert dispatcher.shutdown() is False


def test_what_escapes_from_a_task_reaches_the_test(no_leaks: None) -> None:
    class Broken:
        def service(self) -> None:
            raise LookupError("escaped")

    dispatcher = SteppedDispatcher()
    dispatcher.add_task(Broken())
    with pytest.raises(LookupError, match="escaped"):
        dispatcher.run_next()
    assert dispatcher.served == 1


def test_simulated_loop_that_spins_is_found_out(no_leaks: None) -> None:
    with simulation(hello) as sim:
        client = sim.connect()
        # A channel that reads nothing, and goes on watching.
        sim.channel.handle_events = lambda flags: None
        client.send(b"x")
        with pytest.raises(AssertionError, match="the loop spins"):
            sim.settle()
        with pytest.raises(AssertionError, match="the loop spins"):
            sim.advance(1)
        del sim.channel.handle_events


def test_simulation_ends_from_every_state(no_leaks: None) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("somewhere")
        return hello(environ, start_response)

    sim = Simulation(application)
    sim.connect(b"GET / HT")
    sim.connect(get())
    sim.dispatcher.is_held = True
    sim.connect(get())
    sim.close()
    assert not sim.dispatcher.stops


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_responses_are_read_one_after_the_other() -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\n"
        + HEAD
        + HEAD
        + b"abc"
        + CHUNKED
        + chunks(b"de", b"f")
        + b"HTTP/1.1 204 No\r\n\r\n"
        + b"HTTP/1.0 200 OK\r\n\r\nrest"
    )
    responses = read_responses(data, ["HEAD"], ended=True)
    assert [response.status for response in responses] == [100, 200, 200, 200, 204, 200]
    assert [response.body for response in responses] == [b"", b"", b"abc", b"def", b"", b"rest"]


@pytest.mark.parametrize(
    "data",
    [
        HEAD[:-2],
        HEAD + b"ab",
        HEAD + b"abcd",
        CHUNKED,
        CHUNKED + b"3\r\nab",
        CHUNKED + b"3\r\nabc\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nrest",
    ],
)
def test_cut_responses_are_told(data: bytes) -> None:
    with pytest.raises(Incomplete):
        read_responses(data)
