"""A clock, a network and workers that do what a test says: the whole server, deterministic.

:class:`Simulation` puts a server together from its production parts and these fakes:

* :class:`FakeClock` stands still until somebody waits: the wait of the event loop is what
  makes the time pass, so that every timer is met in the way in which it is met in life;
* :class:`FakeNetwork` has listeners, connections and a poller, in memory. It behaves like
  a kernel at its worst: a connection that is closed while bytes of the client lie unread
  is reset, and a reset destroys what the client has not read;
* :class:`SteppedDispatcher` runs a task when it is told to, and until the task ends,
  waits for room, or reaches a point that the application has named.

Nothing here knows the server's insides: only its documented doors for clocks, pollers,
sockets and dispatchers are used.
"""

from __future__ import annotations

import errno
import heapq
import itertools
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from waitress import create_server
from waitress.eventloop import EventLoop, SocketMap
from waitress.observer import Observer, Refusal
from waitress.pollers import ERROR, HANGUP, PEER_CLOSED, READ, WRITE

#: Passes of the loop at one instant after which it is declared to spin.
SPIN_PASSES = 5000
#: Real seconds after which a worker that should stop somewhere is declared to hang.
PATIENCE = 20.0


# -- time ------------------------------------------------------------------------------


class FakeClock:
    """A monotonic clock that is moved by hand."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        assert seconds >= 0
        self.now += seconds


# -- network ---------------------------------------------------------------------------


class _Stream:
    """The bytes that one end has sent and the other has not read."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.data = bytearray()
        #: Whether the sender has said that nothing follows.
        self.ended = False

    @property
    def room(self) -> float:
        return self.capacity - len(self.data)


class FakeSocket:
    """One end of a connection, with as much of a socket's interface as the server uses."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: FakeNetwork, incoming: _Stream, outgoing: _Stream) -> None:
        self.network = network
        self.fd = network.enter(self)
        self.incoming = incoming
        self.outgoing = outgoing
        self.peer: FakeSocket | None = None
        self.options: dict[tuple[int, int], Any] = {}
        #: The bytes of each ``send``, in order.
        self.sends: list[bytes] = []
        self._is_reset = False
        self._error: int | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<FakeSocket {self.fd}>"

    # -- what a socket has

    def fileno(self) -> int:
        return -1 if self._is_closed else self.fd

    def setblocking(self, flag: Any) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._check_open()
        self.options[level, option] = value

    def getsockopt(self, level: int, option: int, _size: int = 0) -> Any:
        self._check_open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_SNDBUF):
            return 65536
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            return self._take_error() or 0
        return self.options.get((level, option), 0)

    def recv(self, size: int) -> bytes:
        self._check_open()
        if self._is_reset:
            self._raise_error()
            return b""
        data = bytes(self.incoming.data[:size])
        del self.incoming.data[:size]
        self.network.activity += bool(data)
        if not data and not self.incoming.ended:
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing to read")
        return data

    def send(self, data: Any) -> int:
        self._check_open()
        if self._is_reset:
            self._raise_error()
        if self._is_reset or self.outgoing.ended:
            raise BrokenPipeError(errno.EPIPE, "nobody reads")
        assert self.peer is not None
        if self.peer._is_closed:
            # The kernel at the other end knows of no such connection (RFC 9293, 3.10.7.1).
            self._be_reset()
            return len(data)
        taken = bytes(data[: int(min(self.outgoing.room, len(data)))])
        if not taken and len(data):
            raise BlockingIOError(errno.EWOULDBLOCK, "no room")
        self.network.activity += 1
        self.outgoing.data += taken
        self.sends.append(taken)
        return len(taken)

    def shutdown(self, how: int) -> None:
        self._check_open()
        if self._is_reset:
            raise OSError(errno.ENOTCONN, "not connected")
        assert how == socket.SHUT_WR
        self.network.activity += 1
        self.outgoing.ended = True

    def close(self) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self.network.activity += 1
        del self.network.sockets[self.fd]
        assert self.peer is not None
        lingers = self.options.get((socket.SOL_SOCKET, socket.SO_LINGER))
        if self.incoming.data or lingers == b"\x01\0\0\0\0\0\0\0":
            # RFC 9293, 3.10.4 and RFC 1122, 4.2.2.13: what lies unread is lost, and the
            # peer is told.
            self.peer._be_reset()
        else:
            self.outgoing.ended = True

    # -- what the network does

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    @property
    def is_reset(self) -> bool:
        return self._is_reset

    def _be_reset(self) -> None:
        if not self._is_closed and not self._is_reset:
            self.network.activity += 1
            self._is_reset = True
            # As Linux has it: a reset behind the end of the stream is a broken pipe.
            self._error = errno.EPIPE if self.incoming.ended else errno.ECONNRESET
            self.incoming.data.clear()
            self.outgoing.data.clear()

    def _take_error(self) -> int | None:
        error, self._error = self._error, None
        return error

    def _raise_error(self) -> None:
        error = self._take_error()
        if error is not None:
            raise OSError(error, "reset by the peer")

    def _check_open(self) -> None:
        if self._is_closed:
            raise OSError(errno.EBADF, "closed")

    def readiness(self) -> int:
        """Return all that is true of the socket now, in poll's bits."""
        if self._is_reset:
            error = ERROR if self._error is not None else 0
            return READ | WRITE | PEER_CLOSED | HANGUP | error
        mask = 0
        if self.incoming.data or self.incoming.ended:
            mask |= READ
        if self.incoming.ended:
            mask |= PEER_CLOSED | (HANGUP if self.outgoing.ended else 0)
        if self.outgoing.room > 0:
            mask |= WRITE
        return mask


