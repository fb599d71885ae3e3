"""What systemd is told, at a socket like its own."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Iterator
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.compat.live import PATIENCE, hello
from tests.fakes import FakeClock
from waitress import create_server, sd_notify, serve
from waitress.eventloop import EventLoop
from waitress.sd_notify import Notifier, notifier_from, notify, reloading

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="there are no unix sockets")


class Manager:
    """The receiving end of what systemd has."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(PATIENCE)
        self.sock.bind("\0" + address[1:] if address.startswith("@") else address)

    def read(self) -> list[str]:
        return self.sock.recv(4096).decode("utf-8").split("\n")

    @property
    def has_more(self) -> bool:
        self.sock.setblocking(False)
        try:
            return bool(self.sock.recv(4096))
        except BlockingIOError:
            return False


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    if request.param == "abstract" and not os.path.isdir("/proc"):
        pytest.skip("there are no abstract addresses")
    address = str(tmp_path / "notify") if request.param == "path" else f"@{tmp_path}/notify"
    manager = Manager(address)
    yield manager
    manager.sock.close()


def test_message_arrives(manager: Manager) -> None:
    assert notify(manager.address, "READY=1\nSTATUS=é")
    assert manager.read() == ["READY=1", "STATUS=é"]


def test_manager_that_is_gone_is_told_of_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert not notify(str(tmp_path / "none"), "READY=1")
    assert f"cannot notify systemd at {tmp_path}/none: " in caplog.text


def test_nothing_is_sent_where_there_are_no_unix_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    assert not notify("/run/notify", "READY=1")


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1"])
def test_nobody_is_told_without_an_address(address: str | None) -> None:
    environ = {} if address is None else {"NOTIFY_SOCKET": address}
    assert notifier_from(environ, EventLoop()) is None


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, inf),
        ({"WATCHDOG_USEC": "30000000"}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": str(os.getpid())}, 30),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "1"}, inf),
        ({"WATCHDOG_USEC": "0"}, inf),
        ({"WATCHDOG_USEC": "soon"}, inf),
        ({"WATCHDOG_USEC": "\u00b2"}, inf),
    ],
)
def test_watchdogs_interval(environ: dict[str, str], seconds: float) -> None:
    notifier = notifier_from({"NOTIFY_SOCKET": "/run/notify", **environ}, EventLoop())
    assert notifier is not None
    assert notifier.watchdog_seconds == seconds


@pytest.fixture
def simulated(manager: Manager) -> tuple[FakeClock, EventLoop]:
    clock = FakeClock()
    return clock, EventLoop(clock=clock)


def test_sign_of_life_comes_twice_in_the_interval(
    manager: Manager, simulated: tuple[FakeClock, EventLoop]
) -> None:
    clock, event_loop = simulated
    notifier = Notifier(event_loop, manager.address, 10)
    notifier.start()
    event_loop.drain_ready()
    assert manager.read()[0] == "READY=1"
    for _ in range(3):
        clock.advance(4.75)
        event_loop.tell_due()
        assert not manager.has_more
        manager.sock.settimeout(PATIENCE)
        clock.advance(0.375)
        event_loop.tell_due()
        assert manager.read() == ["WATCHDOG=1"]


def test_manager_that_stays_away_is_told_of_once(
    tmp_path: Path, simulated: tuple[FakeClock, EventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    clock, event_loop = simulated
    manager = Manager(str(tmp_path / "rare"))
    notifier = Notifier(event_loop, manager.address, 10)
    notifier.handle_ready()
    os.rename(tmp_path / "rare", tmp_path / "away")
    for _ in range(3):
        clock.advance(5.125)
        event_loop.tell_due()
    assert caplog.text.count("cannot notify systemd") == 1
    os.rename(tmp_path / "away", tmp_path / "rare")
    manager.read()
    clock.advance(5.125)
    event_loop.tell_due()
    assert manager.read() == ["WATCHDOG=1"]
    manager.sock.close()
    for _ in range(3):
        clock.advance(5.125)
        event_loop.tell_due()
    assert caplog.text.count("cannot notify systemd") == 2


def test_reload_at_the_moment_of_readiness_is_told(
    manager: Manager, simulated: tuple[FakeClock, EventLoop], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise systemd would wait for it."""
    _, event_loop = simulated
    notifier = Notifier(event_loop, manager.address, inf)

    def interrupted(address: str, message: str, warns: bool = True) -> bool:
        if message.startswith("READY=1\nMAINPID"):
            with sd_notify.reloading():
                pass
        return notify(address, message, warns)

    monkeypatch.setattr(sd_notify, "notify", interrupted)
    notifier.handle_ready()
    assert manager.read()[0] == "RELOADING=1"
    Notifier.serving = None


def test_no_watchdog_no_signs_of_life(
    manager: Manager, simulated: tuple[FakeClock, EventLoop]
) -> None:
    clock, event_loop = simulated
    Notifier(event_loop, manager.address, inf).handle_ready()
    manager.read()
    clock.advance(1e6)
    event_loop.tell_due()
    assert not manager.has_more


def test_errors_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    try:
        raise ZeroDivisionError
    except ZeroDivisionError:
        Notifier(EventLoop(), "/run/notify", inf).handle_error()
    assert "Exception while notifying systemd" in caplog.text


@pytest.fixture
def default_handlers() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def served(**settings: Any) -> Any:
    made: list[Any] = []

    def make(app: Any, **kw: Any) -> Any:
        made.append(create_server(app, host="127.0.0.1", port=0, **kw))
        made[0].trigger.pull_trigger(lambda: signal.raise_signal(signal.SIGTERM))
        return made[0]

    serve(hello, _server=make, _quiet=True, **settings)
    return made[0]


def test_served_life_is_told(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, no_leaks: None, default_handlers: None
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", manager.address)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    server = served()
    assert manager.read() == ["READY=1", f"MAINPID={os.getpid()}", "STATUS=serving"]
    assert manager.read() == ["STOPPING=1", "STATUS=serving what is left"]
    assert manager.read() == ["STOPPING=1", "STATUS=ending the workers"]
    assert manager.read() == ["STOPPING=1", "STATUS=done"]
    assert not manager.has_more
    assert len(server._event_loop.deadlines) == 0


def test_reload_is_told_while_the_server_serves_and_only_then(manager: Manager) -> None:
    with reloading():  # Nobody serves: to say that somebody is ready would be untrue.
        pass
    notifier = Notifier(EventLoop(), manager.address, inf)
    notifier.handle_ready()
    assert manager.read()[0] == "READY=1"
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    with reloading():
        begun, when = manager.read()
    assert begun == "RELOADING=1"
    name, _, microseconds = when.partition("=")
    assert name == "MONOTONIC_USEC"
    assert before <= int(microseconds) <= time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    assert manager.read() == ["READY=1", "STATUS=serving"]
    notifier.phase_changed(SimpleNamespace(name="DRAINING", value="ending"))
    assert manager.read()[0] == "STOPPING=1"
    with reloading():
        pass
    assert not manager.has_more


def test_address_that_cannot_be_used_is_ignored(
    monkeypatch: pytest.MonkeyPatch,
    no_leaks: None,
    default_handlers: None,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "relative")
    assert served().is_draining
    assert "systemd" not in caplog.text
