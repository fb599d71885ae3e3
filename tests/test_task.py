"""One request, answered: from the environ to the bytes that the channel is given."""

from __future__ import annotations

import gc
import io
import sys
import time
import weakref
import wsgiref.validate
from typing import Any

import pytest

from waitress import task as task_module
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.environ import rename_headers
from waitress.observer import Observer
from waitress.response import JOIN_BYTES, hop_by_hop
from waitress.task import ErrorTask, Task, WSGITask
from waitress.utilities import BadRequest, InternalServerError

TOO_LONG = (
    "application-written content exceeded the number of bytes specified by "
    "Content-Length header (%s)"
)
NO_BODY = (
    "application-written content was ignored due to HTTP response that may not contain a "
    "message-body: (%s)"
)
TOO_SHORT = "application returned too few bytes (%s) for specified Content-Length (%s) via app_iter"


class Settings:
    def __init__(self):
        self.ident: str | None = "waitress"
        self.url_prefix = ""
        self.log_socket_errors = True


class Server:
    def __init__(self, application):
        self.application = application
        self.adj = Settings()
        self.effective_port = "8080"
        self.server_name = "server.invalid"


class PlainChannel:
    """A channel that has what a task may require, and nothing more."""

    def __init__(self, application=None):
        self.server = Server(application)
        self.adj = self.server.adj
        self.addr = ("192.0.2.1", 4711)
        self.handed = []
        self.failure = None

    def write_soon(self, data):
        if self.failure is not None:
            raise self.failure
        assert type(data) is bytes or isinstance(data, ReadOnlyFileBasedBuffer)
        self.handed.append(data)

    def check_client_disconnected(self):
        return False

    def pieces(self):
        return self.handed

    def sent(self):
        """Return all that was handed over, files read (and closed) as the channel would."""
        result = b""
        for data in self.pieces():
            if isinstance(data, ReadOnlyFileBasedBuffer):
                result += data.get()
                data.close()
            else:
                result += data
        return result


class Channel(PlainChannel):
    """A channel with all that a task makes use of."""

    is_to_close = False

    def __init__(self, application=None):
        super().__init__(application)
        self.observer = Observer()

    def wants_to_close(self):
        return self.is_to_close

    def writev_soon(self, parts, last=False):
        if self.failure is not None:
            raise self.failure
        for part in parts:
            assert type(part) is bytes
        self.handed.append((tuple(parts), last))

    def pieces(self):
        result: list[Any] = []
        for data in self.handed:
            result.extend(data[0] if isinstance(data, tuple) else [data])
        return result


class Request:
    """A request as the parser leaves it."""

    connection_close = False

    def __init__(self, version="1.1", command="GET", **fields):
        self.version = version
        self.command = command
        self.headers = {}
        self.path = self.request_uri = "/"
        self.query = ""
        self.url_scheme = "http"
        self.error = None
        self.body = io.BytesIO()
        self.__dict__.update(fields)

    def get_body_stream(self):
        return self.body


class Log:
    """A logger that is only ever given a template and its arguments."""

    def __init__(self):
        self.warnings = []

    def warning(self, template, *args):
        self.warnings.append((template, *args))


class Iterable:
    """What an application may return: it counts how often it is closed."""

    def __init__(self, *chunks):
        self.chunks = chunks
        self.closed = 0

    def __iter__(self):
        for chunk in self.chunks:
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk

    def close(self):
        self.closed += 1


class File(io.BytesIO):
    """A file that counts how often it is closed."""

    closings = 0

    def close(self):
        self.closings += 1
        super().close()


def respond(result, headers=(), status="200 OK"):
    """Return an application that answers with ``result``, or what that returns."""

    def application(environ, start_response):
        write = start_response(status, list(headers))
        return result(write) if callable(result) else result

    return application


def make(application, channel=None, **request):
    channel = channel or Channel()
    channel.server.application = application
    task = WSGITask(channel, Request(**request))
    task.logger = Log()
    return task


def serve(application, channel=None, **request):
    task = make(application, channel, **request)
    task.service()
    return task


class Response:
    """What a client makes of the bytes that a task has sent."""

    def __init__(self, task):
        self.head, _, self.body = task.channel.sent().partition(b"\r\n\r\n")
        self.status_line, *lines = self.head.decode("latin-1").split("\r\n")
        self.fields = [tuple(line.split(": ", 1)) for line in lines]
        self.headers = dict(self.fields)


def answer(application, channel=None, **request):
    return Response(serve(application, channel, **request))


# The module


def test_names_that_users_import_from_here_are_here():
    from waitress.utilities import build_http_date, logger, queue_logger
    from waitress.workers import ThreadedTaskDispatcher

    assert task_module.ThreadedTaskDispatcher is ThreadedTaskDispatcher
    assert task_module.build_http_date is build_http_date
    assert task_module.logger is Task.logger is logger
    assert task_module.queue_logger is queue_logger
    assert task_module.hop_by_hop is hop_by_hop
    assert task_module.rename_headers is rename_headers
    assert task_module.ReadOnlyFileBasedBuffer is ReadOnlyFileBasedBuffer


# The base class


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        ("1.1", "1.1"),
        ("1.0", "1.0"),
        ("1.2", "1.1"),
        ("1.9", "1.1"),
        ("", "1.0"),
        ("0.9", "1.0"),
        ("2.0", "1.0"),
        ("8.4", "1.0"),
        ("1.", "1.0"),
        ("1.x", "1.0"),
    ],
)
def test_answers_are_given_in_the_highest_version_both_sides_speak(asked, answered):
    assert Task(Channel(), Request(asked)).version == answered


def test_a_bare_task_has_nothing_to_say():
    with pytest.raises(NotImplementedError):
        Task(Channel(), Request()).service()


