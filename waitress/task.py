"""One request, answered: the WSGI application called, its response handed to the channel.

A worker runs ``task.service()``. The way of a request through this module::

    service
      start                     note the time
      execute
        get_environment         environ.build_environ
        application(environ, start_response)
          start_response        response.known_start, check_start
        write, once per chunk
          build_response_header response.render_head, Head.render
          _hand_over            -> channel.writev_soon
        close()                 of the application's iterable
      finish                    what is left: an unsent head, the last chunk

Nothing is answered for an exception here: whoever calls ``service()`` sees all of them,
and ``wrote_header`` tells whether a 500 can still be sent. What an application hands over
is checked before the first byte of its response leaves, so that it can.

Every request comes through here, and in CPython a call of a function costs more than most
of what these do. Methods that users override are always called; what has one caller
stands in it, and what is rare stands apart.

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
from waitress.environ import EnvironRequest, EnvironServer, build_environ, rename_headers
from waitress.instance_defaults import InstanceDefaults
from waitress.observer import NO_OBSERVER, Observer
from waitress.response import (
    CHUNK_END,
    JOIN_BYTES,
    LAST_CHUNK,
    BodyMode,
    Head,
    Start,
    check_start,
    chunk_heads,
    client_keeps_alive,
    coalesce,
    compose_start,
    hop_by_hop,
    known_start,
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

#: Bytes of a list's chunks that are kept back to be handed over together. Enough to make
#: the cost of a hand-over vanish, few enough for the loop to be sending meanwhile.
_HELD_BYTES = 262144


class TaskServer(EnvironServer, Protocol):
    """What a task asks of its channel's server."""

    @property
    def application(self) -> Any:
        """The WSGI application."""


