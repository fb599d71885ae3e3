"""Loggers, dates, quoted strings, socket files and errors as values."""

from __future__ import annotations

import locale
import logging
import os
import socket
import time
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitress import utilities


class TestLoggers:
    def test_are_the_two_that_users_configure(self):
        assert utilities.logger is logging.getLogger("waitress")
        assert utilities.queue_logger is logging.getLogger("waitress.queue")

    def test_have_no_level_and_no_handler_of_ours(self):
        for each in (utilities.logger, utilities.queue_logger):
            assert each.level == logging.NOTSET
            assert each.handlers == []


class TestFindDoubleNewline:
    @pytest.mark.parametrize(
        ("octets", "expected"),
        [
            (b"", -1),
            (b"\r\n\r", -1),
            (b"\n\n", -1),
            (b"a\n\nb\r\n\nc\r\r\n\r", -1),
            (b"\r\n\r\n", 4),
            (b"a: b\r\n\r\nbody\r\n\r\n", 8),
            (b"\r\n\r\n\r\n", 4),
        ],
    )
    def test_tells_the_index_behind_the_first(self, octets, expected):
        assert utilities.find_double_newline(octets) == expected


class TestPiecesOfPatterns:
    def test_concat_puts_strings_one_after_the_other(self):
        assert utilities.concat("a", "b", "c") == "abc"
        assert utilities.concat() == ""

    def test_join_puts_a_field_between(self):
        assert utilities.join(["a", "b"]) == "a b"
        assert utilities.join(("a", "b"), "|") == "a|b"

    def test_group_captures(self):
        assert utilities.group("a|b") == "(a|b)"

    def test_names_of_days_and_months_have_numbers(self):
        assert utilities.daymap["sun"] == utilities.daymap["sunday"] == 0
        assert utilities.daymap["sat"] == utilities.daymap["saturday"] == 6
        assert len(utilities.daymap) == 14
        assert (utilities.monmap["jan"], utilities.monmap["dec"]) == (1, 12)
        assert utilities.weekdayname[0] == "Mon"
        assert utilities.monthname[0] is None
        assert utilities.monthname[12] == "Dec"

    def test_date_patterns_have_the_groups_that_users_count_on(self):
        long = utilities.rfc822_reg.match("sun, 08 feb 1994 14:15:29 gmt")
        short = utilities.rfc850_reg.match("tuesday, 08-feb-94 14:15:29 gmt")

        assert long is not None
        assert short is not None
        assert long.group(2, 3, 4, 5, 6, 7) == ("08", "feb", "1994", "14", "15", "29")
        assert short.group(2, 3, 4, 5, 6, 7) == ("08", "feb", "94", "14", "15", "29")
        assert utilities.unpack_rfc822(long) == (1994, 2, 8, 14, 15, 29, 0, 0, 0)
        assert utilities.unpack_rfc850(short) == (1994, 2, 8, 14, 15, 29, 0, 0, 0)


class TestBuildHTTPDate:
    @pytest.mark.parametrize(
        ("when", "expected"),
        [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (760716929, "Tue, 08 Feb 1994 14:15:29 GMT"),
            (1709164799.99, "Wed, 28 Feb 2024 23:59:59 GMT"),
        ],
    )
    def test_writes_the_fixed_form(self, when, expected):
        assert utilities.build_http_date(when) == expected

    def test_does_not_depend_on_locale(self):
        before = locale.setlocale(locale.LC_ALL)
        try:
            locale.setlocale(locale.LC_ALL, "")
            assert utilities.build_http_date(0) == "Thu, 01 Jan 1970 00:00:00 GMT"
        finally:
            locale.setlocale(locale.LC_ALL, before)

    @given(st.integers(0, 4102444800))
    def test_writes_what_is_read_back(self, when):
        assert utilities.parse_http_date(utilities.build_http_date(when)) == when


class TestHTTPDateNow:
    def test_is_the_date_of_the_second(self):
        assert utilities.http_date_now(760716929.7) == "Tue, 08 Feb 1994 14:15:29 GMT"
        assert utilities.http_date_now(760716930.0) == "Tue, 08 Feb 1994 14:15:30 GMT"

    def test_is_the_same_object_within_a_second(self):
        first = utilities.http_date_now(1000.0)

        assert utilities.http_date_now(1000.999) is first

    def test_follows_a_clock_that_was_set_back(self):
        utilities.http_date_now(2000.0)

        assert utilities.http_date_now(0.5) == "Thu, 01 Jan 1970 00:00:00 GMT"

    def test_takes_the_time_of_the_system(self):
        now = time.time()

        assert utilities.parse_http_date(utilities.http_date_now(now)) == int(now)