def test_starting_notes_the_time(monkeypatch):
    monkeypatch.setattr(time, "time", lambda: 12.5)
    task = Task(Channel(), Request())
    task.start()
    assert task.start_time == 12.5


def test_the_date_is_that_of_the_response_not_of_the_request(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "time", lambda: now[0])

    def application(environ, start_response):
        now[0] = 86400.0
        start_response("200 OK", [])
        return [b""]

    assert answer(application).headers["Date"] == "Fri, 02 Jan 1970 00:00:00 GMT"


def test_the_date_follows_a_clock_that_is_set_back(monkeypatch):
    now = [86400.0]
    monkeypatch.setattr(time, "time", lambda: now[0])
    application = respond([b""], [])
    assert answer(application).headers["Date"] == "Fri, 02 Jan 1970 00:00:00 GMT"
    now[0] = 3.5
    assert answer(application).headers["Date"] == "Thu, 01 Jan 1970 00:00:03 GMT"


def test_removing_content_length_removes_all_spellings_from_a_new_list():
    task = Task(Channel(), Request())
    before = task.response_headers = [("content-LENGTH", "1"), ("X", "y"), ("Content-Length", "2")]
    task.remove_content_length_header()
    assert task.response_headers == [("X", "y")]
    assert len(before) == 3


def test_closing_is_announced_once_while_it_can_be():
    task = Task(Channel(), Request())
    task.set_close_on_finish()
    task.set_close_on_finish()
    assert task.response_headers == [("Connection", "close")]
    assert task.close_on_finish
    late = Task(Channel(), Request())
    late.wrote_header = True
    late.set_close_on_finish()
    assert late.response_headers == []
    assert late.close_on_finish


def test_a_response_that_a_subclass_puts_together_by_hand_is_framed_by_its_own_length():
    class Mine(Task):
        complete = True

        def execute(self):
            self.response_headers.append(("content-length", "3"))
            self.write(b"abcd")

    task = Mine(Channel(), Request())
    task.logger = Log()
    task.service()
    response = Response(task)
    assert (response.headers["Content-Length"], response.body) == ("3", b"abc")
    assert not task.close_on_finish


def test_a_body_that_a_subclass_leaves_short_closes_the_connection():
    class Mine(Task):
        complete = True

        def execute(self):
            self.response_headers.append(("Content-Length", "3"))

    task = Mine(Channel(), Request())
    task.service()
    assert Response(task).headers["Content-Length"] == "3"
    assert task.close_on_finish


def test_the_head_that_leaves_is_the_one_that_an_override_builds():
    class Mine(WSGITask):
        def build_response_header(self):
            self.response_headers.append(("X-Mine", "yes"))
            return super().build_response_header()

    channel = Channel(respond([b"x"]))
    task = Mine(channel, Request())
    task.service()
    assert b"\r\nX-Mine: yes\r\n" in channel.sent()
    assert ("X-Mine", "yes") in task.response_headers
    assert ("Content-Length", "1") in task.response_headers


@pytest.mark.parametrize(
    ("result", "headers", "body"),
    [
        ([b"abc"], [], b"abc"),
        ([b"a", b"b"], [], b"ab"),
        ([b"abc"], [("Content-Length", "2")], b"ab"),
    ],
)
def test_a_head_that_an_override_builds_by_itself_is_followed_by_the_body(result, headers, body):
    class Mine(WSGITask):
        logger = Log()

        def build_response_header(self):
            return b"HTTP/1.1 200 Mine\r\n\r\n"

    channel = Channel(respond(result, headers))
    Mine(channel, Request()).service()
    assert channel.sent() == b"HTTP/1.1 200 Mine\r\n\r\n" + body


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_an_override_of_the_head_does_not_lead_to_a_body_where_none_is_allowed(status):
    class Mine(WSGITask):
        logger = Log()

        def build_response_header(self):
            return b""

    channel = Channel(respond([b"abc"], status=status))
    Mine(channel, Request()).service()
    assert channel.sent() == b""


def test_what_a_subclass_changes_between_start_and_head_is_what_leaves():
    class Mine(WSGITask):
        def build_response_header(self):
            self.status = "201 Mine"
            return super().build_response_header()

    class Other(WSGITask):
        def build_response_header(self):
            self.response_headers = [field for field in self.response_headers if field[0] != "X"]
            return super().build_response_header()

    application = respond([b"x"], [("X", "1"), ("Y", "2")])
    channel = Channel(application)
    Mine(channel, Request()).service()
    assert b"HTTP/1.1 201 Mine\r\n" in channel.sent()
    assert b"\r\nX: 1\r\n" in channel.sent()
    channel = Channel(application)
    Other(channel, Request()).service()
    assert b"\r\nX: 1\r\n" not in channel.sent()
    assert b"\r\nY: 2\r\n" in channel.sent()
    assert answer(application).headers["X"] == "1"


def test_what_one_task_does_to_its_fields_is_not_seen_by_the_next():
    application = respond([b"x"], [("X", "1")])
    task = make(application)
    task.start_response("200 OK", [("X", "1")])
    task.response_headers.append(("Y", "2"))
    assert "Y" not in answer(application).headers


def test_the_fields_that_left_can_be_read_afterwards():
    task = serve(respond([b"x"], [("x-a", " \xe9: b"), ("X-B", "")]))
    assert task.response_headers == [
        ("Content-Length", "1"),
        ("Date", Response(task).headers["Date"]),
        ("Server", "waitress"),
        ("X-A", " \xe9: b"),
        ("X-B", ""),
    ]


def test_headers_never_accumulate_from_one_response_to_the_next():
    """Proves R21."""
    channel = Channel()
    first = serve(respond([b"x"], [("X-First", "1")]), channel)
    channel.handed.clear()
    assert "X-First" not in answer(respond([b"x"]), channel).headers
    assert ("X-First", "1") in first.response_headers
    assert Task(channel, Request()).response_headers == []


