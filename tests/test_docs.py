"""The manual tells the truth: it agrees with the settings and the help, its examples run."""

from __future__ import annotations

import ast
import configparser
import contextlib
import errno
import http.client
import logging
import os
import re
import runpy
import shlex
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from pkgutil import resolve_name
from typing import Any, NamedTuple

import pytest

import waitress
from waitress import wasyncore
from waitress.adjustments import SETTINGS, Adjustments, Section, resolve_wsgi_app
from waitress.command_options import COMMAND_OPTIONS
from waitress.config import load
from waitress.prometheus import METRICS
from waitress.runner import HELP
from waitress.stats import CONNECTION_STATES

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = sorted(DOCS.glob("*.rst"))
SERVED = "127.0.0.1"

MYAPP = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b""]


def create_app():
    return app
"""


class Block(NamedTuple):
    """A literal block of a page."""

    page: str
    line: int
    language: str
    text: str


def code_blocks(page: Path) -> Iterator[Block]:
    """Yield the code blocks of a page, their indentation taken off."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines):
        found = re.fullmatch(r"(\s*)\.\. code-block:: (\w+)", line)
        if found:
            indent = len(found[1])
            body = []
            for following in lines[number + 1 :]:
                if following.strip() and len(following) - len(following.lstrip()) <= indent:
                    break
                body.append(following[indent + 3 :])
            yield Block(page.name, number + 1, found[2], "\n".join(body).strip("\n") + "\n")


BLOCKS = [block for page in PAGES for block in code_blocks(page)]
PYTHON_PAGES = sorted({block.page for block in BLOCKS if block.language == "python"})
COMMANDS = [
    (block.page, line.removeprefix("$ "))
    for block in BLOCKS
    if block.language == "console"
    for line in block.text.replace("\\\n", "").splitlines()
    if re.match(r"\$ (waitress-serve|python -m waitress) ", line) and "[OPTIONS]" not in line
]
INI_FILES = [
    (block.page, block.text) for block in BLOCKS if block.language == "ini" and "egg:" in block.text
]


# Settings.


def test_the_page_of_arguments_is_what_the_table_says() -> None:
    current = runpy.run_path(str(DOCS / "write_arguments.py"))["current"]
    page = (DOCS / "arguments.rst").read_text(encoding="utf-8")
    assert page == current(page), "run: python docs/write_arguments.py"


def test_the_table_of_metrics_is_what_the_package_has() -> None:
    current = runpy.run_path(str(DOCS / "write_metrics.py"))["current"]
    page = (DOCS / "observability_status.rst").read_text(encoding="utf-8")
    assert page == current(page), "run: python docs/write_metrics.py"


def test_alerts_ask_for_metrics_that_there_are() -> None:
    (rules,) = [
        block.text for block in BLOCKS if block.language == "yaml" and "alert:" in block.text
    ]
    asked = set(re.findall(r"\bwaitress_\w+", rules))
    names = {metric.name for metric in METRICS}
    histograms = {f"{metric.name}_bucket" for metric in METRICS if metric.kind == "histogram"}
    assert len(asked) > 6
    assert asked <= names | histograms


def test_the_page_on_status_names_every_path_and_state() -> None:
    page = (DOCS / "observability_status.rst").read_text(encoding="utf-8")
    for word in ("/livez", "/readyz", "/metrics", "/status.json", "/threads"):
        assert f"``{word}``\n" in page
    for word in CONNECTION_STATES.values():
        assert f"``{word}``" in page


def test_the_help_shows_every_option() -> None:
    options = [setting.option for setting in SETTINGS if setting.section is not Section.PYTHON]
    shown = re.findall(r"^    (--\S+)", HELP, re.M)
    assert sorted(shown) == sorted([*options, *(option.option for option in COMMAND_OPTIONS)])


def test_settings_that_the_pages_name_exist() -> None:
    names = {setting.name for setting in SETTINGS}
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        assert set(re.findall(r":confval:`(\w+)`", text)) <= names, page.name


# The drawing and the names of the design page.


def test_the_drawing_is_what_its_script_draws() -> None:
    picture = runpy.run_path(str(DOCS / "draw_design.py"))["picture"]
    drawn = (DOCS / "design.svg").read_text(encoding="utf-8")
    assert drawn == picture(), "run: python docs/draw_design.py"


