"""systemd's side played by its own programs, and by a socket like the one it listens to."""

from __future__ import annotations

import configparser
import http.client
import shutil
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compat.live import PATIENCE
from tests.integration.commands import PYTHON_M, Command
from tests.restarts.harness import free_ports
from waitress.adjustments import Adjustments

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "examples" / "deploy"
ACTIVATE = shutil.which("systemd-socket-activate")
ANALYZE = shutil.which("systemd-analyze")

APPLICATION = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"activated"]
"""

Start = Callable[..., Command]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[socket.socket]:
    """The socket that systemd would read."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(str(tmp_path / "notify"))
        sock.settimeout(PATIENCE)
        yield sock


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(DEPLOY / name)
    return parser


@pytest.mark.skipif(ACTIVATE is None, reason="systemd-socket-activate is not installed")
def test_command_of_the_unit_file_serves_an_activated_socket_and_tells_systemd(
    start_command: Start, tmp_path: Path, told: socket.socket
) -> None:
    pytest.importorskip("waitress.bind_names")
    (tmp_path / "myapp.py").write_text(APPLICATION)
    program, *options = unit("myapp.service")["Service"]["ExecStart"].split()
    assert program.endswith("/waitress-serve")
    (port,) = free_ports(1)
    command = start_command(
        *(ACTIVATE, f"--listen=127.0.0.1:{port}", "--setenv=PYTHONPATH"),
        *(f"--setenv=NOTIFY_SOCKET={tmp_path}/notify", "--setenv=WATCHDOG_USEC=500000"),
        *(*PYTHON_M, *options),
    )
    command.await_matches("Listening on")
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"activated"
    connection.close()
    assert told.recv(1000).startswith(b"READY=1\n")
    assert told.recv(1000) == b"WATCHDOG=1"
    command.process.send_signal(signal.SIGTERM)
    while (message := told.recv(1000)) == b"WATCHDOG=1":
        pass
    assert message.startswith(b"STOPPING=1\n")
    assert command.await_status() == 0


@pytest.mark.skipif(ANALYZE is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit_files(tmp_path: Path) -> None:
    for name in ("myapp.service", "myapp.socket", "myapp@.service", "myapp-pool.socket"):
        text = (DEPLOY / name).read_text(encoding="utf-8")
        text = text.replace("/srv/myapp/bin/waitress-serve", "/bin/true")
        (tmp_path / name).write_text(text.replace("/srv/myapp", "/"))
    checked = subprocess.run(
        [str(ANALYZE), "verify", "--man=no", *map(str, tmp_path.iterdir())],
        capture_output=True,
        text=True,
        timeout=60,
    )
    complaints = [line for line in checked.stderr.splitlines() if "myapp" in line]
    assert (complaints, checked.returncode) == ([], 0)


@pytest.mark.parametrize("name", ["myapp.service", "myapp@.service"])
def test_systemd_waits_for_longer_than_the_server_takes(name: str) -> None:
    service = unit(name)["Service"]
    assert int(service["TimeoutStopSec"]) > Adjustments().graceful_timeout
