from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest

from waitress import adjustments
from waitress.adjustments import (
    SETTINGS,
    Adjustments,
    Setting,
)
from waitress.compat import HAS_IPV6

unix_only = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs Unix sockets")
ipv6_only = pytest.mark.skipif(not HAS_IPV6, reason="needs IPv6")


def addresses(adj: Adjustments) -> list[Any]:
    return [sockaddr[:2] for _, _, _, sockaddr in adj.listen]


def setting(name: str) -> Setting:
    (found,) = (setting for setting in SETTINGS if setting.name == name)
    return found


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Answer every look-up with one address; collect what was asked."""
    asked: list[tuple[Any, ...]] = []

    def getaddrinfo(*args: Any) -> list[Any]:
        asked.append(args)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", len(asked)))]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


class TestParameters:
    def test_is_declared_once_for_attributes_and_parameters(self) -> None:
        names = [setting.name for setting in SETTINGS]
        assert len(names) == len(set(names))
        assert sorted(names) == sorted(Adjustments._param_map)
        assert set(names) | {"socket_options"} == set(Adjustments.__annotations__)
        for declared in SETTINGS:
            assert getattr(Adjustments, declared.name) == declared.default
            assert Adjustments._param_map[declared.name] is declared.converter
        assert dict(Adjustments._params) == Adjustments._param_map

    def test_keeps_the_order_of_the_older_parameters(self) -> None:
        names = [name for name, _ in Adjustments._params]
        assert names[:6] == ["host", "port", "ipv4", "ipv6", "listen", "threads"]
        assert names[29:34] == [
            "unix_socket",
            "unix_socket_perms",
            "sockets",
            "channel_request_lookahead",
            "server_name",
        ]
        assert names[34:] == [
            "proxy_protocol",
            "access_log",
            "access_log_format",
            "reuse_port",
            "spool_dir",
            "spool_limit",
            "max_buffered_bytes",
            "queue_limit",
            "queue_timeout",
            "fair_queue",
            "connection_limit_per_ip",
            "header_timeout",
            "body_timeout",
            "body_min_rate",
            "send_timeout",
            "linger_timeout",
            "graceful_timeout",
            "drain_delay",
            "handle_signals",
            "stuck_request_seconds",
            "replace_stuck_threads",
            "kill_stuck_seconds",
            "recent_requests",
            "max_request_header_fields",
            "require_host",
            "timeline_environ",
            "switch_interval",
            "status_listen",
            "status_public",
            "status_hosts",
            "health_prefix",
            "on_event",
        ]


class TestDefaults:
    def test_are_the_documented_ones(self) -> None:
        adj = Adjustments()
        assert (adj.host, adj.port) == ("0.0.0.0", 8080)
        assert addresses(adj) == [("0.0.0.0", 8080)]
        assert (adj.ipv4, adj.ipv6, adj.threads) == (True, True, 4)
        assert adj.trusted_proxy is None
        assert adj.trusted_proxy_count == 1
        assert adj.trusted_proxy_headers == set()
        assert adj.log_untrusted_proxy_headers is False
        assert adj.clear_untrusted_proxy_headers is True
        assert (adj.url_scheme, adj.url_prefix, adj.server_name) == (
            "http",
            "",
            "waitress.invalid",
        )
        assert (adj.backlog, adj.recv_bytes, adj.send_bytes) == (1024, 8192, 1)
        assert adj.outbuf_overflow == 1048576
        assert adj.outbuf_high_watermark == 16777216
        assert adj.inbuf_overflow == 524288
        assert (adj.cleanup_interval, adj.channel_timeout) == (30, 120)
        assert (adj.log_socket_errors, adj.expose_tracebacks) == (True, False)
        assert (adj.max_request_header_size, adj.max_request_body_size) == (262144, 1073741824)
        assert adj.ident == "waitress"
        assert (adj.asyncore_loop_timeout, adj.asyncore_use_poll) == (1, False)
        assert (adj.unix_socket, adj.unix_socket_perms, adj.sockets) == (None, 0o600, [])
        assert adj.channel_request_lookahead == 0
        assert adj.socket_options == [(socket.SOL_TCP, socket.TCP_NODELAY, 1)]

    def test_of_the_deadlines_and_limits(self) -> None:
        adj = Adjustments()
        assert (adj.header_timeout, adj.body_timeout, adj.body_min_rate) == (30, 60, 240)
        assert (adj.send_timeout, adj.linger_timeout) == (120, 30)
        assert (adj.require_host, adj.max_request_header_fields) == (True, 200)
        assert (adj.spool_dir, adj.spool_limit) == (None, None)
        assert (adj.proxy_protocol, adj.connection_limit_per_ip) == (False, 0)

    def test_of_the_connection_limit_can_be_told_from_the_same_number(self) -> None:
        assert Adjustments().connection_limit == 1000
        assert isinstance(Adjustments().connection_limit, adjustments._int_marker)
        assert type(Adjustments(connection_limit=1000).connection_limit) is int

    def test_of_the_class_survive_instances(self) -> None:
        adj = Adjustments(port=9, threads=9)
        adj.socket_options.append((1, 2, 3))
        adj.sockets.append(None)  # type: ignore[arg-type]
        adj.trusted_proxy_headers.add("x")
        assert (Adjustments.port, Adjustments.threads) == (8080, 4)
        assert Adjustments.socket_options == [(socket.SOL_TCP, socket.TCP_NODELAY, 1)]
        assert Adjustments.sockets == []
        assert Adjustments.trusted_proxy_headers == set()
        assert list(map(str, Adjustments.listen)) == ["0.0.0.0:8080"]
        assert Adjustments.trusted_proxy_count is None

    def test_may_be_changed_by_a_subclass(self) -> None:
        class Mine(Adjustments):
            host = "127.0.0.1"
            threads = 9
            trusted_proxy_count = 3

        adj = Mine()
        assert addresses(adj) == [("127.0.0.1", 8080)]
        assert (adj.threads, adj.trusted_proxy_count) == (9, 3)

    def test_a_subclass_may_add_parameters(self) -> None:
        class Mine(Adjustments):
            _params = (*Adjustments._params, ("colour", int))
            _param_map = dict(_params)

        assert Mine(colour="3").colour == 3  # type: ignore[attr-defined]
        assert Mine.parse_args(["--colour=3", "--help"])["colour"] == "3"
        with pytest.raises(ValueError, match=r"^invalid literal .* \(colour='red'\)$"):
            Mine(colour="red")


class TestConversion:
    def test_takes_text_for_everything(self, tmp_path: Path) -> None:
        adj = Adjustments(
            host="127.0.0.1",
            port="8081",
            ipv4="true",
            ipv6="no",
            threads="5",
            trusted_proxy="192.0.2.1, 10.0.0.0/8",
            proxy_protocol="yes",
            trusted_proxy_headers="X-Forwarded-For x-forwarded-host",
            trusted_proxy_count="2",
            log_untrusted_proxy_headers="on",
            clear_untrusted_proxy_headers="off",
            url_scheme="https",
            url_prefix="///foo/",
            backlog="20",
            recv_bytes="200",
            outbuf_overflow="400",
            outbuf_high_watermark="410",
            inbuf_overflow="500",
            connection_limit="1000",
            connection_limit_per_ip="20",
            cleanup_interval="1100",
            channel_timeout="1200.5",
            log_socket_errors="false",
            max_request_header_size="1300",
            max_request_body_size="1400",
            expose_tracebacks="true",
            ident="abc",
            asyncore_loop_timeout="0.5",
            asyncore_use_poll="1",
            unix_socket_perms="777",
            channel_request_lookahead="3",
            server_name="example.com",
            spool_dir=str(tmp_path),
            spool_limit="600",
            header_timeout="1.5",
            body_timeout="2",
            body_min_rate="0",
            send_timeout="3",
            linger_timeout="4",
            require_host="no",
            max_request_header_fields="50",
        )
        assert addresses(adj) == [("127.0.0.1", 8081)]
        assert (adj.host, adj.port) == ("127.0.0.1", 8081)
        assert (adj.ipv4, adj.ipv6, adj.threads) == (True, False, 5)
        assert adj.trusted_proxy == "192.0.2.1 10.0.0.0/8"
        assert (adj.proxy_protocol, adj.connection_limit_per_ip) == (True, 20)
        assert adj.trusted_proxy_headers == {"x-forwarded-for", "x-forwarded-host"}
        assert adj.trusted_proxy_count == 2
        assert (adj.log_untrusted_proxy_headers, adj.clear_untrusted_proxy_headers) == (True, False)
        assert (adj.url_scheme, adj.url_prefix) == ("https", "/foo")
        assert (adj.backlog, adj.recv_bytes) == (20, 200)
        assert (adj.outbuf_overflow, adj.outbuf_high_watermark) == (400, 410)
        assert (adj.inbuf_overflow, adj.connection_limit) == (500, 1000)
        assert (adj.cleanup_interval, adj.channel_timeout) == (1100, 1200.5)
        assert (adj.log_socket_errors, adj.expose_tracebacks) == (False, True)
        assert (adj.max_request_header_size, adj.max_request_body_size) == (1300, 1400)
        assert adj.ident == "abc"
        assert (adj.asyncore_loop_timeout, adj.asyncore_use_poll) == (0.5, True)
        assert adj.unix_socket_perms == 0o777
        assert (adj.channel_request_lookahead, adj.server_name) == (3, "example.com")
        assert (adj.spool_dir, adj.spool_limit) == (str(tmp_path), 600)
        assert (adj.header_timeout, adj.body_timeout, adj.body_min_rate) == (1.5, 2, 0)
        assert (adj.send_timeout, adj.linger_timeout) == (3, 4)
        assert (adj.require_host, adj.max_request_header_fields) == (False, 50)

    @pytest.mark.parametrize("ident", [None, ""])
    def test_an_empty_ident_is_none(self, ident: str | None) -> None:
        assert Adjustments(ident=ident).ident is None

    def test_refuses_an_unknown_name(self) -> None:
        with pytest.raises(ValueError, match=r"^Unknown adjustment 'nope'$"):
            Adjustments(nope=1)

    def test_socket_options_are_no_parameter(self) -> None:
        with pytest.raises(ValueError, match="Unknown adjustment 'socket_options'"):
            Adjustments(socket_options=[])

    @pytest.mark.parametrize(
        ("kw", "error", "text"),
        [
            (
                {"port": "http"},
                ValueError,
                "invalid literal for int() with base 10: 'http' "
                "(port='http'; allowed: a whole number, 0 to 65535)",
            ),
            (
                {"threads": math.inf},
                ValueError,
                "cannot convert float infinity to integer "
                "(threads=inf; allowed: a whole number, 1 or more)",
            ),
            (
                {"unix_socket_perms": 600},
                TypeError,
                "int() can't convert non-string with explicit base "
                '(unix_socket_perms=600; allowed: octal digits as text, such as "600")',
            ),
            (
                {"trusted_proxy": "10.0.0.1/8"},
                ValueError,
                "10.0.0.1/8 has host bits set (trusted_proxy='10.0.0.1/8'; "
                "allowed: IP addresses and CIDR ranges, between blanks or commas; *; localhost)",
            ),
            (
                {"trusted_proxy": ["::1", "192.0.2.300"]},
                ValueError,
                "'192.0.2.300' is neither an IP address nor a range of them "
                "(trusted_proxy=['::1', '192.0.2.300']; "
                "allowed: IP addresses and CIDR ranges, between blanks or commas; *; localhost)",
            ),
            (
                {"url_prefix": None},
                TypeError,
                "'NoneType' object has no attribute 'strip' (url_prefix=None; allowed: any text)",
            ),
        ],
    )
    def test_tells_option_value_and_what_is_allowed(
        self, kw: dict[str, Any], error: type[Exception], text: str
    ) -> None:
        with pytest.raises(error) as caught:
            Adjustments(**kw)
        assert type(caught.value) is error
        assert str(caught.value) == text

    def test_send_bytes_is_deprecated(self) -> None:
        text = "send_bytes will be removed in a future release"
        with pytest.warns(DeprecationWarning, match=text) as caught:
            adj = Adjustments(send_bytes=300)
        assert adj.send_bytes == 300
        assert caught[0].filename == __file__


class TestRanges:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("port", -1),
            ("port", 65536),
            ("threads", 0),
            ("trusted_proxy_count", 0),
            ("backlog", -1),
            ("backlog", 2**31),
            ("recv_bytes", 0),
            ("recv_bytes", 2**31),
            ("outbuf_overflow", -1),
            ("outbuf_high_watermark", -1),
            ("inbuf_overflow", -1),
            ("spool_limit", -1),
            ("connection_limit", 0),
            ("connection_limit_per_ip", -1),
            ("cleanup_interval", -1),
            ("channel_timeout", -0.5),
            ("channel_timeout", math.nan),
            ("channel_timeout", math.inf),
            ("header_timeout", -1),
            ("body_timeout", -1),
            ("body_min_rate", "-1"),
            ("body_min_rate", "nan"),
            ("send_timeout", -1),
            ("linger_timeout", -1),
            ("asyncore_loop_timeout", -1),
            ("asyncore_loop_timeout", 2_147_484),
            ("channel_request_lookahead", -1),
            ("max_request_header_size", 0),
            ("max_request_header_fields", 0),
            ("max_request_body_size", 0),
            ("unix_socket_perms", "-1"),
            ("unix_socket_perms", "10000"),
            ("listen", ""),
            ("listen", []),
            ("ident", "a\r\nX: b"),
            ("ident", "\u20ac"),
        ],
    )
    def test_refuse_what_lies_outside(self, name: str, value: Any) -> None:
        with pytest.raises(ValueError) as caught:
            Adjustments(trusted_proxy="*", trusted_proxy_headers="forwarded", **{name: value})
        assert str(caught.value) == (
            f"Invalid value for {name} ({name}={value!r}; allowed: {setting(name).check.text})"
        )

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("port", 0),
            ("port", 65535),
            ("threads", 1),
            ("backlog", 0),
            ("recv_bytes", 1),
            ("outbuf_overflow", 0),
            ("outbuf_high_watermark", 0),
            ("inbuf_overflow", 0),
            ("spool_limit", 0),
            ("spool_limit", None),
            ("connection_limit", 1),
            ("connection_limit_per_ip", 0),
            ("cleanup_interval", 0),
            ("channel_timeout", 0),
            ("header_timeout", 0),
            ("body_timeout", 0),
            ("body_min_rate", 0),
            ("send_timeout", 0),
            ("linger_timeout", 0),
            ("asyncore_loop_timeout", 0),
            ("asyncore_loop_timeout", 2_147_483),
            ("channel_request_lookahead", 0),
            ("max_request_header_size", 1),
            ("max_request_header_fields", 1),
            ("max_request_body_size", 1),
            ("ident", "caf\xe9 1.0"),
        ],
    )
    def test_accept_their_ends(self, name: str, value: Any) -> None:
        assert getattr(Adjustments(**{name: value}), name) == value

    def test_tell_what_is_allowed(self) -> None:
        assert setting("threads").check.text == "a whole number, 1 or more"
        assert setting("port").check.text == "a whole number, 0 to 65535"
        assert setting("send_timeout").check.text == "a number of seconds, 0 or more (0: no limit)"
        assert setting("asyncore_loop_timeout").check.text == (
            "a number of seconds, 0 to 2147483 (0: never sleep)"
        )


class TestCombinations:
    @pytest.mark.parametrize(
        ("kw", "text"),
        [
            (
                {"listen": "a:1", "host": "a"},
                "host or port may not be set if listen is set.",
            ),
            (
                {"listen": "a:1", "port": 1},
                "host or port may not be set if listen is set.",
            ),
            (
                {"listen": "a:1", "sockets": []},
                "socket may not be set if listen is set.",
            ),
            (
                {"sockets": [], "host": "a"},
                "host or port may not be set if sockets is set.",
            ),
            (
                {"sockets": [], "port": 1},
                "host or port may not be set if sockets is set.",
            ),
            (
                {"sockets": [], "unix_socket": "a"},
                "unix_socket may not be set if sockets is set",
            ),
            (
                {"unix_socket": "a", "host": "a"},
                "unix_socket may not be set if host or port is set",
            ),
            (
                {"unix_socket": "a", "port": 1},
                "unix_socket may not be set if host or port is set",
            ),
            (
                {"unix_socket": "a", "listen": "a:1"},
                "unix_socket may not be set if listen is set",
            ),
        ],
    )
    def test_that_contradict_are_refused(self, kw: dict[str, Any], text: str) -> None:
        with pytest.raises(ValueError) as caught:
            Adjustments(**kw)
        assert str(caught.value) == text

    def test_ipv4_may_not_be_off_where_there_is_no_ipv6(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adjustments, "HAS_IPV6", False)
        with pytest.raises(ValueError) as caught:
            Adjustments(ipv4=False)
        assert str(caught.value) == (
            "IPv4 is disabled but IPv6 is not available. Cowardly refusing to start."
        )

    def test_a_unix_socket_leaves_listen_at_its_default(self) -> None:
        adj = Adjustments(unix_socket="/tmp/x.sock")
        assert adj.unix_socket == "/tmp/x.sock"
        assert addresses(adj) == [("0.0.0.0", 8080)]


class TestProxyTrust:
    @pytest.mark.parametrize("trusted_proxy", [{}, {"trusted_proxy": ""}])
    def test_a_count_needs_a_proxy(self, trusted_proxy: dict[str, str]) -> None:
        with pytest.raises(
            ValueError, match=r"^trusted_proxy_count has no meaning without setting trusted_proxy$"
        ):
            Adjustments(trusted_proxy_count=1, **trusted_proxy)

    def test_headers_need_a_proxy(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"^trusted_proxy_headers has no meaning without setting trusted_proxy$",
        ):
            Adjustments(trusted_proxy_headers="forwarded")

    def test_the_proxy_protocol_needs_a_proxy(self) -> None:
        with pytest.raises(
            ValueError, match=r"^proxy_protocol has no meaning without setting trusted_proxy$"
        ):
            Adjustments(proxy_protocol=True)

    def test_the_proxy_protocol_may_be_off_without_a_proxy(self) -> None:
        assert Adjustments(proxy_protocol="no").proxy_protocol is False

    def test_the_proxy_protocol_makes_no_headers_trusted(self) -> None:
        """They would be those of the proxy's clients."""
        adj = Adjustments(trusted_proxy="192.0.2.1", proxy_protocol=True)
        assert adj.trusted_proxy_headers == set()
        adj = Adjustments(
            trusted_proxy="*", proxy_protocol=True, trusted_proxy_headers="x-forwarded-for"
        )
        assert adj.trusted_proxy_headers == {"x-forwarded-for"}

    def test_no_headers_need_no_proxy(self) -> None:
        assert Adjustments(trusted_proxy_headers="").trusted_proxy_headers == set()

    def test_the_other_settings_need_no_proxy(self) -> None:
        adj = Adjustments(clear_untrusted_proxy_headers=False, log_untrusted_proxy_headers=True)
        assert (adj.clear_untrusted_proxy_headers, adj.log_untrusted_proxy_headers) == (False, True)

    def test_unknown_headers_are_named_beside_the_known(self) -> None:
        with pytest.raises(ValueError) as caught:
            Adjustments(trusted_proxy="*", trusted_proxy_headers="b forwarded A")
        assert str(caught.value) == (
            "Received unknown trusted_proxy_headers value (a, b) expected one of forwarded, "
            "x-forwarded-by, x-forwarded-for, x-forwarded-host, x-forwarded-port, "
            "x-forwarded-proto"
        )

    def test_forwarded_stands_alone(self) -> None:
        with pytest.raises(ValueError) as caught:
            Adjustments(trusted_proxy="*", trusted_proxy_headers=["forwarded", "x-forwarded-for"])
        assert str(caught.value) == (
            "The Forwarded proxy header and the X-Forwarded-{By,Host,Proto,Port,For} headers are "
            "mutually exclusive. Can't trust both!"
        )

    def test_forwarded_may_be_trusted(self) -> None:
        adj = Adjustments(trusted_proxy="localhost", trusted_proxy_headers="Forwarded")
        assert adj.trusted_proxy_headers == {"forwarded"}

    def test_without_headers_trusts_the_protocol_and_warns(self) -> None:
        with pytest.warns(DeprecationWarning, match="No proxy headers") as caught:
            adj = Adjustments(trusted_proxy="192.0.2.1")
        assert adj.trusted_proxy_headers == {"x-forwarded-proto"}
        assert str(caught[0].message) == (
            "No proxy headers were marked as trusted, but trusted_proxy was set. Implicitly "
            "trusting X-Forwarded-Proto for backwards compatibility. This will be removed in "
            "future versions of waitress."
        )
        assert caught[0].filename == __file__


