"""The environ, key by key (R13, R19 and PEP 3333)."""

from __future__ import annotations

import io
import sys
from types import SimpleNamespace

import pytest

from waitress import environ as environ_module
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.environ import build_environ, build_path_info, rename_headers
from waitress.parser import HTTPRequestParser, KnownSection


class Request:
    """A request as the parser leaves it."""

    def __init__(self, **fields):
        self.headers = {"HOST": "example.org", "X_FOO": "\xa0BAR\x85"}
        self.command = "get"
        self.path = "/a b"
        self.query = "q=%20"
        self.request_uri = "http://example.org/a%20b?q=%20"
        self.url_scheme = "https"
        self.body = io.BytesIO(b"body")
        self.__dict__.update(fields)

    def get_body_stream(self):
        return self.body


def client_disconnected():
    return False


def build(
    request=None,
    version="1.1",
    addr=("192.0.2.1", 4711),
    server_name="server.invalid",
    server_port=8080,
    ident="waitress",
    url_prefix="",
):
    adj = SimpleNamespace(ident=ident, url_prefix=url_prefix)
    server = SimpleNamespace(server_name=server_name, effective_port=server_port, adj=adj)
    return build_environ(request or Request(), version, addr, server, client_disconnected)


def test_the_environ_has_these_keys_and_no_others():
    request = Request(
        headers={**Request().headers, "CONTENT_TYPE": "text/x", "CONTENT_LENGTH": "4"}
    )
    assert build(request) == {
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_HOST": "192.0.2.1",
        "REMOTE_PORT": "4711",
        "REQUEST_METHOD": "GET",
        "SERVER_PORT": "8080",
        "SERVER_NAME": "server.invalid",
        "SERVER_SOFTWARE": "waitress",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/a b",
        "REQUEST_URI": "http://example.org/a%20b?q=%20",
        "QUERY_STRING": "q=%20",
        "CONTENT_TYPE": "text/x",
        "CONTENT_LENGTH": "4",
        "HTTP_HOST": "example.org",
        "HTTP_X_FOO": "\xa0BAR\x85",
        "wsgi.url_scheme": "https",
        "wsgi.version": (1, 0),
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": False,
        "wsgi.run_once": False,
        "wsgi.input": request.body,
        "wsgi.file_wrapper": ReadOnlyFileBasedBuffer,
        "wsgi.input_terminated": True,
        "waitress.client_disconnected": client_disconnected,
    }


def test_it_is_a_dict_proper_and_the_applications_own():
    first = build()
    first["wsgi.version"] = "changed"
    first.clear()
    second = build()
    assert type(second) is dict
    assert second["wsgi.version"] == (1, 0)
    assert "CONTENT_LENGTH" not in second


def test_errors_go_where_stderr_goes_at_that_time(monkeypatch):
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert build()["wsgi.errors"] is stream


def test_the_protocol_is_the_version_answered_in():
    assert build(version="1.0")["SERVER_PROTOCOL"] == "HTTP/1.0"


def test_a_unix_socket_has_a_port_that_is_no_number():
    environ = build(addr=("localhost", None), server_port="/run/x.sock")
    assert environ["REMOTE_PORT"] == "None"
    assert environ["SERVER_PORT"] == "/run/x.sock"


def test_a_server_that_hides_its_name_still_gives_a_string():
    assert build(ident=None)["SERVER_SOFTWARE"] == ""


def test_facts_of_one_server_are_not_those_of_another():
    assert build(server_port=1)["SERVER_PORT"] == "1"
    assert build(server_port=2, url_prefix="/x")["SERVER_PORT"] == "2"
    assert build(server_port=1)["SCRIPT_NAME"] == ""


@pytest.mark.parametrize(
    ("path", "prefix", "path_info"),
    [
        ("/", "", "/"),
        ("", "", ""),
        ("*", "", "*"),
        ("//a//b", "", "/a//b"),
        ("///", "", "/"),
        ("a", "", "a"),
        ("/app", "/app", ""),
        ("/app/", "/app", "/"),
        ("//app//b", "/app", "//b"),
        ("/application", "/app", "/application"),
        ("/other", "/app", "/other"),
    ],
)
def test_path_info_is_the_path_below_the_prefix(path, prefix, path_info):
    assert build_path_info(path, prefix) == path_info
    environ = build(Request(path=path), url_prefix=prefix)
    assert environ["PATH_INFO"] == path_info
    assert environ["SCRIPT_NAME"] == prefix


def test_only_two_fields_have_keys_without_http():
    assert rename_headers == {"CONTENT_LENGTH": "CONTENT_LENGTH", "CONTENT_TYPE": "CONTENT_TYPE"}


