"""The bytes of a response on their way: in order, bounded, and never waited for in vain."""

from __future__ import annotations

import io
import itertools
import os
import sys
import threading
import weakref
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.looping import PATIENCE, InThread, Raises, await_event
from waitress import outbound as outbound_module
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected as ClientDisconnectedOfUsers
from waitress.outbound import ClientDisconnected, FileFailedError, OutboundBuffer
from waitress.spool import SpoolBudget

pytestmark = pytest.mark.usefixtures("no_leaks")

LIMITS = SimpleNamespace(outbuf_overflow=100, outbuf_high_watermark=1000, spool_dir=None)
AMPLE = SimpleNamespace(outbuf_overflow=10_000, outbuf_high_watermark=10_000)


class WatchedCondition(threading.Condition):
    """Tells that somebody has begun to wait; from then on the lock is free."""

    def __init__(self, lock):
        super().__init__(lock)
        self.waits = WAITS

    def wait(self, timeout=None):
        self.waits.release()
        return super().wait(timeout)


WAITS = threading.Semaphore(0)


class Outbound(OutboundBuffer):
    """The real thing, with a few words less to type."""

    def __init__(self, limit=0, on_wait=lambda: None):
        self.budget = SpoolBudget(limit)
        super().__init__(self.budget, on_wait, WatchedCondition)

    def put(self, *parts, limits=LIMITS, may_wait=True):
        self.append(parts, sum(map(len, parts)), limits, may_wait)

    def put_last(self, part, limits=LIMITS, may_wait=True):
        size = len(part) if isinstance(part, bytes) else sum(map(len, part))
        self.append_last(part, size, limits, may_wait)

    def look(self, limit=1 << 20):
        """Return what one turn would send."""
        found = self.peek(limit)
        return found if isinstance(found, bytes) else b"".join(found)

    def take(self, limit=1 << 20):
        """Send as much as one turn would; return it."""
        data = self.look(limit)
        self.passed, drained = self.advance(len(data)) or ([], [])
        for segment in drained:
            segment.close()
        return data

    def take_all(self):
        data = b""
        while self.pending:
            data += self.take()
        return data


@pytest.fixture
def outbound():
    made = Outbound()
    yield made
    made.close()


def prepared(data, size=None):
    file = ReadOnlyFileBasedBuffer(io.BytesIO(data))
    file.prepare(size)
    return file


def kinds(outbound):
    return [type(each).__name__.strip("_") for each in outbound.segments]


class TestMemory:
    def test_gives_the_very_bytes_that_were_put_in(self, outbound):
        data = b"hello"
        outbound.put(data)
        assert outbound.peek(100) is data

    def test_keeps_the_order(self, outbound):
        outbound.put(b"a", b"b")
        outbound.put(b"c")
        assert len(outbound) == outbound.pending == 3
        assert outbound.take() == b"abc"
        assert outbound.pending == 0
        assert outbound.segments == []

    def test_gives_no_more_than_wanted(self, outbound):
        outbound.put(b"abc", b"def")
        assert outbound.take(2) == b"ab"
        assert outbound.take(2) == b"cd"
        assert outbound.take(9) == b"ef"

    def test_gives_one_large_part_piece_by_piece(self, outbound):
        outbound.put(b"abcdef")
        assert outbound.take(4) == b"abcd"
        assert outbound.take(4) == b"ef"

    def test_goes_on_after_a_short_send(self, outbound):
        outbound.put(b"abc", b"def")
        outbound.peek(100)
        outbound.advance(4)
        assert outbound.take() == b"ef"

    def test_gives_no_more_parts_than_every_system_takes(self, outbound):
        outbound.put(*[b"%d" % (number % 10) for number in range(600)], limits=AMPLE)
        assert len(outbound.peek(1000)) == 512
        assert outbound.take_all() == b"0123456789" * 60

    def test_never_gives_nothing_but_empty_parts(self, outbound):
        """Sending nothing would look like a peer that takes nothing."""
        outbound.put(*[b""] * 600, b"a", b"", b"b", b"", limits=AMPLE)
        assert outbound.peek(1000) == [b"a", b"b"]
        assert outbound.take(1) == b"a"
        assert outbound.take() == b"b"
        assert outbound.segments == []

    def test_gives_what_it_has_when_all_of_it_may_be_sent(self, outbound):
        parts = [b"x" * 100, b"", b"y" * 100]
        outbound.put(*parts, limits=AMPLE)
        given = outbound.peek(200)
        assert [id(part) for part in given] == [id(part) for part in parts]
        assert b"".join(outbound.peek(150)) == b"x" * 100 + b"y" * 50

    def test_takes_nothing_of_nothing(self, outbound):
        outbound.put(b"")
        assert outbound.segments == []
        outbound.append_file(prepared(b"file"))
        assert outbound.take() == b"file"

    def test_counts_all_that_came_and_went(self, outbound):
        outbound.put(b"abc")
        outbound.take(2)
        assert (outbound.pending, outbound.sent_total) == (1, 2)


