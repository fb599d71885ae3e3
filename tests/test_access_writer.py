"""The writing thread: nobody waits for it, little is lost, and what is lost is told."""

from __future__ import annotations

import errno
import logging
import os
import select
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from waitress import access_writer
from waitress.access_sink import FileSink, Sink
from waitress.access_writer import QUEUE_BYTES, TELL_SECONDS, LineWriter

PATIENCE = 20.0


class Memory:
    """A sink that keeps what it is given, and does what it is told before."""

    name = "memory"
    batch_bytes = 100

    def __init__(self) -> None:
        self.data = b""
        self.writes: list[bytes] = []
        #: What the next writes raise, or how many bytes they take.
        self.plan: list[BaseException | int] = []
        self.wrote = threading.Semaphore(0)
        self.is_closed = False
        self.reopened = 0

    def write(self, data: bytes) -> int:
        step = self.plan.pop(0) if self.plan else len(data)
        try:
            if isinstance(step, BaseException):
                raise step
            self.data += data[:step]
            self.writes.append(data[:step])
            return step
        finally:
            self.wrote.release()

    def reopen(self) -> bool:
        self.reopened += 1
        self.data = b""
        return True

    def close(self) -> None:
        self.is_closed = True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def writing(no_leaks: None) -> Iterator[Callable[..., LineWriter]]:
    with ExitStack() as stack:

        def start(sink: Sink, *clock: Callable[[], float]) -> LineWriter:
            writer = LineWriter(sink, *clock)
            stack.callback(writer.end)
            return writer

        yield start


def put(writer: LineWriter, text: str, size: int = 1) -> None:
    writer.put(lambda: text, size)


