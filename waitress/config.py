"""What the command is to do, and who said so.

Four sources, each above the next: the words of the command line, those of the environment
variable ``WAITRESS_ARGS``, a TOML file that one of the two names, the defaults. The value
of a higher source replaces that of a lower one, lists too; a way to name the addresses
replaces all other ways. Reading never ends at the first mistake: each is one line of
:attr:`Config.problems`, which tells option, value, what is allowed, and the source.

Knows nothing of applications and servers. The library itself never reads any of this.

Row 7: imports ``command_line``, ``command_options``, ``converters``, ``settings``,
``settings_schema``, ``toml_file`` and ``validation``.
"""

from __future__ import annotations

import getopt
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from waitress.command_line import AppResolutionError, Meanings, read_options, setting_options
from waitress.command_options import COMMAND_OPTIONS, CommandOption
from waitress.converters import (
    as_trusted_proxy,
    asbool,
    aslist,
    asoctal,
    asseconds,
    asset,
    int_ifgiven,
)
from waitress.settings import SETTINGS
from waitress.settings_schema import Section, Setting
from waitress.toml_file import read_toml
from waitress.validation import check_setting

__all__ = ["VARIABLE", "Config", "Given", "load", "printed", "refusal"]

#: The one environment variable. A variable for each option would collide with those that
#: container platforms set for a service called waitress (WAITRESS_PORT, for instance).
VARIABLE = "WAITRESS_ARGS"

COMMAND_LINE = "command line"
ENVIRONMENT = f"environment {VARIABLE}"

#: What a value of one source takes the place of, in the sources below it.
_RIVALS = {
    "host": {"listen", "unix_socket"},
    "port": {"listen", "unix_socket"},
    "listen": {"host", "port", "unix_socket"},
    "unix_socket": {"host", "port", "listen"},
    "log_config": {"log_format"},
    "log_format": {"log_config"},
    # How to get at an application says nothing about another one.
    "app": {"call"},
}

_SETTINGS = {setting.name: setting for setting in SETTINGS if setting.section != Section.PYTHON}
_PYTHON_ONLY = {setting.name for setting in SETTINGS} - set(_SETTINGS)
_COMMANDS = {option.name: option for option in COMMAND_OPTIONS}

#: The converters of settings that a file may give a number, or a list of texts. Of a
#: number in place of octal digits the converter itself tells what is wrong.
_OF_WHOLE = (int, int_ifgiven, asseconds, asoctal)
_OF_LISTS = (aslist, asset, as_trusted_proxy)


@dataclass(frozen=True)
class Given:
    """A value, text or native, and the source that it comes from."""

    value: Any
    source: str


@dataclass
class Config:
    """All that was given, by name: for the server, and for the command itself.

    ``problems`` has one line for each mistake; where it is empty all values are allowed,
    each by itself.
    """

    settings: dict[str, Given] = field(default_factory=dict)
    command: dict[str, Given] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def value(self, name: str) -> Any:
        """Return what was given for an option of the command; ``None`` where nothing was."""
        given = self.command.get(name)
        return None if given is None else given.value

    def has(self, name: str) -> bool:
        """Say whether a flag of the command is set."""
        return asbool(self.value(name))

    def values(self) -> dict[str, Any]:
        """Return the settings as the server takes them."""
        return {name: given.value for name, given in self.settings.items()}

    def with_sources(self, text: str) -> str:
        """Append to a message where the settings come from that it names."""
        named = [name for name in self.settings if re.search(rf"\b{name}\b", text)]
        sources = {name: self.settings[name].source for name in named}
        if len(set(sources.values())) <= 1:
            return _with_source(text, *set(sources.values()))
        told = ", ".join(f"{name} from {source}" for name, source in sources.items())
        return f"{text} ({told})"


def load(argv: Sequence[str], environ: Mapping[str, str]) -> Config:
    """Read all sources.

    Args:
        argv: the words of the command line, without the program's name.
        environ: the environment.
    """
    config = Config()
    layers = [_from_words(argv, COMMAND_LINE, config.problems)]
    if not layers[0].keys() & {"help", "version"}:
        layers.append(_from_environment(environ, config.problems))
        path = next((layer["config"] for layer in layers if "config" in layer), None)
        if path is not None:
            layers.append(_from_file(path, config.problems))
    for name, given in _merged(layers).items():
        (config.settings if name in _SETTINGS else config.command)[name] = given
    config.problems += _refused(config)
    return config