class TestTheLastPart:
    @pytest.mark.parametrize("data", [b"hello", (b"head", b"body")])
    def test_takes_no_lock_where_it_is_all_there_is(self, outbound, data):
        size = len(b"".join(data)) if isinstance(data, tuple) else len(data)
        lock, outbound._lock = outbound._lock, None
        try:
            outbound.put_last(data)
            assert outbound.pending == size
            assert outbound.peek(size) is data
            assert outbound.advance(size) is None
        finally:
            outbound._lock = lock
        assert (outbound.pending, outbound.sent_total, outbound.last_part) == (0, size, None)

    def test_passes_its_marks_without_the_lock(self, outbound):
        outbound.mark_next("begin")
        outbound.put_last(b"hello")
        outbound.mark("end")
        lock, outbound._lock = outbound._lock, None
        try:
            assert outbound.advance(5) == (["begin", "end"], [])
        finally:
            outbound._lock = lock
        assert outbound.advance(0) is None

    def test_is_as_all_else_where_it_is_several(self, outbound):
        outbound.put_last((b"head", b"body"))
        assert outbound.segments == [b"head", b"body"]
        outbound.advance(5)
        outbound.put_last((b"more", b"still"))
        assert outbound.last_part is None
        assert outbound.take() == b"odymorestill"

    def test_goes_in_pieces_where_it_is_several(self, outbound):
        outbound.put_last((b"head", b"body"))
        assert outbound.take(6) == b"headbo"
        assert outbound.take(6) == b"dy"

    def test_is_counted_and_shown_as_all_else(self, outbound):
        outbound.put_last(b"hello")
        assert outbound.segments == [b"hello"]
        assert outbound.memory_bytes == outbound.appended_total == 5

    def test_goes_on_after_a_short_send(self, outbound):
        outbound.put_last(b"hello")
        outbound.advance(2)
        assert (outbound.pending, outbound.sent_total) == (3, 2)
        assert outbound.take() == b"llo"

    def test_goes_in_pieces_where_it_is_large(self, outbound):
        outbound.put_last(b"hello")
        assert outbound.take(3) == b"hel"
        assert outbound.take(3) == b"lo"

    def test_waits_behind_what_is_there(self, outbound):
        outbound.put(b"a")
        outbound.put_last(b"b")
        assert outbound.last_part is None
        assert outbound.take() == b"ab"

    def test_leaves_before_what_comes_behind_it_all_the_same(self, outbound):
        outbound.put_last(b"a")
        outbound.put(b"b")
        assert outbound.take() == b"ab"
        outbound.put_last(b"c")
        outbound.append_file(prepared(b"d"))
        assert outbound.take() == b"cd"

    def test_is_as_all_else_once_settled(self, outbound):
        outbound.put_last(b"a")
        for _ in range(2):
            outbound.settle_last_part()
        assert outbound.last_part is None
        outbound.put_last(b"b")
        assert outbound.take() == b"ab"

    def test_of_no_bytes_is_none(self, outbound):
        outbound.put_last(b"")
        assert outbound.last_part is None
        outbound.put_last(b"a")
        assert outbound.take() == b"a"

    def test_of_twice_the_size_goes_to_a_file(self, outbound):
        outbound.put_last(b"x" * 199)
        assert outbound.last_part is not None
        outbound.take()
        outbound.put_last(b"x" * 200)
        assert kinds(outbound) == ["SpoolSegment"]

    def test_never_waits_for_room_where_nobody_may(self):
        outbound = Outbound()
        outbound.put(b"x" * 1001, limits=AMPLE)
        outbound.put_last(b"y" * 1000, may_wait=False)
        assert outbound.pending == 2001
        outbound.close()

    def test_passes_the_marks_behind_it(self, outbound):
        outbound.mark_next("begin")
        outbound.put_last(b"hello")
        assert not outbound.mark("end")
        outbound.take(1)
        assert outbound.passed == ["begin"]
        outbound.take()
        assert outbound.passed == ["end"]

    def test_is_dropped_with_the_connection(self, outbound):
        outbound.put_last(b"hello")
        outbound.close()
        assert (outbound.pending, outbound.last_part) == (0, None)
        with pytest.raises(ClientDisconnected):
            outbound.put_last(b"more")

    def test_of_a_connection_that_is_closed_meanwhile_is_not_kept(self, outbound):
        class Closing:
            @property
            def outbuf_overflow(self):
                outbound.close()
                return 100

        with pytest.raises(ClientDisconnected):
            outbound.put_last(b"hello", Closing())
        assert (outbound.pending, outbound.last_part) == (0, None)


