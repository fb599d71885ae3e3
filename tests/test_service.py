"""The worker's side of a connection: whatever a task does, the connection ends or goes on."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.fakes import Incomplete, RecordingObserver, Simulation, chunks, get, post, request
from tests.functional.applications import Never, hello, path
from waitress.channel import HTTPChannel
from waitress.outbound import ClientDisconnected
from waitress.parser import HTTPRequestParser
from waitress.task import ErrorTask, WSGITask

Simulate = Callable[..., Simulation]

SILENT_TEXT = b"The server encountered an unexpected internal server error"


class Failing:
    """An application that raises at a point of its own choice; at ``/ok`` it does not."""

    def __init__(self, error: BaseException, *, before: bytes | None = None, length: int = 0):
        self.error = error
        self.before = before
        self.length = length

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/ok":
            return hello(environ, start_response)
        if self.before is None:
            raise self.error
        headers = [("Content-Length", str(self.length))] if self.length else []
        start_response("200 OK", headers)
        return self._body()

    def _body(self) -> Iterator[bytes]:
        assert self.before is not None
        yield self.before
        raise self.error


EVERY_KIND = [
    ValueError("of the application"),
    OSError("of the application"),
    SystemExit(1),
    KeyboardInterrupt(),
    GeneratorExit(),
    MemoryError(),
    RecursionError(),
    BaseException("of no kind"),
]


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_whatever_an_application_raises_is_answered_500(
    error: BaseException, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(Failing(error))
    client = sim.connect(get("/x") + get("/ok"))
    response = client.response()
    assert (response.status, response.headers["connection"]) == (500, "close")
    assert SILENT_TEXT in response.body
    assert client.ended
    (record,) = caplog.records
    assert record.getMessage() == "Exception while serving /x"
    assert record.exc_info
    assert record.exc_info[1] is error


@pytest.mark.parametrize("error", EVERY_KIND, ids=lambda error: type(error).__name__)
def test_whatever_an_application_raises_in_mid_body_cuts_the_response(
    error: BaseException, simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(Failing(error, before=b"abc"))
    client = sim.connect(get("/x") + get("/ok"))
    with pytest.raises(Incomplete):
        client.responses()
    assert client.data.endswith(b"\r\n\r\n3\r\nabc\r\n")
    assert client.ended
    assert caplog.messages == ["Exception while serving /x"]


def test_traceback_is_shown_to_the_client_only_when_asked_for(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    # Its text cannot be encoded, by us or by whoever passes on what was logged.
    caplog.set_level(logging.CRITICAL, "waitress")
    sim = simulate(Failing(ValueError("caf\udce9")), expose_tracebacks=True)
    body = sim.connect(get("/x")).response().body
    assert b"Traceback (most recent call last)" in body
    assert SILENT_TEXT not in body


@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_failure_is_answered_in_the_version_of_the_request(
    version: str, simulate: Simulate
) -> None:
    client = simulate(Failing(ValueError())).connect(get("/x", version=version))
    assert client.response().version == version


def test_failure_under_keep_alive_of_http10_is_answered_with_close(simulate: Simulate) -> None:
    sim = simulate(Failing(ValueError()))
    client = sim.connect(get("/x", "Connection: keep-alive", version="1.0"))
    assert client.response().headers["connection"] == "close"
    assert client.ended


def test_failure_of_a_head_request_is_answered_without_a_body(simulate: Simulate) -> None:
    client = simulate(Failing(ValueError())).connect(request("HEAD", "/x"))
    response = client.response("HEAD")
    assert response.status == 500
    assert int(response.headers["content-length"]) > 0
    assert client.ended


def test_response_short_of_its_length_is_ended_in_order(simulate: Simulate) -> None:
    client = simulate(Failing(ValueError(), before=b"abc", length=5)).connect(get("/x"))
    assert client.data.endswith(b"\r\n\r\nabc")
    assert client.ended


def test_response_that_is_whole_when_the_application_fails_is_not_cut(simulate: Simulate) -> None:
    client = simulate(Failing(ValueError(), before=b"abc", length=3)).connect(get("/x"))
    assert client.response().body == b"abc"
    assert client.ended


def test_response_that_would_end_with_the_connection_is_cut_by_a_reset(
    simulate: Simulate,
) -> None:
    """Nothing else tells an HTTP/1.0 client that there was to be more."""
    client = simulate(Failing(ValueError(), before=b"abc")).connect(get("/x", version="1.0"))
    assert client.was_reset


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize("version", ["1.0", "1.1"])
def test_response_without_a_body_is_not_reset_when_its_application_fails(
    status: str, version: str, simulate: Simulate
) -> None:
    """It is whole: a reset could only destroy it."""

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response(status, [])(b"")
        yield b""
        raise ValueError

    client = simulate(application).connect(get(version=version))
    assert client.response().status == int(status[:3])
    assert client.ended


def test_answer_to_head_is_not_reset_when_its_application_fails(simulate: Simulate) -> None:
    client = simulate(Failing(ValueError(), before=b"abc")).connect(
        request("HEAD", "/x", version="1.0")
    )
    assert client.response("HEAD").status == 200
    assert client.ended


def test_worker_goes_on_to_other_connections_after_a_failure(simulate: Simulate) -> None:
    sim = simulate(Failing(SystemExit()))
    sim.connect(get("/x"))
    assert sim.connect(get("/ok")).response().body == b"hello"
    assert sim.dispatcher.served == 2


# -- the client leaves ----------------------------------------------------------------------


def test_disconnected_client_is_logged_without_a_traceback(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)

    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        sim.dispatcher.pause("between")
        yield b"two"

    sim = simulate(application)
    client = sim.connect(get("/gone"))
    client.reset()
    sim.settle()
    sim.dispatcher.resume("between")
    assert "Client disconnected while serving /gone" in caplog.messages
    assert not any(record.exc_info for record in caplog.records)


def test_request_of_a_channel_that_was_declared_disconnected_is_not_run(
    simulate: Simulate,
) -> None:
    application = Never()
    sim = simulate(application)
    sim.dispatcher.is_held = True
    client = sim.connect(get())
    sim.channel.connected = False
    sim.dispatcher.is_held = False
    sim.settle()
    assert client.data == b""
    assert client.ended
    assert not application.was_run


def test_turn_of_a_connection_that_ended_meanwhile_is_harmless(simulate: Simulate) -> None:
    application = Never()
    sim = simulate(application)
    sim.dispatcher.is_held = True
    client = sim.connect(get())
    client.reset()
    sim.settle()
    assert not sim.channels
    sim.dispatcher.is_held = False
    sim.settle()
    assert sim.dispatcher.served == 1
    assert not application.was_run


def test_failure_after_the_client_left_is_answered_to_nobody(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Any:
        sim.dispatcher.pause("before the failure")
        raise ValueError

    sim = simulate(application)
    client = sim.connect(get("/x"))
    client.reset()
    sim.settle()
    sim.dispatcher.resume("before the failure")
    sim.settle()
    assert caplog.messages == ["Exception while serving /x"]


# -- tasks of the users' own ----------------------------------------------------------------


class Stand:
    """A task with what a channel may ask of one, and no more (see TaskChannel)."""

    error: BaseException | None = None
    first: bytes = b""
    close_on_finish = False
    wrote_header = False

    def __init__(self, channel: Any, request: Any) -> None:
        self.channel = channel
        self.request = request

    def service(self) -> None:
        if self.first:
            self.wrote_header = True
            self.channel.write_soon(self.first)
        if self.error is not None:
            raise self.error


class BrokenTask(WSGITask):
    def __init__(self, channel: Any, request: Any) -> None:
        raise LookupError("no such task")


def channel_class(**attributes: Any) -> type[HTTPChannel]:
    """Return a channel class with these attributes."""
    return type("Channel", (HTTPChannel,), attributes)


def test_stand_in_for_a_task_answers(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.channel_class = channel_class(task_class=type("Task", (Stand,), {"first": b"raw"}))
    client = sim.connect(get() + get())
    assert bytes(client.data) == b"rawraw"
    assert client.is_open


def test_stand_in_for_a_task_that_fails_in_mid_response_ends_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    task = type("Task", (Stand,), {"first": b"raw", "error": ValueError()})
    sim = simulate(hello)
    sim.server.channel_class = channel_class(task_class=task)
    client = sim.connect(get("/x"))
    assert not client.is_open
    client.close()
    sim.settle()
    assert not sim.channels
    assert caplog.messages == ["Exception while serving /x"]


def test_task_that_cannot_be_made_ends_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    sim = simulate(hello)
    sim.server.channel_class = channel_class(task_class=BrokenTask)
    client = sim.connect(get("/x"))
    assert not client.is_open
    client.close()
    sim.settle()
    assert not sim.channels
    assert "Exception while serving /x" in caplog.messages


def test_error_task_that_fails_ends_the_connection(
    simulate: Simulate, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(ErrorTask):
        def execute(self) -> None:
            raise LookupError("no such page")

    sim = simulate(Failing(ValueError()))
    sim.server.channel_class = channel_class(error_task_class=Broken)
    client = sim.connect(get("/x"))
    assert (bytes(client.data), client.ended) == (b"", True)
    assert caplog.messages == ["Exception while serving /x"] * 2


def test_error_task_that_fails_in_mid_response_cuts_it(simulate: Simulate) -> None:
    class Broken(ErrorTask):
        def execute(self) -> None:
            super().execute()
            raise LookupError("no such page")

    sim = simulate(Failing(ValueError()))
    sim.server.channel_class = channel_class(error_task_class=Broken)
    client = sim.connect(get("/x"))
    # All of it was written, so that there was nothing to cut.
    assert client.response().status == 500
    assert client.ended


def test_error_task_that_is_cut_before_its_length_is_known_is_reset(simulate: Simulate) -> None:
    class Broken(ErrorTask):
        def execute(self) -> None:
            self.status = "500 Oh"
            self.write(b"some")
            raise LookupError("no such page")

    sim = simulate(Failing(ValueError()))
    sim.server.channel_class = channel_class(error_task_class=Broken)
    assert sim.connect(get("/x", version="1.0")).was_reset


def test_answer_to_a_failure_knows_what_was_asked(simulate: Simulate) -> None:
    told: list[tuple[str, ...]] = []

    class Telling(ErrorTask):
        def execute(self) -> None:
            asked = self.request
            told.append((asked.command, asked.path, asked.query, asked.request_uri))
            told.append((asked.url_scheme,))
            super().execute()

    class Parser(HTTPRequestParser):
        url_scheme = "own"

    sim = simulate(Failing(ValueError()))
    sim.server.channel_class = channel_class(error_task_class=Telling, parser_class=Parser)
    assert sim.connect(get("/x?y")).response().status == 500
    assert told == [("GET", "/x", "y", "/x?y"), ("own",)]


def test_observer_that_stops_to_listen_while_a_request_is_served_is_told_no_more(
    simulate: Simulate,
) -> None:
    observer = RecordingObserver()

    def application(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        observer.listening = False
        return hello(environ, start_response)

    sim = simulate(application)
    sim.server.observer = observer
    assert sim.connect(get()).response().status == 200
    assert "started" in observer.names
    assert not {"serviced", "finished"} & set(observer.names)


def test_parser_that_cannot_be_made_for_the_failure_ends_the_connection(
    simulate: Simulate,
) -> None:
    made: Iterator[int] = itertools.count()

    def parser_class(adj: Any) -> Any:
        if next(made):
            raise LookupError("no more parsers")
        return HTTPChannel.parser_class(adj)

    sim = simulate(Failing(ValueError()))
    sim.server.channel_class = channel_class(parser_class=staticmethod(parser_class))
    client = sim.connect(get("/x"))
    assert not client.is_open
    client.close()
    sim.settle()
    assert not sim.channels


def test_error_task_may_be_cut_by_a_disconnect(simulate: Simulate) -> None:
    class Leaving(ErrorTask):
        def execute(self) -> None:
            raise ClientDisconnected

    sim = simulate(Failing(ValueError()))
    sim.server.channel_class = channel_class(error_task_class=Leaving)
    client = sim.connect(get("/x"))
    assert (bytes(client.data), client.ended) == (b"", True)


# -- what is released, and what is told ---------------------------------------------------


def test_body_of_a_request_is_released_when_it_was_served(simulate: Simulate) -> None:
    sim = simulate(path, inbuf_overflow=10)
    client = sim.connect(post("/x", b"b" * 100_000))
    assert client.response().body == b"/x" + b"b" * 100_000
    assert sim.server.spool.used == 0


@pytest.mark.parametrize(("size", "spooled"), [(9999, 0), (10_000, 10_000), (10_001, 10_001)])
def test_body_is_counted_from_the_size_on_that_goes_to_the_disk(
    simulate: Simulate, size: int, spooled: int
) -> None:
    sim = simulate(path, inbuf_overflow=10_000)
    sim.dispatcher.is_held = True
    client = sim.connect(post("/x", b"b" * size))
    assert sim.server.spool.used == spooled
    sim.dispatcher.is_held = False
    sim.settle()
    assert client.response().body == b"/x" + b"b" * size
    assert sim.server.spool.used == 0


def test_body_of_a_request_is_released_when_its_turn_never_came(simulate: Simulate) -> None:
    """The connection broke while the channel was in the task queue, all workers busy."""
    sim = simulate(path, inbuf_overflow=10)
    sim.server.observer = observer = RecordingObserver()
    sim.dispatcher.is_held = True
    client = sim.connect(post("/x", b"b" * 100_000))
    assert sim.server.spool.used == 100_000
    client.reset()
    sim.settle()
    sim.dispatcher.is_held = False
    sim.settle()
    assert sim.server.spool.used == 0
    assert observer.names[-2:] == ["cancelled", "channel closed"]


def test_requests_behind_one_that_ended_the_connection_are_released(simulate: Simulate) -> None:
    sim = simulate(Failing(ValueError()), inbuf_overflow=10, channel_request_lookahead=5)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect(get("/x") + post("/y", b"b" * 100_000) + get("/z"))
    assert client.response().status == 500
    assert sim.server.spool.used == 0
    assert observer.names.count("started") == 1


def test_life_of_two_pipelined_requests_is_told_in_order(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect(get() + get())
    client.close()
    sim.settle()
    first, second = observer.events[1][1], observer.events[2][1]
    assert second == first + 1
    assert observer.events == [
        ("channel created", None),
        ("created", first),
        ("created", second),
        ("queued", (first, second)),
        *_served(first),
        *_served(second),
        ("finished", first),
        ("finished", second),
        ("channel closed", None),
    ]


def _served(number: int) -> list[tuple[str, int]]:
    names = (
        "started", "application started", "response started", "application finished", "serviced"
    )  # fmt: skip
    return [(name, number) for name in names]


def test_requests_that_cannot_follow_are_told_as_cancelled(simulate: Simulate) -> None:
    def short(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"abc"]

    sim = simulate(short)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect(get() + get())
    assert client.ended
    client.close()
    sim.settle()
    assert observer.names[3:] == [
        "queued", "started", "application started", "response started", "application finished",
        "serviced", "cancelled", "finished", "channel closed",
    ]  # fmt: skip


def test_refused_request_is_told_as_such(simulate: Simulate) -> None:
    sim = simulate(hello)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect(b"GET / HTTP/1.1\r\n\r\n")
    client.close()
    sim.settle()
    assert observer.names == [
        "channel created", "created", "queued", "refused", "started", "serviced", "finished",
        "channel closed",
    ]  # fmt: skip


@pytest.mark.parametrize("length", ["", "3"])
def test_end_of_a_response_is_told_though_its_bytes_left_before_the_service_ended(
    length: str, simulate: Simulate
) -> None:
    def application(environ: dict[str, Any], start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", [("Content-Length", length)] if length else [])
        yield b"abc"
        sim.dispatcher.pause("everything is sent")

    sim = simulate(application)
    sim.server.observer = observer = RecordingObserver()
    client = sim.connect(get())
    assert b"abc" in client.data
    sim.dispatcher.resume("everything is sent")
    sim.settle()
    assert observer.names[-2:] == ["serviced", "finished"]


def test_only_refusals_are_told_where_nobody_listens(simulate: Simulate) -> None:
    class Deaf(RecordingObserver):
        listening = False

    sim = simulate(hello)
    sim.server.observer = observer = Deaf()
    client = sim.connect(get() + b"bad\r\n\r\n")
    client.close()
    sim.settle()
    # Refusals are always told: they are rare, and somebody counts them.
    assert observer.names == ["refused"]


def test_chunked_body_reaches_the_application_whole(simulate: Simulate) -> None:
    body = request("POST", "/x", "Transfer-Encoding: chunked") + chunks(b"ab", b"cde")
    assert simulate(path).connect(body).response().body == b"/xabcde"
