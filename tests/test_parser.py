from __future__ import annotations

import types
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeding import CUTS, assert_linear, feed, feed_cut
from waitress import parser as parser_module
from waitress.parser import (
    SINGLETON_FIELDS,
    TRANSITIONS,
    HTTPRequestParser,
    ParserState,
    ParsingError,
    TransferEncodingNotImplemented,
    _Authorities,
    _ContentLengths,
    _FieldKeys,
    _FieldLines,
    _MalformedLineError,
    _OptionSets,
    _OriginForms,
    crack_first_line,
    first_line_re,
    get_header_lines,
    split_uri,
    unquote_bytes_to_wsgi,
)
from waitress.rfc7230 import HEADER_FIELD_RE, REQUEST_FIELDS
from waitress.utilities import BadRequest

HEAD = ParserState.HEAD
BODY = ParserState.BODY
COMPLETE = ParserState.COMPLETE
FAILED = ParserState.FAILED


#: What a test gives to all settings, beside those that older releases had.
NEWER_SETTINGS = {}


def settings(**changes):
    """Return settings as older releases had them; the newer ones only where given."""
    adj = types.SimpleNamespace(
        max_request_header_size=2000,
        max_request_body_size=1000,
        inbuf_overflow=10000,
        url_scheme="http",
    )
    vars(adj).update({**NEWER_SETTINGS, **changes})
    return adj


def new_parser(**changes):
    return HTTPRequestParser(settings(**changes))


def parse(data, cut="whole", **changes):
    """Feed a message that is one request; check that all of it and no more was taken."""
    parser = new_parser(**changes)
    used = feed_cut(parser, data, cut)
    assert parser.completed
    if not parser.error:
        assert used == len(data)
    return parser


def get(*lines, target=b"/", version=b"1.1", method=b"GET", body=b""):
    """Return a request with a Host and the given field lines."""
    head = [method + b" " + target + b" HTTP/" + version, b"Host: h", *lines, b"", b""]
    return b"\r\n".join(head) + body


def refused(data, cut="whole", **changes):
    """Return the error with which a request is refused."""
    parser = parse(data, cut, **changes)
    assert parser.state is FAILED
    assert parser.connection_close
    assert not parser.expect_continue
    assert parser.error
    assert parser.error.reject_reason
    return parser.error


def check_refusal(data, cut, text, reason):
    error = refused(data, cut)
    assert error.code == 400
    if cut == "octets" and not parse(data, cut).headers_finished:
        # It was hopeless before its line was whole.
        assert error.reject_reason in ("bare-cr-lf", "control-character")
    else:
        assert (error.body, error.reject_reason) == (text, reason)


@pytest.fixture(params=CUTS)
def cut(request):
    return request.param


class TestWholeRequests:
    def test_get_is_told_in_all_its_parts(self, cut):
        parser = parse(get(b"Accept: */*", target=b"/a%20b?c=%20d"), cut)
        assert parser.state is COMPLETE
        assert parser.error is None
        assert parser.first_line == b"GET /a%20b?c=%20d HTTP/1.1"
        assert parser.command == "GET"
        assert parser.version == "1.1"
        assert parser.request_uri == "/a%20b?c=%20d"
        assert parser.path == "/a b"
        assert parser.query == "c=%20d"
        assert parser.fragment == ""
        assert parser.proxy_scheme == ""
        assert parser.proxy_netloc == ""
        assert parser.url_scheme == "http"
        assert parser.headers == {"HOST": "h", "ACCEPT": "*/*"}
        assert parser.headers_finished
        assert not parser.empty
        assert not parser.chunked
        assert not parser.connection_close
        assert not parser.expect_continue
        assert parser.content_length == 0
        assert parser.body_rcv is None
        assert parser.get_body_stream().read() == b""

    def test_post_of_known_length(self, cut):
        parser = parse(get(b"Content-Length: 5", method=b"POST", body=b"hello"), cut)
        assert parser.state is COMPLETE
        assert parser.content_length == 5
        assert parser.headers["CONTENT_LENGTH"] == "5"
        assert parser.body_bytes_received == 5
        assert parser.get_body_stream().read() == b"hello"

    def test_post_in_chunks_becomes_one_of_known_length(self, cut):
        body = b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
        parser = parse(get(b"Transfer-Encoding: chunked", method=b"POST", body=body), cut)
        assert parser.state is COMPLETE
        assert parser.chunked
        assert parser.headers == {"HOST": "h", "CONTENT_LENGTH": "5"}
        assert parser.body_bytes_received == len(body)
        assert parser.get_body_stream().read() == b"abcde"

    def test_trailers_are_never_merged_into_the_fields(self, cut):
        body = b"0\r\nX-Admin: yes\r\n\r\n"
        parser = parse(get(b"Transfer-Encoding: chunked", body=body), cut)
        assert parser.headers == {"HOST": "h", "CONTENT_LENGTH": "0"}

    def test_http_10_needs_no_host(self, cut):
        parser = parse(b"GET / HTTP/1.0\r\n\r\n", cut)
        assert parser.state is COMPLETE
        assert parser.version == "1.0"
        assert parser.headers == {}

    def test_scheme_is_the_configured_one(self):
        assert parse(get(), url_scheme="https").url_scheme == "https"

    def test_one_call_takes_the_head_and_the_next_one_the_body(self):
        data = get(b"Content-Length: 5", body=b"hello")
        parser = new_parser()
        assert parser.received(data) == len(data) - 5
        assert parser.state is BODY
        assert parser.headers_finished
        assert not parser.completed
        assert parser.received(b"hello and more") == 5
        assert parser.completed

    def test_nothing_is_taken_when_complete(self):
        parser = parse(get())
        assert parser.received(b"GET / HTTP/1.1\r\n\r\n") == 0

    def test_octets_are_counted(self, cut):
        data = get(b"Content-Length: 5", body=b"hello")
        parser = parse(data, cut)
        assert parser.header_bytes_received == len(data) - 5
        assert parser.body_bytes_received == 5

    def test_part_of_a_head_is_kept_until_the_rest_comes(self):
        parser = new_parser()
        assert parser.received(b"GET / HTTP/1.0\r\n\r") == 17
        assert parser.header_plus == b"GET / HTTP/1.0\r\n\r"
        assert not parser.headers_finished
        assert parser.received(b"\nrest") == 1
        assert parser.header_plus == b""
        assert parser.completed

    def test_request_is_not_written_to_once_it_is_complete(self):
        parser = parse(get(b"Content-Length: 5", body=b"hello"))
        before = dict(vars(parser))
        parser.received(b"more")
        parser.get_body_stream()
        assert vars(parser) == before

    def test_body_of_another_request_is_another_body(self):
        first = parse(get(b"Content-Length: 1", b"X: y", body=b"a"))
        second = parse(get(b"Content-Length: 1", body=b"b"))
        assert first.get_body_stream().read() == b"a"
        assert second.get_body_stream().read() == b"b"
        assert "X" not in second.headers

    def test_defaults_stand_before_the_head_came(self):
        parser = new_parser()
        assert (parser.fragment, parser.proxy_scheme, parser.proxy_netloc) == ("",) * 3
        assert parser.version == "1.0"
        assert parser.headers == {}

    def test_what_is_asked_is_not_there_before_the_head_came(self):
        """Nor in 3.0.2; and CPython is quicker where a class has no default."""
        parser = new_parser()
        for name in ("command", "path", "query", "request_uri", "url_scheme", "first_line"):
            assert not hasattr(parser, name)

    @pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\nBad\r\n\r\n", b"get / HTTP/1.1\r\n\r\n"])
    def test_what_is_asked_is_empty_where_a_head_is_refused_before_it_is_known(self, head):
        parser = new_parser()
        parser.received(head)
        assert parser.error is not None
        assert (parser.command, parser.path, parser.query, parser.request_uri) == ("",) * 4
        assert parser.url_scheme == "http"

    def test_close_gives_the_body_back(self):
        parser = parse(get(b"Content-Length: 5", body=b"hello"), inbuf_overflow=1)
        stream = parser.get_body_stream()
        parser.close()
        assert stream.closed

    def test_close_without_a_body_does_nothing(self):
        parser = parse(get())
        parser.close()
        assert parser.get_body_stream().read() == b""

    def test_body_past_the_overflow_lies_in_a_file(self, tmp_path):
        parser = parse(
            get(b"Content-Length: 5", body=b"hello"), inbuf_overflow=1, spool_dir=str(tmp_path)
        )
        stream = parser.get_body_stream()
        assert stream.fileno() >= 0
        assert stream.read() == b"hello"
        parser.close()


