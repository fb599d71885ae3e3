"""The command: soak, print a summary, and fail if anything was wrong."""

from __future__ import annotations

import argparse
import sys
import time

from tests.soak.runs import Plan, soak


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=0.5, help="how long (0.5)")
    parser.add_argument("--seed", default=str(int(time.time())), help="what the clients do")
    parser.add_argument("--clients", type=int, default=24, help="how many at once (24)")
    parser.add_argument("--rest", type=float, default=20, help="seconds between two rests (20)")
    options = parser.parse_args(argv)
    print(f"seed {options.seed}", flush=True)
    plan = Plan(options.minutes * 60, options.seed, options.clients, options.rest)
    figures = soak(plan, lambda line: print(line, flush=True))
    missed = [figure for figure in figures if not figure.holds]
    print(*figures, sep="\n")
    print(f"{len(missed)} figures out of bounds (marked !)" if missed else "all well")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
