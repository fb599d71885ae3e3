import urllib.request

import pytest

from waitress import create_server


def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"Hello from " + environ["PATH_INFO"].encode()]


@pytest.fixture
def server():
    with create_server(app, host="127.0.0.1", port=0) as server:
        yield server


def test_answer(server):
    with urllib.request.urlopen(server.url + "/here") as response:
        assert response.read() == b"Hello from /here"
