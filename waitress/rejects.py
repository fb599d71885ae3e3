"""What was refused, from whom and why: one line in a log, and a count.

Owns the logger ``waitress.reject``. A refusal is told at INFO, so that nothing is shown
unless somebody asks for it; it is counted in any case. The lines are safe to read with any
tool: whatever a client sent is cut short and escaped, and cannot begin a line of its own.

Row 1: imports observer and peers.
"""

from __future__ import annotations

import logging
import threading

from waitress.observer import Observer, Refusal
from waitress.peers import peer_text

__all__ = ["SAMPLE_BYTES", "RejectCounts", "Rejects", "escaped", "reject_logger"]

#: Refusals alone, so that they can be shown, or sent elsewhere, alone.
reject_logger = logging.getLogger("waitress.reject")

#: How much of what was refused is told, in bytes, before they are escaped.
SAMPLE_BYTES = 128

#: How many different reasons are counted one by one.
_MOST_REASONS = 256

#: What reasons beyond these are counted as.
_OTHER = "other"


class RejectCounts:
    """How often each reason was the reason of a refusal.

    Bounded, although the reasons are names in our source: subclasses of the parser give
    reasons too, and one might be made of what a client sent.

    Threads: any; the counts stand under the object's own lock.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # guarded by _lock:
        self._counts: dict[str, int] = {}

    def add(self, reason: str) -> None:
        """Count one refusal."""
        with self._lock:
            if reason not in self._counts and len(self._counts) >= _MOST_REASONS:
                reason = _OTHER
            self._counts[reason] = self._counts.get(reason, 0) + 1

    def snapshot(self) -> dict[str, int]:
        """Return the number of refusals by reason, as of now; the caller's to keep."""
        with self._lock:
            return self._counts.copy()


class Rejects(Observer):
    """Tells of refusals, and of nothing else.

    Threads: any.
    """

    # It is asked for several times in each request, and CPython finds what stands in a slot at
    # once, but not a default of the class.
    __slots__ = ("listening",)

    def __init__(self, logger: logging.Logger = reject_logger) -> None:
        self.logger = logger
        self.counts = RejectCounts()
        self.listening = False

    def refused(self, refusal: Refusal) -> None:
        """Count a refusal, and log it where that is wanted."""
        reason = (refusal.reason or _OTHER)[:SAMPLE_BYTES]
        self.counts.add(reason)
        if self.logger.isEnabledFor(logging.INFO):
            self.logger.info(
                'refused: reason=%s peer=%s channel=%s request=%s sample="%s"%s',
                _as_word(reason),
                _as_word(peer_text(refusal.peer)),
                refusal.channel_id or "-",
                refusal.request_id or "-",
                escaped(refusal.sample),
                "..." if len(refusal.sample) > SAMPLE_BYTES else "",
            )


def escaped(sample: bytes | str) -> str:
    r"""Return the beginning of a sample as printable ASCII, to stand between double quotes.

    All else becomes ``\n``, ``\x1b`` and the like, as in a literal of Python; the quote and
    the backslash have a backslash before them.
    """
    start = sample[:SAMPLE_BYTES]
    text = start if isinstance(start, str) else bytes(start).decode("latin-1")
    return text.encode("unicode_escape").decode("ascii").replace('"', '\\"')


def _as_word(text: str) -> str:
    """Escape the blank too, which ends a value that has no quotes around it."""
    return escaped(text).replace(" ", "\\x20") or "-"