def test_what_a_subclass_put_there_before_start_response_stays():
    class Mine(WSGITask):
        def start(self):
            self.response_headers.append(("X-Mine", "yes"))

    channel = Channel(respond([b"x"], [("X-App", "1")]))
    Mine(channel, Request()).service()
    assert b"X-App: 1\r\nX-Mine: yes\r\n" in channel.sent()


# Socket errors and the application's own


class Failing(Task):
    complete = True

    def execute(self):
        raise OSError("socket")


@pytest.mark.parametrize("told", [True, False])
def test_a_socket_error_closes_the_connection_and_is_raised_where_they_are_logged(told):
    task = Failing(Channel(), Request())
    task.channel.adj.log_socket_errors = told
    if told:
        with pytest.raises(OSError, match="socket"):
            task.service()
    else:
        task.service()
    assert task.close_on_finish


@pytest.mark.parametrize("channel_class", [Channel, PlainChannel])
def test_an_error_of_the_channel_is_a_socket_error(channel_class):
    channel = channel_class()
    channel.adj.log_socket_errors = False
    channel.failure = OSError("socket")
    task = serve(respond([b"x"]), channel)
    assert task.close_on_finish


@pytest.mark.parametrize("channel_class", [Channel, PlainChannel])
@pytest.mark.parametrize("failure_class", [OSError, AttributeError])
def test_an_error_of_the_channel_is_raised_as_it_is_and_once(channel_class, failure_class):
    failure = failure_class("its own")

    class Failing(channel_class):
        failures = 0

        @property
        def failure(self):
            self.failures += 1
            return failure

        @failure.setter
        def failure(self, _):
            pass

    channel = Failing()
    with pytest.raises(failure_class) as raised:
        serve(respond([b"x"]), channel)
    assert raised.value is failure
    assert failure.__context__ is None
    assert channel.failures == 2  # Looked at, and raised.


def test_an_os_error_of_the_application_is_never_swallowed():
    def application(environ, start_response):
        raise FileNotFoundError("no such template")

    task = make(application)
    task.channel.adj.log_socket_errors = False
    with pytest.raises(FileNotFoundError):
        task.service()
    assert not task.wrote_header


# Framing on the wire


def test_an_only_chunk_is_the_length():
    """Proves R10."""
    task = serve(respond([b"abc"], [("Content-Type", "text/plain")]))
    response = Response(task)
    assert response.status_line == "HTTP/1.1 200 OK"
    assert [name for name, _ in response.fields] == [
        "Content-Length",
        "Content-Type",
        "Date",
        "Server",
    ]
    assert (response.headers["Content-Length"], response.body) == ("3", b"abc")
    assert not task.close_on_finish


@pytest.mark.parametrize("result", [[b""], (b"",)])
def test_an_only_chunk_that_is_empty_is_a_length_of_zero(result):
    response = answer(respond(result))
    assert (response.headers["Content-Length"], response.body) == ("0", b"")
    assert "Transfer-Encoding" not in response.headers


class One(Iterable):
    """An iterable that says that it has one chunk."""

    def __len__(self):
        return 1


def test_anything_with_a_length_of_one_counts_as_an_only_chunk():
    assert answer(respond(One(b"abc"))).headers["Content-Length"] == "3"


@pytest.mark.parametrize("result", [[b"a", b"", b"b"], (b"a", b"b"), iter([b"a", b"", b"b"])])
def test_several_chunks_are_sent_as_such_and_the_connection_kept(result):
    """Proves R18."""
    task = serve(respond(result))
    response = Response(task)
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert "Connection" not in response.headers
    assert response.body == b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n"
    assert not task.close_on_finish


@pytest.mark.parametrize("result", [[], (), iter([]), iter([b"", b""])])
def test_a_body_of_no_chunks_is_only_the_last_one(result):
    task = serve(respond(result))
    response = Response(task)
    assert response.headers["Transfer-Encoding"] == "chunked"
    assert response.body == b"0\r\n\r\n"
    assert len(task.channel.handed) == 1


def test_without_chunks_in_http_1_0_the_end_of_the_connection_is_the_end():
    task = serve(respond(iter([b"a", b"b"])), version="1.0", headers={"CONNECTION": "keep-alive"})
    response = Response(task)
    assert (response.headers["Connection"], response.body) == ("close", b"ab")
    assert task.close_on_finish


@pytest.mark.parametrize(
    ("version", "command", "result", "told_by_end"),
    [
        ("1.0", "GET", [b"a", b"b"], True),
        ("1.0", "GET", [b"a"], False),
        ("1.0", "HEAD", [b"a", b"b"], False),
        ("1.1", "GET", [b"a", b"b"], False),
    ],
)
def test_a_task_knows_whether_only_the_end_of_the_connection_ends_its_body(
    version, command, result, told_by_end
):
    task = make(respond(result), version=version, command=command)
    assert task.ends_with_connection is False
    task.service()
    assert task.ends_with_connection is told_by_end


@pytest.mark.parametrize(
    ("version", "connection", "told"),
    [
        ("1.0", None, "close"),
        ("1.0", "Keep-Alive", "Keep-Alive"),
        ("1.1", None, None),
        ("1.1", "close", "close"),
        ("1.1", "te, close", "close"),
    ],
)
def test_the_connection_is_kept_as_the_client_asks(version, connection, told):
    """Proves R16 for the head of a response."""
    headers = {} if connection is None else {"CONNECTION": connection}
    task = serve(respond([b"x"]), version=version, headers=headers)
    assert Response(task).headers.get("Connection") == told
    assert task.close_on_finish is (told == "close")


