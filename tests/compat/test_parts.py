"""Other servers, built on parts of this one: parser, tasks, buffers, errors."""

from __future__ import annotations

import io
import socket
import tempfile
from typing import Any

import pytest

from tests.compat.live import chunked, hello, mirror, request
from waitress.buffers import OverflowableBuffer, ReadOnlyFileBasedBuffer
from waitress.parser import (
    HTTPRequestParser,
    ParsingError,
    TransferEncodingNotImplemented,
    get_header_lines,
    split_uri,
)
from waitress.rfc7230 import HEADER_FIELD_RE
from waitress.task import ErrorTask, WSGITask
from waitress.utilities import BadRequest, InternalServerError


class OldSettings:
    """A settings object from before there were newer settings, with the old names only."""

    url_scheme = "http"
    url_prefix = ""
    ident = "parts"
    max_request_header_size = 1000
    max_request_body_size = 100000
    inbuf_overflow = 10000
    outbuf_overflow = 10000
    outbuf_high_watermark = 100000
    recv_bytes = 8192
    send_bytes = 1
    log_socket_errors = True
    expose_tracebacks = False
    channel_request_lookahead = 0


# -- the parser alone ----------------------------------------------------------------


def parse(data: bytes, step: int) -> list[HTTPRequestParser]:
    """Parse a stream of requests that arrives ``step`` octets at a time."""
    parsers = [HTTPRequestParser(OldSettings())]
    for start in range(0, len(data), step):
        piece = data[start : start + step]
        while piece:
            if parsers[-1].completed:
                parsers.append(HTTPRequestParser(OldSettings()))
            used = parsers[-1].received(piece)
            piece = piece[used:]
    return parsers


@pytest.mark.parametrize("step", [1, 7, 100000], ids=["octets", "pieces", "whole"])
def test_parser_reads_a_stream_of_requests(step: int) -> None:
    stream = (
        request("GET", "/one%20two?a=b")
        + request("POST", "/body", "Content-Type: text/plain", body=b"b" * 20000)
        + request("POST", "/chunks", "Transfer-Encoding: chunked")
        + chunked([b"first ", b"second"])
    )
    get, post, chunks = parse(stream, step)
    assert all(each.completed and not each.error for each in (get, post, chunks))
    assert (get.command, get.path, get.query, get.version) == ("GET", "/one two", "a=b", "1.1")
    assert get.headers == {"HOST": "localhost"}
    assert get.get_body_stream().read() == b""
    assert post.headers["CONTENT_LENGTH"] == "20000"
    assert post.get_body_stream().read() == b"b" * 20000
    assert chunks.get_body_stream().read() == b"first second"
    assert chunks.headers["CONTENT_LENGTH"] == "12"
    assert "TRANSFER_ENCODING" not in chunks.headers
    for each in (get, post, chunks):
        each.close()


def test_parser_tells_what_it_refuses() -> None:
    (parser,) = parse(b"GET / HTTP/1.1\r\nHost: x\r\nBroken\r\n\r\n", 1000)
    assert parser.completed
    assert isinstance(parser.error, BadRequest)
    assert "header" in str(parser.error.body).lower()


