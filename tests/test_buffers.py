"""Stores of bytes: what comes out is what went in, wherever it was kept meanwhile."""

from __future__ import annotations

import gzip
import io
import os
import sys
import tempfile
from functools import partial
from tempfile import NamedTemporaryFile, SpooledTemporaryFile, TemporaryFile

import pytest

from waitress.buffers import (
    COPY_BYTES,
    STRBUF_LIMIT,
    BytesIOBasedBuffer,
    FileBasedBuffer,
    OverflowableBuffer,
    ReadOnlyFileBasedBuffer,
    TempfileBasedBuffer,
    _is_seekable,
)


class FullDisk(io.BytesIO):
    """A file that takes ``room`` bytes and then fails, as a full disk does."""

    def __init__(self, room=0):
        super().__init__()
        self.room = room

    def write(self, data):
        if self.tell() + len(data) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(data)


class Huge:
    """Something longer than ``len()`` can say."""

    def __len__(self):
        return sys.maxsize + 1


@pytest.fixture(params=[BytesIOBasedBuffer, TempfileBasedBuffer])
def buffer(request):
    buffer = request.param()
    yield buffer
    buffer.close()


@pytest.fixture
def overflowable():
    buffers = []

    def make(overflow, **kw):
        buffers.append(OverflowableBuffer(overflow, **kw))
        return buffers[-1]

    yield make
    for buffer in buffers:
        buffer.close()


# File-backed buffers


def test_any_object_is_taken_as_file_unlooked_at():
    assert FileBasedBuffer(None).getfile() is None
    assert FileBasedBuffer("name").remain == 0


def test_bytes_come_out_in_the_order_they_went_in(buffer):
    buffer.append(b"abc")
    buffer.append(memoryview(b"def"))
    assert buffer.__len__() == 6
    assert buffer.get(2) == b"ab"
    assert buffer.get() == b"abcdef"
    assert buffer.get(2, skip=True) == b"ab"
    buffer.append(b"ghi")
    assert buffer.__len__() == 7
    assert buffer.get(skip=True) == b"cdefghi"
    assert buffer.__len__() == 0


def test_skip_moves_the_read_position_and_no_further_than_the_end(buffer):
    buffer.append(b"abcdef")
    buffer.skip(2)
    assert (buffer.remain, buffer.get()) == (4, b"cdef")
    with pytest.raises(ValueError, match="Can't skip 5 bytes in buffer of 4 bytes"):
        buffer.skip(5, True)
    assert (buffer.remain, buffer.get()) == (4, b"cdef")


def test_an_empty_file_buffer_is_true_because_it_must_be_closed(buffer):
    assert buffer


def test_a_copy_has_all_bytes_and_the_read_position_of_its_source(buffer):
    buffer.append(b"x" * COPY_BYTES + b"abc")
    buffer.skip(COPY_BYTES)
    copy = BytesIOBasedBuffer(buffer)
    assert (copy.remain, copy.get()) == (3, b"abc")
    assert (buffer.remain, buffer.get()) == (3, b"abc")
    assert copy.getfile().getvalue() == b"x" * COPY_BYTES + b"abc"


def test_prune_lets_go_of_what_was_read_and_is_ready_to_read_the_rest(buffer):
    buffer.append(b"abcdef")
    buffer.skip(2)
    old = buffer.getfile()
    buffer.prune()
    assert old.closed
    assert buffer.getfile().tell() == 0
    assert buffer.getfile().read() == b"cdef"
    buffer.getfile().seek(0)
    assert (buffer.remain, buffer.get()) == (4, b"cdef")


def test_prune_keeps_all_bytes_of_what_was_not_read(buffer):
    buffer.append(b"abc")
    old = buffer.getfile()
    buffer.prune()
    assert old.closed
    assert buffer.get() == b"abc"


def test_prune_keeps_an_empty_file_and_replaces_an_exhausted_one(buffer):
    fresh = buffer.getfile()
    buffer.prune()
    assert buffer.getfile() is fresh
    buffer.append(b"abc")
    buffer.skip(3)
    buffer.prune()
    assert buffer.getfile() is not fresh
    assert buffer.get() == b""


