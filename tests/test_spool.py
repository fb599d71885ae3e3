"""The budget of temporary files, and files that two threads share."""

from __future__ import annotations

import os
import shutil
import tempfile
from types import SimpleNamespace

import pytest

from waitress.spool import LARGEST_DEFAULT_LIMIT, SpoolBudget, SpoolFile, default_spool_limit

pytestmark = pytest.mark.usefixtures("no_leaks")


class TestDefaultSpoolLimit:
    @staticmethod
    def disk_of(monkeypatch, free):
        asked = []
        monkeypatch.setattr(
            shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=free)
        )
        return asked

    def test_is_a_quarter_of_what_is_free(self, monkeypatch):
        asked = self.disk_of(monkeypatch, 4_000_003)
        assert default_spool_limit("/there") == 1_000_000
        assert asked == ["/there"]

    def test_is_eight_gibibytes_at_most(self, monkeypatch):
        self.disk_of(monkeypatch, 1 << 50)
        assert default_spool_limit("/there") == LARGEST_DEFAULT_LIMIT == 8 << 30

    def test_asks_for_the_system_s_directory_when_none_is_named(self, monkeypatch):
        asked = self.disk_of(monkeypatch, 400)
        assert default_spool_limit(None) == 100
        assert asked == [tempfile.gettempdir()]

    def test_is_nothing_where_there_is_no_directory(self, tmp_path):
        assert default_spool_limit(str(tmp_path / "missing")) == 0

    def test_tells_of_a_real_disk(self, tmp_path):
        assert 0 <= default_spool_limit(str(tmp_path)) <= LARGEST_DEFAULT_LIMIT


class Waiter:
    def __init__(self):
        self.told = 0

    def room_freed_threadsafe(self):
        self.told += 1


class TestSpoolBudget:
    def test_reserve_grants_up_to_the_limit_and_nothing_beyond(self):
        budget = SpoolBudget(10)
        assert budget.reserve(6)
        assert not budget.reserve(5)
        assert budget.used == 6
        assert budget.reserve(4)
        assert budget.used == 10

    def test_take_asks_nobody(self):
        budget = SpoolBudget(0)
        budget.take(5)
        assert budget.used == 5
        assert not budget.reserve(0)

    def test_release_gives_back(self):
        budget = SpoolBudget(10)
        budget.take(10)
        budget.release(4)
        assert budget.used == 6
        assert budget.reserve(4)

    def test_waiters_are_told_of_every_release_until_they_go(self):
        budget, waiter, other = SpoolBudget(10), Waiter(), Waiter()
        budget.take(3)
        budget.add_waiter(waiter)
        budget.add_waiter(other)
        budget.release(1)
        budget.release(1)
        budget.remove_waiter(waiter)
        budget.release(1)
        assert waiter.told == 2
        assert other.told == 3

    def test_removing_a_stranger_is_harmless(self):
        SpoolBudget(10).remove_waiter(Waiter())

    def test_a_waiter_may_ask_while_it_is_told(self):
        budget = SpoolBudget(10)
        budget.take(10)
        granted = []

        class Asking:
            def room_freed_threadsafe(self):
                granted.append(budget.reserve(3))

        budget.add_waiter(Asking())
        budget.release(3)
        assert granted == [True]


class SeekingSpoolFile(SpoolFile):
    """As on platforms without pread and pwrite."""

    _pwrite = SpoolFile._seek_and_write
    _pread = SpoolFile._seek_and_read


@pytest.fixture(params=[SpoolFile, SeekingSpoolFile], ids=["pread", "seek"])
def spool_file(request):
    file = request.param(None)
    yield file
    file.close()


class TestSpoolFile:
    def test_gives_back_what_was_written_where_it_was_written(self, spool_file):
        spool_file.write_at(0, b"hello ")
        spool_file.write_at(6, memoryview(b"world"))
        assert spool_file.read_at(0, 100) == b"hello world"
        assert spool_file.read_at(4, 4) == b"o wo"

    def test_reading_does_not_move_where_is_written(self, spool_file):
        spool_file.write_at(0, b"abc")
        assert spool_file.read_at(0, 1) == b"a"
        spool_file.write_at(3, b"def")
        assert spool_file.read_at(1, 9) == b"bcdef"

    def test_has_a_descriptor_that_can_be_sent_from(self, spool_file):
        spool_file.write_at(0, b"abc")
        assert os.pread(spool_file.fileno(), 3, 0) == b"abc"

    def test_is_gone_when_closed(self, spool_file):
        fd = spool_file.fileno()
        spool_file.close()
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)

    def test_all_is_written_however_little_the_system_takes(self, spool_file, monkeypatch):
        whole = type(spool_file)._pwrite
        monkeypatch.setattr(
            type(spool_file), "_pwrite", lambda self, data, at: whole(self, data[:2], at)
        )
        spool_file.write_at(1, b"abcde")
        assert spool_file.read_at(1, 9) == b"abcde"

    def test_has_no_name(self, tmp_path):
        file = SpoolFile(str(tmp_path))
        try:
            assert os.listdir(tmp_path) == []
        finally:
            file.close()

    def test_that_cannot_be_made_is_an_error(self, tmp_path):
        with pytest.raises(FileNotFoundError):
            SpoolFile(str(tmp_path / "missing"))
