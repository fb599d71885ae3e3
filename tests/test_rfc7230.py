from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.feeding import assert_linear
from waitress import rfc7230
from waitress.rfc7230 import (
    CHUNK_EXT_RE,
    FIELD_LINE_RE,
    FORBIDDEN_TRAILER_FIELDS,
    HEADER_FIELD_RE,
    HOST_RE,
    ONLY_DIGIT_RE,
    ONLY_HEXDIG_RE,
    QUOTED_PAIR_RE,
    QUOTED_STRING_RE,
    REFUSED_WHEN_REPEATED,
    REQUEST_FIELDS,
    first_malformed_line,
    read_field_lines,
)

TCHARS = set(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
CONTROLS = set(range(0x20)) | {0x7F}


def matching_octets(pattern: str) -> set[int]:
    """Return the octets that *pattern* matches, each as the whole input."""
    compiled = re.compile(pattern.encode("latin-1"))
    return {octet for octet in range(256) if compiled.fullmatch(bytes([octet]))}


class TestProductions:
    @pytest.mark.parametrize(
        ("pattern", "octets"),
        [
            pytest.param(rfc7230.HEXDIG, set(b"0123456789abcdefABCDEF"), id="HEXDIG"),
            pytest.param(rfc7230.DIGIT, set(b"0123456789"), id="DIGIT"),
            pytest.param(rfc7230.WS, {0x20, 0x09}, id="WS"),
            pytest.param(rfc7230.TCHAR, TCHARS, id="TCHAR"),
            pytest.param(rfc7230.TOKEN, TCHARS, id="TOKEN"),
            pytest.param(f"[{rfc7230.VCHAR}]", set(range(0x21, 0x7F)), id="VCHAR"),
            pytest.param(f"[{rfc7230.OBS_TEXT}]", set(range(0x80, 0x100)), id="OBS_TEXT"),
            pytest.param(
                rfc7230.QDTEXT,
                set(range(256)) - (CONTROLS - {0x09}) - set(b'"\\'),
                id="QDTEXT",
            ),
            pytest.param(
                rfc7230.FIELD_VCHAR, set(range(256)) - CONTROLS - {0x20}, id="FIELD_VCHAR"
            ),
            pytest.param(
                rfc7230.FIELD_CONTENT, set(range(256)) - CONTROLS - {0x20}, id="FIELD_CONTENT"
            ),
            pytest.param(rfc7230.OWS, {0x20, 0x09}, id="OWS"),
            pytest.param(rfc7230.RWS, {0x20, 0x09}, id="RWS"),
            pytest.param(rfc7230.BWS, {0x20, 0x09}, id="BWS"),
            pytest.param(rfc7230.CHUNK_EXT_NAME, TCHARS, id="CHUNK_EXT_NAME"),
            pytest.param(rfc7230.CHUNK_EXT_VAL, TCHARS, id="CHUNK_EXT_VAL"),
        ],
    )
    def test_matches_exactly_the_octets_of_its_rule(self, pattern, octets):
        assert matching_octets(pattern) == octets

    @pytest.mark.parametrize("pattern", [rfc7230.OWS, rfc7230.BWS, rfc7230.FIELD_VALUE])
    def test_optional_productions_match_nothing_at_all(self, pattern):
        assert re.fullmatch(pattern, "")

    @pytest.mark.parametrize("pattern", [rfc7230.RWS, rfc7230.TOKEN, rfc7230.FIELD_CONTENT])
    def test_required_productions_do_not_match_nothing(self, pattern):
        assert not re.fullmatch(pattern, "")

    def test_quoted_pair_gives_the_character(self):
        match = QUOTED_PAIR_RE.fullmatch('\\"')
        assert match
        assert match[1] == '"'
        assert not QUOTED_PAIR_RE.fullmatch("\\\x00")

    @pytest.mark.parametrize("text", ['""', '"a b\t"', r'"\""', r'"\\"', '"\xff"', '";,="'])
    def test_quoted_string_is_matched_to_its_end(self, text):
        match = QUOTED_STRING_RE.match(text)
        assert match
        assert match.end() == len(text)

    @pytest.mark.parametrize("text", ['"', '"a', '"a\\"', 'a"', '"\x00"', '"\r\n"', "'a'"])
    def test_what_is_no_quoted_string_does_not_match(self, text):
        assert not QUOTED_STRING_RE.match(text)

    def test_everything_told_is_there(self):
        assert all(hasattr(rfc7230, name) for name in rfc7230.__all__)


class TestNumbers:
    @pytest.mark.parametrize("text", [b"0", b"5", b"007", b"1" * 5000])
    def test_digits_are_a_content_length(self, text):
        assert ONLY_DIGIT_RE.match(text)

    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b"+5",
            b"-5",
            b"0x5",
            b"5.0",
            b"5_0",
            b"1e3",
            b"\xb2",
            b" 5",
            b"5 ",
            b"5\n",
            b"5\r\n",
        ],
    )
    def test_all_else_is_none(self, text):
        assert not ONLY_DIGIT_RE.match(text)

    @pytest.mark.parametrize("text", [b"0", b"a", b"F", b"00Ff", b"f" * 5000])
    def test_hexadecimal_digits_are_a_chunk_size(self, text):
        assert ONLY_HEXDIG_RE.match(text)

    @pytest.mark.parametrize(
        "text", [b"", b"+5", b"-5", b"0x5", b"5_0", b"g", b" 5", b"5 ", b"5\t", b"5\n", b"\xb2"]
    )
    def test_all_else_is_no_chunk_size(self, text):
        assert not ONLY_HEXDIG_RE.match(text)