class TestEmptyLines:
    def test_two_empty_lines_are_an_empty_request(self, cut):
        parser = parse(b"\r\n\r\n", cut)
        assert parser.empty
        assert parser.state is COMPLETE
        assert parser.error is None

    def test_one_empty_line_before_the_request_line_is_ignored(self, cut):
        parser = parse(b"\r\n" + get(), cut)
        assert not parser.empty
        assert parser.command == "GET"

    def test_one_empty_line_waits(self):
        parser = new_parser()
        assert parser.received(b"\r\n") == 2
        assert not parser.completed

    @pytest.mark.parametrize("space", [b" ", b"\t", b"\n", b"\r", b"\x0b", b"\x00", b"\r\n\n"])
    def test_other_space_before_the_request_line_is_refused(self, space, cut):
        assert refused(space + get(), cut).code == 400


class TestRequestLine:
    @pytest.mark.parametrize(
        ("line", "text", "reason"),
        [
            (b"GET /  HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET  / HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b" GET / HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/1.1 ", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/1.1\t", "Start line is invalid", "bad-request-line"),
            (b"GET\t/ HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET /\tHTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET /a b HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET /a\tb HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET /a\x00b HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET /a\x7fb HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET / http/1.1", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/1", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/1.10", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/11.1", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/.1.", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/1,1", "Start line is invalid", "bad-request-line"),
            (b"GET / HTTP/\xb2.1", "Start line is invalid", "bad-request-line"),
            (b"GET / RTSP/1.0", "Start line is invalid", "bad-request-line"),
            (b"GET HTTP/1.1", "Start line is invalid", "no-version"),
            (b"GET /", "Start line is invalid", "no-version"),
            (b"GET", "Start line is invalid", "bad-request-line"),
            (b"G(T / HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"G\x00T / HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"G\xc4T / HTTP/1.1", "Start line is invalid", "bad-request-line"),
            (b"get / HTTP/1.1", 'Malformed HTTP method "get"', "bad-method"),
            (b"Get / HTTP/1.1", 'Malformed HTTP method "Get"', "bad-method"),
            (b"get /", 'Malformed HTTP method "get"', "bad-method"),
            (b"GET /\nHost: h HTTP/1.1", "Bare CR or LF found in HTTP message", "bare-cr-lf"),
            (b"GET / HTTP/1.1\n", "Bare CR or LF found in HTTP message", "bare-cr-lf"),
            (b"GET / HTTP/1.1\r", "Bare CR or LF found in HTTP message", "bare-cr-lf"),
            (b"\nGET / HTTP/1.1", "Bare CR or LF found in HTTP message", "bare-cr-lf"),
        ],
    )
    def test_malformed_one_is_refused_in_the_lowest_version(self, line, text, reason, cut):
        data = line + b"\r\nHost: h\r\n\r\n"
        check_refusal(data, cut, text, reason)
        assert parse(data).version == "1.0"

    @pytest.mark.parametrize("method", [b"GET", b"G-ET1", b"123", b"!#$%&'*+-.^_`|~", b"BREW"])
    def test_every_token_without_lower_case_letters_is_a_method(self, method, cut):
        assert parse(get(method=method), cut).command == method.decode()

    @pytest.mark.parametrize("minor", [b"1", b"2", b"9"])
    def test_later_minor_versions_are_served_as_1_1(self, minor, cut):
        parser = parse(get(version=b"1." + minor), cut)
        assert parser.version == "1.1"
        assert not parser.connection_close

    @pytest.mark.parametrize("version", [b"0.9", b"2.0", b"3.1", b"8.4"])
    def test_other_major_versions_are_told_and_never_persist(self, version, cut):
        parser = parse(get(b"Connection: keep-alive", version=version), cut)
        assert parser.error is None
        assert parser.version == version.decode()
        assert parser.connection_close

    def test_sample_of_a_method_is_bounded(self):
        assert len(refused(get(method=b"x" * 1000)).body) < 300


class TestTarget:
    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            (b"/", "/", ""),
            (b"/a/b", "/a/b", ""),
            (b"/a%2Fb%00%e4", "/a/b\x00\xe4", ""),
            (b"/a+b;p=1", "/a+b;p=1", ""),
            (b"/%zz%", "/%zz%", ""),
            (b"/a?b?c", "/a", "b?c"),
            (b"/?", "/", ""),
            (b"/?%20", "/", "%20"),
            (b"//a//b?x", "//a//b", "x"),
            (b"//user@host:80/a", "//user@host:80/a", ""),
            (b"/../a/./b", "/../a/./b", ""),
            (b"/http://a/b", "/http://a/b", ""),
            (b'/"<>[\\]^`{|}', '/"<>[\\]^`{|}', ""),
        ],
    )
    def test_origin_form(self, target, path, query, cut):
        parser = parse(get(target=target), cut)
        assert parser.error is None
        assert (parser.path, parser.query) == (path, query)
        assert parser.request_uri == target.decode()
        assert (parser.proxy_scheme, parser.proxy_netloc) == ("", "")
        assert parser.headers["HOST"] == "h"

    @pytest.mark.parametrize(
        ("target", "scheme", "netloc", "path", "query"),
        [
            (b"http://ex.com", "http", "ex.com", "", ""),
            (b"http://ex.com/", "http", "ex.com", "/", ""),
            (b"http://ex.com?a", "http", "ex.com", "", "a"),
            (b"HTTP://Ex.com:8/a%20b?c=d", "http", "Ex.com:8", "/a b", "c=d"),
            (b"https://[::1]:80/x", "https", "[::1]:80", "/x", ""),
        ],
    )
    def test_absolute_form_and_its_authority_wins_over_host(
        self, target, scheme, netloc, path, query, cut
    ):
        parser = parse(get(target=target), cut)
        assert parser.error is None
        assert (parser.proxy_scheme, parser.proxy_netloc) == (scheme, netloc)
        assert (parser.path, parser.query) == (path, query)
        assert parser.request_uri == target.decode()
        assert parser.headers["HOST"] == netloc
        assert parser.url_scheme == "http"

    def test_absolute_form_gives_a_host_where_none_was_sent(self, cut):
        assert parse(b"GET http://a/ HTTP/1.0\r\n\r\n", cut).headers == {"HOST": "a"}

    def test_absolute_form_does_not_excuse_a_missing_host(self, cut):
        assert refused(b"GET http://a/ HTTP/1.1\r\n\r\n", cut).reject_reason == "no-host"

    def test_asterisk_form_is_for_options(self, cut):
        parser = parse(get(method=b"OPTIONS", target=b"*"), cut)
        assert parser.error is None
        assert parser.path == "*"

    @pytest.mark.parametrize(
        "target",
        [
            b"*",
            b"foo",
            b"foo/bar",
            b"?x",
            b"*/",
            b"http:",
            b"http:/",
            b"http://",
            b"http:///x",
            b"http:x",
            b"http://:80/",
            b"http://u:p@h/x",
            b"http://[::1/x",
            b"http://::1]/x",
            b"http://a:b/",
            b"http://a:99999/",
            b"http://\xe4/",
            b"ftp://h/x",
            b"mailto:x",
            b"example.com:443",
            b"h\xe4",
            # no fragment in a target (RFC 9112, 3.2)
            b"/a#b",
            b"/#",
            b"//a#b",
            b"http://a/#b",
            b"/\xe4",
            b"//\xff",
        ],
    )
    def test_all_else_is_refused_in_the_version_of_the_request(self, target, cut):
        data = get(target=target)
        error = refused(data, cut)
        assert (error.code, error.body, error.reject_reason) == (400, "Bad URI", "bad-target")
        assert parse(data).version == "1.1"

    @pytest.mark.parametrize("target", [b"a:443", b"/", b"http://a/", b"*"])
    def test_connect_is_never_run_as_a_path(self, target, cut):
        error = refused(get(method=b"CONNECT", target=target), cut)
        assert (error.code, error.reject_reason) == (501, "connect")


