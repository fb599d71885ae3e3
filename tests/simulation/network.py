"""A clock and a network: connections with delays, windows and segments, and a poller.

Nothing happens by itself: whoever waits, which is only ever the poller, moves the clock
to the next thing that is due. The model of TCP is a coarse one that keeps what matters
to a server: the sender's kernel holds what the receiver's has not taken; the receiver's
holds what its program has not read, and takes no more than its window; a close with
unread bytes is a reset, and so is what comes to a closed end; a reset destroys what is
on the way.
"""

from __future__ import annotations

import errno
import heapq
import select
import socket
import struct
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from waitress.pollers import ERROR, HANGUP, PEER_CLOSED, READ, WRITE

#: Numbers from here on are the network's; those below are real descriptors.
FIRST_NUMBER = 1_000_000
#: Passes of the loop without any effect at one instant from which on it counts as spinning.
SPIN_PASSES = 100

_RESETS = struct.pack("ii", 1, 0)


class Network:
    """The instant, what is going to happen, and the server's ends of all connections."""

    def __init__(self, point: Callable[[str], None]) -> None:
        self.now = 1000.0
        #: Told before and after each system call of the server's.
        self.point = point
        self.sockets: dict[int, Any] = {}
        #: Grows with everything that happens.
        self.activity = 0
        #: What the kernel does with bytes that came before a reset and are not read yet.
        self.reset_destroys_unread = True
        #: Whether the kernel can be asked for what is not acknowledged.
        self.tells_unacknowledged = True
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0
        self._next_number = FIRST_NUMBER

    def clock(self) -> float:
        """Return the instant; the clock of the event loop."""
        return self.now

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Have ``action()`` called at an instant."""
        self._count += 1
        heapq.heappush(self._events, (when, self._count, action))

    @property
    def next_event(self) -> float:
        """The instant of the next event; ``inf`` when nothing is going to happen."""
        return self._events[0][0] if self._events else inf

    def run_due(self) -> None:
        """Let happen what is due."""
        while self._events and self._events[0][0] <= self.now:
            self.activity += 1
            heapq.heappop(self._events)[2]()

    def enter(self, sock: Any) -> int:
        """Give a socket its number; numbers are used again at once, as kernels do."""
        number = FIRST_NUMBER
        while number in self.sockets:
            number += 1
        self.sockets[number] = sock
        return number

    # -- stands in for the module fcntl in waitress.tcp

    def ioctl(self, number: int, request: int, arg: bytes) -> bytes:
        """Answer SIOCOUTQ."""
        sock = self.sockets.get(number)
        if sock is None or not self.tells_unacknowledged:
            raise OSError(errno.EINVAL, "not known")
        return struct.pack("i", len(sock.down.unacknowledged))


class Line:
    """One direction of a connection."""

    def __init__(self, network: Network, delay: float, segment: int, window: int) -> None:
        self.network = network
        #: Seconds that a segment takes, and its largest size.
        self.delay = delay
        self.segment = segment
        #: Bytes that the receiver's kernel holds for its program.
        self.window = window
        self.unacknowledged = bytearray()
        self.arrived = bytearray()
        #: Whether the sender has said that nothing follows; and whether that has arrived.
        self.is_ending = False
        self.has_ended = False
        self.is_dead = False
        #: Every byte that ever arrived, and when the last one did.
        self.total = 0
        self.moved_at = network.now
        #: How many bytes had arrived, and when.
        self.history: list[tuple[int, float]] = []
        #: Told when something has arrived; says whether anybody is there to take it.
        self.on_arrival: Callable[[], bool] = lambda: True
        self._is_moving = False

    def put(self, data: bytes) -> None:
        """Send."""
        self.unacknowledged += data
        self.go_on()

    def end(self) -> None:
        """Say that nothing follows."""
        self.is_ending = True
        self.go_on()

    def die(self) -> None:
        """Lose what is on the way, and carry nothing any more."""
        self.is_dead = True
        self.unacknowledged.clear()

    def take(self, size: int) -> bytes:
        """Read what has arrived, at most ``size`` bytes."""
        data = bytes(self.arrived[:size])
        del self.arrived[:size]
        self.go_on()
        return data

    def go_on(self) -> None:
        """Let the next segment, or the end, be on its way."""
        if self._is_moving or self.is_dead:
            return
        has_room = self.unacknowledged and len(self.arrived) < self.window
        if has_room or (self.is_ending and not self.unacknowledged and not self.has_ended):
            self._is_moving = True
            self.network.at(self.network.now + self.delay, self._arrive)

    def _arrive(self) -> None:
        self._is_moving = False
        if self.is_dead:
            return
        size = min(self.segment, self.window - len(self.arrived), len(self.unacknowledged))
        if size > 0:
            self.arrived += self.unacknowledged[:size]
            del self.unacknowledged[:size]
            self.total += size
            self.moved_at = self.network.now
            self.history.append((self.total, self.network.now))
        if self.is_ending and not self.unacknowledged:
            self.has_ended = True
        if self.on_arrival():
            self.go_on()


class ServerSocket:
    """The server's end of a connection: what it uses of a socket."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: Network, up: Line, down: Line, capacity: int, client: Any) -> None:
        self.network = network
        self.up = up
        self.down = down
        #: Bytes that the kernel holds until they are acknowledged.
        self.capacity = capacity
        self.client = client
        self.number = network.enter(self)
        self.is_closed = False
        self.is_reset = False
        self.sent_at = network.now
        self.sent_total = 0
        #: The error that a reset leaves, until it was asked for.
        self.reset_error = errno.ECONNRESET
        #: Whether a close is told apart from a half-close, as with unix sockets.
        self.hangs_up = False
        self._error: int | None = None
        self._resets_on_close = False
        up.on_arrival = self._arrived

    def __repr__(self) -> str:
        return f"<socket of {self.client}>"

    def fileno(self) -> int:
        return -1 if self.is_closed else self.number

    def setblocking(self, flag: Any) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        self._check_open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_LINGER):
            self._resets_on_close = value == _RESETS

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        self._check_open()
        if (level, option) == (socket.SOL_SOCKET, socket.SO_ERROR):
            error, self._error = self._error, None
            return error or 0
        return self.capacity if option == socket.SO_SNDBUF else 0

    def recv(self, size: int) -> bytes:
        self.network.point("recv")
        self._check_open()
        if self.up.arrived:
            self.network.activity += 1
            return self.up.take(size)
        if self.is_reset:
            self._raise_error()
            return b""
        if not self.up.has_ended:
            raise BlockingIOError(errno.EWOULDBLOCK, "nothing to read")
        return b""

    def send(self, data: Any) -> int:
        self.network.point("send")
        self._check_open()
        if self.is_reset:
            self._raise_error()
        if self.is_reset or self.down.is_ending or self._is_left:
            raise BrokenPipeError(errno.EPIPE, "nobody reads")
        size = min(self.capacity - len(self.down.unacknowledged), len(data))
        if size <= 0 and len(data):
            raise BlockingIOError(errno.EWOULDBLOCK, "no room")
        self.network.activity += 1
        self.sent_at = self.network.now
        self.sent_total += size
        self.down.put(bytes(data[:size]))
        self.client.run.note("%s: the server sends %r", self.client, bytes(data[:size]))
        return size

    def sendmsg(self, parts: list[Any], ancillary: Any = (), flags: int = 0) -> int:
        return self.send(b"".join(parts))

    def shutdown(self, how: int) -> None:
        self._check_open()
        if self.is_reset:
            raise OSError(errno.ENOTCONN, "not connected")
        assert how == socket.SHUT_WR
        self.network.activity += 1
        self.client.run.note("%s: the server sends its end", self.client)
        self.down.end()

    def close(self) -> None:
        if self.is_closed:
            return
        self.network.point("close")
        self.is_closed = True
        self.network.activity += 1
        del self.network.sockets[self.number]
        self.client.run.note("%s: the server closes", self.client)
        if self.up.arrived or self._resets_on_close:
            self._reset_peer()
        else:
            self.down.end()

    # -- what the network does

    def _arrived(self) -> bool:
        if self.is_closed:
            if self.up.arrived and not self.is_reset:
                self._reset_peer()
            return False
        return True

    def _reset_peer(self) -> None:
        """End the connection with a reset: what is on the way is lost."""
        self.up.die()
        self.up.arrived.clear()
        self.down.die()
        self.is_reset = True
        self.network.at(self.network.now + self.down.delay, self.client.be_reset)

    def be_reset(self) -> None:
        """Take a reset from the client."""
        if self.is_reset:
            return
        self.is_reset = True
        self._error = self.reset_error
        self.down.die()
        self.up.die()
        if self.network.reset_destroys_unread or self.is_closed:
            self.up.arrived.clear()

    def _raise_error(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise OSError(error, "reset by the peer")

    def _check_open(self) -> None:
        if self.is_closed:
            raise OSError(errno.EBADF, "closed")

    @property
    def _is_left(self) -> bool:
        """Whether the client has closed its end, and this kind of socket tells so."""
        return self.hangs_up and self.client.closed_at is not None and self.up.has_ended

    @property
    def is_writable(self) -> bool:
        """Whether a third of the buffer is free, as Linux wants it."""
        return (self.capacity - len(self.down.unacknowledged)) * 3 >= self.capacity

    def readiness(self) -> int:
        """Return all that is true of the socket now, in poll's bits."""
        if self.is_reset:
            error = ERROR if self._error is not None else 0
            return READ | WRITE | PEER_CLOSED | HANGUP | error
        mask = 0
        if self.up.arrived:
            mask |= READ
        if self.up.has_ended:
            mask |= READ | PEER_CLOSED
            if self.down.is_ending or self._is_left:
                mask |= HANGUP
        if self.is_writable or self._is_left:
            mask |= WRITE
        return mask


class Listener:
    """The listening socket."""

    family = socket.AF_INET
    type = socket.SOCK_STREAM
    proto = 0

    def __init__(self, network: Network) -> None:
        self.network = network
        self.number = network.enter(self)
        #: Connections that wait, or errors that accepting runs into.
        self.backlog: deque[ServerSocket | OSError] = deque()
        #: When the first of them became the first.
        self.waiting_since = network.now
        self.is_closed = False

    def fileno(self) -> int:
        return -1 if self.is_closed else self.number

    def setblocking(self, flag: Any) -> None:
        assert not flag

    def setsockopt(self, level: int, option: int, value: Any) -> None:
        """Take an option."""

    def getsockopt(self, level: int, option: int) -> int:
        return 0

    def bind(self, address: Any) -> None:
        """Be bound already."""

    def getsockname(self) -> tuple[str, int]:
        return "127.0.0.1", 8080

    def listen(self, backlog: int) -> None:
        """Listen."""

    def knock(self, who: ServerSocket | OSError) -> None:
        """Have a connection, or an error, wait to be accepted."""
        if not self.backlog:
            self.waiting_since = self.network.now
        self.backlog.append(who)

    def accept(self) -> tuple[ServerSocket, tuple[str, int]]:
        self.network.point("accept")
        if not self.backlog:
            raise BlockingIOError(errno.EWOULDBLOCK, "nobody waits")
        self.network.activity += 1
        found = self.backlog.popleft()
        self.waiting_since = self.network.now
        if isinstance(found, OSError):
            raise found
        return found, (found.client.host, found.client.port)

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            del self.network.sockets[self.number]

    def readiness(self) -> int:
        return READ if self.backlog else 0


class Poller:
    """Level-triggered, as every real one; its wait is what makes the time pass.

    Args:
        network: whose sockets it watches.
        scheduler: has ``run_some()``, called while the loop waits and others run, and
            ``step()``, which lets a worker go on and says whether there was one.
        shuffle: puts events into an order of its own: the kernel's is not to be relied on.
        on_pass: called at the begin of each wait; may raise ``ExitNow``.
        on_rest: called when nothing can happen before the clock moves, with the instant to
            which it is going to.
    """

    descriptor_limit: int | None = None

    def __init__(
        self,
        network: Network,
        scheduler: Any,
        shuffle: Callable[[list[Any]], None],
        on_pass: Callable[[], None],
        on_rest: Callable[[float], None],
    ) -> None:
        self.network = network
        self.scheduler = scheduler
        self.shuffle = shuffle
        self.on_pass = on_pass
        self.on_rest = on_rest
        self.masks: dict[int, int] = {}
        self.passes = 0
        self.vain_passes = 0
        #: Waits that ended because of their time.
        self.timeouts = 0
        self._activity = (0, 0.0)
        # The trigger is a real pipe.
        self._pipes = select.poll()

    def register(self, fd: int, mask: int) -> None:
        if fd in self.masks:
            raise FileExistsError(errno.EEXIST, "watched already")
        self._check(fd)
        self.masks[fd] = mask
        if fd < FIRST_NUMBER:
            self._pipes.register(fd, mask)

    def modify(self, fd: int, mask: int) -> None:
        if fd not in self.masks:
            raise FileNotFoundError(errno.ENOENT, "not watched")
        self._check(fd)
        self.masks[fd] = mask

    def unregister(self, fd: int) -> None:
        if self.masks.pop(fd, None) is None:
            raise FileNotFoundError(errno.ENOENT, "not watched")
        if fd < FIRST_NUMBER:
            self._pipes.unregister(fd)

    def _check(self, fd: int) -> None:
        if fd >= FIRST_NUMBER and fd not in self.network.sockets:
            raise OSError(errno.EBADF, "not open")

    def close(self) -> None:
        self.masks.clear()

    def forget(self, fd: int) -> None:
        """Drop the registration of a closed descriptor, as the kernel does."""
        self.masks.pop(fd, None)

    def poll(self, timeout: float | None) -> list[tuple[int, int]]:
        assert timeout is not None
        network = self.network
        self.on_pass()
        self._count_pass()
        end = network.now + timeout
        while True:
            network.run_due()
            self.scheduler.run_some()
            events = self._ready()
            if events or timeout <= 0:
                break
            if self.scheduler.step():
                continue
            if network.now >= end:
                self.timeouts += 1
                break
            then = min(end, network.next_event)
            self.on_rest(then)
            network.now = then
        self.shuffle(events)
        return events

    def _count_pass(self) -> None:
        self.passes += 1
        activity = (self.network.activity, self.network.now)
        self.vain_passes = self.vain_passes + 1 if activity == self._activity else 0
        self._activity = activity
        assert self.vain_passes < SPIN_PASSES, f"the loop spins on {self._ready()}"

    def _ready(self) -> list[tuple[int, int]]:
        events = self._pipes.poll(0)
        sockets = self.network.sockets
        for fd, mask in self.masks.items():
            if fd >= FIRST_NUMBER:
                sock = sockets.get(fd)
                if sock is not None:
                    ready = sock.readiness() & (mask | ERROR | HANGUP)
                    if ready:
                        events.append((fd, ready))
        events.sort()
        return events
