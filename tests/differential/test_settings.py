"""The same keywords give the same settings, or the same error, in both packages."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.differential.servers import clean_environment

pytestmark = pytest.mark.differential

SCRIPT = Path(__file__).with_name("describing.py")
NAMES = (
    *("host", "port", "ipv4", "ipv6", "listen", "threads", "backlog", "socket_options"),
    *("trusted_proxy", "trusted_proxy_count", "trusted_proxy_headers"),
    *("log_untrusted_proxy_headers", "clear_untrusted_proxy_headers"),
    *("url_scheme", "url_prefix", "ident", "server_name", "sockets"),
    *("unix_socket", "unix_socket_perms", "recv_bytes", "send_bytes"),
    *("outbuf_overflow", "outbuf_high_watermark", "inbuf_overflow", "connection_limit"),
    *("cleanup_interval", "channel_timeout", "log_socket_errors", "expose_tracebacks"),
    *("max_request_header_size", "max_request_body_size", "asyncore_loop_timeout"),
    *("asyncore_use_poll", "channel_request_lookahead"),
)

NAMED = "errors-name-the-option"
REFUSED = "settings-checked"


@dataclass(frozen=True)
class Row:
    """Keywords that both take alike, or, with ``because``, that ours takes as ``ours`` says."""

    keywords: dict[str, Any]
    because: str = ""
    ours: Any = None

    @property
    def name(self) -> str:
        return ",".join(f"{name}={value!r}" for name, value in self.keywords.items()) or "(none)"


def same(**keywords: Sequence[Any]) -> list[Row]:
    """Rows for one setting and several values that both packages take alike."""
    ((name, values),) = keywords.items()
    return [Row({name: value}) for value in values]


def named(told: str = "", **keywords: Any) -> Row:
    """Refused by both; ours adds option, value and what is allowed to the text."""
    return Row(keywords, NAMED, f" ({told or _given(keywords)}")


def refused(allowed: str, **keywords: Any) -> Row:
    """Refused by ours alone, for the last of ``keywords``."""
    name = list(keywords)[-1]
    given = _given({name: keywords[name]})
    text = f"ValueError: Invalid value for {name} ({given}; allowed: {allowed})"
    return Row(keywords, REFUSED, text)


def _given(keywords: dict[str, Any]) -> str:
    ((name, value),) = keywords.items()
    return f"{name}={value!r}"


def changed(because: str, ours: dict[str, str], **keywords: Any) -> Row:
    """Taken by both; these attributes differ."""
    return Row(keywords, because, ours)


_WHOLE_FROM_0 = "a whole number, 0 or more"
_WHOLE_FROM_1 = "a whole number, 1 or more"
_LISTEN = (
    "one or more of HOST:PORT, HOST, [IPv6]:PORT, *:PORT, unix:PATH, unix:@NAME, fd://NUMBER, "
    "systemd and systemd:NAME, between blanks; ports from 0 to 65535"
)

ROWS = [
    Row({}),
    *same(host=["127.0.0.1", "::1", "*"]),
    *same(port=["80", 0, 65535]),
    Row({"host": "127.0.0.1", "port": "8081"}),
    Row({"host": "::1", "port": 1}),
    *same(
        listen=[
            "127.0.0.1:80 127.0.0.1:81",
            ["127.0.0.1:80", "[::1]:81"],
            ["127.0.0.1:80 127.0.0.1:81", "127.0.0.1:82"],
            "127.0.0.1",
            "[::1]",
            "127.0.0.1:",
            "*:80",
            "127.0.0.1:80 127.0.0.1:80",
            "127.0.0.1:0 127.0.0.1:0",
            "127.0.0.1:http",
        ]
    ),
    named(listen=":80"),
    named(listen="127.0.0.1:nosuchservice"),
    named("host and port=':8080'", host=""),
    refused(_LISTEN, listen=""),
    refused(_LISTEN, listen=[]),
    Row({"listen": "127.0.0.1:80", "host": "x"}),
    Row({"listen": "127.0.0.1:80", "port": 1}),
    Row({"listen": "127.0.0.1:80", "sockets": []}),
    Row({"listen": "127.0.0.1:80", "sockets": [], "host": "x"}),
    Row({"sockets": [], "host": "x"}),
    Row({"sockets": [], "port": 1}),
    Row({"sockets": [], "unix_socket": "/x"}),
    Row({"unix_socket": "/x", "host": "x"}),
    Row({"unix_socket": "/x", "port": 1}),
    Row({"unix_socket": "/x", "listen": "127.0.0.1:80"}),
    Row({"unix_socket": "/x"}),
    Row({"unix_socket": "/x", "unix_socket_perms": "600"}),
    Row({"unix_socket_perms": "0o777"}),
    Row({"sockets": []}),
    Row({"nope": 1}),
    Row({"port": 1, "nope": 1}),
    Row({"socket_options": []}),
    named(unix_socket_perms=384),
    named(unix_socket_perms="999"),
    named(port="http"),
    named(port=None),
    named(threads="x"),
    named(max_request_body_size="x"),
    named(connection_limit=None),
    refused("a whole number, 0 to 65535", port=70000),
    *same(threads=["4", 1, 2.5]),
    refused(_WHOLE_FROM_1, threads=0),
    refused(_WHOLE_FROM_1, threads=-1),
    *same(ipv4=["yes", True, 1]),
    *same(ipv6=["no", False, "off", "", None]),
    named("listen='0.0.0.0:8080'", ipv4="no"),
    named("listen='0.0.0.0:8080'", ipv4="maybe"),
    Row({"ipv4": False, "ipv6": False}),
    Row({"ipv4": False, "listen": "[::1]:80"}),
    *same(trusted_proxy=["*", "", "127.0.0.1", None]),
    *same(trusted_proxy_headers=["forwarded", "", []]),
    Row({"trusted_proxy_count": 2}),
    Row({"trusted_proxy": "*", "trusted_proxy_count": "3"}),
    Row({"trusted_proxy": "*", "trusted_proxy_headers": "forwarded"}),
    Row({"trusted_proxy": "*", "trusted_proxy_headers": "Forwarded X-Forwarded-For"}),
    Row({"trusted_proxy": "*", "trusted_proxy_headers": ["X-Forwarded-For", "x-forwarded-proto"]}),
    Row({"trusted_proxy": "*", "trusted_proxy_headers": "x-forwarded-for\nx-forwarded-by"}),
    Row({"trusted_proxy": "*", "trusted_proxy_headers": "x-bad"}),
    Row({"trusted_proxy": "", "trusted_proxy_headers": "forwarded"}),
    refused(
        _WHOLE_FROM_1,
        trusted_proxy="*",
        trusted_proxy_headers="x-forwarded-for",
        trusted_proxy_count=0,
    ),
    *same(log_untrusted_proxy_headers=["true", 0]),
    *same(clear_untrusted_proxy_headers=["false", 1]),
    *same(url_prefix=["a/", "///foo/", "/", "  ", "", "a/b/c//"]),
    *same(url_scheme=["https", ""]),
    *same(ident=["", None, "x", 0]),
    *same(server_name=["www.example.com", ""]),
    *same(send_bytes=[1, "18000"]),
    *same(backlog=["5", 0]),
    refused("a whole number, 0 to 2147483647", backlog=-1),
    *same(recv_bytes=["9", 1]),
    refused("a whole number, 1 to 2147483647", recv_bytes=0),
    *same(outbuf_overflow=[0, "7"]),
    refused(_WHOLE_FROM_0, outbuf_overflow=-1),
    *same(inbuf_overflow=[0, "7"]),
    *same(outbuf_high_watermark=[0, "7"]),
    *same(connection_limit=[50, "50"]),
    refused(_WHOLE_FROM_1, connection_limit="0"),
    *same(cleanup_interval=["1", 60]),
    *same(channel_timeout=["1", 0, 60]),
    changed("fractional-seconds", {"channel_timeout": "1.5"}, channel_timeout=1.5),
    *same(log_socket_errors=["off", 0, "t"]),
    *same(max_request_header_size=["10", 1]),
    refused(_WHOLE_FROM_1, max_request_header_size=0),
    *same(max_request_body_size=["10", 1]),
    refused(_WHOLE_FROM_1, max_request_body_size=0),
    *same(expose_tracebacks=["t", "false"]),
    *same(asyncore_loop_timeout=["0", 1, "30"]),
    changed("fractional-seconds", {"asyncore_loop_timeout": "0.5"}, asyncore_loop_timeout=0.5),
    *same(asyncore_use_poll=["yes", "no"]),
    *same(channel_request_lookahead=["2", 0]),
    refused(_WHOLE_FROM_0, channel_request_lookahead=-1),
]
"""No row asks a name server: host names are addresses."""

Outcomes = dict[str, Any]


def described(python: str, pythonpath: str | None, directory: Path) -> Outcomes:
    rows = [row.keywords for row in ROWS]
    done = subprocess.run(
        [python, str(SCRIPT), json.dumps(rows), json.dumps(NAMES)],
        env=clean_environment(pythonpath),
        cwd=directory,
        stdout=subprocess.PIPE,
        text=True,
        timeout=60,
        check=True,
    )
    return dict(zip((row.name for row in ROWS), json.loads(done.stdout), strict=True))


@pytest.fixture(scope="module")
def released_outcomes(released_interpreter: str, tmp_path_factory) -> Outcomes:
    return described(released_interpreter, None, tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="module")
def our_outcomes(package_parent: str, tmp_path_factory) -> Outcomes:
    return described(sys.executable, package_parent, tmp_path_factory.mktemp("settings"))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_settings_are_taken_alike(row: Row, released_outcomes: Outcomes, our_outcomes: Outcomes):
    (reference, reference_warnings), (outcome, warnings) = (
        released_outcomes[row.name],
        our_outcomes[row.name],
    )
    if row.because == NAMED:
        assert outcome.startswith(reference + row.ours)
        assert "; allowed: " in outcome
    elif isinstance(row.ours, str):
        assert isinstance(reference, dict)
        assert outcome == row.ours
    else:
        assert _comparable(outcome) == _comparable(_expected(row, reference))
        assert warnings == reference_warnings


def test_names_of_rows_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


def _expected(row: Row, reference: Any) -> Any:
    if isinstance(reference, str):
        return reference
    # connection-limit: unset, the server finds it out, and 1000 stands for that.
    limit = {} if "connection_limit" in row.keywords else {"connection_limit": "1000"}
    return {**reference, **limit, **(row.ours or {})}


def _comparable(outcome: Any) -> Any:
    """The same, but a list of allowed header names in an error's text put in order."""
    if not isinstance(outcome, str):
        return outcome
    head, separator, names = outcome.partition("expected one of ")
    return head + separator + ", ".join(sorted(names.split(", ")))
