"""Those who start the server by other means than ``serve``: ini files, wrappers, freezers."""

from __future__ import annotations

import importlib
import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import waitress
from tests.compat.live import Running, mirror, request
from waitress import create_server, runner

MODULES = [
    "waitress",
    "waitress.__main__",
    "waitress.adjustments",
    "waitress.buffers",
    "waitress.channel",
    "waitress.compat",
    "waitress.parser",
    "waitress.proxy_headers",
    "waitress.receiver",
    "waitress.rfc7230",
    "waitress.runner",
    "waitress.server",
    "waitress.task",
    "waitress.trigger",
    "waitress.utilities",
    "waitress.wasyncore",
]


class Recorder:
    """In the place of a server: what ``serve`` does with it."""

    def __init__(self, application: Any, **settings: Any) -> None:
        self.made_with = (application, settings)
        self.calls: list[Any] = []
        made.append(self)

    def print_listen(self, format_str: str) -> None:
        self.calls.append(format_str)

    def run(self) -> None:
        self.calls.append("run")


made: list[Recorder] = []


@pytest.fixture(autouse=True)
def fresh_records() -> None:
    made.clear()


@pytest.fixture(autouse=True)
def kept_log_level() -> Iterator[None]:
    """Give the server's logger its level back: the command sets one where there is none."""
    logger = logging.getLogger("waitress")
    level = logger.level
    yield
    logger.setLevel(level)


@pytest.mark.parametrize("name", [name for name in MODULES if "__main__" not in name])
def test_module_named_by_a_freezer_exists(name: str) -> None:
    assert importlib.import_module(name).__name__ == name


def test_submodules_are_attributes_after_a_bare_import() -> None:
    names = [name.split(".")[1] for name in MODULES if "." in name]
    program = (
        "import waitress\n"
        f"missing = [n for n in {names!r} if not hasattr(waitress, n)]\n"
        "print(missing, callable(waitress.server.create_server))"
    )
    where = Path(waitress.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=where, capture_output=True, text=True, check=True
    )
    assert done.stdout == "['__main__', 'runner'] True\n"


def test_ini_file_settings_arrive_as_strings(run_server: Callable[[Any], Running]) -> None:
    settings = {
        "host": "127.0.0.1",
        "port": "0",
        "threads": "2",
        "ipv6": "off",
        "url_scheme": "https",
        "url_prefix": "prefix/",
        "ident": "ini",
        "connection_limit": "50",
        "cleanup_interval": "10",
        "channel_timeout": "20",
        "max_request_body_size": "11",
        "expose_tracebacks": "true",
        "asyncore_use_poll": "1",
        "trusted_proxy": "127.0.0.1",
        "trusted_proxy_count": "1",
        "trusted_proxy_headers": "x-forwarded-for x-forwarded-proto",
        "clear_untrusted_proxy_headers": "yes",
        "server_name": "ini.test",
    }
    servers: list[Any] = []

    def create(application: Any, **kw: Any) -> Any:
        servers.append(create_server(application, **kw))
        return Recorder(application)

    assert waitress.serve_paste(mirror, {"here": "/"}, _server=create, **settings) == 0
    assert made[0].calls == ["Serving on http://{}:{}", "run"]
    running = run_server(servers[0])
    assert len(servers[0].task_dispatcher.threads) == 2
    with running.connect() as wire:
        answer = wire.get("/prefix/page", "X-Forwarded-For: 192.0.2.9")
        assert answer.headers["server"] == "ini"
        seen = answer.json
        assert (seen["SCRIPT_NAME"], seen["PATH_INFO"]) == ("/prefix", "/page")
        assert seen["wsgi.url_scheme"] == "https"
        assert seen["REMOTE_ADDR"] == "192.0.2.9"
        assert seen["SERVER_NAME"] == "ini.test"
        wire.send(request("POST", "/", body=b"eleven long"))
        assert wire.read_answer().status == 413


def test_private_keywords_choose_server_and_silence() -> None:
    waitress.serve(mirror, _server=Recorder, _quiet=True, threads=7)
    assert made[0].made_with == (mirror, {"threads": 7})
    assert made[0].calls == ["run"]


def test_command_line_can_be_called_with_arguments(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "embedded_app.py").write_text("def app(environ, start_response): ...\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    given: list[Any] = []
    status = runner.run(
        ["program", "--listen=127.0.0.1:0", "--threads=3", "embedded_app:app"],
        lambda application, **kw: given.append((application.__name__, kw)),
    )
    assert status == 0
    ((name, settings),) = given
    assert name == "app"
    assert {key: value.strip() for key, value in settings.items()} == {
        "listen": "127.0.0.1:0",
        "threads": "3",
    }


def test_command_line_reports_a_missing_application(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert runner.run(["program", "--port=0"], lambda *args, **kw: None) == 1
    assert capsys.readouterr().err.startswith("Error: Specify an application")


def test_application_that_is_none_is_an_early_error() -> None:
    with pytest.raises(ValueError, match="You forgot to return a WSGI app"):
        create_server(None)