def test_a_prune_that_fails_closes_the_new_file_and_keeps_the_old(buffer):
    buffer.append(b"abcdef")
    buffer.skip(2)
    old, full = buffer.getfile(), FullDisk()
    buffer.newfile = lambda: full
    with pytest.raises(OSError, match="No space"):
        buffer.prune()
    assert full.closed
    assert buffer.getfile() is old
    assert buffer.get() == b"cdef"


def test_the_base_class_knows_no_kind_of_new_file():
    buffer = FileBasedBuffer(io.BytesIO(b"abc"))
    with pytest.raises(NotImplementedError):
        buffer.newfile()
    buffer.remain = 3
    with pytest.raises(NotImplementedError):
        buffer.prune()


def test_close_closes_the_file_and_leaves_nothing(buffer):
    buffer.append(b"abc")
    buffer.close()
    assert buffer.getfile().closed
    assert buffer.__len__() == 0


def test_close_takes_a_file_that_cannot_be_closed():
    buffer = FileBasedBuffer(object())
    buffer.remain = 3
    buffer.close()
    assert buffer.remain == 0


def test_lengths_may_exceed_what_len_can_say():
    buffer = FileBasedBuffer(None)
    buffer.remain = sys.maxsize + 1
    assert buffer.__len__() == sys.maxsize + 1


def test_a_temporary_file_is_made_where_it_is_told_to(tmp_path):
    with pytest.raises(FileNotFoundError):
        TempfileBasedBuffer(dir=str(tmp_path / "missing"))
    buffer = TempfileBasedBuffer(dir=str(tmp_path))
    buffer.append(b"abc")
    assert os.fstat(buffer.getfile().fileno()).st_dev == os.stat(tmp_path).st_dev
    buffer.close()


class LazyFile(io.BytesIO):
    """A file that writes nothing through before it is told to."""

    written_through = b""

    def flush(self):
        self.written_through = self.getvalue()


def test_what_is_appended_to_a_temporary_file_is_in_the_descriptor_at_once(monkeypatch):
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *args, **kw: LazyFile())
    monkeypatch.delattr(os, "pwrite")  # Where there is none, the file is flushed.
    buffer = TempfileBasedBuffer()
    buffer.append(b"abc")
    assert buffer.getfile().written_through == b"abc"
    assert TempfileBasedBuffer(buffer).getfile().written_through == b"abc"


def test_a_temporary_file_takes_what_the_system_takes_in_pieces(monkeypatch):
    os_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: os_pwrite(fd, data[:2], at))
    buffer = TempfileBasedBuffer()
    buffer.append(b"abcde")
    assert buffer.get(3, skip=True) == b"abc"
    buffer.append(b"fgh")
    assert buffer.__len__() == 5
    assert buffer.get() == b"defgh"
    buffer.close()


def test_a_temporary_file_that_cannot_take_the_copy_is_closed(monkeypatch):
    files = []

    def full_disk(*args, **kw):
        files.append(FullDisk())
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", full_disk)
    source = BytesIOBasedBuffer()
    source.append(b"abc")
    with pytest.raises(OSError, match="No space"):
        TempfileBasedBuffer(source)
    assert [file.closed for file in files] == [True]
    assert source.get() == b"abc"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_is_told_to_whoever_appends_and_not_when_closing():
    buffer = TempfileBasedBuffer()
    buffer.getfile().close()
    raw = io.FileIO("/dev/full", "r+")
    buffer.file = io.BufferedRandom(raw)
    with pytest.raises(OSError, match="No space"):
        buffer.append(b"abc")
    assert buffer.remain == 0
    buffer.close()
    assert raw.closed


# The file wrapper


class Unseekable(io.RawIOBase):
    """A stream as a pipe is: it can be read once, from front to back."""

    def __init__(self, data=b""):
        self.stream = io.BytesIO(data)

    def read(self, size=-1):
        return self.stream.read(size)


class Plain:
    """A file of somebody's own making, with nothing but what was asked for."""

    def __init__(self, **methods):
        self.__dict__.update(methods)