class TestTemporaryFiles:
    def test_take_what_comes_behind_so_many_bytes(self, outbound):
        outbound.put(b"x" * 100)
        outbound.put(b"y")
        assert kinds(outbound) == ["bytes", "SpoolSegment"]
        assert outbound.take_all() == b"x" * 100 + b"y"

    def test_take_a_chunk_of_twice_that_size_at_once(self, outbound):
        outbound.put(b"x" * 199)
        assert kinds(outbound) == ["bytes"]
        outbound.take_all()
        outbound.put(b"x" * 100, b"y" * 100)
        assert kinds(outbound) == ["SpoolSegment"]
        assert outbound.take_all() == b"x" * 100 + b"y" * 100

    def test_take_what_follows_in_them_however_little(self, outbound):
        outbound.put(b"x" * 200)
        outbound.take(150)
        outbound.put(b"y")
        assert kinds(outbound) == ["SpoolSegment"]
        assert outbound.take_all() == b"x" * 50 + b"y"

    def test_are_left_for_memory_when_the_reader_has_caught_up(self, outbound):
        outbound.put(b"x" * 200)
        outbound.take_all()
        outbound.put(b"y")
        assert kinds(outbound) == ["bytes"]

    def test_are_told_of_while_they_are_there(self, outbound):
        assert not outbound.holds_spool
        outbound.put(b"x" * 100)
        assert not outbound.holds_spool
        outbound.put(b"y")
        assert outbound.holds_spool
        outbound.take_all()
        assert not outbound.holds_spool

    def test_are_counted_until_they_are_gone(self, outbound):
        outbound.put(b"x" * 200)
        outbound.put(b"y" * 300)
        assert outbound.budget.used == 500
        outbound.take(499)
        assert outbound.budget.used == 500
        outbound.take()
        assert outbound.budget.used == 0

    def test_end_at_a_size_so_that_the_disk_is_given_back(self, outbound, monkeypatch):
        monkeypatch.setattr(outbound_module, "SPOOL_FILE_BYTES", 300)
        limits = SimpleNamespace(outbuf_overflow=100, outbuf_high_watermark=10_000)
        for _ in range(4):
            outbound.put(b"x" * 200, limits=limits)
        assert kinds(outbound) == ["SpoolSegment", "SpoolSegment"]
        outbound.take(400)
        assert outbound.budget.used == 400
        assert outbound.take_all() == b"x" * 400

    def test_stand_where_the_settings_say(self, outbound, tmp_path):
        limits = SimpleNamespace(
            outbuf_overflow=0, outbuf_high_watermark=0, spool_dir=str(tmp_path / "missing")
        )
        with pytest.raises(FileFailedError):
            outbound.put(b"x", limits=limits)
        assert outbound.pending == outbound.budget.used == 0
        assert outbound.segments == []

    def test_that_fill_the_disk_leave_nothing_of_what_was_not_written(self, outbound, monkeypatch):
        outbound.put(b"x" * 200)
        full = OSError(28, "No space left on device")

        def refuse(file, view, position):
            raise full

        monkeypatch.setattr(outbound_module.SpoolFile, "_pwrite", refuse)
        with pytest.raises(FileFailedError, match="No space") as caught:
            outbound.put(b"y" * 50)
        assert caught.value.__cause__ is full
        assert outbound.budget.used == outbound.pending == 200
        monkeypatch.undo()
        assert outbound.take_all() == b"x" * 200

    def test_that_cannot_be_read_again_are_an_error(self, outbound, monkeypatch):
        outbound.put(b"x" * 200)

        def fail(file, size, position):
            raise OSError(5, "I/O error")

        monkeypatch.setattr(outbound_module.SpoolFile, "_pread", fail)
        with pytest.raises(FileFailedError, match="I/O error"):
            outbound.peek(10)

    def test_that_were_read_to_their_end_while_a_write_fails_are_closed(
        self, outbound, monkeypatch
    ):
        outbound.put(b"x" * 200)

        def fail_late(file, view, position):
            outbound.take(200)  # The loop is fast.
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(outbound_module.SpoolFile, "_pwrite", fail_late)
        with pytest.raises(FileFailedError, match="No space"):
            outbound.put(b"y")
        assert outbound.segments == []
        assert outbound.budget.used == 0

    def test_that_are_read_to_their_end_while_they_grow_go_on(self, outbound, monkeypatch):
        outbound.put(b"x" * 200)
        write = outbound_module.SpoolFile._pwrite
        taken = []

        def write_late(file, view, position):
            taken.append(outbound.take(200))
            return write(file, view, position)

        monkeypatch.setattr(outbound_module.SpoolFile, "_pwrite", write_late)
        outbound.put(b"y" * 5)
        assert taken == [b"x" * 200]
        assert kinds(outbound) == ["SpoolSegment"]
        assert outbound.take_all() == b"y" * 5
        assert outbound.budget.used == 0


