"""The command: play scenarios, and print the figures of each."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
import traceback

from tests.hostile.scenarios import SCENARIOS, summary


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="SCENARIO", help="by default all")
    parser.add_argument("--list", action="store_true", help="print the names, and what they do")
    options = parser.parse_args(argv)
    if unknown := set(options.names) - SCENARIOS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; see --list")
    if options.list:
        for name in SCENARIOS:
            print(f"{name:<32} {summary(name)}")
        return 0
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}, Python {sys.version}")
    missed = 0
    for name in options.names or SCENARIOS:
        begun = time.monotonic()
        print(f"\n{name}: {summary(name)}")
        try:
            figures = SCENARIOS[name]()
        except (OSError, AssertionError, subprocess.SubprocessError):
            # The others are worth being played all the same.
            traceback.print_exc(file=sys.stdout)
            missed += 1
            continue
        for figure in figures:
            print(figure)
        print(f"  ({time.monotonic() - begun:.1f} s)", flush=True)
        missed += sum(not figure.holds for figure in figures)
    print(f"\n{missed} figures out of bounds (marked !)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
