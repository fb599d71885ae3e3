from __future__ import annotations

import contextlib
import getopt
import importlib
import io
import logging
import os
import re
import runpy
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

import waitress
from tests.compat.live import nothing_left_behind
from waitress import runner
from waitress.adjustments import SETTINGS, Adjustments, AppResolutionError, Section
from waitress.rejects import reject_logger
from waitress.runner import HELP, run, show_exception, show_help
from waitress.utilities import logger

ROOT = Path(__file__).parent.parent
APP = f"{__name__}:app"
LOG_INI = """
[loggers]
keys = root, waitress
[handlers]
keys = file
[formatters]
keys = short
[logger_root]
handlers =
[logger_waitress]
qualname = waitress
level = INFO
handlers = file
[handler_file]
class = FileHandler
args = ("LOG",)
formatter = short
[formatter_short]
format = [%(levelname)s] %(message)s
"""

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")
posix_only = pytest.mark.skipif(sys.platform == "win32", reason="SIGINT to another process")
SOCKETS_ERROR = (
    "option --sockets not recognized; did you mean --unix-socket? "
    "(from: command line; --help lists all)"
)


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
def in_tmp_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


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
            "Usage:\n\n    waitress-serve [OPTS] [MODULE:OBJECT]\n\n    An option stands on"
        )
        assert captured.err == ""
        assert serve.served == []

    def test_lists_every_setting_that_the_command_line_can_give(self) -> None:
        options = re.findall(r"^    (--\S+)$", HELP, re.M)
        listed = {
            section: [setting.option for setting in SETTINGS if setting.section is section]
            for section in (Section.STANDARD, Section.TUNING)
        }
        assert options == [
            *("--help", "--version", "--app=MODULE:OBJECT", "--[no-]call"),
            *listed[Section.STANDARD],
            *("--config=FILE", "--check-config", "--no-app", "--print-config", "--pid=FILE"),
            *("--log-level=LEVEL", "--log-format=FORMAT", "--log-config=FILE"),
            *listed[Section.TUNING],
        ]
        python_only = [each for each in SETTINGS if each.section is Section.PYTHON]
        assert sum(map(len, listed.values())) == len(SETTINGS) - len(python_only)

    def test_has_its_sections_in_order(self) -> None:
        headings = re.findall(r"^(\S.*):$", HELP, re.M)
        assert headings == [
            *("Usage", "Standard options", "Configuration options", "Logging options"),
            "Tuning options",
        ]
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
            (
                ["--bad-opt"],
                "option --bad-opt not recognized (from: command line; --help lists all)",
            ),
            (
                ["--treads=8"],
                "option --treads not recognized; did you mean --threads? "
                "(from: command line; --help lists all)",
            ),
            (
                ["--ipv6=1", APP],
                "option --ipv6 must not have an argument (from: command line; --help lists all)",
            ),
            (["--sockets=1", APP], SOCKETS_ERROR),
            ([], "Specify an application"),
            ([APP, APP], "Provide only one WSGI app (from: command line)"),
            (
                ["nosuchmodule:app"],
                "Cannot import WSGI application 'nosuchmodule:app': "
                "No module named 'nosuchmodule' (from: command line)",
            ),
            (
                ["os.path:nosuch"],
                "Cannot import WSGI application 'os.path:nosuch': "
                f"module '{os.path.__name__}' has no attribute 'nosuch' (from: command line)",
            ),
        ],
    )
    def test_are_told_in_one_line(
        self, capsys: pytest.CaptureFixture[str], argv: list[str], error: str
    ) -> None:
        serve = Serve()
        assert run_with(*argv, serve=serve) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err == f"Error: {error}\n"
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
            f"Error: Cannot import WSGI application '{name}:app': "
            "No module named 'nosuchmodule' (from: command line)\nTraceback "
        )
        _, shown = error.split("Traceback (most recent call last):\n")
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
                "(port='http'; allowed: a whole number, 0 to 65535; from: command line)",
            ),
            (
                ["--threads=0"],
                "Invalid value for threads (threads='0'; allowed: a whole number, 1 or more; "
                "from: command line)",
            ),
            (
                ["--listen=127.0.0.1:1", "--port=1"],
                "host or port may not be set if listen is set. (from: command line)",
            ),
            (
                ["--trusted-proxy-count=1"],
                "trusted_proxy_count has no meaning without setting trusted_proxy "
                "(from: command line)",
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

    @pytest.mark.parametrize(
        ("error", "told"),
        [
            (OSError(2, "words"), "words"),
            (OSError(2, "words", "file"), "[Errno 2] words: 'file'"),
            (OSError("several\nlines"), "several lines"),
        ],
    )
    def test_because_of_the_system_tell_no_number_without_need(
        self, capsys: pytest.CaptureFixture[str], error: OSError, told: str
    ) -> None:
        assert run_with(APP, serve=Serve(error)) == 1
        assert capsys.readouterr().err == f"Error: {told}\n"

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


class TestSources:
    def test_are_the_environment_too(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAITRESS_ARGS", f"--port=1 --threads=2 {APP}")
        serve = Serve()
        assert run_with("--port=3", serve=serve) == 0
        assert serve.served == [(app, {"port": "3", "threads": "2"})]

    @needs_toml
    def test_are_a_file_too(self, in_tmp_path: Path) -> None:
        Path("w.toml").write_text(f'app = "{__name__}:make_app"\ncall = true\nthreads = 2\n')
        serve = Serve()
        assert run_with("--config=w.toml", serve=serve) == 0
        assert serve.served == [(app, {"threads": 2})]

    def test_tell_all_problems_before_anything_is_imported(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        serve = Serve()
        assert run_with("--port=x", "--threads=0", "nosuchmodule:app", serve=serve) == 1
        first, second = capsys.readouterr().err.splitlines()
        assert first.startswith("Error: invalid literal for int() with base 10: 'x' (port='x'; ")
        assert second.startswith("Error: Invalid value for threads (threads='0'; ")
        assert serve.served == []

    def test_are_left_alone_by_the_library(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WAITRESS_ARGS", "--threads=0")
        made: list[Any] = []

        class Made:
            def __init__(self, app: Any, **kw: Any) -> None:
                made.append(Adjustments(**kw).threads)

            def run(self) -> None: ...

        waitress.serve(app, _server=Made, _quiet=True)
        assert made == [4]


class TestVersion:
    def test_is_that_of_the_distribution(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_with("--version", serve=Serve()) == 0
        assert capsys.readouterr().out == f"waitress {metadata.version('waitress')}\n"

    def test_is_not_known_of_what_is_not_installed(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Where there are no distributions at all: those who find some find none.
        monkeypatch.setattr(sys, "meta_path", [])
        assert run_with("--version", serve=Serve()) == 0
        assert capsys.readouterr().out.startswith("waitress (not installed")


class TestPrintConfig:
    def test_shows_and_does_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        serve = Serve()
        assert run_with("--print-config", "--port=80", "nosuchmodule:app", serve=serve) == 0
        out = capsys.readouterr().out.splitlines()
        assert "port = 80  # command line" in out
        assert "#threads = 4  # default" in out
        assert serve.served == []

    def test_shows_nothing_wrong(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run_with("--print-config", "--port=x", serve=Serve()) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith("Error: invalid literal")


class TestCheckConfig:
    def check(self, *words: str) -> int:
        serve = Serve()
        status = run_with("--check-config", *words, serve=serve)
        assert serve.served == []
        return status

    def test_says_ok_and_binds_nothing(self, capsys: pytest.CaptureFixture[str]) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken, nothing_left_behind():
            assert self.check(f"--listen=127.0.0.1:{taken.getsockname()[1]} systemd", APP) == 0
        assert capsys.readouterr().out == "ok\n"

    @pytest.mark.parametrize(
        ("words", "error"),
        [
            (["--port=x", APP], "invalid literal for int()"),
            (["--listen=a:1", "--port=1", APP], "host or port may not be set if listen is set."),
            (["--listen=fd://x", APP], "Invalid host/port specified. (listen='fd://x': "),
            (["--trusted-proxy-count=2", APP], "trusted_proxy_count has no meaning without"),
            ([], "Specify an application"),
            (["nosuchmodule:app"], "Cannot import WSGI application 'nosuchmodule:app'"),
            (
                ["--call", f"{__name__}:make_nothing"],
                f"'{__name__}:make_nothing' is not callable, but None (from: command line)",
            ),
            (["--log-config=none.ini", APP], "No such file or directory (log_config='none.ini'; "),
            (["--pid=none/x", APP], "there is no such directory (pid='none/x'; allowed: "),
            (["--pid=.", APP], "this is a directory (pid='.'; allowed: the path of a file"),
        ],
    )
    def test_tells_what_is_wrong_in_one_line(
        self,
        capsys: pytest.CaptureFixture[str],
        in_tmp_path: Path,
        words: list[str],
        error: str,
    ) -> None:
        assert self.check(*words) == 1
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.startswith(f"Error: {error}")
        assert captured.err.count("\n") == 1

    @pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs POSIX permissions")
    def test_tells_of_a_directory_that_cannot_be_written(self) -> None:
        """In a process of nobody's: the administrator may write everywhere."""
        program = (
            "import os, sys, encodings.idna, waitress.runner, wsgiref.simple_server\n"
            "os.geteuid() or os.setuid(65534)\n"
            "sys.exit(waitress.runner.run(['w', '--check-config', '--pid=/w.pid', "
            "'wsgiref.simple_server:demo_app']))"
        )
        done = subprocess.run(
            [sys.executable, "-c", program],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            cwd="/",
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        assert done.returncode == 1
        assert done.stderr.startswith("Error: the directory cannot be written (pid='/w.pid'; ")

    def test_tells_so_whoever_asks(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(os, "access", lambda path, mode: False)
        assert self.check("--pid=w.pid", APP) == 1
        assert capsys.readouterr().err.startswith("Error: the directory cannot be written")

    def test_does_not_use_a_format_that_is_wrong(self, capsys: pytest.CaptureFixture[str]) -> None:
        with bare_root_logger() as root:
            assert self.check("--log-format=plain", APP) == 1
            assert root.handlers == []
        assert capsys.readouterr().err == (
            "Error: Invalid format 'plain' for '%' style (log_format='plain'; allowed: a text with "
            "%(...)s for the attributes of a log record; from: command line)\n"
        )

    def test_tells_every_problem(
        self, capsys: pytest.CaptureFixture[str], in_tmp_path: Path
    ) -> None:
        words = ["--port=x", "--log-level=y", "--log-config=none.ini", "nosuchmodule:app"]
        assert self.check(*words) == 1
        assert [line[:15] for line in capsys.readouterr().err.splitlines()] == [
            *("Error: invalid ", "Error: there is", "Error: No such ", "Error: Cannot i")
        ]

    def test_accepts_a_pid_file_that_can_be_written(self, in_tmp_path: Path) -> None:
        Path("w.pid").write_text("1\n")
        assert self.check("--pid=w.pid", APP) == 0
        assert Path("w.pid").read_text() == "1\n"

    def test_leaves_the_application_out_when_told(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.check("--no-app") == 0
        assert self.check("--no-app", "nosuchmodule:app") == 0
        assert self.check("--no-app", "--port=x") == 1

    def test_shows_where_the_application_raised(
        self, capsys: pytest.CaptureFixture[str], module: Callable[[str], str]
    ) -> None:
        name = module("1 / 0\n")
        assert self.check(f"{name}:app") == 1
        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == "Error: ZeroDivisionError: division by zero"
        assert lines[1].startswith("Traceback ")

    @pytest.mark.parametrize("status", ["0", "7", "'no database'"])
    def test_does_not_pass_what_ends_the_process(
        self, status: str, capsys: pytest.CaptureFixture[str], module: Callable[[str], str]
    ) -> None:
        name = module(f"raise SystemExit({status})\n")
        assert self.check(f"{name}:app") == 1
        output = capsys.readouterr()
        assert output.out == ""
        assert output.err == (
            f"Error: '{name}:app' ends the process when it is imported, with status {status}\n"
        )


def serving_while(look: Callable[[Any], Any]) -> Callable[..., Any]:
    """Make a function that makes the server as it is told to, looks at it, and ends it."""

    def serve(app: Any, **kw: Any) -> Any:
        kw.pop("_quiet")
        server = kw.pop("_server")(app, **kw)
        try:
            return look(server)
        finally:
            server.task_dispatcher.shutdown()
            server.close()

    return serve


@pytest.mark.usefixtures("no_leaks")
class TestPidFile:
    def test_is_there_while_the_server_is(self, in_tmp_path: Path) -> None:
        def look(server: Any) -> int:
            assert Path("w.pid").read_text() == f"{os.getpid()}\n"
            assert int(server.effective_port) > 0
            return 3

        words = ["--listen=127.0.0.1:0", "--pid=w.pid", APP]
        assert run_with(*words, serve=serving_while(look)) == 3
        assert os.listdir() == []

    def test_is_not_removed_when_another_process_has_it(self, in_tmp_path: Path) -> None:
        def look(server: Any) -> None:
            Path("w.pid").write_text("1\n")

        words = ["--listen=127.0.0.1:0", "--pid=w.pid", APP]
        assert run_with(*words, serve=serving_while(look)) == 0
        assert Path("w.pid").read_text() == "1\n"

    @pytest.mark.parametrize("listen", ["127.0.0.1:0", "127.0.0.1:0 127.0.0.1:0"])
    def test_that_cannot_be_written_leaves_nothing(
        self, in_tmp_path: Path, capsys: pytest.CaptureFixture[str], listen: str
    ) -> None:
        serve = serving_while(lambda server: pytest.fail("it does not serve"))
        with nothing_left_behind():
            assert run_with(f"--listen={listen}", "--pid=none/w", APP, serve=serve) == 1
        assert capsys.readouterr().err == (
            "Error: cannot write the pid file none/w: No such file or directory\n"
        )

    def test_goes_together_with_a_file_for_logging(
        self, in_tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        Path("log.json").write_text('{"version": 1, "loggers": {"waitress": {"level": "INFO"}}}')
        words = ["--listen=127.0.0.1:0", "--pid=w.pid", "--log-config=log.json", APP]
        assert run_with(*words, serve=serving_while(lambda server: None)) == 0
        assert "Serving on http://127.0.0.1:" in caplog.text

    def test_is_not_needed_for_that(
        self, in_tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        Path("log.json").write_text('{"version": 1, "loggers": {"waitress": {"level": "INFO"}}}')
        words = ["--listen=127.0.0.1:0", "--log-config=log.json", APP]
        assert run_with(*words, serve=serving_while(lambda server: None)) == 0
        assert "Serving on http://127.0.0.1:" in caplog.text


@contextlib.contextmanager
def bare_root_logger() -> Iterator[logging.Logger]:
    """Give a root logger without handlers."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    root.handlers.clear()
    try:
        yield root
    finally:
        root.handlers[:] = handlers
        root.setLevel(level)


class TestLogging:
    def test_level_holds_for_what_is_refused_too(self) -> None:
        assert run_with("--log-level=debug", APP, serve=Serve()) == 0
        assert logger.level == logging.DEBUG
        assert reject_logger.level == logging.NOTSET

    def test_level_wins_over_that_of_the_application(self, module: Callable[[str], str]) -> None:
        name = module("import logging\nlogging.getLogger('waitress').setLevel(50)\napp = 1\n")
        assert run_with("--log-level=warning", f"{name}:app", serve=Serve()) == 0
        assert logger.level == logging.WARNING

    def test_format_is_that_of_all_lines(self) -> None:
        with bare_root_logger() as root:
            assert run_with("--log-format=<%(message)s>", APP, serve=Serve()) == 0
            (handler,) = root.handlers
        record = logging.LogRecord("x", 20, "", 0, "told", (), None)
        assert handler.format(record) == "<told>"

    def test_file_says_all(self, in_tmp_path: Path) -> None:
        """Neither a level nor a handler is added to what it says."""
        level = logger.level
        Path("log.json").write_text('{"version": 1, "root": {"level": "ERROR"}}')
        serve = Serve()
        with bare_root_logger() as root:
            assert run_with("--log-config=log.json", APP, serve=serve) == 0
            assert (root.level, root.handlers) == (logging.ERROR, [])
        assert logger.level == level
        ((_, kw),) = serve.served
        assert kw["_quiet"] is True
        with bare_root_logger():
            assert run_with("--log-config=log.json", "--log-level=info", APP, serve=serve) == 0
        assert logger.level == logging.INFO

    @pytest.mark.parametrize(
        ("name", "text", "error"),
        [
            ("log.yaml", "", "the name of the file must end in .ini, .json or .toml"),
            ("log.json", "{}", "dictionary doesn't specify a version"),
        ],
    )
    def test_file_that_cannot_be_used_is_told(
        self,
        capsys: pytest.CaptureFixture[str],
        in_tmp_path: Path,
        name: str,
        text: str,
        error: str,
    ) -> None:
        Path(name).write_text(text)
        serve = Serve()
        assert run_with(f"--log-config={name}", APP, serve=serve) == 1
        assert serve.served == []
        assert capsys.readouterr().err == (
            f"Error: {error} (log_config='{name}'; allowed: a file whose name ends in .ini, .json "
            "or .toml; from: command line)\n"
        )


class TestProcess:
    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "waitress", *argv],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    @contextlib.contextmanager
    def served(self, *argv: str) -> Iterator[subprocess.Popen[str]]:
        """Serve in a process, which is then ended by Ctrl-C."""
        with subprocess.Popen(
            [sys.executable, "-m", "waitress", *argv, "wsgiref.simple_server:demo_app"],
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                yield process
                process.send_signal(signal.SIGINT)
                assert process.wait(20) == 0
                assert process.stderr is not None
                self.told = process.stderr.read()
            finally:
                process.kill()

    def ask(self, path: Path) -> None:
        """Make a request; when it is answered the server runs."""
        deadline = time.monotonic() + 20
        with socket.socket(socket.AF_UNIX) as sock:
            while True:
                try:
                    sock.connect(str(path))
                    break
                except OSError:
                    assert time.monotonic() < deadline
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert sock.recv(12) == b"HTTP/1.0 200"

    @posix_only
    def test_writes_its_number_when_it_serves_and_removes_it(self, tmp_path: Path) -> None:
        path = tmp_path / "w.pid"
        path.write_text("1\n")
        with self.served(f"--listen=unix:{tmp_path}/s", f"--pid={path}") as process:
            self.ask(tmp_path / "s")
            assert path.read_text() == f"{process.pid}\n"
        assert os.listdir(tmp_path) == []

    @posix_only
    def test_logs_as_the_file_says(self, tmp_path: Path) -> None:
        config, log = tmp_path / "log.ini", tmp_path / "w.log"
        config.write_text(LOG_INI.replace("LOG", str(log)))
        with self.served(f"--listen=unix:{tmp_path}/s", f"--log-config={config}"):
            self.ask(tmp_path / "s")
            assert f"[INFO] Serving on http://unix:{tmp_path}/s\n" in log.read_text()
        assert "Serving" not in self.told

    def test_leaves_nothing_when_the_pid_file_cannot_be_written(self, tmp_path: Path) -> None:
        path, pid = tmp_path / "w.sock", tmp_path / "none" / "w.pid"
        done = self.run(
            f"--listen=127.0.0.1:0 unix:{path}", f"--pid={pid}", "wsgiref.simple_server:demo_app"
        )
        assert done.returncode == 1
        assert done.stderr == (
            f"Error: cannot write the pid file {pid}: No such file or directory\n"
        )
        assert os.listdir(tmp_path) == []

    def test_exits_with_what_run_returns(self) -> None:
        assert self.run("--help").returncode == 0
        done = self.run("--nope", APP)
        assert done.returncode == 1
        assert done.stderr.startswith("Error: option --nope not recognized")
        assert done.stderr.count("\n") == 1

    def test_prints_no_traceback_for_a_bad_setting(self) -> None:
        done = self.run("--port=70000", "wsgiref.simple_server:demo_app")
        assert done.returncode == 1
        assert done.stderr == (
            "Error: Invalid value for port (port='70000'; allowed: a whole number, 0 to 65535; "
            "from: command line)\n"
        )


#: Runs the command, with memory for a few threads alone, and looks what it has left.
FEW_THREADS = """
import os, resource, sys, threading
from waitress.runner import run
threading.stack_size(256 << 20)
with open("/proc/self/statm") as statm:
    used = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (700 << 20), resource.RLIM_INFINITY))
before = os.listdir("/proc/self/fd")
status = run(["waitress-serve", *sys.argv[1:]])
assert os.listdir("/proc/self/fd") == before
for thread in threading.enumerate():
    # What was told to end, ends.
    if thread is not threading.main_thread():
        thread.join(10)
        assert not thread.is_alive()
sys.exit(status)
"""


class TestCleanStart:
    """Whatever fails, the address is named, in one line, and nothing is left behind."""

    @pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
    def test_is_so_when_there_are_too_few_threads(self, tmp_path: Path) -> None:
        path = tmp_path / "w.sock"
        words = ["--threads=50", f"--listen=unix:{path} 127.0.0.1:0", f"--pid={tmp_path}/pid"]
        done = subprocess.run(
            [sys.executable, "-c", FEW_THREADS, *words, "wsgiref.simple_server:demo_app"],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.stderr == (
            f"Error: cannot start 50 threads for unix socket {path}, 127.0.0.1:0: "
            "can't start new thread (from: command line)\n"
        )
        assert done.returncode == 1
        assert os.listdir(tmp_path) == []

    @pytest.mark.parametrize(
        ("second", "error"),
        [
            ("127.0.0.1:{port}", "cannot listen on 127.0.0.1:{port}: "),
            ("unix:{tmp}/none/w.sock", "cannot listen on unix socket {tmp}/none/w.sock: No such"),
            ("unix:{tmp}/file", "cannot listen on unix socket {tmp}/file: Address already in use"),
            ("unix:{tmp}/" + "x" * 120, "cannot listen on unix socket {tmp}/xxx"),
            ("192.0.2.1:1", "cannot listen on 192.0.2.1:1: "),
            ("fd://999", "cannot listen on fd://999: descriptor 999: Bad file descriptor"),
            ("systemd", "cannot listen on systemd: LISTEN_FDS is not set"),
        ],
    )
    @posix_only
    def test_is_so_when_one_of_the_addresses_is_no_good(
        self, capsys: pytest.CaptureFixture[str], tmp_path: Path, second: str, error: str
    ) -> None:
        (tmp_path / "file").write_text("no socket")
        with socket.create_server(("127.0.0.1", 0)) as taken, nothing_left_behind():
            names = {"port": taken.getsockname()[1], "tmp": tmp_path}
            listen = f"unix:{tmp_path}/first {second.format(**names)}"
            status = run_with(f"--listen={listen}", f"--pid={tmp_path}/pid", APP, serve=quiet_serve)
        assert status == 1
        told = capsys.readouterr().err
        assert told.startswith(f"Error: {error.format(**names)}")
        assert told.count("\n") == 1
        assert os.listdir(tmp_path) == ["file"]


def quiet_serve(app: Any, **kw: Any) -> None:
    """Serve without configuring this process' logging."""
    waitress.serve(app, **{**kw, "_quiet": True})


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