class TestFiles:
    def test_are_sent_in_their_place_and_closed(self, outbound):
        file = prepared(b"file")
        outbound.put(b"head ")
        outbound.append_file(file)
        outbound.put(b" tail")
        assert outbound.pending == 14
        assert outbound.take_all() == b"head file tail"
        assert file.file.closed

    def test_are_sent_in_pieces(self, outbound):
        outbound.append_file(prepared(b"abcdef", 5))
        assert outbound.take(3) == b"abc"
        assert outbound.take(3) == b"de"
        assert outbound.segments == []

    def test_without_a_byte_are_closed_at_once(self, outbound):
        file = prepared(b"")
        outbound.append_file(file)
        assert file.file.closed
        assert outbound.segments == []
        outbound.put(b"next")
        assert outbound.take_all() == b"next"

    def test_take_no_memory_so_that_what_follows_stays_in_it(self, outbound):
        outbound.append_file(prepared(b"x" * 500))
        outbound.put(b"head")
        outbound.append_file(prepared(b"y" * 500))
        outbound.put(b"head")
        assert kinds(outbound) == ["FileSegment", "bytes"] * 2
        while len(outbound.segments) > 2:
            outbound.take(250)
        outbound.put(b"z" * 95)
        outbound.put(b"z")
        assert kinds(outbound) == ["FileSegment", "bytes", "bytes", "bytes"]
        outbound.put(b"zz")
        assert kinds(outbound)[-1] == "SpoolSegment"
        assert outbound.take_all().endswith(b"yhead" + b"z" * 98)

    def test_may_be_so_many_and_then_the_next_response_waits(self, outbound):
        for _ in range(4):
            assert outbound.has_room(LIMITS)
            outbound.append_file(prepared(b"x"))
        assert outbound.has_room(LIMITS)
        outbound.append_file(prepared(b"x"))
        assert not outbound.has_room(LIMITS)
        outbound.take(1)
        assert outbound.has_room(LIMITS)

    def test_leave_together_with_what_is_before_them(self, outbound):
        outbound.put(b"head ")
        outbound.append_file(prepared(b"file"))
        assert outbound.take() == b"head file"
        assert outbound.segments == []

    def test_leave_no_more_with_it_than_a_small_file_has(self, outbound):
        outbound.put(b"head")
        outbound.append_file(prepared(b"x" * 100_000))
        assert len(outbound.take()) == 4 + 64 * 1024
        assert outbound.take_all() == b"x" * (100_000 - 64 * 1024)

    def test_wait_for_many_parts_before_them(self, outbound):
        outbound.put(*[b"x"] * 512, limits=AMPLE)
        outbound.append_file(prepared(b"file"))
        assert len(outbound.peek(1 << 20)) == 512

    def test_with_a_descriptor_are_told_of_when_their_turn_comes(self, outbound, tmp_path):
        (tmp_path / "file").write_bytes(b"0123456789")
        file = ReadOnlyFileBasedBuffer((tmp_path / "file").open("rb"))
        file.file.read(2)
        file.prepare(5)
        assert not outbound.had_files
        outbound.put(b"head")
        outbound.append_file(file)
        assert outbound.had_files
        assert outbound.file_at_front() is None
        assert outbound.take(6) == b"head23"
        assert outbound.file_at_front() == (file.file.fileno(), 4, 3)
        assert outbound.take() == b"456"
        assert outbound.file_at_front() is None
        assert file.file.closed

    def test_are_read_by_themselves_where_positions_cannot_be_given(
        self, outbound, tmp_path, monkeypatch
    ):
        monkeypatch.setattr(outbound_module, "_has_pread", False)
        (tmp_path / "file").write_bytes(b"0123456789")
        file = ReadOnlyFileBasedBuffer((tmp_path / "file").open("rb"))
        file.prepare()
        outbound.append_file(file)
        assert outbound.file_at_front() is None
        assert outbound.take(4) + outbound.take() == b"0123456789"

    def test_without_a_descriptor_are_not_told_of(self, outbound):
        outbound.append_file(prepared(b"file"))
        assert outbound.had_files
        assert outbound.file_at_front() is None

    def test_of_the_server_s_own_have_a_descriptor(self, outbound):
        outbound.put(b"x" * 300)
        outbound.take(100)
        descriptor, position, size = outbound.file_at_front()
        assert os.pread(descriptor, size, position) == b"x" * 200

    def test_that_cannot_be_skipped_are_an_error(self, outbound):
        class Stuck(io.BytesIO):
            stuck = False

            def seek(self, *args):
                if self.stuck:
                    raise OSError(5, "I/O error")
                return super().seek(*args)

        file = ReadOnlyFileBasedBuffer(Stuck(b"abcdef"))
        file.prepare()
        outbound.append_file(file)
        data = outbound.peek(2)
        file.file.stuck = True
        with pytest.raises(FileFailedError, match="I/O error"):
            outbound.advance(len(data[0]))

    def test_that_have_become_shorter_are_an_error(self, outbound):
        file = prepared(b"abcdef")
        outbound.append_file(file)
        outbound.take(2)
        file.file.truncate(2)
        with pytest.raises(FileFailedError, match="ended 4 bytes early"):
            outbound.peek(100)

    def test_are_closed_when_the_connection_is_cut(self, outbound):
        file = prepared(b"abcdef")
        outbound.append_file(file)
        outbound.take(2)
        outbound.close()
        assert file.file.closed

    def test_stay_the_caller_s_when_nobody_reads_any_more(self, outbound):
        outbound.close()
        file = prepared(b"x")
        with pytest.raises(ClientDisconnected):
            outbound.append_file(file)
        assert not file.file.closed
        file.close()