class TestListen:
    def test_host_alone_has_the_default_port(self) -> None:
        assert addresses(Adjustments(host="127.0.0.1")) == [("127.0.0.1", 8080)]

    def test_port_alone_has_the_default_host(self) -> None:
        adj = Adjustments(port=0)
        assert addresses(adj) == [("0.0.0.0", 0)]
        assert (adj.host, adj.port) == ("0.0.0.0", 0)

    def test_is_a_list_of_what_a_socket_needs(self) -> None:
        (item,) = Adjustments(listen="127.0.0.1:80").listen
        assert item == (
            socket.AF_INET,
            socket.SOCK_STREAM,
            socket.IPPROTO_TCP,
            ("127.0.0.1", 80),
        )

    @pytest.mark.parametrize(
        ("listen", "expected"),
        [
            ("127.0.0.1", [("127.0.0.1", 8080)]),
            ("127.0.0.1:", [("127.0.0.1", 0)]),
            ("127.0.0.1:1 127.0.0.1:2", [("127.0.0.1", 1), ("127.0.0.1", 2)]),
            (["127.0.0.1:1 127.0.0.2:1", "127.0.0.3:1"], [(f"127.0.0.{n}", 1) for n in (1, 2, 3)]),
            ("127.0.0.1:1 127.0.0.1:1", [("127.0.0.1", 1)]),
            ("127.0.0.1:0 127.0.0.1:0", [("127.0.0.1", 0)] * 2),
        ],
    )
    def test_reads_every_form(self, listen: Any, expected: list[Any]) -> None:
        assert addresses(Adjustments(listen=listen, ipv6=False)) == expected

    @ipv6_only
    @pytest.mark.parametrize(
        ("kw", "expected"),
        [
            ({"listen": "[::1]:1"}, ("::1", 1)),
            ({"listen": "[::1]"}, ("::1", 8080)),
            ({"host": "::1"}, ("::1", 8080)),
            ({"host": "[::1]", "port": 1}, ("::1", 1)),
        ],
    )
    def test_reads_every_form_of_ipv6(self, kw: dict[str, Any], expected: Any) -> None:
        adj = Adjustments(**kw)
        assert addresses(adj) == [expected]
        assert adj.listen[0][0] == socket.AF_INET6
        assert len(adj.listen[0][3]) == 4

    @ipv6_only
    def test_an_asterisk_is_every_interface_of_both_families(self) -> None:
        assert sorted(addresses(Adjustments(listen="*:1"))) == [("0.0.0.0", 1), ("::", 1)]
        assert addresses(Adjustments(listen="*:1", ipv6=False)) == [("0.0.0.0", 1)]
        assert addresses(Adjustments(listen="*:1", ipv4=False)) == [("::", 1)]
        assert len(Adjustments(listen="*:1", ipv4=False, ipv6=False).listen) == 2

    @pytest.mark.parametrize(
        ("ipv4", "ipv6", "has_ipv6", "family"),
        [
            (True, True, True, socket.AF_UNSPEC),
            (True, False, True, socket.AF_INET),
            (False, True, True, socket.AF_INET6),
            (False, False, True, socket.AF_UNSPEC),
            (True, True, False, socket.AF_UNSPEC),
        ],
    )
    def test_asks_for_the_families_allowed(
        self,
        resolver: list[Any],
        monkeypatch: pytest.MonkeyPatch,
        ipv4: bool,
        ipv6: bool,
        has_ipv6: bool,
        family: int,
    ) -> None:
        monkeypatch.setattr(adjustments, "HAS_IPV6", has_ipv6)
        Adjustments(listen="h:1 *:http", ipv4=ipv4, ipv6=ipv6)
        rest = (socket.SOCK_STREAM, socket.IPPROTO_TCP, socket.AI_PASSIVE)
        assert resolver == [("h", "1", family, *rest), (None, "http", family, *rest)]

    def test_takes_one_address_once_whatever_its_zone(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def getaddrinfo(*args: Any) -> list[Any]:
            zones = ("fe80::1%eth0", "fe80::1%eth1", "fe80::2%eth0")
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (h, 1, 0, 0)) for h in zones]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
        assert addresses(Adjustments(listen="h:1")) == [("fe80::1%eth0", 1), ("fe80::2%eth0", 1)]

    @pytest.mark.parametrize(
        ("listen", "reason"),
        [
            (":80", "the host is empty"),
            ("127.0.0.1:65536", "the port is larger than 65535"),
            ("127.0.0.1:nosuchservice", r"\[Errno"),
            ("::1", r"\[Errno"),
            (f"{'a' * 64}:80", "encoding with 'idna' codec failed|label"),
        ],
    )
    def test_refuses_what_is_no_address(self, listen: str, reason: str) -> None:
        with pytest.raises(ValueError, match=reason) as caught:
            Adjustments(listen=listen)
        text = str(caught.value)
        assert text.startswith(f"Invalid host/port specified. (listen={listen!r}: ")
        assert text.endswith("of a family that ipv4 and ipv6 leave on)")
        assert "allowed: one or more of HOST:PORT" in text

    def test_names_host_and_port_when_they_are_wrong(self) -> None:
        with pytest.raises(
            ValueError, match=r"^Invalid host/port specified\. \(host and port=':1': the host is"
        ):
            Adjustments(host="", port=1)

    def test_windows_takes_numbers_for_ports(
        self, resolver: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(adjustments, "WIN", True)
        adj = Adjustments(listen="h:80 h")
        assert [asked[1] for asked in resolver] == [80, 8080]
        assert [type(asked[1]) for asked in resolver] == [int, int]
        assert len(adj.listen) == 2

    def test_windows_does_not_take_names_of_services(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(adjustments, "WIN", True)
        with pytest.raises(ValueError) as caught:
            Adjustments(listen="127.0.0.1:http")
        assert str(caught.value) == (
            "Windows does not support service names instead of port numbers "
            "(listen='127.0.0.1:http')"
        )


class TestSpoolDirectory:
    def test_must_exist(self, tmp_path: Path) -> None:
        missing = str(tmp_path / "missing")
        with pytest.raises(ValueError) as caught:
            Adjustments(spool_dir=missing)
        assert str(caught.value) == (
            f"Cannot use this directory (spool_dir={missing!r}; allowed: an existing directory in "
            "which this process may make files)"
        )

    def test_must_be_writable(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # The superuser, whom tests may run as, can write anywhere.
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        with pytest.raises(ValueError, match="spool_dir"):
            Adjustments(spool_dir=str(tmp_path))

    def test_may_be_empty_for_the_systems(self) -> None:
        assert Adjustments(spool_dir="").spool_dir is None


class TestSockets:
    def test_of_the_internet_may_be_several(self) -> None:
        with socket.socket() as first, socket.socket() as second:
            assert Adjustments(sockets=[first, second]).sockets == [first, second]

    @unix_only
    def test_of_unix_may_be_given(self) -> None:
        with socket.socket(socket.AF_UNIX) as sock:
            assert Adjustments(sockets=[sock]).sockets == [sock]

    @unix_only
    @pytest.mark.parametrize("kind", [socket.SOCK_STREAM, socket.SOCK_DGRAM])
    def test_may_not_be_mixed(self, kind: int) -> None:
        with socket.socket() as internet, socket.socket(socket.AF_UNIX, kind) as unix:
            with pytest.raises(ValueError) as caught:
                Adjustments(sockets=[internet, unix])
        assert str(caught.value) == (
            "Internet and UNIX sockets may not be mixed. (sockets: AF_INET SOCK_STREAM, "
            f"AF_UNIX {socket.SocketKind(kind).name})"
        )

    def test_must_be_streams(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            with pytest.raises(ValueError) as caught:
                Adjustments(sockets=[sock])
        assert str(caught.value) == (
            "Only Internet or UNIX stream sockets may be used. (sockets: AF_INET SOCK_DGRAM)"
        )

    def test_must_be_of_a_known_family(self) -> None:
        class Strange:
            family = 12345
            type = socket.SOCK_STREAM

        with pytest.raises(ValueError, match=r"\(sockets: 12345 SOCK_STREAM\)$"):
            Adjustments.check_sockets([Strange()])

    def test_may_be_none_at_all(self) -> None:
        Adjustments.check_sockets([])

    def test_need_no_unix_family_on_the_platform(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(socket, "AF_UNIX", raising=False)
        with socket.socket() as sock:
            Adjustments.check_sockets([sock])


def test_no_warning_is_given_without_a_reason() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Adjustments(trusted_proxy="*", trusted_proxy_headers="forwarded", port=0)


def test_a_service_name_may_stand_for_a_port(resolver: list[Any]) -> None:
    Adjustments(listen="127.0.0.1:http")
    assert resolver[0][:2] == ("127.0.0.1", "http")


def test_defaults_need_no_network() -> None:
    # In a process of its own, where every look-up of a name fails.
    program = (
        "import socket\n"
        "real = socket.getaddrinfo\n"
        "def numeric_only(host, port, family, type, proto, flags):\n"
        "    flags |= socket.AI_NUMERICHOST\n"
        "    return real(host, port, family, type, proto, flags)\n"
        "socket.getaddrinfo = numeric_only\n"
        "from waitress.adjustments import Adjustments\n"
        "print(Adjustments().listen[0][3])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "('0.0.0.0', 8080)\n"


class TestDrainDelay:
    def test_leaves_time_for_what_is_in_flight(self) -> None:
        assert Adjustments(drain_delay=4, graceful_timeout=5).drain_delay == 4
        assert Adjustments(drain_delay=0, graceful_timeout=0).graceful_timeout == 0

    @pytest.mark.parametrize("delay", ["5", "9.5"])
    def test_is_refused_where_it_leaves_none(self, delay: str) -> None:
        with pytest.raises(ValueError, match="No time is left after drain_delay") as caught:
            Adjustments(drain_delay=delay, graceful_timeout="5")
        assert f"(drain_delay={delay}; allowed: less than graceful_timeout, 5, " in str(
            caught.value
        )