def test_the_parser_may_have_decided_that_the_connection_ends():
    task = serve(respond([b"x"]), connection_close=True)
    assert Response(task).headers["Connection"] == "close"
    assert task.close_on_finish


def test_the_server_may_want_its_connection_back():
    channel = Channel()
    channel.is_to_close = True
    task = serve(respond([b"x"]), channel)
    assert Response(task).headers["Connection"] == "close"
    assert task.close_on_finish


def test_a_task_told_to_close_says_so_in_the_head():
    task = make(respond([b"x"]))
    task.close_on_finish = True
    task.service()
    assert Response(task).headers["Connection"] == "close"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
@pytest.mark.parametrize(
    "result",
    [[b"abc"], [b"a", b"b"], lambda write: iter([b"abc"]), lambda write: write(b"abc") or []],
)
def test_where_the_status_allows_no_body_none_is_sent_and_that_is_told_once(status, result):
    task = serve(respond(result, [("Content-Length", "3")], status))
    response = Response(task)
    assert set(response.headers) == {"Date", "Server"}
    assert response.body == b""
    assert not task.close_on_finish
    assert task.logger.warnings == [(NO_BODY, status)]
    assert task.content_bytes_written > 0


def test_a_response_without_body_that_has_none_is_no_reason_for_a_warning():
    task = serve(respond([], [("Content-Length", "3")], "304 Not Modified"))
    assert Response(task).body == b""
    assert task.logger.warnings == []
    assert not task.close_on_finish


