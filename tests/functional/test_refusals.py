"""Who is refused before a request: wrong PROXY headers, and too many connections of one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from tests.fakes import FakeListener, Simulation, get
from tests.functional.applications import StartResponse, hello

Simulate = Callable[..., Simulation]

LINE = b"PROXY TCP4 203.0.113.7 198.51.100.9 4711 443\r\n"
TRUST = {"trusted_proxy": "127.0.0.1", "proxy_protocol": True}


def peer(environ: dict[str, Any], start_response: StartResponse) -> list[bytes]:
    """Answer with the address of the client."""
    body = "{REMOTE_ADDR} {REMOTE_HOST} {REMOTE_PORT}".format_map(environ).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@pytest.fixture(autouse=True)
def told(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "waitress.reject")
    return caplog


@pytest.fixture
def addresses(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the hosts from which the next connections come."""
    hosts: list[str] = []
    accept = FakeListener.accept

    def from_the_next(self: FakeListener) -> tuple[Any, tuple[str, int]]:
        sock, (host, port) = accept(self)
        return sock, (hosts.pop(0) if hosts else host, port)

    monkeypatch.setattr(FakeListener, "accept", from_the_next)
    return hosts


# -- PROXY protocol --------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_proxy_header_tells_the_client_of_every_request(simulate: Simulate, size: int) -> None:
    sim = simulate(peer, channel_request_lookahead=5, **TRUST)
    client = sim.connect()
    data = LINE + get() + get()
    for start in range(0, len(data), size):
        client.send(data[start : start + size])
        sim.settle()
    assert [r.body for r in client.responses("GET", "GET")] == [b"203.0.113.7 203.0.113.7 4711"] * 2
    assert client.is_open


def test_proxy_may_speak_for_itself(simulate: Simulate) -> None:
    sim = simulate(peer, **TRUST)
    client = sim.connect(b"PROXY UNKNOWN\r\n" + get())
    assert client.response().body.startswith(b"127.0.0.1 ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(get(), "missing"), (b"PROXY x\r\n" + get(), "malformed"), (b"\r\n\r\n\0G", "missing")],
)
def test_wrong_proxy_header_closes_without_an_answer(
    simulate: Simulate, told: pytest.LogCaptureFixture, data: bytes, reason: str
) -> None:
    sim = simulate(peer, **TRUST)
    client = sim.connect(data)
    assert not client.is_open
    assert not client.data
    assert sim.server.rejects.counts.snapshot() == {f"proxy-protocol-{reason}": 1}
    assert told.messages[0].startswith(f"refused: reason=proxy-protocol-{reason} peer=127.0.0.1:")
    assert "Host" not in told.messages[0]


@pytest.mark.parametrize("data", [b"", LINE[:-1]])
def test_late_proxy_header_closes_without_an_answer(simulate: Simulate, data: bytes) -> None:
    sim = simulate(peer, header_timeout=10, **TRUST)
    client = sim.connect(data)
    sim.advance(9.5)
    assert client.is_open
    sim.advance(1)
    assert not client.is_open
    assert not client.data
    assert sim.server.rejects.counts.snapshot() == {"proxy-protocol-timeout": 1}


def test_client_behind_a_proxy_header_may_be_idle_as_long_as_others(simulate: Simulate) -> None:
    sim = simulate(peer, header_timeout=10, **TRUST)
    client = sim.connect(LINE)
    sim.advance(60)
    client.send(get())
    sim.settle()
    assert client.response().body.startswith(b"203.0.113.7 ")


def test_proxy_header_of_others_is_no_request(simulate: Simulate, addresses: list[str]) -> None:
    sim = simulate(peer, **TRUST)
    addresses[:] = ["192.0.2.1", "192.0.2.1"]
    assert sim.connect(get()).response().body.startswith(b"192.0.2.1 ")
    assert sim.connect(LINE + get()).response().status == 400


def test_proxy_header_is_no_request_where_the_setting_is_off(simulate: Simulate) -> None:
    sim = simulate(peer, trusted_proxy="127.0.0.1", trusted_proxy_headers="forwarded")
    assert sim.connect(LINE + get()).response().status == 400


def test_fields_are_judged_by_the_client_that_a_proxy_header_tells(simulate: Simulate) -> None:
    sim = simulate(
        peer,
        trusted_proxy="127.0.0.1 203.0.113.0/24",
        proxy_protocol=True,
        trusted_proxy_headers="x-forwarded-for",
    )
    field = "X-Forwarded-For: 192.0.2.99"
    inner = sim.connect(LINE + get("/", field))
    outer = sim.connect(LINE.replace(b"203.0.113.7", b"192.0.2.50") + get("/", field))
    assert inner.response().body.startswith(b"192.0.2.99 ")
    assert outer.response().body.startswith(b"192.0.2.50 ")