class TestFieldLines:
    @pytest.mark.parametrize(
        ("line", "key", "value"),
        [
            (b"A: b", "A", "b"),
            (b"a:b", "A", "b"),
            (b"X-Foo-bar:\t b c\t ", "X_FOO_BAR", "b c"),
            (b"A:", "A", ""),
            (b"A: \t ", "A", ""),
            (b"A: \xa0b\x85", "A", "\xa0b\x85"),
            (b"A: b:c", "A", "b:c"),
            (b"1!#$%&'*+.^`|~: x", "1!#$%&'*+.^`|~", "x"),
        ],
    )
    def test_well_formed_line_gives_key_and_value(self, line, key, value, cut):
        assert parse(get(line), cut).headers == {"HOST": "h", key: value}

    @pytest.mark.parametrize(
        ("line", "text", "reason"),
        [
            (b"A", "Invalid header", "bad-field-name"),
            (b": b", "Invalid header", "bad-field-name"),
            (b"A : b", "Invalid header", "bad-field-name"),
            (b"A\t: b", "Invalid header", "bad-field-name"),
            (b"A\x0b: b", "Invalid header", "bad-field-name"),
            (b"\xc4: b", "Invalid header", "bad-field-name"),
            (b"A: \x00", "Invalid header", "bad-field-value"),
            (b"A: b\x0bc", "Invalid header", "bad-field-value"),
            (b"A: b\x7f", "Invalid header", "bad-field-value"),
            (b"A: b\n", 'Bare CR or LF found in header line "A: b\n"', "bare-cr-lf"),
            (b"A: b\nC: d", 'Bare CR or LF found in header line "A: b\nC: d"', "bare-cr-lf"),
            (b"A: b\rC: d", 'Bare CR or LF found in header line "A: b\rC: d"', "bare-cr-lf"),
            (b" A: b", 'Folded header line " A: b"', "obs-fold"),
            (b"A: b\r\n c", 'Folded header line " c"', "obs-fold"),
            (b"A: b\r\n\tc: d", 'Folded header line "\tc: d"', "obs-fold"),
            (b"Transfer-Encoding:\r\n chunked", 'Folded header line " chunked"', "obs-fold"),
        ],
    )
    def test_malformed_line_is_refused_in_the_lowest_version(self, line, text, reason, cut):
        data = get(line)
        check_refusal(data, cut, text, reason)
        assert parse(data).version == "1.0"

    def test_white_space_behind_the_request_line_is_a_folded_line(self, cut):
        data = b"GET / HTTP/1.1\r\n Host: h\r\n\r\n"
        assert refused(data, cut).reject_reason == "obs-fold"

    def test_field_lines_are_judged_before_the_request_line(self, cut):
        assert refused(get(b"A", method=b"get"), cut).body == "Invalid header"

    def test_sample_of_a_line_is_bounded(self):
        assert len(refused(get(b"A: " + b"b" * 1000 + b"\n")).body) < 300

    @pytest.mark.parametrize(
        "line",
        [b"X_Y: z", b"_: z", b"Content_Length: 5", b"Transfer_Encoding: chunked", b"HO_ST: evil"],
    )
    def test_name_with_underscore_is_dropped(self, line, cut):
        assert parse(get(line), cut).headers == {"HOST": "h"}
        assert parse(get(line, line), cut).headers == {"HOST": "h"}

    def test_name_with_underscore_does_not_pass_for_the_one_with_hyphen(self, cut):
        lines = b"X-Forwarded-For: 1", b"X_Forwarded_For: 2", b"X-Forwarded-For: 3"
        assert parse(get(*lines), cut).headers["X_FORWARDED_FOR"] == "1, 3"

    def test_more_names_than_are_kept_are_read_alike(self):
        for start in range(0, 1500, 150):
            lines = [b"N%d: v" % n for n in range(start, start + 150)] + [b"X" * 100 + b": v"]
            headers = parse(get(*lines), max_request_header_size=10000).headers
            assert len(headers) == 152
            assert headers[f"N{start}"] == headers["X" * 100] == "v"

    def test_line_that_is_kept_is_read_alike(self, cut):
        for line in (b"Accept: a", b"accept:a ", b"Accept:\ta"):
            for _ in range(2):
                assert parse(get(line), cut).headers == {"HOST": "h", "ACCEPT": "a"}

    @given(
        st.lists(
            st.sampled_from([b"a", b"B-c", b"_", b":", b" ", b"\t", b"\xff", b"\x00", b"\r", b"\n"])
        ).map(b"".join)
    )
    def test_lines_are_those_of_the_grammar(self, line):
        match = HEADER_FIELD_RE.match(line)
        lines = _FieldLines()
        if match is None:
            with pytest.raises(_MalformedLineError):
                lines[line]
        else:
            name, value = match.group("name", "value")
            key = "" if b"_" in name else name.decode().upper().replace("-", "_")
            assert lines[line] == (key, value.decode("latin-1"))


#: Caches, a key that each keeps, made from a number, and what it finds out.
CACHES = [
    (_Authorities, "host-{}".format, lambda n: True),
    (_ContentLengths, str, lambda n: n),
    (_FieldKeys, lambda n: b"a-%d" % n, "A_{}".format),
    (_FieldLines, lambda n: b"Host: h%d" % n, lambda n: ("HOST", f"h{n}")),
    (_OptionSets, "Close, {}".format, lambda n: frozenset(("close", str(n)))),
    (
        _OriginForms,
        lambda n: b"GET /%%41%d HTTP/1.2" % n,
        lambda n: ("GET", f"/%41{n}", "1.1", f"/A{n}", ""),
    ),
]


@pytest.mark.parametrize(("cache_class", "key", "value"), CACHES)
class TestCaches:
    def test_remembers_what_it_found(self, cache_class, key, value):
        cache = cache_class()
        assert cache[key(0)] == value(0)
        assert cache == {key(0): value(0)}
        assert cache[key(0)] is cache[key(0)]

    def test_clients_cannot_make_it_grow(self, cache_class, key, value):
        cache = cache_class()
        for n in range(1025):
            assert cache[key(n)] == value(n)
            assert len(cache) <= 1024
        # Emptied when full, so that nobody can keep the others out.
        assert cache == {key(1024): value(1024)}


class TestWhatCachesForget:
    def test_long_keys_are_not_kept(self):
        lines = _FieldLines()
        assert lines[b"Host: " + b"h" * 249] == ("HOST", "h" * 249)
        assert len(lines) == 1
        assert lines[b"Host: " + b"i" * 250] == ("HOST", "i" * 250)
        assert len(lines) == 1

    @pytest.mark.parametrize(
        "name", [b"Cookie", b"Authorization", b"Proxy-Authorization", b"Referer", b"X-Y"]
    )
    def test_values_that_may_be_secret_are_not_kept(self, name):
        lines = _FieldLines()
        assert lines[name + b": s3cret"] == (name.decode().upper().replace("-", "_"), "s3cret")
        assert not lines

    def test_queries_are_not_kept(self):
        lines = _OriginForms()
        said = ("GET", "/a?b=s3cret", "1.1", "/a", "b=s3cret")
        assert lines[b"GET /a?b=s3cret HTTP/1.1"] == said
        assert not lines

    @pytest.mark.parametrize(
        ("cache_class", "key"),
        [
            (_Authorities, "h:x"),
            (_OriginForms, b"GET http://h/ HTTP/1.1"),
            (_OriginForms, b"GET /"),
            (_OriginForms, b"CONNECT / HTTP/1.1"),
        ],
    )
    def test_what_is_refused_or_rare_is_not_kept(self, cache_class, key):
        cache = cache_class()
        assert not cache[key]
        assert not cache


PLAIN = b"Accept: a", b"User-Agent: u"


@pytest.fixture(params=[True, False], ids=["newer settings", "older settings"])
def are_looked_up(request):
    """Say whether sections are looked up: where the settings tell how many fields there may be."""
    return request.param


@pytest.fixture
def plain_sections(are_looked_up, monkeypatch):
    """Return the sections that are remembered, none at first."""
    sections = parser_module._Cache()
    monkeypatch.setattr(parser_module, "_plain_sections", sections)
    if are_looked_up:
        monkeypatch.setitem(NEWER_SETTINGS, "max_request_header_fields", 200)
    return sections


