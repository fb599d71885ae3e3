"""``python -m tests.restarts [RESTARTS [DRAIN_DELAY]]``: restart, and print what clients met."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.restarts.backend import LARGE
from tests.restarts.harness import (
    DRAIN_DELAY,
    Backend,
    free_ports,
    is_installed,
    read_slowly_through_a_stop,
    rolling_restarts,
)


def main(restarts: str = "20", drain_delay: str = str(DRAIN_DELAY)) -> int:
    """Run everything; return 1 when something failed that must not."""
    failed = False
    for name in ("haproxy", "nginx"):
        if not is_installed(name):
            print(f"{name}: not installed")
            continue
        with tempfile.TemporaryDirectory() as directory:
            outcome = rolling_restarts(name, Path(directory), int(restarts), float(drain_delay))
        asked, lost = outcome.requests, outcome.failed
        print(
            f"{name}: {outcome.exits.total()} restarts in {outcome.seconds:.0f} s, "
            f"drain_delay {drain_delay} s, {asked.total()} requests, {lost.total()} failed"
        )
        for method in sorted(asked):
            print(f"    {method:5} {asked[method]:6} requests, {lost[method]} failed")
        for method, problem in outcome.failures[:10]:
            print(f"    {method}: {problem}")
        print(f"    exit statuses of the servers: {dict(outcome.exits)}", flush=True)
        must_not = (
            outcome.failures
            if name == "haproxy"
            else [each for each in outcome.failures if each[0] != "POST"]
        )
        failed = failed or bool(must_not) or set(outcome.exits) != {0}
    (port,) = free_ports(1)
    backend = Backend(port, 0)
    try:
        body, status = read_slowly_through_a_stop(port, backend)
    finally:
        backend.end()
    print(f"slow reader: {len(body)} of {len(LARGE)} bytes, exit status {status}")
    return int(failed or body != LARGE or status != 0)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