def refusal(reason: object, name: str, given: Given) -> str:
    """Tell in one line why the value of an option of the command is refused."""
    allowed = _COMMANDS[name].allowed
    return f"{reason} ({name}={given.value!r}; allowed: {allowed}; from: {given.source})"


def _merged(layers: Iterable[Mapping[str, Given]]) -> dict[str, Given]:
    merged: dict[str, Given] = {}
    for layer in layers:
        taken = set(merged).union(*(_RIVALS.get(name, ()) for name in merged))
        merged.update((name, given) for name, given in layer.items() if name not in taken)
    return merged


def _refused(config: Config) -> Iterator[str]:
    for name, given in config.settings.items():
        try:
            check_setting(_SETTINGS[name], given.value)
        except (TypeError, ValueError) as error:
            yield _with_source(_in_one_line(error), given.source)
    for name, given in config.command.items():
        try:
            _COMMANDS[name].check(given.value)
        except ValueError as error:
            yield refusal(error, name, given)
    if {"log_config", "log_format"} <= set(config.command):
        source = config.command["log_format"].source
        yield f"log_format has no meaning with log_config (from: {source})"


def _with_source(text: str, source: str = "") -> str:
    if not source:
        return text
    if text.endswith(")"):
        return f"{text[:-1]}; from: {source})"
    return f"{text} (from: {source})"


def _in_one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


# Words, of the command line and of the environment.


def _meanings() -> Meanings:
    meanings = setting_options((name, setting.converter) for name, setting in _SETTINGS.items())
    for option in COMMAND_OPTIONS:
        name = option.name.replace("_", "-")
        meanings[name] = (option.name, None if option.metavar else "true")
        if option.negatable:
            meanings[f"no-{name}"] = (option.name, "false")
    return meanings


def _from_words(words: Sequence[str], source: str, problems: list[str]) -> dict[str, Given]:
    meanings = _meanings()
    try:
        given = read_options(words, meanings)
    except getopt.GetoptError as error:
        hint = _suggestion(error.opt, meanings, "--") if "recognized" in error.msg else ""
        problems.append(f"{error.msg}{hint} (from: {source}; --help lists all)")
        return {}
    except AppResolutionError as error:
        problems.append(f"{error} (from: {source})")
        return {}
    return {name: Given(value, source) for name, value in given.items()}


def _from_environment(environ: Mapping[str, str], problems: list[str]) -> dict[str, Given]:
    text = environ.get(VARIABLE, "")
    if not text.strip():
        return {}
    # Few have the variable; the others need not carry it in memory.
    import shlex

    try:
        words = shlex.split(text)
    except ValueError as error:
        problems.append(f"cannot read {VARIABLE}: {error} (from: environment)")
        return {}
    return _from_words(words, ENVIRONMENT, problems)


