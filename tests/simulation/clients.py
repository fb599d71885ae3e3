"""Clients: how they send, how they read, and how they leave.

A client is a generator, its *script*, which says what it waits for: a number of seconds,
or a condition that is looked at whenever something arrives.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from tests.simulation.faults import CONNECTION_ERRORS
from tests.simulation.network import Line, Network, ServerSocket
from tests.simulation.reading import Malformed, Reader, Response
from tests.simulation.requests import Request

_MANNERS = {
    "normal": ("eager",) * 12 + ("slow", "slow", "pauses", "pauses", "stops"),
    "stalling": ("eager", "slow", "pauses", "pauses", "stops"),
}
_LEAVES = {
    "normal": ("stays",) * 3 + ("closes",) * 3 + ("half-closes",) * 3
    + ("resets", "aborts", "vanishes"),
    "leaving": ("half-closes", "resets", "resets", "aborts", "aborts", "vanishes"),
}  # fmt: skip

_Wish = float | Callable[[], bool]


class Surroundings(Protocol):
    """What a client needs of the run."""

    network: Network
    clients: list[Client]
    #: Whether a client may be refused before it has sent anything.
    may_turn_away: bool

    def note(self, text: str, *args: Any) -> None:
        """Tell what happens."""

    def fail(self, text: str) -> None:
        """Tell what must not happen."""


class Client:
    """One client and its connection.

    Attributes:
        requests: all that it sends, in the order of sending, as far as it got.
        reader: what came back.
        manner: how it reads: "eager", "slow", "pauses", "stops".
        leaves: how it ends: "stays", "closes", "half-closes", "resets", "vanishes".
    """

    def __init__(
        self,
        run: Surroundings,
        number: int,
        rng: random.Random,
        batches: list[list[Request]],
        scale: int,
        mood: str,
    ) -> None:
        self.run = run
        self.number = number
        self.host = f"127.0.0.{1 + number % 2}"
        self.port = 40000 + number
        self.rng = rng
        self.batches = batches
        network = run.network
        delay = rng.choice((0.0, 0.001, 0.05, 0.4))
        segment = rng.choice((1 + scale // 8, scale, 65536, 65536))
        window = rng.choice((1 + scale // 4, scale, scale * 8, 65536))
        self.up = Line(network, delay, rng.choice((scale, 65536)), window)
        self.down = Line(network, delay, segment, window)
        self.sent: list[Request] = []
        self.reader = Reader(self._method_of)
        self.manner = rng.choice(_MANNERS["stalling" if mood == "stalling" else "normal"])
        self.leaves = rng.choice(_LEAVES["leaving" if mood == "leaving" else "normal"])
        self.pace = rng.choice((0.0, 0.0, 0.001, 0.02, 0.5, 4.0))
        self.pieces = rng.choice((1, 1, 2, 4, 12))
        self.pipelines = rng.random() < 0.7
        self._reading_pause = rng.choice((0.5, 3.0, 20.0))
        self._reading_from = rng.randrange(scale * 2)
        self._slow_bytes = 1 + rng.randrange(scale)
        self._slow_every = rng.choice((0.05, 0.5, 2.0))
        #: When it did what the server did not ask for; ``None`` if it did not.
        self.closed_at: float | None = None
        self.ended_at: float | None = None
        self.vanished_at: float | None = None
        #: What the server did.
        self.got_end = False
        self.was_reset = False
        #: Bytes given to the kernel to send.
        self.sent_bytes = 0
        self.sock: ServerSocket | None = None
        #: The server's channel, once there was one.
        self.channel: Any = None
        self._script = self._follow()
        self._until: Callable[[], bool] | None = None
        self._is_reading = False
        self.is_stalled = False
        self._has_paused = False
        self.down.on_arrival = self._notice

    def __repr__(self) -> str:
        return f"client {self.number}"

    def describe(self) -> str:
        """Tell all about it."""
        return (
            f"client {self.number}: {self.manner} reader, {self.leaves}, pace {self.pace}, "
            f"{self.pieces} pieces, pipelines={self.pipelines}, delay {self.down.delay}, "
            f"segments {self.up.segment}/{self.down.segment}, window {self.down.window}, "
            f"buffer {self.sock.capacity if self.sock else None}"
        )

    def _method_of(self, position: int) -> str:
        if position < len(self.sent):
            return self.sent[position].method
        if not position and self.run.may_turn_away:
            return "GET"  # Told without having asked.
        raise Malformed("a response without a request")

    @property
    def is_over(self) -> bool:
        """Whether nothing more can come of the connection."""
        return self.was_reset or self.closed_at is not None

    @property
    def last(self) -> Response | None:
        """The last response, perhaps not whole."""
        return self.reader.responses[-1] if self.reader.responses else None

    # -- the script

    def start(self, capacity: int, listener: Any) -> None:
        """Connect; called at the moment at which the connection has been made."""
        self.sock = ServerSocket(self.run.network, self.up, self.down, capacity, self)
        self.sock.reset_error = self.rng.choice(CONNECTION_ERRORS)
        self.sock.hangs_up = self.rng.random() < 0.15
        listener.knock(self.sock)
        self.run.note("%s connects", self)
        self._go_on()

    def _go_on(self) -> None:
        if self.is_over:
            return
        for wish in self._script:
            if callable(wish):
                if not wish():
                    self._until = wish
                    return
            else:
                network = self.run.network
                network.at(network.now + wish, self._go_on)
                return

    def _follow(self) -> Iterator[_Wish]:
        rng = self.rng
        if self.leaves == "vanishes" and rng.random() < 0.3:
            self.vanished_at = self.run.network.now
            return
        for position, batch in enumerate(self.batches):
            yield from self._send_batch(batch)
            if self.got_end or self.vanished_at is not None:
                break
            if position + 1 < len(self.batches) and not self.pipelines:
                wanted = len(self.sent)
                yield lambda: self.reader.whole >= wanted or self.got_end  # noqa: B023
                if self.got_end or (self.last is not None and self.last.closes):
                    break
                if rng.random() < 0.3:
                    yield rng.choice((0.1, 1.5, 4.0))
        yield from self._leave()

    def _send_batch(self, batch: list[Request]) -> Iterator[_Wish]:
        held = b""
        for request in batch:
            if self.vanished_at is not None or self.got_end:
                return
            self.sent.append(request)
            request.starts_at = self.sent_bytes + len(held)
            raw = request.raw
            if self.leaves in ("vanishes", "aborts", "resets") and self.rng.random() < 0.3:
                raw = raw[: self.rng.randrange(1, len(raw))]
                request.is_cut = True
                held += raw
                yield from self._send(held)
                if self.leaves == "vanishes" or self.rng.random() < 0.5:
                    self.vanished_at = self.run.network.now
                if self.leaves != "vanishes":
                    yield self.rng.choice((0.0, 0.2, 5.0))
                    self.close(resets=self.leaves == "resets")
                self.vanished_at = self.run.network.now
                return
            request.ends_at = request.starts_at + len(raw)
            if request.waits_for_continue:
                yield from self._send(held + raw[: request.head_size])
                held = b""
                position, interim = len(self.sent), self.reader.interim
                yield (
                    lambda: (
                        self.reader.interim > interim  # noqa: B023
                        or len(self.reader.responses) >= position  # noqa: B023
                        or self.got_end
                    )
                )
                if self.reader.interim == interim:
                    # A final response in place of the invitation: the body stays here.
                    request.is_cut = True
                    request.ends_at = -1
                    return
                raw = raw[request.head_size :]
            held += raw
        yield from self._send(held)

    def _send(self, data: bytes) -> Iterator[_Wish]:
        rng = self.rng
        cuts = sorted(rng.randrange(len(data) + 1) for _ in range(self.pieces - 1)) if data else []
        start = 0
        for cut in [*cuts, len(data)]:
            piece = data[start:cut]
            start = cut
            if piece and not self.is_over:
                self.sent_bytes += len(piece)
                self.run.note("%s sends %r", self, piece)
                self.up.put(piece)
                if start < len(data):
                    yield self.pace
                    if self.got_end and rng.random() < 0.5:
                        self.vanished_at = self.run.network.now
                        for request in self.sent:
                            if request.starts_at + len(request.raw) > self.sent_bytes:
                                request.is_cut = True
                                request.ends_at = -1
                        return

    def _leave(self) -> Iterator[_Wish]:
        rng = self.rng
        if self.leaves in ("resets", "aborts"):
            yield rng.choice((0.0, 0.05, 1.0, 6.0))
            self.close(resets=self.leaves == "resets")
        elif self.leaves == "half-closes":
            yield rng.choice((0.0, 0.0, 0.05, 1.0))
            self.half_close()
        elif self.leaves == "closes":
            wanted = len(self.sent)
            yield lambda: self.reader.whole >= wanted or self.got_end
            self.close()
        yield lambda: self.got_end
        # Whoever is told the end closes too, sooner or later.
        yield rng.choice((0.0, 0.1, 10.0))
        self.close()

    # -- what it does

    def half_close(self) -> None:
        """Say that nothing follows."""
        if not self.is_over and self.ended_at is None:
            self.ended_at = self.run.network.now
            self.run.note("%s sends its end", self)
            self.up.end()

    def close(self, resets: bool = False) -> None:
        """Close both directions."""
        if self.is_over:
            return
        self.closed_at = self.run.network.now
        self.run.note("%s %s", self, "resets" if resets else "closes")
        if resets or self.down.arrived:
            self._reset_server()
        else:
            self.up.end()

    def _reset_server(self) -> None:
        self.down.die()
        self.up.die()
        assert self.sock is not None
        network = self.run.network
        network.at(network.now + self.up.delay, self.sock.be_reset)

    def be_reset(self) -> None:
        """Take a reset from the server: what was not read is lost."""
        if self.is_over:
            return
        self.was_reset = True
        self.got_end = True
        self.run.note("%s is reset", self)
        self.down.arrived.clear()
        self.up.die()

    def _notice(self) -> bool:
        """Something has come."""
        if self.closed_at is not None:
            if self.down.arrived:
                self._reset_server()
            return False
        self._read()
        return True

    def _read(self) -> None:
        if self._is_reading or self.is_stalled or self.is_over:
            return
        if self.manner == "slow" and self.down.arrived:
            self._is_reading = True
            self.run.network.at(self.run.network.now + self._slow_every, self._read_slowly)
            return
        wanted = 1 << 30
        if self.manner in ("stops", "pauses") and not self._has_paused:
            wanted = max(self._reading_from - self._read_total, 0)
        self._take(wanted)
        if self.manner in ("stops", "pauses") and not self._has_paused and self.down.arrived:
            self._has_paused = self.is_stalled = True
            self.run.note("%s stops reading", self)
            if self.manner == "pauses":
                self.run.network.at(self.run.network.now + self._reading_pause, self._resume)

    _read_total = 0

    def _resume(self) -> None:
        self.is_stalled = False
        self.run.note("%s goes on reading", self)
        self._read()

    def _read_slowly(self) -> None:
        self._is_reading = False
        if not self.is_over:
            self._take(self._slow_bytes)
            self._read()

    def _take(self, size: int) -> None:
        data = self.down.take(size)
        if data:
            self._read_total += len(data)
            self.run.note("%s reads %r", self, data)
            try:
                self.reader.feed(data)
            except Malformed as error:
                self.run.fail(f"{self}: {error}")
                self.close(resets=True)
                return
        if self.down.has_ended and not self.down.arrived and not self.got_end:
            self.run.note("%s reads the end", self)
            self.got_end = True
            self.reader.end()
        until = self._until
        if until is not None and until():
            self._until = None
            self._go_on()
