"""What the declaration of a setting says, and the kinds of settings that come several times.

Row 4: imports ``compat`` and ``converters``.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from waitress.compat import MAXINT
from waitress.converters import asbool, asoctal, asseconds

__all__ = [
    "Check",
    "Section",
    "Setting",
    "anything",
    "count",
    "duration",
    "flag",
    "size",
    "whole_number",
]


class _str_marker(str):
    """A text default that can be told from the same text given by the user."""


class _int_marker(int):
    """A number default that can be told from the same number given by the user."""


class Section(enum.Enum):
    """Where the help and the manual show a setting; the value is the heading."""

    STANDARD = "Standard options"
    TUNING = "Tuning options"
    #: Settings whose values only a Python program can pass.
    PYTHON = "Python only"


@dataclass(frozen=True)
class Check:
    """What a setting's converted value may be.

    Args:
        text: what is allowed, as error messages and the manual say it.
        accepts: whether a value is allowed; pure.
    """

    text: str
    accepts: Callable[[Any], bool]


def anything(value: Any) -> bool:
    """Accept what the converter has made, whatever it is."""
    return True


@dataclass(frozen=True)
class Setting:
    """One setting, declared.

    Args:
        name: the keyword and attribute; with hyphens, the option.
        converter: makes the value from text or from a native value.
        default: the value where none is given.
        metavar: what stands for the value in the help; empty for a flag.
        help: one paragraph: what it does, what special values mean, what it works with.
        check: what a given value may be.
        unit: of a number, in the plural (``"bytes"``); otherwise empty.
        section: where help and manual show it.
        default_note: what holds by default where :attr:`default` does not tell it.
    """

    name: str
    converter: Callable[[Any], Any]
    default: Any
    metavar: str
    help: str
    check: Check = Check("any text", anything)
    unit: str = ""
    section: Section = Section.STANDARD
    default_note: str = ""

    @property
    def is_flag(self) -> bool:
        """Whether the option takes no value and has a ``--no-`` form."""
        return self.converter is asbool

    @property
    def option(self) -> str:
        """The option as the help shows it: ``--port=PORT``, ``--[no-]ipv4``."""
        name = self.name.replace("_", "-")
        return f"--[no-]{name}" if self.is_flag else f"--{name}={self.metavar}"

    @property
    def default_text(self) -> str:
        """The default in words, with its unit; never empty."""
        if self.default_note:
            return self.default_note
        if self.converter is asbool:
            return "on" if self.default else "off"
        if self.converter is asoctal:
            return format(self.default, "03o")
        if not self.default and not isinstance(self.default, int):
            return "none"
        if isinstance(self.default, list):
            return " ".join(self.default)
        unit = self.unit.removesuffix("s") if self.default == 1 else self.unit
        return f"{self.default} {unit}".rstrip()


def whole_number(lowest: int, highest: int = MAXINT) -> Check:
    """Return what accepts the numbers from the lowest to the highest."""
    limit = f"{lowest} or more" if highest == MAXINT else f"{lowest} to {highest}"
    return Check(f"a whole number, {limit}", lambda value: lowest <= value <= highest)


# The kinds of settings that come several times.


def flag(name: str, default: bool, help: str, section: Section = Section.TUNING) -> Setting:
    """Declare a setting that is on or off."""
    check = Check("true or false", anything)
    return Setting(name, asbool, default, "", help, check, section=section)


def count(
    name: str,
    default: int,
    unit: str,
    help: str,
    lowest: int = 0,
    highest: int = MAXINT,
    default_note: str = "",
) -> Setting:
    """Declare a whole number of something."""
    check = whole_number(lowest, highest)
    return Setting(name, int, default, "INT", help, check, unit, Section.TUNING, default_note)


def size(name: str, default: int, help: str, lowest: int = 0, highest: int = MAXINT) -> Setting:
    """Declare a whole number of bytes."""
    check = whole_number(lowest, highest)
    return Setting(name, int, default, "BYTES", help, check, "bytes", Section.TUNING)


def duration(
    name: str, default: float, help: str, zero: str = "no limit", longest: int = MAXINT
) -> Setting:
    """Declare a length of time, of which zero has a meaning of its own."""
    limit = "or more" if longest == MAXINT else f"to {longest}"
    check = Check(
        f"a number of seconds, 0 {limit} (0: {zero})",
        # An infinity is too large, and a NaN compares with nothing.
        lambda value: 0 <= value <= longest,
    )
    return Setting(name, asseconds, default, "SECONDS", help, check, "seconds", Section.TUNING)
