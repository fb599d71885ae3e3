"""Large transfers in both directions, and responses that take their time."""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, Wire, request

pytestmark = pytest.mark.integration

MEGABYTE = 1024 * 1024
BLOCK = random.Random(2).randbytes(MEGABYTE)
COUNT = 100

Serve = Callable[..., Running]


def digest_of(block: bytes, count: int) -> str:
    digest = hashlib.sha256()
    for _ in range(count):
        digest.update(block)
    return digest.hexdigest()


def hashing(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answer with the digest of the body, its length and whether it lay in a file."""
    digest = hashlib.sha256()
    stream = environ["wsgi.input"]
    size = 0
    while block := stream.read(65536):
        digest.update(block)
        size += len(block)
    in_memory = isinstance(stream, io.BytesIO)
    text = f"{digest.hexdigest()} {size} {environ['CONTENT_LENGTH']} {in_memory}"
    start_response("200 OK", [("Content-Length", str(len(text)))])
    return [text.encode()]


# -- uploads -------------------------------------------------------------------------


def expected(count: int) -> str:
    size = count * MEGABYTE
    return f"{digest_of(BLOCK, count)} {size} {size} False"


def test_upload_of_100_mebibytes_with_a_length_is_hashed(serve: Serve) -> None:
    running = serve(hashing)
    with running.connect() as wire:
        wire.send(request("PUT", "/", f"Content-Length: {COUNT * MEGABYTE}"))
        for _ in range(COUNT):
            wire.send(BLOCK)
        assert wire.read_answer().body.decode() == expected(COUNT)
        # The connection goes on, and the next request is not mixed with the body.
        wire.send(request("PUT", "/", body=b"small"))
        assert wire.read_answer().body.decode().endswith(" 5 5 True")


def test_upload_of_100_mebibytes_in_chunks_is_hashed(serve: Serve) -> None:
    running = serve(hashing)
    with running.connect() as wire:
        wire.send(request("PUT", "/", "Transfer-Encoding: chunked"))
        for _ in range(COUNT):
            # Sizes that fall together with no buffer's.
            for start in range(0, MEGABYTE, 99_991):
                piece = BLOCK[start : start + 99_991]
                wire.send(b"%x\r\n%b\r\n" % (len(piece), piece))
        wire.send(b"0\r\n\r\n")
        assert wire.read_answer().body.decode() == expected(COUNT)
        wire.send(request("PUT", "/", body=b"small"))
        assert wire.read_answer().body.decode().endswith(" 5 5 True")


def test_many_uploads_at_once_are_kept_apart(serve: Serve) -> None:
    running = serve(hashing, threads=2)
    answers: dict[int, str] = {}

    def upload(number: int) -> None:
        block = random.Random(number).randbytes(MEGABYTE)
        with running.connect() as wire:
            wire.send(request("PUT", "/", f"Content-Length: {3 * MEGABYTE}"))
            for _ in range(3):
                wire.send(block)
            answers[number] = wire.read_answer().body.decode().split()[0]

    threads = [threading.Thread(target=upload, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == {
        number: digest_of(random.Random(number).randbytes(MEGABYTE), 3) for number in range(12)
    }


def test_half_an_upload_holds_no_worker(serve: Serve) -> None:
    running = serve(hashing, threads=1)
    halves = [running.connect() for _ in range(5)]
    for wire in halves:
        wire.send(request("PUT", "/", f"Content-Length: {2 * MEGABYTE}") + BLOCK)
    with running.connect() as other:
        other.send(request("PUT", "/", body=b"x"))
        assert other.read_answer().status == 200
    for wire in halves:
        wire.send(BLOCK)
        assert wire.read_answer().body.decode() == expected(2)
        wire.close()


# -- downloads -----------------------------------------------------------------------


class Blocks:
    """An iterable of many blocks that says when it was closed."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.closed = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        while self.left:
            self.left -= 1
            yield BLOCK

    def close(self) -> None:
        assert not self.closed.is_set(), "closed twice"
        self.closed.set()


def drain(wire: Wire, count: int) -> str:
    digest = hashlib.sha256()
    while count:
        data = wire.read(min(count, MEGABYTE))
        digest.update(data)
        count -= len(data)
    return digest.hexdigest()


def read_head(wire: Wire) -> bytes:
    lines = []
    while line := wire.read_line():
        lines.append(line)
    return b"\n".join(lines)


def test_download_of_100_mebibytes_from_an_iterable(serve: Serve) -> None:
    blocks = Blocks(COUNT)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(COUNT * MEGABYTE))])
        return blocks

    running = serve(application)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert b"200 OK" in read_head(wire)
        assert drain(wire, COUNT * MEGABYTE) == digest_of(BLOCK, COUNT)
    assert blocks.closed.wait(PATIENCE)


@pytest.fixture(scope="module")
def large_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "large.bin"
    with path.open("wb") as file:
        for _ in range(COUNT):
            file.write(BLOCK)
    return path


