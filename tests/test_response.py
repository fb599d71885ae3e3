"""The head of a response and how its body is delimited, as tables."""

from __future__ import annotations

import time
from typing import Any

import pytest

from waitress import response
from waitress.response import (
    JOIN_BYTES,
    BodyMode,
    check_final_status,
    check_start,
    check_status,
    choose_framing,
    chunk_heads,
    client_keeps_alive,
    coalesce,
    compose_start,
    known_start,
    render_head,
    status_allows_body,
)

NONE, LENGTH, CHUNKED, UNTIL_CLOSE = BodyMode


@pytest.fixture(autouse=True)
def _nothing_remembered():
    """Let no test depend on what another one has taught the caches."""
    response._final_statuses.clear()
    response._canonical_names.clear()
    response._known_fields.clear()
    response._known_starts.clear()
    response._known_heads.clear()
    chunk_heads.clear()


def check_headers(headers):
    """Return the fields that a start is given, checked, and what Content-Length says."""
    start = check_start("200 OK", headers)
    return list(start.fields), start.content_length


class Text(str):
    """A string of a subclass, as template languages use them, that lies a little."""

    __slots__ = ()

    def __str__(self):
        return "no\r\n\r\n"

    def isascii(self):
        return True

    def isprintable(self):
        return True


# Framing


@pytest.mark.parametrize(
    ("version", "status", "length", "wanted", "mode", "kept"),
    [
        ("1.1", "200 OK", 3, True, LENGTH, True),
        ("1.1", "200 OK", 0, True, LENGTH, True),
        ("1.1", "200 OK", 3, False, LENGTH, False),
        ("1.1", "200 OK", None, True, CHUNKED, True),
        ("1.1", "200 OK", None, False, CHUNKED, False),
        ("1.0", "200 OK", 3, True, LENGTH, True),
        ("1.0", "200 OK", 3, False, LENGTH, False),
        ("1.0", "200 OK", None, True, UNTIL_CLOSE, False),
        ("1.0", "200 OK", None, False, UNTIL_CLOSE, False),
        ("1.1", "204 No Content", None, True, NONE, True),
        ("1.1", "204 No Content", 3, True, NONE, True),
        ("1.1", "304 Not Modified", None, True, NONE, True),
        ("1.1", "304 Not Modified", None, False, NONE, False),
        ("1.0", "304 Not Modified", None, True, NONE, False),
        ("1.1", "100 Continue", None, True, NONE, True),
    ],
)
def test_framing_follows_version_status_and_length(version, status, length, wanted, mode, kept):
    sends_body = mode is not NONE
    knows_length = length is not None
    framing = choose_framing(version, False, status, knows_length, wanted)
    assert framing == (mode, sends_body, kept)
    # Whatever GET would get is announced to HEAD, and nothing follows (RFC 9110, 9.3.2).
    assert choose_framing(version, True, status, knows_length, wanted) == (mode, False, kept)


@pytest.mark.parametrize(
    ("status", "allowed"),
    [
        ("200 OK", True),
        ("205 Reset Content", True),
        ("404", True),
        ("101 Switching Protocols", False),
        ("204", False),
        ("304 Not Modified", False),
    ],
)
def test_only_interim_204_and_304_responses_have_no_body(status, allowed):
    assert status_allows_body(status) is allowed


@pytest.mark.parametrize(
    ("version", "connection", "kept"),
    [
        ("1.1", None, True),
        ("1.1", "keep-alive", True),
        ("1.1", "", True),
        ("1.1", "close", False),
        ("1.1", "Close", False),
        ("1.1", "te ,\tclose", False),
        ("1.1", "closed", True),
        ("1.0", None, False),
        ("1.0", "Keep-Alive", True),
        ("1.0", "te, keep-alive", True),
        ("1.0", "keep-alive, close", False),
        ("1.0", "te", False),
    ],
)
def test_connection_options_are_a_list_in_which_close_wins(version, connection, kept):
    assert client_keeps_alive(version, connection) is kept