def test_memory_of_names_and_servers_is_bounded():
    section = KnownSection(dict(FIELDS))
    for number in range(2000):
        name = f"X_{number}"
        environ = build(Request(headers={name: "v"}), server_port=number)
        assert environ[f"HTTP_{name}"] == "v"
        build(Request(headers=dict(FIELDS), known_section=section), server_port=number)
    assert len(environ_module._environ_keys) <= 512
    assert len(environ_module._templates) <= 512
    assert len(section.templates) <= 8


def test_known_and_new_names_may_stand_side_by_side():
    build(Request(headers={"X_KNOWN": "1"}))
    environ = build(Request(headers={"X_KNOWN": "1", "X_NEW_HERE": "2", "CONTENT_TYPE": "3"}))
    assert environ["HTTP_X_KNOWN"] == "1"
    assert environ["HTTP_X_NEW_HERE"] == "2"
    assert environ["CONTENT_TYPE"] == "3"


FIELDS = {"HOST": "example.org", "CONTENT_TYPE": "text/x"}


class OtherDict(dict):
    """What a parser of the user's may put in place of the fields."""

    def items(self):
        return [("X_OTHER", "1")]


@pytest.mark.parametrize(
    "headers",
    [
        FIELDS,
        {**FIELDS, "X_FOO": "added"},
        {**FIELDS, "HOST": "changed.example"},
        {"HOST": "example.org"},
        {},
        OtherDict(FIELDS),
    ],
)
@pytest.mark.parametrize("is_first", [False, True])
def test_fields_are_those_of_the_request_whatever_its_section_said(headers, is_first):
    expected = build(Request(headers=headers, body=None))
    section = KnownSection(dict(FIELDS))
    if not is_first:
        build(Request(headers=dict(FIELDS), known_section=section))["HTTP_HOST"] = "an app's"
    for _ in range(2):
        environ = build(Request(headers=headers, known_section=section, body=None))
        assert list(environ.items()) == list(expected.items())


class Tagged(str):
    """What a parser of the user's may put in place of a value."""

    __slots__ = ()


def test_what_equals_the_fields_of_a_known_section_is_not_kept_for_others():
    section = KnownSection(dict(FIELDS))
    for _ in range(2):
        headers = {name: Tagged(value) for name, value in reversed(FIELDS.items())}
        environ = build(Request(headers=headers, known_section=section, body=None))
    plain = build(Request(headers=dict(FIELDS), body=None))
    assert list(environ.items()) == list(plain.items())
    assert not any(type(value) is Tagged for value in environ.values())


def test_requests_with_a_known_section_have_the_environs_of_those_without():
    def ask(cookie=b""):
        parser = HTTPRequestParser(Adjustments())
        parser.received(
            b"GET / HTTP/1.1\r\nHost: known.example\r\nAccept: a\r\n" + cookie + b"\r\n"
        )
        environ = build(parser)
        del environ["wsgi.input"]
        return parser, environ

    _, first = ask()
    for _ in range(2):
        parser, environ = ask()
        assert parser.known_section is not None
        assert list(environ.items()) == list(first.items())
    _, with_cookie = ask(b"Cookie: c\r\n")
    assert with_cookie == {**first, "HTTP_COOKIE": "c"}


def test_fields_of_a_known_section_are_named_once(monkeypatch):
    section = KnownSection(dict(FIELDS))
    first = Request(headers=dict(FIELDS), known_section=section)
    build(first)
    first.headers["HOST"] = "changed later"
    monkeypatch.setattr(environ_module, "_environ_keys", None)
    environ = build(Request(headers=dict(FIELDS), known_section=section))
    assert environ["HTTP_HOST"] == "example.org"
    assert environ["CONTENT_TYPE"] == "text/x"
    with pytest.raises(TypeError):
        build(Request(headers={"HOST": "example.org"}, known_section=section))


@pytest.mark.parametrize(
    ("key", "setting"),
    [
        ("SERVER_NAME", "server_name"),
        ("SERVER_PORT", "server_port"),
        ("SERVER_SOFTWARE", "ident"),
        ("SCRIPT_NAME", "url_prefix"),
    ],
)
@pytest.mark.parametrize("section", [None, KnownSection(dict(FIELDS))])
def test_what_a_server_is_called_is_not_told_of_another(key, setting, section):
    for value in ("/a", "/b", "/a"):
        request = Request(headers=dict(FIELDS), known_section=section)
        assert build(request, **{setting: value})[key] == value


def test_names_and_servers_are_remembered():
    environ_module._environ_keys.clear()
    environ_module._templates.clear()
    build(Request(headers={"X_A": "1", "CONTENT_TYPE": "2"}))
    build(Request(headers={}), server_port=1)
    assert environ_module._environ_keys == {"X_A": "HTTP_X_A", "CONTENT_TYPE": "CONTENT_TYPE"}
    assert len(environ_module._templates) == 2
