"""Listeners: how they are made, what they share, and what is left when they cannot be made."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.compat.live import Running, nothing_left_behind
from tests.fakes import FakeClock, FakeNetwork, Simulation, SteppedDispatcher, get
from tests.functional.applications import hello
from tests.looping import load_elsewhere
from waitress import create_server, wasyncore
from waitress import listener as listener_module
from waitress import server as server_module
from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.descriptors import open_descriptors
from waitress.eventloop import EventLoop, SocketMap
from waitress.server import (
    BaseWSGIServer,
    MultiSocketServer,
    TcpWSGIServer,
    WSGIServer,
)
from waitress.spool import LARGEST_DEFAULT_LIMIT
from waitress.task import ThreadedTaskDispatcher

Simulate = Callable[..., Simulation]
Serve = Callable[..., Running]

LOCAL: dict[str, Any] = {"host": "127.0.0.1", "port": 0}


@pytest.fixture
def make(no_leaks: None) -> Iterator[Callable[..., Any]]:
    """Give a function that makes servers, which are closed with the test."""
    made: list[Any] = []

    def create(application: Any = hello, **kw: Any) -> Any:
        if not kw.keys() & {"listen", "sockets", "unix_socket"}:
            kw = {**LOCAL, **kw}
        made.append(create_server(application, **kw))
        return made[-1]

    yield create
    for server in made:
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server.map if hasattr(server, "map") else server._map)


# -- create_server ----------------------------------------------------------------------------


def test_no_application_is_an_error_at_once() -> None:
    with pytest.raises(ValueError, match=r"was ``None``\.  You forgot to return a WSGI app"):
        create_server(None)


def test_wrong_setting_is_an_error_and_leaves_nothing() -> None:
    with nothing_left_behind(), pytest.raises(ValueError, match="no_such_thing"):
        create_server(hello, no_such_thing=1)


def test_server_of_one_address_is_a_listener(make: Callable[..., Any]) -> None:
    server = make()
    assert type(server) is TcpWSGIServer is WSGIServer
    assert server.accepting
    assert server.effective_host == "127.0.0.1"
    assert server._map[server.socket.fileno()] is server
    assert server.trigger in server._map.values()
    assert len(server.task_dispatcher.threads) == 4
    assert repr(server).startswith("<waitress.server.TcpWSGIServer listening 127.0.0.1:")


def test_server_may_be_made_without_listening(make: Callable[..., Any]) -> None:
    server = make(_start=False)
    assert not server.accepting
    assert server.readable() is False
    assert len(server.task_dispatcher.threads) == 4
    server.accept_connections()
    assert server.readable() is True


def test_each_server_has_a_map_of_its_own(make: Callable[..., Any]) -> None:
    first, second = make(), make()
    assert first._map is not second._map
    assert not wasyncore.socket_map


def test_map_may_be_given(make: Callable[..., Any]) -> None:
    socket_map: dict[int, Any] = {}
    server = make(map=socket_map)
    assert server._map is socket_map
    assert server in socket_map.values()


def test_dispatcher_may_be_given_and_is_its_owners_affair(make: Callable[..., Any]) -> None:
    dispatcher = ThreadedTaskDispatcher()
    server = make(_dispatcher=dispatcher)
    assert server.task_dispatcher is dispatcher
    assert not dispatcher.threads


def test_several_addresses_are_one_server(make: Callable[..., Any]) -> None:
    server = make(listen="127.0.0.1:0 127.0.0.1:0", threads=2)
    assert type(server) is MultiSocketServer
    assert server.map is not None
    listeners = [each for each in server.map.values() if isinstance(each, TcpWSGIServer)]
    assert server.effective_listen == [
        (each.effective_host, each.effective_port) for each in listeners
    ]
    assert len(server.task_dispatcher.threads) == 2


def test_several_addresses_share_their_limits(make: Callable[..., Any]) -> None:
    server = make(listen="127.0.0.1:0 127.0.0.1:0")
    first, second = (each for each in server.map.values() if isinstance(each, TcpWSGIServer))
    assert first.clients is second.clients
    assert first.spool is second.spool
    assert first.task_dispatcher is second.task_dispatcher


@pytest.mark.parametrize(
    ("family", "name"), [("AF_INET", "TcpWSGIServer"), ("AF_UNIX", "UnixWSGIServer")]
)
def test_sockets_are_served_each_by_its_kind(
    family: str, name: str, make: Callable[..., Any]
) -> None:
    if not hasattr(socket, family):
        pytest.skip("the system has none of these")
    sockets = [socket.socket(getattr(socket, family)) for _ in range(2)]
    server = make(sockets=sockets, _start=False)
    listeners = [each for each in server.map.values() if isinstance(each, BaseWSGIServer)]
    assert [each.socket for each in listeners] == sockets
    assert [type(each).__name__ for each in listeners] == [name, name]


# -- what cannot be bound -----------------------------------------------------------------------


@pytest.fixture
def taken() -> Iterator[int]:
    """Give a port that somebody else listens to."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        yield sock.getsockname()[1]


