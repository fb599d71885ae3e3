from __future__ import annotations

import getopt
import importlib
import io
import logging
import os
import re
import runpy
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import waitress
from waitress import runner
from waitress.adjustments import SETTINGS, Adjustments, AppResolutionError, Section
from waitress.rejects import reject_logger
from waitress.runner import HELP, run, show_exception, show_help
from waitress.utilities import logger

APP = f"{__name__}:app"


def app(environ: Any, start_response: Any) -> list[bytes]:
    raise AssertionError("no request is made")


def make_app() -> Any:
    return app


def make_nothing() -> None:
    pass


def raising_factory() -> Any:
    raise ValueError("boom in the factory")


class Serve:
    """Stands in for serve(): collects what is served, and may raise."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error
        self.served: list[tuple[Any, dict[str, Any]]] = []

    def __call__(self, app: Any, **kw: Any) -> None:
        self.served.append((app, kw))
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def restore_what_run_changes() -> Iterator[None]:
    path, modules = list(sys.path), set(sys.modules)
    level, reject_level = logger.level, reject_logger.level
    yield
    sys.path[:] = path
    logger.setLevel(level)
    reject_logger.setLevel(reject_level)
    for name in set(sys.modules) - modules:
        if name.startswith("module_that_") or name == "waitress.__main__":
            del sys.modules[name]


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a function that writes the user's module and returns its name."""
    monkeypatch.chdir(tmp_path)

    def write(source: str) -> str:
        name = f"module_that_{len(list(tmp_path.iterdir()))}"
        (tmp_path / f"{name}.py").write_text(source, encoding="utf-8")
        return name

    return write


def run_with(*argv: str, serve: Callable[..., Any]) -> int:
    return run(["/usr/bin/waitress-serve", *argv], _serve=serve)


