"""The soak's own eyes: whatever is wrong with an answer is seen; and a short run."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from tests.soak.clients import CONVERSATIONS, Client, Tally
from tests.soak.content import BLOCK_BYTES, blocks, content, digest
from tests.soak.runs import Plan, soak, unexpected
from tests.soak.wire import Asked, Connection, Pace, WrongAnswer

BODY = content("n", 40_000)
DATE = b"Date: Thu, 01 Jan 1970 00:00:00 GMT\r\n"
NAMED = b"X-Name: n\r\nX-Method: GET\r\n"
HEAD = b"HTTP/1.1 200 OK\r\n" + DATE + NAMED
RIGHT = HEAD + b"Content-Length: 40000\r\n\r\n" + BODY
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + b"9c40\r\n" + BODY + b"\r\n" + b"0\r\n\r\n"
ASKED = Asked(
    "GET", b"GET /kept/one/n/40000 HTTP/1.1\r\n\r\n", 200, "n", 40_000, digest("n", 40_000)
)

Answering = Callable[[bytes], Connection]


@pytest.fixture
def answering(no_leaks: None) -> Iterator[Answering]:
    """Give a function that connects to a server which says so much and then closes."""
    threads: list[threading.Thread] = []
    connections: list[Connection] = []

    def start(answer: bytes) -> Connection:
        listener = socket.create_server(("127.0.0.1", 0))

        def say() -> None:
            with (
                listener,
                listener.accept()[0] as conn,
                # Whoever has seen enough leaves.
                contextlib.suppress(OSError),
            ):
                conn.recv(65536)
                conn.sendall(answer)
                conn.shutdown(socket.SHUT_WR)
                while conn.recv(65536):
                    pass

        threads.append(threading.Thread(target=say))
        threads[-1].start()
        connections.append(Connection(listener.getsockname()[:2], Pace()))
        connections[-1].send(ASKED.octets)
        return connections[-1]

    yield start
    for connection in connections:
        connection.close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("answer", [RIGHT, CHUNKED])
def test_right_answer_is_taken(answer: bytes, answering: Answering) -> None:
    connection = answering(answer)
    connection.read_answer(ASKED)
    connection.await_end()


WRONG = {
    "one byte of the body": RIGHT[:-1] + bytes([RIGHT[-1] ^ 1]),
    "two blocks exchanged": HEAD
    + b"Content-Length: 40000\r\n\r\n"
    + BODY[BLOCK_BYTES : 2 * BLOCK_BYTES]
    + BODY[:BLOCK_BYTES]
    + BODY[2 * BLOCK_BYTES :],
    "the body of another": RIGHT[:-40_000] + content("m", 40_000),
    "the name of another": RIGHT.replace(b"X-Name: n", b"X-Name: m"),
    "the method of another": RIGHT.replace(b"X-Method: GET", b"X-Method: PUT"),
    "the status": RIGHT.replace(b"200 OK", b"201 OK"),
    "no Date": RIGHT.replace(DATE, b""),
    "a field twice": RIGHT.replace(DATE, DATE * 2),
    "a closing for no reason": RIGHT.replace(DATE, DATE + b"Connection: close\r\n"),
    "cut in the body": RIGHT[:-1],
    "cut in the head": RIGHT[:60],
    "nothing at all": b"",
    "no last chunk": CHUNKED[:-5],
    "a chunk too long": CHUNKED.replace(b"9c40\r\n", b"9c3f\r\n"),
    "invited for nothing": b"HTTP/1.1 100 Continue\r\n\r\n" + RIGHT,
    "no line": b"x" * 70_000,
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_answer_is_found(what: str, answering: Answering) -> None:
    with pytest.raises((WrongAnswer, ValueError)):
        answering(WRONG[what]).read_answer(ASKED)


def test_bytes_behind_the_end_are_found(answering: Answering) -> None:
    connection = answering(RIGHT + b"x")
    connection.read_answer(ASKED)
    with pytest.raises(WrongAnswer, match="after the end"):
        connection.await_end()


def test_contents_of_two_names_differ_in_every_block() -> None:
    assert len({*blocks("a", 5 * BLOCK_BYTES), *blocks("b", 5 * BLOCK_BYTES)}) == 10
    assert content("a", 100_000)[:777] == content("a", 777)


def test_same_seed_asks_the_same() -> None:
    def requests(seed: str) -> list[bytes]:
        client = Client(seed, [], Tally())
        return [client.anything().octets for _ in range(50)]

    assert requests("a") == requests("a") != requests("b")


FAILURE = """Exception while serving /kept/cut/a-1/77
Traceback (most recent call last):
  File "x.py", line 1, in x
    x()
Broken: a-1
"""


@pytest.mark.parametrize(
    ("log", "lines"),
    [
        ("", 0),
        (FAILURE * 2, 0),
        (FAILURE + "one line\n" + FAILURE, 1),
        (FAILURE.replace("/cut/", "/one/"), 5),
        (FAILURE.replace("Broken: a-1", "Broken: a-2"), 5),
        (FAILURE.replace("Broken: a-1", "KeyError: 'a-1'") + FAILURE, 5),
    ],
)
def test_log_has_nothing_but_what_was_asked_for(log: str, lines: int) -> None:
    assert len(unexpected(log)) == lines


@pytest.mark.faults
def test_short_run_is_well(no_leaks: None) -> None:
    told: list[str] = []
    figures = soak(Plan(4, "short", clients=8, rest_every=2), told.append)
    print(*told, *figures, sep="\n")
    # So short a run tells nothing about growth.
    bad = [str(figure) for figure in figures if not figure.holds and "growth" not in figure.name]
    assert bad == []
    assert len(CONVERSATIONS) == sum("conversations" in figure.name for figure in figures)
