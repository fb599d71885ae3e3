"""Clients that send large bodies nobody wants, each in a thread of its own."""

from __future__ import annotations

import select
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

PATIENCE = 50.0
BLOCK = b"u" * 65536


@dataclass(frozen=True)
class Upload:
    """What is sent: a head, then blocks of a body."""

    head: bytes
    size: int
    chunked: bool = False

    def blocks(self) -> Iterator[bytes]:
        block = b"%x\r\n%b\r\n" % (len(BLOCK), BLOCK) if self.chunked else BLOCK
        for _ in range(self.size // len(BLOCK)):
            yield block
        if self.chunked:
            yield b"0\r\n\r\n"


class Uploader(threading.Thread):
    """One client.

    A stubborn one reads nothing before all of its body is sent; the other kind stops as
    soon as something can be read. For both an error of the socket is the end: a client
    that is told of a reset looks for no answer.
    """

    def __init__(self, port: int, upload: Upload, stubborn: bool) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._upload = upload
        self._stubborn = stubborn
        self.sent = 0
        self.status = 0
        self.is_whole = False
        self.error = ""
        self.seconds = 0.0

    def run(self) -> None:
        begun = time.monotonic()
        try:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
                self._send(sock)
                self._read(sock)
        except OSError as error:
            self.error = type(error).__name__
        self.seconds = time.monotonic() - begun

    def _send(self, sock: socket.socket) -> None:
        sock.sendall(self._upload.head)
        for block in self._upload.blocks():
            if not self._stubborn and select.select([sock], [], [], 0)[0]:
                return
            sock.sendall(block)
            self.sent += len(block)

    def _read(self, sock: socket.socket) -> None:
        answer = b""
        while data := sock.recv(65536):
            answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        self.status = int(lines[0].split()[1]) if head else 0
        self.is_whole = b"content-length: %d" % len(body) in lines


def begin_uploads(port: int, what: Upload, count: int, *, stubborn: bool) -> list[Uploader]:
    """Have so many clients begin to send at once."""
    uploaders = [Uploader(port, what, stubborn) for _ in range(count)]
    for uploader in uploaders:
        uploader.start()
    return uploaders


def upload(port: int, what: Upload, count: int, *, stubborn: bool) -> list[Uploader]:
    """Have so many clients send at once; return them when all have ended."""
    uploaders = begin_uploads(port, what, count, stubborn=stubborn)
    for uploader in uploaders:
        uploader.join(PATIENCE + 10)
    return uploaders


class Told(NamedTuple):
    """What curl tells of an upload: its own exit status and words, and the answer's."""

    exit_status: int
    words: str
    status: int
    sent: int


def begin_curl(port: int, path: str, *, expects: bool) -> subprocess.Popen[bytes]:
    """Have curl begin to send a file, with or without ``Expect: 100-continue``."""
    command = ["curl", "-q", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{size_upload}"]
    command += ["--max-time", str(PATIENCE), "--noproxy", "*", "--data-binary", f"@{path}"]
    if not expects:
        command += ["-H", "Expect:"]
    command.append(f"http://127.0.0.1:{port}/body")
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def end_of_curl(process: subprocess.Popen[bytes]) -> Told:
    """Return what it has to tell, in the end."""
    output, words = process.communicate(timeout=PATIENCE + 10)
    status, sent = output.split()
    return Told(process.returncode, words.decode().strip(), int(status), int(sent))


class Pipeliner(threading.Thread):
    """A client that sends many requests without waiting for the first answer.

    Request number n asks for a path that ends in ``/n``, which the answer repeats.
    """

    def __init__(self, port: int, prefix: str, count: int) -> None:
        super().__init__(daemon=True)
        self._port = port
        self._prefix = prefix
        self._count = count
        self.in_order = 0
        self.ended_at = float("nan")
        self.error = ""

    def run(self) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self._port), PATIENCE) as sock:
                sender = threading.Thread(target=self._send, args=(sock,), daemon=True)
                sender.start()
                self._read(sock)
                sender.join(PATIENCE)
        except (OSError, EOFError) as error:
            self.error = repr(error)
        self.ended_at = time.monotonic()

    def _send(self, sock: socket.socket) -> None:
        lines = (f"GET {self._prefix}/{n} HTTP/1.1\r\nHost: h\r\n\r\n" for n in range(self._count))
        sock.sendall("".join(lines).encode("ascii"))

    def _read(self, sock: socket.socket) -> None:
        with sock.makefile("rb") as answers:
            for number in range(self._count):
                length = 0
                while line := answers.readline().strip():
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = answers.read(length).decode("ascii")
                if body != f"{self._prefix}/{number}":
                    raise EOFError(f"answer {number} is {body!r}")
                self.in_order += 1