def await_true(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < until, "it never came true"
        threading.Event().wait(0.005)


class TestLines:
    def test_are_written_in_order_by_one_thread(self, writing):
        sink = Memory()
        writer = writing(sink)
        for number in range(500):
            put(writer, f"line {number}")
        threads = [each for each in threading.enumerate() if each.name == "waitress-access-log"]
        assert len(threads) == 1
        assert threads[0].daemon
        writer.end()
        assert sink.data.decode().split("\n") == [*(f"line {n}" for n in range(500)), ""]
        assert max(map(len, sink.writes)) <= Memory.batch_bytes
        assert writer.lost == 0
        assert sink.is_closed
        assert not threads[0].is_alive()

    def test_are_made_in_the_writing_thread(self, writing):
        seen = []
        writer = writing(Memory())
        writer.put(lambda: seen.append(threading.current_thread().name) or "x", 1)
        writer.end()
        assert seen == ["waitress-access-log"]

    def test_that_are_longer_than_a_batch_stand_alone(self, writing):
        sink = Memory()
        writer = writing(sink)
        for text in ("a", "b" * 200, "c"):
            put(writer, text)
        writer.end()
        assert sink.data == b"a\n" + b"b" * 200 + b"\nc\n"

    def test_that_come_to_a_sleeping_thread_wake_it(self, writing):
        sink = Memory()
        writer = writing(sink)
        put(writer, "one")
        await_true(lambda: writer._is_asleep)
        put(writer, "two")
        await_true(lambda: sink.data == b"one\ntwo\n")

    def test_that_come_after_the_end_are_written_too(self, writing):
        sink = Memory()
        writer = writing(sink)
        put(writer, "one")
        writer.end()
        sink.is_closed = False
        put(writer, "two")
        await_true(lambda: sink.is_closed)
        assert sink.data == b"one\ntwo\n"

    def test_that_cannot_be_made_are_told_of_once(self, writing, caplog):
        sink = Memory()
        writer = writing(sink)

        def fail() -> str:
            raise ZeroDivisionError

        put(writer, "one")
        writer.put(fail, 1)
        writer.put(fail, 1)
        put(writer, "two")
        writer.end()
        assert sink.data == b"one\ntwo\n"
        assert writer.lost == 2
        assert [record.getMessage() for record in caplog.records] == [
            "Cannot make a line of the access log memory",
            "access log memory: 2 line(s) were lost",
        ]
        assert caplog.records[0].exc_info[0] is ZeroDivisionError

    def test_that_come_while_the_sink_is_closed_are_written_too(self, writing):
        class Closing(Memory):
            def close(self) -> None:
                if b"two" not in self.data:
                    put(writer, "two")
                super().close()

        sink = Closing()
        writer = writing(sink)
        put(writer, "one")
        writer.end()
        assert sink.data == b"one\ntwo\n"

    def test_without_any_there_is_no_thread(self, writing):
        sink = Memory()
        before = threading.active_count()
        writer = writing(sink)
        assert threading.active_count() == before
        writer.end()
        assert sink.is_closed

    def test_wait_where_no_thread_can_be_started(self, writing, monkeypatch):
        sink = Memory()
        writer = writing(sink)

        def fail(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", fail)
            put(writer, "one")
        put(writer, "two")
        writer.end()
        assert sink.data == b"one\ntwo\n"


class TestLosses:
    def test_are_counted_and_told_when_a_blocked_pipe_is_read_again(
        self, no_leaks, tmp_path, caplog
    ):
        if not hasattr(os, "mkfifo"):
            pytest.skip("named pipes are of POSIX")
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        writer = LineWriter(FileSink(str(tmp_path / "pipe")))
        # More than the pipe holds: once it is readable, the writer is caught in it.
        put(writer, "first" * 100_000)
        assert select.select([reader], [], [], PATIENCE)[0]
        put_in = 0
        while writer.lost < 10:
            put_in += 1
            # Blocks for ever if the pipe's fullness reached those who put.
            put(writer, f"{put_in:06}" + "x" * 100, QUEUE_BYTES // 2000)
        assert put_in > 1900
        # Told once, by a thread of its own.
        await_true(lambda: bool(caplog.records))
        assert caplog.messages == [
            f"access log {tmp_path}/pipe takes no lines: too many wait, and further ones are lost"
        ]
        caplog.clear()

        os.set_blocking(reader, True)
        got: list[bytes] = []

        def read() -> None:
            while data := os.read(reader, 65536):
                got.append(data)

        reading = threading.Thread(target=read)
        reading.start()
        await_true(lambda: any("lost" in record.getMessage() for record in caplog.records))
        writer.end()
        reading.join(PATIENCE)
        os.close(reader)

        lines = b"".join(got).decode().split("\n")
        assert lines.pop() == ""
        assert lines.pop(0) == "first" * 100_000
        assert len(lines) == put_in - writer.lost
        assert lines == [f"{number + 1:06}" + "x" * 100 for number in range(len(lines))]
        told = [record for record in caplog.records if "lost" in record.getMessage()]
        assert [(each.name, each.levelno, each.getMessage()) for each in told] == [
            (
                "waitress",
                logging.WARNING,
                f"access log {tmp_path}/pipe: {writer.lost} line(s) were lost",
            )
        ]

    def test_begin_where_what_waits_takes_too_much_memory(self, writing):
        sink = Memory()
        sink.plan = [BlockingIOError(errno.EAGAIN, "later")]
        writer = writing(sink)
        put(writer, "small", QUEUE_BYTES)
        put(writer, "large", 1)
        assert writer.lost == 1
        await_true(lambda: sink.data == b"small\n" and writer._size == 0)
        put(writer, "again", QUEUE_BYTES)
        await_true(lambda: sink.data == b"small\nagain\n")
        assert writer.lost == 1

    def test_are_told_now_and_then_and_all_at_the_end(self, writing, caplog):
        clock = Clock()
        sink = Memory()
        writer = writing(sink, clock)

        def lose(count: int) -> None:
            for _ in range(count):
                put(writer, "too large", QUEUE_BYTES + 1)

        def told() -> list[str]:
            return [record.getMessage() for record in caplog.records]

        lose(2)
        put(writer, "one")
        await_true(lambda: len(told()) == 1)
        lose(3)
        put(writer, "two")
        await_true(lambda: writer._is_asleep and sink.data == b"one\ntwo\n")
        assert told() == ["access log memory: 2 line(s) were lost"]
        clock.now += TELL_SECONDS
        put(writer, "three")
        await_true(lambda: len(told()) == 2)
        lose(4)
        writer.end()
        assert told()[1:] == [
            "access log memory: 3 line(s) were lost",
            "access log memory: 4 line(s) were lost",
        ]
        assert writer.lost == 9

    def test_are_told_when_nothing_follows(self, writing, caplog, monkeypatch):
        monkeypatch.setattr(access_writer, "TELL_SECONDS", 0.01)
        sink = Memory()
        writer = writing(sink)
        put(writer, "one")
        await_true(lambda: writer._is_asleep)
        writer.reopen()
        await_true(lambda: sink.reopened == 1 and writer._is_asleep)
        put(writer, "too large", QUEUE_BYTES + 1)
        writer.reopen()
        await_true(lambda: bool(caplog.records))
        assert "1 line(s) were lost" in caplog.records[0].getMessage()

    def test_that_begin_where_no_thread_can_be_had_are_counted_all_the_same(
        self, writing, monkeypatch, caplog
    ):
        class Blocked(Memory):
            def write(self, data: bytes) -> int:
                entered.set()
                release.wait(PATIENCE)
                return super().write(data)

        def refuse(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        entered, release = threading.Event(), threading.Event()
        writer = writing(Blocked())
        put(writer, "one", QUEUE_BYTES)
        assert entered.wait(PATIENCE)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            put(writer, "lost")
        assert writer.lost == 1
        assert caplog.messages == []
        release.set()


class TestErrors:
    def test_of_a_full_disk_are_told_once_and_lose_nothing(self, writing, tmp_path, caplog):
        if not os.path.exists("/dev/full"):
            pytest.skip("there is no device that is always full")
        caplog.set_level(logging.INFO)
        path = tmp_path / "log"
        path.symlink_to("/dev/full")
        writer = writing(FileSink(str(path)))
        put(writer, "one")
        await_true(lambda: bool(caplog.records))
        put(writer, "two")
        path.unlink()
        writer.reopen()
        await_true(lambda: path.exists() and path.read_bytes() == b"one\ntwo\n")
        assert [(each.levelname, each.getMessage()) for each in caplog.records] == [
            (
                "ERROR",
                f"access log {path} cannot be written: No space left on device; lines wait "
                "until it can, and are lost when too many wait",
            ),
            ("INFO", f"access log {path} is written again"),
        ]
        assert writer.lost == 0

    def test_that_go_on_are_tried_again_and_not_told_again(self, writing, caplog, monkeypatch):
        monkeypatch.setattr(access_writer, "RETRY_SECONDS", 0.001)
        sink = Memory()
        sink.plan = [OSError(errno.ENOSPC, "full")] * 5 + [2] + [ValueError("strange")]
        writer = writing(sink)
        put(writer, "one")
        await_true(lambda: sink.data == b"one\n")
        errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(errors) == 1
        sink.plan = [ValueError("strange")]
        put(writer, "two")
        await_true(lambda: sink.data == b"one\ntwo\n")
        errors = [each.getMessage() for each in caplog.records if each.levelno == logging.ERROR]
        assert len(errors) == 2
        assert "cannot be written: ValueError('strange')" in errors[1]

    def test_amid_a_line_are_continued_where_they_were(self, writing, monkeypatch):
        monkeypatch.setattr(access_writer, "RETRY_SECONDS", 0.001)
        sink = Memory()
        sink.plan = [2, OSError(errno.ENOSPC, "full"), 1, BlockingIOError()]
        writer = writing(sink)
        put(writer, "one")
        put(writer, "two")
        await_true(lambda: sink.data == b"one\ntwo\n")
        assert sink.writes[:2] == [b"on", b"e"]
        assert writer.lost == 0

    def test_amid_a_line_begin_the_line_again_in_another_file(self, writing):
        sink = Memory()
        writer = writing(sink)
        release = threading.Event()
        writer.put(lambda: str(release.wait(PATIENCE)), 1)
        put(writer, "two")
        put(writer, "three")
        # The first line is a batch alone, since the thread took it alone.
        sink.plan = [len(b"True\n"), len(b"tw"), OSError(errno.ENOSPC, "full")]
        release.set()
        for _ in range(3):
            assert sink.wrote.acquire(timeout=PATIENCE)
        writer.reopen()
        await_true(lambda: sink.data == b"two\nthree\n")

    def test_at_the_end_cost_no_time(self, writing, caplog):
        sink = Memory()
        sink.plan = [OSError(errno.ENOSPC, "full")] * 3
        writer = writing(sink)
        release = threading.Event()
        writer.put(lambda: str(release.wait(PATIENCE)), 1)
        put(writer, "x" * 200)
        ending = threading.Thread(target=writer.end)
        ending.start()
        await_true(lambda: writer._users == 0)
        release.set()
        ending.join(PATIENCE)
        assert not ending.is_alive()
        assert writer.lost == 2
        assert sink.is_closed
        assert "access log memory: 2 line(s) were lost" in caplog.messages

    def test_while_opening_anew_keep_the_old_file(self, writing, tmp_path, caplog):
        path = tmp_path / "log"
        writer = writing(FileSink(str(path)))
        path.rename(tmp_path / "log.1")
        path.mkdir()
        writer.reopen()
        put(writer, "one")
        await_true(lambda: (tmp_path / "log.1").read_bytes() == b"one\n")
        (record,) = caplog.records
        assert record.getMessage() == (
            f"access log {path} cannot be opened again, the open file is kept: Is a directory"
        )

    def test_of_a_file_at_its_limit_glue_no_lines(self, tmp_path):
        if not sys.platform.startswith("linux"):
            pytest.skip("sets a limit of Linux")
        program = textwrap.dedent(
            """
            import logging, resource, sys, threading
            from waitress import access_writer
            from waitress.access_sink import FileSink

            class Told(logging.Handler):
                def __init__(self):
                    super().__init__()
                    self.failure, self.recovery = threading.Event(), threading.Event()

                def emit(self, record):
                    line = record.getMessage()
                    print(line, file=sys.stderr)
                    (self.recovery if "is written again" in line else self.failure).set()

            told = Told()
            access_writer.logger.addHandler(told)
            access_writer.logger.setLevel(logging.INFO)
            access_writer.RETRY_SECONDS = 0.001
            soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (1234, hard))
            sink = FileSink(sys.argv[1])
            writer = access_writer.LineWriter(sink)
            for number in range(100):
                writer.put(lambda number=number: f"{number:049}", 1)
            assert told.failure.wait(20)
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            assert told.recovery.wait(20)  # At the end it would not be tried again.
            writer.end()
            print(writer.lost)
            """
        )
        path = tmp_path / "log"
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        assert "File too large" in done.stderr
        lines = path.read_text().split("\n")
        assert lines == [*(f"{number:049}" for number in range(100 - int(done.stdout))), ""]


class TestEnd:
    def test_tells_what_was_lost_before_where_the_sink_takes_nothing(self, caplog):
        class Blocked(Memory):
            def write(self, data: bytes) -> int:
                entered.set()
                release.wait(PATIENCE)
                return super().write(data)

        entered, release = threading.Event(), threading.Event()
        sink = Blocked()
        writer = LineWriter(sink)
        put(writer, "one", QUEUE_BYTES)
        assert entered.wait(PATIENCE)
        for _ in range(3):
            put(writer, "lost")
        await_true(lambda: bool(caplog.messages))
        writer.end(0.01)
        assert caplog.messages == [
            "access log memory takes no lines: too many wait, and further ones are lost",
            "access log memory takes no lines: 1 line(s) were not written within 0.01 seconds, "
            "and 3 were lost before",
        ]
        release.set()
        await_true(lambda: sink.is_closed)
        writer.end()

    def test_does_not_wait_for_a_blocked_sink_for_long(self, caplog):
        class Blocked(Memory):
            def write(self, data: bytes) -> int:
                release.wait(PATIENCE)
                return super().write(data)

        release = threading.Event()
        sink = Blocked()
        writer = LineWriter(sink)
        put(writer, "one")
        put(writer, "two")
        writer.end(0.01)
        assert caplog.messages == [
            "access log memory takes no lines: 2 line(s) were not written within 0.01 seconds, "
            "and 0 were lost before"
        ]
        release.set()
        await_true(lambda: sink.is_closed)
        assert sink.data == b"one\ntwo\n"
        writer.end()

    def test_gives_up_in_time_where_there_is_never_room(self, no_leaks):
        clock = Clock()
        sink = Memory()
        sink.plan = [BlockingIOError()] * 100_000
        writer = LineWriter(sink, clock)
        put(writer, "one")
        writer.end(0.01)
        clock.now = 1.0
        await_true(lambda: sink.is_closed)
        assert writer.lost == 1
        writer.end()

    def test_is_that_of_the_last_user(self, writing):
        sink = Memory()
        writer = writing(sink)
        writer.add_user()
        assert writer.remove_user() is False
        put(writer, "one")
        await_true(lambda: sink.data == b"one\n")
        assert not sink.is_closed
        assert writer.remove_user() is True

    def test_comes_with_that_of_the_interpreter(self, tmp_path):
        program = textwrap.dedent(
            """
            import sys, threading
            from waitress import access_writer
            from waitress.access_sink import FileSink

            writer = access_writer.LineWriter(FileSink(sys.argv[1]))
            is_waited_for = threading.Event()
            writer.put(lambda: "late" if is_waited_for.wait(20) else "too late", 1)
            join = writer._thread.join

            def wait(timeout):
                is_waited_for.set()
                join(timeout)

            writer._thread.join = wait
            """
        )
        path = tmp_path / "log"
        subprocess.run([sys.executable, "-c", program, str(path)], timeout=60, check=True)
        assert Path(path).read_text() == "late\n"


def test_opening_anew_may_interrupt_whoever_holds_the_lock(writing):
    """As a signal's handler does, in the thread that it interrupts."""
    sink = Memory()
    writer = writing(sink)
    with writer._lock:
        writer.reopen()
        writer.reopen()
    put(writer, "one")
    await_true(lambda: sink.data == b"one\n")
    assert sink.reopened == 1
