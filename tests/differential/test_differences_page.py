"""Each deliberate difference is a row of docs/differences.rst, and each such row is true."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.differential.test_differential import TABLE
from tests.differential.test_settings import ROWS as SETTINGS

pytestmark = pytest.mark.differential

PAGE = Path(__file__).parents[2] / "docs" / "differences.rst"
USED = {name for row in TABLE for name in row.because} | {row.because for row in SETTINGS} - {""}


def documented() -> set[str]:
    """The names of the page's rows: the first cell of each."""
    return set(re.findall(r"(?m)^ +\* - ``([\w-]+)``$", PAGE.read_text(encoding="utf-8")))


def test_every_difference_found_here_is_documented():
    assert sorted(USED - documented()) == []


def test_every_documented_difference_on_the_wire_is_found_here():
    on_the_wire = {name for name in documented() if re.match(r"[A-Z]+[0-9]+-", name)}
    assert sorted(on_the_wire - USED) == []
