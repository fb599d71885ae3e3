"""The command line: ``waitress-serve`` and ``python -m waitress``.

Owns the help text, which is made from the table of settings, and the way in which what
went wrong is told: one line that begins with ``Error:``, and a status other than zero. A
traceback is for mistakes in a program, so it is shown where the user's own module, or
the factory in it, raised.

Row 10: imports ``serve`` of the package, ``adjustments``, ``rejects`` and ``utilities``.
"""

from __future__ import annotations

import getopt
import logging
import os
import re
import sys
import textwrap
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType
from typing import Any, TextIO

from waitress import serve
from waitress.adjustments import SETTINGS, Adjustments, AppResolutionError, Section
from waitress.rejects import reject_logger
from waitress.utilities import logger

__all__ = ["HELP", "run", "show_exception", "show_help"]

_GENERAL_OPTIONS = (
    ("--help", "Show this text and exit."),
    (
        "--app=MODULE:OBJECT",
        "The application to serve, which may also be named as the only argument after the "
        "options: the module to import, a colon, and the object in it, with dots in either.",
    ),
    ("--call", "The object is a factory: call it, without arguments, to get the application."),
)

# The machinery of imports, and what of ours calls it. An exception that has passed
# through no other module does not come from the user's code.
_IMPORT_MACHINERY = {
    "waitress.runner",
    "waitress.adjustments",
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
            f"{Section.STANDARD.value}:\n",
            *(_entry(option, text) for option, text in _GENERAL_OPTIONS),
            *_setting_entries(Section.STANDARD),
            f"{Section.TUNING.value}:\n",
            *_setting_entries(Section.TUNING),
        ]
    )


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
        What the process is to exit with: 0 when serving, or showing the help, came to its
        end; 1 when it could not begin, which is told on standard error; 3 when requests
        were cut at the end.
    """
    # At the end, so that no file that happens to lie here hides an installed module.
    sys.path.append(os.getcwd())
    name = os.path.basename(argv[0])
    try:
        kw = Adjustments.parse_args(argv[1:])
    except getopt.GetoptError as exc:
        show_help(sys.stderr, name, str(exc))
        return 1
    except AppResolutionError as exc:
        show_help(sys.stderr, name, _one_line(exc))
        show_exception(sys.stderr)
        return 1
    # Whatever the user's module, or the factory in it, raises.
    except Exception as exc:  # noqa: BLE001
        sys.stderr.write(f"Error: {type(exc).__name__}: {_one_line(exc)}\n")
        show_exception(sys.stderr)
        return 1
    app = kw.pop("app")
    if kw.pop("help"):
        show_help(sys.stdout, name)
        return 0
    # So that the line that tells where it serves is seen, unless somebody knows better.
    if logger.level == logging.NOTSET:
        logger.setLevel(logging.INFO)
        # What is refused is shown to those who ask for it, and not for that line's sake.
        if reject_logger.level == logging.NOTSET:
            reject_logger.setLevel(logging.WARNING)
    return _run_server(_serve, app, kw)


def _run_server(_serve: Callable[..., Any], app: Any, kw: dict[str, Any]) -> int:
    try:
        status = _serve(app, **kw)
    # Refused settings; addresses that cannot be bound; threads that cannot be started.
    except (ValueError, TypeError, OSError, RuntimeError) as exc:
        if _passed_through_running_server(exc):
            raise
        sys.stderr.write(f"Error: {_one_line(exc)}\n")
        return 1
    # What somebody's own stand-in returns is his affair.
    return status if isinstance(status, int) else 0


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
        if (_module_of(frames), frames.tb_frame.f_code.co_name) == ("waitress.server", "run"):
            return True
        frames = frames.tb_next
    return False


def _module_of(frames: TracebackType) -> str:
    return str(frames.tb_frame.f_globals.get("__name__"))


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split())