class TestParseHTTPDate:
    @pytest.mark.parametrize(
        "date",
        [
            "Tuesday, 08-Feb-94 14:15:29 GMT",
            "Tuesday, 8-Feb-94 14:15:29 GMT",
            "Tue, 08 Feb 1994 14:15:29 GMT",
            "Sun, 08 Feb 1994 14:15:29 GMT",
            "Sun, 8 Feb 1994 14:15:29 GMT",
            "SUN, 08 FEB 1994 14:15:29 gmt",
        ],
    )
    def test_reads_both_forms_in_any_case(self, date):
        assert utilities.parse_http_date(date) == 760716929

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "Sun Feb  8 14:15:29 1994",
            "Sun, 08 Feb 1994 14:15:29 GMT ",
            "Sun, 08 Feb 1994 14:15:29 GMT\n",
            " Sun, 08 Feb 1994 14:15:29 GMT",
            "Sun, 08 Feb 1994 14:15:29",
            "Sun, 08 Feb 94 14:15:29 GMT",
            "Sun, 08 Foo 1994 14:15:29 GMT",
            "Tuesday, 08 Feb 1994 14:15:29 GMT",
            "Tue, 08-Feb-94 14:15:29 GMT",
            "Tuesday, 08-Feb-94 14:15:29 GMT\n",
            "Sun, 08 Feb 0000 14:15:29 GMT",
            "Sun, \u0660\u0668 Feb 1994 14:15:29 GMT",
        ],
    )
    def test_is_zero_for_anything_else(self, text):
        assert utilities.parse_http_date(text) == 0


class TestUndquote:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("", ""),
            ("test", "test"),
            ('te"s"t', 'te"s"t'),
            ("te\\st", "te\\st"),
            ('""', ""),
            ('"test"', "test"),
            ('"a, b; c"', "a, b; c"),
            ('"\\""', '"'),
            ('"\\\\"', "\\"),
            ('"a\\bc"', "abc"),
        ],
    )
    def test_tells_what_is_meant(self, value, expected):
        assert utilities.undquote(value) == expected

    @pytest.mark.parametrize("value", ['"', '"test', 'test"', '"\\"', '"a"b"', '"a\x00"', '"a"\n"'])
    def test_refuses_quotes_that_do_not_fit(self, value):
        with pytest.raises(ValueError, match=r"^Invalid quoting in value$"):
            utilities.undquote(value)

    @given(st.text(st.characters(min_codepoint=32, max_codepoint=126)))
    def test_undoes_quoting(self, text):
        quoted = '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

        assert utilities.undquote(quoted) == text

    def test_takes_linear_time(self):
        # A quadratic search would need minutes for these.
        for value in ('"' + "a" * 1_000_000, '"' + "\\" * 1_000_001, '"' * 1_000_000):
            with pytest.raises(ValueError, match="quoting"):
                utilities.undquote(value)


class TestCleanupUnixSocket:
    @pytest.fixture(autouse=True)
    def _needs_unix_sockets(self):
        if not hasattr(socket, "AF_UNIX"):
            pytest.skip("no unix sockets here")

    @pytest.fixture
    def socket_path(self, tmp_path):
        # Relative, since the path of a unix socket must be short.
        before = os.getcwd()
        os.chdir(tmp_path)
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind("s")
        yield tmp_path / "s"
        os.chdir(before)

    def test_removes_a_socket(self, socket_path):
        utilities.cleanup_unix_socket(str(socket_path))

        assert not socket_path.exists()

    def test_leaves_other_files_alone(self, tmp_path):
        path = tmp_path / "file"
        path.write_text("kept")

        utilities.cleanup_unix_socket(str(path))

        assert path.read_text() == "kept"

    def test_accepts_that_there_is_nothing(self, tmp_path):
        utilities.cleanup_unix_socket(str(tmp_path / "missing"))

    def test_tells_other_errors(self, tmp_path):
        (tmp_path / "file").write_text("")

        with pytest.raises(NotADirectoryError):
            utilities.cleanup_unix_socket(str(tmp_path / "file" / "s"))


