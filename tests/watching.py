"""Help for the tests of those who watch: what they were told, kept and awaited."""

from __future__ import annotations

import threading
from typing import Any

from tests.looping import PATIENCE
from waitress.events import Event
from waitress.timeline import TIMES, Timeline


class KeptEvents:
    """A callable for ``on_event`` that keeps what it is given."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._grown = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._grown:
            self.events.append(event)
            self._grown.notify_all()

    def await_event(self, name: str, count: int = 1) -> None:
        """Return once so many events of a name have come."""
        with self._grown:
            assert self._grown.wait_for(
                lambda: sum(event.name == name for event in self.events) >= count, PATIENCE
            ), self.told()

    def told(self, *without: str) -> list[str]:
        """Return the events in short words, numbered as on the first connection's first."""
        with self._grown:
            events = list(self.events)
        first = min((getattr(event, "request_id", 1 << 60) for event in events), default=0)
        words = []
        for event in events:
            ids = getattr(event, "request_ids", None) or [getattr(event, "request_id", None)]
            numbers = ",".join(str(each - first + 1) for each in ids if each is not None)
            if event.name not in without:
                words.append(f"{event.name} {numbers}".strip())
        return words


class KeptTimelines:
    """A listener that keeps the timelines, and in which thread each was told."""

    def __init__(self) -> None:
        self.timelines: list[Timeline] = []
        self.threads: list[str] = []
        self._grown = threading.Condition()

    def timeline_ended(self, timeline: Timeline) -> None:
        with self._grown:
            self.timelines.append(timeline)
            self.threads.append(threading.current_thread().name)
            self._grown.notify_all()

    def await_ends(self, count: int) -> list[Timeline]:
        """Return the timelines once there are so many."""
        with self._grown:
            assert self._grown.wait_for(lambda: len(self.timelines) >= count, PATIENCE)
            return list(self.timelines)

    @property
    def codes(self) -> list[str]:
        """The termination codes; no request may have ended twice."""
        assert len({id(each) for each in self.timelines}) == len(self.timelines)
        assert all(each.ended is not None for each in self.timelines)
        return [each.termination for each in self.timelines]

    @property
    def only(self) -> Timeline:
        """The one timeline that there is."""
        (timeline,) = self.timelines
        return timeline


def instants(timeline: Any, zero: float = 0.0) -> dict[str, float]:
    """Return the instants that there were, in seconds since ``zero``."""
    found = {name: getattr(timeline, name) for name in TIMES}
    return {name: value - zero for name, value in found.items() if value is not None}
