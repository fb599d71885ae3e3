"""What holds of every request, found by trying: another implementation reads the same.

h11 is that implementation, as the client that writes and as the server that reads. That any
cut gives the same result is tried in :mod:`tests.test_fuzzers`, with what else the fuzzers
check.
"""

from __future__ import annotations

import time
import types
from typing import Any

import h11
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.feeding import feed
from waitress.parser import HTTPRequestParser

TOKEN = "!#$%&'*+-.^`|~0123456789"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
PATH = "".join(map(chr, range(0x21, 0x7F))).replace("#", "").replace("?", "")

#: Fields that are no matter of framing; few, so that they repeat.
NAMES = ["Accept", "accept", "Cookie", "X-Forwarded-For", "Range", "A", "!#$%&'*+.^`|~", "TE", "-"]


def blanks_inside(text: str) -> str:
    return text.strip(" \t")


methods = st.text(TOKEN + "_" + UPPER, min_size=1, max_size=12).filter(lambda m: m != "CONNECT")
paths = st.text(PATH, max_size=20).map("/".__add__)
queries = st.just("") | st.text(PATH + "?", max_size=20).map("?".__add__)
authorities = st.sampled_from(["h", "example.com:80", "[::1]", "[2001:db8::1]:8080", "1.2.3.4"])
origin_forms = st.tuples(st.just(""), st.just(""), paths, queries)
absolute_forms = st.tuples(
    st.sampled_from(["http", "https"]), authorities, st.just("") | paths, queries
)
values = st.text("".join(map(chr, [9, *range(0x20, 0x7F), *range(0x80, 0x100)])), max_size=20).map(
    blanks_inside
)
names = st.sampled_from(NAMES) | st.text(TOKEN + "abcXYZ", min_size=1, max_size=8)
FRAMING = ["connection", "content-length", "expect", "host", "transfer-encoding"]
fields = st.lists(
    st.tuples(
        names.filter(lambda name: name.lower() not in [*FRAMING, "authorization", "content-type"]),
        values,
    ),
    max_size=6,
)
options = st.lists(
    st.sampled_from(["close", "Close", "keep-alive", "te", "enclose", ""]), max_size=3
).map(lambda chosen: blanks_inside(", ".join(chosen)))


def new_parser() -> HTTPRequestParser:
    adj: Any = types.SimpleNamespace(
        max_request_header_size=1 << 18,
        max_request_body_size=1 << 18,
        inbuf_overflow=1 << 20,
        url_scheme="http",
    )
    return HTTPRequestParser(adj)


def write(method: str, target: str, headers: Any, body: list[bytes]) -> tuple[bytes, bool]:
    """Return what h11 writes, and whether its connection persists."""
    client = h11.Connection(h11.CLIENT)
    octets = [
        client.send(h11.Request(method=method, target=target, headers=headers)),
        *(client.send(h11.Data(data=piece)) for piece in body),
        client.send(h11.EndOfMessage()),
    ]
    return b"".join(each or b"" for each in octets), client.our_state is h11.DONE


def joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Return fields as the parser gives them (RFC 9110, 5.3)."""
    found: dict[str, str] = {}
    for name, value in pairs:
        key = name.upper().replace("-", "_")
        if key in found:
            value = found[key] + ("; " if key == "COOKIE" else ", ") + value
        found[key] = value
    return found


@settings(max_examples=200, deadline=None)
@given(
    method=methods,
    target=origin_forms | absolute_forms,
    fields=fields,
    connection=st.none() | options,
    expects=st.booleans(),
    body=st.lists(st.binary(min_size=1, max_size=40), max_size=4),
    framing=st.sampled_from(["none", "length", "chunks"]),
    size=st.integers(1, 400),
)
@example("OPTIONS", ("", "", "*", ""), [], None, False, [], "none", 1)
def test_all_that_h11_writes_of_a_well_formed_request_is_read_the_same(
    method, target, fields, connection, expects, body, framing, size
):
    scheme, authority, path, query = target
    uri = (f"{scheme}://{authority}" if scheme else "") + path + query
    body = [] if framing == "none" else body
    length = str(sum(map(len, body)))
    pairs = [("Host", "host"), *fields]
    if connection is not None:
        pairs.append(("Connection", connection))
    if expects:
        pairs.append(("Expect", "100-continue"))
    expected = joined(pairs)
    if framing == "length":
        pairs.append(("Content-Length", length))
    elif framing == "chunks":
        pairs.append(("Transfer-Encoding", "chunked"))
    if framing != "none":
        expected["CONTENT_LENGTH"] = length
    if authority:
        expected["HOST"] = authority
    headers = [(name.encode(), value.encode("latin-1")) for name, value in pairs]
    data, persists = write(method, uri, headers, body)

    parser = new_parser()
    assert feed(parser, data, size) == len(data)
    assert parser.error is None
    assert parser.completed
    assert (parser.command, parser.request_uri, parser.version) == (method, uri, "1.1")
    assert (parser.proxy_scheme, parser.proxy_netloc) == (scheme, authority)
    assert parser.query == query.removeprefix("?")
    assert parser.headers == expected
    assert parser.get_body_stream().read() == b"".join(body)
    assert parser.connection_close is not persists
    has_body = framing == "chunks" or (framing == "length" and length != "0")
    assert parser.expect_continue is (expects and has_body)


#: Octets that h11 writes in one place or another, and that few should.
anything = st.text("".join(map(chr, range(0x100))), max_size=12)


@settings(max_examples=300, deadline=None)
@given(
    method=st.text(TOKEN + UPPER + "_abc", min_size=1, max_size=6),
    target=st.text("".join(map(chr, range(0x21, 0x7F))), min_size=1, max_size=20),
    fields=st.lists(
        st.tuples(
            st.sampled_from(
                ["Host", "host", "Content-Length", "Connection", "Transfer-Encoding", "Expect"]
            )
            | st.text(TOKEN + "_abc", min_size=1, max_size=6),
            st.sampled_from(["h", "3", "03", "chunked", "Chunked", "close", "100-continue", "a b"])
            | anything,
        ),
        max_size=5,
    ),
    host=st.sampled_from([[("Host", "h")], []]),
)
def test_whatever_else_h11_writes_is_refused_or_read_as_h11_reads_it(method, target, fields, host):
    pairs = [(name.encode(), value.encode("latin-1")) for name, value in [*host, *fields]]
    client = h11.Connection(h11.CLIENT)
    try:
        data = client.send(h11.Request(method=method, target=target, headers=pairs)) or b""
    except h11.LocalProtocolError:
        return
    data += b"3\r\nabc\r\n0\r\n\r\n"
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    request, body, used = read_by_h11(server, len(data))

    parser = new_parser()
    used_here = feed(parser, data, len(data))
    if parser.error:
        assert parser.connection_close
        return
    assert request is not None
    assert parser.command.encode() == request.method
    assert parser.request_uri.encode() == request.target
    assert parser.completed is (used is not None)
    if parser.completed:
        assert parser.get_body_stream().read() == body
        assert used_here == used
        assert parser.connection_close is (server.their_state is h11.MUST_CLOSE)


def read_by_h11(server: h11.Connection, size: int) -> tuple[Any, bytes, int | None]:
    """Return request, body and octets used of what h11 reads; None for what it does not."""
    pieces = []
    try:
        request = server.next_event()
        while isinstance(event := server.next_event(), h11.Data):
            pieces.append(bytes(event.data))
    except h11.RemoteProtocolError:
        return None, b"", None
    if event is h11.NEED_DATA:
        return request, b"".join(pieces), None
    return request, b"".join(pieces), size - len(server.trailing_data[0])


# -- time ------------------------------------------------------------------------------

#: Where octets may stand, each with what makes the rest of the request well-formed.
PLACES = {
    "method": (b"", b" / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "target": (b"GET /", b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    "target at its start": (b"GET ", b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    "query": (b"GET /?", b" HTTP/1.1\r\nHost: h\r\n\r\n"),
    "authority": (b"GET http://", b"/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "brackets": (b"GET http://[", b"]/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "version": (b"GET / HTTP/1.", b"\r\nHost: h\r\n\r\n"),
    "name": (b"GET / HTTP/1.1\r\nHost: h\r\n", b": b\r\n\r\n"),
    "value": (b"GET / HTTP/1.1\r\nHost: h\r\nA:", b"\r\n\r\n"),
    "value in front of a NUL": (b"GET / HTTP/1.1\r\nHost: h\r\nA:", b"\x00\r\n\r\n"),
    "Host": (b"GET / HTTP/1.1\r\nHost: ", b"\r\n\r\n"),
    "Host in brackets": (b"GET / HTTP/1.1\r\nHost: [", b"]\r\n\r\n"),
    "Connection": (b"GET / HTTP/1.1\r\nHost: h\r\nConnection: ", b"\r\n\r\n"),
    "Expect": (b"GET / HTTP/1.1\r\nHost: h\r\nExpect: ", b"\r\n\r\n"),
    "Content-Length": (b"GET / HTTP/1.1\r\nHost: h\r\nContent-Length: ", b"\r\n\r\n"),
    "Transfer-Encoding": (b"GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: ", b"\r\n\r\n"),
    "lines": (b"GET / HTTP/1.1\r\nHost: h\r\n", b"\r\n\r\n"),
}
CHUNKED = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
PLACES |= {
    "chunks": (CHUNKED, b"\r\n0\r\n\r\n"),
    "extension": (CHUNKED + b"1;", b"\r\na\r\n0\r\n\r\n"),
    "quoted extension": (CHUNKED + b'1;a="', b'"\r\na\r\n0\r\n\r\n'),
    "trailers": (CHUNKED + b"0\r\nA:", b"\r\n\r\n"),
}

PUMPS = [bytes((octet,)) for octet in b"\0\t\n\r !\"#%&',-./09:;<=>?@AZ[\\]_az{~\x7f\x80\xa0\xff"]
PUMPS += [b"\r\n", b"\r\r\n", b" \r\n", b"\n ", b"A: b\r\n", b"A:\r\n", b"A_: b\r\n"]
PUMPS += [b"a ", b" a", b"a,", b", ", b",,a", b"chunked,", b"close,"]
PUMPS += [b"%4", b"%41", b"%%", b"/..", b"//", b"a:", b"::", b"1:", b"1."]
PUMPS += [b";a", b";a=b", b';a="b"', b" ;", b"= ", b'"a', b'\\"', b"1\r\na\r\n", b"0\r\n"]

#: What is linear takes a few milliseconds; what is quadratic takes 10**9 steps or more.
PUMPED_OCTETS = 1 << 16
MOST_SECONDS = 0.5


@pytest.mark.parametrize("place", PLACES)
def test_nothing_takes_more_time_than_its_length_says(place):
    before, behind = PLACES[place]
    for pump in PUMPS:
        data = before + pump * (PUMPED_OCTETS // len(pump)) + behind
        spent = seconds_for(data, len(data))
        assert spent < MOST_SECONDS, (pump, spent)


@pytest.mark.parametrize("place", PLACES)
def test_nothing_takes_more_time_when_it_comes_in_small_pieces(place):
    before, behind = PLACES[place]
    for pump in (b" ", b"a", b"\r", b"A: b\r\n", b"1\r\na\r\n"):
        data = before + pump * (PUMPED_OCTETS // len(pump)) + behind
        assert seconds_for(data, 7) < MOST_SECONDS, pump


def seconds_for(data: bytes, size: int) -> float:
    """Return the processor time that a connection of such octets takes."""
    parser = new_parser()
    vars(parser.adj).update(max_request_header_fields=1 << 20)
    begin = time.process_time()
    feed(parser, data, size)
    spent = time.process_time() - begin
    parser.close()
    return spent
