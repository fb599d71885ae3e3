"""The doors from the command line: ``waitress-serve`` and ``python -m waitress``."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.compat.live import PATIENCE, Wire
from tests.integration.commands import PYTHON_M, WAITRESS_SERVE, Command

pytestmark = pytest.mark.integration

APPLICATION = '''
"""An application of the user's own, in the directory where the command is started."""

import time


def app(environ, start_response):
    body = repr((environ["SCRIPT_NAME"], environ["PATH_INFO"], environ["wsgi.url_scheme"]))
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [body.encode()]


class Nested:
    app = staticmethod(app)


def factory():
    return app


def broken_factory():
    raise LookupError("the factory failed")
'''

Start = Callable[..., Command]


@pytest.fixture(autouse=True)
def application(tmp_path: Path) -> None:
    (tmp_path / "site_app.py").write_text(APPLICATION)


@pytest.fixture(params=[WAITRESS_SERVE, PYTHON_M], ids=["waitress-serve", "python-m"])
def program(request: pytest.FixtureRequest) -> tuple[str, ...]:
    found: tuple[str, ...] = request.param
    return found


def fetch(address: tuple[str, int], path: str = "/") -> bytes:
    with Wire(socket.create_connection(address, PATIENCE)) as wire:
        answer = wire.get(path)
        assert answer.status == 200
        return answer.body


def test_application_of_the_working_directory_is_served(
    program: tuple[str, ...], start_command: Start
) -> None:
    command = start_command(*program, "--host=127.0.0.1", "--port", "0", "site_app:app")
    (address,) = command.await_addresses()
    assert fetch(address, "/page") == b"('', '/page', 'http')"
    assert command.interrupt() == 0
    assert "Traceback" not in command.output


@pytest.mark.skipif(sys.platform != "linux", reason="newcomers are held off on Linux only")
def test_crowd_for_which_there_are_no_descriptors_is_served_before_the_end(
    start_command: Start, tmp_path: Path
) -> None:
    """It has connected, and waits in the backlog when SIGTERM comes."""
    (tmp_path / "limited_app.py").write_text(
        "import resource\n"
        "from site_app import app\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))\n"
    )
    command = start_command(
        *WAITRESS_SERVE, "--listen=127.0.0.1:0", "--connection-limit=1000", "limited_app:app"
    )
    (address,) = command.await_addresses()
    with contextlib.ExitStack() as stack:
        wires = [
            stack.enter_context(Wire(socket.create_connection(address, PATIENCE)))
            for _ in range(90)
        ]
        command.await_matches("Too many open files")
        command.process.send_signal(signal.SIGTERM)
        command.await_matches(r"shutdown \(SIGTERM\)")
        for wire in wires:
            wire.send(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        for wire in wires:
            assert wire.read_answer().status == 200
            wire.close()
    assert command.await_status() == 0


@pytest.mark.parametrize("name", ["site_app:Nested.app", "site_app.Nested.app"])
def test_application_is_found_by_dotted_name(name: str, start_command: Start) -> None:
    command = start_command(*PYTHON_M, "--listen=127.0.0.1:0", name)
    (address,) = command.await_addresses()
    assert fetch(address) == b"('', '/', 'http')"


def test_factory_is_called_when_asked(start_command: Start) -> None:
    command = start_command(*WAITRESS_SERVE, "--call", "--listen=127.0.0.1:0", "site_app:factory")
    (address,) = command.await_addresses()
    assert fetch(address) == b"('', '/', 'http')"


def test_application_of_the_standard_library_is_served(start_command: Start) -> None:
    command = start_command(
        *WAITRESS_SERVE, "--listen=127.0.0.1:0", "wsgiref.simple_server:demo_app"
    )
    (address,) = command.await_addresses()
    assert fetch(address).startswith(b"Hello world!")


def test_listen_may_be_repeated(program: tuple[str, ...], start_command: Start) -> None:
    command = start_command(
        *program,
        "--listen=127.0.0.1:0",
        "--listen=[::1]:0",
        "--listen=127.0.0.1:0",
        "--url-prefix=/here",
        "--url-scheme=https",
        "site_app:app",
    )
    addresses = command.await_addresses(3)
    assert [host for host, _ in addresses] == ["127.0.0.1", "::1", "127.0.0.1"]
    for address in addresses:
        assert fetch(address, "/here/x") == b"('/here', '/x', 'https')"
    assert command.interrupt() == 0


def test_all_interfaces_of_both_families_are_one_star(start_command: Start) -> None:
    command = start_command(*WAITRESS_SERVE, "--listen=*:0", "site_app:app")
    addresses = command.await_addresses(2)
    assert sorted(host for host, _ in addresses) == ["0.0.0.0", "::"]
    for host, port in addresses:
        assert fetch(({"::": "::1", "0.0.0.0": "127.0.0.1"}[host], port))


def test_one_family_can_be_switched_off(start_command: Start) -> None:
    command = start_command(*WAITRESS_SERVE, "--no-ipv6", "--listen=*:0", "site_app:app")
    ((host, _),) = command.await_addresses()
    assert host == "0.0.0.0"


def test_unix_socket_gets_its_permissions(start_command: Start, tmp_path: Path) -> None:
    path = tmp_path / "site.sock"
    command = start_command(
        *WAITRESS_SERVE, f"--unix-socket={path}", "--unix-socket-perms=660", "site_app:app"
    )
    command.await_matches(r"Serving on http://unix:" + re.escape(str(path)))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    with Wire(sock) as wire:
        assert wire.get().body == b"('', '/', 'http')"
    assert command.interrupt() == 0


def test_interrupt_ends_the_command_while_clients_are_connected(start_command: Start) -> None:
    command = start_command(*WAITRESS_SERVE, "--listen=127.0.0.1:0", "site_app:app")
    (address,) = command.await_addresses()
    with Wire(socket.create_connection(address, PATIENCE)) as wire:
        assert wire.get().status == 200
        assert command.interrupt() == 0
        assert wire.read_to_end() == b""


# -- what goes wrong -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--nonsense", "site_app:app"], "Error: option --nonsense not recognized"),
        (["--port", "site_app:app", "--"], "Error: invalid literal for int() with base 10"),
        ([], "Error: Specify an application"),
        (["site_app:app", "site_app:app"], "Error: Provide only one WSGI app"),
        (["--app=site_app:app", "site_app:app"], "Error: Provide only one WSGI app"),
        (["missing_module:app"], "Error: Cannot import WSGI application 'missing_module:app'"),
        (["site_app:missing"], "Error: Cannot import WSGI application 'site_app:missing'"),
    ],
)
def test_mistake_on_the_command_line_is_one_error_and_a_status(
    arguments: list[str], message: str, start_command: Start
) -> None:
    command = start_command(*PYTHON_M, *arguments)
    assert command.await_status() == 1
    assert command.output.startswith(message)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port=eighty"], ["port", "eighty"]),
        (["--port=70000"], ["port", "70000"]),
        (["--listen=nowhere.invalid:80"], ["Invalid host/port specified."]),
        (["--threads=none"], ["threads", "none"]),
        (["--trusted-proxy-count=1"], ["trusted_proxy_count has no meaning"]),
        (["--host=127.0.0.1", "--listen=127.0.0.1:0"], ["host or port may not be set"]),
    ],
)
def test_bad_setting_is_one_line_and_a_status(
    arguments: list[str], words: list[str], program: tuple[str, ...], start_command: Start
) -> None:
    command = start_command(*program, *arguments, "site_app:app")
    assert command.await_status() != 0
    (line,) = (each for each in command.output.splitlines() if each.startswith("Error: "))
    assert [word for word in words if word not in line] == []
    assert "Traceback" not in command.output


def test_port_in_use_names_the_address(start_command: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        command = start_command(*WAITRESS_SERVE, f"--listen=127.0.0.1:{port}", "site_app:app")
        assert command.await_status() != 0
    (line,) = (each for each in command.output.splitlines() if each.startswith("Error: "))
    assert str(port) in line
    assert "Traceback" not in command.output


def test_factory_that_raises_shows_its_own_traceback(start_command: Start) -> None:
    command = start_command(
        *WAITRESS_SERVE, "--call", "--listen=127.0.0.1:0", "site_app:broken_factory"
    )
    assert command.await_status() != 0
    assert "LookupError: the factory failed" in command.output


def test_help_goes_to_standard_output(program: tuple[str, ...], start_command: Start) -> None:
    command = start_command(*program, "--help")
    assert command.await_status() == 0
    assert command.output.startswith("Usage:\n\n    ")
    assert "--trusted-proxy-headers" in command.output


# -- arrangements around processes ---------------------------------------------------

HANDED_OVER = """
import socket, sys, waitress
from site_app import app
waitress.serve(app, sockets=[socket.socket(fileno=int(sys.argv[1]))])
"""


def test_socket_handed_over_by_a_process_manager_is_served(
    start_command: Start, tmp_path: Path
) -> None:
    (tmp_path / "handed_over.py").write_text(HANDED_OVER)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        # A client may come before the server has started: the kernel holds it.
        with Wire(socket.create_connection(("127.0.0.1", port), PATIENCE)) as wire:
            start_command(
                sys.executable, "handed_over.py", listener.fileno(), pass_fds=[listener.fileno()]
            )
            assert wire.get().body == b"('', '/', 'http')"


FORKED = """
import logging, os, signal, sys, waitress
from site_app import app

logging.basicConfig(level=logging.INFO)
child = os.fork()
if child:
    signal.signal(signal.SIGINT, lambda *args: os.kill(child, signal.SIGINT))
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
waitress.serve(app, listen="127.0.0.1:0")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_server_starts_in_a_process_forked_after_the_import(
    start_command: Start, tmp_path: Path
) -> None:
    (tmp_path / "forked.py").write_text(FORKED)
    command = start_command(sys.executable, "forked.py")
    (address,) = command.await_addresses()
    for _ in range(3):
        assert fetch(address) == b"('', '/', 'http')"
    assert command.interrupt() == 0


PATCHED = """
import gevent.monkey
gevent.monkey.patch_all()
import logging, waitress
from site_app import app

logging.basicConfig(level=logging.INFO)
waitress.serve(app, listen="127.0.0.1:0", asyncore_loop_timeout=1)
"""


def test_server_works_under_monkey_patching(start_command: Start, tmp_path: Path) -> None:
    pytest.importorskip("gevent")
    (tmp_path / "patched.py").write_text(PATCHED)
    command = start_command(sys.executable, "patched.py")
    (address,) = command.await_addresses()
    for _ in range(3):
        assert fetch(address) == b"('', '/', 'http')"
    # Who gets an interrupt is up to the patched modules.
    command.process.terminate()
    command.await_status()
