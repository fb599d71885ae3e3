"""The parsed requests of one connection, between the loop and the worker.

Owns the order of the requests and the answer to "whose turn is it": at most one request
of a connection is in service, and it is the first of the queue.

Who calls::

    loop    append(request)        a request is complete
    loop    claim(.., requests)    some are complete; what is to be done about the first one?
    worker  head()                 the request to serve
    worker  finish(keep_alive)     it is served: go on with the next, or was it the last?
    loop    finish(False)          it answered an error itself
    loop    close()                the connection is gone
    any     cancel()               no worker will come for the request that one was sent for

What cannot happen: a request runs after one that ended the connection, because a worker says
that the queue has ended before it gives the turn back, and the loop looks after it has seen that;
two workers serve one connection.

Whoever has the turn needs no lock, as long as nobody else has a part in it. While no worker has
it, the loop alone goes on with the queue; whoever cancels from another thread has taken a turn
from a worker, or leaves it to the loop. A worker needs the lock neither to take its request nor,
as a rule, to end it. The request that it was sent for stands in a list of one, and is popped from
there, which is atomic: either the worker has it then, or whoever closes the queue. And where
nothing follows a request, its end decides nothing: the worker takes it off the queue and then
gives the turn back. Whatever the loop adds meanwhile, by the lock, it finds when it looks again
after the worker's report, which always follows.

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

    Threads: any, as the module's docstring tells; what several may decide, while a worker has the
    turn, is decided under ``lock``, but for looks that need not be up to date.
    """

    # Slots, because there is one for each connection; a dict only where somebody replaces a
    # method.
    __slots__ = (
        "__dict__",
        "_sent_for",
        "_served",
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
        #: The first one, from when a worker was sent for it until that is done with it; and
        #: the same in a list, until the worker has come: it is the worker's to release then.
        self._served: Any | None = None
        self._sent_for: list[Any] = []
        #: Whether nothing of the connection may run any more.
        self.is_ended = False

    def __len__(self) -> int:
        return len(self.requests)

    def awaits_worker(self) -> bool:
        """Tell whether a worker was sent for the first one and has not come for it yet."""
        return bool(self._sent_for)

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

    def claim(self, may_serve: bool = True, arrived: list[Any] | None = None) -> Any | None:
        """Return the first request, if it is time to do something about it.

        A refused one is for the loop to answer. For any other the turn is taken, so that
        a worker may be sent; unless ``may_serve`` is false, then it waits.

        Args:
            may_serve: whether its response may be begun now.
            arrived: complete requests, to be added before; the list is the queue's from then on.

        Raises:
            QueueEndedError: the queue has ended, and none of ``arrived`` was added.
        """
        if self.in_service:
            with self.lock:
                if self.in_service and not self.is_ended:
                    if arrived:
                        self.requests.extend(arrived)
                    return None
        # No worker has the turn, and so nobody but the loop, which is here, goes on with the
        # queue. Whether it has ended is asked now: a worker says so, and then gives the turn back.
        if self.is_ended:
            if arrived:
                raise QueueEndedError
            return None
        requests = self.requests
        if not requests:
            if not arrived:
                return None
            self.requests = requests = arrived
        elif arrived:
            requests.extend(arrived)
        first = requests[0]
        if first.error:
            return first
        if not may_serve:
            return None
        self._served = first
        self._sent_for.append(first)
        self.in_service = True
        return first

    def release(self) -> None:
        """Give the turn back without having served: the loop is to decide when."""
        with self.lock:
            self.in_service = False
            self._sent_for.clear()
            self._served = None

    def head(self) -> Any | None:
        """Return the first request, to serve; ``None`` when the connection ended meanwhile.

        To be called once for each turn.
        """
        try:
            request = self._sent_for.pop()
        except IndexError:
            return self._head_unsent()
        requests = self.requests
        if requests and requests[0] is request:
            return request
        with self.lock:
            if self.is_ended:
                return request  # Whoever closed the queue has left it to the worker.
            # Outsiders have put another list in its place.
            self._served = self.requests[0] if self.requests else None
            self.in_service = self._served is not None
            return self._served

    def _head_unsent(self) -> Any | None:
        """Return the first request though nobody was sent for it; ``None`` if it is another's.

        For those who drive channels by hand.
        """
        with self.lock:
            if self.is_ended or self.in_service or not self.requests:
                return None
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
        if keep_alive and len(requests) == 1 and requests[0] is self._served and not self._sent_for:
            # Alone, as most are. Were the queue closed just now, it would come to the same.
            del requests[0]
            self._served = None
            self.in_service = False
            return False, ()
        with self.lock:
            served, self._served = self._served, None
            self._sent_for.clear()
            if self.is_ended:
                return False, ()
            requests = self.requests
            # Outsiders may have put another list in its place.
            if requests and (served is None or requests[0] is served):
                del requests[0]
            if not keep_alive:
                return False, self._end_locked()
            self.in_service = has_turn = bool(requests) and not requests[0].error
            if has_turn:
                self._served = requests[0]
                self._sent_for.append(requests[0])
            return has_turn, ()

    def cancel(self) -> list[Any] | None:
        """End the queue in place of the worker that was sent, if it has not come yet.

        Returns:
            The requests that will never run; ``None``, and nothing is done, where no worker is
            to come: then the queue is the loop's to close, or that worker's who is there.
        """
        try:
            self._sent_for.pop()
        except IndexError:
            return None
        self._served = None
        return self.close()

    def close(self) -> list[Any]:
        """End the queue; return the requests that will never run.

        One that a worker is serving is not among them: the worker releases it.
        """
        if self.is_ended and not self.requests:
            return []  # As it is where a response has ended the connection.
        with self.lock:
            served = self._served  # Before the copy: a worker takes it off first.
            try:
                self._sent_for.pop()
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