class FakeListener:
    """A listening socket."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: FakeNetwork, address: tuple[str, int]) -> None:
        self.network = network
        self.address = address
        self.fd = network.enter(self)
        #: Connections that wait; exceptions among them are raised by ``accept``.
        self.backlog: deque[FakeSocket | OSError] = deque()
        self.is_listening = False
        self._is_closed = False

    def fileno(self) -> int:
        return -1 if self._is_closed else self.fd

    def setblocking(self, flag: Any) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Take an option."""

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def bind(self, address: Any) -> None:
        """Be bound, to the address that was given at the start."""

    def getsockname(self) -> tuple[str, int]:
        return self.address

    def listen(self, backlog: int) -> None:
        self.is_listening = True

    def accept(self) -> tuple[FakeSocket, tuple[str, int]]:
        if not self.backlog:
            raise BlockingIOError(errno.EWOULDBLOCK, "nobody waits")
        found = self.backlog.popleft()
        if isinstance(found, OSError):
            raise found
        return found, ("127.0.0.1", 40000 + found.fd)

    def close(self) -> None:
        if not self._is_closed:
            self._is_closed = True
            del self.network.sockets[self.fd]

    def readiness(self) -> int:
        return READ if self.backlog else 0


class FakeClient:
    """A client: its end of a connection, and what it has read.

    It reads whatever comes, as soon as the loop waits, while ``is_reading``.
    """

    def __init__(self, sock: FakeSocket, server_end: FakeSocket) -> None:
        self.sock = sock
        #: The server's end, to look at.
        self.server_end = server_end
        self.is_reading = True
        self.data = bytearray()
        #: The server has closed its direction, in order.
        self.ended = False
        self.was_reset = False

    def send(self, data: bytes) -> None:
        """Send all of ``data``."""
        sent = self.sock.send(data)
        assert sent == len(data)

    def read(self, size: int = 1 << 60) -> int:
        """Read what has come, at most ``size`` bytes; return how much."""
        total = 0
        while total < size and not (self.ended or self.was_reset or self.sock.is_closed):
            try:
                data = self.sock.recv(size - total)
            except BlockingIOError:
                break
            except (ConnectionResetError, BrokenPipeError):
                self.was_reset = True
                break
            self.data += data
            total += len(data)
            self.ended = not data
        return total

    def shutdown(self) -> None:
        """Say that nothing more will be sent (half-close)."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both directions; what was not read is lost."""
        self.sock.close()

    def reset(self) -> None:
        """Break the connection off."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.sock.close()

    @property
    def is_open(self) -> bool:
        """Whether nothing has ended the connection."""
        return not (self.ended or self.was_reset)

    def responses(self, *methods: str) -> list[Response]:
        """Return all that was read, as whole responses to requests of these methods."""
        return read_responses(bytes(self.data), methods, ended=self.ended)

    def response(self, *methods: str) -> Response:
        """Return the only response."""
        (response,) = self.responses(*methods)
        return response


class FakePoller:
    """Watches the sockets of a network, level-triggered as every real poller.

    When nothing is ready, its wait makes the clock move, to the end of the wait or to the
    next action of :meth:`FakeNetwork.at`.
    """

    descriptor_limit: int | None = None

    def __init__(self, network: FakeNetwork) -> None:
        self.network = network
        self.masks: dict[int, int] = {}

    def register(self, fd: int, mask: int) -> None:
        if fd in self.masks:
            raise FileExistsError(errno.EEXIST, "watched already")
        self.masks[fd] = mask

    def modify(self, fd: int, mask: int) -> None:
        if fd not in self.masks:
            raise FileNotFoundError(errno.ENOENT, "not watched")
        self.masks[fd] = mask

    def unregister(self, fd: int) -> None:
        if self.masks.pop(fd, None) is None:
            raise FileNotFoundError(errno.ENOENT, "not watched")

    def close(self) -> None:
        self.masks.clear()

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        assert timeout is not None
        network = self.network
        network.run_due_actions()
        events = self._ready()
        if not events and timeout:
            network.wait(timeout)
            events = self._ready()
        network.last_events = len(events)
        for _ in range(len(network.after_poll)):
            network.after_poll.popleft()()
        return events

    def _ready(self) -> list[tuple[int, int]]:
        self.network.let_clients_read()
        events = []
        for fd, mask in self.masks.items():
            sock = self.network.sockets.get(fd)
            if sock is not None:
                ready = sock.readiness() & (mask | ERROR | HANGUP)
                if ready:
                    events.append((fd, ready))
        return events


class FakeNetwork:
    """Listeners, connections, and what happens when."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.sockets: dict[int, Any] = {}
        self.clients: list[FakeClient] = []
        #: Called once each after the next poll has found its events.
        self.after_poll: deque[Callable[[], Any]] = deque()
        self.last_events = 0
        #: Grows with everything that a socket does.
        self.activity = 0
        #: The number of seconds that pollers have waited.
        self.waited = 0.0
        # Far above what a process has, so that none is taken for an open descriptor.
        self._numbers = itertools.count(1_000_000)
        self._actions: list[tuple[float, int, Callable[[], Any]]] = []

    def enter(self, sock: Any) -> int:
        """Give a new socket its number."""
        fd = next(self._numbers)
        self.sockets[fd] = sock
        return fd

    def poller(self, _select: Any = None) -> FakePoller:
        """Return a new poller; the factory that the event loop wants."""
        return FakePoller(self)

    def listener(self, address: tuple[str, int] = ("127.0.0.1", 8080)) -> FakeListener:
        """Return a socket to listen on."""
        return FakeListener(self, address)

    def pair(self, capacity: float = 1 << 60) -> FakeClient:
        """Return the client of a new connection; its server's end is in it.

        Args:
            capacity: how many unread bytes the direction to the client holds.
        """
        upward, downward = _Stream(1 << 60), _Stream(capacity)
        server_end = FakeSocket(self, upward, downward)
        client_end = FakeSocket(self, downward, upward)
        server_end.peer, client_end.peer = client_end, server_end
        client = FakeClient(client_end, server_end)
        self.clients.append(client)
        return client

    def connect(self, listener: FakeListener, capacity: float = 1 << 60) -> FakeClient:
        """Return a client whose connection waits to be accepted."""
        client = self.pair(capacity)
        listener.backlog.append(client.server_end)
        return client

    def at(self, when: float, action: Callable[[], Any]) -> None:
        """Have ``action()`` called while a poller waits, at an instant of the clock."""
        heapq.heappush(self._actions, (when, next(self._numbers), action))

    def run_due_actions(self) -> None:
        """Call what is due now."""
        while self._actions and self._actions[0][0] <= self.clock.now:
            heapq.heappop(self._actions)[2]()

    def let_clients_read(self) -> None:
        """Have those who read take what has come."""
        for client in self.clients:
            if client.is_reading:
                client.read()

    def wait(self, timeout: float) -> None:
        """Let the time pass until the next action, at most ``timeout`` seconds."""
        seconds = timeout
        if self._actions:
            seconds = min(seconds, self._actions[0][0] - self.clock.now)
        self.clock.advance(seconds)
        self.waited += seconds
        self.run_due_actions()


