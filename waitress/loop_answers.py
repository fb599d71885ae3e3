"""Requests that the loop answers by itself, without a worker and without the application.

Owns the way in which that is done: as for any other request, through the same parser,
queue, task, framing and output buffer, but in the loop's thread, so that it works while
all workers are stuck. What is answered must therefore be at hand: it may not wait for
anything.

Row 6: imports answers, request_queue (its type) and task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from waitress.answers import Answer, method_refusal
from waitress.request_queue import RequestQueue
from waitress.task import Task

__all__ = ["AnswerTask", "AnswersInLoop", "answering", "answering_at"]


#: Answers a request.
Responder = Callable[[Any], Answer]


class AnswerTask(Task):
    """Answer a request with what the channel's responder says.

    Threads: loop.
    """

    complete = True

    def execute(self) -> None:
        """Send the answer."""
        channel: Any = self.channel
        answer = channel.respond(self.request)
        self.status = answer.status
        self.response_headers.extend(answer.headers)
        self.content_length = len(answer.body)
        self._application_done = True
        self.write(answer.body)


if TYPE_CHECKING:

    class _Channel:
        """What the mix-in finds in the channel class that it is mixed into."""

        _answers: bool
        request_queue: RequestQueue
        task_class: Any

        def service(self) -> None: ...
        def start_service(self) -> None: ...
        def _has_queued_again(self) -> bool: ...

else:
    _Channel = object


class AnswersInLoop(_Channel):
    """What makes a channel answer some of its requests in the loop; see :func:`answering`.

    Threads: ``start_service`` loop; ``_has_queued_again`` worker, or the loop while it
    answers.
    """

    #: Says whether a request is for the loop to answer; any thread.
    is_for_loop: Callable[[Any], bool]
    respond: Responder

    def start_service(self) -> None:
        """Answer the first request, or hand it to the workers."""
        if not self._loop_is_next():
            super().start_service()
            return
        self.request_queue.requests[0].is_own_answer = True
        self.task_class = AnswerTask
        self._answers = True  # The loop never waits for room.
        try:
            self.service()
        finally:
            self._answers = False
            del self.task_class

    def _has_queued_again(self) -> bool:
        """Leave what is the loop's to the loop, which answers one request in each turn."""
        return not self._loop_is_next() and super()._has_queued_again()

    def _loop_is_next(self) -> bool:
        requests = self.request_queue.requests
        return bool(requests) and self.is_for_loop(requests[0])


def answering(channel_class: Any, is_for_loop: Callable[[Any], bool], respond: Responder) -> Any:
    """Return a subclass of a channel class that answers some requests in the loop.

    A class of its own, so that no other channel has to ask whether it is one.
    """
    members = {
        "__doc__": AnswersInLoop.__doc__,
        "is_for_loop": staticmethod(is_for_loop),
        "respond": staticmethod(respond),
    }
    return type(channel_class.__name__, (AnswersInLoop, channel_class), members)


def answering_at(channel_class: Any, answers: Mapping[str, Responder]) -> Any:
    """Return a subclass of a channel class that answers some paths in the loop.

    Threads: the mapping is only read.
    """

    def respond(request: Any) -> Answer:
        return method_refusal(request) or answers[request.path](request)

    return answering(channel_class, lambda request: request.path in answers, respond)
