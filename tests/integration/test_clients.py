"""Real clients: curl, requests, httpx, http.client, h11."""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import random
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Running, mirror

pytestmark = pytest.mark.integration

requests = pytest.importorskip("requests")
httpx = pytest.importorskip("httpx")
h11 = pytest.importorskip("h11")

needs_curl = pytest.mark.skipif(not shutil.which("curl"), reason="curl is not installed")

CONTENT = random.Random(3).randbytes(3_000_000)
DIGEST = hashlib.sha256(CONTENT).hexdigest()


def application(environ: dict[str, Any], start_response: Any) -> Any:
    """Digests under /digest, streams under /stream, a fixed file under /file; else mirrors."""
    path = environ["PATH_INFO"]
    if path == "/digest":
        body = hashlib.sha256(environ["wsgi.input"].read()).hexdigest().encode()
        start_response("200 OK", [("Content-Length", str(len(body)))])
        return [body]
    if path == "/stream":
        start_response("200 OK", [("Content-Type", "application/octet-stream")])
        return (CONTENT[start : start + 50_000] for start in range(0, len(CONTENT), 50_000))
    if path == "/file":
        start_response("200 OK", [("Content-Length", str(len(CONTENT)))])
        return [CONTENT]
    return mirror(environ, start_response)


@pytest.fixture
def running(serve: Callable[..., Running]) -> Running:
    return serve(application)


@pytest.fixture
def url(running: Running) -> str:
    return f"http://127.0.0.1:{running.port}"


# -- curl ----------------------------------------------------------------------------


def curl(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--noproxy", "*", "--max-time", "20", *arguments],
        input=data,
        capture_output=True,
        check=True,
    )


@needs_curl
@pytest.mark.parametrize(("option", "version"), [("--http1.0", "1"), ("--http1.1", "1.1")])
def test_curl_speaks_both_versions(option: str, version: str, url: str) -> None:
    done = curl(option, "--write-out", "\n%{http_version} %{http_code}", f"{url}/a?b=c")
    body, told = done.stdout.rsplit(b"\n", 1)
    assert told.decode() == f"{version} 200"
    seen = json.loads(body)
    assert seen["SERVER_PROTOCOL"] == f"HTTP/{float(version)}"
    assert (seen["PATH_INFO"], seen["QUERY_STRING"]) == ("/a", "b=c")


@needs_curl
@pytest.mark.parametrize("path", ["/x", "/file", "/stream"])
def test_curl_uses_a_connection_again(path: str, url: str) -> None:
    # Nothing but the number of new connections of each transfer is printed.
    done = curl(
        *("--output", "/dev/null", "--write-out", "%{num_connects}"),
        *(f"{url}{path}", "--output", "/dev/null", f"{url}{path}"),
        *("--output", "/dev/null", f"{url}/x"),
    )
    assert done.stdout == b"100"


@needs_curl
def test_curl_of_http10_keeps_a_connection_only_when_it_asks(url: str) -> None:
    options = ("--http1.0", "--output", "/dev/null", "--write-out", "%{num_connects}")
    plain = curl(*options, f"{url}/file", "--output", "/dev/null", f"{url}/file")
    assert plain.stdout == b"11"
    asking = curl(
        *("--header", "Connection: keep-alive", *options),
        *(f"{url}/file", "--output", "/dev/null", f"{url}/file"),
    )
    assert asking.stdout == b"10"


@needs_curl
def test_curl_uploads_with_a_length(url: str, tmp_path: Path) -> None:
    path = tmp_path / "content"
    path.write_bytes(CONTENT)
    assert curl("--upload-file", str(path), f"{url}/digest").stdout.decode() == DIGEST


@needs_curl
def test_curl_uploads_in_chunks(url: str) -> None:
    done = curl("--upload-file", "-", "--header", "Expect:", f"{url}/digest", data=CONTENT)
    assert done.stdout.decode() == DIGEST


@needs_curl
def test_curl_uploads_when_it_is_told_to_continue(url: str) -> None:
    done = curl(
        *("--verbose", "--expect100-timeout", "15", "--header", "Expect: 100-continue"),
        *("--data-binary", "@-", f"{url}/digest"),
        data=CONTENT,
    )
    assert done.stdout.decode() == DIGEST
    lines = [line for line in done.stderr.decode().splitlines() if line.startswith("< HTTP")]
    assert lines == ["< HTTP/1.1 100 Continue", "< HTTP/1.1 200 OK"]


@needs_curl
def test_curl_is_refused_before_it_uploads(serve: Callable[..., Running]) -> None:
    running = serve(application, max_request_body_size=1000)
    done = curl(
        *("--expect100-timeout", "15", "--header", "Expect: 100-continue"),
        *("--write-out", " %{http_code} %{size_upload}", "--data-binary", "@-"),
        f"http://127.0.0.1:{running.port}/digest",
        data=CONTENT,
    )
    assert done.stdout.endswith(b" 413 0")