class TestPlainSections:
    def test_are_remembered_for_any_target_and_method(self, plain_sections):
        for _ in range(2):
            for method, target in ((b"GET", b"/a"), (b"PUT", b"/b%41?c=d")):
                request = parse(get(*PLAIN, target=target, method=method))
                assert request.command == method.decode()
                assert request.request_uri == target.decode()
                assert request.first_line == method + b" " + target + b" HTTP/1.1"
                assert request.headers == {"HOST": "h", "ACCEPT": "a", "USER_AGENT": "u"}
                assert not request.connection_close
                assert len(plain_sections) == 1
        assert (request.path, request.query) == ("/bA", "c=d")

    def test_are_told_of_where_they_were_known(self, are_looked_up, plain_sections):
        known = [parse(get(*PLAIN, target=t)).known_section for t in (b"/a", b"/b", b"/c")]
        if are_looked_up:
            assert known == [None, *plain_sections.values(), known[1]]
            assert known[1].fields == {"HOST": "h", "ACCEPT": "a", "USER_AGENT": "u"}
        else:
            assert known == [None, None, None]
        for secret in (get(*PLAIN, b"Cookie: c"), get(*PLAIN, target=b"http://g/")) * 2:
            assert parse(secret).known_section is None

    def test_are_kept_though_one_comes_that_is_not_looked_up(self, plain_sections):
        parse(get(*PLAIN))
        kept = plain_sections.copy()
        parse(get(*PLAIN, version=b"1.0"))
        assert plain_sections == kept  # The same one: they are equal to none but themselves.

    def test_are_not_changed_by_who_changes_a_request(self, plain_sections):
        parse(get(*PLAIN)).headers["HOST"] = "other"
        parse(get(*PLAIN)).headers["ACCEPT"] = "other"
        headers = parse(get(*PLAIN)).headers
        assert headers == {"HOST": "h", "ACCEPT": "a", "USER_AGENT": "u"}

    def test_may_tell_how_long_the_body_is(self, plain_sections):
        for body in (b"abc", b"def"):
            request = parse(get(b"Content-Length: 3", method=b"POST", body=body))
            assert request.content_length == 3
            assert request.get_body_stream().read() == body
        assert len(plain_sections) == 1
        data = get(b"Content-Length: 3", body=b"abc")
        assert refused(data, max_request_body_size=2).code == 413

    def test_may_tell_whether_the_connection_stays(self, plain_sections):
        for line, closes in ((b"Connection: close", True), (b"Connection: keep-alive", False)) * 2:
            assert parse(get(line)).connection_close is closes
        assert len(plain_sections) == 2
        assert not parse(get(b"Connection: keep-alive", version=b"1.0")).connection_close
        assert parse(get(b"Connection: te", version=b"1.0")).connection_close

    def test_are_refused_all_the_same_where_a_limit_was_lowered(self, plain_sections):
        assert not parse(get(*PLAIN), max_request_header_fields=3).error
        assert refused(get(*PLAIN), max_request_header_fields=2).code == 431
        assert len(plain_sections) == 1

    def test_have_their_scheme_from_the_settings(self, plain_sections):
        for scheme in ("http", "https"):
            assert parse(get(*PLAIN), url_scheme=scheme).url_scheme == scheme

    def test_mean_something_else_in_http_1_0(self, plain_sections):
        parse(get(*PLAIN))
        assert parse(get(*PLAIN, version=b"1.0")).connection_close

    def test_mean_something_else_behind_an_absolute_target(self, plain_sections):
        for target, host in ((b"/", "h"), (b"http://g/", "g")) * 2:
            assert parse(get(*PLAIN, target=target)).headers["HOST"] == host

    def test_do_not_save_a_bad_request_line(self, plain_sections):
        parse(get(*PLAIN))
        assert refused(get(*PLAIN, target=b"/#")).reject_reason == "bad-target"

    @pytest.mark.parametrize(
        "line",
        [
            b"Cookie: s3cret",
            b"Authorization: s3cret",
            b"X-Y: z",
            b"Accept: again",
            b"User_Agent: dropped",
            b"Expect: 100-continue",
            b"Transfer-Encoding: chunked",
            b"Origin: " + b"o" * 250,
        ],
    )
    def test_are_none_that_say_more(self, line, plain_sections):
        request = new_parser()
        request.received(get(b"Accept: a", line))
        assert request.headers_finished
        assert not request.error
        assert not plain_sections

    def test_are_none_without_a_host_or_with_a_bad_one(self, plain_sections):
        for lines, reason in ((b"", "no-host"), (b"Host: a b\r\n", "bad-host")) * 2:
            data = b"GET / HTTP/1.1\r\n" + lines + b"\r\n"
            assert refused(data).reject_reason == reason
        assert not parse(b"GET / HTTP/1.1\r\n\r\n", require_host=False).error
        assert not plain_sections

    def test_are_whole(self, plain_sections):
        for end in (b"", b"\r\n"):
            new_parser().parse_header(b"GET / HTTP/1.1\r\nHost: h" + end)
        assert not plain_sections


class TestRepeatedFields:
    @pytest.mark.parametrize(
        "name", [b"Host", b"Content-Length", b"Content-Type", b"Authorization"]
    )
    def test_single_valued_one_is_refused_even_if_equal(self, name, cut):
        data = b"GET / HTTP/1.0\r\n%b: 1\r\nX: y\r\n%b: 1\r\n\r\n" % (name, name.lower())
        error = refused(data, cut)
        assert error.body == f"Duplicate header: {name.decode().lower()}"
        assert (error.code, error.reject_reason) == (400, "duplicate-field")

    def test_refused_ones_are_told(self):
        assert {"HOST", "CONTENT_LENGTH", "CONTENT_TYPE", "AUTHORIZATION"} == SINGLETON_FIELDS

    def test_list_is_joined_in_order(self, cut):
        lines = b"Accept: a", b"X: y", b"accept:  b, c ", b"ACCEPT:"
        assert parse(get(*lines), cut).headers == {"HOST": "h", "ACCEPT": "a, b, c, ", "X": "y"}

    def test_cookies_are_joined_by_semicolons(self, cut):
        assert parse(get(b"Cookie: a=b", b"Cookie: c=d"), cut).headers["COOKIE"] == "a=b; c=d"

    def test_unknown_field_is_joined_like_a_list(self, cut):
        assert parse(get(b"X-Unknown: a", b"X-Unknown: b"), cut).headers["X_UNKNOWN"] == "a, b"

    @pytest.mark.parametrize("key", sorted(REQUEST_FIELDS))
    def test_every_field_of_the_table_is_joined_or_refused_as_it_says(self, key):
        field = REQUEST_FIELDS[key]
        line = field.name.encode() + b": 100-continue"
        parser = new_parser(require_host=False)
        data = b"GET / HTTP/1.0\r\n" + line + b"\r\n" + line + b"\r\n\r\n"
        if field.refused or key == "TRANSFER_ENCODING":
            parser.received(data)
            assert parser.error
        else:
            parser.received(data)
            assert parser.headers[key] == f"100-continue{field.separator}100-continue"


class TestHost:
    @pytest.mark.parametrize("host", [b"a", b"a:80", b"a:", b"[::1]", b"1.2.3.4:5", b"A_b.c"])
    def test_good_one_is_told_as_sent(self, host, cut):
        data = b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n"
        assert parse(data, cut).headers["HOST"] == host.decode()

    @pytest.mark.parametrize("version", [b"1.0", b"1.1"])
    @pytest.mark.parametrize(
        "host", [b"a b", b"a, b", b"a/b", b"u@h", b"a:x", b"a:65536", b"[::1", b"\xe4", b"http://a"]
    )
    @pytest.mark.parametrize("require_host", [True, False])
    def test_bad_one_is_refused_in_any_version(self, host, version, require_host):
        data = b"GET / HTTP/" + version + b"\r\nHost: " + host + b"\r\n\r\n"
        error = refused(data, require_host=require_host)
        assert (error.code, error.body) == (400, "Invalid Host header")
        assert error.reject_reason == "bad-host"
        assert parse(data).version == version.decode()

    @pytest.mark.parametrize("lines", [b"", b"Host:\r\n", b"Host: \t\r\n"])
    def test_none_is_refused_and_the_answer_names_the_setting(self, lines, cut):
        error = refused(b"GET / HTTP/1.1\r\n" + lines + b"\r\n", cut)
        assert error.code == 400
        assert "require_host" in error.body
        assert error.reject_reason == "no-host"

    @pytest.mark.parametrize("version", [b"0.9", b"1.0", b"2.0"])
    def test_none_is_needed_in_other_versions(self, version, cut):
        assert parse(b"GET / HTTP/" + version + b"\r\n\r\n", cut).error is None

    @pytest.mark.parametrize("lines", [b"", b"Host:\r\n"])
    def test_none_passes_where_none_is_required(self, lines, cut):
        data = b"GET / HTTP/1.1\r\n" + lines + b"\r\n"
        assert parse(data, cut, require_host=False).error is None


