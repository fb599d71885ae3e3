"""What the pages on observability show is what the server says."""

from __future__ import annotations

import os
import re
import shlex
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest

from tests.compat.live import Wire, request
from tests.fakes import Simulation, get
from tests.looping import PATIENCE, needs_stacks
from tests.test_docs import BLOCKS, COMMANDS, DOCS, ROOT
from tests.watching import KeptEvents, KeptTimelines
from waitress.access_format import make_format
from waitress.adjustments import Adjustments
from waitress.config import load
from waitress.timeline import Timeline

Simulate = Callable[..., Simulation]

PAGE = (DOCS / "observability.rst").read_text(encoding="utf-8")
#: 9 February 2026, 13:55:36.25 UTC.
BEGAN_AT = 1770645336.25

MYAPP = """
from myapp.report import build


def app(environ, start_response):
    rows = build(environ["PATH_INFO"])
    start_response("200 OK", [("Content-Length", "5")])
    return [b"Hello"]
"""

REPORT = """
import sqlite3

query = "SELECT * FROM sales"


def build(path):
    if path != "/report":
        return []
    connection = sqlite3.connect("sales.db", timeout=60)
    rows = connection.execute(query).fetchall()
    connection.close()
    return rows
"""


def sample(page: str, words: str) -> str:
    """Return the one block of a page that holds these words."""
    (found,) = [block.text for block in BLOCKS if block.page == page and words in block.text]
    return found


def plain(text: str) -> list[str]:
    """Return the lines without what differs from one run to the next."""
    text = re.sub(r'File ".*/(?=(waitress|myapp)/)', 'File ".../', text)
    text = re.sub(r"\d+\.\d+\.\d+\.\d+:", "ADDRESS:", text)
    return [line.rstrip() for line in re.sub(r"\d+(\.\d+)?", "N", text).splitlines()]


def assert_shows(shown: str, said: str) -> None:
    """Assert that a sample is in what was said, but for what it leaves out: ``...``."""
    lines = iter(plain(said))
    expected: str | None = None
    for line in plain(shown):
        if line.strip() == "...":
            expected = None
            continue
        if expected is None:
            assert line in lines, line  # Goes on behind it.
        else:
            assert next(lines) == line
        expected = line


# What to switch on.


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")
def test_command_and_file_switch_on_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(DOCS / "examples")
    (command,) = [line for page, line in COMMANDS if page == "observability.rst"]
    by_command = load(shlex.split(command)[1:], {})
    by_file = load(["--config=observability.toml", "myapp:app"], {})
    assert by_command.problems == by_file.problems == []
    names = ("access_log", "access_log_format", "status_listen", "stuck_request_seconds")
    settings = [Adjustments(**config.values()) for config in (by_command, by_file)]
    for name in (*names, "recent_requests"):
        first, second = (getattr(each, name) for each in settings)
        assert first == second
        assert first != getattr(Adjustments, name)
    assert by_command.value("log_format") == by_file.value("log_format") is not None


# The access log, and where the second went.


class Report:
    """An application that stops where the test lets time pass."""

    def __init__(self) -> None:
        self.sim: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.sim.dispatcher.pause("thinking")
        start_response("200 OK", [("Content-Type", "text/csv"), ("Content-Length", "48000")])
        return self

    def __iter__(self) -> Iterator[bytes]:
        self.sim.dispatcher.pause("producing")
        yield bytes(48000)


def as_shown(timeline: Timeline) -> Timeline:
    """Put in the place of what each run has by chance what the page shows."""
    timeline.began_at = BEGAN_AT
    timeline.request_id, timeline.channel_id = 7, 3
    timeline.peer = ("127.0.0.1", 40122)
    timeline.worker = timeline.worker and 140
    return timeline


class Lines(KeptTimelines):
    """Keeps timelines and their lines, which are made before the environ is let go."""

    environ_names = ("REMOTE_ADDR", "REMOTE_USER")

    def __init__(self, *formats: str) -> None:
        super().__init__()
        self.formats = formats
        self.lines: list[str] = []

    def timeline_ended(self, timeline: Timeline) -> None:
        super().timeline_ended(as_shown(timeline))
        for form in map(make_format, self.formats):
            self.lines.append(form.render(timeline, form.capture(timeline)))


