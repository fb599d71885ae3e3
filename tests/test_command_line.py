from __future__ import annotations

import getopt
import os
from pathlib import Path
from typing import Any

import pytest

from waitress.adjustments import Adjustments
from waitress.command_line import AppResolutionError, resolve_wsgi_app
from waitress.settings import SETTINGS


def make_app() -> str:
    return "made"


class TestCommandLine:
    APP = f"{__name__}:make_app"

    def parse(self, *argv: str) -> dict[str, Any]:
        return Adjustments.parse_args([*argv, self.APP])

    def test_help_looks_for_no_application(self) -> None:
        assert Adjustments.parse_args(["--help"]) == {"help": True, "app": None}
        assert Adjustments.parse_args(["--help", "nosuch:app"]) == {"help": True, "app": None}

    def test_an_application_is_enough(self) -> None:
        assert self.parse() == {"help": False, "app": make_app}

    def test_values_stay_text(self) -> None:
        assert self.parse("--port=80", "--url-scheme", "https", "--port=81") == {
            "help": False,
            "app": make_app,
            "port": "81",
            "url_scheme": "https",
        }

    def test_listen_may_be_repeated(self) -> None:
        assert self.parse("--listen=test:80")["listen"] == " test:80"
        assert self.parse("--listen=a:80", "--listen=b:8080")["listen"] == " a:80 b:8080"

    def test_unique_prefixes_do(self) -> None:
        assert self.parse("--por=1")["port"] == "1"

    @pytest.mark.parametrize("name", [s.name for s in SETTINGS if s.is_flag])
    def test_a_flag_has_two_forms(self, name: str) -> None:
        option = name.replace("_", "-")
        assert self.parse(f"--{option}")[name] == "true"
        assert self.parse(f"--no-{option}")[name] == "false"

    @pytest.mark.parametrize("name", [s.name for s in SETTINGS if not s.is_flag])
    def test_every_other_setting_takes_a_value(self, name: str) -> None:
        assert self.parse(f"--{name.replace('_', '-')}=x")[name].strip() == "x"

    @pytest.mark.parametrize(
        ("argument", "text"),
        [
            ("--bad-opt", "option --bad-opt not recognized"),
            ("--url_scheme=http", "option --url_scheme not recognized"),
            ("--ipv6=1", "option --ipv6 must not have an argument"),
            ("--trusted", "option --trusted not a unique prefix"),
        ],
    )
    def test_bad_options_are_refused(self, argument: str, text: str) -> None:
        with pytest.raises(getopt.GetoptError) as caught:
            self.parse(argument)
        assert str(caught.value) == text

    def test_a_missing_value_is_refused(self) -> None:
        with pytest.raises(getopt.GetoptError, match="option --port requires argument"):
            Adjustments.parse_args(["--port"])

    @pytest.mark.parametrize("argv", [(f"--app={APP}",), (APP,), ("--", APP)])
    def test_the_application_is_an_option_or_an_argument(self, argv: tuple[str, ...]) -> None:
        assert Adjustments.parse_args(argv)["app"] is make_app

    def test_call_makes_the_application(self) -> None:
        assert self.parse("--call") == {"help": False, "app": "made"}

    def test_no_application_is_refused(self) -> None:
        with pytest.raises(AppResolutionError, match=r"^Specify an application$"):
            Adjustments.parse_args([])

    @pytest.mark.parametrize("argv", [(APP, APP), (f"--app={APP}", APP)])
    def test_two_applications_are_refused(self, argv: tuple[str, ...]) -> None:
        with pytest.raises(AppResolutionError, match=r"^Provide only one WSGI app$"):
            Adjustments.parse_args(argv)


class TestApplicationNames:
    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("os.path:join", os.path.join),
            ("pathlib:Path.exists", Path.exists),
            ("os.path.join", os.path.join),
            ("os", os),
        ],
    )
    def test_have_several_forms(self, name: str, expected: Any) -> None:
        assert resolve_wsgi_app(name) is expected

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("nosuchmodule:app", "No module named 'nosuchmodule'"),
            ("os.path:nosuch", "has no attribute 'nosuch'"),
            ("a b", "invalid format: 'a b'"),
        ],
    )
    def test_that_lead_nowhere_are_told(self, name: str, reason: str) -> None:
        with pytest.raises(AppResolutionError) as caught:
            resolve_wsgi_app(name)
        text = str(caught.value)
        assert text.startswith(f"Cannot import WSGI application '{name}': ")
        assert reason in text

    def test_call_calls_what_was_found(self) -> None:
        assert resolve_wsgi_app(f"{__name__}:make_app", call=True) == "made"

    def test_what_a_module_raises_is_not_hidden(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "module_that_raises.py").write_text("raise RuntimeError('boom')\n")
        monkeypatch.syspath_prepend(tmp_path)
        with pytest.raises(RuntimeError, match="boom"):
            resolve_wsgi_app("module_that_raises:app")