class TestChunkExtensions:
    @pytest.mark.parametrize(
        "text",
        [
            b"",
            b";a",
            b";a=b",
            b';a="b"',
            b';a=""',
            b';a=";\\"= \xff"',
            b";a;b=c;d",
            # RFC 9112, 7.1.1: bad white space is read and ignored
            b" ; a = b",
            b"\t;\ta\t=\tb",
            b" ;a ;b",
        ],
    )
    def test_well_formed_extensions_match(self, text):
        assert CHUNK_EXT_RE.match(text)

    @pytest.mark.parametrize(
        "text",
        [
            b";",
            b";a=",
            b";=b",
            b";a b",
            b";a=b c",
            b';a="b',
            b';a="b"c',
            b";a=b\n",
            b";a\n",
            b";a\r",
            b';a="\n"',
            b";a;",
            b"a",
            b" ",
            b";a ",
            b";\xff",
            b";a=\xff",
        ],
    )
    def test_malformed_extensions_do_not(self, text):
        assert not CHUNK_EXT_RE.match(text)

    def test_groups_tell_the_last_extension(self):
        match = CHUNK_EXT_RE.match(b';a=b;c="d"')
        assert match
        assert match.group("extension", "value") == (b"c", b'"d"')


GOOD_LINES = [
    (b"a:", b"a", b""),
    (b"a:b", b"a", b"b"),
    (b"a: b", b"a", b"b"),
    (b"a:\t b \t", b"a", b"b"),
    (b"a:  ", b"a", b""),
    (b"a: b  c\td", b"a", b"b  c\td"),
    (b"a: :b:", b"a", b":b:"),
    (b"a: \xa0b\x85", b"a", b"\xa0b\x85"),
    (b"!#$%&'*+-.^_`|~09AZaz: x", b"!#$%&'*+-.^_`|~09AZaz", b"x"),
]

BAD_LINES = [
    (b"", "bad-field-name"),
    (b":", "bad-field-name"),
    (b":b", "bad-field-name"),
    (b"a", "bad-field-name"),
    (b"a b: c", "bad-field-name"),
    (b"a : b", "bad-field-name"),
    (b"a\t: b", "bad-field-name"),
    (b"a\x00: b", "bad-field-name"),
    (b"a\x0b: b", "bad-field-name"),
    (b"(a): b", "bad-field-name"),
    (b"\xe4: b", "bad-field-name"),
    (b"a: b\x00", "bad-field-value"),
    (b"a: \x00", "bad-field-value"),
    (b"a: b\x0bc", "bad-field-value"),
    (b"a: \x0c", "bad-field-value"),
    (b"a: b\x7f", "bad-field-value"),
    (b"a: \x1b[0m", "bad-field-value"),
    (b" a: b", "obs-fold"),
    (b"\ta", "obs-fold"),
    (b" ", "obs-fold"),
    (b"a: b\rc: d", "bare-cr-lf"),
    (b"a: b\nc: d", "bare-cr-lf"),
    (b"a: b\n", "bare-cr-lf"),
    (b"\na: b", "bare-cr-lf"),
    (b"a: b\r", "bare-cr-lf"),
    (b" a\rb", "bare-cr-lf"),
]


