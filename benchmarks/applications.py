"""The application that every server under test runs; standard library only.

It runs in the server's own environment, so it imports nothing of this project. The path
says what to do. Row 0: knows no other module of the benchmarks.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
Application = Callable[[Environ, StartResponse], Iterable[bytes]]

KIB = 1024
MIB = 1024 * KIB

#: The largest file that is served; its path comes from the one who starts the server.
FILE_VARIABLE = "BENCHMARKS_FILE"
#: How many steps of :func:`burn` take a millisecond on this machine when it is idle.
STEPS_VARIABLE = "BENCHMARKS_BURN_STEPS"

CHUNKS, CHUNK_BYTES = 100, KIB
REPLY_BYTES = 900_000
SLEEP_SECONDS = 0.01
#: How long a request of the overload benchmark keeps its thread.
WORK_SECONDS = 0.005
FILE_BLOCK_BYTES = 64 * KIB

HELLO = b"Hello, world!\n"
_CHUNK = b"x" * CHUNK_BYTES
_BODIES = {size: b"x" * size for size in (64 * KIB, MIB)}


def application(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Do what the path names."""
    return ROUTES[environ["PATH_INFO"]](environ, start_response)


def hello(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a few bytes."""
    return _reply(start_response, HELLO)


def read_all(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Read the whole body; answer with how long it was."""
    body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"]))
    return _reply(start_response, b"%d\n" % len(body))


def generate(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer chunk by chunk, without telling how much it will be."""
    start_response("200 OK", [("Content-Type", "text/plain")])
    return (_CHUNK for _ in range(CHUNKS))


def body_of(size: int) -> Application:
    """Return an application that answers with so many bytes, always the same object."""

    def answer(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        return _reply(start_response, _BODIES[size])

    return answer


def new_body(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with many bytes, new ones each time: shared, they would cost no memory."""
    return _reply(start_response, b"x" * REPLY_BYTES)


def send_file(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Answer with a file by ``wsgi.file_wrapper``, or in blocks where there is none."""
    path = os.environ[FILE_VARIABLE]
    headers = [("Content-Length", str(os.path.getsize(path)))]
    start_response("200 OK", [("Content-Type", "application/octet-stream"), *headers])
    wrapper = environ.get("wsgi.file_wrapper", _blocks)
    wrapped: Iterable[bytes] = wrapper(open(path, "rb"), FILE_BLOCK_BYTES)  # noqa: SIM115
    return wrapped


def _blocks(file: BinaryIO, size: int) -> Iterator[bytes]:
    with file:
        while block := file.read(size):
            yield block


def sleep(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Wait, as for a database."""
    time.sleep(SLEEP_SECONDS)
    return _reply(start_response, HELLO)


def work(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Keep the thread for a while, as a small page with a query does."""
    time.sleep(WORK_SECONDS)
    return _reply(start_response, HELLO)


def burn_a_millisecond(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Compute what takes a millisecond when nobody else wants the processor."""
    burn(int(os.environ[STEPS_VARIABLE]))
    return _reply(start_response, HELLO)


def burn(steps: int) -> int:
    """Compute, in Python, without giving up the interpreter."""
    value = 0
    for step in range(steps):
        value = (value * 31 + step) & 0xFFFF
    return value


def spin(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """Start four threads that compute for ever."""
    for _ in range(4):
        threading.Thread(target=_burn_for_ever, daemon=True).start()
    return _reply(start_response, HELLO)


def _burn_for_ever() -> None:
    while True:
        burn(1000)


def _reply(start_response: StartResponse, body: bytes) -> list[bytes]:
    headers = [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


ROUTES: dict[str, Application] = {
    "/": hello,
    "/read": read_all,
    "/generate": generate,
    "/64k": body_of(64 * KIB),
    "/1m": body_of(MIB),
    "/900k": new_body,
    "/file": send_file,
    "/sleep": sleep,
    "/work": work,
    "/burn": burn_a_millisecond,
    "/spin": spin,
}
