"""Applications that turn the loop themselves, with objects of their own in the map."""

from __future__ import annotations

import logging
import os
import socket
import tempfile
import threading
import time
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Answer, Gate, Running, Wire, hello, request
from waitress import create_server, wasyncore


class OwnLoop:
    """An application whose main thread turns a loop of its own until something is so."""

    def __init__(self, use_poll: bool) -> None:
        self.use_poll = use_poll
        self.map: dict[int, Any] = {}
        self.clients = ThreadPoolExecutor(4)

    def turn(self, seconds: float = 0.05) -> None:
        """Make one pass."""
        wasyncore.loop(timeout=seconds, count=1, map=self.map, use_poll=self.use_poll)

    def until(self, condition: Callable[[], Any]) -> None:
        """Make passes until the condition holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "the condition was never met"
            self.turn()

    def while_client(self, function: Callable[..., Any], *args: Any) -> Any:
        """Make passes until the client's function, run in another thread, returns."""
        future: Future[Any] = self.clients.submit(function, *args)
        self.until(future.done)
        return future.result()

    def serve(self, application: Any, **settings: Any) -> Any:
        """Create a server on this loop's map."""
        return create_server(application, map=self.map, host="127.0.0.1", port=0, **settings)

    def close(self) -> None:
        """Close all there is in the map."""
        wasyncore.close_all(self.map)
        self.clients.shutdown()


@pytest.fixture(params=[False, True], ids=["select", "poll"])
def own_loop(request: pytest.FixtureRequest) -> Iterator[OwnLoop]:
    loop = OwnLoop(request.param)
    yield loop
    loop.close()


def get(port: str) -> Answer:
    with Wire(socket.create_connection(("127.0.0.1", int(port)), PATIENCE)) as wire:
        return wire.get("/", "Connection: close")


# -- a server turned by hand ---------------------------------------------------------