class TestFieldLines:
    @pytest.mark.parametrize(("line", "name", "value"), GOOD_LINES)
    def test_well_formed_line_matches_as_a_whole(self, line, name, value):
        match = HEADER_FIELD_RE.match(line)
        assert match
        assert match.group("name", "value") == (name, value)

    @pytest.mark.parametrize(("line", "name", "value"), GOOD_LINES)
    def test_section_gives_name_and_value(self, line, name, value):
        text = (b"x: y\r\n" + line + b"\r\nz:\r\n").decode("latin-1")
        fields = read_field_lines(text, 0, len(text))
        assert fields
        assert [(n, v.strip(" \t")) for n, v in fields] == [
            ("x", "y"),
            (name.decode("latin-1"), value.decode("latin-1")),
            ("z", ""),
        ]

    @pytest.mark.parametrize(("line", "reason"), BAD_LINES)
    def test_malformed_line_does_not_match(self, line, reason):
        assert not HEADER_FIELD_RE.match(line)

    @pytest.mark.parametrize("others", [b"", b"x: y\r\n"])
    @pytest.mark.parametrize(("line", "reason"), BAD_LINES)
    def test_section_with_a_malformed_line_is_none_and_the_line_is_found(
        self, line, reason, others
    ):
        section = others + line + b"\r\n" + others
        assert read_field_lines(section.decode("latin-1"), 0, len(section)) is None
        assert first_malformed_line(section) == (line, reason)

    def test_section_is_read_from_start_to_stop_only(self):
        text = "GET / HTTP/1.1\r\na: b\r\n\r\nc: d\r\n"
        start = text.index("a:")
        assert read_field_lines(text, start, start + 6) == [("a", " b")]
        assert read_field_lines(text, start, start) == []

    @given(
        st.lists(
            st.lists(
                st.sampled_from([b"a", b"B-c", b":", b" ", b"\t", b"\xff", b"\x00", b"\r", b"\n"])
            ).map(b"".join),
            max_size=5,
        )
    )
    def test_section_and_line_patterns_are_the_same_language(self, lines):
        section = b"".join(line + b"\r\n" for line in lines)
        fields = read_field_lines(section.decode("latin-1"), 0, len(section))
        matches = [HEADER_FIELD_RE.match(line) for line in section[:-2].split(b"\r\n") if section]
        if fields is None:
            assert not all(matches)
        else:
            assert [(m["name"], m["value"]) for m in matches if m] == [
                (n.encode("latin-1"), v.strip(" \t").encode("latin-1")) for n, v in fields
            ]
            assert all(matches)


GOOD_HOSTS = [
    ("example.com", "example.com", None),
    ("example.com:80", "example.com", "80"),
    ("example.com:", "example.com", ""),
    ("under_score", "under_score", None),
    ("a%20b", "a%20b", None),
    ("!$&'()*+,;=~", "!$&'()*+,;=~", None),
    ("127.0.0.1:8080", "127.0.0.1", "8080"),
    ("[::1]", "[::1]", None),
    ("[::1]:8080", "[::1]", "8080"),
    ("[::]", "[::]", None),
    ("[1:2:3:4:5:6:7:8]", "[1:2:3:4:5:6:7:8]", None),
    ("[1:2:3:4:5:6:1.2.3.4]", "[1:2:3:4:5:6:1.2.3.4]", None),
    ("[::2:3:4:5:6:7:8]", "[::2:3:4:5:6:7:8]", None),
    ("[1::3:4:5:6:7:8]", "[1::3:4:5:6:7:8]", None),
    ("[1:2::4:5:6:7:8]", "[1:2::4:5:6:7:8]", None),
    ("[1:2:3::5:6:7:8]", "[1:2:3::5:6:7:8]", None),
    ("[1:2:3:4::6:7:8]", "[1:2:3:4::6:7:8]", None),
    ("[1:2:3:4:5::7:8]", "[1:2:3:4:5::7:8]", None),
    ("[1:2:3:4:5:6::8]", "[1:2:3:4:5:6::8]", None),
    ("[1:2:3:4:5:6:7::]", "[1:2:3:4:5:6:7::]", None),
    ("[::ffff:192.0.2.255]", "[::ffff:192.0.2.255]", None),
    ("[2001:DB8::a]", "[2001:DB8::a]", None),
]

