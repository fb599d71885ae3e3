"""The server's channels, with points in the worker's side and eyes on the deadlines."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

from tests.simulation.workers import Lock
from waitress import clients as production_clients
from waitress import phases
from waitress.channel import ChannelState, HTTPChannel, Phase
from waitress.deadlines import BUCKET_SECONDS
from waitress.outbound import MOST_FILES
from waitress.pollers import READ, WRITE

#: How late a deadline may be told: a bucket, and rounding.
SLACK = BUCKET_SECONDS + 0.01
#: Rounding of instants.
EPSILON = 1e-6


class SimulatedChannel(HTTPChannel):
    """A channel that lets others go on between its steps, and watches its own timers."""

    def __init__(self, server: Any, sock: Any, addr: Any, adj: Any, map: Any = None) -> None:
        run = server.simulation
        self.run = run
        self.client = sock.client
        self.number = len(run.channels)
        run.channels.append(self)
        self.client.channel = self
        #: The request that the application works at.
        self.active: Any = None
        #: How many bytes its worker appends.
        self.appending = 0
        #: Why it ended, as far as it was not the client who ended it.
        self.verdicts: list[str] = []
        #: When the server last had a reason of its own to let the client wait.
        self.busy_until = run.network.now
        self.closed_at: float | None = None
        self.unread_at_close = b""
        #: Bytes that had arrived when the server stopped to want any.
        self.total_at_close = 0
        #: Bytes that the system had not taken.
        self.unsent_at_close = 0
        #: How long it lingered, and whether it was one too many to do so.
        self.lingered_from: float | None = None
        self.lingered_no_longer = False
        self.accepted_at = run.network.now
        self.kernel = sock
        super().__init__(server, sock, addr, adj, map)
        point = run.scheduler.point
        outbound: Any = self.outbound
        outbound.append = _between(point, "append", self._sizing(outbound.append))
        outbound.append_last = _between(point, "append", self._sizing(outbound.append_last))
        outbound.append_file = _between(point, "append", outbound.append_file)
        outbound._lock = Lock(run.scheduler)
        queue: Any = self.request_queue
        queue.lock = Lock(run.scheduler)
        queue.finish = _between(point, "finish", self._clearing(queue.finish))
        queue.head = _between(point, "head", self._checking(queue.head))

    def __hash__(self) -> int:
        # Sets of channels have the same order in every repetition.
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    def __repr__(self) -> str:
        return f"<channel of {self.client}>"

    __str__ = __repr__

    # -- points

    def _sends_plainly(self) -> bool:
        return bool(self.run.uses_sendmsg)

    def service(self) -> None:
        self.run.scheduler.point("service")
        super().service()
        self.run.scheduler.point("end of service")

    def service_ended(self, has_turn: bool) -> None:
        self.busy_until = self.run.network.now
        super().service_ended(has_turn)

    def _report(self) -> None:
        self.run.scheduler.point("report")
        super()._report()

    def _clearing(self, finish: Callable[[bool], Any]) -> Callable[[bool], Any]:
        def finish_and_clear(keep_alive: bool) -> Any:
            self.active = None
            return finish(keep_alive)

        return finish_and_clear

    def _checking(self, head: Callable[[], Any]) -> Callable[[], Any]:
        def head_and_check() -> Any:
            request = head()
            if request is not None and request.error and not self._answers:
                self.run.fail(f"{self}: a worker serves a refused request")
            if self.outbound.pending > self.adj.outbuf_high_watermark:
                self.run.fail(f"{self}: a worker serves a client that has too much to read")
            return request

        return head_and_check

    def _sizing(self, append: Callable[..., Any]) -> Callable[..., Any]:
        def append_and_tell(parts: Any, size: int, *args: Any, **kw: Any) -> Any:
            self.appending = size
            return append(parts, size, *args, **kw)

        return append_and_tell

    # -- what it ends by

    def _close_now(self) -> None:
        was_closed = self.state is ChannelState.CLOSED
        if not was_closed:
            self.lingered_no_longer = (
                self.state is ChannelState.LINGERING
                and len(self.clients.lingering) >= production_clients.LINGERING_LIMIT
            )
            sock = self.kernel
            self.unread_at_close = bytes(sock.up.arrived)
            self.total_at_close = sock.up.total
            self.unsent_at_close = self.outbound.pending
            self.closed_at = self.run.network.now
            self.run.note("%s: closed in state %s, phase %s", self, self.state, self.phase)
        super()._close_now()

    def _move_to(self, state: Any, reason: str) -> None:
        if state is ChannelState.LINGERING:
            self.lingered_from = self.run.network.now
            self.busy_until = self.run.network.now
        super()._move_to(state, reason)

    @property
    def lingered(self) -> float:
        """For how long it lingered before it was closed."""
        if self.lingered_from is None or self.closed_at is None:
            return 0.0
        return self.closed_at - self.lingered_from

    def handle_error(self) -> None:
        if not self.run.disk_fails:
            self.run.fail_with_traceback(f"{self}: an exception reached handle_error")
        super().handle_error()

    def give_up_head(self) -> None:
        self.verdicts.append("evicted")
        began = self._began_head_at()
        now = self.run.network.now
        if now < began + (self.adj.header_timeout or inf) / 4 - EPSILON:
            self.run.fail(f"{self}: a head {now - began} s old was evicted")
        super().give_up_head()

    def give_up_queued(self) -> bool:
        if not self._peer_closed:
            self.run.fail(f"{self}: a client that is there is to give up its place")
        given_up = super().give_up_queued()
        if given_up:
            self.verdicts.append("gave way")
        return given_up

    def close_if_idle(self) -> bool:
        began = self.closed_at
        idle = self.run.network.now - max(self.kernel.up.moved_at, self.busy_until)
        # Of a service that has ended the loop may not have heard: then nothing is closed.
        if idle < 1 - EPSILON and not self._in_service:
            self.run.fail(f"{self}: to be closed after {idle} s of rest")
        # A response has ended it, which the look finds out before the worker has reported.
        is_ended = self.request_queue.is_ended
        closed = super().close_if_idle()
        if closed and began is None and not is_ended:
            self.verdicts.append("idle")
            if self.unread_at_close:
                self.run.fail(f"{self}: closed as idle with {self.unread_at_close!r} unread")
        return closed

    def cut(self, reason: str) -> None:
        self.verdicts.append("cut")
        self.run.note("%s: cut, %s", self, reason)
        super().cut(reason)

    @property
    def will_close(self) -> bool:
        return super().will_close

    @will_close.setter
    def will_close(self, value: bool) -> None:
        """Take an order from outside: the server's sweep, or its end."""
        self.verdicts.append("swept")
        silence = self.run.network.now - self._waits_since()
        limit = self.adj.channel_timeout or inf
        if not self.run.was_ended and silence < limit - EPSILON:
            self.run.fail(f"{self}: swept after {silence} s of silence")
        HTTPChannel.will_close.fset(self, value)  # type: ignore[attr-defined]

    # -- timers that the client has earned

    def _waits_since(self) -> float:
        """Since when the server has waited for the client and heard nothing."""
        kernel = self.kernel
        return float(max(kernel.up.moved_at, self.busy_until, kernel.sent_at))

    def _being_received(self) -> Any:
        """The client's request of which a part has been read, as the client knows it."""
        position = self.kernel.up.total - len(self.kernel.up.arrived)
        for request in self.client.sent:
            if request.starts_at < position and not (0 <= request.ends_at <= position):
                return request
        return None

    def _began_head_at(self) -> float:
        """When the first byte of the request being received came, or was first wanted."""
        waited: float = max(self.busy_until, self.kernel.sent_at)
        request = self._being_received()
        if request is None:
            return waited
        return float(max(self.run.arrival_of(self.client, request.starts_at), waited))

    def _body_is_slow(self, now: float) -> bool:
        """Whether so little of the body has come that its rate may be found too low."""
        rate = self.adj.body_min_rate
        request = self._being_received()
        if not rate or request is None:
            return False
        head_end = request.starts_at + request.head_size
        began = self.run.arrival_of(self.client, head_end - 1)
        seconds = float(now - max(began, self.busy_until))
        # Twice the rate: what came together with the head does not count.
        return seconds >= 30 - EPSILON and bool(
            self.kernel.up.total - head_end < 2 * rate * seconds
        )

    def handle_deadline(self, now: float) -> None:
        if not (phase := self.phase) or self.state is ChannelState.CLOSED:
            super().handle_deadline(now)
            return
        run = self.run
        kernel = self.kernel
        quiet_since = self._waits_since()
        unread = len(kernel.up.arrived)
        silent = now >= quiet_since + (self.adj.channel_timeout or inf) - EPSILON
        began = self._began_head_at()
        slow = phase is Phase.BODY and self._body_is_slow(now)
        acknowledged = max(kernel.down.moved_at, kernel.sent_at)
        waits = self.outbound.worker_is_waiting
        super().handle_deadline(now)
        run.note("%s: deadline in phase %s", self, phase.name)
        closed = self.state is not ChannelState.OPEN
        if not closed:
            return
        if phase is Phase.OURS:
            run.fail(f"{self}: a timer of the client's ran out while the server worked")
        elif phase is Phase.IDLE:
            # That look may find that the client has sent its end, and nothing is left to do.
            if not silent and not (kernel.up.has_ended and not unread):
                run.fail(f"{self}: closed as idle after {now - quiet_since} s")
            if "idle" not in self.verdicts:
                self.verdicts.append("idle")
        elif phase is Phase.HEAD:
            self.verdicts.append("head")
            if not silent and now < began + (self.adj.header_timeout or inf) - EPSILON:
                run.fail(f"{self}: a head was given {now - began} s")
            if unread and now > kernel.up.moved_at:
                run.fail(f"{self}: a late head, but {unread} bytes lie unread")
        elif phase is Phase.BODY:
            self.verdicts.append("body")
            quiet = now - quiet_since
            if not silent and quiet < (self.adj.body_timeout or inf) - EPSILON and not slow:
                run.fail(f"{self}: a body was given {quiet} s of silence")
            if unread and now > kernel.up.moved_at:
                run.fail(f"{self}: a late body, but {unread} bytes lie unread")
        elif phase is Phase.SEND and "cut" in self.verdicts:
            limit = self.adj.send_timeout or inf
            if waits:
                limit = min(limit, phases.SEND_TIMEOUT_WORKER_WAITS_SECONDS)
            if run.network.tells_unacknowledged and now < acknowledged + limit - EPSILON:
                run.fail(f"{self}: cut {now - acknowledged} s after its client took bytes")

    # -- timers that have to fire

    def check_patience(self) -> None:
        """Fail if the client has been waited for longer than any deadline allows.

        Called when nothing is going to happen before the time goes on.
        """
        now = self.run.network.now
        adj = self.adj
        kernel = self.kernel
        if getattr(adj, "max_buffered_bytes", 0) and not self.outbound.pending:
            return  # Its time begins anew whenever it may be read from again.
        if self.state is ChannelState.LINGERING:
            limit = self.busy_until + (adj.linger_timeout or inf)
        elif self.outbound.pending:
            since = max(kernel.down.moved_at, kernel.sent_at, self.busy_until)
            timeout = adj.send_timeout or inf
            # Progress is noticed at the next look, and its end at the one after.
            limit = since + timeout + 2 * max(1.0, timeout / 4)
        elif self.state is ChannelState.OPEN and not self.request_queue.requests:
            since = self._waits_since()
            limit = since + (adj.channel_timeout or inf)
            if self.request is not None and not self.request.headers_finished:
                limit = min(limit, self._began_head_at() + (adj.header_timeout or inf))
            elif self.request is not None:
                limit = min(limit, since + (adj.body_timeout or inf))
        else:
            return
        if now > limit + SLACK:
            self.run.fail(f"{self}: in phase {self.phase.name} nothing ended it at {limit}")

    def check_rest(self) -> None:
        """Fail if something is left undone that nothing is going to do.

        Called when nothing is going to happen before the time goes on.
        """
        run = self.run
        kernel = self.kernel
        queue = self.request_queue
        pending = self.outbound.pending
        mask = run.poller.masks.get(self._fileno, 0)
        if self.state is ChannelState.CLOSED:
            return
        if pending and not mask & WRITE and not kernel.is_reset:
            run.fail(f"{self}: {pending} bytes wait, and nobody asks whether they can be sent")
        if pending and not self._is_blocked:
            run.fail(f"{self}: {pending} bytes wait that nobody has tried to send")
        if self.state is ChannelState.DRAINING and not pending:
            run.fail(f"{self}: everything is sent, and it is not closed")
        if self.state is ChannelState.OPEN:
            if self.readable() and not mask & READ:
                run.fail(f"{self}: it reads, and is not watched")
            if queue.requests and not queue.in_service:
                if queue.requests[0].error:
                    run.fail(f"{self}: a refused request is not answered")
                held = self.outbound.segments
                files = sum(not isinstance(each, (bytes, memoryview)) for each in held)
                if pending <= self.adj.outbuf_high_watermark and files <= MOST_FILES:
                    run.fail(f"{self}: a request waits for nothing")
            if queue.in_service and not run.is_being_served(self):
                run.fail(f"{self}: in service, and nobody serves it")
        if self.deadline + SLACK < run.network.now:
            run.fail(f"{self}: the deadline {self.deadline} was missed")


class WriteSoonChannel(SimulatedChannel):
    """A channel as users make it who want to see every byte."""

    def write_soon(self, data: Any) -> int:
        self.run.scheduler.point("write_soon")
        return super().write_soon(data)

    def send(self, data: Any, do_close: bool = True) -> int:
        return super().send(data, do_close)

    def _sends_plainly(self) -> bool:
        return False


class AskedChannel(SimulatedChannel):
    """A channel that wants to be asked whether it reads."""

    def readable(self) -> bool:
        return super().readable()


def _between(
    point: Callable[[str], None], name: str, function: Callable[..., Any]
) -> Callable[..., Any]:
    """Return the function with a point before and one behind it."""

    def stepped(*args: Any, **kw: Any) -> Any:
        point("before " + name)
        result = function(*args, **kw)
        point("after " + name)
        return result

    return stepped
