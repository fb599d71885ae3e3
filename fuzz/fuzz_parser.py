"""Fuzz the request parser, several requests on one connection.

Whatever comes: nothing raises; a call takes no more than it was offered, and something as
long as it is not done; any cut gives the same requests; a refusal has a reason and ends
the connection; what is accepted is well-formed, means the same when it is written anew in
the plainest way, and means the same to a second implementation, unless that refuses it.
"""

from __future__ import annotations

import re
import types
from typing import Any

from fuzz import harness

with harness.instrumented():
    from waitress.parser import HTTPRequestParser, ParserState

h11 = harness.optional("h11")

STATUSES = {400, 413, 417, 431, 501}
NEXT = b"GET /next HTTP/1.1\r\nHost: next\r\n\r\n"


def settings(**changes: Any) -> Any:
    """Return settings with limits that a small input can reach."""
    adj = types.SimpleNamespace(
        max_request_header_size=1000,
        max_request_body_size=2000,
        max_request_header_fields=12,
        inbuf_overflow=1 << 20,
        url_scheme="http",
        require_host=True,
    )
    vars(adj).update(changes)
    return adj


LARGE = settings(
    max_request_header_size=1 << 24,
    max_request_body_size=1 << 24,
    max_request_header_fields=1 << 24,
    require_host=False,
)


def check(data: bytes) -> None:
    """Check one input."""
    octets, chance = harness.controlled(data)
    adj = settings(require_host=chance.random() < 0.8)
    pieces = harness.cut(octets, chance)
    with harness.limited_time():
        whole = read_connection(adj, [octets])
        in_pieces = read_connection(adj, pieces)
        assert_same(whole, in_pieces)
        for request in whole:
            check_request(request)
        if h11 is not None and whole:
            check_against_h11(whole[0], octets)
        if chance.random() < 0.1:
            read_connection(LARGE, [harness.pumped(octets, chance)])


# -- reading ---------------------------------------------------------------------------


def read_connection(adj: Any, pieces: list[bytes]) -> list[Any]:
    """Read requests one behind another, as a channel does; the last may be unfinished."""
    requests = []
    parser: Any = None
    for piece in pieces:
        while piece:
            if parser is None:
                parser = HTTPRequestParser(adj)
                parser.octets_used = 0
                requests.append(parser)
            used = parser.received(piece)
            assert 0 <= used <= len(piece), used
            assert used or parser.completed
            check_progress(parser)
            parser.octets_used += used
            piece = piece[used:]
            if parser.completed:
                assert parser.received(NEXT) == 0
                if parser.error or parser.connection_close:
                    return requests
                parser = None
    return requests


def check_progress(parser: Any) -> None:
    """Check what holds after each call."""
    state = parser.state
    assert parser.completed is (state in (ParserState.COMPLETE, ParserState.FAILED))
    assert (parser.error is not None) is (state is ParserState.FAILED)
    if parser.expect_continue:
        assert parser.body_rcv is not None
        assert parser.version == "1.1"
        assert not parser.error
    if state is ParserState.HEAD:
        assert len(parser.header_plus) < parser.adj.max_request_header_size
        assert not parser.headers_finished


def assert_same(whole: list[Any], in_pieces: list[Any]) -> None:
    """Check that two readings of the same octets found the same requests."""
    assert len(whole) == len(in_pieces)
    for one, other in zip(whole, in_pieces, strict=True):
        assert one.state is other.state
        if one.error:
            assert one.error.code == other.error.code
            if one.headers_finished and other.headers_finished:
                assert one.error.reject_reason == other.error.reject_reason
                assert one.error.body == other.error.body
            # Else: how far one looks before a head is hopeless depends on the cut.
        elif one.state is not ParserState.HEAD:
            assert told(one) == told(other)
            assert one.octets_used == other.octets_used


def told(request: Any) -> list[Any]:
    """Return all that a request says of itself."""
    # Not there before the head is finished.
    asked = ("command", "request_uri", "path", "query")
    facts = [getattr(request, name, None) for name in asked]
    facts += [request.empty, request.version, request.proxy_scheme, request.proxy_netloc]
    facts += [request.headers, request.connection_close, request.expect_continue]
    facts += [request.chunked, request.content_length, body(request)]
    return facts