# -- workers ---------------------------------------------------------------------------


class _Worker:
    """A thread that runs only while somebody waits for it: one of the two, never both."""

    def __init__(self, task: Any) -> None:
        self.task = task
        #: Where it stands: the name of a point, ``"room"``, or ``None`` at the end.
        self.stands_at: str | None = "start"
        self.may_go_on = True
        self._error: BaseException | None = None
        self._turn = threading.Semaphore(0)
        self._stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, name="stepped worker", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self._turn.acquire()
        _current.worker = self
        try:
            self.task.service()
        except BaseException as error:
            self._error = error
        self.stands_at = None
        self._stopped.release()

    def step(self) -> None:
        """Let it run to its next stop; raise what escaped from the task."""
        self._turn.release()
        if not self._stopped.acquire(timeout=PATIENCE):
            raise AssertionError("the worker does not come back")
        if self.stands_at is None:
            self._thread.join(PATIENCE)
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def stop_at(self, name: str, may_go_on: bool) -> None:
        """Give the turn back, from inside the worker, and wait for the next one."""
        self.stands_at = name
        self.may_go_on = may_go_on
        self._stopped.release()
        self._turn.acquire()


_current = threading.local()


class SteppedCondition:
    """A condition variable whose waiters stop in :meth:`wait`, visibly to the test."""

    def __init__(self, lock: Any) -> None:
        self._lock = lock
        self._waiters: list[_Worker] = []

    def wait(self, timeout: float | None = None) -> bool:
        worker: _Worker = _current.worker
        self._waiters.append(worker)
        self._lock.release()
        worker.stop_at("room", may_go_on=False)
        self._lock.acquire()
        return True

    def notify_all(self) -> None:
        for worker in self._waiters:
            worker.may_go_on = True
        self._waiters.clear()


