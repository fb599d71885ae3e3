"""The command line: ``waitress-serve`` and ``python -m waitress``.

Owns the help text, which is made from the two tables of options, and the way in which
what went wrong is told: one line that begins with ``Error:`` for each problem, and a
status other than zero. A traceback is for mistakes in a program, so it is shown where the
user's own module, or the factory in it, raised.

Row 12: imports ``serve`` and ``create_server`` of the package, ``access_log`` when there
is a file of it, ``adjustments``, ``command_line``, ``command_options``, ``compat``,
``config``, ``dump``, ``log_options``, ``pid_file``, ``rejects``, ``running``,
``settings``, ``settings_schema``, ``signals`` and ``utilities``.
"""

from __future__ import annotations

import contextlib
import functools
import getopt
import logging
import os
import re
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, TracebackType
from typing import Any, TextIO

from waitress import create_server, serve
from waitress.adjustments import Adjustments
from waitress.command_line import AppResolutionError, resolve_wsgi_app
from waitress.command_options import COMMAND_OPTIONS, Group
from waitress.compat import WIN
from waitress.config import VARIABLE, Config, load, printed, refusal
from waitress.dump import dump_on_signal
from waitress.log_options import configure_from, level_number
from waitress.pid_file import PidFile
from waitress.rejects import reject_logger
from waitress.running import Running
from waitress.settings import SETTINGS
from waitress.settings_schema import Section
from waitress.signals import sigterm_ends
from waitress.utilities import logger

__all__ = ["HELP", "getopt", "run", "show_exception", "show_help"]

_SOURCES = f"""\
An option stands on the command line, in the environment variable {VARIABLE} (words as on
the command line), or in the file of --config. The first of them that gives it counts."""

# The machinery of imports, and what of ours calls it. An exception that has passed
# through no other module does not come from the user's code.
_IMPORT_MACHINERY = {
    "waitress.runner",
    "waitress.command_line",
    "pkgutil",
    "importlib",
    "importlib._bootstrap",
    "importlib._bootstrap_external",
}


def _help() -> str:
    """Build the help text: ``{0}`` stands for the name of the program."""
    return "\n".join(
        [
            "Usage:\n\n    {0} [OPTS] [MODULE:OBJECT]\n",
            textwrap.indent(textwrap.fill(_SOURCES, width=75), "    ") + "\n",
            f"{Section.STANDARD.value}:\n",
            *_command_entries(Group.STANDARD),
            *_setting_entries(Section.STANDARD),
            f"{Group.CONFIGURATION.value}:\n",
            *_command_entries(Group.CONFIGURATION),
            f"{Group.LOGGING.value}:\n",
            *_command_entries(Group.LOGGING),
            f"{Section.TUNING.value}:\n",
            *_setting_entries(Section.TUNING),
        ]
    )


def _command_entries(group: Group) -> Iterator[str]:
    for option in COMMAND_OPTIONS:
        if option.group is group:
            yield _entry(option.option, option.help)


def _setting_entries(section: Section) -> Iterator[str]:
    for setting in SETTINGS:
        if setting.section is section:
            text = f"{setting.help} Default: {setting.default_text}."
            yield _entry(setting.option, _with_option_names(text))


def _with_option_names(text: str) -> str:
    """Spell the settings that a text names as they are spelt on the command line."""
    names = {setting.name for setting in SETTINGS}

    def spelt(match: re.Match[str]) -> str:
        word = match[0]
        return word.replace("_", "-") if word in names else word

    # Not what follows a dot: the environ's wsgi.url_scheme keeps its name.
    return re.sub(r"(?<![\w.])\w+", spelt, text)


def _entry(option: str, text: str) -> str:
    indent = " " * 8
    paragraph = textwrap.fill(
        text,
        width=79,
        initial_indent=indent,
        subsequent_indent=indent,
        break_on_hyphens=False,
    )
    # The whole is a template: a brace of the text stands for itself.
    return f"    {option}\n{paragraph}\n".replace("{", "{{").replace("}", "}}")


#: The help text; ``{0}`` stands for the name of the program.
HELP: str = _help()