@needs_curl
def test_curl_reads_the_refusal_while_it_uploads(serve: Callable[..., Running]) -> None:
    running = serve(application, max_request_body_size=1_000_000)
    done = curl(
        *("--header", "Expect:", "--write-out", " %{http_code}", "--upload-file", "-"),
        f"http://127.0.0.1:{running.port}/digest",
        data=CONTENT,
    )
    assert done.stdout.endswith(b" 413")


@needs_curl
def test_curl_asks_for_the_head_only(url: str) -> None:
    done = curl("--head", f"{url}/file", "--write-out", "%{size_download}")
    head, size = done.stdout.rsplit(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert f"Content-Length: {len(CONTENT)}".encode() in head
    assert size == b"0"


@needs_curl
def test_curl_sends_forms(url: str, tmp_path: Path) -> None:
    path = tmp_path / "attachment.txt"
    path.write_text("attached text")
    done = curl("--form", "key=value", "--form", f"file=@{path}", f"{url}/form")
    seen = json.loads(done.stdout)
    assert seen["CONTENT_TYPE"].startswith("multipart/form-data; boundary=")
    assert "attached text" in seen["body"]


@needs_curl
def test_curl_talks_through_a_unix_socket(
    run_server: Callable[[Any], Running], tmp_path: Path
) -> None:
    from waitress import create_server

    path = tmp_path / "server.sock"
    run_server(create_server(application, unix_socket=str(path)))
    done = curl("--unix-socket", str(path), "http://name.test/a")
    seen = json.loads(done.stdout)
    assert (seen["HTTP_HOST"], seen["REMOTE_ADDR"]) == ("name.test", "localhost")


@needs_curl
def test_curl_streams_are_whole(url: str) -> None:
    for option in ("--http1.0", "--http1.1"):
        assert curl(option, f"{url}/stream").stdout == CONTENT


# -- requests ------------------------------------------------------------------------


@pytest.fixture
def session() -> Iterator[Any]:
    with requests.Session() as found:
        found.trust_env = False
        yield found


def test_requests_keeps_one_connection_for_all(running: Running, url: str, session: Any) -> None:
    addresses = set()
    for method in ("get", "post", "put", "delete", "options", "patch"):
        seen = session.request(method, f"{url}/{method}").json()
        assert seen["REQUEST_METHOD"] == method.upper()
        addresses.add(seen["REMOTE_PORT"])
    assert session.head(f"{url}/file").headers["Content-Length"] == str(len(CONTENT))
    assert session.get(f"{url}/stream").content == CONTENT
    assert session.get(f"{url}/file").content == CONTENT
    addresses.add(session.get(f"{url}/last").json()["REMOTE_PORT"])
    assert len(addresses) == 1
    assert len(running.server.active_channels) == 1


def test_requests_uploads_from_a_generator(url: str, session: Any) -> None:
    pieces = (CONTENT[start : start + 70_001] for start in range(0, len(CONTENT), 70_001))
    assert session.post(f"{url}/digest", data=pieces).text == DIGEST
    assert session.post(f"{url}/digest", data=CONTENT).text == DIGEST


def test_requests_reads_a_stream_piece_by_piece(url: str, session: Any) -> None:
    digest = hashlib.sha256()
    with session.get(f"{url}/stream", stream=True) as answer:
        for piece in answer.iter_content(12_345):
            digest.update(piece)
    assert digest.hexdigest() == DIGEST


def test_requests_in_many_threads_get_each_its_own_answer(url: str) -> None:
    answers: dict[int, list[str]] = {}

    def ask(number: int) -> None:
        with requests.Session() as session:
            session.trust_env = False
            answers[number] = [
                session.get(f"{url}/{number}/{turn}").json()["PATH_INFO"] for turn in range(20)
            ]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert answers == {n: [f"/{n}/{turn}" for turn in range(20)] for n in range(10)}


# -- httpx ---------------------------------------------------------------------------


def test_httpx_uploads_and_streams(url: str) -> None:
    with httpx.Client(base_url=url, trust_env=False) as client:
        assert client.get("/a", params={"b": "ü"}).json()["QUERY_STRING"] == "b=%C3%BC"
        pieces = (CONTENT[start : start + 70_001] for start in range(0, len(CONTENT), 70_001))
        assert client.post("/digest", content=pieces).text == DIGEST
        with client.stream("GET", "/stream") as answer:
            assert answer.http_version == "HTTP/1.1"
            assert b"".join(answer.iter_bytes()) == CONTENT
        form = client.post("/form", data={"k": "v"}, files={"f": ("n.txt", b"text")})
        assert "n.txt" in form.json()["body"]


def test_httpx_asks_for_many_things_at_once(url: str) -> None:
    async def main() -> list[str]:
        async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
            answers = await asyncio.gather(*(client.get(f"/{n}") for n in range(60)))
            return [answer.json()["PATH_INFO"] for answer in answers]

    assert asyncio.run(main()) == [f"/{n}" for n in range(60)]


# -- http.client ---------------------------------------------------------------------


@pytest.fixture
def connection(running: Running) -> Iterator[http.client.HTTPConnection]:
    found = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE)
    yield found
    found.close()