def test_port_in_use_is_named_and_leaves_nothing(taken: int) -> None:
    with nothing_left_behind():
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{taken}: ") as caught:
            create_server(hello, host="127.0.0.1", port=taken)
    assert caught.value.errno == errno.EADDRINUSE


def test_second_address_in_use_leaves_nothing_of_the_first(taken: int) -> None:
    socket_map: dict[int, Any] = {}
    with nothing_left_behind():
        with pytest.raises(OSError, match=str(taken)):
            create_server(hello, map=socket_map, listen=f"127.0.0.1:0 127.0.0.1:{taken}")
    assert socket_map == {}


def test_address_in_use_leaves_no_workers_with_the_loop(taken: int) -> None:
    """Who tries again and again has his map still."""
    socket_map = wasyncore.SocketMap()
    with pytest.raises(OSError, match=str(taken)):
        create_server(hello, map=socket_map, host="127.0.0.1", port=taken)
    assert wasyncore.event_loop_of(socket_map)._pools == ()


def test_dispatcher_that_was_given_survives_an_address_in_use(taken: int) -> None:
    dispatcher = ThreadedTaskDispatcher()
    dispatcher.set_thread_count(1)
    try:
        with pytest.raises(OSError, match=str(taken)):
            create_server(hello, _dispatcher=dispatcher, host="127.0.0.1", port=taken)
        assert len(dispatcher.threads) == 1
    finally:
        dispatcher.shutdown()


def test_address_of_ipv6_is_named_in_brackets() -> None:
    info = (socket.AF_INET6, socket.SOCK_STREAM, 6, ("2001:db8::1", 8080, 0, 0))
    with nothing_left_behind():
        with pytest.raises(OSError, match=r"cannot listen on \[2001:db8::1\]:8080: "):
            TcpWSGIServer(hello, sockinfo=info)