class TaskChannel(Protocol):
    """What a task asks of its channel.

    A channel may have more, which is used if it is there:

    * ``writev_soon(parts, last)``: take several byte strings at once. With ``last`` true
      no code of the application runs before the end of ``service()``, so that nothing is
      gained by waking the loop for these bytes now. Without the method, parts are joined
      and given to ``write_soon``.
    * ``wants_to_close()``: whether the server wants the connection closed after this
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


class Task(
    metaclass=InstanceDefaults,
    in_instances=(
        "chunked_response",
        "close_on_finish",
        "complete",
        "content_bytes_written",
        "content_length",
        "start_time",
        "status",
        "wrote_header",
    ),
):
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

    # Whose OSError it was: the channel's, or the application's own.
    _channel_failed: bool = False
    _application_failed: bool = False

    def __init__(self, channel: TaskChannel, request: TaskRequest) -> None:
        self.channel = channel
        self.request = request
        version = request.version
        self.version = version if version == "1.1" else _response_version(version)
        # What a channel may have or not is asked for as if it had it, since getattr() takes
        # several times as long.
        observer: Observer
        try:
            observer = channel.observer  # type: ignore[attr-defined]
        except AttributeError:
            observer = NO_OBSERVER
        # Whoever wants to be told of the application.
        self._listener: Observer | None = observer if observer.listening else None
        # What is read for each request stands in the instance, where CPython finds it in a
        # fourth of the time that a default of the class takes.
        kind = type(self)
        if kind is WSGITask or kind is Task:  # Another class may have defaults of its own.
            self.chunked_response = False
            self.close_on_finish = False
            self.complete = False
            self.wrote_header = False
            self.content_length = None
            # WSGITask's only.
            self.environ: dict[str, Any] | None = None
            self.content_bytes_written = 0
            self.start_time = 0
            self.status = "200 OK"

        # What start_response was given, or compose_start(); None before.
        self._start: Start | None = None
        # What the head was built from, and the head; nothing before.
        self._head: Head | None = None
        self._head_bytes = b""
        # Whether body bytes may be sent, as far as is known without asking status and method.
        self._sends_body: bool = False
        # What response_headers is, once somebody has looked.
        self._response_headers: list[tuple[str, str]] | None = None
        # Whether all code of the application that belongs to this request has run.
        self._application_done: bool = False
        # Whether the response has ended, while the application may still hold write().
        self._is_over: bool = False
        # What is kept back to be handed over together; None if nothing is to be.
        self._held: list[bytes] | None = None

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
        finally:
            self._is_over = True

    @property
    def response_headers(self) -> list[tuple[str, str]]:
        """The fields of the response: once the head is built, those that it has.

        Until then the list can be changed, or another be put in its place.
        """
        # Most tasks are not asked, and need no list.
        fields = self._response_headers
        if fields is None:
            if self._head_bytes:
                lines = self._head_bytes.decode("latin-1").split("\r\n")[1:-2]
                fields = [(name, value) for name, _, value in [s.partition(": ") for s in lines]]
            else:
                fields = [] if self._start is None else list(self._start.fields)
            self._response_headers = fields
        return fields

    @response_headers.setter
    def response_headers(self, fields: list[tuple[str, str]]) -> None:
        self._response_headers = fields

    @property
    def has_body(self) -> bool:
        """Whether the status allows a body."""
        return status_allows_body(self.status)

    @property
    def ends_with_connection(self) -> bool:
        """Whether only the end of the connection tells the client where the body ends."""
        head = self._head
        return head is not None and head.sends_body and head.mode is BodyMode.UNTIL_CLOSE

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
        if not self.wrote_header:
            held = self._hold()
            self.write(b"")
            if self.chunked_response:
                held.append(LAST_CHUNK)
            self._let_go(last=True)
        elif self.chunked_response:
            self._hand_over((LAST_CHUNK,), last=True)
        if self.content_bytes_written != self.content_length and self._is_short():
            # Of a body that execute() did not watch over.
            self.close_on_finish = True

    def write(self, data: bytes) -> None:
        """Send ``data`` as the next bytes of the body, and the head before the first.

        The head is sent even if ``data`` is empty. Of a body that is longer than
        promised, what exceeds is dropped; one that must not be sent at all is dropped
        whole. Either is warned of once, save for the body of an answer to HEAD.

        Raises:
            RuntimeError: ``start_response`` was not called before, or the response has
                ended: what is written now would stand in the next one.
            TypeError: ``data`` is not bytes.
            ClientDisconnected: the client has gone.
        """
        if not self.complete:
            raise RuntimeError("start_response was not called before body written")
        if self._is_over:
            raise RuntimeError("write was called after the end of the response")
        if type(data) is not bytes:
            data = _plain_bytes(data)
        head = b""
        if not self.wrote_header:
            head = self.build_response_header()
            self.wrote_header = True
            if self._listener is not None:
                self._listener.head_written(self.request, self.status, head)
        size = len(data)
        if size:
            length = self.content_length
            written = self.content_bytes_written + size
            if not self._sends_body or (length is not None and written > length):
                data = self._admit(data)
                size = len(data)
                written = self.content_bytes_written + size
            self.content_bytes_written = written
        parts: tuple[bytes, ...]
        if not size:
            if not head:
                return
            parts = (head,)
        elif self.chunked_response:
            if size <= JOIN_BYTES:
                parts = (b"".join((head, chunk_heads[size], data, CHUNK_END)),)
            else:
                parts = (head + chunk_heads[size], data, CHUNK_END)
        elif not head:
            parts = (data,)
        elif size <= JOIN_BYTES:
            parts = (head + data,)
        else:
            parts = (head, data)
        if self._held is not None:
            self._held.extend(parts)
            return
        channel = self.channel
        try:
            # Called without looking for it first: to have a method makes an object, to call it not.
            channel.writev_soon(parts, self._application_done)  # type: ignore[attr-defined]
        except OSError:
            self._channel_failed = True
            raise
        except AttributeError:
            if hasattr(channel, "writev_soon"):
                raise  # Of its own.
        else:
            return
        self._hand_over(parts, last=False)

    def build_response_header(self) -> bytes:
        """Return the head, and settle how the body is framed and the connection left.

        Sets ``chunked_response`` and ``close_on_finish``; ``response_headers`` becomes
        what is sent.
        """
        start = self._start
        if start is None or self._response_headers is not None or self.status is not start.status:
            # Put together by a subclass, or changed by one since start_response().
            start = self._start = compose_start(self.status, self.response_headers)
            self._response_headers = None
        content_length = self.content_length
        if content_length is None:
            content_length = self.content_length = start.content_length
        version = self.version
        channel = self.channel
        request = self.request
        headers = request.headers
        try:
            is_head = request.command == "HEAD"
            ends = request.connection_close or channel.wants_to_close()  # type: ignore[attr-defined]
        except AttributeError:  # One of them is somebody's own, as in __init__().
            is_head = getattr(request, "command", "") == "HEAD"
            wants_to_close = getattr(channel, "wants_to_close", None)
            ends = getattr(request, "connection_close", False) or (
                wants_to_close is not None and wants_to_close()
            )
        if ends or self.close_on_finish:
            keeps_alive = False
        # A parser that was not fed but filled in by hand has not decided anything: what it says
        # can only narrow what the field says.
        elif "CONNECTION" in headers:
            keeps_alive = client_keeps_alive(version, headers["CONNECTION"])
        else:
            keeps_alive = version == "1.1"
        circumstances = (
            version,
            is_head,
            content_length is not None,
            keeps_alive,
            channel.server.adj.ident,
        )
        try:
            head = start.heads[circumstances]
        except KeyError:
            head = render_head(start, circumstances)
        self._head = head
        self._sends_body = head.sends_body
        self.chunked_response = head.is_chunked
        if not head.keep_alive:
            self.close_on_finish = True
        length = start.length or content_length
        # Responses of the same second are often of one length, too.
        told_length, second, told = head.told_last
        now = time.time()
        if told_length != length or not second <= now < second + 1.0:
            told = head.render(length, http_date_now(now), float(int(now)))
        self._head_bytes = told
        return told

    def remove_content_length_header(self) -> None:
        """Drop every Content-Length from ``response_headers``."""
        self.response_headers = [
            field for field in self.response_headers if field[0].lower() != "content-length"
        ]

    def _may_send_body(self) -> bool:
        """Say whether status and method allow body bytes to be sent."""
        head = self._head
        if head is not None:
            return head.sends_body
        return self.has_body and getattr(self.request, "command", "") != "HEAD"

    def _is_short(self) -> bool:
        """Say whether body bytes that were promised are missing."""
        return (
            self.content_length is not None
            and self.content_bytes_written < self.content_length
            and self._may_send_body()
        )

    def _admit(self, data: bytes) -> bytes:
        """Return so much of ``data`` as may be sent; count what must not be sent at all."""
        if not self._may_send_body():
            self.content_bytes_written += len(data)
            if not self.has_body:
                self._warn_of_ignored_body()
            return b""
        if self.content_length is None:
            return data
        room = max(self.content_length - self.content_bytes_written, 0)
        if len(data) > room and not self.logged_write_excess:
            self.logged_write_excess = True
            self.logger.warning(
                "application-written content exceeded the number of "
                "bytes specified by Content-Length header (%s)",
                self.content_length,
            )
        return data[:room]

    def _warn_of_ignored_body(self) -> None:
        if not self.logged_write_no_body:
            self.logged_write_no_body = True
            self.logger.warning(
                "application-written content was ignored due to HTTP "
                "response that may not contain a message-body: (%s)",
                self.status,
            )

    # The way to the channel

    def _hold(self) -> list[bytes]:
        """Keep back what is written from now on, in the list returned."""
        held: list[bytes] = []
        self._held = held
        return held

    def _let_go(self, *, last: bool) -> None:
        """Hand over what was kept back, and keep nothing back any more."""
        parts, self._held = self._held, None
        if parts:
            self._hand_over(coalesce(parts), last)

    def _hand_over(self, parts: Sequence[bytes], last: bool) -> None:
        channel = self.channel
        try:
            if hasattr(channel, "writev_soon"):
                channel.writev_soon(parts, last)
            else:
                channel.write_soon(b"".join(parts))
        except OSError:
            self._channel_failed = True
            raise


class ErrorTask(Task):
    """Answer a refused request with its ``error``; as a rule that ends the connection."""

    complete = True

    def execute(self) -> None:
        """Send the error's own response."""
        error = self.request.error
        assert error is not None
        status, headers, body = error.to_response(self.channel.server.adj.ident)
        self.status = status
        self.response_headers.extend(headers)
        if getattr(error, "ends_connection", True):
            self.set_close_on_finish()
        self.content_length = len(body)
        self._application_done = True
        self.write(body)