def test_requests_are_served_pass_by_pass(own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    for _ in range(3):
        assert own_loop.while_client(get, server.effective_port).body == b"hello"
    own_loop.until(lambda: not server.active_channels)
    assert len(own_loop.map) == 2
    server.task_dispatcher.shutdown()


def test_two_servers_share_one_map_and_one_loop(own_loop: OwnLoop) -> None:
    first, second = own_loop.serve(hello), own_loop.serve(hello)
    assert len(own_loop.map) == 4
    for server in (first, second, first):
        assert own_loop.while_client(get, server.effective_port).status == 200
    first.task_dispatcher.shutdown()
    second.task_dispatcher.shutdown()


def test_graceful_stop_refuses_newcomers_and_lets_the_rest_finish(own_loop: OwnLoop) -> None:
    gate = Gate()
    server = own_loop.serve(gate, threads=2)
    dispatcher = server.task_dispatcher
    accepted = own_loop.clients.submit(get, server.effective_port)
    own_loop.until(lambda: server.active_channels and gate.entered.acquire(blocking=False))
    assert [len(each.requests) for each in server.active_channels.values()] == [1]

    server.accepting = False
    refused = own_loop.clients.submit(get, server.effective_port)
    for _ in range(5):
        own_loop.turn()
    assert len(server.active_channels) == 1

    gate.opened.set()
    dispatcher.set_thread_count(0)
    own_loop.until(accepted.done)
    assert accepted.result().body == b"hello"
    own_loop.until(lambda: not any(c.requests for c in server.active_channels.values()))
    with dispatcher.lock:
        assert len(dispatcher.threads) <= 2
    own_loop.close()
    dispatcher.shutdown()
    assert not dispatcher.threads
    with pytest.raises((OSError, EOFError)):
        refused.result(PATIENCE)


def test_listening_goes_on_when_accepting_is_set_again(own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    server.accepting = False
    client = own_loop.clients.submit(get, server.effective_port)
    for _ in range(3):
        own_loop.turn()
    assert not server.active_channels
    server.accepting = True
    own_loop.until(client.done)
    assert client.result().body == b"hello"
    server.task_dispatcher.shutdown()


def test_watcher_cuts_the_client_that_does_not_read(own_loop: OwnLoop) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", str(2**24))])
        return [b"x" * 2**24]

    server = own_loop.serve(application, outbuf_high_watermark=2**20)
    with Wire(socket.create_connection(("127.0.0.1", int(server.effective_port)))) as wire:
        wire.send(request("GET", "/"))

        def clogged() -> list[Any]:
            return [
                each
                for each in server.active_channels.values()
                if each.total_outbufs_len > each.adj.outbuf_high_watermark
            ]

        own_loop.until(clogged)
        for each in clogged():
            each.handle_close()
        own_loop.until(lambda: not server.active_channels)
        assert len(wire.read_to_end()) < 2**24
    server.task_dispatcher.shutdown()


@pytest.mark.parametrize("attribute", ["will_close", "close_when_flushed"])
def test_flag_set_from_outside_closes_an_idle_channel(attribute: str, own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    with Wire(socket.create_connection(("127.0.0.1", int(server.effective_port)))) as wire:
        own_loop.while_client(wire.get)
        (channel,) = server.active_channels.values()
        own_loop.until(lambda: not channel.requests)
        setattr(channel, attribute, True)
        own_loop.until(lambda: not server.active_channels)
        assert wire.read_to_end() == b""
    server.task_dispatcher.shutdown()


def test_idle_channels_are_swept_by_a_sweep_of_the_applications_own(
    own_loop: OwnLoop,
) -> None:
    server = own_loop.serve(hello)
    with Wire(socket.create_connection(("127.0.0.1", int(server.effective_port)))) as wire:
        own_loop.while_client(wire.get)
        (channel,) = server.active_channels.values()
        own_loop.until(lambda: not channel.requests)
        # As a sweep far in the future would see it: silent for longer than allowed.
        server.maintenance(channel.last_activity + server.adj.channel_timeout + 1)
        own_loop.until(lambda: not server.active_channels)
        assert wire.read_to_end() == b""
    server.task_dispatcher.shutdown()


def test_replaced_maintenance_is_called_when_its_time_has_come(
    own_loop: OwnLoop,
) -> None:
    server = own_loop.serve(hello)
    calls: list[float] = []
    server.maintenance = calls.append
    server.next_channel_cleanup = 0
    own_loop.until(lambda: calls)
    assert abs(calls[0] - time.time()) < PATIENCE
    assert server.next_channel_cleanup > calls[0]
    server.task_dispatcher.shutdown()


# -- other protocols in the same loop ------------------------------------------------


class EchoHandler(wasyncore.dispatcher):
    """Sends back what it receives; the asyncore manner, buffer and all."""

    def __init__(self, sock: Any, map: dict[int, Any]) -> None:
        super().__init__(sock, map)
        self.pending = b""
        self.connected = True

    def handle_read(self) -> None:
        self.pending += self.recv(8192)

    def writable(self) -> bool:
        return bool(self.pending)

    def handle_write(self) -> None:
        self.pending = self.pending[self.send(self.pending) :]

    def handle_close(self) -> None:
        self.close()


class EchoServer(wasyncore.dispatcher):
    def __init__(self, map: dict[int, Any]) -> None:
        super().__init__(map=map)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.set_reuse_addr()
        self.bind(("127.0.0.1", 0))
        self.listen(5)

    def writable(self) -> bool:
        return False

    def handle_accepted(self, sock: Any, addr: Any) -> None:
        EchoHandler(sock, self._map)


def talk(address: Any) -> bytes:
    with Wire(socket.create_connection(address, PATIENCE)) as wire:
        wire.send(b"one")
        answer = wire.read(3)
        wire.send(b"two")
        return answer + wire.read(3)


def test_echo_service_and_http_server_run_in_one_loop(own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    echo = EchoServer(own_loop.map)
    assert "listening 127.0.0.1" in repr(echo)
    echoed = own_loop.clients.submit(talk, echo.socket.getsockname())
    answered = own_loop.clients.submit(get, server.effective_port)
    own_loop.until(lambda: echoed.done() and answered.done())
    assert echoed.result() == b"onetwo"
    assert answered.result().body == b"hello"
    server.task_dispatcher.shutdown()


class Connector(wasyncore.dispatcher):
    """A client made of the loop's parts: connects by itself and collects the answer."""

    def __init__(self, address: Any, map: dict[int, Any]) -> None:
        super().__init__(map=map)
        self.create_socket(socket.AF_INET, socket.SOCK_STREAM)
        self.connecting = True
        self.addr = address
        self.socket.connect_ex(address)
        self.to_send = request("GET", "/", "Connection: close")
        self.received = b""
        self.events: list[str] = []

    def handle_connect(self) -> None:
        self.events.append("connected")

    def writable(self) -> bool:
        return bool(self.to_send) or not self.connected

    def handle_write(self) -> None:
        self.to_send = self.to_send[self.send(self.to_send) :]

    def handle_read(self) -> None:
        self.received += self.recv(8192)

    def handle_close(self) -> None:
        self.events.append("closed")
        self.close()


def test_client_made_of_dispatchers_talks_to_the_server_of_the_same_loop(
    own_loop: OwnLoop,
) -> None:
    server = own_loop.serve(hello)
    client = Connector(server.socket.getsockname(), own_loop.map)
    own_loop.until(lambda: "closed" in client.events)
    assert client.events == ["connected", "closed"]
    assert client.received.endswith(b"\r\n\r\nhello")
    server.task_dispatcher.shutdown()


class Stranger:
    """Reads a pipe; no base class, no socket, only what the loop asks of an object."""

    accepting = False

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.wanted = True
        self.data = b""
        self.ends: list[str] = []

    def readable(self) -> bool:
        return self.wanted

    def writable(self) -> bool:
        return False

    def handle_read_event(self) -> None:
        self.data += os.read(self.descriptor, 8192)

    def handle_write_event(self) -> None:
        raise AssertionError("never asked for")

    def handle_expt_event(self) -> None:
        raise AssertionError("pipes have no urgent data")

    def handle_error(self) -> None:
        self.ends.append("error")

    def handle_close(self) -> None:
        self.ends.append("close")

    def close(self) -> None:
        os.close(self.descriptor)


@pytest.fixture
def stranger(own_loop: OwnLoop) -> Iterator[tuple[Stranger, int]]:
    reading, writing = os.pipe()
    found = Stranger(reading)
    own_loop.map[reading] = found
    yield found, writing
    os.close(writing)


def test_object_without_base_class_is_served_beside_the_server(
    own_loop: OwnLoop, stranger: tuple[Stranger, int]
) -> None:
    server = own_loop.serve(hello)
    seen, writing = stranger
    os.write(writing, b"through the pipe")
    own_loop.until(lambda: seen.data == b"through the pipe")
    assert own_loop.while_client(get, server.effective_port).status == 200
    server.task_dispatcher.shutdown()


def test_object_without_base_class_is_asked_again_in_each_pass(
    own_loop: OwnLoop, stranger: tuple[Stranger, int]
) -> None:
    seen, writing = stranger
    seen.wanted = False
    os.write(writing, b"later")
    own_loop.turn(0.01)
    own_loop.turn(0.01)
    assert seen.data == b""
    seen.wanted = True
    own_loop.until(lambda: seen.data == b"later")


def test_error_of_an_object_is_its_own(own_loop: OwnLoop, stranger: tuple[Stranger, int]) -> None:
    server = own_loop.serve(hello)
    seen, writing = stranger

    def broken() -> None:
        seen.wanted = False
        raise LookupError("of the object's own")

    seen.handle_read_event = broken  # type: ignore[method-assign]
    os.write(writing, b"x")
    own_loop.until(lambda: seen.ends)
    assert seen.ends == ["error"]
    assert own_loop.while_client(get, server.effective_port).status == 200
    server.task_dispatcher.shutdown()


def test_end_of_loop_propagates_from_a_handler(
    own_loop: OwnLoop, stranger: tuple[Stranger, int]
) -> None:
    seen, writing = stranger

    def leave() -> None:
        raise wasyncore.ExitNow

    seen.handle_read_event = leave  # type: ignore[method-assign]
    os.write(writing, b"x")
    with pytest.raises(wasyncore.ExitNow):
        wasyncore.loop(0.05, own_loop.use_poll, own_loop.map)


class Tail(wasyncore.file_dispatcher):
    """Reads whatever a descriptor gives."""

    def __init__(self, descriptor: Any, map: dict[int, Any]) -> None:
        super().__init__(descriptor, map)
        self.data = b""

    def writable(self) -> bool:
        return False

    def handle_expt(self) -> None:
        """Take no notice: some systems call a plain file exceptional."""

    def handle_read(self) -> None:
        self.data += self.recv(8192)

    def handle_close(self) -> None:
        self.close()


def test_pipe_is_read_to_its_end(own_loop: OwnLoop) -> None:
    reading, writing = os.pipe()
    tail = Tail(reading, own_loop.map)
    os.close(reading)  # it has a descriptor of its own
    os.write(writing, b"abc")
    own_loop.until(lambda: tail.data == b"abc")
    os.close(writing)
    own_loop.until(lambda: not own_loop.map)


def test_regular_file_is_always_ready(own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    with tempfile.TemporaryFile() as file:
        file.write(b"z" * 20000)
        file.seek(0)
        tail = Tail(file, own_loop.map)
        own_loop.until(lambda: len(tail.data) == 20000)
        assert own_loop.while_client(get, server.effective_port).status == 200
        own_loop.until(lambda: tail not in own_loop.map.values())
    server.task_dispatcher.shutdown()


class Urgent(EchoHandler):
    """Notes that urgent data is there."""

    urgent = b""

    def handle_expt(self) -> None:
        self.urgent += self.socket.recv(1, socket.MSG_OOB)


def test_urgent_data_reaches_its_handler(own_loop: OwnLoop) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        with socket.create_connection(listener.getsockname(), PATIENCE) as client:
            sock, _ = listener.accept()
            seen = Urgent(sock, own_loop.map)
            client.send(b"!", socket.MSG_OOB)
            own_loop.until(lambda: seen.urgent == b"!")


def test_objects_added_and_removed_by_handlers_are_tolerated(own_loop: OwnLoop) -> None:
    pairs = [os.pipe() for _ in range(4)]
    tails = [Tail(reading, own_loop.map) for reading, _ in pairs]

    def vanish() -> None:
        # Whichever comes first in this pass takes all others away before their turn.
        for each in tails:
            each.close()
        own_loop.map[pairs[0][0]] = late

    late = Stranger(pairs[0][0])
    for each in tails:
        each.handle_read = vanish  # type: ignore[method-assign]
    for _, writing in pairs:
        os.write(writing, b"x")
    own_loop.until(lambda: late.data == b"x")
    assert list(own_loop.map.values()) == [late]
    own_loop.map.clear()
    for descriptor in sum(pairs, ()):
        os.close(descriptor)


def test_map_changed_by_other_threads_is_seen(own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    reading, writing = os.pipe()
    seen = Stranger(reading)

    def add() -> None:
        own_loop.map[reading] = seen
        os.write(writing, b"added")

    own_loop.while_client(add)
    own_loop.until(lambda: seen.data == b"added")
    own_loop.while_client(own_loop.map.pop, reading)
    os.write(writing, b"unseen")
    own_loop.turn(0.01)
    own_loop.turn(0.01)
    assert seen.data == b"added"
    os.close(reading)
    os.close(writing)
    server.task_dispatcher.shutdown()


# -- a map that others change while the server's own loop waits ------------------------


class Kit:
    """A pipe with an object that reads it."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()
        self.stranger = Stranger(self.reading)
        self.seen = threading.Event()
        read = self.stranger.handle_read_event

        def note() -> None:
            read()
            self.seen.set()

        self.stranger.handle_read_event = note  # type: ignore[method-assign]

    def close(self) -> None:
        os.close(self.reading)
        os.close(self.writing)


@pytest.fixture(params=[dict, OrderedDict, UserDict], ids=lambda kind: kind.__name__)
def live_map(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
def kits() -> Iterator[list[Kit]]:
    found = [Kit(), Kit()]
    yield found
    for each in found:
        each.close()


def test_objects_put_into_the_map_of_a_running_server_are_served(
    live_map: Any, kits: list[Kit], serve: Callable[..., Running]
) -> None:
    running = serve(hello, map=live_map)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        first, second = kits
        live_map[first.reading] = first.stranger
        os.write(first.writing, b"a")
        assert first.seen.wait(PATIENCE)
        # One goes and another comes: the map is as long as before.
        del live_map[first.reading]
        live_map[second.reading] = second.stranger
        os.write(second.writing, b"b")
        assert second.seen.wait(PATIENCE)
        first.seen.clear()
        os.write(first.writing, b"c")
        assert wire.get().body == b"hello"
        assert not first.seen.is_set()
        del live_map[second.reading]
    assert (first.stranger.data, second.stranger.data) == (b"a", b"b")


def test_object_that_changes_its_mind_is_noticed_by_a_running_server(
    kits: list[Kit], serve: Callable[..., Running]
) -> None:
    running = serve(hello)
    kit = kits[0]
    kit.stranger.wanted = False
    running.server._map[kit.reading] = kit.stranger
    os.write(kit.writing, b"a")
    with running.connect() as wire:
        assert wire.get().body == b"hello"
    assert kit.stranger.data == b""
    kit.stranger.wanted = True
    assert kit.seen.wait(PATIENCE)
    del running.server._map[kit.reading]


def test_listening_may_start_when_the_loop_already_runs(serve: Callable[..., Running]) -> None:
    running = serve(hello, _start=False)
    running.call_in_loop(lambda: None)
    running.server.accept_connections()
    with running.connect() as wire:
        assert wire.get().body == b"hello"


def test_channels_closed_by_another_thread_free_their_clients(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello)
    server = running.server
    for close in ("close", "handle_close"):
        wires = [running.connect() for _ in range(20)]
        for wire in wires:
            assert wire.get().body == b"hello"
        for channel in list(server.active_channels.values()):
            getattr(channel, close)()
        for wire in wires:
            assert wire.read_to_end() == b""
            wire.close()
        # The descriptors are free for others at once, and stay with them.
        with running.connect() as wire:
            assert wire.get().body == b"hello"
    assert len(server._map) <= 3


def test_flag_set_by_another_thread_closes_an_idle_channel(
    serve: Callable[..., Running],
) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().body == b"hello"
        (channel,) = running.server.active_channels.values()
        while channel.requests:
            running.call_in_loop(lambda: None)
        channel.will_close = True
        assert wire.read_to_end() == b""


# -- the loop itself -----------------------------------------------------------------


def test_loop_with_an_empty_map_returns_at_once() -> None:
    wasyncore.loop(PATIENCE, map={})


def test_loop_uses_the_map_of_its_module_at_the_time_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    own: dict[int, Any] = {}
    monkeypatch.setattr(wasyncore, "socket_map", own)
    reading, writing = os.pipe()
    tail = Tail(reading, None)  # type: ignore[arg-type]
    assert list(own.values()) == [tail]
    os.write(writing, b"abc")
    os.close(writing)
    os.close(reading)
    wasyncore.loop(0.05)
    assert tail.data == b"abc"
    assert own == {}


def test_single_pass_may_wait_for_ever() -> None:
    own: dict[int, Any] = {}
    reading, writing = os.pipe()
    tail = Tail(reading, own)
    os.close(reading)
    os.write(writing, b"abc")
    wasyncore.poll2(None, own)
    assert tail.data == b"abc"
    os.close(writing)
    wasyncore.loop(None, True, own)
    assert own == {}


@pytest.mark.parametrize("name", ["poll", "poll2", "poll3"])
def test_single_pass_can_be_made_directly(name: str) -> None:
    own: dict[int, Any] = {}
    reading, writing = os.pipe()
    tail = Tail(reading, own)
    os.close(reading)
    os.write(writing, b"abc")
    getattr(wasyncore, name)(0.01, own)
    assert tail.data == b"abc"
    wasyncore.close_all(own)
    os.close(writing)


def test_clearing_the_map_from_another_thread_ends_the_loop(own_loop: OwnLoop) -> None:
    server = own_loop.serve(hello)
    values = list(own_loop.map.values())
    thread = threading.Thread(
        target=wasyncore.loop,
        kwargs={"timeout": 0.1, "map": own_loop.map, "use_poll": own_loop.use_poll},
    )
    thread.start()
    own_loop.map.clear()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    for each in values:
        each.close()
    server.task_dispatcher.shutdown()


def test_server_runs_on_the_loop_it_was_given() -> None:
    class Recorder:
        """A module-like object with a loop that only takes notes."""

        calls: list[dict[str, Any]] = []

        def loop(self, **kw: Any) -> None:
            self.calls.append(kw)
            raise SystemExit

    server = create_server(hello, host="127.0.0.1", port=0, asyncore_use_poll=True)
    server.asyncore = Recorder()
    server.run()
    assert Recorder.calls == [{"timeout": 1, "map": server._map, "use_poll": True}]
    assert not server.task_dispatcher.threads
    server.close()


# -- calls into the loop's thread ----------------------------------------------------


def test_thunks_run_in_the_loops_thread_in_order(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    ran: list[tuple[int, int | None]] = []
    for number in range(100):
        running.server.trigger.pull_trigger(
            lambda number=number: ran.append((number, threading.get_ident()))
        )
    running.call_in_loop(lambda: None)
    assert ran == [(number, running.thread.ident) for number in range(100)]


def test_thunk_that_raises_is_reported_and_the_rest_run(
    serve: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "waitress")
    running = serve(hello)

    def broken() -> None:
        raise LookupError("nothing there")

    running.server.trigger.pull_trigger(broken)
    assert running.call_in_loop(lambda: "still here") == "still here"
    (message,) = [r.getMessage() for r in caplog.records if "thunk" in r.getMessage()]
    assert message.startswith("exception in trigger thunk: (<class 'LookupError'>:nothing there ")
    with running.connect() as wire:
        assert wire.get().body == b"hello"


def test_thunk_may_close_a_channel(serve: Callable[..., Running]) -> None:
    running = serve(hello)
    with running.connect() as wire:
        assert wire.get().status == 200
        channels = running.server.active_channels
        running.call_in_loop(lambda: [each.handle_close() for each in list(channels.values())])
        assert wire.read_to_end() == b""
        assert not channels
