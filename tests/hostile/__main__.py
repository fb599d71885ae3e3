"""The command: play scenarios, and print the figures of each."""

from __future__ import annotations

import argparse
import sys
import time

from tests.hostile.scenarios import SCENARIOS


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
            print(name)
        return 0
    missed = 0
    for name in options.names or SCENARIOS:
        begun = time.monotonic()
        figures = SCENARIOS[name]()
        print(f"\n{name} ({time.monotonic() - begun:.1f} s)")
        for figure in figures:
            print(figure)
        sys.stdout.flush()
        missed += sum(not figure.holds for figure in figures)
    print(f"\n{missed} figures out of bounds (marked !)")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