class WSGITask(Task, in_instances=("environ",)):
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
            environ = self.environ = build_environ(
                self.request,
                self.version,
                channel.addr,
                channel.server,
                channel.check_client_disconnected,
            )
            if self._listener is not None:
                self._listener.environ_built(self.request, environ)
        return environ

    def execute(self) -> None:
        """Call the application and send what it returns.

        The iterable is closed once, whatever happens; a file wrapper that the channel
        has taken is closed by the channel.
        """
        listener = self._listener
        if listener is not None:
            listener.application_started(self.request)
        try:
            environ = self.get_environment()
            application = self.channel.server.application
            app_iter = application(environ, self.start_response)
            kind = type(app_iter)
            if kind is list or kind is tuple:
                # Neither has a close(), so no code of the application runs any more.
                self._application_done = True
                if len(app_iter) != 1:
                    self._send_sequence(app_iter)
                    return
                chunk = app_iter[0]
                if type(chunk) is not bytes:
                    chunk = _plain_bytes(chunk)
                if self.content_length is None and not self.wrote_header:
                    self.content_length = len(chunk)
                if chunk:
                    self.write(chunk)
                if self.content_bytes_written != self.content_length:
                    self._close_if_short()
            else:
                self._send_closing(app_iter)
        except OSError:
            self._application_failed = not self._channel_failed
            raise
        finally:
            if listener is not None:
                listener.application_finished(self.request)

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
        if exc_info:
            try:
                if self.wrote_header:
                    raise exc_info[1]
            finally:
                # The traceback holds this frame: do not hold it in turn.
                exc_info = None
            self.complete = False
            self._start = self._response_headers = None
        elif self.complete:
            raise AssertionError("start_response called a second time without providing exc_info.")
        try:
            start = known_start((status, tuple(headers))) if type(headers) is list else None
        except TypeError:  # lists, where pairs should be tuples
            start = None
        if start is None:
            start = check_start(status, headers)
        if self._response_headers is not None:
            # A subclass has looked, or more: the list stays the same one.
            self._response_headers.extend(start.fields)
        self._start = start
        self.status = start.status
        self.content_length = start.content_length
        self.complete = True
        if self._listener is not None:
            self._listener.response_started(self.request, self.status)
        return self.write

    def _send_closing(self, app_iter: Any) -> None:
        """Send what the application returned, and close it if that is for us to do."""
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
                if self._listener is not None:
                    self._listener.iterable_exhausted(self.request)
                close()

    def _send_sequence(self, chunks: Sequence[bytes]) -> None:
        """Send a list or tuple, in as few pieces as its size permits."""
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

    def _send_iterable(self, chunks: Any) -> None:
        """Send each chunk as it comes (PEP 3333, "Buffering and Streaming")."""
        for chunk in chunks:
            if type(chunk) is not bytes:
                chunk = _plain_bytes(chunk)
            if not self.wrote_header and self.content_length is None and _is_single(chunks):
                self.content_length = len(chunk)
            if chunk:
                self.write(chunk)
        self._close_if_short()

    def _close_if_short(self) -> None:
        """Close the connection if the body is shorter than promised, and warn of it."""
        if self._is_short():
            if self._listener is not None:
                self._listener.request_failed(self.request, None)
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
        sends_body = self._may_send_body()
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
    # 1.1 is answered as such, and so is any later minor version (RFC 9110, 2.5).
    if len(version) == 3 and version.startswith("1.") and version[2] in "123456789":
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
