"""Fuzz what proxies say about a request.

An input is lines of ``Name: value``. Whatever they are: a trusted peer's fields are either
understood or refused by the one exception; a refusal changes nothing; what is understood
gives an environ that applications can build on; what stands before the elements that count
has no say; an untrusted peer's fields have none at all.
"""

from __future__ import annotations

import random
import re
from typing import Any

from fuzz import harness

with harness.instrumented():
    from waitress.proxy_headers import (
        PROXY_HEADERS,
        MalformedProxyHeader,
        parse_proxy_headers,
        proxy_headers_middleware,
    )
    from waitress.rfc7230 import HOST_RE

PEER = "192.0.2.99"
KEYS = ("REMOTE_ADDR", "REMOTE_HOST", "REMOTE_PORT", "SERVER_NAME", "SERVER_PORT", "HTTP_HOST")
X_FORWARDED = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port")


class Silent:
    """A logger that keeps quiet, and is no reason for slowness."""

    def warning(self, msg: str, /, *args: object) -> None:
        msg % args


def check(data: bytes) -> None:
    """Check one input."""
    octets, chance = harness.controlled(data)
    trusted = {"forwarded"} if chance.random() < 0.5 else set(chance.sample(X_FORWARDED, 4))
    if "forwarded" not in trusted and chance.random() < 0.3:
        trusted.pop()
    count = chance.choice((1, 1, 2, 3))
    environ = environ_of(octets)
    with harness.limited_time():
        after = translated(environ, count, trusted)
        if after is not None:
            check_environ(after)
            check_no_say(environ, after, count, trusted)
        check_untrusted(environ)
        check_middleware(environ, after, count, trusted)
        if chance.random() < 0.1:
            check_pumped(octets, count, trusted, chance)


def environ_of(octets: bytes) -> dict[str, Any]:
    """Return the environ of a request with these fields, as the server makes it."""
    environ: dict[str, Any] = {
        "REMOTE_ADDR": PEER,
        "REMOTE_HOST": PEER,
        "REMOTE_PORT": "4711",
        "SERVER_NAME": "server",
        "SERVER_PORT": "8080",
        "HTTP_HOST": "server:8080",
        "wsgi.url_scheme": "http",
    }
    for line in octets.decode("latin-1").split("\n"):
        name, _, value = line.partition(":")
        key = name.upper().replace("-", "_")
        if key in PROXY_HEADERS:
            # The parser lets nothing else through.
            environ[f"HTTP_{key}"] = re.sub(r"[\x00-\x08\x0b-\x1f\x7f]", "", value).strip(" \t")
    return environ


def translated(environ: dict[str, Any], count: int, trusted: set[str]) -> dict[str, Any] | None:
    """Return the environ with what the fields say, None if they are refused."""
    after = environ.copy()
    try:
        untrusted = parse_proxy_headers(after, count, trusted, Silent())
    except MalformedProxyHeader:
        assert after == environ
        return None
    assert untrusted <= PROXY_HEADERS
    assert not {name.lower().replace("_", "-") for name in untrusted} & trusted
    return after


def check_environ(after: dict[str, Any]) -> None:
    """Check that every value is one that applications can build on."""
    for key in KEYS:
        assert isinstance(after[key], str), key
        assert re.fullmatch(r"[\x21-\x7e]+", after[key]), (key, after[key])
    assert after["wsgi.url_scheme"] in ("http", "https")
    assert 0 <= int(after["SERVER_PORT"]) <= 65535
    assert after["SERVER_PORT"].isdigit()
    assert HOST_RE.fullmatch(after["HTTP_HOST"]), after["HTTP_HOST"]
    assert after["REMOTE_ADDR"] == after["REMOTE_HOST"]
    assert not set(after["REMOTE_ADDR"]) & set('[]/@?#"\\<>'), after["REMOTE_ADDR"]
    port = after["REMOTE_PORT"]
    assert port.startswith("_") or 0 <= int(port) <= 65535


def check_no_say(
    environ: dict[str, Any], after: dict[str, Any], count: int, trusted: set[str]
) -> None:
    """Check that an element in front of those that count changes nothing."""
    key, element = "HTTP_X_FORWARDED_FOR", "203.0.113.9"
    if "forwarded" in trusted:
        key, element = "HTTP_FORWARDED", "for=203.0.113.9;host=evil;proto=https"
    elif "x-forwarded-for" not in trusted:
        return
    value = environ.get(key, "")
    if '"' in value or value.count(",") + 1 < count or not value:
        return
    spoofed = translated({**environ, key: f"{element}, {value}"}, count, trusted)
    assert spoofed == after


def check_untrusted(environ: dict[str, Any]) -> None:
    """Check that nothing of the fields is left where the peer is not trusted."""
    seen: list[dict[str, Any]] = []
    middleware = proxy_headers_middleware(
        collector(seen), trusted_proxy="192.0.2.1", trusted_proxy_headers={"forwarded"}
    )
    list(middleware(environ.copy(), refuse_to_start))
    facts = {key: value for key, value in environ.items() if key[5:] not in PROXY_HEADERS}
    assert seen == [facts]


def check_middleware(
    environ: dict[str, Any], after: dict[str, Any] | None, count: int, trusted: set[str]
) -> None:
    """Check that the application is called exactly if the fields are understood."""
    seen: list[dict[str, Any]] = []
    statuses: list[str] = []
    middleware = proxy_headers_middleware(
        collector(seen), PEER, count, trusted, clear_untrusted=False, logger=Silent()
    )
    list(middleware(environ.copy(), lambda status, headers: statuses.append(status)))
    assert seen == ([] if after is None else [after])
    assert statuses == (["400 Bad Request"] if after is None else [])


def check_pumped(octets: bytes, count: int, trusted: set[str], chance: random.Random) -> None:
    """Read a large field: only the time matters."""
    translated(environ_of(harness.pumped(octets, chance)), count, trusted)


def collector(seen: list[dict[str, Any]]) -> Any:
    """Return an application that keeps its environs and starts no response."""

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        seen.append(environ)
        return []

    return application


def refuse_to_start(status: str, headers: Any) -> None:
    """Fail: the application is to answer, and it starts no response."""
    raise AssertionError(status)


if __name__ == "__main__":
    harness.main(check)