def test_parser_with_old_settings_keeps_their_limits() -> None:
    (parser,) = parse(b"GET / HTTP/1.1\r\nX: " + b"y" * 1000, 2000)
    assert parser.error.code == 431
    (parser,) = parse(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", 1000)
    assert parser.error.code == 413


def test_header_block_can_be_parsed_directly() -> None:
    parser = HTTPRequestParser(OldSettings())
    parser.parse_header(b"GET /direct HTTP/1.1\r\nHost: h\r\nX-One: 1\r\n")
    assert (parser.path, parser.headers["X_ONE"]) == ("/direct", "1")
    with pytest.raises(ParsingError):
        HTTPRequestParser(OldSettings()).parse_header(b"GET / HTTP/1.1")
    with pytest.raises(TransferEncodingNotImplemented):
        HTTPRequestParser(OldSettings()).parse_header(
            b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n"
        )


def test_grammar_can_be_used_by_itself() -> None:
    lines = get_header_lines(b"One: 1\r\nTwo:  2 \r\n")
    fields = [HEADER_FIELD_RE.match(line) for line in lines]
    assert [(f["name"], f["value"]) for f in fields if f] == [(b"One", b"1"), (b"Two", b"2")]
    assert split_uri(b"http://h:1/a%20b?q#f") == ("http", "h:1", "/a b", "q", "f")


# -- tasks on another kind of channel -------------------------------------------------


class MemoryServer:
    """What a task asks of a server, and no more."""

    effective_port = "80"
    server_name = "memory.test"

    def __init__(self, application: Any) -> None:
        self.application = application
        self.adj = OldSettings()


class MemoryChannel:
    """A channel that keeps what is written; no socket, no loop."""

    addr = ("192.0.2.1", 4321)

    def __init__(self, application: Any = None) -> None:
        self.server = MemoryServer(application)
        self.adj = self.server.adj
        self.written: list[Any] = []

    def check_client_disconnected(self) -> bool:
        return False

    def write_soon(self, data: Any) -> int:
        self.written.append(data)
        return len(data)

    @property
    def bytes_written(self) -> bytes:
        assert {type(each) for each in self.written} <= {bytes}
        return b"".join(self.written)


def run_task(application: Any, data: bytes) -> tuple[MemoryChannel, WSGITask]:
    """Run one request through a task on a channel in memory."""
    (parser,) = parse(data, len(data))
    channel = MemoryChannel(application)
    task = WSGITask(channel, parser)
    task.service()
    parser.close()
    return channel, task


def test_task_runs_on_a_channel_of_another_kind() -> None:
    channel, task = run_task(hello, request("GET", "/"))
    head, body = channel.bytes_written.split(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 200 OK"
    assert [each.split(b":")[0] for each in lines[1:]] == [
        b"Content-Length",
        b"Content-Type",
        b"Date",
        b"Server",
    ]
    assert lines[-1] == b"Server: parts"
    assert body == b"hello"
    assert task.wrote_header
    assert not task.close_on_finish


def test_task_gives_the_documented_environ() -> None:
    environs: list[dict[str, Any]] = []

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environs.append(dict(environ))
        return mirror(environ, start_response)

    run_task(application, request("POST", "/p?q", "X-Y: z", body=b"abc"))
    (environ,) = environs
    expected = {
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_HOST": "192.0.2.1",
        "REMOTE_PORT": "4321",
        "REQUEST_METHOD": "POST",
        "SERVER_PORT": "80",
        "SERVER_NAME": "memory.test",
        "SERVER_SOFTWARE": "parts",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/p",
        "REQUEST_URI": "/p?q",
        "QUERY_STRING": "q",
        "CONTENT_LENGTH": "3",
        "HTTP_HOST": "localhost",
        "HTTP_X_Y": "z",
        "wsgi.url_scheme": "http",
        "wsgi.version": (1, 0),
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input_terminated": True,
        "wsgi.file_wrapper": ReadOnlyFileBasedBuffer,
    }
    assert {key: environ[key] for key in expected} == expected
    assert set(environ) - set(expected) == {
        "wsgi.errors",
        "wsgi.input",
        "waitress.client_disconnected",
    }


def test_file_response_is_handed_to_the_channel_whole() -> None:
    file = io.BytesIO(b"content of a file")

    def application(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](file, 4)

    channel, task = run_task(application, request("GET", "/"))
    head, buffer = channel.written
    assert b"\r\nContent-Length: 17\r\n" in head
    assert isinstance(buffer, ReadOnlyFileBasedBuffer)
    assert not task.close_on_finish
    # From here on it is the channel's, which sends from it and closes it.
    assert buffer.get(7, skip=True) == b"content"
    assert len(buffer) == 10
    assert not file.closed
    buffer.close()
    assert file.closed


@pytest.mark.parametrize("status", ["1.0", "1.1"])
def test_error_task_answers_an_error_of_the_owners_own(status: str) -> None:
    (parser,) = parse(request("GET", "/"), 1000)
    parser.version = status
    parser.error = InternalServerError("the owner's own text")
    channel = MemoryChannel()
    task = ErrorTask(channel, parser)
    task.service()
    head, body = channel.bytes_written.split(b"\r\n\r\n", 1)
    assert head.startswith(f"HTTP/{status} 500 Internal Server Error\r\n".encode())
    assert b"\r\nConnection: close\r\n" in head
    assert body == (
        b"Internal Server Error\r\n\r\nthe owner's own text\r\n\r\n(generated by parts)"
    )
    assert task.close_on_finish


def test_error_is_a_response_and_an_application() -> None:
    error = InternalServerError("text")
    status, headers, body = error.to_response("me")
    started: list[Any] = []
    served = b"".join(error.wsgi_response({}, lambda *given: started.append(given)))
    assert status == "500 Internal Server Error"
    assert body == b"Internal Server Error\r\n\r\ntext\r\n\r\n(generated by me)"
    assert started == [(status, headers)]
    assert served == error.to_response()[2] == body.replace(b"by me", b"by server")


# -- buffers -------------------------------------------------------------------------


def test_buffer_carries_a_download_from_memory_to_disk_and_out() -> None:
    source, sink = socket.socketpair()
    with source, sink:
        buffer = OverflowableBuffer(20000)
        pieces = [bytes([number]) * 1000 for number in range(50)]
        stages = set()
        for piece in pieces:
            buffer.append(piece)
            stages.add((buffer.buf is None, buffer.overflowed))
        assert stages == {(True, False), (False, False), (False, True)}
        assert len(buffer) == 50000
        received = b""
        while buffer:
            sent = source.send(buffer.get(3000))
            buffer.skip(sent, True)
            received += sink.recv(sent)
        assert received == b"".join(pieces)
        with pytest.raises(ValueError, match="Can't skip 1 bytes in buffer of 0 bytes"):
            buffer.skip(1)
        buffer.close()


def test_buffer_gives_its_file_to_whoever_reads_it() -> None:
    buffer = OverflowableBuffer(10)
    buffer.append(b"0123456789abcdef")
    file = buffer.getfile()
    assert file.read(4) == b"0123"
    assert file.readline() == b"456789abcdef"
    buffer.close()


def test_file_wrapper_is_a_seekable_file_only_if_its_file_is_one() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(b"x" * 100)
        file.seek(40)
        wrapper = ReadOnlyFileBasedBuffer(file, 25)
        assert wrapper.tell() == 40
        assert wrapper.prepare() == 60
        assert wrapper.prepare(10) == 10
        wrapper.seek(0)
        assert [len(each) for each in wrapper] == [25, 25, 25, 25]
    reading = ReadOnlyFileBasedBuffer(type("Pipe", (), {"read": lambda self, size: b""})())
    assert not hasattr(reading, "seek")
    assert not hasattr(reading, "tell")
    assert reading.prepare(10) == 0
    assert list(reading) == []
    reading.close()
