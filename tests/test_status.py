"""The status listener, on real sockets: what it answers, to whom, and when."""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.compat.live import PATIENCE, Answer, Gate, Running, Wire, hello
from tests.looping import needs_stacks
from tests.test_stuck import Heard
from tests.test_stuck import heard as heard  # a fixture
from tests.watching import KeptTimelines
from waitress import adjustments, create_server, status, status_page
from waitress.adjustments import Adjustments
from waitress.prometheus import CONTENT_TYPE, METRICS
from waitress.server import TcpWSGIServer, WSGIServer
from waitress.stats import CONNECTION_STATES

Serve = Callable[..., Running]

LOOPBACK = "127.0.0.1:0"


def knock(running: Running, number: int = 0) -> Wire:
    """Open a connection to the status listener."""
    (port,) = [running.server.status_listeners[number].effective_port]
    return Wire(socket.create_connection(("127.0.0.1", int(port)), PATIENCE))


def ask(running: Running, path: str, *fields: str, method: str = "GET") -> Answer:
    """Ask the status listener one thing, on a connection of its own."""
    lines = [f"{method} {path} HTTP/1.1", *(fields or ("Host: localhost",))]
    with knock(running) as wire:
        wire.send("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        return wire.read_answer()


def told(running: Running) -> Any:
    answer = ask(running, "/status.json")
    assert answer.headers["content-type"] == "application/json"
    return answer.json


def told_of_ended(running: Running, count: int) -> Any:
    """Return the status once so many requests have ended.

    A client may have its response a moment before the worker has reported the end.
    """
    data = told(running)
    while sum(data["stats"]["requests"]["responses"].values()) < count:
        data = told(running)
    return data


# What there is.


def test_there_is_none_unless_it_is_asked_for(serve: Serve) -> None:
    assert serve(hello).server.status_listeners == ()


@pytest.mark.parametrize("path", ["/livez", "/readyz"])
def test_health_is_ok_where_all_is_well(serve: Serve, path: str) -> None:
    answer = ask(serve(hello, status_listen=LOOPBACK), path)
    assert (answer.status, answer.body) == (200, b"ok\n")
    assert answer.headers["cache-control"] == "no-store"


def test_metrics_are_read_by_the_parser_of_those_who_made_the_format(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with running.connect() as wire:
        wire.get("/")
    told_of_ended(running, 1)
    answer = ask(running, "/metrics")
    assert answer.headers["content-type"] == CONTENT_TYPE
    found = {each.name: each for each in text_string_to_metric_families(answer.body.decode())}
    assert len(found) == len(METRICS)
    requests = {each.labels["class"]: each.value for each in found["waitress_requests"].samples}
    assert requests["2xx"] == 1


def test_the_status_tells_what_goes_on(serve: Serve) -> None:
    gate = Gate()
    running = serve(gate, status_listen=LOOPBACK, threads=1)
    with running.connect() as first, running.connect() as second:
        first.send(b"GET /first?password=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.await_entry()
        second.send(b"GET /second?password=1 HTTP/1.1\r\nHost: x\r\n\r\n")
        data = told(running)
        while not data["queued"]:  # It is on its way to the loop.
            data = told(running)
        (worker,), (queued,) = data["workers"], data["queued"]
        assert worker["name"] == "waitress-0"
        assert worker["request"]["path"] == "/first"
        assert worker["request"]["peer"] == "{}:{}".format(*first.sock.getsockname())
        assert worker["request"]["seconds"] >= 0
        assert queued["path"] == "/second"
        assert data["stats"]["queue_depth"] == 1
        assert data["stats"]["connections"]["serving"] == 2
        assert "password" not in json.dumps(data)
        gate.opened.set()
        first.read_answer()
        second.read_answer()
    data = told_of_ended(running, 2)
    assert data["live"] is data["ready"] is True
    assert data["problems"] == []
    assert data["server"]["listen"] == [f"127.0.0.1:{running.port}"]
    assert data["stats"]["requests"]["responses"]["2xx"] == 2
    assert data["stats"]["requests"]["duration"]["count"] == 2
    slowest = data["stats"]["requests"]["slowest"]
    assert {each["path"] for each in slowest} == {"/first", "/second"}


def test_quantiles_are_told(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    assert told(running)["stats"]["requests"]["duration"]["p99"] is None
    with running.connect() as wire:
        wire.get("/")
    assert told_of_ended(running, 1)["stats"]["requests"]["duration"]["p99"] > 0


def test_a_server_that_is_not_ready_says_why(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    running.server.is_live = lambda: False
    assert ask(running, "/livez").status == ask(running, "/readyz").status == 503
    data = told(running)
    assert (data["live"], data["ready"]) == (False, False)
    assert data["problems"] == ["all workers are stuck, and no more may be added"]


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "//", "/threads/0", "/LIVEZ"])
def test_other_paths_are_not_found_and_what_there_is_is_told(serve: Serve, path: str) -> None:
    answer = ask(serve(hello, status_listen=LOOPBACK), path)
    assert answer.status == 404
    assert b"/status.json\n" in answer.body


def test_a_query_is_nobody_s_business(serve: Serve) -> None:
    assert ask(serve(hello, status_listen=LOOPBACK), "/livez?x=1").status == 200


# Stuck workers.


@needs_stacks
def test_everything_is_answered_while_all_workers_are_stuck(serve: Serve) -> None:
    """The reason for all of this."""
    gate = Gate()
    running = serve(gate, status_listen=LOOPBACK, threads=4, health_prefix="/-")
    wires = [running.connect() for _ in range(6)]
    try:
        for number, wire in enumerate(wires):
            wire.send(f"GET /stuck/{number}?q HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        for _ in range(4):
            gate.await_entry()
        data = told(running)
        while len(data["queued"]) < 2:
            data = told(running)
        shown = {each["request"]["path"] for each in data["workers"]}
        assert shown == {f"/stuck/{number}" for number in range(6)} - {
            each["path"] for each in data["queued"]
        }
        for path in ("/", "/livez", "/readyz", "/metrics"):
            assert ask(running, path).status == 200
        with running.connect() as wire:
            assert wire.get("/-/livez").body == b"ok\n"
            assert wire.get("/-/readyz").body == b"ok\n"
        stacks = ask(running, "/threads").body.decode()
        assert stacks.count("self.opened.wait(PATIENCE)") == 4
        for path in shown:
            assert f"GET {path} from 127.0.0.1:" in stacks
    finally:
        gate.opened.set()
        for wire in wires:
            wire.read_answer()
            wire.close()


def test_a_worker_is_shown_after_its_client_has_left(serve: Serve) -> None:
    gate = Gate()
    running = serve(gate, status_listen=LOOPBACK, threads=1)
    with running.connect() as wire:
        wire.send(b"GET /left HTTP/1.1\r\nHost: x\r\n\r\n")
        gate.await_entry()
        wire.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    while sum(told(running)["stats"]["connections"].values()):
        pass  # The reset is on its way.
    assert told(running)["workers"][0]["request"]["path"] == "/left"
    gate.opened.set()


# Who may ask what.


@pytest.mark.parametrize(
    "host",
    [
        *("localhost", "LOCALHOST:8", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:80"),
        *("192.0.2.1", "status.example", "Status.Example:9090"),
    ],
)
def test_addresses_and_names_that_are_allowed_are_answered(serve: Serve, host: str) -> None:
    running = serve(hello, status_listen=LOOPBACK, status_hosts="Status.example other")
    assert ask(running, "/status.json", f"Host: {host}").status == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "localhost.", "1"],
)
@pytest.mark.parametrize("path", ["/", "/livez", "/status.json", "/nothing"])
def test_names_that_nobody_allowed_are_refused(serve: Serve, path: str, host: str) -> None:
    """Or else any page could read the answers through a browser (DNS rebinding)."""
    answer = ask(serve(hello, status_listen=LOOPBACK), path, f"Host: {host}")
    assert answer.status == 421
    assert b"status_hosts" in answer.body


def test_the_target_s_own_host_counts_where_it_has_one(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    assert ask(running, "http://evil.example/livez").status == 421
    assert ask(running, "http://localhost/livez", "Host: evil.example").status == 200


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/nothing"])
def test_other_methods_than_get_and_head_are_refused(serve: Serve, path: str, method: str) -> None:
    answer = ask(serve(hello, status_listen=LOOPBACK), path, method=method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_head_is_answered_without_a_body(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        wire.send(b"HEAD / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        head, _, body = wire.read_to_end().partition(b"\r\n\r\n")
    assert b"Content-Length: %d\r\n" % len(status_page.page()) in head
    assert body == b""


def test_http_1_0_without_a_host_is_answered(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        wire.send(b"GET /livez HTTP/1.0\r\n\r\n")
        assert wire.read_to_end().startswith(b"HTTP/1.0 200 OK\r\n")


def test_without_require_host_a_request_of_1_1_without_a_host_is_refused(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK, require_host=False)
    assert ask(running, "/livez", "X: y").status == 421


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n b: c\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9999999\r\n\r\n", 413),
        (b"nonsense\r\n\r\n", 400),
    ],
)
def test_bad_input_is_refused_as_on_any_other_listener(
    serve: Serve, data: bytes, status: int
) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        wire.send(data)
        assert wire.read_answer().status == status
    assert told(running)["stats"]["rejects"] == {}


def test_pipelined_questions_are_answered_in_order_on_one_connection(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        paths = ["/livez", "/nothing", "/metrics", "/livez"] * 10
        wire.send(b"".join(b"GET %s HTTP/1.1\r\nHost: [::1]\r\n\r\n" % p.encode() for p in paths))
        assert [wire.read_answer().status for _ in paths] == [200, 404, 200, 200] * 10


def test_the_application_is_never_asked(serve: Serve) -> None:
    asked = []

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        asked.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    running = serve(app, status_listen=LOOPBACK)
    for path in ("/", "/nothing", "/threads"):
        ask(running, path)
    assert asked == []


# Its connections are not the server's.


def test_its_connections_count_nowhere(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        wire.get("/livez")
        data = told(running)
    assert sum(data["stats"]["connections"].values()) == 0
    assert data["stats"]["connections_accepted"] == 0
    assert sum(data["stats"]["requests"]["responses"].values()) == 0


def test_its_connections_are_bounded_and_make_room_among_themselves(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "CONNECTION_LIMIT", 3)
    running = serve(hello, status_listen=LOOPBACK, connection_limit=100)
    (listener,) = running.server.status_listeners
    assert listener.adj.connection_limit == 3
    assert running.server.adj.connection_limit == 100
    assert listener.clients is not running.server.clients


@pytest.mark.parametrize(("given", "own"), [(30, 4), (0, 4), (2, 2)])
def test_whoever_asks_slowly_does_not_keep_the_others_out_for_long(
    serve: Serve, given: int, own: int
) -> None:
    running = serve(hello, status_listen=LOOPBACK, header_timeout=given)
    (listener,) = running.server.status_listeners
    assert listener.adj.header_timeout == own
    assert running.server.adj.header_timeout == given


def test_the_settings_of_a_proxy_are_not_for_it(serve: Serve) -> None:
    running = serve(
        hello,
        status_listen=LOOPBACK,
        trusted_proxy="*",
        proxy_protocol=True,
        connection_limit_per_ip=1,
        health_prefix="/",
        channel_request_lookahead=5,
    )
    with knock(running) as first, knock(running) as second:
        assert first.get("/livez").status == second.get("/livez").status == 200


def test_a_logger_that_is_there_for_the_access_log_is_not_for_it(serve: Serve) -> None:
    lines: list[str] = []
    seen = threading.Semaphore(0)

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            seen.release()

    keep = Keep()
    access = logging.getLogger("waitress.access")
    access.addHandler(keep)
    access.setLevel(logging.INFO)
    try:
        running = serve(hello, status_listen=LOOPBACK, access_log_format="%(U)s")
        assert running.server.status_listeners[0].access_log is None
        assert ask(running, "/livez").status == 200
        with running.connect() as wire:
            assert wire.get("/mine").status == 200
        assert seen.acquire(timeout=20)
        running.stop()
    finally:
        access.removeHandler(keep)
        access.setLevel(logging.NOTSET)
    assert lines == ["/mine"]


# Where it listens.


def resolve_to(monkeypatch: pytest.MonkeyPatch, *addresses: tuple[str, int]) -> None:
    """Let the setting mean several addresses, as a name does that has several."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, address) for address in addresses]
    monkeypatch.setattr(adjustments, "resolve_status_listen", lambda *args: found)


def test_a_name_may_mean_several_addresses_which_share_the_limit(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve_to(monkeypatch, ("127.0.0.1", 0), ("127.0.0.1", 0))
    running = serve(hello, status_listen="x")
    first, second = running.server.status_listeners
    assert first.clients is second.clients
    for number in (0, 1):
        with knock(running, number) as wire:
            assert wire.get("/livez").status == 200


@pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="needs unix sockets")
def test_it_may_listen_on_a_unix_socket(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "status"
    running = serve(hello, status_listen=f"unix:{path}", unix_socket_perms="660")
    assert path.stat().st_mode & 0o777 == 0o660
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        with Wire(sock) as wire:
            assert wire.get("/livez").status == 200
    running.stop()
    assert not path.exists()


def test_it_stands_beside_several_listeners(serve: Serve) -> None:
    running = serve(hello, listen=f"{LOOPBACK} {LOOPBACK}", status_listen=LOOPBACK)
    (listener,) = running.server.status_listeners
    with Wire(socket.create_connection(("127.0.0.1", int(listener.effective_port)))) as wire:
        data = wire.get("/status.json").json
    assert data["server"]["listen"] == [
        f"{host}:{port}" for host, port in running.server.effective_listen
    ]
    assert running.call_in_loop(running.server.stats).workers == 4


def test_an_address_that_is_taken_leaves_nothing_behind(no_leaks: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"cannot listen on 127.0.0.1:{port}"):
            create_server(hello, listen=LOOPBACK, status_listen=f"127.0.0.1:{port}")


def test_what_was_opened_before_another_failed_is_closed(
    no_leaks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        resolve_to(monkeypatch, ("127.0.0.1", 0), taken.getsockname())
        with pytest.raises(OSError, match="cannot listen"):
            create_server(hello, listen=LOOPBACK, status_listen="x")


def test_it_listens_when_the_server_does(serve: Serve) -> None:
    server = create_server(hello, listen=LOOPBACK, status_listen=LOOPBACK, _start=False)
    (listener,) = server.status_listeners
    assert not listener.accepting
    server.accept_connections()
    assert listener.accepting
    server.close()
    server.task_dispatcher.shutdown()


def test_the_loop_ends_with_the_server_though_a_page_is_open(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        wire.get("/livez")
        running.call_in_loop(running.server.close)
        running.await_end()
        assert wire.read_to_end() == b""
    running.server.task_dispatcher.shutdown()


def test_another_thread_may_close_the_server_while_a_page_is_open(serve: Serve) -> None:
    running = serve(hello, status_listen=LOOPBACK)
    with knock(running) as wire:
        wire.get("/livez")
        running.server.close()
        running.await_end()
    running.server.task_dispatcher.shutdown()


# Health on the server's own addresses.


def test_there_are_no_health_checks_unless_they_are_asked_for(serve: Serve) -> None:
    with serve(hello).connect() as wire:
        assert wire.get("/livez").body == b"hello"


@pytest.mark.parametrize(
    ("prefix", "path"), [("/-", "/-/livez"), ("internal/", "/internal/readyz"), ("/", "/livez")]
)
def test_health_is_told_below_the_prefix(serve: Serve, prefix: str, path: str) -> None:
    running = serve(hello, health_prefix=prefix)
    with running.connect() as wire:
        assert wire.get(path).body == b"ok\n"
        assert wire.get(path + "/more").body == b"hello"
        assert wire.get("/").body == b"hello"


def test_a_health_check_may_come_under_any_name(serve: Serve) -> None:
    with serve(hello, health_prefix="/-").connect() as wire:
        wire.send(b"GET /-/livez HTTP/1.1\r\nHost: evil.example\r\n\r\n")
        assert wire.read_answer().status == 200


def test_a_subclass_s_own_channels_check_health_too(no_leaks: None) -> None:
    class Channel(WSGIServer.channel_class):
        pass

    class Server(TcpWSGIServer):
        channel_class = Channel

    server = Server(hello, listen=LOOPBACK, health_prefix="/-")
    assert issubclass(server.channel_class, Channel)
    assert Server.channel_class is Channel
    running = Running(server)
    with running.connect() as wire:
        assert wire.get("/-/livez").body == b"ok\n"
    running.stop()
    server.task_dispatcher.shutdown()


# Settings.


@pytest.mark.parametrize(
    "value", ["127.0.0.1:9000", "[::1]:9000", "127.0.0.5:0", "localhost:9000", "unix:/run/x"]
)
def test_loopback_addresses_and_unix_sockets_need_no_leave(value: str) -> None:
    for family, kind, _, _ in Adjustments(status_listen=value).status_listen:
        assert kind == socket.SOCK_STREAM
        assert (family == socket.AF_UNIX) == value.startswith("unix:")


@pytest.mark.parametrize("value", ["0.0.0.0:9000", "*:9000", "192.0.2.1:9000", "[::]:9000"])
def test_addresses_that_others_reach_need_leave(value: str) -> None:
    with pytest.raises(ValueError, match=r"set status_public .*status_listen='"):
        Adjustments(status_listen=value)
    assert Adjustments(status_listen=value, status_public=True).status_listen


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("127.0.0.1", "the port is missing"),
        ("[::1]", "the port is missing"),
        ("fd://3", "inherited descriptors are for listen"),
        (":9000", "the host is empty"),
        ("127.0.0.1:99999", "the port is larger than 65535"),
        ("127.0.0.1:http no", "Cannot listen there"),
    ],
)
def test_what_is_no_address_is_refused_with_what_is_allowed(value: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        Adjustments(status_listen=value)
    assert "allowed: HOST:PORT, [IPv6]:PORT, *:PORT or unix:PATH" in str(caught.value)


def test_where_there_are_no_unix_sockets_such_an_address_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(socket, "AF_UNIX")
    with pytest.raises(ValueError, match="Cannot listen there"):
        Adjustments(status_listen="unix:/run/x")


@pytest.mark.parametrize("value", [None, "", "  "])
def test_nothing_means_none(value: Any) -> None:
    assert Adjustments(status_listen=value).status_listen == []


# The page.


class Elements(HTMLParser):
    """Collects what a document refers to, and its inline parts."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.ids: set[str] = set()
        self.links: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        for name, value in attrs:
            self.attributes.add(name)
            if name in ("href", "src"):
                self.links.add(value or "")
            if name == "id":
                assert value not in self.ids
                self.ids.add(value or "")


@pytest.fixture(scope="module")
def document() -> Elements:
    parsed = Elements()
    parsed.feed(status_page.page().decode("utf-8"))
    return parsed


def test_the_page_needs_nothing_from_elsewhere(document: Elements) -> None:
    assert document.links == {"data:,", "/metrics", "/status.json", "/threads"}
    text = status_page.page().decode("utf-8")
    assert re.findall(r"https?://[^\"]+", text) == ["http://www.w3.org/2000/svg"]
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_no_inline_style_or_script_that_the_policy_does_not_name(
    document: Elements,
) -> None:
    assert document.names.count("style") == document.names.count("script") == 1
    assert "style" not in document.attributes
    assert not any(name.startswith("on") for name in document.attributes)


def test_the_policy_names_what_stands_in_the_page(serve: Serve) -> None:
    answer = ask(serve(hello, status_listen=LOOPBACK), "/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";")
    )
    assert policy["default-src"] == "'none'"
    assert policy["connect-src"] == "'self'"
    for name in ("style", "script"):
        text = re.findall(f"<{name}>(.*?)</{name}>".encode(), answer.body, re.S)[0]
        digest = base64.b64encode(hashlib.sha256(text).digest()).decode()
        assert policy[f"{name}-src"] == f"'sha256-{digest}'"


def test_no_text_of_a_client_s_can_become_markup() -> None:
    text = status_page.page().decode("utf-8")
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
        assert way not in text


def test_every_element_that_the_script_uses_is_there(document: Elements) -> None:
    text = status_page.page().decode("utf-8")
    used = set(re.findall(r"(?:\$|put)\(\"([a-z0-9-]+)\"[,)]", text))
    assert len(used) > 20
    assert used <= document.ids


def test_the_page_knows_every_state_and_class() -> None:
    text = status_page.page().decode("utf-8")
    for name in (*CONNECTION_STATES.values(), "1xx", "2xx", "3xx", "4xx", "5xx", "none"):
        assert f'"{name}": "c' in text


def test_the_monitor_is_not_loaded_for_those_who_do_not_ask() -> None:
    """Memory at the start is for the application."""
    code = (
        "import sys, waitress; waitress.create_server(print, port=0, host='127.0.0.1').close();"
        "print([m for m in ('status', 'stats', 'metrics', 'prometheus', 'loop_answers', 'activity')"
        " if 'waitress.' + m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"


def test_health_checks_are_left_out_of_figures_and_access_log(serve: Serve, tmp_path: Path) -> None:
    """One a second would shift the quantiles of a quiet server."""
    log = tmp_path / "access.log"
    running = serve(hello, health_prefix="/-", access_log=str(log), access_log_format="%(U)s")
    kept = KeptTimelines()
    running.server.subscribe_timelines(kept)
    assert running.server.stats().requests.count == 0
    with running.connect() as wire:
        for path in ("/-/livez", "/mine", "/-/readyz"):
            assert wire.get(path).status == 200
    timelines = kept.await_ends(3)
    assert [each.is_own_answer for each in timelines] == [True, False, True]
    totals = running.server.stats().requests
    assert (totals.count, totals.duration.count, len(totals.slowest)) == (1, 1, 1)
    running.stop()
    assert log.read_text() == "/mine\n"


def test_a_full_status_listener_is_not_taken_for_a_full_server(
    serve: Serve, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "CONNECTION_LIMIT", 1)
    caplog_lines = ("total open connections reached", "total open connections dropped below")
    logging.getLogger("waitress").setLevel(logging.INFO)
    try:
        running = serve(hello, status_listen=LOOPBACK)
        with knock(running) as first, knock(running) as second:
            first.send(b"GET /livez HTTP/1.1\r\n")
            assert heard.wait_for(caplog_lines[0]).startswith("status listener: total open")
            first.send(b"Host: localhost\r\nConnection: close\r\n\r\n")
            assert first.read_answer().status == 200
            assert second.get("/livez").status == 200
            assert heard.wait_for(caplog_lines[1]).startswith("status listener: total open")
    finally:
        logging.getLogger("waitress").setLevel(logging.NOTSET)