def test_seekable_is_what_says_so_or_has_the_methods():
    assert _is_seekable(io.BytesIO())
    assert not _is_seekable(Unseekable())
    assert _is_seekable(Plain(seek=1, tell=1))
    assert not _is_seekable(Plain(seek=1))
    assert not _is_seekable(Plain(tell=1))
    assert not _is_seekable(Plain(seekable=lambda: False, seek=1, tell=1))


def test_the_wrapper_shows_the_methods_of_a_file_that_can_seek():
    file = io.BytesIO()
    wrapper = ReadOnlyFileBasedBuffer(file)
    assert wrapper.seek == file.seek
    assert wrapper.tell == file.tell
    assert wrapper.seekable == file.seekable


def test_the_wrapper_has_no_such_methods_for_a_file_that_cannot_seek():
    wrapper = ReadOnlyFileBasedBuffer(Unseekable())
    for name in ("seek", "tell", "seekable"):
        assert not hasattr(wrapper, name)


def test_the_wrapper_claims_no_seekable_method_that_the_file_lacks():
    stream = io.BytesIO(b"abc")
    wrapper = ReadOnlyFileBasedBuffer(Plain(seek=stream.seek, tell=stream.tell))
    assert not hasattr(wrapper, "seekable")
    assert wrapper.prepare() == 3


def test_prepare_measures_from_the_position_to_the_end_or_to_what_is_wanted():
    file = io.BytesIO(b"abcdef")
    file.seek(2)
    wrapper = ReadOnlyFileBasedBuffer(file)
    assert wrapper.remain == 0
    assert wrapper.prepare() == wrapper.remain == wrapper.__len__() == 4
    assert wrapper.prepare(3) == 3
    assert wrapper.prepare(9) == 4
    assert file.tell() == 2


def test_prepare_finds_nothing_behind_the_end():
    file = io.BytesIO(b"abc")
    file.seek(5)
    assert ReadOnlyFileBasedBuffer(file).prepare() == 0


def test_prepare_cannot_measure_what_cannot_seek():
    assert ReadOnlyFileBasedBuffer(Unseekable(b"abc")).prepare(3) == 0


@pytest.mark.parametrize("failure", [OSError, io.UnsupportedOperation, NotImplementedError])
def test_a_file_that_claims_to_seek_and_fails_is_taken_for_unseekable(failure):
    class Liar(io.BytesIO):
        def tell(self):
            raise failure("not really")

    assert ReadOnlyFileBasedBuffer(Liar(b"abc")).prepare() == 0


