"""The worker's side of a connection: serve its next request, report, go.

Everything in this module runs in a worker's thread, but for :func:`answer_error`, which
the loop calls for errors that it found by itself. It uses of a channel what
:class:`ServedChannel` lists, and decides nothing about the connection: it reports whether
the response allows it to go on, and the loop does the rest.

This is one of the two borders that must survive anything: whatever a task raises, the
client gets a 500 or a response that is visibly cut, and the worker lives.

Row 6: imports observer, outbound, request_queue and utilities.
"""

from __future__ import annotations

import contextlib
import logging
import traceback
from collections.abc import Sequence
from typing import Any, Protocol

from waitress.observer import Observer
from waitress.outbound import ClientDisconnected, OutboundBuffer
from waitress.request_queue import RequestQueue
from waitress.utilities import InternalServerError

__all__ = ["ServedChannel", "answer_error", "serve_next"]


class ServedChannel(Protocol):
    """What serving a request needs of its channel."""

    adj: Any
    connected: bool
    error_task_class: Any
    has_left: bool
    logger: logging.Logger
    observer: Observer
    outbound: OutboundBuffer
    parser_class: Any
    request_queue: RequestQueue
    task_class: Any

    def discard_request(self, request: Any) -> None:
        """Release what the request holds."""

    def drop_requests(self, requests: Sequence[Any]) -> None:
        """Release requests that never run."""

    def reset_when_closed(self) -> None:
        """Make the end of the connection visible as a cut, not as an end."""

    def service_ended(self, has_turn: bool) -> None:
        """Take the report: the loop has something to do, or another task has."""


def serve_next(channel: ServedChannel) -> None:
    """Serve the request at the head of the channel's queue.

    Threads: worker.
    """
    request = channel.request_queue.head()
    if request is None:  # The connection ended before its turn came.
        channel.service_ended(False)
        return
    is_watched = channel.observer.listening
    keep_alive = False
    try:
        if is_watched:
            _mark_start(channel, request)
        keep_alive = _answer(channel, request)
    finally:
        try:
            if is_watched and channel.observer.listening:
                _mark_end(channel, request)
        finally:
            # Whatever an observer does: a request that stays in service is never answered,
            # and no deadline runs meanwhile.
            has_turn, dropped = channel.request_queue.finish(keep_alive)
            channel.discard_request(request)
            if dropped:
                channel.drop_requests(dropped)
            channel.service_ended(has_turn)


def answer_error(channel: ServedChannel, request: Any) -> None:
    """Put the answer to a refused request into the output buffer.

    Threads: loop; never while a worker serves the same channel.
    """
    if channel.observer.listening:
        _mark_start(channel, request)
    _answer(channel, request)
    if channel.observer.listening:
        _mark_end(channel, request)


def _answer(channel: ServedChannel, request: Any) -> bool:
    """Run the task of one request; say whether the connection may go on."""
    task = None
    try:
        try:
            task_class = channel.error_task_class if request.error else channel.task_class
            task = task_class(channel, request)
            if channel.connected:
                task.service()
            else:
                task.close_on_finish = True
        except BaseException as error:  # noqa: BLE001 - reported one call away
            return _report_failure(channel, request, task, error)
        return not task.close_on_finish
    except BaseException:
        # A task, an error task or a parser of the user's that cannot even be made.
        channel.logger.exception(f"Exception while serving {_path_of(request)}")
        channel.reset_when_closed()
        return False


def _report_failure(channel: ServedChannel, request: Any, task: Any, error: BaseException) -> bool:
    """Log what a task raised and tell the client; say whether the connection may go on.

    Runs while ``error`` is handled.
    """
    if channel.observer.listening:
        channel.observer.request_failed(request, error)
    if isinstance(error, ClientDisconnected):
        channel.logger.info(f"Client disconnected while serving {_path_of(request)}")
        _cut(channel, task)
        # Whoever only ended its own side may still want the others done; nothing is
        # written for them, so that no response can follow one that was cut.
        return channel.has_left
    channel.logger.exception(f"Exception while serving {_path_of(request)}")  # noqa: LOG004
    if task is not None and task.wrote_header:
        _cut(channel, task)
    else:
        _answer_with_500(channel, request)
    return False


def _answer_with_500(channel: ServedChannel, request: Any) -> None:
    if channel.adj.expose_tracebacks:
        text = traceback.format_exc()
    else:
        text = "The server encountered an unexpected internal server error"
    replacement = channel.parser_class(channel.adj)
    replacement.error = InternalServerError(text)
    replacement.version = request.version
    replacement.command = getattr(request, "command", "")
    for name in ("path", "query", "request_uri", "url_scheme"):
        if hasattr(request, name) and not hasattr(replacement, name):
            setattr(replacement, name, getattr(request, name))
    # For those who watch, it is the answer to the same request.
    replacement.request_id = getattr(request, "request_id", 0)
    replacement.timeline = getattr(request, "timeline", None)
    with contextlib.suppress(KeyError):
        replacement.headers["CONNECTION"] = request.headers["CONNECTION"]
    task = channel.error_task_class(channel, replacement)
    try:
        task.service()
    except ClientDisconnected:
        pass
    except BaseException:
        channel.logger.exception(f"Exception while serving {_path_of(request)}")
        if task.wrote_header:
            _cut(channel, task)


def _cut(channel: ServedChannel, task: Any) -> None:
    """Make sure that the client sees that the response is not whole.

    A chunked response lacks its last chunk, one with a Content-Length lacks bytes; but
    one that ends with the connection looks whole, unless the connection is reset.
    """
    if getattr(task, "ends_with_connection", False):
        channel.reset_when_closed()


def _mark_start(channel: ServedChannel, request: Any) -> None:
    channel.observer.request_started(request)
    channel.outbound.mark_next(("response_leaving", request))


def _mark_end(channel: ServedChannel, request: Any) -> None:
    channel.observer.request_serviced(request)
    if channel.outbound.mark(("request_finished", request)):
        channel.observer.request_finished(request)


def _path_of(request: Any) -> str:
    """Return the path of a request, which one that was refused early does not have."""
    return getattr(request, "path", "")
