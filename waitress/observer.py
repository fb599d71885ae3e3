"""The one seam through which the life of a request can be watched.

The server tells an :class:`Observer` what happens; it never asks it anything, and no
other module knows who listens. The default observer listens to nothing and costs one
attribute test per event: callers ask :attr:`Observer.listening` first, and no clock is
read and no argument is built when it is false.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

__all__ = ["NO_OBSERVER", "Observer"]


class Observer:
    """Receive the events of channels and requests; every method does nothing here.

    Subclasses set :attr:`listening` and override what they need. Requests are told by
    the request object itself, which carries ``request_id``; channels by the channel,
    which carries ``channel_id``. Times are up to the listener, which has its own clock:
    each method is called at the moment of the event.

    Threads: methods marked *loop* are called by the loop's thread, methods marked
    *worker* by the worker that serves the request. A method must not raise, and must
    not block: it stands in the path of every request.
    """

    #: Whether anybody listens. When false, only :meth:`refused` is called.
    listening: bool = False

    def channel_created(self, channel: Any) -> None:
        """Tell that a connection was accepted (loop)."""

    def request_created(self, channel: Any, request: Any) -> None:
        """Tell that a whole head was parsed; the request has its id now (loop)."""

    def requests_queued(self, channel: Any, requests: Sequence[Any]) -> None:
        """Tell which complete requests one read of the connection queued (loop)."""

    def request_started(self, request: Any) -> None:
        """Tell that a worker took the request (worker; loop for an error's answer)."""

    def application_started(self, request: Any) -> None:
        """Tell that the WSGI application is about to be called (worker)."""

    def response_started(self, request: Any, status: str) -> None:
        """Tell that the application called ``start_response`` (worker)."""

    def application_finished(self, request: Any) -> None:
        """Tell that the iterable is exhausted and closed (worker)."""

    def request_serviced(self, request: Any) -> None:
        """Tell that all bytes of the response are in the output buffer (worker, loop)."""

    def request_finished(self, request: Any) -> None:
        """Tell that the last byte of the response was handed to the kernel (loop)."""

    def request_cancelled(self, request: Any) -> None:
        """Tell that the request never starts: an earlier one ended the connection."""

    def refused(
        self,
        reason: str,
        peer: Any,
        channel_id: int = 0,
        request_id: int = 0,
        sample: bytes | str = b"",
    ) -> None:
        """Tell that something of a client's was refused (any thread).

        The one method that is called whether :attr:`listening` or not: refusals are rare,
        and always of interest to somebody.

        Args:
            reason: the rule that was broken, e.g. ``obs-fold``;
                :attr:`waitress.utilities.Error.reject_reason`. Empty: it has no name.
            peer: the peer's address: a tuple of host and port, or a text.
            channel_id: the number of the connection; 0 if there is none.
            request_id: that of the request; 0 if there is none.
            sample: what was refused, or its beginning; text is that of an environ.
        """

    def channel_closed(self, channel: Any) -> None:
        """Tell that the connection is gone (loop)."""


#: The observer of a server that nobody listens to.
NO_OBSERVER = Observer()