class TestMarks:
    def test_are_given_back_when_all_before_them_was_sent(self, outbound):
        outbound.put(b"abc")
        assert not outbound.mark("first")
        outbound.put(b"def")
        assert not outbound.mark("second")
        outbound.take(2)
        assert outbound.passed == []
        outbound.take(1)
        assert outbound.passed == ["first"]
        outbound.take(3)
        assert outbound.passed == ["second"]

    def test_are_given_back_together_when_passed_together(self, outbound):
        outbound.put(b"abc")
        outbound.mark("first")
        outbound.mark("second")
        outbound.take()
        assert outbound.passed == ["first", "second"]

    def test_are_not_kept_when_all_was_sent_already(self, outbound):
        assert outbound.mark("nothing came")
        outbound.put(b"abc")
        outbound.take()
        assert outbound.mark("all was sent")
        outbound.put(b"d")
        outbound.take()
        assert outbound.passed == []

    def test_are_dropped_with_the_bytes(self, outbound):
        outbound.put(b"abc")
        outbound.mark("never")
        outbound.close()
        assert outbound.mark("never either") is False
        assert outbound.advance(3) is None

    def test_of_a_first_byte_are_given_back_with_it(self, outbound):
        outbound.put(b"abc")
        outbound.mark_next("next")
        outbound.put(b"def")
        outbound.take(3)
        assert outbound.passed == []
        outbound.take(1)
        assert outbound.passed == ["next"]

    def test_of_a_first_byte_that_never_came_hold_up_no_others(self, outbound):
        outbound.put(b"abc")
        outbound.mark_next("next")
        assert not outbound.mark("end of what never came")
        outbound.put(b"def")
        outbound.mark("end")
        outbound.take()
        assert outbound.passed == ["end"]

    def test_of_an_end_are_not_kept_where_nothing_came_since_the_first_byte_was(self, outbound):
        outbound.mark_next("next")
        assert not outbound.mark("end")
        outbound.put(b"abc")
        outbound.take()
        assert outbound.passed == []

    def test_are_not_kept_when_nothing_can_come(self, outbound):
        class Thing:
            pass

        thing = Thing()
        known = weakref.ref(thing)
        outbound.close()
        outbound.mark_next(thing)
        del thing
        assert known() is None


