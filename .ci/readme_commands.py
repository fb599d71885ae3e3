"""Print one of the commands of README.rst: its literal blocks, counted from 1.

Usage: python readme_commands.py README.rst NUMBER
"""

from __future__ import annotations

import sys
from pathlib import Path


def literal_blocks(text: str) -> list[str]:
    """Return the literal blocks of *text* in order, without their indentation."""
    blocks: list[list[str]] = []
    inside = False
    after_colons = False
    for line in text.splitlines():
        if inside and (line.startswith(" ") or not line.strip()):
            blocks[-1].append(line.strip())
        elif after_colons and line.startswith(" "):
            inside = True
            blocks.append([line.strip()])
        else:
            inside = False
        if line.strip():
            after_colons = not inside and line.rstrip().endswith("::")
    return ["\n".join(block).strip() for block in blocks]


def main(path: str, number: str) -> None:
    print(literal_blocks(Path(path).read_text(encoding="utf-8"))[int(number) - 1])


if __name__ == "__main__":
    main(*sys.argv[1:])
