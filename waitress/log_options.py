"""Logging, as the command line asks for it: a level, a format, or a file that says all.

Nothing here runs, or is imported, unless the command asks: whoever uses the package as a
library configures logging as they like.

Row 1: imports ``toml_file``.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

from waitress.toml_file import read_toml

__all__ = ["LEVELS", "check_format", "configure_from", "level_number"]

#: The names of levels; a number is a level as well.
LEVELS = ("debug", "info", "warning", "error", "critical")


def level_number(text: str | int) -> int:
    """Return the level that a name, in any case, or a number means.

    Raises:
        ValueError: none.
    """
    word = str(text).strip()
    if word.lower() in LEVELS:
        return int(getattr(logging, word.upper()))
    if word.isdecimal() and word.isascii() and int(word) > 0:
        return int(word)
    raise ValueError("there is no such level")


def check_format(text: str) -> str:
    """Return a format for log lines, in the manner of ``%(message)s``, if it is one.

    Raises:
        ValueError: it is malformed, or names what no record has.
    """
    record = logging.LogRecord("waitress", logging.INFO, "", 0, "", (), None)
    try:
        logging.Formatter(text).format(record)
    except (TypeError, ValueError) as error:
        raise ValueError(str(error)) from error
    return text


def configure_from(path: str) -> None:
    """Configure logging as a file says; its name ends in .ini, .json or .toml.

    Loggers that exist and that the file does not name stay as they are, unless it says
    otherwise.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file does not say what :mod:`logging.config` can do.
    """
    # It brings a server of its own along, which costs memory.
    import logging.config

    ending = os.path.splitext(path)[1].lower()
    try:
        if ending == ".ini":
            with open(path, encoding="utf-8") as file:
                logging.config.fileConfig(file, disable_existing_loggers=False)
        else:
            table = _table(path, ending)
            # The loggers of the package exist already.
            table.setdefault("disable_existing_loggers", False)
            logging.config.dictConfig(table)
    except OSError as error:
        if error.filename == path:
            raise
        raise ValueError(_in_one_line(error)) from error
    # A class that the file names may raise anything.
    except Exception as error:
        raise ValueError(_in_one_line(error)) from error


def _table(path: str, ending: str) -> dict[str, Any]:
    if ending == ".toml":
        return read_toml(path)[0]
    if ending != ".json":
        raise ValueError("the name of the file must end in .ini, .json or .toml")
    with open(path, encoding="utf-8") as file:
        table = json.load(file)
    if not isinstance(table, dict):
        raise ValueError("the file must hold one object")
    return table


def _in_one_line(error: BaseException) -> str:
    """Tell an error and what it came from; those of logging.config alone tell little."""
    texts = []
    cause: BaseException | None = error
    while cause is not None:
        text = str(cause) if type(cause) is ValueError else f"{type(cause).__name__}: {cause}"
        texts.append(text)
        cause = cause.__cause__
    return ": ".join(texts)
