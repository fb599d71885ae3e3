from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from waitress.adjustments import SETTINGS, Adjustments, Section
from waitress.command_options import COMMAND_OPTIONS
from waitress.config import Config, Given, load, printed, refusal

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "waitress.toml"

needs_toml = pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib came with 3.11")


def environ(text: str) -> dict[str, str]:
    return {"WAITRESS_ARGS": text, "WAITRESS_PORT": "tcp://10.0.0.1:80"}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Make a function that writes a configuration file and returns the option for it."""
    monkeypatch.chdir(tmp_path)

    def write(text: str) -> str:
        Path("w.toml").write_text(text, encoding="utf-8")
        return "--config=w.toml"

    return write


class TestWords:
    def test_are_settings_and_options_of_the_command(self) -> None:
        config = load(["--port=80", "--no-ipv6", "--call", "--pid=x", "a:b"], {})
        source = "command line"
        assert config == Config(
            {"port": Given("80", source), "ipv6": Given("false", source)},
            {"call": Given("true", source), "pid": Given("x", source), "app": Given("a:b", source)},
        )
        assert config.values() == {"port": "80", "ipv6": "false"}
        assert config.value("app") == "a:b"
        assert config.value("log_level") is None
        assert config.has("call")
        assert not config.has("help")

    def test_may_be_undone(self) -> None:
        assert not load(["--call", "--no-call"], {}).has("call")

    def test_of_listen_add_up(self) -> None:
        assert load(["--listen=a:1", "--listen=b:2"], {}).values() == {"listen": " a:1 b:2"}

    def test_of_the_environment_are_those_of_a_shell(self) -> None:
        config = load([], environ("--ident='a b' --threads 3 m:app"))
        source = "environment WAITRESS_ARGS"
        assert config.settings == {"ident": Given("a b", source), "threads": Given("3", source)}
        assert config.command == {"app": Given("m:app", source)}

    def test_of_the_environment_are_read_from_one_variable_alone(self) -> None:
        assert load([], environ("  ")) == Config()

    @pytest.mark.parametrize("word", ["--help", "--version"])
    def test_that_ask_for_a_text_need_no_sound_rest(self, word: str) -> None:
        config = load([word, "--config=none.toml"], environ("--nope '"))
        assert config.problems == []

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            (
                "--nope",
                "option --nope not recognized; did you mean --no-app? "
                "(from: environment WAITRESS_ARGS; --help lists all)",
            ),
            (
                "--xyzzy",
                "option --xyzzy not recognized (from: environment WAITRESS_ARGS; --help lists all)",
            ),
            (
                "--port",
                "option --port requires argument "
                "(from: environment WAITRESS_ARGS; --help lists all)",
            ),
            ("a b", "Provide only one WSGI app (from: environment WAITRESS_ARGS)"),
            ("'", "cannot read WAITRESS_ARGS: No closing quotation (from: environment)"),
        ],
    )
    def test_that_mean_nothing_are_told(self, text: str, problem: str) -> None:
        assert load([], environ(text)).problems == [problem]


class TestPrecedence:
    @needs_toml
    def test_is_command_line_environment_file(self, file: Callable[[str], str]) -> None:
        option = file("threads = 1\nport = 1\nbacklog = 1\n")
        config = load(["--threads=3"], environ(f"--threads=2 --port=2 {option}"))
        assert config.values() == {"threads": "3", "port": "2", "backlog": 1}
        assert {name: given.source for name, given in config.settings.items()} == {
            "threads": "command line",
            "port": "environment WAITRESS_ARGS",
            "backlog": "file w.toml:3",
        }

    @needs_toml
    def test_holds_for_which_file_it_is(self, file: Callable[[str], str]) -> None:
        config = load([file("threads = 1\n")], environ("--config=none.toml"))
        assert config.problems == []
        assert config.values() == {"threads": 1}

    @needs_toml
    def test_replaces_lists(self, file: Callable[[str], str]) -> None:
        option = file('listen = ["a:1", "b:2"]\ntrusted_proxy = ["10.0.0.1"]\n')
        config = load([option, "--listen=c:3", "--trusted-proxy=10.0.0.2"], {})
        assert config.values() == {"listen": " c:3", "trusted_proxy": "10.0.0.2"}

    @needs_toml
    @pytest.mark.parametrize(
        ("words", "below", "left"),
        [
            (["--port=1"], 'listen = "a:2"', {"port"}),
            (["--listen=a:2"], 'port = 1\nhost = "a"', {"listen"}),
            (["--unix-socket=/x"], 'listen = "a:2"', {"unix_socket"}),
            (["--host=a"], 'unix_socket = "/x"', {"host"}),
            (["--port=1"], 'host = "a"', {"host", "port"}),
            (["--log-format=%(message)s"], 'log_config = "x.ini"', {"log_format"}),
            (["--log-config=x.ini"], 'log_format = "%(message)s"', {"log_config"}),
            (["m:app"], 'app = "x:y"\ncall = true', {"app"}),
            (["--call"], 'app = "x:y"', {"app", "call"}),
        ],
    )
    def test_replaces_what_cannot_stand_beside_it(
        self, file: Callable[[str], str], words: list[str], below: str, left: set[str]
    ) -> None:
        config = load([file(below), *words], {})
        assert config.problems == []
        assert (config.settings.keys() | config.command.keys()) - {"config"} == left


@needs_toml
class TestFiles:
    def test_have_native_values_and_text(self, file: Callable[[str], str]) -> None:
        text = """
            app = "m:app"
            call = true
            log-level = 15
            host = "localhost"
            port = 80
            ipv6 = false
            threads = "3"
            send_timeout = 1.5
            trusted_proxy_headers = ["forwarded"]
            trusted_proxy = "10.0.0.1"
            spool-limit = 0
            url_prefix = "/x"
            """
        config = load([file(text)], {})
        assert config.problems == []
        assert config.value("app") == "m:app"
        assert config.value("log_level") == 15
        assert config.has("call")
        adj = Adjustments(**config.values())
        assert (adj.port, adj.ipv6, adj.threads, adj.send_timeout) == (80, False, 3, 1.5)
        assert (adj.trusted_proxy_headers, adj.spool_limit) == ({"forwarded"}, 0)

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("\nthread = 1", "unknown key 'thread'; did you mean threads? (from: file w.toml:2)"),
            ("xyzzy = 1", "unknown key 'xyzzy' (from: file w.toml:1)"),
            (
                "\n[server]\nport = 1",
                "unknown table [server]: options stand at the top level (from: file w.toml:2)",
            ),
            (
                "listen.a = 1",
                "a table is not allowed here (listen={'a': 1}; allowed: one or more of HOST:PORT, "
                "HOST, [IPv6]:PORT, *:PORT, unix:PATH, unix:@NAME, fd://NUMBER, systemd and "
                "systemd:NAME, between blanks; ports from 0 to 65535; from: file w.toml:1)",
            ),
            ("config = 'x'", "config cannot be set in a file, only on the command line"),
            ("check-config = true", "check-config cannot be set in a file, only on the command"),
            ("sockets = []", "sockets can be set by a Python program only (from: file w.toml:1)"),
            (
                "url-prefix = ''\nurl_prefix = ''",
                "url_prefix is set twice, with a hyphen and with an underscore "
                "(from: file w.toml:2)",
            ),
            (
                "ipv4 = 1",
                "a number is not allowed here (ipv4=1; allowed: true or false; "
                "from: file w.toml:1)",
            ),
            ("threads = true", "true or false is not allowed here (threads=True; allowed: a whole"),
            ("threads = 1.5", "a fraction is not allowed here (threads=1.5; allowed: a whole"),
            ("threads = [1]", "a list is not allowed here (threads=[1]; allowed: a whole"),
            ("threads = {a = 1}", "a table is not allowed here (threads={'a': 1}; allowed:"),
            ("threads = 1979-05-27", "date is not allowed here (threads=datetime.date(1979"),
            ("url_prefix = ['/a']", "a list is not allowed here (url_prefix=['/a']; allowed: any"),
            ("listen = 8080", "a number is not allowed here (listen=8080; allowed: one or more"),
            ("trusted_proxy = 1.5", "a fraction is not allowed here (trusted_proxy=1.5; allowed"),
            ("ident = 5", "a number is not allowed here (ident=5; allowed: visible"),
            ("url_scheme = 1.5", "a fraction is not allowed here (url_scheme=1.5; allowed: any"),
            ("listen = ['a:1', 2]", "a list is not allowed here (listen=['a:1', 2]; allowed: one"),
            ("app = 1", "a number is not allowed here (app=1; allowed: MODULE:OBJECT"),
            ("call = 'yes'", "a text is not allowed here (call='yes'; allowed: true or false"),
            (
                "unix_socket_perms = 600",
                "int() can't convert non-string with explicit base (unix_socket_perms=600; "
                'allowed: octal digits as text, such as "600"; from: file w.toml:1)',
            ),
            (
                "port = 65536",
                "Invalid value for port (port=65536; allowed: a whole number, 0 to 65535; "
                "from: file w.toml:1)",
            ),
            (
                "send_timeout = nan",
                "Invalid value for send_timeout (send_timeout=nan; allowed: a number of seconds",
            ),
            (
                "log_level = 'loud'",
                "there is no such level (log_level='loud'; allowed: debug, info, warning, error, "
                "critical, or a whole number, 1 or more; from: file w.toml:1)",
            ),
            (
                "log_config = 'x.ini'\nlog_format = '%(message)s'",
                "log_format has no meaning with log_config (from: file w.toml:2)",
            ),
            ('"ident" = 5', "allowed: visible characters and blanks of Latin-1, or empty; from: "),
            ("a = = 1", "cannot read the configuration file (config='w.toml': Invalid value (at"),
        ],
    )
    def test_that_are_wrong_say_where_and_why(
        self, file: Callable[[str], str], text: str, problem: str
    ) -> None:
        (told,) = load([file(text)], {}).problems
        assert problem in told
        assert "\n" not in told

    def test_tell_all_that_is_wrong_with_them(self, file: Callable[[str], str]) -> None:
        config = load([file("port = 'x'\nnope = 1\nthreads = 0\n"), "--log-level=x"], {})
        assert len(config.problems) == 4

    def test_tell_no_line_where_they_hide_it(self, file: Callable[[str], str]) -> None:
        config = load([file('"th\\u0072eads" = 0\n')], {})
        assert config.problems[0].endswith("; from: file w.toml)")

    def test_that_are_not_there_are_told(self) -> None:
        assert load(["--config=none.toml"], {}).problems == [
            "cannot read the configuration file (config='none.toml': No such file or directory; "
            "from: command line)"
        ]

    def test_like_the_one_of_the_manual_are_understood(self) -> None:
        config = load([f"--config={EXAMPLE}"], {})
        assert config.problems == []
        adj = Adjustments(**config.values())
        assert (adj.threads, adj.channel_timeout, len(adj.listen)) == (8, 60, 2)
        assert adj.trusted_proxy == "127.0.0.1 localhost"
        assert config.value("app") == "myapp:create_app"
        assert config.has("call")
        assert "expose_tracebacks" in config.settings


def test_older_pythons_say_what_they_lack(
    file: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tomllib", None)
    assert load([file("")], {}).problems == [
        "cannot read the configuration file (config='w.toml': TOML files need Python 3.11 or "
        "newer; from: command line)"
    ]


class TestMessages:
    def test_tell_the_one_source_of_what_they_name(self) -> None:
        config = load(["--port=1", "--threads=2"], {})
        assert config.with_sources("bad port") == "bad port (from: command line)"
        assert config.with_sources("bad (port=1)") == "bad (port=1; from: command line)"
        assert config.with_sources("importance") == "importance"

    def test_tell_several_sources_by_name(self) -> None:
        config = load(["--trusted-proxy-count=1"], environ("--trusted-proxy=10.0.0.1"))
        assert config.with_sources("trusted_proxy or trusted_proxy_count") == (
            "trusted_proxy or trusted_proxy_count (trusted_proxy_count from command line, "
            "trusted_proxy from environment WAITRESS_ARGS)"
        )

    def test_tell_what_an_option_of_the_command_may_be(self) -> None:
        assert refusal("no", "pid", Given("/x", "command line")) == (
            "no (pid='/x'; allowed: the path of a file that can be written; from: command line)"
        )


class TestPrinted:
    def test_tells_each_option_and_its_source(self) -> None:
        above = environ("--server-name='\"é\x7f' --no-ipv6")
        lines = list(printed(load(["--port=80", "m:app"], above)))
        names = [line.lstrip("#").split(" = ")[0] for line in lines]
        settings = [setting.name for setting in SETTINGS if setting.section is not Section.PYTHON]
        commands = [option.name for option in COMMAND_OPTIONS if option.in_file]
        assert names == [*commands, *settings]
        assert 'app = "m:app"  # command line' in lines
        assert "#call = false  # default" in lines
        assert "port = 80  # command line" in lines
        assert "ipv6 = false  # environment WAITRESS_ARGS" in lines
        assert 'server_name = "\\"é\\u007f"  # environment WAITRESS_ARGS' in lines
        assert '#unix_socket_perms = "600"  # default' in lines
        assert '#listen = ["0.0.0.0:8080"]  # default' in lines
        assert (
            "#connection_limit = 1000  # default "
            "(1000 connections, or fewer where file descriptors are few)"
        ) in lines

    @needs_toml
    def test_is_a_file_that_says_the_same(self, file: Callable[[str], str]) -> None:
        first = load(
            [
                *("--listen=127.0.0.1:1", "--listen=unix:/x", "--unix-socket-perms=660"),
                *("--trusted-proxy=10.0.0.1", "--trusted-proxy-headers=x-forwarded-for forwarded"),
                *("--send-timeout=1.5", "--no-ipv4", "--call", "--log-level=info", "m:app"),
            ],
            {},
        )
        shown = "\n".join(printed(first))
        second = load([file(shown)], {})
        assert second.problems == []
        given = [line.split("  #")[0] for line in printed(second) if not line.startswith("#")]
        assert given == [line.split("  #")[0] for line in shown.split("\n") if line[0] != "#"]
        assert len(given) == 9
        assert second.values() == {
            "listen": ["127.0.0.1:1", "unix:/x"],
            "ipv4": False,
            "unix_socket_perms": "660",
            "trusted_proxy": "10.0.0.1",
            "trusted_proxy_headers": ["forwarded", "x-forwarded-for"],
            "send_timeout": 1.5,
        }

    @needs_toml
    def test_has_defaults_that_a_file_can_take(self, file: Callable[[str], str]) -> None:
        """But for the ways to name addresses, of which there is one."""
        lines = [line.lstrip("#") for line in printed(Config())]
        skipped = ("host =", "port =", "unix_socket =", "trusted_proxy_count =", "log_", "app =")
        text = "\n".join(line for line in lines if not line.startswith(skipped))
        config = load([file(text)], {})
        assert config.problems == []
        assert {name: str(given) for name, given in vars_of(config).items()} == {
            name: str(given) for name, given in vars_of(Config()).items()
        }


def vars_of(config: Config) -> dict[str, Any]:
    values = {name: value for name, value in config.values().items() if name != "send_bytes"}
    adj = Adjustments(**values)
    return {name: getattr(adj, name) for name in Adjustments.__annotations__}
