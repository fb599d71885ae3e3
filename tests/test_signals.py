"""Signals that stop a server: which are taken, what they order, what is given back."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Wire
from tests.fakes import get
from tests.looping import InThread, needs_stacks
from waitress import create_server, serve
from waitress.server import BaseWSGIServer
from waitress.signals import StopSignals, sigterm_ends

ROOT = Path(__file__).parent.parent


class Stopped:
    """Takes down what it is ordered."""

    def __init__(self) -> None:
        self.orders: list[tuple[float | None, float | None, str]] = []

    def order(
        self, timeout: float | None = None, delay: float | None = None, reason: str = ""
    ) -> None:
        self.orders.append((timeout, delay, reason))


@contextmanager
def stopping(stopped: Stopped) -> Iterator[None]:
    with StopSignals() as signals:
        signals.stop(stopped)
        yield


@pytest.fixture(autouse=True)
def handlers_of_this_process() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize(
    ("number", "order"),
    [
        (signal.SIGTERM, (None, None, "SIGTERM")),
        (signal.SIGINT, (5, 0, "SIGINT")),
    ],
)
def test_first_signal_orders_the_end(number: int, order: Any) -> None:
    stopped = Stopped()
    with stopping(stopped):
        signal.raise_signal(number)
    assert stopped.orders == [order]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_second_signal_orders_it_at_once(second: signal.Signals) -> None:
    stopped = Stopped()
    with stopping(stopped):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(second)
    assert stopped.orders[1] == (0, 0, f"{second.name}, again")


class EndedError(Exception):
    """The process would be gone."""


@pytest.fixture
def as_process_1(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(status: int) -> None:
        raise EndedError(status)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "_exit", end)


@pytest.mark.usefixtures("as_process_1")
def test_sigterm_ends_process_1_before_it_serves() -> None:
    """The system would drop the signal, and the process would begin to serve."""
    with pytest.raises(EndedError, match="143"), sigterm_ends():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


@pytest.mark.usefixtures("as_process_1")
def test_handler_that_an_application_sets_as_process_1_stays() -> None:
    def own(number: int, frame: Any) -> None:
        raise NotImplementedError

    with sigterm_ends():
        signal.signal(signal.SIGTERM, own)
    with sigterm_ends():
        assert signal.getsignal(signal.SIGTERM) is own


@pytest.mark.usefixtures("as_process_1")
def test_process_1_takes_no_signal_in_another_thread() -> None:
    seen = []

    def start() -> None:
        with sigterm_ends():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=start)
    thread.start()
    thread.join(PATIENCE)
    assert seen == [signal.SIG_DFL]


def test_other_processes_leave_sigterm_to_the_system_before_they_serve() -> None:
    with sigterm_ends():
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_are_given_back() -> None:
    with stopping(Stopped()):
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_handlers_are_given_back_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), stopping(Stopped()):
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_handlers_of_others_are_left_alone() -> None:
    came: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: came.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    stopped = Stopped()
    with stopping(stopped):
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert came == [signal.SIGTERM]
    assert stopped.orders == []


def test_handler_that_the_application_sets_meanwhile_stays() -> None:
    def own(number: int, frame: Any) -> None: ...

    with stopping(Stopped()):
        signal.signal(signal.SIGTERM, own)
    assert signal.getsignal(signal.SIGTERM) is own


def test_other_threads_take_none() -> None:
    def run() -> Any:
        with stopping(Stopped()):
            return signal.getsignal(signal.SIGTERM)

    assert InThread(run).result() is signal.SIG_DFL


def test_break_is_taken_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows; here another signal stands for it."""
    monkeypatch.setattr(signal, "SIGBREAK", signal.SIGUSR2, raising=False)
    stopped = Stopped()
    with stopping(stopped):
        signal.raise_signal(signal.SIGUSR2)
    assert stopped.orders == [(5, 0, "SIGUSR2")]
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