@pytest.mark.parametrize(
    "opened",
    [
        partial(open, mode="rb"),
        partial(open, mode="r+b"),
        partial(open, mode="rb", buffering=0),
        lambda path: NamedTemporaryFile(dir=path.parent),  # noqa: SIM115
        lambda path: TemporaryFile(dir=path.parent),  # noqa: SIM115
    ],
)
def test_the_wrapper_tells_the_descriptor_of_a_plain_file(opened, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    wrapper = ReadOnlyFileBasedBuffer(opened(path))
    assert wrapper.descriptor == wrapper.file.fileno()
    assert wrapper.reads_at_once
    wrapper.close()
    assert wrapper.descriptor is None


class Loud(io.FileIO):
    """A file that reads something else than its descriptor holds."""

    def read(self, size=-1):
        return super().read(size).upper()


@pytest.mark.parametrize(
    "opened",
    [
        gzip.open,
        lambda path: io.BufferedReader(gzip.GzipFile(path)),
        Loud,
        lambda path: io.BufferedReader(Loud(path)),
        lambda path: io.FileIO(os.devnull),
        lambda path: SpooledTemporaryFile(dir=path.parent),  # noqa: SIM115
        lambda path: LazyFile(),
    ],
)
def test_the_wrapper_tells_no_descriptor_that_holds_other_bytes(opened, tmp_path):
    path = tmp_path / "file"
    path.write_bytes(gzip.compress(b"x"))
    with opened(path) as file:
        wrapper = ReadOnlyFileBasedBuffer(file)
        assert wrapper.descriptor is None
        assert not wrapper.reads_at_once


def test_what_lies_in_memory_is_read_at_once():
    wrapper = ReadOnlyFileBasedBuffer(io.BytesIO(b"x"))
    assert wrapper.descriptor is None
    assert wrapper.reads_at_once


def test_get_never_reads_beyond_what_remains():
    wrapper = ReadOnlyFileBasedBuffer(io.BytesIO(b"abcdef"))
    wrapper.prepare(4)
    assert wrapper.get() == b"abcd"
    assert wrapper.get(-5) == b"abcd"
    assert wrapper.get(9) == b"abcd"
    assert wrapper.get(3, skip=True) == b"abc"
    assert (wrapper.remain, wrapper.get()) == (1, b"d")
    wrapper.skip(1)
    assert wrapper.get(skip=True) == b""


def test_the_wrapper_is_iterated_in_blocks():
    wrapper = ReadOnlyFileBasedBuffer(Unseekable(b"abcde"), 2)
    assert iter(wrapper) is wrapper
    assert wrapper.next() == b"ab"
    assert list(wrapper) == [b"cd", b"e"]


def test_a_block_has_32_kib_unless_told_otherwise():
    assert len(next(ReadOnlyFileBasedBuffer(io.BytesIO(b"x" * 40000)))) == 32768


def test_nothing_can_be_appended_to_the_applications_file():
    with pytest.raises(NotImplementedError):
        ReadOnlyFileBasedBuffer(io.BytesIO()).append(b"abc")


def test_closing_the_wrapper_closes_the_file():
    file = io.BytesIO(b"abc")
    wrapper = ReadOnlyFileBasedBuffer(file)
    wrapper.prepare()
    wrapper.close()
    assert file.closed
    assert wrapper.remain == 0


# The ladder


def test_an_empty_ladder_holds_nothing(overflowable):
    buffer = overflowable(10)
    assert not buffer
    assert buffer.__len__() == 0
    assert buffer.get() == b""
    assert (buffer.buf, buffer.strbuf, buffer.overflowed) == (None, b"", False)


def test_little_is_kept_in_one_string(overflowable):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    buffer.append(memoryview(b"def"))
    assert buffer
    assert (buffer.buf, buffer.strbuf) == (None, b"abcdef")


def test_get_without_skip_returns_the_whole_small_string(overflowable):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    assert buffer.get(1) == b"abc"
    assert buffer.buf is None


def test_get_with_skip_removes_what_it_returns(overflowable):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    assert buffer.get(1, skip=True) == b"a"
    assert buffer.get() == b"bc"
    assert isinstance(buffer.buf, BytesIOBasedBuffer)


def test_more_goes_to_memory_and_then_to_a_temporary_file(overflowable):
    buffer = overflowable(STRBUF_LIMIT * 2)
    piece = b"x" * (STRBUF_LIMIT - 1)
    buffer.append(piece)
    assert buffer.strbuf == piece
    buffer.append(b"y")
    assert isinstance(buffer.buf, BytesIOBasedBuffer)
    assert buffer.strbuf == b""
    buffer.append(piece)
    assert not buffer.overflowed
    buffer.append(b"z")
    assert buffer.overflowed
    assert isinstance(buffer.buf, TempfileBasedBuffer)
    large = buffer.buf
    buffer.append(b"!")
    assert buffer.buf is large
    assert buffer.__len__() == STRBUF_LIMIT * 2 + 1
    assert buffer.get() == piece + b"y" + piece + b"z!"


def test_what_overflows_at_once_does_not_pass_through_memory(overflowable, monkeypatch):
    taken = []
    monkeypatch.setattr(BytesIOBasedBuffer, "append", lambda self, s: taken.append(s))
    buffer = overflowable(STRBUF_LIMIT)
    buffer.append(b"x" * 100000)
    assert taken == []
    assert buffer.overflowed


def test_a_string_beyond_the_threshold_goes_to_a_file_when_it_must_be_one(overflowable):
    buffer = overflowable(2)
    buffer.append(b"abc")
    assert buffer.buf is None
    assert buffer.getfile().read() == b"abc"
    assert buffer.overflowed


def test_getfile_is_positioned_at_the_first_unread_byte(overflowable):
    buffer = overflowable(1 << 20)
    assert isinstance(buffer.getfile(), io.BytesIO)
    buffer.append(b"abc")
    buffer.skip(1)
    assert buffer.getfile().read() == b"bc"


def test_the_temporary_file_is_made_in_the_spool_directory(overflowable, tmp_path):
    buffer = overflowable(1, spool_dir=str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        buffer.append(b"x" * STRBUF_LIMIT)


def test_skipping_a_whole_small_string_forgets_it(overflowable):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    buffer.skip(3, True)
    assert (buffer.buf, buffer.strbuf) == (None, b"")


@pytest.mark.parametrize(("count", "allow_prune"), [(2, True), (3, False)])
def test_skipping_otherwise_makes_a_file_buffer(overflowable, count, allow_prune):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    buffer.skip(count, allow_prune)
    assert buffer.buf is not None
    assert buffer.get() == b"abc"[count:]


def test_more_than_there_is_cannot_be_skipped(overflowable):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    with pytest.raises(ValueError, match="Can't skip 4 bytes in buffer of 3 bytes"):
        buffer.skip(4)
    assert buffer.get() == b"abc"


def test_pruning_a_string_forgets_it(overflowable):
    buffer = overflowable(1 << 20)
    buffer.append(b"abc")
    buffer.prune()
    assert buffer.__len__() == 0


def test_pruning_returns_to_memory_when_little_is_left(overflowable):
    buffer = overflowable(STRBUF_LIMIT)
    buffer.append(b"x" * STRBUF_LIMIT + b"abc")
    buffer.skip(1)
    unpruned = buffer.getfile()
    buffer.prune()
    assert unpruned.closed
    assert buffer.overflowed
    buffer.skip(STRBUF_LIMIT - 1)
    large = buffer.getfile()
    buffer.prune()
    assert not buffer.overflowed
    assert large.closed
    assert buffer.get() == b"abc"
    small = buffer.buf
    buffer.prune()
    assert buffer.buf is small
    assert buffer.get() == b"abc"


def test_the_length_may_exceed_what_len_can_say(overflowable):
    buffer = overflowable(1)
    buffer.buf = Huge()
    assert buffer.__len__() == sys.maxsize + 1
    buffer.buf = None


def test_closing_closes_the_file_and_a_string_needs_none(overflowable):
    buffer = overflowable(1 << 20)
    assert buffer.close() is None
    buffer.append(b"x" * STRBUF_LIMIT)
    file = buffer.getfile()
    buffer.close()
    assert file.closed
    assert buffer.__len__() == 0
    with pytest.raises(ValueError, match="closed"):
        buffer.append(b"abc")
    with pytest.raises(ValueError, match="closed"):
        buffer.get()


@pytest.mark.parametrize("held", [b"abcd", b"x" * STRBUF_LIMIT])
def test_a_full_disk_costs_no_byte_that_was_held(overflowable, monkeypatch, held):
    files = []

    def full_disk(*args, **kw):
        files.append(FullDisk(room=2))
        return files[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", full_disk)
    buffer = overflowable(STRBUF_LIMIT + 1)
    buffer.append(held)
    with pytest.raises(OSError, match="No space"):
        buffer.append(b"y" * STRBUF_LIMIT)
    assert [file.closed for file in files] == [True]
    assert not buffer.overflowed
    assert buffer.get() == held


def test_a_full_disk_leaves_the_string_when_a_file_is_asked_for(overflowable, monkeypatch):
    full = FullDisk(room=2)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda *args, **kw: full)
    monkeypatch.delattr(os, "pwrite")
    buffer = overflowable(3)
    buffer.append(b"abcd")
    with pytest.raises(OSError, match="No space"):
        buffer.getfile()
    assert full.closed
    assert (buffer.get(), buffer.buf, buffer.overflowed) == (b"abcd", None, False)