@pytest.mark.parametrize(
    ("result", "headers"),
    [
        ([b"abc"], []),
        ([b"a", b"b"], []),
        ([], []),
        (lambda write: iter([b"a", b"b"]), []),
        (lambda write: iter([b"abc"]), [("Content-Length", "3")]),
        (lambda write: write(b"abc") or [], []),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_head_gets_the_head_that_get_gets_and_no_body(result, headers, version):
    application = respond(result, [*headers, ("Date", "D")])
    get = answer(application, version=version)
    task = serve(application, version=version, command="HEAD")
    head = Response(task)
    assert head.head == get.head
    assert head.body == b""
    assert task.logger.warnings == []
    assert task.close_on_finish is (version == "1.0")


@pytest.mark.parametrize("result", [[b""], []])
def test_a_head_answer_may_announce_a_length_and_send_nothing(result):
    task = serve(respond(result, [("Content-Length", "3")]), command="HEAD")
    assert Response(task).headers["Content-Length"] == "3"
    assert task.logger.warnings == []
    assert not task.close_on_finish


@pytest.mark.parametrize("result", [[b"abc", b"d"], iter([b"abc", b"d"])])
def test_never_more_bytes_leave_than_promised(result):
    """Proves R9, the half about too many bytes."""
    task = serve(respond(result, [("Content-Length", "2")]))
    assert Response(task).body == b"ab"
    assert task.logger.warnings == [(TOO_LONG, 2)]
    assert not task.close_on_finish
    assert task.content_bytes_written == 2


@pytest.mark.parametrize("result", [[b"abc"], [b"ab", b"c"], iter([b"abc"]), One(b"abc")])
def test_fewer_bytes_than_promised_end_the_connection(result):
    """Proves R9, the half about too few bytes."""
    task = serve(respond(result, [("Content-Length", "5")]))
    response = Response(task)
    assert (response.headers["Content-Length"], response.body) == ("5", b"abc")
    assert "Connection" not in response.headers
    assert task.logger.warnings == [(TOO_SHORT, 3, 5)]
    assert task.close_on_finish


def test_no_bytes_where_some_were_promised_end_the_connection_and_say_so():
    task = serve(respond([], [("Content-Length", "5")]))
    assert Response(task).headers["Connection"] == "close"
    assert task.logger.warnings == [(TOO_SHORT, 0, 5)]


# write()


def test_nothing_can_be_written_before_start_response():
    """Proves R11."""
    for data in (b"abc", b""):
        with pytest.raises(RuntimeError, match="start_response was not called before body"):
            make(None).write(data)


@pytest.mark.parametrize("result", [[b"abc"], [b"a", b"b"], [], iter([b"abc"])])
def test_an_application_that_never_starts_its_response_fails_before_a_byte_leaves(result):
    task = make(lambda environ, start_response: result)
    with pytest.raises(RuntimeError, match="start_response was not called"):
        task.service()
    assert not task.wrote_header
    assert task.channel.handed == []


def test_start_response_returns_a_write_that_sends_at_once():
    """Proves R7."""
    channel = Channel()

    def application(environ, start_response):
        write = start_response("200 OK", [("Content-Length", "6")])
        write(b"abc")
        assert channel.sent().endswith(b"\r\n\r\nabc")
        write(b"")
        write(b"def")
        assert channel.sent().endswith(b"\r\n\r\nabcdef")
        return []

    task = serve(application, channel)
    assert task.logger.warnings == []
    assert not task.close_on_finish


def test_a_chunk_returned_after_write_is_not_taken_for_the_whole_body():
    task = serve(respond(lambda write: write(b"abc") or [b"d"]))
    assert Response(task).body == b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"
    assert task.logger.warnings == []


def test_an_iterable_of_one_returned_after_write_is_not_taken_for_the_whole_body():
    task = serve(respond(lambda write: write(b"abc") or One(b"d")))
    assert Response(task).body == b"3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"


def test_an_empty_write_sends_the_head():
    task = make(respond([]))
    task.start_response("200 OK", [("Content-Length", "1")])
    task.write(b"")
    assert task.wrote_header
    assert task.channel.sent().endswith(b"\r\n\r\n")


@pytest.mark.parametrize("chunk", ["text", "", None, 7, bytearray(b"x"), memoryview(b"x")])
@pytest.mark.parametrize("kind", ["only", "list", "generator", "write"])
def test_only_bytes_are_a_body_and_the_rest_fails_before_the_head_leaves(chunk, kind):
    """Proves R12."""
    result = {
        "only": [chunk],
        "list": [b"abc", chunk],
        "generator": iter([chunk]),
        "write": lambda write: write(chunk),
    }[kind]
    task = make(respond(result))
    with pytest.raises(TypeError, match="the response body must be bytes, not "):
        task.service()
    assert not task.wrote_header
    assert task.channel.handed == []


def test_bytes_of_a_subclass_are_sent_by_their_content_whatever_they_say():
    class Lie(bytes):
        def __len__(self):
            return 99

    for result in ([Lie(b"abc")], [Lie(b"abc"), b"d"], iter([Lie(b"abc")])):
        response = answer(respond(result))
        assert b"abc" in response.body
        assert response.headers.get("Content-Length") in ("3", None)


# Hand-over to the channel


@pytest.mark.parametrize("result", [[b"abc"], (b"abc",)])
def test_head_and_body_are_handed_over_together(result):
    """Proves T6 for the task's side."""
    task = serve(respond(result))
    ((parts, last),) = task.channel.handed
    assert len(parts) == 1
    assert last


def test_a_large_body_is_handed_over_with_the_head_and_not_copied():
    body = b"x" * (JOIN_BYTES + 1)
    task = serve(respond([body]))
    (((head, same), last),) = task.channel.handed
    assert head.endswith(b"\r\n\r\n")
    assert same is body
    assert last


def test_a_large_chunk_travels_between_its_size_and_its_end():
    body = b"x" * (JOIN_BYTES + 1)
    task = serve(respond(iter([body])))
    (((head, same, end), last), (ending, _)) = task.channel.handed
    assert head.endswith(b"\r\n\r\n4001\r\n")
    assert same is body
    assert (end, last) == (b"\r\n", False)
    assert ending == (b"0\r\n\r\n",)


def test_the_chunks_of_a_list_are_handed_over_together():
    task = serve(respond([b"a", b"b", b"c"]))
    (((together,), last), _) = task.channel.handed
    assert together.endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n")
    assert last


def test_a_long_list_is_handed_over_in_turns_of_which_only_the_last_is_the_last():
    piece = b"x" * 100_000
    chunks = [piece] * 7
    task = serve(respond(chunks, [("Content-Length", "700000")]))
    assert [last for _, last in task.channel.handed] == [False, False, True]
    assert Response(task).body == piece * 7


def test_the_chunks_of_a_generator_are_handed_over_as_they_come():
    """A block is not held back while the application works on the next (PEP 3333)."""
    channel = Channel()

    def application(environ, start_response):
        start_response("200 OK", [("Content-Length", "2")])
        yield b"a"
        assert channel.sent().endswith(b"\r\n\r\na")
        yield b"b"
        assert channel.sent().endswith(b"\r\n\r\nab")

    serve(application, channel)
    assert [last for _, last in channel.handed] == [False, False]


@pytest.mark.parametrize("result", [[b"abc"], [b"a", b"b"], iter([b"a", b"b"]), []])
def test_a_channel_that_has_only_write_soon_is_enough(result):
    channel = PlainChannel()
    serve(respond(result), channel)
    assert channel.sent().startswith(b"HTTP/1.1 200 OK\r\n")
    assert all(type(piece) is bytes for piece in channel.handed)


def test_to_a_plain_channel_too_the_head_goes_with_the_body():
    channel = PlainChannel()
    serve(respond([b"x" * 100_000]), channel)
    assert len(channel.handed) == 1


# start_response


def start(*args, **kw):
    task = make(None)
    task.start_response(*args, **kw)
    return task


def test_headers_may_be_any_iterable_of_pairs_even_one_that_is_used_up():
    task = start("200 OK", iter([("X-A", "1"), ["x-b", "2"]]))
    assert task.response_headers == [("X-A", "1"), ("x-b", "2")]
    assert task.complete


def test_pairs_may_be_lists():
    task = start("200 OK", [["X-A", "1"], ("x-b", "2")])
    assert task.response_headers == [("X-A", "1"), ("x-b", "2")]


def test_the_list_given_is_not_the_list_kept():
    headers = [("X-A", "1")]
    task = start("200 OK", headers)
    headers.append(("X-B", "a\r\nb"))
    assert task.response_headers == [("X-A", "1")]


def test_the_declared_length_is_known_from_then_on():
    assert start("200 OK", [("content-length", "12")]).content_length == 12


def test_a_second_start_needs_a_reason():
    task = start("200 OK", [])
    with pytest.raises(AssertionError) as caught:
        task.start_response("200 OK", [])
    assert str(caught.value) == ("start_response called a second time without providing exc_info.")


@pytest.mark.parametrize(
    ("status", "headers", "error"),
    [
        (b"200 OK", [], AssertionError),
        ("OK", [], ValueError),
        ("200 OK\r\nX: y", [], ValueError),
        ("100 Continue", [], ValueError),
        ("200 OK", [(b"X", "y")], AssertionError),
        ("200 OK", [("X", "a\nb")], ValueError),
        ("200 OK", [("X", "a\x00b")], ValueError),
        ("200 OK", [("Connection", "close")], AssertionError),
        ("200 OK", [("Content-Length", "-1")], ValueError),
        ("200 OK", [("Content-Length", "1"), ("Content-Length", "1")], ValueError),
    ],
)
def test_what_cannot_be_sent_is_refused_and_starts_nothing(status, headers, error):
    task = make(None)
    with pytest.raises(error):
        task.start_response(status, [("X-Good", "1"), *headers])
    with pytest.raises(RuntimeError, match="start_response was not called"):
        task.write(b"abc")
    assert task.channel.handed == []
    task.start_response("500 Sorry", [])
    task.write(b"x")
    assert b"X-Good" not in task.channel.sent()


class CauseError(KeyError):
    """Can be referred to weakly, as an exception that is built in cannot."""


def exc_info():
    try:
        raise CauseError("the cause")
    except CauseError:
        return sys.exc_info()


def test_an_error_replaces_what_the_first_start_said():
    task = start("200 OK", [("Content-Length", "5"), ("X-First", "1")])
    task.start_response("500 Sorry", [("X-Second", "2")], exc_info())
    assert (task.status, task.response_headers) == ("500 Sorry", [("X-Second", "2")])
    assert task.content_length is None


def test_an_error_that_comes_too_late_is_raised_again():
    info = exc_info()
    task = start("200 OK", [])
    task.write(b"abc")
    with pytest.raises(KeyError) as caught:
        task.start_response("500 Sorry", [], info)
    assert caught.value is info[1]
    assert task.status == "200 OK"


def test_an_error_raised_again_is_held_by_nobody():
    def raise_late(task):
        info = exc_info()
        error = weakref.ref(info[1])
        try:
            task.start_response("500 Sorry", [], info)
        except KeyError:
            del info
        return error

    task = start("200 OK", [])
    task.write(b"abc")
    gc.collect()
    gc.disable()
    try:
        assert raise_late(task)() is None
    finally:
        gc.enable()


def test_an_error_whose_replacement_is_refused_leaves_nothing_started():
    task = start("200 OK", [])
    with pytest.raises(ValueError):
        task.start_response("500 Sorry", [("X", "a\r\nb")], exc_info())
    with pytest.raises(RuntimeError, match="start_response was not called"):
        task.write(b"abc")


def test_only_the_value_of_the_error_is_looked_at():
    task = start("200 OK", [])
    task.start_response("500 Sorry", [], [None, KeyError("x")])
    task.write(b"abc")
    with pytest.raises(KeyError, match="x"):
        task.start_response("500 Sorry", [], [None, KeyError("x")])


def test_the_first_start_may_come_with_an_error():
    assert start("500 Sorry", [], exc_info()).status == "500 Sorry"


# The environ


def test_the_environ_is_built_once_from_request_channel_and_server():
    channel = Channel()
    channel.adj.url_prefix = "/app"
    task = make(None, channel, path="/app/x", version="1.2")
    environ = task.get_environment()
    assert task.get_environment() is environ is task.environ
    assert environ["PATH_INFO"] == "/x"
    assert environ["SCRIPT_NAME"] == "/app"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["REMOTE_ADDR"] == "192.0.2.1"
    assert environ["SERVER_PORT"] == "8080"
    assert environ["SERVER_NAME"] == "server.invalid"
    assert environ["SERVER_SOFTWARE"] == "waitress"
    assert environ["wsgi.input"] is task.request.body
    assert environ["wsgi.multithread"] is True
    assert environ["wsgi.multiprocess"] is False
    assert environ["waitress.client_disconnected"]() is False


def test_an_environ_that_is_there_already_is_used():
    seen = []

    def application(environ, start_response):
        seen.append(environ)
        return respond([])(environ, start_response)

    task = make(application)
    task.environ = {"mine": 1}
    task.service()
    assert seen == [{"mine": 1}]


def test_the_environ_may_come_from_an_override():
    class Mine(WSGITask):
        def get_environment(self):
            return {**super().get_environment(), "mine": "yes"}

    seen = []

    def application(environ, start_response):
        seen.append(environ["mine"])
        return respond([b"x"])(environ, start_response)

    Mine(Channel(application), Request()).service()
    assert seen == ["yes"]


def test_the_application_is_called_by_a_frame_whose_self_is_the_task():
    seen = []

    def application(environ, start_response):
        seen.append(sys._getframe(1).f_locals["self"])
        return respond([b"x"])(environ, start_response)

    task = serve(application)
    assert seen == [task]


@pytest.mark.parametrize("command", ["GET", "HEAD"])
@pytest.mark.parametrize(
    ("status", "headers", "result"),
    [
        ("200 OK", [("Content-Type", "text/plain"), ("Content-Length", "3")], [b"abc"]),
        ("200 OK", [("Content-Type", "text/plain")], iter([b"a", b"b"])),
        ("304 Not Modified", [], []),
    ],
)
def test_the_validator_of_the_standard_library_finds_no_fault(command, status, headers, result):
    """Proves R2: the whole conversation of server and application is as PEP 3333 says."""
    application = wsgiref.validate.validator(respond(result, headers, status))
    assert serve(application, command=command).logger.warnings == []


# Closing what the application returned


@pytest.mark.parametrize("command", ["GET", "HEAD"])
@pytest.mark.parametrize("chunks", [(), (b"",), (b"a",), (b"a", b"b")])
def test_the_iterable_is_closed_once(chunks, command):
    """Proves R4."""
    iterable = Iterable(*chunks)
    serve(respond(iterable), command=command)
    assert iterable.closed == 1


@pytest.mark.parametrize("error", [ValueError, OSError, SystemExit, GeneratorExit, MemoryError])
@pytest.mark.parametrize("before", [(), (b"a",)])
def test_the_iterable_is_closed_once_when_it_fails(error, before):
    """Proves R4."""
    iterable = Iterable(*before, error())
    task = make(respond(iterable))
    with pytest.raises(error):
        task.service()
    assert iterable.closed == 1
    assert task.wrote_header is bool(before)


def test_a_response_that_fails_in_the_middle_has_no_last_chunk():
    task = make(respond(Iterable(b"a", ValueError())))
    with pytest.raises(ValueError):
        task.service()
    assert Response(task).body == b"1\r\na\r\n"


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("gone")])
def test_the_iterable_is_closed_once_when_the_channel_fails(failure):
    """Proves R4: the client may be gone at any chunk."""
    iterable = Iterable(b"a", b"b")
    channel = Channel()
    channel.failure = failure
    task = make(respond(iterable), channel)
    with pytest.raises(type(failure)):
        task.service()
    assert iterable.closed == 1


