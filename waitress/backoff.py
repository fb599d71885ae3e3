"""How often to try something that is worth while at times only.

Row 0: imports nothing of the package.
"""

from __future__ import annotations

__all__ = ["Backoff"]


class Backoff:
    """Lets go by more and more occasions while what is done on them is in vain.

    Args:
        first: occasions that go by after the first time that it was in vain.
        most: that go by at the most.

    Threads: one.
    """

    def __init__(self, first: int, most: int) -> None:
        self._first = first
        self._most = most
        #: Occasions to go by from now on, and how many it was the last time, less one for
        #: each time that it was worth while since.
        self._left = self._last = 0

    def take_occasion(self) -> bool:
        """Say whether to try on the next occasion, and then to :meth:`note` how it went."""
        if self._left:
            self._left -= 1
            return False
        return True

    def note(self, worth_while: bool) -> None:
        """Take notice of whether it was."""
        if worth_while:
            if self._last:
                self._last -= 1
        else:
            self._left = self._last = min(2 * self._last + self._first, self._most)
