"""WebTest: its own server class, and its application client against that server."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import pytest

pytestmark = [
    pytest.mark.integration,
    # WebTest leaves to the collector the connection by which it asks whether the server
    # is up, and the files that it serves.
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

webtest = pytest.importorskip("webtest")
webtest_http = pytest.importorskip("webtest.http")
debugapp = pytest.importorskip("webtest.debugapp")
pytest.importorskip("wsgiproxy")


@pytest.fixture(autouse=True)
def kept_log_level() -> Iterator[None]:
    """Give the server's logger its level back: the shutdown of WebTest silences it."""
    logger = logging.getLogger("waitress")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.fixture
def server(kept_log_level: None) -> Iterator[Any]:
    created = webtest_http.StopableWSGIServer.create(debugapp.debug_app)
    yield created
    assert created.shutdown() is True
    created.runner.join(10)
    assert not created.runner.is_alive()


def test_server_of_webtest_runs_and_stops(server: Any) -> None:
    assert server.wait()
    assert server.application_url == f"http://{server.adj.host}:{server.adj.port}/"
    assert int(server.effective_port) == int(server.adj.port)


def test_test_app_talks_to_the_live_server(server: Any) -> None:
    assert server.wait()
    app = webtest.TestApp(server.application_url)
    answer = app.get("/page", {"a": "b"}, headers={"X-Field": "value"})
    assert answer.status == "200 OK"
    answer.mustcontain("PATH_INFO: /page", "QUERY_STRING: a=b", "HTTP_X_FIELD: value")
    answer = app.post("/form", {"key": "välue"})
    answer.mustcontain("CONTENT_TYPE: application/x-www-form-urlencoded", "REQUEST_METHOD: POST")
    app.get("/?status=404%20Not%20Found", status=404)
    assert app.head("/").body == b""
    answer = app.post("/", upload_files=[("file", "name.txt", b"x" * 100000)])
    answer.mustcontain("name.txt")


def test_server_of_webtest_serves_files(server: Any, tmp_path: Any) -> None:
    assert server.wait()
    path = tmp_path / "page.html"
    path.write_text("<p>from a file</p>")
    app = webtest.TestApp(server.application_url)
    answer = app.get(f"/__file__?__file__={path}")
    assert answer.text == "<p>from a file</p>"
    assert answer.content_type == "text/html"


def test_many_servers_of_webtest_follow_one_another() -> None:
    for _ in range(5):
        created = webtest_http.StopableWSGIServer.create(debugapp.debug_app)
        assert created.wait()
        assert webtest.TestApp(created.application_url).get("/").status_int == 200
        assert created.shutdown() is True
        created.runner.join(10)