def test_download_of_100_mebibytes_from_a_file(serve: Serve, large_path: Path) -> None:
    opened: list[Any] = []

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        opened.append(large_path.open("rb"))
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](opened[-1])

    running = serve(application)
    with running.connect() as wire:
        for _ in range(2):
            wire.send(request("GET", "/"))
            assert f"Content-Length: {COUNT * MEGABYTE}".encode() in read_head(wire)
            assert drain(wire, COUNT * MEGABYTE) == digest_of(BLOCK, COUNT)
        # The connection is free again once the file has been given back.
        wire.send(request("HEAD", "/"))
        assert f"Content-Length: {COUNT * MEGABYTE}".encode() in read_head(wire)
    running.stop()
    assert [each.closed for each in opened] == [True, True, True]


def test_files_are_sent_from_where_they_stand_and_as_far_as_promised(
    serve: Serve, large_path: Path
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        file = large_path.open("rb")
        file.seek(MEGABYTE - 10)
        start_response("200 OK", [("Content-Length", "20")])
        return environ["wsgi.file_wrapper"](file)

    running = serve(application)
    with running.connect() as wire:
        for _ in range(3):
            assert wire.get().body == BLOCK[-10:] + BLOCK[:10]


def test_file_without_a_descriptor_is_sent(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](io.BytesIO(BLOCK))

    running = serve(application)
    with running.connect() as wire:
        assert wire.get().body == BLOCK
        assert wire.get().body == BLOCK


def test_reader_of_a_pipe_is_sent_in_chunks(serve: Serve) -> None:
    class Pipe:
        """Can be read and closed, and nothing else."""

        def __init__(self) -> None:
            self.source = io.BytesIO(BLOCK)
            self.closed = threading.Event()

        def read(self, size: int) -> bytes:
            return self.source.read(size)

        def close(self) -> None:
            self.closed.set()

    pipe = Pipe()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](pipe, 10_000)

    running = serve(application)
    with running.connect() as wire:
        answer = wire.get()
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == BLOCK
    assert pipe.closed.wait(PATIENCE)


def test_file_that_shrinks_while_it_is_sent_cuts_the_response(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "shrinking"
    path.write_bytes(BLOCK * 64)

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", str(64 * MEGABYTE))])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    running = serve(application)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert b"200 OK" in read_head(wire)
        running.call_in_loop(lambda: os.truncate(path, 0))
        assert len(wire.read_to_end()) < 64 * MEGABYTE
    with running.connect() as wire:
        wire.send(b"BAD\r\n\r\n")
        assert wire.read_answer().status == 400


# -- streaming -----------------------------------------------------------------------


def test_blocks_of_a_generator_arrive_as_they_are_made(serve: Serve) -> None:
    go_on = threading.Semaphore(0)

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        for number in range(5):
            yield b"data: %d\n\n" % number
            assert go_on.acquire(timeout=PATIENCE)

    running = serve(application)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert b"Transfer-Encoding: chunked" in read_head(wire)
        for number in range(5):
            # The next block is made only when this one has arrived.
            assert wire.read_line() == b"9"
            assert wire.read(11) == b"data: %d\n\n\r\n" % number
            go_on.release()
        assert wire.read(5) == b"0\r\n\r\n"


def test_written_blocks_arrive_as_they_are_written(serve: Serve) -> None:
    go_on = threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [("Content-Length", "9")])
        write(b"first")
        assert go_on.wait(PATIENCE)
        write(b"last")
        return []

    running = serve(application)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        read_head(wire)
        assert wire.read(5) == b"first"
        go_on.set()
        assert wire.read(4) == b"last"


def test_stream_ends_when_its_reader_is_gone(serve: Serve) -> None:
    closed = threading.Event()

    class Endless:
        def __iter__(self) -> Iterator[bytes]:
            while True:
                yield BLOCK

        def close(self) -> None:
            closed.set()

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return Endless()

    running = serve(application, threads=1)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert len(wire.read(MEGABYTE)) == MEGABYTE
    assert closed.wait(PATIENCE)
    with running.connect() as wire:
        wire.send(b"BAD\r\n\r\n")
        assert wire.read_answer().status == 400


def test_application_can_ask_whether_its_client_is_gone(serve: Serve) -> None:
    entered, gone = threading.Event(), threading.Event()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        entered.set()
        ask = environ["waitress.client_disconnected"]
        while not ask():
            assert not gone.wait(0.01)
        gone.set()
        start_response("200 OK", [])
        return [b""]

    running = serve(application, channel_request_lookahead=1)
    with running.connect() as wire:
        wire.send(request("GET", "/"))
        assert entered.wait(PATIENCE)
    assert gone.wait(PATIENCE)


def test_slow_readers_hold_no_worker(serve: Serve) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        count = 8 if environ["PATH_INFO"] == "/large" else 0
        start_response("200 OK", [("Content-Length", str(count * MEGABYTE))])
        return [BLOCK] * count

    running = serve(application, threads=1)
    slow = [running.connect() for _ in range(6)]
    for wire in slow:
        wire.send(request("GET", "/large"))
    with running.connect() as other:
        assert other.get("/small").status == 200
    for wire in slow:
        read_head(wire)
        assert drain(wire, 8 * MEGABYTE) == digest_of(BLOCK, 8)
        wire.close()