class BadSocket:
    """A listening socket with an error in one of its methods."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.is_closed = False

    def fileno(self) -> int:
        return 1_000_000

    def setblocking(self, flag: Any) -> None:
        pass

    def getsockopt(self, *args: Any) -> int:
        return 0

    def setsockopt(self, *args: Any) -> None:
        raise OSError(errno.EINVAL, "no such option")  # Which is no reason to give up.

    def bind(self, address: Any) -> None:
        raise self.error

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(
    ("error", "kind", "text"),
    [
        (OSError(errno.EACCES, "denied"), PermissionError, "cannot listen on 127.0.0.1:0: denied"),
        (OSError("odd"), OSError, "cannot listen on 127.0.0.1:0: odd"),
        (ValueError("odder"), ValueError, "odder"),
    ],
)
def test_socket_that_was_given_is_left_to_its_owner(
    error: Exception, kind: type[Exception], text: str
) -> None:
    sock = BadSocket(error)
    socket_map: dict[int, Any] = {}
    with nothing_left_behind():
        with pytest.raises(kind, match=text):
            create_server(hello, map=socket_map, _sock=sock, **LOCAL)
    assert socket_map == {}
    assert not sock.is_closed


def test_sockets_that_were_given_are_left_to_their_owner(taken: int) -> None:
    """The good ones too, when another cannot be listened to: it is connected."""
    with nothing_left_behind():
        with socket.socket() as good, socket.create_connection(("127.0.0.1", taken)) as bad:
            good.bind(("127.0.0.1", 0))
            with pytest.raises(OSError, match=r"cannot listen on 127\.0\.0\.1:"):
                create_server(hello, sockets=[good, bad])
            assert good.fileno() >= 0
            assert bad.fileno() >= 0


def test_socket_of_no_family_that_we_have_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    monkeypatch.setattr(listener_module, "ListeningSocket", refuse)
    with nothing_left_behind(), pytest.raises(OSError, match="no such family"):
        create_server(hello, **LOCAL)


def test_threads_that_cannot_be_started_leave_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Any, target: Any, thread_no: int) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(ThreadedTaskDispatcher, "start_new_thread", refuse)
    with nothing_left_behind():
        with pytest.raises(RuntimeError, match="can't start new thread"):
            create_server(hello, **LOCAL)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            TcpWSGIServer(hello, **LOCAL)


def test_listener_gives_ordinary_sockets(make: Callable[..., Any]) -> None:
    server = make()
    assert (server.socket.family, server.socket.type) == (socket.AF_INET, socket.SOCK_STREAM)
    assert "family=" in repr(server.socket)
    with socket.create_connection(server.socket.getsockname()) as client:
        while (pair := server.accept()) is None:
            pass
        accepted, addr = pair
        with accepted:
            assert type(accepted) is socket.socket
            assert (accepted.family, accepted.type) == (socket.AF_INET, socket.SOCK_STREAM)
            assert addr == client.getsockname()


# -- the classes themselves ---------------------------------------------------------------------


def test_class_makes_its_own_settings_map_and_workers() -> None:
    with nothing_left_behind():
        server = WSGIServer(hello, threads=2, clear_untrusted_proxy_headers=False, **LOCAL)
        assert server.application is hello
        assert server.adj.threads == len(server.task_dispatcher.threads) == 2
        server.task_dispatcher.shutdown()
        server.close()


def test_base_class_knows_no_address() -> None:
    with nothing_left_behind():
        with pytest.raises(NotImplementedError):
            BaseWSGIServer(hello, dispatcher=SteppedDispatcher(), **LOCAL)
        with pytest.raises(NotImplementedError):
            BaseWSGIServer(hello, dispatcher=SteppedDispatcher(), bind_socket=False, **LOCAL)


def test_base_class_leaves_sockets_and_addresses_as_they_are() -> None:
    class Plain(BaseWSGIServer):
        def bind_server_socket(self) -> None:
            self.bind(self.sockinfo[3])

        def getsockname(self) -> tuple[str, Any]:
            return "somewhere", 1

    with nothing_left_behind():
        server = Plain(hello, dispatcher=SteppedDispatcher(), **LOCAL)
        assert server.fix_addr("x") == "x"
        server.set_socket_options(None)
        assert (server.handle_read(), server.handle_connect()) == (None, None)  # type: ignore[func-returns-value]
        assert server.writable() is False
        server.close()


def test_options_are_set_on_each_connection(simulate: Simulate) -> None:
    sim = simulate(hello)
    client = sim.connect()
    for level, option, value in sim.server.adj.socket_options:
        assert client.server_end.options[level, option] == value
    assert sim.server.adj.socket_options


def test_options_that_cannot_be_set_cost_one_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*args: Any) -> None:
        raise OSError(errno.EINVAL, "gone")

    sim = simulate(hello)
    client = sim.knock()
    client.server_end.setsockopt = refuse  # type: ignore[assignment,method-assign]
    sim.settle()
    assert client.ended
    assert caplog.messages == ["server accept() threw an exception"]
    assert sim.connect(get()).response().body == b"hello"


def test_every_connection_that_waits_is_accepted_in_one_turn(make: Callable[..., Any]) -> None:
    server = make()
    clients = [socket.create_connection(server.socket.getsockname()) for _ in range(5)]
    wasyncore.loop(timeout=20, map=server._map, count=1)
    assert len(server.active_channels) == 5
    for client in clients:
        client.close()


def test_nothing_to_accept_is_no_error(make: Callable[..., Any]) -> None:
    server = make()
    server.handle_accept()
    assert not server.active_channels


# -- what is printed ----------------------------------------------------------------------------


def test_address_is_printed(make: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    server = make()
    server.print_listen("Serving on http://{}:{}")
    assert caplog.messages == [f"Serving on http://127.0.0.1:{server.effective_port}"]


def test_addresses_are_printed_one_a_line() -> None:
    lines: list[str] = []
    server = MultiSocketServer(
        {}, Adjustments(), [("::1", "1"), ("127.0.0.1", "2")], None, lines.append
    )
    server.print_listen("at {}:{}")
    assert lines == ["at [::1]:1", "at 127.0.0.1:2"]


def test_server_of_no_addresses_prints_nothing() -> None:
    lines: list[str] = []
    MultiSocketServer(log_info=lines.append).print_listen("at {}:{}")
    assert lines == []


# -- upkeep -------------------------------------------------------------------------------------


def test_upkeep_comes_round_at_its_interval(simulate: Simulate) -> None:
    sim = simulate(hello)
    server = sim.server
    rounds: list[float] = []
    server.maintenance = rounds.append
    server.next_channel_cleanup = 0
    server.readable()
    server.readable()
    assert len(rounds) == 1
    assert 25 < server.next_channel_cleanup - sim.clock() <= 30
    server.next_channel_cleanup = sim.clock() - 1
    server.readable()
    assert len(rounds) == 2


def test_upkeep_asks_little_of_stand_ins_for_channels(simulate: Simulate) -> None:
    sim = simulate(hello)
    idle = SimpleNamespace(requests=[], last_activity=0.0, will_close=False)
    busy = SimpleNamespace(requests=[1], last_activity=0.0, will_close=False)
    fresh = SimpleNamespace(requests=[], last_activity=sim.clock(), will_close=False)
    sending = SimpleNamespace(requests=[], last_activity=0.0, will_close=False, total_outbufs_len=5)
    stand_ins = (idle, busy, fresh, sending)
    sim.server.active_channels.update(enumerate(stand_ins))
    sim.server.maintenance(sim.clock())
    assert [each.will_close for each in stand_ins] == [True, False, False, False]
    sim.server.maintenance(0)
    sim.server.active_channels.clear()


def test_settings_object_may_have_the_old_names_only(simulate: Simulate) -> None:
    sim = simulate(hello)
    clients = [sim.connect()]
    sim.server.adj = SimpleNamespace(
        connection_limit=1,
        log_socket_errors=True,
        socket_options=[],
        cleanup_interval=0,
        channel_timeout=120,
    )
    sim.advance(5)
    late = sim.knock()
    sim.server.handle_accept()
    assert sim.server.clients.channels
    assert clients[0].server_end.is_closed
    assert late in sim.network.clients


def test_channel_that_fails_after_it_was_made_leaves_nothing(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(HTTPChannel):
        def __init__(self, *args: Any, **kw: Any) -> None:
            super().__init__(*args, **kw)
            raise LookupError("on purpose")

    sim = simulate(hello)
    sim.server.channel_class = Failing
    client = sim.connect()
    assert client.ended
    assert caplog.messages[0].startswith("Cannot serve the connection from ")
    assert not sim.server.clients.channels
    assert not sim.server.active_channels


# -- the connection limit that nobody set ---------------------------------------------------------


def test_limit_that_nobody_set_is_told_when_descriptors_are_few(
    simulate: Simulate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    caplog.set_level("INFO")
    used = open_descriptors()
    monkeypatch.setattr(resource, "getrlimit", lambda which: (used + 100, 4096))
    sim = simulate(hello)
    sim.connect()
    sim.connect()
    assert 60 < sim.server.clients.limit <= 75
    (message,) = caplog.messages
    assert message.startswith(f"connection limit is {sim.server.clients.limit}: ")


def test_limit_that_nobody_set_is_a_thousand_where_descriptors_are_many(
    simulate: Simulate, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    resource = pytest.importorskip("resource")
    caplog.set_level("INFO")
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100_000, 100_000))
    sim = simulate(hello)
    sim.connect()
    assert sim.server.clients.limit == 1000
    assert caplog.messages == ["connection limit is 1000"]


# -- the spool ------------------------------------------------------------------------------------


def test_spool_that_nobody_limited_is_a_part_of_the_disk(simulate: Simulate) -> None:
    assert 0 < simulate(hello).server.spool.limit <= LARGEST_DEFAULT_LIMIT


@pytest.mark.parametrize("limit", [0, 12345])
def test_spool_may_be_limited(limit: int, simulate: Simulate) -> None:
    assert simulate(hello, spool_limit=limit).server.spool.limit == limit


# -- running --------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
def test_run_hands_the_settings_to_the_loop(several: bool, make: Callable[..., Any]) -> None:
    given: list[dict[str, Any]] = []
    listen = {"listen": "127.0.0.1:0 127.0.0.1:0"} if several else {}
    server = make(asyncore_loop_timeout=0.25, asyncore_use_poll=True, **listen)
    server.asyncore = SimpleNamespace(loop=lambda **kw: given.append(kw))
    server.run()
    socket_map = server.map if several else server._map
    assert given == [{"timeout": 0.25, "map": socket_map, "use_poll": True}]


def test_run_of_several_addresses_serves_them_all(serve: Serve) -> None:
    running = serve(hello, listen="127.0.0.1:0 127.0.0.1:0")
    with running.connect() as wire:
        assert wire.get().body == b"hello"
    assert threading.active_count() >= 2


def test_server_in_a_plain_dict_takes_its_loop_from_there(no_leaks: None) -> None:
    """Clock, poller and conditions come from the event loop of whatever map is given."""
    network = FakeNetwork(FakeClock())
    dispatcher = SteppedDispatcher()
    socket_map: dict[int, Any] = {}
    event_loop = EventLoop(
        socket_map,
        clock=network.clock,
        poller_factory=network.poller,
        condition_factory=dispatcher.condition,
    )
    listener = network.listener()
    server = create_server(hello, map=socket_map, _sock=listener, _dispatcher=dispatcher, **LOCAL)
    client = network.connect(listener)
    client.send(get())
    for _ in range(8):
        server.asyncore.loop(timeout=0, map=socket_map, count=1)
        dispatcher.run()
    client.read()
    assert client.response().body == b"hello"
    assert event_loop.map is socket_map
    for each in list(socket_map.values()):
        each.close()
    assert not isinstance(socket_map, SocketMap)


def test_proxy_headers_are_seen_to_by_every_server(tmp_path: Path) -> None:
    with nothing_left_behind():
        server = create_server(hello, unix_socket=str(tmp_path / "s"))
        assert server.application is not hello
        server.task_dispatcher.shutdown()
        server.close()


# -- other systems --------------------------------------------------------------------------------


def test_module_works_where_there_are_no_unix_sockets(
    monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    """As on Windows."""
    monkeypatch.delattr(socket, "AF_UNIX")
    elsewhere: Any = load_elsewhere(monkeypatch, server_module)
    assert not hasattr(elsewhere, "UnixWSGIServer")
    server = elsewhere.create_server(hello, **LOCAL)
    assert type(server) is elsewhere.TcpWSGIServer
    server.task_dispatcher.shutdown()
    server.close()


def test_address_of_another_kind_is_named_as_it_is() -> None:
    class Plain(BaseWSGIServer):
        def bind_server_socket(self) -> None:
            raise OSError(errno.EIO, "no")

    info = (socket.AF_INET, socket.SOCK_STREAM, 0, "some:where")
    with nothing_left_behind(), pytest.raises(OSError, match="cannot listen on some:where: no"):
        Plain(hello, sockinfo=info)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no unix sockets")
def test_unix_socket_that_makes_no_file_is_served(tmp_path: Path) -> None:
    network = FakeNetwork(FakeClock())
    with nothing_left_behind():
        server = create_server(
            hello,
            _sock=network.listener(),
            _dispatcher=SteppedDispatcher(),
            unix_socket=str(tmp_path / "s"),
        )
        assert server.accepting
        server.close()


def test_listener_survives_what_no_error_of_a_socket_is(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    closed = []

    def fail(conn: Any) -> None:
        closed.append(conn)
        raise MemoryError

    sim.server.set_socket_options = fail
    sim.connect()
    del sim.server.set_socket_options
    assert sim.server.accepting
    assert closed[0].fileno() == -1
    assert "Exception in the listener on" in caplog.text
    sim.advance(2)
    assert sim.connect(get()).response().status == 200


def test_listener_survives_an_accept_that_finds_no_memory(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)

    def fail() -> None:
        raise MemoryError

    sim.server.accept = fail
    sim.connect()
    del sim.server.accept
    sim.advance(2)
    assert sim.connect(get()).response().status == 200


def test_derived_limit_is_one_for_all_listeners() -> None:
    with socket.socket() as one, socket.socket() as other:
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
        server = create_server(hello, sockets=[one, other])
        try:
            first, second = [s for s in server.map.values() if isinstance(s, TcpWSGIServer)]
            assert first.clients is second.clients
            limit = first._connection_limit()
            first.clients.derived_limit = limit - 1
            assert second._connection_limit() == limit - 1
        finally:
            server.close()


@pytest.mark.skipif(not hasattr(select, "poll"), reason="cannot ask whether somebody waits")
class TestLastOnesWithFewDescriptors:
    """Accepting ends; of those who have connected, so many may be accepted at once."""

    @pytest.fixture
    def room(self, monkeypatch: pytest.MonkeyPatch) -> list[int]:
        room = [2]
        monkeypatch.setattr(listener_module, "descriptors_for_connections", lambda: room[0])
        return room

    @pytest.fixture
    def crowd(self, make: Callable[..., Any]) -> Iterator[Callable[[Any, int], None]]:
        with contextlib.ExitStack() as stack:

            def connect(listener: Any, count: int) -> None:
                for _ in range(count):
                    stack.enter_context(socket.create_connection(listener.socket.getsockname()))

            yield connect

    def test_are_accepted_in_parts(
        self, room: list[int], crowd: Callable[[Any, int], None], make: Callable[..., Any]
    ) -> None:
        listener = make()
        crowd(listener, 5)
        assert not listener.stop_accepting()
        assert len(listener.active_channels) == 2
        # Nor does the loop accept any: it does not know of descriptors.
        assert not listener.readable()
        room[0] = -3
        assert not listener.stop_accepting()
        assert len(listener.active_channels) == 3
        room[0] = 2
        assert listener.stop_accepting()
        assert len(listener.active_channels) == 5
        assert listener.socket is None

    def test_are_tried_again_where_the_system_has_none_at_all(
        self,
        crowd: Callable[[Any, int], None],
        make: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        listener = make(log_socket_errors=False)
        crowd(listener, 2)
        accept = listener.accept

        def exhausted() -> None:
            raise OSError(errno.EMFILE, "Too many open files")

        listener.accept = exhausted
        assert not listener.stop_accepting()
        assert listener.active_channels == {}
        listener.accept = accept
        assert listener.stop_accepting()
        assert len(listener.active_channels) == 2

    def test_are_left_to_others_at_a_socket_that_was_handed_in(
        self, room: list[int], crowd: Callable[[Any, int], None], make: Callable[..., Any]
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as shared:
            handed_in = socket.socket(fileno=os.dup(shared.fileno()))
            listener = make(sockets=[handed_in])
            crowd(listener, 3)
            assert listener.stop_accepting()
            assert len(listener.active_channels) == 2
            shared.settimeout(5)
            shared.accept()[0].close()

    def test_are_as_many_as_the_backlog_at_the_most(
        self, room: list[int], crowd: Callable[[Any, int], None], make: Callable[..., Any]
    ) -> None:
        """Where newcomers cannot be held off, this comes to an end all the same."""
        listener = make(backlog=3)
        crowd(listener, 4)
        assert not listener.stop_accepting()
        assert listener.stop_accepting()
        assert len(listener.active_channels) == 4