class TestPersistence:
    @pytest.mark.parametrize(
        ("version", "lines", "closes"),
        [
            (b"1.1", [], False),
            (b"1.1", [b"Connection: keep-alive"], False),
            (b"1.1", [b"Connection: close"], True),
            (b"1.1", [b"Connection: Close"], True),
            (b"1.1", [b"Connection: close, te"], True),
            (b"1.1", [b"Connection: te,\tclose "], True),
            (b"1.1", [b"Connection: keep-alive, close"], True),
            (b"1.1", [b"Connection: keep-alive", b"Connection: close"], True),
            (b"1.1", [b"Connection: enclose"], False),
            (b"1.1", [b"Connection: close-not"], False),
            (b"1.1", [b"Connection:"], False),
            (b"1.1", [b"Proxy-Connection: close"], False),
            (b"1.0", [], True),
            (b"1.0", [b"Connection: keep-alive"], False),
            (b"1.0", [b"Connection: Keep-Alive, x"], False),
            (b"1.0", [b"Connection: keep-alive, close"], True),
            (b"1.0", [b"Connection: te"], True),
            (b"1.0", [b"Connection:"], True),
        ],
    )
    def test_follows_version_and_connection_options(self, version, lines, closes, cut):
        assert parse(get(*lines, version=version), cut).connection_close is closes


class TestContentLength:
    @pytest.mark.parametrize(
        ("value", "length"),
        [(b"0", 0), (b"5", 5), (b"05", 5), (b"\t5 ", 5), (b"0" * 1500 + b"5", 5), (b"000", 0)],
    )
    @pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"BREW"])
    def test_is_the_length_of_the_body_whatever_the_method(self, value, length, method, cut):
        data = get(b"Content-Length: " + value, method=method, body=b"hello"[:length])
        parser = parse(data, cut)
        assert parser.error is None
        assert parser.content_length == length
        assert parser.get_body_stream().read() == b"hello"[:length]

    @pytest.mark.parametrize(
        "value",
        [b"", b"+5", b"-5", b"0x5", b"5.0", b"5_0", b"1e3", b"\xb2", b"5 5", b"5,5", b"5, 5", b"a"],
    )
    def test_that_is_no_number_is_refused(self, value, cut):
        data = get(b"Content-Length: " + value, body=b"hello")
        error = refused(data, cut)
        assert (error.code, error.body) == (400, "Content-Length is invalid")
        assert error.reject_reason == "bad-content-length"
        assert parse(data).version == "1.1"

    @pytest.mark.parametrize("value", [b"1000", b"1001", b"0001000", b"9" * 1500])
    def test_of_the_limit_is_refused_before_the_body_comes(self, value, cut):
        error = refused(get(b"Content-Length: " + value), cut)
        assert (error.code, error.body) == (413, "exceeds max_body of 1000")
        assert error.reject_reason == "body-too-large"

    def test_below_the_limit_passes(self, cut):
        data = get(b"Content-Length: 999", body=b"a" * 999)
        assert parse(data, cut).error is None

    def test_of_zero_passes_a_limit_of_zero(self, cut):
        assert parse(get(b"Content-Length: 0"), cut, max_request_body_size=0).error is None

    @pytest.mark.parametrize("version", [b"0.9", b"1.0", b"2.0"])
    def test_is_read_in_every_version(self, version, cut):
        parser = parse(get(b"Content-Length: 5", version=version, body=b"hello"), cut)
        assert parser.get_body_stream().read() == b"hello"


class TestTransferEncoding:
    @pytest.mark.parametrize("value", [b"chunked", b"ChUnKeD", b"chunked\t"])
    @pytest.mark.parametrize("version", [b"1.1", b"1.2"])
    def test_of_one_chunked_frames_the_body(self, value, version, cut):
        data = get(b"Transfer-Encoding: " + value, version=version, body=b"0\r\n\r\n")
        parser = parse(data, cut)
        assert parser.error is None
        assert parser.chunked
        assert "TRANSFER_ENCODING" not in parser.headers

    @pytest.mark.parametrize(
        ("lines", "code", "text"),
        [
            ([b"gzip"], 501, "Transfer-Encoding requested is not supported."),
            ([b"identity"], 501, "Transfer-Encoding requested is not supported."),
            ([b"gzip, chunked"], 501, "Transfer-Encoding requested is not supported."),
            ([b"gzip", b"chunked"], 501, "Transfer-Encoding requested is not supported."),
            ([b"chunked, gzip"], 501, "Transfer-Encoding requested is not supported."),
            ([b"chunked, identity"], 501, "Transfer-Encoding requested is not supported."),
            ([b'"chunked"'], 501, "Transfer-Encoding requested is not supported."),
            ([b"chunked;q=1"], 501, "Transfer-Encoding requested is not supported."),
            ([b"chunked gzip"], 501, "Transfer-Encoding requested is not supported."),
            ([b"xchunked"], 501, "Transfer-Encoding requested is not supported."),
            ([b"\x85chunked"], 501, "Transfer-Encoding requested is not supported."),
            ([b"\xa0chunked"], 501, "Transfer-Encoding requested is not supported."),
            ([b"chun\xe7ed"], 501, "Transfer-Encoding requested is not supported."),
            (
                [b"chunked, chunked"],
                501,
                "Transfer-Encoding is invalid. Multiple chunked encodings requested.",
            ),
            (
                [b"chunked", b"Chunked"],
                501,
                "Transfer-Encoding is invalid. Multiple chunked encodings requested.",
            ),
            ([b""], 400, "Transfer-Encoding is invalid."),
            ([b"chunked,"], 400, "Transfer-Encoding is invalid."),
            ([b",chunked"], 400, "Transfer-Encoding is invalid."),
            ([b" , chunked ,,"], 400, "Transfer-Encoding is invalid."),
            ([b"", b"chunked"], 400, "Transfer-Encoding is invalid."),
            ([b"chunked", b""], 400, "Transfer-Encoding is invalid."),
            ([b", ,"], 400, "Transfer-Encoding is invalid."),
        ],
    )
    def test_of_anything_else_is_refused_and_never_falls_back(self, lines, code, text, cut):
        lines = [b"Transfer-Encoding: " + line for line in lines]
        for extra in ([], [b"Content-Length: 5"]):
            data = get(*lines, *extra, body=b"hello")
            error = refused(data, cut)
            assert (error.code, error.body) == (code, text)
            assert error.reject_reason == "bad-transfer-encoding"
            assert parse(data).version == "1.1"

    @pytest.mark.parametrize("length", [b"5", b"0", b"", b"x"])
    @pytest.mark.parametrize("length_first", [True, False])
    def test_beside_content_length_is_refused(self, length, length_first, cut):
        lines = [b"Content-Length: " + length, b"Transfer-Encoding: chunked"]
        if not length_first:
            lines.reverse()
        error = refused(get(*lines, body=b"0\r\n\r\n"), cut)
        assert error.code == 400
        assert error.reject_reason == "length-and-transfer-encoding"

    @pytest.mark.parametrize("version", [b"0.9", b"1.0", b"2.0"])
    @pytest.mark.parametrize("value", [b"chunked", b"identity", b""])
    def test_is_refused_where_the_version_has_none(self, version, value, cut):
        data = get(b"Transfer-Encoding: " + value, b"Connection: keep-alive", version=version)
        error = refused(data, cut)
        assert (error.code, error.reject_reason) == (400, "transfer-encoding-version")
        assert parse(data).version == version.decode()


