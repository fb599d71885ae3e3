"""Places for lines: files, pipes, the standard output, a logger."""

from __future__ import annotations

import io
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from waitress.access_sink import (
    FILE_BATCH_BYTES,
    PIPE_BATCH_BYTES,
    DescriptorSink,
    FileSink,
    LoggerSink,
    StreamSink,
    identity_of,
    is_file,
    open_sink,
)

posix = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")


@pytest.fixture
def opened(no_leaks: None) -> Iterator[Callable[[Path], FileSink]]:
    with ExitStack() as stack:

        def open_file(path: Path) -> FileSink:
            sink = FileSink(str(path))
            stack.callback(sink.close)
            return sink

        yield open_file


class TestFiles:
    def test_are_appended_to(self, opened, tmp_path):
        path = tmp_path / "log"
        path.write_bytes(b"one\n")
        sink = opened(path)
        assert sink.write(b"two\n") == 4
        assert path.read_bytes() == b"one\ntwo\n"
        assert (sink.name, sink.batch_bytes) == (str(path), FILE_BATCH_BYTES)

    @pytest.mark.skipif(os.name == "nt", reason="permissions are of POSIX")
    def test_are_not_for_everybody(self, opened, tmp_path):
        before = os.umask(0)
        try:
            opened(tmp_path / "log")
        finally:
            os.umask(before)
        assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640

    def test_are_opened_anew_when_they_were_moved(self, opened, tmp_path):
        path = tmp_path / "log"
        sink = opened(path)
        sink.write(b"one\n")
        path.rename(tmp_path / "log.1")
        sink.write(b"two\n")
        assert sink.reopen() is True
        sink.write(b"three\n")
        assert (tmp_path / "log.1").read_bytes() == b"one\ntwo\n"
        assert path.read_bytes() == b"three\n"

    def test_stay_open_where_they_cannot_be_opened_anew(self, opened, tmp_path):
        path = tmp_path / "log"
        sink = opened(path)
        path.rename(tmp_path / "log.1")
        path.mkdir()
        with pytest.raises(OSError):
            sink.reopen()
        sink.write(b"one\n")
        assert (tmp_path / "log.1").read_bytes() == b"one\n"

    def test_are_where_they_were_when_the_process_goes_elsewhere(
        self, opened, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        sink = opened(Path("log"))
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        sink.reopen()
        sink.write(b"one\n")
        assert (tmp_path / "log").read_bytes() == b"one\n"

    def test_are_taken_hold_of_again_after_their_end(self, opened, tmp_path):
        sink = opened(tmp_path / "log")
        sink.close()
        sink.write(b"one\n")
        assert (tmp_path / "log").read_bytes() == b"one\n"

    def test_that_break_off_are_given_a_line_end(self, opened, tmp_path):
        path = tmp_path / "log"
        path.write_bytes(b"hal")
        sink = opened(path)
        sink.write(b"one\n")
        sink.write(b"two\n")
        assert path.read_bytes() == b"hal\none\ntwo\n"

    def test_may_close_with_an_error(self, opened, tmp_path):
        """What was written was written; nobody is there to give it to again."""
        sink = opened(tmp_path / "log")
        assert sink._descriptor is not None
        os.close(sink._descriptor)
        sink.close()

    def test_need_no_way_to_open_without_waiting(self, opened, tmp_path, monkeypatch):
        """Windows has none, and no named pipes in its directories."""
        monkeypatch.delattr(os, "O_NONBLOCK", raising=False)
        monkeypatch.delattr(os, "set_blocking", raising=False)
        opened(tmp_path / "log").write(b"one\n")
        assert (tmp_path / "log").read_bytes() == b"one\n"

    @pytest.mark.parametrize("target", ["/nonexistent/log", "/", "nul\0"])
    def test_that_cannot_be_opened_are_an_error(self, target, no_leaks):
        with pytest.raises((OSError, ValueError)):
            open_sink(target)


@posix
class TestNamedPipes:
    def test_without_a_reader_are_an_error_and_no_wait(self, tmp_path, no_leaks):
        os.mkfifo(tmp_path / "pipe")
        with pytest.raises(OSError):
            open_sink(str(tmp_path / "pipe"))

    def test_get_what_they_take_whole(self, opened, tmp_path):
        os.mkfifo(tmp_path / "pipe")
        reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
        try:
            sink = opened(tmp_path / "pipe")
            assert sink.batch_bytes == PIPE_BATCH_BYTES
            assert os.get_blocking(sink._descriptor)
            sink.write(b"one\n")
            assert os.read(reader, 100) == b"one\n"
        finally:
            os.close(reader)


class TestStandardOutput:
    def test_is_written_past_its_stream(self, capfd):
        sink = open_sink("-")
        assert isinstance(sink, DescriptorSink)
        assert sink.name == "standard output"
        sink.write(b"one\n")
        assert sink.reopen() is False
        sink.close()
        sink.write(b"two\n")
        assert capfd.readouterr().out == "one\ntwo\n"

    def test_may_be_a_pipe(self):
        reader, writer = os.pipe()
        try:
            assert DescriptorSink(writer, "x").batch_bytes == PIPE_BATCH_BYTES
        finally:
            os.close(reader)
            os.close(writer)

    def test_may_be_something_without_a_descriptor(self, monkeypatch):
        stream = io.StringIO()
        monkeypatch.setattr(sys, "stdout", stream)
        sink = open_sink("-")
        assert isinstance(sink, StreamSink)
        assert sink.write("\u20ac\n".encode()) == 4
        assert sink.reopen() is False
        sink.close()
        assert stream.getvalue() == "\u20ac\n"

    def test_may_be_missing(self, monkeypatch):
        monkeypatch.setattr(sys, "stdout", None)
        with pytest.raises(OSError, match="there is no standard output"):
            open_sink("-")


def test_a_logger_gets_a_record_for_each_line(caplog):
    caplog.set_level(logging.INFO, "waitress.access")
    sink = open_sink("logging:")
    assert isinstance(sink, LoggerSink)
    assert sink.write(b"one %s\ntwo\n") == 11
    assert sink.reopen() is False
    sink.close()
    records = [(each.name, each.levelno, each.getMessage()) for each in caplog.records]
    assert records == [
        ("waitress.access", logging.INFO, "one %s"),
        ("waitress.access", logging.INFO, "two"),
    ]


def test_a_sink_has_one_identity_under_all_its_names(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "log")
    assert identity_of(str(tmp_path / "link")) == identity_of(str(tmp_path / "." / "log"))
    assert identity_of("-") == "-"
    assert identity_of("logging:") == "logging:"
    assert [is_file(each) for each in ("log", "-", "logging:", "", None)] == [True] + [False] * 4