def test_the_iterable_is_closed_once_when_a_chunk_is_refused():
    iterable = Iterable("text")
    with pytest.raises(TypeError):
        make(respond(iterable)).service()
    assert iterable.closed == 1


def test_what_cannot_be_iterated_is_closed_all_the_same():
    class Closeable:
        closed = 0

        def close(self):
            self.closed += 1

    result = Closeable()
    with pytest.raises(TypeError, match="not iterable"):
        make(lambda environ, start_response: result).service()
    assert result.closed == 1


def test_an_error_in_close_is_the_applications():
    class Iterating(Iterable):
        def close(self):
            raise OSError("in close")

    task = make(respond(Iterating(b"a")))
    task.channel.adj.log_socket_errors = False
    with pytest.raises(OSError, match="in close"):
        task.service()
    assert task.wrote_header


def test_a_generator_is_closed_where_it_stands():
    ended = []

    def application(environ, start_response):
        start_response("200 OK", [])
        try:
            yield b"a"
            yield "text"
        finally:
            ended.append(True)

    with pytest.raises(TypeError):
        make(application).service()
    assert ended == [True]


def test_a_list_of_a_subclass_is_closed():
    class Closing(list[bytes]):
        closed = 0

        def close(self):
            self.closed += 1

    result = Closing([b"a"])
    task = serve(respond(result))
    assert result.closed == 1
    assert Response(task).headers["Content-Length"] == "1"
    assert [last for _, last in task.channel.handed] == [False]