class SteppedDispatcher:
    """A task dispatcher whose tasks run when the test says so.

    Attributes:
        queue: tasks that nobody has begun.
        served: how many tasks have come to their end.
        batches: how many tasks were queued together, each time.
    """

    def __init__(self) -> None:
        self.queue: deque[Any] = deque()
        self.served = 0
        self.batches: list[int] = []
        self._stopped: list[_Worker] = []
        #: Tasks that must not run now, as if all workers were busy.
        self.is_held = False

    # -- what the server uses

    def add_task(self, task: Any) -> None:
        """Queue a task."""
        self.queue.append(task)

    def add_gathered(self, tasks: Sequence[Any]) -> bool:
        """Queue several tasks."""
        self.queue.extend(tasks)
        self.batches.append(len(tasks))
        return True

    def waiting(self) -> int:
        """Count all that nobody has begun: no thread is ever idle."""
        return len(self.queue)

    def withdraw(self, task: Any) -> bool:
        """Take a task back; say whether it was there."""
        if task not in self.queue:
            return False
        self.queue.remove(task)
        return True

    def shutdown(self, cancel_pending: bool = True, timeout: float = 5) -> bool:
        """Cancel what is queued."""
        pending = list(self.queue)
        self.queue.clear()
        for task in pending:
            task.cancel()
        return bool(pending)

    def condition(self, lock: Any) -> Any:
        """Make what workers wait on; the factory that the event loop wants."""
        return SteppedCondition(lock)

    # -- what the application uses

    def pause(self, name: str) -> None:
        """Stop here until the test says :meth:`resume`; called by an application."""
        _current.worker.stop_at(name, may_go_on=False)

    # -- what the test uses

    @property
    def stops(self) -> list[str]:
        """The names of the points at which workers stand, in the order of their start."""
        return [str(worker.stands_at) for worker in self._stopped]

    @property
    def is_idle(self) -> bool:
        """Whether nothing could go on by itself."""
        can_start = bool(self.queue) and not self.is_held
        return not can_start and not any(worker.may_go_on for worker in self._stopped)

    def run_next(self) -> None:
        """Begin the first task of the queue, and let it run to its next stop."""
        worker = _Worker(self.queue.popleft())
        self._stopped.append(worker)
        self._step(worker)

    def resume(self, name: str) -> None:
        """Let the first worker that stands at ``name`` go on, to its next stop."""
        self._step(next(worker for worker in self._stopped if worker.stands_at == name))

    def run(self) -> None:
        """Let everything go on that can, once."""
        for worker in [worker for worker in self._stopped if worker.may_go_on]:
            self._step(worker)
        while self.queue and not self.is_held:
            self.run_next()

    def finish(self) -> None:
        """Let every worker come to its end."""
        while self._stopped:
            self._step(self._stopped[0])

    def _step(self, worker: _Worker) -> None:
        try:
            worker.step()
        finally:
            if worker.stands_at is None:
                self._stopped.remove(worker)
                self.served += 1


# -- all of it -------------------------------------------------------------------------


