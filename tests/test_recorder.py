"""Timelines: when, how much, and who ended it, for every way in which a request can end."""

from __future__ import annotations

import gc
import io
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import Gate, Running
from tests.compat.live import request as wire_request
from tests.fakes import Simulation, chunks, get, post, request
from tests.functional.applications import hello, large
from tests.watching import KeptTimelines, instants
from waitress.channel import HTTPChannel
from waitress.observer import Observer
from waitress.timeline import TIMES

Serve = Callable[..., Running]
Simulate = Callable[..., Simulation]

GET = wire_request("GET", "/")


def recorded(sim: Simulation) -> KeptTimelines:
    kept = KeptTimelines()
    sim.server.subscribe_timelines(kept)
    return kept


def short(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Length", "5")])
    return [b"abc"]


@pytest.fixture(autouse=True)
def nothing_fails(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """What a recorder runs into would only be logged."""
    yield
    records = caplog.get_records("call")
    assert not [each for each in records if "failed when it was told" in each.getMessage()]


class Stepped:
    """An application that stops wherever something of its timeline happens."""

    def __init__(self) -> None:
        self.sim: Any = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        self.pause("started")
        start_response("200 OK", [("Content-Length", "6")])
        self.pause("head")
        return self

    def __iter__(self) -> Iterator[bytes]:
        yield b"abc"
        self.pause("first")
        yield b"def"
        self.pause("last")

    def close(self) -> None:
        self.pause("close")

    def pause(self, name: str) -> None:
        self.sim.dispatcher.pause(name)

    def go_on(self, name: str) -> None:
        self.sim.advance(1)
        self.sim.dispatcher.resume(name)
        self.sim.settle()


class TestInstants:
    def test_are_those_at_which_things_happened(self, simulate: Simulate):
        application = Stepped()
        sim = application.sim = simulate(application)
        kept = recorded(sim)
        sim.dispatcher.is_held = True
        client = sim.knock(1000)
        sim.settle()
        data = post("/path?a=1", b"12345678")
        for piece in (data[:1], data[1:9], data[9:-5], data[-5:]):
            sim.advance(1)
            client.send(piece)
            sim.settle()
        sim.advance(1)
        sim.dispatcher.is_held = False
        sim.settle()
        application.go_on("started")
        application.go_on("head")
        client.server_end.outgoing.capacity = 0  # The kernel takes nothing more.
        application.go_on("first")
        application.go_on("last")
        application.go_on("close")
        assert kept.timelines == []
        assert sim.channel.timelines[0].last_byte_out is None
        sim.at(1, lambda: setattr(client.server_end.outgoing, "capacity", 1000))
        sim.advance(2)
        assert instants(kept.only, 1000.0) == {
            "accepted": 0,
            "first_byte": 1,
            "head_complete": 3,
            "body_complete": 4,
            "queued": 4,
            "started": 5,
            "application_started": 5,
            "response_started": 6,
            "first_byte_out": 7,
            "application_finished": 9,
            "closed": 10,
            "serviced": 10,
            "last_byte_out": 11,
            "ended": 11,
        }

    def test_of_the_last_byte_is_exact_by_position(self, simulate: Simulate):
        sim = simulate(large(5000))
        kept = recorded(sim)
        client = sim.knock(1000)
        client.is_reading = False
        client.send(get() * 2)
        sim.settle()
        first, second = sim.channel.timelines
        assert first.first_byte_out == 1000
        assert second.serviced is not None
        assert second.first_byte_out is None
        sizes = []
        while not kept.timelines:
            sim.advance(1)
            client.read(1000)
            sim.settle()
            sizes.append(len(client.data) + len(client.sock.incoming.data))
        ended = kept.only
        assert ended is first
        assert sizes[-2] < ended.bytes_out <= sizes[-1]
        assert ended.last_byte_out == sim.clock.now
        # The next one's first byte left with it, or with the next piece.
        began = second.first_byte_out
        assert (began is not None) is (sizes[-1] > ended.bytes_out)
        client.is_reading = True
        sim.settle()
        assert kept.timelines == [first, second]
        assert first.bytes_out + second.bytes_out == len(client.data)
        assert second.last_byte_out == sim.clock.now

    def test_of_pipelined_requests_are_of_the_read_that_held_them(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        client = sim.connect()
        sim.advance(1)
        head = get()
        client.send(head + head[:5])
        sim.settle()
        sim.advance(1)
        client.send(head[5:])
        sim.settle()
        first, second = kept.timelines
        assert (first.first_byte, second.first_byte) == (1001, 1001)
        assert (first.head_complete, second.head_complete) == (1001, 1002)
        assert first.body_complete == first.head_complete
        assert second.accepted == 1000

    def test_of_a_response_that_is_begun_again_is_the_first(self, simulate: Simulate):
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            start_response("200 OK", [])
            sim.dispatcher.pause("error")
            try:
                raise LookupError
            except LookupError:
                start_response("503 Sorry", [], sys.exc_info())
            return [b""]

        sim = simulate(application)
        kept = recorded(sim)
        sim.connect(get())
        sim.advance(1)
        sim.dispatcher.resume("error")
        sim.settle()
        assert (kept.only.response_started, kept.only.status) == (1000, "503 Sorry")

    def test_begin_with_the_head_and_not_with_empty_lines(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        client = sim.connect()
        for piece in (b"\r\n", b"\r\n", b"\r\n", get()):
            sim.advance(1)
            client.send(piece)
            sim.settle()
        assert kept.only.first_byte == 1004

    def test_are_none_where_nothing_but_empty_lines_came(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.connect(b"\r\n").close()
        sim.settle()
        assert kept.timelines == []

    def test_are_in_order_on_real_sockets(self, serve: Serve):
        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            environ["wsgi.input"].read()
            start_response("200 OK", [])
            yield b"abc"

        kept = KeptTimelines()
        running = serve(application)
        running.server.subscribe_timelines(kept)
        with running.connect() as wire:
            wire.send(wire_request("POST", "/x", body=b"12345"))
            assert wire.read_answer().body == b"abc"
            (timeline,) = kept.await_ends(1)
        found = instants(timeline)
        # The first byte may leave before or after the application is done.
        first_out = found.pop("first_byte_out")
        assert found["response_started"] <= first_out <= found["last_byte_out"]
        assert list(found) == [name for name in TIMES if name != "first_byte_out"]
        assert list(found.values()) == sorted(found.values())
        assert timeline.worker != 0
        assert timeline.seconds("queued", "started") == found["started"] - found["queued"]


class TestFacts:
    def test_of_the_request_and_the_response(self, simulate: Simulate):
        sim = simulate(hello, trusted_proxy="127.0.0.1", trusted_proxy_headers="x-forwarded-for")
        kept = recorded(sim)
        data = post("/a%20b?q=1&r=2", b"12345", "X-Request-ID: abc", "traceparent: 00-1")
        client = sim.connect(data)
        timeline = kept.only
        assert (timeline.method, timeline.path, timeline.query) == ("POST", "/a%20b", "q=1&r=2")
        assert (timeline.version, timeline.status) == ("1.1", "200 OK")
        assert timeline.headers["X_REQUEST_ID"] == "abc"
        assert dict(timeline.response_headers)["Content-Length"] == "5"
        assert timeline.bytes_in == len(data)
        assert timeline.bytes_out == len(client.data)
        assert timeline.peer[0] == "127.0.0.1"
        assert timeline.began_at == 1000
        assert timeline.channel_id == sim.channel.channel_id
        assert timeline.request_id > 0
        assert timeline.refusal == ""
        assert timeline.termination == "--"
        assert sim.channel.timelines == []

    @pytest.mark.parametrize(
        ("target", "path", "query"),
        [
            ("http://localhost/a/b?c", "/a/b", "c"),
            ("http://localhost", "/", ""),
            ("http://localhost?c=d/e", "/", "c=d/e"),
            ("/?", "/", ""),
        ],
    )
    def test_of_targets_of_each_form(self, simulate: Simulate, target: str, path: str, query: str):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.connect(request("GET", target))
        assert (kept.only.path, kept.only.query) == (path, query)

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            ("http://user:secret@a.example/x@y?z=1", "http://a.example/x@y"),
            ("http://secret@a.example", "http://a.example"),
            ("user:secret@a.example:443", "a.example:443"),
            ("http://a.example:x/y@z", "http://a.example:x/y@z"),
            ("a.example", "a.example"),
        ],
    )
    def test_of_targets_that_are_refused_hold_no_password(
        self, simulate: Simulate, target: str, path: str
    ):
        sim = simulate(hello)
        kept = recorded(sim)
        method = "GET" if "://" in target else "CONNECT"
        sim.connect(f"{method} {target} HTTP/1.1\r\nHost: a.example\r\n\r\n".encode())
        assert kept.only.path == path

    @pytest.mark.parametrize("coding", ["", "chunked"])
    def test_octets_of_a_body_count_as_they_came(self, simulate: Simulate, coding: str):
        sim = simulate(hello)
        kept = recorded(sim)
        if coding:
            data = request("POST", "/", "Transfer-Encoding: chunked") + chunks(b"abc", b"de")
        else:
            data = post("/", b"abcde")
        sim.connect(b"\r\n" + data)
        assert kept.only.bytes_in == 2 + len(data)

    def test_an_interim_answer_is_no_part_of_the_response(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        client = sim.connect(request("POST", "/", "Content-Length: 2", "Expect: 100-continue"))
        assert bytes(client.data) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"ab")
        sim.settle()
        assert kept.only.bytes_out == len(client.data) - 25

    def test_environ_is_there_for_listeners_and_gone_afterwards(self, simulate: Simulate):
        seen = []

        class Listener(KeptTimelines):
            environ_names = ("PATH_INFO", "REMOTE_USER")

            def timeline_ended(self, timeline: Any) -> None:
                seen.append(timeline.environ)
                super().timeline_ended(timeline)

        sim = simulate(hello)
        kept = Listener()
        sim.server.subscribe_timelines(kept)
        sim.connect(get("/x"))
        assert seen == [{"PATH_INFO": "/x"}]
        assert kept.only.environ is None

    def test_environ_is_let_go_while_the_client_still_reads(self, simulate: Simulate):
        """And with it whatever the application keeps in there."""

        class Listener(KeptTimelines):
            environ_names = ("REMOTE_USER",)

        class Session:
            pass

        sessions: list[weakref.ref[Session]] = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            session = environ["session"] = Session()
            environ["REMOTE_USER"] = "joe"
            sessions.append(weakref.ref(session))
            return hello(environ, start_response)

        sim = simulate(application)
        kept = Listener()
        sim.server.subscribe_timelines(kept)
        client = sim.knock(10)
        client.is_reading = False
        client.send(get())
        sim.settle()
        assert not kept.timelines
        assert sim.channel.timelines[0].environ == {"REMOTE_USER": "joe"}
        gc.collect()
        assert sessions[0]() is None

    def test_environ_that_nobody_wants_is_not_kept(self, simulate: Simulate):
        gate = []

        def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
            gate.append(sim.channel.timelines[0].environ)
            return hello(environ, start_response)

        sim = simulate(application)
        recorded(sim)
        sim.connect(get())
        assert gate == [None]

    def test_nothing_of_the_connection_is_held_afterwards(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.connect(get())
        timeline: Any = kept.only
        assert (timeline.channel, timeline.request) == (None, None)

    def test_files_are_counted_and_timed_by_position(self, serve: Serve, tmp_path: Path):
        """By sendfile: the small response behind the file is in the buffer at once."""
        size = 20_000_000
        (tmp_path / "file").write_bytes(b"x" * size)

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/small":
                return hello(environ, start_response)
            start_response("200 OK", [])
            file = open(tmp_path / "file", "rb")  # noqa: SIM115 - the server closes it
            return environ["wsgi.file_wrapper"](file)

        kept = KeptTimelines()
        sent_at: list[int] = []

        class Positions(Observer):
            listening = True

            def request_finished(self, request: Any) -> None:
                sent_at.append(request.timeline.channel.outbound.sent_total)

        running = serve(application)
        running.server.subscribe(Positions())
        running.server.subscribe_timelines(kept)
        with running.connect() as wire:
            wire.send(wire_request("GET", "/large") + wire_request("GET", "/small"))
            total = 0
            tail = b""
            while not tail.endswith(b"hello"):
                data = wire.sock.recv(1 << 20)
                total += len(data)
                tail = (tail + data)[-5:]
            first, second = kept.await_ends(2)
        assert first.bytes_out > size
        assert first.bytes_out + second.bytes_out == total
        assert sent_at[0] >= first.bytes_out
        assert sent_at[1] == total
        assert first.last_byte_out >= first.first_byte_out
        assert second.first_byte_out >= first.last_byte_out - 0.05
        assert first.last_byte_out > second.serviced  # It waited for its reader.


def reset(sim: Simulation, client: Any) -> None:
    client.reset()
    sim.settle()


class TestTermination:
    """One test for each way to end: who, in which phase."""

    def test_nobody(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.connect(get() * 3)
        assert kept.codes == ["--"] * 3

    @pytest.mark.parametrize(
        ("data", "code", "status"),
        [(b"G", "CH", ""), (get()[:-2], "CH", ""), (post("/", b"abc")[:-1], "CB", "")],
    )
    def test_client_that_leaves_while_it_sends(
        self, simulate: Simulate, data: bytes, code: str, status: str
    ):
        sim = simulate(hello)
        kept = recorded(sim)
        client = sim.connect(data)
        assert len(sim.channel.timelines) == 1
        client.close()
        sim.settle()
        assert kept.codes == [code]
        assert kept.only.bytes_in == len(data)
        assert kept.only.bytes_out == 0
        assert kept.only.status == status

    def test_client_that_leaves_while_it_is_queued(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.dispatcher.is_held = True
        client = sim.connect(get() * 2)
        reset(sim, client)
        sim.dispatcher.is_held = False
        sim.settle()
        assert kept.codes == ["CQ", "CQ"]

    @pytest.mark.parametrize(
        ("name", "code"), [("started", "CA"), ("head", "CD"), ("first", "CD"), ("last", "CD"),
                           ("close", "CL")]
    )  # fmt: skip
    def test_client_that_resets_while_the_application_runs(
        self, simulate: Simulate, name: str, code: str
    ):
        application = Stepped()
        sim = application.sim = simulate(application)
        kept = recorded(sim)
        client = sim.connect(get() * 2)
        for each in ("started", "head", "first", "last", "close"):
            if each == name:
                break
            application.go_on(each)
        reset(sim, client)
        # The one behind it has ended; this one has when its application has.
        assert kept.codes == ["CQ"]
        application.go_on(name)
        sim.dispatcher.finish()
        sim.settle()
        assert kept.codes == ["CQ", code]
        last = kept.timelines[-1]
        assert last.ended == last.serviced == sim.clock.now

    def test_client_that_goes_while_a_worker_takes_its_request(self, simulate: Simulate):
        """The worker has it, and finds nobody to run the application for."""
        sim = simulate(hello)
        kept = recorded(sim)
        sim.dispatcher.is_held = True
        client = sim.connect(get())
        head = sim.channel.request_queue.head

        def taken() -> Any:
            request = head()
            client.reset()
            for _ in range(3):
                sim.turn()
            return request

        sim.channel.request_queue.head = taken
        sim.dispatcher.is_held = False
        sim.settle()
        assert kept.codes == ["CQ"]
        assert kept.only.application_started is None

    @pytest.mark.parametrize("started", [False, True])
    def test_application_that_writes_after_the_client_has_left(
        self, simulate: Simulate, started: bool
    ):
        def application(environ: dict[str, Any], start_response: Any) -> Any:
            sim.dispatcher.pause("before")
            return hello(environ, start_response)

        sim = simulate(application, channel_request_lookahead=1)
        kept = recorded(sim)
        client = sim.connect(get())
        client.shutdown()
        sim.settle()
        sim.dispatcher.resume("before")
        sim.settle()
        assert kept.codes == ["CD"]
        assert kept.only.bytes_out == 0
        assert kept.only.first_byte_out is kept.only.last_byte_out is None

    def test_client_that_resets_while_the_last_bytes_leave(self, simulate: Simulate):
        sim = simulate(large(5000))
        kept = recorded(sim)
        client = sim.knock(1000)
        client.is_reading = False
        client.send(get())
        sim.settle()
        reset(sim, client)
        assert kept.codes == ["CL"]
        assert kept.only.bytes_out == 1000
        assert kept.only.last_byte_out is None

    def test_client_that_reads_too_slowly(self, simulate: Simulate):
        sim = simulate(large(5000))
        kept = recorded(sim)
        client = sim.knock(1000)
        client.is_reading = False
        client.send(get())
        sim.advance(200)
        assert kept.codes == ["CL"]

    @pytest.mark.parametrize(
        ("data", "code", "reason"),
        [
            (b"GET / HT", "CH", "header-timeout"),
            (post("/", b"abc")[:-1], "CB", "body-timeout"),
        ],
    )
    def test_client_that_sends_too_slowly(
        self, simulate: Simulate, data: bytes, code: str, reason: str
    ):
        sim = simulate(hello)
        kept = recorded(sim)
        client = sim.connect(data)
        sim.advance(200)
        assert kept.codes == [code]
        timeline = kept.only
        assert (timeline.refusal, timeline.status) == (reason, "408 Request Timeout")
        assert timeline.bytes_out == len(client.data)
        assert timeline.worker == 0

    @pytest.mark.parametrize(
        ("data", "code", "status", "reason"),
        [
            (b"GET / HTTP/1.1\r\n\r\n", "SH", 400, "no-host"),
            (b"GET / HTTP/1.1\n\n", "SH", 400, "bare-cr-lf"),
            (b"nonsense\r\n\r\n", "SH", 400, "bad-request-line"),
            (b"GET / HTTP/2.0\r\n\r\n", "SH", 505, "version"),
            (get("/", "A: " + "b" * 500), "SH", 431, "head-too-large"),
            (request("POST", "/", "Content-Length: 1000"), "SH", 413, "body-too-large"),
            (
                request("POST", "/", "Transfer-Encoding: chunked") + b"400\r\n",
                "SB",
                413,
                "body-too-large",
            ),
            (
                request("POST", "/", "Transfer-Encoding: chunked") + b"5\r\nabc",
                "CB",
                0,
                "",
            ),
            (
                request("POST", "/", "Transfer-Encoding: chunked") + b"x\r\n",
                "SB",
                400,
                "bad-chunk-size",
            ),
        ],
    )
    def test_server_that_refuses(
        self, simulate: Simulate, data: bytes, code: str, status: int, reason: str
    ):
        sim = simulate(hello, max_request_header_size=500, max_request_body_size=500)
        kept = recorded(sim)
        client = sim.connect(data)
        client.close()
        sim.settle()
        assert kept.codes == [code]
        timeline = kept.only
        assert (timeline.refusal, timeline.status[:3]) == (reason, str(status or ""))
        assert timeline.bytes_in == len(data)

    def test_what_was_not_understood_is_not_told(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.connect(b"nonsense\r\n\r\n")
        sim.connect(b"GET / HTTP/1.1\n")
        for timeline in kept.timelines:
            assert (timeline.method, timeline.path, timeline.version) == ("", "", "")

    def test_server_without_room_for_the_body(self, simulate: Simulate):
        sim = simulate(hello, inbuf_overflow=1000, outbuf_high_watermark=10_000, spool_limit=50_000)
        kept = recorded(sim)
        client = sim.connect(request("POST", "/", "Content-Length: 100000"))
        for _ in range(10):
            client.send(b"x" * 10_000)
            sim.settle()
        assert client.response().status == 507
        assert kept.codes == ["SB"]
        assert kept.only.refusal == "spool-full"

    def test_server_that_turns_a_client_away(self, simulate: Simulate):
        sim = simulate(hello, connection_limit_per_ip=1)
        kept = recorded(sim)
        sim.connect()
        assert sim.connect().response().status == 503
        assert kept.codes == ["SH"]
        assert kept.only.refusal == "connection-limit-per-ip"
        assert kept.only.first_byte is None

    def test_server_that_needs_the_place_of_a_slow_head(self, simulate: Simulate):
        sim = simulate(hello, connection_limit=1)
        kept = recorded(sim)
        sim.connect(b"GET / HT")
        sim.advance(8)
        assert sim.connect(get()).response().status == 200
        assert kept.codes == ["SH", "--"]
        assert kept.timelines[0].refusal == "evicted"

    def test_server_that_needs_the_spool_of_a_stalled_reader(self, simulate: Simulate):
        sim = simulate(
            large(5000), outbuf_overflow=100, outbuf_high_watermark=1000, spool_limit=6000
        )
        kept = recorded(sim)
        for _ in range(2):
            client = sim.knock(1000)
            client.is_reading = False
            client.send(get())
            sim.settle()
            sim.advance(6)
        sim.channels[0].clients.relieve_spool(sim.clock.now, None)
        assert kept.codes == ["SL"]

    @pytest.mark.parametrize(
        ("step", "code", "status"), [(0, "AA", 500), (1, "AD", 500), (2, "AD", 200), (3, "AD", 200)]
    )
    @pytest.mark.parametrize("error", [ValueError, SystemExit, OSError])
    def test_application_that_raises(
        self, simulate: Simulate, step: int, code: str, status: int, error: type[BaseException]
    ):
        class Failing:
            def __iter__(self) -> Iterator[bytes]:
                yield b"abc"
                if step == 2:
                    raise error("on purpose")

            def close(self) -> None:
                if step == 3:
                    raise error("on purpose")

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            if step == 0:
                raise error("on purpose")
            start_response("200 OK", [("Content-Length", "6" if step == 2 else "3")])
            if step == 1:
                raise error("on purpose")
            return Failing()

        sim = simulate(application)
        kept = recorded(sim)
        client = sim.connect(get() * 2)
        assert kept.codes[0] == "AQ" if step else "AA"
        timeline = next(each for each in kept.timelines if each.started is not None)
        assert timeline.termination == code
        assert timeline.status[:3] == str(status)
        assert timeline.bytes_out == len(client.data)
        assert sorted(kept.codes) == sorted([code, "AQ"])

    def test_application_that_breaks_its_promise(self, simulate: Simulate):
        sim = simulate(short)
        kept = recorded(sim)
        sim.connect(get() * 2)
        assert sorted(kept.codes) == ["AD", "AQ"]

    def test_server_that_wants_the_connection_back_before_the_next(self, simulate: Simulate):
        sim = simulate(hello, connection_limit=1)  # It is crowded with the first.
        kept = recorded(sim)
        sim.connect(get() * 2)
        assert sorted(kept.codes) == ["--", "SQ"]

    def test_server_whose_disk_fails(self, simulate: Simulate, tmp_path: Path):
        spool = tmp_path / "spool"
        spool.mkdir()
        sim = simulate(large(5000), outbuf_overflow=100, spool_dir=str(spool))
        kept = recorded(sim)
        spool.rmdir()
        sim.connect(get())
        assert kept.codes == ["SD"]

    def test_server_whose_disk_fails_before_a_body_is_invited(
        self, simulate: Simulate, tmp_path: Path
    ):
        spool = tmp_path / "spool"
        spool.mkdir()
        sim = simulate(hello, outbuf_overflow=1, spool_dir=str(spool))
        kept = recorded(sim)
        spool.rmdir()
        sim.connect(request("POST", "/", "Content-Length: 2", "Expect: 100-continue"))
        assert kept.codes == ["SB"]

    @pytest.mark.skipif(not hasattr(os, "pread"), reason="files are read otherwise")
    def test_server_that_finds_a_file_shorter_than_it_was(self, simulate: Simulate, tmp_path: Path):
        path = tmp_path / "file"
        path.write_bytes(b"x" * 500_000)

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            start_response("200 OK", [])
            file = open(path, "rb")  # noqa: SIM115 - the server closes it
            return environ["wsgi.file_wrapper"](file)

        sim = simulate(application)
        kept = recorded(sim)
        client = sim.knock(1000)
        client.is_reading = False
        client.send(get())
        sim.settle()
        os.truncate(path, 0)
        client.is_reading = True
        sim.settle()
        assert kept.codes == ["SL"]

    def test_server_whose_dispatcher_fails(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)

        def refuse(task: Any) -> None:
            raise LookupError("full")

        sim.server.add_task = refuse
        sim.connect(get())
        assert kept.codes == ["SQ"]

    def test_server_whose_worker_fails(self, simulate: Simulate):
        """Outside of the application: in a method of a subclass, say."""

        class Failing(HTTPChannel):
            def service(self) -> None:
                self.service_failed()

        sim = simulate(hello)
        sim.server.channel_class = Failing
        kept = recorded(sim)
        sim.connect(get())
        assert kept.codes == ["SQ"]

    def test_operator_who_shuts_the_workers_down(self, simulate: Simulate):
        sim = simulate(hello)
        kept = recorded(sim)
        sim.dispatcher.is_held = True
        sim.connect(get() * 2)
        sim.dispatcher.shutdown()
        sim.settle()
        assert kept.codes == ["OQ", "OQ"]

    @pytest.mark.parametrize("how", ["close", "will_close"])
    def test_operator_who_closes_the_connection(self, simulate: Simulate, how: str):
        application = Stepped()
        sim = application.sim = simulate(application)
        kept = recorded(sim)
        sim.connect(get())
        if how == "close":
            sim.channel.close()
        else:
            sim.channel.will_close = True
        sim.settle()
        sim.dispatcher.finish()
        assert kept.codes == ["OA"]

    def test_operator_who_stops_the_server(self, serve: Serve):
        entered, go_on = threading.Event(), threading.Event()

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            entered.set()
            go_on.wait(20)
            return hello(environ, start_response)

        kept = KeptTimelines()
        running = serve(application, threads=1)
        running.server.subscribe_timelines(kept)
        with running.connect() as wire, running.connect() as other:
            wire.send(GET)
            assert entered.wait(20)
            other.send(GET)
            running.call_in_loop(lambda: None)
            while len(running.server.clients.channels) < 2:
                running.call_in_loop(lambda: None)
            running.call_in_loop(lambda: [each.close() for each in list(
                running.server.clients.channels)])  # fmt: skip
            go_on.set()
            kept.await_ends(1)
            running.stop()
        assert "OA" in kept.codes
        assert set(kept.codes) <= {"OA", "OQ"}

    def test_first_cause_counts(self, simulate: Simulate):
        """Who was refused, and leaves before it reads why, was still refused."""
        sim = simulate(hello)
        kept = recorded(sim)
        client = sim.knock(10)
        client.is_reading = False
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        sim.settle()
        assert kept.timelines == []
        reset(sim, client)
        assert kept.codes == ["SH"]
        assert kept.only.last_byte_out is None
        assert kept.only.bytes_out == 10


class TestListeners:
    def test_are_told_in_the_loop_though_the_end_was_seen_by_a_worker(self, serve: Serve):
        """All bytes have left before the application is done."""
        go_on = threading.Event()

        def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
            start_response("200 OK", [("Content-Length", "3")])
            yield b"abc"
            go_on.wait(20)

        kept = KeptTimelines()
        running = serve(application)
        running.server.subscribe_timelines(kept)
        with running.connect() as wire:
            wire.send(GET)
            assert wire.read_answer().body == b"abc"
            running.call_in_loop(lambda: None)
            go_on.set()
            (timeline,) = kept.await_ends(1)
        assert timeline.termination == "--"
        assert timeline.last_byte_out >= timeline.application_finished
        assert kept.threads == ["loop"]

    def test_are_told_soon_of_what_another_thread_has_ended(self, serve: Serve):
        """The loop would sleep for longer than the test has patience."""
        gate = Gate()
        kept = KeptTimelines()
        running = serve(gate, asyncore_loop_timeout=300)
        running.server.subscribe_timelines(kept)
        running.call_in_loop(lambda: None)
        with running.connect() as wire:
            wire.send(GET * 2)
            gate.await_entry()
            (channel,) = running.server.clients.channels
            running.server.observer.request_cancelled(channel.requests[1])
            assert kept.await_ends(1)[0].started is None
            assert kept.threads == ["loop"]
            gate.opened.set()
            assert [wire.read_answer().status for _ in range(2)] == [200, 200]
            kept.await_ends(2)

    def test_are_told_by_the_worker_when_no_loop_runs_any_more(self, serve: Serve):
        entered, go_on = threading.Event(), threading.Event()

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            entered.set()
            go_on.wait(20)
            return hello(environ, start_response)

        kept = KeptTimelines()
        running = serve(application)
        running.server.subscribe_timelines(kept)
        with running.connect() as wire:
            wire.send(GET)
            assert entered.wait(20)
            from waitress import wasyncore

            running.call_in_loop(lambda: wasyncore.close_all(running.server._map))
            running.await_end()
            assert kept.timelines == []
            go_on.set()
            kept.await_ends(1)
        assert kept.codes == ["OA"]

    def test_that_fail_harm_nobody_and_are_told_of_once(self, simulate: Simulate, caplog: Any):
        class Failing:
            def timeline_ended(self, timeline: Any) -> None:
                raise LookupError("on purpose")

        sim = simulate(hello)
        sim.server.subscribe_timelines(Failing())
        kept = recorded(sim)
        client = sim.connect(get() * 3)
        assert [each.status for each in client.responses()] == [200] * 3
        assert kept.codes == ["--"] * 3
        assert [each.levelno for each in caplog.records if each.exc_info] == [logging.ERROR]
        caplog.clear()

    def test_may_come_twice_and_go(self, simulate: Simulate):
        sim = simulate(hello)
        kept = KeptTimelines()
        sim.server.subscribe_timelines(kept)
        sim.server.subscribe_timelines(kept)
        client = sim.connect(get())
        assert len(kept.timelines) == 1
        sim.server.unsubscribe_timelines(kept)
        client.send(get())
        sim.settle()
        assert len(kept.timelines) == 1

    def test_that_were_the_last_end_the_recording(self, simulate: Simulate):
        """What nobody listens to costs nothing, as if nobody ever had."""
        sim = simulate(hello)
        first, second = recorded(sim), recorded(sim)
        client = sim.connect(get())
        sim.server.unsubscribe_timelines(first)
        assert sim.server.observer.listening
        sim.server.unsubscribe_timelines(second)
        assert not sim.channel.observer.listening
        client.send(get())
        sim.settle()
        again = recorded(sim)
        client.send(get("/again"))
        sim.settle()
        assert len(client.responses()) == 3
        assert [each.path for each in again.timelines] == ["/again"]

    def test_that_leave_and_come_meanwhile_hear_nothing_of_what_they_missed(
        self, simulate: Simulate
    ):
        sim = simulate(hello)
        kept = recorded(sim)
        half = sim.connect(b"GET /half HT")
        sim.dispatcher.is_held = True
        queued = sim.connect(get("/queued") + get("/next"))
        body = sim.connect(post("/body", b"abc")[:-1])
        first, _ = next(each for each in sim.channels if each.requests).requests
        life = weakref.ref(first.timeline)
        sim.server.unsubscribe_timelines(kept)
        assert life() is None
        sim.server.subscribe_timelines(kept)
        sim.dispatcher.is_held = False
        sim.settle()
        half.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        body.send(b"c")
        sim.settle()
        assert [each.status for each in queued.responses()] == [200] * 2
        assert [each.path for each in kept.timelines] == ["/half", "/body"]
        assert kept.codes == ["--"] * 2

    def test_that_leave_before_the_loop_has_told_them_do_no_harm(self, simulate: Simulate):
        """A request has ended in its worker; the loop comes to it afterwards."""
        sim = simulate(hello)
        kept = recorded(sim)
        recorder = sim.server.audience.record()
        client = sim.connect(get()[:-2])
        channel = sim.channel
        (life,) = channel.timelines
        life.is_over = True
        recorder._ended.append(life)
        sim.server.unsubscribe_timelines(kept)
        sim.server.subscribe_timelines(kept)
        recorder.handle_ready()
        assert kept.timelines == [life]
        assert not channel.timelines
        client.close()
        sim.settle()

    def test_that_go_leave_the_environ_its_timelines(self, simulate: Simulate):
        sim = simulate(hello, timeline_environ=True)
        sim.server.unsubscribe_timelines(recorded(sim))
        assert sim.server.observer.listening

    def test_that_come_late_are_told_of_open_connections(self, simulate: Simulate):
        sim = simulate(hello)
        client = sim.connect(get())
        sim.dispatcher.is_held = True
        client.send(get("/before"))
        sim.settle()
        half = sim.connect(b"GET / HT")
        body = sim.connect(post("/body", b"abc")[:-1])
        kept = recorded(sim)
        sim.dispatcher.is_held = False
        sim.settle()
        assert kept.timelines == []  # Nothing was known of it.
        client.send(get("/after"))
        half.send(b"TP/1.1\r\nHost: a\r\n\r\n")
        body.send(b"c")
        sim.settle()
        assert [each.path for each in kept.timelines] == ["/after", "/", "/body"]
        assert kept.codes == ["--"] * 3
        assert [each.accepted for each in kept.timelines] == [None] * 3

    def test_requests_that_nobody_recorded_end_in_peace(self, simulate: Simulate):
        """Each event of theirs comes to a recorder that does not know them."""
        application = Stepped()
        sim = application.sim = simulate(application)
        first = sim.connect(get())
        second = sim.connect(get() * 2)
        kept = recorded(sim)
        for name in ("started", "head", "first", "last", "close"):
            application.go_on(name)
        assert first.response().body == b"abcdef"
        reset(sim, second)
        sim.dispatcher.finish()
        assert kept.timelines == []

        def failing(environ: dict[str, Any], start_response: Any) -> Any:
            raise LookupError

        sim = simulate(failing)
        sim.dispatcher.is_held = True
        client = sim.connect(get())
        kept = recorded(sim)
        sim.dispatcher.is_held = False
        sim.settle()
        assert client.response().status == 500
        assert kept.timelines == []

        def streaming(environ: dict[str, Any], start_response: Any) -> Any:
            start_response("200 OK", [])
            return (each for each in (b"abc",))

        sim = simulate(streaming)
        sim.dispatcher.is_held = True
        client = sim.connect(get())
        kept = recorded(sim)
        sim.dispatcher.is_held = False
        sim.settle()
        assert client.response().body == b"abc"
        assert kept.timelines == []


class TestTheEnviron:
    def test_has_neither_key_by_default(self, simulate: Simulate):
        seen: dict[str, Any] = {}

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            seen.update(environ)
            return hello(environ, start_response)

        sim = simulate(application)
        recorded(sim)
        sim.connect(get())
        assert not {"waitress.timeline", "waitress.request_id"} & seen.keys()

    def test_has_both_where_that_is_set(self, simulate: Simulate):
        seen: dict[str, Any] = {}
        passed: list[Any] = []

        def application(environ: dict[str, Any], start_response: Any) -> Any:
            seen.update(environ)
            view = environ["waitress.timeline"]
            passed.append((view.application_started, view.response_started, view.ended))
            return hello(environ, start_response)

        sim = simulate(application, timeline_environ=True)
        kept = recorded(sim)
        sim.connect(get("/", "X-Request-ID: evil", "traceparent: 00-2"))
        assert passed == [(1000, None, None)]
        view = seen["waitress.timeline"]
        assert seen["waitress.request_id"] == view.request_id == kept.only.request_id
        # After the response, for a middleware that has kept it.
        assert (view.ended, view.termination, view.status) == (1000, "--", "200 OK")
        assert seen["HTTP_X_REQUEST_ID"] == "evil"
        assert seen["HTTP_TRACEPARENT"] == "00-2"

    def test_of_a_subclass_that_makes_its_own_is_left_alone(self, simulate: Simulate):
        class Task(HTTPChannel.task_class):
            def get_environment(self) -> dict[str, Any]:
                return {"PATH_INFO": "/own", "wsgi.input": io.BytesIO()}

        class Channel(HTTPChannel):
            task_class = Task

        sim = simulate(hello, timeline_environ=True, clear_untrusted_proxy_headers=False)
        sim.server.channel_class = Channel
        kept = recorded(sim)
        assert sim.connect(get()).response().status == 200
        assert kept.codes == ["--"]
