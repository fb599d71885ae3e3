"""Temporary files that are used again: cheap, and never one client's bytes for another."""

from __future__ import annotations

import errno
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import Running
from tests.looping import load_elsewhere
from waitress import spare_files
from waitress.buffers import OverflowableBuffer, TempfileBasedBuffer
from waitress.spare_files import (
    MOST_SPARE_FILES,
    SPARE_BYTES,
    SPARE_FILE_BYTES,
    BodyFile,
    SpareFiles,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.skipif(not spare_files._can_spare, reason="needs pwrite and fork"),
]

Serve = Callable[..., Running]


@pytest.fixture
def spares() -> Iterator[SpareFiles]:
    files = SpareFiles()
    yield files
    files.close()


def taken(spares: SpareFiles, directory: str | None = None) -> BodyFile:
    file = spares.take_file(directory)
    assert file is not None
    return file


def used(spares: SpareFiles, content: bytes, directory: str | None = None) -> BodyFile:
    """Return a file that was written and given back."""
    file = taken(spares, directory)
    file.append(content)
    file.close()
    return file


class FullDisk:
    """Takes the place of ``os.pwrite``: some bytes fit, and no more."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, room: int) -> None:
        self.room, self.write = room, os.pwrite
        monkeypatch.setattr(os, "pwrite", self)

    def __call__(self, descriptor: int, data: Any, position: int) -> int:
        if not self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        written = self.write(descriptor, memoryview(data)[: self.room], position)
        self.room -= written
        return written


@pytest.mark.parametrize("room", [0, 3])
def test_file_that_the_disk_has_no_room_for_is_not_kept(
    spares: SpareFiles, monkeypatch: pytest.MonkeyPatch, room: int
) -> None:
    """What it has taken of the disk is what the others lack."""
    file = taken(spares)
    FullDisk(monkeypatch, room)
    with pytest.raises(OSError, match="No space left"):
        file.append(b"12345")
    file.close()
    assert len(spares) == 0


class TestUsedFile:
    def test_is_used_again(self, spares: SpareFiles) -> None:
        first = used(spares, b"first")
        assert len(spares) == 1
        assert taken(spares) is first
        assert len(spares) == 0
        first.close()

    @pytest.mark.parametrize("content", [b"", b"new", b"new and longer than before"])
    def test_has_nothing_of_what_it_held_before(self, spares: SpareFiles, content: bytes) -> None:
        used(spares, b"a client's secret")
        file = taken(spares)
        file.append(content)
        assert file.open().read() == content
        file.close()

    def test_has_nothing_of_what_an_application_wrote_to_it(self, spares: SpareFiles) -> None:
        file = taken(spares)
        file.append(b"a")
        opened = file.open()
        opened.seek(0, os.SEEK_END)
        opened.write(b" note of the application's")
        file.close()
        assert taken(spares) is file
        file.append(b"b")
        assert file.open().read() == b"b"
        file.close()

    def test_is_read_from_its_start(self, spares: SpareFiles) -> None:
        file = taken(spares)
        file.append(b"abc")
        assert file.open().read(2) == b"ab"
        file.close()
        assert taken(spares) is file
        file.append(b"def")
        assert file.open().read() == b"def"
        file.close()

    def test_keeps_no_more_than_so_much(self, spares: SpareFiles) -> None:
        file = used(spares, b"x" * (SPARE_FILE_BYTES + 1))
        assert os.fstat(file._descriptor).st_size == SPARE_FILE_BYTES

    def test_cannot_be_read_by_the_application_of_before(self, spares: SpareFiles) -> None:
        file = taken(spares)
        file.append(b"abc")
        opened = file.open()
        raw = opened.raw
        file.close()
        assert len(spares) == 1
        for kept in (opened, raw):
            with pytest.raises(ValueError, match="closed"):
                kept.read()

    def test_is_used_again_when_the_application_has_closed_it(self, spares: SpareFiles) -> None:
        file = taken(spares)
        file.open().close()
        file.close()
        assert len(spares) == 1


class TestNotUsedAgain:
    def test_is_a_file_whose_descriptor_was_asked_for(self, spares: SpareFiles) -> None:
        file = taken(spares)
        file.append(b"abc")
        duplicate = os.dup(file.open().fileno())
        file.close()
        assert len(spares) == 0
        assert os.pread(duplicate, 10, 0) == b"abc"
        os.close(duplicate)

    def test_is_a_file_that_was_detached(self, spares: SpareFiles) -> None:
        file = taken(spares)
        file.append(b"abc")
        raw = file.open().detach()
        file.close()
        assert len(spares) == 0
        assert raw.read() == b"abc"
        file.discard()

    def test_is_a_file_that_a_child_has_too(self, spares: SpareFiles) -> None:
        spare = used(spares, b"spare")
        file = taken(spares)
        assert file is spare
        other = used(spares, b"other")
        file.append(b"abc")
        opened = file.open()
        read_end, write_end = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # The child does nothing that needs a lock.
            child = os.fork()
        if not child:
            # Reads what is left of its request when the parent is done with it.
            os.read(read_end, 1)
            os._exit(0 if opened.read() == b"abc" else 1)
        file.close()
        os.write(write_end, b".")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        os.close(read_end)
        os.close(write_end)
        third = taken(spares)
        assert third not in (file, other)
        third.close()
        assert len(spares) == 1

    def test_is_a_file_of_another_directory(self, spares: SpareFiles, tmp_path: Path) -> None:
        elsewhere = used(spares, b"abc", str(tmp_path))
        file = taken(spares)
        assert file is not elsewhere
        file.close()
        assert len(spares) == 1

    def test_is_one_file_too_many(self, spares: SpareFiles) -> None:
        files = [taken(spares) for _ in range(MOST_SPARE_FILES + 1)]
        for file in files:
            file.close()
        assert len(spares) == MOST_SPARE_FILES

    def test_is_a_file_for_which_there_is_no_room(self, spares: SpareFiles) -> None:
        def give_back() -> None:
            files = [taken(spares) for _ in range(most + 1)]
            for file in files:
                file.append(b"x" * SPARE_FILE_BYTES)
                file.close()

        most = SPARE_BYTES // SPARE_FILE_BYTES
        assert 0 < most < MOST_SPARE_FILES
        give_back()
        assert len(spares) == most
        give_back()
        assert len(spares) == most
        spares.close_unused()  # All of them were needed.
        spares.close_unused()
        assert len(spares) == 0
        give_back()
        assert len(spares) == most

    def test_is_a_file_that_cannot_be_rewound(
        self, spares: SpareFiles, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*args: Any) -> int:
            raise OSError("no")

        file = taken(spares)
        monkeypatch.setattr(os, "lseek", fail)
        file.close()
        assert len(spares) == 0

    def test_is_a_file_of_a_server_that_was_closed(self, spares: SpareFiles) -> None:
        file = taken(spares)
        spares.close()
        file.close()
        assert len(spares) == 0

    def test_is_a_file_that_nobody_has_needed_for_long(self, spares: SpareFiles) -> None:
        files = [taken(spares) for _ in range(3)]
        for file in files:
            file.close()
        spares.close_unused()
        assert len(spares) == 3
        used(spares, b"only one is needed")
        spares.close_unused()
        assert len(spares) == 1
        spares.close_unused()
        assert len(spares) == 0


def test_nothing_is_left_behind_by_those_who_are_forgotten() -> None:
    used(SpareFiles(), b"abc")


def test_file_takes_all_even_if_the_system_takes_little(
    spares: SpareFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    os_pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: os_pwrite(fd, data[:2], at))
    file = taken(spares)
    file.append(b"abcde")
    file.append(memoryview(b"fgh"))
    assert file.open().read() == b"abcdefgh"
    file.close()


def test_no_file_is_used_again_where_the_system_cannot(
    spares: SpareFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.delattr(os, "register_at_fork")
        assert not load_elsewhere(patch, spare_files)._can_spare
    monkeypatch.setattr(spare_files, "_can_spare", False)
    assert spares.take_file(None) is None
    buffer = TempfileBasedBuffer(files=spares)
    buffer.append(b"abc")
    assert buffer.get() == b"abc"
    buffer.close()


class TestBuffer:
    def test_is_written_to_a_file_that_was_used_before(self, spares: SpareFiles) -> None:
        file = used(spares, b"a client's secret")
        buffer = TempfileBasedBuffer(files=spares)
        assert len(spares) == 0
        buffer.append(b"ab")
        buffer.append(b"c")
        assert buffer.__len__() == 3
        assert buffer.get(skip=True) == b"abc"
        buffer.close()
        assert taken(spares) is file
        file.close()

    def test_can_be_written_to_behind_what_was_read(self, spares: SpareFiles) -> None:
        used(spares, b"a client's secret")
        buffer = TempfileBasedBuffer(files=spares)
        buffer.append(b"abc")
        assert buffer.get(2, skip=True) == b"ab"
        buffer.append(b"def")
        assert buffer.getfile().read() == b"cdef"
        buffer.close()

    def test_can_be_closed_twice(self, spares: SpareFiles) -> None:
        for used_how in (lambda buffer: buffer.append(b"abc"), TempfileBasedBuffer.getfile):
            buffer = TempfileBasedBuffer(files=spares)
            used_how(buffer)
            buffer.close()
            buffer.close()
            assert buffer.__len__() == 0
            assert len(spares) == 1

    def test_closes_both_files_when_it_was_pruned(self, spares: SpareFiles) -> None:
        buffer = TempfileBasedBuffer(files=spares)
        buffer.append(b"abcdef")
        buffer.skip(3)
        buffer.prune()
        assert buffer.get() == b"def"
        pruned = buffer.getfile()
        buffer.close()
        assert pruned.closed
        assert len(spares) == 1

    def test_has_no_other_attributes(self, spares: SpareFiles) -> None:
        buffer = TempfileBasedBuffer(files=spares)
        assert not hasattr(buffer, "no_such_thing")
        buffer.close()

    def test_of_a_body_that_will_be_large_is_a_file_from_the_second_piece_on(
        self, spares: SpareFiles
    ) -> None:
        buffer = OverflowableBuffer(100_000, expected=100_000)
        buffer.files = spares
        first = b"x" * 50_000
        buffer.append(first)
        assert buffer.strbuf is first
        buffer.append(b"y")
        assert buffer.overflowed
        assert buffer.getfile().read() == first + b"y"
        buffer.close()
        assert len(spares) == 1


def post(size: int) -> bytes:
    return b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size


def test_bodies_of_one_server_share_files(serve: Serve) -> None:
    """Each application reads its own body to the end, and nothing behind it."""

    def echo(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        body = environ["wsgi.input"].read()
        return [b"%d %b" % (len(body), bytes(sorted(set(body))))]

    running = serve(echo, inbuf_overflow=1000)
    wire = running.connect()
    for letter, size in ((b"a", 300_000), (b"b", 200_000), (b"c", 250_000), (b"d", 1000)):
        wire.send(post(size) + letter * size)
        assert wire.read_answer().body == b"%d %b" % (size, letter)
    wire.close()
    spares = running.server.spare_files
    assert len(spares) == 1
    running.server.maintenance(0)
    running.server.maintenance(0)
    assert len(spares) == 0
