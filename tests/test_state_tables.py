"""Every state of the machines that read requests, with every kind of event.

The rows of :mod:`tests.test_parser` and :mod:`tests.test_receiver` are the transitions that
there are; these are all pairs, also those where nothing may happen.
"""

from __future__ import annotations

import types
from typing import Any

import pytest

from waitress.buffers import OverflowableBuffer
from waitress.parser import TRANSITIONS as PARSER_TRANSITIONS
from waitress.parser import HTTPRequestParser, ParserState
from waitress.receiver import TRANSITIONS as CHUNKED_TRANSITIONS
from waitress.receiver import ChunkedReceiver, FixedStreamReceiver, ReceiverState

# -- parser ----------------------------------------------------------------------------

HEAD, BODY = ParserState.HEAD, ParserState.BODY
WHOLE, REFUSED = ParserState.COMPLETE, ParserState.FAILED

LINE = b"POST / HTTP/1.1\r\n"
REQUEST = LINE + b"Host: h\r\n\r\n"
WITH_LENGTH = LINE + b"Host: h\r\nContent-Length: 3\r\n\r\n"
WITH_CHUNKS = LINE + b"Host: h\r\nTransfer-Encoding: chunked\r\n\r\n"

#: What leads there.
PARSER_STANDS = {
    "new": b"",
    "in line": LINE[:6],
    "in head": LINE + b"Host: h\r\n",
    "in length": WITH_LENGTH + b"a",
    "in chunks": WITH_CHUNKS + b"1\r\na\r\n",
    "whole": REQUEST,
    "empty": b"\r\n\r\n",
    "refused": b"\n",
    "refused in body": WITH_CHUNKS + b"x\r\n",
}

PARSER_EVENTS = {
    "letter": b"A",
    "CRLF": b"\r\n",
    "empty lines": b"\r\n\r\n",
    "LF": b"\n",
    "NUL": b"\0",
    "request": REQUEST,
    "with length": WITH_LENGTH,
    "with chunks": WITH_CHUNKS,
    "end of chunks": b"0\r\n\r\n",
    "too much": b"A" * 1000,
}

#: The states that follow, in the order of the events.
PARSER_TABLE = {
    "new": [HEAD, HEAD, WHOLE, REFUSED, REFUSED, WHOLE, BODY, BODY, REFUSED, REFUSED],
    "in line": [HEAD, HEAD, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED],
    "in head": [HEAD, WHOLE, WHOLE, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED, REFUSED],
    # To a body, all octets are alike.
    "in length": [BODY, WHOLE, WHOLE, BODY, BODY, WHOLE, WHOLE, WHOLE, WHOLE, WHOLE],
    "in chunks": [BODY, REFUSED, REFUSED, BODY, BODY, REFUSED, REFUSED, REFUSED, WHOLE, REFUSED],
    "whole": [WHOLE] * 10,
    "empty": [WHOLE] * 10,
    "refused": [REFUSED] * 10,
    "refused in body": [REFUSED] * 10,
}


def parser_at(stand: str) -> HTTPRequestParser:
    """Return a parser that has read what leads to *stand*."""
    adj: Any = types.SimpleNamespace(
        max_request_header_size=500,
        max_request_body_size=500,
        inbuf_overflow=1 << 20,
        url_scheme="http",
    )
    parser = HTTPRequestParser(adj)
    feed_all(parser, PARSER_STANDS[stand])
    return parser


def feed_all(parser: HTTPRequestParser, data: bytes) -> None:
    while data and not parser.completed:
        data = data[parser.received(data) :]


@pytest.mark.parametrize("event", PARSER_EVENTS)
@pytest.mark.parametrize("stand", PARSER_STANDS)
@pytest.mark.parametrize("size", [1, 10000])
def test_parser_goes_where_the_table_says(stand, event, size):
    parser = parser_at(stand)
    before = parser.state
    after = PARSER_TABLE[stand][list(PARSER_EVENTS).index(event)]
    data = PARSER_EVENTS[event]
    for start in range(0, len(data), size):
        feed_all(parser, data[start : start + size])
    assert parser.state is after
    assert after is before or is_reachable(PARSER_TRANSITIONS, before, after)
    if not PARSER_TRANSITIONS[before]:
        assert parser.received(data) == 0


def is_reachable(transitions: Any, before: Any, after: Any) -> bool:
    ahead = [before]
    seen: set[Any] = set()
    while ahead:
        for follower in transitions[ahead.pop()] - seen:
            seen.add(follower)
            ahead.append(follower)
    return after in seen


