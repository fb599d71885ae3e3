"""Tests wait for what they wait for, and not for some time."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import slowness

TESTS = Path(__file__).parent
_SLEEP = re.compile(r"\btime\.sleep\b|\bfrom time import [^\n]*\bsleep\b")


@pytest.mark.parametrize(
    "text", ["time.sleep(1)", "retry(time.sleep)", "from time import monotonic, sleep"]
)
def test_sleeping_is_recognised(text: str) -> None:
    assert _SLEEP.search(text)


def test_no_test_sleeps() -> None:
    """See tests/slowness.py."""
    files = [path for path in TESTS.rglob("*.py") if path != Path(__file__)]
    assert Path(slowness.__file__) in files
    assert [str(path) for path in files if _SLEEP.search(path.read_text("utf-8"))] == []