# -- while the server is made ----------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_waits_until_the_server_is_made(number: int) -> None:
    before = signal.getsignal(number)
    stopped = Stopped()
    with StopSignals() as signals:
        signal.raise_signal(number)
        assert stopped.orders == []
        signals.stop(stopped)
        assert len(stopped.orders) == 1
        assert stopped.orders[0][2] == signal.Signals(number).name
        signal.raise_signal(number)
        assert stopped.orders[1][:2] == (0, 0)
    assert signal.getsignal(number) is before


def test_second_ctrl_c_does_not_wait() -> None:
    def interrupt_twice() -> None:
        for _ in range(2):
            signal.raise_signal(signal.SIGINT)
        raise AssertionError("both wait")

    with pytest.raises(KeyboardInterrupt), StopSignals():
        interrupt_twice()


def test_signal_that_waited_comes_when_the_making_fails() -> None:
    def fail(number: int) -> None:
        signal.raise_signal(number)
        raise ZeroDivisionError

    with pytest.raises(KeyboardInterrupt), StopSignals():
        fail(signal.SIGINT)
    with pytest.raises(ZeroDivisionError), StopSignals():
        raise ZeroDivisionError
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_that_comes_while_its_handler_is_given_back_is_not_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_handler = signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        if handler is signal.default_int_handler:
            signal.raise_signal(signal.SIGINT)
        return set_handler(number, handler)

    stopped = Stopped()
    with StopSignals() as signals:
        signals.stop(stopped)
        monkeypatch.setattr(signal, "signal", interrupted)
    assert [reason for *_, reason in stopped.orders] == ["SIGINT"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_signal_amid_the_taking_of_others_leaves_none_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_handler = signal.signal

    def interrupted(number: int, handler: Any) -> Any:
        before = set_handler(number, handler)
        if number == signal.SIGTERM and handler is not signal.SIG_DFL:
            signal.raise_signal(signal.SIGINT)
        return before

    monkeypatch.setattr(signal, "signal", interrupted)
    with pytest.raises(KeyboardInterrupt), StopSignals():
        raise AssertionError("it was interrupted before")
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_no_signals_are_taken_where_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a subinterpreter, whose main thread may set no handlers either."""

    def refuse(number: int, handler: Any) -> Any:
        raise ValueError("signal only works in main thread of the main interpreter")

    stopped = Stopped()
    with monkeypatch.context() as patched:
        patched.setattr(signal, "signal", refuse)
        with StopSignals() as signals:
            signals.stop(stopped)
    assert stopped.orders == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork()")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_what_the_application_forks(number: int) -> None:
    """As multiprocessing's terminate() wants; they are not for the child's copy of the server."""
    stopped = Stopped()
    with stopping(stopped):
        child = os.fork()
        if child == 0:
            try:
                signal.raise_signal(number)
            finally:
                os._exit(len(stopped.orders))
        _, status = os.waitpid(child, 0)
        assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
    if number == signal.SIGTERM:
        assert os.waitstatus_to_exitcode(status) == -signal.SIGTERM
    else:  # KeyboardInterrupt, and nobody was ordered anything.
        assert os.waitstatus_to_exitcode(status) == 0


def test_signals_of_another_process_than_the_server_s_take_their_course(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stopped = Stopped()
    with stopping(stopped):
        monkeypatch.setattr(os, "getpid", lambda: -1)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert stopped.orders == []


def test_nobody_else_s_signals_wait_and_none_in_other_threads() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    stopped = Stopped()
    with StopSignals() as signals:
        signal.raise_signal(signal.SIGTERM)
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_IGN
        signals.stop(stopped)
    assert stopped.orders == []

    def run() -> Any:
        with StopSignals():
            return signal.getsignal(signal.SIGINT)

    assert InThread(run).result() is signal.default_int_handler


def test_handler_that_is_set_while_the_server_is_made_stays(no_leaks: None) -> None:
    came: list[int] = []

    def own(number: int, frame: Any) -> None:
        came.append(number)
        made[0].shutdown(5)

    made: list[Any] = []

    def make(app: Any, **kw: Any) -> Any:
        signal.signal(signal.SIGTERM, own)
        made.append(create_server(app, host="127.0.0.1", port=0))
        made[0].trigger.pull_trigger(lambda: signal.raise_signal(signal.SIGTERM))
        return made[0]

    serve(hello, _server=make, _quiet=True)
    assert came == [signal.SIGTERM]
    assert signal.getsignal(signal.SIGTERM) is own


def test_signal_comes_after_all_where_the_server_takes_none(no_leaks: None) -> None:
    def make(app: Any, **kw: Any) -> Any:
        server = create_server(app, host="127.0.0.1", port=0, handle_signals=False)
        signal.raise_signal(signal.SIGINT)
        return server

    with pytest.raises(KeyboardInterrupt):
        serve(hello, _server=make, _quiet=True)


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no unix sockets")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_between_binding_and_serving_leaves_no_file(
    number: int, tmp_path: Path, no_leaks: None
) -> None:
    """It comes as soon as the address is bound, before create_server() has returned."""
    path = tmp_path / "s"

    def make(app: Any, **kw: Any) -> Any:
        server = create_server(app, **kw)
        assert path.exists()
        signal.raise_signal(number)
        return server

    serve(hello, unix_socket=str(path), _server=make, _quiet=True)
    assert not path.exists()


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="the system has no unix sockets")
def test_ctrl_c_that_is_not_ours_leaves_no_file_either(
    tmp_path: Path, no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "s"

    def interrupt(*_: Any) -> None:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(BaseWSGIServer, "print_listen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        serve(hello, unix_socket=str(path), handle_signals=False)
    assert not path.exists()


def test_signal_for_the_server_of_somebody_else_is_his() -> None:
    class Foreign:
        def __init__(self, app: Any) -> None:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        serve(hello, _server=Foreign, _quiet=True)


def test_server_of_somebody_else_is_left_to_him() -> None:
    class Foreign:
        def __init__(self, app: Any) -> None:
            """Take no settings."""

        def print_listen(self, text: str) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        serve(hello, _server=Foreign)


# -- serve() ---------------------------------------------------------------------------


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]


def serve_until(signals: list[int], **settings: Any) -> tuple[Any, list[Any]]:
    """Serve in this very thread; signals come when the loop runs."""
    from waitress import create_server

    made: list[Any] = []

    def make(app: Any, **kw: Any) -> Any:
        server = create_server(app, host="127.0.0.1", port=0, **kw)
        made.append(server)
        for number in signals:
            server.trigger.pull_trigger(lambda number=number: signal.raise_signal(number))
        return server

    return serve(hello, _server=make, _quiet=True, **settings), made


def test_serve_returns_after_sigterm(no_leaks: None) -> None:
    returned, (server,) = serve_until([signal.SIGTERM])
    assert returned is None
    assert server.is_draining
    assert not server._map
    assert not server.task_dispatcher.threads
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_serve_takes_no_signals_where_it_must_not(no_leaks: None) -> None:
    """Ctrl-C then interrupts the loop, as ever."""
    returned, (server,) = serve_until([signal.SIGINT], handle_signals=False)
    assert returned is None
    assert not server.task_dispatcher.threads
    assert not server._map


def test_serve_in_another_thread_takes_none(no_leaks: None) -> None:
    made: list[Any] = []

    def make(app: Any, **kw: Any) -> Any:
        from waitress import create_server

        made.append(create_server(app, host="127.0.0.1", port=0))
        made[0].trigger.pull_trigger(lambda: handlers.append(signal.getsignal(signal.SIGTERM)))
        made[0].trigger.pull_trigger(made[0].shutdown)
        return made[0]

    handlers: list[Any] = []
    InThread(lambda: serve(hello, _server=make, _quiet=True)).result()
    assert handlers == [signal.SIG_DFL]


# -- processes -------------------------------------------------------------------------

PROGRAM = """
import sys, threading
from waitress import create_server, serve

def app(environ, start_response):
    name = environ["PATH_INFO"]
    if name != "/":
        print("entered", flush=True)
        threading.Event().wait(float(name[1:]))
    start_response("200 OK", [("Content-Length", "5")])
    return [b"hello"]

def make(app, **kw):
    server = create_server(app, host="127.0.0.1", port=0, **kw)
    server.lifecycle.listening.append(lambda phase: print(phase.name, flush=True))
    # Told by the loop, so that the handlers are there.
    server.trigger.pull_trigger(lambda: print(server.effective_port, flush=True))
    return server

sys.exit(serve(app, _server=make, **eval(sys.argv[1])))
"""


class Process:
    """A program that serves, and tells of what happens on its standard output."""

    def __init__(self, **settings: Any) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, repr(settings)],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.port = int(self.read_line())

    def read_line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def connect(self) -> Wire:
        import socket

        return Wire(socket.create_connection(("127.0.0.1", self.port), PATIENCE))

    def send(self, number: int) -> None:
        self.process.send_signal(number)

    def await_end(self) -> tuple[int, str]:
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    started: list[Process] = []

    def starts(**settings: Any) -> Process:
        started.append(Process(**settings))
        return started[-1]

    yield starts
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate(timeout=PATIENCE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_process_answers_what_is_in_flight_and_exits_with_0(
    number: int, start: Callable[..., Process]
) -> None:
    process = start(threads=20)
    wires = [process.connect() for _ in range(20)]
    for wire in wires:
        wire.send(get("/0.5"))
        assert process.read_line() == "entered"
    process.send(number)
    for wire in wires:
        assert wire.read_answer().body == b"hello"
        wire.close()
    status, errors = process.await_end()
    assert status == 0
    assert "Traceback" not in errors


@needs_stacks
def test_process_that_must_cut_exits_with_3(start: Callable[..., Process]) -> None:
    process = start(graceful_timeout=0.25)
    with process.connect() as wire:
        wire.send(get("/60"))
        assert process.read_line() == "entered"
        process.send(signal.SIGTERM)
        assert wire.read_to_end() == b""
    status, errors = process.await_end()
    assert status == 3
    assert '"GET /60 HTTP/1.1"' in errors
    assert "threading.Event().wait" in errors or "in app" in errors


def test_second_signal_cuts_at_once(start: Callable[..., Process]) -> None:
    process = start(graceful_timeout=1000)
    with process.connect() as wire:
        wire.send(get("/60"))
        assert process.read_line() == "entered"
        process.send(signal.SIGTERM)
        assert process.read_line() == "DRAINING"
        process.send(signal.SIGTERM)
        assert wire.read_to_end() == b""
    assert process.await_end()[0] == 3


def test_process_without_our_handlers_dies_of_sigterm(start: Callable[..., Process]) -> None:
    process = start(handle_signals=False)
    process.send(signal.SIGTERM)
    assert process.await_end()[0] == -signal.SIGTERM


def test_signals_come_while_much_happens(start: Callable[..., Process]) -> None:
    """Whatever the loop is at, it hears of them."""
    process = start(drain_delay=0.5)
    stop = threading.Event()

    def ask() -> int:
        count = 0
        while not stop.is_set():
            try:
                with process.connect() as wire:
                    assert wire.get("/").body == b"hello"
            except (ConnectionError, EOFError):
                return count
            count += 1
        return count

    asking = [InThread(ask) for _ in range(4)]
    process.send(signal.SIGTERM)
    status, errors = process.await_end()
    stop.set()
    assert [each.result() >= 0 for each in asking] == [True] * 4
    assert (status, "Traceback" in errors) == (0, False)