class TestChunkedBody:
    def refused(self, body, cut, **changes):
        data = get(b"Transfer-Encoding: chunked", body=body)
        parser = parse(data, cut, **changes)
        assert parser.version == "1.1"
        assert parser.state is FAILED
        assert parser.connection_close
        assert parser.headers == {"HOST": "h"}
        return parser.error

    @pytest.mark.parametrize(
        ("body", "text", "reason"),
        [
            (b"x\r\n", "Invalid chunk size", "bad-chunk-size"),
            (b"3;\r\n", "Invalid chunk extension", "bad-chunk-extension"),
            (b"3\r\nabcd\r\n", "Chunk not properly terminated", "bad-chunk-end"),
            (b"0\r\nHost: a\r\n\r\n", "Forbidden trailer", "forbidden-trailer"),
        ],
    )
    def test_malformed_one_is_refused(self, body, text, reason, cut):
        error = self.refused(body, cut)
        assert (error.code, error.body, error.reject_reason) == (400, text, reason)

    def test_one_that_announces_the_limit_is_refused_at_once(self, cut):
        error = self.refused(b"3e8\r\n", cut)
        assert (error.code, error.reject_reason) == (413, "body-too-large")
        assert error.body == "exceeds max_body of 1000"

    def test_framing_counts_towards_the_limit(self, cut):
        error = self.refused(b"1\r\na\r\n" * 200, cut)
        assert (error.code, error.reject_reason) == (413, "body-too-large")
        assert error.body == "exceeds max_body of 1000"

    def test_fault_within_the_limit_is_told_rather_than_the_limit(self, cut):
        error = self.refused(b"3\r\nabcd" + b"x" * 2000, cut)
        assert error.reject_reason == "bad-chunk-end"

    def test_trailers_are_bounded_like_the_head(self, cut):
        body = b"0\r\nA: " + b"b" * 500 + b"\r\n\r\n"
        assert self.refused(body, cut, max_request_header_size=300).code == 431

    def test_trailer_fields_are_bounded_like_those_of_the_head(self, cut):
        body = b"0\r\n" + b"a: b\r\n" * 4 + b"\r\n"
        error = self.refused(body, cut, max_request_header_fields=3)
        assert (error.code, error.reject_reason) == (431, "too-many-trailers")


class TestExpect:
    @pytest.mark.parametrize("value", [b"100-continue", b"100-Continue", b"100-continue,", b",,"])
    @pytest.mark.parametrize("length", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
    def test_continue_is_awaited_where_a_body_is_to_come(self, value, length):
        parser = new_parser()
        parser.received(get(b"Expect: " + value, length))
        assert parser.expect_continue is (value != b",,")
        assert parser.headers_finished
        assert not parser.completed

    @pytest.mark.parametrize("lines", [[], [b"Content-Length: 0"]])
    def test_no_continue_without_a_body(self, lines, cut):
        parser = parse(get(b"Expect: 100-continue", *lines), cut)
        assert parser.state is COMPLETE
        assert not parser.expect_continue

    def test_no_continue_for_a_body_that_is_refused(self, cut):
        data = get(b"Expect: 100-continue", b"Content-Length: 5000")
        assert refused(data, cut).code == 413

    @pytest.mark.parametrize(
        "value", [b"200-ok", b"100-continue, x", b"100-continue;a=b", b'"100-continue"', b"100"]
    )
    def test_anything_else_is_refused(self, value, cut):
        error = refused(get(b"Expect: " + value, b"Content-Length: 5"), cut)
        assert (error.code, error.reject_reason) == (417, "bad-expectation")

    @pytest.mark.parametrize("value", [b"100-continue", b"x"])
    @pytest.mark.parametrize("version", [b"1.0", b"2.0"])
    def test_is_ignored_in_other_versions(self, value, version):
        parser = new_parser()
        parser.received(get(b"Expect: " + value, b"Content-Length: 5", version=version))
        assert parser.error is None
        assert not parser.expect_continue
        assert parser.state is BODY

    def test_is_over_when_the_body_is_refused(self):
        parser = new_parser()
        parser.received(get(b"Expect: 100-continue", b"Transfer-Encoding: chunked"))
        assert parser.expect_continue
        parser.received(b"x\r\n")
        assert not parser.expect_continue


class TestHeadLimits:
    def head_of(self, size):
        data = get(b"X: ")
        return get(b"X: " + b"a" * (size - len(data)))

    def check(self, parser):
        assert parser.state is FAILED
        assert parser.error.code == 431
        assert parser.error.reject_reason == "head-too-large"
        assert parser.error.body == "exceeds max_header of 2000"
        assert not parser.headers_finished
        assert (parser.command, parser.path, parser.version) == ("GET", "/", "1.0")
        assert parser.request_uri == "/"
        assert parser.connection_close

    def test_refused_head_has_the_configured_scheme(self):
        assert parse(b"a" * 2000, url_scheme="https").url_scheme == "https"

    def test_head_below_the_limit_passes(self, cut):
        assert parse(self.head_of(1999), cut).error is None

    def test_head_of_the_limit_is_refused(self, cut):
        self.check(parse(self.head_of(2000), cut))

    @pytest.mark.parametrize("size", [1, 3, 7, 1500, 5000])
    def test_head_without_end_is_refused_at_the_limit(self, size):
        parser = new_parser()
        used = feed(parser, b"GET / HTTP/1.1\r\nX: " + b"a" * 5000, size)
        self.check(parser)
        assert used < 2000 + size
        assert parser.header_plus == b""

    def test_body_does_not_count(self, cut):
        data = get(b"Content-Length: 900", body=b"a" * 900)
        assert parse(data, cut, max_request_header_size=len(data) - 899).error is None

    def test_limit_is_read_when_it_is_needed(self):
        parser = new_parser()
        parser.received(b"GET / HTTP/1.1\r\n")
        parser.adj.max_request_header_size = 10
        parser.received(b"X")
        assert parser.error.body == "exceeds max_header of 10"

    def test_number_of_fields_is_bounded(self, cut):
        assert parse(get(*[b"X: y"] * 199), cut).error is None
        error = refused(get(*[b"X: y"] * 200), cut)
        assert error.code == 431
        assert error.body == "exceeds max_request_header_fields of 200"
        assert error.reject_reason == "too-many-fields"

    def test_number_of_fields_is_a_setting(self, cut):
        data = get(b"A: b", b"C: d")
        assert parse(data, cut, max_request_header_fields=3).error is None
        assert refused(data, cut, max_request_header_fields=2).code == 431

    def test_dropped_fields_count(self, cut):
        assert refused(get(*[b"X_Y: z"] * 3), cut, max_request_header_fields=3).code == 431


class TestHopelessHeads:
    """A head that can only be malformed is refused before it ends."""

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"GET / HTTP/1.0\n\n", "bare-cr-lf"),
            (b"GET / HTTP/1.1\nHost: h\n\n", "bare-cr-lf"),
            (b"GET / HTTP/1.1\r\nHost: h\n", "bare-cr-lf"),
            (b"GET / HTTP/1.1\r\nHost: h\rX", "bare-cr-lf"),
            (b"GET / HTTP/1.1\r\r", "bare-cr-lf"),
            (b"\n", "bare-cr-lf"),
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "control-character"),
            (b"GET / HTTP/1.1\r\nX: \x7f", "control-character"),
            (b"GET /\x00", "control-character"),
        ],
    )
    @pytest.mark.parametrize("size", [1, 2, 3, 100])
    def test_is_refused_at_once(self, data, reason, size):
        parser = new_parser()
        feed(parser, data, size)
        assert parser.state is FAILED
        assert (parser.error.code, parser.error.reject_reason) == (400, reason)
        assert parser.version == "1.0"
        assert parser.connection_close
        assert parser.header_plus == b""

    def test_texts_say_what_was_found(self):
        assert parse(b"\n").error.body == "Bare CR or LF found in HTTP message"
        assert parse(b"\x16").error.body == "Control character found in HTTP message"

    def test_cr_at_the_end_of_a_piece_is_no_fault(self):
        data = get(b"X: y\t\xff")
        for end in range(1, len(data)):
            parser = new_parser()
            assert parser.received(data[:end]) == end
            assert not parser.completed

    def test_fault_beyond_the_limit_does_not_count(self, cut):
        assert refused(b"a" * 2000 + b"\n", cut).code == 431
        assert refused(b"a" * 1999 + b"\n", cut).code == 400