class Simulation:
    """A server on a simulated clock, network and pool of workers."""

    def __init__(self, application: Any, **settings: Any) -> None:
        self.clock = FakeClock()
        self.network = FakeNetwork(self.clock)
        self.dispatcher = SteppedDispatcher()
        self.event_loop = EventLoop(
            SocketMap(),
            clock=self.clock,
            wall_clock=self.clock,
            poller_factory=self.network.poller,
            condition_factory=self.dispatcher.condition,
            yield_processor=lambda: None,
            hand_over_wait=0,
        )
        self.listener = self.network.listener()
        self.server = create_server(
            application,
            map=self.event_loop.map,
            _sock=self.listener,
            _dispatcher=self.dispatcher,
            host="127.0.0.1",
            port=8080,
            **settings,
        )

    # -- clients

    def connect(self, data: bytes = b"", capacity: float = 1 << 60) -> FakeClient:
        """Return a client whose connection was accepted, having sent ``data``."""
        client = self.knock(capacity)
        if data:
            client.send(data)
        self.settle()
        return client

    def knock(self, capacity: float = 1 << 60) -> FakeClient:
        """Return a client whose connection waits to be accepted."""
        return self.network.connect(self.listener, capacity)

    def ask(self, client: FakeClient, data: bytes) -> Response:
        """Send a request and return the response, the only one that comes."""
        before = len(client.data)
        client.send(data)
        self.settle()
        method = data.split(b" ", 1)[0].decode("ascii")
        (response,) = read_responses(bytes(client.data[before:]), (method,), ended=client.ended)
        return response

    # -- the loop

    @property
    def channels(self) -> list[Any]:
        """The open channels, oldest first."""
        return sorted(self.server.active_channels.values(), key=lambda each: each.channel_id)

    @property
    def channel(self) -> Any:
        """The only open channel."""
        (channel,) = self.channels
        return channel

    def turn(self, timeout: float = 0) -> None:
        """Make one pass of the loop, no worker."""
        self.network.last_events = 0
        self.server.asyncore.loop(timeout=timeout, map=self.server._map, count=1)

    def settle(self, workers: bool = True) -> None:
        """Let loop and workers do what there is to do at this instant."""
        network = self.network
        for _ in range(SPIN_PASSES):
            before = network.activity
            self.turn()
            network.let_clients_read()
            went_on = network.last_events > 0 or network.activity > before
            if workers and not self.dispatcher.is_idle:
                self.dispatcher.run()
                went_on = True
            if not went_on and not (self.event_loop.ready and self.server._map):
                return
        raise AssertionError("the loop spins")

    def advance(self, seconds: float, workers: bool = True) -> None:
        """Let time pass: whatever happens meanwhile is handled when it happens."""
        end = self.clock.now + seconds
        passes_at_this_instant = 0
        while self.clock.now < end:
            before = self.clock.now
            self.turn(min(1.0, end - before))
            if workers:
                self.dispatcher.run()
            passes_at_this_instant += 1
            if self.clock.now > before:
                passes_at_this_instant = 0
            assert passes_at_this_instant < SPIN_PASSES, "the loop spins"
        self.settle(workers)

    def at(self, seconds: float, action: Callable[[], Any]) -> None:
        """Have ``action()`` called in so many seconds, during :meth:`advance`."""
        self.network.at(self.clock.now + seconds, action)

    # -- the end

    def close(self) -> None:
        """End everything, orderly, whatever state it is in."""
        self.dispatcher.is_held = False
        self.server.close()
        for channel in self.channels:
            channel.close()
        self.dispatcher.finish()
        self.dispatcher.shutdown()
        self.settle()
        assert not self.server._map, "something stays in the map"


@contextmanager
def simulation(application: Any, **settings: Any) -> Iterator[Simulation]:
    """Give a simulation, and end it."""
    simulated = Simulation(application, **settings)
    try:
        yield simulated
    finally:
        simulated.close()


# -- reading responses -------------------------------------------------------------------


class Incomplete(AssertionError):  # noqa: N818 - reads as what it says
    """What was read is no sequence of whole responses."""


@dataclass(frozen=True)
class Response:
    """One response, as it stood on the wire."""

    version: str
    status: int
    reason: str
    #: Values by name in lower case; no name stands twice.
    headers: dict[str, str]
    body: bytes
    #: The head as it was sent.
    head: bytes


def read_responses(
    data: bytes, methods: Sequence[str] = (), *, ended: bool = False
) -> list[Response]:
    """Read bytes as responses, strictly (RFC 9112, 4 to 7).

    Args:
        data: nothing but responses.
        methods: of the requests; GET beyond them. An interim response takes none.
        ended: whether the connection ended in order behind the last byte.

    Raises:
        Incomplete: a response is cut, or something else stands there.
    """
    responses = []
    waiting = deque(methods)
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        if not separator:
            raise Incomplete(f"the head is cut: {head!r}")
        version, status, reason, headers = _read_head(head)
        method = "GET"
        if status >= 200 and waiting:
            method = waiting.popleft()
        body, data = _read_body(method, status, headers, rest, ended)
        responses.append(Response(version, status, reason, headers, body, head + separator))
    return responses


