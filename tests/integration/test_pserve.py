"""Pyramid's ``pserve`` and PasteDeploy ini files, whose settings are all strings."""

from __future__ import annotations

import socket
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.compat.live import PATIENCE, Wire
from tests.integration.commands import SCRIPTS, Command

pytestmark = pytest.mark.integration

pytest.importorskip("pyramid")
pytest.importorskip("plaster_pastedeploy")

Start = Callable[..., Command]

APPLICATION = """
from pyramid.config import Configurator


def show(request):
    return {
        "greeting": request.registry.settings["greeting"],
        "script_name": request.script_name,
        "path": request.path_info,
        "scheme": request.scheme,
        "client": request.remote_addr,
        "size": len(request.body),
    }


def main(global_config, **settings):
    config = Configurator(settings=settings)
    config.add_route("show", "/show")
    config.add_view(show, route_name="show", renderer="json")
    return config.make_wsgi_app()
"""

INI = """
[app:main]
paste.app_factory = guestbook:main
greeting = hello from the ini file

[server:main]
use = egg:waitress#main
{settings}

[loggers]
keys = root

[handlers]
keys = console

[formatters]
keys = plain

[logger_root]
level = INFO
handlers = console

[handler_console]
class = StreamHandler
args = (sys.stdout,)
level = NOTSET
formatter = plain

[formatter_plain]
format = %(levelname)s %(name)s %(message)s
"""


@pytest.fixture
def ini(tmp_path: Path) -> Callable[..., Path]:
    """Give a function that writes an ini file with some settings for the server."""
    (tmp_path / "guestbook.py").write_text(APPLICATION)

    def write(**settings: str) -> Path:
        path = tmp_path / "site.ini"
        lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
        path.write_text(INI.format(settings=lines))
        return path

    return write


def pserve(start_command: Start, path: Path) -> Command:
    return start_command(sys.executable, SCRIPTS / "pserve", path, python_path=str(path.parent))


def connect(address: tuple[str, int]) -> Wire:
    return Wire(socket.create_connection(address, PATIENCE))


def test_pserve_serves_by_an_ini_file_and_ends_on_an_interrupt(
    ini: Callable[..., Path], start_command: Start
) -> None:
    command = pserve(
        start_command,
        ini(
            host="127.0.0.1",
            port="0",
            threads="3",
            url_prefix="/site",
            url_scheme="https",
            ident="guestbook",
            channel_timeout="60",
            connection_limit="200",
            max_request_body_size="100000",
            expose_tracebacks="false",
            asyncore_use_poll="true",
            trusted_proxy="127.0.0.1",
            trusted_proxy_count="1",
            trusted_proxy_headers="x-forwarded-for",
            clear_untrusted_proxy_headers="on",
        ),
    )
    (address,) = command.await_addresses()
    with connect(address) as wire:
        answer = wire.get("/site/show", "X-Forwarded-For: 192.0.2.8")
        assert answer.headers["server"] == "guestbook"
        assert answer.json == {
            "greeting": "hello from the ini file",
            "script_name": "/site",
            "path": "/show",
            "scheme": "https",
            "client": "192.0.2.8",
            "size": 0,
        }
        wire.send(
            b"POST /site/show HTTP/1.1\r\nHost: h\r\nContent-Length: 5000\r\n\r\n" + b"x" * 5000
        )
        assert wire.read_answer().json["size"] == 5000
        assert wire.get("/elsewhere").status == 404
    assert command.interrupt() == 0
    assert "Traceback" not in command.output


def test_pserve_listens_on_several_addresses(
    ini: Callable[..., Path], start_command: Start
) -> None:
    command = pserve(start_command, ini(listen="127.0.0.1:0 [::1]:0\n  127.0.0.1:0"))
    for address in command.await_addresses(3):
        with connect(address) as wire:
            assert wire.get("/show").json["path"] == "/show"


def test_pserve_listens_on_a_unix_socket(
    ini: Callable[..., Path], start_command: Start, tmp_path: Path
) -> None:
    path = tmp_path / "site.sock"
    command = pserve(start_command, ini(unix_socket=str(path), unix_socket_perms="640"))
    command.await_matches("Serving on http://unix:")
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(str(path))
    with Wire(sock) as wire:
        assert wire.get("/show").json["client"] == "localhost"


def test_pserve_shows_which_setting_is_unknown(
    ini: Callable[..., Path], start_command: Start
) -> None:
    command = pserve(start_command, ini(port="0", thread="3"))
    assert command.await_status() != 0
    assert "Unknown adjustment 'thread'" in command.output


def test_ini_file_is_loaded_by_pastedeploy_itself(
    ini: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    loadwsgi = pytest.importorskip("paste.deploy.loadwsgi")
    import waitress

    given: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(
        waitress, "serve", lambda application, **settings: given.append((application, settings))
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    server = loadwsgi.loadserver(f"config:{ini(port='8001', threads='2', ident='x')}")
    assert server("an application") == 0
    assert given == [("an application", {"port": "8001", "threads": "2", "ident": "x"})]
