"""The access log of a server: where its lines go, who shares a place, and when it is moved."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import hello
from tests.timelines import make_timeline
from waitress import access_log, create_server
from waitress.access_log import AccessLog, reopen_all
from waitress.access_writer import QUEUE_BYTES
from waitress.runner import run

PATIENCE = 20.0


@pytest.fixture
def open_log(no_leaks: None) -> Iterator[Callable[..., AccessLog]]:
    with ExitStack() as stack:

        def start(target: object, text: str = "%(id)s") -> AccessLog:
            log = AccessLog(str(target), text)
            stack.callback(log.close)
            return log

        yield start


@pytest.fixture
def make_server(no_leaks: None) -> Iterator[Callable[..., Any]]:
    """Give a function that makes a server on a free port, which is not run."""
    with ExitStack() as stack:

        def make(**settings: Any) -> Any:
            if "listen" not in settings:
                settings["listen"] = "127.0.0.1:0"
            server = create_server(hello, **settings)

            def end() -> None:
                if hasattr(server, "effective_listen"):
                    server.close()
                else:
                    server.task_dispatcher.shutdown()
                    server.close()

            stack.callback(end)
            return server

        yield make


@pytest.fixture
def own_handler() -> Iterator[list[str]]:
    """Give the logger of access logs a handler and a level; show what it gets."""
    lines: list[str] = []

    class Keeping(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger = logging.getLogger("waitress.access")
    handler = Keeping()
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(logging.NOTSET)


def tell(log: AccessLog, *numbers: int) -> None:
    for number in numbers:
        log.timeline_ended(make_timeline(request_id=number))


def await_text(path: Path, text: str) -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists() or path.read_text() != text:
        assert time.monotonic() < until, path.exists() and path.read_text()
        threading.Event().wait(0.005)


class TestLog:
    def test_has_a_line_for_each_request(self, open_log, tmp_path):
        log = open_log(tmp_path / "log", "%(id)s %(h)s %({k}e)s")
        timeline = make_timeline(environ={"REMOTE_ADDR": "203.0.113.9", "k": "v"})
        log.timeline_ended(timeline)
        timeline.environ = None
        log.close()
        assert (tmp_path / "log").read_text() == "7 203.0.113.9 v\n"
        assert log.lost == 0

    def test_may_be_closed_twice(self, open_log, tmp_path):
        log = open_log(tmp_path / "log")
        other = open_log(tmp_path / "log")
        log.close()
        log.close()
        tell(other, 1)
        other.close()
        assert (tmp_path / "log").read_text() == "1\n"

    def test_has_lines_for_those_who_end_later(self, open_log, tmp_path):
        log = open_log(tmp_path / "log")
        log.close()
        tell(log, 1)
        await_text(tmp_path / "log", "1\n")

    def test_counts_what_waits_by_what_clients_sent(self, open_log, tmp_path):
        """Lines that wait must not fill the memory, however long they are."""
        if not hasattr(signal, "SIGHUP"):
            pytest.skip("named pipes are of POSIX")
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            log = open_log(tmp_path / "pipe", "%(a)s")
            large = make_timeline(headers={"A": "x" * (QUEUE_BYTES // 4)}, path="p" * 1000)
            for _ in range(8):
                log.timeline_ended(large)
                large.headers = {"A": "x" * (QUEUE_BYTES // 4), "USER_AGENT": "u" * 8000}
                log.timeline_ended(large)
            assert log.lost > 8
        finally:
            os.close(reader)
            log.close()

    def test_is_shared_by_all_who_name_the_same_place(self, open_log, tmp_path):
        (tmp_path / "link").symlink_to(tmp_path / "log")
        one = open_log(tmp_path / "log", "%(id)s " + "x" * 200)
        two = open_log(tmp_path / "link", "%(id)s " + "y" * 200)
        other = open_log(tmp_path / "other")
        threads = [
            threading.Thread(target=tell, args=(log, *range(500))) for log in (one, two, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
        for log in (one, two, other):
            log.close()
        lines = (tmp_path / "log").read_text().splitlines()
        for letter in "xy":
            mine = [line for line in lines if line.endswith(letter)]
            assert mine == [f"{number} " + letter * 200 for number in range(500)]
        assert len(lines) == 1000
        assert (tmp_path / "other").read_text().split() == [str(number) for number in range(500)]

    def test_begins_anew_where_nobody_uses_the_place_any_more(self, open_log, tmp_path):
        before = open_log(tmp_path / "log")
        before.close()
        (tmp_path / "log").rename(tmp_path / "log.1")
        after = open_log(tmp_path / "log")
        assert (tmp_path / "log").exists()
        tell(after, 1)
        after.close()
        assert (tmp_path / "log").read_text() == "1\n"
        assert (tmp_path / "log.1").read_text() == ""

    def test_is_opened_anew_when_its_file_was_moved(self, open_log, tmp_path):
        log = open_log(tmp_path / "log")
        tell(log, 1)
        await_text(tmp_path / "log", "1\n")
        (tmp_path / "log").rename(tmp_path / "log.1")
        log.reopen()
        await_text(tmp_path / "log", "")
        tell(log, 2)
        await_text(tmp_path / "log", "2\n")
        assert (tmp_path / "log.1").read_text() == "1\n"

    @pytest.mark.parametrize("target", ["/nonexistent/log", "nul\0byte"])
    def test_that_cannot_be_opened_is_named(self, target, no_leaks):
        with pytest.raises(ValueError, match="Cannot open the access log: ") as raised:
            AccessLog(target, "common")
        assert f"(access_log={target!r}; allowed: the path of a file" in str(raised.value)
        assert "\n" not in str(raised.value)


class TestSettings:
    def test_give_a_server_an_access_log(self, make_server, tmp_path):
        server = make_server(access_log=str(tmp_path / "log"), access_log_format="json")
        server.access_log.timeline_ended(make_timeline())
        server.close()
        assert json.loads((tmp_path / "log").read_text())["status"] == 200

    def test_give_none_by_default(self, make_server):
        assert make_server().access_log is None
        assert make_server(access_log="").access_log is None

    def test_give_the_combined_format_by_default(self, make_server, tmp_path):
        server = make_server(access_log=str(tmp_path / "log"))
        server.access_log.timeline_ended(make_timeline())
        server.close()
        assert '"curl/8" total_us=2500' in (tmp_path / "log").read_text()

    def test_give_several_listeners_one_place(self, make_server, tmp_path):
        server = make_server(listen="127.0.0.1:0 127.0.0.1:0", access_log=str(tmp_path / "log"))
        listeners = [each for each in server.map.values() if hasattr(each, "access_log")]
        assert len(listeners) == 2
        for listener in listeners:
            tell(listener.access_log, 1)
        server.close()
        assert len((tmp_path / "log").read_text().splitlines()) == 2

    def test_refuse_a_wrong_format_in_one_line(self):
        with pytest.raises(ValueError) as raised:
            create_server(hello, access_log_format="%(x)s")
        assert str(raised.value) == (
            "there is no atom %(x)s (access_log_format='%(x)s'; allowed: common, combined, json, "
            "or a text with atoms such as %(h)s)"
        )

    def test_leave_nothing_behind_where_the_file_cannot_be_opened(self, no_leaks):
        with pytest.raises(ValueError, match="Cannot open the access log: No such file"):
            create_server(hello, listen="127.0.0.1:0", access_log="/nonexistent/log")

    def test_leave_nothing_behind_where_the_address_is_taken(self, make_server, tmp_path):
        taken = make_server().effective_port
        with pytest.raises(OSError):
            create_server(
                hello,
                listen=f"127.0.0.1:0 127.0.0.1:{taken}",
                access_log=str(tmp_path / "log"),
            )

    def test_load_nothing_where_there_is_no_access_log(self):
        program = (
            "import sys, waitress\n"
            "waitress.create_server(print, listen='127.0.0.1:0', access_log_format='json')\n"
            "print(*[name for name in sys.modules if name.startswith('waitress.access')])\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert done.stdout == "\n"


class TestChildren:
    def test_begin_with_locks_that_nobody_holds(self, open_log, tmp_path):
        log = open_log(tmp_path / "log")
        with access_log._lock, log._writer._lock:
            access_log._begin_anew_in_child()
            tell(log, 1)
            log.close()
        assert (tmp_path / "log").read_text() == "1\n"

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
    def test_write_lines_of_their_own_and_none_of_their_parent_s(self, tmp_path):
        """The thread that writes, and whoever held a lock, stayed in the parent."""
        program = textwrap.dedent(
            """
            import os, sys, threading
            from tests.timelines import make_timeline
            from waitress import access_log
            from waitress.access_log import AccessLog

            path = sys.argv[1]
            log = AccessLog(path, "%(id)s")
            written = threading.Event()
            sink = log._writer._sink
            write = sink.write

            def tell(data):
                try:
                    return write(data)
                finally:
                    written.set()

            sink.write = tell
            log.timeline_ended(make_timeline(request_id=1))
            assert written.wait(20)
            writer = log._writer
            with access_log._lock, writer._lock:
                child = os.fork()
            if not child:
                own = AccessLog(path, "%(id)s of the child")
                own.timeline_ended(make_timeline(request_id=2))
                own.close()
                log.close(20)
                os._exit(0)
            os.waitpid(child, 0)
            log.timeline_ended(make_timeline(request_id=3))
            log.close()
            """
        )
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "log")], timeout=60, check=True
        )
        assert (tmp_path / "log").read_text() == "1\n2 of the child\n3\n"


class TestLogger:
    def test_with_a_handler_of_its_own_is_used_where_nothing_is_set(self, make_server, own_handler):
        server = make_server(access_log_format="%(id)s")
        server.access_log.timeline_ended(make_timeline())
        server.close()
        assert own_handler == ["7"]

    def test_is_not_used_beside_another_place(self, make_server, own_handler, tmp_path):
        server = make_server(access_log=str(tmp_path / "log"), access_log_format="%(id)s")
        server.access_log.timeline_ended(make_timeline())
        server.close()
        assert own_handler == []
        assert (tmp_path / "log").read_text() == "7\n"

    def test_is_not_used_where_it_does_not_show_info(self, make_server, own_handler):
        logging.getLogger("waitress.access").setLevel(logging.WARNING)
        assert make_server().access_log is None

    def test_is_not_used_for_the_sake_of_handlers_above_it(self, make_server, caplog):
        caplog.set_level(logging.INFO)
        assert make_server().access_log is None

    def test_is_used_where_the_setting_names_it(self, make_server, caplog):
        caplog.set_level(logging.INFO)
        server = make_server(access_log="logging:", access_log_format="%(id)s")
        server.access_log.timeline_ended(make_timeline())
        server.close()
        told = [record for record in caplog.records if record.name == "waitress.access"]
        assert [record.getMessage() for record in told] == ["7"]


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
class TestCommand:
    def run(self, tmp_path: Path, monkeypatch: Any, serve: Callable[..., None], *options: str):
        (tmp_path / "myapp.py").write_text("def app(environ, start_response): ...\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "myapp", raising=False)
        monkeypatch.setattr(sys, "path", sys.path[:])
        assert run(["waitress-serve", *options, "myapp:app"], _serve=serve) == 0

    def test_opens_the_file_anew_on_sighup_and_loses_no_line(self, tmp_path, monkeypatch, no_leaks):
        path = tmp_path / "log"

        def serve(app: Any, access_log: str) -> None:
            log = AccessLog(access_log, "%(id)s")
            for number in range(1000):
                tell(log, number)
                if number % 250 == 125:
                    path.rename(tmp_path / f"log.{number}")
                    signal.raise_signal(signal.SIGHUP)
                    # The next lines must not come before the move is noticed.
                    await_existence(path)
            log.close()

        before = signal.getsignal(signal.SIGHUP)
        self.run(tmp_path, monkeypatch, serve, f"--access-log={path}")

        assert signal.getsignal(signal.SIGHUP) is before
        files = [*(tmp_path / f"log.{number}" for number in (125, 375, 625, 875)), path]
        parts = [[int(line) for line in file.read_text().split()] for file in files]
        assert [number for part in parts for number in part] == list(range(1000))
        assert set(range(876, 1000)) <= set(parts[-1]), "the new file gets the next lines"

    @pytest.mark.parametrize("options", [(), ("--access-log=-",), ("--access-log=logging:",)])
    def test_leaves_sighup_alone_without_a_file(self, options, tmp_path, monkeypatch):
        seen = []

        def serve(app: Any, **settings: Any) -> None:
            seen.append(signal.getsignal(signal.SIGHUP))

        before = signal.getsignal(signal.SIGHUP)
        self.run(tmp_path, monkeypatch, serve, *options)
        assert seen == [before]

    def test_asks_for_no_signal_that_there_is_not(self, tmp_path, monkeypatch):
        seen = []

        def serve(app: Any, **settings: Any) -> None:
            seen.append(settings)

        monkeypatch.setattr("waitress.runner.WIN", True)
        monkeypatch.delattr(signal, "SIGHUP")
        self.run(tmp_path, monkeypatch, serve, f"--access-log={tmp_path}/log")
        assert seen == [{"access_log": f"{tmp_path}/log"}]

    def test_leaves_sighup_alone_in_a_thread_that_is_not_the_main_one(self, tmp_path, monkeypatch):
        seen = []

        def serve(app: Any, **settings: Any) -> None:
            seen.append(signal.getsignal(signal.SIGHUP))

        before = signal.getsignal(signal.SIGHUP)
        thread = threading.Thread(
            target=self.run, args=(tmp_path, monkeypatch, serve, f"--access-log={tmp_path}/log")
        )
        thread.start()
        thread.join(PATIENCE)
        assert seen == [before]


def await_existence(path: Path) -> None:
    until = time.monotonic() + PATIENCE
    while not path.exists():
        assert time.monotonic() < until
        threading.Event().wait(0.002)


def test_all_logs_of_the_process_are_opened_anew(open_log, tmp_path):
    logs = [open_log(tmp_path / name) for name in ("a", "b")]
    for log in logs:
        tell(log, 1)
    for name in ("a", "b"):
        await_text(tmp_path / name, "1\n")
        (tmp_path / name).rename(tmp_path / f"{name}.1")
    reopen_all()
    for name in ("a", "b"):
        await_text(tmp_path / name, "")
