from __future__ import annotations

import pytest

from waitress.settings import KNOWN_PROXY_HEADERS, SETTING_OF, SETTINGS
from waitress.settings_schema import Check, Section, Setting


class TestTable:
    def test_names_every_known_proxy_header(self) -> None:
        assert sorted(KNOWN_PROXY_HEADERS) == [
            "forwarded",
            "x-forwarded-by",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-port",
            "x-forwarded-proto",
        ]

    @pytest.mark.parametrize("declared", SETTINGS, ids=lambda declared: declared.name)
    def test_tells_all_about_a_setting(self, declared: Setting) -> None:
        assert declared.help.endswith(".")
        assert "\n" not in declared.help
        assert declared.check.text
        assert declared.default_text
        assert bool(declared.metavar) is not declared.is_flag
        unset = declared.default is None or isinstance(declared.default, list)
        assert unset or declared.check.accepts(declared.default)

    @pytest.mark.parametrize(
        ("name", "option", "default"),
        [
            ("host", "--host=ADDR", "0.0.0.0"),
            ("port", "--port=PORT", "8080"),
            ("listen", "--listen=HOST:PORT", "0.0.0.0:8080"),
            ("ipv4", "--[no-]ipv4", "on"),
            ("expose_tracebacks", "--[no-]expose-tracebacks", "off"),
            ("unix_socket", "--unix-socket=PATH", "none"),
            ("unix_socket_perms", "--unix-socket-perms=PERMS", "600"),
            ("send_bytes", "--send-bytes=BYTES", "1 byte"),
            ("recv_bytes", "--recv-bytes=BYTES", "8192 bytes"),
            ("asyncore_loop_timeout", "--asyncore-loop-timeout=SECONDS", "1 second"),
            ("channel_request_lookahead", "--channel-request-lookahead=INT", "0 requests"),
            ("trusted_proxy_headers", "--trusted-proxy-headers=LIST", "none"),
            ("trusted_proxy_count", "--trusted-proxy-count=INT", "1 proxy"),
            ("proxy_protocol", "--[no-]proxy-protocol", "off"),
            (
                "connection_limit_per_ip",
                "--connection-limit-per-ip=INT",
                "0 (no limit)",
            ),
        ],
    )
    def test_renders_option_and_default(self, name: str, option: str, default: str) -> None:
        assert SETTING_OF[name].option == option
        assert SETTING_OF[name].default_text == default

    def test_a_declaration_needs_no_more_than_a_help(self) -> None:
        made = Setting("x", str, "", "X", "Help.")
        assert (made.unit, made.section, made.default_note) == ("", Section.STANDARD, "")
        assert made.check == Check("any text", made.check.accepts)
        assert made.check.accepts("anything")
