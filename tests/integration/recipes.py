"""The files of examples/deploy: the commands that they name, and real programs that read them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shlex
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.compat.live import PATIENCE
from tests.integration.commands import PYTHON_M, Command
from tests.restarts.harness import (
    await_answer,
    await_port,
    find_program,
    free_ports,
    proxy_arguments,
)

DEPLOY = Path(__file__).parent.parent.parent / "examples" / "deploy"

#: What clients send and get, in bytes.
LARGE = 50 * 1024 * 1024

APPLICATION = '''
import hashlib
import json
import os

PIECE = bytes(range(256)) * 1024


def app(environ, start_response):
    """Tell what was seen; or send as many bytes as the query says."""
    if environ["PATH_INFO"] == "/download":
        count = int(environ["QUERY_STRING"])
        start_response("200 OK", [("Content-Length", str(count))])
        return iter([PIECE] * (count // len(PIECE)))
    digest = hashlib.sha256()
    while piece := environ["wsgi.input"].read(65536):
        digest.update(piece)
    seen = {key: value for key, value in environ.items() if isinstance(value, str)}
    body = json.dumps({**seen, "body": digest.hexdigest(), "pid": os.getpid()}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]
'''


def server_commands(text: str) -> list[list[str]]:
    """Return the arguments of each ``waitress-serve`` that a file's comments show."""
    uncommented = "\n".join(line.removeprefix("#") for line in text.splitlines())
    joined = uncommented.replace("\\\n", " ")
    return [shlex.split(line)[1:] for line in re.findall(r"^ +(waitress-serve .*)$", joined, re.M)]


def make_certificate(directory: Path) -> None:
    """Make ``myapp.key``, ``myapp.crt`` and, of both, ``myapp.pem``."""
    subprocess.run(
        (
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-subj", "/CN=site.example", "-keyout", "myapp.key", "-out", "myapp.crt"),
        ),
        cwd=directory,
        check=True,
        capture_output=True,
        timeout=60,
    )
    both = (directory / "myapp.crt").read_text() + (directory / "myapp.key").read_text()
    (directory / "myapp.pem").write_text(both)


def missing(program: str) -> list[str]:
    """Return what a test with a proxy needs and the system does not have."""
    return [each for each in (program, "openssl") if find_program(each) is None]


@dataclass
class Front:
    """A proxy with a file of examples/deploy, and the servers behind it."""

    recipe: str
    port: int
    tls_port: int
    status_ports: list[int]

    @property
    def has_http(self) -> bool:
        return self.port != 0

    def connect(self, tls: bool = False, source: str = "127.0.0.2") -> Any:
        """Return a connection of a client whose address is no proxy's."""
        options: dict[str, Any] = {"timeout": PATIENCE, "source_address": (source, 0)}
        if not tls:
            return http.client.HTTPConnection("127.0.0.1", self.port, **options)
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return http.client.HTTPSConnection("127.0.0.1", self.tls_port, context=context, **options)

    def connections_of_the_proxy(self) -> int:
        """Return how many connections the servers have accepted."""
        return sum(_accepted(port) for port in self.status_ports)


def _accepted(port: int) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request("GET", "/status.json")
        told = json.loads(connection.getresponse().read())
    return int(told["stats"]["connections_accepted"])


@contextlib.contextmanager
def running(recipe: str) -> Iterator[Front]:
    """Run a file's servers, and the proxy with the file itself, its parameters replaced."""
    program = recipe.split(".")[0].split("-")[0]
    text = (DEPLOY / recipe).read_text(encoding="utf-8")
    with contextlib.ExitStack() as stack:
        # A short path: a unix socket's has to be.
        name = stack.enter_context(tempfile.TemporaryDirectory(prefix="recipe"))
        directory = Path(name)
        make_certificate(directory)
        (directory / "myapp.py").write_text(APPLICATION)
        http_port, tls_port, *ports = free_ports(4)
        for old, new in (("8080", http_port), ("8443", tls_port), ("8081", ports[0])):
            text = text.replace(f"127.0.0.1:{old}", f"127.0.0.1:{new}")
        text = text.replace("127.0.0.1:8082", f"127.0.0.1:{ports[1]}")
        text = text.replace("/run/myapp/", f"{directory}/")
        text = re.sub(r"/etc/(nginx|haproxy)/myapp", f"{directory}/myapp", text)
        # TLS stands in comments where it needs files that nobody has before.
        commented = r"^( +)# (bind .* ssl crt|listen .* ssl;|ssl_certificate)"
        text = re.sub(commented, r"\1\2", text, flags=re.M)
        commands = server_commands(text)
        status_ports = free_ports(len(commands))
        for arguments, status_port in zip(commands, status_ports, strict=True):
            status = f"--status-listen=127.0.0.1:{status_port}"
            command = Command([*PYTHON_M, status, *arguments], directory)
            stack.callback(command.end)
            command.await_matches("Serving on")
        config = directory / recipe
        config.write_text(text, encoding="utf-8")
        process = subprocess.Popen(
            [str(find_program(program)), *proxy_arguments(program, config)],
            stderr=subprocess.DEVNULL,
        )
        stack.callback(process.wait, PATIENCE)
        stack.callback(process.terminate)
        listens = {port for port in (http_port, tls_port) if f"127.0.0.1:{port}" in text}
        front = Front(
            recipe,
            http_port if http_port in listens else 0,
            tls_port if tls_port in listens else 0,
            status_ports,
        )
        if front.has_http:
            await_answer(process, front.port, "/", 200)
        else:
            await_port(process, front.tls_port)
        yield front
