"""Write the list of settings in arguments.rst from the table that declares them.

Run `python docs/write_arguments.py` after a change of waitress.settings.SETTINGS. A
test fails while the page and the table differ.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from waitress.settings import SETTINGS
from waitress.settings_schema import Section, Setting

PAGE = Path(__file__).parent / "arguments.rst"
BEGIN = ".. The list below is written by write_arguments.py; do not edit it here.\n"
END = "\n.. The list ends here.\n"

INTRODUCTIONS = {
    Section.STANDARD: "Where to listen, what to tell the application, whom to trust.",
    Section.TUNING: "Threads, buffers, limits, times. The defaults suit most servers.",
    Section.PYTHON: "What only a Python program can pass.",
}


def section(heading: Section) -> Iterator[str]:
    """Yield the paragraphs of the settings under *heading*."""
    yield f"{heading.value}\n{'-' * len(heading.value)}"
    yield INTRODUCTIONS[heading]
    for setting in SETTINGS:
        if setting.section is heading:
            yield entry(setting)


def entry(setting: Setting) -> str:
    """Return the description of one setting."""
    lines = [
        f".. confval:: {setting.name}",
        f"   :type: {as_rst(setting.check.text)}",
        f"   :default: {as_rst(setting.default_text)}",
        "",
        textwrap.indent(textwrap.fill(as_rst(setting.help), 94, break_long_words=False), "   "),
    ]
    if setting.section is not Section.PYTHON:
        lines += ["", f"   Option: ``{setting.option}``"]
    return "\n".join(lines)


def as_rst(text: str) -> str:
    """Escape *text*; link the settings it names, and set other identifiers as literals.

    A word without an underscore is a plain word, even where a setting is called the same.
    """
    names = {setting.name for setting in SETTINGS}

    def marked(match: re.Match[str]) -> str:
        word = match[0]
        if "_" not in word:
            return word
        return f":confval:`{word}`" if word in names else f"``{word}``"

    return re.sub(r"\w[\w.]*\w(?:\(\))?", marked, re.sub(r"([*`|\\])", r"\\\1", text))


def current(page: str) -> str:
    """Return *page* with the list of settings as the table has them now."""
    before, rest = page.split(BEGIN)
    after = rest.split(END)[1]
    listed = "\n\n\n".join("\n\n".join(section(heading)) for heading in Section)
    return f"{before}{BEGIN}\n{listed}\n{END}{after}"


if __name__ == "__main__":
    PAGE.write_text(current(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