def _suggestion(name: str, names: Iterable[str], prefix: str = "") -> str:
    # Only after a mistake.
    import difflib

    close = difflib.get_close_matches(name, list(names), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""


# The file.


def _from_file(path: Given, problems: list[str]) -> dict[str, Given]:
    try:
        table, text = read_toml(path.value)
    except OSError as error:
        problems.append(_unreadable(path, error.strerror))
        return {}
    except ValueError as error:
        problems.append(_unreadable(path, error))
        return {}
    found: dict[str, Given] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        source = f"file {path.value}{_line_of(key, text)}"
        problem = _misplaced(key, name, value, found) or _unnatural(name, value)
        if problem:
            problems.append(_with_source(problem, source))
        else:
            found[name] = Given(_settled(name, value), source)
    return found


def _unreadable(path: Given, reason: object) -> str:
    text = f"cannot read the configuration file (config={path.value!r}: {reason})"
    return _with_source(text, path.source)


def _line_of(key: str, text: str) -> str:
    """Return ``:LINE`` for a key of the top level; the reader does not tell it."""
    quoted = rf"""^[ \t]*\[?[ \t]*["']?{re.escape(key)}["']?[ \t]*[=.\]]"""
    found = re.search(quoted, text, re.M)
    return f":{text.count(chr(10), 0, found.start()) + 1}" if found else ""


def _misplaced(key: str, name: str, value: Any, found: Mapping[str, Given]) -> str:
    """Tell why a key cannot stand in a file at all."""
    command = _COMMANDS.get(name)
    if command is not None and not command.in_file:
        return f"{key} cannot be set in a file, only on the command line"
    if name in _PYTHON_ONLY:
        return f"{key} can be set by a Python program only"
    if command is None and name not in _SETTINGS:
        if isinstance(value, dict):
            return f"unknown table [{key}]: options stand at the top level"
        known = [*_SETTINGS, *(name for name, option in _COMMANDS.items() if option.in_file)]
        return f"unknown key {key!r}{_suggestion(name, known)}"
    if name in found:
        return f"{name} is set twice, with a hyphen and with an underscore"
    return ""


def _unnatural(name: str, value: Any) -> str:
    """Tell why a value is of a kind that the option cannot be."""
    if _is_of_kind(_SETTINGS.get(name) or _COMMANDS[name], value):
        return ""
    allowed = _SETTINGS[name].check.text if name in _SETTINGS else _COMMANDS[name].allowed
    kind = _KINDS.get(type(value), type(value).__name__)
    return f"{kind} is not allowed here ({name}={value!r}; allowed: {allowed})"


_KINDS = {
    bool: "true or false",
    int: "a number",
    float: "a fraction",
    str: "a text",
    list: "a list",
    dict: "a table",
}


def _is_of_kind(option: Setting | CommandOption, value: Any) -> bool:
    if isinstance(option, CommandOption):
        wants: type | tuple[type, ...] = str if option.metavar else bool
        is_number = option.name == "log_level" and type(value) is int
        return isinstance(value, wants) or is_number
    converter = option.converter
    if option.is_flag or isinstance(value, bool):
        return option.is_flag and isinstance(value, bool)
    if isinstance(value, list):
        return converter in _OF_LISTS and all(isinstance(item, str) for item in value)
    if isinstance(value, float):
        return converter is asseconds
    if isinstance(value, int):
        return converter in _OF_WHOLE
    return isinstance(value, str)


def _settled(name: str, value: Any) -> Any:
    """Return a flag of the command as the command line gives it."""
    return str(value).lower() if name in _COMMANDS and isinstance(value, bool) else value


# Showing it.


def printed(config: Config) -> Iterator[str]:
    """Yield lines that tell each option, its value, and where it comes from.

    Each is ``name = value  # source``, in TOML, and behind a ``#`` where the value is the
    default; so that a program can read them, and the command as its file.
    """
    for option in COMMAND_OPTIONS:
        if option.in_file:
            given = config.command.get(option.name)
            yield _line(option.name, given, _shown_command(option, given))
    for setting in _SETTINGS.values():
        given = config.settings.get(setting.name)
        yield _line(setting.name, given, _shown_setting(setting, given), setting.default_note)


def _line(name: str, given: Given | None, shown: str, note: str = "") -> str:
    if given is not None:
        return f"{name} = {shown}  # {given.source}"
    return f"#{name} = {shown}  # default{f' ({note})' if note else ''}"


def _shown_command(option: CommandOption, given: Given | None) -> str:
    if not option.metavar:
        return _toml(given is not None and asbool(given.value))
    return _toml("" if given is None else given.value)


def _shown_setting(setting: Setting, given: Given | None) -> str:
    value = setting.default if given is None else check_setting(setting, given.value)
    # Its number means something else in every base but one.
    return _toml(format(value, "03o") if setting.converter is asoctal else value)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, (set, frozenset)):
        return _toml(sorted(value))
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_toml, value))}]"
    # A text of JSON is one of TOML, but for the last control character.
    return json.dumps(str(value or ""), ensure_ascii=False).replace("\x7f", "\\u007f")
