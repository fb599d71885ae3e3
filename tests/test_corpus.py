"""Every case of the corpus, however it is cut, given to the parser and to a live server."""

from __future__ import annotations

import random
import socket
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from tests import corpus
from tests.compat.live import Answer, Running, Wire, nothing_left_behind
from tests.corpus import Case
from tests.feeding import CUTS, feed_cut
from waitress import create_server
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser, ParserState

VALID = corpus.cases("valid")
INVALID = corpus.cases("invalid")
UNFINISHED = corpus.cases("unfinished")
ALL = [*VALID, *INVALID, *UNFINISHED]

CUT = pytest.mark.parametrize("cut", CUTS)


def each(cases: list[Case]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("case", cases, ids=str)


# -- the cases themselves --------------------------------------------------------------


def test_corpus_is_large_enough():
    assert len(VALID) + len(INVALID) >= 400


def test_no_two_cases_have_one_name_or_the_same_octets():
    for key in (lambda case: (case.kind, str(case)), lambda case: case.octets):
        repeated = [each for each, count in Counter(map(key, ALL)).items() if count > 1]
        assert not repeated


@each(INVALID)
def test_invalid_case_says_how_it_is_answered(case):
    assert case.expected.status >= 400
    assert case.expected.reason


@each(VALID + UNFINISHED)
def test_other_case_is_not_answered_with_an_error(case):
    assert not case.expected.status


@pytest.mark.parametrize(
    ("text", "meaning"),
    [
        ("a b", b"a b"),
        (r"\r\n\t\\\x00\xff", b"\r\n\t\\\x00\xff"),
        (r"a\{3*b\x20}c{}", b"ab b b c{}"),
        (r"\{0*a}", b""),
    ],
)
def test_notation(text, meaning):
    assert corpus.octets(text) == meaning


@pytest.mark.parametrize("text", [r"\q", "\\", r"\xZZ", r"\{a}", "\xe4"])
def test_mistaken_notation_is_an_error(text):
    with pytest.raises(ValueError):
        corpus.octets(text)


# -- the parser ------------------------------------------------------------------------


def fed(case: Case, cut: str) -> tuple[HTTPRequestParser, int]:
    adj: Any = types.SimpleNamespace(inbuf_overflow=1 << 20, url_scheme="http", **corpus.SETTINGS)
    parser = HTTPRequestParser(adj)
    return parser, feed_cut(parser, case.octets, cut)


@CUT
@each(VALID)
def test_parser_reads_a_valid_request_and_not_an_octet_more(case, cut):
    parser, used = fed(case, cut)
    expected = case.expected
    assert parser.state is ParserState.COMPLETE
    assert parser.error is None
    assert not parser.empty
    assert used == len(case.octets)
    assert parser.command == expected.method
    assert parser.version == expected.version
    assert parser.request_uri == expected.target
    assert parser.path == (expected.target if expected.path is None else expected.path)
    assert parser.query == expected.query
    assert (parser.proxy_scheme, parser.proxy_netloc) == (expected.scheme, expected.authority)
    assert parser.headers == expected.fields
    assert parser.get_body_stream().read() == expected.body
    assert parser.connection_close is expected.closes
    assert parser.expect_continue is expected.awaits_continue


@CUT
@each(INVALID)
def test_parser_refuses_an_invalid_request_for_the_reason_of_the_case(case, cut):
    parser, _ = fed(case, cut)
    expected = case.expected
    if expected.is_decided_by_server:
        assert not parser.version.startswith("1.")
        return
    assert parser.state is ParserState.FAILED
    assert parser.connection_close
    assert not parser.expect_continue
    assert parser.error is not None
    is_early = bool(expected.early) and not parser.headers_finished
    assert is_early or not (expected.early and cut == "octets")
    wanted = expected.early if is_early else expected.reason
    assert (parser.error.code, parser.error.reject_reason) == (expected.status, wanted)


@pytest.mark.parametrize("cut", ["whole", "octets"])
@each(UNFINISHED)
def test_parser_waits_for_the_rest_of_an_unfinished_request(case, cut):
    parser, used = fed(case, cut)
    if parser.empty:
        assert case.octets == b"\r\n\r\n" * (len(case.octets) // 4)
        return
    assert used == len(case.octets)
    assert parser.state in (ParserState.HEAD, ParserState.BODY)
    assert parser.error is None


# -- a live server ---------------------------------------------------------------------

#: Behind every case. Runs if the connection persists, and never otherwise.
TAIL = b"GET /tail HTTP/1.1\r\nHost: tail\r\nConnection: close\r\n\r\n"


class Recorder:
    """An application that keeps what it was asked, and answers without a body.

    Threads: the application runs in workers; a test looks when all is answered.
    """

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        self.asked.append({**environ, "body": environ["wsgi.input"].read()})
        start_response("200 OK", [("Content-Length", "0")])
        return []

    def taken(self) -> list[dict[str, Any]]:
        """Return what was asked since the last time."""
        asked, self.asked = self.asked, []
        return asked


class Live:
    """One server for all cases, and what its application was asked."""

    def __init__(self, channel_class: type[HTTPChannel]) -> None:
        self.application = Recorder()
        server = create_server(
            self.application,
            host="127.0.0.1",
            port=0,
            # The application is to see all fields as they were sent.
            clear_untrusted_proxy_headers=False,
            **corpus.SETTINGS,
        )
        server.channel_class = channel_class
        self.running = Running(server)

    def exchange(self, pieces: list[bytes], half_close: bool = False) -> list[Answer]:
        """Send the pieces one by one; return the final answers up to the end of the stream."""
        with self.running.connect() as wire:
            wire.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for number, piece in enumerate(pieces):
                if number:
                    # The loop goes round, so that it reads the pieces one by one.
                    self.running.call_in_loop(lambda: None)
                    self.running.call_in_loop(lambda: None)
                # It may have closed already, with an answer to the first piece.
                with suppress(ConnectionError):
                    wire.send(piece)
            if half_close:
                wire.sock.shutdown(socket.SHUT_WR)
            return list(final_answers(wire))


def final_answers(wire: Wire) -> Iterator[Answer]:
    while True:
        try:
            answer = wire.read_answer()
        except EOFError as end:
            if str(end) != "closed after b''":
                pytest.fail(f"an answer was cut: {end}")
            return
        if answer.status >= 200:
            yield answer


class SippingChannel(HTTPChannel):
    """A channel that gets one octet at a time."""

    def recv(self, buffer_size: int) -> bytes:
        return super().recv(1)


@pytest.fixture(scope="module")
def servers() -> Iterator[dict[type[HTTPChannel], Live]]:
    """One server for each way to read."""
    with nothing_left_behind():
        servers = {each: Live(each) for each in (HTTPChannel, SippingChannel)}
        yield servers
        for each in servers.values():
            each.running.stop()


def pieces(case: Case, cut: str, tail: bytes) -> list[bytes]:
    data = case.octets + tail
    if cut in ("whole", "octets"):
        return [data]
    where = random.Random(str(case)).randint(1, max(len(data) - 1, 1))
    return [data[:where], data[where:]]


SENT = pytest.mark.parametrize("cut", ["whole", "in two", "octets"])


@pytest.fixture
def server(cut: str, servers: dict[type[HTTPChannel], Live]) -> Live:
    """The server that reads in this way."""
    return servers[SippingChannel if cut == "octets" else HTTPChannel]


@SENT
@each(VALID)
def test_server_runs_a_valid_request_and_what_follows_if_the_connection_persists(case, cut, server):
    answers = server.exchange(pieces(case, cut, TAIL))
    asked = server.application.taken()
    expected = case.expected
    check_environ(asked[0], expected)
    tail = [] if expected.closes else ["/tail"]
    assert [environ["PATH_INFO"] for environ in asked[1:]] == tail
    assert [answer.status for answer in answers] == [200] * len(asked)
    assert answers[-1].headers["connection"] == "close"


def check_environ(environ: dict[str, Any], expected: corpus.Expected) -> None:
    path = expected.target if expected.path is None else expected.path
    assert environ["REQUEST_METHOD"] == expected.method
    assert environ["REQUEST_URI"] == expected.target
    # Slashes in front are made one: an application would build links to other hosts.
    assert environ["PATH_INFO"] == ("/" + path.lstrip("/") if path.startswith("/") else path)
    assert environ["QUERY_STRING"] == expected.query
    assert environ["SERVER_PROTOCOL"] == f"HTTP/{expected.version}"
    assert environ["body"] == expected.body
    fields = {
        key.removeprefix("HTTP_"): value
        for key, value in environ.items()
        if key.startswith("HTTP_") or key in ("CONTENT_LENGTH", "CONTENT_TYPE")
    }
    assert fields == expected.fields


@SENT
@each(INVALID)
def test_server_answers_an_invalid_request_once_and_runs_nothing(case, cut, server):
    answers = server.exchange(pieces(case, cut, TAIL))
    assert server.application.taken() == []
    assert [answer.status for answer in answers] == [case.expected.status]
    assert answers[0].headers["connection"] == "close"


@SENT
@each(UNFINISHED)
def test_server_neither_runs_nor_answers_an_unfinished_request(case, cut, server):
    answers = server.exchange(pieces(case, cut, b""), half_close=True)
    assert answers == []
    assert server.application.taken() == []