def test_http_client_keeps_its_socket(connection: http.client.HTTPConnection) -> None:
    connection.connect()
    sock = connection.sock
    for method, path, body in [
        ("GET", "/file", None),
        ("HEAD", "/file", None),
        ("POST", "/digest", CONTENT),
        ("GET", "/stream", None),
    ]:
        connection.request(method, path, body)
        answer = connection.getresponse()
        expected = {"/digest": DIGEST.encode(), "HEAD": b""}.get(
            method if method == "HEAD" else path, CONTENT
        )
        assert answer.read() == expected
        assert connection.sock is sock


def test_http_client_sends_chunks(connection: http.client.HTTPConnection) -> None:
    pieces = iter([CONTENT[:1], CONTENT[1:500_000], CONTENT[500_000:]])
    connection.request("POST", "/digest", pieces, encode_chunked=True)
    assert connection.getresponse().read().decode() == DIGEST


def test_http_client_of_http10_gets_a_closed_connection(
    connection: http.client.HTTPConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "_http_vsn", 10)
    monkeypatch.setattr(connection, "_http_vsn_str", "HTTP/1.0")
    connection.request("GET", "/stream")
    answer = connection.getresponse()
    assert answer.version == 10
    assert answer.will_close
    assert answer.getheader("Transfer-Encoding") is None
    assert answer.read() == CONTENT


# -- h11 -----------------------------------------------------------------------------


class H11Client:
    """A client that lets h11 judge every byte of the server's."""

    def __init__(self, wire: Any) -> None:
        self.sock = wire.sock
        self.state = h11.Connection(h11.CLIENT)

    def send(self, *events: Any) -> None:
        self.sock.sendall(b"".join(self.state.send(each) for each in events))

    def next_event(self) -> Any:
        while (event := self.state.next_event()) is h11.NEED_DATA:
            self.state.receive_data(self.sock.recv(65536))
        return event

    def read_answer(self) -> tuple[int, bytes, list[int]]:
        """Return status, body and the interim statuses before it."""
        interim = []
        while type(event := self.next_event()) is h11.InformationalResponse:
            interim.append(event.status_code)
        assert type(event) is h11.Response
        status, body = event.status_code, b""
        while type(event := self.next_event()) is h11.Data:
            body += bytes(event.data)
        assert type(event) is h11.EndOfMessage
        return status, body, interim


def head(method: str, path: str, *fields: tuple[str, str]) -> Any:
    return h11.Request(method=method, target=path, headers=[("Host", "h"), *fields])


def test_h11_goes_on_after_every_kind_of_response(running: Running) -> None:
    with running.connect() as wire:
        client = H11Client(wire)
        for method, path, expected in [
            ("GET", "/file", CONTENT),
            ("GET", "/stream", CONTENT),
            ("HEAD", "/file", b""),
            ("HEAD", "/stream", b""),
            ("GET", "/file", CONTENT),
        ]:
            client.send(head(method, path), h11.EndOfMessage())
            assert client.read_answer() == (200, expected, [])
            assert client.state.our_state is h11.DONE
            client.state.start_next_cycle()


def test_h11_waits_for_the_invitation(running: Running) -> None:
    with running.connect() as wire:
        client = H11Client(wire)
        for _ in range(2):
            client.send(
                head(
                    *("POST", "/digest"),
                    *(("Expect", "100-continue"), ("Content-Length", str(len(CONTENT)))),
                )
            )
            assert client.state.client_is_waiting_for_100_continue
            assert client.next_event().status_code == 100
            client.send(h11.Data(CONTENT), h11.EndOfMessage())
            assert client.read_answer() == (200, DIGEST.encode(), [])
            client.state.start_next_cycle()


def test_h11_sends_chunks_and_trailers(running: Running) -> None:
    with running.connect() as wire:
        client = H11Client(wire)
        client.send(head("POST", "/digest", ("Transfer-Encoding", "chunked")))
        for start in range(0, len(CONTENT), 99_991):
            client.send(h11.Data(CONTENT[start : start + 99_991]))
        client.send(h11.EndOfMessage(headers=[("X-Checked", "yes")]))
        assert client.read_answer() == (200, DIGEST.encode(), [])


def test_h11_reads_errors_and_the_end(running: Running) -> None:
    with running.connect() as wire:
        client = H11Client(wire)
        client.send(head("POST", "/", ("Transfer-Encoding", "chunked")))
        wire.sock.sendall(b"nonsense\r\n")
        status, body, _ = client.read_answer()
        assert status == 400
        assert b"Invalid chunk size" in body
        assert type(client.next_event()) is h11.ConnectionClosed