def heading(request_line: str, *fields: str) -> bytes:
    names = (request_line, "Host: shop.example", "X-Forwarded-For: 203.0.113.9", *fields)
    return "".join(f"{name}\r\n" for name in names).encode() + b"\r\n"


@pytest.fixture
def in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The time of the common formats is local."""
    if not hasattr(time, "tzset"):
        pytest.skip("this platform keeps its time zone")
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


TRUSTS = {"trusted_proxy": "127.0.0.1", "trusted_proxy_headers": "x-forwarded-for"}


@pytest.mark.usefixtures("in_utc")
def test_the_second_went_where_the_page_says(simulate: Simulate) -> None:
    (own,) = re.findall(r"^``(%.*)``, one of your own$", PAGE, re.M)
    kept = Lines("common", "combined", "json", own)
    application = Report()
    sim = application.sim = simulate(application, **TRUSTS)
    sim.server.subscribe_timelines(kept)
    client = sim.knock(40000)
    client.send(
        heading(
            "POST /report?month=5 HTTP/1.1",
            "Referer: https://shop.example/",
            "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
            "Content-Length: 12",
        )
    )
    sim.settle()
    sim.dispatcher.is_held = True
    sim.advance(0.040)
    client.send(b'{"month": 5}')
    sim.settle()
    sim.advance(0.610)
    sim.dispatcher.is_held = False
    sim.settle()
    sim.advance(0.120)
    sim.dispatcher.resume("thinking")
    client.is_reading = False
    sim.advance(0.060)
    sim.dispatcher.resume("producing")
    sim.advance(0.170)
    client.is_reading = True
    sim.settle()
    for line in kept.lines:
        assert f"\n      {line}\n" in PAGE
    table = PAGE.split("   * - In the line\n")[1].split(".. code-block")[0]
    rows = re.findall(r"     - ``(\w+)``, ``(\w+)``\n     - (\d+) ms\n", table)
    assert len(rows) == 7
    for begin, end, milliseconds in rows:
        seconds = kept.only.seconds(begin, end)
        assert seconds is not None
        assert round(seconds * 1000) == int(milliseconds)
    shown = dict(re.findall(r"   \* - ``(\w+_us)``\n     - .*\n     - (\d+) ms\n", table))
    for name, milliseconds in shown.items():
        assert f'"{name}":{milliseconds}000,' in kept.lines[2]


@pytest.mark.usefixtures("in_utc")
def test_the_client_that_did_not_wait_is_told_of(simulate: Simulate) -> None:
    kept = Lines("common")
    sim = simulate(Report(), **TRUSTS)
    sim.server.subscribe_timelines(kept)
    client = sim.connect()
    sim.dispatcher.is_held = True
    client.send(heading("GET /basket HTTP/1.1"))
    sim.settle()
    sim.advance(8)
    client.reset()
    sim.dispatcher.is_held = False
    sim.settle()
    assert kept.lines == [sample("observability.rst", "end=CQ").rstrip("\n")]


def test_events_read_as_the_page_says(simulate: Simulate) -> None:
    def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"Hello"]

    kept = KeptEvents()
    sim = simulate(hello, on_event=kept)
    sim.connect(get() * 2)
    said = "".join(f"{event}\n" for event in kept.events)
    assert_shows(sample("observability_events.rst", "channel created: channel 1"), said)


# Names.


def test_the_loggers_are_all_there_are() -> None:
    table = PAGE.split("   * - Logger\n")[1].split("Levels and handlers are yours")[0]
    sources = [path.read_text(encoding="utf-8") for path in (ROOT / "waitress").glob("*.py")]
    used = {
        name for text in sources for name in re.findall(r'getLogger\("(waitress[.\w]*)"\)', text)
    }
    assert set(re.findall(r"^   \* - ``(waitress[.\w]*)``$", table, re.M)) == used


def test_the_five_alerts_are_among_the_rules() -> None:
    table = PAGE.split("   * - Alert\n")[1].split("Requests that are stuck")[0]
    named = re.findall(r"^   \* - ``(\w+)``$", table, re.M)
    rules = re.findall(r"- alert: (\w+)", sample("observability_status.rst", "alert:"))
    assert len(named) == 5
    assert set(named) <= set(rules)


def test_the_letters_of_termination_codes_are_all_there_are() -> None:
    table = PAGE.split("   * - First\n")[1].split("Metrics and alerts\n")[0]
    rows = re.findall(r"   \* -(?: ``(.)``)?\n     - ?.*\n     - ``(.)``\n", table)
    first, second = ({letter for letter in column if letter} for column in zip(*rows, strict=True))
    assert first == set("-CSAO")
    assert second == set("-HBQADL")
    codes = (
        (DOCS / "observability_events.rst").read_text(encoding="utf-8").split("   * - Code\n")[1]
    )
    explained = re.findall(r"``([-A-Z]{2})``(?=, ``|\n)", codes)
    assert len(explained) > 15
    assert all(code[0] in first and code[1] in second for code in explained)


# The log of a server at work.


class Log:
    """What a process writes to a pipe; lines of it can be waited for."""

    def __init__(self, stream: IO[str]) -> None:
        self.text = ""
        self._grown = threading.Condition()
        self._thread = threading.Thread(target=self._read, args=(stream,))
        self._thread.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._grown:
                self.text += line
                self._grown.notify_all()

    def wait_for(self, pattern: str) -> re.Match[str]:
        with self._grown:
            found = self._grown.wait_for(lambda: re.search(pattern, self.text, re.M), PATIENCE)
            assert found, (pattern, self.text)
            return found

    def wait_for_end(self) -> None:
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()


@contextmanager
def command(directory: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], Log]]:
    """Run ``waitress-serve`` for the application of the samples."""
    with subprocess.Popen(
        [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", *options, "myapp:app"],
        cwd=directory,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        log = Log(process.stderr)
        try:
            yield process, log
        finally:
            process.kill()
            log.wait_for_end()


def wire_to(port: int) -> Wire:
    return Wire(socket.create_connection(("127.0.0.1", port), PATIENCE))


@pytest.mark.skipif(not hasattr(signal, "SIGUSR1"), reason="this platform has no such signal")
@needs_stacks
def test_the_log_of_a_stuck_request_is_what_the_pages_say(tmp_path: Path) -> None:
    (tmp_path / "myapp").mkdir()
    (tmp_path / "myapp" / "__init__.py").write_text(MYAPP)
    (tmp_path / "myapp" / "report.py").write_text(REPORT)
    options = (
        *("--threads=1", "--stuck-request-seconds=0.1", "--recent-requests=100"),
        *("--log-level=info", "--log-format=%(message)s"),
    )
    with (
        closing(sqlite3.connect(tmp_path / "sales.db", isolation_level=None)) as database,
        command(tmp_path, *options) as (process, log),
    ):
        database.execute("CREATE TABLE sales (month)")
        database.execute("BEGIN EXCLUSIVE")
        port = int(log.wait_for(r"^Serving on http://127.0.0.1:(\d+)$")[1])
        with wire_to(port) as earlier:
            earlier.send(request("GET", "/basket"))
            earlier.read_answer()
            earlier.send(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
            earlier.read_answer()
        with wire_to(port) as first, wire_to(port) as second:
            first.send(request("GET", "/report?token=secret"))
            log.wait_for(r"rows = connection.execute")
            second.send(request("GET", "/basket"))
            log.wait_for(r"^Task queue depth is 1$")
            with wire_to(port) as later:
                # That line may have come of the very first request. What the loop answers by
                # itself, it answers after it has read what came before.
                later.send(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
                later.read_answer()
            process.send_signal(signal.SIGUSR1)
            log.wait_for("^requests that ended last: .*\n.*\n")
            database.execute("ROLLBACK")
            first.read_answer()
            second.read_answer()
        process.terminate()
        assert process.wait(PATIENCE) == 0
        log.wait_for_end()
    said = log.text
    assert "secret" not in said
    assert_shows(sample("observability_stuck.rst", "has been running for"), said)
    assert_shows(sample("observability_stuck.rst", "what the server is doing"), said)
    assert_shows(sample("logging.rst", "refused: "), said)
