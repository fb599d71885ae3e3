"""One observer that tells many: all of them, in order, and none at the expense of another."""

from __future__ import annotations

import logging
import sys
from typing import Any

import pytest

from waitress.observer import NO_OBSERVER, FirstFailures, Observer, Observers, Refusal

REFUSAL = Refusal("reason", "peer", 1, 2, b"sample")

#: Each event with arguments of the kind that it has.
EVENTS: dict[str, tuple[Any, ...]] = {
    "channel_created": ("channel",),
    "head_begun": ("channel", "request"),
    "request_created": ("channel", "request"),
    "requests_queued": ("channel", ["request"]),
    "request_started": ("request",),
    "application_started": ("request",),
    "environ_built": ("request", {}),
    "response_started": ("request", "200 OK"),
    "head_written": ("request", "200 OK", b"HTTP/1.1 200 OK\r\n\r\n"),
    "response_leaving": ("request",),
    "iterable_exhausted": ("request",),
    "application_finished": ("request",),
    "request_failed": ("request", None),
    "request_serviced": ("request",),
    "request_finished": ("request",),
    "request_cancelled": ("request",),
    "refused": (REFUSAL,),
    "channel_closed": ("channel",),
}


class Told(Observer):
    """Keeps what it is told."""

    def __init__(self, listening: bool = True) -> None:
        self.listening = listening
        self.calls: list[tuple[str, tuple[Any, ...]]] = []
        for event in EVENTS:
            setattr(self, event, self._keeper(event))

    def _keeper(self, event: str) -> Any:
        def keep(*args: Any) -> None:
            self.calls.append((event, args))

        return keep


class Failing(Observer):
    """Fails with each event of which it is told."""

    listening = True

    def request_started(self, request: Any) -> None:
        raise LookupError(request)

    def refused(self, refusal: Refusal) -> None:
        raise LookupError("refused")


class Telling(Observer):
    """Raises what it was given."""

    listening = True

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def request_started(self, request: Any) -> None:
        raise self.error

    def requests_queued(self, channel: Any, requests: Any) -> None:
        raise self.error


def test_refusal_of_which_little_is_known_needs_no_more() -> None:
    refusal = Refusal("reason", "peer")
    assert (refusal.channel_id, refusal.request_id, refusal.sample) == (0, 0, b"")


def test_table_of_events_is_whole() -> None:
    methods = {name for name in vars(Observer) if not name.startswith("_")}
    assert methods - {"listening"} == set(EVENTS)


@pytest.mark.parametrize("event", EVENTS)
def test_default_observer_takes_each_event_and_does_nothing(event: str) -> None:
    assert getattr(NO_OBSERVER, event)(*EVENTS[event]) is None


class TestObservers:
    @pytest.mark.parametrize("event", EVENTS)
    def test_tell_all_of_each_event(self, event: str):
        first, second = Told(), Told()
        getattr(Observers(first, second), event)(*EVENTS[event])
        assert first.calls == second.calls == [(event, EVENTS[event])]

    def test_listen_when_any_does(self):
        assert not Observers().listening
        assert not Observers(Told(listening=False)).listening
        assert Observers(Told(listening=False), Told()).listening

    def test_tell_those_that_do_not_listen_of_refusals_only(self):
        deaf = Told(listening=False)
        observers = Observers(deaf, Told())
        for event, args in EVENTS.items():
            getattr(observers, event)(*args)
        assert [event for event, _ in deaf.calls] == ["refused"]

    def test_tell_in_the_order_of_subscription(self):
        order: list[int] = []
        observers = Observers()
        for number in range(3):
            told = Told()
            told.request_started = lambda request, number=number: order.append(number)
            observers.subscribe(told)
        observers.request_started("request")
        assert order == [0, 1, 2]

    def test_know_each_but_once(self):
        told = Told()
        observers = Observers(told)
        observers.subscribe(told)
        observers.request_started("request")
        assert len(told.calls) == 1
        assert observers.subscribers == (told,)

    def test_forget(self):
        told, other = Told(), Told(listening=False)
        observers = Observers(told, other)
        observers.unsubscribe(told)
        observers.unsubscribe(told)
        observers.request_started("request")
        assert (told.calls, observers.listening) == ([], False)
        assert observers.subscribers == (other,)

    def test_do_not_call_what_does_nothing(self):
        """Most subscribers care for a few events."""
        assert Observers(Failing()).request_finished == NO_OBSERVER.request_finished
        assert Observers().request_started == NO_OBSERVER.request_started

    def test_call_the_method_of_one_directly(self):
        """One call more than without them: who watches pays for what it does itself."""
        told = Told()
        observers = Observers(Told(listening=False), told)
        calls: list[str] = []

        def profile(frame: Any, event: str, arg: Any) -> None:
            if event == "call":
                calls.append(frame.f_code.co_name)

        sys.setprofile(profile)
        observers.request_started("request")
        sys.setprofile(None)
        assert calls[1:] == ["keep"]
        assert told.calls == [("request_started", ("request",))]

    def test_go_on_when_one_fails_and_log_that_once_each(self, caplog: Any):
        told = Told()
        observers = Observers(Failing(), told, Failing())
        for _ in range(3):
            observers.request_started("request")
            observers.refused(REFUSAL)
        assert len(told.calls) == 6
        assert [(each.name, each.levelno) for each in caplog.records] == [
            ("waitress", logging.ERROR)
        ] * 2
        assert caplog.text.count("LookupError: request") == 2
        assert "further failures are not logged" in caplog.text

    def test_log_again_for_one_that_comes_back(self, caplog: Any):
        failing = Failing()
        observers = Observers(failing)
        observers.request_started("request")
        observers.unsubscribe(failing)
        observers.subscribe(failing)
        observers.request_started("request")
        assert len(caplog.records) == 2

    @pytest.mark.parametrize("event", ["request_started", "requests_queued"])
    @pytest.mark.parametrize("error", [SystemExit, GeneratorExit, MemoryError])
    def test_log_whatever_is_raised(self, error: type[BaseException], event: str, caplog: Any):
        telling = Telling(error)
        observers = Observers(telling, telling, Telling(error))
        for _ in range(3):
            getattr(observers, event)(*EVENTS[event])
        assert [each.exc_info[0] for each in caplog.records] == [error] * 2

    @pytest.mark.parametrize("event", ["request_started", "requests_queued"])
    def test_let_an_interruption_pass(self, event: str, caplog: Any):
        """It is the operator's, wherever it happens to strike."""
        with pytest.raises(KeyboardInterrupt):
            getattr(Observers(Telling(KeyboardInterrupt)), event)(*EVENTS[event])
        assert caplog.records == []


def test_failures_of_different_ones_are_told_apart(caplog: Any) -> None:
    failures = FirstFailures()
    first, second = object(), object()
    for who in (first, first, second):
        try:
            raise LookupError
        except LookupError:
            failures.tell(who)
    assert len(caplog.records) == 2
