"""The switch that ends an application, and that it never hits anything else."""

from __future__ import annotations

import sys
import threading
import types
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.looping import PATIENCE
from waitress import killing
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.killing import KillableApplication, KillSwitch, StuckRequestKilled, can_kill

pytestmark = pytest.mark.skipif(not can_kill(), reason="this Python cannot do it")


def spin() -> None:
    """Run for ever, in Python."""
    while True:
        pass


class Worker:
    """A thread that calls a function with its switch."""

    def __init__(self, function: Callable[[KillSwitch], Any]) -> None:
        self.made = threading.Event()
        self.outcome: Any = None
        self._function = function
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()
        assert self.made.wait(PATIENCE)

    def _run(self) -> None:
        self.switch = KillSwitch()
        self.made.set()
        try:
            self.outcome = self._function(self.switch)
        except BaseException as error:
            self.outcome = error

    def result(self) -> Any:
        self.thread.join(PATIENCE)
        assert not self.thread.is_alive()
        return self.outcome


def fire(switch: KillSwitch) -> None:
    """Fire as soon as the switch is armed."""
    while not switch.fire():
        pass


def begun(event: threading.Event, function: Callable[[], Any]) -> Callable[[], Any]:
    def run() -> Any:
        event.set()
        return function()

    return run


class TestASwitch:
    def test_ends_what_runs_under_it(self) -> None:
        worker = Worker(lambda switch: switch.run(spin))
        fire(worker.switch)
        assert isinstance(worker.result(), StuckRequestKilled)
        assert worker.switch.is_fired

    def test_cannot_be_taken_for_a_failure_of_the_application(self) -> None:
        assert not issubclass(StuckRequestKilled, Exception)

    def test_is_not_fired_before_or_after(self) -> None:
        switch = KillSwitch()
        assert not switch.fire()
        assert switch.run(lambda: 7) == 7
        assert not switch.fire()
        assert not switch.is_fired

    def test_is_fired_once(self) -> None:
        def go_on(switch: KillSwitch) -> list[str]:
            told = []

            def application() -> None:
                try:
                    spin()
                except StuckRequestKilled:
                    told.append("killed")
                caught.set()
                assert again.wait(PATIENCE)

            switch.run(application)
            return told

        caught, again = threading.Event(), threading.Event()
        worker = Worker(go_on)
        fire(worker.switch)
        assert caught.wait(PATIENCE)
        assert not worker.switch.fire()
        again.set()
        assert worker.result() == ["killed"]

    def test_passes_on_what_the_function_raises(self) -> None:
        with pytest.raises(LookupError):
            KillSwitch().run(lambda: {}["x"])

    def test_that_was_fired_too_late_takes_nothing_away(self) -> None:
        """The application waits outside of Python, and ends by itself."""

        def serve(switch: KillSwitch) -> Any:
            return switch.run(wait)

        begin, may_end = threading.Event(), threading.Lock()
        may_end.acquire()

        def wait() -> str:
            begin.set()
            # Called from C and returning to C: no step in Python comes between this and the
            # switch being disarmed.
            may_end.acquire()
            return "done"

        worker = Worker(serve)
        assert begin.wait(PATIENCE)
        fire(worker.switch)
        may_end.release()
        result = worker.result()
        # It comes at the first step, in the function; or, where there is none, not at all.
        assert result == "done" or isinstance(result, StuckRequestKilled)

    def test_fired_in_c_code_is_met_when_it_is_disarmed(self) -> None:
        lock = threading.Lock()
        lock.acquire()
        steps: list[str] = []

        class Watched(KillSwitch):
            def _disarm(self) -> bool:
                was = super()._disarm()
                steps.append("disarmed")
                return was

        def serve(switch: KillSwitch) -> Any:
            watched.append(Watched())
            armed.set()
            try:
                return watched[0].run(lock.acquire)
            finally:
                for _ in range(1000):  # Nothing comes here.
                    pass
                steps.append("went on")

        watched: list[KillSwitch] = []
        armed = threading.Event()
        worker = Worker(serve)
        assert armed.wait(PATIENCE)
        fire(watched[0])
        lock.release()
        result = worker.result()
        assert result is True or isinstance(result, StuckRequestKilled)
        assert steps[-1] == "went on"

    def test_that_hits_while_it_is_disarmed_takes_no_result_away(self) -> None:
        class Struck(KillSwitch):
            disarmed = 0

            def _disarm(self) -> bool:
                self.disarmed += 1
                if self.disarmed == 1:
                    raise StuckRequestKilled
                return super()._disarm()

        switch = Struck()
        assert switch.run(lambda: 5) == 5
        assert switch.disarmed == 2
        assert not switch.fire()

    def test_does_not_come_where_the_interpreter_cannot(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "ctypes", types.SimpleNamespace())
        assert not can_kill()
        monkeypatch.setitem(sys.modules, "ctypes", None)
        assert not can_kill()
        switch = KillSwitch()
        assert switch.run(switch.fire) is False


