"""One request, answered: the WSGI application called, its response handed to the channel.

A worker runs ``task.service()``. The way of a request through this module::

    service
      start                     note the time
      execute
        get_environment         environ.build_environ
        application(environ, start_response)
          start_response        response.check_final_status, check_headers
        write, once per chunk
          build_response_header response.choose_framing, complete_headers, render_head
          _emit                 -> channel.writev_soon
        close()                 of the application's iterable
      finish                    what is left: an unsent head, the last chunk

Nothing is answered for an exception here: whoever calls ``service()`` sees all of them,
and ``wrote_header`` tells whether a 500 can still be sent. What an application hands over
is checked before the first byte of its response leaves, so that it can.

Row 5: above ``environ``, ``response`` and ``workers``. No socket, no lock.
"""

from __future__ import annotations

import sys  # noqa: F401  # a name of this module for those who patch it
import threading  # noqa: F401  # likewise
import time
from collections import deque  # noqa: F401  # likewise
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.environ import EnvironRequest, build_environ, rename_headers
from waitress.observer import NO_OBSERVER
from waitress.response import (
    JOIN_BYTES,
    LAST_CHUNK,
    BodyMode,
    Framing,
    check_final_status,
    check_headers,
    choose_framing,
    client_keeps_alive,
    coalesce,
    complete_headers,
    find_content_length,
    frame_chunk,
    hop_by_hop,
    render_head,
    status_allows_body,
)
from waitress.utilities import Error, build_http_date, http_date_now, logger, queue_logger
from waitress.workers import ThreadedTaskDispatcher

__all__ = [
    "ErrorTask",
    "ReadOnlyFileBasedBuffer",
    "Task",
    "TaskChannel",
    "TaskRequest",
    "ThreadedTaskDispatcher",
    "WSGITask",
    "build_http_date",
    "hop_by_hop",
    "logger",
    "queue_logger",
    "rename_headers",
]

# Looked up here once: in Python 3.11 finding a member on its class takes 0.1 µs.
_CHUNKED = BodyMode.CHUNKED

#: The versions spoken.
_VERSIONS = ("1.1", "1.0")

#: Bytes of a list's chunks that are kept back to be handed over together. Enough to make
#: the cost of a hand-over vanish, few enough for the loop to be sending meanwhile.
_HELD_BYTES = 262144


class TaskServer(Protocol):
    """What a task asks of its channel's server."""

    @property
    def application(self) -> Any:
        """The WSGI application."""

    @property
    def adj(self) -> Any:
        """The settings ``ident`` and ``url_prefix``."""

    @property
    def effective_port(self) -> Any:
        """The port listened to."""

    @property
    def server_name(self) -> str:
        """The value of ``SERVER_NAME``."""


class TaskChannel(Protocol):
    """What a task asks of its channel.

    A channel may have more, which is used if it is there:

    * ``writev_soon(parts, last)``: take several byte strings at once. With ``last`` true
      no code of the application runs before the end of ``service()``, so that nothing is
      gained by waking the loop for these bytes now. Without the method, parts are joined
      and given to ``write_soon``.
    * ``close_requested``: whether the server wants the connection closed after this
      response.
    * ``observer``: an :class:`~waitress.observer.Observer`.
    """

    @property
    def server(self) -> TaskServer:
        """The server of the channel."""

    @property
    def adj(self) -> Any:
        """The setting ``log_socket_errors``."""

    @property
    def addr(self) -> Any:
        """The peer's host and port."""

    def write_soon(self, data: Any) -> Any:
        """Take bytes, or a prepared file wrapper, to be sent after what it has already."""

    def check_client_disconnected(self) -> bool:
        """Say whether the client has gone."""


class TaskRequest(EnvironRequest, Protocol):
    """What a task asks of its request.

    ``connection_close``, if there is such an attribute, says that the parser has decided
    against keeping the connection.
    """

    @property
    def version(self) -> str:
        """The HTTP version, digits and dot, or ``""``."""

    @property
    def error(self) -> Error | None:
        """Why the request is refused; asked for by :class:`ErrorTask` only."""