class TestTheEnd:
    def test_drops_what_is_unsent(self, outbound):
        outbound.put(b"x" * 100)
        outbound.put(b"y" * 200)
        outbound.close()
        assert outbound.pending == outbound.budget.used == 0
        assert outbound.segments == []
        assert outbound.is_closed

    def test_can_be_repeated(self, outbound):
        outbound.close()
        outbound.close()

    def test_lets_nothing_in(self, outbound):
        outbound.close()
        with pytest.raises(ClientDisconnected):
            outbound.put(b"x")
        with pytest.raises(ClientDisconnected):
            outbound.put(b"")

    def test_between_looking_and_sending_is_harmless(self, outbound):
        outbound.put(b"abc")
        outbound.peek(100)
        outbound.close()
        assert outbound.peek(100) == []
        assert outbound.advance(3) is None
        assert outbound.pending == 0

    def test_closes_all_files_and_then_tells_what_went_wrong(self, outbound):
        class Broken(io.BytesIO):
            def close(self):
                super().close()
                raise LookupError("broken")

        broken, fine = ReadOnlyFileBasedBuffer(Broken(b"x")), prepared(b"x")
        broken.prepare()
        outbound.append_file(broken)
        outbound.append_file(fine)
        with pytest.raises(LookupError):
            outbound.close()
        assert fine.file.closed

    def test_while_a_new_file_is_written_removes_it(self, outbound, monkeypatch):
        write = outbound_module.SpoolFile._pwrite

        def close_meanwhile(file, view, position):
            outbound.close()
            return write(file, view, position)

        monkeypatch.setattr(outbound_module.SpoolFile, "_pwrite", close_meanwhile)
        with pytest.raises(ClientDisconnected):
            outbound.put(b"x" * 200)
        assert outbound.pending == outbound.budget.used == 0

    def test_while_a_file_grows_removes_it_after_the_write(self, outbound, monkeypatch):
        outbound.put(b"x" * 200)
        write = outbound_module.SpoolFile._pwrite

        def close_meanwhile(file, view, position):
            outbound.close()
            os.fstat(file.fileno())  # Nobody else's by now.
            return write(file, view, position)

        monkeypatch.setattr(outbound_module.SpoolFile, "_pwrite", close_meanwhile)
        with pytest.raises(ClientDisconnected):
            outbound.put(b"y")
        assert outbound.pending == outbound.budget.used == 0

    def test_has_the_name_that_users_know(self):
        assert ClientDisconnected is ClientDisconnectedOfUsers