class TestAShield:
    def test_keeps_the_exception_out_of_the_server(self) -> None:
        def serve(switch: KillSwitch) -> Any:
            return switch.run(lambda: switch.shield(inner, switch))

        def inner(switch: KillSwitch) -> str:
            inside.set()
            assert may_leave.wait(PATIENCE)
            return "whole"

        inside, may_leave = threading.Event(), threading.Event()
        worker = Worker(serve)
        assert inside.wait(PATIENCE)
        assert not worker.switch.fire()
        may_leave.set()
        assert worker.result() == "whole"

    def test_is_armed_again_behind_it(self) -> None:
        def application(switch: KillSwitch) -> None:
            switch.shield(lambda: None)
            spin()

        worker = Worker(lambda switch: switch.run(application, switch))
        fire(worker.switch)
        assert isinstance(worker.result(), StuckRequestKilled)

    def test_is_not_armed_by_a_call_after_the_end(self) -> None:
        switch = KillSwitch()
        switch.run(lambda: None)
        assert switch.shield(lambda: 3) == 3
        assert not switch.fire()

    def test_is_a_plain_call_in_other_threads(self) -> None:
        """The application's helper may write, while the application itself waits for it."""

        def application(switch: KillSwitch) -> Any:
            return Worker(lambda _: switch.shield(lambda: switch._is_armed)).result()

        worker = Worker(lambda switch: switch.run(application, switch))
        assert worker.result() is True

    def test_raises_what_was_under_way(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(KillSwitch, "_disarm", lambda self: True)
        switch = KillSwitch()
        switch._arm()
        with pytest.raises(StuckRequestKilled):
            switch.shield(lambda: None)


class TestMeetingWhatIsPending:
    def test_tells_whether_there_was_something(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert killing._meet_pending() is False

        def stepping(count: int) -> Iterator[int]:
            yield 1
            raise StuckRequestKilled

        monkeypatch.setattr(killing, "range", stepping, raising=False)
        assert killing._meet_pending() is True


def start_response(status: str, headers: list[Any], exc_info: Any = None) -> Any:
    return lambda data: ("written", data)


class TestAKillableApplication:
    def test_is_as_it_was_where_no_request_is_known(self) -> None:
        def application(environ: Any, start: Any) -> Any:
            return environ, start

        wrapped = KillableApplication(application, lambda: None)
        environ: dict[str, Any] = {}
        assert wrapped(environ, start_response) == (environ, start_response)

    @pytest.mark.parametrize("result", [[b"a"], (b"a",), ReadOnlyFileBasedBuffer(None)])  # type: ignore[arg-type]
    def test_gives_back_what_runs_no_code_as_it_is(self, result: Any) -> None:
        wrapped = KillableApplication(lambda environ, start: result, KillSwitch)
        assert wrapped({}, start_response) is result

    def test_can_be_iterated_and_closed(self) -> None:
        class Result:
            closed = 0

            def __iter__(self) -> Iterator[bytes]:
                yield from (b"a", b"b")

            def close(self) -> None:
                self.closed += 1

        result = Result()
        got = KillableApplication(lambda environ, start: result, KillSwitch)({}, start_response)
        assert not hasattr(got, "__len__")
        assert list(got) == [b"a", b"b"]
        got.close()
        assert result.closed == 1

    def test_tells_how_many_chunks_there_are(self) -> None:
        got = KillableApplication(lambda environ, start: {b"a": 1}, KillSwitch)({}, start_response)
        assert len(got) == 1
        assert list(got) == [b"a"]
        got.close()

    def test_gets_a_start_response_and_a_write_that_are_shielded(self) -> None:
        def application(environ: Any, start: Any) -> Any:
            written.append(start("200 OK", [], exc_info=None)(b"x"))
            fired.append(switch.fire)
            return []

        written: list[Any] = []
        fired: list[Any] = []
        switch = KillSwitch()

        def start(status: str, headers: Any, exc_info: Any = 1) -> Any:
            assert exc_info is None
            assert not switch.fire()

            def write(data: bytes) -> Any:
                assert not switch.fire()
                return data

            return write

        KillableApplication(application, lambda: switch)({}, start)
        assert written == [b"x"]


def race(repetitions: int) -> tuple[int, int]:
    """Fire at the moment at which the application ends, many times; count the outcomes."""
    rounds: list[tuple[KillSwitch, threading.Event]] = []
    ready = threading.Semaphore(0)
    counts = {"killed": 0, "whole": 0}
    stray: list[BaseException] = []

    def application(environ: Any, start: Any) -> Iterator[bytes]:
        start("200 OK", [])
        for _ in range(10):
            yield b"x"

    def work() -> None:
        try:
            for _ in range(repetitions):
                switch = KillSwitch()
                rounds.append((switch, threading.Event()))
                ready.release()
                try:
                    got = KillableApplication(application, lambda s=switch: s)({}, start_response)  # type: ignore[misc]
                    assert len(list(got)) == 10
                    got.close()
                    counts["whole"] += 1
                except StuckRequestKilled:
                    counts["killed"] += 1
                # The next request: nothing may come here.
                for _ in range(50):
                    pass
        except BaseException as error:
            stray.append(error)
        finally:
            ready.release()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    for number in range(repetitions):
        assert ready.acquire(timeout=PATIENCE)
        if stray:
            break
        switch = rounds[number][0]
        # At another moment each time, the last steps of the application included.
        for _ in range(number % 200):
            pass
        while not switch.fire() and not ready._value:
            pass
    worker.join(PATIENCE)
    assert not worker.is_alive()
    assert stray == []
    return counts["killed"], counts["whole"]


@pytest.mark.stress
@pytest.mark.skipif(
    sys.gettrace() is not None,
    reason="the lock of coverage's own, taken for each line, does not survive it",
)
def test_exception_never_hits_what_comes_after_the_application() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        killed, whole = race(2000)
    finally:
        sys.setswitchinterval(interval)
    # How many of each is for the scheduler to say.
    assert killed + whole == 2000