def run(argv: Sequence[str] = sys.argv, _serve: Callable[..., Any] = serve) -> int:
    """Serve the application that a command line names, until it is stopped.

    Args:
        argv: the command line, with the name of the program in front.
        _serve: called with the application and, as keywords, the settings given, as text.

    Returns:
        What the process is to exit with: 0 when serving, or showing something, came to
        its end; 1 when it could not begin, which is told on standard error; 3 when requests
        were cut at the end; what a stand-in for ``_serve`` returned, if that is a number.
    """
    # At the end, so that no file that happens to lie here hides an installed module.
    sys.path.append(os.getcwd())
    name = os.path.basename(argv[0]).replace("__main__.py", "python -m waitress")
    config = load(argv[1:], os.environ)
    if config.has("help"):
        show_help(sys.stdout, name)
        return 0
    if config.has("version"):
        sys.stdout.write(f"waitress {_version()}\n")
        return 0
    if config.has("check_config"):
        return _check(config)
    if config.problems:
        return _failed(*config.problems)
    if config.has("print_config"):
        sys.stdout.writelines(f"{line}\n" for line in printed(config))
        return 0
    return _start(config, _serve)


def _version() -> str:
    # Asked for once in a while; it costs more than all else that is imported here.
    from importlib import metadata

    try:
        return metadata.version("waitress")
    except metadata.PackageNotFoundError:
        return "(not installed: its version is not known)"


def _failed(*problems: str) -> int:
    sys.stderr.writelines(f"Error: {problem}\n" for problem in problems)
    return 1


def _check(config: Config) -> int:
    """Say what is wrong with all that was given, as far as it shows without serving."""
    problems = list(config.problems)
    if not problems:
        problems += _problems_together(config)
        problems += _problems_of_pid_file(config)
    # Before the application is imported, which may log.
    problems += _configure_logging(config)
    status = _failed(*problems) if problems else 0
    if not config.has("no_app") and _application(config) is _NO_APPLICATION:
        status = 1
    if not status:
        sys.stdout.write("ok\n")
    return status


def _problems_together(config: Config) -> Iterator[str]:
    try:
        Adjustments(**config.values())
    except (TypeError, ValueError) as exc:
        yield config.with_sources(_one_line(exc))


def _problems_of_pid_file(config: Config) -> Iterator[str]:
    path = config.value("pid")
    if path is None:
        return
    directory = os.path.dirname(path) or "."
    if os.path.isdir(path):
        yield refusal("this is a directory", "pid", config.command["pid"])
    elif not os.path.isdir(directory):
        yield refusal("there is no such directory", "pid", config.command["pid"])
    elif not os.access(directory, os.W_OK | os.X_OK):
        yield refusal("the directory cannot be written", "pid", config.command["pid"])


def _start(config: Config, _serve: Callable[..., Any]) -> int:
    problems = list(_configure_logging(config))
    if problems:
        return _failed(*problems)
    with sigterm_ends():
        app = _application(config)
    if app is _NO_APPLICATION:
        return 1
    _set_levels(config)
    return _run_server(_serve, app, config)


# Logging.


def _configure_logging(config: Config) -> Iterator[str]:
    """Configure what was asked for; yield what is wrong with it."""
    path, line_format = config.value("log_config"), config.value("log_format")
    if path is not None:
        try:
            configure_from(path)
        except OSError as exc:
            yield refusal(exc.strerror, "log_config", config.command["log_config"])
        except ValueError as exc:
            yield refusal(_one_line(exc), "log_config", config.command["log_config"])
    elif line_format is not None and not config.problems:
        logging.basicConfig(format=line_format)


def _set_levels(config: Config) -> None:
    """Set the levels that were asked for, or else those that show where it serves."""
    level = config.value("log_level")
    if level is not None:
        logger.setLevel(level_number(level))
    # Unless somebody knows better: the file, or the application when it was imported.
    elif logger.level == logging.NOTSET and config.value("log_config") is None:
        logger.setLevel(logging.INFO)
        # What is refused is shown to those who ask for it, and not for that line's sake.
        if reject_logger.level == logging.NOTSET:
            reject_logger.setLevel(logging.WARNING)


# The application.

_NO_APPLICATION = object()


def _application(config: Config) -> Any:
    """Return the application; tell why there is none, and return what stands for that."""
    app_name = config.value("app")
    try:
        if app_name is None:
            raise AppResolutionError("Specify an application")
        app = resolve_wsgi_app(app_name, config.has("call"))
        if config.has("check_config") and not callable(app):
            raise AppResolutionError(f"'{app_name}' is not callable, but {app!r:.60}")
        return app
    except AppResolutionError as exc:
        source = "" if app_name is None else f" (from: {config.command['app'].source})"
        _failed(_one_line(exc) + source)
        show_exception(sys.stderr)
    except SystemExit as exc:
        # Who starts it may be told anything; who checks it, not that all is well.
        if not config.has("check_config"):
            raise
        _failed(f"'{app_name}' ends the process when it is imported, with status {exc.code!r}")
    # Whatever the user's module, or the factory in it, raises.
    except Exception as exc:  # noqa: BLE001
        _failed(f"{type(exc).__name__}: {_one_line(exc)}")
        show_exception(sys.stderr)
    return _NO_APPLICATION