BAD_HOSTS = [
    "",
    ":80",
    "a b",
    "a/b",
    "a?b",
    "a#b",
    "a@b",
    "user:pass@host",
    "a\\b",
    "a%2",
    "a%zz",
    "a:b",
    "a:80:90",
    "a:-1",
    "a:123456",
    "a\n",
    "a\x00",
    "\xe4",
    "<a>",
    "a, b",
    "http://a",
    "::1",
    "[::1",
    "::1]",
    "[]",
    "[::1]x",
    "[::1]]",
    "[:::]",
    "[1::2::3]",
    "[1:2:3:4:5:6:7]",
    "[1:2:3:4:5:6:7:8:9]",
    "[1:2:3:4:5:6:7::8]",
    "[12345::]",
    "[::g]",
    "[::256.0.0.1]",
    "[::1.2.3]",
    "[::01.2.3.4]",
    "[1.2.3.4]",
    "[::1%25eth0]",
    "[v1.a]",
    "[example.com]",
]


class TestHost:
    @pytest.mark.parametrize(("text", "host", "port"), GOOD_HOSTS)
    def test_host_and_port_are_told(self, text, host, port):
        match = HOST_RE.match(text)
        assert match
        assert match.group("host", "port") == (host, port)

    @pytest.mark.parametrize("text", BAD_HOSTS)
    def test_what_is_no_host_does_not_match(self, text):
        assert not HOST_RE.match(text)


class TestRequestFields:
    def test_keys_are_the_names_in_the_form_of_the_parser(self):
        assert REQUEST_FIELDS["IF_NONE_MATCH"].name == "If-None-Match"
        assert all(
            key == field.name.upper().replace("-", "_") for key, field in REQUEST_FIELDS.items()
        )

    def test_every_field_names_the_section_of_an_rfc(self):
        assert all(
            re.match(r"RFC [0-9]{4}, [0-9]+(\.[0-9]+)*", field.section)
            for field in REQUEST_FIELDS.values()
        )

    def test_fields_that_decide_framing_target_or_identity_are_refused_when_repeated(self):
        assert {"HOST", "CONTENT_LENGTH", "CONTENT_TYPE", "AUTHORIZATION"} == REFUSED_WHEN_REPEATED

    def test_no_list_is_refused_when_repeated(self):
        assert not any(field.is_list and field.refused for field in REQUEST_FIELDS.values())

    @pytest.mark.parametrize(
        ("key", "is_list"),
        [
            ("ACCEPT", True),
            ("CONNECTION", True),
            ("EXPECT", True),
            ("TRANSFER_ENCODING", True),
            ("USER_AGENT", False),
            ("REFERER", False),
            ("COOKIE", False),
            ("RANGE", False),
        ],
    )
    def test_grammar_is_told(self, key, is_list):
        assert REQUEST_FIELDS[key].is_list is is_list

    def test_only_cookies_are_joined_by_semicolons(self):
        others = {key for key, field in REQUEST_FIELDS.items() if field.separator != ", "}
        assert others == {"COOKIE"}

    def test_forbidden_trailers_cover_framing_routing_and_authentication(self):
        assert {
            "content-length",
            "transfer-encoding",
            "host",
            "authorization",
            "content-type",
        } <= FORBIDDEN_TRAILER_FIELDS
        assert all(name == name.lower() for name in FORBIDDEN_TRAILER_FIELDS)


