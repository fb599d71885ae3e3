"""The parsed requests of one connection, between the loop and the worker.

Owns the order of the requests and the answer to "whose turn is it": at most one request
of a connection is in service, and it is the first of the queue.

Who calls::

    loop    append(request)        a request is complete
    loop    claim(.., requests)    some are complete; what is to be done about the first one?
    worker  head()                 the request to serve
    worker  finish(keep_alive)     it is served: go on with the next, or was it the last?
    worker  release()              there is a next one, but it cannot be gone on with
    loop    finish(False)          it answered an error itself
    loop    close()                the connection is gone
    any     cancel()               no worker will come for the request that one was sent for

What cannot happen: a request runs after one that ended the connection, because a worker says
that the queue has ended before it gives the turn back, and the loop looks when it has seen that;
two workers serve one connection.

The turn is an object in a list of one, and whoever pops it from there, which is atomic, has it:
``None`` while it is nobody's; the request, from when the loop has taken the turn and sent a worker
until that has come, or somebody who closes the queue in its place; and nothing while it is served.
So neither the loop, to take the turn, nor a worker, to come for its request, needs the lock. Nor
does a worker, as a rule, to end it: where nothing follows, it takes the request off the queue, and
then gives the turn back, as the last thing that it does to the queue. What the loop adds meanwhile,
or could not take the turn for, it finds when it looks again after the worker's report, which always
follows.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

__all__ = ["QueueEndedError", "RequestQueue"]


class QueueEndedError(Exception):
    """Nothing of the connection may run any more."""


class RequestQueue:
    """Complete requests, the one in service first.

    Threads: any, as the module's docstring tells. While a worker has the turn everything is decided
    under ``lock``, but for what is told of there, and looks that need not be up to date.
    """

    # Slots, because there is one for each connection; a dict only where somebody replaces a
    # method.
    __slots__ = (
        "__dict__",
        "_served",
        "_turn",
        "in_service",
        "is_ended",
        "lock",
        "requests",
    )

    def __init__(self) -> None:
        self.lock = threading.Lock()
        #: The requests themselves; a list because outsiders look at it.
        self.requests: list[Any] = []
        #: Whether a worker was sent for the first one and is not done with it.
        self.in_service = False
        #: The first one, from when a worker was sent for it until that is done with it.
        self._served: Any | None = None
        #: See the module.
        self._turn: list[Any | None] = [None]
        #: Whether nothing of the connection may run any more.
        self.is_ended = False

    def __len__(self) -> int:
        return len(self.requests)

    def awaits_worker(self) -> bool:
        """Tell whether a worker was sent for the first one and has not come for it yet."""
        return any(request is not None for request in self._turn[:1])

    def is_idle(self) -> bool:
        """Tell whether nothing is queued or served, and something still may be."""
        with self.lock:
            return not (self.requests or self.in_service or self.is_ended)

    def append(self, request: Any) -> bool:
        """Add a complete request; false, and not added, when the queue has ended."""
        with self.lock:
            if self.is_ended:
                return False
            self.requests.append(request)
            return True

    def claim(self, may_serve: bool = True, arrived: Sequence[Any] = ()) -> Any | None:
        """Return the first request, if it is time to do something about it.

        A refused one is for the loop to answer. For any other the turn is taken, so that
        a worker may be sent; unless ``may_serve`` is false, then it waits.

        Args:
            may_serve: whether its response may be begun now.
            arrived: complete requests, to be added before.

        Raises:
            QueueEndedError: the queue has ended, and none of ``arrived`` was added.
        """
        if self.in_service:
            with self.lock:
                if self.in_service and not self.is_ended:
                    if arrived:
                        self.requests.extend(arrived)
                    return None
        # No worker has the turn. Whether the queue has ended is asked now: a worker says so, and
        # then gives the turn back.
        if self.is_ended:
            if arrived:
                raise QueueEndedError
            return None
        requests = self.requests
        if arrived:
            requests.extend(arrived)
        if not requests:
            return None
        first = requests[0]
        if first.error:
            return first
        if not may_serve:
            return None
        try:
            self._turn.pop()
        except IndexError:  # It is about to be given back, or somebody has come unsent.
            return None
        self.in_service = True
        self._served = first
        self._turn.append(first)
        return first

    def release(self) -> None:
        """Give the turn back without having served: the loop is to decide when."""
        with self.lock:
            self._turn.clear()
            self._give_back()

    def _give_back(self) -> None:
        self._served = None
        self.in_service = False
        self._turn.append(None)  # Last: from here on it is another's.

    def head(self) -> Any | None:
        """Return the first request, to serve; ``None`` when the connection ended meanwhile.

        To be called once for each turn.
        """
        try:
            request = self._turn.pop()
        except IndexError:
            return None
        requests = self.requests
        if request is not None and requests and requests[0] is request:
            return request
        with self.lock:
            if request is not None and self.is_ended:
                return request  # Whoever closed the queue has left it to the worker.
            if self.is_ended or not self.requests:
                self._give_back()
                return None
            # Outsiders have put another list in place of the queue; or nobody has sent for it, as
            # where channels are driven by hand.
            self.in_service = True
            self._served = self.requests[0]
            return self._served

    def finish(self, keep_alive: bool) -> tuple[bool, Sequence[Any]]:
        """End the first request's service.

        Args:
            keep_alive: whether the connection goes on.

        Returns:
            Whether the caller keeps the turn, for the next request, which a worker can
            serve at once; and the requests that will never run.
        """
        requests = self.requests
        if keep_alive and len(requests) == 1 and requests[0] is self._served and not self._turn:
            # Alone, as most are. Were the queue closed just now, it would come to the same.
            del requests[0]
            self._served = None
            self.in_service = False
            self._turn.append(None)
            return False, ()
        with self.lock:
            served = self._served
            self._turn.clear()
            if self.is_ended:
                self._served = None
                return False, ()
            requests = self.requests
            # Outsiders may have put another list in its place.
            if requests and (served is None or requests[0] is served):
                del requests[0]
            if not keep_alive:
                self._served = None
                return False, self._end_locked()
            if not requests or requests[0].error:
                self._give_back()
                return False, ()
            self.in_service = True
            self._served = requests[0]
            self._turn.append(requests[0])
            return True, ()

    def cancel(self) -> list[Any] | None:
        """End the queue in place of the worker that was sent, if it has not come yet.

        Returns:
            The requests that will never run; ``None``, and nothing is done, where no worker is
            to come: then the queue is the loop's to close, or that worker's who is there.
        """
        with self.lock:
            try:
                request = self._turn.pop()
            except IndexError:
                return None
            if request is None:
                self._turn.append(None)
                return None
            self._served = None
            return self._end_locked()

    def close(self) -> list[Any]:
        """End the queue; return the requests that will never run.

        One that a worker is serving is not among them: the worker releases it.
        """
        if self.is_ended and not self.requests:
            return []  # As it is where a response has ended the connection.
        with self.lock:
            served = self._served  # Before the copy: a worker takes it off first.
            try:
                self._turn.pop()
                served = self._served = None  # No worker has it, and none will.
            except IndexError:
                pass
            return [request for request in self._end_locked() if request is not served]

    def replace(self, requests: list[Any]) -> None:
        """Put another list in place of the queue, as outsiders do to drop it."""
        with self.lock:
            self.requests = requests

    def _end_locked(self) -> list[Any]:
        # In this order: whoever looks without the lock sees the end first.
        self.is_ended = True
        # A copy, since a worker may be about to take its own off.
        dropped, self.requests = list(self.requests[:]), []
        self.in_service = False
        return dropped
