"""No memory left: the request that takes it all fails, the others do not."""

from __future__ import annotations

import os

import pytest

from tests.faults.processes import faulty

pytestmark = [
    pytest.mark.faults,
    pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="Linux enforces the limit"),
]

LIMIT = 1024 * 1024 * 1024


def test_application_that_exhausts_memory_is_answered_500_and_the_others_served(
    no_leaks: None,
) -> None:
    with faulty(limits={"RLIMIT_AS": LIMIT}, threads=1) as server:
        for _ in range(3):
            with server.connect() as beside:
                assert beside.get("/beside").body == b"/beside"
                assert server.ask("/memory").status == 500
                assert beside.get("/beside").body == b"/beside"
        assert server.logged("Exception while serving /memory") == 3
        assert server.logged("MemoryError") == 3