class TestStorage:
    def test_body_that_cannot_be_stored_is_answered_507(self, tmp_path, cut):
        data = get(b"Content-Length: 9000", body=b"a" * 9000)
        missing = str(tmp_path / "missing")
        limits = {"inbuf_overflow": 1, "max_request_body_size": 10000}
        error = refused(data, cut, spool_dir=missing, **limits)
        assert (error.code, error.reject_reason) == (507, "body-not-stored")
        assert missing not in error.body

    def test_memory_that_runs_out_is_answered_507(self):
        class Full:
            completed = False
            error = None

            def received(self, data):
                raise MemoryError

        parser = new_parser()
        parser.received(get(b"Content-Length: 5"))
        parser.body_rcv = Full()
        assert parser.received(b"hello") == 5
        assert parser.error.code == 507
        assert parser.state is FAILED


class TestReceiversOfOthers:
    class Receiver:
        completed = False
        error = None

        def received(self, data):
            self.completed = data.endswith(b"!")
            if data.endswith(b"?"):
                self.error = BadRequest("no")
            return len(data)

    def test_takes_the_place_of_the_parsers_own(self):
        parser = new_parser()
        parser.received(get(b"Content-Length: 5"))
        parser.body_rcv = self.Receiver()
        parser.received(b"hello, world")
        assert not parser.completed
        parser.received(b"!")
        assert parser.state is COMPLETE

    def test_its_error_is_the_requests_error(self):
        parser = new_parser()
        parser.body_rcv = self.Receiver()
        parser.received(b"?")
        assert parser.state is FAILED
        assert parser.error is parser.body_rcv.error

    def test_lowering_the_limit_ends_a_body_under_way(self):
        parser = new_parser()
        parser.received(get(b"Content-Length: 500"))
        parser.received(b"a" * 100)
        parser.adj.max_request_body_size = 50
        assert parser.received(b"a" * 100) == 0
        assert parser.error.code == 413


class TestParseHeader:
    @pytest.mark.parametrize("end", [b"", b"\r\n", b"\r\n\r\n"])
    def test_may_be_called_with_or_without_the_empty_line(self, end):
        parser = new_parser()
        parser.parse_header(b"GET /a HTTP/1.1\r\nHost: h" + end)
        assert parser.path == "/a"
        assert parser.headers == {"HOST": "h"}

    def test_may_be_called_with_a_request_line_alone(self):
        parser = new_parser()
        parser.parse_header(b"GET /a HTTP/1.0\r\n")
        assert parser.path == "/a"

    def test_needs_a_line_end(self):
        with pytest.raises(ParsingError, match="HTTP message header invalid"):
            new_parser().parse_header(b"GET / HTTP/1.0")

    def test_raises_what_it_refuses(self):
        parser = new_parser()
        with pytest.raises(ParsingError, match="Invalid header"):
            parser.parse_header(b"GET / HTTP/1.1\r\nA\r\n\r\n")
        with pytest.raises(TransferEncodingNotImplemented, match="not supported"):
            parser.parse_header(get(b"Transfer-Encoding: gzip"))

    def test_override_is_called_with_the_whole_head_and_may_refuse(self, cut):
        class Strict(HTTPRequestParser):
            def parse_header(self, header_plus):
                seen.append(header_plus)
                super().parse_header(header_plus)
                raise ParsingError("not today")

        seen: list[bytes] = []
        data = get(b"Content-Length: 5")
        parser: Any = Strict(settings())
        feed_cut(parser, b"\r\n" + data, cut)
        assert seen == [data]
        assert (parser.error.code, parser.error.body) == (400, "not today")
        assert parser.error.reject_reason == "bad-request"

    def test_override_may_refuse_a_transfer_coding(self):
        class Strict(HTTPRequestParser):
            def parse_header(self, header_plus):
                raise TransferEncodingNotImplemented("not today")

        parser: Any = Strict(settings())
        parser.received(get())
        assert (parser.error.code, parser.error.body) == (501, "not today")


class TestCrackFirstLine:
    @pytest.mark.parametrize(
        ("line", "parts"),
        [
            (b"GET / HTTP/1.0", (b"GET", b"/", b"1.0")),
            (b"GET /", (b"GET", b"/", b"")),
            (b"G-ET1 * HTTP/8.4", (b"G-ET1", b"*", b"8.4")),
            (b"GET /\xe4#x HTTP/1.1", (b"GET", b"/\xe4#x", b"1.1")),
            (b"GET / HTTP/1.0 ", (b"", b"", b"")),
            (b"GET / HTTP/1.0\n", (b"", b"", b"")),
            (b"GET", (b"", b"", b"")),
            (b"", (b"", b"", b"")),
        ],
    )
    def test_splits_a_request_line(self, line, parts):
        assert crack_first_line(line) == parts

    def test_refuses_a_method_in_lower_case(self):
        with pytest.raises(ParsingError, match='Malformed HTTP method "get"'):
            crack_first_line(b"get / HTTP/1.0")

    def test_pattern_names_its_groups(self):
        match = first_line_re.match(b"GET / HTTP/1.1")
        assert match
        assert match.groupdict() == {"method": b"GET", "uri": b"/", "version": b"1.1"}


class TestSplitUri:
    @pytest.mark.parametrize(
        ("uri", "parts"),
        [
            (b"/a%20b?x=%20#z", ("", "", "/a b", "x=%20", "z")),
            (b"//a//b?x#y", ("", "", "//a//b", "x", "y")),
            (b"//\xe4?\xe4#\xe4", ("", "", "//\xe4", "\xe4", "\xe4")),
            (b"http://ex.com/a/b?c=d#f", ("http", "ex.com", "/a/b", "c=d", "f")),
            (b"http://ex.com", ("http", "ex.com", "", "", "")),
            (b"HTTP://Ex.com:8/", ("http", "Ex.com:8", "/", "", "")),
            (b"http://u:p@h/x", ("http", "u:p@h", "/x", "", "")),
            (b"http://[::1]:80/x", ("http", "[::1]:80", "/x", "", "")),
            (b"*", ("", "", "*", "", "")),
            (b"foo", ("", "", "foo", "", "")),
            (b"1foo:x", ("", "", "1foo:x", "", "")),
            (b"", ("", "", "", "", "")),
            (b"?x", ("", "", "", "x", "")),
            (b"/a;p=1", ("", "", "/a;p=1", "", "")),
            (b"/a?b?c", ("", "", "/a", "b?c", "")),
            (b"/%zz", ("", "", "/%zz", "", "")),
            (b"/%00%C3%a4", ("", "", "/\x00\xc3\xa4", "", "")),
            (b"mailto:x", ("mailto", "", "x", "", "")),
            (b"example.com:443", ("example.com", "", "443", "", "")),
            (b"http://localhost:8080/abc def", ("http", "localhost:8080", "/abc def", "", "")),
        ],
    )
    def test_gives_the_five_parts(self, uri, parts):
        assert split_uri(uri) == parts

    @pytest.mark.parametrize(
        "uri",
        [
            b"/\xe4",
            b"http://\xe4/",
            b"http://[::1/x",
            b"http://::1]/",
            b"/a\tb",
            b"/a\nb",
            b"//\x00",
        ],
    )
    def test_raises_nothing_but_a_parsing_error(self, uri):
        with pytest.raises(ParsingError, match="Bad URI"):
            split_uri(uri)

    @given(st.binary())
    def test_any_octets_are_split_or_refused(self, uri):
        try:
            parts = split_uri(uri)
        except ParsingError:
            return
        assert len(parts) == 5

    def test_unquoting_gives_octets_as_text(self):
        assert unquote_bytes_to_wsgi(b"a%20b%e4\xff%zz+") == "a b\xe4\xff%zz+"


