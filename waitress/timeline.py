"""What one request's life was, told when it is over: when, how much, and who ended it.

Filled by :class:`waitress.recorder.Recorder`; read by whoever subscribes to timelines,
and by applications through :class:`TimelineView`.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

__all__ = ["TIMES", "Timeline", "TimelineListener", "TimelineView"]

#: The instants of a timeline, in the order in which they usually come.
TIMES = (
    "accepted",
    "first_byte",
    "head_complete",
    "body_complete",
    "queued",
    "started",
    "application_started",
    "response_started",
    "first_byte_out",
    "application_finished",
    "closed",
    "serviced",
    "last_byte_out",
    "ended",
)


class Timeline:
    """The life of one request.

    Instants are seconds on the monotonic clock, ``None`` for what has not happened.
    Threads: written by the thread that the request is with (the loop's, then the
    worker's, then the loop's again), each attribute once; others may read it at any time
    and see what has happened so far.
    """

    __slots__ = (
        *TIMES,
        "__weakref__",
        "_head",
        "began_at",
        "bytes_in",
        "bytes_out",
        "channel_id",
        "environ",
        "headers",
        "is_own_answer",
        "method",
        "path",
        "peer",
        "query",
        "refusal",
        "request_id",
        "status",
        "termination",
        "version",
        "worker",
    )

    accepted: float | None  #: the connection was accepted
    #: the first byte of the head came; the instant of the read that held it
    first_byte: float | None
    head_complete: float | None
    body_complete: float | None
    queued: float | None  #: on the channel's queue, behind earlier requests of the connection
    started: float | None  #: a worker has it (of an error's answer, the loop)
    application_started: float | None
    response_started: float | None  #: ``start_response`` was called, for the first time
    first_byte_out: float | None  #: handed to the kernel
    application_finished: float | None  #: the iterable is exhausted
    closed: float | None  #: the iterable is closed
    serviced: float | None  #: all bytes of the response are in the output buffer
    last_byte_out: float | None  #: handed to the kernel
    ended: float | None  #: nothing more happens; the listeners are told

    began_at: float  #: the first byte's time of day, in seconds since the epoch
    bytes_in: int  #: octets of head and body as they came
    #: Octets of the response that were handed to the kernel, head included; 0 until the
    #: request has ended.
    bytes_out: int
    channel_id: int
    request_id: int
    peer: Any  #: the address of the connection's peer, as the channel has it
    method: str
    path: str  #: the request target's path as sent, without its query
    query: str  #: the query as sent, for those who may see it
    version: str  #: ``"1.0"``, ``"1.1"``, or ``""`` when it was not understood
    #: Code and reason phrase of the head that was written; ``""`` when none was. Whether any
    #: of it left, :attr:`bytes_out` tells.
    status: str
    headers: Mapping[str, str]  #: request fields, names as the parser has them
    #: The application's, later those of its variables that a listener wants, as they were
    #: at the end of the service; ``None`` where none does, and when all were told.
    environ: dict[str, Any] | None
    #: The server has answered it by itself, as health checks, not with the application.
    is_own_answer: bool
    refusal: str  #: the reason of a refusal, e.g. ``obs-fold``; else ``""``
    #: Who ended it, and in which phase; two letters, empty until that is known. Who:
    #: ``-`` nobody, ``C`` the client, ``S`` the server, ``A`` the application, ``O`` the
    #: operator. Phase: ``H`` head and ``B`` body being received, ``Q`` queued, ``A`` the
    #: application before ``start_response``, ``D`` data being produced, ``L`` the last bytes
    #: being sent, ``-`` done. The first cause counts.
    termination: str
    worker: int  #: identity of the thread that served it (``threading.get_ident``); 0: none

    def __init__(self) -> None:
        self.accepted = self.first_byte = self.head_complete = self.body_complete = None
        self.queued = self.started = self.application_started = self.response_started = None
        self.first_byte_out = self.application_finished = self.closed = self.serviced = None
        self.last_byte_out = self.ended = None
        self.began_at = 0.0
        self.bytes_in = self.bytes_out = self.channel_id = self.request_id = self.worker = 0
        self.method = self.path = self.query = self.version = self.status = ""
        self.refusal = self.termination = ""
        self.peer = self.environ = None
        self.headers = {}
        self._head = b""
        self.is_own_answer = False

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {self.request_id}: {self.method} {self.path} "
            f"{self.status[:3] or '-'} {self.termination or 'running'}>"
        )

    @property
    def response_headers(self) -> Sequence[tuple[str, str]]:
        """The fields of the response as sent; empty when there was none."""
        # Read when somebody asks: most are never asked for.
        lines = self._head.decode("latin-1").split("\r\n")[1:-2]
        fields = (line.partition(": ") for line in lines)
        return tuple((name, value) for name, _, value in fields)

    @property
    def head_bytes(self) -> int:
        """How many octets the response's head has; 0 when there was none."""
        return len(self._head)

    def note_head(self, status: str, head: bytes) -> None:
        """Note the response's head."""
        self.status = status
        self._head = head

    def seconds(self, begin: str, end: str) -> float | None:
        """Return the time between two of the instants; ``None`` where one is missing.

        Args:
            begin: a name of :data:`TIMES`.
            end: another one.
        """
        first, last = getattr(self, begin), getattr(self, end)
        return None if first is None or last is None else last - first


#: What an application may see of its request's timeline.
_SHOWN = frozenset(
    {*TIMES, "began_at", "bytes_in", "bytes_out", "channel_id", "request_id", "status"}
    | {"termination", "seconds"}
)


class TimelineView:
    """A timeline that can be looked at, and not changed.

    Has the instants, ``began_at``, ``bytes_in``, ``bytes_out``, ``channel_id``,
    ``request_id``, ``status``, ``termination`` and ``seconds()`` of a :class:`Timeline`, as
    they are at the moment of looking: also after the response, for those who keep it.

    Threads: any.
    """

    __slots__ = ("_timeline",)
    _timeline: Timeline

    def __init__(self, timeline: Timeline) -> None:
        object.__setattr__(self, "_timeline", timeline)

    def __getattr__(self, name: str) -> Any:
        if name in _SHOWN:
            return getattr(self._timeline, name)
        raise AttributeError(f"a timeline has no {name!r} to show")

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError("a timeline cannot be changed")

    def __delattr__(self, name: str) -> None:
        raise AttributeError("a timeline cannot be changed")

    def __dir__(self) -> list[str]:
        return sorted(_SHOWN)

    def __repr__(self) -> str:
        return f"<TimelineView of request {self.request_id}>"

    def as_dict(self) -> dict[str, float | None]:
        """Return the instants by name, as of now."""
        return {name: getattr(self._timeline, name) for name in TIMES}


class TimelineListener(Protocol):
    """Who is told of timelines.

    May have an attribute ``environ_names``: the variables of the application's environ that
    are wanted in :attr:`Timeline.environ`. Read when the listener subscribes.
    """

    def timeline_ended(self, timeline: Timeline) -> None:
        """Take a timeline that is complete.

        Called once per request, refused and cancelled ones included, in the loop's
        thread; must not block.
        """
