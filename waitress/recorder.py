"""The recorder of timelines: listens to the events of all requests, and tells each life.

Owns what is known of a request between its first byte and its end, and the answer to "who
ended it, and when in its life?". Tells its listeners in the loop's thread, exactly once
for each request of whose head at least one byte came.

A request may end in the loop (its last byte left, its connection is gone) or in a worker
(the connection went while the application ran; all had left when it came to its end).
Whoever comes second ends it: decided under one lock, told through the ready queue where it
is not the loop that decides.

Row 4: imports eventloop, observer, outbound, targets and timeline.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from waitress.eventloop import EventLoop
from waitress.observer import FirstFailures, Observer
from waitress.outbound import ClientDisconnected, FileFailedError
from waitress.targets import shown_target
from waitress.timeline import Timeline, TimelineListener, TimelineView

__all__ = ["ChannelTimelines", "Recorder"]

#: Refusals for which the client itself is to blame: it was too slow.
_TOO_SLOW = frozenset({"header-timeout", "body-timeout"})


class ChannelTimelines(list["_Life"]):
    """The timelines of one connection's unfinished requests, the oldest first.

    Threads: loop.
    """

    #: When the connection was accepted; ``None`` when nobody recorded then.
    accepted: float | None = None
    #: Who ended what came first of all that went wrong, so that nothing can follow.
    ended_by = ""


class _Life(Timeline):
    """A timeline being recorded, with what only its recorder needs."""

    __slots__ = ("begin", "channel", "end", "is_cut", "is_over", "is_served", "outbound", "request")

    channel: Any  #: the connection; ``None`` once it is over
    outbound: Any  #: its output buffer, which counts bytes
    request: Any  #: likewise
    begin: int  #: position of the response's first byte among all of the connection
    end: int | None  #: position behind its last byte, once it is in the output buffer
    is_served: bool  #: somebody is serving it and will say when that is done
    is_cut: bool  #: the connection is gone
    is_over: bool  #: it has ended, and whoever comes later comes too late

    def __init__(self, channel: Any, request: Any) -> None:
        Timeline.__init__(self)  # super() is slow in CPython 3.11.
        self.channel = channel
        self.outbound = channel.outbound
        self.request = request
        self.begin = 0
        self.end = None
        self.is_served = self.is_cut = self.is_over = False
        self.channel_id = channel.channel_id
        self.peer = channel.addr


class Recorder(Observer):
    """Makes timelines of events.

    Args:
        event_loop: has the clocks, and the thread in which listeners are told.
        fills_environ: put ``waitress.timeline`` and ``waitress.request_id`` into environs.

    Threads: the events as in :class:`~waitress.observer.Observer`; ``subscribe`` and
    ``unsubscribe`` loop.
    """

    listening = True
    #: See :meth:`waitress.eventloop.EventLoop.touch_threadsafe`.
    touched = False

    def __init__(self, event_loop: EventLoop, *, fills_environ: bool = False) -> None:
        self.fills_environ = fills_environ
        self._event_loop = event_loop
        self._clock = event_loop.clock
        self._listeners: tuple[TimelineListener, ...] = ()
        self._tellers: tuple[Callable[[Timeline], None], ...] = ()
        #: The variables of environs that one of them wants.
        self._environ_names: frozenset[str] = frozenset()
        self._failures = FirstFailures()
        #: Those that have ended and wait for the loop to tell them.
        self._ended: deque[_Life] = deque()
        self._lock = threading.Lock()
        # guarded by _lock: is_served, is_cut and is_over of all lives

    def subscribe(self, listener: TimelineListener) -> None:
        """Tell one more of timelines."""
        if not any(each is listener for each in self._listeners):
            self._set((*self._listeners, listener))

    def unsubscribe(self, listener: TimelineListener) -> None:
        """Tell one less; harmless when it was not told."""
        self._set(tuple(each for each in self._listeners if each is not listener))
        self._failures.forget(listener)

    @property
    def has_work(self) -> bool:
        """Whether anybody would miss it."""
        return bool(self._listeners) or self.fills_environ

    def stop(self, channels: Iterable[Any]) -> None:
        """Let go of what is not told: it is not going to hear of anything any more."""
        for channel in channels:
            for life in tuple(channel.timelines):
                with self._lock:
                    has_ended, life.is_over = life.is_over, True
                if not has_ended:  # Otherwise it is about to be told, and let go of.
                    # If it listens again, it is as if it had never known this one.
                    life.request.timeline = None
                    channel.timelines.remove(life)

    def _set(self, listeners: tuple[TimelineListener, ...]) -> None:
        self._listeners = listeners
        guarded = self._failures.guarded
        self._tellers = tuple(guarded(each, each.timeline_ended) for each in listeners)
        names = (getattr(each, "environ_names", ()) for each in listeners)
        self._environ_names = frozenset().union(*names)

    # -- the request comes: loop -----------------------------------------------------------

    def channel_created(self, channel: Any) -> None:
        channel.timelines = timelines = ChannelTimelines()
        timelines.accepted = self._event_loop.now

    def head_begun(self, channel: Any, request: Any) -> None:
        if _life_of(request) is None and (request.error or _has_begun(request)):
            self._begin(channel, request).first_byte = self._event_loop.now

    def request_created(self, channel: Any, request: Any) -> None:
        life = _life_of(request)
        if life is None:
            life = self._begin(channel, request)
            life.first_byte = self._event_loop.now
        life.head_complete = self._clock()
        _note_head(life, request)
        if request.error:
            _note_refusal(life, request.error, "H")

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        now = self._clock()
        for request in requests:
            life = _life_of(request)
            if life is None:  # Nobody recorded when its head came; or nothing of it came.
                life = self._begin(channel, request)
                if request.headers_finished:
                    _note_head(life, request)
            life.request_id = request.request_id
            life.queued = now
            if request.error:
                _note_refusal(life, request.error, "H" if life.head_complete is None else "B")
            elif request.body_rcv is None:
                life.body_complete = life.head_complete
            else:
                life.body_complete = now

    def _begin(self, channel: Any, request: Any) -> _Life:
        timelines = channel.timelines
        if type(timelines) is not ChannelTimelines:  # Accepted before anybody recorded.
            timelines = channel.timelines = ChannelTimelines()
        life = request.timeline = _Life(channel, request)
        life.accepted = timelines.accepted
        life.began_at = self._event_loop.wall_clock()
        timelines.append(life)
        return life

    # -- it is served: worker, or the loop for an error's answer ---------------------------

    def request_started(self, request: Any) -> None:
        life = _life_of(request)
        if life is None:
            return
        life.started = self._clock()
        life.begin = life.outbound.appended_total
        if not request.error:
            life.worker = threading.get_ident()
        elif not life.refusal:  # Nothing was wrong with it when it was queued.
            _note_refusal(life, request.error, "Q")
        with self._lock:
            life.is_served = True

    def application_started(self, request: Any) -> None:
        life = _life_of(request)
        if life is not None:
            life.application_started = self._clock()

    def environ_built(self, request: Any, environ: dict[str, Any]) -> None:
        life = _life_of(request)
        if life is None:
            return
        if self._environ_names:
            life.environ = environ
        if self.fills_environ:
            environ["waitress.timeline"] = TimelineView(life)
            environ["waitress.request_id"] = request.request_id

    def response_started(self, request: Any, status: str) -> None:
        life = _life_of(request)
        if life is not None and life.response_started is None:
            life.response_started = self._clock()

    def head_written(self, request: Any, status: str, head: bytes) -> None:
        life = _life_of(request)
        if life is not None:
            life.note_head(status, head)

    def iterable_exhausted(self, request: Any) -> None:
        life = _life_of(request)
        if life is not None:
            life.application_finished = self._clock()

    def application_finished(self, request: Any) -> None:
        life = _life_of(request)
        if life is not None:
            life.closed = self._clock()
            if life.application_finished is None:
                life.application_finished = life.closed

    def request_failed(self, request: Any, error: BaseException | None) -> None:
        life = _life_of(request)
        if life is None:
            return
        who = "A"
        if isinstance(error, ClientDisconnected):
            who = "C"
        elif isinstance(error, FileFailedError):
            who = "S"
        _blame(life, who, "A" if life.response_started is None else "D")

    def request_serviced(self, request: Any) -> None:
        life = _life_of(request)
        if life is None:
            return
        life.serviced = self._clock()
        life.end = life.outbound.appended_total
        environ = life.environ
        if environ is not None:
            # What else an application keeps in there shall not live as long as the client
            # takes to read.
            names = self._environ_names
            life.environ = {name: environ[name] for name in names if name in environ}
        with self._lock:
            life.is_served = False
            is_cut = life.is_cut
        # Of a response that failed before anything of it was buffered, nothing will leave.
        if is_cut or (life.termination and life.end == life.begin):
            self._end(life)

    # -- it leaves, or ends otherwise ------------------------------------------------------

    def response_leaving(self, request: Any) -> None:
        life = _life_of(request)
        if life is not None:
            life.first_byte_out = self._clock()

    def request_finished(self, request: Any) -> None:
        life = _life_of(request)
        if life is not None:
            life.last_byte_out = self._clock()
            self._end(life)

    def request_cancelled(self, request: Any) -> None:
        life = _life_of(request)
        channel = None if life is None else life.channel
        if life is None or channel is None:
            return
        who = channel.timelines.ended_by or channel.ended_by
        # What ended the connection was a response that is well, or the client.
        _blame(life, who or ("S" if channel.connected else "C"), "Q")
        self._end(life)

    def channel_closed(self, channel: Any) -> None:
        for life in tuple(channel.timelines):
            _blame(life, channel.ended_by or "C", _phase(life))
            with self._lock:
                life.is_cut = True
                is_served = life.is_served
            if not is_served:  # Otherwise its worker has the last word.
                self._end(life)

    def _end(self, life: _Life) -> None:
        with self._lock:
            if life.is_over:
                return
            life.is_over = True
        life.termination = life.termination or "--"
        life.ended = life.last_byte_out or self._clock()
        self._ended.append(life)
        event_loop = self._event_loop
        if not event_loop.is_current_thread():
            event_loop.touch_threadsafe(self)
            event_loop.wake_threadsafe()
        # Asked afterwards: a loop that has ended meanwhile does not look at its queue.
        if event_loop.is_current_thread():
            self.handle_ready()

    # -- it is told: loop ------------------------------------------------------------------

    def handle_ready(self) -> None:
        """Tell the listeners of what has ended."""
        while True:
            try:
                life = self._ended.popleft()
            except IndexError:
                return
            self._settle(life)
            for tell in self._tellers:
                tell(life)
            life.environ = None

    def handle_error(self) -> None:
        """Do nothing: what listeners run into is told where it happens."""

    def _settle(self, life: _Life) -> None:
        """Count the bytes, and let go of the connection."""
        channel, request = life.channel, life.request
        life.is_own_answer = getattr(request, "is_own_answer", False)
        life.bytes_in = getattr(request, "header_bytes_received", 0) + getattr(
            request, "body_bytes_received", 0
        )
        if life.started is not None:
            sent = life.outbound.sent_total
            end = sent if life.end is None else min(life.end, sent)
            life.bytes_out = max(end - life.begin, 0)
        channel.timelines.remove(life)
        life.channel = life.request = None


def _life_of(request: Any) -> _Life | None:
    # A parser of the user's has no such attribute until it is given one.
    return getattr(request, "timeline", None)


def _has_begun(request: Any) -> bool:
    """Say whether anything but empty lines came, which are not a request."""
    # No more than can be empty lines: this is asked for each piece of a head.
    return bool(bytes(getattr(request, "header_plus", b"?")[:4]).strip(b"\r\n"))


def _note_head(life: Timeline, request: Any) -> None:
    life.request_id = request.request_id
    life.headers = request.headers
    life.method = getattr(request, "command", "")
    if life.method:  # Otherwise the request line was not understood.
        life.version = request.version
        life.path, life.query = shown_target(request)


def _note_refusal(life: Timeline, error: Any, phase: str) -> None:
    life.refusal = getattr(error, "reject_reason", "")
    _blame(life, "C" if life.refusal in _TOO_SLOW else "S", phase)


def _blame(life: Any, who: str, phase: str) -> None:
    """Note who ended it and when; whoever was first is not excused by what followed."""
    if not life.termination:
        life.termination = who + phase
    channel = life.channel
    if channel is not None and not channel.timelines.ended_by:
        channel.timelines.ended_by = life.termination[0]


def _phase(life: Timeline) -> str:
    """Return the letter for how far it has come."""
    if life.serviced is not None or life.application_finished is not None:
        return "L"
    if life.response_started is not None:
        return "D"
    if life.application_started is not None:
        return "A"
    if life.body_complete is not None:
        return "Q"
    return "H" if life.head_complete is None else "B"