class TestGetHeaderLines:
    @pytest.mark.parametrize(
        ("header", "lines"),
        [
            (b"", []),
            (b"\r\n\r\n", []),
            (b"a: b", [b"a: b"]),
            (b"a: b\r\nc: d\r\n\r\n", [b"a: b", b"c: d"]),
            (b"slim\r\n slam", [b"slim slam"]),
            (b"slam\r\n\tslim", [b"slam\tslim"]),
            (b"a\r\n b\r\n  c\r\nd", [b"a b  c", b"d"]),
        ],
    )
    def test_splits_and_unfolds(self, header, lines):
        assert get_header_lines(header) == lines

    @pytest.mark.parametrize(
        ("header", "text"),
        [
            (b" a\r\nb", 'Malformed header line " a"'),
            (b"\ta", 'Malformed header line "\ta"'),
            (b"a\r\nb\nc", 'Bare CR or LF found in header line "b\nc"'),
            (b"a\rb", 'Bare CR or LF found in header line "a\rb"'),
        ],
    )
    def test_refuses_what_is_no_line(self, header, text):
        with pytest.raises(ParsingError) as caught:
            get_header_lines(header)
        assert caught.value.args[0] == text


AWAITS_BODY = get(b"Content-Length: 2")
# Octets that lead to each state, octets that are the event there, and the state after.
STATE_TABLE = [
    (b"", b"GET / HTTP/1.1\r\n", HEAD),
    (b"", b"\r\n\r\n", COMPLETE),
    (b"", get(), COMPLETE),
    (b"", get(b"Content-Length: 0"), COMPLETE),
    (b"", AWAITS_BODY, BODY),
    (b"", get(b"A"), FAILED),
    (b"", get(b"Content-Length: 5000"), FAILED),
    (b"", b"a" * 2000, FAILED),
    (b"GET / HTTP/1.1\r\n", b"Host: h\r\n\r\n", COMPLETE),
    (b"GET / HTTP/1.1\r\n", b"A\r\n\r\n", FAILED),
    (AWAITS_BODY, b"a", BODY),
    (AWAITS_BODY, b"ab", COMPLETE),
    (get(b"Transfer-Encoding: chunked"), b"0\r\n\r\n", COMPLETE),
    (get(b"Transfer-Encoding: chunked"), b"x\r\n", FAILED),
    (get(), get(), COMPLETE),
    (get(), b"A", COMPLETE),
    (get(b"A"), get(), FAILED),
    (get(b"A"), b"A", FAILED),
]


class TestStates:
    @pytest.mark.parametrize(("before", "event", "after"), STATE_TABLE)
    def test_event_leads_to_the_state_of_the_table(self, before, event, after):
        parser = new_parser()
        parser.received(before)
        begun = parser.state
        parser.received(event)
        assert parser.state is after
        assert after is begun or after in TRANSITIONS[begun]
        assert parser.completed is (after in (COMPLETE, FAILED))
        assert (parser.error is not None) is (after is FAILED)

    def test_every_allowed_transition_has_a_row(self):
        seen = set()
        for before, _, after in STATE_TABLE:
            parser = new_parser()
            parser.received(before)
            seen.add((parser.state, after))
        assert seen >= {(old, new) for old, followers in TRANSITIONS.items() for new in followers}


FRAGMENTS = [b"GET", b" ", b"/", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r", b"\n", b":", b"\t"]
FRAGMENTS += [b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.0\r\n", b"Host: h\r\n", b"X-Y: z\r\n"]
FRAGMENTS += [b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X_Y: z\r\n"]
FRAGMENTS += [b"Connection: close\r\n", b"Expect: 100-continue\r\n", b"\r\n\r\n", b"\xe4", b"\x00"]
FRAGMENTS += [b"abc", b"3\r\nabc\r\n", b"0\r\n\r\n", b"0\r\n", b"Cookie: a\r\n"]


TOLD = ["state", "command", "version", "request_uri", "path", "query", "headers", "chunked"]
TOLD += ["connection_close", "content_length", "expect_continue", "empty", "headers_finished"]
TOLD += ["header_bytes_received"]


def snapshot(parser, used):
    """Return all that a request says of itself."""
    told = {name: getattr(parser, name, None) for name in TOLD}
    if parser.error:
        told["error"] = (parser.error.code, parser.error.body, parser.error.reject_reason)
    else:
        told["used"] = used
        told["body"] = parser.get_body_stream().read()
    return told


class TestProperties:
    @given(
        st.lists(st.sampled_from(FRAGMENTS), max_size=12).map(b"".join),
        st.lists(st.integers(min_value=1, max_value=40), min_size=1),
    )
    def test_any_cut_gives_the_same_result(self, data, sizes):
        adj = settings(max_request_header_size=120, max_request_body_size=25)
        whole: Any = HTTPRequestParser(adj)
        used_whole = feed(whole, data, len(data) or 1)
        cut: Any = HTTPRequestParser(adj)
        used_cut = 0
        while used_cut < len(data) and not cut.completed:
            size = sizes[used_cut % len(sizes)]
            used_cut += cut.received(data[used_cut : used_cut + size])
        expected, found = snapshot(whole, used_whole), snapshot(cut, used_cut)
        if whole.error and not (whole.headers_finished and cut.headers_finished):
            # How far one looks before a head is hopeless depends on the cut; not the end.
            assert cut.error.code == whole.error.code
            assert cut.connection_close
            return
        assert found == expected

    @given(st.binary(max_size=300))
    def test_no_octets_raise(self, data):
        parser = new_parser(max_request_header_size=200)
        feed(parser, data + b"\r\n\r\n", 1000)
        assert parser.completed


class TestLinearTime:
    LARGE = settings(max_request_header_size=1 << 30, max_request_header_fields=1 << 30)

    def parse_head(self, head):
        parser = HTTPRequestParser(self.LARGE)
        parser.received(head)
        return parser

    def test_head_by_the_octet(self):
        def work(n):
            feed(HTTPRequestParser(self.LARGE), b"GET / HTTP/1.1\r\nX: " + b"a" * n, 1)

        assert_linear(work, 16384)

    @pytest.mark.parametrize(
        "hostile",
        [
            pytest.param(lambda n: get(b"A:" + b" " * n + b"\x00"), id="blanks"),
            pytest.param(lambda n: get(b"A:" + b" " * n), id="blanks alone"),
            pytest.param(lambda n: get(b"A:" + b"b " * n + b"\x00"), id="words"),
            pytest.param(lambda n: get(b"A" * n), id="name"),
            pytest.param(lambda n: get(*[b"A: b"] * n), id="one name, many lines"),
            pytest.param(lambda n: get(*[b"A%d: b" % i for i in range(n)]), id="many names"),
            pytest.param(lambda n: get(*[b"A_%d: b" % i for i in range(n)]), id="many dropped"),
            pytest.param(lambda n: get(*[b"A"] * n), id="many bad lines"),
            pytest.param(lambda n: get(b"A: b\n" * n), id="bare LF"),
            pytest.param(lambda n: get(b"A: b\r" * n), id="bare CR"),
            pytest.param(lambda n: get(target=b"/" + b"%41" * n), id="escapes"),
            pytest.param(lambda n: get(target=b"/" + b"%" * n), id="percent signs"),
            pytest.param(lambda n: get(target=b"/" + b"?" * n), id="question marks"),
            pytest.param(lambda n: get(target=b"a" * n), id="scheme without colon"),
            pytest.param(lambda n: get(target=b"http://" + b"a" * n), id="authority"),
            pytest.param(lambda n: get(target=b"http://[" + b":" * n), id="brackets"),
            pytest.param(lambda n: get(target=b"/" + b"\xe4" * n), id="beyond ASCII"),
            pytest.param(lambda n: get(target=b"/ " * n), id="blanks in the target"),
            pytest.param(lambda n: get(method=b"a" * n), id="method"),
            pytest.param(lambda n: get(b"Connection: " + b"," * n), id="Connection"),
            pytest.param(lambda n: get(b"Connection: " + b"a, " * n), id="options"),
            pytest.param(lambda n: get(b"Expect: " + b"," * n), id="Expect"),
            pytest.param(lambda n: get(b"Transfer-Encoding: " + b"," * n), id="codings"),
            pytest.param(lambda n: get(b"Content-Length: " + b"9" * n), id="digits"),
            pytest.param(lambda n: get(b"Content-Length: " + b"0" * n), id="zeros"),
        ],
    )
    def test_hostile_head(self, hostile):
        assert_linear(lambda n: self.parse_head(hostile(n)), 4000)

    def test_unfolding(self):
        assert_linear(lambda n: get_header_lines(b"a" + b"\r\n b" * n), 4000)
