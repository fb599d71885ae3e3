"""A server in a test or in a desktop program."""

from __future__ import annotations

import logging
import socket
import threading
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Gate, Wire, hello
from tests.fakes import get
from tests.looping import InThread
from waitress import create_server, embedding, wasyncore
from waitress.embedding import Embeddable
from waitress.running import Running
from waitress.shutdown import Phase


def test_block_serves_and_then_drains(no_leaks: None) -> None:
    with create_server(hello, host="127.0.0.1", port=0) as server:
        assert urllib.request.urlopen(server.url).read() == b"hello"
        assert not server.is_draining
    assert server.is_draining
    assert server.lifecycle.phase is Phase.DONE
    assert not server.task_dispatcher.threads


def test_request_in_flight_is_answered_at_the_end_of_the_block(no_leaks: None) -> None:
    gate = Gate()
    with create_server(gate, host="127.0.0.1", port=0) as server:
        sock = socket.create_connection(("127.0.0.1", int(server.effective_port)))
        wire = Wire(sock)
        wire.send(get())
        gate.await_entry()
        server.lifecycle.listening.append(lambda phase: gate.opened.set())

        def reads() -> bytes:
            with wire:
                return wire.read_answer().body

        reading = InThread(reads)
    assert reading.result() == b"hello"


def test_several_addresses_in_one_block(no_leaks: None) -> None:
    with create_server(hello, listen="127.0.0.1:0 127.0.0.1:0") as server:
        assert server.url == f"http://127.0.0.1:{server.effective_listen[0][1]}"
        assert urllib.request.urlopen(server.url).read() == b"hello"
    assert not server.map


def test_block_may_be_left_by_an_exception(no_leaks: None) -> None:
    with pytest.raises(ZeroDivisionError), create_server(hello, host="127.0.0.1", port=0):
        raise ZeroDivisionError


def test_error_of_the_thread_is_raised_at_the_beginning(
    monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    somebody_waits = threading.Event()

    class Waiting(list[threading.Event]):
        def append(self, ready: threading.Event) -> None:
            super().append(ready)
            somebody_waits.set()

    class Background(embedding._Background):
        def __init__(self, server: Any) -> None:
            super().__init__(server)
            self._waiting = Waiting()

    monkeypatch.setattr(embedding, "_Background", Background)
    server = create_server(hello, host="127.0.0.1", port=0)

    class Broken:
        @staticmethod
        def loop(**kw: Any) -> None:
            assert somebody_waits.wait(PATIENCE)
            raise RuntimeError("the loop is broken")

    server.asyncore = Broken
    with pytest.raises(RuntimeError, match="the loop is broken"), server:
        pytest.fail("the block was entered")
    assert not server._map
    assert not server.task_dispatcher.threads


class BreaksLater:
    """Runs the loop until it is told to fail."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def loop(self, **kw: Any) -> None:
        while not self.event.is_set():
            wasyncore.loop(**{**kw, "count": 1})
        raise RuntimeError("the loop is broken")


def broken_in_the_block(server: Any) -> Any:
    server.asyncore = BreaksLater()
    return server.asyncore


def break_now(server: Any, breaks: BreaksLater) -> None:
    breaks.event.set()
    server.pull_trigger()
    server._background.join()


def test_error_of_the_thread_is_raised_at_the_end(no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    breaks = broken_in_the_block(server)
    with pytest.raises(RuntimeError, match="the loop is broken"), server:
        break_now(server, breaks)
    assert not server._map
    assert not server.task_dispatcher.threads


def test_error_of_the_thread_is_raised_to_whoever_waits(no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    breaks = broken_in_the_block(server)

    def waits() -> None:
        with server:
            assert server.wait_ready(5)
            break_now(server, breaks)
            with pytest.raises(RuntimeError, match="the loop is broken"):
                server.wait_ready()

    with pytest.raises(RuntimeError, match="the loop is broken"):
        waits()


def test_error_of_the_block_wins_and_the_other_is_logged(
    no_leaks: None, caplog: pytest.LogCaptureFixture
) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    breaks = broken_in_the_block(server)

    def fails() -> None:
        with server:
            break_now(server, breaks)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    (record,) = [each for each in caplog.records if each.levelno == logging.ERROR]
    assert record.getMessage() == "Exception in the server's thread"
    assert record.exc_info
    assert str(record.exc_info[1]) == "the loop is broken"


def test_server_that_was_closed_in_the_block_leaves_nothing(no_leaks: None) -> None:
    with create_server(hello, host="127.0.0.1", port=0) as server:
        server.trigger.pull_trigger(lambda: wasyncore.close_all(server._map))
        server._background.join()
        assert not server.wait_ready(5)
    assert not server.task_dispatcher.threads


def test_server_that_has_ended_does_not_serve_again(no_leaks: None) -> None:
    with create_server(hello, host="127.0.0.1", port=0) as server:
        pass
    with pytest.raises(RuntimeError, match="the server has ended"), server:
        pytest.fail("the block was entered")


def test_waiting_for_a_server_that_does_not_run_times_out(no_leaks: None) -> None:
    server = create_server(hello, host="127.0.0.1", port=0)
    assert not server.wait_ready(0.01)
    thread = InThread(server.run)
    assert server.wait_ready(20)
    server.shutdown()
    thread.result()


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", "http://127.0.0.1:{}"),
        ("0.0.0.0", "http://127.0.0.1:{}"),
        ("::1", "http://[::1]:{}"),
        ("::", "http://[::1]:{}"),
    ],
)
def test_url_can_be_reached(host: str, expected: str, no_leaks: None) -> None:
    with create_server(hello, host=host, port=0) as server:
        assert server.url == expected.format(server.effective_port)
        assert urllib.request.urlopen(server.url + "/").read() == b"hello"


def test_url_of_a_unix_socket(tmp_path: Path, no_leaks: None) -> None:
    with create_server(hello, unix_socket=str(tmp_path / "a b")) as server:
        assert server.url.startswith("http+unix://%2F")
        assert server.url.endswith("%2Fa%20b")
    assert not (tmp_path / "a b").exists()


def test_whoever_waits_after_the_end_is_told_so(no_leaks: None) -> None:
    with create_server(hello, host="127.0.0.1", port=0) as server:
        server.shutdown()
        server._background.join()
        assert not server.wait_ready()


def test_servers_of_other_makes_say_how_they_are_closed() -> None:
    with pytest.raises(NotImplementedError):
        Embeddable()._end_at_once()


def test_servers_of_other_makes_say_what_their_loop_runs_on() -> None:
    with pytest.raises(NotImplementedError):
        Running()._socket_map  # noqa: B018 - reading it is the test