def _read_head(head: bytes) -> tuple[str, int, str, dict[str, str]]:
    line, *fields = head.decode("latin-1").split("\r\n")
    protocol, status, reason = line.split(" ", 2)
    assert protocol in ("HTTP/1.0", "HTTP/1.1"), line
    headers: dict[str, str] = {}
    for field in fields:
        name, colon, value = field.partition(": ")
        assert colon, field
        assert name.lower() not in headers, f"{name} stands twice"
        headers[name.lower()] = value
    return protocol[5:], int(status), reason, headers


def _read_body(
    method: str, status: int, headers: dict[str, str], rest: bytes, ended: bool
) -> tuple[bytes, bytes]:
    if method == "HEAD" or status < 200 or status in (204, 304):
        return b"", rest
    if "transfer-encoding" in headers:
        assert headers["transfer-encoding"] == "chunked"
        assert "content-length" not in headers
        return _read_chunks(rest)
    if "content-length" in headers:
        size = int(headers["content-length"])
        if len(rest) < size:
            raise Incomplete(f"{len(rest)} of {size} bytes of the body: {rest[:80]!r}")
        return rest[:size], rest[size:]
    if not ended:
        raise Incomplete("the body ends with the connection, which has not ended")
    return rest, b""


def _read_chunks(rest: bytes) -> tuple[bytes, bytes]:
    body = b""
    while True:
        line, separator, rest = rest.partition(b"\r\n")
        if not separator:
            raise Incomplete(f"the chunk's size is cut: {line!r}")
        size = int(line, 16)
        if len(rest) < size + 2:
            raise Incomplete(f"{len(rest)} bytes of a chunk of {size}")
        assert rest[size : size + 2] == b"\r\n"
        body, rest = body + rest[:size], rest[size + 2 :]
        if not size:
            return body, rest


# -- writing requests --------------------------------------------------------------------


def get(path: str = "/", *fields: str, version: str = "1.1") -> bytes:
    """Return a GET request; with a Host field for version 1.1."""
    return request("GET", path, *fields, version=version)


def post(path: str, body: bytes, *fields: str, version: str = "1.1") -> bytes:
    """Return a POST request with a Content-Length."""
    return request("POST", path, f"Content-Length: {len(body)}", *fields, version=version) + body


def request(method: str, path: str, *fields: str, version: str = "1.1") -> bytes:
    """Return a head; with a Host field for version 1.1."""
    host = ("Host: localhost",) if version == "1.1" else ()
    lines = [f"{method} {path} HTTP/{version}", *host, *fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunks(*pieces: bytes) -> bytes:
    """Return a body in chunks."""
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# -- watching ------------------------------------------------------------------------------


class RecordingObserver(Observer):
    """Keeps what it is told: the event's name, and the request's number if it has one."""

    listening = True

    def __init__(self) -> None:
        self.events: list[tuple[str, Any]] = []

    @property
    def names(self) -> list[str]:
        """The events' names, in order."""
        return [name for name, _ in self.events]

    def channel_created(self, channel: Any) -> None:
        self.events.append(("channel created", None))

    def request_created(self, channel: Any, request: Any) -> None:
        self.events.append(("created", request.request_id))

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        self.events.append(("queued", tuple(request.request_id for request in requests)))

    def request_started(self, request: Any) -> None:
        self.events.append(("started", request.request_id))

    def application_started(self, request: Any) -> None:
        self.events.append(("application started", request.request_id))

    def response_started(self, request: Any, status: str) -> None:
        self.events.append(("response started", request.request_id))

    def application_finished(self, request: Any) -> None:
        self.events.append(("application finished", request.request_id))

    def request_serviced(self, request: Any) -> None:
        self.events.append(("serviced", request.request_id))

    def request_finished(self, request: Any) -> None:
        self.events.append(("finished", request.request_id))

    def request_cancelled(self, request: Any) -> None:
        self.events.append(("cancelled", request.request_id))

    def refused(self, refusal: Refusal) -> None:
        self.events.append(("refused", refusal.request_id))

    def channel_closed(self, channel: Any) -> None:
        self.events.append(("channel closed", None))
