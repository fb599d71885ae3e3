"""One connection, seen from the loop.

Owns the socket, the parser of the request being received, and the connection's state.
Bytes come in through ``handle_read`` and ``received``, which feeds the parser;
complete requests go to the request queue, and the channel itself, as a task, to the task
dispatcher; the worker's bytes come back through the outbound buffer and leave in
``_flush``. Every decision about the connection is made in ``_advance``, in the loop's
thread: start the next request, answer a refused one, invite a body, or close.

Row 7: imports buffers, clients, forks, observer, outbound, parser, phases, pollers,
proxy_protocol, request_queue, service, spool, task, tcp, utilities and wasyncore.
"""

from __future__ import annotations

import contextlib
import enum
import itertools
import logging
import os
import socket
import threading
import time
import traceback
from collections import deque
from collections.abc import MutableMapping, Sequence
from math import inf
from typing import Any

from waitress import forks, tcp, wasyncore
from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.clients import Clients
from waitress.observer import NO_OBSERVER, Observer, Refusal
from waitress.outbound import MOST_PARTS, ClientDisconnected, FileFailedError, OutboundBuffer
from waitress.parser import HTTPRequestParser
from waitress.phases import Phase, PhasedChannel
from waitress.pollers import ERROR, HANGUP, INVALID, PEER_CLOSED, READ, WRITE
from waitress.proxy_protocol import ProxyProtocolReceiver
from waitress.request_queue import QueueEndedError, RequestQueue
from waitress.service import answer_error, serve_next
from waitress.spool import SpoolBudget, default_spool_limit
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import (
    Error,
    HTTPVersionNotSupported,
    InsufficientStorage,
    InternalServerError,
    RequestTimeout,
    ServiceUnavailable,
)

__all__ = [
    "ChannelState",
    "ClientDisconnected",
    "ErrorTask",
    "HTTPChannel",
    "HTTPRequestParser",
    "InternalServerError",
    "OverflowableBuffer",
    "Phase",
    "ReadOnlyFileBasedBuffer",
    "WSGITask",
    "socket",
    "threading",
    "time",
    "traceback",
    "wasyncore",
]

#: What the parser is given at once: what follows a request in it is copied.
RECEIVE_BYTES = 64 * 1024
#: What is asked for at once while a body is received, whose bytes the parser passes on as
#: they are: all the rest of it up to so much, or so much when its length is not known.
MOST_RECEIVE_BYTES = 1024 * 1024
BODY_RECEIVE_BYTES = 256 * 1024
#: What one connection may send in one turn of the loop before the others have theirs.
FLUSH_BYTES = 1024 * 1024
#: What is handed to the kernel at once: bytes in memory cost it the same in one call as in
#: four, and the client is woken once.
SEND_BYTES = FLUSH_BYTES

#: A client that leaves after its request has waited for a worker for so long, in seconds,
#: is taken to have left because of that.
PATIENCE_SECONDS = 0.1

#: The end of a lingering close: after so many bytes.
LINGER_BYTES = 64 * 1024 * 1024

logger = logging.getLogger("waitress.channel")

_channel_ids = itertools.count(1)
_request_ids = itertools.count(1)


class ChannelState(enum.Enum):
    """What may still happen on a connection."""

    OPEN = "requests are read and served"
    DRAINING = "nothing more is read; what is buffered is sent, then it is closed"
    LINGERING = "everything was sent; the client may read it before it is closed"
    CLOSED = "the socket is closed"

    # There is one object of each; that of enumerations is a call, four times a connection.
    __hash__ = object.__hash__


_MOVES = {
    ChannelState.OPEN: {ChannelState.DRAINING, ChannelState.CLOSED},
    ChannelState.DRAINING: {ChannelState.LINGERING, ChannelState.CLOSED},
    ChannelState.LINGERING: {ChannelState.CLOSED},
    ChannelState.CLOSED: set(),
}
_OPEN = ChannelState.OPEN
_DRAINING = ChannelState.DRAINING
_LINGERING = ChannelState.LINGERING
_CLOSED = ChannelState.CLOSED


_PROXY_HEADER = Phase.PROXY_HEADER
_IDLE, _HEAD, _BODY = Phase.IDLE, Phase.HEAD, Phase.BODY
_OURS, _SEND, _LINGER = Phase.OURS, Phase.SEND, Phase.LINGER

#: The methods by which a connection is read.
_READING = frozenset({"handle_events", "handle_read", "handle_read_event", "recv"})

#: Windows has none.
_HAS_SENDMSG = hasattr(socket.socket, "sendmsg")

#: Have the kernel wait for what follows; Linux only.
_MSG_MORE: int = getattr(socket, "MSG_MORE", 0)

#: What a connection is watched for that need not be asked whether it takes more.
_WATCHED = READ | PEER_CLOSED