def body(request: Any) -> bytes:
    """Return the body as far as it has come."""
    stream = request.get_body_stream()
    stream.seek(0)
    octets: bytes = stream.read()
    return octets


# -- requests --------------------------------------------------------------------------


def check_request(request: Any) -> None:
    """Check what a request says of itself."""
    if request.error:
        assert request.connection_close
        assert not request.expect_continue
        assert request.error.code in STATUSES, request.error.code
        assert re.fullmatch("[a-z0-9-]+", request.error.reject_reason)
        assert len(request.error.body) < 400
        return
    if request.state is not ParserState.COMPLETE or request.empty:
        return
    check_form(request)
    check_written_anew(request)


def check_form(request: Any) -> None:
    """Check that nothing malformed was accepted."""
    assert re.fullmatch("[!-'*+.0-9A-Z^_`|~-]+", request.command), request.command
    assert request.command != "CONNECT"
    assert re.fullmatch('[!"$-~]+', request.request_uri), request.request_uri
    assert request.request_uri[0] == "/" or request.proxy_netloc or request.path == "*"
    assert re.fullmatch(r"[0-9]\.[0-9]", request.version)
    assert request.version not in ("1.2", "1.3")
    assert request.path.isascii() or "%" in request.request_uri
    assert request.query.isascii()
    assert "TRANSFER_ENCODING" not in request.headers
    for key, value in request.headers.items():
        assert re.fullmatch("[!#$%&'*+.0-9A-Z^_`|~]+", key), key
        assert re.fullmatch(r"(?:[\t\x20-\x7e\x80-\xff]*)", value), value
        # A list that ends in an empty line ends in its separator.
        assert value == value.lstrip(" \t")
    if request.version == "1.1" and request.adj.require_host:
        assert request.headers["HOST"]
    octets = body(request)
    length = request.headers.get("CONTENT_LENGTH")
    if length is None:
        assert not octets
        assert request.body_rcv is None
    else:
        assert int(length) == len(octets)
        assert len(octets) < request.adj.max_request_body_size


def check_written_anew(request: Any) -> None:
    """Check that a request means the same when it is written in the plainest way."""
    lines = [f"{request.command} {request.request_uri} HTTP/{request.version}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in request.headers.items()]
    message = "\r\n".join([*lines, "", ""]).encode("latin-1") + body(request)
    again, *others = read_connection(LARGE, [message + NEXT])
    assert again.state is ParserState.COMPLETE, again.error and again.error.body
    assert again.octets_used == len(message)
    assert told(again)[:10] == [*told(request)[:8], stripped(request.headers), told(request)[9]]
    assert body(again) == body(request)
    assert len(others) == (0 if request.connection_close else 1)


def stripped(headers: dict[str, str]) -> dict[str, str]:
    """Return fields as they are when each is one line: without blanks at their ends."""
    return {key: value.strip(" \t") for key, value in headers.items()}


# -- a second implementation -----------------------------------------------------------


def check_against_h11(request: Any, octets: bytes) -> None:
    """Check that h11 reads the same request, unless one of the two refuses it."""
    if request.state is not ParserState.COMPLETE or request.error or request.empty:
        return
    if not request.version.startswith("1."):
        return
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(octets)
    pieces = []
    try:
        head = connection.next_event()
        if not isinstance(head, h11.Request):
            return
        while isinstance(event := connection.next_event(), h11.Data):
            pieces.append(bytes(event.data))
    except h11.RemoteProtocolError:
        return
    assert isinstance(event, h11.EndOfMessage), event
    assert head.method == request.command.encode()
    assert head.target == request.request_uri.encode()
    assert b"".join(pieces) == body(request)
    assert len(octets) - len(connection.trailing_data[0]) == request.octets_used
    persists = connection.their_state is not h11.MUST_CLOSE
    # A foreign minor version, and 1.0 with keep-alive, persist here and not there.
    assert persists != request.connection_close or head.http_version != b"1.1"


if __name__ == "__main__":
    harness.main(check)
