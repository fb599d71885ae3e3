"""The proxies' files of examples/deploy, read by real proxies in front of real servers."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.recipes import DEPLOY, LARGE, Front, missing, running, server_commands

pytestmark = pytest.mark.integration

#: By file: the schemes that clients of its proxy may use.
RECIPES = {
    "haproxy.cfg": ["http", "https"],
    "haproxy-proxy-protocol.cfg": ["http"],
    "nginx.conf": ["http", "https"],
    "nginx-unix.conf": ["https"],
}
CASES = [(recipe, scheme) for recipe, schemes in RECIPES.items() for scheme in schemes]

behind_each = pytest.mark.parametrize(("front", "scheme"), CASES, indirect=["front"])

#: What a client may claim, and what must not come through of it.
FORGED = {
    "X-Forwarded-For": "6.6.6.6",
    "X-Forwarded-Proto": "wss",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Port": "666",
    "X-Forwarded-By": "evil.example",
    "Forwarded": "for=6.6.6.6;host=evil.example;proto=wss",
    "X_Forwarded_For": "6.6.6.6",
}
CLIENT = "127.0.0.2"
SITE = "site.example"


@pytest.fixture(scope="module")
def front(request: pytest.FixtureRequest) -> Iterator[Front]:
    lacking = missing(request.param.split(".")[0].split("-")[0])
    if lacking:
        pytest.skip(f"not installed: {', '.join(lacking)}")
    with running(request.param) as made:
        yield made


def seen(connection: Any, **headers: str) -> dict[str, Any]:
    """Return what the application sees of a request."""
    connection.request("GET", "/", headers={"Host": SITE, **headers})
    with contextlib.closing(connection.getresponse()) as response:
        assert response.status == 200
        environ: dict[str, Any] = json.loads(response.read())
    return environ


@behind_each
def test_application_learns_the_truth_and_nothing_that_is_forged(front: Front, scheme: str) -> None:
    connection = front.connect(scheme == "https")
    with contextlib.closing(connection):
        plain = seen(connection)
        forged = seen(connection, **FORGED)
    for environ in (plain, forged):
        assert environ["wsgi.url_scheme"] == scheme
        assert environ["REMOTE_ADDR"] == environ["REMOTE_HOST"] == CLIENT
        assert environ["HTTP_HOST"] == SITE
    text = json.dumps(forged)
    for claim in ("6.6.6.6", "evil", "666", "wss"):
        assert claim not in text
    assert forged["SERVER_NAME"] == plain["SERVER_NAME"]
    assert forged["SERVER_PORT"] == plain["SERVER_PORT"]


@behind_each
def test_several_fields_of_one_name_are_no_way_in_either(front: Front, scheme: str) -> None:
    connection = front.connect(scheme == "https")
    with contextlib.closing(connection):
        connection.putrequest("GET", "/", skip_host=True)
        connection.putheader("Host", SITE)
        for claimed in ("6.6.6.6", "6.6.6.6, 127.0.0.1"):
            connection.putheader("X-Forwarded-For", claimed)
        connection.endheaders()
        environ = json.loads(connection.getresponse().read())
    assert environ["REMOTE_ADDR"] == CLIENT
    assert "6.6.6.6" not in json.dumps(environ)


@behind_each
def test_upload_of_50_mb_arrives_whole(front: Front, scheme: str) -> None:
    body = bytes(range(256)) * (LARGE // 256)
    connection = front.connect(scheme == "https")
    with contextlib.closing(connection):
        connection.request("PUT", "/upload", body=body, headers={"Host": SITE})
        environ = json.loads(connection.getresponse().read())
    assert environ["body"] == hashlib.sha256(body).hexdigest()


@behind_each
def test_download_of_50_mb_arrives_whole(front: Front, scheme: str) -> None:
    connection = front.connect(scheme == "https")
    with contextlib.closing(connection):
        connection.request("GET", f"/download?{LARGE}", headers={"Host": SITE})
        body = connection.getresponse().read()
    assert len(body) == LARGE
    assert hashlib.sha256(body).digest() == hashlib.sha256(body[:256] * (LARGE // 256)).digest()


@behind_each
def test_connections_to_the_servers_are_kept(front: Front, scheme: str) -> None:
    before = front.connections_of_the_proxy()
    connection = front.connect(scheme == "https")
    with contextlib.closing(connection):
        for _ in range(100):
            seen(connection)
    # Some are health checks', and one for each server may be new.
    assert front.connections_of_the_proxy() - before < 50


@pytest.mark.parametrize("recipe", RECIPES)
def test_each_file_shows_the_commands_that_make_it_safe(recipe: str) -> None:
    commands = server_commands((DEPLOY / recipe).read_text(encoding="utf-8"))
    assert commands
    for arguments in commands:
        assert any(each.startswith("--trusted-proxy=") for each in arguments)
        assert arguments[-1] == "myapp:app"