HOSTILE_FIELD_LINES = [
    pytest.param(lambda n: b"a:" + b" " * n + b"\x00", id="blanks, then a control"),
    pytest.param(lambda n: b"a:" + b"b" * n + b"\x00", id="long value"),
    pytest.param(lambda n: b"a:" + b"b " * n + b"\x00", id="many words"),
    pytest.param(lambda n: b"a: b" + b" " * n + b"\x00", id="blanks behind a word"),
    pytest.param(lambda n: b"a" * n + b"\x00", id="long name"),
    pytest.param(lambda n: b" " * n, id="blanks alone"),
    pytest.param(lambda n: b"a:\r" * n, id="bare CR"),
    pytest.param(lambda n: b"a\n" * n, id="bare LF, no colon"),
    pytest.param(lambda n: b"a:b\n" * n, id="bare LF"),
    pytest.param(lambda n: b"a:b\r\n" * n + b"\x00", id="many lines"),
]


class TestLinearTime:
    """CVE-2020-5236: no input may make a pattern backtrack into itself."""

    @pytest.mark.parametrize("hostile", HOSTILE_FIELD_LINES)
    def test_header_field_pattern(self, hostile):
        assert_linear(lambda n: HEADER_FIELD_RE.match(hostile(n)), 4000)

    @pytest.mark.parametrize("hostile", HOSTILE_FIELD_LINES)
    def test_section_pattern(self, hostile):
        assert_linear(lambda n: FIELD_LINE_RE.findall(hostile(n).decode("latin-1")), 4000)

    @pytest.mark.parametrize("hostile", HOSTILE_FIELD_LINES)
    def test_finding_the_malformed_line(self, hostile):
        assert_linear(lambda n: first_malformed_line(hostile(n) + b"\r\n"), 4000)

    @pytest.mark.parametrize(
        "hostile",
        [
            pytest.param(lambda n: b";a" * n + b"\x00", id="names"),
            pytest.param(lambda n: b";" + b"a" * n + b"\x00", id="long name"),
            pytest.param(lambda n: b";a" + b" " * n + b"\x00", id="blanks behind a name"),
            pytest.param(lambda n: b";a=b" + b" " * n + b"\x00", id="blanks behind a value"),
            pytest.param(lambda n: b";a =" + b" " * n + b"\x00", id="blanks before a value"),
            pytest.param(lambda n: b" " * n + b"\x00", id="blanks in front"),
            pytest.param(lambda n: b';a="' + b"b" * n, id="open string"),
            pytest.param(lambda n: b';a="' + b"\\" * n, id="backslashes"),
            pytest.param(lambda n: b';a="b"' * n + b"\x00", id="strings"),
            pytest.param(lambda n: b";a=b ; " * n + b"\x00", id="blanks everywhere"),
        ],
    )
    def test_chunk_extension_pattern(self, hostile):
        assert_linear(lambda n: CHUNK_EXT_RE.match(hostile(n)), 4000)

    @pytest.mark.parametrize(
        "hostile",
        [
            pytest.param(lambda n: '"' + "a" * n, id="open"),
            pytest.param(lambda n: '"' + "\\" * n, id="backslashes"),
            pytest.param(lambda n: '"' + '\\"' * n, id="escaped quotes"),
            pytest.param(lambda n: '"' + "a\\b" * n + "\x00", id="mixed"),
        ],
    )
    def test_quoted_string_pattern(self, hostile):
        assert_linear(lambda n: QUOTED_STRING_RE.match(hostile(n)), 4000)

    @pytest.mark.parametrize(
        "hostile",
        [
            pytest.param(lambda n: "a" * n + "\x00", id="name"),
            pytest.param(lambda n: "%41" * n + "\x00", id="escapes"),
            pytest.param(lambda n: "[" + ":" * n, id="colons"),
            pytest.param(lambda n: "[" + "1:" * n + "]", id="groups"),
            pytest.param(lambda n: "[" + "::1" * n + "]", id="double colons"),
            pytest.param(lambda n: "a:" + "1" * n, id="port"),
        ],
    )
    def test_host_pattern(self, hostile):
        assert_linear(lambda n: HOST_RE.match(hostile(n)), 4000)

    @pytest.mark.parametrize("pattern", [ONLY_DIGIT_RE, ONLY_HEXDIG_RE])
    def test_number_patterns(self, pattern):
        assert_linear(lambda n: pattern.match(b"1" * n + b"\x00"), 4000)
