"""Lines of the access log of real servers, for requests of every fate."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import hello

PATIENCE = 20.0
GET = b"GET /p?q=1 HTTP/1.1\r\nHost: a.example\r\nUser-Agent: t\r\n%b\r\n"


def await_lines(path: Path, count: int) -> list[str]:
    until = time.monotonic() + PATIENCE
    while len(lines := path.read_text().splitlines()) < count:
        assert time.monotonic() < until, lines
        threading.Event().wait(0.005)
    return lines


def talk(port: int, data: bytes) -> bytes:
    """Send bytes, then no more; return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: sock.recv(65536), b""))


def test_a_request_has_one_line(serve, tmp_path):
    running = serve(hello, access_log=str(tmp_path / "log"))
    talk(running.port, GET % b"Connection: close\r\n")
    running.stop()
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert re.fullmatch(
        r'127\.0\.0\.1 - - \[\d\d/\w{3}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\] "GET /p\?q=1 HTTP/1\.1"'
        r' 200 5 "-" "t" total_us=\d+ queued_us=\d+ app_us=\d+ send_us=\d+ end=--',
        line,
    )


def test_pipelined_requests_have_a_line_each_in_order(serve, tmp_path):
    running = serve(hello, access_log=str(tmp_path / "log"), access_log_format="%(q)s %(id)s")
    talk(running.port, b"".join(b"GET /?%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(20)))
    running.stop()
    lines = (tmp_path / "log").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [str(number) for number in range(20)]


def test_a_refused_request_tells_why(serve, tmp_path):
    running = serve(hello, access_log=str(tmp_path / "log"), access_log_format="json")
    talk(running.port, b"GET / HTTP/1.1\r\n\r\n")
    told = json.loads(await_lines(tmp_path / "log", 1)[0])
    assert (told["status"], told["method"], told["refusal"]) == (400, "GET", "no-host")
    assert told["end"][0] == "S"
    assert told["app_us"] is None


def test_a_client_that_leaves_is_told_of(serve, tmp_path):
    running = serve(hello, access_log=str(tmp_path / "log"), access_log_format="json")
    talk(running.port, b"GET / HT")
    told = json.loads(await_lines(tmp_path / "log", 1)[0])
    assert (told["status"], told["method"], told["end"]) == (None, None, "CH")


def test_sizes_are_those_of_the_wire(serve, tmp_path):
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        environ["wsgi.input"].read()
        start_response("200 OK", [("X", "y"), ("Content-Length", "1000")])
        return [b"x" * 1000]

    running = serve(app, access_log=str(tmp_path / "log"), access_log_format="json")
    request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789"
    answer = talk(running.port, request)
    told = json.loads(await_lines(tmp_path / "log", 1)[0])
    assert told["body_bytes"] == 1000
    assert told["bytes_out"] == len(answer)
    assert told["bytes_in"] == len(request)


def test_the_client_is_whom_trusted_proxies_tell_of(serve, tmp_path):
    running = serve(
        hello,
        access_log=str(tmp_path / "log"),
        access_log_format="%(h)s %(peer)s %({HTTP_HOST}e)s %({content-type}o)s",
        trusted_proxy="127.0.0.1",
        trusted_proxy_headers="x-forwarded-for",
    )
    talk(running.port, GET % b"X-Forwarded-For: 203.0.113.9\r\n")
    (line,) = await_lines(tmp_path / "log", 1)
    assert re.fullmatch(r"203\.0\.113\.9 127\.0\.0\.1:\d+ a\.example text/plain", line)


def test_all_listeners_of_a_server_have_one_access_log(serve, tmp_path):
    running = serve(
        hello,
        listen="127.0.0.1:0 127.0.0.1:0",
        access_log=str(tmp_path / "log"),
        access_log_format="%(q)s",
    )
    for number, (_, port) in enumerate(running.server.effective_listen):
        talk(int(port), b"GET /?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
    running.stop()
    assert sorted((tmp_path / "log").read_text().split()) == ["0", "1"]


def test_no_client_forges_a_line(serve, tmp_path):
    running = serve(hello, access_log=str(tmp_path / "log"))
    talk(running.port, GET % b'Referer: " 200 9 "-" "-"\\\xe2\x80\xa8\r\n')
    (line,) = await_lines(tmp_path / "log", 1)
    assert r' 200 5 "\x22 200 9 \x22-\x22 \x22-\x22\x5c\xe2\x80\xa8" "t" total' in line


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are of POSIX")
def test_a_pipe_that_nobody_reads_keeps_no_request_waiting(serve, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        # More than a pipe holds, with one line.
        text = "%(s)s" + "x" * 100_000
        running = serve(hello, access_log=str(tmp_path / "pipe"), access_log_format=text)
        for _ in range(50):
            assert talk(running.port, GET % b"").startswith(b"HTTP/1.1 200 OK\r\n")
        # The end of the server waits for the lines, so they are read meanwhile.
        ending = threading.Thread(target=running.stop)
        ending.start()
        os.set_blocking(reader, True)
        data = b"".join(iter(lambda: os.read(reader, 65536), b""))
        ending.join(PATIENCE)
        assert data == (b"200" + b"x" * 100_000 + b"\n") * 50
    finally:
        os.close(reader)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="Windows has no SIGHUP")
def test_the_command_rotates_its_file_on_sighup(tmp_path):
    (tmp_path / "myapp.py").write_text(
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
    )
    path = tmp_path / "log"
    command = [sys.executable, "-m", "waitress", "--listen=127.0.0.1:0", f"--access-log={path}"]
    with subprocess.Popen(
        [*command, "--access-log-format=%(q)s", "myapp:app"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stderr is not None
            while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", process.stderr.readline())):
                pass
            port = int(found[1])
            for number in range(40):
                talk(port, b"GET /?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                if number % 10 == 5:
                    path.rename(tmp_path / f"log.{number}")
                    process.send_signal(signal.SIGHUP)
                    until = time.monotonic() + PATIENCE
                    while not path.exists():
                        assert time.monotonic() < until
                        threading.Event().wait(0.005)
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE)
    files = [*(tmp_path / f"log.{number}" for number in (5, 15, 25, 35)), path]
    assert [file.read_text().split() for file in files][-1], "the new file gets the next lines"
    told = " ".join(file.read_text() for file in files).split()
    assert told == [str(number) for number in range(40)]


def test_lines_on_the_standard_output_are_there_when_the_process_has_ended():
    program = (
        "import sys, threading, urllib.request, waitress\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [('Content-Length', '0')])\n"
        "    return []\n"
        "server = waitress.create_server(\n"
        "    app, listen='127.0.0.1:0', access_log='-', access_log_format='json')\n"
        "def visit():\n"
        "    urllib.request.urlopen(f'http://127.0.0.1:{server.effective_port}/', timeout=20)\n"
        "    server.trigger.pull_trigger(sys.exit)\n"
        "threading.Thread(target=visit).start()\n"
        "server.run()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert json.loads(done.stdout)["end"] == "--"
