"""No pattern that reads what clients send backtracks, whatever they send."""

from __future__ import annotations

import re

import pytest

from tests.feeding import assert_linear
from waitress import parser, proxy_headers, receiver, rfc7230, utilities

PATTERNS = {
    f"{module.__name__}.{name}": value
    for module in (parser, proxy_headers, receiver, rfc7230, utilities)
    for name, value in sorted(vars(module).items())
    if isinstance(value, re.Pattern)
}

#: What is repeated, and what stands behind it so that nothing matches as a whole.
REPEATED = [
    "a",
    " ",
    "\t",
    "1",
    ".",
    ":",
    ";",
    ",",
    "%",
    '"',
    "\\",
    "=",
    "a ",
    "a,",
    "a=",
    '";',
    "%4",
]


def test_patterns_are_found():
    assert len(PATTERNS) > 20


@pytest.mark.parametrize("repeated", REPEATED)
@pytest.mark.parametrize("name", PATTERNS)
def test_pattern_takes_linear_time(name, repeated):
    pattern = PATTERNS[name]

    def work(n):
        for text in (repeated * n + "\x00", "a:" + repeated * n + "\x00", '"' + repeated * n):
            subject = text if isinstance(pattern.pattern, str) else text.encode("latin-1")
            pattern.match(subject)
            pattern.fullmatch(subject)

    assert_linear(work, 2000)
