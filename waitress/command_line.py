"""What a command line says: options, and the application that is named behind them.

Knows of a setting no more than its name and whether it is a flag.

Row 4: imports ``converters``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from waitress.converters import asbool

__all__ = [
    "AppResolutionError",
    "Meanings",
    "only_app",
    "read_options",
    "resolve_wsgi_app",
    "setting_options",
]


class AppResolutionError(Exception):
    """No application was named, or the named one cannot be found or imported."""


#: What a long option gives: the name of a setting, and the text that a flag stands for.
Meanings = dict[str, tuple[str, str | None]]


def setting_options(params: Iterable[tuple[str, Callable[[Any], Any]]]) -> Meanings:
    """Map each long option to its setting, and a flag to the text it stands for."""
    options: Meanings = {}
    for name, converter in params:
        option = name.replace("_", "-")
        if converter is asbool:
            options[option] = (name, "true")
            options[f"no-{option}"] = (name, "false")
        else:
            options[option] = (name, None)
    return options


def read_options(argv: Sequence[str], meanings: Meanings) -> dict[str, str]:
    """Read the words of a command line.

    Args:
        argv: the words, without the program's name.
        meanings: of the options.

    Returns:
        The values by name, as text. What follows the options is the application's name,
        ``"app"``.

    Raises:
        getopt.GetoptError: an option is unknown, or has or lacks a value.
        AppResolutionError: more than one application is named.
    """
    # Those who start a server in a program need not carry these two in memory.
    import getopt

    # In the notation of getopt "=" demands a value.
    options = [f"{option}=" if flag is None else option for option, (_, flag) in meanings.items()]
    found, names = getopt.getopt(list(argv), "", options)
    given: dict[str, str] = {}
    for option, value in found:
        name, flag = meanings[option[2:]]
        if name == "listen":
            given[name] = f"{given.get(name, '')} {value}"
        else:
            given[name] = value if flag is None else flag
    if "app" in given:
        names.insert(0, given["app"])
    if len(names) > 1 and "help" not in given:
        raise AppResolutionError("Provide only one WSGI app")
    if names:
        given["app"] = names[0]
    return given


def only_app(app_name: str | None) -> str:
    """Return the name of the application, of which there must be one."""
    if app_name is None:
        raise AppResolutionError("Specify an application")
    return app_name


def resolve_wsgi_app(app_name: str, call: bool = False) -> Any:
    """Find an application by its name, importing what is needed.

    Args:
        app_name: ``package.module:object.attribute``, or all with dots as
            :func:`pkgutil.resolve_name` reads it.
        call: the name is that of a factory: call it, and take what it returns.

    Raises:
        AppResolutionError: the name is malformed, or there is nothing of that name.
        Exception: any other that the module raises while it is imported, and all that
            the factory raises.
    """
    import pkgutil

    try:
        app = pkgutil.resolve_name(app_name)
    except (ValueError, ImportError, AttributeError) as exc:
        raise AppResolutionError(f"Cannot import WSGI application '{app_name}': {exc}") from exc
    return app() if call else app