class TestError:
    def test_tells_status_fields_and_body(self):
        assert utilities.BadRequest("It is so.").to_response("me") == (
            "400 Bad Request",
            [("Content-Type", "text/plain; charset=utf-8")],
            b"Bad Request\r\n\r\nIt is so.\r\n\r\n(generated by me)",
        )

    @pytest.mark.parametrize("ident", [None, ""])
    def test_without_ident_is_generated_by_server(self, ident):
        _, _, body = utilities.Error("x").to_response(ident)

        assert body.endswith(b"(generated by server)")

    def test_takes_any_object_as_body(self):
        error = utilities.BadRequest(17)

        assert error.body == 17
        assert b"\r\n\r\n17\r\n\r\n" in error.to_response()[2]

    def test_body_is_utf_8(self):
        assert b"\r\n\xc3\xa9\r\n" in utilities.Error("\xe9").to_response()[2]

    def test_survives_text_that_has_no_utf_8(self):
        assert b"\\udc80" in utilities.Error("\udc80").to_response()[2]

    def test_code_and_reason_may_be_set_on_an_instance(self):
        error = utilities.Error("x")
        error.code = 418
        error.reason = "I'm a teapot"

        status, _, body = error.to_response()

        assert status == "418 I'm a teapot"
        assert body.startswith(b"I'm a teapot\r\n\r\n")

    def test_adds_the_fields_its_status_calls_for(self):
        error = utilities.MethodNotAllowed("x")
        error.headers = [("Allow", "GET, HEAD")]

        assert error.to_response()[1] == [
            ("Content-Type", "text/plain; charset=utf-8"),
            ("Allow", "GET, HEAD"),
        ]
        assert len(utilities.MethodNotAllowed("y").to_response()[1]) == 1

    def test_names_no_broken_rule_until_told(self):
        assert utilities.BadRequest("x").reject_reason == ""

    def test_is_no_exception(self):
        assert not issubclass(utilities.Error, BaseException)

    def test_answers_as_a_wsgi_application(self):
        started = []
        error = utilities.BadRequest("x")

        body = error.wsgi_response({}, lambda status, headers: started.append((status, headers)))

        assert not started, "nothing happens before the server asks for the first chunk"
        assert list(body) == [error.to_response()[2]]
        assert started == [error.to_response()[:2]]

    @pytest.mark.parametrize(
        ("kind", "base", "status"),
        [
            (utilities.Error, object, "500 Internal Server Error"),
            (utilities.BadRequest, utilities.Error, "400 Bad Request"),
            (utilities.MethodNotAllowed, utilities.BadRequest, "405 Method Not Allowed"),
            (utilities.RequestTimeout, utilities.BadRequest, "408 Request Timeout"),
            (utilities.RequestEntityTooLarge, utilities.BadRequest, "413 Request Entity Too Large"),
            (utilities.ExpectationFailed, utilities.BadRequest, "417 Expectation Failed"),
            (
                utilities.RequestHeaderFieldsTooLarge,
                utilities.BadRequest,
                "431 Request Header Fields Too Large",
            ),
            (utilities.InternalServerError, utilities.Error, "500 Internal Server Error"),
            (utilities.ServerNotImplemented, utilities.Error, "501 Not Implemented"),
            (utilities.ServiceUnavailable, utilities.Error, "503 Service Unavailable"),
            (utilities.HTTPVersionNotSupported, utilities.Error, "505 HTTP Version Not Supported"),
            (utilities.InsufficientStorage, utilities.Error, "507 Insufficient Storage"),
        ],
    )
    def test_kinds_have_their_status(self, kind, base, status):
        assert issubclass(kind, base)
        assert kind("x").to_response()[0] == status
        assert kind.__doc__


def test_method_is_of_its_owner_as_long_as_nobody_has_put_another_in_its_place():
    class Owner:
        def method(self):
            """Do nothing."""

    method, owner = Owner.method, Owner()
    assert utilities.is_method_of(owner, owner.method, method)
    assert not utilities.is_method_of(owner, Owner().method, method)
    Owner.method = lambda self: None
    assert not utilities.is_method_of(owner, owner.method, method)
    owner.method = SimpleNamespace(__func__=method, __self__=owner)
    assert not utilities.is_method_of(owner, owner.method, method)