class Task:
    """Answer one request; subclasses say with what, in :meth:`execute`.

    The attributes tell how far it has got, and may be set by subclasses before
    the head is written. Invariant: never more body bytes are handed to the channel than
    the head promised, and none where the method or the status forbids them.

    Args:
        channel: takes the response.
        request: complete, and read only from here on.

    Threads: those of one worker; the loop's for a refused request.
    """

    #: Whether the connection is to be closed after this response.
    close_on_finish: bool = False
    #: Code and reason phrase.
    status: str = "200 OK"
    #: Whether any byte of the response may have left.
    wrote_header: bool = False
    #: When :meth:`start` was called, in seconds since the epoch.
    start_time: float = 0
    #: Bytes of the body, as promised to the client; ``None`` while unknown.
    content_length: int | None = None
    #: Bytes of the body that :meth:`write` was given, less what exceeded the promise.
    content_bytes_written: int = 0
    #: Whether a body longer than promised was warned of.
    logged_write_excess: bool = False
    #: Whether a body where none is allowed was warned of.
    logged_write_no_body: bool = False
    #: Whether status and headers are known: the head can be written.
    complete: bool = False
    #: Whether the body is sent in chunks.
    chunked_response: bool = False
    #: Takes the warnings.
    logger: Any = logger

    # What the head says of the body; None until it is built.
    _framing: Framing | None = None
    # Whether all code of the application that belongs to this request has run.
    _application_done: bool = False
    # What is kept back to be handed over together; None if nothing is to be.
    _held: list[bytes] | None = None
    # Whose OSError it was: the channel's, or the application's own.
    _channel_failed: bool = False
    _application_failed: bool = False

    def __init__(self, channel: TaskChannel, request: TaskRequest) -> None:
        self.channel = channel
        self.request = request
        self.response_headers: list[tuple[str, str]] = []
        version = request.version
        self.version = version if version in _VERSIONS else _response_version(version)

    def service(self) -> None:
        """Answer the request: :meth:`start`, :meth:`execute`, :meth:`finish`.

        Raises:
            OSError: from the channel, if the setting ``log_socket_errors`` is true; if
                not, ``close_on_finish`` is all that is seen of it. One of the
                application's own is always raised.
            BaseException: whatever else the application raised. If ``wrote_header`` is
                false, no byte has left.
        """
        try:
            self.start()
            self.execute()
            self.finish()
        except OSError:
            if self._application_failed:
                raise
            self.close_on_finish = True
            if self.channel.adj.log_socket_errors:
                raise

    @property
    def has_body(self) -> bool:
        """Whether the status allows a body."""
        return status_allows_body(self.status)

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection tells the client where the body ends."""
        framing = self._framing
        return framing is not None and framing.sends_body and framing.mode is BodyMode.UNTIL_CLOSE

    def set_close_on_finish(self) -> None:
        """Close the connection after this response, and say so if that is still possible."""
        if not self.wrote_header and not any(
            name.lower() == "connection" for name, _ in self.response_headers
        ):
            self.response_headers.append(("Connection", "close"))
        self.close_on_finish = True

    def start(self) -> None:
        """Note the time."""
        self.start_time = time.time()

    def execute(self) -> None:
        """Produce the response, by :meth:`write`."""
        raise NotImplementedError

    def finish(self) -> None:
        """Send what is left of the response: an unsent head, the last chunk."""
        if not self.wrote_header or self.chunked_response:
            self._hold()
            if not self.wrote_header:
                self.write(b"")
            if self.chunked_response:
                self._emit((LAST_CHUNK,))
            self._let_go(last=True)
        if self._is_short():
            # Of a body that execute() did not watch over.
            self.close_on_finish = True

    def write(self, data: bytes) -> None:
        """Send ``data`` as the next bytes of the body, and the head before the first.

        The head is sent even if ``data`` is empty. Of a body that is longer than
        promised, what exceeds is dropped; one that must not be sent at all is dropped
        whole. Either is warned of once, save for the body of an answer to HEAD.

        Raises:
            RuntimeError: ``start_response`` was not called before.
            TypeError: ``data`` is not bytes.
            ClientDisconnected: the client has gone.
        """
        if not self.complete:
            raise RuntimeError("start_response was not called before body written")
        if type(data) is not bytes:
            data = _plain_bytes(data)
        if self.wrote_header:
            parts = self._frame(data)
        else:
            head = self.build_response_header()
            parts = self._frame(data)
            if len(parts) == 1 and len(data) <= JOIN_BYTES:
                parts = (head + parts[0],)
            else:
                parts = (head, *parts)
            self.wrote_header = True
        if parts:
            self._emit(parts)

    def build_response_header(self) -> bytes:
        """Return the head, and settle how the body is framed and the connection left.

        Sets ``chunked_response`` and ``close_on_finish``; ``response_headers`` becomes
        what is sent.
        """
        version = self.version
        headers = self.response_headers
        if self.content_length is None:
            self.content_length = find_content_length(headers)
        framing = choose_framing(
            version,
            getattr(self.request, "command", ""),
            self.status,
            self.content_length,
            not self.close_on_finish and self._may_keep_alive(),
        )
        self._framing = framing
        self.chunked_response = framing.sends_body and framing.mode is _CHUNKED
        if not framing.keep_alive:
            self.close_on_finish = True
        self.response_headers = complete_headers(
            version,
            headers,
            framing,
            self.content_length,
            http_date_now(time.time()),
            self.channel.server.adj.ident,
        )
        return render_head(version, self.status, self.response_headers)

    def remove_content_length_header(self) -> None:
        """Drop every Content-Length from ``response_headers``."""
        self.response_headers = [
            field for field in self.response_headers if field[0].lower() != "content-length"
        ]

    def _may_keep_alive(self) -> bool:
        """Say whether server, parser and client all wish the connection to persist."""
        request = self.request
        if getattr(request, "connection_close", False):
            return False
        if getattr(self.channel, "close_requested", False):
            return False
        # A parser that was not fed but filled in by hand has not decided anything: what
        # it says can only narrow what the field says.
        return client_keeps_alive(self.version, request.headers.get("CONNECTION"))

    def _sends_body(self) -> bool:
        """Say whether status and method allow body bytes to be sent."""
        framing = self._framing
        if framing is not None:
            return framing.sends_body
        return self.has_body and getattr(self.request, "command", "") != "HEAD"

    def _is_short(self) -> bool:
        """Say whether body bytes that were promised are missing."""
        return (
            self.content_length is not None
            and self.content_bytes_written < self.content_length
            and self._sends_body()
        )

    def _frame(self, data: bytes) -> tuple[bytes, ...]:
        """Return what goes on the wire for ``data``; count it."""
        if not data:
            return ()
        if not self._sends_body():
            self.content_bytes_written += len(data)
            if not self.has_body:
                self._warn_of_ignored_body()
            return ()
        if self.content_length is not None:
            data = self._cut(data, self.content_length - self.content_bytes_written)
        self.content_bytes_written += len(data)
        if not data:
            return ()
        return frame_chunk(data) if self.chunked_response else (data,)

    def _cut(self, data: bytes, room: int) -> bytes:
        """Return so much of ``data`` as the promised length leaves room for."""
        if len(data) <= room:
            return data
        if not self.logged_write_excess:
            self.logged_write_excess = True
            self.logger.warning(
                "application-written content exceeded the number of "
                "bytes specified by Content-Length header (%s)",
                self.content_length,
            )
        return data[: max(room, 0)]

    def _warn_of_ignored_body(self) -> None:
        if not self.logged_write_no_body:
            self.logged_write_no_body = True
            self.logger.warning(
                "application-written content was ignored due to HTTP "
                "response that may not contain a message-body: (%s)",
                self.status,
            )

    # The way to the channel

    def _emit(self, parts: Sequence[bytes]) -> None:
        """Hand ``parts`` to the channel, or keep them back with those that follow."""
        if self._held is None:
            self._hand_over(parts, self._application_done)
        else:
            self._held.extend(parts)

    def _hold(self) -> None:
        """Keep back what is emitted from now on."""
        self._held = []

    def _let_go(self, *, last: bool) -> None:
        """Hand over what was kept back, and keep nothing back any more."""
        parts, self._held = self._held, None
        if parts:
            self._hand_over(parts, last)

    def _hand_over(self, parts: Sequence[bytes], last: bool) -> None:
        channel = self.channel
        writev_soon = getattr(channel, "writev_soon", None)
        try:
            if writev_soon is None:
                channel.write_soon(b"".join(parts))
            else:
                writev_soon(parts if len(parts) == 1 else coalesce(parts), last)
        except OSError:
            self._channel_failed = True
            raise


class ErrorTask(Task):
    """Answer a refused request with its ``error``, and close the connection."""

    complete = True

    def execute(self) -> None:
        """Send the error's own response."""
        error = self.request.error
        assert error is not None
        status, headers, body = error.to_response(self.channel.server.adj.ident)
        self.status = status
        self.response_headers.extend(headers)
        self.set_close_on_finish()
        self.content_length = len(body)
        self._application_done = True
        self.write(body)


