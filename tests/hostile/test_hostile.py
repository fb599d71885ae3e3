"""Every figure of every scenario is within its bounds."""

from __future__ import annotations

import os

import pytest

from tests.hostile.scenarios import SCENARIOS

pytestmark = [
    pytest.mark.hostile,
    # Far above what any takes: a busy machine is no fault of the server's.
    pytest.mark.timeout(300),
    pytest.mark.skipif(
        not os.path.exists("/proc/self/smaps_rollup"), reason="costs are read from Linux's /proc"
    ),
]


@pytest.mark.parametrize("name", SCENARIOS)
def test_hostile_clients_are_borne(name: str, no_leaks: None) -> None:
    figures = SCENARIOS[name]()
    print(*figures, sep="\n")
    assert not [str(figure) for figure in figures if not figure.holds]