def test_a_finished_task_keeps_nothing_of_what_the_application_returned():
    given = []

    def application(environ, start_response):
        start_response("200 OK", [])
        iterable = Iterable(b"a")
        given.append(weakref.ref(iterable))
        return iterable

    task = make(application)
    gc.disable()
    try:
        task.service()
        assert [reference() for reference in given] == [None]
    finally:
        gc.enable()


# The file wrapper


def wrap(file, block_size=32768):
    return lambda write: ReadOnlyFileBasedBuffer(file, block_size)


def test_a_file_is_handed_over_whole_and_closed_by_the_channel():
    """Proves R19."""
    file = io.BytesIO(b"abcdef")
    file.seek(2)
    task = serve(respond(wrap(file)))
    ((head,), last), wrapper = task.channel.handed
    assert head.endswith(b"\r\n\r\n")
    assert last
    assert isinstance(wrapper, ReadOnlyFileBasedBuffer)
    assert not file.closed
    response = Response(task)
    assert (response.headers["Content-Length"], response.body) == ("4", b"cdef")
    assert not task.close_on_finish
    assert file.closed


def test_a_file_whose_read_is_the_application_s_is_read_by_the_worker():
    """It may be slow, and the loop has others to serve."""
    file = File(b"abcdef")
    task = serve(respond(wrap(file, block_size=4)))
    assert [data for data, _ in task.channel.handed][1:] == [(b"ef",)]
    response = Response(task)
    assert (response.headers["Content-Length"], response.body) == ("6", b"abcdef")
    assert not task.close_on_finish
    assert file.closings == 1


@pytest.mark.parametrize("options", [{"command": "HEAD"}, {"status": "304 Not Modified"}])
def test_a_file_that_is_not_sent_is_not_read(options):
    class Unread(File):
        def read(self, size=-1):
            assert not size, "it is read"
            return b""

    status = options.get("status", "200 OK")
    task = serve(
        respond(wrap(Unread(b"abcdef")), status=status), command=options.get("command", "GET")
    )
    assert Response(task).body == b""


def test_a_file_that_ends_before_its_measure_closes_the_connection():
    class Shrinking(File):
        def read(self, size=-1):
            return super().read(min(size, 3)) if self.tell() < 3 else b""

    task = serve(respond(wrap(Shrinking(b"abcdef"))))
    assert Response(task).body == b"abc"
    assert task.close_on_finish
    assert task.logger.warnings == [(TOO_SHORT, 3, 6)]


@pytest.mark.parametrize(("declared", "sent"), [("1", b"a"), ("6", b"abcdef"), ("16", b"abcdef")])
def test_a_file_is_cut_to_the_declared_length_and_a_longer_one_corrected(declared, sent):
    task = serve(respond(wrap(File(b"abcdef")), [("content-length", declared)]))
    response = Response(task)
    assert (response.headers["Content-Length"], response.body) == (str(len(sent)), sent)
    assert task.logger.warnings == []
    assert not task.close_on_finish


@pytest.mark.parametrize("headers", [[], [("Content-Length", "3")], [("Content-Length", "9")]])
def test_head_gets_the_head_of_a_file_and_the_file_is_closed(headers):
    application = respond(wrap(File(b"abcdef")), [*headers, ("Date", "D")])
    get = answer(application)
    file = File(b"abcdef")
    task = serve(respond(wrap(file), [*headers, ("Date", "D")]), command="HEAD")
    head = Response(task)
    assert (head.head, head.body) == (get.head, b"")
    assert file.closings == 1
    assert task.logger.warnings == []
    assert [last for _, last in task.channel.handed] == [False]


def test_a_file_where_no_body_is_allowed_is_closed_unsent():
    file = File(b"abcdef")
    task = serve(respond(wrap(file), status="304 Not Modified"))
    response = Response(task)
    assert set(response.headers) == {"Date", "Server"}
    assert response.body == b""
    assert file.closings == 1
    assert task.logger.warnings == [(NO_BODY, "304 Not Modified")]
    assert not task.close_on_finish