class TestServing:
    def test_serves_the_application_with_settings_as_text(self) -> None:
        serve = Serve()
        assert run_with("--port=80", "--no-ipv6", APP, serve=serve) == 0
        assert serve.served == [(app, {"port": "80", "ipv6": "false"})]

    def test_serves_what_a_factory_returns(self) -> None:
        serve = Serve()
        assert run_with("--call", f"--app={__name__}:make_app", serve=serve) == 0
        assert serve.served == [(app, {})]

    def test_finds_modules_in_the_current_directory(self, module: Callable[[str], str]) -> None:
        serve = Serve()
        name = module("app = 'from here'\n")
        assert run_with(f"{name}:app", serve=serve) == 0
        assert serve.served == [("from here", {})]

    def test_looks_into_the_current_directory_last(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        before = list(sys.path)
        run_with(APP, serve=Serve())
        assert sys.path == [*before, os.getcwd()]

    @pytest.mark.parametrize(
        ("level", "expected"),
        [(logging.NOTSET, logging.INFO), (logging.ERROR, logging.ERROR)],
    )
    def test_shows_where_it_serves_unless_told_otherwise(self, level: int, expected: int) -> None:
        logger.setLevel(level)
        run_with(APP, serve=Serve())
        assert logger.level == expected

    @pytest.mark.parametrize(
        ("level", "reject_level", "expected"),
        [
            (logging.NOTSET, logging.NOTSET, logging.WARNING),
            (logging.NOTSET, logging.INFO, logging.INFO),
            (logging.INFO, logging.NOTSET, logging.NOTSET),
        ],
    )
    def test_does_not_show_what_is_refused_unless_told(
        self, level: int, reject_level: int, expected: int
    ) -> None:
        logger.setLevel(level)
        reject_logger.setLevel(reject_level)
        run_with(APP, serve=Serve())
        assert reject_logger.level == expected

    def test_takes_the_process_arguments_and_serve_by_default(self) -> None:
        assert run.__defaults__ == (sys.argv, waitress.serve)


class TestHelp:
    def test_goes_to_standard_output(self, capsys: pytest.CaptureFixture[str]) -> None:
        serve = Serve()
        assert run_with("--help", serve=serve) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith(
            "Usage:\n\n    waitress-serve [OPTS] [MODULE:OBJECT]\n\nStandard options:\n"
        )
        assert captured.err == ""
        assert serve.served == []

    def test_lists_every_setting_that_the_command_line_can_give(self) -> None:
        options = re.findall(r"^    (--\S+)$", HELP, re.M)
        listed = [
            setting.option
            for section in (Section.STANDARD, Section.TUNING)
            for setting in SETTINGS
            if setting.section is section
        ]
        assert options == ["--help", "--app=MODULE:OBJECT", "--call", *listed]
        python_only = [each for each in SETTINGS if each.section is Section.PYTHON]
        assert len(listed) == len(SETTINGS) - len(python_only)

    def test_has_its_sections_in_order(self) -> None:
        headings = re.findall(r"^(\S.*):$", HELP, re.M)
        assert headings == ["Usage", "Standard options", "Tuning options"]
        standard, tuning = HELP.split("Tuning options:")
        assert "--host=" in standard
        assert "--threads=" in tuning

    def test_tells_what_a_setting_does_and_its_default(self) -> None:
        text = " ".join(HELP.split())
        assert "--threads=INT Worker threads, each of which runs one request" in text
        assert "Default: 4 threads." in text
        assert "(see spool-dir)" in text
        assert "effective_port" in text
        assert "The wsgi.url_scheme that" in text
        for setting in SETTINGS:
            if "_" in setting.name:
                assert not re.search(rf"(?<!\.)\b{setting.name}\b", text)

    def test_fits_a_terminal(self) -> None:
        assert max(map(len, HELP.splitlines())) < 80

    def test_is_a_template_of_the_programs_name_alone(self) -> None:
        assert HELP.count("{0}") == 1
        stream = io.StringIO()
        show_help(stream, "prog")
        assert stream.getvalue() == HELP.replace("{0}", "prog") + "\n"

    def test_keeps_the_braces_of_a_text(self) -> None:
        assert runner._entry("--x", "{a}").format() == "    --x\n        {a}\n"

    def test_begins_with_the_error(self) -> None:
        stream = io.StringIO()
        show_help(stream, "prog", "what went wrong")
        assert stream.getvalue().startswith("Error: what went wrong\n\nUsage:\n\n    prog [")


class TestBadCommandLines:
    @pytest.mark.parametrize(
        ("argv", "error"),
        [
            (["--bad-opt"], "option --bad-opt not recognized"),
            (["--ipv6=1", APP], "option --ipv6 must not have an argument"),
            ([], "Specify an application"),
            ([APP, APP], "Provide only one WSGI app"),
            (
                ["nosuchmodule:app"],
                "Cannot import WSGI application 'nosuchmodule:app': No module named 'nosuchmodule'",
            ),
            (
                ["os.path:nosuch"],
                "Cannot import WSGI application 'os.path:nosuch': "
                f"module '{os.path.__name__}' has no attribute 'nosuch'",
            ),
        ],
    )
    def test_are_told_before_the_help(
        self, capsys: pytest.CaptureFixture[str], argv: list[str], error: str
    ) -> None:
        serve = Serve()
        assert run_with(*argv, serve=serve) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == f"Error: {error}\n\n{HELP.format('waitress-serve')}\n"
        assert serve.served == []


class TestModulesThatRaise:
    def test_are_told_with_their_own_traceback(
        self, capsys: pytest.CaptureFixture[str], module: Callable[[str], str]
    ) -> None:
        name = module("def f():\n    raise RuntimeError('boom\\nbang')\nf()\n")
        assert run_with(f"{name}:app", serve=Serve()) == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Error: RuntimeError: boom bang"
        assert lines[1] == "Traceback (most recent call last):"
        assert f"{name}.py" in lines[2]
        assert lines[-2:] == ["RuntimeError: boom", "bang"]

    def test_are_told_so_when_they_lack_a_module(
        self, capsys: pytest.CaptureFixture[str], module: Callable[[str], str]
    ) -> None:
        name = module("import nosuchmodule\n")
        assert run_with(f"{name}:app", serve=Serve()) == 1
        error = capsys.readouterr().err
        assert error.startswith(
            f"Error: Cannot import WSGI application '{name}:app': No module named 'nosuchmodule'\n"
            "\nUsage:\n"
        )
        usage, shown = error.split("Traceback (most recent call last):\n")
        assert usage.endswith(HELP.format("waitress-serve") + "\n")
        assert f"{name}.py" in shown.splitlines()[0]
        assert shown.endswith("ModuleNotFoundError: No module named 'nosuchmodule'\n")

    def test_are_told_so_when_they_do_not_compile(
        self, capsys: pytest.CaptureFixture[str], module: Callable[[str], str]
    ) -> None:
        name = module("x = = 1\n")
        assert run_with(f"{name}:app", serve=Serve()) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: SyntaxError: invalid syntax")
        assert "x = = 1" in error
        assert "importlib" not in error

    def test_include_factories(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_with("--call", f"{__name__}:raising_factory", serve=Serve()) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ValueError: boom in the factory\nTraceback ")
        assert "in raising_factory" in error

    def test_have_no_traceback_when_it_is_not_they_who_raise(
        self, capsys: pytest.CaptureFixture[str], module: Callable[[str], str]
    ) -> None:
        name = module("app = 5\n")
        assert run_with("--call", f"{name}:app", serve=Serve()) == 1
        assert capsys.readouterr().err == "Error: TypeError: 'int' object is not callable\n"

    def test_may_end_the_process(self, module: Callable[[str], str]) -> None:
        name = module("raise SystemExit(7)\n")
        with pytest.raises(SystemExit) as caught:
            run_with(f"{name}:app", serve=Serve())
        assert caught.value.code == 7

    def test_show_exception_prints_nothing_without_one(self) -> None:
        stream = io.StringIO()
        show_exception(stream)
        assert stream.getvalue() == ""


class TestServersThatCannotStart:
    @pytest.mark.parametrize(
        ("argv", "error"),
        [
            (
                ["--port=http"],
                "invalid literal for int() with base 10: 'http' "
                "(port='http'; allowed: a whole number, 0 to 65535)",
            ),
            (
                ["--threads=0"],
                "Invalid value for threads (threads='0'; allowed: a whole number, 1 or more)",
            ),
            (
                ["--listen=127.0.0.1:1", "--port=1"],
                "host or port may not be set if listen is set.",
            ),
            (
                ["--trusted-proxy-count=1"],
                "trusted_proxy_count has no meaning without setting trusted_proxy",
            ),
        ],
    )
    def test_because_of_a_setting_say_so_in_one_line(
        self, capsys: pytest.CaptureFixture[str], argv: list[str], error: str
    ) -> None:
        assert run_with(*argv, APP, serve=waitress.serve) == 1
        assert capsys.readouterr().err == f"Error: {error}\n"

    def test_because_the_factory_made_nothing_say_so(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run_with("--call", f"{__name__}:make_nothing", serve=waitress.serve) == 1
        error = capsys.readouterr().err
        assert error.startswith('Error: The "app" passed to ``create_server`` was ``None``.')
        assert error.count("\n") == 1

    def test_because_the_address_is_taken_name_it(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            assert run_with(f"--listen=127.0.0.1:{port}", APP, serve=waitress.serve) == 1
        error = capsys.readouterr().err
        assert error.startswith("Error: ")
        assert f"127.0.0.1:{port}" in error
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        "error",
        [
            ValueError("several\nlines"),
            TypeError("several\nlines"),
            RuntimeError("several\nlines"),
            OSError("several\nlines"),
        ],
        ids=lambda error: type(error).__name__,
    )
    def test_say_so_in_one_line_whatever_the_text(
        self, capsys: pytest.CaptureFixture[str], error: Exception
    ) -> None:
        assert run_with(APP, serve=Serve(error)) == 1
        assert capsys.readouterr().err == "Error: several lines\n"

    def test_with_an_unexpected_exception_hide_nothing(self) -> None:
        with pytest.raises(ZeroDivisionError):
            run_with(APP, serve=Serve(ZeroDivisionError()))

    def test_are_told_from_those_that_break_while_they_run(self) -> None:
        class Loop:
            @staticmethod
            def loop(**kw: Any) -> None:
                raise OSError("the loop broke")

        def serve(app: Any, **kw: Any) -> None:
            server = waitress.create_server(app, host="127.0.0.1", port=0)
            server.asyncore = Loop
            try:
                server.run()
            finally:
                server.close()
                server.task_dispatcher.shutdown()

        with pytest.raises(OSError, match="the loop broke"):
            run_with(APP, serve=serve)


class TestProcess:
    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "waitress", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def test_exits_with_what_run_returns(self) -> None:
        assert self.run("--help").returncode == 0
        done = self.run("--nope", APP)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: option --nope not recognized\n")

    def test_prints_no_traceback_for_a_bad_setting(self) -> None:
        done = self.run("--port=70000", "wsgiref.simple_server:demo_app")
        assert done.returncode == 1
        assert done.stderr == (
            "Error: Invalid value for port (port='70000'; allowed: a whole number, 0 to 65535)\n"
        )


def test_importing_the_main_module_runs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "run", None)
    assert importlib.import_module("waitress.__main__").run is None


def test_main_module_exits_with_the_return_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["waitress-serve"])
    monkeypatch.setattr(runner, "run", lambda: 3)
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("waitress", run_name="__main__")
    assert caught.value.code == 3


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("serve", waitress.serve),
        ("Adjustments", Adjustments),
        ("AppResolutionError", AppResolutionError),
        ("logger", logger),
        ("getopt", getopt),
        ("logging", logging),
        ("os", os),
        ("sys", sys),
        ("traceback", traceback),
    ],
)
def test_names_that_callers_import_are_there(name: str, value: Any) -> None:
    assert getattr(runner, name) is value