def test_a_chunk_has_its_size_in_upper_case_hexadecimal_in_front():
    for _ in range(2):
        assert chunk_heads[26] == b"1A\r\n"
        assert chunk_heads[0xABCDE] == b"ABCDE\r\n"
    assert chunk_heads == {26: b"1A\r\n", 0xABCDE: b"ABCDE\r\n"}


def test_small_neighbours_are_joined_and_large_pieces_left_alone():
    large = b"L" * (JOIN_BYTES + 1)
    assert coalesce([]) == []
    assert coalesce([b"ab", b"", b"cd"]) == [b"abcd"]
    joined = coalesce([b"a", b"b", large, large, b"c", b"d"])
    assert joined == [b"ab", large, large, b"cd"]
    assert joined[1] is large
    assert joined[2] is large


def test_joining_copies_no_more_than_every_byte_once():
    half = b"h" * (JOIN_BYTES // 2)
    pieces = coalesce([half] * 7)
    assert pieces == [half * 3, half * 3, half]


# Checks of the status


@pytest.mark.parametrize("status", ["200 OK", "200", "200 ", "999 A\tb \xe9", "404 Not Found"])
def test_a_status_is_three_digits_and_perhaps_a_reason(status):
    for _ in range(2):
        assert check_status(status) == status
        assert check_final_status(status) == status


@pytest.mark.parametrize(
    "status",
    ["", "20 OK", "2000", "200OK", " 200 OK", "OK", "099 x", "٢٠٠ OK", "200 a\x00b", "200 \u20ac"],
)
def test_anything_else_is_no_status(status):
    with pytest.raises(ValueError, match="is not a three-digit code, a space and a reason"):
        check_status(status)


@pytest.mark.parametrize("status", ["200 OK\r\nX: y", "200 OK\n", "200\rOK"])
def test_a_line_break_in_the_status_is_refused(status):
    with pytest.raises(ValueError, match="carriage return/line feed character present in status"):
        check_status(status)


@pytest.mark.parametrize("status", [200, None, b"200 OK", ["200 OK"]])
def test_a_status_is_a_string(status):
    with pytest.raises(AssertionError, match="is not a string"):
        check_status(status)


@pytest.mark.parametrize("status", ["100", "101 Switching Protocols", "103 Early Hints", "199 "])
def test_an_interim_status_is_a_status_but_no_final_one(status):
    for _ in range(2):
        assert check_status(status) == status
        with pytest.raises(ValueError, match=f"'{status}' is an interim one"):
            check_final_status(status)


def test_a_status_of_a_subclass_becomes_a_plain_string():
    for _ in range(2):
        status = check_final_status(Text("200 OK"))
        assert type(status) is str
        assert status == "200 OK"


# Checks of the fields


def test_any_iterable_of_pairs_is_taken_and_kept_in_order_as_given():
    headers: list[Any] = [("x-B", "2"), ("Content-length", "12"), ["x-a", "\xe9\t"]]
    expected = [("x-B", "2"), ("Content-length", "12"), ("x-a", "\xe9\t")]
    for _ in range(2):
        assert check_headers(iter(headers)) == (expected, 12)
        assert check_headers(dict(headers).items()) == (expected, 12)
    assert check_headers([]) == ([], None)


@pytest.mark.parametrize("item", [("X",), ("X", "1", "2"), None])
def test_what_is_no_pair_is_refused(item):
    with pytest.raises((ValueError, TypeError)):
        check_headers([item])


@pytest.mark.parametrize("name", [b"X", None, 1, []])
def test_a_name_is_a_string(name):
    with pytest.raises(AssertionError, match=r"^Header name .* is not a string in \("):
        check_headers([(name, "v")])


@pytest.mark.parametrize("value", [b"v", None, 1, ["v"]])
def test_a_value_is_a_string(value):
    with pytest.raises(AssertionError, match=r"^Header value .* is not a string in \('X', "):
        check_headers([("X", value)])


@pytest.mark.parametrize("char", ["\r", "\n", "\r\n"])
def test_a_line_break_is_refused_in_values_and_names(char):
    with pytest.raises(ValueError, match="feed character present in header value"):
        check_headers([(f"X{char}", f"a{char}b")])
    with pytest.raises(ValueError, match="feed character present in header name"):
        check_headers([(f"X{char}Y", "v")])


@pytest.mark.parametrize("char", ["\x00", "\x0b", "\x1f", "\x7f", "\u20ac", "\U0001f600"])
def test_what_latin_1_or_the_grammar_does_not_have_is_refused_in_values(char):
    with pytest.raises(ValueError, match="control character or character outside latin-1"):
        check_headers([("X", f"a{char}b")])


@pytest.mark.parametrize("name", ["", " X", "X ", "X Y", "X:", "X\x00", "X\xe9", "X\t", "(X)"])
def test_a_name_is_a_token(name):
    with pytest.raises(ValueError, match="is not a token"):
        check_headers([(name, "v")])


# RFC 2616, 13.5.1, which PEP 3333 refers to; with "Trailer" as it is spelled now.
HOP_BY_HOP = [
    *("connection", "keep-alive", "proxy-authenticate", "proxy-authorization"),
    *("te", "trailer", "transfer-encoding", "upgrade"),
]


def test_fields_about_the_connection_are_told():
    assert response.hop_by_hop == frozenset(HOP_BY_HOP)


@pytest.mark.parametrize("name", HOP_BY_HOP)
def test_fields_about_the_connection_are_refused(name):
    for spelled in (name, name.upper()):
        for _ in range(2):
            with pytest.raises(AssertionError) as caught:
                check_headers([(spelled, "close")])
            assert str(caught.value) == (
                f'{spelled} is a "hop-by-hop" header; it cannot be used by a WSGI '
                "application (see PEP 3333)"
            )


@pytest.mark.parametrize("value", ["", "x", "1.0", "0x1", "1 2"])
def test_a_content_length_that_is_no_number_is_told_in_the_words_of_int(value):
    with pytest.raises(ValueError, match="invalid literal for int"):
        check_headers([("Content-Length", value)])


@pytest.mark.parametrize("value", ["-1", "+1", "1_0", " 1", "1 ", "\xa01", "1\t"])
def test_a_content_length_is_digits_and_nothing_else(value):
    with pytest.raises(ValueError, match="is not a non-negative decimal number"):
        check_headers([("content-length", value)])


@pytest.mark.parametrize("second", ["3", "4"])
def test_a_second_content_length_is_refused_even_if_it_is_the_same(second):
    with pytest.raises(ValueError, match="Content-Length is given more than once"):
        check_headers([("Content-Length", "3"), ("content-length", second)])


def test_strings_of_subclasses_become_plain_ones():
    ((name, value),), _ = check_headers([(Text("X-Y"), Text("v"))])
    assert (type(name), type(value)) == (str, str)
    assert (name, value) == ("X-Y", "v")


def test_strings_of_subclasses_cannot_talk_their_way_out():
    with pytest.raises(ValueError, match="feed character present in header value"):
        check_headers([("X", Text("a\r\nb"))])


def test_content_length_is_found_under_any_spelling():
    assert check_headers([("X", "1"), ("cOnTent-lEngth", "12")])[1] == 12
    assert check_headers([("Content-Digest", "1"), ("Content-Lengths", "12")])[1] is None
    with pytest.raises(ValueError, match="non-negative"):
        check_headers([("cOnTent-lEngth", "-1")])


def test_checking_takes_time_in_proportion_to_the_length():
    def seconds(count):
        value = "\t\xe9" * count + "\x00"
        started = time.perf_counter()
        with pytest.raises(ValueError, match="control"):
            check_headers([("X", value)])
        with pytest.raises(ValueError, match="not a token"):
            check_headers([("X-" * count + "\x00", "v")])
        with pytest.raises(ValueError, match="three-digit"):
            check_status("200 " + "\t " * count + "\x00")
        return time.perf_counter() - started

    assert seconds(1_000_000) < 5


# What is remembered of good values


def test_memory_of_good_values_is_bounded():
    for number in range(2000):
        start = check_start(f"200 {number}", [(f"X-{number}", str(number))])
        render_head(start, ("1.1", False, True, True, None))
        chunk_heads[number]
    for number in range(2000):
        render_head(start, ("1.1", False, True, True, f"ident {number}"))
    for memory in (
        response._known_fields,
        response._known_starts,
        response._known_heads,
        response._canonical_names,
        response._final_statuses,
        start.heads,
        chunk_heads,
    ):
        assert 0 < len(memory) <= 512


def test_what_was_found_good_is_found_again():
    headers = [("x-a", "1"), ("Content-Length", "3")]
    key = ("200 OK", tuple(headers))
    assert known_start(key) is None
    start = check_start("200 OK", headers)
    assert known_start(key) is compose_start("200 OK", headers) is start
    assert known_start(("404 No", tuple(headers))) is None
    assert response._final_statuses == {"200 OK"}
    assert response._canonical_names == {"x-a": "X-A", "Content-Length": "Content-Length"}
    assert response._known_fields == {
        ("x-a", "1"): (("x-a", "1"), ("X-A", "1")),
        ("Content-Length", "3"): (("Content-Length", "3"), ("Content-Length", "3")),
    }


def test_what_is_not_hashable_is_known_to_nobody():
    with pytest.raises(TypeError):
        known_start(("200 OK", (["X", "1"],)))


def test_pages_that_differ_in_their_length_only_share_their_heads():
    one = check_start("200 OK", [("X", "1"), ("Content-Length", "3")])
    other = check_start("200 OK", [("x", "1"), ("Content-Length", "4")])
    assert one is not other
    assert one.heads is other.heads
    circumstances = ("1.1", False, True, True, "waitress")
    head = render_head(one, circumstances)
    assert other.heads == {circumstances: head}
    assert b"\r\nContent-Length: 3\r\n" in head.render(one.length, "D")
    assert b"\r\nContent-Length: 4\r\n" in head.render(other.length, "D")
    assert check_start("404 No", [("X", "1")]).heads is not one.heads


@pytest.mark.parametrize(
    "headers",
    [
        [("Set-Cookie", "secret")],
        [("X", "1"), ("Set-Cookie", "secret")],
        [("X", "v" * 1000)],
        [("X" * 1000, "v")],
        [("X", "v")] * 33,
        [("X", "v" * 250)] * 9,
    ],
)
def test_what_is_long_or_private_is_not_remembered(headers):
    for _ in range(2):
        start = check_start("200 OK", headers)
        assert list(start.fields) == headers
        assert known_start(("200 OK", tuple(headers))) is None
    assert not response._known_heads
    assert not any(
        name == "Set-Cookie" or len(name + value) > 256 for name, value in response._known_fields
    )


def test_what_has_a_long_or_an_interim_status_is_not_remembered():
    check_start("200 " + "x" * 1000, [])
    compose_start("100 Continue", [])
    assert not response._final_statuses
    assert not response._known_starts


def test_what_only_a_task_may_send_is_not_remembered_for_applications():
    compose_start("200 OK", [("Connection", "close")])
    with pytest.raises(AssertionError, match="hop-by-hop"):
        check_headers([("Connection", "close")])
    assert not response._known_starts


class Liar(str):
    """A string that claims to be equal to another one, and is found in its place."""

    __slots__ = ()
    claims = "v"

    def __eq__(self, other):
        return other == self.claims

    def __hash__(self):
        return hash(self.claims)


def test_whoever_claims_to_be_known_gets_what_was_checked():
    check_headers([("X", "v")])
    for status, headers in [
        ("200 OK", [("X", Liar("a\r\nb"))]),
        ("200 OK", [("X", "v"), ("X", Liar("a\r\nb"))]),
    ]:
        start = known_start((status, tuple(headers))) or check_start(status, headers)
        assert {value for _, value in start.fields} == {"v"}
        assert all(type(value) is str for _, value in start.fields)
        head = render_head(start, ("1.1", False, True, True, None)).render(0, "D")
        assert b"a\r\nb" not in head


def test_whoever_claims_to_be_unknown_is_checked():
    class Unknown(Liar):
        claims = "something else"

    with pytest.raises(ValueError, match="feed character"):
        check_headers([("X", Unknown("a\r\nb"))])
    ((_, value),), _ = check_headers([("X", Unknown("v"))])
    assert type(value) is str
    assert set(response._known_fields) == {("X", "v")}


# The head


def head_bytes(
    *headers, status="200 OK", version="1.1", method="GET", length=3, keep=True, date="D",
    ident="waitress",
):  # fmt: skip
    start = compose_start(status, list(headers))
    knows_length = length is not None or start.length is not None
    made = render_head(start, (version, method == "HEAD", knows_length, keep, ident))
    return made.render(start.length or length, date)


def head(*headers, **options):
    """Return the fields of a head."""
    lines = head_bytes(*headers, **options).decode("latin-1").split("\r\n")
    assert lines[-2:] == ["", ""]
    return [tuple(line.split(": ", 1)) for line in lines[1:-2]]


def test_names_are_capitalised_part_by_part():
    fields = head(("x-FOO-bar", "1"), ("ETag", "2"), ("WWW-Authenticate", "3"), ("x--y", "4"))
    names = [name for name, _ in fields]
    assert {"X-Foo-Bar", "Etag", "Www-Authenticate", "X--Y"} < set(names)


def test_the_length_is_added_where_the_application_gave_none():
    assert ("Content-Length", "3") in head()
    given = head(("content-length", "007"))
    assert [value for name, value in given if name == "Content-Length"] == ["007"]


def test_chunks_are_announced():
    assert ("Transfer-Encoding", "chunked") in head(length=None)
    assert "Content-Length" not in dict(head(length=None))
    assert "Transfer-Encoding" not in dict(head())


@pytest.mark.parametrize("headers", [[], [("Content-Length", "3")]])
def test_nothing_announces_a_body_where_the_status_allows_none(headers):
    assert set(dict(head(*headers, status="204 No Content"))) == {"Date", "Server"}


def test_nothing_but_the_close_announces_a_body_that_ends_with_the_connection():
    names = dict(head(length=None, version="1.0"))
    assert names == {"Connection": "close", "Date": "D", "Server": "waitress"}


@pytest.mark.parametrize(
    ("version", "keep_alive", "option"),
    [
        ("1.1", True, None),
        ("1.1", False, "close"),
        ("1.0", True, "Keep-Alive"),
        ("1.0", False, "close"),
    ],
)
def test_what_becomes_of_the_connection_is_told_where_it_is_not_the_rule(
    version, keep_alive, option
):
    assert dict(head(keep=keep_alive, version=version)).get("Connection") == option


def test_a_connection_field_that_is_there_already_is_not_added_to():
    fields = head(("connection", "close"), keep=False)
    assert [value for name, value in fields if name == "Connection"] == ["close"]


@pytest.mark.parametrize(
    ("given", "told"), [([], ["D"]), (["mine"], ["mine"]), ([""], ["D"]), (["", "b"], ["", "b"])]
)
@pytest.mark.parametrize("length", [3, None])
def test_the_date_is_the_applications_unless_that_is_empty(given, told, length):
    fields = head(*[("date", value) for value in given], length=length)
    assert [value for name, value in fields if name == "Date"] == told


@pytest.mark.parametrize(
    ("headers", "ident", "server", "via"),
    [
        ([], "waitress", "waitress", None),
        ([], None, None, None),
        ([], "", None, None),
        ([("server", "mine")], "front", "mine", "front"),
        ([("Server", "mine")], None, "mine", "waitress"),
    ],
)
def test_the_server_names_itself_in_server_or_via(headers, ident, server, via):
    fields = dict(head(*headers, ident=ident))
    assert (fields.get("Server"), fields.get("Via")) == (server, via)


def test_what_did_not_come_from_start_response_is_checked_too():
    with pytest.raises(ValueError, match="feed character present in header value"):
        head(("X", "a\r\nb"))
    for headers in ([], [("Server", "mine")]):
        with pytest.raises(ValueError, match="feed character present in header value"):
            head(*headers, ident="a\r\nb")
    with pytest.raises(ValueError, match="non-negative"):
        head(("Content-Length", "-3"))
    with pytest.raises(ValueError, match="more than once"):
        head(("Content-Length", "3"), ("content-length", "3"))
    with pytest.raises(AssertionError, match="Header value 1 is not a string"):
        head(("X", 1))
    with pytest.raises(ValueError, match="carriage return"):
        head(status="200 OK\r\nX: y")


def test_lists_are_pairs_too_and_a_name_may_repeat():
    fields = head(["set-cookie", "b"], ["Set-Cookie", "a"])
    assert [field for field in fields if field[0] == "Set-Cookie"] == [
        ("Set-Cookie", "b"),
        ("Set-Cookie", "a"),
    ]


def test_the_head_is_sorted_by_name_and_equal_names_keep_their_order():
    fields = [("X-A", "1"), ("Set-Cookie", "z"), ("A", "2"), ("Set-Cookie", "a"), ("Via", "v")]
    assert head_bytes(*fields, ("Server", "s"), keep=False) == (
        b"HTTP/1.1 200 OK\r\nA: 2\r\nConnection: close\r\nContent-Length: 3\r\nDate: D\r\n"
        b"Server: s\r\nSet-Cookie: z\r\nSet-Cookie: a\r\nVia: v\r\nVia: waitress\r\n"
        b"X-A: 1\r\n\r\n"
    )


def test_text_is_latin_1_and_a_percent_sign_is_one():
    assert head_bytes(("X", "\xe9 100% %d"), status="404 N\xf6", ident=None) == (
        b"HTTP/1.1 404 N\xf6\r\nContent-Length: 3\r\nDate: D\r\nX: \xe9 100% %d\r\n\r\n"
    )


def test_a_code_without_reason_gets_the_space_that_the_grammar_wants():
    assert head_bytes(status="200").startswith(b"HTTP/1.1 200 \r\nContent")


def test_a_head_tells_each_length_and_each_date():
    start = check_start("200 OK", [])
    made = render_head(start, ("1.1", False, True, True, None))
    for length, date, second in [(1, "a", 5.0), (2, "a", 5.0), (2, "b", 6.0), (1, "a", 5.0)]:
        told = made.render(length, date, second)
        assert told == b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nDate: %b\r\n\r\n" % (
            length,
            date.encode(),
        )
        assert made.told_last == (length, second, told)


def test_lengths_that_are_equal_are_told_in_one_way():
    start = check_start("200 OK", [])
    made = render_head(start, ("1.1", False, True, True, None))
    assert made.render(True, "a") == made.render(1.0, "a") == made.render(1, "a")


def test_a_head_without_gaps_is_whole():
    start = check_start("200 OK", [("Date", "mine")])
    made = render_head(start, ("1.1", False, False, True, None))
    assert made.render(3, "D") == (
        b"HTTP/1.1 200 OK\r\nDate: mine\r\nTransfer-Encoding: chunked\r\n\r\n"
    )


@pytest.mark.parametrize("version", ["", "2.0", "1.2", None])
def test_no_head_is_made_in_another_version(version):
    with pytest.raises(AssertionError, match=r"neither HTTP/1.0 or HTTP/1.1"):
        head(version=version)