def test_proxy_header_being_awaited_makes_room_like_a_head(simulate: Simulate) -> None:
    sim = simulate(peer, connection_limit=2, **TRUST)
    waiting = [sim.connect(LINE[:5])]
    sim.advance(1)
    waiting.append(sim.connect(LINE[:5]))
    sim.advance(8)
    newcomer = sim.connect(LINE + get())
    assert newcomer.response().status == 200
    assert [client.is_open for client in waiting] == [False, True]
    assert sim.server.rejects.counts.snapshot() == {"evicted": 1}


# -- connections of one client -----------------------------------------------------------------


def test_client_with_too_many_connections_is_turned_away(
    simulate: Simulate, told: pytest.LogCaptureFixture, addresses: list[str]
) -> None:
    sim = simulate(hello, connection_limit_per_ip=2)
    addresses[:] = ["192.0.2.1", "192.0.2.1", "192.0.2.1", "192.0.2.2"]
    first, second, third, other = (sim.connect() for _ in range(4))
    assert [client.is_open for client in (first, second, other)] == [True] * 3
    assert not third.is_open
    assert third.response().status == 503
    assert sim.server.rejects.counts.snapshot() == {"connection-limit-per-ip": 1}
    assert told.messages[0].startswith("refused: reason=connection-limit-per-ip peer=192.0.2.1:")


def test_client_may_come_back_when_a_connection_has_ended(
    simulate: Simulate, addresses: list[str]
) -> None:
    sim = simulate(hello, connection_limit_per_ip=1)
    addresses[:] = ["192.0.2.1", "::ffff:192.0.2.1"]
    sim.connect().close()
    sim.settle()
    assert sim.connect(get()).response().status == 200


def test_client_is_its_network_of_ipv6(simulate: Simulate, addresses: list[str]) -> None:
    sim = simulate(hello, connection_limit_per_ip=1)
    addresses[:] = ["2001:db8::1", "2001:db8::2", "2001:db8:0:1::1"]
    first, second, other = (sim.connect() for _ in range(3))
    assert [client.is_open for client in (first, second, other)] == [True, False, True]


def test_trusted_proxy_may_have_any_number(simulate: Simulate) -> None:
    sim = simulate(
        hello,
        connection_limit_per_ip=1,
        trusted_proxy="127.0.0.0/8",
        trusted_proxy_headers="forwarded",
    )
    assert all(client.is_open for client in [sim.connect() for _ in range(5)])


def test_clients_of_a_proxy_header_are_limited(simulate: Simulate) -> None:
    sim = simulate(hello, connection_limit_per_ip=1, **TRUST)
    first = sim.connect(LINE)
    second = sim.connect(LINE + get())
    third = sim.connect(LINE.replace(b"113.7", b"113.8") + get())
    assert first.is_open
    assert second.response().status == 503
    assert third.response().status == 200
    first.close()
    second.close()
    sim.settle()
    assert sim.connect(LINE + get()).response().status == 200


# -- requests ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason", "sample"),
    [
        (get("/", "a b: c"), "bad-field-line", "a b: c"),
        (get("/", "a: b", " folded"), "obs-fold", None),
        (b"GET / HTTP/1.1\nAuthorization: x\n\n", "bare-cr-lf", "GET / HTTP/1.1"),
        (b"\x16\x03\x01\x02", "control-character", "\\x16\\x03\\x01\\x02"),
        (b"GET /?a#b HTTP/1.1\r\nHost: a\r\n\r\n", "bad-target", "GET /?a#b HTTP/1.1"),
        (b"GET / HTTP/1.1\r\n\r\n", "no-host", "GET / HTTP/1.1"),
    ],
)
def test_refused_request_is_counted_and_told(
    simulate: Simulate,
    told: pytest.LogCaptureFixture,
    data: bytes,
    reason: str,
    sample: str | None,
) -> None:
    sim = simulate(hello)
    sim.connect(data)
    (reason_told,) = sim.server.rejects.counts.snapshot()
    (message,) = told.messages
    assert f"reason={reason_told} peer=127.0.0.1:" in message
    assert " channel=" in message
    if sample is not None:
        assert message.endswith(f'sample="{sample}"')
    if reason != "bad-field-line":
        assert reason_told == reason