def test_the_drawing_names_modules() -> None:
    boxes = runpy.run_path(str(DOCS / "draw_design.py"))["BOXES"]
    outside = {"client", "application", "ready queue"}
    modules = {name for box in boxes.values() for name in box.title.split(", ")} - outside
    assert modules <= {path.stem for path in (ROOT / "waitress").glob("*.py")}


def test_the_steps_of_a_request_name_what_exists() -> None:
    text = (DOCS / "design.rst").read_text(encoding="utf-8")
    life = text.split("The life of a request\n")[1].split("Who watches\n")[0]
    assert len(re.findall(r"^#\. \[(?:loop|worker)\]", life, re.M)) > 10
    named = re.findall(r"``([a-z_]+\.[\w.]+)``", text)
    assert len(named) > 40
    for name in named:
        assert resolve_name(f"waitress.{name}") is not None


# Differences.


def difference_rows() -> list[str]:
    text = (DOCS / "differences.rst").read_text(encoding="utf-8")
    return re.findall(r"^   \* - ``([\w-]+)``$", text, re.M)


def test_each_difference_has_a_name_of_its_own() -> None:
    rows = difference_rows()
    assert len(rows) > 30
    assert len(rows) == len(set(rows))


# The runbook.


def texts_of_the_source() -> Iterator[list[str]]:
    """Yield the texts in the package's code, each in the pieces between what is filled in."""
    for path in (ROOT / "waitress").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield re.split(r"%[-.\d]*[a-z]", node.value)
            elif isinstance(node, ast.JoinedStr):
                parts = (getattr(part, "value", None) for part in node.values)
                text = "".join(part if isinstance(part, str) else "\0" for part in parts)
                yield text.split("\0")


def says(pieces: list[str], line: str) -> bool:
    """Tell whether a text, with something filled in, is a line, or begins with ``line...``."""
    if len("".join(pieces)) < 11:
        return False
    begins = line.removesuffix("...")
    if begins == line:
        return re.fullmatch(".*".join(map(re.escape, pieces)), line) is not None
    if pieces[0].startswith(begins):
        return True
    # Shown up to somewhere, with enough of the text to know it by.
    return any(
        re.match(".*".join(map(re.escape, pieces[:count])), begins)
        for count in range(1, len(pieces) + 1)
        if len("".join(pieces[:count])) > 10
    )


def runbook() -> list[str]:
    """Return what the log says, by the runbook's second column."""
    page = (DOCS / "operations.rst").read_text(encoding="utf-8").split(".. _runbook:")[1]
    rows = re.split(r"^   \* - ", page, flags=re.M)[2:]
    columns = [re.split(r"^     - ", row, flags=re.M) for row in rows]
    assert {len(column) for column in columns} == {3}
    said = [" ".join(column[1].split()) for column in columns]
    quoted = [text for column in said for text in re.findall(r"``(.+?)``", column)]
    return [text for text in quoted if not text.startswith("waitress.")]


def test_the_log_lines_of_the_runbook_are_those_of_the_source() -> None:
    texts = list(texts_of_the_source())
    causes = {os.strerror(errno.EMFILE)}
    quoted = runbook()
    assert len(quoted) > 30
    for text in quoted:
        line = text.removeprefix("Error: ")
        assert line in causes or any(says(pieces, line) for pieces in texts), text
    assert not any(says(pieces, "what nobody says of 7 things") for pieces in texts)
    assert not any(says(pieces, "request 7 swims ...") for pieces in texts)


# README.


def test_the_readme_begins_with_its_two_commands() -> None:
    literal_blocks = runpy.run_path(str(ROOT / ".ci" / "readme_commands.py"))["literal_blocks"]
    blocks = literal_blocks((ROOT / "README.rst").read_text(encoding="utf-8"))
    serves, tests = blocks[:2]
    assert "\n" not in serves
    assert "\n" not in tests
    assert serves.startswith("pip install . && waitress-serve ")
    app = Adjustments.parse_args([serves.split()[-1]])["app"]
    assert callable(app)
    assert tests == 'pip install -e ".[testing]" && pytest'


# Examples.


@pytest.fixture
def myapp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The application that the manual's commands name."""
    (tmp_path / "myapp.py").write_text(MYAPP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "myapp", raising=False)


