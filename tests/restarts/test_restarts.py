"""What clients notice of rolling restarts: behind HAProxy nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.restarts.backend import LARGE
from tests.restarts.harness import (
    DRAIN_DELAY,
    Backend,
    Outcome,
    free_ports,
    is_installed,
    read_slowly_through_a_stop,
    rolling_restarts,
)

pytestmark = [pytest.mark.restarts, pytest.mark.timeout(600)]

RESTARTS = 20
REQUESTS = 2000


def restarted(proxy: str, directory: Path) -> Outcome:
    if not is_installed(proxy):
        pytest.skip(f"{proxy} is not installed")
    outcome = rolling_restarts(proxy, directory, RESTARTS, DRAIN_DELAY)
    assert sum(outcome.requests.values()) >= REQUESTS
    assert outcome.exits == {0: RESTARTS}
    return outcome


def test_no_request_fails_behind_haproxy(tmp_path: Path) -> None:
    assert restarted("haproxy", tmp_path).failures == []


def test_no_request_that_may_be_repeated_fails_behind_nginx(tmp_path: Path) -> None:
    outcome = restarted("nginx", tmp_path)
    assert [each for each in outcome.failures if each[0] != "POST"] == []
    # A POST that crosses the end of an idle connection is nginx's to lose.
    assert outcome.failed["POST"] <= RESTARTS, outcome.failures


def test_slow_reader_gets_all_of_its_answer() -> None:
    (port,) = free_ports(1)
    backend = Backend(port, 0)
    try:
        body, status = read_slowly_through_a_stop(port, backend)
    finally:
        backend.end()
    assert body == LARGE
    assert status == 0