class TestRoom:
    """What a worker waits for above the high watermark."""

    @staticmethod
    def filled(limit=0, on_wait=lambda: None):
        outbound = Outbound(limit, on_wait)
        outbound.put(b"x" * 1001, may_wait=False)
        return outbound

    @staticmethod
    def waiting(outbound):
        """Return a worker that waits for room for three bytes."""
        worker = InThread(outbound.put, b"abc")
        assert WAITS.acquire(timeout=PATIENCE)
        return worker

    def test_is_there_up_to_the_high_watermark(self):
        outbound = Outbound(on_wait=Raises(AssertionError("nobody waits")))
        outbound.put(b"x" * 1000)
        outbound.put(b"y")
        assert outbound.pending == 1001
        assert not outbound.worker_is_waiting
        outbound.close()

    def test_is_there_above_it_as_long_as_the_budget_lasts(self):
        outbound = self.filled(limit=1004)
        outbound.put(b"abc")
        assert outbound.budget.used == 1004
        assert not outbound.worker_is_waiting
        outbound.close()

    def test_is_there_for_the_loop_always(self):
        outbound = self.filled()
        outbound.put(b"y" * 5000, may_wait=False)
        assert outbound.pending == 6001
        outbound.close()

    def test_comes_when_the_reader_has_caught_up(self):
        outbound = self.filled()
        worker = self.waiting(outbound)
        assert outbound.worker_is_waiting
        outbound.take(1)
        worker.result()
        assert not outbound.worker_is_waiting
        assert outbound.take_all() == b"x" * 1000 + b"abc"
        assert outbound.budget.used == 0

    def test_comes_when_others_leave_the_budget(self):
        outbound = self.filled(limit=1001)
        worker = self.waiting(outbound)
        outbound.budget.release(1)
        assert WAITS.acquire(timeout=PATIENCE)  # Too little: it has looked, and waits again.
        outbound.budget.release(2)
        worker.result()
        outbound.budget.take(3)
        outbound.close()
        assert outbound.budget.used == 0

    def test_ends_with_the_connection(self):
        outbound = self.filled()
        worker = self.waiting(outbound)
        outbound.close()
        with pytest.raises(ClientDisconnected):
            worker.result()
        assert outbound.budget.used == 0
        assert not outbound.worker_is_waiting

    def test_that_came_before_the_wait_began_is_not_missed(self):
        """The loop answers the worker's word at once, before the worker sleeps."""
        outbound = self.filled(on_wait=lambda: outbound.take(1))
        outbound.put(b"abc")
        assert outbound.take_all() == b"x" * 1000 + b"abc"

    def test_in_the_budget_that_came_before_the_wait_began_is_not_missed(self):
        outbound = self.filled(limit=1003, on_wait=lambda: outbound.budget.release(1000))
        InThread(outbound.put, b"abc").result()
        outbound.budget.take(1000)
        outbound.close()
        assert outbound.budget.used == 0

    def test_in_the_budget_that_came_right_after_the_look_is_not_missed(self):
        """Between the refusal and the word that a worker waits there is no gap."""
        outbound = self.filled(limit=1003)
        refuse = outbound.budget.reserve

        def reserve(size):
            outbound.budget.reserve = refuse
            assert not refuse(size)
            outbound.budget.release(1000)
            return False

        outbound.budget.reserve = reserve
        InThread(outbound.put, b"abc").result()
        outbound.budget.take(1000)
        outbound.close()

    def test_is_looked_for_again_with_the_same_condition(self):
        outbound = self.filled()
        for _ in range(2):
            worker = self.waiting(outbound)
            outbound.take(outbound.pending - 1000)
            worker.result()
        outbound.close()

    def test_is_told_to_be_wanted_without_the_lock(self):
        told = []
        outbound = self.filled(on_wait=lambda: told.append(len(outbound.peek(1))))
        worker = self.waiting(outbound)
        assert told == [1]
        outbound.close()
        with pytest.raises(ClientDisconnected):
            worker.result()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.lists(st.integers(0, 150), min_size=1, max_size=4)),
        st.tuples(st.just("last"), st.integers(0, 250)),
        st.tuples(st.just("file"), st.integers(0, 60)),
        st.tuples(st.just("take"), st.integers(1, 250)),
        st.tuples(st.just("mark"), st.none()),
    ),
    max_size=40,
)