def test_every_state_of_the_parser_has_a_row():
    assert {parser_at(stand).state for stand in PARSER_STANDS} == set(ParserState)
    assert {len(row) for row in PARSER_TABLE.values()} == {len(PARSER_EVENTS)}
    assert list(PARSER_TABLE) == list(PARSER_STANDS)


# -- bodies in chunks ------------------------------------------------------------------

CHUNKED_STANDS = {
    "new": b"",
    "size": b"3",
    "size CR": b"3\r",
    "extension": b"3;a",
    "data": b"3\r\nab",
    "data end": b"3\r\nabc",
    "data CR": b"3\r\nabc\r",
    "last": b"0\r\n",
    "last CR": b"0\r\n\r",
    "trailer": b"0\r\na: b",
    "trailer end": b"0\r\na: b\r\n",
    "complete": b"0\r\n\r\n",
    "failed": b"x\r\n",
}

CHUNKED_EVENTS = {
    "zero": b"0",
    "digit": b"a",
    "letter": b"x",
    "semicolon": b";",
    "colon": b":",
    "blank": b" ",
    "NUL": b"\0",
    "CR": b"\r",
    "LF": b"\n",
    "CRLF": b"\r\n",
    "two CRLF": b"\r\n\r\n",
    "too much": b"1" * 5000,
}

#: One letter for each state, in the order of the events: S(ize line), D(ata), (data) E(nd),
#: T(railers), C(omplete), F(ailed).
CHUNKED_TABLE = {
    # A line is judged when it is whole.
    "new": "SSSSSSSSSFFF",
    "size": "SSSSSSSSSDDF",
    "size CR": "SSSSSSSSDFFF",
    "extension": "SSSSSSSSSDDF",
    "data": "EEEEEEEEEFFF",
    "data end": "FFFFFFFEFSFF",
    "data CR": "FFFFFFFFSFFF",
    "last": "TTTTTTTTTCCF",
    "last CR": "TTTTTTTTCTFF",
    "trailer": "TTTTTTTTTTCF",
    "trailer end": "TTTTTTTTTCCF",
    "complete": "CCCCCCCCCCCC",
    "failed": "FFFFFFFFFFFF",
}
LETTERS = dict(zip("SDETCF", ReceiverState, strict=True))


def chunked_at(stand: str) -> ChunkedReceiver:
    """Return a receiver that has read what leads to *stand*."""
    receiver = ChunkedReceiver(OverflowableBuffer(1 << 20), max_trailer_bytes=500)
    receiver.received(CHUNKED_STANDS[stand])
    return receiver


@pytest.mark.parametrize("event", CHUNKED_EVENTS)
@pytest.mark.parametrize("stand", CHUNKED_STANDS)
@pytest.mark.parametrize("size", [1, 10000])
def test_chunked_receiver_goes_where_the_table_says(stand, event, size):
    receiver = chunked_at(stand)
    before = receiver.state
    after = LETTERS[CHUNKED_TABLE[stand][list(CHUNKED_EVENTS).index(event)]]
    data = CHUNKED_EVENTS[event]
    for start in range(0, len(data), size):
        receiver.received(data[start : start + size])
    assert receiver.state is after
    assert after is before or is_reachable(CHUNKED_TRANSITIONS, before, after)
    if before is ReceiverState.COMPLETE:
        assert receiver.received(data) == 0
    if before is ReceiverState.FAILED:
        assert receiver.received(data) == len(data)


def test_every_state_of_the_chunked_receiver_has_a_row():
    assert {chunked_at(stand).state for stand in CHUNKED_STANDS} == set(ReceiverState)
    assert {len(row) for row in CHUNKED_TABLE.values()} == {len(CHUNKED_EVENTS)}
    assert list(CHUNKED_TABLE) == list(CHUNKED_STANDS)


# -- bodies of known length ------------------------------------------------------------


@pytest.mark.parametrize(
    ("length", "begun", "event", "used", "is_complete"),
    [
        (3, b"", b"a", 1, False),
        (3, b"", b"abc", 3, True),
        (3, b"", b"abcd", 3, True),
        (3, b"a", b"b", 1, False),
        (3, b"a", b"bc", 2, True),
        (3, b"a", b"bcd", 2, True),
        (3, b"abc", b"d", 0, True),
        (0, b"", b"a", 0, True),
    ],
)
def test_fixed_receiver_takes_what_is_left(length, begun, event, used, is_complete):
    receiver = FixedStreamReceiver(length, OverflowableBuffer(1 << 20))
    if begun:
        receiver.received(begun)
    assert receiver.received(event) == used
    assert receiver.completed is is_complete
    assert receiver.getfile().read() == (begun + event)[:length]
