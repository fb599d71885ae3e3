from __future__ import annotations

import json
import logging
import logging.config
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from waitress.log_options import check_format, configure_from, level_number

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")

DICT = {
    "version": 1,
    "formatters": {"short": {"format": "%(levelname)s: %(message)s"}},
    "handlers": {"tested": {"class": "logging.StreamHandler", "formatter": "short"}},
    "loggers": {"tested.by.log_options": {"level": "INFO", "handlers": ["tested"]}},
}
TOML = """
version = 1
formatters.short.format = "%(levelname)s: %(message)s"
handlers.tested = {class = "logging.StreamHandler", formatter = "short"}
loggers."tested.by.log_options" = {level = "INFO", handlers = ["tested"]}
"""
INI = """
[loggers]
keys = root, tested
[handlers]
keys = tested
[formatters]
keys = short
[logger_root]
handlers =
[logger_tested]
qualname = tested.by.log_options
level = INFO
handlers = tested
[handler_tested]
class = StreamHandler
formatter = short
[formatter_short]
format = %(levelname)s: %(message)s
"""


@pytest.fixture(autouse=True)
def logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    tested = logging.getLogger("tested.by.log_options")
    tested.handlers.clear()
    tested.setLevel(logging.NOTSET)


def write(tmp_path: Path, name: str, text: str) -> str:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return str(path)


class TestLevels:
    @pytest.mark.parametrize(
        ("text", "number"),
        [("info", 20), ("DEBUG", 10), (" Warning ", 30), ("5", 5), (35, 35), ("critical", 50)],
    )
    def test_are_names_or_numbers(self, text: Any, number: int) -> None:
        assert level_number(text) == number

    @pytest.mark.parametrize("text", ["loud", "", "0", "-1", "1.5", "٣", "Logger"])
    def test_that_there_are_not_are_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match="there is no such level"):
            level_number(text)


class TestFormats:
    @pytest.mark.parametrize("text", ["%(message)s", "%(asctime)s %(levelname)-8s %(message)s %%"])
    def test_are_taken_as_they_are(self, text: str) -> None:
        assert check_format(text) == text

    @pytest.mark.parametrize(
        ("text", "error"),
        [
            ("plain", "Invalid format 'plain' for '%' style"),
            ("%(nope)s", "Formatting field not found in record: 'nope'"),
            ("%(message)d", "%d format: a real number is required, not str"),
            ("%(message)s 100% ", "incomplete format"),
        ],
    )
    def test_that_would_fail_at_each_line_are_refused(self, text: str, error: str) -> None:
        with pytest.raises(ValueError) as caught:
            check_format(text)
        assert str(caught.value) == error


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("log.ini", INI),
            ("log.json", json.dumps(DICT)),
            pytest.param("log.TOML", TOML, marks=needs_toml),
        ],
    )
    def test_configure_and_leave_other_loggers_alone(
        self, tmp_path: Path, name: str, text: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        other = logging.getLogger("not_tested_by_log_options")
        configure_from(write(tmp_path, name, text))
        logging.getLogger("tested.by.log_options").info("told")
        assert capsys.readouterr().err.splitlines()[-1] == "INFO: told"
        assert not other.disabled

    def test_may_disable_other_loggers_where_they_say_so(self, tmp_path: Path) -> None:
        other = logging.getLogger("tested.by.log_options_too")
        text = json.dumps({**DICT, "disable_existing_loggers": True})
        try:
            configure_from(write(tmp_path, "log.json", text))
            assert other.disabled
        finally:
            for logger in logging.Logger.manager.loggerDict.values():
                if isinstance(logger, logging.Logger):
                    logger.disabled = False

    @pytest.mark.parametrize(
        ("name", "text", "error"),
        [
            ("log.yaml", "", "the name of the file must end in .ini, .json or .toml"),
            ("log.json", "[]", "the file must hold one object"),
            ("log.json", "{", "JSONDecodeError: Expecting property name"),
            ("log.json", "{}", "dictionary doesn't specify a version"),
            (
                "log.json",
                json.dumps(
                    {
                        "version": 1,
                        "handlers": {
                            "f": {"class": "logging.FileHandler", "filename": "/none/x.log"}
                        },
                    }
                ),
                "Unable to configure handler 'f': FileNotFoundError: ",
            ),
            (
                "log.json",
                json.dumps(
                    {"version": 1, "handlers": {"f": {"()": "builtins.open", "file": "/none/x"}}}
                ),
                "Unable to configure handler 'f': FileNotFoundError: ",
            ),
            ("log.ini", "[loggers]\n", "KeyError: "),
            ("log.ini", "loggers\n", ""),
            (
                "log.ini",
                INI.replace("class = StreamHandler", "class = FileHandler\nargs = ('/none/x',)"),
                "FileNotFoundError: ",
            ),
        ],
    )
    def test_that_cannot_be_used_say_why(
        self, tmp_path: Path, name: str, text: str, error: str
    ) -> None:
        with pytest.raises(ValueError) as caught:
            configure_from(write(tmp_path, name, text))
        assert error in str(caught.value)

    @pytest.mark.parametrize("name", ["log.ini", "log.json"])
    def test_that_are_not_there_are_errors_of_the_system(self, tmp_path: Path, name: str) -> None:
        with pytest.raises(FileNotFoundError):
            configure_from(str(tmp_path / name))


def test_importing_the_library_configures_nothing() -> None:
    """Not even the modules of the command do."""
    program = textwrap.dedent(
        """
        import logging
        before = set(logging.Logger.manager.loggerDict)
        import waitress, waitress.runner
        assert "logging.config" not in __import__("sys").modules
        root = logging.getLogger()
        assert root.handlers == [] and root.level == logging.WARNING
        for name in set(logging.Logger.manager.loggerDict) - before:
            logger = logging.getLogger(name)
            assert name.split(".")[0] in ("waitress", "concurrent"), name
            assert logger.handlers == [] and logger.level == logging.NOTSET, name
            assert logger.propagate and not logger.disabled, name
        assert logging.getLoggerClass() is logging.Logger
        assert logging.root.manager.disable == 0
        """
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