def without_address(settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with a free port of this machine for the address they name."""
    if "sockets" in settings:
        return settings
    addresses = ("host", "port", "listen", "unix_socket")
    kept = {name: value for name, value in settings.items() if name not in addresses}
    return {**kept, "listen": f"{SERVED}:0"}


@contextlib.contextmanager
def running(server: Any) -> Iterator[None]:
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.task_dispatcher.shutdown()
        wasyncore.close_all(server._map)
        thread.join(10)
        assert not thread.is_alive()


def get(port: int) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(SERVED, port, timeout=10)
    try:
        connection.request("GET", "/")
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


def serve_one_request(app: Any, **settings: Any) -> None:
    """Do what ``serve`` does, but on a free port and for one request."""
    if "sockets" not in settings:
        # As written; the address of the example may be in use on this machine.
        Adjustments(**settings)
    server = waitress.create_server(app, **without_address(settings))
    with running(server):
        status, body = get(int(server.effective_port))
    assert status == 200
    assert body


@contextlib.contextmanager
def logging_as_it_was() -> Iterator[None]:
    """Undo what an example does to the loggers."""
    loggers = [logging.getLogger(name) for name in ("", "waitress", "waitress.access")]
    before = [(each, each.handlers[:], each.level, each.propagate) for each in loggers]
    try:
        yield
    finally:
        for each, handlers, level, propagate in before:
            each.handlers[:] = handlers
            each.setLevel(level)
            each.propagate = propagate


@pytest.mark.parametrize("page", PYTHON_PAGES)
def test_python_examples_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of a page run in order in one namespace, as a reader would type them."""
    monkeypatch.setattr(waitress, "serve", serve_one_request)
    create_server = waitress.create_server

    def create_and_close(app: Any, **settings: Any) -> Any:
        # The address of the example may be in use on this machine.
        server = create_server(app, **without_address(settings))
        at_end.callback(server.close)
        at_end.callback(server.task_dispatcher.shutdown)
        return server

    monkeypatch.setattr(waitress, "create_server", create_and_close)
    namespace: dict[str, Any] = {"__name__": "example"}
    with contextlib.ExitStack() as at_end, logging_as_it_was():
        for block in BLOCKS:
            if block.page == page and block.language == "python":
                code = compile("\n" * block.line + block.text, str(DOCS / page), "exec")
                exec(code, namespace)


@pytest.mark.usefixtures("myapp")
@pytest.mark.parametrize(("page", "command"), COMMANDS)
def test_commands_are_understood(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Where the configuration files that they name are.
    monkeypatch.chdir(DOCS / "examples")
    words = shlex.split(command)
    if "--config" in command and sys.version_info < (3, 11):
        pytest.skip("tomllib came with 3.11")
    if words[0] == "python":
        words = words[2:]
    config = load(words[1:], {})
    assert config.problems == []
    assert callable(resolve_wsgi_app(config.value("app"), config.has("call")))
    Adjustments(**config.values())


@pytest.mark.parametrize(("page", "text"), INI_FILES)
def test_ini_files_are_understood(page: str, text: str) -> None:
    parser = configparser.ConfigParser()
    parser.read_string(text)
    settings = dict(parser["server:main"])
    assert settings.pop("use") == "egg:waitress#main"
    (door,) = entry_points(group="paste.server_runner", name="main")
    assert door.value == "waitress:serve_paste"
    Adjustments(**settings)


def test_the_pytest_example_passes() -> None:
    subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", os.devnull, "-p", "no:cacheprovider"),
            *("-p", "no:hypothesispytest", str(DOCS / "examples" / "test_with_server.py")),
        ],
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": ""},
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )


@pytest.mark.skipif(not hasattr(os, "fork"), reason="descriptors are inherited on POSIX")
def test_the_socket_activated_example_serves_what_it_inherits() -> None:
    with socket.create_server((SERVED, 0)) as listener:
        port = listener.getsockname()[1]
        launcher = (
            "import os, sys; os.dup2(int(sys.argv[1]), 3, inheritable=True);"
            "os.execv(sys.executable, [sys.executable, sys.argv[2]])"
        )
        program = subprocess.Popen(
            [
                *(sys.executable, "-c", launcher, str(listener.fileno())),
                str(DOCS / "examples" / "socket_activated.py"),
            ],
            pass_fds=[listener.fileno()],
            env={**os.environ, "LISTEN_FDS": "1", "PYTHONPATH": str(ROOT)},
            stderr=subprocess.PIPE,
        )
    with program:
        try:
            # The kernel holds the connection until the program accepts it.
            assert get(port) == (200, b"Hello from an inherited socket\n")
        finally:
            program.send_signal(signal.SIGINT)
            _, log = program.communicate(timeout=20)
    assert program.returncode == 0, log