@settings(max_examples=60)
@given(STEPS)
def test_whatever_comes_leaves_once_in_order_and_is_counted(steps):
    outbound, expected, received, marks = Outbound(), b"", b"", {}
    names = itertools.count()
    octets = iter(bytes(range(256)) * 1000)
    for step, value in steps:
        if step == "put":
            parts = [bytes(next(octets) for _ in range(size)) for size in value]
            outbound.put(*parts, may_wait=False)
            expected += b"".join(parts)
        elif step == "last":
            data = bytes(next(octets) for _ in range(value))
            cut = next(octets)
            parts = data if cut > value else (data[:cut], data[cut:])
            outbound.put_last(parts, may_wait=False)
            expected += data
        elif step == "file":
            data = bytes(next(octets) for _ in range(value))
            outbound.append_file(prepared(data))
            expected += data
        elif step == "mark":
            name = next(names)
            if not outbound.mark(name):
                marks[name] = len(expected)
        elif outbound.pending:
            before = len(received)
            received += outbound.take(value)
            assert len(received) > before
            passed = [each for each, position in marks.items() if position <= len(received)]
            assert outbound.passed == passed
            for each in passed:
                del marks[each]
        assert outbound.pending == len(expected) - len(received)
        assert outbound.pending == sum(map(len, outbound.segments))
    received += outbound.take_all()
    assert received == expected
    assert outbound.budget.used == 0
    outbound.close()


@pytest.mark.stress
@pytest.mark.parametrize("cut", [False, True])
def test_worker_and_loop_at_once_lose_nothing(cut):
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(20):
            _race(cut)
    finally:
        sys.setswitchinterval(interval)
        while WAITS.acquire(timeout=0):
            pass


def _race(cut):
    wake = threading.Event()
    outbound = Outbound(limit=2000, on_wait=wake.set)
    sizes = list(range(0, 400, 7))

    def work():
        for size in sizes:
            outbound.put(b"%d" % (size % 10) * size)
            wake.set()

    worker = InThread(work)
    received, total = b"", sum(sizes)
    while len(received) < (total // 2 if cut else total):
        await_event(wake)
        wake.clear()
        while outbound.pending:
            received += outbound.take(173)
    if cut:
        outbound.close()
        try:
            worker.result()
        except ClientDisconnected:
            pass
    else:
        worker.result()
        assert received == b"".join(b"%d" % (size % 10) * size for size in sizes)
    assert outbound.budget.used == 0
    outbound.close()