class HTTPChannel(PhasedChannel):
    """A connection: zero to any number of requests, in order, then closed and forgotten.

    Threads: everything belongs to the loop, but for the block "worker" (``service``,
    ``write_soon``, ``writev_soon`` and what serving a request needs), and the doors that
    users open from any thread (``handle_close``, ``close``, ``cancel``, and assigning
    ``will_close`` and ``close_when_flushed``), which forward to the loop.
    """

    task_class = WSGITask
    error_task_class = ErrorTask
    parser_class = HTTPRequestParser

    # As in the class above.
    __slots__ = (
        "_answers",
        "_client_group",
        "_close_wanted",
        "_drain_wanted",
        "_fileno",
        "_forks",
        "_got_empty_lines",
        "_in_service",
        "_input_ended",
        "_is_blocked",
        "_lingers",
        "_map",
        "_peer_closed",
        "_proxy_header",
        "_queued_again_at",
        "_queued_at",
        "_resets",
        "_spool",
        "addr",
        "channel_id",
        "connected",
        "creation_time",
        "ended_by",
        "has_left",
        "interest",
        "observer",
        "sent_continue",
        "server",
        "socket",
        "state",
        "touched",
    )

    #: The timelines of the requests that have not ended, while somebody wants them.
    timelines: Sequence[Any] = ()

    #: See :mod:`waitress.eventloop`.
    interest_is_state = True
    #: Whether to look for a request as soon as the connection is accepted. Whoever reads
    #: otherwise than this class does may not expect to find nothing.
    reads_at_once = True

    def __init_subclass__(cls, **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if "readable" in cls.__dict__ or "writable" in cls.__dict__:
            # A subclass that answers these questions wants to be asked.
            cls.interest_is_state = False
        if not cls.__dict__.keys().isdisjoint(_READING) or not cls.interest_is_state:
            cls.reads_at_once = False

    def __init__(
        self,
        server: Any,
        sock: Any,
        addr: Any,
        adj: Any,
        map: MutableMapping[int, Any] | None = None,
    ) -> None:
        """Take an accepted connection.

        Args:
            server: has ``adj``, ``active_channels``, ``add_task`` and ``pull_trigger``.
            sock: the accepted connection; its peer may be gone already.
            addr: the peer's address, as the environ will tell it.
            adj: the settings; read at every use.
            map: the socket map to stand in.
        """
        PhasedChannel.__init__(self, map)
        self.server = server
        self.adj = adj
        self.addr = addr
        self.connected = False
        self.channel_id = next(_channel_ids)
        spool: SpoolBudget | None
        clients: Clients | None
        try:
            self.observer: Observer = server.observer
            clients, spool = server.clients, server.spool
            #: Forks before it was accepted; of a server of somebody's own that is not known.
            self._forks: int = server.forks_before_accept
        except AttributeError:
            self.observer = getattr(server, "observer", NO_OBSERVER)
            clients, spool = getattr(server, "clients", None), getattr(server, "spool", None)
            self._forks = getattr(server, "forks_before_accept", -1)
        self.clients: Clients = Clients() if clients is None else clients
        self._spool = spool or SpoolBudget(default_spool_limit(getattr(adj, "spool_dir", None)))
        self.request_queue = RequestQueue()
        self.outbound = OutboundBuffer(
            self._spool, self._touch_and_wake, self.event_loop.condition_factory
        )
        self.state = _OPEN
        #: The request being received, incomplete.
        self.request: Any = None
        #: Whether ``100 Continue`` was sent for it.
        self.sent_continue = False
        #: Reads what the proxy has to say before the first request; None when it has.
        self._proxy_header: ProxyProtocolReceiver | None = None
        #: What came last was empty lines.
        self._got_empty_lines = False
        #: Nothing that the client may still send is a request: it was refused, or asked to
        #: close.
        self._input_ended = False
        #: The client was seen to send no more.
        self._peer_closed = False
        #: Its end was read while requests wait: they run, but nothing is written for them.
        self.has_left = False
        #: The kernel's buffer is full: wait for it to say that it takes more.
        self._is_blocked = False
        #: Closing needs care, because bytes of the client's lie unread or may come.
        self._lingers = False
        #: The end is a reset, because what was sent is not whole.
        self._resets = False
        #: The loop itself runs a task: it must not wait for room.
        self._answers = False
        #: Who ended the connection: ``S`` the server, ``O`` somebody outside of it, the
        #: operator as a rule; ``C``, and empty when it is closed, its client. See
        #: :attr:`waitress.timeline.Timeline.termination`.
        self.ended_by = ""
        #: Whether a request is in service, as far as the loop has seen: the worker may just
        #: have ended, and not have reported.
        self._in_service = False
        #: When the first request was queued, by the loop; and when by the worker that had
        #: served the one before, unless the client has sent anew or had to read since.
        self._queued_at = self._queued_again_at = -inf
        #: Set from any thread, done by the loop.
        self._close_wanted = False
        self._drain_wanted = False
        #: See :mod:`waitress.eventloop`.
        self.interest = _WATCHED
        self.touched = False
        self.creation_time = self.event_loop.wall_clock()
        wasyncore.dispatcher.__init__(self, sock, map)
        self.connected = True
        self.clients.channels.add(self)
        self._client_group = self.clients.count(_host(addr)) if self.clients.limit_per_ip else ""
        if getattr(adj, "proxy_protocol", False) and _host(addr) in getattr(
            server, "trusted_peers", ()
        ):
            self._proxy_header = ProxyProtocolReceiver()
            self._update_deadline()
        else:
            deadline = self._progress_at + (adj.channel_timeout or inf)
            self.event_loop.deadlines.arm(self, deadline)
        if self.observer.listening:
            self.observer.channel_created(self)

    def add_channel(self, map: MutableMapping[int, Any] | None = None) -> None:
        """Enter the map and the server's table of channels."""
        wasyncore.dispatcher.add_channel(self, map)  # super() is slow in CPython 3.11.
        fd = self._fileno
        assert fd is not None
        self.server.active_channels[fd] = self
        if not isinstance(self._map, wasyncore.SocketMap):
            # The loop's own map tells by itself, and the loop looks before it waits: it is
            # never told of a connection that was served and closed by then.
            self.event_loop.note_change(fd)

    def del_channel(self, map: MutableMapping[int, Any] | None = None) -> None:
        """Leave the map and the server's table of channels."""
        fd = self._fileno
        wasyncore.dispatcher.del_channel(self, map)
        active_channels = self.server.active_channels
        if fd is not None and active_channels.get(fd) is self:
            active_channels.pop(fd, None)

    # -- loop: events ----------------------------------------------------------------

    def readable(self) -> bool:
        """Say whether the loop should read from the connection."""
        if self.state is _OPEN:
            if self._input_ended or self.outbound.pending:
                return False
            requests = self.request_queue.requests
            return not requests or len(requests) <= self.adj.channel_request_lookahead
        return self.state is _LINGERING

    def writable(self) -> bool:
        """Say whether there is something to send, or the connection is to be closed."""
        if self.state is _LINGERING:
            return False
        return self._may_send() or self.will_close or self.close_when_flushed

    def _may_send(self) -> bool:
        """Say whether :meth:`_flush` has something to send."""
        if self.outbound.last_part is not None and self.request_queue.in_service:
            return False
        return self.outbound.pending > 0

    def handle_events(self, flags: int) -> None:
        """React to the poller's word."""
        if flags & READ:
            if self.readable():
                self.handle_read_event()
            else:
                self._ignore_input()
            if flags == READ:
                return  # As it is most often.
        if flags & WRITE:
            self.handle_write_event()
        if flags & PEER_CLOSED and not self.readable():
            self._note_peer_closed()
            self._ignore_input()
        if flags & (ERROR | HANGUP | INVALID):
            self._handle_hangup(flags)

    def handle_read_event(self) -> None:
        """Something can be read; a channel neither accepts nor connects."""
        self.handle_read()

    def _ignore_input(self) -> None:
        """Stop watching for input that is not wanted now.

        Registrations are not narrowed before such input came: most clients wait for the
        response, and then watching and not watching in turns would cost two system calls
        for every request.
        """
        mask = self.interest & ~READ
        if self._peer_closed:
            mask &= ~PEER_CLOSED
        self._watch(mask)

    def _note_peer_closed(self) -> None:
        """Take notice that the client sends no more, and perhaps has left.

        If it only ended its own side, it gets its response. But nobody can tell, and while
        its request waits, those go first whose clients are there.
        """
        self._peer_closed = True
        if self.request_queue.awaits_worker():
            self.clients.perhaps_left[self] = None
            note = getattr(self._dispatcher(), "note_giving_way", None)
            if note is not None:
                note(self.event_loop.now - self.queued_since() >= PATIENCE_SECONDS)

    def _dispatcher(self) -> Any:
        """Return the task dispatcher, which may be of the user's own making."""
        return getattr(self.server, "task_dispatcher", None)

    def _handle_hangup(self, flags: int) -> None:
        """Both directions are closed, or the connection was reset."""
        if self.state is _CLOSED:
            return
        if not flags & (ERROR | INVALID) and self.readable():
            return  # Both have said their last word; what came before it is still read.
        if flags & (ERROR | INVALID) or not self.request_queue.requests:
            self.handle_close()
            return
        # A client that has left entirely may still want its request done. Its word would
        # be repeated at every turn of the loop.
        self._note_peer_closed()
        self._watch(0)

    def handle_read(self) -> None:
        """Read once, and hand on what came."""
        if self.state is _LINGERING:
            self._discard_input()
            return
        size = self.adj.recv_bytes
        if self._phase is _BODY:  # More of it is on the way, as its head has said.
            size = max(size, self._body_receive_bytes())
        try:
            data = self.recv(size)
        except BlockingIOError:
            return
        except OSError:
            self._log_socket_error()
            self.handle_close()
            return
        if data:
            self._progress_at = self.event_loop.now
            if len(data) <= RECEIVE_BYTES or self._is_all_body(len(data)):
                self.received(data)
            else:
                for start in range(0, len(data), RECEIVE_BYTES):
                    self.received(data[start : start + RECEIVE_BYTES])
            if self._is_blocked or not (self._in_service and self._phase is _IDLE):
                self._advance()  # As a rule what came was whole, and is being served.
        elif not self.has_left:
            self.connected = False

    def _body_receive_bytes(self) -> int:
        """Say how much of the body being received to ask for at once."""
        receiver = getattr(self.request, "body_rcv", None)
        return min(getattr(receiver, "remain", BODY_RECEIVE_BYTES), MOST_RECEIVE_BYTES)

    def _is_all_body(self, size: int) -> bool:
        """Say whether so many bytes all belong to a body whose length is known."""
        receiver = getattr(self.request, "body_rcv", None)
        return bool(getattr(receiver, "remain", 0) >= size)

    def handle_end_of_stream(self) -> None:
        """Close; but requests that wait run first, though nobody reads their responses.

        Met with look-ahead only: without it nothing is read while a request waits, and
        whoever only ends its own side gets its response.
        """
        if not self.request_queue.requests:
            self.handle_close()
            return
        self.has_left = self._input_ended = True
        self._note_peer_closed()

    def handle_write(self) -> None:
        """Send, and go on."""
        if self._is_blocked:
            self._is_blocked = False
        self.handle_ready()

    def handle_ready(self) -> None:
        """Go on after a worker's report, or after an order from outside."""
        if self.state is _CLOSED:
            return
        if self._close_wanted:
            self.ended_by = self.ended_by or "O"
            self._close_now()
            return
        if self._drain_wanted and self.state is _OPEN:
            self._move_to(_DRAINING, "ordered from outside")
        if not self._is_blocked:
            self._flush()
        self._advance()

    # -- loop: bytes to requests -------------------------------------------------------

    def received(self, data: bytes) -> bool:
        """Take bytes from the connection; say whether they were of interest.

        They may hold any number of requests and begin and end anywhere.
        """
        if not data or self.state is not _OPEN or self._drain_wanted or self._close_wanted:
            return False
        queue = self.request_queue
        if queue.is_ended:
            # A response has ended the connection, and the loop is about to see that.
            self._lingers = True
            return False
        if self._proxy_header is not None:
            data = self._receive_proxy_header(self._proxy_header, data)
            if not data or self.state is not _OPEN:
                return True
        complete: list[Any] = []
        while not self._input_ended:
            request = self.request
            if request is None:
                request = self.request = self.parser_class(self.adj)
                request.request_id = next(_request_ids)
                request.spooled_bytes = 0
                if type(request) is not HTTPRequestParser and not hasattr(request, "body_rcv"):
                    request.body_rcv = None  # A parser of the user's own.
            had_head = request.headers_finished
            consumed = request.received(data)
            may_spool = request.body_rcv is not None
            if (
                may_spool
                and type(request) is HTTPRequestParser
                and 0 < request.content_length < self.adj.inbuf_overflow
            ):
                # As most bodies: too short to be spooled, and here together with its head.
                may_spool = False
                if not had_head and consumed < len(data) and not request.expect_continue:
                    consumed += request.received(data[consumed:])
            if not request.headers_finished:
                if self.observer.listening:
                    self.observer.head_begun(self, request)
            elif not had_head and (
                may_spool or request.version != "1.1" or self.observer.listening
            ):
                self._head_received(request)
            if (
                may_spool
                # What ours has just taken is the head.
                and (had_head or type(request) is not HTTPRequestParser)
                and not request.error
            ):
                self._account_body(request, request.body_rcv.getbuf())
            if request.completed or request.error:
                self.request = None
                self.sent_continue = False
                is_empty = self._got_empty_lines = request.empty
                if request.error or request.connection_close:
                    self._input_ended = True
                    # Answered or dropped: what belongs to a refused one may be on its way.
                    self._lingers = self._lingers or bool(request.error)
                if not is_empty:
                    complete.append(request)
            elif request.expect_continue and not complete and queue.is_idle():
                self.send_continue()
            if consumed >= len(data):
                data = b""
                break
            data = data[consumed:]
            # A parser that takes nothing now never will.
            if not consumed or self.state is not _OPEN:
                break
        if data:
            # Closing while the client's bytes lie unread resets the connection.
            self._lingers = True
        if complete:
            self._queue(complete)
        elif not queue.in_service:
            self._start_next()
        return True

    def _receive_proxy_header(self, header: ProxyProtocolReceiver, data: bytes) -> bytes:
        """Learn from a trusted proxy who the client is; return what is left of the data."""
        used = header.received(data)
        if header.error is not None:
            self._refuse_proxy_header(header.error.reject_reason)
        elif header.completed:
            self._proxy_header = None
            if header.source is not None:
                self._take_source(header.source)
        return data[used:]

    def _take_source(self, source: tuple[str, int]) -> None:
        has_room = self.clients.has_room_for(source[0])
        self.clients.uncount(self._client_group)
        self._client_group = self.clients.count(source[0])
        self.addr = source
        if not has_room:
            self.turn_away()

    def _refuse_proxy_header(self, reason: str) -> None:
        """Close without an answer, which nobody could tell from one to the client's request."""
        assert self._proxy_header is not None
        sample = self._proxy_header.sample
        self.observer.refused(Refusal(reason, self.addr, self.channel_id, sample=sample))
        self._close_now()

    def turn_away(self) -> None:
        """Answer 503 at once: the client has too many connections. Nothing is read."""
        self._refuse_receiving(
            ServiceUnavailable("too many connections from this address"), "connection-limit-per-ip"
        )

    def _head_received(self, request: Any) -> None:
        version = request.version
        if version != "1.1" and version[:2] != "1." and not request.empty:
            # Before whatever else is wrong: a newer version may write its heads as it likes.
            request.error = _refused_version()
        if request.body_rcv is not None:
            body = request.body_rcv.getbuf()
            if type(body) is OverflowableBuffer:
                try:
                    body.files = self.server.spare_files
                except AttributeError:  # A server of somebody's own.
                    pass
        if self.observer.listening and not request.empty:
            self.observer.request_created(self, request)

    def _queue(self, arrived: Sequence[Any]) -> None:
        """Have the first request served or answered, if it is time; add complete ones before."""
        if arrived and self.observer.listening:
            # Before: a worker that is about to finish another may begin with them at once.
            self.observer.requests_queued(self, arrived)
        queue, outbound = self.request_queue, self.outbound
        # A worker that is about to end may fill the buffer after it was looked at. It reports.
        may_serve = not queue.in_service and (not outbound.pending or outbound.has_room(self.adj))
        try:
            first = queue.claim(may_serve, arrived)
        except QueueEndedError:  # A worker has ended the connection meanwhile.
            self.drop_requests(arrived)
            return
        if first is None:
            return
        if arrived or self._phase is _SEND:  # The client has sent anew, or had to read before.
            self._queued_again_at = -inf
        if first.error:
            self._answer_refused(first)
            return
        if outbound.pending:
            # Of a worker that has not reported: it shall not seem to be the next one's.
            outbound.settle_last_part()
        self._in_service = True
        self._queued_at = self.event_loop.now
        self.event_loop.start_soon(self)

    def _account_body(self, request: Any, body: Any) -> None:
        """Count what the body takes on the disk; refuse it when there is no room."""
        if getattr(body, "overflowed", False):
            size = body.__len__()
            grown = size - request.spooled_bytes
            if size <= self.adj.outbuf_high_watermark:
                self._spool.take(grown)
            elif not self._spool.reserve(grown):
                request.error = InsufficientStorage("no room for the request body")
                request.error.reject_reason = "spool-full"
                return
            request.spooled_bytes = size

    # -- loop: what next ---------------------------------------------------------------

    def _advance(self) -> None:
        """Do what the connection's state asks for."""
        queue = self.request_queue
        # Only the loop takes the turn: no lock is needed to see that it has.
        in_service = queue.in_service
        if self._in_service is not in_service:
            self._in_service = in_service
            self._progress_at = self.event_loop.now  # Where it has ended, it may rest from now on.
        if self.state is _OPEN:
            if (
                self._phase is _IDLE
                and self.request is None
                and self.interest == _WATCHED
                and not self.outbound.pending
                and not self.has_left
            ):
                # As it is most often: what came whole is being served, or was and is sent.
                if in_service:
                    return
                if (
                    not (queue.requests or queue.is_ended or self._got_empty_lines)
                    and self.clients.watcher is None
                ):
                    return
            if not in_service and queue.is_ended:
                self._move_to(_DRAINING, "a response ended the connection")
            elif self.has_left and not queue.requests:
                self._move_to(_DRAINING, "the client has left")
            elif not in_service and (queue.requests or self.request is not None):
                self._start_next()
        if self.state is _DRAINING and not self.outbound.pending:
            self._finish_draining()
        if self.state is not _CLOSED:
            self._update()

    def _start_next(self) -> None:
        """Have the first request served, answer it, or invite the body being awaited."""
        queue = self.request_queue
        if queue.requests:
            self._queue(())
            return
        request = self.request
        is_invited = self.sent_continue or request is None or not request.expect_continue
        if not is_invited and queue.is_idle():
            self.send_continue()

    def start_service(self) -> None:
        """Hand the first request to the workers; the event loop calls it."""
        self.server.add_task(self)

    def start_together(self, channels: deque[Any]) -> None:
        """Start all of them at once, and take them off, where they are of one server and alike.

        Does nothing where a class's own ``start_service``, or anybody's own ``add_task``, is to
        see each of them.
        """
        kind, server = type(self), self.server
        others = [each for each in channels if each.server is not server or type(each) is not kind]
        if others or kind.start_service is not _start_service:
            return
        if hasattr(type(server), "add_gathered") and server.add_gathered(channels):
            channels.clear()

    def send_continue(self) -> None:
        """Invite the body of the request being received (RFC 9110, 10.1.1)."""
        self.request.expect_continue = False
        self.sent_continue = True
        self._append_and_flush(b"HTTP/1.1 100 Continue\r\n\r\n")

    def _append_and_flush(self, data: bytes) -> None:
        try:
            self.outbound.append((data,), len(data), self.adj, may_wait=False)
        except FileFailedError:
            self.logger.exception("Unexpected exception when flushing")
            self.ended_by = "S"
            self._close_now()
        self._flush()

    def _answer_refused(self, request: Any) -> None:
        """Answer a request that was refused; nothing follows it."""
        self._tell_refusal(request, request.error)
        self._answers = True
        try:
            answer_error(self, request)
        finally:
            self._answers = False
        _, dropped = self.request_queue.finish(False)
        self.discard_request(request)
        self.drop_requests(dropped)
        self._lingers = True
        self._flush()
        if self.state is _OPEN:
            self._move_to(_DRAINING, "a request was refused")

    def _tell_refusal(self, request: Any, error: Any) -> None:
        reason = getattr(error, "reject_reason", "")
        sample = getattr(error, "sample", b"") or getattr(request, "first_line", b"")
        request_id = getattr(request, "request_id", 0)
        self.observer.refused(Refusal(reason, self.addr, self.channel_id, request_id, sample))

    def _refuse_receiving(self, error: Error, reason: str) -> None:
        """Refuse the request being received."""
        request, self.request = self.request or self.parser_class(self.adj), None
        if not getattr(request, "request_id", 0):
            request.request_id = next(_request_ids)
        request.error = error
        error.reject_reason = reason
        self._input_ended = self._lingers = True
        if self.observer.listening:
            self.observer.requests_queued(self, [request])
        if self.request_queue.append(request):
            self._start_next()
        else:
            self.drop_requests([request])
        self._advance()

    # -- loop: sending -----------------------------------------------------------------

    def _flush(self) -> None:
        """Send until there is nothing, the kernel takes no more, or others wait."""
        outbound = self.outbound
        queue = self.request_queue
        budget = FLUSH_BYTES
        # A reset throws away what the kernel was asked to hold back.
        is_last = queue.is_ended and not self._resets
        while outbound.pending and not self._is_blocked:
            data: Any = outbound.last_part
            if data is not None and queue.in_service:
                return  # It is the worker's until the service ends.
            try:
                sent = self._send_file(budget) if outbound.had_files else None
                if sent is None:
                    if data is None or outbound.pending > SEND_BYTES:
                        data = outbound.peek(SEND_BYTES)
                    if type(data) is bytes and not is_last:
                        sent = self.send(data)
                    elif data:
                        sent = self._send_parts(data, is_last)
                    else:
                        # Two wrote at once, and one of them from a thread of the application's.
                        raise RuntimeError("the output buffer has lost count")
                done = outbound.advance(sent) if sent else None
            except Exception as error:  # noqa: BLE001 - a file of the application's: anything
                self._sending_failed(error)
                return
            if sent:
                self._progress_at = self.event_loop.now
                if done is not None:
                    self._settle(*done)
                if not outbound.pending:
                    return
                budget -= sent
                if budget <= 0:
                    self._is_blocked = True  # Not by the kernel: the others have their turn.
            elif self.state is _CLOSED:
                return
            else:
                self._is_blocked = True
                tcp.limit_unsent(self.socket)
                self._has_progressed()  # From here on it counts.

    def _sending_failed(self, error: Exception) -> None:
        """Give up; runs while ``error`` is handled."""
        if isinstance(error, OSError):
            self._log_socket_error()
        else:
            self.logger.exception("Unexpected exception when flushing")  # noqa: LOG004
            self.ended_by = "S"
        self.handle_close()

    def _settle(self, passed: list[Any], drained: list[Any]) -> None:
        """Close the files that were sent, and tell of the responses that were."""
        for segment in drained:
            try:
                segment.close()
            except Exception:
                self.logger.exception("Unexpected error when closing an outbuf")
        for event, request in passed:
            getattr(self.observer, event)(request)

    def _send_file(self, limit: int) -> int | None:
        """Have the kernel send from a file; return how much it took, None if it cannot."""
        if not self._sends_plainly() or not hasattr(os, "sendfile"):
            return None
        extent = self.outbound.file_at_front()
        if extent is None:
            return None
        descriptor, position, size = extent
        try:
            # Nothing sent is the file's end, which whoever reads it has the words for.
            return os.sendfile(self.socket.fileno(), descriptor, position, min(size, limit)) or None
        except BlockingIOError:
            return 0
        except OSError:
            # The file's, the socket's, or a file system's that has no such call: reading
            # and sending tell which.
            return None

    def _send_parts(self, data: bytes | Sequence[bytes | memoryview], is_last: bool = False) -> int:
        """Send several parts at once, or the last one of the connection together with its end."""
        parts = (data,) if isinstance(data, bytes) else data
        if not self._sends_plainly():
            # Whoever overrides send(), or wraps the socket, sees bytes.
            return self.send(b"".join(parts))
        # The end of the connection follows at once, and need not be a packet of its own.
        flags = _MSG_MORE if is_last and self.outbound.pending <= SEND_BYTES else 0
        try:
            return self.socket.sendmsg(parts, (), flags)  # type: ignore[no-any-return]
        except BlockingIOError:
            return 0
        except OSError:
            return self.send(b"".join(parts))  # It fails too, and knows which errors mean what.

    def _sends_plainly(self) -> bool:
        """Say whether nobody has put anything between the channel and its socket."""
        return (
            type(self.socket) is socket.socket
            and getattr(self.send, "__func__", None) is _plain_send
            and _HAS_SENDMSG
        )

    def _log_socket_error(self) -> None:
        if self.adj.log_socket_errors:
            self.logger.exception("Socket error")  # noqa: LOG004 - called while handling one

    # -- loop: the end -----------------------------------------------------------------

    def _move_to(self, state: ChannelState, reason: str) -> None:
        assert state in _MOVES[self.state], (self.state, state)
        self.state = state
        # Not through the instance: whoever replaces its logger need not know debug().
        if logger.isEnabledFor(logging.DEBUG):
            logger.debug("channel %d is %s: %s", self.channel_id, state.name, reason)

    def _finish_draining(self) -> None:
        """Close, after everything was sent, so that the client gets to read it."""
        if self._resets or not (self._has_unread_input() and self._begin_to_linger()):
            self._close_now()

    def _has_unread_input(self) -> bool:
        """Say whether closing now would reset the connection, and destroy the response.

        The kernel resets when bytes of the client lie unread, or come later.
        """
        # A client that did not ask for this end goes on sending until it sees it.
        ended_by_us = self.request_queue.is_ended and not self._input_ended
        if (self._lingers or ended_by_us) and not self._peer_closed:
            return True
        if self._outlives_server():
            return True
        if type(self.socket) is socket.socket:
            unread = tcp.unread_bytes(self.socket)
            if unread is not None:
                return unread > 0
        try:
            return bool(self.socket.recv(1))
        except (OSError, AttributeError):
            return False

    def _begin_to_linger(self) -> bool:
        if not getattr(self.adj, "linger_timeout", 30):
            return False
        if not tcp.stop_sending(self.socket):
            return False
        self._move_to(_LINGERING, "the client may still be sending")
        self.clients.linger(self)
        return True

    def _discard_input(self) -> None:
        """Read what nobody wants, so that the client gets to read what was sent."""
        try:
            data = self.socket.recv(BODY_RECEIVE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._progress_at = self.event_loop.now
        self._phase_bytes += len(data)
        if not data or self._phase_bytes > LINGER_BYTES:
            self._close_now()
        else:
            self._update_deadline()

    def handle_close(self) -> None:
        """Close, whatever is unsent. Repeatable.

        Threads: any; another thread than the loop's has the loop do it.
        """
        if not self.event_loop.is_current_thread():
            self.will_close = True
        # Asked again: a loop that has ended meanwhile does not see the order.
        if self.event_loop.is_current_thread():
            self._close_now()

    def close(self) -> None:
        """Close on the order of somebody outside of the connection. Repeatable.

        Threads: as :meth:`handle_close`.
        """
        self.ended_by = self.ended_by or "O"
        HTTPChannel.handle_close(self)

    def handle_error(self) -> None:
        """Log what went wrong in here, and close."""
        self.ended_by = self.ended_by or "S"
        super().handle_error()

    def _close_now(self) -> None:
        if self.state is _CLOSED:
            return
        clients = self.clients
        if self.state is _LINGERING:
            clients.lingering.pop(self, None)
        if self._resets or self._is_in_mid_response():
            tcp.reset_on_close(self.socket)
        self._move_to(_CLOSED, "closed")
        self.event_loop.deadlines.forget(self)
        clients.channels.discard(self)
        if clients.watcher is not None:
            clients.watcher.channel_ended()
        if self._client_group:
            clients.uncount(self._client_group)
        if self._peer_closed:
            clients.perhaps_left.pop(self, None)
        queue = self.request_queue
        if queue.in_service and queue.awaits_worker():
            getattr(self._dispatcher(), "withdraw_ended", _do_nothing)(self)
        self.connected = False
        try:
            self.outbound.close()
        except Exception:
            self.logger.exception("Unknown exception while trying to close outbuf")
        self.drop_requests(queue.close())
        if self.request is not None:
            self.discard_request(self.request)
            self.request = None
        wasyncore.dispatcher.close(self)
        if self.observer.listening:
            self.observer.channel_closed(self)

    def _close_socket(self, sock: Any) -> None:
        # Closing alone ends nothing while a child of the application's has the socket. A reset
        # does; the application may have asked for one, too. The loop waits for nobody who forks.
        nobody_forks = forks.lock.acquire(False)
        try:
            may_have_forked = not nobody_forks or self._forks != forks.count
            if may_have_forked and not tcp.resets_on_close(sock):
                tcp.stop_sending(sock)
            sock.close()
        finally:
            if nobody_forks:
                forks.lock.release()

    def _is_in_mid_response(self) -> bool:
        """Say whether closing now cuts a response, which a reset makes visible."""
        if self.outbound.pending:
            return True
        queue = self.request_queue
        # A worker may take it off meanwhile.
        return queue.in_service and any(each.version == "1.0" for each in queue.requests[:1])

    # -- loop: interest and deadlines --------------------------------------------------

    def _update(self) -> None:
        """Find out whom the connection waits for, until when, and for what events."""
        mask = self.interest & ~WRITE
        if self._is_blocked and self.outbound.pending:
            mask |= WRITE
        if self.readable():
            mask |= _WATCHED
        if mask != self.interest:
            self._watch(mask)
        self._update_deadline()

    def _watch(self, mask: int) -> None:
        if mask != self.interest:
            self.interest = mask
            if self._fileno is not None:
                self.event_loop.set_interest(self._fileno, mask)

    @property
    def phase(self) -> Phase:
        """Whom the connection waits for."""
        if self.state is _LINGERING:
            return _LINGER
        if self.outbound.pending:
            return _SEND
        if self.request_queue.requests or self.state is not _OPEN:
            return _OURS
        request = self.request
        if self._proxy_header is not None:
            return _PROXY_HEADER
        if request is None:
            # Empty lines are not a request, but they are not silence either: whoever
            # sends them has begun, and has as long for it as for any head.
            return _HEAD if self._got_empty_lines else _IDLE
        return _BODY if request.headers_finished else _HEAD

    def handle_deadline(self, now: float) -> None:
        """End what has taken too long."""
        if self._phase is _IDLE:
            # As it was noted; what was received and served since has moved the deadline.
            self._update_deadline()
            if self.deadline > now:
                return
        phase = self._phase
        if phase is _SEND:
            self._handle_send_deadline(now)
            return
        if phase is _HEAD and self._has_only_empty_lines():
            # No request has begun, and an answer would be taken for that to the next one.
            self._close_now()
        elif phase is _HEAD:
            self._refuse_receiving(
                RequestTimeout("the head of the request took too long"), "header-timeout"
            )
        elif phase is _BODY:
            self._refuse_receiving(
                RequestTimeout("the body of the request took too long"), "body-timeout"
            )
        elif phase is _IDLE:
            if not self.close_if_idle():
                return
        elif phase is _PROXY_HEADER:
            self._refuse_proxy_header("proxy-protocol-timeout")
        elif self._outlives_server() and self._has_progressed():
            self._enter(_LINGER)
            self._update_deadline()
        else:
            self._close_now()
        self.clients.count_timeout(phase.name)

    def _outlives_server(self) -> bool:
        """Say whether the kernel has bytes to send when the process may have ended.

        Its network may end with the process, in a container.
        """
        return self.clients.watcher is not None and bool(tcp.unacknowledged_bytes(self.socket))

    def _has_only_empty_lines(self) -> bool:
        return not getattr(self.request, "header_plus", b"").strip(b"\r\n")

    def _handle_send_deadline(self, now: float) -> None:
        if self._has_progressed():
            self._progress_at = now
        if self.outbound.worker_is_waiting:
            self.clients.relieve_spool(now, self)
        if now >= self._progress_at + self._send_timeout():
            self.ended_by = "C"
            self.clients.count_timeout(_SEND.name)
            self.cut("its reader has stalled")
        else:
            self._update_deadline()

    # -- loop: making room (waitress.clients) ------------------------------------------

    def head_pending_since(self) -> float:
        """Return when the head being received began; ``inf`` when none is."""
        is_pending = self._phase is _HEAD or self._phase is _PROXY_HEADER
        return self._phase_since if is_pending else inf

    def lingering_since(self) -> float:
        """Return since when the client could have seen the end; ``inf`` before."""
        return self._phase_since if self.state is _LINGERING else inf

    def idle_since(self) -> float:
        """Return since when the connection has been idle; ``inf`` when it is not."""
        return self._progress_at if self.phase is _IDLE and not self._in_service else inf

    def queued_since(self) -> float:
        """Return since when the request that waits for a worker has done so."""
        return max(self._queued_at, self._queued_again_at)

    def stalled_since(self, now: float) -> float:
        """Return since when spooled bytes have waited without progress, else ``inf``."""
        if self._phase is not _SEND or not self.outbound.holds_spool:
            return inf
        if self._has_progressed():
            self._progress_at = now
        return self._progress_at

    def give_up_head(self) -> None:
        """Refuse the head being received and close, without waiting for the client."""
        if self._proxy_header is not None:
            self._refuse_proxy_header("evicted")
            return
        self._refuse_receiving(RequestTimeout("the head of the request took too long"), "evicted")
        self._close_now()

    def close_if_idle(self) -> bool:
        """Close if one last read finds nothing; say whether it did."""
        try:
            self.handle_read()
        except Exception:  # noqa: BLE001 - a subclass's received(): anything
            # Whoever asks must not be taken for the one at fault.
            self.handle_error()
        if self.idle_since() != inf:
            self._close_now()
        return self.state is _CLOSED

    def give_up_queued(self) -> bool:
        """Refuse the request that waits for a worker and close; say whether it still did."""
        withdraw = getattr(self._dispatcher(), "withdraw", None)
        if withdraw is None or not self.request_queue.awaits_worker() or not withdraw(self):
            return False
        error = ServiceUnavailable("The server has more to do than it can; please try again")
        error.reject_reason = "evicted"
        error.headers = (("Retry-After", "1"),)
        try:
            self.refuse_queued(error)
            self._flush()
        except Exception:  # noqa: BLE001 - an observer's, or a task's of the user's: anything
            # The listener, which needs its place, shall not pay for it.
            self.handle_error()
        if self.state is not _CLOSED:
            # It sends no more; what it has sent before would turn the end into a reset.
            with contextlib.suppress(OSError):
                while self.socket.recv(BODY_RECEIVE_BYTES):
                    pass
            self._close_now()
        return True

    def refuse_queued(self, error: ServiceUnavailable) -> None:
        """Answer the request that waited with an error.

        Nobody else serves the channel: it had its turn, and has left the queue.
        """
        for request in self.request_queue.requests[:1]:
            request.error = error
            self._tell_refusal(request, error)
        self._answers = True  # The loop never waits for room.
        try:
            self.service()
        finally:
            self._answers = False

    # -- loop: the end of the server (waitress.shutdown) -------------------------------

    @property
    def phase_since(self) -> float:
        """When the wait for whom it waits for began, on the monotonic clock."""
        is_served = self.request_queue.requests and self.phase is _OURS
        return self.queued_since() if is_served else self._phase_since

    def unfinished_request(self) -> Any:
        """Return the first request that was not answered; one whose head is whole."""
        for request in self.request_queue.requests[:1]:  # A worker may take it off meanwhile.
            return request
        return self.request if self._phase is _BODY else None

    def close_if_resting(self, newcomers_since: float) -> bool:
        """Close if no request has begun; false for one so new that it may still send it."""
        phase = self.phase
        if phase is not _IDLE and phase is not _PROXY_HEADER:
            return True
        if not self.outbound.sent_total and self._progress_at > newcomers_since:
            return False
        if phase is _IDLE:
            self.close_if_idle()
        else:
            self._close_now()
        return True

    def cut(self, reason: str) -> None:
        """Close at once, whatever is unsent."""
        self.ended_by = self.ended_by or "S"
        self.logger.info(f"Connection from {self.addr} was cut: {reason}")
        self._close_now()

    # -- worker ------------------------------------------------------------------------

    def service(self) -> None:
        """Serve the first request; the task dispatcher calls it."""
        try:
            serve_next(self)
        except BaseException:
            # An observer's, for example; somebody else's dispatcher may know no
            # service_failed().
            self.service_failed()
            raise

    def write_soon(self, data: bytes | ReadOnlyFileBasedBuffer) -> int:
        """Have bytes, or a prepared file, sent as soon as possible.

        Returns:
            The number of bytes taken over.

        Raises:
            ClientDisconnected: nobody reads any more.
        """
        if not self.connected or self.has_left:
            raise ClientDisconnected
        if isinstance(data, ReadOnlyFileBasedBuffer):
            size = data.__len__()
            self.outbound.append_file(data)
        elif not data:
            return 0
        else:
            size = data.__len__()
            self.outbound.append((data,), size, self.adj, not self._answers)
        self._report()
        return size

    def writev_soon(self, parts: Sequence[bytes], last: bool = False) -> None:
        """Have several byte strings sent, the first ones never without the others.

        Args:
            last: no code of the application's runs before the end of the service, which
                tells the loop anyway.

        Raises:
            ClientDisconnected: nobody reads any more.
        """
        if not self.connected or self.has_left:
            raise ClientDisconnected
        try:
            is_ours = self.write_soon.__func__ is _write_soon  # type: ignore[attr-defined]
        except AttributeError:  # A function, put into this very object.
            is_ours = False
        if not is_ours:
            # Somebody's own, of a subclass or of this very object, is to see every byte.
            self.write_soon(b"".join(parts))
            return
        part: bytes | Sequence[bytes]
        if len(parts) == 1:
            part = parts[0]
            size = len(part)
        else:
            part = parts
            size = sum(map(len, parts))
        if last and (part is not parts or len(parts) <= MOST_PARTS):
            self.outbound.append_last(part, size, self.adj, not self._answers)
        else:
            self.outbound.append(parts, size, self.adj, not self._answers)
            if not last:
                self._report()

    def gives_way(self, is_overloaded: bool) -> bool:
        """Say whether the others are served first; see :mod:`waitress.workers`.

        A client that has had an answer, and pipelines, would be the newest for ever.
        """
        return self._peer_closed or (is_overloaded and self._queued_again_at != -inf)

    def check_client_disconnected(self) -> bool:
        """Say whether the client was seen to leave; ``waitress.client_disconnected``."""
        return self._peer_closed or not self.connected

    def wants_to_close(self) -> bool:
        """Say whether the server wants the connection back after the response."""
        clients = self.clients
        if clients.watcher is not None:
            # Not before what the client has sent ahead is answered too.
            return self.request is None and len(self.request_queue.requests) < 2
        return len(clients.channels) > clients.crowded_from

    def reset_when_closed(self) -> None:
        """Make the end of the connection a reset: the response is not whole."""
        self._resets = True

    def discard_request(self, request: Any) -> None:
        """Release what a request holds."""
        try:
            request.close()
        except Exception:
            self.logger.exception("Unexpected error when closing a request")
        try:
            spooled = request.spooled_bytes
        except AttributeError:  # A stand-in; getattr() takes several times as long.
            return
        if spooled:
            request.spooled_bytes = 0
            self._spool.release(spooled)

    def drop_requests(self, requests: Sequence[Any]) -> None:
        """Release requests that never run."""
        for request in requests:
            self.discard_request(request)
            if self.observer.listening:
                self.observer.request_cancelled(request)

    def service_ended(self, has_turn: bool) -> None:
        """Report to the loop, and queue for the next request that is there already."""
        if has_turn and not self._has_queued_again():
            self.request_queue.release()
        if self.event_loop.touch_threadsafe(self):
            self.server.pull_trigger()

    def _has_queued_again(self) -> bool:
        """Queue behind the others, so that no pipelining client keeps a worker to itself."""
        self.outbound.settle_last_part()
        self._queued_again_at = self.event_loop.clock()
        if not self.outbound.has_room(self.adj):
            return False  # The loop queues it, when there is room.
        try:
            self.server.add_task(self)
        except Exception:
            # Somebody else's dispatcher; the loop will try, and close if it fails again.
            self.logger.exception("Unexpected error when queueing a task")
            return False
        return True

    def service_failed(self) -> None:
        """End the connection: :meth:`service` itself raised, and nobody reported."""
        self.reset_when_closed()
        self.ended_by = "S"
        self.cancel()

    def _report(self) -> None:
        if self.event_loop.touch_threadsafe(self):
            self.server.pull_trigger()

    # -- any thread --------------------------------------------------------------------

    def cancel(self) -> None:
        """Give up: the task dispatcher shuts down with the channel in its queue."""
        self.ended_by = self.ended_by or "O"
        self.connected = False
        queue = self.request_queue
        # The loop may be about to put a request into a queue of which nobody has the turn.
        dropped = queue.close() if self.event_loop.is_current_thread() else queue.cancel()
        self.drop_requests(dropped or [])
        self.will_close = True

    def _touch_and_wake(self) -> None:
        self.event_loop.touch_threadsafe(self)
        self.event_loop.wake_threadsafe()

    # -- names that users know; the doors onto what is above ---------------------------

    @property
    def will_close(self) -> bool:
        """Whether the connection is closed at the next opportunity, even with unsent data.

        Assigning true orders it, from any thread.
        """
        return self._close_wanted or self.state is _CLOSED

    @will_close.setter
    def will_close(self, value: bool) -> None:
        self._close_wanted = bool(value)
        if value:
            self._touch_and_wake()

    @property
    def close_when_flushed(self) -> bool:
        """Whether the connection is closed when everything buffered was sent.

        Assigning true orders it, from any thread.
        """
        return self._drain_wanted or self.state in (_DRAINING, _LINGERING)

    @close_when_flushed.setter
    def close_when_flushed(self, value: bool) -> None:
        self._drain_wanted = bool(value)
        if value:
            self._touch_and_wake()

    @property
    def requests(self) -> list[Any]:
        """Complete requests waiting or in service, the one in service first."""
        return self.request_queue.requests

    @requests.setter
    def requests(self, value: list[Any]) -> None:
        self.request_queue.replace(value)
        self._touch_and_wake()

    @property
    def total_outbufs_len(self) -> int:
        """Unsent bytes."""
        return self.outbound.pending

    @property
    def outbufs(self) -> Sequence[Any]:
        """The stores that hold the unsent bytes."""
        return self.outbound.segments

    @property
    def sendbuf_len(self) -> int:
        """Size of the kernel's send buffer, in bytes."""
        return int(self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF))


_start_service = HTTPChannel.start_service
_write_soon = HTTPChannel.write_soon
_plain_send = wasyncore.dispatcher.send


def _do_nothing(_: Any) -> None:
    """Take the place of what a dispatcher of the user's does not have."""


def _refused_version() -> Error:
    """Return the answer to a major version that is not ours (RFC 9110, 2.5 and 15.6.6)."""
    error = HTTPVersionNotSupported("Only HTTP/1.0 and HTTP/1.1 are served")
    error.reject_reason = "version"
    return error


def _host(addr: Any) -> str:
    """Return the host of an address, which subclasses of the server make as they like."""
    return str(addr[0]) if addr else ""
