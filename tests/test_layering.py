"""Imports point strictly downwards: from a row to rows below it, never sideways or up.

The rows are the table of docs/design.rst. An import counts wherever it stands, inside a
function or under TYPE_CHECKING too: both are ways to hide a cycle, not to avoid it.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "waitress"


def documented_rows() -> tuple[tuple[str, ...], ...]:
    """Return the rows of the table in docs/design.rst."""
    text = (ROOT / "docs" / "design.rst").read_text(encoding="utf-8")
    rows = re.findall(r"^   \* - (\d+)\n     - (.+)$", text, re.M)
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    return tuple(tuple(re.findall(r"``(\w+)``", cell)) for _, cell in rows)


ROWS = documented_rows()
ROW_OF = {module: number for number, row in enumerate(ROWS) for module in row}

# Modules that may not know of I/O, threads or the time: all they need is handed to them.
PURE = ("rfc7230", "peers", "proxy_protocol", "receiver", "response", "parser", "environ")
IMPURE = {"socket", "select", "selectors", "threading", "time"}


def modules() -> list[str]:
    return sorted(path.stem for path in PACKAGE.glob("*.py"))


def imported(tree: ast.AST) -> Iterator[str]:
    """Yield the module names that the imports of *tree* load, absolute and dotted."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                base = f"waitress.{base}".rstrip(".")
            for alias in node.names:
                # "from package import name" may name a submodule or an attribute.
                yield f"{base}.{alias.name}" if base == "waitress" else base


def own_imports(tree: ast.AST) -> set[str]:
    """Return the modules of the package that *tree* imports, by their short names."""
    found = set()
    for name in imported(tree):
        package, _, rest = name.partition(".")
        if package == "waitress":
            short = rest.partition(".")[0]
            found.add(short if short in ROW_OF else "__init__")
    return found


def parse(module: str) -> ast.Module:
    return ast.parse((PACKAGE / f"{module}.py").read_text(encoding="utf-8"))


def test_every_module_has_one_row() -> None:
    names = [name for row in ROWS for name in row]
    assert len(names) == len(set(names))
    assert sorted(names) == modules()


def test_the_table_of_what_they_do_names_every_module_once() -> None:
    text = (ROOT / "docs" / "design.rst").read_text(encoding="utf-8")
    table = text.split("Which module does what\n")[1].split("Rows of modules\n")[0]
    cells = re.findall(r"^     - (.+)$", table, re.M)
    assert sorted(name for cell in cells for name in re.findall(r"``(\w+)``", cell)) == modules()


@pytest.mark.parametrize("module", modules())
def test_imports_point_downwards(module: str) -> None:
    row = ROW_OF[module]
    upward = sorted(name for name in own_imports(parse(module)) if ROW_OF[name] >= row)
    assert not upward, f"{module} (row {row}) imports {upward}"


@pytest.mark.parametrize("module", modules())
def test_the_docstring_tells_the_row(module: str) -> None:
    told = re.search(r"^Row (\d+)\b", ast.get_docstring(parse(module)) or "", re.M)
    assert told is not None
    assert int(told[1]) == ROW_OF[module]


@pytest.mark.parametrize("module", modules())
def test_only_the_standard_library_is_imported_beside_the_package(module: str) -> None:
    """Requirement R1: no dependencies."""
    others = {name.partition(".")[0] for name in imported(parse(module))} - {"waitress"}
    assert others <= set(sys.stdlib_module_names)


@pytest.mark.parametrize("module", PURE)
def test_pure_modules_know_neither_sockets_nor_threads_nor_time(module: str) -> None:
    names = {name.partition(".")[0] for name in imported(parse(module))}
    assert not names & IMPURE


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("import waitress.server", {"server"}),
        ("from waitress import wasyncore, trigger", {"wasyncore", "trigger"}),
        ("from waitress.task import Task", {"task"}),
        ("from . import parser", {"parser"}),
        ("from .buffers import OverflowableBuffer", {"buffers"}),
        ("from waitress import serve", {"__init__"}),
        ("import waitress", {"__init__"}),
        ("def f():\n    from waitress.channel import HTTPChannel", {"channel"}),
        ("import socket", set()),
    ],
)
def test_each_way_to_import_is_seen(line: str, expected: set[str]) -> None:
    assert own_imports(ast.parse(line)) == expected