# The server.


def _run_server(_serve: Callable[..., Any], app: Any, config: Config) -> int:
    kw = config.values()
    # What ends with serving, whatever ends it.
    with contextlib.ExitStack() as at_end:
        at_end.enter_context(_reopening_on_sighup(kw.get("access_log")))
        if _serve is serve or {"pid", "log_config"} & set(config.command):
            kw["_server"] = functools.partial(_make_server, at_end, config)
            # Where a file configures logging, serve() must not add to it, and so not tell.
            kw["_quiet"] = "log_config" in config.command
        try:
            status = _serve(app, **kw)
        # Refused settings; addresses that cannot be bound; threads that cannot be started.
        except (ValueError, TypeError, OSError, RuntimeError) as exc:
            if _passed_through_running_server(exc):
                raise
            return _failed(_why_not_served(exc, config))
    # What somebody's own stand-in returns is his affair.
    return status if isinstance(status, int) else 0


def _why_not_served(exc: Exception, config: Config) -> str:
    if not isinstance(exc, OSError):
        return config.with_sources(_one_line(exc))
    # Ours name the address or the file in words; the number would add nothing.
    return exc.strerror if exc.strerror and not exc.filename else _one_line(exc)


def _make_server(at_end: contextlib.ExitStack, config: Config, app: Any, **kw: Any) -> Any:
    """Make the server, and then do what is due when all is bound."""
    made = create_server(app, **kw)
    path = config.value("pid")
    if path is not None:
        pid_file = PidFile(path)
        try:
            pid_file.write()
        except BaseException:
            made.task_dispatcher.shutdown()
            made.close()
            raise
        at_end.callback(pid_file.remove)
    at_end.callback(dump_on_signal(made, made.adj.recent_requests))
    if "log_config" in config.command:
        made.print_listen("Serving on http://{}:{}")
    return made


@contextlib.contextmanager
def _reopening_on_sighup(access_log: str | None) -> Iterator[None]:
    """Have a SIGHUP open the access log's file anew; without a file, let it do what it did."""
    is_main = threading.current_thread() is threading.main_thread()
    if not access_log or access_log in ("-", "logging:") or not is_main or WIN:
        yield
        return
    # Here, not in the handler: an import takes a lock.
    from waitress.access_log import reopen_all
    from waitress.sd_notify import reloading

    def reopen(_number: int, _frame: FrameType | None) -> None:
        with reloading():
            reopen_all()

    before = signal.signal(signal.SIGHUP, reopen)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


def show_help(stream: TextIO, name: str, error: str | None = None) -> None:
    """Print the help text, and before it what went wrong.

    Args:
        stream: where to.
        name: what the program was called as.
        error: one line; none where help was asked for.
    """
    if error is not None:
        stream.write(f"Error: {error}\n\n")
    stream.write(HELP.format(name) + "\n")


def show_exception(stream: TextIO) -> None:
    """Print the traceback of the exception being handled, where the user's code raised it.

    It begins in the user's code. Nothing is printed where there is none in it: then the
    name of the application was wrong, not the application.
    """
    exc = sys.exc_info()[1]
    if isinstance(exc, AppResolutionError):
        exc = exc.__cause__
    if exc is None:
        return
    frames = _user_frames(exc.__traceback__)
    # Source that cannot be compiled raises before there is a frame of it.
    if frames is not None or isinstance(exc, SyntaxError):
        traceback.print_exception(type(exc), exc, frames, file=stream)


def _user_frames(frames: TracebackType | None) -> TracebackType | None:
    """Skip the frames above the user's code."""
    while frames is not None and _module_of(frames) in _IMPORT_MACHINERY:
        frames = frames.tb_next
    return frames


def _passed_through_running_server(exc: BaseException) -> bool:
    """Tell a defect of the running server from what kept it from running."""
    frames = exc.__traceback__
    while frames is not None:
        if frames.tb_frame.f_code is Running.run.__code__:
            return True
        frames = frames.tb_next
    return False


def _module_of(frames: TracebackType) -> str:
    return str(frames.tb_frame.f_globals.get("__name__"))


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