class WSGITask(Task):
    """Answer a request with what the WSGI application returns and writes.

    Source: PEP 3333.
    """

    #: The environ given to the application; whoever sets it decides what that is.
    environ: dict[str, Any] | None = None

    def get_environment(self) -> dict[str, Any]:
        """Return the environ of the request, the same one each time."""
        environ = self.environ
        if environ is None:
            channel = self.channel
            server = channel.server
            adj = server.adj
            environ = self.environ = build_environ(
                self.request,
                version=self.version,
                addr=channel.addr,
                server_name=server.server_name,
                server_port=server.effective_port,
                ident=adj.ident,
                url_prefix=adj.url_prefix,
                client_disconnected=channel.check_client_disconnected,
            )
        return environ

    def execute(self) -> None:
        """Call the application and send what it returns.

        The iterable is closed once, whatever happens; a file wrapper that the channel
        has taken is closed by the channel.
        """
        observer = getattr(self.channel, "observer", NO_OBSERVER)
        listening = observer.listening
        if listening:
            observer.application_started(self.request)
        try:
            environ = self.get_environment()
            self._send(self.channel.server.application(environ, self.start_response))
        except OSError:
            self._application_failed = not self._channel_failed
            raise
        finally:
            if listening:
                observer.application_finished(self.request)

    def start_response(
        self, status: str, headers: Iterable[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        """Take status and headers of the response; return :meth:`write`.

        All of it is checked at once: when this raises, the response has not been started,
        and nothing can be written until a further call succeeds.

        Args:
            status: the code and the reason phrase.
            headers: any iterable of (name, value) pairs of strings.
            exc_info: ``sys.exc_info()`` of the error that the application is answering.
                Allows a second call, and lets that replace what the first one said; if
                it is too late for this, the error is raised again.

        Raises:
            AssertionError: called again without ``exc_info``; a status, name or value is
                not a string; a field is hop-by-hop.
            ValueError: a status, name or value is not fit for the wire; the status is
                1xx; Content-Length is not one non-negative decimal number.
            BaseException: ``exc_info[1]``.

        Source: PEP 3333, "The start_response() Callable".
        """
        if self.complete and not exc_info:
            raise AssertionError("start_response called a second time without providing exc_info.")
        if exc_info:
            try:
                if self.wrote_header:
                    raise exc_info[1]
            finally:
                # The traceback holds this frame: do not hold it in turn.
                exc_info = None
            self.response_headers = []
        self.complete = False
        self.status = check_final_status(status)
        fields, self.content_length = check_headers(headers)
        self.response_headers.extend(fields)
        self.complete = True
        observer = getattr(self.channel, "observer", NO_OBSERVER)
        if observer.listening:
            observer.response_started(self.request, self.status)
        return self.write

    def _send(self, app_iter: Any) -> None:
        """Send what the application returned, and close it if that is for us to do."""
        kind = type(app_iter)
        if kind is list or kind is tuple:
            # Neither has a close(), so no code of the application runs any more.
            self._application_done = True
            self._send_sequence(app_iter)
            return
        taken = False
        try:
            size = 0
            # What was written before makes a head that knows nothing of the file's size.
            if isinstance(app_iter, ReadOnlyFileBasedBuffer) and not self.wrote_header:
                size = app_iter.prepare(self.content_length)
            if size:
                taken = self._send_file(app_iter, size)
            else:
                self._send_iterable(app_iter)
        finally:
            close = None if taken else getattr(app_iter, "close", None)
            if close is not None:
                close()

    def _send_sequence(self, chunks: Sequence[bytes]) -> None:
        """Send a list or tuple, in as few pieces as its size permits."""
        if len(chunks) == 1:
            self._send_only_chunk(chunks[0])
            return
        for chunk in chunks:
            if type(chunk) is not bytes:
                _plain_bytes(chunk)
        self._hold()
        held_bytes = 0
        for chunk in chunks:
            if held_bytes >= _HELD_BYTES:
                self._let_go(last=False)
                self._hold()
                held_bytes = 0
            if chunk:
                self.write(chunk)
                held_bytes += len(chunk)
        self._let_go(last=True)
        self._close_if_short()

    def _send_only_chunk(self, chunk: bytes) -> None:
        if type(chunk) is not bytes:
            chunk = _plain_bytes(chunk)
        if self.content_length is None and not self.wrote_header:
            self.content_length = len(chunk)
        if chunk:
            self.write(chunk)
        self._close_if_short()

    def _send_iterable(self, chunks: Any) -> None:
        """Send each chunk as it comes (PEP 3333, "Buffering and Streaming")."""
        for chunk in chunks:
            if type(chunk) is not bytes:
                chunk = _plain_bytes(chunk)
            if self.content_length is None and not self.wrote_header and _is_single(chunks):
                self.content_length = len(chunk)
            if chunk:
                self.write(chunk)
        self._close_if_short()

    def _close_if_short(self) -> None:
        """Close the connection if the body is shorter than promised, and warn of it."""
        if self._is_short():
            self.set_close_on_finish()
            self.logger.warning(
                "application returned too few bytes (%s) "
                "for specified Content-Length (%s) via app_iter",
                self.content_bytes_written,
                self.content_length,
            )

    def _send_file(self, file: ReadOnlyFileBasedBuffer, size: int) -> bool:
        """Send ``size`` bytes of a file, prepared for that; say if the channel took it."""
        if type(file.get(0)) is not bytes:
            raise TypeError("the file given to wsgi.file_wrapper is not a binary file")
        if self.content_length != size:
            self.remove_content_length_header()
            self.content_length = size
        sends_body = self._sends_body()
        if sends_body and not file.reads_at_once:
            # It may be slow: that is the worker's affair, the loop has others to serve.
            while data := file.get(file.block_size, skip=True):
                self.write(data)
            self._close_if_short()
            return False
        self._application_done = sends_body
        self.write(b"")
        if not sends_body:
            if not self.has_body:
                self._warn_of_ignored_body()
            return False
        try:
            self.channel.write_soon(file)
        except OSError:
            self._channel_failed = True
            raise
        self.content_bytes_written += size
        return True


def _response_version(version: str) -> str:
    """Return the version in which to answer a request of one that is not ours."""
    # Any later minor version is answered as 1.1 (RFC 9110, 2.5).
    if len(version) == 3 and version.startswith("1.") and version[2] in "23456789":
        return "1.1"
    return "1.0"


def _is_single(chunks: Any) -> bool:
    """Say whether an iterable knows that it yields one item and no more."""
    return hasattr(chunks, "__len__") and len(chunks) == 1


def _plain_bytes(data: Any) -> bytes:
    """Return bytes of a subclass as bytes proper.

    Raises:
        TypeError: ``data`` is anything else (PEP 3333: an application yields bytes).
    """
    if not isinstance(data, bytes):
        raise TypeError(f"the response body must be bytes, not {type(data).__name__}")
    # By the buffer itself: a subclass may say what it likes of its length.
    return b"".join((data, b""))
