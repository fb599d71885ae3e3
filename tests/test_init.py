from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import waitress


class Server:
    """A server whose run() ends at once; it tells what it was made from and asked."""

    def __init__(self, app: Any, **kw: Any) -> None:
        self.app = app
        self.kw = kw
        self.told: list[str] = []
        made.append(self)

    def print_listen(self, text: str) -> None:
        self.told.append(text.format("host", "port"))

    def run(self) -> None:
        self.told.append("ran")


class QuietServer(Server):
    print_listen: Any = None


made: list[Server] = []


@pytest.fixture(autouse=True)
def no_server_yet() -> None:
    made.clear()


@pytest.fixture
def basic_config(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """Configure no logging; collect the calls that would."""
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(logging, "basicConfig", lambda **kw: calls.append(kw))
    return calls


def app(environ: Any, start_response: Any) -> list[bytes]:
    raise AssertionError("no request is made")


def test_serve_tells_where_and_runs(basic_config: list[Any]) -> None:
    waitress.serve(app, _server=Server, port="80")
    (server,) = made
    assert server.app is app
    assert server.kw == {"port": "80"}
    assert server.told == ["Serving on http://host:port", "ran"]
    assert basic_config == [{}]


def test_quiet_serve_only_runs(basic_config: list[Any]) -> None:
    waitress.serve(app, _server=QuietServer, _quiet=True)
    assert made[0].told == ["ran"]
    assert made[0].kw == {}
    assert basic_config == []


def test_profiled_serve_prints_statistics(capsys: pytest.CaptureFixture[str]) -> None:
    waitress.serve(app, _server=Server, _quiet=True, _profile=True)
    assert made[0].told == ["ran"]
    output = capsys.readouterr().out
    assert "Ordered by: cumulative time, call count, internal time" in output
    assert "(run)" in output


@pytest.mark.parametrize(
    "kw", [{"nope": 1}, {"port": "http"}, {"listen": ""}], ids=lambda kw: next(iter(kw))
)
def test_serve_lets_errors_of_settings_pass(kw: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(kw))):
        waitress.serve(app, _quiet=True, **kw)


def test_serve_paste_ignores_the_global_configuration(basic_config: list[Any]) -> None:
    assert waitress.serve_paste(app, {"here": "/"}, _server=Server, host="127.0.0.1") == 0
    assert made[0].kw == {"host": "127.0.0.1"}
    assert made[0].told[-1] == "ran"


def count_to(number: int) -> None:
    for _ in range(number):
        counted()


def counted() -> None:
    pass


class TestProfile:
    def run(
        self, capsys: pytest.CaptureFixture[str], sort_order: tuple[str, ...], callers: bool
    ) -> str:
        names: dict[str, Callable[..., None]] = {"count_to": count_to}
        waitress.profile("count_to(number)", names, {"number": 7}, sort_order, callers)
        return capsys.readouterr().out

    def test_prints_statistics(self, capsys: pytest.CaptureFixture[str]) -> None:
        output = self.run(capsys, ("time",), False)
        assert "Ordered by: internal time" in output
        (line,) = (line for line in output.splitlines() if line.endswith("(counted)"))
        assert line.split()[0] == "7"

    def test_prints_callers(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert "was called by..." in self.run(capsys, (), True)

    def test_leaves_no_file(
        self,
        capsys: pytest.CaptureFixture[str],
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
        self.run(capsys, (), False)
        with pytest.raises(ZeroDivisionError):
            waitress.profile("1/0", {}, {}, (), False)
        assert list(tmp_path.iterdir()) == []


def run_python(program: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


def test_a_bare_import_loads_every_module_but_the_command_line_and_the_rarely_used() -> None:
    program = (
        "import waitress, sys\n"
        "print(*sorted(n for n in sys.modules if n.startswith('waitress.')))\n"
        "print(*sorted(n for n in vars(waitress) if f'waitress.{n}' in sys.modules))\n"
    )
    loaded, reachable = (line.split() for line in run_python(program).splitlines())
    modules = {path.stem for path in Path(waitress.__file__).parent.glob("*.py")}
    command = {"__main__", "command_options", "config", "log_options", "pid_file", "runner"}
    rarely_used = {
        *("activity", "answers", "dump", "events", "fair_queue", "health", "killing"),
        *("loop_answers", "memory_limit", "metrics", "prometheus", "queue_limits", "recorder"),
        *("sd_notify", "stats", "status", "status_page", "stuck", "thread_dump"),
        *("timeline", "toml_file"),
    }
    rarely_used |= {name for name in modules if name.startswith("access_")}
    expected = sorted(modules - {"__init__"} - command - rarely_used)
    assert [name.removeprefix("waitress.") for name in loaded] == expected
    assert reachable == expected


def test_a_bare_import_loads_nothing_rarely_used() -> None:
    program = (
        "import waitress, sys\n"
        "rarely_used = {'profile', 'cProfile', 'pstats', 'argparse', 'getopt', 'pkgutil'}\n"
        "print(*rarely_used & set(sys.modules))\n"
    )
    assert run_python(program).split() == []


def test_importing_the_command_loads_nothing_rarely_used() -> None:
    program = (
        "import waitress.runner, sys\n"
        "print(*{'tomllib', 'shlex', 'difflib', 'logging.config', 'importlib.metadata'}"
        " & set(sys.modules))\n"
    )
    assert run_python(program).split() == []


def test_importing_configures_no_logging() -> None:
    program = (
        "import waitress, logging\n"
        "for name in ('', 'waitress', 'waitress.queue'):\n"
        "    logger = logging.getLogger(name)\n"
        "    print(logger.handlers, logger.level)\n"
    )
    assert run_python(program).splitlines() == ["[] 30", "[] 0", "[] 0"]


def test_create_server_is_that_of_the_server_module() -> None:
    assert waitress.create_server is waitress.server.create_server


def test_there_is_no_version_attribute() -> None:
    assert not hasattr(waitress, "__version__")