class Unseekable:
    """A stream as a pipe is, read in blocks."""

    def __init__(self, data):
        self.stream = io.BytesIO(data)
        self.closings = 0

    def read(self, size):
        return self.stream.read(size)

    def close(self):
        self.closings += 1


def test_a_stream_is_sent_block_by_block_and_closed():
    file = Unseekable(b"abcde")
    assert answer(respond(wrap(file, 2))).body == b"2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n0\r\n\r\n"
    assert file.closings == 1


@pytest.mark.parametrize(("declared", "warnings"), [("5", []), ("15", [(TOO_SHORT, 5, 15)])])
def test_a_stream_of_declared_length_is_sent_as_it_is(declared, warnings):
    file = Unseekable(b"abcde")
    task = serve(respond(wrap(file), [("Content-Length", declared)]))
    assert Response(task).body == b"abcde"
    assert task.logger.warnings == warnings
    assert file.closings == 1


def test_an_empty_file_is_an_empty_body_and_closed():
    file = File()
    assert answer(respond(wrap(file))).body == b"0\r\n\r\n"
    assert file.closings == 1


def test_a_file_returned_after_write_is_framed_like_the_rest():
    file = File(b"def")
    task = serve(respond(lambda write: write(b"abc") or ReadOnlyFileBasedBuffer(file)))
    assert Response(task).body == b"3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n"
    assert file.closings == 1


def test_a_file_that_cannot_be_prepared_is_closed():
    class Broken(File):
        def tell(self):
            raise ZeroDivisionError

    file = Broken(b"abc")
    with pytest.raises(ZeroDivisionError):
        make(respond(wrap(file))).service()
    assert file.closings == 1


def test_a_text_file_is_refused_before_the_head_leaves():
    file = io.StringIO("abc")
    task = make(respond(wrap(file)))
    with pytest.raises(TypeError, match="not a binary file"):
        task.service()
    assert task.channel.handed == []
    assert file.closed


def test_a_file_without_a_started_response_is_closed():
    file = File(b"abc")
    task = make(lambda environ, start_response: ReadOnlyFileBasedBuffer(file))
    with pytest.raises(RuntimeError, match="start_response was not called"):
        task.service()
    assert file.closings == 1


@pytest.mark.parametrize("failure", [OSError("gone"), RuntimeError("gone")])
def test_a_file_that_the_channel_does_not_take_is_closed(failure):
    class Leaving(Channel):
        def write_soon(self, data):
            raise failure

    file = io.BytesIO(b"abc")
    channel = Leaving()
    channel.adj.log_socket_errors = False
    task = make(respond(wrap(file)), channel)
    if isinstance(failure, OSError):
        task.service()
        assert task.close_on_finish
    else:
        with pytest.raises(RuntimeError, match="gone"):
            task.service()
    assert file.closed


# Events


class Listener(Observer):
    """An observer that writes down what it is told."""

    listening = True

    def __init__(self):
        self.events = []

    def application_started(self, request):
        self.events.append("started")

    def response_started(self, request, status):
        self.events.append(status)

    def application_finished(self, request):
        self.events.append("finished")


def test_whoever_listens_is_told_when_the_application_starts_responds_and_ends():
    """Proves T7 for the task's side."""
    channel = Channel()
    channel.observer = listener = Listener()

    class Telling(Iterable):
        def close(self):
            listener.events.append("closed")

    serve(respond(Telling(b"x"), status="201 Created"), channel)
    assert listener.events == ["started", "201 Created", "closed", "finished"]


def test_the_end_of_an_application_that_fails_is_told_too():
    channel = Channel()
    channel.observer = listener = Listener()
    with pytest.raises(ValueError):
        make(respond(Iterable(ValueError())), channel).service()
    assert listener.events == ["started", "200 OK", "finished"]


def test_nobody_is_told_who_does_not_listen():
    channel = Channel()
    channel.observer = listener = Listener()
    listener.listening = False
    serve(respond([b"x"]), channel)
    assert listener.events == []


# Refusals


class TooUgly(BadRequest):
    code = 432
    reason = "Too Ugly"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("connection", ["keep-alive", "close"])
def test_an_error_is_answered_in_full_and_closes_the_connection(version, connection):
    channel = Channel()
    request = Request(version, headers={"CONNECTION": connection}, error=TooUgly("body"))
    task = ErrorTask(channel, request)
    task.service()
    response = Response(task)
    assert response.status_line == f"HTTP/{version} 432 Too Ugly"
    assert [field for field in response.fields if field[0] != "Date"] == [
        ("Connection", "close"),
        ("Content-Length", "43"),
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Server", "waitress"),
    ]
    assert response.body == b"Too Ugly\r\n\r\nbody\r\n\r\n(generated by waitress)"
    assert task.close_on_finish
    assert task.wrote_header
    ((parts, last),) = channel.handed
    assert (len(parts), last) == (1, True)


def test_a_server_without_name_signs_its_errors_as_server():
    channel = Channel()
    channel.adj.ident = None
    task = ErrorTask(channel, Request(error=InternalServerError("x")))
    task.service()
    response = Response(task)
    assert "Server" not in response.headers
    assert response.body.endswith(b"(generated by server)")


def test_an_error_answers_head_with_a_head():
    task = ErrorTask(Channel(), Request(command="HEAD", error=TooUgly("body")))
    task.service()
    response = Response(task)
    assert (response.headers["Content-Length"], response.body) == ("43", b"")


def test_a_request_refused_before_it_had_a_method_can_be_answered():
    class Bare:
        version = "1.1"
        headers = {}
        error = TooUgly("body")

    channel = PlainChannel()
    request: Any = Bare()
    ErrorTask(channel, request).service()
    assert channel.sent().endswith(b"(generated by waitress)")
