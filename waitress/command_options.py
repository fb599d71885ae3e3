"""The options of the command that are no settings of the server, declared.

Owns :data:`COMMAND_OPTIONS`, to the command what the table of settings is to the server:
names, help and checks come from it.

Row 2: imports ``log_options``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from waitress.log_options import LEVELS, check_format, level_number

__all__ = ["COMMAND_OPTIONS", "CommandOption", "Group"]


class Group(enum.Enum):
    """Where the help shows an option; the value is the heading."""

    #: Together with the server's own under this heading.
    STANDARD = "Standard options"
    CONFIGURATION = "Configuration options"
    LOGGING = "Logging options"


@dataclass(frozen=True)
class CommandOption:
    """One option.

    Args:
        name: in a configuration file; with hyphens, the option.
        metavar: what stands for the value; empty for a flag.
        help: one paragraph.
        group: where the help shows it.
        in_file: whether a configuration file may give it.
        check: raises ValueError for a value that is not allowed.
        allowed: what is, in words.
        negatable: of a flag, whether it has a ``--no-`` form.
    """

    name: str
    metavar: str
    help: str
    group: Group = Group.STANDARD
    in_file: bool = True
    check: Callable[[Any], Any] = str
    allowed: str = "any text"
    negatable: bool = False

    @property
    def option(self) -> str:
        """The option as the help shows it: ``--pid=FILE``, ``--[no-]call``."""
        name = self.name.replace("_", "-")
        if self.metavar:
            return f"--{name}={self.metavar}"
        return f"--[no-]{name}" if self.negatable else f"--{name}"


#: Every option, in the order in which the help tells of them.
COMMAND_OPTIONS: tuple[CommandOption, ...] = (
    CommandOption("help", "", "Show this text and exit.", in_file=False),
    CommandOption("version", "", "Show the version and exit.", in_file=False),
    CommandOption(
        "app",
        "MODULE:OBJECT",
        "The application to serve, which may also be named as the only argument after the "
        "options: the module to import, a colon, and the object in it, with dots in either.",
        allowed="MODULE:OBJECT, with dots in either",
    ),
    CommandOption(
        "call",
        "",
        "The object is a factory: call it, without arguments, to get the application.",
        negatable=True,
        allowed="true or false",
    ),
    CommandOption(
        "config",
        "FILE",
        "Take options from this TOML file: name = value, with underscores or hyphens in the names "
        "and lists for what may be repeated. Needs Python 3.11 or newer.",
        Group.CONFIGURATION,
        in_file=False,
    ),
    CommandOption(
        "check_config",
        "",
        "Read all options, configure logging, import the application, and say ok, or what is "
        "wrong in one line for each problem. Nothing is listened to.",
        Group.CONFIGURATION,
        in_file=False,
    ),
    CommandOption(
        "no_app",
        "",
        "With --check-config: do not import the application.",
        Group.CONFIGURATION,
        in_file=False,
    ),
    CommandOption(
        "print_config",
        "",
        "Show each option, its value, and where the value comes from, and exit. The text can be "
        "used as a configuration file: what is the default stands in comments.",
        Group.CONFIGURATION,
        in_file=False,
    ),
    CommandOption(
        "pid",
        "FILE",
        "Write the number of the process to this file when all addresses are bound; remove it at "
        "the end, if it is still that of this process.",
        Group.CONFIGURATION,
        allowed="the path of a file that can be written",
    ),
    CommandOption(
        "log_level",
        "LEVEL",
        "Show what the server logs at this level and above: debug, info, warning, error, critical "
        "or a number. Default: info, but for what is refused (waitress.reject), which is shown "
        "from warning on; with a level given here that holds for all.",
        Group.LOGGING,
        check=level_number,
        allowed=f"{', '.join(LEVELS)}, or a whole number, 1 or more",
    ),
    CommandOption(
        "log_format",
        "FORMAT",
        "How a line of the log looks, in the manner of Python's logging: "
        "'%(asctime)s %(levelname)s %(message)s'. Not together with log-config.",
        Group.LOGGING,
        check=check_format,
        allowed="a text with %(...)s for the attributes of a log record",
    ),
    CommandOption(
        "log_config",
        "FILE",
        "Configure logging from this file, as Python's logging.config does: .ini for fileConfig, "
        ".json or .toml for dictConfig. Loggers that it does not name stay as they are.",
        Group.LOGGING,
        allowed="a file whose name ends in .ini, .json or .toml",
    ),
)
