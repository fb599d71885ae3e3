"""Proxy header fields: believed from trusted peers, taken away from all others."""

from __future__ import annotations

import logging
from collections import namedtuple
from collections.abc import Collection
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from waitress import proxy_headers, utilities
from waitress.proxy_headers import (
    PROXY_HEADERS,
    MalformedProxyHeader,
    clear_untrusted_headers,
    parse_proxy_headers,
    proxy_headers_middleware,
)
from waitress.rejects import Rejects

X_FORWARDED = {
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x-forwarded-by",
}

# What a connection from a proxy looks like before its fields are read.
PEER = {
    "REMOTE_ADDR": "127.0.0.1",
    "REMOTE_HOST": "127.0.0.1",
    "REMOTE_PORT": "12345",
    "SERVER_NAME": "waitress.invalid",
    "SERVER_PORT": "8080",
    "HTTP_HOST": "inner",
    "wsgi.url_scheme": "http",
}


class ListLogger:
    """Keep the warnings, formatted."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warning(self, msg: str, /, *args: object) -> None:
        self.warnings.append(msg % args)


class App:
    """A WSGI application that remembers what it was called with."""

    def __init__(self) -> None:
        self.environs: list[dict[str, Any]] = []

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.environs.append(environ)
        return [b"from the application"]


def fields(**values: str) -> dict[str, str]:
    """Return an environ with header fields, e.g. ``x_forwarded_for="a"``."""
    return {**PEER, **{f"HTTP_{name.upper()}": value for name, value in values.items()}}


def changed(
    trusted: Collection[str] | None = X_FORWARDED, count: int = 1, /, **values: str
) -> dict[str, str]:
    """Return what of the connection and of the fields differs after reading these."""
    before = fields(**values)
    environ = dict(before)
    parse_proxy_headers(environ, count, trusted, ListLogger())
    assert environ.keys() == before.keys()
    return {key: value for key, value in environ.items() if before[key] != value}


def forwarded(value: str, count: int = 1) -> dict[str, str]:
    """Return what a Forwarded field changes, the field itself left out."""
    changes = changed({"forwarded"}, count, forwarded=value)
    changes.pop("HTTP_FORWARDED", None)
    return changes


def refused(
    trusted: Collection[str] = X_FORWARDED, count: int = 1, /, **values: str
) -> tuple[Any, ...]:
    """Return header, reason and value of the error; nothing may have changed then."""
    environ = fields(**values)
    before = dict(environ)
    with pytest.raises(MalformedProxyHeader) as caught:
        parse_proxy_headers(environ, count, trusted, ListLogger())
    assert environ == before
    error = caught.value
    assert (error.header, error.reason, error.value) == error.args
    return error.args


class TestMiddleware:
    def call(
        self, values: dict[str, str], **settings: Any
    ) -> tuple[App, list[str], bytes, list[Any]]:
        app = App()
        log = ListLogger()
        started: list[Any] = []
        middleware = proxy_headers_middleware(app, logger=log, **settings)
        body = b"".join(middleware(fields(**values), lambda *answer: started.append(answer)))
        return app, log.warnings, body, started

    def test_hands_a_request_without_such_fields_on_as_it_is(self):
        app, warnings, body, _ = self.call({}, trusted_proxy="*", log_untrusted=True)

        assert app.environs == [PEER]
        assert warnings == []
        assert body == b"from the application"

    def test_hands_on_the_very_environ_and_result(self):
        environ = fields(x_forwarded_for="192.0.2.1")
        result = [b"x"]
        seen = []

        def app(environ, start_response):
            seen.append((environ, start_response))
            return result

        def start_response(status, headers):
            raise AssertionError("is for the application to call")

        assert proxy_headers_middleware(app)(environ, start_response) is result
        assert seen[0][0] is environ
        assert seen[0][1] is start_response

    def test_believes_the_trusted_peer(self):
        app, *_ = self.call(
            {"x_forwarded_for": "192.0.2.1"},
            trusted_proxy="127.0.0.1",
            trusted_proxy_headers={"x-forwarded-for"},
        )

        assert app.environs[0]["REMOTE_ADDR"] == "192.0.2.1"

    def test_believes_any_peer_by_a_star(self):
        app, *_ = self.call(
            {"x_forwarded_proto": "https"},
            trusted_proxy="*",
            trusted_proxy_headers={"x-forwarded-proto"},
        )

        assert app.environs[0]["wsgi.url_scheme"] == "https"

    @pytest.mark.parametrize("trusted_proxy", [None, "", "127.0.0.2", "127.0.0", "localhost"])
    def test_believes_nobody_else(self, trusted_proxy):
        """R5: an untrusted peer sets nothing, and what it sent is taken away."""
        values = {name.lower(): "192.0.2.1" for name in PROXY_HEADERS}

        app, warnings, *_ = self.call(
            values, trusted_proxy=trusted_proxy, trusted_proxy_headers=X_FORWARDED
        )

        assert app.environs == [PEER]
        assert warnings == []

    @pytest.mark.parametrize("name", sorted(PROXY_HEADERS))
    def test_each_field_alone_is_noticed_and_taken_away(self, name):
        app, *_ = self.call({name.lower(): "192.0.2.1"})

        assert app.environs == [PEER]

    @pytest.mark.parametrize("trusted_proxy", [None, "", "127.0.0.1"])
    def test_believes_no_peer_without_an_address(self, trusted_proxy):
        app = App()
        middleware = proxy_headers_middleware(
            app, trusted_proxy=trusted_proxy, trusted_proxy_headers=X_FORWARDED
        )

        middleware({"HTTP_X_FORWARDED_FOR": "192.0.2.1"}, None)

        assert app.environs == [{}]

    @pytest.mark.parametrize(
        "trusted_proxy",
        [
            "127.0.0.1 192.0.2.9",
            "10.0.0.0/8,127.0.0.0/8",
            ["192.0.2.9", "127.0.0.1"],
            "::ffff:127.0.0.1",
        ],
    )
    def test_believes_several_peers_and_ranges(self, trusted_proxy):
        app, *_ = self.call(
            {"x_forwarded_for": "192.0.2.1"},
            trusted_proxy=trusted_proxy,
            trusted_proxy_headers={"x-forwarded-for"},
        )

        assert app.environs[0]["REMOTE_ADDR"] == "192.0.2.1"

    @pytest.mark.parametrize(
        "trusted_proxy", ["127.0.0.2 192.0.2.9", "10.0.0.0/8, ::1", ["127.0.0.1/32", "::1"], []]
    )
    def test_believes_no_peer_outside_of_them(self, trusted_proxy):
        app = App()
        environ = {**fields(x_forwarded_for="192.0.2.1"), "REMOTE_ADDR": "127.0.0.3"}

        proxy_headers_middleware(app, trusted_proxy, 1, X_FORWARDED)(environ, None)

        assert app.environs == [{**PEER, "REMOTE_ADDR": "127.0.0.3"}]

    def test_believes_the_peers_at_a_unix_socket(self):
        app = App()
        environ = {**fields(x_forwarded_for="192.0.2.1"), "REMOTE_ADDR": "localhost"}

        proxy_headers_middleware(app, "localhost 10.0.0.0/8", 1, X_FORWARDED)(environ, None)

        assert app.environs[0]["REMOTE_ADDR"] == "192.0.2.1"

    def test_cannot_be_made_with_a_range_that_is_none(self):
        with pytest.raises(ValueError, match=r"10\.0\.0\.1/8 has host bits set"):
            proxy_headers_middleware(App(), trusted_proxy="10.0.0.1/8")

    def test_believes_only_the_fields_told(self):
        app, *_ = self.call(
            {"x_forwarded_for": "192.0.2.1", "x_forwarded_proto": "https", "forwarded": "for=a"},
            trusted_proxy="*",
            trusted_proxy_headers={"x-forwarded-proto"},
        )

        assert app.environs == [
            {
                **PEER,
                "wsgi.url_scheme": "https",
                "SERVER_PORT": "443",
                "HTTP_X_FORWARDED_PROTO": "https",
            }
        ]

    def test_believes_the_number_of_proxies_told(self):
        app, *_ = self.call(
            {"x_forwarded_for": "192.0.2.1, 198.51.100.2, 203.0.113.1"},
            trusted_proxy="*",
            trusted_proxy_count=2,
            trusted_proxy_headers={"x-forwarded-for"},
        )

        assert app.environs[0]["REMOTE_ADDR"] == "198.51.100.2"

    def test_believes_one_proxy_unless_told_otherwise(self):
        app, *_ = self.call(
            {"x_forwarded_for": "192.0.2.1, 198.51.100.2"},
            trusted_proxy="*",
            trusted_proxy_headers={"x-forwarded-for"},
        )

        assert app.environs[0]["REMOTE_ADDR"] == "198.51.100.2"

    def test_leaves_untrusted_fields_where_that_is_wanted(self):
        app, warnings, *_ = self.call(
            {"x_forwarded_for": "192.0.2.1"}, clear_untrusted=False, log_untrusted=True
        )

        assert app.environs == [fields(x_forwarded_for="192.0.2.1")]
        assert warnings == []

    def test_tells_what_it_takes_away_where_that_is_wanted(self):
        _, warnings, *_ = self.call({"forwarded": "for=a"}, log_untrusted=True)

        assert warnings == [
            "Removed untrusted headers (Forwarded). Waitress recommends these be removed upstream."
        ]

    def test_answers_a_malformed_field_of_a_trusted_peer(self):
        app, warnings, body, started = self.call(
            {"x_forwarded_for": '"'}, trusted_proxy="*", trusted_proxy_headers=X_FORWARDED
        )

        assert app.environs == []
        assert warnings == [
            'Malformed proxy header "X-Forwarded-For" from "127.0.0.1": '
            'Invalid quoting in value value: "'
        ]
        assert started == [("400 Bad Request", [("Content-Type", "text/plain; charset=utf-8")])]
        assert body == (
            b'Bad Request\r\n\r\nHeader "X-Forwarded-For" malformed.\r\n\r\n(generated by server)'
        )

    def test_has_a_malformed_field_of_a_trusted_peer_counted_and_told(self, caplog):
        caplog.set_level(logging.INFO, "waitress.reject")
        rejects = Rejects()

        self.call(
            {"x_forwarded_for": 'a\x85"'},
            trusted_proxy="*",
            trusted_proxy_headers=X_FORWARDED,
            tell_refusal=rejects.refused,
        )

        assert rejects.counts.snapshot() == {"proxy-header": 1}
        assert caplog.messages == [
            'refused: reason=proxy-header peer=127.0.0.1 channel=- request=- sample="a\\x85\\""'
        ]

    def test_does_not_judge_a_malformed_field_of_others(self):
        app, warnings, *_ = self.call({"x_forwarded_for": '"'})

        assert app.environs == [PEER]
        assert warnings == []

    @pytest.mark.parametrize("count", [0, -1])
    def test_cannot_be_made_to_trust_without_a_number_of_proxies(self, count):
        with pytest.raises(
            ValueError, match=f"trusted_proxy_count must be at least 1, not {count}"
        ):
            proxy_headers_middleware(App(), trusted_proxy="*", trusted_proxy_count=count)

    def test_does_not_care_for_the_number_where_nobody_is_trusted(self):
        proxy_headers_middleware(App(), trusted_proxy=None, trusted_proxy_count=0)


class TestClearUntrustedHeaders:
    def test_takes_away_the_fields_told_and_no_other(self):
        environ = fields(x_forwarded_for="a", forwarded="b", x_forwarded_server="c", x_real_ip="d")

        clear_untrusted_headers(environ, {"X_FORWARDED_FOR", "X_FORWARDED_HOST"})

        assert environ == fields(forwarded="b", x_forwarded_server="c", x_real_ip="d")

    def test_takes_away_empty_fields(self):
        environ = fields(forwarded="")

        clear_untrusted_headers(environ, PROXY_HEADERS)

        assert environ == PEER

    def test_tells_which_ones_were_there(self):
        log = ListLogger()

        clear_untrusted_headers(
            fields(x_forwarded_for="a", forwarded="b"), PROXY_HEADERS, log_warning=True, logger=log
        )

        assert log.warnings == [
            "Removed untrusted headers (Forwarded, X-Forwarded-For). "
            "Waitress recommends these be removed upstream."
        ]

    def test_tells_nothing_where_there_was_none_or_nobody_asked(self):
        log = ListLogger()

        clear_untrusted_headers(dict(PEER), PROXY_HEADERS, log_warning=True, logger=log)
        clear_untrusted_headers(fields(forwarded="b"), PROXY_HEADERS, logger=log)

        assert log.warnings == []


class TestWhatStaysUntrusted:
    @pytest.mark.parametrize("trusted", [None, (), set()])
    def test_is_everything_if_nothing_is_trusted(self, trusted):
        environ = fields(x_forwarded_for="192.0.2.1", forwarded="for=192.0.2.1")
        before = dict(environ)

        assert parse_proxy_headers(environ, 1, trusted) == PROXY_HEADERS
        assert environ == before

    def test_is_everything_but_the_trusted_fields(self):
        trusted = {"x-forwarded-proto", "x-forwarded-by"}

        untrusted = parse_proxy_headers(dict(PEER), 1, trusted)

        assert untrusted == PROXY_HEADERS - {"X_FORWARDED_PROTO", "X_FORWARDED_BY"}

    def test_is_everything_but_forwarded_where_it_is_trusted(self):
        """The two kinds contradict each other sooner or later, so only one is read."""
        environ = fields(forwarded="proto=https", x_forwarded_host="evil")

        untrusted = parse_proxy_headers(environ, 1, {"forwarded", *X_FORWARDED})

        assert untrusted == PROXY_HEADERS - {"FORWARDED"}
        assert environ["HTTP_HOST"] == "inner"
        assert environ["wsgi.url_scheme"] == "https"

    @pytest.mark.parametrize("trusted", [X_FORWARDED, {"forwarded"}])
    @pytest.mark.parametrize("count", [0, -1])
    def test_is_everything_if_no_proxy_counts(self, trusted, count):
        """A count of 0 once meant that every element counted."""
        environ = fields(x_forwarded_for="192.0.2.1", forwarded="for=192.0.2.1")
        before = dict(environ)

        assert parse_proxy_headers(environ, count, trusted) == PROXY_HEADERS
        assert environ == before

    def test_may_be_changed_by_the_caller(self):
        untrusted = parse_proxy_headers(dict(PEER), 1, None)
        untrusted.clear()

        assert len(PROXY_HEADERS) == 6


class TestXForwardedFor:
    @pytest.mark.parametrize(
        ("value", "address", "port"),
        [
            ("192.0.2.1", "192.0.2.1", None),
            ("192.0.2.1:4711", "192.0.2.1", "4711"),
            ("192.0.2.1:", "192.0.2.1", None),
            ("192.0.2.1:0", "192.0.2.1", "0"),
            ('"192.0.2.1"', "192.0.2.1", None),
            ("2001:db8::1", "2001:db8::1", None),
            ("2001:DB8::A", "2001:DB8::A", None),
            ("::ffff:192.0.2.1", "::ffff:192.0.2.1", None),
            ("::", "::", None),
            ("fe80::1%eth0", "fe80::1%eth0", None),
            ("[2001:db8::1]", "2001:db8::1", None),
            ("[2001:db8::1]:99", "2001:db8::1", "99"),
            ('"[2001:db8::1]:99"', "2001:db8::1", "99"),
            ("[::ffff:192.0.2.1]:99", "::ffff:192.0.2.1", "99"),
            ("[fe80::1%eth0]:99", "fe80::1%eth0", "99"),
            ("unknown", "unknown", None),
            ("_hidden", "_hidden", None),
            ("_Hidden:_Port", "_Hidden", "_Port"),
            ("client.example.com:80", "client.example.com", "80"),
            (" \t192.0.2.1\t ", "192.0.2.1", None),
        ],
    )
    def test_tells_the_address_of_the_client(self, value, address, port):
        changes = changed(x_forwarded_for=value)
        changes.pop("HTTP_X_FORWARDED_FOR", None)

        expected = {"REMOTE_ADDR": address, "REMOTE_HOST": address}
        assert changes == (expected | {"REMOTE_PORT": port} if port else expected)

    @pytest.mark.parametrize(
        ("value", "count", "kept", "client"),
        [
            ("a, b,c", 1, "c", "c"),
            ("a, b,c", 2, "b,c", "b"),
            ("a, b,c", 3, "a, b,c", "a"),
            ("a, b,c", 9, "a, b,c", "a"),
            (
                "192.0.2.1, 198.51.100.2, 203.0.113.1",
                2,
                "198.51.100.2, 203.0.113.1",
                "198.51.100.2",
            ),
            ('"a", "b"', 1, '"b"', "b"),
            ('a, "b" \t, "c" \t', 2, '"b" \t, "c"', "b"),
            ("<script>, b", 1, "b", "b"),
        ],
    )
    def test_counts_from_the_end(self, value, count, kept, client):
        environ = fields(x_forwarded_for=value)

        parse_proxy_headers(environ, count, X_FORWARDED)

        assert environ["HTTP_X_FORWARDED_FOR"] == kept
        assert environ["REMOTE_ADDR"] == client

    @pytest.mark.parametrize(("value", "kept"), [("", ""), (" ", ""), ('""', '""'), ("a,", "")])
    def test_changes_nothing_if_the_element_that_counts_is_empty(self, value, kept):
        environ = fields(x_forwarded_for=value)

        parse_proxy_headers(environ, 1, X_FORWARDED)

        assert environ == fields(x_forwarded_for=kept)

    @pytest.mark.parametrize("value", ['"', 'a"', '"a', '"a"b"', '", b', '"a, b"'])
    def test_is_refused_for_quotes_that_do_not_fit(self, value):
        expected = ("X-Forwarded-For", "Invalid quoting in value", value)

        assert refused(x_forwarded_for=value) == expected

    @pytest.mark.parametrize(
        "value",
        [
            "a b",
            "a/b",
            "<b>",
            "a@b",
            "\xa0192.0.2.1",
            "192.0.2.1:80:90",
            "2001:db8::1::2",
            "12345::",
            "::1%",
            "::1%a b",
            "::1]",
            "[::1",
            "[]",
            "[192.0.2.1]",
            "[::1]x",
            "[::1]:80:90",
            "[[::1]]",
            ":80",
            "\xb2",
        ],
    )
    def test_is_refused_for_what_is_no_address(self, value):
        assert refused(x_forwarded_for=value) == ("X-Forwarded-For", "invalid address", value)

    def test_is_refused_for_a_quoted_blank(self):
        assert refused(x_forwarded_for='" "') == ("X-Forwarded-For", "invalid address", " ")

    @pytest.mark.parametrize(
        "port", ["65536", "123456", "x", "-1", "+1", " 1", "\xb2", "_", "_ x", "_a b"]
    )
    def test_is_refused_for_what_is_no_port(self, port):
        expected = ("X-Forwarded-For", "invalid port number", port)

        assert refused(x_forwarded_for=f"192.0.2.1:{port}") == expected


class TestHostPortAndProto:
    @pytest.mark.parametrize(
        ("host", "proto", "port", "name", "http_host", "server_port"),
        [
            ("example.com", "http", "", "example.com", "example.com", "80"),
            ("example.com", "http", "8081", "example.com", "example.com:8081", "8081"),
            ("example.com:8081", "http", "", "example.com", "example.com:8081", "8081"),
            ("example.com", "https", "80", "example.com", "example.com:80", "80"),
            ("example.com", "http", "443", "example.com", "example.com:443", "443"),
            ("example.com", "https", "443", "example.com", "example.com", "443"),
            ("example.com", "https", "", "example.com", "example.com", "443"),
            ("example.com", "HTTPS", "", "example.com", "example.com", "443"),
            ("example.com", "", "", "example.com", "example.com", "8080"),
            ("example.com", "", "80", "example.com", "example.com", "80"),
            ("example.com", "", "443", "example.com", "example.com:443", "443"),
            ("example.com:443", "https", "", "example.com", "example.com:443", "443"),
            ("example.com:", "https", "", "example.com", "example.com", "443"),
            ("example.com:", "https", "81", "example.com", "example.com:81", "81"),
            ("example.com", "http", "0080", "example.com", "example.com", "80"),
            ("example.com:0081", "", "", "example.com", "example.com:0081", "81"),
            ("[::1]:81", "", "", "[::1]", "[::1]:81", "81"),
            ("[::1]", "http", "81", "[::1]", "[::1]:81", "81"),
            ("Example.COM", "http", "", "Example.COM", "Example.COM", "80"),
            ('"example.com:81"', "", "", "example.com", "example.com:81", "81"),
            # The port that the client wrote beats the one a proxy was asked at.
            ("example.com:81", "https", "443", "example.com", "example.com:81", "81"),
        ],
    )
    def test_fit_together(self, host, proto, port, name, http_host, server_port):
        environ = fields(x_forwarded_host=host, x_forwarded_proto=proto, x_forwarded_port=port)

        parse_proxy_headers(environ, 1, X_FORWARDED)

        assert environ["SERVER_NAME"] == name
        assert environ["HTTP_HOST"] == http_host
        assert environ["SERVER_PORT"] == server_port
        assert environ["wsgi.url_scheme"] == (proto.lower() or "http")

    def test_proto_alone_sets_its_port(self):
        assert changed(x_forwarded_proto="https") == {
            "wsgi.url_scheme": "https",
            "SERVER_PORT": "443",
        }

    def test_port_alone_sets_nothing_else(self):
        assert changed(x_forwarded_port='"8081"') == {"SERVER_PORT": "8081"}

    def test_host_takes_a_missing_scheme_for_none(self):
        environ = {"HTTP_X_FORWARDED_HOST": "example.com", "HTTP_X_FORWARDED_PORT": "80"}

        parse_proxy_headers(environ, 1, X_FORWARDED)

        assert environ["HTTP_HOST"] == "example.com:80"

    def test_host_counts_from_the_end(self):
        environ = fields(x_forwarded_host="evil, a,b:81")

        parse_proxy_headers(environ, 2, X_FORWARDED)

        assert environ["HTTP_X_FORWARDED_HOST"] == "a,b:81"
        assert environ["HTTP_HOST"] == "a"

    @pytest.mark.parametrize(
        ("value", "count", "kept", "scheme"),
        [
            ("http,https", 1, "https", "https"),
            ("https, http", 1, "http", "http"),
            ("https, http", 2, "https, http", "https"),
            ("http, https, http", 2, "https, http", "https"),
            ("https, http", 9, "https, http", "https"),
            ('http, "HTTPS" ', 1, '"HTTPS"', "https"),
            ("gopher, https", 1, "https", "https"),
            ("https", 2, "https", "https"),
        ],
    )
    def test_proto_counts_from_the_end(self, value, count, kept, scheme):
        """Like For and Host: the oldest value that counts knows how the client spoke."""
        environ = fields(x_forwarded_proto=value)

        parse_proxy_headers(environ, count, X_FORWARDED)

        assert environ["HTTP_X_FORWARDED_PROTO"] == kept
        assert environ["wsgi.url_scheme"] == scheme
        assert environ["SERVER_PORT"] == {"http": "80", "https": "443"}[scheme]

    @pytest.mark.parametrize(("value", "kept"), [("https,", ""), ("https, ,http", ",http")])
    def test_proto_that_counts_may_be_empty(self, value, kept):
        count = 2 if value.endswith("http") else 1

        assert changed(X_FORWARDED, count, x_forwarded_proto=value) == {
            "HTTP_X_FORWARDED_PROTO": kept
        }

    @pytest.mark.parametrize(
        ("value", "reason", "told"),
        [
            ("https, gopher", "unsupported proto value", "gopher"),
            ('https, "http', "Invalid quoting in value", 'https, "http'),
            ('"http", https"', "Invalid quoting in value", '"http", https"'),
            ('"https,http"', "Invalid quoting in value", '"https,http"'),
        ],
    )
    def test_proto_of_several_values_is_judged_too(self, value, reason, told):
        assert refused(x_forwarded_proto=value) == ("X-Forwarded-Proto", reason, told)

    def test_by_only_stays(self):
        assert changed(x_forwarded_by="anything at all") == {}

    @pytest.mark.parametrize("trusted", sorted(X_FORWARDED))
    def test_fields_that_are_not_trusted_change_nothing(self, trusted):
        values = {
            "x_forwarded_for": "192.0.2.1",
            "x_forwarded_host": "example.com",
            "x_forwarded_proto": "https",
            "x_forwarded_port": "81",
        }
        values.pop(trusted.replace("-", "_"), None)

        assert changed({trusted}, **values) == {}

    @pytest.mark.parametrize("value", ["gopher", " https", "https ", "http:", "\u017f"])
    def test_proto_is_refused_unless_known(self, value):
        expected = ("X-Forwarded-Proto", "unsupported proto value", value)

        assert refused(x_forwarded_proto=value) == expected

    @pytest.mark.parametrize(
        "value", ["x", "80x", "-80", "+80", "8 0", " 80", "65536", "0x50", "\xb2"]
    )
    def test_port_is_refused_unless_a_number(self, value):
        expected = ("X-Forwarded-Port", "invalid port number", value)

        assert refused(x_forwarded_port=value) == expected

    @pytest.mark.parametrize(
        "value",
        [
            "a b",
            "user@example.com",
            "example.com/path",
            "example.com?",
            "example.com#",
            "a\\b",
            "<b>",
            "2001:db8::1",
            "::1]",
            "[::1",
            "[::1]x",
            "a:80:90",
            ":80",
            "example.com:80x",
            "example.com:123456",
            "\xe9.example.com",
        ],
    )
    def test_host_is_refused_if_no_host_is_written_so(self, value):
        assert refused(x_forwarded_host=value) == ("X-Forwarded-Host", "invalid host", value)

    def test_host_is_refused_for_a_port_out_of_range(self):
        expected = ("X-Forwarded-Host", "invalid port number", "65536")

        assert refused(x_forwarded_host="example.com:65536") == expected

    def test_several_ports_are_refused(self):
        expected = (
            "X-Forwarded-Port",
            "Unspecified behavior for multiple values found in header",
            "80,443",
        )

        assert refused(x_forwarded_port="80,443") == expected

    @pytest.mark.parametrize("name", ["Host", "Proto", "Port"])
    def test_quotes_that_do_not_fit_are_refused(self, name):
        expected = (f"X-Forwarded-{name}", "Invalid quoting in value", '"81')

        assert refused(**{f"x_forwarded_{name.lower()}": '"81'}) == expected

    def test_error_leaves_the_list_fields_as_they_were(self):
        refused(x_forwarded_for="a, 192.0.2.1", x_forwarded_port="x")


class TestForwarded:
    def test_tells_client_host_and_scheme(self):
        value = 'For="[2001:db8::1]:4711";HOST="Example.com:81";proto=HTTPS;by=203.0.113.43'

        assert forwarded(value) == {
            "REMOTE_ADDR": "2001:db8::1",
            "REMOTE_HOST": "2001:db8::1",
            "REMOTE_PORT": "4711",
            "SERVER_NAME": "Example.com",
            "SERVER_PORT": "81",
            "HTTP_HOST": "Example.com:81",
            "wsgi.url_scheme": "https",
        }

    @pytest.mark.parametrize(
        ("node", "address"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ('"192.0.2.1"', "192.0.2.1"),
            ('"[2001:db8:cafe::17]"', "2001:db8:cafe::17"),
            # Not quoted as they should be, but what else could they mean?
            ("[2001:db8::1]", "2001:db8::1"),
            ("2001:db8::1", "2001:db8::1"),
            ("unknown", "unknown"),
            ("_SEVKISEK", "_SEVKISEK"),
            ('"_gazonk:_port"', "_gazonk"),
            ('"\\1\\92.0.2.1"', "192.0.2.1"),
        ],
    )
    def test_knows_all_kinds_of_nodes(self, node, address):
        assert forwarded(f"for={node}")["REMOTE_ADDR"] == address

    @pytest.mark.parametrize(
        "value", ["", ";", ";;", ",", "for=", 'for="";host="";proto=""', "by=192.0.2.1"]
    )
    def test_changes_nothing_where_it_says_nothing(self, value):
        assert forwarded(value) == {}

    def test_changes_nothing_where_it_is_missing(self):
        assert changed({"forwarded"}, x_forwarded_for="192.0.2.1") == {}

    def test_does_not_end_an_element_inside_quotes(self):
        value = 'for=a, for="192.0.2.1";ext="x, for=evil";host="b,c", for=d;by="_;_"'

        assert forwarded(value, 1)["REMOTE_ADDR"] == "d"
        assert forwarded(value, 2) == {
            "REMOTE_ADDR": "192.0.2.1",
            "REMOTE_HOST": "192.0.2.1",
            "SERVER_NAME": "b,c",
            "HTTP_HOST": "b,c",
        }

    def test_does_not_end_quotes_at_an_escaped_one(self):
        value = 'ext="\\", for=evil";for=a'

        assert forwarded(value, 1)["REMOTE_ADDR"] == "a"
        assert forwarded(value, 2)["REMOTE_ADDR"] == "a"

    def test_takes_the_last_of_a_name_within_an_element(self):
        assert forwarded("for=a;For=b")["REMOTE_ADDR"] == "b"

    @pytest.mark.parametrize(
        ("count", "client", "host", "kept"),
        [
            (1, "c", "inner", "for=c"),
            (2, "b", "b.example", "for=b;host=b.example,for=c"),
            (3, "b", "a.example", "host=a.example , for=b;host=b.example,for=c"),
            (4, "e", "a.example", "for=e, host=a.example , for=b;host=b.example,for=c"),
            (9, "e", "a.example", "for=e, host=a.example , for=b;host=b.example,for=c"),
        ],
    )
    def test_believes_the_oldest_element_that_counts(self, count, client, host, kept):
        environ = fields(forwarded="for=e, host=a.example , for=b;host=b.example,for=c")

        parse_proxy_headers(environ, count, {"forwarded"})

        assert environ["REMOTE_ADDR"] == client
        assert environ["HTTP_HOST"] == host
        assert environ["HTTP_FORWARDED"] == kept

    def test_takes_each_fact_from_the_oldest_that_tells_it(self):
        changes = forwarded("proto=https;by=a, for=b , for=c;host=d;proto=http \t", 3)

        assert (changes["REMOTE_ADDR"], changes["HTTP_HOST"]) == ("b", "d")
        assert changes["wsgi.url_scheme"] == "https"

    def test_takes_the_scheme_of_a_newer_element_where_the_older_tells_none(self):
        assert forwarded("for=a, proto=https", 2)["wsgi.url_scheme"] == "https"

    def test_is_kept_without_white_space_around(self):
        assert changed({"forwarded"}, 1, forwarded="for=a, for=b \t")["HTTP_FORWARDED"] == "for=b"

    def test_counts_an_empty_element(self):
        """The proxy said nothing; that is no reason to believe the client instead."""
        assert forwarded("for=evil, ") == {}
        assert forwarded("for=evil,;", 1) == {}

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            ("for", 'Invalid forwarded-pair missing "="'),
            ("for=a; ;proto=http", 'Invalid forwarded-pair missing "="'),
            ("bad, for=a", 'Invalid forwarded-pair missing "="'),
            ('"for=a"', "Invalid token"),
            ("=a", "Invalid token"),
            ("fo r=a", "Invalid token"),
            ("f\xf6r=a", "Invalid token"),
            ("for =a", "Token may not be surrounded by whitespace"),
            ("for=a; proto=https", "Token may not be surrounded by whitespace"),
            ("for=\ta", "Value may not be surrounded by whitespace"),
            ("for=a ;proto=http", "Value may not be surrounded by whitespace"),
            ('for="a', "Invalid quoting in value"),
            ('for=a"', "Invalid quoting in value"),
            ('for="a"b"', "Invalid quoting in value"),
            ('for="a"b', "Invalid quoting in value"),
            ('for="a\\', "Invalid quoting in value"),
            ('for="a, for=b', "Invalid quoting in value"),
            ('for=a"b"c', "Invalid quoting in value"),
        ],
    )
    def test_is_refused_where_the_grammar_is_broken(self, value, reason):
        assert refused({"forwarded"}, forwarded=value) == ("Forwarded", reason, value)

    @pytest.mark.parametrize(
        "sent",
        [
            'for="',
            'for="a',
            'x="',
            'x="a',
            'x=a"',
            'x=a"b',
            'x"',
            '"',
            'x="a\\',
            'x="a\\"',
            'x="";y="',
        ],
    )
    @pytest.mark.parametrize(
        "appended",
        ["for=192.0.2.1", 'for="192.0.2.1:80"', 'for="192.0.2.1:80";proto="http"', 'for=""'],
    )
    def test_quotes_that_a_client_left_open_do_not_take_in_the_next_element(self, sent, appended):
        reason = refused({"forwarded"}, forwarded=f"{sent}, {appended}")[1]

        assert reason in (
            "Invalid quoting in value",
            "Invalid token",
            'Invalid forwarded-pair missing "="',
        )

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("proto=ftp", ("Forwarded Proto=", "unsupported proto value", "ftp")),
            ("for=a/b", ("Forwarded For=", "invalid address", "a/b")),
            ("for=\xa0a", ("Forwarded For=", "invalid address", "\xa0a")),
            ('for="[::1]:x"', ("Forwarded For=", "invalid port number", "x")),
            ('host="a b"', ("Forwarded Host=", "invalid host", "a b")),
            ("host=a:65536", ("Forwarded Host=", "invalid port number", "65536")),
        ],
    )
    def test_is_refused_where_it_says_what_cannot_be(self, value, expected):
        assert refused({"forwarded"}, forwarded=value) == expected

    def test_tells_of_unknown_parameters_and_ignores_them(self):
        log = ListLogger()
        environ = fields(forwarded='Secret="x;y";for=192.0.2.1;z=')

        parse_proxy_headers(environ, 1, {"forwarded"}, log)

        assert environ["REMOTE_ADDR"] == "192.0.2.1"
        assert log.warnings == ["Unknown Forwarded token: secret", "Unknown Forwarded token: z"]

    def test_tells_nothing_of_elements_that_do_not_count(self):
        """Whoever may write them could fill the log."""
        log = ListLogger()

        parse_proxy_headers(fields(forwarded="a=1, b=2, c=3"), 2, {"forwarded"}, log)

        assert log.warnings == ["Unknown Forwarded token: b", "Unknown Forwarded token: c"]


class TestNames:
    def test_an_element_has_four_parts(self):
        element = proxy_headers.Forwarded("a", "b", "c", "d")

        assert (element.by, element.for_, element.host, element.proto) == ("a", "b", "c", "d")

    @pytest.mark.parametrize(
        ("address", "expected"),
        [
            ("[::1]", "::1"),
            ("::1", "::1"),
            ("[::1", "[::1"),
            ("::1]", "::1]"),
            ("", ""),
            ("a", "a"),
        ],
    )
    def test_strip_brackets_takes_away_a_pair(self, address, expected):
        assert proxy_headers.strip_brackets(address) == expected

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("BadRequest", utilities.BadRequest),
            ("logger", utilities.logger),
            ("namedtuple", namedtuple),
            ("undquote", utilities.undquote),
        ],
    )
    def test_those_that_users_import_are_there(self, name, expected):
        assert getattr(proxy_headers, name) is expected


# Text that reaches deep into the grammar far more often than any text would.
WORDS = ["for", "host", "proto", "192.0.2.1", "::1", "example.com", "_a", "80", "65536", "http"]
PIECES = st.lists(st.sampled_from([*WORDS, *'=;,"\\[]:%/ \t\xa0\xff']), max_size=20).map("".join)


class TestAnyInput:
    @given(value=PIECES, count=st.integers(1, 3), is_forwarded=st.booleans())
    def test_is_either_understood_or_malformed(self, value, count, is_forwarded):
        names = ["forwarded"] if is_forwarded else sorted(X_FORWARDED)
        environ = fields(**{name.replace("-", "_"): value for name in names})

        try:
            parse_proxy_headers(environ, count, set(names), ListLogger())
        except MalformedProxyHeader:
            return

        assert environ["wsgi.url_scheme"] in ("http", "https")
        assert 0 <= int(environ["SERVER_PORT"]) <= 65535
        for key in ("REMOTE_ADDR", "HTTP_HOST", "SERVER_NAME"):
            assert environ[key]
            assert not set(environ[key]) & set(' \t"/\\\xa0\xff')
        assert not set(environ["REMOTE_ADDR"]) & set("[]")

    @given(values=st.dictionaries(st.sampled_from(sorted(PROXY_HEADERS)), st.text()))
    def test_of_an_untrusted_peer_leaves_no_trace(self, values):
        app = App()
        environ = fields(**values)

        proxy_headers_middleware(app, "127.0.0.2", 1, X_FORWARDED)(environ, None)

        assert app.environs == [PEER]

    @pytest.mark.parametrize(
        "value",
        [
            '"' * 1_000_001,
            'for="' + "a" * 1_000_000,
            'for="' + "\\" * 1_000_001,
            'for="a' * 250_000,
            'a="' + '\\"' * 500_000,
            "for=a," * 50_000,
            ";" * 1_000_000,
            "," * 300_000,
            "for=" + "a" * 1_000_000 + "/",
            "for=" + ":" * 1_000_000,
            "for=[" + ":" * 1_000_000,
            "for=[::1%" + "a" * 1_000_000,
            "for=a:" + "1" * 1_000_000,
            "host=" + "%41" * 300_000 + "/",
            "host=a:" + "1" * 1_000_000,
        ],
        ids=lambda value: value[:8],
    )
    def test_takes_time_by_its_length_only(self, value):
        """Quadratic work on a million characters would run into the suite's time-out."""
        for name in ("forwarded", *X_FORWARDED):
            app = App()
            environ = fields(**{name.replace("-", "_"): value})
            middleware = proxy_headers_middleware(app, "*", 1, {name}, logger=ListLogger())
            [body] = middleware(environ, lambda status, headers: None)
            assert body.endswith((b"from the application", b"(generated by server)"))
